"""From listed sites to all atoms of a cell: symmetry operations, settings of space groups, special positions.

Where a group has several settings and the file names none, the content of the cell decides: what the file states of it
(formula, Z, multiplicities) must come out, with no atoms on top of each other. Nothing is taken by default.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import gemmi
import numpy as np
from jaxtyping import Float, Int

from crystalframer.crystals.crystal import FARTHEST_POSITION, closest_pair
from crystalframer.elements import ATOMIC_NUMBERS, SYMBOLS
from crystalframer.errors import CrystalError, listed
from crystalframer.reading.notices import notice
from crystalframer.reading.space_groups import Operations, Symmetry, group_operations, has_symmetry, settings_of

OCCUPANCY_TOLERANCE = 1e-3
"""A site whose occupancy differs less from that of a whole atom is full."""
SITE_TOLERANCE = 1e-3
"""Fractional; where all atoms are listed, an image that is nearer to an atom is this atom."""
NEAREST_IMAGES = 0.7
"""Å; a hydrogen molecule has 0.74. Images of a site that are nearer are one atom on a special position, or disorder."""
NEAREST_POSITION = 0.05
"""Å. A site that is nearer to an image of its own lies on a special position, however many digits it has."""
WIDEST_ROUNDING = 0.35
"""Å by which rounded coordinates may miss a special position."""
LISTED_TOLERANCE = 0.12
"""The same for listed operations: a cell may be strained by 5 %, but not belong to other axes."""
MOST_IMAGES = 1_000_000
"""Sites times symmetry operations; more are a damaged file."""
N_BOXES = 9973.137
"""Along each lattice vector, to find images on one place."""
FARTHEST_SHIFT = 1_000
"""Lattice vectors by which a symmetry operation moves."""
MOST_OPERATIONS = 4_000
"""More than any group of a crystal has, magnetic centring included."""
MOST_PRODUCTS = 200_000
"""Of two operations each, that are looked for in a list."""
FORMULA_TOLERANCE = 0.25
"""Atoms of the cell by which a stated formula may differ: formulas are rounded."""
VOLUME_TOLERANCE, DENSITY_TOLERANCE = 0.02, 0.1
"""Relative; a stated density may be that of another isotope or temperature."""
_PAIRED = [{1}, {7}, {8}, {9}, {17}, *({z, 8} for z in (1, 3, 11, 19, 37, 55))]
"""Elements (Z) of molecules of two atoms, and of peroxides: their units are N2 and Na2O2."""
_DIGITS = 9.0 ** np.arange(9).reshape(3, 3)
"""Place values of the entries of a rotation in one number; none is below -4 or above 4."""
_TERM = re.compile(r"([+-]?)(?:(\d+\.?\d*|\.\d+)(?:/(\d{1,6}))?)?\*?([xyz]?)")


class Sites(NamedTuple):
    """Sites as a file lists them."""

    labels: list[str]
    numbers: Int[np.ndarray, " n_sites"]
    frac_coords: Float[np.ndarray, "n_sites 3"]
    texts: list[list[str]]
    """The same as they stand, by axis: how many digits they have."""


@dataclass(frozen=True)
class Stated:
    """What a file states of the content of its cell; None or empty where it states nothing."""

    formula: str = ""
    """`"Na4 Cl4"`."""
    counts: dict[int, float] = field(default_factory=dict)
    """Z → atoms of the formula; empty for a formula that cannot be read."""
    n_units: float | None = None
    """Formula units in the cell (Z)."""
    volume: float | None = None
    """Å³."""
    density: float | None = None
    """g/cm³, or kg/m³ where above 30."""
    multiplicities: dict[str, int] = field(default_factory=dict)
    """Label of a site → atoms of the cell that it stands for."""

    @property
    def decides(self) -> bool:
        """Whether the number of atoms follows."""
        return bool(self.n_units and self.counts)

    def check(self, numbers: Int[np.ndarray, " n_atoms"], lattice: Float[np.ndarray, "3 3"]) -> None:
        """That a cell is as stated.

        Raises:
            CrystalError: it is not; the message says what is stated, and what the cell holds.
        """
        found, counts = Counter(numbers.tolist()), self.counts
        if counts:
            n_formulas = len(numbers) / sum(counts.values())
            if any(abs(found[z] - n_formulas * counts.get(z, 0.0)) > FORMULA_TOLERANCE for z in {*counts, *found}):
                problem = f"the atom sites make {_content(found)}, but _chemical_formula_sum is {self.formula[:200]!r}"
                advice = "add the missing sites (was the file cut short? is hydrogen listed?) or correct the formula"
                raise CrystalError(f"{problem}; {advice}", field="_chemical_formula_sum", value=self.formula)
            if abs(n_formulas - round(n_formulas)) * sum(counts.values()) > FORMULA_TOLERANCE:
                problem = f"the cell holds {_content(found)}, which is no multiple of {self.formula[:200]!r}"
                advice = "add the missing sites (was the file cut short?) or correct the formula"
                raise CrystalError(f"{problem}; {advice}", field="_chemical_formula_sum", value=self.formula)
            # Many programs write the formula of the whole cell, and Z of the formula without its common factor.
            whole = np.gcd.reduce([round(count) for count in counts.values()])
            possible = (n_formulas, whole) if round(n_formulas) == 1 else (n_formulas,)
            if len(possible) > 1 and {*counts} in _PAIRED and set(counts.values()) == {whole}:
                possible = (n_formulas, whole, whole // 2)  # N4 is counted as N2 by some
            if self.n_units and min(abs(self.n_units - n) for n in possible) > 0.01 * n_formulas:
                problem = (
                    f"the cell holds {_content(found)}, but {self.n_units:g} formula units {self.formula!r} are stated"
                )
                raise CrystalError(
                    f"{problem}; correct symmetry, sites or _cell_formula_units_Z",
                    field="_cell_formula_units_Z",
                    value=self.n_units,
                )
        elements = set() if counts else elements_of(self.formula)
        if elements and elements != {*found}:
            problem = f"the atom sites make {_content(found)}, but _chemical_formula_sum is {self.formula[:200]!r}"
            raise CrystalError(
                f"{problem}; add the missing sites or correct the formula",
                field="_chemical_formula_sum",
                value=self.formula,
            )
        volume = float(abs(np.linalg.det(lattice)))
        if self.volume and abs(volume / self.volume - 1) > VOLUME_TOLERANCE:
            problem = f"lengths and angles give a cell of {volume:.1f} Å³, but _cell_volume is {self.volume:g}"
            raise CrystalError(f"{problem}; correct one of them", field="_cell_volume", value=self.volume)
        if self.density:
            stated = self.density / 1000 if self.density > 30 else self.density
            mass = sum(gemmi.Element(z).weight * n for z, n in found.items())
            density, as_deuterium = (1.66054 / volume * m for m in (mass, mass + 1.006 * found[1]))
            if min(abs(density / stated - 1), abs(as_deuterium / stated - 1)) > DENSITY_TOLERANCE:
                name = "_exptl_crystal_density_diffrn"
                problem = (
                    f"the cell holds {_content(found)}, which is {density:.3g} g/cm³, but {name} is {self.density:g}"
                )
                raise CrystalError(f"{problem}; correct symmetry, sites or density", field=name, value=self.density)


def elements_of(formula: str) -> set[int]:
    """Z of the elements of a formula in parts or with brackets, such as `"Na Cl, 2(H2 O)"`; empty for other text, and
    for `"(Si,Ti) O2"`, which leaves them open.
    """
    if re.search(r"[(\[][^)\]]*,", formula) or not re.fullmatch(r"(?:[A-Z][a-z]?|[\d.,;()\[\]*+\s-])+", formula):
        return set()
    numbers = {ATOMIC_NUMBERS.get(symbol, 0) for symbol in re.findall("[A-Z][a-z]?", formula)}
    return set() if 0 in numbers else numbers


def _content(counts: Counter[int]) -> str:
    return " ".join(f"{SYMBOLS[z - 1]}{counts[z]}" for z in sorted(counts))


def lattice_of(cell: gemmi.UnitCell) -> Float[np.ndarray, "3 3"]:
    """Rows a, b, c, Å."""
    return np.array(cell.orth.mat.tolist()).T


def cell_atoms(
    sites: Sites, lattice: Float[np.ndarray, "3 3"], symmetry: Symmetry, stated: Stated
) -> tuple[Int[np.ndarray, " n_atoms"], Float[np.ndarray, "n_atoms 3"]]:
    """All atoms of the cell: the listed site of each one, and its fractional coordinates.

    Raises:
        CrystalError: the symmetry is not known, or sites, symmetry, cell and what is stated contradict each other.
    """
    if symmetry.operations:
        operations = listed_operations(symmetry.operations, symmetry.centrings)
        if len(operations) > 1 and not has_symmetry(lattice, operations, LISTED_TOLERANCE):
            problem = "the cell does not have the symmetry of the listed operations"
            raise CrystalError(f"{problem}; correct one of them", field="_space_group_symop_operation_xyz")
        found = _as_stated(sites, lattice, operations, stated)
        _check_group(symmetry, len(operations), sites.numbers[found[0]], found[1], lattice, stated)
        return found
    settings = settings_of(symmetry, lattice)
    if not settings:
        return _without_symmetry(sites, lattice, stated)
    if len(settings) == 1:
        return _as_stated(sites, lattice, group_operations(settings[0].hall), stated)
    return _chosen(sites, lattice, settings, symmetry, stated)


@lru_cache(maxsize=512)
def listed_operations(texts: tuple[str, ...], centrings: tuple[str, ...] = ()) -> Operations:
    """The operations of a list, each once, and with each of the translations of a second list, if there is one.

    Raises:
        CrystalError: one cannot be read, or some are missing: two of them, one after the other, make no third one.
    """
    listed = np.array([_operation("x,y,z", 0), *map(_operation, texts, range(1, len(texts) + 1))])
    shifts = np.array([_operation(text, number) for number, text in enumerate(centrings, start=1)])
    operations = np.concatenate([listed, *(listed + np.pad(shift[:, 3:], ((0, 0), (3, 0))) for shift in shifts)])
    kept = operations[np.sort(np.unique(_keys(operations), return_index=True)[1])]
    if len(kept) > MOST_OPERATIONS:
        raise CrystalError(f"{len(kept):,} symmetry operations are more than a crystal has; correct the list")
    missing = _missing(kept)
    if missing:
        problem = f"the {len(kept)} symmetry operations are not complete: {missing!r} follows from them"
        raise CrystalError(f"{problem}; was the list cut short?", field="_space_group_symop_operation_xyz")
    return kept


def possible_operations(symmetry: Symmetry, lattice: Float[np.ndarray, "3 3"]) -> list[Operations]:
    """The operations that a file lists, or those of each setting that it can mean; at least the identity."""
    listed = listed_operations(symmetry.operations, symmetry.centrings) if symmetry.operations else None
    if listed is not None and len(listed) > 1:
        return [listed]
    settings = settings_of(symmetry, lattice, is_strict=False)
    return [group_operations(setting.hall) for setting in settings] or [group_operations("P 1")]


def are_same_operations(texts: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether two lists have the same operations, in whatever order and spelling."""
    return set(_keys(listed_operations(texts)).tolist()) == set(_keys(listed_operations(others)).tolist())


