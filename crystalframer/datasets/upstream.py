"""Formats in which others publish data sets, read one entry at a time: nothing is unpacked to disk, no code is run."""

from __future__ import annotations

import gzip
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crystalframer.errors import DataError
from crystalframer.reading.rows import to_label

CHUNK = 1 << 20
"""Characters of JSON read at a time."""
LONGEST_VALUE = 1 << 28
"""Characters of one entry; in a damaged text, what looks like one could go on to the end of the file."""


LARGEST_LOG = 4.0
"""log10 of more GPa than any modulus has."""
_AFTER_VALUE = frozenset(",]}: \t\n\r")


class BadText(ValueError):
    """Text that is not the JSON it should be."""


@dataclass(frozen=True)
class Entry:
    """One crystal as published: `structure` is anything that `structures.to_crystal` takes."""

    id: str
    structure: Any
    labels: Mapping[str, Any]
    """Our name of a label → cell, as `rows.to_label` takes it."""
    part: str | None = None
    """The part of a split that the publication itself puts it in."""


def jarvis_entries(files: Sequence[Path], member: str, id_key: str, labels: Mapping[str, str]) -> Iterator[Entry]:
    """A zip archive with one JSON list of objects, as JARVIS publishes its own and other data: labels beside `atoms`.

    Args:
        labels: our name → theirs.
    """
    with open_member(files[0], member) as text:
        for row, cells in enumerate(iter_json(text), start=1):
            if not isinstance(cells, Mapping) or id_key not in cells or "atoms" not in cells:
                raise DataError(
                    f"{files[0]}, entry {row}: has no {id_key!r} or no 'atoms'; it is not the file expected"
                )
            yield Entry(
                str(cells[id_key]), cells["atoms"], {ours: cells.get(theirs) for ours, theirs in labels.items()}
            )


def matbench_entries(files: Sequence[Path], task: str, n_crystals: int, labels: Mapping[str, str]) -> Iterator[Entry]:
    """A gzipped table of Matbench in the `split` layout of pandas: `columns`, `index`, and `data` row by row.
    Structures are dictionaries of pymatgen. Ids are those of Matbench: `mb-phonons-0001`.

    Args:
        labels: our name → their column; one.
    """
    (ours, theirs), width = next(iter(labels.items())), len(str(n_crystals))
    with open_gzip(files[0]) as text:
        columns = list(iter_json(text, "columns"))
    for name in ("structure", theirs):
        if name not in columns:
            raise DataError(
                f"{files[0]}: has no column {name!r}; it has {', '.join(map(str, columns))}. "
                "Delete it, and the next call downloads it again"
            )
    with open_gzip(files[0]) as text:
        for row, cells in enumerate(iter_json(text, "data"), start=1):
            value = cells[columns.index(theirs)]
            value = float(value) if isinstance(value, bool) else value
            id = f"mb-{task.replace('_', '-')}-{row:0{width}d}"
            yield Entry(id, cells[columns.index("structure")], {ours: value})


def modulus_entries(files: Sequence[Path], ours: str, theirs: str) -> Iterator[Entry]:
    """Pickled lists of training, validation and test part with a modulus, as its log10 in GPa; nothing in them is run.

    Args:
        ours: our name of the label.
        theirs: their name. Values above `LARGEST_LOG` show that it is in GPa; then one that is not above 0 is missing.
    """
    from crystalframer.datasets.authors_pickle import unpickle
    from crystalframer.reading.structures import row_id

    lists = [unpickle(file) for file in files]
    values = [
        [to_label(cells.get(theirs), f"{file}: {theirs}") for cells in rows]
        for file, rows in zip(files, lists, strict=True)
    ]
    in_gpa = max((value for column in values for value in column if not math.isnan(value)), default=0.0) > LARGEST_LOG
    for part, file, rows, column in zip(("train", "validation", "test"), files, lists, values, strict=True):
        for row, (cells, value) in enumerate(zip(rows, column, strict=True), start=1):
            structure = cells.get("atoms", cells.get("structure"))
            if structure is None or not row_id(cells):
                raise DataError(f"{file}, entry {row}: has no id, or neither 'atoms' nor 'structure'")
            if in_gpa:
                value = math.log10(value) if value > 0 else math.nan
            yield Entry(row_id(cells), structure, {ours: value}, part)


def iter_json(file: io.TextIOBase, key: str = "") -> Iterator[Any]:
    """The elements of a JSON array one after another: of the whole document, or of its entry `key`.

    Holds one element (and a chunk of text) at a time.

    Raises:
        BadText: not such a document, or it ends too early.
    """
    text = _Text(file)
    if key:
        text.expect("{")
        while text.value() != key:
            text.expect(":")
            text.value()
            text.expect(",", f"an entry {key!r}")
        text.expect(":")
    text.expect("[")
    if text.peek() == "]":
        return
    while True:
        yield text.value()
        if text.take(",", "]") == "]":
            return


class _Text:
    """JSON text of which as little as needed is in memory."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file
        self._buffer = ""
        self._start = 0
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is not blank."""
        while True:
            while self._start < len(self._buffer):
                if not self._buffer[self._start].isspace():
                    return self._buffer[self._start]
                self._start += 1
            if not self._more(CHUNK):
                raise BadText("the JSON text ends too early")

    def take(self, *wanted: str) -> str:
        found = self.peek()
        if found not in wanted:
            raise BadText(f"expected {' or '.join(wanted)} in the JSON text, found {found!r}")
        self._start += 1
        return found

    def expect(self, wanted: str, instead_of: str = "") -> None:
        found = self.peek()
        if found != wanted:
            raise BadText(f"expected {instead_of or wanted} in the JSON text, found {found!r}")
        self._start += 1

    def value(self) -> Any:
        """The next value, complete: another character follows it."""
        self.peek()
        size = CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._start)
                # Else a number may have been cut: "1." or "1.5e".
                if self._buffer[end : end + 1] in _AFTER_VALUE:
                    self._start = end
                    return value
            except json.JSONDecodeError:
                pass  # cut off by the end of the buffer, or wrong: then more text does not help
            if size > LONGEST_VALUE or not self._more(size):
                raise BadText("the JSON text ends too early or is damaged")
            size *= 2  # so that reading one long value does not take quadratic time

    def _more(self, size: int) -> bool:
        text = self._file.read(size)
        self._buffer = self._buffer[self._start :] + text
        self._start = 0
        return bool(text)


@contextmanager
def open_member(archive: Path, member: str) -> Iterator[io.TextIOBase]:
    """The text of one file in a zip archive; its folder in the archive does not matter."""
    with _naming_damage(archive), zipfile.ZipFile(archive) as content:
        found = [info for info in content.infolist() if info.filename.rpartition("/")[2] == member]
        if len(found) != 1:
            names = ", ".join(content.namelist()[:5])
            raise DataError(f"{archive}: expected one {member} in the archive, found {len(found)}; it holds: {names}")
        with content.open(found[0]) as raw, io.TextIOWrapper(raw, encoding="utf-8") as text:
            yield text


@contextmanager
def open_gzip(path: Path) -> Iterator[io.TextIOBase]:
    """The text of a gzip file."""
    with _naming_damage(path), gzip.open(path, "rt", encoding="utf-8") as text:
        yield text


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError, BadText) as error:
        raise DataError(
            f"{path}: is damaged or not the file it should be ({error}); delete it, and the next call downloads it "
            "again"
        ) from error
