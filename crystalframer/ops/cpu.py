"""Framed attention on the CPU in float32: the compiled kernels (`kernels.layer`) as torch operators with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crystalframer.config import CosineBasis, DistanceBasis, FrameConfig
from crystalframer.kernels import layer
from crystalframer.kernels.layer import Blocks, Layout, Pairs
from crystalframer.maths.attended import AttendedEdges
from crystalframer.maths.edges import Edges
from crystalframer.maths.frames import build_frames, noise_key
from crystalframer.ops.operators import has_no_gradient, operator, uncompiled
from crystalframer.ops.reference import AttentionInputs


def framed_attention(given: AttentionInputs) -> Float[Tensor, "n_atoms n_heads d_head"]:
    """The `output` of `reference.framed_attention`."""
    return layer.framed_attention(given, _layout(given.edges), _Steps)


# --- the steps of a layer, as `kernels.layer` has them ----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Tensors:
    """The layout of a batch, and its arrays as tensors that share their memory."""

    arrays: Layout
    pairs: Pairs
    squared: Tensor
    geometry: tuple[Tensor, Tensor, Tensor]
    """Directions, which edges lead to the atom itself, and lengths."""

    @classmethod
    def of(cls, edges: Edges) -> _Tensors:
        given = _arrays(edges.query, edges.key, edges.lengths, edges.directions, edges.is_self)
        found = Layout.of(*given, n_atoms=edges.n_atoms, n_keys=edges.n_keys)
        geometry = found.directions, found.is_self, found.lengths
        pairs, squared = Pairs(*_tensors(found.pairs)), torch.from_numpy(found.squared)
        return cls(found, pairs, squared, _tensors(geometry))

    @uncompiled
    def blocks(self, config: DistanceBasis) -> tuple[Tensor, ...]:
        return _tensors(self.arrays.blocks(config))


_layouts: WeakKeyDictionary[Edges, _Tensors] = WeakKeyDictionary()


@uncompiled
def _layout(edges: Edges) -> _Tensors:
    if edges not in _layouts:
        _layouts[edges] = _Tensors.of(edges)
    return _layouts[edges]


class _Steps:
    """The steps of `kernels.layer.framed_attention` on tensors."""

    concatenate = torch.concatenate

    @staticmethod
    @uncompiled
    def cosine_basis(config: CosineBasis) -> Tensor:
        """Made anew each time: a tensor of an inference could not take part in a training."""
        return torch.from_numpy(layer.cosine_basis(config))

    @staticmethod
    def attended(
        query: Tensor, key: Tensor, precision: Tensor, layout: _Tensors, steepness: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        return attend(query, key, precision, *layout.pairs, layout.squared, steepness)

    @staticmethod
    def accumulated(
        attention: Tensor,
        n_seen: Tensor,
        value: Tensor,
        axes: Tensor | None,
        layout: _Tensors,
        config: DistanceBasis,
        n_moments: int,
    ) -> tuple[Tensor, Tensor]:
        axes = attention.new_empty(0, 0, 0, 0) if axes is None else axes
        geometry = *layout.geometry, *layout.blocks(config), *layout.pairs
        sizes = config.n_centers, *layer.spacing(config), n_moments
        values, moments, _ = accumulate(attention, n_seen, value, axes, *geometry, *sizes)
        return values, moments

    @staticmethod
    @uncompiled
    def axes(logits: Tensor, attention: Tensor, n_seen: Tensor, layout: _Tensors, given: AttentionInputs) -> Tensor:
        """Frames by the kernel if the method has one, else by its formula in plain torch."""
        edges, config, noise_seed = given.edges, given.config.frame, given.noise_seed
        logits, attention = logits.detach(), attention.detach()
        if "cpu" not in config.promises.kernels:
            index = torch.from_numpy(layout.arrays.index)
            without_padding = (values[:, index].T for values in (logits, attention))
            return build_frames(AttendedEdges(edges, *without_padding), config, noise_seed).axes.contiguous()
        noise, margin, keys = 0.0, config.tie_margin, (0, 0)
        if noise_seed is not None:
            keys = int(noise_key(noise_seed, 0)), int(noise_key(noise_seed, 1))
            # Noise chooses among all edges that it can bring to the top.
            is_set = config.weighted_margin > 0
            noise, margin = (0.0, config.weighted_margin) if is_set else (config.noise, 2.0 * config.noise)
        is_drawn = noise_seed is not None and config.weighted_margin > 0
        strengths = _arrays(logits, attention, n_seen)
        drawn = {"margin": margin, "noise": noise, "keys": keys, "is_drawn": is_drawn}
        return torch.from_numpy(layer.max_frames(*strengths, layout=layout.arrays, config=config, **drawn))

    @staticmethod
    @uncompiled
    def cosines_of_sets(
        logits: Tensor, attention: Tensor, n_seen: Tensor, layout: _Tensors, config: FrameConfig, size: int
    ) -> Tensor:
        """(n_heads, n_atoms, size). No gradient."""
        strengths = _arrays(logits, attention, n_seen)
        return torch.from_numpy(layer.cosines_of_sets(*strengths, layout=layout.arrays, config=config, size=size))


def _arrays(*tensors: Tensor) -> Any:
    """NumPy views; the kernels want contiguous memory."""
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)


def _tensors(arrays: Sequence[np.ndarray]) -> Any:
    return tuple(map(torch.from_numpy, arrays))


# --- operators --------------------------------------------------------------------------------------------------------


_PAIRS = ", ".join(f"Tensor {name}" for name in Pairs._fields)
_BLOCKS = ", ".join(f"Tensor {name}" for name in Blocks._fields)


@operator(
    "attend",
    "cpu",
    f"(Tensor query, Tensor key, Tensor precision, {_PAIRS}, Tensor squared, float steepness) -> "
    "(Tensor, Tensor, Tensor)",
)
def attend(query: Tensor, key: Tensor, precision: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    *pairs, squared, steepness = _given(rest)
    inputs = _arrays(query, key, precision)
    return _tensors(layer.attend(*inputs, p=Pairs(*pairs), squared=squared, steepness=steepness))


@torch.library.register_fake(attend)
def _(query: Tensor, key: Tensor, precision: Tensor, *rest: Any) -> Any:
    n_heads, p = query.shape[1], Pairs(*rest[:-2])
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
    *pairs, squared, steepness = _given(rest)
    inputs = _arrays(grad_attention, query, key, precision, attention, n_seen)
    return _tensors(layer.attend_backward(*inputs, p=Pairs(*pairs), squared=squared, steepness=steepness))


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
    return _tensors(layer.accumulate(*_arrays(attention, n_seen, value, axes), *_grouped(rest)))


@torch.library.register_fake(accumulate)
def _(attention: Tensor, n_seen: Tensor, value: Tensor, *rest: Any) -> Any:
    p, n_moments = Pairs(*rest[4 + len(Blocks._fields) : -4]), rest[-1]
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
    inputs = _arrays(grad_values, grad_moments, of_pairs, n_seen, value)
    return _tensors(layer.accumulate_backward(*inputs, *_grouped(rest, n_before=4)))


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


def _given(rest: Sequence[Any]) -> Any:
    """The last arguments of an operator for the kernels: tensors as arrays, and numbers as they are."""
    return [_arrays(each)[0] if isinstance(each, Tensor) else each for each in rest]


def _grouped(rest: Sequence[Any], n_before: int = 3) -> Any:
    """The same, with blocks and pairs each as one; before them are so many arrays of the geometry."""
    given, n = _given(rest), n_before + len(Blocks._fields)
    end = n + len(Pairs._fields)
    return [*given[:n_before], Blocks(*given[n_before:n]), Pairs(*given[n:end]), *given[end:]]