def _missing(operations: Operations) -> str:
    """An operation that follows from these and is not among them; empty for a group.

    Of a list of magnetic operations times centrings, the products of the first rows are enough.
    """
    first = operations[: MOST_PRODUCTS // len(operations)]
    known, products = np.sort(_keys(operations)), _keys_of_products(first, operations)
    is_known = known[np.searchsorted(known, products).clip(max=len(known) - 1)] == products
    if is_known.all():
        return ""
    one, other = np.argwhere(~is_known)[0]
    turned = first[one, :, :3] @ operations[other]
    op = gemmi.Op()
    op.rot = (24 * turned[:, :3]).round().astype(int).tolist()
    op.tran = (24 * ((turned[:, 3] + first[one, :, 3]) % 1)).round().astype(int).tolist()
    return op.triplet()


def _operation(text: str, number: int) -> tuple[tuple[float, ...], ...]:
    """Rotation and translation of one operation of a list."""
    operation = _rows(text)
    if operation is None:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        problem = f"symmetry operation {number} ({shown!r}, {len(text):,} characters) is not like '-y, x-y, z+1/3'"
        raise CrystalError(f"{problem}; correct it", field="_space_group_symop_operation_xyz", value=text)
    return operation


@lru_cache(maxsize=4096)
def _rows(text: str) -> tuple[tuple[float, ...], ...] | None:
    """The rows of rotation and translation in `"-y, x-y, z+1/3"`; None if it is no operation of a crystal."""
    rows = tuple(_row(part) for part in re.sub(r"[\s'\"]", "", text).lower().split(","))
    if len(rows) != 3 or not all(rows) or max(max(map(abs, row)) for row in rows) >= FARTHEST_SHIFT:
        return None
    (a, b, c, _), (d, e, f, _), (g, h, i, _) = rows
    return rows if abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)) == 1 else None


