"""From a data set to batches: neighbours are searched once, batches have limited sizes, and the seed sets their order.

Only the order is random, and it depends on (seed, epoch) alone: batches are the same with any number of loader
processes, and a resumed run sees the same batches as an uninterrupted one.

Neighbours are kept in memory, not on disk. The search takes about 110 ns per edge and core, reading 5 bytes from disk
about 10 ns. For the 44,376 crystals of mp2018_train (143 million edges, 0.7 GB) the search takes half a minute on two
cores, once in a run whose epochs take minutes each. A cache that could be outdated, damaged or read-only is not worth
that.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Int64

from crystalframer.config import TrainingConfig
from crystalframer.crystals.arrays import BatchArrays
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.flat import FlatCrystals
from crystalframer.crystals.neighbors import NeighborError, NeighborTable, batch_edges, first_edges, ranges, search
from crystalframer.errors import CrystalError

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    from crystalframer.crystals.batch import CrystalBatch


@dataclass(frozen=True, eq=False)
class PreparedCrystals:
    """Crystals with their neighbours in flat arrays of the smallest types: 5 bytes per edge.

    Loader processes share the arrays without copying them.
    """

    ids: tuple[str, ...]
    targets: Float[np.ndarray, "n_crystals n_targets"]
    """Labels in physical units, NaN where missing."""
    flat: FlatCrystals
    neighbors: NeighborTable

    @cached_property
    def n_atoms(self) -> Int64[np.ndarray, " n_crystals"]:
        return self.flat.n_atoms

    @cached_property
    def n_edges(self) -> Int64[np.ndarray, " n_crystals"]:
        return np.diff(self._first_edge)

    @cached_property
    def _first_edge(self) -> Int64[np.ndarray, " n_crystals_and_1"]:
        return first_edges(self.neighbors, self.flat)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Sequence[int] | Int[np.ndarray, " n_rows"]) -> CrystalBatch:
        """The batch of these crystals, in this order (float32)."""
        return self.batch(rows)

    def batch(self, rows: Sequence[int] | Int[np.ndarray, " n_rows"], dtype: torch.dtype | None = None) -> CrystalBatch:
        """The batch of these crystals, in this order, its floating-point tensors of type `dtype` (default: float32)."""
        import torch

        from crystalframer.crystals.batch import CrystalBatch

        vectors = np.float64 if dtype == torch.float64 else np.float32
        return CrystalBatch.of(self.arrays(rows, vectors), self.targets[rows], dtype or torch.float32)

    def arrays(
        self, rows: Sequence[int] | Int[np.ndarray, " n_rows"], vector_type: type[np.floating] = np.float32
    ) -> BatchArrays:
        """The same without torch and without labels.

        Args:
            vector_type: type of the edge vectors.
        """
        rows = np.asarray(rows, dtype=np.int64)
        n_atoms = self.n_atoms[rows]
        atoms = ranges(self.flat.offsets[rows], n_atoms)
        index, image, vectors = batch_edges(self.neighbors, self.flat, self._first_edge, rows, vector_type)
        return BatchArrays(
            atomic_numbers=self.flat.atomic_numbers[atoms].astype(np.int64),
            positions=self.flat.positions[atoms],
            lattice=self.flat.lattice[rows],
            crystal_index=np.repeat(np.arange(len(rows)), n_atoms),
            edge_index=index,
            edge_image=image,
            edge_vectors=vectors,
            ids=tuple(self.ids[row] for row in rows),
        )

    def sizes(self, rows: Int[np.ndarray, " n_rows"]) -> tuple[int, int]:
        """Numbers of atoms and of edges in the batch of these crystals."""
        return int(self.n_atoms[rows].sum()), int(self.n_edges[rows].sum())

    def fingerprint(self) -> str:
        """SHA-256 of structures and labels: two sets with the same one train the same model."""
        content = hashlib.sha256(repr(self.ids).encode())
        lattice, positions = (a.astype(np.float32) for a in (self.flat.lattice, self.flat.positions))
        for array in (self.targets, lattice, self.n_atoms, self.flat.atomic_numbers, positions):
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()


def prepare(
    crystals: Sequence[Crystal] | FlatCrystals,
    radius: float,
    target_names: Sequence[str] = (),
    part: str = "",
    *,
    enlarge: bool = True,
) -> PreparedCrystals:
    """Search the neighbours of every crystal on all cores, with a progress bar when that takes more than 2 s.

    Args:
        radius: neighbour radius in Å (`ModelConfig.radius`).
        target_names: labels to carry, in this order; a missing one is NaN.
        part: the part of a data set that these crystals are (`train`, ...), for the progress bar and errors.
        enlarge: give atoms with few neighbours a larger radius (`ModelConfig.enlarges_radius`).

    Raises:
        CrystalError: no crystals, or one whose neighbours cannot be listed: two atoms lie on the same place, or the
            cell is almost empty. The error names the crystal and the site; `row` counts from 1.
    """
    if not len(crystals):
        raise CrystalError(f"there are no {part} crystals; give some" if part else "there are no crystals; give some")
    flat = crystals if isinstance(crystals, FlatCrystals) else FlatCrystals.of(crystals, target_names)
    missing = np.full(len(flat), np.nan)
    labels = [flat.targets.get(name, missing) for name in target_names]
    targets = np.array(labels, dtype=np.float64).reshape(len(target_names), len(flat)).T
    try:
        title = f"neighbours, {part} crystals" if part else "neighbours"
        neighbors = search(flat, radius, title=title, enlarge=enlarge)
    except NeighborError as error:
        row = error.row if part or len(flat) > 1 else None
        raise error.of(crystals[error.index], part).at(row=row) from error
    return PreparedCrystals(tuple(flat.ids.tolist()), targets, flat, neighbors)


def make_batch(
    crystals: Sequence[Crystal],
    radius: float,
    target_names: Sequence[str] = (),
    dtype: torch.dtype | None = None,
    *,
    enlarge: bool = True,
) -> CrystalBatch:
    """One batch of these crystals, with their neighbours.

    Args:
        radius: neighbour radius in Å (`ModelConfig.radius`).
        target_names: labels to carry, in this order.
        dtype: type of the floating-point tensors (default: float32).
        enlarge: as in `prepare`.

    Raises:
        CrystalError: as `prepare`.
    """
    return prepare(crystals, radius, target_names, enlarge=enlarge).batch(range(len(crystals)), dtype)


class BatchOrder:
    """Assigns crystals to the batches of each epoch: a sampler of index arrays for `DataLoader(batch_size=None)`.

    A batch has at most `batch_size` crystals, `max_atoms` atoms and `max_edges` edges; a crystal that alone exceeds a
    limit is a batch by itself. If several processes (ranks) train together, or batches are computed in pieces, each
    process iterates over its shares of the batches.
    """

    def __init__(
        self,
        n_atoms: Int[np.ndarray, " n_crystals"],
        batch_size: int,
        max_atoms: int | None = None,
        seed: int | None = None,
        drop_last: bool = False,
        n_edges: Int[np.ndarray, " n_crystals"] | None = None,
        max_edges: int | None = None,
        rank: int = 0,
        n_ranks: int = 1,
        n_pieces: int = 1,
    ) -> None:
        """Args:
        seed: random seed of the order, which changes every epoch; None keeps the order of the data set.
        drop_last: leave out a last batch that is not full, unless it is the only one.
        n_edges: edges of each crystal, for `max_edges` and for even shares.
        rank: number of this process, from 0, among `n_ranks`.
        n_pieces: number of shares that each process computes of a batch, one after another.
        """
        self.n_crystals, self.batch_size = len(n_atoms), batch_size
        self.seed, self.drop_last = seed, drop_last
        self.rank, self.n_ranks, self.n_pieces = rank, n_ranks, n_pieces
        self._work = n_atoms if n_edges is None else n_edges
        self._bounds = [(n_atoms, max_atoms)] if max_atoms is not None else []
        if max_edges is not None and n_edges is not None:
            self._bounds.append((n_edges, max_edges))
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    # No __len__: with a bound the number of batches differs from epoch to epoch, and Lightning reads it only once.
    def __iter__(self) -> Iterator[np.ndarray]:
        first, last = self.rank * self.n_pieces, (self.rank + 1) * self.n_pieces
        return (share for batch in self.batches(self.epoch) for share in self.shares(batch)[first:last])

    def shares(self, batch: Int[np.ndarray, " batch"]) -> list[Int[np.ndarray, " share"]]:
        """Divide a batch into the pieces of all ranks. A share is empty if there are fewer crystals."""
        n_shares = self.n_ranks * self.n_pieces
        return [batch] if n_shares == 1 else [batch[chosen] for chosen in even_shares(self._work[batch], n_shares)]

    def batches(self, epoch: int) -> list[Int[np.ndarray, " batch"]]:
        """The batches of an epoch. They depend on the seed and the epoch only."""
        order = np.arange(self.n_crystals)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, epoch)).permutation(order)
        ends = batch_ends([(sizes[order], limit) for sizes, limit in self._bounds], self.n_crystals, self.batch_size)
        batches = np.split(order, ends[:-1])
        is_full = len(batches[-1]) == self.batch_size or any(
            sizes[batches[-1]].sum() >= limit for sizes, limit in self._bounds
        )
        return batches[:-1] if self.drop_last and not is_full and len(batches) > 1 else batches


def even_shares(work: Int[np.ndarray, " n_items"], n_shares: int) -> list[Int64[np.ndarray, " share"]]:
    """Divide items into shares of about equal work: the largest item first, each to the share with the least work so
    far (Graham, SIAM J. Appl. Math. 17, 416 (1969): at most 4/3 of the optimum). Items keep their order.
    """
    shares: list[list[int]] = [[] for _ in range(n_shares)]
    loads = [(0, share) for share in range(n_shares)]
    for item in np.argsort(-work, kind="stable").tolist():
        load, share = loads[0]
        shares[share].append(item)
        heapq.heapreplace(loads, (load + int(work[item]), share))
    return [np.array(sorted(share), dtype=np.int64) for share in shares]


def batch_ends(
    bounds: Sequence[tuple[Int[np.ndarray, " n_crystals"], int]], n_crystals: int, batch_size: int
) -> list[int]:
    """The ends of batches of consecutive crystals, each as large as the bounds (sizes, largest sum) allow."""
    sums = [(np.concatenate([[0], np.cumsum(sizes)]), limit) for sizes, limit in bounds]
    ends, first = [], 0
    while first < n_crystals:
        last = min(first + batch_size, n_crystals)
        for total, limit in sums:
            last = min(last, int(np.searchsorted(total, total[first] + limit, side="right")) - 1)
        first = max(last, first + 1)
        ends.append(first)
    return ends


def train_loader(
    crystals: PreparedCrystals, config: TrainingConfig, pin_memory: bool = False, rank: int = 0, n_ranks: int = 1
) -> DataLoader:
    """A loader of shuffled batches of at most `config.batch_size` crystals, `max_atoms` atoms and `max_edges` edges, or
    of one rank's shares of them. An empty share is a crystal without labels.
    """
    shuffled = {"seed": config.seed, "drop_last": config.drop_last}
    order = _order(crystals, config, rank, n_ranks, n_pieces=config.n_pieces, **shuffled)
    return _loader(crystals, order, config.n_workers, pin_memory)


def evaluation_loader(
    crystals: PreparedCrystals, config: TrainingConfig, pin_memory: bool = False, rank: int = 0, n_ranks: int = 1
) -> DataLoader:
    """A loader of every crystal once, in order, in batches as large as in training; or of one rank's shares of them.

    If training computes its batches in pieces, so many fewer crystals are in a batch here.
    """
    if config.n_pieces > 1:
        sizes = {name: getattr(config, name) for name in ("batch_size", "max_atoms", "max_edges")}
        config = replace(config, **{name: -(-n // config.n_pieces) for name, n in sizes.items() if n is not None})
    return _loader(crystals, _order(crystals, config, rank, n_ranks), 0, pin_memory)


def _order(crystals: PreparedCrystals, config: TrainingConfig, rank: int, n_ranks: int, **more: Any) -> BatchOrder:
    limits = {"max_atoms": config.max_atoms, "n_edges": crystals.n_edges, "max_edges": config.max_edges}
    return BatchOrder(crystals.n_atoms, config.batch_size, **limits, rank=rank, n_ranks=n_ranks, **more)


@dataclass(frozen=True, eq=False)
class _Shares:
    """Crystals for ranks and pieces, which all take part in every step: an empty share is a crystal without labels."""

    crystals: PreparedCrystals

    def __getitem__(self, rows: Int[np.ndarray, " n_rows"]) -> CrystalBatch:
        if len(rows):
            return self.crystals[rows]
        smallest = self.crystals[[int(self.crystals.n_edges.argmin())]]
        return replace(smallest, targets=smallest.targets.new_full(smallest.targets.shape, np.nan))


def _loader(crystals: PreparedCrystals, order: BatchOrder, n_workers: int, pin_memory: bool) -> DataLoader:
    from torch.utils.data import DataLoader

    return DataLoader(
        crystals if order.n_ranks * order.n_pieces == 1 else _Shares(crystals),  # type: ignore[arg-type]
        sampler=order,
        batch_size=None,
        num_workers=n_workers,
        persistent_workers=n_workers > 0,
        pin_memory=pin_memory,
        collate_fn=_already_collated,  # type: ignore[arg-type]
    )


def _already_collated(batch: CrystalBatch) -> CrystalBatch:
    return batch
