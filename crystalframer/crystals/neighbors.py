"""Periodic neighbours: the key atoms j(n) around each query atom i, chosen by distance alone.

The result does not depend on the cell that describes the crystal (primitive, supercell, skewed) or on where in the cell
the atoms were written: images are chosen by distance, not from a box of cells as in the authors' code (quirk Q8, Q9).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int, Int32, Int64

from crystalframer.compiled import announced
from crystalframer.crystals.crystal import SMALLEST_DISTANCE, Crystal
from crystalframer.crystals.flat import FlatCrystals
from crystalframer.errors import CrystalError

MIN_NEIGHBORS = 12
"""An atom with fewer neighbours within the radius gets a larger radius: frames need directions to choose from."""
MIN_SPREAD = 0.1
"""An atom's edge directions û count as coplanar if the smallest eigenvalue of Σ û ûᵀ is less than this: less than one
neighbour that is 18 degrees out of the plane of all others."""
ANY = (0, -1.0)
"""Least number of neighbours and least spread that every atom has."""
SHELL = 1e-3
"""Å added to an enlarged radius, so that equal distances are taken together in spite of rounding."""
MOST_WITHIN_REACH = 1_000_000
"""Limit on the atoms within an enlarged radius, estimated from the density."""
Result = TypeVar("Result")
_ATOMS_PER_TASK = 2000
"""Atoms that a thread searches at a time: about 20 ms."""


class NeighborError(CrystalError):
    """The neighbours of a crystal cannot be listed.

    Attributes:
        index: which of the crystals that were searched it is, counted from 0.
        sites: the atoms, one or two.
        value: the distance in Å that is too short, or the one up to which there are too few neighbours.
    """

    def __init__(self, index: int, sites: Sequence[int], value: float, problem: str) -> None:
        super().__init__(f"{_named(sites)} {problem}", row=index + 1, site=sites[0], value=value)
        self.index, self.sites, self._problem = index, sites, problem

    def of(self, crystal: Crystal, part: str = "") -> CrystalError:
        """The same error with the id of the crystal and the elements of the sites.

        Args:
            part: the part of the data set that the crystal is in.
        """
        name = f"{crystal.name} of the {part} part" if part else crystal.name
        sites = _named([f"{site} (Z = {crystal.atomic_numbers[site]})" for site in self.sites])
        return CrystalError(f"{name}: {sites} {self._problem}", site=self.site, value=self.value)


def _refusal(index: int, query: int, key: int, length: float) -> NeighborError:
    """The error about two atoms on the same place; or, if `key` is negative, about one with too few neighbours."""
    if key >= 0:
        return NeighborError(
            index,
            sorted((query, key)),
            length,
            f"lie {length:.3g} Å apart; remove the duplicate site, or correct cell and positions",
        )
    problem = (
        f"has no neighbours in all directions unless it looks {length:,.0f} Å far, past millions of atoms; leave less "
        "empty space in the cell"
    )
    return NeighborError(index, [query], length, problem)


def _named(sites: Sequence[int | str]) -> str:
    return f"site{'s' if len(sites) > 1 else ''} {' and '.join(map(str, sites))}"


@dataclass(frozen=True, eq=False)
class NeighborList:
    """Edges of one crystal, sorted by query atom, then length. The edge of an atom to itself comes first."""

    edge_index: Int[np.ndarray, "2 n_edges"]
    edge_image: Int[np.ndarray, "n_edges 3"]
    edge_vectors: Float[np.ndarray, "n_edges 3"]
    """p_j(n) - p_i, Å, float64."""


@dataclass(frozen=True, eq=False)
class NeighborTable:
    """Edges of many crystals, one crystal after another, in the smallest types: 5 bytes per edge.

    Their vectors are not stored: computing them for a batch (`batch_edges`) costs less than reading them from memory.
    """

    edges_per_atom: Int32[np.ndarray, " n_atoms"]
    """Number of edges of each query atom, by which the edges are sorted."""
    key_atom: Int[np.ndarray, " n_edges"]
    """Counted within its crystal; int16, or int32 if a crystal has too many atoms for that."""
    edge_image: Int[np.ndarray, "n_edges 3"]
    """int8, or int32 if an atom has a position too far outside its cell for that."""


def neighbor_list(
    crystal: Crystal, radius: float, min_neighbors: int = MIN_NEIGHBORS, *, enlarge: bool = True
) -> NeighborList:
    """Find all images within `radius` Å of each atom, at least `min_neighbors` and never all in one plane.

    Atoms that find too few, or only coplanar ones, within `radius` (a molecule in a large box, a layer, a chain) get
    the smallest radius that holds enough, unless `enlarge` is off. Cost is linear in atoms.

    Raises:
        CrystalError: two atoms, or an atom and its own image, are less than 0.5 Å apart; or the empty space around a
            layer or chain is wider than can be searched.
    """
    crystals = FlatCrystals.of([crystal])
    try:
        table = search(crystals, radius, min_neighbors, enlarge=enlarge)
    except NeighborError as error:
        raise error.of(crystal) from error
    return NeighborList(*batch_edges(table, crystals, first_edges(table, crystals), np.zeros(1, np.int64), np.float64))


def search(
    crystals: FlatCrystals,
    radius: float,
    min_neighbors: int = MIN_NEIGHBORS,
    title: str = "neighbours",
    *,
    enlarge: bool = True,
) -> NeighborTable:
    """Find the neighbours of many crystals as `neighbor_list` does for one, on all cores.

    Args:
        title: title of the progress bar, which appears when the search takes more than 2 s.

    Raises:
        NeighborError: as `neighbor_list`, for the first such crystal.
    """
    from tqdm.auto import tqdm

    _compile_search()
    key_type = np.int16 if crystals.n_atoms.max(initial=0) <= np.iinfo(np.int16).max else np.int32

    enough = (min_neighbors, MIN_SPREAD) if enlarge else ANY

    def found(rows: range) -> tuple[np.ndarray, ...]:
        counts, edges = _find(crystals, rows, radius, *enough)
        image = edges[:, 1:]
        image_type = np.int8 if np.abs(image).max(initial=0) <= np.iinfo(np.int8).max else np.int32
        return counts, edges[:, 0].astype(key_type), image.astype(image_type)

    tasks, tables = _tasks(crystals.offsets), []
    with tqdm(total=len(crystals), desc=title, unit=" crystals", delay=2, leave=False) as bar:
        for rows, table in zip(tasks, _in_threads(found, tasks), strict=True):
            tables.append(table)
            bar.update(len(rows))
    return NeighborTable(*map(np.concatenate, zip(*tables, strict=True)))


def first_edges(table: NeighborTable, crystals: FlatCrystals) -> Int64[np.ndarray, " n_crystals_and_1"]:
    """Crystal n owns the edges first_edge[n] to first_edge[n + 1]."""
    return np.concatenate([[0], np.cumsum(table.edges_per_atom, dtype=np.int64)])[crystals.offsets]


def batch_edges(
    table: NeighborTable,
    crystals: FlatCrystals,
    first_edge: Int64[np.ndarray, " n_crystals_and_1"],
    rows: Int64[np.ndarray, " n_rows"],
    dtype: type[np.floating],
) -> tuple[
    Int64[np.ndarray, "2 n_batch_edges"], Int32[np.ndarray, "n_batch_edges 3"], Float[np.ndarray, "n_batch_edges 3"]
]:
    """The edges of a batch of crystals: `edge_index` (counted through the batch), `edge_image` and `edge_vectors`.

    Args:
        first_edge: see `first_edges`.
        dtype: type of the vectors; they are formed in float64.
    """
    from crystalframer.crystals import neighbor_kernels

    n_edges = int((first_edge[rows + 1] - first_edge[rows]).sum())
    edges = np.empty((2, n_edges), np.int64), np.empty((n_edges, 3), np.int32), np.empty((n_edges, 3), dtype)
    known = (rows, crystals.offsets, first_edge, table.edges_per_atom, table.key_atom, table.edge_image)
    neighbor_kernels.batch_edges(*known, crystals.positions, crystals.lattice, *edges)
    return edges


def _tasks(first_atom: Int64[np.ndarray, " n_crystals_and_1"]) -> list[range]:
    """Ranges of consecutive crystals with a few thousand atoms each."""
    n_crystals = len(first_atom) - 1
    ends = np.searchsorted(first_atom, np.arange(_ATOMS_PER_TASK, first_atom[-1], _ATOMS_PER_TASK))
    return [range(*pair) for pair in itertools.pairwise(np.unique([0, *ends, n_crystals]).tolist())] or [range(0)]


def _in_threads(run: Callable[[range], Result], tasks: list[range]) -> Iterator[Result]:
    """The results in order, computed by as many threads as there are cores, without the interpreter's lock."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if min(cores, len(tasks)) == 1:
        yield from map(run, tasks)
        return
    pool = ThreadPoolExecutor(cores, thread_name_prefix="neighbours")
    try:
        yield from pool.map(run, tasks)
    finally:
        pool.shutdown(cancel_futures=True)


