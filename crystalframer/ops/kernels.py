"""CPU kernels of framed attention in Numba: float32, one atom after another, only the weights of edges are kept.

Edges of an atom are contiguous and padded to a multiple of `PAD` with edges of weight 0, so that loops over them are
vector instructions without a remainder. Arrays over edges are (n_heads, n_edges). Distinct (query, key) atoms of a cell
are *pairs*. Results that depend on the atoms, but not on the image, are computed once per pair: a small cell has ten
times fewer pairs than edges. Loops sum into scalars rather than arrays, because a compiler must assume that arrays
overlap.

Each kernel works on a range of atoms and releases the interpreter, so that plain threads share the work.
"""

from __future__ import annotations

import math

import numpy as np

from crystalframer.compiled import kernel
from crystalframer.maths import decay

PAD = 16
"""The number of edges of an atom is a multiple of this."""
REACH = 5.5
"""Standard deviations beyond which a Gaussian counts as 0."""
NOTHING = np.float32(math.exp(-(REACH**2) / 2))  # 3e-7

STEP = 8
"""Moments of the cosines are those of T_8k · T_j, j < 8 (see `maths.basis.chebyshev_products`)."""
ROW, N_ROWS = 256, 11
"""Scratch memory of the cosines: edges at a time, and numbers of each. As constants they tell the compiler that rows do
not overlap."""
COSINE = 10
"""The row of the cosines; the others are those of `eight_polynomials` and `add_cosine_moments`."""
CACHE_LINE = 64
"""Bytes. Vector instructions are slower on memory that starts elsewhere."""

LOG2_E = np.float32(math.log2(math.e))
# Taylor series of 2^f on [-0.5, 0.5]: relative error 5e-9, below rounding.
EXP2 = tuple(np.float32(math.log(2) ** n / math.factorial(n)) for n in range(8))
SMALLEST_EXPONENT = np.float32(-100.0)
"""Smallest exponent of 2: products of weights stay above denormal numbers, which are a hundred times slower."""
FAR = np.float32(1e30)
"""Squared length of edges that pad, Å²."""
NEGLIGIBLE = np.float32(decay.NEGLIGIBLE)
WHOLE, SLOPE = np.float32(decay.WHOLE), np.float32(1.0 / (1.0 - decay.WHOLE))
"""Of the envelope; see `maths.decay`."""
SMALLEST_REST = np.float32(decay.SMALLEST_REST)

# The compiler may reorder sums and fuse multiplications; NaN and infinity keep their meaning.
MATHS = ("contract", "reassoc", "nsz", "arcp")


