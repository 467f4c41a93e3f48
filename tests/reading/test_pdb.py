"""PDB: the atoms of the cell by the group of CRYST1, or an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from rutile import PDB as RUTILE, assert_is_rutile

import crystalframer as cf
from crystalframer.errors import CrystalError, CrystalWarning


def cryst1(group: str, a: float = 4.594, b: float = 4.594, c: float = 2.959, gamma: float = 90.0) -> str:
    return f"CRYST1{a:9.3f}{b:9.3f}{c:9.3f}  90.00  90.00{gamma:7.2f} {group:11}   2\n"


def atom(symbol: str, x: float, y: float, z: float, name: str = "", altloc: str = " ", occupancy: float = 1.0) -> str:
    place = f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}  0.00"
    return f"HETATM    1 {name or symbol:>3} {altloc}MOL A   1    {place}          {symbol:>2}\n"


SITES = RUTILE.partition("\n")[2]
SCALE = "".join(f"SCALE{row}    {a:10.6f}{b:10.6f}{c:10.6f}        0.00000\n" for row, a, b, c in (
    (1, 0, 1 / 4.594, 0), (2, 1 / 4.594, 0, 0), (3, 0, 0, -1 / 2.959)
))  # fmt: skip


def read(text: str, folder: Path) -> cf.Crystal:
    (folder / "x.pdb").write_text(text)
    return cf.read(folder / "x.pdb")


@pytest.mark.parametrize("text", [RUTILE, cryst1("P 42/m n m") + SCALE + SITES, RUTILE.replace("\n", "\r\n")])
def test_an_asymmetric_unit_is_expanded(text: str, tmp_path: Path) -> None:
    assert_is_rutile(read(text, tmp_path))


def test_what_is_rounded_from_a_special_position_is_put_there(tmp_path: Path) -> None:
    """1/3 of 4.913 Å, on a three-fold axis, is no number of three decimals."""
    third = np.array([1, 2, 0]) / 3 @ [[3.161, 0, 0], [-3.161 / 2, 3.161 * np.sqrt(0.75), 0], [0, 0, 5.12]]
    wc = (
        cryst1("P -6 m 2", 3.161, 3.161, 5.12, 120) + atom("W", 0, 0, 0) + atom("C", third[0], third[1], 2.56) + "END\n"
    )
    crystal = read(wc, tmp_path)
    assert crystal.formula == "WC" and len(crystal) == 2
    np.testing.assert_allclose(np.sort(crystal.frac_coords[1][:2]), [1 / 3, 2 / 3], atol=1e-12)


def test_both_sides_of_a_tolerance(tmp_path: Path) -> None:
    """Cells of SCALE and CRYST1 may differ by 0.1 % in products of lattice vectors."""
    text = cryst1("P 42/m n m") + SCALE + SITES
    assert len(read(text.replace("0.217675", "0.217762"), tmp_path)) == 6
    with refused(CrystalError, field="SCALE"):
        read(text.replace("0.217675", "0.217893"), tmp_path)


def test_deuterium_and_charges(tmp_path: Path) -> None:
    assert read(RUTILE.replace("  O\n", "  D\n"), tmp_path).formula == "TiH2"
    with pytest.warns(CrystalWarning, match="charges"):
        read(RUTILE.replace("TI\n", "TI4+\n"), tmp_path)


@pytest.mark.parametrize(
    ("text", "field", "site", "word"),
    [
        (SITES, "CRYST1", None, "no cell"),
        (cryst1("P 1", 1, 1, 1) + SITES, "CRYST1", None, "1 Å"),
        (cryst1("") + SITES, "CRYST1", None, "space group"),
        (cryst1("P 99") + SITES, "CRYST1", None, "P 99"),
        (cryst1("P 63") + SITES, "CRYST1", None, "P 63"),
        (cryst1("F d -3 m", 5, 5, 5) + SITES, "CRYST1", None, "origin"),
        (RUTILE.replace("          TI", ""), None, 0, "element"),
        ("MODEL     1\nENDMDL\nMODEL     2\n" + RUTILE, "MODEL", None, "2 models"),
        (RUTILE.replace("END\n", "END  \nREMARK\n") + atom("O", 1, 2, 3), "END", None, "after END"),
        (RUTILE + "END\n" * 100_000 + atom("O", 1, 2, 3), "END", None, "after END"),
        (RUTILE.replace("END\n", ""), "END", None, "cut short"),
        (RUTILE.replace("  O\n", "  X\n"), None, 1, "element"),
        (cryst1("P 42/m n m") + atom("O", 1.401, 1.401, 0, altloc="A") + "END\n", None, 0, "alternate"),
        (cryst1("P 42/m n m") + atom("O", 1.401, 1.401, 0, occupancy=0.5) + "END\n", None, 0, "0.5"),
        (cryst1("P 42/m n m") + atom("O", 1.401, 1.471, 0) + "END\n", None, 0, "special"),
        (cryst1("P 42/m n m") + SCALE.replace("0.217675", "0.300000") + SITES, "SCALE", None, ""),
        (RUTILE.replace("CRYST1", "REMARK 465 MISSING RESIDUES\nCRYST1"), None, None, "missing"),
        (RUTILE.replace("HETATM", "MTRIX1   1 -1.000000  0.000000  0.000000        0.00000\n"
         "MTRIX2   1  0.000000 -1.000000  0.000000        0.00000\n"
         "MTRIX3   1  0.000000  0.000000  1.000000        0.00000\nHETATM", 1), "MTRIX", None, ""),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_refused(
    text: str, field: str | None, site: int | None, word: str, tmp_path: Path
) -> None:
    with refused(CrystalError, word, path="x.pdb", field=field, site=site):
        read(text, tmp_path)
