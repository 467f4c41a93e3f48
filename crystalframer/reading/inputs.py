"""Inputs of all kinds as crystals: files, folders, patterns, tables, lists, data sets and structures in memory."""

from __future__ import annotations

import glob
import io
import itertools
import os
import stat
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar

from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import CrystalError, CrystalFramerError, CrystalWarning, DataError, is_of_machine, listed
from crystalframer.libraries import reason
from crystalframer.reading import formats
from crystalframer.reading.columns import check_names, id_column, id_columns, id_in, is_missing, is_name, names_files
from crystalframer.reading.entry import BEGINNING, Entry, Start, StructureRecord
from crystalframer.reading.notices import forgotten
from crystalframer.reading.objects import (
    is_instance,
    is_one_structure,
    is_structure,
    structure_columns,
    to_crystal,
)

Kind = TypeVar("Kind", bound=CrystalFramerError)
_EXPECTED = (CrystalFramerError, OSError, UnicodeDecodeError, MemoryError)
"""Errors of a file that cannot be read."""
_WALKED = 1000
"""Sub-folders in which an example of a structure file is looked for."""
_LONGEST_NAME = 80
"""Letters of an input that is no path in a message."""
_LARGE = 10_000_000
"""Bytes of a file that takes longer to read than torch to import."""
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
        return _crystal(Entry(source, id))
    path = _expanded(str(source))
    if glob.has_magic(str(source)) and not path.exists():
        raise CrystalError("is a pattern, not a file; read_all takes patterns", path=path)
    entry = _only_entry(path)
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
    crystals = list(map(crystal_of, iter_entries(structures)))
    ids = unique_ids([crystal.id for crystal in crystals], {crystal.formula for crystal in crystals})
    return [crystal if crystal.id == id else replace(crystal, id=id) for crystal, id in zip(crystals, ids, strict=True)]


def readable(structures: Any) -> list[Crystal]:
    """Read all structures for an analysis, of which each must be there.

    >>> from crystalframer.reading.inputs import readable
    >>> from crystalframer.testing import random_crystal
    >>> [crystal.id for crystal in readable([random_crystal(seed, n_atoms=2) for seed in (1, 2)])]
    ['random-1', 'random-2']

    Raises:
        CrystalError: a structure cannot be read, or there is none.
    """
    try:
        crystals = read_all(structures)
    except CrystalError as error:
        raise CrystalError(f"{error}; leave this structure out, or repair it") from error
    if not crystals:
        raise CrystalError("there are no structures; name files, or give structures")
    return crystals


def iter_structures(inputs: Any) -> Iterator[StructureRecord]:
    """Every structure of the inputs, in order; one that cannot be read becomes a record with an error.

    Args:
        inputs: anything `read` takes, and also: files of several structures, tables (CSV, JSON, JSON lines, parquet,
            packed data sets), databases (of ASE, LMDB), folders, glob patterns, DataFrames, `CrystalDataset`s, lists of
            all these, and a pandas Series or dictionary of structures or paths, whose index or keys are the ids.

    Yields:
        Records with the id of their source (see `id_of_row`), else the file's stem (with the number of the structure or
        row if it has several), else the formula. They may repeat: see `unique_ids`.
    """
    for entry in iter_entries(inputs):
        record = record_of(entry)
        yield replace(record, source=record.source or record.id, item=entry.item)


def none_readable(inputs: Sequence[str]) -> list[StructureRecord] | None:
    """The records of paths and patterns if none of them gives a crystal, else None.

    Quick where there is a crystal: it reads no further than the first, and no large file. What is said about the inputs
    on standard error is said only if there is none, because whoever reads them again says it then.
    """
    if any(path.stat().st_size > _LARGE for path in map(Path, inputs) if path.is_file()):
        return None
    records, said = [], io.StringIO()
    with warnings.catch_warnings(), forgotten(), redirect_stderr(said):
        for record in iter_structures(inputs):
            if record.crystal is not None:
                return None
            records.append(record)
    sys.stderr.write(said.getvalue())
    return records


