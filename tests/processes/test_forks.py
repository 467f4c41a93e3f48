"""Forks wait for threads that have computed to end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from crystalframer.processes import forks
from crystalframer.surroundings import plain

LIVING, ENDING, WORKER = 1, 2, 3


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """Threads of the process, each time that they are asked for; the last answer stays."""
    answers: list[set[int]] = []
    monkeypatch.setattr(forks, "_computing", {ENDING})
    monkeypatch.setattr(forks, "CALM", 0.0)
    monkeypatch.setattr(forks, "_tasks", lambda: answers.pop(0) if len(answers) > 1 else answers[0])
    return answers


needs_tasks = pytest.mark.skipif(not forks.TASKS.exists(), reason="only Linux lists the threads of a process")


@needs_tasks
@pytest.mark.parametrize("left", [ENDING, WORKER], ids=["the thread", "a thread of its own pool"])
def test_a_fork_waits_until_a_thread_that_computed_and_its_pool_have_ended(seen: list[set[int]], left: int) -> None:
    seen += [{LIVING, ENDING, WORKER}, {LIVING, left}, {LIVING}, {LIVING}]
    forks.wait_for_threads_that_end()
    assert seen == [{LIVING}], "asked until the same threads were there twice"
    assert not forks._computing, "the next fork waits for nothing"


@needs_tasks
def test_a_fork_does_not_wait_forever(seen: list[set[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "LONGEST_WAIT", 0.01)
    seen += [{LIVING, ENDING}]
    forks.wait_for_threads_that_end()


def test_a_fork_waits_for_no_thread_that_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer() -> Iterator[set[int]]:
        raise AssertionError("nothing to wait for")

    monkeypatch.setattr(forks, "_computing", set())
    monkeypatch.setattr(forks, "_tasks", no_answer)
    with plain():
        forks.wait_for_threads_that_end()
    assert forks._computing == {threading.get_native_id()}, "a thread that computes is known"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_every_fork_of_the_process_waits(seen: list[set[int]]) -> None:
    seen += [{LIVING}]
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert not forks._computing
