"""Framed attention on the CPU in float32: Numba kernels behind torch operators with gradients of their own.

The same function as `reference`, rearranged: weights of the edges are all that is kept of an edge; the cosines enter as
Chebyshev polynomials, in which the Gaussians are expanded to 2e-6 (`model.basis.chebyshev_of_gaussians`), so that one
multiplication takes the place of an exponential; everything linear happens once per atom, as matrix products.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from crystalframer.config import DistanceBasis, FrameConfig, ModelConfig
from crystalframer.model.basis import chebyshev_of_gaussians, distance_centers, gaussians
from crystalframer.model.edges import Edges
from crystalframer.model.frames import AttendedEdges, build_frames, noise_key
from crystalframer.ops import frame_kernels, kernels

SMALLEST_SHARE = 2000
"""Edges below which a second thread costs more than it saves."""


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
    """As `reference.framed_attention`, of which this is the `output`."""
    layout = _layout(edges)
    basis = layout.basis(config.distance)
    precision = 0.5 / decay_length.square()
    logits, attention = attend(query, key, precision, layout.key, layout.first_edge, layout.squared)
    axes, projection = query.new_empty(0, 0, 0, 0), None
    if cosine_projection is not None:
        projection = cosine_projection @ torch.from_numpy(chebyshev_of_gaussians(config.cosine)).to(cosine_projection)
        axes = _axes(logits.detach(), attention.detach(), edges, layout, config.frame, noise_seed)
    degree = 0 if projection is None else projection.shape[-1]
    values, distances, cosines = accumulate(
        attention, value, axes, basis, layout.directions, layout.is_self, layout.key, layout.first_edge, degree
    )
    distance_values = einsum(distances, distance_projection, "n h m, h d m -> n h d")
    output = values + config.distance.coefficient * distance_values
    if projection is None:
        return output
    return output + config.cosine.coefficient * einsum(cosines, projection, "n h k m, k h d m -> n h d")


# --- what the kernels need of a batch ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Layout:
    """The geometry of a batch as the kernels read it, shared by all layers."""

    first_edge: Tensor
    """(n_atoms + 1): where each atom's edges start."""
    key: Tensor
    squared: Tensor
    directions: Tensor
    """(3, n_edges)"""
    vectors: Tensor
    """(3, n_edges)"""
    is_self: Tensor
    lengths: Tensor
    _bases: dict[DistanceBasis, Tensor]

    def basis(self, config: DistanceBasis) -> Tensor:
        """(n_edges, n_centers)"""
        if config not in self._bases:
            self._bases[config] = gaussians(self.lengths, *distance_centers(config, self.lengths))
        return self._bases[config]


_layouts: WeakKeyDictionary[Edges, _Layout] = WeakKeyDictionary()


def _layout(edges: Edges) -> _Layout:
    if edges not in _layouts:
        counts = torch.bincount(edges.query, minlength=edges.n_atoms)
        _layouts[edges] = _Layout(
            first_edge=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            key=edges.key.int(),
            squared=edges.lengths.square(),
            directions=edges.directions.T.contiguous(),
            vectors=edges.vectors.T.contiguous(),
            is_self=edges.is_self,
            lengths=edges.lengths,
            _bases={},
        )
    return _layouts[edges]


def _axes(
    logits: Tensor,
    attention: Tensor,
    edges: Edges,
    layout: _Layout,
    config: FrameConfig,
    noise_seed: int | None,
) -> Tensor:
    """Frames by kernel where they come from single edges, else by the reference."""
    if config.method not in ("max", "static-max"):
        return build_frames(AttendedEdges(edges, logits.T, attention.T), config, noise_seed).axes.contiguous()
    n_heads = len(logits)
    scores = logits if config.method == "max" else (-layout.squared).expand(n_heads, -1).contiguous()
    noise, margin = (0.0, config.tie_margin) if noise_seed is None else (config.noise, 0.0)
    keys = (np.uint32(noise_key(noise_seed or 0, axis)) for axis in range(2))
    axes = logits.new_empty(edges.n_atoms, n_heads, 3, 3)
    anchors = torch.empty(edges.n_atoms, n_heads, 2, dtype=torch.long)
    arrays = [t.numpy() for t in (layout.first_edge, layout.is_self, layout.directions, layout.vectors)]
    _over_atoms(
        frame_kernels.max_frames,
        *arrays,
        scores.numpy(),
        scores.numpy(),
        attention.numpy(),
        np.float32(noise),
        *keys,
        np.float32(margin),
        frame_kernels.SECOND_AXIS_MOMENTS,
        axes.numpy(),
        anchors.numpy(),
    )
    return axes


