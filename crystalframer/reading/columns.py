"""Columns and cells of a table of crystals."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crystalframer.errors import DataError

_ID_WORDS = (
    *("id", "materialid", "jid", "mbid", "matbenchid", "mpid", "cifid", "structureid", "crystalid", "entryid"),
    *("sampleid", "compoundid", "recordid", "matid", "uniqueid", "qmofid", "oqmdentryid"),
    *("jarvisid", "oqmdid", "aflowid", "auid", "nomadid", "taskid", "refcode", "csdrefcode"),
    *("icsdid", "icsd", "icsdcode", "icsdnumber", "icsdcollectioncode", "collectioncode"),
    *("codid", "cod", "coddatabasecode", "identifier", "uid", "uuid"),
)
_FILE_WORDS = tuple(
    kind + ending for kind in ("", "cif", "poscar", "structure") for ending in ("filename", "file", "path", "filepath")
)
_NAME_WORDS = ("name", "materialname", "structurename", *_FILE_WORDS)
"""Words for what often, but not always, tells crystals apart."""
_ORDER = {word: place for place, word in enumerate((*_ID_WORDS, *_NAME_WORDS))}
STRUCTURE_COLUMNS = ("atomic_numbers", "positions", "frac_coords", "lattice")
_CONTENT_WORDS = ("structure", "atoms", "cif", "poscar")
"""Words for columns whose cells are structures, or paths of their files."""
_DERIVED_WORDS = (
    *("natoms", "nsites", "nelements", "numatoms", "numsites", "numelements"),
    *("numberofatoms", "numberofsites", "numberofelements", "volume", "density", "densityatomic"),
    *("spacegroup", "spacegroupnumber", "spgnumber", "spg"),
)
"""Words for numbers that describe the structure."""
_OTHER_COLUMNS = ("formula", "split")
_INDEX_COLUMN = re.compile(
    r"|index|idx|row|row_?(id|num|number)|#|level_\d+|__index_level_\d+__|unnamed: ?\d+(\.\d+)*(_level_\d+)?",
    re.IGNORECASE,
)
"""The numbers of the rows, as pandas writes them when it is not told otherwise."""
_MISSING = ("", "nan", "na", "n/a", "null", "none", "<na>", "#n/a", "#na")
_MISSING_TYPES = ("NAType", "NaTType")
"""Of pandas, which need not be loaded."""
_MEANT_AS_NUMBER = re.compile(
    r"[+\-\u2212]?(\d*,\d+|\d{1,3}([.,' \u2019\u00a0\u202f]\d{3})+([.,]\d+)?|\d+(\.\d*)?)([eE][+\-\u2212]?\d+)?"
)
"""A decimal comma, something between thousands, or another sign for minus."""


def is_missing(cell: Any) -> bool:
    """Empty, null, NaN, or text that says so."""
    if isinstance(cell, str):
        return cell.strip().lower() in _MISSING
    if isinstance(cell, (float, np.floating)):
        return bool(np.isnan(cell))
    return cell is None or type(cell).__name__ in _MISSING_TYPES


@functools.lru_cache(maxsize=1024)
def word(name: str) -> str:
    """`Material ID`, `material-id` and `materialId` are one word."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def id_columns(names: Iterable[str]) -> tuple[str, ...]:
    """The columns that may hold an id, the best first. Case, spaces, hyphens and underscores do not matter.

    The index of a pandas table comes last.

    >>> id_columns(["y", "Unnamed: 0", "name", "MP-ID"])
    ('MP-ID', 'name', 'Unnamed: 0')
    """
    return _id_columns(tuple(names))


def file_column(names: Iterable[str]) -> str | None:
    """The column that names files, if there is one."""
    return next((name for name in names if names_files(name)), None)


def names_files(column: str) -> bool:
    return word(column) in _FILE_WORDS


def holds_structures(column: str) -> bool:
    """Whether a column is called as one of structures: `structure`, `CIF`, ..."""
    return word(column) in _CONTENT_WORDS


def has_id(names: Iterable[str]) -> bool:
    """Whether a column is called an id, which is more than a name."""
    return any(word(name) in _ID_WORDS for name in names)


def row_id(row: Mapping[str, Any]) -> str:
    """The first id of a row that is filled; empty if there is none."""
    return next(filter(None, (id_in(name, row[name]) for name in id_columns(row))), "")


