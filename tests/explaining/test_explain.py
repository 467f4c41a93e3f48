"""Explanations: complete, the same however a crystal is described, and equal to what they are derivatives of."""

from __future__ import annotations

import copy
import dataclasses
import unittest.mock
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explained_models import CRYSTAL, FRAMES, SETS, model_of, predicted
from refusals import refused
from scipy.stats import rankdata

import crystalframer as cf
from crystalframer import ops
from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import prepare
from crystalframer.errors import ConfigError, CrystalError, TraceError
from crystalframer.explaining import attribution
from crystalframer.explanations import shells_of
from crystalframer.frame_methods import FRAME_METHODS
from crystalframer.maths.edges import Edges
from crystalframer.maths.segments import segment_sum
from crystalframer.model.network import CrystalFramer, initialise
from crystalframer.ops import contraction
from crystalframer.ops.reference import Change
from crystalframer.testing import (
    permuted,
    prototypes,
    random_rotation,
    rotated,
    supercell,
    with_cell,
)

SALT = {crystal.id: crystal for crystal in prototypes()}["rutile TiO2"]
REAL = [crystal for crystal in cf.dataset("demo").select(range(60)) if 4 <= len(crystal) <= 6][:4]


@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_base_and_contributions_add_up_to_the_prediction(frame: dict[str, Any]) -> None:
    model = model_of(**frame)
    found = cf.explain(CRYSTAL, model)
    assert abs(found.base + found.site_contributions.sum() - found.prediction) < 1e-10
    assert abs(found.prediction - predicted(model, CRYSTAL)[0]) < 1e-10
    assert np.ptp(found.site_contributions) > 1e-3  # the atoms are not all alike


def test_the_mean_gradient_is_the_integral_along_the_line() -> None:
    """Also where an input of the activation does not move, or passes its kink."""
    for activation in ("relu", "swish"):
        perceptron = attribution.Perceptron(6, 9, 2, activation).double()
        start, end = torch.randn(2, 6, dtype=torch.float64)
        with torch.no_grad():
            perceptron[0].get_parameter("weight")[0] = 0.0
        weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
        found = attribution.mean_gradient(perceptron, start, end, weights)
        steps = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None]
        line = (start + (steps[1:] + steps[:-1]) / 2 * (end - start)).requires_grad_()
        (gradients,) = torch.autograd.grad((perceptron(line) @ weights).sum(), line)
        torch.testing.assert_close(found, gradients.mean(0), rtol=0, atol=1e-3)
        change = (perceptron(end) - perceptron(start)) @ weights
        torch.testing.assert_close(found @ (end - start), change, rtol=0, atol=1e-12)


@pytest.mark.parametrize("frame", [{"method": "none"}, *SETS], ids=str)
@pytest.mark.parametrize("crystal", [CRYSTAL, SALT], ids=["random", "rutile"])
def test_explanations_do_not_depend_on_the_description(frame: dict[str, Any], crystal: Crystal) -> None:
    model = model_of(**frame)
    plain = cf.explain(crystal, model)
    turn = random_rotation(3)
    turned = cf.explain(rotated(crystal, turn), model)
    _assert_same(turned, plain, np.arange(len(crystal)))
    assert plain.position_gradient is not None and turned.position_gradient is not None
    assert plain.strain_gradient is not None and turned.strain_gradient is not None
    np.testing.assert_allclose(turned.position_gradient, plain.position_gradient @ turn.T, atol=1e-8)
    np.testing.assert_allclose(turned.strain_gradient, turn @ plain.strain_gradient @ turn.T, atol=1e-8)
    order = np.random.default_rng(0).permutation(len(crystal))
    _assert_same(cf.explain(permuted(crystal, order), model), plain, order)
    _assert_same(cf.explain(with_cell(crystal, np.array([[1, 1, 0], [0, 1, 0], [0, 2, 1]])), model), plain)
    twice = cf.explain(supercell(crystal, (2, 1, 1)), model)
    np.testing.assert_allclose(2 * twice.site_contributions, np.tile(plain.site_contributions, 2), atol=1e-8)
    sizes = [np.abs(each.edge_relevance).sum((1, 2)) for each in (twice, plain)]
    np.testing.assert_allclose(*sizes, rtol=1e-6)
    assert np.abs(plain.edge_relevance).max() > 1e-4


