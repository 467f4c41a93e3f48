"""Predictions as a table that fits the terminal. Needs no torch.

Numbers have as many digits as their interval has meaning for: two digits of its half width. Names too long are
shortened in the middle, targets that do not fit go below, and words about single crystals stand under the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from crystalframer.notes import Quantity
from crystalframer.outcomes import FLAGS, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

MOST_ROWS, HEAD, TAIL = 50, 20, 10
"""A table with more rows shows its head and its tail."""
MOST_NOTES = 12
"""Notes under a table."""
LONGEST_FORMULA = 24
SHORTEST_ID = 14
"""Letters of an id that stay at least."""
FAILED = "!"
"""Mark of a row without a prediction."""
UNKNOWN = "[?]"
"""In place of an interval that is not known, where others are."""
_GAP = 2
"""Letters between columns."""


def plain_table(columns: Mapping[str, Sequence[Any]]) -> str:
    """Columns with their names as text, a line for each row, aligned to the right.

    >>> print(plain_table({"id": ["salt"], "band_gap": [8.25]}))
      id  band_gap
    salt      8.25
    """
    texts = [[name, *map(_plain, values)] for name, values in columns.items()]
    widths = [max(map(len, column)) for column in texts]
    rows = zip(*texts, strict=True)
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _plain(value: Any) -> str:
    """A cell on one line."""
    if isinstance(value, float):
        return "none" if math.isnan(value) else f"{value:.6g}"
    return "none" if value is None else str(value).translate(_ESCAPES)


_ESCAPES = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})


def print_predictions(
    table: Table, console: Console, coverage: float | None = None, rest: str = "--output TABLE writes them"
) -> None:
    """Print predictions in the width of the console.

    Args:
        table: a table of predictions.
        console: where to print.
        coverage: share of true values that intervals contain; None: not known.
        rest: how to get what is left out.
    """
    from rich.text import Text

    positions = _shown_rows(len(table))
    shown = table.rows([n for n in positions if n is not None])
    marks, notes = _marks(shown)
    units = table.units
    ends = {f"{name}{end}" for name in units for end in ("_low", "_high")}
    targets = [_target(shown, name, unit) for name, unit in units.items() if name not in ends]
    names = [Column("formula", [shortened(str(formula), LONGEST_FORMULA) for formula in shown["formula"]])]
    names += [Column("", marks)] if any(marks) else []
    left = console.width - sum(column.width + _GAP for column in (*names, *targets))
    # Ids shrink so that all targets fit beside them, if enough of each id stays.
    most = left if left >= SHORTEST_ID else max(SHORTEST_ID, console.width // 3)
    first = [Column("id", [shortened(printable(str(id)), most) for id in shown["id"]]), *names]
    for block, columns in enumerate(_blocks(first, targets, console.width)):
        if block:
            console.print()
        console.print(_table(columns, positions, console.width))
    if any(column.has_interval for column in targets):
        share = "" if coverage is None else f"{coverage:.0%} "
        signs = "±" if all(column.is_symmetric for column in targets if column.has_interval) else "[lowest, highest]"
        console.print(Text(f"{signs}: {share}prediction interval", style="dim"))
    if any(UNKNOWN in cell for column in targets for cell in column.cells):
        words = f"{UNKNOWN}: no similar training crystal has a label, so nobody knows how far off the prediction is"
        console.print(Text(words, style="dim"))
    if len(shown) < len(table):
        console.print(Text(f"{len(table) - len(shown):,} of {len(table):,} rows are left out; {rest}", style="dim"))
    for mark, words in notes:
        console.print(Text(f"{mark}  {words}", style="yellow"), soft_wrap=False)


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    title: str
    """Words and, in a second line, the unit."""
    cells: Sequence[str]
    has_interval: bool = False
    is_symmetric: bool = False

    @property
    def width(self) -> int:
        """Letters that it needs: titles may break between words, cells may not."""
        return max(map(len, (*self.cells, *self.title.split())), default=0)


def quantities(
    values: Sequence[float], low: Sequence[float] | None, high: Sequence[float] | None
) -> tuple[list[str], bool]:
    """Numbers with their intervals, aligned at the decimal point, and whether all intervals are symmetric.

    >>> quantities([-1.2341, 0.5], [-1.2905, 0.45], [-1.1777, 0.55])[0]
    ['-1.234 ± 0.056', ' 0.500 ± 0.050']
    >>> quantities([1.234], [1.02], [1.51])
    (['1.23 [1.02, 1.51]'], False)

    Args:
        values: NaN where there is no prediction.
        low, high: ends of the intervals; None: there are none.
    """
    rows = [Quantity.of(*row) for row in zip(values, low or values, high or values, strict=True)]
    known = [row for row in rows if row.low]
    symmetric = bool(known) and all(row.below == row.above for row in known)
    whole = max((len(row.value.partition(".")[0]) for row in rows), default=0)
    aligned = [" " * (whole - len(row.value.partition(".")[0])) + row.value for row in rows]
    width = max(map(len, aligned), default=0)
    cells = []
    for row, value, number in zip(rows, aligned, values, strict=True):
        interval = f" ± {row.below}" if symmetric else f" [{row.low}, {row.high}]"
        if not row.low:
            interval = f" {UNKNOWN}" if known and math.isfinite(number) else ""
        cells.append((value.ljust(width) + interval if interval else value).rstrip())
    return cells, symmetric


def shortened(words: str, width: int) -> str:
    """Words of at most this many letters, with three dots in place of the middle.

    >>> shortened("mp-123456-relaxed", 9)
    'mp-…axed'
    """
    if len(words) <= width:
        return words
    end = (width - 1) // 2
    return f"{words[: width - 1 - end]}…{words[len(words) - end :]}"


def printable(words: str) -> str:
    """Words without control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else "�" for letter in words)