@lru_cache(maxsize=4096)
def _row(text: str) -> tuple[float, ...]:
    """Coefficients of x, y, z and the translation in `"-x+1/2"`; empty if it is no such sum."""
    row, end = [0.0, 0.0, 0.0, 0.0], 0
    while end < len(text):
        match = _TERM.match(text, end)
        if match is None or match.end() == end or (end and not match[1]):
            return ()
        sign, number, divisor, letter = match.groups()
        if not (number or letter) or (divisor and not int(divisor)) or len(match[0]) > 40:
            return ()
        value = float(f"{sign}1") * float(number or 1) / int(divisor or 1)
        if letter and abs(value) != 1:
            return ()
        row["xyz".index(letter) if letter else 3] += value
        end = match.end()
    row[3] = round(row[3] * 24) / 24 if abs(row[3] * 24 - round(row[3] * 24)) < 0.1 else row[3]  # 0.33 is 1/3
    return tuple(row) if text else ()


def _keys(operations: Operations) -> Int[np.ndarray, " n_operations"]:
    """One number for all operations that differ by a lattice translation."""
    digits = operations[:, :, :3].reshape(-1, 9) @ _DIGITS.ravel()
    return _key(digits, operations[:, :, 3])


def _keys_of_products(first: Operations, second: Operations) -> Int[np.ndarray, "n_first n_second"]:
    """The same for each operation that is one of the second followed by one of the first."""
    digits = (np.swapaxes(first[:, :, :3], 1, 2) @ _DIGITS).reshape(-1, 9) @ second[:, :, :3].reshape(-1, 9).T
    moved = second[:, :, 3] @ np.swapaxes(first[:, :, :3], 1, 2)
    return _key(digits, moved + first[:, None, :, 3])


