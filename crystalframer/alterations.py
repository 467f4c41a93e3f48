"""Sound crystals made wrong in ways that a classifier learns to recognise (`soundness`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from crystalframer.crystals.crystal import Crystal
from crystalframer.soundness import ALTERATIONS

SHORTEST, LONGEST = 0.1, 0.5
"""Å by which atoms are displaced: shorter ways are those of thermal motion, longer ones break every bond."""
LEAST_STRAIN, MOST_STRAIN = 0.02, 0.12
MOST_MISSING = 0.5
OF_ONE_ELEMENT = 0.25
"""Share of crystals with missing atoms that lack one element: battery hosts without lithium look like this."""
NEAREST = 1.0
"""Å from all others at which an additional atom is put."""
_ATTEMPTS = 20

ELEMENTS = np.setdiff1d(np.arange(1, 95), np.arange(84, 89))
"""Elements that replace others: those with crystals in databases."""

Alter = Callable[[Crystal, np.random.Generator], Crystal | None]
"""The altered crystal; None if it cannot be altered in this way."""


def displaced(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    """All atoms, or in one of five crystals some of them, are moved at random."""
    length = np.exp(generator.uniform(np.log(SHORTEST), np.log(LONGEST)))
    steps = generator.normal(size=crystal.positions.shape)
    how = generator.random()
    steps *= length / (np.linalg.norm(steps, axis=1, keepdims=True) if how < 0.5 else np.sqrt(3.0))
    if how > 0.8:
        is_moved = generator.random(len(crystal)) < 0.4
        is_moved[generator.integers(len(crystal))] = True
        steps *= 1.5 * is_moved[:, None]
    return replace(crystal, positions=crystal.positions + steps)


def strained(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    """The cell is strained in all directions alike, or in random ones."""
    size = generator.uniform(LEAST_STRAIN, MOST_STRAIN)
    strain = generator.normal(size=(3, 3))
    strain = (strain + strain.T) / 2.0
    strain *= size / np.abs(np.linalg.eigvalsh(strain)).max()
    if generator.random() < 0.5:
        strain = generator.choice([-size, size]) * np.eye(3)
    deformation = np.eye(3) + strain
    return replace(crystal, positions=crystal.positions @ deformation, lattice=crystal.lattice @ deformation)


def missing(crystal: Crystal, generator: np.random.Generator) -> Crystal | None:
    """Some atoms are removed, or in one of four crystals all atoms of one element."""
    n_atoms, elements = len(crystal), np.unique(crystal.atomic_numbers)
    if n_atoms == 1:
        return None
    if len(elements) > 1 and generator.random() < OF_ONE_ELEMENT:
        is_kept = crystal.atomic_numbers != generator.choice(elements)
        return replace(crystal, atomic_numbers=crystal.atomic_numbers[is_kept], positions=crystal.positions[is_kept])
    n_missing = min(max(1, round(n_atoms * generator.uniform(0.0, MOST_MISSING))), n_atoms - 1)
    kept = np.sort(generator.permutation(n_atoms)[n_missing:])
    return replace(crystal, atomic_numbers=crystal.atomic_numbers[kept], positions=crystal.positions[kept])


def additional(crystal: Crystal, generator: np.random.Generator) -> Crystal | None:
    """One to three further atoms of its elements are put at random places between the others."""
    for _attempt in range(1 if generator.random() < 0.7 else 3):
        place = _free_place(crystal, generator)
        if place is None:
            return None
        numbers = np.append(crystal.atomic_numbers, generator.choice(crystal.atomic_numbers))
        crystal = replace(crystal, atomic_numbers=numbers, positions=np.vstack([crystal.positions, place]))
    return crystal


def _free_place(crystal: Crystal, generator: np.random.Generator) -> Float[np.ndarray, "3"] | None:
    """Å; none if there is no place far enough from the atoms."""
    inverse = np.linalg.inv(crystal.lattice)
    for _attempt in range(_ATTEMPTS):
        place = generator.random(3) @ crystal.lattice
        fractions = (crystal.positions - place) @ inverse
        vectors = (fractions - np.round(fractions)) @ crystal.lattice
        if np.linalg.norm(vectors, axis=1).min() > NEAREST:
            return place
    return None


def exchanged(crystal: Crystal, generator: np.random.Generator) -> Crystal | None:
    """The species change places."""
    numbers = crystal.atomic_numbers
    if len(np.unique(numbers)) == 1:
        return None
    while True:
        found = generator.permutation(numbers)
        if (found != numbers).any():
            return replace(crystal, atomic_numbers=found)


def replaced(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    """One element becomes another one, on all of its sites."""
    here = np.unique(crystal.atomic_numbers)
    old, new = generator.choice(here), generator.choice(np.setdiff1d(ELEMENTS, here))
    return replace(crystal, atomic_numbers=np.where(crystal.atomic_numbers == old, new, crystal.atomic_numbers))


ALTER: Mapping[str, Alter] = {
    "displaced": displaced,
    "strained": strained,
    "missing": missing,
    "additional": additional,
    "exchanged": exchanged,
    "replaced": replaced,
}
assert ALTER.keys() == ALTERATIONS.keys()
