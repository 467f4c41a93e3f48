"""Settings and states of the process, which other code may have changed and which belong to the caller.

`plain` makes numbers independent of them: a model is loaded, evaluated and trained with the same settings whatever
notebook, script or library is around. `left_alone` gives back what a training changes.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np

from crystalframer.processes.forks import note_thread

_DEVICES_WITH_AUTOCAST = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def plain() -> Iterator[None]:
    """Compute in float32 without short cuts, on the devices that are named, and with gradients.

    Inside, there is no autocast, no default device and no inference mode of the caller, torch makes float32 tensors and
    multiplies them in float32 (neither TF32 nor bfloat16), and NumPy reports errors of arithmetic as it does by
    default. Also serves as a decorator.

    >>> import torch
    >>> with torch.autocast("cpu", dtype=torch.bfloat16), plain():
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    note_thread()
    with ExitStack() as stack:
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        if "torch" in sys.modules:  # else nobody has changed its settings
            stack.enter_context(_plain_torch())
        yield


@contextmanager
def _plain_torch() -> Iterator[None]:
    import torch

    with ExitStack() as stack:
        stack.enter_context(_of_process)
        for device in filter(torch.is_autocast_enabled, _DEVICES_WITH_AUTOCAST):
            torch.set_autocast_enabled(device, False)
            stack.callback(torch.set_autocast_enabled, device, True)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


@contextmanager
def left_alone() -> Iterator[None]:
    """Give back the random states of Python, NumPy and torch, the environment variables and the current GPU, however
    the work ends. Also serves as a decorator.

    >>> import torch
    >>> torch.manual_seed(0).initial_seed()
    0
    >>> with left_alone():
    ...     first = torch.rand(1)
    >>> bool(torch.rand(1) == first)
    True
    """
    import torch

    of_python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpu = torch.cuda.is_initialized()
    of_gpus = torch.cuda.get_rng_state_all() if on_gpu else []
    gpu = torch.cuda.current_device() if on_gpu else None
    environment = os.environ.copy()
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        if gpu is not None:
            torch.cuda.set_rng_state_all(of_gpus)
            torch.cuda.set_device(gpu)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        for name, value in environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value


class _SettingsOfProcess:
    """Settings that all threads share: the first call that comes sets them, and the last one to go gives them back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._given_back = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                self._set()
            self._n_inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._given_back.close()

    def _set(self) -> None:
        import torch

        if (dtype := torch.get_default_dtype()) != torch.float32:
            self._change(torch.set_default_dtype, torch.float32, dtype)
        # One for each backend; `torch.get_float32_matmul_precision` fails where they differ.
        backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
        for backend in backends:
            if (precision := backend.fp32_precision) not in ("none", "ieee"):
                self._change(partial(setattr, backend, "fp32_precision"), "ieee", precision)

    def _change(self, change: Callable[..., object], now: object, before: object) -> None:
        change(now)
        self._given_back.callback(change, before)


_of_process = _SettingsOfProcess()
