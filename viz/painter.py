"""Shapes on paper: projected, and drawn from back to front as matplotlib patches."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from viz.drawings import Arrow, Ball, Drawing, Solid, Stick
from viz.palette import AXIS_DASHES, INK, PAPER, POLYHEDRON_OPACITY, SHADE, mix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEPTH_FADE = 0.45
"""How much white is mixed into the shapes farthest behind."""
SEGMENT = 0.6
"""Å. Longer sticks are cut into pieces, each with its own depth."""
DASH_GAP = 0.7
"""Gap between two dashes, as a fraction of a dash."""

_CIRCLE = np.linspace(0, 2 * np.pi, 25)[:-1]


class Painter:
    """Projects shapes and draws them from back to front."""

    def __init__(self, shapes: Drawing, rotation: Float[np.ndarray, "3 3"], scale: float) -> None:
        """Args: scale: factor for line widths, 1 for a picture 7 inches wide."""
        self.shapes = shapes
        self.rotation = rotation
        self.scale = scale
        self.radius_of = {ball.atom: ball.radius for ball in reversed(shapes.balls)}
        depths = self.project(np.array([ball.center for ball in shapes.balls]))[:, 2]
        self.back, self.front = float(depths.min()), float(depths.max())

    def project(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Coordinates to the right, up and towards the viewer, Å."""
        return points @ self.rotation.T

    def bounds(self) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
        """Lower left and upper right corner of the picture, with room for labels, Å."""
        points = [ball.center for ball in self.shapes.balls]
        points += [end for stick in self.shapes.sticks for end in (stick.start, stick.end)]
        points += [end for arrow in self.shapes.arrows for end in (arrow.start, arrow.end)]
        points += [vertex for solid in self.shapes.solids for vertex in solid.vertices]
        flat = self.project(np.array(points))[:, :2]
        room = max(ball.radius for ball in self.shapes.balls) + 0.35
        return flat.min(axis=0) - room, flat.max(axis=0) + room

    def paint(self, axes: Axes) -> None:
        """Add all shapes to the axes, the farthest first."""
        pieces = [(depth, patch) for shape in self.shapes.balls for depth, patch in self._ball(shape)]
        pieces += [(depth, patch) for shape in self.shapes.sticks for depth, patch in self._stick(shape)]
        pieces += [(depth, patch) for shape in self.shapes.arrows for depth, patch in self._arrow(shape)]
        pieces += [(depth, patch) for shape in self.shapes.solids for depth, patch in self._solid(shape)]
        for order, (_, patch) in enumerate(sorted(pieces, key=lambda piece: piece[0])):
            patch.set_zorder(1 + order / len(pieces))
            # `add_patch` would measure each patch, which takes most of the time; the limits are set anyway.
            axes.add_artist(patch)

    def name(self, axes: Axes, size: float) -> None:
        """Label the selected atom and its axes, in text of this size (points)."""
        for arrow in self.shapes.arrows:
            if arrow.label:
                beyond = arrow.end + 0.22 * (arrow.end - arrow.start) / np.linalg.norm(arrow.end - arrow.start)
                write(axes, self.project(beyond), arrow.label, arrow.color, size)
        chosen = self.shapes.balls[self.shapes.selected]
        write(axes, self.project(chosen.center), chosen.label, INK, size)

    def _faded(self, color: str, depth: float) -> str:
        nearness = (depth - self.back) / (self.front - self.back) if self.front > self.back else 1.0
        return mix(color, PAPER, DEPTH_FADE * (1 - min(max(nearness, 0.0), 1.0)))

    def _ball(self, ball: Ball) -> list:
        from matplotlib.patches import Circle

        x, y, depth = self.project(ball.center)
        selected = ball is self.shapes.balls[self.shapes.selected]
        color = self._faded(ball.color, depth)
        rim = INK if selected else self._faded(mix(ball.color, SHADE, 0.45), depth)
        body = Circle(
            (x, y),
            ball.radius,
            facecolor=mix(color, SHADE, 0.12),
            edgecolor=rim,
            lw=self.scale * (2.0 if selected else 0.8),
        )
        # Three lighter discs make the ball look round. A gradient would make SVG and PDF files large.
        shine = [
            Circle(
                (x - shift * ball.radius, y + shift * ball.radius),
                size * ball.radius,
                facecolor=mix(color, PAPER, light),
                edgecolor="none",
            )
            for shift, size, light in ((0.08, 0.82, 0.0), (0.22, 0.5, 0.25), (0.32, 0.24, 0.6))
        ]
        # The depth of a ball is that of its front, so that it covers the sticks that end inside it.
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
        """The part of a stick outside the balls that it joins."""
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
        # Pieces overlap a little, so that no gap is seen between them.
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
        """The shaft and the head; for a line, two shafts without a head."""
        if arrow.is_line:
            center = (arrow.start + arrow.end) / 2
            pieces = [piece for end in (arrow.start, arrow.end) for piece in self._shaft(arrow, center, end)]
        else:
            vector = arrow.end - arrow.start
            neck = arrow.start + 0.72 * vector
            cone = np.concatenate([_disc(neck, vector, arrow.head_radius), arrow.end[None]])
            depth = float(self.project((neck + arrow.end) / 2)[2])
            head = self._hull(cone, arrow.color, mix(arrow.color, SHADE, 0.3), depth)
            pieces = [*self._shaft(arrow, arrow.start, neck), *head]
        # An axis covers an attention line below it, and a solid axis a pale one.
        return [(near + 2 * arrow.radius, patch) for near, patch in pieces]

    def _shaft(self, arrow: Arrow, center: np.ndarray, end: np.ndarray) -> list:
        """Dashes from the surface of the atom to a point."""
        vector = end - center
        start = center + vector * min(0.6, 0.9 * self.radius_of[arrow.atom] / float(np.linalg.norm(vector)))
        return [
            piece
            for low, high in dashes(AXIS_DASHES[arrow.axis] if arrow.weight is None else 1)
            for piece in self._bar(start + low * (end - start), start + high * (end - start), arrow.radius, arrow.color)
        ]

    def _solid(self, solid: Solid) -> list:
        """Faces lie behind everything, because they would tint axes and lines. Edges have their own depth."""
        from matplotlib.patches import Polygon

        flat = self.project(solid.vertices)
        fill = {"facecolor": solid.color, "alpha": POLYHEDRON_OPACITY, "lw": 0}
        rim = mix(solid.color, SHADE, 0.3)
        pieces = [(-np.inf, Polygon(flat[face, :2], closed=True, **fill)) for face in solid.faces]
        for pair in solid.rims:
            # Behind the balls at its ends.
            depth = float(flat[pair, 2].min())
            line = {"fill": False, "edgecolor": self._faded(rim, depth), "lw": self.scale}
            pieces.append((depth, Polygon(flat[pair, :2], closed=False, **line)))
        return pieces

    def _hull(self, points: np.ndarray, color: str, edge: str, depth: float) -> list:
        from matplotlib.patches import Polygon
        from scipy.spatial import ConvexHull

        flat = self.project(points)[:, :2]
        corners = flat[ConvexHull(flat, qhull_options="QJ").vertices]
        return [
            (
                depth,
                Polygon(corners, closed=True, facecolor=color, edgecolor=edge, lw=0.4 * self.scale, joinstyle="round"),
            )
        ]


