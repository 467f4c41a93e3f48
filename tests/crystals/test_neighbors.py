"""Neighbours by hand, by brute force, and whatever the cell; enough of them where space is empty."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
from fuzzed_structures import KINDS, case
from hypothesis import given, settings, strategies as st
from refusals import refused

from crystalframer.crystals import neighbors
from crystalframer.crystals.crystal import SMALLEST_DISTANCE, Crystal, cell_heights
from crystalframer.crystals.flat import FlatCrystals
from crystalframer.crystals.neighbors import (
    MIN_NEIGHBORS,
    MIN_SPREAD,
    SHELL,
    NeighborError,
    NeighborList,
    batch_edges,
    first_edges,
    neighbor_list,
    search,
    translations,
)
from crystalframer.errors import CrystalError
from crystalframer.testing import random_crystal, rewrapped, supercell, translated, with_cell


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


@pytest.mark.parametrize(("enough", "shells"), [(6, 6), (7, 18), (18, 18), (19, 26)])
def test_shells_are_added_until_there_are_enough(enough: int, shells: int) -> None:
    """Six neighbours at 3 Å, twelve at 4.2 Å, eight at 5.2 Å; the atom itself is none."""
    assert neighbor_list(SIMPLE_CUBIC, 3.0, enough).edge_index.shape == (2, 1 + shells)


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
    ("example", "n_neighbors", "farthest"),
    [
        # Two at 20, 22 and 25 Å each, four at 29.7 Å; the next four make twelve.
        pytest.param(crystal([2], [[0, 0, 0]], np.diag([20.0, 22.0, 25.0])), 14, np.hypot(20, 25), id="lone atom"),
        # The other atom at 1.13 and 23.87 Å, six own images at 25 Å, and four times the other beside them.
        pytest.param(crystal([6, 8], [[0, 0, 0], [0, 0, 1.13]], np.eye(3) * 25), 12, np.hypot(25, 1.13), id="molecule"),
        # Twenty in either direction until the next chains, of which four are as near.
        pytest.param(crystal([6], [[0, 0, 0]], np.diag([1.5, 30.0, 30.0])), 44, 30.0, id="chain"),
        pytest.param(
            crystal([6, 6], [[0, 0, 0], [1.42, 0, 0]], [[2.13, 1.23, 0], [2.13, -1.23, 0], [0, 0, 30]]),
            None,
            30.0,
            id="layer",
        ),
    ],
)
def test_sparse_surroundings_get_the_smallest_radius_that_is_enough(
    example: Crystal, n_neighbors: int | None, farthest: float
) -> None:
    """At least MIN_NEIGHBORS, in all three dimensions, and the same for a supercell."""
    found = neighbor_list(example, 7.0)
    for atom in range(len(example)):
        vectors = found.edge_vectors[found.edge_index[0] == atom]
        assert len(vectors) - 1 >= MIN_NEIGHBORS
        assert n_neighbors is None or len(vectors) - 1 == n_neighbors
        assert np.linalg.norm(vectors, axis=1).max() == pytest.approx(farthest, abs=1e-9)
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


def test_each_site_of_a_cluster_looks_as_far_as_it_must() -> None:
    """An octahedron and a cube about a middle, by hand: that sees all 14, enough; of the others none has six at 2.7 Å.

    Four more for each corner of the octahedron, at 2.83 Å; three for each of the cube, at 3 Å.
    """
    octahedron = 2.0 * np.concatenate([np.eye(3), -np.eye(3)])
    cube = 1.5 * np.array(list(itertools.product([1, -1], repeat=3)))
    cluster = crystal([29] * 15, [[0.0, 0.0, 0.0], *octahedron.tolist(), *cube.tolist()], np.eye(3) * 40)
    found = neighbor_list(cluster, 2.7, 6)
    assert (np.bincount(found.edge_index[0]) - 1).tolist() == [14, *[9] * 6, *[7] * 8]
    farthest = [lengths(found)[found.edge_index[0] == site].max() for site in (0, 1, 7)]
    np.testing.assert_allclose(farthest, [6.75**0.5, 8**0.5, 3.0])


def test_two_atoms_on_one_place_are_named() -> None:
    with refused(CrystalError, "crystal 'example': sites 1 (Z = 8) and 2 (Z = 8) lie 0.05 Å apart", site=1):
        neighbor_list(crystal([22, 8, 8], [[0, 0, 0], [2, 0, 0], [2.05, 0, 0]], np.eye(3) * 4), 5.0)


def test_two_atoms_on_one_place_across_the_boundary() -> None:
    with refused(CrystalError, "0.001 Å", site=0):
        neighbor_list(crystal([8, 8], [[0, 0, 0], [3.999, 0, 0]], np.eye(3) * 4), 5.0)


def test_an_atom_too_close_to_its_own_image() -> None:
    """In a cell so thin that no `Crystal` has it."""
    with refused(NeighborError, "0.05 Å", row=1) as caught:
        search(replace(FlatCrystals.of([SIMPLE_CUBIC]), lattice=np.eye(3)[None] * 0.05), 0.12)
    assert caught.value.sites == [0, 0]


def test_cost_is_linear_in_atoms() -> None:
    """Edges an atom stay the same, whatever the size of the cell."""
    small, large = random_crystal(7, 4), supercell(random_crystal(7, 4), (5, 5, 5))
    assert neighbor_list(large, 6.0).edge_index.shape[1] == 125 * neighbor_list(small, 6.0).edge_index.shape[1]


# Against trying all images


def expected(crystal: Crystal, radius: float) -> Any:
    """Edges of each atom, key atoms and images, as `neighbors._find` gives them; or the first clash."""
    tallest = max(radius, float(cell_heights(crystal.lattice).max()))
    counts, edges = [], []
    for atom in range(len(crystal)):
        for reach in itertools.chain([radius], (tallest * 1.5**n for n in itertools.count())):
            key, image, vectors, length = _sphere(crystal, atom, reach)
            for n in np.flatnonzero((length < SMALLEST_DISTANCE) & ((key != atom) | image.any(axis=1)))[:1]:
                return 0, sorted((atom, int(key[n]))), round(float(length[n]), 9)
            if (count := _n_needed(vectors, length, radius)) is not None:
                counts.append(count)
                edges.append(np.column_stack([key, image])[:count])
                break
    return np.array(counts), np.concatenate(edges)


def _sphere(crystal: Crystal, atom: int, reach: float) -> tuple[np.ndarray, ...]:
    """Key atoms, images, vectors and lengths of all edges of an atom up to this length, sorted."""
    home = np.floor(crystal.frac_coords).astype(np.int64)
    most = np.ceil(reach / cell_heights(crystal.lattice)).astype(int) + 1
    images = np.array(list(itertools.product(*(range(-n, n + 1) for n in most))))
    key = np.repeat(np.arange(len(crystal)), len(images))
    image = np.tile(images, (len(crystal), 1)) + home[atom] - home[key]
    vectors = crystal.positions[key] - crystal.positions[atom] + translations(image, crystal.lattice)
    length = np.linalg.norm(vectors, axis=1)
    near = length <= reach + 1e-6
    order = np.flatnonzero(near)[np.lexsort((*image[near].T[::-1], key[near], length[near]))]
    return key[order], image[order], vectors[order], length[order]


def _n_needed(vectors: np.ndarray, length: np.ndarray, radius: float) -> int | None:
    """Edges that an atom keeps, the shortest: those within the radius, or enough; None if there are too few."""
    others = length > SMALLEST_DISTANCE
    units = np.divide(vectors, length[:, None], out=np.zeros_like(vectors), where=others[:, None])

    def is_enough(n: int) -> bool:
        spread = np.linalg.eigvalsh(units[:n].T @ units[:n])[0]
        return bool(others[:n].sum() >= MIN_NEIGHBORS and spread >= MIN_SPREAD)

    n_within = int((length <= radius + 1e-6).sum())
    if is_enough(n_within):
        return n_within
    if not is_enough(len(length)):
        return None
    last = bisect_left(range(1, len(length) + 1), True, key=is_enough)
    return int((length <= length[last] + SHELL).sum())


def found(crystal: Crystal, radius: float) -> Any:
    try:
        return neighbors._find(FlatCrystals.of([crystal]), range(1), radius, MIN_NEIGHBORS, MIN_SPREAD)
    except NeighborError as error:
        return error.index, error.sites, round(error.value, 9)


def test_empty_space_beyond_all_measure_is_an_error() -> None:
    """A layer whose next images are 100 µm away would be given billions of neighbours in its own plane first."""
    layer = Crystal(np.array([6]), np.zeros((1, 3)), np.diag([3.0, 3.0, 1e5]), id="layer")
    with refused(NeighborError, "100,000 Å far", row=1, site=0) as caught:
        search(FlatCrystals.of([layer]), 5.0)
    assert str(caught.value.of(layer)).startswith("crystal 'layer': site 0 (Z = 6) has no neighbours")


def test_how_far_is_too_far_goes_by_the_density(monkeypatch: pytest.MonkeyPatch) -> None:
    """First as far as the longest height, then by half as far again: 4/3 π 37.5³ Å³ hold 20.08 atoms of 11,000 Å³."""
    lone = crystal([2], [[0, 0, 0]], np.diag([20.0, 22.0, 25.0]))
    monkeypatch.setattr(neighbors, "MOST_WITHIN_REACH", 21)
    assert len(neighbor_list(lone, 7.0).edge_vectors) == 15
    monkeypatch.setattr(neighbors, "MOST_WITHIN_REACH", 20)
    with refused(CrystalError, "no neighbours in all directions unless it looks 38 Å far", site=0):
        neighbor_list(lone, 7.0)


def test_the_first_site_without_neighbours_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle of a cuboctahedron in a large cell has twelve neighbours, its corners have five."""
    corners = [corner for corner in itertools.product([-2.0, 0.0, 2.0], repeat=3) if corner.count(0.0) == 1]
    cluster = crystal([29] * 13, [[0.0, 0.0, 0.0], *map(list, corners)], np.eye(3) * 40)
    monkeypatch.setattr(neighbors, "MOST_WITHIN_REACH", 50)
    with refused(CrystalError, "no neighbours in all directions unless it looks 40 Å far", site=1):
        neighbor_list(cluster, 3.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2.5, 4.5]))
