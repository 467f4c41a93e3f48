"""The formats of files: one table, the only place that knows suffixes.

To add a format, write a module with the functions of `Format` (and that of `Writable`, if crystals are to be written in
it as well) and add a row below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from crystalframer import files
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import CrystalError, DataError
from crystalframer.reading import ase_files, databases, json_files, tables, xyz
from crystalframer.reading.cif import CIF
from crystalframer.reading.entry import Entry, Start
from crystalframer.reading.pdb import PDB
from crystalframer.reading.poscar import POSCAR, XDATCAR
from crystalframer.reading.shelx import SHELX
from crystalframer.reading.tables import Row, Table
from crystalframer.reading.unpacking import COMPRESSIONS, unpacked

if TYPE_CHECKING:
    import pandas


@runtime_checkable
class Format(Protocol):
    """How files of one kind are read: a module, or an object with these functions.

    They may raise a `CrystalFramerError` (without the path, which `inputs` adds) or an `OSError`.
    """

    def entries(self, path: Path, start: Start, /) -> Iterator[Entry]:
        """The entries from a start on. One that cannot be read has an error in its place."""
        ...

    def starts(self, path: Path, /) -> Iterator[Start]:
        """Where the entries start, found without reading them as far as the format allows."""
        ...

    def count(self, path: Path, /) -> int | None:
        """How many entries to expect, for progress bars; None if only reading tells."""
        ...


@runtime_checkable
class Writable(Protocol):
    """A format that crystals are written in."""

    def text(self, crystal: Crystal, /) -> str:
        """The content of a file that holds this crystal."""
        ...


PARQUET_SUFFIX = ".parquet"
STRUCTURES: dict[str, Format] = {
    ".cif": CIF,
    ".mcif": CIF,
    "POSCAR": POSCAR,
    "CONTCAR": POSCAR,
    ".vasp": POSCAR,
    ".poscar": POSCAR,
    ".contcar": POSCAR,
    ".xyz": xyz,
    ".extxyz": xyz,
    ".pdb": PDB,
    ".res": SHELX,
    ".xsf": ase_files,
}
"""Suffix, or beginning of the name → format of structures. These files are taken from a folder."""
TABLES: dict[str, Format] = {
    ".csv": tables.CSV,
    ".tsv": tables.TSV,
    ".json": json_files,
    ".jsonl": tables.JSON_LINES,
    PARQUET_SUFFIX: tables.PARQUET,
}
"""Suffix → format of tables. In a folder they may hold labels, so only JSON files of a structure are taken from it."""
DATABASES: dict[str, Format] = {".db": databases.ASE, ".lmdb": databases.LMDB, ".aselmdb": databases.LMDB}
"""Suffix → format of databases, whose entries are rows as well. They are taken from a folder."""
NAMED: dict[str, Format] = {"XDATCAR": XDATCAR, ".ent": PDB, ".ins": SHELX}
"""The same for files that are not taken from a folder: they may hold many steps, or stand beside a result."""
ROWS: dict[str, Format] = {**TABLES, **DATABASES}
"""Suffix → format of files whose entries are rows, which may hold labels."""
ID_PROP = "id_prop.csv"
"""The table of labels of CGCNN and ALIGNN: ids or files, and values; without a header."""
_LABELS = ("labels", "id_prop")
_NO_STRUCTURES = ("atom_init", "readme", "license", "licence", "thumbs")
"""Stems of files that belong to a folder of structures: features of CGCNN, texts, previews of Windows."""
FORMATS: dict[str, Format] = {**STRUCTURES, **NAMED, **ROWS}
"""Suffix, or beginning of the name → format. A file that is named itself may have any other: then ASE reads it."""


_OF_A_RUN = ("POSCAR", "CONTCAR", "XDATCAR", "OUTCAR", "VASPRUN")
"""Stems that tell nothing: the folder of a run has the name."""


@dataclass(frozen=True)
class Packed:
    """A format in compressed files, each of which is unpacked before it is read."""

    format: Format

    def entries(self, path: Path, start: Start, /) -> Iterator[Entry]:
        with unpacked(path) as plain:
            yield from self.format.entries(plain, start)

    def starts(self, path: Path, /) -> Iterator[Start]:
        with unpacked(path) as plain:
            yield from self.format.starts(plain)

    def count(self, path: Path, /) -> int | None:
        return None


_NAMES = tuple(key for key in FORMATS if not key.startswith("."))


def format_of(path: Path) -> Format:
    format = FORMATS.get(_key(path), ase_files)
    return format if _plain(path) is path else Packed(format)


def is_known(path: Path) -> bool:
    """Whether the name of a file tells its format."""
    return _key(path) in FORMATS


def is_table(path: Path) -> bool:
    """Whether the entries of a file are rows."""
    return _key(path) in ROWS


def name_of(path: Path) -> str:
    """The stem of a file without the suffix of a compression; for a file that VASP names the same in each run, such as
    POSCAR or vasprun.xml, its folder.

    Of `POSCAR.mp-22862` it is the whole name: many files of a folder have the same stem.
    """
    plain = _plain(path)
    if plain.stem.upper() in _OF_A_RUN and (not plain.suffix or plain.suffix.lower() in (*FORMATS, ".xml")):
        return path.absolute().parent.name
    return plain.name if plain.suffix.lower() not in FORMATS and _beginning(plain) else plain.stem


def other_names(path: Path) -> set[str]:
    """What a table of labels may call a file besides `name_of`: `POSCAR-JVASP-10.vasp`, `JVASP-10`."""
    plain = _plain(path)
    names = {path.name, plain.name, plain.stem}
    if beginning := _beginning(plain):
        names |= {name.removeprefix(beginning).lstrip(".-_") for name in (plain.name, plain.stem)}
    return names - {"", beginning}


def may_be_folder(path: Path) -> bool:
    """Whether a folder of this name is a database."""
    return format_of(path) is databases.LMDB


def structure_files(folder: Path) -> list[Path]:
    """Files of a folder that hold structures, by name; none that is hidden."""
    return [path for path in sorted(folder.iterdir()) if _is_structure_file(path)]


def parquet_files(folder: Path) -> list[Path]:
    """Tables of a folder of results, by name; none that is hidden."""
    return sorted(folder.glob(f"[!._]*{PARQUET_SUFFIX}"))


def label_files(folder: Path) -> list[Path]:
    """Tables of a folder that are called `labels`, in any case."""
    tables = [path for path in sorted(folder.iterdir()) if is_table(path) and path.is_file()]
    return [path for path in tables if name_of(path).lower() == "labels"]


def has_name_of_structure(path: Path) -> bool:
    """Whether a file would be taken from its folder, as far as its name tells."""
    return not path.name.startswith(".") and _key(path) in STRUCTURES


def why_skipped(path: Path) -> str:
    """What the files of a folder are that are not read with it; empty if nobody expects it."""
    stem = name_of(path).lower()
    if path.name.startswith(".") or stem in _NO_STRUCTURES or (stem in _LABELS and is_table(path)):
        return ""
    if path.is_dir():
        return "sub-folders"
    return "tables" if is_table(path) else "files of another format"


def table_writer(path: Path) -> Callable[[pandas.DataFrame, Path], None]:
    """The function that writes a table of results into a file, as its suffix says.

    Raises:
        DataError: another suffix.
    """
    writers = {suffix: format.save for suffix, format in TABLES.items() if isinstance(format, Table)}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise DataError(f"the suffix must be one of {', '.join(writers)}; it says how to write the table", path=path)
    return writer


def table_rows(path: Path) -> Iterator[Row | DataError] | None:
    """The rows of a table, as its suffix says; None for a file of another kind."""
    format = TABLES.get(path.suffix.lower())
    return format.rows(path, Start()) if isinstance(format, Table) else None


def write(crystal: Crystal, path: str | Path) -> None:
    """See `Crystal.write`."""
    path = Path(path).expanduser()
    format = format_of(path)
    if not isinstance(format, Writable):
        known = ", ".join(key for key, format in FORMATS.items() if isinstance(format, Writable))
        raise CrystalError(f"a crystal cannot be written in this format; the file may be {known}", path=path)
    with files.writing(path, CrystalError):
        files.write(path, format.text(crystal))


def _plain(path: Path) -> Path:
    """The path without the suffix of a compression: `NaCl.cif` for `NaCl.cif.gz`."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path


def _key(path: Path) -> str:
    """The key of a path in `FORMATS`, be it there or not."""
    path = _plain(path)
    suffix = path.suffix.lower()
    return suffix if suffix in FORMATS else _beginning(path) or suffix


def _beginning(path: Path) -> str:
    """The key that the name of a file begins with; empty if there is none."""
    return next((key for key in _NAMES if path.name.startswith(key) or path.name.upper() == key), "")


def _is_structure_file(path: Path) -> bool:
    key = _key(path)
    if path.name.startswith(".") or not (path.is_file() or may_be_folder(path)):
        return False
    if path.stem.lower() in _NO_STRUCTURES:
        return False
    if FORMATS.get(key) is json_files:
        return _holds_structure(path)
    return key in STRUCTURES or key in DATABASES


def _holds_structure(path: Path) -> bool:
    """Whether a JSON file holds one structure."""
    if _plain(path) is path:
        return json_files.holds_structure(path)
    try:
        with unpacked(path) as plain:
            return json_files.holds_structure(plain)
    except (CrystalError, OSError):
        return False
