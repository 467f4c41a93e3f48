"""Published data sets: their description, and how they are downloaded, compared with the publication and packed.

Each set or family of sets has a module of its own (`jarvis.py`, `megnet.py`, `oqmd.py`, `matbench.py`), and
`sources.SOURCES` lists them all. A file that holds another number of crystals than the publication is refused. The
rules by which the literature splits the sets are in `splits.py`.

Names of targets are our own where several sets agree on a quantity and its functional (formation energy and gap with
PBE). Those of JARVIS, which uses other functionals, are the names of JARVIS.
"""

from __future__ import annotations

import dataclasses
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.flat import text_array
from crystalframer.datasets import packed
from crystalframer.datasets.dataset import PARTS, CrystalDataset, Provenance
from crystalframer.datasets.download import RemoteFile, cache_folder, fetch
from crystalframer.datasets.splits import Parts, fingerprint
from crystalframer.errors import CrystalError, DataError, suggestion
from crystalframer.reading.columns import to_label
from crystalframer.reading.formats import PARQUET_SUFFIX

FORMATION_ENERGY = Target("formation_energy_per_atom", "eV/atom")
BAND_GAP = Target("band_gap", "eV")
MATERIALS_PROJECT = "A. Jain et al., APL Materials 1, 011002 (2013), doi:10.1063/1.4812323"
"""Citation."""
MATERIALS_PROJECT_LICENCE = "CC BY 4.0 (Materials Project)"
_SHOWN = 5
"""Problems listed in one message."""


@dataclass(frozen=True)
class SourceRow:
    """One crystal as its source gives it."""

    id: str
    structure: Any
    """Anything that `to_crystal` takes."""
    labels: Mapping[str, Any]
    """Our name of a label → cell, as `to_label` takes it."""
    part: str | None = None
    """The part of a split in which the publication itself puts the crystal."""


@dataclass(frozen=True)
class Split:
    """A published split of the crystals that have a certain label."""

    name: str
    label: str
    """The target whose labelled crystals are divided."""
    targets: tuple[str, ...]
    """Targets whose published results use this split; none for a fold, which is asked for by name."""
    n_labelled: int
    """Crystals of the publication that have the label, those in no part included."""
    sizes: tuple[int, int, int]
    """Crystals in the training, validation and test part."""
    parts: Callable[[Float[np.ndarray, " n"]], Parts] | None
    """Labels of the labelled crystals, in the order of publication → their parts. None: the files are the parts."""
    test_fingerprint: str = ""
    """`splits.fingerprint` of the published ids of the test part, where a list of them is public."""
    tolerance: int = 0
    """Largest accepted difference from the published numbers, where publications differ."""


@dataclass(frozen=True)
class Source:
    """A published data set."""

    name: str
    description: str
    files: tuple[RemoteFile, ...]
    n_crystals: int
    targets: tuple[Target, ...]
    splits: tuple[Split, ...]
    """The first one is for all targets together, unless it is a fold."""
    provenance: Provenance
    rows: Callable[[Sequence[Path]], Iterator[SourceRow]]
    """Reads the downloaded files, given in the order of `files`."""

    def split_of(self, targets: Sequence[str] | None) -> Split | None:
        """The split of published results for these targets; the first, if they have several; None if all are folds."""
        candidates = [split for split in self.splits if split.targets]
        fitting = [split for split in candidates if targets and set(targets) <= set(split.targets)]
        return next(iter(fitting or candidates), None)

    def split_named(self, name: str) -> Split:
        """A split by its name.

        Raises:
            DataError: there is none; the nearest is named.
        """
        names = {split.name: split for split in self.splits}
        if name not in names:
            raise DataError(f"{self.name} has no split {name!r}{suggestion(name, names)}", field=name)
        return names[name]


def load_published(
    source: Source, targets: Sequence[str | Target] | None = None, split_name: str = ""
) -> CrystalDataset:
    """Load a published data set, without the crystals that are in no part of its split.

    It is downloaded and packed the first time.

    Args:
        targets: labels to read. Default: all.
        split_name: one of its splits. Default: that of the targets; none, if the set has folds only.

    Raises:
        DataError: no such split; else as `pack`.
    """
    chosen = source.split_named(split_name) if split_name else None
    path = pack(source)
    data = CrystalDataset.load(path, targets)
    split = chosen or source.split_of(list(data.targets) if targets is not None else None)
    if split is None:
        return data
    parts = packed.read_split(path, split.name)
    used = np.flatnonzero(parts != None)  # noqa: E711 (element by element)
    return dataclasses.replace(data.select(used), parts=parts[used])


