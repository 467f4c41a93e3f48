"""Tables: CSV, JSON lines and parquet, one dictionary per row. No cell is guessed."""

from __future__ import annotations

import codecs
import csv
import io
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalframer.errors import DataError
from crystalframer.reading.columns import check_names, is_number, parsed_json, row_id
from crystalframer.reading.entry import BEGINNING, Entry, Start
from crystalframer.reading.unpacking import LARGEST

if TYPE_CHECKING:
    import pandas
    import pyarrow.parquet

Row = dict[str, Any]
_LIMIT_OF_CSV = threading.Lock()
_FORMULA = re.compile("'*[=+@\\-\t\r\n\uff1d\uff0b\uff20\uff0d]")
"""What a formula begins with; the last four are wide forms of the first."""


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
    """Start, header and cells of each row that is not blank; in place of one that ends the file, the error.

    Commas, semicolons or tabs separate the cells, which are text.
    """
    with _in_utf8(path) as file:
        lines = (line.decode("utf-8-sig") for line in iter(file.readline, b""))
        here, header = start, []
        try:
            rows = _of_any_length(csv.reader(lines, delimiter=_delimiter(file), strict=True))
            header = [without_quote(name.strip()) for name in next(filter(None, rows), [])]
            check_names(filter(None, header))
            if isinstance(start.mark, int):
                file.seek(start.mark)
            here = Start(start.n_before, file.tell())
            for cells in rows:
                is_row = any(map(str.strip, cells))
                if is_row:
                    yield here, header, cells
                here = Start(here.n_before + is_row, file.tell())
        except (csv.Error, UnicodeDecodeError) as error:
            yield here, header, error


@contextmanager
def _in_utf8(path: Path) -> Iterator[io.BufferedIOBase]:
    """The bytes of a file; of one in UTF-16, as Excel saves "Unicode text", those of the same text in UTF-8."""
    with path.open("rb") as file:
        is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        file.seek(0)
        yield io.BytesIO(file.read().decode("utf-16").encode()) if is_utf16 else file


def _delimiter(file: io.BufferedIOBase) -> str:
    """What separates most names in the header. Excel may name it in a line before, which is passed over."""
    first = file.readline().decode("utf-8-sig")
    named = re.fullmatch(r'"?sep=(.)"?\s*', first)
    if named is not None:
        return named[1]
    file.seek(0)
    return max(",;\t", key=lambda delimiter: len(next(csv.reader([first], delimiter=delimiter), [])))


def _of_any_length(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    """The rows with cells as long as a large CIF. The limit of `csv` is that of the whole process: it is given back."""
    while True:
        with _LIMIT_OF_CSV:
            before = csv.field_size_limit(LARGEST)
            try:
                cells = next(rows, None)
            finally:
                csv.field_size_limit(before)
        if cells is None:
            return
        yield cells


def _read_csv(path: Path, start: Start) -> Iterator[Row | DataError]:
    for here, header, cells in _csv_rows(path, start):
        if isinstance(cells, UnicodeDecodeError):
            raise cells
        if isinstance(cells, Exception):
            raise DataError(f"not readable as CSV ({cells})", row=here.n_before + 1) from cells
        yield _named_cells(header, cells)


def _named_cells(header: list[str], cells: list[str]) -> Row | DataError:
    """A row. Its first column may have no name: that is the index of a pandas table."""
    if len(cells) < len(header) or any(map(str.strip, cells[len(header) :])):
        return DataError(f"does not have the {len(header)} cells that the header names")
    row = {}
    for column, (name, cell) in enumerate(zip(header, cells, strict=False)):
        if name or column == 0:
            row[name] = without_quote(cell)
        elif cell.strip():
            problem = f"column {column + 1} holds {cell.strip()[:60]!r}, but has no name; name it in the header"
            return DataError(problem, value=cell)
    return row


def all_cells(path: Path) -> list[list[str]]:
    """The cells of all rows of a CSV file that has no header.

    Raises:
        DataError: it is no CSV.
    """
    with _in_utf8(path) as file:
        lines = (line.decode("utf-8-sig") for line in iter(file.readline, b""))
        try:
            return list(filter(None, _of_any_length(csv.reader(lines, delimiter=_delimiter(file), strict=True))))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"not readable as CSV in UTF-8 ({error})", path=path) from error


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
            yield checked(parsed_json(line))
        except DataError as error:
            yield error
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
        check_names(file.schema_arrow.names)
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


def csv_text(table: pandas.DataFrame) -> str:
    """A table as CSV. A spreadsheet program shows its text, and computes none of it: text that would begin a formula
    gets a quote before it, which our reader takes off again.

    >>> import pandas
    >>> csv_text(pandas.DataFrame({"id": ["=1+1"], "gap": [-1.5]}))
    "id,gap\\n'=1+1,-1.5\\n"
    """
    of_text = table.select_dtypes(exclude=["number", "bool"])
    quoted = table.assign(**{str(name): cells.map(_with_quote) for name, cells in of_text.items()})
    # Python before 3.13 does not quote a carriage return by itself, at which other programs end a line.
    has_return = of_text.map(lambda cell: "\r" in str(cell)).to_numpy().any()
    quoting = csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL
    return quoted.rename(columns=_with_quote).to_csv(index=False, quoting=quoting)


def without_quote(cell: str) -> str:
    """Text of a cell as it was before `csv_text` wrote it."""
    return cell[1:] if cell.startswith("'") and _would_begin_formula(cell) else cell


def _with_quote(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and _would_begin_formula(cell) else cell


def _would_begin_formula(cell: str) -> bool:
    """Whether a spreadsheet program takes this for a formula, or would without the quotes before it. Not a number."""
    return _FORMULA.match(cell) is not None and not is_number(cell.lstrip("'"))


def _save_csv(table: pandas.DataFrame, path: Path) -> None:
    path.write_text(csv_text(table), encoding="utf-8", newline="")


CSV = Table(_read_csv, _starts_csv, save=_save_csv)
JSON_LINES = Table(_read_json_lines, _starts_json_lines, save=_save_json_lines)
PARQUET = Table(_read_parquet, _starts_parquet, _count_parquet, lambda table, path: table.to_parquet(path, index=False))
