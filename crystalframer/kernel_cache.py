"""Compiled kernels on disk, each with its checksum: Numba's own files have none, and a damaged one would be run."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.runtime import rtsys  # type: ignore[attr-defined]  # Numba's annotations do not export it
from numba.core.serialize import dumps

from crystalframer import files

ROOMS = ("kernels", "maths", "ops")
_SIZE = hashlib.sha256().digest_size


class CheckedCache(FunctionCache):
    """Numba's cache of a function, with files that cost no more than the time to compile, whatever becomes of them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        locator = self._impl.locator
        stamp = (locator.get_source_stamp(), sources())
        self._cache_file = _Files(locator.get_cache_path(), self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """A compiled function, without what Numba needs to compile one: to load that takes longer than most functions.

        A function that is not on the disk is compiled next. So that is loaded then.
        """
        rtsys.initialize(target_context)  # the memory of arrays, which compiled functions use
        with self._guard_against_spurious_io_errors():
            found = self._load_overload(sig, target_context)
            if found is not None:
                return found
        target_context.refresh()
        return None


@cache
def sources(package: Path = Path(__file__).parent) -> str:
    """Checksum of the source files of the rooms from which kernels take functions and constants.

    Numba compares only the file of the kernel itself. After an upgrade that changed only other modules, it would
    compute what the version before computed.
    """
    checksum = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((package / room).glob("*.py")):
            checksum.update(path.read_bytes())
    return checksum.hexdigest()


class _Files(IndexDataCacheFile):
    """One file for each signature of a function. One that is missing, damaged or of another source is not taken."""

    def __init__(self, folder: str, name: str, source_stamp: Any) -> None:
        super().__init__(folder, name, source_stamp)
        self._folder, self._name = Path(folder), name
        self._origin = repr((self._version, source_stamp)).encode()

    def load(self, key: Any) -> Any:
        try:
            content = self._file(key).read_bytes()
        except OSError:
            return None
        checksum, data = content[:_SIZE], content[_SIZE:]
        return pickle.loads(data) if checksum == self._checksum(key, data) else None

    def save(self, key: Any, data: Any) -> None:
        dumped = dumps(data)
        with suppress(OSError):  # the next process compiles it again
            files.write(self._file(key), self._checksum(key, dumped) + dumped)

    def flush(self) -> None:
        """Nothing: what is compiled anew replaces its file."""

    def _file(self, key: Any) -> Path:
        return self._folder / f"{self._name}.{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"

    def _checksum(self, key: Any, data: bytes) -> bytes:
        return hashlib.sha256(self._origin + repr(key).encode() + b"\0" + data).digest()
