"""The domain of a model: the crystals that it was trained on, so that crystals unlike all of them can be flagged.

A network gives a number for any crystal. Three questions about the training crystals tell when not to trust it: did
they contain the elements of this crystal, does its volume agree with theirs, and are its atoms as far apart as atoms of
these elements are in them? All three use ratios or counts over whole crystals, so a rotated crystal or a supercell gets
the same answer. The number of atoms in a cell is recorded but never flagged: a supercell is the same crystal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from crystalframer.crystals.arrays import BatchArrays
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.extent import directions
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.crystals.loading import PreparedCrystals, batch_ends, prepare
from crystalframer.crystals.neighbors import SMALLEST_DISTANCE
from crystalframer.elements import COVALENT_RADII, HIGHEST_ATOMIC_NUMBER, SYMBOLS
from crystalframer.errors import ConfigError

if TYPE_CHECKING:
    from crystalframer.crystals.batch import CrystalBatch

TAIL = 1e-3
"""Share of the training crystals that may lie beyond each limit: some structures are wrong."""
NEARLY_ALL = f"{1.0 - 2.0 * TAIL:.1%}"
FEW = 5
"""An element in fewer training crystals than this counts as unseen."""
ENOUGH = 100
"""An element in fewer training crystals than this gets the limits of all elements: a small sample has no sure tails."""
RADIUS = 6.0
"""Å within which the neighbours of a single crystal are searched; an atom without any gets a larger one."""
_NEAR = 4.0
"""Å within which the atoms of most crystals connect all of it; the others are looked at again."""
_ISOLATED = {0: "molecules or atoms", 1: "chains", 2: "layers"}
_EDGES_PER_BATCH = 500_000


@dataclass(frozen=True)
class Limits:
    """The values between which the training crystals lie, except for 0.1 % at each end."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check(0.0 <= self.low <= self.high < math.inf, "low", self.low, "must be from 0 to the other limit")

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}"

    def beside(self, value: float) -> tuple[str, str]:
        """A value outside the limits and the limits in words, with digits enough to see that it is outside.

        >>> Limits(0.689, 1.1578).beside(1.1591)
        ('1.159', '0.689 to 1.158')
        """
        end = self.low if value < self.low else self.high
        digits = next((n for n in range(3, 8) if f"{value:.{n}g}" != f"{end:.{n}g}"), 8)
        shown = f"{value:.{digits}g}" if value < 1000 else f"{value:,.0f}"
        return shown, f"{self.low:.{digits}g} to {self.high:.{digits}g}"


@dataclass(frozen=True)
class ElementDomain:
    """One element, as it occurs in the training crystals."""

    symbol: str
    n_crystals: int
    """Training crystals that contain it."""
    volume: float
    """Å³ of one of its atoms: a least-squares fit of the volumes of crystals as sums over their atoms."""
    nearest: Limits
    """Distance between its atoms and their nearest neighbours, divided by the sum of the two covalent radii."""

    def __post_init__(self) -> None:
        _check(self.symbol in SYMBOLS, "symbol", self.symbol, "is no element")
        _check(self.n_crystals > 0, "n_crystals", self.n_crystals, "must be above 0")
        _check(0.0 <= self.volume < math.inf, "volume", self.volume, "must be a number that is not negative")


