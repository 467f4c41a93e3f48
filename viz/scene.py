"""One plain-data scene: the crystal, its frames and its attention, ready to draw.

Every picture of the package is a pure function of a `Scene`; a scene is a pure function of a `CrystalTrace`. No scene
needs a model, a browser or a plotting library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from crystalframer.analysis.motifs import Shell
from crystalframer.errors import CrystalFramerError
from crystalframer.traces import CrystalTrace, FrameTrace
from viz.palette import Element, element

BOND_STRETCH = 1.15
"""A bond is at most this times the sum of the covalent radii, and relative to it at most this times the shortest of
either end: room for Jahn-Teller octahedra, none for the second shell of bcc (1.155)."""
BOUNDARY_TOLERANCE = 0.02
"""Å; an atom this close to a face of the cell is drawn on the opposite face as well."""
TIE = 1e-3
"""Relative difference below which two attention weights count as equal."""
FRAME_TIE = 1e-4
"""A frame is tied where scores of anchors, or eigenvalues relative to the largest, differ by no more: another rule then
chose its axes. The model's own margin (`crystalframer.config.FrameConfig`)."""


class SceneError(CrystalFramerError, ValueError):
    """A scene has no such layer, head or atom; the message names the range.

    Example:
        >>> scene.check(layer=9, head=0)
        Traceback (most recent call last):
        viz.scene.SceneError: SrTiO3: no layer 9; choose from 0 to 2
    """


