"""Public functions and classes show in their docstrings how to use them, and it is true (viz: tests/viz)."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module

import pytest

MODULES = (
    "crystalframer.analysis.check",
    "crystalframer.analysis.invariance",
    "crystalframer.analysis.perturbation",
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
    ("crystalframer.studies.space", "Range"),
    ("crystalframer.studies.space", "Choice"),
]


@pytest.mark.parametrize(("module", "name"), FUNCTIONS + CLASSES, ids=str)
def test_example(module: str, name: str) -> None:
    docstring = inspect.getdoc(getattr(import_module(module), name)) or ""
    example = doctest.DocTestParser().get_doctest(docstring, {}, name, None, None)
    assert example.examples, f"{module}.{name}: its docstring has no example"
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    assert result.failed == 0, "".join(report)
