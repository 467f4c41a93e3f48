"""Packed data sets: parquet files that are read and written as flat arrays, without a loop over crystals.

A packed file is readable with any parquet library: columns `id`, `atomic_numbers` (list), `positions` (list, Cartesian
x y z of each atom in turn, Å), `lattice` (9 numbers: rows a, b, c, Å), one column per target (empty = missing label)
and, if the data set has one, `split`. A class is given by its number,
counted from 0. Units, classes, licence, citation and origin are in the file's metadata.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalframer import files
from crystalframer.config import Target
from crystalframer.crystals.flat import FlatCrystals, Provenance, text_array
from crystalframer.datasets.classes import TRUTHS, class_name, numbered
from crystalframer.errors import DataError, UnknownTarget, suggestion
from crystalframer.reading.columns import (
    STRUCTURE_COLUMNS,
    check_names,
    id_column,
    id_columns,
    is_label_column,
    with_id_column,
)
from crystalframer.reading.formats import PARQUET_SUFFIX, format_of
from crystalframer.reading.inputs import ids_of_rows
from crystalframer.reading.tables import PARQUET

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

SCHEMA_VERSION = 1
METADATA_KEY = b"crystalframer"
ROWS_PER_GROUP = 32_768
"""Crystals per parquet row group, which is what reading and writing hold in memory at a time besides the result."""
_STORAGE: Any = {"compression": "zstd", "use_dictionary": False}


def write(
    path: Path, groups: Iterable[FlatCrystals], targets: Sequence[Target], with_parts: bool, provenance: Provenance
) -> None:
    """Write groups of crystals as they come, each to a row group of its own.

    Args:
        targets: those that the groups have.
        with_parts: whether the groups have a given split.

    Raises:
        DataError: another suffix than .parquet, nothing can be written there, or a target has the name of a column.
    """
    from pyarrow import parquet

    for name in ("id", "split", *STRUCTURE_COLUMNS):
        if name in (target.name for target in targets):
            message = f"a target cannot be called {name!r}; that column has another use"
            raise DataError(message, path=path, field=name)
    schema = _schema(targets, with_parts, provenance)
    with _replacing(path) as unfinished, parquet.ParquetWriter(unfinished, schema, **_STORAGE) as writer:
        for group in groups:
            writer.write_table(_to_table(group, schema))


def add_splits(path: Path, output: Path, splits: Mapping[str, np.ndarray], provenance: Provenance) -> None:
    """Copy a packed file, row group by row group, and add a column of parts for each named split (empty: in no part).

    These are not the file's own split: `read_split` reads one of them.
    """
    from pyarrow import Table, array, field, parquet, string

    with parquet.ParquetFile(path) as file:
        metadata = _packed_metadata(path, file.schema_arrow) | {"provenance": dataclasses.asdict(provenance)}
        schema = file.schema_arrow.with_metadata({METADATA_KEY: json.dumps(metadata).encode()})
        for name in splits:
            schema = schema.append(field(_split_column(name), string()))
        start = 0
        with _replacing(output) as unfinished, parquet.ParquetWriter(unfinished, schema, **_STORAGE) as writer:
            for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
                columns = [array(parts[start : start + len(batch)], string()) for parts in splits.values()]
                writer.write_table(Table.from_arrays([*batch.columns, *columns], schema=schema))
                start += len(batch)


def read_split(path: Path, name: str) -> np.ndarray:
    """The part of each crystal in a split that `add_splits` wrote; None: in no part."""
    from pyarrow import parquet

    column = _split_column(name)
    return text_array(parquet.read_table(path, columns=[column])[column].to_pylist())


def _split_column(name: str) -> str:
    return f"split {name}"


def read(path: Path, targets: Sequence[str | Target] | None) -> FlatCrystals:
    """Read a packed file or a parquet table of flat lists; `CrystalDataset.load` says how."""
    from pyarrow import ArrowException, parquet

    if not path.is_file():
        raise DataError("no such file; check the path", path=path)
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            check_names(schema.names)
            metadata = _packed_metadata(path, schema)
            columns = _choose_columns(file, metadata, targets)
            ids = _ids(file, path, is_packed=bool(metadata))
            # pyarrow before 19 cannot iterate over a file without row groups.
            found = file.iter_batches(batch_size=ROWS_PER_GROUP, columns=columns.names) if file.num_row_groups else ()
            batches = list[FlatCrystals]()
            for batch in found:
                batches.append(_read_batch(batch, columns, ids, sum(map(len, batches))))
    except (ArrowException, OSError) as error:
        raise DataError(f"not a complete parquet file ({error}); copy or make it again", path=path) from error
    units = dict(metadata.get("units", {}))
    units |= {t.name: t.unit for t in targets or () if isinstance(t, Target) and t.unit and not units.get(t.name)}
    source = {"source": with_id_column(str(path), id_column(schema.names))}
    return _joined(batches, columns, units, Provenance(**metadata.get("provenance", source)))


def _schema(targets: Sequence[Target], with_parts: bool, provenance: Provenance) -> pyarrow.Schema:
    import pyarrow

    metadata = {
        "schema_version": SCHEMA_VERSION,
        "units": {target.name: target.unit for target in targets},
        "classes": {target.name: target.classes for target in targets if target.is_class},
        "provenance": dataclasses.asdict(provenance),
    }
    columns = [
        ("id", pyarrow.string()),
        ("atomic_numbers", pyarrow.list_(pyarrow.uint8())),
        ("positions", pyarrow.list_(pyarrow.float64())),
        ("lattice", pyarrow.list_(pyarrow.float64(), 9)),
        *((target.name, pyarrow.float64()) for target in targets),
        *([("split", pyarrow.string())] if with_parts else []),
    ]
    return pyarrow.schema(columns, metadata={METADATA_KEY: json.dumps(metadata).encode()})


def _to_table(crystals: FlatCrystals, schema: pyarrow.Schema) -> pyarrow.Table:
    import pyarrow

    def ragged(values: np.ndarray, offsets: np.ndarray) -> pyarrow.Array:
        return pyarrow.ListArray.from_arrays(pyarrow.array(offsets.astype(np.int32)), pyarrow.array(values))

    columns: dict[str, pyarrow.Array] = {
        "id": pyarrow.array(crystals.ids, pyarrow.string()),
        "atomic_numbers": ragged(crystals.atomic_numbers, crystals.offsets),
        "positions": ragged(crystals.positions.reshape(-1), 3 * crystals.offsets),
        "lattice": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(crystals.lattice.reshape(-1)), 9),
    }
    for name, labels in crystals.targets.items():
        columns[name] = pyarrow.array(labels, from_pandas=True)
    if crystals.parts is not None:
        columns["split"] = pyarrow.array(crystals.parts, pyarrow.string())
    return pyarrow.table([columns[name] for name in schema.names], schema=schema)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file to write in place of `path`, which it becomes once it is complete.

    Raises:
        DataError: another suffix than .parquet, or nothing can be written there.
    """
    if format_of(path) is not PARQUET:
        message = f"a packed data set is a {PARQUET_SUFFIX} file; call it {path.with_suffix(PARQUET_SUFFIX).name}"
        raise DataError(message, path=path)
    with files.writing(path, DataError), files.replacing(path) as unfinished:
        yield unfinished


