"""Configs check themselves, travel as JSON, and name what is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from refusals import refused

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
    ("field", "value", "word"),
    [
        ("model.frame.method", "maxx", "did you mean 'max'"),
        ("training.n_epochs", "3", "whole number"),
        ("training.n_epochs", None, "null"),
        ("training.clip_norm", True, "number"),
        ("training.betas", [0.9], "2 values"),
        ("training.max_atoms", 0, "above 0"),
        ("training.n_epoch", 3, "did you mean 'n_epochs'"),
        ("model.targets", "gap", "list"),
        ("model.frame", 3, "fields"),
    ],
)
def test_wrong_fields_are_named(field: str, value: object, word: str) -> None:
    tree = json.loads(to_json(Config()))
    *sections, name = field.split(".")
    section = tree
    for key in sections:
        section = section[key]
    section[name] = value
    with refused(ConfigError, word, field=field) as caught:
        from_json(Config, json.dumps(tree))
    assert caught.value.value == (None if name == "n_epoch" else value)


def test_a_section_alone_names_its_fields_as_the_whole_does() -> None:
    with refused(ConfigError, "number", field="model.distance.width"):
        from_json(DistanceBasis, '{"width": "1"}')


def test_text_that_is_no_json() -> None:
    with refused(ConfigError, "JSON"):
        from_json(Config, "{")


def test_integers_pass_for_floats() -> None:
    assert from_json(TrainingConfig, '{"clip_norm": 2}').clip_norm == 2.0


@pytest.mark.usefixtures("as_in_production")
@pytest.mark.parametrize(
    ("kind", "values", "field", "word"),
    [
        (Target, {"name": ""}, "name", "empty"),
        (Target, {"name": "error"}, "name", "column"),
        (DecayConfig, {"floor": 1.0}, "model.decay.floor", "between 0 and 1"),
        (DistanceBasis, {"n_centers": 0}, "model.distance.n_centers", "above 0"),
        (CosineBasis, {"n_centers": 1}, "model.cosine.n_centers", "at least 2"),
        (FrameConfig, {"tie_margin": -1.0}, "model.frame.tie_margin", "negative"),
        (ModelConfig, {"d_model": 130}, "model.d_model", "model.n_heads = 8"),
        (ModelConfig, {"targets": ()}, "model.targets", "at least one"),
        (ModelConfig, {"targets": (Target("a"), Target("a"))}, "model.targets", "twice"),
        (ModelConfig, {"weight_tolerance": 0.0}, "model.weight_tolerance", "between 0 and 1"),
        (DataConfig, {"split": "grouped"}, "data.split", "did you mean 'group'"),
        (DataConfig, {"validation_fraction": 0.6, "test_fraction": 0.4}, "data.test_fraction", "train on"),
        (TrainingConfig, {"n_epochs": 5, "swa_epochs": 6}, "training.swa_epochs", "training.n_epochs = 5"),
        (TrainingConfig, {"precision": "16"}, "training.precision", "bf16-mixed"),
        (TrainingConfig, {"n_epochs": "3"}, "training.n_epochs", "whole number"),
        (TrainingConfig, {"n_epochs": True}, "training.n_epochs", "whole number"),
        (TrainingConfig, {"batch_size": 3.5}, "training.batch_size", "whole number"),
        (TrainingConfig, {"max_atoms": "3"}, "training.max_atoms", "whole number"),
        (TrainingConfig, {"learning_rate": "0.001"}, "training.learning_rate", "number"),
        (TrainingConfig, {"schedule": 3}, "training.schedule", "text"),
        (TrainingConfig, {"drop_last": 1}, "training.drop_last", "true or false"),
        (TrainingConfig, {"betas": (0.9, "x")}, "training.betas[1]", "number"),
        (FrameConfig, {"noise": "1"}, "model.frame.noise", "number"),
        (FrameConfig, {"weighted_margin": math.inf}, "model.frame.weighted_margin", "finite"),
        (FrameConfig, {"method": "pca", "second_axis": "sine"}, "model.frame.method", "second_axis"),
        (CosineBasis, {"coefficient": -math.inf}, "model.cosine.coefficient", "finite"),
        (DecayConfig, {"reach": math.inf}, "model.decay.reach", "finite"),
        (CosineBasis, {"coefficient": 10**400}, "model.cosine.coefficient", "finite"),
        (FrameConfig, {"weighted_margin": 1e-6}, "model.frame.weighted_margin", "1e-05"),
        (ModelConfig, {"frame": "max"}, "model.frame", "FrameConfig"),
        (ModelConfig, {"targets": "band_gap:eV"}, "model.targets", "list"),
        (ModelConfig, {"targets": ["band_gap:eV"]}, "model.targets[0]", "Target"),
        (DataConfig, {"split": ["given"]}, "data.split", "text"),
        (Config, {"training": {"n_epochs": 1}}, "training", "TrainingConfig"),
        (Target, {"name": 3}, "name", "text"),
        (Target, {"name": "y", "classes": ("a", "b")}, "classes", "kind `class`"),
        (Target, {"name": "y", "kind": "class", "unit": "eV"}, "unit", "no meaning"),
        (Target, {"name": "y", "kind": "class", "classes": ("a", "a")}, "classes", "twice"),
        (Target, {"name": "y", "kind": "class", "classes": ("a", "")}, "classes", "empty"),
        (Target, {"name": "y", "kind": "classes"}, "kind", "Known: scalar, class"),
    ],
)
def test_checks_on_construction(kind: type, values: dict[str, Any], field: str, word: str) -> None:
    with refused(ConfigError, word, field=field) as caught:
        kind(**values)
    name, _, item = field.rpartition(".")[2].partition("[")
    assert caught.value.value == (values[name][-1] if item else values[name])


@pytest.mark.parametrize(
    ("decay", "name"), [(DecayConfig(reach=1e6), "reach"), (DecayConfig(reference_length=1e3), "reference_length")]
)
def test_a_radius_that_no_memory_holds(decay: DecayConfig, name: str) -> None:
    with refused(ConfigError, "100 Å", field=f"model.decay.{name}") as caught:
        ModelConfig(decay=decay)
    assert caught.value.value == getattr(decay, name)


@pytest.mark.usefixtures("as_in_production")
def test_integers_and_lists_pass_on_construction() -> None:
    assert TrainingConfig(clip_norm=2).clip_norm == 2
    assert len(ModelConfig(targets=[Target("a"), Target("b")]).targets) == 2  # type: ignore[arg-type]


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model = ModelConfig()  # type: ignore[misc]


def test_an_unknown_preset_gets_a_suggestion() -> None:
    with refused(ConfigError, "did you mean 'lightweight'", field="preset") as caught:
        preset("lightwight")
    assert caught.value.value == "lightwight"


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


@pytest.mark.parametrize(
    ("frame", "reach", "kept"),
    [
        (FrameConfig(), None, ()),
        (FrameConfig(weighted_margin=0.1), None, ("rotation", "cell")),
        (FrameConfig(weighted_margin=0.1), 5.0, ("rotation", "cell")),
        (FrameConfig(weighted_margin=0.1, second_axis="sine"), 5.0, ("rotation", "cell", "continuous")),
        (FrameConfig(both_hands=True), 5.0, ("mirror",)),
        (FrameConfig("weighted-pca", both_hands=True), 5.0, ("mirror",)),
        (FrameConfig("lattice"), 5.0, ("rotation",)),
        (FrameConfig("none"), None, ("rotation", "cell", "mirror")),
        (FrameConfig("none"), 5.0, ("rotation", "cell", "mirror", "continuous")),
    ],
)
def test_a_model_says_what_it_promises(frame: FrameConfig, reach: float | None, kept: tuple[str, ...]) -> None:
    promises = ModelConfig(frame=frame, decay=DecayConfig(reach=reach)).promises
    assert tuple(name for name, is_kept in dataclasses.asdict(promises).items() if is_kept) == kept
    assert len(promises.broken) == 4 - len(kept) and all(words in str(promises) for words in promises.broken)


def test_smooth_models_are_continuous_and_have_a_smooth_activation() -> None:
    frame, decay = FrameConfig(weighted_margin=0.1, second_axis="sine"), DecayConfig(reach=5.0)
    assert ModelConfig(frame=frame, decay=decay, activation="swish").promises.smooth
    assert not ModelConfig(frame=frame, decay=decay).promises.smooth
    assert not ModelConfig(frame=frame, activation="swish").promises.smooth
