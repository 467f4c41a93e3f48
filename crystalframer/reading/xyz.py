"""Extended XYZ, one frame at a time: a trajectory of any length is never in memory as a whole."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from crystalframer.crystals.crystal import Crystal
from crystalframer.elements import SYMBOLS
from crystalframer.errors import CrystalError
from crystalframer.libraries import reason, require
from crystalframer.reading.entry import BEGINNING, Entry, Start, numbered

MOST_COLUMNS = 10_000
"""Of one kind, in a line of an atom."""
_COLUMNS = re.compile(rb"""Properties\s*=\s*["']?([^\s"']+)""")


def entries(path: Path, start: Start) -> Iterator[Entry]:
    ase_io = require("ase.io", f"reading {path.name}", "data", CrystalError)
    return numbered((_read_frame(ase_io, content) for _, content in _frames(path, start)), start)


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


def _read_frame(ase_io: ModuleType, content: bytes) -> Any:
    """ASE Atoms or a CrystalError."""
    first = content.partition(b"\n")[0]
    if not _is_count(first):
        begin = first[:40].decode("utf-8", errors="replace")
        return CrystalError(f"cannot be read ({begin!r} should be a number of atoms); check the file and its suffix")
    if content.count(b"\n") + (not content.endswith(b"\n")) < int(first) + 2:
        # ASE would count up to the number, however large it is.
        return CrystalError(f"cannot be read (the file ends before {int(first):,} atoms); was it cut short?")
    columns = _COLUMNS.search(content.split(b"\n", 2)[1])
    for width in columns[1].split(b":")[2::3] if columns else ():
        if not (width.isdigit() and int(width[:9]) <= MOST_COLUMNS):  # ASE would make room for as many
            shown = width[:40].decode("utf-8", errors="replace")
            return CrystalError(f"Properties names {shown!r} columns of a kind, more than a line has; correct it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ase_io.read(io.StringIO(content.decode("utf-8")), format="extxyz", index=0)
    except Exception as error:  # the reader raises what it likes
        return CrystalError(f"cannot be read ({reason(error)}); check the file and its suffix")


def _is_count(line: bytes) -> bool:
    """Whether this is a number of atoms: some digits, and no more than a file can have lines."""
    return line.strip().isdigit() and len(line.strip()) <= 12


def _frames(path: Path, start: Start) -> Iterator[tuple[Start, bytes]]:
    """Start and content of each frame. After a line that should be a number of atoms and is not, nothing follows."""
    with path.open("rb") as file:
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