def _packed_metadata(path: Path, schema: pyarrow.Schema) -> dict[str, Any]:
    text = (schema.metadata or {}).get(METADATA_KEY)
    if text is None:
        return {}
    metadata = json.loads(text)
    if metadata["schema_version"] > SCHEMA_VERSION:
        raise DataError(
            f"packed in format {metadata['schema_version']}, this version reads up to {SCHEMA_VERSION}; "
            "update crystalframer",
            path=path,
            field="schema_version",
            value=metadata["schema_version"],
        )
    return metadata


@dataclass(frozen=True)
class _Columns:
    """Names of the columns of a table, by their content."""

    coordinates: str
    targets: tuple[str, ...]
    classes: Mapping[str, tuple[str, ...]]
    """Those of the targets that are classes."""
    split: str | None

    @property
    def names(self) -> list[str]:
        named = [self.split] if self.split else []
        return [*named, "atomic_numbers", self.coordinates, "lattice", *self.targets]


def _ids(file: Any, path: Path, is_packed: bool) -> list[str]:
    """The ids of all rows. Those of a packed file are complete."""
    if is_packed and "id" in file.schema_arrow.names:
        return file.read(columns=["id"]).column("id").to_pylist()
    names = id_columns(file.schema_arrow.names)
    rows = file.read(columns=list(names)).to_pylist() if names else [{}] * file.metadata.num_rows
    return ids_of_rows(rows, str(path), path)


def _choose_columns(
    file: parquet.ParquetFile, metadata: Mapping[str, Any], targets: Sequence[str | Target] | None
) -> _Columns:
    from pyarrow import types

    schema = file.schema_arrow
    names = schema.names
    coordinates = next((name for name in ("positions", "frac_coords") if name in names), "positions")
    for name in ("atomic_numbers", coordinates, "lattice"):
        if name not in names:
            raise DataError(
                f"has no column {name!r}{suggestion(name, names)}. A table of crystals has the columns "
                "atomic_numbers, positions (or frac_coords) and lattice",
                field=name,
            )
    is_number = {n: types.is_floating(schema.field(n).type) or types.is_integer(schema.field(n).type) for n in names}
    is_truth = {name: types.is_boolean(schema.field(name).type) for name in names}
    is_label = {n: (is_number[n] or is_truth[n]) and is_label_column(n) for n in names}
    labels = list(metadata["units"]) if metadata else [name for name in names if is_label[name]]
    chosen = labels if targets is None else [t if isinstance(t, str) else t.name for t in targets]
    for name in chosen:
        if name not in names:
            raise UnknownTarget(f"has no label column {name!r}", name, labels)
    found = {name: tuple(known) for name, known in metadata.get("classes", {}).items() if name in chosen}
    found |= {name: TRUTHS for name in chosen if is_truth[name]}
    asked = [target for target in targets or () if isinstance(target, Target) and target.is_class]
    for target in asked:
        if target.name not in found and not is_number[target.name]:
            found[target.name] = numbered(_class_names(file.read(columns=[target.name]), target.name), target)[
                0
            ].classes
    return _Columns(coordinates, tuple(chosen), found, "split" if "split" in names else None)


