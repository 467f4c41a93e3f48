"""Gaussian bases of the distance and of the cosines to the frame axes (CrystalFramer)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crystalframer.config import CosineBasis, DistanceBasis
from crystalframer.maths.chebyshev import placed_cosines
from crystalframer.maths.gaussian_sums import BLOCK, NARROWEST

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
    return placed_cosines(basis, torch.arange(basis.n_centers, dtype=like.dtype, device=like.device))


def gaussians(
    x: Float[Tensor, "*shape"], centers: Float[Tensor, " n_centers"], width: float, order: int = 0
) -> Float[Tensor, "*shape n_centers"]:
    """exp(-(x - c)²/2w²) for every centre c, or its derivative of this order with respect to x.

    Constant for autograd: `expected_gaussians` knows the derivatives.
    """
    with torch.no_grad():
        scale = math.sqrt(0.5) / width
        exponents = (x[..., None] * scale - centers * scale).square_().neg_()
        lower, value = 0.0, exponents.clamp_(min=SMALLEST_EXPONENT).exp_()
        for n in range(order):
            steps = (x[..., None] - centers) / width
            lower, value = value, -(steps * value + n / width * lower) / width
        return value


def expected_gaussians(
    weights: Float[Tensor, "n_edges n_heads"],
    x: Float[Tensor, "n_edges #n_heads n_axes"],
    centers: Float[Tensor, " n_centers"],
    width: float,
    query: Int[Tensor, " n_edges"],
    n_atoms: int,
) -> Float[Tensor, "n_atoms n_heads n_axes n_centers"]:
    """Σ over the edges of each query atom of weight × Gaussian basis of x; differentiable as often as one likes.

    The basis is summed for each atom before it is projected. This is exact, because the projection is linear, and saves
    a projection per edge. The basis is computed for a few atoms at a time and never kept: the backward pass does it
    again.

    Args:
        x: one value per edge and head, or one per edge for all heads.
        query: query atom of every edge, sorted.
    """
    weights_of_axes = weights[..., None].expand(-1, -1, x.shape[2])
    return _ExpectedGaussians.apply(weights_of_axes, x, centers, width, query, n_atoms, 0)  # type: ignore[no-any-return]


class _ExpectedGaussians(torch.autograd.Function):
    """Sum over the edges of each atom of weight × derivative of a Gaussian, for each axis and centre."""

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, x: Tensor, centers: Tensor, width: float, query: Tensor, n_atoms: int, order: int
    ) -> Tensor:
        ctx.save_for_backward(weights, x, centers, query)
        ctx.width, ctx.n_atoms, ctx.order = width, n_atoms, order
        is_constant = order == 0 and not any(ctx.needs_input_grad)
        if is_constant and x.shape == weights.shape and _is_measured(weights) and _is_smooth(centers, width):
            return _summed_in_blocks(weights, x, centers, width, query, n_atoms)
        total = weights.new_empty(n_atoms, *weights.shape[1:], len(centers))
        for atoms, edges, is_edge in _atom_groups(query, n_atoms, x.shape[1] * x.shape[2] * len(centers)):
            grouped = (weights[edges] * is_edge[..., None, None]).unflatten(2, (x.shape[1], -1))
            summed = grouped.permute(0, 2, 4, 3, 1) @ _basis_matrix(x[edges], centers, width, order)
            total[atoms] = summed.transpose(2, 3).flatten(1, 2)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weights, x, centers, query = ctx.saved_tensors
        (grad,) = grads
        given = grad, x, centers, ctx.width, query, ctx.n_atoms
        needs_weights, needs_x = ctx.needs_input_grad[:2]
        of_weights = _GaussianSeries.apply(*given, ctx.order) if needs_weights else None
        of_x = _GaussianSeries.apply(*given, ctx.order + 1) if needs_x else None
        return of_weights, _summed_as(x, weights, of_x), None, None, None, None, None


def _is_measured(values: Tensor) -> bool:
    """Whether values are float64 on the CPU: those of checks that look for small changes in many crystals."""
    return values.dtype == torch.float64 and values.device.type == "cpu"


def _is_smooth(centers: Tensor, width: float) -> bool:
    """Whether Gaussians are so wide beside the spacing of their centres that they follow from one another."""
    return len(centers) > 1 and width >= NARROWEST * (centers[1] - centers[0]).item()


def _summed_in_blocks(weights: Tensor, x: Tensor, centers: Tensor, width: float, query: Tensor, n_atoms: int) -> Tensor:
    """The sum of `_ExpectedGaussians` for equally spaced centres, in a fraction of the time."""
    from crystalframer.maths.gaussian_sums import add_gaussians

    total = weights.new_zeros(n_atoms, *weights.shape[1:], -(-len(centers) // BLOCK), BLOCK)
    spacing = (centers[-1] - centers[0]).item() / (len(centers) - 1)
    arrays = (values.detach().contiguous().numpy() for values in (weights, x, query))
    add_gaussians(*arrays, centers[0].item(), spacing, width, total.numpy())
    return total.flatten(-2)[..., : len(centers)]


class _GaussianSeries(torch.autograd.Function):
    """Sum over the centres of coefficient × derivative of a Gaussian, for each edge and axis; coefficients are those
    of the query atom."""

    @staticmethod
    def forward(
        ctx: Any,
        coefficients: Tensor,
        x: Tensor,
        centers: Tensor,
        width: float,
        query: Tensor,
        n_atoms: int,
        order: int,
    ) -> Tensor:
        ctx.save_for_backward(coefficients, x, centers, query)
        ctx.width, ctx.n_atoms, ctx.order = width, n_atoms, order
        values = coefficients.new_empty(len(x), *coefficients.shape[1:3])
        for atoms, edges, is_edge in _atom_groups(query, n_atoms, x.shape[1] * x.shape[2] * len(centers)):
            grouped = coefficients[atoms].unflatten(1, (x.shape[1], -1)).transpose(2, 3)
            series = grouped @ _basis_matrix(x[edges], centers, width, order).mT
            values[edges[is_edge]] = series.permute(0, 4, 1, 3, 2).flatten(2, 3)[is_edge]
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        coefficients, x, centers, query = ctx.saved_tensors
        (grad,) = grads
        given = x, centers, ctx.width, query, ctx.n_atoms
        needs_coefficients, needs_x = ctx.needs_input_grad[:2]
        of_coefficients = _ExpectedGaussians.apply(grad, *given, ctx.order) if needs_coefficients else None
        of_x = _GaussianSeries.apply(coefficients, *given, ctx.order + 1) if needs_x else None
        return of_coefficients, _summed_as(x, grad, of_x), None, None, None, None, None


def _summed_as(x: Tensor, factor: Tensor, slope: Tensor | None) -> Tensor | None:
    """Gradient with respect to x: factor × slope, added up over the heads if they share x."""
    if slope is None:
        return None
    gradient = factor * slope
    return gradient.sum(1, keepdim=True) if x.shape[1] < gradient.shape[1] else gradient


def _basis_matrix(x: Tensor, centers: Tensor, width: float, order: int) -> Tensor:
    """(n, n_neighbors, n_heads or 1, n_axes) → (n, n_heads or 1, n_axes, n_neighbors, n_centers)."""
    return gaussians(x.permute(0, 2, 3, 1).contiguous(), centers, width, order)


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
