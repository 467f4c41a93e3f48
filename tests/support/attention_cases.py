"""Random inputs of framed attention, and the comparison of an implementation with the reference in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crystalframer.config import ModelConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.maths.edges import Edges
from crystalframer.ops import reference
from crystalframer.ops.reference import AttentionInputs

OUTPUT_BAR, GRADIENT_BAR = 2e-5, 1e-4
"""Largest error, as a share of the largest entry."""
NAMES = ("query", "key", "value", "decay_length", "distance_projection", "cosine_projection")
SALT = Crystal(np.array([11, 17]), np.array([[0.0, 0, 0], [2.82, 0, 0]]), 2.82 * (1 - np.eye(3)), "salt")
IRON = Crystal(np.array([26]), np.zeros((1, 3)), 2.87 * np.eye(3), "iron")
MOLECULE = Crystal(np.array([6, 8]), np.array([[0.0, 0, 0], [0, 0, 1.1]]), np.diag([20.0, 22.0, 25.0]), "molecule")
ATOM = Crystal(np.array([2]), np.zeros((1, 3)), 30.0 * np.eye(3), "atom")


def batch_of(*crystals: Crystal, radius: float, enlarge: bool = True) -> CrystalBatch:
    """In float32: what every precision sees is one geometry."""
    return make_batch(crystals, radius, dtype=torch.float32, enlarge=enlarge)


def weights(
    n_atoms: int, config: ModelConfig, decay: float = 1.4, spread: float = 0.1, content: float = 1.0, seed: int = 2
) -> list[Tensor | None]:
    """Queries, keys, values, decay lengths and projections: numbers that float32 represents, in float64.

    Args:
        decay: decay length, Å; those of atoms and heads differ by factors of e^(± spread).
        content: size of queries and keys.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    n, h, d = n_atoms, config.n_heads, config.d_head
    tensors = [content * random(n, h, d), content * random(n, h, d), random(n, h, d)]
    tensors += [decay * torch.exp(spread * random(n, h).tanh()), random(h, d, config.distance.n_centers)]
    if config.frame.promises.axes:
        tensors.append(random(3, h, d, config.cosine.n_centers))
    return [*(tensor.double() for tensor in tensors), *[None] * (6 - len(tensors))]


def evaluated(
    function: Callable[[AttentionInputs], Tensor],
    tensors: Sequence[Tensor | None],
    edges: Edges,
    config: ModelConfig,
    seed: int | None = None,
    counted: Tensor | None = None,
) -> dict[str, Tensor]:
    """Output, and gradients of its weighted sum, in the precision of the edges and on their device.

    Args:
        counted: (n_atoms, n_heads) what enters the sum (default: all).
    """
    leaves = [None if t is None else t.detach().to(edges.lengths).requires_grad_() for t in tensors]
    inputs: Any = (*leaves, edges, config, seed)
    output = function(AttentionInputs(*inputs))
    signs = torch.cos(torch.arange(output.numel(), dtype=torch.float64)).view_as(output).to(edges.lengths)
    (output * (signs if counted is None else signs * counted[..., None])).sum().backward()
    gradients = {name: t.grad for name, t in zip(NAMES, leaves, strict=True) if t is not None and t.grad is not None}
    return {"output": output.detach(), **gradients}


def reference_output(given: AttentionInputs) -> Tensor:
    return reference.framed_attention(given).output


def assert_agrees(
    function: Callable[[AttentionInputs], Tensor],
    batch: CrystalBatch,
    config: ModelConfig,
    seed: int | None = None,
    device: str = "cpu",
) -> None:
    """Output and every gradient within the bars of the reference's in float64."""
    tensors = weights(batch.n_atoms, config)
    exact = evaluated(reference_output, tensors, Edges.of(batch.to(dtype=torch.float64)), config, seed)
    found = evaluated(function, tensors, Edges.of(batch.to(device)), config, seed)
    assert found.keys() == exact.keys() and len(exact) == (7 if config.frame.promises.axes else 6)
    for name, theirs in exact.items():
        error = float((found[name].cpu() - theirs).abs().max() / theirs.abs().max())
        bar = OUTPUT_BAR if name == "output" else GRADIENT_BAR
        assert error <= bar, f"{config.frame.method}, {name}: off by {error:.1e}, bar {bar:.0e}"
