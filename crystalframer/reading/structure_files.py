"""Files and text of structures, read with the library that knows the format; nothing is converted here.

Results are crystals (of plain CIF files), pymatgen Structures, ASE Atoms or dictionaries, as `structures.to_crystal`
takes them. Libraries are loaded on first use, and their warnings are silenced: what matters is checked here or on
conversion, and is an error.
"""

from __future__ import annotations

import importlib
import io
import itertools
import json
import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from crystalframer.elements import atomic_number
from crystalframer.errors import CrystalError
from crystalframer.reading import databases, xyz
from crystalframer.reading.cif import (
    GROUP_FIELDS,
    check_cell,
    check_formula,
    check_lines,
    check_operations,
    check_size,
    listed_operations,
    read_plain_cif,
    what_is_missing,
)
from crystalframer.reading.unpacking import TooLarge, check_unpacked_size

STRUCTURE_SUFFIXES = (".cif", ".mcif", ".vasp", ".poscar", ".contcar", ".xyz", ".extxyz", ".json", ".res", ".xsf")
"""Taken from a folder, beside files named POSCAR or CONTCAR. A file that is named itself may have any suffix."""

POSCAR_NAMES = ("POSCAR", "CONTCAR")
_CIF_SUFFIXES = (".cif", ".mcif")
_POSCAR_SUFFIXES = (".vasp", ".poscar", ".contcar")
_SITE_ENTRIES = ("species", "abc", "label")
"""What is read of a site in a dictionary of pymatgen."""


def structure_files(folder: Path) -> list[Path]:
    """Files of a folder that look like structures, by name."""
    return [path for path in sorted(folder.iterdir()) if _looks_like_structure(path)]


def name_of(path: Path) -> str:
    """The stem of a file; for a file named POSCAR or CONTCAR, its folder."""
    return path.absolute().parent.name if path.name in POSCAR_NAMES else path.stem


def _looks_like_structure(path: Path) -> bool:
    if path.name.startswith(".") or not (path.is_file() or path.suffix.lower() in databases.LMDB_SUFFIXES):
        return False
    if path.suffix.lower() == ".json":
        return is_structure_json(path)
    return path.suffix.lower() in (*STRUCTURE_SUFFIXES, *databases.SUFFIXES) or path.name.startswith(POSCAR_NAMES)


