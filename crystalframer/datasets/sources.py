"""Data sets by name or path, and the one table of those that have a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path

from crystalframer.config import Config, Target
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.datasets.jarvis import JARVIS
from crystalframer.datasets.labelled import read_folder, read_table
from crystalframer.datasets.matbench import MATBENCH
from crystalframer.datasets.megnet import MEGNET, MEGNET_BULK, MEGNET_SHEAR
from crystalframer.datasets.oqmd import OQMD
from crystalframer.datasets.published import Source, load_published, pack
from crystalframer.datasets.queries import query
from crystalframer.errors import DataError, suggestion

SOURCES: Mapping[str, Source] = {
    source.name: source for source in (JARVIS, MEGNET, MEGNET_BULK, MEGNET_SHEAR, OQMD, *MATBENCH)
}
"""The published data sets by name, in the order in which they are listed."""
NAMED_SOURCES = ("demo", *SOURCES)
QUERIES = ("optimade", "mp-api")


def dataset(
    source: str | Path, labels: str | Path | None = None, targets: Sequence[str | Target] | None = None
) -> CrystalDataset:
    """Load the data set of a name or path.

        data = cf.dataset("demo")
        data = cf.dataset("matbench-phonons:fold-0")
        data = cf.dataset("structures/", labels="measured.csv", targets=["band_gap"])

    Args:
        source: `demo` (502 JARVIS crystals, shipped with the package); the name of a published data set
            (`crystalframer data get` lists them), perhaps with a split (`matbench-phonons:fold-0`, `jarvis:ehull`); a
            query (`optimade:BASE_URL?FILTER`, `mp-api:elements=Li,O`, see `queries.py`); or a path of a packed data
            set, a table (CSV, JSON, JSON lines, parquet) or a folder of structure files. Published sets and answers to
            queries are downloaded the first time and kept in `download.cache_folder()`.
        labels: table of labels, for a folder (default: `labels.csv`, `.tsv`, `.json`, `.jsonl` or `.parquet` in it).
        targets: the labels to read. Default: all that the source has. Published data sets come with the split that
            published results for these targets use, unless a split is named.

    Raises:
        DataError: no such name or path (the nearest name is given), the data cannot be used, or there is no network and
            the data set was not downloaded before (the message says what to download where by hand).
    """
    if not isinstance(source, (str, Path)):
        advice = "write a table to a file (`to_parquet`), or use CrystalDataset.from_crystals"
        message = f"a data set is loaded by its name or path, not from a {type(source).__name__}; {advice}"
        raise DataError(message, field="source")
    if labels is not None and not Path(source).is_dir():
        message = "a table of labels goes with a folder of structure files, and this is none"
        raise DataError(message, path=source, field="labels", value=labels)
    if source == "demo":
        with as_file(files("crystalframer.datasets") / "demo" / "demo.parquet") as path:
            return CrystalDataset.load(path, targets)
    name, _, split = str(source).partition(":")
    if name in QUERIES and split:
        return query(name, split, targets)
    if name in SOURCES:
        return load_published(SOURCES[name], targets, split)
    check_source(source)
    path = Path(source).expanduser()
    return read_folder(path, labels, targets) if path.is_dir() else read_table(path, targets)


def dataset_of(config: Config) -> CrystalDataset:
    """The data set of a run, with its targets, and with the target whose tail the split tests.

    Raises:
        DataError, CrystalError: as `dataset`.
    """
    targets, tail = config.model.targets, config.data.tail_target
    if tail not in (None, *config.model.target_names):
        targets = (*targets, Target(tail))
    return dataset(config.data.source, config.data.labels, targets)


def check_source(source: str | Path) -> None:
    """Check that a data set can be meant, without reading it.

    Raises:
        DataError: it is neither a name nor a path of a file or folder (the nearest name is given).
    """
    name, _, split = str(source).partition(":")
    path = Path(source).expanduser()
    if source == "demo" or name in SOURCES or (name in QUERIES and split) or path.is_dir() or path.is_file():
        return
    raise DataError(
        f"data source {str(source)!r} is neither a name nor an existing path{suggestion(str(source), NAMED_SOURCES)}",
        field="source",
        value=source,
    )


def get(name: str) -> str:
    """Download and pack a published data set or the answer to a query, and describe it in a few lines.

    Raises:
        DataError: no such name (the nearest is given); else as `dataset`.
    """
    kind, _, text = name.partition(":")
    if kind in QUERIES and text:
        return query(kind, text).summary()
    if kind not in SOURCES:
        nearest = suggestion(kind, SOURCES)
        folds = ", ".join(name for name, source in SOURCES.items() if source.split_of(None) is None)
        message = f"there is no published data set {kind!r}{nearest} ({folds}: each with :fold-0 to :fold-4)"
        raise DataError(message, field="name", value=kind)
    source = SOURCES[kind]
    if text:
        source.split_named(text)
    path = pack(source)
    lines = [f"{path}: {CrystalDataset.load(path).summary()}"]
    for split in source.splits:
        train, validation, test = split.sizes
        used = f", of {', '.join(split.targets)}" if split.targets else ""
        lines.append(f"  split {split.name}{used}: {train:,} / {validation:,} / {test:,}")
    return "\n".join(lines)


def catalogue() -> str:
    """One line for each published data set."""
    lines = [f"{source.name:<24} {source.n_crystals:>8,}  {source.description}" for source in SOURCES.values()]
    lines.append(f"{'optimade:BASE_URL?FILTER':<34} what a query to an OPTIMADE provider finds")
    lines.append(f"{'mp-api:elements=Li,O&...':<34} what a query to the Materials Project finds (key in $MP_API_KEY)")
    return "\n".join(lines)
