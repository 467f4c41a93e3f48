"""The fast path against the float64 reference: outputs, gradients, ties, threads, and what it falls back to."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from attention_cases import assert_agrees, batch_of, weights
from refusals import refused
from torch import Tensor

from crystalframer import ops
from crystalframer.config import FRAME_METHODS, CosineBasis, DistanceBasis, FrameConfig, FrameMethod, ModelConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import ConfigError
from crystalframer.maths import frames
from crystalframer.maths.basis import chebyshev_of_gaussians, cosine_centers, gaussians
from crystalframer.maths.edges import Edges
from crystalframer.ops import cpu
from crystalframer.testing import random_crystal

CONFIG = ModelConfig(n_heads=4, d_model=32, distance=DistanceBasis(n_centers=24))
NARROW = CosineBasis(n_centers=16, width=1.0, coefficient=6.0)
SPARSE = Crystal(np.array([6, 8]), np.array([[0.0, 0, 0], [0, 0, 1.1]]), np.diag([20.0, 22.0, 25.0]), "molecule")


def edges_of(*crystals: Crystal, radius: float = 6.0) -> Edges:
    return Edges.of(batch_of(*crystals, radius=radius))


@pytest.mark.parametrize("cosine", [CosineBasis(), NARROW], ids=["default", "lightweight"])
@pytest.mark.parametrize("method", FRAME_METHODS)
def test_agrees_with_the_reference(method: FrameMethod, cosine: CosineBasis) -> None:
    config = replace(CONFIG, frame=FrameConfig(method), cosine=cosine)
    crystals = random_crystal(1, 4), random_crystal(2, 7), random_crystal(3, 3)
    assert_agrees(cpu.framed_attention, batch_of(*crystals, radius=6.0), config)


@pytest.mark.parametrize("decay", [0.6, 1.4, 2.0])
@pytest.mark.parametrize("n_atoms", [3, 12, 40])
def test_sizes_and_decay_lengths(n_atoms: int, decay: float) -> None:
    batch = batch_of(random_crystal(n_atoms, n_atoms), radius=6.0)
    assert_agrees(cpu.framed_attention, batch, CONFIG, decay=decay)


def test_molecules_in_boxes() -> None:
    assert_agrees(cpu.framed_attention, batch_of(SPARSE, random_crystal(5, 3), radius=6.0), CONFIG)


def as_given(layout: cpu._Layout, edges: Edges, logits: Tensor, attention: Tensor) -> frames.AttendedEdges:
    """Without padding, as the reference has them."""
    return frames.AttendedEdges(edges, logits[:, layout.index].T, attention[:, layout.index].T)


def test_ties_go_the_same_way_as_in_the_reference() -> None:
    """Rock salt and a one-atom cell: nearly everything ties."""
    salt = Crystal(np.array([11, 17]), np.array([[0.0, 0, 0], [2.82, 0, 0]]), 2.82 * (1 - np.eye(3)), "salt")
    edges = edges_of(salt, Crystal(np.array([26]), np.zeros((1, 3)), 2.87 * np.eye(3), "iron"))
    layout = cpu._layout(edges)
    q, k, _, sigma, *_ = (t if t is None else t.float() for t in weights(edges.n_atoms, CONFIG))
    assert q is not None and k is not None and sigma is not None
    logits, attention = cpu.attend(q, k, 0.5 / sigma**2, *layout.pairs, layout.squared)
    found = cpu._axes(logits, attention, edges, layout, CONFIG.frame, None)
    expected = frames.build_frames(as_given(layout, edges, logits, attention), CONFIG.frame).axes
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_noise_is_that_of_the_reference() -> None:
    edges = edges_of(random_crystal(1, 6))
    layout = cpu._layout(edges)
    attention = torch.softmax(torch.randn(4, len(layout.squared)), dim=1)
    logits = attention.log()
    found, expected = (
        build(3)
        for build in (
            lambda seed: cpu._axes(logits, attention, edges, layout, CONFIG.frame, seed),
            lambda seed: frames.build_frames(as_given(layout, edges, logits, attention), CONFIG.frame, seed).axes,
        )
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: each atom, and each head where key atoms are written to, is one thread's work."""
    monkeypatch.setattr(cpu, "SMALLEST_SHARE", 100)
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
            _, attention = cpu.attend(q, k, 0.5 / sigma**2, *layout.pairs, layout.squared)
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


def test_operators_pass_torchs_own_checks() -> None:
    """Schema, fake tensors, autograd registration."""
    edges = edges_of(random_crystal(1, 3), radius=3.0)
    layout = cpu._layout(edges)
    q, k, v = (torch.randn(3, 2, 4, requires_grad=True) for _ in range(3))
    precision = torch.rand(3, 2, requires_grad=True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(cpu.attend, (q, k, precision, *layout.pairs, layout.squared), test_utils=tests)
    attention = torch.rand(2, len(layout.squared), requires_grad=True)
    axes, basis = torch.randn(3, 2, 3, 3), layout.basis(DistanceBasis(n_centers=4))
    arguments = (attention, v, axes, layout.directions, layout.is_self, *basis, *layout.pairs, 4, 4 + 3 * 8)
    torch.library.opcheck(cpu.accumulate, arguments, test_utils=tests)


def test_choice_of_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(random_crystal(1, 3), radius=6.0)
    edges = Edges.of(batch)
    arguments = [t if t is None else t.float() for t in weights(edges.n_atoms, CONFIG)]
    calls = []
    monkeypatch.setattr(cpu, "framed_attention", lambda *a: calls.append("cpu") or torch.zeros(3, 4, 8))
    ops.framed_attention(*arguments, edges, CONFIG)  # type: ignore[arg-type]
    with ops.use("reference"):
        ops.framed_attention(*arguments, edges, CONFIG)  # type: ignore[arg-type]
    double = [t if t is None else t.double() for t in arguments]
    exact = Edges.of(batch.to(dtype=torch.float64))
    assert ops.framed_attention(*double, exact, CONFIG).dtype == torch.float64  # type: ignore[arg-type]
    assert calls == ["cpu"]


@pytest.mark.usefixtures("as_in_production")
def test_an_unknown_implementation_is_refused() -> None:
    name: Any = "refrence"
    with refused(ConfigError, "'refrence'", "did you mean 'reference'", field="implementation"), ops.use(name):
        pass


def test_without_numba_the_reference_serves_with_one_warning() -> None:
    code = """
import sys, warnings
sys.modules["numba"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "numba" else find(name, *a)
from crystalframer.crystals.loading import make_batch
from crystalframer.model.network import CrystalFramer
from crystalframer.presets import preset
from crystalframer.testing import random_crystal
config = preset("tiny").config.model
model = CrystalFramer(config)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    batch = make_batch([random_crystal(0, 2)], config.radius)
    model(batch); model(batch)
assert [str(w.message)[:24] for w in seen] == ["Numba is not installed: "], seen
"""
    subprocess.run([sys.executable, "-c", code], check=True)
