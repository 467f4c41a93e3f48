"""JSON of other programs: the same crystal from each of them, or an error that names the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import pytest
from ase.io.jsonio import encode
from monty.json import MontyEncoder
from pymatgen.core import Lattice, Molecule, Structure
from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry
from pymatgen.io.ase import AseAtomsAdaptor
from refusals import refused

import crystalframer as cf
from crystalframer.errors import CrystalError, CrystalWarning

LATTICE = [[4.0, 0, 0], [0, 5, 0], [0, 1, 6]]
FRAC = [[0.0, 0, 0], [0.5, 0.25, 0.5]]
POSITIONS = (np.array(FRAC) @ LATTICE).tolist()
SALT = Structure(Lattice(LATTICE), ["Na", "Cl"], FRAC)
ATOMS = ase.Atoms("NaCl", POSITIONS, cell=LATTICE, pbc=True)
JARVIS = {"lattice_mat": LATTICE, "coords": FRAC, "elements": ["Na", "Cl"], "cartesian": False}
ROW = {"atomic_numbers": [11, 17], "frac_coords": FRAC, "lattice": LATTICE}
HALVES = {"sites_in_groups": [[0], [1]], "group_probabilities": [0.5, 0.5]}
OPTIMADE: dict[str, Any] = {
    "lattice_vectors": LATTICE,
    "cartesian_site_positions": POSITIONS,
    "species_at_sites": ["Na", "Cl"],
    "species": [
        {"name": "Na", "chemical_symbols": ["Na"], "concentration": [1.0]},
        {"name": "Cl", "chemical_symbols": ["Cl"], "concentration": [1]},
    ],
    "dimension_types": [1, 1, 1],
    "nperiodic_dimensions": 3,
    "nsites": 2,
    "structure_features": [],
}


def answer(**attributes: Any) -> dict[str, Any]:
    entry = {"id": "x", "type": "structures", "attributes": {**OPTIMADE, **attributes}}
    return {"data": entry, "meta": {"more_data_available": False}}


def chlorine(**changes: Any) -> dict[str, Any]:
    return answer(species=[OPTIMADE["species"][0], {**OPTIMADE["species"][1], **changes}])


def ase_json(folder: Path, *atoms: ase.Atoms) -> str:
    ase.io.write(folder / "by_ase.json", list(atoms))
    text = (folder / "by_ase.json").read_text()
    (folder / "by_ase.json").unlink()
    return text


ONE = {
    "pymatgen": SALT.as_dict(),
    "pymatgen by monty": json.loads(json.dumps(SALT, cls=MontyEncoder)),
    "entry": ComputedStructureEntry(SALT, -1.0).as_dict(),
    "document": {"material_id": "mp-1", "nsites": 2, "structure": SALT.as_dict()},
    "jarvis": JARVIS,
    "jarvis with text": {**JARVIS, "cartesian": "false"},
    "jarvis with 0": {**JARVIS, "cartesian": 0},
    "jarvis, Cartesian": {**JARVIS, "coords": POSITIONS, "cartesian": True},
    "jarvis, Cartesian in text": {**JARVIS, "coords": POSITIONS, "cartesian": "True"},
    "jarvis with 1": {**JARVIS, "coords": POSITIONS, "cartesian": "1"},
    "jarvis document": {"jid": "JVASP-1", "atoms": JARVIS, "gap": 1.0},
    "optimade": answer(),
    "optimade entry": answer()["data"],
    "optimade attributes": OPTIMADE,
    "optimade, few fields": answer(dimension_types=None, nperiodic_dimensions=None, structure_features=None, nsites=2),
    "ase": json.loads(encode(ATOMS)),
    "ase in pymatgen": AseAtomsAdaptor.get_atoms(SALT).as_dict(),
    "row": ROW,
    "row with arrays": json.loads(json.dumps({name: np.array(ROW[name]) for name in ROW}, cls=MontyEncoder)),
}


def check(crystal: cf.Crystal) -> None:
    assert crystal.atomic_numbers.tolist() == [11, 17]
    np.testing.assert_allclose(crystal.lattice, LATTICE, atol=1e-12)
    np.testing.assert_allclose(crystal.positions, POSITIONS, atol=1e-12)


@pytest.mark.parametrize("kind", ONE)
def test_one_structure(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "salt.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text(json.dumps(ONE[kind]), encoding=encoding)
        check(cf.read(path))
    assert cf.read(path).id == "salt"
    assert [crystal.id for crystal in cf.read_all(tmp_path)] == ["salt"]


def test_json_of_something_else_is_not_taken_from_a_folder(tmp_path: Path) -> None:
    for name, tree in (("a", SALT.as_dict()), ("b", ComputedEntry("NaCl", -1.0).as_dict()), ("c", {"note": "x"})):
        (tmp_path / f"{name}.json").write_text(json.dumps(tree))
    assert [crystal.id for crystal in cf.read_all(tmp_path)] == ["a"]


def test_several_structures(tmp_path: Path) -> None:
    path = tmp_path / "salts.json"
    entries = [{**answer()["data"], "id": name} for name in ("a", "b")]
    documents = [{"material_id": name, "structure": SALT.as_dict()} for name in ("a", "b")]
    for tree in (documents, {"data": documents}, {"data": entries}, {"a": JARVIS, "b": SALT.as_dict()}):
        path.write_text(json.dumps(tree))
        crystals = cf.read_all(path)
        assert [crystal.id for crystal in crystals] == ["a", "b"]
        for crystal in crystals:
            check(crystal)
    path.write_text(json.dumps([SALT.as_dict(), answer()["data"], json.loads(encode(ATOMS))]))
    assert [crystal.formula for crystal in cf.read_all(path)] == ["NaCl"] * 3


def test_json_of_ase(tmp_path: Path) -> None:
    path = tmp_path / "salts.json"
    path.write_text(ase_json(tmp_path, ATOMS))
    check(cf.read(path))
    path.write_text(ase_json(tmp_path, ATOMS, ATOMS[[1, 0]]))
    first, second = cf.read_all(path)
    check(first)
    assert second.atomic_numbers.tolist() == [17, 11]
    molecule = ase.Atoms("OH2", [[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    path.write_text(ase_json(tmp_path, molecule))
    with refused(CrystalError, "no cell"):
        cf.read(path)
    path.write_text(ase_json(tmp_path, ase.Atoms(molecule, cell=LATTICE)))
    with refused(CrystalError, field="pbc"):
        cf.read(path)


@pytest.mark.parametrize(
    ("tree", "field", "site", "words"),
    [
        (Molecule(["H"], [[0, 0, 0]]).as_dict(), "lattice", None, ["molecule"]),
        (ComputedEntry("NaCl", -1.0).as_dict(), None, None, ["ComputedEntry"]),
        (Structure(Lattice(LATTICE, (True, True, False)), ["Na", "Cl"], FRAC).as_dict(), "pbc", None, ["along 2"]),
        ({**json.loads(encode(ATOMS)), "pbc": "False"}, "pbc", None, ["along 0"]),
        ({**json.loads(encode(ATOMS)), "pbc": [True, True, "no"]}, "pbc", None, ["'no'"]),
        ({"material_id": "mp-1", "structure": None}, "structure", None, []),
        ({**JARVIS, "cartesian": "no idea"}, "cartesian", None, ["no idea"]),
        ({**JARVIS, "cartesian": None}, "cartesian", None, []),
        ({**JARVIS, "elements": ["Na", "X"]}, None, 1, ["'X'"]),
        ({**JARVIS, "elements": ["Na", "Vac"]}, None, 1, ["'Vac'"]),
        (chlorine(concentration=[0.9]), None, 1, ["Cl", "0.9"]),
        (chlorine(chemical_symbols=["Cl", "vacancy"], concentration=[0.9, 0.1]), None, 1, ["vacancy 0.1"]),
        (chlorine(chemical_symbols=["Cl", "Br"], concentration=[0.5, 0.5]), None, 1, ["Br 0.5"]),
        (chlorine(chemical_symbols=["X"]), None, 1, ["'X'"]),
        (chlorine(chemical_symbols=["vacancy"]), None, 1, ["'vacancy'"]),
        (chlorine(attached=["H"], nattached=[1]), None, 1, ["attached"]),
        (answer(species_at_sites=["Na", "K"]), None, 1, ["K"]),
        (answer(species_at_sites=["Na"]), "nsites", None, []),
        (answer(nsites=4), "nsites", None, ["4"]),
        (answer(dimension_types=[1, 1, 0]), "dimension_types", None, ["2 of 3"]),
        (answer(dimension_types=None, nperiodic_dimensions=2), "dimension_types", None, ["2 of 3"]),
        (answer(lattice_vectors=[*LATTICE[:2], [None, None, None]]), "dimension_types", None, ["2 of 3"]),
        (answer(structure_features=["disorder"]), "structure_features", None, []),
        (answer(structure_features=["implicit_atoms"]), "implicit_atoms", None, []),
        (answer(assemblies=[HALVES]), "assemblies", None, []),
        (answer(species=None), "species", None, []),
        ({"data": {"id": "x", "type": "references", "attributes": {"title": "x"}}}, "type", None, ["references"]),
        ({**JARVIS, "energy": float("nan")}, None, None, ["NaN"]),
        ({**JARVIS, "energy": float("-inf")}, None, None, ["-Infinity"]),
    ],
)
def test_what_is_no_crystal_is_refused(
    tree: Any, field: str | None, site: int | None, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(tree))
    with refused(CrystalError, *words, field=field, site=site, path="x.json"):
        cf.read(path)


def test_a_number_that_is_missing_in_a_table_is_an_error_of_its_row_or_a_missing_label(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{**JARVIS, "id": "a", "gap": float("nan")}, {**JARVIS, "id": "b", "gap": 1.0}]))
    assert len(cf.read_all(path)) == 2 and np.isnan(cf.dataset(path).targets["gap"][0])
    path.write_text(json.dumps([JARVIS, {**JARVIS, "coords": [[0, 0, 0], [0, 0, float("nan")]]}]))
    with refused(CrystalError, row=2):
        cf.read_all(path)


def test_deuterium_is_hydrogen(tmp_path: Path) -> None:
    heavy = [
        Structure(Lattice(LATTICE), ["D", "T"], FRAC).as_dict(),
        {**JARVIS, "elements": ["D", "T"]},
        answer(species=[{"name": n, "chemical_symbols": [s]} for n, s in (("Na", "D"), ("Cl", "T"))])["data"],
    ]
    (tmp_path / "x.json").write_text(json.dumps(heavy))
    assert [crystal.atomic_numbers.tolist() for crystal in cf.read_all(tmp_path / "x.json")] == [[1, 1]] * 3


def charged() -> list[Any]:
    ions = SALT.copy().add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    atoms = ATOMS.copy()
    atoms.set_initial_charges([1, -1])
    return [ions, ions.as_dict(), SALT.copy().set_charge(1), atoms, json.loads(encode(atoms))]


def magnetic() -> list[Any]:
    structure = SALT.copy(site_properties={"magmom": [1.0, 0.0]})
    spins = SALT.copy().add_spin_by_element({"Na": 2})
    atoms = ATOMS.copy()
    atoms.set_initial_magnetic_moments([1, 0])
    return [structure, structure.as_dict(), spins, atoms, json.loads(encode(atoms))]


LEFT_OUT = {"oxidation states and charges": charged(), "magnetic moments": magnetic()}


@pytest.mark.parametrize(("what", "source"), [(what, source) for what in LEFT_OUT for source in LEFT_OUT[what]])
def test_charges_and_moments_are_said_to_be_left_out(what: str, source: Any) -> None:
    with pytest.warns(CrystalWarning, match=f"{what} are left out"):
        check(cf.read(source))


def test_moments_and_charges_that_are_zero_are_no_news() -> None:
    structure = SALT.copy(site_properties={"magmom": [0.0, 0.0], "charge": [0.1, 0.2]})
    atoms = ATOMS.copy()
    atoms.set_initial_magnetic_moments([0, 0])
    for source in (structure, structure.as_dict(), atoms, json.loads(encode(atoms))):
        check(cf.read(source))
