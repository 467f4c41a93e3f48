"""Rows of tables: CSV, JSON, JSON lines and parquet, one dictionary per row, with nothing guessed about their cells."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crystalframer.data.dataset import DataError

TABLE_SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")
_MISSING = ("", "nan", "na", "n/a", "null", "none")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table in order. Cells of a CSV file are text; commas, semicolons or tabs separate them.

    JSON is a list of objects, or an object of objects whose keys become the column `id`.

    Raises:
        DataError: the file is missing, cannot be read as what its suffix says, or has no rows.
    """
    readers = {".csv": _read_csv, ".json": _read_json, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: not a table; known are {', '.join(readers)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    empty = True
    try:
        for row in readers[path.suffix.lower()](path):
            empty = False
            yield row
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); save it again as UTF-8") from error
    if empty:
        raise DataError(f"{path}: the table has no rows")


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=max(",;\t", key=header.count), restkey="", strict=True)
        try:
            for row, cells in enumerate(reader, start=1):
                if "" in cells or None in cells.values():
                    n_columns = len(reader.fieldnames or ())
                    raise DataError(f"{path}, row {row}: does not have the {n_columns} cells that the header names")
                yield cells
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not readable as CSV ({error})") from error


def _read_json(path: Path) -> Iterator[dict[str, Any]]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    if isinstance(tree, Mapping) and all(isinstance(row, Mapping) for row in tree.values()):
        tree = [{"id": id, **row} for id, row in tree.items()]
    if not isinstance(tree, list):
        raise DataError(f"{path}: a table in JSON is a list of objects, one per row, or an object of them by id")
    for row, cells in enumerate(tree, start=1):
        yield _checked(path, row, cells)


def _read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        lines = (line for line in file if line.strip())
        for row, line in enumerate(lines, start=1):
            try:
                cells = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, row {row}: not valid JSON ({error})") from error
            yield _checked(path, row, cells)


def _checked(path: Path, row: int, cells: Any) -> dict[str, Any]:
    if not isinstance(cells, Mapping):
        raise DataError(f"{path}, row {row}: expected an object with named cells, got {str(cells)[:60]!r}")
    return dict(cells)


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not a complete parquet file ({error}); copy or make it again") from error


def is_missing(cell: Any) -> bool:
    """Empty, null, NaN, or text that says so."""
    if isinstance(cell, str):
        return cell.strip().lower() in _MISSING
    return cell is None or (isinstance(cell, (float, np.floating)) and bool(np.isnan(cell)))


def to_label(cell: Any, where: str) -> float:
    """A label, NaN if missing.

    Raises:
        DataError: the cell (named by `where`) is text, true or false, or infinite.
    """
    if is_missing(cell):
        return float("nan")
    try:
        value = float("inf") if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        value = float("inf")
    if not np.isfinite(value):
        raise DataError(f"{where} is {str(cell)[:60]!r}; a label must be a finite number, or empty if it is missing")
    return value
