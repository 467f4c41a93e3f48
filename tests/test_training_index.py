"""The index finds the nearest training crystals, whatever the batch, and says what is far from all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from refusals import refused

import crystalframer as cf
from crystalframer.checkpoint import INDEX_FILE
from crystalframer.config import FrameConfig, ModelConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.errors import CheckpointError, ConfigError, DataError, UncertaintyError
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import random_crystal
from crystalframer.training_index import N_NEAREST, TrainingIndex, interval_inputs

TARGETS = (cf.Target("energy", "eV/atom"), cf.Target("gap", "eV"))


def features(n_crystals: int, seed: int, d_model: int = 40) -> np.ndarray:
    """Of unequal spread in directions that are not those of the axes."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(np.random.default_rng(99).normal(size=(d_model, d_model)))[0]
    return ((rng.normal(size=(n_crystals, d_model)) * np.logspace(0, -2, d_model)) @ turned + 3.0).astype(np.float32)


def index_of(pooled: np.ndarray) -> TrainingIndex:
    rng = np.random.default_rng(1)
    labels = rng.normal(size=(len(pooled), 2))
    labels[0, 1] = np.nan
    ids = [f"t{n}" for n in range(len(pooled))]
    return TrainingIndex.of(pooled, ids, ["NaCl"] * len(pooled), ("energy", "gap"), labels, 0.1 * labels)


@pytest.fixture(scope="module")
def index() -> TrainingIndex:
    return index_of(features(800, seed=0))


def test_the_nearest_are_those_of_a_search_through_all(index: TrainingIndex) -> None:
    given = index.of_features(features(70, seed=1))
    every = np.linalg.norm(given[:, None] - index.coordinates.astype(np.float32), axis=2)
    found = index.nearest(given)
    np.testing.assert_array_equal(found.row, np.argsort(every, axis=1)[:, :N_NEAREST])
    np.testing.assert_allclose(found.distance, np.sort(every, axis=1)[:, :N_NEAREST], rtol=1e-5)
    alone = [index.nearest(row[None]).row[0] for row in given]
    np.testing.assert_array_equal(alone, found.row)


def test_coordinates_have_the_same_spread_and_distances_a_usual_unit(index: TrainingIndex) -> None:
    assert index.coordinates.shape == (800, 32)
    spread = index.coordinates.astype(np.float64).std(axis=0)
    np.testing.assert_allclose(spread, spread[0], rtol=1e-2)
    distances = index.nearest(index.of_features(features(800, seed=0)), 2).distance
    assert distances[:, 0].max() < 0.01  # itself
    assert np.median(distances[:, 1]) == pytest.approx(1.0, abs=0.01)
    assert (distances[:, 1] > index.far).mean() == pytest.approx(0.005, abs=0.004)


def test_what_is_far_is_described(index: TrainingIndex) -> None:
    near = features(800, seed=0)[:3]
    found = index.nearest(index.of_features(np.concatenate([near, near + 5.0])))
    reasons = index.unlike(found)
    assert reasons[:3] == [None] * 3
    assert all("unlike all training crystals" in str(reason) and "(NaCl)" in str(reason) for reason in reasons[3:])


def test_inputs_are_coordinates_and_distances(index: TrainingIndex) -> None:
    pooled = features(5, seed=3)
    inputs, nearest = interval_inputs(index, pooled)
    assert nearest is not None
    assert inputs.shape == (5, index.n_inputs)
    np.testing.assert_allclose(inputs[:, -2], np.log(nearest.distance[:, 0]), rtol=1e-5)
    np.testing.assert_allclose(inputs[:, -1], np.log(nearest.distance[:, :N_NEAREST].mean(axis=1)), rtol=1e-5)
    alone, nothing = interval_inputs(None, pooled)
    assert nothing is None
    np.testing.assert_array_equal(alone, pooled)


