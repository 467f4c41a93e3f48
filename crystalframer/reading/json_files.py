"""JSON files: one structure (a dictionary of pymatgen or JARVIS, or a row), or a table of rows.

A table is a list of objects, or an object of objects, whose keys become the column `id`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crystalframer.errors import DataError
from crystalframer.reading.entry import BEGINNING, Entry, Start
from crystalframer.reading.tables import checked, row_entries


def entries(path: Path, start: Start) -> Iterator[Entry]:
    tree = _tree(path)
    if _is_structure(tree):
        return iter([Entry(tree)])
    return row_entries(map(checked, _rows(tree)[start.n_before :]), start)


def starts(path: Path) -> Iterator[Start]:
    tree = _tree(path)
    return iter([BEGINNING]) if _is_structure(tree) else map(Start, range(len(_rows(tree))))


def count(path: Path) -> int | None:
    return None


def holds_structure(path: Path) -> bool:
    """Whether a file holds one structure, rather than a table (or nothing readable)."""
    try:
        return _is_structure(_tree(path))
    except (DataError, OSError, UnicodeDecodeError):
        return False


def _tree(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter of nested brackets
        raise DataError(f"not valid JSON ({error}); make it again") from error


def _is_structure(tree: Any) -> bool:
    return isinstance(tree, Mapping) and "lattice" in " ".join(tree)


def _rows(tree: Any) -> list[Any]:
    if isinstance(tree, Mapping) and all(isinstance(row, Mapping) for row in tree.values()):
        return [{"id": id, **row} for id, row in tree.items()]
    if not isinstance(tree, list):
        raise DataError("a table in JSON is a list of objects, one per row, or an object of them by id")
    return tree
