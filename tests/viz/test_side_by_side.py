"""Views side by side in Python. (Sliders, cameras and pixels: tests/browser.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from refusals import refused
from synthetic_traces import perovskite, synthetic_trace

import viz
from crystalframer.testing import random_crystal
from viz import SceneError, SideBySide

TRACE = synthetic_trace(perovskite())


def test_two_heads_of_one_crystal() -> None:
    views = SideBySide({"first": TRACE, "last": TRACE}, head=[0, 3], atom="Ti1", layer=1)
    assert views.own == {"head": [0, 3]} and (views.layer, views.atom) == (1, 1) and views.is_same
    views.own = {"head": [1, 2], "atom": [0, 4]}
    with refused(SceneError, "choose from 0 to 3", field="head"):
        views.own = {"head": [0, 4]}
    with refused(SceneError, "one head for each view", field="head"):
        views.own = {"head": [0]}


def test_two_structures_by_the_labels_of_their_atoms() -> None:
    other = synthetic_trace(random_crystal(0, 4), n_layers=2)
    labels = viz.scene_from_trace(other).labels
    views = SideBySide([TRACE, other], atom=["Ti1", labels[2]])
    assert views.own == {"atom": [1, 2]} and not views.is_same
    assert views.sizes == {"layer": 2, "head": 4, "atom": 4}


def test_views_of_a_list_have_the_names_of_their_crystals(tmp_path: Path) -> None:
    saved = TRACE.save(tmp_path / "trace.safetensors")
    assert SideBySide([TRACE, saved]).names == ["SrTiO3, 1", "SrTiO3, 2"]
    assert viz.FrameComparison([TRACE, str(saved)]).names == ["SrTiO3, 1", "SrTiO3, 2"]


@pytest.mark.parametrize("views", [[], {}])
def test_no_view_is_refused(views: Any) -> None:
    with refused(SceneError, field="scenes"):
        SideBySide(views)
