"""Importing is quick and brings nothing heavy. Every import runs in a fresh interpreter, without the tests' hooks."""

from __future__ import annotations

import graphlib
import json
import subprocess
import sys

import grimp
import pytest

IMPORT_SECONDS = 0.5
"""Processor time that `import crystalframer` may add to `import torch`."""
HEAVY = ("pymatgen", "lightning", "pytorch_lightning", "plotly", "numba", "pandas", "pyarrow", "ase", "matplotlib")


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def modules_after(statement: str) -> set[str]:
    """Top-level names in `sys.modules` after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(name.split('.')[0] for name in sys.modules)))"
    return set(json.loads(run(code)))


def test_importing_crystalframer_adds_little_time_to_torch() -> None:
    code = "import time, torch; start = time.process_time(); import crystalframer; print(time.process_time() - start)"
    assert min(float(run(code)) for _ in range(3)) <= IMPORT_SECONDS


@pytest.mark.parametrize(
    ("statement", "not_loaded"),
    [
        ("import crystalframer", HEAVY),
        ("import crystalframer.analysis.motifs", ("torch", "pymatgen", "pandas", "scipy", "lightning")),
        ("import crystalframer.cli", ("torch", "pandas", "pymatgen", "lightning", "pyarrow")),
        ("import viz", ("torch", "lightning", "pymatgen")),
        ("import crystalframer as cf; cf.PRESETS, cf.preset, cf.Config", ("torch", "pandas", "pymatgen")),
        (
            "import crystalframer as cf; cf.predict, cf.load, cf.dataset, cf.Crystal",
            ("pandas", "pymatgen", "lightning", "pyarrow", "ase"),
        ),
        ("import crystalframer as cf; cf.load()", ("lightning",)),
        ("from crystalframer.datasets.dataset import CrystalDataset", ("pandas", "pyarrow", "pymatgen", "ase")),
        ("import crystalframer as cf; cf.dataset('demo')[0]", ("pymatgen", "ase")),
    ],
)
def test_only_what_is_needed_is_loaded(statement: str, not_loaded: tuple[str, ...]) -> None:
    assert not modules_after(statement).intersection(not_loaded)


def test_no_module_imports_itself_in_a_circle() -> None:
    """Imports inside functions count, those for type checkers alone do not."""
    graph = grimp.build_graph("crystalframer", "viz", exclude_type_checking_imports=True, cache_dir=None)
    imported_by = {module: graph.find_modules_directly_imported_by(module) for module in sorted(graph.modules)}
    graphlib.TopologicalSorter(imported_by).prepare()  # CycleError names the modules of a circle


@pytest.mark.parametrize(
    ("name", "library"),
    [("AttentionExplorer", "anywidget"), ("FrameComparison", "anywidget"), ("attention_figure", "plotly")],
)
def test_a_picture_without_its_library_names_the_extra(name: str, library: str) -> None:
    code = f"import sys, viz; sys.modules[{library!r}] = None; viz.{name}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"viz.{name} needs {library}" in result.stderr and "crystalframer[notebooks]" in result.stderr
