"""The scene of crystal-toolkit, drawn by its own component without a network: the picture is there."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browsing import open_page
from PIL import Image
from synthetic_traces import perovskite, synthetic_trace

import viz

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SECONDS = 300
"""A busy machine takes its time to draw."""
# In a process of its own: the import of crystal-toolkit takes 10 s and changes pymatgen.
MAKE = """
import sys
import viz
from crystalframer.traces import CrystalTrace

scene = viz.scene_from_trace(CrystalTrace.load(sys.argv[1]))
made = viz.toolkit_scene(scene, 0, 1, 1, polyhedra="all")
with open(sys.argv[2], "w", encoding="utf-8") as file:
    file.write("<!doctype html>" + made._repr_mimebundle_()["text/html"])
"""


def test_a_notebook_shows_the_scene(browser: Browser, tmp_path: Path) -> None:
    if importlib.util.find_spec("crystal_toolkit") is None:
        pytest.skip("crystal-toolkit is not installed: pip install 'crystalframer[crystal-toolkit]'")
    trace = synthetic_trace(perovskite())
    page_of_cell = tmp_path / "cell.html"
    command = [sys.executable, "-c", MAKE, str(trace.save(tmp_path / "trace.safetensors")), str(page_of_cell)]
    subprocess.run(command, check=True, cwd=tmp_path)
    with open_page(browser) as page:
        page.goto(page_of_cell.as_uri())
        canvas = page.frame_locator("iframe").locator("canvas")
        canvas.wait_for()
        found: set[Any] = set()
        deadline = time.monotonic() + SECONDS
        while len(found) < 300:  # shaded balls, arrows and lines; the empty canvas has one colour
            assert time.monotonic() < deadline, f"{len(found)} colours"
            picture = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
            found = {color for _, color in picture.getcolors(2**24) or []}
        # Strontium is green, oxygen red.
        for symbol in ("Sr", "O"):
            color = next(item.color for item in viz.scene_from_trace(trace).elements if item.symbol == symbol)
            wanted = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
            assert min(sum(abs(a - b) for a, b in zip(each, wanted, strict=True)) for each in found) < 60
