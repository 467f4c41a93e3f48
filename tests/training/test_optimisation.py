"""The pieces of an optimiser step against hand values and torch's own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from crystalframer.config import TrainingConfig
from crystalframer.errors import ConfigError
from crystalframer.training.optimisation import (
    RunningMean,
    learning_rate,
    mean_absolute_error,
    noise_seed,
    normalised_l1,
    optimizer,
    parameter_groups,
    scale_and_clip,
    target_statistics,
)

CONFIG = TrainingConfig()
NAN = float("nan")


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (4000, math.sqrt(0.5)), (12000, 0.5)])
def test_learning_rate_falls_with_the_inverse_square_root(step: int, factor: float) -> None:
    assert learning_rate(step, 0.9, CONFIG) == pytest.approx(5e-4 * factor, rel=1e-15)


@pytest.mark.parametrize(
    ("step", "progress", "factor"),
    [(0, 0.0, 0.2), (3, 0.1, 0.8), (4, 0.2, 1.0), (50, 0.75, 1.0), (60, 0.875, 0.5), (99, 1.0, 0.0)],
)
def test_learning_rate_warms_up_stays_and_decays(step: int, progress: float, factor: float) -> None:
    config = replace(CONFIG, schedule="warmup-stable-decay", warmup_steps=4, decay_fraction=0.25)
    assert learning_rate(step, progress, config) == pytest.approx(5e-4 * factor, rel=1e-12)


def test_a_rate_that_never_decays() -> None:
    config = replace(CONFIG, schedule="warmup-stable-decay", decay_fraction=0.0)
    assert [learning_rate(step, progress, config) for step, progress in ((0, 0.0), (9, 0.999))] == [5e-4, 5e-4]


def test_biases_have_a_weight_decay_of_their_own() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2, bias=False))
    biases, weights = parameter_groups(model, replace(CONFIG, bias_weight_decay=0.01))
    assert [p.shape for p in biases["params"]] == [(4,)]
    assert [p.shape for p in weights["params"]] == [(4, 3), (2, 4)]
    assert (biases["weight_decay"], weights["weight_decay"]) == (0.01, 1e-5)


def test_one_adamw_step_by_hand() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    config = replace(CONFIG, weight_decay=0.1, learning_rate=0.01)
    with torch.no_grad():
        model.weight.fill_(2.0)
    model.weight.grad = torch.full((1, 1), 0.3)
    optimizer(model, config).step()
    # Decay w(1 - lr·λ), then m̂/(√v̂ + ε) = sign of the gradient in the first step.
    assert model.weight.item() == pytest.approx(2.0 * (1 - 0.01 * 0.1) - 0.01 * 0.3 / (0.3 + 1e-8), rel=1e-7)


def test_loss_is_the_mean_over_present_labels_in_standard_deviations() -> None:
    prediction = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, NAN]], requires_grad=True)
    target = torch.tensor([[0.0, NAN], [5.0, 26.0], [4.5, NAN]])
    prediction_ok = prediction.detach().nan_to_num(0.0).requires_grad_()
    loss = normalised_l1(prediction_ok, target, torch.tensor([1.0, 2.0]))
    assert loss.item() == pytest.approx((1.0 + 3.0 + 0.5 + 6.0 / 2.0) / 4)
    loss.backward()
    assert prediction_ok.grad is not None
    expected = torch.tensor([[0.25, 0.0], [-0.25, -0.125], [-0.25, 0.0]])
    torch.testing.assert_close(prediction_ok.grad, expected, rtol=0, atol=0)
    # A prediction that is not a number shows, even where the label is missing.
    assert normalised_l1(prediction, target, torch.tensor([1.0, 2.0])).isnan()


def test_a_batch_without_labels_has_no_loss_and_no_gradient() -> None:
    prediction = torch.ones(2, 1, requires_grad=True)
    loss = normalised_l1(prediction, torch.full((2, 1), NAN), torch.ones(1))
    loss.backward()
    assert loss.item() == 0.0
    assert prediction.grad is not None and prediction.grad.eq(0).all()


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("max_norm", [0.1, 1e3])
def test_clipping_is_torch_s_after_scaling(scale: float, max_norm: float) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(4, 3)), torch.nn.Parameter(torch.zeros(5))]
    expected = [torch.nn.Parameter(torch.zeros_like(p)) for p in parameters]
    for ours, torchs in zip(parameters, expected, strict=True):
        ours.grad = torch.randn_like(ours)
        torchs.grad = ours.grad * scale
    norm = scale_and_clip([*parameters, torch.nn.Parameter(torch.zeros(2))], torch.tensor(scale), max_norm)
    expected_norm = torch.nn.utils.clip_grad_norm_(expected, max_norm)
    assert norm.item() == pytest.approx(expected_norm.item(), rel=1e-6)
    for ours, torchs in zip(parameters, expected, strict=True):
        torch.testing.assert_close(ours.grad, torchs.grad, rtol=1e-6, atol=0)


def test_target_statistics_leave_missing_labels_out() -> None:
    mean, std = target_statistics(np.array([[1.0, NAN], [3.0, 2.0], [NAN, 8.0]]), ["a", "b"])
    assert mean.tolist() == [2.0, 5.0]
    assert std.tolist() == [1.0, 3.0]  # population: divided by n


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([NAN, NAN], "'gap': no training crystal has a label"),
        ([2.5, 2.5], "'gap': all 2 training labels are 2.5"),
        ([0.1 + 0.2, 0.3], "'gap': all 2 training labels are 0.3"),
        ([1.0, NAN], "'gap': only 1 training crystal has this label"),
    ],
)
def test_targets_without_spread_are_refused(labels: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        target_statistics(np.array([[0.0, labels[0]], [1.0, labels[1]]]), ["energy", "gap"])


def test_mean_absolute_error_of_each_target() -> None:
    prediction = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, NAN]])
    target = np.array([[2.0, NAN, NAN], [5.0, NAN, 1.0]])
    assert mean_absolute_error(prediction, target).tolist() == pytest.approx([2.0, NAN, NAN], nan_ok=True)


def test_every_batch_has_noise_of_its_own() -> None:
    seeds = {noise_seed(seed, epoch, batch) for seed in range(3) for epoch in range(10) for batch in range(10)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert noise_seed(1, 2, 3) == noise_seed(1, 2, 3)


def test_the_running_mean_goes_on_from_its_state() -> None:
    """Five weights, taken in by two objects one after the other, as before and after a training is resumed."""
    torch.manual_seed(0)
    model = nn.BatchNorm1d(4)
    average = AveragedModel(model)
    found = []
    for n_steps in (2, 3):
        state = average.state_dict()
        average = AveragedModel(nn.BatchNorm1d(4))
        average.load_state_dict(state)
        mean = RunningMean(average, model)
        for _ in range(n_steps):
            found.append(torch.randn(4))
            with torch.no_grad():
                model.weight.copy_(found[-1])
            mean.update()
    assert int(average.n_averaged) == 5
    torch.testing.assert_close(average.get_parameter("module.weight").detach(), torch.stack(found).mean(dim=0))
    torch.testing.assert_close(model.weight.detach(), found[-1])


def test_the_running_mean_has_the_buffers_of_the_model() -> None:
    model = nn.BatchNorm1d(4)
    average = AveragedModel(model)
    model(torch.randn(8, 4))  # which changes them
    RunningMean(average, model)
    torch.testing.assert_close(average.get_buffer("module.running_mean"), model.running_mean)
