"""The scene: a crystal with its frames and attention as plain arrays, ready to draw.

A scene is made from a `CrystalTrace`, and every picture is made from a scene. A scene needs no model, browser or
plotting library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from crystalframer.analysis.bonds import Bonds, find_bonds
from crystalframer.analysis.motifs import Shell
from crystalframer.elements import reduced_formula
from crystalframer.notes import PredictionNotes
from crystalframer.traces import CrystalTrace, FrameSets, FrameTrace
from viz.errors import NotATraceError, SceneError, check_index
from viz.palette import Element, element

VACUUM = 7.0
"""Å. A wider gap between atoms along a lattice direction is a vacuum."""
BOUNDARY_TOLERANCE = 0.02
"""Å. An atom this close to a face of the cell is also drawn on the opposite face."""
TIE = 1e-3
"""Attention weights with a smaller relative difference count as equal."""
FAINT = 1e-6
"""An edge with less attention has no line: where all attention stays on the atom, there would be hundreds."""
FRAME_TIE = 1e-4
"""A frame is tied if scores of its anchors (or eigenvalues, relative to the largest) differ by no more than this. Then
a tie rule chose the axes. Same value as in `crystalframer.config.FrameConfig`."""


@dataclass(frozen=True, eq=False)
class Hull:
    """The convex hull of the neighbours of an atom."""

    center: int
    """The atom in the middle."""
    key: Int[np.ndarray, " n_vertices"]
    """The atom at each vertex."""
    image: Int[np.ndarray, "n_vertices 3"]
    """Lattice translation of each vertex."""
    faces: Int[np.ndarray, "n_faces 3"]
    """Triangles of vertices, counter-clockwise as seen from outside."""
    rims: Int[np.ndarray, "n_rims 2"]
    """Pairs of vertices: the edges of the polyhedron, where two faces meet at an angle."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A crystal with everything that can be drawn on it, as NumPy arrays.

    Atoms are moved into the home cell (0 ≤ fractional coordinate < 1); lattice translations are counted from there.
    Molecules stay whole, with their middle in the cell, and a slab is not cut where it crosses a face. The atoms of a
    region are not moved.

    Example:
        >>> scene.formula, scene.labels
        ('SrTiO3', ('Sr1', 'Ti1', 'O1', 'O2', 'O3'))
        >>> scene.frames.shape == (scene.n_layers, scene.n_heads, scene.n_atoms, 3, 3)
        True
    """

    id: str
    atomic_numbers: Int[np.ndarray, " n_atoms"]
    labels: tuple[str, ...]
    """One for each atom: element and running number (`Ti1`, `O2`); in a region element and site (`O#512`)."""
    positions: Float[np.ndarray, "n_atoms 3"]
    """Cartesian, Å."""
    lattice: Float[np.ndarray, "3 3"]
    """Rows a, b, c, Å."""
    drawn_site: Int[np.ndarray, " n_drawn"]
    """Atom of each drawn ball: first the atoms of the home cell, then their images on its boundary, then the ligands of
    all centres in the cell. In a region: first its own atoms, then the atoms bonded to them."""
    drawn_image: Int[np.ndarray, "n_drawn 3"]
    """Lattice translation of each drawn ball; 0 for atoms of the home cell."""
    bonds: Int[np.ndarray, "n_bonds 2"]
    """Pairs of drawn balls, first < second."""
    bond_index: Int[np.ndarray, "2 n_all_bonds"]
    """All bonds that pictures draw, from both ends: row 0 the atom, ascending, row 1 the other one."""
    bond_image: Int[np.ndarray, "n_all_bonds 3"]
    """Lattice translation of the other atom of each, counted from the home cell."""
    polyhedra: tuple[Hull, ...]
    """One for each centre with four or more ligands that do not lie in one plane (see `crystalframer.analysis.bonds`),
    but for spacers; or the shells given to `scene_with_shells`."""
    edge_index: Int[np.ndarray, "2 n_edges"]
    """Row 0 the query atom, row 1 the key atom."""
    edge_image: Int[np.ndarray, "n_edges 3"]
    """Lattice translation of the key atom, counted from the home cell."""
    attention: Float[np.ndarray, "n_layers n_heads n_edges"]
    """Sums to 1 over all edges of one query atom."""
    decay_length: Float[np.ndarray, "n_layers n_heads n_queries"]
    """Decay length σᵢ of each query atom, Å."""
    frames: Float[np.ndarray, "n_layers n_heads n_queries 3 3"] | None
    """Row k is the unit vector e_k, Cartesian. None for the frame method `none`."""
    tied: Bool[np.ndarray, "n_layers n_heads n_queries"]
    """Whether a tie rule chose the axes of a frame. A weighted set holds all frames that tie, so no rule chooses."""
    dead: Bool[np.ndarray, "n_layers n_heads n_queries"]
    """Whether a frame changes nothing, because almost no attention leaves the atom. Such frames are drawn pale."""
    method: str
    """Frame method."""
    prediction: dict[str, float]
    """Target name → value in its unit."""
    units: dict[str, str]
    """Target name → unit."""
    is_region: bool = False
    """Whether this is part of a crystal: the first atoms are the query atoms, the others are their neighbours."""
    sets: tuple[FrameSets, ...] = ()
    """The weighted sets of frames of each layer; `frames` has the heaviest of each set. Empty without frames."""
    unsigned_axis: int | None = None
    """Number of the axis that is a line without a direction, in models that give mirror images one prediction."""
    is_metallic: bool = False
    """Whether all atoms are metals. Their bonds are drawn only on request."""
    vacuum: tuple[bool, bool, bool] = (False, False, False)
    """Whether there is a vacuum along a, b and c, as around a slab, a layer or a molecule in a box."""
    notes: PredictionNotes = field(default_factory=PredictionNotes)
    """Intervals and flags of the prediction, and which model made it when."""

    @property
    def n_atoms(self) -> int:
        return len(self.atomic_numbers)

    @property
    def n_queries(self) -> int:
        """Number of query atoms: all atoms, or the first ones in a region."""
        return self.decay_length.shape[2]

    @property
    def n_layers(self) -> int:
        return len(self.attention)

    @property
    def n_heads(self) -> int:
        return self.attention.shape[1]

    @property
    def elements(self) -> tuple[Element, ...]:
        """The element of each atom."""
        return tuple(element(int(z)) for z in self.atomic_numbers)

    @property
    def formula(self) -> str:
        """Reduced formula of the crystal, or of the atoms of the region: `TiO2`."""
        return reduced_formula(self.atomic_numbers[: self.n_queries])

    @property
    def drawn_positions(self) -> Float[np.ndarray, "n_drawn 3"]:
        """Positions of the drawn balls, Cartesian, Å."""
        return self.places(self.drawn_site, self.drawn_image)

    @property
    def cell_edges(self) -> Float[np.ndarray, "n_cell_edges 2 3"]:
        """Both ends of the twelve edges of the cell, Å. A region has none, as it is a small part of its cell."""
        if self.is_region:
            return np.empty((0, 2, 3))
        starts = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]])
        ends = starts + np.array([1, 0, 0])
        along_a = np.stack([starts, ends], axis=1)
        corners = np.concatenate([np.roll(along_a, shift, axis=2) for shift in range(3)])
        return corners @ self.lattice

    @property
    def edge_vectors(self) -> Float[np.ndarray, "n_edges 3"]:
        """Vector of each edge from query to key atom, p_j(n) - p_i, Å."""
        query, key = self.edge_index
        return self.positions[key] - self.positions[query] + self.edge_image @ self.lattice

    @property
    def edge_lengths(self) -> Float[np.ndarray, " n_edges"]:
        """Length of each edge, Å."""
        return np.linalg.norm(self.edge_vectors, axis=1)

    def places(
        self, atoms: Int[np.ndarray, " n_places"], images: Int[np.ndarray, "n_places 3"]
    ) -> Float[np.ndarray, "n_places 3"]:
        """Positions of atoms moved by lattice translations, Cartesian, Å."""
        return self.positions[atoms] + images @ self.lattice

    def weights(self, layer: int, head: int | None) -> Float[np.ndarray, " n_edges"]:
        """Attention of each edge in one head, or its mean over heads (`head=None`).

        Raises:
            SceneError: there is no such layer or head.
        """
        self.check(layer, head)
        return self.attention[layer].mean(axis=0) if head is None else self.attention[layer, head]

    def check(self, layer: int, head: int | None, atom: int | None = None) -> None:
        """Raise SceneError unless the layer, head and atom exist (counted from 0). None is always valid."""
        sizes = {"layer": self.n_layers, "head": self.n_heads, "atom": self.n_queries}
        for (name, size), value in zip(sizes.items(), (layer, head, atom), strict=True):
            if value is not None:
                check_index(name, value, size, of=self.id or self.formula)


def check_scene(scene: object) -> None:
    """Raise SceneError unless this is a scene."""
    if not isinstance(scene, Scene):
        what = f"a {type(scene).__name__} is not a scene; make a scene with scene_from_trace(trace)"
        raise SceneError(what, field="scene", value=scene)


def scene_from_trace(trace: CrystalTrace) -> Scene:
    """Make a scene from a trace: atoms in the home cell, images on its boundary, bonds, polyhedra and labels.

    Bonds and polyhedra follow the rule of `crystalframer.analysis.bonds`, as in `coordination_shells`.

    Args:
        trace: from `crystalframer.trace(structure)` or `CrystalTrace.load(path)`.

    Raises:
        NotATraceError: the argument is not a trace.

    Example:
        >>> scene_from_trace(trace).formula
        'SrTiO3'
    """
    if not isinstance(trace, CrystalTrace):
        raise NotATraceError(
            f"a picture needs a trace, not a {type(trace).__name__}; crystalframer.trace makes one from a structure",
            field="trace",
            value=trace,
        )
    lattice = np.asarray(trace.lattice, dtype=float)
    positions, query, key = np.asarray(trace.positions, dtype=float), *trace.edge_index
    shift, vacuum = np.zeros((len(positions), 3), np.int64), np.zeros(3, dtype=bool)
    bonds = find_bonds(trace.atomic_numbers, positions, lattice)
    molecule = np.full(len(positions), -1)
    if trace.sites is None:
        shift = _shift_into_cell(positions, lattice)
        vacuum, above = _vacuum(positions + shift @ lattice, lattice)
        shift -= (positions + shift @ lattice) @ np.linalg.inv(lattice) > above
        bonds = bonds.moved(shift)
        together, molecule = _whole(positions + shift @ lattice, lattice, bonds)
        shift, bonds = shift + together, bonds.moved(together)
    positions = positions + shift @ lattice
    edge_image = trace.edge_image + shift[query] - shift[key]
    elements = [element(int(z)) for z in trace.atomic_numbers]
    drawn = bonds.without_spacers()
    if trace.sites is None:
        site, image = _drawn_atoms(positions, lattice, molecule, vacuum)
        site, image = _with_ends(site, image, drawn.key[drawn.is_center], drawn.image[drawn.is_center])
    else:
        own = drawn.site < trace.n_queries
        site, image = _drawn_region(trace.n_queries, drawn.key[own], drawn.image[own])
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
        bonds=_drawn_bonds(site, image, drawn),
        bond_index=np.stack([drawn.site, drawn.key]),
        bond_image=drawn.image,
        polyhedra=_polyhedra(bonds, positions, lattice, trace.n_queries),
        edge_index=trace.edge_index,
        edge_image=edge_image,
        attention=np.stack([layer.attention.T for layer in trace.layers]),
        decay_length=np.stack([layer.decay_length.T for layer in trace.layers]),
        frames=np.stack([frame.axes.swapaxes(0, 1) for frame in frames if frame]) if has_frames else None,
        tied=np.stack([_tied(frame, trace.n_queries, trace.n_heads) for frame in frames]),
        dead=trace.dead_frames,
        method=trace.layers[0].frame_method,
        prediction=dict(trace.prediction),
        units=dict(trace.units),
        is_region=trace.sites is not None,
        sets=tuple(frame.sets for frame in frames if frame) if has_frames else (),
        unsigned_axis=frames[0].unsigned_axis if frames and frames[0] else None,
        is_metallic=bonds.is_metallic,
        vacuum=(bool(vacuum[0]), bool(vacuum[1]), bool(vacuum[2])),
        notes=trace.notes,
    )


def scene_with_shells(scene: Scene, shells: Iterable[Shell]) -> Scene:
    """Replace the polyhedra of a scene by the coordination shells of an analysis, those of anions included.

    A scene itself has polyhedra around centres only. The shells of an analysis are those that motifs are named after.
    A shell of fewer than four neighbours, or with all in one plane, has no polyhedron.

    Args:
        scene: any scene.
        shells: from `crystalframer.analysis.coordination_shells`, for the same trace as the scene.

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
            polyhedra.append(Hull(shell.site, shell.key, image, *hull))
    corners = [
        np.concatenate([np.empty((0, *shape), np.int64), *parts])
        for shape, parts in (((), [hull.key for hull in polyhedra]), ((3,), [hull.image for hull in polyhedra]))
    ]
    site, image = _with_ends(scene.drawn_site, scene.drawn_image, *corners)
    return replace(scene, polyhedra=tuple(polyhedra), drawn_site=site, drawn_image=image)


