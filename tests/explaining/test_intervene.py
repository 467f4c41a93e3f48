"""Interventions: hidden edges, silent heads and other frames give what a smaller network or another crystal gives."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from explained_models import CRYSTAL, SETS, model_of, predicted
from refusals import refused

import crystalframer as cf
from crystalframer import ops
from crystalframer.config import FrameConfig, Target
from crystalframer.crystals.loading import prepare
from crystalframer.errors import ConfigError, CrystalWarning
from crystalframer.explaining.interventions import kept_edges, random_axes
from crystalframer.explaining.removal import predictions_with
from crystalframer.frame_methods import FRAME_METHODS
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import prototypes

SALT = prototypes()[4]


def change(model: CrystalFramer, *asked: cf.Intervention, crystal: Any = CRYSTAL) -> np.ndarray:
    name = model.config.outputs[0].name
    return cf.intervene(crystal, model, asked)[f"{name}_change"].to_numpy()


def test_hidden_edges_are_as_if_they_were_not_there() -> None:
    """A model without a reach takes what neighbours it gets: all within 5 Å, here."""
    model = model_of(**SETS[0])
    decay = replace(model.config.decay, reach=None)
    config, evaluation = (replace(each, decay=decay) for each in (model.config, model.evaluation_config))
    model = model._with(config, evaluation)
    wide, near = (prepare([SALT], radius, enlarge=False).batch([0], torch.float64) for radius in (7.0, 5.0))
    assert near.n_edges < wide.n_edges
    with torch.no_grad():
        found, wanted = predictions_with(model, wide, [wide.edge_lengths <= 5.0]), model(near)
        assert (found - model(wide)).abs().max() > 1e-6
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("crystal", [SALT, prototypes()[10], CRYSTAL], ids=lambda crystal: crystal.id)
def test_kernels_take_crystals_without_some_edges(crystal: cf.Crystal) -> None:
    """Also atoms that are left alone."""
    model = cf.load()
    batch = prepare([crystal], model.config.radius, enlarge=False).batch([0])
    masks = [torch.rand(batch.n_edges) < share for share in (0.9, 0.3, 0.02, 0.0)]
    masks = [mask | (batch.edge_lengths < 1e-2) for mask in masks]
    fast = predictions_with(model, batch, masks)
    with ops.use("reference"):
        slow = predictions_with(model, batch, masks)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-5)
    assert (fast[1:] - fast[:-1]).abs().max() > 0.1


def test_what_each_field_hides() -> None:
    packed = prepare([SALT], 6.0, enlarge=False).batch([0])
    query, key = packed.edge_index
    others = packed.edge_lengths > 1e-2

    def hidden(**fields: Any) -> torch.Tensor:
        return ~kept_edges(cf.Intervention(**fields), packed)

    assert torch.equal(hidden(neighbours=[(0, 5)]), (query == 0) & (key == 5))
    assert torch.equal(hidden(atoms=[3, 4]), ((key == 3) | (key == 4)) & others)
    assert torch.equal(hidden(shells=[1]), others & (packed.edge_lengths < 3.0))
    edges = torch.nonzero(others)[:3, 0].tolist()
    assert torch.nonzero(hidden(edges=edges))[:, 0].tolist() == edges
    assert not hidden(heads=[(0, 0)], frames="random").any()


def test_hiding_everything_leaves_atoms_alone_and_says_so() -> None:
    model = model_of(**SETS[0])
    with pytest.warns(CrystalWarning, match="5 atoms see no neighbour"):
        table = cf.intervene(CRYSTAL, model, cf.Intervention(atoms=range(5)))
    assert table["n_alone"].tolist() == [5]
    alone = [replace(CRYSTAL, lattice=40 * np.eye(3), positions=CRYSTAL.positions * 0 + 8.0 * np.arange(5)[:, None])]
    name = model.config.outputs[0].name
    np.testing.assert_allclose(table[name], predicted(model, alone[0])[:1], atol=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean = cf.intervene(CRYSTAL, model, cf.Intervention(atoms=range(5), rule="mean"))
    assert mean["n_alone"].tolist() == [0] and mean["rule"].tolist() == ["mean"]


def test_the_mean_of_what_is_hidden_takes_its_place() -> None:
    """The attention to hidden edges brings the mean over all edges of the atom."""
    model = model_of(method="none")
    batch = prepare([CRYSTAL], model.config.radius, enlarge=False).batch([0], torch.float64)
    name = model.config.outputs[0].name
    asked = cf.Intervention(neighbours=[(0, 1), (2, 3)], rule="mean")
    found = cf.intervene(CRYSTAL, model, asked)[name].iloc[0]
    kept = kept_edges(asked, batch)
    query = batch.edge_index[0]
    with torch.no_grad():
        features = model.embed(batch.atomic_numbers)
        for block in model.blocks:
            whole = block.attention.trace(block.attention.project(features), _edges(batch))
            attention, outputs = whole.framed.attention, []
            part = _bring(block, features, batch, attention * kept[:, None])
            rest = attention * ~kept[:, None]
            share = torch.zeros(5, attention.shape[1], dtype=torch.float64).index_add(0, query, rest)
            outputs = part + share[..., None] * whole.framed.output
            features = features + block.attention.output(outputs.flatten(1))
            features = features + block.feedforward(features)
        wanted = float(model.read_out(features.mean(0, keepdim=True))[0, 0])
    assert abs(found - wanted) < 1e-10
    assert abs(found - predicted(model, CRYSTAL)[0]) > 1e-4


def _edges(batch: Any) -> Any:
    from crystalframer.maths.edges import Edges

    return Edges.of(batch)


def _bring(block: Any, features: torch.Tensor, batch: Any, weights: torch.Tensor) -> torch.Tensor:
    from crystalframer.ops.reference import Change

    change = Change(weights=lambda attention: weights)
    return block.attention.trace(block.attention.project(features), _edges(batch), change).framed.output


def test_silent_heads_bring_nothing() -> None:
    model = model_of(**SETS[0])
    n_heads, n_layers = model.config.n_heads, model.config.n_layers
    all_heads = [(0, head) for head in range(n_heads)]
    asked = [cf.Intervention(heads=all_heads), cf.Intervention(layers=[0]), cf.Intervention(heads=[(0, 1)])]
    whole, layer, one = change(model, *asked)
    assert whole == layer != one != 0.0
    everything = cf.Intervention(layers=range(n_layers))
    silent, hidden = change(model, everything, replace(everything, atoms=[0, 1]))
    assert silent == hidden  # whatever they see
    assert change(model, cf.Intervention())[0] == 0.0


def test_frames_of_another_method_are_those_of_its_model() -> None:
    model = model_of(**SETS[0])
    for method in FRAME_METHODS:
        found = change(model, cf.Intervention(frames=method))[0]
        if method == "max":
            assert found == 0.0
        else:
            assert abs(found) > 1e-6
    none = model.with_frames(FrameConfig("none"))
    random = [
        cf.intervene(CRYSTAL, each, cf.Intervention(frames="random"), seed=seed).iloc[0, -1]
        for each, seed in ((model, 0), (model, 0), (model, 1), (none, 0))
    ]
    assert random[0] == random[1] != random[2] and abs(random[3]) < 1e-12


def test_random_axes_are_rotations() -> None:
    axes = random_axes(2000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3, dtype=torch.float64).expand_as(axes))
    assert (torch.linalg.det(axes) > 0).all()
    assert axes.mean(0).abs().max() < 0.05 and (axes.square().mean(0) - 1 / 3).abs().max() < 0.03


def test_classes_change_in_probability() -> None:
    model = model_of(Target("metal", kind="class", classes=("no", "yes")))
    table = cf.intervene(CRYSTAL, model, cf.Intervention(shells=[1]))
    before = 1 / (1 + np.exp(-predicted(model, CRYSTAL)[0]))
    assert table["metal"].between(0, 1).all()
    np.testing.assert_allclose(table["metal"] - table["metal_change"], before)


def test_what_cannot_be_changed_is_refused() -> None:
    model = model_of(**SETS[0])
    itself = int(np.flatnonzero(cf.explain(CRYSTAL, model).is_self)[0])
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("edges", {"edges": [10**6]}),
        ("edges", {"edges": [itself]}),
        ("atoms", {"atoms": [5]}),
        ("neighbours", {"neighbours": [(0, 5)]}),
        ("shells", {"shells": [0]}),
        ("heads", {"heads": [(0, 99)]}),
        ("layers", {"layers": [-1]}),
    ]
    for field, fields in wrong:
        with refused(ConfigError, field=field):
            cf.intervene(CRYSTAL, model, cf.Intervention(**fields))
    with refused(ConfigError, "did you mean", field="frames"):
        cf.Intervention(frames="weighted")
    with refused(ConfigError, "no frames", field="frames"):
        cf.intervene(CRYSTAL, model_of(method="none"), cf.Intervention(frames="random"))


def test_an_unknown_rule_is_refused(as_in_production: None) -> None:
    with refused(ConfigError, "renormalise", field="rule"):
        cf.Intervention(rule="zero")  # type: ignore[arg-type]
