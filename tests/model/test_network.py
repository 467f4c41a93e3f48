"""The model as a whole: gradients, units, calibration, precision, traces."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from attention_cases import weights

from crystalframer.config import FRAME_METHODS, DecayConfig, FrameConfig, FrameMethod, ModelConfig, Target
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import make_batch
from crystalframer.maths import frames
from crystalframer.maths.decay import decay_lengths
from crystalframer.maths.edges import Edges
from crystalframer.maths.envelope import log_envelope
from crystalframer.model.activation import Swish
from crystalframer.model.attention import bounded
from crystalframer.model.network import CrystalFramer
from crystalframer.ops.reference import AttentionInputs, framed_attention
from crystalframer.presets import preset
from crystalframer.testing import random_crystal

TINY = preset("tiny").config.model


def tiny_model(method: FrameMethod = "max", **changes: object) -> CrystalFramer:
    config = replace(TINY, frame=FrameConfig(method), **changes)  # type: ignore[arg-type]
    return CrystalFramer(config, torch.Generator().manual_seed(0)).eval()


def batch(dtype: torch.dtype = torch.float32, radius: float = TINY.radius) -> CrystalBatch:
    return make_batch([random_crystal(1, 3), random_crystal(2, 5)], radius, dtype=dtype)


def test_decay_lengths_by_hand() -> None:
    """ρ(0) = 1 gives r₀; ρ(s) = 1 + βs above; never longer than r₀/√b."""
    config = DecayConfig(reference_length=2.0, floor=0.5, slope=0.1)
    lengths = decay_lengths(torch.tensor([[0.0, 10.0, -1e6]], dtype=torch.float64), config)
    torch.testing.assert_close(lengths, torch.tensor([[2.0, 2.0 / 2**0.5, 2.0 * 2**0.5]], dtype=torch.float64))


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_gradient_of_framed_attention(method: FrameMethod, monkeypatch: pytest.MonkeyPatch) -> None:
    """float64 finite differences through logits, softmax, decay and both projections, frames held as in training."""
    config = replace(TINY, frame=FrameConfig(method), weight_tolerance=0.2, d_model=4)
    edges = Edges.of(batch(torch.float64, radius=2.5))
    inputs = [tensor for tensor in weights(edges.n_atoms, config) if tensor is not None]
    if method != "none":
        held = framed_attention(AttentionInputs(*inputs, edges=edges, config=config)).frame
        monkeypatch.setitem(frames.FORMULAS, method, lambda *_: held)
    for tensor in inputs:
        tensor.requires_grad_()

    def output(*tensors: torch.Tensor) -> torch.Tensor:
        cosine_projection = tensors[5] if method != "none" else None
        given: Any = (*tensors[:5], cosine_projection, edges, config)
        return framed_attention(AttentionInputs(*given)).output

    assert torch.autograd.gradcheck(output, tuple(inputs), fast_mode=True, atol=1e-6)


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_trace_agrees_with_forward(method: FrameMethod) -> None:
    model, both = tiny_model(method), batch()
    with torch.no_grad():
        expected = model(both)[:, 0].tolist()
    traces = model.trace(both)
    # Traces come from the reference implementation, predictions from the fastest.
    found = [trace.prediction["formation_energy_per_atom"] for trace in traces]
    assert found == pytest.approx(expected, abs=1e-5)
    assert [trace.n_atoms for trace in traces] == [3, 5]
    for trace, crystal in zip(traces, (random_crystal(1, 3), random_crystal(2, 5)), strict=True):
        assert trace.id == crystal.id
        assert trace.units == {"formation_energy_per_atom": "eV/atom"}
        np.testing.assert_array_equal(trace.atomic_numbers, crystal.atomic_numbers)
        np.testing.assert_allclose(trace.positions, crystal.positions, rtol=1e-6)
        for layer in trace.layers:
            total = np.zeros((trace.n_atoms, TINY.n_heads))
            np.add.at(total, trace.edge_index[0], layer.attention)
            np.testing.assert_allclose(total, 1.0, rtol=1e-5)
            logits = layer.content_logits + layer.distance_logits
            assert np.corrcoef(np.log(layer.attention + 1e-30)[:, 0], logits[:, 0])[0, 1] > 0.8
            sigma = layer.decay_length[trace.edge_index[0]]
            np.testing.assert_allclose(
                layer.distance_logits, -(trace.edge_lengths[:, None] ** 2) / (2 * sigma**2), rtol=1e-3, atol=1e-5
            )
            assert (layer.frame is None) == (method == "none")


def test_anchor_edges_of_a_trace_point_along_the_axes() -> None:
    """Edge numbers count within the crystal, also for the second of a batch."""
    for trace in tiny_model().trace(batch()):
        directions = trace.edge_vectors / np.maximum(trace.edge_lengths, 1e-9)[:, None]
        for layer in trace.layers:
            assert layer.frame is not None and layer.frame.anchor_edges is not None
            first, second = np.moveaxis(layer.frame.anchor_edges, -1, 0)
            assert (trace.edge_index[0][first] == np.arange(trace.n_atoms)[:, None]).all()
            np.testing.assert_allclose(directions[first], layer.frame.axes[:, :, 0], atol=1e-5)
            np.testing.assert_allclose((directions[second] * layer.frame.axes[:, :, 2]).sum(-1), 0, atol=1e-5)
            assert ((directions[second] * layer.frame.axes[:, :, 1]).sum(-1) > 0).all()


def test_several_targets() -> None:
    targets = (Target("band_gap", "eV"), Target("bulk_modulus", "GPa"))
    model = tiny_model(targets=targets)
    assert model(batch()).shape == (2, 2)
    assert model.trace(batch())[0].units == {"band_gap": "eV", "bulk_modulus": "GPa"}


def test_calibration_gives_decay_logits_zero_mean_and_unit_spread() -> None:
    model, both = tiny_model(), batch()
    model.calibrate(both)
    seen = []
    for block in model.blocks:
        block.attention._raw_decay_logits = lambda query, of=block.attention: _record(of, query, seen)  # type: ignore[union-attr,method-assign]
    with torch.no_grad():
        model(both)
    assert len(seen) == TINY.n_layers
    for logits in seen:
        assert abs(float(logits.mean())) < 1e-5
        assert float(logits.std()) == pytest.approx(1.0, abs=1e-5)


def _record(attention: object, query: torch.Tensor, seen: list[torch.Tensor]) -> torch.Tensor:
    raw = (query * attention.decay_projection).sum(-1)  # type: ignore[attr-defined]
    seen.append((raw + attention.decay_shift) * attention.decay_scale)  # type: ignore[attr-defined]
    return raw


def test_calibration_makes_swish_turn_within_the_spread_of_its_input() -> None:
    """Uncalibrated, it is a line there: inputs are small without normalisation layers."""
    model, seen = tiny_model(activation="swish"), []
    for part in model.modules():
        if isinstance(part, Swish):
            part.register_forward_hook(lambda _, given, output: seen.append((given[0], output)))
    model.calibrate(batch())
    seen.clear()
    with torch.no_grad():
        model(batch())
    assert len(seen) == TINY.n_layers + 1
    for given, output in seen:
        assert given.std() < 1.0
        torch.testing.assert_close(output, given.relu(), rtol=0.0, atol=0.3 * float(given.std()))
        assert not torch.allclose(output, given.relu(), rtol=0.0, atol=1e-3 * float(given.std()))


def test_radius_follows_the_weight_tolerance() -> None:
    assert ModelConfig().radius == pytest.approx(7.36, abs=0.005)
    weight = np.exp(-(ModelConfig().radius ** 2) / (2 * 1.4**2))
    assert weight == pytest.approx(1e-6)


@pytest.mark.parametrize("method", ["max", "static-max", "none"])
def test_nan_weights_give_nan_predictions(method: FrameMethod) -> None:
    """In training too: the run's own check says where, not an error about indices."""
    model = tiny_model(method)
    model.blocks[0].attention.query.weight.data.fill_(torch.nan)
    with torch.no_grad():
        assert model(batch()).isnan().all()
        assert model(batch(), 0).isnan().all()


