"""Motifs against ChemEnv, against textbook crystals, and attention and frames against shells of known geometry."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from refusals import refused
from synthetic_traces import perovskite, synthetic_trace, weighted_trace, with_dead_head

from benchmarks import motifs as benchmark
from crystalframer.analysis import (
    Shell,
    bond_angles,
    chance_angle,
    chance_angle_given_e1,
    coordination_shells,
    ideal_polyhedra,
    ideal_vectors,
    motif_summary,
    motif_table,
    motifs,
    polyhedra,
    polyhedron_name,
    shell_attention,
    symmetry_measures,
)
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import MotifError, PolyhedronError
from crystalframer.testing import permuted, random_rotation, rewrapped, rotated, translated, with_cell
from crystalframer.traces import CrystalTrace, FrameSets, FrameTrace

ORACLE = json.loads((Path(__file__).parent / "motif_oracle.json").read_text(encoding="utf-8"))
"""ChemEnv's answers (scripts/build_motif_oracle.py)."""
SYMBOLS = [symbol for n in range(1, 14) for symbol in ideal_polyhedra(n)]
N_LAYERS, N_HEADS = 3, 4


make_trace = partial(synthetic_trace, radius=5.0, content=0.0)
"""Every frame is anchored on a nearest neighbour, and on one across it."""


def with_edges(trace: CrystalTrace, edges: np.ndarray) -> CrystalTrace:
    """The trace with these edges only, in this order."""
    layers = tuple(replace(layer, attention=layer.attention[edges]) for layer in trace.layers)
    return replace(trace, edge_index=trace.edge_index[:, edges], edge_image=trace.edge_image[edges], layers=layers)


def with_axes(trace: CrystalTrace, change: Callable[[np.ndarray], np.ndarray]) -> CrystalTrace:
    """The first layer alone, its frames changed."""
    layer = trace.layers[0]
    assert layer.frame is not None
    frame = replace(layer.frame, axes=change(layer.frame.axes))
    return replace(trace, layers=(replace(layer, frame=frame),))


def zincblende() -> Crystal:
    """The primitive cell: two atoms, every neighbour in another cell or this one."""
    lattice = 5.41 / 2 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Crystal(np.array([30, 16]), np.array([[0, 0, 0], [0.25, 0.25, 0.25]]) @ lattice, lattice, id="ZnS")


TRACE = make_trace(perovskite())


# --- polyhedra --------------------------------------------------------------------------------------------------------


def test_the_oracle_covers_thirty_prototypes_and_the_usual_motifs() -> None:
    assert len({record["prototype"] for record in ORACLE}) >= 30
    labels = {min(record["csm"], key=record["csm"].get) for record in ORACLE}
    assert {"L:2", "TL:3", "T:4", "T:5", "O:6", "T:6", "C:8", "C:12", "AC:12", "I:12"} <= labels


@pytest.mark.parametrize("record", ORACLE, ids=lambda record: f"{record['prototype']}-{record['site']}")
def test_label_and_csm_are_those_of_chemenv(record: dict[str, Any]) -> None:
    measures, theirs = symmetry_measures(np.array(record["vectors"])), record["csm"]
    label = min(theirs, key=theirs.get)
    assert next(iter(measures)) == label
    if label == "SH:13":
        # ChemEnv tries few of the 13! matches here and ends at 50 to 60. A match that reaches less is a better minimum.
        assert measures[label] < theirs[label] - 10
    else:
        assert measures[label] == pytest.approx(theirs[label], abs=0.01)
    # ChemEnv leaves out matches of far shapes too; where we try all, we never end above it.
    if len(record["vectors"]) <= polyhedra.LARGEST_EXACT:
        assert measures.keys() == theirs.keys()
        assert all(measures[symbol] <= theirs[symbol] + 1e-3 for symbol in theirs)


