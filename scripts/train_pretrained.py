"""Train the shipped checkpoint: formation energy and band gap of Materials Project crystals.

    python scripts/train_pretrained.py            # reads ../shared/data/mp2018_train.parquet and mp2018_val.parquet
    python scripts/train_pretrained.py --ship     # and replaces the shipped one, with intervals, log and model card
    python scripts/train_pretrained.py --seal     # only writes domain and intervals of the shipped one again

There are two stages, each a run of `crystalframer.fit`, because training on small cells is more efficient: first small
cells at a constant learning rate, then cells of almost all sizes at a rate that falls to zero. After an interruption
the command continues at the last complete epoch. Each stage is validated on crystals of its sizes. The model is tested
on all sizes at the end.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import crystalframer as cf
from crystalframer.checkpoint import DOMAIN_FILE, UNCERTAINTY_FILE, WEIGHTS_FILE
from crystalframer.config import Config, DataConfig, ModelConfig, Target, TrainingConfig
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.prediction import PRETRAINED

SHARED = Path(__file__).parents[2] / "shared" / "data"
TARGETS = (Target("formation_energy_per_atom", "eV/atom"), Target("band_gap", "eV"))

SMALL_CELLS = TrainingConfig(
    n_epochs=60, batch_size=64, learning_rate=1e-3, schedule="warmup-stable-decay", decay_fraction=0.0, swa_epochs=0
)
"""Constant rate, so that the stage can have any length."""
ALL_CELLS = replace(SMALL_CELLS, n_epochs=8, warmup_steps=100, decay_fraction=1.0)


@dataclass(frozen=True)
class Stage:
    name: str
    max_atoms_per_crystal: int
    training: TrainingConfig


STAGES = (Stage("1-small-cells", 20, SMALL_CELLS), Stage("2-all-cells", 60, ALL_CELLS))


@dataclass(frozen=True)
class Options:
    """Train the shipped checkpoint. After an interruption the same command continues."""

    train: Path = SHARED / "mp2018_train.parquet"
    """Training crystals, with the labels formation_energy_per_atom (eV/atom) and band_gap (eV)."""
    validation: Path = SHARED / "mp2018_val.parquet"
    away: Path = SHARED / "wbm_val.parquet"
    """Crystals that the Materials Project does not have, for the model card."""
    output: Path = Path("runs/pretrained")
    """Folder for the run folders of the stages."""
    n_threads: int = 2
    """Number of threads of torch and of the kernels."""
    ship: bool = False
    """Replace the shipped checkpoint after training."""
    seal: bool = False
    """Train nothing: write the domain and the intervals of the shipped checkpoint again, with their checksums."""
    hardware: str = "2 CPU cores"
    """Description of the training data, for the model card."""


def config(stage: Stage, before: Path | None, n_threads: int) -> Config:
    """The config of a stage, which starts from the last weights of the previous one."""
    start = None if before is None else str(before / "checkpoints" / "last")
    return Config(
        ModelConfig(targets=TARGETS),
        DataConfig(source="mp2018", max_atoms_per_crystal=stage.max_atoms_per_crystal),
        replace(stage.training, seed=1, initial_weights=start, n_threads=n_threads),
    )


def of_size(data: CrystalDataset, max_atoms: int) -> CrystalDataset:
    return data.select(data.n_atoms <= max_atoms)


def train(options: Options) -> Path:
    """Train all stages that are not complete. Returns the folder of the last stage."""
    train, validation = (cf.dataset(str(path), targets=TARGETS) for path in (options.train, options.validation))
    folder = None
    for stage in STAGES:
        before, folder = folder, options.output / stage.name
        if (folder / "result.json").exists():
            continue
        parts = [of_size(part, stage.max_atoms_per_crystal) for part in (train, validation)]
        print(
            f"stage {stage.name}: {len(parts[0]):,} crystals of at most {stage.max_atoms_per_crystal} atoms", flush=True
        )
        resume = (folder / "config.json").exists()
        cf.fit(config(stage, before, options.n_threads), Splits(*parts, test=parts[1].select([])), folder, resume)
    assert folder is not None
    evaluation = cf.evaluate(validation, folder / "checkpoints" / "last")
    print(evaluation.summary())
    scores = {name: score.mae for name, score in evaluation.scores.items()}
    (options.output / "validation.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return folder


def ship(options: Options) -> None:
    """Put the last weights into the package, calibrated on the validation crystals, with their training log."""
    model = cf.load(options.output / STAGES[-1].name / "checkpoints" / "last")
    model.uncertainty = cf.calibrate(cf.dataset(str(options.validation), targets=TARGETS), model)
    cf.save(model, PRETRAINED)
    logs = []
    for stage in STAGES:
        logs.append(PRETRAINED / "training" / stage.name)
        logs[-1].mkdir(parents=True)
        shutil.copy(options.output / stage.name / "metrics.csv", logs[-1])
        config = (options.output / stage.name / "config.json").read_text(encoding="utf-8")
        (logs[-1] / "config.json").write_text(config.replace(str(options.output), "runs/pretrained"), encoding="utf-8")
    card = [sys.executable, str(Path(__file__).with_name("model_card.py")), str(PRETRAINED)]
    card += ["--data", str(options.validation), "--away", str(options.away), "--hardware", options.hardware]
    card += ["--runs", *map(str, logs)]
    subprocess.run(card, check=True)


def seal(folder: Path = PRETRAINED) -> None:
    """Write the files beside the weights again, as `cf.save` does; the weights stay as they are."""
    with tempfile.TemporaryDirectory() as name:
        again = Path(name) / "model"
        cf.save(cf.load(folder, "cpu"), again)
        if (again / WEIGHTS_FILE).read_bytes() != (folder / WEIGHTS_FILE).read_bytes():
            raise SystemExit("this release of safetensors writes the weights otherwise; seal with the pinned one")
        for file in (DOMAIN_FILE, UNCERTAINTY_FILE):
            shutil.copy(again / file, folder)


if __name__ == "__main__":
    import tyro

    options = tyro.cli(Options)
    if options.seal:
        seal()
    else:
        train(options)
    if options.ship:
        ship(options)
