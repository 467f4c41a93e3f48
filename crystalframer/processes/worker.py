"""What a process of a pool runs: `python -m crystalframer.processes.worker` (see `child`)."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from crystalframer.errors import WorkerError
from crystalframer.processes import child
from crystalframer.processes.child import Kind, Message
from crystalframer.processes.sharing import portable, read_shared


class Parent:
    """The process that started this one, which ends with it."""

    def __init__(self) -> None:
        # A terminal or a scheduler may signal all processes; when to end is for the parent to say.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(signal, "pthread_sigmask"):  # Lightning has a handler of its own
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self._messages = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anyone prints is no message
        self._received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def receive(self) -> Any:
        """The next item of work or answer.

        Raises:
            WorkerError: it is of a class that this process cannot import.
        """
        content = self._received.get()
        try:
            return pickle.loads(content)
        except Exception as error:
            raise WorkerError(
                f"another process cannot read the work ({error}); use one worker, or define the classes of the script "
                "in a module that can be imported"
            ) from error

    def report(self, content: Any, wait: bool = False) -> Any:
        """Report progress. With `wait`, returns the answer."""
        self.tell("question" if wait else "report", content)
        return self.receive() if wait else None

    def tell(self, kind: Kind, content: Any = None) -> None:
        child.write(self._messages, Message(kind, content, time.time()))

    def fail(self, error: Exception) -> NoReturn:
        """Send the error, and end at once: threads and exchanges with other processes may not come to an end."""
        if not isinstance(error, WorkerError):
            error.add_note(f"In a process of its own:\n{''.join(traceback.format_exception(error))}")
        with suppress(OSError):
            self.tell("failed", portable(error))
        os._exit(1)

    def _listen(self) -> None:
        """The pipe closes however the parent ends."""
        with suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                self._received.put(child.read(sys.stdin.buffer))
        os._exit(1)


def main(folder: Path) -> None:
    """Do the work in the folder with one item after another."""
    parent = Parent()
    try:
        work = read_shared(folder)
        parent.tell("ready")
        while True:
            parent.tell("done", work(parent.receive(), parent.report))
    except Exception as error:
        parent.fail(error)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
