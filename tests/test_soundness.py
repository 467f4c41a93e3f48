"""Crystals that are wrong or not relaxed are told from sound ones, whatever the batch, the cell or the size."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused

import crystalframer as cf
from crystalframer import alterations, batched
from crystalframer.alterations import ALTER
from crystalframer.checkpoint import SOUNDNESS_FILE
from crystalframer.config import FrameConfig, ModelConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.errors import CheckpointError, ConfigError, UncertaintyError
from crystalframer.model.network import CrystalFramer
from crystalframer.soundness import ALTERATIONS, AtomFeatures, Soundness, fitted
from crystalframer.testing import prototypes, random_rotation, supercell

D_MODEL, N_LAYERS = 6, 3
CONFIG = ModelConfig(
    (cf.Target("energy", "eV/atom"),), n_layers=1, n_heads=2, d_model=16, d_feedforward=16, d_readout=8
)


def clusters(n_crystals: int, seed: int, shift: float = 0.0, of_one: float = 0.0) -> AtomFeatures:
    """Features of all layers; all atoms are shifted in the first layer, or one of each crystal in the last."""
    rng = np.random.default_rng(seed)
    n_atoms = rng.integers(2, 6, n_crystals)
    features = rng.normal(size=(n_atoms.sum(), N_LAYERS * D_MODEL))
    features[:, 0] += shift
    features[np.cumsum(n_atoms) - 1, -1] += of_one
    return AtomFeatures(features.astype(np.float16), n_atoms)


@pytest.fixture(scope="module")
def classifier() -> Soundness:
    kinds = {
        "sound": clusters(400, 0),
        "strained": clusters(400, 1, shift=4.0),
        "missing": clusters(400, 2, of_one=9.0),
    }
    return fitted(kinds, clusters(500, 3), D_MODEL, 0, range(15))


def found_in(classifier: Soundness, given: AtomFeatures) -> np.ndarray:
    layers = torch.from_numpy(given.features).float().unflatten(1, (N_LAYERS, D_MODEL)).unbind(dim=1)
    index = torch.from_numpy(np.repeat(np.arange(len(given.n_atoms)), given.n_atoms))
    return classifier.log_probabilities(layers, index, len(given.n_atoms))


def test_kinds_are_recognised_and_few_sound_ones_are_flagged(classifier: Soundness) -> None:
    sound = classifier.flags(found_in(classifier, clusters(500, 3)))
    flagged = [a or b for a, b in zip(*sound, strict=True)]
    assert sum(flag is not None for flag in flagged) == 10  # 2 % of those that set the limit
    strained = classifier.flags(found_in(classifier, clusters(200, 4, shift=4.0)))
    assert sum("cell is strained" in (flag or "") for flag in strained.not_relaxed) > 190
    missing = classifier.flags(found_in(classifier, clusters(200, 5, of_one=9.0)))
    assert sum("atoms are missing" in (flag or "") for flag in missing.unlike) > 190
    assert sum(flag is not None for flag in missing.not_relaxed) < 5


def test_probabilities_add_up_and_do_not_depend_on_the_batch(classifier: Soundness) -> None:
    given = clusters(20, 6)
    together = found_in(classifier, given)
    np.testing.assert_allclose(np.exp(together).sum(axis=1), 1.0, rtol=1e-6)
    ends = np.cumsum(given.n_atoms)
    for crystal in (0, 7, 19):
        atoms = given.features[ends[crystal] - given.n_atoms[crystal] : ends[crystal]]
        twice = AtomFeatures(np.concatenate([atoms, atoms]), np.array([2 * len(atoms)]))  # as a supercell
        np.testing.assert_allclose(found_in(classifier, twice)[0], together[crystal], rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_classifier() -> None:
    kinds = {"sound": clusters(150, 0), "missing": clusters(150, 2, of_one=6.0)}
    first, again, other = (fitted(kinds, clusters(100, 3), D_MODEL, seed, range(2)) for seed in (0, 0, 1))
    assert first.to_bytes() == again.to_bytes() != other.to_bytes()


def test_a_crystal_without_a_number_is_flagged(classifier: Soundness) -> None:
    flags = classifier.flags(np.full((1, 3), np.nan))
    assert flags.unlike[0] or flags.not_relaxed[0]


def test_the_file(classifier: Soundness) -> None:
    again = Soundness.from_bytes(classifier.to_bytes("ab"), "ab")
    np.testing.assert_array_equal(found_in(again, clusters(9, 8)), found_in(classifier, clusters(9, 8)))
    assert again.least == classifier.least
    content = bytearray(classifier.to_bytes("ab"))
    with refused(CheckpointError, "other weights"):
        Soundness.from_bytes(bytes(content), "cd")
    content[-100] ^= 1
    with refused(CheckpointError, "damaged or changed"):
        Soundness.from_bytes(bytes(content), "ab")
    with refused(UncertaintyError, "damaged"):
        Soundness.from_bytes(b"nothing")
    for changes, field in (
        ({"least": 0.0}, "least"),
        ({"kinds": ("sound", "odd", "missing")}, "kinds"),
        ({"pooled_bias": np.full_like(classifier.pooled_bias, np.nan)}, "pooled_bias"),
    ):
        with refused(UncertaintyError, field=field):
            replace(classifier, **changes)


# Alterations


def nearest_distances(crystal: Crystal) -> np.ndarray:
    """Å of each atom to the nearest other."""
    from pymatgen.core import Lattice

    fractions = crystal.positions @ np.linalg.inv(crystal.lattice)
    distances = Lattice(crystal.lattice).get_all_distances(fractions, fractions)
    np.fill_diagonal(distances, np.inf)
    return distances.min(axis=1)


def lacks_one_element(crystal: Crystal, fewer: Crystal) -> bool:
    lost = set(crystal.atomic_numbers) - set(fewer.atomic_numbers)
    return len(lost) == 1 and len(fewer) == sum(z not in lost for z in crystal.atomic_numbers)


def test_some_crystals_lack_all_atoms_of_one_element() -> None:
    """As a battery host without lithium; the others keep all their elements or lose some by chance."""
    lattice = 8.0 * np.eye(3)
    host = Crystal(np.array([3] * 4 + [27] * 4 + [8] * 8), np.random.default_rng(1).random((16, 3)) @ lattice, lattice)
    rng = np.random.default_rng(0)
    found = [alterations.missing(host, rng) for _ in range(200)]
    lost = [set(host.atomic_numbers) - set(f.atomic_numbers) for f in found if f is not None]
    of_one = [elements for elements, f in zip(lost, found, strict=True) if f is not None and lacks_one_element(host, f)]
    assert 30 < len(of_one) < 70 and set().union(*of_one) == {3, 8, 27}


@pytest.mark.parametrize("crystal", prototypes(), ids=lambda crystal: crystal.id)
def test_each_alteration_does_what_it_says(crystal: Crystal) -> None:
    rng = np.random.default_rng(0)
    numbers = crystal.atomic_numbers
    for _ in range(10):
        steps = np.linalg.norm(alterations.displaced(crystal, rng).positions - crystal.positions, axis=1)
        assert 0.02 < steps.max() < 3.0
        strained = alterations.strained(crystal, rng)
        deformation = np.linalg.solve(crystal.lattice, strained.lattice)
        assert 0.02 <= np.abs(np.linalg.eigvalsh(deformation - np.eye(3))).max() <= 0.12 + 1e-9
        np.testing.assert_allclose(crystal.positions @ deformation, strained.positions, atol=1e-9)
        fewer = alterations.missing(crystal, rng)
        if fewer is None or lacks_one_element(crystal, fewer):
            assert fewer is not None or len(crystal) == 1
        else:
            assert len(crystal) / 2 - 1 <= len(fewer) < len(crystal)
        more = alterations.additional(crystal, rng)
        if more is not None:
            assert 1 <= len(more) - len(crystal) <= 3 and set(more.atomic_numbers) == set(numbers)
            assert nearest_distances(more)[len(crystal) :].min() > 0.99
        exchanged = alterations.exchanged(crystal, rng)
        if exchanged is None:
            assert len(set(numbers)) == 1
        else:
            assert sorted(exchanged.atomic_numbers) == sorted(numbers) and (exchanged.atomic_numbers != numbers).any()
        replaced = alterations.replaced(crystal, rng)
        changed = replaced.atomic_numbers != numbers
        assert len(set(numbers[changed])) == 1 == len(set(replaced.atomic_numbers[changed]))
        assert not set(replaced.atomic_numbers[changed]) & set(numbers)


# With a model


@pytest.fixture(scope="module")
def model() -> CrystalFramer:
    """Untrained, of weighted frames. It recognises what is altered as far as it can."""
    model = CrystalFramer(replace(CONFIG, frame=FrameConfig("max", weighted_margin=0.1))).eval()
    model.soundness = cf.learn_soundness(data(120), data(110), model, n_crystals=110, progress=False)
    return model


def data(n_crystals: int) -> CrystalDataset:
    kinds = prototypes()
    crystals = [replace(kinds[number % len(kinds)], id=f"c{number}", targets={}) for number in range(n_crystals)]
    return CrystalDataset.from_crystals(crystals)


def probabilities(crystals: list[Crystal], model: CrystalFramer) -> np.ndarray:
    """Of being sound."""
    from crystalframer.crystals.loading import prepare
    from crystalframer.model.network import crystal_index

    packed = prepare(crystals, model.config.radius, enlarge=model.config.enlarges_radius)
    batch = packed.batch(np.arange(len(crystals)))
    assert model.soundness is not None
    return model.soundness.log_probabilities(model.layers(batch), *crystal_index(batch, torch.device("cpu")))[:, 0]


def test_descriptions_of_a_crystal_have_the_same_probability(model: CrystalFramer) -> None:
    crystals = prototypes()[:8]
    turned = []
    for number, crystal in enumerate(crystals):
        rotation = random_rotation(number)
        turned.append(replace(crystal, positions=crystal.positions @ rotation.T, lattice=crystal.lattice @ rotation.T))
    wanted = probabilities(crystals, model)
    np.testing.assert_allclose(probabilities(turned, model), wanted, atol=1e-3)
    larger = [supercell(crystal, (1, 2, 1)) for crystal in crystals]
    np.testing.assert_allclose(probabilities(larger, model), wanted, atol=1e-3)


def test_the_columns_of_predictions(model: CrystalFramer, tmp_path: Path) -> None:
    wrong = [ALTER["displaced"](crystal, np.random.default_rng(1)) for crystal in prototypes()]
    crystals = [*prototypes(), *(crystal for crystal in wrong if crystal is not None)]
    model = copy.deepcopy(model)
    assert model.soundness is not None
    limit = float(np.median(probabilities(crystals, model)))  # so that some are flagged and some are not
    model.soundness = replace(model.soundness, least=min(limit, -1e-6))
    table = cf.predict(crystals, model, progress=False)
    flagged = np.any(table[["outside_training", "not_relaxed"]].notna().to_numpy(), axis=1)
    np.testing.assert_array_equal(flagged, probabilities(crystals, model) < model.soundness.least)
    assert 0 < flagged.sum() < len(crystals)
    cf.save(model, tmp_path / "model")
    again = cf.predict(crystals, tmp_path / "model", device="cpu", progress=False)
    assert again.drop(columns="id").equals(table.drop(columns="id"))
    without = copy.deepcopy(model)
    without.soundness = None
    assert "not_relaxed" not in cf.predict(crystals, without, progress=False)


def test_large_cells_have_flags_too(model: CrystalFramer, monkeypatch: pytest.MonkeyPatch) -> None:
    crystals = [*prototypes()[:6], *data(6)]
    wanted = cf.predict(crystals, model, progress=False)[["outside_training", "not_relaxed"]]
    monkeypatch.setattr(batched, "MAX_EDGES", 30)
    assert cf.predict(crystals, model, progress=False)[["outside_training", "not_relaxed"]].equals(wanted)


def test_a_classifier_of_another_model_is_refused(model: CrystalFramer, tmp_path: Path) -> None:
    other = CrystalFramer(replace(CONFIG, n_layers=2)).eval()
    other.soundness = model.soundness
    cf.save(other, tmp_path / "other")
    with refused(CheckpointError, "another model", path=SOUNDNESS_FILE):
        cf.load(tmp_path / "other", "cpu")


def test_too_few_crystals(model: CrystalFramer) -> None:
    with refused(UncertaintyError, "99 crystals", field="training"):
        cf.learn_soundness(data(99), data(110), model, progress=False)
    with refused(UncertaintyError, "20 crystals", field="held_out"):
        cf.learn_soundness(data(110), data(20), model, progress=False)
    with refused(ConfigError, field="n_crystals"):
        cf.learn_soundness(data(110), data(110), model, n_crystals=5)


def test_every_alteration_has_words() -> None:
    assert ALTER.keys() == ALTERATIONS.keys()
