"""POSCAR, CONTCAR and XDATCAR, as VASP reads them.

Values may be followed by comments. Numbers are those of Fortran. One scale factor applies to all lengths, or is a
volume if it is negative; three apply to x, y and z. Elements are named by the line of symbols alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from crystalframer.crystals.crystal import Crystal
from crystalframer.elements import atomic_number
from crystalframer.errors import CrystalError
from crystalframer.reading.text import TextFormat, WritableText

_NUMBER = re.compile(r"[+-]?([0-9]++\.?[0-9]*+|\.[0-9]++)([eEdD][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"\d,\d")
_COUNT = re.compile(r"[0-9]+")
_SYMBOL = re.compile(r"([A-Za-z]{1,3})([0-9]*[+-])?([_/]\S*)?")
"""Symbol, perhaps a charge; what follows `_` or `/` is the kind and hash of the potential."""
_COMMENT = re.compile(r"[!#].*")
_STEP = re.compile(r"^[ \t]*direct configuration", re.IGNORECASE | re.MULTILINE)
"""Begins each step of an XDATCAR."""


def written(crystal: Crystal) -> str:
    """A crystal as POSCAR, in fractional coordinates; atoms stay in their order."""
    from pymatgen.io.vasp.inputs import Poscar

    return Poscar(crystal.right_handed().to_pymatgen()).get_str(significant_figures=16)


def is_poscar(text: str) -> bool:
    """Whether text begins as a POSCAR: a comment, a scale factor and three vectors."""
    lines = text.split("\n", 5)
    return (
        len(lines) == 6 and len(_numbers(lines[1])) in (1, 3) and all(len(_numbers(line)) >= 3 for line in lines[2:5])
    )


POSCAR = WritableText(lambda text: [_read(_Lines(text))], text=written)


class _Steps(TextFormat):
    """XDATCAR: the steps of a run, all with the same atoms."""

    def count(self, path: Path) -> int | None:
        return None


XDATCAR = _Steps(lambda text: list(_read_steps(text)), lambda text: len(_STEP.findall(text)))


class _Lines:
    """The lines of a file, one after the other, without comments."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.number = 0

    def next(self, expected: str) -> str:
        """The next line. Fortran passes over empty lines where it expects values."""
        while self.number < len(self.lines):
            self.number += 1
            if line := _COMMENT.sub("", self.lines[self.number - 1]).strip():
                return line
        raise CrystalError(f"the file ends before {expected}; was it cut short?")

    def has_more(self) -> bool:
        """Whether there is a line that is not empty. It is the next one then."""
        while self.number < len(self.lines) and not self.peek():
            self.number += 1
        return self.number < len(self.lines)

    def peek(self) -> str:
        """The next line, which may be empty; nothing at the end."""
        return self.lines[self.number].strip() if self.number < len(self.lines) else ""

    def wrong(self, problem: str, site: int | None = None) -> CrystalError:
        """An error about the last line."""
        line = self.lines[self.number - 1].strip()[:40]
        return CrystalError(f"line {self.number} ({line!r}) {problem}", site=site)

    def vector(self, expected: str, site: int | None = None) -> list[float]:
        line = self.next(expected)
        numbers = _numbers(line)
        if "." not in line and _DECIMAL_COMMA.search(line):
            raise self.wrong("has decimal commas, which VASP takes for separators; write points", site)
        if len(numbers) < 3:
            raise self.wrong(f"does not begin with the three numbers of {expected}; correct it", site)
        return numbers[:3]


@dataclass(frozen=True, eq=False)
class _Header:
    scale: Float[np.ndarray, "3"]
    lattice: Float[np.ndarray, "3 3"]
    atomic_numbers: list[int]

    def crystal(self, coordinates: list[list[float]], is_cartesian: bool = False) -> Crystal:
        coords = np.array(coordinates).reshape(-1, 3)
        with np.errstate(all="ignore"):  # what is not finite is refused as such
            positions = coords * self.scale if is_cartesian else coords @ self.lattice
        return Crystal(np.array(self.atomic_numbers, dtype=np.int64), positions, self.lattice)


def _read(lines: _Lines) -> Crystal:
    header = _header(lines)
    mode = lines.next("the line `Direct` or `Cartesian`")
    if mode[0] in "sS":  # Selective dynamics
        mode = lines.next("the line `Direct` or `Cartesian`")
    if mode[0] not in "cCkKdDfFrR":
        raise lines.wrong("should be `Direct` or `Cartesian`; correct it")
    crystal = header.crystal(_positions(lines, header), mode[0] in "cCkK")
    _check_rest(lines, len(header.atomic_numbers))
    return crystal


