"""Labelled data of your own: a table with structures in it, or a folder of structure files with a table of labels."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm.auto import tqdm

from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.classes import class_name, is_truth, numbered
from crystalframer.datasets.dataset import CrystalDataset, Provenance
from crystalframer.errors import CrystalError, DataError, UnknownTarget
from crystalframer.reading.columns import (
    STRUCTURE_COLUMNS,
    file_column,
    has_id,
    holds_structures,
    id_column,
    id_columns,
    is_label_column,
    is_meant_as_number,
    is_missing,
    names_files,
    row_id,
    to_id,
    to_label,
    with_id_column,
)
from crystalframer.reading.entry import Entry
from crystalframer.reading.formats import (
    ID_PROP,
    STRUCTURES,
    format_of,
    label_files,
    name_of,
    other_names,
    structure_files,
)
from crystalframer.reading.inputs import advice_on_tables, crystal_of, ids_of_rows, read, read_rows, say_what_is_skipped
from crystalframer.reading.tables import PARQUET, all_cells

Item = TypeVar("Item")
_SHOWN = 5
"""Problems listed in one message."""


def read_table(path: str | Path, targets: Sequence[str | Target] | None = None) -> CrystalDataset:
    """Read a data set from one table: CSV, JSON, JSON lines, parquet or a packed file.

    A row has a structure (see `objects.to_crystal`) or the path of its file, an id (`id`, `material_id`, `jid`, `name`,
    ...: the first of these that is filled; default: name of the table and number of the row), labels, and perhaps a
    `split` (train, validation or test). `id_prop.csv` of CGCNN and ALIGNN stands for its folder.

    Args:
        targets: columns to read as labels. Default: every column of numbers that does not describe the structure. An
            empty or NaN cell is a missing label.

    Raises:
        DataError: structures or labels that cannot be read (file, row and column are named), a label column that is
            missing (the nearest is named), or an id given twice.
    """
    path = Path(path)
    if path.name == ID_PROP and not any(map(_tells_structures, (all_cells(path) or [[]])[0])):
        return read_folder(path.parent, path, targets)
    if format_of(path) is PARQUET and _is_flat(path):
        return CrystalDataset.load(path, targets)
    return from_rows(str(path), list(read_rows(path)), targets, path)


def from_rows(
    source: str,
    rows: Sequence[Mapping[str, Any]],
    targets: Sequence[str | Target] | None = None,
    path: Path | None = None,
) -> CrystalDataset:
    """Make a data set from rows as `read_table` describes them.

    Args:
        source: name of the rows for messages and for the provenance.
        path: the table that they come from, if it is one file.

    Raises:
        DataError: as `read_table`.
    """
    chosen = _choose_targets(source, rows, targets)
    ids = ids_of_rows(rows, source, path)
    entries = [Entry(cells, id, row, path=path) for row, (cells, id) in enumerate(zip(rows, ids, strict=True), start=1)]
    crystals = _crystals(source, entries, crystal_of)
    column = id_column(_columns(rows))
    return _labelled(source, crystals, rows, chosen, with_id_column(source, column))


def read_folder(
    folder: str | Path, labels: str | Path | None = None, targets: Sequence[str | Target] | None = None
) -> CrystalDataset:
    """Read a data set from a folder of structure files, one structure each, and a table of labels.

    Args:
        labels: table with a column `id` or `file` that names each structure file, with or without suffix; with both,
            `id` gives the ids. Default: the table in the folder that is called `labels`, or the `id_prop.csv` of CGCNN
            and ALIGNN, which has no header; without one, the crystals have no labels.
        targets: columns to read as labels. Default: every column of numbers. An empty or NaN cell is a missing label.
            For a table without a header, they name its columns; default: `target`, or `target_1`, `target_2`, ...

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
        problem = f"the folder holds no structure files ({', '.join(STRUCTURES)}); add some"
        raise DataError(problem + advice_on_tables(folder), path=folder)
    say_what_is_skipped(folder, files if table is None else [*files, table], patterns=False)
    rows: list[dict[str, Any]] = [{} for _ in files]
    chosen: list[Target] = []
    if table is not None:
        rows = _rows_of_id_prop(table, targets) if table.name == ID_PROP else list(read_rows(table))
        files = _match(table, rows, files)
        chosen = _choose_targets(str(table), rows, targets)
    elif targets:
        raise DataError("has no table that is called labels; add one, or name the table of labels", path=folder)
    crystals = _crystals(str(folder), files, read)
    columns = _columns(rows)
    if table is None or file_column(columns) is None or not has_id(columns):
        _check_names_of_files(folder, files)
        return _labelled(str(table or folder), crystals, rows, chosen, str(folder))
    ids = ids_of_rows(rows, str(table), table)
    crystals = [replace(crystal, id=id) for crystal, id in zip(crystals, ids, strict=True)]
    return _labelled(str(table), crystals, rows, chosen, with_id_column(str(folder), id_column(columns)))


