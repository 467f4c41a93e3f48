"""Symmetry of a scene for its list of atoms and the choice of its cell, found by spglib."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from viz.scene import Scene

TOLERANCE = 0.01
"""Å. Atoms that a symmetry operation brings this near to each other are equivalent."""


@dataclass(frozen=True, eq=False)
class UniqueSite:
    """Atoms that symmetry makes equivalent."""

    name: str
    """Element and Wyckoff letter with multiplicity: `O 4f`. Without symmetry, the label of the atom."""
    atoms: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class CellChoice:
    """A cell in which a crystal can be drawn."""

    name: str
    vectors: Float[np.ndarray, "3 3"]
    """Rows a, b, c in units of the given lattice vectors."""
    origin: Float[np.ndarray, "3"]
    """In units of the given lattice vectors."""


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Space group, unique sites and cells."""

    space_group: str
    """Hermann-Mauguin symbol and number; empty if it was not found."""
    sites: tuple[UniqueSite, ...]
    cells: tuple[CellChoice, ...]
    """The given cell first, then the conventional and the primitive cell where they differ from it."""


def symmetry(scene: Scene) -> Symmetry:
    """The symmetry of the crystal. A region, or a crystal that spglib cannot handle, has none.

    Example:
        >>> found = symmetry(scene)
        >>> found.space_group, [site.name for site in found.sites]
        ('Pm-3m (221)', ['Sr 1a', 'Ti 1b', 'O 3c'])
    """
    given = CellChoice("as given", np.eye(3), np.zeros(3))
    dataset = None if scene.is_region else _dataset(scene)
    if dataset is None:
        alone = (UniqueSite(label, (n,)) for n, label in enumerate(scene.labels[: scene.n_queries]))
        return Symmetry("", tuple(alone), (given,))
    conventional = np.linalg.inv(dataset.transformation_matrix)
    origin = -conventional @ dataset.origin_shift
    centring = _primitive(scene, conventional.T)
    cells = [given]
    for name, vectors in (("conventional", conventional.T), ("primitive", centring)):
        if vectors is not None and not any(_is_same(vectors, cell.vectors, scene.lattice) for cell in cells):
            cells.append(CellChoice(name, vectors, origin - np.floor(origin + 1e-6)))
    return Symmetry(f"{dataset.international} ({dataset.number})", _sites(scene, dataset), tuple(cells))


def _cell(scene: Scene) -> tuple[Any, Any, Any]:
    frac = scene.positions @ np.linalg.inv(scene.lattice)
    return scene.lattice, frac - np.floor(frac), scene.atomic_numbers


def _dataset(scene: Scene) -> Any:
    import spglib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # how spglib 2 announces that a failure will be an error
        try:
            return spglib.get_symmetry_dataset(_cell(scene), symprec=TOLERANCE)
        except spglib.SpglibError:
            return None


def _primitive(scene: Scene, conventional: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"] | None:
    import spglib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = spglib.standardize_cell(_cell(scene), to_primitive=True, no_idealize=True, symprec=TOLERANCE)
    if found is None:
        return None
    vectors = np.asarray(found[0]) @ np.linalg.inv(scene.lattice)
    # It must consist of lattice vectors of the conventional cell, or of halves and thirds of them.
    parts = 6 * vectors @ np.linalg.inv(conventional)
    return vectors if np.abs(parts - np.rint(parts)).max() < 0.05 else None


def _is_same(
    first: Float[np.ndarray, "3 3"], second: Float[np.ndarray, "3 3"], lattice: Float[np.ndarray, "3 3"]
) -> bool:
    """Whether two cells have the same volume and the same lengths."""
    sizes = [
        np.append(np.sort(np.linalg.norm(cell @ lattice, axis=1)), abs(np.linalg.det(cell))) for cell in (first, second)
    ]
    return bool(np.allclose(*sizes, rtol=1e-3))


def _sites(scene: Scene, dataset: Any) -> tuple[UniqueSite, ...]:
    # spglib counts in the given cell; a Wyckoff symbol counts in the conventional one.
    per_cell = len(dataset.std_types) / scene.n_atoms
    sites = []
    for first in dict.fromkeys(dataset.crystallographic_orbits.tolist()):
        atoms = np.flatnonzero(dataset.crystallographic_orbits == first)
        count = round(len(atoms) * per_cell)
        name = f"{scene.elements[atoms[0]].symbol} {count}{dataset.wyckoffs[atoms[0]]}"
        sites.append(UniqueSite(name, tuple(atoms.tolist())))
    return tuple(sites)
