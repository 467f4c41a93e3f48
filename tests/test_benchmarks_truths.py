"""The truths of the benchmark of explanations are true: bonds, sites, and shares of the Ewald energy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import crystalframer as cf
from benchmarks import explaining, truths
from crystalframer.datasets.symmetry import symmetry_of
from crystalframer.testing import prototypes

SALT = prototypes()[4]


def test_bonds_are_counted_once_and_marked_in_both_directions() -> None:
    rutile = {crystal.id: crystal for crystal in prototypes()}["rutile TiO2"]
    found = cf.explain(rutile)
    label, is_true = truths.bonds(rutile.atomic_numbers, found.edge_index, found.edge_lengths)
    titanium = found.edge_index[0] < 2
    assert is_true[titanium].sum() == is_true[~titanium].sum()
    counts = 1.0 / (1.0 + np.exp((found.edge_lengths - truths.REACH) / truths.WIDTH))  # near the end in part
    of_oxygen = titanium & (found.edge_index[1] >= 2)
    assert label * 6 == pytest.approx(counts[of_oxygen].sum()) and is_true[of_oxygen].sum() == 20
    assert not is_true[found.is_self].any() and found.edge_lengths[is_true].max() < truths.REACH


def test_the_share_among_the_first() -> None:
    is_true = np.array([True, False, True, False])
    assert truths.precision(np.array([3.0, 1.0, 2.0, 0.0]), is_true) == 1.0
    assert truths.precision(np.array([3.0, 9.0, 2.0, 0.0]), is_true) == 0.5


def test_the_energy_of_rock_salt_is_that_of_madelung() -> None:
    labelled, shares = truths.charged(SALT)
    distance = SALT.lattice[0, 0] / 2
    madelung = -1.747565 * 14.399645 / distance / 2  # eV for each atom
    assert labelled.targets["ewald"] == pytest.approx(madelung, rel=1e-4)
    np.testing.assert_allclose(shares, madelung / len(SALT), rtol=1e-4)


def test_salts_are_neutral_and_structures_have_a_bond_to_find() -> None:
    for crystal in truths.salts(5, seed=1):
        assert sum(truths.CHARGES[number] for number in crystal.atomic_numbers.tolist()) == 0
    for crystal in truths.drawn(5, seed=1):
        assert {truths.TITANIUM, truths.OXYGEN} <= set(crystal.atomic_numbers.tolist())


def test_a_crystal_that_nearly_obeys_its_symmetry_obeys_it_exactly() -> None:
    """Lattice and positions are averaged over the operations; the volume stays nearly as it was."""
    rng = np.random.default_rng(0)
    shear = np.eye(3) + 2e-4 * rng.normal(size=(3, 3))
    nearly = replace(
        SALT,
        lattice=SALT.lattice @ shear,
        positions=SALT.positions @ shear + 2e-4 * rng.normal(size=SALT.positions.shape),
    )
    exact = explaining.symmetric(nearly)
    before, after = (symmetry_of(each.lattice, each.positions, each.atomic_numbers, 1e-6) for each in (nearly, exact))
    assert before.number < after.number == 225
    assert abs(np.linalg.det(exact.lattice)) == pytest.approx(abs(np.linalg.det(nearly.lattice)), rel=1e-4)