def test_the_smooth_decay_has_the_value_slope_and_bound_of_the_papers() -> None:
    config = DecayConfig(reference_length=2.0, floor=0.5, slope=0.1, shape="smooth")
    s = torch.tensor([[0.0, -1e3, 1e3]], dtype=torch.float64, requires_grad=True)
    precision = (config.reference_length / decay_lengths(s, config)).square()
    (slope,) = torch.autograd.grad(precision.sum(), s)
    assert precision[0].tolist() == pytest.approx([1.0, 0.5, 1.0 + 0.1 * 1e3 * math.e / (math.e - 1.0)], rel=1e-2)
    assert slope[0, 0].item() == pytest.approx(0.1)
    assert config.longest == pytest.approx(2.0 * 2**0.5)


def test_the_envelope_ends_smoothly_at_the_reach() -> None:
    """1 inside, 0 from k·σ on, and as the third power of the distance from there."""
    sigma, reach = torch.full((1, 1), 1.5, dtype=torch.float64), 4.0

    def envelope(x: float) -> float:
        return log_envelope(torch.tensor([[x * 6.0]], dtype=torch.float64), sigma, reach).exp().item()

    assert [envelope(x) for x in (0.0, 0.5, 0.85)] == [1.0] * 3
    assert [envelope(x) for x in (1.0, 1.001, 30.0)] == [0.0] * 3
    assert envelope(0.998) / envelope(0.999) == pytest.approx(8.0, rel=0.05)
    assert 0.1 < envelope(0.95) < 0.9


