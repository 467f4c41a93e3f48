"""Splits that leave out kinds of crystals: nothing of a kind is in two parts, and the draw is repeatable."""

from __future__ import annotations

import dataclasses
from typing import get_args

import gemmi
import numpy as np
import pytest
from refusals import refused

from crystalframer.config import DataConfig, SplitKind, Target, from_tree
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets import symmetry
from crystalframer.datasets.dataset import PARTS, CrystalDataset, Splits
from crystalframer.datasets.sources import dataset
from crystalframer.elements import ATOMIC_NUMBERS
from crystalframer.errors import ConfigError, DataError
from crystalframer.testing import prototypes, random_crystal, random_rotation, rotated, supercell

DEMO = dataset("demo")
DRAWN = [kind for kind in get_args(SplitKind) if kind != "given"]
KEY = {"group": "formulas", "chemical-system": "chemical_systems", "prototype": "prototypes"} | {
    "space-group": "space_groups"
}


def ids(splits: Splits) -> dict[str, set[str]]:
    return {name: set(getattr(splits, name).ids) for name in PARTS}


def drawn(kind: str, data: CrystalDataset = DEMO, seed: int = 0, **settings) -> Splits:
    settings = {"test_fraction": 0.2, "validation_fraction": 0.1} | settings
    return data.split(DataConfig(split=kind, **settings), seed)  # type: ignore[arg-type]


def quartz(hand: int) -> Crystal:
    """Low quartz, P3₁21 or (its mirror image) P3₂21."""
    a, c, u, (x, y, z) = 4.91, 5.40, 0.47, (0.414, 0.268, 0.119)
    lattice = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]])
    silicon = [[u, 0, 1 / 3], [0, u, 2 / 3], [-u, -u, 0]]
    x_y = [(x, y, z), (-y, x - y, z + 1 / 3), (y - x, -x, z + 2 / 3)]
    oxygen = [*x_y, *((q, p, -r) for p, q, r in x_y)]
    crystal = Crystal(np.array([14] * 3 + [8] * 6), np.array([*silicon, *oxygen]) @ lattice, lattice, id=f"hand {hand}")
    return crystal if hand == 0 else rotated(crystal, np.diag([1.0, 1.0, -1.0]))


# --- kinds of crystals ------------------------------------------------------------------------------------------------


def test_structure_types_have_the_names_of_textbooks() -> None:
    found = CrystalDataset.from_crystals(prototypes())
    assert dict(zip(found.ids, found.prototypes, strict=True)) == {
        "copper (fcc)": "A-225",
        "iron (bcc)": "A-229",
        "magnesium (hcp)": "A-194",
        "diamond": "A-227",
        "rock salt NaCl": "AB-225",
        "CsCl": "AB-221",
        "zinc blende ZnS": "AB-216",
        "wurtzite ZnO": "AB-186",
        "NiAs": "AB-194",
        "fluorite CaF2": "AB2-225",
        "perovskite SrTiO3": "ABC3-221",
        "rutile TiO2": "AB2-136",
    }
    assert found.chemical_systems.tolist()[-2:] == ["O-Sr-Ti", "O-Ti"]


@pytest.mark.parametrize("change", ["rotated", "supercell", "mirror", "left-handed", "displaced"])
def test_structure_types_do_not_depend_on_the_description(change: str) -> None:
    noise = np.random.default_rng(0)
    changed = {
        "rotated": lambda c: rotated(c, random_rotation(1)),
        "supercell": lambda c: supercell(c, (2, 1, 1)),
        "mirror": lambda c: rotated(c, -np.eye(3)),
        "left-handed": lambda c: dataclasses.replace(c, lattice=c.lattice[[1, 0, 2]]),
        "displaced": lambda c: dataclasses.replace(c, positions=c.positions + noise.uniform(-0.01, 0.01, (len(c), 3))),
    }[change]
    crystals = [*prototypes(), quartz(0)]
    expected = CrystalDataset.from_crystals(crystals).prototypes.tolist()
    assert CrystalDataset.from_crystals([changed(c) for c in crystals]).prototypes.tolist() == expected