def test_a_target_is_unknown_where_no_crystal_around_has_a_label() -> None:
    """Half of the training crystals lie apart, and none of them has a label of the second target; no crystal has one of
    the third."""
    rng = np.random.default_rng(0)
    apart = np.repeat([[0.0, 0.0], [1.0, 0.0]], 200, axis=0)
    pooled = apart + 0.05 * rng.standard_normal((400, 2))
    labels = np.stack([np.arange(400.0), np.arange(400.0), np.full(400, np.nan)], axis=1)
    labels[200:, 1] = np.nan
    labels[rng.permutation(200)[:150], 1] = np.nan
    names = [str(n) for n in range(400)]
    index = TrainingIndex.of(pooled, names, names, ["a", "b", "c"], labels, labels)
    assert index.n_around.tolist() == [1, 30, 100]  # 0.875³⁰ = 0.018
    nearest = interval_inputs(index, apart[150:250] + 0.05 * rng.standard_normal((100, 2)))[1]
    assert nearest is not None and nearest.row.shape == (100, 100)
    found = index.has_label_around(nearest)
    assert found[:, 0].all() and found[:, 2].all()
    assert found[:50, 1].mean() > 0.9 and not found[50:, 1].any()


@pytest.mark.parametrize("n_training", [1, 3])
def test_few_or_equal_training_crystals(n_training: int) -> None:
    index = index_of(np.repeat(features(1, seed=0), n_training, axis=0))
    found = index.nearest(index.of_features(features(2, seed=1)))
    assert found.row.shape == (2, n_training)
    assert np.isfinite(found.distance).all()


@pytest.mark.parametrize("n_training", [1, 64, 65, 1000])
@pytest.mark.parametrize("n_nearest", [1, 5, 60])
def test_the_nearest_are_those_of_all_distances(n_training: int, n_nearest: int) -> None:
    index = index_of(features(n_training, seed=0))
    coordinates = index.of_features(features(7, seed=1))
    found = index.nearest(coordinates, n_nearest)
    distances = np.linalg.norm(coordinates[:, None] - index.coordinates.astype(np.float32), axis=2)
    np.testing.assert_allclose(found.distance, np.sort(distances, axis=1)[:, :n_nearest], rtol=1e-6)
    np.testing.assert_array_equal(np.take_along_axis(distances, found.row, 1), found.distance)


def test_features_that_overflow_have_neighbours_too() -> None:
    index = index_of(features(70, seed=0))
    with np.errstate(over="ignore", invalid="ignore"):
        found = index.nearest(np.full((1, index.coordinates.shape[1]), np.float32(1e30)))
    assert (found.row < 70).all()


def test_bytes_there_and_back(index: TrainingIndex) -> None:
    again = TrainingIndex.from_bytes(index.to_bytes("ab"), "ab")
    assert (again.target_names, again.far) == (index.target_names, index.far)
    for name in ("ids", "formulas", "mean", "axes", "coordinates", "labels", "errors"):
        np.testing.assert_array_equal(getattr(again, name), getattr(index, name))


def test_damage_and_other_weights(index: TrainingIndex) -> None:
    content = index.to_bytes("ab")
    with refused(CheckpointError, "other weights"):
        TrainingIndex.from_bytes(content, "cd")
    flipped = bytearray(content)
    flipped[-1000] ^= 1
    with refused(CheckpointError, "damaged or changed"):
        TrainingIndex.from_bytes(bytes(flipped), "ab")
    for cut in (0, 5, 100, -1):
        with refused(UncertaintyError, "damaged"):
            TrainingIndex.from_bytes(content[:cut])
    with refused(UncertaintyError, field="far"):
        replace(index, far=0.0)


@pytest.fixture(scope="module")
def model() -> CrystalFramer:
    """Untrained, of weighted frames, with an index and intervals."""
    config = ModelConfig(TARGETS, n_layers=1, n_heads=2, d_model=16, d_feedforward=16, d_readout=8)
    model = CrystalFramer(replace(config, frame=FrameConfig("max", weighted_margin=0.1))).eval()
    model.index = cf.index_training_crystals(labelled(30, seed=0), model, progress=False)
    model.uncertainty = cf.calibrate(labelled(40, seed=1000), model, progress=False)
    return model


def labelled(n: int, seed: int, names: tuple[str, ...] = ("energy", "gap")) -> CrystalDataset:
    rng = np.random.default_rng(seed)
    crystals = []
    for number in range(n):
        crystal: Crystal = random_crystal(seed + number, n_atoms=1 + number % 4)
        labels = {"energy": rng.normal(), "gap": max(rng.normal(), 0.0)}
        crystals.append(replace(crystal, id=f"c{seed + number}", targets={name: labels[name] for name in names}))
    return CrystalDataset.from_crystals(crystals, [target for target in TARGETS if target.name in names])


