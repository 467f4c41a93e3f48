"""A crystal: one periodic structure, in NumPy arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from crystalframer._moved import moved_names
from crystalframer.elements import HIGHEST_ATOMIC_NUMBER, SYMBOLS, reduced_formula
from crystalframer.errors import CrystalError
from crystalframer.libraries import require

if TYPE_CHECKING:
    from pymatgen.core import Structure
else:
    __getattr__ = moved_names(__name__, {"CrystalBatch": "crystalframer.crystals.batch"})

SMALLEST_CELL_HEIGHT = 0.1
"""Å between opposite faces; a flatter cell has no use as a crystal and no finite neighbour list."""
SMALLEST_DISTANCE = 0.5
"""Å; closer atoms are an error in the structure. The shortest bond, that of H2, has 0.74 Å, and O-H by X-rays 0.6 Å."""
LONGEST_CELL = 1e5
"""Å; longer cells are errors, and up to this length sums of squares keep their digits."""
FARTHEST_POSITION = 1e6
"""Å from the origin; coordinates farther away lose the digits that locate an atom in the cell."""
FEW_ATOMS = 500
"""Up to these, to compare all pairs costs no more than a tree, whose import takes as long as hundreds of files."""
_PAIRS_AT_ONCE = 1 << 14
_SHOWN_LABELS = 4
"""In one line."""
DENSEST = 5.0
"""Atoms in one Å³, thirty times as many as in diamond; a denser cell is an error and has far too many neighbours."""


@dataclass(frozen=True, eq=False, repr=False)
class Crystal:
    """One periodic structure.

    Raises:
        CrystalError: no atoms, wrong shapes, an atomic number outside 1..98, a coordinate that is not finite or
            absurdly large, a cell without volume, or one with more than 5 atoms in one Å³. Left-handed lattices are
            fine.
    """

    atomic_numbers: Int[np.ndarray, " n_atoms"]
    """Z of every atom."""
    positions: Float[np.ndarray, "n_atoms 3"]
    """Cartesian, Å. Need not lie inside the cell (frame method `pca` sees the difference)."""
    lattice: Float[np.ndarray, "3 3"]
    """Rows a, b, c, Å."""
    id: str = ""
    targets: Mapping[str, float] = field(default_factory=dict)
    """Label name → value; a missing name or NaN is a missing label. A class is given by its number, counted from 0."""

    def __post_init__(self) -> None:
        for name, dtype in (("atomic_numbers", np.int64), ("positions", np.float64), ("lattice", np.float64)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=dtype))
        name, n_atoms = self.name, self.atomic_numbers.size
        if n_atoms == 0:
            raise CrystalError(f"{name}: has no atoms")
        if self.atomic_numbers.shape != (n_atoms,) or self.positions.shape != (n_atoms, 3):
            raise CrystalError(
                f"{name}: atomic_numbers {self.atomic_numbers.shape} and positions {self.positions.shape} "
                "should have shapes (n_atoms,) and (n_atoms, 3)"
            )
        if self.lattice.shape != (3, 3) or not (np.abs(self.lattice) <= LONGEST_CELL).all():
            raise CrystalError(
                f"{name}: lattice must be 3 × 3 finite numbers in Å (rows a, b, c), none beyond {LONGEST_CELL:,.0f}, "
                f"got {self.lattice}",
                field="lattice",
            )
        is_near = np.abs(self.positions) <= FARTHEST_POSITION
        if not is_near.all():
            bad = np.flatnonzero(~is_near.all(axis=1))
            raise CrystalError(
                f"{name}: position of site {bad[0]} is {self.positions[bad[0]]}; it must be finite, and within "
                f"{FARTHEST_POSITION:,.0f} Å of the origin",
                site=int(bad[0]),
                field="positions",
            )
        if self.atomic_numbers.min() < 1 or self.atomic_numbers.max() > HIGHEST_ATOMIC_NUMBER:
            bad = np.flatnonzero((self.atomic_numbers < 1) | (self.atomic_numbers > HIGHEST_ATOMIC_NUMBER))
            raise CrystalError(
                f"{name}: site {bad[0]} has atomic number {self.atomic_numbers[bad[0]]}; "
                f"the model knows elements 1 (H) to {HIGHEST_ATOMIC_NUMBER} (Cf)",
                site=int(bad[0]),
                field="atomic_numbers",
                value=int(self.atomic_numbers[bad[0]]),
            )
        if not cell_heights(self.lattice).min() >= SMALLEST_CELL_HEIGHT:
            raise CrystalError(
                f"{name}: the lattice vectors {self.lattice.tolist()} Å are (nearly) coplanar; "
                "a crystal needs three independent ones",
                field="lattice",
            )
        volume = abs(float(np.linalg.det(self.lattice)))
        if n_atoms > DENSEST * volume:
            raise CrystalError(
                f"{name}: {n_atoms:,} atoms in {volume:.3g} Å³ are {n_atoms / volume:.3g} in each, where diamond has "
                "0.18; check the lattice and its unit (Å)"
            )

    def __len__(self) -> int:
        return len(self.atomic_numbers)

    def check_sites(self, sites: Collection[int]) -> None:
        """Check that sites are named by whole numbers, counted from 0, and that the crystal has them.

        Raises:
            CrystalError: they are no list of whole numbers, none is named, or there is none of a number (`site`).
        """
        if not (isinstance(sites, Collection) and all(isinstance(site, Integral) for site in sites)):
            message = f"{self.name}: sites are a list of whole numbers from 0 to {len(self) - 1:,}"
            raise CrystalError(message, field="sites", value=sites)
        if not len(sites):
            message = f"{self.name}: no sites are named; choose from 0 to {len(self) - 1:,}"
            raise CrystalError(message, field="sites", value=list(sites))
        for site in sites:
            if not 0 <= site < len(self):
                message = f"{self.name}: there is no site {site}; choose from 0 to {len(self) - 1:,}"
                raise CrystalError(message, field="sites", value=list(sites), site=int(site))

    def __repr__(self) -> str:
        name = f"{self.id!r}: " if self.id else ""
        volume = abs(float(np.linalg.det(self.lattice)))
        labels = ", ".join(f"{label} {value:.4g}" for label, value in list(self.targets.items())[:_SHOWN_LABELS])
        atoms = "1 atom" if len(self) == 1 else f"{len(self):,} atoms"
        return f"Crystal {name}{self.formula}, {atoms} in {volume:,.4g} Å³{f'; {labels}' if labels else ''}"

    def _repr_html_(self) -> str:
        from crystalframer.object_cards import crystal_card

        return crystal_card(self)

    @property
    def name(self) -> str:
        """Name of the crystal in messages."""
        return f"crystal {self.id!r}" if self.id else "crystal"

    @property
    def frac_coords(self) -> Float[np.ndarray, "n_atoms 3"]:
        """Fractional coordinates, not wrapped."""
        return self.positions @ np.linalg.inv(self.lattice)

    @property
    def formula(self) -> str:
        """Reduced formula: `CaTiO3`, of whatever number of formula units the cell holds."""
        return reduced_formula(self.atomic_numbers)

    def called(self, id: str) -> Crystal:
        """This crystal with another id."""
        return self._with_valid(id=id)

    def with_targets(self, targets: Mapping[str, float]) -> Crystal:
        return replace(self, targets=dict(targets))

    def wrapped(self) -> Crystal:
        """This crystal with every atom in the cell. Atoms that are there already keep their exact positions.

        Raises:
            CrystalError: two atoms are less than 0.5 Å apart; the sites are named.
        """
        frac, crystal = self.frac_coords, self
        outside = (frac < 0) | (frac >= 1)
        if outside.any():
            # Twice: a coordinate a rounding error below 0 becomes 1 the first time.
            frac = np.where(outside, frac % 1.0 % 1.0, frac)
            moved = np.flatnonzero(outside.any(axis=1))
            positions = self.positions.copy()
            positions[moved] = frac[moved] @ self.lattice
            crystal = self._with_valid(positions=positions)
        _check_distances(crystal, frac)
        return crystal

    def _with_valid(self, **fields: Any) -> Crystal:
        """This crystal with other fields, which need no check: to check all of it takes longer than most of reading."""
        crystal = object.__new__(Crystal)
        crystal.__dict__.update(self.__dict__, **fields)
        return crystal

    def right_handed(self) -> Crystal:
        """This crystal in a right-handed cell, as CIF and VASP need it: all lattice vectors turned round if need be."""
        return self if np.linalg.det(self.lattice) > 0 else replace(self, lattice=-self.lattice)

    def to_pymatgen(self) -> Structure:
        """This crystal as a pymatgen `Structure`, without id and targets.

        >>> salt = cf.read("NaCl.cif")
        >>> salt.to_pymatgen().get_space_group_info()
        ('Fm-3m', 225)
        """
        from pymatgen.core import Lattice, Structure

        numbers = self.atomic_numbers.tolist()
        return Structure(Lattice(self.lattice), numbers, self.positions, coords_are_cartesian=True)

    def to_ase(self) -> Any:
        """This crystal as ASE `Atoms`, periodic along all lattice vectors, without id and targets.

        >>> atoms = cf.read("NaCl.cif").to_ase()
        >>> atoms.calc = cf.CrystalFramerCalculator()

        Raises:
            CrystalError: ase is not installed.
        """
        ase = require("ase", "making ASE Atoms", "data", CrystalError)
        return ase.Atoms(self.atomic_numbers, positions=self.positions, cell=self.lattice, pbc=True)

    def write(self, path: str | Path) -> None:
        """Write this crystal to a file: CIF, POSCAR or extended XYZ, as the name of the file says.

        >>> cf.read("POSCAR").write("salt.cif")

        CIF holds lengths and angles of the cell, so the crystal may come back rotated; the others keep its orientation.
        CIF and POSCAR describe it by a right-handed cell. Id and targets are not written. A file that was there before
        stays until the new one is complete.

        Args:
            path: `x.cif`, `x.vasp`, `x.extxyz`, `x.xyz`, or a name that begins with `POSCAR` or `CONTCAR`. The folder
                is made.

        Raises:
            CrystalError: another suffix, or the file cannot be written.
        """
        # By name: the table of formats stands above the crystals and imports them.
        import_module("crystalframer.reading.formats").write(self, path)


def _check_distances(crystal: Crystal, frac: Float[np.ndarray, "n_atoms 3"]) -> None:
    pair = closest_pair(frac, crystal.lattice, SMALLEST_DISTANCE)
    if pair is not None:
        i, j, length = pair
        symbols = [SYMBOLS[z - 1] for z in crystal.atomic_numbers[[i, j]]]
        raise CrystalError(
            f"{crystal.name}: sites {i} ({symbols[0]}) and {j} ({symbols[1]}) lie {length:.3g} Å apart; "
            "remove the duplicate site, or correct cell and positions",
            site=i,
        )


def closest_pair(
    frac: Float[np.ndarray, "n_atoms 3"], lattice: Float[np.ndarray, "3 3"], limit: float
) -> tuple[int, int, float] | None:
    """The first two atoms that are closer than `limit` (Å), with their distance; None if there are none.

    Args:
        frac: fractional coordinates, from 0 to 1.
    """
    if len(frac) < 2:
        return None
    heights = cell_heights(lattice)
    for pairs in _candidates(frac, heights, limit):
        if not len(pairs):
            continue
        difference = frac[pairs[:, 1]] - frac[pairs[:, 0]]
        lengths = np.linalg.norm((difference - np.rint(difference)) @ lattice, axis=1)
        if (lengths < limit).any():
            found = int((lengths < limit).argmax())
            return int(pairs[found, 0]), int(pairs[found, 1]), float(lengths[found])
    return None


def _candidates(
    frac: Float[np.ndarray, "n_atoms 3"], heights: Float[np.ndarray, "3"], limit: float
) -> Iterator[Int[np.ndarray, "_n_pairs 2"]]:
    """Sorted pairs of atoms, all that are closer than `limit`: closer than that between planes of the cell as well."""
    if len(frac) <= FEW_ATOMS:
        height, n_rows = heights.max(), _PAIRS_AT_ONCE // len(frac)
        places = frac[:, heights.argmax()]
        for begin in range(0, len(frac), n_rows):
            steps = places[begin:] - places[begin : begin + n_rows, None]
            near = np.abs(steps - np.rint(steps)) * height < limit
            yield np.argwhere(np.triu(near, k=1)) + begin
        return
    from scipy.spatial import KDTree

    n_looked_at = 0
    while n_looked_at < len(frac):
        # More atoms step by step: of thousands on one place there are millions of pairs, and the first is enough.
        n_looked_at = min(max(1000, 2 * n_looked_at), len(frac))
        tree = KDTree(frac[:n_looked_at] * heights, boxsize=heights)
        yield np.array(sorted(tree.query_pairs(limit, p=np.inf)), dtype=np.int64).reshape(-1, 2)


def cell_heights(lattice: Float[np.ndarray, "*n_crystals 3 3"]) -> Float[np.ndarray, "*n_crystals 3"]:
    """Distances between opposite faces of the cell, Å; 0 for a singular lattice."""
    following, last = lattice.take((1, 2, 0), -2), lattice.take((2, 0, 1), -2)
    # The cross products written out: numpy.cross costs more than all the rest of making a crystal.
    normals = following.take((1, 2, 0), -1) * last.take((2, 0, 1), -1)
    normals -= following.take((2, 0, 1), -1) * last.take((1, 2, 0), -1)
    areas = np.sqrt((normals**2).sum(axis=-1))
    volume = np.abs(np.vecdot(lattice[..., 0, :], normals[..., 0, :]))[..., None]
    return np.divide(volume, areas, out=np.zeros_like(areas), where=areas > 0)
