"""Extended XYZ, one frame at a time: a trajectory of any length is never in memory as a whole."""

from __future__ import annotations

import importlib
import io
import re
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from crystalframer.errors import CrystalError
from crystalframer.reading.places import START, Place

SUFFIXES = (".xyz", ".extxyz")
MOST_COLUMNS = 10_000
"""Of one kind, in a line of an atom."""
_COLUMNS = re.compile(rb"""Properties\s*=\s*["']?([^\s"']+)""")


def places_of_frames(path: Path) -> Iterator[Place]:
    """Where the frames begin; only the lines with their numbers of atoms are looked at."""
    return (place for place, _ in _frames(path, START))


def frames_from(path: Path, start: Place = START) -> Iterator[Any]:
    """The frames from a place on as ASE Atoms; in place of one that cannot be read, a CrystalError.

    Raises:
        CrystalError: ase is not installed.
    """
    try:
        ase_io = importlib.import_module("ase.io")
    except ModuleNotFoundError as error:
        raise CrystalError(f"reading {path.name} needs ase: pip install 'crystalframer[data]'") from error
    for _, text in _frames(path, start):
        yield _read_frame(ase_io, text)


def _read_frame(ase_io: ModuleType, text: bytes) -> Any:
    """ASE Atoms or a CrystalError."""
    first = text.partition(b"\n")[0]
    if not _is_count(first):
        begin = first[:40].decode("utf-8", errors="replace")
        return CrystalError(f"cannot be read ({begin!r} should be a number of atoms); check the file and its suffix")
    if text.count(b"\n") + (not text.endswith(b"\n")) < int(first) + 2:
        # ASE would count up to the number, however large it is.
        return CrystalError(f"cannot be read (the file ends before {int(first):,} atoms); was it cut short?")
    columns = _COLUMNS.search(text.split(b"\n", 2)[1])
    for count in columns[1].split(b":")[2::3] if columns else ():
        if not (count.isdigit() and int(count[:9]) <= MOST_COLUMNS):  # ASE would make room for as many
            shown = count[:40].decode("utf-8", errors="replace")
            return CrystalError(f"Properties names {shown!r} columns of a kind, more than a line has; correct it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ase_io.read(io.StringIO(text.decode("utf-8")), format="extxyz", index=0)
    except Exception as error:  # the reader raises what it likes
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return CrystalError(f"cannot be read ({reason}); check the file and its suffix")


def _is_count(line: bytes) -> bool:
    """Whether this is a number of atoms: some digits, and no more than a file can have lines."""
    return line.strip().isdigit() and len(line.strip()) <= 12


def _frames(path: Path, start: Place) -> Iterator[tuple[Place, bytes]]:
    """Place and text of each frame. After a line that should be a number of atoms and is not, there is no next one."""
    with path.open("rb") as file:
        offset = file.seek(start.mark if isinstance(start.mark, int) else 0)
        n_before = start.n_before
        for first in file:
            if not first.strip():
                offset += len(first)
                continue
            is_frame = _is_count(first)
            lines = [first, *islice(file, int(first) + 1 if is_frame else 0)]
            text = b"".join(lines)
            yield Place(n_before, offset), text
            if not is_frame:
                return
            n_before, offset = n_before + 1, offset + len(text)
