"""Tables: CSV, JSON lines and parquet, one dictionary per row. No cell is guessed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalframer.errors import DataError
from crystalframer.reading.columns import row_id
from crystalframer.reading.entry import BEGINNING, Entry, Start

if TYPE_CHECKING:
    import pandas
    import pyarrow.parquet

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A format of tables or databases (see `formats.Format`), whose entries are rows."""

    rows: Callable[[Path, Start], Iterator[Row | DataError]]
    """The rows from a start on; in place of one that cannot be read, its error. What ends the file is raised."""
    starts: Callable[[Path], Iterator[Start]]
    count: Callable[[Path], int | None] = lambda path: None
    save: Callable[[pandas.DataFrame, Path], None] | None = None
    """Writes a table of results."""

    def entries(self, path: Path, start: Start) -> Iterator[Entry]:
        return row_entries(self.rows(path, start), start)


def row_entries(rows: Iterable[Row | DataError], start: Start) -> Iterator[Entry]:
    """Rows from a start on as entries.

    Raises:
        DataError: the table has none.
    """
    row = start.n_before
    for row, cells in enumerate(rows, start=start.n_before + 1):
        yield Entry(cells, "" if isinstance(cells, DataError) else row_id(cells), row)
    if row == 0:
        raise DataError("the table has no rows; give one that has")


def checked(cells: Any) -> Row | DataError:
    """A row as JSON gives it, if it has named cells."""
    if isinstance(cells, Mapping):
        return dict(cells)
    return DataError(f"expected an object with named cells, got {str(cells)[:60]!r}")


def _csv_rows(path: Path, start: Start) -> Iterator[tuple[Start, list[str], list[str] | Exception]]:
    """Start, header and cells of each row; in place of one that ends the file, the error.

    Commas, semicolons or tabs separate the cells, which are text.
    """
    with path.open("rb") as file:
        lines = (line.decode("utf-8-sig") for line in iter(file.readline, b""))
        here, header = start, []
        try:
            first = next(lines, "")
            file.seek(0)
            rows = csv.reader(lines, delimiter=max(",;\t", key=first.count), strict=True)
            header = next(rows, [])
            if isinstance(start.mark, int):
                file.seek(start.mark)
            here = Start(start.n_before, file.tell())
            for cells in rows:
                if cells:
                    yield here, header, cells
                here = Start(here.n_before + bool(cells), file.tell())
        except (csv.Error, UnicodeDecodeError) as error:
            yield here, header, error


def _read_csv(path: Path, start: Start) -> Iterator[Row | DataError]:
    for here, header, cells in _csv_rows(path, start):
        if isinstance(cells, UnicodeDecodeError):
            raise cells
        if isinstance(cells, Exception):
            raise DataError(f"not readable as CSV ({cells})", row=here.n_before + 1) from cells
        if len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))
        else:
            yield DataError(f"does not have the {len(header)} cells that the header names")


def _starts_csv(path: Path) -> Iterator[Start]:
    return (start for start, _, _ in _csv_rows(path, BEGINNING))


def _json_lines(path: Path, start: Start) -> Iterator[tuple[Start, bytes]]:
    n_rows = start.n_before
    with path.open("rb") as file:
        offset = file.seek(start.mark if isinstance(start.mark, int) else 0)
        for line in file:
            if line.strip():
                yield Start(n_rows, offset), line
                n_rows += 1
            offset += len(line)


def _read_json_lines(path: Path, start: Start) -> Iterator[Row | DataError]:
    for _, line in _json_lines(path, start):
        try:
            yield checked(json.loads(line))
        except (ValueError, RecursionError) as error:  # the latter of nested brackets
            yield DataError(f"not valid JSON in UTF-8 ({error})")


def _starts_json_lines(path: Path) -> Iterator[Start]:
    return (start for start, _ in _json_lines(path, BEGINNING))


@contextmanager
def _opened(path: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (ArrowException, OSError) as error:
        raise DataError(f"not a complete parquet file ({error}); copy or make it again") from error


def _read_parquet(path: Path, start: Start) -> Iterator[Row]:
    with _opened(path) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        ends = np.cumsum(sizes)
        first = int(np.searchsorted(ends, start.n_before, side="right"))
        skip = start.n_before - (int(ends[first - 1]) if first else 0)
        for batch in file.iter_batches(batch_size=1024, row_groups=range(first, len(sizes))):
            yield from batch.slice(min(skip, len(batch))).to_pylist()
            skip = max(0, skip - len(batch))


def _count_parquet(path: Path) -> int:
    with _opened(path) as file:
        return file.metadata.num_rows


def _starts_parquet(path: Path) -> Iterator[Start]:
    return map(Start, range(_count_parquet(path)))


def _save_json_lines(table: pandas.DataFrame, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        table.to_json(file, orient="records", lines=True, double_precision=15, force_ascii=False)


CSV = Table(_read_csv, _starts_csv, save=lambda table, path: table.to_csv(path, index=False))
JSON_LINES = Table(_read_json_lines, _starts_json_lines, save=_save_json_lines)
PARQUET = Table(_read_parquet, _starts_parquet, _count_parquet, lambda table, path: table.to_parquet(path, index=False))
