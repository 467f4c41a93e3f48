"""Structures of other libraries and files as crystals.

Positions come out wrapped into the cell. Deuterium and tritium are read as hydrogen. What the model cannot represent
(partial occupancy, unknown atoms, directions without periodicity) is an error, never a guess.
"""

from __future__ import annotations

import glob
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from crystalframer.crystals.crystal import Crystal, cell_heights
from crystalframer.crystals.neighbors import SMALLEST_DISTANCE
from crystalframer.elements import SYMBOLS, atomic_number, reduced_formula
from crystalframer.errors import CrystalError, DataError
from crystalframer.reading import databases, xyz
from crystalframer.reading.columns import ID_COLUMNS
from crystalframer.reading.places import START, Place
from crystalframer.reading.rows import TABLE_SUFFIXES, is_missing, places_of_rows, rows_from
from crystalframer.reading.structure_files import (
    STRUCTURE_SUFFIXES,
    from_dictionary,
    holds_one_at_most,
    is_structure_json,
    is_structure_text,
    name_of,
    read_file,
    read_text,
    structure_files,
)

OCCUPANCY_TOLERANCE = 1e-3
"""A site whose occupancy differs less from 1 counts as full."""


@dataclass(frozen=True, eq=False)
class StructureRecord:
    """One input: a crystal, or the reason why there is none."""

    id: str
    """Unique among the records of one `iter_structures`."""
    source: str
    """Where it came from, for messages: `NaCl.cif`, `table.csv, row 3`."""
    crystal: Crystal | None
    error: str | None

    @property
    def formula(self) -> str:
        """Reduced formula; empty if there is no crystal."""
        return "" if self.crystal is None else reduced_formula(self.crystal.atomic_numbers)


def to_crystal(source: Any, id: str = "") -> Crystal:
    """One structure as a crystal, its positions wrapped into the cell.

    Args:
        source: a `Crystal`, pymatgen `Structure` or ASE `Atoms`; the path of a file that holds one structure (CIF,
            POSCAR, extended XYZ, JSON of pymatgen, or any other that ASE reads); CIF text; or a mapping or pandas row
            with `atomic_numbers`, `positions` (Cartesian, Å) or `frac_coords`, and `lattice` (rows, Å), flat or nested,
            or with a `structure` (or `atoms`): a Structure, its dictionary, a JARVIS `atoms` dictionary or CIF text.
        id: name of the crystal. Default: the source's own (an id column, the name of the file).

    Raises:
        CrystalError: no structure that the model can take, or the library that reads this kind of file is not
            installed; the message names file, site and what to do.
    """
    if isinstance(source, Path) or (isinstance(source, str) and not is_structure_text(source)):
        return _from_file(Path(source).expanduser(), id)
    if isinstance(source, str):
        return to_crystal(read_text(source), id)
    if isinstance(source, Crystal):
        return _wrapped(replace(source, id=id or source.id))
    if _is_instance(source, "pymatgen.core.structure", "IStructure"):
        return _wrapped(_from_pymatgen(source, id))
    if _is_instance(source, "ase.atoms", "Atoms"):
        return _wrapped(_from_ase(source, id))
    if _is_instance(source, "pandas", "Series"):
        source = source.to_dict()
    if isinstance(source, Mapping):
        return _from_mapping(source, id)
    raise CrystalError(
        f"{_name(id)}: cannot make a crystal of a {type(source).__name__}; give a pymatgen Structure, ASE Atoms, a "
        "path or a row with atomic_numbers, positions and lattice"
    )


