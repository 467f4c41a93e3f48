import io
import json
import sys
import time
from pathlib import Path

import ase
import ase.io
import numpy as np
import pandas
import pytest
from cif_texts import text_of
from pymatgen.core import DummySpecies, Lattice, Structure
from refusals import refused
from tables import write_rows

import crystalframer as cf
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.errors import CrystalError
from crystalframer.reading.inputs import StructureRecord, iter_structures, read, unique_ids

NACL = Structure(Lattice.orthorhombic(4.0, 5.0, 6.0), ["Na", "Cl"], [[0.1, 0.2, 0.3], [0.6, 0.7, 0.8]])

SITES = ["Na1 Na 0.1 0.2 0.3 1", "Cl1 Cl 0.6 0.7 0.8 1"]


def cif(*sites: str) -> str:
    return text_of("test", "4.0 5.0 6.0 90 90 90", sites, "_symmetry_space_group_name_H-M 'P 1'")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def atoms() -> ase.Atoms:
    return ase.Atoms(NACL.atomic_numbers, positions=NACL.cart_coords, cell=NACL.lattice.matrix, pbc=True)


def row(**changes: object) -> dict:
    lattice = [4.0, 0, 0, 0, 5, 0, 0, 0, 6]
    return {"atomic_numbers": [11, 17], "frac_coords": [0.1, 0.2, 0.3, 0.6, 0.7, 0.8], "lattice": lattice, **changes}


JARVIS = {
    "lattice_mat": [[4, 0, 0], [0, 5, 0], [0, 0, 6]],
    "coords": [[0.1, 0.2, 0.3], [0.6, 0.7, 0.8]],
    "elements": ["Na", "Cl"],
    "cartesian": False,
}


def _file(kind: str, folder: Path) -> Path:
    path = folder / kind
    if kind.lower().endswith(".cif"):
        return write(path, cif(*SITES))
    if kind.endswith(".json"):
        return write(path, json.dumps(NACL.as_dict()))
    if kind.endswith("xyz"):
        ase.io.write(path, atoms(), format="extxyz")
    elif kind.endswith(".xsf"):
        ase.io.write(path, atoms())
    else:
        NACL.to(str(path), fmt="poscar")
    return path


def assert_is_nacl(crystal: Crystal) -> None:
    order = np.argsort(crystal.atomic_numbers)
    assert crystal.atomic_numbers[order].tolist() == [11, 17]
    np.testing.assert_allclose(crystal.positions[order], NACL.cart_coords, atol=1e-6)
    np.testing.assert_allclose(crystal.lattice, NACL.lattice.matrix, atol=1e-6)


@pytest.mark.parametrize(
    "kind", ["x.cif", "x.CIF", "x.json", "x.extxyz", "x.xyz", "x.xsf", "x.vasp", "POSCAR", "CONTCAR"]
)
def test_files(kind: str, tmp_path: Path) -> None:
    path = _file(kind, tmp_path)
    crystal = read(path)
    assert_is_nacl(crystal)
    assert crystal.id == (tmp_path.name if kind.isupper() and "." not in kind else "x")
    assert read(str(path), id="mine").id == "mine"


@pytest.mark.parametrize(
    "source",
    [
        NACL,
        read(NACL).to_pymatgen(),
        read(NACL).to_ase(),
        atoms(),
        cif(*SITES),
        row(),
        row(lattice=np.diag([4.0, 5.0, 6.0])),
        row(lattice=np.array([np.array([4.0, 0, 0]), np.array([0, 5.0, 0]), np.array([0, 0, 6.0])], dtype=object)),
        row(frac_coords="[[0.1, 0.2, 0.3], [0.6, 0.7, 0.8]]"),
        {**row(positions=NACL.cart_coords), "frac_coords": None},
        pandas.Series(row()),
        {"structure": NACL},
        {"structure": NACL.as_dict()},
        {"structure": json.dumps(NACL.as_dict())},
        {"structure": cif(*SITES)},
        NACL.as_dict(),
        JARVIS,
        {"atoms": JARVIS},
        {"atoms": JARVIS | {"coords": NACL.cart_coords.tolist(), "cartesian": True}},
    ],
)
def test_objects_rows_and_text(source: object) -> None:
    assert_is_nacl(read(source))


