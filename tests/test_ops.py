"""The fast path against the float64 reference: outputs, gradients, ties, threads, and what it falls back to."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from attention_cases import (
    ATOM,
    IRON,
    MOLECULE,
    OUTPUT_BAR,
    SALT,
    assert_agrees,
    batch_of,
    reference_output,
    weights,
)
from refusals import refused

from crystalframer import ops
from crystalframer.config import CosineBasis, DecayConfig, DistanceBasis, FrameConfig, FrameMethod, ModelConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import ConfigError
from crystalframer.kernels import attention as kernels, layer
from crystalframer.maths import frames
from crystalframer.maths.basis import cosine_centers, gaussians
from crystalframer.maths.chebyshev import chebyshev_of_gaussians
from crystalframer.maths.edges import Edges
from crystalframer.ops import cpu
from crystalframer.ops.reference import AttentionInputs
from crystalframer.testing import random_crystal

CONFIG = ModelConfig(n_heads=4, d_model=32, distance=DistanceBasis(n_centers=24))
NARROW = CosineBasis(n_centers=16, width=1.0, coefficient=6.0)


def edges_of(*crystals: Crystal, radius: float = 6.0) -> Edges:
    return Edges.of(batch_of(*crystals, radius=radius))


@pytest.mark.parametrize(("method", "crystals"), [("max", (SALT, ATOM)), ("static-max", (IRON, MOLECULE))])
def test_ties_go_the_same_way_as_in_the_reference(method: FrameMethod, crystals: tuple[Crystal, ...]) -> None:
    """Rock salt and a lone atom, a one-atom cell and a linear molecule: nearly everything ties."""
    config = replace(CONFIG, frame=FrameConfig(method))
    assert_agrees(cpu.framed_attention, batch_of(*crystals, radius=6.0), config)


@pytest.mark.parametrize("reach", [3.0, 4.0, 6.0])
@pytest.mark.parametrize("method", ["max", "static-max", "none"])
def test_the_envelope_is_that_of_the_reference(method: FrameMethod, reach: float) -> None:
    """Values and gradients, for neighbours within, at and beyond the reach of heads, and for atoms that see none."""
    config = replace(CONFIG, frame=FrameConfig(method), decay=DecayConfig(reach=reach))
    crystals = (SALT, IRON, MOLECULE, ATOM, random_crystal(1, 6))
    assert_agrees(cpu.framed_attention, batch_of(*crystals, radius=config.radius, enlarge=False), config, seed=1)


UNEVEN = ModelConfig(
    n_heads=3,
    d_model=54,
    distance=DistanceBasis(n_centers=13, max_distance=7.0, width=0.3),
    cosine=CosineBasis(n_centers=30, width=1.0),
)
"""Sizes that are no multiples of a vector, and cosine Gaussians that take more polynomials than fit into registers."""


@pytest.mark.parametrize("method", ["max", "none"])
def test_sizes_that_do_not_fill_vectors(method: FrameMethod) -> None:
    assert UNEVEN.d_head == 18 and chebyshev_of_gaussians(UNEVEN.cosine).shape[1] > kernels.CHUNK
    config = replace(UNEVEN, frame=FrameConfig(method))
    assert_agrees(cpu.framed_attention, batch_of(random_crystal(1, 5), MOLECULE, radius=5.0), config, seed=1)


@pytest.mark.parametrize("crystals", [(random_crystal(1, 5),), (SALT, IRON, MOLECULE, ATOM)])
def test_moments_are_summed_over_sets(crystals: tuple[Crystal, ...]) -> None:
    """Frames that are members with their opposites, and frames that are members alone; several rows of items."""
    config = replace(UNEVEN, frame=FrameConfig("max", weighted_margin=2.0))
    batch = batch_of(*crystals, radius=6.0)
    tensors: list[Any] = weights(batch.n_atoms, config)
    exact = AttentionInputs(*tensors, edges=Edges.of(batch.to(dtype=torch.float64)), config=config)
    given = AttentionInputs(*(tensor.float() for tensor in tensors), edges=Edges.of(batch), config=config)
    expected = reference_output(exact)
    error = (cpu.framed_attention(given) - expected).abs().max() / expected.abs().max()
    assert float(error) <= OUTPUT_BAR


def random_inputs(edges: Edges) -> AttentionInputs:
    tensors: list[Any] = [t if t is None else t.float() for t in weights(edges.n_atoms, CONFIG)]
    return AttentionInputs(*tensors, edges=edges, config=CONFIG)


def test_noise_is_that_of_the_reference() -> None:
    edges = edges_of(random_crystal(1, 6))
    layout = cpu._layout(edges)
    attention = torch.softmax(torch.randn(4, len(layout.squared)), dim=1)
    index = torch.from_numpy(layout.arrays.index)
    seen = frames.AttendedEdges(edges, attention.log()[:, index].T, attention[:, index].T)
    given, n_seen = replace(random_inputs(edges), noise_seed=3), layout.pairs.first_edge.diff().expand(4, -1)
    found = cpu._Steps.axes(attention.log(), attention, n_seen, layout, given)
    torch.testing.assert_close(found, frames.build_frames(seen, CONFIG.frame, 3).axes, atol=1e-5, rtol=0)


def test_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: each atom, and each head where key atoms are written to, is one thread's work."""
    monkeypatch.setattr(layer, "SMALLEST_SHARE", 100)
    edges = edges_of(random_crystal(1, 60))
    layout = cpu._layout(edges)
    before = torch.get_num_threads()
    try:
        results = []
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            q, k, _, sigma, *_ = (
                t if t is None else t.float().requires_grad_() for t in weights(edges.n_atoms, CONFIG)
            )
            assert q is not None and k is not None and sigma is not None
            _, attention, _ = cpu.attend(q, k, 0.5 / sigma**2, *layout.pairs, layout.squared, 0.08)
            (attention * torch.cos(torch.arange(attention.numel())).view_as(attention)).sum().backward()
            results.append((attention, q.grad, k.grad, sigma.grad))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("basis", [CosineBasis(), NARROW, CosineBasis(n_centers=8, width=0.5)])
