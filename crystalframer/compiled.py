"""Kernels that Numba compiles on first use and caches on disk. They release the interpreter's lock for threads.

The cache saves time and decides nothing else. A folder that is read-only or full, or a damaged file in it, costs the
time to compile.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any


def kernel(maths: Collection[str] = (), *, inlined: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a function so that Numba compiles it.

    Args:
        maths: LLVM's fast-math flags, by which the compiler may round differently. Default: none.
        inlined: compile the function into each kernel that calls it. A call passes about thirty numbers for its arrays,
            which takes as long as a short loop.
    """
    from numba import njit

    from crystalframer.kernel_cache import CheckedCache

    def compile(function: Callable[..., Any]) -> Callable[..., Any]:
        plain = inspect.unwrap(function)  # of the wrapper that checks types in tests: a compiler wants the bare one
        compiled = njit(nogil=True, fastmath=set(maths), error_model="numpy", forceinline=inlined)(plain)
        with suppress(RuntimeError, OSError):  # no folder to keep it in: compiled anew in every process
            compiled._cache = CheckedCache(plain)  # type: ignore[attr-defined]  # as `enable_caching` sets it
        return compiled

    return compile


_said: set[str] = set()


@contextmanager
def announced(what: str, after: float = 2.0) -> Iterator[None]:
    """Announce on standard error, once, that preparing kernels takes time, if it takes more than `after` seconds."""

    def say() -> None:
        if what not in _said:
            _said.add(what)
            message = f"crystalframer: preparing {what}; the first time on a machine takes up to a minute"
            print(message, file=sys.stderr, flush=True)

    timer = threading.Timer(after, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
