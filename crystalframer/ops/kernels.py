"""CPU kernels of framed attention in Numba: float32, edges of an atom in a row, no memory per edge but the weights.

Each kernel works on a range of atoms (or of heads, where it scatters to key atoms, so that no two threads write to one
place) and releases the interpreter, so that plain threads share the work. Arrays over edges are (n_heads, n_edges):
what belongs to one head lies together, and loops over the edges of an atom become vector instructions.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numba import njit

LOG2_E = np.float32(math.log2(math.e))
# Taylor series of 2^f on [-0.5, 0.5]: relative error 5e-9, below rounding.
EXP2 = tuple(np.float32(math.log(2) ** n / math.factorial(n)) for n in range(8))

# Sums may be reordered and multiplications joined; NaN and infinity keep their meaning.
_MATHS = {"contract", "reassoc", "nsz", "arcp"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled on first use, kept on disk, free of the interpreter's lock."""
    plain = inspect.unwrap(function)  # of the wrapper that checks types in tests: a compiler wants the bare function
    compiled = njit(nogil=True, fastmath=_MATHS, error_model="numpy")(plain)
    with suppress(RuntimeError):  # no folder to keep it in: compiled anew in every process
        compiled.enable_caching()
    return compiled


@kernel
def _exp(values, bits):
    """In place e^x for x <= 0; `bits` is scratch of int32."""
    for n in range(values.shape[0]):
        scaled = values[n] * LOG2_E
        scaled = np.float32(-126.0) if scaled < np.float32(-126.0) else scaled  # and not max(): NaN stays NaN
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


@kernel
def attend(first_atom, last_atom, first_edge, key, squared, q, k, precision, logits, attention):
    """Logits q·k/√d - r²·precision and their softmax over the edges of each atom."""
    n_heads, d_head = q.shape[1], q.shape[2]
    scale = np.float32(1.0 / math.sqrt(d_head))
    longest = 0
    for i in range(first_atom, last_atom):
        longest = max(longest, first_edge[i + 1] - first_edge[i])
    bits = np.empty(longest, np.int32)
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        for h in range(n_heads):
            largest = np.float32(-np.inf)
            for e in range(start, stop):
                product = np.float32(0.0)
                for c in range(d_head):
                    product += q[i, h, c] * k[key[e], h, c]
                logit = product * scale - squared[e] * precision[i, h]
                logits[h, e] = logit
                largest = max(largest, logit)
            weights = attention[h, start:stop]
            for n in range(stop - start):
                weights[n] = logits[h, start + n] - largest
            _exp(weights, bits[: stop - start])
            total = np.float32(0.0)
            for n in range(stop - start):
                total += weights[n]
            for n in range(stop - start):
                weights[n] /= total


@kernel
def attend_backward_query(first_atom, last_atom, first_edge, key, squared, k, attention, grad, grad_q, grad_precision):
    """From the gradient of the weights to that of the logits (in place), the queries and the precisions."""
    n_heads, d_head = k.shape[1], k.shape[2]
    scale = np.float32(1.0 / math.sqrt(d_head))
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        for h in range(n_heads):
            mean = np.float32(0.0)
            for e in range(start, stop):
                mean += attention[h, e] * grad[h, e]
            of_precision = np.float32(0.0)
            for e in range(start, stop):
                grad[h, e] = attention[h, e] * (grad[h, e] - mean)
                of_precision -= grad[h, e] * squared[e]
            grad_precision[i, h] = of_precision
            for c in range(d_head):
                grad_q[i, h, c] = np.float32(0.0)
            for e in range(start, stop):
                for c in range(d_head):
                    grad_q[i, h, c] += scale * grad[h, e] * k[key[e], h, c]


@kernel
def scatter_to_keys(first_head, last_head, first_edge, key, weights, values, factor, out):
    """out_j = factor · Σ over the edges that end at atom j of weight × value of the query atom."""
    n_atoms, d_head = values.shape[0], values.shape[2]
    for h in range(first_head, last_head):
        for i in range(n_atoms):
            for e in range(first_edge[i], first_edge[i + 1]):
                weight = factor * weights[h, e]
                for c in range(d_head):
                    out[key[e], h, c] += weight * values[i, h, c]


