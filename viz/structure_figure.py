"""A still picture of a crystal with frames and attention: vectors for papers, pixels for a README."""

from __future__ import annotations

import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from viz.drawing import AXIS_LENGTH, VIEW, Arrow, Ball, Drawing, Frames, Stick, camera, drawing
from viz.palette import INK, element, mix
from viz.scene import Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEPTH_FADE = 0.45
"""How far the hindmost shapes fade to white."""
SEGMENT = 0.6
"""Å; longer sticks are cut so that each piece finds its own place in the depth order."""
LEGEND_HEIGHT = 1.0
"""Inches below the picture."""

_CIRCLE = np.linspace(0, 2 * np.pi, 25)[:-1]


def structure_figure(
    scene: Scene,
    layer: int,
    head: int | None,
    atom: int,
    *,
    frames: Frames = "selected",
    n_lines: int = 12,
    axis_length: float = AXIS_LENGTH,
    view: tuple[float, float] = VIEW,
    width: float = 7.0,
) -> Figure:
    """Draw one layer and head of one atom, in orthographic projection; save with `figure.savefig("x.pdf")`.

    Args:
        scene: what to draw.
        layer: counted from 0.
        head: counted from 0; None draws the mean attention over heads, without axes.
        atom: the atom whose strongest attention lines and labelled axes are drawn.
        frames: whose axes to draw.
        n_lines: attention lines to draw.
        axis_length: Å.
        view: azimuth and elevation of the camera, degrees.
        width: of the figure, inches; the height follows from the crystal, up to 1.2 times the width.

    Raises:
        SceneError: no such layer, head or atom.
    """
    from matplotlib.figure import Figure

    shapes = drawing(scene, layer, head, atom, frames=frames, n_lines=n_lines, axis_length=axis_length)
    painter = _Painter(shapes, camera(view))
    low, high = painter.bounds()
    right, up = high - low
    height = min(width * up / right, 1.2 * width)
    # A tall crystal sets the scale by its height and gets white on both sides.
    margin = max(0.0, up * width / height - right) / 2
    figure = Figure(figsize=(width, height + LEGEND_HEIGHT), facecolor="white")
    share = LEGEND_HEIGHT / (height + LEGEND_HEIGHT)
    axes = figure.add_axes((0.0, share, 1.0, 1.0 - share))
    axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1], high[1]), aspect="equal")
    axes.set_axis_off()
    painter.paint(axes)
    _name_cell_vectors(axes, scene, painter)
    _legend(figure, scene, shapes)
    return figure


