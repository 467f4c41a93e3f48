"""Input of the frames: the edges of a batch, and how strongly each head attends to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from crystalframer.frame_methods import Strength
from crystalframer.maths.edges import Edges
from crystalframer.maths.segments import segment_sum

HIGHEST_MOMENT = 5
"""Highest moment of the cosines to an axis that decides ties."""
POWERS = tuple(
    (a, b, c)
    for a in range(HIGHEST_MOMENT + 1)
    for b in range(HIGHEST_MOMENT + 1 - a)
    for c in range(HIGHEST_MOMENT + 1 - a - b)
)
"""Powers of x, y and z in all products up to the fifth degree."""


@dataclass(frozen=True, eq=False)
class AttendedEdges:
    """The edges of a batch, and how strongly each head attends to them: the input of a frame method."""

    edges: Edges
    logits: Float[Tensor, "n_edges n_heads"]
    """Content plus distance logits."""
    attention: Float[Tensor, "n_edges n_heads"]

    @property
    def n_heads(self) -> int:
        return self.logits.shape[1]

    def in_double(self) -> AttendedEdges:
        """The same in float64 where the device has it: principal axes of close eigenvalues magnify rounding errors."""
        if self.attention.device.type == "mps":
            return self
        edges = replace(self.edges, vectors=self.edges.vectors.double())
        return AttendedEdges(edges, self.logits.double(), self.attention.double())

    def scores(self, strength: Strength) -> Float[Tensor, "n_edges n_heads"]:
        """Scores by strength: logits of the attention, or the nearness -r² (Å², the same for all heads)."""
        if strength == "attention":
            return self.logits
        return -self.edges.lengths.square()[:, None].expand_as(self.logits)

    def moment(self, order: int) -> Float[Tensor, "n_atoms n_heads *xyz"]:
        """Σ p r⊗…⊗r, a product of `order` vectors, Å^order: dipole, quadrupole, octupole."""
        products = outer_power(self.edges.vectors, order)
        weights = self.attention.view(*self.attention.shape, *[1] * order)
        return segment_sum(weights * products[:, None], self.edges.query, self.edges.n_atoms)

    @cached_property
    def direction_moments(self) -> Float[Tensor, "n_atoms n_heads n_products"]:
        """Σ p xᵃ yᵇ zᶜ of the unit vectors, with the powers of `POWERS`."""
        products = products_of(self.edges.directions)
        by_head = [
            segment_sum(weights[:, None] * products, self.edges.query, self.edges.n_atoms)
            for weights in self.attention.unbind(1)
        ]
        return torch.stack(by_head, dim=1)


def outer_power(vectors: Float[Tensor, "n 3"], order: int) -> Float[Tensor, "n *xyz"]:
    """r⊗…⊗r of each vector, with `order` factors."""
    product = vectors
    for _ in range(order - 1):
        product = product[..., None] * vectors.view(-1, *[1] * (product.ndim - 1), 3)
    return product


def products_of(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n n_products"]:
    """xᵃ yᵇ zᶜ for all powers of `POWERS`."""
    powers = vectors[:, None] ** torch.arange(HIGHEST_MOMENT + 1, device=vectors.device)[:, None]
    a, b, c = torch.tensor(POWERS, device=vectors.device).T
    return powers[:, a, 0] * powers[:, b, 1] * powers[:, c, 2]
