"""CIF files, of both dictionaries of the IUCr (`_atom_site_label` and `_atom_site.label`).

gemmi takes the text apart. What a file says is read as it stands, or refused with the name of the item: an element that
must be guessed, a site that is not one whole atom, a symmetry that is not certain, a content that contradicts itself.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import gemmi
import numpy as np
from jaxtyping import Float

from crystalframer.crystals.crystal import FARTHEST_POSITION, LONGEST_CELL, Crystal
from crystalframer.elements import ATOMIC_NUMBERS, HIGHEST_ATOMIC_NUMBER, SYMBOLS, formula_order
from crystalframer.errors import CrystalError
from crystalframer.reading.cells import (
    OCCUPANCY_TOLERANCE,
    Sites,
    Stated,
    are_same_operations,
    cell_atoms,
    possible_operations,
)
from crystalframer.reading.entry import CellContent
from crystalframer.reading.notices import left_out
from crystalframer.reading.space_groups import Symmetry, right_angles
from crystalframer.reading.text import WritableText

LENGTH_ITEMS = ("_cell_length_a", "_cell_length_b", "_cell_length_c")
ANGLE_ITEMS = ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma")
CELL_ITEMS = (*LENGTH_ITEMS, *ANGLE_ITEMS)
POSITION_ITEMS = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
OPERATION_ITEMS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
MAGNETIC_OPERATION_ITEMS = ("_space_group_symop_magn_operation_xyz", "_space_group_symop_magn_centering_xyz")
HALL_ITEMS = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
NAME_ITEMS = (
    *("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m", "_space_group_name_h-m"),
    *("_space_group_name_h-m_full", "_symmetry_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m_full"),
)
"""Not `_ref`: it names the group in its reference setting, which need not be that of the file."""
MODULATION = re.compile(r"_ssg_|_atom_site_(displace|occ|moment)_(fourier|special|legendre|ortho)")
NUMBER_ITEMS = ("_space_group_it_number", "_symmetry_int_tables_number")
CODE_ITEMS = ("_space_group_it_coordinate_system_code",)
UNSEEN_ITEMS = {
    "oxidation states": ("_atom_type_oxidation_number",),
    "magnetic moments": (
        "_atom_site_moment_label",
        "_atom_site_moment_crystalaxis_x",
        "_atom_site_moment_spherical_modulus",
    ),
}
MULTIPLICITY_ITEMS = ("_atom_site_site_symmetry_multiplicity",)
"""The older item without `site_` may hold the order of the site symmetry instead."""
PLACE_IN_FORMULA = np.full(len(SYMBOLS) + 1, HIGHEST_ATOMIC_NUMBER)
"""Index: Z; rank in the order of atoms. Elements that the model does not know come last, and are refused later."""
PLACE_IN_FORMULA[sorted(range(1, HIGHEST_ATOMIC_NUMBER + 1), key=formula_order)] = np.arange(HIGHEST_ATOMIC_NUMBER)
_BLOCK = re.compile(r"^[^\S\n]*data_", re.MULTILINE | re.IGNORECASE)
_CIF_2_TOKEN = re.compile(
    r"""(?P<comment>#[^\n]*)|(?P<field>^;.*?^;)|(?P<long>\'{3}.*?\'{3}|"{3}.*?"{3})|(?P<quoted>\'[^'\n]*\'|"[^"\n]*")"""
    r"""|(?P<open>[\[{])|(?P<close>[\]}])|(?P<name>_\S*)|(?P<word>[^\s\[\]{}]+)|(?P<gap>\s+)|(?P<other>.)""",
    re.MULTILINE | re.DOTALL,
)
_WITH_COMMA = re.compile(r"""(?<=\s)('[^'\n]*'|"[^"\n]*"),(?=[^\S\n]*$)""", re.MULTILINE)
"""A quoted text and a comma at the end of a line, as in some lists of authors. CIF has no such commas."""
CIF_2_LIST = "[list or table of CIF 2]"
"""Stands for one."""
_NUMBER = re.compile(r"\s*[+-]?(\d++\.?\d*+|\.\d++)([eEdD][+-]?\d++)?(\(\d*+\.?\d*+\))?\s*")
_DIGITS = frozenset("0123456789.+-eE")
_FURTHER = re.compile(r"[,/+&:(_.\d-]([A-Z][a-z])|[,/+&:(_-]([A-Z])(?![a-z])|\d([A-Z])\d")
"""A second symbol in a label: `Fe1Mg1`, `O-H`, `C1H3`; not the letter of `C1B`."""
_WATER = re.compile(r"[HD][23]O|O\d+H")
"""A label of water or hydroxyl, or of one atom of it: only the formula of the crystal tells."""
_WITH_HYDROGEN = re.compile(r"Wat|HOH|H2O|O-?H(?![a-z])")
_TYPE = re.compile(r"([A-Za-z]{1,2})(?:\d++\.?\d*+[+-]|[+-]\d*+\.?\d*+|[+-]?\d*+)")
"""Symbol of an element, with a charge or a number: `Fe3+`, `O2-`, `Si4`."""


