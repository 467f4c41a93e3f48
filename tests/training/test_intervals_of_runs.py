"""A run ends with an index of its training crystals and calibrated intervals, unless it is told not to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import CONFIG, MODEL, TARGETS, make_data, training

import crystalframer as cf
from crystalframer.training import FitResult, fit

DATA = make_data(n_train=30, n_other=30, targets=TARGETS)
"""20 of 30 validation crystals have both labels."""
BOTH = replace(CONFIG, model=replace(MODEL, targets=TARGETS))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return fit(BOTH, DATA, tmp_path_factory.mktemp("run"))


def test_a_run_ends_with_intervals_and_an_index(finished: FitResult) -> None:
    model = cf.load(finished.output)
    again = cf.calibrate(DATA.validation, model)
    assert model.index is not None and model.uncertainty is not None
    assert model.index.ids.tolist() == DATA.train.ids.tolist()
    assert model.uncertainty.n_crystals == (30, 20) and model.uncertainty.coverage == 0.9
    np.testing.assert_allclose(model.uncertainty.quantile, again.quantile, rtol=1e-3)
    errors = cf.evaluate(DATA.train, model).crystals["deviation"].to_numpy().reshape(2, -1).T
    np.testing.assert_allclose(model.index.errors, errors, rtol=1e-4, atol=1e-5)
    table = cf.predict(list(DATA.test), finished.model)
    low, high = (table[[f"energy_{end}", f"gap_{end}"]].to_numpy() for end in ("low", "high"))
    assert (low < high).all()
    assert set(table["nearest_training"]) <= {model.index.name(row) for row in range(30)}
    learned = "90% intervals, from the validation errors in energy of 30 crystals, gap of 20 crystals"
    assert learned in finished.summary()


def test_only_the_chosen_weights_have_them(finished: FitResult) -> None:
    folders = {folder.name: folder for folder in (finished.output / "checkpoints").iterdir()}
    have = {name for name, folder in folders.items() if (folder / "uncertainty.safetensors").exists()}
    assert have == {finished.chosen}


def test_without_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = replace(training(n_epochs=1, swa_epochs=0, intervals=False), model=BOTH.model)
    model = fit(config, DATA, tmp_path / "none").model
    assert model.uncertainty is None and model.index is None
    assert "interval" not in capsys.readouterr().err


def test_too_few_validation_crystals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = training(n_epochs=1, swa_epochs=0)
    result = fit(config, make_data(n_other=19), tmp_path / "few")
    assert result.model.uncertainty is None and result.model.index is not None
    said = capsys.readouterr().err
    assert "no prediction intervals: target 'energy' has 19 labelled crystals" in said and "at least 20" in said
    assert "intervals" not in result.summary()
