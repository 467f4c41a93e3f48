"""Averaging over frames that tie: that it is the mean over all of them, steady, continuous, and alike in the kernel."""

from __future__ import annotations

import itertools
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from attention_cases import NAMES, SALT, batch_of, weights
from refusals import refused
from torch import Tensor

import crystalframer as cf
from crystalframer import ops
from crystalframer.analysis.invariance import invariance
from crystalframer.config import FrameConfig, ModelConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.errors import ConfigError
from crystalframer.maths.attended import AttendedEdges
from crystalframer.maths.basis import cosine_centers, gaussians
from crystalframer.maths.edges import Edges
from crystalframer.maths.ties import tied_frames
from crystalframer.model.network import CrystalFramer
from crystalframer.ops.reference import AttentionInputs, cosines_in_tied_frames
from crystalframer.reading.inputs import read
from crystalframer.testing import random_crystal

MARGIN = 1e-3
CONFIG = ModelConfig(n_layers=1, n_heads=1, d_model=8, frame=FrameConfig("max", average_margin=MARGIN))


@pytest.fixture(scope="module")
def prototypes() -> list[Crystal]:
    """CaC6 (whose chosen frames rounding decides), skutterudite and twenty more of the AFLOW library."""
    library: Any = import_module("pymatgen.analysis.prototypes").AFLOW_PROTOTYPE_LIBRARY
    chosen = [15, 45, *range(100, 120)]
    return [replace(read(library[n]["snl"].structure), id=str(n)) for n in chosen]


SHIPPED = cf.load(device="cpu")


def simple_cubic() -> AttendedEdges:
    """One atom with six equal nearest neighbours, to which it attends as to nothing else."""
    crystal = Crystal(np.array([84]), np.zeros((1, 3)), 3.0 * np.eye(3))
    edges = Edges.of(make_batch([crystal], 5.0, dtype=torch.float64))
    logits = torch.where(edges.is_self, 0.0, -(edges.lengths - 2.0).square())[:, None].double()
    return AttendedEdges(edges, logits, torch.softmax(logits, 0))


def test_all_frames_along_equal_neighbours_tie() -> None:
    """Six first axes, with each four second ones: the rotations of a cube."""
    attended = simple_cubic()
    frames = list(tied_frames(attended, attended.logits, MARGIN))
    axes = torch.cat([part.axes for part in frames])
    expected = [
        torch.tensor(permutation, dtype=torch.float64) * torch.tensor(signs)[:, None]
        for permutation in itertools.permutations(np.eye(3).tolist())
        for signs in itertools.product([-1.0, 1.0], repeat=3)
    ]
    rotations = {tuple(m.flatten().tolist()) for m in expected if torch.det(m) > 0}
    assert {tuple((axis.round(decimals=9) + 0.0).flatten().tolist()) for axis in axes} == rotations
    assert len(axes) == 24
    assert torch.cat([part.cost for part in frames]).abs().max() < 1e-12


def test_the_average_is_the_mean_over_the_frames() -> None:
    attended = simple_cubic()
    directed = attended.attention.masked_fill(attended.edges.is_self[:, None], 0.0)
    found = cosines_in_tied_frames(directed, attended, CONFIG)[0, 0]
    cosines = attended.edges.directions  # to the axes of the cube: so are all 24 frames, in any order and sign
    of_axis = gaussians(torch.cat([cosines, -cosines]), *cosine_centers(CONFIG.cosine, like=cosines)).mean(1)
    expected = 0.5 * (torch.cat([directed, directed]) * of_axis).sum(0)
    torch.testing.assert_close(found, expected.expand(3, -1), rtol=1e-10, atol=1e-12)


def test_what_lags_counts_less_and_at_the_margin_nothing() -> None:
    """So that no frame comes or goes at once: exp(-x⁴/(1 - x⁴)), x being the share of the margin by which it lags."""
    attended = simple_cubic()
    first = int(attended.logits.masked_fill(attended.edges.is_self[:, None], -torch.inf).argmax())

    def weights(lag: float) -> Tensor:
        logits = attended.logits.clone()
        logits[first] -= lag * MARGIN
        frames = list(tied_frames(replace(attended, logits=logits), logits, MARGIN))
        along = torch.cat([part.axes for part in frames])[:, 0] @ attended.edges.directions[first]
        return torch.exp(-torch.cat([part.cost for part in frames]))[along > 0.999]

    assert len(weights(1.01)) == 0
    torch.testing.assert_close(weights(0.5).max(), torch.exp(torch.tensor(-1 / 15, dtype=torch.float64)))
    assert weights(0.98).max() < 1e-4