def test_both_hands_of_a_structure_are_one_type(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = [quartz(0), quartz(1)]
    found = CrystalDataset.from_crystals(hands)
    assert found.space_groups.tolist() == [152, 152] and found.prototypes.tolist() == ["AB2-152"] * 2
    monkeypatch.setattr(symmetry, "OTHER_HAND", {})
    alone = [CrystalDataset.from_crystals([crystal]).space_groups.item() for crystal in hands]
    assert sorted(alone) == [152, 154]


def test_pairs_of_mirror_images_are_those_of_the_tables() -> None:
    turns = {"41": "43", "43": "41", "31": "32", "61": "65", "62": "64"}
    for higher, lower in symmetry.OTHER_HAND.items():
        symbol, mirrored = (gemmi.find_spacegroup_by_number(number).hm.split() for number in (lower, higher))
        assert mirrored == [symbol[0], turns[symbol[1]], *symbol[2:]]
    assert len(symmetry.OTHER_HAND) == 11  # 22 space groups come in pairs


def test_a_crystal_with_atoms_on_one_place_has_no_symmetry() -> None:
    close = Crystal(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.05]]), 4 * np.eye(3), id="close")
    assert CrystalDataset.from_crystals([close, prototypes()[4]]).prototypes.tolist() == ["A-1", "AB-225"]


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DRAWN)
def test_every_crystal_is_in_one_part_and_the_draw_is_repeatable(kind: str) -> None:
    found = ids(drawn(kind))
    assert set.union(*found.values()) == set(DEMO.ids) and sum(map(len, found.values())) == len(DEMO)
    assert 0 < len(found["test"]) <= round(0.2 * len(DEMO)) and 0 < len(found["validation"]) <= round(0.1 * len(DEMO))
    assert ids(drawn(kind)) == found
    assert ids(drawn(kind, seed=1)) != found
    backwards = DEMO.select(np.arange(len(DEMO))[::-1])
    assert ids(drawn(kind, backwards)) == found


@pytest.mark.parametrize("kind", KEY)
def test_a_kind_of_crystals_is_in_one_part(kind: str) -> None:
    splits = drawn(kind)
    keys = [set(getattr(getattr(splits, name), KEY[kind])) for name in PARTS]
    assert all(keys) and not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])


def test_drawn_elements_are_in_no_training_crystal() -> None:
    splits = drawn("element")
    numbers = {name: set(getattr(splits, name).atomic_numbers.tolist()) for name in PARTS}
    for name in ("test", "validation"):
        new = numbers[name] - numbers["train"]
        assert new and all(new & set(crystal.atomic_numbers.tolist()) for crystal in getattr(splits, name))
    # What the test part leaves out is in no validation crystal either.
    left_out = numbers["test"] - numbers["train"] - numbers["validation"]
    assert all(left_out & set(crystal.atomic_numbers.tolist()) for crystal in splits.test)


def test_named_elements_make_the_test_part() -> None:
    splits = drawn("element", test_elements=("O", "F"))
    has = [bool({8, 9} & set(crystal.atomic_numbers.tolist())) for crystal in DEMO]
    assert set(splits.test.ids) == set(DEMO.ids[has]) and len(splits.test) > 0.2 * len(DEMO)
    assert len(splits.validation) > 0
    assert len(drawn("element", test_elements=("O",), test_fraction=0.0, validation_fraction=0.0).test) > 0


@pytest.mark.parametrize("name", ["formation_energy_per_atom", "band_gap"])
def test_the_tail_is_above_all_other_labels(name: str) -> None:
    splits = drawn("property-tail", tail_target=name)
    lowest = np.nanmin(splits.test.targets[name])
    for part in (splits.train, splits.validation):
        labels = part.targets[name]
        assert np.nanmax(labels) < lowest and (name != "band_gap" or np.isnan(labels).any() or (labels == 0).any())
    assert len(splits.test) > 0.15 * len(DEMO)


def test_the_first_target_has_the_tail_unless_another_is_named() -> None:
    first = next(iter(DEMO.targets))
    assert ids(drawn("property-tail")) == ids(drawn("property-tail", tail_target=first))
    assert ids(drawn("property-tail")) != ids(drawn("property-tail", tail_target="band_gap"))


