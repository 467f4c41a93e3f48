"""One small kernel, by which `compilers` finds out whether Triton can compile for a GPU."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _store(place: Any) -> None:
    tl.store(place, 1.0)


def run(device: str = "cuda") -> None:
    """Compile and run a kernel, and wait for it.

    Raises:
        Exception: what Triton, the C compiler that it calls, or the GPU raises.
    """
    place = torch.zeros(1, device=device)
    _store[(1,)](place)
    place.item()
