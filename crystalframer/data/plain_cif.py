"""CIF files as programs write them: one block, whole atoms, symmetry operations in full.

That is most of what people have, and reading it here takes about a tenth of the time that pymatgen needs, and no
pymatgen. Whatever is less plain (several blocks, fractional occupancies, oxidation states, magnetic structures,
symmetry by the name of the group, anything that looks like a mistake) is left to pymatgen, whose conventions hold here
too: same lattice vectors, same atoms in the same order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from crystalframer.config import HIGHEST_ATOMIC_NUMBER
from crystalframer.data.crystal import Crystal, CrystalError
from crystalframer.data.elements import SYMBOLS, atomic_number, formula_order

SITE_TOLERANCE = 1e-4
"""Fractional coordinates nearer than this are one place (pymatgen's site_tolerance)."""
CELL_FIELDS = (
    *("_cell_length_a", "_cell_length_b", "_cell_length_c"),
    *("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma"),
)
POSITION_FIELDS = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
LONGEST_CELL = 1e5
"""Å; no file means more."""
SYMMETRY_FIELDS = (
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv_pos_as_xyz_",
    "_space_group_symop_operation_xyz",
    "_space_group_symop_operation_xyz_",
)
GROUP_FIELDS = ("_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt")
NOT_PLAIN = re.compile(
    "_space_group_magn|_space_group_symop_magn|_atom_site_moment|_cell_modulation|_cell_wave_vector|"
    "_atom_type_oxidation_number|_atom_site_attached_hydrogens"
)
ORDERED_ELEMENTS = {
    symbol: z for z, symbol in enumerate(SYMBOLS[:HIGHEST_ATOMIC_NUMBER], start=1) if z not in (2, 10, 18)
}
"""Symbol → Z. Where pymatgen puts He, Ne and Ar in the order of atoms depends on the others."""
FORMULA_TOLERANCE = 0.25
"""Atoms of the cell by which a stated formula may differ: formulas are rounded."""

_TOKEN = re.compile(
    # text field, two kinds of quotes, comment, bare word
    r"""^;([\s\S]*?)\n; | '([^\n]*?)'(?=\s|\Z) | "([^\n]*?)"(?=\s|\Z) | ([#][^\n]*) | (\S+)""",
    re.MULTILINE | re.VERBOSE,
)
_COMMENT, _WORD = 3, 4
_KEYWORD = re.compile(r"_|(loop_|global_|stop_)$|data_|save_", re.IGNORECASE)
_BLOCK = re.compile(r"^\s*data_", re.MULTILINE)
_NUMBER = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?:\([0-9]+\))?")
_LABEL = re.compile(r"([A-Z][a-z]?)[0-9]*")
_TERM = re.compile(r"([+-]?)(?:([xyz])|([0-9]+)/([0-9]+)|([0-9]*\.?[0-9]+))")
_FORMULA = re.compile(r"([A-Z][a-z]?)([0-9]*\.?[0-9]*)")

Fields = Mapping[str, str | Sequence[str]]
"""Name of a field → its value; the column of a loop is a sequence."""


class _NotPlain(Exception):
    """Something that this module leaves to others, and what it is."""


def read_plain_cif(text: str) -> Crystal | None:
    """The crystal of a plain CIF; None if it is not plain, be it valid or not.

    Raises:
        CrystalError: the atoms do not make up the formula that the file states (see `check_formula`).
    """
    if len(_BLOCK.findall(text)) != 1:
        return None
    try:
        fields = _fields(text)
        crystal = _crystal(fields)
    except (_NotPlain, CrystalError):  # who reads it instead says what is wrong
        return None
    formula = fields.get("_chemical_formula_sum", "")
    check_formula(formula if isinstance(formula, str) else "", crystal.atomic_numbers)
    return crystal


def what_is_missing(text: str) -> str:
    """What a CIF that cannot be read lacks, as far as can be told: `"; it lacks ..."`, or nothing."""
    if not _BLOCK.search(text):
        return "; it holds no block of data (`data_...`): is it a CIF file?"
    names = set(re.findall(r"^\s*(_\S+)", text, re.MULTILINE))
    lacking = [name for name in CELL_FIELDS if name not in names]
    if "_atom_site_label" not in names or not names.issuperset(POSITION_FIELDS):
        columns = [name for name in ("_atom_site_label", *POSITION_FIELDS) if name not in names]
        lacking.append(f"the loop of atom sites ({', '.join(columns)})")
    if lacking:
        return f"; it lacks {', '.join(lacking)}: was the file cut short?"
    try:
        _fields(text)
    except _NotPlain as problem:
        return f"; {problem}"
    return ""


def check_cell(fields: Fields) -> None:
    """That lengths and angles of a CIF block, as far as they are there, can be those of a cell.

    Raises:
        CrystalError: they cannot; the field is named.
    """
    for name in CELL_FIELDS:
        text = fields.get(name)
        if not isinstance(text, str):
            continue
        match, is_angle = _NUMBER.fullmatch(text), "angle" in name
        if match is None or not 0 < float(match[1]) < (180 if is_angle else LONGEST_CELL):
            allowed = "between 0 and 180 degrees" if is_angle else f"above 0 and below {LONGEST_CELL:,.0f} Å"
            raise CrystalError(f"{name} is {text!r}; it must be a number {allowed}")


