"""Compiled kernels: kept on disk for the next process, no worse off where nothing can be kept, announced once."""

from __future__ import annotations

import inspect
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crystalframer import compiled
from crystalframer.kernel_cache import ROOMS, CheckedCache, sources
from crystalframer.kernels import attention as kernels

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


FULL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
"""


def test_a_full_disk_costs_only_time(tmp_path: Path) -> None:
    """A folder in which files can be made, and hold a hundred bytes."""
    pytest.importorskip("resource")
    assert [run(tmp_path, FULL_DISK + EXAMPLE) for _ in range(2)] == ["0 1", "0 1"]
    assert not [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "empty": lambda content, draw: b"",
    "truncated": lambda content, draw: content[: draw.randrange(len(content))],
    "random": lambda content, draw: draw.randbytes(len(content)),
    "random after its beginning": lambda content, draw: content[:60] + draw.randbytes(len(content) - 60),
    "one bit": lambda content, draw: with_bit_flipped(content, draw.randrange(8 * len(content))),
}


def with_bit_flipped(content: bytes, bit: int) -> bytes:
    return (int.from_bytes(content, "little") ^ (1 << bit)).to_bytes(len(content), "little")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_costs_only_time(damage: str, kept: Path, tmp_path: Path) -> None:
    """It is compiled again, and the file replaced."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    (file,) = (path for path in (tmp_path / "kept").rglob("*") if path.is_file())
    file.write_bytes(DAMAGES[damage](file.read_bytes(), random.Random(0)))
    assert [run(tmp_path, EXAMPLE) for _ in range(2)] == ["0 1", "1 0"]


def test_what_another_source_was_compiled_to_is_not_taken(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    assert run(tmp_path, EXAMPLE.replace("2 * x", "x + x")) == "0 1"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    assert run(folder, EXAMPLE) == "0 1"
    return folder


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


def test_kernels_are_compiled_anew_when_a_constant_of_another_module_changes(tmp_path: Path) -> None:
    """A kernel holds functions and constants of other modules; Numba looks at its own file alone."""
    package = tmp_path / "crystalframer"
    shutil.copytree(Path(compiled.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    assert sources(package) == sources()
    changed = package.rename(tmp_path / "changed")
    constants = changed / "maths" / "constants.py"
    constants.write_text(constants.read_text(encoding="utf-8").replace("COLLINEAR = 0.9999", "COLLINEAR = 0.999"))
    assert sources(changed) != sources()
    kept = CheckedCache(inspect.unwrap(kernels.attend.py_func))._cache_file  # type: ignore[attr-defined]  # of Numba
    assert sources() in kept._origin.decode()


def test_kernels_take_functions_and_constants_only_from_the_rooms_of_the_checksum() -> None:
    package = Path(compiled.__file__).parent
    files = [path for path in package.rglob("*.py") if re.search(r"^@kernel\b", path.read_text("utf-8"), re.MULTILINE)]
    assert len(files) > 3
    for path in files:
        imported = re.findall(r"^from crystalframer\.(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert {*imported} <= {"compiled", *ROOMS}, path
