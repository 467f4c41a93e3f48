"""Whether kernels can be compiled for a device."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec

import torch


@cache
def compiler_is_there(device_type: str) -> bool:
    """Whether kernels can be compiled for this type of device.

    For a GPU, one kernel is tried once. Warns if Triton is not installed, or cannot compile.
    """
    if device_type != "cuda":
        return device_type == "cpu"
    problem, cure = _problem_of_triton()
    if problem:
        slower = "crystalframer computes on the GPU without compiled kernels, several times slower"
        warnings.warn(f"{problem}: {slower}. {cure}", stacklevel=2)
    return not problem


def _problem_of_triton() -> tuple[str, str]:
    """Why Triton cannot compile for the GPU, and what to do; empty if it can."""
    if find_spec("triton") is None:
        return "Triton is not installed", "To fix this: pip install triton"
    try:
        from crystalframer.ops import triton_probe

        triton_probe.run()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Triton, the C compiler and the driver raise what they like
        reason = str(error).partition("\n")[0] or type(error).__name__
        needs = "It needs a C compiler (gcc or clang, or its path in CC) and a GPU of compute capability 7.0 or newer"
        return f"Triton cannot compile for this GPU ({reason})", needs
    return "", ""
