"""Rows and records: which column holds the structure, and records that say two different things."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from pydantic import BaseModel, ConfigDict
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from refusals import refused

import crystalframer as cf
from crystalframer.errors import CrystalError, DataError
from crystalframer.reading.inputs import iter_structures

LATTICE = [[4.0, 0, 0], [0, 5, 0], [0, 1, 6]]
FRAC = [[0.0, 0, 0], [0.5, 0.25, 0.5]]
POSITIONS = (np.array(FRAC) @ LATTICE).tolist()
SALT = Structure(Lattice(LATTICE), ["Na", "Cl"], FRAC)
OTHER = Structure(Lattice(np.array(LATTICE) * 1.01), ["Na", "Cl"], FRAC)
CIF, POSCAR = SALT.to(fmt="cif"), SALT.to(fmt="poscar")
ROW = {"atomic_numbers": [11, 17], "frac_coords": FRAC, "lattice": LATTICE}
JARVIS = {"lattice_mat": LATTICE, "coords": FRAC, "elements": ["Na", "Cl"], "cartesian": False}
UNFLAGGED = {name: value for name, value in JARVIS.items() if name != "cartesian"}
A, B, C = SALT.lattice.abc
ANGLES = list(SALT.lattice.angles)


@pytest.mark.parametrize(
    "row",
    [
        {"Structure": SALT},
        {"CIF": CIF},
        {"Poscar": POSCAR},
        {"structure": POSCAR},
        {"cif": CIF.encode("utf-16")},
        {"structure": SALT, "cif": CIF, "poscar": POSCAR},
        {"final_structure": SALT, "note": "a\nb"},
        {"material_id": "x", "relaxed": SALT.as_dict(), "file": "x.cif"},
        {"id": "x", "text": POSCAR},
        {"structure": None, "cif": CIF},
        {"structure": "rocksalt", "cif": CIF},
        {"atoms": 2, "structure": SALT},
        {"structure": Structure(Lattice(LATTICE), ["Cl", "Na"], FRAC[::-1]), "cif": CIF},
        {**ROW, "structure": SALT},
        {**ROW, "positions": POSITIONS},
        {**ROW, "elements": ["Cl", "Na"], "nsites": 2, "formula": "Na1 Cl1", "a": A, "b": B, "c": C},
        {"structure": SALT, "formula_pretty": "NaCl", "composition": {"Na": 1.0, "Cl": 1.0}, "nsites": 2.0},
        {"structure": SALT, "formula": "rock salt", "nsites": "", "elements": "Na-Cl", "chemsys": "salts"},
        {"structure": SALT, "chemsys": "Cl-Na"},
        {"structure": SALT, "elements": '["Na", "Cl"]', "natoms": "2"},
        {**JARVIS, "abc": [round(A, 2), round(B, 2), round(C, 2)], "angles": ANGLES},
        {**UNFLAGGED, "coords": [[-0.0, 0, 0], [1.5, -0.75, 0.5]]},
    ],
)
def test_one_structure_of_a_row(row: dict[str, Any]) -> None:
    for source in (row, pandas.Series(row)):
        crystal = cf.read(source)
        assert crystal.formula == "NaCl" and len(crystal) == 2
        assert np.linalg.det(crystal.lattice) == pytest.approx(120, rel=1e-4)


def _pymatgen(lattice: dict[str, Any] = {}, site: dict[str, Any] = {}) -> dict[str, Any]:  # noqa: B006
    tree = SALT.as_dict()
    tree["lattice"] |= lattice
    tree["sites"][1] |= site
    return tree


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        ({"structure": SALT, "cif": OTHER.to(fmt="cif")}, "cif", ["structure and cif", "123"]),
        ({"Structure": SALT, "structure": OTHER}, "structure", ["Structure and structure"]),
        ({"structure": SALT, "atoms": JARVIS | {"elements": ["Na", "Br"]}}, "atoms", ["NaBr"]),
        (
            {"structure": SALT, "poscar": SALT.make_supercell(2, in_place=False).to(fmt="poscar")},
            "poscar",
            ["16 atoms"],
        ),
        ({**ROW, "structure": OTHER}, None, ["structure and atomic_numbers"]),
        ({"initial": SALT, "final": OTHER, "id": "x"}, "final", ["initial and final"]),
        ({"structure": "rocksalt"}, "structure", ["'rocksalt'"]),
        ({"structure": SALT, "nsites": 4}, "nsites", ["4", "2 atoms"]),
        ({"structure": SALT, "chemsys": "Cl-K"}, "chemsys", ["Cl-K", "NaCl"]),
        ({"structure": SALT, "n_atoms": "3"}, "n_atoms", ["3", "2 atoms"]),
        ({"structure": SALT, "formula": "NaCl2"}, "formula", ["NaCl2", "NaCl"]),
        ({"structure": SALT, "composition": {"Na": 2.0, "Cl": 1.0}}, "composition", []),
        ({"structure": SALT, "elements": ["Na", "Br"]}, "elements", ["Br", "NaCl"]),
        ({**ROW, "elements": ["Na", "Na"]}, "elements", []),
        ({**ROW, "numbers": [11, 18]}, "numbers", ["18", "17"]),
        ({**ROW, "positions": [[0, 0, 0], [2, 2, 2]]}, "frac_coords", ["site 1"]),
        ({**ROW, "cell": [4, 0, 0, 0, 5, 0, 0, 0, 6]}, "cell", []),
        ({**ROW, "a": A, "b": B, "c": 2 * C}, "a, b, c", []),
        (_pymatgen(lattice={"a": 4.2}), "a, b, c", ["4.2"]),
        (_pymatgen(lattice={"gamma": 120.0}), "alpha, beta, gamma", ["120"]),
        (_pymatgen(site={"xyz": [1.0, 1.0, 1.0]}), "xyz", ["site 1"]),
        ({**JARVIS, "abc": [A, B, 7.0]}, "abc", ["7"]),
        ({**JARVIS, "angles": [90, 90, 120]}, "angles", ["120"]),
        ({**UNFLAGGED, "coords": POSITIONS}, "cartesian", ["add", "3"]),
        ({**UNFLAGGED, "coords": [[0, 0, 0], [1, 1, 1]]}, "cartesian", ["add"]),
    ],
)
def test_records_that_say_two_things_are_refused(row: dict[str, Any], field: str | None, words: list[str]) -> None:
    with refused(CrystalError, *words, field=field):
        cf.read(row)


@pytest.mark.parametrize("column", ["file", "path", "CIF file", "structure_filename", "structure", "cif"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "csv.gz"])
def test_paths_of_structures_are_relative_to_their_table(column: str, suffix: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "POSCAR").write_text(POSCAR)
    (tmp_path / "c.cif").write_text(CIF)
    frame = pandas.DataFrame({column: ["a/POSCAR", "b\\POSCAR", "c.cif", "d.cif"], "gap": [1.0, 2.0, 3.0, 4.0]})
    path = tmp_path / f"table.{suffix}"
    if "jsonl" in suffix:
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    with refused(CrystalError, "'d.cif'", path=path, row=4, field=column):
        cf.read_all(path)
    (tmp_path / "d.cif").write_text("data_x")
    with refused(CrystalError, "d.cif", path=path, row=4, field=column):
        cf.read_all(path)
    (tmp_path / "d.cif").write_text(CIF)
    assert [crystal.id for crystal in cf.read_all(path)] == ["a", "b", "c", "d"]
    data = cf.dataset(path)
    assert data.ids.tolist() == ["a", "b", "c", "d"] and list(data.targets) == ["gap"]


def test_entries_and_documents_of_pymatgen_and_the_materials_project() -> None:
    class Document(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        material_id: str = "mp-1"
        nsites: int = 2
        structure: Structure = SALT
        title: str | None = None

    entry = ComputedStructureEntry(SALT, -1.0, entry_id="mp-2")
    assert [crystal.id for crystal in cf.read_all([Document(), entry])] == ["mp-1", "mp-2"]
    assert cf.read_all(Document())[0].id == "mp-1"


def test_files_of_a_run_are_called_as_its_folder(tmp_path: Path) -> None:
    for run in ("run1", "run2"):
        (tmp_path / run).mkdir()
        for name in ("poscar", "CONTCAR.gz", "Poscar.vasp", "OUTCAR", "vasprun.xml"):
            content = gzip.compress(POSCAR.encode()) if name.endswith(".gz") else POSCAR.encode()
            (tmp_path / run / name).write_bytes(content)
    for name in ("poscar", "CONTCAR.gz", "Poscar.vasp", "OUTCAR", "vasprun.xml"):
        found = list(iter_structures(str(tmp_path / "*" / name)))
        assert [record.id for record in found] == ["run1", "run2"]
        assert (found[0].error is None) == (name not in ("OUTCAR", "vasprun.xml"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.xlsx", ["spreadsheet", "CSV"]),
        ("x.zip", ["archive", "unpack"]),
        ("x.tar.gz", ["archive"]),
        ("x.pkl", ["pickle", "any code"]),
        ("x.h5", ["HDF5"]),
        ("x.txt", ["suffix"]),
        ("x", ["suffix"]),
    ],
)
def test_files_of_other_kinds_say_what_to_do(name: str, words: list[str], tmp_path: Path) -> None:
    content = b"PK\x03\x04\x00"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with refused(CrystalError, *words, path=name):
        cf.read(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"id|cif\na|b\n", ["'id|cif'", "commas"]),
        (b"id gap\na 1\n", ["'id gap'", "commas"]),
        (b"id,file\na,b,c\n", ["3 cells", "2 columns", "quotes"]),
        (b'id,file\na,"b\n', ["quotation mark is not closed"]),
        (b'id,file\na,"b"c\n', ["behind a closing quotation mark"]),
        (b"PK\x03\x04\x00", ["no text"]),
        (b"id,gap\na,1\n", ["structure", "file", "id, gap"]),
    ],
)
def test_tables_that_cannot_be_used_say_why(text: bytes, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(text)
    with refused(CrystalError, *words, path="t.csv", row=1):
        cf.read_all(tmp_path / "t.csv")


def test_a_folder_without_structures_names_its_tables(tmp_path: Path) -> None:
    (tmp_path / "runs" / "1" / "last").mkdir(parents=True)
    (tmp_path / "runs" / "1" / "last" / "a.cif").write_text(CIF)
    (tmp_path / "candidates.csv").write_text("id,file\n")
    with refused(CrystalError, "candidates.csv", "**", "*.cif", path=tmp_path):
        cf.read_all(tmp_path)
    with refused(DataError, "candidates.csv", path=tmp_path):
        cf.dataset(tmp_path)


def test_paths_in_memory_are_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.cif").write_text(CIF)
    monkeypatch.chdir(tmp_path)
    assert [crystal.id for crystal in cf.read_all(pandas.DataFrame({"File": ["a.cif"]}))] == ["a"]
    assert cf.read({"id": "x", "path": "a.cif"}).id == "x"
    for cell in ("x" * 10_000, "~no-such-user/a.cif", "a\0b", ".", "/", "a/../../none.cif"):
        good, bad = iter_structures([{"path": "a.cif"}, {"path": cell}])
        assert good.error is None and "no file in" in str(bad.error)


@pytest.mark.parametrize("text", ["x" * 10_000, "~no-such-user/a.cif", "a\0b"])
def test_text_that_can_be_no_path_stops_no_other(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(CIF)
    bad, good = iter_structures([text, tmp_path / "a.cif"])
    assert good.error is None and "can be no path" in str(bad.error) and len(str(bad.error)) < 300
    with refused(CrystalError, "can be no path"):
        cf.read(text)


FRAME = pandas.DataFrame({"material_id": ["x", "y"], "structure": [SALT.as_dict(), SALT.as_dict()], "gap": [1.0, 2.0]})


@pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "table", "lists"])
@pytest.mark.parametrize("index", [None, "material_id"])
def test_json_of_pandas(orient: Any, index: str | None, tmp_path: Path) -> None:
    frame = FRAME if index is None or orient in ("records", "lists") else FRAME.set_index(index)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(frame.to_dict("list")) if orient == "lists" else frame.to_json(orient=orient) or "")
    assert [crystal.id for crystal in cf.read_all(path)] == ["x", "y"]
    data = cf.dataset(path)
    assert data.ids.tolist() == ["x", "y"] and data.targets["gap"].tolist() == [1, 2]
    if orient not in ("records", "lists"):
        path.write_text(frame[["structure"]].reset_index(drop=True).to_json(orient=orient) or "")
        assert [crystal.id for crystal in cf.read_all(path)] == ["table-1", "table-2"]


def test_a_table_that_names_itself_is_refused(tmp_path: Path) -> None:
    for name, text in (("t.csv", "file\nt.csv\n"), ("t.json", '{"structure": "t.json"}')):
        (tmp_path / name).write_text(text)
        with refused(CrystalError, path=name):
            cf.read_all(tmp_path / name)


def test_json_that_is_no_table_of_pandas_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for tree in (
        {"columns": ["id", "structure"], "data": [["x"]]},
        {"columns": ["structure", "structure"], "data": [[1, 2]]},
        {"structure": {"0": SALT.as_dict()}, "gap": {"0": 1.0, "1": 2.0}},
        FRAME.to_numpy().tolist(),
    ):
        path.write_text(json.dumps(tree))
        with refused(CrystalError, path=path):
            cf.read_all(path)
