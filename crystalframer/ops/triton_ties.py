"""Moments of the cosines over weighted sets of frames, in Triton: see `reference.cosines_in_weighted_frames`.

One program of one warp per atom and head, because each head has its own set; edges lie across the lanes. Sets have any
number of members, so loops over them end where the numbers on the device say: the host waits for nothing.

With 112 edges, a set of one frame takes some 8,000 instructions of a warp and the 24 frames of an octahedral site some
30,000 (machine code for sm_90; times were not measured): with 8 heads and 4 layers, 2,560 atoms take 1 to 3 ms.
"""

from __future__ import annotations

import triton.language as tl

from crystalframer.maths import constants
from crystalframer.ops.triton_frames import end_of_members, lags, orthogonal, products, strongest
from crystalframer.ops.triton_kernels import kernel, three

ONE_LINE = tl.constexpr(constants.ONE_LINE)


@kernel
def cosines_of_sets(
    logits,
    attention,
    length,
    direction,
    is_self,
    first_edge,
    moments,
    n_heads,
    margin,
    NEAREST: tl.constexpr,
    SINE: tl.constexpr,
    DEGREE: tl.constexpr,
    DEGREES: tl.constexpr,
    MOST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Adds to moments (n_atoms, n_heads, 3 · degree): attended Chebyshev polynomials of the cosines to each axis.

    Axes are gathered, up to a number, with their weights, so that moments along equal ones are summed once.
    """
    n = tl.program_id(0).to(tl.int64)
    i = n // n_heads
    h = n % n_heads
    start = tl.load(first_edge + i)
    stop = tl.load(first_edge + i + 1)
    head = h + tl.zeros([1], tl.int64)
    given = (logits, length, direction, is_self, n_heads, start, stop, margin)
    seen = (attention + h, direction, is_self, n_heads, start, stop)
    moments += n * 3 * DEGREE
    zeros = tl.zeros([4, MOST], tl.float32)
    gathered = (zeros, zeros, zeros, zeros)
    count = tl.zeros([4], tl.int32)

    best = strongest(given, None, head, 0, 0.0, 1, NEAREST, SINE, False, BLOCK)
    whole = _whole(given, None, head, best, NEAREST, SINE, BLOCK)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        weights, end = _weights(given, None, head, best, whole, e, begin, NEAREST, SINE, BLOCK)
        for first in range(begin, end):
            weight = _of_edge(weights, e, first)
            if weight > 0.0:
                x1, y1, z1 = three(direction + first * 3 + tl.zeros([1], tl.int64), True)
                e1 = (x1, y1, z1)
                best_2 = strongest(given, e1, head, 0, 0.0, 1, NEAREST, SINE, False, BLOCK)
                whole_2 = _whole(given, e1, head, best_2, NEAREST, SINE, BLOCK)
                for begin_2 in range(start, stop, BLOCK):
                    e_2 = begin_2 + tl.arange(0, BLOCK)
                    weights_2, end_2 = _weights(given, e1, head, best_2, whole_2, e_2, begin_2, NEAREST, SINE, BLOCK)
                    for second in range(begin_2, end_2):
                        weight_2 = weight * _of_edge(weights_2, e_2, second)
                        if weight_2 > 0.0:
                            if tl.max(count, 0) == MOST:
                                _sum(gathered, count, seen, moments, DEGREE, DEGREES, MOST, BLOCK)
                                count = tl.zeros([4], tl.int32)
                            x, y, z = three(direction + second * 3 + tl.zeros([1], tl.int64), True)
                            gathered, count = _gather(gathered, count, e1, (x, y, z), weight_2, MOST)
    _sum(gathered, count, seen, moments, DEGREE, DEGREES, MOST, BLOCK)


@kernel
def _whole(given, e1, head, best, NEAREST, SINE, BLOCK):
    """(1): sum of the products of all members."""
    start, stop = given[5], given[6]
    whole = tl.zeros([1], tl.float32)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        lag = lags(given, e1, head, best, e, NEAREST, SINE)
        if end_of_members(lag, e, begin) > begin:
            whole += tl.sum(products(given, e1, head, best, lag, NEAREST, SINE, BLOCK), 0)
    return whole


@kernel
def _weights(given, e1, head, best, whole, e, begin, NEAREST, SINE, BLOCK):
    """(edges, 1): weights of these edges in the set; 0 for those that are no members. And behind the last member."""
    lag = lags(given, e1, head, best, e, NEAREST, SINE)
    end = end_of_members(lag, e, begin)
    weights = tl.zeros([BLOCK, 1], tl.float32)
    if end > begin:
        weights = products(given, e1, head, best, lag, NEAREST, SINE, BLOCK) / whole[None, :]
    return weights, end


@kernel
def _of_edge(weights, e, edge):
    """The weight of one edge."""
    return tl.sum(tl.sum(tl.where(e[:, None] == edge, weights, 0.0), 1), 0)


@kernel
def _gather(gathered, count, e1, towards, weight, MOST):
    """Add the weight of a frame to each of its axes among those that are gathered (rows: e₁, e₂, e₃), or the axis."""
    xs, ys, zs, weights = gathered
    x1, y1, z1 = e1
    x2, y2, z2 = orthogonal(x1, y1, z1, towards[0], towards[1], towards[2])
    axis = tl.arange(0, 4)
    x = tl.where(axis == 0, x1, tl.where(axis == 1, x2, y1 * z2 - z1 * y2))[:, None]
    y = tl.where(axis == 0, y1, tl.where(axis == 1, y2, z1 * x2 - x1 * z2))[:, None]
    z = tl.where(axis == 0, z1, tl.where(axis == 1, z2, x1 * y2 - y1 * x2))[:, None]
    slot = tl.arange(0, MOST)[None, :]
    same = (tl.abs(xs - x) + tl.abs(ys - y) + tl.abs(zs - z) < ONE_LINE) & (slot < count[:, None])
    place = tl.min(tl.where(same, slot, count[:, None]), 1)
    here = slot == place[:, None]
    is_new = (place == count)[:, None]
    weights = tl.where(here, tl.where(is_new, 0.0, weights) + weight, weights)
    here = here & is_new
    gathered = (tl.where(here, x, xs), tl.where(here, y, ys), tl.where(here, z, zs), weights)
    return gathered, count + (place == count).to(tl.int32)


@kernel
def _sum(gathered, count, seen, moments, DEGREE, DEGREES, MOST, BLOCK):
    """Add the moments along the gathered axes."""
    attention, direction, is_self, n_heads, start, stop = seen
    row = tl.arange(0, 4)
    slot = tl.arange(0, MOST)
    degree = tl.arange(0, DEGREES)
    for axis in range(3):
        total = tl.zeros([DEGREES, BLOCK], tl.float32)
        for n in range(tl.sum(tl.where(row == axis, count, 0), 0)):
            here = (row == axis)[:, None] & (slot == n)[None, :]
            ax = tl.sum(tl.sum(tl.where(here, gathered[0], 0.0), 1), 0)
            ay = tl.sum(tl.sum(tl.where(here, gathered[1], 0.0), 1), 0)
            az = tl.sum(tl.sum(tl.where(here, gathered[2], 0.0), 1), 0)
            weight = tl.sum(tl.sum(tl.where(here, gathered[3], 0.0), 1), 0)
            for begin in range(start, stop, BLOCK):
                e = begin + tl.arange(0, BLOCK)
                real = e < stop
                directed = tl.load(is_self + e, mask=real, other=1) == 0
                p = weight * tl.load(attention + e * n_heads, mask=directed, other=0.0)
                x, y, z = three(direction + e * 3, real)
                c = tl.minimum(tl.maximum(x * ax + y * ay + z * az, -1.0), 1.0)
                low = tl.full([BLOCK], 1.0, tl.float32)
                high = c
                for k in tl.static_range(DEGREE):
                    total = tl.where((degree == k)[:, None], total + (p * low)[None, :], total)
                    low, high = high, 2.0 * c * high - low
        place = moments + axis * DEGREE + degree
        there = degree < DEGREE
        tl.store(place, tl.load(place, mask=there, other=0.0) + tl.sum(total, 1), mask=there)
