"""Measure the data set explorer: first draw, hover, filter and lasso of 100,000 points, the opening of a crystal, the
size of a page with traces, and the memory of the kernel.

This needs Chromium and playwright. Drawing uses software WebGL, the slowest case.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psutil
from tqdm.auto import tqdm

import crystalframer as cf
from benchmarks.command import parse, parser, session
from benchmarks.report import Bar, Report, Row
from benchmarks.timing import Timing
from benchmarks.viewer import FLAGS
from crystalframer.testing import random_crystal
from viz import DatasetExplorer

if TYPE_CHECKING:
    from playwright.sync_api import Page

N_POINTS, N_CRYSTALS, N_TRACES, N_LASSO = 100_000, 1_000, 200, 10_000
N_ATOMS = 40
N_DIFFERENT = 60
"""Crystals of the demo set, in turn: traces of more take minutes. Equal ones are compressed apart."""
N_OPENED = 20
"""Crystals that are opened while the memory of the kernel is watched."""
BARS = {
    "first draw": (3.0, "s"),
    "hover": (50.0, "ms"),
    "filter": (200.0, "ms"),
    "lasso": (300.0, "ms"),
    "crystal drawn": (300.0, "ms"),
    "attention computed": (1000.0, "ms"),
    "page": (15.0, "MB"),
    "growth of the kernel": (20.0, "MB"),
}
_READY = "document.querySelector('.cf-dataset')?.explorer.scatter()?.size[0] && document.querySelector('.cf-rows td')"
# Until one pixel of a canvas can be read, which waits until drawing has ended.
_SETTLED = """async (selector) => {
  await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  const canvas = document.querySelector(selector);
  const probe = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  probe.drawImage(canvas, 0, 0, 1, 1);
  probe.getImageData(0, 0, 1, 1);
}"""
_MEASURE = f"""async ({{ what, n }}) => {{
  const settled = {_SETTLED};
  const root = document.querySelector(".cf-dataset");
  const {{ scatter, model, table }} = root.explorer;
  const map = root.querySelector(".cf-map");
  const box = map.getBoundingClientRect();
  const seconds = [];
  const acts = {{
    hover: (k) => {{
      const place = {{ clientX: box.left + 120 + 23 * k, clientY: box.top + 90 + 11 * k }};
      map.dispatchEvent(new PointerEvent("pointermove", {{ ...place, bubbles: true }}));
    }},
    filter: (k) => {{
      const elements = ["O", "Ti", "", "Fe O"][k % 4];
      model.set("filters", {{ ...model.get("filters"), elements, n_atoms: [k, null] }});
    }},
    lasso: (k) => {{
      const points = scatter().pointsIn(n.path.map(([x, y]) => [x + k, y]));
      model.set("selected", points);
      root.dataset.lasso = points.length;
    }},
  }};
  for (let k = 0; k < n.times; k++) {{
    const started = performance.now();
    acts[what](k);
    await settled(".cf-points");
    seconds.push((performance.now() - started) / 1000);
    await new Promise((resolve) => setTimeout(resolve, 60));
  }}
  return seconds.slice(1);
}}"""
_OPEN = f"""async ({{ points, kind }}) => {{
  const settled = {_SETTLED};
  const root = document.querySelector(".cf-dataset");
  const {{ model }} = root.explorer;
  const stage = root.querySelector(".cf-stage");
  const seconds = [];
  for (const point of points) {{
    await new Promise((resolve) => setTimeout(resolve, 250));
    const started = performance.now();
    model.set("point", point);
    while (stage.dataset.shown !== `${{kind}} ${{point}}`) await new Promise((resolve) => setTimeout(resolve, 2));
    await settled(".cf-stage canvas");
    seconds.push((performance.now() - started) / 1000);
  }}
  return seconds;
}}"""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(parser("explorer", __doc__ or ""), arguments)
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("benchmarks.explorer: no Chromium here; on Debian: apt-get install chromium")
    with session(options) as report, tempfile.TemporaryDirectory() as folder:
        measure(report, options, Path(folder), executable)


def measure(report: Report, options: argparse.Namespace, folder: Path, executable: str) -> None:
    from playwright.sync_api import sync_playwright

    n_points, n_crystals, n_traces = (500, 6, 2) if options.quick else (N_POINTS, N_CRYSTALS, N_TRACES)
    data = cf.dataset("demo")
    rows = np.arange(n_crystals) % N_DIFFERENT
    report.data = {
        "name": f"{n_points:,} random points (seed 0); {n_crystals:,} crystals: {N_DIFFERENT} of the demo set in turn"
    }
    model = cf.load()
    _kernel(report, model, options.quick)
    large = folder / "large.html"
    DatasetExplorer(_table(n_points)).to_html(large, progress=False)
    traced = folder / "traced.html"
    crystals = {f"crystal {n}": data[int(row)] for n, row in enumerate(rows)}
    crystals |= {f"crystal {n}": random_crystal(n, N_ATOMS, volume_per_atom=12.0) for n in range(0, n_crystals, 100)}
    known: dict[str, Any] = {}

    def trace(crystal: Any) -> cf.CrystalTrace:
        if crystal.id not in known:
            known[crystal.id] = cf.trace(crystal, model)
        return known[crystal.id]

    explorer = DatasetExplorer(_table(n_crystals, "crystal {}"), crystals, traces=trace)
    explorer.to_html(traced, n_structures=n_crystals, n_traces=n_traces)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        report.notes.append(f"Chromium {browser.version}, software WebGL, 1280 × 800 pixels, page from disk, offline.")
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.context.set_offline(True)
        work = f"{n_points:,} points"
        firsts = [_first_draw(page, large) for _ in range(options.passes)]
        _add(report, work, "first draw", firsts, 1.0)
        path = [[200, 60], [420, 60], [420, 380], [200, 380]]
        times = 4 if options.quick else 13
        for what in ("hover", "filter", "lasso"):
            count = {"times": times, "path": path}
            passes = [median(page.evaluate(_MEASURE, {"what": what, "n": count})) for _ in range(options.passes)]
            _add(report, work, what, passes, 1e3)
            page.evaluate("document.querySelector('button[title=\"Show all points\"]').click()")
        inside = int(page.evaluate("Number(document.querySelector('.cf-dataset').dataset.lasso)"))
        report.notes.append(f"The lasso holds {inside:,} points.")
        if not options.quick and inside < N_LASSO:
            raise RuntimeError(f"the lasso holds {inside:,} points, fewer than {N_LASSO:,}")
        _first_draw(page, traced)
        order = list(explorer._packed_points("attention", n_traces, False))
        chosen = order[1 : 3 if options.quick else 21]
        _add(report, "1 crystal", "crystal drawn", page.evaluate(_OPEN, {"points": chosen, "kind": "crystal"}), 1e3)
        browser.close()
    work = f"{n_crystals:,} crystals, {n_traces} traces"
    _add(report, work, "page", [traced.stat().st_size / 1e6], 1.0)


def _table(n_points: int, name: str = "point {}") -> pd.DataFrame:
    """Labels and predictions with errors, elements, sizes and parts."""
    rng = np.random.default_rng(0)
    label = rng.normal(size=n_points)
    symbols = np.array(["Ti", "Fe", "Al", "Sr", "O", "S", "N", "Cl"])
    pairs = rng.choice(symbols, (n_points, 2))
    return pd.DataFrame(
        {
            "id": [name.format(n) for n in range(n_points)],
            "formula": [a if a == b else a + b for a, b in pairs],
            "label": label,
            "prediction": label + rng.laplace(scale=0.1, size=n_points),
            "n_atoms": rng.integers(1, 100, n_points),
            "space_group": rng.integers(1, 231, n_points),
            "part": rng.choice(["train", "validation", "test"], n_points),
        }
    )


def _kernel(report: Report, model: Any, is_quick: bool) -> None:
    """Attention of 40 atoms when it is asked for, and the memory of the kernel while crystals are opened."""
    n = 3 if is_quick else N_OPENED
    crystals = [random_crystal(seed, N_ATOMS, volume_per_atom=12.0) for seed in range(4)]
    table = pd.DataFrame({"id": [crystal.id for crystal in crystals], "y": range(len(crystals))})
    explorer = DatasetExplorer(table, crystals, traces=lambda crystal: cf.trace(crystal, model))
    answers: list[int] = []
    explorer.send = lambda content, buffers=(): answers.append(sum(map(len, buffers)))  # type: ignore[method-assign]

    def ask(kind: str, point: int) -> float:
        started = time.perf_counter()
        explorer._answer(None, {"kind": kind, "point": point, "question": 0}, [])
        return time.perf_counter() - started

    for point in range(len(crystals)):
        for kind in ("crystal", "attention"):
            ask(kind, point)
    gc.collect()
    before = psutil.Process().memory_info().rss
    seconds = [ask(kind, k % len(crystals)) for k in tqdm(range(n), leave=False) for kind in ("crystal", "attention")]
    gc.collect()
    _add(report, f"{N_ATOMS} atoms", "attention computed", seconds[1::2], 1e3)
    growth = (psutil.Process().memory_info().rss - before) / 1e6
    _add(report, f"{2 * n} crystals and traces", "growth of the kernel", [growth], 1.0)
    assert all(answers)


def _add(report: Report, work: str, what: str, values: Sequence[float], factor: float) -> None:
    limit, unit = BARS[what]
    value = median(values) * factor
    timing = Timing(tuple(values)) if unit in ("s", "ms") else None
    report.rows.append(Row(f"{work}: {what}", "crystalframer", cf.__version__, unit, value, timing))
    report.bars.append(Bar(f"{what}, {work}", value, limit, unit))


def _first_draw(page: Page, path: Path) -> float:
    started = time.perf_counter()
    page.goto(path.as_uri())
    page.wait_for_function(_READY)
    page.evaluate(_SETTLED, ".cf-points")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
