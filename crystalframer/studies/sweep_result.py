"""What a search came to, read from the journal and the folders of its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalframer.config import Config, Target, from_json
from crystalframer.errors import TrainingError
from crystalframer.studies.optuna_study import Trial
from crystalframer.studies.space import Choice, Space
from crystalframer.training.folder import RunFolder
from crystalframer.training.result import FitResult

if TYPE_CHECKING:
    import pandas

SHOWN_TRIALS = 10
"""Of a summary: the best."""


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult:
    """What every trial came to."""

    output: Path
    table: pandas.DataFrame
    """One row a trial: `trial` (its number), a column for each searched field, `state` (`complete`, `pruned` or
    `failed`), `validation_loss` (see `sweep`) and `validation_mae/<target>` in the target's unit, of the weights that
    `fit` chose (of a pruned trial, among its epochs), `best_epoch` (lowest validation loss of the raw weights),
    `n_epochs` that were trained, their `seconds`, and `error`: why there is no result, else None.
    `table.attrs["units"]` maps target to unit, `table.attrs["fields"]` lists the searched fields."""

    @property
    def best(self) -> dict[str, Any]:
        """The row of the complete trial with the lowest validation loss.

        Raises:
            TrainingError: no trial is complete.
        """
        complete = self.table.loc[self.table["state"] == "complete"]
        if complete.empty:
            raise TrainingError(
                f"{self.output}: no trial is complete, so none is the best; the column error of the table says why"
            )
        lowest = int(np.argmin(complete["validation_loss"].to_numpy()))
        return {str(name): complete[name].tolist()[lowest] for name in complete}

    @property
    def best_folder(self) -> Path:
        """Run folder of the best trial, ready for `crystalframer.load`."""
        return trial_folder(self.output, self.best["trial"]).path

    @property
    def best_config(self) -> Config:
        """Of the best trial: to train it longer, or with other seeds."""
        return from_json(Config, RunFolder(self.best_folder).config.read_text(encoding="utf-8"))

    @property
    def failures(self) -> pandas.DataFrame:
        """The rows without a result."""
        return self.table.loc[self.table["error"].notna()]

    def summary(self) -> str:
        """How many trials there are, the best of them as a table for a person, and what failed."""
        counts = self.table["state"].value_counts()
        lines = [
            f"{len(self.table)} trials: "
            + ", ".join(f"{counts[state]} {state}" for state in ("complete", "pruned", "failed") if state in counts)
        ]
        if "complete" in counts:
            complete = self.table.loc[self.table["state"] == "complete"].sort_values("validation_loss")
            shown = complete.head(SHOWN_TRIALS)[["trial", *_labels(self.table)]].rename(columns=_labels(self.table))
            lines.append(shown.to_string(index=False, float_format="{:.4g}".format))
        for error, failed in self.failures.groupby("error", sort=False):
            names = ", ".join(trial_name(number) for number in failed["trial"])
            lines.append(f"{names}: no result: {error}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"SweepResult in {self.output}:\n{self.summary()}"


def trial_name(number: int) -> str:
    return f"trial-{number:04d}"


def trial_folder(output: Path, number: int) -> RunFolder:
    return RunFolder(output / trial_name(number))


def table_of(
    config: Config, space: Space, trials: Sequence[Trial], outcomes: Mapping[int, FitResult | str]
) -> pandas.DataFrame:
    """A row for each trial that has an outcome: its result, or why there is none."""
    import pandas

    maes = [f"validation_mae/{name}" for name in config.model.target_names]
    columns = ["trial", *space, "state", "validation_loss", *maes, "best_epoch", "n_epochs", "seconds", "error"]
    rows = [_row(trial, outcomes[trial.number]) for trial in trials if trial.number in outcomes]
    table = pandas.DataFrame(rows, columns=columns)
    for column in ("best_epoch", "n_epochs"):
        table[column] = table[column].astype("Int64")
    for column in ("validation_loss", *maes, "seconds"):
        table[column] = table[column].astype(float)
    # None is a value of some fields, which pandas would take for a number that is missing.
    with_none = [name for name, offered in space.items() if isinstance(offered, Choice) and None in offered.values]
    for column in ("error", *with_none):
        table[column] = pandas.Series([row[column] for row in rows], dtype=object)
    table.attrs["units"] = {target.name: target.unit for target in config.model.targets}
    table.attrs["fields"] = list(space)
    return table


def _row(trial: Trial, outcome: FitResult | str) -> dict[str, Any]:
    row = {"trial": trial.number, **trial.values}
    if isinstance(outcome, str):
        return {**row, "state": "failed", "error": outcome}
    history, score = outcome.history, outcome.scores[outcome.chosen]
    return {
        **row,
        "state": trial.state,
        "validation_loss": score.validation_loss,
        **{f"validation_mae/{name}": error for name, error in score.validation_mae.items()},
        "best_epoch": int(history["epoch"].to_numpy()[np.argmin(history["validation_loss"].to_numpy())]),
        "n_epochs": len(history),
        "seconds": float(history["seconds"].to_numpy().sum()),
        "error": None,
    }


def _labels(table: pandas.DataFrame) -> dict[str, str]:
    """The columns of a summary, as a person calls them."""
    units = table.attrs["units"]
    labels = {name: name for name in table.attrs["fields"]} | {"validation_loss": "validation loss"}
    for name, unit in units.items():
        which = Target(name, unit).label if len(units) > 1 else f"({unit})" if unit else ""
        labels[f"validation_mae/{name}"] = f"validation MAE {which}".strip()
    return labels | {"best_epoch": "best epoch", "n_epochs": "epochs"}