@cache
def _compile_search() -> None:
    """Compile before the threads start, so that the progress bar measures the search only."""
    with announced("the compiled neighbour search"):
        simple_cubic = Crystal(np.array([84]), np.zeros((1, 3)), 3.0 * np.eye(3))
        _find(FlatCrystals.of([simple_cubic]), range(1), 3.0, MIN_NEIGHBORS, MIN_SPREAD)


def _find(
    crystals: FlatCrystals, rows: range, radius: float, min_neighbors: int, min_spread: float
) -> tuple[Int32[np.ndarray, " n_atoms"], Int32[np.ndarray, "n_edges 4"]]:
    """The number of edges of each atom, and key atom and image of each edge, for these crystals."""
    from crystalframer.crystals import neighbor_kernels

    limits = (float(radius), min_neighbors, min_spread, SMALLEST_DISTANCE, SHELL, MOST_WITHIN_REACH)
    counts, edges, clash, length = neighbor_kernels.search(
        rows.start, rows.stop, crystals.offsets, crystals.positions, crystals.lattice, *limits
    )
    if clash[0] >= 0:
        index, query, key = clash
        raise _refusal(index, query, key, length)
    return counts, edges


def translations(image: Int[np.ndarray, "n_edges 3"], lattice: np.ndarray) -> Float[np.ndarray, "n_edges 3"]:
    """image @ lattice, for one lattice or one per image, summed term by term as the kernels do (same rounding)."""
    a, b, c = (image[:, axis, None] * lattice[..., axis, :] for axis in range(3))
    return a + b + c


def ranges(starts: Int64[np.ndarray, " n"], sizes: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n_numbers"]:
    """The numbers of several ranges, one range after another."""
    return np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