@dataclass(frozen=True, eq=False)
class Polyhedron:
    """The hull of the neighbours of an atom."""

    center: int
    """Atom in the middle."""
    key: Int[np.ndarray, " n_vertices"]
    """Atom at each vertex."""
    image: Int[np.ndarray, "n_vertices 3"]
    """Lattice translation of each vertex."""
    faces: Int[np.ndarray, "n_faces 3"]
    """Triangles of vertices, counter-clockwise seen from outside."""
    rims: Int[np.ndarray, "n_rims 2"]
    """Pairs of vertices that an edge of the polyhedron joins: where faces meet that do not lie in one plane."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A crystal with everything that can be drawn on it, as NumPy arrays.

    Atoms are moved into the home cell (0 ≤ fractional coordinate < 1); images count from there. Those of a region stay
    together where they are.

    Example:
        >>> scene.formula, scene.labels
        ('SrTiO3', ('Sr1', 'Ti1', 'O1', 'O2', 'O3'))
        >>> scene.frames.shape == (scene.n_layers, scene.n_heads, scene.n_atoms, 3, 3)
        True
    """

    id: str
    atomic_numbers: Int[np.ndarray, " n_atoms"]
    labels: tuple[str, ...]
    """One for each atom: `Ti1`, `O2`, element and running number in it; in a region `O#512`, element and site."""
    positions: Float[np.ndarray, "n_atoms 3"]
    """Cartesian, Å, inside the home cell."""
    lattice: Float[np.ndarray, "3 3"]
    """Rows a, b, c, Å."""
    drawn_site: Int[np.ndarray, " n_drawn"]
    """Atom of each drawn ball: the home atoms in order, then their images on the boundary of the cell; of a region its
    own atoms, then those bonded to them."""
    drawn_image: Int[np.ndarray, "n_drawn 3"]
    """Lattice translation of each drawn ball; 0 for home atoms."""
    bonds: Int[np.ndarray, "n_bonds 2"]
    """Pairs of drawn balls, first < second."""
    polyhedra: tuple[Polyhedron, ...]
    """Of every home atom that is a metal with four or more non-metals bonded to it, not all in one plane; or as
    `scene_with_shells` says."""
    edge_index: Int[np.ndarray, "2 n_edges"]
    """Row 0 the query atom, row 1 the key atom."""
    edge_image: Int[np.ndarray, "n_edges 3"]
    """Lattice translation of the key atom, counted from the home cell."""
    attention: Float[np.ndarray, "n_layers n_heads n_edges"]
    """Sums to 1 over all edges of one query atom."""
    decay_length: Float[np.ndarray, "n_layers n_heads n_queries"]
    """σᵢ, Å: how far the query atom looks."""
    frames: Float[np.ndarray, "n_layers n_heads n_queries 3 3"] | None
    """Row k is the unit axis e_k, Cartesian; None for the frame method `none`."""
    tied: Bool[np.ndarray, "n_layers n_heads n_queries"]
    """Frames whose axes were chosen among equals."""
    method: str
    """Frame method."""
    prediction: dict[str, float]
    """Target name → value in its unit."""
    units: dict[str, str]
    """Target name → unit. Lengths are in Å throughout."""
    is_region: bool = False
    """Whether this is a piece of a crystal: a few atoms that attend, the first ones, and what they see."""

    @property
    def n_atoms(self) -> int:
        return len(self.atomic_numbers)

    @property
    def n_queries(self) -> int:
        """Atoms that can be asked what they attend to: all, or the first ones in a region."""
        return self.decay_length.shape[2]

    @property
    def n_layers(self) -> int:
        return len(self.attention)

    @property
    def n_heads(self) -> int:
        return self.attention.shape[1]

    @property
    def elements(self) -> tuple[Element, ...]:
        """One for each atom."""
        return tuple(element(int(z)) for z in self.atomic_numbers)

    @property
    def formula(self) -> str:
        """Atoms of the cell, or of the region, metals before non-metals: `Ti2O4`."""
        counts = Counter(sorted(self.elements[: self.n_queries], key=lambda item: item.is_nonmetal))
        return "".join(item.symbol + (str(n) if n > 1 else "") for item, n in counts.items())

    @property
    def drawn_positions(self) -> Float[np.ndarray, "n_drawn 3"]:
        """Cartesian, Å."""
        return self.places(self.drawn_site, self.drawn_image)

    @property
    def cell_edges(self) -> Float[np.ndarray, "n_cell_edges 2 3"]:
        """Both ends of the twelve edges of the cell, Å; none in a region, which is a small piece of its cell."""
        if self.is_region:
            return np.empty((0, 2, 3))
        starts = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]])
        ends = starts + np.array([1, 0, 0])
        along_a = np.stack([starts, ends], axis=1)
        corners = np.concatenate([np.roll(along_a, shift, axis=2) for shift in range(3)])
        return corners @ self.lattice

    @property
    def edge_vectors(self) -> Float[np.ndarray, "n_edges 3"]:
        """p_j(n) - p_i, Å."""
        query, key = self.edge_index
        return self.positions[key] - self.positions[query] + self.edge_image @ self.lattice

    @property
    def edge_lengths(self) -> Float[np.ndarray, " n_edges"]:
        """Å."""
        return np.linalg.norm(self.edge_vectors, axis=1)

    def places(
        self, atoms: Int[np.ndarray, " n_places"], images: Int[np.ndarray, "n_places 3"]
    ) -> Float[np.ndarray, "n_places 3"]:
        """Cartesian, Å, of atoms in other cells."""
        return self.positions[atoms] + images @ self.lattice

    def weights(self, layer: int, head: int | None) -> Float[np.ndarray, " n_edges"]:
        """Attention of one head, or the mean over heads (`head=None`).

        Raises:
            SceneError: no such layer or head.
        """
        self.check(layer, head)
        return self.attention[layer].mean(axis=0) if head is None else self.attention[layer, head]

    def check(self, layer: int, head: int | None, atom: int | None = None) -> None:
        """Raise SceneError unless the layer, head and atom exist (counted from 0; None always does)."""
        for name, value, size in (
            ("layer", layer, self.n_layers),
            ("head", head, self.n_heads),
            ("atom", atom, self.n_queries),
        ):
            if value is not None and not 0 <= value < size:
                raise SceneError(f"{self.id or self.formula}: no {name} {value}; choose from 0 to {size - 1}")


