"""Whether trained weights help with few labels: learning curves from the shipped weights and from random weights.

The same architecture is trained on 50, 200 and 500 crystals (`--sizes`) of a data set, from the shipped weights and
from random weights, with the settings that the documentation names for each. All predict the same test crystals. Runs
are kept in the folder `--runs`, so an interrupted command continues.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.report import Report, Row
from crystalframer.analysis import paired_difference
from crystalframer.config import Config, DataConfig, Target
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.datasets.used import TRAINED

DATA = inputs.SHARED.with_name("matbench_phonons.parquet")
TARGET = "last_phdos_peak_cm1:1/cm"
N_TEST = 300
N_VALIDATION = 50
STARTS = ("shipped weights", "random weights")


def config_of(start: str, options: argparse.Namespace, seed: int) -> Config:
    """The settings of docs/how-to/transfer-learning.md, and for random weights those of the preset."""
    config = cf.preset("crystalframer-2").config
    training = replace(
        config.training,
        n_epochs=options.epochs,
        batch_size=16,
        n_threads=options.threads,
        accelerator="cpu",
        intervals=False,
        seed=seed,
    )
    model = replace(config.model, targets=(options.target,))
    if start == STARTS[0]:
        training = replace(training, initial_weights="package", learning_rate=options.learning_rate)
        model = replace(cf.load(as_trained=True).config, targets=(options.target,))
    return Config(model, DataConfig(source="given to fit"), training)


def target(text: str) -> Target:
    name, _, unit = text.partition(":")
    return Target(name, unit)


def divided(data: CrystalDataset, n_train: int) -> Splits:
    """Nested training parts; validation and test parts are the same for all sizes."""
    rows = np.random.default_rng(inputs.SEED).permutation(len(data))
    test, validation, rest = np.split(rows, [N_TEST, N_TEST + N_VALIDATION])
    return Splits(data.select(rest[:n_train]), data.select(validation), data.select(test))


def run(splits: Splits, config: Config, output: Path) -> Float[np.ndarray, " n_test"]:
    """Absolute errors on the test crystals; trained, gone on with, or read."""
    if not (output / "result.json").exists():
        print(output.name, flush=True)
        cf.fit(config, splits, output, resume=(output / "config.json").exists())
    name = config.model.target_names[0]
    predicted = cf.predict(splits.test, cf.load(output), progress=False)
    return np.abs(predicted[name].to_numpy() - splits.test.targets[name])


def measure(options: argparse.Namespace, report: Report) -> None:
    data = cf.dataset(options.data, targets=[options.target])
    data = data.select(np.flatnonzero(data.n_atoms <= options.largest_cell)).labelled()
    used = cf.load().used
    if used is not None:  # labels that the shipped weights have seen would flatter them
        data = data.select(~np.isin(used.find(data).role, TRAINED))
    report.data |= {"name": f"{Path(options.data).stem}: {len(data):,} crystals, {N_TEST} of them for the test"}
    for n_train in options.sizes:
        splits = divided(data, n_train)
        errors = {}
        for start in STARTS:
            folders = [options.runs / f"{start.replace(' ', '-')}-{n_train}-seed{n}" for n in range(options.seeds)]
            found = [run(splits, config_of(start, options, seed), folder) for seed, folder in enumerate(folders)]
            errors[start] = np.array(found)
            details: dict[str, float | str] = {"seeds": ", ".join(f"{one.mean():.1f}" for one in found)}
            if start != STARTS[0]:
                difference = paired_difference(errors[STARTS[0]], errors[start])
                details["shipped weights minus this"] = (
                    f"{difference.mean:.1f} ({difference.low:.1f} to {difference.high:.1f})"
                )
            row = Row(
                f"{n_train} crystals",
                start,
                cf.__version__,
                options.target.unit,
                float(errors[start].mean()),
                details=details,
            )
            report.rows.append(row)
            print(row, flush=True)
    report.notes.append(
        f"MAE of {options.target.name}, {options.epochs} epochs, {options.seeds} seed(s); the difference is paired, "
        "with its 95 % interval over crystals and seeds."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("finetuning", __doc__ or "")
    parser.add_argument(
        "--data", default=str(DATA), help="packed data set (default: ../shared/data/matbench_phonons.parquet)"
    )
    parser.add_argument(
        "--largest-cell", type=int, default=20, help="largest number of atoms in a crystal (default: 20)"
    )
    parser.add_argument("--target", type=target, default=TARGET, help=f"label and its unit (default: {TARGET})")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 500], help="training crystals of the runs")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of each run (default: 60)")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="from the shipped weights (default: 5e-4)")
    parser.add_argument("--seeds", type=int, default=2, help="number of runs (seeds) of each row (default: 2)")
    parser.add_argument("--runs", type=Path, default=Path("runs/finetuning"), help="folder of the runs")
    options = command.parse(parser, arguments)
    if options.quick:
        options.sizes, options.epochs, options.seeds, options.runs = [20], 1, 1, options.runs / "quick"
        shutil.rmtree(options.runs, ignore_errors=True)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
