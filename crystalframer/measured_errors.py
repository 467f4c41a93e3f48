"""Errors of a model by element and by size of the cell, measured on crystals that did not train it.

A checkpoint keeps them (`errors.json`), so that a model can say where it is good. Needs no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from crystalframer.errors import ConfigError

if TYPE_CHECKING:
    import pandas

SIZES = ((1, 10), (11, 20), (21, 40), (41, 80), (81, 10**9))
"""First and last number of atoms of each group of sizes."""
Kind = Literal["all", "element", "size"]


@dataclass(frozen=True)
class GroupError:
    """The error of one target in one group of crystals."""

    target: str
    kind: Kind
    """`all`: all crystals. `element`: those that contain an element. `size`: those with some numbers of atoms."""
    group: str
    """`O`, `11–20 atoms`, or empty for all crystals."""
    n_crystals: int
    """Crystals with both a label and a prediction."""
    error: float
    """Mean absolute error, in the unit of the target. Of classes, the share of crystals whose class is wrong."""

    def __post_init__(self) -> None:
        if self.n_crystals < 1 or not 0.0 <= self.error < np.inf:
            raise ConfigError("must be an error of at least one crystal", field="error", value=self.error)


@dataclass(frozen=True)
class MeasuredErrors:
    """The errors of a model, by group."""

    crystals: str
    """The crystals in words: `test crystals of the run`."""
    n_crystals: int
    rows: tuple[GroupError, ...]

    def of(self, target: str, kind: Kind) -> list[GroupError]:
        """The groups of one kind; those of elements with the most crystals first."""
        return [row for row in self.rows if (row.target, row.kind) == (target, kind)]


def measured(crystals: pandas.DataFrame, words: str) -> MeasuredErrors | None:
    """The errors in a table of labels and predictions; None if no crystal has both.

    Args:
        crystals: as `Evaluation.crystals`: `id`, `formula`, `n_atoms`, `target`, `label`, `prediction` and `deviation`.
        words: the crystals in words.
    """
    rows = []
    known = crystals.loc[crystals["label"].notna() & crystals["prediction"].notna()]
    for target, part in known.groupby("target", sort=False):
        errors = _errors(part)
        rows.append(_group(str(target), "all", "", errors))
        rows += [_group(str(target), "element", name, errors[chosen]) for name, chosen in _by_element(part)]
        rows += [_group(str(target), "size", name, errors[chosen]) for name, chosen in _by_size(part)]
    return MeasuredErrors(words, int(known["id"].nunique()), tuple(rows)) if rows else None


def _errors(rows: pandas.DataFrame) -> np.ndarray:
    """Of each row; NaN in `deviation` (or no such column) means that the target has classes."""
    wrong = (rows["label"] != rows["prediction"]).to_numpy(dtype=np.float64)
    if "deviation" not in rows:
        return wrong
    deviation = rows["deviation"].to_numpy(dtype=np.float64)
    return np.where(np.isnan(deviation), wrong, np.abs(deviation))


def _group(target: str, kind: Kind, name: str, errors: np.ndarray) -> GroupError:
    return GroupError(target, kind, name, len(errors), float(errors.mean()))


def _by_element(rows: pandas.DataFrame) -> list[tuple[str, np.ndarray]]:
    """Each element, and the positions of the rows whose formula contains it."""
    found: dict[str, list[int]] = {}
    for position, formula in enumerate(rows["formula"]):
        for symbol in set(re.findall("[A-Z][a-z]?", formula)):
            found.setdefault(symbol, []).append(position)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(symbol, np.array(positions)) for symbol, positions in ordered]


def _by_size(rows: pandas.DataFrame) -> list[tuple[str, np.ndarray]]:
    n_atoms = rows["n_atoms"].to_numpy()
    groups = []
    for first, last in SIZES:
        positions = np.flatnonzero((n_atoms >= first) & (n_atoms <= last))
        words = f"{first}–{last} atoms" if last < SIZES[-1][1] else f"{first} atoms or more"
        groups += [(words, positions)] if len(positions) else []
    return groups
