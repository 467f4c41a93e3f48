"""Straight paths through the space of crystals, along which a prediction should change without steps.

A path starts a little before a place where a model may jump, and ends a little behind it: where a neighbour crosses the
reach of the attention, where two neighbours of an atom stand at right angles, and where two are equally near.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.neighbors import NeighborList, neighbor_list
from crystalframer.errors import CrystalError

PathKind = Literal["displacement", "strain", "reach", "right angle", "tie"]
PATH_KINDS: tuple[PathKind, ...] = get_args(PathKind)
LENGTH = 0.2
"""Å: how far atoms move along a path."""
FARTHEST = 0.4
"""Å: the place of interest is at most so far from the crystal that is given."""
CLOSEST = 1.0
"""Å: for the search of atoms that are too near."""
NEAR = 4.0
"""Å: neighbours in whose directions frames are likely to point."""
MOST_ALONG = 0.9
"""|cosine| of two neighbours above which they are no pair: they lie nearly on one line."""
STEP = 1e-4
"""Å: for the rate at which two neighbours change their position to each other."""
STRAIN_PER_LENGTH = 1 / 3
"""1/Å: two atoms that are 3 Å apart move as far as the path is long."""


@dataclass(frozen=True, eq=False)
class Path:
    """Crystals along a line: atoms move, and the cell is strained, in proportion to the position on the path."""

    crystal: Crystal
    kind: PathKind
    moves: Float[np.ndarray, "n_atoms 3"]
    """How far each atom moves for each Å of the path."""
    strain: Float[np.ndarray, "3 3"]
    """For each Å of the path."""
    start: float = 0.0
    """Position of the first crystal, Å. The crystal itself is at 0."""
    length: float = LENGTH
    """Å."""

    @property
    def name(self) -> str:
        return f"{self.crystal.id}, {self.kind}"

    @property
    def is_possible(self) -> bool:
        """No two atoms come so near that a crystal is refused."""
        try:
            for distance in np.linspace(0.0, self.length, 5):
                neighbor_list(self.at(float(distance)), CLOSEST, enlarge=False)
        except CrystalError:
            return False
        return True

    def at(self, distance: float) -> Crystal:
        """The crystal at this distance from the start of the path, Å."""
        position = self.start + distance
        deformed = np.eye(3) + position * self.strain
        positions = (self.crystal.positions + position * self.moves) @ deformed
        return replace(self.crystal, positions=positions, lattice=self.crystal.lattice @ deformed)


def displacement(crystal: Crystal, seed: int) -> Path:
    """Every atom moves in a random direction.

    >>> from crystalframer.analysis.paths import displacement
    >>> from crystalframer.testing import random_crystal
    >>> path = displacement(random_crystal(seed=1, n_atoms=3), seed=0)
    >>> float(abs(path.at(0.0).positions - path.crystal.positions).max())
    0.0
    """
    return Path(crystal, "displacement", _directions(crystal, seed), np.zeros((3, 3)))


def strain(crystal: Crystal, seed: int) -> Path:
    """The cell is strained in a random way; atoms move with it.

    >>> import numpy as np
    >>> from crystalframer.analysis.paths import strain
    >>> from crystalframer.testing import prototypes
    >>> path = strain(prototypes()[0], seed=0)
    >>> bool(np.allclose(path.at(0.1).frac_coords, path.crystal.frac_coords))
    True
    """
    matrix = np.random.default_rng(seed).normal(size=(3, 3))
    matrix = matrix + matrix.T
    return Path(
        crystal, "strain", np.zeros_like(crystal.positions), STRAIN_PER_LENGTH * matrix / np.linalg.norm(matrix)
    )


def through_reach(crystal: Crystal, reach: float, atom: int | None = None, pace: float = 1.0) -> Path | None:
    """The neighbour that is nearest to the distance `reach` (Å) moves through it. None: there is none near it.

    >>> import numpy as np
    >>> from crystalframer.analysis.paths import through_reach
    >>> from crystalframer.crystals.neighbors import neighbor_list
    >>> from crystalframer.testing import random_crystal
    >>> path = through_reach(random_crystal(seed=1, n_atoms=3), 5.0)
    >>> lengths = np.linalg.norm(neighbor_list(path.at(path.length / 2), 6.0).edge_vectors, axis=1)
    >>> float(abs(lengths - 5.0).min().round(9))
    0.0

    Args:
        atom: the atom whose neighbour it is; None for any.
        pace: how far it moves for each Å of the path. Small steps are seen if it moves slowly.
    """
    neighbors = neighbor_list(crystal, reach + FARTHEST, enlarge=False)
    query, key = neighbors.edge_index
    lengths = np.linalg.norm(neighbors.edge_vectors, axis=1)
    possible = (query != key) & (np.abs(lengths - reach) < FARTHEST)
    possible &= True if atom is None else query == atom
    if not possible.any():
        return None
    edge = np.where(possible, np.abs(lengths - reach), np.inf).argmin()
    moves = np.zeros_like(crystal.positions)
    moves[key[edge]] = neighbors.edge_vectors[edge] / lengths[edge]
    start = replace(crystal, positions=crystal.positions + (reach - lengths[edge]) * moves)
    return _centred(start, "reach", pace * moves, 0.0)


def through_right_angle(crystal: Crystal, seed: int) -> Path | None:
    """A neighbour moves around an atom, through a right angle with another neighbour. None: there are no such two.

    >>> from crystalframer.analysis.paths import through_right_angle
    >>> from crystalframer.testing import random_crystal
    >>> through_right_angle(random_crystal(seed=1, n_atoms=3), seed=0).name
    'random-1, right angle'
    """
    return _through_pair(crystal, "right angle", seed)


def through_tie(crystal: Crystal, seed: int) -> Path | None:
    """A neighbour moves away from an atom, and is as near as another of its element halfway. None: no such two.

    >>> from crystalframer.analysis.paths import through_tie
    >>> from crystalframer.testing import prototypes
    >>> diamond = prototypes()[3]
    >>> path = through_tie(diamond, seed=0)
    >>> bool(abs(path.at(path.length / 2).positions - diamond.positions).max() < 1e-9)
    True
    """
    return _through_pair(crystal, "tie", seed)


def _through_pair(crystal: Crystal, kind: Literal["right angle", "tie"], seed: int) -> Path | None:
    """A path halfway through which two neighbours of an atom are in this position; the seed varies which two."""
    neighbors = neighbor_list(crystal, NEAR, enlarge=False)
    for first, second in _pairs(crystal, neighbors, np.random.default_rng(seed)):
        pair = neighbors.edge_vectors[[first, second]]
        atoms = neighbors.edge_index[:, [first, second]]
        unlike = np.ptp(crystal.atomic_numbers[atoms[1]]) > 0
        if abs(_cosine(pair)) > MOST_ALONG or (kind == "tie" and unlike):
            continue
        quantity = _cosine if kind == "right angle" else _longer
        moves = np.zeros_like(crystal.positions)
        moves[atoms[1, 1]] = _towards(pair) if kind == "right angle" else pair[1] / np.linalg.norm(pair[1])
        change = moves[atoms[1]] - moves[atoms[0]]
        rate = (quantity(pair + STEP * change) - quantity(pair - STEP * change)) / (2 * STEP)
        if abs(quantity(pair)) < FARTHEST * abs(rate):
            return _centred(crystal, kind, moves, -quantity(pair) / rate)
    return None


def _cosine(pair: Float[np.ndarray, "2 3"]) -> float:
    return float(pair[0] @ pair[1] / np.prod(np.linalg.norm(pair, axis=1)))


def _longer(pair: Float[np.ndarray, "2 3"]) -> float:
    """By how much the second vector is longer, Å."""
    return float(np.diff(np.linalg.norm(pair, axis=1))[0])


def _towards(pair: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "3"]:
    """The direction at right angles to the second vector in which it turns towards the first."""
    turned = pair[0] - (pair[0] @ pair[1]) / (pair[1] @ pair[1]) * pair[1]
    return turned / np.linalg.norm(turned)


def _pairs(crystal: Crystal, neighbors: NeighborList, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Two edges of one atom, the second to another atom; atoms in a random order, of each the nearest edges first."""
    query, key = neighbors.edge_index
    for atom in rng.permutation(len(crystal)):
        edges = np.flatnonzero(query == atom)[1:9]  # the first is the atom itself
        pairs = [(int(a), int(b)) for b in edges for a in edges if a != b and key[b] != atom]
        yield from (pairs[n] for n in rng.permutation(len(pairs)))


def _centred(crystal: Crystal, kind: PathKind, moves: Float[np.ndarray, "n_atoms 3"], middle: float) -> Path:
    return Path(crystal, kind, moves, np.zeros((3, 3)), start=float(middle) - LENGTH / 2)


def _directions(crystal: Crystal, seed: int) -> Float[np.ndarray, "n_atoms 3"]:
    directions = np.random.default_rng(seed).normal(size=(len(crystal), 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)
