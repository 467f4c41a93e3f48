"""A still picture of a crystal with frames and attention: vectors for papers, pixels for a README."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from viz.drawings import AXIS_LENGTH, VIEW, Drawing, Frames, Polyhedra, camera, close_up, drawing
from viz.painter import DASH_GAP, Painter, Sizes, dashes, write
from viz.palette import AXIS_COLORS, AXIS_DASHES, AXIS_LABELS, INK, PAPER, element
from viz.scene import Scene, SceneError
from viz.text import where

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

FULL_WIDTH = 7.0
"""Inches, the text width of a journal page: the width that sizes are stated for."""
SMALLEST_TEXT = 7.0
"""Points; what journals ask of a figure at its final size."""
HANDLE_LENGTH = 2.0
"""Of lines in legends, in sizes of the text."""
MOST_COLUMNS = 4
"""Panels side by side."""


def structure_figure(
    scene: Scene,
    layer: int,
    head: int | None,
    atom: int,
    *,
    frames: Frames = "selected",
    n_lines: int = 12,
    axis_length: float = AXIS_LENGTH,
    polyhedra: Polyhedra = "selected",
    view: tuple[float, float] = VIEW,
    width: float = FULL_WIDTH,
) -> Figure:
    """Draw one layer and head of one atom, in orthographic projection; save with `figure.savefig("x.pdf")`.

    PDF and SVG keep text as text, so labels can be edited. The axes differ in colour, label and dashes (e₁ whole,
    e₂ in two pieces, e₃ in four), so the picture can be printed in grey.

    Args:
        scene: what to draw.
        layer: counted from 0.
        head: counted from 0; None draws the mean attention over heads, without axes.
        atom: the atom whose strongest attention lines and labelled axes are drawn.
        frames: whose axes to draw.
        n_lines: attention lines to draw.
        axis_length: Å.
        polyhedra: around which atoms to draw them; only metals have one.
        view: azimuth and elevation of the camera, degrees.
        width: of the figure, inches; the height follows from the crystal, up to 1.2 times the width and the legend. One
            column of a journal, 85 mm, is 3.35.

    Raises:
        SceneError: no such layer, head or atom.

    Example:
        >>> figure = structure_figure(scene, layer=0, head=2, atom=1, width=3.35)
        >>> figure.savefig("frame.pdf")
    """
    shapes = drawing(
        scene, layer, head, atom, frames=frames, n_lines=n_lines, axis_length=axis_length, polyhedra=polyhedra
    )
    scale, sizes = _scaled(width)
    painter = Painter(shapes, camera(view), scale)
    low, high = painter.bounds()
    right, up = high - low
    height = min(width * up / right, 1.2 * width)
    legend = _Legend(width, sizes, textwrap.fill(shapes.caption, _characters(width, sizes)))
    legend.add(_atom_handles(scene, sizes))
    legend.add(_axis_handles(shapes, sizes))
    points_per_angstrom = 72 * height / up
    legend.add(_attention_handles(shapes, points_per_angstrom))
    figure = _paper()(figsize=(width, height + legend.height), facecolor=PAPER)
    share = legend.height / (height + legend.height)
    axes = figure.add_axes((0.0, share, 1.0, 1.0 - share))
    # A tall crystal sets the scale by its height and gets white on both sides.
    _fit(axes, (low + high) / 2, right=up * width / height, up=up)
    painter.paint(axes)
    painter.name(axes, sizes)
    _name_cell_vectors(axes, scene, painter, sizes)
    legend.draw(figure)
    return figure


def frame_comparison_figure(
    scenes: Sequence[Scene],
    atom: int,
    *,
    layers: Sequence[int] = (0,),
    head: int = 0,
    n_lines: int = 8,
    axis_length: float = AXIS_LENGTH,
    view: tuple[float, float] = VIEW,
    width: float = FULL_WIDTH,
) -> Figure:
    """One site side by side: as several frame methods see it, in several layers, or both (a row for each layer).

    Each panel shows the atom, its axes and polyhedron, and the atoms that its strongest lines reach, all at one scale
    from one side. Saved as text and vectors, as `structure_figure`.

    Args:
        scenes: of one crystal, one for each model.
        atom: counted from 0.
        layers: counted from 0.
        head: counted from 0. Heads of different models and layers have nothing in common but their number.
        n_lines: attention lines to draw.
        axis_length: Å.
        view: azimuth and elevation of the camera, degrees.
        width: of the figure, inches.

    Raises:
        SceneError: no scene or layer is given, the scenes are of different crystals, or one lacks a layer, the head or
            the atom.

    Example:
        >>> figure = frame_comparison_figure([scene], atom=1, layers=(0, 1, 2))
        >>> [panel.get_title() for panel in figure.axes]
        ['max, layer 0, head 0', 'max, layer 1, head 0', 'max, layer 2, head 0']
        >>> figure.savefig("layers.svg")
    """
    check_same_crystal(scenes)
    if not layers:
        raise SceneError("comparison in 0 layers: give at least one")
    panels = [(scene, layer) for layer in layers for scene in scenes]
    is_table = len(scenes) > 1 and len(layers) > 1
    n_columns = len(scenes) if is_table else -(-len(panels) // -(-len(panels) // MOST_COLUMNS))
    n_rows = -(-len(panels) // n_columns)
    scale, sizes = _scaled(width / np.sqrt(n_columns))
    painters = [
        Painter(
            close_up(drawing(scene, layer, head, atom, n_lines=n_lines, axis_length=axis_length)),
            camera(view),
            scale,
        )
        for scene, layer in panels
    ]
    # One scale for all; every panel centred on its atom.
    centers = [painter.project(scenes[0].positions[atom])[:2] for painter in painters]
    bounds = [painter.bounds() for painter in painters]
    reach = np.max([np.maximum(high - at, at - low) for (low, high), at in zip(bounds, centers, strict=True)], axis=0)
    right, up = 2 * reach
    panel_width = width / n_columns
    panel_height = min(panel_width * up / right, 1.2 * panel_width)
    title_height = 2 * sizes.words / 72
    caption = (
        f"{scenes[0].labels[atom]}: its frame, and its {n_lines} strongest attention lines. "
        "Width and darkness of a line are relative to the strongest of its panel."
    )
    legend = _Legend(width, sizes, textwrap.fill(caption, _characters(width, sizes)))
    legend.add(_atom_handles(scenes[0], sizes))
    legend.add(next((handles for p in painters if (handles := _axis_handles(p.shapes, sizes))), []))
    height = n_rows * (panel_height + title_height) + legend.height
    figure = _paper()(figsize=(width, height), facecolor=PAPER)
    for number, ((scene, layer), painter, center) in enumerate(zip(panels, painters, centers, strict=True)):
        row, column = divmod(number, n_columns)
        bottom = height - (row + 1) * (panel_height + title_height)
        axes = figure.add_axes((column / n_columns, bottom / height, 1 / n_columns, panel_height / height))
        _fit(axes, center, right=max(right, up * panel_width / panel_height), up=up)
        painter.paint(axes)
        painter.name(axes, sizes)
        axes.set_title(f"{scene.method}, {where(layer, head)}", fontsize=sizes.words, color=INK, pad=2)
    legend.draw(figure)
    return figure


def check_same_crystal(scenes: Sequence[Scene]) -> None:
    """Raise SceneError unless there is a scene, and all are of one crystal in one description."""
    if not scenes:
        raise SceneError("comparison of 0 scenes: give at least one")
    first = scenes[0]
    for number, scene in enumerate(scenes):
        same = np.array_equal(scene.atomic_numbers, first.atomic_numbers) and np.allclose(scene.lattice, first.lattice)
        if not same or not np.allclose(scene.positions, first.positions, atol=1e-3):
            raise SceneError(
                f"comparison: scene {number} ({scene.id or scene.formula}) is another crystal than the first "
                f"({first.id or first.formula}); trace the same structure with every model"
            )


@cache
def _paper() -> type[Figure]:
    """A figure class that saves text as text, whatever the settings of the session."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    class PaperFigure(Figure):
        def savefig(self, *args: Any, **options: Any) -> None:
            # 42: TrueType, which drawing programs can edit; the default of PDF, 3, they cannot.
            with rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "ps.fonttype": 42}):
                super().savefig(*args, **options)

    return PaperFigure


