"""`maths.frames.max_frames` as a CPU kernel: the same rule for axes and ties, one atom and head at a time.

The reference compares log-weights. The kernel compares weights, which saves a logarithm for every edge: a margin
becomes a ratio, and noise a factor.
"""

from __future__ import annotations

import math

import numpy as np

from crystalframer.compiled import kernel
from crystalframer.kernels.attention import MATHS, NEXT, NOWHERE, aligned, copy_directions, mark_others, most_items
from crystalframer.kernels.vectors import any_at_least, load
from crystalframer.maths import constants

COLLINEAR = np.float32(constants.COLLINEAR)
SMALLEST_SINE_SCORE = np.float32(constants.SMALLEST_SINE_SCORE)
MULTIPLIERS = tuple(np.uint32(number) for number in constants.MULTIPLIERS)
TIE_WEIGHTS = tuple(tuple(np.float32(weight) for weight in of_axis) for of_axis in constants.TIE_WEIGHTS)
EQUIVALENT = np.float32(constants.EQUIVALENT)
SMALLEST_SINE = np.float32(constants.SMALLEST_SINE)
SMALLEST_SQUARED_SINE = np.float32(constants.SMALLEST_SQUARED_SINE)
UNIFORM_STEP = np.float32(constants.UNIFORM_STEP)
LARGEST_UNIFORM = np.float32(constants.LARGEST_UNIFORM)
ONE_LINE = np.float32(constants.ONE_LINE)
SMALLEST_WEIGHT = np.float32(2.0**-90)
"""Weights below this are computed again from their logarithms, relative to the largest."""
NEGLIGIBLE = np.float32(1e-9)
"""Attention that is neglected in the choice among ties."""
FREE = np.float32(0.01)
"""Share of the margin within which the cost of a candidate, 1e-8, is not worth a logarithm."""


@kernel(MATHS)
def max_frames(first_atom, last_atom, first_edge, edges, strengths, stream, margin, rules, axes, anchors):
    """Axes of each atom and head, and the edges (counted within the atom) that fixed e₁ and e₂.

    The weights are e^scores up to a factor of each atom and head. Noise of this half-width, from the streams that the
    keys name, chooses among scores within the margin of the best, or draws from the weighted set of this margin.
    Without noise, moments choose.

    Args:
        rules: whether to draw from weighted sets, whether the second axis is that of `sine`, and whether both hands
            count alike.
    """
    first_given, is_self, directions = edges
    scores, weights, attention, n_compared = strengths
    noise, first_key, second_key = stream
    weighted, by_sine, both_hands = rules
    n_heads = scores.shape[0]
    most = most_items(first_atom, last_atom, first_edge)
    x, y, z, others = aligned(most), aligned(most), aligned(most), aligned(most)
    sines, values = aligned(most), aligned(most + 1)
    bits = values.view(np.int32)
    firsts, first_costs = np.empty(most, np.int64), np.empty(most, np.float32)
    seconds, second_costs = np.empty(most, np.int64), np.empty(most, np.float32)
    lines = np.empty((6, most), np.float32)
    share = np.float32(math.exp(-margin))
    by_moments = noise == 0 and margin > 0 and not weighted
    for i in range(first_atom, last_atom):
        start, n_edges = np.uint64(first_edge[i]), first_edge[i + 1] - first_edge[i]
        mark_others(is_self, start, n_edges, others)
        copy_directions(directions, start, n_edges, x, y, z)
        for h in range(n_heads):
            count, place = n_compared[h, i], first_given[i] * n_heads + h
            for n in range(count):
                values[n] = weights[h, start + np.uint64(n)] * others[n]
            n_first = _strongest(scores, h, start, others, values, bits, count, share, firsts)
            if n_first > 1:
                if by_moments:
                    costs(values, firsts, n_first, margin, first_costs)
                elif weighted:
                    odds(values, firsts, n_first, margin, sines, first_costs)
                    n_first = _draw(first_costs, firsts, n_first, first_key, place, n_heads)
                else:
                    n_first = _pick_by_noise(values, firsts, n_first, noise, first_key, place, n_heads)

            first, second, best, order = firsts[0], 0, np.float32(-np.inf), 0
            reach = 0
            for c in range(n_first):
                edge = firsts[c]
                if edge < 0:  # opposite to one before
                    continue
                x1, y1, z1 = x[edge], y[edge], z[edge]
                off_axis(x, y, z, x1, y1, z1, by_sine, others, count, sines)
                for n in range(count):
                    values[n] = weights[h, start + np.uint64(n)] * sines[n]
                n_second = _strongest(scores, h, start, sines, values, bits, count, share, seconds)
                if n_first == 1 and n_second == 1:
                    second = seconds[0]
                elif by_moments:
                    costs(values, seconds, n_second, margin, second_costs)
                    seen = attention[h, first_edge[i] : first_edge[i] + count]
                    if reach == 0:
                        reach = _reach(seen)
                    of_first, of_second = (firsts, first_costs, n_first), (seconds, second_costs, n_second)
                    found = (best, order, first, second)
                    best, order, first, second = _better(
                        x, y, z, seen[:reach], c, of_first, of_second, both_hands, lines, found
                    )
                elif weighted:
                    odds(values, seconds, n_second, margin, sines, second_costs)
                    _draw(second_costs, seconds, n_second, second_key, place, n_heads)
                    second = seconds[0]
                else:
                    _pick_by_noise(values, seconds, n_second, noise, second_key, place, n_heads)
                    second = seconds[0]

            _complete(axes[i, h], x, y, z, first, second)
            anchors[i, h, 0], anchors[i, h, 1] = first, second


