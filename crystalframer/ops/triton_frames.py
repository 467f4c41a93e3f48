"""`maths.frames.max_frames` in Triton: the same rule for axes and ties, one program per atom, all its heads at once.

One pass over the edges an axis, in which every score is computed once: computed again for another comparison it might
be rounded otherwise. A draw from a weighted set takes two: it compares by weights that change smoothly with the scores.
Where a margin makes ties that moments decide (evaluation), the reference's code serves instead: see `cuda.max_frames`.
"""

from __future__ import annotations

import triton.language as tl

from crystalframer.maths import constants
from crystalframer.ops.triton_kernels import _by_edge, kernel, three

COLLINEAR = tl.constexpr(constants.COLLINEAR)
SMALLEST_SINE = tl.constexpr(constants.SMALLEST_SINE)
SMALLEST_SINE_SCORE = tl.constexpr(constants.SMALLEST_SINE_SCORE)
SMALLEST_SQUARED_SINE = tl.constexpr(constants.SMALLEST_SQUARED_SINE)
UNIFORM_STEP = tl.constexpr(constants.UNIFORM_STEP)
LARGEST_UNIFORM = tl.constexpr(constants.LARGEST_UNIFORM)
FIRST_MULTIPLIER = tl.constexpr(constants.MULTIPLIERS[0])
SECOND_MULTIPLIER = tl.constexpr(constants.MULTIPLIERS[1])


