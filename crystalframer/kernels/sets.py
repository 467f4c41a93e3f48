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
    CHUNK,
    HALF,
    MATHS,
    NEGLIGIBLE,
    NEXT,
    NOWHERE,
    ONE,
    PAD,
    ZERO,
    add_cosine_moments,
    aligned,
    copy_directions,
    degree_of,
    first_moment,
    mark_others,
    most_items,
)
from crystalframer.kernels.frames import (
    ONE_LINE,
    SMALLEST_SINE,
    SMALLEST_WEIGHT,
    odds,
    strongest,
    weigh,
    weigh_off_axis,
)
from crystalframer.kernels.vectors import (
    at_least,
    clamp,
    larger,
    largest,
    load,
    lowest_bit,
    splat,
    square_root,
    store,
    total,
    where_less,
)

MANY_AXES = 64
"""Number of different axes that are gathered before their moments are summed."""
ROW = 1024
"""Items of an edge and an axis after which their moments are summed."""
RARE = np.float32(1e-8)
"""Weight of a member below which it is left out."""
SMALL_SINE = np.float32(0.1)
"""Above it, an axis at right angles to another one has the length 1 but for rounding."""
WEAK = np.float32(0.05)
"""Edges of a smaller share of the largest weight are looked at only where all stronger ones are near the line of e₁."""


