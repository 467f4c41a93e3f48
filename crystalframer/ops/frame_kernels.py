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


POWERS = ((0, 0, 0), *frames.POWERS)
PARENTS = [tuple(n - (i == next(j for j in range(3) if of[j])) for i, n in enumerate(of)) for of in POWERS[1:]]
FACTOR = np.array([0, *(next(j for j in range(3) if of[j]) for of in POWERS[1:])])
REST = np.array([0, *map(POWERS.index, PARENTS)])
"""A product of powers, by number, is coordinate FACTOR times product REST; product 0 is 1."""
SEEN = np.concatenate([np.zeros((3, 1)), frames.tie_weights().numpy()], axis=1).astype(np.float32)
"""What the moment of each product counts along each axis."""
WIDTH = 8
"""Candidates at a time."""
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
    tried, work = np.zeros((7, most + WIDTH), np.float32), np.zeros((len(POWERS), most + WIDTH), np.float32)
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
            n_listed, least = -1, np.float32(0.0)
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
                    if values[candidates[0]] * np.float32(math.exp(-2 * margin)) < least:
                        tied = 0
                    else:
                        _costs(values, candidates, tied, margin, tried[6])
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
                    _costs(values, candidates, tied, margin, tried[6])
                    if c == 0 and n_first > 1:
                        strongest = sizes[candidates[0]] * sines[candidates[0]]
                        if strongest >= SMALLEST_WEIGHT:
                            least = LISTED * strongest
                            n_listed = _list(x, y, z, logarithms, sizes, is_itself, least, listed, few)
                if c == 0:
                    second = candidates[0]
                if n_first == 1 and tied == 1:
                    break
                if not have_products:
                    _products(x, y, z, products)
                    have_products = True
                if not have_moments:
                    _moments(products, attention[h, start:stop], seen)
                    have_moments = True
                _try(x, y, z, e1, candidates, tied, seen, tried, work)
                for n in range(tied):
                    value = tried[5, n] - tried[6, n] - first_costs[c]
                    if value > best + EQUIVALENT:
                        best, first, second = value, e1, candidates[n]

            for axis in range(3):
                frame[0, axis] = directions[axis, start + first]
            _complete(frame, directions, start + second)
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
        if values[candidates[n]] < largest:
            lag = -math.log(values[candidates[n]] / largest) / margin
            costs[n] = np.float32(lag**4 / (1.0 - lag**4)) if lag < 1.0 else np.float32(np.inf)


@kernel(MATHS)
def _products(x, y, z, products):
    """xᵃ yᵇ zᶜ of each edge."""
    for n in range(len(x)):
        products[0, n] = np.float32(1.0)
    for p in range(1, len(products)):
        factor = x if FACTOR[p] == 0 else y if FACTOR[p] == 1 else z
        for n in range(len(x)):
            products[p, n] = products[REST[p], n] * factor[n]


@kernel(MATHS)
def _moments(products, weights, seen):
    """Σ p xᵃ yᵇ zᶜ, times what it counts along each axis."""
    for p in range(1, len(products)):
        total = np.float32(0.0)
        for n in range(len(weights)):
            total += weights[n] * products[p, n]
        for k in range(3):
            seen[k, p] = SEEN[k, p] * total


@kernel(MATHS)
def _try(x, y, z, first, candidates, count, seen, tried, work):
    """What the head sees of the frames of a first edge and of each candidate for the second: tried[5]."""
    x1, y1, z1 = x[first], y[first], z[first]
    padded = (count + WIDTH - 1) // WIDTH * WIDTH
    total = tried[5, :padded]
    tried[0, :padded], tried[1, :padded], tried[2, :padded] = x1, y1, z1
    total[:] = np.float32(0.0)
    _add_seen(tried[0, :padded], tried[1, :padded], tried[2, :padded], seen[0], work, total)
    for n in range(count):
        x2, y2, z2 = x[candidates[n]], y[candidates[n]], z[candidates[n]]
        along = x1 * x2 + y1 * y2 + z1 * z2
        x2, y2, z2 = x2 - along * x1, y2 - along * y1, z2 - along * z1
        length = max(np.float32(math.sqrt(x2 * x2 + y2 * y2 + z2 * z2)), np.float32(1e-12))
        tried[0, n], tried[1, n], tried[2, n] = x2 / length, y2 / length, z2 / length
    _add_seen(tried[0, :padded], tried[1, :padded], tried[2, :padded], seen[1], work, total)
    for n in range(count):
        x2, y2, z2 = tried[0, n], tried[1, n], tried[2, n]
        tried[0, n], tried[1, n], tried[2, n] = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
    _add_seen(tried[0, :padded], tried[1, :padded], tried[2, :padded], seen[2], work, total)


@kernel(MATHS)
def _add_seen(x, y, z, seen, work, total):
    """Add Σ seen xᵃ yᵇ zᶜ of each candidate to its total."""
    for n in range(len(x)):
        work[0, n] = np.float32(1.0)
    for p in range(1, len(seen)):
        factor = x if FACTOR[p] == 0 else y if FACTOR[p] == 1 else z
        for n in range(len(x)):
            work[p, n] = work[REST[p], n] * factor[n]
            total[n] += seen[p] * work[p, n]


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
def _complete(frame, directions, edge):
    """e₂ from an edge, made orthogonal to e₁, and e₃ = e₁ × e₂."""
    along = 0.0
    for x in range(3):
        along += frame[0, x] * directions[x, edge]
    length = 0.0
    for x in range(3):
        frame[1, x] = directions[x, edge] - along * frame[0, x]
        length += frame[1, x] ** 2
    length = max(math.sqrt(length), 1e-12)
    for x in range(3):
        frame[1, x] /= length
    for x in range(3):
        y, z = (x + 1) % 3, (x + 2) % 3
        frame[2, x] = frame[0, y] * frame[1, z] - frame[0, z] * frame[1, y]
