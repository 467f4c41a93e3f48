"""JSON files: one structure, or a table of rows.

One structure is a dictionary that `objects.to_crystal` takes (of pymatgen, JARVIS, OPTIMADE or ASE, or a row). A table
is a list of these, an object of them by id, the answer of an OPTIMADE server, or a file of several structures of ASE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crystalframer.errors import CrystalFramerError, DataError
from crystalframer.reading.columns import parsed_json
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
        return [{"id": id, **row} for id, row in tree.items()]
    if not isinstance(tree, list):
        raise DataError("a table in JSON is a list of objects, one per row, or an object of them by id")
    return tree
