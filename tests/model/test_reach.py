"""A smooth cutoff of every head's own: what atoms see that are alone, in a chain or in a layer, and how that ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import crystalframer as cf
from crystalframer import ops
from crystalframer.config import DecayConfig, FrameConfig, FrameMethod
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch, prepare
from crystalframer.domain import Domain
from crystalframer.model.network import CrystalFramer
from crystalframer.presets import preset
from crystalframer.testing import random_crystal, random_rotation, rotated

EXACT = FrameConfig(weighted_margin=0.1, second_axis="sine", both_hands=True)
DECAY = DecayConfig(reach=4.0, shape="smooth")
WIDE = 60.0 * np.eye(3)
"""Å: images of the cell are out of reach."""
MIRROR = np.diag([1.0, 1.0, -1.0])


def model(method: FrameMethod = "max") -> CrystalFramer:
    """With weights large enough for attention to differ from atom to atom."""
    frame = replace(EXACT, method=method) if method != "none" else FrameConfig("none")
    config = replace(preset("tiny").config.model, frame=frame, decay=DECAY, largest_content=2.0)
    made = CrystalFramer(config, torch.Generator().manual_seed(0)).eval().double()
    made.calibrate(make_batch([random_crystal(1, 6)], config.radius, dtype=torch.float64, enlarge=False))
    with torch.no_grad():
        for block in made.blocks:
            for layer in (block.attention.query, block.attention.key, block.attention.value):
                layer.weight.mul_(2.0)
    return made


def energies(of: CrystalFramer, *crystals: Crystal) -> torch.Tensor:
    with torch.inference_mode():
        batch = make_batch(crystals, of.config.radius, dtype=torch.float64, enlarge=of.config.enlarges_radius)
        return of(batch)[:, 0]


def atoms(numbers: list[int], positions: list[list[float]], lattice: np.ndarray = WIDE) -> Crystal:
    return Crystal(np.array(numbers), np.array(positions, float), lattice)


CHAIN = atoms([6, 7], [[0, 0, 0], [0, 0, 1.3]], np.diag([60.0, 60.0, 2.6]))
LAYER = atoms([5, 7], [[0, 0, 0], [1.25, 0.72, 0]], np.array([[2.5, 0, 0], [1.25, 2.165, 0], [0, 0, 60.0]]))
LONE = {
    "atom": atoms([10], [[0, 0, 0]]),
    "pair": atoms([6, 8], [[0, 0, 0], [0, 0, 1.2]]),
    "bent": atoms([8, 1, 1], [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]]),
    "chain": CHAIN,
    "layer": LAYER,
}


@pytest.mark.parametrize("method", ["max", "static-max", "none"])
@pytest.mark.parametrize("name", list(LONE))
def test_sparse_surroundings_give_a_number_that_turns_and_mirrors_with_them(name: str, method: FrameMethod) -> None:
    of, crystal = model(method), LONE[name]
    turned = [rotated(crystal, random_rotation(seed)) for seed in range(3)]
    values = energies(of, crystal, *turned, *(rotated(other, MIRROR) for other in turned))
    assert torch.isfinite(values).all()
    assert values.max() - values.min() < 1e-9


@pytest.mark.parametrize("name", ["atom", "pair"])
def test_empty_space_counts_for_nothing(name: str) -> None:
    """The paper's presets look farther until they find neighbours: images, which a larger box puts elsewhere."""
    crystal = LONE[name]
    values = energies(model(), *(replace(crystal, lattice=size * WIDE) for size in (0.5, 1.0, 100.0)))
    assert values.max() - values.min() < 1e-9


def test_a_user_gets_a_number_for_a_lone_atom() -> None:
    of = model().float()
    of.domain = Domain.of(prepare([random_crystal(seed, 6) for seed in range(20)], of.config.radius))
    (row,) = cf.predict([LONE["atom"]], of).to_dict("records")
    assert np.isfinite(row["formation_energy_per_atom"]) and row["error"] is None


def test_a_neighbour_leaves_without_a_step() -> None:
    """From within reach of all heads to beyond it; largest changes halve with the step, so that there is no jump."""

    def with_iron_at(y: float) -> Crystal:
        return atoms([6, 8, 26], [[0, 0, 0], [0, 0, 1.2], [0.3, y, 0.4]])

    of = model()
    largest = []
    for n in (256, 512, 1024):
        path = [with_iron_at(y) for y in np.linspace(2.0, 9.0, n + 1)]
        largest.append(float(energies(of, *path).diff().abs().max()))
    assert largest[0] > 1e-6, "the third atom is seen"
    assert largest[1] < 0.6 * largest[0] and largest[2] < 0.6 * largest[1]
    apart = energies(of, with_iron_at(9.0), with_iron_at(20.0))
    assert abs(apart[0] - apart[1]) < 1e-9


def test_kernels_agree_where_nothing_is_within_reach() -> None:
    of = model().float()
    batch = make_batch(list(LONE.values()), of.config.radius, enlarge=False)
    with torch.inference_mode():
        fast = of(batch)
        with ops.use("reference"):
            torch.testing.assert_close(fast, of(batch), atol=1e-5, rtol=0)
