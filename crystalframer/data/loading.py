"""From a data set to batches: neighbours searched once, batches bounded by crystals and atoms, order set by the seed.

Nothing here is random beyond the order, and the order is a pure function of (seed, epoch): batches are the same with
any number of loader processes, and a resumed run sees the batches that an uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from crystalframer.config import TrainingConfig
from crystalframer.data.crystal import Crystal, CrystalBatch, CrystalError
from crystalframer.data.dataset import CrystalDataset
from crystalframer.data.neighbors import neighbor_list

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


@dataclass(frozen=True, eq=False)
class PreparedCrystals:
    """Crystals with their neighbours in flat arrays of the smallest types: about 17 bytes an edge.

    Flat arrays, not objects, so that loader processes share them without copying.
    """

    ids: tuple[str, ...]
    targets: Float[np.ndarray, "n_crystals n_targets"]
    """Labels in physical units, NaN where missing."""
    lattice: Float[np.ndarray, "n_crystals 3 3"]
    n_atoms: Int[np.ndarray, " n_crystals"]
    n_edges: Int[np.ndarray, " n_crystals"]
    atomic_numbers: UInt8[np.ndarray, " n_all_atoms"]
    positions: Float[np.ndarray, "n_all_atoms 3"]
    edges_per_atom: Int[np.ndarray, " n_all_atoms"]
    """Edges are sorted by query atom, so their number says which atom they belong to."""
    key_atom: Int[np.ndarray, " n_all_edges"]
    """Key atom of each edge, counted within its crystal."""
    edge_image: Int[np.ndarray, "n_all_edges 3"]
    edge_vectors: Float[np.ndarray, "n_all_edges 3"]

    @cached_property
    def first_atom(self) -> Int[np.ndarray, " n_crystals_and_1"]:
        return np.concatenate([[0], np.cumsum(self.n_atoms, dtype=np.int64)])

    @cached_property
    def first_edge(self) -> Int[np.ndarray, " n_crystals_and_1"]:
        return np.concatenate([[0], np.cumsum(self.n_edges, dtype=np.int64)])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, indices: Sequence[int] | np.ndarray) -> CrystalBatch:
        """The batch of these crystals, in this order (float32)."""
        indices = np.asarray(indices)
        n_atoms, n_edges = self.n_atoms[indices].astype(np.int64), self.n_edges[indices].astype(np.int64)
        atoms = [slice(self.first_atom[i], self.first_atom[i + 1]) for i in indices]
        edges = [slice(self.first_edge[i], self.first_edge[i + 1]) for i in indices]

        def joined(array: np.ndarray, parts: list[slice], dtype: type) -> np.ndarray:
            return np.concatenate([array[part] for part in parts], dtype=dtype)

        query = np.repeat(np.arange(n_atoms.sum()), joined(self.edges_per_atom, atoms, np.int64))
        key = joined(self.key_atom, edges, np.int64) + np.repeat(np.cumsum(n_atoms) - n_atoms, n_edges)
        return CrystalBatch(
            atomic_numbers=torch.from_numpy(joined(self.atomic_numbers, atoms, np.int64)),
            positions=torch.from_numpy(joined(self.positions, atoms, np.float32)),
            lattice=torch.from_numpy(self.lattice[indices]),
            crystal_index=torch.from_numpy(np.repeat(np.arange(len(indices)), n_atoms)),
            edge_index=torch.from_numpy(np.stack([query, key])),
            edge_image=torch.from_numpy(joined(self.edge_image, edges, np.int64)),
            edge_vectors=torch.from_numpy(joined(self.edge_vectors, edges, np.float32)),
            targets=torch.from_numpy(self.targets[indices].astype(np.float32)),
            ids=tuple(self.ids[i] for i in indices),
        )

    def fingerprint(self) -> str:
        """A digest of structures and labels: two sets with the same one train the same model."""
        digest = hashlib.sha256(repr(self.ids).encode())
        for array in (self.targets, self.lattice, self.n_atoms, self.atomic_numbers, self.positions):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def prepare(
    crystals: Sequence[Crystal] | CrystalDataset, radius: float, target_names: Sequence[str] = (), part: str = ""
) -> PreparedCrystals:
    """Search the neighbours of every crystal, with a progress bar when that takes more than 2 s.

    Args:
        radius: neighbour radius in Å (`ModelConfig.radius`).
        target_names: labels to carry, in this order; a missing one is NaN.
        part: what these crystals are (`training`, ...), for the progress bar and errors.

    Raises:
        CrystalError: a crystal whose neighbours cannot be listed, with its row and id.
    """
    from tqdm.auto import tqdm

    rows: list[tuple[np.ndarray, ...]] = []
    ids, targets = [], []
    title = f"neighbours, {part} crystals" if part else "neighbours"
    for row in tqdm(range(len(crystals)), desc=title, unit="crystal", delay=2, leave=False):
        crystal = crystals[row]
        try:
            found = neighbor_list(crystal, radius)
        except CrystalError as error:
            where = f"row {row + 1} of the {part} crystals" if part else f"row {row + 1}"
            raise CrystalError(f"{where}: {error}") from error
        ids.append(crystal.id)
        targets.append([crystal.targets.get(name, np.nan) for name in target_names])
        rows.append(
            (
                crystal.lattice[None].astype(np.float32),
                crystal.atomic_numbers.astype(np.uint8),
                crystal.positions.astype(np.float32),
                np.bincount(found.edge_index[0], minlength=len(crystal)).astype(np.int32),
                _smallest_type(found.edge_index[1]),
                _smallest_type(found.edge_image),
                found.edge_vectors.astype(np.float32),
            )
        )
    if not rows:
        raise CrystalError(f"there are no {part} crystals" if part else "there are no crystals")
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return PreparedCrystals(
        tuple(ids),
        np.array(targets, dtype=np.float64).reshape(len(ids), len(target_names)),
        columns[0],
        np.array([len(numbers) for _, numbers, *_ in rows]),
        np.array([len(keys) for *_, keys, _, _ in rows]),
        *columns[1:],
    )


def _smallest_type(values: np.ndarray) -> np.ndarray:
    for dtype in (np.int8, np.int16, np.int32):
        if values.max(initial=0) <= np.iinfo(dtype).max and values.min(initial=0) >= np.iinfo(dtype).min:
            return values.astype(dtype)
    return values


class BatchOrder:
    """Which crystals form which batch of an epoch; a sampler of index arrays for `DataLoader(batch_size=None)`.

    A batch holds at most `batch_size` crystals and `max_atoms` atoms; a cell larger than that has a batch to itself.
    """

    def __init__(
        self,
        n_atoms: Int[np.ndarray, " n_crystals"],
        batch_size: int,
        max_atoms: int | None = None,
        seed: int | None = None,
        drop_last: bool = False,
    ) -> None:
        """Args:
        seed: shuffle anew each epoch; None keeps the order of the data set.
        drop_last: leave out a last batch that is not full, unless it is the only one.
        """
        self.n_atoms, self.batch_size, self.max_atoms = n_atoms, batch_size, max_atoms
        self.seed, self.drop_last = seed, drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    # No __len__: with `max_atoms` the number of batches differs from epoch to epoch, and Lightning reads it only once.
    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.batches(self.epoch))

    def batches(self, epoch: int) -> list[Int[np.ndarray, " batch"]]:
        """The batches of an epoch: a pure function of the seed and the epoch."""
        order = np.arange(len(self.n_atoms))
        if self.seed is not None:
            order = np.random.default_rng((self.seed, epoch)).permutation(order)
        ends, first, atoms = [], 0, 0
        for position, n_atoms in enumerate(self.n_atoms[order].tolist()):
            too_large = self.max_atoms is not None and atoms + n_atoms > self.max_atoms
            if position > first and (position - first == self.batch_size or too_large):
                ends.append(position)
                first, atoms = position, 0
            atoms += n_atoms
        batches = np.split(order, ends)
        is_full = len(batches[-1]) == self.batch_size or (self.max_atoms is not None and atoms >= self.max_atoms)
        return batches[:-1] if self.drop_last and not is_full and len(batches) > 1 else batches


def train_loader(crystals: PreparedCrystals, config: TrainingConfig, pin_memory: bool = False) -> DataLoader:
    """Shuffled batches of `config.batch_size` crystals and `config.max_atoms` atoms at most."""
    order = BatchOrder(crystals.n_atoms, config.batch_size, config.max_atoms, config.seed, config.drop_last)
    return _loader(crystals, order, config.n_workers, pin_memory)


def evaluation_loader(crystals: PreparedCrystals, config: TrainingConfig, pin_memory: bool = False) -> DataLoader:
    """Every crystal once, in order, in batches of the same size as in training."""
    return _loader(crystals, BatchOrder(crystals.n_atoms, config.batch_size, config.max_atoms), 0, pin_memory)


def _loader(crystals: PreparedCrystals, order: BatchOrder, n_workers: int, pin_memory: bool) -> DataLoader:
    from torch.utils.data import DataLoader

    return DataLoader(
        crystals,  # type: ignore[arg-type]
        sampler=order,
        batch_size=None,
        num_workers=n_workers,
        persistent_workers=n_workers > 0,
        pin_memory=pin_memory,
        collate_fn=_already_collated,  # type: ignore[arg-type]
    )


def _already_collated(batch: CrystalBatch) -> CrystalBatch:
    return batch
