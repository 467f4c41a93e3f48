"""Weighted sets of frames: their weights, sums over them in evaluation, draws from them in training, in all kernels."""

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
from crystalframer.maths import ties
from crystalframer.maths.attended import AttendedEdges
from crystalframer.maths.basis import cosine_centers, gaussians
from crystalframer.maths.edges import Edges
from crystalframer.maths.envelope import falling
from crystalframer.maths.ties import _lowered, drawn_from_set, weighted_frames
from crystalframer.model.network import CrystalFramer
from crystalframer.ops.reference import AttentionInputs, cosines_in_weighted_frames, framed_attention
from crystalframer.reading.inputs import read
from crystalframer.testing import random_crystal, random_rotation, rotated

MARGIN = 1e-3
SINE, SETS = {"second_axis": "sine"}, {"second_axis": "sine", "weighted_margin": 0.1}
CONFIG = ModelConfig(n_layers=1, n_heads=1, d_model=8, frame=FrameConfig("max", weighted_margin=MARGIN))


@pytest.fixture(scope="module")
def prototypes() -> list[Crystal]:
    """CaC6 (whose chosen frames rounding decides), skutterudite and twenty more of the AFLOW library."""
    library: Any = import_module("pymatgen.analysis.prototypes").AFLOW_PROTOTYPE_LIBRARY
    chosen = [15, 45, *range(100, 120)]
    return [replace(read(library[n]["snl"].structure), id=str(n)) for n in chosen]


