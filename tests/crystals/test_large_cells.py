"""A crystal whose edges are formed for some atoms at a time has the edges that it has whole."""

from __future__ import annotations

import numpy as np

from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.crystals.loading import prepare
from crystalframer.testing import random_crystal

RADIUS = 5.0


CRYSTALS = prepare([random_crystal(seed, n_atoms) for seed, n_atoms in ((1, 4), (2, 13), (3, 6))], RADIUS)


def test_chunks_are_as_large_as_the_bound_lets_them_be() -> None:
    chunks = list(ChunkedCrystal(CRYSTALS, 1, 150))
    sizes = [len(chunk.vectors) for chunk in chunks]
    assert len(sizes) > 2 and max(sizes) <= 150
    first_of_next = [np.bincount(chunk.index[0])[0] for chunk in chunks[1:]]
    assert all(size + more > 150 for size, more in zip(sizes, first_of_next, strict=False))
    assert all(len(chunk.atoms) == 1 for chunk in ChunkedCrystal(CRYSTALS, 1, 1))  # however many edges an atom has
