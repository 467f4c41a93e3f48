"""A few salts, and a small model for them, with and without calibrated intervals."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from pymatgen.core import Lattice, Structure

from crystalframer.config import Target
from crystalframer.crystals.loading import make_batch, prepare
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.domain import Domain
from crystalframer.evaluation import calibrate
from crystalframer.model.network import CrystalFramer
from crystalframer.presets import PRESETS
from crystalframer.reading.objects import to_crystal

CONFIG = replace(PRESETS["tiny"].config.model, targets=(Target("energy", "eV/atom"), Target("gap", "eV")))
CAESIUM = 55


@cache
def trained() -> CrystalFramer:
    model = CrystalFramer(CONFIG, torch.Generator().manual_seed(0)).eval()
    model.target_mean.copy_(torch.tensor([-1.0, 2.0]))
    model.target_std.copy_(torch.tensor([3.0, 0.5]))
    model.calibrate(make_batch([to_crystal(rock_salt("Na", "Cl", 5.64))], CONFIG.radius))
    return model


def rock_salt(cation: str, anion: str, a: float) -> Structure:
    """Primitive cell."""
    lattice = Lattice(a / 2 * (np.ones((3, 3)) - np.eye(3)))
    return Structure(lattice, [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def caesium_chloride(cation: str, anion: str, a: float) -> Structure:
    return Structure(Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


STRUCTURES = {
    "NaCl": rock_salt("Na", "Cl", 5.64),
    "CsCl": caesium_chloride("Cs", "Cl", 4.12),
    "MgO": rock_salt("Mg", "O", 4.21),
    "CsI": caesium_chloride("Cs", "I", 4.57),
    "LiF": rock_salt("Li", "F", 4.03),
}
CRYSTALS = [to_crystal(structure, id) for id, structure in STRUCTURES.items()]


@cache
def aware() -> CrystalFramer:
    """Trained on and calibrated with rock salts near those of the other tests, by labels off by about 1."""
    rng = np.random.default_rng(0)
    crystals = []
    for n in range(12):
        for cation, anion, a in (("Na", "Cl", 5.64), ("Mg", "O", 4.21), ("Li", "F", 4.03)):
            crystal = to_crystal(rock_salt(cation, anion, a * (1.0 + 0.01 * rng.uniform(-1, 1))), f"{cation}-{n}")
            crystals.append(crystal.with_targets({"energy": rng.normal() - 1.0, "gap": rng.normal() + 2.0}))
    model = copy.deepcopy(trained())
    model.domain = Domain.of(prepare(crystals, CONFIG.radius))
    model.uncertainty = calibrate(CrystalDataset.from_crystals(crystals, CONFIG.targets), model)
    return model
