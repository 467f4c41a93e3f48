"""Runs a check over many seeds in a process that may die, hang or eat memory without harm."""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SECONDS_TO_PREPARE = 600.0
"""Importing and compiling, on a busy machine."""


@dataclass(frozen=True)
class Result:
    """What came of one seed."""

    seed: int
    outcome: str
    """What the check said, or of a finding what went wrong and where."""
    is_finding: bool
    seconds: float
    peak_memory: float
    """MB that the process had at most until then."""


def run(module: str, seeds: range, limit_seconds: float, limit_memory: int) -> Iterator[Result]:
    """The results of `module.check(seed)`, in order. After a seed that ends its process another takes up the next.

    Args:
        module: has `prepare()`, called first in each process, and `check(seed)`, whose exceptions are findings;
            warnings are errors while it runs.
        limit_seconds: for one seed, by the clock on the wall.
        limit_memory: MB of address space that seeds may take in addition to what is there once all is prepared.
    """
    context = multiprocessing.get_context("spawn")
    left = seeds
    while left:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(module, left, limit_memory, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            done = 0
            for result in _results(ours, process, left, limit_seconds):
                done += 1
                yield result
            left = left[done:]
        finally:
            process.kill()
            process.join()
            ours.close()


def _results(connection: Connection, process: Any, seeds: range, limit_seconds: float) -> Iterator[Result]:
    """Until all seeds are done, or one of them ended the process: the last result is its."""
    if not connection.poll(SECONDS_TO_PREPARE):
        raise RuntimeError(f"a process for the checks was not ready after {SECONDS_TO_PREPARE:.0f} s")
    try:
        connection.recv()
    except EOFError:
        raise RuntimeError("a process for the checks died before the first; what it said stands above") from None
    peak = 0.0
    for seed in seeds:
        started = time.perf_counter()
        problem = f"hangs: not done after {limit_seconds:.0f} s"
        if connection.poll(limit_seconds):
            try:
                result = connection.recv()
                peak = result.peak_memory
                yield result
                continue
            except EOFError:
                process.join()
                problem = f"ends the process (exit code {process.exitcode})"
        yield Result(seed, problem, True, time.perf_counter() - started, peak)
        return


def _work(module: str, seeds: range, limit_memory: int, connection: Connection) -> None:
    check = importlib.import_module(module)
    check.prepare()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + limit_memory * 1_000_000, hard))
    connection.send("ready")
    for seed in seeds:
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                outcome, is_finding = check.check(seed), False
        except Exception as error:
            outcome, is_finding = _told(error), True
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        connection.send(Result(seed, outcome, is_finding, seconds, peak))


def _told(error: Exception) -> str:
    """Type, message, and where: the last line of this project on the way."""
    here = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    place = f"{Path(here[-1].filename).name}:{here[-1].lineno}" if here else "?"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]} ({place})"


def _address_space() -> int:
    """Bytes, of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
