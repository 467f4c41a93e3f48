"""The network without torch gives what the network with torch gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crystalframer import batched, checkpoint
from crystalframer.batched import summing
from crystalframer.config import DecayConfig, FrameConfig, ModelConfig, Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.crystals.loading import prepare
from crystalframer.frame_methods import FRAME_METHODS
from crystalframer.model.arrays import ArrayModel, is_served, weight_shapes
from crystalframer.model.network import CrystalFramer
from crystalframer.presets import PRESETS
from crystalframer.testing import prototypes, random_crystal

SIX_TARGETS = Path(__file__).parents[2] / "scripts" / "stages" / "4-six-properties" / "weights"
CRYSTALS = [*prototypes(), *(random_crystal(seed, 2 + seed) for seed in range(8))]
SMALL = replace(PRESETS["tiny"].config.model, n_layers=2)
CONFIGS = {
    **{name: preset.config.model for name, preset in PRESETS.items()},
    **{f"{method} frames": replace(SMALL, frame=FrameConfig(method)) for method in FRAME_METHODS},
    "static sets of both hands": replace(
        SMALL, frame=FrameConfig("static-max", weighted_margin=0.3, second_axis="sine", both_hands=True)
    ),
    "one frame of both hands": replace(SMALL, frame=FrameConfig("max", both_hands=True, second_axis="sine")),
    "swish, smooth, with a reach": replace(SMALL, activation="swish", decay=DecayConfig(shape="smooth", reach=3.5)),
    "bounded contents": replace(SMALL, largest_content=4.0),
    "other head sizes": replace(SMALL, n_heads=4, d_model=24, d_feedforward=40),
    "classes": replace(
        SMALL, targets=(Target("e"), Target("kind", kind="class", classes=("a", "b", "c")), Target("m", kind="class"))
    ),
}


def both(folder: Path) -> tuple[CrystalFramer, ArrayModel]:
    arrays = checkpoint.load_arrays(folder)
    assert arrays is not None
    return checkpoint.load(folder), arrays


def assert_alike(model: CrystalFramer, arrays: ArrayModel, crystals: list[Crystal]) -> None:
    prepared = prepare(crystals, model.config.radius, enlarge=model.config.enlarges_radius)
    rows = np.arange(len(crystals))
    with torch.no_grad():
        expected, found = (
            model.evaluate(model.batch_of(prepared, rows)),
            arrays.evaluate(arrays.batch_of(prepared, rows)),
        )
    if expected.pooled is not None:
        assert found.pooled is not None
        np.testing.assert_allclose(found.pooled, expected.pooled, rtol=0, atol=1e-6 * np.abs(expected.pooled).max())
    spread = max(float(model.target_std.max()), float(np.abs(expected.outputs).max()))
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=1e-6, atol=1e-6 * spread)
    if expected.kinds is not None:
        assert found.kinds is not None
        np.testing.assert_allclose(found.kinds, expected.kinds, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if is_served(config)])
def test_evaluations_are_alike(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    model = CrystalFramer(config, torch.Generator().manual_seed(0))
    prepared = prepare(CRYSTALS[:6], config.radius, enlarge=config.enlarges_radius)
    model.calibrate(prepared.batch(range(6)))
    model.target_mean[:], model.target_std[:] = 1.5, 0.5
    checkpoint.save(model, tmp_path / "model")
    model, arrays = both(tmp_path / "model")
    assert_alike(model, arrays, CRYSTALS)
    assert_alike(summing(model), summing(arrays), CRYSTALS[:4])


@pytest.mark.parametrize("folder", [checkpoint.PRETRAINED, SIX_TARGETS], ids=["shipped", "six targets"])
def test_trained_models_are_alike(folder: Path) -> None:
    model, arrays = both(folder)
    assert_alike(model, arrays, CRYSTALS)


def test_tables_of_predictions_are_alike() -> None:
    """With intervals, flags and nearest training crystals."""
    model, arrays = both(checkpoint.PRETRAINED)
    expected, found = (batched.predicted(CRYSTALS, each, 64, 1024, False) for each in (model, arrays))
    assert list(found.columns) == list(expected.columns) and found.units == expected.units
    for name, values in expected.columns.items():
        if isinstance(values[0], float):
            np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=2e-6, err_msg=name)
        elif name == "outside_training":  # says lengths and distances with few digits
            assert [flag is None for flag in found[name]] == [flag is None for flag in values]
        else:
            assert found[name] == list(values), name


def test_a_large_crystal_is_computed_in_chunks() -> None:
    model, arrays = both(checkpoint.PRETRAINED)
    prepared = prepare([random_crystal(3, 12)], model.config.radius, enlarge=model.config.enlarges_radius)
    whole = arrays.evaluate(prepared.arrays([0]))
    chunks = arrays.evaluate(ChunkedCrystal(prepared, 0, max_edges=500))
    np.testing.assert_allclose(chunks.outputs, whole.outputs, rtol=2e-6, atol=2e-6)
    assert chunks.kinds is not None and whole.kinds is not None
    np.testing.assert_allclose(chunks.kinds, whole.kinds, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_shapes_are_those_of_the_network(name: str) -> None:
    network = CrystalFramer(CONFIGS[name]).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in network.items()} == weight_shapes(CONFIGS[name])


def test_a_model_without_a_kernel_needs_torch(tmp_path: Path) -> None:
    config: ModelConfig = replace(SMALL, frame=FrameConfig("weighted-pca"))
    checkpoint.save(CrystalFramer(config), tmp_path / "model")
    assert checkpoint.load_arrays(tmp_path / "model") is None


def test_numbers_of_another_type_need_torch(tmp_path: Path) -> None:
    checkpoint.save(CrystalFramer(SMALL).double(), tmp_path / "model")
    assert checkpoint.load_arrays(tmp_path / "model") is None
