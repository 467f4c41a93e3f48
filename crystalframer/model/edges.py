"""The geometry of a batch that every layer shares, computed once per forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crystalframer.data.crystal import CrystalBatch

SELF_LENGTH = 1e-2
"""Å: shorter edges join an atom to itself; they have no direction (the authors' d² <= 1e-5 Å²)."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges from query atom i to key atom j(n), sorted by query atom."""

    query: Int[Tensor, " n_edges"]
    key: Int[Tensor, " n_edges"]
    vectors: Float[Tensor, "n_edges 3"]
    lengths: Float[Tensor, " n_edges"]
    directions: Float[Tensor, "n_edges 3"]
    """Unit vectors; 0 for an atom's edge to itself."""
    is_self: Bool[Tensor, " n_edges"]
    positions: Float[Tensor, "n_atoms 3"]
    crystal_index: Int[Tensor, " n_atoms"]
    lattice: Float[Tensor, "n_crystals 3 3"]

    @property
    def n_atoms(self) -> int:
        return len(self.positions)

    @classmethod
    def of(cls, batch: CrystalBatch) -> Edges:
        """Raises: ValueError: the batch asks for a gradient, which the geometry has none of: frames are constants."""
        if batch.edge_vectors.requires_grad:
            raise ValueError(
                "edge_vectors.requires_grad is set, but the model has no gradient with respect to the structure "
                "(frames are constants for autograd); detach edge_vectors"
            )
        lengths = batch.edge_lengths
        is_self = lengths < SELF_LENGTH
        directions = torch.where(is_self, 0.0, 1.0 / lengths.clamp(min=SELF_LENGTH))[:, None] * batch.edge_vectors
        return cls(
            query=batch.edge_index[0],
            key=batch.edge_index[1],
            vectors=batch.edge_vectors,
            lengths=lengths,
            directions=directions,
            is_self=is_self,
            positions=batch.positions,
            crystal_index=batch.crystal_index,
            lattice=batch.lattice,
        )