def _check_rest(lines: _Lines, n_atoms: int) -> None:
    """Pass over what VASP may write behind the positions, velocities and the state of a thermostat.

    Raises:
        CrystalError: there are more atoms, or a second structure.
    """
    texts = [" ".join(_COMMENT.sub("", line).split()) for line in lines.lines[lines.number :]]
    n_numbers = [len(_numbers(text)) for text in texts]
    if n_numbers and n_numbers[0] >= 3:
        problem = f"has more lines of positions than the {n_atoms:,} atoms that are counted; correct the counts"
        raise CrystalError(problem)
    for number, (text, following) in enumerate(itertools.pairwise([*texts, ""]), start=lines.number + 1):
        first, _, others = text.partition(" ")
        where = f"line {number} ({text[:40]!r})"
        if atomic_number(first) and len(_numbers(others)) >= 3:
            raise CrystalError(
                f"{where} looks like an atom behind the {n_atoms:,} that are counted; correct the counts"
            )
        if _STEP.match(text) or (_are_symbols(text.split()) and _counts(following)):
            raise CrystalError(f"{where} begins another structure; give each its own file")
    blocks = [len(list(block)) for is_block, block in itertools.groupby(n_numbers, lambda n: n >= 3) if is_block]
    if any(text.lower().startswith("lattice velocities") for text in texts):
        blocks = blocks[1:]
    if blocks and blocks[0] != n_atoms:
        problem = f"has {blocks[0]:,} more lines of three numbers behind the {n_atoms:,} atoms that are counted"
        raise CrystalError(f"{problem}, which are not their velocities; correct the counts, or remove the lines")


def _are_symbols(words: list[str]) -> bool:
    return bool(words) and all((match := _SYMBOL.fullmatch(word)) and atomic_number(match[1]) for word in words)


def _read_steps(text: str) -> Iterator[Crystal | CrystalError]:
    """Each step. After one that is incomplete nothing follows."""
    lines = _Lines(text)
    header = None
    try:
        while lines.has_more():
            if header is None or not _STEP.match(lines.peek()):
                header = _header(lines)  # again before each step if the cell changes
            if not _STEP.match(lines.next("a step")):
                problem = "should begin a step (`Direct configuration= 1`); is this an XDATCAR of VASP 5 or later?"
                raise lines.wrong(problem)
            yield header.crystal(_positions(lines, header))
    except CrystalError as error:
        yield error


def _header(lines: _Lines) -> _Header:
    """Everything up to the counts."""
    lines.number += 1  # the comment, which is not trusted
    scale = _numbers(lines.next("the scale factor"))
    if len(scale) not in (1, 3) or not all(scale) or (len(scale) == 3 and min(scale) < 0):
        raise lines.wrong("should be one scale factor (negative: the volume), or three above 0; correct it")
    lattice = np.array([lines.vector(f"lattice vector {name}") for name in "abc"])
    factor = np.broadcast_to(np.array(scale), 3)
    if scale[0] < 0:
        with np.errstate(all="ignore"):
            factor = np.cbrt(np.abs(factor / np.linalg.det(lattice)))
    return _Header(factor, lattice * factor, _atoms(lines))


def _atoms(lines: _Lines) -> list[int]:
    """The atomic number of each atom."""
    line = lines.next("the line of symbols")
    if _COUNT.fullmatch(line.split()[0]):
        problem = "counts atoms, but the file names no elements (VASP 4 format)"
        raise lines.wrong(f"{problem}; put a line with their symbols before this one")
    elements: list[int] = []
    while not _COUNT.fullmatch(line.split()[0]):
        elements += [_element(symbol, lines) for symbol in line.split()]
        line = lines.next("the line of counts")
    counts = _counts(line)
    while len(counts) < len(elements) and _counts(lines.peek()):
        counts += _counts(lines.next("the line of counts"))
    if len(counts) != len(elements):
        raise lines.wrong(f"gives {len(counts)} counts for {len(elements)} symbols; correct it")
    if sum(counts) > len(lines.lines):  # memory for them all would be reserved
        raise lines.wrong("counts more atoms than the file has lines; was it cut short?")
    return [z for z, n_atoms in zip(elements, counts, strict=True) for _ in range(n_atoms)]


def _element(word: str, lines: _Lines) -> int:
    match = _SYMBOL.fullmatch(word)
    z = atomic_number(match[1]) if match else None
    if z is None:
        raise lines.wrong(f"names {word[:40]!r}, which is no element; correct it")
    return z


def _positions(lines: _Lines, header: _Header) -> list[list[float]]:
    return [lines.vector(f"atom {site + 1}", site) for site in range(len(header.atomic_numbers))]


def _numbers(line: str) -> list[float]:
    """The numbers that a line begins with."""
    numbers = []
    for word in line.replace(",", " ").split():
        if not _NUMBER.fullmatch(word):
            break
        numbers.append(float(re.sub("[dD]", "e", word)))
    return numbers


def _counts(line: str) -> list[int]:
    """The counts that a line begins with."""
    counts = []
    for word in line.split():
        if not _COUNT.fullmatch(word):
            break
        counts.append(int(word.lstrip("0")[:12] or 0))  # more digits count more atoms than any file has
    return counts
