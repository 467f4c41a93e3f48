"""The pool of processes: every item is done once, whatever ends its process, and nothing outlives the parent."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pool_work import DieOf, DieWhenRead, Multiply, Unreadable, ask, describe, fail
from refusals import refused

from crystalframer.errors import DataError, WorkerError
from crystalframer.processes import pool, sharing
from crystalframer.processes.child import Child


def none(item: object, content: object) -> None:
    pass


def results(work: Callable[..., Any], items: Any, n: int = 2, on_report: Callable = none, **options: Any) -> dict:
    with closing(pool.compute(work, items, n, on_report, **options)) as found:
        return dict(found)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """Processes that are started while the test runs."""
    started, init = [], Child.__init__
    monkeypatch.setattr(Child, "__init__", lambda child, *given: (init(child, *given), started.append(child))[0])
    return started


def test_threads_are_shared_out_and_gpus_given_in_turn(
    monkeypatch: pytest.MonkeyPatch, children: list[Child], capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    found = results(describe, range(9), 3, gpus=["4", "6"])
    assert [found[item]["square"] for item in range(9)] == [item**2 for item in range(9)]
    assert {seen["threads"] for seen in found.values()} == {2}
    gpus = {seen["pid"]: seen["gpu"] for seen in found.values()}
    assert set(gpus) <= {child.process.pid for child in children} and len(children) == 3
    assert set(gpus.values()) <= {"4", "6"}
    assert all(child.process.returncode is not None for child in children)
    out, err = capfd.readouterr()
    assert out == "" and err.count("this is no message") == 9


@pytest.mark.parametrize(("named", "expected"), [(None, ["0", "1"]), ("4,6,7", ["4", "6"]), ("", [])])
def test_gpus_have_the_names_that_the_environment_gives_them(
    named: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0 if named == "" else 2)
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert pool.visible_gpus() == expected


@pytest.mark.parametrize("n_processes", [1, 2])
def test_reports_are_heard_and_questions_answered(n_processes: int) -> None:
    heard = []
    found = results(ask, [10, 20, 30], n_processes, lambda item, content: (heard.append(item), content + 1)[1])
    assert found == {item: 2 * (item + 1) for item in (10, 20, 30)}
    assert sorted(heard) == sorted([10, 20, 30] * 3)


def test_arrays_are_shared_and_changes_are_private() -> None:
    factors = np.arange(4.0)
    assert results(Multiply(factors), range(4)) == {item: 2.0 * item for item in range(4)}
    assert factors.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_arrays_are_not_in_the_pickle(tmp_path: Path) -> None:
    sharing.write_shared(tmp_path, {"some": np.arange(1000.0), "nothing": np.zeros(0)})
    assert (tmp_path / "value").stat().st_size < 1000
    read = sharing.read_shared(tmp_path)
    assert read["some"].tolist() == list(range(1000)) and read["nothing"].shape == (0,)


def test_an_item_is_taken_when_there_is_a_process_for_it(children: list[Child]) -> None:
    taken = []
    with closing(pool.compute(describe, (taken.append(n) or n for n in range(5)), 2, none)) as found:
        next(found)
        assert len(taken) == 2
    assert all(child.process.returncode is not None for child in children)
    assert results(describe, []) == {} and len(children) == 2


def test_what_a_killed_process_did_is_done_by_another(tmp_path: Path, children: list[Child]) -> None:
    assert results(DieOf(1, pool.MOST_DEATHS - 1, tmp_path), range(4)) == {item: item for item in range(4)}
    codes = sorted(child.process.returncode for child in children)
    assert codes[-2:] == [9, 9] and len(list(tmp_path.iterdir())) == 2


def test_an_item_of_which_processes_die_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    found = results(DieOf(2, 10, tmp_path), range(4), advice=" or less memory")
    error = found.pop(2)
    assert found == {0: 0, 1: 1, 3: 3}
    assert isinstance(error, WorkerError)
    assert f"{pool.MOST_DEATHS} processes died of 2 (the last with exit code 9)" in str(error)
    assert str(error).endswith("use fewer workers or less memory")


def test_a_process_that_dies_before_it_has_read_its_work(tmp_path: Path, children: list[Child]) -> None:
    assert results(DieWhenRead(tmp_path), [1, 2, 3]) == {1: 1, 2: 2, 3: 3}
    assert 9 in [child.process.returncode for child in children]


def test_processes_that_always_die_at_their_start(monkeypatch: pytest.MonkeyPatch, children: list[Child]) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with refused(WorkerError, "at their start", "exit code 1"):
        results(describe, [bytes(10**7), bytes(10**7)])  # more than a pipe holds
    assert all(child.process.returncode is not None for child in children)


def test_errors_come_back(children: list[Child]) -> None:
    with refused(DataError, path="a.csv", row=3) as caught:
        results(fail, [1])
    assert "pool_work.py" in caught.value.__notes__[0]
    with refused(WorkerError, "Unportable: not portable"):
        results(fail, [2])
    with refused(WorkerError, "define the classes of the script in a module"):
        results(describe, [Unreadable()])
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        results(Unreadable(), [1])
    assert all(child.process.returncode is not None for child in children)


SCRIPT = """
import sys
sys.path.append({support!r})
from pool_work import wait_for_ever
from crystalframer.processes import pool, sharing

def say(item, content):
    print(content, flush=True)

try:
    list(pool.compute(wait_for_ever, [1, 2], 2, say))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_a_script_ends_its_processes_end_with_it(stop: signal.Signals, tmp_path: Path) -> None:
    """The script has no main guard. All of them hold its standard error, which is at its end when they have ended."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(support=str(Path(__file__).parents[1] / "support")))
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    os.killpg(process.pid, stop)  # as a terminal does: to the whole group
    out, err = process.communicate(timeout=300)
    assert out == ("interrupted\n" if stop == signal.SIGINT else "")
    assert process.returncode == (0 if stop == signal.SIGINT else -stop)
    assert "Traceback" not in err
