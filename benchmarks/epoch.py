"""Seconds of a training epoch of `crystalframer.fit`: batches, steps and everything around them.

The number of crystals is that of the JARVIS formation energies of the paper. They are drawn from the sample, with
repetition if it is smaller, so sizes are realistic but labels mean nothing. Validation and saving are not included; the
field `seconds` of the details includes them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.report import Bar, Report, Row
from benchmarks.training import EPOCH, EPOCH_BAR
from crystalframer.datasets.dataset import CrystalDataset, Splits


def measure(options: argparse.Namespace, report: Report) -> None:
    crystals = inputs.sample(options)
    n_train = 12 if options.quick else options.epoch
    rows = np.random.default_rng(inputs.SEED).integers(0, len(crystals.dataset), n_train)
    few = crystals.dataset.select(range(min(64, len(crystals.dataset))))
    drawn = [replace(crystals.dataset[row], id=str(n)) for n, row in enumerate(rows)]
    targets = [crystals.dataset.target(name) for name in crystals.dataset.targets]
    splits = Splits(CrystalDataset.from_crystals(drawn, targets), few, few.select([]))
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
        with tempfile.TemporaryDirectory() as folder:
            history = cf.fit(replace(config, training=training), splits, Path(folder) / "run").history
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("epoch", "Seconds of a training epoch within fit.")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[256], help="number of crystals in a batch (default: 256)"
    )
    parser.add_argument("--preset", default="default", help="preset (default: default)")
    parser.add_argument("--epoch", type=int, default=EPOCH, help=f"number of training crystals (default: {EPOCH})")
    inputs.add_options(parser, n_crystals=512)
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
