"""The crystal as a scene of crystal-toolkit, for web pages made with Dash or by the Materials Project."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from viz.drawings import AXIS_LENGTH, Arrow, Drawing, Frames, Polyhedra, Stick, drawing
from viz.palette import AXIS_LABELS, POLYHEDRON_OPACITY
from viz.scene import Scene

PATCHED = ("to_plotly_json", "_repr_mimebundle_", "display_json", "_ipython_display_")
"""What importing crystal-toolkit sets on every class of pymatgen (`crystal_toolkit.core.jupyter.patch_msonable`)."""
HEAD = 0.28
"""Length of the head of an arrow, as a share of the arrow."""


def toolkit_scene(
    scene: Scene,
    layer: int,
    head: int | None,
    atom: int,
    *,
    frames: Frames = "selected",
    n_lines: int = 12,
    axis_length: float = AXIS_LENGTH,
    polyhedra: Polyhedra = "selected",
) -> dict[str, Any]:
    """One layer and head of one atom as the JSON that crystal-toolkit draws, frames and attention included.

    For carrying a scene with frames into a Dash app or a page of the Materials Project: hand it to
    `dash_mp_components.CrystalToolkitScene(data=...)`, or write it to a file `*.ctk.json`. In a notebook use
    `structure_view`: JupyterLab 4 shows a crystal-toolkit scene as text.

    Parts are scenes of their own, shown or hidden by name: `atoms`, `unit_cell`, `bonds`, `attention`, `frames` (with
    one for each axis) and `polyhedra`. Pointing at an atom or a line names it. Coordinates are Cartesian, Å; the middle
    of the cell is the origin of the view.

    Importing crystal-toolkit takes some ten seconds, once. What it changes in pymatgen is undone: with it, showing a
    `Structure` in a notebook fails.

    Args:
        scene: what to draw.
        layer: counted from 0.
        head: counted from 0; None draws the mean attention over heads, without axes.
        atom: the atom whose strongest attention lines are drawn.
        frames: whose axes to draw.
        n_lines: attention lines to draw.
        axis_length: Å.
        polyhedra: around which atoms to draw them; only metals have one.

    Raises:
        SceneError: no such layer, head or atom.
        ImportError: crystal-toolkit is not installed.

    Example:
        >>> page = toolkit_scene(scene, layer=0, head=2, atom=1)
        >>> [part["name"] for part in page["contents"]]
        ['atoms', 'unit_cell', 'bonds', 'attention', 'frames', 'polyhedra']
        >>> import json
        >>> with open("SrTiO3.ctk.json", "w") as file:
        ...     json.dump(page, file)
    """
    shapes = drawing(
        scene, layer, head, atom, frames=frames, n_lines=n_lines, axis_length=axis_length, polyhedra=polyhedra
    )
    toolkit = _toolkit()
    parts = {
        "atoms": _spheres(toolkit, shapes),
        "unit_cell": [_line(toolkit, stick) for stick in shapes.sticks if stick.role == "cell"],
        "bonds": [half for stick in shapes.sticks if stick.role == "bond" for half in _bond_halves(toolkit, stick)],
        "attention": [_line(toolkit, stick) for stick in shapes.sticks if stick.role == "attention"],
        "frames": [
            toolkit.Scene(
                name=label, contents=[_arrow(toolkit, arrow) for arrow in shapes.arrows if arrow.axis == axis]
            )
            for axis, label in enumerate(AXIS_LABELS)
        ],
        "polyhedra": [
            toolkit.Convex(positions=solid.vertices.tolist(), color=solid.color, opacity=POLYHEDRON_OPACITY)
            for solid in shapes.solids
        ],
    }
    center = scene.drawn_positions.mean(axis=0) if scene.is_region else scene.lattice.sum(axis=0) / 2
    middle = (-center).tolist()
    contents = [toolkit.Scene(name=name, contents=part, origin=middle) for name, part in parts.items()]
    whole = toolkit.Scene(name=shapes.caption, contents=contents, origin=middle, lattice=scene.lattice.tolist())
    return whole.to_json()


def _toolkit() -> Any:
    """The module of crystal-toolkit's primitives."""
    with _pymatgen_unchanged(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its own affair
        try:
            from crystal_toolkit.core import scene as toolkit
        except ImportError as error:
            raise ImportError(
                f"a crystal-toolkit scene needs crystal-toolkit ({error}): pip install 'crystalframer[crystal-toolkit]'"
            ) from error
    return toolkit


@contextmanager
def _pymatgen_unchanged() -> Iterator[None]:
    """How pymatgen's classes are shown stays as it was before the block (crystaltoolkit issue 473)."""
    from pymatgen.core import Structure

    # Among the classes that a structure inherits from is the one that gets patched.
    before = [(owner, name, vars(owner).get(name)) for owner in Structure.__mro__ for name in PATCHED]
    try:
        yield
    finally:
        for owner, name, value in before:
            if vars(owner).get(name) is value:
                continue
            if value is None:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


def _spheres(toolkit: Any, shapes: Drawing) -> list[Any]:
    return [
        toolkit.Spheres(positions=[ball.center.tolist()], color=ball.color, radius=ball.radius, tooltip=ball.label)
        for ball in shapes.balls
    ]


def _bond_halves(toolkit: Any, stick: Stick) -> list[Any]:
    middle = (stick.start + stick.end) / 2
    return [
        toolkit.Cylinders(positionPairs=[[end.tolist(), middle.tolist()]], color=color, radius=stick.radius)
        for end, color in zip((stick.start, stick.end), stick.colors, strict=True)
    ]


def _line(toolkit: Any, stick: Stick) -> Any:
    return toolkit.Cylinders(
        positionPairs=[[stick.start.tolist(), stick.end.tolist()]],
        color=stick.colors[0],
        radius=stick.radius,
        tooltip=None if stick.weight is None else f"attention {stick.weight:.3f}",
    )


def _arrow(toolkit: Any, arrow: Arrow) -> Any:
    vector = arrow.end - arrow.start
    # crystal-toolkit puts the middle of the head at the end of the shaft.
    end = arrow.end - HEAD / 2 * vector
    return toolkit.Arrows(
        positionPairs=[[arrow.start.tolist(), end.tolist()]],
        color=arrow.color,
        radius=arrow.radius,
        headLength=HEAD * float(np.linalg.norm(vector)),
        headWidth=2.3 * arrow.radius,
    )
