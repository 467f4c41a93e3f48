"""A browser without a network, whose errors fail the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

# Software WebGL, and no network traffic of the browser itself.
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCREENS = ((1280, 800), (800, 600), (360, 740))
"""Width and height: a laptop, a half of a screen, a phone."""
REQUIRED = "CRYSTALFRAMER_REQUIRE_BROWSER"
LOCAL = ("file:", "blob:", "data:", "http://127.0.0.1:", "ws://127.0.0.1:")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium of this machine. Without one the test is skipped, or fails if `REQUIRED` is set to 1."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        _missing("no Chromium; on Debian: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("no playwright; pip install -e .[dev]")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()


def _missing(what: str) -> NoReturn:
    stop = pytest.fail if os.environ.get(REQUIRED) == "1" else pytest.skip
    stop(f"browser tests: {what}")


@contextmanager
def open_page(
    browser: Browser, width: int = 1100, height: int = 850, ignored: Sequence[str] = (), **options: Any
) -> Iterator[Page]:
    """A page that may only connect to this machine. Any other request, or an error in its console, fails the test.

    Args:
        ignored: parts of errors that the program around our widgets makes by itself.
        options: of the context of the browser, such as `has_touch`.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
    context.set_default_timeout(300_000)  # on a busy machine everything takes longer
    page = context.new_page()
    complaints: list[str] = []

    def note_request(request: Request) -> None:
        if not request.url.startswith(LOCAL):
            complaints.append(f"request {request.url}")

    def note_console(said: ConsoleMessage) -> None:
        if said.type == "error":
            complaints.append(f"console: {said.text}")

    context.route(lambda url: not url.startswith(LOCAL), lambda route: route.abort())
    page.on("request", note_request)
    page.on("console", note_console)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    yield page
    context.close()
    complaints = [said for said in complaints if not any(part in said for part in ignored)]
    assert complaints == [], complaints


def frames_later(page: Page, n: int = 2) -> None:
    """Wait until the browser has drawn what was asked for."""
    page.evaluate("async (n) => { for (; n; n--) await new Promise(requestAnimationFrame); }", n)


def chosen(page: Page, widget: str) -> dict[str, Any]:
    """Layer, head and atom of a widget (a JavaScript expression)."""
    return page.evaluate(f"Object.fromEntries(['layer', 'head', 'atom'].map((k) => [k, {widget}.model.get(k)]))")


def complaints(page: Page) -> str:
    """What axe finds on a page, of any severity."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe; pip install -e .[dev]")
    found = axe.Axe().run(page)
    return found.generate_report() if found.violations_count else ""
