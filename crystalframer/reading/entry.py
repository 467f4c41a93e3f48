"""What a format gives: the entries of a file, and where in the file they start."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import CrystalError, CrystalFramerError


@dataclass(frozen=True)
class Start:
    """Position just before an entry of a file, from which a file of millions can be read on."""

    n_before: int = 0
    """Entries of the file before this one."""
    mark: int | bytes | None = None
    """How the format finds it: a byte of the file, an id, a key; None where the number is enough."""


BEGINNING = Start()


@dataclass(frozen=True, eq=False)
class Entry:
    """One structure or row of an input, before a crystal is made of it."""

    structure: Any
    """Anything that `objects.to_crystal` takes, or a `CrystalFramerError` that says why there is nothing."""
    id: str = ""
    row: int | None = None
    """Its number in the file, table or list, from 1; None for the only structure of a file."""
    row_word: str = "row"
    """What is counted: `"row"`, `"structure"`, `"item"`."""
    path: Path | None = None
    item: int | None = None
    """Its number in the list or table in memory that it came from, from 0."""

    @property
    def source(self) -> str:
        """Where it comes from, for messages: `NaCl.cif`, `table.csv, row 3`."""
        return CrystalFramerError().at(path=self.path, row=self.row, row_word=self.row_word).where


class CellContent(NamedTuple):
    """All atoms of a cell as a format gives them, before a crystal is made."""

    atomic_numbers: Int[np.ndarray, " n_atoms"]
    positions: Float[np.ndarray, "n_atoms 3"]
    """Cartesian, Å."""
    lattice: Float[np.ndarray, "3 3"]
    """Rows a, b, c, Å."""


@dataclass(frozen=True, eq=False)
class StructureRecord:
    """One input: a crystal, or the reason why there is none."""

    id: str
    """As its source gives it; it may repeat."""
    source: str
    """Where it came from, for messages: `NaCl.cif`, `table.csv, row 3`."""
    crystal: Crystal | None
    error: str | None
    item: int | None = None
    """Number of the item among the inputs that it came from, from 0; None where these are a path or one structure."""
    of_machine: bool = False
    """Whether the error is one of the machine: the structure may be read when it is tried again."""

    @property
    def formula(self) -> str:
        """Reduced formula; empty if there is no crystal."""
        return "" if self.crystal is None else self.crystal.formula


def numbered(structures: Iterable[Any], start: Start) -> Iterator[Entry]:
    """The structures of a file from a start on as entries. The only structure of a file has no number.

    Raises:
        CrystalError: the file has none.
    """
    remaining = iter(structures)
    head = list(itertools.islice(remaining, 2))
    if not head and start.n_before == 0:
        raise CrystalError("holds no structure; check the file")
    if start.n_before == 0 and len(head) == 1:
        return iter([Entry(head[0])])
    counted = enumerate(itertools.chain(head, remaining), start=start.n_before + 1)
    return (Entry(structure, row=number, row_word="structure") for number, structure in counted)
