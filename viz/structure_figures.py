"""Still pictures of a crystal with frames and attention, for papers (PDF, SVG) and pages (PNG)."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from viz.drawings import AXIS_LENGTH, VIEW, Arrow, Drawing, Which, camera, close_up, drawing
from viz.errors import SceneError
from viz.painter import DASH_GAP, Painter, dashes, write
from viz.palette import AXIS_COLORS, AXIS_DASHES, AXIS_LABELS, INK, PAPER, element
from viz.scene import Scene, check_scene
from viz.text import where

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

FULL_WIDTH = 7.0
"""Inches, the text width of a journal page. Sizes of text and lines are given for this width."""
FULL_TEXT = 10.0
"""Points, the text of a figure of that width."""
SMALLEST_TEXT = 7.0
"""Points, the smallest text that journals accept."""
HANDLE_LENGTH = 2.0
"""Length of lines in legends, in text size."""
MOST_COLUMNS = 4
"""Largest number of panels in a row."""


def structure_figure(
    scene: Scene,
    layer: int,
    head: int | None,
    atom: int,
    *,
    frames: Which = "selected",
    n_lines: int = 12,
    axis_length: float = AXIS_LENGTH,
    polyhedra: Which = "selected",
    view: tuple[float, float] = VIEW,
    width: float = FULL_WIDTH,
    caption: bool = True,
    ax: Axes | None = None,
) -> Figure:
    """Draw one layer, one head and one atom as a still picture; save it with `figure.savefig("picture.pdf")`.

    PDF and SVG files keep text as text, so labels can be edited. The axes differ in colour, label and dashes (e₁ is
    solid, e₂ has two dashes, e₃ has four), so the picture can be printed in grey.

    Args:
        scene: the crystal with its frames and attention.
        layer: counted from 0.
        head: counted from 0. None draws the mean attention over heads, without axes.
        atom: the atom whose attention lines and labelled axes are drawn, counted from 0.
        frames: atoms whose axes are drawn: `"selected"` (only `atom`), `"all"` or `"none"`.
        n_lines: number of attention lines, strongest first; more if some tie with the last.
        axis_length: length of the axes, Å.
        polyhedra: atoms around which polyhedra are drawn, as for `frames`; only metals have one.
        view: azimuth and elevation of the camera, degrees.
        width: width of the figure, inches; a journal column of 85 mm is 3.35. The height depends on the crystal, and is
            at most 1.2 times the width, plus the legend.
        caption: whether words below the legend say what is drawn.
        ax: axes of your own figure to draw into: the picture alone, in their width, without legend and caption.

    Raises:
        SceneError: there is no such layer, head, atom or option.

    Example:
        >>> figure = structure_figure(scene, layer=0, head=2, atom=1, width=3.35)
        >>> figure.savefig("frame.pdf")
    """
    shapes = drawing(
        scene, layer, head, atom, frames=frames, n_lines=n_lines, axis_length=axis_length, polyhedra=polyhedra
    )
    if ax is not None:
        return _paint_into(ax, scene, shapes, view)
    scale, size = _scaled(width)
    painter = Painter(shapes, camera(view), scale)
    low, high = painter.bounds()
    right, up = high - low
    height = min(width * up / right, 1.2 * width)
    legend = _Legend(width, size, textwrap.fill(shapes.caption, _characters(width, size)) if caption else "")
    legend.add(_atom_handles(scene, size))
    legend.add(_axis_handles(shapes, size))
    points_per_angstrom = 72 * height / up
    legend.add(_attention_handles(shapes, points_per_angstrom))
    figure = paper_figure()(figsize=(width, height + legend.height), facecolor=PAPER)
    share = legend.height / (height + legend.height)
    axes = figure.add_axes((0.0, share, 1.0, 1.0 - share))
    # For a tall crystal the height sets the scale, with white space on both sides.
    _fit(axes, (low + high) / 2, right=up * width / height, up=up)
    _paint(axes, scene, painter, size)
    legend.draw(figure)
    return figure


def _paint_into(axes: Axes, scene: Scene, shapes: Drawing, view: tuple[float, float]) -> Figure:
    """Draw the picture alone into axes that are there, as large as they allow."""
    from matplotlib.figure import Figure

    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    box = axes.get_window_extent()
    width, height = box.width / figure.dpi, box.height / figure.dpi
    scale, size = _scaled(width)
    painter = Painter(shapes, camera(view), scale)
    low, high = painter.bounds()
    right, up = high - low
    _fit(axes, (low + high) / 2, right=max(right, up * width / height), up=max(up, right * height / width))
    _paint(axes, scene, painter, size)
    return figure


def _paint(axes: Axes, scene: Scene, painter: Painter, size: float) -> None:
    painter.paint(axes)
    painter.name(axes, size)
    _name_cell_vectors(axes, scene, painter, size)


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
    caption: bool = True,
) -> Figure:
    """Draw one site side by side: with several frame methods, in several layers, or both (then one row for each layer).

    Each panel shows the atom, its axes and polyhedron, and the atoms at the end of its attention lines. All panels have
    the same scale and view. Save the figure as for `structure_figure`.

    Args:
        scenes: scenes of one crystal, one for each model.
        atom: the site, counted from 0.
        layers: counted from 0.
        head: counted from 0. Heads with the same number in different models or layers are not related.
        n_lines: number of attention lines in each panel.
        axis_length: length of the axes, Å.
        view: azimuth and elevation of the camera, degrees.
        width: width of the figure, inches.
        caption: whether words below the legend say what is drawn.

    Raises:
        SceneError: no scene or no layer is given, the scenes are of different crystals, or a scene lacks a layer, the
            head or the atom.

    Example:
        >>> figure = frame_comparison_figure([scene], atom=1, layers=(0, 1, 2))
        >>> [panel.get_title() for panel in figure.axes]
        ['max, layer 0, head 0', 'max, layer 1, head 0', 'max, layer 2, head 0']
        >>> figure.savefig("layers.svg")
    """
    check_same_crystal(scenes)
    if not layers:
        raise SceneError("comparison without a layer; give at least one", field="layers", value=layers)
    panels = [(scene, layer) for layer in layers for scene in scenes]
    is_table = len(scenes) > 1 and len(layers) > 1
    n_columns = len(scenes) if is_table else -(-len(panels) // -(-len(panels) // MOST_COLUMNS))
    n_rows = -(-len(panels) // n_columns)
    scale, size = _scaled(width / np.sqrt(n_columns))
    painters = [
        Painter(
            close_up(drawing(scene, layer, head, atom, n_lines=n_lines, axis_length=axis_length)),
            camera(view),
            scale,
        )
        for scene, layer in panels
    ]
    # One scale for all panels; the atom is in the middle of each.
    centers = [painter.project(scenes[0].positions[atom])[:2] for painter in painters]
    bounds = [painter.bounds() for painter in painters]
    reach = np.max([np.maximum(high - at, at - low) for (low, high), at in zip(bounds, centers, strict=True)], axis=0)
    right, up = 2 * reach
    panel_width = width / n_columns
    panel_height = min(panel_width * up / right, 1.2 * panel_width)
    title_height = 2 * size / 72
    words = (
        f"{scenes[0].labels[atom]}: its frame and its {n_lines} strongest attention lines. "
        "Width and darkness of a line are relative to the strongest line of its panel."
    )
    if any(arrow.weight is not None for painter in painters for arrow in painter.shapes.arrows):
        words += " Pale axes are those of the other frames of a weighted set."
    legend = _Legend(width, size, textwrap.fill(words, _characters(width, size)) if caption else "")
    legend.add(_atom_handles(scenes[0], size))
    legend.add(max((_axis_handles(painter.shapes, size) for painter in painters), key=len))
    height = n_rows * (panel_height + title_height) + legend.height
    figure = paper_figure()(figsize=(width, height), facecolor=PAPER)
    for number, ((scene, layer), painter, center) in enumerate(zip(panels, painters, centers, strict=True)):
        row, column = divmod(number, n_columns)
        bottom = height - (row + 1) * (panel_height + title_height)
        axes = figure.add_axes((column / n_columns, bottom / height, 1 / n_columns, panel_height / height))
        _fit(axes, center, right=max(right, up * panel_width / panel_height), up=up)
        painter.paint(axes)
        painter.name(axes, size)
        axes.set_title(f"{scene.method}, {where(layer, head)}", fontsize=size, color=INK, pad=2)
    legend.draw(figure)
    return figure


def is_same_crystal(first: Scene, scene: Scene) -> bool:
    """Whether both have the same atoms, positions and cell."""
    same = np.array_equal(scene.atomic_numbers, first.atomic_numbers) and np.allclose(scene.lattice, first.lattice)
    return bool(same and np.allclose(scene.positions, first.positions, atol=1e-3))


def check_same_crystal(scenes: Sequence[Scene]) -> None:
    """Raise SceneError unless there is a scene, and all scenes have the same atoms, positions and cell."""
    if not scenes:
        raise SceneError("comparison without a scene; give at least one", field="scenes", value=scenes)
    first = scenes[0]
    for number, scene in enumerate(scenes):
        check_scene(scene)
        if not is_same_crystal(first, scene):
            raise SceneError(
                f"comparison: scene {number} ({scene.id or scene.formula}) is another crystal than the first "
                f"({first.id or first.formula}); trace the same structure with every model",
                field="scenes",
                value=number,
            )


@cache
def paper_figure() -> type[Figure]:
    """A figure class that saves text as text, whatever the settings of matplotlib are."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    class PaperFigure(Figure):
        def savefig(self, *args: Any, **options: Any) -> None:
            # 42 is TrueType, which drawing programs can edit. The default of PDF, 3, cannot be edited.
            with rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "ps.fonttype": 42}):
                super().savefig(*args, **options)

    return PaperFigure


