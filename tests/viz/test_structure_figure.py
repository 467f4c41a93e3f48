"""The still picture: what is in it, where, and in which file formats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Circle

from viz import Scene, SceneError, drawing, structure_figure
from viz.drawing import camera


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_file_formats(perovskite_scene: Scene, tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"picture{suffix}"
    structure_figure(perovskite_scene, 0, 1, 1).savefig(path)
    assert path.read_bytes().startswith(start)


def test_balls_stand_at_their_projected_places(scene: Scene) -> None:
    view = (20.0, 30.0)
    figure = structure_figure(scene, 0, 1, 1, view=view)
    shapes = drawing(scene, 0, 1, 1)
    circles = [patch for patch in figure.axes[0].patches if isinstance(patch, Circle)]
    drawn = np.array([circle.center for circle in circles])
    for ball in shapes.balls:
        x, y, _ = camera(view) @ ball.center
        assert np.isclose(drawn, [x, y]).all(axis=1).any()


def test_nearer_balls_cover_farther_ones(perovskite_scene: Scene) -> None:
    """Painted from back to front. Each ball is four discs of one place; the first of them has the ball's radius."""
    view = (10.0, 5.0)
    shapes = drawing(perovskite_scene, 0, 1, 1, n_lines=0)
    figure = structure_figure(perovskite_scene, 0, 1, 1, view=view, n_lines=0)
    rims = [p for p in figure.axes[0].patches if isinstance(p, Circle) and p.get_linewidth() > 0.5]
    by_place = {tuple(np.round(rim.center, 6)): rim.get_zorder() for rim in rims}
    places = [camera(view) @ ball.center for ball in shapes.balls]
    heights = [place[2] + ball.radius for place, ball in zip(places, shapes.balls, strict=True)]
    painted = [by_place[tuple(np.round(place[:2], 6))] for place in places]
    assert np.argsort(painted).tolist() == np.argsort(heights, kind="stable").tolist()


def test_labels_name_axes_atom_and_cell(perovskite_scene: Scene) -> None:
    figure = structure_figure(perovskite_scene, 0, 1, 1)
    assert {text.get_text() for text in figure.axes[0].texts} == {"e₁", "e₂", "e₃", "Ti1", "a", "b", "c"}
    caption = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert caption == drawing(perovskite_scene, 0, 1, 1).caption
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert names[:3] == ["Sr", "Ti", "O"] and "strongest" in names[3] and "weakest" in names[4]


def test_everything_lies_inside_the_page(scene: Scene) -> None:
    axes = structure_figure(scene, 0, 1, 1, frames="all", n_lines=40).axes[0]
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for patch in axes.patches:
        box = patch.get_path().get_extents(patch.get_patch_transform())
        assert left <= box.x0 and box.x1 <= right and low <= box.y0 and box.y1 <= high


def test_a_tall_cell_fits_a_page(perovskite_scene: Scene) -> None:
    stretched = replace(perovskite_scene, lattice=np.diag([3.0, 3.0, 40.0]))
    figure = structure_figure(stretched, 0, None, 0, width=6.0)
    assert figure.get_figheight() <= 1.2 * 6.0 + 1.0
    assert figure.axes[0].get_window_extent().width == pytest.approx(6.0 * figure.dpi)


def test_a_wrong_index_is_named(scene: Scene) -> None:
    with pytest.raises(SceneError, match="no head 9"):
        structure_figure(scene, 0, 9, 0)
