"""What the trainings of an ablation or a search do: noted, or interrupted in an epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest

from crystalframer.config import Config
from crystalframer.datasets.dataset import Splits
from crystalframer.errors import TrainingError
from crystalframer.studies import jobs
from crystalframer.training import fit


def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the run folders that are trained in this process from now on."""
    names: list[str] = []

    def counted(config: Config, data: Splits, output: Path, resume: bool, callbacks: list[pl.Callback]) -> object:
        names.append(f"{output.name} again" if resume else output.name)
        return fit(config, data, output, resume, callbacks)

    monkeypatch.setattr(jobs, "fit", counted)
    return names


def acting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`acting(...)(n, "max-seed1", action)`: have the action in the n-th epoch of a run that this process trains."""

    class Act(pl.Callback):
        def __init__(self, epoch: int, action: Callable[[], None]) -> None:
            self.epoch, self.action = epoch, action

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            if trainer.current_epoch + 1 == self.epoch:
                self.action()

    def in_epoch(epoch: int, name: str, action: Callable[[], None]) -> None:
        def prepared(config: Config, data: Splits, output: Path, resume: bool, callbacks: list) -> object:
            return fit(config, data, output, resume, [*callbacks, *[Act(epoch, action)] * (output.name == name)])

        monkeypatch.setattr(jobs, "fit", prepared)

    return in_epoch


def ctrl_c() -> None:
    raise KeyboardInterrupt


def full_disk(*_: object, **__: object) -> None:
    """In place of `fit`."""
    raise TrainingError("cannot be written") from OSError(28, "No space left on device")
