"""A crystal whose edges are formed for some atoms at a time has the edges that it has whole."""

from __future__ import annotations

import numpy as np
import pytest

from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.crystals.loading import PreparedCrystals, prepare
from crystalframer.testing import random_crystal

RADIUS = 5.0


@pytest.fixture(scope="module")
def crystals() -> PreparedCrystals:
    return prepare([random_crystal(seed, n_atoms) for seed, n_atoms in ((1, 4), (2, 13), (3, 6))], RADIUS)


@pytest.mark.parametrize("max_edges", [1, 150, 10**9])
def test_all_chunks_together_are_the_crystal(max_edges: int, crystals: PreparedCrystals) -> None:
    whole, crystal = crystals.batch([1]), ChunkedCrystal(crystals, 1, max_edges)
    chunks = list(crystal)
    np.testing.assert_array_equal(np.concatenate([chunk.atoms for chunk in chunks]), np.arange(13))
    query = np.concatenate([chunk.atoms[chunk.index[0]] for chunk in chunks])
    key = np.concatenate([chunk.index[1] for chunk in chunks])
    np.testing.assert_array_equal(np.stack([query, key]), whole.edge_index)
    np.testing.assert_array_equal(np.concatenate([chunk.image for chunk in chunks]), whole.edge_image)
    vectors = np.concatenate([chunk.vectors for chunk in chunks])
    np.testing.assert_array_equal(vectors.astype(np.float32), whole.edge_vectors)
    np.testing.assert_array_equal(crystal.atomic_numbers, whole.atomic_numbers)
    assert crystal.id == whole.ids[0]


def test_chunks_are_as_large_as_the_bound_lets_them_be(crystals: PreparedCrystals) -> None:
    chunks = list(ChunkedCrystal(crystals, 1, 150))
    sizes = [len(chunk.vectors) for chunk in chunks]
    assert len(sizes) > 2 and max(sizes) <= 150
    first_of_next = [np.bincount(chunk.index[0])[0] for chunk in chunks[1:]]
    assert all(size + more > 150 for size, more in zip(sizes, first_of_next, strict=False))
    assert all(len(chunk.atoms) == 1 for chunk in ChunkedCrystal(crystals, 1, 1))  # however many edges an atom has


def test_edges_of_chosen_atoms_in_the_order_asked_for(crystals: PreparedCrystals) -> None:
    whole, atoms = crystals.batch([2]), np.array([4, 0])
    found = ChunkedCrystal(crystals, 2, 1).edges_from(atoms)
    for place, atom in enumerate(atoms):
        mine, theirs = found.index[0] == place, whole.edge_index[0].numpy() == atom
        np.testing.assert_array_equal(found.index[1][mine], whole.edge_index[1][theirs])
        np.testing.assert_array_equal(found.image[mine], whole.edge_image[theirs])
