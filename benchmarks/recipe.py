"""Effect of single changes to the training recipe and the model of the paper, on a part of the crystals of mp2018.

Each row is a training from scratch on the same crystals for the same number of epochs, tested on the same validation
crystals, with formation energy and band gap as targets. Runs are kept in the folder `--runs`, so an interrupted command
continues, and new rows are added.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import crystalframer as cf
from benchmarks import command
from benchmarks.inputs import SHARED
from benchmarks.report import Report, Row
from crystalframer import checkpoint
from crystalframer.config import (
    Config,
    CosineBasis,
    DataConfig,
    DistanceBasis,
    ModelConfig,
    Target,
    TrainingConfig,
)
from crystalframer.datasets.dataset import Splits
from crystalframer.training.folder import RunFolder
from crystalframer.training.result import read_result

TARGETS = (Target("formation_energy_per_atom", "eV/atom"), Target("band_gap", "eV"))
LARGEST_CELL = 20
DECAY: dict[str, Any] = {"schedule": "warmup-stable-decay", "swa_epochs": 0}
FASTER: dict[str, Any] = {**DECAY, "batch_size": 32, "learning_rate": 1e-3}
FALLING: dict[str, Any] = {**FASTER, "learning_rate": 2e-3}
OURS = cf.preset("crystalframer-2").config.model
BETTER: dict[str, Any] = {**FASTER, "learning_rate": 2e-3, "decay_fraction": 0.5}


@dataclass(frozen=True)
class Variant:
    """A row: the changes to the preset `default` with batches of 128 (as in the paper for the Materials Project)."""

    training: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    ema: float | None = None
    """Score an exponential average of the weights that forgets this share of itself a step."""


VARIANTS = {
    "paper": Variant(),
    "paper, batch 32": Variant({"batch_size": 32}),
    "rate falls to 0": Variant({**DECAY, "batch_size": 32}),
    "rate falls to 0 from 1e-3": Variant(FASTER),
    "rate falls to 0 from 2e-3": Variant(FALLING),
    "1e-3, constant for half": Variant({**FASTER, "decay_fraction": 0.5}),
    "1e-3, batch 64": Variant({**FASTER, "batch_size": 64}),
    "1e-3, EMA 0.99": Variant(FASTER, ema=0.99),
    "1e-3, no clipping": Variant({**FASTER, "clip_norm": 1e9}),
    "1e-3, weight decay 0.01": Variant({**FASTER, "weight_decay": 0.01}),
    "1e-3, lightweight": Variant(
        FASTER, {name: getattr(cf.preset("lightweight").config.model, name) for name in ("distance", "cosine")}
    ),
    "1e-3, distance Gaussians twice as wide": Variant(FASTER, {"distance": DistanceBasis(width=2.0)}),
    "1e-3, cosine Gaussians half as wide": Variant(FASTER, {"cosine": CosineBasis(width=2.0)}),
    "1e-3, 6 blocks": Variant(FASTER, {"n_layers": 6}),
    "1e-3, no frames": Variant(FASTER, {"frame": replace(ModelConfig().frame, method="none")}),
    # The noise of training picks among frames that symmetry makes equivalent: augmentation by these.
    "1e-3, always the same of equivalent frames": Variant(FASTER, {"frame": replace(ModelConfig().frame, noise=0.0)}),
    "1e-3, formation energy alone": Variant(FASTER, {"targets": TARGETS[:1]}),
    # Exact and smooth, each alone and together; against "rate falls to 0 from 2e-3".
    "2e-3, weighted frames": Variant(FALLING, {"frame": replace(ModelConfig().frame, weighted_margin=0.1)}),
    "2e-3, both hands": Variant(FALLING, {"frame": replace(ModelConfig().frame, both_hands=True)}),
    "2e-3, second axis by the sine": Variant(FALLING, {"frame": replace(ModelConfig().frame, second_axis="sine")}),
    "2e-3, swish": Variant(FALLING, {"activation": "swish"}),
    "2e-3, exact frames": Variant(FALLING, {"frame": OURS.frame}),
    "2e-3, smooth cutoff": Variant(FALLING, {"decay": OURS.decay}),
    "2e-3, content up to 4": Variant(FALLING, {"largest_content": OURS.largest_content}),
    "2e-3, crystalframer-2": Variant(
        FALLING, {name: getattr(OURS, name) for name in ("frame", "decay", "largest_content")}
    ),
    "2e-3, Muon": Variant({**FALLING, "optimizer": "muon"}),
    "2e-3, Muon, crystalframer-2": Variant(
        {**FALLING, "optimizer": "muon"}, {name: getattr(OURS, name) for name in ("frame", "decay", "largest_content")}
    ),
    # Together, what alone was better.
    "2e-3, constant for half": Variant(BETTER),
    "2e-3, constant for half, wide distances": Variant(BETTER, {"distance": DistanceBasis(width=2.0)}),
    "2e-3, constant for half, wide distances, narrow cosines": Variant(
        BETTER, {"distance": DistanceBasis(width=2.0), "cosine": CosineBasis(width=2.0)}
    ),
}


class ExponentialAverage(pl.Callback):
    """An exponential average of the weights along a run, beside it."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.model = AveragedModel(pl_module.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay))  # type: ignore[arg-type]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.model.update_parameters(pl_module.model)  # type: ignore[arg-type]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        checkpoint.save(self.model.module, Path(trainer.default_root_dir) / "checkpoints" / "ema")  # type: ignore[arg-type]