@dataclass(frozen=True, eq=False)
class AttentionLines:
    """The strongest edges of one atom, strongest first, without its edge to itself."""

    edges: Int[np.ndarray, " n_lines"]
    """Columns of `Scene.edge_index`."""
    key: Int[np.ndarray, " n_lines"]
    image: Int[np.ndarray, "n_lines 3"]
    weight: Float[np.ndarray, " n_lines"]
    start: Float[np.ndarray, "3"]
    """Position of the atom, Å."""
    ends: Float[np.ndarray, "n_lines 3"]
    """Positions of the key atoms, Å."""
    itself: float
    """Attention of the atom to itself."""


def strongest_edges(scene: Scene, layer: int, head: int | None, atom: int, n_lines: int = 12) -> AttentionLines:
    """The `n_lines` edges of `atom` with the largest attention, and all that tie with the last of them.

    An edge with less than a millionth of the attention is left out. Ties are kept together: a symmetric shell is
    always drawn complete.

    Args:
        scene: any scene.
        layer: counted from 0.
        head: counted from 0; None for the mean over heads.
        atom: the query atom, counted from 0.
        n_lines: number of edges, 0 or more.

    Raises:
        SceneError: there is no such layer, head or atom, or `n_lines` is negative.

    Example:
        >>> lines = strongest_edges(scene, layer=0, head=2, atom=1, n_lines=6)
        >>> len(lines.edges), bool(lines.weight[0] >= lines.weight[-1])
        (6, True)
    """
    scene.check(layer, head, atom)
    if n_lines < 0:
        raise SceneError(f"{n_lines} attention lines cannot be drawn; choose 0 or more", field="n_lines", value=n_lines)
    weights = scene.weights(layer, head)
    query, key = scene.edge_index
    mine = np.flatnonzero(query == atom)
    is_itself = (key[mine] == atom) & (scene.edge_image[mine] == 0).all(axis=1)
    others = mine[~is_itself & (weights[mine] >= FAINT)]
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
    """Attention from each query atom (row) to each key atom (column), summed over periodic images.

    Rows sum to 1. In a region they sum to less, as the atoms around it have no column.

    Args:
        scene: any scene.
        layer: counted from 0.
        head: counted from 0; None for the mean over heads.

    Raises:
        SceneError: there is no such layer or head.

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
    """Attention as a function of distance, in shells of neighbours."""

    distance: Float[np.ndarray, " n_shells"]
    """Mean distance of each shell, Å, ascending. The atom itself is at 0."""
    attention: Float[np.ndarray, " n_shells"]
    """Total attention to each shell; sums to 1."""
    n_neighbors: Float[np.ndarray, " n_shells"]
    """Number of neighbours in each shell (a mean, if several atoms are averaged)."""

    @property
    def cumulative(self) -> Float[np.ndarray, " n_shells"]:
        """Total attention within each distance."""
        return np.cumsum(self.attention)


def attention_by_distance(
    scene: Scene, layer: int, head: int | None, atom: int | None = None, shell_width: float = 0.05
) -> DistanceProfile:
    """Attention as a function of distance, for one atom or averaged over all (`atom=None`).

    Args:
        scene: any scene.
        layer: counted from 0.
        head: counted from 0; None for the mean over heads.
        atom: the query atom, counted from 0; None for the mean over atoms.
        shell_width: a gap in distance larger than this begins a new shell, Å.

    Raises:
        SceneError: there is no such layer, head or atom.

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
    """Labels of atoms: element and running number (`Ti1`, `O2`), or element and site (`O#512`) if sites are given."""
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
    """Lattice translations that move every atom into the cell; an atom on a far face moves to the near face."""
    frac = positions @ np.linalg.inv(lattice)
    return -np.floor(frac + _face_tolerance(lattice)).astype(np.int64)


