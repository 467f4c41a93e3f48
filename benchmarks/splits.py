"""What each split says of the same model: errors on crystals that are unlike the training crystals in one way each.

For each split, the same model is trained from scratch on as many crystals of one data set, and tested on the crystals
that the split leaves out. Beside the error stands that of predicting the mean of the training labels, since the test
crystals of the splits differ. Runs are kept in the folder `--runs`, so an interrupted command continues.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.report import Report, Row
from crystalframer.config import Config, DataConfig, SplitKind, Target
from crystalframer.datasets.dataset import CrystalDataset, Splits

KINDS: tuple[SplitKind, ...] = (
    "random",
    "group",
    "chemical-system",
    "prototype",
    "space-group",
    "element",
    "property-tail",
)
TARGET = Target("formation_energy_per_atom", "eV/atom")
TEST_FRACTION = 0.2
N_RESAMPLED = 2000


@dataclass(frozen=True, eq=False)
class Result:
    """A model on the test crystals of one split, those of all seeds one after another."""

    kind: SplitKind
    unit: str
    errors: Float[np.ndarray, " n_tested"]
    """Predicted minus true."""
    from_mean: Float[np.ndarray, " n_tested"]
    """Mean of the training labels minus true."""

    @property
    def mae(self) -> float:
        return float(np.abs(self.errors).mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the MAE, by resampling the test crystals."""
        rows = np.random.default_rng(0).integers(len(self.errors), size=(N_RESAMPLED, len(self.errors)))
        low, high = np.quantile(np.abs(self.errors)[rows].mean(axis=1), [0.025, 0.975])
        return float(low), float(high)

    @property
    def mae_of_mean(self) -> float:
        return float(np.abs(self.from_mean).mean())

    def row(self, work: str) -> Row:
        low, high = self.interval
        details: dict[str, float | str] = {
            "95 %": f"{low:.3f} to {high:.3f}",
            "bias": float(self.errors.mean()),
            "training mean": self.mae_of_mean,
            "share": self.mae / self.mae_of_mean,
            "tested": f"{len(self.errors):,}",
        }
        return Row(work, self.kind, cf.__version__, self.unit, self.mae, details=details)


def crystals(options: argparse.Namespace) -> CrystalDataset:
    """A seeded choice of small cells."""
    data = cf.dataset(inputs.source(options), targets=[TARGET])
    allowed = np.flatnonzero(data.n_atoms <= options.largest_cell)
    chosen = np.random.default_rng(inputs.SEED).permutation(allowed)[: options.crystals]
    return data.select(np.sort(chosen)).labelled()


def config_of(kind: SplitKind, options: argparse.Namespace, seed: int) -> Config:
    config = cf.preset(options.preset).config
    training = replace(
        config.training,
        n_epochs=options.epochs,
        swa_epochs=config.training.swa_epochs * options.epochs // config.training.n_epochs,
        n_threads=options.threads,
        accelerator="cuda" if options.device.startswith("cuda") else "cpu",
        seed=seed,
    )
    data = DataConfig(source="given to fit", split=kind, test_fraction=TEST_FRACTION)
    return Config(replace(config.model, targets=(TARGET,)), data, training)


def divided(data: CrystalDataset, config: Config, n_train: int) -> Splits:
    """The split, with as many training crystals as the others have: errors fall with their number."""
    splits = data.split(config.data, config.training.seed)
    rows = np.random.default_rng(config.training.seed).permutation(len(splits.train))[:n_train]
    return Splits(splits.train.select(np.sort(rows)), splits.validation, splits.test)


def run(data: CrystalDataset, configs: Sequence[Config], n_train: int, options: argparse.Namespace) -> Result:
    """Train with each seed, or go on, or read what was trained."""
    kind = configs[0].data.split
    errors, from_mean = [], []
    for config in configs:
        splits = divided(data, config, n_train)
        output = options.runs / f"{kind}-seed{config.training.seed}"
        if not (output / "result.json").exists():
            print(f"{kind}, seed {config.training.seed}", flush=True)
            cf.fit(config, splits, output, resume=(output / "config.json").exists())
        predicted = cf.predict(splits.test, cf.load(output, device=options.device), progress=False)
        labels = splits.test.targets[TARGET.name]
        errors.append(predicted[TARGET.name].to_numpy() - labels)
        from_mean.append(splits.train.targets[TARGET.name].mean() - labels)
    return Result(kind, TARGET.unit, np.concatenate(errors), np.concatenate(from_mean))


def measure(options: argparse.Namespace, report: Report) -> list[Result]:
    data = crystals(options)
    file = Path(inputs.source(options)).stem
    cells = f"cells of at most {options.largest_cell} atoms (seed {inputs.SEED})"
    report.data |= {"name": f"{file}: {len(data):,} crystals, {cells}"}
    configs = {kind: [config_of(kind, options, seed) for seed in range(options.seeds)] for kind in KINDS}
    n_train = min(
        len(data.split(config.data, config.training.seed).train) for of_kind in configs.values() for config in of_kind
    )
    results = []
    for of_kind in configs.values():
        results.append(run(data, of_kind, n_train, options))
        report.rows.append(results[-1].row(f"{n_train:,} training crystals, {options.epochs} epochs"))
        print(report.rows[-1], flush=True)
    report.notes.append(
        f"MAE of {TARGET.name} on the test crystals of {options.seeds} seed(s), with its 95 % interval over crystals; "
        "bias: mean of predicted minus true; training mean: MAE of predicting it; share: MAE divided by that."
    )
    return results


def draw(results: Sequence[Result], path: Path) -> None:
    """The MAE of each split with its interval, and that of the training mean."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = np.arange(len(results))[::-1]
    mae = np.array([result.mae for result in results])
    intervals = np.array([result.interval for result in results]).T
    axes.errorbar(mae, places, xerr=np.abs(intervals - mae), fmt="o", capsize=3, label="model, 95 % interval")
    axes.plot([result.mae_of_mean for result in results], places, "x", color="0.5", label="mean of the training labels")
    axes.set_yticks(places, [result.kind for result in results])
    axes.set_xlim(left=0)
    axes.set(xlabel=f"MAE on the test crystals, {results[0].unit}")
    axes.grid(axis="x", alpha=0.25)
    figure.legend(frameon=False, ncols=2, loc="outside upper center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("splits", __doc__ or "")
    inputs.add_options(parser, n_crystals=1000)
    parser.add_argument("--preset", default="crystalframer-2", help="settings (default: crystalframer-2)")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each run (default: 5)")
    parser.add_argument("--seeds", type=int, default=1, help="number of runs (seeds) of each split (default: 1)")
    parser.add_argument("--runs", type=Path, default=Path("runs/splits"), help="folder of the runs")
    options = command.parse(parser, arguments)
    if options.quick:
        options.epochs, options.runs = 1, options.runs / "quick"
        options.crystals = min(options.crystals, 60)
        shutil.rmtree(options.runs, ignore_errors=True)
    with command.session(options) as report:
        results = measure(options, report)
    path = options.output or (None if options.quick else command.RESULTS / "splits-cpu.json")
    if path is not None:
        draw(results, path.with_suffix(".png"))
        print(f"drawn: {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