@kernel(MATHS)
def cosines_of_sets(first_atom, last_atom, first_edge, is_self, directions, strengths, margin, by_sine, hand, moments):
    """Moments of the cosines to each axis, as of `kernels.attention.accumulate`: (n_heads, n_atoms, n_moments).

    The weights are e^scores up to a factor of each atom and head; scores within the margin of the best are in the set.
    """
    scores, weights, attention, n_seen, n_compared = strengths
    n_heads, n_moments = attention.shape[0], moments.shape[2]
    degree = degree_of(n_moments, hand)
    most = most_items(first_atom, last_atom, first_edge)
    x, y, z, others = aligned(most), aligned(most), aligned(most), aligned(most)
    sines, directed, values, of_blocks = aligned(most), aligned(most), aligned(most), aligned(most // PAD)
    edges = x, y, z, directed, of_blocks
    firsts, first_odds = np.empty(most, np.int64), np.empty(most, np.float32)
    seconds, second_odds = np.empty(most, np.int64), np.empty(most, np.float32)
    axes, n_axes = np.empty((3, 5, MANY_AXES + most), np.float32), np.zeros(3, np.int64)
    e1, pairs = np.zeros((3, most), np.float32), np.zeros((6, most), np.float32)
    rows = aligned(4 * (ROW + most))
    share = np.float32(math.exp(-margin))
    weak_share = min(WEAK, share)
    for i in range(first_atom, last_atom):
        start, n_edges = np.uint64(first_edge[i]), first_edge[i + 1] - first_edge[i]
        mark_others(is_self, start, n_edges, others)
        copy_directions(directions, start, n_edges, x, y, z)
        for h in range(n_heads):
            count, seen = n_compared[h, i], n_seen[h, i]
            for m in range(n_moments):
                moments[h, i, m] = np.float32(0.0)
            of_head, sums = np.uint64(h) * np.uint64(weights.shape[1]) + start, splat(ZERO)
            for n in range(NOWHERE, np.uint64(seen), NEXT):
                seen_there = load(attention, of_head + n) * load(others, n)
                store(directed, n, seen_there)
                sums = sums + seen_there
                of_blocks[n // NEXT] = largest(seen_there)
            if total(sums) < NEGLIGIBLE:  # as much as the moments can be
                continue
            highest = weigh(weights, of_head, others, count, values)
            weak, near = highest * weak_share, count
            if highest >= SMALLEST_WEIGHT:
                while near > PAD and not at_least(load(values, np.uint64(near - PAD)), weak):
                    near -= PAD
            n_first = strongest(scores, h, start, others, values, highest, near, share, firsts)
            odds(values, firsts, n_first, margin, sines, first_odds)
            for c in range(n_first):
                e1[0, c], e1[1, c], e1[2, c] = x[firsts[c]], y[firsts[c]], z[firsts[c]]
            for c in range(n_first):
                if first_odds[c] >= RARE:
                    x1, y1, z1 = e1[0, c], e1[1, c], e1[2, c]
                    of_opposite = _taken_with_opposite(e1, first_odds, n_first, c)
                    even_1, odd_1 = first_odds[c] + of_opposite, first_odds[c] - of_opposite
                    compared = near
                    while True:
                        highest = weigh_off_axis(
                            x, y, z, x1, y1, z1, by_sine, weights, of_head, others, compared, sines, values
                        )
                        if compared == count or highest * share > weak:
                            break
                        compared = count
                    n_second = strongest(scores, h, start, sines, values, highest, compared, share, seconds)
                    odds(values, seconds, n_second, margin, sines, second_odds)
                    _append(axes, n_axes, 0, x1, y1, z1, even_1, odd_1)
                    _complete(x, y, z, (x1, y1, z1), seconds, n_second, pairs)
                    for s in range(n_second):
                        weight = even_1 * second_odds[s]
                        if weight >= RARE:
                            _gather(axes, n_axes, 1, pairs[0, s], pairs[1, s], pairs[2, s], weight, weight)
                            odd = odd_1 * second_odds[s]
                            _gather(axes, n_axes, 2, pairs[3, s], pairs[4, s], pairs[5, s], weight, odd)
                if c == n_first - 1 or max(n_axes[1], n_axes[2]) >= MANY_AXES:
                    for k in range(3):
                        _sum(axes, n_axes[k], k, edges, seen, rows, moments, h, i, degree, hand)
                        n_axes[k] = 0


@kernel(MATHS, inlined=True)
def _taken_with_opposite(e1, odds, n_first, c):
    """The weight of the member opposite to member `c`, which then counts no more; 0 if there is none.

    The second axes are those of the same edges, which lie on the same line or off it; only the third is opposite.
    """
    step, weight = np.uint64(e1.shape[1]), ZERO
    x, y, z = splat(e1[0, c]), splat(e1[1, c]), splat(e1[2, c])
    for first in range(np.uint64(c // PAD * PAD), np.uint64(n_first), NEXT):
        u, v, w = load(e1, first) + x, load(e1, first + step) + y, load(e1, first + step + step) + z
        bits = at_least(splat(ONE_LINE * ONE_LINE) - (u * u + v * v + w * w), ZERO)
        while bits:
            other = np.int64(first + lowest_bit(bits))
            bits &= bits - np.uint64(1)
            if c < other < n_first:
                weight, odds[other] = weight + odds[other], ZERO
    return weight


@kernel(MATHS, inlined=True)
def _complete(x, y, z, e1, seconds, count, pairs):
    """e₂ towards each of these edges and e₃ = e₁ × e₂: the six coordinates. See `maths.ties.right_handed`."""
    step = np.uint64(pairs.shape[1])
    to_z = step + step
    x1, y1, z1, smallest, zero = splat(e1[0]), splat(e1[1]), splat(e1[2]), splat(SMALLEST_SINE), splat(ZERO)
    for n in range(count):
        edge = seconds[n]
        pairs[0, n], pairs[1, n], pairs[2, n] = x[edge], y[edge], z[edge]
    for n in range(NOWHERE, np.uint64(count), NEXT):
        u, v, w = load(pairs, n), load(pairs, n + step), load(pairs, n + to_z)
        along = x1 * u + y1 * v + z1 * w
        u, v, w = u - along * x1, v - along * y1, w - along * z1
        sine = square_root(u * u + v * v + w * w)
        shrink = splat(ONE) / larger(sine, smallest)
        u, v, w = u * shrink, v * shrink, w * shrink
        along = x1 * u + y1 * v + z1 * w  # rounding
        u, v, w = u - along * x1, v - along * y1, w - along * z1
        if at_least(splat(SMALL_SINE) - sine, ZERO):
            shrink = splat(ONE) / larger(square_root(u * u + v * v + w * w), smallest)
            u, v, w = u * shrink, v * shrink, w * shrink
            u = where_less(smallest, sine, u, zero)
            v = where_less(smallest, sine, v, zero)
            w = where_less(smallest, sine, w, zero)
        store(pairs, n, u)
        store(pairs, n + step, v)
        store(pairs, n + to_z, w)
        store(pairs, n + to_z + step, y1 * w - z1 * v)
        store(pairs, n + to_z + to_z, z1 * u - x1 * w)
        store(pairs, n + to_z + to_z + step, x1 * v - y1 * u)


@kernel(MATHS, inlined=True)
def _gather(axes, n_axes, k, x, y, z, even, odd):
    """Add weights to an axis of those that are gathered, or to its opposite, or the axis to them.

    An axis and its opposite have the same even moments, and odd ones that differ in sign.
    """
    count, same, opposite = n_axes[k], -1, -1
    step = np.uint64(axes.shape[2])
    start = np.uint64(5 * k) * step
    for first in range(NOWHERE, np.uint64(count), NEXT):
        r, s, t = load(axes, start + first), load(axes, start + step + first), load(axes, start + step + step + first)
        u, v, w = r - splat(x), s - splat(y), t - splat(z)
        nearest = u * u + v * v + w * w
        u, v, w = r + splat(x), s + splat(y), t + splat(z)
        nearest = clamp(nearest, splat(ZERO), u * u + v * v + w * w)
        if at_least(splat(ONE_LINE * ONE_LINE) - nearest, ZERO):
            for n in range(np.int64(first), min(np.int64(first) + PAD, count)):
                a, b, c = axes[k, 0, n], axes[k, 1, n], axes[k, 2, n]
                same = n if abs(a - x) + abs(b - y) + abs(c - z) < ONE_LINE else same
                opposite = n if abs(a + x) + abs(b + y) + abs(c + z) < ONE_LINE else opposite
    if same >= 0:
        axes[k, 3, same] += even
        axes[k, 4, same] += odd
    elif opposite >= 0:
        axes[k, 3, opposite] += even
        axes[k, 4, opposite] -= odd
    else:
        _append(axes, n_axes, k, x, y, z, even, odd)


@kernel(MATHS, inlined=True)
def _append(axes, n_axes, k, x, y, z, even, odd):
    """Gather an axis."""
    count = n_axes[k]
    axes[k, 0, count], axes[k, 1, count], axes[k, 2, count] = x, y, z
    axes[k, 3, count], axes[k, 4, count] = even, odd
    n_axes[k] = count + 1


@kernel(MATHS, inlined=True)
def _sum(axes, n_axes, k, edges, n_edges, rows, moments, h, i, degree, hand):
    """Add the moments along the gathered axes."""
    x, y, z, directed, of_blocks = edges
    place = (np.uint64(h) * np.uint64(moments.shape[1]) + np.uint64(i)) * np.uint64(moments.shape[2])
    place += np.uint64(first_moment(k, degree, hand))
    item, n_odd, stride = NOWHERE, NOWHERE, np.uint64(len(rows) // 4)
    for of_odd in range(1, -1, -1):  # those with odd moments come first
        for axis in range(n_axes):
            weight, odd = axes[k, 3, axis], ZERO if k == hand else axes[k, 4, axis]
            if (abs(odd) >= RARE) == (of_odd == 1):
                u, v, w = splat(axes[k, 0, axis]), splat(axes[k, 1, axis]), splat(axes[k, 2, axis])
                least = NEGLIGIBLE / max(weight * np.float32(n_axes), RARE)
                for edge in range(NOWHERE, np.uint64(n_edges), NEXT):
                    if not of_blocks[edge // NEXT] < least:  # NaN is kept
                        cosines = load(x, edge) * u + load(y, edge) * v + load(z, edge) * w
                        cosines = clamp(cosines, splat(-ONE), splat(ONE))
                        seen = load(directed, edge)
                        store(rows, item, cosines)
                        store(rows, stride + item, seen * splat(weight))
                        if of_odd:
                            store(rows, stride + stride + item, seen * splat(odd) * cosines)
                        item += NEXT
                n_odd = item if of_odd else n_odd
            if item >= ROW or (of_odd == 0 and axis == n_axes - 1):
                step = HALF if k == hand else CHUNK
                for half in range(2 if n_odd > 0 else 1):
                    size, to = n_odd if half else item, place + np.uint64(half * HALF)
                    given = stride + np.uint64(half) * stride
                    add_cosine_moments(rows, given, 3 * stride, size, moments, to, degree, step, False)
                item = n_odd = NOWHERE
