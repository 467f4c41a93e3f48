"""The shipped weights predict what they predicted when they were shipped, however it is computed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import crystalframer as cf
from crystalframer import ops
from crystalframer.analysis.batches import predictions

ROOT = Path(__file__).parents[1]
GOLDEN = json.loads((ROOT / "tests/golden/predictions.json").read_text(encoding="utf-8"))
FLOAT32, FLOAT64 = 1e-5, 1e-9
"""Largest difference, eV/atom and eV."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_predictions", ROOT / "scripts/golden_predictions.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("backend", "device", "dtype", "bar"),
    [
        ("reference", "cpu", torch.float64, FLOAT64),
        ("reference", "cpu", torch.float32, FLOAT32),
        ("cpu", "cpu", torch.float32, FLOAT32),
        pytest.param("cuda", "cuda", torch.float32, FLOAT32, marks=pytest.mark.gpu),
    ],
)
def test_predictions_do_not_drift(script: ModuleType, backend, device: str, dtype: torch.dtype, bar: float) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert script.digest() == GOLDEN["weights_sha256"], "other weights: run scripts/golden_predictions.py"
    crystals = {crystal.id: crystal for crystal in script.crystals()}
    ids = list(GOLDEN["settled"])
    with ops.use(backend):
        found = predictions([crystals[id] for id in ids], cf.load(device=device).to(dtype), progress=False)
    off = np.abs(found - np.array([GOLDEN["settled"][id] for id in ids]))
    assert off.max() < bar, f"{ids[int(off.max(axis=1).argmax())]} is off by {off.max():.1e}"


def test_most_golden_crystals_are_compared() -> None:
    assert len(GOLDEN["settled"]) > 5 * len(GOLDEN["moved by rotations"])
