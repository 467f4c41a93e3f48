"""Train the shipped checkpoint: six properties of Materials Project crystals (`pretraining_data.TARGETS`).

    python scripts/train_pretrained.py            # reads ../shared/data/
    python scripts/train_pretrained.py --ship     # and replaces the shipped one and all that belongs to it
    python scripts/train_pretrained.py --seal     # only writes what belongs to the shipped one again
    python scripts/train_pretrained.py --adopt    # gives the shipped weights the settings of the preset, untrained

The model is that of the preset `crystalframer-2`. The stages so far, with their logs in
`crystalframer/pretrained/training`: 60 epochs of small cells at a constant rate and 8 of all cells, from random
weights and with the paper's function, and 6 of all cells with that of the preset (two properties each:
`scripts/stages/3-exact`); then 20 epochs that learn six properties from one readout, each from the crystals that have
its label, while strained copies teach it the energy of other volumes (`scripts/stages/4-six-properties`). The shipped
weights are a weighted mean of the last two, which this script made until commit b32c2ab. The 16 epochs with Muon
(`scripts/stages/6-muon`) have not replaced them yet; `--ship` does that.

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

import numpy as np
import pandas
from pretraining_data import COPY, TARGETS, joined, strained

import crystalframer as cf
from crystalframer import checkpoint
from crystalframer.checkpoint import (
    DOMAIN_FILE,
    INDEX_FILE,
    PRETRAINED,
    SOUNDNESS_FILE,
    UNCERTAINTY_FILE,
    WEIGHTS_FILE,
)
from crystalframer.config import Config, DataConfig, TrainingConfig
from crystalframer.crystals.loading import prepare
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.datasets.used import UsedCrystals
from crystalframer.domain import Domain
from crystalframer.model.network import CrystalFramer

SHARED = Path(__file__).parents[2] / "shared" / "data"

SIX_PROPERTIES = TrainingConfig(
    n_epochs=20, batch_size=64, learning_rate=1e-3, schedule="warmup-stable-decay", warmup_steps=100, swa_epochs=0
)

MUON = replace(
    SIX_PROPERTIES,
    n_epochs=16,
    optimizer="muon",
    learning_rate=2e-3,
    target_weights=(2.0, 1.0, 0.5, 1.0, 1.0, 1.0),
)


@dataclass(frozen=True)
class Stage:
    name: str
    max_atoms_per_crystal: int
    training: TrainingConfig


COMMITTED = Path(__file__).parent / "stages"
"""Complete stages that have not replaced the shipped weights: weights, config and metrics."""
TWO_PROPERTIES = COMMITTED / "3-exact" / "weights"
"""Where the stages start."""
STAGES = (Stage("4-six-properties", 60, SIX_PROPERTIES), Stage("6-muon", 60, MUON))


@dataclass(frozen=True)
class Options:
    """Train the shipped checkpoint. After an interruption the same command continues."""

    train: Path = SHARED / "mp2018_train.parquet"
    """Training crystals, with the labels formation_energy_per_atom (eV/atom) and band_gap (eV)."""
    validation: Path = SHARED / "mp2018_val.parquet"
    elastic_optical: Path = SHARED / "elastic_optical.parquet"
    """Moduli and refractive indices of some of both."""
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
    shipped = checkpoint.load(PRETRAINED)
    model = CrystalFramer(replace(MODEL, targets=shipped.config.targets))
    model.load_state_dict(shipped.state_dict())
    model.domain, model.used = shipped.domain, shipped.used
    return model.eval()


def of_size(data: CrystalDataset, max_atoms: int) -> CrystalDataset:
    return data.select(data.n_atoms <= max_atoms)


def crystals(options: Options) -> tuple[CrystalDataset, CrystalDataset]:
    """Training crystals with their strained copies, and validation crystals; made once and kept beside the runs."""
    options.output.mkdir(parents=True, exist_ok=True)
    paths = [options.output / f"{part}.parquet" for part in ("train", "validation")]
    if not all(path.exists() for path in paths):
        table = joined(options.train, options.elastic_optical, "train")
        pandas.concat([table, strained(table)]).to_parquet(paths[0], index=False)
        joined(options.validation, options.elastic_optical, "validation").to_parquet(paths[1], index=False)
    train, validation = (cf.dataset(str(path), targets=TARGETS) for path in paths)
    return train, validation


def trained(options: Options, stage: Stage) -> Path:
    """The weights of a stage that is complete: the committed ones, or those of the run folder."""
    committed = COMMITTED / stage.name / "weights"
    return committed if committed.exists() else options.output / stage.name / "checkpoints" / "last"


def train(options: Options) -> Path:
    """Train all stages that are not complete. Returns the folder of the last weights."""
    train, validation = crystals(options)
    start = TWO_PROPERTIES
    for stage in STAGES:
        folder = options.output / stage.name
        if not ((COMMITTED / stage.name).exists() or (folder / "result.json").exists()):
            parts = [of_size(part, stage.max_atoms_per_crystal) for part in (train, validation)]
            print(
                f"stage {stage.name}: {len(parts[0]):,} crystals of at most {stage.max_atoms_per_crystal} atoms",
                flush=True,
            )
            resume = (folder / "config.json").exists()
            cf.fit(config(stage, start, options.n_threads), Splits(*parts, test=parts[1].select([])), folder, resume)
        start = trained(options, stage)
    print(cf.evaluate(validation, start).summary())
    return start


def without_copies(data: CrystalDataset) -> CrystalDataset:
    """The crystals themselves, without their strained copies."""
    return data.select(np.char.find(data.ids.astype(str), COPY) < 0)


def ship(options: Options) -> None:
    """Put the last weights into the package, calibrated on the validation crystals, with their training log."""
    replace_shipped(cf.load(trained(options, STAGES[-1])), options)
    logs = PRETRAINED / "training"
    for stage in STAGES:
        (logs / stage.name).mkdir(exist_ok=True)
        run = COMMITTED / stage.name if (COMMITTED / stage.name).exists() else options.output / stage.name
        shutil.copy(run / "metrics.csv", logs / stage.name)
        config = (run / "config.json").read_text(encoding="utf-8")
        config = config.replace(str(options.output), "runs/pretrained")
        (logs / stage.name / "config.json").write_text(config, encoding="utf-8")
    write_card(options)


def replace_shipped(model: CrystalFramer, options: Options) -> None:
    """Put a model into the package, with index and intervals; the logs of trainings stay.

    Index and domain are those of the training crystals alone: a strained copy is like none that users should trust.
    Intervals are calibrated on the validation crystals, and on WBM crystals as crystals of another kind.
    """
    train, validation = crystals(options)
    train = of_size(without_copies(train), STAGES[-1].max_atoms_per_crystal)
    if any(target.is_class for target in model.config.targets):
        model = cf.calibrate_probabilities(validation, model)
    chose = of_size(validation, STAGES[-1].max_atoms_per_crystal)
    model.used = UsedCrystals.of({"train": train, "validation": chose})
    model.index = cf.index_training_crystals(train, model)
    model.domain = Domain.of(prepare(train, model.config.radius, enlarge=model.config.enlarges_radius))
    model.soundness = cf.learn_soundness(train, validation, model)
    away = pandas.read_parquet(options.away)
    away = away[(away["part"] == "fit") & away["no_correction"]]["material_id"].astype(str)
    others = cf.dataset(str(options.away), targets=TARGETS[:1])
    others = others.select(np.isin(others.ids.astype(str), away))
    model.uncertainty = cf.calibrate(validation, model, away=others)
    logs = PRETRAINED / "training"
    with tempfile.TemporaryDirectory() as name:  # saving replaces the whole folder
        before = shutil.copytree(logs, Path(name) / "training")
        cf.save(model, PRETRAINED)
        shutil.copytree(before, logs)


def write_card(options: Options) -> None:
    logs = PRETRAINED / "training"
    card = [sys.executable, str(Path(__file__).with_name("model_card.py")), str(PRETRAINED)]
    card += [
        "--data",
        str(options.output / "validation.parquet"),
        "--away",
        str(options.away),
        "--hardware",
        options.hardware,
    ]
    card += ["--runs", *map(str, sorted(logs.iterdir()))]
    subprocess.run(card, check=True)


def seal(folder: Path = PRETRAINED) -> None:
    """Write the files beside the weights again, as `cf.save` does; the weights stay as they are."""
    with tempfile.TemporaryDirectory() as name:
        again = Path(name) / "model"
        cf.save(cf.load(folder, "cpu"), again)
        if (again / WEIGHTS_FILE).read_bytes() != (folder / WEIGHTS_FILE).read_bytes():
            raise SystemExit("this release of safetensors writes the weights otherwise; seal with the pinned one")
        for file in (DOMAIN_FILE, UNCERTAINTY_FILE, INDEX_FILE, SOUNDNESS_FILE):
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
