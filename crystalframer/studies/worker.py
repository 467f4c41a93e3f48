"""The process of a worker: `python -m crystalframer.studies.worker` (see `workers`)."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import IO, Any

import torch

from crystalframer.config import Config, from_json
from crystalframer.studies.jobs import train, why_failed
from crystalframer.training import ranks
from crystalframer.training.folder import RunFolder


def main(folder: Path, n_threads: int) -> None:
    """Train what the other process says, until it says no more."""
    torch.set_num_threads(n_threads)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anyone prints is no answer
    told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, told), daemon=True).start()
    splits = ranks.read_shared(folder)

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    def report(epoch: int, losses: Sequence[float]) -> bool:
        answer(epoch=epoch, losses=[float(loss) for loss in losses])
        return told.get()["stop"]

    answer(ready=True)
    while True:
        job = told.get()
        try:
            with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):  # bars of several, among one another
                train(from_json(Config, job["config"]), splits, RunFolder(Path(job["folder"])), report)
        except Exception as error:
            try:
                answer(failed=why_failed(error))
            except Exception as of_the_machine:
                answer(stopped=str(of_the_machine))
        else:
            answer(failed=None)


def _listen(source: IO[bytes], told: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Its end of the pipe closes however the other process ends."""
    for line in source:
        told.put(json.loads(line))
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
