from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets import duplicates
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.testing import prototypes, random_crystal


def groups(*crystals: Crystal) -> list[int]:
    """Group of each crystal, numbered by first appearance."""
    named = [replace(crystal, id=str(row)) for row, crystal in enumerate(crystals)]
    found = CrystalDataset.from_crystals(named).duplicates.tolist()
    return [list(dict.fromkeys(found)).index(group) for group in found]


def rewritten(crystal: Crystal, seed: int) -> Crystal:
    """The same crystal, twice as large a cell, skewed, turned, shifted, with its atoms in another order."""
    generator = np.random.default_rng(seed)
    double = np.concatenate([crystal.positions, crystal.positions + crystal.lattice[0]])
    numbers = np.concatenate([crystal.atomic_numbers] * 2)
    lattice = np.array([[2, 0, 0], [1, 1, 0], [0, -1, 1]]) @ crystal.lattice
    order, turn = generator.permutation(len(numbers)), Rotation.random(rng=generator).as_matrix()
    return Crystal(numbers[order], (double[order] + generator.random(3)) @ turn, lattice @ turn)


def hexagonal(layers: str) -> Crystal:
    """Close-packed layers of cobalt, named as in textbooks."""
    a, height = 2.5, 2.5 * np.sqrt(2 / 3)
    lattice = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, len(layers) * height]])
    shift = {"A": 0.0, "B": 1 / 3, "C": 2 / 3}
    sites = [[shift[name], 2 * shift[name], level / len(layers)] for level, name in enumerate(layers)]
    return Crystal(np.full(len(layers), 27), np.array(sites) @ lattice, lattice)


def test_prototypes_differ_and_are_known_again() -> None:
    crystals = prototypes()
    n = len(crystals)
    assert groups(*crystals, *map(rewritten, crystals, range(n))) == [*range(n), *range(n)]


def test_cell_orientation_mirror_and_order_make_no_difference() -> None:
    crystal = random_crystal(0, n_atoms=6)
    mirrored = replace(crystal, positions=-crystal.positions, lattice=-crystal.lattice)
    nudged = replace(crystal, positions=crystal.positions + np.random.default_rng(0).normal(size=(6, 3)) * 1e-5)
    assert groups(crystal, rewritten(crystal, 1), mirrored, nudged, random_crystal(1, n_atoms=6)) == [0, 0, 0, 0, 1]


def test_small_differences_are_differences() -> None:
    salt = next(crystal for crystal in prototypes() if len(crystal) == 2 and len(set(crystal.atomic_numbers)) == 2)
    displaced = replace(salt, positions=salt.positions + np.array([[0.02, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    expanded = replace(salt, positions=salt.positions * 1.002, lattice=salt.lattice * 1.002)
    assert groups(salt, displaced, expanded) == [0, 1, 2]

    # Atoms without neighbours, of which the volumes alone tell; between them, a crystal that is another one.
    boxes = [Crystal(np.array([18]), np.zeros((1, 3)), size * np.eye(3)) for size in (12.0, 12.006, 12.03)]
    molecule = Crystal(np.array([18, 18]), 3.0 * np.eye(2, 3), 12.003 * 2 ** (1 / 3) * np.eye(3))
    assert groups(boxes[0], molecule, *boxes[1:]) == [0, 1, 2, 3]

    ordered = random_crystal(2, n_atoms=4)
    ordered = replace(ordered, atomic_numbers=np.array([26, 26, 28, 28]))
    exchanged = replace(ordered, atomic_numbers=np.array([26, 28, 26, 28]))
    assert groups(ordered, exchanged) == [0, 1]


def test_polytypes_differ_in_distant_layers_only() -> None:
    same = "ABC", "ABCABC", "BCA"
    assert groups(*map(hexagonal, (*same, "AB", "ABAC", "ABCACB"))) == [0, 0, 0, 1, 2, 3]
    # Up to 6 Å, the same surroundings; the order of the layers tells them apart.
    assert groups(*map(hexagonal, ("ABABCABABC", "ABABCABCBC"))) == [0, 1]


def test_crystals_that_cannot_be_compared_stay_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    crystal = random_crystal(3, n_atoms=2)
    clash = replace(crystal, positions=np.zeros((2, 3)))
    for atoms_per_task in (1, 4000):
        monkeypatch.setattr(duplicates, "_ATOMS_PER_TASK", atoms_per_task)
        assert groups(clash, crystal, clash, crystal, rewritten(crystal, 0)) == [0, 1, 2, 1, 1]
    assert groups(clash, clash) == [0, 1]
    assert groups() == []
    assert groups(crystal) == [0]