def is_cif(text: str) -> bool:
    """Whether this text holds a block of data."""
    return _BLOCK.search(text) is not None


def structures(text: str) -> list[CellContent | CrystalError]:
    """The structures of CIF text, one for each block with sites; an error for one that cannot be read.

    Raises:
        CrystalError: the text is no CIF, or no block has sites.
    """
    blocks = _blocks(text)
    with_sites = [block for block in blocks if block.has_sites]
    if not with_sites:
        if any(block.has("_atom_site_cartn_x") for block in blocks):
            problem = "it gives Cartesian coordinates only (_atom_site_Cartn_x)"
            raise CrystalError(
                f"{problem}; give fractional ones ({', '.join(POSITION_ITEMS)})", field=POSITION_ITEMS[0]
            )
        lacking = [item for item in CELL_ITEMS if not any(block.has(item) for block in blocks)]
        named = ", ".join((*lacking, f"the loop of atom sites (_atom_site_label, {', '.join(POSITION_ITEMS)})"))
        raise CrystalError(f"it lacks {named}: was the file cut short?", field=POSITION_ITEMS[0])
    return [_structure(block) for block in with_sites]


def n_structures(text: str) -> int:
    """How many structures CIF text has; at least 1, which may be an error."""
    if len(_BLOCK.findall(text)) < 2:
        return 1
    return max(1, sum(block.has_sites for block in _blocks(text)))


def written(crystal: Crystal) -> str:
    """A crystal as CIF: all atoms of the cell, without symmetry."""
    from pymatgen.io.cif import CifWriter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(CifWriter(crystal.right_handed().to_pymatgen(), significant_figures=14))


CIF = WritableText(structures, n_structures, text=written)


