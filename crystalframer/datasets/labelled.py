"""Labelled data of your own: a table with structures in it, or a folder of structure files with a table of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.dataset import CrystalDataset, Provenance
from crystalframer.errors import CrystalError, DataError, UnknownTarget
from crystalframer.reading.columns import (
    DERIVED_COLUMNS,
    ID_COLUMNS,
    STRUCTURE_COLUMNS,
    is_missing,
    row_id,
    to_label,
)
from crystalframer.reading.entry import Entry
from crystalframer.reading.formats import STRUCTURES, format_of, label_files, name_of, structure_files
from crystalframer.reading.inputs import crystal_of, read, read_rows
from crystalframer.reading.tables import PARQUET

Item = TypeVar("Item")
_NOT_LABELS = (*ID_COLUMNS, *STRUCTURE_COLUMNS, *DERIVED_COLUMNS, "structure", "atoms", "file", "formula", "split")
_SHOWN = 5
"""Problems listed in one message."""


def read_table(path: str | Path, targets: Sequence[str | Target] | None = None) -> CrystalDataset:
    """Read a data set from one table: CSV, JSON, JSON lines, parquet or a packed file.

    A row has a structure (see `objects.to_crystal`), an id (`id`, `material_id`, `jid`, ...; default: its number),
    labels, and perhaps a `split` (train, validation or test).

    Args:
        targets: columns to read as labels. Default: every column of numbers that does not describe the structure. An
            empty or NaN cell is a missing label.

    Raises:
        DataError: structures or labels that cannot be read (file, row and column are named), a label column that is
            missing (the nearest is named), or an id given twice.
    """
    path = Path(path)
    if format_of(path) is PARQUET and _is_flat(path):
        return CrystalDataset.load(path, targets)
    return from_rows(str(path), list(read_rows(path)), targets)


def from_rows(
    source: str, rows: Sequence[Mapping[str, Any]], targets: Sequence[str | Target] | None = None
) -> CrystalDataset:
    """Make a data set from rows as `read_table` describes them.

    Args:
        source: name of the rows for messages and for the provenance.

    Raises:
        DataError: as `read_table`.
    """
    chosen = _choose_targets(source, rows, targets)
    entries = [Entry(cells, row_id(cells) or str(row), row) for row, cells in enumerate(rows, start=1)]
    return _labelled(source, _crystals(source, entries, crystal_of), rows, chosen, source)


def read_folder(
    folder: str | Path, labels: str | Path | None = None, targets: Sequence[str | Target] | None = None
) -> CrystalDataset:
    """Read a data set from a folder of structure files, one structure each, and a table of labels.

    Args:
        labels: table with a column `id` or `file` that names each structure file, with or without suffix. Default: the
            table in the folder that is called `labels`; without one, the crystals have no labels.
        targets: columns to read as labels. Default: every column of numbers. An empty or NaN cell is a missing label.

    Raises:
        DataError: no structure files, structures or labels that cannot be read, rows without a file or files without a
            row, a label column that is missing (the nearest is named), or an id given twice.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("no such folder; check the path", path=folder)
    table = _find_labels(folder) if labels is None else Path(labels)
    files = [file for file in structure_files(folder) if table is None or file.resolve() != table.resolve()]
    if not files:
        raise DataError(f"the folder holds no structure files ({', '.join(STRUCTURES)}); add some", path=folder)
    rows: list[dict[str, Any]] = [{} for _ in files]
    chosen: list[Target] = []
    if table is not None:
        rows = list(read_rows(table))
        files = _match(table, rows, files)
        chosen = _choose_targets(str(table), rows, targets)
    elif targets:
        raise DataError("has no table that is called labels; add one, or name the table of labels", path=folder)
    return _labelled(str(table or folder), _crystals(str(folder), files, read), rows, chosen, str(folder))


def _is_flat(path: Path) -> bool:
    """Whether a parquet table holds flat lists of numbers, which load without a loop; or is no parquet file at all."""
    from pyarrow import ArrowException, parquet, types

    try:
        schema = parquet.read_schema(path)
    except (ArrowException, OSError):
        return True
    kinds = [schema.field(name).type for name in STRUCTURE_COLUMNS if name in schema.names]
    nested = any(types.is_nested(kind) and types.is_nested(kind.value_type) for kind in kinds)
    return not nested and "structure" not in schema.names and "atoms" not in schema.names