SHIPPED = cf.load(device="cpu", as_trained=True)
IS_CLASS = torch.tensor([target.is_class for target in SHIPPED.config.targets])


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference of outputs, or its share of the output if that is above 1, since rounding grows with it. A
    logit counts a quarter: so much its probability changes at most."""
    sizes = (found - expected).abs() / expected.abs().clamp(min=1.0)
    return float((sizes * torch.where(IS_CLASS, 0.25, 1.0)).max())


ONE_FRAME = CrystalFramer(ModelConfig(targets=SHIPPED.config.targets)).eval()
"""The shipped weights in the function of the paper."""
ONE_FRAME.load_state_dict(SHIPPED.state_dict())


def simple_cubic() -> AttendedEdges:
    """One atom with six equal nearest neighbours, to which it attends as to nothing else."""
    crystal = Crystal(np.array([84]), np.zeros((1, 3)), 3.0 * np.eye(3))
    edges = Edges.of(make_batch([crystal], 5.0, dtype=torch.float64))
    logits = torch.where(edges.is_self, 0.0, -(edges.lengths - 2.0).square())[:, None].double()
    return AttendedEdges(edges, logits, torch.softmax(logits, 0))


def test_all_frames_along_equal_neighbours_are_in_the_set() -> None:
    """Six first axes, with each four second ones: the rotations of a cube."""
    attended = simple_cubic()
    frames = list(weighted_frames(attended, attended.logits, MARGIN, "off-line"))
    axes = torch.cat([part.axes for part in frames])
    expected = [
        torch.tensor(permutation, dtype=torch.float64) * torch.tensor(signs)[:, None]
        for permutation in itertools.permutations(np.eye(3).tolist())
        for signs in itertools.product([-1.0, 1.0], repeat=3)
    ]
    rotations = {tuple(m.flatten().tolist()) for m in expected if torch.det(m) > 0}
    assert {tuple((axis.round(decimals=9) + 0.0).flatten().tolist()) for axis in axes} == rotations
    assert len(axes) == 24
    weights = torch.exp(-torch.cat([part.cost for part in frames]))
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 24))


def test_equal_members_give_the_mean_over_the_frames() -> None:
    attended = simple_cubic()
    directed = attended.attention.masked_fill(attended.edges.is_self[:, None], 0.0)
    found = cosines_in_weighted_frames(directed, attended, CONFIG)[0, 0]
    cosines = attended.edges.directions  # to the axes of the cube: so are all 24 frames, in any order and sign
    of_axis = gaussians(torch.cat([cosines, -cosines]), *cosine_centers(CONFIG.cosine, like=cosines)).mean(1)
    expected = 0.5 * (torch.cat([directed, directed]) * of_axis).sum(0)
    torch.testing.assert_close(found, expected.expand(3, -1), rtol=1e-10, atol=1e-12)


def weights_of_first_axes(logits: Tensor, margin: float = MARGIN) -> Tensor:
    """Weights of the six directions of simple cubic, summed over the second axes."""
    attended = replace(simple_cubic(), logits=logits)
    frames = list(weighted_frames(attended, logits, margin, "sine"))
    weights = torch.exp(-torch.cat([part.cost for part in frames]))
    first = torch.cat([part.axes for part in frames])[:, 0]
    return torch.stack(
        [weights[first @ axis > 0.999].sum() for axis in torch.cat([torch.eye(3), -torch.eye(3)]).double()]
    )


def test_weights_are_products_over_what_is_better() -> None:
    """u_a ∝ Π_b φ((s_b - s_a)/δ), Dym et al.: what is at the margin has weight 0, and no maximum is taken."""
    attended = simple_cubic()
    along = attended.edges.directions
    shells = attended.edges.lengths < 3.1
    lags = torch.tensor([0.0, 0.3, 0.7, 0.98, 1.01, 5.0], dtype=torch.float64)  # of x, y, z, -x, -y, -z, in margins
    logits = attended.logits.clone()
    for axis, lag in zip(torch.cat([torch.eye(3), -torch.eye(3)]).double(), lags, strict=True):
        logits[shells & (along @ axis > 0.999)] -= lag * MARGIN
    expected = torch.stack([falling(lag - lags).prod() for lag in lags])
    torch.testing.assert_close(weights_of_first_axes(logits), expected / expected.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_makes_no_weight_negative(dtype: torch.dtype) -> None:
    """Weights and envelopes are added as logarithms."""
    below = 1.0 - torch.logspace(-8, -1, 10_000, dtype=torch.float64)
    found = falling(below.to(dtype))
    assert (found >= 0).all()
    torch.testing.assert_close(found.double(), falling(below.to(dtype).double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_random_number_has_odds(dtype: torch.dtype) -> None:
    """Members with the largest number win, those with 0 lose, and no number draws an edge that is no member."""
    edges = simple_cubic().edges
    shell = (edges.lengths > 0) & (edges.lengths < 3.1)
    scores = torch.where(shell, 0.0, -1.0).to(dtype)[:, None]
    for winner in shell.nonzero()[:, 0].tolist():
        uniform = torch.where(shell, 0.0, 1.0 - 2.0**-24).to(dtype)[:, None]
        uniform[winner] = 1.0 - 2.0**-24
        assert drawn_from_set(scores, edges, MARGIN, uniform) == winner


def test_weights_are_twice_differentiable() -> None:
    """Along a path on which a neighbour comes, is the best and goes, the second derivative has no jump."""
    attended = simple_cubic()
    chosen = (attended.edges.lengths < 3.1) & (attended.edges.directions[:, 0] > 0.999)

    def curve(step: float) -> Tensor:
        shifts = torch.arange(-2.0, 2.0, step, dtype=torch.float64) * 0.1
        values = []
        for shift in shifts:
            logits = attended.logits.clone()
            logits[chosen] += shift
            values.append(weights_of_first_axes(logits, margin=0.1)[0])
        return torch.stack(values).diff(n=2) / step**2

    coarse, fine = (curve(step).diff().abs().max() for step in (0.04, 0.02))
    assert fine < 0.6 * coarse, "jumps of the second derivative would stay as large"


def test_a_weight_too_small_for_float32_has_a_derivative() -> None:
    """The product over many better edges of an edge that lags by nearly the margin is 0."""
    lag = torch.tensor([0.0] * 8 + [0.999] * 2, requires_grad=True)
    weights = torch.exp(-ties._rarity(lag, torch.zeros(10, dtype=torch.int64)))
    assert (weights[8:] == 0).all() and (weights[:8] == 0.125).all()
    (gradient,) = torch.autograd.grad((weights * torch.arange(10)).sum(), lag)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("second_axis", ["off-line", "sine"])
def test_training_draws_by_the_weights_of_evaluation(second_axis: Any) -> None:
    """The mean over many draws is the sum over the set, in one layer (whose output is linear in the cosines)."""
    config = replace(CONFIG, frame=FrameConfig("max", weighted_margin=1.0, second_axis=second_axis))
    layer = CrystalFramer(config).blocks[0].attention
    batch = make_batch([random_crystal(3, 6)], config.radius)
    edges, features = Edges.of(batch), torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert layer.cosine_projection is not None
    with torch.no_grad():
        layer.cosine_projection.normal_(generator=torch.Generator().manual_seed(1))
        projected = layer.project(features)
        expected = layer(projected, edges)
        drawn = torch.stack([layer(projected, edges, seed) for seed in range(2000)])
        with ops.use("reference"):
            torch.testing.assert_close(layer(projected, edges, 5), drawn[5], rtol=1e-4, atol=1e-5)
    deviation = (drawn.mean(0) - expected).abs() / (drawn.std(0) / 2000**0.5 + 1e-4)
    assert drawn.std(0).max() > 0.01, "several members are drawn"
    assert deviation.max() < 5.0


def test_the_second_axis_has_no_kink_at_a_right_angle() -> None:
    e1 = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    angles = torch.linspace(80.0, 100.0, 201, dtype=torch.float64).deg2rad()
    directions = torch.stack([angles.cos(), angles.sin(), 0 * angles], -1)
    kinks = {
        rule: _lowered(torch.zeros_like(angles), directions, e1.expand(201, 3), rule).diff(n=2).abs().max()
        for rule in ("off-line", "sine")
    }
    assert kinks["sine"] < 1e-5 < 1e-3 < kinks["off-line"]


CHAINS = Crystal(
    np.array([14, 8, 26]),
    np.array([[0, 0, 0], [1.1, 2.6, 2.2], [0.7, 4.1, 3.0]]),
    np.array([[2.2, 0, 0], [0.3, 5, 0.2], [0.1, 0.4, 5.5]]),
)
"""An atom's own images are nearest, ahead and behind: two first axes tie, and moments tell them apart."""
LAYERS = Crystal(
    np.array([22, 22, 8, 8]),
    np.array([[0, 0, 0], [1.6, 2.0, 2.4], [1.6, 0, 1.5], [0, 2.0, 0.9]]),
    np.diag([3.2, 4.0, 4.8]),
)
"""Two mirror planes through every atom: neighbours and signs of axes tie."""


