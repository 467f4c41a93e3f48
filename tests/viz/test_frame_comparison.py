"""The comparison of frame methods in Python. (Sliders and pixels: tests/browser.)"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from refusals import refused
from synthetic_traces import perovskite, skewed
from traitlets import TraitError

from crystalframer.traces import CrystalTrace
from viz import FrameComparison, SceneError
from viz.encoding import encode

METHODS = ("max", "weighted-pca", "none")


@pytest.fixture
def comparison(make_trace: Callable[..., CrystalTrace]) -> FrameComparison:
    return FrameComparison({method: make_trace(perovskite(), method) for method in METHODS}, atom=1)


def test_every_scene_is_sent_under_its_name(comparison: FrameComparison) -> None:
    assert comparison.names == list(METHODS)
    for scene, header, data in zip(comparison.scenes, comparison.headers, comparison.data, strict=True):
        assert (header, data) == encode(scene)
    assert comparison.sizes == {"layer": 3, "head": 4, "atom": 5}


def test_a_step_sends_one_number(comparison: FrameComparison, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    monkeypatch.setattr(comparison, "_send", lambda message, buffers=None: sent.append((message["state"], buffers)))
    comparison.head = 3
    assert sent == [({"head": 3}, [])]


@pytest.mark.parametrize(("name", "last"), [("layer", 1), ("head", 2), ("atom", 4)])
def test_only_what_all_traces_have_can_be_chosen(make_trace: Callable[..., CrystalTrace], name: str, last: int) -> None:
    small = make_trace(perovskite(), "pca", n_layers=2, n_heads=3)
    comparison = FrameComparison({"max": make_trace(perovskite()), "pca": small})
    setattr(comparison, name, last)
    for value in (last + 1, -1):
        with refused(SceneError, value, f"0 to {last}", field=name) as caught:
            setattr(comparison, name, value)
        assert isinstance(caught.value, TraitError)
        with refused(SceneError, field=name):
            FrameComparison({"max": make_trace(perovskite()), "pca": small}, **{name: value})


def test_the_figure_shows_what_is_chosen(comparison: FrameComparison) -> None:
    comparison.layer, comparison.head = 2, 1
    figure = comparison.figure(width=6.0)
    assert [panel.get_title() for panel in figure.axes] == [f"{method}, layer 2, head 1" for method in METHODS]
    assert figure.get_figwidth() == 6.0


def test_other_crystals_and_nothing_are_refused(make_trace: Callable[..., CrystalTrace]) -> None:
    with refused(SceneError, "skewed", "SrTiO3", field="scenes"):
        FrameComparison({"max": make_trace(perovskite()), "pca": make_trace(skewed(), "pca")})
    with refused(SceneError, field="scenes"):
        FrameComparison({})
