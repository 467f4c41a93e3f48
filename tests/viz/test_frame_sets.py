"""Pictures of weighted sets: the heaviest frame solid, the other axes pale by their weight, and words that say so."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon
from synthetic_traces import perovskite, synthetic_trace, weighted_trace, with_dead_head

import crystalframer as cf
import viz
from crystalframer.crystals.crystal import Crystal
from crystalframer.testing import random_crystal, random_rotation, rotated
from crystalframer.traces import CrystalTrace, FrameSets
from viz import drawing, frame_comparison_figure, scene_from_trace, structure_figure, structure_view
from viz.frame_sets import LEAST_SHARE, MOST_DRAWN, OPACITY, frame_text, other_axes
from viz.palette import AXIS_COLORS, PAPER, mix

TI = 1
TRACE = weighted_trace(perovskite())
SCENE = scene_from_trace(TRACE)
LINES = scene_from_trace(weighted_trace(perovskite(), both_hands=True))
CUBE = np.array([sign * np.eye(3)[axis] for axis in range(3) for sign in (1, -1)])


def with_set(trace: CrystalTrace, axes: np.ndarray, weights: list[float], **changes: Any) -> viz.Scene:
    """The scene of a trace in which Ti has these frames in layer 0 and head 0, and all else one frame."""
    layer = trace.layers[0]
    assert layer.frame is not None
    old, number = replace(layer.frame, members=None).sets, TI * trace.n_heads
    parts = [old.part(0, number), FrameSets(np.array([0, len(weights)]), np.array(weights), axes)]
    parts.append(old.part(number + 1, len(old.sizes)))
    members = FrameSets(
        np.cumsum([0, *np.concatenate([part.sizes for part in parts])]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.axes for part in parts]),
    )
    first = layer.frame.axes.copy()
    first[TI, 0] = axes[0]
    frame = replace(layer.frame, axes=first, members=members, **changes)
    return scene_from_trace(replace(trace, layers=(replace(layer, frame=frame), *trace.layers[1:])))


def turned(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])


def test_an_octahedron_has_every_axis_in_every_direction() -> None:
    """24 frames: each axis points along the six bonds; five are pale, one is solid."""
    others = other_axes(SCENE, 0, 0, TI)
    assert SCENE.frames is not None
    for k in range(3):
        mine = others.direction[others.axis == k]
        whole = np.vstack([SCENE.frames[0, 0, TI, k], mine])
        np.testing.assert_allclose(whole[np.lexsort(whole.round(3).T)], CUBE[np.lexsort(CUBE.T)], atol=1e-6)
    np.testing.assert_allclose(others.weight, 1 / 6, atol=1e-6)
    np.testing.assert_allclose(others.opacity, OPACITY[1])
    assert frame_text(SCENE, 0, 0, TI) == (
        "Frame method: max. One of 24 frames of equal weight is solid, the others are pale."
    )
    assert not SCENE.tied.any()  # the set holds what ties


def test_weights_of_frames_with_one_axis_add_up() -> None:
    """Two frames share e₃; one with little weight is not drawn, and directions closer than 2° are one."""
    frames = np.stack([np.eye(3), turned(1.0), turned(40.0), turned(90.0)])
    scene = with_set(TRACE, frames, [0.6, 0.1, 0.29, 0.01])
    others = other_axes(scene, 0, 0, TI)
    assert others.axis.tolist() == [0, 1]
    np.testing.assert_allclose(others.direction, turned(40.0)[:2])
    np.testing.assert_allclose(others.weight, 0.29)
    np.testing.assert_allclose(others.opacity, np.interp(0.29 / 0.7, (0, 1), OPACITY))
    assert frame_text(scene, 0, 0, TI).endswith(
        "The solid frame has 60% of the weight, 2 pale ones 39%, 1 is not drawn."
    )
    alone = with_set(TRACE, np.stack([np.eye(3), turned(30.0)]), [1 - LEAST_SHARE / 2, LEAST_SHARE / 2])
    assert len(other_axes(alone, 0, 0, TI).axis) == 0
    assert frame_text(alone, 0, 0, TI).endswith("The solid frame has 98% of the weight, 1 is not drawn.")


def test_the_first_of_very_many_frames() -> None:
    """C₆₀ around an atom has hundreds; no frame has 0 % of the weight."""
    weights = np.linspace(1.2, 0.8, 300) / 300
    scene = with_set(TRACE, np.stack([turned(angle) for angle in np.linspace(0.0, 359.0, 300)]), weights.tolist())
    assert "The solid frame has less than 1% of the weight, " in frame_text(scene, 0, 0, TI)


def test_edges_that_give_the_same_frame_are_one_frame() -> None:
    scene = with_set(TRACE, np.stack([np.eye(3), turned(90.0), turned(90.0)]), [0.5, 0.25, 0.25])
    assert frame_text(scene, 0, 0, TI).endswith("One of 2 frames of equal weight is solid, the other is pale.")
    twice = with_set(TRACE, np.stack([np.eye(3)] * 2), [0.5, 0.5])
    assert frame_text(twice, 0, 0, TI) == "Frame method: max." and len(other_axes(twice, 0, 0, TI).axis) == 0


def test_many_light_edges_of_one_frame_are_not_left_out_for_a_heavier_single_one() -> None:
    axes = np.stack([np.eye(3), turned(20.0), *[turned(40.0)] * 32])
    scene = with_set(TRACE, axes, [0.5, 0.02, *[0.015] * 32])
    others = other_axes(scene, 0, 0, TI)
    np.testing.assert_allclose(others.direction, turned(40.0)[:2])
    np.testing.assert_allclose(others.weight, 0.48)


def test_a_large_set_says_how_many_are_left_out() -> None:
    n = MOST_DRAWN + 20
    scene = with_set(TRACE, np.stack([random_rotation(seed) for seed in range(n)]), [1 / n] * n)
    assert np.bincount(other_axes(scene, 0, 0, TI).axis).max() <= MOST_DRAWN - 1
    assert "are pale, 20 are not drawn." in frame_text(scene, 0, 0, TI)
    weights = [2.0] * 60 + [1.0] * (n - 60)
    scene = with_set(TRACE, np.stack([random_rotation(seed) for seed in range(n)]), [w / sum(weights) for w in weights])
    assert f"59 pale ones 82%, {n - 60} are not drawn." in frame_text(scene, 0, 0, TI)  # equals stay together


def test_one_frame_is_drawn_as_ever() -> None:
    """Sets of one, old traces and frames that change nothing have no pale axes and no words on weights."""
    single = scene_from_trace(synthetic_trace(perovskite()))
    dead = scene_from_trace(with_dead_head(TRACE, 0, 0))
    for scene, text in ((single, "Frame method: max."), (dead, "Its axes are pale: so little attention")):
        shapes = drawing(scene, 0, 0, TI)
        assert len(shapes.arrows) == 3 and shapes.set_text == ""
        assert text in shapes.caption and "weight" not in shapes.caption


@pytest.mark.parametrize("scene", [SCENE, LINES], ids=["arrows", "lines"])
def test_pale_axes_are_those_of_the_selected_atom(scene: viz.Scene) -> None:
    everywhere = drawing(scene, 0, 1, TI, frames="all", axis_length=2.0)
    solid = [arrow for arrow in everywhere.arrows if arrow.weight is None]
    pale = [arrow for arrow in everywhere.arrows if arrow.weight is not None]
    assert len(solid) == 3 * scene.n_atoms and {arrow.atom for arrow in pale} == {TI}
    others = other_axes(scene, 0, 1, TI)
    assert everywhere.set_text and everywhere.set_text in everywhere.caption
    for arrow, axis, direction, opacity in zip(pale, others.axis, others.direction, others.opacity, strict=True):
        assert arrow.color == mix(AXIS_COLORS[axis], PAPER, 1 - opacity) and not arrow.label
        reach = arrow.end - scene.positions[TI]
        np.testing.assert_allclose(reach / np.linalg.norm(reach), direction)
        assert np.linalg.norm(reach) < 2.0 and arrow.radius < solid[3 * TI].radius
        assert arrow.is_line == (axis == scene.unsigned_axis)
    assert not drawing(scene, 0, 1, TI, frames="none").arrows
    assert drawing(scene, 0, None, TI).set_text == ""


def test_an_axis_without_direction_is_a_line_through_the_atom() -> None:
    shapes = drawing(LINES, 0, 0, TI)
    assert [arrow.label for arrow in shapes.arrows if arrow.label] == ["e₁", "e₂", "±e₃"]
    assert [arrow.is_line for arrow in shapes.arrows[:3]] == [False, False, True]
    np.testing.assert_allclose((shapes.arrows[2].start + shapes.arrows[2].end) / 2, LINES.positions[TI])
    assert "e₃ is drawn as a line, because its sign has no meaning" in shapes.caption
    others = other_axes(LINES, 0, 0, TI)
    assert np.bincount(others.axis).tolist() == [5, 5, 2]  # the three lines of a cube, one of them solid
    np.testing.assert_allclose(others.weight[others.axis == 2], 1 / 3, atol=1e-6)


def test_axes_that_no_neighbour_fixes_are_not_drawn() -> None:
    """Neighbours on a line fix e₁ alone."""
    line = np.stack([np.diag([1.0, 0.0, 0.0]), np.diag([-1.0, 0.0, 0.0])])
    for scene in (with_set(TRACE, line, [0.5, 0.5]), with_set(TRACE, line[:1], [1.0])):
        assert {arrow.axis for arrow in drawing(scene, 0, 0, TI).arrows} == {0}
        structure_figure(scene, 0, 0, TI)


def test_captions_name_no_axis_that_is_not_drawn() -> None:
    """An atom alone has no axes, and neighbours on a line fix no e₃ that could be a line."""
    alone = Crystal(np.array([18]), np.zeros((1, 3)), 15.0 * np.eye(3), id="alone")
    model = cf.CrystalFramer(replace(cf.preset("crystalframer-2").config.model, n_layers=1, n_heads=1))
    chain = Crystal(np.array([52]), np.zeros((1, 3)), np.diag([15.0, 15.0, 2.8]), id="chain")
    for crystal, end in ((alone, "No neighbour fixes an axis."), (chain, "is solid, the other is pale.")):
        scene = scene_from_trace(cf.trace(crystal, model))
        assert frame_text(scene, 0, 0, 0).endswith(end)


def test_pictures_of_one_crystal_turn_with_it() -> None:
    for crystal in (perovskite(), random_crystal(1, n_atoms=3)):
        turn = random_rotation(2)
        before, after = (scene_from_trace(weighted_trace(one)) for one in (crystal, rotated(crystal, turn)))
        for layer, head, atom in np.ndindex(before.n_layers, before.n_heads, before.n_atoms):
            ends = []
            for scene, back in ((before, np.eye(3)), (after, turn)):
                others = other_axes(scene, layer, head, atom)
                assert scene.frames is not None
                rows = np.vstack([scene.frames[layer, head, atom], others.direction]) @ back
                axis = np.concatenate([np.arange(3), others.axis])
                ends.append(np.column_stack([axis, rows])[np.lexsort(np.column_stack([rows.round(3), axis]).T)])
            np.testing.assert_allclose(*ends, atol=1e-5)


# --- each kind of picture ---------------------------------------------------------------------------------------------


def test_the_still_picture_has_pale_shapes_and_names_them() -> None:
    figure = structure_figure(SCENE, 0, 0, TI)
    colors = {to_rgb(patch.get_facecolor()) for patch in figure.axes[0].patches if isinstance(patch, Polygon)}
    assert {to_rgb(mix(color, PAPER, 1 - OPACITY[1])) for color in AXIS_COLORS} <= colors
    words = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "axes of other frames (weight 17 %)" in words
    words = [text.get_text() for legend in structure_figure(LINES, 0, 0, TI).legends for text in legend.get_texts()]
    assert {"e₃ (no sign)", "axes of other frames (weight 17–33 %)"} <= {*words}
    plain = scene_from_trace(synthetic_trace(perovskite(), n_layers=2, n_heads=2))
    for scenes, expected in (([plain, SCENE], True), ([plain], False)):
        figure = frame_comparison_figure(scenes, TI)
        words = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert any("other frames" in word for word in words) == expected
        assert ("weighted set" in "".join(text.get_text() for text in figure.texts).replace("\n", " ")) == expected


def test_the_view_in_3d_shows_arrows_and_lines_and_says_the_weights() -> None:
    for scene in (SCENE, LINES):
        page, shapes = str(structure_view(scene, 0, 0, TI).write_html()), drawing(scene, 0, 0, TI, frames="all")
        arrows = [json.loads(text) for text in re.findall(r"\.addArrow\((.*)\);\n", page)]
        assert [arrow["color"] for arrow in arrows] == [arrow.color for arrow in shapes.arrows if not arrow.is_line]
        rods = [json.loads(text)["color"] for text in re.findall(r"\.addCylinder\((.*)\);\n", page)]
        assert rods[len(rods) - sum(arrow.is_line for arrow in shapes.arrows) :] == [
            arrow.color for arrow in shapes.arrows if arrow.is_line
        ]
        assert shapes.set_text in page


def accidental() -> Crystal:
    """C with five O at one distance, in directions that no symmetry relates."""
    directions = np.array([random_rotation(seed)[0] for seed in (3, 4, 6, 7, 9)])
    positions = 4.5 + np.vstack([np.zeros(3), 1.6 * directions])
    return Crystal(np.array([6, *[8] * 5]), positions, 9.0 * np.eye(3), id="accidental")


def test_measures_are_means_over_the_set() -> None:
    """Anchors at two distances: their lengths count by weight. All heads look alike, so no axis turns."""
    crystal = accidental()
    crystal.positions[1] += 0.02 * (crystal.positions[1] - crystal.positions[0])
    trace = weighted_trace(crystal, method="static-max", weighted_margin=0.3)
    frame = trace.layers[0].frame
    assert frame is not None and frame.sets.anchor_edges is not None
    carbon = frame.sets.part(0, 1)
    assert carbon.anchor_edges is not None
    lengths = trace.edge_lengths[carbon.anchor_edges]
    assert len(np.unique(lengths[:, 0].round(3))) == 2
    found = viz.anchor_distances(trace)
    np.testing.assert_allclose(found[0, 0, 0], carbon.weights @ lengths)
    assert (found[0, 0, 0] > 1.6).all() and (found[0, 0, 0] < 1.632).all()
    np.testing.assert_allclose(viz.axis_turns(trace)[0, :, 0], 0.0, atol=1e-5)
    assert viz.chance_turns(trace)[0, 0] < 60.0  # several known axes; of one it is 90°


def test_axes_turn_by_the_mean_over_a_set() -> None:
    """Half of the weight keeps the axis of the layer before, a tenth of which is needed to count as one."""
    trace = weighted_trace(perovskite())
    layers = []
    for weights in ([0.95, 0.05], [0.5, 0.5]):
        n = trace.n_atoms * trace.n_heads
        axes = np.tile(np.stack([np.eye(3), turned(30.0)]), (n, 1, 1))
        edges = np.tile([[7, 9], [8, 9]], (n, 1))
        layer = trace.layers[0]
        assert layer.frame is not None
        members = FrameSets(2 * np.arange(n + 1), np.tile(weights, n), axes, edges)
        layers.append(replace(layer, frame=replace(layer.frame, members=members)))
    np.testing.assert_allclose(viz.axis_turns(replace(trace, layers=tuple(layers))), 15.0)
    np.testing.assert_allclose(viz.axis_turns(replace(trace, layers=tuple(layers[::-1]))), 0.0, atol=1e-5)
