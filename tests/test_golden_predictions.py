"""The shipped weights predict what they predicted when they were shipped, however it is computed: eV/atom and eV."""

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


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_predictions", ROOT / "scripts/golden_predictions.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("backend", "device", "dtype", "kind", "bar"),
    [
        ("reference", "cpu", torch.float64, "settled", 1e-9),
        ("reference", "cpu", torch.float32, "settled", 1e-5),
        ("cpu", "cpu", torch.float32, "settled", 1e-5),
        # The weights of averaged frames follow the logits, and magnify their rounding.
        ("cpu", "cpu", torch.float32, "averaged", 1e-4),
        pytest.param("cuda", "cuda", torch.float32, "settled", 1e-5, marks=pytest.mark.gpu),
        pytest.param("cuda", "cuda", torch.float32, "averaged", 1e-4, marks=pytest.mark.gpu),
    ],
)
def test_predictions_do_not_drift(
    script: ModuleType, backend, device: str, dtype: torch.dtype, kind: str, bar: float
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert script.digest() == GOLDEN["weights_sha256"], "other weights: run scripts/golden_predictions.py"
    crystals = {crystal.id: crystal for crystal in script.crystals()}
    ids, model = list(GOLDEN[kind]), cf.load(device=device, average_ties=kind == "averaged")
    with ops.use(backend):
        found = predictions([crystals[id] for id in ids], model.to(dtype), progress=False)
    off = np.abs(found - np.array([GOLDEN[kind][id] for id in ids]))
    assert off.max() < bar, f"{ids[int(off.max(axis=1).argmax())]} is off by {off.max():.1e}"


def test_every_golden_crystal_is_compared(script: ModuleType) -> None:
    """With averaged ties each of them, and with chosen ones all that rounding does not move."""
    ids = [crystal.id for crystal in script.crystals()]
    assert list(GOLDEN["averaged"]) == ids
    assert {*GOLDEN["settled"], *GOLDEN["moved by rotations"]} == set(ids)
    assert len(GOLDEN["settled"]) > len(ids) / 2
