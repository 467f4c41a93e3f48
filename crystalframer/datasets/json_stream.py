"""JSON files of any size, one entry at a time: nothing is unpacked to the disk, and little is in memory."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crystalframer.errors import DataError

CHUNK = 1 << 20
"""Characters of JSON read at a time."""
LONGEST_VALUE = 1 << 28
"""Limit on the characters of one entry; in a damaged text, an entry could reach to the end of the file."""
_AFTER_VALUE = frozenset(",]}: \t\n\r")


class BadText(DataError):
    """The text is not the JSON that it should be."""


def iter_json(file: io.TextIOBase, key: str = "") -> Iterator[Any]:
    """Yield the elements of a JSON array. One element (and a chunk of text) is in memory at a time.

    Args:
        file: the text of the document.
        key: the entry of the document that holds the array. Default: the document is the array.

    Raises:
        BadText: the document holds no such array, or it ends too early.
    """
    text = _Text(file)
    if key:
        text.take("{")
        while text.value() != key:
            text.take(":")
            text.value()
            text.take(",", meaning=f"an entry {key!r}")
        text.take(":")
    text.take("[")
    if text.peek() == "]":
        return
    while True:
        yield text.value()
        if text.take(",", "]") == "]":
            return


class _Text:
    """JSON text, of which only the part that is needed is in memory."""

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

    def take(self, *wanted: str, meaning: str = "") -> str:
        """Move past the next character, which must be one of these. `meaning` describes them in the error."""
        found = self.peek()
        if found not in wanted:
            raise BadText(f"expected {meaning or ' or '.join(wanted)} in the JSON text, found {found!r}")
        self._start += 1
        return found

    def value(self) -> Any:
        """The next complete value: another character follows it."""
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
    """Open one file in a zip archive as text, whatever its folder in the archive."""
    with _naming_damage(archive), zipfile.ZipFile(archive) as content:
        found = [info for info in content.infolist() if info.filename.rpartition("/")[2] == member]
        if len(found) != 1:
            names = ", ".join(content.namelist()[:5])
            message = f"expected one {member} in the archive, found {len(found)}; it holds: {names}"
            raise DataError(message, path=archive, field=member)
        with content.open(found[0]) as raw, io.TextIOWrapper(raw, encoding="utf-8") as text:
            yield text


@contextmanager
def open_gzip(path: Path) -> Iterator[io.TextIOBase]:
    """Open a gzip file as text."""
    with _naming_damage(path), gzip.open(path, "rt", encoding="utf-8") as text:
        yield text


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError, BadText) as error:
        raise DataError(
            f"is damaged or not the file it should be ({error}); delete it, and the next call downloads it again",
            path=path,
        ) from error
