"""Stability against decomposition: how far a formation energy is above the convex hull of competing phases."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.datasets.sources import dataset
from crystalframer.errors import DataError, UnknownTarget
from crystalframer.outcomes import FLAGS
from crystalframer.reading.columns import to_label
from crystalframer.reading.formats import table_rows

if TYPE_CHECKING:
    import pandas
    from pymatgen.analysis.phase_diagram import PhaseDiagram
    from pymatgen.core import Composition

ENERGY = "formation_energy_per_atom"


def above_hull(
    table: pandas.DataFrame,
    references: pandas.DataFrame | CrystalDataset | str | Path,
    *,
    energy: str = ENERGY,
    progress: bool = True,
) -> pandas.DataFrame:
    """How far candidates are above the convex hull of reference phases, by pymatgen's phase diagrams.

    The elements are at 0 eV/atom, as formation energies have it; references that are elements may be lower. A candidate
    does not compete with itself: below the hull it has a negative energy, and would be a new stable phase. With
    intervals (columns `NAME_low` and `NAME_high`) of the candidates, of the references, or of both, the energy above
    the hull has one, too: from the lowest candidate above the highest hull to the highest above the lowest. That is
    wider than needed where errors of a candidate and of its competitors are alike.

    >>> import pandas
    >>> import crystalframer as cf
    >>> phases = pandas.DataFrame({"formula": ["Li2O", "Fe2O3"], "formation_energy_per_atom": [-2.0, -1.6]})
    >>> found = pandas.DataFrame({"id": ["new"], "formula": ["LiFeO2"], "formation_energy_per_atom": [-1.80]})
    >>> row = cf.above_hull(found, phases).iloc[0]
    >>> round(float(row["above_hull"]), 3), row["decomposes_to"]
    (-0.05, '0.625 Fe2O3 + 0.375 Li2O')

    Args:
        table: candidates: columns `formula` and the energy in eV/atom, as `predict` returns them. Rows without an
            energy get none above the hull.
        references: competing phases: a table with the same columns, a data set with labels of this name, or the name
            or path of one. Of a file, rows without an energy are left out. They and the candidates must come from one
            level of theory, such as predictions of both by one model.
        energy: name of the column of formation energies.
        progress: show a progress bar if it takes more than 2 s.

    Returns:
        The columns `id` and the flags of `predict` (if the table has them), `formula`, the energy, `above_hull`
        (eV/atom), `above_hull_low` and `above_hull_high` (with intervals), `decomposes_to` (competing phases with their
        shares of the atoms) and `error`: why there is none. `attrs["units"]` maps column to unit.

    Raises:
        DataError: the table or the references lack a column (the nearest is named), a formula cannot be read, or a
            reference has no energy or an infinite one.
    """
    import pandas

    candidates = _phases(table, energy, "the table")
    known = _phases(phase_table(references, energy), energy, "the references", complete=True)
    hulls = _Hulls(known)
    rows = [
        _row(candidate, hulls)
        for candidate in tqdm(candidates, desc="hulls", unit=" candidates", delay=2, leave=False, disable=not progress)
    ]
    names = ["above_hull", "above_hull_low", "above_hull_high", "decomposes_to", "error"]
    found = pandas.DataFrame(rows, columns=names).astype(dict.fromkeys(names[:3], np.float64))
    for place, name in enumerate(names[3:], start=3):  # None stays None where all others are text
        found[name] = pandas.Series([row[place] for row in rows], dtype=object)
    if not any(phase.has_interval for phase in (*candidates, *known)):
        found = found.drop(columns=["above_hull_low", "above_hull_high"])
    kept = [name for name in ("id", "formula", energy, *FLAGS) if name in table]
    result = pandas.concat([table[kept].reset_index(drop=True), found], axis=1)
    result.index = table.index
    values = [name for name in result if name == energy or str(name).startswith("above_hull")]
    result.attrs["units"] = dict.fromkeys(values, "eV/atom")
    return result


@dataclass(frozen=True, eq=False)
class _Phase:
    """A composition with its energy; eV/atom."""

    composition: Composition
    energy: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        return self.low < self.high


def phase_table(references: pandas.DataFrame | CrystalDataset | str | Path, energy: str = ENERGY) -> pandas.DataFrame:
    """The references of `above_hull` as a table of formulas and energies: a file or data set is read here."""
    if isinstance(references, (str, Path)):
        table = _formulas_in(Path(references), energy)
        if table is not None:
            return table
        references = dataset(references, targets=[energy])
    if isinstance(references, CrystalDataset):
        return references.with_targets([energy]).labelled().to_frame()
    return references


def _formulas_in(path: Path, energy: str) -> pandas.DataFrame | None:
    """The rows with an energy of a table of formulas, such as saved predictions; None if the file is no such table."""
    import pandas

    found = table_rows(path) if path.is_file() else None
    rows = list(found or ())
    known = next((set(row) for row in rows if not isinstance(row, DataError)), set())
    if not {"formula", energy} <= known:
        return None
    names = [name for name in (energy, f"{energy}_low", f"{energy}_high") if name in known]
    columns: dict[str, list[Any]] = {name: [] for name in ("formula", *names)}
    for number, row in enumerate(rows, start=1):
        if isinstance(row, DataError):
            raise row
        columns["formula"].append(row.get("formula") or "")
        for name in names:
            columns[name].append(to_label(row.get(name), name, path=path, row=number))
    return pandas.DataFrame(columns).dropna(subset=[energy])


def _phases(table: pandas.DataFrame, energy: str, what: str, complete: bool = False) -> list[_Phase]:
    """The rows of a table as phases; their energies may be missing unless it must be complete."""
    from pymatgen.core import Composition

    for name in ("formula", energy):
        if name not in table:
            raise UnknownTarget(f"{what}: there is no column {name!r}", name, [str(column) for column in table])
    values = table[energy].to_numpy(dtype=np.float64)
    names = [f"{energy}_{end}" for end in ("low", "high")]
    ends = [table[name].to_numpy(dtype=np.float64) if name in table else values for name in names]
    if complete:  # a reference without an interval counts as exact
        ends = [np.where(np.isnan(end), values, end) for end in ends]
    compositions: dict[str, Composition] = {}
    phases = []
    for row, formula in enumerate(map(str, table["formula"]), start=1):
        value, low, high = values[row - 1], *(end[row - 1] for end in ends)
        if (complete and np.isnan(value)) or np.isinf([value, low, high]).any():
            raise DataError(f"{what}: {energy} is {value}; give a number", row=row, field=energy, value=value)
        try:
            composition = compositions.setdefault(formula, Composition(formula) if formula else Composition())
        except ValueError as error:
            raise DataError(f"{what}: {formula!r} is no formula ({error})", row=row, field="formula") from error
        if complete and compositions[formula].num_atoms < 1e-8:
            raise DataError(f"{what}: the formula {formula!r} has no atoms", row=row, field="formula", value=formula)
        phases.append(_Phase(composition, float(value), float(low), float(high)))
    return phases


class _Hulls:
    """Phase diagrams of chemical systems, each made when it is first needed."""

    def __init__(self, phases: Sequence[_Phase]) -> None:
        self._by_system: dict[frozenset[str], list[_Phase]] = defaultdict(list)
        for phase in phases:
            self._by_system[frozenset(phase.composition.chemical_system_set)].append(phase)
        self.elements = frozenset().union(*self._by_system)
        self._made: dict[frozenset[str], Mapping[str, PhaseDiagram]] = {}

    def of(self, system: frozenset[str]) -> Mapping[str, PhaseDiagram]:
        """The hull by energies, and by the low and high ends of their intervals."""
        if system not in self._made:
            # Few elements have few subsets; the references may be of very many systems.
            sizes = range(1, len(system) + 1)
            parts = (frozenset(part) for size in sizes for part in itertools.combinations(sorted(system), size))
            inside = [phase for part in parts for phase in self._by_system.get(part, ())]
            has_intervals = any(phase.has_interval for phase in inside)
            ends = ("energy", "low", "high") if has_intervals else ("energy",)
            self._made[system] = {end: _diagram(system, inside, end) for end in ends}
        return self._made[system]


def _diagram(system: frozenset[str], phases: Sequence[_Phase], end: str) -> PhaseDiagram:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    entries = [PDEntry(Composition(symbol), 0.0) for symbol in sorted(system)]
    entries += [PDEntry(p.composition, getattr(p, end) * p.composition.num_atoms) for p in phases]
    return PhaseDiagram(entries)


def _row(candidate: _Phase, hulls: _Hulls) -> tuple[Any, ...]:
    """Energy above the hull with its interval, the competing phases, and why there is none."""
    if np.isnan(candidate.energy):
        return (np.nan, np.nan, np.nan, None, "there is no energy")
    system = frozenset(candidate.composition.chemical_system_set)
    if lacking := sorted(system - hulls.elements):
        return (np.nan, np.nan, np.nan, None, f"no reference has {', '.join(lacking)}")
    found = hulls.of(system)
    hull = {end: diagram.get_hull_energy_per_atom(candidate.composition) for end, diagram in found.items()}
    low, high = hull.get("low", hull["energy"]), hull.get("high", hull["energy"])
    shares = found["energy"].get_decomposition(candidate.composition)
    parts = sorted(((share, entry.composition.reduced_formula) for entry, share in shares.items()), reverse=True)
    text = " + ".join(name if len(parts) == 1 else f"{share:.3g} {name}" for share, name in parts)
    return (candidate.energy - hull["energy"], candidate.low - high, candidate.high - low, text, None)