@pytest.mark.parametrize("column", ["id", "material_id", "jid"])
def test_id_of_a_row(column: str) -> None:
    assert read({**row(), column: 17}).id == "17"
    assert read({**row(), column: 17}, id="mine").id == "mine"


def test_positions_are_wrapped_and_those_inside_kept_exactly() -> None:
    frac = np.array([[0.1, 0.2, 0.3], [1.6, -0.3, 0.8]])
    crystal = read(Crystal(np.array([11, 17]), frac @ NACL.lattice.matrix, NACL.lattice.matrix, "a", {"gap": 1.0}))
    assert_is_nacl(crystal)
    assert crystal.positions[0].tolist() == (frac @ NACL.lattice.matrix)[0].tolist()
    assert crystal.id == "a" and crystal.targets == {"gap": 1.0}
    edge = read({**row(frac_coords=[-1e-18, 0, 0, 0.5, 0.5, 0.5])})
    assert (edge.frac_coords >= 0).all() and (edge.frac_coords < 1).all()


def test_hydrogen_isotopes_are_hydrogen() -> None:
    assert read(cif("D1 D 0.1 0.2 0.3 1", "H1 H 0.6 0.7 0.8 1")).atomic_numbers.tolist() == [1, 1]
    assert read(cif("H1 H 0.1 0.2 0.3 0.4", "D1 D 0.1 0.2 0.3 0.6")).atomic_numbers.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "site", "words"),
    [
        ("", None, ["empty"]),
        ("hello", None, ["no block of data"]),
        ("data_x\n_cell_length_a 4\n", None, ["_cell_length_b", "cut short"]),
        (cif("Na1 Na 0.1 0.2 ? 1"), 0, ["'Na1'", "_atom_site_fract_z"]),
        (cif(*SITES).replace("_cell_length_b 5.0", ""), None, ["_cell_length_b"]),
        (cif("Na1 Na 0.1 0.2 0.3 0.5", SITES[1]), 0, ["'Na1'", "partly occupied", "Na 0.5", "ordered structure"]),
        (cif("Na1 Na 0.1 0.2 0.3 nan", SITES[1]), 0, ["'Na1'", "occupancy"]),
        (cif("Na1 Na 0.1 0.2 0.3 0.4", "K1 K 0.1 0.2 0.3 0.6"), 0, ["partly occupied", "Na 0.4", "K 0.6"]),
        (cif(*SITES, "K1 K 0.1 0.2 0.3 1"), 0, ["(Na)", "(K)", "remove the duplicate site"]),
        (cif(*SITES, SITES[0]), 0, ["(Na)", "remove the duplicate site"]),
        (cif(*SITES, "Na2 Na 0.1 0.2 0.305 1"), None, ["(Na)", "0.03 Å apart"]),
        (cif(SITES[0], "X1 X 0.5 0.5 0.5 1"), 1, ["'X1'", "'X' is no element", "_atom_site_type_symbol"]),
        (cif(SITES[0], "W1 Wat 0.5 0.5 0.5 1"), 1, ["'W1'", "'Wat' is no element"]),
        (cif(SITES[0], "Lr1 Lr 0.5 0.5 0.5 1"), None, ["atomic number 103", "elements 1"]),
        (cif(*SITES) + cif(*SITES).replace("data_test", "data_two"), None, ["several structures", "read_all"]),
    ],
)
def test_bad_cif_names_file_and_site(text: str, site: int | None, words: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "bad.cif", text)
    with refused(CrystalError, *words, path=path, site=site):
        read(path)


