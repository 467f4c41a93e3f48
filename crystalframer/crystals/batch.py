"""A batch of crystals as flat tensors: the atoms of all crystals one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from crystalframer.crystals.arrays import BatchArrays


@dataclass(frozen=True, eq=False)
class IncomingEdges:
    """The edges of a batch by the atom at which they end. Gradients of keys and values are sums over them."""

    edges: Int[Tensor, " n_edges"]
    """Numbers of the edges, sorted by key atom; those to one atom stay in their order."""
    first: Int[Tensor, " n_atoms_and_1"]
    """The edges to atom j are those from place first[j] to first[j + 1]."""


@dataclass(frozen=True, eq=False)
class CrystalBatch:
    """Crystals with their neighbours in flat tensors. Edges are sorted by query atom, then length.

    Every atom is a neighbour of itself (image 0, length 0): its first edge.
    """

    atomic_numbers: Int[Tensor, " n_atoms"]
    positions: Float[Tensor, "n_atoms 3"]
    lattice: Float[Tensor, "n_crystals 3 3"]
    crystal_index: Int[Tensor, " n_atoms"]
    edge_index: Int[Tensor, "2 n_edges"]
    """Row 0: query atom i; row 1: key atom j; both are counted through the batch."""
    edge_image: Int[Tensor, "n_edges 3"]
    """Lattice translation n of the key atom."""
    edge_vectors: Float[Tensor, "n_edges 3"]
    """p_j(n) - p_i, Å (formed in float64 before any rounding to the batch's type)."""
    targets: Float[Tensor, "n_crystals n_targets"]
    """Labels in physical units, NaN where missing."""
    ids: tuple[str, ...]
    incoming: IncomingEdges | None = None
    """Known if a GPU made the batch from resident crystals; else the edges are sorted where this is needed."""

    @property
    def n_crystals(self) -> int:
        return len(self.lattice)

    @property
    def n_atoms(self) -> int:
        return len(self.atomic_numbers)

    @property
    def n_edges(self) -> int:
        return self.edge_index.shape[1]

    @property
    def edge_lengths(self) -> Float[Tensor, " n_edges"]:
        return torch.linalg.vector_norm(self.edge_vectors, dim=-1)

    @classmethod
    def of(
        cls, arrays: BatchArrays, targets: Float[np.ndarray, "n_crystals n_targets"], dtype: torch.dtype
    ) -> CrystalBatch:
        """The same with labels as tensors, those of floating-point numbers of type `dtype`."""
        given = {**vars(arrays), "targets": targets}
        ids = given.pop("ids")
        tensors = {name: torch.from_numpy(array) for name, array in given.items()}
        moved: Any = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
        return cls(**moved, ids=ids)

    def arrays(self) -> BatchArrays:
        """The same without labels as arrays."""
        names = (field.name for field in fields(BatchArrays) if field.name != "ids")
        return BatchArrays(**{name: getattr(self, name).detach().cpu().numpy() for name in names}, ids=self.ids)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> CrystalBatch:
        """Move to a device; `dtype` changes the floating-point tensors only."""

        def move(value: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
            return value.to(device, dtype if value.is_floating_point() else None, non_blocking=True)

        return self._with_tensors(move)

    def pin_memory(self) -> CrystalBatch:
        return self._with_tensors(Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> CrystalBatch:
        names = (field.name for field in fields(self) if field.name not in ("ids", "incoming"))
        return replace(self, incoming=None, **{name: change(getattr(self, name)) for name in names})