@pytest.mark.parametrize("method", [name for name in FRAME_METHODS if name != "none"])
def test_explanations_by_chosen_frames_follow_the_promises_of_the_method(method: str) -> None:
    """All turn with the crystal; frames of some methods follow the cell. Eigenvalues and edges are not near a tie."""
    model = model_of(method=method)
    plain = cf.explain(CRYSTAL, model)
    order = np.arange(len(CRYSTAL))
    _assert_same(cf.explain(rotated(CRYSTAL, random_rotation(3)), model), plain, order)
    if method not in ("pca", "lattice"):
        _assert_same(cf.explain(with_cell(CRYSTAL, np.array([[1, 1, 0], [0, 1, 0], [0, 2, 1]])), model), plain)
        twice = cf.explain(supercell(CRYSTAL, (2, 1, 1)), model)
        np.testing.assert_allclose(2 * twice.site_contributions, np.tile(plain.site_contributions, 2), atol=1e-8)


@pytest.mark.parametrize("crystal", REAL, ids=lambda crystal: crystal.id)
def test_equivalent_sites_of_real_crystals_have_equal_contributions(crystal: Crystal) -> None:
    """With the shipped weights, in float64; and all contributions add up."""
    found = cf.explain(crystal, copy.deepcopy(cf.load(device="cpu")).double())
    for group in np.unique(found.site_groups):
        assert np.ptp(found.site_contributions[found.site_groups == group]) < 1e-6
    assert len(np.unique(found.site_groups)) < len(crystal)
    assert abs(found.base + found.site_contributions.sum() - found.prediction) < 1e-10


def test_random_weights_have_other_explanations() -> None:
    """The rank correlation of the relevance with that of a network that has learned nothing."""
    model = cf.load(device="cpu")
    other = copy.deepcopy(model)
    initialise(other, torch.Generator().manual_seed(0))
    ranks = []
    for crystal in REAL:
        sizes = [rankdata(cf.explain(crystal, each, progress=False).total_relevance) for each in (model, other)]
        ranks.append(np.corrcoef(*sizes)[0, 1])
    assert abs(np.mean(ranks)) < 0.3


def _assert_same(found: cf.Explanation, plain: cf.Explanation, order: np.ndarray | None = None) -> None:
    """Relevance by atoms, not by edges, whose order differs."""
    order = np.arange(plain.n_atoms) if order is None else order
    np.testing.assert_allclose(found.site_contributions, plain.site_contributions[order], atol=1e-8)
    pairs = np.zeros((2, plain.n_atoms, plain.n_atoms))
    for matrix, each in zip(pairs, (found, plain), strict=True):
        np.add.at(matrix, tuple(each.edge_index), np.abs(each.edge_relevance).sum((0, 1)))
    np.testing.assert_allclose(pairs[0], pairs[1][np.ix_(order, order)], atol=1e-8)


def test_equivalent_sites_have_equal_values() -> None:
    found = cf.explain(SALT, model_of(**SETS[0]))
    assert found.site_groups.tolist() == [0, 0, 1, 1, 1, 1]
    oxygen = found.site_contributions[2:]
    np.testing.assert_allclose(oxygen, oxygen.mean(), atol=1e-10)
    table = found.by_site_group()
    assert table["sites"].tolist() == [(0, 1), (2, 3, 4, 5)]
    np.testing.assert_allclose(table["contribution"].sum(), found.prediction - found.base, atol=1e-10)


@pytest.mark.parametrize("frame", [{"method": "none"}, *SETS], ids=str)
def test_gradients_are_those_of_the_prediction(frame: dict[str, Any]) -> None:
    model, step = model_of(**frame), 1e-4
    found = cf.explain(CRYSTAL, model)
    assert found.position_gradient is not None and found.strain_gradient is not None
    rng = np.random.default_rng(0)
    move, strain = rng.normal(size=(5, 3)), rng.normal(size=(3, 3))
    strain += strain.T

    def moved(size: float) -> float:
        return float(predicted(model, replace(CRYSTAL, positions=CRYSTAL.positions + size * move))[0])

    def strained(size: float) -> float:
        matrix = np.eye(3) + size * strain
        positions, lattice = CRYSTAL.positions @ matrix, CRYSTAL.lattice @ matrix
        return float(predicted(model, replace(CRYSTAL, positions=positions, lattice=lattice))[0])

    for path, slope in (
        (moved, (found.position_gradient * move).sum()),
        (strained, (found.strain_gradient * strain).sum()),
    ):
        numbers = [path(n * step) for n in (-2, -1, 1, 2)]
        numerical = (8 * (numbers[2] - numbers[1]) - (numbers[3] - numbers[0])) / (12 * step)
        assert abs(slope) > 1e-3
        assert abs(numerical - slope) < 1e-6 * abs(slope)


