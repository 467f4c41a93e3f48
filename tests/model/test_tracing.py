"""Weighted sets of frames in traces: what the model sums over, turned with the crystal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from attention_cases import SALT
from synthetic_traces import perovskite, untrained, whole_and_region

import crystalframer as cf
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.maths.edges import Edges
from crystalframer.maths.ties import weighted_frames
from crystalframer.model.network import CrystalFramer
from crystalframer.model.tracing import SMALLEST_WEIGHT
from crystalframer.testing import permuted, random_crystal, random_rotation, rotated, supercell, with_cell
from crystalframer.traces import CrystalTrace, FrameSets, FrameTrace

WEIGHTED: dict[str, Any] = {"weighted_margin": 0.1}
WAYS: list[dict[str, Any]] = [
    WEIGHTED,
    {**WEIGHTED, "both_hands": True, "second_axis": "sine"},
    {**WEIGHTED, "method": "static-max", "weighted_margin": 0.5},
]
IRON = Crystal(np.array([26]), np.zeros((1, 3)), 1.435 * (1 - 2 * np.eye(3)), "bcc")
CRYSTALS = [SALT, IRON, perovskite(), random_crystal(0, n_atoms=4)]


def frames_of(trace: CrystalTrace) -> list[FrameTrace]:
    return [layer.frame for layer in trace.layers if layer.frame is not None]


@pytest.mark.parametrize("way", WAYS)
def test_sets_are_complete_and_in_order(way: dict[str, Any]) -> None:
    model = untrained(**way)
    for crystal in CRYSTALS:
        trace = cf.trace(crystal, model)
        for frame in frames_of(trace):
            sets = frame.sets
            assert sets is frame.members and sets.anchor_edges is not None and frame.anchor_edges is not None
            np.testing.assert_allclose(np.add.reduceat(sets.weights, sets.offsets[:-1]), 1.0, atol=1e-12)
            for number, (atom, head) in enumerate(np.ndindex(*frame.axes.shape[:2])):
                mine = sets.of(number)
                assert (np.diff(sets.weights[mine][1:]) <= 0).all()
                assert sets.weights[mine][0] >= sets.weights[mine].max() * 0.999
                np.testing.assert_array_equal(frame.axes[atom, head], sets.axes[mine][0])
                np.testing.assert_array_equal(frame.anchor_edges[atom, head], sets.anchor_edges[mine][0])
                assert (trace.edge_index[0, sets.anchor_edges[mine]] == atom).all()
            along = np.einsum("mx,mx->m", sets.axes[:, 0], trace.edge_vectors[sets.anchor_edges[:, 0]])
            np.testing.assert_allclose(along, trace.edge_lengths[sets.anchor_edges[:, 0]])
    assert {*frames_of(cf.trace(SALT, model))[0].sets.sizes} == {24}  # the rotations of an octahedron
    assert {*frames_of(cf.trace(IRON, model))[0].sets.sizes} == {48}


def mirrored() -> list[Crystal]:
    """A site whose two nearest neighbours mirror each other, with these two in both orders.

    The two frames (one neighbour along e₁, the other beside it) weigh the same, but the head can tell them apart.
    """
    positions = 5.0 + np.array([[0, 0, 0], [0.9, 0, 1.1], [-0.9, 0, 1.1], [0, 1.7, 0.6]])
    crystal = Crystal(np.array([6, 8, 8, 9]), positions, 10.0 * np.eye(3), "mirrored")
    return [crystal, permuted(crystal, np.array([0, 2, 1, 3]))]


@pytest.mark.parametrize("way", WAYS)
def test_of_equal_frames_the_first_is_the_one_that_moments_choose(way: dict[str, Any]) -> None:
    """That is the frame of the same layer where a frame is no set."""
    weighted, single = untrained(**way), untrained(**{**way, "weighted_margin": 0.0})
    for crystal in (*CRYSTALS[:3], *mirrored()):
        frames = [frames_of(cf.trace(crystal, model))[0] for model in (weighted, single)]
        np.testing.assert_array_equal(frames[0].anchor_edges, frames[1].anchor_edges)
        np.testing.assert_allclose(frames[0].axes, frames[1].axes, atol=1e-12)
        assert frames[0].tie_margin is not None and frames[1].tie_margin is not None
        np.testing.assert_allclose(frames[0].tie_margin, frames[1].tie_margin, atol=1e-12)


def cosines(trace: CrystalTrace, layer: int, model: CrystalFramer) -> torch.Tensor:
    """Attended Gaussians of the cosines, summed over the members of each set, from the record alone."""
    record, basis = trace.layers[layer], model.config.cosine
    assert record.frame is not None
    centers = np.linspace(-1.0, 1.0, basis.n_centers)
    width = basis.width * 2.0 / (basis.n_centers - 1)
    itself = trace.edge_lengths == 0
    directions = trace.edge_vectors / np.where(itself, 1.0, trace.edge_lengths)[:, None]
    found = np.zeros((trace.n_atoms, trace.n_heads, 3, basis.n_centers))
    sets = record.frame.sets
    for number, (atom, head) in enumerate(np.ndindex(*found.shape[:2])):
        mine = (trace.edge_index[0] == atom) & ~itself
        for member in range(len(sets.weights))[sets.of(number)]:
            seen = np.exp(-(((directions[mine] @ sets.axes[member].T)[..., None] - centers) ** 2) / (2 * width**2))
            found[atom, head] += sets.weights[member] * np.tensordot(record.attention[mine, head], seen, axes=1)
    return torch.from_numpy(found)


@pytest.mark.parametrize("way", WAYS)
def test_the_record_gives_what_the_model_computes(way: dict[str, Any]) -> None:
    """Attended values and distances, and the cosines to the members by their weights, are the output of a layer."""
    model = untrained(**way)
    for crystal in CRYSTALS[2:]:
        trace = cf.trace(crystal, model)
        batch = make_batch([crystal], model.config.radius, dtype=torch.float64)
        assert [*trace.prediction.values()] == pytest.approx(model(batch)[0].tolist(), abs=1e-9)
        features, edges = model.embed(batch.atomic_numbers), Edges.of(batch)
        for layer, block in enumerate(model.blocks):
            framed = block.attention.trace(block.attention.project(features), edges).framed
            without = attended_without_cosines(trace, layer, block, features, edges)
            weights = block.attention._cosine_weights()
            seen = torch.einsum("nhkm,khdm->nhd", cosines(trace, layer, model), weights)
            torch.testing.assert_close(
                without + model.config.cosine.coefficient * seen, framed.output, atol=1e-7, rtol=0
            )
            features = block(features, edges)


def attended_without_cosines(
    trace: CrystalTrace, layer: int, block: Any, features: torch.Tensor, edges: Edges
) -> torch.Tensor:
    """Σ p (value + distance term), by the recorded attention."""
    attention, config = torch.from_numpy(trace.layers[layer].attention), block.attention.config.distance
    centers = torch.arange(1, config.n_centers + 1) * config.max_distance / config.n_centers
    width = config.width * config.max_distance / config.n_centers
    seen = torch.exp(-((edges.lengths[:, None] - centers) ** 2) / (2 * width**2))
    terms = torch.einsum("em,hdm->ehd", seen, block.attention.distance_projection)
    values = block.attention.project(features).value[edges.key] + config.coefficient * terms
    output = torch.zeros(edges.n_atoms, *values.shape[1:], dtype=torch.float64)
    return output.index_add(0, edges.query, attention[..., None] * values)


def same_sets(one: FrameSets, rotation: np.ndarray, other: FrameSets, places: list[int]) -> None:
    """Each set is the rotated one of `one`, member by member in any order; `places` numbers the sets of `other`."""
    for number, place in enumerate(places):
        turned, found = one.axes[one.of(number)] @ rotation.T, other.axes[other.of(place)]
        weights, expected = other.weights[other.of(place)], one.weights[one.of(number)]
        assert len(turned) == len(found)
        same = np.abs(turned[:, None] - found[None]).max(axis=(2, 3)) < 1e-6
        # Edges of two lengths can have one direction, and give one frame.
        np.testing.assert_allclose(same @ weights, same @ same.T @ expected / same.sum(axis=1), atol=1e-6)
        assert same.any(axis=1).all() and same.any(axis=0).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("crystal", CRYSTALS, ids=lambda crystal: crystal.id)
def test_sets_turn_with_the_crystal_and_know_no_cell(crystal: Crystal, way: dict[str, Any]) -> None:
    model, rotation = untrained(**way), random_rotation(1)
    before = cf.trace(crystal, model)
    for other, turn in (
        (rotated(crystal, rotation), rotation),
        (with_cell(crystal, np.array([[1, 1, 0], [0, 1, 0], [0, -1, 1]])), np.eye(3)),
        (supercell(crystal, (2, 1, 1)), np.eye(3)),
    ):
        after = cf.trace(other, model)
        copy_of = np.arange(len(crystal)) * (len(other) // len(crystal))
        if len(other) > len(crystal):
            copy_of = np.array(
                [np.flatnonzero(np.abs(other.positions - at).max(axis=1) < 1e-6)[0] for at in crystal.positions]
            )
        places = (copy_of[:, None] * before.n_heads + np.arange(before.n_heads)).ravel().tolist()
        for old, new in zip(frames_of(before), frames_of(after), strict=True):
            same_sets(old.sets, turn, new.sets, places)
            heaviest = new.axes[copy_of]
            np.testing.assert_allclose(spread(heaviest, after, copy_of), spread(old.axes, before, None), atol=1e-5)


def spread(axes: np.ndarray, trace: CrystalTrace, atoms: np.ndarray | None) -> np.ndarray:
    """Sorted |cosines| of the axes to the nearest neighbours: the same for all frames that the site's symmetry maps."""
    found = []
    for place, atom in enumerate(range(trace.n_atoms) if atoms is None else atoms):
        mine = np.flatnonzero((trace.edge_index[0] == atom) & (trace.edge_lengths > 0))
        near = mine[trace.edge_lengths[mine] < trace.edge_lengths[mine].min() + 1e-4]
        cosines = np.abs(axes[place] @ (trace.edge_vectors[near] / trace.edge_lengths[near, None]).T)
        found.append(np.sort(cosines.round(6), axis=-1).reshape(*axes.shape[1:3], -1)[..., -2:])
    return np.stack(found)