@dataclass(frozen=True)
class Domain:
    """A summary of the crystals that a model was trained on. `Domain.of` makes it; `outside` uses it."""

    n_crystals: int
    n_atoms: tuple[int, int, int]
    """Atoms per cell: minimum, median, maximum."""
    elements: tuple[ElementDomain, ...]
    """The elements that occur, by atomic number."""
    volume: Limits
    """Volume of a crystal, divided by the sum of the volumes of its atoms."""
    nearest: Limits
    """As in `ElementDomain`, over all elements."""

    def __post_init__(self) -> None:
        """Refuse what no crystals have.

        Raises:
            ConfigError: a number that is negative or not finite, limits the wrong way round, an element twice.
        """
        smallest, median, largest = self.n_atoms
        most = max((element.n_crystals for element in self.elements), default=0)
        _check(0 < most <= self.n_crystals, "n_crystals", self.n_crystals, "must be that of the crystals")
        _check(0 < smallest <= median <= largest, "n_atoms", self.n_atoms, "must be above 0 and ascend")
        symbols = [element.symbol for element in self.elements]
        _check(len(set(symbols)) == len(symbols), "elements", symbols, "names an element twice")

    @classmethod
    def of(cls, crystals: PreparedCrystals) -> Domain:
        """The domain of a model trained on these crystals (about 5 s for 44,376 crystals on one core)."""
        geometries = list(_geometries(crystals))
        row = np.cumsum([0, *(len(geometry.volume) for geometry in geometries)])
        crystal = np.concatenate([g.crystal_index + first for g, first in zip(geometries, row, strict=False)])
        numbers, nearest = (np.concatenate([getattr(g, name) for g in geometries]) for name in ("numbers", "nearest"))
        volume = np.concatenate([geometry.volume for geometry in geometries])
        atomic_volumes = _atomic_volumes(geometries)
        filling = volume / np.bincount(crystal, atomic_volumes[numbers], len(volume))

        # One pair for each element of each crystal, so that a large cell counts no more than a small one.
        pair, pair_of_atom = np.unique(crystal * (HIGHEST_ATOMIC_NUMBER + 1) + numbers, return_inverse=True)
        closest, loneliest = np.full(len(pair), np.inf), np.zeros(len(pair))
        np.minimum.at(closest, pair_of_atom, nearest)
        np.maximum.at(loneliest, pair_of_atom, nearest)
        element = pair % (HIGHEST_ATOMIC_NUMBER + 1)
        overall = _limits(closest, loneliest)
        elements = []
        for z in np.unique(element).tolist():
            mine = element == z
            own = _limits(closest[mine], loneliest[mine]) if mine.sum() >= ENOUGH else overall
            elements.append(ElementDomain(SYMBOLS[z - 1], int(mine.sum()), round(float(atomic_volumes[z]), 3), own))
        n_atoms = crystals.n_atoms
        sizes = int(n_atoms.min()), int(np.median(n_atoms)), int(n_atoms.max())
        return cls(len(crystals), sizes, tuple(elements), _limits(filling, filling), overall)

    def outside(self, crystals: CrystalBatch | BatchArrays | ChunkedCrystal) -> list[str | None]:
        """For each crystal, a description of what lies outside the domain; None if nothing does."""
        if isinstance(crystals, ChunkedCrystal):
            geometry = _Geometry.of_chunks(crystals)
        else:
            geometry = _Geometry.of(crystals if isinstance(crystals, BatchArrays) else crystals.arrays())
        numbers, crystal, n_crystals = geometry.numbers, geometry.crystal_index, len(geometry.volume)
        counts, volumes, lowest, highest = self._known[:, numbers]
        is_strange = counts < FEW
        too_near, too_far = geometry.nearest < lowest, geometry.nearest > highest
        filling = geometry.volume / np.bincount(crystal, volumes, n_crystals)
        has_strange = np.bincount(crystal, is_strange, n_crystals) > 0
        # For an element that was hardly seen, neither volume nor distances are known.
        odd_volume = ~has_strange & ((filling < self.volume.low) | (filling > self.volume.high))
        is_odd = ~is_strange & (too_near | too_far)
        odd_distance = np.bincount(crystal, is_odd, n_crystals) > 0
        reasons: list[str | None] = [None] * n_crystals
        for row in np.flatnonzero(has_strange | odd_volume | odd_distance).tolist():
            atoms = np.flatnonzero(crystal == row)
            found = [self._about_element(z) for z in np.unique(numbers[atoms[is_strange[atoms]]]).tolist()]
            if odd_volume[row]:
                found.append(self._about_volume(float(geometry.volume[row]) / len(atoms), float(filling[row])))
            for z in np.unique(numbers[atoms[is_odd[atoms]]]).tolist():
                mine = atoms[numbers[atoms] == z]
                closest, loneliest = (int(mine[f(geometry.nearest[mine])]) for f in (np.argmin, np.argmax))
                if too_near[closest]:
                    found.append(self._about_distance(geometry, closest))
                if too_far[loneliest]:
                    found.append(self._about_distance(geometry, loneliest))
            reasons[row] = "; ".join(found)
        return reasons

    def outside_of(self, crystal: Crystal) -> str | None:
        """A description of what lies outside the domain for one crystal; None if nothing does."""
        return self.outside(prepare([crystal], RADIUS).arrays([0]))[0]

    def _about_element(self, z: int) -> str:
        count = int(self._known[0, z])
        if count == 0:
            return f"element {SYMBOLS[z - 1]} was not in the training data"
        return f"element {SYMBOLS[z - 1]} was in only {count} training crystal{'s' if count > 1 else ''}"

    def _about_volume(self, per_atom: float, filling: float) -> str:
        side = "small" if filling < self.volume.low else "large"
        share, limits = self.volume.beside(filling)
        return (
            f"volume per atom {per_atom:.3g} Å³ is {side}: {share} times what its elements take up in the training "
            f"crystals ({limits} in {NEARLY_ALL} of these)"
        )

    def _about_distance(self, geometry: _Geometry, atom: int) -> str:
        z, partner = int(geometry.numbers[atom]), int(geometry.partner[atom])
        found = float(geometry.nearest[atom])
        length = found * (COVALENT_RADII[z] + COVALENT_RADII[partner])
        symbol = SYMBOLS[z - 1]
        share, limits = Limits(*self._known[2:, z].tolist()).beside(found)
        return (
            f"{symbol} has its nearest neighbour {SYMBOLS[partner - 1]} at {length:.3g} Å, {share} of the sum of "
            f"their covalent radii ({limits} for {symbol} in {NEARLY_ALL} of the training crystals)"
        )

    @cached_property
    def _known(self) -> Float[np.ndarray, "4 n_numbers"]:
        """Number of crystals, volume, and both limits of the nearest distance of each element, by atomic number."""
        known = np.tile([[0.0], [1.0], [0.0], [np.inf]], HIGHEST_ATOMIC_NUMBER + 1)
        for element in self.elements:
            of_element = element.n_crystals, element.volume, element.nearest.low, element.nearest.high
            known[:, SYMBOLS.index(element.symbol) + 1] = of_element
        return known