# --- threads ----------------------------------------------------------------------------------------------------------


def _over_atoms(run: Callable[..., None], first_edge: np.ndarray, *arguments: Any) -> None:
    """run(first_atom, last_atom, first_edge, *arguments), divided among threads by edges."""
    n_shares = max(1, min(torch.get_num_threads(), int(first_edge[-1]) // SMALLEST_SHARE))
    ends = np.searchsorted(first_edge, np.linspace(0, first_edge[-1], n_shares + 1)[1:-1])
    _share(run, [0, *ends.tolist(), len(first_edge) - 1], first_edge, *arguments)


def _over_heads(run: Callable[..., None], n_heads: int, first_edge: np.ndarray, *arguments: Any) -> None:
    n_shares = max(1, min(torch.get_num_threads(), n_heads, int(first_edge[-1]) // SMALLEST_SHARE))
    ends = np.linspace(0, n_heads, n_shares + 1).round().astype(int)
    _share(run, ends.tolist(), first_edge, *arguments)


def _share(run: Callable[..., None], ends: list[int], *arguments: Any) -> None:
    shares = list(pairwise(ends))
    waiting = [_pool().submit(run, *share, *arguments) for share in shares[1:]]
    run(*shares[0], *arguments)
    for future in waiting:
        future.result()


@lru_cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="crystalframer")


if hasattr(os, "register_at_fork"):  # a child process has no threads yet
    os.register_at_fork(after_in_child=_pool.cache_clear)


# --- operators --------------------------------------------------------------------------------------------------------


@torch.library.custom_op(
    "crystalframer::attend",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor query, Tensor key, Tensor precision, Tensor key_atom, Tensor first_edge, "
    "Tensor squared) -> (Tensor, Tensor)",
)
def attend(
    query: Tensor, key: Tensor, precision: Tensor, key_atom: Tensor, first_edge: Tensor, squared: Tensor
) -> tuple[Tensor, Tensor]:
    """(n_heads, n_edges) logits q·k/√d - r²·precision, and their softmax over the edges of each atom."""
    logits = query.new_empty(query.shape[1], len(key_atom))
    attention = torch.empty_like(logits)
    _over_atoms(kernels.attend, *_arrays(first_edge, key_atom, squared, query, key, precision, logits, attention))
    return logits, attention


@attend.register_fake
def _(query: Tensor, key: Tensor, precision: Tensor, key_atom: Tensor, first_edge: Tensor, squared: Tensor) -> Any:
    logits = query.new_empty(query.shape[1], len(key_atom))
    return logits, torch.empty_like(logits)


@torch.library.custom_op(
    "crystalframer::attend_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor grad_attention, Tensor query, Tensor key, Tensor attention, Tensor key_atom, "
    "Tensor first_edge, Tensor squared) -> (Tensor, Tensor, Tensor)",
)
def attend_backward(
    grad_attention: Tensor,
    query: Tensor,
    key: Tensor,
    attention: Tensor,
    key_atom: Tensor,
    first_edge: Tensor,
    squared: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and precisions. The logits themselves carry none: frames are constants."""
    grad_logits = grad_attention.contiguous().clone()
    grad_query, grad_key = torch.empty_like(query), torch.zeros_like(key)
    grad_precision = query.new_empty(query.shape[:2])
    edges = _arrays(first_edge, key_atom)
    _over_atoms(
        kernels.attend_backward_query,
        *edges,
        *_arrays(squared, key, attention, grad_logits, grad_query, grad_precision),
    )
    scale = np.float32(query.shape[2] ** -0.5)
    _over_heads(
        kernels.scatter_to_keys,
        query.shape[1],
        *edges,
        *_arrays(grad_logits, query),
        scale,
        *_arrays(grad_key),
    )
    return grad_query, grad_key, grad_precision


@attend_backward.register_fake
def _(grad_attention: Tensor, query: Tensor, key: Tensor, *_: Tensor) -> Any:
    return torch.empty_like(query), torch.empty_like(key), query.new_empty(query.shape[:2])


def _keep_for_attend(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, _, key_atom, first_edge, squared = inputs
    ctx.save_for_backward(query, key, output[1], key_atom, first_edge, squared)


def _backward_of_attend(ctx: Any, grad_logits: Tensor | None, grad_attention: Tensor) -> tuple[Tensor | None, ...]:
    return (*attend_backward(grad_attention, *ctx.saved_tensors), None, None, None)


attend.register_autograd(_backward_of_attend, setup_context=_keep_for_attend)


@torch.library.custom_op(
    "crystalframer::accumulate",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor attention, Tensor value, Tensor axes, Tensor basis, Tensor directions, Tensor is_self, "
    "Tensor key_atom, Tensor first_edge, int degree) -> (Tensor, Tensor, Tensor)",
)
def accumulate(
    attention: Tensor,
    value: Tensor,
    axes: Tensor,
    basis: Tensor,
    directions: Tensor,
    is_self: Tensor,
    key_atom: Tensor,
    first_edge: Tensor,
    degree: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each atom and head: values (d_head), distance Gaussians (n_centers), cosine polynomials (3, degree)."""
    values = torch.empty_like(value)
    distances = value.new_empty(*value.shape[:2], basis.shape[1])
    cosines = value.new_empty(*value.shape[:2], 3, degree)
    _over_atoms(
        kernels.accumulate,
        *_arrays(first_edge, key_atom, is_self, directions, basis, attention, value, axes, values, distances, cosines),
    )
    return values, distances, cosines


@accumulate.register_fake
def _(attention: Tensor, value: Tensor, axes: Tensor, basis: Tensor, *rest: Any) -> Any:
    distances = value.new_empty(*value.shape[:2], basis.shape[1])
    return torch.empty_like(value), distances, value.new_empty(*value.shape[:2], 3, rest[-1])


@torch.library.custom_op(
    "crystalframer::accumulate_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor grad_values, Tensor grad_distances, Tensor grad_cosines, Tensor attention, "
    "Tensor value, Tensor axes, Tensor basis, Tensor directions, Tensor is_self, Tensor key_atom, "
    "Tensor first_edge) -> (Tensor, Tensor)",
)
def accumulate_backward(
    grad_values: Tensor,
    grad_distances: Tensor,
    grad_cosines: Tensor,
    attention: Tensor,
    value: Tensor,
    axes: Tensor,
    basis: Tensor,
    directions: Tensor,
    is_self: Tensor,
    key_atom: Tensor,
    first_edge: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the weights and of the values."""
    grad_attention, grad_value = torch.empty_like(attention), torch.zeros_like(value)
    edges = _arrays(first_edge, key_atom)
    gradients = _arrays(grad_values.contiguous(), grad_distances.contiguous(), grad_cosines.contiguous())
    _over_atoms(
        kernels.accumulate_backward,
        *edges,
        *_arrays(is_self, directions, basis, value, axes),
        *gradients,
        *_arrays(grad_attention),
    )
    _over_heads(
        kernels.scatter_to_keys,
        value.shape[1],
        *edges,
        *_arrays(attention),
        gradients[0],
        np.float32(1.0),
        *_arrays(grad_value),
    )
    return grad_attention, grad_value


@accumulate_backward.register_fake
def _(a: Tensor, b: Tensor, c: Tensor, attention: Tensor, value: Tensor, *_: Tensor) -> Any:
    return torch.empty_like(attention), torch.empty_like(value)


def _keep_for_accumulate(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:-1])


def _backward_of_accumulate(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    return (*accumulate_backward(*gradients, *ctx.saved_tensors), *[None] * 7)


accumulate.register_autograd(_backward_of_accumulate, setup_context=_keep_for_accumulate)


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    """NumPy views; the kernels want contiguous memory."""
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)