def test_a_region_has_the_sets_of_the_whole() -> None:
    sites = [61, 62]
    whole, region = whole_and_region(supercell(perovskite(), (3, 3, 3)), sites, **WEIGHTED)
    places = [site * whole.n_heads + head for site in sites for head in range(whole.n_heads)]
    for old, new in zip(frames_of(region), frames_of(whole), strict=True):
        same_sets(old.sets, np.eye(3), new.sets, places)
        anchors, of_whole = region.edge_vectors[old.sets.anchor_edges], whole.edge_vectors[new.sets.anchor_edges]
        mine, theirs = old.sets.of(0), new.sets.of(places[0])
        order, other = (
            np.lexsort(anchors[mine].round(4).reshape(-1, 6).T),
            np.lexsort(of_whole[theirs].round(4).reshape(-1, 6).T),
        )
        np.testing.assert_allclose(anchors[mine][order], of_whole[theirs][other], atol=1e-6)


def test_each_crystal_of_a_batch_has_its_own_edges() -> None:
    model = untrained(**WEIGHTED)
    crystals = [SALT, perovskite(), IRON]
    together = model.trace(make_batch(crystals, model.config.radius, dtype=torch.float64))
    for crystal, among in zip(crystals, together, strict=True):
        for old, new in zip(frames_of(cf.trace(crystal, model)), frames_of(among), strict=True):
            np.testing.assert_array_equal(old.sets.offsets, new.sets.offsets)
            assert old.sets.anchor_edges is not None and new.sets.anchor_edges is not None
            edges = np.sort(old.sets.anchor_edges, axis=0), np.sort(new.sets.anchor_edges, axis=0)
            np.testing.assert_array_equal(*edges)


