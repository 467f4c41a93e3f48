"""Compiled kernels: Numba on first use, kept on disk, free of the interpreter's lock so that threads share them."""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from typing import Any


def kernel(maths: Collection[str] = (), *, inlined: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator of a function that Numba compiles; the module that uses it is imported where Numba is.

    Args:
        maths: LLVM's fast-math flags, the liberties that the compiler may take with rounding. Default: none.
        inlined: it becomes a part of each kernel that calls it. A call hands over some thirty numbers for its arrays,
            which takes as long as a short loop.
    """
    from numba import njit

    def compile(function: Callable[..., Any]) -> Callable[..., Any]:
        plain = inspect.unwrap(function)  # of the wrapper that checks types in tests: a compiler wants the bare one
        compiled = njit(nogil=True, fastmath=set(maths), error_model="numpy", forceinline=inlined)(plain)
        with suppress(RuntimeError):  # no folder to keep it in: compiled anew in every process
            compiled.enable_caching()
        return compiled

    return compile


_said: set[str] = set()


@contextmanager
def announced(what: str, after: float = 2.0) -> Iterator[None]:
    """Around the first call of kernels: says on standard error, once, what takes more than `after` seconds."""

    def say() -> None:
        if what not in _said:
            _said.add(what)
            message = f"crystalframer: compiling {what}; this happens once on this machine and takes up to 30 s"
            print(message, file=sys.stderr, flush=True)

    timer = threading.Timer(after, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


COMPILERS = {"cpu": "numba", "cuda": "triton"}
"""Type of device → what compiles kernels for it."""


@cache
def compiler_is_there(device_type: str) -> bool:
    """Whether kernels can be compiled for such a device; if only the compiler is missing, says so once."""
    if device_type not in COMPILERS:
        return False
    name = COMPILERS[device_type]
    if find_spec(name) is not None:
        return True
    what = {
        "numba": "Numba is not installed: crystalframer searches neighbours and computes on the CPU",
        "triton": "Triton is not installed: crystalframer computes on the GPU",
    }
    warnings.warn(
        f"{what[name]} without compiled kernels, several times slower. Mend it with: pip install {name}", stacklevel=2
    )
    return False
