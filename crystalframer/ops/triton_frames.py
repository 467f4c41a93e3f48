"""`maths.frames.max_frames` in Triton: the same rule for axes and ties, one program per atom, all its heads at once.

One pass over the edges an axis, in which every score is computed once: computed again for another comparison it might
be rounded otherwise. Where a margin makes ties that moments decide (evaluation), the reference's code serves instead:
see `cuda.max_frames`.
"""

from __future__ import annotations

import triton.language as tl

from crystalframer.maths import frames, ties
from crystalframer.ops.triton_kernels import _by_edge, kernel, three

COLLINEAR = tl.constexpr(ties.COLLINEAR)
SMALLEST_SINE_SCORE = tl.constexpr(ties.SMALLEST_SINE_SCORE)
FIRST_MULTIPLIER = tl.constexpr(frames.MULTIPLIERS[0])
SECOND_MULTIPLIER = tl.constexpr(frames.MULTIPLIERS[1])


@kernel
def max_frames(
    logits,
    length,
    direction,
    is_self,
    first_edge,
    keys,
    axes,
    n_heads,
    noise,
    HEADS: tl.constexpr,
    NEAREST: tl.constexpr,
    NOISY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Axes of each atom and head; e₁ by the scores, e₂ by the scores and the angle to e₁."""
    i = tl.program_id(0).to(tl.int64)
    start = tl.load(first_edge + i)
    stop = tl.load(first_edge + i + 1)
    head = tl.arange(0, HEADS)
    is_head = head < n_heads

    given = (logits, length, direction, is_self, n_heads, noise)
    first = _anchor(given, start, stop, None, tl.load(keys), HEADS, NEAREST, NOISY, BLOCK)
    x1, y1, z1 = three(direction + first * 3, is_head)
    second = _anchor(given, start, stop, (x1, y1, z1), tl.load(keys + 1), HEADS, NEAREST, NOISY, BLOCK)
    x2, y2, z2 = three(direction + second * 3, is_head)
    x2, y2, z2 = _orthogonal(x1, y1, z1, x2, y2, z2)
    place = axes + (i * n_heads + head) * 9
    tl.store(place, x1, mask=is_head)
    tl.store(place + 1, y1, mask=is_head)
    tl.store(place + 2, z1, mask=is_head)
    tl.store(place + 3, x2, mask=is_head)
    tl.store(place + 4, y2, mask=is_head)
    tl.store(place + 5, z2, mask=is_head)
    tl.store(place + 6, y1 * z2 - z1 * y2, mask=is_head)
    tl.store(place + 7, z1 * x2 - x1 * z2, mask=is_head)
    tl.store(place + 8, x1 * y2 - y1 * x2, mask=is_head)


@kernel
def _orthogonal(x1, y1, z1, x, y, z):
    """The unit vector along the part of (x, y, z) at right angles to the first axis."""
    along = x * x1 + y * y1 + z * z1
    x -= along * x1
    y -= along * y1
    z -= along * z1
    norm = 1.0 / tl.maximum(tl.sqrt(x * x + y * y + z * z), 1e-12)
    return x * norm, y * norm, z * norm


@kernel
def _scores(given, e1, key, e, head, real, there, NEAREST, NOISY):
    """(edges, heads): what the anchor edge is the maximum of, off the line of e₁ if there is one; -inf elsewhere."""
    logits, length, direction, is_self, n_heads, noise = given
    if NEAREST:
        r = tl.load(length + e, mask=real, other=0.0)
        score = tl.where(there, -(r * r)[:, None], 0.0)
    else:
        score = _by_edge(logits, e, head, there, n_heads)
    possible = (tl.load(is_self + e, mask=real, other=1) == 0)[:, None] & there
    if e1 is not None:
        x1, y1, z1 = e1
        x, y, z = three(direction + e * 3, real)
        cosine = tl.abs(x[:, None] * x1[None, :] + y[:, None] * y1[None, :] + z[:, None] * z1[None, :])
        score += tl.log(tl.maximum(1.0 - cosine, SMALLEST_SINE_SCORE))
        possible = possible & (cosine < COLLINEAR)
    score = tl.where(possible, score, float("-inf"))
    if NOISY:
        bits = (e[:, None] * n_heads + head[None, :]).to(tl.uint32) + key.to(tl.uint32)
        bits = (bits ^ (bits >> 16)) * FIRST_MULTIPLIER
        bits = (bits ^ (bits >> 15)) * SECOND_MULTIPLIER
        bits = bits ^ (bits >> 16)
        score += noise * (2.0 * ((bits >> 8).to(tl.float32) * (1.0 / 16777216.0)) - 1.0)
    return score


@kernel
def _anchor(given, start, stop, e1, key, HEADS, NEAREST, NOISY, BLOCK):
    """(heads): the edge of the highest score."""
    head = tl.arange(0, HEADS)
    is_head = head < given[4]
    best = tl.full([HEADS], float("-inf"), tl.float32)
    first = tl.zeros([HEADS], tl.int64) + stop
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < stop
        there = real[:, None] & is_head[None, :]
        score = _scores(given, e1, key, e, head, real, there, NEAREST, NOISY)
        highest = tl.max(score, 0)
        # "Not below" rather than "at least": NaN scores give some frame and NaN further on, not an edge that is none.
        candidate = there & ((score < highest[None, :]) == 0)
        here = tl.min(tl.where(candidate, e[:, None], stop), 0)
        is_better = (highest > best) | (begin == start)
        first = tl.where(is_better, here, first)
        best = tl.where(is_better, highest, best)
    return first
