"""The names of the package: all there, each loaded when it is asked for, and the same for type checkers."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import crystalframer as cf
import viz
from crystalframer import errors


@pytest.mark.parametrize("name", cf.__all__)
def test_every_public_name_exists(name: str) -> None:
    value = getattr(cf, name)
    assert getattr(value, "__name__", name) == name
    assert name in dir(cf)


def test_every_error_is_public() -> None:
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert len(kinds) > 10
    assert kinds <= set(cf.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="predcit"):
        _ = cf.predcit  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "first", ["import crystalframer.trace", "from crystalframer.traces import CrystalTrace", "pass"]
)
def test_trace_is_the_function_whatever_is_imported_first(first: str) -> None:
    code = f"{first}\nimport crystalframer as cf\nfrom crystalframer.trace import CrystalTrace\n"
    code += "print(callable(cf.trace), cf.trace.__module__, cf.CrystalTrace is CrystalTrace)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["True", "crystalframer.prediction", "True"]


@pytest.mark.parametrize("package", [cf, viz, import_module("crystalframer.analysis")])
def test_no_public_name_hides_a_module_of_its_own_name(package: ModuleType) -> None:
    """Whatever is imported, every public name stays what it was."""
    before = {name: getattr(package, name) for name in package.__all__}
    modules = {module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")}
    assert modules.isdisjoint(f"{package.__name__}.{name}" for name in before)
    for name in modules - {"crystalframer.__main__"}:
        import_module(name)
    assert {name: getattr(package, name) for name in before} == before


@pytest.mark.parametrize(
    "name", ["ablation_figure", "drawing", "structure_figure", "structure_view", "sweep_figure", "toolkit_scene"]
)
def test_old_modules_of_viz_work_with_a_warning(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"viz\.{name} has moved to viz\.{name}s"):
        moved = getattr(import_module(f"viz.{name}"), name)
    assert moved is getattr(viz, name)


@pytest.mark.parametrize("name", ["evaluate", "calibrate", "Evaluation", "TargetScore", "save_table"])
def test_names_that_left_the_module_of_predictions_are_handed_on(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"crystalframer.prediction.{name} has moved"):
        moved = getattr(import_module("crystalframer.prediction"), name)
    assert moved.__name__ == name