def _scaled(width: float) -> tuple[float, Sizes]:
    """Scale of lines, and sizes of text, for a figure so many inches wide."""
    scale = width / FULL_WIDTH
    return scale, Sizes(*(max(SMALLEST_TEXT, size * scale) for size in (15.0, 11.0, 10.0)))


def _characters(width: float, sizes: Sizes) -> int:
    """That fit into a line."""
    return int(width * 72 / (0.58 * sizes.words))


def _fit(axes: Axes, center: np.ndarray, *, right: float, up: float) -> None:
    """Show so many Å around a place."""
    (x, y) = center
    axes.set(xlim=(x - right / 2, x + right / 2), ylim=(y - up / 2, y + up / 2), aspect="equal")
    axes.set_axis_off()


def _name_cell_vectors(axes: Axes, scene: Scene, painter: Painter, sizes: Sizes) -> None:
    """a, b, c beside the middle of each cell vector, outside the cell."""
    if scene.is_region:
        return
    middle = painter.project(scene.lattice.sum(axis=0) / 2)[:2]
    for name, vector in zip("abc", scene.lattice, strict=True):
        place = painter.project(vector / 2)[:2]
        outward = place - middle
        write(axes, place + 0.3 * outward / max(float(np.linalg.norm(outward)), 1e-9), name, INK, sizes.atom)


