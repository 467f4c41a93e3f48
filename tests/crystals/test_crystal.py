"""What a crystal accepts and refuses, and how crystals join into a batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from refusals import refused

from crystalframer.crystals.crystal import Crystal, cell_heights, closest_pair
from crystalframer.crystals.loading import make_batch
from crystalframer.crystals.neighbors import neighbor_list
from crystalframer.errors import CrystalError
from crystalframer.testing import random_crystal

CUBE = np.eye(3) * 4.0
ORIGIN = np.zeros((1, 3))


@pytest.mark.parametrize("look", [Crystal.wrapped, lambda crystal: neighbor_list(crystal, 4.0)])
@pytest.mark.parametrize("direction", [(0.0, 0.6, -0.8), (-1.0, 0.0, 0.0), (0.6, 0.8, 0.0)])
def test_atoms_less_than_half_an_angstrom_apart_are_an_error(look: Callable, direction: tuple) -> None:
    for length, expected in ((0.45, refused(CrystalError, "0.45 Å", site=0)), (0.55, nullcontext())):
        positions = np.array([[0.2, 3.9, 0.2], np.array([0.2, 3.9, 0.2]) + length * np.array(direction)])
        with expected:
            look(Crystal(np.array([1, 8]), positions, CUBE))


@pytest.mark.parametrize("few", [0, 500])
@pytest.mark.parametrize("seed", range(20))
def test_the_closest_pair_is_the_first_of_all_pairs(seed: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crystalframer.crystals.crystal.FEW_ATOMS", few)
    monkeypatch.setattr("crystalframer.crystals.crystal._PAIRS_AT_ONCE", 100)
    generator = np.random.default_rng(seed)
    frac, lattice = generator.random((30, 3)), random_crystal(seed, 20).lattice
    limit = generator.uniform(0.2, 1.2)
    steps = frac - frac[:, None]
    lengths = np.linalg.norm((steps - np.round(steps)) @ lattice, axis=2)
    pairs = np.argwhere(np.triu(lengths < limit, k=1))
    found = closest_pair(frac, lattice, limit)
    assert (None if found is None else found[:2]) == (tuple(pairs[0]) if len(pairs) else None)
    assert found is None or np.isclose(found[2], lengths[found[:2]])


@pytest.mark.usefixtures("as_in_production")
@pytest.mark.parametrize(
    ("numbers", "positions", "lattice", "site", "words"),
    [
        ([], np.zeros((0, 3)), CUBE, None, ["no atoms"]),
        ([1, 1], ORIGIN, CUBE, None, ["(2,)", "(1, 3)"]),
        ([99], ORIGIN, CUBE, 0, [99, "1 (H) to 98 (Cf)"]),
        ([0], ORIGIN, CUBE, 0, ["atomic number 0"]),
        ([1], np.array([[0.0, np.nan, 0.0]]), CUBE, 0, ["nan"]),
        ([1], ORIGIN, np.diag([4.0, 4.0, np.inf]), None, ["3 × 3 finite numbers"]),
        ([1], ORIGIN, np.array([[4.0, 0, 0], [0, 4.0, 0], [4.0, 4.0, 0]]), None, ["coplanar"]),
        ([1], ORIGIN, np.zeros((3, 3)), None, ["coplanar"]),
        ([1], ORIGIN, np.diag([4.0, 4.0, 1e200]), None, ["3 × 3 finite numbers", "100,000"]),
        ([1], np.array([[0.0, -1e9, 0.0]]), CUBE, 0, ["1,000,000 Å"]),
        ([1] * 400, np.zeros((400, 3)), CUBE, None, ["400 atoms in 64 Å³", "6.25"]),
    ],
)
def test_refusals_name_the_crystal_and_the_site(
    numbers: list[int], positions: np.ndarray, lattice: np.ndarray, site: int | None, words: list
) -> None:
    with refused(CrystalError, "crystal 'x'", *words, site=site):
        Crystal(np.array(numbers, dtype=int), positions, lattice, id="x")


def test_left_handed_lattices_are_fine() -> None:
    assert len(Crystal(np.array([1]), ORIGIN, CUBE[[1, 0, 2]])) == 1


def test_fractional_coordinates() -> None:
    crystal = Crystal(np.array([1]), np.array([[1.0, 2.0, -4.0]]), CUBE)
    np.testing.assert_allclose(crystal.frac_coords, [[0.25, 0.5, -1.0]])


def test_a_crystal_with_another_id_is_the_same_otherwise() -> None:
    crystal = random_crystal(0, 2).with_targets({"gap": 1.5})
    other = crystal.called("salt")
    assert (other.id, other.targets) == ("salt", {"gap": 1.5}) and crystal.id == "random-0"
    assert other.positions is crystal.positions and other.lattice is crystal.lattice


def test_cell_heights_of_a_sheared_cell() -> None:
    np.testing.assert_allclose(
        cell_heights(np.array([[2.0, 0, 0], [2.0, 3.0, 0], [0, 0, 5.0]])), [12**0.5 * 0 + 6 / 13**0.5, 3.0, 5.0]
    )


def test_batch_joins_crystals_and_counts_on() -> None:
    crystals = [random_crystal(0, 2).with_targets({"gap": 1.5}), random_crystal(1, 3)]
    batch = make_batch(crystals, 5.0, ["gap", "energy"], torch.float64)
    assert (batch.n_crystals, batch.n_atoms) == (2, 5)
    assert batch.crystal_index.tolist() == [0, 0, 1, 1, 1]
    assert batch.ids == ("random-0", "random-1")
    assert batch.targets[0, 0] == 1.5 and batch.targets.isnan().sum() == 3
    of_second = batch.edge_index[0] >= 2
    assert (batch.edge_index[1][of_second] >= 2).all()
    torch.testing.assert_close(batch.edge_lengths, batch.edge_vectors.norm(dim=1))


def test_batch_changes_type_of_floats_only() -> None:
    batch = make_batch([random_crystal(0, 2)], 4.0).to(dtype=torch.float64)
    assert batch.positions.dtype == batch.edge_vectors.dtype == batch.targets.dtype == torch.float64
    assert (batch.edge_index.dtype, batch.edge_image.dtype) == (torch.int64, torch.int32)