def scene_from_trace(trace: CrystalTrace) -> Scene:
    """Lay out a trace for drawing: atoms in the home cell, images on its boundary, bonds, labels.

    Bonds come from covalent radii over the trace's own edges, which hold every image within the model's radius.

    Example:
        >>> scene_from_trace(trace).formula  # trace: of crystalframer.trace("SrTiO3.cif"), or CrystalTrace.load(path)
        'SrTiO3'

    Raises:
        TypeError: what is given is no trace.
    """
    if not isinstance(trace, CrystalTrace):
        raise TypeError(
            f"a trace is drawn, not a {type(trace).__name__}: give what crystalframer.trace says of a structure or file"
        )
    lattice = np.asarray(trace.lattice, dtype=float)
    positions, query, key = np.asarray(trace.positions, dtype=float), *trace.edge_index
    shift = np.zeros((len(positions), 3), np.int64)
    if trace.sites is None:
        shift = _shift_into_cell(positions, lattice)
    positions = positions + shift @ lattice
    edge_image = trace.edge_image + shift[query] - shift[key]
    elements = [element(int(z)) for z in trace.atomic_numbers]
    bonded = _bonded_edges(elements, trace.edge_index, trace.edge_lengths)
    if trace.sites is None:
        site, image = _drawn_atoms(positions, lattice)
    else:
        site, image = _drawn_region(trace.n_queries, key[bonded], edge_image[bonded])
    frames = [layer.frame for layer in trace.layers]
    has_frames = all(frame is not None for frame in frames)
    return Scene(
        id=trace.id,
        atomic_numbers=np.asarray(trace.atomic_numbers),
        labels=atom_labels(elements, trace.sites),
        positions=positions,
        lattice=lattice,
        drawn_site=site,
        drawn_image=image,
        bonds=_drawn_bonds(site, image, trace.edge_index[:, bonded], edge_image[bonded]),
        polyhedra=_polyhedra(elements, positions, lattice, trace.edge_index[:, bonded], edge_image[bonded]),
        edge_index=trace.edge_index,
        edge_image=edge_image,
        attention=np.stack([layer.attention.T for layer in trace.layers]),
        decay_length=np.stack([layer.decay_length.T for layer in trace.layers]),
        frames=np.stack([frame.axes.swapaxes(0, 1) for frame in frames if frame]) if has_frames else None,
        tied=np.stack([_tied(frame, trace.n_queries, trace.n_heads) for frame in frames]),
        method=frames[0].method if frames[0] else "none",
        prediction=dict(trace.prediction),
        units=dict(trace.units),
        is_region=trace.sites is not None,
    )


def scene_with_shells(scene: Scene, shells: Iterable[Shell]) -> Scene:
    """The scene with the coordination shells of an analysis as its polyhedra, anions' among them.

    Its own polyhedra are of metals and come from covalent radii; these are the ones that motifs are named by. Shells of
    fewer than four neighbours, or with all in one plane, have none.

    Args:
        shells: of `crystalframer.analysis.coordination_shells`, of the trace that the scene was made from.

    Example:
        >>> from crystalframer.analysis import coordination_shells
        >>> shells = coordination_shells(trace)
        >>> [len(solid.key) for solid in scene_with_shells(scene, shells).polyhedra]  # around Sr and Ti
        [12, 6]
    """
    polyhedra = []
    for shell in shells:
        points = scene.positions[shell.site] + shell.vectors
        image = np.rint((points - scene.positions[shell.key]) @ np.linalg.inv(scene.lattice)).astype(np.int64)
        if len(shell) >= 4 and (hull := _hull(points)):
            polyhedra.append(Polyhedron(shell.site, shell.key, image, *hull))
    return replace(scene, polyhedra=tuple(polyhedra))