@pytest.mark.parametrize("given", [random_crystal(2, 5), CHAINS, LAYERS], ids=lambda crystal: crystal.formula)
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        *itertools.product(["max", "static-max"], [SINE, SETS]),
        *itertools.product(["weighted-pca", "pca"], [{}]),
    ],
    ids=str,
)
def test_both_hands_count_alike(method: Any, settings: dict[str, Any], given: Crystal) -> None:
    """A mirror image has the same prediction, and with the hand another one (where no neighbours tie)."""
    if method == "pca" and given in (CHAINS, LAYERS):
        pytest.skip("the signs of these axes are decided by moments that are 0: rounding chooses")
    mirror, turn = np.array([1.0, 1.0, -1.0]), random_rotation(5)
    image = rotated(replace(given, positions=given.positions * mirror, lattice=given.lattice * mirror), turn)
    changes = {}
    for both_hands in (False, True):
        frame = FrameConfig(method, both_hands=both_hands, **settings)
        model = CrystalFramer(replace(SHIPPED.config, frame=frame)).eval()
        model.load_state_dict(SHIPPED.state_dict())
        with torch.no_grad():
            batches = [make_batch([crystal], model.config.radius, dtype=torch.float64) for crystal in (given, image)]
            one, other = (model.double()(batch) for batch in batches)
        changes[both_hands] = (one - other).abs().max()
        with torch.no_grad():
            fast = model.float()(make_batch([given], model.config.radius))
        if frame.promises.kernels:
            assert off(fast, one) < 1e-5, "the kernel chooses as the reference does"
    assert changes[True] < 1e-8
    assert changes[False] > 1e-4 or given is CHAINS or given is LAYERS


