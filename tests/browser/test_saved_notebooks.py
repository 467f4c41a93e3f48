"""Notebooks as pages and on paper, without a kernel: the live page, and the picture."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browsing import open_page
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output
from synthetic_traces import perovskite, synthetic_trace

import viz
from crystalframer.traces import CrystalTrace

if TYPE_CHECKING:
    from playwright.sync_api import Browser

N_COLORS = """async (picture) => {
    if (picture.decode) await picture.decode();
    const copy = document.createElement("canvas");
    [copy.width, copy.height] = [picture.naturalWidth ?? picture.width, picture.naturalHeight ?? picture.height];
    const pen = copy.getContext("2d");
    pen.drawImage(picture, 0, 0);
    return new Set(new Uint32Array(pen.getImageData(0, 0, copy.width, copy.height).data.buffer)).size;
}"""


@pytest.fixture
def page_of_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return converted(viz.AttentionExplorer(synthetic_trace(perovskite())), tmp_path, monkeypatch)


def converted(widget: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `jupyter nbconvert --to html` makes of a notebook that shows a widget."""
    outputs: list[Any] = []

    def noted(data: dict[str, Any], metadata: Any = None) -> None:
        outputs.append(new_output("display_data", data=data))

    monkeypatch.setattr("IPython.display.publish_display_data", noted)
    widget._ipython_display_()
    notebook = new_notebook(cells=[new_code_cell("explorer", outputs=outputs)])
    # Scripts that nbconvert itself takes from the network; nothing here needs them.
    page, _ = HTMLExporter(require_js_url="", mathjax_url="", jquery_url="").from_notebook_node(notebook)
    path = tmp_path / "notebook.html"
    path.write_text(page, encoding="utf-8")
    return path


def test_as_a_page_the_explorer_is_live(browser: Browser, page_of_notebook: Path) -> None:
    with open_page(browser, 1200, 1200) as page:
        page.goto(page_of_notebook.as_uri())
        explorer = page.frame_locator(".cf-saved iframe")
        explorer.locator(".cf-structure canvas").wait_for()
        explorer.get_by_role("slider", name="Layer", exact=True).fill("2")
        explorer.locator(".cf-caption", has_text="layer 2").wait_for()
        assert page.locator(".cf-saved img").is_hidden()
        assert page.get_by_text("object at 0x").count() == 0


WIDGETS: dict[str, tuple[Callable[[CrystalTrace], Any], int]] = {
    "views": (lambda trace: viz.SideBySide([trace, trace], head=[0, 3]), 2),
    "motifs": (lambda trace: viz.MotifExplorer([trace], site=1), 1),
}
"""Each with its number of pictures."""


@pytest.mark.parametrize("name", WIDGETS)
def test_others_are_live_too(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make, n_pictures = WIDGETS[name]
    with open_page(browser, 1200, 1200) as page:
        page.goto(converted(make(synthetic_trace(perovskite())), tmp_path, monkeypatch).as_uri())
        copy = page.frame_locator(".cf-saved iframe")
        copy.locator(".cf-structure canvas").last.wait_for()
        n_colors = [canvas.evaluate(N_COLORS) for canvas in copy.locator(".cf-structure canvas").all()]
        assert len(n_colors) == n_pictures and min(n_colors) > 10
        assert page.locator(".cf-saved img").is_hidden()


def test_on_paper_there_is_the_picture(browser: Browser, page_of_notebook: Path) -> None:
    with open_page(browser, 1200, 1200) as page:
        page.goto(page_of_notebook.as_uri())
        page.frame_locator(".cf-saved iframe").locator(".cf-structure canvas").wait_for()
        page.emulate_media(media="print")
        picture = page.locator(".cf-saved img")
        assert picture.is_visible() and page.locator(".cf-saved iframe").is_hidden()
        assert picture.evaluate(N_COLORS) > 100
        width = picture.evaluate("(image) => image.naturalWidth")
        paper = page.pdf()
        images = re.findall(rb"/Subtype\s*/Image.*?/Width (\d+)", paper, flags=re.DOTALL)
        assert str(width).encode() in images
