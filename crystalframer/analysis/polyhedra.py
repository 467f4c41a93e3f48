"""Ideal coordination polyhedra, and how far a shell of neighbours is from each of them.

Symbols and shapes are those of ChemEnv: `T:4` tetrahedron, `O:6` octahedron, ... (Waroquiers et al., Chem. Mater. 29,
8346 (2017), doi:10.1021/acs.chemmater.7b02766; Acta Cryst. B 76, 683 (2020), doi:10.1107/S2052520620007994). Their
coordinates are those that pymatgen holds. Left out: coordination numbers 11 and 20, and the square cupola `SC:12`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from crystalframer.errors import PolyhedronError

LARGEST_EXACT = 8
"""Coordination number up to which every way to match the neighbours with the corners is tried."""
ROUNDING = 1e-12
"""Rounding error of a nuclear norm near 1."""
N_PAIRS = 3
"""Pairs of neighbours that the search for larger shells rotates onto pairs of corners."""
N_STARTS = 24
"""Rotations from which the search starts, for each shape: those that bring neighbours nearest to any corners."""
N_BEST = 6
"""Matches of each shape that the search improves."""


def symmetry_measures(vectors: Float[np.ndarray, "n_neighbors 3"]) -> dict[str, float]:
    """How far a shell is from each ideal polyhedron of as many corners: the continuous symmetry measure (CSM).

    The CSM is 100 times the least Σ|p_k - q_k|²/Σ|q_k|² over all rotations and reflections, scalings and ways to match
    neighbours p with corners q (Pinsky and Avnir, Inorg. Chem. 37, 5575 (1998), doi:10.1021/ic9804925). 0 is ideal, 100
    the most there can be; another shape of the same number of corners has 10 to 40.

    As ChemEnv does by default (its `csm_wcs_ctwcc`), the central atom is one of the points, matched with the centre of
    the polyhedron, and both sets are centred on their centroids, which count it: an atom off the centre of its
    octahedron raises the CSM. With both sets of unit norm, the best rotation and scale leave 100·(1 - N²), where N is
    the nuclear norm (sum of singular values) of Σ p_k q_kᵀ.

    Up to eight neighbours, every match counts. For more, matches are searched from rotations that turn pairs of
    neighbours onto pairs of corners, by linear assignment and rotation in turn: exact for the nearest polyhedron as far
    as tests can tell, while the CSM of one that is far from the shell may come out too high by a few.

    Args:
        vectors: from the central atom to its neighbours, in any unit.

    Returns:
        Symbol → CSM, nearest polyhedron first; empty where no ideal has as many corners (none, 11, or more than 13).

    Example:
        >>> import numpy as np
        >>> stretched = np.array([[0, 0, 2.3], [0, 0, -2.3], [2, 0, 0], [-2, 0, 0], [0, 2, 0], [0, -2, 0]])
        >>> {symbol: round(csm, 2) for symbol, csm in symmetry_measures(stretched).items()}
        {'O:6': 0.45, 'T:6': 17.1, 'PP:6': 30.01}
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    ideals = ideal_polyhedra(len(vectors))
    if not ideals:
        return {}
    if len(vectors) == 1:  # two points have no shape
        return dict.fromkeys(ideals, 0.0)
    points = _normalised(vectors)
    norms = _best_of_all(points, ideals) if len(vectors) <= LARGEST_EXACT else _best_found(points, ideals)
    measures = {
        ideal.symbol: max(0.0, 100.0 * (1.0 - norm**2)) for ideal, norm in zip(ideals.values(), norms, strict=True)
    }
    return dict(sorted(measures.items(), key=lambda item: item[1]))


def polyhedron_name(symbol: str) -> str:
    """The polyhedron in words; a shell that has no ideal (`?:11`) by its number of neighbours.

    Raises:
        PolyhedronError: no such symbol.

    Example:
        >>> polyhedron_name("O:6"), polyhedron_name("?:11")
        ('octahedron', '11 neighbours')
    """
    if symbol.startswith("?:"):
        return f"{symbol[2:]} neighbours"
    return _polyhedron(symbol).name