def check_exist(inputs: Iterable[str]) -> None:
    """Check that there are files for all paths and patterns.

    Raises:
        CrystalError: there is none for one of them.
    """
    for text in inputs:
        for path in files_of(text):
            if not path.exists():
                raise _located(FileNotFoundError(), CrystalError, path)


def unique_ids(ids: Sequence[str], formulas: Collection[str] = ()) -> list[str]:
    """Ids that differ. The first of equal ones keeps its id; the others get the next of `-2`, `-3`, ... that nobody
    has. A line on standard error says so.

    >>> unique_ids(["NaCl", "NaCl", "NaCl-2"], {"NaCl"})
    ['NaCl', 'NaCl-3', 'NaCl-2']

    Args:
        formulas: ids of which it need not be said, because they were made of formulas.
    """
    natural = set(ids)
    if len(natural) == len(ids):
        return list(ids)
    next_number = dict.fromkeys(natural, 1)
    unique = []
    for id in ids:
        new = id
        while next_number[id] > 1 and new in next_number:
            new = f"{id}-{next_number[id]}"
            next_number[id] += 1
        next_number[id] = max(next_number[id], 2)
        next_number.setdefault(new, 2)
        unique.append(new)
    changed = [(id, new) for id, new in zip(ids, unique, strict=True) if id != new and id not in formulas]
    if changed:
        text = f"{len(changed):,} of {len(ids):,} ids are repeated and get a number, such as {changed[0][1]!r}"
        print(text, file=sys.stderr)
    return unique


def id_of_row(row: Mapping[Any, Any]) -> str:
    """The id of a row: of the first column in the order of `id_columns` that is filled, else of the file that holds its
    structure; empty if there is neither. A file gives the name that its structure has without a table.
    """
    for name in id_columns(row):
        if id := id_in(name, row[name]):
            return (names_files(name) and _name_of_file(id)) or id
    files = (_name_of_file(str(row[name])) for name in structure_columns(row) if _names_file(row[name]))
    return next(filter(None, files), "")


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


def ids_of_rows(rows: Sequence[Mapping[str, Any]], name: str, path: Path | None = None) -> list[str]:
    """The ids of a table in memory, as those of a table that is read row by row. Names that repeat get numbers (see
    `unique_ids`); repeated ids stay for the caller to refuse.

    Args:
        name: of the table, for messages.
        path: the file that it was read from, if it is one.
    """
    entries = (Entry(cells, row=row) for row, cells in enumerate(rows, start=1))
    if path is None:
        named = (replace(entry, id=id_of_row(entry.structure) or f"row-{entry.row}") for entry in entries)
    else:
        named = (_in_file(entry, path, formats.name_of(path)) for entry in entries)
    ids = [entry.id for entry in saying_which_lack_ids(named, name)]
    column = id_column(dict.fromkeys(name for cells in rows for name in cells))
    return unique_ids(ids) if column is not None and is_name(column) else ids


def crystal_of(entry: Entry) -> Crystal:
    """The crystal of an entry. One without an id gets its formula for it.

    Raises:
        CrystalError: there is none; the error has the path and row of the entry.
    """
    crystal = _crystal(entry)
    return crystal if crystal.id else crystal.called(crystal.formula)


def _crystal(entry: Entry) -> Crystal:
    try:
        if isinstance(entry.structure, CrystalFramerError):
            raise entry.structure
        row = _row_of(entry.structure)
        structure = entry.structure if row is None else _with_files(row, entry.path)
        return to_crystal(structure, entry.id or ("" if row is None else id_of_row(row)))
    except (CrystalFramerError, MemoryError) as error:
        located = _located(error, CrystalError, entry.path)
        raise located.at(row=entry.row, row_word=entry.row_word) from error
    except CrystalWarning as warning:  # where warnings are errors: of this structure, not of all
        raise CrystalError(str(warning), path=entry.path).at(row=entry.row, row_word=entry.row_word) from warning


def record_of(entry: Entry) -> StructureRecord:
    """The crystal of an entry, or the error, as a record, whose id need not be unique."""
    try:
        crystal = crystal_of(entry)
    except CrystalError as error:
        name = entry.id or entry.source or "structure"
        return StructureRecord(name, entry.source, None, str(error), of_machine=error.of_machine)
    return StructureRecord(crystal.id, entry.source, crystal, None)