@pytest.mark.parametrize("label", ["X1", "OH1", "Wat"])
def test_cif_labels_that_are_no_element(label: str) -> None:
    text = cif(f"{label} 0.5 0.5 0.5 1").replace("_atom_site_type_symbol\n", "")
    with refused(CrystalError, f"'{label}' is no element", "_atom_site_label"):
        read(text)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.extxyz", "1\n\nNa 0 0 0\n", ["no cell of three lattice vectors"]),
        ("x.extxyz", '1\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T F"\nNa 0 0 0\n', ["periodic along 2 of its 3"]),
        ("x.extxyz", '1\nLattice="4 0 0 0 4 0 4 4 0"\nNa 0 0 0\n', ["coplanar"]),
        ("x.extxyz", '2\nLattice="4 0 0 0 4 0 0 0 4"\nNa 0 0 0\nX 2 2 2\n', ["site 1", "'X'"]),
        ("x.extxyz", '2\nLattice="4 0 0 0 4 0 0 0 4"\nNa 0 0 0\n', ["ends before 2 atoms"]),
        ("x.extxyz", '1\nLattice="4 0 0 0 4 0 0 0 4"\nNa 0 nan 0\n', ["position of site 0"]),
        # Counts for which memory would be reserved before the atoms are looked for.
        ("POSCAR", "NaCl\n1.0\n4 0 0\n0 5 0\n0 0 6\nNa Cl\n1 2000000000\ndirect\n0 0 0\n", ["more atoms", "file"]),
        ("POSCAR", "NaCl\n1.0\n4 0 0\n0 5 0\n0 0 6\nNa Cl\n900000000 1 ! two\ndirect\n0 0 0\n", ["more atoms", "file"]),
        ("x.xyz", "9" * 30 + "\n\nNa 0 0 0\n", ["'9999", "should be a number of atoms"]),
        ("x.xyz", "900000000000\n\nNa 0 0 0\n", ["ends before 900,000,000,000 atoms"]),
        (
            "x.extxyz",
            f'1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:{"9" * 50}\nNa 0 0 0\n',
            ["Properties", "'9999", "columns of a kind"],
        ),
        ("x.xyz", '1\nProperties = "species:S:-1:pos:R:3"\nNa 0 0 0\n', ["Properties", "'-1' columns"]),
        ("x.extxyz", '1\nLattice="4 0 0 0 4 0 0 0 4"\nNa 0 1e300 0\n', ["position of site 0"]),
        ("x.json", "[" * 100_000, ["not valid JSON"]),
        ("x.json", '{"lattice": ' + "[" * 100_000, ["recursion"]),
        ("x.json", '{"lattice": ' + "9" * 5000 + "}", ["not valid JSON"]),
        ("x.json", "{", ["not valid JSON"]),
        ("x.json", '{"sites": [], "lattice": 3}', ["not a pymatgen structure"]),
        ("x.json", "[1]", ["row 1", "'1'"]),
        ("x.csv", "id\n", ["no rows"]),
        ("x.unknown", "what is this", ["format is not known"]),
        ("x.json", "\udcff", ["not valid JSON"]),
    ],
)
def test_bad_files_of_other_kinds(name: str, text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode(errors="surrogateescape"))
    with refused(CrystalError, *words, path=path):
        read(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with refused(CrystalError, "no such file", path="none.cif"):
        read(tmp_path / "none.cif")
    with refused(CrystalError, "is a folder", "read_all", path=tmp_path):
        read(tmp_path)
    with refused(CrystalError, "read_all takes patterns", path="*.cif"):
        read(tmp_path / "*.cif")
    with refused(CrystalError, "3 (int)"):
        read(3)


@pytest.mark.parametrize(
    ("source", "field", "site", "words"),
    [
        (row(lattice=[1.0] * 8), "lattice", None, ["9 numbers", "got 8"]),
        (row(lattice=[1.0] * 9), None, None, ["coplanar"]),
        (row(lattice="four"), "lattice", None, ["numbers"]),
        (row(frac_coords=[0.1] * 5), "frac_coords", None, ["6 numbers"]),
        (row(frac_coords=[0.1, float("nan"), 0.3, 0, 0, 0]), "positions", 0, []),
        (row(atomic_numbers=[11, 17.5]), "atomic_numbers", None, ["whole numbers"]),
        (row(atomic_numbers=[11, 120]), "atomic_numbers", 1, ["120"]),
        (row(atomic_numbers=[11, float("inf")]), "atomic_numbers", None, ["whole numbers"]),
        (row(frac_coords=[0.1, 10**400, 0.3, 0, 0, 0]), "frac_coords", None, ["numbers"]),
        (row(lattice=[1e300, 0, 0, 0, 1e300, 0, 0, 0, 1e300]), None, None, ["lattice must be"]),
        ({"id": "a", "lattice": [1]}, "atomic_numbers", None, ["crystal 'a'", "columns are: id, lattice"]),
        ({"id": "a", "structure": None}, "structure", None, ["crystal 'a'", "empty"]),
        ({"id": "a", "structure": "NaCl.cif"}, "structure", None, ["'NaCl.cif'", "no file in"]),
        (JARVIS | {"elements": ["Na", "Q"]}, None, 1, ["'Q' is no element"]),
        ({"lattice_mat": np.eye(3), "coords": []}, "elements", None, []),
        (3, None, None, ["(int)"]),
        (Structure(NACL.lattice, [DummySpecies("X"), "Cl"], NACL.frac_coords), None, 0, ["'X' is no element"]),
        (Structure(NACL.lattice, [{"Na": 0.5, "K": 0.5}, "Cl"], NACL.frac_coords), None, 0, ["partly occupied"]),
        # ASE rounds mixed sites to one element.
        (
            ase.io.read(io.StringIO(cif("Na1 Na 0.1 0.2 0.3 0.4", "K1 K 0.1 0.2 0.3 0.6")), format="cif"),
            None,
            0,
            ["partly occupied"],
        ),
        (ase.Atoms("NaCl", positions=[[0, 0, 0], [0, 0, 2]]), None, None, ["no cell of three"]),
    ],
)
def test_bad_objects(source: object, field: str | None, site: int | None, words: list[str]) -> None:
    with refused(CrystalError, *words, field=field, site=site):
        read(source)


def test_thousands_of_atoms_on_one_place_are_told_at_once() -> None:
    """They make 200 million pairs; the first is enough."""
    numbers, positions = np.ones(20_000, dtype=int), np.zeros((20_000, 3))
    with refused(CrystalError, "sites 0 ", " and 1 ", "0 Å apart", site=0):
        read(Crystal(numbers, positions, 100.0 * np.eye(3)))


def test_atoms_on_one_place_are_found_among_the_last_of_many() -> None:
    positions = np.stack(np.meshgrid(*[np.arange(11.0)] * 3), axis=-1).reshape(-1, 3) * 3
    positions[-1] = positions[-2] + 0.05
    with refused(CrystalError, " and 1330 ", site=1329):
        read(Crystal(np.ones(1331, dtype=int), positions, 33.0 * np.eye(3)))


# Many structures


def records(inputs: object) -> list[StructureRecord]:
    return list(iter_structures(inputs))


def test_one_bad_item_never_stops_the_others(tmp_path: Path) -> None:
    good = _file("good.cif", tmp_path)
    bad = write(tmp_path / "bad.cif", cif("Na1 Na 0.1 0.2 0.3 0.5"))
    found = records([good, bad, tmp_path / "none.cif", NACL, 3, row(lattice=[1.0] * 9), good])
    assert [record.crystal is not None for record in found] == [True, False, False, True, False, False, True]
    assert [record.error is None for record in found] == [record.crystal is not None for record in found]
    assert [record.id for record in found] == ["good", "bad", "none", "NaCl", "item 5", "item 6", "good"]
    assert [record.formula for record in found] == ["NaCl", "", "", "NaCl", "", "", "NaCl"]
    assert found[0].source == str(good)
    assert found[1].error is not None and found[1].error.startswith(f"{bad}: ") and "partly occupied" in found[1].error
    assert found[2].error is not None and found[2].error.endswith("none.cif: no such file or folder; check the path")
    assert found[5].error is not None and found[5].error.startswith("item 6: ")


def test_folders_globs_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("b.cif", "a.vasp", "c.json"):
        _file(kind, tmp_path)
    write(tmp_path / "README.md", "hello")
    write(tmp_path / "labels.csv", "id,gap\na,1\n")
    write(tmp_path / ".hidden.cif", "")
    write(tmp_path / "labels.json", '[{"id": "a"}]')
    assert [record.id for record in records(tmp_path)] == ["a", "b", "c"]
    assert [record.id for record in records(str(tmp_path / "*.cif"))] == ["b"]
    assert capsys.readouterr().err == ""
    assert [record.id for record in records([str(tmp_path / "b.*"), tmp_path / "a.vasp"])] == ["b", "a"]
    (missing,) = records(str(tmp_path / "*.xyz"))
    assert missing.error is not None and "no file matches" in missing.error
    empty = tmp_path / "empty"
    empty.mkdir()
    (nothing,) = records(empty)
    assert nothing.error is not None and "holds no structure files" in nothing.error
    (nothing,) = records(_folder_of_folders(tmp_path / "runs"))
    assert nothing.error is not None and str(tmp_path / "runs" / "**" / "*.cif") in nothing.error


def _folder_of_folders(path: Path) -> Path:
    (path / "1").mkdir(parents=True)
    _file("a.cif", path / "1")
    return path


@pytest.mark.parametrize("kind", ["structures", "data set", "screening"])
def test_what_a_folder_holds_and_is_not_read_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    _file("a.cif", tmp_path)
    for name in ("notes.txt", "results.csv", "x.zip", "y.zip", "z.zip", "atom_init.json", "id_prop.csv"):
        write(tmp_path / name, "x")
    for name in ("run1", "run2", ".git"):
        (tmp_path / name).mkdir()
    _file("POSCAR", tmp_path / "run2")
    if kind == "structures":
        assert len(cf.predict(tmp_path)) == 1
    elif kind == "data set":
        (tmp_path / "id_prop.csv").write_text("a,1\n")
        assert len(cf.dataset(tmp_path)) == 1
    else:
        assert cf.screen(tmp_path, tmp_path / "run1" / "screened", progress=False).n_structures == 1
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "skipped" in line]) == 1
    (line,) = (line for line in said if "skipped" in line)
    assert line.startswith(f"{tmp_path}: skipped ")
    for words in (
        "4 files of another format (notes.txt, x.zip, y.zip, ...)",
        "1 tables (results.csv)",
        "2 sub-folders (run1, run2)",
    ):
        assert words in line
    pattern = line.partition("pattern: ")[2]
    assert bool(pattern) == (kind != "data set")
    if pattern:
        assert [record.id for record in records(pattern)] == ["run2"]
    for name in ("atom_init", "id_prop", ".git"):
        assert name not in line


