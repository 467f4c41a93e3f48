"""A screening from the first structure to the last, however often it is stopped on the way."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from crystalframer import files
from crystalframer._version import __version__
from crystalframer.config import to_json
from crystalframer.errors import ScreeningError
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import MAX_ATOMS, ready
from crystalframer.screening import shards as shard_files
from crystalframer.screening.cluster import compute_on_ray
from crystalframer.screening.plan import FilePlan, Input, Shard, StreamPlan, plan
from crystalframer.screening.shards import Screener, ShardResult, first_id, numbers_there, path_of, read_result
from crystalframer.screening.workers import compute_here, compute_in_processes

if TYPE_CHECKING:
    import pandas

SHARD_SIZE = 10_000
MANIFEST = "_screening.json"
_SHOWN_REASONS = 5


@dataclass(frozen=True)
class Screening:
    """What a screening came to."""

    folder: Path
    n_structures: int
    n_shards: int
    n_new: int
    """Structures that this call predicted; the others were there before."""
    seconds: float
    """That it took, without finding and counting the input."""
    failures: dict[str, int] = field(default_factory=dict)
    """Why there is no prediction → for how many structures."""

    @property
    def n_failed(self) -> int:
        return sum(self.failures.values())

    def summary(self) -> str:
        """The outcome for a person."""
        lines = [f"{self.n_structures:,} structures in {self.n_shards:,} tables: {self.folder}/part-*.parquet"]
        if self.n_new:
            rate = self.n_new / max(self.seconds, 1e-9)
            before = self.n_structures - self.n_new
            kept = f" ({before:,} were there before)" if before else ""
            lines.append(f"{self.n_new:,} predicted in {_duration(self.seconds)}, {rate:,.4g} a second{kept}")
        else:
            lines.append("all of them were there before")
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
    """Predict any number of structures into a folder of parquet tables, in bounded memory; call it again to go on.

    Every structure has one row, with the columns of `predict` and `index`, its number in the input; ids are the
    source's own and need not be unique. A table is written when it is complete, so that whatever is killed, nothing is
    lost but tables in the making, and nothing is there twice.

    Args:
        structures: paths of structure files, folders, tables (CSV, JSON lines, parquet), databases (ASE, LMDB) or
            patterns; or anything that `predict` takes, also an iterator, which must give the same structures again
            when a screening goes on.
        output: folder for the tables `part-00000.parquet`, ..., and for what the screening is known by.
        model: a model, or the path of one. Default: the weights that come with the package.
        shard_size: structures in a table.
        n_workers: processes, each with the model and a share of the threads. On a GPU several keep it busy; of several
            GPUs each gets its share of them.
        max_atoms: atoms predicted at a time, at most (a larger cell goes alone); lower it if memory runs out.
        device: where to compute, as in `predict`.
        ray: address of a Ray cluster whose actors are the workers, one on each GPU; `auto` for the cluster that this
            machine belongs to. Inputs must be files, and lie with the output where all machines find them.
        progress: show a progress bar if it takes more than 2 s.

    Raises:
        ScreeningError: the folder holds a screening of another input, model or shard size, another process is at it, or
            it cannot be written.
        DataError: an input that is not there.
        CheckpointError: the model cannot be loaded.
        WorkerError: worker processes died again and again.
    """
    for name, value in (("shard_size", shard_size), ("n_workers", n_workers), ("max_atoms", max_atoms)):
        if value < 1:
            raise ScreeningError(f"{name} = {value}: must be at least 1")
    folder = Path(output).expanduser()
    model = ready(model, device)
    work = plan(structures, shard_size, progress)
    if ray is not None and not isinstance(work, FilePlan):
        raise ScreeningError("a Ray cluster reads its inputs itself: give files, not structures in memory")
    with _locked(folder):
        manifest = _settled(folder, work, model)
        run = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
        done = {
            number: result
            for number in numbers_there(folder)
            if (result := read_result(path_of(folder, number), run)) is not None
        }
        n_before = sum(result.n_structures for result in done.values())
        screener = Screener(model, folder, run, max_atoms)
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
            elif n_workers > 1:
                results = compute_in_processes(left, screener, bar.update, n_workers)
            else:
                results = compute_here(left, screener, bar.update)
            try:
                with closing(results):  # which stops the workers, whatever happens
                    for result in results:
                        done[result.number] = result
            except KeyboardInterrupt:
                n_done = sum(result.n_structures for result in done.values())
                raise KeyboardInterrupt(
                    f"stopped; {n_done:,} structures are complete in {folder}, and the same command goes on from there"
                ) from None
    failures: Counter[str] = Counter()
    for result in done.values():
        failures.update(result.failures)
    n_structures = sum(result.n_structures for result in done.values())
    seconds = time.perf_counter() - started
    return Screening(folder, n_structures, len(done), n_structures - n_before, seconds, dict(failures))


def read_screen(
    folder: str | Path,
    where: str | None = None,
    top: int | None = None,
    by: str | None = None,
    lowest: bool = False,
) -> pandas.DataFrame:
    """The tables of a screening as one, in the order of the input; of one that is not complete, what there is.

    Tables are read one after another, so that a choice of few rows needs little memory.

    Args:
        where: rows to keep, as an expression of columns: `"formation_energy_per_atom < 0 and error.isna()"`.
        top: rows to keep, those with the highest values of the column `by`, highest first.
        lowest: those with the lowest values instead, lowest first.

    Raises:
        ScreeningError: no screening there, or a column or expression that does not fit it.
    """
    import pandas

    folder = Path(folder).expanduser()
    if not (folder / MANIFEST).is_file():
        raise ScreeningError(f"{folder}: holds no screening; name the folder that `crystalframer screen` wrote to")
    if (top is None) != (by is None):
        raise ScreeningError("top and by go together: how many rows, and the column that decides")
    kept: pandas.DataFrame | None = None
    for number in numbers_there(folder):
        frame = shard_files.read(path_of(folder, number))
        if by is not None and (by not in frame or not pandas.api.types.is_numeric_dtype(frame[by])):
            numeric = frame.select_dtypes("number").columns
            raise ScreeningError(f"by = {by!r} is no column of numbers; choose from {', '.join(numeric)}")
        if where is not None:
            frame = _chosen(frame, where)
        kept = frame if kept is None else pandas.concat([kept, frame], ignore_index=True)
        if top is not None and by is not None:
            kept = kept.dropna(subset=[by]).sort_values([by], ascending=lowest, kind="stable").head(top)
        kept.attrs = frame.attrs
    if kept is None:
        raise ScreeningError(f"{folder}: no table is complete yet; let the screening go on")
    return kept.reset_index(drop=True)


def _chosen(frame: pandas.DataFrame, where: str) -> pandas.DataFrame:
    try:
        chosen = frame.query(where, engine="python")
    except Exception as error:  # pandas and Python's parser raise what they like
        raise ScreeningError(
            f"where = {where!r} cannot be evaluated ({error}); the columns are {', '.join(frame)}"
        ) from error
    chosen.attrs = frame.attrs
    return chosen


def _left(work: FilePlan | StreamPlan, folder: Path, done: dict[int, ShardResult]) -> Iterator[Shard]:
    """Shards to compute. Of a stream, what is there is compared with what comes."""
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
                f"{path} was made of other structures: {expected[0]} from {expected[1]!r} on, and now there are "
                f"{found[0]} from {found[1]!r} on; give the same structures in the same order, or another folder"
            )


def _settled(folder: Path, work: FilePlan | StreamPlan, model: CrystalFramer) -> dict[str, Any]:
    """What the screening is known by: as the folder has it, if that is the same, else written there.

    Raises:
        ScreeningError: the folder holds another screening.
    """
    description = {
        "format_version": 1,
        "inputs": [asdict(entry) for entry in work.inputs],
        "n_structures": work.n_structures if isinstance(work, FilePlan) else None,
        "model": digest(model),
        "shard_size": work.shard_size,
    }
    file = folder / MANIFEST
    if file.exists():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))["screening"]
        except (ValueError, KeyError, TypeError) as error:
            raise ScreeningError(
                f"{file}: is damaged ({error!r}); choose another folder, or delete this one"
            ) from error
        differences = _differences(before, description)
        if differences:
            raise ScreeningError(
                f"{folder} holds a screening of something else: {'; '.join(differences)}. Choose another folder, or "
                "delete this one to begin anew"
            )
        return before
    if any(numbers_there(folder)) or path_of(folder, 0).exists():
        raise ScreeningError(f"{folder} holds tables of something else (part-*.parquet); choose another folder")
    about = {
        "screening": description,
        "crystalframer_version": __version__,
        "targets": {target.name: target.unit for target in model.config.targets},
    }
    files.write(file, json.dumps(about, indent=2))
    return description


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What two screenings do not have in common, in words."""
    found = []
    inputs = [[Input(**entry) for entry in description["inputs"]] for description in (before, now)]
    names = [", ".join(entry.given for entry in entries) for entries in inputs]
    if names[0] != names[1]:
        found.append(f"its input is {names[0]}, not {names[1]}")
    else:
        for old, new in zip(*inputs, strict=True):
            for name, unit in (("n_files", "files"), ("n_bytes", "bytes")):
                if getattr(old, name) != getattr(new, name):
                    found.append(f"{old.given} had {getattr(old, name):,} {unit}, and now has {getattr(new, name):,}")
            if old.digest != new.digest and (old.n_files, old.n_bytes) == (new.n_files, new.n_bytes):
                found.append(f"{old.given} has changed since (names or times of its files)")
    if before["model"] != now["model"]:
        found.append(f"its model has the digest {before['model']}, and this one {now['model']}")
    if before["shard_size"] != now["shard_size"]:
        found.append(f"its tables have {before['shard_size']:,} structures each, not {now['shard_size']:,}")
    if before["format_version"] != now["format_version"]:
        found.append("another version of crystalframer wrote it")
    if not found and before != now:
        found.append(f"{before['n_structures']:,} structures were found, and now {now['n_structures']:,}")
    return found


def digest(model: CrystalFramer) -> str:
    """Of all that a prediction depends on."""
    content = hashlib.sha256(to_json(model.config).encode())
    for name, tensor in sorted(model.state_dict().items()):
        content.update(name.encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    content.update(b"" if model.domain is None else to_json(model.domain).encode())
    content.update(b"" if model.uncertainty is None else model.uncertainty.to_bytes())
    return content.hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder, for one screening at a time; what a killed one left behind is removed."""
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
