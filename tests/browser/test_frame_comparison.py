"""The comparison of frame methods in a browser: all pictures follow sliders, keys and the mouse."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browsing import SCREENS, chosen, complaints, frames_later, open_page
from PIL import Image
from synthetic_traces import perovskite, synthetic_trace

from crystalframer.testing import random_crystal
from viz import FrameComparison, SideBySide

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

METHODS = ("max", "weighted-pca", "none")
COMPARISON = "document.querySelector('.cf-comparison').comparison"
DRAWN = (
    "document.querySelector('.cf-comparison')?.comparison.structures().length && "
    "document.querySelector('.cf-caption').textContent"
)


@pytest.fixture(scope="module")
def comparison() -> FrameComparison:
    traces = {name: synthetic_trace(perovskite(), name, seed=seed) for seed, name in enumerate(METHODS)}
    return FrameComparison(traces, atom=1)


@contextmanager
def shown(browser: Browser, views: SideBySide, folder: Path, width: int = 1100) -> Iterator[Page]:
    views.to_html(folder / "views.html")
    with open_page(browser, width) as opened:
        opened.context.set_offline(True)
        opened.goto((folder / "views.html").as_uri())
        opened.wait_for_function(DRAWN)
        yield opened


@pytest.fixture
def page(browser: Browser, comparison: FrameComparison, tmp_path: Path) -> Iterator[Page]:
    with shown(browser, comparison, tmp_path) as opened:
        yield opened


def pictures(page: Page) -> list[bytes]:
    frames_later(page)
    return [panel.screenshot() for panel in page.locator(".cf-structure").all()]


def test_a_picture_for_each_method(page: Page) -> None:
    assert page.locator(".cf-panel .cf-subtitle").all_inner_texts() == list(METHODS)
    assert "no frames" in page.locator(".cf-caption").last.inner_text()
    assert len(set(pictures(page))) == len(METHODS)


@pytest.mark.parametrize("name", ["Layer", "Head"])
def test_a_slider_redraws_every_picture(page: Page, name: str) -> None:
    before = pictures(page)
    page.get_by_role("slider", name=name, exact=True).fill("2")
    assert all(a != b for a, b in zip(before, pictures(page), strict=True))


def test_keys_and_the_list_of_atoms(page: Page) -> None:
    picture = page.locator(".cf-structure").nth(1)
    picture.focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowRight"):
        picture.press(key)
    assert chosen(page, COMPARISON) == {"layer": 2, "head": 1, "atom": 1}
    before = pictures(page)
    page.get_by_role("combobox", name="Atom").select_option("O2")
    assert chosen(page, COMPARISON)["atom"] == 3
    assert all(a != b for a, b in zip(before, pictures(page), strict=True))


def test_all_turn_with_the_one_that_is_turned(page: Page) -> None:
    views = f"{COMPARISON}.structures().map((structure) => structure.view())"
    before = page.evaluate(views)
    box = page.locator(".cf-structure").nth(2).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 90, steps=3)
    page.mouse.up()
    after = page.evaluate(views)
    assert not np.allclose(before[0], after[0])
    for view in after:
        np.testing.assert_allclose(view, after[0])


def test_every_control_has_a_name(page: Page) -> None:
    controls = page.locator("input, select, button, [tabindex]").all()
    names = [control.get_attribute("aria-label") for control in controls if control.is_visible()]
    assert len(names) == 6 + len(METHODS) and all(names) and len(set(names)) == len(names)


def test_each_view_gets_its_own_head_and_gives_it_up(page: Page) -> None:
    page.get_by_label("same head").uncheck()
    frames_later(page)
    assert page.get_by_role("slider", name="Head", exact=True).count() == 0
    before = pictures(page)
    page.get_by_role("slider", name="Head of none").fill("3")
    after = pictures(page)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]
    assert page.evaluate(f"{COMPARISON}.model.get('own')") == {"head": [0, 0, 3]}
    page.get_by_label("same head").check()
    frames_later(page)
    assert page.evaluate(f"{COMPARISON}.model.get('own')") == {}
    assert page.get_by_role("slider", name="Head", exact=True).input_value() == "0"


def test_two_structures_turn_and_zoom_by_as_much(browser: Browser, tmp_path: Path) -> None:
    """A cell and another one of twice the volume: both turn alike, and each is zoomed by the same factor."""
    traces = {"one": synthetic_trace(perovskite()), "two": synthetic_trace(random_crystal(0, 10))}
    with shown(browser, SideBySide(traces), tmp_path) as page:
        frames_later(page, 4)
        state = f"{COMPARISON}.structures().map((one) => [one.scale, ...one.rows.flat()])"
        before = np.array(page.evaluate(state))
        page.evaluate(f"{COMPARISON}.structures()[0].turn(30, 10); {COMPARISON}.structures()[0].zoom(1.5)")
        frames_later(page, 4)
        after = np.array(page.evaluate(state))
        np.testing.assert_allclose(after[0, 1:], after[1, 1:], atol=1e-4)
        assert not np.allclose(after[0, 1:], before[0, 1:], atol=0.1)
        np.testing.assert_allclose(after[:, 0] / before[:, 0], 1.5, rtol=1e-3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_axe_finds_nothing(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    frames_later(page, 3)
    for picture in pictures(page):
        paper = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))[8, 8]
        assert paper == 255 if scheme == "light" else paper < 50
    page.get_by_label("same head").uncheck()
    for width, height in SCREENS:
        page.set_viewport_size({"width": width, "height": height})
        frames_later(page, 3)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert complaints(page) == ""
