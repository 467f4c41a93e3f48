"""Batches made of resident crystals by their numbers are those that the host makes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from crystalframer.config import TrainingConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import BatchOrder, prepare, train_loader
from crystalframer.crystals.on_gpu import ResidentCrystals, RowLoader, largest_sizes
from crystalframer.testing import random_crystal

PREPARED = prepare([random_crystal(n, 1 + n % 5).with_targets({"e": float(n)}) for n in range(11)], 4.0, ["e"])
RESIDENT = ResidentCrystals.of(PREPARED, torch.device("cpu"))
ROWS = [7, 2, 10, 2]


def sizes(rows: list[int]) -> tuple[int, int]:
    return int(PREPARED.n_atoms[rows].sum()), int(PREPARED.n_edges[rows].sum())


def assert_holds(padded: CrystalBatch, exact: CrystalBatch) -> None:
    """The atoms and edges of `exact` come first, bit for bit."""
    n_atoms, n_edges, n_crystals = exact.n_atoms, exact.n_edges, exact.n_crystals
    for name in ("atomic_numbers", "positions", "crystal_index"):
        assert torch.equal(getattr(padded, name)[:n_atoms], getattr(exact, name)), name
    for name in ("edge_image", "edge_vectors"):
        assert torch.equal(getattr(padded, name)[:n_edges], getattr(exact, name)), name
    assert torch.equal(padded.edge_index[:, :n_edges], exact.edge_index)
    by_key, incoming = exact.edge_index[1].sort(stable=True)
    assert padded.incoming is not None and torch.equal(padded.incoming.edges[:n_edges], incoming)
    starts = torch.searchsorted(by_key, torch.arange(n_atoms + 1))
    assert torch.equal(padded.incoming.first[: n_atoms + 1], starts)
    assert (padded.incoming.first[n_atoms:] == n_edges).all()
    assert torch.equal(padded.lattice[:n_crystals], exact.lattice)


def test_a_batch_of_exact_size_is_that_of_the_host() -> None:
    batch = RESIDENT.batch(torch.tensor(ROWS), *sizes(ROWS))
    assert (batch.n_atoms, batch.n_edges) == sizes(ROWS)
    assert_holds(batch, PREPARED[ROWS])


@pytest.mark.parametrize("missing", [0, 2])
def test_what_pads_a_batch_belongs_to_no_crystal(missing: int) -> None:
    rows = [*ROWS, *[-1] * missing]
    n_atoms, n_edges = sizes(ROWS)
    batch = RESIDENT.batch(torch.tensor(rows), n_atoms + 5, n_edges + 9)
    assert_holds(batch, PREPARED[ROWS])
    assert (batch.crystal_index[n_atoms:] == len(rows)).all()
    assert (batch.edge_index[:, n_edges:] == n_atoms + 5).all()
    assert batch.edge_vectors.isfinite().all()


def test_large_cells_and_far_images_are_held_too() -> None:
    far = random_crystal(1, 3)
    far = replace(far, positions=far.positions + 200 * far.lattice[0] * np.arange(3)[:, None])
    prepared = prepare([far, random_crystal(2, 40)], 4.0)
    resident = ResidentCrystals.of(prepared, torch.device("cpu"))
    rows = [1, 0]
    batch = resident.batch(torch.tensor(rows), int(prepared.n_atoms.sum()), int(prepared.n_edges.sum()))
    assert_holds(batch, prepared[rows])


def test_the_loader_gives_the_batches_of_the_other() -> None:
    config = TrainingConfig(batch_size=4, drop_last=False, max_edges=900)
    order = BatchOrder(PREPARED.n_atoms, 4, None, config.seed, False, PREPARED.n_edges, config.max_edges)
    order.set_epoch(2)
    loader = train_loader(PREPARED, config)
    loader.sampler.set_epoch(2)  # type: ignore[attr-defined]
    batches = list(loader)
    by_rows = list(RowLoader(PREPARED, RESIDENT, order, lambda epoch, number: 2**40 * epoch + number))
    assert len(by_rows) == len(batches) > 2
    assert any(batch.n_crystals < 4 for batch in batches)
    for number, (rows, batch) in enumerate(zip(by_rows, batches, strict=True)):
        assert int(rows.seed) == 2**41 + number
        assert len(rows.rows) == 4 and rows.ids == batch.ids and torch.equal(rows.targets, batch.targets)
        assert (rows.n_crystals, rows.n_atoms, rows.n_edges) == (batch.n_crystals, batch.n_atoms, batch.n_edges)
        assert_holds(RESIDENT.batch(rows.rows, rows.n_atoms, rows.n_edges), batch)
    found = largest_sizes(PREPARED, iter(order.batches(2)))
    assert found == (max(b.n_atoms for b in batches), max(b.n_edges for b in batches))
