"""CPU kernels of framed attention in Numba: float32, one atom after another, only the weights of edges are kept.

Edges of an atom are contiguous and padded to a multiple of `PAD` with edges of weight 0, so that loops over them are
vector instructions without a remainder. Arrays over edges are (n_heads, n_edges). Distinct (query, key) atoms of a cell
are *pairs*. Results that depend on the atoms, but not on the image, are computed once per pair: a small cell has ten
times fewer pairs than edges. Loops sum into vectors or scalars rather than arrays, because a compiler must assume that
arrays overlap.

Each kernel works on a range of atoms and releases the interpreter, so that plain threads share the work.
"""

from __future__ import annotations

import math

import numpy as np

from crystalframer.compiled import kernel
from crystalframer.kernels.vectors import (
    FLAGS as MATHS,
    LANES,
    add_totals,
    clamp,
    load,
    power_of_two,
    splat,
    store,
    store_totals,
    total,
)
from crystalframer.maths import constants

PAD = LANES
"""The number of edges of an atom is a multiple of this."""
REACH = 5.5
"""Standard deviations beyond which a Gaussian may be left out: it is 3e-7."""

STEP, CHUNK = 8, 40
"""Moments of the cosines are those of T_40c · T_8k · T_j, k < 5, j < 8 (see `maths.chebyshev.chebyshev_products`): as
many sums as registers hold, half of them at a time. First come the chunk's even j, of all k, and then its odd j."""
ROW = 256
"""Items of a row of scratch memory."""
CACHE_LINE = 64
"""Bytes. Vector instructions are slower on memory that starts elsewhere."""

LOG2_E = np.float32(math.log2(math.e))
FAR = np.float32(1e30)
"""Squared length of edges that pad, Å²."""
NEGLIGIBLE = np.float32(constants.NEGLIGIBLE)
WHOLE, SLOPE = np.float32(constants.WHOLE), np.float32(1.0 / (1.0 - constants.WHOLE))
"""Of the envelope; see `maths.decay`."""
SMALLEST_REST = np.float32(constants.SMALLEST_REST)
ZERO, ONE, TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
NOWHERE, NEXT = np.uint64(0), np.uint64(LANES)
"""First place of an array, and the step to the next vector."""


# --- the layout of a batch --------------------------------------------------------------------------------------------


@kernel(MATHS)
def lay_out(first_atom, last_atom, first_edge, first_given, given, squared, lengths, directions, is_self):
    """Copy the geometry of the given edges to where they are padded, and the squares of their lengths."""
    given_lengths, given_directions, given_is_self = given
    for i in range(first_atom, last_atom):
        start, first = np.uint64(first_edge[i]), np.uint64(first_given[i])
        count = np.uint64(first_given[i + 1]) - first
        for n in range(count):
            edge, place = first + n, start + n
            lengths[place], is_self[place] = given_lengths[edge], given_is_self[edge]
            squared[place] = given_lengths[edge] * given_lengths[edge]
            for axis in range(3):
                directions[axis, place] = given_directions[edge, axis]
        for place in range(start + count, np.uint64(first_edge[i + 1])):
            lengths[place], squared[place], is_self[place] = ZERO, FAR, True
            for axis in range(3):
                directions[axis, place] = ZERO


