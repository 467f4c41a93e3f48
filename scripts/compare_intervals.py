"""Compare four kinds of prediction interval on crystals that a model was not trained on.

    python scripts/compare_intervals.py CHECKPOINT ../shared/data/mp2018_train.parquet ../shared/data/mp2018_val.parquet

Each kind is calibrated on one half of the validation crystals and tested on the other, for several random halves.
Prints coverage, mean width, and coverage by cell size, and writes them to a JSON file, from which `model_card.py` makes
a table. The kinds:

    constant    one width for all crystals (split conformal)
    ensemble    scaled by the spread of readouts trained on bootstrap samples of the training crystals' pooled features
    learned     scaled by errors that perceptrons predict from pooled features, as in `cf.calibrate`
    noise       scaled by the spread over the noise that chooses among tied frame axes in training

Computing the features of all training crystals takes about as long as an epoch of training.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

import crystalframer as cf
from crystalframer.crystals.loading import prepare
from crystalframer.evaluation import pooled_and_predicted
from crystalframer.uncertainty import calibrated

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.machine import hardware  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "intervals.json"
N_HALVES, N_MEMBERS, N_EPOCHS = 6, 4, 6
NOISE_SEEDS = (1000, 2000, 3000)
COVERAGE = 0.9
Rows = np.ndarray
HalfWidths = Callable[[Rows, Rows], np.ndarray]
"""(rows to calibrate on, rows to measure) → half-widths of the latter, for each target."""


@dataclass(frozen=True)
class Outputs:
    """Results of a model for a set of crystals."""

    pooled: np.ndarray
    predictions: np.ndarray
    labels: np.ndarray
    n_atoms: np.ndarray


def main(checkpoint: Path, train: Path, validation: Path, output: Path) -> None:
    model = cf.load(checkpoint)
    calm = outputs(model, validation)
    noisy = np.stack([outputs(model, validation, seed).predictions for seed in NOISE_SEEDS])
    errors = calm.predictions - calm.labels

    def learned(rows: Rows, others: Rows) -> np.ndarray:
        return calibrated(calm.pooled[rows], errors[rows], model.config.target_names).half_width(calm.pooled[others])

    kinds: dict[str, HalfWidths] = {
        "constant": scaled(np.ones_like(errors), errors),
        "ensemble": scaled(ensemble_spread(outputs(model, train), calm), errors),
        "learned": learned,
        "noise": scaled(noisy.std(axis=0), errors),
    }
    groups = {
        "n_atoms <= 10": calm.n_atoms <= 10,
        "11 to 20": (calm.n_atoms > 10) & (calm.n_atoms <= 20),
        "21 to 40": (calm.n_atoms > 20) & (calm.n_atoms <= 40),
        "> 40": calm.n_atoms > 40,
    }
    found: dict[str, Any] = {"date": date.today().isoformat(), "hardware": hardware(torch.device("cpu")), "targets": {}}
    for target, name in enumerate(model.config.target_names):
        rows = found["targets"][name] = {}
        print(f"\n{name}, {model.config.targets[target].unit}: coverage, mean width, coverage by atoms in the cell")
        for kind, half_widths in kinds.items():
            inside, width = cross_fitted(half_widths, np.abs(errors))
            by_size = {label: float(inside[mask, target].mean()) for label, mask in groups.items()}
            coverage = float(inside[:, target].mean())
            rows[kind] = {"coverage": coverage, "width": float(width[target]), "coverage by atoms": by_size}
            sizes = "  ".join(f"{label}: {share:.3f}" for label, share in by_size.items())
            print(f"  {kind:<9} {coverage:.3f}  {width[target]:.3f}   {sizes}")
    output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def outputs(model: cf.CrystalFramer, path: Path, noise_seed: int | None = None) -> Outputs:
    data = cf.dataset(str(path), targets=model.config.targets).labelled()
    crystals = prepare(data, model.config.radius, model.config.target_names, enlarge=model.config.enlarges_radius)
    pooled, predictions = pooled_and_predicted(crystals, model, f"features of {path.name}", noise_seed)
    return Outputs(pooled, predictions, crystals.targets, crystals.n_atoms)


def ensemble_spread(train: Outputs, validation: Outputs) -> np.ndarray:
    """Standard deviation over readouts, each trained on a bootstrap sample."""
    complete = ~np.isnan(train.labels).any(axis=1)
    features, labels = train.pooled[complete], train.labels[complete]
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    inputs = torch.from_numpy((features - mean) / std).float()
    outputs = torch.from_numpy((labels - labels.mean(axis=0)) / labels.std(axis=0)).float()
    predictions = []
    for seed in tqdm(range(N_MEMBERS), "readouts"):
        torch.manual_seed(seed)
        sample = torch.randint(len(inputs), (len(inputs),))
        readout = nn.Sequential(
            nn.Linear(inputs.shape[1], inputs.shape[1]), nn.ReLU(), nn.Linear(inputs.shape[1], outputs.shape[1])
        )
        optimiser = torch.optim.AdamW(readout.parameters(), lr=1e-3)
        for _ in range(N_EPOCHS):
            for rows in sample[torch.randperm(len(sample))].split(256):
                optimiser.zero_grad()
                nn.functional.l1_loss(readout(inputs[rows]), outputs[rows]).backward()
                optimiser.step()
        with torch.no_grad():
            unseen = torch.from_numpy((validation.pooled - mean) / std).float()
            predictions.append(readout(unseen).numpy() * labels.std(axis=0))
    return np.std(predictions, axis=0)


def scaled(spread: np.ndarray, errors: np.ndarray) -> HalfWidths:
    """Normalised conformal intervals; to the spread the constant is added that makes the narrowest on average."""

    def half_widths(rows: Rows, others: Rows) -> np.ndarray:
        columns = []
        for target in range(errors.shape[1]):
            candidates = []
            for share in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
                scale = spread[:, target] + np.quantile(spread[:, target], share) + 1e-6
                rank = int(np.ceil((len(rows) + 1) * COVERAGE)) - 1
                quantile = np.sort(np.abs(errors[rows, target]) / scale[rows])[rank]
                candidates.append((quantile * scale[rows].mean(), quantile * scale[others]))
            columns.append(min(candidates, key=lambda candidate: candidate[0])[1])
        return np.stack(columns, axis=1)

    return half_widths


def cross_fitted(half_widths: HalfWidths, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the halves in which each crystal's error is inside, and the mean width, for each target."""
    inside, widths = np.zeros_like(sizes), []
    for seed in range(N_HALVES):
        halves = np.array_split(np.random.default_rng(seed).permutation(len(sizes)), 2)
        for rows, others in (halves, halves[::-1]):
            found = half_widths(rows, others)
            inside[others] += sizes[others] <= found
            widths.append(2.0 * found.mean(axis=0))
    return inside / N_HALVES, np.mean(widths, axis=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("checkpoint", "train", "validation"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--output", type=Path, default=RESULT, help="JSON file (default: in benchmarks/results)")
    main(**vars(parser.parse_args()))