def _whole(
    positions: Float[np.ndarray, "n_atoms 3"], lattice: Float[np.ndarray, "3 3"], bonds: Bonds
) -> tuple[Int[np.ndarray, "n_atoms 3"], Int[np.ndarray, " n_atoms"]]:
    """Lattice translations that make molecules whole, with their middle in the cell; and the molecule of each atom.

    Atoms of an endless network are not moved and have the molecule -1.
    """
    shift, molecule = np.zeros((len(positions), 3), np.int64), np.full(len(positions), -1)
    seen = np.zeros(len(positions), dtype=bool)
    for first in range(len(positions)):
        if seen[first]:
            continue
        place = {first: np.zeros(3, np.int64)}
        queue, is_endless = [first], False
        while queue:
            atom = queue.pop()
            for other, image in zip(*bonds.shell(atom), strict=True):
                there = place[atom] + image
                if int(other) not in place:
                    place[int(other)] = there
                    queue.append(int(other))
                is_endless |= bool((place[int(other)] != there).any())
        atoms = np.array(list(place))
        seen[atoms] = True
        if not is_endless:
            moved = np.array(list(place.values()))
            middle = (positions[atoms] + moved @ lattice).mean(axis=0)
            shift[atoms] = moved + _shift_into_cell(middle[None], lattice)
            molecule[atoms] = first
    return shift, molecule


