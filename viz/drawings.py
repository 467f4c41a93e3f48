"""Shapes of a scene (balls, sticks, arrows, polyhedra, in Å) that any backend can draw on paper or on screen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from viz.errors import check_option
from viz.frame_sets import LENGTHS, RADII, axis_labels, frame_text, other_axes, set_text
from viz.palette import ATTENTION_RAMP, AXIS_COLORS, CELL_COLOR, PALENESS, PAPER, mix, ramp
from viz.scene import Scene, ball_numbers, check_scene, strongest_edges
from viz.text import where, whose

Which = Literal["selected", "all", "none"]
"""Atoms for which frames or polyhedra are drawn."""

Point = Float[np.ndarray, "3"]

AXIS_LENGTH = 1.5
"""Å, from the centre of the atom."""
AXIS_RADIUS = 0.075
"""Å, of the selected atom: thicker than any attention line, as axes of `max` frames lie along edges."""
VIEW = (28.0, 16.0)
"""Azimuth and elevation of the camera, degrees: a points left of the viewer, b to the right, c up."""


@dataclass(frozen=True, eq=False)
class Ball:
    """An atom."""

    center: Point
    radius: float
    color: str
    label: str
    """`O2`, or `O2 (0, 0, 1)` with the lattice translation of an image."""
    atom: int
    """The atom of the scene that this is, or is an image of."""


@dataclass(frozen=True, eq=False)
class Stick:
    """An edge of the cell, a bond or an attention line."""

    start: Point
    end: Point
    radius: float
    colors: tuple[str, str]
    """Colour of the half at `start` and of the half at `end`."""
    role: Literal["cell", "bond", "attention"]
    ends: tuple[int, int] | None = None
    """Numbers of the two balls that a bond or an attention line joins, in `Drawing.balls`."""
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
    """`e₁`, `e₂` or `e₃` on the selected atom (`±e₃` for a line), else empty."""
    axis: int
    """0, 1 or 2: number of the axis."""
    atom: int
    weight: float | None = None
    """Of a pale axis: the weight of the frames of the set that have it."""
    is_line: bool = False
    """Whether the axis has no direction: a line through the atom, without a head."""

    @property
    def head_radius(self) -> float:
        """Radius of the head, Å. Heads of pale axes are slim, because there can be many."""
        return self.radius * (2.3 if self.weight is None else 1.7)


@dataclass(frozen=True, eq=False)
class Solid:
    """A translucent coordination polyhedron."""

    vertices: Float[np.ndarray, "n_vertices 3"]
    faces: Int[np.ndarray, "n_faces 3"]
    """Triangles of vertices, counter-clockwise as seen from outside."""
    rims: Int[np.ndarray, "n_rims 2"]
    """Pairs of vertices: the edges of the polyhedron."""
    color: str
    atom: int
    """The atom in the middle."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """All shapes of one picture, and a caption.

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
    """Number, in `balls`, of the atom whose attention and labelled axes are drawn."""
    caption: str
    set_text: str = ""
    """How the weight is shared, if the selected atom has a weighted set of several frames and axes are drawn."""

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
    frames: Which = "selected",
    n_lines: int = 12,
    axis_length: float = AXIS_LENGTH,
    polyhedra: Which = "selected",
) -> Drawing:
    """Make the shapes of a scene for one layer, one head and one atom.

    Args:
        scene: the crystal with its frames and attention.
        layer: counted from 0.
        head: counted from 0. None draws the mean attention over heads, without axes (frames have no mean).
        atom: the query atom whose attention lines are drawn, counted from 0.
        frames: atoms whose axes are drawn: `"selected"` (only `atom`), `"all"` or `"none"`.
        n_lines: number of attention lines, strongest first; more if some tie with the last.
        axis_length: length of the axes, Å.
        polyhedra: atoms around which polyhedra are drawn, as for `frames`; only metals have one.

    Raises:
        SceneError: there is no such layer, head, atom or option.

    Example:
        >>> shapes = drawing(scene, layer=0, head=2, atom=1)
        >>> [arrow.label for arrow in shapes.arrows]
        ['e₁', 'e₂', 'e₃']
    """
    check_scene(scene)
    scene.check(layer, head, atom)
    for name, value in (("frames", frames), ("polyhedra", polyhedra)):
        check_option(name, value, get_args(Which))
    balls = _home_balls(scene)
    bonds = _bond_sticks(scene, balls)
    balls, lines = _attention(scene, balls, layer, head, atom, n_lines)
    # An attention line replaces the bond below it, so that its width can be seen.
    covered = {frozenset(line.ends) for line in lines if line.ends}
    bonds = [bond for bond in bonds if bond.ends and frozenset(bond.ends) not in covered]
    arrows = tuple(_axes(scene, layer, head, atom, frames, axis_length))
    return Drawing(
        balls=tuple(balls),
        sticks=(*_cell_sticks(scene), *bonds, *lines),
        arrows=arrows,
        solids=tuple(_solids(scene, atom, polyhedra)),
        selected=atom,
        caption=_caption(scene, layer, head, atom, n_lines),
        set_text=set_text(scene, layer, head, atom) if head is not None and any(a.weight for a in arrows) else "",
    )


