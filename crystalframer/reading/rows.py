"""Rows of tables: CSV, JSON, JSON lines, parquet and databases, one dictionary per row, no cell guessed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crystalframer.errors import DataError
from crystalframer.reading import databases
from crystalframer.reading.places import START, Place

TABLE_SUFFIXES = (".csv", ".json", ".jsonl", ".parquet", *databases.SUFFIXES)
_MISSING = ("", "nan", "na", "n/a", "null", "none")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table in order. Cells of a CSV file are text; commas, semicolons or tabs separate them.

    JSON is a list of objects, or an object of objects whose keys become the column `id`.

    Raises:
        DataError: the file is missing, cannot be read as what its suffix says, or has no rows.
    """
    for row in rows_from(path):
        if isinstance(row, DataError):
            raise row
        yield row


def rows_from(path: Path, start: Place = START) -> Iterator[dict[str, Any] | DataError]:
    """The rows from a place on. In place of one that cannot be read, its error; the others follow.

    Raises:
        DataError: as `read_rows`, where nothing can follow.
    """
    readers = {".csv": _read_csv, ".json": _read_json, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
    readers |= dict.fromkeys(databases.SUFFIXES, databases.read)
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: not a table; known are {', '.join(readers)}")
    if not path.exists():
        raise DataError(f"{path}: no such file; check the path")
    empty = True
    try:
        for row in readers[path.suffix.lower()](path, start):
            empty = False
            yield row
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); save it again as UTF-8") from error
    if empty and start == START:
        raise DataError(f"{path}: the table has no rows; give one that has")


def places_of_rows(path: Path) -> Iterator[Place]:
    """Where the rows begin, found without reading what is in them as far as the format allows.

    Raises:
        DataError: where `rows_from` raises one, or earlier.
    """
    finders = {".csv": _places_csv, ".json": _places_json, ".jsonl": _places_json_lines, ".parquet": _places_parquet}
    finders |= dict.fromkeys(databases.SUFFIXES, databases.places)
    return finders[path.suffix.lower()](path)


class _Lines:
    """The lines of a UTF-8 file as text, and the byte where the next one begins."""

    def __init__(self, file: io.BufferedReader, offset: int = 0) -> None:
        self._file = file
        file.seek(offset)
        self.offset = offset

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            encoding = "utf-8-sig" if self.offset == 0 else "utf-8"
            self.offset += len(line)
            yield line.decode(encoding)


def _csv_rows(path: Path, start: Place) -> Iterator[tuple[Place, list[str], list[str] | DataError]]:
    """Place, header and cells of each row; in place of one that ends the file, the error."""
    with path.open("rb") as file:
        first = next(iter(_Lines(file)), "")
        delimiter = max(",;\t", key=first.count)
        lines = _Lines(file)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] = []
        place = start
        try:
            header = next(rows, [])
            if isinstance(start.mark, int):
                lines = _Lines(file, start.mark)
                rows = csv.reader(lines, delimiter=delimiter, strict=True)
            place = Place(start.n_before, lines.offset)
            for cells in rows:
                if cells:
                    yield place, header, cells
                place = Place(place.n_before + bool(cells), lines.offset)
        except csv.Error as error:
            where = f"row {place.n_before + 1}" if isinstance(start.mark, int) else f"line {rows.line_num}"
            yield place, header, DataError(f"{path}, {where}: not readable as CSV ({error})")
        except UnicodeDecodeError as error:
            yield place, header, DataError(f"{path}: not UTF-8 text ({error}); save it again as UTF-8")


def _read_csv(path: Path, start: Place) -> Iterator[dict[str, Any] | DataError]:
    for place, header, cells in _csv_rows(path, start):
        if isinstance(cells, DataError):
            raise cells
        if len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))
        else:
            row = f"{path}, row {place.n_before + 1}"
            yield DataError(f"{row}: does not have the {len(header)} cells that the header names")


def _places_csv(path: Path) -> Iterator[Place]:
    return (place for place, _, _ in _csv_rows(path, START))


def _read_json(path: Path, start: Place) -> Iterator[dict[str, Any] | DataError]:
    for row, cells in enumerate(_json_rows(path)[start.n_before :], start=start.n_before + 1):
        yield _checked(path, row, cells)


def _places_json(path: Path) -> Iterator[Place]:
    return map(Place, range(len(_json_rows(path))))


def _json_rows(path: Path) -> list[Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:  # a ValueError too, and told apart where rows are asked for
        raise
    except (ValueError, RecursionError) as error:  # the latter of nested brackets
        raise DataError(f"{path}: not valid JSON ({error}); make it again") from error
    if isinstance(tree, Mapping) and all(isinstance(row, Mapping) for row in tree.values()):
        tree = [{"id": id, **row} for id, row in tree.items()]
    if not isinstance(tree, list):
        raise DataError(f"{path}: a table in JSON is a list of objects, one per row, or an object of them by id")
    return tree


def _json_lines(path: Path, start: Place) -> Iterator[tuple[Place, bytes]]:
    n_rows = start.n_before
    with path.open("rb") as file:
        offset = file.seek(start.mark if isinstance(start.mark, int) else 0)
        for line in file:
            if line.strip():
                yield Place(n_rows, offset), line
                n_rows += 1
            offset += len(line)


def _read_json_lines(path: Path, start: Place) -> Iterator[dict[str, Any] | DataError]:
    for place, line in _json_lines(path, start):
        row = place.n_before + 1
        try:
            yield _checked(path, row, json.loads(line))
        except UnicodeDecodeError as error:
            yield DataError(f"{path}, row {row}: not UTF-8 text ({error}); save it again as UTF-8")
        except (ValueError, RecursionError) as error:  # the latter of nested brackets
            yield DataError(f"{path}, row {row}: not valid JSON ({error})")


def _places_json_lines(path: Path) -> Iterator[Place]:
    return (place for place, _ in _json_lines(path, START))


def _checked(path: Path, row: int, cells: Any) -> dict[str, Any] | DataError:
    if not isinstance(cells, Mapping):
        return DataError(f"{path}, row {row}: expected an object with named cells, got {str(cells)[:60]!r}")
    return dict(cells)


def _read_parquet(path: Path, start: Place) -> Iterator[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            ends = np.cumsum(sizes)
            first = int(np.searchsorted(ends, start.n_before, side="right"))
            skip = start.n_before - (int(ends[first - 1]) if first else 0)
            for batch in file.iter_batches(batch_size=1024, row_groups=range(first, len(sizes))):
                yield from batch.slice(min(skip, len(batch))).to_pylist()
                skip = max(0, skip - len(batch))
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not a complete parquet file ({error}); copy or make it again") from error


def _places_parquet(path: Path) -> Iterator[Place]:
    from pyarrow import ArrowException, parquet

    try:
        return map(Place, range(parquet.read_metadata(path).num_rows))
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
