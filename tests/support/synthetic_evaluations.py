"""An evaluation of six targets of both kinds, without a model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from crystalframer.class_scores import score_classes
from crystalframer.config import Target
from crystalframer.evaluation import Evaluation, TargetScore

SCALARS = (
    Target("formation_energy_per_atom", "eV/atom"),
    Target("band_gap", "eV"),
    Target("log10_bulk_modulus", "log10(GPa)"),
    Target("log10_shear_modulus", "log10(GPa)"),
    Target("refractive_index"),
)
METAL = Target("is_metal", kind="class", classes=("non-metal", "metal"))
PHASE = Target("phase", kind="class", classes=("cubic", "tetragonal", "other"))


def synthetic_evaluation(n: int = 80, seed: int = 0, classes: tuple[Target, ...] = (METAL,)) -> Evaluation:
    """Each scalar has missing labels."""
    random = np.random.default_rng(seed)
    same = {"id": [f"crystal {number}" for number in range(n)], "formula": "NaCl", "n_atoms": 2, "error": None}
    frames, scores, class_scores = [], {}, {}
    for target in SCALARS:
        label = random.normal(size=n)
        predicted = label + random.normal(scale=0.2, size=n)
        label[random.integers(0, n, n // 5)] = np.nan
        frame = pd.DataFrame(same | {"target": target.name, "label": label, "prediction": predicted})
        frames.append(frame.assign(deviation=predicted - label))
        known = ~np.isnan(label)
        error, centred = (predicted - label)[known], label[known] - label[known].mean()
        scores[target.name] = TargetScore(
            target,
            int(known.sum()),
            mae=float(np.abs(error).mean()),
            rmse=float(np.sqrt((error**2).mean())),
            r2=float(1 - (error**2).sum() / (centred**2).sum()),
            baseline_mae=1.0,
        )
    for target in classes:
        true = random.integers(0, len(target.classes), n)
        logits = random.normal(size=(n, len(target.classes)))
        logits[np.arange(n), true] += 1.5
        shares = np.exp(2 * logits)
        shares /= shares.sum(axis=1, keepdims=True)
        class_scores[target.name] = score_classes(target, true, shares, 0)
        names = np.array(target.classes, dtype=object)
        columns = {f"probability/{name}": shares[:, k] for k, name in enumerate(target.classes)}
        named = {"label": names[true], "prediction": names[shares.argmax(axis=1)], "probability": shares.max(axis=1)}
        frames.append(pd.DataFrame(same | {"target": target.name} | named | columns))
    return Evaluation(pd.concat(frames, ignore_index=True), scores, n, 0, class_scores=class_scores)
