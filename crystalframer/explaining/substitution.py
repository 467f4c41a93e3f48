"""Substitution: the prediction with other elements on a site, at the same geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.symmetry import equivalent_sites
from crystalframer.elements import ATOMIC_NUMBERS, COVALENT_RADII, HIGHEST_ATOMIC_NUMBER, SYMBOLS
from crystalframer.errors import ConfigError, suggestion
from crystalframer.explaining.attribution import SAME_SITE
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import predict, ready
from crystalframer.reading.inputs import read

if TYPE_CHECKING:
    import pandas


def substitute(
    structure: Any,
    model: CrystalFramer | str | Path | None = None,
    *,
    sites: Sequence[int],
    elements: Sequence[str] | None = None,
    orbit: bool = False,
    adapt_volume: bool = False,
    device: torch.device | str | None = None,
) -> pandas.DataFrame:
    """Predict a crystal with other elements on some of its sites.

    >>> import crystalframer as cf
    >>> from crystalframer.testing import prototypes
    >>> table = cf.substitute(prototypes()[4], sites=[0], elements=["Na", "K", "Rb"], orbit=True)
    >>> table[["element", "formula"]].values.tolist()
    [['Na', 'NaCl'], ['K', 'KCl'], ['Rb', 'RbCl']]

    Args:
        structure: a structure, or the path of a file with one (see `read`).
        model: a model, or the path of one. Default: the weights that come with the package.
        sites: atoms that are replaced together, counted from 0.
        elements: symbols of the elements that take their place. Default: all that the model knows, H to Cf.
        orbit: also replace all atoms that symmetry maps onto these.
        adapt_volume: scale the cell so that the volume changes as the sum of the cubes of the covalent radii. Default:
            the geometry stays.
        device: where to compute, as in `predict`.

    Returns:
        A table as from `predict`, one row for each element in their order, with the columns `element` and
        `is_original` (the crystal as it was) first: intervals, and the flag of what is unlike the training data, are
        those of the substituted crystal.

    Raises:
        ConfigError: there is no such element.
        CrystalError: there is no such site.
        CheckpointError: the model cannot be loaded.
    """
    model = ready(model, device)
    crystal = read(structure)
    known = SYMBOLS[:HIGHEST_ATOMIC_NUMBER]
    chosen = list(known) if elements is None else list(elements)
    for symbol in chosen:
        if symbol not in known:
            raise ConfigError(f"is no element{suggestion(symbol, known)}", field="elements", value=symbol)
    replaced = _replaced(crystal, sites, orbit)
    variants = [_with_element(crystal, replaced, ATOMIC_NUMBERS[symbol], adapt_volume) for symbol in chosen]
    table = predict(variants, model, progress=False)
    original = [bool((variant.atomic_numbers == crystal.atomic_numbers).all()) for variant in variants]
    table.insert(0, "element", chosen)
    table.insert(1, "is_original", original)
    return table


def _replaced(crystal: Crystal, sites: Sequence[int], orbit: bool) -> np.ndarray:
    crystal.check_sites(sites)
    asked = np.unique(np.asarray(sites, dtype=np.int64))
    if not orbit:
        return asked
    groups = equivalent_sites(crystal.lattice, crystal.positions, crystal.atomic_numbers, SAME_SITE)
    return np.flatnonzero(np.isin(groups, groups[asked]))


def _with_element(crystal: Crystal, sites: np.ndarray, number: int, adapt_volume: bool) -> Crystal:
    numbers = crystal.atomic_numbers.copy()
    numbers[sites] = number
    scale = 1.0
    if adapt_volume:
        before, after = ((COVALENT_RADII[each] ** 3).sum() for each in (crystal.atomic_numbers, numbers))
        scale = float((after / before) ** (1 / 3))
    positions, lattice = scale * crystal.positions, scale * crystal.lattice
    name = f"{crystal.id}, {SYMBOLS[number - 1]}".removeprefix(", ")
    return replace(crystal, atomic_numbers=numbers, positions=positions, lattice=lattice, targets={}, id=name)