class Block:
    """The items of a block, by names in lower case, with `_` for `.` and without one at the end."""

    def __init__(self, block: gemmi.cif.Block, is_cif_2: bool) -> None:
        self._is_cif_2 = is_cif_2
        self._values: dict[str, list[str]] = {}
        self._columns: dict[str, tuple[gemmi.cif.Loop, int]] = {}
        """Columns of loops that nobody asked for yet."""
        self._repeated: dict[str, str] = {}
        self.last = ""
        """The last item, if it is not in a loop."""
        for item in block:
            pair: Any = item.pair
            self.last = _normal(pair[0]) if pair else ""
            if pair is None:
                if item.loop is not None:
                    self._add_loop(item.loop)
                continue
            tag, value = pair
            if not value:
                raise CrystalError(f"{tag[:60]} has no value; was the file cut short?", field=tag)
            self._add(tag, [gemmi.cif.as_string(value)])

    def _add_loop(self, loop: gemmi.cif.Loop) -> None:
        for column, tag in enumerate(loop.tags):
            name = _normal(tag)
            if self.has(name):
                self._add(tag, _column(loop, column))
            else:
                self._columns[name] = loop, column

    def _add(self, tag: str, values: list[str]) -> None:
        name = _normal(tag)
        known = self.values(name)
        if not any(known):
            self._values[name] = values
        elif any(values) and list(map(_comparable, known)) != list(map(_comparable, values)):
            self._repeated[name] = tag

    @property
    def names(self) -> Iterable[str]:
        return (*self._values, *self._columns)

    def has(self, name: str) -> bool:
        return name in self._values or name in self._columns

    @property
    def has_sites(self) -> bool:
        return any(self.has(item) for item in POSITION_ITEMS)

    def values(self, *names: str) -> list[str]:
        """The values of the first of these items that has any, else of the first that is there; `.` and `?` are empty.

        Raises:
            CrystalError: the item stands in the block twice, with other values.
        """
        present: list[str] = []
        for name in names:
            if name in self._columns:
                self._values[name] = _column(*self._columns.pop(name))
            if name in self._repeated:
                tag = self._repeated[name]
                raise CrystalError(f"{tag[:60]} is given twice, with other values; remove one", field=tag)
            values = self._values.get(name, [])
            if self._is_cif_2 and CIF_2_LIST in values:
                raise CrystalError(f"{name} is a list or table of CIF 2; give one value for each", field=name)
            if any(values):
                return values
            present = present or values
        return present

    def text(self, *names: str) -> str:
        """The value of the first of these items that is one text; empty if there is none."""
        for name in names:
            values = self.values(name)
            if len(values) == 1 and values[0]:
                return values[0].strip()
        return ""

    def number(self, *names: str) -> float | None:
        """The value of an item as a number; None if it has none."""
        text = self.text(*names)
        return float(_plain(text)) if text and _NUMBER.fullmatch(text) else None


def _comparable(text: str) -> float | str:
    """Numbers that are written in different ways are equal."""
    return float(_plain(text)) if _NUMBER.fullmatch(text) else text.strip()


def _column(loop: gemmi.cif.Loop, column: int) -> list[str]:
    return list(map(gemmi.cif.as_string, loop.values[column :: loop.width()]))


@lru_cache(maxsize=4096)
def _normal(tag: str) -> str:
    return tag.lower().replace(".", "_").rstrip("_")


def _number(text: str) -> float:
    """`"0.123(4)"` without its uncertainty."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(_plain(text))


def _plain(text: str) -> str:
    return text.partition("(")[0].lower().replace("d", "e")


def _blocks(text: str) -> list[Block]:
    if not is_cif(text):
        raise CrystalError("it holds no block of data (`data_...`): is it a CIF file?")
    text = text.rstrip("\x1a")
    is_cif_2 = text.lstrip().startswith("#\\#CIF_2.0")
    if is_cif_2:
        text = _as_cif_1(text)
    if not text.isascii():
        text = re.sub(r"[^\x00-\x7f]", lambda match: " " if match[0].isspace() else "~", text)
    try:
        document = _document(text)
    except (ValueError, RuntimeError) as error:
        try:
            document = _document(_WITH_COMMA.sub(r"\1", text))
        except (ValueError, RuntimeError):
            raise CrystalError(
                f"{_where(str(error), text)}; correct that, or get the file again if it was cut short"
            ) from error
    return [Block(block, is_cif_2) for block in document]


def _document(text: str) -> gemmi.cif.Document:
    return gemmi.cif.read_string(text[_BLOCK.search(text).start() :], 0)  # type: ignore[union-attr] (see `_blocks`)


def _as_cif_1(text: str) -> str:
    """Text of CIF 2 as gemmi reads it: strings in three quotes with one, and `CIF_2_LIST` for lists and tables.

    Lines keep their numbers.
    """
    parts: list[str] = []
    depth = 0
    for token in _CIF_2_TOKEN.finditer(text):
        part, kind = token[0], token.lastgroup
        depth += (kind == "open") - (kind == "close")
        if kind == "close" and depth == 0:
            part = f"'{CIF_2_LIST}'"
        elif depth > 0:
            part = "\n" * part.count("\n")
        elif kind == "long":
            content = " ".join(part[3:-3].split())
            quote = '"' if "'" in content else "'"
            part = quote + content.replace(quote, " ") + quote + "\n" * part.count("\n")
        parts.append(part)
    return "".join(parts)


def _where(message: str, text: str) -> str:
    """gemmi's `"string:7:3(120): reason"` as `"line 7 ('the line'): reason"`."""
    match = re.match(r"string:([0-9]+)\S*(?: in \S+)?:? ?(.*)", message)
    if match is None:
        return message
    number = int(match[1]) + text[: _BLOCK.search(text).start()].count("\n")  # type: ignore[union-attr]
    line = text.split("\n")[number - 1 : number]
    return f"line {number} ({''.join(line).strip()[:40]!r}): {match[2]}"


