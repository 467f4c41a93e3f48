"""The comparison of frame methods in Python. (Sliders and pixels: tests/browser.)"""

from __future__ import annotations

import pytest
from synthetic_traces import perovskite, synthetic_trace

from viz import FrameComparison
from viz.encoding import encode

METHODS = ("max", "weighted-pca", "none")


@pytest.fixture
def comparison() -> FrameComparison:
    return FrameComparison({method: synthetic_trace(perovskite(), method) for method in METHODS}, atom=1)


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


def test_only_what_all_traces_have_can_be_chosen() -> None:
    small = synthetic_trace(perovskite(), "pca", n_layers=2, n_heads=3)
    assert FrameComparison({"max": synthetic_trace(perovskite()), "pca": small}).sizes == {
        "layer": 2,
        "head": 3,
        "atom": 5,
    }


def test_the_figure_shows_what_is_chosen(comparison: FrameComparison) -> None:
    comparison.layer, comparison.head = 2, 1
    figure = comparison.figure(width=6.0)
    assert [panel.get_title() for panel in figure.axes] == [f"{method}, layer 2, head 1" for method in METHODS]
    assert figure.get_figwidth() == 6.0
