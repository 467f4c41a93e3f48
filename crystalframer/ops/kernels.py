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
ROW, N_ROWS = 128, 10
"""Scratch memory of the cosines: edges at a time, and numbers of each. As constants they tell the compiler that rows do
not overlap."""

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
    bits = np.empty(most_items(first_atom, last_atom, first_edge), np.int32)
    scale = np.float32(math.sqrt(0.5) / width)
    for i in range(first_atom, last_atom):
        for block in range(first_block[i], first_block[i + 1]):
            size = (first_value[block + 1] - first_value[block]) // 8
            start = first_edge[i] + block_edge[block]
            r = lengths[start : start + size]
            for m in range(8):
                row = values[first_value[block] + m * size : first_value[block] + (m + 1) * size]
                center = np.float32((8 * (block - first_block[i]) + m + 1) * spacing)
                for n in range(size):
                    deviation = (r[n] - center) * scale
                    row[n] = -deviation * deviation
                _exp(row, bits[:size])
                for n in range(size):
                    row[n] = np.float32(0.0) if row[n] < NOTHING else row[n]


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
    bits = np.empty(most_items(first_atom, last_atom, first_edge), np.int32)
    content = np.empty(most_items(first_atom, last_atom, first_pair), np.float32)
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        pairs = pair[start:stop]
        distances = squared[start:stop]
        for h in range(n_heads):
            of_distance = precision[i, h]
            largest = np.float32(-np.inf)
            for a in range(first_pair[i], first_pair[i + 1]):
                product = scale * _dot(q, i, k, keys[a], h)
                content[a - first_pair[i]] = product
                largest = max(largest, product - nearest[a] * of_distance)
            of_edges, weights = logits[h, start:stop], attention[h, start:stop]
            seen = n_edges[i]
            while seen > 1 and distances[seen - 1] * of_distance * steepness >= 1.0:
                seen -= 1
            count = (seen + PAD - 1) // PAD * PAD
            for n in range(count):
                logit = content[np.uint32(pairs[n])] - distances[n] * of_distance
                of_edges[n] = logit
                weights[n] = logit - largest
            for n in range(count, stop - start):
                of_edges[n], weights[n] = np.float32(-np.inf), np.float32(0.0)
            _exp(weights[:count], bits[:count])
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
                weights[n] *= share
            while steepness > 0 and seen > 1 and weights[seen - 1] < NEGLIGIBLE:
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
    grad = np.empty(most_items(first_atom, last_atom, first_edge), np.float32)
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        for h in range(n_heads):
            count = n_seen[h, i]
            pairs, distances = pair[start : start + count], squared[start : start + count]
            weights, given = attention[h, start:stop], grad_attention[h, start:stop]
            mean = np.float32(0.0)
            for n in range(count):
                mean += weights[n] * given[n]
            of_precision = np.float32(0.0)
            for n in range(count):
                grad[n] = weights[n] * (given[n] - mean)
                of_precision -= grad[n] * distances[n]
            if steepness > 0:  # the derivative of the envelope's logarithm
                towards_end = steepness * SLOPE
                for n in range(count):
                    x = (distances[n] * precision[i, h] * steepness - WHOLE) * SLOPE
                    x = min(max(x, np.float32(0.0)), np.float32(1.0))
                    rest = max(np.float32(1.0) - x, SMALLEST_REST)
                    size = rest * (np.float32(1.0) + x * (np.float32(3.0) + np.float32(6.0) * x))
                    of_precision -= grad[n] * distances[n] * towards_end * np.float32(30.0) * x * x / size
            grad_precision[i, h] = of_precision
            _sum_over_pairs(pairs, grad[:count], of_pairs[h, first_pair[i] : first_pair[i + 1]])


