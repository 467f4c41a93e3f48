"""One layer of framed attention on the CPU in float32, by the compiled kernels.

The same function as `ops.reference` in another order. Only the weights of the edges are kept. The Gaussians of the
cosines are expanded in Chebyshev polynomials to 2e-6 (`maths.chebyshev`), so that one multiplication replaces an
exponential. Everything linear is computed once per atom, as matrix products.

`framed_attention` is written once, for NumPy arrays and for tensors: its steps are the functions below, or the
operators of `ops.cpu`, which call them and have gradients.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Int

from crystalframer.compiled import announced
from crystalframer.config import CosineBasis, DistanceBasis, FrameConfig, ModelConfig
from crystalframer.kernels import attention as kernels, frames, sets
from crystalframer.maths.chebyshev import chebyshev_of_gaussians, chebyshev_products

SMALLEST_SHARE = 2000
"""Number of edges below which a second thread costs more than it saves."""
ALIGNMENT = 64
"""Bytes of a cache line, with which large arrays begin."""


def framed_attention(given: Any, layout: Any, by: Any) -> Any:
    """The `output` of `ops.reference.framed_attention`: (n_atoms, n_heads, d_head).

    Args:
        given: `LayerInputs`, or those of `ops.reference`.
        layout: `Layout`, or that of `ops.cpu`.
        by: the module that has the steps: this one, or `ops.cpu`.
    """
    config = given.config
    precision = 0.5 / given.decay_length**2
    steepness = 0.0 if config.decay.reach is None else 2.0 / config.decay.reach**2
    logits, attention, n_seen = by.attended(given.query, given.key, precision, layout, steepness)
    projection, axes, summed = config.distance.coefficient * given.distance_projection, None, None
    if given.cosine_projection is not None:
        of_cosines = given.cosine_projection @ by.cosine_basis(config.cosine)
        of_cosines = config.cosine.coefficient * rearrange(of_cosines, "axes h d m -> h d (axes m)")
        if given.noise_seed is None and config.frame.weighted_margin > 0:
            summed = by.cosines_of_sets(logits, attention, n_seen, layout, config.frame, of_cosines.shape[-1])
            summed = summed @ of_cosines.mT
        else:
            projection = by.concatenate([projection, of_cosines], axis=-1)
            axes = by.axes(logits, attention, n_seen, layout, given)
    values, moments = by.accumulated(
        attention, n_seen, given.value, axes, layout, config.distance, projection.shape[-1]
    )
    projected = moments @ projection.mT
    return values + (projected if summed is None else projected + summed).swapaxes(0, 1)


class LayerInputs(NamedTuple):
    """What one layer of an evaluation is computed from, as in `ops.reference.AttentionInputs`."""

    query: Float32[np.ndarray, "n_atoms n_heads d_head"]
    key: Float32[np.ndarray, "n_keys n_heads d_head"]
    value: Float32[np.ndarray, "n_keys n_heads d_head"]
    decay_length: Float32[np.ndarray, "n_atoms n_heads"]
    distance_projection: Float32[np.ndarray, "n_heads d_head n_distance_centers"]
    cosine_projection: Float32[np.ndarray, "3 n_heads d_head n_cosine_centers"] | None
    config: ModelConfig
    noise_seed: None = None


@lru_cache
def cosine_basis(config: CosineBasis) -> Float32[np.ndarray, "n_centers n_moments"]:
    """By which Gaussians follow from the moments; see `kernels.attention.CHUNK`."""
    products = chebyshev_products(chebyshev_of_gaussians(config), kernels.CHUNK)
    products = chebyshev_products(rearrange(products, "m (c n) -> (m c) n", n=kernels.CHUNK), kernels.STEP)
    products = rearrange(products, "(m c) (k j odd) -> m (c odd k j)", m=config.n_centers, j=4, odd=2)
    return products.astype(np.float32)


def spacing(config: DistanceBasis) -> tuple[float, float]:
    """Spacing and standard deviation of the distance Gaussians, Å."""
    step = config.max_distance / config.n_centers
    return step, config.width * step


concatenate = np.concatenate


# --- a batch as the kernels need it -----------------------------------------------------------------------------------


class Pairs(NamedTuple):
    """Distinct (query, key) atoms, and the edges of each query atom; see `kernels.attention.find_pairs`."""

    first_edge: Any
    """(n_atoms + 1): where each atom's edges start; padded to multiples of `kernels.attention.PAD`."""
    n_edges: Any
    """(n_atoms): without padding."""
    pair: Any
    first_pair: Any
    keys: Any
    nearest: Any
    first_at_key: Any
    pairs_at_key: Any
    queries: Any


