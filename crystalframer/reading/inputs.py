"""Inputs of all kinds as crystals: files, folders, patterns, tables, lists, data sets and structures in memory."""

from __future__ import annotations

import glob
import itertools
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import CrystalError, CrystalFramerError, CrystalWarning, DataError
from crystalframer.reading import formats
from crystalframer.reading.columns import check_names, is_missing, row_id
from crystalframer.reading.entry import BEGINNING, Entry, Start, StructureRecord
from crystalframer.reading.objects import is_instance, is_one_structure, is_structure, to_crystal

Kind = TypeVar("Kind", bound=CrystalFramerError)
_EXPECTED = (CrystalFramerError, OSError, UnicodeDecodeError)
"""Errors of a file that cannot be read."""
_SHOWN = 3
"""Names of skipped files in one message."""


def read(source: Any, id: str = "") -> Crystal:
    """Read one structure.

        >>> salt = cf.read("NaCl.cif")
        >>> salt.formula, len(salt)
        ('NaCl', 8)

    Positions are wrapped into the cell. Deuterium and tritium are read as hydrogen.

    Args:
        source: the path of a file that holds one structure (CIF, POSCAR, extended XYZ, PDB, SHELX, JSON, or another
            format whose content is certain), which may be compressed; a pymatgen `Structure`, ASE `Atoms` or `Crystal`;
            CIF text; or a mapping or pandas row with `atomic_numbers`, `positions` (Cartesian, Å) or `frac_coords`, and
            `lattice` (rows, Å), flat or nested, or with a `structure` (or `atoms`): a Structure, its dictionary, a
            JARVIS `atoms` dictionary or CIF text.
        id: name of the crystal. Default: the source's own (an id column, the name of the file).

    Raises:
        CrystalError: no structure that the model can take, several structures, or the library that reads this kind of
            file is not installed; the message names file, site and what to do.
    """
    if not _is_path(source):
        return to_crystal(source, id)
    path = Path(source).expanduser()
    if glob.has_magic(str(source)) and not path.exists():
        raise CrystalError("is a pattern, not a file; read_all takes patterns", path=path)
    entry, *others = itertools.islice(_entries_of(path), 2)
    if others:
        raise CrystalError("holds several structures where one is expected; read them with read_all", path=path)
    return crystal_of(replace(entry, id=id) if id else entry)


def read_all(structures: Any) -> list[Crystal]:
    """Read all structures of a file, a folder, a table or any other input.

        >>> crystals = cf.read_all("trajectory.extxyz")
        >>> [crystal.id for crystal in crystals]
        ['trajectory-1', 'trajectory-2', 'trajectory-3']

    Args:
        structures: anything that `iter_structures` takes.

    Returns:
        Crystals in the order of the input, with unique ids.

    Raises:
        CrystalError: the first structure that cannot be read; its `path` and `row` say which.
    """
    taken: dict[str, int] = {}
    return [_renamed(crystal, _unique(crystal.id, taken)) for crystal in map(crystal_of, iter_entries(structures))]