@kernel(MATHS)
def sum_over_pairs(first_atom, last_atom, first, pairs, others, weights, values, out):
    """out_i = Σ over the pairs of atom i of weight × value of the other atom."""
    n_heads, d_head = values.shape[1], values.shape[2]
    whole = d_head - d_head % PAD
    for i in range(first_atom, last_atom):
        for h in range(n_heads):
            total = out[i, h]
            for c in range(d_head):
                total[c] = np.float32(0.0)
            for a in range(first[i], first[i + 1]):
                weight, value = weights[h, pairs[a]], values[others[a], h]
                for c in range(0, whole, PAD):
                    for n in range(PAD):
                        total[c + n] += weight * value[c + n]
                for c in range(whole, d_head):
                    total[c] += weight * value[c]


@kernel(MATHS)
def accumulate(first_atom, last_atom, first_edge, edges, blocks, attention, n_seen, axes, n_centers, of_pairs, moments):
    """Weights of the pairs, and moments: attended distance Gaussians, then Chebyshev products of each axis' cosines.

    No axes (an empty array): no cosines. Degrees come in eights.
    """
    pair, first_pair, _, is_self, directions = edges
    first_block, block_edge, first_value, basis = blocks
    n_heads, degree = attention.shape[0], (moments.shape[2] - n_centers) // 3
    most = most_items(first_atom, last_atom, first_edge)
    t, p = np.empty(N_ROWS * ROW, np.float32), np.empty((n_heads, most), np.float32)
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        padding = is_self[start:stop]
        farthest = 0
        for h in range(n_heads):
            count = n_seen[h, i]
            farthest = max(farthest, count)
            weights, out = attention[h, start : start + count], moments[h, i]
            _sum_over_pairs(pair[start : start + count], weights, of_pairs[h, first_pair[i] : first_pair[i + 1]])
            for m in range(len(out)):
                out[m] = np.float32(0.0)
            for block in range(first_block[i], first_block[i + 1]):
                row, edge = np.uint64(first_value[block]), np.uint64(block_edge[block])
                size = np.uint64((first_value[block + 1] - first_value[block]) // 8)
                m = 8 * (block - first_block[i])
                seen = min(size, np.uint64(max(0, count - block_edge[block])))
                _add_distance_moments(basis, row, weights, edge, size, seen, out[:n_centers], m)
            for n in range(count if degree > 0 else 0):
                p[h, n] = np.float32(0.0) if padding[n] else weights[n]
        for first in range(0, farthest if degree > 0 else 0, ROW):
            for h in range(n_heads):
                size, begin = min(ROW, n_seen[h, i] - first), start + first
                if size <= 0:
                    continue
                dx, dy = directions[0, begin : begin + size], directions[1, begin : begin + size]
                dz = directions[2, begin : begin + size]
                weights, out = p[h, first : first + size], moments[h, i]
                for axis in range(3):
                    x, y, z = axes[i, h, axis, 0], axes[i, h, axis, 1], axes[i, h, axis, 2]
                    eight_polynomials(t, dx, dy, dz, x, y, z)
                    add_cosine_moments(t, weights, out, n_centers + axis * degree, degree)


@kernel(MATHS)
def accumulate_backward(
    first_atom, last_atom, first_edge, edges, blocks, v, n_seen, axes, n_centers, g_values, g_moments, grad
):
    """Gradient of every weight that is seen: what its edge adds to values and moments, against their gradients."""
    pair, first_pair, keys, is_self, directions = edges
    first_block, block_edge, first_value, basis = blocks
    n_heads, degree = v.shape[1], (g_moments.shape[2] - n_centers) // 3
    most = most_items(first_atom, last_atom, first_edge)
    t, total = np.empty(N_ROWS * ROW, np.float32), np.empty((n_heads, most), np.float32)
    of_pairs = np.empty(most_items(first_atom, last_atom, first_pair), np.float32)
    factors = np.zeros(n_centers + 8, np.float32)
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        pairs, padding = pair[start:stop], is_self[start:stop]
        total[:, : stop - start] = np.float32(0.0)
        farthest = 0
        for h in range(n_heads):
            farthest = max(farthest, n_seen[h, i])
        for first in range(0, farthest if degree > 0 else 0, ROW):
            for h in range(n_heads):
                size, begin = min(ROW, n_seen[h, i] - first), start + first
                if size <= 0:
                    continue
                dx, dy = directions[0, begin : begin + size], directions[1, begin : begin + size]
                dz = directions[2, begin : begin + size]
                given, out = g_moments[h, i], total[h, first : first + size]
                for axis in range(3):
                    x, y, z = axes[i, h, axis, 0], axes[i, h, axis, 1], axes[i, h, axis, 2]
                    eight_polynomials(t, dx, dy, dz, x, y, z)
                    _add_cosine_series(t, given, n_centers + axis * degree, degree, out)
        for h in range(n_heads):
            count = n_seen[h, i]
            given, out = g_moments[h, i], total[h, :count]
            for n in range(count):
                out[n] = np.float32(0.0) if padding[n] else out[n]
            for m in range(n_centers):
                factors[m] = given[m]
            for block in range(first_block[i], first_block[i + 1]):
                row, edge = np.uint64(first_value[block]), np.uint64(block_edge[block])
                size = np.uint64((first_value[block + 1] - first_value[block]) // 8)
                seen = min(size, np.uint64(max(0, count - block_edge[block])))
                _add_distance_series(basis, row, factors, 8 * (block - first_block[i]), out, edge, size, seen)
            for a in range(first_pair[i], first_pair[i + 1]):
                of_pairs[a - first_pair[i]] = _dot(g_values, i, v, keys[a], h)
            of_weights = grad[h, start:stop]
            for n in range(count):
                of_weights[n] = out[n] + of_pairs[np.uint32(pairs[n])]


# --- parts ------------------------------------------------------------------------------------------------------------


@kernel(MATHS)
def most_items(first_atom, last_atom, first):
    """The most items that an atom of the range has."""
    most = 0
    for i in range(first_atom, last_atom):
        most = max(most, first[i + 1] - first[i])
    return most


@kernel(MATHS, inlined=True)
def _exp(values, bits):
    """In place e^x for x <= 0; `bits` is scratch of int32."""
    for n in range(values.shape[0]):
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
    scale = bits.view(np.float32)
    for n in range(values.shape[0]):
        values[n] *= scale[n]


@kernel(MATHS, inlined=True)
def _dot(x, i, y, j, h):
    """x[i, h] · y[j, h]. Eight at a time: a loop of known length becomes vector instructions, however short."""
    total = np.float32(0.0)
    size = x.shape[2]
    whole = size - size % 8
    for c in range(0, whole, 8):
        for n in range(8):
            total += x[i, h, c + n] * y[j, h, c + n]
    for c in range(whole, size):
        total += x[i, h, c] * y[j, h, c]
    return total


@kernel(MATHS, inlined=True)
def _sum_over_pairs(pair, values, out):
    """Sum of the values of each pair's edges."""
    for a in range(len(out)):
        out[a] = np.float32(0.0)
    for n in range(len(values)):
        out[np.uint32(pair[n])] += values[n]


@kernel(MATHS, inlined=True)
def _add_distance_moments(rows, row, weights, edge, size, seen, out, m):
    """out[m + k] += Σ weight × Gaussian, for the beginning of eight rows of `size`; `out` may end before them."""
    to_2 = size + size
    to_4 = to_2 + to_2
    s0, s1, s2, s3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
    s4, s5, s6, s7 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for n in range(seen):
        weight, place = weights[edge + n], row + n
        s0 += weight * rows[place]
        s1 += weight * rows[place + size]
        s2 += weight * rows[place + to_2]
        s3 += weight * rows[place + to_2 + size]
        s4 += weight * rows[place + to_4]
        s5 += weight * rows[place + to_4 + size]
        s6 += weight * rows[place + to_4 + to_2]
        s7 += weight * rows[place + to_4 + to_2 + size]
    sums = (s0, s1, s2, s3, s4, s5, s6, s7)
    for k in range(min(8, len(out) - m)):
        out[m + k] = sums[k]


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
def eight_polynomials(t, dx, dy, dz, x, y, z):
    """Chebyshev polynomials of the cosines to an axis: T_j in row j, 1 to 8."""
    for n in range(len(dx)):
        cosine = dx[n] * x + dy[n] * y + dz[n] * z
        t1 = min(max(cosine, np.float32(-1.0)), np.float32(1.0))
        twice = t1 + t1
        t2 = twice * t1 - np.float32(1.0)
        t3 = twice * t2 - t1
        t4 = twice * t3 - t2
        t5 = twice * t4 - t3
        t6 = twice * t5 - t4
        t7 = twice * t6 - t5
        t[n + ROW] = t1
        t[n + 2 * ROW] = t2
        t[n + 3 * ROW] = t3
        t[n + 4 * ROW] = t4
        t[n + 5 * ROW] = t5
        t[n + 6 * ROW] = t6
        t[n + 7 * ROW] = t7
        t[n + 8 * ROW] = twice * t7 - t6


@kernel(MATHS, inlined=True)
def add_cosine_moments(t, weights, out, first_moment, degree):
    """out[8k + j] += Σ weight · T_8k · T_j; T_8k follows from T₈ by the recurrence of all Chebyshev polynomials."""
    for n in range(len(weights)):
        t[n] = weights[n]
        t[n + 9 * ROW] = weights[n] * t[n + 8 * ROW]
    for m in range(first_moment, first_moment + degree, 8):
        s0, s1, s2, s3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
        s4, s5, s6, s7 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for n in range(len(weights)):
            weight, following = t[n], t[n + 9 * ROW]
            t8 = t[n + 8 * ROW]
            s0 += weight
            s1 += weight * t[n + ROW]
            s2 += weight * t[n + 2 * ROW]
            s3 += weight * t[n + 3 * ROW]
            s4 += weight * t[n + 4 * ROW]
            s5 += weight * t[n + 5 * ROW]
            s6 += weight * t[n + 6 * ROW]
            s7 += weight * t[n + 7 * ROW]
            t[n] = following
            t[n + 9 * ROW] = (t8 + t8) * following - weight
        out[m] += s0
        out[m + 1] += s1
        out[m + 2] += s2
        out[m + 3] += s3
        out[m + 4] += s4
        out[m + 5] += s5
        out[m + 6] += s6
        out[m + 7] += s7


@kernel(MATHS, inlined=True)
def _add_cosine_series(t, factors, first_moment, degree, out):
    """out += Σ factor[8k + j] · T_8k · T_j, by Clenshaw's recurrence in T₈."""
    for n in range(len(out)):
        t[n], t[n + 9 * ROW] = np.float32(0.0), np.float32(0.0)
    for m in range(first_moment + degree - 8, first_moment - 1, -8):
        factor = np.float32(1.0) if m == first_moment else np.float32(2.0)
        g0, g1, g2, g3 = factors[m], factors[m + 1], factors[m + 2], factors[m + 3]
        g4, g5, g6, g7 = factors[m + 4], factors[m + 5], factors[m + 6], factors[m + 7]
        for n in range(len(out)):
            low = g0 + g1 * t[n + ROW] + g2 * t[n + 2 * ROW] + g3 * t[n + 3 * ROW]
            high = g4 * t[n + 4 * ROW] + g5 * t[n + 5 * ROW] + g6 * t[n + 6 * ROW] + g7 * t[n + 7 * ROW]
            b1 = t[n]
            t[n] = low + high + factor * t[n + 8 * ROW] * b1 - t[n + 9 * ROW]
            t[n + 9 * ROW] = b1
    for n in range(len(out)):
        out[n] += t[n]
