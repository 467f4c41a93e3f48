"""Configs check themselves, travel as JSON, and name what is wrong."""

from __future__ import annotations

import dataclasses
import json

import pytest

from crystalframer.config import (
    Config,
    CosineBasis,
    DataConfig,
    DecayConfig,
    DistanceBasis,
    FrameConfig,
    ModelConfig,
    Target,
    TrainingConfig,
    from_json,
    to_json,
)
from crystalframer.errors import ConfigError
from crystalframer.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    assert from_json(Config, to_json(PRESETS[name].config)) == PRESETS[name].config


@pytest.mark.usefixtures("as_in_production")
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "frame", "method"), "maxx", "FrameConfig.method = 'maxx' is unknown; did you mean 'max'"),
        (("training", "n_epochs"), "3", r"Config.training.n_epochs: expected int, got '3'"),
        (("training", "n_epochs"), True, "expected int, got True"),
        (("training", "betas"), [0.9], r"Config.training.betas: expected 2 values"),
        (("training", "max_atoms"), 0, "TrainingConfig.max_atoms = 0: must be above 0"),
        (("training", "n_epoch"), 3, "Config.training.n_epoch is no field of this version; did you mean 'n_epochs'"),
        (("model", "targets"), "gap", "Config.model.targets: expected a list"),
        (("model", "frame"), 3, r"Config.model.frame: expected an object with fields, got 3"),
    ],
)
def test_wrong_fields_are_named(path: tuple[str, ...], value: object, message: str) -> None:
    tree = json.loads(to_json(Config()))
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ConfigError, match=message):
        from_json(Config, json.dumps(tree))


def test_text_that_is_no_json() -> None:
    with pytest.raises(ConfigError, match="Config: not valid JSON"):
        from_json(Config, "{")


def test_integers_pass_for_floats() -> None:
    assert from_json(TrainingConfig, '{"clip_norm": 2}').clip_norm == 2.0


@pytest.mark.usefixtures("as_in_production")
@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Target, {"name": ""}, "Target.name = '': must not be empty"),
        (Target, {"name": "error"}, "Target.name = 'error': is a column of every table of results"),
        (DecayConfig, {"floor": 1.0}, "DecayConfig.floor = 1.0: must lie between 0 and 1"),
        (DistanceBasis, {"n_centers": 0}, "DistanceBasis.n_centers = 0"),
        (CosineBasis, {"n_centers": 1}, "CosineBasis.n_centers = 1"),
        (FrameConfig, {"tie_margin": -1.0}, "FrameConfig.tie_margin = -1.0"),
        (ModelConfig, {"d_model": 130}, "ModelConfig.d_model = 130: must be a multiple of n_heads = 8"),
        (ModelConfig, {"targets": ()}, "ModelConfig.targets = .*needs at least one"),
        (ModelConfig, {"targets": (Target("a"), Target("a"))}, "names a target twice"),
        (ModelConfig, {"weight_tolerance": 0.0}, "ModelConfig.weight_tolerance = 0.0"),
        (DataConfig, {"split": "grouped"}, "DataConfig.split = 'grouped' is unknown; did you mean 'group'"),
        (DataConfig, {"validation_fraction": 0.6, "test_fraction": 0.4}, "leaves nothing to train on"),
        (
            TrainingConfig,
            {"n_epochs": 5, "swa_epochs": 6},
            "TrainingConfig.swa_epochs = 6: exceeds n_epochs = 5; lower it too",
        ),
        (TrainingConfig, {"precision": "16"}, "TrainingConfig.precision = '16' is unknown"),
    ],
)
def test_checks_on_construction(kind: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model = ModelConfig()  # type: ignore[misc]


def test_an_unknown_preset_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="preset 'lightwight' is unknown; did you mean 'lightweight'"):
        preset("lightwight")


def test_presets_carry_the_published_numbers() -> None:
    jarvis = "JARVIS: formation energy (eV/atom)"
    published = {name: found.published_mae[jarvis] for name, found in PRESETS.items() if jarvis in found.published_mae}
    assert published == {
        "default": 0.0263,
        "lightweight": 0.0268,
        "weighted-pca": 0.0287,
        "static-local": 0.0285,
        "pca": 0.0325,
        "lattice": 0.0302,
        "crystalformer": 0.0306,
    }
    assert PRESETS["default-oqmd-8"].config.model.n_layers == 8
    assert all(found.config.training.bias_weight_decay == 0.01 for found in PRESETS.values() if found.published_mae)


def test_target_label() -> None:
    assert Target("band_gap", "eV").label == "band_gap (eV)"
    assert Target("score").label == "score"
