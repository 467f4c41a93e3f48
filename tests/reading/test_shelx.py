"""SHELX: the atoms of the cell by LATT and SYMM, or an error."""

from __future__ import annotations

import itertools
from pathlib import Path

import gemmi
import numpy as np
import pytest
from refusals import refused
from rutile import SHELX as RUTILE, assert_is_rutile

import crystalframer as cf
from crystalframer.elements import SYMBOLS
from crystalframer.errors import CrystalError


def read(text: str, folder: Path) -> cf.Crystal:
    (folder / "x.res").write_text(text)
    return cf.read(folder / "x.res")


@pytest.mark.parametrize(
    "text",
    [
        RUTILE,
        RUTILE.replace("10.25", "-21.0"),
        RUTILE.replace("10.25", "20.25").replace("0.75", "1.0"),
        RUTILE.replace("SFAC TI O", "SFAC TI 1 2 3 4 5 6 =\n 7 8 9 10 11 12 13 14\nSFAC O"),
        RUTILE.replace("UNIT 2 4\n", ""),
        RUTILE.replace("0.305 0.305", "0.305 0.3051"),
    ],
)
def test_an_asymmetric_unit_is_expanded(text: str, tmp_path: Path) -> None:
    assert_is_rutile(read(text, tmp_path))


def test_centrings_and_inversion(tmp_path: Path) -> None:
    text = "CELL 1 6 6.5 7 90 90 90\nLATT {}\nSFAC C O\nC1 1 0.11 0.12 0.13 11\nO1 2 0.31 0.22 0.45 11\nEND\n"
    n_atoms = {-1: 2, 1: 4, -2: 4, 2: 8, -4: 8, 4: 16, -5: 4, -6: 4, -7: 4, 7: 8}
    for latt, n in n_atoms.items():
        crystal = read(text.format(latt), tmp_path)
        assert len(crystal) == n
        inverted = (-crystal.frac_coords[:, None] - crystal.frac_coords) % 1.0
        nearest = np.minimum(inverted, 1 - inverted).max(axis=2).min(axis=1)
        assert (nearest.max() < 1e-9) == (latt > 0)


@pytest.mark.parametrize("name", ["P 21/c", "C 2/c", "P -3 m 1", "R -3 c:H", "I 41/a m d:2", "P 21 21 21", "F m -3 m"])
def test_groups_written_as_shelx_does(name: str, tmp_path: Path) -> None:
    group = gemmi.find_spacegroup_by_name(name)
    operations = group.operations()
    latt = "PIRFABC".index(group.centring_type()) + 1
    latt = latt if operations.is_centrosymmetric() else -latt
    listed: list[gemmi.Op] = []
    inversion = gemmi.Op("-x,-y,-z")
    for op in operations.sym_ops:
        known = [*listed, *((inversion * other).wrap() for other in listed)] if latt > 0 else listed
        if all(op.rot != other.rot for other in known):
            listed.append(op)
    angles = {"monoclinic": (90, 100, 90), "trigonal": (90, 90, 120)}.get(group.crystal_system_str(), (90, 90, 90))
    lengths = {"monoclinic": (5, 6, 7), "orthorhombic": (5, 6, 7), "cubic": (6, 6, 6)}
    a, b, c = (2 * length for length in lengths.get(group.crystal_system_str(), (6, 6, 9)))
    site = [0.113, 0.327, 0.061]
    lines = [f"CELL 1 {a} {b} {c} {' '.join(map(str, angles))}", f"LATT {latt}"]
    lines += [f"SYMM {op.triplet().upper()}" for op in listed if op.triplet() != "x,y,z"]
    lines += ["SFAC C", f"C1 1 {' '.join(map(str, site))} 11", "END"]
    crystal = read("\n".join(lines), tmp_path)
    images = np.array([op.apply_to_xyz(site) for op in operations])
    assert len(crystal) == len(images)
    difference = crystal.frac_coords[:, None] - images
    nearest = np.abs(difference - np.round(difference)).max(axis=2)
    assert (nearest.min(axis=0) < 1e-6).all() and (nearest.min(axis=1) < 1e-6).all()


def test_no_element_is_taken_for_an_instruction(tmp_path: Path) -> None:
    """As AIRSS writes them, the names of atoms are symbols."""
    for z, symbol in enumerate(SYMBOLS[:98], start=1):
        lines = ["CELL 1 5 5 5 90 90 90", "LATT -1", f"SFAC {symbol}", f"{symbol} 1 0.1 0.2 0.3 1.0", "END"]
        assert read("\n".join(lines), tmp_path).atomic_numbers.tolist() == [z]


