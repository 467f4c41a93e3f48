"""A small experiment for studies, and what happens to their runs: noted, or interrupted in an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest

from crystalframer.config import Config, DataConfig, FrameMethod
from crystalframer.datasets.dataset import Splits
from crystalframer.datasets.sources import dataset
from crystalframer.errors import TrainingError
from crystalframer.presets import preset
from crystalframer.studies import study
from crystalframer.training import FitResult, fit

TINY = preset("tiny").config
CONFIG = replace(
    TINY, training=replace(TINY.training, n_epochs=3, batch_size=16, accelerator="cpu", n_threads=1, swa_epochs=1)
)
ONE_EPOCH = replace(CONFIG, training=replace(CONFIG.training, n_epochs=1))
METHODS: tuple[FrameMethod, ...] = ("none", "max")
SEEDS = (3, 1)


def few_crystals() -> Splits:
    splits = dataset("demo").split(DataConfig(max_atoms_per_crystal=4), seed=0)
    small = np.flatnonzero(splits.test.n_atoms <= 4)
    return Splits(splits.train.select(range(40)), splits.validation.select(range(6)), splits.test.select(small[:6]))


DATA = few_crystals()
FEWER = replace(DATA, train=DATA.train.select(range(32)))


def assert_is_a_fit(row: Mapping[str, Any], config: Config, folder: Path) -> FitResult:
    """The row of a table has what a training by itself comes to."""
    alone = fit(config, DATA, folder)
    losses = alone.history["validation_loss"].tolist()
    mae = alone.scores[alone.chosen].validation_mae["formation_energy_per_atom"]
    assert (row["validation_mae/formation_energy_per_atom"], row["error"]) == (mae, None)
    assert row["best_epoch"] == 1 + losses.index(min(losses))
    return alone


class WatchedRuns:
    """In place of `fit`, for the runs that this process trains while a test runs."""

    def __init__(self) -> None:
        self.names: list[str] = []
        """Names of the runs, with "again" for those that go on."""
        self.epochs: list[tuple[str, int]] = []
        """The epochs that were trained, with the names of their runs."""
        self.action: tuple[str, int, Callable[[], None]] = ("", 0, ctrl_c)
        """Name of a run, its epoch, and what to do there."""

    def __call__(self, config: Config, data: Splits, output: Path, resume: bool, callbacks: list) -> object:
        self.names.append(f"{output.name} again" if resume else output.name)
        return fit(config, data, output, resume, [*callbacks, _Watch(output.name, self)])


class _Watch(pl.Callback):
    def __init__(self, name: str, runs: WatchedRuns) -> None:
        self.name, self.runs = name, runs

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        self.runs.epochs.append((self.name, epoch))
        name, chosen, action = self.runs.action
        if (name, chosen) == (self.name, epoch):
            action()


def watched(monkeypatch: pytest.MonkeyPatch) -> WatchedRuns:
    runs = WatchedRuns()
    monkeypatch.setattr(study, "fit", runs)
    return runs


def ctrl_c() -> None:
    raise KeyboardInterrupt


def full_disk() -> None:
    raise TrainingError("cannot be written") from OSError(28, "No space left on device")


def not_finite() -> None:
    raise TrainingError("the loss is not finite")


def broken() -> None:
    raise ZeroDivisionError("of the program")
