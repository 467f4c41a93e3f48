import csv
import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from pymatgen.core import Lattice, Structure
from refusals import refused
from tables import write_rows

import crystalframer as cf
from crystalframer.config import DataConfig, Target
from crystalframer.datasets.labelled import read_folder, read_table
from crystalframer.datasets.sources import dataset
from crystalframer.errors import CrystalError, DataError
from crystalframer.reading.inputs import read_all

FLAT = ["id", "atomic_numbers", "positions", "lattice", "gap", "gap"]


def structure(length: float) -> Structure:
    return Structure(Lattice.cubic(length), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


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


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
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


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_tables_of_nested_lists(tmp_path: Path, suffix: str) -> None:
    nested = rows(positions=[[[0.1, 0.2, 0.3]]], lattice=[[[4.0, 0, 0], [0, 5.0, 0], [0, 0, 6.0]]], gap=[1.0])
    data = read_table(write_rows(tmp_path / f"t{suffix}", nested))
    assert data[0].positions.tolist() == [[0.1, 0.2, 0.3]]
    assert np.diag(data[0].lattice).tolist() == [4, 5, 6]


def test_json_by_id(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({row.pop("id"): row for row in rows(gap=[1, 2, 3])}))
    assert read_table(path).ids.tolist() == ["c0", "c1", "c2"]


@pytest.mark.parametrize(
    "text",
    [
        " id , gap\n a , 1\nb,\nc,3 \n",
        "id,gap,,\na,1,,\nb,,,\nc,3,,\n,,,\n",
        "id,gap\na,1,\nb,,\nc,3,\n\n",
        "sep=;\nid;gap\na;1\nb;\nc;3\n",
        '"id","gap"\n"a","1"\n"b",""\n"c","3"\n',
        '"id; or so";gap;id\nx;1;a\ny;;b\nz;3;c\n',
        "\nid,gap\r\na,1\r\nb,\r\nc,3\r\n",
        ",id,gap\n0,a,1\n1,b,\n2,c,3\n",
        "Unnamed: 0,id,gap\n0,a,1\n1,b,\n2,c,3\n",
        "index,level_0,gap,id\n0,4,1,a\n1,3,,b\n2,2,3,c\n",
        ",gap\na,1\nb,\nc,3\n",
        "id,nelements,spg_number,num_sites,gap\na,2,221,2,1\nb,2,221,2,\nc,2,221,2,3\n",
        "id,material_id,gap\n1,a,1\n2,b,\n3,c,3\n",
        "MP-ID,icsd_id,gap\na,1,1\nb,2,\nc,3,3\n",
        "filename,gap\na.cif,1\nb.cif,\nc.cif,3\n",
        "id;gap\na;1\nb;\nc;3",
        "id\tgap\na\t1\nb\t\nc\t3",
        *(f"id,gap\na,1\nb,{missing}\nc,3\n" for missing in ("", "NaN", "null", " n/a ")),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_csv_as_people_and_programs_write_it(folder: Path, text: str, encoding: str) -> None:
    (folder / "labels.csv").write_text(text, encoding=encoding, newline="")
    data = read_folder(folder)
    assert data.ids.tolist() == ["a", "b", "c"] and list(data.targets) == ["gap"]
    np.testing.assert_array_equal(data.targets["gap"], [1, np.nan, 3])


@pytest.mark.parametrize("name", ["labels.json", "labels.jsonl"])
def test_two_values_of_one_name_are_refused(folder: Path, name: str) -> None:
    rows = '{"id": "a", "gap": 1, "gap": 2}\n'
    (folder / name).write_text(f"[{rows}]" if name.endswith(".json") else rows)
    with refused(DataError, "2 entries called 'gap'", path=name, field="gap"):
        read_folder(folder)


def test_two_columns_of_one_name_in_parquet_are_refused(folder: Path, tmp_path: Path) -> None:
    table = pyarrow.table([["a", "b", "c"], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], ["id", "gap", "gap"])
    parquet.write_table(table, folder / "labels.parquet")
    with refused(DataError, "2 columns called 'gap'", path="labels.parquet", field="gap"):
        read_folder(folder)
    flat = pyarrow.table([["a"], [[11]], [[0.0, 0, 0]], [[4.0, 0, 0, 0, 4, 0, 0, 0, 4]], [1.0], [2.0]], names=FLAT)
    parquet.write_table(flat, tmp_path / "flat.parquet")
    with refused(DataError, "2 columns called 'gap'", path="flat.parquet", field="gap"):
        read_table(tmp_path / "flat.parquet")


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_structures_of_any_length_fit_into_a_cell(tmp_path: Path, suffix: str) -> None:
    text = structure(4.0).to(fmt="cif") + "# long comment\n" * 20_000
    limit = csv.field_size_limit()
    path = write_rows(tmp_path / f"t{suffix}", [{"id": "a", "cif": text, "gap": 1.0}])
    data = read_table(path)
    assert data.formulas.tolist() == ["NaCl"] and data.targets["gap"].tolist() == [1.0]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(
    "column",
    ["mp_id", "cif_id", "ID", "name", "Material ID", "material-id", "filename", "refcode", "ICSD_code", "cod_id"],
)
def test_ids_under_other_names(tmp_path: Path, suffix: str, flat: bool, column: str) -> None:
    text = structure(4.0).to(fmt="cif")
    given = rows(gap=[1, 2, 3])
    if not flat:
        given = [{"structure": text, "gap": row["gap"]} for row in given]
    for number, row in enumerate(given):
        row.pop("id", None)
        row[column] = 100 + number if "cod" in column else f"mp-{100 + number}"
    data = read_table(write_rows(tmp_path / f"t{suffix}", given))
    assert [id.removeprefix("mp-") for id in data.ids] == ["100", "101", "102"]
    assert list(data.targets) == ["gap"]
    assert f"column {column!r}" in data.provenance.source


def test_ids_follow_one_rule_in_data_sets_and_predictions(tmp_path: Path) -> None:
    for names, expected in (
        ({"name": ["NaCl", "NaCl", "KCl"], "refcode": ["A", "B", "C"]}, ["A", "B", "C"]),
        ({"name": ["NaCl", "NaCl", "KCl"]}, ["NaCl", "NaCl-2", "KCl"]),
        ({"name": ["x", "y", "z"], "refcode": ["A", "", "C"]}, ["A", "y", "C"]),
        ({"refcode": ["A", None, "NA"]}, ["A", "t-2", "t-3"]),
        ({"name": ["Na", "K", "Cs"]}, ["Na", "K", "Cs"]),
        ({"file": ["x/a.cif", "run1/POSCAR", "x"]}, ["a", "run1", "x"]),
        ({"Unnamed: 0": [0, 1, 2]}, ["t-1", "t-2", "t-3"]),
        ({}, ["t-1", "t-2", "t-3"]),
        ({"Unnamed: 0": ["mp-1", "mp-2", "mp-3"]}, ["mp-1", "mp-2", "mp-3"]),
        ({"id": ["i", "j", "k"], "material_id": ["A", "B", "C"]}, ["i", "j", "k"]),
    ):
        plain = [{name: cell for name, cell in row.items() if name != "id"} for row in rows()]
        given = [row | {name: cells[n] for name, cells in names.items()} for n, row in enumerate(plain)]
        for suffix in (".json", ".jsonl", ".csv", ".parquet"):
            path = write_rows(tmp_path / f"t{suffix}", given)
            assert read_table(path).ids.tolist() == expected
            assert [crystal.id for crystal in read_all(path)] == expected


ID_PROP = "a,1.5\nb,\nc,-2e-3\n"


@pytest.mark.parametrize(
    ("text", "targets", "names"),
    [
        (ID_PROP, None, ["target"]),
        (ID_PROP, [Target("gap", "eV")], ["gap"]),
        (ID_PROP.replace(",", ".cif,"), ["gap"], ["gap"]),
        ("id,gap\n" + ID_PROP, None, ["gap"]),
        (ID_PROP.replace("\n", ",1\n"), None, ["target_1", "target_2"]),
    ],
)
def test_id_prop_of_cgcnn_and_alignn(
    folder: Path, text: str, targets: list[str | Target] | None, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "id_prop.csv").write_text(text)
    (folder / "atom_init.json").write_text('{"1": [0, 1], "2": [1, 0]}')
    for source in (folder, folder / "id_prop.csv"):
        data = dataset(source, targets=targets)
        assert data.ids.tolist() == ["a", "b", "c"] and list(data.targets) == names
        np.testing.assert_array_equal(data.targets[names[0]], [1.5, np.nan, -2e-3])
    with refused(CrystalError, "folder", path="id_prop.csv"):
        cf.read_all(folder / "id_prop.csv")
    assert "skipped" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "targets", "row", "field"),
    [
        (ID_PROP, ["gap", "energy"], None, "targets"),
        ("a\nb\nc\n", None, 1, None),
        ("a,1\nb,1,2\nc,1\n", None, 2, None),
        ("a,1\nb,1\na,1\n", None, 3, None),
        ("a,1\nb,x\nc,1\n", None, 2, "target"),
        ("a,1\nb,1\nd,1\n", None, None, None),
    ],
)
def test_bad_id_prop(folder: Path, text: str, targets: list[str] | None, row: int | None, field: str | None) -> None:
    (folder / "id_prop.csv").write_text(text)
    with refused(DataError, path="id_prop.csv", row=row, field=field):
        dataset(folder, targets=targets)


def test_id_prop_with_files_of_alignn(tmp_path: Path) -> None:
    for number in (10, 2):
        structure(number).to(str(tmp_path / f"POSCAR-JVASP-{number}.vasp"), fmt="poscar")
    for names in ("POSCAR-JVASP-10.vasp", "POSCAR-JVASP-2.vasp"), ("JVASP-10", "JVASP-2"):
        (tmp_path / "id_prop.csv").write_text("".join(f"{name},{n}\n" for n, name in enumerate(names)))
        data = dataset(tmp_path)
        assert data.ids.tolist() == ["POSCAR-JVASP-10", "POSCAR-JVASP-2"]
        assert data[0].lattice[0, 0] == pytest.approx(10)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("id,file,gap\nm1,a.cif,1\nm2,b.cif,2\nm3,c.cif,3\n", ["m1", "m2", "m3"]),
        ("file,Material ID,gap\nc,m1,1\nb,m2,2\na,m3,3\n", ["m1", "m2", "m3"]),
        ("id,file,gap\nm1,a.cif,1\nNA,b.cif,2\n,c.cif,3\n", ["m1", "b", "c"]),
        ("name,file,gap\nm1,a.cif,1\nm2,b.cif,2\nm3,c.cif,3\n", ["a", "b", "c"]),
    ],
)
def test_ids_beside_the_names_of_files(folder: Path, text: str, ids: list[str], capsys: pytest.CaptureFixture) -> None:
    (folder / "labels.csv").write_text(text)
    data = dataset(folder)
    assert data.ids.tolist() == ids and list(data.targets) == ["gap"]
    assert ("2 of 3 rows have no id in the column 'id'" in capsys.readouterr().err) == ("NA" in text)
    (folder / "labels.csv").write_text(text.replace("m2", "m1"))
    if "id" in text.lower() and "m2" in text:
        with refused(DataError, "'m1'", path="labels.csv", row=2, field="id"):
            dataset(folder)


