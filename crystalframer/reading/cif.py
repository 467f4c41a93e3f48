"""CIF files.

Most files are plain: one block, whole atoms, symmetry operations in full. With gemmi they are read in a small part of
the time that pymatgen needs. All others (several blocks, fractional occupancies, oxidation states, magnetic structures,
symmetry by the name of the group, anything that looks like a mistake) are left to pymatgen, whose conventions hold here
too: same lattice vectors, same atoms in the same order.
"""

from __future__ import annotations

import importlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from jaxtyping import Float, Int

from crystalframer.crystals.crystal import FARTHEST_POSITION, LONGEST_CELL, Crystal
from crystalframer.elements import ATOMIC_NUMBERS, HIGHEST_ATOMIC_NUMBER, SYMBOLS, atomic_number, formula_order
from crystalframer.errors import CrystalError
from crystalframer.libraries import reason
from crystalframer.reading.entry import BEGINNING, Entry, Start, numbered
from crystalframer.reading.text import text_of

SITE_TOLERANCE = 1e-4
"""Fractional coordinates nearer than this are one place (pymatgen's site_tolerance)."""
CELL_FIELDS = (
    *("_cell_length_a", "_cell_length_b", "_cell_length_c"),
    *("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma"),
)
POSITION_FIELDS = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
SYMMETRY_FIELDS = tuple(
    name + end for name in ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz") for end in ("", "_")
)
"""With the underscore that some programs put behind names, as pymatgen knows them."""
GROUP_FIELDS = ("_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt")
NOT_PLAIN = re.compile(
    "_space_group_magn|_space_group_symop_magn|_atom_site_moment|_cell_modulation|_cell_wave_vector|"
    "_atom_type_oxidation_number|_atom_site_attached_hydrogens",
    re.IGNORECASE,
)
"""Anywhere in the text: magnetic or modulated structures, oxidation states, hydrogen that is not listed."""
MOST_IMAGES = 1_000_000
"""Sites times symmetry operations; more are a damaged file."""
LONGEST_LINE = 20_000
"""Characters of a CIF that pymatgen reads; the standard allows 2,048."""
MOST_UNPLAIN_IMAGES = 10_000
"""The same where pymatgen reads the file, which takes some milliseconds for each."""
LONGEST_OPERATION = 200
"""Characters of a symmetry operation that pymatgen reads, in a time that grows with the cube of a row of digits."""
MOST_PAIRS = 2_000_000
"""Of images on one place, one and the other. An atom on the place of highest symmetry gives 4 · 48²."""
ORDERED_ELEMENTS = {
    symbol: z for z, symbol in enumerate(SYMBOLS[:HIGHEST_ATOMIC_NUMBER], start=1) if z not in (2, 10, 18)
}
"""Symbol → Z. Where pymatgen puts He, Ne and Ar in the order of atoms depends on the others."""
PLACE_IN_FORMULA = {z: place for place, z in enumerate(sorted(ORDERED_ELEMENTS.values(), key=formula_order))}
"""Z → rank in the order of atoms."""
FORMULA_TOLERANCE = 0.25
"""Atoms of the cell by which a stated formula may differ: formulas are rounded."""
_BLOCK = r"^[^\S\n]*data_"


def entries(path: Path, start: Start) -> Iterator[Entry]:
    return numbered(_structures_of(path)[start.n_before :], start)


def starts(path: Path) -> Iterator[Start]:
    if len(re.findall(_BLOCK, text_of(path), flags=re.MULTILINE | re.IGNORECASE)) < 2:
        return iter([BEGINNING])
    return map(Start, range(len(_structures_of(path))))


def count(path: Path) -> int:
    return 1


def text(crystal: Crystal) -> str:
    """A crystal as CIF: all atoms of the cell, without symmetry."""
    from pymatgen.io.cif import CifWriter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(CifWriter(crystal.right_handed().to_pymatgen(), significant_figures=14))


def is_cif(text: str) -> bool:
    """Whether this text holds a block of data."""
    return re.search(_BLOCK, text, flags=re.MULTILINE) is not None


def structures(text: str) -> list[Any]:
    """The structures of CIF text: a crystal of a plain one, else Structures of pymatgen.

    Raises:
        CrystalError: there are none, or none that can be read; the message says what is wrong.
    """
    plain = read_plain_cif(text)
    return _read_with_pymatgen(text) if plain is None else [plain]


