"""Intervals hold what they promise, also where errors are larger, and say when they cannot."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from refusals import refused

from crystalframer.errors import UncertaintyError
from crystalframer.uncertainty import Uncertainty, _conformal_quantile, calibrated

D_MODEL = 32


def sample(n_crystals: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, errors of two targets, and the scale of the first one's, which half of the features set."""
    rng = np.random.default_rng(seed)
    pooled = rng.normal(size=(n_crystals, D_MODEL)).astype(np.float32)
    scale = np.exp(pooled[:, : D_MODEL // 2].sum(axis=1) / 3.0)
    errors = np.stack([scale * rng.standard_t(4, n_crystals), 5.0 * rng.normal(size=n_crystals)], axis=1)
    return pooled, errors, scale


def cover(uncertainty: Uncertainty, pooled: np.ndarray, errors: np.ndarray) -> np.ndarray:
    return np.abs(errors) <= uncertainty.half_width(pooled)


@pytest.fixture(scope="module")
def uncertainty() -> Uncertainty:
    return calibrated(*sample(1500, seed=0)[:2], target_names=("energy", "gap"))


def test_coverage_on_further_crystals(uncertainty: Uncertainty) -> None:
    pooled, errors, scale = sample(4000, seed=1)
    inside = cover(uncertainty, pooled, errors)
    assert inside.mean(axis=0) == pytest.approx([0.9, 0.9], abs=0.03)
    # More evenly over easy and hard crystals than one width for all.
    one_width = np.abs(errors[:, 0]) <= np.quantile(np.abs(errors[:, 0]), 0.9)
    easy, hard = scale < np.quantile(scale, 0.2), scale > np.quantile(scale, 0.8)
    assert inside[easy, 0].mean() - inside[hard, 0].mean() < 0.4 * (one_width[easy].mean() - one_width[hard].mean())


def test_easy_crystals_have_narrow_intervals(uncertainty: Uncertainty) -> None:
    pooled, _, scale = sample(2000, seed=2)
    width = uncertainty.half_width(pooled)
    assert np.corrcoef(np.log(width[:, 0]), np.log(scale))[0, 1] > 0.9
    assert width[:, 1].std() < 0.15 * width[:, 1].mean()  # nothing in the features tells


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_other_coverages(coverage: float) -> None:
    chosen = calibrated(*sample(1500, seed=0)[:2], target_names=("energy", "gap"), coverage=coverage)
    inside = cover(chosen, *sample(4000, seed=1)[:2])
    assert inside.mean(axis=0) == pytest.approx([coverage, coverage], abs=0.04)


def test_few_crystals_get_nearly_one_width() -> None:
    """Errors that nothing explains: what is learned of forty crystals must not be noise."""
    rng = np.random.default_rng(3)
    pooled, errors = rng.normal(size=(40, D_MODEL)), rng.normal(size=(40, 1))
    width = calibrated(pooled, errors, ("energy",)).half_width(rng.normal(size=(500, D_MODEL)))
    assert width.std() < 0.2 * width.mean()


def test_missing_labels_are_left_out() -> None:
    pooled, errors, _ = sample(600, seed=0)
    errors[::2, 1] = np.nan
    partly = calibrated(pooled, errors, ("energy", "gap"))
    assert partly.n_crystals == (600, 300)
    inside = cover(partly, *sample(4000, seed=1)[:2])
    assert inside.mean(axis=0) == pytest.approx([0.9, 0.9], abs=0.04)


def test_the_same_crystals_give_the_same_intervals(uncertainty: Uncertainty) -> None:
    again = calibrated(*sample(1500, seed=0)[:2], target_names=("energy", "gap"))
    pooled = sample(50, seed=4)[0]
    assert np.array_equal(again.half_width(pooled), uncertainty.half_width(pooled))


def test_bytes_there_and_back(uncertainty: Uncertainty) -> None:
    content = uncertainty.to_bytes()
    again = Uncertainty.from_bytes(content)
    assert (again.coverage, again.target_names, again.n_crystals) == (0.9, ("energy", "gap"), (1500, 1500))
    pooled = sample(50, seed=4)[0]
    assert np.array_equal(again.half_width(pooled), uncertainty.half_width(pooled))


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_damaged_bytes(uncertainty: Uncertainty, cut: int) -> None:
    with refused(UncertaintyError, "damaged"):
        Uncertainty.from_bytes(uncertainty.to_bytes()[:cut])


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["std", "quantile"])
def test_values_that_cannot_be(name: str, value: float, uncertainty: Uncertainty) -> None:
    """Also in a file without a checksum."""
    changed = getattr(uncertainty, name).copy()
    changed[-1] = value
    with refused(UncertaintyError, field=name):
        replace(uncertainty, **{name: changed})
    wrong = copy.copy(uncertainty)
    object.__setattr__(wrong, name, changed)
    with refused(UncertaintyError, field=name):
        Uncertainty.from_bytes(wrong.to_bytes())


@pytest.mark.usefixtures("as_in_production")
@pytest.mark.parametrize(
    ("field", "value"),
    [("coverage", math.nan), ("coverage", 1.0), ("n_crystals", (0, 5)), ("n_crystals", (5,)), ("target_names", ("a",)),
     ("mean", np.zeros(3, dtype=np.float32)), ("hidden_bias", np.full((5, 1, 16), np.nan, dtype=np.float32))],
)  # fmt: skip
def test_parts_that_do_not_belong_together(field: str, value: Any, uncertainty: Uncertainty) -> None:
    with refused(UncertaintyError):
        replace(uncertainty, **{field: value})


@pytest.mark.parametrize(
    ("n_scores", "coverage", "rank"),
    [(9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (20, 0.9, 19), (99, 0.9, 90), (100, 0.9, 91), (19, 0.95, 19),
     (3, 0.5, 2)],
)  # fmt: skip
def test_the_rank_of_the_quantile(n_scores: int, coverage: float, rank: int) -> None:
    """⌈(n + 1)·coverage⌉, which holds for any n: with ⌈n·coverage⌉ a further crystal is covered too rarely."""
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n_scores + 1))
    assert _conformal_quantile(scores, coverage) == rank


def test_too_few_labels() -> None:
    pooled, errors, _ = sample(100, seed=0)
    errors[12:, 1] = np.nan
    with refused(UncertaintyError, "12 labelled crystals", "95%", "at least 19", field="gap"):
        calibrated(pooled, errors, ("energy", "gap"), coverage=0.95)


@pytest.mark.parametrize("coverage", [0.0, 1.0, 90.0])
def test_a_coverage_that_is_none(coverage: float) -> None:
    with refused(UncertaintyError, field="coverage"):
        calibrated(*sample(100, seed=0)[:2], target_names=("energy", "gap"), coverage=coverage)