@kernel(MATHS, inlined=True)
def off_axis(x, y, z, x1, y1, z1, by_sine, others, count, sines):
    """By what the weights for e₂ are lowered near the line of e₁; see `maths.ties.off_axis`."""
    if by_sine:
        for n in range(count):
            u, v, w = y[n] * z1 - z[n] * y1, z[n] * x1 - x[n] * z1, x[n] * y1 - y[n] * x1
            sines[n] = max(u * u + v * v + w * w, SMALLEST_SQUARED_SINE) * others[n]
    else:
        for n in range(count):
            cosine = abs(x[n] * x1 + y[n] * y1 + z[n] * z1)
            sine = max(np.float32(1.0) - cosine, SMALLEST_SINE_SCORE)
            sines[n] = np.float32(0.0) if cosine >= COLLINEAR else sine * others[n]


@kernel(MATHS, inlined=True)
def _strongest(scores, h, start, sines, values, bits, count, share, candidates):
    """The edges whose value, weight × sine, is at least this share of the largest, in their order; their number."""
    largest = largest_of(values, bits, count)
    if largest < SMALLEST_WEIGHT:
        largest = form_anew(scores, h, start, sines, count, values)
    return candidates_within(values, largest * share, count, candidates)


@kernel(MATHS, inlined=True)
def largest_of(values, bits, count):
    """The largest of numbers >= 0; NaN if one is.

    Compared as integers (`bits` are the same memory), which has vector instructions without a care for NaN: the largest
    of all. The last place of the memory is scratch.
    """
    largest, last = bits[0], len(bits) - 1
    for n in range(count):
        largest = max(largest, bits[n])
    bits[last] = largest
    return values[last]


@kernel(MATHS, inlined=True)
def candidates_within(values, least, count, candidates):
    """The edges of at least this value, weight × sine, in their order; their number. Few are, so most vectors are
    passed over."""
    found = np.uint64(0)
    for first in range(NOWHERE, np.uint64(count), NEXT):
        if any_at_least(load(values, first), least):
            for n in range(first, first + NEXT):
                candidates[found] = n
                found += np.uint64(values[n] >= least)
    if found == 0:  # NaN everywhere, and some frame will do
        candidates[0], found = 0, np.uint64(1)
    return np.int64(found)


@kernel(MATHS)
def form_anew(scores, h, start, sines, count, values):
    """Values relative to the largest, where weights are too small to be told apart; the largest, 1."""
    highest = np.float32(-np.inf)
    for n in range(count):
        if sines[n] > 0:
            values[n] = scores[h, start + np.uint64(n)] + np.float32(math.log(sines[n]))
            highest = max(highest, values[n])
    for n in range(count):
        values[n] = np.float32(math.exp(values[n] - highest)) if sines[n] > 0 else np.float32(0.0)
    return np.float32(1.0)


# --- noise of training ------------------------------------------------------------------------------------------------


@kernel(MATHS)
def _pick_by_noise(values, candidates, count, noise, key, place, n_heads):
    """Put in front one of the candidates; 1, as many as are left."""
    best = np.float32(0.0)
    chosen = candidates[0]
    for n in range(count):
        drawn = np.float32(2.0) * _uniform(key, place + candidates[n] * n_heads) - np.float32(1.0)
        value = values[candidates[n]] * (np.float32(1.0) + noise * drawn)
        if value > best:
            best, chosen = value, candidates[n]
    candidates[0] = chosen
    return 1