@kernel(MATHS)
def find_pairs(first_given, first_edge, key, squared, n_keys):
    """Number the distinct key atoms of each query atom.

    Returns the pair of each (padded) edge, counted within its atom; where each atom's pairs start; their key atoms;
    their nearest squared distance; and the same pairs by key atom: where they start, their numbers, their query atoms.
    """
    n_atoms = len(first_edge) - 1
    pair = np.zeros(first_edge[n_atoms], np.int32)
    first_pair = np.zeros(n_atoms + 1, np.int64)
    keys, nearest = np.empty(len(key), np.int32), np.empty(len(key), np.float32)
    number_of = np.full(n_keys, -1, np.int64)
    n_pairs = 0
    for i in range(n_atoms):
        for n in range(first_given[i + 1] - first_given[i]):
            j, distance = key[first_given[i] + n], squared[first_edge[i] + n]
            if number_of[j] < first_pair[i]:
                number_of[j] = n_pairs
                keys[n_pairs], nearest[n_pairs] = j, distance
                n_pairs += 1
            nearest[number_of[j]] = min(nearest[number_of[j]], distance)
            pair[first_edge[i] + n] = number_of[j] - first_pair[i]
        first_pair[i + 1] = n_pairs
    keys, nearest = keys[:n_pairs].copy(), nearest[:n_pairs].copy()

    first_at_key = np.zeros(n_keys + 1, np.int64)
    for j in keys:
        first_at_key[j + 1] += 1
    for j in range(n_keys):
        first_at_key[j + 1] += first_at_key[j]
    free = first_at_key.copy()
    pairs_at_key, queries = np.empty(n_pairs, np.int32), np.empty(n_pairs, np.int32)
    for i in range(n_atoms):
        for a in range(first_pair[i], first_pair[i + 1]):
            place = free[keys[a]]
            pairs_at_key[place], queries[place] = a, i
            free[keys[a]] += 1
    return pair, first_pair, keys, nearest, first_at_key, pairs_at_key, queries


@kernel(MATHS)
def find_blocks(first_edge, lengths, n_centers, spacing, reach):
    """For every eight centres, spacing · (1, 2, ...), the edges of each atom between the first and last within reach.

    Returns where the blocks of each atom start, the first edge of each (counted within the atom), and its number of
    edges, a multiple of `PAD`. Blocks beyond the farthest edge are left out.
    """
    n_atoms, n_blocks = len(first_edge) - 1, (n_centers + 7) // 8
    first_block = np.zeros(n_atoms + 1, np.int64)
    block_edge, block_size = np.empty(n_atoms * n_blocks, np.int64), np.empty(n_atoms * n_blocks, np.int64)
    block = 0
    for i in range(n_atoms):
        of_atom = lengths[first_edge[i] : first_edge[i + 1]]
        farthest = np.float32(0.0)
        for length in of_atom:
            farthest = max(farthest, length)
        for number in range(n_blocks):
            low, high = (8 * number + 1) * spacing - reach, (8 * number + 8) * spacing + reach
            if low > farthest:
                break
            begin, end = 0, 0
            for n in range(len(of_atom)):
                if low <= of_atom[n] <= high:
                    begin = n if end == 0 else begin
                    end = n + 1
            block_edge[block] = begin // PAD * PAD
            block_size[block] = (end + PAD - 1) // PAD * PAD - block_edge[block]
            block += 1
        first_block[i + 1] = block
    return first_block, block_edge[:block].copy(), block_size[:block].copy()


# --- one layer --------------------------------------------------------------------------------------------------------


