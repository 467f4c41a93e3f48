"""Differences between two models on the same crystals, with intervals over the crystals.

Two errors averaged over crystals differ by less than either varies: most crystals are easy or hard for both. So the
difference is taken crystal by crystal, and crystals are drawn again and again (bootstrap) for its interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas

from benchmarks.accuracy.jobs import Finished
from benchmarks.accuracy.problems import SHARED, Problem
from benchmarks.accuracy.recipes import RECIPES
from benchmarks.accuracy.runner import Planned
from benchmarks.report import Bar, Row

PUBLISHED = "matbench_peers.parquet"
"""What published models predicted for every crystal of the folds of Matbench."""
N_RESAMPLES = 10_000
INTERVAL = (2.5, 97.5)
"""Percentiles of the resampled means."""

Errors = Mapping[str, float]
"""Id of a crystal → |prediction - label|, averaged over seeds."""


def rows(found: Mapping[tuple[str, str], Sequence[tuple[Planned, Finished]]]) -> list[Row]:
    """A row for each pair of models that were scored on the same crystals, ours first."""
    pairs = []
    for group in dict.fromkeys(group for group, _ in found):
        errors = {model: errors_of(runs) for (name, model), runs in found.items() if name == group}
        ours = {model: each for model, each in errors.items() if model not in RECIPES and each}
        others = {model: each for model, each in errors.items() if model in RECIPES and each}
        problem = next(runs[0][0].problem for (name, _), runs in found.items() if name == group)
        others |= published(problem)
        named = [*combinations(ours, 2), *((first, second) for first in ours for second in others)]
        both = ours | others
        pairs += [_row(group, first, second, both, problem.target.unit) for first, second in named]
    return [row for row in pairs if row is not None]


def bars(rows: Sequence[Row]) -> list[Bar]:
    """Better than each published model: the whole interval of the difference lies below 0."""
    return [
        Bar(f"{row.work}, upper end of the interval", float(row.details["high"]), 0.0, row.unit.rpartition(" ")[2])
        for row in rows
        if row.work.endswith("(published)")
    ]


def errors_of(runs: Sequence[tuple[Planned, Finished]]) -> dict[str, float]:
    """The error of each crystal, averaged over seeds; empty if a run was kept without its predictions."""
    by_crystal: dict[str, list[float]] = {}
    for plan, finished in runs:
        part = plan.problem.parts.test
        if len(finished.outcome.predictions) != len(part):
            return {}
        sizes = np.abs(np.array(finished.outcome.predictions) - part.targets[plan.problem.target.name])
        for crystal, size in zip(part.ids.astype(str).tolist(), sizes.tolist(), strict=True):
            by_crystal.setdefault(crystal, []).append(size)
    return {crystal: float(np.mean(sizes)) for crystal, sizes in by_crystal.items()}


def published(problem: Problem) -> dict[str, Errors]:
    """Name of a published model → its errors, for a task of Matbench."""
    if not (SHARED / PUBLISHED).exists():
        return {}
    table = pandas.read_parquet(SHARED / PUBLISHED)
    table = table.loc[table["task"] == problem.group]
    sizes = (table["prediction"] - table["label"]).abs()
    return {
        f"{model} (published)": dict(zip(table.loc[rows, "mb_id"], sizes.loc[rows], strict=True))
        for model, rows in table.groupby("model").groups.items()
    }


def difference(first: Errors, second: Errors, seed: int = 0) -> tuple[float, float, float, int]:
    """Mean of first - second over the crystals of both, the ends of its 95 % interval, and the number of crystals."""
    crystals = sorted(first.keys() & second.keys())
    differences = np.array([first[crystal] - second[crystal] for crystal in crystals])
    generator = np.random.default_rng(seed)
    means = [differences[generator.integers(0, len(crystals), len(crystals))].mean() for _ in range(N_RESAMPLES)]
    low, high = np.percentile(means, INTERVAL)
    return float(differences.mean()), float(low), float(high), len(crystals)


def _row(group: str, first: str, second: str, errors: Mapping[str, Errors], unit: str) -> Row | None:
    if not errors[first].keys() & errors[second].keys():
        return None
    value, low, high, n = difference(errors[first], errors[second])
    return Row(
        work=f"{group}: {first} - {second}",
        candidate=first,
        version="paired",
        unit=f"difference of MAE, {unit}",
        value=value,
        details={"low": low, "high": high, "crystals": float(n)},
    )
