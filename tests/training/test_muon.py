"""Muon: steps of equal size in all directions of a matrix, and AdamW for the other parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import crystalframer as cf
from crystalframer.config import Config
from crystalframer.crystals.loading import prepare
from crystalframer.errors import ConfigError
from crystalframer.model.network import CrystalFramer
from crystalframer.training.muon import N_ITERATIONS, SIZE, Muon, orthogonal
from crystalframer.training.optimisation import errors_of_targets, optimizer
from crystalframer.training.task import TrainingTask

TINY = cf.preset("tiny").config
TRAINING = replace(TINY.training, optimizer="muon", learning_rate=1e-3, weight_decay=0.1, momentum=0.9)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (4, 4)])
def test_all_singular_values_come_close_to_one(shape: tuple[int, int]) -> None:
    """Whatever their size, and the directions stay; a stack is what its matrices are."""
    generator = torch.Generator().manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(3, *shape, generator=generator), full_matrices=False)
    s = torch.linspace(1.0, 0.05, s.shape[1]) * torch.tensor([1e-4, 1.0, 1e4])[:, None]
    found = orthogonal(u * s[:, None] @ v)
    inner = u.mT @ found @ v.mT
    assert ((inner.diagonal(dim1=1, dim2=2) > 0.6) & (inner.diagonal(dim1=1, dim2=2) < 1.3)).all()
    assert (inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))).abs().max() < 1e-4
    torch.testing.assert_close(found[1:2], orthogonal(u[1:2] * s[1:2, None] @ v[1:2]))


def test_a_matrix_of_zeros_stays_zero() -> None:
    assert orthogonal(torch.zeros(1, 3, 4)).eq(0).all()


def scalar_iteration(x: float) -> float:
    """What the iteration does to a singular value, in double precision."""
    for _ in range(N_ITERATIONS):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    return x


def test_two_steps_by_hand() -> None:
    """Of a matrix with one element, whose singular value is its size; with Nesterov's look ahead and weight decay."""
    weight = torch.nn.Parameter(torch.full((1, 1), 2.0))
    step = Muon([{"params": [weight], "weight_decay": 0.1, "orthogonal": True}], 0.01, momentum=0.9)
    expected, momentum = 2.0, 0.0
    for gradient in (0.3, -5.0):
        weight.grad = torch.full((1, 1), gradient)
        step.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        ahead = 0.9 * momentum + 0.1 * gradient
        expected = expected * (1.0 - 0.01 * 0.1) - 0.01 * SIZE * np.sign(ahead) * scalar_iteration(1.0)
        assert weight.item() == pytest.approx(expected, rel=1e-5)


def stepped(config: cf.TrainingConfig, n_steps: int = 2, **found_inf: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights of a small model after steps along given gradients."""
    model = CrystalFramer(TINY.model, torch.Generator().manual_seed(0))
    step = optimizer(model, config)
    for name, value in found_inf.items():
        setattr(step, name, value)
    generator = torch.Generator().manual_seed(1)
    for _ in range(n_steps):
        for weight in model.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)
        step.step()
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


MATRICES = (
    "attention.distance_projection",
    "attention.cosine_projection",
    "attention.query.weight",
    "attention.key.weight",
    "attention.value.weight",
    "attention.output.weight",
    "feedforward.0.weight",
    "feedforward.2.weight",
)


def test_it_takes_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    muon, adamw = stepped(TRAINING), stepped(replace(TRAINING, optimizer="adamw"))
    assert muon.keys() == adamw.keys()
    changed = {name for name in muon if not torch.equal(muon[name], adamw[name])}
    assert changed == {f"blocks.{n}.{matrix}" for n in range(TINY.model.n_layers) for matrix in MATRICES}


def test_the_projection_of_each_head_is_a_matrix() -> None:
    """Gradients of another head change nothing of the step of a head."""
    steps = []
    for factor in (1.0, 7.0):
        projection = torch.nn.Parameter(torch.zeros(3, 2, 6, 40))
        projection.grad = torch.randn(projection.shape, generator=torch.Generator().manual_seed(0))
        projection.grad[:, 1:] *= factor
        Muon([{"params": [projection], "orthogonal": True}], 1.0, momentum=0.9, weight_decay=0.0).step()
        steps.append(projection.detach())
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-4, atol=1e-5)
    assert steps[0].square().mean().sqrt().item() == pytest.approx(SIZE, rel=0.3)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    before = stepped(TRAINING, n_steps=0)
    after = stepped(TRAINING, found_inf=torch.ones(()))
    sound = stepped(TRAINING, found_inf=torch.zeros(()))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(sound[name], weight) for name, weight in stepped(TRAINING).items())


def test_target_weights_multiply_the_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("formation_energy_per_atom", "band_gap")
    model_config = replace(TINY.model, targets=tuple(map(cf.Target, names)))
    batch = prepare(cf.dataset("demo").select(range(3)), model_config.radius, names)[np.arange(3)]
    prediction = torch.tensor([[1.0, 5.0], [2.0, 1.0], [-1.0, 0.0]])
    errors, _ = errors_of_targets(prediction, batch.targets, torch.ones(2), model_config)
    monkeypatch.setattr(TrainingTask, "current_epoch", 0)
    monkeypatch.setattr(TrainingTask, "_predict_for_training", lambda *_: prediction)

    def loss(weights: tuple[float, ...]) -> float:
        model = CrystalFramer(model_config, torch.Generator().manual_seed(0))
        task = TrainingTask(model, replace(TINY.training, target_weights=weights), lambda _: 1, batch)
        task._n_batches_now = 1
        return task.training_step(batch, 0).item()

    of_energy, of_gap = errors.sum(dim=0).tolist()
    assert of_energy > 0 and of_gap > 0
    assert loss(()) == pytest.approx(of_energy + of_gap)
    assert loss((2.0, 0.5)) == pytest.approx(2.0 * of_energy + 0.5 * of_gap)


def test_one_weight_for_each_target() -> None:
    assert Config(TINY.model, training=replace(TINY.training, target_weights=(2.0,)))
    with pytest.raises(ConfigError, match=r"training.target_weights = .*a factor for each of the 1 targets, or none"):
        Config(TINY.model, training=replace(TINY.training, target_weights=(1.0, 2.0)))
    with pytest.raises(ConfigError, match=r"training.target_weights\[0\] = 0.0: must be above 0"):
        replace(TINY.training, target_weights=(0.0,))
