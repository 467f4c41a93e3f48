"""`model.frames.max_frames` as a CPU kernel: the same rule for axes and ties, one atom and head at a time."""

from __future__ import annotations

import math

import numpy as np

from crystalframer.model import frames
from crystalframer.ops.kernels import kernel

COLLINEAR = np.float32(frames.COLLINEAR)
SMALLEST_SINE_SCORE = np.float32(frames.SMALLEST_SINE_SCORE)
MULTIPLIERS = tuple(np.uint32(number) for number in frames.MULTIPLIERS)
SECOND_AXIS_MOMENTS = np.array([orders + (0,) * (3 - len(orders)) for orders in frames.SECOND_AXIS_MOMENTS])
"""The criteria of `model.frames`; 0 stands for "no further axis"."""


@kernel
def max_frames(
    first_atom,
    last_atom,
    first_edge,
    is_self,
    directions,
    vectors,
    first_scores,
    second_scores,
    attention,
    noise,
    first_key,
    second_key,
    margin,
    moments_of_e2,
    axes,
    anchors,
):
    """Axes and anchor edges of each atom and head; e₁ by the first scores, e₂ by the second and the angle to e₁.

    Scores get noise of this half-width, of streams named by the keys; moments decide among those within the margin.
    """
    n_heads = first_scores.shape[0]
    noisy = noise > 0
    longest = 0
    for i in range(first_atom, last_atom):
        longest = max(longest, first_edge[i + 1] - first_edge[i])
    scores, candidates = np.empty(longest, np.float32), np.empty(longest, np.int64)
    dipole, quadrupole, octupole = np.empty(3), np.empty((3, 3)), np.empty((3, 3, 3))
    frame = np.empty((3, 3), np.float64)
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        for h in range(n_heads):
            for e in range(start, stop):
                score = first_scores[h, e]
                if noisy:
                    score += noise * (np.float32(2.0) * _uniform(first_key, e * n_heads + h) - np.float32(1.0))
                scores[e - start] = np.float32(-np.inf) if is_self[e] else score
            n_candidates = _candidates(scores, stop - start, candidates, margin)
            have_moments = False
            if n_candidates > 1 and margin > 0:
                _moments(vectors, attention[h], start, stop, dipole, quadrupole, octupole)
                have_moments = True
                for order in range(1, 4):
                    for n in range(n_candidates):
                        for x in range(3):
                            frame[0, x] = directions[x, start + candidates[n]]
                        scores[n] = _moment(order, 1, 1, 1, frame, dipole, quadrupole, octupole)
                    n_candidates = _narrow(scores, n_candidates, candidates, margin)
            first = start + candidates[0]
            for x in range(3):
                frame[0, x] = directions[x, first]

            largest = np.float32(-np.inf)
            for e in range(start, stop):
                scores[e - start] = np.float32(-np.inf)
                bound = second_scores[h, e]
                if noisy:
                    bound += noise * (np.float32(2.0) * _uniform(second_key, e * n_heads + h) - np.float32(1.0))
                # The angle can only lower a score: most edges need no logarithm.
                if is_self[e] or bound < largest - margin:
                    continue
                cosine = abs(
                    directions[0, e] * np.float32(frame[0, 0])
                    + directions[1, e] * np.float32(frame[0, 1])
                    + directions[2, e] * np.float32(frame[0, 2])
                )
                if cosine >= COLLINEAR:
                    continue
                score = bound + np.float32(math.log(max(np.float32(1.0) - cosine, SMALLEST_SINE_SCORE)))
                scores[e - start] = score
                largest = max(largest, score)
            n_candidates = _candidates(scores, stop - start, candidates, margin)
            if n_candidates > 1 and margin > 0:
                if not have_moments:
                    _moments(vectors, attention[h], start, stop, dipole, quadrupole, octupole)
                for criterion in range(moments_of_e2.shape[0]):
                    if n_candidates == 1:
                        break
                    a, b, c = moments_of_e2[criterion]
                    order = 1 + (b > 0) + (c > 0)
                    for n in range(n_candidates):
                        _complete(frame, directions, start + candidates[n])
                        scores[n] = _moment(order, a, b, c, frame, dipole, quadrupole, octupole)
                    n_candidates = _narrow(scores, n_candidates, candidates, margin)
            second = start + candidates[0]
            _complete(frame, directions, second)
            anchors[i, h, 0], anchors[i, h, 1] = first, second
            for axis in range(3):
                for x in range(3):
                    axes[i, h, axis, x] = frame[axis, x]


@kernel
def _uniform(key, place):
    """`model.frames.uniform`."""
    x = np.uint32(np.uint32(place) + key)
    x = np.uint32((x ^ (x >> np.uint32(16))) * MULTIPLIERS[0])
    x = np.uint32((x ^ (x >> np.uint32(15))) * MULTIPLIERS[1])
    x = np.uint32(x ^ (x >> np.uint32(16)))
    return np.float32(x >> np.uint32(8)) * np.float32(2.0**-24)


@kernel
def _candidates(scores, count, candidates, margin):
    """Number of the scores within the margin of the best; at margin 0 the first of the best alone."""
    for n in range(count):
        candidates[n] = n
    found = _narrow(scores, count, candidates, margin)
    return min(found, 1) if margin == 0 else found


@kernel
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


@kernel
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


@kernel
def _moments(vectors, weights, start, stop, dipole, quadrupole, octupole):
    """Σ p r, Σ p r rᵀ, Σ p r⊗r⊗r over the edges of an atom."""
    dipole[:] = 0.0
    quadrupole[:] = 0.0
    octupole[:] = 0.0
    for e in range(start, stop):
        for x in range(3):
            first = weights[e] * vectors[x, e]
            dipole[x] += first
            for y in range(3):
                second = first * vectors[y, e]
                quadrupole[x, y] += second
                for z in range(3):
                    octupole[x, y, z] += second * vectors[z, e]


@kernel
def _moment(order, a, b, c, frame, dipole, quadrupole, octupole):
    """A moment along axes a, b, c of the frame (counted from 1), of the first one, two or three."""
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
