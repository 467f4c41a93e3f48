"""One shard: structures sorted into even batches, predicted, and written as one table that is whole or not there."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystalframer import files
from crystalframer.crystals.loading import batch_ends
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import MAX_EDGES, Outcome, outcomes_of_batch, table
from crystalframer.reading.structures import StructureRecord
from crystalframer.screening.plan import Shard

if TYPE_CHECKING:
    import pandas
    import pyarrow

METADATA_KEY = b"crystalframer"
WINDOW = 2048
"""Structures that are sorted at a time."""
WINDOW_ATOMS = 200_000
"""Atoms that are sorted at a time, at most (or one structure)."""
BATCH_SIZE = 1024
"""Crystals in a batch, at most: far above what the atoms allow, but for cells of one atom."""
MOST_REASONS = 50


@dataclass(frozen=True)
class ShardResult:
    """What is known of a shard once it is written."""

    number: int
    first: int
    n_structures: int
    failures: Mapping[str, int] = field(default_factory=dict)
    """Why there is no prediction → for how many structures."""


@dataclass(frozen=True, eq=False)
class Screener:
    """Computes shards: a model, and where its tables go."""

    model: CrystalFramer
    folder: Path
    run: str
    """What the tables belong to, kept in each."""
    max_atoms: int

    def __call__(self, shard: Shard, report: Callable[[int], object]) -> ShardResult:
        """Compute a shard and write it.

        Args:
            report: is told how many structures were predicted since the last time.
        """
        outcomes: list[Outcome | None] = [None] * shard.n_structures
        failures: Counter[str] = Counter()
        first = 0
        for window in _windows(shard.records()):
            for batch in even_batches(window, self.model.config.radius, self.max_atoms):
                records = [window[row] for row in batch]
                for row, record, outcome in zip(batch, records, outcomes_of_batch(records, self.model), strict=True):
                    outcomes[first + row] = outcome
                    if outcome.error is not None:
                        reason = reason_of(outcome.error, record.source)
                        failures[reason if reason in failures or len(failures) < MOST_REASONS else "other"] += 1
                report(len(batch))
            first += len(window)
        rows = [outcome for outcome in outcomes if outcome is not None]
        if len(rows) != shard.n_structures:
            raise RuntimeError(f"shard {shard.number} has {len(rows)} rows instead of {shard.n_structures}")
        result = ShardResult(shard.number, shard.first, shard.n_structures, dict(failures))
        frame = table(rows, self.model)
        frame.insert(0, "index", np.arange(shard.first, shard.first + shard.n_structures))
        write(frame, result, self.folder, self.run)
        return result


def _windows(records: Iterator[StructureRecord]) -> Iterator[list[StructureRecord]]:
    """Records in a row, as many as may be in memory at a time."""
    window: list[StructureRecord] = []
    n_atoms = 0
    for record in records:
        size = len(record.crystal) if record.crystal else 0
        if window and (len(window) == WINDOW or n_atoms + size > WINDOW_ATOMS):
            yield window
            window, n_atoms = [], 0
        window.append(record)
        n_atoms += size
    if window:
        yield window


def even_batches(records: list[StructureRecord], radius: float, max_atoms: int) -> Iterator[list[int]]:
    """Rows of the records, in batches that cost about the same: bounded in atoms and in edges, like beside like.

    The number of edges, which the cost goes with, is not known before the neighbours are searched; it is near that of
    atoms in a sphere at the crystal's density.
    """
    n_atoms = np.array([len(record.crystal) if record.crystal else 0 for record in records], dtype=np.int64)
    volume = [abs(np.linalg.det(record.crystal.lattice)) if record.crystal else 1.0 for record in records]
    n_edges = np.ceil(n_atoms * np.maximum(1.0, n_atoms / np.array(volume) * (4 / 3 * math.pi * radius**3)))
    # Largest first: where memory runs out, it does so at once.
    order = np.argsort(-n_edges, kind="stable")
    bounds = [(n_atoms[order], max_atoms), (n_edges[order].astype(np.int64), MAX_EDGES)]
    for batch in np.split(order, batch_ends(bounds, len(order), BATCH_SIZE)[:-1]):
        yield batch.tolist()


def reason_of(error: str, source: str) -> str:
    """An error without what it is about, so that like ones can be counted."""
    reason = error.removeprefix(f"{source}: ")
    reason = re.sub(r"^.*, (row|frame|entry) \d+( \([^)]*\))?: ", "", reason)
    reason = re.sub(r"^crystal ('[^']*'|\"[^\"]*\"): ", "", reason)
    reason = re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason)
    return re.sub(r"[-+]?\d[\d,.e+-]*", "…", reason)[:120]


def path_of(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def write(frame: pandas.DataFrame, result: ShardResult, folder: Path, run: str) -> None:
    """Write a shard under another name, wait until it is on the disk, and give it its name."""
    import pyarrow
    from pyarrow import parquet

    path = path_of(folder, result.number)
    metadata = {"run": run, "units": frame.attrs["units"], **asdict(result)}
    schema = pyarrow.schema(
        [(name, _kind_of(frame, name)) for name in frame.columns],
        metadata={METADATA_KEY: json.dumps(metadata).encode()},
    )
    content = pyarrow.Table.from_pandas(frame, schema=schema, preserve_index=False).replace_schema_metadata(
        schema.metadata
    )
    with files.replacing(path) as unfinished:
        parquet.write_table(content, unfinished, compression="zstd")


def _kind_of(frame: pandas.DataFrame, name: str) -> pyarrow.DataType:
    """The same in every shard, also in one whose rows are all empty."""
    import pyarrow

    if name == "index":
        return pyarrow.int64()
    return pyarrow.float64() if frame[name].dtype == np.float64 else pyarrow.string()


def read_result(path: Path, run: str) -> ShardResult | None:
    """What a written shard says of itself; None if it is not there, not whole or of another run."""
    metadata = _metadata(path)
    if metadata is None or metadata.pop("run", None) != run:
        return None
    metadata.pop("units", None)
    return ShardResult(**metadata)


def read(path: Path) -> pandas.DataFrame:
    """The table of a shard."""
    import pandas

    frame = pandas.read_parquet(path)
    frame.attrs["units"] = (_metadata(path) or {})["units"]
    return frame


def _metadata(path: Path) -> dict | None:
    from pyarrow import ArrowException, parquet

    try:
        return json.loads((parquet.read_schema(path).metadata or {})[METADATA_KEY])
    except (ArrowException, OSError, ValueError, KeyError):
        return None


def numbers_there(folder: Path) -> Iterator[int]:
    """Of the shards in a folder."""
    found = (re.fullmatch(r"part-(\d+)\.parquet", path.name) for path in folder.iterdir())
    yield from sorted(int(match.group(1)) for match in found if match)


def first_id(path: Path) -> str:
    """The id in the first row of a shard."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return str(next(file.iter_batches(batch_size=1, columns=["id"])).column("id")[0])