def iter_structures(inputs: Any) -> Iterator[StructureRecord]:
    """Every structure of the inputs, in order; one that cannot be read becomes a record with an error.

    Args:
        inputs: anything `read` takes, and also: files of several structures, tables (CSV, JSON, JSON lines, parquet,
            packed data sets), databases (of ASE, LMDB), folders, glob patterns, DataFrames, `CrystalDataset`s, lists of
            all these, and a pandas Series or dictionary of structures or paths, whose index or keys are the ids.

    Yields:
        Records with unique ids: the source's own, else the file's stem (with the number of the structure or row if it
        has several), else the formula; repeated ones get `-2`, `-3`, ...
    """
    taken: dict[str, int] = {}
    for entry in iter_entries(inputs):
        record = record_of(entry)
        id = _unique(record.id, taken)
        crystal = record.crystal and _renamed(record.crystal, id)
        yield StructureRecord(id, record.source or id, crystal, record.error, entry.item)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table or database in order, as dictionaries. Cells of a CSV file are text.

    Raises:
        DataError: the file is missing, is no table, cannot be read as what its suffix says, or has no rows.
    """
    if not formats.is_table(path):
        raise DataError(f"not a table; known are {', '.join(formats.ROWS)}", path=path)
    for entry in _entries_of(path):
        if isinstance(entry.structure, CrystalFramerError):
            raise _located(entry.structure, DataError, path).at(row=entry.row) from entry.structure
        yield entry.structure


def crystal_of(entry: Entry) -> Crystal:
    """The crystal of an entry.

    Raises:
        CrystalError: there is none; the error has the path and row of the entry.
    """
    try:
        if isinstance(entry.structure, CrystalFramerError):
            raise entry.structure
        crystal = to_crystal(entry.structure, entry.id)
        return crystal if crystal.id else replace(crystal, id=crystal.formula)
    except CrystalFramerError as error:
        located = _located(error, CrystalError, entry.path)
        raise located.at(row=entry.row, row_word=entry.row_word) from error
    except CrystalWarning as warning:  # where warnings are errors: of this structure, not of all
        raise CrystalError(str(warning), path=entry.path).at(row=entry.row, row_word=entry.row_word) from warning


def record_of(entry: Entry) -> StructureRecord:
    """The crystal of an entry, or the error, as a record, whose id need not be unique."""
    try:
        crystal = crystal_of(entry)
    except CrystalError as error:
        return StructureRecord(entry.id or entry.source or "structure", entry.source, None, str(error))
    return StructureRecord(crystal.id, entry.source, crystal, None)


def iter_entries(inputs: Any) -> Iterator[Entry]:
    """The entries of inputs, before crystals are made of them."""
    if _is_path(inputs):
        try:
            found = files_of(str(inputs))
        except CrystalError as error:
            yield Entry(error, str(inputs), path=Path(inputs))
        else:
            say_what_is_skipped(Path(inputs).expanduser(), found)
            yield from itertools.chain.from_iterable(map(_entries_of, found))
    elif is_instance(inputs, "pandas", "DataFrame"):
        yield from _rows_of_frame(inputs)
    elif (named := _named_structures(inputs)) is not None:
        for number, (name, item) in enumerate(named):
            for entry in iter_entries(item):
                yield _as_item(replace(entry, id=name if entry.row is None else f"{name}-{entry.row}"), number)
    elif is_structure(inputs) or not isinstance(inputs, Iterable):
        yield Entry(inputs)
    else:
        for number, item in enumerate(inputs):
            yield from (_as_item(entry, number) for entry in iter_entries(item))


def _as_item(entry: Entry, number: int) -> Entry:
    """An entry of an item in memory, counted from 0. Of one that is no file or row, messages give the number."""
    is_item = entry.path is None and entry.row is None
    place: dict[str, Any] = {"row": number + 1, "row_word": "item"} if is_item else {}
    return replace(entry, item=number, **place)


def _rows_of_frame(frame: Any) -> Iterator[Entry]:
    """The rows of a DataFrame. Their ids are those of a column, or else the index if it says more than a number.

    Raises:
        DataError: two columns have the same name.
    """
    check_names(frame.columns)
    is_numbered = is_instance(frame.index, "pandas", "RangeIndex")
    for row, (label, cells) in enumerate(zip(frame.index, frame.to_dict("records"), strict=True), start=1):
        yield Entry(cells, row_id(cells) or (f"row-{row}" if is_numbered else _text_of(label)), row, item=row - 1)


def _named_structures(inputs: Any) -> list[tuple[str, Any]] | None:
    """The structures, paths or rows of a Series or dictionary with their names; None if it is one row by itself."""
    if not isinstance(inputs, Mapping) and not is_instance(inputs, "pandas", "Series"):
        return None
    named = [(_text_of(name), item) for name, item in inputs.items()]
    if is_one_structure(inputs.keys()) or not all(_may_be_structure(item) for _, item in named):
        return None
    return named


def _may_be_structure(value: Any) -> bool:
    """Whether a value is a structure or stands for one, or is missing, and is no cell of a row."""
    if isinstance(value, Mapping) or is_instance(value, "pandas", "Series"):
        return is_one_structure(value.keys())
    return is_structure(value) or isinstance(value, Path) or is_missing(value)


def _text_of(label: Any) -> str:
    """A label of an index, or of each of its levels, as an id."""
    return "-".join(map(str, label)) if isinstance(label, tuple) else str(label)


def files_of(text: str) -> list[Path]:
    """The files that a path or pattern stands for, by name.

    Raises:
        CrystalError: a folder or pattern without any.
    """
    if not text.strip():
        raise CrystalError("the path is empty; name a file or a folder")
    path = Path(text).expanduser()
    if path.is_dir() and not formats.may_be_folder(path):
        found = formats.structure_files(path) or formats.parquet_files(path)
        problem = f"the folder holds no structure files ({', '.join(formats.STRUCTURES)}), databases or parquet tables"
        problem += "" if found else _advice_on_folders(path)
    elif glob.has_magic(text) and not path.exists():
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
        found = [file for file in map(Path, names) if file.is_file() or formats.may_be_folder(file)]
        problem = "no file matches this pattern"
    else:
        return [path]
    if not found:
        raise CrystalError(problem, path=text)
    return found


def say_what_is_skipped(folder: Path, taken: Collection[Path], patterns: bool = True) -> None:
    """Say on standard error which files of a folder are not read, and why. Of anything else, say nothing.

    Args:
        patterns: whether to name a pattern that reads sub-folders.
    """
    if not folder.is_dir() or formats.may_be_folder(folder):
        return
    skipped: dict[str, list[str]] = {}
    for path in sorted(set(folder.iterdir()) - set(taken)):
        if reason := formats.why_skipped(path):
            skipped.setdefault(reason, []).append(path.name)
    counted = []
    for reason, names in skipped.items():
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        counted.append(f"{len(names):,} {reason} ({shown})")
    if counted:
        advice = _advice_on_folders(folder) if patterns else ""
        print(f"{folder}: skipped {'; '.join(counted)}{advice}", file=sys.stderr)


def _advice_on_folders(folder: Path) -> str:
    """A pattern that reads structure files in the sub-folders of a folder; empty if there are none."""
    with suppress(OSError):  # one that may not be read
        below = (file for child in sorted(folder.iterdir()) if child.is_dir() for file in sorted(child.iterdir()))
        for example in filter(formats.has_name_of_structure, below):
            name = f"*{example.suffix}" if example.suffix else example.name
            return f"; sub-folders are read with a pattern: {folder / '**' / name}"
    return ""


def all_paths(inputs: Any) -> list[str] | None:
    """The paths and patterns of inputs that are nothing else, so that every process can read them; else None."""
    given = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    return [str(path) for path in given] if all(map(_is_path, given)) else None


def expected_count(inputs: Any) -> int | None:
    """How many structures to expect, for the remaining time; None if only reading them tells."""
    if _is_path(inputs):
        unknown = 1 if Path(inputs).expanduser().is_dir() else None
        try:
            counts = [formats.format_of(file).count(file) or unknown for file in files_of(str(inputs))]
        except _EXPECTED:
            return None
    elif isinstance(inputs, (list, tuple)):
        counts = [expected_count(item) for item in inputs]
    elif (named := _named_structures(inputs)) is not None:
        counts = [expected_count(item) for _, item in named]
    elif isinstance(inputs, Sized) and not is_structure(inputs):
        return len(inputs)
    else:
        return None if isinstance(inputs, Iterator) else 1
    return None if None in counts else sum(count for count in counts if count is not None)


@dataclass(frozen=True)
class Span:
    """Consecutive entries of one file."""

    path: Path
    start: Start
    n_entries: int
    ends_file: bool = False
    """Whether the file should have no entries after these."""

    def entries(self) -> Iterator[Entry]:
        """As many as there should be: those that a damaged or changed file does not give are errors.

        Raises:
            DataError: the format counts other entries than it reads.
        """
        missing = error = CrystalError("the file ends before this row; has it changed meanwhile?")
        row = self.start.n_before
        found = _entries_of(self.path, self.start)
        for entry in itertools.islice(found, self.n_entries):
            row += 1
            is_error = isinstance(entry.structure, CrystalFramerError)
            if entry.row != row and not (entry.row is None and (row == 1 or is_error)):
                message = f"the reader gave entry {entry.row or 1} here; `entries` must begin at `start`"
                raise DataError(message, path=self.path, row=row)
            error = entry.structure if is_error else missing
            yield entry
        if self.ends_file and next(found, None) is not None:
            message = "not counted, but read; has the file changed? If not, `starts` of its format must find it"
            raise DataError(message, path=self.path, row=row + 1)
        for lost in range(row + 1, self.start.n_before + self.n_entries + 1):
            yield _in_file(Entry(error, row=lost), self.path, formats.name_of(self.path))


def starts(path: Path) -> Iterator[Start]:
    """Where the entries of a file start, found without reading them where the format allows: at least one, which is an
    error if the file cannot be read.
    """
    is_empty = True
    try:
        for start in formats.format_of(path).starts(path):
            is_empty = False
            yield start
    except _EXPECTED:
        pass  # the reader says it
    if is_empty:
        yield BEGINNING


def _is_path(source: Any) -> bool:
    """Whether this is a path or pattern, rather than CIF or JSON text, or something else."""
    if isinstance(source, str):
        return "\n" not in source and not source.lstrip().startswith("{")
    return isinstance(source, Path)


def _entries_of(path: Path, start: Start = BEGINNING) -> Iterator[Entry]:
    """The entries of a file from a start on. What ends the file early is an entry with an error, the last one."""
    format, name = formats.format_of(path), formats.name_of(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode) and not formats.may_be_folder(path):
            raise CrystalError("is a folder, not a structure file; name the file, or use read_all")
        if status.st_size == 0:
            raise CrystalError("the file is empty; copy it again")
        for entry in format.entries(path, start):
            yield _in_file(entry, path, name)
    except CrystalWarning as warning:
        yield _in_file(Entry(CrystalError(str(warning))), path, name)
    except _EXPECTED as error:
        yield _in_file(Entry(_located(error, CrystalError, path)), path, name)


def _in_file(entry: Entry, path: Path, name: str) -> Entry:
    """An entry with its file, and with an id from the name of the file if it has none."""
    return replace(entry, path=path, id=entry.id or (name if entry.row is None else f"{name}-{entry.row}"))


def _located(error: Exception, kind: type[Kind], path: Path | None) -> Kind:
    """An error of reading a file as one of this kind, with the path."""
    if isinstance(error, CrystalFramerError):
        located = kind(error.message)
        located.__dict__.update(error.__dict__)
        return located.at(path=path)
    if isinstance(error, FileNotFoundError):
        return kind("no such file; check the path", path=path)
    if isinstance(error, UnicodeDecodeError):
        return kind(f"not UTF-8 text ({error}); save it again as UTF-8", path=path)
    return kind(f"cannot be read ({error})", path=path)


def _renamed(crystal: Crystal, id: str) -> Crystal:
    return crystal if crystal.id == id else replace(crystal, id=id)


def _unique(name: str, taken: dict[str, int]) -> str:
    """The name, or the name with the lowest number from 2 that makes it new.

    Args:
        taken: names so far, and the number that each would get next: a name that thousands share is not counted anew.
    """
    unique, number = name, taken.get(name, 1)
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    taken[name] = number
    taken.setdefault(unique, 1)
    return unique
