"""Moments of the cosines over weighted sets of frames, as a CPU kernel: see `reference.cosines_in_weighted_frames`.

A set has few members, and few of the edges are strong enough to be one: members are looked for among the *near* edges,
up to the last that is not weak. Axes of the members are gathered first, each line once. Then the moments are summed
over long rows of items, an edge and an axis each, so that short loops and their ends are few.
"""

from __future__ import annotations

import math

import numpy as np

from crystalframer.compiled import kernel
from crystalframer.ops.frame_kernels import (
    ONE_LINE,
    SMALLEST_WEIGHT,
    candidates_within,
    form_anew,
    largest_of,
    odds,
    off_axis,
    orthogonal,
)
from crystalframer.ops.kernels import (
    COSINE,
    MATHS,
    N_ROWS,
    NEGLIGIBLE,
    PAD,
    ROW,
    add_cosine_moments,
    aligned,
    copy_directions,
    eight_polynomials,
    mark_others,
    most_items,
)

MANY_AXES = 64
"""Number of different axes that are gathered before their moments are summed."""
RARE = np.float32(1e-8)
"""Weight of a member below which it is left out."""
WEAK = np.float32(0.05)
"""Edges of a smaller share of the largest weight are looked at only where all stronger ones are near the line of e₁."""
RATIO = N_ROWS
"""A further row of the scratch memory: weights of the odd moments by those of the even ones."""


@kernel(MATHS)
def cosines_of_sets(first_atom, last_atom, first_edge, is_self, directions, strengths, margin, by_sine, moments):
    """Attended Chebyshev products of the cosines to each axis: (n_heads, n_atoms, 3 · degree).

    The weights are e^scores up to a factor of each atom and head; scores within the margin of the best are in the set.
    """
    scores, weights, attention, n_seen, n_compared = strengths
    n_heads, degree = attention.shape[0], moments.shape[2] // 3
    most = most_items(first_atom, last_atom, first_edge)
    x, y, z, others = aligned(most), aligned(most), aligned(most), aligned(most)
    sines, directed = aligned(most), aligned(most)
    values = aligned(most + 1)
    bits = values.view(np.int32)
    firsts, first_odds = np.empty(most, np.int64), np.empty(most, np.float32)
    seconds, second_odds = np.empty(most, np.int64), np.empty(most, np.float32)
    axes, n_axes = np.empty((3, 5, MANY_AXES + most), np.float32), np.zeros(3, np.int64)
    rows = aligned((N_ROWS + 1) * ROW).reshape((N_ROWS + 1, ROW))
    share = np.float32(math.exp(-margin))
    weak_share = min(WEAK, share)
    for i in range(first_atom, last_atom):
        start, n_edges = np.uint64(first_edge[i]), first_edge[i + 1] - first_edge[i]
        mark_others(is_self, start, n_edges, others)
        copy_directions(directions, start, n_edges, x, y, z)
        for h in range(n_heads):
            count, seen = n_compared[h, i], n_seen[h, i]
            for m in range(3 * degree):
                moments[h, i, m] = np.float32(0.0)
            total = np.float32(0.0)
            for n in range(seen):
                directed[n] = attention[h, start + np.uint64(n)] * others[n]
                total += directed[n]
            if total < NEGLIGIBLE:  # as much as the moments can be
                continue
            for n in range(count):
                values[n] = weights[h, start + np.uint64(n)] * others[n]
            largest = largest_of(values, bits, count)
            weak, near = largest * weak_share, count
            if largest < SMALLEST_WEIGHT:
                largest = form_anew(scores, h, start, others, count, values)
            else:
                near = PAD
                for n in range(count):
                    near = n + 1 if values[n] >= weak else near
                near = (near + PAD - 1) // PAD * PAD
            n_first = candidates_within(values, largest * share, near, firsts)
            odds(values, firsts, n_first, margin, sines, first_odds)
            for c in range(n_first):
                if first_odds[c] >= RARE:
                    x1, y1, z1 = x[firsts[c]], y[firsts[c]], z[firsts[c]]
                    compared, best = near, np.float32(0.0)
                    while True:
                        off_axis(x, y, z, x1, y1, z1, by_sine, others, compared, sines)
                        for n in range(compared):
                            values[n] = weights[h, start + np.uint64(n)] * sines[n]
                        best = largest_of(values, bits, compared)
                        if compared == count or best * share > weak:
                            break
                        compared = count
                    if best < SMALLEST_WEIGHT:
                        best = form_anew(scores, h, start, sines, compared, values)
                    n_second = candidates_within(values, best * share, compared, seconds)
                    odds(values, seconds, n_second, margin, sines, second_odds)
                    _gather(axes, n_axes, 0, x1, y1, z1, first_odds[c])
                    for s in range(n_second):
                        weight = first_odds[c] * second_odds[s]
                        if weight < RARE:
                            continue
                        x2, y2, z2 = orthogonal(x, y, z, x1, y1, z1, seconds[s])
                        x3, y3, z3 = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
                        _gather(axes, n_axes, 1, x2, y2, z2, weight)
                        _gather(axes, n_axes, 2, x3, y3, z3, weight)
                if c == n_first - 1 or max(n_axes[1], n_axes[2]) >= MANY_AXES:
                    for k in range(3):
                        _sum(axes, n_axes, k, x, y, z, directed, seen, rows, moments, h, i, degree)


