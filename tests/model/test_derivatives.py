"""Derivatives with respect to the structure: through weighted sets of frames, and as smooth as the settings promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from attention_cases import ATOM, IRON, MOLECULE
from refusals import refused
from sensitive_models import sensitive_model
from torch import Tensor

from crystalframer import ops
from crystalframer.config import DecayConfig, FrameConfig, ModelConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.errors import ConfigError, CrystalError
from crystalframer.frame_methods import FRAME_METHODS
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import prototypes, random_crystal

STEP = 1e-5
SMOOTH = FrameConfig("max", weighted_margin=0.5, second_axis="sine", both_hands=True)
FRAMES = {
    "max": SMOOTH,
    "nearest": replace(SMOOTH, method="static-max"),
    "paper's second axis": replace(SMOOTH, second_axis="off-line", both_hands=False),
    "none": FrameConfig("none"),
}
OWN_REACH = DecayConfig(reach=2.5, shape="smooth")
MOST = {crystal.id: crystal for crystal in prototypes()}
SALT, PEROVSKITE = MOST["rock salt NaCl"], MOST["perovskite SrTiO3"]
CHAIN = Crystal(np.array([6]), np.zeros((1, 3)), np.diag([2.0, 20.0, 20.0]), "chain")
SHEET = Crystal(np.array([6]), np.zeros((1, 3)), np.diag([2.0, 2.0, 20.0]), "sheet")


def model_of(frame: FrameConfig = SMOOTH, decay: DecayConfig = OWN_REACH) -> CrystalFramer:
    """A model in float64 whose predictions depend much on angles."""
    crystals = [random_crystal(1, 3), random_crystal(4, 4)]
    model = sensitive_model(crystals, dtype=torch.float64, frame=frame, decay=decay, activation="swish")
    with torch.no_grad():
        model.embedding.weight.mul_(8)
    return model


def batch_of(model: CrystalFramer, *crystals: Crystal, radius: float | None = None) -> CrystalBatch:
    config = model.config
    return make_batch(crystals, radius or config.radius, dtype=torch.float64, enlarge=config.enlarges_radius)


def displaced(crystal: Crystal, size: float = 0.05) -> Crystal:
    noise = np.random.default_rng(0).normal(size=crystal.positions.shape)
    return replace(crystal, positions=crystal.positions + size * noise)


def energy(model: CrystalFramer, batch: CrystalBatch) -> Callable[[Tensor], Tensor]:
    """The sum of all predictions as a function of the edge vectors."""
    return lambda vectors: model(replace(batch, edge_vectors=vectors)).sum()


def slope(function: Callable[[Tensor], Tensor], at: Tensor, create_graph: bool = False) -> Tensor:
    given = at.detach().requires_grad_()
    return torch.autograd.grad(function(given), given, create_graph=create_graph)[0]


def central(function: Callable[[Tensor], Tensor], at: Tensor, along: Tensor) -> Tensor:
    """Derivative of a function along a direction, by central differences."""
    return differences([function(at + n * STEP * along) for n in (-2, -1, 1, 2)])


def differences(value: list[Tensor]) -> Tensor:
    """Central difference of fourth order, from values at -2, -1, 1 and 2 steps."""
    return (value[0] - 8 * value[1] + 8 * value[2] - value[3]) / (12 * STEP)


def direction_like(vectors: Tensor, seed: int = 0) -> Tensor:
    along = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed), dtype=vectors.dtype)
    return along / along.norm()


@pytest.mark.parametrize("decay", [OWN_REACH, DecayConfig()], ids=["own reach", "paper's decay"])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_gradients_are_finite_differences(frame: FrameConfig, decay: DecayConfig) -> None:
    """The first derivative, and the derivative of the gradient, which training on forces needs."""
    model = model_of(frame, decay)
    for crystal in (random_crystal(4, 4), displaced(SALT), displaced(PEROVSKITE)):
        batch = batch_of(model, crystal, radius=min(model.config.radius, 5.0))
        of, at = energy(model, batch), batch.edge_vectors
        along, seen = direction_like(at), direction_like(at, 1)
        gradient = slope(of, at)
        with torch.no_grad():
            expected = central(of, at, along)
        assert abs((gradient * along).sum() - expected) < 1e-7 * gradient.norm()
        second = slope(lambda vectors, of=of, seen=seen: (slope_of(of, vectors) * seen).sum(), at)
        expected = central(lambda vectors, of=of, seen=seen: (slope(of, vectors) * seen).sum(), at, along)
        assert second.isfinite().all() and gradient.norm() > 1e-3
        assert abs((second * along).sum() - expected) < 1e-6 * second.norm()


def slope_of(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """A gradient that can be differentiated."""
    return torch.autograd.grad(function(at), at, create_graph=True)[0]


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_gradients_of_weights_are_finite_differences(frame: FrameConfig) -> None:
    """Of a prediction, and of a loss on forces, along a direction in the space of all weights."""
    model = model_of(frame)
    batch = batch_of(model, random_crystal(4, 4))
    names, weights = zip(*((n, p.detach().clone()) for n, p in model.named_parameters()), strict=True)
    along = [direction_like(weight, seed) * weight.norm() for seed, weight in enumerate(weights)]

    def predicted(*weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(model, given, batch).sum()

    def forces(*weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        vectors = batch.edge_vectors.clone().requires_grad_()
        moved = replace(batch, edge_vectors=vectors)
        return slope_of(lambda _: torch.func.functional_call(model, given, moved).sum(), vectors).square().sum()

    for loss in (predicted, forces):
        leaves = [weight.clone().requires_grad_() for weight in weights]
        gradients = torch.autograd.grad(loss(*leaves), leaves, allow_unused=True)
        found = sum((g * a).sum() for g, a in zip(gradients, along, strict=True) if g is not None)
        moved = ([w + n * STEP * a for w, a in zip(weights, along, strict=True)] for n in (-2, -1, 1, 2))
        value = [loss(*given).detach() for given in moved]
        assert abs(found - differences(value)) < 1e-6 * abs(found)


@pytest.mark.parametrize("crystal", [random_crystal(4, 4), PEROVSKITE], ids=lambda crystal: crystal.id)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_stress_is_symmetric(frame: FrameConfig, crystal: Crystal) -> None:
    """The energy does not change with a rotation, so only the symmetric part of a strain does."""
    model = model_of(frame)
    batch = batch_of(model, crystal)
    stress = slope(energy(model, batch), batch.edge_vectors).mT @ batch.edge_vectors
    assert stress.norm() > 1e-3
    torch.testing.assert_close(stress, stress.mT, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("crystal", [SALT, PEROVSKITE, IRON, MOST["rutile TiO2"]], ids=lambda crystal: crystal.id)
def test_forces_obey_the_symmetry_of_the_site(crystal: Crystal) -> None:
    """They vanish where inversion leaves the atom in place; oxygen of rutile may move along one line."""
    model = model_of()
    batch = batch_of(model, crystal)
    gradient = slope(energy(model, batch), batch.edge_vectors)
    query, key = batch.edge_index
    forces = gradient.new_zeros(batch.n_atoms, 3).index_add(0, query, gradient).index_add(0, key, -gradient)
    if "rutile" not in crystal.id:
        assert gradient.norm() > 1e-3
        assert forces.abs().max() < 1e-10
    else:
        along = torch.tensor([[1, 1, 0], [-1, -1, 0], [1, -1, 0], [-1, 1, 0]], dtype=torch.float64) / 2**0.5
        sizes = (forces[2:] * along).sum(-1)
        assert sizes.abs().min() > 1e-5
        assert (forces[2:] - sizes[0] * along).abs().max() < 1e-10
        assert forces[:2].abs().max() < 1e-10


STRETCH, SHEAR, SWELL = np.diag([0.0, 0.0, 1.0]), np.outer([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]), np.eye(3)
PATHS = {"ties": (STRETCH, 0.12), "right angle": (SHEAR, 0.1), "reach": (SWELL, 0.08)}


def slopes_along(model: CrystalFramer, strain: np.ndarray, largest: float, steps: int) -> Tensor:
    """dE/dt of polonium under the strain 1 + t·strain, t from -largest to largest."""
    polonium = Crystal(np.array([84]), np.zeros((1, 3)), np.diag([3.0, 3.0, 2.88]))
    batch = batch_of(model, *[polonium] * steps, radius=1.1 * model.config.radius)
    of_crystal = batch.crystal_index[batch.edge_index[0]]
    moved = batch.edge_vectors @ torch.from_numpy(strain)
    t = torch.linspace(-largest, largest, steps, dtype=torch.float64)
    gradient = slope(energy(model, batch), batch.edge_vectors + t[of_crystal, None] * moved)
    return torch.zeros_like(t).index_add(0, of_crystal, (gradient * moved).sum(-1))


def jump(frame: FrameConfig, path: str) -> float:
    """How much of the largest change of the slope from step to step stays when steps are four times as short."""
    model = model_of(frame)
    strain, largest = PATHS[path]
    coarse, fine = (slopes_along(model, strain, largest, steps).diff().abs().max() for steps in (100, 397))
    return float(fine / coarse)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("frame", [SMOOTH, replace(SMOOTH, method="static-max")], ids=["max", "nearest"])
def test_the_gradient_is_continuous(frame: FrameConfig, path: str) -> None:
    """Where neighbours tie for an axis, stand at right angles to one, and cross the reach of a head."""
    assert jump(frame, path) < 0.4


def test_the_paper_s_second_axis_has_a_kink_at_a_right_angle() -> None:
    assert jump(replace(SMOOTH, second_axis="off-line"), "right angle") > 0.7


@pytest.mark.parametrize("crystal", [ATOM, CHAIN, SHEET, MOLECULE, SALT], ids=lambda crystal: crystal.id)
@pytest.mark.parametrize("decay", [OWN_REACH, DecayConfig()], ids=["own reach", "paper's decay"])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_degenerate_surroundings_have_numbers_for_gradients(
    frame: FrameConfig, decay: DecayConfig, crystal: Crystal
) -> None:
    """No neighbour, neighbours on a line or in a plane, ties; edges beyond the reach, whose logits are -inf."""
    model = model_of(frame, decay)
    batch = batch_of(model, crystal, radius=1.2 * model.config.radius)
    vectors = batch.edge_vectors.clone().requires_grad_()
    gradient = slope_of(energy(model, batch), vectors)
    gradient.square().sum().backward()
    assert vectors.grad is not None
    assert gradient.isfinite().all() and vectors.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    itself = batch.edge_lengths < 1e-2
    assert (gradient[itself] == 0).all()
    if crystal is ATOM and decay is OWN_REACH:
        assert (gradient == 0).all()


def test_gradients_in_float32_are_those_of_float64() -> None:
    model = model_of()
    batch = batch_of(model, random_crystal(4, 4))
    exact = slope(energy(model, batch), batch.edge_vectors)
    single = batch.to(dtype=torch.float32)
    found = slope(energy(model.float(), single), single.edge_vectors)
    assert (found - exact).abs().max() < 1e-4 * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("frame", "seed", "word"),
    [
        *((FrameConfig(method), None, "weighted_margin") for method in FRAME_METHODS if method != "none"),
        (SMOOTH, 0, "noise_seed"),
    ],
)
def test_frames_that_are_chosen_or_drawn_have_no_gradient(
    frame: FrameConfig, seed: int | None, word: str, dtype: torch.dtype
) -> None:
    """A partial gradient would be silently wrong."""
    model = CrystalFramer(ModelConfig(n_layers=1, n_heads=1, d_model=8, frame=frame)).to(dtype)
    batch = make_batch([random_crystal(1, 2)], 4.0, dtype=dtype)
    expected = model(batch, seed)
    batch.edge_vectors.requires_grad_()
    with refused(CrystalError, word, field="edge_vectors"):
        model(batch, seed)
    with torch.no_grad():
        torch.testing.assert_close(model(batch, seed), expected, rtol=1e-5, atol=1e-6)


def test_kernels_have_no_gradient_of_the_structure() -> None:
    model = CrystalFramer(ModelConfig(n_layers=1, n_heads=1, d_model=8, frame=SMOOTH))
    batch = make_batch([random_crystal(1, 2)], 4.0)
    batch.edge_vectors.requires_grad_()
    with ops.use("cpu"), refused(ConfigError, "gradient", field="implementation"):
        model(batch)
