"""What is unlike all training crystals is told in words, and nothing else is."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import salts
from refusals import refused

from crystalframer.config import from_json, to_json
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.crystals.loading import make_batch, prepare
from crystalframer.domain import Domain, ElementDomain, Limits, _limits, vacuum
from crystalframer.elements import SYMBOLS
from crystalframer.errors import ConfigError
from crystalframer.reading.objects import to_crystal
from crystalframer.testing import random_rotation, rotated, supercell

RADIUS = 6.0


def rock_salt(cation: str, anion: str, length: float) -> Crystal:
    return to_crystal(salts.rock_salt(cation, anion, length), f"{cation}{anion}")


LENGTHS = {
    ("Li", "F"): 4.03, ("Li", "Cl"): 5.13, ("Li", "Br"): 5.50, ("Na", "F"): 4.62, ("Na", "Cl"): 5.64,
    ("Na", "Br"): 5.97, ("K", "F"): 5.35, ("K", "Cl"): 6.29, ("K", "Br"): 6.60,
}  # fmt: skip
"""Å; rock salts as they are."""


def strained(crystal: Crystal, factor: float) -> Crystal:
    return replace(crystal, positions=factor * crystal.positions, lattice=factor * crystal.lattice)


@pytest.fixture(scope="module")
def domain() -> Domain:
    """360 alkali halides, each within 2 % of its length, and a single crystal with helium."""
    rng = np.random.default_rng(0)
    crystals = [
        replace(rock_salt(*pair, length * (1.0 + 0.02 * rng.uniform(-1, 1))), id=f"{''.join(pair)}-{n}")
        for pair, length in LENGTHS.items()
        for n in range(40)
    ]
    helium = Crystal(np.array([2]), np.zeros((1, 3)), 2.2 * np.eye(3), "He")
    return Domain.of(prepare([*crystals, helium], RADIUS))


def test_it_says_what_was_trained_on(domain: Domain) -> None:
    assert domain.n_crystals == 361 and domain.n_atoms == (1, 2, 2)
    counts = {element.symbol: element.n_crystals for element in domain.elements}
    assert counts == {"He": 1, "Li": 120, "F": 120, "Na": 120, "Cl": 120, "K": 120, "Br": 120}
    assert domain.volume.low < 1.0 < domain.volume.high


def test_atomic_volumes_add_up_to_those_of_the_crystals(domain: Domain) -> None:
    volume = {element.symbol: element.volume for element in domain.elements}
    for (cation, anion), length in LENGTHS.items():
        assert volume[cation] + volume[anion] == pytest.approx(0.25 * length**3, rel=0.1)


def test_crystals_like_those_of_training_are_inside(domain: Domain) -> None:
    for pair, length in LENGTHS.items():
        assert domain.outside_of(rock_salt(*pair, length)) is None


def test_an_unseen_element(domain: Domain) -> None:
    assert domain.outside_of(rock_salt("Rb", "Cl", 6.58)) == "element Rb was not in the training data"
    both = "element Rb was not in the training data; element I was not in the training data"
    assert domain.outside_of(rock_salt("Rb", "I", 7.34)) == both


def test_an_element_of_one_training_crystal(domain: Domain) -> None:
    helium = Crystal(np.array([2]), np.zeros((1, 3)), 2.2 * np.eye(3))
    assert domain.outside_of(helium) == "element He was in only 1 training crystal"


@pytest.mark.parametrize(("factor", "volume"), [(0.85, "small"), (1.3, "large")])
def test_a_strained_cell(domain: Domain, factor: float, volume: str) -> None:
    said = domain.outside_of(strained(rock_salt("Na", "Cl", 5.64), factor))
    assert said is not None
    stated = re.match(rf"volume per atom {factor**3 * 5.64**3 / 8:.3g} Å³ is {volume}: ([0-9.]+) times what", said)
    assert stated is not None and float(stated[1]) == pytest.approx(factor**3, rel=0.05)
    # Na 1.66 Å, Cl 1.02 Å
    nearest = 0.5 * factor * 5.64
    assert f"Na has its nearest neighbour Cl at {nearest:.3g} Å, {nearest / 2.68:.3g} of the sum" in said


def test_one_atom_out_of_place_in_a_large_cell(domain: Domain) -> None:
    """The volume is as it should be."""
    crystal = supercell(rock_salt("Na", "Cl", 5.64), (3, 3, 3))
    assert domain.outside_of(crystal) is None
    positions = crystal.positions.copy()
    positions[1] += np.array([1.3, 0.0, 0.0])
    said = domain.outside_of(replace(crystal, positions=positions))
    assert said is not None and "volume" not in said
    assert "Cl has its nearest neighbour Na at 1.52 Å, 0.567 of the sum" in said


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.3])
def test_the_answer_depends_on_neither_cell_nor_orientation(domain: Domain, factor: float) -> None:
    crystal = strained(rock_salt("K", "Br", 6.60), factor)
    said = domain.outside_of(crystal)
    assert (said is None) == (factor == 1.0)
    assert domain.outside_of(rotated(crystal, random_rotation(seed=1))) == said
    assert domain.outside_of(supercell(crystal, (2, 1, 3))) == said


def test_each_crystal_of_a_batch_gets_its_own_answer(domain: Domain) -> None:
    good, bad = rock_salt("Na", "Cl", 5.64), rock_salt("Rb", "Cl", 6.58)
    crystals = [bad, good, strained(good, 0.8), good]
    answers = domain.outside(make_batch(crystals, RADIUS))
    assert answers == [domain.outside_of(crystal) for crystal in crystals]
    assert [answer is None for answer in answers] == [False, True, False, True]


def test_an_isolated_atom_among_few_training_crystals_has_no_distance() -> None:
    """As in mp-1207355, U2As3 with an atom of As far from all others."""
    alone = Crystal(np.array([33]), np.zeros((1, 3)), 12.0 * np.eye(3))
    crystals = [rock_salt("Na", "Cl", 5.64), alone]
    domain = Domain.of(prepare(crystals, 5.0, enlarge=False))
    assert domain.nearest == Domain.of(prepare(crystals[:1], 5.0, enlarge=False)).nearest
    assert Domain.of(prepare([alone], 5.0, enlarge=False)).nearest == Limits(0.0, 0.0)


def test_a_gas_of_atoms_is_outside(domain: Domain) -> None:
    """No neighbour lies within the radius: a larger one is taken."""
    said = domain.outside_of(rock_salt("Na", "Cl", 30.0))
    assert said is not None and "large" in said and "Na has its nearest neighbour Cl at 15 Å" in said


def test_json_there_and_back(domain: Domain) -> None:
    assert from_json(Domain, to_json(domain)) == domain


@pytest.fixture(scope="module")
def counted() -> Domain:
    """Each cation in another number of crystals: around the numbers that count as few and as enough."""
    counts = {"Na": 99, "K": 100, "Rb": 4, "Li": 5}
    crystals = [
        replace(rock_salt(cation, "F", FLUORIDES[cation] * (1 + 1e-4 * n)), id=f"{cation}{n}")
        for cation, count in counts.items()
        for n in range(count)
    ]
    return Domain.of(prepare(crystals, RADIUS))


FLUORIDES = {"Li": 4.03, "Na": 4.62, "K": 5.35, "Rb": 5.64}


def test_an_element_of_four_crystals_is_strange_and_of_five_is_not(counted: Domain) -> None:
    assert counted.outside_of(rock_salt("Rb", "F", 5.64)) == "element Rb was in only 4 training crystals"
    assert counted.outside_of(rock_salt("Li", "F", 4.03)) is None


def test_an_element_of_a_hundred_crystals_has_limits_of_its_own(counted: Domain) -> None:
    own = {element.symbol: element.nearest != counted.nearest for element in counted.elements}
    assert own == {"Li": False, "F": True, "Na": False, "K": True, "Rb": False}


def test_a_thousandth_at_each_end_is_beyond_the_limits() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1001.0))
    assert _limits(values, values) == Limits(1.0, 999.0)
    assert _limits(values + 0.00004, values + 0.00004) == Limits(1.0, 999.0001)  # rounded outwards


@pytest.mark.parametrize(
    ("part", "changes"),
    [(Limits(0.5, 1.0), {"low": -0.1}), (Limits(0.5, 1.0), {"low": 1.1}), (Limits(0.5, 1.0), {"high": math.nan}),
     (Limits(0.5, 1.0), {"high": math.inf}), (ElementDomain("Na", 3, 20.0, Limits(0.5, 1.0)), {"volume": -1.0}),
     (ElementDomain("Na", 3, 20.0, Limits(0.5, 1.0)), {"volume": math.nan}),
     (ElementDomain("Na", 3, 20.0, Limits(0.5, 1.0)), {"n_crystals": 0}),
     (ElementDomain("Na", 3, 20.0, Limits(0.5, 1.0)), {"symbol": "Xx"})],
)  # fmt: skip
def test_values_that_no_crystals_have_are_refused(part: Limits | ElementDomain, changes: dict[str, Any]) -> None:
    with refused(ConfigError):
        replace(part, **changes)


def test_a_value_just_outside_is_written_with_enough_digits() -> None:
    assert Limits(0.689, 1.1578).beside(1.1591) == ("1.159", "0.689 to 1.158")
    assert Limits(0.68912, 1.2).beside(0.68904) == ("0.689", "0.6891 to 1.2")
    assert Limits(0.5, 1.0).beside(2500.4) == ("2,500", "0.5 to 1")
    assert Limits(0.5, 1.0).beside(25.04)[0] == "25"


def test_an_element_twice_or_more_crystals_than_there_are(domain: Domain) -> None:
    with refused(ConfigError, field="elements"):
        replace(domain, elements=domain.elements * 2)
    for changes in ({"n_crystals": 100}, {"n_crystals": -1}, {"n_atoms": (0, 1, 2)}, {"n_atoms": (3, 2, 4)}):
        with refused(ConfigError, field=next(iter(changes))):
            replace(domain, **changes)


def test_radii_are_those_of_a_chemistry_library() -> None:
    """Cordero's, but for the elements of which he gives several."""
    from pymatgen.analysis.molecule_structure_comparator import CovalentRadius

    from crystalframer.elements import COVALENT_RADII

    theirs = CovalentRadius.radius
    chosen_otherwise = {"C", "Mn", "Fe", "Co"}
    for z, symbol in enumerate(SYMBOLS[:96], start=1):
        if symbol not in chosen_otherwise:
            assert COVALENT_RADII[z] == theirs[symbol], symbol