def _tells_structures(column: str) -> bool:
    """Whether the cells of a column are structures or files."""
    return holds_structures(column) or names_files(column)


def _check_names_of_files(folder: Path, files: Sequence[Path]) -> None:
    named: dict[str, Path] = {}
    for file in files:
        if (first := named.setdefault(name_of(file), file)) is not file:
            problem = f"{first.name} and {file.name} would both have the id {name_of(file)!r}"
            raise DataError(f"{problem}; rename one, or move it away", path=folder, field="id", value=name_of(file))


def _is_flat(path: Path) -> bool:
    """Whether a parquet table holds flat lists of numbers, which load without a loop; or is no parquet file at all."""
    from pyarrow import ArrowException, parquet, types

    try:
        schema = parquet.read_schema(path)
    except (ArrowException, OSError):
        return True
    kinds = [schema.field(name).type for name in STRUCTURE_COLUMNS if name in schema.names]
    nested = any(types.is_nested(kind) and types.is_nested(kind.value_type) for kind in kinds)
    return "atomic_numbers" in schema.names and not nested and not any(map(holds_structures, schema.names))


def _crystals(source: str, items: Sequence[Item], read: Callable[[Item], Crystal]) -> list[Crystal]:
    """The crystals of all items; if some cannot be read, one error lists them."""
    crystals, problems = [], []
    for item in tqdm(items, desc=f"reading {source}", unit=" crystals", delay=2):
        try:
            crystals.append(read(item))
        except CrystalError as error:
            problems.append(str(error).removeprefix(f"{source}, "))
    _refuse(problems, f"{len(problems)} of {len(items)} structures cannot be read", source)
    return crystals


def _labelled(
    where: str, crystals: Sequence[Crystal], rows: Sequence[Mapping[str, Any]], chosen: Sequence[Target], source: str
) -> CrystalDataset:
    """Crystals with the labels and the split of their rows."""
    targets, labelled, known = list(chosen), [], dict[str, np.ndarray]()
    for n, target in enumerate(targets):
        if target.is_class:
            cells_of = enumerate((cells.get(target.name) for cells in rows), start=1)
            names = [class_name(cell, target.name, path=where, row=row) for row, cell in cells_of]
            targets[n], known[target.name] = numbered(names, target, where)
    for row, (crystal, cells) in enumerate(zip(crystals, rows, strict=True), start=1):
        labels = {name: float(of_target[row - 1]) for name, of_target in known.items()}
        labels |= {
            t.name: to_label(cells.get(t.name), t.name, path=where, row=row) for t in targets if t.name not in known
        }
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
    columns = _columns(rows)
    are_truths = [name for name in columns if is_label_column(name) and _is_truth(rows, name)]
    labels = [name for name in columns if is_label_column(name) and (name in are_truths or _is_numeric(rows, name))]
    if targets is None:
        if not labels and (others := [name for name in columns if is_label_column(name)]):
            cells = next(str(row[others[0]])[:40] for row in rows if others[0] in row)
            text = f"{where}: no column holds numbers, so there are no targets ({others[0]!r} holds {cells!r})"
            print(text, file=sys.stderr)
        return [Target(name, kind="class" if name in are_truths else "scalar") for name in labels]
    chosen = [Target(target) if isinstance(target, str) else target for target in targets]
    for target in chosen:
        if target.name not in columns:
            raise UnknownTarget(f"has no label column {target.name!r}", target.name, labels, path=where)
    return [replace(t, kind="class") if t.name in are_truths and not t.unit else t for t in chosen]


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for cells in rows for name in cells))


