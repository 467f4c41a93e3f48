"""Framed attention on the CPU in float32: Numba kernels behind torch operators with gradients of their own.

The same function as `reference` in another order. Only the weights of the edges are kept. The Gaussians of the cosines
are expanded in Chebyshev polynomials to 2e-6 (`maths.basis.chebyshev_of_gaussians`), so that one multiplication
replaces an exponential. Everything linear is computed once per atom, as matrix products.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from crystalframer.compiled import announced
from crystalframer.config import CosineBasis, DistanceBasis, FrameConfig
from crystalframer.maths.attended import AttendedEdges
from crystalframer.maths.basis import chebyshev_of_gaussians, chebyshev_products
from crystalframer.maths.edges import Edges
from crystalframer.maths.frames import build_frames, noise_key
from crystalframer.ops import frame_kernels, kernels, tie_kernels
from crystalframer.ops.operators import has_no_gradient, operator, uncompiled
from crystalframer.ops.reference import AttentionInputs

SMALLEST_SHARE = 2000
"""Number of edges below which a second thread costs more than it saves."""


def framed_attention(given: AttentionInputs) -> Float[Tensor, "n_atoms n_heads d_head"]:
    """The `output` of `reference.framed_attention`."""
    layout, config = _layout(given.edges), given.config
    precision = 0.5 / given.decay_length.square()
    steepness = 0.0 if config.decay.reach is None else 2.0 / config.decay.reach**2
    logits, attention, n_seen = attend(given.query, given.key, precision, *layout.pairs, layout.squared, steepness)
    projection, axes = config.distance.coefficient * given.distance_projection, given.query.new_empty(0, 0, 0, 0)
    summed = None
    if given.cosine_projection is not None:
        of_cosines = given.cosine_projection @ _cosine_basis(config.cosine).to(given.cosine_projection)
        of_cosines = config.cosine.coefficient * rearrange(of_cosines, "axes h d m -> h d (axes m)")
        if given.noise_seed is None and config.frame.weighted_margin > 0:
            summed = _cosines_of_sets(logits, attention, n_seen, layout, config.frame, of_cosines.shape[-1])
            summed = summed @ of_cosines.mT
        else:
            projection = torch.cat([projection, of_cosines], dim=-1)
            axes = _axes(logits.detach(), attention.detach(), n_seen, given, layout)
    geometry = layout.directions, layout.is_self, layout.lengths, *layout.blocks(config.distance), *layout.pairs
    sizes = config.distance.n_centers, *_spacing(config.distance), projection.shape[-1]
    values, moments, _ = accumulate(attention, n_seen, given.value, axes, *geometry, *sizes)
    projected = moments @ projection.mT
    return values + (projected if summed is None else projected + summed).transpose(0, 1)


@uncompiled
@lru_cache
def _cosine_basis(config: CosineBasis) -> Tensor:
    """(n_centers, n_moments) by which Gaussians follow from the moments; see `kernels.CHUNK`."""
    products = chebyshev_products(chebyshev_of_gaussians(config), kernels.CHUNK)
    products = chebyshev_products(rearrange(products, "m (c n) -> (m c) n", n=kernels.CHUNK), kernels.STEP)
    return torch.from_numpy(rearrange(products, "(m c) (k j odd) -> m (c odd k j)", m=config.n_centers, j=4, odd=2))


def _spacing(config: DistanceBasis) -> tuple[float, float]:
    """Spacing and standard deviation of the distance Gaussians, Å."""
    spacing = config.max_distance / config.n_centers
    return spacing, config.width * spacing


# --- a batch as the kernels need it -----------------------------------------------------------------------------------


class _Pairs(NamedTuple):
    """Distinct (query, key) atoms, and the edges of each query atom; see `kernels.find_pairs`."""

    first_edge: Tensor
    """(n_atoms + 1): where each atom's edges start; padded to multiples of `kernels.PAD`."""
    n_edges: Tensor
    """(n_atoms): without padding."""
    pair: Tensor
    first_pair: Tensor
    keys: Tensor
    nearest: Tensor
    first_at_key: Tensor
    pairs_at_key: Tensor
    queries: Tensor


