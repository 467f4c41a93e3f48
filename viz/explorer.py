"""The attention explorer: a crystal, its heatmap and its profile in the browser, moved without a kernel.

In a notebook it is a widget, on disk a page of its own; both run the modules of `viz/frontend` on the same bytes.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

import anywidget
import traitlets

from crystalframer.trace import CrystalTrace
from viz.drawing import VIEW, Frames
from viz.packing import pack
from viz.scene import Scene, SceneError, scene_from_trace
from viz.structure_view import SCRIPT, ZOOM

FRONTEND = Path(__file__).parent / "frontend"
MODULES = ("crystal.js", "mesh.js", "structure.js", "heatmap.js", "profile.js", "explorer.js")
"""Each imports only from those before it."""
STYLE = FRONTEND / "explorer.css"
MANY_ATOMS = 40
"""In larger cells the frames of all atoms hide more than they show; they are drawn when asked for."""


@cache
def frontend_script() -> str:
    """One ECMAScript module: 3Dmol.js of this package as `library`, then the modules of the front end.

    There is no build step: their imports of each other and their exports are left out, since all share one scope.
    """
    modules = "\n".join((FRONTEND / name).read_text(encoding="utf-8") for name in MODULES)
    modules = re.sub(r'^import \{[^}]*\} from "\./\w+\.js";$', "", modules, flags=re.MULTILINE)
    modules = re.sub(r"^export (?=(async )?function|class|const)", "", modules, flags=re.MULTILINE)
    script = SCRIPT.read_text(encoding="utf-8")
    library = f"const library = (() => {{ const module = {{exports: {{}}}}, exports = module.exports;\n{script}\n"
    return f"{library}return module.exports; }})();\n{modules}"


class AttentionExplorer(anywidget.AnyWidget):
    """Step through layers, heads and atoms: the crystal, the attention heatmap and attention against distance follow.

    Name it on the last line of a cell to show it. `layer`, `head` (None: mean over heads), `atom`, `frames` and
    `polyhedra` can be set and observed; counted from 0. The sliders need no kernel once it is shown.

    Example:
        >>> explorer = viz.AttentionExplorer(trace)
        >>> explorer.layer, explorer.atom = 1, 2
        >>> explorer.observe(lambda change: print(change["new"]), "atom")
        >>> page = explorer.to_html()
    """

    _esm = frontend_script()
    _css = STYLE.read_text(encoding="utf-8")
    header = traitlets.Dict().tag(sync=True)
    data = traitlets.Bytes().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)
    n_lines = traitlets.Int(12, min=0).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0, allow_none=True).tag(sync=True)
    atom = traitlets.Int(0).tag(sync=True)
    frames = traitlets.Enum(get_args(Frames), "all").tag(sync=True)
    polyhedra = traitlets.Bool(True).tag(sync=True)

    def __init__(
        self,
        trace: CrystalTrace,
        *,
        layer: int = 0,
        head: int | None = 0,
        atom: int = 0,
        frames: Frames | None = None,
        polyhedra: bool = True,
        n_lines: int = 12,
    ) -> None:
        """Everything that the explorer can show goes to the browser here, once.

        Args:
            trace: of `crystalframer.trace`, or one loaded from disk.
            layer: counted from 0.
            head: counted from 0; None for the mean over heads.
            atom: the query atom, counted from 0.
            frames: whose axes to draw; None: of all atoms, beyond 40 atoms of the chosen one.
            polyhedra: draw the hulls of non-metals around metals.
            n_lines: attention lines to draw (more if some tie with the last).

        Raises:
            TraitError: no such layer, head, atom or choice of frames; the message names the range.
        """
        self.scene = scene_from_trace(trace)
        header, data = pack(self.scene)
        super().__init__(
            header=header,
            data=data,
            view=_view(),
            layer=layer,
            head=head,
            atom=atom,
            frames=frames or _frames_of(self.scene),
            polyhedra=polyhedra,
            n_lines=n_lines,
        )

    @traitlets.validate("layer", "head", "atom")
    def _exists(self, proposal: Any) -> int | None:
        name, value = proposal["trait"].name, proposal["value"]
        try:
            self.scene.check(**{"layer": 0, "head": 0, name: value})
        except SceneError as error:
            raise traitlets.TraitError(str(error)) from None
        return value

    def to_html(self, path: str | Path | None = None) -> str:
        """What is shown now as one HTML page, which needs neither a network nor Python; written to `path` if given."""
        page = explorer_html(
            self.scene,
            self.layer,
            self.head,
            self.atom,
            frames=self.frames,
            polyhedra=self.polyhedra,
            n_lines=self.n_lines,
        )
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page


def explorer_html(
    scene: Scene,
    layer: int = 0,
    head: int | None = 0,
    atom: int = 0,
    *,
    frames: Frames | None = None,
    polyhedra: bool = True,
    n_lines: int = 12,
) -> str:
    """The explorer as one HTML page: opens from disk with the network off, and its sliders work.

    Args:
        scene: what to explore.
        layer: to begin with, counted from 0.
        head: to begin with, counted from 0; None for the mean over heads.
        atom: to begin with, counted from 0.
        frames: whose axes to draw; None: of all atoms, beyond 40 atoms of the chosen one.
        polyhedra: draw the hulls of non-metals around metals.
        n_lines: attention lines to draw (more if some tie with the last).

    Raises:
        SceneError: no such layer, head or atom.

    Example:
        >>> page = viz.explorer_html(scene, layer=1)
        >>> len(page) < 1_500_000
        True
    """
    scene.check(layer, head, atom)
    header, data = pack(scene)
    state = {
        "header": header,
        "view": _view(),
        "layer": layer,
        "head": head,
        "atom": atom,
        "frames": frames or _frames_of(scene),
        "polyhedra": polyhedra,
        "n_lines": n_lines,
    }
    return _PAGE.format(
        title=html.escape(f"{scene.formula} {scene.id}".strip()),
        style=STYLE.read_text(encoding="utf-8"),
        # Inside a script element, `<` of a text could end it or begin a comment.
        state=json.dumps(state).replace("<", "\\u003c"),
        data=_packed(data),
        module=_packed(frontend_script().encode()),
    )


def _frames_of(scene: Scene) -> Frames:
    return "all" if scene.n_atoms <= MANY_ATOMS else "selected"


def _view() -> dict[str, float]:
    azimuth, elevation = VIEW
    return {"azimuth": azimuth, "elevation": elevation, "zoom": ZOOM}


def _packed(data: bytes) -> str:
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
