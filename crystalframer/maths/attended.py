"""What a frame is made from: the edges of a batch and how strongly each head attends to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from crystalframer.maths.edges import Edges
from crystalframer.maths.segments import segment_sum

HIGHEST_MOMENT = 5
"""Of the cosines to an axis, in what decides ties."""
POWERS = tuple(
    (a, b, c)
    for a in range(HIGHEST_MOMENT + 1)
    for b in range(HIGHEST_MOMENT + 1 - a)
    for c in range(HIGHEST_MOMENT + 1 - a - b)
)
"""Of x, y and z in their products up to the fifth degree."""


@dataclass(frozen=True, eq=False)
class AttendedEdges:
    """The edges of a batch and how strongly each head attends to them: what a frame is made from."""

    edges: Edges
    logits: Float[Tensor, "n_edges n_heads"]
    """Content plus distance logits."""
    attention: Float[Tensor, "n_edges n_heads"]

    @property
    def n_heads(self) -> int:
        return self.logits.shape[1]

    def in_double(self) -> AttendedEdges:
        """In float64 where the device has it: principal axes of close eigenvalues magnify the rounding of moments."""
        if self.attention.device.type == "mps":
            return self
        edges = replace(self.edges, vectors=self.edges.vectors.double())
        return AttendedEdges(edges, self.logits.double(), self.attention.double())

    @property
    def nearness(self) -> Float[Tensor, "n_edges n_heads"]:
        """-r², Å²: the logarithm of the weight of static frames, alike for all heads."""
        return -self.edges.lengths.square()[:, None].expand_as(self.logits)

    @cached_property
    def dipole(self) -> Float[Tensor, "n_atoms n_heads 3"]:
        """Σ p r, Å."""
        return self._moment(self.edges.vectors)

    @cached_property
    def quadrupole(self) -> Float[Tensor, "n_atoms n_heads 3 3"]:
        """Σ p r rᵀ, Å²."""
        r = self.edges.vectors
        return self._moment(r[:, :, None] * r[:, None, :])

    @cached_property
    def octupole(self) -> Float[Tensor, "n_atoms n_heads 3 3 3"]:
        """Σ p r⊗r⊗r, Å³."""
        r = self.edges.vectors
        return self._moment(r[:, :, None, None] * r[:, None, :, None] * r[:, None, None, :])

    @cached_property
    def direction_moments(self) -> Float[Tensor, "n_atoms n_heads n_products"]:
        """Σ p xᵃ yᵇ zᶜ of the unit vectors, with the powers of `POWERS`."""
        products = products_of(self.edges.directions)
        by_head = [
            segment_sum(weights[:, None] * products, self.edges.query, self.edges.n_atoms)
            for weights in self.attention.unbind(1)
        ]
        return torch.stack(by_head, dim=1)

    def _moment(self, products: Tensor) -> Tensor:
        weights = self.attention.view(*self.attention.shape, *[1] * (products.ndim - 1))
        return segment_sum(weights * products[:, None], self.edges.query, self.edges.n_atoms)


def products_of(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n n_products"]:
    """xᵃ yᵇ zᶜ for all powers of `POWERS`."""
    powers = vectors[:, None] ** torch.arange(HIGHEST_MOMENT + 1, device=vectors.device)[:, None]
    a, b, c = torch.tensor(POWERS, device=vectors.device).T
    return powers[:, a, 0] * powers[:, b, 1] * powers[:, c, 2]
