"""Paths pass the places that they are named after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crystalframer.analysis.paths import (
    LENGTH,
    Path,
    displacement,
    strain,
    through_reach,
    through_right_angle,
    through_tie,
)
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.neighbors import neighbor_list
from crystalframer.testing import prototypes, random_crystal

CRYSTALS = [random_crystal(seed, n_atoms=4) for seed in range(4)]
ALIKE = [replace(crystal, atomic_numbers=np.full(4, 14)) for crystal in CRYSTALS]
CSCL = next(crystal for crystal in prototypes() if crystal.id == "CsCl")


def edges(crystal: Crystal) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lengths, and vectors, of the neighbours of each atom."""
    found = neighbor_list(crystal, 8.0)
    vectors = [found.edge_vectors[found.edge_index[0] == atom][1:] for atom in range(len(crystal))]
    return [(np.linalg.norm(part, axis=1), part) for part in vectors]


def nearest_to_reach(crystal: Crystal) -> float:
    return min(np.abs(lengths - 5.0).min() for lengths, _ in edges(crystal))


def nearest_to_right_angle(crystal: Crystal) -> float:
    units = [(vectors / lengths[:, None])[:12] for lengths, vectors in edges(crystal)]
    return min(np.abs(part @ part.T).min() for part in units)


def nearest_to_tie(crystal: Crystal) -> float:
    """Of the neighbours that are no pair r, -r."""
    return min(np.abs(np.subtract.outer(n, n) + np.eye(len(n)) + 2 * _opposite(v)).min() for n, v in edges(crystal))


def _opposite(vectors: np.ndarray) -> np.ndarray:
    return (np.linalg.norm(vectors[:, None] + vectors, axis=2) < 1e-6).astype(float)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("make", "distance", "crystals"),
    [
        (lambda crystal, seed: through_reach(crystal, 5.0, atom=seed), nearest_to_reach, CRYSTALS),
        (through_right_angle, nearest_to_right_angle, CRYSTALS),
        (through_tie, nearest_to_tie, ALIKE),
    ],
)
def test_the_place_is_in_the_middle(make, distance, crystals: list[Crystal], seed: int) -> None:
    path = make(crystals[seed], seed)
    assert isinstance(path, Path) and path.is_possible
    middle = min(distance(path.at(LENGTH / 2 + shift)) for shift in np.linspace(-0.02, 0.02, 41))
    assert middle < 2e-3
    assert len(np.flatnonzero(np.abs(path.moves).any(axis=1))) == 1  # one atom moves


def test_a_symmetric_crystal_is_itself_in_the_middle_of_a_tie() -> None:
    path = through_tie(CSCL, seed=0)
    assert path is not None
    np.testing.assert_allclose(path.at(LENGTH / 2).positions, CSCL.positions, atol=1e-9)


def test_atoms_and_cells_move_as_far_as_is_said() -> None:
    crystal = CRYSTALS[0]
    moved = displacement(crystal, seed=1).at(LENGTH)
    np.testing.assert_allclose(np.linalg.norm(moved.positions - crystal.positions, axis=1), LENGTH)
    strained = strain(crystal, seed=1).at(0.3).lattice @ np.linalg.inv(crystal.lattice) - np.eye(3)
    relative = np.linalg.inv(crystal.lattice) @ strain(crystal, seed=1).at(0.3).lattice - np.eye(3)
    assert np.linalg.norm(strained) > 0 and np.linalg.norm(relative) == pytest.approx(0.1)
    np.testing.assert_allclose(strain(crystal, seed=1).at(0.3).frac_coords, crystal.frac_coords, atol=1e-12)


def test_what_is_not_there_is_no_path() -> None:
    lone = Crystal(np.array([18]), np.zeros((1, 3)), 6.0 * np.eye(3))
    assert through_reach(lone, 5.0) is through_right_angle(lone, 0) is through_tie(lone, 0) is None
    hydrogen = Crystal(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.74]]), 5.0 * np.eye(3))
    assert not Path(hydrogen, "displacement", np.array([[0, 0, 1.0], [0, 0, -1.0]]), np.zeros((3, 3))).is_possible