def test_labels_separated_by_tabs(folder: Path) -> None:
    (folder / "labels.tsv").write_bytes("id\tgap (µeV), PBE\na\t1\nb\t\nc\t3\n".encode("latin-1"))
    assert list(dataset(folder).targets) == ["gap (µeV), PBE"]


def test_names_after_poscar(tmp_path: Path) -> None:
    for number in (22862, 1265):
        structure(number / 1000).to(str(tmp_path / f"POSCAR.mp-{number}"), fmt="poscar")
    for form in ("POSCAR.mp-{}", "mp-{}"):
        write_rows(tmp_path / "labels.csv", [{"id": form.format(number), "gap": number} for number in (22862, 1265)])
        data = dataset(tmp_path)
        assert data.ids.tolist() == ["POSCAR.mp-22862", "POSCAR.mp-1265"]
        assert data[1].lattice[0, 0] == pytest.approx(1.265)
    structure(1.0).to(str(tmp_path / "CONTCAR.mp-1265"), fmt="poscar")
    with refused(DataError, "'mp-1265' may be CONTCAR.mp-1265 or POSCAR.mp-1265", path="labels.csv", row=2):
        dataset(tmp_path)


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
        ("compound,gap\na,1\n", None, 1, None, ["`id` or `file`"]),
        ("id,gap,gap\na,1,2\nb,1,2\nc,2,3\n", ["gap"], None, "gap", ["2 columns called 'gap'"]),
        ("id,gap, gap \na,1,2\nb,1,2\nc,2,3\n", None, None, "gap", ["2 columns called 'gap'"]),
        ("id;gap\na;5,03\nb;1\nc;2\n", None, 1, "gap", ["'5,03'", "decimal point"]),
        ("id;gap\na;5,03\nb;1,1\nc;2,0\n", None, 1, "gap", ["'5,03'", "decimal point"]),
        ("id;gap\na;1.234,5\nb;1\nc;2\n", None, 1, "gap", ["'1.234,5'", "thousands"]),
        ('id,gap\na,"1,234.5"\nb,1\nc,2\n', None, 1, "gap", ["'1,234.5'", "thousands"]),
        ("id,gap\na,1 234\nb,1\nc,2\n", None, 1, "gap", ["'1 234'", "thousands"]),
        ("id,gap\na,\u22121\nb,1\nc,2\n", None, 1, "gap", ["'\u22121'"]),
        ("id,gap\na,1_0\nb,1\nc,2\n", None, 1, "gap", ["'1_0'"]),
        ("id,gap,\na,5,03\nb,5,1\nc,1,\n", None, 1, None, ["'03'", "no name"]),
        ("id,gap\na,5,03\nb,1\nc,1\n", None, 1, None, ["2 columns"]),
        ("id,gap\na,1\nb\nc,2\n", None, 2, None, ["2 columns"]),
        ("id,gap\na,1,7\n", None, 1, None, ["2 columns"]),
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


