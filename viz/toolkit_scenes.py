"""A crystal as a crystal-toolkit scene, for notebooks, Dash apps and pages of the Materials Project."""

from __future__ import annotations

import base64
import gzip
import html
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from viz.drawings import AXIS_LENGTH, Arrow, Drawing, Stick, Which, drawing
from viz.pages import written
from viz.palette import AXIS_LABELS, INK, PAPER, POLYHEDRON_OPACITY
from viz.scene import Scene

PATCHED = ("to_plotly_json", "_repr_mimebundle_", "display_json", "_ipython_display_")
"""Attributes that the import of crystal-toolkit sets on pymatgen classes (`core.jupyter.patch_msonable`)."""
HEAD = 0.28
"""Length of the head of an arrow, as a fraction of the arrow."""
SIZE = 520
"""Pixels: the picture of a scene is a square."""
_PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>$title</title>
<style>
body { margin: 0; background: $paper; font: 14px system-ui, sans-serif; color: $ink; }
main { position: relative; width: ${size}px; height: ${size}px; }
.mpc-button-bar { position: absolute; right: 0; z-index: 1; }
</style>
</head>
<body>
<main></main>
<script type="application/json" id="scene">$scene</script>
<script type="application/octet-stream" id="module">$module</script>
<script type="module">
const text = (id) => document.getElementById(id).textContent;
const bytes = Uint8Array.from(atob(text("module")), (letter) => letter.charCodeAt(0));
const source = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
document.head.append(Object.assign(document.createElement("script"), { text: source }));
const data = JSON.parse(text("scene"));
// The component draws nothing until it is told what is visible, or the mouse turns the scene.
const toggleVisibility = Object.fromEntries(data.contents.map(({ name }) => [name, 1]));
const given = { data, toggleVisibility, sceneSize: $size, showExportButton: false, setProps() {} };
const scene = React.createElement(dash_mp_components.CrystalToolkitScene, given);
ReactDOM.createRoot(document.querySelector("main")).render(scene);
</script>
</body>
</html>
"""
)


class ToolkitScene(dict[str, Any]):
    """The JSON of a crystal-toolkit scene, a dictionary. On the last line of a notebook cell it shows itself.

    The component of crystal-toolkit for Dash draws it, without a network. Its script makes each picture 3 MB.
    """

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the scene as one HTML page, which needs no network. Also write it to `path`.

        Example:
            >>> page = toolkit_scene(scene, layer=0, head=2, atom=1).to_html("SrTiO3.html")
        """
        page = _PAGE.substitute(
            title=html.escape(self["name"]),
            size=SIZE,
            paper=PAPER,
            ink=INK,
            # Inside a script element, a `<` in a text could end the element or begin a comment.
            scene=json.dumps(self).replace("<", "\\u003c"),
            module=_component(),
        )
        return written(page, path)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        name = html.escape(self["name"])
        frame = f'style="width: {SIZE + 4}px; max-width: 100%; height: {SIZE + 4}px; border: 0"'
        shown = f'<iframe srcdoc="{html.escape(self.to_html())}" title="{name}" {frame}></iframe>'
        return {"text/html": shown, "text/plain": f"crystal-toolkit scene: {self['name']}"}