@kernel(MATHS)
def attend(first_atom, last_atom, first_edge, pairs_of, squared, q, k, precision, steepness, logits, attention, n_seen):
    """Logits q·k/√d - r²·precision, and their softmax over the edges of each atom with the weights of the envelope.

    Args:
        steepness: 2/k², by which r²·precision becomes (r/kσ)²; 0 for no envelope. The logits are without the envelope,
            but -inf beyond k·σ: they serve to tell weights apart that are too small for float32.
        n_seen: number of edges that each head sees, a multiple of `PAD`. After them are the negligible ones.
    """
    n_edges, pair, first_pair, keys, nearest = pairs_of
    n_heads, d_head = q.shape[1], q.shape[2]
    scale = np.float32(1.0 / math.sqrt(d_head))
    weights = aligned(most_items(first_atom, last_atom, first_edge))
    content = aligned(most_items(first_atom, last_atom, first_pair))
    one, zero = splat(ONE), splat(ZERO)
    for i in range(first_atom, last_atom):
        start, stop = np.uint64(first_edge[i]), np.uint64(first_edge[i + 1])
        for h in range(n_heads):
            of_distance, of_head = precision[i, h], np.uint64(h) * np.uint64(logits.shape[1]) + start
            largest = np.float32(-np.inf)
            for a in range(first_pair[i], first_pair[i + 1]):
                product = scale * _dot(q, i, k, keys[a], h)
                content[a - first_pair[i]] = product
                largest = max(largest, product - nearest[a] * of_distance)
            seen = n_edges[i]
            while seen > 1 and squared[start + np.uint64(seen - 1)] * of_distance * steepness >= 1.0:
                seen -= 1
            count = np.uint64((seen + PAD - 1) // PAD * PAD)
            for n in range(count):
                weights[n] = content[np.uint64(pair[start + n])]
            sums, highest, decay = zero, splat(largest), splat(of_distance)
            for n in range(NOWHERE, count, NEXT):
                exponent = load(squared, start + n) * decay
                logit = load(weights, n) - exponent
                store(logits, of_head + n, logit)
                weight = power_of_two((logit - highest) * splat(LOG2_E))
                if steepness > 0:
                    x = clamp((exponent * splat(steepness) - splat(WHOLE)) * splat(SLOPE), zero, one)
                    rest = one - x
                    weight = (
                        weight * rest * rest * rest * (one + x * (splat(np.float32(3.0)) + splat(np.float32(6.0)) * x))
                    )
                store(weights, n, weight)
            for n in range(seen, count):
                weights[n] = ZERO
            for n in range(NOWHERE, count, NEXT):
                sums = sums + load(weights, n)
            share = ONE / total(sums)
            for n in range(NOWHERE, count, NEXT):
                store(attention, of_head + n, load(weights, n) * splat(share))
            for edge in range(start + count, stop):
                logits[h, edge], attention[h, edge] = np.float32(-np.inf), ZERO
            while steepness > 0 and seen > 1 and weights[seen - 1] * share < NEGLIGIBLE:
                seen -= 1
            n_seen[h, i] = (seen + PAD - 1) // PAD * PAD


@kernel(MATHS)
def attend_backward(
    first_atom,
    last_atom,
    first_edge,
    pair,
    first_pair,
    squared,
    precision,
    steepness,
    n_seen,
    attention,
    grad_attention,
    of_pairs,
    grad_precision,
):
    """Gradients of the content of each pair and of the precisions: dl = p · (dp - Σ p dp), of the edges that are seen.

    Without an envelope these are all edges.
    """
    n_heads = attention.shape[0]
    stride = most_items(first_atom, last_atom, first_edge)
    grads = aligned(n_heads * stride)
    sums = aligned(n_heads * most_items(first_atom, last_atom, first_pair))
    one, zero, towards_end = splat(ONE), splat(ZERO), steepness * SLOPE
    for i in range(first_atom, last_atom):
        start, most = np.uint64(first_edge[i]), np.uint64(_most_seen(n_seen, i))
        for h in range(n_heads):
            row, count = np.uint64(h) * np.uint64(stride), np.uint64(n_seen[h, i])
            of_head, decay = np.uint64(h) * np.uint64(attention.shape[1]) + start, splat(precision[i, h])
            products = zero
            for n in range(NOWHERE, count, NEXT):
                products = products + load(attention, of_head + n) * load(grad_attention, of_head + n)
            mean, of_precision = splat(total(products)), zero
            for n in range(NOWHERE, count, NEXT):
                grad = load(attention, of_head + n) * (load(grad_attention, of_head + n) - mean)
                store(grads, row + n, grad)
                distance = load(squared, start + n)
                slope = one
                if steepness > 0:  # and the derivative of the envelope's logarithm
                    x = (distance * decay * splat(steepness) - splat(WHOLE)) * splat(SLOPE)
                    x = clamp(x, zero, one)
                    rest = clamp(one - x, splat(SMALLEST_REST), one)
                    size = rest * _envelope_end(x)
                    slope = one + splat(towards_end) * splat(np.float32(30.0)) * x * x / size
                of_precision = of_precision - grad * distance * slope
            for n in range(count, most, NEXT):
                store(grads, row + n, zero)
            grad_precision[i, h] = total(of_precision)
        first, n_pairs = np.uint64(first_pair[i]), np.uint64(first_pair[i + 1] - first_pair[i])
        _sum_to_pairs(pair, start, most, grads, NOWHERE, np.uint64(stride), sums, of_pairs, first, n_pairs)


@kernel(MATHS)
def sum_over_pairs(first_atom, last_atom, first, pairs, others, weights, values, scale, out):
    """out_i = scale · Σ over the pairs of atom i of weight × value of the other atom."""
    n_heads, d_head = values.shape[1], values.shape[2]
    whole, factor = d_head // LANES * LANES, splat(scale)
    for i in range(first_atom, last_atom):
        for h in range(n_heads):
            for c in range(0, whole, LANES):
                sums = splat(ZERO)
                for a in range(first[i], first[i + 1]):
                    sums = sums + splat(weights[h, pairs[a]]) * load(values, _place(values, others[a], h, c))
                store(out, _place(out, i, h, c), factor * sums)
            for c in range(whole, d_head):
                single = ZERO
                for a in range(first[i], first[i + 1]):
                    single += weights[h, pairs[a]] * values[others[a], h, c]
                out[i, h, c] = scale * single


@kernel(MATHS)
def accumulate(first_atom, last_atom, first_edge, edges, blocks, attention, n_seen, axes, sizes, of_pairs, moments):
    """Weights of the pairs, and moments: attended distance Gaussians, then Chebyshev products of each axis' cosines.

    No axes (an empty array): no cosines. Their number for each axis is a multiple of `CHUNK`.

    Args:
        sizes: number, spacing and standard deviation of the distance Gaussians.
    """
    pair, first_pair, _, is_self, directions, lengths = edges
    first_block, block_edge, block_size = blocks
    n_centers, spacing, width = sizes
    n_heads, n_moments = attention.shape[0], moments.shape[2]
    degree = (n_moments - n_centers) // 3
    most, step = most_items(first_atom, last_atom, first_edge), np.uint64(attention.shape[1])
    stride = np.uint64(most)
    others, gaussians, rows, eights = aligned(most), aligned(8 * most), aligned(3 * most), aligned(16)
    sums = aligned(n_heads * most_items(first_atom, last_atom, first_pair))
    weights = attention.reshape(attention.size)
    for i in range(first_atom, last_atom):
        start, n_edges = np.uint64(first_edge[i]), first_edge[i + 1] - first_edge[i]
        first, n_pairs = np.uint64(first_pair[i]), np.uint64(first_pair[i + 1] - first_pair[i])
        seen_by_any = np.uint64(_most_seen(n_seen, i))
        _sum_to_pairs(pair, start, seen_by_any, weights, start, step, sums, of_pairs, first, n_pairs)
        for block in range(first_block[i], first_block[i + 1]):
            m, edge = 8 * (block - first_block[i]), start + np.uint64(block_edge[block])
            size = min(block_size[block], np.int64(seen_by_any) - block_edge[block])
            _place_gaussians(lengths, edge, size, m, spacing, width, gaussians, stride)
            for h in range(0, n_heads, 2):
                g = min(h + 1, n_heads - 1)
                seen = min(size, max(n_seen[h, i], n_seen[g, i]) - block_edge[block])
                of_h, of_g = np.uint64(h) * step + edge, np.uint64(g) * step + edge
                _distance_moments(gaussians, stride, weights, of_h, of_g, seen, eights)
                for n in range(min(8, n_centers - m)):
                    moments[h, i, m + n], moments[g, i, m + n] = eights[n], eights[8 + n]
        for h in range(n_heads):
            for m in range(8 * (first_block[i + 1] - first_block[i]), n_centers):
                moments[h, i, m] = ZERO
        if degree == 0:
            continue
        mark_others(is_self, start, n_edges, others)
        for h in range(n_heads):
            count, of_head = np.uint64(n_seen[h, i]), np.uint64(h) * step + start
            for n in range(NOWHERE, count, NEXT):
                store(rows, stride + n, load(weights, of_head + n) * load(others, n))
            for axis in range(3):
                for n in range(NOWHERE, count, NEXT):
                    store(rows, n, _cosines(directions, start + n, axes, i, h, axis))
                place = _place(moments, h, i, n_centers + axis * degree)
                add_cosine_moments(rows, stride, stride + stride, count, moments, place, degree, False, True)
                add_cosine_moments(rows, stride, stride + stride, count, moments, place, degree, True, True)


@kernel(MATHS)
def accumulate_backward(
    first_atom, last_atom, first_edge, edges, blocks, v, n_seen, axes, sizes, g_values, g_moments, grad
):
    """Gradient of every weight that is seen: what its edge adds to values and moments, against their gradients."""
    pair, first_pair, keys, is_self, directions, lengths = edges
    first_block, block_edge, block_size = blocks
    n_centers, spacing, width = sizes
    n_heads, degree = v.shape[1], (g_moments.shape[2] - n_centers) // 3
    most = most_items(first_atom, last_atom, first_edge)
    stride = np.uint64(most)
    others, gaussians, factors = aligned(most), aligned(8 * most), aligned(16)
    of_edges = aligned((n_heads + 1) * most)
    of_pairs = np.empty(most_items(first_atom, last_atom, first_pair), np.float32)
    flat = g_moments.reshape(g_moments.size)
    for i in range(first_atom, last_atom):
        start, seen_by_any = np.uint64(first_edge[i]), _most_seen(n_seen, i)
        mark_others(is_self, start, first_edge[i + 1] - first_edge[i], others)
        for h in range(n_heads):
            row, count = np.uint64(h) * stride, np.uint64(n_seen[h, i])
            for n in range(NOWHERE, np.uint64(seen_by_any), NEXT):
                sums = splat(ZERO)
                if degree > 0 and n < count:
                    for axis in range(3):
                        cosines = _cosines(directions, start + n, axes, i, h, axis)
                        place = _place(g_moments, h, i, n_centers + axis * degree)
                        sums = sums + _cosine_series(cosines, flat, place, degree)
                    sums = sums * load(others, n)
                store(of_edges, row + n, sums)
        for block in range(first_block[i], first_block[i + 1]):
            m, edge = 8 * (block - first_block[i]), np.uint64(block_edge[block])
            size = min(block_size[block], seen_by_any - block_edge[block])
            _place_gaussians(lengths, start + edge, size, m, spacing, width, gaussians, stride)
            for h in range(0, n_heads, 2):  # behind the last head is a row for none
                g = min(h + 1, n_heads - 1)
                seen = min(size, max(n_seen[h, i], n_seen[g, i]) - block_edge[block])
                for n in range(8):
                    is_center = m + n < n_centers
                    factors[n] = g_moments[h, i, m + n] if is_center else ZERO
                    factors[8 + n] = g_moments[g, i, m + n] if is_center else ZERO
                of_h = np.uint64(h) * stride + edge
                _add_distance_series(gaussians, stride, factors, of_edges, of_h, of_h + stride, seen)
        for h in range(n_heads):
            row = np.uint64(h) * stride
            for a in range(first_pair[i], first_pair[i + 1]):
                of_pairs[a - first_pair[i]] = _dot(g_values, i, v, keys[a], h)
            for n in range(np.uint64(n_seen[h, i])):
                edge = start + n
                grad[h, edge] = of_edges[row + n] + of_pairs[np.uint64(pair[edge])]


# --- parts ------------------------------------------------------------------------------------------------------------


@kernel(MATHS)
def most_items(first_atom, last_atom, first):
    """The most items that an atom of the range has."""
    most = 0
    for i in range(first_atom, last_atom):
        most = max(most, first[i + 1] - first[i])
    return most


@kernel(MATHS)
def aligned(size):
    """Scratch memory of this many numbers that starts with a cache line."""
    memory = np.empty(size + CACHE_LINE // 4, np.float32)
    skip = (-memory.ctypes.data % CACHE_LINE) // 4
    return memory[skip : skip + size]


@kernel(MATHS, inlined=True)
def _place(array, one, two, three):
    """Place of an element in the memory of an array with three axes."""
    return (np.uint64(one) * np.uint64(array.shape[1]) + np.uint64(two)) * np.uint64(array.shape[2]) + np.uint64(three)


@kernel(MATHS, inlined=True)
def _most_seen(n_seen, i):
    """The most edges of an atom that a head sees."""
    most = 0
    for h in range(len(n_seen)):
        most = max(most, n_seen[h, i])
    return most


@kernel(MATHS, inlined=True)
def mark_others(is_self, start, count, others):
    """1 for the edges of an atom, from `start` on (unsigned), and 0 for that to itself and those that pad."""
    for n in range(count):
        others[n] = ZERO if is_self[start + np.uint64(n)] else ONE


@kernel(MATHS, inlined=True)
def copy_directions(directions, start, count, x, y, z):
    """The directions of the edges of an atom, from `start` on (unsigned)."""
    for n in range(count):
        x[n] = directions[0, start + np.uint64(n)]
    for n in range(count):
        y[n] = directions[1, start + np.uint64(n)]
    for n in range(count):
        z[n] = directions[2, start + np.uint64(n)]


@kernel(MATHS, inlined=True)
def _envelope_end(x):
    """1 + 3x + 6x², by which the envelope differs from (1 - x)³."""
    return splat(ONE) + x * (splat(np.float32(3.0)) + splat(np.float32(6.0)) * x)


@kernel(MATHS, inlined=True)
def _dot(x, i, y, j, h):
    """x[i, h] · y[j, h]."""
    size = x.shape[2]
    whole, products = size // LANES * LANES, splat(ZERO)
    for c in range(0, whole, LANES):
        products = products + load(x, _place(x, i, h, c)) * load(y, _place(y, j, h, c))
    product = total(products)
    for c in range(whole, size):
        product += x[i, h, c] * y[j, h, c]
    return product


@kernel(MATHS, inlined=True)
def _sum_to_pairs(pair, start, count, values, first, step, sums, of_pairs, first_pair, n_pairs):
    """Sum the values of each pair's edges, for all heads: of_pairs[h, first_pair + a] is the sum of those
    values[first + h · step + n] whose pair[start + n] is a. All numbers are unsigned; `sums` is scratch memory.

    Of all heads at once, because the edges of a pair follow one another, and each sum would wait for the one before.
    """
    n_heads = np.uint64(len(of_pairs))
    for n in range(n_pairs * n_heads):
        sums[n] = ZERO
    for n in range(count):
        place = np.uint64(pair[start + n]) * n_heads
        for h in range(n_heads):
            sums[place + h] += values[first + h * step + n]
    for h in range(n_heads):
        for a in range(n_pairs):
            of_pairs[h, first_pair + a] = sums[a * n_heads + h]


# --- Gaussians of the distance ----------------------------------------------------------------------------------------


@kernel(MATHS, inlined=True)
def _place_gaussians(lengths, edge, size, m, spacing, width, rows, stride):
    """Gaussians of eight centres from number `m` on, in eight rows, over the edges from one on."""
    factor = splat(np.float32(-0.5 * math.log2(math.e) / (width * width)))
    for n in range(8):
        center, row = splat(np.float32((m + n + 1) * spacing)), np.uint64(n) * stride
        for place in range(NOWHERE, np.uint64(max(size, 0)), NEXT):
            deviation = load(lengths, edge + place) - center
            store(rows, row + place, power_of_two(deviation * deviation * factor))


@kernel(MATHS, inlined=True)
def _distance_moments(rows, stride, weights, of_h, of_g, seen, eights):
    """The eight sums Σ weight × Gaussian of one head, and of another."""
    to_2 = stride + stride
    to_4 = to_2 + to_2
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = splat(ZERO)
    t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = splat(ZERO)
    for n in range(NOWHERE, np.uint64(max(seen, 0)), NEXT):
        one, other, high = load(weights, of_h + n), load(weights, of_g + n), n + to_4
        row = load(rows, n)
        s0, t0 = s0 + one * row, t0 + other * row
        row = load(rows, n + stride)
        s1, t1 = s1 + one * row, t1 + other * row
        row = load(rows, n + to_2)
        s2, t2 = s2 + one * row, t2 + other * row
        row = load(rows, n + to_2 + stride)
        s3, t3 = s3 + one * row, t3 + other * row
        row = load(rows, high)
        s4, t4 = s4 + one * row, t4 + other * row
        row = load(rows, high + stride)
        s5, t5 = s5 + one * row, t5 + other * row
        row = load(rows, high + to_2)
        s6, t6 = s6 + one * row, t6 + other * row
        row = load(rows, high + to_2 + stride)
        s7, t7 = s7 + one * row, t7 + other * row
    store_totals(eights, np.uint64(0), s0, s1, s2, s3)
    store_totals(eights, np.uint64(4), s4, s5, s6, s7)
    store_totals(eights, np.uint64(8), t0, t1, t2, t3)
    store_totals(eights, np.uint64(12), t4, t5, t6, t7)


@kernel(MATHS, inlined=True)
def _add_distance_series(rows, stride, factors, out, of_h, of_g, seen):
    """out += Σ factor × Gaussian, for one head and for another."""
    to_2 = stride + stride
    to_4 = to_2 + to_2
    f0, f1, f2, f3 = splat(factors[0]), splat(factors[1]), splat(factors[2]), splat(factors[3])
    f4, f5, f6, f7 = splat(factors[4]), splat(factors[5]), splat(factors[6]), splat(factors[7])
    g0, g1, g2, g3 = splat(factors[8]), splat(factors[9]), splat(factors[10]), splat(factors[11])
    g4, g5, g6, g7 = splat(factors[12]), splat(factors[13]), splat(factors[14]), splat(factors[15])
    for n in range(NOWHERE, np.uint64(max(seen, 0)), NEXT):
        high = n + to_4
        row = load(rows, n)
        even_f, even_g = load(out, of_h + n) + f0 * row, load(out, of_g + n) + g0 * row
        row = load(rows, n + stride)
        odd_f, odd_g = f1 * row, g1 * row
        row = load(rows, n + to_2)
        even_f, even_g = even_f + f2 * row, even_g + g2 * row
        row = load(rows, n + to_2 + stride)
        odd_f, odd_g = odd_f + f3 * row, odd_g + g3 * row
        row = load(rows, high)
        even_f, even_g = even_f + f4 * row, even_g + g4 * row
        row = load(rows, high + stride)
        odd_f, odd_g = odd_f + f5 * row, odd_g + g5 * row
        row = load(rows, high + to_2)
        even_f, even_g = even_f + f6 * row, even_g + g6 * row
        row = load(rows, high + to_2 + stride)
        odd_f, odd_g = odd_f + f7 * row, odd_g + g7 * row
        store(out, of_h + n, even_f + odd_f)
        store(out, of_g + n, even_g + odd_g)


# --- polynomials of the cosines ---------------------------------------------------------------------------------------


@kernel(MATHS, inlined=True)
def _cosines(directions, edge, axes, i, h, axis):
    """Cosines of the edges from one on to an axis, within -1 and 1."""
    step = np.uint64(directions.shape[1])
    x, y, z = load(directions, edge), load(directions, edge + step), load(directions, edge + step + step)
    u, v, w = splat(axes[i, h, axis, 0]), splat(axes[i, h, axis, 1]), splat(axes[i, h, axis, 2])
    return clamp(x * u + y * v + z * w, splat(-ONE), splat(ONE))


@kernel(MATHS, inlined=True)
def add_cosine_moments(rows, weights, spare, size, out, place, degree, of_odd, is_new):
    """Sums of weight · T_40c · T_8k · T_j over items, for even j or for odd ones: see `CHUNK`.

    Args:
        rows: cosines of the items, and from place `weights` on their weights; from place `spare` on, scratch memory.
        size: number of items, a multiple of `LANES`.
        out: where from `place` on the sums are written, or added if they are not new.
    """
    one, zero = splat(ONE), splat(ZERO)
    for first in range(0, degree, CHUNK):
        given = weights
        if first > 0:
            given = spare
            for n in range(NOWHERE, size, NEXT):
                store(rows, spare + n, load(rows, weights + n) * _chunk_polynomial(load(rows, n), first))
        a0 = a1 = a2 = a3 = a4 = b0 = b1 = b2 = b3 = b4 = zero
        c0 = c1 = c2 = c3 = c4 = d0 = d1 = d2 = d3 = d4 = zero
        for n in range(NOWHERE, size, NEXT):
            t1, w0 = load(rows, n), load(rows, given + n)
            twice = t1 + t1
            t2 = twice * t1 - one
            t4 = (t2 + t2) * t2 - one
            t8 = (t4 + t4) * t4 - one
            w1 = w0 * t8
            w2 = (t8 + t8) * w1 - w0
            w3 = (t8 + t8) * w2 - w1
            w4 = (t8 + t8) * w3 - w2
            if of_odd:
                t3 = twice * t2 - t1
                a0, a1, a2, a3, a4 = a0 + w0 * t1, a1 + w1 * t1, a2 + w2 * t1, a3 + w3 * t1, a4 + w4 * t1
                b0, b1, b2, b3, b4 = b0 + w0 * t3, b1 + w1 * t3, b2 + w2 * t3, b3 + w3 * t3, b4 + w4 * t3
                t = twice * t4 - t3
                c0, c1, c2, c3, c4 = c0 + w0 * t, c1 + w1 * t, c2 + w2 * t, c3 + w3 * t, c4 + w4 * t
                t = (t4 + t4) * t3 - t1
                d0, d1, d2, d3, d4 = d0 + w0 * t, d1 + w1 * t, d2 + w2 * t, d3 + w3 * t, d4 + w4 * t
            else:
                a0, a1, a2, a3, a4 = a0 + w0, a1 + w1, a2 + w2, a3 + w3, a4 + w4
                b0, b1, b2, b3, b4 = b0 + w0 * t2, b1 + w1 * t2, b2 + w2 * t2, b3 + w3 * t2, b4 + w4 * t2
                c0, c1, c2, c3, c4 = c0 + w0 * t4, c1 + w1 * t4, c2 + w2 * t4, c3 + w3 * t4, c4 + w4 * t4
                t = (t2 + t2) * t4 - t2
                d0, d1, d2, d3, d4 = d0 + w0 * t, d1 + w1 * t, d2 + w2 * t, d3 + w3 * t, d4 + w4 * t
        at = place + np.uint64(first + CHUNK // 2 if of_odd else first)
        _put(out, at, a0, b0, c0, d0, is_new)
        _put(out, at + np.uint64(4), a1, b1, c1, d1, is_new)
        _put(out, at + np.uint64(8), a2, b2, c2, d2, is_new)
        _put(out, at + np.uint64(12), a3, b3, c3, d3, is_new)
        _put(out, at + np.uint64(16), a4, b4, c4, d4, is_new)


@kernel(MATHS, inlined=True)
def _put(out, place, a, b, c, d, is_new):
    if is_new:
        store_totals(out, place, a, b, c, d)
    else:
        add_totals(out, place, a, b, c, d)


@kernel(MATHS, inlined=True)
def _chunk_polynomial(cosines, number):
    """T_number of the cosines, a multiple of `CHUNK`."""
    before, polynomial = _t40(cosines), splat(ONE)  # T_-40 and T_0
    twice = before + before
    for _ in range(0, number, CHUNK):
        before, polynomial = polynomial, twice * polynomial - before
    return polynomial


@kernel(MATHS, inlined=True)
def _t40(cosines):
    """T_40 = T_5(T_8)."""
    polynomial = cosines
    for _ in range(3):
        polynomial = (polynomial + polynomial) * polynomial - splat(ONE)
    square = polynomial * polynomial
    factors = splat(np.float32(16.0)), splat(np.float32(-20.0)), splat(np.float32(5.0))
    return ((factors[0] * square + factors[1]) * square + factors[2]) * polynomial


@kernel(MATHS, inlined=True)
def _cosine_series(cosines, factors, place, degree):
    """Σ factor · T_40c · T_8k · T_j, with the factors from a place on; by Clenshaw's recurrence in T₈."""
    one = splat(ONE)
    t1 = cosines
    twice = t1 + t1
    t2 = twice * t1 - one
    t3 = twice * t2 - t1
    t4 = (t2 + t2) * t2 - one
    t5 = twice * t4 - t3
    t6 = (t2 + t2) * t4 - t2
    t7 = (t4 + t4) * t3 - t1
    t8 = (t4 + t4) * t4 - one
    series = splat(ZERO)
    for first in range(0, degree, CHUNK):
        b1 = b2 = splat(ZERO)
        for k in range(CHUNK // STEP - 1, -1, -1):
            even = place + np.uint64(first) + np.uint64(4) * np.uint64(k)
            odd = even + np.uint64(CHUNK // 2)
            low = splat(factors[even]) + splat(factors[even + np.uint64(1)]) * t2
            low = low + splat(factors[even + np.uint64(2)]) * t4 + splat(factors[even + np.uint64(3)]) * t6
            high = splat(factors[odd]) * t1 + splat(factors[odd + np.uint64(1)]) * t3
            high = high + splat(factors[odd + np.uint64(2)]) * t5 + splat(factors[odd + np.uint64(3)]) * t7
            b1, b2 = (t8 + t8) * b1 - b2 + (low + high), b1
        part = b1 - t8 * b2
        series = part if first == 0 else series + part * _chunk_polynomial(cosines, first)
    return series
