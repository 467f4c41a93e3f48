"""Prediction intervals that contain the true value as often as they claim.

Small perceptrons predict how far the true value lies below and above the prediction, by the interval score (Gneiting
and Raftery, J. Am. Stat. Assoc. 102, 359 (2007)): narrow intervals are good, and values outside cost much. Their inputs
are where the crystal lies among the training crystals, and how near the nearest of them are (`training_index`), so that
intervals widen away from these. Split conformal prediction makes the coverage right (Vovk, Gammerman and Shafer 2005;
Romano, Patterson and Candès, NeurIPS 2019): all intervals are scaled by the factor with which 90 % of the calibration
crystals, which did not train the model, lie in theirs. The perceptrons learn from the same crystals, in folds: each
crystal is judged by the perceptron that was not fitted to it.

scripts/compare_intervals.py compares this method with others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from crystalframer import seals
from crystalframer.errors import Setting, UncertaintyError
from crystalframer.functional import functional

if TYPE_CHECKING:
    from torch import Tensor

N_FOLDS = 5
N_HIDDEN = 16
"""For each target."""
N_STEPS = 300
LEARNING_RATE, WEIGHT_DECAY = 6e-3, 3.0
ENOUGH = 100
"""Labelled crystals from which on widths differ; fewer would teach chance."""
FEWEST = 20
"""Labelled crystals without which there are no intervals, and no calibrated probabilities."""


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Gives prediction intervals from where crystals lie among the training crystals. `calibrated` makes it."""

    coverage: float
    """Fraction of crystals whose true value the interval should contain."""
    target_names: tuple[str, ...]
    """Scalar targets of the model; those without intervals are left out."""
    n_crystals: tuple[int, ...]
    """Number of labelled crystals that each target was calibrated on."""
    mean: Float[np.ndarray, " n_inputs"]
    std: Float[np.ndarray, " n_inputs"]
    """Mean and standard deviation of the inputs (`training_index.interval_inputs`) of those crystals."""
    hidden_weight: Float[np.ndarray, "n_folds n_inputs n_hidden"]
    hidden_bias: Float[np.ndarray, "n_folds 1 n_hidden"]
    output_weight: Float[np.ndarray, "n_folds n_hidden n_ends"]
    output_bias: Float[np.ndarray, "n_folds 1 n_ends"]
    """Weights of perceptrons. Their outputs are the logarithms of two lengths in each target's unit: how far the
    interval reaches below the prediction, for all targets, and then above it."""
    quantile: Float[np.ndarray, " n_targets"]
    """Conformal factor of both lengths."""
    lowest: Float[np.ndarray, " n_targets"]
    """The value below which the target cannot lie; -inf if there is none. No interval reaches below it."""

    def __post_init__(self) -> None:
        """Refuse what no calibration gives: its intervals would be too narrow, or no intervals at all.

        Raises:
            UncertaintyError: a value that is not finite, a coverage outside 0 to 1, a negative width, shapes that do
                not belong together, ...
        """
        if not 0.0 < self.coverage < 1.0:
            raise UncertaintyError("the coverage must lie between 0 and 1", field="coverage", value=self.coverage)
        n_targets, (n_folds, n_inputs, n_hidden) = len(self.target_names), self.hidden_weight.shape
        shapes = {
            "mean": (n_inputs,),
            "std": (n_inputs,),
            "hidden_weight": (n_folds, n_inputs, n_hidden),
            "hidden_bias": (n_folds, 1, n_hidden),
            "output_weight": (n_folds, n_hidden, 2 * n_targets),
            "output_bias": (n_folds, 1, 2 * n_targets),
            "quantile": (n_targets,),
            "lowest": (n_targets,),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            is_sound = array < np.inf if name == "lowest" else np.isfinite(array)
            if array.shape != shape or not np.issubdtype(array.dtype, np.floating) or not is_sound.all():
                raise UncertaintyError(f"{name} must be {shape} finite numbers", field=name)
        if not (self.std > 0.0).all():
            raise UncertaintyError("std must be above 0", field="std", value=float(self.std.min()))
        if not (self.quantile >= 0.0).all():
            raise UncertaintyError("quantile must not be negative", field="quantile", value=float(self.quantile.min()))
        counts_fit = len(self.n_crystals) == n_targets > 0 and all(type(n) is int and n > 0 for n in self.n_crystals)
        if not counts_fit:
            message = "each target must have a number of crystals"
            raise UncertaintyError(message, field="n_crystals", value=self.n_crystals)

    def ends(
        self, predicted: Float[np.ndarray, "n_crystals n_targets"], inputs: Float[np.ndarray, "n_crystals n_inputs"]
    ) -> tuple[Float[np.ndarray, "n_crystals n_targets"], Float[np.ndarray, "n_crystals n_targets"]]:
        """The lower and the upper end of the interval of each prediction, in the target's unit.

        Args:
            inputs: those of `training_index.interval_inputs`.
        """
        weights = [getattr(self, name) for name in _WEIGHTS]
        standardised = (np.asarray(inputs, dtype=np.float32) - self.mean) / self.std
        lengths = np.exp(_log_lengths(weights, standardised).mean(axis=0)).astype(np.float64)
        below, above = np.split(lengths, 2, axis=1)
        return self.bounded(predicted - self.quantile * below), self.bounded(predicted + self.quantile * above)

    def bounded(self, values: Float[np.ndarray, "n_crystals n_targets"]) -> Float[np.ndarray, "n_crystals n_targets"]:
        """Values of the targets, cut at the value below which the target cannot lie. Predictions are reported so."""
        return np.maximum(values, self.lowest)

    def to_bytes(self, weights: str | None = None) -> bytes:
        """The content of a safetensors file.

        Args:
            weights: SHA-256 of the weights that these intervals belong to. With it, the file states both checksums
                (see `seals`).
        """
        described = {"coverage": self.coverage, "targets": self.target_names, "n_crystals": self.n_crystals}
        return seals.to_bytes("uncertainty", described, {name: getattr(self, name) for name in _ARRAYS}, weights)

    @classmethod
    def from_bytes(cls, content: bytes, weights: str | None = None) -> Uncertainty:
        """Read the content of a file that `to_bytes` gave.

        Args:
            weights: SHA-256 of the weights that the intervals must belong to. Default: any.

        Raises:
            UncertaintyError: the content is not that of such a file, or damaged, or has values that cannot be.
            CheckpointError: a checksum in it is not that of its content, or of other weights.
        """
        with seals.reading("the uncertainty"):
            described, arrays = seals.from_bytes("uncertainty", content, weights)
            if "lowest" not in arrays:
                arrays = _as_now(arrays)
            return cls(
                coverage=float(described["coverage"]),
                target_names=tuple(described["targets"]),
                n_crystals=tuple(described["n_crystals"]),
                **{name: arrays[name] for name in _ARRAYS},
            )


_ARRAYS = tuple(field.name for field in fields(Uncertainty))[3:]
_WEIGHTS = ("hidden_weight", "hidden_bias", "output_weight", "output_bias")


def calibrated(
    inputs: Float[np.ndarray, "n_crystals n_inputs"],
    errors: Float[np.ndarray, "n_crystals n_targets"],
    target_names: Sequence[str],
    coverage: float = 0.9,
    seed: int = 0,
    weights: Float[np.ndarray, " n_crystals"] | None = None,
    lowest: Float[np.ndarray, " n_targets"] | None = None,
) -> Uncertainty:
    """Calibrate intervals with the errors of a model on crystals that it was not trained on.

    Args:
        inputs: those of `training_index.interval_inputs`.
        errors: prediction - label in the target's unit; NaN where there is no label.
        coverage: fraction of further crystals of this kind whose true value the intervals should contain.
        seed: random seed of the folds and the initial weights.
        weights: how much each crystal counts. Default: all alike.
        lowest: the value of each target below which no crystal can lie. Default: none.

    Raises:
        UncertaintyError: the coverage is not between 0 and 1, or a target has fewer labels than `fewest_labels`.
    """
    import torch

    least = fewest_labels(coverage)
    has_label = ~np.isnan(errors)
    n_labels = has_label.sum(axis=0)
    for name, n in zip(target_names, n_labels.tolist(), strict=True):
        if n < least:
            raise UncertaintyError(
                f"target {name!r} has {n} labelled crystals to calibrate on; an interval of {coverage:.0%} needs at "
                f"least {least}, and several hundred to be useful",
                field=name,
                value=n,
            )
    counts = np.ones(len(errors)) if weights is None else weights
    generator = np.random.default_rng(seed)
    fold = generator.permutation(len(errors)) % N_FOLDS
    mean = inputs.mean(axis=0, dtype=np.float64)
    std = inputs.std(axis=0, dtype=np.float64) + 1e-6
    standardised = torch.from_numpy(((inputs - mean) / std).astype(np.float32))
    in_fold = torch.from_numpy(fold[None] == np.arange(N_FOLDS)[:, None])
    counts_of_labels = torch.from_numpy(np.where(has_label, counts[:, None], 0.0)).float()
    of_targets = [
        _fitted(standardised, -errors[:, t], counts_of_labels[:, t], in_fold, coverage, generator)
        for t in range(len(target_names))
    ]
    fitted = _side_by_side(of_targets)
    with torch.no_grad():
        unseen = torch.exp(_log_lengths(fitted, standardised))[fold, np.arange(len(fold))].double().numpy()
    below, above = np.split(unseen, 2, axis=1)
    scores = np.where(errors > 0, errors / below, -errors / above)
    quantile = [
        _conformal_quantile(scores[has_label[:, t], t], coverage, counts[has_label[:, t]])
        for t in range(len(target_names))
    ]
    return Uncertainty(
        coverage,
        tuple(target_names),
        tuple(n_labels.tolist()),
        mean.astype(np.float32),
        std.astype(np.float32),
        *(weight.numpy() for weight in fitted),
        quantile=np.array(quantile),
        lowest=np.full(len(target_names), -np.inf) if lowest is None else lowest,
    )


def fewest_labels(coverage: float) -> int:
    """Labelled crystals that a target needs for intervals of this coverage.

    >>> fewest_labels(0.9), fewest_labels(0.99)
    (20, 99)

    Raises:
        UncertaintyError: the coverage is not between 0 and 1.
    """
    if not 0.0 < coverage < 1.0:
        message = Setting("coverage", coverage), " must lie between 0 and 1, such as 0.9"
        raise UncertaintyError(*message, field="coverage", value=coverage)
    return max(math.ceil(coverage / (1.0 - coverage) - 1e-9), FEWEST)


def fitted_temperature(
    logits: Float[np.ndarray, "n_crystals n_outputs"], labels: Float[np.ndarray, " n_crystals"], name: str
) -> float:
    """By what logits are divided to minimise the log loss: above 1 if their probabilities are too sure.

    Args:
        labels: numbers of the classes; NaN where there is none.
        name: that of the target, for messages.

    Raises:
        UncertaintyError: fewer than 20 labels, or all of one class.
    """
    from scipy.optimize import minimize_scalar

    has_label = ~np.isnan(labels)
    n_labels, classes = int(has_label.sum()), labels[has_label].astype(np.int64)
    if n_labels < FEWEST:
        message = f"target {name!r} has {n_labels} labelled crystals; probabilities need at least {FEWEST}"
        raise UncertaintyError(message, field=name, value=n_labels)
    if len(np.unique(classes)) < 2:
        message = f"all {n_labels} labels of {name!r} are of one class; give crystals of another one, too"
        raise UncertaintyError(message, field=name)
    given = logits[has_label]
    given = np.concatenate([np.zeros_like(given), given], axis=1) if given.shape[1] == 1 else given

    def log_loss(log_temperature: float) -> float:
        scaled = given / math.exp(log_temperature)
        highest = scaled.max(axis=1, keepdims=True)
        normaliser = np.log(np.exp(scaled - highest).sum(axis=1)) + highest[:, 0]
        return float((normaliser - scaled[np.arange(n_labels), classes]).mean())

    return math.exp(minimize_scalar(log_loss, bounds=(-4.0, 4.0), method="bounded").x)


def _as_now(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of release 0.1, whose intervals reach as far above as below, and know no lowest value."""
    changed = {name: np.concatenate([arrays[name]] * 2, axis=-1) for name in ("output_weight", "output_bias")}
    return {**arrays, **changed, "lowest": np.full_like(arrays["quantile"], -np.inf)}


def _conformal_quantile(
    scores: Float[np.ndarray, " n"], coverage: float, counts: Float[np.ndarray, " n"] | None = None
) -> float:
    """The ⌈(n + 1)·coverage⌉-th smallest score: a further one is not above it with at least this probability.

    With counts, the smallest score up to which they reach this share; the further crystal counts as these on average.
    """
    counts = np.ones(len(scores)) if counts is None else counts
    order = np.argsort(scores)
    reached = np.cumsum(counts[order])
    wanted = coverage * (reached[-1] + np.square(counts).sum() / reached[-1])
    return float(scores[order][min(np.searchsorted(reached, wanted * (1.0 - 1e-12)), len(scores) - 1)])


def _log_lengths(
    weights: Sequence[Any], standardised: Float[Any, "n_crystals n_inputs"]
) -> Float[Any, "n_folds n_crystals n_ends"]:
    hidden_weight, hidden_bias, output_weight, output_bias = weights
    return functional(standardised).silu(standardised @ hidden_weight + hidden_bias) @ output_weight + output_bias


def _side_by_side(of_targets: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The perceptrons of all targets as one, in which no hidden number serves two of them."""
    import torch

    hidden_weights, hidden_biases, output_weights, output_biases = zip(*of_targets, strict=True)
    n_targets, n_folds = len(of_targets), len(output_weights[0])
    output_weight = torch.zeros(n_folds, n_targets, N_HIDDEN, 2, n_targets)
    output_bias = torch.zeros(n_folds, 1, 2, n_targets)
    for t in range(n_targets):
        output_weight[:, t, :, :, t] = output_weights[t]
        output_bias[..., t] = output_biases[t]
    hidden = torch.cat(hidden_weights, dim=2), torch.cat(hidden_biases, dim=2)
    return [*hidden, output_weight.flatten(3).flatten(1, 2), output_bias.flatten(2)]


def _fitted(
    standardised: Float[Any, "n_crystals n_inputs"],
    deviations: Float[np.ndarray, " n_crystals"],
    counts: Float[Any, " n_crystals"],
    in_fold: Bool[Any, "n_folds n_crystals"],
    coverage: float,
    generator: np.random.Generator,
) -> list[Tensor]:
    """Fit perceptrons of one target that minimise the interval score, each without its fold.

    They start from one width for all crystals. The weights with the best score in their folds are kept: those of the
    start, if the crystals teach nothing. With fewer than `ENOUGH` labels, the start is all.

    Args:
        deviations: label - prediction; NaN where there is no label.
        counts: how much each label counts; 0 where there is none.
    """
    import torch

    n_folds, n_inputs = len(in_fold), standardised.shape[1]
    width = max(float(np.nanquantile(np.abs(deviations), coverage)), 1e-12)
    deviation = torch.from_numpy(np.nan_to_num(deviations) / width).float()
    first = generator.normal(0.0, n_inputs**-0.5, (n_folds, n_inputs, N_HIDDEN)).astype(np.float32)
    weights = [
        torch.from_numpy(first),
        torch.zeros(n_folds, 1, N_HIDDEN),
        torch.zeros(n_folds, N_HIDDEN, 2),
        torch.zeros(n_folds, 1, 2),
    ]
    for weight in weights:
        weight.requires_grad_()
    matrices, biases = weights[::2], weights[1::2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": biases, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, N_STEPS)
    share = counts / counts.sum()
    best, kept = math.inf, weights
    for _ in range(N_STEPS if np.isfinite(deviations).sum() >= ENOUGH else 1):
        below, above = torch.exp(_log_lengths(weights, standardised)).unbind(dim=2)
        outside = torch.relu(deviation - above) + torch.relu(-deviation - below)
        score = (below + above + 2.0 / (1.0 - coverage) * outside) * share
        unseen = float(score.detach()[in_fold].sum())
        if unseen < best:
            best, kept = unseen, [weight.detach().clone() for weight in weights]
        optimiser.zero_grad()
        score.masked_fill(in_fold, 0.0).sum().backward()
        optimiser.step()
        schedule.step()
    kept[3] += math.log(width)
    return kept
