"""Widgets in a real JupyterLab and a real Notebook 7 with a real kernel, started from this environment."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest
from browsing import frames_later, open_page
from nbformat.v4 import new_code_cell, new_notebook, new_output
from synthetic_traces import perovskite, skewed, synthetic_trace

import viz
from crystalframer.testing import prototypes
from crystalframer.traces import CrystalTrace

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

ROOT = Path(__file__).parents[2]
START_SECONDS = 300

CELLS = (
    "import viz\nfrom crystalframer import CrystalTrace",
    'first = viz.AttentionExplorer(CrystalTrace.load("first.safetensors"), layer=0, head=0, atom=1)\nfirst',
    'second = viz.AttentionExplorer(CrystalTrace.load("second.safetensors"), layer=1, head=None)\nsecond',
    'print("second has head", second.head)',
    'first.layer, first.atom = 2, 3\nprint("set from Python")',
    "first.head = 9",
    "viz.structure_view(first.scene, 0, 0, 1)",
    'linked = viz.link(first, second, choices=["layer"])\nprint(linked)',
    'second.show(CrystalTrace.load("first.safetensors"))\nprint("another crystal")',
    "viz.toolkit_scene(first.scene, 0, 0, 1)",
)


DATA_SET_CELLS = (
    "import crystalframer as cf\nimport viz\nfrom crystalframer.testing import prototypes",
    "crystals = prototypes()[:5]\ntable = cf.predict(crystals, progress=False)",
    "explorer = viz.DatasetExplorer(table, crystals, traces=cf.trace)\nexplorer",
    'print("chosen", explorer.chosen, "selected", len(explorer.selection))',
    'explorer.chosen = crystals[3].id\nexplorer.filters = {"elements": "O"}\nprint("set from Python")',
)
"""As in the notebooks 05 and 07, on five crystals."""


COLORS = """async (canvas) => {
    for (let n = 5; n; n--) await new Promise(requestAnimationFrame);
    const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
    const pen = copy.getContext("2d");
    pen.drawImage(canvas, 0, 0);
    return new Set(new Uint32Array(pen.getImageData(0, 0, copy.width, copy.height).data.buffer)).size;
}"""
"""Number of colours on a canvas."""


APPS = {"lab": "lab/tree", "notebook": "notebooks"}
"""Where each application opens a notebook."""
ERRORS_OF_NOTEBOOK = (
    *("(reading 'schema')", "'filebrowser:open-path' not registered"),
    "Exception opening new comm",
)
"""Notebook 7 says so of itself where JupyterLab is served beside it, and Dash looks for its own extension on import."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[str]:
    """Address of a server of JupyterLab and Notebook 7 over a folder with one notebook and the traces that it shows."""
    synthetic_trace(perovskite()).save(folder / "first.safetensors")
    synthetic_trace(skewed()).save(folder / "second.safetensors")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for name, cells in {**dict.fromkeys(APPS, CELLS), "data_set": DATA_SET_CELLS}.items():
        notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata={"kernelspec": kernel})
        nbformat.write(notebook, folder / f"{name}.ipynb")
    shutil.copytree(ROOT / "notebooks" / "structures", folder / "structures")
    nbformat.write(shortened("01_train"), folder / "01_train.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    # Settings and layouts of whoever runs the tests stay out of it.
    places = {f"JUPYTER{name}_DIR": str(folder / f".jupyter{name.lower()}") for name in ("_CONFIG", "_RUNTIME")}
    environment = os.environ | places | {"JUPYTER_CONFIG_PATH": str(ROOT / ".jupyter")}
    options = [
        *(
            "--no-browser",
            "--allow-root",
            "--expose-app-in-browser",
            "--JupyterNotebookApp.expose_app_in_browser=True",
            f"--port={port}",
            "--ip=127.0.0.1",
        ),
        *("--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--ServerApp.port_retries=0"),
        *(f"--LabApp.{kind}_dir={folder / kind}" for kind in ("workspaces", "user_settings")),
    ]
    command = [sys.executable, "-m", "jupyter", "lab", *options]
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"{address}/api"):
            assert server.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(300)
        log.close()


