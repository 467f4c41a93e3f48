"""Where data sets come from: by name, or from a path."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from crystalframer.config import Target, suggestion
from crystalframer.data.dataset import CrystalDataset, DataError

NAMED_SOURCES = ("demo",)


def dataset(
    source: str | Path, labels: str | Path | None = None, targets: Sequence[str | Target] | None = None
) -> CrystalDataset:
    """The data set of a name or path.

    Args:
        source: `demo` (502 JARVIS crystals, shipped), or a path: a packed data set, a table (CSV, JSON, JSON lines,
            parquet) or a folder of structure files.
        labels: table of labels, for a folder (default: `labels.csv`, `.json`, `.jsonl` or `.parquet` in it).
        targets: the labels to read. Default: all that the source has.

    Raises:
        DataError: no such name or path (the nearest name is given), or the data cannot be used.
    """
    from crystalframer.data.tables import read_folder, read_table

    if labels is not None and not Path(source).is_dir():
        raise DataError(f"{source}: a table of labels goes with a folder of structure files, and this is none")
    if source == "demo":
        with as_file(files("crystalframer.data") / "demo" / "demo.parquet") as path:
            return CrystalDataset.load(path, targets)
    path = Path(source).expanduser()
    if path.is_dir():
        return read_folder(path, labels, targets)
    if path.is_file():
        return read_table(path, targets)
    raise DataError(
        f"data source {str(source)!r} is neither a name nor an existing path{suggestion(str(source), NAMED_SOURCES)}"
    )
