"""What widgets leave in a saved notebook: one output for the widget, one for readers without a kernel."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
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


OTHERS: dict[str, Callable[[CrystalTrace], Any]] = {
    "heads": lambda trace: viz.SideBySide([trace, trace], head=[0, 3], atom=1),
    "methods": lambda trace: viz.FrameComparison({"max": trace, "again": trace}, layer=1, atom=1),
    "motifs": lambda trace: viz.MotifExplorer([trace], site=1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_so_has_a_notebook_with_other_widgets(
    perovskite_trace: CrystalTrace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    explorer = OTHERS[name](perovskite_trace)
    widget, copy = shown(explorer, monkeypatch)
    assert WIDGET in widget and not {"text/html", "image/png"} & set(widget) and WIDGET not in copy
    assert copy["text/html"].startswith(MARK) and html.escape(explorer._page()) in copy["text/html"]
    assert explorer.title in copy["text/html"] and repr(explorer) == explorer.title
    picture = Image.open(io.BytesIO(base64.b64decode(copy["image/png"])))
    assert min(picture.size) > 300 and len(picture.convert("RGB").getcolors(1 << 24) or ()) > 100


def test_a_still_picture_shows_what_each_view_has(perovskite_trace: CrystalTrace) -> None:
    views = viz.SideBySide([perovskite_trace, perovskite_trace], head=0, atom=1)
    shared = views._still()
    views.own = {"head": [0, 3]}
    assert views._still() != shared


def test_views_of_large_cells_leave_their_page_alone(
    perovskite_trace: CrystalTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("viz.side_by_side.MOST_PAINTED", 9)
    (_, copy) = shown(viz.SideBySide([perovskite_trace, perovskite_trace]), monkeypatch)
    assert set(copy) == {"text/html"} and "<iframe" in copy["text/html"] and "<img" not in copy["text/html"]


def test_the_copy_of_the_motif_explorer_says_what_surrounds_the_site(perovskite_trace: CrystalTrace) -> None:
    assert "Ti1: octahedron (O:6)" in viz.MotifExplorer([perovskite_trace], site=1)._page()


def test_the_style_of_a_live_widget_hides_its_copy(perovskite_trace: CrystalTrace) -> None:
    table = pd.DataFrame({"id": ["a", "b"], "y": [1.0, 2.0]})
    views = viz.SideBySide([perovskite_trace])
    for widget in (viz.AttentionExplorer(perovskite_trace), viz.DatasetExplorer(table), views):
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
