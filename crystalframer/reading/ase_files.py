"""Files of other formats, as far as ASE reads them and their content is certain.

A format is read if it names the elements, gives the cell and says which directions are periodic, and if ASE reads all
of that. One that is not in the table is refused: types, labels of force fields and asymmetric units are no crystal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crystalframer.errors import CrystalError
from crystalframer.libraries import require
from crystalframer.reading import json_files, xyz
from crystalframer.reading.ase_reader import read_with_ase
from crystalframer.reading.cif import CIF
from crystalframer.reading.entry import Entry, Start, numbered
from crystalframer.reading.pdb import PDB
from crystalframer.reading.poscar import POSCAR, XDATCAR
from crystalframer.reading.shelx import SHELX
from crystalframer.reading.text import decoded, in_utf8, text_of

OURS: Mapping[str, Any] = {
    "cif": CIF,
    "extxyz": xyz,
    "json": json_files,
    "proteindatabank": PDB,
    "res": SHELX,
    "vasp": POSCAR,
    "vasp-xdatcar": XDATCAR,
    "xyz": xyz,
}
"""ASE's name of a format → our own reader, for files whose names our table does not know."""
CERTAIN: Mapping[str, int | str] = {
    "aims": -1,
    "aims-output": -1,
    "castep-castep": -1,
    "castep-md": ":",
    "espresso-in": -1,
    "espresso-out": -1,
    "gen": -1,
    "gpaw-out": -1,
    "magres": -1,
    "siesta-xv": -1,
    "traj": ":",
    "vasp-out": -1,
    "vasp-xml": -1,
    "xsf": ":",
}
"""ASE's name of a format → which structures are read: all steps of a trajectory, the last of a calculation."""
REASONS: Mapping[str, str] = {
    "abinit-in": "it may list the atoms of an asymmetric unit",
    "castep-cell": "it may hold mixed atoms, which ASE leaves out",
    "cfg": "ASE leaves out the unit of length",
    "crystal": "it lists the atoms of an asymmetric unit",
    "cube": "its box need not be a cell",
    "dlp-history": "its atoms have names of a force field, not of elements",
    "dlp4": "its atoms have names of a force field, not of elements",
    "dmol-arc": "it may list the atoms of an asymmetric unit",
    "dmol-car": "it may list the atoms of an asymmetric unit",
    "gromacs": "its atoms have names of a force field, not of elements",
    "gromos": "its atoms have names of a force field, not of elements",
    "lammps-data": "its atoms have types, not elements, and it does not say in which unit lengths are",
    "lammps-dump-binary": "its atoms have types, not elements, and it does not say in which unit lengths are",
    "lammps-dump-text": "its atoms have types, not elements, and it does not say in which unit lengths are",
    "mustem": "it may hold partly occupied sites, which ASE leaves out",
    "netcdftrajectory": "its atoms have types, not elements",
    "prismatic": "it may hold partly occupied sites, which ASE leaves out",
    "rmc6f": "it may hold vacancies",
    "struct": "it lists the atoms of an asymmetric unit",
    "xsd": "it lists the atoms of an asymmetric unit",
    "xtd": "it lists the atoms of an asymmetric unit",
}
"""ASE's name of a format → why it is refused. Those that stand nowhere hold molecules, or are not tried out."""
LISTS: Mapping[str, tuple[str, str]] = {
    "espresso-in": (r"^ *ATOMIC_POSITIONS.*\n", r" *[A-Za-z]\S*+( ++(?=\S*\d)\S++){3}.*\n"),
    "espresso-out": (
        r"^ *ATOMIC_POSITIONS.*\n|positions \(alat units\).*\n",
        r" *[A-Za-z]\S*+( ++[-+.]?\d\S*+){3}.*\n| *\d++ ++\S++ ++tau\(.*\n",
    ),
    "gen": (r"\A.*\n.*\n", r" *\d++ ++\d++( ++\S++){3}.*\n"),
    "xsf": (r"^ *PRIMCOORD.*\n.*\n", r" *\w++( ++[-+.]?\d\S*+){3}.*\n"),
}
"""ASE's name of a format → what stands before a list of atoms, and a line of it. ASE reads as many as are counted."""
_BINARY = ("traj",)
_QE_INPUT = re.compile(r"^\s*&(control|system)\b", re.IGNORECASE | re.MULTILINE)
_LENGTH_A = re.compile(r"(?<![\w%(])A\s*=\s*((?:\d++\.?\d*+|\.\d++)(?:[dDeE][+-]?\d{1,3})?)", re.IGNORECASE)
_BOHR = 0.5291772105638411
"""Å, as ASE takes it."""
_AIMS_INPUT = re.compile(r"^\s*(atom|atom_frac|lattice_vector)\s", re.MULTILINE)
"""What only input of Quantum ESPRESSO, or only a geometry of FHI-aims, has: both are called `*.in`."""
_UNKNOWN = "its format is not known; give the file the suffix of its format (.cif, .csv, ...)"
_SPREADSHEET = "a spreadsheet; save the table as CSV (UTF-8)"
_ARCHIVE = "an archive of several files; unpack it, and name the folder"
_PICKLE = "a pickle, which could run any code; write the structures as JSON, parquet or CIF files"
_HDF5 = "HDF5, whose layout is not known; write the structures as JSON, parquet or CIF files"
OTHERS: Mapping[str, str] = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), _SPREADSHEET),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), _ARCHIVE),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".npy", ".npz", ".joblib"), _PICKLE),
    **dict.fromkeys((".h5", ".hdf5"), _HDF5),
    ".feather": "Feather; write the table as parquet, CSV or JSON",
    ".txt": "text of an unknown kind; give the file the suffix of its format (.cif, .csv, ...)",
}
"""Suffix → what files of it are that hold no structure as they are."""


