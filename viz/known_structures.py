"""The structures that belong to the points of a map: found by id, or by their order; made into scenes when needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int, UInt32
from tqdm.auto import tqdm

from crystalframer.elements import atomic_number, reduced_formula
from crystalframer.traces import CrystalTrace, LayerTrace
from viz.errors import FigureError
from viz.point_tables import PointTable
from viz.scene import Scene, scene_from_trace

if TYPE_CHECKING:
    from crystalframer.crystals.crystal import Crystal

MOST_NAMED = 5
"""Ids that a message names."""
MOST_SYMMETRIES = 5_000
"""Space groups take about 5 ms each, so those of larger data sets are not computed."""
TOLERANCE = 0.1
"""Å by which atoms may miss the place that the symmetry gives them, as in `CrystalDataset.space_groups`."""
N_WORDS = 4
"""32-bit words for the elements of a crystal: bit z % 32 of word z // 32 is that of atomic number z."""


@dataclass(frozen=True, eq=False)
class KnownStructures:
    """The structure of each point, if it has one."""

    source: Any
    """Numbered, such as a `CrystalDataset` or a list. Structures are converted when they are asked for."""
    number: Int[np.ndarray, " n_points"]
    """Number in the source of the structure of each point, -1 for none."""
    ids: list[str]
    """Id of each point: that of the table, or else that of its structure."""
    notes: tuple[str, ...] = ()

    def __getitem__(self, point: int) -> Crystal | None:
        """The structure of a point as a `Crystal`."""
        number = int(self.number[point])
        return None if number < 0 else _crystal(self.source[number])


def known_structures(structures: Any, table: PointTable) -> KnownStructures:
    """Find the structure of each point.

    Args:
        structures: a `CrystalDataset`; a dictionary or Series of id → structure; a list of structures (with ids, or one
            for each row in the same order); or a path that `crystalframer.read_all` reads. None: there are none.
        table: of the points. If it has no ids, the structures belong to its rows in their order.

    Raises:
        FigureError: no id of a structure is that of a point, an id is there twice, or structures without ids that are
            more or fewer than the points. The message names ids of both.
    """
    ids = table.ids
    if structures is None:
        return KnownStructures([], np.full(len(ids), -1), ids)
    names, source = _named(structures)
    if names is None or not table.has_ids:
        if len(source) != table.n_rows:
            raise FigureError(
                f"there are {len(source):,} structures for {table.n_rows:,} rows of the table, and one of them has no "
                "ids; give ids to both, or one structure for each row",
                field="structures",
                value=len(source),
            )
        return KnownStructures(source, table.rows, ids if names is None else [names[row] for row in table.rows])
    row_of: dict[str, int] = {}
    twice = [name for number, name in enumerate(names) if row_of.setdefault(name, number) != number]
    if twice:
        raise FigureError(f"structures with the same id: {_some(twice)}", field="structures", value=twice[0])
    number = np.array([row_of.get(id, -1) for id in ids], dtype=np.int64)
    unmatched = sorted(set(names) - set(ids))
    missing = [id for id, found in zip(ids, number.tolist(), strict=True) if found < 0]
    if len(missing) == len(ids):
        raise FigureError(
            f"no structure has the id of a row: the structures are {_some(names)}, the rows {_some(ids)}",
            field="structures",
            value=names[0] if names else None,
        )
    notes = []
    if missing:
        notes.append(f"{_counted(len(missing), 'point has', 'points have')} no structure: {_some(missing)}.")
    if unmatched:
        notes.append(f"{_counted(len(unmatched), 'structure has', 'structures have')} no row: {_some(unmatched)}.")
    return KnownStructures(source, number, ids, tuple(notes))


@dataclass(frozen=True, eq=False)
class Facts:
    """What structures and formulae tell about each point."""

    columns: dict[str, np.ndarray]
    units: dict[str, str]
    elements: UInt32[np.ndarray, "n_points n_words"]
    """The elements of each crystal as bits."""
    notes: tuple[str, ...] = ()