def check_formula(stated: str, atomic_numbers: Int[np.ndarray, " n_atoms"]) -> None:
    """That atoms make up the formula of their file: a file that is cut between two lines shows in nothing else.

    Args:
        stated: `_chemical_formula_sum`, such as `"Na4 Cl4"`, of any number of formula units. One that cannot be read
            is passed over, and so is an empty one.

    Raises:
        CrystalError: they make up another one.
    """
    parts = [_FORMULA.fullmatch(part) for part in stated.split()]
    wanted: dict[int, float] = {}
    for part in parts:
        z = atomic_number(part[1]) if part else None
        if part is None or z is None or part[2] == ".":
            return
        wanted[z] = wanted.get(z, 0.0) + float(part[2] or 1)
    if not wanted or not sum(wanted.values()):
        return
    found = dict(zip(*(a.tolist() for a in np.unique(atomic_numbers, return_counts=True)), strict=True))
    n_units = len(atomic_numbers) / sum(wanted.values())
    if any(abs(found.get(z, 0) - n_units * wanted.get(z, 0.0)) > FORMULA_TOLERANCE for z in {*wanted, *found}):
        listed = " ".join(
            f"{SYMBOLS[z - 1]}{n}" for z, n in sorted(found.items(), key=lambda item: formula_order(item[0]))
        )
        raise CrystalError(
            f"its atom sites make {listed}, but _chemical_formula_sum is {stated!r}: sites are missing (a file cut "
            "short, hydrogen that is not listed) or the formula is wrong; complete the one or correct the other"
        )


# From text to fields


def _fields(text: str) -> Fields:
    tokens = [groups for groups in _TOKEN.findall(text) if not groups[_COMMENT]]
    values = ["".join(groups) for groups in tokens]
    keywords = [n for n, groups in enumerate(tokens) if _KEYWORD.match(groups[_WORD])]  # neither quoted nor text
    keywords.append(len(tokens))
    fields: dict[str, str | Sequence[str]] = {}
    if keywords[0] != 0 or not values or not values[0].startswith("data_"):
        raise _NotPlain("it does not begin with a block of data")
    if keywords[1] != 1:
        raise _NotPlain(f"{values[1][:40]!r} stands where the name of a field should be")
    at = 1
    while at < len(keywords) - 1:
        start, at = keywords[at], at + 1
        is_loop = values[start].lower() == "loop_"
        first = start + 1 if is_loop else start
        end = first if is_loop else start + 1
        while is_loop and keywords[at] == end < len(values) and values[end].startswith("_"):
            end, at = end + 1, at + 1
        names, found = values[first:end], values[end : keywords[at]]
        if is_loop:
            columns: list[str | Sequence[str]] = _columns(names, found)
        elif values[start].startswith("_"):
            if not found:
                raise _NotPlain(f"{values[start]} has no value: was the file cut short?")
            columns = [*found]
        else:
            raise _NotPlain(f"{values[start]!r} has no place in a file of one block")
        if len(columns) != len(names):
            raise _NotPlain(f"{found[1][:40]!r} stands where the name of a field should be")
        for name, column in zip(names, columns, strict=True):
            if name in fields:
                raise _NotPlain(f"{name} is given twice")
            fields[name] = column
    return fields


def _columns(names: Sequence[str], values: Sequence[str]) -> list[str | Sequence[str]]:
    """The values of a loop by name."""
    if not names or not values:
        raise _NotPlain(f"the loop of {_listed(names)} has no rows: was the file cut short?")
    n_rows, n_left = divmod(len(values), len(names))
    if n_left:
        raise _NotPlain(
            f"row {n_rows + 1} of the loop of {_listed(names)} has {n_left} of {len(names)} values: was the file cut "
            "short?"
        )
    return [values[column :: len(names)] for column in range(len(names))]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


# From fields to a crystal


def _crystal(fields: Fields) -> Crystal:
    if any(map(NOT_PLAIN.match, fields)):
        raise _NotPlain("magnetic or modulated structure, oxidation states or implicit hydrogen")
    numbers = _elements(fields)
    columns = [_column(fields, name) for name in POSITION_FIELDS]
    listed = np.array([[_number(value) for value in column] for column in columns]).T
    if len(listed) != len(numbers) or any(_number(value) != 1 for value in fields.get("_atom_site_occupancy", ())):
        raise _NotPlain("sites that are not whole atoms")
    sites, frac = _images(_exact_thirds(listed), _operations(fields))
    order = sorted(range(len(sites)), key=lambda image: formula_order(numbers[sites[image]]))
    check_cell(fields)
    lattice = _lattice(*(_number(_single(fields, name)) for name in CELL_FIELDS))
    return Crystal(np.array(numbers)[sites][order], frac[order] @ lattice, lattice)


