"""Every public name of viz has an example in its docstring, and the examples are correct."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import numpy as np
import pytest

import viz
from crystalframer.traces import CrystalTrace

DOCUMENTED = [name for name in viz.__all__ if callable(getattr(viz, name))]
ELSEWHERE = {"toolkit_scene": "in tests/viz/test_toolkit_scene.py, in a process of its own"}
"""Where examples run that cannot run here."""


@pytest.fixture
def names(perovskite_trace: CrystalTrace, tmp_path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What examples may use without saying where it is from: all of viz, NumPy, a trace of SrTiO3, its scene."""
    monkeypatch.chdir(tmp_path)  # examples may write files
    public = {name: getattr(viz, name) for name in viz.__all__}
    scene = viz.scene_from_trace(perovskite_trace)
    return public | {"viz": viz, "np": np, "trace": perovskite_trace, "scene": scene}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_example(name: str, names: dict[str, Any]) -> None:
    docstring = inspect.getdoc(getattr(viz, name)) or ""
    example = doctest.DocTestParser().get_doctest(docstring, names, f"viz.{name}", None, None)
    assert example.examples, f"viz.{name}: its docstring has no example; add one in the style of the others"
    if name in ELSEWHERE:
        return
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert result.failed == 0, "".join(report)
