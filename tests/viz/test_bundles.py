"""The scripts of the widgets keep to what VS Code, Colab and marimo allow.

These programs run a widget in a frame of another origin, with a policy that forbids the network, or under a shadow
root. anywidget gives them the script as text.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from synthetic_traces import perovskite, synthetic_trace

import viz
from viz.explorer_page import ENTRIES, FRONTEND

WIDGETS = (viz.AttentionExplorer, viz.SideBySide, viz.FrameComparison, viz.DatasetExplorer)
MODULES = sorted(FRONTEND.glob("*.js"))
MOST = 1_500_000
"""Characters of a script: Colab and VS Code send it with each widget."""
FORBIDDEN = {
    "another module": r"\bimport\s*\(|^\s*import\b(?!\.meta).*\bfrom\b|^\s*export\b(?! default).*\bfrom\b",
    "the window around the frame": r"\b(window\s*\.\s*(parent|top|opener)|parent\s*\.\s*postMessage)\b",
    "storage, which a frame of another origin has not": r"\b(localStorage|sessionStorage|indexedDB|document\.cookie)\b",
    "code from text": r"\beval\s*\(|\bnew\s+Function\b",
    "the network": r"\bfetch\s*\(|\bXMLHttpRequest\b|\bWebSocket\b|\bimportScripts\b|\bnew\s+Worker\b|https?://(?!www\.w3\.org)",
    "its own address": r"\bimport\.meta\b|\bdocument\.currentScript\b|\blocation\.(href|origin|search)\b",
    "elements outside its own": r"\bdocument\s*\.\s*(querySelector|getElementsBy)",
}


@pytest.mark.parametrize("widget", WIDGETS, ids=lambda widget: widget.__name__)
def test_a_widget_is_one_module_that_asks_for_no_other(widget: Any) -> None:
    script = str(widget._esm)
    assert len(script) < MOST
    assert len(re.findall(r"^export ", script, flags=re.MULTILINE)) == 1
    assert re.search(r"^export default \{ ?render\b", script, flags=re.MULTILINE)
    assert re.search(FORBIDDEN["another module"], script, flags=re.MULTILINE) is None
    assert "@import" not in str(widget._css) and "url(" not in str(widget._css)


@pytest.mark.parametrize("what", FORBIDDEN)
def test_modules_of_the_front_end_stay_inside_their_frame(what: str) -> None:
    """Modules import each other by name; putting them together removes that."""
    for path in MODULES:
        source = re.sub(
            r'^import \{[^}]*\} from "\./\w+\.js";$', "", path.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        found = re.search(FORBIDDEN[what], re.sub(r"//.*$", "", source, flags=re.MULTILINE), flags=re.MULTILINE)
        assert found is None, (path.name, found)


def test_traits_are_json_or_bytes() -> None:
    """What a widget sends is understood by every program: no NaN, no objects of Python."""
    explorer = viz.AttentionExplorer(synthetic_trace(perovskite()))
    state = {name: value for name, value in explorer.get_state().items() if not isinstance(value, bytes)}
    assert "header" in state and "data" not in state
    json.dumps(state, allow_nan=False)


def test_the_modules_are_those_of_the_widgets() -> None:
    assert {path.name for path in MODULES} >= set(ENTRIES)
