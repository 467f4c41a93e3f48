"""One shard: its structures are sorted into even batches, predicted, and written as one complete table."""

from __future__ import annotations

import copy
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crystalframer import files
from crystalframer.batched import MAX_EDGES, columns, is_working, outcomes_of_batch
from crystalframer.crystals.loading import batch_ends
from crystalframer.errors import ScreeningError
from crystalframer.model.network import CrystalFramer
from crystalframer.outcomes import Outcome, table
from crystalframer.reading.entry import StructureRecord
from crystalframer.reading.formats import PARQUET_SUFFIX
from crystalframer.screening.plan import Shard

if TYPE_CHECKING:
    import pandas
    import pyarrow

METADATA_KEY = b"crystalframer"
WINDOW = 2048
"""Structures that are sorted together."""
WINDOW_ATOMS = 200_000
"""Maximum number of atoms that are sorted together (but at least one structure)."""
BATCH_SIZE = 1024
"""Maximum number of crystals in a batch. Only with very small cells it is reached before the limit of atoms."""
MOST_REASONS = 50
"""Different reasons of failure that are counted for a shard."""


@dataclass(frozen=True)
class ShardResult:
    """A shard that is written, or as much of it as there is."""

    number: int
    first: int
    n_structures: int
    failures: Mapping[str, int] = field(default_factory=dict)
    """Number of structures without a prediction for each reason."""
    n_missing: int = 0
    """Structures without a row, because the machine failed and not they."""
    why_missing: str = ""
    """Id and error of one of them."""
    is_broken: bool = False
    """Whether the machine could not even predict rock salt, so that the shard was given up."""
    is_cut_short: bool = False
    """See `Shard`."""

    @property
    def is_complete(self) -> bool:
        """Whether every structure of the shard has its row. If not, it is computed again when the screening goes on."""
        return self.n_missing == 0 and not self.is_cut_short


@dataclass(frozen=True, eq=False)
class Screener:
    """Computes shards with a model and writes their tables."""

    model: CrystalFramer
    folder: Path
    run: str
    """Fingerprint of the screening, which each table keeps."""
    max_atoms: int
    device: str
    """Where to compute."""

    def for_processes(self, device: str) -> Screener:
        """A copy that computes on this device of another process; its model is on the CPU until then."""
        model = self.model
        return replace(self, model=model if self.device == "cpu" else copy.deepcopy(model).cpu(), device=device)

    def __call__(self, shard: Shard, report: Callable[[int], object]) -> ShardResult:
        """Compute a shard and write it: the rows of all structures but those for which the machine failed.

        Args:
            report: is told how many structures of the shard are predicted.
        """
        model = self.model.to(self.device)
        outcomes: dict[int, Outcome] = {}
        reasons: Counter[str] = Counter()
        is_broken = False
        for rows, records in self._batches(shard, model.config.radius):
            found = list(outcomes_of_batch(records, model))
            outcomes.update(zip(rows, found, strict=True))
            _count_reasons(records, found, reasons)
            report(len(outcomes))
            is_broken = any(outcome.of_machine for outcome in found) and not is_working(model)
            if is_broken:
                break
        if len(outcomes) != shard.n_structures and not is_broken:
            raise RuntimeError(f"shard {shard.number} has {len(outcomes)} rows instead of {shard.n_structures}")
        rows = sorted(row for row, outcome in outcomes.items() if not outcome.of_machine)
        result = ShardResult(
            shard.number,
            shard.first,
            shard.n_structures,
            dict(reasons),
            n_missing=shard.n_structures - len(rows),
            why_missing=next((f"{each.id}: {each.error}" for each in outcomes.values() if each.of_machine), ""),
            is_broken=is_broken,
            is_cut_short=shard.is_cut_short,
        )
        if rows and len(rows) >= n_rows_there(path_of(self.folder, shard.number), self.run):
            frame = table([outcomes[row] for row in rows], columns(model)).frame()
            frame.insert(0, "index", shard.first + np.array(rows))
            write(frame, result, self.folder, self.run)
        return result

    def _batches(self, shard: Shard, radius: float) -> Iterator[tuple[list[int], list[StructureRecord]]]:
        """The structures of a shard with their rows, in batches of similar cost."""
        first = 0
        for window in _windows(shard.records()):
            for batch in even_batches(window, radius, self.max_atoms):
                yield [first + row for row in batch], [window[row] for row in batch]
            first += len(window)


