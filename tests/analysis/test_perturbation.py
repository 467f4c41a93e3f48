"""Frames and predictions of displaced atoms: angles by hand, nothing for nothing, and what separates the methods."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sensitive_models import sensitive_model
from synthetic_traces import perovskite, synthetic_trace, untrained, with_dead_head

from crystalframer.analysis.perturbation import _changes, displaced, perturb, rotation_angles, set_rotation, tied_frames
from crystalframer.config import FrameMethod, Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.testing import prototypes, random_crystal, random_rotation
from crystalframer.traces import FrameSets, FrameTrace

CRYSTAL = random_crystal(seed=4, n_atoms=5)
CHANGE = "change/formation_energy_per_atom"


make_model = partial(sensitive_model, [CRYSTAL])


def about_z(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])


# The angle between frames


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 0.003, 30.0, 90.0, 120.0, 179.0, 180.0])
def test_angle_of_a_known_rotation(degrees: float) -> None:
    start = random_rotation(5)
    assert rotation_angles(start, start @ about_z(degrees)) == pytest.approx(degrees, rel=1e-6, abs=1e-13)
    assert rotation_angles(start, start @ about_z(-degrees)) == pytest.approx(degrees, rel=1e-6, abs=1e-13)


def test_angle_of_permuted_axes() -> None:
    """Taking x to y, y to z and z to x turns by 120° about the diagonal; inverting two axes by 180°."""
    assert rotation_angles(np.eye(3), np.eye(3)[[1, 2, 0]]) == pytest.approx(120.0, rel=1e-12)
    assert rotation_angles(np.eye(3), np.diag([-1.0, -1.0, 1.0])) == pytest.approx(180.0, rel=1e-12)


def test_frames_are_compared_by_the_axes_that_both_have() -> None:
    """Neighbours on a line fix e₁ alone. When they leave the line, e₂ is there at once, and e₁ turns a little."""
    on_line, no_axes = np.diag([1.0, 0.0, 0.0]), np.zeros((3, 3))
    for other in (about_z(2.0), on_line @ about_z(2.0)):
        assert rotation_angles(on_line, other) == pytest.approx(2.0, rel=1e-6)
    assert rotation_angles(on_line, -on_line) == pytest.approx(180.0)
    assert rotation_angles(no_axes, np.eye(3)) == 0.0


def test_angles_of_many_frames_are_those_of_each() -> None:
    before = np.stack([random_rotation(n) for n in range(6)]).reshape(2, 3, 3, 3)
    after = np.stack([random_rotation(n + 9) for n in range(6)]).reshape(2, 3, 3, 3)
    angles = rotation_angles(before, after)
    assert angles.shape == (2, 3)
    for place in itertools.product(range(2), range(3)):
        cosine = (np.trace(after[place] @ before[place].T) - 1) / 2
        assert angles[place] == pytest.approx(np.degrees(np.arccos(cosine)), rel=1e-9)


# Weighted sets


def set_of(axes: list[np.ndarray], weights: list[float]) -> FrameSets:
    return FrameSets(np.array([0, len(weights)]), np.array(weights), np.stack(axes))


def test_weight_moves_as_little_as_possible() -> None:
    near, far = about_z(6.0), about_z(90.0)
    before = set_of([np.eye(3), far], [0.6, 0.4])
    assert set_rotation(before, set_of([far, np.eye(3)], [0.4, 0.6])) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert set_rotation(before, set_of([near, far], [0.6, 0.4])) == pytest.approx((3.6, 0.0))
    assert set_rotation(before, set_of([np.eye(3), far], [0.5, 0.5])) == pytest.approx((9.0, 0.1))
    assert set_rotation(before, set_of([near], [1.0])) == pytest.approx((0.6 * 6.0 + 0.4 * 84.0, 0.4))
    assert set_rotation(set_of([near], [1.0]), set_of([far], [1.0])) == pytest.approx((84.0, 1.0))


def test_weighted_sets_follow_smoothly_where_a_chosen_frame_jumps() -> None:
    """At rock salt all neighbours tie: a chosen frame jumps at once, weights change little by little."""
    (rock_salt,) = (crystal for crystal in prototypes() if crystal.formula == "NaCl")
    columns = ["max_rotation/0", "jumped/0", "tied/0"]

    def changes(displacements: list[float], **frame: Any) -> np.ndarray:
        return perturb(untrained(**frame), rock_salt, displacements, seeds=range(2))[columns].to_numpy()

    turned, jumped, _ = changes([1e-3], tie_margin=0.0).min(axis=0)
    assert turned > 80.0 and jumped > 0.5
    turned, jumped, tied = changes([1e-4, 1e-3], weighted_margin=0.1).max(axis=0)
    assert 0.0 < turned < 0.3 and jumped < 1e-3 and tied == 0.0
    turned, jumped, _ = changes([0.3], weighted_margin=0.1).min(axis=0)
    assert turned > 30.0 and jumped > 0.3  # few frames are left of the 24


# Ties


def test_ties_of_max_frames_are_small_margins() -> None:
    margin = np.array([[[0.5, 0.5], [1e-5, 0.5]], [[0.5, -1e-9], [np.inf, 0.5]]])
    frame = FrameTrace("max", np.zeros((2, 2, 3, 3)), tie_margin=margin)
    assert tied_frames(frame, 1e-4).tolist() == [[False, True], [True, False]]
    assert tied_frames(frame, 0.0).tolist() == [[False, False], [True, False]]


def test_ties_of_principal_axes_are_equal_eigenvalues() -> None:
    eigenvalues = np.array([[[1.0, 2.0, 3.0], [1.0, 1.0001, 3.0], [0.5, 2.0, 2.0]]])
    frame = FrameTrace("weighted-pca", np.zeros((1, 3, 3, 3)), eigenvalues=eigenvalues)
    assert tied_frames(frame, 1e-4).tolist() == [[False, True, True]]


def test_lattice_frames_have_no_ties() -> None:
    assert not tied_frames(FrameTrace("lattice", np.zeros((4, 2, 3, 3))), 1e-4).any()


# Displacing


def test_every_atom_moves_by_the_distance_along_one_path() -> None:
    small, large = (displaced(CRYSTAL, distance, seed=7) for distance in (0.01, 0.3))
    steps = [moved.positions - CRYSTAL.positions for moved in (small, large)]
    np.testing.assert_allclose(np.linalg.norm(steps[0], axis=1), 0.01, rtol=1e-9)
    np.testing.assert_allclose(steps[1], 30 * steps[0], rtol=1e-9, atol=1e-12)
    other = displaced(CRYSTAL, 0.3, seed=8).positions - CRYSTAL.positions
    assert np.abs(other - steps[1]).max() > 0.05
    np.testing.assert_array_equal(small.lattice, CRYSTAL.lattice)


def test_directions_are_uniform() -> None:
    many = Crystal(np.full(4000, 6), np.zeros((4000, 3)), 99.0 * np.eye(3))
    directions = displaced(many, 1.0, seed=0).positions
    np.testing.assert_allclose(directions.mean(axis=0), 0.0, atol=4 / (3 * 4000) ** 0.5)
    np.testing.assert_allclose(directions.T @ directions / 4000, np.eye(3) / 3, atol=0.03)


# The table


@pytest.mark.parametrize("method", ["max", "weighted-pca", "static-max", "pca", "lattice"])
def test_no_displacement_changes_nothing(method: FrameMethod) -> None:
    table = perturb(make_model(method), CRYSTAL, [0.0], seeds=range(3))
    assert np.abs(table[CHANGE].to_numpy()).max() <= 1e-12
    for layer in (0, 1):
        assert table[f"max_rotation/{layer}"].to_numpy().max() <= 1e-9
        assert table[f"jumped/{layer}"].tolist() == [0.0] * 3


def test_a_row_is_the_difference_of_two_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the copies are computed in several batches, and when displaced atoms gain and lose neighbours."""
    monkeypatch.setattr("crystalframer.analysis.batches.MAX_EDGES", 700)
    model = make_model("max")
    table = perturb(model, CRYSTAL, [0.05, 0.3], seeds=[2, 9])
    assert table[["displacement", "seed"]].to_numpy().tolist() == [[0.05, 2], [0.05, 9], [0.3, 2], [0.3, 9]]
    double = make_model("max").double()
    n_edges = set()
    for row in table.to_dict("records"):
        pair = [CRYSTAL, displaced(CRYSTAL, row["displacement"], int(row["seed"]))]
        batches = [make_batch([c], double.config.radius, dtype=torch.float64) for c in pair]
        before, after = (double.trace(batch)[0] for batch in batches)
        n_edges |= {batch.n_edges for batch in batches}
        (name,) = before.prediction
        assert row[CHANGE] == pytest.approx(after.prediction[name] - before.prediction[name], abs=1e-12)
        for layer in (0, 1):
            old, new = before.layers[layer].frame, after.layers[layer].frame
            assert old is not None and new is not None and new.tie_margin is not None
            angles = rotation_angles(old.axes, new.axes)
            assert angles.shape == (5, 2)
            assert row[f"mean_rotation/{layer}"] == pytest.approx(angles.mean(), abs=1e-7)
            assert row[f"max_rotation/{layer}"] == pytest.approx(angles.max(), abs=1e-7)
            assert row[f"jumped/{layer}"] == np.mean(angles > 10.0)
            assert row[f"tied/{layer}"] == np.mean(np.any(new.tie_margin <= 1e-4, axis=-1))
    assert len(n_edges) > 2
    assert model.target_mean.dtype == torch.float32  # the caller's model is left as it was