def _is_numeric(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether most filled cells are numbers: then one that is not is a mistake, and the column is not one of text."""
    cells = [cells[name] for cells in rows if not is_missing(cells.get(name))]
    return 2 * sum(map(is_meant_as_number, cells)) > len(cells)


def _is_truth(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether all filled cells are true or false."""
    cells = [cells[name] for cells in rows if not is_missing(cells.get(name))]
    return bool(cells) and all(map(is_truth, cells))


def _find_labels(folder: Path) -> Path | None:
    found = [*label_files(folder), *filter(Path.is_file, [folder / ID_PROP])]
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise DataError(f"has {names}; say which holds the labels", path=folder, field="labels")
    return found[0] if found else None


def _rows_of_id_prop(path: Path, targets: Sequence[str | Target] | None) -> list[dict[str, Any]]:
    """The rows of a table whose first column names the structures, and whose others are labels.

    Raises:
        DataError: it has another number of columns than there are targets.
    """
    header, *rows = all_cells(path) or [[]]
    if len(header) == 1:
        problem = f"the first line is {header[0][:60]!r}; it needs an id and its labels, with commas between them"
        raise DataError(problem, path=path, row=1)
    if all(map(is_missing, header[1:])) or any(map(is_meant_as_number, header[1:])):
        rows = [header, *rows]
        n_labels = len(header) - 1
        default = ["target"] if n_labels == 1 else [f"target_{number + 1}" for number in range(n_labels)]
        names = (
            default if targets is None else [target if isinstance(target, str) else target.name for target in targets]
        )
        if len(names) != n_labels:
            problem = f"has {n_labels} columns of labels without names, and {len(names)} targets are named"
            raise DataError(f"{problem}; name them all", path=path, field="targets", value=names)
    else:
        names = header[1:]
    for row, cells in enumerate(rows, start=1):
        if len(cells) != len(names) + 1:
            problem = (
                f"has {len(cells)} cells, and the first line has {len(names) + 1}: an id and its labels; correct it"
            )
            raise DataError(problem, path=path, row=row)
    return [dict(zip(("id", *names), cells, strict=True)) for cells in rows]


def _match(table: Path, rows: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> list[Path]:
    """The file of each row."""
    by_name = _by_name(files)
    names = _names_of_files(rows, by_name)
    row_of_file: dict[Path, int] = {}
    absent = []
    for row, name in enumerate(names, start=1):
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


def _by_name(files: Sequence[Path]) -> dict[str, list[Path]]:
    """The files that a name may stand for. Only where it is the name of none, it may be a part of their names."""
    by_name: dict[str, list[Path]] = {}
    for file in files:
        for name in {file.name, name_of(file)}:
            by_name.setdefault(name, []).append(file)
    in_part: dict[str, list[Path]] = {}
    for file in files:
        for name in other_names(file) - by_name.keys():
            in_part.setdefault(name, []).append(file)
    return by_name | in_part


def _names_of_files(rows: Sequence[Mapping[str, Any]], known: Collection[str]) -> list[str]:
    """What each row calls its file: the cells of the first column all of which name one, if there is such a column."""
    columns = _columns(rows)
    for column in filter(None, (file_column(columns), *id_columns(columns))):
        names = [to_id(cells.get(column)) for cells in rows]
        if all(name in known for name in names):
            return names
    column = file_column(columns) or "file"
    return [to_id(cells.get(column)) or row_id(cells) for cells in rows]


def _refuse(problems: Sequence[str], message: str, path: Path | str) -> None:
    """Raise an error if there are problems, and list the first."""
    if problems:
        more = f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(f"{message}:\n  " + "\n  ".join(problems[:_SHOWN]) + more, path=path)
