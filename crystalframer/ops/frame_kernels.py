"""`model.frames.max_frames` as a CPU kernel: the same rule for axes and ties, one atom and head at a time.

The reference compares log-weights; here weights are compared, which spares a logarithm for every edge: a margin becomes
a ratio, the noise a factor.
"""

from __future__ import annotations

import math

import numpy as np

from crystalframer.compiled import kernel
from crystalframer.model import frames
from crystalframer.ops.kernels import MATHS, most_items

COLLINEAR = np.float32(frames.COLLINEAR)
SMALLEST_SINE_SCORE = np.float32(frames.SMALLEST_SINE_SCORE)
MULTIPLIERS = tuple(np.uint32(number) for number in frames.MULTIPLIERS)
EQUIVALENT = np.float32(frames.EQUIVALENT)
SMALLEST_WEIGHT = np.float32(2.0**-90)
"""Below this, weights are formed anew from their logarithms, relative to the largest."""


POWERS = frames.POWERS
FACTOR = np.array([0, *(max(axis for axis in range(3) if of[axis]) for of in POWERS[1:])])
REST = np.array(
    [
        0,
        *(
            POWERS.index(tuple(of - np.eye(3, dtype=int)[axis]))
            for of, axis in zip(POWERS[1:], FACTOR[1:], strict=True)
        ),
    ]
)
"""A product of powers is coordinate FACTOR times product REST; the first is 1."""
SEEN = frames.tie_weights().numpy().astype(np.float32)
"""What the moment of each product counts along each axis."""
FREE = np.float32(0.01)
"""Share of the margin within which the cost of a candidate, 1e-8, is not worth a logarithm."""
LISTED = np.float32(0.5)
"""Share of the strongest second edge below which others are not looked at for further first axes."""


