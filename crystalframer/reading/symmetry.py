"""All atoms of a cell from those of an asymmetric unit."""

from __future__ import annotations

import gemmi
import numpy as np
from jaxtyping import Float, Int

from crystalframer.errors import CrystalError

SAME = 0.02
"""Å. Images of a site that are nearer are one atom on a special position: files round coordinates to 0.001 Å."""
DISTINCT = 0.4
"""Å. Images between this and `SAME` are neither one atom nor two."""
_MOST_IMAGES = 1_000_000


def expanded(
    frac: Float[np.ndarray, "n_sites 3"],
    operations: Float[np.ndarray, "n_operations 3 4"],
    lattice: Float[np.ndarray, "3 3"],
) -> tuple[Int[np.ndarray, " n_atoms"], Float[np.ndarray, "n_atoms 3"], Int[np.ndarray, " n_sites"]]:
    """The atoms of a cell, site by site. What is rounded from a special position is put there.

    Args:
        operations: all of the group, rotation and translation in fractional coordinates.

    Returns:
        The site of each atom, its fractional coordinates, and the number of operations that leave each site in place.

    Raises:
        CrystalError: a site is close to a special position without being there, or there are too many images.
    """
    if len(frac) * len(operations) > _MOST_IMAGES:
        raise CrystalError(f"{len(frac):,} sites and {len(operations)} symmetry operations make too many atoms")
    places = [_images(site, place, operations, lattice) for site, place in enumerate(frac)]
    sites = np.repeat(np.arange(len(frac)), [len(images) for images in places])
    orders = np.array([len(operations) // len(images) for images in places], dtype=np.int64)
    return sites, np.concatenate([np.empty((0, 3)), *places]), orders


def lattice_of(cell: gemmi.UnitCell) -> Float[np.ndarray, "3 3"]:
    """Rows a, b, c, Å."""
    return np.array(cell.orth.mat.tolist()).T


def seitz(operations: gemmi.GroupOps) -> Float[np.ndarray, "n_operations 3 4"]:
    return np.array([operation.float_seitz()[:3] for operation in operations])


def _images(
    site: int,
    place: Float[np.ndarray, "3"],
    operations: Float[np.ndarray, "n_operations 3 4"],
    lattice: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, "n_images 3"]:
    moved = operations[:, :, :3] @ place + operations[:, :, 3] - place
    moved -= np.round(moved)
    lengths = np.linalg.norm(moved @ lattice, axis=1)
    stays = lengths < SAME
    images = operations[:, :, :3] @ (place + moved[stays].mean(axis=0)) + operations[:, :, 3]
    between = images[:, None] - images
    is_same = np.linalg.norm((between - np.round(between)) @ lattice, axis=2) < SAME
    kept = np.unique(is_same.argmax(axis=1))
    if len(kept) * stays.sum() != len(operations) or ((lengths >= SAME) & (lengths < DISTINCT)).any():
        length = lengths[~stays].min()
        problem = f"lies {length:.2g} Å from its image by symmetry: on a special position, or beside it?"
        raise CrystalError(f"site {site} {problem} Correct its coordinates", site=site)
    return images[kept]
