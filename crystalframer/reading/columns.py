"""Columns and cells of a table of crystals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crystalframer.errors import DataError

ID_COLUMNS = ("id", "material_id", "jid", "mb_id", "matbench_id")
"""Columns that may hold the id; the first that exists is taken."""
STRUCTURE_COLUMNS = ("atomic_numbers", "positions", "frac_coords", "lattice")
DERIVED_COLUMNS = ("n_atoms", "nsites", "volume", "density", "spacegroup")
"""Numbers that describe the structure: not read as targets unless asked for by name."""
_MISSING = ("", "nan", "na", "n/a", "null", "none")


def is_missing(cell: Any) -> bool:
    """Empty, null, NaN, or text that says so."""
    if isinstance(cell, str):
        return cell.strip().lower() in _MISSING
    return cell is None or (isinstance(cell, (float, np.floating)) and bool(np.isnan(cell)))


def row_id(row: Mapping[str, Any]) -> str:
    """The first id column of a row that is filled; empty if there is none."""
    return next((str(row[name]) for name in ID_COLUMNS if name in row and not is_missing(row[name])), "")


def to_label(cell: Any, name: str, *, path: Path | str | None = None, row: int | None = None) -> float:
    """A label, NaN if missing.

    Args:
        name: name of the label, for messages; so are the path of the table and the row.

    Raises:
        DataError: the cell is text, true or false, or infinite.
    """
    if is_missing(cell):
        return float("nan")
    try:
        value = float("inf") if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        value = float("inf")
    if not np.isfinite(value):
        message = f"{name} is {str(cell)[:60]!r}; a label must be a finite number, or empty if it is missing"
        raise DataError(message, path=path, row=row, field=name, value=cell)
    return value
