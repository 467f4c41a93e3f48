"""Parts of a data set that are drawn with a seed: by chance, or so that whole kinds of crystals are left out.

The draw depends on the seed and on the crystals, not on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64, Shaped

from crystalframer.config import DataConfig
from crystalframer.elements import ATOMIC_NUMBERS, HIGHEST_ATOMIC_NUMBER, SYMBOLS
from crystalframer.errors import DataError

if TYPE_CHECKING:
    from crystalframer.datasets.dataset import CrystalDataset

Parts = Shaped[np.ndarray, " n_crystals"]
"""`train`, `validation` or `test`."""

KEYS: Mapping[str, Callable[[CrystalDataset], Shaped[np.ndarray, " n_crystals"]]] = {
    "group": lambda data: data.formulas,
    "chemical-system": lambda data: data.chemical_systems,
    "prototype": lambda data: data.prototypes,
    "space-group": lambda data: data.space_groups,
}
"""Split → what the crystals that stay in one part have in common."""


def drawn_parts(data: CrystalDataset, config: DataConfig, seed: int) -> Parts:
    """The part of each crystal. Crystals that are the same are in one part.

    Raises:
        DataError: a part that was asked for would be empty, no crystal has an element that was named, or the data set
            has no such target.
    """
    sizes = _sizes(config, len(data))
    if config.split == "element":
        return _element_parts(data, config, sizes, seed)
    if config.split == "property-tail":
        return _tail_parts(data, config, sizes, seed)
    keys = KEYS[config.split](data) if config.split in KEYS else None
    return _drawn(data.ids if keys is None else keys, data.duplicates if keys is None else None, sizes, config, seed)


def _sizes(config: DataConfig, n_crystals: int) -> dict[str, int]:
    """Largest number of crystals in each part that was asked for, apart from training."""
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    return {name: max(1, round(fraction * n_crystals)) for name, fraction in fractions.items() if fraction}


def _drawn(
    keys: Shaped[np.ndarray, " n_crystals"],
    groups: Int64[np.ndarray, " n_crystals"] | None,
    sizes: Mapping[str, int],
    config: DataConfig,
    seed: int,
) -> Parts:
    """Draw a part for each key. The first key of a group that is drawn decides for all of the group.

    Args:
        groups: crystals that stay together. Default: those with the same key.
    """
    _, first_row, key_index = np.unique(keys.astype(str), return_index=True, return_inverse=True)
    groups = key_index if groups is None else groups
    members = np.bincount(groups)
    free = dict(sizes)
    part_of_group = np.full(len(members), None, dtype=object)
    for group in groups[first_row[np.random.default_rng(seed).permutation(len(first_row))]]:
        if part_of_group[group] is None:
            part = next((name for name in free if members[group] <= free[name]), "train")
            part_of_group[group] = part
            if part in free:
                free[part] -= int(members[group])
    for name, size in sizes.items():
        if free[name] == size:
            n_groups = np.count_nonzero(members)
            raise _empty(name, config, f"{len(keys)} crystals in {n_groups} groups, room for {size} in this part")
    return part_of_group[groups]


def _element_parts(data: CrystalDataset, config: DataConfig, sizes: Mapping[str, int], seed: int) -> Parts:
    """The test part: all crystals that contain one of some elements. So is the validation part, with other elements."""
    contains = np.zeros((len(data), HIGHEST_ATOMIC_NUMBER + 1), dtype=bool)
    contains[np.repeat(np.arange(len(data)), data.n_atoms), data.atomic_numbers] = True
    elements = np.random.default_rng(seed).permutation(np.flatnonzero(contains.any(axis=0)))
    parts = np.full(len(data), "train", dtype=object)
    # All of the test part first: its elements are in no crystal of the others.
    for name in ("test", "validation"):
        if name == "test" and config.test_elements:
            parts[contains[:, _named(config, contains)].any(axis=1)] = name
        elif name in sizes:
            free = sizes[name]
            for z in elements:
                rows = np.flatnonzero(contains[:, z] & (parts == "train"))
                if len(rows) <= free:
                    parts[rows] = name
                    free -= len(rows)
            if free == sizes[name]:
                raise _empty(name, config, f"each of {len(elements)} elements is in more than {free} crystals")
    return parts


def _named(config: DataConfig, contains: Shaped[np.ndarray, "n_crystals n_numbers"]) -> list[int]:
    """Atomic numbers of the elements of the test part."""
    numbers = [ATOMIC_NUMBERS[symbol] for symbol in config.test_elements]
    for symbol, z in zip(config.test_elements, numbers, strict=True):
        if not contains[:, z].any():
            there = ", ".join(SYMBOLS[other - 1] for other in np.flatnonzero(contains.any(axis=0)))
            message = f"no crystal of the data set contains {symbol}; its elements are {there}"
            raise DataError(message, field="test_elements", value=symbol)
    return numbers


def _tail_parts(data: CrystalDataset, config: DataConfig, sizes: Mapping[str, int], seed: int) -> Parts:
    """The test part: the highest labels. The validation part is drawn from the rest, as in a random split."""
    name = config.tail_target or next(iter(data.targets), "")
    target = data.target(name)
    labels = np.where(np.isnan(data.targets[name]), -np.inf, data.targets[name])
    # Crystals that are the same go where the highest label of them belongs.
    highest = np.full(int(data.duplicates.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(highest, data.duplicates, labels)
    labels = highest[data.duplicates]
    # Crystals with one label stay together, too: the threshold lies between two labels.
    values, n_crystals = np.unique(labels[np.isfinite(labels)], return_counts=True)
    threshold = values[n_crystals[::-1].cumsum()[::-1] <= sizes["test"]]
    if not len(threshold):
        most = f"{n_crystals[-1]} crystals have the highest" if len(values) else "no crystal has a"
        raise _empty("test", config, f"{most} label of {target.label}, room for {sizes['test']} in this part")
    is_test = labels >= threshold[0]
    parts = np.full(len(data), "test", dtype=object)
    rest = {part: size for part, size in sizes.items() if part != "test"}
    parts[~is_test] = _drawn(data.ids[~is_test], data.duplicates[~is_test], rest, config, seed)
    return parts


def _empty(part: str, config: DataConfig, why: str) -> DataError:
    message = f"the {part} part of a {config.split!r} split would be empty ({why}); raise {part}_fraction or choose "
    return DataError(f"{message}another split", field=part)
