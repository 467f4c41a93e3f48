"""Draw the outputs of executed notebooks without a kernel and without a network.

Widgets that the browser draws (`viz.AttentionExplorer`, `viz.FrameComparison`) become live pages of their own in
frames. Plotly figures are drawn by the copy of plotly.js that comes with plotly. Of other widgets (boxes, outputs,
texts) the content is shown; controls that need a kernel are left out.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from sphinx.application import Sphinx

from viz.saved_outputs import MARK

STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
PY3DMOL = "application/3dmoljs_load.v0"
"""Stands beside the HTML of a py3Dmol view, which is enough."""
FOLDER = "_widgets"
NOTE = """:::{note}
This page comes from a short run, so that it is quick to build: fewer epochs or crystals than the notebook has.
Open the notebook in JupyterLab (`make lab`) for the full run.
:::"""

_output_folder = Path()


def setup(app: Sphinx) -> dict[str, bool]:
    """Find where pages of widgets go, and load plotly.js on the pages of notebooks."""
    app.connect("builder-inited", _set_output_folder)
    app.connect("html-page-context", _add_scripts)
    return {"parallel_read_safe": False}


def read(text: str) -> NotebookNode:
    """Read an executed notebook, with outputs that a page can show."""
    notebook = nbformat.reads(text, as_version=4)
    widgets = notebook.metadata.pop("widgets", {}).get(STATE, {}).get("state", {})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [shown for output in cell.outputs for shown in _shown(output, widgets)]
    if any("mock" in cell.metadata.get("nbmake", {}) for cell in notebook.cells):
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(NOTE))
    return notebook


def _shown(output: NotebookNode, widgets: dict[str, Any]) -> Iterator[NotebookNode]:
    data = output.get("data", {})
    data.pop(PY3DMOL, None)
    if data.get("text/html", "").startswith(MARK):
        return  # the copy of a widget that is shown itself
    if VIEW in data:
        yield from _shown_widget(data[VIEW]["model_id"], widgets)
    elif PLOTLY in data:
        yield _html(_plotly(data[PLOTLY]))
    elif not data.get("text/plain", "").startswith("<py3Dmol.view"):
        yield output


def _shown_widget(model: str, widgets: dict[str, Any]) -> Iterator[NotebookNode]:
    widget = widgets[model.removeprefix("IPY_MODEL_")]
    name, state = widget["model_name"], widget["state"]
    if name == "AnyModel":
        yield _html(_frame(widget))
    elif name == "OutputModel":
        for output in state["outputs"]:
            yield from _shown(nbformat.from_dict(output), widgets)
    elif name == "HTMLModel" and state["value"]:
        yield _html(state["value"])
    elif name in ("VBoxModel", "HBoxModel"):
        for child in state["children"]:
            yield from _shown_widget(child, widgets)


def _html(text: str) -> NotebookNode:
    return nbformat.v4.new_output("display_data", data={"text/html": text})


def _plotly(figure: dict[str, Any]) -> str:
    # A figure that is wider than the page becomes as narrow as the page, and is not cut.
    layout = dict(figure.get("layout", {}))
    width = layout.pop("width", None)
    text = json.dumps({**figure, "layout": layout}).replace("</", "<\\/")
    name = f"figure-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    config = '{"displaylogo": false, "responsive": true}'
    style = f"height: {layout.get('height', 450)}px" + (f"; max-width: {width}px" if width else "")
    return (
        f'<div id="{name}" class="plotly-figure" style="{style}"></div><script>(() => {{ '
        f'const figure = {text}; Plotly.newPlot("{name}", figure.data, figure.layout, {config}); }})();</script>'
    )


def _frame(widget: dict[str, Any]) -> str:
    """Write the page of a widget, and return the frame that shows it."""
    state = {name: value for name, value in widget["state"].items() if not name.startswith("_")}
    content = {
        "state": state,
        "buffers": [[buffer["path"], buffer["data"]] for buffer in widget.get("buffers", [])],
        "module": widget["state"]["_esm"],
    }
    # Without a time stamp, so that the same widget gives the same page.
    packed = base64.b64encode(gzip.compress(json.dumps(content).encode(), mtime=0)).decode("ascii")
    page = _PAGE.replace("STYLE", widget["state"].get("_css", "")).replace("PACKED", packed)
    name = f"{hashlib.sha256(page.encode()).hexdigest()[:12]}.html"
    (_output_folder / FOLDER).mkdir(parents=True, exist_ok=True)
    (_output_folder / FOLDER / name).write_text(page, encoding="utf-8")
    return f'<iframe class="widget" loading="lazy" title="Interactive view" src="../{FOLDER}/{name}"></iframe>'


def _set_output_folder(app: Sphinx) -> None:
    global _output_folder
    _output_folder = Path(app.outdir)


def _add_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if page.startswith("notebooks/"):
        app.add_js_file("plotly.min.js")
        app.add_js_file("frames.js")


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Interactive view</title>
<style>body { margin: 0; background: white; } STYLE</style>
</head>
<body>
<script type="application/octet-stream" id="content">PACKED</script>
<script type="module">
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const stream = new Blob([bytes(document.getElementById("content").textContent)]).stream();
const content = await new Response(stream.pipeThrough(new DecompressionStream("gzip"))).json();
const values = content.state;
for (const [path, data] of content.buffers) {
  const last = path.pop();
  path.reduce((place, step) => place[step], values)[last] = new DataView(bytes(data).buffer);
}
const listeners = {};
const model = {
  get: (name) => values[name],
  set(name, value) {
    if (values[name] === value) return;
    values[name] = value;
    for (const call of listeners[`change:${name}`] ?? []) call();
  },
  save_changes() {},
  on: (event, call) => (listeners[event] ??= []).push(call),
  off: (event, call) => (listeners[event] = listeners[event].filter((other) => other !== call)),
};
const url = URL.createObjectURL(new Blob([content.module], { type: "text/javascript" }));
const place = document.body.appendChild(document.createElement("div"));
(await import(url)).default.render({ model, el: place });
new ResizeObserver(() => parent.postMessage({ height: place.offsetHeight }, "*")).observe(place);
</script>
</body>
</html>
"""