class _Blocks(NamedTuple):
    """The edges that are near enough to every eight centres of the distance Gaussians; see `kernels.find_blocks`."""

    first_block: Tensor
    block_edge: Tensor
    block_size: Tensor


@dataclass(frozen=True, eq=False)
class _Layout:
    """The geometry of a batch as the kernels read it, shared by all layers. Edges are padded."""

    pairs: _Pairs
    first_given: Tensor
    """(n_atoms + 1): where each atom's edges start in the batch."""
    squared: Tensor
    """Å²"""
    lengths: Tensor
    """Å"""
    directions: Tensor
    """(3, n_edges)"""
    is_self: Tensor
    """True for the edges that pad, too."""
    _blocks: dict[DistanceBasis, _Blocks]

    @classmethod
    def of(cls, edges: Edges) -> _Layout:
        n_edges = torch.bincount(edges.query, minlength=edges.n_atoms)
        start = n_edges.new_zeros(1)
        padded = (n_edges + kernels.PAD - 1) // kernels.PAD * kernels.PAD
        first_given, first_edge = (torch.cat([start, counts.cumsum(0)]) for counts in (n_edges, padded))
        n_padded = int(first_edge[-1])
        squared, lengths = edges.lengths.new_empty(n_padded), edges.lengths.new_empty(n_padded)
        directions, is_self = edges.lengths.new_empty(3, n_padded), edges.is_self.new_empty(n_padded)
        given = _arrays(edges.lengths, edges.directions, edges.is_self)
        places = _arrays(squared, lengths, directions, is_self)
        _over_atoms(kernels.lay_out, *_arrays(first_edge, first_given), given, *places)
        pairs = kernels.find_pairs(*_arrays(first_given, first_edge, edges.key, squared), edges.n_keys)
        return cls(
            pairs=_Pairs(first_edge, n_edges, *map(torch.from_numpy, pairs)),
            first_given=first_given,
            squared=squared,
            lengths=lengths,
            directions=directions,
            is_self=is_self,
            _blocks={},
        )

    @cached_property
    def index(self) -> Tensor:
        """(n_edges of the batch): number of each edge here."""
        shift = (self.pairs.first_edge - self.first_given)[:-1]
        return torch.arange(int(self.first_given[-1])) + shift.repeat_interleave(self.pairs.n_edges)

    @uncompiled
    def blocks(self, config: DistanceBasis) -> _Blocks:
        if config not in self._blocks:
            spacing, width = _spacing(config)
            edges = _arrays(self.pairs.first_edge, self.lengths)
            blocks = kernels.find_blocks(*edges, config.n_centers, spacing, kernels.REACH * width)
            self._blocks[config] = _Blocks(*map(torch.from_numpy, blocks))
        return self._blocks[config]


_layouts: WeakKeyDictionary[Edges, _Layout] = WeakKeyDictionary()


@uncompiled
def _layout(edges: Edges) -> _Layout:
    if edges not in _layouts:
        _layouts[edges] = _Layout.of(edges)
    return _layouts[edges]


@uncompiled
def _axes(logits: Tensor, attention: Tensor, n_seen: Tensor, given: AttentionInputs, layout: _Layout) -> Tensor:
    """Frames by the kernel if the method has one, else by its formula in plain torch."""
    edges, config, noise_seed = given.edges, given.config.frame, given.noise_seed
    if "cpu" not in config.promises.kernels:
        without_padding = (values[:, layout.index].T for values in (logits, attention))
        return build_frames(AttendedEdges(edges, *without_padding), config, noise_seed).axes.contiguous()
    n_heads = len(logits)
    scores, weights, n_compared = _strengths(logits, attention, n_seen, layout, config)
    noise, margin = 0.0, config.tie_margin
    if weighted := noise_seed is not None and config.weighted_margin > 0:
        margin = config.weighted_margin
    elif noise_seed is not None:  # noise chooses among all edges that it can bring to the top
        noise, margin = config.noise, 2.0 * config.noise
    keys = (np.uint32(int(noise_key(0 if noise_seed is None else noise_seed, axis))) for axis in range(2))
    axes = logits.new_empty(edges.n_atoms, n_heads, 3, 3)
    anchors = torch.empty(edges.n_atoms, n_heads, 2, dtype=torch.long)
    _over_atoms(
        frame_kernels.max_frames,
        *_arrays(layout.pairs.first_edge),
        _arrays(layout.first_given, layout.is_self, layout.directions),
        _arrays(scores, weights, attention, n_compared),
        (np.float32(noise), *keys),
        np.float32(margin),
        (weighted, config.second_axis == "sine", config.both_hands),
        *_arrays(axes, anchors),
    )
    return axes


