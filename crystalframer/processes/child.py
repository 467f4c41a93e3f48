"""A process that is started to work, seen from the process that starts it.

Both talk in pickles: items and answers go to the standard input of the child, messages come from its standard output.
The child ends when its input does, so that none outlives the process that started it. It runs a module of this package
and imports nothing of the user's script, which therefore needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

Kind = Literal["ready", "report", "question", "done", "failed", "ended"]


class Message(NamedTuple):
    """What a child says: it is ready for work, reports progress, asks, has a result or an error, or has ended."""

    kind: Kind
    content: Any = None
    time: float = 0.0
    """Seconds since the epoch of the clock when it was sent, or when the end was noticed."""


Inbox = queue.SimpleQueue[tuple["Child", bytes]]
"""Messages of all children, in the order of their arrival."""


class Child:
    """A process that runs `crystalframer.processes.worker`."""

    def __init__(self, folder: Path, inbox: Inbox, n_threads: int, gpu: str | None = None) -> None:
        """Args:
        folder: holds the work (see `sharing`).
        inbox: gets the messages.
        gpu: the only one that the process sees, by its name in `CUDA_VISIBLE_DEVICES`.
        """
        environment = os.environ.copy()
        # As here: a script may have changed where modules are found.
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(n_threads)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        # A terminal sends Ctrl-C to all processes of a session. In its own, the child ends when this process wants.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "crystalframer.processes.worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(inbox,), daemon=True).start()

    def send(self, content: object) -> None:
        """Send an item of work or an answer. If the child has ended, its last message says so."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            write(self.process.stdin, content)

    def stop(self) -> int:
        """End the process; returns its exit code."""
        self.process.kill()
        exit_code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        return exit_code

    def _listen(self, inbox: Inbox) -> None:
        assert self.process.stdout is not None
        # The child has ended, perhaps in the middle of a message.
        with suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                inbox.put((self, read(self.process.stdout)))
        inbox.put((self, pickle.dumps(Message("ended", time=time.time()))))


def next_message(inbox: Inbox, seconds: float = float("inf")) -> tuple[Child, Message]:
    """Wait for a message.

    Raises:
        queue.Empty: none has come within so many seconds.
    """
    while True:
        # In short waits: on some systems Ctrl-C does not interrupt a long one.
        try:
            child, message = inbox.get(timeout=min(seconds, 1.0))
            return child, pickle.loads(message)
        except queue.Empty:
            seconds -= 1.0
            if seconds <= 0.0:
                raise


def write(stream: IO[bytes], content: object) -> None:
    """Send something through a pipe, pickled twice: whatever it is, the other end can read it as bytes."""
    pickle.dump(pickle.dumps(content), stream)
    stream.flush()


def read(stream: IO[bytes]) -> bytes:
    """The next thing in a pipe, to be unpickled once more.

    Raises:
        EOFError, OSError, ValueError, pickle.UnpicklingError: the other end has closed.
    """
    return pickle.load(stream)
