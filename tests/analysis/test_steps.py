"""Halving tells steps, kinks and smooth functions apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from crystalframer.analysis.steps import Followed, followed

LENGTH, PLACE = 0.2, 0.1316
POINTS = np.linspace(0.0, LENGTH, 21)


def smooth(x: np.ndarray) -> np.ndarray:
    return 5.0 * x**2 - np.sin(3.0 * x)


def follow(function: Callable[[np.ndarray], np.ndarray], order: int) -> tuple[Followed, int]:
    """What is found, and at how many points the function was asked."""
    asked = []

    def values(path: np.ndarray, distance: np.ndarray) -> np.ndarray:
        asked.extend(distance)
        return np.stack([function(distance), 0.0 * distance], axis=1)

    return followed(values, values(POINTS, POINTS)[None], LENGTH, order, n_halvings=13), len(asked)


@pytest.mark.parametrize(
    ("function", "step", "kink"),
    [
        (smooth, 0.0, 0.0),
        (lambda x: smooth(x) + 0.1 * np.abs(x - PLACE), 0.0, 0.2),
        (lambda x: smooth(x) + 1e-4 * (x > PLACE), 1e-4, 0.0),
        (lambda x: smooth(x) + 1e-4 * (x > PLACE) + 0.1 * np.abs(x - 0.05), 1e-4, 0.2),
        (np.zeros_like, 0.0, 0.0),
        (lambda x: 1e-4 * np.tanh(1e4 * (x - PLACE)), 0.0, 0.0),  # steep, and 10⁻⁴ Å wide
    ],
)
def test_steps_and_kinks(function: Callable[[np.ndarray], np.ndarray], step: float, kink: float) -> None:
    found, n_asked = follow(function, order=2)
    assert found.largest(found.steps)[0] == pytest.approx([step, 0.0], rel=0.01)
    size = found.largest(found.kinks)[0, 0]  # less where the kink lies between two points
    assert 0.5 * kink <= size <= 1.001 * kink
    if step:
        assert found.place[found.steps[:, 0].argmax()] == pytest.approx(PLACE, abs=3e-6)
    assert found.spacing[-1] == pytest.approx(0.01 / 2**13)
    assert n_asked == len(POINTS) + 13 * 2 * 2


def test_the_largest_change_is_followed() -> None:
    found, _ = follow(lambda x: x + 20.0 * np.tanh((x - 0.15) / 20.0), order=1)
    np.testing.assert_allclose(found.sizes[1:, :, 0] / found.sizes[:-1, :, 0], 0.5, rtol=1e-3)
    assert not found.steps.any()


@pytest.mark.parametrize("order", [1, 2])
def test_every_path_and_every_value_is_followed(order: int) -> None:
    """Each path has a step at a place and of a size of its own, in its last value alone."""
    places, sizes = np.array([0.1316, 0.0437, 0.1783]), np.array([1e-4, 2e-4, 3e-4])

    def values(path: np.ndarray, distance: np.ndarray) -> np.ndarray:
        return np.stack([1e-3 * np.sin(distance), sizes[path] * (distance > places[path])], axis=1)

    paths = np.repeat(np.arange(3), len(POINTS))
    grid = values(paths, np.tile(POINTS, 3)).reshape(3, len(POINTS), 2)
    found = followed(values, grid, LENGTH, order, n_halvings=13)
    np.testing.assert_allclose(found.largest(found.steps), np.stack([0 * sizes, sizes], axis=1), rtol=1e-6)
    steps = found.steps[:, 1] > 0
    np.testing.assert_array_equal(found.path[steps], [0, 1, 2])
    np.testing.assert_allclose(found.place[steps], places, atol=3e-6)
