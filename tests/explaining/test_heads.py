"""What heads are worth: the errors of a model without them, and with random frames, computed in another way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from explained_models import SETS, model_of, predicted
from refusals import refused

import crystalframer as cf
from crystalframer.config import Target
from crystalframer.errors import ConfigError, DataError
from crystalframer.explaining import heads as module
from crystalframer.testing import random_crystal

ENERGY = Target("energy", "eV/atom")


def labelled(target: Target, labels: Sequence[float]) -> cf.CrystalDataset:
    crystals = [random_crystal(seed, n_atoms=3 + seed % 2) for seed in range(len(labels))]
    crystals = [replace(crystal, targets={target.name: label}) for crystal, label in zip(crystals, labels, strict=True)]
    return cf.CrystalDataset.from_crystals(crystals, [target])


def errors_of(model: cf.CrystalFramer, data: cf.CrystalDataset) -> np.ndarray:
    return np.array([abs(predicted(model, crystal)[0] - crystal.targets["energy"]) for crystal in data])


def test_silent_heads_raise_the_error_as_models_without_them_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = model_of(ENERGY, **SETS[0]), labelled(ENERGY, [0.1, -0.3, 0.2, 0.5])
    table = cf.head_importance(data, model)
    whole = errors_of(model, data)
    assert table.attrs == {"target": "energy", "unit": "eV/atom", "error": pytest.approx(whole.mean()), "n_crystals": 4}
    for row in table.to_dict("records"):
        without = errors_of(model.without_heads([(row["layer"], row["head"])]), data)
        assert row["silent"] == pytest.approx((without - whole).mean(), abs=1e-10)
        assert row["silent_low"] <= row["silent"] <= row["silent_high"]
    sizes = np.abs(table[["silent", "random_frames"]].to_numpy()).max(0)
    itself, distance = table[["itself", "distance"]].to_numpy().T
    assert sizes[0] > 1e-3 and sizes[1] > 1e-5
    assert (itself >= 0).all() and (itself <= 1).all() and (distance > 1).all() and (distance < 10).all()
    monkeypatch.setattr(module, "EDGES_AT_ONCE", 1)  # one crystal at a time
    pieces = cf.head_importance(data, model)
    np.testing.assert_allclose(pieces["silent"], table["silent"], atol=1e-10)
    assert not np.allclose(pieces["random_frames"], cf.head_importance(data, model, seed=1)["random_frames"])


def test_random_frames_are_those_of_one_head_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """All heads of the last layer with random frames are one intervention."""
    model, data = model_of(ENERGY, **SETS[0]), labelled(ENERGY, [0.1, -0.3])
    table = cf.head_importance(data, model)
    same = torch.eye(3, dtype=torch.float64)
    monkeypatch.setattr(module, "random_axes", lambda n, generator: same.expand(n, 3, 3))
    fixed = cf.head_importance(data, model)
    assert not np.allclose(fixed["random_frames"], table["random_frames"])
    assert fixed["random_frames"].tolist() == cf.head_importance(data, model, seed=5)["random_frames"].tolist()
    blind = model.with_frames(model.evaluation_config.frame)
    for block in blind.blocks:
        assert block.attention.cosine_projection is not None
        block.attention.cosine_projection.detach()[:, 0] = 0.0
    heads = cf.head_importance(data, blind).set_index(["layer", "head"])["random_frames"]
    np.testing.assert_allclose(heads.xs(0, level="head"), 0.0, atol=1e-12)  # its frames change nothing
    assert np.abs(heads.xs(1, level="head").to_numpy()).min() > 1e-8


def test_intervals_are_those_of_resampled_crystals() -> None:
    increase = np.random.default_rng(0).normal(1.0, 2.0, (3, 400))
    low, high = module._interval(increase, seed=1)
    half = 1.96 * increase.std(-1) / 20
    np.testing.assert_allclose(low, increase.mean(-1) - half, atol=0.03)
    np.testing.assert_allclose(high, increase.mean(-1) + half, atol=0.03)


def test_classes_are_compared_by_their_log_loss() -> None:
    classes = {2: ("no", "yes"), 3: ("cubic", "hexagonal", "other")}
    for n, names in classes.items():
        kind = Target("kind", kind="class", classes=names)
        model, data = model_of(kind), labelled(kind, [0.0, 1.0, n - 1.0])
        wanted = []
        for crystal in data:
            outputs = torch.from_numpy(predicted(model, crystal))
            logits = outputs if n > 2 else torch.stack([torch.zeros_like(outputs[0]), outputs[0]])
            wanted.append(-torch.log_softmax(logits, 0)[int(crystal.targets["kind"])])
        table = cf.head_importance(data, model)
        assert table.attrs["unit"] == "nats" and table.attrs["error"] == pytest.approx(float(np.mean(wanted)))


def test_a_model_without_frames_has_none_to_replace() -> None:
    model, data = model_of(ENERGY, method="none"), labelled(ENERGY, [0.1, -0.3])
    table = cf.head_importance(data, model)
    silent, random = table[["silent", "random_frames"]].to_numpy().T
    assert np.isnan(random).all() and not np.isnan(silent).any()


def test_what_cannot_be_compared_is_refused() -> None:
    model, data = model_of(ENERGY), labelled(ENERGY, [0.1, float("nan")])
    with refused(DataError, "at least two labels of energy"):
        cf.head_importance(data, model)
    with refused(ConfigError, "did you mean 'energy'", field="target"):
        cf.head_importance(data, model, "enrgy")
