"""Figures by layer show the measures: each value at its layer and head, with the label of its atom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic_traces import synthetic_trace, with_dead_head

import viz
from crystalframer.testing import random_crystal
from crystalframer.traces import CrystalTrace
from viz.layer_figures import ALL_POINTS, DEAD


def boxes(figure: Any) -> list[Any]:
    return [part for part in figure.data if part.type == "box"]


def at(box: Any, layer: int, head: int) -> list[float]:
    """Values of the box of one layer and head."""
    layers, heads = box.x
    chosen = (np.array(layers) == f"layer {layer}") & (np.array(heads) == str(head))
    return np.asarray(box.y)[chosen].tolist()


def lines(figure: Any, name: str) -> list[list[float]]:
    """The heights of the lines of this name, one for each layer, row by row."""
    found = []
    for part in figure.data:
        if part.name == name:
            heights = dict(zip(part.x[0], part.y, strict=True))
            first = {layer: next(y for x, y in zip(part.x[0], part.y, strict=True) if x == layer) for layer in heights}
            found.append(list(first.values()))
    return found


@pytest.mark.parametrize(
    ("build", "measure"), [(viz.entropy_figure, viz.effective_neighbors), (viz.decay_length_figure, viz.decay_lengths)]
)
def test_one_box_for_each_head(trace: CrystalTrace, build: Callable[..., Any], measure: Callable[..., Any]) -> None:
    figure = build(trace)
    (box,) = boxes(figure)
    values = measure(trace)
    for layer, head in np.ndindex(trace.n_layers, trace.n_heads):
        np.testing.assert_allclose(at(box, layer, head), values[layer, head])
    (medians,) = lines(figure, "median of the layer")
    np.testing.assert_allclose(medians, np.median(values, axis=(1, 2)))
    assert box.text[trace.n_atoms + 1].endswith("layer 0, head 1")
    assert trace.id in figure.layout.title.text


def test_distances_have_a_row_for_each_anchor(trace: CrystalTrace) -> None:
    figure: Any = viz.attended_distance_figure(trace)
    anchors = viz.anchor_distances(trace)
    values = [viz.attended_distance(trace), anchors[..., 0], anchors[..., 1]]
    for box, expected in zip(boxes(figure), values, strict=True):
        np.testing.assert_allclose(at(box, 2, 3), expected[2, 3])
    nearest = float(np.median(viz.nearest_distance(trace)))
    for line in lines(figure, "nearest neighbour"):
        np.testing.assert_allclose(line, nearest)
    assert [axis.matches for axis in figure.select_yaxes()] == ["y"] * 3
    assert sum(part.showlegend is not False for part in figure.data) == 2


def test_without_anchors_only_the_attended_distance() -> None:
    figure: Any = viz.attended_distance_figure(synthetic_trace(random_crystal(0, 3), method="weighted-pca"))
    assert [axis.title.text for axis in figure.select_yaxes()] == ["attended distance (Å)"]


def test_turns_start_at_the_second_layer(trace: CrystalTrace) -> None:
    figure: Any = viz.axis_turn_figure(trace)
    (box,) = boxes(figure)
    np.testing.assert_allclose(at(box, 1, 2), viz.axis_turns(trace)[0, 2])
    assert at(box, 0, 0) == []
    np.testing.assert_allclose(lines(figure, "random axes"), [np.median(viz.chance_turns(trace), axis=1)])


def test_many_atoms_are_boxes_without_every_point() -> None:
    few, many = (
        viz.decay_length_figure(synthetic_trace(random_crystal(0, n), radius=3.0)) for n in (5, ALL_POINTS + 1)
    )
    assert (boxes(few)[0].boxpoints, boxes(many)[0].boxpoints) == ("all", "outliers")


def test_a_layer_in_which_no_atom_looks_beyond_itself(trace: CrystalTrace) -> None:
    """Such as every layer of lone atoms in a wide cell: there is no distance to show, and no median of it."""
    is_itself = (trace.edge_lengths == 0)[:, None]
    first = replace(trace.layers[0], attention=np.broadcast_to(is_itself * 1.0, trace.layers[0].attention.shape))
    figure = viz.attended_distance_figure(replace(trace, layers=(first, *trace.layers[1:])))
    (medians, *_) = lines(figure, "median of the layer")
    assert np.isnan(medians[0]) and np.isfinite(medians[1:]).all()


@pytest.mark.parametrize("figure_of", [viz.attended_distance_figure, viz.axis_turn_figure])
def test_frames_that_change_nothing_are_pale_points_outside_the_boxes(
    perovskite_trace: CrystalTrace, figure_of: Callable[..., Any]
) -> None:
    before, figure = figure_of(perovskite_trace), figure_of(with_dead_head(perovskite_trace, 1, 2))
    first, *rest = [part for part in figure.data if part.name == DEAD]
    assert set(zip(*first.x, strict=True)) == {("layer 1", "2")} and len(first.y) == 5
    assert first.showlegend and not any(part.showlegend for part in rest)
    frames_before, frames = boxes(before)[-1], boxes(figure)[-1]
    assert sorted(at(frames_before, 1, 2)) == pytest.approx(sorted([part.y for part in (first, *rest)][-1].tolist()))
    assert np.isnan(at(frames, 1, 2)).all()
    np.testing.assert_array_equal(at(frames, 1, 1), at(frames_before, 1, 1))
    median = lines(figure, "median of the layer")[-1][-2]
    counted = [value for head in (0, 1, 3) for value in at(frames, 1, head)]
    assert median == pytest.approx(np.median(counted))
