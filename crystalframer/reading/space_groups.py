"""Space groups: their names in all spellings, and their settings.

gemmi has the table: 564 settings of the 230 groups, with all choices of axes and origin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import gemmi
import numpy as np
from jaxtyping import Bool, Float

from crystalframer.errors import CrystalError

CELL_TOLERANCE = 0.05
"""By which the metric of a cell (products of lattice vectors, over their lengths) may miss a named group's symmetry."""
LONGEST_NAME = 100
"""Characters of a name of a group."""
_ENDING = re.compile(
    r"(\S.*?)\s*(?:[:,]\s*O?([12hrsz]+)|([hrsz]+)|[\s(]*(?:O|origin)(?:\s*choice)?\s*([12])\)?)", re.IGNORECASE
)
"""What names the setting behind a symbol: `:2`, `:H`, ` Z`, ` (origin choice 2)`."""
_LETTERS = {"h": "H", "r": "R", "s": "1", "z": "2", "1": "1", "2": "2"}
"""Ending of a group's name → extension of its setting. S and Z are those of ICSD."""

_ANY_METRIC = np.array([[1.0, 0.1, 0.13], [0.1, 1.1, 0.17], [0.13, 0.17, 1.2]])
"""Of a cell without symmetry."""

Operations = Float[np.ndarray, "n_operations 3 4"]


@dataclass(frozen=True)
class Symmetry:
    """What a file says of its symmetry; empty where it says nothing."""

    operations: tuple[str, ...] = ()
    """`"-y, x-y, z+1/3"`."""
    centrings: tuple[str, ...] = ()
    """Translations, each of which goes with all operations: `"x+1/2, y, z"`."""
    hall: str = ""
    names: tuple[str, ...] = ()
    """Hermann-Mauguin symbols."""
    number: str = ""
    code: str = ""
    """Code of the coordinate system: `2`, `h`, `-b1`."""

    @property
    def group(self) -> str:
        """What names the group, for messages."""
        named = [repr(name[:60]) for name in self.names[:4]]
        named += [f"Hall {self.hall[:60]!r}"] if self.hall else []
        return ", ".join(named + ([f"No. {self.number[:9]}"] if self.number else []))


def settings_of(
    symmetry: Symmetry, lattice: Float[np.ndarray, "3 3"], is_strict: bool = True
) -> list[gemmi.SpaceGroup]:
    """The settings of the group that a file can mean; none if it names no group.

    Args:
        lattice: rows, Å; only settings whose symmetry this cell has are kept.
        is_strict: if there are none, it is an error; else all are kept.

    Raises:
        CrystalError: the group is not known, its names contradict each other, or the cell has not its symmetry.
    """
    if not symmetry.group:
        return []
    found = [_by_name(name) for name in symmetry.names]
    by_hall = _by_hall(symmetry.hall)
    if by_hall:
        found = [by_hall, *(settings for settings in found if settings)]
    number = int(symmetry.number) if re.fullmatch(r"0*[1-9]\d?\d?", symmetry.number) else 0
    if number:
        found.append(_by_number(number))
    if not found or not all(found):
        problem = f"space group {symmetry.group} is not known"
        raise CrystalError(f"{problem}; list its operations", field="_space_group_name_H-M_alt", value=symmetry.group)
    settings = [group for group in found[0] if all(group in others for others in found[1:])]
    if symmetry.code:
        settings = _with_code(settings, symmetry.code.lower())
    if not settings:
        problem = f"space group {symmetry.group}: the names are of different groups or settings"
        raise CrystalError(f"{problem}; correct them, or list the operations", field="_space_group_name_H-M_alt")
    fitting = [group for group in settings if has_symmetry(lattice, group_operations(group.hall), CELL_TOLERANCE)]
    if not fitting and is_strict:
        cell = ", ".join(f"{value:.4g}" for value in _parameters(lattice))
        problem = f"the cell ({cell}) does not have the symmetry of space group {symmetry.group}"
        raise CrystalError(f"{problem}; correct cell or group, or list the operations", field="_cell_length_a")
    # A short monoclinic symbol means unique axis b, unless the cell has another one. B 2 was written for axis c.
    standard = [group for group in fitting if group.qualifier.startswith("b") and not group.hm.startswith("B")]
    return standard if standard and symmetry.names and 3 <= standard[0].number <= 15 else fitting or settings


def _with_code(settings: list[gemmi.SpaceGroup], code: str) -> list[gemmi.SpaceGroup]:
    """Settings with a code of the coordinate system; all, where no setting of the group has this code."""
    numbers = {group.number for group in settings}
    is_known = any(code in _codes(group) for number in numbers for group in _by_number(number))
    return [group for group in settings if code in _codes(group)] if is_known or code in _LETTERS else settings


@lru_cache(maxsize=1024)
def group_operations(hall: str) -> Operations:
    return np.array([operation.float_seitz()[:3] for operation in gemmi.symops_from_hall(hall)])


def _parameters(lattice: Float[np.ndarray, "3 3"]) -> tuple[float, ...]:
    """Lengths in Å and angles in degrees."""
    lengths = np.linalg.norm(lattice, axis=1)
    with np.errstate(all="ignore"):  # the lengths may be those of no cell
        cosines = (lattice @ lattice.T / np.outer(lengths, lengths))[[1, 0, 0], [2, 2, 1]]
        return (*lengths.tolist(), *np.degrees(np.arccos(cosines)).tolist())


