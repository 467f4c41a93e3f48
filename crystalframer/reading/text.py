"""Text of files as programs and editors save it."""

from __future__ import annotations

import codecs
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import CrystalError
from crystalframer.reading.entry import Entry, Start, numbered

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16 does, so it is tried before
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order mark → encoding, which removes the mark."""
_BEGIN = 1 << 16


def text_of(path: Path) -> str:
    """The text of a file, whose lines end with `\\n`.

    Raises:
        CrystalError: it is no text.
        OSError: the file cannot be opened.
    """
    return decoded(path.read_bytes())


@contextmanager
def with_plain_lines(path: Path) -> Iterator[Path]:
    """A file whose lines can be read as bytes, for as long as the context lasts: itself, or a temporary one in UTF-8.

    Only the beginning of a file is looked at, which may be larger than memory.

    Raises:
        CrystalError: it is no text.
    """
    with path.open("rb") as file:
        begin = file.read(_BEGIN)
    if not begin.startswith(tuple(mark for mark, _ in _MARKS)) and (b"\n" in begin or b"\r" not in begin):
        yield path
        return
    with in_utf8(path, path.read_bytes()) as plain:
        yield plain


@contextmanager
def in_utf8(path: Path, content: bytes) -> Iterator[Path]:
    """The content of a file as a temporary one of the same name in UTF-8, for as long as the context lasts.

    Raises:
        CrystalError: it is no text.
    """
    with tempfile.TemporaryDirectory(prefix="crystalframer-") as folder:
        plain = Path(folder) / path.name
        plain.write_text(decoded(content), encoding="utf-8")
        yield plain


def decoded(content: bytes) -> str:
    r"""Bytes of a file as text, whose lines end with `\n` (also if they ended with `\r\n` or `\r`).

    A byte order mark decides on UTF-8, UTF-16 or UTF-32. Without one the text is UTF-8, or else Latin-1: names of
    authors and units have letters beyond ASCII, elements and numbers have not.

    >>> decoded("Å\r\n".encode("utf-16")) == decoded("Å\r".encode("latin-1")) == "Å\n"
    True

    Raises:
        CrystalError: it is no text.
    """
    encoding = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise CrystalError(f"not text ({error}); save it again as UTF-8") from error
        text = content.decode("latin-1")
    if "\0" in text:
        raise CrystalError("not text (it holds bytes that are 0); save it as UTF-8, and unpack it if it is compressed")
    return text.replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class TextFormat:
    """A format of text that is read as a whole (see `formats.Format`)."""

    structures: Callable[[str], Sequence[Any]]
    """Text → its structures (see `Entry.structure`); in place of one that cannot be read, its error. At least one."""
    n_structures: Callable[[str], int] = lambda text: 1
    """Text → how many there are, found without reading them."""

    def entries(self, path: Path, start: Start) -> Iterator[Entry]:
        found = self.structures(text_of(path))
        if len(found) == 1:  # as nearly always: the shortest way
            return iter([Entry(found[0])])
        return numbered(found[start.n_before :], start)

    def starts(self, path: Path) -> Iterator[Start]:
        return map(Start, range(self.n_structures(text_of(path))))

    def count(self, path: Path) -> int | None:
        return 1


@dataclass(frozen=True)
class WritableText(TextFormat):
    """One that crystals are written in as well (see `formats.Writable`)."""

    text: Callable[[Crystal], str] = field(kw_only=True)
