"""Text as editors on all systems save it."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import refused

import crystalframer as cf
from crystalframer.errors import CrystalError
from crystalframer.reading.text import decoded

SALT = """# Müller, 5.64 Å
data_x
_cell_length_a 4.1
_cell_length_b 4.1
_cell_length_c 4.1
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_symmetry_equiv_pos_as_xyz
x,y,z
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Cs1 Cs 0 0 0
Cl1 Cl 0.5 0.5 0.5
"""
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1")


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_cif_in_any_encoding(encoding: str, ends: str, tmp_path: Path) -> None:
    path = tmp_path / "salt.cif"
    path.write_bytes(SALT.replace("\n", ends).encode(encoding))
    assert cf.read(path).formula == "CsCl"


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    for content in (SALT.encode("utf-16-le"), b"\xff\xfea", bytes(100)):
        with refused(CrystalError, "text"):
            decoded(content)
        (tmp_path / "x.cif").write_bytes(content)
        with refused(CrystalError, path="x.cif"):
            cf.read(tmp_path / "x.cif")
