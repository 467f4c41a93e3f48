"""Scores: those of a hand calculation, of the right crystals; and intervals calibrated on labelled ones."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from refusals import refused
from salts import CAESIUM, CONFIG, CRYSTALS, aware, trained

import crystalframer as cf
from crystalframer.config import Target
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.errors import DataError, UncertaintyError
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import random_crystal


@pytest.fixture
def model() -> CrystalFramer:
    """A test's own copy, which it may change."""
    return copy.deepcopy(trained())


def constant_model(*predicted: float) -> CrystalFramer:
    """Predicts `predicted` for every crystal; its training labels had the mean (-1, 2)."""
    model = copy.deepcopy(trained())
    with torch.no_grad():
        last = model.readout[2]
        assert isinstance(last, torch.nn.Linear)
        last.weight.zero_()
        last.bias.copy_((torch.tensor(predicted) - model.target_mean) / model.target_std)
    return model


def labelled(energy: list[float], gap: list[float] | None = None, parts: list[str] | None = None) -> CrystalDataset:
    gaps = [math.nan] * len(energy) if gap is None else gap
    pairs = zip(CRYSTALS, energy, gaps, strict=False)
    crystals = [crystal.with_targets({"energy": e, "gap": g}) for crystal, e, g in pairs]
    return CrystalDataset.from_crystals(crystals, CONFIG.targets, parts)


def test_scores_are_those_of_the_hand_calculation() -> None:
    data = labelled([0.0, 2.0, math.nan, -1.0, 3.0], [1.0, 1.0, 1.0, math.nan, math.nan])
    result = cf.evaluate(data, constant_model(1.0, 1.5))
    energy, gap = result.scores["energy"], result.scores["gap"]
    # Energy: errors 1, -1, 2, -2 around the mean label 1; the training mean is -1.
    assert energy.n_crystals == 4
    assert energy.mae == pytest.approx(1.5)
    assert energy.rmse == pytest.approx(math.sqrt(2.5))
    assert energy.r2 == pytest.approx(0.0)
    assert energy.baseline_mae == pytest.approx(2.0)
    # Gap: 0.5 too high everywhere, and R² has no meaning for labels that are all alike.
    assert (gap.n_crystals, gap.mae, gap.baseline_mae) == (3, pytest.approx(0.5), pytest.approx(1.0))
    assert math.isnan(gap.r2)
    assert (result.n_crystals, result.n_failed) == (5, 0)
    assert energy.target == Target("energy", "eV/atom")


def test_the_frame_has_a_row_per_crystal_and_target() -> None:
    result = cf.evaluate(labelled([0.0, math.nan], [1.0, 2.0]), constant_model(1.0, 1.5))
    frame = result.crystals
    assert list(frame.columns) == ["id", "formula", "n_atoms", "target", "label", "prediction", "deviation", "error"]
    assert frame["target"].tolist() == ["energy", "energy", "gap", "gap"]
    assert frame["id"].tolist() == ["NaCl", "CsCl"] * 2
    np.testing.assert_allclose(frame["prediction"], [1.0, 1.0, 1.5, 1.5], atol=1e-6)
    np.testing.assert_allclose(frame["deviation"], [1.0, math.nan, 0.5, -0.5], atol=1e-6)
    assert frame.attrs["units"] == {"energy": "eV/atom", "gap": "eV"}


def test_a_target_without_labels_has_no_score() -> None:
    gap = cf.evaluate(labelled([0.0, 1.0]), constant_model(1.0, 1.5)).scores["gap"]
    assert gap.n_crystals == 0 and math.isnan(gap.mae) and math.isnan(gap.baseline_mae)


def test_a_crystal_without_a_prediction_is_counted_and_left_out(model: CrystalFramer) -> None:
    with torch.no_grad():
        model.embedding.weight[CAESIUM - 1] = float("nan")
    result = cf.evaluate(labelled([0.0] * 5), model)
    assert (result.n_crystals, result.n_failed, result.scores["energy"].n_crystals) == (5, 2, 3)
    assert math.isfinite(result.scores["energy"].mae)
    assert "2 of them without a prediction" in str(result)