def _key(digits: Float[np.ndarray, "*n"], shifts: Float[np.ndarray, "*n 3"]) -> Int[np.ndarray, "*n"]:
    """Digits of a rotation and a translation as one number. No 24th lies where rounding changes."""
    steps = (shifts * 1000 + 0.25).round().astype(np.int64) % 1000
    return digits.astype(np.int64) * 10**9 + steps @ (1, 1000, 10**6)


def _as_stated(
    sites: Sites, lattice: Float[np.ndarray, "3 3"], operations: Operations, stated: Stated
) -> tuple[Int[np.ndarray, " n_atoms"], Float[np.ndarray, "n_atoms 3"]]:
    """The listed site of every atom of the cell, and its fractional coordinates: site by site, each place once.

    Raises:
        CrystalError: the sites cannot be expanded, or the cell is not as stated.
    """
    if len(operations) == 1:
        found = np.arange(len(sites.labels)), sites.frac_coords - np.floor(sites.frac_coords)
    else:
        units = np.array([[_unit(text) for text in column] for column in sites.texts]).T
        found = expanded(sites.labels, sites.frac_coords, units, lattice, operations)
    stated.check(sites.numbers[found[0]], lattice)
    return found


def expanded(
    labels: Sequence[str],
    frac: Float[np.ndarray, "n_sites 3"],
    units: Float[np.ndarray, "n_sites 3"],
    lattice: Float[np.ndarray, "3 3"],
    operations: Operations,
) -> tuple[Int[np.ndarray, " n_atoms"], Float[np.ndarray, "n_atoms 3"]]:
    """The atoms that symmetry makes of sites: the site of each one, and its fractional coordinates.

    Args:
        labels: for messages.
        units: value of the last digit of each coordinate. What it was rounded from may be a special position; the site
            is put there.

    Raises:
        CrystalError: a site lies next to a special position or on the place of another one, or there are too many.
    """
    astray = np.flatnonzero(~(np.abs(frac) < FARTHEST_POSITION).all(axis=1))
    if astray.size:
        site = int(astray[0])
        raise CrystalError(f"site {labels[site][:40]!r} has no position in the crystal; correct it", site=site)
    if len(labels) * len(operations) > MOST_IMAGES:
        counts = f"{len(labels):,} sites and {len(operations):,} symmetry operations"
        raise CrystalError(f"{counts} make too many atoms; correct the file")
    listed = _special_positions(labels, frac, units, lattice, operations)
    frac = (np.einsum("oij,sj->soi", operations[:, :, :3], listed) + operations[:, :, 3]).reshape(-1, 3)
    frac -= np.floor(frac + 1e-9)  # a rounding error below 0 is 0
    site = np.repeat(np.arange(len(listed)), len(operations))
    # Images on one place are equal but for rounding errors. No usual coordinate lies on a border of these boxes.
    boxes = np.floor(frac * N_BOXES + 0.3183).astype(np.int64) @ np.array([1, 1 << 20, 1 << 40])
    _, first, place = np.unique(boxes, return_index=True, return_inverse=True)
    shared = np.flatnonzero(site[first[place]] != site)
    if shared.size:
        one, other = (labels[int(site[index])][:40] for index in (first[place][shared[0]], shared[0]))
        advice = "remove duplicates, or the symmetry operations if all atoms of the cell are listed"
        problem = f"sites {one!r} and {other!r} lie on one place (several atoms)"
        raise CrystalError(f"{problem}; {advice}", site=int(site[shared[0]]))
    kept = np.sort(first)
    return site[kept], np.maximum(frac[kept], 0.0)