class Blocks(NamedTuple):
    """The edges that are near enough to every eight centres of the distance Gaussians; see `find_blocks` there."""

    first_block: Any
    block_edge: Any
    block_size: Any


@dataclass(frozen=True, eq=False)
class Layout:
    """The geometry of a batch as the kernels read it, shared by all layers. Edges are padded."""

    pairs: Pairs
    first_given: Int[np.ndarray, " n_atoms_and_1"]
    """Where each atom's edges start in the batch."""
    squared: Float32[np.ndarray, " n_edges"]
    """Å²"""
    lengths: Float32[np.ndarray, " n_edges"]
    """Å"""
    directions: Float32[np.ndarray, "3 n_edges"]
    is_self: Bool[np.ndarray, " n_edges"]
    """True for the edges that pad, too."""
    _blocks: dict[DistanceBasis, Blocks]

    @classmethod
    def of(
        cls,
        query: Int[np.ndarray, " n_given"],
        key: Int[np.ndarray, " n_given"],
        lengths: Float32[np.ndarray, " n_given"],
        directions: Float32[np.ndarray, "n_given 3"],
        is_self: Bool[np.ndarray, " n_given"],
        n_atoms: int,
        n_keys: int,
    ) -> Layout:
        """The layout of edges (`maths.edges.Edges`)."""
        n_edges = np.bincount(query, minlength=n_atoms)
        padded = (n_edges + kernels.PAD - 1) // kernels.PAD * kernels.PAD
        first_given, first_edge = (np.concatenate([[0], np.cumsum(counts)]) for counts in (n_edges, padded))
        n_padded = int(first_edge[-1])
        places = empty(n_padded), empty(n_padded), empty(3, n_padded), np.empty(n_padded, bool)
        over_atoms(kernels.lay_out, first_edge, first_given, (lengths, directions, is_self), *places)
        squared, lengths, directions, is_self = places
        pairs = kernels.find_pairs(first_given, first_edge, key, squared, n_keys)
        return cls(Pairs(first_edge, n_edges, *pairs), first_given, squared, lengths, directions, is_self, {})

    @cached_property
    def index(self) -> Int[np.ndarray, " n_given"]:
        """Number of each given edge here."""
        shift = (self.pairs.first_edge - self.first_given)[:-1]
        return np.arange(self.first_given[-1]) + np.repeat(shift, self.pairs.n_edges)

    def blocks(self, config: DistanceBasis) -> Blocks:
        if config not in self._blocks:
            step, width = spacing(config)
            reach = kernels.REACH * width
            found = kernels.find_blocks(self.pairs.first_edge, self.lengths, config.n_centers, step, reach)
            self._blocks[config] = Blocks(*found)
        return self._blocks[config]


# --- the steps of a layer ---------------------------------------------------------------------------------------------