def _vacuum(
    positions: Float[np.ndarray, "n_atoms 3"], lattice: Float[np.ndarray, "3 3"]
) -> tuple[Bool[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """For each lattice direction: whether there is a vacuum, and the fractional coordinate above which atoms lie behind
    it, so that they belong to the next cell (infinite if the vacuum begins and ends at the faces)."""
    frac = positions @ np.linalg.inv(lattice)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    is_empty, above = np.zeros(3, dtype=bool), np.full(3, np.inf)
    for axis in range(3):
        ordered = np.sort(frac[:, axis])
        gaps = np.append(np.diff(ordered), ordered[0] + 1 - ordered[-1])
        widest = int(gaps.argmax())
        is_empty[axis] = gaps[widest] * heights[axis] > VACUUM
        if is_empty[axis] and widest < len(ordered) - 1:
            above[axis] = (ordered[widest] + ordered[widest + 1]) / 2
    return is_empty, above


def _drawn_atoms(
    positions: Float[np.ndarray, "n_atoms 3"],
    lattice: Float[np.ndarray, "3 3"],
    molecule: Int[np.ndarray, " n_atoms"],
    vacuum: Bool[np.ndarray, "3"],
) -> tuple[Int[np.ndarray, " n_drawn"], Int[np.ndarray, "n_drawn 3"]]:
    """(site, image) of the atoms of the cell, then of their copies on its far faces. Molecules are copied whole."""
    points = positions.copy()
    for first in np.unique(molecule[molecule >= 0]):
        points[molecule == first] = positions[molecule == first].mean(axis=0)
    on_face = (points @ np.linalg.inv(lattice) < _face_tolerance(lattice)) & ~vacuum
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    # A copy at corner (1, 1, 0) exists only if the atom lies on the near a face and on the near b face.
    allowed = (on_face[:, None, :] | (corners[None] == 0)).all(axis=2)
    site, corner = np.nonzero(allowed)
    order = np.argsort(corner > 0, kind="stable")
    return site[order], corners[corner[order]]


def _with_ends(
    site: Int[np.ndarray, " n_drawn"],
    image: Int[np.ndarray, "n_drawn 3"],
    key: Int[np.ndarray, " n_ends"],
    key_image: Int[np.ndarray, "n_ends 3"],
) -> tuple[Int[np.ndarray, " n_all"], Int[np.ndarray, "n_all 3"]]:
    """The drawn atoms, then those of some others that are not drawn yet."""
    drawn = ball_numbers(site, image)
    others = sorted({(int(k), *map(int, n)) for k, n in zip(key, key_image, strict=True)} - drawn.keys())
    rows = np.array(others, dtype=np.int64).reshape(-1, 4)
    return np.concatenate([site, rows[:, 0]]), np.concatenate([image, rows[:, 1:]])


def _drawn_region(
    n_queries: int, bonded: Int[np.ndarray, " n_bonded"], image: Int[np.ndarray, "n_bonded 3"]
) -> tuple[Int[np.ndarray, " n_drawn"], Int[np.ndarray, "n_drawn 3"]]:
    """(site, image) of the atoms of a region, then of the atoms bonded to them."""
    others = np.unique(np.column_stack([bonded, image]), axis=0)
    others = others[(others[:, 0] >= n_queries) | others[:, 1:].any(axis=1)]
    own = np.column_stack([np.arange(n_queries), np.zeros((n_queries, 3), np.int64)])
    drawn = np.concatenate([own, others])
    return drawn[:, 0], drawn[:, 1:]


def _drawn_bonds(
    site: Int[np.ndarray, " n_drawn"], image: Int[np.ndarray, "n_drawn 3"], bonds: Bonds
) -> Int[np.ndarray, "n_bonds 2"]:
    """Pairs of drawn balls that a bond joins."""
    ball = ball_numbers(site, image)
    pairs = set()
    for (atom, *translation), first in ball.items():
        for key, step in zip(*bonds.shell(atom), strict=True):
            second = ball.get((int(key), *map(int, translation + step)))
            if second is not None and first < second:
                pairs.add((first, second))
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def _polyhedra(
    bonds: Bonds, positions: Float[np.ndarray, "n_atoms 3"], lattice: Float[np.ndarray, "3 3"], n_queries: int
) -> tuple[Hull, ...]:
    """The hull around each centre with four or more ligands."""
    found = []
    for center in np.flatnonzero(~bonds.is_spacer[:n_queries]).tolist():
        key, image = bonds.ligands(center)
        if len(key) >= 4 and (hull := _hull(positions[key] + image @ lattice)):
            found.append(Hull(center, key, image, *hull))
    return tuple(found)


def _hull(
    points: Float[np.ndarray, "n_points 3"],
) -> tuple[Int[np.ndarray, "n_faces 3"], Int[np.ndarray, "n_rims 2"]] | None:
    """Faces and rims of the convex hull of some points; None if they lie in one plane."""
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
    # Neighbour k of a face lies opposite its corner k. Two faces with less than 3 degrees between them are one face.
    meets = {
        (min(pair), max(pair))
        for face, (simplex, neighbors) in enumerate(zip(hull.simplices, hull.neighbors, strict=True))
        for corner, neighbor in enumerate(neighbors)
        if normals[face] @ normals[neighbor] < np.cos(np.radians(3))
        for pair in [np.delete(simplex, corner).tolist()]
    }
    return faces, np.array(sorted(meets), dtype=np.int64)


def ball_numbers(site: Int[np.ndarray, " n_drawn"], image: Int[np.ndarray, "n_drawn 3"]) -> dict[tuple[int, ...], int]:
    """(site, *image) of each drawn ball → its number."""
    return {(int(s), *map(int, n)): number for number, (s, n) in enumerate(zip(site, image, strict=True))}


def _tied(frame: FrameTrace | None, n_queries: int, n_heads: int) -> Bool[np.ndarray, "n_heads n_queries"]:
    if frame is not None and frame.members is None and frame.tie_margin is not None:
        return np.any(frame.tie_margin <= FRAME_TIE, axis=2).T
    if frame is not None and frame.eigenvalues is not None:
        gaps = np.diff(frame.eigenvalues, axis=2)
        return np.any(gaps <= FRAME_TIE * frame.eigenvalues[..., 2:], axis=2).T
    return np.zeros((n_heads, n_queries), dtype=bool)
