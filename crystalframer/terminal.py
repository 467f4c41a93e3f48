"""Predictions as a table that fits the terminal. Needs no torch.

Numbers have as many digits as their interval has meaning for: two digits of its half width. Names too long are
shortened in the middle, targets that do not fit go below, and words about single crystals stand under the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING

from crystalframer.notes import Quantity
from crystalframer.outcomes import FLAGS

if TYPE_CHECKING:
    import pandas
    from rich.console import Console
    from rich.table import Table

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


def print_predictions(
    frame: pandas.DataFrame, console: Console, coverage: float | None = None, rest: str = "--output TABLE writes them"
) -> None:
    """Print predictions in the width of the console.

    Args:
        frame: a table of `predict`, whose `attrs["units"]` names the targets.
        console: where to print.
        coverage: share of true values that intervals contain; None: not known.
        rest: how to get what is left out.
    """
    from rich.text import Text

    positions = _shown_rows(len(frame))
    shown = frame.iloc[[n for n in positions if n is not None]]
    marks, notes = _marks(shown)
    units = frame.attrs["units"]
    ends = {f"{name}{end}" for name in units for end in ("_low", "_high")}
    targets = [_target(shown, name, unit) for name, unit in units.items() if name not in ends]
    names = [Column("formula", [shortened(formula, LONGEST_FORMULA) for formula in shown["formula"].astype(str)])]
    names += [Column("", marks)] if any(marks) else []
    left = console.width - sum(column.width + _GAP for column in (*names, *targets))
    # Ids shrink so that all targets fit beside them, if enough of each id stays.
    most = left if left >= SHORTEST_ID else max(SHORTEST_ID, console.width // 3)
    first = [Column("id", [shortened(printable(id), most) for id in shown["id"].astype(str)]), *names]
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
    if len(shown) < len(frame):
        console.print(Text(f"{len(frame) - len(shown):,} of {len(frame):,} rows are left out; {rest}", style="dim"))
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


def _marks(frame: pandas.DataFrame) -> tuple[list[str], list[tuple[str, str]]]:
    """The mark of each row, and the words of each mark. Equal words share a mark."""
    letters: dict[str, str] = {}
    marks = []
    flags = [(title, frame[column].tolist()) for column, title in FLAGS.items() if column in frame]
    said = [
        "; ".join(f"{title}: {words[row]}" for title, words in flags if isinstance(words[row], str))
        for row in range(len(frame))
    ]
    failed = frame["error"].notna() if "error" in frame else [False] * len(frame)
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


def _target(frame: pandas.DataFrame, name: str, unit: str) -> Column:
    title = printable(name.replace("_", " ")) + (f"\n{unit}" if unit else "")
    if frame[name].dtype.kind != "f":  # the likeliest of several classes
        return Column(title, list(_classes(frame, name)))
    ends = (f"{name}_low", f"{name}_high")
    low, high = (frame[end].tolist() if end in frame else None for end in ends)
    cells, symmetric = quantities(frame[name].tolist(), low, high)
    return Column(title, cells, low is not None, symmetric)


def _classes(frame: pandas.DataFrame, name: str) -> Iterator[str]:
    """The likeliest class of each row, with its probability."""
    for row in frame.to_dict("records"):
        found = row[name]
        yield "–" if not isinstance(found, str) else f"{printable(found)} ({row[f'{name}_{found}']:.0%})"


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


def _table(columns: list[Column], positions: list[int | None], width: int) -> Table:
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
