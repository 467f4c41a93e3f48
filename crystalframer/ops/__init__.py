"""Framed attention behind one function, which takes the fastest implementation for the device and the precision.

`reference` is plain torch: it runs everywhere, also in float64, and the others are tested against it. Numba compiles
`cpu` for float32 on the CPU, and Triton compiles `cuda` for float32 on CUDA devices. All compute the same function of
the same arguments, and gradients of all weights.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crystalframer.errors import ConfigError, CrystalError, suggestion
from crystalframer.maths import segments
from crystalframer.ops import contraction, reference
from crystalframer.ops.compilers import compiler_is_there
from crystalframer.ops.operators import constant
from crystalframer.ops.reference import AttentionInputs

Implementation = Literal["auto", "reference", "cpu", "cuda"]
_chosen: ContextVar[Implementation] = ContextVar("crystalframer_ops", default="auto")


@contextmanager
def use(implementation: Implementation) -> Iterator[None]:
    """Choose the implementation of every attention layer within this context.

    `auto`, the default, takes the fastest implementation for the device and the precision of the tensors. `reference`,
    `cpu` and `cuda` are binding: tensors that they cannot compute are an error. With TRITON_INTERPRET=1 in the
    environment from the start, `cuda` also computes tensors on the CPU (slowly, for tests).

    Raises:
        ConfigError: no such implementation; or later, within the context, tensors that it cannot compute.
    """
    if implementation not in get_args(Implementation):
        known = get_args(Implementation)
        problem = f"unknown value{suggestion(str(implementation), known)}"
        raise ConfigError(problem, field="implementation", value=implementation)
    token = _chosen.set(implementation)
    try:
        yield
    finally:
        _chosen.reset(token)


def framed_attention(given: AttentionInputs) -> Float[Tensor, "n_atoms n_heads d_head"]:
    """The output of `reference.framed_attention`, by the implementation that serves its tensors.

    Raises:
        ConfigError: the implementation that `use` asks for cannot compute these tensors.
        CrystalError: the edge vectors ask for a gradient, and this model has none.
    """
    if given.edges.lengths.requires_grad:
        return _differentiable(given)
    implementation = serving(given.query.device, given.query.dtype)
    sums = given.noise_seed is None and given.config.frame.weighted_margin > 0
    has_gradients = any(tensor.requires_grad for tensor in (given.query, given.key, given.decay_length))
    if sums and has_gradients:
        implementation = "reference"  # kernels that sum over weighted frames have no gradients
    if implementation == "cpu":
        from crystalframer.ops import cpu

        return cpu.framed_attention(given)
    if implementation == "cuda":
        from crystalframer.ops import cuda

        try:
            return cuda.framed_attention(given)
        except (OSError, json.JSONDecodeError) as error:
            if _chosen.get() == "cuda":
                raise
            _say_that_kernels_fail(str(error))
    return reference.framed_attention(given).output


def contracted(
    given: AttentionInputs, gradient: Float[Tensor, "n_atoms n_heads d_head"], factors: Float[Tensor, "n_edges n_heads"]
) -> contraction.Contracted:
    """`contraction.contracted`, by tables where kernels for the CPU serve the tensors, else by the reference."""
    fast = given.query.device.type == "cpu" and serving(given.query.device, given.query.dtype) == "cpu"
    return contraction.contracted(given, gradient, factors, fast)


def segment_mean(
    values: Float[Tensor, "n_items n_columns"], segment: Int[Tensor, " n_items"], n_segments: int
) -> Float[Tensor, "n_segments n_columns"]:
    """Mean of the values in each segment, of items sorted by segment; 0 for an empty one.

    The kernel for CUDA adds them up in the same order every time.
    """
    if serving(values.device, values.dtype) != "cuda":
        return segments.segment_mean(values, segment, n_segments)
    from crystalframer.ops import cuda

    return cuda.segment_mean(values, segment, n_segments)


def lookup(
    table: Float[Tensor, "n_rows n_columns"], row: Int[Tensor, " n_items"]
) -> Float[Tensor, "n_items n_columns"]:
    """Rows of a table. On CUDA devices their gradient is added up in the same order every time."""
    if serving(table.device, table.dtype) != "cuda":
        return torch.nn.functional.embedding(row, table)
    from crystalframer.ops import cuda

    return cuda.Lookup.apply(table, row)


def _differentiable(given: AttentionInputs) -> Float[Tensor, "n_atoms n_heads d_head"]:
    """The output with a gradient with respect to the structure, which only plain torch has."""
    chosen, frame = _chosen.get(), given.config.frame
    if chosen not in ("auto", "reference"):
        problem = "it has no gradient with respect to the structure; let ops.use('auto') choose, or detach edge_vectors"
        raise ConfigError(problem, field="implementation", value=chosen)
    if frame.chooses:
        cure = "set model.frame.weighted_margin (methods max and static-max) or model.frame.method = none; or detach it"
        problem = f"requires a gradient, and a frame that is chosen (method {frame.method}) has none; {cure}"
        raise CrystalError(problem, field="edge_vectors")
    if frame.promises.axes and given.noise_seed is not None:
        problem = "requires a gradient, and a frame that is drawn has none; call the model without noise_seed"
        raise CrystalError(problem, field="edge_vectors")
    return reference.framed_attention(given).output


@cache
def _say_that_kernels_fail(error: str) -> None:
    warnings.warn(
        f"Triton cannot compile kernels or keep them ({error}): crystalframer computes without them, several times "
        "slower. Empty the folder of Triton's cache (~/.triton), or name one with space in TRITON_CACHE_DIR",
        stacklevel=3,
    )


@constant
def serving(device: torch.device, dtype: torch.dtype) -> Implementation:
    """`reference`, `cpu` or `cuda`. A model compiled by torch keeps the choice that was made when it was compiled."""
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
            f"it computes float32 on a {chosen} device{missing}, but the model and its batch are "
            f"{str(dtype).removeprefix('torch.')} on {device}. Move or convert both, or let ops.use('auto') choose",
            field="implementation",
            value=chosen,
        )
    if chosen == "cuda" and find_spec("triton") is None:
        problem = "it needs Triton, which is not installed: pip install triton"
        raise ConfigError(problem, field="implementation", value=chosen)
    return chosen
