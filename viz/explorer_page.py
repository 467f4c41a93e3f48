"""The explorer as a page of its own: a crystal, its heatmap and its profile, moved without a kernel or a network.

The browser runs the modules of `viz/frontend` on the bytes of `viz.encoding`; so does the widget of `viz.explorer`.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from functools import cache
from pathlib import Path
from typing import Literal

from viz.drawings import VIEW, Frames, Polyhedra
from viz.encoding import encode
from viz.scene import Scene
from viz.structure_views import SCRIPT

FRONTEND = Path(__file__).parent / "frontend"
MODULES = ("crystal.js", "mesh.js", "controls.js", "structure.js", "heatmap.js", "profile.js")
"""Each imports only from those before it."""
ENTRIES = ("explorer.js", "comparison.js")
"""Each imports only from the modules, and exports what draws a widget."""
MANY_ATOMS = 40
"""In larger cells the frames and polyhedra of all atoms hide more than they show; they are drawn when asked for."""


@cache
def frontend_script(entry: str = ENTRIES[0]) -> str:
    """One ECMAScript module: 3Dmol.js of this package as `library`, then the modules of the front end, then the entry.

    There is no build step: their imports of each other and their exports are left out, since all share one scope.
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
    head: int | None = 0,
    atom: int = 0,
    *,
    frames: Frames | None = None,
    polyhedra: Polyhedra | None = None,
    n_lines: int = 12,
) -> str:
    """The explorer as one HTML page: opens from disk with the network off, and its sliders work.

    Args:
        scene: what to explore.
        layer: to begin with, counted from 0.
        head: to begin with, counted from 0; None for the mean over heads.
        atom: to begin with, counted from 0.
        frames: whose axes to draw; None: of all atoms, beyond 40 atoms of the chosen one.
        polyhedra: around which atoms to draw them (only metals have one); None: as `frames`.
        n_lines: attention lines to draw (more if some tie with the last).

    Raises:
        SceneError: no such layer, head or atom.

    Example:
        >>> page = viz.explorer_html(scene, layer=1)
        >>> len(page) < 1_500_000
        True
    """
    scene.check(layer, head, atom)
    header, data = encode(scene)
    state = {
        "header": header,
        "view": starting_view(),
        "layer": layer,
        "head": head,
        "atom": atom,
        "frames": frames or fitting(scene),
        "polyhedra": polyhedra or fitting(scene),
        "n_lines": n_lines,
    }
    return _PAGE.format(
        title=html.escape(f"{scene.formula} {scene.id}".strip()),
        style=frontend_style(),
        # Inside a script element, `<` of a text could end it or begin a comment.
        state=json.dumps(state).replace("<", "\\u003c"),
        data=_compressed(data),
        module=_compressed(frontend_script().encode()),
    )


def fitting(scene: Scene) -> Literal["all", "selected"]:
    """Whose frames and polyhedra to draw where nothing is said."""
    return "all" if scene.n_queries <= MANY_ATOMS else "selected"


def starting_view() -> dict[str, float]:
    """Where the camera stands at first, degrees."""
    azimuth, elevation = VIEW
    return {"azimuth": azimuth, "elevation": elevation}


def _compressed(data: bytes) -> str:
    # No time stamp: the same scene gives the same page.
    return base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii")


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0; background: white; }}
.cf-explorer {{ max-width: 1400px; margin: 0 auto; }}
{style}</style>
</head>
<body>
<noscript>The explorer needs JavaScript.</noscript>
<script type="application/json" id="state">{state}</script>
<script type="application/octet-stream" id="data">{data}</script>
<script type="application/octet-stream" id="module">{module}</script>
<script type="module">
const text = (id) => document.getElementById(id).textContent;
async function inflated(id) {{
  const bytes = Uint8Array.from(atob(text(id)), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}}
const values = {{ ...JSON.parse(text("state")), data: new DataView(await inflated("data")) }};
const listeners = {{}};
const model = {{
  get: (name) => values[name],
  set(name, value) {{
    if (values[name] === value) return;
    values[name] = value;
    for (const call of listeners[`change:${{name}}`] ?? []) call();
  }},
  save_changes() {{}},
  on: (event, call) => (listeners[event] ??= []).push(call),
  off: (event, call) => (listeners[event] = listeners[event].filter((other) => other !== call)),
}};
const url = URL.createObjectURL(new Blob([await inflated("module")], {{ type: "text/javascript" }}));
(await import(url)).default.render({{ model, el: document.body }});
</script>
</body>
</html>
"""