# --- the layout of a batch --------------------------------------------------------------------------------------------


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

    Returns where the blocks of each atom start, the first edge of each (counted within the atom), and where its rows
    start: eight of equal size, multiples of `PAD`. Blocks beyond the farthest edge are left out.
    """
    n_atoms, n_blocks = len(first_edge) - 1, (n_centers + 7) // 8
    first_block = np.zeros(n_atoms + 1, np.int64)
    block_edge = np.empty(n_atoms * n_blocks, np.int64)
    first_value = np.zeros(n_atoms * n_blocks + 1, np.int64)
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
            size = (end + PAD - 1) // PAD * PAD - block_edge[block]
            first_value[block + 1] = first_value[block] + 8 * size
            block += 1
        first_block[i + 1] = block
    return first_block, block_edge[:block].copy(), first_value[: block + 1].copy()


@kernel(MATHS)
def distance_basis(
    first_atom, last_atom, first_edge, first_block, block_edge, first_value, lengths, spacing, width, values
):
    """Gaussians of the blocks' centres over the blocks' edges."""
    most = most_items(first_atom, last_atom, first_edge)
    row, powers = aligned(most), aligned(most)
    bits = powers.view(np.int32)
    by_width = np.float32(math.sqrt(0.5) / width)
    for i in range(first_atom, last_atom):
        for block in range(first_block[i], first_block[i + 1]):
            size = (first_value[block + 1] - first_value[block]) // 8
            start = np.uint64(first_edge[i] + block_edge[block])
            for m in range(8):
                center = np.float32((8 * (block - first_block[i]) + m + 1) * spacing)
                for n in range(size):
                    deviation = (lengths[start + np.uint64(n)] - center) * by_width
                    row[n] = -deviation * deviation
                _exp(row, size, powers, bits)
                out = np.uint64(first_value[block] + m * size)
                for n in range(size):
                    values[out + np.uint64(n)] = np.float32(0.0) if row[n] < NOTHING else row[n]


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
    most = most_items(first_atom, last_atom, first_edge)
    distances, weights, powers = aligned(most), aligned(most), aligned(most)
    bits = powers.view(np.int32)
    content = np.empty(most_items(first_atom, last_atom, first_pair), np.float32)
    for i in range(first_atom, last_atom):
        start, stop = np.uint64(first_edge[i]), np.uint64(first_edge[i + 1])
        for n in range(stop - start):
            distances[n] = squared[start + np.uint64(n)]
        for h in range(n_heads):
            of_distance = precision[i, h]
            largest = np.float32(-np.inf)
            for a in range(first_pair[i], first_pair[i + 1]):
                product = scale * _dot(q, i, k, keys[a], h)
                content[a - first_pair[i]] = product
                largest = max(largest, product - nearest[a] * of_distance)
            seen = n_edges[i]
            while seen > 1 and distances[seen - 1] * of_distance * steepness >= 1.0:
                seen -= 1
            count = (seen + PAD - 1) // PAD * PAD
            for n in range(count):
                edge = start + np.uint64(n)
                logit = content[np.uint64(pair[edge])] - distances[n] * of_distance
                logits[h, edge] = logit
                weights[n] = logit - largest
            _exp(weights, count, powers, bits)
            if steepness > 0:
                for n in range(count):
                    x = (distances[n] * of_distance * steepness - WHOLE) * SLOPE
                    x = min(max(x, np.float32(0.0)), np.float32(1.0))
                    rest = np.float32(1.0) - x
                    weights[n] *= rest * rest * rest * (np.float32(1.0) + x * (np.float32(3.0) + np.float32(6.0) * x))
            for n in range(seen, count):
                weights[n] = np.float32(0.0)
            total = np.float32(0.0)
            for n in range(count):
                total += weights[n]
            share = np.float32(1.0) / total
            for n in range(count):
                attention[h, start + np.uint64(n)] = weights[n] * share
            for edge in range(start + np.uint64(count), stop):
                logits[h, edge], attention[h, edge] = np.float32(-np.inf), np.float32(0.0)
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
    """From the gradient of the weights to that of the logits, summed over each pair, and of the precisions."""
    n_heads = attention.shape[0]
    most = most_items(first_atom, last_atom, first_edge)
    distances, grad = aligned(most), aligned(most).reshape((1, most))
    for i in range(first_atom, last_atom):
        start = np.uint64(first_edge[i])
        for n in range(first_edge[i + 1] - first_edge[i]):
            distances[n] = squared[start + np.uint64(n)]
        for h in range(n_heads):
            count = n_seen[h, i]
            mean = np.float32(0.0)
            for n in range(count):
                mean += attention[h, start + np.uint64(n)] * grad_attention[h, start + np.uint64(n)]
            of_precision = np.float32(0.0)
            for n in range(count):
                edge = start + np.uint64(n)
                grad[0, n] = attention[h, edge] * (grad_attention[h, edge] - mean)
                of_precision -= grad[0, n] * distances[n]
            if steepness > 0:  # the derivative of the envelope's logarithm
                towards_end = steepness * SLOPE
                for n in range(count):
                    x = (distances[n] * precision[i, h] * steepness - WHOLE) * SLOPE
                    x = min(max(x, np.float32(0.0)), np.float32(1.0))
                    rest = max(np.float32(1.0) - x, SMALLEST_REST)
                    size = rest * (np.float32(1.0) + x * (np.float32(3.0) + np.float32(6.0) * x))
                    of_precision -= grad[0, n] * distances[n] * towards_end * np.float32(30.0) * x * x / size
            grad_precision[i, h] = of_precision
            first, n_pairs = np.uint64(first_pair[i]), first_pair[i + 1] - first_pair[i]
            _sum_over_pairs(pair, start, grad, 0, np.uint64(0), count, of_pairs, h, first, n_pairs)


@kernel(MATHS)
def sum_over_pairs(first_atom, last_atom, first, pairs, others, weights, values, out):
    """out_i = Σ over the pairs of atom i of weight × value of the other atom."""
    n_heads, d_head = values.shape[1], values.shape[2]
    size = n_heads * d_head
    given, total, factors = values.reshape((len(values), size)), out.reshape((len(out), size)), aligned(size)
    for i in range(first_atom, last_atom):
        for c in range(size):
            total[i, c] = np.float32(0.0)
        for a in range(first[i], first[i + 1]):
            pair, j = pairs[a], others[a]
            for h in range(n_heads):
                weight, start = weights[h, pair], np.uint64(h * d_head)
                for c in range(d_head):
                    factors[start + np.uint64(c)] = weight
            for c in range(size):  # of all heads at once: longer than a vector instruction
                total[i, c] += factors[c] * given[j, c]


@kernel(MATHS)
def accumulate(first_atom, last_atom, first_edge, edges, blocks, attention, n_seen, axes, n_centers, of_pairs, moments):
    """Weights of the pairs, and moments: attended distance Gaussians, then Chebyshev products of each axis' cosines.

    No axes (an empty array): no cosines. Degrees come in eights.
    """
    pair, first_pair, _, is_self, directions = edges
    first_block, block_edge, first_value, basis = blocks
    n_heads, degree = attention.shape[0], (moments.shape[2] - n_centers) // 3
    most = most_items(first_atom, last_atom, first_edge)
    rows, eight = aligned(N_ROWS * ROW).reshape((N_ROWS, ROW)), np.empty(8, np.float32)
    others = aligned(most)
    for i in range(first_atom, last_atom):
        start, n_pairs = np.uint64(first_edge[i]), first_pair[i + 1] - first_pair[i]
        mark_others(is_self, start, first_edge[i + 1] - first_edge[i], others)
        for h in range(n_heads):
            count = n_seen[h, i]
            _sum_over_pairs(pair, start, attention, h, start, count, of_pairs, h, np.uint64(first_pair[i]), n_pairs)
            for m in range(moments.shape[2]):
                moments[h, i, m] = np.float32(0.0)
            for block in range(first_block[i], first_block[i + 1]):
                row, edge = np.uint64(first_value[block]), np.uint64(block_edge[block])
                size = np.uint64((first_value[block + 1] - first_value[block]) // 8)
                seen = min(size, np.uint64(max(0, count - block_edge[block])))
                m = 8 * (block - first_block[i])
                if seen > 0:
                    _distance_moments(basis, row, attention, h, start + edge, size, seen, eight)
                    for n in range(min(8, n_centers - m)):
                        moments[h, i, m + n] = eight[n]
            for first in range(0, count if degree > 0 else 0, ROW):
                size, begin = min(ROW, count - first), start + np.uint64(first)
                for axis in range(3):
                    x, y, z = axes[i, h, axis, 0], axes[i, h, axis, 1], axes[i, h, axis, 2]
                    place_cosines(rows, directions, begin, size, x, y, z)
                    for n in range(size):
                        rows[0, n] = attention[h, begin + np.uint64(n)] * others[np.uint64(first) + np.uint64(n)]
                    eight_polynomials(rows, size)
                    add_cosine_moments(rows, size, moments, h, i, n_centers + axis * degree, degree)


@kernel(MATHS)
def accumulate_backward(
    first_atom, last_atom, first_edge, edges, blocks, v, n_seen, axes, n_centers, g_values, g_moments, grad
):
    """Gradient of every weight that is seen: what its edge adds to values and moments, against their gradients."""
    pair, first_pair, keys, is_self, directions = edges
    first_block, block_edge, first_value, basis = blocks
    n_heads, degree = v.shape[1], (g_moments.shape[2] - n_centers) // 3
    most = most_items(first_atom, last_atom, first_edge)
    rows, factors = aligned(N_ROWS * ROW).reshape((N_ROWS, ROW)), np.zeros(n_centers + 8, np.float32)
    total, others = aligned(most), aligned(most)
    of_pairs = np.empty(most_items(first_atom, last_atom, first_pair), np.float32)
    for i in range(first_atom, last_atom):
        start = np.uint64(first_edge[i])
        mark_others(is_self, start, first_edge[i + 1] - first_edge[i], others)
        for h in range(n_heads):
            count = n_seen[h, i]
            for n in range(count):
                total[n] = np.float32(0.0)
            for first in range(0, count if degree > 0 else 0, ROW):
                size = min(ROW, count - first)
                for axis in range(3):
                    x, y, z = axes[i, h, axis, 0], axes[i, h, axis, 1], axes[i, h, axis, 2]
                    place_cosines(rows, directions, start + np.uint64(first), size, x, y, z)
                    eight_polynomials(rows, size)
                    _add_cosine_series(rows, size, g_moments, h, i, n_centers + axis * degree, degree, total, first)
            for n in range(count):
                total[n] *= others[n]
            for m in range(n_centers):
                factors[m] = g_moments[h, i, m]
            for block in range(first_block[i], first_block[i + 1]):
                row, edge = np.uint64(first_value[block]), np.uint64(block_edge[block])
                size = np.uint64((first_value[block + 1] - first_value[block]) // 8)
                seen = min(size, np.uint64(max(0, count - block_edge[block])))
                _add_distance_series(basis, row, factors, 8 * (block - first_block[i]), total, edge, size, seen)
            for a in range(first_pair[i], first_pair[i + 1]):
                of_pairs[a - first_pair[i]] = _dot(g_values, i, v, keys[a], h)
            for n in range(count):
                edge = start + np.uint64(n)
                grad[h, edge] = total[n] + of_pairs[np.uint64(pair[edge])]


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
def mark_others(is_self, start, count, others):
    """1 for the edges of an atom, from `start` on (unsigned), and 0 for that to itself and those that pad."""
    for n in range(count):
        others[n] = np.float32(0.0) if is_self[start + np.uint64(n)] else np.float32(1.0)


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
def _exp(values, count, powers, bits):
    """In place e^x for x <= 0. `powers` is scratch memory, and `bits` the same memory as int32."""
    for n in range(count):
        scaled = values[n] * LOG2_E
        scaled = SMALLEST_EXPONENT if scaled < SMALLEST_EXPONENT else scaled  # and not max(): NaN stays NaN
        whole = math.floor(scaled + np.float32(0.5))
        f = scaled - whole
        power = EXP2[6] + f * EXP2[7]
        power = EXP2[5] + f * power
        power = EXP2[4] + f * power
        power = EXP2[3] + f * power
        power = EXP2[2] + f * power
        power = EXP2[1] + f * power
        values[n] = EXP2[0] + f * power
        bits[n] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    for n in range(count):
        values[n] *= powers[n]


@kernel(MATHS, inlined=True)
def _dot(x, i, y, j, h):
    """x[i, h] · y[j, h]. Eight at a time: a loop of known length becomes vector instructions, however short."""
    total = np.float32(0.0)
    size = x.shape[2]
    whole = size - size % 8
    for first in range(0, whole, 8):
        for n in range(8):
            c = np.uint64(first) + np.uint64(n)
            total += x[i, h, c] * y[j, h, c]
    for c in range(whole, size):
        total += x[i, h, c] * y[j, h, c]
    return total


@kernel(MATHS, inlined=True)
def _sum_over_pairs(pair, start, values, row, first, count, out, h, first_pair, n_pairs):
    """Sum of the values of each pair's edges: in out[h, first_pair + a], of those values[row, first + n] whose
    pair[start + n] is a. All places are unsigned.
    """
    for a in range(n_pairs):
        out[h, first_pair + np.uint64(a)] = np.float32(0.0)
    for n in range(count):
        edge = np.uint64(n)
        out[h, first_pair + np.uint64(pair[start + edge])] += values[row, first + edge]


@kernel(MATHS, inlined=True)
def _distance_moments(rows, row, weights, h, edge, size, seen, eight):
    """The eight sums Σ weight × Gaussian, for the beginning of eight rows of `size`."""
    to_2 = size + size
    to_4 = to_2 + to_2
    s0, s1, s2, s3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
    s4, s5, s6, s7 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for n in range(seen):
        weight, place = weights[h, edge + n], row + n
        s0 += weight * rows[place]
        s1 += weight * rows[place + size]
        s2 += weight * rows[place + to_2]
        s3 += weight * rows[place + to_2 + size]
        s4 += weight * rows[place + to_4]
        s5 += weight * rows[place + to_4 + size]
        s6 += weight * rows[place + to_4 + to_2]
        s7 += weight * rows[place + to_4 + to_2 + size]
    eight[0], eight[1], eight[2], eight[3], eight[4], eight[5], eight[6], eight[7] = s0, s1, s2, s3, s4, s5, s6, s7


@kernel(MATHS, inlined=True)
def _add_distance_series(rows, row, factors, m, out, edge, size, seen):
    """out += Σ factor × Gaussian, for the beginning of eight rows of `size`."""
    to_2 = size + size
    to_4 = to_2 + to_2
    f0, f1, f2, f3 = factors[m], factors[m + 1], factors[m + 2], factors[m + 3]
    f4, f5, f6, f7 = factors[m + 4], factors[m + 5], factors[m + 6], factors[m + 7]
    for n in range(seen):
        place = row + n
        low = f0 * rows[place] + f1 * rows[place + size]
        low += f2 * rows[place + to_2] + f3 * rows[place + to_2 + size]
        place += to_4
        high = f4 * rows[place] + f5 * rows[place + size]
        high += f6 * rows[place + to_2] + f7 * rows[place + to_2 + size]
        out[edge + n] += low + high


@kernel(MATHS, inlined=True)
def place_cosines(rows, directions, place, size, x, y, z):
    """Cosines of edges, from this place on, to an axis."""
    for n in range(size):
        edge = place + np.uint64(n)
        rows[COSINE, n] = directions[0, edge] * x + directions[1, edge] * y + directions[2, edge] * z


@kernel(MATHS, inlined=True)
def eight_polynomials(rows, size):
    """Chebyshev polynomials of the cosines: T_j in row j, 1 to 8."""
    for n in range(size):
        t1 = min(max(rows[COSINE, n], np.float32(-1.0)), np.float32(1.0))
        twice = t1 + t1
        t2 = twice * t1 - np.float32(1.0)
        t3 = twice * t2 - t1
        t4 = twice * t3 - t2
        t5 = twice * t4 - t3
        t6 = twice * t5 - t4
        t7 = twice * t6 - t5
        rows[1, n], rows[2, n], rows[3, n], rows[4, n] = t1, t2, t3, t4
        rows[5, n], rows[6, n], rows[7, n], rows[8, n] = t5, t6, t7, twice * t7 - t6


@kernel(MATHS, inlined=True)
def add_cosine_moments(rows, size, out, h, i, first_moment, degree):
    """out[h, i, 8k + j] += Σ weight · T_8k · T_j; T_8k follows from T₈ by the recurrence of all Chebyshev polynomials.

    The weights are in row 0, and are lost.
    """
    for n in range(size):
        rows[9, n] = rows[0, n] * rows[8, n]
    for m in range(first_moment, first_moment + degree, 8):
        s0, s1, s2, s3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
        s4, s5, s6, s7 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for n in range(size):
            weight, following, t8 = rows[0, n], rows[9, n], rows[8, n]
            s0 += weight
            s1 += weight * rows[1, n]
            s2 += weight * rows[2, n]
            s3 += weight * rows[3, n]
            s4 += weight * rows[4, n]
            s5 += weight * rows[5, n]
            s6 += weight * rows[6, n]
            s7 += weight * rows[7, n]
            rows[0, n] = following
            rows[9, n] = (t8 + t8) * following - weight
        out[h, i, m] += s0
        out[h, i, m + 1] += s1
        out[h, i, m + 2] += s2
        out[h, i, m + 3] += s3
        out[h, i, m + 4] += s4
        out[h, i, m + 5] += s5
        out[h, i, m + 6] += s6
        out[h, i, m + 7] += s7


@kernel(MATHS, inlined=True)
def _add_cosine_series(rows, size, factors, h, i, first_moment, degree, out, first):
    """out[first + n] += Σ factor[h, i, 8k + j] · T_8k · T_j, by Clenshaw's recurrence in T₈."""
    for n in range(size):
        rows[0, n] = rows[9, n] = np.float32(0.0)
    for m in range(first_moment + degree - 8, first_moment - 1, -8):
        factor = np.float32(1.0) if m == first_moment else np.float32(2.0)
        g0, g1, g2, g3 = factors[h, i, m], factors[h, i, m + 1], factors[h, i, m + 2], factors[h, i, m + 3]
        g4, g5, g6, g7 = factors[h, i, m + 4], factors[h, i, m + 5], factors[h, i, m + 6], factors[h, i, m + 7]
        for n in range(size):
            low = g0 + g1 * rows[1, n] + g2 * rows[2, n] + g3 * rows[3, n]
            high = g4 * rows[4, n] + g5 * rows[5, n] + g6 * rows[6, n] + g7 * rows[7, n]
            b1 = rows[0, n]
            rows[0, n] = low + high + factor * rows[8, n] * b1 - rows[9, n]
            rows[9, n] = b1
    for n in range(size):
        out[np.uint64(first) + np.uint64(n)] += rows[0, n]
