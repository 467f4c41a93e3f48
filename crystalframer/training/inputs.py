"""The data of a run: labelled crystals of the three parts with their neighbours, and whether they fit into memory."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from crystalframer import checkpoint, memory
from crystalframer.config import Config, Target
from crystalframer.crystals.loading import BatchOrder, PreparedCrystals, prepare, train_loader
from crystalframer.datasets import sources
from crystalframer.datasets.classes import ordered
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.datasets.used import TRAINED
from crystalframer.elements import SYMBOLS
from crystalframer.errors import ConfigError, CrystalError, DataError, Setting


def load_splits(config: Config, data: Splits | CrystalDataset | None) -> Splits:
    """The three parts, of `config.data.source` if no data are given."""
    if data is None:
        data = sources.dataset_of(config)
    if isinstance(data, Splits):
        _announce_known(data)
        return data
    splits = data.split(config.data, config.training.seed)
    _announce_large_crystals(config, data, splits)
    if config.data.split == "given":
        _announce_known(splits)
    else:
        _announce_duplicates(data)
    if config.data.split == "element":
        _announce_elements(splits)
    return splits


def targets_in(splits: Splits, targets: Sequence[Target]) -> list[Target]:
    """The targets with the classes that the parts have together: a part may lack some.

    Raises:
        DataError: as `CrystalDataset.with_targets`.
    """
    parts = [part for part in (splits.train, splits.validation, splits.test) if len(part)]
    known = []
    for target in targets:
        found = [part.with_targets([target]).target(target.name) for part in parts]
        classes = dict.fromkeys(each.classes for each in found if each.is_class)
        if len(classes) > 1:
            classes = [ordered(name for names in classes for name in names)]
        known += [Target(target.name, kind="class", classes=names) for names in classes] or [target]
    return known


def with_classes(config: Config, known: Sequence[Target]) -> Config:
    """The config with classes for its targets that name none, from known targets of the same names."""
    by_name = {target.name: target for target in known if target.is_class}
    targets = tuple(target if target.classes else by_name.get(target.name, target) for target in config.model.targets)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, targets=targets))


def prepare_parts(config: Config, data: Splits) -> dict[str, PreparedCrystals]:
    """Labelled crystals of the three parts with their neighbours; no test part if it would be empty."""
    parts = {}
    for name in ("train", "validation", "test"):
        labelled = getattr(data, name).with_targets(config.model.targets).labelled()
        if len(labelled):
            parts[name] = prepare(
                labelled,
                config.model.radius,
                config.model.target_names,
                name,
                enlarge=config.model.enlarges_radius,
            )
        elif name != "test":
            raise DataError(
                f"the {name} part has no crystal with a label of {', '.join(config.model.target_names)}; "
                "choose another split or other targets"
            )
    return parts


def _announce_large_crystals(config: Config, data: CrystalDataset, splits: Splits) -> None:
    """Report how many training crystals `max_atoms_per_crystal` leaves out, because scores depend on it."""
    limit = config.data.max_atoms_per_crystal
    if limit is None:
        return
    everything = data.split(dataclasses.replace(config.data, max_atoms_per_crystal=None), config.training.seed)
    if len(splits.train) < len(everything.train):
        print(
            f"{len(splits.train):,} of {len(everything.train):,} training crystals have at most {limit} atoms "
            "(data.max_atoms_per_crystal); larger ones are left out of training and validation, not of the test",
            file=sys.stderr,
        )


def _announce_known(splits: Splits) -> None:
    """Report crystals outside the training part that are the same as some in it, once for the runs of a study."""
    if "n_known" not in vars(splits) and splits.n_known:
        n_scored = len(splits.validation) + len(splits.test)
        print(
            f"{splits.n_known:,} of {n_scored:,} crystals of the validation and test parts are the same as training "
            "crystals; the given split stays as it is, and scores may be too good",
            file=sys.stderr,
        )


def _announce_duplicates(data: CrystalDataset) -> None:
    """Report crystals that are the same, which a drawn split keeps together."""
    n_members = np.bincount(data.duplicates)
    n_members = n_members[n_members > 1]
    if len(n_members):
        print(
            f"{int(n_members.sum()):,} of {len(data):,} crystals are {len(n_members):,} different ones under several "
            "ids; the split keeps those that are the same in one part",
            file=sys.stderr,
        )


def _announce_elements(splits: Splits) -> None:
    """Report the elements that the test and the validation part have, and the training part has not."""
    trained = np.unique(splits.train.atomic_numbers)
    for name in ("test", "validation"):
        part: CrystalDataset = getattr(splits, name)
        symbols = [SYMBOLS[z - 1] for z in np.setdiff1d(part.atomic_numbers, trained)]
        if symbols:
            print(
                f"{len(part):,} {name} crystals; no training crystal has one of their elements {', '.join(symbols)}",
                file=sys.stderr,
            )


def announce_lone_crystals(config: Config, crystals: PreparedCrystals) -> None:
    """Report crystals that exceed a limit of batches: a limit that is too low costs time."""
    for name, sizes in (("max_atoms", crystals.n_atoms), ("max_edges", crystals.n_edges)):
        limit = getattr(config.training, name)
        n_alone = 0 if limit is None else int((sizes > limit).sum())
        if n_alone:
            print(
                f"{n_alone:,} of {len(crystals):,} training crystals exceed training.{name} = {limit:,}; "
                "each of them is a batch by itself",
                file=sys.stderr,
            )


def announce_earlier_crystals(config: Config, parts: Mapping[str, PreparedCrystals]) -> None:
    """Report crystals outside the training part that trained the weights from which the run starts."""
    weights = config.training.initial_weights
    if weights is None:
        return
    used = checkpoint.used_by(weights)
    if used is None or used.unknown_start:
        print(
            f"{weights} does not say which crystals trained it; errors on those are too small, also in the test part",
            file=sys.stderr,
        )
    if used is None:
        return
    for name in ("validation", "test"):
        flat = parts[name].flat if name in parts else None
        n_known = int(np.isin(used.find(flat).role, TRAINED).sum()) if isinstance(flat, CrystalDataset) else 0
        if n_known:
            print(
                f"{n_known:,} of {len(parts[name]):,} {name} crystals trained the weights that this run starts from; "
                "errors on them are too small",
                file=sys.stderr,
            )


def check_memory(config: Config, parts: Mapping[str, PreparedCrystals], device: torch.device, n_ranks: int) -> None:
    """Check that the largest crystal of each part, and the largest share of a batch, fit into the memory of the device.

    Raises:
        CrystalError: a crystal does not.
        ConfigError: a share, or what one device calibrates the model with, does not.
    """
    training = config.training
    for name, part in parts.items():
        row = int(part.n_edges.argmax())
        sizes = int(part.n_atoms[row]), int(part.n_edges[row])
        missing = memory.shortage(config.model, *sizes, device, torch.float32, name == "train")
        if missing:
            limit = Setting("data.max_atoms_per_crystal")
            advice = ["remove it"] if name == "test" else ["leave out such crystals with ", limit]
            raise CrystalError(
                f"crystal {part.ids[row]!r} of the {name} part does not fit into memory: its {missing}; ",
                *advice,
                ", or train on a device with more memory, or a model with fewer heads or layers",
            )
    order, shares = _order_and_shares(config, parts["train"], n_ranks)
    missing = _shortage(config, parts["train"], shares, device)
    if missing:
        raise ConfigError(
            f"a batch does not fit into memory: {missing}; lower ",
            Setting("training.max_edges", training.max_edges),
            " or ",
            Setting("training.batch_size", training.batch_size),
            " (and raise ",
            Setting("training.accumulate"),
            " in return), or raise ",
            Setting("training.n_pieces", training.n_pieces),
        )
    if n_ranks > 1 and training.initial_weights is None:
        n_atoms, n_edges = parts["train"].sizes(np.concatenate(order.batches(0)[: training.calibration_batches]))
        missing = memory.shortage(config.model, n_atoms, n_edges, device, torch.float32)
        if missing:
            raise ConfigError(
                f"the first batch, with which one device calibrates the model, does not fit into memory: {missing}; "
                "lower ",
                Setting("training.batch_size", training.batch_size),
            )


def in_pieces(config: Config, n_pieces: int) -> Config:
    """The config with each batch in so many pieces."""
    return dataclasses.replace(config, training=dataclasses.replace(config.training, n_pieces=n_pieces))


def in_pieces_that_fit(config: Config, crystals: PreparedCrystals, device: torch.device) -> Config:
    """The config with as many pieces as the memory of a GPU needs, as far as that is estimated."""
    if device.type != "cuda":
        return config
    given = config
    shares = _order_and_shares(config, crystals)[1]
    while max(map(len, shares)) > 1 and _shortage(config, crystals, shares, device):
        config = in_pieces(config, 2 * config.training.n_pieces)
        shares = _order_and_shares(config, crystals)[1]
    if config != given:
        print(
            f"each batch is computed in {config.training.n_pieces} pieces (training.n_pieces): the memory of {device} "
            "is too small for more at once",
            file=sys.stderr,
        )
    return config


def in_smaller_pieces(config: Config, crystals: PreparedCrystals) -> Config:
    """The config with twice as many pieces, after a GPU ran out of memory.

    Raises:
        CrystalError: the pieces are single crystals already.
    """
    if max(map(len, _order_and_shares(config, crystals)[1])) > 1:
        return in_pieces(config, 2 * config.training.n_pieces)
    row = int(crystals.n_edges.argmax())
    raise CrystalError(
        f"the GPU ran out of memory even with one crystal at a time. The largest, {crystals.ids[row]!r}, has "
        f"{int(crystals.n_atoms[row]):,} atoms and {int(crystals.n_edges[row]):,} neighbour pairs; leave out such "
        "crystals with ",
        Setting("data.max_atoms_per_crystal"),
        ", or train on a device with more memory, or a model with fewer heads or layers",
    )


def _order_and_shares(
    config: Config, crystals: PreparedCrystals, n_ranks: int = 1
) -> tuple[BatchOrder, list[np.ndarray]]:
    """The order of the batches, and what is computed at a time in the first epoch."""
    order = train_loader(crystals, config.training, n_ranks=n_ranks).sampler
    assert isinstance(order, BatchOrder)
    return order, [share for batch in order.batches(0) for share in order.shares(batch)]


def _shortage(config: Config, crystals: PreparedCrystals, shares: list[np.ndarray], device: torch.device) -> str | None:
    """A message that the largest of these shares does not fit into the memory of the device; else None."""
    sizes = max(map(crystals.sizes, shares), key=lambda sizes: sizes[1])
    return memory.shortage(config.model, *sizes, device, torch.float32, True)