def test_files_named_poscar_take_the_name_of_their_folder(tmp_path: Path) -> None:
    for name in ("run1", "run2"):
        (tmp_path / name).mkdir()
        _file("CONTCAR", tmp_path / name)
    assert [record.id for record in records(str(tmp_path / "*" / "CONTCAR"))] == ["run1", "run2"]
    for name in ("POSCAR.mp-1", "POSCAR.mp-2", "POSCAR-003", "run1/POSCAR.vasp"):
        NACL.to(str(tmp_path / name), fmt="poscar")
    assert [record.id for record in records(tmp_path)] == ["POSCAR-003", "POSCAR.mp-1", "POSCAR.mp-2"]
    assert [record.id for record in records(str(tmp_path / "*" / "POSCAR.vasp"))] == ["run1"]


def test_frames(tmp_path: Path) -> None:
    path = tmp_path / "md.extxyz"
    molecule = ase.Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7]])
    ase.io.write(path, [atoms(), molecule, atoms()], format="extxyz")
    found = records(path)
    assert [record.id for record in found] == ["md-1", "md-2", "md-3"]
    assert found[1].source == f"{path}, structure 2"
    assert found[1].error is not None and found[1].error.startswith(f"{path}, structure 2: ")
    with refused(CrystalError, "several structures", path=path):
        read(path)
    two = write(tmp_path / "two.cif", cif(*SITES) + cif(*SITES).replace("data_test", "data_two"))
    assert [record.id for record in records(two)] == ["two-1", "two-2"]


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
def test_tables(suffix: str, tmp_path: Path) -> None:
    rows = [row(id="a"), row(id=None, lattice=[1.0] * 9), row(id="a")]
    path = write_rows(tmp_path / f"table.{suffix}", rows)
    found = records(path)
    assert [record.id for record in found] == ["a", "table-2", "a"]
    assert found[1].error is not None and found[1].error.startswith(f"{path}, row 2: ")
    assert found[0].crystal is not None
    assert_is_nacl(found[0].crystal)


