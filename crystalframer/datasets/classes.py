"""Labels that are classes: `metal`, true or false, 0 or 1. A data set holds the number of each class, and its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from crystalframer.config import Target
from crystalframer.errors import DataError, suggestion
from crystalframer.reading.columns import is_missing, is_number

MOST_CLASSES = 100
"""More are a slip of the pen: a column of ids or of measured numbers."""
TRUTHS = ("false", "true")
"""The classes of a column of truth values."""


def class_name(cell: Any, name: str, *, path: Path | str | None = None, row: int | None = None) -> str | None:
    """The class that a cell names, None if it is missing. True and false, as text or not, are `true` and `false`; whole
    numbers are their digits.

    >>> [class_name(cell, "phase") for cell in (True, "FALSE", 2.0, " cubic ", "")]
    ['true', 'false', '2', 'cubic', None]

    Args:
        name: name of the label, for messages; so are the path of the table and the row.

    Raises:
        DataError: the cell is a number that is not whole, or no text.
    """
    if is_missing(cell):
        return None
    if isinstance(cell, (bool, np.bool_)):
        return str(bool(cell)).lower()
    if is_number(cell):
        if float(cell).is_integer():
            return str(int(float(cell)))
    elif isinstance(cell, str):
        return cell.strip().lower() if is_truth(cell) else cell.strip()
    rule = "a class is text, true or false, or a whole number, and empty if it is missing"
    raise DataError(f"{name} is {str(cell)[:60]!r}; {rule}", path=path, row=row, field=name, value=cell)


def is_truth(cell: Any) -> bool:
    """Whether a cell is true or false."""
    return isinstance(cell, (bool, np.bool_)) or (isinstance(cell, str) and cell.strip().lower() in TRUTHS)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Different classes in their order: whole numbers by value, others by alphabet.

    >>> ordered(["10", "9", "9"]), ordered(["true", "false"])
    (('9', '10'), ('false', 'true'))
    """
    found = sorted(set(names))
    return tuple(sorted(found, key=int) if all(map(_is_whole, found)) else found)


def numbered(
    names: Sequence[str | None], target: Target, path: Path | str | None = None
) -> tuple[Target, Float[np.ndarray, " n"]]:
    """A target of classes with their names, those that were found if it names none; and the number of each label's
    class, NaN where it is missing. Of two classes with other names, false is the first one and true the second.

    Raises:
        DataError: a label is none of the classes that the target names, or there are more than `MOST_CLASSES`.
    """
    present = [name for name in names if name is not None]
    classes = target.classes or ordered(present)
    if len(classes) > MOST_CLASSES:
        problem = f"{target.name} has {len(classes):,} different labels; {MOST_CLASSES} classes are the most"
        raise DataError(f"{problem}. Is it a number, or a name?", path=path, field=target.name)
    number = {name: float(n) for n, name in enumerate(classes)}
    if len(classes) == len(TRUTHS) and not set(TRUTHS) & set(classes):
        number |= {truth: float(n) for n, truth in enumerate(TRUTHS)}
    for row, name in enumerate(names, start=1):
        if name is not None and name not in number:
            problem = f"{target.name} is {name!r}, which is none of its classes ({', '.join(classes)})"
            raise DataError(problem + suggestion(name, classes), path=path, row=row, field=target.name, value=name)
    codes = np.array([np.nan if name is None else number[name] for name in names], dtype=np.float64)
    return replace(target, kind="class", classes=classes), codes


def named(codes: Float[np.ndarray, " n"], target: Target) -> list[str | None]:
    """The inverse of `numbered`; of a target without classes, its whole numbers become classes.

    Raises:
        DataError: a number is not whole.
    """
    if target.classes:
        return [None if np.isnan(code) else target.classes[int(code)] for code in codes.tolist()]
    return [class_name(code, target.name, row=row) for row, code in enumerate(codes.tolist(), start=1)]


def counts(codes: Float[np.ndarray, " n"], classes: Sequence[str]) -> Mapping[str, int]:
    """How many labels each class has."""
    found = np.bincount(codes[~np.isnan(codes)].astype(np.int64), minlength=len(classes))
    return dict(zip(classes, found.tolist(), strict=True))


def _is_whole(text: str) -> bool:
    return text.lstrip("-").isdecimal()
