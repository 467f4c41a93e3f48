"""Processes of this machine that train trials: threads are shared out, GPUs given in turn.

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

from crystalframer.config import Config, to_json
from crystalframer.data.dataset import Splits
from crystalframer.training import ranks
from crystalframer.training.sweeping.study import Trial


class Message(NamedTuple):
    """What a worker says; `content` is None when it is gone."""

    worker: Worker
    content: dict[str, Any] | None


class Workers:
    """As many processes as there are trials to train at a time; one that is killed is to be replaced."""

    def __init__(self, folder: Path, config: Config, output: Path, n_workers: int) -> None:
        self._folder, self._config, self._output = folder, config, output
        self._n_threads = max(1, torch.get_num_threads() // n_workers)
        self._gpus = visible_gpus() if config.training.accelerator in ("auto", "cuda") else []
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.n_workers = n_workers
        self.living: list[Worker] = []

    def train(self, trial: Trial) -> None:
        """Have a trial trained, by a worker that has none or by a new one."""
        worker = next((worker for worker in self.living if worker.trial is None), None)
        if worker is None:
            taken = Counter(worker.gpu for worker in self.living)
            gpu = min(self._gpus, key=lambda gpu: taken[gpu], default=None)
            command = [sys.executable, "-m", "crystalframer.training.sweeping.worker"]
            command += [str(self._folder), str(self._output), str(self._n_threads)]
            worker = Worker(command, gpu, self._messages)
            self.living.append(worker)
            worker.tell({"config": to_json(self._config)})
        worker.trial = trial
        worker.tell({"number": trial.number, "values": dict(trial.values)})

    @property
    def trained(self) -> list[Trial]:
        """The trials that workers have."""
        return [worker.trial for worker in self.living if worker.trial is not None]

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
    """A process that trains one trial after another."""

    def __init__(self, command: list[str], gpu: str | None, messages: queue.SimpleQueue[Message]) -> None:
        # As here: a script may have changed where modules are found.
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
        environment = {**os.environ, "PYTHONPATH": paths} | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
        # In a session of its own: a terminal sends Ctrl-C to all others, and when to end is for the first to say.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self.gpu, self.is_ready = gpu, False
        self.trial: Trial | None = None
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
def started_workers(splits: Splits, config: Config, output: Path, n_workers: int) -> Iterator[Workers]:
    """Room for workers; they end with it, and have the arrays of the data in common."""
    with tempfile.TemporaryDirectory(prefix="crystalframer-") as name:
        ranks.write_shared(Path(name), splits)
        workers = Workers(Path(name), config, output, n_workers)
        try:
            yield workers
        finally:
            workers.stop()


def visible_gpus() -> list[str]:
    """Of this process, by the names that `CUDA_VISIBLE_DEVICES` has for them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(index) for index in range(torch.cuda.device_count())] if named is None else named.split(",")
