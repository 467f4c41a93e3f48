"""A crystal in 3D with py3Dmol, to turn and zoom. The JavaScript comes with this package, so it works offline."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viz.drawings import AXIS_LENGTH, VIEW, Drawing, Solid, Which, drawing
from viz.palette import INK, PAPER, POLYHEDRON_OPACITY
from viz.scene import Scene

if TYPE_CHECKING:
    import py3Dmol

SCRIPT = Path(__file__).parent / "vendor" / "3Dmol-min.js"
"""3Dmol.js as published on npm (package `3dmol`, BSD-3-Clause, with its licence)."""
VERSION = "2.5.5"
"""Version of `SCRIPT`: the one that py3Dmol would load from the network."""
ZOOM = 2.0
"""3Dmol leaves wide margins around the atoms. With this factor the corners of the cell are still visible."""

_SHOW_LABEL = f"""function(atom, viewer) {{
    if (!atom.hoverLabel) atom.hoverLabel = viewer.addLabel(atom.properties.label,
        {{position: atom, fontSize: 13, fontColor: '{PAPER}', backgroundColor: '{INK}', backgroundOpacity: 0.8}});
}}"""
_HIDE_LABEL = """function(atom, viewer) {
    if (atom.hoverLabel) { viewer.removeLabel(atom.hoverLabel); delete atom.hoverLabel; }
}"""

_LABEL = {"fontSize": 17, "bold": True, "backgroundColor": PAPER, "backgroundOpacity": 0.75, "inFront": True}


def structure_view(
    scene: Scene,
    layer: int,
    head: int | None,
    atom: int,
    *,
    frames: Which = "all",
    n_lines: int = 12,
    axis_length: float = AXIS_LENGTH,
    polyhedra: Which = "selected",
    view: tuple[float, float] = VIEW,
    width: int = 640,
    height: int = 480,
) -> py3Dmol.view:
    """Draw one layer, one head and one atom in 3D with py3Dmol; works without a network.

    Write the view on the last line of a notebook cell to show it, or save it as a page with `.write_html(path)`. Drag
    to turn, scroll to zoom, point at an atom to see its label. Once shown, it needs no kernel.

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
        width: pixels.
        height: pixels.

    Returns:
        A `py3Dmol.view`; all methods of py3Dmol work on it.

    Raises:
        SceneError: there is no such layer, head, atom or option.

    Example:
        >>> view = structure_view(scene, layer=0, head=2, atom=1)
        >>> with open("view.html", "w") as file:
        ...     _ = view.write_html(file)
    """
    import py3Dmol

    viewer = py3Dmol.view(width=width, height=height, js=_script_url())
    viewer.setBackgroundColor(PAPER)
    viewer.setProjection("orthographic")
    viewer.enableFog(False)
    _put(
        viewer,
        drawing(scene, layer, head, atom, frames=frames, n_lines=n_lines, axis_length=axis_length, polyhedra=polyhedra),
    )
    viewer.zoomTo()
    viewer.zoom(ZOOM)
    # 3Dmol looks along -z with y up, and turns about the axes of the crystal: the last rotation acts first. The two
    # together are the camera of `viz.drawings.camera`.
    azimuth, elevation = view
    viewer.rotate(elevation - 90, "x")
    viewer.rotate(-90 - azimuth, "z")
    return viewer


def _put(viewer: py3Dmol.view, shapes: Drawing) -> None:
    _put_balls(viewer, shapes)
    for stick in shapes.sticks:
        if stick.role != "bond":
            spec = {
                "start": _xyz(stick.start),
                "end": _xyz(stick.end),
                "radius": stick.radius,
                "color": stick.colors[0],
            }
            viewer.addCylinder(spec | {"fromCap": 1, "toCap": 1})
    for solid in shapes.solids:
        _put_solid(viewer, solid)
    for arrow in shapes.arrows:
        spec = {"start": _xyz(arrow.start), "end": _xyz(arrow.end), "radius": arrow.radius, "color": arrow.color}
        if arrow.is_line:
            viewer.addCylinder(spec | {"fromCap": 1, "toCap": 1})
        else:
            viewer.addArrow(spec | {"mid": 0.72, "radiusRatio": arrow.head_radius / arrow.radius})
        if arrow.label:
            _put_label(viewer, arrow.label, arrow.end + 0.15 * (arrow.end - arrow.start), arrow.color)
    chosen = shapes.balls[shapes.selected]
    _put_label(viewer, chosen.label, chosen.center, INK)
    if shapes.set_text:
        corner = {"useScreen": True, "position": {"x": 6, "y": 6, "z": 0}, "fontSize": 12, "bold": False}
        viewer.addLabel(shapes.set_text, _LABEL | {"fontColor": INK} | corner)


def _put_balls(viewer: py3Dmol.view, shapes: Drawing) -> None:
    """All atoms as one model with given bonds, so that 3Dmol does not guess any."""
    partners: list[list[int]] = [[] for _ in shapes.balls]
    radius = 0.0
    for stick in shapes.sticks:
        if stick.role == "bond" and stick.ends:
            first, second = stick.ends
            partners[first].append(second)
            partners[second].append(first)
            radius = stick.radius
    viewer.addModel()
    model = viewer.getModel()
    model.addAtoms(
        [
            _xyz(ball.center)
            | {
                "elem": ball.label.rstrip("0123456789(), -"),
                "serial": number,
                "bonds": partners[number],
                "bondOrder": [1] * len(partners[number]),
                "properties": {"label": ball.label, "atom": ball.atom},
            }
            for number, ball in enumerate(shapes.balls)
        ]
    )
    alike: dict[tuple[float, str], list[int]] = {}
    for number, ball in enumerate(shapes.balls):
        alike.setdefault((ball.radius, ball.color), []).append(number)
    for (size, color), numbers in alike.items():
        style: dict[str, Any] = {"sphere": {"radius": size, "color": color}}
        if radius:
            style["stick"] = {"radius": radius, "color": color}
        viewer.setStyle({"serial": numbers}, style)
    viewer.setHoverable({}, True, _SHOW_LABEL, _HIDE_LABEL)


def _put_solid(viewer: py3Dmol.view, solid: Solid) -> None:
    """A polyhedron. Each face has its own vertices and normal, so that it looks flat."""
    corners = solid.vertices[solid.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    mesh = {
        "vertexArr": [_xyz(corner) for corner in corners.reshape(-1, 3)],
        "normalArr": [_xyz(normal) for normal in normals.repeat(3, axis=0)],
        "faceArr": list(range(corners.shape[0] * 3)),
    }
    viewer.addCustom(mesh | {"color": solid.color, "opacity": POLYHEDRON_OPACITY})
    for start, end in solid.vertices[solid.rims]:
        viewer.addLine({"start": _xyz(start), "end": _xyz(end), "color": solid.color})


def _put_label(viewer: py3Dmol.view, text: str, point: np.ndarray, color: str) -> None:
    look = {"fontColor": color, "position": _xyz(point), "alignment": "center", "padding": 1}
    viewer.addLabel(text, _LABEL | look)


def _xyz(point: np.ndarray) -> dict[str, float]:
    # Rounding to 1e-4 Å halves the size of the page.
    x, y, z = (round(float(value), 4) for value in point)
    return {"x": x, "y": y, "z": z}


@cache
def _script_url() -> str:
    return "data:text/javascript;base64," + base64.b64encode(SCRIPT.read_bytes()).decode("ascii")
