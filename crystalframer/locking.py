"""One process at a time in a folder of results."""

from __future__ import annotations

from typing import IO, Any


def take(file: IO[Any]) -> bool:
    """Lock an open file, unless another process has; whether that worked.

    The system releases it when the file is closed, or the process ends, however it ends. Where there are no such locks
    (Windows, some file systems) nothing is locked.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