@uncompiled
def _cosines_of_sets(
    logits: Tensor, attention: Tensor, n_seen: Tensor, layout: _Layout, config: FrameConfig, size: int
) -> Tensor:
    """(n_heads, n_atoms, size) moments of the cosines, summed over weighted sets of frames. No gradient."""
    scores, weights, n_compared = _strengths(logits, attention, n_seen, layout, config)
    moments = logits.new_empty(len(logits), len(layout.pairs.n_edges), size)
    _over_atoms(
        tie_kernels.cosines_of_sets,
        *_arrays(layout.pairs.first_edge, layout.is_self, layout.directions),
        _arrays(scores, weights, attention, n_seen, n_compared),
        np.float32(config.weighted_margin),
        config.second_axis == "sine",
        *_arrays(moments),
    )
    return moments


def _strengths(
    logits: Tensor, attention: Tensor, n_seen: Tensor, layout: _Layout, config: FrameConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """(n_heads, n_edges) scores by which edges are chosen, and e^scores up to a factor of each atom and head; and
    (n_heads, n_atoms) how many edges are compared.
    """
    if config.promises.anchored_by == "attention":  # what a head does not see needs no frame
        return logits, attention, n_seen
    scores = (-layout.squared).expand(len(logits), -1)
    return scores, scores.exp(), layout.pairs.first_edge.diff().expand(len(logits), -1)


# --- threads ----------------------------------------------------------------------------------------------------------


def _over_atoms(run: Any, first_edge: np.ndarray, *arguments: Any) -> None:
    """The kernel run(first_atom, last_atom, first_edge, *arguments), divided among threads by edges."""
    if not run.overloads:  # a call without work compiles it or reads it from disk
        with announced("compiled kernels for the CPU"):
            run(0, 0, first_edge, *arguments)
    n_edges, n_atoms = int(first_edge[-1]), len(first_edge) - 1
    n_shares = max(1, min(torch.get_num_threads(), n_edges // SMALLEST_SHARE))
    ends = [np.searchsorted(first_edge, n * n_edges // n_shares) for n in range(1, n_shares)]
    _share(run, [0, *map(int, ends), n_atoms], first_edge, *arguments)


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


_PAIRS = ", ".join(f"Tensor {name}" for name in _Pairs._fields)
_BLOCKS = ", ".join(f"Tensor {name}" for name in _Blocks._fields)


@operator(
    "attend",
    "cpu",
    f"(Tensor query, Tensor key, Tensor precision, {_PAIRS}, Tensor squared, float steepness) -> "
    "(Tensor, Tensor, Tensor)",
)
def attend(query: Tensor, key: Tensor, precision: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(n_heads, n_edges) logits q·k/√d - r²·precision, and their softmax over the edges of each atom, with an envelope
    if `steepness` is not 0; and (n_heads, n_atoms) how many edges are worth to be seen. See `kernels.attend`.
    """
    *pairs, squared, steepness = rest
    p, n_heads = _Pairs(*pairs), query.shape[1]
    logits = query.new_empty(n_heads, len(squared))
    attention = torch.empty_like(logits)
    n_seen = torch.empty(n_heads, len(p.n_edges), dtype=torch.long)
    of_pairs = _arrays(p.n_edges, p.pair, p.first_pair, p.keys, p.nearest)
    inputs, outputs = _arrays(squared, query, key, precision), _arrays(logits, attention, n_seen)
    _over_atoms(kernels.attend, *_arrays(p.first_edge), of_pairs, *inputs, np.float32(steepness), *outputs)
    return logits, attention, n_seen


@torch.library.register_fake(attend)
def _(query: Tensor, key: Tensor, precision: Tensor, *rest: Any) -> Any:
    n_heads, p = query.shape[1], _Pairs(*rest[:-2])
    logits = query.new_empty(n_heads, len(rest[-2]))
    return logits, torch.empty_like(logits), query.new_empty(n_heads, len(p.n_edges), dtype=torch.long)


@operator(
    "attend_backward",
    "cpu",
    "(Tensor grad_attention, Tensor query, Tensor key, Tensor precision, Tensor attention, Tensor n_seen, "
    f"{_PAIRS}, Tensor squared, float steepness) -> (Tensor, Tensor, Tensor)",
)
def attend_backward(
    grad_attention: Tensor, query: Tensor, key: Tensor, precision: Tensor, attention: Tensor, n_seen: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and precisions. The logits themselves carry none: frames are constants."""
    *pairs, squared, steepness = rest
    p = _Pairs(*pairs)
    of_pairs, grad_precision = attention.new_empty(len(attention), len(p.keys)), query.new_empty(query.shape[:2])
    edges = _arrays(p.first_edge, p.pair, p.first_pair, squared, precision)
    weights = _arrays(n_seen, attention, grad_attention)
    outputs = _arrays(of_pairs, grad_precision)
    _over_atoms(kernels.attend_backward, *edges, np.float32(steepness), *weights, *outputs)
    scale = query.shape[2] ** -0.5
    return _at_queries(p, of_pairs, key, scale), _at_keys(p, of_pairs, query, scale), grad_precision


@torch.library.register_fake(attend_backward)
def _(grad_attention: Tensor, query: Tensor, key: Tensor, *_: Tensor) -> Any:
    return torch.empty_like(query), torch.empty_like(key), query.new_empty(query.shape[:2])


has_no_gradient(attend_backward)


def _keep_for_attend(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, precision, *geometry, ctx.steepness = inputs
    ctx.save_for_backward(query, key, precision, *output[1:], *geometry)


def _backward_of_attend(ctx: Any, _: Tensor | None, grad_attention: Tensor, __: Any) -> tuple[Tensor | None, ...]:
    gradients = attend_backward(grad_attention, *ctx.saved_tensors, ctx.steepness)
    return (*gradients, *[None] * (len(ctx.saved_tensors) - 4))


torch.library.register_autograd(attend, _backward_of_attend, setup_context=_keep_for_attend)


@operator(
    "accumulate",
    "cpu",
    "(Tensor attention, Tensor n_seen, Tensor value, Tensor axes, Tensor directions, Tensor is_self, "
    f"Tensor lengths, {_BLOCKS}, {_PAIRS}, int n_centers, float spacing, float width, int n_moments) -> "
    "(Tensor, Tensor, Tensor)",
)
def accumulate(
    attention: Tensor, n_seen: Tensor, value: Tensor, axes: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Attended values (n_atoms, n_heads, d_head); moments (n_heads, n_atoms, n_moments): first of the n_centers
    distance Gaussians, then of the cosines to each axis; and, for the backward pass, weights of pairs.
    """
    *geometry, n_centers, spacing, width, n_moments = rest
    edges, blocks, p = _unpacked(geometry)
    moments = value.new_empty(len(attention), len(p.n_edges), n_moments)
    of_pairs = value.new_empty(len(attention), len(p.keys))
    weights, sums = _arrays(attention, n_seen, axes), _arrays(of_pairs, moments)
    sizes = n_centers, spacing, width
    _over_atoms(kernels.accumulate, *_arrays(p.first_edge), edges, blocks, *weights, sizes, *sums)
    return _at_queries(p, of_pairs, value), moments, of_pairs


@torch.library.register_fake(accumulate)
def _(attention: Tensor, n_seen: Tensor, value: Tensor, *rest: Any) -> Any:
    p, n_moments = _Pairs(*rest[4 + len(_Blocks._fields) : -4]), rest[-1]
    n_heads, n_atoms = len(attention), len(p.n_edges)
    moments = value.new_empty(n_heads, n_atoms, n_moments)
    return value.new_empty(n_atoms, *value.shape[1:]), moments, value.new_empty(n_heads, len(p.keys))


@operator(
    "accumulate_backward",
    "cpu",
    "(Tensor grad_values, Tensor grad_moments, Tensor of_pairs, Tensor n_seen, Tensor value, Tensor axes, "
    f"Tensor directions, Tensor is_self, Tensor lengths, {_BLOCKS}, {_PAIRS}, int n_centers, float spacing, "
    "float width) -> (Tensor, Tensor)",
)
def accumulate_backward(
    grad_values: Tensor, grad_moments: Tensor, of_pairs: Tensor, n_seen: Tensor, value: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """Gradients of the weights and of the values."""
    axes, *geometry, n_centers, spacing, width = rest
    edges, blocks, p = _unpacked(geometry)
    grad_attention = value.new_empty(value.shape[1], int(p.first_edge[-1]))
    atoms, gradients = _arrays(value, n_seen, axes), _arrays(grad_values, grad_moments, grad_attention)
    sizes = n_centers, spacing, width
    _over_atoms(kernels.accumulate_backward, *_arrays(p.first_edge), edges, blocks, *atoms, sizes, *gradients)
    return grad_attention, _at_keys(p, of_pairs, grad_values)


@torch.library.register_fake(accumulate_backward)
def _(a: Tensor, b: Tensor, of_pairs: Tensor, n_seen: Tensor, value: Tensor, *rest: Any) -> Any:
    return value.new_empty(value.shape[1], len(rest[2])), torch.empty_like(value)


has_no_gradient(accumulate_backward)


def _keep_for_accumulate(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *_, of_pairs = output
    _, *geometry, n_centers, spacing, width, _ = inputs
    ctx.sizes = n_centers, spacing, width
    ctx.save_for_backward(of_pairs, *geometry)


def _backward_of_accumulate(ctx: Any, grad_values: Tensor, grad_moments: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    gradients = accumulate_backward(grad_values, grad_moments, *ctx.saved_tensors, *ctx.sizes)
    grad_attention, grad_value = gradients
    return grad_attention, None, grad_value, *[None] * (len(ctx.saved_tensors) + 1)


torch.library.register_autograd(accumulate, _backward_of_accumulate, setup_context=_keep_for_accumulate)


def _unpacked(geometry: Sequence[Tensor]) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], _Pairs]:
    """What the kernels need of the edges, the blocks of the distance Gaussians, and the pairs."""
    directions, is_self, lengths, *others = geometry
    n = len(_Blocks._fields)
    p = _Pairs(*others[n:])
    return _arrays(p.pair, p.first_pair, p.keys, is_self, directions, lengths), _arrays(*others[:n]), p


def _at_queries(p: _Pairs, weights: Tensor, values: Tensor, scale: float = 1.0) -> Tensor:
    """scale · Σ weight × value of the key atoms."""
    numbers = torch.arange(len(p.keys), dtype=torch.int32)
    return _summed(p.first_pair, numbers, p.keys, weights, values, scale)


def _at_keys(p: _Pairs, weights: Tensor, values: Tensor, scale: float = 1.0) -> Tensor:
    """scale · Σ weight × value of the query atoms."""
    return _summed(p.first_at_key, p.pairs_at_key, p.queries, weights, values, scale)


def _summed(first: Tensor, pairs: Tensor, others: Tensor, weights: Tensor, values: Tensor, scale: float) -> Tensor:
    out = values.new_empty(len(first) - 1, *values.shape[1:])
    given = _arrays(pairs, others, weights, values)
    _over_atoms(kernels.sum_over_pairs, *_arrays(first), *given, np.float32(scale), *_arrays(out))
    return out


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    """NumPy views; the kernels want contiguous memory."""
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)
