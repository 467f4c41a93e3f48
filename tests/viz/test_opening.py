"""What can be shown: traces, files, structures, and large cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import refused
from synthetic_traces import perovskite, synthetic_trace

import crystalframer as cf
import viz
from crystalframer import pages
from crystalframer.errors import CrystalError
from crystalframer.testing import random_crystal
from viz.opening import opened

SRTIO3 = Path(__file__).parents[2] / "notebooks" / "structures" / "SrTiO3.cif"


def test_a_structure_and_its_path_are_traced() -> None:
    structure = cf.read(SRTIO3)
    for source in (SRTIO3, str(SRTIO3), structure, structure.to_pymatgen()):
        assert viz.AttentionExplorer(source).scene.formula == "SrTiO3"


def test_the_file_of_a_trace_is_loaded(tmp_path: Path) -> None:
    path = synthetic_trace(perovskite()).save(tmp_path / "trace.safetensors")
    assert opened(path).formula == opened(str(path)).formula == "SrTiO3"


def test_what_is_no_structure_is_refused() -> None:
    with refused(CrystalError):
        opened("missing.cif")


def test_of_a_large_cell_the_surroundings_of_one_atom_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a sentence on how to see others; the limit is lower here, so that the test is quick."""
    monkeypatch.setattr(pages, "MOST_TRACED", 20)
    crystal = random_crystal(0, n_atoms=40, volume_per_atom=15.0)
    with pytest.warns(UserWarning, match="40 atoms, too many for one picture.*sites="):
        scene = opened(crystal)
    assert scene.is_region and 1 <= scene.n_queries < 40
    assert viz.explorer_html(scene)
