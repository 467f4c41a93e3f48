"""One job of crystalframer: `cf.fit`, its number of epochs kept in step with the budget.

`python -m benchmarks.accuracy.ours FOLDER`, see `jobs`.
"""

from __future__ import annotations

import io
import itertools
import shutil
import tempfile
from contextlib import redirect_stderr
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import torch

import crystalframer as cf
from benchmarks.accuracy.budget import Clock, epochs_in_all
from benchmarks.accuracy.jobs import Job, JobFolder, Outcome, work
from benchmarks.accuracy.problems import read_splits
from crystalframer.config import Config, Target, TrainingConfig, from_tree
from crystalframer.datasets.dataset import Splits
from crystalframer.training.callbacks import Progress
from crystalframer.training.task import TrainingTask

FIRST_GUESS = 0.006
"""Seconds that a crystal takes in an epoch, until the first was timed."""
FINE_TUNED = 0.25
"""Rate of a training that starts from trained weights, in that of the preset (docs/how-to/transfer-learning.md)."""


def config_of(
    preset: str,
    target: Target,
    n_train: int,
    seed: int,
    minutes: float,
    n_threads: int,
    initial_weights: str | None = None,
) -> Config:
    """The preset's experiment for a budget.

    Of the paper's training, made for hundreds of epochs on a GPU, only optimiser and clipping stay: small batches, and
    a rate that rises shortly and falls to 0 at the end. A preset with such a schedule of its own keeps it.
    """
    chosen = cf.preset(preset).config
    training: TrainingConfig = chosen.training
    if training.schedule == "inverse-sqrt":
        training = replace(
            training,
            schedule="warmup-stable-decay",
            warmup_steps=100,
            learning_rate=1e-3,
            batch_size=32,
            bias_weight_decay=0.0,
            swa_epochs=0,
        )
    if initial_weights is not None:
        training = replace(training, learning_rate=FINE_TUNED * training.learning_rate)
    training = replace(
        training,
        n_epochs=max(1, training.swa_epochs, round(60.0 * minutes / (FIRST_GUESS * n_train))),
        initial_weights=initial_weights,
        accelerator="cpu",
        n_threads=n_threads,
        seed=seed,
    )
    return replace(chosen, model=replace(chosen.model, targets=(target,)), training=training)


class Pace(pl.Callback):
    """Sets the number of epochs, and with it the schedule, anew after each: as many as the budget allows."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.preparing = 0.0
        self.history: list[tuple[float, float, float]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.preparing = self.clock.elapsed

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingTask)
        done = trainer.current_epoch + 1
        name = pl_module.model.config.target_names[0]
        row = pl_module.history[-1]
        averaged = row.get(f"swa_validation_mae/{name}", float("nan"))
        errors = [error for error in (row[f"validation_mae/{name}"], averaged) if error == error]
        self.history.append((self.clock.elapsed, float(done), min(errors)))
        ends = [self.preparing, *(seconds for seconds, _, _ in self.history)]
        epoch_seconds = [after - before for before, after in itertools.pairwise(ends)]
        n_epochs = epochs_in_all(done, self.clock.left, epoch_seconds)
        if pl_module.is_averaging:  # the weights that are averaged began at a set distance from the end
            n_epochs = min(n_epochs, pl_module.config.n_epochs)
        pl_module.config = replace(pl_module.config, n_epochs=max(n_epochs, pl_module.config.swa_epochs))
        trainer.fit_loop.max_epochs = n_epochs
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Progress):
                callback.bar.total = n_epochs


def compile_kernels(config: Config, splits: Splits) -> None:
    """Happens once on a machine, like the installation of a peer, and counts as little."""
    few = np.arange(min(16, len(splits.train)))
    config = replace(config, training=replace(config.training, n_epochs=1, swa_epochs=0))
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        cf.fit(config, Splits(splits.train.select(few), splits.validation.select([0]), splits.test.select([])), folder)


def run(job: Job, folder: JobFolder) -> Outcome:
    """Train and score."""
    config = from_tree(Config, job.settings)
    target = config.model.targets[0]
    splits = read_splits(folder.data, target)
    runs = folder.path / "run"
    shutil.rmtree(runs, ignore_errors=True)  # of a job that was cut off
    torch.set_num_threads(job.n_threads)
    compile_kernels(config, splits)
    clock = Clock(60.0 * job.minutes, job.clock)
    pace = Pace(clock)
    # Scored below: the test part would be prepared within the budget.
    seen = Splits(splits.train, splits.validation, splits.test.select([]))
    result = cf.fit(config, seen, runs, callbacks=[pace])
    wall, cpu = clock.wall_seconds, clock.cpu_seconds
    evaluation = cf.evaluate(splits.test, result.model, device="cpu", progress=False)
    if evaluation.n_failed:
        raise RuntimeError(f"{evaluation.n_failed} crystals have no prediction; peers are scored on all")
    chosen = result.scores[result.chosen]
    best = min(pace.history, key=lambda row: row[2])
    return Outcome(
        mae=evaluation.scores[target.name].mae,
        holdout_mae=chosen.validation_mae[target.name],
        n_epochs=len(result.history),
        best_epoch=best[1],
        wall_seconds=wall,
        cpu_seconds=cpu,
        preparing_seconds=pace.preparing,
        n_parameters=sum(parameter.numel() for parameter in result.model.parameters()),
        version=cf.__version__,
        history=pace.history,
        predictions=evaluation.crystals.set_index("id")["prediction"].loc[splits.test.ids.astype(str)].tolist(),
    )


if __name__ == "__main__":
    work(run)
