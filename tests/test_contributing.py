"""The worked examples of CONTRIBUTING.md, followed word for word in a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

SECTIONS = dict(
    re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
)
FENCE = re.compile(r"^```(?:python|diff)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("title", SECTIONS)
def test_worked_example(title: str, tmp_path: Path) -> None:
    for package in ("crystalframer", "viz"):
        # With the compiled kernels beside the modules, which are valid as long as times of files stay.
        shutil.copytree(ROOT / package, tmp_path / package)
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    programs = follow(SECTIONS[title], tmp_path)
    assert programs, "nothing is tried"
    run(tmp_path, "-W", "error::DeprecationWarning:__main__", "-c", "\n".join(programs))
    for method in re.findall(r"`pytest tests/test_laws.py -k (\w+)`", SECTIONS[title]):
        laws = f"{method} and (rotation or supercell or flat)"
        run(tmp_path, "-m", "pytest", "-p", "no:cacheprovider", str(ROOT / "tests/test_laws.py"), "-k", laws)


def run(folder: Path, *arguments: str) -> None:
    """Run Python with the copy of the package."""
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def follow(section: str, folder: Path) -> list[str]:
    """Write and change the files of a section; return the programs to try."""
    programs, words = [], ""
    pieces = FENCE.split(section)
    for before, code in zip(pieces[::2], pieces[1::2], strict=False):
        words = before.strip().rpartition("\n\n")[2] or words
        path = folder / "".join(re.findall(r"^(?:New file|Change) `([^`]+)`", words))
        if words.startswith("New file"):
            assert not path.exists()
            path.write_text(code, encoding="utf-8")
        elif words.startswith("Change"):
            change(path, code)
        else:
            programs.append(code)
    return programs


def change(path: Path, diff: str) -> None:
    """Replace the lines of a diff that begin with a space or a minus by those with a space or a plus."""
    lines = diff.splitlines(keepends=True)
    old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} does not have once:\n{old}"
    path.write_text(text.replace(old, new), encoding="utf-8")
