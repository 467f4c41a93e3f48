"""Neighbours by hand, by brute force, and whatever the cell; enough of them where space is empty."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from crystalframer.data.crystal import Crystal, CrystalError
from crystalframer.data.neighbors import MIN_NEIGHBORS, NeighborList, neighbor_list
from crystalframer.testing import random_crystal, rewrapped, supercell, with_cell


def crystal(numbers: list[int], positions: list[list[float]], lattice: list[list[float]] | np.ndarray) -> Crystal:
    return Crystal(np.array(numbers), np.array(positions, dtype=float), np.array(lattice, dtype=float), "example")


SIMPLE_CUBIC = crystal([84], [[0, 0, 0]], np.eye(3) * 3.0)


def lengths(found: NeighborList) -> np.ndarray:
    return np.linalg.norm(found.edge_vectors, axis=1)


def test_shells_of_the_simple_cubic_lattice() -> None:
    found = neighbor_list(SIMPLE_CUBIC, 6.01)
    shells, counts = np.unique(lengths(found).round(6), return_counts=True)
    np.testing.assert_allclose(shells, np.sqrt([0, 1, 2, 3, 4]) * 3.0, atol=1e-6)
    assert counts.tolist() == [1, 6, 12, 8, 6]


def test_an_edge_at_exactly_the_radius_is_in() -> None:
    assert (lengths(neighbor_list(SIMPLE_CUBIC, 6.0)) > 5.99).sum() == 6


def brute_force(crystal: Crystal, radius: float) -> set[tuple[int, ...]]:
    """Every (query, key, image) within the radius, by trying all."""
    heights = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    spread = np.ptp(crystal.frac_coords, axis=0)
    reach = np.ceil(radius / heights + spread).astype(int)
    found = set()
    for image in itertools.product(*(range(-n, n + 1) for n in reach)):
        vectors = crystal.positions[None] - crystal.positions[:, None] + np.array(image) @ crystal.lattice
        for query, key in np.argwhere(np.linalg.norm(vectors, axis=2) <= radius):
            found.add((int(query), int(key), *image))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_against_brute_force(seed: int) -> None:
    """Also with atoms written outside the cell, and in a skewed cell."""
    example = rewrapped(
        with_cell(random_crystal(seed, 1 + 2 * seed), np.array([[1, 1, 0], [0, 1, 0], [0, -2, 1]])), seed
    )
    found = neighbor_list(example, 5.0)
    assert {
        (*edge, *image) for edge, image in zip(found.edge_index.T.tolist(), found.edge_image.tolist(), strict=True)
    } == brute_force(example, 5.0)


def test_vectors_are_what_index_and_image_say() -> None:
    example = random_crystal(3, 7)
    found = neighbor_list(example, 6.0)
    query, key = found.edge_index
    expected = example.positions[key] - example.positions[query] + found.edge_image @ example.lattice
    np.testing.assert_allclose(found.edge_vectors, expected, atol=1e-12)


def test_edges_are_sorted_and_each_atom_comes_first_to_itself() -> None:
    example = random_crystal(4, 6)
    found = neighbor_list(example, 6.0)
    query, key = found.edge_index
    assert (np.diff(query) >= 0).all()
    first = np.flatnonzero(np.diff(query, prepend=-1))
    assert (key[first] == query[first]).all() and (found.edge_image[first] == 0).all()
    same_atom = np.diff(query) == 0
    assert (np.diff(lengths(found))[same_atom] >= 0).all()


@pytest.mark.parametrize("repeats", [(2, 1, 1), (1, 3, 2)])
def test_a_supercell_has_the_same_surroundings(repeats: tuple[int, int, int]) -> None:
    example = random_crystal(5, 4)
    small, large = neighbor_list(example, 6.0), neighbor_list(supercell(example, repeats), 6.0)
    for atom in range(4):
        np.testing.assert_allclose(
            lengths(small)[small.edge_index[0] == atom], lengths(large)[large.edge_index[0] == atom], atol=1e-9
        )


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("lone atom", crystal([2], [[0, 0, 0]], np.diag([20.0, 22.0, 25.0]))),
        ("molecule", crystal([6, 8], [[0, 0, 0], [0, 0, 1.13]], np.eye(3) * 25)),
        ("chain", crystal([6], [[0, 0, 0]], np.diag([1.5, 30.0, 30.0]))),
        ("layer", crystal([6, 6], [[0, 0, 0], [1.42, 0, 0]], [[2.13, 1.23, 0], [2.13, -1.23, 0], [0, 0, 30]])),
    ],
)
def test_sparse_surroundings_get_a_larger_radius(name: str, example: Crystal) -> None:
    """At least MIN_NEIGHBORS, in all three dimensions, and the same for a supercell."""
    found = neighbor_list(example, 7.0)
    for atom in range(len(example)):
        vectors = found.edge_vectors[found.edge_index[0] == atom]
        assert len(vectors) - 1 >= MIN_NEIGHBORS
        assert np.linalg.matrix_rank(vectors, tol=1e-3) == 3
    repeated = neighbor_list(supercell(example, (1, 2, 1)), 7.0)
    np.testing.assert_allclose(
        lengths(found)[found.edge_index[0] == 0], lengths(repeated)[repeated.edge_index[0] == 0], atol=1e-9
    )


def test_a_sparse_atom_does_not_widen_the_others() -> None:
    """A slab with a vacuum: only what needs a larger radius gets one."""
    example = random_crystal(6, 8)
    roomy = Crystal(example.atomic_numbers, example.positions, example.lattice * np.array([[1], [1], [6.0]]))
    assert lengths(neighbor_list(roomy, 6.0)).max() <= 6.0 + 1e-5


def test_two_atoms_on_one_place_are_named() -> None:
    with pytest.raises(CrystalError, match=r"crystal 'example': sites 1 \(Z = 8\) and 2 \(Z = 8\) lie 0.05 Å apart"):
        neighbor_list(crystal([22, 8, 8], [[0, 0, 0], [2, 0, 0], [2.05, 0, 0]], np.eye(3) * 4), 5.0)


def test_two_atoms_on_one_place_across_the_boundary() -> None:
    with pytest.raises(CrystalError, match="remove the duplicate site"):
        neighbor_list(crystal([8, 8], [[0, 0, 0], [3.999, 0, 0]], np.eye(3) * 4), 5.0)


def test_cost_is_linear_in_atoms() -> None:
    """Edges an atom stay the same, whatever the size of the cell."""
    small, large = random_crystal(7, 4), supercell(random_crystal(7, 4), (5, 5, 5))
    assert neighbor_list(large, 6.0).edge_index.shape[1] == 125 * neighbor_list(small, 6.0).edge_index.shape[1]