def close_up(shapes: Drawing) -> Drawing:
    """Keep only the selected atom, its axes, polyhedron and attention lines, and the atoms and bonds among these."""
    lines = [stick for stick in shapes.sticks if stick.role == "attention" and stick.ends]
    atom = shapes.balls[shapes.selected].atom
    solids = tuple(solid for solid in shapes.solids if solid.atom == atom)
    vertices = np.concatenate([solid.vertices for solid in solids]) if solids else np.empty((0, 3))
    kept = {shapes.selected, *(end for line in lines for end in line.ends or ())}
    kept |= {n for n, ball in enumerate(shapes.balls) if np.isclose(vertices, ball.center, atol=1e-6).all(axis=1).any()}
    number = {ball: index for index, ball in enumerate(sorted(kept))}
    sticks = tuple(
        replace(stick, ends=(number[stick.ends[0]], number[stick.ends[1]]))
        for stick in shapes.sticks
        if stick.ends and set(stick.ends) <= kept
    )
    return replace(
        shapes,
        balls=tuple(shapes.balls[ball] for ball in number),
        sticks=sticks,
        arrows=tuple(arrow for arrow in shapes.arrows if arrow.atom == atom),
        solids=solids,
        selected=number[shapes.selected],
    )


def camera(view: tuple[float, float]) -> Float[np.ndarray, "3 3"]:
    """Rotation for a camera at (azimuth, elevation) in degrees, z up. Rows: right, up and towards the viewer."""
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
    """All balls, and the attention lines of `atom`. Key atoms in other cells are added as paler, smaller balls."""
    balls = list(balls)
    drawn = ball_numbers(scene.drawn_site, scene.drawn_image)
    lines = strongest_edges(scene, layer, head, atom, n_lines)
    sticks = []
    for key, image, weight, end in zip(lines.key, lines.image, lines.weight, lines.ends, strict=True):
        number = drawn.setdefault((int(key), *map(int, image)), len(balls))
        if number == len(balls):
            item = scene.elements[key]
            label = _image_label(scene.labels[key], image)
            balls.append(Ball(end, 0.7 * item.ball_radius, mix(item.color, PAPER, 0.6), label, int(key)))
        # Relative to the strongest line, so that strong neighbours stand out; the caption has the sums.
        share = float(weight / lines.weight[0]) if lines.weight[0] > 0 else 0.0
        color = ramp(ATTENTION_RAMP, share)
        radius = 0.015 + 0.04 * share
        sticks.append(Stick(lines.start, end, radius, (color, color), "attention", (atom, number), float(weight)))
    return balls, sticks


def _axes(scene: Scene, layer: int, head: int | None, atom: int, frames: Which, length: float) -> list[Arrow]:
    """The heaviest frame of each atom, and pale the others in the set of the selected one."""
    if scene.frames is None or head is None or frames == "none":
        return []
    arrows, labels = [], axis_labels(scene)
    for owner in range(scene.n_queries) if frames == "all" else (atom,):
        selected = owner == atom
        paleness = PALENESS if scene.dead[layer, head, owner] else 0.0
        for k, axis in enumerate(scene.frames[layer, head, owner]):
            if axis.any():  # neighbours on a line fix only one axis
                reach = (length if selected else 0.7 * length) * axis
                arrow = _arrow(scene, owner, k, reach, AXIS_RADIUS if selected else 0.06, paleness)
                arrows.append(replace(arrow, label=labels[k] if selected else ""))
    if scene.sets:
        others = other_axes(scene, layer, head, atom)
        for k, direction, weight, opacity in zip(
            others.axis, others.direction, others.weight, others.opacity, strict=True
        ):
            arrow = _arrow(scene, atom, int(k), LENGTHS[k] * length * direction, RADII[k] * AXIS_RADIUS, 1.0 - opacity)
            arrows.append(replace(arrow, weight=float(weight)))
    return arrows


def _arrow(scene: Scene, atom: int, axis: int, reach: Point, radius: float, paleness: float) -> Arrow:
    start, is_line = scene.positions[atom], axis == scene.unsigned_axis
    color = mix(AXIS_COLORS[axis], PAPER, paleness)
    return Arrow(start - reach if is_line else start, start + reach, radius, color, "", axis, atom, is_line=is_line)


def _solids(scene: Scene, atom: int, polyhedra: Which) -> list[Solid]:
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
        n = min(n_lines, len(lines.edges))
        ties = f" and {len(lines.edges) - n} as strong as the last" if len(lines.edges) > n else ""
        text += f": the {n} strongest lines{ties} carry {lines.weight.sum():.0%} of its attention"
        text += f", {lines.itself:.0%} stays on the atom"
    if scene.frames is None:
        return f"{text}. This model has no frames (method none)."
    if head is None:
        return f"{text}. Each head has its own frames: choose a head to see axes."
    return f"{text}. {frame_text(scene, layer, head, atom)}"