def _elements(fields: Fields) -> list[int]:
    """Z of every listed site."""
    by_type = "_atom_site_type_symbol" in fields
    labels = _column(fields, "_atom_site_label")
    symbols = _column(fields, "_atom_site_type_symbol") if by_type else labels
    found = []
    for symbol in symbols:
        element = symbol if by_type else (_LABEL.fullmatch(symbol) or [None, ""])[1]
        if element not in ORDERED_ELEMENTS:
            raise _NotPlain(f"{symbol!r} is not the bare symbol of an element")
        found.append(ORDERED_ELEMENTS[element])
    if len(labels) != len(found):
        raise _NotPlain("columns of different length")
    return found


def _images(
    listed: Float[np.ndarray, "n_sites 3"], operations: Float[np.ndarray, "n_operations 3 4"]
) -> tuple[Int[np.ndarray, " n_atoms"], Float[np.ndarray, "n_atoms 3"]]:
    """The listed site of every atom of the cell, and its fractional coordinates: site by site, each place once."""
    from scipy.spatial import KDTree

    frac = np.einsum("oij,sj->soi", operations[:, :, :3], listed) + operations[:, :, 3]
    frac = (frac - np.floor(frac)).reshape(-1, 3)
    sites = np.repeat(np.arange(len(listed)), len(operations))
    pairs = KDTree(frac % 1.0, boxsize=1.0).query_pairs(SITE_TOLERANCE, p=np.inf, output_type="ndarray")
    if (sites[pairs[:, 0]] != sites[pairs[:, 1]]).any():
        raise _NotPlain("sites on one place")
    is_repeated = np.zeros(len(frac), dtype=bool)
    is_repeated[pairs[:, 1]] = True  # the first image of each place stays
    has_first = np.zeros(len(frac), dtype=bool)
    has_first[pairs[~is_repeated[pairs[:, 0]], 1]] = True
    if (is_repeated & ~has_first).any():
        raise _NotPlain("images in a row, each near the next")
    return sites[~is_repeated], frac[~is_repeated]


def _operations(fields: Fields) -> Float[np.ndarray, "n_operations 3 4"]:
    present = [name for name in SYMMETRY_FIELDS if name in fields]
    if not present and {"".join(_single(fields, name).split()) for name in GROUP_FIELDS if name in fields} == {"P1"}:
        return _operation("x,y,z")[None]
    if len(present) != 1:
        raise _NotPlain("symmetry operations are not listed")
    return np.stack([_operation(text) for text in _column(fields, present[0])])


@lru_cache(maxsize=4096)
def _operation(text: str) -> Float[np.ndarray, "3 4"]:
    """`"-y, x-y, z+1/3"` as rotation and translation."""
    parts = "".join(text.split()).lower().split(",")
    if len(parts) != 3:
        raise _NotPlain(f"symmetry operation {text!r}")
    operation = np.zeros((3, 4))
    for row, part in enumerate(parts):
        position = 0
        while position < len(part) or not part:
            term = _TERM.match(part, position)
            if term is None or (position and not term[1]) or term[4] == "0":
                raise _NotPlain(f"symmetry operation {text!r}")
            sign = -1.0 if term[1] == "-" else 1.0
            if term[2]:
                operation[row, "xyz".index(term[2])] += sign
            else:
                operation[row, 3] += sign * (int(term[3]) / int(term[4]) if term[3] else float(term[5]))
            position = term.end()
    return operation


def _exact_thirds(frac: Float[np.ndarray, "n_sites 3"]) -> Float[np.ndarray, "n_sites 3"]:
    """1/3 and 2/3 for what was rounded from them, as pymatgen takes it: else symmetry would split such a place."""
    for third in (1 / 3, 2 / 3):
        frac = np.where(np.abs(frac / third - 1) <= SITE_TOLERANCE, third, frac)
    return frac


def _lattice(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> Float[np.ndarray, "3 3"]:
    """Rows a, b, c, Å, from lengths and angles in degrees: c along z, a in the plane of x and z."""
    sines, cosines = np.sin(np.radians([alpha, beta, gamma])), np.cos(np.radians([alpha, beta, gamma]))
    cosine = (cosines[0] * cosines[1] - cosines[2]) / (sines[0] * sines[1])  # of the reciprocal angle gamma*
    if abs(cosine) > 1:
        raise _NotPlain("cell")
    star = math.acos(cosine)
    return np.array(
        [
            [a * sines[1], 0.0, a * cosines[1]],
            [-b * sines[0] * math.cos(star), b * sines[0] * math.sin(star), b * cosines[0]],
            [0.0, 0.0, c],
        ]
    )


def _column(fields: Fields, name: str) -> Sequence[str]:
    value = fields.get(name)
    if value is None or isinstance(value, str):
        raise _NotPlain(f"no column {name}")
    return value


def _single(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise _NotPlain(f"no {name}")
    return value


def _number(text: str) -> float:
    """`"0.123(4)"` without its uncertainty."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise _NotPlain(f"{text!r} is no number")
    return float(match[1])
