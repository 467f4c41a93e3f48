"""Moments of the cosines over weighted sets of frames, as a CPU kernel: see `reference.cosines_in_weighted_frames`."""

from __future__ import annotations

import math

import numpy as np

from crystalframer.compiled import kernel
from crystalframer.ops.frame_kernels import ONE_LINE, odds, off_axis, orthogonal, strongest
from crystalframer.ops.kernels import MATHS, N_ROWS, ROW, add_cosine_moments, eight_polynomials, most_items

MOST_AXES = 64
"""Number of different axes that are collected before their moments are summed."""
RARE = np.float32(1e-8)
"""Weight of a member below which it is left out."""


@kernel(MATHS)
def cosines_of_sets(first_atom, last_atom, first_edge, is_self, directions, strengths, margin, by_sine, moments):
    """Attended Chebyshev products of the cosines to each axis: (n_heads, n_atoms, 3 · degree).

    The weights are e^scores up to a factor of each atom and head; scores within the margin of the best are in the set.
    """
    scores, weights, attention, n_seen, n_compared = strengths
    n_heads, degree = attention.shape[0], moments.shape[2] // 3
    most = most_items(first_atom, last_atom, first_edge)
    others, sines, values = np.empty(most, np.float32), np.empty(most, np.float32), np.empty(most, np.float32)
    directed, of_axis = np.empty(most, np.float32), np.empty(degree, np.float32)
    firsts, first_odds = np.empty(most, np.int64), np.empty(most, np.float32)
    seconds, second_odds = np.empty(most, np.int64), np.empty(most, np.float32)
    gathered, n_gathered = np.empty((3, 5, MOST_AXES), np.float32), np.zeros(3, np.int64)
    t = np.empty(N_ROWS * ROW, np.float32)
    share = np.float32(math.exp(-margin))
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        for n in range(stop - start):
            others[n] = np.float32(0.0) if is_self[start + n] else np.float32(1.0)
        for h in range(n_heads):
            count = n_compared[h, i]
            x, y, z = directions[0, start:stop], directions[1, start:stop], directions[2, start:stop]
            u, v, w = x[:count], y[:count], z[:count]
            possible = others[:count]
            logarithms, sizes = scores[h, start : start + count], weights[h, start : start + count]
            out, seen = moments[h, i], n_seen[h, i]
            out[:] = np.float32(0.0)
            for n in range(seen):
                directed[n] = attention[h, start + n] * others[n]
            for n in range(count):
                values[n] = sizes[n] * possible[n]
            n_first = strongest(logarithms, possible, values[:count], share, firsts)
            odds(values, firsts, n_first, margin, sines, first_odds)
            for c in range(n_first):
                if first_odds[c] < RARE:
                    continue
                x1, y1, z1 = x[firsts[c]], y[firsts[c]], z[firsts[c]]
                off_axis(u, v, w, x1, y1, z1, by_sine, possible, sines)
                for n in range(count):
                    values[n] = sizes[n] * sines[n]
                n_second = strongest(logarithms, sines[:count], values[:count], share, seconds)
                odds(values, seconds, n_second, margin, sines, second_odds)
                _gather(gathered[0], n_gathered, 0, x1, y1, z1, first_odds[c])
                for s in range(n_second):
                    weight = first_odds[c] * second_odds[s]
                    if weight < RARE:
                        continue
                    x2, y2, z2 = orthogonal(x, y, z, x1, y1, z1, seconds[s])
                    x3, y3, z3 = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
                    _gather(gathered[1], n_gathered, 1, x2, y2, z2, weight)
                    _gather(gathered[2], n_gathered, 2, x3, y3, z3, weight)
                    for axis in range(3):
                        if n_gathered[axis] == MOST_AXES:
                            moments_of_axis = out[axis * degree : (axis + 1) * degree]
                            _sum(
                                gathered[axis], n_gathered, axis, x, y, z, directed[:seen], t, of_axis, moments_of_axis
                            )
            for axis in range(3):
                moments_of_axis = out[axis * degree : (axis + 1) * degree]
                _sum(gathered[axis], n_gathered, axis, x, y, z, directed[:seen], t, of_axis, moments_of_axis)


@kernel(MATHS, inlined=True)
def _gather(axes, n_axes, k, x, y, z, weight):
    """Add a weight to an axis of those that are gathered, or to its opposite, or the axis to them.

    An axis and its opposite have the same even moments, and odd ones that differ in sign: their weights are kept as sum
    and difference.
    """
    count = n_axes[k]
    same = opposite = -1
    for n in range(count):  # to the end, which has vector instructions
        r, s, t = axes[0, n], axes[1, n], axes[2, n]
        same = n if abs(r - x) + abs(s - y) + abs(t - z) < ONE_LINE else same
        opposite = n if abs(r + x) + abs(s + y) + abs(t + z) < ONE_LINE else opposite
    if same >= 0:
        axes[3, same] += weight
        axes[4, same] += weight
    elif opposite >= 0:
        axes[3, opposite] += weight
        axes[4, opposite] -= weight
    else:
        axes[0, count], axes[1, count], axes[2, count] = x, y, z
        axes[3, count] = axes[4, count] = weight
        n_axes[k] = count + 1


@kernel(MATHS)
def _sum(axes, n_axes, k, x, y, z, directed, t, of_axis, out):
    """Add the moments along the gathered axes, and forget these."""
    count, degree = len(directed), len(out)
    for n in range(n_axes[k]):
        of_axis[:] = np.float32(0.0)
        for first in range(0, count, ROW):
            last = min(first + ROW, count)
            eight_polynomials(t, x[first:last], y[first:last], z[first:last], axes[0, n], axes[1, n], axes[2, n])
            add_cosine_moments(t, directed[first:last], of_axis, 0, degree)
        for m in range(0, degree, 2):
            out[m] += axes[3, n] * of_axis[m]
            out[m + 1] += axes[4, n] * of_axis[m + 1]
    n_axes[k] = 0
