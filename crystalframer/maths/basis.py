"""Gaussian bases of the distance and of the cosines to the frame axes (CrystalFramer)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from crystalframer.config import CosineBasis, DistanceBasis

GROUP_SIZE = 1 << 20
"""Basis values that are computed at a time: they fit into the cache, and bound the memory of any batch."""

SMALLEST_EXPONENT = -70.0
"""e^-70 is negligible in any sum, and below it the exponential of a CPU is 10 times slower."""


def distance_centers(basis: DistanceBasis, like: Tensor) -> tuple[Float[Tensor, " n_centers"], float]:
    """Centres m·r_max/M, m = 1..M, and the standard deviation, in Å."""
    spacing = basis.max_distance / basis.n_centers
    steps = torch.arange(1, basis.n_centers + 1, dtype=like.dtype, device=like.device)
    return steps * spacing, basis.width * spacing


def cosine_centers(basis: CosineBasis, like: Tensor) -> tuple[Float[Tensor, " n_centers"], float]:
    """Centres -1 + 2m/(M-1), m = 0..M-1, and the standard deviation."""
    spacing = 2.0 / (basis.n_centers - 1)
    steps = torch.arange(basis.n_centers, dtype=like.dtype, device=like.device)
    return steps * spacing - 1.0, basis.width * spacing


@lru_cache
def chebyshev_of_gaussians(basis: CosineBasis, tolerance: float = 2e-6) -> Float[np.ndarray, "n_centers degree"]:
    """Coefficients of the cosine Gaussians in Chebyshev polynomials: exp(-(c-ν_m)²/2w²) = Σ_n A_mn T_n(c) on [-1, 1].

    Smooth functions need few polynomials: the smallest multiple of four whose error is below `tolerance` everywhere.
    """
    n_nodes = 512
    angles = (np.arange(n_nodes) + 0.5) * np.pi / n_nodes
    centers, width = (np.asarray(part) for part in cosine_centers(basis, torch.zeros(1, dtype=torch.float64)))
    values = np.exp(-0.5 * ((np.cos(angles) - centers[:, None]) / width) ** 2)
    polynomials = np.cos(np.arange(n_nodes // 2)[:, None] * angles)
    coefficients = 2.0 / n_nodes * values @ polynomials.T
    coefficients[:, 0] /= 2.0
    degree = 4
    while np.abs(values - coefficients[:, :degree] @ polynomials[:degree]).max() > tolerance and degree < n_nodes // 2:
        degree += 4
    return coefficients[:, :degree]


def chebyshev_products(
    coefficients: Float[np.ndarray, "n_functions degree"], step: int
) -> Float[np.ndarray, "n_functions padded_degree"]:
    """Coefficients of T_mk · T_j from those of T_n, m = step, n = mk + j, j < m: 2 T_mk T_j = T_(mk+j) + T_(mk-j).

    Products need one multiplication each, and the recurrence two.
    """
    padded = np.pad(coefficients, ((0, 0), (0, -coefficients.shape[1] % step)))
    for start in range(padded.shape[1] - step, 0, -step):
        for j in range(1, step):
            padded[:, start - j] -= padded[:, start + j]
            padded[:, start + j] *= 2.0
    return padded


def gaussians(
    x: Float[Tensor, "*shape"], centers: Float[Tensor, " n_centers"], width: float
) -> Float[Tensor, "*shape n_centers"]:
    """exp(-(x - c)²/2w²) for every centre c. Constant for autograd: distances and frames have no gradient."""
    with torch.no_grad():
        scale = math.sqrt(0.5) / width
        exponents = (x[..., None] * scale - centers * scale).square_().neg_()
        return exponents.clamp_(min=SMALLEST_EXPONENT).exp_()


def expected_gaussians(
    weights: Float[Tensor, "n_edges n_heads"],
    x: Float[Tensor, "n_edges #n_heads n_axes"],
    centers: Float[Tensor, " n_centers"],
    width: float,
    query: Int[Tensor, " n_edges"],
    n_atoms: int,
) -> Float[Tensor, "n_atoms n_heads n_axes n_centers"]:
    """Σ over the edges of each query atom of weight × Gaussian basis of x; differentiable in the weights.

    The basis is summed for each atom before it is projected. This is exact, because the projection is linear, and saves
    a projection per edge. The basis is computed for a few atoms at a time and never kept: the backward pass does it
    again.

    Args:
        x: one value per edge and head, or one per edge for all heads.
        query: query atom of every edge, sorted.
    """
    return _ExpectedGaussians.apply(weights, x, centers, width, query, n_atoms)  # type: ignore[no-any-return]


class _ExpectedGaussians(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, x: Tensor, centers: Tensor, width: float, query: Tensor, n_atoms: int
    ) -> Tensor:
        ctx.save_for_backward(x, centers, query)
        ctx.width, ctx.n_atoms = width, n_atoms
        total = weights.new_empty(n_atoms, weights.shape[1], x.shape[2] * len(centers))
        for atoms, edges, is_edge in _atom_groups(query, n_atoms, x[0].numel() * len(centers)):
            basis = _basis_matrix(x[edges], centers, width)
            spread = _by_head(weights[edges] * is_edge[..., None], x.shape[1])
            total[atoms] = (spread @ basis).flatten(1, 2)
        return total.unflatten(-1, (x.shape[2], len(centers)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, centers, query = ctx.saved_tensors
        (grad,) = grads
        grad_weights = grad.new_empty(len(x), grad.shape[1])
        for atoms, edges, is_edge in _atom_groups(query, ctx.n_atoms, x[0].numel() * len(centers)):
            basis = _basis_matrix(x[edges], centers, ctx.width)
            grouped = grad[atoms].flatten(2).unflatten(1, (x.shape[1], -1))
            grad_weights[edges[is_edge]] = (grouped @ basis.mT).flatten(1, 2).mT[is_edge]
        return grad_weights, None, None, None, None, None


def _basis_matrix(x: Tensor, centers: Tensor, width: float) -> Tensor:
    """(n, n_neighbors, n_heads or 1, n_axes) → (n, n_heads or 1, n_neighbors, n_axes · n_centers)."""
    return gaussians(x.transpose(1, 2).contiguous(), centers, width).flatten(-2)


def _by_head(weights: Tensor, n_groups: int) -> Tensor:
    """(n, n_neighbors, n_heads) → (n, n_groups, n_heads / n_groups, n_neighbors): heads with one basis are a group."""
    return weights.mT.unflatten(1, (n_groups, -1))


def _atom_groups(query: Tensor, n_atoms: int, values_per_edge: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Groups of a few atoms: (atoms, their edges padded to (n, n_neighbors), which of these edges are real)."""
    counts = torch.bincount(query, minlength=n_atoms)
    first = counts.cumsum(0) - counts
    most, start = counts.tolist(), 0
    while start < n_atoms:
        stop, width = start + 1, most[start]
        while stop < n_atoms and (stop + 1 - start) * max(width, most[stop]) * values_per_edge <= GROUP_SIZE:
            width = max(width, most[stop])
            stop += 1
        step = torch.arange(width, device=query.device)
        is_edge = step < counts[start:stop, None]
        yield slice(start, stop), torch.where(is_edge, first[start:stop, None] + step, 0), is_edge
        start = stop