def test_data_frames_and_data_sets(tmp_path: Path) -> None:
    frame = pandas.DataFrame([{"id": "a", **row()}, row(lattice=[1.0] * 9)])
    found = records(frame)
    assert [(record.id, record.source) for record in found] == [("a", "row 1"), ("row-2", "row 2")]
    data = CrystalDataset.from_crystals([read(NACL, "x"), read(NACL, "y")])
    assert [record.id for record in records(data)] == ["x", "y"]
    data.save(tmp_path / "packed.parquet")
    again = records(tmp_path / "packed.parquet")
    assert [record.id for record in again] == ["x", "y"]
    assert again[0].crystal is not None
    np.testing.assert_array_equal(again[0].crystal.positions, data[0].positions)


def test_a_missing_library_is_one_bad_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file("x.extxyz", tmp_path)
    monkeypatch.setitem(sys.modules, "ase.io", None)
    missing, fine = records([path, NACL])
    assert missing.error == f"{path}: reading this file needs ase: pip install 'crystalframer[data]'"
    assert fine.crystal is not None


def test_single_structures_are_not_iterated_over() -> None:
    for single in (NACL, atoms(), row(), read(NACL), cif(*SITES)):
        (record,) = records(single)
        assert record.error is None
        assert record.id == record.formula == "NaCl" and record.source == "NaCl"


