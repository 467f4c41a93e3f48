"""Who computes the shards: this process, several on this machine, or actors of a Ray cluster. All run the same code on
the same shards, and a shard whose worker dies is computed again.
"""

from __future__ import annotations

import copy
import pickle
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from crystalframer.errors import WorkerError
from crystalframer.screening.plan import Shard
from crystalframer.screening.shards import Screener, ShardResult

MOST_DEATHS = 3
"""Workers that may die on one shard before it is given up."""


def compute_here(
    shards: Iterator[Shard], screener: Screener, report: Callable[[int], object]
) -> Generator[ShardResult]:
    """One after another in this process."""
    for shard in shards:
        yield screener(shard, report)


def compute_in_processes(
    shards: Iterator[Shard], screener: Screener, report: Callable[[int], object], n_workers: int
) -> Generator[ShardResult]:
    """Results as they come from processes of this machine, each of which has a model of its own.

    GPUs are given out in turn. Processes share no lock, so that one that is killed blocks none: its shard goes to
    another that is started in its place.

    Raises:
        WorkerError: several workers died on one shard, or one raised an error.
    """
    devices = _devices(screener.model, n_workers)
    n_threads = max(1, torch.get_num_threads() // n_workers)
    content = pickle.dumps(on_cpu(screener))
    deaths: Counter[int] = Counter()
    again: list[Shard] = []
    workers: list[_Worker] = []
    try:
        while True:
            for worker in workers:
                if worker.shard is None and (shard := again.pop() if again else next(shards, None)):
                    worker.give(shard)
            while len(workers) < n_workers and (shard := again.pop() if again else next(shards, None)):
                taken = Counter(worker.device for worker in workers)
                device = min(devices, key=lambda device: taken[device])
                workers.append(_Worker(content, device, n_threads))
                workers[-1].give(shard)
            busy = {worker.connection: worker for worker in workers if worker.shard is not None}
            if not busy:
                return
            for ready in connection.wait(list(busy)):
                worker = busy[ready]  # type: ignore[index]
                message = worker.receive()
                if isinstance(message, int):
                    report(message)
                elif isinstance(message, ShardResult):
                    worker.shard, worker.n_reported = None, 0
                    yield message
                elif isinstance(message, Exception):
                    raise message
                else:
                    shard = worker.shard
                    assert shard is not None
                    report(-worker.n_reported)
                    workers.remove(worker)
                    worker.stop()
                    deaths[shard.number] += 1
                    if deaths[shard.number] == MOST_DEATHS:
                        last = shard.first + shard.n_structures - 1
                        raise WorkerError(
                            f"{MOST_DEATHS} processes died on structures {shard.first} to {last} (the last with exit "
                            f"code {worker.exit_code}); memory may run out: use fewer workers or smaller --max-atoms. "
                            "What is complete is kept, and the same command goes on from there"
                        )
                    again.append(shard)
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that computes shards, one at a time."""

    def __init__(self, screener: bytes, device: str, n_threads: int) -> None:
        context = get_context("spawn")  # a fork of a process with threads may hang
        self.connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_serve, args=(theirs, screener, device, n_threads), daemon=True
        )
        with _deaf_to_ctrl_c():  # a terminal sends it to all; the parent stops its workers
            self._process.start()
        theirs.close()
        self.device = device
        self.shard: Shard | None = None
        self.n_reported = 0

    def give(self, shard: Shard) -> None:
        self.shard = shard
        with suppress(OSError):  # it is dead; that shows on reading
            self.connection.send(shard)

    def receive(self) -> Any:
        """What it says; None if it is dead."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            return None
        if isinstance(message, int):
            self.n_reported += message
        return message

    def stop(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.join()

    @property
    def exit_code(self) -> int | None:
        return self._process.exitcode


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is started meanwhile stays so from its first moment on."""
    if threading.current_thread() is not threading.main_thread():  # others cannot change it
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(parent: Connection, content: bytes, device: str, n_threads: int) -> None:
    """The life of a worker: it ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(n_threads)
    screener = on_device(pickle.loads(content), device)
    # Nobody listens any more: the parent is gone, and has no use for an error.
    with suppress(EOFError, OSError):
        while True:
            shard: Shard = parent.recv()
            try:
                result = screener(shard, parent.send)
            except (BrokenPipeError, ConnectionError):
                return
            except Exception as error:
                parent.send(_portable(error))
                return
            parent.send(result)


def _portable(error: Exception) -> Exception:
    """An error as it is, if it survives the way to another process."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return WorkerError(f"{type(error).__name__}: {error}")


def _devices(model: Any, n_workers: int) -> list[str]:
    """Where the workers compute: where the model is, or on all GPUs if it is on one that was not chosen by number."""
    device = model.target_mean.device
    if device.type == "cuda" and torch.cuda.device_count() > 1 and device.index in (None, 0):
        return [f"cuda:{index}" for index in range(min(n_workers, torch.cuda.device_count()))]
    return [str(device)]


def on_cpu(screener: Screener) -> Screener:
    model = screener.model
    return screener if model.target_mean.device.type == "cpu" else replace(screener, model=copy.deepcopy(model).cpu())


def on_device(screener: Screener, device: str) -> Screener:
    return replace(screener, model=screener.model.to(device))
