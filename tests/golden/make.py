"""Cut the arrays that the parity tests need out of the full golden fixtures: `python tests/golden/make.py FOLDER`.

Weights, inputs, outputs and frames are kept whole; layer outputs for the first and the last block; gradients and
trained weights as every n-th entry of each tensor with its largest magnitude and its norm.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SAMPLES = 128
"""Entries kept of each gradient."""
LAYERS = [0, 3]


def sample(values: np.ndarray) -> np.ndarray:
    """At most SAMPLES entries, evenly spread; a prime-ish stride so that no row or column repeats."""
    flat = values.ravel()
    stride = max(1, flat.size // SAMPLES) | 1
    return flat[::stride]


def forward(full: np.lib.npyio.NpzFile, *names: str) -> dict[str, np.ndarray]:
    kept = {name: full[name] for name in ("output", *names) if name in full.files}
    return kept | {"layer_output": full["layer_output"][LAYERS]}


def sampled(full: np.lib.npyio.NpzFile, prefix: str) -> dict[str, np.ndarray]:
    kept = {}
    for key in full.files:
        if key.startswith(prefix) and not key.startswith("__"):
            kept["sample/" + key.removeprefix(prefix)] = sample(full[key])
            kept["max/" + key.removeprefix(prefix)] = np.abs(full[key]).max()
            kept["norm/" + key.removeprefix(prefix)] = np.linalg.norm(full[key].astype(np.float64))
    return kept


def main(source: Path) -> None:
    def load(name: str) -> np.lib.npyio.NpzFile:
        return np.load(source / f"{name}.npz")

    files: dict[str, dict[str, np.ndarray]] = {}
    for name in ("inputs", "weights_a64", "weights_a16", "init_stats"):
        files[name] = dict(load(name))
    for name in ("max", "max_light", "no"):
        full = load(f"exact_{name}")
        files[f"exact_{name}"] = forward(full, "frames") | {f"grad/{k}": v for k, v in sampled(full, "grad/").items()}
    for name in ("max", "max_light", "no"):
        files[f"fwd_{name}"] = forward(load(f"fwd_{name}"), "gauss_scale")
    for name in ("lattice", "max_static", "pca", "weighted_pca"):
        files[f"fwd_{name}"] = forward(load(f"fwd_{name}"), "gauss_scale", "frames")
    for name in ("max", "no"):
        full = load(f"grad_{name}")
        files[f"grad_{name}"] = {"loss": full["__loss__"]} | sampled(full, "")
    full = load("train_max")
    files["train_max"] = {k: full[k] for k in full.files if "/" not in k} | {
        f"{which}/{k}": v for which in ("final", "swa") for k, v in sampled(full, f"{which}/").items()
    }
    for name, arrays in files.items():
        np.savez_compressed(HERE / f"{name}.npz", **arrays)  # type: ignore[arg-type]
    print(f"{sum(p.stat().st_size for p in HERE.glob('*.npz')) / 1e6:.2f} MB in {HERE}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
