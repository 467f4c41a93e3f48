"""Compressed content, unpacked no further than a bound: a few bytes can stand for more than any memory holds.

A compressed file is unpacked below all formats: these read a file with the plain name.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from crystalframer.errors import CrystalError, DataError

LARGEST = 1 << 28
"""Bytes of one file or value that is held in memory as a whole."""
_CHUNK = 1 << 20


def _open_zstd(path: Path) -> Any:
    import pyarrow

    return pyarrow.input_stream(str(path), compression="zstd")


COMPRESSIONS: Mapping[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
"""Suffix → function that opens a file for reading its unpacked bytes."""


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A compressed file as a temporary plain one, without its last suffix, for as long as the context lasts.

    Raises:
        CrystalError: it unpacks to more than `LARGEST` bytes, is damaged, or not what the suffix says.
    """
    with tempfile.TemporaryDirectory(prefix="crystalframer-") as folder:
        plain = Path(folder) / path.stem
        with plain.open("wb") as file:
            _unpack(path, file)
        yield plain


def _unpack(path: Path, target: IO[bytes]) -> None:
    n_bytes = 0
    path.stat()  # a file that is missing is not a damaged one
    try:
        with COMPRESSIONS[path.suffix.lower()](path) as file:
            while piece := file.read(_CHUNK):
                n_bytes += len(piece)
                if n_bytes > LARGEST:
                    raise CrystalError(f"unpacks to more than {LARGEST:,} bytes; unpack it first, or divide it")
                target.write(piece)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise CrystalError(f"cannot be unpacked ({error}); copy it again, or correct its suffix") from error
    if n_bytes == 0:
        raise CrystalError("the file is empty once it is unpacked; copy it again")


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
