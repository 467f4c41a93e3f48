"""The labels and crystals of a data set by which a model is scored. Needs no model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from crystalframer.config import LOGARITHM, Target
from crystalframer.datasets.dataset import PARTS, CrystalDataset
from crystalframer.datasets.sources import dataset
from crystalframer.datasets.used import UsedCrystals
from crystalframer.errors import DataError, UnknownTarget

Part = Literal["train", "validation", "test"]
ALIKE = 0.8
"""Similarity of names (`difflib`) from which on a label is thought to be misspelt."""


def labelled_targets(data: CrystalDataset | str | Path, targets: Sequence[Target]) -> CrystalDataset:
    """The data set with those targets of a model that it has.

    Raises:
        DataError: it has none of them, or the name of a label is nearly that of a target.
    """
    data = data if isinstance(data, CrystalDataset) else _with_classes(data, targets)
    names = [target.name for target in targets]
    known = [target for target in targets if target.name in data.targets]
    others = [name for name in data.targets if not {name, LOGARITHM + name} & {*names}]
    for name in names:
        if name not in data.targets and difflib.get_close_matches(name, others, cutoff=ALIKE):
            data.target(name)  # raises, and names it
    if not known:
        message = f"the data set has no label that the model predicts; it needs one of {', '.join(names)}"
        raise DataError(message, field="targets")
    return data.with_targets(known)


def _with_classes(source: str | Path, targets: Sequence[Target]) -> CrystalDataset:
    """The data set, with columns of text that are classes of the model: text is a label only where it is asked for."""
    data = dataset(source)
    for target in targets:
        if target.is_class and target.name not in data.targets:
            with suppress(UnknownTarget):
                data = dataset(source, targets=[*map(data.target, data.targets), target])
    return data


def part_of(data: CrystalDataset, part: Part, used: UsedCrystals | None) -> CrystalDataset:
    """A part of the data set: by its own split, or else by that of the run that trained the model.

    Raises:
        DataError: it has no such part, or no crystal in it.
    """
    if data.parts is None and used is not None:
        chosen = data.select(used.find(data).of(part))
        if not len(chosen):
            message = f"the data set holds no crystal of the {part} part of the run; choose another part"
            raise DataError(message, field="part", value=part)
        return chosen
    if data.parts is None:
        raise DataError(
            f"the data set has no {part} part, because it has no split of its own (a column `split` with "
            f"{', '.join(PARTS)}); use all of it",
            field="part",
            value=part,
        )
    chosen = data.select(data.parts == part)
    if not len(chosen):
        raise DataError(f"the {part} part of the data set is empty; choose another part", field="part", value=part)
    return chosen
