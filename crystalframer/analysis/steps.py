"""Steps of a function along paths: found by halving, not by luck.

The difference of order n of a function, over n + 1 points at equal distances, tells what a smooth function hides at one
distance when the distance is halved. At a step it stays. At a kink (a step of the derivative) that of order 2 halves,
and where the function is smooth it falls to a quarter. So the largest differences of a path are followed: their points
are put twice as close, and the largest difference among them is followed again. Those of order 2 start where the
differences of order 4 are largest, which curvature does not hide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

Values: TypeAlias = Callable[[Int[np.ndarray, " n"], Float[np.ndarray, " n"]], Float[np.ndarray, "n n_values"]]
"""Values of the function at points, given by the numbers of their paths and their distances from the start, Å."""
WINDOWS = 2
"""Differences that are followed along each path: the largest of each half."""
ROUGH = 4
"""Order of the differences that tell where steps and kinks are likely: nearly 0 where a function is smooth."""
LAST = 3
"""Halvings at the end whose fall tells a step from a slope."""
NOISE = 1e-9
"""Differences of a function of size 1 that may be rounding in 64 bits, which the layers of a model magnify."""
SMALLEST_STEP = 10 * NOISE
"""A smaller step cannot be told from rounding, which does not fall either when the distance is halved."""


@dataclass(frozen=True, eq=False)
class Followed:
    """Differences of one order that were followed along paths."""

    order: int
    path: Int[np.ndarray, " n_windows"]
    """Number of the path."""
    place: Float[np.ndarray, " n_windows"]
    """Where it ended: distance from the start of the path, Å."""
    spacing: Float[np.ndarray, " n_levels"]
    """Distance of the points before and after each halving, Å."""
    sizes: Float[np.ndarray, "n_levels n_windows n_values"]

    @property
    def fall(self) -> Float[np.ndarray, "n_windows n_values"]:
        """How often a halving of the distance halved the difference, on average over the last: 0 at a step, `order`
        where the function is smooth, and 1 at a kink."""
        last = self.sizes[-1 - LAST :]
        return np.log2(np.maximum(last[0], NOISE) / np.maximum(last[-1], NOISE)) / (len(last) - 1)

    @property
    def steps(self) -> Float[np.ndarray, "n_windows n_values"]:
        """Size of the step that was found in each window; 0 for none."""
        return np.where((self.fall < 0.5) & (self.sizes[-1] > SMALLEST_STEP), self.sizes[-1], 0.0)

    @property
    def kinks(self) -> Float[np.ndarray, "n_windows n_values"]:
        """Step of the derivative that was found in each window (order 2), per Å; 0 for none, and at a step."""
        there = (self.fall >= 0.5) & (self.fall < 1.5) & (self.sizes[-1] > NOISE)
        return np.where(there, self.sizes[-1] / self.spacing[-1], 0.0)

    def largest(self, values: Float[np.ndarray, "n_windows n_values"]) -> Float[np.ndarray, "n_paths n_values"]:
        """The largest value over the windows of each path."""
        return values.reshape(-1, WINDOWS, values.shape[-1]).max(axis=1)


def followed(
    values: Values, grid: Float[np.ndarray, "n_paths n_points n_values"], length: float, order: int, n_halvings: int
) -> Followed:
    """Follow the largest difference of this order in each half of each path.

    >>> import numpy as np
    >>> from crystalframer.analysis.steps import followed
    >>> def values(paths, distances):  # a small step on a large slope
    ...     return (5.0 * distances**2 + 1e-4 * (distances > 0.0316))[:, None]
    >>> points = np.linspace(0.0, 0.2, 21)
    >>> found = followed(values, values(None, points)[None], length=0.2, order=2, n_halvings=10)
    >>> [float(size) for size in found.steps[:, 0].round(6)], float(found.place[0].round(4))
    ([0.0001, 0.0], 0.0316)

    Args:
        grid: values at equal distances, from the start of each path to its end.
        length: of the paths, Å.
    """
    spacing = length / (grid.shape[1] - 1)
    path, start, window = _largest(grid, spacing, order)
    spacings, sizes = [spacing], [_sizes(window, order)[:, 0]]
    for _ in range(n_halvings):
        spacing /= 2
        between = start[:, None] + spacing * (2 * np.arange(order) + 1)
        new = values(np.repeat(path, order), between.ravel()).reshape(len(path), order, -1)
        points = np.insert(window, np.arange(1, order + 1), new, axis=1)
        best = _sizes(points, order).max(axis=2).argmax(axis=1)
        window = np.take_along_axis(points, (best[:, None] + np.arange(order + 1))[..., None], axis=1)
        start = start + best * spacing
        spacings.append(spacing)
        sizes.append(_sizes(window, order)[:, 0])
    return Followed(order, path, start + spacing * order / 2, np.array(spacings), np.stack(sizes))


def _largest(
    grid: Float[np.ndarray, "n_paths n_points n_values"], spacing: float, order: int
) -> tuple[Int[np.ndarray, " n_windows"], Float[np.ndarray, " n_windows"], Float[np.ndarray, "n_windows n n_values"]]:
    """The points with the largest difference in each part of each path: number of the path, start, values."""
    by = ROUGH if order > 1 else order
    sizes = _sizes(grid, by).max(axis=2)
    parts = np.array_split(np.arange(sizes.shape[1]), WINDOWS)
    start = np.stack([part[sizes[:, part].argmax(axis=1)] for part in parts], axis=1).ravel()
    path = np.repeat(np.arange(len(grid)), WINDOWS)
    rough = grid[path[:, None], start[:, None] + np.arange(by + 1)]
    start = start + _sizes(rough, order).max(axis=2).argmax(axis=1)
    return path, start * spacing, grid[path[:, None], start[:, None] + np.arange(order + 1)]


def _sizes(points: Float[np.ndarray, "n n_points n_values"], order: int) -> Float[np.ndarray, "n n_places n_values"]:
    return np.abs(np.diff(points, n=order, axis=1))
