"""JSON files: one structure, or a table of rows.

One structure is a dictionary that `objects.to_crystal` takes (of pymatgen, JARVIS, OPTIMADE or ASE, or a row). A table
is a list of these, an object of them by id, the answer of an OPTIMADE server, a file of several structures of ASE, or a
table as pandas writes it (`DataFrame.to_json`, with any `orient` that has the names of columns).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from crystalframer.errors import CrystalFramerError, DataError
from crystalframer.reading.columns import STRUCTURE_COLUMNS, check_names, holds_structures, names_files, parsed_json
from crystalframer.reading.databases import ase_row
from crystalframer.reading.encoded import plain_array
from crystalframer.reading.entry import BEGINNING, Entry, Start
from crystalframer.reading.tables import checked, row_entries
from crystalframer.reading.text import text_of

_OF_A_STRUCTURE = ("structure", "atoms", "atoms_json", "attributes", "sites", "numbers", "species_at_sites")


def entries(path: Path, start: Start) -> Iterator[Entry]:
    tree = _tree(path)
    if _is_one(tree):
        return iter([Entry(tree)])
    return row_entries(map(checked, _rows(tree)[start.n_before :]), start)


def starts(path: Path) -> Iterator[Start]:
    tree = _tree(path)
    return iter([BEGINNING]) if _is_one(tree) else map(Start, range(len(_rows(tree))))


def count(path: Path) -> int | None:
    return None


def holds_structure(path: Path) -> bool:
    """Whether a file holds one structure, rather than a table (or nothing readable)."""
    try:
        return _is_structure(_tree(path))
    except (CrystalFramerError, OSError):
        return False


def _tree(path: Path) -> Any:
    """The content, without what ASE or OPTIMADE put around it."""
    text = text_of(path)
    constants: list[str] = []
    try:
        tree = parsed_json(text, parse_constant=lambda word: constants.append(word) or float(word))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:  # the latter of nested brackets
        raise DataError(f"not valid JSON ({error}); make it again") from error
    tree = _content(tree, path.stem)
    if constants and _is_one(tree):  # in a table, it is a missing label, or an error of its row
        raise DataError(f"{constants[0]} is no number in JSON; correct it", value=constants[0])
    return tree


def _content(tree: Any, name: str) -> Any:
    if isinstance(tree, Mapping) and (rows := _rows_of_pandas(tree)) is not None:
        return rows
    if not isinstance(tree, Mapping) or _is_one(tree):
        return tree
    if "ids" in tree and "nextid" in tree:
        rows = [ase_row(tree[str(id)], f"{name}-{id}") for id in plain_array(tree["ids"]) if str(id) in tree]
        return rows[0] if len(rows) == 1 else rows
    return tree["data"] if isinstance(tree.get("data"), (list, Mapping)) else tree


def _is_structure(tree: Any) -> bool:
    return isinstance(tree, Mapping) and ("lattice" in " ".join(tree) or any(name in tree for name in _OF_A_STRUCTURE))


def _is_one(tree: Any) -> bool:
    """Whether this is one thing, a structure or another object of pymatgen, rather than a table."""
    return _is_structure(tree) or (isinstance(tree, Mapping) and "@class" in tree)


def _rows(tree: Any) -> list[Any]:
    if isinstance(tree, Mapping) and all(isinstance(row, Mapping) for row in tree.values()):
        return _with_ids(tree, list(tree.values()))
    if not isinstance(tree, list):
        rule = 'a table is a list of objects, one for each row: [{"id": ..., "structure": ...}, ...]'
        raise DataError(f"holds neither a structure nor a table; {rule}")
    return tree


def _rows_of_pandas(tree: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of a table that is written as its columns, or apart from their names; None if it is none.

    Raises:
        DataError: columns of different lengths.
    """
    names, cells = tree.get("columns"), tree.get("data")
    if isinstance(names, list) and isinstance(cells, list):
        check_names(names)
        if not all(isinstance(row, list) and len(row) == len(names) for row in cells):
            raise DataError(
                f"has rows in data that have not one cell for each of the {len(names)} columns", field="data"
            )
        rows = [dict(zip(map(str, names), row, strict=True)) for row in cells]
        return _with_ids(map(str, tree.get("index") or range(len(rows))), rows)
    found = [_labels(name, column) for name, column in tree.items()]
    labels = [column for column in found if column is not None]
    has_structures = any(holds_structures(name) or names_files(name) or name == "atomic_numbers" for name in tree)
    if not has_structures or len(labels) < len(tree):
        return None
    if any(others != labels[0] for others in labels):
        raise DataError("its columns do not have the same rows; write the table again, or one object for each row")
    rows = [{name: column[label] for name, column in tree.items()} for label in labels[0]]
    return _with_ids(map(str, labels[0]), rows)


def _labels(name: str, column: Any) -> list[Any] | None:
    """The labels of the rows of a column; None if this is none, but an entry of one structure."""
    if isinstance(column, Mapping):
        return None if _is_one(column) or "__ndarray__" in column else list(column)
    is_column = isinstance(column, list) and name not in STRUCTURE_COLUMNS
    return list(range(len(column))) if is_column else None


def _with_ids(labels: Iterable[str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with their labels as ids, unless these only number them."""
    labels = list(labels)
    if labels == [str(number) for number in range(len(rows))]:
        return rows
    return [{"id": label, **row} for label, row in zip(labels, rows, strict=True)]