@kernel
def accumulate(
    first_atom, last_atom, first_edge, key, is_self, directions, basis, attention, v, axes, values, distances, cosines
):
    """Attended values, distance Gaussians, and Chebyshev polynomials of the axis cosines of each atom and head.

    No axes (an empty array): no cosines. Degrees come in fours.
    """
    n_heads, d_head = v.shape[1], v.shape[2]
    n_centers, degree = basis.shape[1], cosines.shape[3]
    longest = 0
    for i in range(first_atom, last_atom):
        longest = max(longest, first_edge[i + 1] - first_edge[i])
    c, p = np.empty(longest, np.float32), np.empty(longest, np.float32)
    low, high = np.empty(longest, np.float32), np.empty(longest, np.float32)
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        for h in range(n_heads):
            for n in range(d_head):
                values[i, h, n] = np.float32(0.0)
            for n in range(n_centers):
                distances[i, h, n] = np.float32(0.0)
            for e in range(start, stop):
                weight = attention[h, e]
                for n in range(d_head):
                    values[i, h, n] += weight * v[key[e], h, n]
                for n in range(n_centers):
                    distances[i, h, n] += weight * basis[e, n]
            if degree == 0:
                continue
            count = stop - start
            for n in range(count):
                p[n] = np.float32(0.0) if is_self[start + n] else attention[h, start + n]
            for axis in range(3):
                _cosines(c, directions, start, count, axes[i, h, axis])
                for n in range(count):
                    low[n], high[n] = np.float32(1.0), c[n]
                # Four degrees at a time, T_n and T_{n+1} of every edge at hand.
                for m in range(0, degree, 4):
                    s0, s1, s2, s3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
                    for n in range(count):
                        twice = c[n] + c[n]
                        t0, t1 = low[n], high[n]
                        t2 = twice * t1 - t0
                        t3 = twice * t2 - t1
                        s0 += p[n] * t0
                        s1 += p[n] * t1
                        s2 += p[n] * t2
                        s3 += p[n] * t3
                        low[n] = twice * t3 - t2
                        high[n] = twice * low[n] - t3
                    cosines[i, h, axis, m] = s0
                    cosines[i, h, axis, m + 1] = s1
                    cosines[i, h, axis, m + 2] = s2
                    cosines[i, h, axis, m + 3] = s3


@kernel
def accumulate_backward(
    first_atom, last_atom, first_edge, key, is_self, directions, basis, v, axes, g_values, g_distances, g_cosines, grad
):
    """Gradient of every weight: what its edge adds to values, distances and cosines, against their gradients."""
    n_heads, d_head = v.shape[1], v.shape[2]
    n_centers, degree = basis.shape[1], g_cosines.shape[3]
    longest = 0
    for i in range(first_atom, last_atom):
        longest = max(longest, first_edge[i + 1] - first_edge[i])
    c, b1, b2 = np.empty(longest, np.float32), np.empty(longest, np.float32), np.empty(longest, np.float32)
    for i in range(first_atom, last_atom):
        start, stop = first_edge[i], first_edge[i + 1]
        count = stop - start
        for h in range(n_heads):
            for e in range(start, stop):
                total = np.float32(0.0)
                for n in range(d_head):
                    total += g_values[i, h, n] * v[key[e], h, n]
                for n in range(n_centers):
                    total += g_distances[i, h, n] * basis[e, n]
                grad[h, e] = total
            if degree == 0:
                continue
            for axis in range(3):
                _cosines(c, directions, start, count, axes[i, h, axis])
                for n in range(count):
                    b1[n], b2[n] = np.float32(0.0), np.float32(0.0)
                # Clenshaw's recurrence, four degrees at a time from the highest.
                g = g_cosines[i, h, axis]
                for m in range(degree - 1, 3, -4):
                    g0, g1, g2, g3 = g[m], g[m - 1], g[m - 2], g[m - 3]
                    for n in range(count):
                        twice = c[n] + c[n]
                        x0 = g0 + twice * b1[n] - b2[n]
                        x1 = g1 + twice * x0 - b1[n]
                        b2[n] = g2 + twice * x1 - x0
                        b1[n] = g3 + twice * b2[n] - x1
                g0, g1, g2, g3 = g[3], g[2], g[1], g[0]
                for n in range(count):
                    twice = c[n] + c[n]
                    x0 = g0 + twice * b1[n] - b2[n]
                    x1 = g1 + twice * x0 - b1[n]
                    x2 = g2 + twice * x1 - x0
                    if not is_self[start + n]:
                        grad[h, start + n] += g3 + c[n] * x2 - x1


@kernel
def _cosines(c, directions, start, count, axis):
    x, y, z = axis[0], axis[1], axis[2]
    for n in range(count):
        cosine = directions[0, start + n] * x + directions[1, start + n] * y + directions[2, start + n] * z
        c[n] = min(max(cosine, np.float32(-1.0)), np.float32(1.0))