def to_id(cell: Any) -> str:
    """An id as text, empty if it is missing.

    >>> [to_id(cell) for cell in ("mp-1", 17.0, "NA", "Na")]
    ['mp-1', '17', '', 'Na']
    """
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", errors="replace")
    if isinstance(cell, str):
        return "" if is_missing(cell) and cell.strip() != "Na" else cell.strip()  # sodium is not missing
    if is_missing(cell) or isinstance(cell, Collection):
        return ""
    # Whole numbers beside a missing one are floats in pandas.
    return str(int(cell)) if isinstance(cell, (float, np.floating)) and float(cell).is_integer() else str(cell)


def id_in(column: str, cell: Any) -> str:
    """The id in a column, empty if there is none. A number in an index is only that of the row."""
    return "" if _is_index(column) and is_number(cell) else to_id(cell)


def id_column(names: Iterable[str]) -> str | None:
    """The column that gives the ids: the best of `id_columns` that is no index."""
    return next((name for name in id_columns(names) if not _is_index(name)), None)


def is_name(column: str) -> bool:
    """Whether a column is called a name, which often, but not always, tells crystals apart."""
    return word(column) in _NAME_WORDS


def is_label_column(name: str) -> bool:
    """Whether a column may be a target that nobody asked for: it is no id, structure, description of one, or index."""
    known = name in STRUCTURE_COLUMNS or name in _OTHER_COLUMNS or _is_index(name)
    return not known and word(name) not in (*_ORDER, *_DERIVED_WORDS, *_CONTENT_WORDS)


def with_id_column(source: str, column: str | None) -> str:
    """Where a data set comes from, and which column gave the ids if its name does not say so."""
    return source if column in (None, "id") else f"{source} (ids: column {column!r})"


def check_names(names: Iterable[str], what: str = "columns") -> None:
    """Refuse a table in which two columns have the same name.

    Args:
        what: what is named, for the message.

    Raises:
        DataError: it is named.
    """
    for name, n_columns in Counter(names).items():
        if n_columns > 1:
            problem = f"has {n_columns} {what} called {name!r}; rename them, or remove all but one"
            raise DataError(problem, field=str(name))


def parsed_json(text: str | bytes, **options: Any) -> Any:
    """JSON in which no object has two values of one name. Options are those of `json.loads`.

    Raises:
        DataError: an object has.
        ValueError: no JSON.
        RecursionError: brackets within brackets.
    """
    return json.loads(text, object_pairs_hook=_object, **options)


def is_number(cell: Any) -> bool:
    """Whether a cell holds a number, of which there is no doubt."""
    if isinstance(cell, (bool, np.bool_)) or (isinstance(cell, str) and "_" in cell):  # Python reads 1_0 as 10
        return False
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def is_meant_as_number(cell: Any) -> bool:
    """Whether a cell holds a number, or text that others may read as one: `1,5`, `1 000`, `−1`."""
    return is_number(cell) or (isinstance(cell, str) and _MEANT_AS_NUMBER.fullmatch(cell.strip()) is not None)


def to_label(cell: Any, name: str, *, path: Path | str | None = None, row: int | None = None) -> float:
    """A label, NaN if missing.

    Args:
        name: name of the label, for messages; so are the path of the table and the row.

    Raises:
        DataError: the cell is text, true or false, or infinite.
    """
    if is_missing(cell):
        return float("nan")
    value = float(cell) if is_number(cell) else float("inf")
    if not np.isfinite(value):
        rule = "a label must be a finite number, or empty if it is missing"
        if isinstance(cell, str) and is_meant_as_number(cell) and not is_number(cell):
            rule = "write numbers as 1234.5: a decimal point, and nothing between thousands"
        raise DataError(f"{name} is {str(cell)[:60]!r}; {rule}", path=path, row=row, field=name, value=cell)
    return value


@functools.lru_cache(maxsize=64)
def _id_columns(names: tuple[str, ...]) -> tuple[str, ...]:
    found = [name for name in names if word(name) in _ORDER]
    found.sort(key=lambda name: (_ORDER[word(name)], name.lower() != name))
    return (*found, *filter(_is_index, names))


def _is_index(name: str) -> bool:
    return _INDEX_COLUMN.fullmatch(str(name).strip()) is not None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        check_names((name for name, _ in pairs), "entries")
    return tree
