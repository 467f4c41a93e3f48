"""Labelled data of your own: a table with structures in it, or a folder of structure files with a table of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from crystalframer.reading.formats import format_of, label_files, name_of, structure_files
from crystalframer.reading.inputs import read, read_rows
from crystalframer.reading.objects import to_crystal
from crystalframer.reading.tables import PARQUET

_NOT_LABELS = (*ID_COLUMNS, *STRUCTURE_COLUMNS, *DERIVED_COLUMNS, "structure", "atoms", "file", "formula", "split")
_SHOWN = 5
"""Problems listed in one message."""


def read_table(path: str | Path, targets: Sequence[str | Target] | None = None) -> CrystalDataset:
    """A data set from one table: CSV, JSON, JSON lines, parquet or a packed file.

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
    return pack_rows(str(path), list(read_rows(path)), targets)


def pack_rows(
    source: str, rows: Sequence[Mapping[str, Any]], targets: Sequence[str | Target] | None = None
) -> CrystalDataset:
    """A data set from rows as `read_table` describes them; `source` names them in messages and in the provenance.

    Raises:
        DataError: as `read_table`.
    """
    chosen = _choose_targets(source, rows, targets)
    crystals, problems = [], []
    for row, cells in enumerate(tqdm(rows, desc=f"reading {source}", unit=" crystals", delay=2), start=1):
        try:
            crystals.append(to_crystal(cells, row_id(cells) or str(row)))
        except CrystalError as error:
            problems.append(f"row {row}: {error}")
    _refuse(problems, f"{source}: {len(problems)} of {len(rows)} structures cannot be read")
    return _labelled(source, crystals, rows, chosen, source)


def read_folder(
    folder: str | Path, labels: str | Path | None = None, targets: Sequence[str | Target] | None = None
) -> CrystalDataset:
    """A data set from a folder of structure files, one structure each, and a table of labels.

    Args:
        labels: table with a column `id` or `file` that names each structure file, with or without suffix. Default:
            `labels.csv`, `.json`, `.jsonl` or `.parquet` in the folder; without one, the crystals have no labels.
        targets: columns to read as labels. Default: every column of numbers. An empty or NaN cell is a missing label.

    Raises:
        DataError: no structure files, structures or labels that cannot be read, rows without a file or files without a
            row, a label column that is missing (the nearest is named), or an id given twice.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; check the path")
    table = _find_labels(folder) if labels is None else Path(labels)
    files = [file for file in structure_files(folder) if table is None or file.resolve() != table.resolve()]
    if not files:
        raise DataError(f"{folder}: the folder holds no structure files (.cif, .vasp, .extxyz, POSCAR, ...); add some")
    rows: list[dict[str, Any]] = [{} for _ in files]
    chosen: list[Target] = []
    if table is not None:
        rows = list(read_rows(table))
        files = _match(table, rows, files)
        chosen = _choose_targets(str(table), rows, targets)
    elif targets:
        raise DataError(f"{folder}: has no table of labels (labels.csv, .json, .jsonl or .parquet); add one or name it")
    crystals, problems = [], []
    for file in tqdm(files, desc=f"reading {folder.name}", unit=" files", delay=2):
        try:
            crystals.append(read(file))
        except CrystalError as error:
            problems.append(str(error))
    _refuse(problems, f"{folder}: {len(problems)} of {len(files)} structures cannot be read")
    return _labelled(str(table or folder), crystals, rows, chosen, str(folder))


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


def _labelled(
    where: str, crystals: Sequence[Crystal], rows: Sequence[Mapping[str, Any]], targets: Sequence[Target], source: str
) -> CrystalDataset:
    """Crystals with the labels and the split of their rows."""
    labelled = []
    for row, (crystal, cells) in enumerate(zip(crystals, rows, strict=True), start=1):
        labels = {t.name: to_label(cells.get(t.name), f"{where}, row {row}: {t.name}") for t in targets}
        labelled.append(crystal.with_targets(labels))
    parts = [str(cells.get("split")) for cells in rows] if any("split" in cells for cells in rows) else None
    try:
        return CrystalDataset.from_crystals(labelled, targets, parts, Provenance(source=source))
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


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
            raise UnknownTarget(f"{where}: has no label column {target.name!r}", target.name, labels)
    return chosen


def _is_numeric(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether most cells that are filled are numbers: then one that is not is a mistake, not a column of text."""
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
        raise DataError(f"{folder}: has {' and '.join(file.name for file in found)}; say which holds the labels")
    return found[0] if found else None


def _match(table: Path, rows: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> list[Path]:
    """The file of each row."""
    by_name: dict[str, list[Path]] = {}
    for file in files:
        for name in {file.name, name_of(file)}:
            by_name.setdefault(name, []).append(file)
    matched: list[Path] = []
    row_of_file: dict[Path, int] = {}
    absent = []
    for row, cells in enumerate(rows, start=1):
        name = str(cells["file"]) if not is_missing(cells.get("file")) else row_id(cells)
        if not name:
            raise DataError(f"{table}, row {row}: names no structure file; fill its column `id` or `file`")
        found = by_name.get(name, [])
        if len(found) > 1:
            raise DataError(
                f"{table}, row {row}: {name!r} may be {' or '.join(f.name for f in found)}; give the suffix"
            )
        if not found:
            absent.append(f"row {row}: {name}")
            continue
        if found[0] in row_of_file:
            first = row_of_file[found[0]]
            raise DataError(f"{table}: {name!r} is given twice, in rows {first} and {row}; keep one of them")
        row_of_file[found[0]] = row
        matched.append(found[0])
    _refuse(absent, f"{table}: {len(absent)} of {len(rows)} rows name structure files that do not exist")
    unlabelled = [file.name for file in files if file not in row_of_file]
    _refuse(
        unlabelled,
        f"{table}: {len(unlabelled)} of {len(files)} structure files have no row (add one, its labels may be empty, or "
        "move the files away)",
    )
    return matched


def _refuse(problems: Sequence[str], message: str) -> None:
    """Raise if there are problems, and list the first."""
    if problems:
        more = f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(f"{message}:\n  " + "\n  ".join(problems[:_SHOWN]) + more)
