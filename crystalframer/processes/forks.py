"""Forks of a process in which threads have computed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

LONGEST_WAIT = 1.0
"""Seconds. A thread ends within milliseconds; a fork is delayed no longer than this."""
CALM = 0.005
"""Seconds without a change in the threads of the process, after which those that were ending have ended."""
TASKS = Path("/proc/self/task")
"""One entry for each thread; only Linux has it."""

_computing: set[int] = set()


def note_thread() -> None:
    """Remember the thread that calls as one that computes."""
    _computing.add(threading.get_native_id())


def wait_for_threads_that_end() -> None:
    """Wait until threads that have computed, and that Python takes for ended, have really ended.

    While a thread ends, MKL gives back its memory under a lock. A process that is forked at that moment has a copy of
    the lock that nobody opens, and its next matrix product waits forever. (So do threads of OpenMP, which end with the
    thread that used them.)
    """
    ended = _computing - {thread.native_id for thread in threading.enumerate()}
    _computing.difference_update(ended)
    if not ended or not TASKS.exists():
        return
    until = time.monotonic() + LONGEST_WAIT
    before, tasks = None, _tasks()
    while (tasks & ended or tasks != before) and time.monotonic() < until:
        time.sleep(CALM)
        before, tasks = tasks, _tasks()


def _tasks() -> set[int]:
    return {int(path.name) for path in TASKS.iterdir()}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=wait_for_threads_that_end, after_in_child=_computing.clear)