def labelled(labels: list[float], copies: tuple[int, ...] = ()) -> CrystalDataset:
    """A crystal for each label; `copies` are the same as the first one."""
    crystals = [random_crystal(0 if n in copies else n, n_atoms=2) for n in range(len(labels))]
    crystals = [
        dataclasses.replace(crystal, id=str(n), targets={"gap": float(labels[n])}) for n, crystal in enumerate(crystals)
    ]
    return CrystalDataset.from_crystals(crystals, [Target("gap", "eV")])


def test_equal_labels_and_missing_ones_are_not_divided() -> None:
    splits = drawn("property-tail", labelled([0, 0, 0, 0, 0, 0, 1, 1, 3, np.nan]), validation_fraction=0.0)
    assert splits.test.ids.tolist() == ["8"]  # two of ten are allowed, but not one of the two labels 1
    assert "9" in splits.train.ids


def test_the_same_crystal_follows_its_highest_label() -> None:
    splits = drawn("property-tail", labelled([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], copies=(9,)), validation_fraction=0.0)
    assert splits.test.ids.tolist() == ["0", "9"]


@pytest.mark.parametrize("kind", ["space-group", "prototype", "chemical-system", "element"])
def test_crystals_that_are_the_same_stay_in_one_part(kind: str) -> None:
    """Also where their cells are large and their symmetry is found from another one."""
    copies = [dataclasses.replace(supercell(c, (2, 1, 1)), id=f"{c.id} twice") for c in prototypes()]
    splits = drawn(kind, CrystalDataset.from_crystals([*prototypes(), *copies]), test_fraction=0.3)
    assert len(splits.test) and splits.n_known == 0


# --- what cannot be made ----------------------------------------------------------------------------------------------


def test_parts_that_would_be_empty_are_refused() -> None:
    salts = CrystalDataset.from_crystals([dataclasses.replace(prototypes()[4], id=str(n)) for n in range(20)])
    for kind in ("chemical-system", "prototype", "space-group"):
        with refused(DataError, f"'{kind}'", "20 crystals in 1 groups", field="test"):
            drawn(kind, salts)
    with refused(DataError, "'element'", "2 elements", field="test"):
        drawn("element", salts)
    with refused(DataError, "train", field="train"):
        drawn("element", salts, test_elements=("Na",), validation_fraction=0.0)
    with refused(DataError, "5 crystals have the highest label of gap (eV)", "room for 1", field="test"):
        drawn("property-tail", labelled([1] * 5))
    with refused(DataError, "no crystal has a label", field="test"):
        drawn("property-tail", labelled([np.nan] * 5))


def test_what_the_data_set_lacks_is_named() -> None:
    with refused(DataError, "did you mean 'band_gap'?", field="bandgap"):
        drawn("property-tail", tail_target="bandgap")
    salts = CrystalDataset.from_crystals(prototypes()[4:6])
    with refused(DataError, "no crystal of the data set contains Xe", "Na, Cl, Cs", field="test_elements"):
        drawn("element", salts, test_elements=("Cl", "Xe"))


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        ({"split": "element", "test_elements": ("Xa",)}, "test_elements", "did you mean 'Xe'?"),
        ({"split": "element", "test_elements": ("Fm",)}, "test_elements", "'Fm' is no element"),
        ({"split": "random", "test_elements": ("Xe",)}, "test_elements", "'element'"),
        ({"split": "element", "tail_target": "band_gap"}, "tail_target", "'property-tail'"),
        ({"split": "property-tail", "test_fraction": 0.0}, "test_fraction", "above 0"),
        ({"split": "space_group"}, "split", "did you mean 'space-group'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict, field: str, words: str) -> None:
    with refused(ConfigError, words, field=f"data.{field}"):
        from_tree(DataConfig, settings)


def test_symbols_of_the_config_are_those_of_the_model() -> None:
    assert DataConfig(split="element", test_elements=("Cf",)).test_elements == ("Cf",)
    assert ATOMIC_NUMBERS["Cf"] == 98