@pytest.mark.parametrize("frame", SETS, ids=str)
@pytest.mark.parametrize("crystal", [CRYSTAL, SALT], ids=["random", "rutile"])
def test_tables_give_what_the_reference_gives(frame: dict[str, Any], crystal: Crystal) -> None:
    """Explanations in float32 look up what cosines bring; those in float64 compute it."""
    model = model_of(**frame)
    exact = cf.explain(crystal, model)
    single = copy.deepcopy(model).float()
    with unittest.mock.patch.object(contraction, "follow", wraps=contraction.follow) as follow:
        follow.overloads = True  # is compiled
        found = cf.explain(crystal, single)
    assert follow.call_count >= len(model.blocks)
    for name in ("edge_relevance", "position_gradient", "strain_gradient", "site_contributions"):
        one, other = getattr(found, name), getattr(exact, name)
        assert np.abs(one - other).max() < 3e-5 * np.abs(other).max(), name
    with ops.use("reference"), unittest.mock.patch.object(contraction, "follow") as unused:
        cf.explain(crystal, single)
    unused.assert_not_called()


@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_relevance_is_the_derivative_with_respect_to_weights(frame: dict[str, Any]) -> None:
    """Central differences of a factor on some weights of one head, through all later layers. Frames that are chosen
    count as constants: no edge is near a tie here. Principal axes move with the attention, so that only the last layer
    can be compared."""
    model = model_of(**frame)
    found = cf.explain(CRYSTAL, model)
    edges = Edges.of(prepare([CRYSTAL], model.config.radius, enlarge=False).batch([0], torch.float64))
    chosen = np.flatnonzero(np.random.default_rng(0).random(found.n_edges) < 0.3)
    last = (len(model.blocks) - 1, 0)
    for layer, head in (last,) if frame["method"] == "weighted-pca" else ((0, 1), last):
        slope, step = found.edge_relevance[layer, head, chosen].sum(), 1e-4
        values = []
        for size in (-step, step):
            factor = torch.ones(found.n_edges, model.config.n_heads, dtype=torch.float64)
            factor[chosen, head] += size
            values.append(_with_factor(model, edges, layer, factor))
        assert abs(slope) > 1e-4
        assert abs((values[1] - values[0]) / (2 * step) - slope) < 1e-5 * max(abs(slope), 1e-2)
    sums = np.zeros((found.n_atoms, found.n_layers, found.n_heads))
    np.add.at(sums, found.edge_index[0], found.edge_relevance.transpose(2, 0, 1))
    np.testing.assert_allclose(sums, 0.0, atol=1e-12)


def _with_factor(model: CrystalFramer, edges: Edges, layer: int, factor: torch.Tensor) -> float:
    def renormalised(attention: torch.Tensor) -> torch.Tensor:
        weights = attention * factor
        return weights / segment_sum(weights, edges.query, edges.n_atoms)[edges.query]

    with torch.no_grad():
        features = model.embed(torch.from_numpy(CRYSTAL.atomic_numbers))
        for number, block in enumerate(model.blocks):
            change = Change(weights=renormalised if number == layer else None)
            attended = block.attention.trace(block.attention.project(features), edges, change)
            features = features + attended.features
            features = features + block.feedforward(features)
        return float(model.read_out(features.mean(0, keepdim=True))[0, 0])


def test_some_sites_have_the_edges_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(**SETS[0])
    whole = cf.explain(CRYSTAL, model)
    monkeypatch.setattr(attribution, "EDGES_AT_ONCE", 40)  # a few atoms at a time
    part = cf.explain(CRYSTAL, model, sites=[3, 1])
    assert part.sites is not None and part.sites.tolist() == [3, 1]
    mine = np.concatenate([np.flatnonzero(whole.edge_index[0] == site) for site in (3, 1)])
    np.testing.assert_array_equal(part.edge_index, whole.edge_index[:, mine])
    np.testing.assert_allclose(part.edge_relevance, whole.edge_relevance[:, :, mine], atol=1e-12)
    np.testing.assert_allclose(part.site_contributions, whole.site_contributions)
    assert part.position_gradient is None and part.strain_gradient is None
    pieces = cf.explain(CRYSTAL, model)
    np.testing.assert_allclose(pieces.edge_relevance, whole.edge_relevance, atol=1e-12)
    assert pieces.position_gradient is not None and whole.position_gradient is not None
    np.testing.assert_allclose(pieces.position_gradient, whole.position_gradient, atol=1e-10)