def test_the_ideals_are_those_of_chemenv() -> None:
    from pymatgen.analysis.chemenv.coordination_environments.coordination_geometries import AllCoordinationGeometries

    known: Any = AllCoordinationGeometries()
    for n in (*range(1, 11), 12, 13):
        theirs = {shape.mp_symbol: shape for shape in known.get_implemented_geometries(n)}
        assert set(theirs) - {"SC:12"} == set(ideal_polyhedra(n))
        for symbol in ideal_polyhedra(n):
            assert symmetry_measures(np.array(theirs[symbol].points, dtype=np.float64))[symbol] < 1e-8


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_an_ideal_is_nearest_to_itself_however_it_is_turned_scaled_and_ordered(symbol: str) -> None:
    vectors = ideal_vectors(symbol)
    rng = np.random.default_rng(0)
    changed = 2.3 * rng.permutation(vectors) @ random_rotation(1).T
    for same in (changed, -changed):  # a mirror image counts as the same shape
        found, csm = next(iter(symmetry_measures(same).items()))
        assert (found, csm) == (symbol, pytest.approx(0.0, abs=1e-8))
    assert np.linalg.norm(vectors, axis=1).max() == pytest.approx(1.0)


def test_the_measure_by_its_definition() -> None:
    """The least squares over all 120 orders, rotation and scale by SVD: no symmetry, no bound, no table."""
    vectors = np.random.default_rng(2).normal(size=(5, 3))
    points = polyhedra._normalised(vectors)
    for symbol, csm in symmetry_measures(vectors).items():
        ideal = polyhedra._normalised(ideal_vectors(symbol))
        remains = []
        for order in permutations(range(1, 6)):
            corners = ideal[[0, *order]]
            left, _, right = np.linalg.svd(points.T @ corners)
            turned = points @ (left @ right)
            scale = (turned * corners).sum()
            remains.append(100 * ((corners - scale * turned) ** 2).sum())
        assert csm == pytest.approx(min(remains), abs=1e-9)


def test_an_atom_off_its_centre_raises_the_measure() -> None:
    """Two neighbours on a line, the centre 0.3 from the middle; by hand in one dimension."""
    delta = 0.3
    vectors = np.array([[0, 0, 1 - delta], [0, 0, -1 - delta]])
    points = np.array([0.0, 1 - delta, -1 - delta])
    points -= points.mean()
    overlap = (points @ [0.0, 1.0, -1.0]) ** 2 / ((points @ points) * 2.0)
    assert symmetry_measures(vectors)["L:2"] == pytest.approx(100 * (1 - overlap))
    assert 100 * (1 - overlap) > 1


@pytest.mark.parametrize("symbol", ["SBT:8", "BO_2:8", "HB:8"])
def test_the_search_for_large_shells_finds_what_trying_all_finds(symbol: str) -> None:
    ideals = ideal_polyhedra(8)
    for seed in range(4):
        noise = np.random.default_rng(seed).normal(0, 0.15, (8, 3))
        points = polyhedra._normalised(ideal_vectors(symbol) + noise)
        exact, found = polyhedra._best_of_all(points, ideals), polyhedra._best_found(points, ideals)
        assert max(found) == pytest.approx(max(exact), abs=1e-9)
        assert np.argmax(found) == np.argmax(exact)
        assert all(f <= e + 1e-9 for f, e in zip(found, exact, strict=True))


@pytest.mark.parametrize("n", [0, 11, 14])
def test_shells_without_an_ideal(n: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(n, 3))
    assert symmetry_measures(vectors) == {}
    shell = Shell(0, np.zeros(n, int), np.zeros((n, 3), int), np.zeros(n, int), vectors)
    assert shell.label == f"?:{n}" and np.isnan(shell.csm) and shell.name == f"{n} neighbours"


def test_an_unknown_polyhedron_is_named() -> None:
    with refused(PolyhedronError, "'O:7'", "S:1, L:2", field="symbol"):
        polyhedron_name("O:7")


# --- shells -----------------------------------------------------------------------------------------------------------


def test_textbook_shells() -> None:
    strontium, titanium, *oxygen = coordination_shells(TRACE)
    assert (strontium.label, titanium.label) == ("C:12", "O:6")
    assert [shell.label for shell in oxygen] == ["L:2"] * 3
    assert {len(strontium), len(titanium)} == {12, 6}
    assert titanium.csm == pytest.approx(0.0, abs=1e-6)
    assert titanium.name == "octahedron"
    assert [shell.label for shell in coordination_shells(make_trace(zincblende()))] == ["T:4", "T:4"]


