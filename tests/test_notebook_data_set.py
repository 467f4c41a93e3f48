"""The notebook on wrong labels finds those of the demo set, and nothing in it names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks/07_data_set.ipynb"
UNSTABLE = "JVASP-18192"
"""Cu2Se, with a shear modulus of -15.3 GPa."""


@pytest.fixture(scope="module")
def cells() -> list[str]:
    found = nbformat.read(NOTEBOOK, as_version=4).cells
    return [cell.source for cell in found if cell.cell_type == "code"]


def test_the_notebook_names_no_crystal(cells: list[str]) -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "JVASP" not in text and "Cu2Se" not in text and "unphysical" not in text


def test_negative_modulus_and_energies_above_the_hull_are_found(
    cells: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for source in cells:
        if "## The map" in source or "DatasetExplorer(" in source:
            break
        exec(source.replace("%matplotlib inline", ""), names)
    alone = names["alone"]
    assert alone[alone.target == "shear_modulus"]["id"].tolist() == [UNSTABLE]
    assert len(alone) < 10
    beyond, width = names["beyond"], names["width"]
    assert (beyond > width).mean() > 0.6  # rutile, and seven of ten others
    rutile = names["data"].ids == "JVASP-5"
    assert bool(np.asarray(beyond)[rutile][0] > width)
    assert names["share"] < 0.5