def inline_svg(figure: Figure) -> str:
    """A figure as a part of an HTML page. Its text can be searched and read aloud."""
    from matplotlib import rc_context

    target = io.StringIO()
    # The same figure gives the same page.
    with rc_context({"svg.hashsalt": "crystalframer"}):
        figure.savefig(target, format="svg", metadata={"Date": None})
    text = target.getvalue()
    return f'<div class="figures">{text[text.index("<svg") :]}</div>'


def _scaled(width: float) -> tuple[float, float]:
    """Scale of lines, and size of all text (points), for a figure of this width (inches)."""
    scale = width / FULL_WIDTH
    return scale, max(SMALLEST_TEXT, FULL_TEXT * scale)


def _characters(width: float, size: float) -> int:
    """Number of characters that fit into a line."""
    return int(width * 72 / (0.58 * size))


def _fit(axes: Axes, center: np.ndarray, *, right: float, up: float) -> None:
    """Show `right` × `up` Å around a point."""
    x, y = center
    axes.set(xlim=(x - right / 2, x + right / 2), ylim=(y - up / 2, y + up / 2), aspect="equal")
    axes.set_axis_off()


def _name_cell_vectors(axes: Axes, scene: Scene, painter: Painter, size: float) -> None:
    """Write a, b and c beside the middle of each cell vector, outside the cell."""
    if scene.is_region:
        return
    middle = painter.project(scene.lattice.sum(axis=0) / 2)[:2]
    for name, vector in zip("abc", scene.lattice, strict=True):
        point = painter.project(vector / 2)[:2]
        outward = point - middle
        write(axes, point + 0.3 * outward / max(float(np.linalg.norm(outward)), 1e-9), name, INK, size)


