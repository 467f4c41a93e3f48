"""Where data sets come from: by name, or from a path."""

from __future__ import annotations

import dataclasses
import warnings
from array import array
from collections.abc import Iterator, Sequence
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.dataset import CrystalDataset, Provenance, text_array
from crystalframer.datasets.download import cache_folder, fetch
from crystalframer.datasets.published import SOURCES, Source, Split
from crystalframer.datasets.queries import query
from crystalframer.datasets.splits import Parts, fingerprint
from crystalframer.datasets.upstream import Entry
from crystalframer.errors import CrystalError, DataError, suggestion
from crystalframer.reading.rows import to_label

NAMED_SOURCES = ("demo", *SOURCES)
QUERIES = ("optimade", "mp-api")
_SHOWN = 5
"""Unreadable crystals named in one message."""


def dataset(
    source: str | Path, labels: str | Path | None = None, targets: Sequence[str | Target] | None = None
) -> CrystalDataset:
    """The data set of a name or path.

    Args:
        source: `demo` (502 JARVIS crystals, shipped); a public data set by name (`crystalframer data get` lists them),
            perhaps with a split (`matbench-phonons:fold-0`, `jarvis:ehull`), downloaded the first time and kept in
            `download.cache_folder()`; a query (`optimade:BASE_URL?FILTER`, `mp-api:elements=Li,O`, see `queries.py`),
            kept likewise; or a path: a packed data set, a table (CSV, JSON, JSON lines, parquet) or a
            folder of structure files.
        labels: table of labels, for a folder (default: `labels.csv`, `.json`, `.jsonl` or `.parquet` in it).
        targets: the labels to read. Default: all that the source has. Public data sets come with the split that
            published results for these targets use, unless a split is named.

    Raises:
        DataError: no such name or path (the nearest name is given), the data cannot be used, or there is no network and
            the data set was not downloaded before (the message says what to download where by hand).
    """
    from crystalframer.datasets.labelled import read_folder, read_table

    if labels is not None and not Path(source).is_dir():
        raise DataError(f"{source}: a table of labels goes with a folder of structure files, and this is none")
    if source == "demo":
        with as_file(files("crystalframer.datasets") / "demo" / "demo.parquet") as path:
            return CrystalDataset.load(path, targets)
    name, _, split = str(source).partition(":")
    if name in QUERIES and split:
        return query(name, split, targets)
    if name in SOURCES:
        return load_published(SOURCES[name], targets, split)
    path = Path(source).expanduser()
    if path.is_dir():
        return read_folder(path, labels, targets)
    if path.is_file():
        return read_table(path, targets)
    raise DataError(
        f"data source {str(source)!r} is neither a name nor an existing path{suggestion(str(source), NAMED_SOURCES)}"
    )


def get(name: str) -> str:
    """Download and pack a public data set or the answer to a query, and say in a few lines what it is.

    Raises:
        DataError: no such name (the nearest is given); else as `dataset`.
    """
    kind, _, text = name.partition(":")
    if kind in QUERIES and text:
        return query(kind, text).summary()
    if kind not in SOURCES:
        nearest = suggestion(kind, SOURCES)
        folds = ", ".join(name for name, source in SOURCES.items() if source.split_of(None) is None)
        raise DataError(f"there is no public data set {kind!r}{nearest} ({folds}: each with :fold-0 to :fold-4)")
    source = SOURCES[kind]
    if text:
        source.split_named(text)
    path = prepare(source)
    lines = [f"{path}: {CrystalDataset.load(path).summary()}"]
    for split in source.splits:
        train, validation, test = split.sizes
        used = f", of {', '.join(split.targets)}" if split.targets else ""
        lines.append(f"  split {split.name}{used}: {train:,} / {validation:,} / {test:,}")
    return "\n".join(lines)


def catalogue() -> str:
    """A line for each public data set."""
    lines = [f"{source.name:<24} {source.n_crystals:>8,}  {source.description}" for source in SOURCES.values()]
    lines.append(f"{'optimade:BASE_URL?FILTER':<34} what a query to an OPTIMADE provider finds")
    lines.append(f"{'mp-api:elements=Li,O&...':<34} what a query to the Materials Project finds (key in $MP_API_KEY)")
    return "\n".join(lines)


def load_published(
    source: Source, targets: Sequence[str | Target] | None = None, split_name: str = ""
) -> CrystalDataset:
    """A public data set, without the crystals that are in no part of its split; downloaded and packed the first time.

    Args:
        split_name: one of its splits. Default: that of the targets; none, if it has folds only.

    Raises:
        DataError: as `dataset`.
    """
    from crystalframer.datasets import packed

    chosen = source.split_named(split_name) if split_name else None
    path = prepare(source)
    data = CrystalDataset.load(path, targets)
    split = chosen or source.split_of(list(data.targets) if targets is not None else None)
    if split is None:
        return data
    parts = packed.read_split(path, split.name)
    used = np.flatnonzero(parts != None)  # noqa: E711 (element by element)
    return dataclasses.replace(data.select(used), parts=parts[used])