def test_weighted_pca_follows_smoothly_where_max_jumps() -> None:
    """Small displacements turn principal axes in proportion; strongest edges give way to others."""
    # Neighbours that come and go at the edge of the radius would be steps of their own.
    smooth = perturb(make_model("weighted-pca", weight_tolerance=1e-8), CRYSTAL, [1e-4, 1e-3], seeds=range(4))
    assert smooth["jumped/0"].tolist() == [0.0] * 8
    for column in (CHANGE, "mean_rotation/0", "max_rotation/0"):
        tenth, whole = smooth[column].to_numpy().reshape(2, 4)
        # Where a change is small by chance, the next order is not.
        np.testing.assert_allclose(10 * tenth, whole, rtol=0.02, atol=0.02 * np.abs(whole).max(), err_msg=column)
    jumps = perturb(make_model("max"), CRYSTAL, [0.3], seeds=range(4))["jumped/0"].tolist()
    assert max(jumps) > 0.0


def test_symmetry_ties_all_frames_of_rock_salt() -> None:
    (rock_salt,) = (crystal for crystal in prototypes() if crystal.formula == "NaCl")
    table = perturb(make_model("max"), rock_salt, [0.0, 0.1], seeds=[0])
    assert table["tied/0"].iloc[0] == 1.0 and table["tied/0"].iloc[1] < 1.0


