"""Space groups of the crystals of a data set, found by spglib."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int64

from crystalframer.crystals.flat import FlatCrystals

TOLERANCE = 0.1
"""Å by which atoms may miss the place that the symmetry gives them, as in the Materials Project. A smaller one takes
crystals whose relaxation stopped early for others."""
NO_SYMMETRY = 1
"""The number of P1."""
OTHER_HAND = {
    78: 76, 95: 91, 96: 92, 145: 144, 153: 151, 154: 152, 170: 169, 172: 171, 179: 178, 181: 180, 213: 212,
}  # fmt: skip
"""The space groups that are mirror images of another: their numbers → that of the other, which is lower."""


def space_groups(
    crystals: FlatCrystals, duplicates: Int64[np.ndarray, " n_crystals"]
) -> Int64[np.ndarray, " n_crystals"]:
    """The number of the space group of each crystal, from 1 to 230, with a progress bar if it takes more than 2 s.

    The two hands of a chiral structure have one number, the lower. So have crystals that are the same: that of the
    smallest cell among them. A crystal in which two atoms are closer than the tolerance counts as one without symmetry.
    It takes about 5 ms a crystal.

    Args:
        duplicates: group of each crystal; crystals that are the same are in one group.
    """
    from tqdm.auto import tqdm

    order = np.lexsort((crystals.ids.astype(str), crystals.n_atoms))
    groups, first = np.unique(duplicates[order], return_index=True)
    found = np.zeros(int(groups.max(initial=-1)) + 1, np.int64)
    rows = order[first]
    for group, row in zip(groups, tqdm(rows, "space groups", unit=" crystals", delay=2, leave=False), strict=True):
        crystal = crystals[row]
        found[group] = _space_group(crystal.lattice, crystal.positions, crystal.atomic_numbers)
    return found[duplicates]


def equivalent_sites(
    lattice: Float[np.ndarray, "3 3"],
    positions: Float[np.ndarray, "n_atoms 3"],
    atomic_numbers: Int[np.ndarray, " n_atoms"],
    tolerance: float,
) -> Int64[np.ndarray, " n_atoms"]:
    """A number for each atom, from 0 on in the order of the atoms: equal for atoms that the symmetry maps onto each
    other. Where no symmetry can be found, each atom has its own.

    Args:
        tolerance: Å by which atoms may miss the place that the symmetry gives them.
    """
    found = symmetry_of(lattice, positions, atomic_numbers, tolerance)
    orbits = np.arange(len(positions)) if found is None else np.asarray(found.crystallographic_orbits)
    _, first, number = np.unique(orbits, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number].astype(np.int64)


def _space_group(
    lattice: Float[np.ndarray, "3 3"],
    positions: Float[np.ndarray, "n_atoms 3"],
    atomic_numbers: Int[np.ndarray, " n_atoms"],
) -> int:
    found = symmetry_of(lattice, positions, atomic_numbers, TOLERANCE)
    if found is None:
        return NO_SYMMETRY
    number = int(found.number)
    return OTHER_HAND.get(number, number)


def symmetry_of(
    lattice: Float[np.ndarray, "3 3"],
    positions: Float[np.ndarray, "n_atoms 3"],
    atomic_numbers: Int[np.ndarray, " n_atoms"],
    tolerance: float,
) -> Any:
    """The symmetry as spglib describes it; None if it finds nothing.

    Args:
        tolerance: Å by which atoms may miss the place that the symmetry gives them.
    """
    import spglib

    cell = lattice, positions @ np.linalg.inv(lattice), atomic_numbers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # how spglib 2 announces that a failure will be an error
        try:
            return spglib.get_symmetry_dataset(cell, symprec=tolerance)  # type: ignore[arg-type]  # arrays will do
        except spglib.SpglibError:
            return None
