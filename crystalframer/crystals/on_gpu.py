"""Crystals in the memory of a GPU, which makes a batch from the row numbers of its crystals.

If the CPU makes the batches, the GPU waits until 28 bytes per edge are written and copied. The table of neighbours of a
data set takes only 9 bytes per edge (1.4 GB for mp2018_train): 5 for the edges, from which the GPU computes the vectors
of a batch, and 4 for their order by the atom at which they end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int, Int32, Int64, UInt8
from torch import Tensor

from crystalframer.crystals.batch import CrystalBatch, IncomingEdges
from crystalframer.crystals.loading import BatchOrder, PreparedCrystals

BYTES_PER_EDGE, BYTES_PER_ATOM = 10, 70
"""Memory of `ResidentCrystals`, rounded up."""


@dataclass(frozen=True, eq=False)
class CrystalRows:
    """A batch, given by the row numbers of its crystals among the resident ones."""

    rows: Int64[Tensor, " batch_size"]
    """Padded with -1 to the size of a full batch."""
    targets: Float[Tensor, "n_crystals n_targets"]
    """As in `CrystalBatch`."""
    seed: Int64[Tensor, ""]
    """Of the training noise."""
    ids: tuple[str, ...]
    n_atoms: int
    n_edges: int

    @property
    def n_crystals(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> CrystalRows:
        """On a device; those of a `RowLoader` are there already."""
        tensors = {name: getattr(self, name).to(device, non_blocking=True) for name in ("rows", "targets", "seed")}
        return replace(self, **tensors)


@dataclass(frozen=True, eq=False)
class ResidentCrystals:
    """The arrays of `PreparedCrystals` as tensors on one device."""

    atomic_numbers: UInt8[Tensor, " n_all_atoms"]
    positions: Float[Tensor, "n_all_atoms 3"]
    lattice: Float[Tensor, "n_crystals 3 3"]
    targets: Float[Tensor, "n_crystals n_targets"]
    first_atom: Int64[Tensor, " n_crystals_and_1"]
    first_edge: Int64[Tensor, " n_all_atoms_and_1"]
    """Atom i owns the edges first_edge[i] to first_edge[i + 1]."""
    key_atom: Int[Tensor, " n_all_edges"]
    edge_image: Int[Tensor, "n_all_edges 3"]
    incoming: Int32[Tensor, " n_all_edges"]
    """Edges of each crystal by the atom at which they end; counted within the crystal."""
    first_incoming: Int64[Tensor, " n_all_atoms_and_1"]
    """The edges to atom i are those from place first_incoming[i] to first_incoming[i + 1]."""

    @classmethod
    def of(cls, crystals: PreparedCrystals, device: torch.device) -> ResidentCrystals:
        flat, neighbors = crystals.flat, crystals.neighbors
        targets = crystals.targets.astype(np.float32)
        first_edge = np.concatenate([[0], np.cumsum(neighbors.edges_per_atom, dtype=np.int64)])
        arrays = (flat.atomic_numbers, flat.positions, flat.lattice, targets, flat.offsets)
        arrays = (*arrays, first_edge, neighbors.key_atom, neighbors.edge_image, *_by_key_atom(crystals, first_edge))
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
        n_incoming = torch.where(is_atom, self.first_incoming[source + 1] - self.first_incoming[source], 0)
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
        # Edges of a crystal follow one another, here as there. Beyond the last no atom looks.
        edges_before = edge_ends[starts[of_slot]] - n_edges_of[starts[of_slot]]
        incoming = edges_before + self.incoming[edge_source]
        first_incoming = torch.cat([n_incoming.new_zeros(1), n_incoming.cumsum(0)])
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
            incoming=IncomingEdges(incoming, first_incoming),
        )


def _by_key_atom(
    crystals: PreparedCrystals, first_edge: Int64[np.ndarray, " n_all_atoms_and_1"]
) -> tuple[Int32[np.ndarray, " n_all_edges"], Int64[np.ndarray, " n_all_atoms_and_1"]]:
    """The edges of each crystal, counted within it, by key atom; and where those of each atom start."""
    key_atom, first_atom = crystals.neighbors.key_atom, crystals.flat.offsets
    incoming = np.empty(len(key_atom), np.int32)
    ends = np.zeros(len(first_edge), np.int64)
    for start, stop in pairwise(first_atom.tolist()):
        keys = key_atom[first_edge[start] : first_edge[stop]]
        incoming[first_edge[start] : first_edge[stop]] = np.argsort(keys, kind="stable")
        ends[start + 1 : stop + 1] = np.bincount(keys, minlength=stop - start)
    return incoming, np.cumsum(ends)


@dataclass(frozen=True, eq=False)
class RowLoader:
    """A loader of the same batches as `loading.train_loader`, as `CrystalRows`.

    The rows and seeds of an epoch are copied to the GPU before its first batch. A step copies nothing: a copy from
    ordinary memory would wait until the GPU has done all that came before.
    """

    crystals: PreparedCrystals
    resident: ResidentCrystals
    sampler: BatchOrder
    """Under the name by which Lightning finds it, to tell it the epoch."""
    seed: Callable[[int, int], int]
    """Of the training noise, by the number of the epoch and of the batch, from 0."""

    def __iter__(self) -> Iterator[CrystalRows]:
        crystals, epoch, batches = self.crystals, self.sampler.epoch, list(self.sampler)
        # As in `train_loader`: an empty piece of a batch is a crystal without labels.
        empty = {n for n, batch in enumerate(batches) if not len(batch)}
        smallest = np.array([crystals.n_edges.argmin()])
        batches = [smallest if n in empty else batch for n, batch in enumerate(batches)]
        padded = np.full((len(batches), self.sampler.batch_size), -1)
        for n, batch in enumerate(batches):
            padded[n, : len(batch)] = batch
        seeds = np.array([self.seed(epoch, n) for n in range(len(batches))], dtype=np.int64)
        rows, seeds = (_uploaded(array, self.resident.targets.device) for array in (padded, seeds))
        for n, batch in enumerate(batches):
            targets = self.resident.targets[rows[n, : len(batch)]]
            if n in empty:
                targets = torch.full_like(targets, torch.nan)
            ids = tuple(crystals.ids[row] for row in batch)
            yield CrystalRows(rows[n], targets, seeds[n], ids, *crystals.sizes(batch))


def _uploaded(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy on the device, for which the host does not wait."""
    tensor = torch.from_numpy(array)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def largest_sizes(crystals: PreparedCrystals, batches: Iterable[np.ndarray]) -> tuple[int, int]:
    """The largest number of atoms, and of edges, in any of these batches."""
    n_atoms, n_edges = zip(*map(crystals.sizes, batches), strict=True)
    return max(n_atoms), max(n_edges)