@pytest.mark.parametrize("method", ["max", "static-max"])
def test_the_kernel_is_the_reference(method: Any, prototypes: list[Crystal]) -> None:
    config = replace(SHIPPED.config, frame=FrameConfig(method, average_margin=MARGIN))
    model = CrystalFramer(config).eval()
    model.load_state_dict(SHIPPED.state_dict())
    crystals = [*prototypes[:6], *(random_crystal(seed, 6) for seed in range(3))]
    batch = make_batch(crystals, config.radius)
    with torch.no_grad():
        fast = model(batch)
        with ops.use("reference"):
            plain = model(batch)
            exact = model.double()(batch.to(dtype=torch.float64))
    assert (fast - exact).abs().max() < 1e-5
    assert (plain - exact).abs().max() < 1e-5


def test_more_axes_than_are_gathered_at_once() -> None:
    """Neighbours without symmetry, many of which tie by a wide margin: an atom has more than 64 axes, 285 times."""
    batch = make_batch([random_crystal(7, 4)], SHIPPED.config.radius)
    wide = SHIPPED.averaging_ties(3.0)
    with torch.no_grad():
        fast = wide(batch)
        with ops.use("reference"):
            exact = wide.double()(batch.to(dtype=torch.float64))
    assert (fast - exact).abs().max() < 1e-5


def test_symmetric_crystals_stay_where_they_are(prototypes: list[Crystal]) -> None:
    changes = {}
    for name, model in {"chosen": SHIPPED, "averaged": cf.load(device="cpu", average_ties=True)}.items():
        table = invariance(model, prototypes, ["rotation", "cell"], n_draws=3, progress=False)
        changes[name] = table["change/formation_energy_per_atom"].abs().max()
    assert changes["averaged"] < 1e-5 < changes["chosen"]


def test_gradients_of_an_averaged_evaluation() -> None:
    model = SHIPPED.averaging_ties(MARGIN)
    batch = make_batch([random_crystal(1, 3)], model.config.radius)
    output = model(batch)
    with torch.no_grad():
        torch.testing.assert_close(output, model(batch), rtol=1e-5, atol=1e-5)
    output.sum().backward()
    projection = model.blocks[0].attention.cosine_projection
    assert projection is not None and projection.grad is not None and projection.grad.abs().max() > 0


@pytest.mark.parametrize("trained", ["all", "query", "key", "decay_length"])
def test_gradients_of_averages_are_those_of_the_reference(trained: str) -> None:
    """Of every weight, also if only one kind is trained: the kernel of these averages has no gradients."""
    config = replace(CONFIG, n_heads=2, d_model=16)
    batch = batch_of(random_crystal(1, 3), SALT, radius=4.0)
    given = weights(batch.n_atoms, config)

    def gradients(dtype: torch.dtype) -> dict[str, Tensor]:
        leaves: list[Any] = [
            None if t is None else t.to(dtype).detach().clone().requires_grad_(trained in ("all", name))
            for name, t in zip(NAMES, given, strict=True)
        ]
        edges = Edges.of(batch.to(dtype=dtype))
        output = ops.framed_attention(AttentionInputs(*leaves, edges=edges, config=config))
        (output * torch.cos(torch.arange(output.numel())).view_as(output)).sum().backward()
        return {name: leaf.grad for name, leaf in zip(NAMES, leaves, strict=True) if leaf.grad is not None}

    exact, found = gradients(torch.float64), gradients(torch.float32)
    assert set(found) == (set(NAMES) if trained == "all" else {trained})
    for name, theirs in exact.items():
        assert float((found[name] - theirs).abs().max() / theirs.abs().max()) < 1e-3, name


def test_in_training_noise_picks_as_ever() -> None:
    batch = make_batch([random_crystal(1, 3)], SHIPPED.config.radius)
    with torch.no_grad():
        assert torch.equal(SHIPPED(batch, 5), SHIPPED.averaging_ties(MARGIN)(batch, 5))


def test_a_saved_model_averages_as_before(tmp_path: Any, prototypes: list[Crystal]) -> None:
    averaged = cf.load(device="cpu", average_ties=True)
    cf.save(averaged, tmp_path / "averaged")
    again = cf.predict(prototypes[0], tmp_path / "averaged", device="cpu").formation_energy_per_atom[0]
    assert again == cf.predict(prototypes[0], averaged).formation_energy_per_atom[0]
    assert again != cf.predict(prototypes[0], SHIPPED).formation_energy_per_atom[0]
    assert averaged.uncertainty is not None and averaged.domain is not None


@pytest.mark.parametrize("method", ["weighted-pca", "pca", "lattice", "none"])
def test_frames_that_are_not_averaged(method: Any) -> None:
    model = CrystalFramer(replace(CONFIG, frame=FrameConfig(method)))
    with refused(ConfigError, method, "max or static-max", field="model.frame.method"):
        model.averaging_ties(MARGIN)