def ideal_vectors(symbol: str) -> Float[np.ndarray, "n_corners 3"]:
    """From the centre of an ideal polyhedron to its corners, the farthest at distance 1.

    Raises:
        PolyhedronError: no such symbol.

    Example:
        >>> ideal_vectors("S:4").round(3) + 0.0
        array([[ 1.,  0.,  0.],
               [-1.,  0.,  0.],
               [ 0.,  1.,  0.],
               [ 0., -1.,  0.]])
    """
    corners = _polyhedron(symbol).corners
    return corners / np.linalg.norm(corners, axis=1).max()


@dataclass(frozen=True, eq=False)
class _Half:
    """The corners of some neighbours, in every match."""

    corners: Int[np.ndarray, "n_ways n_neighbors"]
    way: Int[np.ndarray, " n_matches"]

    def sums(self, products: Float[np.ndarray, "n_neighbors 9 n_corners"]) -> Float[np.ndarray, "9 n_matches"]:
        """Sums of the products of each neighbour with its corner, for every match."""
        sums = np.zeros((9, len(self.corners)))
        for product, corner in zip(products, self.corners.T, strict=True):
            sums += product[:, corner]
        return sums.take(self.way, axis=1)


@dataclass(frozen=True, eq=False)
class IdealPolyhedron:
    """An ideal coordination polyhedron around the origin."""

    symbol: str
    name: str
    corners: Float[np.ndarray, "n_corners 3"]

    @cached_property
    def points(self) -> Float[np.ndarray, "n_points 3"]:
        """Centre and corners, centred and of unit norm."""
        return _normalised(self.corners)

    @cached_property
    def matches(self) -> Int[np.ndarray, "n_matches n_corners"]:
        """Corner of each neighbour; only the first of all matches that a symmetry makes equal."""
        n = len(self.corners)
        gram = self.corners @ self.corners.T
        orders = np.array(list(itertools.permutations(range(n))))
        is_symmetry = np.ones(len(orders), dtype=bool)
        for i, j in itertools.combinations_with_replacement(range(n), 2):
            is_symmetry &= np.isclose(gram[orders[:, i], orders[:, j]], gram[i, j], atol=1e-6)
        place = n ** np.arange(n)[::-1]
        rank = orders @ place
        is_first = np.ones(len(orders), dtype=bool)
        for symmetry in orders[is_symmetry]:
            is_first &= rank <= symmetry[orders] @ place
        return orders[is_first]

    @cached_property
    def halves(self) -> tuple[_Half, _Half]:
        """`matches` for the first neighbours and for the others: each half has far fewer ways."""
        middle = (len(self.corners) + 1) // 2
        halves = (np.unique(half, axis=0, return_inverse=True) for half in np.split(self.matches, [middle], axis=1))
        first, second = (_Half(corners, way.reshape(-1)) for corners, way in halves)
        return first, second

    @cached_property
    def starts(self) -> Float[np.ndarray, "n_starts 3 3"]:
        """Frames on pairs of corners, also left-handed ones; only the first of all that a symmetry makes equal."""
        frames = _pair_frames(self.corners, list(itertools.permutations(range(len(self.corners)), 2)))
        turns = np.swapaxes(frames[:1], 1, 2) @ frames
        distance = np.linalg.norm((self.corners @ turns)[:, :, None] - self.corners, axis=-1)
        symmetries = turns[(distance.min(axis=2) < 1e-6).all(axis=1)]
        kept: list[Float[np.ndarray, "3 3"]] = []
        images = np.empty((0, 3, 3))
        for frame in frames:
            if not len(images) or np.abs(images - frame).max(axis=(1, 2)).min() > 1e-6:
                kept.append(frame)
                images = np.concatenate([images, frame @ symmetries])
        return np.stack(kept)


