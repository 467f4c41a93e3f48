import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from pymatgen.core import Lattice, Structure

from crystalframer.config import DataConfig, Target
from crystalframer.datasets.labelled import read_folder, read_table
from crystalframer.datasets.sources import dataset
from crystalframer.errors import DataError


def structure(length: float) -> Structure:
    return Structure(Lattice.cubic(length), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def write_rows(path: Path, rows: list[dict]) -> Path:
    """A table of these rows in the format of the suffix."""
    if path.suffix == ".csv":
        cells = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
        pandas.DataFrame(cells).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pandas.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path


def rows(**columns: list) -> list[dict]:
    n_rows = len(next(iter(columns.values()))) if columns else 3
    base = [
        {
            "id": f"c{n}",
            "atomic_numbers": [11],
            "positions": [0.1, 0.2, 0.3],
            "lattice": [4.0 + n, 0, 0, 0, 4, 0, 0, 0, 4],
        }
        for n in range(n_rows)
    ]
    return [row | {name: values[n] for name, values in columns.items()} for n, row in enumerate(base)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three CIFs a, b, c without labels."""
    path = tmp_path / "structures"
    path.mkdir()
    for n, name in enumerate("abc"):
        structure(4.0 + n).to(str(path / f"{name}.cif"))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
def test_tables_of_every_kind(tmp_path: Path, suffix: str) -> None:
    path = write_rows(
        tmp_path / f"t{suffix}", rows(gap=[1.5, None, 2], split=["train", "val", "test"], n_atoms=[1, 1, 1])
    )
    for data in (read_table(path), dataset(path)):
        assert data.ids.tolist() == ["c0", "c1", "c2"]
        np.testing.assert_array_equal(data.targets["gap"], [1.5, np.nan, 2.0])
        assert list(data.targets) == ["gap"]
        assert data[1].lattice[0, 0] == 5.0
        assert data.split(DataConfig(), 0).validation.ids.tolist() == ["c1"]
        assert data.provenance.source == str(path)
    assert read_table(path, [Target("gap", "eV")]).units == {"gap": "eV"}


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_tables_of_cif_text(tmp_path: Path, suffix: str) -> None:
    text = structure(4.0).to(fmt="cif")
    path = write_rows(tmp_path / f"t{suffix}", [{"material_id": "mp-1", "structure": text, "gap": 1.0}])
    data = read_table(path)
    assert data.ids.tolist() == ["mp-1"] and data.formulas.tolist() == ["NaCl"]
    assert data.targets["gap"].tolist() == [1.0]


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_tables_of_nested_lists(tmp_path: Path, suffix: str) -> None:
    nested = rows(positions=[[[0.1, 0.2, 0.3]]], lattice=[[[4.0, 0, 0], [0, 5.0, 0], [0, 0, 6.0]]], gap=[1.0])
    data = read_table(write_rows(tmp_path / f"t{suffix}", nested))
    assert data[0].positions.tolist() == [[0.1, 0.2, 0.3]]
    assert np.diag(data[0].lattice).tolist() == [4, 5, 6]


def test_rows_without_ids_are_numbered(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "t.json", [{k: v for k, v in row.items() if k != "id"} for row in rows()])
    assert read_table(path).ids.tolist() == ["1", "2", "3"]


def test_json_by_id(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({row.pop("id"): row for row in rows(gap=[1, 2, 3])}))
    assert read_table(path).ids.tolist() == ["c0", "c1", "c2"]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_with_other_delimiters_and_byte_order_mark(tmp_path: Path, folder: Path, delimiter: str) -> None:
    text = "\n".join(delimiter.join(cells) for cells in (["id", "gap"], ["a", "1"], ["b", ""], ["c", "3"]))
    (folder / "labels.csv").write_text(text, encoding="utf-8-sig")
    np.testing.assert_array_equal(read_folder(folder).targets["gap"], [1, np.nan, 3])


@pytest.mark.parametrize("missing", ["", "NaN", "null", " n/a "])
def test_missing_labels(tmp_path: Path, folder: Path, missing: str) -> None:
    (folder / "labels.csv").write_text(f"id,gap\na,1\nb,{missing}\nc,2\n")
    np.testing.assert_array_equal(read_folder(folder).targets["gap"], [1, np.nan, 2])


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize(("column", "ending"), [("id", ""), ("id", ".cif"), ("file", ".cif"), ("file", "")])
def test_folder_with_labels(folder: Path, suffix: str, column: str, ending: str) -> None:
    write_rows(folder / f"labels{suffix}", [{column: name + ending, "gap": n} for n, name in enumerate("cab")])
    data = dataset(folder)
    assert data.ids.tolist() == ["c", "a", "b"]
    assert data.targets["gap"].tolist() == [0, 1, 2]
    assert data[0].lattice[0, 0] == pytest.approx(6.0)


def test_folder_with_labels_elsewhere_or_none(folder: Path, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "elsewhere.csv", [{"id": name, "gap": 1.0, "note": "hm"} for name in "abc"])
    assert list(dataset(folder, labels=table).targets) == ["gap"]
    unlabelled = read_folder(folder)
    assert unlabelled.ids.tolist() == ["a", "b", "c"] and not unlabelled.targets


@pytest.mark.parametrize(
    ("text", "targets", "message"),
    [
        (
            "id,gap\na,1\nb,inf\nc,2\n",
            None,
            "labels.csv, row 2: gap is 'inf'; a label must be a finite number, or empty",
        ),
        ("id,gap\na,1\nb,high\nc,2\n", None, "labels.csv, row 2: gap is 'high'"),
        ("id,note\na,x\nb,y\nc,z\n", ["note"], "labels.csv, row 1: note is 'x'"),
        ("id,band_gap\na,1\nb,1\nc,2\n", ["bandgap"], r"no label column 'bandgap'; did you mean 'band_gap'\?"),
        ("id,gap\na,1\nb,1\na,2\n", None, "labels.csv: 'a' is given twice, in rows 1 and 3"),
        ("id,gap\na,1\na.cif,1\nb,2\n", None, "'a.cif' is given twice, in rows 1 and 2"),
        (
            "id,gap\na,1\nd,1\ne,2\n",
            None,
            "2 of 3 rows name structure files that do not exist:\n  row 2: d\n  row 3: e",
        ),
        ("id,gap\na,1\n", None, "2 of 3 structure files have no row .*:\n  b.cif\n  c.cif"),
        ("name,gap\na,1\n", None, "labels.csv, row 1: names no structure file; fill its column `id` or `file`"),
        ("id,gap\na,1\nb\nc,2\n", None, "labels.csv, row 2: does not have the 2 cells"),
        ("id,gap\na,1,7\n", None, "labels.csv, row 1: does not have the 2 cells"),
        ("id,gap,split\na,1,train\nb,2,dev\nc,3,test\n", None, "labels.csv: row 2: split is 'dev'"),
        ("id,gap\n", None, "labels.csv: the table has no rows"),
        ("", None, "labels.csv: the file is empty"),
        ('id,gap\na,"1\n', None, "labels.csv, row 1: not readable as CSV"),
    ],
)
def test_bad_labels(folder: Path, text: str, targets: list[str] | None, message: str) -> None:
    (folder / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_folder(folder, targets=targets)


def test_labels_that_are_not_utf8(folder: Path) -> None:
    (folder / "labels.csv").write_bytes("id,gap (Å)\na,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels\.csv: not UTF-8 text"):
        read_folder(folder)


def test_bad_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_folder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no structure files"):
        read_folder(tmp_path / "empty")
    with pytest.raises(DataError, match="has no table of labels"):
        read_folder(folder, targets=["gap"])
    with pytest.raises(DataError, match=r"labels\.csv: no such file"):
        read_folder(folder, tmp_path / "labels.csv")
    structure(4.0).to(str(folder / "a.vasp"), fmt="poscar")
    write_rows(folder / "labels.csv", [{"id": name, "gap": 1} for name in "abc"])
    with pytest.raises(DataError, match=r"row 1: 'a' may be a\.cif or a\.vasp; give the suffix"):
        read_folder(folder)
    write_rows(folder / "labels.json", [])
    with pytest.raises(DataError, match=r"has labels\.csv and labels\.json; say which"):
        read_folder(folder)


def test_all_bad_structures_of_a_folder_are_told_at_once(folder: Path) -> None:
    for n in range(7):
        (folder / f"bad{n}.cif").write_text("nonsense")
    with pytest.raises(DataError, match=r"7 of 10 structures cannot be read:\n.*bad0\.cif: (.|\n)*and 2 more$"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"lattice": [[1.0] * 9]}, "t.json: 1 of 1 structures cannot be read:\n  row 1: crystal 'c0': .*coplanar"),
        ({"id": ["x", "y", "x"]}, "t.json: row 3: id 'x' is given twice"),
        ({"gap": [1, 2, True]}, "t.json, row 3: gap is 'True'"),
        ({"gap": [1, float("nan"), float("inf")]}, "t.json, row 3: gap is 'inf'"),
    ],
)
def test_bad_tables(tmp_path: Path, columns: dict[str, list], message: str) -> None:
    path = write_rows(tmp_path / "t.json", rows(**columns))
    with pytest.raises(DataError, match=message):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.json", "[1]", "t.json, row 1: expected an object with named cells, got '1'"),
        ("t.json", "{", "t.json: not valid JSON"),
        ("t.json", "3", "t.json: a table in JSON is a list of objects"),
        ("t.jsonl", '{"id": 1}\n{', "t.jsonl, row 2: not valid JSON"),
        ("t.parquet", "PAR1", "t.parquet: not a complete parquet file"),
        ("t.json", "[]", "t.json: the table has no rows"),
    ],
)
def test_unreadable_tables(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / name)