def test_predictions_name_the_nearest_training_crystal(model: CrystalFramer) -> None:
    crystals = list(labelled(30, seed=0))[:6]
    table = cf.predict(crystals, model, progress=False)
    assert [name.split(" ")[0] for name in table["nearest_training"]] == [crystal.id for crystal in crystals]
    assert np.max(table["nearest_distance"].to_numpy()) < 0.05
    assert np.min(table["gap_low"].to_numpy()) >= 0.0
    assert np.min((table["energy_high"] - table["energy_low"]).to_numpy()) > 0.0


def test_nearest_training_crystals_with_labels_and_errors(model: CrystalFramer) -> None:
    data = labelled(30, seed=0)
    table = cf.nearest_training(list(data)[:2], model, n=3, progress=False)
    first = table[table["rank"] == 1]
    assert first["training_id"].tolist() == ["c0", "c1"]
    np.testing.assert_allclose(first["energy"], data.targets["energy"][:2], rtol=1e-6)
    predicted = cf.predict(list(data)[:2], model, progress=False)["energy"].to_numpy()
    np.testing.assert_allclose(first["energy_error"], predicted - data.targets["energy"][:2], rtol=1e-4, atol=1e-5)
    assert np.nanmin(table.groupby("id")["distance"].diff().to_numpy()) >= 0.0
    assert table.attrs["units"] == {"energy": "eV/atom", "gap": "eV"}
    assert table["error"].tolist() == [None] * len(table)


def test_a_structure_that_cannot_be_read_has_an_error_row(model: CrystalFramer, tmp_path: Path) -> None:
    (tmp_path / "bad.cif").write_text("data_nothing")
    table = cf.nearest_training([tmp_path / "bad.cif", random_crystal(1, n_atoms=2)], model, n=2, progress=False)
    assert len(table) == 3
    assert table["error"].notna().tolist() == [True, False, False]
    assert pd.isna(table.loc[0, "rank"])


def test_the_index_is_saved_with_the_model(model: CrystalFramer, tmp_path: Path) -> None:
    cf.save(model, tmp_path / "model")
    again = cf.load(tmp_path / "model", "cpu")
    crystals = list(labelled(5, seed=77))
    pd.testing.assert_frame_equal(
        cf.predict(crystals, again, progress=False), cf.predict(crystals, model, progress=False)
    )
    (tmp_path / "model" / INDEX_FILE).unlink()
    with refused(CheckpointError, "without its training_index.safetensors"):
        cf.load(tmp_path / "model", "cpu")


def test_an_index_of_other_weights_is_refused(model: CrystalFramer, tmp_path: Path) -> None:
    other = CrystalFramer(model.config, torch.Generator().manual_seed(7)).eval()
    cf.save(other, tmp_path / "other")
    cf.save(model, tmp_path / "model")
    (tmp_path / "other" / INDEX_FILE).write_bytes((tmp_path / "model" / INDEX_FILE).read_bytes())
    with refused(CheckpointError, "other weights"):
        cf.load(tmp_path / "other", "cpu")


def test_crystals_of_other_kinds_may_have_one_of_the_labels(model: CrystalFramer) -> None:
    away = labelled(30, seed=500, names=("energy",))
    found = cf.calibrate(labelled(40, seed=1000), model, away=away, progress=False)
    assert found.n_crystals == (70, 40)
    assert model.uncertainty is not None
    assert found.quantile[0] != model.uncertainty.quantile[0]


def test_what_cannot_be_answered(model: CrystalFramer) -> None:
    with refused(ConfigError, "at least 1", field="n"):
        cf.nearest_training([random_crystal(1, n_atoms=2)], model, n=0)
    with refused(CheckpointError, "index_training_crystals"):
        cf.nearest_training([random_crystal(1, n_atoms=2)], CrystalFramer(model.config).eval())
    nothing = CrystalDataset.from_crystals(
        [replace(random_crystal(1, n_atoms=2), targets={"other": 1.0})], [cf.Target("other")]
    )
    with refused(DataError, "energy, gap", field="targets"):
        cf.index_training_crystals(nothing, model)
