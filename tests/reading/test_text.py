"""Text as editors on all systems save it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cif_texts import text_of
from refusals import refused

import crystalframer as cf
from crystalframer.errors import CrystalError
from crystalframer.reading.text import decoded

SITES = ["Cs1 Cs 0 0 0 1", "Cl1 Cl 0.5 0.5 0.5 1"]
SALT = "# Müller, 5.64 Å\n" + text_of("x", "4.1 4.1 4.1 90 90 90", SITES, "_symmetry_space_group_name_H-M 'P 1'")
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
