"""The explorer and views side by side without a mouse, for screen readers, on narrow and dark pages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pytest
from browsing import SCREENS, chosen, complaints, frames_later
from synthetic_explanations import synthetic_explanation
from synthetic_traces import perovskite, synthetic_trace

import viz

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenScene = Callable[..., AbstractContextManager["Page"]]
TRACE = synthetic_trace(perovskite())
SCENE = viz.scene_from_trace(TRACE)
EXPLORER = "document.querySelector('.cf-explorer').explorer"
EVERYTHING: dict[str, Any] = {
    "explanation": synthetic_explanation(),
    "site_values": {"charge (e)": [2, 4, -2, -2, -2]},
    "pinned": {"layer": 1, "head": 2, "atom": "O1"},
    "display": {"color": "charge"},
    "layer": 0,
    "head": 0,
    "atom": 1,
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_axe_finds_nothing(open_scene: OpenScene, scheme: Any) -> None:
    with open_scene(SCENE, **EVERYTHING) as page:
        page.emulate_media(color_scheme=scheme)
        page.locator(".cf-table summary").click()
        for width, height in SCREENS:
            page.set_viewport_size({"width": width, "height": height})
            frames_later(page, 3)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert complaints(page) == ""
        page.locator(".cf-left .cf-structure").focus()
        page.keyboard.press("?")
        assert page.get_by_role("dialog").is_visible() and complaints(page) == ""


def test_everything_by_keyboard(open_scene: OpenScene) -> None:
    """Each control is reached by Tab and does what it says."""
    options = {**EVERYTHING, "pinned": None, "display": None}
    with open_scene(SCENE, **options) as page:
        page.locator(".cf-board").scroll_into_view_if_needed()
        page.wait_for_function(f"{EXPLORER}.board.isDrawn")
        page.evaluate("window.scrollTo(0, 0)")

        def state(name: str) -> Any:
            return page.evaluate(f"{EXPLORER}.model.get('{name}')")

        def display(name: str) -> Any:
            return page.evaluate(f"({EXPLORER}.model.get('display') ?? {{}}).{name}")

        used: set[str] = set()

        def tab_to(name: str) -> None:
            for _ in range(80):
                focused = page.evaluate(
                    "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
                )
                if focused.startswith(name):
                    used.add(focused)
                    return
                page.keyboard.press("Tab")
            raise AssertionError(f"Tab does not reach {name}")

        def press(name: str, *keys: str) -> None:
            tab_to(name)
            for key in keys:
                page.keyboard.press(key)
            frames_later(page)

        press("What lines and heatmap show", "ArrowDown")
        assert state("mode") == "relevance"
        press("What lines and heatmap show", "ArrowUp")
        press("Layer", "ArrowRight", "ArrowRight")
        assert state("layer") == 2
        press("Play through the layers", "Space", "Space")
        press("Head", "ArrowRight")
        assert state("head") == 1
        press("Play through the heads", "Space", "Space")
        press("Mean over heads", "Space")
        assert state("head") is None
        press("Mean over heads", "Space")
        press("Atom whose attention is shown", "ArrowDown")
        assert state("atom") == 2
        press("Atoms whose frames are drawn", "ArrowDown")
        assert state("frames") == "selected"
        press("Atoms around which polyhedra are drawn", "End")
        assert state("polyhedra") == "none"
        press("Number of attention lines", "ArrowUp", "Tab")
        assert state("n_lines") == 13
        press("Scale of heatmap and lines", "ArrowDown")
        assert display("scale") == "fixed"
        tab_to("Crystal structure")
        before = page.evaluate(f"{EXPLORER}.structure().view()")
        for key in ("Shift+ArrowLeft", "+", "a", "f", "u"):
            page.keyboard.press(key)
        assert page.evaluate(f"{EXPLORER}.structure().view()") != before
        page.keyboard.press("m")
        page.keyboard.press("n")
        frames_later(page)
        page.keyboard.press("m")
        assert page.locator(".cf-measure").inner_text().endswith("Å")
        page.keyboard.press("Escape")
        for name in (
            "Show the whole crystal",
            "Look along a",
            "Look along b",
            "Look along c",
            "Fly to",
            "The view before",
        ):
            press(name, "Enter")
        press("Pin this layer", "Enter")
        page.locator(".cf-pinned .cf-structure").wait_for()
        press("Keys and meanings", "Enter")
        assert page.get_by_role("dialog").is_visible()
        page.keyboard.press("Escape")
        for name, key in (("bonds", "bonds"), ("cell", "edges"), ("images", "images"), ("labels", "labels")):
            press(name, "Space")
            assert display(key) is False
        press("Cell that is drawn", "ArrowDown")
        press("What colours the atoms", "ArrowDown")
        assert display("color") == "charge"
        saves = {
            "structure as a PNG": "png",
            "structure as an SVG": "svg",
            "attention lines": "csv",
            "crystal (": "cif",
        }
        for what, ending in saves.items():
            with page.expect_download() as download:
                press(f"Save the {what}", "Enter")
            assert download.value.suggested_filename.endswith(ending)
        press("Show O", "Enter")
        assert display("hidden") == ["O"]
        press("Exchange the two views", "Enter")
        press("Take the pinned view away", "Enter")
        assert state("pinned") == {}
        press("Attention from query atoms", "ArrowUp")
        press("Layer 2, head", "ArrowUp")
        assert state("layer") == 1
        tab_to("Attention lines as a table")
        page.keyboard.press("Enter")
        page.locator(".cf-table tbody tr").first.wait_for()
        assert len(used) > 35


def test_colours_stay_where_the_system_chooses_the_others(open_scene: OpenScene) -> None:
    with open_scene(SCENE) as page:
        color = page.locator(".cf-ball").first.evaluate("(mark) => getComputedStyle(mark).backgroundColor")
        page.emulate_media(forced_colors="active")
        frames_later(page)
        assert page.locator(".cf-ball").first.evaluate("(mark) => getComputedStyle(mark).backgroundColor") == color
        assert page.locator(".cf-element").first.evaluate("(mark) => getComputedStyle(mark).outlineStyle") == "solid"


def test_the_same_without_webgl_shows_a_flat_picture(open_scene: OpenScene) -> None:
    """The next best picture: lines, axes and neighbours of the atom on a canvas, which follows the sliders."""
    with open_scene(SCENE, layer=0, head=0, atom=1) as page:
        page.add_init_script("OffscreenCanvas.prototype.getContext = () => null;")
        page.reload()
        page.get_by_text("offers no WebGL").wait_for()
        frames_later(page, 3)
        draw = "document.querySelector('.cf-flat').toDataURL()"
        before = page.evaluate(draw)
        page.get_by_label("Head", exact=True).fill("2")
        frames_later(page)
        assert len(before) > 5000 and page.evaluate(draw) != before and chosen(page, EXPLORER)["head"] == 2
        page.locator(".cf-board").scroll_into_view_if_needed()
        page.wait_for_function(f"{EXPLORER}.board.isDrawn")
        assert complaints(page) == ""
