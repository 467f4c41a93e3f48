"""Sums of Gaussians in float64 on the CPU, with two exponentials for all equally spaced centres.

From one centre to the next, a Gaussian changes by the factor u = exp(((x - c)s - s²/2)/w²), and u by exp(-s²/w²). Both
are followed in blocks of centres, from the block nearest to x outwards, where values fall: rounding stays at 10⁻¹⁴ or
so of the largest.
"""

from __future__ import annotations

import math

import numpy as np

from crystalframer.compiled import kernel

BLOCK = 8
"""Centres that are added at once: a vector of the processor."""
NEGLIGIBLE = 1e-200
"""Smaller values are left out: beside all others they are 0, and factors could become infinite."""
NARROWEST = 0.5
"""The smallest width in spacings for which factors stay finite."""


@kernel(["contract"])
def add_gaussians(weights, x, query, first, spacing, width, total):
    """total[query, h, a, m] += weight × exp(-(x - c_m)²/2w²) for every edge, with c_m = first + m·spacing.

    Args:
        weights: (n_edges, n_heads, n_axes).
        x: (n_edges, n_heads, n_axes).
        query: (n_edges,), in any order.
        total: (n_atoms, n_heads, n_axes, n_blocks, BLOCK).
    """
    n_blocks = total.shape[3]
    inverse = 1.0 / (width * width)
    stride = BLOCK * spacing
    turn = np.empty((2, BLOCK))  # by which the powers change to the next block, and to the one before
    base, own, powers = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for j in range(BLOCK):
        base[j] = math.exp(-0.5 * (j * spacing) ** 2 * inverse)
        turn[0, j] = math.exp(-stride * j * spacing * inverse)
        turn[1, j] = math.exp(stride * j * spacing * inverse)
    bends_by = math.exp(-stride * stride * inverse)
    bend = math.sqrt(bends_by)
    for edge in range(len(query)):
        for head in range(weights.shape[1]):
            for axis in range(weights.shape[2]):
                weight = weights[edge, head, axis]
                if weight == 0.0:
                    continue
                value = x[edge, head, axis]
                sums = total[query[edge], head, axis]
                nearest = min(max(round((value - first) / stride), 0), n_blocks - 1)
                away = value - (first + nearest * stride)
                at_nearest = weight * math.exp(-0.5 * away * away * inverse)
                ratio = math.exp(away * spacing * inverse)
                power = 1.0
                for j in range(BLOCK):
                    own[j] = power * base[j]
                    power *= ratio
                for side in range(2):
                    change = power * bend if side == 0 else bend / power
                    for j in range(BLOCK):
                        powers[j] = own[j]
                    size, block = at_nearest, nearest
                    while 0 <= block < n_blocks and abs(size) > NEGLIGIBLE:
                        if side == 0 or block != nearest:
                            for j in range(BLOCK):
                                sums[block, j] += size * powers[j]
                        for j in range(BLOCK):
                            powers[j] *= turn[side, j]
                        size *= change
                        change *= bends_by
                        block += 1 - 2 * side