def _structure(block: Block) -> CellContent | CrystalError:
    """The content of a block, or the error."""
    try:
        lattice = _lattice(block)
        stated, symmetry = _stated(block), _symmetry(block)
        _check_absent_angles(block, symmetry, lattice)
        sites = _sites(block, stated)
        for what, items in UNSEEN_ITEMS.items():
            if any(block.values(*items)):
                left_out(what)
        index, frac = cell_atoms(sites, lattice, symmetry, stated)
    except CrystalError as error:
        return error
    numbers = sites.numbers[index]
    order = np.argsort(PLACE_IN_FORMULA[numbers], kind="stable")
    return CellContent(numbers[order], frac[order] @ lattice, lattice)


def _lattice(block: Block) -> Float[np.ndarray, "3 3"]:
    """Rows a, b, c, Å: c along z, a in the plane of x and z. An angle that is not there is 90 degrees.

    Raises:
        CrystalError: lengths are missing, or lengths and angles cannot be those of a cell.
    """
    lacking = [item for item in CELL_ITEMS if not block.has(item)]
    if lacking and (lacking[0] in LENGTH_ITEMS or block.last in CELL_ITEMS):
        raise CrystalError(f"it lacks {', '.join(lacking)}: was the file cut short?", field=lacking[0])
    cell = []
    for item in CELL_ITEMS:
        value, text = (block.number(item), block.text(item)) if item not in lacking else (90.0, "")
        limit, unit = (180, "degrees") if "angle" in item else (LONGEST_CELL, "Å")
        if value is None or not 0 < value < limit:
            problem = f"{item} is {text[:40] or '?'!r}; it must be a number above 0 and below {limit:,.0f} {unit}"
            raise CrystalError(problem, field=item, value=text)
        cell.append(value)
    a, b, c, alpha, beta, gamma = cell
    # gemmi puts its first vector along its first axis, the second into the plane of the first two: c, a, b on z, x, y.
    columns = np.array(gemmi.UnitCell(c, a, b, gamma, alpha, beta).orth.mat.tolist())
    if not np.isfinite(columns).all():
        problem = f"angles of {alpha:g}, {beta:g} and {gamma:g} degrees make no cell; correct them"
        raise CrystalError(problem, field="_cell_angle_alpha")
    return columns.T[np.ix_([1, 2, 0], [1, 2, 0])]


def _check_absent_angles(block: Block, symmetry: Symmetry, lattice: Float[np.ndarray, "3 3"]) -> None:
    """That angles that are not there are 90 degrees, their default, by symmetry; without symmetry any cell may be.

    Raises:
        CrystalError: symmetry leaves such an angle open, or gives another one.
    """
    absent = [axis for axis, item in enumerate(ANGLE_ITEMS) if not block.has(item)]
    if not absent:
        return
    groups = possible_operations(symmetry, lattice)
    fixed = [right_angles(group) for group in groups]
    if not any(angles[absent].all() for angles in fixed):
        item = ANGLE_ITEMS[next(axis for axis in absent if not fixed[0][axis])]
        problem = f"it lacks {item}, which need not be 90 degrees with this symmetry"
        raise CrystalError(f"{problem}; add it", field=item)


def _stated(block: Block) -> Stated:
    formula = block.text("_chemical_formula_sum")
    return Stated(
        formula,
        formula_counts(formula),
        block.number("_cell_formula_units_z"),
        block.number("_cell_volume"),
        block.number("_exptl_crystal_density_diffrn"),
        _multiplicities(block),
    )