@kernel(MATHS)
def _draw(weights, candidates, count, key, place, n_heads):
    """Put in front one of the candidates, drawn by the weights; 1, as many as are left. See `ties.drawn_from_set`."""
    best = np.float32(-1.0)
    chosen = candidates[0]
    for n in range(count):
        drawn = min(_uniform(key, place + candidates[n] * n_heads) + UNIFORM_STEP, LARGEST_UNIFORM)
        value = weights[n] / -np.float32(math.log(drawn))
        if value > best:
            best, chosen = value, candidates[n]
    candidates[0] = chosen
    return 1


@kernel(MATHS)
def _uniform(key, place):
    """`maths.frames.uniform`."""
    x = np.uint32(np.uint32(place) + key)
    x = np.uint32((x ^ (x >> np.uint32(16))) * MULTIPLIERS[0])
    x = np.uint32((x ^ (x >> np.uint32(15))) * MULTIPLIERS[1])
    x = np.uint32(x ^ (x >> np.uint32(16)))
    return np.float32(x >> np.uint32(8)) * np.float32(2.0**-24)


# --- choosing among ties ----------------------------------------------------------------------------------------------


@kernel(MATHS)
def odds(values, candidates, count, margin, lags, weights):
    """Weights of the candidates in their set; they add up to 1. See `maths.ties._rarity`. `lags` is scratch."""
    first = values[candidates[0]]
    if count == 1 or not first > 0:  # the latter where a head sees nothing, or NaN
        for n in range(count):
            weights[n] = np.float32(1.0 / count)
        return
    for n in range(count):
        lags[n] = np.float32(math.log(first / values[candidates[n]]) / margin)
    total = np.float32(0.0)
    for n in range(count):
        product = np.float32(1.0)
        for other in range(count):
            x = min(max(lags[n] - lags[other], np.float32(0.0)), np.float32(1.0))
            rest = np.float32(1.0) - x
            product *= rest * rest * rest * (np.float32(1.0) + x * (np.float32(3.0) + np.float32(6.0) * x))
        weights[n] = product
        total += product
    for n in range(count):
        weights[n] /= total


@kernel(MATHS)
def costs(values, candidates, count, margin, costs):
    """Cost of candidates that are not the strongest; see `maths.ties._tied`."""
    largest = np.float32(0.0)
    for n in range(count):
        largest = max(largest, values[candidates[n]])
    for n in range(count):
        costs[n] = np.float32(0.0)
        if values[candidates[n]] < largest * (np.float32(1.0) - FREE * margin):
            lag = -math.log(values[candidates[n]] / largest) / margin
            costs[n] = np.float32(lag**4 / (1.0 - lag**4)) if lag < 1.0 else np.float32(np.inf)


@kernel(MATHS)
def _better(x, y, z, attention, c, of_first, of_second, both_hands, lines, found):
    """The frame of which the head sees most, less what it costs, if that is more than the best before.

    Of first axis `c` and of its opposite, which has the same second edges and is crossed out: axes that are alike up to
    sign are summed over once, in terms even and odd in the cosine. Of frames that are equivalent serves the first.

    Args:
        of_first, of_second: candidates for e₁ and e₂, their costs, and their number.
        both_hands: odd terms of e₃ count nothing.
        lines: (6, n) memory for the distinct e₂: three coordinates; even terms of e₂ and e₃; odd terms of each.
        found: the best before: what it is worth, its place in the order, its edges.
    """
    firsts, first_costs, n_first = of_first
    seconds, second_costs, n_second = of_second
    best, order, first, second = found
    edge = firsts[c]
    x1, y1, z1 = x[edge], y[edge], z[edge]
    even_1 = odd_1 = np.float32(0.0)
    opposite = c
    if n_first > 1:
        even_1, odd_1 = _terms(x, y, z, attention, x1, y1, z1)
        for other in range(c + 1, n_first):
            e = firsts[other]
            if e >= 0 and abs(x[e] + x1) + abs(y[e] + y1) + abs(z[e] + z1) < ONE_LINE:
                opposite = other
                break
    n_lines = 0
    for n in range(n_second):
        x2, y2, z2 = orthogonal(x, y, z, x1, y1, z1, seconds[n])
        line, sign = 0, np.float32(1.0)
        while line < n_lines:
            u, v, w = lines[0, line], lines[1, line], lines[2, line]
            if abs(x2 - u) + abs(y2 - v) + abs(z2 - w) < ONE_LINE:
                break
            if abs(x2 + u) + abs(y2 + v) + abs(z2 + w) < ONE_LINE:
                sign = np.float32(-1.0)
                break
            line += 1
        if line == n_lines:
            n_lines += 1
            lines[0, line], lines[1, line], lines[2, line] = x2, y2, z2
            x3, y3, z3 = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
            even, odd_2, odd_3 = _terms_of_two(x, y, z, attention, x2, y2, z2, x3, y3, z3)
            lines[3, line], lines[4, line], lines[5, line] = even, odd_2, np.float32(0.0) if both_hands else odd_3
        even, odd_2, odd_3 = even_1 + lines[3, line], sign * lines[4, line], sign * lines[5, line]
        number, value = c, even + odd_1 + odd_2 + odd_3
        for _ in range(1 + (opposite != c)):
            value -= second_costs[n]
            if n_first > 1:
                value -= first_costs[number]
            place = number * len(x) + n
            if value > best + EQUIVALENT or (value >= best - EQUIVALENT and place < order):
                best, order, first, second = max(value, best), place, firsts[number], seconds[n]
            number, value = opposite, even - odd_1 + odd_2 - odd_3
    if opposite != c:
        firsts[opposite] = -1
    return best, order, first, second