def _disc(center: np.ndarray, normal: np.ndarray, radius: float) -> Float[np.ndarray, "24 3"]:
    """Points on a circle around `center`, perpendicular to `normal`."""
    unit = normal / np.linalg.norm(normal)
    helper = np.eye(3)[np.argmin(np.abs(unit))]
    first = np.cross(unit, helper)
    first /= np.linalg.norm(first)
    second = np.cross(unit, first)
    return center + radius * (np.cos(_CIRCLE)[:, None] * first + np.sin(_CIRCLE)[:, None] * second)


def dashes(n_pieces: int) -> list[tuple[float, float]]:
    """Start and end of each dash of a line, as fractions of its length."""
    piece = 1 / (n_pieces + DASH_GAP * (n_pieces - 1))
    starts = [n * (1 + DASH_GAP) * piece for n in range(n_pieces)]
    return [(start, start + piece) for start in starts]


def write(axes: Axes, point: np.ndarray, text: str, color: str, size: float) -> None:
    """Write bold text over a white halo. The halo is a second text, because text with an outline is saved as curves."""
    from matplotlib.patheffects import Stroke

    style = {"fontsize": size, "weight": "bold", "ha": "center", "va": "center"}
    halo = axes.text(point[0], point[1], text, color=PAPER, zorder=5, **style)
    halo.set_path_effects([Stroke(linewidth=size / 5, foreground=PAPER)])
    axes.text(point[0], point[1], text, color=color, zorder=6, **style)