CHANGES: dict[str, Callable[[Crystal], Crystal]] = {
    "home": lambda crystal: crystal,
    "rewrapped": lambda crystal: rewrapped(crystal, 1),
    "translated": lambda crystal: translated(crystal, np.array([-7.3, 11.1, 0.4])),
    "rotated": lambda crystal: rotated(crystal, random_rotation(2)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("make", [perovskite, zincblende])
def test_shells_are_edges_of_the_trace_wherever_the_atoms_lie(make: Any, change: str) -> None:
    trace = make_trace(CHANGES[change](make()))
    for before, shell in zip(coordination_shells(make_trace(make())), coordination_shells(trace), strict=True):
        assert (shell.label, len(shell)) == (before.label, len(before))
        assert (shell.edges >= 0).all() and len(set(shell.edges.tolist())) == len(shell)
        assert (trace.edge_index[0, shell.edges] == shell.site).all()
        assert (trace.edge_index[1, shell.edges] == shell.key).all()
        assert (trace.edge_image[shell.edges] == shell.image).all()
        np.testing.assert_allclose(trace.edge_vectors[shell.edges], shell.vectors, atol=1e-6)
        assert np.ptp(np.linalg.norm(shell.vectors, axis=1)) < 1e-6


def test_a_bond_longer_than_the_radius_of_the_model_has_no_edge() -> None:
    whole = make_trace(perovskite())
    near = whole.edge_lengths < 2.5  # Ti-O is 1.95 Å, Sr-O 2.76 Å
    trace = with_edges(whole, near)
    strontium, titanium, *_ = coordination_shells(trace)
    assert (strontium.edges == -1).all() and len(strontium) == 12
    assert (titanium.edges >= 0).all()
    np.testing.assert_array_equal(shell_attention(trace, strontium).share, 0.0)


def test_bonds_that_the_trace_lacks() -> None:
    """One of titanium's six; of strontium it has no edge at all."""
    whole = make_trace(perovskite(), "none")
    lacking = coordination_shells(whole)[1].edges[3]
    kept = np.flatnonzero((whole.edge_index[0] != 0) & (np.arange(len(whole.edge_lengths)) != lacking))
    trace = with_edges(whole, kept)
    strontium, titanium, *_ = coordination_shells(trace)
    assert strontium.edges.tolist() == [-1] * 12
    assert (titanium.edges == -1).tolist() == [False, False, False, True, False, False]
    bonds = titanium.edges[titanium.edges >= 0]
    found = shell_attention(trace, titanium).share[0]
    np.testing.assert_allclose(found, trace.layers[0].attention[bonds].sum(axis=0), rtol=1e-5)


def test_another_finder() -> None:
    from pymatgen.analysis.local_env import CutOffDictNN

    shells = coordination_shells(TRACE, CutOffDictNN({("Ti", "O"): 2.2}))
    assert [shell.label for shell in shells] == ["?:0", "O:6", "L:2", "L:2", "L:2"]
    found = shell_attention(TRACE, shells[0])
    assert found.angles is not None and np.isnan(found.angles).all() and np.isnan(found.chance)


def test_chosen_sites() -> None:
    assert [(shell.site, shell.label) for shell in coordination_shells(TRACE, sites=[2, 1])] == [(2, "L:2"), (1, "O:6")]
    with refused(MotifError, "'SrTiO3'", "0 to 4", site=5):
        coordination_shells(TRACE, sites=[5])
    with refused(MotifError, "0 to 4", site=-1):
        coordination_shells(replace(TRACE, id=""), sites=[-1])


def broken() -> CrystalTrace:
    """Positions of a calculation that went astray."""
    trace = make_trace(zincblende())
    return replace(trace, positions=np.full((2, 3), np.nan), id="astray")


def test_a_site_whose_neighbours_cannot_be_found_is_named() -> None:
    from pymatgen.analysis.local_env import CrystalNN

    with refused(MotifError, "'astray'", "Zn", "CrystalNN", "Error: ", site=0):
        coordination_shells(broken(), CrystalNN())
    with refused(MotifError, "'astray'", "Zn", "not a number", site=0):
        coordination_shells(broken())


# --- angles and chance ------------------------------------------------------------------------------------------------


def test_angles_by_hand() -> None:
    tetrahedron = ideal_vectors("T:4")
    np.testing.assert_allclose(bond_angles(tetrahedron, tetrahedron), 0.0, atol=1e-5)
    to_the_face = np.rad2deg(np.arccos(1 / 3))
    np.testing.assert_allclose(bond_angles(-tetrahedron, tetrahedron), to_the_face)
    np.testing.assert_allclose(bond_angles(-tetrahedron, tetrahedron, either_sign=True), 0.0, atol=1e-5)
    diagonal = np.array([[1.0, 1.0, 1.0]]) / np.sqrt(3)
    np.testing.assert_allclose(bond_angles(diagonal, ideal_vectors("O:6")), np.rad2deg(np.arccos(1 / np.sqrt(3))))


def test_rounding_leaves_no_angle_undefined() -> None:
    """Cosines of a direction with itself and with its opposite exceed 1 by a bit."""
    vectors = np.random.default_rng(0).normal(size=(100, 3))
    for bond in vectors / np.linalg.norm(vectors, axis=1, keepdims=True):
        np.testing.assert_allclose(bond_angles(np.stack([bond, -bond]), bond[None]), [0.0, 180.0], atol=1e-5)


@pytest.mark.parametrize(("symbol", "either_sign", "expected"), [("S:1", False, 90.0), ("S:1", True, 180 / np.pi)])
def test_chance_with_one_bond(symbol: str, either_sign: bool, expected: float) -> None:
    """∫θ sinθ/2 over 0..π is π/2; with both signs ∫θ sinθ over 0..π/2 is 1 rad."""
    assert chance_angle(ideal_vectors(symbol), either_sign) == pytest.approx(expected, abs=0.01)


def test_chance_of_e2_goes_once_round_e1() -> None:
    """One bond across e₁: the angle runs from 0° to 180° and back, to 90° if signs do not count. Along e₁ it stays."""
    e1 = np.array([0.0, 0.0, 1.0])
    for bond in [*np.eye(3)[:2], *-np.eye(3)[:2]]:
        assert chance_angle_given_e1(e1, bond[None]) == pytest.approx(90.0, abs=1e-6)
        assert chance_angle_given_e1(e1, bond[None], either_sign=True) == pytest.approx(45.0, abs=1e-6)
    assert chance_angle_given_e1(e1, e1[None]) == pytest.approx(90.0)


@pytest.mark.parametrize("symbol", ["T:4", "O:6", "C:12"])
def test_chance_is_what_random_frames_come_to(symbol: str) -> None:
    bonds = ideal_vectors(symbol)
    frames = np.linalg.qr(np.random.default_rng(0).normal(size=(20_000, 3, 3)))[0]
    angles = bond_angles(frames, bonds).mean(axis=0)
    np.testing.assert_allclose(angles, chance_angle(bonds), atol=0.4)
    turned = chance_angle_given_e1(frames[:, 0], bonds)
    assert turned.shape == (20_000,)
    assert turned.mean() == pytest.approx(chance_angle(bonds), abs=0.4)  # averaged over e₁, e₂ is as free as any axis
    assert chance_angle(bonds) == pytest.approx(chance_angle(bonds @ random_rotation(5).T), abs=0.01)


# --- attention --------------------------------------------------------------------------------------------------------


def test_share_counts_each_bond_once_and_itself_apart() -> None:
    titanium = coordination_shells(TRACE)[1]
    found = shell_attention(TRACE, titanium)
    bonds = (TRACE.edge_index[0] == 1) & (np.abs(TRACE.edge_lengths - 3.905 / 2) < 1e-3)
    itself = (TRACE.edge_index[0] == 1) & (TRACE.edge_lengths < 1e-6)
    assert bonds.sum() == 6 and itself.sum() == 1
    for number, layer in enumerate(TRACE.layers):
        np.testing.assert_allclose(found.share[number], layer.attention[bonds].sum(axis=0), rtol=1e-5)
        np.testing.assert_allclose(found.itself[number], layer.attention[itself].sum(axis=0), rtol=1e-5)
    assert ((found.share > 0) & (found.share + found.itself < 1)).all()


def test_frames_on_bonds_are_locked_and_turned_ones_are_not() -> None:
    titanium = coordination_shells(TRACE)[1]
    found = shell_attention(TRACE, titanium)
    assert found.angles is not None and found.anchors_in_shell is not None and found.e2_chance is not None
    np.testing.assert_allclose(found.angles, 0.0, atol=1e-4)
    np.testing.assert_allclose(found.e2_chance, 22.5, atol=0.01)
    assert found.anchors_in_shell.all()

    first = TRACE.layers[0]
    assert first.frame is not None
    diagonal = np.array([1.0, 1, 1]) / np.sqrt(3), np.array([1.0, -1, 0]) / np.sqrt(2)
    axes = first.frame.axes.copy()
    axes[1] = np.stack([*diagonal, np.cross(*diagonal)])
    far = int(np.argmax(np.where(TRACE.edge_index[0] == 1, TRACE.edge_lengths, 0)))
    anchors = np.full_like(first.frame.anchor_edges, far)
    turned = replace(first, frame=FrameTrace("max", axes, anchors))
    found = shell_attention(replace(TRACE, layers=(turned,)), titanium)
    assert found.angles is not None and found.anchors_in_shell is not None
    np.testing.assert_allclose(found.angles[0, :, :2], [[54.7356, 45.0]] * N_HEADS, atol=1e-3)
    assert not found.anchors_in_shell.any()


def test_a_shell_is_found_among_edges_in_any_order() -> None:
    """Also where a bond comes first of all."""
    trace = make_trace(perovskite(), "none")
    titanium = coordination_shells(trace)[1]
    order = np.roll(np.arange(len(trace.edge_lengths)), -titanium.edges[2])
    other = with_edges(trace, order)
    again = coordination_shells(other)[1]
    assert again.edges[2] == 0
    before, after = shell_attention(trace, titanium), shell_attention(other, again)
    np.testing.assert_allclose(after.share, before.share, rtol=1e-12)
    np.testing.assert_allclose(after.itself, before.itself, rtol=1e-12)


@pytest.mark.parametrize("either_sign", [False, True])
def test_angles_and_baselines_follow_the_sign_alike(either_sign: bool) -> None:
    """In float64, whatever the trace holds, and one way only unless told otherwise."""
    trace = with_axes(make_trace(zincblende()), lambda axes: -axes.astype(np.float32))
    layer, zinc = trace.layers[0], coordination_shells(trace)[0]
    trace = replace(trace, layers=(replace(layer, attention=layer.attention.astype(np.float32)),))
    found = shell_attention(trace, zinc, **({"either_sign": True} if either_sign else {}))
    assert found.angles is not None and found.e2_chance is not None
    np.testing.assert_allclose(found.angles[..., 0], 0.0 if either_sign else np.rad2deg(np.arccos(1 / 3)), atol=0.05)
    assert found.chance == chance_angle(zinc.bonds, either_sign)
    assert layer.frame is not None
    e1 = layer.frame.axes[zinc.site, :, 0].astype(np.float64)
    np.testing.assert_allclose(found.e2_chance[0], chance_angle_given_e1(e1, zinc.bonds, either_sign), rtol=1e-12)
    assert {found.share.dtype, found.itself.dtype, found.angles.dtype, found.e2_chance.dtype} == {np.dtype(np.float64)}


def test_frames_without_anchors_and_traces_without_frames() -> None:
    pca, none = (make_trace(perovskite(), method) for method in ("pca", "none"))
    found = shell_attention(pca, coordination_shells(pca)[1])
    assert found.anchors_in_shell is None and found.angles is not None
    found = shell_attention(none, coordination_shells(none)[1])
    assert found.anchors_in_shell is None and found.angles is None and found.e2_chance is None
    table: Any = motif_table([pca, none])
    assert table["e1_in_shell"].isna().all() and table["e1_in_shell"].dtype == np.float64
    assert table.groupby("method")["e1_angle"].apply(lambda angle: angle.isna().all()).to_dict() == {
        "none": True,
        "pca": False,
    }
    summary: Any = motif_summary(table[table["method"] == "none"])
    assert summary["e1_lock"].isna().all() and summary["share"].notna().all()


def accidental() -> Crystal:
    """C with two O and three F at one distance, in directions that no symmetry relates."""
    directions = np.array([random_rotation(seed)[0] for seed in (3, 4, 6, 7, 9)])
    positions = 4.5 + np.vstack([np.zeros(3), 1.6 * directions])
    return Crystal(np.array([6, 8, 8, 9, 9, 9]), positions, 9.0 * np.eye(3), id="accidental")


def test_members_of_a_set_count_by_their_weights() -> None:
    titanium = coordination_shells(TRACE)[1]
    record = TRACE.layers[0]
    assert record.frame is not None
    old = record.frame.sets
    assert old.anchor_edges is not None
    n, far = len(old.weights), int(np.argmax(np.where(TRACE.edge_index[0] == 1, TRACE.edge_lengths, 0)))
    turn = random_rotation(1)
    members = FrameSets(
        2 * np.arange(n + 1),
        np.tile([0.75, 0.25], n),
        np.stack([old.axes, old.axes @ turn.T], axis=1).reshape(-1, 3, 3),
        np.stack([old.anchor_edges, np.full((n, 2), far)], axis=1).reshape(-1, 2),
    )
    frames = [replace(record.frame, axes=record.frame.axes @ turn.T), replace(record.frame, members=members)]
    turned, both = (
        shell_attention(replace(TRACE, layers=(replace(record, frame=frame),)), titanium) for frame in frames
    )
    assert turned.angles is not None and both.angles is not None
    assert turned.e2_chance is not None and both.e2_chance is not None and both.anchors_in_shell is not None
    np.testing.assert_allclose(both.angles, 0.25 * turned.angles, atol=1e-4)  # the others lie along bonds
    np.testing.assert_allclose(both.e2_chance, 0.75 * 22.5 + 0.25 * turned.e2_chance, atol=0.01)
    np.testing.assert_allclose(both.anchors_in_shell, 0.75)


def test_an_axis_without_direction_counts_with_both_signs() -> None:
    trace = with_axes(make_trace(zincblende()), lambda axes: axes @ random_rotation(2))
    layer, zinc = trace.layers[0], coordination_shells(trace)[0]
    assert layer.frame is not None
    frames = [layer.frame, replace(layer.frame, axes=-layer.frame.axes), replace(layer.frame, unsigned_axis=2)]
    there, back, line = (
        shell_attention(replace(trace, layers=(replace(layer, frame=frame),)), zinc).angles for frame in frames
    )
    assert there is not None and back is not None and line is not None
    np.testing.assert_array_equal(line[..., :2], there[..., :2])
    np.testing.assert_allclose(line[..., 2], (there[..., 2] + back[..., 2]) / 2)


def test_statistics_of_sets_know_no_chosen_frame() -> None:
    """Edges that tie without symmetry: rounding and the order of atoms decide which is first, but not what ties."""
    from pymatgen.analysis.local_env import CutOffDictNN

    bonds = CutOffDictNN({("C", "O"): 2.0})
    crystal, others = accidental(), [permuted(accidental(), np.array([0, 2, 1, 5, 4, 3]))]
    others += [rotated(accidental(), random_rotation(seed)) for seed in range(3)]
    others += [with_cell(accidental(), np.eye(3, dtype=int)[[1, 2, 0]])]

    def columns(crystal: Crystal, margin: float) -> np.ndarray:
        trace = weighted_trace(crystal, method="static-max", tie_margin=0.0, weighted_margin=margin)
        table: Any = motif_table([trace], finder=bonds)
        names = ["e1_angle", "e2_angle", "e3_angle", "e1_in_shell", "e2_in_shell", "e2_chance_angle"]
        return table[table["element"] == "C"][names].to_numpy()

    expected = columns(crystal, 0.1)
    np.testing.assert_allclose(expected[:, 3], 2 / 5, atol=1e-9)  # of the first edges, two lead to O
    for other in others:
        np.testing.assert_allclose(columns(other, 0.1), expected, atol=1e-3)  # a baseline is exact to this
    assert max(np.abs(columns(other, 0.0) - columns(crystal, 0.0)).max() for other in others) > 1.0


# --- tables -----------------------------------------------------------------------------------------------------------


def test_the_table_says_what_the_shells_say() -> None:
    table: Any = motif_table(iter([TRACE, make_trace(zincblende())]), progress=False)
    assert len(table) == 7 * N_LAYERS * N_HEADS
    assert not table.duplicated(["id", "site", "layer", "head"]).any()
    assert table.attrs["errors"] == {} and table.attrs["units"]["e1_angle"] == "°"
    assert set(table["element"]) == {"Sr", "Ti", "O", "Zn", "S"}
    found = shell_attention(TRACE, coordination_shells(TRACE)[1])
    rows = table.query("id == 'SrTiO3' and site == 1").set_index(["layer", "head"])
    assert set(rows["label"]) == {"O:6"} and set(rows["coordination"]) == {6}
    for layer, head in np.ndindex(N_LAYERS, N_HEADS):
        row = rows.loc[(layer, head)]
        assert row["share"] == found.share[layer, head]
        assert row["itself"] == found.itself[layer, head]
        assert row["chance_angle"] == found.chance
        assert row["e1_in_shell"] and row["method"] == "max"


def test_a_structure_that_fails_costs_only_its_own_rows() -> None:
    with pytest.warns(
        UserWarning, match=r"no motifs for 1 structures, which have no rows: astray \(crystal 'astray'"
    ) as caught:
        table = motif_table([TRACE, broken(), make_trace(zincblende())])
    assert set(table["id"]) == {"SrTiO3", "ZnS"}
    assert list(table.attrs["errors"]) == ["astray"]
    assert str(caught[0].message).endswith('correct the structure); see attrs["errors"]')


def test_structures_without_a_name_are_numbered() -> None:
    nameless = replace(broken(), id="")
    with pytest.warns(
        UserWarning, match=r"for 2 structures, .*: structure-1 \(crystal, site 0 .* and 1 more; see attrs"
    ):
        table = motif_table([TRACE, nameless, replace(TRACE, id=""), broken()])
    assert list(table["id"].unique()) == ["SrTiO3", "structure-2"]
    assert list(table.attrs["errors"]) == ["structure-1", "astray"]


def test_the_table_takes_the_finder_and_the_sign_of_the_axes() -> None:
    from pymatgen.analysis.local_env import CutOffDictNN

    trace = with_axes(make_trace(zincblende()), np.negative)
    np.testing.assert_allclose(motif_table([trace])["e1_angle"], np.rad2deg(np.arccos(1 / 3)), atol=1e-4)
    np.testing.assert_allclose(motif_table([trace], either_sign=True)["e1_angle"], 0.0, atol=1e-4)
    found = motif_table([trace], finder=CutOffDictNN({("Zn", "Zn"): 4.0}))
    assert found.groupby("element")["coordination"].first().to_dict() == {"S": 0, "Zn": 12}


@pytest.mark.parametrize("progress", [True, False])
@pytest.mark.parametrize(("kind", "total"), [(list, 2), (iter, None)])
def test_the_progress_bar_knows_the_end_where_it_can(
    kind: Any, total: int | None, progress: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = Mock(wraps=motifs.tqdm)
    monkeypatch.setattr(motifs, "tqdm", bar)
    traces = kind([TRACE, TRACE])
    motif_table(traces) if progress else motif_table(traces, progress=False)
    options = bar.call_args.kwargs
    assert (options["total"], options["delay"], options["disable"]) == (total, 2, not progress)


def test_no_traces_make_an_empty_table_with_all_columns() -> None:
    empty: Any = motif_table([])
    full: Any = motif_table([TRACE])
    assert list(empty.columns) == list(full.columns) and len(empty) == 0
    numbers = full.select_dtypes("number").columns
    assert list(empty[numbers].dtypes) == list(full[numbers].dtypes)


def test_the_summary_averages_structures_not_sites() -> None:
    other = replace(make_trace(zincblende(), seed=1), id="other")
    table: Any = motif_table([make_trace(zincblende()), other, TRACE])
    summary: Any = motif_summary(table)
    assert len(summary) == 4 * N_LAYERS * N_HEADS  # T:4, O:6, C:12 and L:2
    row = summary.query("label == 'T:4' and layer == 1 and head == 2").iloc[0]
    rows = table.query("label == 'T:4' and layer == 1 and head == 2")
    means = rows.groupby("id")["share"].mean()
    assert (row["n_sites"], row["n_structures"]) == (4, 2)
    assert row["share"] == pytest.approx(means.mean())
    assert row["share_se"] == pytest.approx(abs(means.iloc[0] - means.iloc[1]) / 2)
    assert row["e1_lock"] == pytest.approx(1 - rows["e1_angle"].mean() / rows["chance_angle"].mean())
    assert row["e1_in_shell"] == 1.0
    assert summary.query("label == 'O:6'")["share_se"].isna().all()


def test_locks_are_the_shares_of_chance_by_which_angles_fall_short() -> None:
    """Frames that look along no bond; e₂ has a chance of its own, e₁ and e₃ share one."""
    table: Any = motif_table([with_axes(TRACE, lambda axes: axes @ random_rotation(3))])
    summary: Any = motif_summary(table)
    assert len(summary) == 3 * N_HEADS
    for _, row in summary.iterrows():
        rows = table.query(f"label == {row['label']!r} and head == {row['head']}")
        means = rows[["e1_angle", "e2_angle", "e3_angle", "chance_angle", "e2_chance_angle"]].mean()
        e1, e2, e3, chance, e2_chance = means
        assert min(e1, e2, e3) > 1 and abs(chance - e2_chance) > 1
        assert row["e1_lock"] == pytest.approx(1 - e1 / chance)
        assert row["e2_lock"] == pytest.approx(1 - e2 / e2_chance)
        assert row["e3_lock"] == pytest.approx(1 - e3 / chance)
    angles = [*(f"{axis}_angle{end}" for axis in ("e1", "e2", "e3") for end in ("", "_se")), "chance_angle"]
    assert summary.attrs["units"] == dict.fromkeys([*angles, "e2_chance_angle"], "°")


def test_the_summary_names_a_missing_column() -> None:
    with refused(MotifError, "motif_table", field="share"):
        motif_summary(motif_table([TRACE]).drop(columns="share"))
    with refused(MotifError, "id, csm", field="id"):
        motif_summary(motif_table([TRACE]).drop(columns=["csm", "id"]))


# --- the package ------------------------------------------------------------------------------------------------------


def test_the_benchmark_says_what_it_must(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "motifs.json"
    benchmark.main(["--quick", "--threads", "1", "--output", str(path)])
    assert "QUICK" in capsys.readouterr().out
    record = json.loads(path.read_text(encoding="utf-8"))
    assert {row["candidate"] for row in record["rows"]} == {"crystalframer", "pymatgen, ChemEnv"}
    assert all(row["unit"] == "ms/site" and row["value"] > 0 for row in record["rows"])
    assert record["bars"] and record["data"]["name"]


def test_frames_that_change_nothing_are_not_counted() -> None:
    """One of two structures has a dead head: angles are those of the other, and the share of dead frames is half."""
    both: Any = motif_summary(motif_table([with_dead_head(TRACE, 1, 2), replace(TRACE, id="alive")]))
    one: Any = motif_summary(motif_table([replace(TRACE, id="alive")]))
    there = "layer == 1 and head == 2"
    measured = ["e1_angle", "e2_angle", "e3_angle", "e2_chance_angle", "e1_in_shell", "e2_in_shell", "e1_lock"]
    assert both.query(there)[measured].to_numpy() == pytest.approx(one.query(there)[measured].to_numpy())
    assert (both.query(there)["dead"] == 0.5).all() and (both.query(f"not ({there})")["dead"] == 0).all()
    assert (both.query(there)["share"].to_numpy() < one.query(there)["share"].to_numpy()).all()
    none: Any = motif_summary(motif_table([with_dead_head(TRACE, 1, 2)]))
    assert none.query(there)["e1_angle"].isna().all() and (none.query(there)["dead"] == 1).all()
