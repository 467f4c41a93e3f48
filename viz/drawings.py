"""From a scene to shapes: balls, sticks and arrows in Å that any back end can put on paper or on screen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from viz.palette import ATTENTION_RAMP, AXIS_COLORS, AXIS_LABELS, CELL_COLOR, PAPER, mix, ramp
from viz.scene import Scene, strongest_edges
from viz.text import where, whose

Frames = Literal["selected", "all", "none"]
"""Whose frames to draw."""
Polyhedra = Literal["selected", "all", "none"]
"""Around which metals to draw the hull of the non-metals bonded to it."""

Point = Float[np.ndarray, "3"]

AXIS_LENGTH = 1.5
"""Å, from the centre of the atom."""
VIEW = (28.0, 16.0)
"""Azimuth and elevation of the camera, degrees: a points left of the viewer, b to the right, c up."""


@dataclass(frozen=True, eq=False)
class Ball:
    """An atom."""

    center: Point
    radius: float
    color: str
    label: str
    """`O2`, with the lattice translation when it is an image: `O2 (0, 0, 1)`."""
    atom: int
    """Which atom of the scene it is (an image of)."""


@dataclass(frozen=True, eq=False)
class Stick:
    """A straight piece of the cell, of a bond or of an attention line."""

    start: Point
    end: Point
    radius: float
    colors: tuple[str, str]
    """Of the half at `start` and of the half at `end`."""
    role: Literal["cell", "bond", "attention"]
    ends: tuple[int, int] | None = None
    """Balls that a bond or an attention line joins, as positions in `Drawing.balls`."""
    weight: float | None = None
    """Attention of an attention line."""


@dataclass(frozen=True, eq=False)
class Arrow:
    """A frame axis."""

    start: Point
    end: Point
    radius: float
    color: str
    label: str
    """`e₁`, `e₂`, `e₃` on the selected atom, else empty."""
    axis: int
    """0, 1, 2: which of the three it is."""
    atom: int


@dataclass(frozen=True, eq=False)
class Solid:
    """A coordination polyhedron, to be seen through."""

    vertices: Float[np.ndarray, "n_vertices 3"]
    faces: Int[np.ndarray, "n_faces 3"]
    """Triangles of vertices, counter-clockwise seen from outside."""
    rims: Int[np.ndarray, "n_rims 2"]
    """Pairs of vertices that an edge of the polyhedron joins."""
    color: str
    atom: int
    """In the middle."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """All shapes of one picture, and a sentence that says what is seen.

    Example:
        >>> shapes = drawing(scene, layer=0, head=2, atom=1)
        >>> shapes.balls[shapes.selected].label
        'Ti1'
        >>> shapes.caption.split(":")[0]
        'Ti1, layer 0, head 2'
    """

    balls: tuple[Ball, ...]
    sticks: tuple[Stick, ...]
    arrows: tuple[Arrow, ...]
    solids: tuple[Solid, ...]
    selected: int
    """The atom whose attention and labelled axes are drawn, as its position in `balls`."""
    caption: str

    @property
    def center(self) -> Point:
        """Middle of the drawn balls, Å."""
        points = np.array([ball.center for ball in self.balls])
        return (points.min(axis=0) + points.max(axis=0)) / 2


def drawing(
    scene: Scene,
    layer: int,
    head: int | None,
    atom: int,
    *,
    frames: Frames = "selected",
    n_lines: int = 12,
    axis_length: float = AXIS_LENGTH,
    polyhedra: Polyhedra = "selected",
) -> Drawing:
    """Shapes of a scene as one layer and head of one atom see it.

    Args:
        layer: counted from 0.
        head: counted from 0; None draws the mean attention over heads, and no axes (frames have no mean).
        atom: the query atom whose strongest attention lines are drawn.
        frames: whose axes to draw.
        n_lines: attention lines to draw (more if some tie with the last).
        axis_length: Å.
        polyhedra: around which atoms to draw them; only metals have one.

    Raises:
        SceneError: no such layer, head or atom.

    Example:
        >>> shapes = drawing(scene, layer=0, head=2, atom=1)
        >>> [arrow.label for arrow in shapes.arrows]
        ['e₁', 'e₂', 'e₃']
    """
    scene.check(layer, head, atom)
    balls = _home_balls(scene)
    bonds = _bond_sticks(scene, balls)
    balls, lines = _attention(scene, balls, layer, head, atom, n_lines)
    # A bond under an attention line is left out: the width of the line must show.
    covered = {frozenset(line.ends) for line in lines if line.ends}
    bonds = [bond for bond in bonds if bond.ends and frozenset(bond.ends) not in covered]
    return Drawing(
        balls=tuple(balls),
        sticks=(*_cell_sticks(scene), *bonds, *lines),
        arrows=tuple(_axes(scene, layer, head, atom, frames, axis_length)),
        solids=tuple(_solids(scene, atom, polyhedra)),
        selected=atom,
        caption=_caption(scene, layer, head, atom, n_lines),
    )


def close_up(shapes: Drawing) -> Drawing:
    """Only the selected atom, its axes and polyhedron, its attention lines, and the atoms and bonds among those."""
    lines = [stick for stick in shapes.sticks if stick.role == "attention" and stick.ends]
    atom = shapes.balls[shapes.selected].atom
    solids = tuple(solid for solid in shapes.solids if solid.atom == atom)
    vertices = np.concatenate([solid.vertices for solid in solids]) if solids else np.empty((0, 3))
    kept = {shapes.selected, *(end for line in lines for end in line.ends or ())}
    kept |= {n for n, ball in enumerate(shapes.balls) if np.isclose(vertices, ball.center, atol=1e-6).all(axis=1).any()}
    place = {ball: index for index, ball in enumerate(sorted(kept))}
    sticks = tuple(
        replace(stick, ends=(place[stick.ends[0]], place[stick.ends[1]]))
        for stick in shapes.sticks
        if stick.ends and set(stick.ends) <= kept
    )
    return replace(
        shapes,
        balls=tuple(shapes.balls[ball] for ball in place),
        sticks=sticks,
        arrows=tuple(arrow for arrow in shapes.arrows if arrow.atom == atom),
        solids=solids,
        selected=place[shapes.selected],
    )


def camera(view: tuple[float, float]) -> Float[np.ndarray, "3 3"]:
    """Rows: right, up and towards the viewer, for a camera at (azimuth, elevation) in degrees, z up."""
    azimuth, elevation = np.radians(view)
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    toward = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    return np.stack([right, np.cross(toward, right), toward])


def _home_balls(scene: Scene) -> list[Ball]:
    balls = []
    elements = scene.elements
    for site, image, center in zip(scene.drawn_site, scene.drawn_image, scene.drawn_positions, strict=True):
        item = elements[site]
        label = _image_label(scene.labels[site], image)
        balls.append(Ball(center, item.ball_radius, item.color, label, int(site)))
    return balls


def _image_label(label: str, image: np.ndarray) -> str:
    return f"{label} ({', '.join(str(int(n)) for n in image)})" if image.any() else label


def _cell_sticks(scene: Scene) -> list[Stick]:
    return [Stick(start, end, 0.02, (CELL_COLOR, CELL_COLOR), "cell") for start, end in scene.cell_edges]


def _bond_sticks(scene: Scene, balls: list[Ball]) -> list[Stick]:
    return [
        Stick(balls[i].center, balls[j].center, 0.05, (balls[i].color, balls[j].color), "bond", (int(i), int(j)))
        for i, j in scene.bonds
    ]


def _attention(
    scene: Scene, balls: list[Ball], layer: int, head: int | None, atom: int, n_lines: int
) -> tuple[list[Ball], list[Stick]]:
    """The attention lines of `atom`; key atoms in other cells join the balls, paler and smaller."""
    balls = list(balls)
    drawn = {
        (int(s), *map(int, n)): index
        for index, (s, n) in enumerate(zip(scene.drawn_site, scene.drawn_image, strict=True))
    }
    lines = strongest_edges(scene, layer, head, atom, n_lines)
    sticks = []
    for key, image, weight, end in zip(lines.key, lines.image, lines.weight, lines.ends, strict=True):
        place = (int(key), *map(int, image))
        if place not in drawn:
            item = scene.elements[key]
            label = _image_label(scene.labels[key], image)
            drawn[place] = len(balls)
            balls.append(Ball(end, 0.7 * item.ball_radius, mix(item.color, PAPER, 0.6), label, int(key)))
        # Relative to the strongest line: what counts is which atoms stand out; the caption has the sums.
        share = float(weight / lines.weight[0]) if lines.weight[0] > 0 else 0.0
        color = ramp(ATTENTION_RAMP, share)
        sticks.append(
            Stick(
                lines.start, end, 0.015 + 0.04 * share, (color, color), "attention", (atom, drawn[place]), float(weight)
            )
        )
    return balls, sticks


def _axes(scene: Scene, layer: int, head: int | None, atom: int, frames: Frames, length: float) -> list[Arrow]:
    if scene.frames is None or head is None or frames == "none":
        return []
    arrows = []
    for owner in range(scene.n_queries) if frames == "all" else (atom,):
        start, selected = scene.positions[owner], owner == atom
        for k, axis in enumerate(scene.frames[layer, head, owner]):
            arrows.append(
                Arrow(
                    start=start,
                    end=start + (length if selected else 0.7 * length) * axis,
                    # Thicker than any attention line: axes of `max` frames lie along edges.
                    radius=0.075 if selected else 0.06,
                    color=AXIS_COLORS[k],
                    label=AXIS_LABELS[k] if selected else "",
                    axis=k,
                    atom=owner,
                )
            )
    return arrows


def _solids(scene: Scene, atom: int, polyhedra: Polyhedra) -> list[Solid]:
    colors = [item.color for item in scene.elements]
    return [
        Solid(scene.places(hull.key, hull.image), hull.faces, hull.rims, colors[hull.center], hull.center)
        for hull in scene.polyhedra
        if polyhedra == "all" or (polyhedra == "selected" and hull.center == atom)
    ]


def _caption(scene: Scene, layer: int, head: int | None, atom: int, n_lines: int) -> str:
    lines = strongest_edges(scene, layer, head, atom, n_lines)
    text = f"{whose(scene, atom)}, {where(layer, head)}"
    if len(lines.edges):
        text += f": {len(lines.edges)} strongest lines carry {lines.weight.sum():.0%} of its attention"
        text += f", {lines.itself:.0%} stays on the atom"
    if scene.frames is None:
        return f"{text}. No frames (method none)."
    return (
        f"{text}. Frames belong to one head: choose one to see axes."
        if head is None
        else f"{text}. Frame: {scene.method}."
    )
