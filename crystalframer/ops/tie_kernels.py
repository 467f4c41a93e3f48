"""Moments of the cosines over weighted sets of frames, as a CPU kernel: see `reference.cosines_in_weighted_frames`."""

from __future__ import annotations

import math

import numpy as np

from crystalframer.compiled import kernel
from crystalframer.ops.frame_kernels import ONE_LINE, odds, off_axis, orthogonal, strongest
from crystalframer.ops.kernels import MATHS, N_ROWS, ROW, add_cosine_moments, eight_polynomials, most_items

MOST_AXES = 64
"""Number of different axes that are collected before their moments are summed."""


@kernel(MATHS)
def cosines_of_sets(first_atom, last_atom, first_edge, is_self, directions, strengths, margin, by_sine, moments):
    """Attended Chebyshev products of the cosines to each axis: (n_heads, n_atoms, 3 · degree).

    The weights are e^scores up to a factor of each atom and head; scores within the margin of the best are in the set.
    """
    scores, weights, attention, n_seen = strengths
    n_heads, degree = attention.shape[0], moments.shape[2] // 3
    most = most_items(first_atom, last_atom, first_edge)
    others, sines, values = np.empty(most, np.float32), np.empty(most, np.float32), np.empty(most, np.float32)
    firsts, first_odds = np.empty(most, np.int64), np.empty(most, np.float32)
    seconds, second_odds = np.empty(most, np.int64), np.empty(most, np.float32)
    gathered, n_gathered = np.empty((3, MOST_AXES, 4), np.float32), np.zeros(3, np.int64)
    t, scaled = np.empty(N_ROWS * ROW, np.float32), np.empty(ROW, np.float32)
    share = np.float32(math.exp(-margin))
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        count = stop - start
        x, y, z = directions[0, start:stop], directions[1, start:stop], directions[2, start:stop]
        for n in range(count):
            others[n] = np.float32(0.0) if is_self[start + n] else np.float32(1.0)
        for h in range(n_heads):
            logarithms, sizes = scores[h, start:stop], weights[h, start:stop]
            seen = attention[h, start : start + n_seen[h, i]]
            out = moments[h, i]
            out[:] = np.float32(0.0)
            for n in range(count):
                values[n] = sizes[n] * others[n]
            n_first = strongest(logarithms, others[:count], values[:count], share, firsts)
            odds(values, firsts, n_first, margin, first_odds)
            for c in range(n_first):
                x1, y1, z1 = x[firsts[c]], y[firsts[c]], z[firsts[c]]
                off_axis(x, y, z, x1, y1, z1, by_sine, others, sines)
                for n in range(count):
                    values[n] = sizes[n] * sines[n]
                n_second = strongest(logarithms, sines[:count], values[:count], share, seconds)
                odds(values, seconds, n_second, margin, second_odds)
                for s in range(n_second):
                    weight = first_odds[c] * second_odds[s]
                    x2, y2, z2 = orthogonal(x, y, z, x1, y1, z1, seconds[s])
                    x3, y3, z3 = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
                    _gather(gathered[0], n_gathered, 0, x1, y1, z1, weight)
                    _gather(gathered[1], n_gathered, 1, x2, y2, z2, weight)
                    _gather(gathered[2], n_gathered, 2, x3, y3, z3, weight)
                    for axis in range(3):
                        if n_gathered[axis] == MOST_AXES:
                            moments_of_axis = out[axis * degree : (axis + 1) * degree]
                            _sum(gathered[axis], n_gathered, axis, x, y, z, seen, others, t, scaled, moments_of_axis)
            for axis in range(3):
                moments_of_axis = out[axis * degree : (axis + 1) * degree]
                _sum(gathered[axis], n_gathered, axis, x, y, z, seen, others, t, scaled, moments_of_axis)


@kernel(MATHS)
def _gather(axes, n_axes, k, x, y, z, weight):
    """Add a weight to an axis of those that are gathered, or the axis to them."""
    for n in range(n_axes[k]):
        if abs(axes[n, 0] - x) + abs(axes[n, 1] - y) + abs(axes[n, 2] - z) < ONE_LINE:
            axes[n, 3] += weight
            return
    axes[n_axes[k], 0], axes[n_axes[k], 1], axes[n_axes[k], 2], axes[n_axes[k], 3] = x, y, z, weight
    n_axes[k] += 1


@kernel(MATHS)
def _sum(axes, n_axes, k, x, y, z, attention, others, t, scaled, out):
    """Add the moments along the gathered axes, and forget these."""
    count, degree = len(attention), len(out)
    for n in range(n_axes[k]):
        for first in range(0, count, ROW):
            size = min(ROW, count - first)
            last = first + size
            for e in range(size):
                scaled[e] = axes[n, 3] * attention[first + e] * others[first + e]
            eight_polynomials(t, x[first:last], y[first:last], z[first:last], axes[n, 0], axes[n, 1], axes[n, 2])
            add_cosine_moments(t, scaled[:size], out, 0, degree)
    n_axes[k] = 0