@kernel
def max_frames(
    logits,
    length,
    direction,
    is_self,
    first_edge,
    seed,
    axes,
    n_heads,
    noise,
    margin,
    HEADS: tl.constexpr,
    NEAREST: tl.constexpr,
    SINE: tl.constexpr,
    NOISY: tl.constexpr,
    DRAWN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Axes of each atom and head; e₁ by the scores, e₂ by the scores and the angle to e₁."""
    i = tl.program_id(0).to(tl.int64)
    start = tl.load(first_edge + i)
    stop = tl.load(first_edge + i + 1)
    head = tl.arange(0, HEADS)
    is_head = head < n_heads

    given = (logits, length, direction, is_self, n_heads, start, stop, margin)
    bits = tl.load(seed)
    first = _chosen(given, None, head, _noise_key(bits, 0), noise, HEADS, NEAREST, SINE, NOISY, DRAWN, BLOCK)
    x1, y1, z1 = three(direction + first * 3, is_head)
    e1 = (x1, y1, z1)
    second = _chosen(given, e1, head, _noise_key(bits, 1), noise, HEADS, NEAREST, SINE, NOISY, DRAWN, BLOCK)
    x2, y2, z2 = three(direction + second * 3, is_head)
    x2, y2, z2 = orthogonal(x1, y1, z1, x2, y2, z2)
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
def _chosen(given, e1, head, key, noise, HEADS, NEAREST, SINE, NOISY, DRAWN, BLOCK):
    """(heads): the edge of the highest score, or one that is drawn from the weighted set."""
    best, edge = strongest(given, e1, head, key, noise, HEADS, NEAREST, SINE, NOISY, BLOCK)
    if DRAWN:
        edge = _drawn(given, e1, head, key, (best, edge), HEADS, NEAREST, SINE, BLOCK)
    return edge


@kernel
def orthogonal(x1, y1, z1, x, y, z):
    """The direction of (x, y, z) off e₁, 0 on its line; see `maths.ties.right_handed`."""
    x, y, z = _off_line(x1, y1, z1, x, y, z)
    return _off_line(x1, y1, z1, x, y, z)


@kernel
def _off_line(x1, y1, z1, x, y, z):
    along = x * x1 + y * y1 + z * z1
    x -= along * x1
    y -= along * y1
    z -= along * z1
    sine = tl.sqrt(x * x + y * y + z * z)
    shrink = tl.where(sine > SMALLEST_SINE, 1.0 / tl.maximum(sine, SMALLEST_SINE), 0.0)
    return x * shrink, y * shrink, z * shrink


@kernel
def _scores(given, e1, head, e, NEAREST, SINE):
    """(edges, heads): what the anchor edge is the maximum of, off the line of e₁ if there is one; -inf elsewhere."""
    logits, length, direction, is_self, n_heads, _, stop, _ = given
    real = e < stop
    there = real[:, None] & (head < n_heads)[None, :]
    if NEAREST:
        r = tl.load(length + e, mask=real, other=0.0)
        score = tl.where(there, -(r * r)[:, None], 0.0)
    else:
        score = _by_edge(logits, e, head, there, n_heads)
    possible = (tl.load(is_self + e, mask=real, other=1) == 0)[:, None] & there
    if e1 is not None:
        x1, y1, z1 = e1[0][None, :], e1[1][None, :], e1[2][None, :]
        x, y, z = three(direction + e * 3, real)
        x, y, z = x[:, None], y[:, None], z[:, None]
        if SINE:  # by the cross product, which is exact near the line
            u, v, w = y * z1 - z * y1, z * x1 - x * z1, x * y1 - y * x1
            score += tl.log(tl.maximum(u * u + v * v + w * w, SMALLEST_SQUARED_SINE))
        else:
            cosine = tl.abs(x * x1 + y * y1 + z * z1)
            score += tl.log(tl.maximum(1.0 - cosine, SMALLEST_SINE_SCORE))
            possible = possible & (cosine < COLLINEAR)
    return tl.where(possible, score, float("-inf"))


@kernel
def strongest(given, e1, head, key, noise, HEADS, NEAREST, SINE, NOISY, BLOCK):
    """(heads): the highest score, and its edge."""
    n_heads, start, stop = given[4], given[5], given[6]
    best = tl.full([HEADS], float("-inf"), tl.float32)
    first = tl.zeros([HEADS], tl.int64) + stop
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        there = (e < stop)[:, None] & (head < n_heads)[None, :]
        score = _scores(given, e1, head, e, NEAREST, SINE)
        if NOISY:
            score += noise * (2.0 * _uniform(e, head, n_heads, key) - 1.0)
        highest = tl.max(score, 0)
        # "Not below" rather than "at least": NaN scores give some frame and NaN further on, not an edge that is none.
        candidate = there & ((score < highest[None, :]) == 0)
        here = tl.min(tl.where(candidate, e[:, None], stop), 0)
        is_better = (highest > best) | (begin == start)
        first = tl.where(is_better, here, first)
        best = tl.where(is_better, highest, best)
    return best, first


@kernel
def _uniform(e, head, n_heads, key):
    """(edges, heads): `maths.frames.uniform`."""
    bits = _hash((e[:, None] * n_heads + head[None, :]).to(tl.uint32) + key)
    return (bits >> 8).to(tl.float32) * (1.0 / 16777216.0)


@kernel
def _noise_key(seed, axis):
    """`maths.frames.noise_key` of a seed (int64)."""
    high = (seed >> 32).to(tl.uint32) + (2 * axis + 1)
    return _hash(seed.to(tl.uint32) ^ _hash(high))


@kernel
def _hash(bits):
    """`maths.frames._hash` of numbers (uint32)."""
    bits = (bits ^ (bits >> 16)) * FIRST_MULTIPLIER
    bits = (bits ^ (bits >> 15)) * SECOND_MULTIPLIER
    return bits ^ (bits >> 16)


# --- weighted sets: see `maths.ties._rarity` --------------------------------------------------------------------------


@kernel
def lags(given, e1, head, best, e, NEAREST, SINE):
    """(edges, heads): how many margins each edge is behind the best (highest score, edge); 1 if it is no member."""
    highest = tl.where(best[0] > float("-inf"), best[0], 0.0)  # all are NaN or -inf: the best alone is a member
    lag = (highest[None, :] - _scores(given, e1, head, e, NEAREST, SINE)) / given[7]
    return tl.where(e[:, None] == best[1][None, :], 0.0, tl.where(lag < 1.0, lag, 1.0))


@kernel
def end_of_members(lag, e, begin):
    """Behind the last of the edges in a block that is a member of the set of any head."""
    number = (e + 1 - begin).to(tl.int32)[:, None]
    return begin + tl.max(tl.max(tl.where(lag < 1.0, number, 0), 0), 0)


@kernel
def products(given, e1, head, best, lag, NEAREST, SINE, BLOCK):
    """(edges, heads): Π_b φ((s_b - s_a)/δ) for members with these lags; 0 for others."""
    start, stop = given[5], given[6]
    product = tl.where(lag < 1.0, 1.0, 0.0)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        lag_b = lags(given, e1, head, best, e, NEAREST, SINE)
        for b in range(begin, end_of_members(lag_b, e, begin)):
            x = lag - tl.sum(tl.where(e[:, None] == b, lag_b, 0.0), 0)[None, :]
            x = tl.minimum(tl.maximum(x, 0.0), 1.0)
            rest = 1.0 - x
            product *= rest * rest * rest * (1.0 + x * (3.0 + 6.0 * x))
    return product


@kernel
def _drawn(given, e1, head, key, best, HEADS, NEAREST, SINE, BLOCK):
    """(heads): one edge of the set; see `maths.ties.drawn_from_set`. The sum of all weights would change no draw."""
    n_heads, start, stop = given[4], given[5], given[6]
    highest = tl.zeros([HEADS], tl.float32)
    drawn = best[1]
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        lag = lags(given, e1, head, best, e, NEAREST, SINE)
        if end_of_members(lag, e, begin) > begin:
            weight = products(given, e1, head, best, lag, NEAREST, SINE, BLOCK)
            number = tl.minimum(_uniform(e, head, n_heads, key) + UNIFORM_STEP, LARGEST_UNIFORM)
            value = weight / -tl.log(number)
            largest = tl.max(value, 0)
            here = tl.min(tl.where(value == largest[None, :], e[:, None], stop), 0)
            drawn = tl.where(largest > highest, here, drawn)
            highest = tl.maximum(largest, highest)
    return drawn
