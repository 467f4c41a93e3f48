"""Strange structures and damaged files: some of those that `scripts/fuzz.py` tries by the hundred thousand."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import types
from collections import Counter
from pathlib import Path

import fuzz_runner
import fuzzed_files
import fuzzed_structures
import numpy as np
import pytest

from crystalframer.config import FRAME_METHODS

N_STRUCTURES, N_FILES = 40, 40


@pytest.mark.parametrize("first", range(0, N_STRUCTURES, 20))
def test_strange_structures(first: int) -> None:
    outcomes = Counter(fuzzed_structures.check(seed).partition(":")[0] for seed in range(first, first + 20))
    assert sum(count for outcome, count in outcomes.items() if outcome.startswith("predicted")) >= 10


@pytest.mark.parametrize("first", range(0, N_FILES, 20))
def test_damaged_files(first: int) -> None:
    outcomes = Counter(fuzzed_files.check(seed).split()[1] for seed in range(first, first + 20))
    assert outcomes["refused"] and outcomes["read,"]


def test_structures_are_as_varied_as_they_should_be() -> None:
    cases = [fuzzed_structures.case(seed) for seed in range(2000)]
    assert {case.kind for case in cases} == set(fuzzed_structures.KINDS)
    assert {case.method for case in cases} == set(FRAME_METHODS)
    sizes = np.array([len(case.positions) for case in cases])
    assert sizes.min() == 1 and 250 < sizes.max() <= fuzzed_structures.MOST_ATOMS and np.median(sizes) < 20
    assert set(np.concatenate([case.atomic_numbers for case in cases])) == set(range(1, 99))
    assert (np.linalg.det([case.lattice for case in cases]) < 0).any()


def test_a_seed_names_its_case() -> None:
    for module, make in ((fuzzed_structures, "case"), (fuzzed_files, "damaged")):
        first, again, other = (getattr(module, make)(seed) for seed in (7, 7, 8))
        assert str(first) == str(again) != str(other)


def test_valid_files_are_read() -> None:
    for name, data in fuzzed_files.corpus():
        assert "read" in fuzzed_files.check_file(name, data, with_prediction=False), name


SICK = """
import time

def prepare():
    pass

def check(seed):
    if seed == 1:
        raise ValueError("seed one")
    if seed == 3:
        time.sleep(60)
    if seed == 4:
        import os
        os._exit(9)
    if seed == 5:
        bytearray(400_000_000)
    return "well"
"""


def test_what_a_check_does_to_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sick.py").write_text(SICK)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setitem(
        sys.modules, "__main__", types.ModuleType("__main__")
    )  # no test run for the processes to repeat
    results = list(fuzz_runner.run("sick", range(7), limit_seconds=5.0, limit_memory=200))
    assert [result.seed for result in results] == list(range(7))
    assert [result.is_finding for result in results] == [False, True, False, True, True, True, False]
    told = [result.outcome for result in results]
    assert told[1].startswith("ValueError: seed one (sick.py:") and told[3].startswith("hangs")
    assert "exit code 9" in told[4] and told[5].startswith("MemoryError") and told[6] == "well"


def test_the_record_names_files_and_no_folder_of_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).parents[1] / "scripts/fuzz.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    entry = script._entry([], 5)
    what = f"hang: {tmp_path}/a/b/one.cif and '{tmp_path}/two.json': row 3"
    script._note(entry, fuzz_runner.Result(5, what, True, 0.1, 30.0))
    assert entry["findings"] == [{"seed": 5, "what": "hang: one.cif and 'two.json': row 3"}]