def test_lattice_frames_follow_the_hand_of_the_cell() -> None:
    with refused(ConfigError, "lattice", "both_hands", field="model.frame.method"):
        FrameConfig("lattice", both_hands=True)
    with refused(ConfigError, "no frames", "leave it out", field="model.frame.method"):
        FrameConfig("none", both_hands=True)


@pytest.mark.parametrize("second_axis", ["off-line", "sine"])
@pytest.mark.parametrize("method", ["max", "static-max"])
def test_the_kernel_is_the_reference(method: Any, second_axis: Any, prototypes: list[Crystal]) -> None:
    config = replace(SHIPPED.config, frame=FrameConfig(method, weighted_margin=MARGIN, second_axis=second_axis))
    model = CrystalFramer(config).eval()
    model.load_state_dict(SHIPPED.state_dict())
    crystals = [*prototypes[:6], *(random_crystal(seed, 6) for seed in range(3))]
    batch = make_batch(crystals, config.radius)
    with torch.no_grad():
        fast = model(batch)
        with ops.use("reference"):
            plain = model(batch)
            exact = model.double()(batch.to(dtype=torch.float64))
    assert off(fast, exact) < 1e-5
    assert off(plain, exact) < 1e-5


@pytest.mark.parametrize("margin", [0.1, 3.0, 8.0])
@pytest.mark.parametrize("second_axis", ["off-line", "sine"])
def test_far_edges_that_fix_the_second_axis(second_axis: Any, margin: float) -> None:
    """In columns, all edges of any strength are on one line, and e₂ points to a neighbour of a millionth of it."""
    lattice = np.array([[5.5, 0.0, 0.0], [1.0, 6.0, 0.0], [0.3, 0.4, 2.4]])
    columns = Crystal(np.array([12, 8]), np.array([[0.0, 0.0, 0.0], [0.02, 0.01, 0.5]]) @ lattice, lattice)
    config = replace(SHIPPED.config, frame=FrameConfig("max", weighted_margin=margin, second_axis=second_axis))
    model = CrystalFramer(config).eval()
    model.load_state_dict(SHIPPED.state_dict())
    batch = make_batch([columns], config.radius)
    with torch.no_grad():
        fast = model(batch)
        exact = model.double()(batch.to(dtype=torch.float64))
    assert off(fast, exact) < 1e-5


def test_more_axes_than_are_gathered_at_once() -> None:
    """Neighbours without symmetry, many of which tie by a wide margin: an atom has more than 64 axes, 285 times."""
    batch = make_batch([random_crystal(7, 4)], SHIPPED.config.radius)
    wide = SHIPPED.with_weighted_sets(3.0)
    with torch.no_grad():
        fast = wide(batch)
        with ops.use("reference"):
            exact = wide.double()(batch.to(dtype=torch.float64))
    assert off(fast, exact) < 1e-5