def iter_structures(inputs: Any) -> Iterator[StructureRecord]:
    """Every structure of the inputs, in order; one that cannot be read becomes a record with an error.

    Args:
        inputs: anything `to_crystal` takes, and also: files of several structures, tables (CSV, JSON, JSON lines,
            parquet, packed data sets), databases (of ASE, LMDB), folders, glob patterns, DataFrames, `CrystalDataset`s,
            and lists of all these.

    Yields:
        Records with unique ids: the source's own, else the file's stem (with the number of the frame or row if it has
        several), else the formula; repeated ones get `-2`, `-3`, ...
    """
    taken: dict[str, int] = {}
    for entry in iter_entries(inputs):
        record = entry.read()
        id = _unique(record.id, taken)
        crystal = record.crystal and replace(record.crystal, id=id)
        yield StructureRecord(id, record.source or id, crystal, record.error)


@dataclass(frozen=True)
class Entry:
    """Something for `to_crystal` (or the error of getting it), where it came from, and a name for it."""

    structure: Any
    source: str = ""
    id: str = ""

    def read(self) -> StructureRecord:
        """The structure as a record, whose id is the source's own and need not be unique."""
        crystal, error = None, None
        if isinstance(self.structure, Exception):
            error = str(self.structure)
        else:
            try:
                crystal = to_crystal(self.structure, self.id)
            except CrystalError as problem:
                error = f"{self.source}: {problem}" if self.source else str(problem)
        if crystal is None:
            id = self.id or self.source or "structure"
        else:
            id = crystal.id or reduced_formula(crystal.atomic_numbers)
        return StructureRecord(id, self.source, crystal, error)


def iter_entries(inputs: Any) -> Iterator[Entry]:
    """What `iter_structures` reads, before structures are made of it."""
    return _expand(inputs, "")


@dataclass(frozen=True)
class Span:
    """Entries of one file in a row."""

    path: Path
    start: Place
    n_entries: int

    def entries(self) -> Iterator[Entry]:
        """As many as there should be: those that a damaged or changed file does not give are errors."""
        n_read, last = 0, None
        for entry in itertools.islice(_entries_of_file(self.path, self.start), self.n_entries):
            n_read, last = n_read + 1, entry
            yield entry
        for row in range(self.start.n_before + n_read + 1, self.start.n_before + self.n_entries + 1):
            if last is not None and isinstance(last.structure, Exception):
                error = last.structure  # what ended the file
            else:
                error = CrystalError(f"{self.path}: ends before entry {row}; has it changed meanwhile?")
            yield Entry(error, f"{self.path}, entry {row}", f"{name_of(self.path)}-{row}")


def places(path: Path) -> Iterator[Place]:
    """Where the entries of a file begin, found without reading them where the format allows: at least one, which is an
    error if the file cannot be read.
    """
    is_empty = True
    try:
        if _is_table(path):
            found = places_of_rows(path)
        elif path.suffix.lower() in xyz.SUFFIXES:
            found = xyz.places_of_frames(path)
        elif holds_one_at_most(path):
            found = iter([START])
        else:
            found = map(Place, range(len(read_file(path))))
        for place in found:
            is_empty = False
            yield place
    except (CrystalError, DataError, OSError, UnicodeDecodeError):
        pass  # the reader says it
    if is_empty:
        yield START


# One structure


def _from_file(path: Path, id: str) -> Crystal:
    try:
        structures = read_file(path)
        if len(structures) != 1:
            raise CrystalError(
                f"holds {len(structures)} structures where one is expected; read it with iter_structures"
            )
        return to_crystal(structures[0], id or name_of(path))
    except CrystalError as error:
        raise CrystalError(f"{path}: {error}") from error


def _from_pymatgen(structure: Any, id: str) -> Crystal:
    numbers = []
    for index, site in enumerate(structure):
        where = f"{_name(id)}: site {index} ({getattr(site, '_label', None) or site.species_string})"
        occupancy: dict[int, float] = {}
        for element, amount in site.species.items():
            z = atomic_number(element.symbol)
            if z is None:
                raise CrystalError(f"{where}: {element.symbol!r} is no element; replace or remove the site")
            occupancy[z] = occupancy.get(z, 0.0) + float(amount)
        numbers.append(_whole_atom(occupancy, where))
    lattice = structure.lattice.matrix
    return Crystal(np.array(numbers, dtype=np.int64), _cartesian(structure.frac_coords, lattice), lattice, id)