class _Legend:
    """Rows of legend entries and a caption, below a picture."""

    def __init__(self, width: float, size: float, caption: str) -> None:
        self.width = width
        self.size = size
        self.caption = caption
        self.rows: list[list[Line2D]] = []

    @property
    def line(self) -> float:
        """Height of a line, inches."""
        return 1.45 * self.size / 72

    @property
    def height(self) -> float:
        """Height of the whole legend, inches."""
        return self.line * (len(self.rows) + (self.caption.count("\n") + 1.7 if self.caption else 0.5))

    def add(self, handles: list[Line2D]) -> None:
        """Add these handles, in as many rows as they need."""
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
            anchor = (0.5, (self.height - (number + 0.7) * self.line) * unit)
            figure.legend(handles=row, ncols=len(row), bbox_to_anchor=anchor, columnspacing=1.5, **style)
        top = (self.height - (len(self.rows) + 0.4) * self.line) * unit
        figure.text(0.5, top, self.caption, ha="center", va="top", fontsize=self.size, color=INK, linespacing=1.3)


def _atom_handles(scene: Scene, size: float) -> list[Line2D]:
    from matplotlib.lines import Line2D

    items = [element(z) for z in dict.fromkeys(scene.atomic_numbers.tolist())]
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": size, "markeredgecolor": INK}
    return [Line2D([], [], markerfacecolor=item.color, label=item.symbol, **look) for item in items]


def _axis_handles(shapes: Drawing, size: float) -> list[Line2D]:
    """Lines with the dashes of the axes. (matplotlib measures dashes in line widths.)"""
    from matplotlib.lines import Line2D

    width = 0.4 * size
    handles = []
    for k in sorted({arrow.axis for arrow in shapes.arrows}):
        length = HANDLE_LENGTH * size / width * dashes(AXIS_DASHES[k])[0][1]
        style: Any = (0, (length, DASH_GAP * length)) if AXIS_DASHES[k] > 1 else "solid"
        line = " (no sign)" if any(arrow.is_line for arrow in shapes.arrows if arrow.axis == k) else ""
        handles.append(Line2D([], [], color=AXIS_COLORS[k], linestyle=style, lw=width, label=AXIS_LABELS[k] + line))
    pale = [arrow for arrow in shapes.arrows if arrow.weight is not None]
    if pale:
        handles.append(Line2D([], [], color=pale[0].color, lw=0.6 * width, label=_weights(pale)))
    return handles


def _weights(pale: list[Arrow]) -> str:
    """Name of the pale axes in the legend, with the weights of the lightest and the heaviest."""
    ends = sorted({f"{100 * extreme(arrow.weight or 0.0 for arrow in pale):.2g}" for extreme in (min, max)}, key=float)
    return f"axes of other frames (weight {'–'.join(ends)} %)"


def _attention_handles(shapes: Drawing, points_per_angstrom: float) -> list[Line2D]:
    """The strongest and the weakest line, with the width that they have in the picture."""
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
