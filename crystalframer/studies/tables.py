"""The table of a study: one row for each run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalframer.config import Target
from crystalframer.training.result import FitResult

if TYPE_CHECKING:
    import pandas

LABELS = {
    "validation_loss": "validation loss",
    "best_epoch": "best epoch",
    "n_epochs": "epochs",
    "seconds": "seconds",
    "ms_per_step": "ms a step",
    "n_parameters": "parameters",
}
"""Columns of numbers, as a summary names them."""


@dataclass(frozen=True, eq=False, repr=False)
class StudyResult(ABC):
    """The outcome of a study."""

    output: Path
    table: pandas.DataFrame

    @property
    def failures(self) -> pandas.DataFrame:
        """The rows without a result."""
        return self.table.loc[self.table["error"].notna()]

    @abstractmethod
    def summary(self) -> str: ...

    @abstractmethod
    def _names(self, rows: pandas.DataFrame) -> Iterable[str]:
        """The names of runs."""

    def _reasons(self) -> list[str]:
        """A line for each reason of failures."""
        failures = self.failures.groupby("error", sort=False)
        return [f"{', '.join(self._names(rows))}: no result: {error}" for error, rows in failures]

    def __repr__(self) -> str:
        return f"{type(self).__name__} in {self.output}:\n{self.summary()}"


def measured(outcome: FitResult | str) -> dict[str, Any]:
    """The columns of a run that come from its training."""
    if isinstance(outcome, str):
        return {"error": outcome}
    history, score = outcome.history, outcome.scores[outcome.chosen]
    n_steps = np.diff(history["step"].to_numpy(), prepend=0)
    ms_per_step = 1000.0 * history["training_seconds"].to_numpy() / n_steps
    return {
        "validation_loss": score.validation_loss,
        **{f"validation_mae/{name}": error for name, error in score.validation_mae.items()},
        **{f"test_mae/{name}": error for name, error in score.test_mae.items()},
        **{f"validation_accuracy/{name}": share for name, share in score.validation_accuracy.items()},
        **{f"test_accuracy/{name}": share for name, share in score.test_accuracy.items()},
        "chosen": outcome.chosen,
        "best_epoch": int(history["epoch"].to_numpy()[history["validation_loss"].argmin()]),
        "n_epochs": len(history),
        "seconds": float(history["seconds"].to_numpy().sum()),
        "ms_per_step": float(np.median(ms_per_step[1:] if len(history) > 1 else ms_per_step)),
        "n_parameters": sum(parameter.numel() for parameter in outcome.model.parameters()),
        "error": None,
    }


def table_of(rows: Sequence[dict[str, Any]], columns: Sequence[str], targets: Sequence[Target]) -> pandas.DataFrame:
    """Rows as a table with these columns; `attrs["units"]` maps target to unit."""
    import pandas

    table = pandas.DataFrame(rows, columns=list(columns))
    table["error"] = pandas.Series([row["error"] for row in rows], dtype=object)
    table.attrs["units"] = {target.name: target.unit for target in targets}
    return table


def labels(table: pandas.DataFrame) -> dict[str, str]:
    """The columns of numbers, and their names in a summary."""
    units, found = table.attrs["units"], {}
    for column in map(str, table):
        score, is_score, name = column.partition("/")
        part, _, metric = score.rpartition("_")
        if is_score and metric in ("mae", "accuracy"):
            unit = units[name]
            which = Target(name, unit).label if len(units) > 1 else f"({unit})" if unit else ""
            found[column] = f"{part} {'MAE' if metric == 'mae' else metric} {which}".strip()
        elif column in LABELS:
            found[column] = LABELS[column]
    return found
