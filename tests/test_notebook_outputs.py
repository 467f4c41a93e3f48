"""Faults in the outputs of executed notebooks are found, and their still pictures have none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from browsing import chromium
from matplotlib.figure import Figure
from notebook_outputs import PLOTLY, complaints, faults_of_figure
from overlaps import overlaps, texts_of_figure

import crystalframer as cf
import viz
from crystalframer.config import FrameConfig, FrameMethod
from viz.widgets import plotly_bundle

ROOT = Path(__file__).parents[1]
STRUCTURES = ROOT / "notebooks/structures"


def notebook(*outputs: dict[str, Any], conclusion: str = "text/markdown") -> nbformat.NotebookNode:
    """An executed notebook with these outputs, and a conclusion."""
    v4 = nbformat.v4
    shown = [v4.new_output("display_data", data=data) for data in outputs]
    said = v4.new_output("display_data", data={conclusion: "All is well."})
    cells = [v4.new_code_cell(outputs=shown), v4.new_markdown_cell("## Conclusion"), v4.new_code_cell(outputs=[said])]
    return v4.new_notebook(cells=cells)


def bundle(*parts: Any, **layout: Any) -> dict[str, Any]:
    return plotly_bundle(go.Figure(parts, layout))


GOOD = {"text/markdown": "A nano-crystal of information, 0.3 eV."}
NAN = float("nan")


def test_a_good_notebook_has_no_faults() -> None:
    box = go.Box(x=["a", "a", "b"], y=[1.0, NAN, 2.0])
    assert complaints(notebook(GOOD, bundle(box), {"text/plain": "no figure"})) == []


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"text/markdown": "by inf (nan to nan) points"}, "nan"),
        ({"text/html": pd.DataFrame({"gap": [1.0, NAN]}).to_html()}, "NaN"),
        ({"text/plain": "-inf"}, "inf"),
        (bundle(), "without data"),
        (bundle(go.Box(y=[NAN, NAN], name="lost")), "without a number"),
        (bundle(go.Box(x=["a", "b"], y=[1.0, NAN])), "empty boxes at ['b']"),
        (bundle(go.Box(x=[["l", "l"], ["0", "1"]], y=[1.0, NAN])), "empty boxes at ['l 1']"),
        (bundle(go.Scatter(y=[1.0]), title="MAE nan"), "in its words"),
    ],
    ids=str,
)
def test_what_may_not_be_shown_is_found(data: dict[str, Any], fault: str) -> None:
    found = complaints(notebook(GOOD, data))
    assert len(found) >= 1 and any(fault in line for line in found), found


def test_a_box_without_numbers_is_not_empty_where_points_stand_aside() -> None:
    box, aside = go.Box(x=["a", "b"], y=[1.0, NAN]), go.Scatter(x=["b"], y=[3.0], mode="markers")
    assert faults_of_figure(bundle(box, aside)[PLOTLY]) == []


@pytest.mark.parametrize("conclusion", ["text/plain", "text/html"])
def test_a_conclusion_is_set_and_not_printed(conclusion: str) -> None:
    assert complaints(notebook(conclusion=conclusion)) == ["the conclusion is no Markdown output"]
    without = notebook()
    del without.cells[1]
    assert complaints(without) == ["there is no conclusion"]


@pytest.mark.parametrize(("shown", "code"), [("0.3 eV", 0), ("nan eV", 1)])
def test_a_run_of_notebooks_fails_on_a_bad_output(shown: str, code: int, tmp_path: Path) -> None:
    """As in `make test`: the copy keeps its outputs, and the notebook ran without an error."""
    v4 = nbformat.v4
    said = f"from IPython.display import Markdown\nMarkdown('{shown}')"
    cells = [v4.new_markdown_cell("## Conclusion"), v4.new_code_cell(said)]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "short.ipynb")
    words = ["-p", "conftest", "-c", str(ROOT / "pyproject.toml"), "--nbmake", "--overwrite", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("'nan'" in done.stdout) == (code == 1)


@pytest.mark.browser
def test_texts_of_plotly_figures_that_lie_over_each_other_are_found() -> None:
    with chromium():
        pass  # the check is left out without a browser
    point = go.Scatter(x=[0.0, 1.0], y=[0.0, 1.0], mode="markers")

    def notes(*places: float) -> dict[str, Any]:
        return bundle(point, annotations=[{"x": x, "y": 0.5, "text": "a long note", "ax": 0, "ay": 0} for x in places])

    assert complaints(notebook(notes(0.2, 0.8))) == []
    (fault,) = complaints(notebook(notes(0.2, 0.22)))
    assert "lie over each other" in fault


@pytest.mark.parametrize(
    ("gap", "n_faults"),
    [(0.0, 1), (0.05, 1), (0.5, 0)],
)
def test_texts_of_matplotlib_figures_that_lie_over_each_other_are_found(gap: float, n_faults: int) -> None:
    figure = Figure(figsize=(5, 3))
    figure.text(0.1, 0.5, "first text")
    figure.text(0.1 + gap, 0.5, "second text")
    figure.text(0.1, 0.5, "first text")  # its halo
    figure.text(0.8, 0.5, "turned", rotation=90)
    assert len(overlaps(texts_of_figure(figure))) == n_faults


def scene_of(name: str, method: FrameMethod | None = None) -> viz.Scene:
    """By the shipped weights, or by a model that was never trained."""
    model = cf.load(device="cpu")
    if method:
        config = replace(cf.preset("demo").config.model, frame=FrameConfig(method))
        model = cf.CrystalFramer(config, torch.Generator().manual_seed(0)).eval()
    return viz.scene_from_trace(cf.trace(STRUCTURES / name, model))


STILL: dict[str, Callable[[], Figure]] = {
    "01_train": lambda: viz.structure_figure(scene_of("TiO2.cif"), layer=0, head=0, atom=1),
    "02_ablation": lambda: viz.frame_comparison_figure(
        [scene_of("TiO2.cif", method) for method in ("max", "weighted-pca", "lattice", "none")], atom=1
    ),
    "05_your_data": lambda: viz.structure_figure(scene_of("SrTiO3.cif"), layer=0, head=0, atom=0),
}


@pytest.mark.parametrize("name", STILL)
def test_no_text_lies_over_another_in_the_still_pictures_of_the_notebooks(name: str) -> None:
    assert overlaps(texts_of_figure(STILL[name]())) == []