def vacuum(crystals: CrystalBatch | BatchArrays | ChunkedCrystal, reach: float = RADIUS) -> list[str | None]:
    """For each crystal, what of it vacuum surrounds: layers (a slab), chains or molecules; None for bulk crystals.

    Args:
        crystals: with all edges up to the reach.
        reach: Å; atoms that are farther from each other, also by way of other atoms, do not belong together.
    """
    if isinstance(crystals, ChunkedCrystal):
        crystal, n_crystals = np.zeros(crystals.n_atoms, np.int64), 1
        parts = [
            _edges_within(reach, edges.atoms[edges.index[0]], edges.index[1], edges.image, edges.vectors)
            for edges in crystals
        ]
        edges = _Edges(*map(np.concatenate, zip(*parts, strict=True)))
    else:
        batch = crystals if isinstance(crystals, BatchArrays) else crystals.arrays()
        crystal, n_crystals = batch.crystal_index, batch.n_crystals
        query, key = batch.edge_index
        edges = _edges_within(reach, query, key, batch.edge_image, batch.edge_vectors)
    found = np.zeros(n_crystals, dtype=np.int64)
    for most in (min(_NEAR, reach), reach):
        is_left = found < 3
        atoms = np.flatnonzero(is_left[crystal])
        number = np.full(len(crystal), -1)
        number[atoms] = np.arange(len(atoms))
        chosen = np.flatnonzero((edges.length <= most) & is_left[crystal[edges.query]])
        index = np.stack([number[edges.query[chosen]], number[edges.key[chosen]]])
        rows = np.cumsum(is_left) - 1
        found[is_left] = directions(rows[crystal[atoms]], index, edges.image[chosen], int(is_left.sum()))
    return [
        None
        if n == 3
        else f"{_ISOLATED[n]} with more than {reach:g} Å of vacuum around them, unlike the training crystals"
        for n in found.tolist()
    ]


class _Edges(NamedTuple):
    query: Int[np.ndarray, " n_edges"]
    key: Int[np.ndarray, " n_edges"]
    image: Int[np.ndarray, "n_edges 3"]
    length: Float[np.ndarray, " n_edges"]


def _edges_within(
    reach: float,
    query: Int[np.ndarray, " n_edges"],
    key: Int[np.ndarray, " n_edges"],
    image: Int[np.ndarray, "n_edges 3"],
    vectors: Float[np.ndarray, "n_edges 3"],
) -> _Edges:
    length = np.sqrt(np.einsum("ei,ei->e", vectors, vectors))
    near = np.flatnonzero(length <= reach)
    return _Edges(query[near], key[near], image[near], length[near])


def _check(condition: bool, field: str, value: object, requirement: str) -> None:
    if not condition:
        raise ConfigError(requirement, field=field, value=value)


