"""Runs of `fit` as jobs of an ablation or a search: each tells how it goes and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import lightning.pytorch as pl

from crystalframer.config import Config
from crystalframer.datasets.dataset import Splits
from crystalframer.errors import ConfigError
from crystalframer.training.folder import RunFolder
from crystalframer.training.result import why_none
from crystalframer.training.run import fit
from crystalframer.training.task import TrainingTask

Report = Callable[[int, Sequence[float]], bool]
"""Gets an epoch and the validation losses up to it that it does not have yet; says whether to stop the training."""


@dataclass(frozen=True, eq=False)
class Job:
    """A run to be trained, or to go on with."""

    config: Config
    folder: RunFolder
    report: Report
    """Called after every epoch."""
    close: Callable[[str | None], None]
    """Called when it is trained, or with the reason why it failed."""


def check_counts(config: Config, n_workers: int, what: str) -> None:
    """That so many runs at a time can be had of this config.

    Raises:
        ConfigError: they cannot.
    """
    if n_workers < 1:
        raise ConfigError(f"n_workers = {n_workers}: must be above 0")
    if n_workers > 1 and (config.training.n_devices or 1) > 1:
        raise ConfigError(
            f"training.n_devices = {config.training.n_devices}: with n_workers = {n_workers} each {what} has one "
            f"device; choose between several {what}s at a time and several devices for each"
        )
    if (config.training.n_nodes or 1) > 1:
        raise ConfigError(f"training.n_nodes = {config.training.n_nodes}: {what}s are trained on one machine")


def train_here(jobs: Iterable[Job], splits: Splits) -> None:
    """One after another in this process. Each is asked for when the one before is closed."""
    for job in jobs:
        why = None
        try:
            train(job.config, splits, job.folder, job.report)
        except Exception as error:
            why = why_failed(error)
        job.close(why)


def train(config: Config, splits: Splits, folder: RunFolder, report: Report) -> None:
    """Start a run, or go on with it, or find that it is complete."""
    if folder.result.exists():
        folder.check_same_config(config)
    else:
        fit(config, splits, folder.path, folder.config.exists(), callbacks=[Reporter(report)])


def why_failed(error: Exception) -> str:
    """What to say of a job, whose error must not cost the others, be it what it will.

    Raises:
        Exception: this one, where the machine is at fault (the disk is full) and the next job would meet it as well.
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
    """A file that is missing is one that the job asks for."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error is not None and not isinstance(error, FileNotFoundError)