def _structures_of(path: Path) -> list[Any]:
    return structures(text_of(path))


def read_plain_cif(text: str) -> Crystal | None:
    """The crystal of a plain CIF; None if it is not plain, be it valid or not.

    Raises:
        CrystalError: the atoms do not make up the formula that the file states (see `check_formula`).
    """
    if NOT_PLAIN.search(text):
        return None
    try:
        document = gemmi.cif.read_string(text)
        if len(document) != 1:
            return None
        numbers, frac, lattice = _cell_content(document[0])
    except (ValueError, RuntimeError):  # gemmi's two; who reads the file instead says what is wrong
        return None
    check_formula(gemmi.cif.as_string(document[0].find_value("_chemical_formula_sum") or ""), numbers)
    try:
        return Crystal(numbers, frac @ lattice, lattice)
    except CrystalError:
        return None


def what_is_missing(text: str) -> str:
    """What a CIF that cannot be read lacks, as far as can be told: `"; it lacks ..."`, or nothing."""
    if not is_cif(text):
        return "; it holds no block of data (`data_...`): is it a CIF file?"
    names = set(re.findall(r"^[^\S\n]*(_\S+)", text, re.MULTILINE))
    lacking = [name for name in CELL_FIELDS if name not in names]
    columns = [name for name in ("_atom_site_label", *POSITION_FIELDS) if name not in names]
    if columns:
        lacking.append(f"the loop of atom sites ({', '.join(columns)})")
    if lacking:
        return f"; it lacks {', '.join(lacking)}: was the file cut short?"
    try:
        for block in gemmi.cif.read_string(text):
            block.check_empty_loops("string")
    except (ValueError, RuntimeError) as error:
        return f"; {_where(str(error), text)}; correct that, or get the file again if it was cut short"
    return ""


