"""Moments of the cosines over weighted sets of frames, as a CPU kernel: see `reference.cosines_in_weighted_frames`.

A set has few members, and few of the edges are strong enough to be one: members are looked for among the *near* edges,
up to the last that is not weak. Axes of the members are gathered first, each line once. Then the moments are summed
over long rows of items, an edge and an axis each, so that short loops and their ends are few.
"""

from __future__ import annotations

import math

import numpy as np

from crystalframer.compiled import kernel
from crystalframer.kernels.attention import (
    MATHS,
    NEGLIGIBLE,
    NEXT,
    NOWHERE,
    ONE,
    PAD,
    ROW,
    ZERO,
    add_cosine_moments,
    aligned,
    copy_directions,
    mark_others,
    most_items,
)
from crystalframer.kernels.frames import (
    ONE_LINE,
    SMALLEST_WEIGHT,
    candidates_within,
    form_anew,
    largest_of,
    odds,
    off_axis,
    orthogonal,
)
from crystalframer.kernels.vectors import any_at_least, clamp, load, splat, store

MANY_AXES = 64
"""Number of different axes that are gathered before their moments are summed."""
RARE = np.float32(1e-8)
"""Weight of a member below which it is left out."""
WEAK = np.float32(0.05)
"""Edges of a smaller share of the largest weight are looked at only where all stronger ones are near the line of e₁."""
WEIGHTS, SPARE = np.uint64(ROW), np.uint64(2 * ROW)
"""Places in the scratch memory behind the cosines: weights, and what `add_cosine_moments` needs."""


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
    rows = aligned(3 * ROW)
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
                for first in range(0, count, PAD):
                    near = first + PAD if first == 0 or any_at_least(load(values, np.uint64(first)), weak) else near
            n_first = candidates_within(values, largest * share, near, firsts)
            odds(values, firsts, n_first, margin, sines, first_odds)
            for c in range(n_first):
                if first_odds[c] >= RARE:
                    x1, y1, z1 = x[firsts[c]], y[firsts[c]], z[firsts[c]]
                    of_opposite = _taken_with_opposite(x, y, z, firsts, first_odds, n_first, c)
                    even_1, odd_1 = first_odds[c] + of_opposite, first_odds[c] - of_opposite
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
                    _gather(axes, n_axes, 0, x1, y1, z1, even_1, odd_1)
                    for s in range(n_second):
                        weight = even_1 * second_odds[s]
                        if weight < RARE:
                            continue
                        x2, y2, z2 = orthogonal(x, y, z, x1, y1, z1, seconds[s])
                        x3, y3, z3 = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
                        _gather(axes, n_axes, 1, x2, y2, z2, weight, weight)
                        _gather(axes, n_axes, 2, x3, y3, z3, weight, odd_1 * second_odds[s])
                if c == n_first - 1 or max(n_axes[1], n_axes[2]) >= MANY_AXES:
                    for k in range(3):
                        _sum(axes, n_axes, k, False, x, y, z, directed, seen, rows, moments, h, i, degree)
                        _sum(axes, n_axes, k, True, x, y, z, directed, seen, rows, moments, h, i, degree)
                        n_axes[k] = 0


@kernel(MATHS, inlined=True)
def _taken_with_opposite(x, y, z, firsts, odds, n_first, c):
    """The weight of the member opposite to member `c`, which then counts no more; 0 if there is none.

    The second axes are those of the same edges, which lie on the same line or off it; only the third is opposite.
    """
    edge, weight = firsts[c], ZERO
    for other in range(c + 1, n_first):
        e = firsts[other]
        if abs(x[e] + x[edge]) + abs(y[e] + y[edge]) + abs(z[e] + z[edge]) < ONE_LINE:
            weight, odds[other] = weight + odds[other], ZERO
    return weight


@kernel(MATHS, inlined=True)
def _gather(axes, n_axes, k, x, y, z, even, odd):
    """Add weights to an axis of those that are gathered, or to its opposite, or the axis to them.

    An axis and its opposite have the same even moments, and odd ones that differ in sign.
    """
    count = n_axes[k]
    same = opposite = -1
    for n in range(count):  # to the end, which has vector instructions
        r, s, t = axes[k, 0, n], axes[k, 1, n], axes[k, 2, n]
        same = n if abs(r - x) + abs(s - y) + abs(t - z) < ONE_LINE else same
        opposite = n if abs(r + x) + abs(s + y) + abs(t + z) < ONE_LINE else opposite
    if same >= 0:
        axes[k, 3, same] += even
        axes[k, 4, same] += odd
    elif opposite >= 0:
        axes[k, 3, opposite] += even
        axes[k, 4, opposite] -= odd
    else:
        axes[k, 0, count], axes[k, 1, count], axes[k, 2, count] = x, y, z
        axes[k, 3, count], axes[k, 4, count] = even, odd
        n_axes[k] = count + 1


@kernel(MATHS, inlined=True)
def _sum(axes, n_axes, k, of_odd, x, y, z, directed, n_edges, rows, moments, h, i, degree):
    """Add the even moments along the gathered axes, or the odd ones."""
    axis, first = 0, 0
    place = (np.uint64(h) * np.uint64(moments.shape[1]) + np.uint64(i)) * np.uint64(moments.shape[2])
    place += np.uint64(k * degree)
    while axis < n_axes[k]:
        n_items = 0
        while axis < n_axes[k] and n_items < ROW:
            u, v, w = axes[k, 0, axis], axes[k, 1, axis], axes[k, 2, axis]
            weight = axes[k, 4 if of_odd else 3, axis]
            if abs(weight) < RARE:
                axis += 1
                continue
            size = min(n_edges - first, ROW - n_items)
            for n in range(NOWHERE, np.uint64(size), NEXT):
                edge, item = np.uint64(first) + n, np.uint64(n_items) + n
                cosines = load(x, edge) * splat(u) + load(y, edge) * splat(v) + load(z, edge) * splat(w)
                store(rows, item, clamp(cosines, splat(-ONE), splat(ONE)))
                store(rows, WEIGHTS + item, load(directed, edge) * splat(weight))
            n_items += size
            first += size
            if first == n_edges:
                axis, first = axis + 1, 0
        add_cosine_moments(rows, WEIGHTS, SPARE, np.uint64(n_items), moments, place, degree, of_odd, False)