LONG = "CELL 1 60 6 6 90 90 90\nLATT 1\nSFAC C\nC1 1 {} 0 0 10.5\nEND\n"
GRID = ["CELL 1 15 15 15 90 90 90", "LATT -1", "SFAC C", "UNIT {}"]
GRID += [f"C{n} 1 {x / 5} {y / 5} {z / 5} 1" for n, (x, y, z) in enumerate(itertools.product(range(5), repeat=3))]


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (RUTILE.replace("10.125", "10.1259"), RUTILE.replace("10.125", "10.127")),
        (RUTILE.replace("UNIT 2", "UNIT 2.4"), RUTILE.replace("UNIT 2", "UNIT 2.6")),
        ("\n".join([*GRID, "END"]).format(126), "\n".join([*GRID, "END"]).format(127)),
        (RUTILE.replace("-Y+0.5, X", "-Y+0.501, X"), RUTILE.replace("-Y+0.5, X", "-Y+0.504, X")),
        (LONG.format(0.001), LONG.format(0.002)),
    ],
)
def test_both_sides_of_a_tolerance(within: str, beyond: str, tmp_path: Path) -> None:
    read(within, tmp_path)
    with refused(CrystalError):
        read(beyond, tmp_path)


def test_deuterium(tmp_path: Path) -> None:
    assert read(RUTILE.replace("TI O", "TI D"), tmp_path).formula == "TiH2"


@pytest.mark.parametrize(
    ("text", "site", "word"),
    [
        (RUTILE.replace("10.125", "11.0"), 0, "1/8"),
        (RUTILE.replace("10.25", "10.125"), 1, "0.5"),
        (RUTILE.replace("LATT 1", "LATT -1"), 0, "1/4"),
        (RUTILE.replace("LATT 1\n", ""), None, "LATT"),
        (RUTILE.replace("LATT 1", "LATT 8"), None, "LATT"),
        (RUTILE.replace("LATT 1", f"LATT {'9' * 400}"), None, "LATT"),
        (RUTILE.replace("SYMM Y, X, -Z\n", ""), None, "group"),
        (RUTILE.replace("SYMM Y, X, -Z\n", "SYMM Y, X, -Z+0.2\n"), None, "SYMM"),
        (RUTILE.replace("4.594 4.594", "4.594 4.794"), None, "cell"),
        (RUTILE.replace("O1 2", "PART 1\nO1 2"), None, "disordered"),
        (RUTILE.replace("O1 2", "HFIX 43 C1\nO1 2"), None, "hydrogen"),
        (RUTILE.replace("O1 2", "MOVE 1 1 1 -1\nO1 2"), None, "moves"),
        (RUTILE.replace("O1 2", "FRAG 17\nO1 2"), None, "fragment"),
        (RUTILE.replace("O1 2", "+other.ins\nO1 2"), None, "another file"),
        (RUTILE.replace("O1 2", " O1 2"), None, "space"),
        (RUTILE.replace("O1 2", "O1 3"), 1, "3"),
        (RUTILE.replace("O1 2 0.305", "WHAT IS"), 1, "neither"),
        (RUTILE.replace("TI O", "TI X"), None, "'X'"),
        (RUTILE.replace("UNIT 2 4", "UNIT 2 8"), None, "UNIT"),
        (RUTILE.replace("HKLF 4\nEND\n", ""), 2, "peak"),
        (RUTILE.replace("10.25", "41.0"), 1, "variable 4"),
        (RUTILE.replace("0.305 0.305", "0.305 0.325"), 1, "special"),
        (RUTILE.replace("CELL", "REM"), None, "CELL"),
        (RUTILE.replace("0.305 0.305", "0.305 nan"), None, "cannot be read"),
        (RUTILE.replace("SYMM Y, X, -Z", "SYMM X-X, X, -Z"), None, "cannot be read"),
        (RUTILE.replace("-X, -Y, Z", "9" * 300_000), None, "cannot be read"),
        (RUTILE.replace("0.305 0.305", f"0.305 {'9' * 300_000}x"), None, "cannot be read"),
        (RUTILE.replace("0.305 0.305", "0.305 20.305").replace("0.75", "1e40"), 1, "position"),
        (RUTILE.replace("10.25", "-11.0"), 1, "variable 1"),
        (RUTILE.replace("UNIT 2 4", "UNIT 2 1_0"), None, "cannot be read"),
    ],
)
def test_what_is_not_certain_is_refused(text: str, site: int | None, word: str, tmp_path: Path) -> None:
    with refused(CrystalError, word, path="x.res", site=site):
        read(text, tmp_path)


def test_a_file_cut_anywhere_is_never_another_crystal(tmp_path: Path) -> None:
    whole = read(RUTILE, tmp_path).formula
    lines = RUTILE.split("\n")
    for n_lines in range(len(lines)):
        try:
            assert read("\n".join([*lines[:n_lines], ""]), tmp_path).formula == whole
        except CrystalError:
            continue
