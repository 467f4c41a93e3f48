"""Framed attention in Triton: one program of one warp per atom, all its heads, its edges a block at a time.

What the default model takes (8 heads of 16, 64 distance centres, 40 polynomials on 3 axes; 104 edges an atom), per atom
and layer, forward:

- arithmetic: 8 · 104 · (32 for q·k, 32 for p·v, 128 for distances, 480 for cosines, 20 else) = 0.58 Mflop; an H100 does
  67 Tflop/s in float32, so 8.6 ns, or 22 µs for a batch of 2,560 atoms;
- memory: geometry of the edges 2.6 kB, queries, keys, values, axes 1.8 kB, logits and weights 13 kB (written, read),
  sums 6.4 kB: 24 kB; at 3.35 TB/s 7 ns, and less where 50 MB of L2 cache hold it.

So arithmetic decides. It cannot move to the tensor cores: the cosines differ by head, one row times a matrix; and
2e-5 of accuracy would take three tf32 products for one. What remains is to waste no instruction. These kernels issue,
a warp and an edge with all its heads (sm_90): logits and softmax 40 (54 with an envelope), frames in training 36 (about
95 if they are drawn from weighted sets), values 22, distances 46, cosines 110; the arithmetic above alone would be 87.
Backward: values 25, distances 55, cosines 106, logits and queries 34 (39), keys and values 2 · 28. At one instruction a
clock on each of 528 schedulers, 1.7 GHz, and 112 edges (whole blocks), a layer of 2,560 atoms takes 81 µs forward and
88 µs backward: four times the floor. Sums and gradients end at the last edge that any head of an atom attends to.

- Sums over edges stay inside a thread. Each kernel has its heads (times axes, or centres) across the 32 lanes of its
  warp and the edges of a block in registers, so that a sum takes one instruction an edge and no shuffle. Triton lays
  tensors out by the loads that feed them; that these come out so was read from the machine code (Triton 3.6 and 3.7),
  and tests/test_ops_cuda.py holds it.
- A row of sums is picked by comparing row numbers known at compile time: it costs nothing.
- Weights of edges are kept (4 bytes an edge and head, less than the sums that the projections' gradients need), not
  computed again in every loop; nothing else of an edge outlives its layer's forward or backward pass.
- Gradients of keys and values are gathered over the edges that come in, in an order fixed by sorting once a batch:
  deterministic, where atomics would not be, and no mirror image of an edge is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

from crystalframer.maths import constants

WHOLE = tl.constexpr(constants.WHOLE)
SLOPE = tl.constexpr(1.0 / (1.0 - constants.WHOLE))
SMALLEST_REST = tl.constexpr(constants.SMALLEST_REST)
NEGLIGIBLE = tl.constexpr(constants.NEGLIGIBLE)


def kernel(function: Callable[..., Any]) -> Any:
    """Compiled for the shapes at hand on first use; head counts are no constants: see `_by_edge`.

    Names in capitals are constants for the compiler. A kernel declares them so, and what it calls gets them as such.
    """
    plain = inspect.unwrap(function)  # of the wrapper that checks types in tests: a compiler wants the bare function
    return triton.jit(do_not_specialize=["n_heads"])(plain)


@kernel
def _by_edge(array, edge, head, there, n_heads):
    """(edges, heads) of an array (n_edges, n_heads).

    `n_heads` is no constant here: if Triton knew rows to be aligned it would load four heads a thread, and lay out all
    that is computed from them with idle lanes.
    """
    return tl.load(array + edge[:, None] * n_heads + head[None, :], mask=there, other=0.0)


@kernel
def _by_atom(array, atom, head, n_heads, D_HEAD, D):
    """(atoms, heads, D) of an array (n_atoms, n_heads, D_HEAD); 0 beyond."""
    row = atom[:, None, None] * n_heads + head[None, :, None]
    d = tl.arange(0, D)[None, None, :]
    there = (head < n_heads)[None, :, None] & (d < D_HEAD)
    return tl.load(array + row * D_HEAD + d, mask=there, other=0.0)


@kernel
def _envelope(squared, precision, steepness):
    """(edges, heads): argument of the envelope, what it is below 1, and the size, so that φ = rest² · size.

    See `maths.decay`; squared lengths times precision times steepness are squared shares of the reach.
    """
    x = (squared[:, None] * precision[None, :] * steepness - WHOLE) * SLOPE
    x = tl.minimum(tl.maximum(x, 0.0), 1.0)
    rest = 1.0 - x
    return x, rest, rest * (1.0 + x * (3.0 + 6.0 * x))


@kernel
def _end_of_reach(length, start, stop, head, precision, n_heads, steepness, BLOCK):
    """Behind the last edge, nearest first, within the reach of any head."""
    farthest = tl.min(tl.where(head < n_heads, precision, float("inf")), 0)
    n_within = tl.zeros([BLOCK], tl.int32)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        r = tl.load(length + e, mask=e < stop, other=float("inf"))
        beyond = r * r * farthest * steepness >= 1.0
        n_within = tl.where(beyond, n_within, (e + 1 - start).to(tl.int32))
    return tl.minimum(start + tl.max(n_within, 0), stop)


@kernel
def attend(
    query,
    key,
    precision,
    length,
    key_atom,
    first_edge,
    logits,
    attention,
    last_edge,
    n_heads,
    scale,
    steepness,
    HEADS: tl.constexpr,
    D_HEAD: tl.constexpr,
    D: tl.constexpr,
    ENDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Logits q·k/√d - r²·precision, with the logarithm of the envelope if it `ENDS`, and their softmax over the edges
    of each atom; and behind the last edge of an atom that any head attends to."""
    i = tl.program_id(0).to(tl.int64)
    start = tl.load(first_edge + i)
    stop = tl.load(first_edge + i + 1)
    head = tl.arange(0, HEADS)
    q = _by_atom(query, i + tl.zeros([1], tl.int64), head, n_heads, D_HEAD, D) * scale
    decay = tl.load(precision + i * n_heads + head, mask=head < n_heads, other=0.0)
    end = stop
    if ENDS:
        end = _end_of_reach(length, start, stop, head, decay, n_heads, steepness, BLOCK)
    for begin in range(start, end, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < end
        j = tl.load(key_atom + e, mask=real, other=0)
        content = tl.sum(q * _by_atom(key, j, head, n_heads, D_HEAD, D), 2)
        there = real[:, None] & (head < n_heads)[None, :]
        tl.store(logits + e[:, None] * n_heads + head[None, :], content, mask=there)
    tl.debug_barrier()  # what follows reads what other threads wrote
    largest = tl.full([HEADS], float("-inf"), tl.float32)
    total = tl.zeros([HEADS], tl.float32)
    for begin in range(start, end, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < end
        there = real[:, None] & (head < n_heads)[None, :]
        r = tl.load(length + e, mask=real, other=0.0)
        logit = _by_edge(logits, e, head, there, n_heads) - (r * r)[:, None] * decay[None, :]
        if ENDS:
            _, rest, size = _envelope(r * r, decay, steepness)
            envelope = rest * rest * size
            is_within = envelope > 0.0
            logit = tl.where(is_within, logit + tl.log(tl.where(is_within, envelope, 1.0)), float("-inf"))
        tl.store(logits + e[:, None] * n_heads + head[None, :], logit, mask=there)
        logit = tl.where(real[:, None], logit, float("-inf"))
        higher = tl.maximum(largest, tl.max(logit, 0))
        total = total * tl.exp(largest - higher) + tl.sum(tl.exp(logit - higher[None, :]), 0)
        largest = higher
    tl.debug_barrier()
    norm = 1.0 / tl.maximum(total, 1.0)  # the largest alone is 1; 0 for an atom without edges, which pads a batch
    n_attended = tl.zeros([BLOCK, HEADS], tl.int32)
    for begin in range(start, end, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        there = (e < end)[:, None] & (head < n_heads)[None, :]
        logit = _by_edge(logits, e, head, there, n_heads)
        weight = tl.exp(logit - largest[None, :]) * norm[None, :]
        tl.store(attention + e[:, None] * n_heads + head[None, :], weight, mask=there)
        attends = there
        if ENDS:
            attends = there & ((weight < NEGLIGIBLE) == 0)  # NaN, too
        n_attended = tl.where(attends, (e + 1 - start).to(tl.int32)[:, None], n_attended)
    tl.store(last_edge + i, start + tl.max(tl.max(n_attended, 0), 0))
    for begin in range(end, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        there = (e < stop)[:, None] & (head < n_heads)[None, :]
        place = e[:, None] * n_heads + head[None, :]
        tl.store(logits + place, tl.full([BLOCK, HEADS], float("-inf"), tl.float32), mask=there)
        tl.store(attention + place, tl.zeros([BLOCK, HEADS], tl.float32), mask=there)


@kernel
def attend_backward(
    grad_attention,
    attention,
    key,
    precision,
    length,
    key_atom,
    first_edge,
    last_edge,
    grad_logits,
    grad_query,
    grad_precision,
    n_heads,
    scale,
    steepness,
    HEADS: tl.constexpr,
    D_HEAD: tl.constexpr,
    D: tl.constexpr,
    ENDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """From the gradient of the weights to those of the logits, the queries and the precisions."""
    i = tl.program_id(0).to(tl.int64)
    start = tl.load(first_edge + i)
    last = tl.load(last_edge + i)
    stop = tl.load(first_edge + i + 1)
    head = tl.arange(0, HEADS)
    decay = tl.load(precision + i * n_heads + head, mask=head < n_heads, other=0.0)
    mean = tl.zeros([HEADS], tl.float32)
    for begin in range(start, last, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        there = (e < last)[:, None] & (head < n_heads)[None, :]
        weight = _by_edge(attention, e, head, there, n_heads)
        mean += tl.sum(weight * _by_edge(grad_attention, e, head, there, n_heads), 0)
    of_query = tl.zeros([HEADS, D], tl.float32)
    of_precision = tl.zeros([HEADS], tl.float32)
    for begin in range(start, last, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < last
        there = real[:, None] & (head < n_heads)[None, :]
        weight = _by_edge(attention, e, head, there, n_heads)
        grad = weight * (_by_edge(grad_attention, e, head, there, n_heads) - mean[None, :])
        tl.store(grad_logits + e[:, None] * n_heads + head[None, :], grad, mask=there)
        j = tl.load(key_atom + e, mask=real, other=0)
        r = tl.load(length + e, mask=real, other=0.0)
        of_distance = grad * (r * r)[:, None]
        if ENDS:
            x, rest, size = _envelope(r * r, decay, steepness)
            size = tl.where(rest < SMALLEST_REST, SMALLEST_REST, size)
            of_precision -= tl.sum(of_distance * (1.0 + 30.0 * steepness * SLOPE * x * x / size), 0)
        else:
            of_precision -= tl.sum(of_distance, 0)
        of_query += tl.sum(grad[:, :, None] * _by_atom(key, j, head, n_heads, D_HEAD, D), 0)
    tl.store(grad_precision + i * n_heads + head, of_precision, mask=head < n_heads)
    d = tl.arange(0, D)
    place = (i * n_heads + head[:, None]) * D_HEAD + d[None, :]
    tl.store(grad_query + place, of_query * scale, mask=(head < n_heads)[:, None] & (d < D_HEAD)[None, :])
    for begin in range(last, stop, BLOCK):  # keys gather the gradients of all edges
        e = begin + tl.arange(0, BLOCK)
        there = (e < stop)[:, None] & (head < n_heads)[None, :]
        tl.store(grad_logits + e[:, None] * n_heads + head[None, :], tl.zeros([BLOCK, HEADS], tl.float32), mask=there)


@kernel
def gather_to_keys(
    weights,
    values,
    query_atom,
    incoming,
    first_incoming,
    out,
    n_heads,
    factor,
    HEADS: tl.constexpr,
    D_HEAD: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out_j = factor · Σ over the edges that end at atom j of weight × value of the query atom."""
    j = tl.program_id(0).to(tl.int64)
    start = tl.load(first_incoming + j)
    stop = tl.load(first_incoming + j + 1)
    head = tl.arange(0, HEADS)
    total = tl.zeros([HEADS, D], tl.float32)
    for begin in range(start, stop, BLOCK):
        n = begin + tl.arange(0, BLOCK)
        real = n < stop
        e = tl.load(incoming + n, mask=real, other=0)
        i = tl.load(query_atom + e, mask=real, other=0)
        weight = _by_edge(weights, e, head, real[:, None] & (head < n_heads)[None, :], n_heads)
        total += tl.sum(weight[:, :, None] * _by_atom(values, i, head, n_heads, D_HEAD, D), 0)
    d = tl.arange(0, D)
    place = (j * n_heads + head[:, None]) * D_HEAD + d[None, :]
    tl.store(out + place, total * factor, mask=(head < n_heads)[:, None] & (d < D_HEAD)[None, :])


@kernel
def segment_sums(values, first, sums, N_COLUMNS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of the rows of each segment."""
    i = tl.program_id(0).to(tl.int64)
    start = tl.load(first + i)
    stop = tl.load(first + i + 1)
    column = tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float32)
    for begin in range(start, stop, BLOCK):
        row = begin + tl.arange(0, BLOCK)
        there = (row < stop)[:, None] & (column < N_COLUMNS)[None, :]
        total += tl.sum(tl.load(values + row[:, None] * N_COLUMNS + column[None, :], mask=there, other=0.0), 0)
    tl.store(sums + i * N_COLUMNS + column, total, mask=column < N_COLUMNS)


@kernel
def three(place, there):
    """Three numbers that lie together, such as the coordinates of a vector; 0 where there are none."""
    x = tl.load(place, mask=there, other=0.0)
    y = tl.load(place + 1, mask=there, other=0.0)
    z = tl.load(place + 2, mask=there, other=0.0)
    return x, y, z


@kernel
def _cosines(direction, e, real, ax, ay, az):
    """(edges, lanes): cosines to the axes of the lanes."""
    x, y, z = three(direction + e * 3, real)
    c = x[:, None] * ax[None, :] + y[:, None] * ay[None, :] + z[:, None] * az[None, :]
    return tl.minimum(tl.maximum(c, -1.0), 1.0)


@kernel
def accumulate(
    attention,
    value,
    axes,
    length,
    direction,
    is_self,
    key_atom,
    first_edge,
    last_edge,
    values,
    sums,
    n_heads,
    spacing,
    sharpness,
    HEADS: tl.constexpr,
    D_HEAD: tl.constexpr,
    D: tl.constexpr,
    N_CENTERS: tl.constexpr,
    CENTERS: tl.constexpr,
    DEGREE: tl.constexpr,
    DEGREES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Attended values; sums: attended distance Gaussians, then Chebyshev polynomials of the cosines to three axes."""
    i = tl.program_id(0).to(tl.int64)
    start = tl.load(first_edge + i)
    stop = tl.load(last_edge + i)
    N: tl.constexpr = N_CENTERS + 3 * DEGREE
    sums += i * n_heads * N
    atom = (i, start, stop, n_heads)
    _attended_values(attention, value, key_atom, values, atom, HEADS, D_HEAD, D, BLOCK)
    _attended_distances(attention, length, sums, atom, spacing, sharpness, HEADS, N_CENTERS, CENTERS, N, BLOCK)
    if DEGREE > 0:
        sums += N_CENTERS
        _attended_cosines(attention, axes, direction, is_self, sums, atom, HEADS, DEGREE, DEGREES, N, BLOCK)


@kernel
def _attended_values(attention, value, key_atom, values, atom, HEADS, D_HEAD, D, BLOCK):
    i, start, stop, n_heads = atom
    head = tl.arange(0, HEADS)
    total = tl.zeros([HEADS, D], tl.float32)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < stop
        weight = _by_edge(attention, e, head, real[:, None] & (head < n_heads)[None, :], n_heads)
        j = tl.load(key_atom + e, mask=real, other=0)
        total += tl.sum(weight[:, :, None] * _by_atom(value, j, head, n_heads, D_HEAD, D), 0)
    d = tl.arange(0, D)
    place = (i * n_heads + head[:, None]) * D_HEAD + d[None, :]
    tl.store(values + place, total, mask=(head < n_heads)[:, None] & (d < D_HEAD)[None, :])


@kernel
def _attended_distances(attention, length, sums, atom, spacing, sharpness, HEADS, N_CENTERS, CENTERS, N, BLOCK):
    """Lanes: centres."""
    _, start, stop, n_heads = atom
    head = tl.arange(0, HEADS)
    center = tl.arange(0, CENTERS)
    position = (center + 1).to(tl.float32) * spacing
    total = tl.zeros([HEADS, CENTERS], tl.float32)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < stop
        weight = _by_edge(attention, e, head, real[:, None] & (head < n_heads)[None, :], n_heads)
        offset = (tl.load(length + e, mask=real, other=0.0)[:, None] - position[None, :]) * sharpness
        total += tl.sum(weight[:, :, None] * tl.exp(-offset * offset)[:, None, :], 0)
    there = (head < n_heads)[:, None] & (center < N_CENTERS)[None, :]
    tl.store(sums + head[:, None] * N + center[None, :], total, mask=there)


@kernel
def _attended_cosines(attention, axes, direction, is_self, sums, atom, HEADS, DEGREE, DEGREES, N, BLOCK):
    """Lanes: all heads of the first axis, of the second, of the third; the last quarter is idle."""
    i, start, stop, n_heads = atom
    lane = tl.arange(0, 4 * HEADS)
    axis = lane // HEADS
    of_head = lane % HEADS
    is_lane = (of_head < n_heads) & (axis < 3)
    ax, ay, az = three(axes + (i * n_heads + of_head) * 9 + axis * 3, is_lane)
    degree = tl.arange(0, DEGREES)
    total = tl.zeros([DEGREES, 4 * HEADS], tl.float32)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < stop
        directed = tl.load(is_self + e, mask=real, other=1) == 0
        weight = _by_edge(attention, e, of_head, directed[:, None] & is_lane[None, :], n_heads)
        c = _cosines(direction, e, real, ax, ay, az)
        low = tl.full([BLOCK, 4 * HEADS], 1.0, tl.float32)
        high = c
        for n in tl.static_range(DEGREE):
            total = tl.where((degree == n)[:, None], total + tl.sum(weight * low, 0)[None, :], total)
            low, high = high, 2.0 * c * high - low
    place = of_head[None, :] * N + axis[None, :] * DEGREE + degree[:, None]
    tl.store(sums + place, total, mask=is_lane[None, :] & (degree < DEGREE)[:, None])


@kernel
def accumulate_backward(
    grad_values,
    grad_distances,
    grad_cosines,
    value,
    axes,
    length,
    direction,
    is_self,
    key_atom,
    first_edge,
    last_edge,
    grad_attention,
    n_heads,
    spacing,
    sharpness,
    HEADS: tl.constexpr,
    D_HEAD: tl.constexpr,
    D: tl.constexpr,
    N_CENTERS: tl.constexpr,
    CENTERS: tl.constexpr,
    DEGREE: tl.constexpr,
    ROW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient of every weight: what its edge adds to values, distances and cosines, against their gradients.

    Those of the cosines come as (n_atoms, degree, 3, n_heads), so that lanes read what lies together, in rows of a size
    known at compile time, so that 40 addresses take one register.
    """
    i = tl.program_id(0).to(tl.int64)
    start = tl.load(first_edge + i)
    stop = tl.load(last_edge + i)
    atom = (i, start, stop, n_heads)
    _from_values(grad_values, value, key_atom, grad_attention, atom, HEADS, D_HEAD, D, BLOCK)
    tl.debug_barrier()  # each part adds to what other threads wrote
    _from_distances(grad_distances, length, grad_attention, atom, spacing, sharpness, HEADS, N_CENTERS, CENTERS, BLOCK)
    if DEGREE > 0:
        tl.debug_barrier()
        _from_cosines(grad_cosines, axes, direction, is_self, grad_attention, atom, HEADS, DEGREE, ROW, BLOCK)


@kernel
def _from_values(grad_values, value, key_atom, grad_attention, atom, HEADS, D_HEAD, D, BLOCK):
    i, start, stop, n_heads = atom
    head = tl.arange(0, HEADS)
    grad = _by_atom(grad_values, i + tl.zeros([1], tl.int64), head, n_heads, D_HEAD, D)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < stop
        j = tl.load(key_atom + e, mask=real, other=0)
        total = tl.sum(grad * _by_atom(value, j, head, n_heads, D_HEAD, D), 2)
        place = grad_attention + e[:, None] * n_heads + head[None, :]
        tl.store(place, total, mask=real[:, None] & (head < n_heads)[None, :])


@kernel
def _from_distances(grad_distances, length, grad_attention, atom, spacing, sharpness, HEADS, N_CENTERS, CENTERS, BLOCK):
    """Lanes: eight centres of four edges, heads within a thread: few shuffles and few exponentials."""
    i, start, stop, n_heads = atom
    head = tl.arange(0, HEADS)
    slot = tl.arange(0, 8)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < stop
        r = tl.load(length + e, mask=real, other=0.0)
        total = tl.zeros([HEADS, BLOCK, 8], tl.float32)
        for first in tl.static_range(0, CENTERS, 8):
            center = first + slot
            offset = (r[:, None] - ((center + 1).to(tl.float32) * spacing)[None, :]) * sharpness
            here = (head < n_heads)[:, None] & (center < N_CENTERS)[None, :]
            row = (i * n_heads + head[:, None]) * N_CENTERS
            grad = tl.load(grad_distances + row + center[None, :], mask=here, other=0.0)
            total += grad[:, None, :] * tl.exp(-offset * offset)[None, :, :]
        there = (head < n_heads)[:, None] & real[None, :]
        place = grad_attention + e[None, :] * n_heads + head[:, None]
        tl.store(place, tl.load(place, mask=there, other=0.0) + tl.sum(total, 2), mask=there)


@kernel
def _from_cosines(grad_cosines, axes, direction, is_self, grad_attention, atom, HEADS, DEGREE, ROW, BLOCK):
    """Lanes as in `_attended_cosines`; Clenshaw's recurrence from the highest degree down."""
    i, start, stop, n_heads = atom
    lane = tl.arange(0, 4 * HEADS)
    axis = lane // HEADS
    of_head = lane % HEADS
    is_lane = (of_head < n_heads) & (axis < 3)
    ax, ay, az = three(axes + (i * n_heads + of_head) * 9 + axis * 3, is_lane)
    coefficients = grad_cosines + i * DEGREE * ROW + axis * n_heads + of_head
    head = tl.arange(0, HEADS)
    for begin in range(start, stop, BLOCK):
        e = begin + tl.arange(0, BLOCK)
        real = e < stop
        c = _cosines(direction, e, real, ax, ay, az)
        higher = tl.zeros([BLOCK, 4 * HEADS], tl.float32)
        high = higher
        for n in tl.static_range(DEGREE - 1):
            coefficient = tl.load(coefficients + (DEGREE - 1 - n) * ROW, mask=is_lane, other=0.0)
            higher, high = high, 2.0 * c * high + (coefficient[None, :] - higher)
        coefficient = tl.load(coefficients, mask=is_lane, other=0.0)
        total = tl.reshape(c * high + (coefficient[None, :] - higher), [BLOCK, 4, HEADS])
        directed = tl.load(is_self + e, mask=real, other=1) == 0
        there = directed[:, None] & (head < n_heads)[None, :]
        place = grad_attention + e[:, None] * n_heads + head[None, :]
        tl.store(place, tl.load(place, mask=there, other=0.0) + tl.sum(total, 1), mask=there)