@kernel(MATHS)
def max_frames(
    first_atom,
    last_atom,
    first_edge,
    first_given,
    is_self,
    directions,
    scores,
    weights,
    attention,
    noise,
    first_key,
    second_key,
    margin,
    axes,
    anchors,
):
    """Axes of each atom and head, and the edges (counted within the atom) that fixed e₁ and e₂.

    `weights` are e^scores up to a factor of each atom and head. Among scores within the margin of the best decides
    noise of this half-width, of streams named by the keys; without noise, moments do.
    """
    n_heads = scores.shape[0]
    most = most_items(first_atom, last_atom, first_edge)
    values, sines, candidates = np.empty(most, np.float32), np.empty(most, np.float32), np.empty(most, np.int64)
    firsts, first_costs = np.empty(most, np.int64), np.empty(most, np.float32)
    listed, few = np.empty(most, np.int64), np.empty((5, most), np.float32)
    products = np.empty((len(POWERS), most), np.float32)
    seen = np.empty((3, len(POWERS)), np.float32)
    costs, tried, tried_edges = (
        np.empty(most, np.float32),
        np.zeros((11, 2 * most), np.float32),
        np.empty((2, 2 * most), np.int64),
    )
    frame = np.empty((3, 3), np.float32)
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        count = stop - start
        x, y, z = directions[0, start:stop], directions[1, start:stop], directions[2, start:stop]
        is_itself = is_self[start:stop]
        have_products = False
        for h in range(n_heads):
            logarithms, sizes = scores[h, start:stop], weights[h, start:stop]
            place = first_given[i] * n_heads + h

            for n in range(count):
                sines[n] = np.float32(0.0) if is_itself[n] else np.float32(1.0)
            n_first = _strongest(logarithms, sizes, sines[:count], margin, values, candidates)
            if n_first > 1 and noise > 0:
                _pick_by_noise(values, candidates, n_first, noise, first_key, place, n_heads)
            if noise > 0 or margin == 0:
                n_first = 1
            _costs(values, candidates, n_first, margin, first_costs)
            firsts[:n_first] = candidates[:n_first]

            first, second, best = firsts[0], 0, np.float32(-np.inf)
            n_listed, least, n_tried = -1, np.float32(0.0), 0
            have_moments = False
            for c in range(n_first):
                e1 = firsts[c]
                tied = 0
                if n_listed > 0:
                    fx, fy, fz = few[0, :n_listed], few[1, :n_listed], few[2, :n_listed]
                    _off_axis(fx, fy, fz, x[e1], y[e1], z[e1], sines)
                    tied = _strongest(
                        few[3, :n_listed], few[4, :n_listed], sines[:n_listed], margin, values, candidates
                    )
                    if values[candidates[0]] < least:
                        tied = 0
                    else:
                        _costs(values, candidates, tied, margin, costs)
                        for n in range(tied):
                            candidates[n] = listed[candidates[n]]
                if tied == 0:
                    _off_axis(x, y, z, x[e1], y[e1], z[e1], sines)
                    for n in range(count):
                        if is_itself[n]:
                            sines[n] = np.float32(0.0)
                    tied = _strongest(logarithms, sizes, sines[:count], margin, values, candidates)
                    if tied > 1 and noise > 0:
                        _pick_by_noise(values, candidates, tied, noise, second_key, place, n_heads)
                    if noise > 0 or margin == 0:
                        tied = 1
                    if c == 0:
                        second = candidates[0]
                        if n_first == 1 and tied == 1:
                            break
                        least = sizes[second] * sines[second]
                        if n_first > 1 and least >= SMALLEST_WEIGHT:
                            n_listed = _list(x, y, z, logarithms, sizes, is_itself, LISTED * least, listed, few)
                            least *= LISTED * np.float32(math.exp(2 * margin))
                    _costs(values, candidates, tied, margin, costs)
                if not have_products:
                    _products(x, y, z, products)
                    have_products = True
                if not have_moments:
                    _moments(products, attention[h, start:stop], seen)
                    have_moments = True
                if n_tried + tied > tried.shape[1]:
                    best, first, second = _best(seen, tried, n_tried, tried_edges, best, first, second)
                    n_tried = 0
                for n in range(tied):
                    _complete(frame, x[e1], y[e1], z[e1], directions, start + candidates[n])
                    for axis in range(9):
                        tried[axis, n_tried] = frame[axis // 3, axis % 3]
                    tried[9, n_tried] = first_costs[c] + costs[n]
                    tried_edges[0, n_tried], tried_edges[1, n_tried] = e1, candidates[n]
                    n_tried += 1
            if n_tried:
                best, first, second = _best(seen, tried, n_tried, tried_edges, best, first, second)

            _complete(frame, x[first], y[first], z[first], directions, start + second)
            anchors[i, h, 0], anchors[i, h, 1] = first, second
            for axis in range(3):
                for n in range(3):
                    axes[i, h, axis, n] = frame[axis, n]


@kernel(MATHS)
def _off_axis(x, y, z, x1, y1, z1, sines):
    """1 - |cosine| to an axis; 0 along it."""
    for n in range(len(x)):
        cosine = abs(x[n] * x1 + y[n] * y1 + z[n] * z1)
        sines[n] = np.float32(0.0) if cosine >= COLLINEAR else max(np.float32(1.0) - cosine, SMALLEST_SINE_SCORE)


@kernel(MATHS)
def _list(x, y, z, scores, weights, is_self, least, listed, few):
    """Gather the edges of at least this weight: their numbers, their directions, scores and weights; how many."""
    found = 0
    for n in range(len(x)):
        if weights[n] >= least and not is_self[n]:
            listed[found] = n
            few[0, found], few[1, found], few[2, found] = x[n], y[n], z[n]
            few[3, found], few[4, found] = scores[n], weights[n]
            found += 1
    return found


@kernel(MATHS)
def _costs(values, candidates, count, margin, costs):
    """What it takes to choose a candidate that is not the strongest; see `model.frames._tied`."""
    largest = np.float32(0.0)
    for n in range(count):
        largest = max(largest, values[candidates[n]])
    for n in range(count):
        costs[n] = np.float32(0.0)
        if values[candidates[n]] < largest * (np.float32(1.0) - FREE * margin):
            lag = -math.log(values[candidates[n]] / largest) / margin
            costs[n] = np.float32(lag**4 / (1.0 - lag**4)) if lag < 1.0 else np.float32(np.inf)


@kernel(MATHS)
def _products(x, y, z, products):
    """xᵃ yᵇ zᶜ of each edge."""
    for n in range(len(x)):
        products[0, n] = np.float32(1.0)
    for p in range(1, len(POWERS)):
        factor = x if FACTOR[p] == 0 else y if FACTOR[p] == 1 else z
        row, rest = products[p], products[REST[p]]
        for n in range(len(x)):
            row[n] = rest[n] * factor[n]


@kernel(MATHS)
def _moments(products, weights, seen):
    """Σ p xᵃ yᵇ zᶜ, times what it counts along each axis; four sums at a time, which stay in registers."""
    for p in range(0, len(POWERS), 4):
        a = b = c = d = np.float32(0.0)
        of_a, of_b, of_c, of_d = products[p], products[p + 1], products[p + 2], products[p + 3]
        for n in range(len(weights)):
            weight = weights[n]
            a, b, c, d = a + weight * of_a[n], b + weight * of_b[n], c + weight * of_c[n], d + weight * of_d[n]
        for k in range(3):
            seen[k, p], seen[k, p + 1] = SEEN[k, p] * a, SEEN[k, p + 1] * b
            seen[k, p + 2], seen[k, p + 3] = SEEN[k, p + 2] * c, SEEN[k, p + 3] * d


@kernel(MATHS)
def _best(seen, tried, count, edges, best, first, second):
    """The frame of which the head sees most, less what it costs, if that is more than the best before."""
    for n in range(count):
        tried[10, n] = _polynomial(seen[0], tried[0, n], tried[1, n], tried[2, n]) - tried[9, n]
    for n in range(count):
        tried[10, n] += _polynomial(seen[1], tried[3, n], tried[4, n], tried[5, n])
    for n in range(count):
        tried[10, n] += _polynomial(seen[2], tried[6, n], tried[7, n], tried[8, n])
    for n in range(count):
        if tried[10, n] > best + EQUIVALENT:
            best, first, second = tried[10, n], edges[0, n], edges[1, n]
    return best, first, second


@kernel(MATHS, inlined=True)
def _polynomial(g, x, y, z):
    """Σ g xᵃ yᵇ zᶜ, in the order of `POWERS`."""
    a = g[0] + z * (g[1] + z * (g[2] + z * (g[3] + z * (g[4] + z * g[5]))))
    b = g[6] + z * (g[7] + z * (g[8] + z * (g[9] + z * g[10])))
    c = g[11] + z * (g[12] + z * (g[13] + z * g[14]))
    d = g[15] + z * (g[16] + z * g[17])
    of_1 = a + y * (b + y * (c + y * (d + y * (g[18] + z * g[19] + y * g[20]))))
    a = g[21] + z * (g[22] + z * (g[23] + z * (g[24] + z * g[25])))
    b = g[26] + z * (g[27] + z * (g[28] + z * g[29]))
    c = g[30] + z * (g[31] + z * g[32])
    of_x = a + y * (b + y * (c + y * (g[33] + z * g[34] + y * g[35])))
    a = g[36] + z * (g[37] + z * (g[38] + z * g[39]))
    b = g[40] + z * (g[41] + z * g[42])
    of_xx = a + y * (b + y * (g[43] + z * g[44] + y * g[45]))
    a = g[46] + z * (g[47] + z * g[48])
    of_xxx = a + y * (g[49] + z * g[50] + y * g[51])
    of_xxxx = g[52] + z * g[53] + y * g[54]
    return of_1 + x * (of_x + x * (of_xx + x * (of_xxx + x * (of_xxxx + x * g[55]))))


@kernel(MATHS)
def _strongest(scores, weights, sines, margin, values, candidates):
    """The edges whose weight × sine lies within the margin of the largest, in their order; their number."""
    count = len(weights)
    for n in range(count):
        values[n] = weights[n] * sines[n]
    first = _first_largest(values[:count])
    if values[first] < SMALLEST_WEIGHT:
        highest = np.float32(-np.inf)
        for n in range(count):
            if sines[n] > 0:
                values[n] = scores[n] + np.float32(math.log(sines[n]))
                highest = max(highest, values[n])
        for n in range(count):
            values[n] = np.float32(math.exp(values[n] - highest)) if sines[n] > 0 else np.float32(0.0)
        first = _first_largest(values[:count])
    least = values[first] * np.float32(math.exp(-margin))
    within = 0
    for n in range(count):
        within += values[n] >= least
    candidates[0] = first
    if within <= 1:  # 0: NaN everywhere, and some frame will do
        return 1
    found = 0
    for n in range(count):
        if values[n] >= least:
            candidates[found] = n
            found += 1
    return found


@kernel(MATHS)
def _pick_by_noise(values, candidates, count, noise, key, place, n_heads):
    best = np.float32(0.0)
    chosen = candidates[0]
    for n in range(count):
        drawn = np.float32(2.0) * _uniform(key, place + candidates[n] * n_heads) - np.float32(1.0)
        value = values[candidates[n]] * (np.float32(1.0) + noise * drawn)
        if value > best:
            best, chosen = value, candidates[n]
    candidates[0] = chosen


@kernel(MATHS)
def _first_largest(values):
    """Where the first maximum of numbers >= 0 is.

    Compared as integers, which has vector instructions without a care for NaN: the largest of all.
    """
    bits = values.view(np.int32)
    largest = bits[0]
    for n in range(len(bits)):
        largest = max(largest, bits[n])
    for n in range(len(bits)):
        if bits[n] == largest:
            return n
    return 0


@kernel(MATHS)
def _uniform(key, place):
    """`model.frames.uniform`."""
    x = np.uint32(np.uint32(place) + key)
    x = np.uint32((x ^ (x >> np.uint32(16))) * MULTIPLIERS[0])
    x = np.uint32((x ^ (x >> np.uint32(15))) * MULTIPLIERS[1])
    x = np.uint32(x ^ (x >> np.uint32(16)))
    return np.float32(x >> np.uint32(8)) * np.float32(2.0**-24)


@kernel(MATHS)
def _complete(frame, x, y, z, directions, edge):
    """e₁ as given, e₂ from an edge, made orthogonal to e₁, and e₃ = e₁ × e₂."""
    u, v, w = directions[0, edge], directions[1, edge], directions[2, edge]
    along = x * u + y * v + z * w
    u, v, w = u - along * x, v - along * y, w - along * z
    shrink = np.float32(1.0) / max(np.float32(math.sqrt(u * u + v * v + w * w)), np.float32(1e-12))
    u, v, w = u * shrink, v * shrink, w * shrink
    frame[0, 0], frame[0, 1], frame[0, 2] = x, y, z
    frame[1, 0], frame[1, 1], frame[1, 2] = u, v, w
    frame[2, 0], frame[2, 1], frame[2, 2] = y * w - z * v, z * u - x * w, x * v - y * u
