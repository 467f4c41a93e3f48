"""The scene holds the content of the trace, moved into the home cell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_traces import synthetic_trace
from textbook_crystals import TEXTBOOK

from crystalframer.analysis import coordination_shells, find_bonds
from crystalframer.crystals.crystal import Crystal
from crystalframer.testing import prototypes, supercell
from crystalframer.traces import CrystalTrace
from viz import Scene, attention_by_distance, attention_matrix, scene_from_trace, strongest_edges
from viz.scene import ball_numbers

HEADS = [0, 3, None]


PROTOTYPES = {crystal.id: crystal for crystal in prototypes()}


def test_atoms_lie_in_the_home_cell(scene: Scene) -> None:
    frac = scene.positions @ np.linalg.inv(scene.lattice)
    assert (frac > -0.01).all() and (frac < 1.001).all()


def test_layout_changes_no_edge(trace: CrystalTrace, scene: Scene) -> None:
    np.testing.assert_allclose(scene.edge_vectors, trace.edge_vectors, atol=1e-12)


def test_boundary_images_of_the_perovskite(perovskite_scene: Scene) -> None:
    assert perovskite_scene.labels == ("Sr1", "Ti1", "O1", "O2", "O3")
    assert perovskite_scene.formula == "SrTiO3"
    assert np.bincount(perovskite_scene.drawn_site).tolist() == [8, 1, 2, 2, 2]
    assert (perovskite_scene.drawn_site[:5] == np.arange(5)).all() and not perovskite_scene.drawn_image[:5].any()
    frac = perovskite_scene.drawn_positions / 3.905
    assert len(np.unique(frac.round(6), axis=0)) == 15
    assert (frac > -1e-9).all() and (frac < 1 + 1e-9).all()


def test_an_atom_a_rounding_error_outside_the_cell_counts_as_on_its_face() -> None:
    crystal = Crystal(np.array([14]), np.array([[-1e-9, 1.0, 2.0]]), 4.0 * np.eye(3))
    scene = scene_from_trace(synthetic_trace(crystal))
    np.testing.assert_allclose(scene.drawn_positions, [[0, 1, 2], [4, 1, 2]], atol=1e-8)


def test_cell_edges(scene: Scene) -> None:
    vectors = scene.cell_edges[:, 1] - scene.cell_edges[:, 0]
    for row in scene.lattice:
        assert np.isclose(vectors, row).all(axis=1).sum() == 4
    corners = np.unique((scene.cell_edges.reshape(-1, 3) @ np.linalg.inv(scene.lattice)).round(9), axis=0)
    assert len(corners) == 8


@pytest.mark.parametrize(
    ("name", "n_bonds_of_atoms"),
    [
        ("rock salt NaCl", {"Na": 6, "Cl": 6}),
        ("zinc blende ZnS", {"Zn": 4, "S": 4}),
        ("diamond", {"C": 4}),
        ("perovskite SrTiO3", {"Sr": 0, "Ti": 6, "O": 2}),  # no bond of Sr or between metals
        ("iron (bcc)", {"Fe": 8}),
        ("copper (fcc)", {"Cu": 12}),
        ("CsCl", {"Cs": 8, "Cl": 8}),
    ],
)
def test_bonds_give_textbook_coordination(name: str, n_bonds_of_atoms: dict[str, int]) -> None:
    """Counted in a 3 × 3 × 3 supercell, where the middle cell has all its bonds drawn."""
    crystal = PROTOTYPES[name]
    scene = scene_from_trace(synthetic_trace(supercell(crystal, (3, 3, 3))))
    count = np.bincount(scene.bonds.ravel(), minlength=len(scene.drawn_site))
    middle = 13 * len(crystal) + np.arange(len(crystal))
    assert {scene.elements[atom].symbol: int(count[atom]) for atom in middle} == n_bonds_of_atoms


def test_bonds_join_drawn_balls_once(perovskite_scene: Scene) -> None:
    first, second = perovskite_scene.bonds.T
    lengths = np.linalg.norm(perovskite_scene.drawn_positions[first] - perovskite_scene.drawn_positions[second], axis=1)
    np.testing.assert_allclose(lengths, [3.905 / 2] * 6)
    assert (first < second).all()


@pytest.mark.parametrize("head", HEADS)
def test_attention_matrix_rows_sum_to_one(scene: Scene, head: int | None) -> None:
    np.testing.assert_allclose(attention_matrix(scene, 1, head).sum(axis=1), 1.0, atol=1e-12)


def test_attention_matrix_sums_over_images(trace: CrystalTrace, scene: Scene) -> None:
    query, key = trace.edge_index
    expected = trace.layers[2].attention[(query == 1) & (key == 3), 0].sum()
    assert attention_matrix(scene, 2, 0)[1, 3] == pytest.approx(expected)


def test_mean_over_heads_is_the_mean_of_the_matrices(scene: Scene) -> None:
    each = [attention_matrix(scene, 0, head) for head in range(scene.n_heads)]
    np.testing.assert_allclose(attention_matrix(scene, 0, None), np.mean(each, axis=0))


@pytest.mark.parametrize("head", HEADS)
def test_strongest_edges_are_the_strongest(trace: CrystalTrace, scene: Scene, head: int | None) -> None:
    lines = strongest_edges(scene, 1, head, atom=2, n_lines=5)
    weights = scene.weights(1, head)
    others = np.flatnonzero((trace.edge_index[0] == 2) & (trace.edge_lengths > 0))
    left_out = np.setdiff1d(others, lines.edges)
    assert len(lines.edges) == 5
    assert (np.diff(lines.weight) <= 0).all() and lines.weight.min() >= weights[left_out].max()
    assert lines.itself == pytest.approx(weights[trace.edge_index[0] == 2].sum() - weights[others].sum())
    np.testing.assert_allclose(lines.ends - lines.start, trace.edge_vectors[lines.edges], atol=1e-12)


def test_a_symmetric_shell_is_drawn_whole(perovskite_trace: CrystalTrace) -> None:
    """Attention by distance alone: the six O around Ti tie, so asking for two lines gives six."""
    layer = perovskite_trace.layers[0]
    weights = np.exp(-(perovskite_trace.edge_lengths**2))
    weights /= np.bincount(perovskite_trace.edge_index[0], weights)[perovskite_trace.edge_index[0]]
    attention = np.repeat(weights[:, None], perovskite_trace.n_heads, axis=1)
    scene = scene_from_trace(replace(perovskite_trace, layers=(replace(layer, attention=attention),)))
    lines = strongest_edges(scene, 0, 0, atom=1, n_lines=2)
    assert len(lines.edges) == 6
    assert set(lines.key.tolist()) == {2, 3, 4}
    assert len(strongest_edges(scene, 0, 0, atom=1, n_lines=0).edges) == 0


@pytest.mark.parametrize("atom", [1, None])
def test_attention_by_distance_counts_everything_once(scene: Scene, atom: int | None) -> None:
    profile = attention_by_distance(scene, 0, None, atom)
    n_queries = 1 if atom is not None else scene.n_atoms
    mine = scene.edge_index[0] == atom if atom is not None else slice(None)
    assert profile.cumulative[-1] == pytest.approx(1.0)
    assert profile.n_neighbors.sum() * n_queries == pytest.approx(len(scene.edge_lengths[mine]))
    assert profile.distance[0] == 0.0 and (np.diff(profile.distance) > 0).all()


def test_shells_of_the_perovskite(perovskite_scene: Scene) -> None:
    """Ti: itself, 6 O at a/2, 8 Sr at √3a/2, 6 Ti at a."""
    profile = attention_by_distance(perovskite_scene, 0, 0, atom=1)
    np.testing.assert_allclose(profile.distance[:4], 3.905 * np.array([0, 0.5, np.sqrt(0.75), 1.0]))
    assert profile.n_neighbors[:4].tolist() == [1, 6, 8, 6]


def test_frames_are_those_of_the_trace(trace: CrystalTrace, scene: Scene) -> None:
    assert scene.frames is not None and trace.layers[1].frame is not None
    np.testing.assert_array_equal(scene.frames[1, 3, 2], trace.layers[1].frame.axes[2, 3])
    assert scene.method == "max"


def test_no_frames_without_a_frame_method(perovskite_trace: CrystalTrace) -> None:
    layers = tuple(replace(layer, frame=None) for layer in perovskite_trace.layers)
    scene = scene_from_trace(replace(perovskite_trace, layers=layers))
    assert scene.frames is None and scene.method == "none"


def test_a_trace_read_back_from_disk_gives_the_same_scene(trace: CrystalTrace, scene: Scene, tmp_path) -> None:
    again = scene_from_trace(CrystalTrace.load(trace.save(tmp_path / "trace.safetensors")))
    np.testing.assert_array_equal(again.attention, scene.attention)
    np.testing.assert_array_equal(again.bonds, scene.bonds)
    assert again.labels == scene.labels and again.prediction == scene.prediction


def test_the_polyhedron_of_titanium_is_an_octahedron(perovskite_scene: Scene) -> None:
    """And strontium, which has no bonds, has none."""
    (solid,) = perovskite_scene.polyhedra
    assert perovskite_scene.labels[solid.center] == "Ti1"
    assert (len(solid.key), len(solid.faces), len(solid.rims)) == (6, 8, 12)
    vertices = perovskite_scene.places(solid.key, solid.image)
    center = perovskite_scene.positions[solid.center]
    np.testing.assert_allclose(np.linalg.norm(vertices - center, axis=1), 3.905 / 2)
    a, b, c = (vertices[solid.faces[:, corner]] for corner in range(3))
    assert (np.cross(b - a, c - a) * (a - center)).sum(axis=1).min() > 0  # counter-clockwise seen from outside


@pytest.mark.parametrize(
    ("name", "n_vertices", "n_rims"),
    # The square faces of a cube are two triangles each.
    [("zinc blende ZnS", 4, 6), ("CsCl", 8, 12)],
)
def test_polyhedra_have_the_edges_of_the_textbook(name: str, n_vertices: int, n_rims: int) -> None:
    scene = scene_from_trace(synthetic_trace(PROTOTYPES[name]))
    metals = [atom for atom, item in enumerate(scene.elements) if not item.is_nonmetal]
    assert [solid.center for solid in scene.polyhedra] == metals
    assert {(len(solid.key), len(solid.rims)) for solid in scene.polyhedra} == {(n_vertices, n_rims)}


TEXTBOOK_SCENES = {
    known.name: scene_from_trace(synthetic_trace(known.crystal, radius=4.0, n_layers=1, n_heads=1))
    for known in TEXTBOOK
    if len(known.crystal) < 100
}


@pytest.mark.parametrize("name", TEXTBOOK_SCENES)
def test_pictures_show_the_coordination_of_the_analysis(name: str) -> None:
    """Polyhedra have the shells of the analysis, an atom at every corner, and a bond to each."""
    scene = TEXTBOOK_SCENES[name]
    trace = synthetic_trace(next(known.crystal for known in TEXTBOOK if known.name == name), radius=4.0)
    drawn = ball_numbers(scene.drawn_site, scene.drawn_image)
    bonds = {frozenset(pair) for pair in scene.bonds.tolist()}
    shells = coordination_shells(trace)
    for hull in scene.polyhedra:
        assert len(hull.key) == len(shells[hull.center])
        corners = [drawn[int(key), *map(int, image)] for key, image in zip(hull.key, hull.image, strict=True)]
        assert {frozenset((hull.center, corner)) for corner in corners} <= bonds
    with_polyhedron = {hull.center for hull in scene.polyhedra}
    spacers = find_bonds(trace.atomic_numbers, trace.positions, trace.lattice).is_spacer
    for site, item in enumerate(scene.elements):
        corners = shells[site].vectors - shells[site].vectors.mean(axis=0)
        in_space = len(corners) >= 4 and np.linalg.matrix_rank(corners, tol=0.3) == 3
        if not item.is_nonmetal and not scene.is_metallic and not spacers[site]:
            assert (site in with_polyhedron) == in_space


def test_molecules_are_whole() -> None:
    """Each of the eight atoms of both urea molecules is joined to the others by drawn bonds."""
    scene = TEXTBOOK_SCENES["urea CO(NH2)2"]
    atoms, joined = set(range(scene.n_atoms)), [pair for pair in scene.bonds.tolist() if max(pair) < scene.n_atoms]
    assert len(joined) == 14
    sizes = []
    while atoms:
        molecule = {atoms.pop()}
        while more := {end for pair in joined if molecule & set(pair) for end in pair} - molecule:
            molecule |= more
        atoms -= molecule
        sizes.append(len(molecule))
    assert sizes == [8, 8]


def test_a_slab_that_crosses_a_face_is_not_cut() -> None:
    """And it has no copy on the far side of the vacuum."""
    lattice = np.diag([3.0, 3.0, 20.0])
    positions = np.array([[0, 0, 18.0], [1.5, 1.5, 0.0], [0, 0, 2.0]])
    scene = scene_from_trace(synthetic_trace(Crystal(np.array([22, 22, 22]), positions, lattice)))
    assert scene.vacuum == (False, False, True)
    assert np.ptp(scene.drawn_positions[:, 2]) == pytest.approx(4.0)


FLAT = Crystal(np.array([78, 8, 8]), np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0]]), 4.0 * np.eye(3), "PtO2")
"""Pt in the middle of four O in its plane."""


@pytest.mark.parametrize("crystal", [PROTOTYPES["copper (fcc)"], PROTOTYPES["diamond"], FLAT], ids=lambda c: c.id)
def test_no_polyhedron_without_a_shell_in_space(crystal: Crystal) -> None:
    assert scene_from_trace(synthetic_trace(crystal)).polyhedra == ()


def test_frames_are_tied_where_the_anchor_hardly_wins(perovskite_trace: CrystalTrace) -> None:
    first = perovskite_trace.layers[0]
    assert first.frame is not None
    margin = np.full((5, 4, 2), 0.5)
    margin[1, 2, 0], margin[3, 0, 1], margin[4, 1, 1] = 1e-6, -1e-3, np.inf
    layer = replace(first, frame=replace(first.frame, tie_margin=margin))
    scene = scene_from_trace(replace(perovskite_trace, layers=(layer, first)))
    assert np.argwhere(scene.tied).tolist() == [[0, 0, 3], [0, 2, 1]]


def test_frames_are_tied_where_eigenvalues_are_equal(perovskite_trace: CrystalTrace) -> None:
    layer = perovskite_trace.layers[0]
    assert layer.frame is not None
    eigenvalues = np.tile([1.0, 2.0, 3.0], (5, 4, 1))
    eigenvalues[2, 3] = [1.0, 3.0, 3.0001]
    frame = replace(layer.frame, method="pca", eigenvalues=eigenvalues, tie_margin=None)
    scene = scene_from_trace(replace(perovskite_trace, layers=(replace(layer, frame=frame),)))
    assert np.argwhere(scene.tied).tolist() == [[0, 3, 2]]
