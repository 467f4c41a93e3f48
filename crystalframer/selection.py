"""Rows of a table of predictions: those for which an expression holds, and the best by a column. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.errors import ScreeningError, Setting
from crystalframer.outcomes import FLAGS, Columns, Outcome, table
from crystalframer.stability import above_hull, phase_table

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Choice:
    """Which rows of a screening to keep, as `read_screen` takes it."""

    where: str | None = None
    top: int | None = None
    by: str | None = None
    lowest: bool = False
    phases: pandas.DataFrame | None = None
    """Competing phases, as a table of formulas and energies."""

    @classmethod
    def of(
        cls,
        where: str | None,
        top: int | None,
        by: str | None,
        lowest: bool,
        hull: pandas.DataFrame | CrystalDataset | str | Path | None,
    ) -> Choice:
        """With the competing phases of a data set, a table or a path.

        Raises:
            ScreeningError: only one of `top` and `by` is given.
            DataError: as `above_hull`, for `hull`.
        """
        if (top is None) != (by is None):
            field = "by" if by is None else "top"
            raise ScreeningError("top and by go together: how many rows, and the column that decides", field=field)
        if top is not None and (not isinstance(top, int) or top < 1):
            raise ScreeningError("must be a whole number from 1 on", field="top", value=top)
        return cls(where, top, by, lowest, None if hull is None else phase_table(hull))

    def check(self, columns: Columns) -> None:
        """Check the choice against the columns of a table that is still to be made.

        Raises:
            ScreeningError: a column or expression does not fit it.
            DataError: a competing phase has no formula or no energy.
        """
        phases = self.phases
        formula = "H" if phases is None or "formula" not in phases or phases.empty else str(phases["formula"].iloc[0])
        value = np.zeros(columns.n_outputs)
        row = table(
            [Outcome("", formula, value, value - 1.0, value + 1.0, None, None, nearest="id (H)", distance=1.0)], columns
        ).frame()
        row.insert(0, "index", 0)
        self.best(self.filtered(row))

    def filtered(self, frame: pandas.DataFrame) -> pandas.DataFrame:
        """The rows for which the expression holds, with their energy above the hull.

        Raises:
            ScreeningError: a column or the expression does not fit the table.
        """
        import pandas

        if self.phases is not None:
            frame = _with_hull(frame, self.phases)
        if self.by is not None and (self.by not in frame or not pandas.api.types.is_numeric_dtype(frame[self.by])):
            names = ", ".join(frame.select_dtypes("number").columns)
            message = f" is no column of numbers; choose from {names}"
            raise ScreeningError(Setting("by", self.by), message, field="by", value=self.by)
        if self.where is None:
            return frame
        try:
            holds = frame.eval(self.where, engine="python")
        except Exception as error:  # pandas and Python's parser raise what they like
            message = f" cannot be evaluated ({error}); the columns are {', '.join(frame)}"
            raise ScreeningError(Setting("where", self.where), message, field="where", value=self.where) from error
        if not isinstance(holds, pandas.Series) or not pandas.api.types.is_bool_dtype(holds):
            message = " is no condition: it must be true or false for every row, such as 'band_gap > 3'"
            raise ScreeningError(Setting("where", self.where), message, field="where", value=self.where)
        chosen = frame.loc[holds]
        chosen.attrs = frame.attrs
        return chosen

    def best(self, frame: pandas.DataFrame) -> pandas.DataFrame:
        """The first rows by the column that decides; all of them if none does."""
        if self.top is None or self.by is None:
            return frame
        return best_first(frame, self.by, self.lowest).head(self.top)


def best_first(frame: pandas.DataFrame, by: str, lowest: bool) -> pandas.DataFrame:
    """The rows with a value in a column, in its order. If it holds predictions, rows with a flag come last.

    Args:
        frame: a table of predictions; `attrs["units"]` names what is predicted.
        by: a column of numbers.
        lowest: whether the lowest values come first.
    """
    frame = frame.dropna(subset=[by])
    predicted = {f"{name}{end}" for name in frame.attrs.get("units", {}) for end in ("", "_low", "_high")}
    flags = [frame[column].notna() for column in FLAGS if column in frame and by in predicted]
    is_flagged = np.logical_or.reduce([np.zeros(len(frame), dtype=bool), *flags])
    value = frame[by].to_numpy(dtype=np.float64)
    return frame.iloc[np.lexsort((value if lowest else -value, is_flagged))]


def _with_hull(frame: pandas.DataFrame, phases: pandas.DataFrame) -> pandas.DataFrame:
    """The rows with what `above_hull` finds for them."""
    import pandas

    found = above_hull(frame, phases).rename(columns={"error": "hull_error"})
    names = [name for name in found if name.startswith("above_hull") or name in ("decomposes_to", "hull_error")]
    joined = pandas.concat([frame, found[names]], axis=1)
    joined.attrs = {**frame.attrs, "units": {**frame.attrs.get("units", {}), **found.attrs["units"]}}
    return joined
