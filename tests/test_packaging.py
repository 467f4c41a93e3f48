"""The files that describe the package agree with each other and with the code."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import crystalframer
from crystalframer._version import __version__

ROOT = Path(__file__).parents[1]
PACKAGES = ("crystalframer", "viz")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

CONDA_NAMES = {"lmdb": "python-lmdb", "ray": "ray-data", "torch": "pytorch"}
"""Where conda-forge names a package otherwise than PyPI."""
IMPORT_NAMES = {"ipython": "IPython", "py3dmol": "py3Dmol", "scikit-learn": "sklearn"}
"""Where a package is imported under another name than that of its distribution."""
IMPORTERS = ("import_module", "require")
"""Functions that import the module whose name they get."""
WITH_TORCH = {"triton"}
"""Comes with torch where there are CUDA devices, and is imported only where it is there; `dev` brings it elsewhere."""
WHERE_INSTALLED = {"umap"}
"""A second map of embeddings for those who have it."""
USED_UNSEEN = {
    "tensorboard",  # imported by Lightning's logger
}


def requirements(*groups: str) -> list[Requirement]:
    """The project's requirements: those of the core for the group `core`, else those of an extra."""
    lists = {"core": PROJECT["project"]["dependencies"], **PROJECT["project"]["optional-dependencies"]}
    found = [Requirement(line) for group in groups for line in lists[group]]
    return [requirement for requirement in found if requirement.name != "crystalframer"]


def pins() -> dict[str, str]:
    lines = [line for line in CONSTRAINTS.splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): version for name, version in pairs}


EVERY_GROUP = ("core", *PROJECT["project"]["optional-dependencies"])
EVERY_REQUIREMENT = requirements(*EVERY_GROUP)


def package_files() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT)


@pytest.mark.parametrize("requirement", EVERY_REQUIREMENT, ids=str)
def test_every_requirement_has_a_lowest_version_and_a_pin_within_its_range(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])
    assert ">=" in {clause.operator for clause in requirement.specifier}


def test_the_installed_versions_are_the_pinned_ones() -> None:
    here = [r.name for r in EVERY_REQUIREMENT if r.marker is None or r.marker.evaluate()]
    installed = {name: importlib.metadata.version(name).split("+")[0] for name in here}
    assert installed == {name: pins()[canonicalize_name(name)] for name in installed}


def test_constraints_are_plain_pins_without_cuda_packages() -> None:
    lines = [line for line in CONSTRAINTS.splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    assert [line for line in lines if line.startswith(("nvidia", "cuda"))] == []


def test_conda_environment_has_the_same_ranges() -> None:
    conda = [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]
    (pip,) = [entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict)]
    assert pip[-1] == "--editable ."
    listed = [Requirement(line) for line in [*conda, *pip[:-1]]]
    ranges = {canonicalize_name(r.name): r.specifier for r in listed if r.name not in ("python", "pip")}
    assert ranges == {
        CONDA_NAMES.get(r.name, canonicalize_name(r.name)): r.specifier for r in requirements(*EVERY_GROUP)
    }


def test_python_range_is_stated_once() -> None:
    python = SpecifierSet(PROJECT["project"]["requires-python"])
    assert f"python{python}" in ENVIRONMENT["dependencies"]
    assert python.contains("3.11.0") and not python.contains("3.10.99")
    assert PROJECT["tool"]["pyright"]["pythonVersion"] == "3.11"
    assert PROJECT["tool"]["ruff"]["target-version"] == "py311"


def test_version_has_one_source() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert crystalframer.__version__ == importlib.metadata.version("crystalframer") == citation["version"]


def test_the_extra_all_holds_every_other_extra() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = [Requirement(line) for line in extras["all"]]
    assert everything.extras == set(extras) - {"all"}


def test_command_line_entry_point_exists() -> None:
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="crystalframer")
    assert callable(command.load())


def test_the_environment_is_consistent() -> None:
    result = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def third_party_imports(package: str) -> set[str]:
    """Top-level packages that the code of a package imports anywhere, functions included; typing-only ones too."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPORTERS:
                named = [name.value for name in node.args[:1] if isinstance(name, ast.Constant)]
                found |= {name.split(".")[0] for name in named if isinstance(name, str)}
    return found - sys.stdlib_module_names - set(PACKAGES)


def import_names(*groups: str) -> set[str]:
    names = {canonicalize_name(r.name) for r in requirements(*groups)} - USED_UNSEEN
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}


def test_every_import_is_declared_where_it_is_needed() -> None:
    assert third_party_imports("crystalframer") - import_names("core", "data", "optuna", "ray", "sklearn") == WITH_TORCH
    assert third_party_imports("viz") - import_names("core", "viz", "crystal-toolkit") == WHERE_INSTALLED


def test_every_dependency_is_used() -> None:
    scripts = third_party_imports("scripts") | third_party_imports("benchmarks")
    used = third_party_imports("crystalframer") | third_party_imports("viz") | scripts
    assert import_names("core", "data", "viz") - used == set()


def test_viz_knows_only_records_and_the_analysis() -> None:
    graph = grimp.build_graph("viz", "crystalframer", cache_dir=None, exclude_type_checking_imports=True)
    imported = {
        name
        for module in graph.modules
        if module.split(".")[0] == "viz"
        for name in graph.find_modules_directly_imported_by(module)
    }
    rooms = ("_moved", "analysis", "elements", "errors", "explanations", "frame_methods", "notes", "reading", "traces")
    allowed = ("viz", *(f"crystalframer.{name}" for name in rooms))
    assert [name for name in imported if not f"{name}.".startswith(tuple(f"{root}." for root in allowed))] == []


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names of the files in the wheel and in the source distribution, built offline with the installed backend."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "--directory", folder], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    return {"wheel": in_wheel, "sdist": in_sdist}


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_distributions_hold_every_file_of_the_packages(distributions: dict[str, set[str]], kind: str) -> None:
    files = {path.as_posix() for path in package_files()}
    assert "crystalframer/py.typed" in files
    assert files - distributions[kind] == set()


def test_the_wheel_holds_nothing_else(distributions: dict[str, set[str]]) -> None:
    assert {name.split("/")[0] for name in distributions["wheel"]} - set(PACKAGES) == {
        f"crystalframer-{__version__}.dist-info"
    }


def test_make_says_what_is_missing_when_there_is_no_python(tmp_path: Path) -> None:
    (tmp_path / "crystalframer").mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "crystalframer/_version.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    result = subprocess.run(["make", "demo", "PYTHON=no-such-python"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode != 0
    assert "needs Python 3.11 or newer; none found among: no-such-python" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_stripped(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
