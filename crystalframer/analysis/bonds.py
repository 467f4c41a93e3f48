"""Which atoms are bonded: the one rule for pictures and analysis.

The rule looks at pairs of elements, distances and Pauling electronegativities; it needs no oxidation states. Lengths
are compared with the sum of the covalent radii of the two atoms:

- A **centre** (a metal, or a non-metal next to a more electronegative one, such as Si or S in an oxide) is bonded to
  more electronegative atoms. Its shell ends at the widest jump in distance, so long and short bonds of one distorted
  octahedron stay together.
- Non-metals of similar electronegativity are bonded up to 1.2 radii (C-C, S-S in pyrite, As-As).
- Metals are bonded to each other only in crystals without non-metals: up to 1.15 times the shortest distance of either.
- A **spacer** is a large cation, such as Sr in SrTiO₃: a metal with eight or more neighbours beside a centre that has
  fewer and shorter bonds. It keeps its shell, but its bonds do not count for the anions, and pictures leave them out.

The jump in distance follows Brunner and Schwarzenbach, Z. Kristallogr. 133, 127 (1971).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from crystalframer.elements import COVALENT_RADII, ELECTRONEGATIVITIES, NONMETALS

REACH = 1.8
"""Neighbours are sought up to this distance, in sums of covalent radii."""
LONGEST = 1.6
"""The longest bond to a metal, in sums of covalent radii."""
LONGEST_POLAR = 1.3
"""The longest bond between non-metals of different electronegativity, in sums of covalent radii."""
LONGEST_COVALENT = 1.2
"""The longest bond between non-metals of similar electronegativity, in sums of covalent radii."""
STRETCH = 1.45
"""The longest bond of a centre, as a multiple of its shortest; both in sums of covalent radii."""
METAL_STRETCH = 1.15
"""The longest bond in a metal, as a multiple of the shortest. It excludes the second shell of bcc (1.155)."""
POLAR = 0.25
"""Non-metals whose electronegativities differ by this much or more form centre and ligand (Cl and O: 0.28)."""
COVERED = 1.0
"""A centre among its ligands (C of a carboxylate) is bonded to a metal only up to this many sums of radii."""
SPACER_NEIGHBORS = 8
"""Least coordination number of a spacer."""
FRAMEWORK_NEIGHBORS = 6
"""Largest coordination number of the centres beside which a metal is a spacer."""
MOST_NEIGHBORS = 12
"""A metal with more neighbours is always a spacer."""
LONGER_THAN_METAL = 1.2
"""Least mean bond length of a spacer, as a multiple of that of a metal in the framework."""
LONGER_THAN_NONMETAL = 1.1
"""The same beside non-metals such as Si or S; both lengths in sums of covalent radii."""
SAME = 1e-3
"""Distances with a smaller relative difference are equal."""


@dataclass(frozen=True, eq=False)
class Bonds:
    """The bonds of a crystal, once from each of their ends.

    Example:
        >>> bonds = find_bonds(trace.atomic_numbers, trace.positions, trace.lattice)  # SrTiO3
        >>> [len(bonds.shell(site)[0]) for site in range(3)]  # Sr, Ti, O
        [12, 6, 2]
        >>> bonds.is_spacer.tolist()
        [True, False, False, False, False]
    """

    site: Int[np.ndarray, " n_bonds"]
    """The atom whose shell this is, ascending."""
    key: Int[np.ndarray, " n_bonds"]
    """The atom at the other end."""
    image: Int[np.ndarray, "n_bonds 3"]
    """Lattice translation of the other end, counted from the given positions."""
    is_center: Bool[np.ndarray, " n_bonds"]
    """Whether the other end is the more electronegative of two unlike atoms."""
    is_spacer: Bool[np.ndarray, " n_atoms"]
    """Whether an atom is a large cation beside a framework."""
    is_metallic: bool
    """Whether all atoms are metals."""

    @cached_property
    def _starts(self) -> Int[np.ndarray, " n_starts"]:
        return np.searchsorted(self.site, np.arange(len(self.is_spacer) + 1))

    def rows(self, site: int) -> slice:
        """The bonds of one atom."""
        return slice(int(self._starts[site]), int(self._starts[site + 1]))

    def shell(self, site: int) -> tuple[Int[np.ndarray, " n_neighbors"], Int[np.ndarray, "n_neighbors 3"]]:
        """Atoms and lattice translations of the neighbours of one atom."""
        rows = self.rows(site)
        return self.key[rows], self.image[rows]

    def ligands(self, site: int) -> tuple[Int[np.ndarray, " n_ligands"], Int[np.ndarray, "n_ligands 3"]]:
        """The neighbours of which this atom is the centre."""
        rows = np.arange(len(self.site))[self.rows(site)]
        rows = rows[self.is_center[rows]]
        return self.key[rows], self.image[rows]

    def moved(self, shift: Int[np.ndarray, "n_atoms 3"]) -> Bonds:
        """The same bonds after each atom was moved by a lattice translation."""
        return replace(self, image=self.image + shift[self.site] - shift[self.key])

    def without_spacers(self) -> Bonds:
        """The bonds that pictures draw: without those that only spacers count."""
        kept = ~self.is_spacer[self.site]
        return replace(
            self, site=self.site[kept], key=self.key[kept], image=self.image[kept], is_center=self.is_center[kept]
        )


def find_bonds(
    atomic_numbers: Int[np.ndarray, " n_atoms"],
    positions: Float[np.ndarray, "n_atoms 3"],
    lattice: Float[np.ndarray, "3 3"],
) -> Bonds:
    """Find the bonds of a crystal by the rule of this module.

    Args:
        atomic_numbers: 1 to 98.
        positions: Cartesian, Å; they may lie outside the cell.
        lattice: rows a, b, c, Å.

    Example:
        >>> rock_salt = 2.82 * (1 - np.eye(3))
        >>> bonds = find_bonds(np.array([11, 17]), np.array([[0, 0, 0], [2.82, 0, 0]]), rock_salt)
        >>> np.bincount(bonds.site).tolist()
        [6, 6]
    """
    atomic_numbers = np.asarray(atomic_numbers, dtype=np.int64)
    positions, lattice = np.asarray(positions, dtype=np.float64), np.asarray(lattice, dtype=np.float64)
    radii = COVALENT_RADII[atomic_numbers]
    query, key, image = _close_pairs(positions, lattice, REACH * 2 * float(radii.max()))
    lengths = np.linalg.norm(positions[key] + image @ lattice - positions[query], axis=1)
    relative = lengths / (radii[query] + radii[key])
    near = relative <= REACH
    pairs = _Pairs(atomic_numbers, query[near], key[near], image[near], lengths[near], relative[near])
    return pairs.metallic() if pairs.is_metal.all() else pairs.compound()


def _close_pairs(
    positions: Float[np.ndarray, "n_atoms 3"], lattice: Float[np.ndarray, "3 3"], reach: float
) -> tuple[Int[np.ndarray, " n_pairs"], Int[np.ndarray, " n_pairs"], Int[np.ndarray, "n_pairs 3"]]:
    """All pairs of different atoms or images up to a distance (Å): query atoms, ascending, key atoms, and images."""
    from scipy.spatial import KDTree

    inverse = np.linalg.inv(lattice)
    shift = -np.floor(positions @ inverse).astype(np.int64)
    home = positions + shift @ lattice
    n_cells = np.ceil(reach * np.linalg.norm(inverse, axis=0)).astype(np.int64)
    cells = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in n_cells), indexing="ij"), axis=-1).reshape(-1, 3)
    atoms = np.tile(np.arange(len(home)), len(cells))
    images = np.repeat(cells, len(home), axis=0)
    points = home[atoms] + images @ lattice
    inside = ((points >= home.min(axis=0) - reach) & (points <= home.max(axis=0) + reach)).all(axis=1)
    atoms, images, points = atoms[inside], images[inside], points[inside]
    found = KDTree(points).query_ball_point(home, reach, return_sorted=True)
    query = np.repeat(np.arange(len(home)), [len(near) for near in found])
    place = np.concatenate([np.asarray(near, dtype=np.int64) for near in found])
    key, image = atoms[place], images[place] + shift[atoms[place]] - shift[query]
    other = (query != key) | image.any(axis=1)
    return query[other], key[other], image[other]


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Atoms that are near enough to be bonded."""

    atomic_numbers: Int[np.ndarray, " n_atoms"]
    query: Int[np.ndarray, " n_pairs"]
    key: Int[np.ndarray, " n_pairs"]
    image: Int[np.ndarray, "n_pairs 3"]
    lengths: Float[np.ndarray, " n_pairs"]
    relative: Float[np.ndarray, " n_pairs"]
    """Lengths in sums of covalent radii."""

    @cached_property
    def is_metal(self) -> Bool[np.ndarray, " n_atoms"]:
        return np.array([number not in NONMETALS for number in self.atomic_numbers.tolist()], dtype=bool)

    def metallic(self) -> Bonds:
        """Every atom to its nearest ones."""
        shortest = np.full(len(self.atomic_numbers), np.inf)
        np.minimum.at(shortest, self.query, self.lengths)
        bonded = self.lengths <= METAL_STRETCH * np.maximum(shortest[self.query], shortest[self.key])
        nothing = np.zeros(len(self.atomic_numbers), dtype=bool)
        return self._bonds(bonded, np.zeros(len(bonded), dtype=bool), nothing, is_metallic=True)

    def compound(self) -> Bonds:
        """Centres to their ligands, and non-metals to their like."""
        metal = self.is_metal
        rise = np.diff(ELECTRONEGATIVITIES[self.atomic_numbers][np.stack([self.query, self.key])], axis=0)[0]
        among = ~metal[self.query] & ~metal[self.key]
        polar = among & (rise >= POLAR) & (self.relative <= REACH)
        to_ligand = self._shells(polar, LONGEST_POLAR)
        covered = np.zeros(len(metal), dtype=bool)
        covered[self.query[to_ligand]] = True
        allowed = ~covered[self.key] | (self.relative <= COVERED)
        to_anion = self._shells(metal[self.query] & ~metal[self.key] & allowed, LONGEST)
        covalent = among & (np.abs(rise) < POLAR) & (self.relative <= LONGEST_COVALENT)
        outward = to_ligand | to_anion
        return self._bonds(
            outward | covalent | self._lonely(outward | covalent, rise),
            outward,
            self._spacers(outward),
            is_metallic=False,
        )

    def _lonely(
        self, bonded: Bool[np.ndarray, " n_pairs"], rise: Float[np.ndarray, " n_pairs"]
    ) -> Bool[np.ndarray, " n_pairs"]:
        """For atoms that no centre counts, as in a crystal far from equilibrium: their nearest unlike atoms."""
        lonely = np.ones(len(self.atomic_numbers), dtype=bool)
        lonely[self.query[bonded]] = lonely[self.key[bonded]] = False
        return self._shells(lonely[self.query] & (np.abs(rise) >= POLAR), LONGEST)

    def _shells(self, candidate: Bool[np.ndarray, " n_pairs"], longest: float) -> Bool[np.ndarray, " n_pairs"]:
        """For each atom its candidates up to the widest jump in distance."""
        bonded = np.zeros(len(candidate), dtype=bool)
        rows = np.flatnonzero(candidate)
        rows = rows[np.lexsort((self.relative[rows], self.query[rows]))]
        for mine in np.split(rows, np.flatnonzero(np.diff(self.query[rows])) + 1):
            if len(mine):
                bonded[mine[: _shell_size(self.relative[mine], longest)]] = True
        return bonded

    def _spacers(self, outward: Bool[np.ndarray, " n_pairs"]) -> Bool[np.ndarray, " n_atoms"]:
        """Metals with many long bonds beside centres with few short ones. C, N and H are no framework by themselves."""
        n = len(self.atomic_numbers)
        count = np.bincount(self.query[outward], minlength=n)
        large = self.is_metal & (count >= SPACER_NEIGHBORS)
        frame = (count >= 2) & (count <= FRAMEWORK_NEIGHBORS) & ~np.isin(self.atomic_numbers, (1, 6, 7))
        spacer = large & (count > MOST_NEIGHBORS)
        # Radii of metals in compounds vary with their charge, so lengths are compared; among non-metals they do not.
        for centers, sizes, factor in (
            (frame & self.is_metal, self.lengths, LONGER_THAN_METAL),
            (frame & ~self.is_metal, self.relative, LONGER_THAN_NONMETAL),
        ):
            mean = np.bincount(self.query[outward], sizes[outward], minlength=n) / np.maximum(count, 1)
            if centers.any():
                spacer |= large & (mean >= factor * mean[centers].min())
        return spacer

    def _bonds(
        self,
        bonded: Bool[np.ndarray, " n_pairs"],
        outward: Bool[np.ndarray, " n_pairs"],
        spacer: Bool[np.ndarray, " n_atoms"],
        is_metallic: bool,
    ) -> Bonds:
        """The bonds from both ends; those of spacers only from theirs, unless the other atom has no others."""
        rows = np.flatnonzero(bonded)
        there = np.column_stack([self.query[rows], self.key[rows], self.image[rows]])
        back = np.column_stack([there[:, 1], there[:, 0], -there[:, 2:]])
        has_framework = np.zeros(len(spacer), dtype=bool)
        has_framework[back[~spacer[back[:, 1]], 0]] = True
        kept = ~(spacer[back[:, 1]] & has_framework[back[:, 0]])
        ends = np.concatenate([there, back[kept]])
        is_center = np.concatenate([outward[rows], np.zeros(int(kept.sum()), dtype=bool)])
        ends, first = np.unique(ends, axis=0, return_index=True)
        return Bonds(ends[:, 0], ends[:, 1], ends[:, 2:], is_center[first], spacer, is_metallic)


def _shell_size(relative: Float[np.ndarray, " n_candidates"], longest: float) -> int:
    """How many of the candidates, nearest first, lie before the widest jump in distance."""
    last = min(longest, STRETCH * float(relative[0]))
    n_within = int(np.searchsorted(relative, last * (1 + SAME)))
    ends = np.append(relative, max(REACH, float(relative[-1])))
    jumps = ends[1 : n_within + 1] / relative[:n_within]
    return int(np.argmax(jumps)) + 1 if n_within else 0