def test_only_frames_of_no_weight_are_left_out() -> None:
    """A neighbour that has almost left the margin."""
    crystal = perovskite()
    model = untrained(**WEIGHTED)
    dropped = 0
    for seed in range(20):
        moved = Crystal(crystal.atomic_numbers, crystal.positions.copy(), crystal.lattice)
        moved.positions[1] += 0.1 * seed / 20 * random_rotation(seed)[0]
        batch = make_batch([moved], model.config.radius, dtype=torch.float64)
        block, edges = model.blocks[0], Edges.of(batch)
        with torch.no_grad():
            attended = block.attention.trace(
                block.attention.project(model.embed(batch.atomic_numbers)), edges
            ).framed.attended
        assert attended is not None
        found = torch.cat([part.cost for part in weighted_frames(attended, attended.logits, 0.1, "off-line")])
        sets = frames_of(model.trace(batch)[0])[0].sets
        dropped += int((found > -np.log(SMALLEST_WEIGHT)).sum())
        assert len(sets.weights) == int((found <= -np.log(SMALLEST_WEIGHT)).sum())
        np.testing.assert_allclose(sets.mean(np.ones(len(sets.weights))), 1.0)
    assert dropped > 0


def test_models_of_one_frame_have_sets_of_one() -> None:
    ways: list[dict[str, Any]] = [{}, {"method": "weighted-pca"}, {"method": "lattice"}]
    for way in ways:
        for frame in frames_of(cf.trace(SALT, untrained(**way))):
            assert frame.members is None and (frame.sets.sizes == 1).all()
            assert (frame.sets.anchor_edges is None) == (frame.anchor_edges is None)
            np.testing.assert_array_equal(frame.sets.axes.reshape(frame.axes.shape), frame.axes)