def test_finds_in_order_what_trying_all_images_finds(seed: int, radius: float) -> None:
    """In any crystal: flat, thin, with a vacuum, left-handed; atoms outside the cell, and some on one place."""
    example = case(seed, sorted({*KINDS} - {"crowded"})).crystal()
    ours, theirs = found(example, radius), expected(example, radius)
    if isinstance(theirs[0], int):
        assert ours == theirs
    else:
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("side", [3.0, 4.5])
def test_finds_what_there_is_where_many_lengths_are_equal(side: float) -> None:
    """Rock salt, its atoms on the faces of the cell and all shells full of ties."""
    corners = np.array(list(itertools.product([0, 0.5], repeat=3)))
    salt = Crystal(np.array([11, 17, 17, 11, 17, 11, 11, 17]), side * corners, side * np.eye(3))
    for example in (salt, supercell(salt, (3, 3, 3)), rewrapped(salt, 0)):
        ours, theirs = found(example, 7.0), expected(example, 7.0)
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_images_of_one_atom_lie_exactly_opposite() -> None:
    found = neighbor_list(translated(random_crystal(8, 5), np.array([0.1, 7.7, -3.3])), 6.0)
    query, key = found.edge_index
    of_itself = query == key
    vectors = {
        (atom, *image): vector
        for atom, image, vector in zip(
            query[of_itself].tolist(), found.edge_image[of_itself].tolist(), found.edge_vectors[of_itself], strict=True
        )
    }
    assert len(vectors) > 20
    for (atom, a, b, c), vector in vectors.items():
        assert (vector == -vectors[atom, -a, -b, -c]).all()