def test_the_envelope_has_a_finite_gradient_at_its_end() -> None:
    lengths = torch.tensor([[0.0], [2.9], [3.0], [3.1]], dtype=torch.float64)
    sigma = torch.ones(4, 1, dtype=torch.float64, requires_grad=True)
    torch.softmax(log_envelope(lengths, sigma, 3.0), dim=0)[1].sum().backward()
    assert torch.isfinite(sigma.grad).all() and sigma.grad[1] > 0 and (sigma.grad[2:] == 0).all()  # type: ignore[union-attr,index]


def test_content_logits_are_bounded() -> None:
    """However long queries and keys are; short ones stay as they are."""
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(50, 2, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    for size in (1e-4, 1e3):
        content = torch.einsum("ihd,jhd->ijh", *(bounded(size * v, 3.0) for v in (q, k))) / 8**0.5
        assert content.abs().max() < 3.0
        if size < 1:
            torch.testing.assert_close(
                content, size**2 * torch.einsum("ihd,jhd->ijh", q, k) / 8**0.5, rtol=1e-6, atol=0
            )


def test_a_network_with_bounded_content_uses_the_bound() -> None:
    model = CrystalFramer(replace(TINY, largest_content=0.5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(30.0)
    projected = model.blocks[0].attention.project(model.embed(torch.arange(1, 90)))
    content = torch.einsum("ihd,jhd->ijh", projected.query, projected.key) / projected.query.shape[-1] ** 0.5
    assert 0.4 < content.abs().max() < 0.5


def test_bounded_content_leaves_the_decay_alone() -> None:
    """Decay lengths follow the queries as they are, not the shortened ones."""
    free = CrystalFramer(TINY, torch.Generator().manual_seed(0))
    tight = CrystalFramer(replace(TINY, largest_content=0.01))
    tight.load_state_dict(free.state_dict())
    lengths = [
        model.blocks[0].attention.project(30.0 * model.embed(torch.arange(1, 90))).decay_length
        for model in (free, tight)
    ]
    assert lengths[0].std() > 0.01
    torch.testing.assert_close(lengths[1], lengths[0], rtol=0.0, atol=0.0)
