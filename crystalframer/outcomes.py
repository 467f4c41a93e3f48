"""The outcome for each structure, and the table of them that `predict` returns. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from crystalframer.class_scores import likeliest
from crystalframer.config import Target
from crystalframer.crystals.flat import text_array
from crystalframer.errors import ConfigError
from crystalframer.reading.entry import StructureRecord

if TYPE_CHECKING:
    import pandas

_Values = Float[np.ndarray, " n_outputs"]
FLAGS = {"outside_training": "outside the training data", "not_relaxed": "not relaxed"}
"""Columns that say why a prediction may be far off, and their titles."""


@dataclass(frozen=True)
class Outcome:
    """The prediction of one structure, or the reason why there is none."""

    id: str
    formula: str
    values: _Values
    """One for each output of the model: in its unit, or the probability of a class; NaN if there is an error."""
    low: _Values
    high: _Values
    """Ends of the prediction intervals; NaN if there is an error, the model is not calibrated, or for classes."""
    outside_training: str | None
    error: str | None
    of_machine: bool = False
    """Whether the machine failed, not the structure: it may be predicted when it is tried again."""
    nearest: str | None = None
    """Id and formula of the nearest training crystal; None if there is an error, or the model has no index of them."""
    distance: float = math.nan
    """Its distance (`training_index.Nearest`)."""
    not_relaxed: str | None = None
    """Why its atoms seem not to be at rest; None if they do, or if the model cannot tell."""


def check_sizes(**sizes: int) -> None:
    """Check sizes, such as `batch_size` and `max_atoms`.

    Raises:
        ConfigError: one is below 1.
    """
    for name, value in sizes.items():
        if value < 1:
            raise ConfigError("must be at least 1", field=name, value=value)


def unread(record: StructureRecord, n_outputs: int) -> Outcome:
    """The outcome of a structure that cannot be read."""
    nothing = np.full(n_outputs, np.nan)
    return Outcome(record.id, "", nothing, nothing, nothing, None, record.error or "no structure", record.of_machine)


@dataclass(frozen=True)
class Columns:
    """What the table has a column for."""

    targets: tuple[Target, ...]
    has_intervals: bool
    """Whether the model is calibrated."""
    has_flags: bool
    """Whether the model knows the range of its training data."""
    has_nearest: bool = False
    """Whether the model has an index of its training crystals."""
    has_soundness: bool = False
    """Whether the model tells sound crystals from others."""

    @property
    def n_outputs(self) -> int:
        return sum(target.n_outputs for target in self.targets)


@dataclass(frozen=True, eq=False)
class Table:
    """Rows as columns of equal length, which need no pandas."""

    columns: dict[str, Any]
    """Those of words that may be None are arrays of objects."""
    units: dict[str, str]
    """Target → unit."""

    @classmethod
    def of(cls, frame: pandas.DataFrame) -> Table:
        """The columns of a frame that `frame` made, or of some of its rows."""
        words = frame.select_dtypes(exclude="number")
        known = {name: words[name].astype(object).where(words[name].notna(), None) for name in words}
        return cls({name: known.get(name, frame[name]).tolist() for name in frame}, frame.attrs["units"])

    def __len__(self) -> int:
        return len(self.columns["id"])

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> list[Any]:
        """A column."""
        return list(self.columns[name])

    def called(self, ids: Sequence[str]) -> Table:
        """The same with other ids."""
        return Table({**self.columns, "id": ids}, self.units)

    def rows(self, numbers: Sequence[int]) -> Table:
        """Some of the rows."""
        return Table({name: [values[n] for n in numbers] for name, values in self.columns.items()}, self.units)

    def frame(self) -> pandas.DataFrame:
        """The same as pandas has it; `attrs["units"]` are the units."""
        import pandas

        def column(values: Any) -> Any:
            is_words = isinstance(values, np.ndarray) and values.dtype == object
            return pandas.Series(values, dtype=object) if is_words else values

        frame = pandas.DataFrame({name: column(values) for name, values in self.columns.items()})
        frame.attrs["units"] = self.units
        return frame


def table(rows: Sequence[Outcome], columns: Columns) -> Table:
    """The columns of the table that `predict` returns."""
    found: dict[str, Any] = {"id": [row.id for row in rows], "formula": [row.formula for row in rows]}
    values, low, high = (
        np.array([getattr(row, name) for row in rows], dtype=np.float64).reshape(len(rows), columns.n_outputs)
        for name in ("values", "low", "high")
    )
    first = 0
    for target in columns.targets:
        of_target = values[:, first : first + target.n_outputs]
        if target.n_outputs > 1:
            found[target.name] = text_array(likeliest(of_target, target))
        found |= zip(target.output_names, of_target.T, strict=True)
        if columns.has_intervals and not target.is_class:
            found |= {f"{target.name}_low": low[:, first], f"{target.name}_high": high[:, first]}
        first += target.n_outputs
    if columns.has_flags or columns.has_nearest or columns.has_soundness:
        found["outside_training"] = text_array([row.outside_training for row in rows])
    if columns.has_soundness:
        found["not_relaxed"] = text_array([row.not_relaxed for row in rows])
    if columns.has_nearest:
        found["nearest_training"] = text_array([row.nearest for row in rows])
        found["nearest_distance"] = np.array([row.distance for row in rows], dtype=np.float64)
    found["error"] = text_array([row.error for row in rows])
    return Table(found, {target.name: target.unit for target in columns.targets})
