"""Extended XYZ, one frame at a time: a trajectory of any length is never in memory as a whole."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from crystalframer.crystals.crystal import Crystal
from crystalframer.elements import ATOMIC_NUMBERS, SYMBOLS
from crystalframer.errors import CrystalError
from crystalframer.reading.ase_reader import read_with_ase
from crystalframer.reading.entry import BEGINNING, Entry, Start, numbered
from crystalframer.reading.text import decoded, with_plain_lines

MOST_COLUMNS = 10_000
"""Of one kind, in a line of an atom."""
_PROPERTIES = re.compile(r"""Properties\s*=\s*["'{]?([^\s"'}]+)""")
_LATTICE = re.compile(r"""\bLattice\s*=\s*["'{\[]?([^"'}\]=]*?)["'}\]]""")


def entries(path: Path, start: Start) -> Iterator[Entry]:
    return numbered((_read_frame(content) for _, content in _frames(path, start)), start)


def starts(path: Path) -> Iterator[Start]:
    """Only the lines with numbers of atoms are looked at."""
    return (start for start, _ in _frames(path, BEGINNING))


def count(path: Path) -> int | None:
    return None


def text(crystal: Crystal) -> str:
    """A crystal as extended XYZ; every digit of positions and lattice is kept."""
    symbols = (SYMBOLS[z - 1] for z in crystal.atomic_numbers)
    sites = "".join(f"{symbol} {_line(xyz)}\n" for symbol, xyz in zip(symbols, crystal.positions, strict=True))
    lattice = _line(crystal.lattice.ravel())
    return f'{len(crystal)}\nLattice="{lattice}" Properties=species:S:1:pos:R:3 pbc="T T T"\n{sites}'


def _line(numbers: np.ndarray) -> str:
    return " ".join(map(repr, numbers.tolist()))


def _read_frame(content: bytes) -> Any:
    """ASE Atoms or a CrystalError."""
    first = content.partition(b"\n")[0]
    if not _is_count(first):
        begin = first[:40].decode("utf-8", errors="replace")
        return CrystalError(f"cannot be read ({begin!r} should be a number of atoms); check the file and its suffix")
    if content.count(b"\n") + (not content.endswith(b"\n")) < int(first) + 2:
        # ASE would count up to the number, however large it is.
        return CrystalError(f"cannot be read (the file ends before {int(first):,} atoms); was it cut short?")
    try:
        text = decoded(content)
        _, comment, *lines = text.split("\n")
        columns = _columns(comment)
        _check_lattice(comment)
        _check_elements(lines[: int(first)], columns)
        return read_with_ase(io.StringIO(text), "extxyz", 0)
    except CrystalError as error:
        return error


def _columns(comment: str) -> dict[str, int]:
    """Name of a property → its first column."""
    found = _PROPERTIES.search(comment)
    if not found:
        return {"species": 0}
    columns, at = {}, 0
    for name, width in zip(found[1].split(":")[::3], found[1].split(":")[2::3], strict=False):
        if not (width.isdecimal() and int(width[:9]) <= MOST_COLUMNS):  # ASE would make room for as many
            raise CrystalError(f"Properties names {width[:40]!r} columns of a kind, more than a line has; correct it")
        columns[name] = at
        at += int(width)
    if "pos" not in columns:  # ASE would put all atoms on one place
        raise CrystalError(f"Properties is {found[1][:40]!r}, without positions (`pos:R:3`); add them", field="pos")
    return columns


def _check_lattice(comment: str) -> None:
    found = _LATTICE.search(comment)
    if found and len(found[1].split()) != 9:
        raise CrystalError(f"Lattice has {len(found[1].split())} numbers, not 9; correct it", field="Lattice")


def _check_elements(lines: list[str], columns: dict[str, int]) -> None:
    """That every atom has the symbol of an element, and its number if the file gives both."""
    symbol_at, number_at = columns.get("species"), columns.get("Z")
    if symbol_at is None:
        return
    for site, line in enumerate(lines):
        words = line.split()
        symbol = words[symbol_at] if symbol_at < len(words) else ""
        z = ATOMIC_NUMBERS.get(symbol.capitalize())
        if z is None:
            problem = f"site {site} is {symbol[:40]!r}, which is no element"
            raise CrystalError(f"{problem}; replace or remove it", site=site, value=symbol)
        if number_at is not None and words[number_at : number_at + 1] != [str(z)]:
            raise CrystalError(f"site {site} is {symbol}, but has another atomic number Z; correct it", site=site)


def _is_count(line: bytes) -> bool:
    """Whether this is a number of atoms: some digits, and no more than a file can have lines."""
    return line.strip().isdigit() and len(line.strip()) <= 12


def _frames(path: Path, start: Start) -> Iterator[tuple[Start, bytes]]:
    """Start and content of each frame. After a line that should be a number of atoms and is not, nothing follows."""
    with with_plain_lines(path) as plain, plain.open("rb") as file:
        offset = file.seek(start.mark if isinstance(start.mark, int) else 0)
        n_before = start.n_before
        for first in file:
            if not first.strip():
                offset += len(first)
                continue
            is_frame = _is_count(first)
            lines = [first, *islice(file, int(first) + 1 if is_frame else 0)]
            content = b"".join(lines)
            yield Start(n_before, offset), content
            if not is_frame:
                return
            n_before, offset = n_before + 1, offset + len(content)
