"""Crystals that are wrong in a known way: a trustworthy model says so, or gives a wide interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from crystalframer.alterations import exchanged
from crystalframer.crystals.crystal import Crystal
from crystalframer.elements import SYMBOLS

Corruption = Callable[[Crystal, np.random.Generator], Crystal | None]
"""The wrong crystal; None if this one cannot be made wrong in this way."""


def without_a_third(crystal: Crystal, generator: np.random.Generator) -> Crystal | None:
    """A third of the atoms is missing."""
    n_atoms = len(crystal)
    n_missing = round(n_atoms / 3)
    if n_missing == 0:
        return None
    kept = np.sort(generator.permutation(n_atoms)[n_missing:])
    return replace(crystal, atomic_numbers=crystal.atomic_numbers[kept], positions=crystal.positions[kept])


def anion_to_krypton(crystal: Crystal, _: np.random.Generator) -> Crystal:
    """The most electronegative element becomes krypton."""
    return _replaced(crystal, max, "Kr")


def cation_to_fluorine(crystal: Crystal, _: np.random.Generator) -> Crystal | None:
    """The least electronegative element becomes fluorine."""
    return None if len(np.unique(crystal.atomic_numbers)) < 2 else _replaced(crystal, min, "F")


def _replaced(crystal: Crystal, of: Callable[..., int], symbol: str) -> Crystal:
    from pymatgen.core import Element

    numbers = crystal.atomic_numbers

    def electronegativity(z: int) -> float:
        value = Element.from_Z(z).X
        return value if value == value else 0.0  # NaN for noble gases

    chosen = of(np.unique(numbers).tolist(), key=electronegativity)
    return replace(crystal, atomic_numbers=np.where(numbers == chosen, SYMBOLS.index(symbol) + 1, numbers))


def moved(distance: float) -> Corruption:
    """All atoms are moved by this distance (Å), each in a direction of its own."""

    def corrupt(crystal: Crystal, generator: np.random.Generator) -> Crystal:
        steps = generator.normal(size=crystal.positions.shape)
        steps *= distance / np.linalg.norm(steps, axis=1, keepdims=True)
        return replace(crystal, positions=crystal.positions + steps)

    return corrupt


def scaled(factor: float) -> Corruption:
    """All lengths are multiplied by this factor."""

    def corrupt(crystal: Crystal, _: np.random.Generator) -> Crystal:
        return replace(crystal, positions=crystal.positions * factor, lattice=crystal.lattice * factor)

    return corrupt


def sheared(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    """The cell is strained by 6 % or so, in all components."""
    strain = generator.normal(scale=0.06, size=(3, 3))
    deformation = np.eye(3) + (strain + strain.T) / 2
    return replace(crystal, positions=crystal.positions @ deformation, lattice=crystal.lattice @ deformation)


def with_interstitial(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    """One atom more, of an element of the crystal, at a random place."""
    place = generator.random(3) @ crystal.lattice
    return replace(
        crystal,
        atomic_numbers=np.append(crystal.atomic_numbers, generator.choice(crystal.atomic_numbers)),
        positions=np.vstack([crystal.positions, place]),
    )


def glided(crystal: Crystal, generator: np.random.Generator) -> Crystal | None:
    """The upper half of the cell glides by 1 Å in a random direction along its faces."""
    fractions = crystal.positions @ np.linalg.inv(crystal.lattice)
    is_upper = fractions[:, 2] - np.floor(fractions[:, 2] + 1e-6) >= 0.5 - 1e-6
    if is_upper.all() or not is_upper.any():
        return None
    a, b = crystal.lattice[0], crystal.lattice[1]
    direction = generator.normal() * a / np.linalg.norm(a) + generator.normal() * b / np.linalg.norm(b)
    steps = is_upper[:, None] * direction / np.linalg.norm(direction)
    return replace(crystal, positions=crystal.positions + steps)


def with_gap(crystal: Crystal, _: np.random.Generator) -> Crystal:
    """Between two layers of atoms the cell has 3 Å of vacuum more."""
    a, b, c = crystal.lattice
    normal = np.cross(a, b) / np.linalg.norm(np.cross(a, b))
    normal *= np.sign(c @ normal)
    fractions = crystal.positions @ np.linalg.inv(crystal.lattice)
    positions = crystal.positions - np.floor(fractions[:, 2:] + 1e-6) * c
    return replace(crystal, positions=positions, lattice=np.stack([a, b, c + 3.0 * normal]))


def hydrogenated(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    """A hydrogen atom sits 1 Å from one of the atoms."""
    direction = generator.normal(size=3)
    place = crystal.positions[generator.integers(len(crystal))] + direction / np.linalg.norm(direction)
    return replace(
        crystal,
        atomic_numbers=np.append(crystal.atomic_numbers, 1),
        positions=np.vstack([crystal.positions, place]),
    )


def one_element_moved(crystal: Crystal, generator: np.random.Generator) -> Crystal | None:
    """All atoms of one element move by 0.5 Å in the same direction."""
    elements = np.unique(crystal.atomic_numbers)
    if len(elements) == 1:
        return None
    direction = generator.normal(size=3)
    chosen = crystal.atomic_numbers == generator.choice(elements)
    step = 0.5 * direction / np.linalg.norm(direction)
    return replace(crystal, positions=crystal.positions + chosen[:, None] * step)


CORRUPTIONS: Mapping[str, Corruption] = {
    "species shuffled": exchanged,
    "a third of the atoms removed": without_a_third,
    "anion → Kr": anion_to_krypton,
    "atoms moved by 0.2 Å": moved(0.2),
    "cation → F": cation_to_fluorine,
    "an interstitial atom": with_interstitial,
    "cell strained by 6 %": sheared,
    "lengths × 0.95": scaled(0.95),
    "half of the cell glides by 1 Å": glided,
    "3 Å of vacuum between layers": with_gap,
    "hydrogen on an atom": hydrogenated,
    "one element moved by 0.5 Å": one_element_moved,
}
"""The flags learn from alterations like the first eight (`crystalframer.alterations`). The last four were invented for
this benchmark; nothing is fitted or chosen on them."""