def is_structure_json(path: Path) -> bool:
    """Whether a JSON file holds one structure, rather than a table of them (or nothing readable)."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return False
    return isinstance(tree, Mapping) and "lattice" in " ".join(tree)


def is_structure_text(text: str) -> bool:
    """Whether this is CIF or JSON text, rather than a path."""
    return "\n" in text or text.lstrip().startswith("{")


def read_text(text: str) -> Any:
    """One structure of CIF or JSON text.

    Raises:
        CrystalError: neither, or not exactly one structure.
    """
    if text.lstrip().startswith("{"):
        try:
            tree = json.loads(text)
        except (ValueError, RecursionError) as error:  # the latter of nested brackets
            raise CrystalError(f"not valid JSON ({error}); make it again") from error
        return from_dictionary(tree) if "sites" in tree else tree
    if not re.search(r"^[^\S\n]*data_", text, flags=re.MULTILINE):
        raise CrystalError(f"{text[:40]!r} is neither CIF (`data_...`) nor JSON of a structure; give one of these")
    structures = _read_cif(text)
    if len(structures) != 1:
        raise CrystalError(f"the CIF text holds {len(structures)} structures where one is expected; give one of them")
    return structures[0]


def from_dictionary(tree: Mapping[str, Any]) -> Any:
    """The pymatgen Structure of `Structure.as_dict()`, without the properties of its sites.

    Of these pymatgen would make objects of any class that they name, and import its module for that, which runs it.
    """
    module = _require("pymatgen.core.structure", "pymatgen", "reading a pymatgen dictionary")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sites = [{name: site[name] for name in _SITE_ENTRIES if name in site} for site in tree["sites"]]
            return module.Structure.from_dict({"lattice": tree["lattice"], "sites": sites})
        except Exception as error:
            raise CrystalError(
                f"not a pymatgen structure ({_reason(error)}); write it with Structure.as_dict"
            ) from error


def read_file(path: Path) -> list[Any]:
    """The structures of a file, as something that `to_crystal` takes."""
    if not path.is_file():
        raise CrystalError(
            "is a folder, not a structure file; name the file" if path.is_dir() else "no such file; check the path"
        )
    if path.stat().st_size == 0:
        raise CrystalError("the file is empty; copy it again")
    if path.suffix.lower() in _CIF_SUFFIXES:
        return _read_cif(path.read_text(encoding="utf-8", errors="replace"))
    if path.suffix.lower() == ".json":
        return [read_text(path.read_text(encoding="utf-8", errors="replace"))]
    if _is_poscar(path):
        return [_read_poscar(path)]
    if path.suffix.lower() in xyz.SUFFIXES:
        frames = list(xyz.frames_from(path))
        for frame in frames:
            if isinstance(frame, CrystalError):
                raise frame
        if not frames:
            raise CrystalError("holds no structure; check the file")
        return frames
    return _read_with_ase(path)


def holds_one_at_most(path: Path) -> bool:
    """Whether a file holds one structure (or none that can be read), as far as that shows without reading it."""
    if path.suffix.lower() in _CIF_SUFFIXES:
        try:
            return len(re.findall(rb"^[^\S\n]*data_", path.read_bytes(), flags=re.MULTILINE | re.IGNORECASE)) < 2
        except OSError:
            return True
    return path.suffix.lower() == ".json" or _is_poscar(path)


def _is_poscar(path: Path) -> bool:
    return path.suffix.lower() in _POSCAR_SUFFIXES or path.name.startswith(POSCAR_NAMES)


def _read_poscar(path: Path) -> Any:
    poscar = _require("pymatgen.io.vasp.inputs", "pymatgen", "reading POSCAR")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            text = path.read_text(encoding="utf-8")
            _check_counts(text)
            parsed = poscar.Poscar.from_str(text, read_velocities=False)
        except CrystalError:
            raise
        except Exception as error:
            raise CrystalError(f"cannot be read as POSCAR ({_reason(error)}); check the file") from error
    if not parsed.true_names:
        raise CrystalError("names no elements (VASP 4 format); put a line with their symbols before the line of counts")
    return parsed.structure


def _check_counts(text: str) -> None:
    """Refuse a POSCAR whose counts promise more atoms than it has lines: they would be made room for, however many."""
    lines = text.split("\n")
    for line in lines[5:30]:  # one line of counts, or several after as many of symbols
        words = list(itertools.takewhile(str.isdecimal, line.split()))
        if any(len(word) > 9 for word in words) or sum(map(int, words)) > len(lines):
            raise CrystalError(f"{line.strip()[:40]!r} counts more atoms than the file has lines; was it cut short?")


def _read_with_ase(path: Path) -> list[Any]:
    ase_io = _require("ase.io", "ase", f"reading {path.name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_unpacked_size(path)
            frames = ase_io.read(path, index=":")
        except TooLarge as error:
            raise CrystalError(f"{error}, all at a time; unpack it first, or divide it") from error
        except Exception as error:  # readers of dozens of formats raise what they like
            raise CrystalError(f"cannot be read ({_reason(error)}); check the file and its suffix") from error
    if not frames:
        raise CrystalError("holds no structure; check the file")
    return frames


def _read_cif(text: str) -> list[Any]:
    plain = read_plain_cif(text)
    return _read_cif_with_pymatgen(text) if plain is None else [plain]


def _read_cif_with_pymatgen(text: str) -> list[Any]:
    cif = _require("pymatgen.io.cif", "pymatgen", "reading CIF")
    text = check_lines(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parser = cif.CifParser(io.StringIO(text))
            blocks = parser.as_dict()
        except Exception as error:
            raise CrystalError(f"cannot be read as CIF ({_reason(error)}){_advice(text, 'check the file')}") from error
        for block in blocks.values():
            check_cell(block)
            check_operations(block)
            check_size(block)
            _check_cif_atoms(block)
            if not listed_operations(block):
                for name in GROUP_FIELDS:
                    _space_group(re.sub(r"[\s_]", "", str(block.get(name, ""))))
        try:
            # Occupancies as they stand: sums above 1 show atoms on one place, which the default would rescale.
            structures = parser.parse_structures(primitive=False, check_occu=False, on_error="raise")
            # With that setting pymatgen leaves out its last step; the order of atoms is to be that of its from_file.
            structures = [found.get_sorted_structure() if found.is_ordered else found for found in structures]
        except Exception as error:
            advice = _advice(text, "check cell, symmetry and atom sites")
            raise CrystalError(f"holds no structure that can be read as CIF ({_reason(error)}){advice}") from error
    if len(blocks) == len(structures) == 1 and structures[0].is_ordered:
        (block,) = blocks.values()
        check_formula(str(block.get("_chemical_formula_sum", "")), np.array(structures[0].atomic_numbers))
    return structures


@lru_cache(maxsize=1024)
def _space_group(name: str) -> Any:
    """pymatgen's space group of this name, kept: it takes seconds to make, and pymatgen forgets it with every file."""
    groups = importlib.import_module("pymatgen.symmetry.groups")
    known = {re.sub(r"[\s_]", "", symbol): symbol for symbol in groups.SYMM_DATA["space_group_encoding"]}
    return groups.SpaceGroup(known[name]) if name in known else None


def _advice(text: str, otherwise: str) -> str:
    """What a CIF lacks, or else what to do."""
    return what_is_missing(text) or f"; {otherwise}"


def _check_cif_atoms(block: Mapping[str, Any]) -> None:
    """Refuse what pymatgen would skip or guess: atom types that are no element, labels of groups, missing positions."""
    labels = block.get("_atom_site_label", [])
    symbols = block.get("_atom_site_type_symbol", labels)
    by_type = "_atom_site_type_symbol" in block
    for label, symbol in zip(labels, symbols, strict=False):
        letters = re.match("[A-Za-z]*", symbol).group()  # type: ignore[union-attr] (matches any text)
        # A label may add letters to the element ("NaA", "O_w"); a type may not.
        known = atomic_number(letters) if by_type else atomic_number(letters[:2]) or atomic_number(letters[:1])
        if known is None or (not by_type and re.match("OH|[Ww]at|NO3", symbol)):
            raise CrystalError(
                f"site {label[:40]!r}: {symbol[:40]!r} is no element; replace it in _atom_site_"
                f"{'type_symbol' if by_type else 'label'} by the element, or remove the site"
            )


def _require(module: str, package: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise CrystalError(f"{purpose} needs {package}: pip install 'crystalframer[data]'") from error


def _reason(error: Exception) -> str:
    """What a library said, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
