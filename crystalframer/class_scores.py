"""Scores of predicted probabilities of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from crystalframer.config import Target

N_BINS = 10
"""Bins of equal width, by which predicted and true shares are compared."""
SMALLEST = 1e-15
"""A probability below this counts as this in the log loss."""


@dataclass(frozen=True)
class Bin:
    """Predictions whose likeliest class has about this probability."""

    n_crystals: int
    probability: float
    """Mean of the probabilities of the likeliest classes."""
    accuracy: float
    """Share of them that are right."""


@dataclass(frozen=True)
class ClassScore:
    """How well the classes of one target are predicted."""

    target: Target
    n_crystals: int
    """Crystals with both a label and a prediction."""
    accuracy: float
    """Share of the crystals whose likeliest class is the true one."""
    balanced_accuracy: float
    """Mean over the classes of the share of their crystals that are right."""
    roc_auc: float
    """Area under the receiver operating characteristic: the probability that a crystal of the class has a higher
    probability of it than one that is not. Of more than two classes, the mean over them. NaN for crystals of one class.
    """
    log_loss: float
    """Mean of -log of the probability of the true class (cross-entropy)."""
    calibration_error: float
    """Expected calibration error: mean distance of probability and accuracy, over `bins` by their number of crystals.
    """
    baseline_accuracy: float
    """Accuracy of the class that is most frequent in the training of the model."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Number of crystals by true class (rows) and likeliest class (columns), in the order of the target's classes."""
    bins: tuple[Bin, ...] = ()
    """Probability and accuracy; only bins with crystals."""

    @property
    def confusion_table(self) -> str:
        """The confusion matrix as a table to read."""
        names = self.target.classes
        width, first = max(map(len, (*names, "predicted"))), max(map(len, (*names, "true")))
        lines = [f"{'true':<{first}}  " + "  ".join(f"{name:>{width}}" for name in names)]
        for name, row in zip(names, self.confusion, strict=True):
            lines.append(f"{name:<{first}}  " + "  ".join(f"{n:>{width},}" for n in row))
        return "\n".join(lines)


def probabilities(outputs: Float[np.ndarray, "n n_outputs"]) -> Float[np.ndarray, "n n_classes"]:
    """Of all classes, from the outputs of a target: of two classes the probability of the second, else of each.

    >>> probabilities(np.array([[0.25]])).tolist()
    [[0.75, 0.25]]
    """
    return outputs if outputs.shape[1] > 1 else np.concatenate([1.0 - outputs, outputs], axis=1)


def likeliest(probabilities: Float[np.ndarray, "n n_classes"], target: Target) -> list[str | None]:
    """The class of the highest probability of each row; None where there is no prediction.

    >>> target = Target("is_metal", kind="class", classes=("non-metal", "metal"))
    >>> likeliest(np.array([[0.25, 0.75], [np.nan, np.nan]]), target)
    ['metal', None]
    """
    best = np.where(np.isnan(probabilities).any(axis=1), -1, probabilities.argmax(axis=1))
    return [target.classes[number] if number >= 0 else None for number in best.tolist()]


def score_classes(
    target: Target,
    labels: Int[np.ndarray, " n"],
    predicted: Float[np.ndarray, "n n_classes"],
    most_frequent: int,
) -> ClassScore:
    """Scores of probabilities, one row for each label.

    >>> target = Target("is_metal", kind="class", classes=("non-metal", "metal"))
    >>> score = score_classes(target, np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]]), 1)
    >>> score.confusion, score.roc_auc, round(score.accuracy, 2)
    (((1, 0), (1, 1)), 1.0, 0.67)

    Args:
        labels: number of the true class.
        most_frequent: number of the class that is most frequent in training.
    """
    n, n_classes = predicted.shape
    if not n:
        nothing = float("nan")
        return ClassScore(target, 0, nothing, nothing, nothing, nothing, nothing, nothing)
    best = predicted.argmax(axis=1)
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (labels, best), 1)
    present = np.flatnonzero(confusion.sum(axis=1))
    shares = confusion[present, present] / confusion[present].sum(axis=1)
    true = predicted[np.arange(n), labels].clip(SMALLEST, 1.0)
    bins = _bins(predicted.max(axis=1), best == labels)
    return ClassScore(
        target,
        n,
        accuracy=float((best == labels).mean()),
        balanced_accuracy=float(shares.mean()),
        roc_auc=_roc_auc(labels, predicted),
        log_loss=math.fsum((-np.log(true)).tolist()) / n,
        calibration_error=math.fsum(b.n_crystals * abs(b.probability - b.accuracy) for b in bins) / n,
        baseline_accuracy=float((labels == most_frequent).mean()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        bins=bins,
    )


def _bins(probability: Float[np.ndarray, " n"], is_right: np.ndarray) -> tuple[Bin, ...]:
    number = np.minimum((probability * N_BINS).astype(np.int64), N_BINS - 1)
    members = [number == each for each in range(N_BINS)]
    return tuple(
        Bin(int(chosen.sum()), float(probability[chosen].mean()), float(is_right[chosen].mean()))
        for chosen in members
        if chosen.any()
    )


def _roc_auc(labels: Int[np.ndarray, " n"], predicted: Float[np.ndarray, "n n_classes"]) -> float:
    """Of two classes, that of the second; of more, the mean over those that some crystals are and others are not."""
    classes = [1] if predicted.shape[1] == 2 else range(predicted.shape[1])
    areas = [_area(labels == number, predicted[:, number]) for number in classes]
    known = [area for area in areas if not math.isnan(area)]
    return math.fsum(known) / len(known) if known else float("nan")


def _area(is_class: np.ndarray, probability: Float[np.ndarray, " n"]) -> float:
    """By the ranks of the probabilities (Mann and Whitney); equal ones share their mean rank."""
    n_class, n_others = int(is_class.sum()), int((~is_class).sum())
    if not n_class or not n_others:
        return float("nan")
    _, number, count = np.unique(probability, return_inverse=True, return_counts=True)
    rank = count.cumsum() - (count - 1) / 2.0
    return float((rank[number][is_class].sum() - n_class * (n_class + 1) / 2.0) / (n_class * n_others))


def summary_lines(scores: Sequence[ClassScore], titles: Sequence[str]) -> list[str]:
    """A table of scores, each behind its title."""
    width = max(map(len, (*titles, "classes of")))
    lines = [
        f"{'classes of':<{width}}  {'labels':>7}  accuracy  balanced  ROC-AUC  log loss  calibration error  baseline"
    ]
    for title, score in zip(titles, scores, strict=True):
        lines.append(
            f"{title:<{width}}  {score.n_crystals:>7,}  {score.accuracy:>8.1%}  {score.balanced_accuracy:>8.1%}  "
            f"{score.roc_auc:>7.3f}  {score.log_loss:>8.3f}  {score.calibration_error:>17.3f}  "
            f"{score.baseline_accuracy:.1%} (most frequent class)"
        )
    return lines
