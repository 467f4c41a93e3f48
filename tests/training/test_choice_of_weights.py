"""Which weights a run keeps: those of the lowest validation loss, whatever the training loss does meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import DATA, MODEL, training

from crystalframer import checkpoint
from crystalframer.crystals.loading import prepare
from crystalframer.training import fit


def test_the_best_weights_are_those_of_the_lowest_validation_loss(tmp_path: Path) -> None:
    """The labels for validation are mirrored at their mean: the more is learned, the worse the validation."""
    labels = DATA.validation.targets["energy"]
    mirrored = replace(DATA.validation, targets={**DATA.validation.targets, "energy": 2 * labels.mean() - labels})
    result = fit(training(n_epochs=6, swa_epochs=0), replace(DATA, validation=mirrored), tmp_path)
    history = result.history
    epoch = int(history["validation_loss"].argmin())
    assert history["train_loss"].argmin() != epoch != len(history) - 1
    assert result.scores["best"].validation_loss == history["validation_loss"][epoch]
    crystals = prepare(mirrored, MODEL.radius, MODEL.target_names)
    found = {}
    for name in ("best", "last"):
        model = checkpoint.load(tmp_path / "checkpoints" / name)
        with torch.no_grad():
            predicted = model(crystals.batch(np.arange(len(crystals))))[:, 0].numpy()
        found[name] = float(np.abs(predicted - crystals.targets[:, 0]).mean())
    assert found["best"] == pytest.approx(history["validation_mae/energy"][epoch], rel=1e-5)
    assert found["last"] == pytest.approx(history["validation_mae/energy"].iloc[-1], rel=1e-5)
    assert found["best"] < found["last"]