def shortened(name: str) -> nbformat.NotebookNode:
    """A shipped notebook with the small numbers that its cells name for tests (nbmake applies the same)."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        for variable, value in cell.metadata.get("nbmake", {}).get("mock", {}).items():
            cell.source += f"\n{variable} = {value!r}"
    return notebook


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=10) as reply:
            return reply.status == 200
    except (URLError, TimeoutError, ConnectionError):
        return False


def open_notebook(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.content?.widgets?.length > 1")
    page.evaluate("jupyterapp.shell.currentWidget.sessionContext.ready")


@contextmanager
def without_kernels(browser: Browser, address: str) -> Iterator[Page]:
    """A notebook as it was saved: no kernel can be started."""
    page = browser.new_page(viewport={"width": 1400, "height": 2400})
    page.set_default_timeout(300_000)
    for name in ("kernels", "sessions"):
        page.route(f"**/api/{name}**", lambda route: route.abort())
    page.goto(address)
    yield page
    page.close()


def run_cell(page: Page, number: int) -> None:
    page.evaluate(
        """async (number) => {
            const notebook = jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = number;
            notebook.deselectAll();
            await jupyterapp.commands.execute("notebook:run-cell");
        }""",
        number,
    )


def run_until(page: Page, number: int, text: str) -> None:
    """Run a cell until its output holds a text: a busy kernel may hear of a change later than of the cell."""
    from playwright.sync_api import TimeoutError

    for _ in range(30):
        run_cell(page, number)
        with suppress(TimeoutError):
            page.get_by_text(text).last.wait_for(timeout=10_000)
            return
    pytest.fail(f"cell {number} never says {text!r}")


def explorers(page: Page) -> Locator:
    """Those of one crystal each."""
    return page.locator(".cf-explorer:not(.cf-dataset):not(.cf-dataset .cf-explorer)")


def drawn(page: Page, number: int) -> Locator:
    """An explorer once its crystal is there."""
    explorer = explorers(page).nth(number)
    explorer.scroll_into_view_if_needed()
    explorer.locator(".cf-structure canvas").wait_for()
    page.wait_for_function("(n) => document.querySelectorAll('.cf-caption')[n]?.textContent.length > 0", arg=number)
    return explorer


def pixels(page: Page, explorer: Locator) -> str:
    """What the canvas holds; where the page is scrolled to does not count."""
    frames_later(page, 3)
    return explorer.locator(".cf-structure canvas").evaluate("(canvas) => canvas.toDataURL()")


@pytest.mark.parametrize("app", APPS)
def test_the_explorer_in_a_notebook(browser: Browser, lab: str, app: str) -> None:
    # High enough for both explorers: JupyterLab hides the cells that are out of sight.
    with open_page(browser, width=1400, height=4200, ignored=ERRORS_OF_NOTEBOOK) as page:
        open_notebook(page, f"{lab}/{APPS[app]}/{app}.ipynb")
        for number in (0, 1, 2):
            run_cell(page, number)
        first, second = drawn(page, 0), drawn(page, 1)
        assert "SrTiO3" in first.locator(".cf-title").inner_text()

        # Sliders and keys redraw, and only the explorer that they belong to.
        before = pixels(page, first), pixels(page, second)
        first.get_by_role("slider", name="Head", exact=True).fill("3")
        first.locator(".cf-structure").focus()
        page.keyboard.press("ArrowUp")
        first.get_by_text("Ti1, layer 1, head 3").wait_for()
        after = pixels(page, first), pixels(page, second)
        assert after[0] != before[0]
        assert after[1] == before[1]

        # Keys and meanings stand beside each other, whatever the style of the application.
        first.get_by_role("button", name="Keys and meanings (?)").click()
        keys, meanings = (first.locator(f".cf-help {tag}").all() for tag in ("dt", "dd"))
        for pair in zip(keys, meanings, strict=True):
            key, meaning = (place.bounding_box() for place in pair)
            assert key and meaning and abs(key["y"] - meaning["y"]) < 3 and key["x"] + key["width"] <= meaning["x"]
        first.get_by_role("button", name="Close the help").click()

        # Python hears of it, sets values itself, and refuses wrong ones.
        second.get_by_role("slider", name="Head", exact=True).fill("2")
        run_until(page, 3, "second has head 2")
        run_cell(page, 4)
        page.get_by_text("set from Python").last.wait_for()
        first.get_by_text("O2, layer 2, head 3").wait_for()
        run_cell(page, 5)
        page.get_by_text("no head 9; choose from 0 to 3").last.wait_for()

        # py3Dmol draws with the script that it brings: a view without one stays blank.
        run_cell(page, 6)
        view = page.locator(".jp-OutputArea-output div[id^='3dmolviewer'] canvas").first
        view.wait_for()
        assert view.evaluate(COLORS) > 10

        # So does crystal-toolkit, in a frame.
        if importlib.util.find_spec("crystal_toolkit"):
            run_cell(page, 9)
            page.frame_locator("iframe[title^='Ti1, layer 0, head 0']").locator(".three-container canvas").wait_for()

        # Linked explorers step together, and one shows another crystal in its place.
        run_cell(page, 7)
        page.get_by_text("Link of 2 widgets: layer").wait_for()
        first.get_by_role("slider", name="Layer", exact=True).fill("0")
        second.get_by_text("Ca1, layer 0, head 2").wait_for()
        first.get_by_role("slider", name="Layer", exact=True).fill("2")
        assert "SrTiO3" not in second.locator(".cf-title").inner_text()
        run_cell(page, 8)
        second.get_by_text("Ti1, layer 2, head 2").wait_for()
        assert "SrTiO3" in second.locator(".cf-title").inner_text() and explorers(page).count() == 2

        # A page that is loaded again shows what the kernel has.
        page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        page.reload()
        drawn(page, 0).get_by_text("O2, layer 2, head 3").wait_for()
        assert page.locator(".cf-saved").first.is_hidden()

    with without_kernels(browser, f"{lab}/{APPS[app]}/{app}.ipynb?reset") as page:
        canvas = page.frame_locator(".cf-saved iframe").first.locator(".cf-structure canvas")
        canvas.wait_for()
        assert canvas.evaluate(COLORS) > 10
        assert page.locator(".cf-saved img").first.is_hidden()
        assert page.get_by_text("Error displaying widget").count() == 0


def test_a_notebook_of_someone_else_has_the_pictures(browser: Browser, lab: str, folder: Path) -> None:
    """JupyterLab runs no scripts of a notebook that it does not trust."""
    trace = CrystalTrace.load(folder / "first.safetensors")
    widgets = (viz.AttentionExplorer(trace), viz.SideBySide([trace, trace]), viz.MotifExplorer([trace], site=1))
    gone = {"application/vnd.jupyter.widget-view+json": {"version_major": 2, "version_minor": 0, "model_id": "gone"}}
    outputs = [[new_output("display_data", data=data) for data in (gone, widget._copy())] for widget in widgets]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [new_code_cell("explorer", outputs=shown) for shown in outputs]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "strange.ipynb")
    with without_kernels(browser, f"{lab}/lab/tree/strange.ipynb?reset") as page:
        pictures = page.locator(".cf-saved img")
        pictures.nth(len(widgets) - 1).wait_for()
        assert page.locator(".cf-saved iframe").count() == 0
        assert pictures.count() == len(widgets)
        assert all(picture.evaluate("(image) => image.naturalWidth") > 300 for picture in pictures.all())
        assert page.get_by_text("Error displaying widget").count() == 0


def test_the_data_set_explorer_in_a_notebook(browser: Browser, lab: str) -> None:
    crystals = prototypes()[:5]
    with open_page(browser, width=1400, height=3600) as page:
        open_notebook(page, f"{lab}/lab/tree/data_set.ipynb?reset")
        for number in (0, 1, 2):
            run_cell(page, number)
        explorer = page.locator(".cf-dataset")
        explorer.locator(".cf-rows td").first.wait_for()
        # The first crystal comes from the kernel, and so does attention, when it is asked for.
        explorer.locator(".cf-stage[data-shown='crystal 0'] canvas").wait_for()
        explorer.get_by_role("button", name="Attention", exact=True).click()
        explorer.locator(".cf-stage[data-shown='attention 0'] .cf-structure canvas").wait_for()
        explorer.get_by_role("button", name="Crystal", exact=True).click()

        # Python hears of a choice and of a selection.
        explorer.locator(".cf-rows tr[data-point='2']").click()
        explorer.locator(".cf-stage[data-shown='crystal 2'] canvas").wait_for()
        # Names and values stand beside each other, whatever the style of JupyterLab.
        names, values = explorer.locator(".cf-facts span").all()[:2]
        (name, value) = (place.bounding_box() for place in (names, values))
        assert name and value and abs(name["y"] - value["y"]) < 3 and name["x"] + name["width"] <= value["x"]
        assert page.get_by_text("UserWarning").count() == 0
        explorer.get_by_role("button", name="Select all points that are shown").click()
        explorer.get_by_text("5 selected").wait_for()
        run_until(page, 3, f"chosen {crystals[2].id} selected 5")

        # It sets them itself.
        run_cell(page, 4)
        explorer.locator(".cf-stage[data-shown='crystal 3'] canvas").wait_for()
        n_oxides = sum(8 in crystal.atomic_numbers for crystal in crystals)
        explorer.get_by_text(f"{n_oxides} of 5 points shown").wait_for()
        assert page.get_by_text("Traceback").count() == 0


def test_the_first_notebook_from_top_to_bottom(browser: Browser, lab: str) -> None:
    # High enough for all of it: JupyterLab draws only the cells in sight. `reset`: no notebook of another test is open.
    with open_page(browser, width=1400, height=9000) as page:
        open_notebook(page, f"{lab}/lab/tree/01_train.ipynb?reset")
        page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
        explorer = explorers(page).first
        explorer.locator(".cf-structure canvas").wait_for()
        explorer.get_by_text("Ti2, layer 0, head").wait_for()
        explorer.get_by_role("slider", name="Head", exact=True).fill("0")
        explorer.get_by_text("Ti2, layer 0, head 0").wait_for()
        page.locator(".jp-RenderedPlotly .main-svg").first.wait_for()
        # On a fresh machine the notebook compiles the kernels and says so; it has nothing else to warn of.
        errors = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']")
        lines = [line for text in errors.all_inner_texts() for line in text.splitlines() if line.strip()]
        assert [line for line in lines if not line.startswith("crystalframer: preparing ")] == []
        assert page.get_by_text("Traceback").count() == 0

        before = pixels(page, explorer)
        explorer.get_by_role("slider", name="Layer", exact=True).fill("2")
        explorer.get_by_text("Ti2, layer 2, head 0").wait_for()
        assert pixels(page, explorer) != before
        explorer.locator(".cf-structure").focus()
        page.keyboard.press("ArrowRight")
        explorer.get_by_text("Ti2, layer 2, head 1").wait_for()
        # Keys of a slider are its own: JupyterLab does not take them to walk from cell to cell.
        explorer.get_by_role("slider", name="Head", exact=True).focus()
        page.keyboard.press("ArrowRight")
        explorer.get_by_text("Ti2, layer 2, head 2").wait_for()
        page.keyboard.press("ArrowLeft")
        explorer.get_by_text("Ti2, layer 2, head 1").wait_for()

        heatmap = explorer.locator(".cf-heatmap")
        size = heatmap.bounding_box()
        assert size is not None
        heatmap.click(position={"x": size["width"] / 2, "y": size["height"] / 20})  # the first row
        explorer.get_by_text("Ti1, layer 2, head 1").wait_for()
