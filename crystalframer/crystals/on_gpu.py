"""Crystals in the memory of a GPU, which makes a batch from the row numbers of its crystals.

If the CPU makes the batches, the GPU waits until 28 bytes per edge are written and copied. The table of neighbours of a
data set takes only 5 bytes per edge (0.8 GB for mp2018_train); the GPU computes the vectors of a batch from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor

from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import BatchOrder, PreparedCrystals

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


@dataclass(frozen=True, eq=False)
class CrystalRows:
    """A batch, given by the row numbers of its crystals among the resident ones."""

    rows: Int64[Tensor, " batch_size"]
    """Padded with -1 to the size of a full batch."""
    targets: Float[Tensor, "n_crystals n_targets"]
    """As in `CrystalBatch`."""
    ids: tuple[str, ...]
    n_atoms: int
    n_edges: int

    @property
    def n_crystals(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CrystalRows:
        rows, targets = (tensor.to(device, non_blocking=non_blocking) for tensor in (self.rows, self.targets))
        return replace(self, rows=rows, targets=targets)


@dataclass(frozen=True, eq=False)
class ResidentCrystals:
    """The arrays of `PreparedCrystals` as tensors on one device."""

    atomic_numbers: UInt8[Tensor, " n_all_atoms"]
    positions: Float[Tensor, "n_all_atoms 3"]
    lattice: Float[Tensor, "n_crystals 3 3"]
    first_atom: Int64[Tensor, " n_crystals_and_1"]
    first_edge: Int64[Tensor, " n_all_atoms_and_1"]
    """Atom i owns the edges first_edge[i] to first_edge[i + 1]."""
    key_atom: Int[Tensor, " n_all_edges"]
    edge_image: Int[Tensor, "n_all_edges 3"]

    @classmethod
    def of(cls, crystals: PreparedCrystals, device: torch.device) -> ResidentCrystals:
        flat, neighbors = crystals.flat, crystals.neighbors
        first_edge = np.concatenate([[0], np.cumsum(neighbors.edges_per_atom, dtype=np.int64)])
        arrays = (flat.atomic_numbers, flat.positions, flat.lattice, flat.offsets)
        arrays = (*arrays, first_edge, neighbors.key_atom, neighbors.edge_image)
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))

    def batch(self, rows: Int64[Tensor, " batch_size"], n_atoms: int, n_edges: int) -> CrystalBatch:
        """The batch of these crystals as `PreparedCrystals` makes it (float32), padded to `n_atoms` and `n_edges`.

        The batch has one more crystal than rows: it owns the padding atoms, which come last and have no edges. Padding
        edges come last, too, and belong to no atom: their query and key atom is n_atoms, one beyond the last. Only the
        CUDA kernels know to skip them. A row of -1 is a crystal without atoms. Nothing here waits for the GPU.

        Args:
            n_atoms, n_edges: at least as many as the crystals have.
        """
        known, row = rows >= 0, rows.clamp(min=0)
        sizes = torch.where(known, self.first_atom[row + 1] - self.first_atom[row], 0)
        ends = sizes.cumsum(0)
        starts = ends - sizes
        atom = torch.arange(n_atoms, device=rows.device)
        owner = torch.searchsorted(ends, atom, right=True)
        is_atom, slot = owner < len(rows), owner.clamp(max=len(rows) - 1)
        source = torch.where(is_atom, self.first_atom[row[slot]] + atom - starts[slot], 0)

        n_edges_of = torch.where(is_atom, self.first_edge[source + 1] - self.first_edge[source], 0)
        edge_ends = n_edges_of.cumsum(0)
        edge = torch.arange(n_edges, device=rows.device)
        query = torch.searchsorted(edge_ends, edge, right=True)
        is_edge, asking = query < n_atoms, query.clamp(max=n_atoms - 1)
        offset = self.first_edge[source] - (edge_ends - n_edges_of)
        edge_source = torch.where(is_edge, edge + offset[asking], 0)
        of_slot, key_in_crystal = slot[asking], self.key_atom[edge_source].long()
        key = torch.where(is_edge, starts[of_slot] + key_in_crystal, n_atoms)
        crystal, image = row[of_slot], self.edge_image[edge_source]
        key_source = self.first_atom[crystal] + key_in_crystal
        shifts = [image[:, d, None] * self.lattice[crystal, d] for d in range(3)]
        vectors = self.positions[key_source] - self.positions[source[asking]] + (shifts[0] + shifts[1] + shifts[2])

        nowhere = torch.eye(3, dtype=self.lattice.dtype, device=rows.device)[None]
        return CrystalBatch(
            atomic_numbers=self.atomic_numbers[source].long(),
            positions=self.positions[source].float(),
            lattice=torch.cat([self.lattice[row], nowhere]).float(),
            crystal_index=owner,
            edge_index=torch.stack([query, key]),
            edge_image=image.int(),
            edge_vectors=vectors.float(),
            targets=vectors.new_zeros(len(rows) + 1, 0).float(),
            ids=("",) * (len(rows) + 1),
        )


def row_loader(crystals: PreparedCrystals, order: BatchOrder) -> DataLoader:
    """A loader of the same batches as `loading.train_loader`, as `CrystalRows`."""
    from torch.utils.data import DataLoader

    return DataLoader(_Rows(crystals, order.batch_size), sampler=order, batch_size=None)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class _Rows:
    crystals: PreparedCrystals
    batch_size: int

    def __len__(self) -> int:
        return len(self.crystals)

    def __getitem__(self, rows: Int[np.ndarray, " n_rows"]) -> CrystalRows:
        crystals = self.crystals
        padded = np.full(self.batch_size, -1)
        padded[: len(rows)] = rows
        return CrystalRows(
            torch.from_numpy(padded),
            torch.from_numpy(crystals.targets[rows]).float(),
            tuple(crystals.ids[row] for row in rows),
            *crystals.sizes(rows),
        )


def largest_sizes(crystals: PreparedCrystals, batches: Iterable[np.ndarray]) -> tuple[int, int]:
    """The largest number of atoms, and of edges, in any of these batches."""
    n_atoms, n_edges = zip(*map(crystals.sizes, batches), strict=True)
    return max(n_atoms), max(n_edges)
