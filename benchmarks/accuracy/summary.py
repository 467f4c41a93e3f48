"""From outcomes of jobs to rows, bars and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

from benchmarks.accuracy.jobs import Finished
from benchmarks.accuracy.problems import Problem
from benchmarks.accuracy.recipes import RECIPES
from benchmarks.accuracy.runner import Planned
from benchmarks.machine import BUSY
from benchmarks.report import Bar, Row

PUBLISHED_PHONONS = {"MegNet": 28.76, "ALIGNN": 29.54, "CGCNN": 57.76}
"""Mean MAE of the five folds in 1/cm, of the Matbench leaderboard: full training on GPUs."""
PHONON_BAR = 35.0
OVERRUN = 1.05
"""Share of the budget above which a run is named."""

Results = Sequence[tuple[Planned, Finished | str]]
Found = Mapping[tuple[str, str], Sequence[tuple[Planned, Finished]]]


def grouped(results: Results) -> dict[tuple[str, str], list[tuple[Planned, Finished]]]:
    """What has a result, by group of problems and model."""
    found: dict[tuple[str, str], list[tuple[Planned, Finished]]] = {}
    for plan, result in results:
        if not isinstance(result, str):
            found.setdefault((plan.problem.group, plan.job.model), []).append((plan, result))
    return found


def mean_and_spread(maes: Sequence[tuple[str, float]]) -> tuple[float, float | None]:
    """Mean over problems of the mean over seeds; and the standard deviation over the problems, or over the seeds if
    there is one problem, or None.

    Args:
        maes: problem and MAE of each run.
    """
    by_problem: dict[str, list[float]] = {}
    for problem, mae in maes:
        by_problem.setdefault(problem, []).append(mae)
    means = [fmean(values) for values in by_problem.values()]
    varied = means if len(means) > 1 else [mae for _, mae in maes]
    return fmean(means), stdev(varied) if len(varied) > 1 else None


def rows(found: Found) -> list[Row]:
    return [_row(group, model, runs) for (group, model), runs in found.items()]


def _row(group: str, model: str, runs: Sequence[tuple[Planned, Finished]]) -> Row:
    outcomes = [finished.outcome for _, finished in runs]
    target = runs[0][0].problem.target
    mean, spread = mean_and_spread([(plan.problem.name, finished.outcome.mae) for plan, finished in runs])
    holdout, _ = mean_and_spread([(plan.problem.name, finished.outcome.holdout_mae) for plan, finished in runs])
    n_problems = len({plan.problem.name for plan, _ in runs})
    seeds = len({plan.job.seed for plan, _ in runs})
    kind = f"{n_problems} folds × {seeds} seeds" if n_problems > 1 else f"{seeds} seeds"
    return Row(
        work=group,
        candidate=model,
        version=outcomes[0].version,
        unit=f"MAE, {target.unit}",
        value=mean,
        details={
            "±": "" if spread is None else f"{spread:.2g}",
            "of": kind,
            "held out": holdout,
            "epochs": fmean(outcome.n_epochs for outcome in outcomes),
            "min": sum(outcome.wall_seconds for outcome in outcomes) / 60 / seeds,
            "CPU min": sum(outcome.cpu_seconds for outcome in outcomes) / 60 / seeds,
            "parameters": outcomes[0].n_parameters,
        },
    )


def bars(found: Found, data: str) -> list[Bar]:
    """Ours below every peer, and on phonons below the goal. Of several of ours, that which the held-out crystals
    prefer."""
    of_group = {model: runs for (group, model), runs in found.items() if group == data}
    ours = {model: runs for model, runs in of_group.items() if model not in RECIPES}
    if not ours:
        return []
    best = min(ours, key=lambda model: _mean(ours[model], "holdout_mae"))
    value, unit = _mean(ours[best], "mae"), ours[best][0][0].problem.target.unit
    found_bars = [
        Bar(f"{best} as accurate as {model}", value, _mean(runs, "mae"), unit)
        for model, runs in of_group.items()
        if model in RECIPES
    ]
    if data == "phonons" and len({plan.problem.name for plan, _ in ours[best]}) == 5:
        found_bars.append(Bar(f"{best}, mean of the five folds", value, PHONON_BAR, unit))
    return found_bars


def _mean(runs: Sequence[tuple[Planned, Finished]], field: str) -> float:
    return mean_and_spread([(plan.problem.name, getattr(finished.outcome, field)) for plan, finished in runs])[0]


def notes(results: Results, data: str) -> list[str]:
    """What a reader must know beside the table."""
    lines = []
    if data == "phonons":
        published = ", ".join(f"{name} {mae}" for name, mae in PUBLISHED_PHONONS.items())
        lines.append(f"Published (Matbench, full training on GPUs), 1/cm: {published}.")
    for model in dict.fromkeys(plan.job.model for plan, _ in results if plan.is_peer):
        lines.append(f"{model} is trained with {RECIPES[model].summary}.")
    for plan, result in results:
        if isinstance(result, str):
            lines.append(f"{plan.job.title} has no result: {result}")
            continue
        outcome, others = result.outcome, result.others or 0.0
        used = (outcome.wall_seconds if plan.job.clock == "wall" else outcome.cpu_seconds) / 60
        if used > OVERRUN * plan.job.minutes:
            lines.append(f"{plan.job.title} took {used:.2f} min of a budget of {plan.job.minutes:.3g}.")
        if others > BUSY and plan.job.clock == "wall":
            lines.append(f"{plan.job.title}: other work kept {others:.2f} cores busy.")
    return lines


def records(results: Results) -> list[dict[str, Any]]:
    """Every run, for the JSON; its predictions stay in the folder of the job."""
    return [
        {"model": plan.job.model, "problem": plan.job.problem, "seed": plan.job.seed, "minutes": plan.job.minutes}
        | {"digest": plan.job.digest[:16], "settings": plan.job.settings}
        | (
            {"error": result}
            if isinstance(result, str)
            else {"date": result.date, "others": result.others}
            | {name: value for name, value in asdict(result.outcome).items() if name != "predictions"}
        )
        for plan, result in results
    ]


def described(problems: Sequence[Problem]) -> str:
    return "; ".join(map(str, problems))
