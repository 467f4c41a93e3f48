"""All plotly figures have the same look, and labels on everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import viz
from crystalframer.analysis import coordination_shells, motif_summary, motif_table
from crystalframer.traces import CrystalTrace
from viz import Scene
from viz.palette import INK
from viz.style import TEXT_SIZE, log_axis

HISTORY = pd.DataFrame({"epoch": [1, 2], "train_mae/gap": [0.9, 0.6], "validation_mae/gap": [1.0, 0.8]})

FIGURES: dict[str, Callable[[Scene, CrystalTrace], Any]] = {
    "attention_heatmap": lambda scene, trace: viz.attention_heatmap(scene, 0, 1),
    "attention_grid": lambda scene, trace: viz.attention_grid(scene, 0),
    "attention_distance_figure": lambda scene, trace: viz.attention_distance_figure(scene, 0, 1),
    "attention_figure": lambda scene, trace: viz.attention_figure(scene, 0, 1, 1),
    "entropy_figure": lambda scene, trace: viz.entropy_figure(trace),
    "decay_length_figure": lambda scene, trace: viz.decay_length_figure(trace),
    "attended_distance_figure": lambda scene, trace: viz.attended_distance_figure(trace),
    "axis_turn_figure": lambda scene, trace: viz.axis_turn_figure(trace),
    "motif_angle_figure": lambda scene, trace: viz.motif_angle_figure(trace, coordination_shells(trace)[1]),
    "motif_share_figure": lambda scene, trace: viz.motif_share_figure(trace, coordination_shells(trace)[1]),
    "motif_summary_figure": lambda scene, trace: viz.motif_summary_figure(motif_summary(motif_table([trace])), "O:6"),
    "parity_figure": lambda scene, trace: viz.parity_figure(np.ones(2), np.zeros(2), label="gap (eV)"),
    "learning_curve": lambda scene, trace: viz.learning_curve(HISTORY, "gap", unit="eV", baseline=1.0),
}


@pytest.fixture(params=FIGURES)
def figure(request: pytest.FixtureRequest, perovskite_scene: Scene, perovskite_trace: CrystalTrace) -> Any:
    return FIGURES[request.param](perovskite_scene, perovskite_trace)


def test_all_figures_have_the_same_look(figure: Any) -> None:
    assert figure.layout.font.color == INK and figure.layout.font.family is None
    assert figure.layout.title.text and figure.layout.font.size == TEXT_SIZE
    assert _sizes(figure.to_plotly_json()["layout"]) == {TEXT_SIZE}
    assert figure.layout.template.layout.plot_bgcolor == "white"
    assert figure.layout.width and figure.layout.height


def _sizes(part: Any) -> set[float]:
    """The sizes of all fonts that a layout names."""
    if isinstance(part, dict):
        own = {part["font"]["size"]} if "size" in part.get("font", {}) else set()
        return own.union(*(_sizes(value) for name, value in part.items() if name != "template"))
    return set().union(*map(_sizes, part)) if isinstance(part, (list, tuple)) else set()


def test_heatmaps_are_cividis(figure: Any) -> None:
    scales = [part.colorscale for part in figure.data if part.type == "heatmap" and part.coloraxis is None]
    if figure.layout.coloraxis.colorscale:
        scales.append(figure.layout.coloraxis.colorscale)
    assert len(scales) == any(part.type == "heatmap" for part in figure.data)
    for scale in scales:
        assert (scale[0][1].lower(), scale[-1][1].lower()) == ("#00224e", "#fee838")


def test_everything_has_a_hover_text(figure: Any) -> None:
    for part in figure.data:
        assert part.hovertemplate or part.hoverinfo == "skip", part.name


def test_outer_axes_have_titles(figure: Any) -> None:
    """The lowest x axis of each column and the first y axis of each row; lengths in Å, energies in eV."""
    lowest = min(axis.domain[0] if axis.domain else 0.0 for axis in figure.select_yaxes())
    leftmost = min(axis.domain[0] if axis.domain else 0.0 for axis in figure.select_xaxes())
    below = [axis for axis in figure.select_xaxes() if _start(figure, axis.anchor) == pytest.approx(lowest)]
    left = [axis for axis in figure.select_yaxes() if _start(figure, axis.anchor) == pytest.approx(leftmost)]
    assert below and left
    assert all(axis.title.text for axis in (*below, *left))


def _start(figure: Any, anchor: str | None) -> float:
    """Where the axis begins that another one is anchored to."""
    name = (anchor or "")[:1] + "axis" + (anchor or "")[1:]
    axis = figure.layout[name] if anchor else None
    return axis.domain[0] if axis is not None and axis.domain else 0.0


@pytest.mark.parametrize("low", [3e-4, 0.15, 0.9, 40.0])
@pytest.mark.parametrize("ratio", [1.0, 1.5, 7.0, 14.0, 200.0, 1e5])
def test_numbers_at_a_logarithmic_axis_are_some_and_do_not_touch(low: float, ratio: float) -> None:
    """On an axis of 200 pixels, numbers of 14 pixels."""
    axis = log_axis([low, float("nan"), 0.0, low * ratio])
    ticks = np.array(axis["tickvals"])
    around = ticks[(ticks >= low / 2) & (ticks <= 2 * low * ratio)]
    assert len(around) >= 2
    assert ratio != 1.5 or ((ticks >= low) & (ticks <= low * ratio)).sum() >= 2
    if ratio >= 1.5:
        assert (200 * np.diff(np.log10(around)) / np.log10(ratio) > 16).all()
