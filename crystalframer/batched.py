"""From structures to rows: in batches, and in spite of structures that fail. Needs no torch by itself.

The model is a `CrystalFramer`, or an `ArrayModel`, which does without torch.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from jaxtyping import Float
from tqdm.auto import tqdm

from crystalframer import checkpoint, memory, result_tables
from crystalframer.config import ModelConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.crystals.loading import PreparedCrystals, batch_ends, prepare
from crystalframer.domain import RADIUS, vacuum
from crystalframer.errors import ConfigError, CrystalFramerError, DataError, is_of_machine
from crystalframer.model.arrays import ArrayModel
from crystalframer.model.outputs import Evaluated, with_probabilities
from crystalframer.outcomes import Columns, Outcome, Table, check_sizes, table, unread
from crystalframer.reading.entry import StructureRecord
from crystalframer.reading.inputs import expected_count, iter_structures, unique_ids
from crystalframer.reading.objects import is_instance
from crystalframer.surroundings import plain
from crystalframer.training_index import interval_inputs

BATCH_SIZE = 64
MAX_ATOMS = 1024
MAX_EDGES = 250_000
"""Neighbour pairs in a batch at most, twice as many as 1,024 atoms usually have: a limit for crystals whose atoms have
unusually many neighbours."""

FEW = 50
"""Structures that are predicted without torch on the CPU, if nothing else is asked for."""
ALMOST_TRAINED = 0.5
"""Distance from the nearest training crystal up to which vacuum is no reason for a flag: the Materials Project has
layers in vacuum, too. Of its validation crystals 1.8 % are such layers, nine of ten of them nearer than this."""
WEIGHTED_MARGIN = 0.1
"""`FrameConfig.weighted_margin` in evaluations of models that were trained without one. It is far above the rounding of
float32 logits."""

Item = TypeVar("Item")
_Values = Float[np.ndarray, " n_outputs"]


class HasName(Protocol):
    """A result of one structure."""

    @property
    def id(self) -> str: ...
    @property
    def formula(self) -> str: ...


Named = TypeVar("Named", bound=HasName)


def summing(model: Any) -> Any:
    """The model, evaluated by weighted sets of frames if its method has them and it was trained to choose one frame."""
    frame = model.config.frame
    chooses = frame.promises.has_weighted_sets and frame.weighted_margin == 0
    return model.with_weighted_sets(WEIGHTED_MARGIN) if chooses else model


def without_torch(
    structures: Sequence[str], model: Path | str | None, device: str | None, as_trained: bool
) -> ArrayModel | None:
    """The model for paths and patterns of a few structures, ready before torch would be imported.

    None for more structures, which a GPU may predict sooner, for another device, and for a model that needs torch.

    Raises:
        CheckpointError: the model cannot be loaded.
    """
    count = expected_count(list(structures)) if device in (None, "cpu") else None
    if count is None or count > FEW:
        return None
    found = checkpoint.load_arrays(model)
    return found if found is None or as_trained else summing(found)


def predicted(
    structures: Any,
    model: Any,
    batch_size: int,
    max_atoms: int,
    progress: bool,
    form: Callable[[Table], Any] = lambda rows: rows,
) -> Any:
    """The table of predictions, in the form that `form` gives it: as columns, if it is left out."""

    def of_batch(records: Sequence[StructureRecord]) -> Iterator[Outcome]:
        return outcomes_of_batch(records, model)

    def framed(outcomes: Sequence[Outcome], ids: list[str]) -> Any:
        return form(table(outcomes, columns(model)).called(ids))

    return tabulated(structures, of_batch, framed, batch_size, max_atoms, progress)


def tabulated(
    structures: Any,
    of_batch: Callable[[Sequence[StructureRecord]], Iterator[Named]],
    framed: Callable[[Sequence[Named], list[str]], Any],
    batch_size: int,
    max_atoms: int,
    progress: bool,
    title: str = "predicting",
) -> Any:
    """The table of what is computed for each structure. It has the index of the structures, if it has their rows.

    Args:
        structures, batch_size, max_atoms, progress: as in `predict`.
        of_batch: the results of some structures, in their order.
        framed: makes the table of all results and their ids, which are unique.
        title: text of the progress bar.

    Raises:
        Exception: as `predict`.
    """
    items: list[int | None] = []
    stopped: list[Exception] = []
    records = _noting_items(until_error(iter_structures(structures), stopped), items)
    results = _in_batches(records, of_batch, batch_size, max_atoms)
    found = list(_with_progress(results, expected_count(structures), progress, title))
    frame = framed(found, unique_ids([result.id for result in found], {result.formula for result in found}))
    if stopped:
        raise _with_rows_kept(stopped[0], frame)
    has_items = None not in items and len(frame) == len(items)  # not for a Series that is one structure by itself
    if _has_index(structures) and has_items:
        frame.index = structures.index.take(items)
    return frame


def columns(model: Any) -> Columns:
    """The columns of the table of its predictions."""
    has = [part is not None for part in (model.uncertainty, model.domain, model.index, model.soundness)]
    return Columns(model.config.targets, *has)


def until_error(items: Iterable[Item], stopped: list[Exception]) -> Iterator[Item]:
    """The items up to the first error of the iterator, which is put into `stopped` instead of being raised."""
    try:
        yield from items
    except Exception as error:
        stopped.append(error)


def _with_rows_kept(error: Exception, frame: Any) -> Exception:
    """The error of an iterator of structures, with a note that says where the rows are that were predicted before."""
    if len(frame):
        try:
            file = Path(tempfile.mkdtemp(prefix="crystalframer-")) / "predicted.csv"
            result_tables.save_table(frame.frame() if isinstance(frame, Table) else frame, file)
            kept = f"their rows are in {file}"
        except (OSError, DataError) as problem:
            kept = f"their rows are lost ({problem})"
        error.add_note(f"{len(frame):,} structures were predicted before this error of the iterator; {kept}")
    return error


def _has_index(structures: Any) -> bool:
    """Whether predictions take the index of their structures. That of a Series with unique names is a column, `id`."""
    if is_instance(structures, "pandas", "Series"):
        return not (structures.index.inferred_type == "string" and structures.index.is_unique)
    return is_instance(structures, "pandas", "DataFrame")


def _noting_items(records: Iterable[StructureRecord], items: list[int | None]) -> Iterator[StructureRecord]:
    for record in records:
        items.append(record.item)
        yield record


class Prediction(NamedTuple):
    """These fields of an `Outcome`."""

    values: _Values
    low: _Values
    high: _Values
    outside_training: str | None
    nearest: str | None
    distance: float
    not_relaxed: str | None


class Failure(NamedTuple):
    """Why a crystal has no result."""

    reason: str
    of_machine: bool = False


def _in_batches(
    records: Iterable[StructureRecord],
    of_batch: Callable[[Sequence[StructureRecord]], Iterator[Named]],
    batch_size: int,
    max_atoms: int,
) -> Iterator[Named]:
    """Results in the order of the records; at most one batch of them is in memory."""
    check_sizes(batch_size=batch_size, max_atoms=max_atoms)
    waiting: list[StructureRecord] = []
    n_atoms = 0
    for record in records:
        size = len(record.crystal) if record.crystal else 0
        if waiting and (len(waiting) == batch_size or n_atoms + size > max_atoms):
            yield from of_batch(waiting)
            waiting, n_atoms = [], 0
        waiting.append(record)
        n_atoms += size
    yield from of_batch(waiting)


def outcomes_of_batch(records: Sequence[StructureRecord], model: Any) -> Iterator[Outcome]:
    """An outcome for each record; the crystals are predicted together where they can be."""
    predictions = iter(for_each([record.crystal for record in records if record.crystal], model, _predict))
    nothing = np.full(len(model.config.outputs), np.nan)
    for record in records:
        result = next(predictions) if record.crystal else None
        if result is None:
            yield unread(record, len(nothing))
        elif isinstance(result, Failure):
            yield Outcome(record.id, record.formula, nothing, nothing, nothing, None, *result)
        else:
            yield Outcome(record.id, record.formula, error=None, **result._asdict())


@plain()
def for_each(
    crystals: Sequence[Crystal],
    model: Any,
    compute: Callable[[Any, Any], Sequence[Item | Failure]],
) -> list[Item | Failure]:
    """The result of each crystal, or why there is none. A batch that fails is tried again crystal by crystal.

    Args:
        model: a `CrystalFramer`, or an `ArrayModel`.
        compute: the results of a batch of crystals, or of one large crystal.

    Raises:
        ConfigError: a setting that would fail for every crystal alike.
    """
    if not crystals:
        return []
    try:
        packed = prepare(crystals, model.config.radius, enlarge=model.config.enlarges_radius)
        return _computed(packed, model, compute)
    except ConfigError:
        raise
    except Exception as error:  # whatever it is, it must cost no more than the crystal that it is about
        failure, unknown = _failure(error, crystals), f"the prediction failed ({type(error).__name__}: {error})"
    # Outside the handler, which would keep the tensors of the failed batch in memory.
    if len(crystals) > 1:
        return [result for crystal in crystals for result in for_each([crystal], model, compute)]
    # An error that nobody knows: of the machine if not even rock salt can be predicted now.
    return [failure or Failure(unknown, of_machine=not is_working(model))]


def _failure(error: Exception, crystals: Sequence[Crystal]) -> Failure | None:
    """None if the error does not say whether it is one of the crystals or of the machine."""
    if memory.is_out_of_memory(error):
        n_atoms = sum(map(len, crystals))
        reason = f"{n_atoms:,} atoms need more memory than there is; use a machine or device with more"
        return Failure(reason, of_machine=True)
    if isinstance(error, CrystalFramerError):
        return Failure(str(error), is_of_machine(error))
    return Failure(f"the machine failed ({type(error).__name__}: {error})", True) if is_of_machine(error) else None


@plain()
def is_working(model: Any) -> bool:
    """Whether the model can predict rock salt: if not, the machine fails, whatever the structure."""
    lattice = 2.82 * (np.ones((3, 3)) - np.eye(3))
    salt = Crystal(np.array([11, 17]), np.array([[0.0, 0.0, 0.0], [2.82, 2.82, 2.82]]), lattice)
    try:
        packed = prepare([salt], model.config.radius, enlarge=model.config.enlarges_radius)
        (result,) = _computed(packed, model, _predict)
    except Exception:
        return False
    return not (isinstance(result, Failure) and result.of_machine)


def _computed(
    packed: PreparedCrystals,
    model: Any,
    compute: Callable[[Any, Any], Sequence[Item | Failure]],
) -> list[Item | Failure]:
    """As `for_each`, in batches that fit into memory."""
    results: dict[int, Item | Failure] = {**_too_large(packed, model)}
    rows = np.array([row for row in range(len(packed)) if row not in results], dtype=np.int64)
    ends = batch_ends([(packed.n_edges[rows], MAX_EDGES)], len(rows), len(packed))
    for batch in np.split(rows, ends)[: len(ends)]:
        is_large = packed.n_edges[batch].sum() > MAX_EDGES  # and so alone
        crystals = ChunkedCrystal(packed, int(batch[0]), MAX_EDGES) if is_large else model.batch_of(packed, batch)
        results |= dict(zip(batch.tolist(), compute(crystals, model), strict=True))
    return [results[row] for row in range(len(packed))]


def _predict(crystals: Any, model: Any) -> list[Prediction | Failure]:
    return predictions(model.evaluate(crystals), crystals, model)


def predictions(evaluated: Evaluated, crystals: Any, model: Any) -> list[Prediction | Failure]:
    """What is said of each crystal of a batch, or of one large crystal.

    Args:
        evaluated: what the model computes for them (`evaluate`).
        crystals: a batch in the memory of the CPU, or a `ChunkedCrystal`.
    """
    outputs, pooled, kinds = evaluated
    values = with_probabilities(outputs, model.config)
    low, high = np.full_like(values, np.nan), np.full_like(values, np.nan)
    unlike = outside = isolated = altered = not_relaxed = nearest = [None] * len(values)
    distance = [math.nan] * len(values)
    if pooled is not None and (model.uncertainty is not None or model.index is not None):
        finite = np.nan_to_num(pooled, posinf=0.0, neginf=0.0)
        inputs, found = interval_inputs(model.index, finite)
        if model.uncertainty is not None:
            names = model.config.scalar_names
            known = [model.config.scalar_columns[names.index(name)] for name in model.uncertainty.target_names]
            low[:, known], high[:, known] = model.uncertainty.ends(values[:, known], inputs)
            values[:, known] = model.uncertainty.bounded(values[:, known])
        if model.index is not None and found is not None:
            columns, is_known = model.config.scalar_columns, model.index.has_label_around(found)
            for ends in (low, high):
                ends[:, columns] = np.where(is_known, ends[:, columns], np.nan)
            unlike = model.index.unlike(found)
            nearest, distance = (
                [model.index.name(row) for row in found.row[:, 0].tolist()],
                found.distance[:, 0].tolist(),
            )
    if model.domain is not None:
        outside = model.domain.outside(crystals)
        isolated = [
            None if away <= ALMOST_TRAINED else words
            for words, away in zip(vacuum(crystals, min(RADIUS, model.config.radius)), distance, strict=True)
        ]
    if kinds is not None:
        altered, not_relaxed = model.soundness.flags(kinds)
    why_not = [_why_not_finite(value, model.config) for value in values]
    flags = [
        "; ".join(filter(None, reasons)) or None for reasons in zip(outside, isolated, unlike, altered, strict=True)
    ]
    rows = zip(values, low, high, flags, nearest, distance, not_relaxed, strict=True)
    return [failure or Prediction(*row) for failure, row in zip(why_not, rows, strict=True)]


def _too_large(packed: PreparedCrystals, model: Any) -> dict[int, Failure]:
    """Rows of the crystals that do not fit into memory, and why."""
    device, dtype = model.target_mean.device, model.target_mean.dtype
    sizes = [(int(n_atoms), int(n_edges)) for n_atoms, n_edges in zip(packed.n_atoms, packed.n_edges, strict=True)]
    needed = [memory.memory_needed(model.config, *size, device, dtype, max_edges=MAX_EDGES) for size in sizes]
    reasons: dict[int, Failure] = {}
    for row in sorted(range(len(sizes)), key=needed.__getitem__, reverse=True):
        missing = memory.shortage(model.config, *sizes[row], device, dtype, max_edges=MAX_EDGES)
        if missing is None:  # nor for those that need less
            break
        reasons[row] = Failure(
            f"the crystal does not fit into memory: its {missing}; use a device with more memory, or a smaller cell of "
            "the same crystal",
            of_machine=True,
        )
    return reasons


def _why_not_finite(values: _Values, config: ModelConfig) -> Failure | None:
    bad = np.flatnonzero(~np.isfinite(values))
    if not bad.size:
        return None
    name, value = config.outputs[bad[0]].name, values[bad[0]]
    return Failure(f"the model predicts {name} = {value}; check the distances between atoms")


def _with_progress(outcomes: Iterator[Item], total: int | None, progress: bool, title: str) -> Iterator[Item]:
    # Where nothing can be wiped off (a log file, a pipe) the finished bar stays, and what follows begins a new line.
    leave = not sys.stderr.isatty()
    yield from tqdm(outcomes, title, total, unit=" crystals", delay=2, leave=leave, disable=not progress)
