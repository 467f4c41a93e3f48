"""In how many directions a crystal extends: three in a bulk crystal, two in a layer that vacuum surrounds, ..."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


def directions(
    crystal_index: Int[np.ndarray, " n_atoms"],
    index: Int[np.ndarray, "2 n_edges"],
    image: Int[np.ndarray, "n_edges 3"],
    n_crystals: int,
) -> Int[np.ndarray, " n_crystals"]:
    """The number of independent directions in which edges connect atoms with their own periodic images.

    3: all is connected. 2: layers, 1: chains, 0: molecules, with no edge between them and their images. A crystal of
    several parts has that of the part with the fewest. The same for every cell of a crystal. Walks from atom to atom
    give each atom a place, as a number of lattice translations; where an edge ends at another place of the same atom,
    the difference is a translation along which the part goes on, and the rank of all these is the number of directions
    (Mounet et al., Nature Nanotechnology 13, 246 (2018)).

    Example:
        >>> two_atoms, chain = np.zeros(2, dtype=int), np.array([[0, 1, 0, 1], [1, 0, 1, 0]])
        >>> along_a = np.array([[0, 0, 0], [0, 0, 0], [-1, 0, 0], [1, 0, 0]])
        >>> directions(two_atoms, chain, along_a, n_crystals=1)
        array([1])

    Args:
        crystal_index: which crystal each atom belongs to; ascending.
        index: query and key atom of each edge. Each edge must be there in both directions.
        image: lattice translation of the key atom.
    """
    query, key = index
    n_atoms = len(crystal_index)
    part = np.full(n_atoms, -1)
    place = np.zeros((n_atoms, 3), dtype=np.int64)
    crystal_of_part: list[int] = []
    while (alone := np.flatnonzero(part < 0)).size:
        crystals, first = np.unique(crystal_index[alone], return_index=True)
        part[alone[first]] = len(crystal_of_part) + np.arange(len(crystals))
        crystal_of_part += crystals.tolist()
        left = np.flatnonzero(part[key] < 0)  # edges to atoms that no walk has reached
        while (step := left[part[query[left]] >= 0]).size:
            reached, by = np.unique(key[step], return_index=True)
            step = step[by]
            place[reached] = place[query[step]] + image[step]
            part[reached] = part[query[step]]
            left = left[part[key[left]] < 0]
    difference = (place[query] + image - place[key]).astype(np.float64)
    of_part = part[query]
    products = np.zeros((len(crystal_of_part), 3, 3))
    for row in range(3):
        for column in range(row + 1):
            found = np.bincount(of_part, difference[:, row] * difference[:, column], len(crystal_of_part))
            products[:, row, column] = products[:, column, row] = found
    found = np.full(n_crystals, 3)
    np.minimum.at(found, crystal_of_part, np.linalg.matrix_rank(products, hermitian=True))
    return found