@dataclass(frozen=True, eq=False)
class AttentionLines:
    """The strongest edges of one atom, strongest first. The atom's edge to itself is not among them."""

    edges: Int[np.ndarray, " n_lines"]
    """Positions in `Scene.edge_index`."""
    key: Int[np.ndarray, " n_lines"]
    image: Int[np.ndarray, "n_lines 3"]
    weight: Float[np.ndarray, " n_lines"]
    start: Float[np.ndarray, "3"]
    """Where all lines start, Å."""
    ends: Float[np.ndarray, "n_lines 3"]
    """The key atoms in their own cells, Å."""
    itself: float
    """Attention that the atom pays to itself."""


def strongest_edges(scene: Scene, layer: int, head: int | None, atom: int, n_lines: int = 12) -> AttentionLines:
    """The `n_lines` edges of `atom` with the largest attention, and all that tie with the last of them.

    Ties are kept together so that a symmetric shell is never drawn in part.

    Example:
        >>> lines = strongest_edges(scene, layer=0, head=2, atom=1, n_lines=6)
        >>> len(lines.edges), bool(lines.weight[0] >= lines.weight[-1])
        (6, True)
    """
    scene.check(layer, head, atom)
    weights = scene.weights(layer, head)
    query, key = scene.edge_index
    mine = np.flatnonzero(query == atom)
    is_itself = (key[mine] == atom) & (scene.edge_image[mine] == 0).all(axis=1)
    others = mine[~is_itself]
    others = others[np.argsort(-weights[others], kind="stable")]
    if n_lines < len(others):
        weakest = weights[others[n_lines - 1]] if n_lines else np.inf
        others = others[weights[others] >= weakest * (1 - TIE)]
    return AttentionLines(
        edges=others,
        key=key[others],
        image=scene.edge_image[others],
        weight=weights[others],
        start=scene.positions[atom],
        ends=scene.places(key[others], scene.edge_image[others]),
        itself=float(weights[mine[is_itself]].sum()),
    )


def attention_matrix(scene: Scene, layer: int, head: int | None) -> Float[np.ndarray, "n_queries n_queries"]:
    """Attention from each query atom (row) to each key atom (column), summed over all images.

    Rows sum to 1; in a region to less, for what goes to the atoms around it has no column.

    Example:
        >>> attention_matrix(scene, layer=0, head=2).sum(axis=1).round(6).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    n, (query, key) = scene.n_queries, scene.edge_index
    inside = key < n
    flat = np.bincount((query * n + key)[inside], scene.weights(layer, head)[inside], minlength=n**2)
    return flat.reshape(n, n)


@dataclass(frozen=True, eq=False)
class DistanceProfile:
    """Attention against distance, shell by shell."""

    distance: Float[np.ndarray, " n_shells"]
    """Mean length of the shell's edges, Å, ascending; the atom itself is at 0."""
    attention: Float[np.ndarray, " n_shells"]
    """Attention that the shell gets in total; sums to 1."""
    n_neighbors: Float[np.ndarray, " n_shells"]
    """Edges in the shell (their mean over the atoms, where several are averaged)."""

    @property
    def cumulative(self) -> Float[np.ndarray, " n_shells"]:
        """Attention within each distance."""
        return np.cumsum(self.attention)


def attention_by_distance(
    scene: Scene, layer: int, head: int | None, atom: int | None = None, shell_width: float = 0.05
) -> DistanceProfile:
    """How attention falls off with distance for one atom, or on average over all (`atom=None`).

    Lengths less than `shell_width` Å apart, one after the other, belong to one shell.

    Example:
        >>> profile = attention_by_distance(scene, layer=0, head=2, atom=1)
        >>> [f"{n:.0f} at {r:.2f} Å" for r, n in zip(profile.distance, profile.n_neighbors)][:3]
        ['1 at 0.00 Å', '6 at 1.95 Å', '8 at 3.38 Å']
    """
    scene.check(layer, head, atom)
    chosen = np.arange(scene.edge_index.shape[1]) if atom is None else np.flatnonzero(scene.edge_index[0] == atom)
    lengths, weights = scene.edge_lengths[chosen], scene.weights(layer, head)[chosen]
    order = np.argsort(lengths, kind="stable")
    lengths, weights = lengths[order], weights[order]
    shell = np.concatenate([[0], np.cumsum(np.diff(lengths) > shell_width)])
    count = np.bincount(shell)
    n_queries = scene.n_queries if atom is None else 1
    return DistanceProfile(
        np.bincount(shell, lengths) / count, np.bincount(shell, weights) / n_queries, count / n_queries
    )


