"""The ASE calculator: energies that are the predictions, and no forces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused

import crystalframer as cf
from crystalframer.config import ModelConfig, Target
from crystalframer.errors import ConfigError

ase = pytest.importorskip("ase")
from ase.build import bulk  # noqa: E402
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError  # noqa: E402

FORMATION, TOTAL, GAP = Target("e_form", "eV/atom"), Target("e_total", "eV"), Target("gap", "eV")


def small_model(*targets: Target) -> cf.CrystalFramer:
    config = ModelConfig(targets=targets, n_layers=1, n_heads=2, d_model=8, d_feedforward=8, d_readout=8)
    return cf.CrystalFramer(config, torch.Generator().manual_seed(0)).eval()


def test_the_energy_is_the_prediction_of_all_atoms() -> None:
    model, atoms = small_model(FORMATION, GAP), bulk("NaCl", "rocksalt", a=5.64)
    atoms.calc = cf.CrystalFramerCalculator(model)
    row = cf.predict(atoms, model).iloc[0]
    assert atoms.get_potential_energy() == pytest.approx(2 * row["e_form"], rel=1e-12)
    assert atoms.calc.predictions == {"e_form": row["e_form"], "gap": row["gap"]}
    # Four cells, four times the energy; and a structure that changed is calculated anew.
    larger = atoms.repeat((2, 2, 1))
    larger.calc = atoms.calc
    assert larger.get_potential_energy() == pytest.approx(8 * row["e_form"], rel=1e-5)
    atoms.set_cell(1.05 * atoms.cell.array, scale_atoms=True)
    assert atoms.get_potential_energy() == pytest.approx(2 * cf.predict(atoms, model)["e_form"].item(), rel=1e-12)
    assert atoms.get_potential_energy() != pytest.approx(2 * row["e_form"], rel=1e-6)


def test_a_total_energy_is_of_the_cell() -> None:
    model, atoms = small_model(TOTAL), bulk("Cu")
    atoms.calc = cf.CrystalFramerCalculator(model, target="e_total")
    assert atoms.get_potential_energy() == pytest.approx(cf.predict(atoms, model)["e_total"].item(), rel=1e-12)


@pytest.mark.parametrize("ask", ["get_forces", "get_stress"])
def test_it_says_that_there_are_no_forces(ask: str) -> None:
    atoms = bulk("Cu")
    atoms.calc = cf.CrystalFramerCalculator(small_model(FORMATION))
    with pytest.raises(PropertyNotImplementedError, match=r"forces.*stress.*Relax"):
        getattr(atoms, ask)()


@pytest.mark.parametrize(
    ("targets", "chosen", "word"),
    [
        ((GAP,), None, "no target in eV/atom (gap (eV))"),
        ((FORMATION, Target("e_hull", "eV/atom")), None, "several targets in eV/atom"),
        ((FORMATION,), "e_frm", "did you mean 'e_form'"),
        ((FORMATION, Target("bulk", "GPa")), "bulk", "bulk (GPa)"),
    ],
)
def test_what_cannot_be_an_energy_is_refused(targets: tuple[Target, ...], chosen: str | None, word: str) -> None:
    with refused(ConfigError, word, field="target"):
        cf.CrystalFramerCalculator(small_model(*targets), chosen)


def test_a_structure_without_a_prediction_is_a_failed_calculation(tmp_path: Path) -> None:
    cf.save(small_model(FORMATION), tmp_path / "model")
    atoms = bulk("Cu")
    atoms.set_cell(0.01 * atoms.cell.array)
    atoms.calc = cf.CrystalFramerCalculator(tmp_path / "model")
    with pytest.raises(CalculationFailed, match="lattice vectors"):
        atoms.get_potential_energy()
    molecule = ase.Atoms("H2", positions=np.diag([0.0, 0.0, 0.74])[[0, 2]])
    molecule.calc = atoms.calc
    with pytest.raises(CalculationFailed, match="cell"):
        molecule.get_potential_energy()