def _read_batch(batch: pyarrow.RecordBatch, columns: _Columns, all_ids: Sequence[str], n_before: int) -> FlatCrystals:
    """The crystals of some rows of a file, before which `n_before` others stand."""
    ids = all_ids[n_before : n_before + len(batch)]
    numbers, n_atoms = _ragged(batch, "atomic_numbers")
    coordinates, n_coordinates = _ragged(batch, columns.coordinates)
    lattice, n_lattice = _ragged(batch, "lattice")
    for row in np.flatnonzero((n_coordinates != 3 * n_atoms) | (n_lattice != 9))[:1].tolist():
        raise DataError(
            f"{ids[row]}: {n_atoms[row]} atomic numbers need {3 * n_atoms[row]} numbers in {columns.coordinates} and 9 "
            f"in lattice, got {n_coordinates[row]} and {n_lattice[row]}",
            row=n_before + row + 1,
        )
    offsets = np.cumsum([0, *n_atoms])
    for atom in np.flatnonzero(~((numbers >= 0) & (numbers <= 255) & (numbers == np.round(numbers))))[:1]:
        row = int(np.searchsorted(offsets, atom, side="right")) - 1
        message = f"{ids[row]}: {numbers[atom]} is no atomic number; correct it"
        raise DataError(message, row=n_before + row + 1, field="atomic_numbers", value=numbers[atom])
    lattice = lattice.astype(np.float64).reshape(-1, 3, 3)
    positions = coordinates.astype(np.float64).reshape(-1, 3)
    if columns.coordinates == "frac_coords":
        # Twice: a coordinate a rounding error below 0 becomes 1 the first time.
        wrapped = positions % 1.0 % 1.0
        positions = np.einsum("ni,nij->nj", wrapped, np.repeat(lattice, n_atoms, axis=0))
    return FlatCrystals(
        ids=text_array(ids),
        atomic_numbers=numbers.astype(np.uint8),
        positions=positions,
        offsets=offsets,
        lattice=lattice,
        targets={name: _labels(batch, name, columns.classes.get(name, ())) for name in columns.targets},
        parts=None if columns.split is None else text_array(batch.column(columns.split).to_pylist()),
    )


def _ragged(batch: pyarrow.RecordBatch, name: str) -> tuple[np.ndarray, np.ndarray]:
    """All values of a list column, and the number of values in each row."""
    import pyarrow.compute

    column = batch.column(name)
    kind = column.type
    if not (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)):
        raise DataError(f"column {name!r} holds {kind}; it must hold flat lists of numbers", field=name)
    lengths = pyarrow.compute.call_function("list_value_length", [column]).fill_null(0)
    values = column.flatten()
    if not (pyarrow.types.is_integer(values.type) or pyarrow.types.is_floating(values.type)):
        raise DataError(f"column {name!r} holds lists of {values.type}; it must hold flat lists of numbers", field=name)
    return values.to_numpy(zero_copy_only=False), lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def _labels(batch: pyarrow.RecordBatch, name: str, classes: tuple[str, ...]) -> np.ndarray:
    """The labels of a target; of one with classes, their numbers."""
    import pyarrow

    column = batch.column(name)
    is_number = pyarrow.types.is_floating(column.type) or pyarrow.types.is_integer(column.type)
    if classes and not is_number:
        return numbered(_class_names(batch, name), Target(name, kind="class", classes=classes))[1]
    if not is_number:
        raise DataError(f"label column {name!r} holds {column.type}; labels must be numbers", field=name)
    return column.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)


def _class_names(batch: pyarrow.RecordBatch | pyarrow.Table, name: str) -> list[str | None]:
    cells = batch.column(name).to_pylist()
    return [class_name(cell, name, row=row) for row, cell in enumerate(cells, start=1)]


def _joined(
    batches: Sequence[FlatCrystals], columns: _Columns, units: Mapping[str, str], provenance: Provenance
) -> FlatCrystals:
    """All batches, one after another."""

    def joined(name: str, empty: np.ndarray) -> np.ndarray:
        return np.concatenate([empty, *(getattr(batch, name) for batch in batches)])

    text = text_array([])
    return FlatCrystals(
        ids=joined("ids", text),
        atomic_numbers=joined("atomic_numbers", np.zeros(0, dtype=np.uint8)),
        positions=joined("positions", np.zeros((0, 3))),
        offsets=np.cumsum(joined("n_atoms", np.zeros(1, dtype=np.int64))),
        lattice=joined("lattice", np.zeros((0, 3, 3))),
        targets={name: np.concatenate([np.zeros(0), *(b.targets[name] for b in batches)]) for name in columns.targets},
        units=units,
        classes=columns.classes,
        parts=joined("parts", text) if columns.split else None,
        provenance=provenance,
    )
