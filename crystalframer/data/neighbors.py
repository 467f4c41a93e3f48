"""Periodic neighbours: the key atoms j(n) around each query atom i, chosen by distance alone.

The result does not depend on the cell that describes the crystal (primitive, supercell, skewed) or on where in the cell
the atoms were written: images are chosen by distance, not from a box of cells as in the authors' code (quirk Q8, Q9).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from crystalframer.data.crystal import Crystal, CrystalError, cell_heights

MIN_NEIGHBORS = 12
"""An atom with fewer neighbours within the radius gets a larger one: frames need directions to choose from."""
MIN_SPREAD = 0.1
"""Smallest eigenvalue of Σ û ûᵀ over an atom's edge directions û below which they count as coplanar: less than one
neighbour 18 degrees out of the plane of all others."""
SMALLEST_DISTANCE = 0.1
"""Å; closer atoms are an error in the structure."""


@dataclass(frozen=True, eq=False)
class NeighborList:
    """Edges of one crystal, sorted by query atom, then length; each atom's edge to itself comes first."""

    edge_index: Int[np.ndarray, "2 n_edges"]
    edge_image: Int[np.ndarray, "n_edges 3"]
    edge_vectors: Float[np.ndarray, "n_edges 3"]
    """p_j(n) - p_i, Å, float64."""


def neighbor_list(crystal: Crystal, radius: float, min_neighbors: int = MIN_NEIGHBORS) -> NeighborList:
    """All images within `radius` Å of each atom, at least `min_neighbors` of them and never all in one plane.

    Atoms that find too few, or only coplanar ones, within `radius` (a molecule in a large box, a layer, a chain) get
    the smallest radius that holds enough. Cost is linear in atoms.

    Raises:
        CrystalError: two atoms, or an atom and its own image, are less than 0.1 Å apart.
    """
    query, key, image = _images_within(crystal, radius)
    vectors = _edge_vectors(crystal, query, key, image)
    sparse = _is_sparse(query, vectors, len(crystal), min_neighbors)
    reach = max(radius, float(cell_heights(crystal.lattice).max()))
    while sparse.any():
        wide = _images_within(crystal, reach)
        wide_vectors = _edge_vectors(crystal, *wide)
        still_sparse = _is_sparse(wide[0], wide_vectors, len(crystal), min_neighbors)
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
    _check_distances(crystal, query, key, image, lengths)
    order = np.lexsort((*image.T[::-1], key, lengths, query))
    return NeighborList(np.stack([query, key])[:, order], image[order], vectors[order])


def _images_within(crystal: Crystal, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(query, key, image) of all pairs within `radius`, the atom itself included."""
    from scipy.spatial import KDTree

    frac = crystal.frac_coords
    shift = np.floor(frac).astype(np.int64)
    frac = frac - shift
    # Every translation that can bring some atom of the cell within reach of the cell.
    margin = radius / cell_heights(crystal.lattice)
    ranges = [range(-n, n + 1) for n in np.ceil(margin).astype(int)]
    translations = np.array(list(itertools.product(*ranges)))
    low, high = frac.min(axis=0) - margin, frac.max(axis=0) + margin
    ghost_frac = frac[None] + translations[:, None]
    near = ((ghost_frac >= low) & (ghost_frac <= high)).all(axis=2)
    translation, ghost_atom = np.nonzero(near)
    tree = KDTree(frac @ crystal.lattice)
    ghosts = KDTree(ghost_frac[near] @ crystal.lattice)
    # A hair more than the radius, so that rounding cannot lose the atom itself or one of two equal distances.
    pairs = tree.sparse_distance_matrix(ghosts, radius + 1e-6, output_type="ndarray")
    query, ghost = pairs["i"].astype(np.int64), pairs["j"].astype(np.int64)
    key = ghost_atom[ghost]
    return query, key, translations[translation[ghost]] + shift[query] - shift[key]


def _edge_vectors(crystal: Crystal, query: np.ndarray, key: np.ndarray, image: np.ndarray) -> np.ndarray:
    # ±n images of one atom come out exactly opposite: their difference of positions is exactly 0.
    return crystal.positions[key] - crystal.positions[query] + image @ crystal.lattice


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
        reach = lengths[mine[np.argmax(enough)]] + 1e-3
        chosen[mine[lengths[mine] <= reach]] = True
    return chosen


def _directions(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (0 for an atom's edge to itself), and which edges go to another place."""
    lengths = np.linalg.norm(vectors, axis=1)
    is_other = lengths > SMALLEST_DISTANCE
    return np.divide(vectors, lengths[:, None], out=np.zeros_like(vectors), where=is_other[:, None]), is_other


def _check_distances(
    crystal: Crystal, query: np.ndarray, key: np.ndarray, image: np.ndarray, lengths: np.ndarray
) -> None:
    itself = (query == key) & (image == 0).all(axis=1)
    clash = np.flatnonzero((lengths < SMALLEST_DISTANCE) & ~itself)
    if clash.size:
        edge = clash[0]
        name = f"crystal {crystal.id!r}" if crystal.id else "crystal"
        i, j = sorted((int(query[edge]), int(key[edge])))
        raise CrystalError(
            f"{name}: sites {i} (Z = {crystal.atomic_numbers[i]}) and {j} (Z = {crystal.atomic_numbers[j]}) lie "
            f"{lengths[edge]:.3g} Å apart; remove the duplicate site"
        )
