"""Gaussian bases of the distance and of the cosines to the frame axes (CrystalFramer, eqs. 5 and 7)."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crystalframer.config import CosineBasis, DistanceBasis

CHUNK_SIZE = 1 << 20
"""Basis values formed at a time: bounds memory whatever the batch, and stays in cache."""


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


def gaussians(
    x: Float[Tensor, "*shape"], centers: Float[Tensor, " n_centers"], width: float
) -> Float[Tensor, "*shape n_centers"]:
    """exp(-(x - c)²/2w²) for every centre c. Constant for autograd: distances and frames carry no gradient."""
    with torch.no_grad():
        scale = math.sqrt(0.5) / width
        return (x[..., None] * scale - centers * scale).square_().neg_().exp_()


def expected_gaussians(
    weights: Float[Tensor, "n_edges n_heads"],
    x: Float[Tensor, "n_edges #n_heads n_axes"],
    centers: Float[Tensor, " n_centers"],
    width: float,
    query: Int[Tensor, " n_edges"],
    n_atoms: int,
) -> Float[Tensor, "n_atoms n_heads n_axes n_centers"]:
    """Σ over the edges of each query atom of weight × Gaussian basis of x; differentiable in the weights.

    Accumulating the basis before it is projected, once per atom, is exact because the projection is linear, and spares
    a projection per edge. The basis is formed in chunks and again in the backward pass, never kept.
    """
    return _ExpectedGaussians.apply(weights, x, centers, width, query, n_atoms)  # type: ignore[no-any-return]


class _ExpectedGaussians(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, centers: Tensor, width: float, query: Tensor, n_atoms: int) -> Tensor:
        ctx.save_for_backward(x, centers, query)
        ctx.width = width
        shape = (n_atoms, weights.shape[1], x.shape[2], len(centers))
        total = weights.new_zeros(shape)
        for chunk in _chunks(len(weights), math.prod(shape[1:])):
            basis = gaussians(x[chunk], centers, width)
            total.index_add_(0, query[chunk], weights[chunk, :, None, None] * basis)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, centers, query = ctx.saved_tensors
        grad_weights = grad.new_empty(len(x), grad.shape[1])
        for chunk in _chunks(len(x), grad[0].numel()):
            basis = gaussians(x[chunk], centers, ctx.width)
            grad_weights[chunk] = torch.einsum("ehkm,ehkm->eh", grad[query[chunk]], basis.expand(-1, grad.shape[1], -1, -1))
        return grad_weights, None, None, None, None, None


def _chunks(n_edges: int, values_per_edge: int) -> list[slice]:
    step = max(1, CHUNK_SIZE // values_per_edge)
    return [slice(start, start + step) for start in range(0, n_edges, step)]
