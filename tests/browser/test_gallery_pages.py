"""Pages of the gallery in a browser: they fit, and axe finds nothing."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browsing import SCREENS, complaints, frames_later, open_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
SHOWN = ("BaTiO3", "graphite", "FeS2")
"""With polyhedra, with layers, and with pairs of atoms."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs/_ext")
        gallery = importlib.import_module("gallery")
        folder = tmp_path_factory.mktemp("gallery")
        gallery.write_pages(folder, [crystal for crystal in gallery.crystals() if crystal.file in SHOWN])
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SHOWN)
def test_a_page_fits_and_axe_finds_nothing(browser: Browser, pages: Path, name: str, scheme: Any) -> None:
    with open_page(browser) as page:
        page.emulate_media(color_scheme=scheme)
        page.goto((pages / f"{name}.html").as_uri())
        page.locator(".cf-structure canvas").wait_for()
        for width, height in SCREENS:
            page.set_viewport_size({"width": width, "height": height})
            frames_later(page, 3)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert complaints(page) == ""
