"""SHELX files (.res, .ins): the asymmetric unit, expanded by LATT and SYMM; also the plain cells that AIRSS writes.

Instructions by G. M. Sheldrick, "SHELXL", https://shelx.uni-goettingen.de. Disorder, and atoms that a refinement would
still generate or move, are refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import gemmi
import numpy as np

from crystalframer.crystals.crystal import Crystal
from crystalframer.elements import SYMBOLS, atomic_number
from crystalframer.errors import CrystalError
from crystalframer.reading.cells import OCCUPANCY_TOLERANCE, expanded, lattice_of, listed_operations
from crystalframer.reading.space_groups import CELL_TOLERANCE, Operations, has_symmetry
from crystalframer.reading.text import TextFormat

_PASSED_OVER = (
    " ABIN ACTA ANIS ANSC ANSR BASF BEDE BIND BLOC BOND BUMP CGLS CHIV CONF CONN DAMP DANG DEFS DELU DFIX DISP EADP "
    "EQIV EXTI EXYZ FLAT FMAP FREE GRID HTAB ISOR LAUE LIST LONE L.S. MERG MORE MPLA NCSY NEUT OMIT PLAN PRIG REM "
    "RESI RIGU RTAB SADI SAME SHEL SIMU SIZE SPEC STIR SUMP SWAT TEMP TITL TWIN TWST WGHT WIGL WPDB XNPD ZERR "
)
"""Instructions that change no atom, each between spaces."""
_REFUSED = {
    "FRAG": "fits a fragment whose atoms are not placed yet",
    "FEND": "fits a fragment whose atoms are not placed yet",
    "HFIX": "adds hydrogen that is not listed yet",
    "MOVE": "moves the atoms that follow",
}
_CENTRINGS = {
    1: ["x,y,z"],
    2: ["x,y,z", "x+1/2,y+1/2,z+1/2"],
    3: ["x,y,z", "x+2/3,y+1/3,z+1/3", "x+1/3,y+2/3,z+2/3"],
    4: ["x,y,z", "x,y+1/2,z+1/2", "x+1/2,y,z+1/2", "x+1/2,y+1/2,z"],
    5: ["x,y,z", "x,y+1/2,z+1/2"],
    6: ["x,y,z", "x+1/2,y,z+1/2"],
    7: ["x,y,z", "x+1/2,y+1/2,z"],
}
"""Number of LATT → translations: P, I, R (obverse), F, A, B, C."""
_INDENTED_ATOM = re.compile(r"\s+[A-Za-z]\S*\s+[0-9]+(\s+-?[0-9]*\.[0-9]+){3}")
_LAST_DIGIT = 1e-3
"""Coordinates may be rounded to three digits."""
_LONGEST_OPERATION = 100
"""Characters of a word."""
_UNIT_TOLERANCE = 0.01
"""Relative: numbers of atoms in UNIT are rounded."""


@dataclass
class _Content:
    """What the lines of a file say so far."""

    cell: gemmi.UnitCell | None = None
    centring: int | None = None
    operations: list[gemmi.Op] = field(default_factory=list)
    elements: list[int] = field(default_factory=list)
    unit: list[float] = field(default_factory=list)
    variables: list[float] = field(default_factory=list)
    atoms: list[tuple[str, list[float]]] = field(default_factory=list)
    """Name; number of the element, coordinates and occupancy as they stand."""


SHELX = TextFormat(lambda text: [_read(text)])


def _read(text: str) -> Crystal:
    content = _Content()
    for number, line in _instructions(text):
        word, *values = line.split()
        word = word.upper()
        keyword = word[:4].partition("_")[0]
        if keyword in ("END", "HKLF"):  # peaks of the difference map follow
            return _crystal(content)
        try:
            _take(keyword, word, values, content)
        except (ValueError, RuntimeError, IndexError, OverflowError) as error:
            reason = error.message if isinstance(error, CrystalError) else "cannot be read; correct it"
            site = error.site if isinstance(error, CrystalError) else None
            raise CrystalError(f"line {number} ({line[:40]!r}) {reason}", site=site) from error
    raise CrystalError("ends without END or HKLF; was it cut short?", field="END")


def _instructions(text: str) -> Iterator[tuple[int, str]]:
    """Number and content of each instruction. `=` at the end continues it; a line that begins with a space is none."""
    begun, first = "", 0
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.partition("!")[0].rstrip()
        if not begun and _INDENTED_ATOM.match(line):
            problem = "begins with a space, which makes it a comment: remove the space or the line"
            raise CrystalError(f"line {number} ({line.strip()[:40]!r}) {problem}")
        if not begun and (not line.strip() or line[0].isspace() or line.upper().startswith(("REM", "TITL"))):
            continue
        first = first if begun else number
        begun += " " + line.removesuffix("=")
        if not line.endswith("="):
            yield first, begun.strip()
            begun = ""


def _take(keyword: str, word: str, values: list[str], content: _Content) -> None:
    """Take one instruction.

    Raises:
        CrystalError: it makes the content uncertain.
        ValueError, RuntimeError, IndexError, OverflowError: it cannot be read.
    """
    if keyword in _REFUSED:
        raise CrystalError(f"{_REFUSED[keyword]}: finish the refinement first, or use CIF")
    if keyword == "CELL":
        a, b, c, alpha, beta, gamma = map(_number, values[1:7])
        content.cell = gemmi.UnitCell(a, b, c, alpha, beta, gamma)
    elif keyword == "LATT":
        content.centring = int(_number(values[0]))
    elif keyword == "SYMM":
        content.operations.append(_operation(values))
    elif keyword == "SFAC":
        content.elements += _elements(values)
    elif keyword == "UNIT":
        content.unit += map(_number, values)
    elif keyword == "FVAR":
        content.variables += map(_number, values)
    elif keyword == "PART":
        if _number(values[0]) != 0:
            raise CrystalError("begins a part of a disordered structure: make an ordered one first")
    elif keyword == "AFIX" or f" {keyword} " in _PASSED_OVER:
        return
    else:
        content.atoms.append((word, _atom(word, values, len(content.atoms))))


def _number(word: str) -> float:
    if not re.fullmatch(r"[+-]?([0-9]++\.?[0-9]*+|\.[0-9]++)([eE][+-]?[0-9]{1,2})?", word):
        raise ValueError(f"{word[:40]!r} is no number")
    return float(word)


def _elements(values: list[str]) -> list[int]:
    """Elements of SFAC: symbols, or one symbol with its scattering factors."""
    numbers = []
    for word in values:
        if re.match("[-+.0-9]", word):
            break
        z = atomic_number(word.lstrip("$"))
        if z is None:
            raise CrystalError(f"names {word[:10]!r}, which is no element: correct it")
        numbers.append(z)
    return numbers


def _atom(word: str, values: list[str], site: int) -> list[float]:
    if word.startswith("+"):
        raise CrystalError("includes another file: put its content here")
    if re.fullmatch(r"Q\d+", word):
        raise CrystalError("is a peak of the difference map, not an atom: remove it", site=site)
    element, *numbers = values[:5]
    if not element.isdigit() or len(numbers) < 3:
        raise CrystalError("is neither a known instruction nor an atom: correct it", site=site)
    return [_number(word) for word in (element, *numbers, "11")[:5]]


def _crystal(content: _Content) -> Crystal:
    for name, value in (("CELL", content.cell), ("SFAC", content.elements), ("atoms", content.atoms)):
        if not value:
            raise CrystalError(f"has no {name}; is this a SHELX file?", field=name)
    assert content.cell is not None
    lattice = lattice_of(content.cell)
    values = np.array([values for _, values in content.atoms])
    numbers = [_element_of(site, content) for site in range(len(values))]
    frac = np.array([[_value(x, content, site) for x in row[1:4]] for site, row in enumerate(values)])
    operations = _operations(content)
    names = [name for name, _ in content.atoms]
    sites, places = expanded(names, frac, np.full_like(frac, _LAST_DIGIT), lattice, operations)
    orders = len(operations) // np.bincount(sites)
    for site, (name, row) in enumerate(content.atoms):
        occupancy = _value(row[4], content, site)
        if not abs(occupancy - 1 / orders[site]) <= OCCUPANCY_TOLERANCE:
            where = f"site {site} ({name}) has {occupancy * orders[site]:.4g} atoms on its place"
            whole = f"a whole atom there has an occupancy of 1/{orders[site]}" if orders[site] > 1 else "1 is needed"
            raise CrystalError(f"{where}; {whole}: make an ordered structure first, or correct it", site=site)
    found = np.array(numbers, dtype=np.int64)[sites]
    _check_unit(content, found)
    return Crystal(found, places @ lattice, lattice)


def _element_of(site: int, content: _Content) -> int:
    name, values = content.atoms[site]
    if not 1 <= values[0] <= len(content.elements):
        n_elements = len(content.elements)
        raise CrystalError(f"site {site} ({name}) is of element {values[0]:.0f}, SFAC names {n_elements}", site=site)
    return content.elements[int(values[0]) - 1]


def _value(coded: float, content: _Content, site: int) -> float:
    """A parameter as it is coded, 10 m + p: p if m is 0 (free) or 1 (fixed), p v(m) above, p (v(-m) - 1) below."""
    m = int((coded + 5) // 10)
    p = coded - 10 * m
    if m in (0, 1):
        return p
    if m == -1 or abs(m) > len(content.variables):
        problem = f"{coded:g} of site {site} refers to variable {abs(m)}, FVAR has {len(content.variables)}"
        raise CrystalError(f"{problem}; correct it", site=site)
    variable = content.variables[abs(m) - 1]
    return p * variable if m > 0 else p * (variable - 1)


def _operations(content: _Content) -> Operations:
    """All operations of the group.

    Raises:
        CrystalError: LATT is missing or unknown, or the operations do not fit together or to the cell.
    """
    if content.centring is None or abs(content.centring) not in _CENTRINGS:
        raise CrystalError("has no LATT between 1 and 7 (-1: primitive, without inversion); add it", field="LATT")
    assert content.cell is not None
    factors = [
        [gemmi.Op("x,y,z"), *content.operations],
        [gemmi.Op("x,y,z"), gemmi.Op("-x,-y,-z")][: 1 + (content.centring > 0)],
        [gemmi.Op(text) for text in _CENTRINGS[abs(content.centring)]],
    ]
    group = {(third * second * first).wrap().triplet() for first, second, third in itertools.product(*factors)}
    try:
        found = listed_operations(tuple(sorted(group)))
    except CrystalError as error:
        raise CrystalError(
            "LATT and SYMM do not make up a group; was a line lost? Correct them", field="SYMM"
        ) from error
    if not has_symmetry(lattice_of(content.cell), found, CELL_TOLERANCE):
        raise CrystalError("SYMM does not fit to the cell; correct one of them", field="SYMM")
    return found


def _operation(values: list[str]) -> gemmi.Op:
    """`0.5+X, -Y, Z`; gemmi reads fractions."""
    if max(map(len, values)) > _LONGEST_OPERATION:
        raise ValueError("too long")
    operation = gemmi.Op(re.sub(r"[0-9]*\.[0-9]+", _fraction, "".join(values).lower()))
    if abs(operation.det_rot()) != gemmi.Op.DEN**3:
        raise ValueError("no rotation of a lattice")
    return operation


def _fraction(number: re.Match[str]) -> str:
    in_24ths = 24 * float(number[0])
    if abs(in_24ths - round(in_24ths)) > 0.05:
        raise ValueError(f"{number[0]} is no translation of a space group")
    return f"{round(in_24ths)}/24"


def _check_unit(content: _Content, numbers: np.ndarray) -> None:
    """That there are as many atoms as UNIT says, if it is there."""
    wanted: dict[int, float] = {}
    for z, amount in zip(content.elements, content.unit, strict=False):
        wanted[z] = wanted.get(z, 0.0) + amount
    for z, amount in wanted.items():
        found = int((numbers == z).sum())
        if abs(found - amount) > max(0.5, _UNIT_TOLERANCE * amount):
            problem = f"UNIT says {amount:.6g} atoms of {SYMBOLS[z - 1]} in the cell, the sites make {found}"
            raise CrystalError(f"{problem}; add the missing sites or correct UNIT", field="UNIT", value=amount)
