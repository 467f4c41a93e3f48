"""A batch of crystals as flat arrays: the atoms of all crystals one after another. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class BatchArrays:
    """Crystals with their neighbours, as in `crystals.batch.CrystalBatch`."""

    atomic_numbers: Int[np.ndarray, " n_atoms"]
    positions: Float[np.ndarray, "n_atoms 3"]
    lattice: Float[np.ndarray, "n_crystals 3 3"]
    crystal_index: Int[np.ndarray, " n_atoms"]
    edge_index: Int[np.ndarray, "2 n_edges"]
    edge_image: Int[np.ndarray, "n_edges 3"]
    edge_vectors: Float[np.ndarray, "n_edges 3"]
    ids: tuple[str, ...]

    @property
    def n_crystals(self) -> int:
        return len(self.lattice)

    @property
    def n_atoms(self) -> int:
        return len(self.atomic_numbers)