def test_the_summary_names_target_unit_and_comparison() -> None:
    text = str(cf.evaluate(labelled([0.0, 2.0, math.nan, -1.0, 3.0], [1.0] * 5), constant_model(1.0, 1.5)))
    assert "5 crystals" in text and "energy (eV/atom)" in text and "gap (eV)" in text
    (line,) = [line for line in text.splitlines() if line.startswith("energy")]
    assert line.split()[2:6] == ["4", "1.5", "1.581", "0.000"]
    assert line.endswith("2 (the model: 75% of it)")


def test_labels_that_all_lie_to_one_side_are_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crystalframer.evaluation.ENOUGH_FOR_BIAS", 5)
    result = cf.evaluate(labelled([2.0, 2.5, 1.5, 2.0, 2.0], [1.0, 2.0, 1.0, 2.0, 1.5]), constant_model(1.0, 1.5))
    assert result.scores["energy"].bias == pytest.approx(-1.0) and result.scores["gap"].bias == pytest.approx(0.0)
    assert "predictions of energy are 1 eV/atom below the labels" in str(result)
    assert "predictions of gap" not in str(result)
    text = str(cf.evaluate(labelled([-2.0, 1.0, 1.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5, 2.5]), constant_model(1.0, 1.5)))
    assert all(
        f"predictions of {what} above the labels" in text for what in ("energy are 0.6 eV/atom", "gap are 0.6 eV")
    )


def test_a_part_of_the_given_split() -> None:
    parts = ["train", "test", "train", "test", "validation"]
    data = labelled([0.0, 1.0, 2.0, 3.0, 4.0], parts=parts)
    result = cf.evaluate(data, constant_model(1.0, 1.5), part="test")
    assert result.crystals["id"].unique().tolist() == ["CsCl", "CsI"]
    assert result.scores["energy"].mae == pytest.approx(1.0)
    whole = cf.evaluate(data, constant_model(1.0, 1.5))
    assert whole.n_crystals == 5 and "note: 2 of these crystals are in the train part" in whole.summary()
    assert "note" not in result.summary()


@pytest.mark.parametrize(
    ("parts", "reason"), [(None, "no split of its own"), (["train"] * 5, "the test part of the data set is empty")]
)
def test_a_part_that_is_not_there(parts: list[str] | None, reason: str) -> None:
    with refused(DataError, reason, field="part"):
        cf.evaluate(labelled([0.0] * 5, parts=parts), constant_model(1.0, 1.5), part="test")


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ((Target("energy", "eV/atom"), Target("gaps", "eV")), "did you mean 'gaps'"),
        ((Target("energy", "kJ/mol"), Target("gap", "eV")), "kJ/mol"),
    ],
)
def test_data_for_other_targets_are_refused(
    targets: tuple[Target, ...], reason: str, from_file: bool, model: CrystalFramer, tmp_path: Path
) -> None:
    data = CrystalDataset.from_crystals(CRYSTALS, targets)
    data.save(tmp_path / "data.parquet")
    with refused(DataError, reason):
        cf.evaluate(tmp_path / "data.parquet" if from_file else data, model)


def test_targets_without_labels_are_not_scored(model: CrystalFramer) -> None:
    data = labelled([0.0, 1.0, 2.0, 3.0, 4.0]).with_targets(CONFIG.targets[:1])
    result = cf.evaluate(data, model)
    assert list(result.scores) == ["energy"]
    assert set(result.crystals["target"]) == {"energy"}
    assert any("no labels of gap" in remark for remark in result.remarks)
    with refused(DataError, "energy, gap", field="targets"):
        cf.evaluate(CrystalDataset.from_crystals(CRYSTALS, []), model)


def test_data_and_model_may_be_paths(model: CrystalFramer, tmp_path: Path) -> None:
    data = labelled([0.0, 1.0, 2.0])
    data.save(tmp_path / "data.parquet")
    cf.save(model, tmp_path / "model")
    result = cf.evaluate(tmp_path / "data.parquet", tmp_path / "model")
    pandas.testing.assert_frame_equal(result.crystals, cf.evaluate(data, model).crystals)