def _whole_atom(occupancy: Mapping[int, float], where: str) -> int:
    """The element of a fully occupied site."""
    if not occupancy:
        raise CrystalError(f"{where} holds no atom: its occupancy is 0 or no number; correct or remove it")
    (z, amount), *others = occupancy.items()
    if not others and abs(amount - 1) <= OCCUPANCY_TOLERANCE:
        return z
    shares = ", ".join(f"{SYMBOLS[z - 1]} {amount:.4g}" for z, amount in occupancy.items())
    if sum(occupancy.values()) > 1 + OCCUPANCY_TOLERANCE:
        raise CrystalError(
            f"{where}: several atoms lie on one place ({shares}); remove the duplicate, or the symmetry operations if "
            "the file lists equivalent atoms one by one"
        )
    raise CrystalError(
        f"{where} is partly occupied ({shares}); the model needs whole atoms: make an ordered structure first"
    )


def _from_ase(atoms: Any, id: str) -> Crystal:
    if atoms.cell.rank < 3:
        raise CrystalError(
            f"{_name(id)}: has no cell of three lattice vectors; a crystal is periodic: set the cell (atoms.cell, or "
            'Lattice="..." in extended XYZ)'
        )
    if not atoms.pbc.all():
        raise CrystalError(
            f"{_name(id)}: is periodic along {atoms.pbc.sum()} of its 3 lattice vectors; the model sees crystals "
            'periodic in all: set atoms.pbc = True (pbc="T T T" in extended XYZ) if its cell may repeat'
        )
    # Left by ASE's CIF reader, which keeps one element of a mixed site.
    for site, shares in (atoms.info.get("occupancy") or {}).items():
        _whole_atom(
            {atomic_number(symbol) or 0: share for symbol, share in shares.items()}, f"{_name(id)}: site {site}"
        )
    return Crystal(atoms.numbers, atoms.positions, atoms.cell.array, id)


def _from_mapping(row: Mapping[str, Any], id: str) -> Crystal:
    id = id or row_id(row)
    for name in ("structure", "atoms"):
        if name in row:
            structure = row[name]
            if is_missing(structure):
                raise CrystalError(f"{_name(id)}: its {name} is empty; fill it, or remove the row")
            return to_crystal(read_text(structure) if isinstance(structure, str) else structure, id)
    if "sites" in row and "lattice" in row:
        return to_crystal(from_dictionary(row), id)
    if "lattice_mat" in row:
        return _wrapped(_from_jarvis(row, id))
    coordinates = "positions" if "positions" in row else "frac_coords"
    for name in ("atomic_numbers", coordinates, "lattice"):
        if name not in row:
            raise CrystalError(
                f"{_name(id)}: has no {name!r}; a row needs atomic_numbers, positions (or frac_coords) and lattice, or "
                f"a structure. It has: {', '.join(map(str, row))[:200]}"
            )
    numbers = _numbers(row, "atomic_numbers", id)
    lattice = _numbers(row, "lattice", id)
    positions = _numbers(row, coordinates, id)
    if lattice.size != 9 or positions.size != 3 * numbers.size:
        raise CrystalError(
            f"{_name(id)}: {numbers.size} atomic numbers need {3 * numbers.size} numbers in {coordinates} and 9 in "
            f"lattice, got {positions.size} and {lattice.size}"
        )
    if not (np.isfinite(numbers) & (numbers == np.round(numbers)) & (np.abs(numbers) < 1e9)).all():
        raise CrystalError(f"{_name(id)}: atomic_numbers must be whole numbers, got {str(numbers.tolist())[:200]}")
    lattice, positions = lattice.reshape(3, 3), positions.reshape(-1, 3)
    if coordinates == "frac_coords":
        positions = _cartesian(positions, lattice)
    return _wrapped(Crystal(numbers.ravel().astype(np.int64), positions, lattice, id))


