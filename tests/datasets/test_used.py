"""The crystals of a run are found again, and only these."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.flat import Provenance
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.datasets.used import UsedCrystals, structure_hashes
from crystalframer.errors import CheckpointError
from crystalframer.testing import random_crystal

CRYSTALS = [
    dataclasses.replace(random_crystal(seed, n_atoms=2 + seed % 3), id=f"c{seed}", targets={"energy": float(seed)})
    for seed in range(30)
]
TURN = Rotation.from_euler("xyz", [0.3, 0.7, 1.1]).as_matrix()


def data(crystals: list[Crystal]) -> CrystalDataset:
    return CrystalDataset.from_crystals(crystals, [Target("energy")])


def parts(crystals: list[Crystal]) -> dict[str, CrystalDataset]:
    return {"train": data(crystals[:20]), "validation": data(crystals[20:25]), "test": data(crystals[25:])}


USED = UsedCrystals.of(parts(CRYSTALS))
ROLES = ["train"] * 20 + ["validation"] * 5 + ["test"] * 5


def changed(crystal: Crystal, **changes: object) -> Crystal:
    return dataclasses.replace(crystal, **changes)


SAME: dict[str, Callable[[Crystal], Crystal]] = {
    "id": lambda c: changed(c, id=f"x{c.id}"),
    "orientation": lambda c: changed(c, lattice=c.lattice @ TURN, positions=c.positions @ TURN),
    "order of sites": lambda c: changed(c, positions=c.positions[::-1], atomic_numbers=c.atomic_numbers[::-1]),
    "images": lambda c: changed(c, positions=c.positions + c.lattice[1]),
    "last bits": lambda c: changed(c, positions=c.positions * (1 + 4e-16), lattice=c.lattice * (1 - 4e-16)),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_the_same_structure_is_found(change: Callable[[Crystal], Crystal]) -> None:
    order = np.random.default_rng(0).permutation(len(CRYSTALS))
    renumbered = [changed(change(CRYSTALS[row]), id=f"{change(CRYSTALS[row]).id}") for row in order]
    found = USED.find(data(renumbered))
    assert found.role.tolist() == [ROLES[row] for row in order] and found.is_same.all()
    assert order[found.of("test")].tolist() == [25, 26, 27, 28, 29]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: changed(c, lattice=c.lattice * 1.0002, positions=c.positions * 1.0002),
        lambda c: changed(c, positions=c.positions + np.eye(len(c), 3)[:, :1] * [0.001, 0, 0]),
        lambda c: changed(c, atomic_numbers=c.atomic_numbers % 80 + 1),
    ],
    ids=["cell", "position", "element"],
)
def test_another_structure_is_another_crystal(change: Callable[[Crystal], Crystal]) -> None:
    hashes = structure_hashes(data([*CRYSTALS, *(changed(change(c), id=f"x{c.id}") for c in CRYSTALS)]))
    assert len(set(hashes.tolist())) == 2 * len(CRYSTALS)


def test_row_numbers_are_no_names() -> None:
    """Row 1 of a table is another crystal than row 1 of another; a name with the same formula is the same crystal."""
    relaxed = [changed(c, lattice=1.02 * c.lattice, positions=1.02 * c.positions) for c in CRYSTALS]
    for name, role in (("", "other"), ("row-", "other"), ("my-", "other"), ("mp-", "train")):
        numbered, renumbered = (
            [changed(crystal, id=f"{name}{row}") for row, crystal in enumerate(crystals)]
            for crystals in (CRYSTALS, relaxed)
        )
        used = UsedCrystals.of(parts(numbered))
        found = used.find(dataclasses.replace(data(renumbered), provenance=Provenance("there/my.csv")))
        assert found.role[0] == role
    found = USED.find(data(relaxed))
    assert found.role.tolist() == ROLES and not found.is_same.any()
    others = [changed(c, atomic_numbers=c.atomic_numbers % 80 + 1) for c in relaxed]
    found = USED.find(data(others))
    assert set(found.role) == {"other"} and found.is_same.all()


def test_twins_have_a_row_each() -> None:
    """The same structure in several parts: labels and ids tell which is which; a further copy is a training crystal."""
    twins = [changed(CRYSTALS[0], id=f"t{n}", targets={"energy": float(n // 2)}) for n in range(4)]
    used = UsedCrystals.of({"train": data(twins[:1]), "test": data(twins[1:])})
    assert used.find(data(twins[::-1])).role.tolist() == ["test", "test", "test", "train"]
    assert used.find(data([twins[3], changed(twins[3], id="new")])).role.tolist() == ["test", "test"]
    further = [changed(twin, id=f"u{n}") for n, twin in enumerate([*twins, twins[0]])]
    assert sorted(used.find(data(further)).role.tolist()) == ["test"] * 3 + ["train"] * 2


def test_what_trained_the_start_trained_the_model() -> None:
    """Also if this run tests with it: a copy with other labels and another id is a training crystal."""
    start = UsedCrystals.of({"train": data(CRYSTALS[:3])})
    relabelled = [changed(c, targets={"energy": 100.0 + n}) for n, c in enumerate(CRYSTALS[:3])]
    used = UsedCrystals.of({"train": data(CRYSTALS[3:6]), "test": data(relabelled)}, start)
    copies = [changed(c, id=f"x{c.id}", targets={"energy": -1.0}) for c in CRYSTALS[:3]]
    assert used.find(data(copies)).role.tolist() == ["earlier"] * 3
    assert used.find(data(relabelled)).role.tolist() == ["test"] * 3
    third = UsedCrystals.of({"train": data(CRYSTALS[6:9])}, used)
    assert third.find(data(CRYSTALS[:9])).role.tolist() == ["earlier"] * 6 + ["train"] * 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[1:], ["train: 1 missing ('c0'); 1 new ('c20')", "test: 4 crystals instead of 5"]),
        (lambda rows: [changed(rows[0], id="x"), *rows[1:]], ["train: 1 missing ('c0'); 1 new ('x')"]),
        (lambda rows: [rows[1], rows[0], *rows[2:]], ["train: another order"]),
        (lambda rows: [*rows[:29], changed(rows[29], targets={"energy": 0.5})], ["test: other labels of 1 ('c29')"]),
        (
            lambda rows: [changed(c, lattice=1.01 * c.lattice) for c in rows[:5]] + rows[5:],
            ["train: other structures of 5 ('c0', 'c1', 'c2', ...)"],
        ),
        (lambda rows: [changed(rows[0], targets={"energy": np.nan}), *rows[1:]], ["train: other labels of 1 ('c0')"]),
        (lambda rows: [changed(rows[0], targets={"energy": -0.0}), *rows[1:]], []),
        (lambda rows: rows, []),
    ],
)
def test_differences_are_named(change: Callable[[list[Crystal]], list[Crystal]], said: list[str]) -> None:
    lines = USED.differences(UsedCrystals.of(parts(change(CRYSTALS))))
    assert bool(lines) == bool(said) and all(any(line.startswith(words) for line in lines) for words in said)


def test_a_wrong_bit_is_noticed() -> None:
    """Wherever it is: the table is the same, or refused."""
    rng = np.random.default_rng(0)
    for byte in rng.integers(len(USED.content), size=300).tolist():
        content = bytearray(USED.content)
        content[byte] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(CheckpointError):
            assert UsedCrystals(bytes(content)).table.equals(USED.table)