def atom_labels(elements: list[Element], sites: Int[np.ndarray, " n_atoms"] | None = None) -> tuple[str, ...]:
    """One for each atom: `Ti1`, `O2`, element and running number in it; or `O#512`, element and site."""
    if sites is not None:
        return tuple(f"{item.symbol}#{site}" for item, site in zip(elements, sites.tolist(), strict=True))
    seen: Counter[str] = Counter()
    labels = []
    for item in elements:
        seen[item.symbol] += 1
        labels.append(f"{item.symbol}{seen[item.symbol]}")
    return tuple(labels)


def _face_tolerance(lattice: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """`BOUNDARY_TOLERANCE` in fractional coordinates."""
    return BOUNDARY_TOLERANCE * np.linalg.norm(np.linalg.inv(lattice), axis=0)


def _shift_into_cell(
    positions: Float[np.ndarray, "n_atoms 3"], lattice: Float[np.ndarray, "3 3"]
) -> Int[np.ndarray, "n_atoms 3"]:
    """Lattice translations that bring every atom into the cell; one on the far face goes to the near one."""
    frac = positions @ np.linalg.inv(lattice)
    return -np.floor(frac + _face_tolerance(lattice)).astype(np.int64)


def _drawn_atoms(
    positions: Float[np.ndarray, "n_atoms 3"], lattice: Float[np.ndarray, "3 3"]
) -> tuple[Int[np.ndarray, " n_drawn"], Int[np.ndarray, "n_drawn 3"]]:
    """(site, image) of the home atoms, then of their copies on the far faces of the cell."""
    on_face = positions @ np.linalg.inv(lattice) < _face_tolerance(lattice)
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    # A copy at corner (1, 1, 0) needs the atom to lie on the near a face and the near b face.
    allowed = (on_face[:, None, :] | (corners[None] == 0)).all(axis=2)
    site, corner = np.nonzero(allowed)
    order = np.argsort(corner > 0, kind="stable")
    return site[order], corners[corner[order]]


def _drawn_region(
    n_queries: int, bonded: Int[np.ndarray, " n_bonded"], image: Int[np.ndarray, "n_bonded 3"]
) -> tuple[Int[np.ndarray, " n_drawn"], Int[np.ndarray, "n_drawn 3"]]:
    """(site, image) of the atoms of a region, then of the others that are bonded to them."""
    others = np.unique(np.column_stack([bonded, image]), axis=0)
    others = others[(others[:, 0] >= n_queries) | others[:, 1:].any(axis=1)]
    own = np.column_stack([np.arange(n_queries), np.zeros((n_queries, 3), np.int64)])
    drawn = np.concatenate([own, others])
    return drawn[:, 0], drawn[:, 1:]


def _bonded_edges(
    elements: list[Element], edge_index: Int[np.ndarray, "2 n_edges"], lengths: Float[np.ndarray, " n_edges"]
) -> Int[np.ndarray, " n_bonded"]:
    """Edges that are bonds by covalent radii. Metals in a compound with non-metals bond to those, not to each other."""
    radii = np.array([item.covalent_radius for item in elements])
    metal = np.array([not item.is_nonmetal for item in elements])
    query, key = edge_index
    relative = lengths / (radii[query] + radii[key])
    candidate = (lengths > 0) & (relative <= BOND_STRETCH)
    if not metal.all():
        candidate &= ~(metal[query] & metal[key])
    shortest = np.full(len(elements), np.inf)
    np.minimum.at(shortest, query[candidate], relative[candidate])
    limit = BOND_STRETCH * np.minimum(shortest[query], shortest[key])
    return np.flatnonzero(candidate & (relative <= limit))


def _drawn_bonds(
    site: Int[np.ndarray, " n_drawn"],
    image: Int[np.ndarray, "n_drawn 3"],
    edge_index: Int[np.ndarray, "2 n_bonded"],
    edge_image: Int[np.ndarray, "n_bonded 3"],
) -> Int[np.ndarray, "n_bonds 2"]:
    """Pairs of drawn balls that a bond joins."""
    ball = {(int(s), *map(int, n)): index for index, (s, n) in enumerate(zip(site, image, strict=True))}
    bonds_of: dict[int, list[tuple[int, Int[np.ndarray, "3"]]]] = {}
    for query, key, translation in zip(*edge_index, edge_image, strict=True):
        bonds_of.setdefault(int(query), []).append((int(key), translation))
    pairs = set()
    for (atom, *translation), first in ball.items():
        for key, step in bonds_of.get(atom, ()):
            second = ball.get((key, *map(int, translation + step)))
            if second is not None and first < second:
                pairs.add((first, second))
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def _polyhedra(
    elements: list[Element],
    positions: Float[np.ndarray, "n_atoms 3"],
    lattice: Float[np.ndarray, "3 3"],
    edge_index: Int[np.ndarray, "2 n_bonded"],
    edge_image: Int[np.ndarray, "n_bonded 3"],
) -> tuple[Polyhedron, ...]:
    query, key = edge_index
    nonmetal = np.array([item.is_nonmetal for item in elements])
    found = []
    for center in np.flatnonzero(~nonmetal):
        mine = np.flatnonzero((query == center) & nonmetal[key])
        if len(mine) >= 4 and (hull := _hull(positions[key[mine]] + edge_image[mine] @ lattice)):
            found.append(Polyhedron(int(center), key[mine], edge_image[mine], *hull))
    return tuple(found)


def _hull(
    points: Float[np.ndarray, "n_points 3"],
) -> tuple[Int[np.ndarray, "n_faces 3"], Int[np.ndarray, "n_rims 2"]] | None:
    """Faces and rims of the convex hull, as in `Polyhedron`; None where the points lie in one plane."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = ConvexHull(points)
    except QhullError:
        return None
    normals = hull.equations[:, :3]
    corners = points[hull.simplices]
    turn = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = (turn * normals).sum(axis=1) < 0
    faces = np.where(inward[:, None], hull.simplices[:, ::-1], hull.simplices).astype(np.int64)
    # Neighbour k of a face lies opposite its corner k. Less than 3 degrees between two faces is one flat face.
    meets = {
        (min(pair), max(pair))
        for face, (simplex, neighbors) in enumerate(zip(hull.simplices, hull.neighbors, strict=True))
        for corner, neighbor in enumerate(neighbors)
        if normals[face] @ normals[neighbor] < np.cos(np.radians(3))
        for pair in [np.delete(simplex, corner).tolist()]
    }
    return faces, np.array(sorted(meets), dtype=np.int64)


def _tied(frame: FrameTrace | None, n_queries: int, n_heads: int) -> Bool[np.ndarray, "n_heads n_queries"]:
    if frame is not None and frame.tie_margin is not None:
        return np.any(frame.tie_margin <= FRAME_TIE, axis=2).T
    if frame is not None and frame.eigenvalues is not None:
        gaps = np.diff(frame.eigenvalues, axis=2)
        return np.any(gaps <= FRAME_TIE * frame.eigenvalues[..., 2:], axis=2).T
    return np.zeros((n_heads, n_queries), dtype=bool)
