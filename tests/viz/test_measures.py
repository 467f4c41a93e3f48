"""Measures of attention and frames whose values are known by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import viz
from crystalframer.traces import CrystalTrace, FrameTrace

TI = 1


def with_attention(trace: CrystalTrace, weights: np.ndarray) -> CrystalTrace:
    """The trace with `weights` (n_edges, normalised here) as the attention of every head and layer."""
    query = trace.edge_index[0]
    shares = weights / np.bincount(query, weights)[query]
    attention = np.repeat(shares[:, None], trace.n_heads, axis=1)
    return replace(trace, layers=tuple(replace(layer, attention=attention) for layer in trace.layers))


def with_max_frames(trace: CrystalTrace, chosen: np.ndarray) -> CrystalTrace:
    """`chosen` (n_layers, n_heads, n_atoms): the edge that alone has the highest score and is e₁."""
    layers = []
    directions = trace.edge_vectors / np.where(trace.edge_lengths > 0, trace.edge_lengths, 1.0)[:, None]
    for layer, edges in zip(trace.layers, chosen, strict=True):
        content = np.zeros_like(layer.content_logits)
        axes = np.tile(np.eye(3), (trace.n_atoms, trace.n_heads, 1, 1))
        for head in range(trace.n_heads):
            content[edges[head], head] = 100.0
            axes[:, head, 0] = directions[edges[head]]
        layers.append(replace(layer, content_logits=content, frame=FrameTrace("max", axes)))
    return replace(trace, layers=tuple(layers))


def edges_of(trace: CrystalTrace, atom: int, length: float) -> np.ndarray:
    return np.flatnonzero((trace.edge_index[0] == atom) & np.isclose(trace.edge_lengths, length, atol=0.01))


def test_attention_equal_over_an_octahedron_has_six_neighbours(perovskite_trace: CrystalTrace) -> None:
    weights = np.full(perovskite_trace.n_edges, 1.0)
    weights[perovskite_trace.edge_index[0] == TI] = 0.0
    weights[edges_of(perovskite_trace, TI, 3.905 / 2)] = 1.0
    trace = with_attention(perovskite_trace, weights)
    np.testing.assert_allclose(viz.effective_neighbors(trace)[..., TI], 6.0)
    np.testing.assert_allclose(viz.attended_distance(trace)[..., TI], 3.905 / 2)
    np.testing.assert_array_equal(viz.self_attention_share(trace)[..., TI], 0.0)
    # Sr attends to all its edges alike: as many neighbours as edges.
    np.testing.assert_allclose(viz.effective_neighbors(trace)[..., 0], np.sum(trace.edge_index[0] == 0))


def test_all_attention_on_the_atom_itself_has_no_distance(perovskite_trace: CrystalTrace) -> None:
    trace = with_attention(perovskite_trace, (perovskite_trace.edge_lengths == 0).astype(float))
    np.testing.assert_allclose(viz.effective_neighbors(trace), 1.0)
    np.testing.assert_allclose(viz.self_attention_share(trace), 1.0)
    assert np.isnan(viz.attended_distance(trace)).all()


def test_the_atom_itself_does_not_shorten_the_distance(perovskite_trace: CrystalTrace) -> None:
    """A quarter on the atom, the rest on Ti at distance a: attended distance a, not 3a/4."""
    weights = np.full(perovskite_trace.n_edges, 1.0)
    mine = perovskite_trace.edge_index[0] == TI
    weights[mine] = 0.0
    weights[edges_of(perovskite_trace, TI, 0.0)] = 2.0
    weights[edges_of(perovskite_trace, TI, 3.905)] = 1.0
    trace = with_attention(perovskite_trace, weights)
    np.testing.assert_allclose(viz.attended_distance(trace)[..., TI], 3.905)
    np.testing.assert_allclose(viz.self_attention_share(trace)[..., TI], 0.25)


def test_lengths(perovskite_trace: CrystalTrace, trace: CrystalTrace) -> None:
    np.testing.assert_allclose(viz.nearest_distance(perovskite_trace), 3.905 * np.array([np.sqrt(0.5), *[0.5] * 4]))
    for layer, sigma in zip(trace.layers, viz.decay_lengths(trace), strict=True):
        np.testing.assert_array_equal(sigma, layer.decay_length.T)


def test_anchor_distances_are_lengths_of_the_anchor_edges(trace: CrystalTrace) -> None:
    found = viz.anchor_distances(trace)
    frame = trace.layers[2].frame
    assert frame is not None and frame.anchor_edges is not None
    edge = frame.anchor_edges[4, 3, 1]
    assert trace.edge_index[0, edge] == 4
    assert found[2, 3, 4, 1] == pytest.approx(trace.edge_lengths[edge])
    assert found.shape == (trace.n_layers, trace.n_heads, trace.n_atoms, 2)


def bonds(trace: CrystalTrace) -> dict[tuple[int, ...], int]:
    """Ti–O edges of the perovskite by direction."""
    edges = edges_of(trace, TI, 3.905 / 2)
    return {tuple(np.round(trace.edge_vectors[e] / trace.edge_lengths[e]).astype(int).tolist()): int(e) for e in edges}


def nearest_edges(trace: CrystalTrace) -> np.ndarray:
    """(n_layers, n_heads, n_atoms): one nearest edge of each atom, the same everywhere."""
    first = [edges_of(trace, atom, length)[0] for atom, length in enumerate(viz.nearest_distance(trace))]
    return np.tile(first, (trace.n_layers, trace.n_heads, 1))


def test_axes_that_stay_do_not_turn(perovskite_trace: CrystalTrace) -> None:
    trace = with_max_frames(perovskite_trace, nearest_edges(perovskite_trace))
    np.testing.assert_allclose(viz.axis_turns(trace), 0.0, atol=1e-5)


def test_turn_is_the_angle_to_the_nearest_axis_of_any_head(perovskite_trace: CrystalTrace) -> None:
    chosen, bond = nearest_edges(perovskite_trace), bonds(perovskite_trace)
    chosen[0, :, TI] = bond[1, 0, 0]
    chosen[0, 2, TI] = bond[0, 1, 0]
    # Head 0 opposite to one axis and square to the other, head 1 where head 2 was, 2 and 3 on what others had.
    chosen[1, :, TI] = bond[-1, 0, 0], bond[0, 1, 0], bond[1, 0, 0], bond[1, 0, 0]
    turns = viz.axis_turns(with_max_frames(perovskite_trace, chosen))
    np.testing.assert_allclose(turns[0, :, TI], [90.0, 0.0, 0.0, 0.0], atol=1e-5)


def test_any_of_equal_bonds_is_no_turn(perovskite_trace: CrystalTrace) -> None:
    """All six Ti–O bonds tie in layer 0; the rule took +x. In layer 1, -y is no turn, xyz is."""
    chosen, bond = nearest_edges(perovskite_trace), bonds(perovskite_trace)
    chosen[0, :, TI] = bond[1, 0, 0]
    chosen[1, :, TI] = bond[0, -1, 0]
    corner = edges_of(perovskite_trace, TI, 3.905 * np.sqrt(0.75))[0]
    chosen[1, 3, TI] = corner
    trace = with_max_frames(perovskite_trace, chosen)
    tied = trace.layers[0].content_logits.copy()
    tied[list(bond.values())] = 100.0
    trace = replace(trace, layers=(replace(trace.layers[0], content_logits=tied), *trace.layers[1:]))
    diagonal = np.degrees(np.arccos(1 / np.sqrt(3)))
    # Distance logits differ by nothing among equal lengths, so content alone decides.
    np.testing.assert_allclose(viz.axis_turns(trace)[0, :, TI], [0.0, 0.0, 0.0, diagonal], atol=1e-5)


@pytest.mark.parametrize("method", ["weighted-pca", "pca", "lattice"])
def test_principal_axes_have_no_sign(perovskite_trace: CrystalTrace, method: str) -> None:
    layers = []
    for sign, layer in zip((1, -1, 1), perovskite_trace.layers, strict=True):
        assert layer.frame is not None
        axes = sign * np.tile(np.eye(3), (perovskite_trace.n_atoms, perovskite_trace.n_heads, 1, 1))
        layers.append(replace(layer, frame=FrameTrace(method, axes)))
    np.testing.assert_allclose(viz.axis_turns(replace(perovskite_trace, layers=tuple(layers))), 0.0, atol=1e-5)


def test_static_frames_never_turn(perovskite_trace: CrystalTrace) -> None:
    chosen = nearest_edges(perovskite_trace)
    trace = with_max_frames(perovskite_trace, chosen)
    layers = [replace(layer, frame=replace(layer.frame, method="static-max")) for layer in trace.layers if layer.frame]
    np.testing.assert_allclose(viz.axis_turns(replace(trace, layers=tuple(layers))), 0.0, atol=1e-5)


def test_chance_agrees_with_drawn_directions(perovskite_trace: CrystalTrace) -> None:
    """One axis: 90° on average. Both ends of a line: 57.3° (one radian). Several: against drawn directions."""
    chosen, bond = nearest_edges(perovskite_trace), bonds(perovskite_trace)
    chosen[0, :, TI] = bond[1, 0, 0]
    chosen[1, :, TI] = bond[1, 0, 0]
    chosen[1, 1, TI] = bond[-1, 0, 0]
    trace = with_max_frames(perovskite_trace, chosen)
    chance = viz.chance_turns(trace)
    assert chance[0, TI] == pytest.approx(90.0, abs=0.2)
    assert chance[1, TI] == pytest.approx(np.degrees(1.0), abs=0.2)
    chosen[1, 2, TI] = bond[0, 1, 0]
    known = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0]])
    drawn = np.random.default_rng(0).normal(size=(20_000, 3))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    expected = np.degrees(np.arccos((drawn @ known.T).max(axis=1))).mean()
    assert viz.chance_turns(with_max_frames(perovskite_trace, chosen))[1, TI] == pytest.approx(expected, abs=0.5)


def test_measures_do_not_depend_on_orientation(trace: CrystalTrace) -> None:
    turn = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    layers = tuple(
        replace(layer, frame=replace(layer.frame, axes=layer.frame.axes @ turn.T))
        for layer in trace.layers
        if layer.frame
    )
    turned = replace(trace, positions=trace.positions @ turn.T, lattice=trace.lattice @ turn.T, layers=layers)
    for measure in (
        viz.effective_neighbors,
        viz.attended_distance,
        viz.anchor_distances,
        viz.nearest_distance,
        viz.axis_turns,
    ):
        np.testing.assert_allclose(measure(turned), measure(trace), atol=1e-5)
    np.testing.assert_allclose(viz.chance_turns(turned), viz.chance_turns(trace), atol=0.5)


def test_table_holds_every_measure(trace: CrystalTrace) -> None:
    table = viz.layer_table(trace)
    assert len(table) == trace.n_layers * trace.n_heads * trace.n_atoms
    row = table.set_index(["layer", "head", "atom"]).loc[(2, 1, 3)]
    assert row.label == table.label[3]
    assert row.effective_neighbors == viz.effective_neighbors(trace)[2, 1, 3]
    assert row.anchor_distance_2 == viz.anchor_distances(trace)[2, 1, 3, 1]
    assert row.axis_turn == viz.axis_turns(trace)[1, 1, 3] and row.chance_turn == viz.chance_turns(trace)[1, 3]
    assert table[table.layer == 0].axis_turn.isna().all() and table[table.layer > 0].axis_turn.notna().all()
    assert row.nearest_distance == viz.nearest_distance(trace)[3]


def test_without_frames(perovskite_trace: CrystalTrace) -> None:
    trace = replace(perovskite_trace, layers=tuple(replace(layer, frame=None) for layer in perovskite_trace.layers))
    assert not {"axis_turn", "anchor_distance_1"} & set(viz.layer_table(trace).columns)
    assert {"effective_neighbors", "decay_length"} <= set(viz.layer_table(trace).columns)