def _multiplicities(block: Block) -> dict[str, int]:
    """Label → stated number of atoms of the cell; empty if it is not stated for all sites."""
    counts = block.values(*MULTIPLICITY_ITEMS)
    labels = block.values("_atom_site_label") if counts else []
    is_clear = len(labels) == len(counts) == len(set(labels)) and all(
        count.isdecimal() and len(count) < 7 for count in counts
    )
    return {label: int(count) for label, count in zip(labels, counts, strict=True)} if is_clear else {}


@lru_cache(maxsize=1024)
def formula_counts(formula: str) -> dict[int, float]:
    """Z → atoms of `"Na4 Cl4"`; empty for a formula that cannot be read."""
    text = " ".join(formula.split())
    counts: dict[int, float] = {}
    if not re.fullmatch(r"(?:[A-Z][a-z]?(?:\d++\.?\d*+|\.\d++)? ?)+", text):
        return counts
    for symbol, count in re.findall(r"([A-Z][a-z]?)(\d+\.?\d*|\.\d+)?", text):
        z = ATOMIC_NUMBERS.get(symbol)
        if z is None:
            return {}
        counts[z] = counts.get(z, 0.0) + float(count or 1)
    return counts if sum(counts.values()) else {}


def _symmetry(block: Block) -> Symmetry:
    counts = [block.number(item) or 0 for item in ("_cell_modulation_dimension", "_cell_subsystems_number")]
    is_counted = counts[0] > 0 or counts[1] > 1
    if is_counted or any(block.values("_cell_wave_vector_x")) or any(map(MODULATION.search, block.names)):
        problem = "the structure is modulated, so no cell repeats exactly; give a periodic one (a supercell)"
        raise CrystalError(problem, field="_cell_modulation_dimension")
    lists = [_put_together(tuple(filter(None, block.values(item)))) for item in OPERATION_ITEMS]
    magnetic, centrings = (  # without the sign of time
        tuple(text.rpartition(",")[0] for text in block.values(item) if text) for item in MAGNETIC_OPERATION_ITEMS
    )
    lists = [texts for texts in (*lists, magnetic) if texts]
    if not all(are_same_operations(texts, lists[0]) for texts in lists[1:]):
        problem = f"{' and '.join(OPERATION_ITEMS)} list other symmetry operations; remove one list"
        raise CrystalError(problem, field=OPERATION_ITEMS[0])
    names = tuple(dict.fromkeys(filter(None, map(block.text, NAME_ITEMS))))
    magnetic_name = block.text("_space_group_magn_name_bns", "_space_group_magn_name_og")
    if magnetic_name and not lists:
        problem = f"magnetic group {magnetic_name!r} is named only; list its operations"
        raise CrystalError(problem, field=MAGNETIC_OPERATION_ITEMS[0])
    return Symmetry(
        lists[0] if lists else (),
        centrings,
        block.text(*HALL_ITEMS),
        names,
        block.text(*NUMBER_ITEMS),
        block.text(*CODE_ITEMS),
    )


