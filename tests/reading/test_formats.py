"""The table of formats: the only place that knows suffixes; what crystals are written as."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from refusals import refused

import crystalframer as cf
from crystalframer.errors import CrystalError
from crystalframer.reading.formats import FORMATS, Format
from crystalframer.testing import random_crystal

PACKAGE = Path(cf.__file__).parent
TABLE = PACKAGE / "reading" / "formats.py"


def spelled(path: Path) -> set[str]:
    """Suffixes (alone or in a pattern such as `*.cif`) and names of formats in the code, not in documentation.

    Names of certain files, such as `metrics.csv`, decide on no format and do not count.
    """
    known = "|".join(re.escape(key) for key in FORMATS)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documentation]
    return {str(node.value) for node in constants if re.fullmatch(rf"[^\w\s]*({known})\W*", str(node.value))}


def test_a_suffix_is_spelled_in_the_table_alone() -> None:
    assert set(FORMATS) == spelled(TABLE) - {"."}
    elsewhere = {str(path): spelled(path) for path in PACKAGE.rglob("*.py") if path != TABLE}
    assert {path: suffixes for path, suffixes in elsewhere.items() if suffixes} == {}
    assert all(isinstance(format, Format) for format in FORMATS.values())


@pytest.mark.parametrize("name", ["x.cif", "x.vasp", "POSCAR", "x.extxyz", "new/x.xyz"])
def test_a_crystal_that_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    crystal = random_crystal(1, 8)
    crystal.write(tmp_path / name)
    again = cf.read(tmp_path / name)
    matcher = StructureMatcher(primitive_cell=False, scale=False, ltol=1e-6, stol=1e-6, angle_tol=1e-4)
    assert len(again) == 8 and matcher.fit(crystal.to_pymatgen(), again.to_pymatgen())
    if not name.endswith(".cif"):
        np.testing.assert_allclose(again.lattice, crystal.lattice, rtol=0, atol=1e-12)
        np.testing.assert_allclose(again.positions, crystal.wrapped().positions, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["x.cif", "x.vasp", "x.extxyz"])
def test_a_left_handed_cell_does_not_become_a_mirror_image(name: str, tmp_path: Path) -> None:
    """Lengths, angles and fractional coordinates are the same for both, and pymatgen confuses them in a POSCAR."""
    lattice = np.diag([5.0, 6.0, -7.0])
    positions = lattice.sum(axis=0) / 2 + np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    cf.Crystal(np.array([1, 6, 7, 8]), positions, lattice).write(tmp_path / name)
    again = cf.read(tmp_path / name)
    origin, *ends = again.positions[np.argsort(again.atomic_numbers)]
    assert np.linalg.det(np.array(ends) - origin) == pytest.approx(1.0)


def test_another_suffix_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    for name in ("x.csv", "x", "x.xsf"):
        with refused(CrystalError, ".cif, ", ".extxyz", path=name):
            random_crystal(1, 2).write(tmp_path / name)
    (tmp_path / "file").write_text("no folder")
    with refused(CrystalError, path="x.cif"):
        random_crystal(1, 2).write(tmp_path / "file" / "x.cif")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_all_structures_of_an_input_or_the_first_that_cannot_be_read(tmp_path: Path) -> None:
    for number in (1, 2):
        random_crystal(number, number).write(tmp_path / f"{number}.cif")
    both = cf.read_all(tmp_path)
    assert [(crystal.id, len(crystal)) for crystal in both] == [("1", 1), ("2", 2)]
    frames = tmp_path / "frames.xyz"
    frames.write_text("".join(FORMATS[".xyz"].text(crystal) for crystal in both))  # type: ignore[attr-defined]
    assert [crystal.id for crystal in cf.read_all([frames, both[0]])] == ["frames-1", "frames-2", "1"]
    frames.write_text(frames.read_text().replace('pbc="T T T"', 'pbc="T F T"').replace("F", "T", 1))
    with refused(CrystalError, "structure 2", path=frames, row=2):
        cf.read_all(frames)


def test_promised_suffixes_have_their_rows() -> None:
    structures = {".cif", ".mcif", ".vasp", ".poscar", ".contcar", ".json", ".xyz", ".extxyz"}
    assert structures | {".csv", ".jsonl", ".parquet", ".db", ".lmdb", ".aselmdb"} <= set(FORMATS)
