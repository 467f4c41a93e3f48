"""Framed attention behind one function: the fastest implementation for the device and precision at hand.

`reference` is plain torch, runs everywhere and in float64, and is the oracle of the others; `cpu` is compiled by Numba
for float32 on the CPU. Both are the same function of the same arguments, differentiable in all weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from crystalframer.config import ConfigError, ModelConfig, suggestion
from crystalframer.model.edges import Edges
from crystalframer.ops import reference

Implementation = Literal["auto", "reference"]
_chosen: ContextVar[Implementation] = ContextVar("crystalframer_ops", default="auto")


@contextmanager
def use(implementation: Implementation) -> Iterator[None]:
    """Within this context, `reference` computes every layer in plain torch; `auto` is the default.

    Raises:
        ConfigError: no such implementation.
    """
    if implementation not in get_args(Implementation):
        known = get_args(Implementation)
        raise ConfigError(f"implementation {implementation!r} is unknown{suggestion(str(implementation), known)}")
    token = _chosen.set(implementation)
    try:
        yield
    finally:
        _chosen.reset(token)


def framed_attention(
    query: Float[Tensor, "n_atoms n_heads d_head"],
    key: Float[Tensor, "n_atoms n_heads d_head"],
    value: Float[Tensor, "n_atoms n_heads d_head"],
    decay_length: Float[Tensor, "n_atoms n_heads"],
    distance_projection: Float[Tensor, "n_heads d_head n_distance_centers"],
    cosine_projection: Float[Tensor, "3 n_heads d_head n_cosine_centers"] | None,
    edges: Edges,
    config: ModelConfig,
    noise_seed: int | None = None,
) -> Float[Tensor, "n_atoms n_heads d_head"]:
    """The output of `reference.framed_attention`, whose arguments these are."""
    arguments = (query, key, value, decay_length, distance_projection, cosine_projection, edges, config, noise_seed)
    on_cpu = query.device.type == "cpu" and query.dtype == torch.float32
    if on_cpu and _chosen.get() == "auto" and _numba_is_there():
        from crystalframer.ops import cpu

        return cpu.framed_attention(*arguments)
    return reference.framed_attention(*arguments).output


@cache
def _numba_is_there() -> bool:
    if find_spec("numba") is not None:
        return True
    warnings.warn(
        "Numba is not installed: crystalframer computes on the CPU in plain torch, several times slower. "
        "Mend it with: pip install numba",
        stacklevel=2,
    )
    return False
