"""The page on a telephone: what fingers do to the crystal, and to the page around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browsing import chosen, frames_later
from synthetic_traces import perovskite, synthetic_trace

import viz

if TYPE_CHECKING:
    from playwright.sync_api import Page

EXPLORER = "document.querySelector('.cf-explorer').explorer"
VIEW = f"{EXPLORER}.structure()"
SCENE = viz.scene_from_trace(synthetic_trace(perovskite()))
Point = tuple[float, float]
OpenScene = Callable[..., AbstractContextManager["Page"]]


@pytest.fixture
def open_phone(open_scene: OpenScene) -> OpenScene:
    """`with open_phone(360, 740) as page`: a page on a telephone, with the picture below some of the page."""

    @contextmanager
    def opened(width: int, height: int) -> Iterator[Page]:
        with open_scene(SCENE, width=width, height=height, is_phone=True, atom=1) as page:
            page.evaluate("window.scrollTo(0, document.querySelector('.cf-structure').getBoundingClientRect().y - 60)")
            frames_later(page, 3)
            yield page

    return opened


def move_fingers(page: Page, starts: list[Point], ends: list[Point], steps: int = 8) -> None:
    """Put fingers down, move them along straight lines, and lift them."""
    session = page.context.new_cdp_session(page)

    def send(kind: str, points: Any = ()) -> None:
        found = [{"x": float(x), "y": float(y), "id": number} for number, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": found})
        frames_later(page, 1)

    send("touchStart", starts)
    for step in range(1, steps + 1):
        send("touchMove", np.array(starts) + step / steps * (np.array(ends) - np.array(starts)))
    send("touchEnd")
    frames_later(page, 3)


def box_of(page: Page, selector: str = ".cf-structure") -> dict[str, Any]:
    box = page.locator(selector).bounding_box()
    assert box is not None
    return dict(box) | {"middle": box["x"] + box["width"] / 2, "center": box["y"] + box["height"] / 2}


def test_one_finger_turns_the_crystal_as_the_mouse_does(open_phone: OpenScene) -> None:
    with open_phone(360, 740) as page:
        box = box_of(page)
        start, end = (box["middle"] - 50, box["center"]), (box["middle"] + 50, box["center"] + 30)
        first = page.evaluate(f"{VIEW}.view()")
        move_fingers(page, [start], [end])
        by_finger = page.evaluate(f"{VIEW}.view()")
        assert not np.allclose(by_finger[4:], first[4:], atol=0.05)
        page.evaluate(f"{VIEW}.reset()")
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(*end, steps=8)
        page.mouse.up()
        np.testing.assert_allclose(page.evaluate(f"{VIEW}.view()"), by_finger, atol=0.01)
        assert page.evaluate("scrollY") > 0 and box_of(page) == box


def test_two_fingers_zoom_by_as_much_as_they_part_and_choose_nothing(open_phone: OpenScene) -> None:
    with open_phone(360, 740) as page:
        box = box_of(page)
        middle = (box["middle"], box["center"])
        scale, turned = page.evaluate(f"{VIEW}.scale"), page.evaluate(f"{VIEW}.view()")[4:]

        def around(half: float, x: float = 0, y: float = 0) -> list[Point]:
            return [(middle[0] - half + x, middle[1] + y), (middle[0] + half + x, middle[1] + y)]

        move_fingers(page, around(40), around(80))
        assert page.evaluate(f"{VIEW}.scale") == pytest.approx(2 * scale, rel=0.02)
        move_fingers(page, around(120), around(60))
        assert page.evaluate(f"{VIEW}.scale") == pytest.approx(scale, rel=0.02)
        # They take the crystal along.
        before = page.evaluate(f"{VIEW}.pixelOf(1)")
        move_fingers(page, around(60), around(60, 40, -30))
        after = page.evaluate(f"{VIEW}.pixelOf(1)")
        assert (after["x"] - before["x"], after["y"] - before["y"]) == pytest.approx((40, -30), abs=3)
        np.testing.assert_allclose(page.evaluate(f"{VIEW}.view()")[4:], turned, atol=1e-6)
        assert chosen(page, EXPLORER)["atom"] == 1
        page.get_by_role("button", name="The view before the last change").tap()
        assert page.evaluate(f"{VIEW}.pixelOf(1)") == pytest.approx(before, abs=1)


def test_a_tap_chooses_an_atom_and_tells_its_numbers(open_phone: OpenScene) -> None:
    with open_phone(360, 740) as page:
        front = max(page.evaluate(f"{VIEW}.layout()")["balls"], key=lambda ball: ball["at"][2])
        at = page.evaluate(f"{VIEW}.pixelOf({front['site']}, {front['image']})")
        page.touchscreen.tap(at["x"], at["y"])
        frames_later(page, 3)
        assert chosen(page, EXPLORER)["atom"] == front["site"] != 1
        assert SCENE.labels[front["site"]] in page.locator(".cf-tip").inner_text()
        page.locator(".cf-title").tap()
        assert page.locator(".cf-tip").is_hidden()


def test_taps_measure_once_the_button_is_pressed(open_phone: OpenScene) -> None:
    with open_phone(360, 740) as page:
        button = page.get_by_role("button", name="Measure by clicks on atoms")
        button.tap()
        page.evaluate("document.querySelector('.cf-structure').scrollIntoView({ block: 'center' })")
        balls = sorted(page.evaluate(f"{VIEW}.layout()")["balls"], key=lambda ball: -ball["at"][2])[:2]
        for ball in balls:
            at = page.evaluate(f"{VIEW}.pixelOf({ball['site']}, {ball['image']})")
            page.touchscreen.tap(at["x"], at["y"])
        a, b = (SCENE.positions[ball["site"]] + np.array(ball["image"]) @ SCENE.lattice for ball in balls)
        said = page.locator(".cf-measure")
        assert said.inner_text().endswith(f"{np.linalg.norm(a - b):.3f} Å")
        assert chosen(page, EXPLORER)["atom"] == 1
        button.tap()
        assert said.is_hidden() and button.get_attribute("aria-pressed") == "false"


@pytest.mark.parametrize(("width", "height"), [(360, 740), (740, 360)], ids=["upright", "on its side"])
def test_a_finger_beside_the_picture_scrolls_the_page(open_phone: OpenScene, width: int, height: int) -> None:
    with open_phone(width, height) as page:
        # Wherever the picture is, something of the page is beside it.
        assert box_of(page)["height"] <= 0.8 * height + 1
        page.evaluate("document.querySelector('.cf-structure').scrollIntoView({ block: 'end' })")
        frames_later(page, 3)
        box, before = box_of(page), page.evaluate("scrollY")
        view = page.evaluate(f"{VIEW}.view()")
        above = box["y"] - 10
        move_fingers(page, [(box["middle"], above)], [(box["middle"], above - 50)])
        page.wait_for_function("(before) => scrollY > before + 20", arg=before)
        assert page.evaluate(f"{VIEW}.view()") == view
