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

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Int64

from crystalframer.compiled import announced, compiler_is_there
from crystalframer.crystals.crystal import SMALLEST_DISTANCE, Crystal, cell_heights
from crystalframer.crystals.flat import FlatCrystals
from crystalframer.errors import CrystalError

MIN_NEIGHBORS = 12
"""An atom with fewer neighbours within the radius gets a larger radius: frames need directions to choose from."""
MIN_SPREAD = 0.1
"""An atom's edge directions û count as coplanar if the smallest eigenvalue of Σ û ûᵀ is less than this: less than one
neighbour that is 18 degrees out of the plane of all others."""
SHELL = 1e-3
"""Å added to an enlarged radius, so that equal distances are taken together in spite of rounding."""
MOST_WITHIN_REACH = 1_000_000
"""Limit on the atoms within an enlarged radius, estimated from the density."""
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
            index, sorted((query, key)), length, f"lie {length:.3g} Å apart; remove the duplicate site"
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


def neighbor_list(crystal: Crystal, radius: float, min_neighbors: int = MIN_NEIGHBORS) -> NeighborList:
    """Find all images within `radius` Å of each atom, at least `min_neighbors` and never all in one plane.

    Atoms that find too few, or only coplanar ones, within `radius` (a molecule in a large box, a layer, a chain) get
    the smallest radius that holds enough. Cost is linear in atoms.

    Raises:
        CrystalError: two atoms, or an atom and its own image, are less than 0.1 Å apart; or the empty space around a
            layer or chain is wider than can be searched.
    """
    crystals = FlatCrystals.of([crystal])
    try:
        table = search(crystals, radius, min_neighbors)
    except NeighborError as error:
        raise error.of(crystal) from error
    return NeighborList(*batch_edges(table, crystals, first_edges(table, crystals), np.zeros(1, np.int64), np.float64))


def search(
    crystals: FlatCrystals, radius: float, min_neighbors: int = MIN_NEIGHBORS, title: str = "neighbours"
) -> NeighborTable:
    """Find the neighbours of many crystals as `neighbor_list` does for one, on all cores.

    Args:
        title: title of the progress bar, which appears when the search takes more than 2 s.

    Raises:
        NeighborError: as `neighbor_list`, for the first such crystal.
    """
    from tqdm.auto import tqdm

    find = _find_in_scipy
    if compiler_is_there("cpu"):
        _compile_search()
        find = _find
    key_type = np.int16 if crystals.n_atoms.max(initial=0) <= np.iinfo(np.int16).max else np.int32

    def table_of(rows: range) -> NeighborTable:
        counts, edges = find(crystals, rows, radius, min_neighbors)
        image = edges[:, 1:]
        image_type = np.int8 if np.abs(image).max(initial=0) <= np.iinfo(np.int8).max else np.int32
        return NeighborTable(counts, edges[:, 0].astype(key_type), image.astype(image_type))

    tasks, tables = _tasks(crystals.offsets), []
    with tqdm(total=len(crystals), desc=title, unit=" crystals", delay=2, leave=False) as bar:
        for rows, table in zip(tasks, _in_threads(table_of, tasks), strict=True):
            tables.append(table)
            bar.update(len(rows))
    return NeighborTable(
        np.concatenate([table.edges_per_atom for table in tables]),
        np.concatenate([table.key_atom for table in tables]),
        np.concatenate([table.edge_image for table in tables]),
    )


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
    if not compiler_is_there("cpu"):
        return _batch_edges_in_numpy(table, crystals, first_edge, rows, dtype)
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


def _in_threads(run: Callable[[range], NeighborTable], tasks: list[range]) -> Iterator[NeighborTable]:
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
        _find(FlatCrystals.of([simple_cubic]), range(1), 3.0, MIN_NEIGHBORS)


def _find(
    crystals: FlatCrystals, rows: range, radius: float, min_neighbors: int
) -> tuple[Int32[np.ndarray, " n_atoms"], Int32[np.ndarray, "n_edges 4"]]:
    """The number of edges of each atom, and key atom and image of each edge, for these crystals."""
    from crystalframer.crystals import neighbor_kernels

    limits = (float(radius), min_neighbors, MIN_SPREAD, SMALLEST_DISTANCE, SHELL, MOST_WITHIN_REACH)
    counts, edges, clash, length = neighbor_kernels.search(
        rows.start, rows.stop, crystals.offsets, crystals.positions, crystals.lattice, *limits
    )
    if clash[0] >= 0:
        index, query, key = clash
        raise _refusal(index, query, key, length)
    return counts, edges