def iter_entries(inputs: Any) -> Iterator[Entry]:
    """The entries of inputs, before crystals are made of them."""
    if _is_path(inputs):
        try:
            found = files_of(str(inputs))
        except CrystalError as error:
            yield Entry(error, str(inputs)[:_LONGEST_NAME], path=Path(error.path) if error.path else None)
        else:
            say_what_is_skipped(_expanded(str(inputs)), found)
            for path in found:
                yield from saying_which_lack_ids(_entries_of(path), str(path))
    elif is_instance(inputs, "pandas", "DataFrame"):
        yield from saying_which_lack_ids(_rows_of_frame(inputs), "the table")
    elif (named := _named_structures(inputs)) is not None:
        for number, (name, item) in enumerate(named):
            for entry in iter_entries(item):
                yield _as_item(replace(entry, id=name if entry.row is None else f"{name}-{entry.row}"), number)
    elif is_structure(inputs) or not isinstance(inputs, Iterable):
        yield Entry(inputs)
    else:
        for number, item in enumerate(inputs):
            yield from (_as_item(entry, number) for entry in iter_entries(item))


def saying_which_lack_ids(entries: Iterable[Entry], name: str) -> Iterator[Entry]:
    """The entries of a file or table. After the last, a line on standard error tells of rows without an id, if others
    have one in the same column.
    """
    column, n_rows, without = None, 0, []
    for entry in entries:
        if entry.row is not None and (row := _row_of(entry.structure)) is not None:
            n_rows += 1
            column = column or id_column(row)
            if column is None or not id_in(column, row.get(column)):
                without.append(entry.id)
        yield entry
    if column is not None and without:
        called = listed([repr(id) for id in without], _SHOWN)
        problem = f"{len(without):,} of {n_rows:,} rows have no id in the column {column!r}"
        print(f"{name}: {problem}; they are called {called}", file=sys.stderr)


def _row_of(structure: Any) -> Mapping[Any, Any] | None:
    """A row or dictionary; None for any other structure."""
    if is_instance(structure, "pandas", "Series"):
        return structure.to_dict()
    return structure if isinstance(structure, Mapping) else None


def _with_files(row: Mapping[Any, Any], table: Path | None) -> Mapping[Any, Any]:
    """A row with crystals in place of the names of their files.

    Args:
        table: the file of the row, to whose folder names are relative; None: the current folder.

    Raises:
        CrystalError: there is no such file, or it holds no structure; the column is named.
    """
    columns = structure_columns(row)
    if table is not None and table.name == formats.ID_PROP and not columns:
        raise CrystalError("holds labels of the structure files beside it, and no header; name their folder instead")
    named = [name for name in columns if _names_file(row[name])]
    has_others = any(not is_missing(row[name]) for name in columns if name not in named)
    crystals = {}
    for name in named:
        path = _file_named(str(row[name]), table)
        if path is not None:
            crystals[name] = _crystal_of_file(path, name)
        elif not has_others:  # else it may be a word about the structure
            folder = Path.cwd() if table is None else table.absolute().parent
            problem = f"{name} is {str(row[name])[:80]!r}, which is no file in {folder}"
            raise CrystalError(f"{problem}, and no text of CIF, POSCAR or JSON", field=name, value=row[name])
    return {**row, **crystals} if crystals else row


def _crystal_of_file(path: Path, column: str) -> Crystal:
    """The crystal of a file that a column names. It may not be a table that names further files."""
    try:
        entry = _only_entry(path)
        if isinstance(entry.structure, CrystalFramerError):
            raise entry.structure
        return to_crystal(entry.structure, entry.id)
    except CrystalFramerError as error:
        problem = f"{column}: {_located(error, CrystalError, path)}"
        raise CrystalError(problem, site=error.site, field=column) from error


def _only_entry(path: Path) -> Entry:
    """The entry of a file that holds one structure.

    Raises:
        CrystalError: it holds several.
    """
    entry, *others = itertools.islice(_entries_of(path), 2)
    if others:
        raise CrystalError("holds several structures where one is expected; read them with read_all", path=path)
    return entry


