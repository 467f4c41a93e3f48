"""Seeded crystals and the changes of description that must not change a prediction: for tests, ours and yours.

crystal = random_crystal(seed=1, n_atoms=6)
assert_same(predict(crystal), predict(rotated(crystal, random_rotation(seed=2))))
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from crystalframer.data.crystal import Crystal

TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
"""Largest difference in normalised output that rounding may cause."""


def random_crystal(seed: int, n_atoms: int, volume_per_atom: float = 15.0, closest: float = 1.2) -> Crystal:
    """A triclinic crystal of random elements without symmetry.

    Args:
        volume_per_atom: Å³.
        closest: least distance between two atoms, Å.

    Raises:
        ValueError: no place was found for an atom; give it more volume.
    """
    rng = np.random.default_rng(seed)
    lattice = np.eye(3) + rng.uniform(-0.35, 0.35, (3, 3))
    lattice *= (n_atoms * volume_per_atom / abs(np.linalg.det(lattice))) ** (1 / 3)
    images = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3) @ lattice
    positions = np.empty((0, 3))
    for _ in range(1000 * n_atoms):
        candidate = rng.random(3) @ lattice
        distances = np.linalg.norm(positions[:, None] + images - candidate, axis=2)
        if distances.min(initial=np.inf) > closest:
            positions = np.vstack([positions, candidate])
        if len(positions) == n_atoms:
            return Crystal(rng.integers(1, 60, n_atoms), positions, lattice, id=f"random-{seed}")
    raise ValueError(f"no room for {n_atoms} atoms {closest} Å apart in {volume_per_atom} Å³ each; give them more")


def random_rotation(seed: int) -> Float[np.ndarray, "3 3"]:
    """A proper rotation, uniform over all of them."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def rotated(crystal: Crystal, matrix: Float[np.ndarray, "3 3"]) -> Crystal:
    """The crystal turned (or, by a matrix of determinant -1, reflected) in space."""
    return replace(crystal, positions=crystal.positions @ matrix.T, lattice=crystal.lattice @ matrix.T)


def translated(crystal: Crystal, vector: Float[np.ndarray, "3"]) -> Crystal:
    """All atoms moved by one vector, Å, and not wrapped back into the cell."""
    return replace(crystal, positions=crystal.positions + vector)


def rewrapped(crystal: Crystal, seed: int) -> Crystal:
    """Every atom moved by a lattice vector of its own."""
    steps = np.random.default_rng(seed).integers(-2, 3, (len(crystal), 3))
    return replace(crystal, positions=crystal.positions + steps @ crystal.lattice)


def permuted(crystal: Crystal, order: Int[np.ndarray, " n_atoms"]) -> Crystal:
    """The atoms written in another order."""
    return replace(crystal, atomic_numbers=crystal.atomic_numbers[order], positions=crystal.positions[order])


def supercell(crystal: Crystal, repeats: tuple[int, int, int]) -> Crystal:
    """The same crystal described by a cell repeated along a, b and c."""
    shifts = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), axis=-1).reshape(-1, 3) @ crystal.lattice
    return replace(
        crystal,
        atomic_numbers=np.tile(crystal.atomic_numbers, len(shifts)),
        positions=(crystal.positions[None] + shifts[:, None]).reshape(-1, 3),
        lattice=crystal.lattice * np.array(repeats)[:, None],
    )


def with_cell(crystal: Crystal, transformation: Int[np.ndarray, "3 3"]) -> Crystal:
    """The same crystal described by other lattice vectors: integer combinations with determinant ±1."""
    if round(abs(np.linalg.det(transformation))) != 1:
        raise ValueError(f"the transformation must have determinant 1 or -1, not {np.linalg.det(transformation):g}")
    return replace(crystal, lattice=transformation @ crystal.lattice)