def _shown_rows(n_rows: int) -> list[int | None]:
    """Positions of the rows to show; None stands for those left out."""
    if n_rows <= MOST_ROWS:
        return [*range(n_rows)]
    return [*range(HEAD), None, *range(n_rows - TAIL, n_rows)]


def _marks(table: Table) -> tuple[list[str], list[tuple[str, str]]]:
    """The mark of each row, and the words of each mark. Equal words share a mark."""
    letters: dict[str, str] = {}
    marks = []
    flags = [(title, table[column]) for column, title in FLAGS.items() if column in table]
    said = [
        "; ".join(f"{title}: {words[row]}" for title, words in flags if isinstance(words[row], str))
        for row in range(len(table))
    ]
    failed = [isinstance(error, str) for error in table["error"]] if "error" in table else [False] * len(table)
    for is_failed, words in zip(failed, said, strict=True):
        if is_failed:
            marks.append(FAILED)
        else:
            marks.append(letters.setdefault(words, _letter(len(letters))) if words else "")
    notes = [(mark, printable(words)) for words, mark in letters.items()]
    if len(notes) > MOST_NOTES:
        left = f"{len(notes) - MOST_NOTES + 1} more notes are in the columns {' and '.join(FLAGS)} of the table"
        notes = [*notes[: MOST_NOTES - 1], ("", left)]
    return marks, notes + ([(FAILED, "no prediction")] if FAILED in marks else [])


def _letter(number: int) -> str:
    """`a` to `z`, then `aa`, `ab`, ..."""
    above = _letter(number // len(ascii_lowercase) - 1) if number >= len(ascii_lowercase) else ""
    return above + ascii_lowercase[number % len(ascii_lowercase)]


def _target(table: Table, name: str, unit: str) -> Column:
    title = printable(name.replace("_", " ")) + (f"\n{unit}" if unit else "")
    values = table[name]
    if f"{name}_low" not in table and any(not isinstance(value, float) for value in values):
        return Column(title, list(_classes(table, name)))  # the likeliest of several
    if f"{name}_low" not in table:
        return Column(title, quantities(values, None, None)[0])
    cells, symmetric = quantities(values, table[f"{name}_low"], table[f"{name}_high"])
    return Column(title, cells, True, symmetric)


def _classes(table: Table, name: str) -> Iterator[str]:
    """The likeliest class of each row, with its probability."""
    for row, found in enumerate(table[name]):
        yield "–" if not isinstance(found, str) else f"{printable(found)} ({table[f'{name}_{found}'][row]:.0%})"


def _blocks(first: list[Column], targets: list[Column], width: int) -> Iterator[list[Column]]:
    """Columns of each table: the first ones, and as many targets as fit; at least one."""
    taken = sum(column.width + _GAP for column in first)
    block: list[Column] = []
    for column in targets:
        if block and taken + sum(each.width + _GAP for each in (*block, column)) - _GAP > width:
            yield [*first, *block]
            block = []
        block.append(column)
    yield [*first, *block]


def _widths(columns: list[Column], width: int) -> list[int | None]:
    """The width of each column: as its cells need, and more for titles in one line if there is room.

    None: the window is too narrow, and lines are broken wherever it must be.
    """
    spare = width - sum(column.width + _GAP for column in columns) + _GAP
    if spare < 0:
        return [None] * len(columns)
    widths: list[int | None] = []
    for column in columns:
        more = max(min(max(map(len, column.title.split("\n"))) - column.width, spare), 0)
        widths.append(column.width + more)
        spare -= more
    return widths


def _table(columns: list[Column], positions: list[int | None], width: int) -> RichTable:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP // 2, 0, 0))
    for column, letters in zip(columns, _widths(columns, width), strict=True):
        table.add_column(Text(column.title), width=letters, overflow="fold")
    rows: Iterator[tuple[str, ...]] = zip(*(column.cells for column in columns), strict=True)
    for position in positions:
        cells = ("⋮", *[""] * (len(columns) - 1)) if position is None else next(rows)
        table.add_row(*(Text(cell) for cell in cells))
    return table