def has_symmetry(lattice: Float[np.ndarray, "3 3"], operations: Operations, tolerance: float) -> bool:
    """Whether operations keep the lengths and angles of a cell, within a tolerance."""
    metric = lattice @ lattice.T
    rotations = operations[:, :, :3]
    turned = np.swapaxes(rotations, 1, 2) @ metric @ rotations
    lengths = np.sqrt(np.diag(metric))
    return bool((np.abs(turned - metric) <= tolerance * np.outer(lengths, lengths)).all())


def right_angles(operations: Operations) -> Bool[np.ndarray, "3"]:
    """Whether alpha, beta and gamma are 90 degrees in every cell with this symmetry; all of them if there is none."""
    rotations = operations[:, :, :3]
    if (rotations == np.eye(3)).all():
        return np.ones(3, dtype=bool)
    metric = (np.swapaxes(rotations, 1, 2) @ _ANY_METRIC @ rotations).mean(axis=0)
    return np.abs(metric[[1, 0, 0], [2, 2, 1]]) < 1e-9


@lru_cache(maxsize=256)
def _by_number(number: int) -> list[gemmi.SpaceGroup]:
    return [group for group in gemmi.spacegroup_table() if group.number == number]


@lru_cache(maxsize=512)
def _by_hall(hall: str) -> list[gemmi.SpaceGroup]:
    if not hall:
        return []
    try:
        operations = gemmi.symops_from_hall(re.sub(r"[\s_]+", " ", hall).strip())
    except (ValueError, RuntimeError):
        return []
    group = gemmi.find_spacegroup_by_ops(operations)
    if group is None:
        problem = f"Hall symbol {hall[:60]!r} is of a setting that is not known; list its operations"
        raise CrystalError(problem, field="_space_group_name_Hall", value=hall)
    return [group]


@lru_cache(maxsize=1024)
def _by_name(name: str) -> list[gemmi.SpaceGroup]:
    """The settings that a Hermann-Mauguin symbol can mean; none if it is not known."""
    if len(name) > LONGEST_NAME:
        return []
    text = re.sub(r"\\?bar\s*\{?(\d)\}?", r"-\1", name.strip("\"' "))
    text = re.sub(r"_\{(\d)\}", r"\1", text)
    text = re.sub(r"\{.*?\}|\(?No\.?\s*\d+\)?", "", text)
    text = re.sub(r"\(?(h|r)(ex|h)[a-z]* axes\)?", r":\1", text, flags=re.IGNORECASE)
    text = " ".join(re.sub(r"[_~\\]", "", text).split())
    base, ending = text, ""
    match = _ENDING.fullmatch(text)
    if match:
        base, ending = match[1], (match[2] or match[3] or match[4]).lower()
    settings = _by_symbol(base)
    if ending in _LETTERS and any(group.ext.strip("\0") for group in settings):
        return [group for group in settings if group.ext == _LETTERS[ending]]
    return settings


def _by_symbol(symbol: str) -> list[gemmi.SpaceGroup]:
    joined = re.sub(r"(\d)-(?=\D|$)", r"-\1", _joined(symbol))  # old: F m 3- m
    known = _symbols()
    settings = known.get(joined, [])
    if not settings and "e" in joined[1:]:  # a glide plane along two axes
        pattern = re.compile(re.escape(joined).replace("e", "[abc]"))
        settings = [group for name, groups in known.items() if pattern.fullmatch(name) for group in groups]
    if not settings and joined:
        group = gemmi.find_spacegroup_by_name(joined)  # older and newer symbols of the same groups
        settings = [] if group is None else known[_joined(group.hm)]
    if " " in symbol:  # 31 is a screw axis, 3 1 is none
        settings = [group for group in settings if _screws(group.hm) == _screws(symbol)]
    return settings or (known.get(_joined(_short(symbol)), []) if "/" in symbol else [])


def _screws(symbol: str) -> list[str]:
    return re.findall(r"\d\d", re.sub(r"[()]", "", symbol))


def _joined(symbol: str) -> str:
    return re.sub(r"[\s()]", "", symbol).lower()


def _short(symbol: str) -> str:
    """`"F 4/m -3 2/m"` as `"F m -3 m"`, `"P 21/n 21/m 21/a"` as `"P n m a"`."""
    centring, *parts = symbol.split() or [""]
    is_cubic_or_trigonal = any(part in ("-3", "3") for part in parts[:2])
    first = 0 if is_cubic_or_trigonal or all("/" in part and part[0] == "2" for part in parts) else 1
    shortened = [re.sub(r".*/", "", part) if index >= first else part for index, part in enumerate(parts)]
    return " ".join((centring, *shortened))


@lru_cache(maxsize=1)
def _symbols() -> dict[str, list[gemmi.SpaceGroup]]:
    """Symbol without spaces → its settings. A short monoclinic symbol (`P21/c`) stands for all unique axes."""
    symbols: dict[str, list[gemmi.SpaceGroup]] = {}
    for group in gemmi.spacegroup_table():
        names = {_joined(group.hm)}
        if 3 <= group.number <= 15:
            centring, *parts = group.hm.split()
            names.add(_joined(centring + "".join(part for part in parts if part != "1")))
        for name in names:
            symbols.setdefault(name, []).append(group)
    return symbols


def _codes(group: gemmi.SpaceGroup) -> tuple[str, ...]:
    ext, qualifier = group.ext.strip("\0").lower(), group.qualifier.lower()
    return ext, qualifier, ext + qualifier