def test_labels_that_are_no_numbers_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("labels.csv", "Labels.csv"):
        (folder / name).write_text("id,gap\na,1.0 eV\nb,2.0 eV\nc,\n")
        assert not dataset(folder).targets
        assert "'gap' holds '1.0 eV'" in capsys.readouterr().err
        (folder / name).unlink()
    for name in ("labels.xlsx", "id_prop.txt"):
        (folder / name).write_text("x")
    assert not dataset(folder).targets
    assert "(id_prop.txt, labels.xlsx)" in capsys.readouterr().err


def test_labels_that_are_no_text(folder: Path) -> None:
    (folder / "labels.csv").write_bytes(b"PK\x03\x04\x00\x00")
    with refused(DataError, "no text", path="labels.csv"):
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
        ("t.json", "3", None, "neither a structure nor a table"),
        ("t.jsonl", '{"id": 1}\n{', 2, "JSON"),
        ("t.parquet", "PAR1", None, "not a complete parquet file"),
        ("t.json", "[]", None, "no rows"),
    ],
)
def test_unreadable_tables(tmp_path: Path, name: str, text: str, row: int | None, word: str) -> None:
    (tmp_path / name).write_text(text)
    with refused(DataError, word, path=name, row=row):
        read_table(tmp_path / name)
