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
SECOND_AXIS_MOMENTS = np.array([orders + (0,) * (3 - len(orders)) for orders in frames.SECOND_AXIS_MOMENTS])
"""The criteria of `model.frames`; 0 stands for "no further axis"."""
SMALLEST_WEIGHT = np.float32(2.0**-90)
"""Below this, weights are formed anew from their logarithms, relative to the largest."""


@kernel(MATHS)
def max_frames(
    first_atom,
    last_atom,
    first_edge,
    first_given,
    is_self,
    directions,
    lengths,
    scores,
    weights,
    attention,
    noise,
    first_key,
    second_key,
    margin,
    moments_of_e2,
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
    moments = (np.empty(3), np.empty((3, 3)), np.empty((3, 3, 3)))
    frame = np.empty((3, 3))
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        x, y, z = directions[0, start:stop], directions[1, start:stop], directions[2, start:stop]
        distances, is_itself = lengths[start:stop], is_self[start:stop]
        for h in range(n_heads):
            logarithms, sizes = scores[h, start:stop], weights[h, start:stop]
            place = first_given[i] * n_heads + h
            have_moments = False

            for n in range(stop - start):
                sines[n] = np.float32(0.0) if is_itself[n] else np.float32(1.0)
            tied = _strongest(logarithms, sizes, sines, margin, values, candidates)
            if tied > 1 and noise > 0:
                _pick_by_noise(values, candidates, tied, noise, first_key, place, n_heads)
            elif tied > 1 and margin > 0:
                _moments(x, y, z, distances, attention[h, start:stop], moments)
                have_moments = True
                _pick_first_by_moments(directions, start, frame, moments, values, candidates, tied, margin)
            first = candidates[0]
            for axis in range(3):
                frame[0, axis] = directions[axis, start + first]

            for n in range(stop - start):
                cosine = abs(x[n] * x[first] + y[n] * y[first] + z[n] * z[first])
                sine = max(np.float32(1.0) - cosine, SMALLEST_SINE_SCORE)
                sines[n] = np.float32(0.0) if cosine >= COLLINEAR or is_itself[n] else sine
            tied = _strongest(logarithms, sizes, sines, margin, values, candidates)
            if tied > 1 and noise > 0:
                _pick_by_noise(values, candidates, tied, noise, second_key, place, n_heads)
            elif tied > 1 and margin > 0:
                if not have_moments:
                    _moments(x, y, z, distances, attention[h, start:stop], moments)
                _pick_second_by_moments(
                    directions, start, frame, moments, moments_of_e2, values, candidates, tied, margin
                )
            second = candidates[0]
            _complete(frame, directions, start + second)

            anchors[i, h, 0], anchors[i, h, 1] = first, second
            for axis in range(3):
                for n in range(3):
                    axes[i, h, axis, n] = frame[axis, n]


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
def _pick_first_by_moments(directions, start, frame, moments, values, candidates, count, margin):
    for order in range(1, 4):
        for n in range(count):
            for x in range(3):
                frame[0, x] = directions[x, start + candidates[n]]
            values[n] = _moment(order, 1, 1, 1, frame, moments)
        count = _narrow(values, count, candidates, margin)


@kernel(MATHS)
def _pick_second_by_moments(directions, start, frame, moments, criteria, values, candidates, count, margin):
    for criterion in range(len(criteria)):
        if count == 1:
            break
        a, b, c = criteria[criterion]
        order = 1 + (b > 0) + (c > 0)
        for n in range(count):
            _complete(frame, directions, start + candidates[n])
            values[n] = _moment(order, a, b, c, frame, moments)
        count = _narrow(values, count, candidates, margin)


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
def _narrow(values, count, candidates, margin):
    """Keep the candidates whose value lies within the margin of the best."""
    best = values[0]
    for n in range(1, count):
        if values[n] > best:
            best = values[n]
    kept = 0
    for n in range(count):
        if not values[n] < best - margin:
            candidates[kept] = candidates[n]
            kept += 1
    return kept


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


@kernel(MATHS)
def _moments(x, y, z, lengths, weights, moments):
    """Σ p r, Σ p r rᵀ, Σ p r⊗r⊗r over the edges of an atom, from their directions and lengths.

    All in one pass, each in a variable of its own: sums that stay in registers.
    """
    dx = dy = dz = qxx = qxy = qxz = qyy = qyz = qzz = np.float32(0.0)
    oxxx = oxxy = oxxz = oxyy = oxyz = oxzz = oyyy = oyyz = oyzz = ozzz = np.float32(0.0)
    for n in range(len(weights)):
        u, v, w = lengths[n] * x[n], lengths[n] * y[n], lengths[n] * z[n]
        pu, pv, pw = weights[n] * u, weights[n] * v, weights[n] * w
        puu, puv, puw, pvv, pvw, pww = pu * u, pu * v, pu * w, pv * v, pv * w, pw * w
        dx, dy, dz = dx + pu, dy + pv, dz + pw
        qxx, qxy, qxz, qyy, qyz, qzz = qxx + puu, qxy + puv, qxz + puw, qyy + pvv, qyz + pvw, qzz + pww
        oxxx, oxxy, oxxz, oxyy, oxyz = oxxx + puu * u, oxxy + puu * v, oxxz + puu * w, oxyy + puv * v, oxyz + puv * w
        oxzz, oyyy, oyyz, oyzz, ozzz = oxzz + puw * w, oyyy + pvv * v, oyyz + pvv * w, oyzz + pvw * w, ozzz + pww * w
    dipole, quadrupole, octupole = moments
    dipole[0], dipole[1], dipole[2] = dx, dy, dz
    second = (qxx, qxy, qyy, qxz, qyz, qzz)
    third = (oxxx, oxxy, oxyy, oyyy, oxxz, oxyz, oyyz, oxzz, oyzz, ozzz)
    n_second, n_third = 0, 0
    for a in range(3):
        for b in range(a + 1):
            quadrupole[a, b] = quadrupole[b, a] = second[n_second]
            n_second += 1
            for c in range(b + 1):
                value = third[n_third]
                octupole[a, b, c] = octupole[a, c, b] = octupole[b, a, c] = value
                octupole[b, c, a] = octupole[c, a, b] = octupole[c, b, a] = value
                n_third += 1


@kernel(MATHS)
def _moment(order, a, b, c, frame, moments):
    """A moment along axes a, b, c of the frame (counted from 1), of the first one, two or three."""
    dipole, quadrupole, octupole = moments
    total = 0.0
    for x in range(3):
        if order == 1:
            total += frame[a - 1, x] * dipole[x]
            continue
        for y in range(3):
            both = frame[a - 1, x] * frame[b - 1, y]
            if order == 2:
                total += both * quadrupole[x, y]
                continue
            for z in range(3):
                total += both * frame[c - 1, z] * octupole[x, y, z]
    return total
