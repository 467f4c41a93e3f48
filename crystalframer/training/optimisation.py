"""The maths of one optimiser step (FORMULAE section 6): pure functions, and the running mean of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from crystalframer.config import ModelConfig, Target, TrainingConfig
from crystalframer.datasets import classes
from crystalframer.errors import ConfigError
from crystalframer.training.muon import Muon


def learning_rate(step: int, progress: float, config: TrainingConfig) -> float:
    """The rate of the step that follows `step` others, when the share `progress` of the run is done.

    `inverse-sqrt`: lr(t) = learning_rate·√(decay_steps/(decay_steps + t)); no warm-up (Crystalformer, appendix).
    `warmup-stable-decay`: the smallest of a line up, a constant and a line down to 0 (Hu et al., arXiv 2404.06395; that
    0 is the best end: Bergsma et al., arXiv 2502.15938).
    """
    if config.schedule == "inverse-sqrt":
        return config.learning_rate * math.sqrt(config.decay_steps / (config.decay_steps + step))
    warmup = (step + 1) / (config.warmup_steps + 1)
    decay = (1.0 - progress) / config.decay_fraction if config.decay_fraction else 1.0
    return config.learning_rate * min(warmup, 1.0, decay)


def parameter_groups(model: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """Parameters with "bias" in their name, which have a weight decay of their own (FORMULAE Q3), and all others.

    With Muon, a third group has the matrices of the blocks: not what embeds elements, sets decay lengths or reads out.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    biases = [p for name, p in named if "bias" in name]
    others = [(name, p) for name, p in named if "bias" not in name]
    groups: list[dict[str, Any]] = [{"params": biases, "weight_decay": config.bias_weight_decay}]
    if config.optimizer == "muon":
        matrices = [p for name, p in others if name.startswith("blocks.") and not name.endswith("decay_projection")]
        groups.append({"params": matrices, "weight_decay": config.weight_decay, "orthogonal": True})
        of_muon = set(map(id, matrices))
        others = [(name, p) for name, p in others if id(p) not in of_muon]
    groups.append({"params": [p for _, p in others], "weight_decay": config.weight_decay})
    return groups


def optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    groups, rate = parameter_groups(model, config), learning_rate(0, 0.0, config)
    # fused: one kernel for all parameters, on the CPU too.
    adamw: dict[str, Any] = {"betas": config.betas, "eps": config.eps, "fused": True}
    if config.optimizer == "muon":
        return Muon(groups, rate, config.momentum, **adamw)
    return torch.optim.AdamW(groups, rate, **adamw)


def normalised_errors(
    prediction: Float[Tensor, "n_crystals n_targets"],
    target: Float[Tensor, "n_crystals n_targets"],
    std: Float[Tensor, " n_targets"],
) -> tuple[Float[Tensor, "n_crystals n_targets"], Bool[Tensor, "n_crystals n_targets"]]:
    """|prediction - target|/std, 0 (with no gradient) where the label is missing; and where there is a label."""
    has_label = ~target.isnan()
    # Replaced before the difference: the gradient of a masked NaN would be NaN.
    return (prediction - torch.where(has_label, target, prediction.detach())).abs() / std, has_label


def errors_of_targets(
    prediction: Float[Tensor, "n_crystals n_outputs"],
    labels: Float[Tensor, "n_crystals n_targets"],
    std: Float[Tensor, " n_outputs"],
    config: ModelConfig,
    class_weights: Mapping[str, Tensor] | None = None,
) -> tuple[Float[Tensor, "n_crystals n_targets"], Bool[Tensor, "n_crystals n_targets"]]:
    """The loss of each label: |error|/std of scalars, cross-entropy of classes; and where there is a label.

    Args:
        class_weights: name of a target → factor on the loss of each of its classes. Default: all count alike.
    """
    if not any(target.is_class for target in config.targets):
        return normalised_errors(prediction, labels, std)
    errors, has_label = [], ~labels.isnan()
    for n, (target, columns) in enumerate(zip(config.targets, config.columns, strict=True)):
        if target.is_class:
            weights = (class_weights or {}).get(target.name)
            errors.append(cross_entropy(prediction[:, columns], labels[:, n], weights))
        else:
            errors.append(normalised_errors(prediction[:, columns], labels[:, n : n + 1], std[columns])[0][:, 0])
    return torch.stack(errors, dim=1), has_label


