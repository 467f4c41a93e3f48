"""Intervals hold what they promise, also where errors are larger, and say when they cannot."""

from __future__ import annotations

import copy
import json
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


def lengths(uncertainty: Uncertainty, pooled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far the intervals reach below and above the predictions."""
    predicted = np.zeros((len(pooled), len(uncertainty.target_names)))
    low, high = uncertainty.ends(predicted, pooled)
    return -low, high


def widths(uncertainty: Uncertainty, pooled: np.ndarray) -> np.ndarray:
    return np.add(*lengths(uncertainty, pooled))


def cover(uncertainty: Uncertainty, pooled: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Whether label - prediction lies in the interval."""
    below, above = lengths(uncertainty, pooled)
    return (-errors >= -below) & (-errors <= above)


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
    width = widths(uncertainty, pooled)
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
    width = widths(calibrated(pooled, errors, ("energy",)), rng.normal(size=(500, D_MODEL)))
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
    assert np.array_equal(widths(again, pooled), widths(uncertainty, pooled))


def test_bytes_there_and_back(uncertainty: Uncertainty) -> None:
    content = uncertainty.to_bytes()
    again = Uncertainty.from_bytes(content)
    assert (again.coverage, again.target_names, again.n_crystals) == (0.9, ("energy", "gap"), (1500, 1500))
    pooled = sample(50, seed=4)[0]
    assert np.array_equal(widths(again, pooled), widths(uncertainty, pooled))


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_damaged_bytes(uncertainty: Uncertainty, cut: int) -> None:
    with refused(UncertaintyError, "damaged"):
        Uncertainty.from_bytes(uncertainty.to_bytes()[:cut])


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["std", "quantile", "lowest"])
def test_values_that_cannot_be(name: str, value: float, uncertainty: Uncertainty) -> None:
    """Also in a file without a checksum."""
    if name == "lowest" and value < 0:
        return  # any number, and none
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


def test_crystals_count_as_much_as_they_are_given() -> None:
    """The quantile of scores of which the last counts as much as all others."""
    scores, counts = np.arange(1.0, 102.0), np.append(np.ones(100), 100.0)
    assert _conformal_quantile(scores, 0.3, counts) > _conformal_quantile(scores[:-1], 0.3) + 20
    assert _conformal_quantile(scores, 0.9, np.full(101, 7.0)) == _conformal_quantile(scores, 0.9)


def test_intervals_reach_farther_to_the_side_of_the_errors() -> None:
    """Predictions that are too low: the true value lies above."""
    pooled, errors, _ = sample(1500, seed=0)
    skewed = calibrated(pooled, np.abs(errors) * [[-1.0, -1.0]], ("energy", "gap"))
    below, above = lengths(skewed, sample(500, seed=1)[0])
    assert (np.median(above, axis=0) > 3.0 * np.median(below, axis=0)).all()
    inside = cover(skewed, *(part if n == 0 else -np.abs(part) for n, part in enumerate(sample(4000, seed=2)[:2])))
    assert inside.mean(axis=0) == pytest.approx([0.9, 0.9], abs=0.03)


def test_crystals_of_another_kind_widen_all_intervals_if_nothing_tells_them() -> None:
    """Errors of one crystal in fifteen are three times as large; they count as much as all others together."""
    pooled, errors, _ = sample(1500, seed=0)
    errors[:, 0] = errors[:, 1] / 5.0
    rare = np.arange(1500) < 100
    errors[rare, 0] *= 3.0
    alike = calibrated(pooled, errors, ("energy", "gap"))
    chosen = calibrated(pooled, errors, ("energy", "gap"), weights=np.where(rare, 14.0, 1.0))
    new, old = (widths(which, pooled)[:, 0].mean() for which in (chosen, alike))
    assert new > 1.5 * old
    assert cover(alike, pooled, errors)[rare, 0].mean() < 0.6
    assert cover(chosen, pooled, errors)[rare, 0].mean() > 0.75


def test_no_interval_reaches_below_the_lowest_value(uncertainty: Uncertainty) -> None:
    bounded = replace(uncertainty, lowest=np.array([-np.inf, 0.0]))
    pooled = sample(50, seed=4)[0]
    predicted = np.tile([[-1.0, -40.0]], (50, 1))
    low, high = bounded.ends(predicted, pooled)
    free_low, free_high = uncertainty.ends(predicted, pooled)
    assert np.array_equal(low[:, 0], free_low[:, 0])
    assert (free_high[:, 1] < 0.0).all()
    assert not low[:, 1].any()
    assert not high[:, 1].any()
    assert bounded.bounded(predicted).tolist() == [[-1.0, 0.0]] * 50
    again = Uncertainty.from_bytes(bounded.to_bytes())
    assert again.lowest.tolist() == [-math.inf, 0.0]


def test_intervals_of_release_0_1_are_read(uncertainty: Uncertainty) -> None:
    """Theirs were symmetric, with one output for each target and no bound."""
    from safetensors.numpy import load, save

    content = uncertainty.to_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    arrays = load(content)
    del arrays["lowest"]
    for name in ("output_weight", "output_bias"):
        arrays[name] = arrays[name][..., :2].copy()
    old = Uncertainty.from_bytes(save(arrays, header["__metadata__"]))
    pooled = sample(50, seed=4)[0]
    below, above = lengths(old, pooled)
    assert np.array_equal(below, above)
    np.testing.assert_allclose(below, lengths(uncertainty, pooled)[0], rtol=1e-6)


def test_too_few_labels() -> None:
    pooled, errors, _ = sample(100, seed=0)
    errors[12:, 1] = np.nan
    for coverage, least in ((0.9, 20), (0.95, 20), (0.98, 49)):
        with refused(UncertaintyError, "12 labelled crystals", f"{coverage:.0%}", f"at least {least}", field="gap"):
            calibrated(pooled, errors, ("energy", "gap"), coverage=coverage)


@pytest.mark.parametrize("coverage", [0.0, 1.0, 90.0])
def test_a_coverage_that_is_none(coverage: float) -> None:
    with refused(UncertaintyError, field="coverage"):
        calibrated(*sample(100, seed=0)[:2], target_names=("energy", "gap"), coverage=coverage)


def test_few_labels_give_one_width() -> None:
    """What 60 labels say of widths is chance; of 1,500 it is not."""
    pooled, errors, _ = sample(60, seed=3)
    few = widths(calibrated(pooled, errors, ("energy", "gap")), sample(200, seed=4)[0])
    np.testing.assert_allclose(few, np.tile(few[:1], (len(few), 1)), rtol=1e-5)
