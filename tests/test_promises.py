"""Promises and limits of docs/limits.md, with the shipped weights as users load them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure

import crystalframer as cf
from crystalframer.crystals.crystal import Crystal
from crystalframer.testing import prototypes, random_crystal

RUTILE = Path(__file__).parents[1] / "notebooks/structures/TiO2.cif"
CHIRAL = {"JVASP-8178": "FeSi", "JVASP-8198": "HgS"}
CENTRED = {"JVASP-5": "TiO2", "JVASP-25": "Bi2Te3"}


def strained(crystal: Crystal, strain: float) -> Crystal:
    """All lengths changed by a share."""
    return replace(crystal, positions=crystal.positions * (1 + strain), lattice=crystal.lattice * (1 + strain))


def mirrored(crystal: Crystal) -> Crystal:
    return replace(crystal, positions=-crystal.positions, lattice=-crystal.lattice)


def test_the_shipped_weights_keep_them() -> None:
    crystals = [*(random_crystal(seed, n_atoms=2 + seed) for seed in range(6)), *prototypes()[:8]]
    model = cf.load()
    report = cf.check(crystals, model, n_draws=2, progress=False)
    assert report.passed, report
    assert cf.load(as_trained=True).evaluation_config == model.evaluation_config


def test_mirror_images_of_chiral_crystals() -> None:
    """They have one prediction, as docs/limits.md says."""
    crystals = [crystal for crystal in cf.dataset("demo") if crystal.id in (*CHIRAL, *CENTRED)]
    assert {crystal.id: crystal.formula for crystal in crystals} == CHIRAL | CENTRED
    values = ["formation_energy_per_atom", "band_gap"]
    before, after = (cf.predict(given)[values].to_numpy() for given in (crystals, list(map(mirrored, crystals))))
    change = dict(zip((crystal.formula for crystal in crystals), np.abs(after - before), strict=True))
    assert change.keys() == {*CHIRAL.values(), *CENTRED.values()}
    for formula, (energy, gap) in change.items():
        assert energy < 1e-5 and gap < 1e-4, formula


def test_a_squeezed_or_stretched_cell_has_more_energy() -> None:
    """Rutile. How much more is not known well (docs/limits.md)."""
    rutile = cf.read(RUTILE)
    found = cf.predict([strained(rutile, strain) for strain in (0.0, -0.05, -0.02, 0.03, 0.05)])
    energy = found["formation_energy_per_atom"].to_numpy()
    np.testing.assert_allclose(energy[1:] - energy[0], [0.175, 0.041, 0.092, 0.204], atol=0.002)
    assert found["not_relaxed"].notna().tolist() == [False, True, False, False, True]


def test_a_metal_has_no_interval_of_its_refractive_index() -> None:
    """No training crystal like it has one."""
    crystals = {crystal.id: crystal for crystal in prototypes()}
    found = cf.predict([crystals[name] for name in ("copper (fcc)", "magnesium (hcp)", "rock salt NaCl", "CsCl")])
    assert found["refractive_index_low"].isna().tolist() == [True, True, False, False]
    assert found["refractive_index_high"].isna().tolist() == [True, True, False, False]
    assert found[["formation_energy_per_atom_low", "log10_bulk_modulus_low"]].notna().to_numpy().all()


def test_a_stretched_cell_may_lose_its_gap() -> None:
    """Rutile, without a flag."""
    rutile = cf.read(RUTILE)
    found = cf.predict([strained(rutile, strain) for strain in (0.0, 0.02, 0.03)])
    np.testing.assert_allclose(found["band_gap"], [2.04, 0.08, 0.0], atol=0.05)
    assert found[["outside_training", "not_relaxed"]].isna().to_numpy().all()


def test_a_missing_element_may_have_no_flag() -> None:
    """A limit that the documentation states: if a flag sees these, it is to be told there."""
    cubic, hexagonal = 3.905 * np.eye(3), Lattice.hexagonal(2.816, 14.05)
    titanate = Crystal(
        np.array([22, 8, 8, 8]), 3.905 * np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]) / 2, cubic
    )
    cobaltate = Structure.from_spacegroup("R-3m", hexagonal, ["Li", "Co"], [[0, 0, 0.5], [0, 0, 0]])
    table = cf.predict([titanate, cobaltate], progress=False)
    assert table["formula"].tolist() == ["TiO3", "LiCo"]
    assert table[["outside_training", "not_relaxed"]].isna().to_numpy().all()
