"""Processes of this machine that train jobs: threads are shared out, GPUs given in turn.

A worker is told over its standard input what to do, and answers on its standard output, in lines of JSON. It ends when
that input does, so none outlives the process that started it, however that ends.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from crystalframer.config import to_json
from crystalframer.datasets.dataset import Splits
from crystalframer.errors import TrainingError
from crystalframer.studies.jobs import Job
from crystalframer.training import ranks

MOST_DEATHS = 3
"""Processes that may die on one job before it counts as failed, or at their start before all is given up."""


class Message(NamedTuple):
    """What a worker says; `content` is None when it is gone."""

    worker: Worker
    content: dict[str, Any] | None


class Workers:
    """As many processes as there are jobs to train at a time; one that is killed is to be replaced."""

    def __init__(self, folder: Path, accelerator: str, n_workers: int) -> None:
        self._folder = folder
        self._n_threads = max(1, torch.get_num_threads() // n_workers)
        self._gpus = visible_gpus() if accelerator in ("auto", "cuda") else []
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.living: list[Worker] = []

    def train(self, job: Job) -> None:
        """Have a job trained, by a worker that has none or by a new one."""
        worker = next((worker for worker in self.living if worker.job is None), None)
        if worker is None:
            taken = Counter(worker.gpu for worker in self.living)
            gpu = min(self._gpus, key=lambda gpu: taken[gpu], default=None)
            command = [sys.executable, "-m", "crystalframer.studies.worker", str(self._folder), str(self._n_threads)]
            worker = Worker(command, gpu, self._messages)
            self.living.append(worker)
        worker.job = job
        worker.tell({"config": to_json(job.config), "folder": str(job.folder.path)})

    @property
    def n_busy(self) -> int:
        """Workers that have a job."""
        return sum(worker.job is not None for worker in self.living)

    def next_message(self) -> Message:
        """Waits for it."""
        while True:
            # With a limit: without one, Ctrl-C waits too where locks cannot be interrupted.
            with suppress(queue.Empty):
                message = self._messages.get(timeout=1.0)
                if message.worker in self.living:
                    return message

    def remove(self, worker: Worker) -> int | None:
        """Of one that is gone; returns its exit code."""
        self.living.remove(worker)
        return worker.stop()

    def stop(self) -> None:
        while self.living:
            self.remove(self.living[0])


class Worker:
    """A process that trains one job after another."""

    def __init__(self, command: list[str], gpu: str | None, messages: queue.SimpleQueue[Message]) -> None:
        # As here: a script may have changed where modules are found.
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
        environment = {**os.environ, "PYTHONPATH": paths} | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
        # In a session of its own: a terminal sends Ctrl-C to all others, and when to end is for the first to say.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self.gpu, self.is_ready = gpu, False
        self.job: Job | None = None
        threading.Thread(target=self._listen, args=(messages,), daemon=True).start()

    def tell(self, content: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it is gone; that shows on reading
            self._process.stdin.write(json.dumps(content).encode() + b"\n")
            self._process.stdin.flush()

    def stop(self) -> int | None:
        self._process.kill()
        exit_code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        return exit_code

    def _listen(self, messages: queue.SimpleQueue[Message]) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError, OSError):  # half a line, or closed: it is gone
            for line in self._process.stdout:
                messages.put(Message(self, json.loads(line)))
        messages.put(Message(self, None))


@contextmanager
def started_workers(splits: Splits, accelerator: str, n_workers: int) -> Iterator[Workers]:
    """Room for workers; they end with it, and have the arrays of the data in common."""
    with tempfile.TemporaryDirectory(prefix="crystalframer-") as name:
        ranks.write_shared(Path(name), splits)
        workers = Workers(Path(name), accelerator, n_workers)
        try:
            yield workers
        finally:
            workers.stop()


def train_in_processes(jobs: Iterator[Job], splits: Splits, accelerator: str, n_workers: int) -> None:
    """Several at a time: processes say what happens to their jobs, and it is told to these here.

    A job is asked for when there is a process for it. One whose process dies goes on in another.

    Raises:
        TrainingError: processes end at their start, or one met what the others would meet as well (the disk is full).
    """
    deaths: Counter[Job] = Counter()
    n_stillborn = 0
    again: list[Job] = []
    with started_workers(splits, accelerator, n_workers) as workers:
        while True:
            while workers.n_busy < n_workers:
                job = again.pop() if again else next(jobs, None)
                if job is None:
                    break
                workers.train(job)
            if not workers.n_busy:
                return
            worker, content = workers.next_message()
            job = worker.job
            if content is None:
                exit_code = workers.remove(worker)
                if not worker.is_ready:
                    n_stillborn += 1
                    if n_stillborn == MOST_DEATHS:
                        raise TrainingError(
                            f"{MOST_DEATHS} processes ended at their start (the last with exit code {exit_code}); "
                            "what they wrote to standard error may say why. n_workers = 1 needs none"
                        )
                elif job is not None:
                    deaths[job] += 1
                if job is not None and deaths[job] < MOST_DEATHS:
                    again.append(job)
                elif job is not None:
                    job.close(
                        f"{MOST_DEATHS} processes died on it (the last with exit code {exit_code}); memory may run "
                        "out: use fewer workers or a lower training.max_edges"
                    )
            elif "ready" in content:
                worker.is_ready, n_stillborn = True, 0
            elif "stopped" in content:
                raise TrainingError(content["stopped"])
            elif job is not None and "epoch" in content:
                worker.tell({"stop": job.report(content["epoch"], content["losses"])})
            elif job is not None:
                worker.job = None
                job.close(content["failed"])


def visible_gpus() -> list[str]:
    """Of this process, by the names that `CUDA_VISIBLE_DEVICES` has for them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(index) for index in range(torch.cuda.device_count())] if named is None else named.split(",")
