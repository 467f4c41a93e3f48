"""Other formats: the same crystal as it was written, or an error that says why not."""

from __future__ import annotations

import warnings
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.data import atomic_numbers
from ase.io.formats import ioformats
from refusals import refused

import crystalframer as cf
from crystalframer.errors import CrystalError, CrystalWarning
from crystalframer.reading.ase_files import CERTAIN, OURS, REASONS

ATOMS = ase.Atoms("NaCl2", [[0, 0, 0], [2, 2, 2.5], [1, 3, 5]], cell=[[4, 0, 0], [0.5, 5, 0], [0, 1, 6]], pbc=True)
READABLE = {
    "aims": "geometry.in",
    "castep-md": "x.md",
    "cif": "x.cif",
    "extxyz": "x.extxyz",
    "gen": "x.gen",
    "json": "x.json",
    "magres": "x.magres",
    "proteindatabank": "x.pdb",
    "res": "x.res",
    "traj": "x.traj",
    "vasp": "our_POSCAR_of_today",
    "vasp-xdatcar": "XDATCAR",
    "xsf": "x.xsf",
}
"""ASE's name of a format that it writes → name of a file of this kind."""
REFUSED = {
    "cube": "x.cube",
    "crystal": "x.f34",
    "dlp4": "x.config",
    "dmol-car": "x.car",
    "eon": "x.con",
    "gromacs": "x.gro",
    "lammps-data": "x.lammps-data",
    "rmc6f": "x.rmc6f",
    "struct": "x.struct",
    "xsd": "x.xsd",
}


def write(format: str, path: Path, atoms: ase.Atoms = ATOMS) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ase.io.write(path, atoms, format=format)


def test_the_tables_know_formats_of_ase() -> None:
    assert set(OURS) | set(CERTAIN) | set(REASONS) <= set(ioformats)
    assert not (set(OURS) | set(CERTAIN)) & set(REASONS)


@pytest.mark.parametrize("format", READABLE)
def test_what_ase_writes_is_the_same_crystal(format: str, tmp_path: Path) -> None:
    path = tmp_path / READABLE[format]
    write(format, path)
    crystal = cf.read(path)
    order = np.argsort(crystal.atomic_numbers, kind="stable")
    assert crystal.atomic_numbers[order].tolist() == [11, 17, 17]
    lengths = ATOMS.cell.cellpar()
    np.testing.assert_allclose(ase.Atoms(cell=crystal.lattice).cell.cellpar(), lengths, atol=0.02)
    ours = ase.Atoms(crystal.atomic_numbers[order], crystal.positions[order], cell=crystal.lattice, pbc=True)
    ours_apart, apart = (atoms.get_all_distances(mic=True) for atoms in (ours, ATOMS))
    for rows in ([0, 1, 2], [0, 2, 1]):
        if np.allclose(ours_apart[np.ix_(rows, rows)], apart, atol=0.005):
            break
    else:
        pytest.fail(f"other distances: {ours_apart} {apart}")


@pytest.mark.parametrize("format", REFUSED)
def test_what_is_not_certain_is_refused_with_the_reason(format: str, tmp_path: Path) -> None:
    path = tmp_path / REFUSED[format]
    write(format, path)
    with refused(CrystalError, "CIF", REASONS.get(format, ""), path=path):
        cf.read(path)


@pytest.mark.parametrize(
    ("format", "name", "pbc"), [("xsf", "x.xsf", (1, 1, 0)), ("xsf", "x.xsf", (0, 0, 0)), ("gen", "x.gen", (0, 0, 0))]
)
def test_slabs_and_molecules_are_refused(format: str, name: str, pbc: tuple[int, int, int], tmp_path: Path) -> None:
    atoms = ATOMS.copy()
    atoms.pbc = pbc
    write(format, tmp_path / name, atoms)
    with refused(CrystalError, path=name):
        cf.read(tmp_path / name)


XSF = "CRYSTAL\nPRIMVEC\n 4 0 0\n 0 4 0\n 0 0 4\nPRIMCOORD\n2 1\n{} 0 0 0\nO 2 2 2\n"
FRAME = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"\n{} 0 0 0\nO 2 2 2\n'


