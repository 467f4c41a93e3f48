import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from refusals import refused

from crystalframer.config import DataConfig, Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.dataset import PARTS, CrystalDataset, Provenance
from crystalframer.errors import DataError
from crystalframer.testing import random_crystal

ENERGY, GAP = Target("energy", "eV"), Target("gap", "eV")


def crystal(numbers: list[int], id: str, **targets: float) -> Crystal:
    generator = np.random.default_rng([*id.encode()])
    return Crystal(np.array(numbers), generator.random((len(numbers), 3)) * 5, np.eye(3) * 5, id, targets)


def three() -> CrystalDataset:
    crystals = [
        crystal([11, 17], "salt", energy=-2.0, gap=5.0),
        crystal([14] * 3, "silicon", gap=1.1),
        crystal([8, 20, 22, 8, 8], "perovskite"),
    ]
    return CrystalDataset.from_crystals(
        crystals, [ENERGY, GAP], ["train", "val", "test"], Provenance("here", "CC0", "us")
    )


def random_dataset(n_crystals: int, seed: int, n_elements: int = 4) -> CrystalDataset:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 6, n_crystals)
    crystals = [
        crystal(generator.integers(1, 1 + n_elements, size).tolist(), f"c{row}", energy=float(row))
        for row, size in enumerate(sizes)
    ]
    return CrystalDataset.from_crystals(crystals, [ENERGY])


def test_rows_come_back_as_they_went_in() -> None:
    crystals = [crystal([11, 17], "a", energy=1.5), crystal([3], "b")]
    packed = CrystalDataset.from_crystals(crystals, [ENERGY])
    assert len(packed) == 2
    for before, after in zip(crystals, packed, strict=True):
        assert after.id == before.id
        np.testing.assert_array_equal(after.atomic_numbers, before.atomic_numbers)
        np.testing.assert_array_equal(after.positions, before.positions)
        np.testing.assert_array_equal(after.lattice, before.lattice)
    assert packed[0].targets == {"energy": 1.5}
    assert np.isnan(packed[1].targets["energy"])
    assert packed[-1].id == packed[np.int64(1)].id == "b"
    with pytest.raises(IndexError, match="row 2 of a data set of 2"):
        packed[2]


def test_columns() -> None:
    data = three()
    assert data.n_atoms.tolist() == [2, 3, 5]
    assert data.formulas.tolist() == ["NaCl", "Si", "CaTiO3"]
    assert data.parts is not None and data.parts.tolist() == ["train", "validation", "test"]
    frame = data.to_frame()
    assert frame.columns.tolist() == ["id", "formula", "n_atoms", "energy", "gap", "split"]
    assert frame["gap"].isna().tolist() == [False, False, True]


def test_summary_says_what_a_person_asks_for() -> None:
    text = str(three())
    numbers = ("3 crystals, 10 atoms, 6 elements", "2 to 5 atoms", "energy (eV): 1 labels", "gap (eV): 2 labels", "1.1")
    for part in (*numbers, "train 1, validation 1, test 1", "licence: CC0", "citation: us"):
        assert part in text
    assert "0 crystals" in str(three().select([]))


def test_with_targets_chooses_orders_and_states_units() -> None:
    data = three()
    assert list(data.with_targets(["gap"]).targets) == ["gap"]
    assert list(data.with_targets([GAP, "energy"]).targets) == ["gap", "energy"]
    assert data.target("gap") == GAP
    unitless = dataclasses.replace(data, units={})
    assert unitless.with_targets([GAP]).target("gap") == GAP
    with refused(DataError, "did you mean 'gap'?", field="gpa"):
        data.with_targets(["gpa"])
    with refused(DataError, "eV", "meV", field="gap"):
        data.with_targets([Target("gap", "meV")])


def test_labelled_leaves_out_crystals_without_any_label() -> None:
    assert three().labelled().ids.tolist() == ["salt", "silicon"]
    assert three().with_targets(["energy"]).labelled().ids.tolist() == ["salt"]


def test_select_by_rows_and_mask() -> None:
    data = three()
    assert data.select([2, 0]).ids.tolist() == ["perovskite", "salt"]
    assert data.select(np.array([False, True, False])).ids.tolist() == ["silicon"]
    np.testing.assert_array_equal(data.select([2, 0])[1].positions, data[0].positions)
    with refused(DataError, "mask of 2 rows", "3 crystals"):
        data.select(np.array([True, False]))


@given(
    n_crystals=st.integers(20, 60),
    seed=st.integers(0, 99),
    split=st.sampled_from(["random", "group"]),
    validation=st.sampled_from([0.0, 0.1, 0.3]),
    test=st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=40, deadline=None)
