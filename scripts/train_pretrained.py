"""Train the shipped checkpoint: formation energy and band gap of Materials Project crystals.

    python scripts/train_pretrained.py            # reads ../shared/data/mp2018_train.parquet and mp2018_val.parquet
    python scripts/train_pretrained.py --ship     # and replaces the shipped one, with intervals, log and model card
    python scripts/train_pretrained.py --seal     # only writes domain and intervals of the shipped one again
    python scripts/train_pretrained.py --adopt    # gives the shipped weights the settings of the preset, untrained

The model is that of the preset `crystalframer-2`. It starts from the shipped weights. Their function may be another
one, to which training adapts them. (The first shipped weights, of the paper's function, started from random ones: 60
epochs of small cells at a constant rate, then 8 of all cells. Their logs are in `crystalframer/pretrained/training`.)
The crystals are cells of almost all sizes, and the rate falls to zero. After an interruption the command continues at
the last complete epoch. The model is tested on all sizes at the end.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import crystalframer as cf
from crystalframer import checkpoint
from crystalframer.checkpoint import DOMAIN_FILE, PRETRAINED, UNCERTAINTY_FILE, WEIGHTS_FILE
from crystalframer.config import Config, DataConfig, Target, TrainingConfig
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.model.network import CrystalFramer

SHARED = Path(__file__).parents[2] / "shared" / "data"
TARGETS = (Target("formation_energy_per_atom", "eV/atom"), Target("band_gap", "eV"))

ALL_CELLS = TrainingConfig(
    n_epochs=6, batch_size=64, learning_rate=1e-3, schedule="warmup-stable-decay", warmup_steps=100, swa_epochs=0
)


@dataclass(frozen=True)
class Stage:
    name: str
    max_atoms_per_crystal: int
    training: TrainingConfig


STAGES = (Stage("3-exact", 60, ALL_CELLS),)


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
    adopt: bool = False
    """Train nothing: give the shipped weights the settings that the preset has now, and calibrate them again."""
    hardware: str = "2 CPU cores"
    """Description of the training data, for the model card."""


MODEL = replace(cf.preset("crystalframer-2").config.model, targets=TARGETS)


def config(stage: Stage, start: Path, n_threads: int) -> Config:
    """The config of a stage, which starts from these weights."""
    return Config(
        MODEL,
        DataConfig(source="mp2018", max_atoms_per_crystal=stage.max_atoms_per_crystal),
        replace(stage.training, seed=1, initial_weights=str(start), n_threads=n_threads),
    )


def shipped_weights() -> CrystalFramer:
    """The shipped weights in the function of the preset: the same tensors, other frames and cutoff."""
    shipped, model = checkpoint.load(PRETRAINED), CrystalFramer(MODEL)
    model.load_state_dict(shipped.state_dict())
    model.domain, model.used = shipped.domain, shipped.used
    return model.eval()


def of_size(data: CrystalDataset, max_atoms: int) -> CrystalDataset:
    return data.select(data.n_atoms <= max_atoms)


def train(options: Options) -> Path:
    """Train all stages that are not complete. Returns the folder of the last stage."""
    train, validation = (cf.dataset(str(path), targets=TARGETS) for path in (options.train, options.validation))
    start, folder = options.output / "0-shipped-weights", options.output
    if not start.exists():
        checkpoint.save(shipped_weights(), start)
    for stage in STAGES:
        folder = options.output / stage.name
        if not (folder / "result.json").exists():
            parts = [of_size(part, stage.max_atoms_per_crystal) for part in (train, validation)]
            print(
                f"stage {stage.name}: {len(parts[0]):,} crystals of at most {stage.max_atoms_per_crystal} atoms",
                flush=True,
            )
            resume = (folder / "config.json").exists()
            cf.fit(config(stage, start, options.n_threads), Splits(*parts, test=parts[1].select([])), folder, resume)
        start = folder / "checkpoints" / "last"
    evaluation = cf.evaluate(validation, folder / "checkpoints" / "last")
    print(evaluation.summary())
    return folder


def ship(options: Options) -> None:
    """Put the last weights into the package, calibrated on the validation crystals, with their training log."""
    replace_shipped(cf.load(options.output / STAGES[-1].name / "checkpoints" / "last"), options)
    logs = PRETRAINED / "training"
    for stage in STAGES:
        (logs / stage.name).mkdir(exist_ok=True)
        shutil.copy(options.output / stage.name / "metrics.csv", logs / stage.name)
        config = (options.output / stage.name / "config.json").read_text(encoding="utf-8")
        config = config.replace(str(options.output), "runs/pretrained")
        (logs / stage.name / "config.json").write_text(config, encoding="utf-8")
    write_card(options)


def replace_shipped(model: CrystalFramer, options: Options) -> None:
    """Put a model into the package, calibrated on the validation crystals; the logs of trainings stay."""
    model.uncertainty = cf.calibrate(cf.dataset(str(options.validation), targets=TARGETS), model)
    logs = PRETRAINED / "training"
    with tempfile.TemporaryDirectory() as name:  # saving replaces the whole folder
        before = shutil.copytree(logs, Path(name) / "training")
        cf.save(model, PRETRAINED)
        shutil.copytree(before, logs)


def write_card(options: Options) -> None:
    logs = PRETRAINED / "training"
    card = [sys.executable, str(Path(__file__).with_name("model_card.py")), str(PRETRAINED)]
    card += ["--data", str(options.validation), "--away", str(options.away), "--hardware", options.hardware]
    card += ["--runs", *map(str, sorted(logs.iterdir()))]
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
    elif options.adopt:
        replace_shipped(shipped_weights(), options)
        write_card(options)
    else:
        train(options)
    if options.ship:
        ship(options)
