"""Crystals too large to compute all of their edges at once, such as a defect in a cell of 100,000 atoms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, Int64, UInt8

from crystalframer.crystals.loading import PreparedCrystals, batch_ends
from crystalframer.crystals.neighbors import ranges, translations


@dataclass(frozen=True, eq=False)
class EdgesOfAtoms:
    """Edges from some atoms of a crystal to any of its atoms, sorted by query atom, then length."""

    crystal: ChunkedCrystal
    atoms: Int64[np.ndarray, " n_atoms"]
    """The query atoms."""
    index: Int64[np.ndarray, "2 n_edges"]
    """Row 0: query atom, counted through `atoms`; row 1: key atom, counted through the crystal."""
    image: Int[np.ndarray, "n_edges 3"]
    """Lattice translation n of the key atom."""
    vectors: Float[np.ndarray, "n_edges 3"]
    """p_j(n) - p_i, Å, float64."""


@dataclass(frozen=True, eq=False)
class ChunkedCrystal:
    """One of many prepared crystals. Iterating over it gives the edges of all atoms in order, some atoms at a time."""

    crystals: PreparedCrystals
    row: int
    max_edges: int
    """Limit on the edges computed at a time (but those of one atom are never divided)."""

    @property
    def id(self) -> str:
        return self.crystals.ids[self.row]

    @property
    def n_atoms(self) -> int:
        return self._atoms.stop - self._atoms.start

    @property
    def atomic_numbers(self) -> UInt8[np.ndarray, " n_atoms"]:
        return self.crystals.flat.atomic_numbers[self._atoms]

    @property
    def positions(self) -> Float[np.ndarray, "n_atoms 3"]:
        return self.crystals.flat.positions[self._atoms]

    @property
    def lattice(self) -> Float[np.ndarray, "3 3"]:
        return self.crystals.flat.lattice[self.row]

    def __iter__(self) -> Iterator[EdgesOfAtoms]:
        first = 0
        for last in batch_ends([(self.edges_per_atom, self.max_edges)], self.n_atoms, self.n_atoms):
            yield self.edges_from(np.arange(first, last))
            first = last

    def edges_from(self, atoms: Int64[np.ndarray, " n_atoms"]) -> EdgesOfAtoms:
        table, counts = self.crystals.neighbors, self.edges_per_atom[atoms].astype(np.int64)
        edges = ranges(self._first_edge[atoms], counts)
        query, key = np.repeat(atoms, counts), table.key_atom[edges].astype(np.int64)
        image, positions = table.edge_image[edges], self.positions
        vectors = positions[key] - positions[query] + translations(image, self.lattice)
        return EdgesOfAtoms(self, atoms, np.stack([np.repeat(np.arange(len(atoms)), counts), key]), image, vectors)

    @property
    def _atoms(self) -> slice:
        return slice(*self.crystals.flat.offsets[self.row : self.row + 2].tolist())

    @property
    def edges_per_atom(self) -> Int[np.ndarray, " n_atoms"]:
        return self.crystals.neighbors.edges_per_atom[self._atoms]

    @cached_property
    def _first_edge(self) -> Int64[np.ndarray, " n_atoms"]:
        """Number of the first edge of each atom in the table of all crystals."""
        before = self.crystals.neighbors.edges_per_atom[: self._atoms.stop].cumsum(dtype=np.int64)
        return (before - self.crystals.neighbors.edges_per_atom[: self._atoms.stop])[self._atoms]