def _from_jarvis(atoms: Mapping[str, Any], id: str) -> Crystal:
    """The `atoms` dictionary of JARVIS: lattice_mat, coords, elements, cartesian."""
    for name in ("elements", "coords"):
        if name not in atoms:
            raise CrystalError(f"{_name(id)}: its JARVIS atoms have no {name!r}; add it")
    numbers = []
    for index, symbol in enumerate(atoms["elements"]):
        z = atomic_number(str(symbol))
        if z is None:
            raise CrystalError(f"{_name(id)}: site {index}: {str(symbol)[:40]!r} is no element; replace or remove it")
        numbers.append(z)
    coordinates = "positions" if atoms.get("cartesian") else "frac_coords"
    row = {"atomic_numbers": numbers, coordinates: atoms["coords"], "lattice": atoms["lattice_mat"]}
    return _from_mapping(row, id)


def _cartesian(
    frac: Float[np.ndarray, "n_atoms 3"], lattice: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "n_atoms 3"]:
    with np.errstate(all="ignore"):  # what is not finite is refused as such
        return frac @ lattice


def _numbers(row: Mapping[str, Any], name: str, id: str) -> Float[np.ndarray, "..."]:
    value = row[name]
    try:
        value = json.loads(value) if isinstance(value, str) else value
        if isinstance(value, np.ndarray) and value.dtype == object:
            value = value.tolist()  # rows of rows, as parquet gives them
        return np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise CrystalError(f"{_name(id)}: {name} cannot be read as numbers ({error}); give a list of them") from error


def _wrapped(crystal: Crystal) -> Crystal:
    """Positions wrapped into the cell; no two atoms on one place."""
    frac = crystal.frac_coords
    outside = (frac < 0) | (frac >= 1)
    # Twice: a coordinate a rounding error below 0 becomes 1 the first time. Atoms inside keep their exact positions.
    wrapped = np.where(outside, frac % 1.0 % 1.0, frac)
    if outside.any():
        moved = np.flatnonzero(outside.any(axis=1))
        positions = crystal.positions.copy()
        positions[moved] = wrapped[moved] @ crystal.lattice
        crystal = replace(crystal, positions=positions)
    _check_places(crystal, wrapped)
    return crystal


def _check_places(crystal: Crystal, frac: Float[np.ndarray, "n_atoms 3"]) -> None:
    from scipy.spatial import KDTree

    # Closer than the limit means closer than that between planes along every lattice vector.
    heights = cell_heights(crystal.lattice)
    n_looked_at = 0
    while n_looked_at < len(crystal):
        # More atoms step by step: of thousands on one place there are millions of pairs, and the first is enough.
        n_looked_at = min(max(1000, 2 * n_looked_at), len(crystal))
        tree = KDTree(frac[:n_looked_at] * heights, boxsize=heights)
        for i, j in sorted(tree.query_pairs(SMALLEST_DISTANCE, p=np.inf)):
            difference = frac[j] - frac[i]
            length = float(np.linalg.norm((difference - np.round(difference)) @ crystal.lattice))
            if length < SMALLEST_DISTANCE:
                symbols = [SYMBOLS[z - 1] for z in crystal.atomic_numbers[[i, j]]]
                raise CrystalError(
                    f"{_name(crystal.id)}: sites {i} ({symbols[0]}) and {j} ({symbols[1]}) lie {length:.3g} Å apart; "
                    "remove the duplicate site"
                )


# Many structures


def _expand(inputs: Any, source: str) -> Iterator[Entry]:
    if _is_instance(inputs, "pandas", "DataFrame"):
        for row, cells in enumerate(inputs.to_dict("records"), start=1):
            yield _row_entry(cells, f"{source}, row {row}".removeprefix(", "), f"row-{row}")
    elif isinstance(inputs, Path) or (isinstance(inputs, str) and not is_structure_text(inputs)):
        yield from _expand_path(str(inputs))
    elif _is_single(inputs):
        yield Entry(inputs, source)
    elif isinstance(inputs, Iterable):
        for position, entry in enumerate(inputs, start=1):
            yield from _expand(entry, f"item {position}")
    else:
        yield Entry(inputs, source)


