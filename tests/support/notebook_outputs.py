"""What no output of an executed notebook may contain: nan, inf, empty boxes, empty figures, text over text."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import plotly
import pytest
from browsing import chromium, open_page
from nbformat import NotebookNode
from overlaps import overlaps, texts_of_page

from viz.saved_outputs import MARK

PLOTLY = "application/vnd.plotly.v1+json"
WIDGETS = "application/vnd.jupyter.widget-state+json"
NOT_A_NUMBER = re.compile(r"(?<![\w.])(?:nan|NaN|NaT|<NA>|inf|Infinity|∞)(?!\w)")
TEXTS = ("text/markdown", "text/html", "text/plain")
SCRIPT = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
WIDTH = 800
"""Pixels of a figure that has no width of its own, as in a notebook on a small screen."""


def complaints(notebook: NotebookNode) -> list[str]:
    """What is wrong with the outputs of an executed notebook, a line for each fault."""
    found = [f"{where}: {word!r} in {text!r}" for where, text in _texts(notebook) for word in _not_numbers(text)]
    figures = list(_figures(notebook))
    found += [f"{where}: {fault}" for where, figure in figures for fault in faults_of_figure(figure)]
    found += [f"{where}: {fault}" for where, fault in _overlaps(figures)]
    return found + _conclusion(notebook)


def faults_of_figure(figure: dict[str, Any]) -> list[str]:
    """What is wrong with the data and the words of a plotly figure."""
    words = json.dumps({"layout": figure["layout"], "names": [part.get("name") for part in figure["data"]]})
    found = [f"{word!r} in its words" for word in _not_numbers(words.replace("\\u221e", "∞"))]
    if not figure["data"]:
        return [*found, "a figure without data"]
    for part in figure["data"]:
        if not _finite(part.get("z", part.get("y", part.get("x", ())))).any():
            found.append(f"{part['type']} {part.get('name', '')!r} without a number")
        elif part["type"] == "box" and (empty := _empty_boxes(part, figure["data"])):
            found.append(f"empty boxes at {sorted(empty)}")
    return found


def _empty_boxes(box: dict[str, Any], data: list[dict[str, Any]]) -> set[str]:
    """The places of a box trace at which nothing is drawn: no number of its own, and no point of another trace."""
    if "x" not in box:
        return set()
    drawn = {place for part in (box, *data) if part.get("mode") != "lines" for place in _places(part, finite=True)}
    return _places(box) - drawn


def _places(part: dict[str, Any], finite: bool = False) -> set[str]:
    x = part.get("x")
    if x is None:
        return set()
    levels = x if isinstance(x, list) and x and isinstance(x[0], list) else [_decoded(x)]
    places = [" ".join(map(str, place)) for place in zip(*levels, strict=True)]
    kept = _finite(part["y"]) if finite else [True] * len(places)
    return {place for place, is_kept in zip(places, kept, strict=True) if is_kept}


def _decoded(values: Any) -> Any:
    """Numbers as plotly writes them: a list, or bytes in base64."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
    return values


def _finite(values: Any) -> np.ndarray:
    flat = np.ravel(np.array(_decoded(values), dtype=object))
    return np.array([not isinstance(x, (int, float, type(None))) or (x is not None and np.isfinite(x)) for x in flat])


def _not_numbers(text: str) -> list[str]:
    return sorted(set(NOT_A_NUMBER.findall(text)))


def _conclusion(notebook: NotebookNode) -> list[str]:
    """The cell after the heading `Conclusion` must give text that is set, not printed."""
    for heading, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if heading.source.startswith("## Conclusion"):
            is_set = [set(output.get("data", {})) >= {"text/markdown"} for output in cell.get("outputs", ())]
            return [] if is_set == [True] else ["the conclusion is no Markdown output"]
    return ["there is no conclusion"]


def _outputs(notebook: NotebookNode) -> Iterator[tuple[str, dict[str, Any]]]:
    """All outputs, those within widgets too, and the place of each."""
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            yield f"cell {number}", output
    for widget in notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {}).values():
        for output in widget["state"].get("outputs", ()):
            yield "a widget", output
        if widget["model_name"] == "HTMLModel":
            yield "a widget", {"data": {"text/html": widget["state"]["value"]}}


def _texts(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    for where, output in _outputs(notebook):
        if "text" in output:
            yield where, output["text"]
        data = output.get("data", {})
        # A table is there as HTML and as text; a py3Dmol view is HTML that holds a script.
        for kind in TEXTS:
            if kind in data and "<script" not in data[kind] and not data[kind].startswith(MARK):
                yield from ((where, line) for line in data[kind].splitlines())
                break


def _figures(notebook: NotebookNode) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((where, output["data"][PLOTLY]) for where, output in _outputs(notebook) if PLOTLY in output.get("data", {}))


def _overlaps(figures: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, str]]:
    """Texts of plotly figures that lie over each other, if there is a browser to draw them."""
    found = []
    try:
        with chromium() as browser, open_page(browser, WIDTH + 50) as page:
            page.set_content(f"<div id='figure' style='width: {WIDTH}px'></div>")
            page.add_script_tag(path=SCRIPT)
            for where, figure in figures:
                page.evaluate("({ data, layout }) => Plotly.newPlot('figure', data, layout)", figure)
                found += [(where, fault) for fault in overlaps(texts_of_page(page))]
    except pytest.skip.Exception:
        return []
    return found


def read(path: Path) -> NotebookNode:
    """An executed notebook."""
    return nbformat.read(path, as_version=4)
