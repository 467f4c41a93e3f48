"""What processes share: arrays that are mapped instead of copied, and errors."""

from __future__ import annotations

import mmap
import pickle
from pathlib import Path
from typing import Any

from crystalframer.errors import WorkerError


def write_shared(folder: Path, value: object) -> None:
    """Pickle a value. Its arrays go into a file of their own, which `read_shared` maps instead of reading."""
    buffers: list[pickle.PickleBuffer] = []
    head, ends = pickle.dumps(value, protocol=5, buffer_callback=buffers.append), [0]
    with (folder / "arrays").open("wb") as file:
        for buffer in buffers:
            file.write(buffer.raw())
            file.write(bytes(-file.tell() % 64))
            ends.append(file.tell())
        file.write(b"\0")  # an empty file cannot be mapped
    sizes = [buffer.raw().nbytes for buffer in buffers]
    (folder / "value").write_bytes(pickle.dumps((head, ends[:-1], sizes)))


def read_shared(folder: Path) -> Any:
    """The value that `write_shared` wrote. Changes of its arrays stay private to this process."""
    head, starts, sizes = pickle.loads((folder / "value").read_bytes())
    with (folder / "arrays").open("rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    views = [memory[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    return pickle.loads(head, buffers=views)


def portable(error: Exception) -> Exception:
    """The error itself if it can be pickled, else a `WorkerError` with its text."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"{type(error).__name__}: {error}")