def attended(
    query: np.ndarray, key: np.ndarray, precision: np.ndarray, layout: Layout, steepness: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The outputs of `attend`."""
    return attend(query, key, precision, layout.pairs, layout.squared, steepness)


def attend(
    query: np.ndarray, key: np.ndarray, precision: np.ndarray, p: Pairs, squared: np.ndarray, steepness: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n_heads, n_edges) logits q·k/√d - r²·precision, and their softmax over the edges of each atom, with an envelope
    if `steepness` is not 0; and (n_heads, n_atoms) how many edges are worth to be seen. See `kernels.attention.attend`.
    """
    n_heads = query.shape[1]
    outputs = empty(n_heads, len(squared)), empty(n_heads, len(squared)), np.empty((n_heads, len(p.n_edges)), np.int64)
    of_pairs = p.n_edges, p.pair, p.first_pair, p.keys, p.nearest
    inputs = squared, query, key, precision
    over_atoms(kernels.attend, p.first_edge, of_pairs, *inputs, np.float32(steepness), *outputs)
    return outputs


def attend_backward(
    grad_attention: np.ndarray,
    query: np.ndarray,
    key: np.ndarray,
    precision: np.ndarray,
    attention: np.ndarray,
    n_seen: np.ndarray,
    p: Pairs,
    squared: np.ndarray,
    steepness: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of queries, keys and precisions. The logits themselves carry none: frames are constants."""
    outputs = empty(len(attention), len(p.keys)), empty(*query.shape[:2])
    edges = p.pair, p.first_pair, squared, precision
    weights = n_seen, attention, grad_attention
    over_atoms(kernels.attend_backward, p.first_edge, *edges, np.float32(steepness), *weights, *outputs)
    scale, (of_pairs, grad_precision) = query.shape[2] ** -0.5, outputs
    return at_queries(p, of_pairs, key, scale), at_keys(p, of_pairs, query, scale), grad_precision


def axes(
    logits: np.ndarray, attention: np.ndarray, n_seen: np.ndarray, layout: Layout, given: LayerInputs
) -> Float32[np.ndarray, "n_atoms n_heads 3 3"]:
    """The frames of an evaluation."""
    return max_frames(logits, attention, n_seen, layout, given.config.frame, given.config.frame.tie_margin)


def max_frames(
    logits: np.ndarray,
    attention: np.ndarray,
    n_seen: np.ndarray,
    layout: Layout,
    config: FrameConfig,
    margin: float,
    noise: float = 0.0,
    keys: tuple[int, int] = (0, 0),
    is_drawn: bool = False,
) -> Float32[np.ndarray, "n_atoms n_heads 3 3"]:
    """Axes of each atom and head; see `kernels.frames.max_frames`.

    Args:
        margin: scores closer than this to the best are candidates.
        noise: half-width of the noise of training; its streams are those of the keys.
        is_drawn: whether one of a weighted set is drawn.
    """
    scores, weights, n_compared = _strengths(logits, attention, n_seen, layout, config)
    n_heads, n_atoms = n_seen.shape
    axes = empty(n_atoms, n_heads, 3, 3)
    over_atoms(
        frames.max_frames,
        layout.pairs.first_edge,
        (layout.first_given, layout.is_self, layout.directions),
        (scores, weights, attention, n_compared),
        (np.float32(noise), *map(np.uint32, keys)),
        np.float32(margin),
        (is_drawn, config.second_axis == "sine", config.both_hands),
        axes,
        np.empty((n_atoms, n_heads, 2), np.int64),
    )
    return axes


def cosines_of_sets(
    logits: np.ndarray, attention: np.ndarray, n_seen: np.ndarray, layout: Layout, config: FrameConfig, size: int
) -> Float32[np.ndarray, "n_heads n_atoms size"]:
    """Moments of the cosines, summed over weighted sets of frames."""
    scores, weights, n_compared = _strengths(logits, attention, n_seen, layout, config)
    moments = empty(*n_seen.shape, size)
    over_atoms(
        sets.cosines_of_sets,
        layout.pairs.first_edge,
        layout.is_self,
        layout.directions,
        (scores, weights, attention, n_seen, n_compared),
        np.float32(config.weighted_margin),
        config.second_axis == "sine",
        moments,
    )
    return moments


def _strengths(
    logits: np.ndarray, attention: np.ndarray, n_seen: np.ndarray, layout: Layout, config: FrameConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n_heads, n_edges) scores by which edges are chosen, and e^scores up to a factor of each atom and head; and
    (n_heads, n_atoms) how many edges are compared.
    """
    if config.promises.anchored_by == "attention":  # what a head does not see needs no frame
        return logits, attention, n_seen
    scores, n_compared = -layout.squared, np.diff(layout.pairs.first_edge)
    of_heads = (scores, np.exp(scores), n_compared)
    return tuple(np.tile(values, (len(logits), 1)) for values in of_heads)  # type: ignore[return-value]


def accumulated(
    attention: np.ndarray,
    n_seen: np.ndarray,
    value: np.ndarray,
    axes: np.ndarray | None,
    layout: Layout,
    config: DistanceBasis,
    n_moments: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The first two outputs of `accumulate`."""
    geometry = layout.directions, layout.is_self, layout.lengths, layout.blocks(config), layout.pairs
    axes = empty(0, 0, 0, 0) if axes is None else axes
    return accumulate(attention, n_seen, value, axes, *geometry, config.n_centers, *spacing(config), n_moments)[:2]


def accumulate(
    attention: np.ndarray,
    n_seen: np.ndarray,
    value: np.ndarray,
    axes: np.ndarray,
    directions: np.ndarray,
    is_self: np.ndarray,
    lengths: np.ndarray,
    blocks: Blocks,
    p: Pairs,
    n_centers: int,
    step: float,
    width: float,
    n_moments: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Attended values (n_atoms, n_heads, d_head); moments (n_heads, n_atoms, n_moments): first of the n_centers
    distance Gaussians, then of the cosines to each axis; and, for the backward pass, weights of pairs.
    """
    moments, of_pairs = empty(len(attention), len(p.n_edges), n_moments), empty(len(attention), len(p.keys))
    edges = p.pair, p.first_pair, p.keys, is_self, directions, lengths
    weights, sizes = (attention, n_seen, axes), (n_centers, step, width)
    over_atoms(kernels.accumulate, p.first_edge, edges, tuple(blocks), *weights, sizes, of_pairs, moments)
    return at_queries(p, of_pairs, value), moments, of_pairs


def accumulate_backward(
    grad_values: np.ndarray,
    grad_moments: np.ndarray,
    of_pairs: np.ndarray,
    n_seen: np.ndarray,
    value: np.ndarray,
    axes: np.ndarray,
    directions: np.ndarray,
    is_self: np.ndarray,
    lengths: np.ndarray,
    blocks: Blocks,
    p: Pairs,
    n_centers: int,
    step: float,
    width: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the weights and of the values."""
    grad_attention = empty(value.shape[1], int(p.first_edge[-1]))
    edges = p.pair, p.first_pair, p.keys, is_self, directions, lengths
    gradients, sizes = (grad_values, grad_moments, grad_attention), (n_centers, step, width)
    run = kernels.accumulate_backward
    over_atoms(run, p.first_edge, edges, tuple(blocks), value, n_seen, axes, sizes, *gradients)
    return grad_attention, at_keys(p, of_pairs, grad_values)


def at_queries(p: Pairs, weights: np.ndarray, values: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """scale · Σ weight × value of the key atoms."""
    return _summed(p.first_pair, np.arange(len(p.keys), dtype=np.int32), p.keys, weights, values, scale)


def at_keys(p: Pairs, weights: np.ndarray, values: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """scale · Σ weight × value of the query atoms."""
    return _summed(p.first_at_key, p.pairs_at_key, p.queries, weights, values, scale)


def _summed(
    first: np.ndarray, pairs: np.ndarray, others: np.ndarray, weights: np.ndarray, values: np.ndarray, scale: float
) -> np.ndarray:
    out = empty(len(first) - 1, *values.shape[1:])
    over_atoms(kernels.sum_over_pairs, first, pairs, others, weights, values, np.float32(scale), out)
    return out


def empty(*shape: int) -> Float[np.ndarray, "*shape"]:
    """Memory for float32 numbers that starts with a cache line."""
    size = 4 * int(np.prod(shape, dtype=np.int64))
    memory = np.empty(size + ALIGNMENT, np.uint8)
    skip = -memory.ctypes.data % ALIGNMENT
    return memory[skip : skip + size].view(np.float32).reshape(shape)


# --- threads ----------------------------------------------------------------------------------------------------------


def over_atoms(run: Any, first_edge: np.ndarray, *arguments: Any) -> None:
    """The kernel run(first_atom, last_atom, first_edge, *arguments), divided among threads by edges."""
    if not run.overloads:  # a call without work compiles it or reads it from disk
        with announced("compiled kernels for the CPU"):
            run(0, 0, first_edge, *arguments)
    n_edges, n_atoms = int(first_edge[-1]), len(first_edge) - 1
    n_shares = max(1, min(_n_threads(), n_edges // SMALLEST_SHARE))
    ends = [np.searchsorted(first_edge, n * n_edges // n_shares) for n in range(1, n_shares)]
    _share(run, [0, *map(int, ends), n_atoms], first_edge, *arguments)


def _n_threads() -> int:
    """As many as torch has, or would have."""
    if "torch" in sys.modules:
        return sys.modules["torch"].get_num_threads()
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else os.cpu_count() or 1


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