def pack(source: Source) -> Path:
    """Make the packed file of a published data set from its download, unless it is already there; return its path.

    Raises:
        DataError: a download or a file that cannot be used, or one with another number of crystals than published.
    """
    folder = cache_folder() / source.name
    path = folder / f"{source.name}{PARQUET_SUFFIX}"
    if path.exists():
        return path
    reader = _Reader(source, [fetch(file, folder) for file in source.files])
    unsplit = folder / f"{source.name}.unsplit{PARQUET_SUFFIX}"
    try:
        CrystalDataset.write(unsplit, reader, source.targets, source.provenance)
        _check_count(source, "crystals", source.n_crystals, len(reader.ids), source.splits[0].tolerance)
        splits = {split.name: _parts(source, split, reader)[np.array(reader.kept)] for split in source.splits}
        packed.add_splits(unsplit, path, splits, reader.provenance)
    finally:
        unsplit.unlink(missing_ok=True)
    return path


def warn_of_left_out(name: str, problems: Sequence[str], n_read: int) -> None:
    """Say how many crystals of a source cannot be used, and why the first of them cannot."""
    if problems:
        shown = "\n  ".join(problems[:_SHOWN])
        message = f"{name}: {len(problems)} of {n_read:,} crystals cannot be used and are left out:\n  {shown}"
        warnings.warn(message, stacklevel=3)


class _Reader:
    """Yields the crystals of a source, and keeps ids, labels and given parts of all its rows for the splits."""

    def __init__(self, source: Source, downloads: Sequence[Path]) -> None:
        self._source, self._downloads = source, downloads
        self.ids: list[str] = []
        self.labels = {target.name: array("d") for target in source.targets}
        self.given_parts: list[str | None] = []
        self.kept = array("q")
        """Rows of the publication, counted from 0, whose crystal can be used."""
        self._problems: list[str] = []

    @property
    def provenance(self) -> Provenance:
        known = self._source.provenance
        if not self._problems:
            return known
        return dataclasses.replace(known, source=f"{known.source}; without {len(self._problems)} unreadable crystals")

    def __len__(self) -> int:
        return self._source.n_crystals

    def __iter__(self) -> Iterator[Crystal]:
        from crystalframer.reading.objects import to_crystal

        copies: Counter[str] = Counter()
        for row, cells in enumerate(self._source.rows(self._downloads)):
            labels = self._labels_of(row, cells)
            # Some sets list a crystal twice; the literature counts both.
            copies[cells.id] += 1
            id = cells.id if copies[cells.id] == 1 else f"{cells.id}-{copies[cells.id]}"
            try:
                crystal = to_crystal(cells.structure, id)
            except CrystalError as error:
                self._problems.append(str(error))
                continue
            self.kept.append(row)
            yield crystal.with_targets(labels)
        warn_of_left_out(self._source.name, self._problems, len(self.ids))

    def _labels_of(self, row: int, cells: SourceRow) -> dict[str, float]:
        self.ids.append(cells.id)
        self.given_parts.append(cells.part)
        labels = {}
        for name, column in self.labels.items():
            labels[name] = to_label(cells.labels[name], name, path=self._source.name, row=row + 1)
            column.append(labels[name])
        return labels


def _parts(source: Source, split: Split, reader: _Reader) -> Parts:
    """The part of each row of the publication."""
    labels = np.array(reader.labels[split.label])
    labelled = np.flatnonzero(~np.isnan(labels))
    _check_count(source, f"labels of {split.label}", split.n_labelled, len(labelled), split.tolerance)
    parts = text_array([None] * len(labels))
    parts[labelled] = text_array(reader.given_parts)[labelled] if split.parts is None else split.parts(labels[labelled])
    for name, size in zip(PARTS, split.sizes, strict=True):
        what = f"crystals in the {name} part of {split.name}"
        _check_count(source, what, size, int((parts == name).sum()), split.tolerance)
    found = fingerprint(reader.ids[row] for row in np.flatnonzero(parts == "test"))
    if split.test_fingerprint not in ("", found):
        raise DataError(
            f"the test part of {split.name} is not the published one (fingerprint of its ids {found}, published "
            f"{split.test_fingerprint}); the file lists the crystals in another order than the split was made from, so "
            "results could not be compared. Delete the folder and download the file again",
            path=cache_folder() / source.name,
            field=split.name,
            value=found,
        )
    return parts


def _check_count(source: Source, what: str, published: int, found: int, tolerance: int) -> None:
    if abs(found - published) > tolerance:
        raise DataError(
            f"{found:,} {what}, but the publication has {published:,}; the download is another version: delete the "
            "folder and try again",
            path=cache_folder() / source.name,
            field=what,
            value=found,
        )
