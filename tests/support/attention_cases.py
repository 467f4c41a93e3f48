"""Random inputs of framed attention, and the comparison of an implementation with the reference in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from crystalframer.config import ModelConfig
from crystalframer.crystals.crystal import Crystal, CrystalBatch
from crystalframer.crystals.loading import make_batch
from crystalframer.maths.edges import Edges
from crystalframer.ops import reference

OUTPUT_BAR, GRADIENT_BAR = 2e-5, 1e-4
"""Largest error, as a share of the largest entry."""


def batch_of(*crystals: Crystal, radius: float) -> CrystalBatch:
    """In float32: what every precision sees is one geometry."""
    return make_batch(crystals, radius, dtype=torch.float32)


def weights(n_atoms: int, config: ModelConfig, decay: float = 1.4) -> list[Tensor | None]:
    """Queries, keys, values, decay lengths and projections in float64."""
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    n, h, d = n_atoms, config.n_heads, config.d_head
    tensors: list[Tensor | None] = [random(n, h, d), random(n, h, d), random(n, h, d)]
    tensors += [decay * (1.0 + 0.1 * random(n, h).tanh()), random(h, d, config.distance.n_centers)]
    framed = config.frame.promises.axes
    return [*tensors, random(3, h, d, config.cosine.n_centers) if framed else None]


def output_and_gradients(
    function: Callable[..., Tensor],
    batch: CrystalBatch,
    config: ModelConfig,
    seed: int | None = None,
    decay: float = 1.4,
) -> dict[str, Tensor]:
    """On the batch's device and in its precision."""
    names = ("query", "key", "value", "decay_length", "distance_projection", "cosine_projection")
    like = batch.positions
    tensors = [None if t is None else t.to(like).requires_grad_() for t in weights(len(like), config, decay)]
    output = function(*tensors, Edges.of(batch), config, seed)
    signs = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).view_as(output).to(like)
    (output * signs).sum().backward()
    gradients = {name: t.grad for name, t in zip(names, tensors, strict=True) if t is not None and t.grad is not None}
    return {"output": output.detach(), **gradients}


def reference_output(*arguments: object) -> Tensor:
    return reference.framed_attention(*arguments).output  # type: ignore[arg-type]


def assert_agrees(
    function: Callable[..., Tensor],
    batch: CrystalBatch,
    config: ModelConfig,
    seed: int | None = None,
    device: str = "cpu",
    decay: float = 1.4,
) -> None:
    """Output and every gradient within the bars of the reference's in float64."""
    exact = output_and_gradients(reference_output, batch.to(dtype=torch.float64), config, seed, decay)
    found = output_and_gradients(function, batch.to(device), config, seed, decay)
    assert found.keys() == exact.keys() and len(exact) == (7 if config.frame.promises.axes else 6)
    for name, theirs in exact.items():
        error = float((found[name].cpu() - theirs).abs().max() / theirs.abs().max())
        bar = OUTPUT_BAR if name == "output" else GRADIENT_BAR
        assert error <= bar, f"{config.frame.method}, {name}: off by {error:.1e}, bar {bar:.0e}"
