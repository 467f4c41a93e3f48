"""POSCAR and XDATCAR as VASP reads them."""

from __future__ import annotations

import warnings
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from refusals import refused

import crystalframer as cf
from crystalframer.errors import CrystalError
from crystalframer.reading.inputs import Span, iter_structures, starts
from crystalframer.testing import random_crystal

SALT = """comment
{scale}
{a}
{b}
{c}
{symbols}
{counts}
{mode}
0 0 0
{second}
{rest}"""
CELL = {"scale": "1.0", "a": "4.0 0 0", "b": "0 5.0 0", "c": "0 1 6.0"}
PARTS = {**CELL, "symbols": "Na Cl", "counts": "1 1", "mode": "Direct", "second": "0.5 0.25 0.5", "rest": ""}


def salt(**parts: str) -> str:
    return SALT.format(**{**PARTS, **parts})


def read(text: str, folder: Path) -> cf.Crystal:
    (folder / "POSCAR").write_text(text)
    return cf.read(folder / "POSCAR")


@pytest.mark.parametrize(
    "text",
    [
        salt(),
        salt().replace("4.0", ".4D1").replace("5.0", "+50d-1").replace("0.25", ".25"),
        salt(scale="1.0 ! scale", counts="1 1 # one of each", mode="direct ! not Cartesian"),
        salt(scale="  1.0   universal scale").replace("4.0 0 0", "4.0 0 0 ! a").replace("0 0 0\n", "0 0 0 ! first\n"),
        salt(symbols="na cl"),
        salt(symbols="NA CL"),
        salt(symbols="Na_pv Cl"),
        salt(symbols="Na_pv/a1b2c3 Cl/9f"),
        salt(symbols="Na+ Cl-"),
        salt(symbols="Na ! first\nCl", counts="1\n1"),
        salt(mode="Selective dynamics\nDirect").replace("0 0 0\n0.5", "0 0 0 T T F\n0.5"),
        salt(mode="s\nd"),
        salt(rest="\n0 0 0\n0 0 0\n"),
        salt(rest="Cartesian\n0.1 0.1 0.1\n0 0 0\n"),
        salt(rest="\n\nwhat else the file may say\n"),
        salt().replace(" ", "\t"),
        salt(second="0.5, 0.25, 0.5 Cl"),
        salt().replace("\n", "\r\n"),
        salt(scale="-120"),
        salt(scale="1 1 1"),
        salt(scale="0.5 2 1", a="8 0 0", b="0 2.5 0", c="0 .5 6"),
        salt(mode="Cartesian", second="2 1.75 3"),
        salt(mode="k", scale="2.0", a="2 0 0", b="0 2.5 0", c="0 .5 3", second="1 0.875 1.5"),
        "\ufeff" + salt(),
        "\n" + salt().partition("\n")[2],
    ],
)
def test_one_crystal_in_all_spellings(text: str, tmp_path: Path) -> None:
    crystal = read(text, tmp_path)
    assert crystal.atomic_numbers.tolist() == [11, 17]
    np.testing.assert_allclose(crystal.lattice, [[4, 0, 0], [0, 5, 0], [0, 1, 6]], atol=1e-12)
    np.testing.assert_allclose(crystal.positions, [[0, 0, 0], [2, 1.75, 3]], atol=1e-12)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (salt(symbols="1 1", counts="Direct", mode="0 0 0").replace("comment", "Na Cl"), "VASP 4"),
        (salt(symbols="Na Xx"), "Xx"),
        (salt(symbols="Na H.75"), "H.75"),
        (salt(symbols="Na Du"), "Du"),
        (salt(symbols="Na"), "2 counts for 1"),
        (salt(counts="1"), "1 counts for 2"),
        (salt(counts="1 2"), "atom 3"),
        (salt(counts="1 99999999"), "cut short"),
        (salt(counts="1 1", rest="0.1 0.1 0.1\n"), "2 atoms"),
        (salt(rest="Cl 0.1 0.1 0.1\n"), "'Cl 0.1"),
        (salt(rest="\n0.1 0.1 0.1\n"), "1 more lines"),
        (salt(rest="\n" + 3 * "0.1 0.1 0.1\n"), "3 more lines"),
        (salt(rest="\n" + salt()), "another structure"),
        (salt(rest="Direct configuration=     2\n0 0 0\n0.5 0.5 0.5\n"), "another structure"),
        (salt(scale="0"), "scale"),
        (salt(scale="1 2"), "scale"),
        (salt(scale="1 -1 1"), "scale"),
        (salt(scale="one"), "scale"),
        (salt(mode="0.1 0.1 0.1"), "Cartesian"),
        (salt(mode="angstrom"), "Cartesian"),
        (salt().replace("0.25", "nan"), "atom 2"),
        (salt().replace("0.25", "1_0"), "atom 2"),
        (salt().replace("5.0 0", "5.0"), "lattice vector b"),
        (salt()[:40], "ends before"),
    ],
)
def test_what_is_not_certain_is_refused(text: str, word: str, tmp_path: Path) -> None:
    with refused(CrystalError, word, path="POSCAR"):
        read(text, tmp_path)


