"""Still pictures: their content, its position, and file formats."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon
from matplotlib.text import Text

from viz import Scene, drawing, frame_comparison_figure, structure_figure
from viz.drawings import VIEW, camera
from viz.painter import Painter, dashes
from viz.palette import AXIS_DASHES


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
    assert names[:6] == ["Sr", "Ti", "O", "e₁", "e₂", "e₃"] and "strongest" in names[6] and "weakest" in names[7]


def test_a_picture_without_caption_keeps_its_legend_and_is_lower(perovskite_scene: Scene) -> None:
    whole, short = (structure_figure(perovskite_scene, 0, 1, 1, caption=words) for words in (True, False))
    assert "".join(text.get_text() for text in short.texts) == ""
    assert len(short.legends) == len(whole.legends) and short.get_figheight() < whole.get_figheight()
    panels = [frame_comparison_figure([perovskite_scene], 1, caption=words) for words in (True, False)]
    assert "".join(text.get_text() for text in panels[1].texts) == ""
    assert panels[1].get_figheight() < panels[0].get_figheight()


def test_a_picture_in_axes_of_another_figure_fills_them(perovskite_scene: Scene) -> None:
    figure = Figure(figsize=(7, 3))
    left, right = figure.subplots(1, 2)
    assert structure_figure(perovskite_scene, 0, 1, 1, ax=left) is figure
    assert left.patches and not right.patches and not figure.legends and not figure.texts
    lone = structure_figure(perovskite_scene, 0, 1, 1).axes[0]
    assert len(left.patches) == len(lone.patches)
    for patch in left.patches:
        box = patch.get_window_extent()
        assert left.bbox.x0 <= box.x0 and box.x1 <= left.bbox.x1 and left.bbox.y0 <= box.y0 and box.y1 <= left.bbox.y1


def test_all_text_of_a_picture_has_one_size(perovskite_scene: Scene) -> None:
    for figure in (structure_figure(perovskite_scene, 0, 1, 1), frame_comparison_figure([perovskite_scene], 1)):
        texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
        assert len({text.get_fontsize() for text in texts if text.get_visible() and text.axes is None}) == 1
        assert {text.get_fontsize() for axes in figure.axes for text in axes.texts} == {
            legend.get_texts()[0].get_fontsize() for legend in figure.legends
        }


def test_everything_lies_inside_the_page(scene: Scene) -> None:
    axes = structure_figure(scene, 0, 1, 1, frames="all", n_lines=40).axes[0]
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for patch in axes.patches:
        box = patch.get_path().get_extents(patch.get_patch_transform())
        assert left <= box.x0 and box.x1 <= right and low <= box.y0 and box.y1 <= high


def test_a_tall_cell_fits_a_page(perovskite_scene: Scene) -> None:
    stretched = replace(perovskite_scene, lattice=np.diag([3.0, 3.0, 40.0]))
    figure = structure_figure(stretched, 0, None, 0, width=6.0)
    picture = figure.axes[0].get_position().height * figure.get_figheight()
    assert picture == pytest.approx(1.2 * 6.0)
    assert figure.axes[0].get_window_extent().width == pytest.approx(6.0 * figure.dpi)


def test_text_of_an_svg_is_text(perovskite_scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "picture.svg"
    structure_figure(perovskite_scene, 0, 1, 1).savefig(path)
    words = re.findall(r"<text [^>]*>([^<]+)</text>", path.read_text(encoding="utf-8"))
    assert {"e₁", "e₂", "e₃", "Ti1", "Sr", "a", "b", "c"} <= set(words)
    assert any("strongest" in text for text in words) and any("Frame method: max" in text for text in words)


def test_fonts_of_a_pdf_can_be_edited(perovskite_scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "picture.pdf"
    structure_figure(perovskite_scene, 0, 1, 1).savefig(path)
    fonts = set(re.findall(rb"/Subtype /(Type[03]|CIDFontType2|TrueType)", path.read_bytes()))
    assert fonts and b"Type3" not in fonts


@pytest.mark.parametrize("width", [3.35, 7.0])
def test_legible_at_its_final_width(perovskite_scene: Scene, width: float) -> None:
    """No text under 7 points, and none beyond the page: 85 mm is one column of a journal."""
    figure = structure_figure(perovskite_scene, 0, 1, 1, width=width)
    words = [*figure.texts, *figure.axes[0].texts, *(text for legend in figure.legends for text in legend.get_texts())]
    assert min(float(text.get_fontsize()) for text in words) >= 7.0
    figure.draw_without_rendering()
    page = figure.bbox
    for box in (item.get_window_extent() for item in (*words, *figure.legends)):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
    boxes = [legend.get_window_extent() for legend in figure.legends] + [figure.texts[0].get_window_extent()]
    for upper, lower in pairwise(boxes):
        assert lower.y1 <= upper.y1 and lower.y0 < upper.y0


def test_axes_differ_without_colour(perovskite_scene: Scene) -> None:
    """The shaft of e₁ is one piece, of e₂ two, of e₃ four; each arrow has one head."""
    for n in AXIS_DASHES:
        spans = dashes(n)
        assert spans[0][0] == 0.0 and spans[-1][1] == pytest.approx(1.0)
        assert all(end < start for (_, end), (start, _) in pairwise(spans))
    shapes = drawing(perovskite_scene, 0, 1, 1, frames="all", axis_length=1.0)
    painter = Painter(shapes, camera(VIEW), scale=1.0)
    assert [len(painter._arrow(arrow)) - 1 for arrow in shapes.arrows] == [1, 2, 4] * perovskite_scene.n_atoms


def test_polyhedra_are_translucent_and_behind(perovskite_scene: Scene) -> None:
    figure = structure_figure(perovskite_scene, 0, 1, 1)
    faces = [patch for patch in figure.axes[0].patches if isinstance(patch, Polygon) and patch.get_alpha()]
    assert len(faces) == len(next(hull.faces for hull in perovskite_scene.polyhedra if hull.center == 1)) == 8
    others = [patch for patch in figure.axes[0].patches if not patch.get_alpha()]
    assert max(face.get_zorder() for face in faces) < min(patch.get_zorder() for patch in others)
    without = structure_figure(perovskite_scene, 0, 1, 1, polyhedra="none")
    assert not [patch for patch in without.axes[0].patches if patch.get_alpha()]


def test_comparison_of_layers_and_methods(perovskite_scene: Scene) -> None:
    other = replace(perovskite_scene, method="weighted-pca")
    table = frame_comparison_figure([perovskite_scene, other], 1, layers=(0, 2), head=3)
    assert [panel.get_title() for panel in table.axes] == [
        "max, layer 0, head 3",
        "weighted-pca, layer 0, head 3",
        "max, layer 2, head 3",
        "weighted-pca, layer 2, head 3",
    ]
    columns = [round(panel.get_position().x0, 6) for panel in table.axes]
    assert columns == [0.0, 0.5, 0.0, 0.5]
    assert [text.get_text() for text in table.axes[0].texts if text.get_text() == "e₁"]


@pytest.mark.parametrize(("n", "n_columns"), [(1, 1), (3, 3), (4, 4), (6, 3)])
def test_panels_wrap(perovskite_scene: Scene, n: int, n_columns: int) -> None:
    figure = frame_comparison_figure([perovskite_scene] * n, 1)
    assert len({round(panel.get_position().x0, 6) for panel in figure.axes}) == n_columns


def test_panels_have_one_scale_and_the_atom_in_the_middle(perovskite_scene: Scene) -> None:
    figure = frame_comparison_figure([perovskite_scene], 1, layers=(0, 1, 2), n_lines=20)
    for panel in figure.axes:
        assert np.diff(panel.get_xlim()) == pytest.approx(np.diff(figure.axes[0].get_xlim()))
        box = panel.get_position()
        width, height = box.width * figure.get_figwidth(), box.height * figure.get_figheight()
        assert np.diff(panel.get_xlim())[0] / width == pytest.approx(np.diff(panel.get_ylim())[0] / height)
        for patch in panel.patches:
            extent = patch.get_path().get_extents(patch.get_patch_transform())
            assert panel.get_xlim()[0] <= extent.x0 and extent.x1 <= panel.get_xlim()[1]
            assert panel.get_ylim()[0] <= extent.y0 and extent.y1 <= panel.get_ylim()[1]


def test_comparison_of_a_method_without_frames(perovskite_scene: Scene) -> None:
    bare = replace(perovskite_scene, frames=None, method="none")
    first, second = frame_comparison_figure([bare, perovskite_scene], 1).axes
    assert not [text for text in first.texts if text.get_text().startswith("e")]
    assert [text for text in second.texts if text.get_text().startswith("e")]
