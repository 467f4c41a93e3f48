"""Prediction intervals that contain the true value as often as they claim.

Split conformal prediction (Vovk, Gammerman and Shafer 2005; Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018)): an
interval as wide as the 90 % quantile of the errors on crystals that the model was not trained on contains 90 % of
further crystals of that kind. A single width is too wide for easy crystals and too narrow for hard ones, so each error
is first divided by the error that is expected for its crystal (normalised conformal prediction: Papadopoulos et al.,
ECML 2002). Small perceptrons predict this scale from the features that the model's readout gets. They learn it from the
same crystals, in folds: the error of a crystal is divided by the scale of the perceptron that was not fitted to it.

scripts/compare_intervals.py compares this method with others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crystalframer import seals
from crystalframer.errors import Setting, UncertaintyError

N_FOLDS = 5
N_HIDDEN = 16
N_STEPS = 300
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 1.0


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Gives the half-widths of prediction intervals from the pooled features of crystals. `calibrated` makes it."""

    coverage: float
    """Fraction of crystals whose true value the interval should contain."""
    target_names: tuple[str, ...]
    n_crystals: tuple[int, ...]
    """Number of labelled crystals that each target was calibrated on."""
    mean: Float[np.ndarray, " d_model"]
    std: Float[np.ndarray, " d_model"]
    """Mean and standard deviation of the pooled features of those crystals."""
    hidden_weight: Float[np.ndarray, "n_folds d_model n_hidden"]
    hidden_bias: Float[np.ndarray, "n_folds 1 n_hidden"]
    output_weight: Float[np.ndarray, "n_folds n_hidden n_targets"]
    output_bias: Float[np.ndarray, "n_folds 1 n_targets"]
    """Weights of perceptrons whose outputs are the logarithm of the expected error, in each target's unit."""
    quantile: Float[np.ndarray, " n_targets"]
    """Conformal quantile of |error| / scale."""

    def __post_init__(self) -> None:
        """Refuse what no calibration gives: its intervals would be too narrow, or no intervals at all.

        Raises:
            UncertaintyError: a value that is not finite, a coverage outside 0 to 1, a negative width, shapes that do
                not belong together, ...
        """
        if not 0.0 < self.coverage < 1.0:
            raise UncertaintyError("the coverage must lie between 0 and 1", field="coverage", value=self.coverage)
        n_targets, (n_folds, d_model, n_hidden) = len(self.target_names), self.hidden_weight.shape
        shapes = {
            "mean": (d_model,),
            "std": (d_model,),
            "hidden_weight": (n_folds, d_model, n_hidden),
            "hidden_bias": (n_folds, 1, n_hidden),
            "output_weight": (n_folds, n_hidden, n_targets),
            "output_bias": (n_folds, 1, n_targets),
            "quantile": (n_targets,),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
                raise UncertaintyError(f"{name} must be {shape} finite numbers", field=name)
        if not (self.std > 0.0).all():
            raise UncertaintyError("std must be above 0", field="std", value=float(self.std.min()))
        if not (self.quantile >= 0.0).all():
            raise UncertaintyError("quantile must not be negative", field="quantile", value=float(self.quantile.min()))
        counts_fit = len(self.n_crystals) == n_targets > 0 and all(type(n) is int and n > 0 for n in self.n_crystals)
        if not counts_fit:
            message = "each target must have a number of crystals"
            raise UncertaintyError(message, field="n_crystals", value=self.n_crystals)

    def half_width(self, pooled: Float[np.ndarray, "n_crystals d_model"]) -> Float[np.ndarray, "n_crystals n_targets"]:
        """Half the width of the interval around each prediction, in the target's unit.

        Args:
            pooled: input of the model's readout (`CrystalFramer.pooled_features`).
        """
        weights = [torch.from_numpy(getattr(self, name)) for name in _WEIGHTS]
        with torch.no_grad():
            log_scale = _log_scale(weights, self._standardised(pooled))
        return self.quantile * torch.exp(log_scale.mean(dim=0)).double().numpy()

    def _standardised(self, pooled: Float[np.ndarray, "n_crystals d_model"]) -> Float[Tensor, "n_crystals d_model"]:
        return torch.from_numpy((np.asarray(pooled, dtype=np.float32) - self.mean) / self.std)

    def to_bytes(self, weights: str | None = None) -> bytes:
        """The content of a safetensors file.

        Args:
            weights: SHA-256 of the weights that these intervals belong to. With it, the file states both checksums
                (see `seals`).
        """
        from safetensors.numpy import save

        described = {"coverage": self.coverage, "targets": self.target_names, "n_crystals": self.n_crystals}
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        if weights is not None:
            described = seals.sealed(described, weights, _flat(arrays))
        return save(arrays, {"uncertainty": json.dumps(described)})

    @classmethod
    def from_bytes(cls, content: bytes, weights: str | None = None) -> Uncertainty:
        """Read the content of a file that `to_bytes` gave.

        Args:
            weights: SHA-256 of the weights that the intervals must belong to. Default: any.

        Raises:
            UncertaintyError: the content is not that of such a file, or damaged, or has values that cannot be.
            CheckpointError: a checksum in it is not that of its content, or of other weights.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            described = json.loads(header["__metadata__"]["uncertainty"])
            described = seals.opened(described, weights, _flat(arrays))
            return cls(
                coverage=float(described["coverage"]),
                target_names=tuple(described["targets"]),
                n_crystals=tuple(described["n_crystals"]),
                **{name: arrays[name] for name in _ARRAYS},
            )
        except UncertaintyError:
            raise
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UncertaintyError(f"not the uncertainty of a model, or damaged ({error!r})") from error


_ARRAYS = tuple(field.name for field in fields(Uncertainty))[3:]
_WEIGHTS = ("hidden_weight", "hidden_bias", "output_weight", "output_bias")


def calibrated(
    pooled: Float[np.ndarray, "n_crystals d_model"],
    errors: Float[np.ndarray, "n_crystals n_targets"],
    target_names: Sequence[str],
    coverage: float = 0.9,
    seed: int = 0,
) -> Uncertainty:
    """Calibrate intervals with the errors of a model on crystals that it was not trained on.

    Args:
        pooled: their features (`CrystalFramer.pooled_features`).
        errors: prediction - label in the target's unit; NaN where there is no label.
        coverage: fraction of further crystals of this kind whose true value the intervals should contain.
        seed: random seed of the folds and the initial weights.

    Raises:
        UncertaintyError: the coverage is not between 0 and 1, or there are too few labels for it.
    """
    if not 0.0 < coverage < 1.0:
        message = Setting("coverage", coverage), " must lie between 0 and 1, such as 0.9"
        raise UncertaintyError(*message, field="coverage", value=coverage)
    has_label = ~np.isnan(errors)
    n_labels = has_label.sum(axis=0)
    least = max(math.ceil(coverage / (1.0 - coverage) - 1e-9), 2 * N_FOLDS)
    for name, n in zip(target_names, n_labels.tolist(), strict=True):
        if n < least:
            raise UncertaintyError(
                f"target {name!r} has {n} labelled crystals to calibrate on; an interval of {coverage:.0%} needs at "
                f"least {least}, and several hundred to be useful",
                field=name,
                value=n,
            )
    generator = np.random.default_rng(seed)
    fold = generator.permutation(len(errors)) % N_FOLDS
    mean = pooled.mean(axis=0, dtype=np.float64)
    std = pooled.std(axis=0, dtype=np.float64) + 1e-6
    standardised = torch.from_numpy(((pooled - mean) / std).astype(np.float32))
    size = torch.from_numpy(np.nan_to_num(np.abs(errors))).float()
    is_known = torch.from_numpy(has_label & (errors != 0.0))  # the logarithm of an error of 0 is infinite
    in_fold = torch.from_numpy(fold[None] == np.arange(N_FOLDS)[:, None])
    weights = _fitted(standardised, size, is_known, in_fold, generator)
    with torch.no_grad():
        unseen_scale = torch.exp(_log_scale(weights, standardised))[fold, np.arange(len(fold))].double().numpy()
    scores = np.abs(errors) / unseen_scale
    quantile = [_conformal_quantile(scores[has_label[:, t], t], coverage) for t in range(len(target_names))]
    return Uncertainty(
        coverage,
        tuple(target_names),
        tuple(n_labels.tolist()),
        mean.astype(np.float32),
        std.astype(np.float32),
        *(weight.numpy() for weight in weights),
        quantile=np.array(quantile),
    )


def _flat(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Names, types, shapes and values of arrays, one after another."""
    parts = []
    for name, array in sorted(arrays.items()):
        parts += [f"{name} {array.dtype.str} {array.shape}\n".encode(), array.tobytes()]
    return b"".join(parts)


def _conformal_quantile(scores: Float[np.ndarray, " n"], coverage: float) -> float:
    """The ⌈(n + 1)·coverage⌉-th smallest score: a further one is not above it with at least this probability."""
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(np.sort(scores)[rank - 1])


def _log_scale(
    weights: Sequence[Tensor], standardised: Float[Tensor, "n_crystals d_model"]
) -> Float[Tensor, "n_folds n_crystals n_targets"]:
    hidden_weight, hidden_bias, output_weight, output_bias = weights
    return torch.nn.functional.silu(standardised @ hidden_weight + hidden_bias) @ output_weight + output_bias


def _fitted(
    standardised: Float[Tensor, "n_crystals d_model"],
    size: Float[Tensor, "n_crystals n_targets"],
    is_known: Bool[Tensor, "n_crystals n_targets"],
    in_fold: Bool[Tensor, "n_folds n_crystals"],
    generator: np.random.Generator,
) -> list[Tensor]:
    """Fit perceptrons that maximise the likelihood of the errors as normally distributed, each without its fold.

    They start from one scale for all crystals. The weights with the best likelihood of the errors in their folds are
    kept: those of the start, if the crystals are too few to learn from. That likelihood is Laplacian, because a few
    outliers would dominate a normal one.
    """
    (n_folds, _), d_model, n_targets = in_fold.shape, standardised.shape[1], size.shape[1]
    root_mean_square = torch.sqrt((size**2).sum(dim=0) / is_known.sum(dim=0))
    first = generator.normal(0.0, d_model**-0.5, (n_folds, d_model, N_HIDDEN)).astype(np.float32)
    weights = [
        torch.from_numpy(first),
        torch.zeros(n_folds, 1, N_HIDDEN),
        torch.zeros(n_folds, N_HIDDEN, n_targets),
        torch.log(root_mean_square).expand(n_folds, 1, n_targets).clone(),
    ]
    for weight in weights:
        weight.requires_grad_()
    matrices, biases = weights[::2], weights[1::2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": biases, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, N_STEPS)
    is_unseen = in_fold[:, :, None] & is_known
    is_seen = ~in_fold[:, :, None] & is_known
    best, kept = math.inf, list[Tensor]()
    for _ in range(N_STEPS):
        log_scale = _log_scale(weights, standardised)
        score = size * torch.exp(-log_scale)
        unseen = float((log_scale + score).detach()[is_unseen].mean())
        if unseen < best:
            best, kept = unseen, [weight.detach().clone() for weight in weights]
        optimiser.zero_grad()
        ((log_scale + 0.5 * score**2) * is_seen).sum().div(is_seen.sum() / n_folds).backward()
        optimiser.step()
        schedule.step()
    return kept