VELOCITIES = "\n 0.0 0.0 0.1\n 0.0E+00 0.0 -0.1\n"
PREDICTOR = "\n 1\n 0.5\n 0.1 0.2 0.3 0.4\n" + 6 * " 0.1 0.2 0.3\n"
CELL_VELOCITIES = "Lattice velocities and vectors\n 1\n" + 6 * " 0.0 0.0 0.0\n"


@pytest.mark.parametrize(
    "rest",
    [
        "\n\n",
        "\nwritten by hand, 1 2 3\n",
        VELOCITIES,
        "Cartesian" + VELOCITIES,
        VELOCITIES + PREDICTOR,
        CELL_VELOCITIES,
        CELL_VELOCITIES + VELOCITIES + PREDICTOR,
    ],
)
def test_what_vasp_writes_behind_the_positions_is_passed_over(rest: str, tmp_path: Path) -> None:
    assert len(read(salt(rest=rest), tmp_path)) == 2


def test_deuterium_and_repeated_symbols(tmp_path: Path) -> None:
    text = salt(symbols="D O D", counts="1 1 1").rstrip("\n") + "\n0.1 0.6 0.2\n"
    assert read(text, tmp_path).atomic_numbers.tolist() == [1, 8, 1]


def test_a_negative_scale_is_the_volume_also_of_a_left_handed_cell(tmp_path: Path) -> None:
    crystal = read(salt(scale="-240", c="0 1 -6.0"), tmp_path)
    assert np.linalg.det(crystal.lattice) == pytest.approx(-240)


def test_positions_of_a_file_that_ends_early_name_the_atom(tmp_path: Path) -> None:
    with refused(CrystalError, "atom 2", "b.vasp"):
        (tmp_path / "b.vasp").write_text(salt(second=""))
        cf.read(tmp_path / "b.vasp")
    with refused(CrystalError, site=1):
        read(salt(second="0.5 x 0.5"), tmp_path)


@pytest.mark.parametrize("cell_changes", [False, True])
def test_steps_of_a_run(cell_changes: bool, tmp_path: Path) -> None:
    first = random_crystal(1, 4)
    frames = []
    for step in range(3):
        factor = 1 + 0.1 * step * cell_changes
        moved = (first.frac_coords + 0.01 * step) @ first.lattice * factor
        frames.append(ase.Atoms(first.atomic_numbers, moved, cell=first.lattice * factor, pbc=True))
    path = tmp_path / "XDATCAR"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ase.io.write(path, frames, format="vasp-xdatcar")
    crystals = cf.read_all(path)
    assert len(crystals) == 3
    for crystal, atoms in zip(crystals, frames, strict=True):
        assert crystal.atomic_numbers.tolist() == atoms.numbers.tolist()
        np.testing.assert_allclose(crystal.lattice, atoms.cell.array, atol=1e-6)
        difference = crystal.frac_coords - atoms.get_scaled_positions()
        np.testing.assert_allclose(difference, np.round(difference), atol=1e-6)
    (second,) = Span(path, list(starts(path))[1], 1).entries()
    assert second.row == 2
    path.write_text("\n".join(path.read_text().rstrip().split("\n")[:-1]))
    *good, cut = iter_structures(path)
    assert len(good) == 2 and all(record.error is None for record in good) and "atom 4" in str(cut.error)
