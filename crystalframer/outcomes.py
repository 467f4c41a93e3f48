"""The outcome for each structure, and the table of them that `predict` returns. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from crystalframer.config import Target
from crystalframer.errors import ConfigError
from crystalframer.reading.entry import StructureRecord

if TYPE_CHECKING:
    import pandas

_Values = Float[np.ndarray, " n_targets"]


@dataclass(frozen=True)
class Outcome:
    """The prediction of one structure, or the reason why there is none."""

    id: str
    formula: str
    values: _Values
    """One per target, in its unit; NaN if there is an error."""
    half_widths: _Values
    """Half the widths of the prediction intervals; NaN if there is an error or the model is not calibrated."""
    outside_training: str | None
    error: str | None
    of_machine: bool = False
    """Whether the machine failed, not the structure: it may be predicted when it is tried again."""


def check_sizes(batch_size: int, max_atoms: int) -> None:
    """Check the largest sizes of a batch.

    Raises:
        ConfigError: one is below 1.
    """
    for name, value in (("batch_size", batch_size), ("max_atoms", max_atoms)):
        if value < 1:
            raise ConfigError("must be at least 1", field=name, value=value)


def unread(record: StructureRecord, n_targets: int) -> Outcome:
    """The outcome of a structure that cannot be read."""
    nothing = np.full(n_targets, np.nan)
    return Outcome(record.id, "", nothing, nothing, None, record.error or "no structure", record.of_machine)


@dataclass(frozen=True)
class Columns:
    """What the table has a column for."""

    targets: tuple[Target, ...]
    has_intervals: bool
    """Whether the model is calibrated."""
    has_flags: bool
    """Whether the model knows the range of its training data."""


def table(rows: Sequence[Outcome], columns: Columns) -> pandas.DataFrame:
    """The table that `predict` returns."""
    import pandas

    frame = pandas.DataFrame({"id": [row.id for row in rows], "formula": [row.formula for row in rows]})
    for column, target in enumerate(columns.targets):
        value = frame[target.name] = np.array([row.values[column] for row in rows], dtype=np.float64)
        if columns.has_intervals:
            half_width = np.array([row.half_widths[column] for row in rows], dtype=np.float64)
            frame[f"{target.name}_low"], frame[f"{target.name}_high"] = value - half_width, value + half_width
    if columns.has_flags:
        frame["outside_training"] = pandas.Series([row.outside_training for row in rows], dtype=object)
    frame["error"] = pandas.Series([row.error for row in rows], dtype=object)
    frame.attrs["units"] = {target.name: target.unit for target in columns.targets}
    return frame