def _crystals(source: str, items: Sequence[Item], read: Callable[[Item], Crystal]) -> list[Crystal]:
    """The crystals of all items; if some cannot be read, one error lists them."""
    crystals, problems = [], []
    for item in tqdm(items, desc=f"reading {source}", unit=" crystals", delay=2):
        try:
            crystals.append(read(item))
        except CrystalError as error:
            problems.append(str(error))
    _refuse(problems, f"{len(problems)} of {len(items)} structures cannot be read", source)
    return crystals


def _labelled(
    where: str, crystals: Sequence[Crystal], rows: Sequence[Mapping[str, Any]], targets: Sequence[Target], source: str
) -> CrystalDataset:
    """Crystals with the labels and the split of their rows."""
    labelled = []
    for row, (crystal, cells) in enumerate(zip(crystals, rows, strict=True), start=1):
        labels = {t.name: to_label(cells.get(t.name), t.name, path=where, row=row) for t in targets}
        labelled.append(crystal.with_targets(labels))
    parts = [str(cells.get("split")) for cells in rows] if any("split" in cells for cells in rows) else None
    try:
        return CrystalDataset.from_crystals(labelled, targets, parts, Provenance(source=source))
    except DataError as error:
        error.at(path=where)
        raise


def _choose_targets(
    where: str, rows: Sequence[Mapping[str, Any]], targets: Sequence[str | Target] | None
) -> list[Target]:
    columns = list(dict.fromkeys(name for cells in rows for name in cells))
    labels = [name for name in columns if name not in _NOT_LABELS and _is_numeric(rows, name)]
    if targets is None:
        return [Target(name) for name in labels]
    chosen = [Target(target) if isinstance(target, str) else target for target in targets]
    for target in chosen:
        if target.name not in columns:
            raise UnknownTarget(f"has no label column {target.name!r}", target.name, labels, path=where)
    return chosen


def _is_numeric(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether most filled cells are numbers: then one that is not is a mistake, and the column is not one of text."""
    cells = [cells[name] for cells in rows if not is_missing(cells.get(name))]
    return 2 * sum(_is_number(cell) for cell in cells) > len(cells)


def _is_number(cell: Any) -> bool:
    if isinstance(cell, bool):
        return False
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _find_labels(folder: Path) -> Path | None:
    found = label_files(folder)
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise DataError(f"has {names}; say which holds the labels", path=folder, field="labels")
    return found[0] if found else None


def _match(table: Path, rows: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> list[Path]:
    """The file of each row."""
    by_name: dict[str, list[Path]] = {}
    for file in files:
        for name in {file.name, name_of(file)}:
            by_name.setdefault(name, []).append(file)
    row_of_file: dict[Path, int] = {}
    absent = []
    for row, cells in enumerate(rows, start=1):
        name = row_id(cells) if is_missing(cells.get("file")) else str(cells["file"])
        found = by_name.get(name, [])
        problem = ""
        if not name:
            problem = "names no structure file; fill its column `id` or `file`"
        elif not found:
            absent.append(f"row {row}: {name}")
        elif len(found) > 1:
            problem = f"{name!r} may be {' or '.join(f.name for f in found)}; give the suffix"
        elif row_of_file.setdefault(found[0], row) != row:
            problem = f"{name!r} is given twice, first in row {row_of_file[found[0]]}; keep one of them"
        if problem:
            raise DataError(problem, path=table, row=row, value=name)
    _refuse(absent, f"{len(absent)} of {len(rows)} rows name structure files that do not exist", table)
    unlabelled = [file.name for file in files if file not in row_of_file]
    advice = "add one, its labels may be empty, or move the files away"
    _refuse(unlabelled, f"{len(unlabelled)} of {len(files)} structure files have no row ({advice})", table)
    return list(row_of_file)


def _refuse(problems: Sequence[str], message: str, path: Path | str) -> None:
    """Raise an error if there are problems, and list the first."""
    if problems:
        more = f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(f"{message}:\n  " + "\n  ".join(problems[:_SHOWN]) + more, path=path)