def test_no_crystal_is_lost_or_doubled(n_crystals: int, seed: int, split: str, validation: float, test: float) -> None:
    data = random_dataset(n_crystals, seed)
    config = DataConfig(split=split, validation_fraction=validation, test_fraction=test)  # type: ignore[arg-type]
    parts = data.split(config, seed)
    ids = [id for name in PARTS for id in getattr(parts, name).ids]
    assert sorted(ids) == sorted(data.ids)
    for name, fraction in (("validation", validation), ("test", test)):
        size = len(getattr(parts, name))
        assert size <= max(1, round(fraction * n_crystals)) if fraction else size == 0
        if split == "random" and fraction:
            assert size == max(1, round(fraction * n_crystals))
    formulas = [set(getattr(parts, name).formulas) for name in PARTS]
    if split == "group":
        assert not (formulas[0] & formulas[1] or formulas[0] & formulas[2] or formulas[1] & formulas[2])
    again = data.split(config, seed)
    assert all(getattr(again, name).ids.tolist() == getattr(parts, name).ids.tolist() for name in PARTS)


def test_random_split_depends_on_the_seed_but_not_on_the_order_of_rows() -> None:
    data = random_dataset(50, 0)
    config = DataConfig(split="random")
    reversed_data = data.select(np.arange(50)[::-1])
    assert set(reversed_data.split(config, 1).test.ids) == set(data.split(config, 1).test.ids)
    assert set(data.split(config, 2).test.ids) != set(data.split(config, 1).test.ids)


def test_crystals_that_are_the_same_stay_in_one_part() -> None:
    config = DataConfig(split="random", test_fraction=0.2, validation_fraction=0.2)
    alone = [random_crystal(seed, n_atoms=2) for seed in range(20)]
    copies = [dataclasses.replace(crystal, id=f"copy-{crystal.id}") for crystal in alone[::2]]
    parts = CrystalDataset.from_crystals([*alone, *copies]).split(config, 0)
    assert [len(getattr(parts, name)) for name in PARTS] == [18, 6, 6]
    numbers = [{id.removeprefix("copy-") for id in getattr(parts, name).ids} for name in PARTS]
    assert sum(map(len, numbers)) == len(alone)

    # A draw without duplicates is the one of earlier versions.
    assert sorted(CrystalDataset.from_crystals(alone).split(config, 0).test.ids) == [
        "random-10",
        "random-12",
        "random-14",
        "random-9",
    ]


def test_given_split_follows_the_column() -> None:
    parts = three().split(DataConfig(split="given"), 0)
    assert [getattr(parts, name).ids.tolist() for name in PARTS] == [["salt"], ["silicon"], ["perovskite"]]


def test_max_atoms_thins_training_and_validation_only() -> None:
    data = random_dataset(60, 3)
    config = DataConfig(split="random", validation_fraction=0.3, test_fraction=0.3)
    full, thinned = data.split(config, 0), data.split(dataclasses.replace(config, max_atoms_per_crystal=2), 0)
    assert thinned.test.ids.tolist() == full.test.ids.tolist()
    assert thinned.test.n_atoms.max() > 2
    for name in ("train", "validation"):
        small = getattr(full, name).n_atoms <= 2
        assert getattr(thinned, name).ids.tolist() == getattr(full, name).ids[small].tolist()


def test_splits_that_cannot_be_made() -> None:
    data = random_dataset(20, 0)
    with refused(DataError, field="split"):
        data.split(DataConfig(split="given"), 0)
    with refused(DataError, "'group'", field="test"):
        random_dataset(10, 0, n_elements=1).split(DataConfig(split="group"), 0)
    with refused(DataError, "max_atoms_per_crystal = 1", field="train"):
        three().split(DataConfig(split="given", max_atoms_per_crystal=1), 0)


@pytest.mark.parametrize(
    ("change", "row", "words"),
    [
        ({"ids": np.array(["a", "b", "a"], dtype=object)}, 3, ["'a'", "row 1"]),
        ({"parts": np.array(["train", "dev", "test"], dtype=object)}, 2, ["'dev'"]),
        ({"targets": {"gap": np.array([1.0, np.inf, 2.0])}}, 2, ["silicon", "gap", "inf"]),
        (
            {"atomic_numbers": np.array([11, 17, 14, 14, 99, 8, 20, 22, 8, 8], dtype=np.uint8)},
            2,
            ["'silicon'", "site 2", 99],
        ),
        ({"positions": np.full((10, 3), np.nan)}, 1, ["'salt'", "position of site 0"]),
        ({"lattice": np.stack([np.eye(3), np.ones((3, 3)), np.eye(3)])}, 2, ["coplanar"]),
        ({"lattice": np.stack([np.eye(3), np.eye(3), np.full((3, 3), np.nan)])}, 3, ["lattice must be"]),
        ({"offsets": np.array([0, 5, 5, 10])}, 2, ["has no atoms"]),
        ({"offsets": np.array([0, 5, 7, 9])}, None, ["offsets", 10]),
    ],
)
def test_bad_arrays_are_refused_by_row_and_name(change: dict, row: int | None, words: list) -> None:
    with refused(DataError, *words, row=row):
        dataclasses.replace(three(), **change)


def test_left_handed_lattices_are_fine() -> None:
    data = dataclasses.replace(three(), lattice=np.stack([np.diag([5.0, 5.0, -5.0])] * 3))
    assert np.linalg.det(data[0].lattice) < 0