def _names_file(cell: Any) -> bool:
    """Whether a cell is one line of text, and so no structure itself."""
    return _is_path(cell) and not is_missing(cell)


def _file_named(cell: str, table: Path | None) -> Path | None:
    """The file that a cell of a table names, perhaps as Windows writes it; None if there is none."""
    folder = Path() if table is None else table.parent
    for text in (cell.strip(), PureWindowsPath(cell.strip()).as_posix()):
        # Of text that can be no path: it is too long, names no user after `~`, or has a zero byte.
        with suppress(OSError, RuntimeError, ValueError):
            if (path := folder / Path(text).expanduser()).is_file():
                return path
    return None


def _name_of_file(cell: str) -> str:
    """The id of the structure in a file that a cell names; empty if its name tells no format."""
    path = Path(PureWindowsPath(cell).as_posix())
    return formats.name_of(path) if formats.is_known(path) else ""


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
        yield Entry(cells, id_of_row(cells) or (f"row-{row}" if is_numbered else _text_of(label)), row, item=row - 1)


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
    path = _expanded(text)
    if path.is_dir() and not formats.may_be_folder(path):
        found = formats.structure_files(path) or formats.parquet_files(path)
        problem = f"the folder holds no structure files ({', '.join(formats.STRUCTURES)}), databases or parquet tables"
        problem += "" if found else advice_on_tables(path) + _advice_on_folders(path)
    elif glob.has_magic(text) and not path.exists():
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
        found = [file for file in map(Path, names) if file.is_file() or formats.may_be_folder(file)]
        problem = "no file matches this pattern; check the folder and the suffix"
    else:
        return [path]
    if not found:
        raise CrystalError(problem, path=text)
    return found


def _expanded(text: str) -> Path:
    """A path with the home of a user in place of `~`.

    Raises:
        CrystalError: there is no such user, or the text can be no path.
    """
    try:
        path = Path(text).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # which the reader says
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        raise CrystalError(f"{text[:_LONGEST_NAME]!r} can be no path ({reason(error)[:80]}); check it") from error
    return path


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
        shown = listed(names, _SHOWN)
        counted.append(f"{len(names):,} {reason} ({shown})")
    if counted:
        advice = _advice_on_folders(folder) if patterns else ""
        print(f"{folder}: skipped {'; '.join(counted)}{advice}", file=sys.stderr)


def advice_on_tables(folder: Path) -> str:
    """Names of tables in a folder, which are not read with it; empty if there are none."""
    names = [path.name for path in sorted(folder.iterdir()) if path.is_file() and formats.is_table(path)]
    shown = listed(names, _SHOWN)
    return f"; to read a table, name the file ({shown})" if names else ""


def _advice_on_folders(folder: Path) -> str:
    """A pattern that reads structure files in the sub-folders of a folder; empty if there are none."""
    for place, below, names in itertools.islice(os.walk(folder), _WALKED):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for example in filter(formats.has_name_of_structure, map(Path, sorted(names) if Path(place) != folder else ())):
            pattern = f"*{example.suffix}" if example.suffix else example.name
            return f"; sub-folders are read with a pattern: {folder / '**' / pattern}"
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
            if is_error and not self.path.exists():  # it was there when it was counted
                error.of_machine = True
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
    id = entry.id
    if not id and entry.row is not None and (row := _row_of(entry.structure)) is not None:
        id = id_of_row(row)
    return replace(entry, path=path, id=id or (name if entry.row is None else f"{name}-{entry.row}"))


def _located(error: Exception, kind: type[Kind], path: Path | None) -> Kind:
    """An error of reading a file as one of this kind, with the path."""
    if isinstance(error, CrystalFramerError):
        located = kind(error.message)
        located.__dict__.update(error.__dict__, of_machine=is_of_machine(error))
        return located.at(path=path)
    if isinstance(error, FileNotFoundError):
        return kind("no such file or folder; check the path", path=path)
    if isinstance(error, UnicodeDecodeError):
        return kind(f"not UTF-8 text ({error}); save it again as UTF-8", path=path)
    reason = "it needs more memory than there is" if isinstance(error, MemoryError) else error
    located = kind(f"cannot be read ({reason})", path=path)
    located.of_machine = is_of_machine(error)
    return located