def check_lines(text: str) -> str:
    """The text without long stretches of blank lines, over which pymatgen's patterns take a time that is quadratic.

    Raises:
        CrystalError: a line is longer than any that a program writes; what is quadratic in it takes hours as well.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if len(line) > LONGEST_LINE:
            shown = f"line {number} ({line.strip()[:40]!r})"
            raise CrystalError(f"{shown} has {len(line):,} characters, where CIF allows 2,048; correct it")
    return re.sub(r"\s{1000,}", "\n", text)


def check_cell(fields: Mapping[str, Any]) -> None:
    """That lengths and angles of a CIF block, as far as they are there, can be those of a cell.

    Args:
        fields: name → text.

    Raises:
        CrystalError: they cannot; the field is named.
    """
    for name in CELL_FIELDS:
        text = fields.get(name)
        if not isinstance(text, str):
            continue
        limit, unit = (180, "degrees") if "angle" in name else (LONGEST_CELL, "Å")
        try:
            is_right = 0 < _number(text) < limit
        except ValueError:
            is_right = False
        if not is_right:
            problem = f"{name} is {text[:40]!r}; it must be a number above 0 and below {limit:,.0f} {unit}"
            raise CrystalError(problem, field=name, value=text)


def listed_operations(fields: Mapping[str, Any]) -> dict[str, list[str]]:
    """Name → symmetry operations of a CIF block.

    Args:
        fields: name → text, or texts of a loop.
    """
    listed = {name: fields[name] for name in SYMMETRY_FIELDS if name in fields}
    return {name: [texts] if isinstance(texts, str) else list(texts) for name, texts in listed.items()}


def check_operations(fields: Mapping[str, Any]) -> None:
    """That symmetry operations of a CIF block are no longer than any that a program writes.

    Args:
        fields: name → text, or texts of a loop.

    Raises:
        CrystalError: one is; it is named.
    """
    for name, operations in listed_operations(fields).items():
        for number, operation in enumerate(operations, start=1):
            if len(operation) > LONGEST_OPERATION:
                shown = f"operation {number} of {name} ({operation[:40]!r})"
                raise CrystalError(f"{shown} has {len(operation):,} characters; correct it", field=name)


def check_size(fields: Mapping[str, Any]) -> None:
    """That a CIF block is not larger than pymatgen can take in some seconds.

    Args:
        fields: name → text, or texts of a loop.

    Raises:
        CrystalError: sites times symmetry operations are too many.
    """
    n_sites = len(fields.get("_atom_site_label", ()))
    n_operations = max([len(operations) for operations in listed_operations(fields).values()] or [1])
    if n_operations == 1:
        for name in GROUP_FIELDS:
            group = gemmi.find_spacegroup_by_name(str(fields.get(name, "")))
            n_operations = max(n_operations, len(list(group.operations())) if group else 1)
    if n_sites * n_operations > MOST_UNPLAIN_IMAGES:
        plain = "write a plain CIF (one block, whole atoms, symmetry operations in full)"
        raise CrystalError(f"{n_sites:,} sites and {n_operations:,} symmetry operations make too many atoms; {plain}")


def check_formula(stated: str, atomic_numbers: Int[np.ndarray, " n_atoms"]) -> None:
    """That atoms make up the formula of their file: a file that is cut between two lines shows in nothing else.

    Args:
        stated: `_chemical_formula_sum`, such as `"Na4 Cl4"`, of any number of formula units. One that cannot be read
            is passed over, and so is an empty one.

    Raises:
        CrystalError: they make up another one.
    """
    wanted: dict[int, float] = {}
    for part in stated.split():
        match = re.fullmatch(r"([A-Z][a-z]?)([0-9]+\.?[0-9]*|\.[0-9]+|)", part)
        z = ATOMIC_NUMBERS.get(match[1]) if match else None
        if match is None or z is None:
            return
        wanted[z] = wanted.get(z, 0.0) + float(match[2] or 1)
    if not sum(wanted.values()):
        return
    found = Counter(atomic_numbers.tolist())
    n_units = len(atomic_numbers) / sum(wanted.values())
    if any(abs(found[z] - n_units * wanted.get(z, 0.0)) > FORMULA_TOLERANCE for z in {*wanted, *found}):
        listed = " ".join(f"{SYMBOLS[z - 1]}{found[z]}" for z in sorted(found, key=formula_order))
        problem = f"the atom sites make {listed}, but _chemical_formula_sum is {stated[:200]!r}"
        advice = "add the missing sites (was the file cut short? is hydrogen listed?) or correct the formula"
        raise CrystalError(f"{problem}; {advice}", field="_chemical_formula_sum", value=stated)


def _read_with_pymatgen(text: str) -> list[Any]:
    from pymatgen.io.cif import CifParser

    text = check_lines(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parser = CifParser(io.StringIO(text))
            blocks = parser.as_dict()
        except Exception as error:
            raise CrystalError(f"cannot be read as CIF ({reason(error)}){_advice(text, 'check the file')}") from error
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
            raise CrystalError(f"holds no structure that can be read as CIF ({reason(error)}){advice}") from error
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
            column = f"_atom_site_{'type_symbol' if by_type else 'label'}"
            problem = f"site {label[:40]!r}: {symbol[:40]!r} is no element; correct it in {column}, or remove the site"
            raise CrystalError(problem, field=column, value=symbol)


def _where(message: str, text: str) -> str:
    """gemmi's `"string:7:3(120): reason"` as `"line 7 ('the line'): reason"`."""
    match = re.match(r"string:([0-9]+)\S*( in \S+)?:? ?(.*)", message)
    if match is None:
        return message
    line = text.split("\n")[int(match[1]) - 1 : int(match[1])]
    return f"line {match[1]} ({''.join(line).strip()[:40]!r}): {match[3]}"


def _cell_content(
    block: gemmi.cif.Block,
) -> tuple[Int[np.ndarray, " n_atoms"], Float[np.ndarray, "n_atoms 3"], Float[np.ndarray, "3 3"]]:
    """Atomic numbers, fractional coordinates and lattice (rows, Å), in pymatgen's order of atoms.

    Raises:
        CrystalError: the block is not plain; gemmi raises errors of its own, ValueErrors as well.
    """
    numbers = _elements(block)
    columns = [_column(block, name) for name in POSITION_FIELDS]
    if not numbers or any(len(column) != len(numbers) for column in columns):
        raise CrystalError("no sites, or columns of different length")
    if any(_number(text) != 1 for text in _column(block, "_atom_site_occupancy")):
        raise CrystalError("sites that are not whole atoms")
    listed = np.array([[_number(text) for text in column] for column in columns]).T
    sites, frac = _images(_exact_thirds(listed), _operations(block))
    order = np.argsort([PLACE_IN_FORMULA[numbers[site]] for site in sites], kind="stable")
    cell = {name: block.find_value(name) or "?" for name in CELL_FIELDS}
    check_cell(cell)
    return np.array(numbers)[sites][order], frac[order], _lattice(*map(_number, cell.values()))