@kernel(MATHS)
def _reach(attention):
    """Edges up to the last of any weight; their neighbours are given nearest first."""
    reach = 0
    for n in range(len(attention)):
        reach = n + 1 if attention[n] > NEGLIGIBLE else reach
    return reach


@kernel(MATHS, inlined=True)
def _terms(x, y, z, attention, u, v, w):
    """Σ p · polynomial of the cosine to e₁: its even and its odd terms."""
    of_1, of_2, of_3, of_4, of_5 = TIE_WEIGHTS[0]
    even = odd = np.float32(0.0)
    for n in range(len(attention)):
        cosine = x[n] * u + y[n] * v + z[n] * w
        square = cosine * cosine
        even += attention[n] * square * (of_2 + square * of_4)
        odd += attention[n] * cosine * (of_1 + square * (of_3 + square * of_5))
    return even, odd


@kernel(MATHS, inlined=True)
def _terms_of_two(x, y, z, attention, x2, y2, z2, x3, y3, z3):
    """The same of e₂ and e₃: the even terms of both, the odd terms of each."""
    a1, a2, a3, a4, a5 = TIE_WEIGHTS[1]
    b1, b2, b3, b4, b5 = TIE_WEIGHTS[2]
    even = odd_2 = odd_3 = np.float32(0.0)
    for n in range(len(attention)):
        r, s, t, p = x[n], y[n], z[n], attention[n]
        c, d = r * x2 + s * y2 + t * z2, r * x3 + s * y3 + t * z3
        cc, dd = c * c, d * d
        even += p * (cc * (a2 + cc * a4) + dd * (b2 + dd * b4))
        odd_2 += p * c * (a1 + cc * (a3 + cc * a5))
        odd_3 += p * d * (b1 + dd * (b3 + dd * b5))
    return even, odd_2, odd_3


@kernel(MATHS, inlined=True)
def orthogonal(x, y, z, x1, y1, z1, edge):
    """The direction of an edge off e₁; see `maths.ties.right_handed`."""
    u, v, w = x[edge], y[edge], z[edge]
    for _ in range(2):
        along = x1 * u + y1 * v + z1 * w
        u, v, w = u - along * x1, v - along * y1, w - along * z1
        sine = np.float32(math.sqrt(u * u + v * v + w * w))
        shrink = np.float32(1.0) / sine if sine > SMALLEST_SINE else np.float32(0.0)
        u, v, w = u * shrink, v * shrink, w * shrink
    return u, v, w


@kernel(MATHS, inlined=True)
def _complete(frame, x, y, z, first, second):
    """e₁ along one edge, e₂ towards another, and e₃ = e₁ × e₂."""
    x1, y1, z1 = x[first], y[first], z[first]
    x2, y2, z2 = orthogonal(x, y, z, x1, y1, z1, second)
    frame[0, 0], frame[0, 1], frame[0, 2] = x1, y1, z1
    frame[1, 0], frame[1, 1], frame[1, 2] = x2, y2, z2
    frame[2, 0], frame[2, 1], frame[2, 2] = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
