"""POSCAR and CONTCAR of VASP, read by pymatgen."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import CrystalError
from crystalframer.libraries import reason
from crystalframer.reading.entry import BEGINNING, Entry, Start


def entries(path: Path, start: Start) -> Iterator[Entry]:
    return iter([Entry(_read(path))])


def starts(path: Path) -> Iterator[Start]:
    return iter([BEGINNING])


def count(path: Path) -> int:
    return 1


def text(crystal: Crystal) -> str:
    """A crystal as POSCAR, in fractional coordinates; atoms stay in their order."""
    from pymatgen.io.vasp.inputs import Poscar

    return Poscar(crystal.right_handed().to_pymatgen()).get_str(significant_figures=16)


def _read(path: Path) -> Any:
    """A pymatgen Structure."""
    from pymatgen.io.vasp.inputs import Poscar

    content = path.read_text(encoding="utf-8")
    _check_counts(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parsed = Poscar.from_str(content, read_velocities=False)
        except Exception as error:
            raise CrystalError(f"cannot be read as POSCAR ({reason(error)}); check the file") from error
    if not parsed.true_names:
        raise CrystalError("names no elements (VASP 4 format); put a line with their symbols before the line of counts")
    return parsed.structure


def _check_counts(content: str) -> None:
    """Refuse counts that promise more atoms than the file has lines: memory for them all would be reserved."""
    lines = content.split("\n")
    for line in lines[5:30]:  # one line of counts, or several after as many of symbols
        words = list(itertools.takewhile(str.isdecimal, line.split()))
        if any(len(word) > 9 for word in words) or sum(map(int, words)) > len(lines):
            raise CrystalError(f"{line.strip()[:40]!r} counts more atoms than the file has lines; was it cut short?")