def _column(block: gemmi.cif.Block, name: str) -> list[str]:
    """The values of a field; none if it is not there."""
    column = block.find_values(name)
    return [column.str(row) for row in range(len(column))]


def _number(text: str) -> float:
    """`"0.123(4)"` without its uncertainty."""
    return float(text.partition("(")[0])


def _elements(block: gemmi.cif.Block) -> list[int]:
    """Z of every listed site."""
    labels = _column(block, "_atom_site_label")
    # A label without a type is an element and a number, no more.
    symbols = _column(block, "_atom_site_type_symbol") or [label.rstrip("0123456789") for label in labels]
    unknown = set(symbols) - ORDERED_ELEMENTS.keys()
    if unknown or len(labels) != len(symbols):
        raise CrystalError(f"{unknown} are no bare symbols of elements, or labels and types differ in number")
    return [ORDERED_ELEMENTS[symbol] for symbol in symbols]


def _images(
    listed: Float[np.ndarray, "n_sites 3"], operations: Float[np.ndarray, "n_operations 3 4"]
) -> tuple[Int[np.ndarray, " n_atoms"], Float[np.ndarray, "n_atoms 3"]]:
    """The listed site of every atom of the cell, and its fractional coordinates: site by site, each place once."""
    from scipy.spatial import KDTree

    if not (np.abs(listed) < FARTHEST_POSITION).all() or listed.size * len(operations) > 3 * MOST_IMAGES:
        raise CrystalError("coordinates that are no places, or more images than a cell has atoms")
    frac = np.einsum("oij,sj->soi", operations[:, :, :3], listed) + operations[:, :, 3]
    frac = (frac - np.floor(frac)).reshape(-1, 3)
    sites = np.repeat(np.arange(len(listed)), len(operations))
    # How many pairs there will be, within a small factor: from how many images share a box of the tolerance.
    boxes = np.floor(frac / SITE_TOLERANCE).astype(np.int64) @ np.array([1, 1 << 20, 1 << 40])
    if np.square(np.unique(boxes, return_counts=True)[1]).sum() > MOST_PAIRS + len(frac):
        raise CrystalError("a great many images on few places")
    pairs = KDTree(frac % 1.0, boxsize=1.0).query_pairs(SITE_TOLERANCE, p=np.inf, output_type="ndarray")
    first = np.arange(len(frac))  # image → the first one on its place, which stays
    np.minimum.at(first, pairs[:, 1], pairs[:, 0])
    if (sites[first] != sites).any() or (first[first] != first).any():
        raise CrystalError("two sites on one place, or images in a row, each near the next")
    is_kept = first == np.arange(len(frac))
    return sites[is_kept], frac[is_kept]


def _operations(block: gemmi.cif.Block) -> Float[np.ndarray, "n_operations 3 4"]:
    """Rotations and translations."""
    listed = [texts for texts in (_column(block, name) for name in SYMMETRY_FIELDS) if texts]
    groups = {"".join(text.split()) for name in GROUP_FIELDS for text in _column(block, name)}
    if not listed and groups == {"P1"}:
        listed = [["x,y,z"]]
    if len(listed) != 1:
        raise CrystalError("symmetry operations are not listed")
    return np.stack([_operation(text) for text in listed[0]])


@lru_cache(maxsize=4096)
def _operation(text: str) -> Float[np.ndarray, "3 4"]:
    """`"-y, x-y, z+1/3"`; gemmi counts translations in 24ths, and refuses others."""
    return np.array(gemmi.Op(text).float_seitz())[:3]


def _exact_thirds(frac: Float[np.ndarray, "n_sites 3"]) -> Float[np.ndarray, "n_sites 3"]:
    """1/3 and 2/3 for what was rounded from them, as pymatgen takes it: else symmetry would split such a place."""
    for third in (1 / 3, 2 / 3):
        frac = np.where(np.abs(frac / third - 1) <= SITE_TOLERANCE, third, frac)
    return frac


def _lattice(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> Float[np.ndarray, "3 3"]:
    """Rows a, b, c, Å, from lengths and angles in degrees: c along z, a in the plane of x and z."""
    # gemmi puts its first vector along its first axis, the second into the plane of the first two: c, a, b on z, x, y.
    columns = np.array(gemmi.UnitCell(c, a, b, gamma, alpha, beta).orth.mat.tolist())
    return np.roll(columns.T, -1, axis=(0, 1))
