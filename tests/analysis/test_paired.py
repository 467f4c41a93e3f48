"""A winner is named if it is better, and not if it was lucky."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from crystalframer.analysis import paired_difference, ranking
from crystalframer.errors import DataError

N_TRIALS = 200


def errors_of_equals(rng: np.random.Generator, n_models: int, n_seeds: int, n_crystals: int) -> np.ndarray:
    """Absolute errors (model, seed, crystal) of models that differ by chance: crystals are difficult, seeds lucky."""
    difficulty = rng.lognormal(size=n_crystals)
    luck = rng.lognormal(sigma=0.1, size=(n_models, n_seeds, 1))
    return difficulty * luck * rng.lognormal(sigma=0.5, size=(n_models, n_seeds, n_crystals))


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_equal_models_have_a_winner_in_one_of_twenty_cases_at_most(n_seeds: int) -> None:
    rng = np.random.default_rng(0)
    winners = 0
    for _ in range(N_TRIALS):
        found = ranking(dict(zip("abcdef", errors_of_equals(rng, 6, n_seeds, 50), strict=True)))
        winners += found.winner is not None
    assert winners <= 0.05 * N_TRIALS


def test_the_deviation_of_two_seeds_is_no_such_rule() -> None:
    """What the notebook once did: the gap to the next model against the largest standard deviation over two seeds."""
    rng = np.random.default_rng(0)
    winners = 0
    for _ in range(N_TRIALS):
        by_seed = errors_of_equals(rng, 6, 2, 50).mean(axis=2)
        first, second = np.sort(by_seed.mean(axis=1))[:2]
        winners += second - first > np.median(by_seed.std(axis=1, ddof=1))
    assert winners > 0.1 * N_TRIALS


def test_a_better_model_wins_and_equal_ones_share_the_rest() -> None:
    rng = np.random.default_rng(1)
    errors = dict(zip("abc", errors_of_equals(rng, 3, 3, 50), strict=True))
    errors["b"] = errors["b"] / 4
    found = ranking(errors)
    assert found.winner == "b" and found.rivals == ()
    assert found.order[0] == "b" and not found.differences[found.order[1], found.order[2]].is_significant
    without = ranking({name: errors[name] for name in "ac"})
    assert without.winner is None and without.rivals == (without.order[1],)


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(N_TRIALS):
        first, second = errors_of_equals(rng, 2, 3, 50)
        found = paired_difference(first, second + 0.5)
        held += found.low <= 0.5 <= found.high
        assert found.mean == pytest.approx((second + 0.5).mean() - first.mean())
    assert held >= 0.93 * N_TRIALS


def test_one_seed_says_nothing_about_other_trainings() -> None:
    found = paired_difference(np.ones((1, 10)), np.full((3, 10), 9.0))
    assert not found.is_significant and found.share_won == 1.0
    assert ranking({"a": np.ones((1, 10)), "b": np.full((1, 10), 9.0)}).winner is None


def test_errors_on_other_crystals_are_refused() -> None:
    with refused(DataError, field="second"):
        paired_difference(np.ones((2, 10)), np.ones((2, 9)))
    with refused(DataError, field="second"):
        ranking({"a": np.ones((2, 1)), "b": np.ones((2, 1))})
    assert ranking({"alone": np.ones((2, 10))}).winner is None