def entries(path: Path, start: Start) -> Iterator[Entry]:
    kind = _kind(path)
    if kind in OURS:
        return OURS[kind].entries(path, start)
    return numbered(_frames(path, kind)[start.n_before :], start)


def starts(path: Path) -> Iterator[Start]:
    kind = _kind(path)
    return OURS[kind].starts(path) if kind in OURS else map(Start, range(len(_frames(path, kind))))


def count(path: Path) -> int | None:
    return None


def _kind(path: Path) -> str:
    """ASE's name of the format of a file, by its name and content.

    Raises:
        CrystalError: ASE knows none, or its content is not certain.
    """
    if path.suffix.lower() in OTHERS:
        raise CrystalError(f"is {OTHERS[path.suffix.lower()]}")
    formats = require("ase.io.formats", f"reading {path.name}", "data", CrystalError)
    try:
        kind = "aims" if path.name.endswith(".in.next_step") else formats.filetype(str(path))
    except Exception as error:
        raise CrystalError(_UNKNOWN) from error
    if kind == "espresso-out" and b"PWSCF" not in path.read_bytes():  # ASE's guess for any *.out
        raise CrystalError(
            "an output of a program that is not known here; convert the structure to CIF or extended XYZ"
        )
    if kind == "aims":  # ASE's guess for any *.in
        text = text_of(path)
        kind = "espresso-in" if _QE_INPUT.search(text) else "aims" if _AIMS_INPUT.search(text) else ""
    if kind not in formats.ioformats:
        raise CrystalError(_UNKNOWN)
    if kind not in OURS and kind not in CERTAIN:
        name = formats.ioformats[kind].description
        why = REASONS.get(kind, "it need not hold a crystal with all its atoms")
        raise CrystalError(f"{name} is not read: {why}; convert it to CIF or extended XYZ", value=kind)
    return kind


def _frames(path: Path, kind: str) -> list[Any]:
    with _in_utf8(path, kind) as plain:
        found = read_with_ase(plain, kind, CERTAIN[kind])
        frames = found if isinstance(found, list) else [found]
        if kind in LISTS:
            _check_lists(plain.read_text(encoding="utf-8"), max(map(len, frames)), *LISTS[kind])
    return frames


def _check_lists(text: str, n_atoms: int, before: str, atom: str) -> None:
    """That no list of atoms goes on behind those that were read.

    Raises:
        CrystalError: one does: the file counts fewer atoms than it lists.
    """
    text = re.sub(r"^\s*(#.*)?\n", "", f"{text}\n".replace("\t", " "), flags=re.MULTILINE)
    for begin in re.finditer(before, text, re.MULTILINE):
        end, n_listed = begin.end(), 0
        while (line := re.compile(atom).match(text, end)) and n_listed <= n_atoms:
            end, n_listed = line.end(), n_listed + 1
        if n_listed > n_atoms:
            problem = f"lists more atoms than the {n_atoms:,} that it counts"
            raise CrystalError(f"{problem}; correct the count, or remove the others", site=n_atoms)


def _with_celldm(text: str) -> str:
    """Input of Quantum ESPRESSO with `celldm(1)` (Bohr) in place of `A` (Å), a unit of length that ASE passes over.

    Raises:
        CrystalError: it gives both.
    """
    text = re.sub(r"!.*", "", text)
    if _LENGTH_A.search(text) and "celldm" in text.lower():
        raise CrystalError("gives A and celldm; remove one", field="celldm")
    return _LENGTH_A.sub(lambda found: f"celldm(1)={float(re.sub('[dD]', 'e', found[1])) / _BOHR!r}", text)


@contextmanager
def _in_utf8(path: Path, kind: str) -> Iterator[Path]:
    """A file of text as ASE expects it, for as long as the context lasts."""
    content = path.read_bytes() if kind not in _BINARY else b""
    if kind == "espresso-in":
        content = _with_celldm(decoded(content)).encode()
    elif content.isascii() and b"\r" not in content:
        yield path
        return
    with in_utf8(path, content) as plain:
        yield plain