@kernel(MATHS, inlined=True)
def _gather(axes, n_axes, k, x, y, z, weight):
    """Add a weight to an axis of those that are gathered, or to its opposite, or the axis to them.

    An axis and its opposite have the same even moments, and odd ones that differ in sign: their weights are kept as sum
    and difference.
    """
    count = n_axes[k]
    same = opposite = -1
    for n in range(count):  # to the end, which has vector instructions
        r, s, t = axes[k, 0, n], axes[k, 1, n], axes[k, 2, n]
        same = n if abs(r - x) + abs(s - y) + abs(t - z) < ONE_LINE else same
        opposite = n if abs(r + x) + abs(s + y) + abs(t + z) < ONE_LINE else opposite
    if same >= 0:
        axes[k, 3, same] += weight
        axes[k, 4, same] += weight
    elif opposite >= 0:
        axes[k, 3, opposite] += weight
        axes[k, 4, opposite] -= weight
    else:
        axes[k, 0, count], axes[k, 1, count], axes[k, 2, count] = x, y, z
        axes[k, 3, count] = axes[k, 4, count] = weight
        n_axes[k] = count + 1


@kernel(MATHS, inlined=True)
def _sum(axes, n_axes, k, x, y, z, directed, n_edges, rows, moments, h, i, degree):
    """Add the moments along the gathered axes, and forget these."""
    axis, first = 0, 0
    while axis < n_axes[k]:
        n_items = 0
        while axis < n_axes[k] and n_items < ROW:
            u, v, w, even = axes[k, 0, axis], axes[k, 1, axis], axes[k, 2, axis], axes[k, 3, axis]
            ratio, size = axes[k, 4, axis] / even, min(n_edges - first, ROW - n_items)
            edge, item = np.uint64(first), np.uint64(n_items)
            for n in range(size):
                place = edge + np.uint64(n)
                rows[COSINE, item + np.uint64(n)] = x[place] * u + y[place] * v + z[place] * w
            for n in range(size):
                rows[0, item + np.uint64(n)] = directed[edge + np.uint64(n)] * even
            for n in range(size):
                rows[RATIO, item + np.uint64(n)] = ratio
            n_items += size
            first += size
            if first == n_edges:
                axis, first = axis + 1, 0
        eight_polynomials(rows, n_items)
        for n in range(n_items):
            ratio = rows[RATIO, n]
            rows[1, n] *= ratio
            rows[3, n] *= ratio
            rows[5, n] *= ratio
            rows[7, n] *= ratio
        add_cosine_moments(rows, n_items, moments, h, i, k * degree, degree)
    n_axes[k] = 0
