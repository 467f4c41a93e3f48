"""Seconds of a training epoch of `crystalframer.fit`: batches, steps and everything around them.

By default, the number of crystals on a GPU is that of the JARVIS formation energies of the paper. They are drawn from
the sample, with repetition if it is smaller, so sizes are realistic but labels mean nothing. Validation and saving are
not included; the field `seconds` of the details includes them. On a GPU, as many crystals as in the paper are
validated, and a bar of its own judges that.

On a CPU, the processor time is measured that `fit` adds to a bare loop over the same batches (forward, backward,
clipping, AdamW): Lightning, bookkeeping, averaging of the weights at every step, validation of a few crystals, logging
and checkpoints. Both run with a network that computes nothing, because what is added is less than the computation
varies from run to run. What is added is compared with a step of the real network.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.ours import Ours
from benchmarks.report import Bar, Report, Row
from benchmarks.training import EPOCH, EPOCH_BAR
from crystalframer.config import Config
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import prepare, train_loader
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.model.network import CrystalFramer

CPU_EPOCH = 2048
"""Number of training crystals on a CPU."""
N_VALIDATION = {"cpu": 64, "cuda": 5572}
VALIDATION_BAR = 0.3 * EPOCH_BAR
"""Allowed seconds of validation and saving on one H100."""
N_STEPS = 50
"""Steps with the real network, at most."""
ADDED_BAR = 0.05
"""Allowed share of a step that `fit` adds."""


# --- what fit adds to steps -------------------------------------------------------------------------------------------


class _Nothing(torch.autograd.Function):
    """Ones, whose gradient with respect to every parameter is a constant."""

    @staticmethod
    def forward(ctx: Any, n_crystals: int, n_targets: int, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        return torch.ones(n_crystals, n_targets)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Any, ...]:
        return None, None, *(torch.full_like(parameter, 1e-6) for parameter in ctx.parameters)


@contextmanager
def network_computes_nothing() -> Iterator[None]:
    """All models predict ones. Gradients have the usual sizes."""

    def forward(model: CrystalFramer, batch: CrystalBatch, noise_seed: int | None = None) -> Tensor:
        return _Nothing.apply(batch.n_crystals, len(model.config.targets), *model.parameters())  # type: ignore[return-value]

    with mock.patch.object(CrystalFramer, "forward", forward):
        yield


class _Clock(pl.Callback):
    """Processor time at the start of each epoch and at the end of its training batches."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.starts.append(time.process_time())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ends.append(time.process_time())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.starts.append(time.process_time())


@dataclass(frozen=True)
class Added:
    """Seconds of processor time."""

    step: float
    """A bare step, with its batch."""
    to_step: float
    """Added by `fit` to a step of an epoch."""
    to_epoch: float
    """Added by `fit` after the last step of an epoch."""
    n_steps: int
    """In an epoch."""

    @property
    def share(self) -> float:
        """Of a bare step."""
        return (self.to_step + self.to_epoch / self.n_steps) / self.step


def added_by_fit(config: Config, splits: Splits) -> Added:
    """Compare `fit` with a bare loop over the same batches. Weights are averaged in every epoch."""
    config = replace(config, training=replace(config.training, swa_epochs=config.training.n_epochs))
    model, training = config.model, config.training
    loader = train_loader(prepare(splits.train, model.radius, model.target_names), training)
    first = next(iter(loader))
    ours = Ours(config, first, "auto")
    for _ in range(2):  # compiles everything
        ours.step(first)
    steps = list(_times(ours.step, itertools.islice(loader, N_STEPS)))
    clock = _Clock()
    with network_computes_nothing(), tempfile.TemporaryDirectory() as folder:
        bare = [list(_times(ours.step, loader)) for _ in range(training.n_epochs)]
        cf.fit(config, splits, Path(folder) / "run", callbacks=[clock])
    n_steps = len(bare[0])
    within, between = (np.array(clock.ends) - clock.starts[:-1])[1:], (np.array(clock.starts[1:]) - clock.ends)[1:]
    # The fastest: other work on the machine makes all of it slower.
    to_step = (float(min(within)) - min(map(sum, bare))) / n_steps
    return Added(median(steps), to_step, float(min(between)), n_steps)


