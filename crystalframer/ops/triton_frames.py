"""`model.frames.max_frames` in Triton: the same rule for axes and ties, one program per atom, all its heads at once.

Two passes over the edges an axis: the best score, then the first edge that reaches it. Only where several do, in
evaluation, moments of the surroundings narrow the candidates down, one after another.

Moments of first, second and third order are one tensor: Σ p R⊗R⊗R over R = (x, y, z, 1), 64 components. Contracted with
(0, 0, 0, 1) for an axis that a criterion does not name, it gives the lower orders.
"""

from __future__ import annotations

import triton.language as tl

from crystalframer.model import frames
from crystalframer.ops.triton_kernels import _by_edge, kernel

COLLINEAR = tl.constexpr(frames.COLLINEAR)
SMALLEST_SINE_SCORE = tl.constexpr(frames.SMALLEST_SINE_SCORE)
FIRST_MULTIPLIER = tl.constexpr(frames.MULTIPLIERS[0])
SECOND_MULTIPLIER = tl.constexpr(frames.MULTIPLIERS[1])


@kernel
def max_frames(
    logits,
    length,
    direction,
    is_self,
    first_edge,
    first_criteria,
    second_criteria,
    tied,
    moments,
    axes,
    n_heads,
    noise,
    margin,
    first_key,
    second_key,
    HEADS: tl.constexpr,
    NEAREST: tl.constexpr,
    NOISY: tl.constexpr,
    BY_MOMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Axes of each atom and head; e₁ by the scores, e₂ by the scores and the angle to e₁.

    `moments` as by `moments_of_attention`; `tied` (n_edges, n_heads) is memory to work in.
    """
    i = tl.program_id(0).to(tl.int64)
    start = tl.load(first_edge + i)
    stop = tl.load(first_edge + i + 1)
    head = tl.arange(0, HEADS)
    is_head = head < n_heads
    moments += i * n_heads * 64

    none = tl.zeros([HEADS], tl.float32)
    first = _anchor(
        logits,
        length,
        direction,
        is_self,
        first_criteria,
        3,
        tied,
        moments,
        none,
        none,
        none,
        start,
        stop,
        n_heads,
        noise,
        margin,
        first_key,
        HEADS,
        0,
        NEAREST,
        NOISY,
        BY_MOMENTS,
        BLOCK,
    )
    x1 = tl.load(direction + first * 3, mask=is_head, other=0.0)
    y1 = tl.load(direction + first * 3 + 1, mask=is_head, other=0.0)
    z1 = tl.load(direction + first * 3 + 2, mask=is_head, other=0.0)
    if BY_MOMENTS:
        tl.debug_barrier()  # all have read the marks of the first axis
    second = _anchor(
        logits,
        length,
        direction,
        is_self,
        second_criteria,
        11,
        tied,
        moments,
        x1,
        y1,
        z1,
        start,
        stop,
        n_heads,
        noise,
        margin,
        second_key,
        HEADS,
        1,
        NEAREST,
        NOISY,
        BY_MOMENTS,
        BLOCK,
    )
    x2 = tl.load(direction + second * 3, mask=is_head, other=0.0)
    y2 = tl.load(direction + second * 3 + 1, mask=is_head, other=0.0)
    z2 = tl.load(direction + second * 3 + 2, mask=is_head, other=0.0)
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
def _directions(direction, e, real):
    """x, y, z, each (edges, 1)."""
    x = tl.load(direction + e * 3, mask=real, other=0.0)
    y = tl.load(direction + e * 3 + 1, mask=real, other=0.0)
    z = tl.load(direction + e * 3 + 2, mask=real, other=0.0)
    return x[:, None], y[:, None], z[:, None]


@kernel
def _scores(
    logits,
    length,
    direction,
    is_self,
    x1,
    y1,
    z1,
    e,
    real,
    there,
    head,
    n_heads,
    noise,
    key,
    AXIS: tl.constexpr,
    NEAREST: tl.constexpr,
    NOISY: tl.constexpr,
):
    """(edges, heads): what the anchor edge is the maximum of; -inf where an edge cannot be chosen."""
    if NEAREST:
        r = tl.load(length + e, mask=real, other=0.0)
        score = tl.where(there, -(r * r)[:, None], 0.0)
    else:
        score = _by_edge(logits, e, head, there, n_heads)
    possible = (tl.load(is_self + e, mask=real, other=1) == 0)[:, None] & there
    if AXIS == 1:
        x, y, z = _directions(direction, e, real)
        cosine = tl.abs(x * x1[None, :] + y * y1[None, :] + z * z1[None, :])
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
def _anchor(
    logits,
    length,
    direction,
    is_self,
    criteria,
    n_criteria,
    tied,
    moments,
    x1,
    y1,
    z1,
    start,
    stop,
    n_heads,
    noise,
    margin,
    key,
    HEADS: tl.constexpr,
    AXIS: tl.constexpr,
    NEAREST: tl.constexpr,
    NOISY: tl.constexpr,
    BY_MOMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """(heads): the edge of the highest score."""
    head = tl.arange(0, HEADS)
    is_head = head < n_heads
    best = tl.full([HEADS], float("-inf"), tl.float32)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < stop
        there = real[:, None] & is_head[None, :]
        score = _scores(
            logits,
            length,
            direction,
            is_self,
            x1,
            y1,
            z1,
            e,
            real,
            there,
            head,
            n_heads,
            noise,
            key,
            AXIS,
            NEAREST,
            NOISY,
        )
        best = tl.maximum(best, tl.max(score, 0))
    first = tl.zeros([HEADS], tl.int64) + stop
    count = tl.zeros([HEADS], tl.int32)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < stop
        there = real[:, None] & is_head[None, :]
        score = _scores(
            logits,
            length,
            direction,
            is_self,
            x1,
            y1,
            z1,
            e,
            real,
            there,
            head,
            n_heads,
            noise,
            key,
            AXIS,
            NEAREST,
            NOISY,
        )
        # "Not below" rather than "at least": NaN scores give some frame and NaN further on, not an edge that is none.
        candidate = there & ((score < (best - margin)[None, :]) == 0)
        first = tl.minimum(first, tl.min(tl.where(candidate, e[:, None], stop), 0))
        if BY_MOMENTS:
            count += tl.sum(candidate.to(tl.int32), 0)
            mark = tl.where(candidate, 0.0, float("-inf"))
            tl.store(tied + e[:, None] * n_heads + head[None, :], mark, mask=there)
    if BY_MOMENTS:
        most = tl.max(count, 0)
        for n in range(n_criteria):
            if most > 1:
                tl.debug_barrier()  # marks may be other threads'
                code = tl.load(criteria + n)
                first, most = _narrow(
                    direction, tied, moments, x1, y1, z1, start, stop, n_heads, margin, code, HEADS, AXIS, BLOCK
                )
    return first


@kernel
def moments_of_attention(
    attention, length, direction, first_edge, moments, n_heads, HEADS: tl.constexpr, BLOCK: tl.constexpr
):
    """(n_atoms, n_heads, 64) Σ p R⊗R⊗R over the edges of each atom, R = (x, y, z, 1) in Å."""
    i = tl.program_id(0).to(tl.int64)
    start = tl.load(first_edge + i)
    stop = tl.load(first_edge + i + 1)
    head = tl.arange(0, HEADS)
    component = tl.arange(0, 64)
    total = tl.zeros([HEADS, 64], tl.float32)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < stop
        weight = _by_edge(attention, e, head, real[:, None] & (head < n_heads)[None, :], n_heads)
        r = tl.load(length + e, mask=real, other=0.0)
        product = _factor(direction, e, real, r, component // 16)
        product *= _factor(direction, e, real, r, component // 4 % 4)
        product *= _factor(direction, e, real, r, component % 4)
        total += tl.sum(weight[:, :, None] * product[:, None, :], 0)
    place = (i * n_heads + head[:, None]) * 64 + component[None, :]
    tl.store(moments + place, total, mask=(head < n_heads)[:, None])


@kernel
def _factor(direction, e, real, r, n):
    """(edges, components): coordinate n of R."""
    mask = real[:, None] & (n < 3)[None, :]
    return tl.where(
        n[None, :] < 3, tl.load(direction + e[:, None] * 3 + n[None, :], mask=mask, other=0.0) * r[:, None], 1.0
    )


@kernel
def _narrow(
    direction,
    tied,
    moments,
    x1,
    y1,
    z1,
    start,
    stop,
    n_heads,
    margin,
    code,
    HEADS: tl.constexpr,
    AXIS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Keep the candidates whose moment lies within the margin of the largest; the first (heads), and how many at most.

    Marks (n_edges, n_heads): -inf of an edge that is no candidate.
    """
    head = tl.arange(0, HEADS)
    is_head = head < n_heads
    best = tl.full([HEADS], float("-inf"), tl.float32)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < stop
        there = real[:, None] & is_head[None, :]
        place = tied + e[:, None] * n_heads + head[None, :]
        mark = tl.load(place, mask=there, other=float("-inf"))
        moment = _moment(direction, moments, x1, y1, z1, e, real, head, is_head, code, AXIS)
        moment = tl.where(mark < 0.0, float("-inf"), moment)
        tl.store(place, moment, mask=there)
        best = tl.maximum(best, tl.max(moment, 0))
    tl.debug_barrier()
    first = tl.zeros([HEADS], tl.int64) + stop
    count = tl.zeros([HEADS], tl.int32)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        there = (e < stop)[:, None] & is_head[None, :]
        place = tied + e[:, None] * n_heads + head[None, :]
        moment = tl.load(place, mask=there, other=float("-inf"))
        candidate = there & (moment != float("-inf")) & ((moment < (best - margin)[None, :]) == 0)
        first = tl.minimum(first, tl.min(tl.where(candidate, e[:, None], stop), 0))
        count += tl.sum(candidate.to(tl.int32), 0)
        tl.store(place, tl.where(candidate, 0.0, float("-inf")), mask=there)
    return first, tl.max(count, 0)


@kernel
def _moment(direction, moments, x1, y1, z1, e, real, head, is_head, code, AXIS: tl.constexpr):
    """(edges, heads): the moment along the axes named by `code`, of the frame that each edge would give."""
    x, y, z = _directions(direction, e, real)
    if AXIS == 0:
        zero = tl.zeros([1, 1], tl.float32)
        return _contract(moments, head, is_head, code, x, y, z, zero, zero, zero, zero, zero, zero)
    else:
        x1, y1, z1 = x1[None, :], y1[None, :], z1[None, :]
        x2, y2, z2 = _orthogonal(x1, y1, z1, x, y, z)
        x3, y3, z3 = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
        return _contract(moments, head, is_head, code, x1, y1, z1, x2, y2, z2, x3, y3, z3)


@kernel
def _contract(moments, head, is_head, code, x1, y1, z1, x2, y2, z2, x3, y3, z3):
    """Σ T_abc u_a v_b w_c with u, v, w the axes that the digits of `code` name."""
    ux, uy, uz, u1 = _axis(code % 4, x1, y1, z1, x2, y2, z2, x3, y3, z3)
    vx, vy, vz, v1 = _axis(code // 4 % 4, x1, y1, z1, x2, y2, z2, x3, y3, z3)
    wx, wy, wz, w1 = _axis(code // 16, x1, y1, z1, x2, y2, z2, x3, y3, z3)
    x = _plane(moments, 0, head, is_head, vx, vy, vz, v1, wx, wy, wz, w1)
    y = _plane(moments, 1, head, is_head, vx, vy, vz, v1, wx, wy, wz, w1)
    z = _plane(moments, 2, head, is_head, vx, vy, vz, v1, wx, wy, wz, w1)
    one = _plane(moments, 3, head, is_head, vx, vy, vz, v1, wx, wy, wz, w1)
    return ux * x + uy * y + uz * z + u1 * one


@kernel
def _plane(moments, a: tl.constexpr, head, is_head, vx, vy, vz, v1, wx, wy, wz, w1):
    x = _line(moments, a, 0, head, is_head, wx, wy, wz, w1)
    y = _line(moments, a, 1, head, is_head, wx, wy, wz, w1)
    z = _line(moments, a, 2, head, is_head, wx, wy, wz, w1)
    one = _line(moments, a, 3, head, is_head, wx, wy, wz, w1)
    return vx * x + vy * y + vz * z + v1 * one


@kernel
def _line(moments, a: tl.constexpr, b: tl.constexpr, head, is_head, wx, wy, wz, w1):
    place = moments + head * 64 + a * 16 + b * 4
    x = tl.load(place, mask=is_head, other=0.0)[None, :]
    y = tl.load(place + 1, mask=is_head, other=0.0)[None, :]
    z = tl.load(place + 2, mask=is_head, other=0.0)[None, :]
    one = tl.load(place + 3, mask=is_head, other=0.0)[None, :]
    return wx * x + wy * y + wz * z + w1 * one


@kernel
def _axis(n, x1, y1, z1, x2, y2, z2, x3, y3, z3):
    """Axis n of the frame and 0; (0, 0, 0, 1) for n = 0."""
    x = tl.where(n == 1, x1, tl.where(n == 2, x2, tl.where(n == 3, x3, 0.0)))
    y = tl.where(n == 1, y1, tl.where(n == 2, y2, tl.where(n == 3, y3, 0.0)))
    z = tl.where(n == 1, z1, tl.where(n == 2, z2, tl.where(n == 3, z3, 0.0)))
    return x, y, z, tl.where(n == 0, 1.0, 0.0)