def test_removals_are_interventions() -> None:
    model = model_of(**SETS[0])
    name = model.config.outputs[0].name
    whole = cf.explain(CRYSTAL, model, removals=3)
    assert whole.removal_effect is not None
    done = np.flatnonzero(~np.isnan(whole.removal_effect))
    assert np.bincount(whole.edge_index[0, done]).tolist() == [3] * 5 and not whole.is_self[done].any()
    wanted = cf.intervene(CRYSTAL, model, [cf.Intervention(edges=[int(edge)]) for edge in done])
    np.testing.assert_allclose(whole.removal_effect[done], wanted[f"{name}_change"], atol=1e-12)
    of_last = np.flatnonzero((whole.edge_index[0] == 4) & ~whole.is_self)
    size = np.abs(whole.total_relevance)
    assert size[np.intersect1d(done, of_last)].min() >= size[np.setdiff1d(of_last, done)].max()
    part = cf.explain(CRYSTAL, model, sites=[4, 2], removals=3)
    mine = np.concatenate([np.flatnonzero(whole.edge_index[0] == site) for site in (4, 2)])
    assert part.removal_effect is not None
    np.testing.assert_allclose(part.removal_effect, whole.removal_effect[mine], atol=1e-12)
    assert cf.explain(CRYSTAL, model).removal_effect is None


def test_chosen_frames_have_no_derivative() -> None:
    found = cf.explain(CRYSTAL, model_of(method="weighted-pca"))
    assert found.position_gradient is None and found.strain_gradient is None


def test_classes_are_explained_on_the_scale_of_logits() -> None:
    metal = Target("metal", kind="class", classes=("no", "yes"))
    system = Target("system", kind="class", classes=("cubic", "hexagonal", "other"))
    model = model_of(Target("energy", "eV"), metal, system)
    outputs = predicted(model, CRYSTAL)
    two = cf.explain(CRYSTAL, model, "metal")
    assert (two.scale, two.unit) == ("logit", "")
    assert abs(two.prediction - outputs[1]) < 1e-10
    three = cf.explain(CRYSTAL, model, "system")
    likeliest = int(outputs[2:].argmax())
    assert three.target == f"system_{system.classes[likeliest]}"
    assert abs(three.prediction - (outputs[2:].max() - outputs[2:].mean())) < 1e-10
    alone = cf.explain(CRYSTAL, model_of(system))
    outputs_alone = predicted(model_of(system), CRYSTAL)
    assert alone.target == f"system_{system.classes[int(outputs_alone.argmax())]}"
    named = cf.explain(CRYSTAL, model, "system_other")
    assert abs(named.base + named.site_contributions.sum() - (outputs[4] - outputs[2:].mean())) < 1e-10
    assert cf.explain(CRYSTAL, model).target == "energy"


def test_logarithms_are_explained_on_their_scale_and_units_are_said() -> None:
    targets = Target("energy", "eV"), Target("log10_k", "log10 GPa"), Target("n"), Target("metal", kind="class")
    model = model_of(*targets[:3], replace(targets[3], classes=("no", "yes")))
    known = {
        "energy": ("value", "eV"),
        "log10_k": ("log10", "log10 GPa"),
        "n": ("value", ""),
        "metal": ("logit", "logit"),
    }
    for name, (scale, unit) in known.items():
        found = cf.explain(CRYSTAL, model, name)
        assert (found.scale, found.shown_unit) == (scale, unit)
        assert (f"({scale} scale)" in repr(found)) == (scale != "value") == bool(found.about_scale)
        assert abs(found.base + found.site_contributions.sum() - found.prediction) < 1e-10
        assert found.by_site_group().attrs["units"] == {"contribution": unit, "contribution_per_site": unit}
        for table in (found.by_shell(), found.by_neighbour(), found.by_element()):
            assert table.attrs["units"]["relevance"] == unit
    assert "twice" in cf.explain(CRYSTAL, model, "log10_k").about_scale


def test_the_base_is_the_mean_of_the_references() -> None:
    model = model_of()
    alone = cf.explain(CRYSTAL, model, references=[CRYSTAL])
    assert abs(alone.base - alone.prediction) < 1e-10 and abs(alone.site_contributions.sum()) < 1e-10
    shipped = cf.load(device="cpu")
    assert shipped.index is not None
    with torch.no_grad():
        wanted = float(shipped.read_out(torch.from_numpy(shipped.index.mean)[None])[0, 0])
    assert abs(cf.explain(prototypes()[4], shipped).base - wanted) < 1e-5