# --- without Numba: the same in SciPy and NumPy; tests compare the kernels with it ------------------------------------


def _find_in_scipy(
    crystals: FlatCrystals, rows: range, radius: float, min_neighbors: int
) -> tuple[Int32[np.ndarray, " n_atoms"], Int32[np.ndarray, "n_edges 4"]]:
    """As `_find`."""
    counts, edges = [np.zeros(0, np.int32)], [np.zeros((0, 4), np.int32)]
    for row in rows:
        atoms = slice(crystals.offsets[row], crystals.offsets[row + 1])
        cell = _Cell(crystals.positions[atoms], crystals.lattice[row])
        query, key, image, lengths = _edges_of_cell(cell, radius, min_neighbors, row)
        is_self = (query == key) & (image == 0).all(axis=1)
        for clash in np.flatnonzero((lengths < SMALLEST_DISTANCE) & ~is_self)[:1]:
            raise _refusal(row, int(query[clash]), int(key[clash]), float(lengths[clash]))
        counts.append(np.bincount(query, minlength=len(cell.positions)).astype(np.int32))
        edges.append(np.column_stack([key, image]).astype(np.int32))
    return np.concatenate(counts), np.concatenate(edges)


@dataclass(frozen=True, eq=False)
class _Cell:
    positions: Float[np.ndarray, "n_atoms 3"]
    lattice: Float[np.ndarray, "3 3"]