@pytest.mark.parametrize("rows", [[2], [1, 0], [2, 2, 0, 1]])
def test_joined_edges_are_those_of_each_crystal(rows: list[int]) -> None:
    crystals = [random_crystal(seed, 3 + seed) for seed in range(3)]
    flat = FlatCrystals.of(crystals)
    table = search(flat, 4.0)
    index, image, vectors = batch_edges(table, flat, first_edges(table, flat), np.array(rows), np.float64)
    parts = [neighbor_list(crystals[row], 4.0) for row in rows]
    offsets = np.cumsum([0, *(len(crystals[row]) for row in rows[:-1])])
    np.testing.assert_array_equal(
        index, np.concatenate([p.edge_index + first for p, first in zip(parts, offsets, strict=True)], axis=1)
    )
    np.testing.assert_array_equal(image, np.concatenate([part.edge_image for part in parts]))
    np.testing.assert_array_equal(vectors, np.concatenate([part.edge_vectors for part in parts]))
    *_, rounded = batch_edges(table, flat, first_edges(table, flat), np.array(rows), np.float32)
    np.testing.assert_array_equal(rounded, vectors.astype(np.float32), strict=True)


@pytest.mark.parametrize("cores", [1, 3])
def test_in_tasks_and_threads_the_same_and_the_first_bad_crystal_is_named(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors.os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    crystals = [random_crystal(seed, 3 + seed) for seed in range(6)]
    whole = search(FlatCrystals.of(crystals), 4.0)
    monkeypatch.setattr(neighbors, "_ATOMS_PER_TASK", 1)
    table = search(FlatCrystals.of(crystals), 4.0)
    for name in ("edges_per_atom", "key_atom", "edge_image"):
        np.testing.assert_array_equal(getattr(table, name), getattr(whole, name))
    crystals[3] = crystals[5] = crystal([8, 8], [[0, 0, 0], [0.05, 0, 0]], np.eye(3) * 4)
    with refused(NeighborError, "0.05 Å", row=4) as caught:
        search(FlatCrystals.of(crystals), 4.0)
    assert (caught.value.index, caught.value.sites) == (3, [0, 1])


@pytest.mark.parametrize(
    ("allowed", "cores", "threads"), [(3, 8, [3]), (1, 8, []), (None, 2, [2]), (None, 1, []), (None, None, [])]
)
def test_as_many_threads_as_cores_that_it_may_use(
    allowed: int | None, cores: int | None, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None where it has one; macOS and Windows do not say which of them a process may use."""
    pool = Mock(wraps=ThreadPoolExecutor)
    monkeypatch.setattr(neighbors, "ThreadPoolExecutor", pool)
    monkeypatch.setattr(neighbors, "_ATOMS_PER_TASK", 5)
    monkeypatch.setattr(neighbors.os, "cpu_count", lambda: cores)
    if allowed is None:
        monkeypatch.delattr(neighbors.os, "sched_getaffinity", raising=False)
    else:
        monkeypatch.setattr(neighbors.os, "sched_getaffinity", lambda process: set(range(allowed)), raising=False)
    search(FlatCrystals.of([random_crystal(seed, 5) for seed in range(4)]), 3.0)
    search(FlatCrystals.of([random_crystal(0, 5)]), 3.0)  # a single task
    assert [call.args[0] for call in pool.call_args_list] == threads


def test_the_progress_bar_counts_crystals(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = MagicMock()
    monkeypatch.setattr("tqdm.auto.tqdm", bar)
    monkeypatch.setattr(neighbors, "_ATOMS_PER_TASK", 10)
    search(FlatCrystals.of([random_crystal(seed, 3) for seed in range(7)]), 3.0, title="sought")
    bar.assert_called_once_with(total=7, desc="sought", unit=" crystals", delay=2, leave=False)
    assert sum(call.args[0] for call in bar.return_value.__enter__.return_value.update.call_args_list) == 7


def test_no_crystals_have_no_neighbours() -> None:
    table = search(FlatCrystals.of([]), 4.0)
    assert (len(table.edges_per_atom), len(table.key_atom), table.edge_image.shape) == (0, 0, (0, 3))


@pytest.mark.parametrize(("cells", "image_type"), [(126, np.int8), (-127, np.int8), (127, np.int32), (-128, np.int32)])
def test_a_table_is_kept_in_the_smallest_types(cells: int, image_type: type) -> None:
    """Also of an atom that is written many cells away: its neighbours' images count from there."""
    home = crystal([11, 17], [[0, 0, 0], [2, 2, 2]], np.eye(3) * 4)
    away = crystal([11, 17], [[0, 0, 0], [2 + 4 * cells, 2, 2]], np.eye(3) * 4)
    table = search(FlatCrystals.of([away]), 4.0)
    assert (table.key_atom.dtype, table.edge_image.dtype) == (np.int16, image_type)
    expected = neighbor_list(home, 4.0)
    query, key = expected.edge_index
    shift = (key - query)[:, None] * [cells, 0, 0]
    np.testing.assert_array_equal(neighbor_list(away, 4.0).edge_image, expected.edge_image - shift)


def test_a_large_crystal_counts_its_atoms_in_32_bits() -> None:
    """33 x 32 x 32 atoms, each with six neighbours."""
    places = 3.0 * np.array(list(itertools.product(range(33), range(32), range(32))))
    large = Crystal(np.full(len(places), 84), places, np.diag([99.0, 96.0, 96.0]))
    table = search(FlatCrystals.of([large]), 3.0, 6)
    assert table.key_atom.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(table.key_atom), np.full(len(places), 7))