def _times(step: Callable[[CrystalBatch], object], batches: Any) -> Iterator[float]:
    """Processor time of each batch and its step."""
    started = time.process_time()
    for batch in batches:
        step(batch)
        now = time.process_time()
        yield now - started
        started = now


# --- the run ----------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, report: Report) -> None:
    crystals = inputs.sample(options)
    n_train = 12 if options.quick else options.epoch
    rows = np.random.default_rng(inputs.SEED).integers(0, len(crystals.dataset), n_train)
    n_validation = len(crystals.dataset) if options.quick else N_VALIDATION[torch.device(options.device).type]
    validated = _drawn(crystals.dataset, np.arange(n_validation) % len(crystals.dataset))
    splits = Splits(_drawn(crystals.dataset, rows), validated, validated.select([]))
    report.data |= {"name": crystals.name, "preset": options.preset, "mean_atoms": crystals.mean_atoms}
    for size in options.batch:
        config = crystals.config(options.preset)
        training = replace(
            config.training,
            n_epochs=options.passes + 1,
            batch_size=size,
            swa_epochs=0,
            accelerator=options.device,
            n_threads=options.threads,
        )
        config = replace(config, training=training)
        if options.device == "cpu":
            _add_what_fit_adds(config, splits, options.preset, report)
        with tempfile.TemporaryDirectory() as folder:
            history = cf.fit(config, splits, Path(folder) / "run").history
        seconds = history["training_seconds"].to_numpy()[1:]  # the first epoch compiles and records
        median = float(np.median(seconds))
        details: dict[str, float | str] = {
            "fastest": float(seconds.min()),
            "slowest": float(seconds.max()),
            "seconds": float(np.median(history["seconds"].to_numpy()[1:])),
        }
        work = f"epoch of {n_train:,} crystals, {crystals.mean_atoms:.1f} atoms, batch {size}"
        report.rows.append(Row(work, options.preset, cf.__version__, "s", median, details=details))
        if options.device == "cuda":
            report.bars.append(Bar(work, median, EPOCH_BAR, "s"))
            beside = float(np.median((history["seconds"] - history["training_seconds"]).to_numpy()[1:]))
            name = f"validation of {n_validation:,} crystals and saving, batch {size}"
            report.bars.append(Bar(name, beside, VALIDATION_BAR, "s"))


def _drawn(data: CrystalDataset, rows: np.ndarray) -> CrystalDataset:
    """These crystals, some of them several times."""
    crystals = [replace(data[row], id=str(number)) for number, row in enumerate(rows)]
    return CrystalDataset.from_crystals(crystals, [data.target(name) for name in data.targets])


def _add_what_fit_adds(config: Config, splits: Splits, preset: str, report: Report) -> None:
    added = added_by_fit(config, splits)
    size, unit = config.training.batch_size, "ms of processor time"
    for work, seconds in (
        (f"bare step, batch {size}", added.step),
        (f"  added by fit to a step, batch {size}", added.to_step),
        (f"  added by fit to an epoch of {added.n_steps} steps, batch {size}", added.to_epoch),
    ):
        report.rows.append(Row(work, preset, cf.__version__, unit, seconds * 1e3))
    work = f"added by fit to a step, with its share of the epoch, batch {size}"
    report.bars.append(Bar(work, added.share, ADDED_BAR, "of a step"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("epoch", "Seconds of a training epoch within fit, and what fit adds to bare steps.")
    parser.add_argument(
        "--batch", type=int, nargs="+", help="numbers of crystals in a batch (default: 64 16, on CUDA 256)"
    )
    parser.add_argument("--preset", default="default", help="preset (default: default)")
    parser.add_argument(
        "--epoch", type=int, help=f"number of training crystals (default: {CPU_EPOCH:,}, on CUDA {EPOCH:,})"
    )
    inputs.add_options(parser, n_crystals=512)
    options = command.parse(parser, arguments)
    on_cpu = options.device == "cpu"
    options.batch = options.batch or ([64, 16] if on_cpu else [256])
    options.epoch = options.epoch or (CPU_EPOCH if on_cpu else EPOCH)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
