"""Physics first: what must not change a prediction, for every frame method that promises it; and what does.

Every atom has images of itself in exactly opposite directions, so ties of ±u occur in each crystal. Apart from those,
random crystals have no symmetry; the textbook prototypes have much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from sensitive_models import sensitive_model

from crystalframer.config import FrameConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.frame_methods import FRAME_METHODS, PROMISES, FrameMethod
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import (
    TOLERANCES,
    permuted,
    prototypes,
    random_crystal,
    random_rotation,
    rewrapped,
    rotated,
    supercell,
    translated,
    with_cell,
)

LOCAL = [method for method, promises in PROMISES.items() if not promises.sees_cell]
"""Methods that see the crystal, not the cell."""
ORTHOGONAL = [method for method, promises in PROMISES.items() if promises.axes == "orthogonal"]

CRYSTALS = [random_crystal(seed, n_atoms) for seed, n_atoms in enumerate([1, 3, 4, 6, 9, 12])]
SKEW = np.array([[1, 2, 0], [0, 1, 0], [-1, 0, 1]])
LEFT_HANDED = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])


@cache
def model(method: FrameMethod, dtype: torch.dtype) -> CrystalFramer:
    made = sensitive_model(CRYSTALS, method, dtype)
    with torch.no_grad():
        made.embedding.weight.mul_(8)
    return made


def predictions(method: FrameMethod, dtype: torch.dtype, crystals: list[Crystal]) -> np.ndarray:
    made = model(method, dtype)
    with torch.no_grad():
        return made(make_batch(crystals, made.config.radius, dtype=dtype))[:, 0].numpy()


def change(method: FrameMethod, dtype: torch.dtype, transform: Callable[[Crystal], Crystal]) -> float:
    """Largest change of a prediction under the transform."""
    # The principal axes of a single atom are not determined, which the docstring of `pca_frames` says.
    crystals = CRYSTALS[1:] if method == "pca" else CRYSTALS
    before = predictions(method, dtype, crystals)
    after = predictions(method, dtype, [transform(crystal) for crystal in crystals])
    return float(np.abs(before - after).max())


SAME_FOR_ALL: dict[str, Callable[[Crystal], Crystal]] = {
    "rotation": lambda c: rotated(c, random_rotation(11)),
    "translation": lambda c: translated(c, np.array([0.3, -4.1, 7.7])),
    "permutation": lambda c: permuted(c, np.random.default_rng(3).permutation(len(c))),
}
SAME_FOR_LOCAL: dict[str, Callable[[Crystal], Crystal]] = {
    "other images of the atoms": lambda c: rewrapped(c, 5),
    "supercell": lambda c: supercell(c, (2, 1, 3)),
    "skewed cell": lambda c: with_cell(c, SKEW),
    "left-handed cell": lambda c: with_cell(c, LEFT_HANDED),
    "rotated supercell": lambda c: rotated(supercell(c, (1, 2, 1)), random_rotation(12)),
}
DTYPES = [torch.float32, torch.float64]


def tolerance(dtype: torch.dtype) -> float:
    return TOLERANCES[str(dtype).removeprefix("torch.")]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("law", SAME_FOR_ALL)
@pytest.mark.parametrize("method", FRAME_METHODS)
def test_invariance_of_every_method(method: FrameMethod, law: str, dtype: torch.dtype) -> None:
    assert change(method, dtype, SAME_FOR_ALL[law]) <= tolerance(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("law", SAME_FOR_LOCAL)
@pytest.mark.parametrize("method", LOCAL)
def test_independence_of_the_cell(method: FrameMethod, law: str, dtype: torch.dtype) -> None:
    assert change(method, dtype, SAME_FOR_LOCAL[law]) <= tolerance(dtype)


SYMMETRIC = prototypes()
"""Rock salt, diamond, perovskite, ...: nearly all neighbours of an atom tie."""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("law", {**SAME_FOR_ALL, **SAME_FOR_LOCAL})
@pytest.mark.parametrize(
    ("method", "margin"), [("max", 0.0), ("max", 0.1), ("static-max", 0.0), ("static-max", 0.1), ("none", 0.0)]
)
def test_laws_hold_for_symmetric_crystals(method: FrameMethod, margin: float, law: str, dtype: torch.dtype) -> None:
    """With the rule that chooses among ties, and with averages over them (a margin above 0)."""
    made = sensitive_model(SYMMETRIC, method, dtype)
    with torch.no_grad():
        made.embedding.weight.mul_(8)
        made = made.with_weighted_sets(margin) if margin else made
        transform = {**SAME_FOR_ALL, **SAME_FOR_LOCAL}[law]
        before, after = (
            made(make_batch(crystals, made.config.radius, dtype=dtype))[:, 0].numpy()
            for crystals in (SYMMETRIC, [transform(crystal) for crystal in SYMMETRIC])
        )
    assert np.abs(before - after).max() <= tolerance(dtype)
    assert np.ptp(before) > 0.01


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", FRAME_METHODS)
def test_batch_of_two_gives_what_each_gives_alone(method: FrameMethod, dtype: torch.dtype) -> None:
    together = predictions(method, dtype, CRYSTALS[2:4])
    alone = np.concatenate([predictions(method, dtype, [crystal]) for crystal in CRYSTALS[2:4]])
    assert np.abs(together - alone).max() <= tolerance(dtype)


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_evaluation_repeats_bit_for_bit(method: FrameMethod) -> None:
    np.testing.assert_array_equal(
        predictions(method, torch.float32, CRYSTALS), predictions(method, torch.float32, CRYSTALS)
    )


@pytest.mark.parametrize("method", [method for method in FRAME_METHODS if method not in LOCAL])
def test_frames_of_the_cell_depend_on_it(method: FrameMethod) -> None:
    assert change(method, torch.float64, SAME_FOR_LOCAL["supercell"]) > 1e-3


def test_where_in_the_cell_atoms_are_written_matters_to_pca_only() -> None:
    """Documented: the atoms of the cell, as they are written, are all that `pca` sees; `lattice` sees no atoms."""
    assert change("pca", torch.float64, SAME_FOR_LOCAL["other images of the atoms"]) > 1e-3
    assert change("lattice", torch.float64, SAME_FOR_LOCAL["other images of the atoms"]) <= tolerance(torch.float64)


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_mirror_images(method: FrameMethod) -> None:
    """Frames are right-handed, so the model tells a crystal from its mirror image; distances alone cannot."""
    difference = change(method, torch.float64, lambda c: rotated(c, np.diag([1.0, 1.0, -1.0])))
    if PROMISES[method].axes is None:
        assert difference <= tolerance(torch.float64)
    else:
        assert difference > 1e-3


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_training_noise_follows_from_its_seed_alone(method: FrameMethod) -> None:
    made = model(method, torch.float32)
    # Nearest are an atom's own images, ahead and behind; the other atom tells them apart.
    lattice = np.array([[2.5, 0, 0], [0.6, 9, 0], [0.4, 0.7, 9.5]])
    chains = Crystal(np.array([8, 26]), np.array([[0, 0, 0], [0.7, 3.9, 4.2]]), lattice, "chains")
    batch = make_batch([*CRYSTALS, chains], made.config.radius)
    with torch.no_grad():
        first, again = (made(batch, 4) for _ in range(2))
        others = [made(batch, seed) for seed in range(5, 13)]
    assert torch.equal(first, again)
    # Own images tie exactly (±u) and principal axes have no sign, so noise decides there. Distances have nothing to
    # decide, and lattice frames come out the same for either sign of their first vector.
    decided = max(float((other - first).abs().max()) for other in others) > 1e-5 * float(first.abs().max())
    assert decided == PROMISES[method].noisy


def sparse(name: str, numbers: list[int], positions: list[list[float]], lattice: list[list[float]]) -> Crystal:
    return Crystal(np.array(numbers), np.array(positions, dtype=float), np.array(lattice, dtype=float), name)


@pytest.mark.parametrize("method", [method for method in LOCAL if PROMISES[method].axes])
@pytest.mark.parametrize(
    "crystal",
    [
        sparse("layer", [6, 6], [[0, 0, 0], [1.42, 0, 0]], [[2.13, 1.23, 0], [2.13, -1.23, 0], [0, 0, 40]]),
        sparse("chain", [6, 7, 8], [[0, 0, 0], [1.2, 0, 0], [2.5, 0, 0]], [[4, 0, 0], [0, 35, 0], [0, 0, 40]]),
        sparse("molecule", [6, 8], [[0, 0, 0], [0, 0, 1.13]], [[22, 0, 0], [0, 25, 0], [0, 0, 28]]),
        sparse("lone atom", [18], [[0, 0, 0]], [[30, 0, 0], [0, 33, 0], [0, 0, 36]]),
    ],
    ids=lambda crystal: crystal.id,
)
def test_flat_surroundings_turn_with_the_crystal(method: FrameMethod, crystal: Crystal) -> None:
    """Layers, chains, molecules, lone atoms: no fall-back to the Cartesian axes, no NaN, the same after a rotation."""
    before = predictions(method, torch.float64, [crystal])
    after = predictions(method, torch.float64, [rotated(crystal, random_rotation(21))])
    assert np.isfinite(before).all()
    # What is left of a third direction is small, and divides the rounding.
    assert np.abs(before - after).max() <= 10 * tolerance(torch.float64)


@pytest.mark.parametrize("method", ORTHOGONAL)
def test_axes_are_right_handed_and_orthonormal(method: FrameMethod) -> None:
    made = model(method, torch.float64)
    for trace in made.trace(make_batch(CRYSTALS, made.config.radius, dtype=torch.float64)):
        for layer in trace.layers:
            assert layer.frame is not None
            axes = layer.frame.axes
            np.testing.assert_allclose(axes @ axes.swapaxes(-1, -2), np.broadcast_to(np.eye(3), axes.shape), atol=1e-10)
            np.testing.assert_allclose(np.linalg.det(axes), 1.0, atol=1e-10)


def test_without_the_tie_rule_opposite_images_are_a_gamble() -> None:
    """Why the rule is there: where an atom's own images are nearest, the cell would decide which of ±u comes first."""
    made = model("max", torch.float64)
    plain = CrystalFramer(replace(made.config, frame=FrameConfig("max", tie_margin=0.0))).to(torch.float64).eval()
    plain.load_state_dict(made.state_dict())
    crystal = sparse("chains", [14, 8], [[0, 0, 0], [1.1, 2.6, 2.2]], [[2.2, 0, 0], [0.3, 5, 0.2], [0.1, 0.4, 5.5]])
    cells = [
        crystal,
        with_cell(crystal, SKEW),
        with_cell(crystal, -np.eye(3, dtype=int)),
        supercell(crystal, (1, 1, 2)),
    ]
    batch = make_batch(cells, made.config.radius, dtype=torch.float64)
    with torch.no_grad():
        assert np.ptp(made(batch).numpy()) <= tolerance(torch.float64)
        assert np.ptp(plain(batch).numpy()) > 1e-6