def cross_entropy(
    logits: Float[Tensor, "n_crystals n_outputs"],
    labels: Float[Tensor, " n_crystals"],
    weights: Float[Tensor, " n_classes"] | None = None,
) -> Float[Tensor, " n_crystals"]:
    """-log of the probability of the true class, times its weight; 0 (with no gradient) where the label is missing."""
    has_label = ~labels.isnan()
    number = torch.where(has_label, labels, 0.0).long()
    if logits.shape[1] == 1:  # two classes, and the logit of the second
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    losses = -torch.log_softmax(logits, dim=1).gather(1, number[:, None])[:, 0]
    losses = losses if weights is None else losses * weights[number]
    return torch.where(has_label, losses, 0.0)


def normalised_l1(
    prediction: Float[Tensor, "n_crystals n_targets"],
    target: Float[Tensor, "n_crystals n_targets"],
    std: Float[Tensor, " n_targets"],
) -> Float[Tensor, ""]:
    """The training loss: mean of |prediction - target|/std over the labels that are present (0 if there are none)."""
    errors, has_label = normalised_errors(prediction, target, std)
    return errors.sum() / has_label.sum().clamp(min=1)


def scale_and_clip(
    parameters: Iterable[nn.Parameter], scale: Float[Tensor, ""] | float, max_norm: float
) -> Float[Tensor, ""]:
    """Multiply all gradients by `scale`, then shorten them to a joint length of `max_norm` if they are longer.

    Returns:
        The joint length after scaling and before clipping.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients) * scale
    # The 1e-6 of torch.nn.utils.clip_grad_norm_.
    torch._foreach_mul_(  # pyright: ignore[reportPrivateImportUsage]
        gradients, scale * torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    )
    return norm


class RunningMean:
    """Takes the weights of a model into their mean, step by step.

    It looks them up once, and counts without asking the device: `AveragedModel.update_parameters` does both at every
    step, and on a CPU averages one tensor at a time, which takes ten times as long.
    """

    def __init__(self, average: AveragedModel, model: nn.Module) -> None:
        """Args: average: the mean of the steps so far; it gets the buffers of the model, which no step changes."""
        self._average, self._n_steps = average, int(average.n_averaged)
        self._mean, self._weights = tuple(average.module.parameters()), tuple(model.parameters())
        for mine, buffer in zip(average.module.buffers(), model.buffers(), strict=True):
            mine.copy_(buffer)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self._n_steps += 1
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            self._mean, self._weights, 1.0 / self._n_steps
        )
        self._average.n_averaged.fill_(self._n_steps)


def output_statistics(
    labels: Float[np.ndarray, "n_crystals n_targets"], config: ModelConfig
) -> tuple[Float[np.ndarray, " n_outputs"], Float[np.ndarray, " n_outputs"]]:
    """What the outputs start from, and their scale: mean and standard deviation of the labels of a scalar, log-odds of
    the classes and 1.

    Raises:
        ConfigError: as `target_statistics`; or a class without a label.
    """
    means, deviations = [], []
    for n, target in enumerate(config.targets):
        if target.is_class:
            means.append(class_logits(labels[:, n], target))
            deviations.append(np.ones(target.n_outputs))
        else:
            mean, deviation = target_statistics(labels[:, n : n + 1], [target.name])
            means.append(mean)
            deviations.append(deviation)
    return np.concatenate(means), np.concatenate(deviations)


def class_counts(labels: Float[np.ndarray, " n_crystals"], target: Target) -> Float[np.ndarray, " n_classes"]:
    """The number of training labels of each class.

    Raises:
        ConfigError: a class has none.
    """
    counts = classes.counts(labels, target.classes)
    n_labels, missing = sum(counts.values()), [name for name, count in counts.items() if count == 0]
    if n_labels == 0:
        raise ConfigError(
            f"target {target.name!r}: no training crystal has a label; leave the target out or add labels"
        )
    if len(counts) - len(missing) == 1:
        (only,) = counts.keys() - missing
        raise ConfigError(
            f"target {target.name!r}: all {n_labels} training labels are {only!r}; there is nothing to learn: add "
            "crystals of other classes, or leave the target out"
        )
    if missing:
        raise ConfigError(
            f"target {target.name!r}: no training crystal is of class {', '.join(map(repr, missing))}, so nothing can "
            "be learned of it; add some, or take its crystals out of the other parts"
        )
    return np.array(list(counts.values()), dtype=np.float64)


def class_logits(labels: Float[np.ndarray, " n_crystals"], target: Target) -> Float[np.ndarray, " n_outputs"]:
    """The outputs whose probabilities are the shares of the classes among the labels.

    Raises:
        ConfigError: as `class_counts`.
    """
    logits = np.log(class_counts(labels, target))
    return logits[1:] - logits[:1] if target.n_outputs == 1 else logits - logits.mean()


def balanced_weights(labels: Float[np.ndarray, " n_crystals"], target: Target) -> Float[np.ndarray, " n_classes"]:
    """Factors by which all classes count alike, and labels 1 on average.

    >>> import numpy as np
    >>> from crystalframer.config import Target
    >>> from crystalframer.training.optimisation import balanced_weights
    >>> target = Target("y", kind="class", classes=("a", "b"))
    >>> balanced_weights(np.array([0.0, 0.0, 0.0, 1.0]), target).round(2).tolist()
    [0.67, 2.0]
    """
    counts = class_counts(labels, target)
    return counts.sum() / (len(counts) * counts)


def target_statistics(
    targets: Float[np.ndarray, "n_crystals n_targets"], names: Iterable[str]
) -> tuple[Float[np.ndarray, " n_targets"], Float[np.ndarray, " n_targets"]]:
    """Mean and population standard deviation of each target over the labels that are present.

    Raises:
        ConfigError: a target without labels, or whose labels are all equal.
    """
    for name, labels in zip(names, targets.T, strict=True):
        present = labels[~np.isnan(labels)]
        if present.size == 0:
            raise ConfigError(f"target {name!r}: no training crystal has a label; leave the target out or add labels")
        if not np.isfinite(present).all():
            row = int(np.flatnonzero(np.isinf(labels))[0])
            raise ConfigError(
                f"target {name!r}: the label of training crystal {row} is {labels[row]}; correct it, or leave it empty"
            )
        if present.size == 1:
            raise ConfigError(f"target {name!r}: only 1 training crystal has this label; add crystals with labels")
        if present.std() <= 1e-12 * np.abs(present).max():
            raise ConfigError(
                f"target {name!r}: all {present.size} training labels are {present[0]:g}; there is nothing to learn: "
                "leave the target out"
            )
    return np.nanmean(targets, axis=0), np.nanstd(targets, axis=0)


def accuracy(prediction: Float[np.ndarray, "n_crystals n_outputs"], labels: Float[np.ndarray, " n_crystals"]) -> float:
    """Share of the labels whose class has the highest probability; NaN if there are none, or unknown predictions."""
    has_label = ~np.isnan(labels)
    if not has_label.any() or np.isnan(prediction).any():
        return float("nan")
    likeliest = prediction.argmax(axis=1) if prediction.shape[1] > 1 else (prediction[:, 0] > 0.0).astype(np.int64)
    return float((likeliest == labels)[has_label].mean())


def mean_absolute_error(
    prediction: Float[np.ndarray, "n_crystals n_targets"], target: Float[np.ndarray, "n_crystals n_targets"]
) -> Float[np.ndarray, " n_targets"]:
    """Mean of |prediction - target| of each target over the labels that are present (NaN if there are none)."""
    has_label = ~np.isnan(target)
    errors = np.where(has_label, np.abs(prediction.astype(np.float64) - target.astype(np.float64)), 0.0)
    n_labels = has_label.sum(axis=0)
    return np.divide(errors.sum(axis=0), n_labels, out=np.full(len(n_labels), np.nan), where=n_labels > 0)


def noise_seed(seed: int, epoch: int, batch: int, rank: int = 0) -> int:
    """Seed of the training noise of one batch: a function of its place in the run, so that resuming needs no state."""
    place = (seed, epoch, batch, rank) if rank else (seed, epoch, batch)
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_of_piece(config: TrainingConfig, epoch: int, number: int, rank: int = 0) -> int:
    """Seed of the noise of the share of a batch that a rank computes as its item `number` of an epoch, from 0."""
    batch, piece = divmod(number, config.n_pieces)
    return noise_seed(config.seed, epoch, batch, rank * config.n_pieces + piece)
