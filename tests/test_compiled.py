"""Compiled kernels: kept on disk for the next process, no worse off where nothing can be kept, announced once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crystalframer import compiled

EXAMPLE = """
from crystalframer.compiled import kernel

@kernel()
def twice(x):
    return 2 * x

assert twice(21) == 42
print(sum(twice.stats.cache_hits.values()), sum(twice.stats.cache_misses.values()))
"""
NO_FOLDER = """
from numba.core.caching import CacheImpl
CacheImpl._locator_classes = []
"""


def run(folder: Path, code: str) -> str:
    """In a process of its own, from a file: code from a string is never kept."""
    example = folder / "example.py"
    if not example.exists() or example.read_text() != code:  # a file of another time has other kernels
        example.write_text(code)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "kept")}
    command = [sys.executable, example]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_kernels_are_kept_for_the_next_process(tmp_path: Path) -> None:
    assert [run(tmp_path, EXAMPLE) for _ in range(2)] == ["0 1", "1 0"]


def test_kernels_compile_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """As in a read-only installation of a user without a writable home: Numba then knows no folder to keep them in."""
    assert run(tmp_path, NO_FOLDER + EXAMPLE) == "0 1"
    assert not (tmp_path / "kept").exists()


def test_a_long_compilation_is_announced_once(capsys: pytest.CaptureFixture[str]) -> None:
    with compiled.announced("a quick example", after=10.0):
        pass
    assert capsys.readouterr().err == ""
    said = ""
    with compiled.announced("an example", after=0.01):
        while not said:  # the time limit of a test ends it if nothing is ever said
            time.sleep(0.01)
            said = capsys.readouterr().err
    assert "preparing an example; the first time on a machine" in said
    with compiled.announced("an example", after=0.0):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""