def _polyhedron(symbol: str) -> IdealPolyhedron:
    known = {name: ideal for n in range(1, 14) for name, ideal in ideal_polyhedra(n).items()}
    if symbol not in known:
        raise PolyhedronError(f"no polyhedron {symbol!r}; there are {', '.join(known)}", field="symbol", value=symbol)
    return known[symbol]


# --- the measure ------------------------------------------------------------------------------------------------------


def _normalised(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n_points 3"]:
    """The centre and the ends of the vectors, around their centroid, of unit norm in all."""
    points = np.vstack([np.zeros(3), vectors])
    points -= points.mean(axis=0)
    return points / np.linalg.norm(points)


def _best_of_all(points: Float[np.ndarray, "n_points 3"], ideals: Mapping[str, IdealPolyhedron]) -> list[float]:
    """For each ideal the largest nuclear norm of Σ p_k q_kᵀ over all matches of neighbours and corners.

    The norm is at most √3 times the Frobenius norm, which is cheap and leaves few matches to look at: in a good one the
    singular values are nearly equal.
    """
    norms = []
    for ideal in ideals.values():
        products = np.einsum("kx,jy->kxyj", points[1:], ideal.points[1:]).reshape(len(points) - 1, 9, -1)
        first, second = ideal.halves
        middle = first.corners.shape[1]
        totals = np.outer(points[0], ideal.points[0]).reshape(9, 1) + first.sums(products[:middle])
        totals += second.sums(products[middle:])
        bounds = np.sqrt(3.0 * np.einsum("xm,xm->m", totals, totals))
        likely = totals[:, bounds.argmax()].reshape(3, 3)
        worth = bounds >= np.linalg.svd(likely, compute_uv=False).sum() - ROUNDING
        norms.append(float(np.linalg.svd(totals[:, worth].T.reshape(-1, 3, 3), compute_uv=False).sum(axis=1).max()))
    return norms


def _best_found(points: Float[np.ndarray, "n_points 3"], ideals: Mapping[str, IdealPolyhedron]) -> list[float]:
    """For each ideal the largest nuclear norm that assignment and rotation in turn come to from many starts."""
    neighbors = points[1:]
    bonds = neighbors - points[0]
    lengths = np.linalg.norm(bonds, axis=1)
    cosines = np.abs(bonds @ bonds.T) / np.outer(lengths, lengths)
    frames = _pair_frames(bonds, [(int(i), int(cosines[i].argmin())) for i in np.argsort(lengths)[:N_PAIRS]])
    frames = frames[::2]  # the corners' frames have both hands
    norms = []
    for ideal in ideals.values():
        corners = ideal.points[1:]
        rotations = (np.swapaxes(frames, 1, 2)[:, None] @ ideal.starts).reshape(-1, 3, 3)
        bounds = (neighbors @ rotations @ corners.T).max(axis=2).sum(axis=1)
        rotations = rotations[np.argsort(-bounds)[:N_STARTS]]
        best = 0.0
        while True:
            matches = _assign(neighbors, rotations, corners)
            totals = np.einsum("kx,mky->mxy", neighbors, corners[matches]) + np.outer(points[0], ideal.points[0])
            left, values, right = np.linalg.svd(totals)
            reached = values.sum(axis=1)
            if reached.max() <= best + ROUNDING:
                break
            best = float(reached.max())
            rotations = (left @ right)[np.argsort(-reached)[:N_BEST]]
        norms.append(best)
    return norms


def _assign(
    neighbors: Float[np.ndarray, "n 3"],
    rotations: Float[np.ndarray, "n_rotations 3 3"],
    corners: Float[np.ndarray, "n 3"],
) -> Int[np.ndarray, "n_matches n"]:
    """The corner of each neighbour that is best for each rotation; equal matches once."""
    from scipy.optimize import linear_sum_assignment

    gains = neighbors @ rotations @ corners.T
    return np.unique([linear_sum_assignment(gain, maximize=True)[1] for gain in gains], axis=0)


def _pair_frames(vectors: Float[np.ndarray, "n 3"], pairs: list[tuple[int, int]]) -> Float[np.ndarray, "n_frames 3 3"]:
    """A right-handed and a left-handed frame on each pair that is not on one line.

    Rows: along the first vector, in the plane of both, normal to it.
    """
    first, second = vectors[np.array(pairs)].swapaxes(0, 1)
    x = first / np.linalg.norm(first, axis=1, keepdims=True)
    y = second - np.einsum("nx,nx->n", second, x)[:, None] * x
    length = np.linalg.norm(y, axis=1)
    spans: Bool[np.ndarray, " n"] = length > 0.05 * np.linalg.norm(second, axis=1)
    x, y = x[spans], y[spans] / length[spans, None]
    z = np.cross(x, y)
    return np.stack([np.stack([x, y, z], axis=1), np.stack([x, y, -z], axis=1)], axis=1).reshape(-1, 3, 3)


# --- the shapes -------------------------------------------------------------------------------------------------------

NAMES = {
    "S:1": "single neighbour",
    "L:2": "line",
    "A:2": "bent",
    "TY:3": "trigonal pyramid without its apex",
    "TS:3": "T-shape",
    "SY:4": "square pyramid without its apex",
    "ET:7": "triangular-face capped trigonal prism",
    "DD:8": "triangular dodecahedron",
    "DDPN:8": "triangular dodecahedron on a sphere",
    "BO_1:8": "bicapped octahedron, caps opposite",
    "BO_2:8": "bicapped octahedron, caps share a corner",
    "BO_3:8": "bicapped octahedron, caps share an edge",
    "TT_1:9": "tricapped trigonal prism",
    "TT_2:9": "trigonal prism, two square caps and a triangular one",
    "TT_3:9": "trigonal prism, one square cap and two triangular ones",
    "HD:9": "heptagonal bipyramid",
    "SMA:9": "capped square antiprism",
    "SS:9": "capped cube",
    "TO_1:9": "tricapped octahedron, caps share a corner",
    "TO_2:9": "tricapped octahedron, caps in a row",
    "TO_3:9": "tricapped octahedron, caps around a face",
    "BS_1:10": "bicapped cube, caps opposite",
    "BS_2:10": "bicapped cube, caps adjacent",
    "TBSA:10": "triangular-face bicapped square antiprism",
    "PBP:12": "bicapped pentagonal prism",
    "SH:13": "capped hexagonal prism",
}
"""Shorter names than those of ChemEnv."""
LEFT_OUT = ("PCPA:11", "H:11", "DI:11", "SC:12", "DD:20")
"""Polyhedra of ChemEnv with which no shell is compared."""


@cache
def ideal_polyhedra(n_corners: int) -> Mapping[str, IdealPolyhedron]:
    """Symbol → ideal polyhedron, for all ideals with this many corners.

    Example:
        >>> [f"{symbol} {shape.name}" for symbol, shape in ideal_polyhedra(4).items()]
        ['T:4 tetrahedron', 'S:4 square plane', 'SY:4 square pyramid without its apex', 'SS:4 see-saw']
    """
    from pymatgen.analysis.chemenv.coordination_environments.coordination_geometries import AllCoordinationGeometries

    shapes: Any = AllCoordinationGeometries().get_implemented_geometries(n_corners)
    return MappingProxyType(
        {
            shape.mp_symbol: IdealPolyhedron(
                symbol=shape.mp_symbol,
                name=NAMES.get(shape.mp_symbol) or shape.name.lower(),
                corners=np.array(shape.points, dtype=np.float64).reshape(-1, 3),
            )
            for shape in shapes
            if shape.mp_symbol not in LEFT_OUT
        }
    )
