"""The explorer as an HTML page that works without Python and without a network.

The browser runs the modules in `viz/frontend` on the bytes from `viz.encoding`, as the widget in `viz.explorer` does.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, get_args

from crystalframer.explanations import Explanation
from viz.drawings import VIEW, Which
from viz.encoding import encode
from viz.errors import check_option
from viz.first_sight import CLEAREST, Head, clearest_head, find_atom
from viz.opening import opened
from viz.scene import Scene
from viz.site_values import site_values as values_by_name
from viz.structure_views import SCRIPT
from viz.why import check_mode

if TYPE_CHECKING:
    import pandas

FRONTEND = Path(__file__).parent / "frontend"
MODULES = (
    "crystal.js",
    "mesh.js",
    "camera.js",
    "cells.js",
    "overlay.js",
    "vector.js",
    "controls.js",
    "files.js",
    "structure.js",
    "sketch.js",
    "board.js",
    "panel.js",
    "heatmap.js",
    "profile.js",
    "why.js",
)
"""Each module imports only from those before it."""
ENTRIES = ("explorer.js", "comparison.js")
"""Each imports only from the modules, and exports the function that draws a widget."""
STARTING_VIEW = dict(zip(("azimuth", "elevation"), VIEW, strict=True))
"""Camera at first, degrees."""
MANY_POLYHEDRA = 40
"""In cells of more atoms, polyhedra of all of them would hide each other, so they are drawn only on request."""
MANY_FRAMES = 8
"""The same for frames."""


@cache
def frontend_script(entry: str = ENTRIES[0]) -> str:
    """One ECMAScript module: 3Dmol.js (as `library`), the modules of the front end, and the entry.

    No build step is needed: all share one scope, so their imports and exports are simply removed.
    """
    modules = "\n".join((FRONTEND / name).read_text(encoding="utf-8") for name in (*MODULES, entry))
    modules = re.sub(r'^import \{[^}]*\} from "\./\w+\.js";$', "", modules, flags=re.MULTILINE)
    modules = re.sub(r"^export (?=(async )?function|class|const)", "", modules, flags=re.MULTILINE)
    script = SCRIPT.read_text(encoding="utf-8")
    library = f"const library = (() => {{ const module = {{exports: {{}}}}, exports = module.exports;\n{script}\n"
    return f"{library}return module.exports; }})();\n{modules}"


def frontend_style() -> str:
    """The style sheet of the explorer."""
    return (FRONTEND / "explorer.css").read_text(encoding="utf-8")


def explorer_html(
    scene: Scene,
    layer: int = 0,
    head: Head = CLEAREST,
    atom: int | str | None = None,
    *,
    frames: Which | None = None,
    polyhedra: Which | None = None,
    n_lines: int = 12,
    display: Mapping[str, Any] | None = None,
    explanation: Explanation | None = None,
    substitutions: pandas.DataFrame | None = None,
    site_values: Any = None,
    mode: str = "attention",
    pinned: Mapping[str, Any] | None = None,
    note: str = "",
) -> str:
    """The explorer as one HTML page. It opens from disk without a network, and its sliders work.

    Args:
        scene: the crystal with its frames and attention; also what `AttentionExplorer` takes.
        layer: first layer to show, counted from 0.
        head: first head to show, counted from 0; None for the mean over heads; `"clearest"` for the head in which least
            attention stays on the atom.
        atom: first atom to show, its number (counted from 0) or its label (`"Ti2"`). None: the one that tells most, a
            metal in a polyhedron near the middle.
        frames: atoms whose axes are drawn: `"selected"`, `"all"` or `"none"`. None: all atoms, or the selected atom in
            cells of more than 8 atoms.
        polyhedra: atoms around which polyhedra are drawn, as for `frames`; only centres have one. None: all atoms, or
            the selected atom in cells of more than 40.
        n_lines: number of attention lines, strongest first; more if some tie with the last.
        display: what is drawn besides (see `AttentionExplorer`).
        explanation: from `crystalframer.explain`, of the same crystal and model, for the modes `relevance` and
            `removal`, contributions as colours of atoms, and arrows of the gradient.
        substitutions: from `crystalframer.substitute`: a periodic table, for the target of the explanation.
        site_values: numbers of the atoms that can colour them (see `AttentionExplorer`).
        mode: what is shown at first: `attention`, `relevance` or `removal`.
        pinned: a second view beside the first (see `AttentionExplorer`).
        note: plain text above the crystal, such as what to look for.

    Raises:
        SceneError: there is no such layer, head, atom or option, or the explanation is of another crystal.

    Example:
        >>> page = viz.explorer_html(scene, layer=1)
        >>> len(page) < 1_500_000
        True
    """
    scene = opened(scene)
    atom = find_atom(scene, atom)
    scene.check(layer, None if head == CLEAREST else head, atom)
    if head == CLEAREST:
        head = clearest_head(scene, layer, atom)
    check_mode(mode, explanation)
    state = starting_state(
        scene,
        frames=frames,
        polyhedra=polyhedra,
        explanation=explanation,
        substitutions=substitutions,
        site_values=site_values,
    )
    for name in ("frames", "polyhedra"):
        check_option(name, state[name], get_args(Which))
    data = state.pop("data")
    state |= {"view": STARTING_VIEW, "layer": layer, "head": head, "atom": atom, "n_lines": n_lines, "mode": mode}
    state |= {"display": dict(display or {}), "pinned": pinned_view(scene, pinned)}
    return widget_page(
        f"{scene.formula} {scene.id}".strip(), state, data, frontend_script(), frontend_style(), note=note
    )


def widget_page(
    title: str,
    state: Mapping[str, Any],
    data: bytes,
    script: str,
    style: str,
    *,
    note: str = "",
    figures: str = "",
    blocks: Mapping[str, str] | None = None,
) -> str:
    """A widget as one HTML page.

    Args:
        title: name of the page.
        state: values of the model at first.
        data: its bytes.
        script: of `frontend_script` or `dataset_script`.
        style: its style sheet.
        note: a sentence above it.
        figures: HTML below it.
        blocks: compressed data that the widget reads when it needs them, by their names.
    """
    page = Template((FRONTEND / "page.html").read_text(encoding="utf-8"))
    block = '<script type="application/octet-stream" id="{}">{}</script>'
    return page.substitute(
        title=html.escape(title),
        note=f'<p class="note">{html.escape(note)}</p>' if note else "",
        style=style,
        # Inside a script element, a `<` in a text could end the element or begin a comment.
        state=json.dumps(state).replace("<", "\\u003c"),
        data=compressed(data),
        module=compressed(script.encode()),
        figures=figures,
        blocks="\n".join(block.format(*item) for item in (blocks or {}).items()),
    )


def starting_state(
    scene: Scene,
    *,
    frames: str | None,
    polyhedra: str | None,
    explanation: Explanation | None = None,
    substitutions: pandas.DataFrame | None = None,
    site_values: Any = None,
) -> dict[str, Any]:
    """Data of a scene for the browser, and whose frames and polyhedra are shown at first."""
    header, data = encode(scene, explanation, substitutions, values_by_name(scene, site_values))
    few = {
        name: "all" if scene.n_queries <= most else "selected"
        for name, most in (("frames", MANY_FRAMES), ("polyhedra", MANY_POLYHEDRA))
    }
    return {
        "header": header,
        "data": data,
        "frames": frames or few["frames"],
        "polyhedra": polyhedra or few["polyhedra"],
    }


def pinned_view(scene: Scene, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Layer, head and atom of a pinned view; empty without one.

    Raises:
        SceneError: there is no such layer, head or atom.
    """
    if not given:
        return {}
    for name in given:
        check_option("pinned", name, ("layer", "head", "atom"))
    found = {"layer": given.get("layer", 0), "head": given.get("head", 0), "atom": find_atom(scene, given.get("atom"))}
    scene.check(**found)
    return found


def compressed(data: bytes) -> str:
    """For a page: gzip, without a time stamp so that the same data give the same page, and base64."""
    return base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii")