def crystals(train: Path, validation: Path, n_train: int, n_validation: int) -> Splits:
    """A seeded choice of small cells of both files."""
    parts = []
    for path, n in ((train, n_train), (validation, n_validation)):
        dataset = cf.dataset(str(path), targets=TARGETS)
        allowed = np.flatnonzero(dataset.n_atoms <= LARGEST_CELL)
        parts.append(dataset.select(np.sort(np.random.default_rng(0).permutation(allowed)[:n])))
    return Splits(*parts, test=parts[1].select([]))


def config_of(variant: Variant, n_epochs: int, seed: int, threads: int) -> Config:
    training = TrainingConfig(
        n_epochs=n_epochs, batch_size=128, swa_epochs=max(1, n_epochs // 5), bias_weight_decay=0.01, n_threads=threads
    )
    return Config(
        replace(ModelConfig(targets=TARGETS), **variant.model),
        DataConfig(source="given to fit"),
        replace(training, seed=seed, **variant.training),
    )


def run(name: str, variant: Variant, options: argparse.Namespace, data: Splits) -> Row:
    """Train, or go on, or read what was trained; the validation errors of the last weights (or their average)."""
    maes, minutes = [], 0.0
    for seed in range(options.seeds):
        output = options.runs / f"{name.replace(' ', '-').replace(',', '')}-seed{seed}"
        config = config_of(variant, options.epochs, seed, options.threads)
        if not (output / "result.json").exists():
            print(f"{name}, seed {seed}", flush=True)
            callbacks = [] if variant.ema is None else [ExponentialAverage(variant.ema)]
            resume = variant.ema is None and (output / "config.json").exists()
            cf.fit(config, data, output, resume=resume, callbacks=callbacks)
        history = read_result(RunFolder(output)).history
        which = "ema" if variant.ema is not None else "swa" if config.training.swa_epochs else "last"
        scores = cf.evaluate(data.validation, output / "checkpoints" / which, progress=False).scores
        maes.append([scores[target.name].mae if target.name in scores else np.nan for target in TARGETS])
        minutes += float(history["seconds"].to_numpy().sum()) / 60
    mean, spread = np.mean(maes, axis=0), np.ptp(maes, axis=0)
    has_gap = not np.isnan(mean[1])
    details: dict[str, float | str] = {"gap (eV)": float(mean[1])} if has_gap else {}
    details["minutes"] = minutes / options.seeds
    if options.seeds > 1:
        details |= {"range": float(spread[0])} | ({"range of the gap": float(spread[1])} if has_gap else {})
    work = f"{len(data.train):,} crystals, {options.epochs} epochs"
    return Row(work, name, "", "eV/atom", float(mean[0]), details=details)


def measure(options: argparse.Namespace, report: Report) -> None:
    data = crystals(options.train, options.validation, options.crystals, options.crystals // 6)
    report.data |= {
        "name": f"mp2018: {len(data.train):,} training and {len(data.validation):,} validation crystals of at most "
        f"{LARGEST_CELL} atoms (seed 0)"
    }
    chosen = {name: VARIANTS[name] for name in options.variants or VARIANTS}
    for name, variant in chosen.items():
        report.rows.append(run(name, variant, options, data))
        print(report.rows[-1], flush=True)
    report.notes.append(
        f"Formation energy, and the gap beside it: MAE on validation after {options.epochs} epochs, mean of "
        f"{options.seeds} seed(s). Scored are the averaged weights where the recipe averages, else the last."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("recipe", "What each change to the training recipe and the model gives.")
    parser.add_argument("--train", type=Path, default=SHARED.with_name("mp2018_train.parquet"))
    parser.add_argument("--validation", type=Path, default=SHARED)
    parser.add_argument("--crystals", type=int, default=6000, help="number of training crystals (default: 6000)")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of each run (default: 12)")
    parser.add_argument("--seeds", type=int, default=1, help="number of runs (seeds) of each row (default: 1)")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="rows to run (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs/recipe"), help="folder of the runs")
    options = command.parse(parser, arguments)
    if options.quick:
        options.crystals, options.epochs = 60, 2
        options.runs = options.runs / "quick"
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