def test_without_frames_only_predictions_change() -> None:
    table = perturb(make_model("none"), CRYSTAL, [0.1], seeds=[0])
    frames = table[[name for name in table.columns if "/0" in name or "/1" in name]]
    assert frames.shape == (1, 8) and np.isnan(frames.to_numpy()).all()
    assert abs(table[CHANGE].iloc[0]) > 1e-9


def test_units_and_several_targets() -> None:
    targets = (Target("gap", "eV"), Target("bulk", "GPa"))
    table = perturb(make_model(targets=targets), CRYSTAL, [0.1], seeds=[0])
    units = table.attrs["units"]
    assert units["displacement"] == "Å" and units["change/gap"] == "eV" and units["change/bulk"] == "GPa"
    assert units["mean_rotation/1"] == units["max_rotation/0"] == "degrees"
    assert set(units) <= set(table.columns)


def test_frames_that_change_nothing_are_not_counted() -> None:
    trace = synthetic_trace(perovskite())
    layer = trace.layers[1]
    assert layer.frame is not None
    axes = layer.frame.axes.copy()
    axes[:, 2] = axes[:, 2] @ about_z(90.0)
    moved = replace(layer, frame=replace(layer.frame, axes=axes))
    after = replace(trace, layers=(trace.layers[0], moved, trace.layers[2]))
    assert _changes(trace, after, 1e-4)["jumped/1"] == 0.25
    assert _changes(with_dead_head(trace, 1, 2), after, 1e-4)["max_rotation/1"] == pytest.approx(0.0, abs=1e-6)
