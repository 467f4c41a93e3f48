"""The table of frame methods and what it must hold. tests/test_contributing.py adds a method and trains with it."""

from __future__ import annotations

from pathlib import Path

from crystalframer.frame_methods import FRAME_METHODS, PROMISES
from crystalframer.maths.frames import FORMULAS

ROOT = Path(__file__).parents[1]
MAY_NAME_METHODS = {"frame_methods.py", "frames.py", "presets.py", "authors.py"}


def test_every_method_with_axes_has_a_formula() -> None:
    assert set(FORMULAS) == {method for method in FRAME_METHODS if PROMISES[method].axes}


def test_no_other_module_names_a_method() -> None:
    """Those of its methods whose names mean nothing else here: presets are called `weighted-pca` and `pca` as well."""
    files = [
        path for folder in ("crystalframer", "viz", "benchmarks", "scripts") for path in (ROOT / folder).rglob("*.py")
    ]
    assert {path.name for path in files if '"static-max"' in path.read_text("utf-8")} == MAY_NAME_METHODS
