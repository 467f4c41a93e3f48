"""Files and folders of results: written whole or not at all, and by one process at a time."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from crystalframer.errors import CrystalFramerError

LOCK_FILE = ".lock"
"""In a folder that one process at a time works in."""
OWNER_FILE = ".in-use.json"
"""Beside the lock: which process has it. A process that ends in order removes it."""
PATIENCE = 8.0
"""Seconds to wait for a lock. The loaders of a training that was killed hold its lock until they notice, within 5 s."""


@contextmanager
def writing(path: Path, kind: type[CrystalFramerError], advice: str = "") -> Iterator[None]:
    """Turn what the system says about writing `path` into an error of ours.

    Args:
        kind: class of the error.
        advice: what to do. Default: free some space, or choose another folder.

    Raises:
        CrystalFramerError: of this `kind`, where an `OSError` was raised within.
    """
    try:
        yield
    except OSError as error:
        advice = advice or "free some space, or choose another folder"
        raise kind(f"cannot be written ({error.strerror or error}); {advice}", path=path) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write in place of `path`, which it becomes at the end, once it is on the disk.

    A file that was there before stays until then, and stays for good if an error is raised within. The folder is made.

    Raises:
        OSError: the disk is full, the folder is read-only, ... (`writing` makes it an error of ours)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # With the number of the process: two that write the same file do not write into each other's.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write(path: Path, content: bytes | str) -> None:
    """Write a file, all of it or nothing, and wait until it is on the disk.

    Raises:
        OSError: as `replacing`.
    """
    with replacing(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def locked(folder: Path, kind: type[CrystalFramerError], doing: str) -> Iterator[None]:
    """The folder, made if need be, for one process at a time.

    The lock ends with the process, however it ends. If the one before did not end in order, that is said on standard
    error. Where the file system has no locks, nothing is locked.

    Args:
        kind: class of the error.
        doing: what another process is doing there, for the message: `"is training in it"`.

    Raises:
        CrystalFramerError: of this `kind`: another process has the folder (its number and machine are named), or
            nothing can be written there.
    """
    lock, owner = FileLock(folder / LOCK_FILE, timeout=PATIENCE), folder / OWNER_FILE
    with writing(folder, kind):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:  # an OSError too
            raise kind(f"another process{_named(owner)} {doing}; wait for it, or stop it", path=folder) from None
        except NotImplementedError:  # a file system without locks
            pass
    try:
        if lock.is_locked:
            _take_over(owner)
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                owner.unlink(missing_ok=True)
        lock.release()


def _take_over(owner: Path) -> None:
    """Say whether the process before was killed, and name this one."""
    if owner.exists():
        print(
            f"{owner.parent}: the process that worked here before{_named(owner)} was killed, or its machine stopped; "
            "this process takes the folder over",
            file=sys.stderr,
        )
    with suppress(OSError):  # it only serves messages
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        owner.write_text(json.dumps({"process": os.getpid(), "machine": socket.gethostname(), "since": since}))


def _named(owner: Path) -> str:
    """ " (12345 on machine, since ...)", if that can be read."""
    try:
        known = json.loads(owner.read_text(encoding="utf-8"))
        return f" ({known['process']} on {known['machine']}, since {known['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