class _Painter:
    """Projects shapes and paints them from back to front."""

    def __init__(self, shapes: Drawing, rotation: Float[np.ndarray, "3 3"]) -> None:
        self.shapes = shapes
        self.rotation = rotation
        depths = self.project(np.array([ball.center for ball in shapes.balls]))[:, 2]
        self.back, self.front = float(depths.min()), float(depths.max())

    def project(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Right, up and towards the viewer, Å."""
        return points @ self.rotation.T

    def bounds(self) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
        """Lower left and upper right corner of everything drawn, with room for labels."""
        points = [ball.center for ball in self.shapes.balls]
        points += [end for stick in self.shapes.sticks for end in (stick.start, stick.end)]
        points += [arrow.end for arrow in self.shapes.arrows]
        flat = self.project(np.array(points))[:, :2]
        room = max(ball.radius for ball in self.shapes.balls) + 0.35
        return flat.min(axis=0) - room, flat.max(axis=0) + room

    def paint(self, axes: Axes) -> None:
        """Add all shapes to the axes; drawing order is depth order."""
        pieces = [(depth, patch) for shape in self.shapes.balls for depth, patch in self._ball(shape)]
        pieces += [(depth, patch) for shape in self.shapes.sticks for depth, patch in self._stick(shape)]
        pieces += [(depth, patch) for shape in self.shapes.arrows for depth, patch in self._arrow(shape)]
        for order, (_, patch) in enumerate(sorted(pieces, key=lambda piece: piece[0])):
            patch.set_zorder(1 + order / len(pieces))
            axes.add_patch(patch)
        for arrow in self.shapes.arrows:
            if arrow.label:
                beyond = arrow.end + 0.22 * (arrow.end - arrow.start) / np.linalg.norm(arrow.end - arrow.start)
                _text(axes, self.project(beyond), arrow.label, arrow.color, 15.0)
        chosen = self.shapes.balls[self.shapes.selected]
        _text(axes, self.project(chosen.center), chosen.label, INK, 11.0)

    def _faded(self, color: str, depth: float) -> str:
        nearness = (depth - self.back) / (self.front - self.back) if self.front > self.back else 1.0
        return mix(color, "#FFFFFF", DEPTH_FADE * (1 - min(max(nearness, 0.0), 1.0)))

    def _ball(self, ball: Ball) -> list:
        from matplotlib.patches import Circle

        x, y, depth = self.project(ball.center)
        selected = ball is self.shapes.balls[self.shapes.selected]
        color = self._faded(ball.color, depth)
        rim = INK if selected else self._faded(mix(ball.color, "#000000", 0.45), depth)
        body = Circle(
            (x, y), ball.radius, facecolor=mix(color, "#000000", 0.12), edgecolor=rim, lw=2.0 if selected else 0.8
        )
        # Three lighter discs towards the light make it round without a gradient, which SVG and PDF would bloat.
        shine = [
            Circle(
                (x - shift * ball.radius, y + shift * ball.radius),
                size * ball.radius,
                facecolor=mix(color, "#FFFFFF", light),
                edgecolor="none",
            )
            for shift, size, light in ((0.08, 0.82, 0.0), (0.22, 0.5, 0.25), (0.32, 0.24, 0.6))
        ]
        # A ball comes where its front is: a stick that ends inside it stays covered up to its surface.
        return [(depth + ball.radius + n * 1e-6, patch) for n, patch in enumerate([body, *shine])]

    def _stick(self, stick: Stick) -> list:
        start, end = self._trimmed(stick)
        if start is None:
            return []
        middle = (start + end) / 2
        return [
            piece
            for a, b, color in ((start, middle, stick.colors[0]), (middle, end, stick.colors[1]))
            for piece in self._bar(a, b, stick.radius, color)
        ]

    def _trimmed(self, stick: Stick) -> tuple:
        """The part of a stick outside the balls it joins."""
        if stick.ends is None:
            return stick.start, stick.end
        vector = stick.end - stick.start
        length = float(np.linalg.norm(vector))
        first, last = (0.9 * self.shapes.balls[index].radius for index in stick.ends)
        if first + last >= length:
            return None, None
        return stick.start + vector * first / length, stick.end - vector * last / length

    def _bar(self, start: np.ndarray, end: np.ndarray, radius: float, color: str) -> list:
        length = float(np.linalg.norm(end - start))
        n_pieces = max(1, round(length / SEGMENT))
        cuts = np.linspace(0, 1, n_pieces + 1)
        # Pieces overlap a little: no seams where they meet.
        overlap = 0.1 / n_pieces
        pieces = []
        for low, high in pairwise(cuts):
            a = start + (end - start) * max(0.0, low - overlap)
            b = start + (end - start) * min(1.0, high + overlap)
            outline = np.concatenate([_disc(a, end - start, radius), _disc(b, end - start, radius)])
            depth = float(self.project((a + b) / 2)[2])
            faded = self._faded(color, depth)
            pieces += self._hull(outline, faded, faded, depth)
        return pieces

    def _arrow(self, arrow: Arrow) -> list:
        vector = arrow.end - arrow.start
        neck = arrow.start + 0.72 * vector
        start = arrow.start + vector * min(
            0.6, self.shapes.balls[arrow.atom].radius * 0.9 / float(np.linalg.norm(vector))
        )
        shaft = self._bar(start, neck, arrow.radius, arrow.color)
        cone = np.concatenate([_disc(neck, vector, 2.3 * arrow.radius), arrow.end[None]])
        depth = float(self.project((neck + arrow.end) / 2)[2])
        head = self._hull(cone, arrow.color, mix(arrow.color, "#000000", 0.3), depth)
        # An axis along an attention line covers it.
        return [(place + 2 * arrow.radius, patch) for place, patch in (*shaft, *head)]

    def _hull(self, points: np.ndarray, color: str, edge: str, depth: float) -> list:
        from matplotlib.patches import Polygon
        from scipy.spatial import ConvexHull

        flat = self.project(points)[:, :2]
        corners = flat[ConvexHull(flat, qhull_options="QJ").vertices]
        return [(depth, Polygon(corners, closed=True, facecolor=color, edgecolor=edge, lw=0.4, joinstyle="round"))]


def _disc(center: np.ndarray, normal: np.ndarray, radius: float) -> Float[np.ndarray, "24 3"]:
    """Points on a circle around `center`, across `normal`."""
    unit = normal / np.linalg.norm(normal)
    helper = np.eye(3)[np.argmin(np.abs(unit))]
    first = np.cross(unit, helper)
    first /= np.linalg.norm(first)
    second = np.cross(unit, first)
    return center + radius * (np.cos(_CIRCLE)[:, None] * first + np.sin(_CIRCLE)[:, None] * second)


def _text(axes: Axes, place: np.ndarray, text: str, color: str, size: float) -> None:
    from matplotlib.patheffects import withStroke

    label = axes.text(
        place[0], place[1], text, color=color, fontsize=size, weight="bold", ha="center", va="center", zorder=5
    )
    label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _name_cell_vectors(axes: Axes, scene: Scene, painter: _Painter) -> None:
    """a, b, c beside the middle of each cell vector, outside the cell."""
    middle = painter.project(scene.lattice.sum(axis=0) / 2)[:2]
    for name, vector in zip("abc", scene.lattice, strict=True):
        place = painter.project(vector / 2)[:2]
        outward = place - middle
        _text(axes, place + 0.3 * outward / max(float(np.linalg.norm(outward)), 1e-9), name, INK, 12.0)


def _legend(figure: Figure, scene: Scene, shapes: Drawing) -> None:
    from matplotlib.lines import Line2D

    atoms = []
    for z in dict.fromkeys(scene.atomic_numbers.tolist()):
        item = element(z)
        marker = {"marker": "o", "markersize": 11, "markerfacecolor": item.color, "markeredgecolor": INK}
        atoms.append(Line2D([], [], linestyle="none", label=item.symbol, **marker))
    points_per_angstrom = 72 * figure.get_figwidth() / float(np.diff(figure.axes[0].get_xlim())[0])
    attention = [stick for stick in shapes.sticks if stick.role == "attention"]
    shown = {attention[0]: "strongest", attention[-1]: "weakest drawn"} if attention else {}
    if attention and attention[0].radius == attention[-1].radius:
        shown = {attention[0]: "every line"}
    lines = []
    for stick, name in shown.items():
        thickness = 2 * stick.radius * points_per_angstrom
        label = f"attention {stick.weight:.2g} ({name})"
        lines.append(Line2D([], [], color=stick.colors[0], lw=thickness, solid_capstyle="butt", label=label))
    unit = 1 / figure.get_figheight()
    style = {"loc": "center", "frameon": False, "fontsize": 10, "handletextpad": 0.5, "columnspacing": 1.6}
    figure.legend(handles=atoms, ncols=len(atoms), bbox_to_anchor=(0.5, 0.85 * unit), **style)
    if lines:
        figure.legend(handles=lines, ncols=2, bbox_to_anchor=(0.5, 0.58 * unit), handlelength=2.5, **style)
    caption = textwrap.fill(shapes.caption, int(11 * figure.get_figwidth()))
    figure.text(0.5, 0.24 * unit, caption, ha="center", va="center", fontsize=9.5, color=INK)