@pytest.mark.parametrize("at_once", [1, 5])
def test_first_axes_compared_some_at_a_time_give_the_same(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there are more than two million edges around them."""
    iron = Crystal(np.array([26]), np.zeros((1, 3)), 1.435 * (1 - 2 * np.eye(3)))
    batch = make_batch([SALT, iron, random_crystal(3, 6)], 5.0, dtype=torch.float64)
    config = replace(CONFIG, n_heads=2, d_model=16, frame=FrameConfig("max", weighted_margin=0.5))
    given = [None if t is None else t.double() for t in weights(batch.n_atoms, config)]
    inputs = AttentionInputs(*given, edges=Edges.of(batch), config=config)  # type: ignore[arg-type]
    together = framed_attention(inputs)
    monkeypatch.setattr(ties, "_candidates_at_once", lambda edges: at_once)
    apart = framed_attention(inputs)
    torch.testing.assert_close(apart.output, together.output, rtol=1e-12, atol=1e-12)
    assert apart.frame is not None and together.frame is not None
    torch.testing.assert_close(apart.frame.axes, together.frame.axes)
    torch.testing.assert_close(apart.frame.anchor_edges, together.frame.anchor_edges)


def test_symmetric_crystals_stay_where_they_are(prototypes: list[Crystal]) -> None:
    changes = {}
    for name, model in {"chosen": ONE_FRAME, "weighted": SHIPPED}.items():
        table = invariance(model, prototypes, ["rotation", "cell"], n_draws=3, progress=False)
        changes[name] = table["change/formation_energy_per_atom"].abs().max()
    assert changes["weighted"] < 1e-5 < changes["chosen"]


def test_gradients_of_an_averaged_evaluation() -> None:
    model = SHIPPED.with_weighted_sets(MARGIN)
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


def test_loading_sums_over_weighted_sets_and_saving_keeps_the_settings(
    tmp_path: Any, prototypes: list[Crystal]
) -> None:
    """Load and save as often as you like: settings, and predictions of both ways to evaluate, stay."""
    cf.save(ONE_FRAME, tmp_path / "first")
    model, plain = (cf.load(tmp_path / "first", "cpu", as_trained=plain) for plain in (False, True))
    assert model.config == plain.config == plain.evaluation_config
    assert model.config.frame.weighted_margin == 0.0 < model.evaluation_config.frame.weighted_margin
    cf.save(model, tmp_path / "again")
    again, as_trained = (cf.load(tmp_path / "again", "cpu", as_trained=plain) for plain in (False, True))
    energies = [cf.predict(prototypes[0], m).formation_energy_per_atom[0] for m in (model, again, plain, as_trained)]
    assert energies[0] == energies[1] != energies[2] == energies[3]
    assert "weighted sets" in repr(model) and str(model.evaluation_config.promises) in repr(model)
    assert "weighted sets" not in repr(plain) and "can change when it is rotated" in repr(plain)


def test_the_shipped_weights_are_evaluated_as_they_were_trained() -> None:
    model = cf.load(device="cpu")
    assert model.config == model.evaluation_config == SHIPPED.evaluation_config and model.config.promises.broken == ()
    assert model.uncertainty is not None and model.domain is not None


def test_training_passes_of_a_loaded_model_are_as_before(tmp_path: Any) -> None:
    cf.save(ONE_FRAME, tmp_path / "model")
    batch = make_batch([random_crystal(1, 3), SALT], ONE_FRAME.config.radius)
    with torch.no_grad():
        assert torch.equal(cf.load(tmp_path / "model", "cpu")(batch, 7), ONE_FRAME(batch, 7))


@pytest.mark.parametrize("average_ties", [True, False])
def test_average_ties_works_with_a_warning(average_ties: bool, tmp_path: Any) -> None:
    cf.save(ONE_FRAME, tmp_path / "model")
    with pytest.warns(DeprecationWarning, match="as_trained|leave it out"):
        model = cf.load(tmp_path / "model", "cpu", average_ties=average_ties)
    expected = cf.load(tmp_path / "model", "cpu", as_trained=not average_ties)
    assert model.evaluation_config == expected.evaluation_config


@pytest.mark.parametrize("method", ["weighted-pca", "pca", "lattice", "none"])
def test_frames_that_are_not_averaged(method: Any, tmp_path: Any) -> None:
    model = CrystalFramer(replace(CONFIG, frame=FrameConfig(method)))
    cf.save(model, tmp_path / "model")
    assert cf.load(tmp_path / "model").evaluation_config == model.config
    with refused(ConfigError, method, "max or static-max", field="model.frame.method"):
        model.with_weighted_sets(MARGIN)
