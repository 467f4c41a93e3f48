"""Public functions and classes show in their docstrings how to use them, and it is true."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from synthetic_explanations import synthetic_explanation
from synthetic_traces import perovskite, synthetic_trace

import viz
from crystalframer import analysis

MODULES = (
    "crystalframer.analysis.bonds",
    "crystalframer.analysis.check",
    "crystalframer.analysis.continuity",
    "crystalframer.analysis.invariance",
    "crystalframer.analysis.motifs",
    "crystalframer.analysis.paired",
    "crystalframer.analysis.paths",
    "crystalframer.analysis.perturbation",
    "crystalframer.analysis.polyhedra",
    "crystalframer.analysis.steps",
    "crystalframer.screening.screening",
    "crystalframer.studies.ablation",
    "crystalframer.studies.search",
)
FUNCTIONS = [
    (module, name)
    for module in MODULES
    for name, value in vars(import_module(module)).items()
    if inspect.isfunction(value) and not name.startswith("_") and inspect.getmodule(value) is import_module(module)
]

CLASSES = [
    ("crystalframer.calculator", "CrystalFramerCalculator"),
    ("crystalframer.estimator", "CrystalFramerRegressor"),
    ("crystalframer.config", "ModelPromises"),
    ("crystalframer.explaining.attribution", "explain"),
    ("crystalframer.explaining.faithfulness", "faithfulness"),
    ("crystalframer.explaining.interventions", "Intervention"),
    ("crystalframer.explaining.interventions", "intervene"),
    ("crystalframer.explaining.substitution", "substitute"),
    ("crystalframer.model.network", "CrystalFramer"),
    ("crystalframer.prediction", "load"),
    ("crystalframer.studies.space", "Range"),
    ("crystalframer.studies.space", "Choice"),
]
PICTURES = [("viz", name) for name in viz.__all__ if callable(getattr(viz, name))]
ELSEWHERE = {"toolkit_scene": "in tests/viz/test_toolkit_scenes.py, in a process of its own"}
"""Where examples run that cannot run here."""
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize(("module", "name"), FUNCTIONS + CLASSES + PICTURES, ids=str)
def test_example(module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may use all of viz and of the analysis, NumPy, a trace of SrTiO3, its scene and an explanation."""
    monkeypatch.chdir(tmp_path)  # examples may write files
    trace = synthetic_trace(perovskite())
    given = {public: getattr(package, public) for package in (viz, analysis) for public in package.__all__}
    given |= {"viz": viz, "np": np, "trace": trace, "scene": viz.scene_from_trace(trace)}
    given["explanation"] = synthetic_explanation()
    docstring = inspect.getdoc(getattr(import_module(module), name)) or ""
    example = doctest.DocTestParser().get_doctest(docstring, given, f"{module}.{name}", None, None)
    assert example.examples, f"{module}.{name}: its docstring has no example; add one in the style of the others"
    if name in ELSEWHERE:
        return
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=report.append)
    assert result.failed == 0, "".join(report)
