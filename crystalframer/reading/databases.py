"""Databases of structures: ASE's (SQLite) and LMDB, as rows with the structure in `atoms` and labels beside it.

In an LMDB, values are JSON, plain or compressed by zlib: rows of ASE (`.aselmdb`, as fairchem publishes its data) or
objects that a table could have as rows. Values that are pickled are refused: unpickling runs what is in them.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from crystalframer.errors import DataError, is_of_machine
from crystalframer.libraries import reason, require
from crystalframer.reading.columns import has_id
from crystalframer.reading.entry import Start
from crystalframer.reading.tables import Table
from crystalframer.reading.unpacking import inflated

_ABOUT_THE_FILE = {b"nextid", b"deleted_ids", b"metadata", b"length"}
"""Keys of an LMDB that are no entries."""
_PAGE = 256
"""Rows of an ASE database read at a time."""


def _starts_ase(path: Path) -> Iterator[Start]:
    try:
        for row, id in enumerate(_ids(path)):
            yield Start(row, id)
    except sqlite3.Error as error:
        raise DataError(f"not an ASE database ({error}); copy or make it again") from error


def _ids(path: Path, first: int = 0, n_ids: int = -1) -> Iterator[int]:
    """Of the entries of an ASE database; `n_ids` -1: of all."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        question = "SELECT id FROM systems WHERE id >= ? ORDER BY id LIMIT ?"
        yield from (id for (id,) in connection.execute(question, (first, n_ids)))


def _read_ase(path: Path, start: Start) -> Iterator[dict[str, Any] | DataError]:
    ase_db = require("ase.db", "reading an ASE database", "data", DataError)
    next_id = start.mark if isinstance(start.mark, int) else 0
    try:
        database = ase_db.connect(str(path), type="db")
        while page := _page(database, path, next_id):
            for id, read_entry in page:
                try:
                    entry = read_entry()
                    found = _cells(entry.key_value_pairs, f"{path.stem}-{id}", entry.toatoms())
                except Exception as error:  # of a damaged entry ASE raises what it likes
                    found = DataError(f"the entry with id {id} cannot be read ({reason(error)})")
                    found.of_machine = is_of_machine(error)
                yield found
            next_id = page[-1][0] + 1
    except sqlite3.Error as error:
        raise DataError(f"not an ASE database ({error}); copy or make it again") from error


def _page(database: Any, path: Path, first: int) -> list[tuple[int, Callable[[], Any]]]:
    """The next entries, by id. ASE reads many at a time, unless one is damaged: then each by itself."""
    try:
        entries = list(database.select(f"id>={first}", sort="id", limit=_PAGE))
    except sqlite3.Error:
        raise
    except Exception:
        return [(id, partial(database.get, id=id)) for id in _ids(path, first, _PAGE)]
    return [(entry.id, lambda entry=entry: entry) for entry in entries]


def _cells(labels: Mapping[str, Any], id: str, atoms: Any) -> dict[str, Any]:
    return {**({} if has_id(labels) else {"id": id}), **labels, "atoms": atoms}


def _starts_lmdb(path: Path) -> Iterator[Start]:
    with _cursor(path) as cursor:
        keys = (bytes(key) for key in cursor.iternext(keys=True, values=False))
        for row, key in enumerate(key for key in keys if key not in _ABOUT_THE_FILE):
            yield Start(row, key)


def _read_lmdb(path: Path, start: Start) -> Iterator[dict[str, Any] | DataError]:
    with _cursor(path) as cursor:
        if isinstance(start.mark, bytes):
            cursor.set_range(start.mark)
        for key, value in cursor.iternext(keys=True, values=True):
            if key in _ABOUT_THE_FILE:
                continue
            try:
                yield _row_of_lmdb(path, key.decode("utf-8", errors="replace"), value)
            except (ValueError, TypeError, KeyError, RecursionError, zlib.error) as error:
                yield DataError(f"the entry with key {key!r} cannot be read ({error})")


@contextmanager
def _cursor(path: Path) -> Iterator[Any]:
    lmdb = require("lmdb", "reading LMDB", "data", DataError)
    try:
        # Without a lock: the file may lie in a folder that cannot be written, and is not written meanwhile.
        options = {"subdir": path.is_dir(), "readonly": True, "lock": False, "readahead": False}
        with lmdb.open(str(path), **options) as environment, environment.begin() as transaction:
            yield transaction.cursor()
    except lmdb.Error as error:
        raise DataError(f"not an LMDB database ({error}); copy or make it again") from error


def _row_of_lmdb(path: Path, key: str, value: bytes) -> dict[str, Any]:
    content = inflated(value) if value[:1] == b"\x78" else value
    if content[:1] == b"\x80":
        raise ValueError("the value is pickled, and unpickling could run any code; convert the database to JSON values")
    tree = json.loads(content)
    if not isinstance(tree, Mapping):
        raise ValueError(f"expected an object with named cells, got {str(tree)[:60]!r}")
    if "numbers" not in tree or "cell" not in tree:
        return {"id": key, **tree}
    return ase_row(tree, f"{path.stem}-{key}")


def ase_row(tree: Mapping[str, Any], id: str) -> dict[str, Any]:
    """A row of ASE in JSON: its labels, and the row itself as `atoms`."""
    return _cells(tree.get("key_value_pairs", {}), id, tree)


ASE = Table(_read_ase, _starts_ase)
LMDB = Table(_read_lmdb, _starts_lmdb)
