"""One browser for the tests of a module, closed before others run.

They need Chromium and playwright (see tests/support/browsing.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browsing import chromium, open_page

from viz import Scene, explorer_html

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DRAWN = (
    "document.querySelector('.cf-explorer')?.explorer.structure() && document.querySelector('.cf-caption').textContent"
)

OpenScene = Callable[..., AbstractContextManager["Page"]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def open_scene(browser: Browser, tmp_path: Path) -> OpenScene:
    """`with open_scene(scene, layer=1, width=1100) as page`: the exported page from disk, drawn, the network off.

    A telephone has fingers instead of a mouse.
    """

    @contextmanager
    def opened(
        scene: Scene, *, width: int = 1100, height: int = 850, is_phone: bool = False, **options: Any
    ) -> Iterator[Page]:
        path = tmp_path / "explorer.html"
        path.write_text(explorer_html(scene, **options), encoding="utf-8")
        with open_page(browser, width, height, has_touch=is_phone, is_mobile=is_phone) as page:
            page.context.set_offline(True)
            page.goto(path.as_uri())
            page.wait_for_function(DRAWN)
            yield page

    return opened
