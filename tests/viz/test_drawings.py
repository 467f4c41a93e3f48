"""The shapes of a drawing have the positions of the scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_traces import with_dead_head

from crystalframer.traces import CrystalTrace
from viz import Scene, drawing, scene_from_trace, strongest_edges
from viz.drawings import VIEW, camera, close_up
from viz.palette import AXIS_COLORS, PALENESS, PAPER, mix


@pytest.mark.parametrize("atom", [0, 2])
def test_axes_start_at_their_atom_and_follow_the_frame(scene: Scene, atom: int) -> None:
    shapes = drawing(scene, 1, 2, atom, frames="selected", axis_length=2.0)
    assert scene.frames is not None
    assert [arrow.label for arrow in shapes.arrows] == ["e₁", "e₂", "e₃"]
    for axis, arrow in zip(scene.frames[1, 2, atom], shapes.arrows, strict=True):
        np.testing.assert_allclose(arrow.start, scene.positions[atom])
        np.testing.assert_allclose(arrow.end, scene.positions[atom] + 2.0 * axis)


def test_axes_of_all_atoms_and_of_none(scene: Scene) -> None:
    everywhere = drawing(scene, 0, 0, 1, frames="all").arrows
    assert [arrow.atom for arrow in everywhere] == [atom for atom in range(scene.n_atoms) for _ in range(3)]
    assert {arrow.atom for arrow in everywhere if arrow.label} == {1}
    assert not drawing(scene, 0, 0, 1, frames="none").arrows


def test_a_mean_over_heads_has_no_axes_and_says_so(scene: Scene) -> None:
    shapes = drawing(scene, 0, None, 1, frames="all")
    assert not shapes.arrows
    assert "mean of all heads" in shapes.caption and "choose a head" in shapes.caption


def test_without_a_frame_method_the_caption_says_so(scene: Scene) -> None:
    shapes = drawing(replace(scene, frames=None, method="none"), 0, 1, 1, frames="all")
    assert not shapes.arrows and "no frames" in shapes.caption


@pytest.mark.parametrize("head", [1, None])
def test_attention_lines_reach_the_right_periodic_images(scene: Scene, head: int | None) -> None:
    shapes = drawing(scene, 0, head, 1, n_lines=9)
    lines = strongest_edges(scene, 0, head, 1, n_lines=9)
    sticks = [stick for stick in shapes.sticks if stick.role == "attention"]
    assert len(sticks) == len(lines.edges)
    for stick, key, image, weight in zip(sticks, lines.key, lines.image, lines.weight, strict=True):
        assert stick.ends is not None
        query_ball, key_ball = (shapes.balls[index] for index in stick.ends)
        expected = scene.positions[key] + image @ scene.lattice
        assert (query_ball.atom, key_ball.atom) == (1, key)
        np.testing.assert_allclose(stick.start, scene.positions[1])
        np.testing.assert_allclose(stick.end, expected)
        np.testing.assert_allclose(key_ball.center, expected)
        assert stick.weight == pytest.approx(weight)


def test_stronger_lines_are_thicker(scene: Scene) -> None:
    sticks = [stick for stick in drawing(scene, 0, 0, 1).sticks if stick.role == "attention"]
    radii = [stick.radius for stick in sticks]
    assert radii == sorted(radii, reverse=True) and radii[0] > radii[-1]


def test_every_ball_is_drawn_once(scene: Scene) -> None:
    shapes = drawing(scene, 0, 0, 1, n_lines=30)
    centers = np.array([ball.center for ball in shapes.balls])
    assert len(shapes.balls) > len(scene.drawn_site)
    assert len(np.unique(centers.round(6), axis=0)) == len(centers)
    assert len({ball.label for ball in shapes.balls}) == len(shapes.balls)


def test_a_bond_under_an_attention_line_is_left_out(perovskite_scene: Scene) -> None:
    """The six bonds of Ti and, with enough lines, the six lines to its O."""
    bonds = [s for s in drawing(perovskite_scene, 0, 0, 1, n_lines=0).sticks if s.role == "bond"]
    assert len(bonds) == len(perovskite_scene.bonds) == 6
    assert not [s for s in drawing(perovskite_scene, 0, 0, 1, n_lines=1000).sticks if s.role == "bond"]


def test_caption_tells_the_share_of_attention(scene: Scene) -> None:
    lines = strongest_edges(scene, 2, 1, 0)
    caption = drawing(scene, 2, 1, 0).caption
    assert caption.startswith(f"{scene.labels[0]}, layer 2, head 1: the {len(lines.edges)} strongest lines")
    assert f"carry {lines.weight.sum():.0%}" in caption and f"{lines.itself:.0%} stays" in caption


@pytest.mark.parametrize("view", [VIEW, (0.0, 0.0), (-130.0, 75.0)])
def test_the_camera_is_a_rotation_with_c_upwards(view: tuple[float, float]) -> None:
    rows = camera(view)
    np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rows) == pytest.approx(1.0)
    assert rows[0, 2] == 0.0 and rows[1, 2] > 0.0


def test_polyhedra_of_the_selected_atom_of_all_and_of_none(perovskite_scene: Scene) -> None:
    """Ti in the middle of six O at a/2; Sr has twelve O around it, O has none."""
    (octahedron,) = drawing(perovskite_scene, 0, 0, 1).solids
    np.testing.assert_allclose(np.linalg.norm(octahedron.vertices - perovskite_scene.positions[1], axis=1), 3.905 / 2)
    assert (octahedron.atom, len(octahedron.vertices), len(octahedron.rims)) == (1, 6, 12)
    assert octahedron.color == perovskite_scene.elements[1].color
    assert drawing(perovskite_scene, 0, 0, 2).solids == ()
    everything = drawing(perovskite_scene, 0, 0, 2, polyhedra="all").solids
    assert [solid.atom for solid in everything] == [hull.center for hull in perovskite_scene.polyhedra]
    assert drawing(perovskite_scene, 0, 0, 1, polyhedra="none").solids == ()


@pytest.mark.parametrize("atom", [0, 1, 2])
def test_close_up_keeps_the_site_as_it_was(scene: Scene, atom: int) -> None:
    shapes = drawing(scene, 1, 2, atom, frames="all", polyhedra="all", n_lines=5)
    site = close_up(shapes)
    assert site.balls[site.selected].atom == atom
    np.testing.assert_array_equal(site.balls[site.selected].center, scene.positions[atom])
    attention = [stick for stick in shapes.sticks if stick.role == "attention"]
    kept = [stick for stick in site.sticks if stick.role == "attention"]
    assert [stick.weight for stick in kept] == [stick.weight for stick in attention]
    for stick in site.sticks:
        assert stick.ends and stick.role != "cell"
        np.testing.assert_array_equal(site.balls[stick.ends[0]].center, stick.start)
        np.testing.assert_array_equal(site.balls[stick.ends[1]].center, stick.end)
    assert {arrow.atom for arrow in site.arrows} == {atom} and len(site.arrows) == 3
    assert {solid.atom for solid in site.solids} <= {atom}
    assert len(site.balls) < len(shapes.balls)


def test_axes_that_change_nothing_are_pale_and_the_caption_says_so(perovskite_trace: CrystalTrace) -> None:
    dead = scene_from_trace(with_dead_head(perovskite_trace, 1, 2))
    alive, pale = (drawing(dead, 1, head, 1, frames="all") for head in (1, 2))
    assert [arrow.color for arrow in alive.arrows[:3]] == list(AXIS_COLORS)
    assert [arrow.color for arrow in pale.arrows] == [mix(color, PAPER, PALENESS) for color in AXIS_COLORS] * 5
    assert "pale" in pale.caption and "pale" not in alive.caption