def test_gaussians_in_chebyshev_polynomials(basis: CosineBasis) -> None:
    """To 2e-6 on all of [-1, 1]; the default needs forty polynomials, narrower Gaussians more."""
    coefficients = chebyshev_of_gaussians(basis)
    cosines = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    exact = gaussians(cosines, *cosine_centers(basis, cosines)).numpy()
    found = np.cos(np.arange(coefficients.shape[1]) * np.arccos(cosines.numpy())[:, None]) @ coefficients.T
    assert np.abs(found - exact).max() <= 2.2e-6
    assert coefficients.shape[1] % 4 == 0
    if basis == CosineBasis():
        assert coefficients.shape[1] == 40


@pytest.mark.parametrize("width", [4.7, 5.0, 5.3])
def test_a_gaussian_reaches_as_far_as_it_is_said_to(width: float) -> None:
    """Neighbours at one length, and one centre so many standard deviations below it: little, and not nothing."""
    length, spacing = 3.0, 3.0 / (width + 8)
    config = replace(CONFIG, n_heads=1, d_model=8, distance=DistanceBasis(8, max_distance=8 * spacing))
    crystal = Crystal(np.array([84]), np.zeros((1, 3)), length * np.eye(3))
    given: list[Any] = [torch.zeros_like(t) if t is not None else None for t in weights(1, config)]
    given[3] += 1.4
    given[4][..., -1] = 1.0
    batch = batch_of(crystal, radius=3.5)
    found, exact = (
        function(AttentionInputs(*(t.to(dtype) for t in given), edges=Edges.of(batch.to(dtype=dtype)), config=config))
        for function, dtype in ((cpu.framed_attention, torch.float32), (reference_output, torch.float64))
    )
    assert exact.min() > 0
    torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=0)


def test_operators_pass_torchs_own_checks() -> None:
    """Schema, fake tensors, autograd registration."""
    edges = edges_of(random_crystal(1, 3), radius=3.0)
    layout = cpu._layout(edges)
    q, k, v = (torch.randn(3, 2, 4, requires_grad=True) for _ in range(3))
    precision = torch.rand(3, 2, requires_grad=True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(cpu.attend, (q, k, precision, *layout.pairs, layout.squared, 0.08), test_utils=tests)
    attention = torch.rand(2, len(layout.squared), requires_grad=True)
    axes, blocks = torch.randn(3, 2, 3, 3), layout.blocks(DistanceBasis(n_centers=4))
    n_seen = layout.pairs.n_edges.expand(2, -1).contiguous()
    geometry = *layout.geometry, *blocks, *layout.pairs
    arguments = (attention, n_seen, v, axes, *geometry, 4, 3.5, 3.5, 4 + 3 * kernels.CHUNK)
    torch.library.opcheck(cpu.accumulate, arguments, test_utils=tests)


def test_choice_of_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(random_crystal(1, 3), radius=6.0)
    edges = Edges.of(batch)
    given = random_inputs(edges)
    calls = []
    monkeypatch.setattr(cpu, "framed_attention", lambda a: calls.append("cpu") or torch.zeros(3, 4, 8))
    ops.framed_attention(given)
    with ops.use("reference"):
        ops.framed_attention(given)
    double: list[Any] = [t if t is None else t.double() for t in weights(edges.n_atoms, CONFIG)]
    exact = Edges.of(batch.to(dtype=torch.float64))
    assert ops.framed_attention(AttentionInputs(*double, edges=exact, config=CONFIG)).dtype == torch.float64
    assert calls == ["cpu"]


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), json.JSONDecodeError("damaged", "", 0)],
    ids=lambda e: type(e).__name__,
)
def test_a_cache_of_triton_that_is_full_or_damaged_costs_only_time(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = random_inputs(edges_of(random_crystal(1, 3)))
    monkeypatch.setattr(ops, "serving", lambda device, dtype: "cuda")
    monkeypatch.setattr(import_module("crystalframer.ops.cuda"), "framed_attention", Mock(side_effect=error))
    with pytest.warns(UserWarning, match="TRITON_CACHE_DIR"):
        found = ops.framed_attention(given)
    torch.testing.assert_close(found, reference_output(given))


@pytest.mark.usefixtures("as_in_production")
def test_an_unknown_implementation_is_refused() -> None:
    name: Any = "refrence"
    with refused(ConfigError, "'refrence'", "did you mean 'reference'", field="implementation"), ops.use(name):
        pass
