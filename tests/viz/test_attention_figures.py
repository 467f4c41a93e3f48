"""Plotly figures of attention show the numbers that they are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import viz


@pytest.mark.parametrize("head", [2, None])
def test_heatmap(scene: viz.Scene, head: int | None) -> None:
    figure: Any = viz.attention_heatmap(scene, 1, head)
    (trace,) = figure.data
    np.testing.assert_allclose(trace.z, viz.attention_matrix(scene, 1, head))
    assert list(trace.x) == list(trace.y) == list(scene.labels)
    assert trace.zmin == 0.0 and trace.zmax == pytest.approx(viz.attention_matrix(scene, 1, head).max())
    assert trace.colorscale[0][1].lower() == "#00224e"  # Cividis starts dark blue
    assert figure.layout.yaxis.autorange == "reversed"
    assert ("mean of all heads" if head is None else "head 2") in figure.layout.title.text


def test_grid_shows_every_head_on_one_scale(scene: viz.Scene) -> None:
    figure: Any = viz.attention_grid(scene, 1)
    for head, heatmap in enumerate(figure.data):
        np.testing.assert_allclose(heatmap.z, viz.attention_matrix(scene, 1, head))
        assert heatmap.coloraxis == "coloraxis"
    assert [title.text for title in figure.layout.annotations] == [f"head {head}" for head in range(scene.n_heads)]
    assert figure.layout.coloraxis.cmax == max(heatmap.z.max() for heatmap in figure.data)


@pytest.mark.parametrize("atom", [0, None])
def test_attention_against_distance(scene: viz.Scene, atom: int | None) -> None:
    figure: Any = viz.attention_distance_figure(scene, 0, 1, atom)
    shells, within = figure.data
    profile = viz.attention_by_distance(scene, 0, 1, atom)
    np.testing.assert_allclose(shells.x, profile.distance)
    np.testing.assert_allclose(shells.y, profile.attention)
    np.testing.assert_allclose(within.y, profile.cumulative)
    assert figure.layout.xaxis.title.text == "distance (Å)"


def test_attention_figure_joins_both_and_frames_the_row(scene: viz.Scene) -> None:
    figure: Any = viz.attention_figure(scene, 0, 1, 3)
    heatmap, shells, within = figure.data
    np.testing.assert_allclose(heatmap.z, viz.attention_matrix(scene, 0, 1))
    np.testing.assert_allclose(shells.y, viz.attention_by_distance(scene, 0, 1, 3).attention)
    assert (heatmap.xaxis, shells.xaxis, within.yaxis) == ("x", "x2", "y2")
    (frame,) = figure.layout.shapes
    assert (frame.y0, frame.y1, frame.x1) == (2.5, 3.5, scene.n_atoms - 0.5)
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis2.domain[1]


def test_pages_need_no_network(scene: viz.Scene) -> None:
    page = viz.attention_figure(scene, 0, 0, 0).to_html(include_plotlyjs=True)
    assert "<script src=" not in page and 'charset="utf-8" src=' not in page