def layer(gap: float, n_vacuum: int) -> Crystal:
    """Four layers of rock salt, as a slab, a wire or a cluster: vacuum along so many axes (Å)."""
    block = supercell(rock_salt("Na", "Cl", 5.64), (2, 2, 2))
    lengths = np.linalg.norm(block.lattice, axis=1)
    lattice = block.lattice.copy()
    for axis in range(n_vacuum):
        lattice[axis] *= 1.0 + gap / lengths[axis]
    return replace(block, lattice=lattice)


@pytest.mark.parametrize(("n_vacuum", "word"), [(0, None), (1, "layers"), (2, "chains"), (3, "molecules")])
def test_vacuum_around_a_part_of_the_crystal_is_found(n_vacuum: int, word: str | None) -> None:
    crystal = layer(12.0, n_vacuum)
    turned = rotated(crystal, random_rotation(0))
    other_cell = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    skewed = supercell(replace(crystal, lattice=other_cell @ crystal.lattice), (1, 1, 2))
    near = layer(1.0, n_vacuum)
    found = vacuum(make_batch([crystal, turned, skewed, near], RADIUS))
    assert found[3] is None
    for said in found[:3]:
        assert said is None if word is None else word in str(said) and "6 Å" in str(said)


def test_vacuum_in_a_large_cell_is_found_in_chunks() -> None:
    for n_vacuum, word in ((0, None), (1, "layers"), (3, "molecules")):
        prepared = prepare([layer(12.0, n_vacuum)], RADIUS)
        (whole,) = vacuum(prepared.batch([0]))
        (chunked,) = vacuum(ChunkedCrystal(prepared, 0, 500))
        assert whole == chunked and (whole is None if word is None else word in str(whole))


def test_an_atom_alone_is_vacuum_too() -> None:
    atom = Crystal(np.array([18]), np.zeros((1, 3)), 12.0 * np.eye(3), "Ar")
    two = Crystal(np.array([7, 7]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]]), np.diag([12.0, 12.0, 4.0]), "N2")
    assert [
        "molecules" in str(vacuum(make_batch([atom], RADIUS))[0]),
        "chains" in str(vacuum(make_batch([two], RADIUS))[0]),
    ] == [True, True]
