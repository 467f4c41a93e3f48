"""Screening: predictions for all structures of an input. It can be stopped and continued at any time."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from crystalframer import files
from crystalframer.batched import MAX_ATOMS
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.errors import ScreeningError, Setting, WorkerError
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import ready
from crystalframer.processes import pool
from crystalframer.screening import shards as shard_files
from crystalframer.screening.cluster import compute_on_ray
from crystalframer.screening.manifest import MANIFEST, settle
from crystalframer.screening.plan import FilePlan, Shard, StreamPlan, plan
from crystalframer.screening.shards import (
    Screener,
    ShardResult,
    first_id,
    n_rows_there,
    numbers_there,
    path_of,
    read_result,
)
from crystalframer.selection import Choice

if TYPE_CHECKING:
    import pandas

SHARD_SIZE = 10_000
GOES_ON = "the same command goes on from there"
_SHOWN_REASONS = 5


@dataclass(frozen=True)
class Screening:
    """The outcome of a screening."""

    folder: Path
    n_structures: int
    n_shards: int
    n_new: int
    """Structures that this call predicted. Earlier calls predicted the others."""
    seconds: float
    """Duration of this call, without the time to find and count the input."""
    failures: dict[str, int] = field(default_factory=dict)
    """Number of structures without a prediction for each reason."""

    @property
    def n_failed(self) -> int:
        return sum(self.failures.values())

    def summary(self) -> str:
        """The outcome as text: numbers, speed, and the most frequent reasons of failure."""
        lines = [f"{self.n_structures:,} structures in {self.n_shards:,} tables: {self.folder}/part-*.parquet"]
        if self.n_new:
            rate = self.n_new / max(self.seconds, 1e-9)
            before = self.n_structures - self.n_new
            kept = f" ({before:,} were done earlier)" if before else ""
            lines.append(f"{self.n_new:,} done in {_duration(self.seconds)}, {rate:,.4g} a second{kept}")
        else:
            lines.append("all of them were done earlier")
        if self.n_failed:
            lines.append(f"{self.n_failed:,} without a prediction (column `error` says why):")
            shown = Counter(self.failures).most_common(_SHOWN_REASONS)
            lines += [f"  {count:>9,}  {reason}" for reason, count in shown]
            if len(self.failures) > len(shown):
                rest = self.n_failed - sum(count for _, count in shown)
                lines.append(f"  {rest:>9,}  for {len(self.failures) - len(shown)} other reasons")
        return "\n".join(lines)


def screen(
    structures: Any,
    output: str | Path,
    model: CrystalFramer | str | Path | None = None,
    *,
    shard_size: int = SHARD_SIZE,
    n_workers: int = 1,
    max_atoms: int = MAX_ATOMS,
    device: torch.device | str | None = None,
    ray: str | None = None,
    progress: bool = True,
) -> Screening:
    """Predict any number of structures in bounded memory, and write the results to tables in a folder.

    Every structure has one row, with the columns of `predict` and `index`, its number in the input. Ids are those of
    the source and need not be unique. A table is written when it is complete. Call the function again to continue
    after an interruption: complete tables are kept, unfinished ones are computed again. A structure for which the
    machine fails (memory, a disk, a device) has no row: the same call tries it again.

    Args:
        structures: paths of structure files, folders, tables (CSV, JSON lines, parquet), databases (ASE, LMDB) or
            patterns; or anything that `predict` takes. An iterator must give the same structures in the same order
            when a screening is continued.
        output: folder for the tables `part-00000.parquet`, ..., and for the description of the screening.
        model: a model, or the path of one. Default: the weights that come with the package.
        shard_size: structures per table.
        n_workers: number of processes. Each has its own copy of the model and a share of the CPU threads. The GPUs are
            given to them in turn; several processes on one GPU keep it busy.
        max_atoms: maximum number of atoms per batch (a larger crystal is a batch by itself). Lower it if memory runs
            out.
        device: where to compute, as in `predict`.
        ray: address of a Ray cluster. Its actors are the workers, one on each GPU. `auto` is the cluster of this
            machine. The input must be files. Input and output must be visible to all machines.
        progress: show a progress bar if the screening takes more than 2 s.

    Returns:
        Numbers of structures and tables, the duration, and the reasons of failures.

    Raises:
        ScreeningError: the folder holds a screening of another input, model or shard size; another process uses it; it
            cannot be written; or some structures have no row, because the machine failed.
        DataError: an input does not exist.
        CheckpointError: the model cannot be loaded.
        WorkerError: worker processes died repeatedly.
        Exception: one that an iterator of structures raises. Rows of structures before it are kept, and a note in it
            says how many there are.

    Example:
        >>> import tempfile
        >>> import crystalframer as cf
        >>> crystals = cf.dataset("demo").select(range(5))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = cf.screen(crystals, folder, shard_size=2, progress=False)
        ...     table = cf.read_screen(folder)
        >>> result.n_structures, result.n_shards, len(table)
        (5, 3, 5)
    """
    for name, value in (("shard_size", shard_size), ("n_workers", n_workers), ("max_atoms", max_atoms)):
        if value < 1:
            raise ScreeningError(Setting(name, value), ": must be at least 1", field=name, value=value)
    folder = Path(output).expanduser()
    model = ready(model, device)
    work = plan(structures, shard_size, progress)
    if ray is not None and not isinstance(work, FilePlan):
        raise ScreeningError("a Ray cluster reads its inputs itself: give files, not structures in memory", field="ray")
    with _locked(folder):
        run = settle(folder, work, model)
        done = {
            number: result
            for number in numbers_there(folder)
            if (result := read_result(path_of(folder, number), run)) is not None
        }
        n_before = sum(result.n_structures for result in done.values())
        screener = Screener(model, folder, run, max_atoms, str(model.target_mean.device))
        started = time.perf_counter()
        with tqdm(
            desc="screening",
            total=work.n_structures,
            initial=n_before,
            unit=" crystals",
            delay=2,
            leave=not sys.stderr.isatty(),
            disable=not progress,
            smoothing=0.05,
        ) as bar:
            left = _left(work, folder, done)
            if ray is not None:
                results = compute_on_ray(left, screener, bar.update, n_workers, ray)
            else:
                results = _compute(left, screener, bar, n_workers)
            try:
                with closing(results):  # which stops the workers, whatever happens
                    for result in results:
                        done[result.number] = result
                        if result.is_broken:
                            break
            except KeyboardInterrupt:
                n_rows = _n_rows(folder, run)
                raise KeyboardInterrupt(
                    f"stopped; {n_rows:,} structures are complete in {folder}, and {GOES_ON}"
                ) from None
    if isinstance(work, StreamPlan) and work.stopped:
        error = work.stopped[0]
        if n_rows := _n_rows(folder, run):
            error.add_note(
                f"{n_rows:,} structures were predicted before, and their rows are in {folder}; the same command goes "
                "on from the tables that are complete"
            )
        raise error
    _check_complete(folder, run, done)
    failures: Counter[str] = Counter()
    for result in done.values():
        failures.update(result.failures)
    n_structures = sum(result.n_structures for result in done.values())
    seconds = time.perf_counter() - started
    return Screening(folder, n_structures, len(done), n_structures - n_before, seconds, dict(failures))


def _n_rows(folder: Path, run: str) -> int:
    """Rows of the screening that are on the disk."""
    return sum(n_rows_there(path_of(folder, number), run) for number in numbers_there(folder))


def _check_complete(folder: Path, run: str, done: dict[int, ShardResult]) -> None:
    """Check that every structure has its row.

    Raises:
        ScreeningError: the machine failed for some of them.
    """
    n_missing = sum(result.n_missing for result in done.values())
    if n_missing:
        why = next(result.why_missing for result in done.values() if result.n_missing)
        stopped = "the screening stopped, because the machine cannot predict anything now: "
        is_broken = any(result.is_broken for result in done.values())
        raise ScreeningError(
            f"{stopped if is_broken else ''}{n_missing:,} structures have no row, because the machine failed and not "
            f"they ({why}). The {_n_rows(folder, run):,} rows of others are kept, and {GOES_ON}",
            path=folder,
        )


def _compute(shards: Iterator[Shard], screener: Screener, bar: tqdm, n_workers: int) -> Generator[ShardResult]:
    """Results from this process, or from several on this machine."""
    n_shown: Counter[int] = Counter()

    def show(shard: Shard, n_structures: int) -> None:
        # A shard that is begun anew takes the bar back.
        bar.update(n_structures - n_shown[shard.number])
        n_shown[shard.number] = n_structures

    gpus = _gpus(screener.model)
    if n_workers > 1:
        screener = screener.for_processes("cuda" if gpus else screener.device)
    advice = f" or a smaller max_atoms. Complete tables are kept, and {GOES_ON}"
    with closing(pool.compute(screener, shards, n_workers, show, gpus, advice)) as results:
        for _, result in results:
            if isinstance(result, WorkerError):
                raise result
            yield result


def _gpus(model: CrystalFramer) -> list[str]:
    """The GPU of the model; all GPUs if it is on the first one, which is not a choice."""
    device = model.target_mean.device
    if device.type != "cuda":
        return []
    gpus = pool.visible_gpus()
    return [gpus[device.index]] if device.index else gpus


def read_screen(
    folder: str | Path,
    where: str | None = None,
    top: int | None = None,
    by: str | None = None,
    lowest: bool = False,
    hull: pandas.DataFrame | CrystalDataset | str | Path | None = None,
) -> pandas.DataFrame:
    """Read the tables of a screening as one table, in the order of the input.

    Tables are read one by one, so that selecting few rows needs little memory. An unfinished screening can be read too.

    Args:
        folder: the `output` of `screen`.
        where: keep the rows for which this expression of columns holds: `"band_gap > 3 and error.isna()"`. It is
            evaluated table by table: `band_gap.max()` is the highest of one table.
        top: keep this number of rows: those with the highest values in the column `by`, highest first. If these are
            predictions (a target, its interval, or the energy above the hull), rows with a flag come after all others:
            a prediction that may be far off makes no best candidate. `where="outside_training.notna()"` shows them.
        by: name of the column for `top`.
        lowest: keep the rows with the lowest values instead, lowest first.
        hull: competing phases, for columns `above_hull` (eV/atom; with its interval), `decomposes_to` and `hull_error`
            (why there is none), as the references of `above_hull`: a data set with formation energies, or its name or
            path. `where` and `by` may use these columns.

    Returns:
        The rows; `attrs["units"]` maps target to unit.

    Raises:
        ScreeningError: the folder holds no screening, a table is damaged, or a column or expression does not fit it.
        DataError: as `above_hull`, for `hull`.

    Example:
        >>> import tempfile
        >>> import crystalframer as cf
        >>> crystals = cf.dataset("demo").select(range(5))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = cf.screen(crystals, folder, progress=False)
        ...     table = cf.read_screen(folder, top=2, by="formation_energy_per_atom", lowest=True)
        >>> len(table), table["formation_energy_per_atom"].is_monotonic_increasing
        (2, True)
    """
    import pandas

    folder = Path(folder).expanduser()
    if not (folder / MANIFEST).is_file():
        raise ScreeningError("holds no screening; name the folder that `crystalframer screen` wrote to", path=folder)
    choice = Choice.of(where, top, by, lowest, hull)
    kept: pandas.DataFrame | None = None
    for number in numbers_there(folder):
        frame = shard_files.read(path_of(folder, number))
        frame = choice.filtered(frame)
        kept = frame if kept is None else pandas.concat([kept, frame], ignore_index=True)
        kept.attrs = frame.attrs
        kept = choice.best(kept)
    if kept is None:
        raise ScreeningError("no table is complete yet; let the screening go on", path=folder)
    return kept.reset_index(drop=True)


def _left(work: FilePlan | StreamPlan, folder: Path, done: dict[int, ShardResult]) -> Iterator[Shard]:
    """Shards that are to be computed. Complete shards of a stream are compared with its structures."""
    for shard in work.shards(done.__contains__):
        if shard.number not in done:
            yield shard
            continue
        path, result = path_of(folder, shard.number), done[shard.number]
        (record,) = shard.records()
        expected = result.n_structures, first_id(path)
        found = shard.n_structures, record.id
        if found != expected:
            raise ScreeningError(
                f"holds other structures: {expected[0]} from {expected[1]!r} on, and now there are {found[0]} from "
                f"{found[1]!r} on; give the same structures in the same order, or choose another folder",
                path=path,
            )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder for one screening, and remove unfinished files that a killed process left."""
    advice = "free some space, and the same command goes on from the tables that are complete, or choose another folder"
    # Without locks, two at a time would do the work twice, and still give each table once.
    with files.writing(folder, ScreeningError, advice), files.locked(folder, ScreeningError, "is screening into it"):
        for leftover in folder.glob(".part-*"):
            leftover.unlink(missing_ok=True)
        yield


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