def toolkit_scene(
    scene: Scene,
    layer: int,
    head: int | None,
    atom: int,
    *,
    frames: Which = "selected",
    n_lines: int = 12,
    axis_length: float = AXIS_LENGTH,
    polyhedra: Which = "selected",
) -> ToolkitScene:
    """Make a crystal-toolkit scene (JSON) of one layer, one head and one atom, with frames and attention.

    Write it on the last line of a notebook cell to show it; `to_html` makes a page of it. For a Dash app or a page of
    the Materials Project, give it to `dash_mp_components.CrystalToolkitScene(data=...)`, or write it to a file
    `*.ctk.json`: it is a dictionary.

    The scene has the groups `atoms`, `unit_cell`, `bonds`, `attention`, `frames` (one group for each axis, and one for
    the other frames of a weighted set) and `polyhedra`, which can be shown or hidden by name. Atoms and attention lines
    have tooltips. Coordinates are Cartesian, Å; the middle of the cell is the origin of the view.

    The first call imports crystal-toolkit, which takes about ten seconds. Its import changes pymatgen so that a
    `Structure` can no longer be shown in a notebook; this function undoes that change.

    Args:
        scene: the crystal with its frames and attention.
        layer: counted from 0.
        head: counted from 0. None draws the mean attention over heads, without axes.
        atom: the atom whose attention lines are drawn, counted from 0.
        frames: atoms whose axes are drawn: `"selected"` (only `atom`), `"all"` or `"none"`.
        n_lines: number of attention lines, strongest first; more if some tie with the last.
        axis_length: length of the axes, Å.
        polyhedra: atoms around which polyhedra are drawn, as for `frames`; only metals have one.

    Raises:
        SceneError: there is no such layer, head, atom or option.
        ImportError: crystal-toolkit is not installed.

    Example:
        >>> page = toolkit_scene(scene, layer=0, head=2, atom=1)
        >>> [group["name"] for group in page["contents"]]
        ['atoms', 'unit_cell', 'bonds', 'attention', 'frames', 'polyhedra']
        >>> import json
        >>> with open("SrTiO3.ctk.json", "w") as file:
        ...     json.dump(page, file)
    """
    shapes = drawing(
        scene, layer, head, atom, frames=frames, n_lines=n_lines, axis_length=axis_length, polyhedra=polyhedra
    )
    toolkit = _toolkit()
    groups = {
        "atoms": _spheres(toolkit, shapes),
        "unit_cell": [_line(toolkit, stick) for stick in shapes.sticks if stick.role == "cell"],
        "bonds": [half for stick in shapes.sticks if stick.role == "bond" for half in _bond_halves(toolkit, stick)],
        "attention": [_line(toolkit, stick) for stick in shapes.sticks if stick.role == "attention"],
        "frames": [
            toolkit.Scene(name=name, contents=[_arrow(toolkit, arrow) for arrow in arrows])
            for name, arrows in _named(shapes.arrows).items()
        ],
        "polyhedra": [
            toolkit.Convex(positions=solid.vertices.tolist(), color=solid.color, opacity=POLYHEDRON_OPACITY)
            for solid in shapes.solids
        ],
    }
    center = scene.drawn_positions.mean(axis=0) if scene.is_region else scene.lattice.sum(axis=0) / 2
    middle = (-center).tolist()
    contents = [toolkit.Scene(name=name, contents=group, origin=middle) for name, group in groups.items()]
    whole = toolkit.Scene(name=shapes.caption, contents=contents, origin=middle, lattice=scene.lattice.tolist())
    return ToolkitScene(whole.to_json())


@cache
def _component() -> str:
    """The script of the component with React, which it needs: compressed, in base64. Both come with crystal-toolkit."""
    react, component = (Path(str(files(name))) for name in ("dash", "dash_mp_components"))
    scripts = [max((react / "deps").glob(f"{name}@*.min.js")) for name in ("react", "react-dom", "prop-types")]
    source = ";\n".join(
        path.read_text(encoding="utf-8") for path in (*scripts, component / "dash_mp_components.min.js")
    )
    return base64.b64encode(gzip.compress(source.encode(), mtime=0)).decode("ascii")


def _toolkit() -> Any:
    """The module with the shapes of crystal-toolkit."""
    with _pymatgen_unchanged(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of crystal-toolkit itself
        try:
            from crystal_toolkit.core import scene as toolkit
        except ImportError as error:
            raise ImportError(
                f"a crystal-toolkit scene needs crystal-toolkit ({error}): pip install 'crystalframer[crystal-toolkit]'"
            ) from error
    return toolkit


@contextmanager
def _pymatgen_unchanged() -> Iterator[None]:
    """Undo what the block changes in how pymatgen classes are shown (crystaltoolkit issue 473)."""
    from pymatgen.core import Structure

    # One of the base classes of a structure is changed.
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


def _named(arrows: tuple[Arrow, ...]) -> dict[str, list[Arrow]]:
    """The axes by name, and those of the other frames of a weighted set."""
    groups = {
        name: [arrow for arrow in arrows if arrow.axis == axis and arrow.weight is None]
        for axis, name in enumerate(AXIS_LABELS)
    }
    others = [arrow for arrow in arrows if arrow.weight is not None]
    return groups | ({"other frames": others} if others else {})


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
    look: dict[str, Any] = {"color": arrow.color, "radius": arrow.radius}
    if arrow.is_line:
        return toolkit.Cylinders(positionPairs=[[arrow.start.tolist(), arrow.end.tolist()]], **look)
    # crystal-toolkit puts the middle of the arrow head at the end of the shaft.
    end = arrow.end - HEAD / 2 * vector
    return toolkit.Arrows(
        positionPairs=[[arrow.start.tolist(), end.tolist()]],
        headLength=HEAD * float(np.linalg.norm(vector)),
        headWidth=arrow.head_radius,
        **look,
    )
