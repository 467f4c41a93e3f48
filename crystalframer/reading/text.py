"""Text of files as programs and editors save it."""

from __future__ import annotations

import codecs
from pathlib import Path

from crystalframer.errors import CrystalError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16 does, so it is tried before
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order mark → encoding, which removes the mark."""


def text_of(path: Path) -> str:
    """The text of a file, whose lines end with `\\n`.

    Raises:
        CrystalError: it is no text.
        OSError: the file cannot be opened.
    """
    return decoded(path.read_bytes())


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
