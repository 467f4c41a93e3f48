"""Tables: CSV, JSON lines and parquet, one dictionary per row. No cell is guessed."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalframer.errors import CrystalError, DataError
from crystalframer.reading.columns import check_names, is_number, parsed_json
from crystalframer.reading.entry import BEGINNING, Entry, Start
from crystalframer.reading.text import with_plain_lines
from crystalframer.reading.unpacking import LARGEST

if TYPE_CHECKING:
    import pandas
    import pyarrow.parquet

Row = dict[str, Any]
_DELIMITERS = ",;\t"
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
        yield Entry(cells, row=row)
    if row == 0:
        raise DataError("the table has no rows; was it cut short?")


def checked(cells: Any) -> Row | DataError:
    """A row as JSON gives it, if it has named cells."""
    if isinstance(cells, Mapping):
        return dict(cells)
    given = " ".join(str(cells).split())[:60]
    advice = 'give an object, {"id": ..., "structure": ...}; pandas writes them by to_json(orient="records")'
    return DataError(f"{given!r} has no names of columns; {advice}", value=cells)


def _csv_rows(path: Path, start: Start, delimiters: str) -> Iterator[tuple[Start, list[str], list[str] | Exception]]:
    """Start, header and cells of each row that is not blank; in place of one that ends the file, the error.

    One of the delimiters separates the cells, which are text.
    """
    with with_plain_lines(path) as plain, plain.open("rb") as file:
        lines = map(_line, iter(file.readline, b""))
        here, header = start, []
        try:
            rows = _of_any_length(csv.reader(lines, delimiter=_delimiter(file, delimiters), strict=True))
            header = [without_quote(name.strip()) for name in next(filter(None, rows), [])]
            check_names(filter(None, header))
            if len(header) == 1 and re.search(r"[\s|]", header[0]):
                problem = f"the first line is {header[0][:60]!r}, which names one column"
                raise csv.Error(f"{problem}; it must name all, with commas, semicolons or tabs between them")
            if isinstance(start.mark, int):
                file.seek(start.mark)
            here = Start(start.n_before, file.tell())
            for cells in rows:
                is_row = any(map(str.strip, cells))
                if is_row:
                    yield here, header, cells
                here = Start(here.n_before + is_row, file.tell())
        except csv.Error as error:
            yield here, header, error


def _line(line: bytes) -> str:
    """A line as text: UTF-8, or else Latin-1.

    Raises:
        csv.Error: it is no text.
    """
    if b"\0" in line:
        raise csv.Error("it holds bytes that are 0, so it is no text; save it as CSV (UTF-8), and unpack it before")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _delimiter(file: io.BufferedIOBase, delimiters: str) -> str:
    """What separates most names in the header. Excel may name it in a line before, which is passed over."""
    first = _line(file.readline())
    named = re.fullmatch(r'"?sep=(.)"?\s*', first)
    if named is not None:
        return named[1]
    file.seek(0)
    return max(delimiters, key=lambda delimiter: len(next(csv.reader([first], delimiter=delimiter), [])))


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


def _read_csv(path: Path, start: Start, delimiters: str) -> Iterator[Row | DataError]:
    for here, header, cells in _csv_rows(path, start, delimiters):
        if isinstance(cells, Exception):
            raise DataError(_reason(cells), row=here.n_before + 1) from cells
        yield _named_cells(header, cells)


def _named_cells(header: list[str], cells: list[str]) -> Row | DataError:
    """A row. Its first column may have no name: that is the index of a pandas table."""
    if len(cells) < len(header) or any(map(str.strip, cells[len(header) :])):
        n_cells = len(cells)
        advice = (
            "text with commas or line ends needs quotes around it" if n_cells > len(header) else "was it cut short?"
        )
        return DataError(f"has {n_cells} cells, but the header names {len(header)} columns; correct it ({advice})")
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
    try:
        with with_plain_lines(path) as plain, plain.open("rb") as file:
            rows = csv.reader(
                map(_line, iter(file.readline, b"")), delimiter=_delimiter(file, _DELIMITERS), strict=True
            )
            return list(filter(None, _of_any_length(rows)))
    except (csv.Error, CrystalError) as error:
        raise DataError(_reason(error), path=path) from error


def _reason(error: Exception) -> str:
    advice = {
        "unexpected end of data": "a quotation mark is not closed, or the file was cut short",
        "expected after": "text goes on behind a closing quotation mark; double the marks inside of text",
        "new-line character": "lines end in different ways; save it again as CSV (UTF-8)",
    }
    reason = next((advice[words] for words in advice if words in str(error)), str(error))
    return f"cannot be read as CSV: {reason}"


def _starts_csv(path: Path, delimiters: str) -> Iterator[Start]:
    return (start for start, _, _ in _csv_rows(path, BEGINNING, delimiters))


def _json_lines(path: Path, start: Start) -> Iterator[tuple[Start, bytes]]:
    n_rows = start.n_before
    with with_plain_lines(path) as plain, plain.open("rb") as file:
        offset = file.seek(start.mark if isinstance(start.mark, int) else 0)
        for line in file:
            if line.strip():
                yield Start(n_rows, offset), line
                n_rows += 1
            offset += len(line)


def _read_json_lines(path: Path, start: Start) -> Iterator[Row | DataError]:
    for _, line in _json_lines(path, start):
        try:
            yield checked(parsed_json(_line(line)))
        except DataError as error:
            yield error
        except (ValueError, RecursionError, csv.Error) as error:  # the second of nested brackets
            advice = "each line must hold one object; JSON over several lines needs the suffix .json"
            yield DataError(f"not valid JSON ({error}); {advice}")


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


def csv_text(table: pandas.DataFrame | Mapping[str, Sequence[Any]], delimiter: str = ",") -> str:
    """A table as CSV. A spreadsheet program shows its text, and computes none of it: text that would begin a formula
    gets a quote before it, which our reader takes off again.

    >>> import pandas
    >>> csv_text(pandas.DataFrame({"id": ["=1+1"], "gap": [-1.5]}))
    "id,gap\\n'=1+1,-1.5\\n"
    """
    columns = [[_cell(value) for value in np.asarray(values, dtype=_type_of(values))] for _, values in table.items()]
    # Python before 3.13 does not quote a carriage return by itself, at which other programs end a line.
    has_return = any(isinstance(cell, str) and "\r" in cell for column in columns for cell in column)
    text = io.StringIO()
    quoting = csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator="\n")
    writer.writerow([_with_quote(str(name)) for name, _ in table.items()])
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


def _type_of(values: Any) -> Any:
    """Numbers keep their type, by which they are written with few digits; all else are objects."""
    kind = getattr(values, "dtype", None)
    return kind if isinstance(kind, np.dtype) and kind.kind in "iufb" else object


def _cell(value: Any) -> Any:
    """A number, or text; none of NaN and the like."""
    if isinstance(value, str):
        return _with_quote(value)
    return "" if value is None or str(value) in ("nan", "<NA>", "NaT") else value


def without_quote(cell: str) -> str:
    """Text of a cell as it was before `csv_text` wrote it."""
    return cell[1:] if cell.startswith("'") and _would_begin_formula(cell) else cell


def _with_quote(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and _would_begin_formula(cell) else cell


def _would_begin_formula(cell: str) -> bool:
    """Whether a spreadsheet program takes this for a formula, or would without the quotes before it. Not a number."""
    return _FORMULA.match(cell) is not None and not is_number(cell.lstrip("'"))


def _separated(delimiters: str) -> Table:
    """Tables whose cells are separated by one of these, and written with the first."""

    def save(table: pandas.DataFrame, path: Path) -> None:
        path.write_text(csv_text(table, delimiters[0]), encoding="utf-8", newline="")

    read, starts = partial(_read_csv, delimiters=delimiters), partial(_starts_csv, delimiters=delimiters)
    return Table(read, starts, save=save)


CSV = _separated(_DELIMITERS)
TSV = _separated("\t")
JSON_LINES = Table(_read_json_lines, _starts_json_lines, save=_save_json_lines)
PARQUET = Table(_read_parquet, _starts_parquet, _count_parquet, lambda table, path: table.to_parquet(path, index=False))
