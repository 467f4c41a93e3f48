"""Whether one of several models is better: their errors compared crystal by crystal, over several seeds.

Two things make the error of a model uncertain: the random seed of its training, and the choice of the test crystals.
All models are tested on the same crystals, so the errors are compared in pairs: this removes what makes a crystal
difficult for every model.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from crystalframer.errors import DataError


@dataclass(frozen=True)
class Difference:
    """Mean absolute error of the second model minus that of the first, in the unit of the errors."""

    mean: float
    low: float
    high: float
    """Ends of the interval. Without several seeds they are infinite: then nothing is known about other trainings."""
    share_won: float
    """Share of the crystals for which the first model has the smaller error (mean over its seeds)."""

    @property
    def is_significant(self) -> bool:
        """Whether the interval does not contain 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Ranking:
    """Models in the order of their errors, and whether the order is more than chance."""

    order: tuple[str, ...]
    """Names, smallest mean absolute error first."""
    mae: dict[str, float]
    differences: dict[tuple[str, str], Difference]
    """One for each pair of names, the name with the smaller error first."""

    @property
    def winner(self) -> str | None:
        """The model that is significantly better than each of the others, or None."""
        best = self.order[0]
        return best if len(self.order) > 1 and not self.rivals else None

    @property
    def rivals(self) -> tuple[str, ...]:
        """The models that are not significantly worse than the one with the smallest error."""
        best = self.order[0]
        return tuple(name for name in self.order[1:] if not self.differences[best, name].is_significant)


def paired_difference(
    first: Float[np.ndarray, "n_seeds n_crystals"],
    second: Float[np.ndarray, "m_seeds m_crystals"],
    confidence: float = 0.95,
) -> Difference:
    """Compare the errors of two models on the same crystals.

    The variance of the difference is the sum of three parts: the variance over the seeds of each model, and that over
    the crystals of the difference between the two, each divided by its number. The interval is that of Student's t with
    the degrees of freedom of Welch and Satterthwaite, so that few seeds give wide intervals.

    Args:
        first: absolute errors; a row for each seed.
        second: absolute errors of the other model, on the same crystals in the same order.
        confidence: probability that the interval contains the true difference.

    Raises:
        DataError: the crystals differ in number, or there are fewer than two.

    Example:
        >>> errors = np.random.default_rng(0).exponential(size=(2, 3, 50))
        >>> paired_difference(errors[0], errors[1] + 1.0).is_significant
        True
    """
    from scipy import stats

    n_crystals = first.shape[1]
    if n_crystals != second.shape[1] or n_crystals < 2:
        raise DataError(
            f"a comparison needs the errors of both models on the same crystals, at least two; there are {n_crystals} "
            f"and {second.shape[1]}",
            field="second",
        )
    by_crystal = second.mean(axis=0) - first.mean(axis=0)
    mean, share_won = float(by_crystal.mean()), float((by_crystal > 0).mean())
    if min(len(first), len(second)) < 2:
        return Difference(mean, -np.inf, np.inf, share_won)
    samples = (first.mean(axis=1), second.mean(axis=1), by_crystal)
    parts = np.array([sample.var(ddof=1) / len(sample) for sample in samples])
    freedom = np.array([len(sample) - 1 for sample in samples])
    total = parts.sum()
    if total == 0:
        return Difference(mean, mean, mean, share_won)
    freedom_of_total = total**2 / (parts**2 / freedom).sum()
    half = float(stats.t.ppf((1 + confidence) / 2, freedom_of_total) * np.sqrt(total))
    return Difference(mean, mean - half, mean + half, share_won)


def ranking(errors: Mapping[str, Float[np.ndarray, "_ _"]], confidence: float = 0.95) -> Ranking:
    """Rank models by their errors on the same crystals, and tell which differences are more than chance.

    The best model is chosen from the same errors, so all pairs count as compared: each interval has the confidence
    1 - (1 - confidence)/pairs (Bonferroni). Among equal models a winner is then found in at most 5 % of all cases.

    Args:
        errors: for each name the absolute errors, a row for each seed.
        confidence: probability that all intervals together contain the true differences.

    Raises:
        DataError: the crystals differ in number, or there are fewer than two.

    Example:
        >>> errors = np.random.default_rng(0).exponential(size=(3, 3, 50))
        >>> found = ranking({"a": errors[0], "b": errors[1], "c": errors[2] + 1.0})
        >>> found.winner, found.order[-1]
        (None, 'c')
    """
    mae = {name: float(of_model.mean()) for name, of_model in errors.items()}
    order = tuple(sorted(mae, key=mae.__getitem__))
    pairs = list(itertools.combinations(order, 2))
    each = 1 - (1 - confidence) / max(len(pairs), 1)
    return Ranking(order, mae, {(a, b): paired_difference(errors[a], errors[b], each) for a, b in pairs})