def _special_positions(
    labels: Sequence[str],
    frac: Float[np.ndarray, "n_sites 3"],
    units: Float[np.ndarray, "n_sites 3"],
    lattice: Float[np.ndarray, "3 3"],
    operations: Operations,
) -> Float[np.ndarray, "n_sites 3"]:
    """Fractional coordinates, moved onto the special position that rounded ones mean.

    An operation that moves a site by no more than the rounding of its digits explains is taken as one that keeps the
    site; the mean over the images under all these operations is kept by them exactly.

    Raises:
        CrystalError: a site lies next to an image of its own, farther away than rounding explains.
    """
    rotations = operations[:, :, :3]
    moves, lengths = _moves(frac, lattice, operations)
    explained = np.einsum("oij,sj->soi", np.abs(rotations - np.eye(3)), units)
    is_rounded = (np.abs(moves) <= explained + 1e-9).all(axis=2)
    keeps = (is_rounded & (lengths < WIDEST_ROUNDING)) | (lengths < NEAREST_POSITION)
    is_exact = (np.abs(moves) < 1e-12).all(axis=2) | ~keeps
    mean = (moves * keeps[:, :, None]).sum(axis=1) / np.maximum(keeps.sum(axis=1), 1)[:, None]
    frac = np.where(is_exact.all(axis=1)[:, None], frac, frac + mean)
    moves, lengths = _moves(frac, lattice, operations)
    near = np.argwhere((lengths < NEAREST_IMAGES) & ~(keeps & (np.abs(moves) < 1e-6).all(axis=2)))
    if near.size:
        site, operation = near[0].tolist()
        problem = f"site {labels[site][:40]!r} lies {lengths[site, operation]:.2f} Å from an image of its own"
        advice = "give its special position with more digits, or make an ordered structure if it is disordered"
        raise CrystalError(f"{problem} (symmetry operation {operation + 1}); {advice}", site=site)
    return frac


def _unit(coordinate: str) -> float:
    """Value of the last digit of a coordinate that may be rounded: of one with a single digit or none, 0."""
    digits = len(coordinate.partition("(")[0].partition(".")[2])
    return 10.0**-digits if digits >= 2 else 0.0


def _moves(
    frac: Float[np.ndarray, "n_sites 3"], lattice: Float[np.ndarray, "3 3"], operations: Operations
) -> tuple[Float[np.ndarray, "n_sites n_operations 3"], Float[np.ndarray, "n_sites n_operations"]]:
    """From each site to its nearest image under each operation: fractional, and the length in Å."""
    images = np.einsum("oij,sj->soi", operations[:, :, :3], frac) + operations[:, :, 3]
    moves = images - frac[:, None]
    moves -= np.round(moves)
    return moves, np.linalg.norm(moves @ lattice, axis=2)


def _check_group(
    symmetry: Symmetry,
    n_listed: int,
    numbers: Int[np.ndarray, " n_atoms"],
    frac: Float[np.ndarray, "n_atoms 3"],
    lattice: Float[np.ndarray, "3 3"],
    stated: Stated,
) -> None:
    """That listed operations are not fewer than those of the group that is named, unless all atoms are listed.

    Raises:
        CrystalError: they are, and nothing that the file states shows that its atoms are complete.
    """
    if stated.decides:
        return
    try:
        named = [group_operations(group.hall) for group in settings_of(symmetry, lattice, is_strict=False)]
    except CrystalError:
        if n_listed > 1:
            return  # a name of another table: the operations count
        raise
    if not named or n_listed in map(len, named):
        return
    if any(_is_kept(numbers, frac, group) for group in named):
        return
    wanted = " or ".join(str(n) for n in sorted({len(group) for group in named}))
    problem = f"{n_listed} symmetry operations are listed, but space group {symmetry.group} has {wanted}"
    raise CrystalError(
        f"{problem}; complete the list, remove it, or name the group that it is",
        field="_space_group_symop_operation_xyz",
    )