class _Legend:
    """Rows of handles and a caption below a picture, as high as they need."""

    def __init__(self, width: float, sizes: Sizes, caption: str) -> None:
        self.width = width
        self.size = sizes.words
        self.caption = caption
        self.rows: list[list[Line2D]] = []

    @property
    def line(self) -> float:
        """Inches."""
        return 1.45 * self.size / 72

    @property
    def height(self) -> float:
        """Inches."""
        return self.line * (len(self.rows) + self.caption.count("\n") + 1.7)

    def add(self, handles: list[Line2D]) -> None:
        """As many rows as these handles need."""
        row: list[Line2D] = []
        for handle in handles:
            if row and sum(map(self._inches, [*row, handle])) > self.width:
                self.rows.append(row)
                row = []
            row.append(handle)
        if row:
            self.rows.append(row)

    def _inches(self, handle: Line2D) -> float:
        return (0.62 * len(str(handle.get_label())) + 5.0) * self.size / 72

    def draw(self, figure: Figure) -> None:
        unit = 1 / figure.get_figheight()
        style: dict[str, Any] = {
            "loc": "center",
            "frameon": False,
            "fontsize": self.size,
            "borderpad": 0.0,
            "handlelength": HANDLE_LENGTH,
        }
        for number, row in enumerate(self.rows):
            place = (0.5, (self.height - (number + 0.7) * self.line) * unit)
            figure.legend(handles=row, ncols=len(row), bbox_to_anchor=place, columnspacing=1.5, **style)
        top = (self.height - (len(self.rows) + 0.4) * self.line) * unit
        figure.text(0.5, top, self.caption, ha="center", va="top", fontsize=self.size, color=INK, linespacing=1.3)


def _atom_handles(scene: Scene, sizes: Sizes) -> list[Line2D]:
    from matplotlib.lines import Line2D

    items = [element(z) for z in dict.fromkeys(scene.atomic_numbers.tolist())]
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": sizes.words, "markeredgecolor": INK}
    return [Line2D([], [], markerfacecolor=item.color, label=item.symbol, **look) for item in items]


def _axis_handles(shapes: Drawing, sizes: Sizes) -> list[Line2D]:
    """Dashed as the shafts: matplotlib counts dashes in widths of the line."""
    from matplotlib.lines import Line2D

    width = 0.4 * sizes.words
    handles = []
    for k in sorted({arrow.axis for arrow in shapes.arrows}):
        length = HANDLE_LENGTH * sizes.words / width * dashes(AXIS_DASHES[k])[0][1]
        style: Any = (0, (length, DASH_GAP * length)) if AXIS_DASHES[k] > 1 else "solid"
        handles.append(Line2D([], [], color=AXIS_COLORS[k], linestyle=style, lw=width, label=AXIS_LABELS[k]))
    return handles


def _attention_handles(shapes: Drawing, points_per_angstrom: float) -> list[Line2D]:
    """The strongest and the weakest line, as thick as they are drawn."""
    from matplotlib.lines import Line2D

    lines = [stick for stick in shapes.sticks if stick.role == "attention"]
    if not lines:
        return []
    shown = {lines[0]: "strongest", lines[-1]: "weakest drawn"}
    if lines[0].radius == lines[-1].radius:
        shown = {lines[0]: "every line"}
    return [
        Line2D(
            [],
            [],
            color=stick.colors[0],
            lw=2 * stick.radius * points_per_angstrom,
            solid_capstyle="butt",
            label=f"attention {stick.weight:.2g} ({name})",
        )
        for stick, name in shown.items()
    ]
