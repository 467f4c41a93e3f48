"""Crystals for tests, and the changes of their description that must not change a prediction.

crystal = random_crystal(seed=1, n_atoms=6)
assert_same(predict(crystal), predict(rotated(crystal, random_rotation(seed=2))))
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from crystalframer.crystals.crystal import Crystal
from crystalframer.elements import ATOMIC_NUMBERS
from crystalframer.errors import CrystalError

TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
"""Largest difference that rounding may cause, in standard deviations of the training labels."""


def random_crystal(seed: int, n_atoms: int, volume_per_atom: float = 15.0, closest: float = 1.2) -> Crystal:
    """A triclinic crystal of random elements without symmetry.

    Args:
        volume_per_atom: Å³.
        closest: least distance between two atoms, Å.

    Raises:
        CrystalError: no place was found for an atom; give it more volume.
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
    problem = f"no room for {n_atoms} atoms {closest} Å apart in {volume_per_atom} Å³ each; give them more volume"
    raise CrystalError(problem, field="volume_per_atom", value=volume_per_atom)


def prototypes() -> list[Crystal]:
    """One crystal of each structure type with which textbooks begin. Most of their atoms have neighbours that tie.

    Lattice parameters and free coordinates are measured values, rounded.
    """
    return [_prototype(*row) for row in _PROTOTYPES]


def _prototype(
    name: str, centring: str, lengths: tuple[float, float], gamma: int, atoms: dict[str, list[list[float | int]]]
) -> Crystal:
    """A cubic, tetragonal or hexagonal crystal, with all atoms of its conventional cell."""
    (a, c), angle = lengths, np.radians(gamma)
    lattice = np.array([[a, 0.0, 0.0], [a * np.cos(angle), a * np.sin(angle), 0.0], [0.0, 0.0, c]])
    centres = np.array(_CENTRINGS[centring])
    numbers, positions = [], []
    for symbol, sites in atoms.items():
        for site in sites:
            numbers += [ATOMIC_NUMBERS[symbol]] * len(centres)
            positions.append((centres + site) % 1.0)
    return Crystal(np.array(numbers), np.concatenate(positions) @ lattice, lattice, id=name)


_CENTRINGS = {
    "P": [[0, 0, 0]],
    "I": [[0, 0, 0], [0.5, 0.5, 0.5]],
    "F": [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
}
_HCP = [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
_PROTOTYPES: tuple[tuple[str, str, tuple[float, float], int, dict[str, list[list[float | int]]]], ...] = (
    ("copper (fcc)", "F", (3.61, 3.61), 90, {"Cu": [[0, 0, 0]]}),
    ("iron (bcc)", "I", (2.87, 2.87), 90, {"Fe": [[0, 0, 0]]}),
    ("magnesium (hcp)", "P", (3.21, 5.21), 120, {"Mg": _HCP}),
    ("diamond", "F", (3.57, 3.57), 90, {"C": [[0, 0, 0], [0.25, 0.25, 0.25]]}),
    ("rock salt NaCl", "F", (5.64, 5.64), 90, {"Na": [[0, 0, 0]], "Cl": [[0.5, 0.5, 0.5]]}),
    ("CsCl", "P", (4.12, 4.12), 90, {"Cs": [[0, 0, 0]], "Cl": [[0.5, 0.5, 0.5]]}),
    ("zinc blende ZnS", "F", (5.41, 5.41), 90, {"Zn": [[0, 0, 0]], "S": [[0.25, 0.25, 0.25]]}),
    ("wurtzite ZnO", "P", (3.25, 5.21), 120, {"Zn": [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5]],
                                              "O": [[1 / 3, 2 / 3, 0.382], [2 / 3, 1 / 3, 0.882]]}),
    ("NiAs", "P", (3.62, 5.03), 120, {"Ni": [[0, 0, 0], [0, 0, 0.5]], "As": _HCP}),
    ("fluorite CaF2", "F", (5.46, 5.46), 90, {"Ca": [[0, 0, 0]], "F": [[0.25, 0.25, 0.25], [0.75, 0.75, 0.75]]}),
    ("perovskite SrTiO3", "P", (3.91, 3.91), 90, {"Sr": [[0.5, 0.5, 0.5]], "Ti": [[0, 0, 0]],
                                                  "O": [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]}),
    ("rutile TiO2", "P", (4.59, 2.96), 90, {"Ti": [[0, 0, 0], [0.5, 0.5, 0.5]],
                                            "O": [[0.305, 0.305, 0], [0.695, 0.695, 0],
                                                  [0.805, 0.195, 0.5], [0.195, 0.805, 0.5]]}),
)  # fmt: skip


def random_rotation(seed: int) -> Float[np.ndarray, "3 3"]:
    """A proper rotation, uniform over all of them."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def rotated(crystal: Crystal, matrix: Float[np.ndarray, "3 3"]) -> Crystal:
    """The crystal rotated in space, or reflected by a matrix of determinant -1."""
    return replace(crystal, positions=crystal.positions @ matrix.T, lattice=crystal.lattice @ matrix.T)


def translated(crystal: Crystal, vector: Float[np.ndarray, "3"]) -> Crystal:
    """All atoms moved by one vector, Å, without wrapping them back into the cell."""
    return replace(crystal, positions=crystal.positions + vector)


def rewrapped(crystal: Crystal, seed: int) -> Crystal:
    """Each atom moved by another lattice vector."""
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
    """The same crystal described by other lattice vectors: integer combinations with determinant ±1.

    Raises:
        CrystalError: the transformation has another determinant.
    """
    determinant = np.linalg.det(transformation)
    if round(abs(determinant)) != 1:
        problem = f"the transformation must have determinant 1 or -1, not {determinant:g}"
        raise CrystalError(problem, field="transformation", value=transformation)
    return replace(crystal, lattice=transformation @ crystal.lattice)