def _is_kept(numbers: Int[np.ndarray, " n_atoms"], frac: Float[np.ndarray, "n_atoms 3"], group: Operations) -> bool:
    """Whether the operations of a group carry the atoms of a cell onto each other."""
    from scipy.spatial import KDTree

    if len(frac) * len(group) > MOST_IMAGES:
        return False
    tree = KDTree(frac % 1.0, boxsize=1.0)
    images = np.einsum("oij,aj->oai", group[:, :, :3], frac) + group[:, :, 3][:, None]
    distances, nearest = tree.query((images - np.floor(images)) % 1.0, p=np.inf)
    return bool((distances < SITE_TOLERANCE).all() and (numbers[nearest] == numbers).all())


def _without_symmetry(
    sites: Sites, lattice: Float[np.ndarray, "3 3"], stated: Stated
) -> tuple[Int[np.ndarray, " n_atoms"], Float[np.ndarray, "n_atoms 3"]]:
    """The listed sites as all atoms of the cell, where the file states as many."""
    if not stated.decides:
        advice = "add _space_group_symop_operation_xyz, or _space_group_name_H-M_alt ('P 1' if all atoms are listed)"
        raise CrystalError(f"says nothing of its symmetry; {advice}", field="_space_group_symop_operation_xyz")
    return _as_stated(sites, lattice, group_operations("P 1"), stated)


def _chosen(
    sites: Sites,
    lattice: Float[np.ndarray, "3 3"],
    settings: Sequence[gemmi.SpaceGroup],
    symmetry: Symmetry,
    stated: Stated,
) -> tuple[Int[np.ndarray, " n_atoms"], Float[np.ndarray, "n_atoms 3"]]:
    """The atoms in the one setting that gives what is stated; also where all settings give the same."""
    found: dict[str, tuple[Int[np.ndarray, " n_atoms"], Float[np.ndarray, "n_atoms 3"]]] = {}
    contents: dict[bytes, str] = {}
    problems: list[str] = []
    for setting in settings:
        name = setting.xhm()
        try:
            site, frac = _as_stated(sites, lattice, group_operations(setting.hall), stated)
            counts = Counter(sites.labels[index] for index in site)
            if any(counts[label] != n for label, n in stated.multiplicities.items()):
                raise CrystalError("other multiplicities than stated")
            pair = closest_pair(frac, lattice, NEAREST_IMAGES)
            if pair is not None:
                raise CrystalError("atoms on top of each other")
        except CrystalError as error:
            problems.append(f"{name}: {error.message.partition(';')[0]}")
            continue
        key = _content_key(sites.numbers[site], frac)
        if key not in contents:
            contents[key], found[name] = name, (site, frac)
    is_decided = stated.decides or stated.multiplicities or not problems
    if len(found) == 1 and is_decided:
        ((name, atoms),) = found.items()
        if problems:
            reason = "the only setting that gives what the file states"
            notice(f"space group {symmetry.group} of a CIF is read as {name}, {reason}")
        return atoms
    names = listed([setting.xhm() for setting in settings], 6)
    reason = "and more than one of them fits" if found else f"and none fits ({'; '.join(problems)[:300]})"
    if len(found) == 1:
        reason = "and the file states no formula and Z that decide"
    problem = f"space group {symmetry.group} has {len(settings)} settings ({names}), {reason}"
    advice = "name the setting in _space_group_name_H-M_alt, or list the operations"
    raise CrystalError(f"{problem}; {advice} (_space_group_symop_operation_xyz)", field="_space_group_name_H-M_alt")


def _content_key(numbers: Int[np.ndarray, " n_atoms"], frac: Float[np.ndarray, "n_atoms 3"]) -> bytes:
    """The same for the same atoms in any order."""
    rows = np.column_stack([numbers, np.round(frac * 2000 + 0.25).astype(int) % 2000])
    return rows[np.lexsort(rows.T)].tobytes()
