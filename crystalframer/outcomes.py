"""The outcome for each structure, and the table of them that `predict` returns. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from crystalframer.class_scores import likeliest
from crystalframer.config import Target
from crystalframer.errors import ConfigError
from crystalframer.reading.entry import StructureRecord

if TYPE_CHECKING:
    import pandas

_Values = Float[np.ndarray, " n_outputs"]


@dataclass(frozen=True)
class Outcome:
    """The prediction of one structure, or the reason why there is none."""

    id: str
    formula: str
    values: _Values
    """One for each output of the model: in its unit, or the probability of a class; NaN if there is an error."""
    half_widths: _Values
    """Half the widths of the prediction intervals; NaN if there is an error, the model is not calibrated, or for
    classes."""
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


def unread(record: StructureRecord, n_outputs: int) -> Outcome:
    """The outcome of a structure that cannot be read."""
    nothing = np.full(n_outputs, np.nan)
    return Outcome(record.id, "", nothing, nothing, None, record.error or "no structure", record.of_machine)


@dataclass(frozen=True)
class Columns:
    """What the table has a column for."""

    targets: tuple[Target, ...]
    has_intervals: bool
    """Whether the model is calibrated."""
    has_flags: bool
    """Whether the model knows the range of its training data."""

    @property
    def n_outputs(self) -> int:
        return sum(target.n_outputs for target in self.targets)


def table(rows: Sequence[Outcome], columns: Columns) -> pandas.DataFrame:
    """The table that `predict` returns."""
    import pandas

    frame = pandas.DataFrame({"id": [row.id for row in rows], "formula": [row.formula for row in rows]})
    values, half_widths = (
        np.array(found, dtype=np.float64).reshape(len(rows), columns.n_outputs)
        for found in ([row.values for row in rows], [row.half_widths for row in rows])
    )
    first = 0
    for target in columns.targets:
        value, half_width = values[:, first], half_widths[:, first]
        of_target = values[:, first : first + target.n_outputs]
        if target.n_outputs > 1:
            frame[target.name] = pandas.Series(likeliest(of_target, target), dtype=object)
        for name, values_of_output in zip(target.output_names, of_target.T, strict=True):
            frame[name] = values_of_output
        if columns.has_intervals and not target.is_class:
            frame[f"{target.name}_low"], frame[f"{target.name}_high"] = value - half_width, value + half_width
        first += target.n_outputs
    if columns.has_flags:
        frame["outside_training"] = pandas.Series([row.outside_training for row in rows], dtype=object)
    frame["error"] = pandas.Series([row.error for row in rows], dtype=object)
    frame.attrs["units"] = {target.name: target.unit for target in columns.targets}
    return frame