def test_scores_say_how_many_labels_lie_in_their_intervals() -> None:
    table = cf.predict(CRYSTALS, aware())
    low, high = table["energy_low"].to_numpy(), table["energy_high"].to_numpy()
    labels = [low[0], high[1] + 0.1, 0.5 * (low[2] + high[2]), low[3] - 0.1, math.nan]
    result = cf.evaluate(labelled(labels), aware())
    assert result.scores["energy"].covered == pytest.approx(2 / 4) and math.isnan(result.scores["gap"].covered)
    assert "labels within their intervals (90% expected): 50.0% of energy" in str(result)
    energies = result.crystals[result.crystals["target"] == "energy"]
    np.testing.assert_allclose(energies[["low", "high"]], np.stack([low, high], axis=1), rtol=1e-6)
    assert math.isnan(cf.evaluate(labelled(labels), constant_model(1.0, 1.5)).scores["energy"].covered)


def test_calibrating_needs_labels(model: CrystalFramer) -> None:
    few = [crystal.with_targets({"energy": 0.0, "gap": 1.0}) for crystal in CRYSTALS]
    with refused(UncertaintyError, "energy", "5"):
        cf.calibrate(CrystalDataset.from_crystals(few, CONFIG.targets), model)
    few = [crystal.with_targets({"enrgy": 0.0}) for crystal in CRYSTALS]
    misspelt = CrystalDataset.from_crystals(few, [Target("enrgy", "eV/atom")])
    with refused(DataError, "energy"):
        cf.calibrate(misspelt, model)


@pytest.mark.parametrize("n_gaps", [0, 19])
def test_a_target_with_few_labels_has_no_intervals(
    model: CrystalFramer, n_gaps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    crystals = [random_crystal(number, n_atoms=2).with_targets({"energy": rng.normal()}) for number in range(30)]
    crystals = [
        crystal.with_targets({**crystal.targets, "gap": rng.random()}) if number < n_gaps else crystal
        for number, crystal in enumerate(crystals)
    ]
    model = copy.deepcopy(model)
    targets = CONFIG.targets if n_gaps else CONFIG.targets[:1]
    model.uncertainty = cf.calibrate(CrystalDataset.from_crystals(crystals, targets), model)
    assert model.uncertainty.target_names == ("energy",) and model.uncertainty.n_crystals == (30,)
    assert f"no intervals of gap: {n_gaps} labelled crystals, fewer than the 20" in capsys.readouterr().err
    cf.save(model, tmp_path / "model")
    table = cf.predict(CRYSTALS, tmp_path / "model")
    assert np.all(table["energy_low"].to_numpy() < table["energy_high"].to_numpy())
    assert table[["gap_low", "gap_high"]].isna().to_numpy().all() and table["gap"].notna().to_numpy().all()
    covered = cf.evaluate(labelled([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]), model).scores
    assert math.isnan(covered["gap"].covered) and not math.isnan(covered["energy"].covered)


# The order of arguments


def test_the_model_first_still_works_with_a_warning(model: CrystalFramer, tmp_path: Path) -> None:
    data = labelled([0.0, 1.0, 2.0])
    cf.save(model, tmp_path / "model")
    model = cf.load(tmp_path / "model")
    mae = cf.evaluate(data, model).scores["energy"].mae
    for first in (model, tmp_path / "model", str(tmp_path / "model")):
        with pytest.warns(DeprecationWarning, match=r"evaluate\(\.\.\., model=\.\.\.\)"):
            assert cf.evaluate(first, data).scores["energy"].mae == mae  # type: ignore[arg-type]
    with pytest.warns(DeprecationWarning, match="calibrate"), refused(UncertaintyError, "energy"):
        cf.calibrate(model, data=data)  # type: ignore[call-arg]
    with pytest.warns(DeprecationWarning), refused(DataError, "formation_energy_per_atom"):  # of the package's weights
        cf.evaluate(None, data)  # type: ignore[arg-type]


def test_the_part_counts_in_either_order(model: CrystalFramer) -> None:
    parts = ["train", "train", "validation", "test", "test"]
    data = labelled([0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0, 4.0], parts)
    with pytest.warns(DeprecationWarning, match="order of release 0.1"):
        assert cf.evaluate(model, data, part="test").n_crystals == 2  # type: ignore[arg-type]
    with pytest.warns(DeprecationWarning, match="order of release 0.1"):
        assert cf.evaluate(model, data=data, part="validation").n_crystals == 1  # type: ignore[misc]
    for part, n_labels in ((None, "5"), ("test", "2"), ("validation", "1")):
        with refused(UncertaintyError, f" {n_labels} "):  # too few; it says how many
            cf.calibrate(data, model, part=part)  # type: ignore[arg-type]
