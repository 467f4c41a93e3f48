"""The geometry that all layers share: edges of a batch, or of some atoms of a large crystal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from crystalframer.crystals.batch import CrystalBatch, IncomingEdges
from crystalframer.crystals.large_cells import ChunkedCrystal, EdgesOfAtoms
from crystalframer.maths.constants import SELF_LENGTH


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges from query atom i to key atom j(n), sorted by query atom.

    All atoms are queries and keys. Only in a crystal that is too large for this, some atoms at a time are queries.
    """

    query: Int[Tensor, " n_edges"]
    """Numbers of the query atoms, counted among the query atoms."""
    key: Int[Tensor, " n_edges"]
    vectors: Float[Tensor, "n_edges 3"]
    lengths: Float[Tensor, " n_edges"]
    directions: Float[Tensor, "n_edges 3"]
    """Unit vectors; 0 for an atom's edge to itself."""
    is_self: Bool[Tensor, " n_edges"]
    positions: Float[Tensor, "n_keys 3"]
    crystal_index: Int[Tensor, " n_keys"]
    lattice: Float[Tensor, "n_crystals 3 3"]
    query_atoms: Int[Tensor, " n_atoms"] | None = None
    """Numbers of the query atoms among the key atoms; None: all of them, in order."""
    incoming: IncomingEdges | None = None
    """As in `CrystalBatch`."""

    @property
    def n_atoms(self) -> int:
        """Number of query atoms."""
        return self.n_keys if self.query_atoms is None else len(self.query_atoms)

    @property
    def n_keys(self) -> int:
        return len(self.positions)

    def at_queries(self, values: Shaped[Tensor, "n_keys *shape"]) -> Shaped[Tensor, "n_atoms *shape"]:
        """The values of the query atoms."""
        return values if self.query_atoms is None else values[self.query_atoms]

    @classmethod
    def of(cls, batch: CrystalBatch) -> Edges:
        """Edges of all atoms of a batch, differentiable in its edge vectors."""
        given = (batch.edge_index, batch.edge_vectors, batch.positions, batch.crystal_index, batch.lattice)
        return cls._of(*given, None, batch.incoming)

    @classmethod
    def of_atoms(
        cls, edges: EdgesOfAtoms, device: torch.device, dtype: torch.dtype, differentiable: bool = False
    ) -> Edges:
        """Edges from some atoms of one crystal, to any of its atoms; perhaps differentiable in their vectors."""
        crystal = edges.crystal
        vectors, positions, lattice = (
            torch.from_numpy(array).to(device, dtype) for array in (edges.vectors, crystal.positions, crystal.lattice)
        )
        vectors.requires_grad_(differentiable)
        index, atoms = (torch.from_numpy(array).to(device) for array in (edges.index, edges.atoms))
        return cls._of(index, vectors, positions, index.new_zeros(len(positions)), lattice[None], atoms)

    @classmethod
    def _of(
        cls,
        index: Int[Tensor, "2 n_edges"],
        vectors: Float[Tensor, "n_edges 3"],
        positions: Float[Tensor, "n_keys 3"],
        crystal_index: Int[Tensor, " n_keys"],
        lattice: Float[Tensor, "n_crystals 3 3"],
        query_atoms: Int[Tensor, " n_atoms"] | None,
        incoming: IncomingEdges | None = None,
    ) -> Edges:
        norms = torch.linalg.vector_norm(vectors.detach(), dim=-1)
        is_self = norms < SELF_LENGTH
        # A norm has no gradient at 0. The edge of an atom to itself is constant.
        other_lengths = torch.linalg.vector_norm(torch.where(is_self[:, None], SELF_LENGTH, vectors), dim=-1)
        lengths = torch.where(is_self, norms, other_lengths)
        directions = torch.where(is_self, 0.0, 1.0 / other_lengths)[:, None] * vectors
        query, key = index
        geometry = (vectors, lengths, directions, is_self, positions, crystal_index, lattice)
        return cls(query, key, *geometry, query_atoms, incoming)


@dataclass(frozen=True, eq=False)
class EdgeChunks:
    """The edges of a crystal, for some query atoms at a time. Each iteration starts from the first atoms."""

    crystal: ChunkedCrystal
    device: torch.device
    dtype: torch.dtype
    done: Callable[[int], object]
    """Called with the number of atoms after each chunk."""

    @property
    def atomic_numbers(self) -> Int[Tensor, " n_atoms"]:
        return torch.from_numpy(self.crystal.atomic_numbers.astype(np.int64)).to(self.device)

    def __iter__(self) -> Iterator[Edges]:
        for edges in self.crystal:
            yield Edges.of_atoms(edges, self.device, self.dtype)
            self.done(len(edges.atoms))
