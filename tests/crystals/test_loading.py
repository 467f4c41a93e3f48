"""Batches: their bounds, their order, and that packing changes nothing."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from refusals import refused

from crystalframer.config import Target, TrainingConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import BatchOrder, evaluation_loader, make_batch, prepare, train_loader
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.errors import CrystalError

RADIUS = 4.0


def crystals(n: int) -> list[Crystal]:
    rng = np.random.default_rng(0)
    made = []
    for index in range(n):
        n_atoms = int(rng.integers(1, 6))
        lattice = 3.0 * np.eye(3) + rng.normal(0, 0.3, (3, 3)) + np.diag([0, 0, 2.0 * n_atoms])
        frac = np.stack([*rng.random((2, n_atoms)), np.arange(n_atoms) / n_atoms], axis=1)
        targets = {"energy": float(rng.normal())} | ({"gap": float(rng.random())} if index % 3 else {})
        # Some cells outside the origin's: images far from 0.
        positions = frac @ lattice + (200.0 * lattice[0] if index == 2 else 0.0)
        made.append(Crystal(rng.integers(1, 99, n_atoms), positions, lattice, f"c{index}", targets))
    return made


def assert_same(one: CrystalBatch, other: CrystalBatch) -> None:
    for field in dataclasses.fields(CrystalBatch):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, torch.Tensor):
            assert left.dtype == right.dtype, field.name
            torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)
        else:
            assert left == right


@pytest.mark.parametrize("rows", [[0], [3, 1], [5, 2, 2, 0, 9]])
def test_packed_batch_is_the_batch_of_its_crystals(rows: list[int]) -> None:
    made = crystals(10)
    packed = prepare(made, RADIUS, ["gap", "energy"])
    assert_same(packed[rows], make_batch([made[row] for row in rows], RADIUS, ["gap", "energy"]))


def test_refused_crystal_is_named_by_row_and_id() -> None:
    made = crystals(3)
    twin = Crystal(np.array([8, 8]), np.array([[0, 0, 0], [0.01, 0, 0]]), 4.0 * np.eye(3), "twin")
    with refused(CrystalError, "crystal 'twin' of the test part", "sites 0 (Z = 8) and 1", row=4, site=0):
        prepare([*made, twin], RADIUS, part="test")


def test_no_crystals_is_an_error() -> None:
    with refused(CrystalError, "no train crystals"):
        prepare([], RADIUS, part="train")


def test_fingerprint_sees_labels_structures_and_ids() -> None:
    made = crystals(3)

    def fingerprint(first: Crystal) -> str:
        return prepare([first, *made[1:]], RADIUS, ["energy"]).fingerprint()

    changed = [
        made[0].with_targets({"energy": 1.0}),
        dataclasses.replace(made[0], lattice=made[0].lattice * 1.001),
        dataclasses.replace(made[0], id="other"),
    ]
    assert fingerprint(made[0]) == fingerprint(made[0])
    assert len({fingerprint(crystal) for crystal in [made[0], *changed]}) == 4


SIZES = np.random.default_rng(1).integers(1, 40, 200)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 500])
@pytest.mark.parametrize("max_atoms", [None, 30, 200])
@pytest.mark.parametrize("max_edges", [None, 100, 3000])
def test_batches_keep_their_bounds_and_hold_every_crystal_once(
    batch_size: int, max_atoms: int | None, max_edges: int | None
) -> None:
    n_edges = np.random.default_rng(2).integers(20, 400, len(SIZES))
    batches = BatchOrder(SIZES, batch_size, max_atoms, seed=3, n_edges=n_edges, max_edges=max_edges).batches(2)

    def fits(rows: list[int]) -> bool:
        of_atoms = max_atoms is None or SIZES[rows].sum() <= max_atoms
        return len(rows) <= batch_size and of_atoms and (max_edges is None or n_edges[rows].sum() <= max_edges)

    assert sorted(np.concatenate(batches)) == list(range(len(SIZES)))
    assert all(fits(batch.tolist()) or len(batch) == 1 for batch in batches)
    for batch, following in itertools.pairwise(batches):  # none closes early
        assert not fits([*batch, following[0]])


def test_a_cell_larger_than_the_bound_has_a_batch_to_itself() -> None:
    batches = BatchOrder(np.array([3, 50, 3, 3]), 8, 10).batches(0)
    assert [batch.tolist() for batch in batches] == [[0], [1], [2, 3]]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(BatchOrder(SIZES, 16, seed=seed).batches(epoch)).tolist()

    assert order(1, 5) == order(1, 5)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    shuffled = BatchOrder(SIZES, 16, seed=1)
    shuffled.set_epoch(5)
    assert np.concatenate(list(shuffled)).tolist() == order(1, 5)
    assert np.concatenate(BatchOrder(SIZES, 16).batches(5)).tolist() == list(range(len(SIZES)))


@pytest.mark.parametrize(
    ("n_atoms", "batch_size", "max_atoms", "expected"),
    [
        ([1] * 10, 4, None, [4, 4]),
        ([1] * 8, 4, None, [4, 4]),
        ([1] * 3, 4, None, [3]),  # the only batch stays
        ([2] * 7, 9, 4, [2, 2, 2]),
        ([2] * 6, 9, 4, [2, 2, 2]),
        ([1, 1, 9], 9, 4, [2, 1]),  # full of one large cell
    ],
)
def test_drop_last(n_atoms: list[int], batch_size: int, max_atoms: int | None, expected: list[int]) -> None:
    batches = BatchOrder(np.array(n_atoms), batch_size, max_atoms, drop_last=True).batches(0)
    assert [len(batch) for batch in batches] == expected


def test_loader_processes_change_nothing() -> None:
    packed = prepare(crystals(12), RADIUS, ["energy"])

    def batches(n_workers: int) -> list[CrystalBatch]:
        loader = train_loader(packed, TrainingConfig(batch_size=4, n_workers=n_workers))
        return [batch for _ in range(2) for batch in loader]

    alone, shared = batches(0), batches(2)
    assert len(alone) == len(shared) == 6
    for one, other in zip(alone, shared, strict=True):
        assert_same(one, other)


def test_a_data_set_is_prepared_like_its_crystals() -> None:
    made = crystals(12)
    names = ["gap", "energy", "unknown"]
    dataset = CrystalDataset.from_crystals(made, [Target("energy"), Target("gap")])
    one, other = prepare(made, RADIUS, names), prepare(dataset, RADIUS, names)
    assert one.fingerprint() == other.fingerprint()
    assert_same(one[range(12)], other[range(12)])


def test_loaders_keep_to_the_bounds_of_the_config() -> None:
    packed = prepare(crystals(30), RADIUS)
    limit = int(packed.n_edges.max()) + 10
    config = TrainingConfig(batch_size=8, max_edges=limit, drop_last=False)
    for loader in (train_loader(packed, config), evaluation_loader(packed, config)):
        batches = list(loader)
        assert sum(batch.n_crystals for batch in batches) == 30
        assert max(batch.n_edges for batch in batches) <= limit
        assert len(batches) > 4