def prepare(source: Source) -> Path:
    """The packed file of a public data set, made from its download if it is not yet there.

    Raises:
        DataError: a download or a file that cannot be used, or one with another number of crystals than published.
    """
    from crystalframer.datasets import packed

    folder = cache_folder() / source.name
    path = folder / f"{source.name}.parquet"
    if path.exists():
        return path
    downloads = [fetch(file, folder) for file in source.files]
    unsplit = folder / f"{source.name}.unsplit.parquet"
    reading = _Reading(source, downloads)
    try:
        CrystalDataset.write(unsplit, reading, source.targets, source.provenance)
        _check_count(source, "crystals", source.n_crystals, reading.n_read, source.splits[0].tolerance)
        splits = {split.name: _parts(source, split, reading)[np.array(reading.kept)] for split in source.splits}
        packed.add_splits(unsplit, path, splits, reading.provenance)
    finally:
        unsplit.unlink(missing_ok=True)
    return path


class _Reading:
    """The crystals of a source as they are read, with what the splits need to know of all of them."""

    def __init__(self, source: Source, downloads: Sequence[Path]) -> None:
        self._source = source
        self._downloads = downloads
        self.ids: list[str] = []
        self.labels = {target.name: array("d") for target in source.targets}
        self.given_parts: list[str | None] = []
        self.kept = array("q")
        """Rows of the publication whose crystal can be represented."""
        self._failed: list[str] = []

    @property
    def n_read(self) -> int:
        return len(self.ids)

    @property
    def provenance(self) -> Provenance:
        known = self._source.provenance
        if not self._failed:
            return known
        return dataclasses.replace(known, source=f"{known.source}; without {len(self._failed)} unreadable crystals")

    def __len__(self) -> int:
        return self._source.n_crystals

    def __iter__(self) -> Iterator[Crystal]:
        from crystalframer.reading.structures import to_crystal

        copies: dict[str, int] = {}
        for row, entry in enumerate(self._source.entries(self._downloads)):
            labels = self._labels_of(row, entry)
            # Some sets list a crystal twice; the literature counts both.
            copies[entry.id] = copies.get(entry.id, 0) + 1
            id = entry.id if copies[entry.id] == 1 else f"{entry.id}-{copies[entry.id]}"
            try:
                crystal = to_crystal(entry.structure, id)
            except CrystalError as error:
                self._failed.append(str(error))
                continue
            self.kept.append(row)
            yield crystal.with_targets(labels)
        if self._failed:
            shown = "\n  ".join(self._failed[:_SHOWN])
            warnings.warn(
                f"{self._source.name}: {len(self._failed)} of {self.n_read:,} crystals cannot be used and are left out:"
                f"\n  {shown}",
                stacklevel=2,
            )

    def _labels_of(self, row: int, entry: Entry) -> dict[str, float]:
        self.ids.append(entry.id)
        self.given_parts.append(entry.part)
        labels = {}
        for name, column in self.labels.items():
            labels[name] = to_label(entry.labels[name], f"{self._source.name}, entry {row + 1} ({entry.id}): {name}")
            column.append(labels[name])
        return labels


def _parts(source: Source, split: Split, reading: _Reading) -> Parts:
    """The part of each row of the publication."""
    labels = np.array(reading.labels[split.label])
    labelled = np.flatnonzero(~np.isnan(labels))
    _check_count(source, f"labels of {split.label}", split.n_labelled, len(labelled), split.tolerance)
    parts = np.full(len(labels), None, dtype=object)
    given = text_array(reading.given_parts)[labelled]
    parts[labelled] = given if split.parts is None else split.parts(labels[labelled])
    for name, size in zip(("train", "validation", "test"), split.sizes, strict=True):
        _check_count(
            source, f"crystals in the {name} part of {split.name}", size, int((parts == name).sum()), split.tolerance
        )
    if split.test_fingerprint:
        found = fingerprint(reading.ids[row] for row in np.flatnonzero(parts == "test"))
        if found != split.test_fingerprint:
            raise DataError(
                f"{source.name}: the test part of {split.name} is not the published one (fingerprint of its ids "
                f"{found}, published {split.test_fingerprint}); the file lists the crystals in another order "
                "than the split was made from, so results could not be compared. Delete it and download it again"
            )
    return parts


def _check_count(source: Source, what: str, published: int, found: int, tolerance: int) -> None:
    if abs(found - published) > tolerance:
        raise DataError(
            f"{source.name}: {found:,} {what}, but the publication has {published:,}; the download is another version: "
            f"delete {cache_folder() / source.name} and try again"
        )
