"""A pool of processes: each takes an item of work, and the next one when it is done."""

from __future__ import annotations

import os
import queue
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from crystalframer import files
from crystalframer.errors import WorkerError
from crystalframer.processes.child import Child, Inbox, Message, next_message
from crystalframer.processes.sharing import write_shared

MOST_DEATHS = 3
"""Processes that may die of one item, or one after another at their start, before it is given up."""

Item = TypeVar("Item")
Result = TypeVar("Result")


Report = Callable[..., Any]
"""Tells the process that started the pool how far an item is: `report(content, wait=False)`. With `wait`, it returns
what `on_report` answers."""


def compute(
    work: Callable[[Item, Report], Result],
    items: Iterable[Item],
    n_processes: int,
    on_report: Callable[[Item, Any], Any],
    gpus: Sequence[str] = (),
    advice: str = "",
) -> Generator[tuple[Item, Result | WorkerError]]:
    """Work on each item; the results in the order in which they are ready.

    With one process the work is done here, else in processes that share out the CPU threads and take the GPUs in turn.
    An item is taken when there is a process for it. If its process is killed, another one begins it anew. Close the
    generator (`contextlib.closing`) to end the processes.

    Args:
        work: called with an item and a function that reports progress. It is pickled once; its arrays are shared.
        items: pickled too. Their text (`str`) names them in messages.
        on_report: called here with an item and what was reported. What it returns is the answer to `wait`.
        gpus: their names as in `CUDA_VISIBLE_DEVICES`; each process sees one of them. Empty: as this process.
        advice: what to do if processes die of an item.

    Yields:
        An item and its result, or a `WorkerError` if `MOST_DEATHS` processes died of it.

    Raises:
        WorkerError: processes end at their start, or the folder for temporary files is full.
        Exception: one that `work` raised.
    """
    if n_processes == 1:
        for item in items:
            yield item, work(item, lambda content, wait=False, item=item: on_report(item, content))
        return
    with tempfile.TemporaryDirectory(prefix="crystalframer-") as folder:
        with files.writing(Path(folder), WorkerError):
            write_shared(Path(folder), work)
        pool = _Pool(Path(folder), items, n_processes, gpus)
        try:
            while pool.hand_out():
                worker, message = pool.receive()
                task = worker.task
                if message.kind == "ended":
                    exit_code = pool.remove(worker)
                    if task is not None and task.n_deaths == MOST_DEATHS:
                        reason = f"{MOST_DEATHS} processes died of {task.item} (the last with exit code {exit_code})"
                        yield task.item, WorkerError(f"{reason}; if memory runs out, use fewer workers{advice}")
                elif message.kind == "failed":
                    raise message.content
                elif message.kind == "ready":
                    worker.begin()
                elif task is not None and message.kind == "done":
                    worker.task = None
                    yield task.item, message.content
                elif task is not None:
                    answer = on_report(task.item, message.content)
                    if message.kind == "question":
                        worker.child.send(answer)
        finally:
            pool.stop()


@dataclass(eq=False)
class _Task:
    """An item, and how many processes died of it."""

    item: Any
    n_deaths: int = 0


@dataclass(eq=False)
class _Worker:
    """A process, its GPU, and its task."""

    child: Child
    gpu: str | None
    task: _Task | None
    is_ready: bool = False

    def begin(self) -> None:
        assert self.task is not None
        self.is_ready = True
        self.child.send(self.task.item)


class _Pool:
    """The processes, and the tasks that are left."""

    def __init__(self, folder: Path, items: Iterable[Any], n_processes: int, gpus: Sequence[str]) -> None:
        self._folder, self._n_processes, self._gpus = folder, n_processes, gpus
        self._n_threads = max(1, torch.get_num_threads() // n_processes)
        self._new = (_Task(item) for item in items)
        self._again: list[_Task] = []
        self._workers: dict[Child, _Worker] = {}
        self._inbox: Inbox = queue.SimpleQueue()
        self._n_early_ends = 0

    def hand_out(self) -> bool:
        """Give a task to every process without one, and start processes for more; whether there is something to do."""
        while sum(worker.task is not None for worker in self._workers.values()) < self._n_processes:
            task = self._again.pop() if self._again else next(self._new, None)
            if task is None:
                break
            idle = next((worker for worker in self._workers.values() if worker.task is None), None)
            if idle is None:
                self._start(task)
            else:
                idle.task = task
                idle.begin()
        return any(worker.task is not None for worker in self._workers.values())

    def _start(self, task: _Task) -> None:
        """Start a process, which gets the task when it is ready."""
        n_taken = Counter(worker.gpu for worker in self._workers.values())
        gpu = min(self._gpus, key=lambda gpu: n_taken[gpu], default=None)
        child = Child(self._folder, self._inbox, self._n_threads, gpu)
        self._workers[child] = _Worker(child, gpu, task)

    def receive(self) -> tuple[_Worker, Message]:
        child, message = next_message(self._inbox)
        if message.kind == "ready":
            self._n_early_ends = 0
        return self._workers[child], message

    def remove(self, worker: _Worker) -> int:
        """Forget a process that has ended, and keep its task for another; returns its exit code.

        Raises:
            WorkerError: processes end at their start.
        """
        del self._workers[worker.child]
        exit_code = worker.child.stop()
        if worker.task is None:
            return exit_code
        if worker.is_ready:
            worker.task.n_deaths += 1
        else:
            self._n_early_ends += 1
        if self._n_early_ends == MOST_DEATHS:
            raise WorkerError(
                f"{MOST_DEATHS} processes ended at their start (the last with exit code {exit_code}); what they wrote "
                "to standard error may say why. One worker needs no further process"
            )
        if worker.task.n_deaths < MOST_DEATHS:
            self._again.append(worker.task)
        return exit_code

    def stop(self) -> None:
        for child in self._workers:
            child.stop()


def visible_gpus() -> list[str]:
    """The GPUs of this process, by the names that `CUDA_VISIBLE_DEVICES` has for them."""
    n_gpus, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(index) for index in range(n_gpus)] if named is None else named.split(",")[:n_gpus]