def test_an_id_that_very_many_share_is_numbered_in_no_time() -> None:
    started = time.process_time()
    ids = unique_ids(["same"] * 30_000)
    assert time.process_time() - started < 20  # counted anew for each, it would take minutes
    assert ids[:3] == ["same", "same-2", "same-3"] and ids[-1] == "same-30000"


def test_a_number_is_added_to_repeated_ids_alone_and_makes_no_id_of_another_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = ["a", "a", "a-2", "a", "a-2", "a-2-2", "a"]
    expected = ["a", "a-3", "a-2", "a-4", "a-2-3", "a-2-2", "a-5"]
    structures = [row(id=id) for id in ids]
    assert [crystal.id for crystal in cf.read_all(structures)] == expected
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("4 of 7 ids") and "'a-3'" in said
    assert [crystal.id for crystal in cf.read_all([row(), row()])] == ["NaCl", "NaCl-2"]
    assert capsys.readouterr().err == ""  # formulas are no ids that were given
    assert cf.predict(structures).id.tolist() == expected
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["occupancy", "occupancies", "occ", "site_occupancy", "Occupancy"])
def test_occupancies_beside_the_elements_are_not_passed_over(name: str) -> None:
    for values, is_whole in (([1.0, 1.0], True), ([1.0, 0.5], False), (["x", "y"], False)):
        atoms = NACL.to_ase_atoms()
        atoms.set_array(name, np.array(values))
        structure = NACL.copy()
        structure.add_site_property(name, values)
        for thing in (atoms, structure):
            if is_whole:
                assert len(read(thing)) == 2
            else:
                with refused(CrystalError, field=name):
                    read(thing)


@pytest.mark.parametrize("value", ["0.5 1", 0.5, {"0": {"Na": "x"}}])
def test_an_occupancy_of_another_kind_breaks_no_reading(value: object) -> None:
    atoms = NACL.to_ase_atoms()
    atoms.info["occupancy"] = value
    if isinstance(value, dict):
        with refused(CrystalError, field="occupancy"):
            read(atoms)
    else:
        assert len(read(atoms)) == 2


def test_an_empty_path_is_no_folder() -> None:
    (record,) = iter_structures("")
    assert record.crystal is None and "path is empty" in str(record.error)