@dataclass(frozen=True, eq=False)
class _Geometry:
    """The quantities of a batch of crystals that are compared with the domain."""

    numbers: Int[np.ndarray, " n_atoms"]
    crystal_index: Int[np.ndarray, " n_atoms"]
    nearest: Float[np.ndarray, " n_atoms"]
    """Distance to the nearest neighbour, divided by the sum of the two covalent radii."""
    partner: Int[np.ndarray, " n_atoms"]
    """Atomic number of that neighbour."""
    volume: Float[np.ndarray, " n_crystals"]
    """Å³."""

    @classmethod
    def of(cls, batch: BatchArrays) -> _Geometry:
        numbers = batch.atomic_numbers
        found = _nearest(numbers, numbers, batch.edge_index, batch.edge_vectors)
        volume = np.abs(np.linalg.det(batch.lattice.astype(np.float64)))
        return cls(numbers, batch.crystal_index, *found, volume)

    @classmethod
    def of_chunks(cls, crystal: ChunkedCrystal) -> _Geometry:
        numbers = crystal.atomic_numbers.astype(np.int64)
        found = [_nearest(numbers[edges.atoms], numbers, edges.index, edges.vectors) for edges in crystal]
        nearest, partner = map(np.concatenate, zip(*found, strict=True))
        volume = np.abs(np.linalg.det(crystal.lattice[None]))
        return cls(numbers, np.zeros(len(numbers), np.int64), nearest, partner, volume)


def _nearest(
    query_numbers: Int[np.ndarray, " n_atoms"],
    key_numbers: Int[np.ndarray, " n_keys"],
    index: Int[np.ndarray, "2 n_edges"],
    vectors: Float[np.ndarray, "n_edges 3"],
) -> tuple[Float[np.ndarray, " n_atoms"], Int[np.ndarray, " n_atoms"]]:
    """For each query atom, the smallest distance divided by the sum of the radii, and Z of that neighbour."""
    query, key = index
    lengths = np.sqrt(np.einsum("ei,ei->e", vectors, vectors))
    # Edges are sorted by query atom, and every atom has some: the first is to the atom itself.
    starts = np.searchsorted(query, np.arange(len(query_numbers)))
    radii = COVALENT_RADII[query_numbers][query] + COVALENT_RADII[key_numbers][key]
    shares = np.where(lengths < SMALLEST_DISTANCE, np.inf, lengths / radii).astype(float)
    nearest = np.minimum.reduceat(shares, starts)
    hit = np.flatnonzero(shares == nearest[query])
    partner = np.empty(len(query_numbers), dtype=np.int64)
    partner[query[hit[::-1]]] = key_numbers[key[hit[::-1]]]  # written last: the first of equals
    return nearest, partner


def _geometries(crystals: PreparedCrystals) -> Iterator[_Geometry]:
    from tqdm.auto import tqdm

    ends = batch_ends([(crystals.n_edges, _EDGES_PER_BATCH)], len(crystals), len(crystals))
    with tqdm(total=len(crystals), desc="training domain", unit=" crystals", delay=2, leave=False) as bar:
        for rows in np.split(np.arange(len(crystals)), ends[:-1]):
            yield _Geometry.of(crystals.arrays(rows))
            bar.update(len(rows))


def _atomic_volumes(geometries: list[_Geometry]) -> Float[np.ndarray, " n_numbers"]:
    """Non-negative atomic volumes v (Å³, by atomic number) with the least squared relative error of Σ v = volume.

    A weak prior (a tenth of a crystal of every element alone, with the mean volume per atom) decides where the data do
    not.
    """
    from scipy.linalg import cholesky, solve_triangular
    from scipy.optimize import nnls

    n_numbers = HIGHEST_ATOMIC_NUMBER + 1
    n_atoms = sum(len(geometry.numbers) for geometry in geometries)
    mean = sum(float(geometry.volume.sum()) for geometry in geometries) / n_atoms
    products, sums = 0.01 * np.eye(n_numbers), 0.01 * np.ones(n_numbers)
    for geometry in geometries:
        shares = np.zeros((len(geometry.volume), n_numbers))
        np.add.at(shares, (geometry.crystal_index, geometry.numbers), mean / geometry.volume[geometry.crystal_index])
        products += shares.T @ shares
        sums += shares.sum(axis=0)
    factor = cholesky(products, lower=True)
    return mean * nnls(factor.T, solve_triangular(factor, sums, lower=True))[0]


def _limits(lowest: Float[np.ndarray, " n"], highest: Float[np.ndarray, " n"]) -> Limits:
    # An atom without a neighbour in reach tells no distance.
    known = [values[np.isfinite(values)] for values in (lowest, highest)]
    low, high = (
        float(np.quantile(values, tail)) if len(values) else 0.0
        for values, tail in zip(known, (TAIL, 1.0 - TAIL), strict=True)
    )
    # Rounded outwards, to the digits that the file keeps.
    return Limits(math.floor(low * 1e4) / 1e4, math.ceil(high * 1e4) / 1e4)
