"""What widgets leave in a saved notebook: one output for the widget, one for readers without a kernel."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import pandas as pd
import pytest
from PIL import Image

import viz
from crystalframer.traces import CrystalTrace
from viz.saved_outputs import MARK, MOST_SAVED

WIDGET = "application/vnd.jupyter.widget-view+json"


def shown(widget: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The outputs of a cell that ends with the widget."""
    outputs: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.publish_display_data", lambda data, metadata=None: outputs.append(data))
    widget._ipython_display_()
    return outputs


def test_a_notebook_has_the_widget_and_a_copy_of_it(
    perovskite_trace: CrystalTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer = viz.AttentionExplorer(perovskite_trace, layer=1)
    widget, copy = shown(explorer, monkeypatch)
    assert widget[WIDGET]["model_id"] == explorer.model_id and not {"text/html", "image/png"} & set(widget)
    assert WIDGET not in copy and copy["text/html"].startswith(MARK)
    assert html.escape(explorer.to_html()) in copy["text/html"]
    picture = Image.open(io.BytesIO(base64.b64decode(copy["image/png"])))
    assert min(picture.size) > 300 and len(picture.convert("RGB").getcolors(1 << 24) or ()) > 100
    assert copy["image/png"] in copy["text/html"]


def test_the_style_of_a_live_widget_hides_its_copy(perovskite_trace: CrystalTrace) -> None:
    table = pd.DataFrame({"id": ["a", "b"], "y": [1.0, 2.0]})
    for widget in (viz.AttentionExplorer(perovskite_trace), viz.DatasetExplorer(table)):
        assert ":has(.cf-explorer) .cf-saved" in widget._css


def test_what_is_too_large_is_left_out(perovskite_trace: CrystalTrace, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = viz.AttentionExplorer(perovskite_trace)
    monkeypatch.setattr(explorer, "to_html", lambda: "x" * (MOST_SAVED + 1))
    assert "<iframe" not in shown(explorer, monkeypatch)[1]["text/html"]
    monkeypatch.setattr("viz.explorer.MOST_PAINTED", 4)
    assert len(shown(explorer, monkeypatch)) == 1


def test_programs_that_show_one_output_get_all_of_it(perovskite_trace: CrystalTrace) -> None:
    data, _ = viz.AttentionExplorer(perovskite_trace)._repr_mimebundle_()
    assert {WIDGET, "text/html", "image/png"} <= set(data)
