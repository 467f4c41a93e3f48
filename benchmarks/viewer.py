"""Measure the explorer: the time of a slider step until it is drawn, the time of the first view, the size of its page.

This needs Chromium and playwright. Drawing uses software WebGL, the slowest case.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

import crystalframer as cf
from benchmarks.command import parse, parser, session
from benchmarks.report import Bar, Report, Row
from benchmarks.timing import Timing
from crystalframer.testing import random_crystal
from viz import explorer_html, scene_from_trace

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZES = (40, 300, 500)
STEP_BARS = {40: 60.0, 300: 150.0, 500: 250.0}
"""Allowed time of a step, ms, by number of atoms."""
FIRST_VIEW_BARS = {40: 3.0, 300: 6.0, 500: 6.0}
"""Allowed time of the first view, s."""
PAGE_BARS = {40: 1.5, 300: 3.0}
"""Allowed size of the page with 4 layers and 8 heads, MB."""
EXPLAINED = 40
"""Atoms of the crystal whose page has an explanation, too."""
MODES = ("relevance", "removal")
N_REMOVALS = 12
LARGEST_EXPLANATION = 2.0
"""Allowed size of that page, MB. A step in its modes may take as long as in the mode of attention."""
N_STEPS = 20
N_QUICK_STEPS = 2
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")

_DRAWN = (
    "document.querySelector('.cf-explorer')?.explorer.structure() && document.querySelector('.cf-caption').textContent"
)

# Time from moving the slider until one pixel of the canvas can be read, which waits until drawing has ended.
_STEPS = """async (n) => {
  const root = document.querySelector(".cf-explorer");
  const slider = root.querySelector('input[aria-label="Layer"]');
  const canvas = root.querySelector(".cf-structure canvas");
  const probe = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const seconds = [];
  for (let step = 0; step < n + 2; step++) {
    const started = performance.now();
    slider.value = (Number(slider.value) + 1) % (Number(slider.max) + 1);
    slider.dispatchEvent(new Event("input"));
    await new Promise(requestAnimationFrame);
    probe.drawImage(canvas, 0, 0, 1, 1);
    probe.getImageData(0, 0, 1, 1);
    seconds.push((performance.now() - started) / 1000);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return seconds.slice(2);
}"""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(parser("viewer", __doc__ or ""), arguments)
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("benchmarks.viewer: no Chromium here; on Debian: apt-get install chromium")
    with session(options) as report, tempfile.TemporaryDirectory() as folder:
        measure(report, options, Path(folder), executable)


def measure(report: Report, options: argparse.Namespace, folder: Path, executable: str) -> None:
    from playwright.sync_api import sync_playwright

    model = cf.load()
    n_layers, n_heads = model.config.n_layers, model.config.n_heads
    sizes = (8,) if options.quick else SIZES
    report.data = {"name": f"random crystals of {sizes} atoms, {n_layers} layers, {n_heads} heads (seed 0)"}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        report.notes.append(f"Chromium {browser.version}, software WebGL, 1100 × 850 pixels, page from disk, offline.")
        for n_atoms in tqdm(sizes, desc="viewer", unit="crystal", leave=False):
            path = folder / f"{n_atoms}.html"
            scene = scene_from_trace(cf.trace(random_crystal(0, n_atoms), model))
            path.write_text(explorer_html(scene), encoding="utf-8")
            page = browser.new_page(viewport={"width": 1100, "height": 850})
            page.context.set_offline(True)
            _add(report, page, path, n_atoms, *((2, N_QUICK_STEPS) if options.quick else (options.passes, N_STEPS)))
            if n_atoms == EXPLAINED:
                _add_modes(report, page, path, n_atoms, model, options.passes)
            page.close()
        browser.close()


def _add_modes(report: Report, page: Page, path: Path, n_atoms: int, model: cf.CrystalFramer, passes: int) -> None:
    """Slider steps of a page with an explanation, in each of its modes, and its size."""
    crystal = random_crystal(0, n_atoms)
    scene, found = scene_from_trace(cf.trace(crystal, model)), cf.explain(crystal, model, removals=N_REMOVALS)
    for mode in MODES:
        path.write_text(explorer_html(scene, explanation=found, mode=mode), encoding="utf-8")
        _first_view(page, path)
        step = Timing(tuple(median(page.evaluate(_STEPS, N_STEPS)) for _ in range(passes)))
        work = f"{n_atoms} atoms: step until drawn, {mode}"
        report.rows.append(Row(work, "crystalframer", cf.__version__, "ms", step.median * 1e3, step))
        report.bars.append(
            Bar(f"step until drawn, {n_atoms} atoms, {mode}", step.median * 1e3, STEP_BARS[n_atoms], "ms")
        )
    megabytes = path.stat().st_size / 1e6
    report.bars.append(Bar(f"page with an explanation, {n_atoms} atoms", megabytes, LARGEST_EXPLANATION, "MB"))


def _add(report: Report, page: Page, path: Path, n_atoms: int, passes: int, n_steps: int) -> None:
    first = Timing(tuple(_first_view(page, path) for _ in range(passes)))
    step = Timing(tuple(median(page.evaluate(_STEPS, n_steps)) for _ in range(passes)))
    megabytes = path.stat().st_size / 1e6
    work = f"{n_atoms} atoms"
    for what, timing, factor, unit in (("first view", first, 1.0, "s"), ("step until drawn", step, 1e3, "ms")):
        report.rows.append(
            Row(
                work=f"{work}: {what}",
                candidate="crystalframer",
                version=cf.__version__,
                unit=unit,
                value=timing.median * factor,
                timing=timing,
                ratio=1.0,
                details={"page (MB)": megabytes},
            )
        )
    if n_atoms in FIRST_VIEW_BARS:
        report.bars.append(Bar(f"first view, {work}", first.median, FIRST_VIEW_BARS[n_atoms], "s"))
    if n_atoms in STEP_BARS:
        report.bars.append(Bar(f"step until drawn, {work}", step.median * 1e3, STEP_BARS[n_atoms], "ms"))
    if n_atoms in PAGE_BARS:
        report.bars.append(Bar(f"page, {work}", megabytes, PAGE_BARS[n_atoms], "MB"))


def _first_view(page: Page, path: Path) -> float:
    started = time.perf_counter()
    page.goto(path.as_uri())
    page.wait_for_function(_DRAWN)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