QE_INPUT = """&CONTROL
/
&SYSTEM
  ibrav = 0, nat = 2, ntyp = 2
/
ATOMIC_SPECIES
Na 22.99 Na.upf
O 16.00 O.upf
CELL_PARAMETERS angstrom
4 0 0
0 4 0
0 0 4
ATOMIC_POSITIONS crystal
Na 0 0 0
O 0.5 1/2 0.5
K_POINTS gamma
"""
QE_OUTPUT = """     Program PWSCF v.7.0 starts on 1Jan2022
     number of atoms/cell      =            2
     number of atomic types    =            2
     celldm(1)=   7.558904  celldm(2)=   0.000000  celldm(3)=   0.000000
     crystal axes: (cart. coord. in units of alat)
               a(1) = (   1.000000   0.000000   0.000000 )
               a(2) = (   0.000000   1.000000   0.000000 )
               a(3) = (   0.000000   0.000000   1.000000 )
     site n.     atom                  positions (alat units)
         1           Na  tau(   1) = (   0.0000000   0.0000000   0.0000000  )
         2           O   tau(   2) = (   0.5000000   0.5000000   0.5000000  )

!    total energy              =    -100.0 Ry
ATOMIC_POSITIONS (crystal)
Na       0.000000000   0.000000000   0.000000000
O        0.500000000   0.500000000   0.500000000
End final coordinates
!    total energy              =    -100.1 Ry
"""
GEN = "2 F\nNa O\n1 1 0 0 0\n2 2 0.5 0.5 0.5\n0 0 0\n4 0 0\n0 4 0\n0 0 4\n"