def facts(known: KnownStructures, formulas: Sequence[str], has_groups: bool) -> Facts:
    """Size, volume, formula, elements and space group of each point, from its structure or else from its formula."""
    n_points = len(known.number)
    n_atoms, volume = np.full(n_points, np.nan), np.full(n_points, np.nan)
    groups = np.full(n_points, np.nan)
    bits = np.zeros((n_points, N_WORDS), dtype=np.uint32)
    names = np.array(formulas, dtype=object)
    n_known = int((known.number >= 0).sum())
    finds_groups = not has_groups and 0 < n_known <= MOST_SYMMETRIES
    bar = tqdm(range(n_points), desc="structures", unit=" crystals", delay=2, leave=False)
    for point in bar:
        crystal = known[point]
        if crystal is None:
            numbers = np.array(numbers_in(names[point]), dtype=np.int64)
        else:
            numbers = np.unique(crystal.atomic_numbers)
            n_atoms[point] = len(crystal.atomic_numbers)
            volume[point] = abs(float(np.linalg.det(crystal.lattice))) / n_atoms[point]
            names[point] = names[point] or reduced_formula(crystal.atomic_numbers)
            if finds_groups:
                groups[point] = _space_group(crystal)
        np.bitwise_or.at(bits[point], numbers // 32, (np.uint32(1) << (numbers % 32).astype(np.uint32)))
    n_elements = np.bitwise_count(bits).sum(axis=1).astype(float)
    columns: dict[str, np.ndarray] = {"formula": names}
    if n_known:
        columns |= {"n_atoms": n_atoms, "volume per atom": volume}
    if n_elements.any():
        columns["n_elements"] = np.where(n_elements > 0, n_elements, np.nan)
    if finds_groups:
        columns["space_group"] = groups
    notes = []
    if not has_groups and n_known > MOST_SYMMETRIES:
        notes.append(
            f"Space groups of more than {MOST_SYMMETRIES:,} crystals are not computed; the column space_group can be "
            "given in the table."
        )
    return Facts(columns, {"volume per atom": "Å³"}, bits, tuple(notes))


@cache
def numbers_in(formula: str) -> tuple[int, ...]:
    """The atomic numbers of the elements in a formula.

    Example:
        >>> numbers_in("SrTiO3")
        (8, 22, 38)
    """
    found = {atomic_number(symbol) for symbol in re.findall(r"[A-Z][a-z]?", formula)}
    return tuple(sorted(number for number in found if number))


def plain_scene(crystal: Crystal) -> Scene:
    """The scene of a structure without a model: atoms, bonds, polyhedra and symmetry.

    It is that of a trace in which each atom sees itself only, so bonds, cell and labels are those of all pictures.
    """
    n_atoms = len(crystal.atomic_numbers)
    nothing = np.zeros((n_atoms, 1))
    layer = LayerTrace(np.ones((n_atoms, 1)), nothing, nothing, np.ones((n_atoms, 1)), nothing)
    itself = np.tile(np.arange(n_atoms), (2, 1))
    trace = CrystalTrace(
        crystal.atomic_numbers,
        crystal.positions,
        crystal.lattice,
        itself,
        np.zeros((n_atoms, 3), np.int64),
        (layer,),
        id=crystal.id,
    )
    return scene_from_trace(trace)


def _named(structures: Any) -> tuple[list[str] | None, Any]:
    """The ids of structures, or None if they have none; and the structures, numbered."""
    if isinstance(structures, str | Path):
        from crystalframer.reading.inputs import read_all

        structures = read_all(structures)
    ids = getattr(structures, "ids", None)
    if ids is not None and hasattr(structures, "offsets"):
        return [str(id) for id in ids], structures
    if isinstance(structures, Mapping):
        return [str(id) for id in structures], list(structures.values())
    if type(structures).__name__ == "Series":
        return [str(id) for id in structures.index], structures.tolist()
    structures = list(structures)
    names = [str(getattr(structure, "id", "") or "") for structure in structures]
    return (names, structures) if structures and all(names) else (None, structures)


def _crystal(structure: Any) -> Crystal:
    is_crystal = all(hasattr(structure, name) for name in ("atomic_numbers", "positions", "lattice", "id"))
    if is_crystal and isinstance(structure.lattice, np.ndarray):
        return structure
    from crystalframer.reading.inputs import read

    return read(structure)


def _space_group(crystal: Crystal) -> float:
    import warnings

    import spglib

    cell: Any = (crystal.lattice, crystal.positions @ np.linalg.inv(crystal.lattice), crystal.atomic_numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            found = spglib.get_symmetry_dataset(cell, symprec=TOLERANCE)
        except spglib.SpglibError:
            return float("nan")
    return float("nan") if found is None else float(found.number)


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(str, names[:MOST_NAMED])) + rest


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


Records = Mapping[str, Any] | Callable[[Any], Any]
"""Traces or explanations by id, or a function that makes one from a structure."""
