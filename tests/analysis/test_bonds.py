"""The bond rule: coordination of textbook crystals, and what a shell may not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from textbook_crystals import TEXTBOOK, Textbook

from crystalframer.analysis import Bonds, find_bonds
from crystalframer.crystals.crystal import Crystal
from crystalframer.testing import random_rotation, rewrapped, rotated, supercell

NAMES = {crystal.name: crystal for crystal in TEXTBOOK}
BY_NAME = pytest.mark.parametrize("name", NAMES)
SMALL = pytest.mark.parametrize("name", [name for name in NAMES if name != "MOF-5"])


def bonds_of(crystal: Crystal) -> Bonds:
    return find_bonds(crystal.atomic_numbers, crystal.positions, crystal.lattice)


def lengths(crystal: Crystal, site: int) -> list[float]:
    key, image = bonds_of(crystal).shell(site)
    vectors = crystal.positions[key] + image @ crystal.lattice - crystal.positions[site]
    return sorted(np.linalg.norm(vectors, axis=1).tolist())


@BY_NAME
def test_coordination_is_that_of_the_textbook(name: str) -> None:
    known: Textbook = NAMES[name]
    bonds = bonds_of(known.crystal)
    found = [len(bonds.shell(site)[0]) for site in known.first_sites]
    assert [n for n, expected in zip(found, known.coordination, strict=True) if expected is not None] == [
        expected for expected in known.coordination if expected is not None
    ]


def test_there_are_thirty_crystals_and_more() -> None:
    assert len(NAMES) == len(TEXTBOOK) >= 30
    assert all(known.source for known in TEXTBOOK)


@SMALL
def test_bonds_do_not_depend_on_cell_place_or_orientation(name: str) -> None:
    crystal = NAMES[name].crystal
    expected = [lengths(crystal, site) for site in range(len(crystal))]
    changed = rotated(rewrapped(crystal, 3), random_rotation(4))
    assert [len(bonds_of(changed).shell(site)[0]) for site in range(len(crystal))] == [len(d) for d in expected]
    doubled = supercell(crystal, (1, 1, 2))
    bonds = bonds_of(doubled)
    counts = np.bincount(bonds.site, minlength=len(doubled))
    assert sorted(counts.tolist()) == sorted(2 * [len(d) for d in expected])


@SMALL
def test_bonds_are_named_from_both_ends_but_for_spacers(name: str) -> None:
    bonds = bonds_of(NAMES[name].crystal)
    there = {(int(i), int(j), *map(int, n)) for i, j, n in zip(bonds.site, bonds.key, bonds.image, strict=True)}
    back = {(j, i, *(-k for k in n)) for i, j, *n in there if not bonds.is_spacer[i]}
    assert back <= there
    assert len(there) == len(bonds.site)


def test_long_and_short_bonds_of_one_octahedron() -> None:
    titanium = lengths(NAMES["PbTiO3"].crystal, 1)
    assert titanium[0] < 1.78 and titanium[-1] > 2.37


def test_spacers_are_the_large_cations_beside_a_framework() -> None:
    spacers = {
        name: {known.structure[int(site)].specie.symbol for site in np.flatnonzero(bonds_of(known.crystal).is_spacer)}
        for name, known in NAMES.items()
        if name != "MOF-5"
    }
    assert {name: found for name, found in spacers.items() if found} == {
        "perovskite SrTiO3": {"Sr"},
        "tetragonal BaTiO3": {"Ba"},
        "PbTiO3": {"Pb"},
        "garnet Y3Al5O12": {"Y"},
    }


def test_only_crystals_without_non_metals_are_metallic() -> None:
    assert bonds_of(NAMES["copper"].crystal).is_metallic
    assert not bonds_of(NAMES["NiAs"].crystal).is_metallic


def test_an_atom_far_from_all_others_has_no_bond() -> None:
    bonds = find_bonds(np.array([18]), np.zeros((1, 3)), 8 * np.eye(3))
    assert len(bonds.site) == 0 and bonds.shell(0)[1].shape == (0, 3)


def test_an_anion_that_no_centre_counts_has_its_nearest_cations() -> None:
    """One oxygen at 1.95 Å from titanium, the other at 2.9 Å."""
    positions = np.array([[5, 5, 5], [6.95, 5, 5], [5, 7.9, 5]], dtype=float)
    bonds = find_bonds(np.array([22, 8, 8]), positions, 20 * np.eye(3))
    assert [bonds.shell(site)[0].tolist() for site in range(3)] == [[1, 2], [0], [0]]
    assert bonds.ligands(0)[0].tolist() == [1]
