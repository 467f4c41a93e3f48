"""Widgets move an index and call the builders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crystalframer.trace import CrystalTrace
from viz import AttentionSliders, TrainingMonitor, attention_matrix, scene_from_trace
from viz.widgets import MEAN

PLOTLY = "application/vnd.plotly.v1+json"


@pytest.fixture
def sliders(perovskite_trace: CrystalTrace) -> AttentionSliders:
    return AttentionSliders(perovskite_trace)


def test_sliders_offer_every_layer_head_and_atom(sliders: AttentionSliders) -> None:
    assert list(sliders.layer_slider.options) == [0, 1, 2]
    assert [label for label, _ in sliders.head_slider.options] == ["0", "1", "2", "3", "mean"]
    assert [label for label, _ in sliders.atom_choice.options] == ["Sr1", "Ti1", "O1", "O2", "O3"]
    for control in (sliders.layer_slider, sliders.head_slider, sliders.atom_choice):
        assert control.description and control.tooltip


@pytest.mark.parametrize(("layer", "head", "atom"), [(2, 3, 1), (1, None, 4)])
def test_moving_a_slider_redraws_everything(
    sliders: AttentionSliders, perovskite_trace: CrystalTrace, layer: int, head: int | None, atom: int
) -> None:
    sliders.layer_slider.value, sliders.head_slider.value, sliders.atom_choice.value = (
        layer,
        MEAN if head is None else head,
        atom,
    )
    assert sliders.state == (layer, head, atom)
    scene = scene_from_trace(perovskite_trace)
    figure: Any = sliders.figure
    np.testing.assert_allclose(figure.data[0].z, attention_matrix(scene, layer, head))
    assert f"{scene.labels[atom]}, layer {layer}" in sliders.caption.value
    (output,) = sliders._figure.outputs
    assert output["data"][PLOTLY]["layout"]["title"]["text"] == figure.layout.title.text


def test_redrawing_sends_shapes_not_the_script(sliders: AttentionSliders) -> None:
    """A step is small, and the script that a view starts with does not grow with every step."""
    before = sliders._view.startjs
    for layer in (1, 2, 0):
        sliders.layer_slider.value = layer
    assert sliders._view.startjs == before
    assert sliders._view.updatejs == ""
    (output,) = sliders._script.outputs
    script = output["data"]["text/html"]
    assert script.count(".addModel(") == 1 and ".addArrow(" in script
    assert len(script) < len(before) / 4


def test_a_value_set_before_showing_waits_for_the_viewer(sliders: AttentionSliders) -> None:
    """The browser may run the redrawing before 3Dmol.js is there; it must then try again, not fail."""
    assert sliders._script.outputs == ()
    sliders.atom_choice.value = 1
    (output,) = sliders._script.outputs
    script = output["data"]["text/html"]
    viewer = f"viewer_{sliders._view.uniqueid}"
    assert "UNIQUEID" not in script and "$3Dmolpromise" not in script
    assert script.index(f"window.{viewer};") < script.index("setTimeout(draw") < script.index(f"{viewer}.addModel(")


def test_monitor_grows_with_every_row() -> None:
    monitor = TrainingMonitor("gap", unit="eV", baseline=2.0)
    assert monitor.figure is None
    for epoch in (1, 2, 3):
        monitor({"epoch": epoch, "train_mae/gap": 1 / epoch, "validation_mae/gap": 2 / epoch, "seconds": 0.1})
    figure: Any = monitor.figure
    assert list(figure.data[0].y) == [1.0, 1 / 2, 1 / 3]
    (output,) = monitor.widget.outputs
    assert [trace["name"] for trace in output["data"][PLOTLY]["data"]][:2] == ["train", "validation"]
