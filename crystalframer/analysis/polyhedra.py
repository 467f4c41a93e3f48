"""Ideal coordination polyhedra, and how far a shell of neighbours is from each of them.

Symbols and shapes are those of ChemEnv: `T:4` tetrahedron, `O:6` octahedron, ... (Waroquiers et al., Chem. Mater. 29,
8346 (2017), doi:10.1021/acs.chemmater.7b02766; Acta Cryst. B 76, 683 (2020), doi:10.1107/S2052520620007994). The
coordinates are made here by formula. Left out: coordination numbers 11 and 20, and the square cupola `SC:12`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from math import pi, sin, sqrt
from types import MappingProxyType

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
               [ 0.,  1.,  0.],
               [-1.,  0.,  0.],
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

Corners = Float[np.ndarray, "_ 3"]
Direction = tuple[int, int, int]


@cache
def ideal_polyhedra(n_corners: int) -> Mapping[str, IdealPolyhedron]:
    """Symbol → ideal polyhedron, for all ideals with this many corners.

    Example:
        >>> [f"{symbol} {shape.name}" for symbol, shape in ideal_polyhedra(4).items()]
        ['T:4 tetrahedron', 'S:4 square plane', 'SY:4 square pyramid without its apex', 'SS:4 see-saw']
    """
    shapes = [IdealPolyhedron(symbol, name, corners) for symbol, name, corners in _shapes(n_corners)]
    return MappingProxyType({shape.symbol: shape for shape in shapes})


def _ring(n: int, height: float = 0.0, turn: float = 0.0, radius: float = 1.0) -> Corners:
    """A regular n-gon around z, its first corner `turn` degrees from x."""
    angles = 2 * pi * np.arange(n) / n + np.deg2rad(turn)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles), np.full(n, height)], axis=1)


def _prism(n: int) -> Corners:
    """All edges equal, circumradius of the ends 1."""
    return np.vstack([_ring(n, sin(pi / n)), _ring(n, -sin(pi / n))])


def _antiprism(n: int) -> Corners:
    """All edges equal, circumradius of the ends 1; the corners of the upper end come first, from x on."""
    height = sqrt(sin(pi / n) ** 2 - sin(pi / (2 * n)) ** 2)
    return np.vstack([_ring(n, height), _ring(n, -height, 180 / n)])


def _on_sphere(corners: Corners) -> Corners:
    return corners / np.linalg.norm(corners, axis=1, keepdims=True)


def _with(corners: Corners, *caps: Corners | Direction) -> Corners:
    """The corners on the unit sphere, and caps in these directions at distance 1."""
    return _on_sphere(np.vstack([corners, *caps]))


def _icosahedron() -> Corners:
    golden = (1 + sqrt(5)) / 2
    rectangle = np.array([[0, y, z] for y in (1.0, -1.0) for z in (golden, -golden)])
    return _on_sphere(np.vstack([np.roll(rectangle, shift, axis=1) for shift in range(3)]))


def _without(corners: Corners, *directions: Direction) -> Corners:
    """The corners but those in these directions."""
    removed = [int((corners @ np.array(direction)).argmax()) for direction in directions]
    return np.delete(corners, removed, axis=0)


def _triangular_dodecahedron(on_sphere: bool) -> Corners:
    """The snub disphenoid: eight corners, all 18 edges equal (to 1).

    With q the positive root of 2q³ + 11q² + 4q − 1 = 0, r = √q and s = √((1 − q)/2q), corners lie at (±1, 0, s)/2,
    (±2rs, 0, −r)/2 and at these turned by 90° and reflected. `on_sphere` moves the inner four out, within their
    height, to the distance of the others.
    """
    q = max(root.real for root in np.roots([2, 11, 4, -1]))
    r, s = sqrt(q), sqrt((1 - q) / (2 * q))
    wide = sqrt(1 + s * s - r * r) if on_sphere else 2 * r * s
    half = np.array([[x, 0.0, z] for x, z in ((1.0, -s), (-1.0, -s), (wide, r), (-wide, r))]) / 2
    return np.vstack([half, np.stack([half[:, 1], half[:, 0], -half[:, 2]], axis=1)])


def _shapes(n: int) -> list[tuple[str, str, Corners]]:
    """(symbol, name, corners) of every ideal with n corners."""
    up, down = (0, 0, 1), (0, 0, -1)
    poles = np.array([up, down], dtype=np.float64)
    cube = np.array(list(itertools.product((1.0, -1.0), repeat=3))) / sqrt(3)
    tetrahedron = cube[cube.prod(axis=1) > 0]
    octahedron = np.vstack([np.eye(3), -np.eye(3)])
    prism, antiprism = _on_sphere(_prism(3)), _on_sphere(_antiprism(4))
    side = _ring(3, turn=60.0)  # above the square faces of the prism
    # Near three corners of an icosahedron of which no two share an edge.
    apart = [(0, -5, 8), (8, 0, -5), (-5, 8, 0)]
    match n:
        case 1:
            return [("S:1", "single neighbour", poles[:1])]
        case 2:
            return [("L:2", "line", poles), ("A:2", "bent", _ring(3)[:2])]
        case 3:
            return [
                ("TL:3", "trigonal plane", _ring(3)),
                ("TY:3", "trigonal pyramid without its apex", tetrahedron[:3]),
                ("TS:3", "T-shape", np.vstack([poles, [1, 0, 0]])),
            ]
        case 4:
            return [
                ("T:4", "tetrahedron", tetrahedron),
                ("S:4", "square plane", _ring(4)),
                ("SY:4", "square pyramid without its apex", _ring(4, 1 / sqrt(7), radius=sqrt(6 / 7))),
                ("SS:4", "see-saw", np.vstack([poles, _ring(3)[:2]])),
            ]
        case 5:
            return [
                ("PP:5", "pentagonal plane", _ring(5)),
                ("S:5", "square pyramid", _with(_ring(4), up)),
                ("T:5", "trigonal bipyramid", _with(_ring(3), poles)),
            ]
        case 6:
            return [
                ("O:6", "octahedron", octahedron),
                ("T:6", "trigonal prism", prism),
                ("PP:6", "pentagonal pyramid", _with(_ring(5), up)),
            ]
        case 7:
            return [
                ("PB:7", "pentagonal bipyramid", _with(_ring(5), poles)),
                ("ST:7", "square-face capped trigonal prism", _with(prism, side[:1])),
                ("ET:7", "triangular-face capped trigonal prism", _with(prism, up)),
                ("FO:7", "face-capped octahedron", _with(octahedron, (1, 1, 1))),
            ]
        case 8:
            return [
                ("C:8", "cube", cube),
                ("SA:8", "square antiprism", antiprism),
                ("SBT:8", "square-face bicapped trigonal prism", _with(prism, side[:2])),
                ("TBT:8", "triangular-face bicapped trigonal prism", _with(prism, poles)),
                ("DD:8", "triangular dodecahedron", _triangular_dodecahedron(on_sphere=False)),
                ("DDPN:8", "triangular dodecahedron on a sphere", _triangular_dodecahedron(on_sphere=True)),
                ("HB:8", "hexagonal bipyramid", _with(_ring(6), poles)),
                ("BO_1:8", "bicapped octahedron, caps opposite", _with(octahedron, (1, 1, 1), (-1, -1, -1))),
                ("BO_2:8", "bicapped octahedron, caps share a corner", _with(octahedron, (1, 1, 1), (1, -1, -1))),
                ("BO_3:8", "bicapped octahedron, caps share an edge", _with(octahedron, (1, 1, 1), (1, 1, -1))),
            ]
        case 9:
            cupola = np.vstack([_ring(6), _ring(3, sqrt(2 / 3), 30.0, 1 / sqrt(3))])
            edge_caps = [(1, 1, 1), (1, -1, -1), (-1, 1, -1)]
            return [
                ("TC:9", "triangular cupola", cupola),
                ("TT_1:9", "tricapped trigonal prism", _with(prism, side)),
                ("TT_2:9", "trigonal prism, two square caps and a triangular one", _with(prism, side[:2], up)),
                ("TT_3:9", "trigonal prism, one square cap and two triangular ones", _with(prism, side[:1], poles)),
                ("HD:9", "heptagonal bipyramid", _with(_ring(7), poles)),
                ("TI:9", "tridiminished icosahedron", _without(_icosahedron(), *apart)),
                ("SMA:9", "capped square antiprism", _with(antiprism, down)),
                ("SS:9", "capped cube", _with(cube, up)),
                (
                    "TO_1:9",
                    "tricapped octahedron, caps share a corner",
                    _with(octahedron, (1, 1, 1), (1, -1, 1), (1, -1, -1)),
                ),
                (
                    "TO_2:9",
                    "tricapped octahedron, caps in a row",
                    _with(octahedron, (1, 1, 1), (1, -1, 1), (-1, -1, -1)),
                ),
                ("TO_3:9", "tricapped octahedron, caps around a face", _with(octahedron, *edge_caps)),
            ]
        case 10:
            face = antiprism[[0, 4, 7]].sum(axis=0)
            slopes = np.stack([face, face * [-1, -1, 1]])
            return [
                ("PP:10", "pentagonal prism", _prism(5)),
                # Lower than with equal edges (0.5), as in ChemEnv: half the height that belongs to edges of 1.
                ("PA:10", "pentagonal antiprism", _antiprism(5) * [1, 1, 1 / (2 * sin(pi / 5))]),
                ("SBSA:10", "square-face bicapped square antiprism", _with(antiprism, poles)),
                ("MI:10", "metabidiminished icosahedron", _without(_icosahedron(), *apart[:2])),
                ("BS_1:10", "bicapped cube, caps opposite", _with(cube, poles)),
                ("BS_2:10", "bicapped cube, caps adjacent", _with(cube, (1, 0, 0), (0, 1, 0))),
                ("TBSA:10", "triangular-face bicapped square antiprism", _with(antiprism, slopes)),
            ]
        case 12:
            even = np.array([p for p in itertools.product((1, -1), repeat=3) if np.prod(p) > 0])
            truncated = np.vstack([even * np.roll([3, 1, 1], shift) for shift in range(3)])
            hexagon, triangle = _ring(6), {"turn": 30.0, "radius": 1 / sqrt(3)}
            middles = np.array([p for p in itertools.product((1.0, 0.0, -1.0), repeat=3) if np.abs(p).sum() == 2])
            return [
                ("I:12", "icosahedron", _icosahedron()),
                ("PBP:12", "bicapped pentagonal prism", np.vstack([_prism(5), poles])),
                ("TT:12", "truncated tetrahedron", truncated.astype(np.float64)),
                ("C:12", "cuboctahedron", middles),
                (
                    "AC:12",
                    "anticuboctahedron",
                    np.vstack([hexagon, _ring(3, sqrt(2 / 3), **triangle), _ring(3, -sqrt(2 / 3), **triangle)]),
                ),
                ("HP:12", "hexagonal prism", _prism(6)),
                ("HA:12", "hexagonal antiprism", _antiprism(6)),
            ]
        case 13:
            cap = _ring(1, turn=30.0, radius=sqrt(5) / 2)
            return [("SH:13", "capped hexagonal prism", np.vstack([_prism(6), cap]))]
    return []
