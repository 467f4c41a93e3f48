"""Labels that are classes: read from tables, kept in packed files, given an order."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

import crystalframer as cf
from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.errors import DataError
from crystalframer.testing import random_crystal

CRYSTALS = [random_crystal(seed, n_atoms=2) for seed in range(5)]
IDS = [crystal.id for crystal in CRYSTALS]
NAN = float("nan")
PHASE = Target("phase", kind="class")


def folder_with(path: Path, **columns: list[Any]) -> Path:
    for crystal in CRYSTALS:
        crystal.write(path / f"{crystal.id}.cif")
    pandas.DataFrame({"id": IDS, **columns}).to_csv(path / "labels.csv", index=False)
    return path


@pytest.mark.parametrize("cells", [[True, False, None, True, False], ["TRUE", "false", "", "True", "False"]])
def test_a_column_of_truths_is_a_target_of_classes(tmp_path: Path, cells: list[Any]) -> None:
    data = cf.dataset(folder_with(tmp_path, is_metal=cells))
    assert data.target("is_metal") == Target("is_metal", kind="class", classes=("false", "true"))
    np.testing.assert_array_equal(data.targets["is_metal"], [1, 0, NAN, 1, 0])
    assert "4 labels, classes: 2 false, 2 true" in data.summary()


def test_text_and_whole_numbers_are_classes_where_the_target_says_so(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, phase=["b", "a", " a", None, "c"], rank=[10, 9, 9, 10, None])
    data = cf.dataset(folder, targets=[PHASE, Target("rank", kind="class")])
    assert data.classes == {"phase": ("a", "b", "c"), "rank": ("9", "10")}
    np.testing.assert_array_equal(data.targets["phase"], [1, 0, 0, NAN, 2])
    np.testing.assert_array_equal(data.targets["rank"], [1, 0, 0, 1, NAN])
    with pytest.raises(DataError, match="phase is 'b'; a label must be a finite number"):
        cf.dataset(folder, targets=["phase"])


def test_a_packed_file_keeps_classes_and_their_order(tmp_path: Path) -> None:
    wanted = Target("phase", kind="class", classes=("c", "b", "a"))
    data = cf.dataset(folder_with(tmp_path, phase=["b", "a", "a", None, "c"]), targets=[wanted])
    data.save(tmp_path / "packed.parquet")
    again = cf.dataset(tmp_path / "packed.parquet")
    assert again.target("phase") == wanted
    np.testing.assert_array_equal(again.targets["phase"], [1, 2, 2, NAN, 0])
    np.testing.assert_array_equal(again.select([1, 4]).with_targets([PHASE]).targets["phase"], [2, 0])


def test_truths_are_the_two_classes_of_a_target_that_names_them(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, is_metal=[True, False, None, True, False])
    metal = Target("is_metal", kind="class", classes=("non-metal", "metal"))
    np.testing.assert_array_equal(cf.dataset(folder, targets=[metal]).targets["is_metal"], [1, 0, NAN, 1, 0])
    packed = cf.dataset(folder)
    assert packed.target("is_metal").classes == ("false", "true")
    np.testing.assert_array_equal(packed.with_targets([metal]).targets["is_metal"], [1, 0, NAN, 1, 0])


def test_a_class_called_true_is_no_place_of_two(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, stable=["true", "unknown", "true", "unknown", "true"])
    wanted = Target("stable", kind="class", classes=("true", "unknown"))
    np.testing.assert_array_equal(cf.dataset(folder, targets=[wanted]).targets["stable"], [0, 1, 0, 1, 0])


def test_another_order_of_classes_numbers_the_labels_anew() -> None:
    labels = [{"phase": float(n)} for n in (0, 1, 1, 2, 0)]
    crystals = [crystal.with_targets(label) for crystal, label in zip(CRYSTALS, labels, strict=True)]
    data = CrystalDataset.from_crystals(crystals, [Target("phase", kind="class", classes=("a", "b", "c"))])
    other = data.with_targets([Target("phase", kind="class", classes=("d", "c", "b", "a"))])
    assert other.targets["phase"].tolist() == [3, 2, 2, 1, 3]
    with pytest.raises(DataError, match=r"row 4: phase is 'c', which is none of its classes \(a, b\)"):
        data.with_targets([Target("phase", kind="class", classes=("a", "b"))])


def test_columns_of_a_flat_parquet_table_are_classes(tmp_path: Path) -> None:
    CrystalDataset.from_crystals(CRYSTALS).save(tmp_path / "plain.parquet")
    table = parquet.read_table(tmp_path / "plain.parquet").replace_schema_metadata(None)
    table = table.append_column("is_metal", pyarrow.array([True, False, None, True, True]))
    table = table.append_column("phase", pyarrow.array(["b", "a", None, "b", "c"]))
    parquet.write_table(table, tmp_path / "table.parquet", row_group_size=2)
    data = cf.dataset(tmp_path / "table.parquet")
    assert data.classes == {"is_metal": ("false", "true")}
    np.testing.assert_array_equal(data.targets["is_metal"], [1, 0, NAN, 1, 1])
    data = cf.dataset(tmp_path / "table.parquet", targets=[PHASE])
    assert data.classes == {"phase": ("a", "b", "c")}
    np.testing.assert_array_equal(data.targets["phase"], [1, 0, NAN, 1, 2])


def labelled(*labels: float) -> list[Crystal]:
    return [crystal.with_targets({"phase": label}) for crystal, label in zip(CRYSTALS, labels, strict=False)]


def test_whole_numbers_of_crystals_become_classes() -> None:
    data = CrystalDataset.from_crystals(labelled(3.0, 1.0, NAN, 3.0), [PHASE])
    assert data.classes == {"phase": ("1", "3")}
    np.testing.assert_array_equal(data.targets["phase"], [1, 0, NAN, 1])


@pytest.mark.parametrize(
    ("labels", "target", "message"),
    [
        ((0.5, 1.0), PHASE, r"row 1: phase is '0.5'; a class is text, true or false, or a whole number"),
        (
            (0.0, 2.0),
            Target("phase", kind="class", classes=("a", "b")),
            r"row 2.*2, which is the number of no class: 0",
        ),
    ],
)
def test_numbers_that_are_no_classes_are_refused(labels: tuple[float, ...], target: Target, message: str) -> None:
    with pytest.raises(DataError, match=message):
        CrystalDataset.from_crystals(labelled(*labels), [target])


def test_a_column_of_names_is_no_target_of_classes(tmp_path: Path) -> None:
    rows = [{"structure": CRYSTALS[0].to_pymatgen().as_dict(), "note": f"sample {n}"} for n in range(101)]
    pandas.DataFrame(rows).to_json(tmp_path / "t.json", orient="records")
    with pytest.raises(DataError, match="note has 101 different labels; 100 classes are the most"):
        cf.dataset(tmp_path / "t.json", targets=[Target("note", kind="class")])
