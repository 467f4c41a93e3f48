"""One trial: a run of `fit` that tells how it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl

from crystalframer.config import Config
from crystalframer.data.dataset import Splits
from crystalframer.training.folder import RunFolder
from crystalframer.training.result import why_none
from crystalframer.training.run import fit
from crystalframer.training.sweeping.space import with_values
from crystalframer.training.task import TrainingTask

Report = Callable[[int, Sequence[float]], bool]
"""Gets an epoch and the validation losses up to it that it does not have yet; says whether to stop the training."""


def train(config: Config, values: Mapping[str, Any], splits: Splits, folder: RunFolder, report: Report) -> None:
    """Start the run of a trial, or go on with it, or find that it is complete."""
    config = with_values(config, values)
    if folder.result.exists():
        folder.check_same_config(config)
    else:
        fit(config, splits, folder.path, folder.config.exists(), callbacks=[Reporter(report)])


def why_failed(error: Exception) -> str:
    """What to say of a trial, whose error must not cost the others, be it what it will.

    Raises:
        Exception: this one, where the machine is at fault (the disk is full) and the next trial would meet it as well.
    """
    if _is_of_the_machine(error):
        raise error
    return why_none(error)


class Reporter(pl.Callback):
    """Tells of every epoch once it is saved, and ends the training there if it is told to."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.n_told = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer, pl_module)

    def _tell(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingTask)
        losses = [row["validation_loss"] for row in pl_module.history[self.n_told :]]
        self.n_told += len(losses)
        if losses and self.report(self.n_told, losses):
            trainer.should_stop = True


def _is_of_the_machine(error: BaseException | None) -> bool:
    """A file that is missing is one that the trial asks for."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error is not None and not isinstance(error, FileNotFoundError)