def _count_reasons(records: list[StructureRecord], found: list[Outcome], reasons: Counter[str]) -> None:
    """Count why structures have no prediction, but for failures of the machine."""
    for record, outcome in zip(records, found, strict=True):
        if outcome.error is not None and not outcome.of_machine:
            reason = reason_of(outcome.error, record.source)
            reasons[reason if reason in reasons or len(reasons) < MOST_REASONS else "other"] += 1


def _windows(records: Iterator[StructureRecord]) -> Iterator[list[StructureRecord]]:
    """Consecutive records, as many as may be in memory together."""
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
    """Rows of the records in batches of similar cost, with limits of atoms and edges.

    The cost is proportional to the number of edges, which is unknown before the neighbour search. It is estimated by
    the number of atoms in a sphere at the density of the crystal.
    """
    n_atoms = np.array([len(record.crystal) if record.crystal else 0 for record in records], dtype=np.int64)
    volume = [abs(np.linalg.det(record.crystal.lattice)) if record.crystal else 1.0 for record in records]
    n_edges = np.ceil(n_atoms * np.maximum(1.0, n_atoms / np.array(volume) * (4 / 3 * math.pi * radius**3)))
    # Largest first: if memory runs out, it does so at once.
    order = np.argsort(-n_edges, kind="stable")
    bounds = [(n_atoms[order], max_atoms), (n_edges[order].astype(np.int64), MAX_EDGES)]
    for batch in np.split(order, batch_ends(bounds, len(order), BATCH_SIZE)[:-1]):
        yield batch.tolist()


def reason_of(error: str, source: str) -> str:
    """An error without names and numbers, so that similar errors can be counted."""
    reason = error.removeprefix(f"{source}: ")
    reason = re.sub(r"^.*, (row|frame|entry) \d+( \([^)]*\))?: ", "", reason)
    reason = re.sub(r"^crystal ('[^']*'|\"[^\"]*\"): ", "", reason)
    reason = re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason)
    return re.sub(r"[-+]?\d[\d,.e+-]*", "…", reason)[:120]


def path_of(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}{PARQUET_SUFFIX}"


def write(frame: pandas.DataFrame, result: ShardResult, folder: Path, run: str) -> None:
    """Write the table of a shard, completely or not at all."""
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
        parquet.write_table(content, unfinished, compression="zstd", write_page_checksum=True)


def _kind_of(frame: pandas.DataFrame, name: str) -> pyarrow.DataType:
    """The type of a column: the same in every shard, even if all its rows are empty."""
    import pyarrow

    if name == "index":
        return pyarrow.int64()
    return pyarrow.float64() if frame[name].dtype == np.float64 else pyarrow.string()


def read_result(path: Path, run: str) -> ShardResult | None:
    """The result that a table keeps; None if the table is missing, damaged, incomplete or of another screening."""
    result = _kept(path, run)
    if result is None or not result.is_complete:
        return None
    try:
        read(path)
    except ScreeningError:
        return None
    return result


def n_rows_there(path: Path, run: str) -> int:
    """Rows of the table of an earlier attempt, which one with fewer must not replace."""
    result = _kept(path, run)
    return 0 if result is None else result.n_structures - result.n_missing


def _kept(path: Path, run: str) -> ShardResult | None:
    metadata = _metadata(path)
    if metadata is None or metadata.pop("run", None) != run:
        return None
    metadata.pop("units", None)
    return ShardResult(**metadata)


def read(path: Path) -> pandas.DataFrame:
    """The table of a shard.

    Raises:
        ScreeningError: it is damaged.
    """
    from pyarrow import ArrowException, parquet

    try:
        frame = parquet.read_table(path, page_checksum_verification=True).to_pandas()
        frame.attrs["units"] = (_metadata(path) or {})["units"]
    except (ArrowException, ValueError, OSError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ScreeningError(
            f"damaged ({reason}); the command that wrote it computes it again, and only it", path=path
        ) from error
    return frame


def _metadata(path: Path) -> dict | None:
    from pyarrow import ArrowException, parquet

    try:
        return json.loads((parquet.read_schema(path).metadata or {})[METADATA_KEY])
    except (ArrowException, OSError, ValueError, KeyError):
        return None


def numbers_there(folder: Path) -> list[int]:
    """Numbers of the shards in a folder."""
    found = (re.fullmatch(r"part-(\d+)\.parquet", path.name) for path in folder.iterdir())
    return sorted(int(match.group(1)) for match in found if match)


def first_id(path: Path) -> str:
    """The id in the first row of a shard."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return str(next(file.iter_batches(batch_size=1, columns=["id"])).column("id")[0])