def _is_single(inputs: Any) -> bool:
    """A structure, though some of them can be iterated over."""
    known = (("pymatgen.core.structure", "IStructure"), ("ase.atoms", "Atoms"), ("pandas", "Series"))
    return isinstance(inputs, (Crystal, Mapping, str)) or any(_is_instance(inputs, *kind) for kind in known)


def _expand_path(text: str) -> Iterator[Entry]:
    try:
        found = input_files(text)
    except CrystalError as problem:
        yield Entry(problem, text, text)
        return
    for file in found:
        yield from _entries_of_file(file)


def input_files(text: str) -> list[Path]:
    """The files that a path or pattern stands for, by name.

    Raises:
        CrystalError: a folder or pattern without any.
    """
    path = Path(text).expanduser()
    if path.is_dir() and path.suffix.lower() not in databases.LMDB_SUFFIXES:
        found = structure_files(path) or sorted(path.glob("[!._]*.parquet"))
        problem = (
            f"{text}: the folder holds no structure files ({', '.join(STRUCTURE_SUFFIXES)}, POSCAR, CONTCAR), "
            "databases or parquet tables"
        )
    elif glob.has_magic(text) and not path.exists():
        names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
        found = [Path(name) for name in names if Path(name).is_file() or Path(name).suffix in databases.LMDB_SUFFIXES]
        problem = f"{text}: no file matches this pattern"
    else:
        found, problem = [path], ""
    if not found:
        raise CrystalError(problem)
    return found


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLE_SUFFIXES and not is_structure_json(path)


def _entries_of_file(path: Path, start: Place = START) -> Iterator[Entry]:
    """The entries from a place on. What ends the file early is an entry with an error, the last one."""
    try:
        if _is_table(path):
            for row, cells in enumerate(rows_from(path, start), start=start.n_before + 1):
                yield _row_entry(cells, f"{path}, row {row}", f"{name_of(path)}-{row}")
            return
        if path.suffix.lower() in xyz.SUFFIXES and path.is_file():
            structures = xyz.frames_from(path, start)
        else:
            structures = iter(read_file(path)[start.n_before :])
        first = next(structures, CrystalError("holds no structure; check the file"))
        second = next(structures, None)
        if start == START and second is None:
            yield _entry(first, str(path), name_of(path))
            return
        rest = itertools.chain([first], [] if second is None else [second], structures)
        for frame, structure in enumerate(rest, start=start.n_before + 1):
            yield _entry(structure, f"{path}, frame {frame}", f"{name_of(path)}-{frame}")
    except (CrystalError, DataError) as error:
        message = str(error) if isinstance(error, DataError) else f"{path}: {error}"
        yield Entry(CrystalError(message), str(path), name_of(path))


def _entry(structure: Any, source: str, id: str) -> Entry:
    is_error = isinstance(structure, Exception)
    return Entry(CrystalError(f"{source}: {structure}") if is_error else structure, source, id)


def _row_entry(cells: Mapping[str, Any] | DataError, source: str, id: str) -> Entry:
    return Entry(cells, source, id if isinstance(cells, DataError) else row_id(cells) or id)


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


# Small things


def row_id(row: Mapping[str, Any]) -> str:
    """What the first id column of a row says; empty if it has none."""
    return next((str(row[name]) for name in ID_COLUMNS if name in row and not is_missing(row[name])), "")


def _name(id: str) -> str:
    return f"crystal {id!r}" if id else "crystal"


def _is_instance(value: object, module: str, name: str) -> bool:
    """`isinstance` without importing the module: an instance exists only once it is loaded."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))
