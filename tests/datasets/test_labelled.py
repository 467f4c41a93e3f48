import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from pymatgen.core import Lattice, Structure
from refusals import refused

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
    ("text", "targets", "row", "field", "words"),
    [
        ("id,gap\na,1\nb,inf\nc,2\n", None, 2, "gap", ["'inf'", "finite number, or empty"]),
        ("id,gap\na,1\nb,high\nc,2\n", None, 2, "gap", ["'high'"]),
        ("id,note\na,x\nb,y\nc,z\n", ["note"], 1, "note", ["'x'"]),
        ("id,band_gap\na,1\nb,1\nc,2\n", ["bandgap"], None, "bandgap", ["did you mean 'band_gap'?"]),
        ("id,gap\na,1\nb,1\na,2\n", None, 3, None, ["'a'", "row 1"]),
        ("id,gap\na,1\na.cif,1\nb,2\n", None, 2, None, ["'a.cif'", "row 1"]),
        ("id,gap\na,1\nd,1\ne,2\n", None, None, None, ["2 of 3 rows", "\n  row 2: d\n  row 3: e"]),
        ("id,gap\na,1\n", None, None, None, ["2 of 3 structure files", "\n  b.cif\n  c.cif"]),
        ("name,gap\na,1\n", None, 1, None, ["`id` or `file`"]),
        ("id,gap\na,1\nb\nc,2\n", None, 2, None, ["2 cells"]),
        ("id,gap\na,1,7\n", None, 1, None, ["2 cells"]),
        ("id,gap,split\na,1,train\nb,2,dev\nc,3,test\n", None, 2, "split", ["'dev'"]),
        ("", None, None, None, ["empty"]),
        ("id,gap\n", None, None, None, ["no rows"]),
        ('id,gap\na,"1\n', None, 1, None, ["CSV"]),
    ],
)
def test_bad_labels(
    folder: Path, text: str, targets: list[str] | None, row: int | None, field: str | None, words: list[str]
) -> None:
    (folder / "labels.csv").write_text(text)
    with refused(DataError, *words, path="labels.csv", row=row, field=field):
        read_folder(folder, targets=targets)


def test_labels_that_are_not_utf8(folder: Path) -> None:
    (folder / "labels.csv").write_bytes("id,gap (Å)\na,1\n".encode("latin-1"))
    with refused(DataError, "UTF-8", path="labels.csv"):
        read_folder(folder)


def test_bad_folders(folder: Path, tmp_path: Path) -> None:
    with refused(DataError, path="none"):
        read_folder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with refused(DataError, ".cif", path="empty"):
        read_folder(tmp_path / "empty")
    with refused(DataError, "labels", path=folder):
        read_folder(folder, targets=["gap"])
    with refused(DataError, path=tmp_path / "labels.csv"):
        read_folder(folder, tmp_path / "labels.csv")
    structure(4.0).to(str(folder / "a.vasp"), fmt="poscar")
    write_rows(folder / "labels.csv", [{"id": name, "gap": 1} for name in "abc"])
    with refused(DataError, "'a' may be a.cif or a.vasp", path="labels.csv", row=1):
        read_folder(folder)
    write_rows(folder / "labels.json", [])
    with refused(DataError, "labels.csv and labels.json", path=folder, field="labels"):
        read_folder(folder)


def test_all_bad_structures_of_a_folder_are_told_at_once(folder: Path) -> None:
    for n in range(7):
        (folder / f"bad{n}.cif").write_text("nonsense")
    with refused(DataError, "7 of 10 structures", "bad0.cif: ", "and 2 more", path=folder):
        read_folder(folder)


@pytest.mark.parametrize(
    ("columns", "row", "field", "words"),
    [
        ({"lattice": [[1.0] * 9]}, None, None, ["1 of 1 structures", "\n  row 1: crystal 'c0': ", "coplanar"]),
        ({"id": ["x", "y", "x"]}, 3, "id", ["'x'", "row 1"]),
        ({"gap": [1, 2, True]}, 3, "gap", ["'True'"]),
        ({"gap": [1, float("nan"), float("inf")]}, 3, "gap", ["'inf'"]),
    ],
)
def test_bad_tables(
    tmp_path: Path, columns: dict[str, list], row: int | None, field: str | None, words: list[str]
) -> None:
    path = write_rows(tmp_path / "t.json", rows(**columns))
    with refused(DataError, *words, path=path, row=row, field=field):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "text", "row", "word"),
    [
        ("t.json", "[1]", 1, "'1'"),
        ("t.json", "{", None, "JSON"),
        ("t.json", "3", None, "JSON"),
        ("t.jsonl", '{"id": 1}\n{', 2, "JSON"),
        ("t.parquet", "PAR1", None, "not a complete parquet file"),
        ("t.json", "[]", None, "no rows"),
    ],
)
def test_unreadable_tables(tmp_path: Path, name: str, text: str, row: int | None, word: str) -> None:
    (tmp_path / name).write_text(text)
    with refused(DataError, word, path=name, row=row):
        read_table(tmp_path / name)