@pytest.mark.parametrize(
    ("name", "text", "atom", "other"),
    [
        ("x.xsf", XSF.format("Na"), "O 2 2 2\n", "O 2 2 1\n"),
        ("x.xsf", XSF.format("Na"), "O 2 2 2\n", "\n# another\n 8 2.0 2.0 1.0 0 0 0\n"),
        ("x.pwi", QE_INPUT, "O 0.5 1/2 0.5\n", "O 0.5 0.5 0.2\n"),
        ("x.pwo", QE_OUTPUT, "0.5000000  )\n", "    3  O   tau(   3) = (   0.5 0.5 0.2  )\n"),
        ("x.pwo", QE_OUTPUT, "0.500000000\n", "O  0.5 0.5 -0.2\n"),
        ("x.gen", GEN, "2 2 0.5 0.5 0.5\n", "3 2 0.5 0.5 0.2\n"),
    ],
)
def test_more_atoms_than_are_counted_are_refused(name: str, text: str, atom: str, other: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    crystal = cf.read(tmp_path / name)
    assert crystal.formula == "NaO" and np.allclose(crystal.lattice, 4 * np.eye(3), atol=1e-5)
    (tmp_path / name).write_text(text.replace(atom, atom + other))
    with refused(CrystalError, path=name):
        cf.read(tmp_path / name)


AIMS = "lattice_vector 4 0 0\nlattice_vector 0 4 0\nlattice_vector 0 0 4\natom_frac 0 0 0 Na\natom_frac .5 .5 .5 O\n"


@pytest.mark.parametrize("text", [QE_INPUT, " &control\n /\n &system\n" + QE_INPUT.partition("&SYSTEM\n")[2], AIMS])
def test_input_of_two_programs_has_one_suffix(text: str, tmp_path: Path) -> None:
    for name in ("scf.in", "geometry.in", "geometry.in.next_step"):
        (tmp_path / name).write_text(text)
        assert cf.read(tmp_path / name).frac_coords.tolist() == [[0, 0, 0], [0.5, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("lengths", "card"),
    [
        ("A = 1.0", "CELL_PARAMETERS\n4 0 0\n0 4 0\n0 0 4"),
        ("a=4.d0, ", "CELL_PARAMETERS alat\n1 0 0\n0 1 0\n0 0 1"),
        ("celldm(1) = 7.558904535685008 ! A = 5", "CELL_PARAMETERS (alat)\n1 0 0\n0 1 0\n0 0 1"),
        ("", "CELL_PARAMETERS bohr\n7.558904535685008 0 0\n0 7.558904535685008 0\n0 0 7.558904535685008"),
    ],
)
def test_units_of_length_of_quantum_espresso(lengths: str, card: str, tmp_path: Path) -> None:
    begin, end = QE_INPUT.index("CELL_PARAMETERS"), QE_INPUT.index("\nATOMIC_POSITIONS")
    text = QE_INPUT[:begin] + card + QE_INPUT[end:]
    (tmp_path / "x.pwi").write_text(text.replace("&SYSTEM", f"&SYSTEM\n  {lengths}\n"))
    assert np.allclose(cf.read(tmp_path / "x.pwi").lattice, 4 * np.eye(3), atol=1e-6)
    (tmp_path / "x.pwi").write_text(text.replace("&SYSTEM", "&SYSTEM\n  A = 4\n  celldm(1) = 7.558904\n"))
    with refused(CrystalError, field="celldm", path="x.pwi"):
        cf.read(tmp_path / "x.pwi")


def test_input_of_another_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.in").write_text("include README.md\n")
    with refused(CrystalError, "format", path="other.in"):
        cf.read(tmp_path / "other.in")


@pytest.mark.parametrize("symbol", ["D", "T", "H"])
@pytest.mark.parametrize(("name", "text"), [("x.xsf", XSF), ("x.extxyz", FRAME), ("x.xyz", FRAME)])
def test_deuterium_and_tritium_are_hydrogen(name: str, text: str, symbol: str, tmp_path: Path) -> None:
    before = dict(atomic_numbers)
    (tmp_path / name).write_text(text.format(symbol))
    assert cf.read(tmp_path / name).atomic_numbers.tolist() == [1, 8]
    assert atomic_numbers == before, "ASE's own table is as it was"


@pytest.mark.parametrize(("name", "text"), [("x.xsf", XSF), ("x.extxyz", FRAME)])
@pytest.mark.parametrize("symbol", ["X", "Vac", "Du", "Q1", "Fe1", "Zz"])
def test_what_is_no_element_is_refused(name: str, text: str, symbol: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text.format(symbol))
    with refused(CrystalError, path=name, site=0 if name == "x.extxyz" or symbol == "X" else None):
        cf.read(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_text_of_any_editor(encoding: str, ends: str, tmp_path: Path) -> None:
    for name, text in (("x.xsf", "# Müller\n" + XSF), ("x.extxyz", FRAME.replace("pbc", 'note="5 Å" pbc'))):
        (tmp_path / name).write_bytes(text.format("Na").replace("\n", ends).encode(encoding))
        assert cf.read(tmp_path / name).formula == "NaO"


@pytest.mark.parametrize(
    ("comment", "line", "word"),
    [
        ('Lattice="4 4 4"', "Na 0 0 0", "3 numbers"),
        ('Lattice="1 0 0 0 1 0 0 0 1" pbc="T T T"', "Na 0 0 0", "no cell"),
        ('Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:Z:I:1:pos:R:3', "Na 17 0 0 0", "Z"),
        ('Lattice="4 0 0 0 4 0 0 0 4" Properties=pos:R:3', "0 0 0", "atomic number 0"),
        ('Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:scaled_pos:R:3', "Na 0.5 0 0", "without positions"),
    ],
)
def test_xyz_that_contradicts_itself(comment: str, line: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "x.xyz").write_text(f"1\n{comment}\n{line}\n")
    with refused(CrystalError, word, path="x.xyz"):
        cf.read(tmp_path / "x.xyz")


def test_charges_and_moments_of_xyz(tmp_path: Path) -> None:
    atoms = ATOMS.copy()
    atoms.set_initial_charges([1, -0.5, -0.5])
    write("extxyz", tmp_path / "x.extxyz", atoms)
    with pytest.warns(CrystalWarning, match="charges are left out"):
        cf.read(tmp_path / "x.extxyz")
    atoms = ATOMS.copy()
    atoms.new_array("magmoms", np.array([1.0, 0, 0]))
    write("extxyz", tmp_path / "x.extxyz", atoms)
    with pytest.warns(CrystalWarning, match="magnetic moments are left out"):
        cf.read(tmp_path / "x.extxyz")


def test_an_output_of_an_unknown_program_is_refused(tmp_path: Path) -> None:
    for name in ("x.out", "x.log", "x.unknown", "x"):
        (tmp_path / name).write_text("a program that nobody knows\nNa 0 0 0\n")
        with refused(CrystalError, path=name):
            cf.read(tmp_path / name)


def test_a_sign_in_the_name_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "x@1.xsf").write_text(XSF.format("Na"))
    assert cf.read(tmp_path / "x@1.xsf").formula == "NaO"
