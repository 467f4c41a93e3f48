"""Write the predictions of the shipped weights for fixed crystals: tests/golden/predictions.json.

    python scripts/golden_predictions.py

The predictions are computed in float64 with plain torch. A test compares all other backends with them, on every machine
and with every release of the libraries, so that no change of predictions goes unnoticed. Run it when the shipped
weights change. It prints the deviations of the compiled kernels, and of a CUDA device if there is one. With averaged
ties all crystals are compared; with chosen ties only those where rounding decides no axis.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import crystalframer as cf
from crystalframer import ops
from crystalframer.analysis.batches import predictions
from crystalframer.analysis.invariance import invariance
from crystalframer.checkpoint import PRETRAINED
from crystalframer.crystals.crystal import Crystal
from crystalframer.testing import random_crystal

FILE = Path(__file__).parents[1] / "tests" / "golden" / "predictions.json"
N_DEMO, N_RANDOM = 40, 8
SETTLED = 1e-5
"""Largest change under rotations and other cells if rounding decides no axis of a crystal."""


def crystals() -> Iterator[Crystal]:
    """Real crystals of all sizes, many of them symmetric, and random crystals."""
    demo = cf.dataset("demo")
    yield from (demo[row] for row in np.linspace(0, len(demo) - 1, N_DEMO).round().astype(int).tolist())
    yield from (random_crystal(seed, n_atoms=1 + 3 * seed) for seed in range(N_RANDOM))


def digest() -> str:
    """Predictions of the shipped weights."""
    return hashlib.sha256((PRETRAINED / "model.safetensors").read_bytes()).hexdigest()


def off(differences: np.ndarray, model: cf.CrystalFramer) -> np.ndarray:
    """Sizes of differences between outputs. A logit counts a quarter: so much its probability changes at most."""
    is_class = np.repeat(
        [target.is_class for target in model.config.targets],
        [target.n_outputs for target in model.config.targets],
    )
    return np.abs(differences) * np.where(is_class, 0.25, 1.0)


def main() -> None:
    some, model = list(crystals()), cf.load(device="cpu", as_trained=True)
    with ops.use("reference"):
        exact = predictions(some, cf.load(device="cpu", as_trained=True).double())
        averaged = predictions(some, cf.load(device="cpu").double())
    changes = invariance(model, some, ["rotation", "cell"], n_draws=4)
    sizes = off(changes[[f"change/{name}" for name in model.config.target_names]].to_numpy(), model).max(axis=1)
    spread = [float(sizes[(changes["id"] == crystal.id).to_numpy()].max()) for crystal in some]
    settled = np.array(spread) < SETTLED
    table = cf.predict(some, cf.load(device="cpu").double(), progress=False)
    ends = [f"{name}_{side}" for name in model.config.scalar_names for side in ("low", "high")]
    intervals = table[ends].to_numpy()
    record = {
        "weights_sha256": digest(),
        "targets": [target.label for target in model.config.targets],
        "averaged": {crystal.id: averaged[row].tolist() for row, crystal in enumerate(some)},
        "chosen": {crystal.id: exact[row].tolist() for row, crystal in enumerate(some)},
        "moved by rotations": {crystal.id: spread[row] for row, crystal in enumerate(some) if not settled[row]},
        "intervals": {crystal.id: intervals[row].tolist() for row, crystal in enumerate(some)},
        "outside training": dict(zip(table["id"], table["outside_training"], strict=True)),
        "not relaxed": dict(zip(table["id"], table["not_relaxed"], strict=True)),
        "nearest training": dict(zip(table["id"], table["nearest_training"], strict=True)),
    }
    FILE.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    n_moved = len(some) - settled.sum()
    print(f"{FILE.name}: {len(some)} crystals, of which {n_moved} have ties and move by up to {max(spread):.1e}")
    every = np.ones(len(some), dtype=bool)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for ties, golden, compared in (("chosen", exact, settled), ("averaged", averaged, every)):
            way = cf.load(device=device, as_trained=ties == "chosen")
            found = off(predictions(some, way) - golden, model)[compared].max(axis=0)
            outputs = zip(model.config.outputs, found, strict=True)
            differences = ", ".join(f"{output.label} off by at most {size:.1e}" for output, size in outputs)
            print(f"{device}, float32, ties {ties}: {differences}")


if __name__ == "__main__":
    main()
