"""Compressed content, unpacked no further than a bound: a few bytes can stand for more than any memory holds."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crystalframer.errors import CrystalError, DataError

LARGEST = 1 << 28
"""Bytes of one file or value that is held in memory as a whole."""
_CHUNK = 1 << 20
_OPENERS: Mapping[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def inflated(value: bytes) -> bytes:
    """The content that zlib compressed to this value.

    Raises:
        DataError: it is more than `LARGEST` bytes.
        zlib.error: damaged, or cut short.
    """
    stream = zlib.decompressobj()
    content = stream.decompress(value, LARGEST)
    if stream.unconsumed_tail:
        raise DataError(f"unpacks to more than {LARGEST:,} bytes")
    if not stream.eof:
        raise zlib.error("the compressed value is cut short")
    return content


def check_unpacked_size(path: Path) -> None:
    """Measure the content of a file whose suffix calls it compressed, a piece at a time; others are left alone.

    Raises:
        CrystalError: it is more than `LARGEST` bytes.
        OSError, EOFError, zlib.error, lzma.LZMAError: damaged, or not what the suffix says.
    """
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        return
    n_bytes = 0
    with opener(path) as file:
        while piece := file.read(_CHUNK):
            n_bytes += len(piece)
            if n_bytes > LARGEST:
                raise CrystalError(f"unpacks to more than {LARGEST:,} bytes; unpack it first, or divide it")