def test_round_trip(tmp_path: Path) -> None:
    for sites in (None, [1]):
        before = cf.explain(CRYSTAL, model_of(), sites=sites, removals=2)
        after = cf.Explanation.load(before.save(tmp_path / "x.safetensors"))
        np.testing.assert_equal(dataclasses.asdict(after), dataclasses.asdict(before))
        assert repr(after) == repr(before)


def test_what_is_no_explanation_is_refused(tmp_path: Path) -> None:
    explanation = cf.explain(CRYSTAL, model_of())
    path = cf.trace(CRYSTAL, model_of()).save(tmp_path / "trace.safetensors")
    with refused(TraceError, "not an explanation", path=path):
        cf.Explanation.load(path)
    with refused(TraceError, "not a trace", path=tmp_path / "x.safetensors"):
        cf.CrystalTrace.load(explanation.save(tmp_path / "x.safetensors"))
    with refused(TraceError, path=tmp_path / "none.safetensors"):
        cf.Explanation.load(tmp_path / "none.safetensors")
    with refused(TraceError):
        explanation.save(tmp_path / "x.json")
    wrong = {
        "site_contributions": explanation.site_contributions[:-1],
        "edge_index": explanation.edge_index + 5,
        "atomic_numbers": explanation.atomic_numbers * 0,
    }
    for name, array in wrong.items():
        damaged = replace(explanation, **{name: array}).save(tmp_path / "damaged.safetensors")
        with refused(TraceError, path=damaged):
            cf.Explanation.load(damaged)
    newer = explanation.save(tmp_path / "newer.safetensors")
    newer.write_bytes(newer.read_bytes().replace(rb"\"schema_version\": 1", rb"\"schema_version\": 9"))
    with refused(TraceError, "9", path=newer, field="schema_version"):
        cf.Explanation.load(newer)


def test_tables_add_up() -> None:
    found = cf.explain(SALT, model_of())
    itself = found.total_relevance[found.is_self].sum()
    assert abs(itself) > 1e-3
    shells, neighbours, elements = found.by_shell(), found.by_neighbour(), found.by_element()
    np.testing.assert_allclose(shells["relevance"].sum(), 0.0, atol=1e-10)
    np.testing.assert_allclose(shells.query("shell == 0")["relevance"].sum(), itself)
    np.testing.assert_allclose(neighbours["relevance"].sum(), -itself)
    np.testing.assert_allclose(elements["relevance"].sum(), -itself)
    np.testing.assert_allclose(elements["contribution"].sum(), found.prediction - found.base)
    rows = {(row["element"], row["shell"]): row for row in shells.to_dict("records")}
    first = rows["Ti", 1]
    # An octahedron around each of the two.
    assert [first["neighbour_element"], int(first["n_edges"])] == ["O", 12]
    assert (np.diff(neighbours["relevance"].abs().to_numpy()) <= 0).all()


def test_a_shell_ends_ten_per_cent_beyond_its_nearest_neighbour() -> None:
    query, lengths = np.array([1, 0, 0, 0, 0, 1]), np.array([2.0, 0.0, 2.0, 2.1, 2.21, 9.0])
    assert shells_of(query, lengths, lengths == 0).tolist() == [1, 0, 1, 1, 2, 2]


def test_what_cannot_be_explained_is_refused(monkeypatch: pytest.MonkeyPatch, as_in_production: None) -> None:
    model = model_of(Target("energy", "eV"))
    with refused(ConfigError, "did you mean 'energy'", field="target"):
        cf.explain(CRYSTAL, model, "enrgy")
    wrong: list[Any] = [[5], [-1], [], [1.5], ["Ti"], 1, "1"]
    for sites in wrong:
        for ask in (cf.explain, cf.trace, cf.substitute):
            with refused(CrystalError, "0 to 4", field="sites"):
                ask(CRYSTAL, model, sites=sites)
    with refused(ConfigError, field="removals"):
        cf.explain(CRYSTAL, model, removals=-1)
    monkeypatch.setattr(attribution, "MOST_ATOMS", 4)
    with refused(CrystalError, "minutes", "GB", "sites"):
        cf.explain(CRYSTAL, model)
    assert cf.explain(CRYSTAL, model, sites=[0]).n_edges > 0
