"""Framed attention behind one function: the fastest implementation for the device and precision at hand.

`reference` is plain torch, runs everywhere and in float64, and is the oracle of the others; `cpu` is compiled by Numba
for float32 on the CPU, `cuda` by Triton for float32 on CUDA devices. All are the same function of the same arguments,
differentiable in all weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from crystalframer.compiled import COMPILERS, compiler_is_there
from crystalframer.config import ModelConfig
from crystalframer.errors import ConfigError, suggestion
from crystalframer.maths.edges import Edges
from crystalframer.maths.frames import NoiseSeed
from crystalframer.ops import reference

Implementation = Literal["auto", "reference", "cpu", "cuda"]
_chosen: ContextVar[Implementation] = ContextVar("crystalframer_ops", default="auto")


@contextmanager
def use(implementation: Implementation) -> Iterator[None]:
    """Choose how every layer is computed within this context.

    `auto`, the default, takes the fastest that serves the device and precision of the tensors. `reference`, `cpu` and
    `cuda` insist: what they cannot compute is an error. With TRITON_INTERPRET=1 in the environment from the start,
    `cuda` serves tensors on the CPU too (slowly, for tests).

    Raises:
        ConfigError: no such implementation; later, within the context, tensors that it does not serve.
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
    key: Float[Tensor, "n_keys n_heads d_head"],
    value: Float[Tensor, "n_keys n_heads d_head"],
    decay_length: Float[Tensor, "n_atoms n_heads"],
    distance_projection: Float[Tensor, "n_heads d_head n_distance_centers"],
    cosine_projection: Float[Tensor, "3 n_heads d_head n_cosine_centers"] | None,
    edges: Edges,
    config: ModelConfig,
    noise_seed: NoiseSeed | None = None,
) -> Float[Tensor, "n_atoms n_heads d_head"]:
    """The output of `reference.framed_attention`, whose arguments these are.

    Raises:
        ConfigError: the implementation that `use` insists on does not serve these tensors.
    """
    arguments = (query, key, value, decay_length, distance_projection, cosine_projection, edges, config, noise_seed)
    implementation = serving(query.device, query.dtype)
    if noise_seed is None and config.frame.average_margin > 0 and (implementation == "cuda" or query.requires_grad):
        implementation = "reference"  # averages over ties have no kernel on CUDA, and none with gradients
    if implementation == "cpu":
        from crystalframer.ops import cpu

        return cpu.framed_attention(*arguments)
    if implementation == "cuda":
        from crystalframer.ops import cuda

        return cuda.framed_attention(*arguments)
    return reference.framed_attention(*arguments).output


@torch.compiler.assume_constant_result
def serving(device: torch.device, dtype: torch.dtype) -> Implementation:
    """`reference`, `cpu` or `cuda`; a model compiled by torch keeps what was chosen when it was compiled."""
    chosen = _chosen.get()
    if chosen == "reference":
        return chosen
    single = dtype == torch.float32
    if chosen == "auto":
        fast = single and compiler_is_there(device.type)
        return device.type if fast else "reference"  # type: ignore[return-value]  # named as the devices they serve
    interpreted = chosen == "cuda" and device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if not single or not (device.type == chosen or interpreted):
        missing = " (this machine has none)" if chosen == "cuda" and not torch.cuda.is_available() else ""
        raise ConfigError(
            f"ops.use({chosen!r}): it computes float32 on a {chosen} device{missing}, and the model and its batch are "
            f"{str(dtype).removeprefix('torch.')} on {device}. Move or convert both, or leave the choice to "
            "ops.use('auto')"
        )
    if find_spec(COMPILERS[chosen]) is None:
        compiler = COMPILERS[chosen]
        raise ConfigError(f"ops.use({chosen!r}): it needs {compiler}, which is not installed: pip install {compiler}")
    return chosen
