"""Tables of results as files, in the format of their suffix."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from crystalframer import files
from crystalframer.errors import DataError
from crystalframer.reading.formats import table_writer

if TYPE_CHECKING:
    import pandas


def save_table(frame: pandas.DataFrame, path: str | Path) -> None:
    """Write a table as its suffix says: `.csv`, `.jsonl` (one JSON object per line) or `.parquet`.

    An existing table is replaced only when the new one is complete.

    Raises:
        DataError: unknown suffix, or the file cannot be written.
    """
    path = check_table_path(path)
    with files.writing(path, DataError), files.replacing(path) as unfinished:
        table_writer(path)(frame, unfinished)


def check_table_path(path: str | Path) -> Path:
    """Check that `save_table` can write to this path, before the work is done. Makes its folder.

    Raises:
        DataError: unknown suffix, or the file cannot be written.
    """
    path = Path(path).expanduser()
    table_writer(path)
    with files.writing(path, DataError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    return path
