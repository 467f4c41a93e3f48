"""The table of frame methods: what it must hold, and that one row and one formula are all that a new method needs."""

from __future__ import annotations

import subprocess
import sys
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


def test_a_row_and_a_formula_are_a_new_method(tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "tests" / "support" / "added_frame_method.py"), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "inward" in done.stdout, "the command line does not offer it"