def _edges_of_cell(
    cell: _Cell, radius: float, min_neighbors: int, row: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(query, key, image, length) of all edges, sorted."""
    n_atoms = len(cell.positions)
    density = n_atoms / abs(np.linalg.det(cell.lattice))
    query, key, image = _images_within(cell, radius)
    vectors = _edge_vectors(cell, query, key, image)
    sparse = _is_sparse(query, vectors, n_atoms, min_neighbors)
    reach = max(radius, float(cell_heights(cell.lattice).max()))
    while sparse.any():
        if density * 4 / 3 * np.pi * reach**3 > MOST_WITHIN_REACH:
            raise _refusal(row, int(np.argmax(sparse)), -1, reach)
        wide = _images_within(cell, reach)
        wide_vectors = _edge_vectors(cell, *wide)
        still_sparse = _is_sparse(wide[0], wide_vectors, n_atoms, min_neighbors)
        served = sparse & ~still_sparse
        extra = _smallest_sufficient(wide[0], wide_vectors, served, min_neighbors)
        kept = ~served[query]
        query, key, image, vectors = (
            np.concatenate([old[kept], new[extra]])
            for old, new in zip((query, key, image, vectors), (*wide, wide_vectors), strict=True)
        )
        sparse &= still_sparse
        reach *= 1.5
    lengths = np.linalg.norm(vectors, axis=1)
    order = np.lexsort((*image.T[::-1], key, lengths, query))
    return query[order], key[order], image[order], lengths[order]


def _images_within(cell: _Cell, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(query, key, image) of all pairs within `radius`, the atom itself included."""
    from scipy.spatial import KDTree

    frac = cell.positions @ np.linalg.inv(cell.lattice)
    shift = np.floor(frac).astype(np.int64)
    frac = frac - shift
    # Every translation that can bring some atom of the cell within reach of the cell.
    margin = radius / cell_heights(cell.lattice)
    ranges = [range(-n, n + 1) for n in np.ceil(margin).astype(int)]
    translations = np.array(list(itertools.product(*ranges)))
    low, high = frac.min(axis=0) - margin, frac.max(axis=0) + margin
    ghost_frac = frac[None] + translations[:, None]
    near = ((ghost_frac >= low) & (ghost_frac <= high)).all(axis=2)
    translation, ghost_atom = np.nonzero(near)
    tree = KDTree(frac @ cell.lattice)
    ghosts = KDTree(ghost_frac[near] @ cell.lattice)
    # A hair more than the radius, so that rounding cannot lose the atom itself or one of two equal distances.
    pairs = tree.sparse_distance_matrix(ghosts, radius + 1e-6, output_type="ndarray")
    query, ghost = pairs["i"].astype(np.int64), pairs["j"].astype(np.int64)
    key = ghost_atom[ghost]
    return query, key, translations[translation[ghost]] + shift[query] - shift[key]


def _edge_vectors(cell: _Cell, query: np.ndarray, key: np.ndarray, image: np.ndarray) -> np.ndarray:
    # ±n images of one atom come out exactly opposite: their difference of positions is exactly 0.
    return cell.positions[key] - cell.positions[query] + translations(image, cell.lattice)


def translations(image: Int[np.ndarray, "n_edges 3"], lattice: np.ndarray) -> Float[np.ndarray, "n_edges 3"]:
    """image @ lattice, for one lattice or one per image, summed term by term as the kernels do (same rounding)."""
    a, b, c = (image[:, axis, None] * lattice[..., axis, :] for axis in range(3))
    return a + b + c


def _is_sparse(
    query: np.ndarray, vectors: np.ndarray, n_atoms: int, min_neighbors: int
) -> Bool[np.ndarray, " n_atoms"]:
    """Atoms with too few neighbours, or whose neighbours all lie in one plane."""
    directions, is_other = _directions(vectors)
    spread = np.zeros((n_atoms, 3, 3))
    for row, column in itertools.product(range(3), repeat=2):
        products = directions[:, row] * directions[:, column]
        spread[:, row, column] = np.bincount(query, products, minlength=n_atoms)
    count = np.bincount(query, is_other, minlength=n_atoms)
    return (count < min_neighbors) | (np.linalg.eigvalsh(spread)[:, 0] < MIN_SPREAD)


def _smallest_sufficient(
    query: np.ndarray, vectors: np.ndarray, served: Bool[np.ndarray, " n_atoms"], min_neighbors: int
) -> Bool[np.ndarray, " n_edges"]:
    """Mask of the edges of `served` atoms up to the shortest length at which each is no longer sparse."""
    lengths = np.linalg.norm(vectors, axis=1)
    order = np.lexsort((lengths, query))
    first = np.searchsorted(query[order], np.arange(len(served) + 1))
    chosen = np.zeros(len(query), dtype=bool)
    for atom in np.flatnonzero(served):
        mine = order[first[atom] : first[atom + 1]]
        directions, is_other = _directions(vectors[mine])
        spread = np.cumsum(directions[:, :, None] * directions[:, None, :], axis=0)
        enough = (np.cumsum(is_other) >= min_neighbors) & (np.linalg.eigvalsh(spread)[:, 0] >= MIN_SPREAD)
        # Whole shells only: equal distances are taken together, whatever the rounding.
        reach = lengths[mine[np.argmax(enough)]] + SHELL
        chosen[mine[lengths[mine] <= reach]] = True
    return chosen


def _directions(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (0 for the edge of an atom to itself), and which edges lead to another position."""
    lengths = np.linalg.norm(vectors, axis=1)
    is_other = lengths > SMALLEST_DISTANCE
    return np.divide(vectors, lengths[:, None], out=np.zeros_like(vectors), where=is_other[:, None]), is_other


def _batch_edges_in_numpy(
    table: NeighborTable, crystals: FlatCrystals, first_edge: np.ndarray, rows: np.ndarray, dtype: type[np.floating]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As the kernel `batch_edges`."""
    n_atoms, n_edges = crystals.n_atoms[rows], first_edge[rows + 1] - first_edge[rows]
    atoms = ranges(crystals.offsets[rows], n_atoms)
    edges = ranges(first_edge[rows], n_edges)
    query = np.repeat(np.arange(len(atoms)), table.edges_per_atom[atoms])
    key = table.key_atom[edges] + np.repeat(np.cumsum(n_atoms) - n_atoms, n_edges)
    image, positions = table.edge_image[edges].astype(np.int32), crystals.positions[atoms]
    lattice = np.repeat(crystals.lattice[rows], n_edges, axis=0)
    vectors = positions[key] - positions[query] + translations(image, lattice)
    return np.stack([query, key]), image, vectors.astype(dtype)


def ranges(starts: Int64[np.ndarray, " n"], sizes: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n_numbers"]:
    """The numbers of several ranges, one range after another."""
    return np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