def _put_together(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Operations of a list without quotes, where each `x, y, z` is three values."""
    if any(text.endswith(",") or text.startswith(",") for text in texts):
        return tuple(re.sub(r"\s*,\s*", ",", " ".join(texts)).split())
    return texts


def _sites(block: Block, stated: Stated) -> Sites:
    labels = block.values("_atom_site_label") or block.values("_atom_site_type_symbol")
    columns = [block.values(item) for item in POSITION_ITEMS]
    lacking = [item for item, column in zip(POSITION_ITEMS, columns, strict=True) if not block.has(item)]
    if not labels:
        lacking.insert(0, "_atom_site_label")
    if lacking:
        problem = f"it lacks the loop of atom sites ({', '.join(lacking)}): was the file cut short?"
        raise CrystalError(problem, field=lacking[0])
    if not any(map(any, (labels, *columns))):
        raise CrystalError("lists no atom sites, only placeholders (`?`)", field="_atom_site_label")
    if any(len(column) != len(labels) for column in columns):
        raise CrystalError("the items of atom sites differ in their number of values", field=POSITION_ITEMS[0])
    _check_atoms(block, labels)
    numbers = _elements(block, labels, stated.counts)
    frac = np.array([_coordinates(column, item, labels) for item, column in zip(POSITION_ITEMS, columns, strict=True)])
    whole = _whole_atoms(block, labels, numbers, frac.T)
    if len(whole) < len(labels):
        labels, *columns = ([column[site] for site in whole] for column in (labels, *columns))
    return Sites(labels, np.array(numbers)[whole], frac.T[whole], columns)


def _whole_atoms(
    block: Block, labels: list[str], numbers: list[int], frac: Float[np.ndarray, "n_sites 3"]
) -> list[int]:
    """The sites without those that only complete another one (its isotopes).

    Raises:
        CrystalError: a site is not one whole atom; the error says what shares its place.
    """
    item = "_atom_site_occupancy"
    texts = block.values(item)
    if all(not text or _comparable(text) == 1 for text in set(texts)):  # empty: the dictionary's default, 1
        return list(range(len(labels)))
    places: dict[tuple[float, ...], dict[int, float]] = {}
    whole: list[int] = []
    for site, text in enumerate(texts):
        try:
            occupancy = _number(text) if text else 1.0
        except ValueError:
            problem = f"site {labels[site][:40]!r}: {item} is {text[:40]!r}; it must be a number"
            raise CrystalError(problem, site=site, field=item, value=text) from None
        if occupancy == 0:
            problem = f"site {labels[site][:40]!r} holds no atom, {item} is 0; remove it"
            raise CrystalError(problem, site=site, field=item, value=text)
        shares = places.setdefault(tuple(frac[site].tolist()), {})
        if numbers[site] not in shares:
            whole.append(site)
        shares[numbers[site]] = shares.get(numbers[site], 0.0) + occupancy
    for site in whole:
        shares = places[tuple(frac[site].tolist())]
        total = sum(shares.values())
        if len(shares) > 1 or abs(total - 1) > OCCUPANCY_TOLERANCE:
            named = ", ".join(f"{SYMBOLS[z - 1]} {share:.4g}" for z, share in shares.items())
            is_crowded = total > 1 + OCCUPANCY_TOLERANCE
            problem = f"{'holds several atoms' if is_crowded else 'is partly occupied'} ({named})"
            advice = "the model needs whole atoms: make an ordered structure first, or remove duplicates"
            message = f"site {labels[site][:40]!r} {problem}; {advice}"
            raise CrystalError(message, site=site, field=item, value=texts[site])
    return whole


def _coordinates(column: list[str], item: str, labels: list[str]) -> list[float]:
    """The numbers of a column.

    Raises:
        CrystalError: a site has no position.
    """
    with contextlib.suppress(ValueError):
        if _DIGITS.issuperset("".join(column)):  # the quick way
            values = list(map(float, column))
            if max(map(abs, values), default=0.0) < FARTHEST_POSITION:
                return values
    values = []
    for site, text in enumerate(column):
        value = float("nan")
        with contextlib.suppress(ValueError):
            value = _number(text)
        if not abs(value) < FARTHEST_POSITION:
            problem = f"site {labels[site][:40]!r}: {item} is {text[:40] or '?'!r}"
            advice = "give the position, or remove the site if its atom is not in the crystal"
            raise CrystalError(f"{problem}; {advice}", site=site, field=item, value=text)
        values.append(value)
    return values


def _check_atoms(block: Block, labels: list[str]) -> None:
    """That each site is an atom that is there.

    Raises:
        CrystalError: a site is not; it is named with the item that says so.
    """

    def refuse(site: int, item: str, text: str, problem: str) -> None:
        raise CrystalError(f"site {labels[site][:40]!r}: {item} is {text[:40]!r}; {problem}", site=site, field=item)

    for site, text in enumerate(block.values("_atom_site_attached_hydrogens")):
        if text and text != "0":
            advice = "the hydrogen has no position; add it as a site"
            refuse(site, "_atom_site_attached_hydrogens", text, advice)
    for site, text in enumerate(block.values("_atom_site_calc_flag")):
        if text.lower() in ("dum", "dummy"):
            refuse(site, "_atom_site_calc_flag", text, "it is no atom; remove the site")
    groups = block.values("_atom_site_disorder_group")
    assemblies = block.values("_atom_site_disorder_assembly") or [""] * len(groups)
    alternatives = Counter(assembly for assembly, _ in {*zip(assemblies, groups, strict=False)} if _)
    for site, text in enumerate(groups):
        if text and (alternatives[assemblies[site]] > 1 or text.startswith("-")):
            advice = "alternatives of a disordered structure are listed; keep one of them, and remove the others"
            refuse(site, "_atom_site_disorder_group", text, advice)


def _elements(block: Block, labels: list[str], formula: Mapping[int, float]) -> list[int]:
    """Z of every site."""
    types = block.values("_atom_site_type_symbol")
    types = types if any(types) else []
    if types and len(types) != len(labels):
        raise CrystalError("labels and types of atom sites differ in number", field="_atom_site_type_symbol")
    item = f"_atom_site_{'type_symbol' if types else 'label'}"
    numbers = []
    for site, text in enumerate(types or labels):
        z = _of_type(text, labels[site][:2], frozenset(formula)) if types else _of_label(text, frozenset(formula))
        if z is None:
            problem = f"site {labels[site][:40]!r}: {text[:40] or '?'!r} is no element"
            advice = "correct it" if types else "name its element in _atom_site_type_symbol"
            advice = f"{advice}, make an ordered structure of a mixed site, or remove the site if it is no atom"
            raise CrystalError(f"{problem} ({item}); {advice}", site=site, field=item, value=text)
        numbers.append(z)
    if not formula and 1 not in numbers:
        for site, label in enumerate(labels):
            if numbers[site] == 8 and _WITH_HYDROGEN.match(label):
                problem = f"site {label[:40]!r} is called as water or hydroxyl, and no hydrogen is listed"
                advice = "add it, or the formula (_chemical_formula_sum) if there is none"
                raise CrystalError(f"{problem}; {advice}", site=site, field="_atom_site_label", value=label)
    if any(re.search(r"[1-9][+-]|[+-][1-9]|[A-Za-z][+-]$", text) for text in set(types)):
        left_out("oxidation states")
    return numbers


@lru_cache(maxsize=4096)
def _of_type(text: str, label: str, formula: frozenset[int]) -> int | None:
    """Z of a type symbol: an element, perhaps with charge or number. Another case only where it has one meaning.

    Args:
        label: the first two letters of the site's label, which may decide.
    """
    match = _TYPE.fullmatch(text.strip())
    if match is None:
        return None
    letters = match[1]
    z = ATOMIC_NUMBERS.get(letters)
    if z is not None:
        return z
    z = ATOMIC_NUMBERS.get(letters.capitalize())
    is_pair = len(letters) == 2 and all(letter.upper() in ATOMIC_NUMBERS for letter in letters)
    is_certain = not is_pair or z in formula or label == letters.capitalize()
    return z if is_certain and letters != "t" else None


@lru_cache(maxsize=4096)
def _of_label(text: str, formula: frozenset[int]) -> int | None:
    """Z of a label: its letters are an element, or begin with one of the stated formula and no other can be meant."""
    if not formula and _WATER.fullmatch(text):
        return None
    letters = re.match("[A-Za-z]*", text.strip()).group()  # type: ignore[union-attr] (matches any text)
    others = (symbol for match in _FURTHER.finditer(text) for symbol in match.groups() if symbol)
    if any(symbol in ATOMIC_NUMBERS for symbol in others):
        return None
    if letters in ATOMIC_NUMBERS and letters != "T":
        return ATOMIC_NUMBERS[letters]
    is_certain = len(letters) == 2 and letters[0].upper() not in ATOMIC_NUMBERS.keys() - {"T", "D"}
    if is_certain and (letters.isupper() or letters.islower()):
        return ATOMIC_NUMBERS.get(letters.capitalize())
    known = {ATOMIC_NUMBERS.get(letters[:length].capitalize()) for length in (1, 2)} & formula
    return known.pop() if len(known) == 1 and letters else None
