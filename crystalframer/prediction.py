"""Predictions of a trained model for many structures, and traces of single ones."""

from __future__ import annotations

import copy
import datetime
import functools
import inspect
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from tqdm.auto import tqdm

from crystalframer import checkpoint, devices, memory, result_tables
from crystalframer._moved import moved_names
from crystalframer._version import __version__
from crystalframer.config import ModelConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.crystals.loading import PreparedCrystals, batch_ends, prepare
from crystalframer.domain import RADIUS, vacuum
from crystalframer.errors import (
    ConfigError,
    CrystalError,
    CrystalFramerError,
    DataError,
    Setting,
    is_of_machine,
)
from crystalframer.maths.segments import segment_mean
from crystalframer.model.network import CrystalFramer, crystal_index
from crystalframer.model.outputs import with_probabilities
from crystalframer.notes import PredictionNotes
from crystalframer.outcomes import FLAGS, Columns, Outcome, check_sizes, table, unread
from crystalframer.reading.entry import StructureRecord
from crystalframer.reading.inputs import expected_count, iter_structures, read, unique_ids
from crystalframer.reading.objects import is_instance
from crystalframer.surroundings import plain
from crystalframer.traces import CrystalTrace
from crystalframer.training_index import interval_inputs

if TYPE_CHECKING:
    import pandas

BATCH_SIZE = 64
MAX_ATOMS = 1024
MAX_EDGES = 250_000
"""Neighbour pairs in a batch at most, twice as many as 1,024 atoms usually have: a limit for crystals whose atoms have
unusually many neighbours."""
ALMOST_TRAINED = 0.5
"""Distance from the nearest training crystal up to which vacuum is no reason for a flag: the Materials Project has
layers in vacuum, too. Of its validation crystals 1.8 % are such layers, nearly all within 0.34, and 40 slabs that were
cut from others are all beyond 0.55."""
WEIGHTED_MARGIN = 0.1
"""`FrameConfig.weighted_margin` in evaluations of models that were trained without one. It is far above the rounding of
float32 logits."""

if not TYPE_CHECKING:
    _SCORES = dict.fromkeys(("Evaluation", "TargetScore", "calibrate", "evaluate"), "crystalframer.evaluation")
    __getattr__ = moved_names(__name__, {**_SCORES, "save_table": "crystalframer.result_tables"})

Function = TypeVar("Function", bound=Callable[..., Any])
Item = TypeVar("Item")


class HasName(Protocol):
    """A result of one structure."""

    @property
    def id(self) -> str: ...
    @property
    def formula(self) -> str: ...


Named = TypeVar("Named", bound=HasName)
_Values = Float[np.ndarray, " n_outputs"]


@plain()
def load(
    path: str | Path | None = None,
    device: torch.device | str | None = None,
    average_ties: bool | None = None,
    *,
    as_trained: bool = False,
) -> CrystalFramer:
    """Load a trained model, ready to predict.

    A model of the methods `max` or `static-max` that chooses one frame for each atom and head (as the paper does) is
    evaluated by weighted sets of frames: predictions of symmetric crystals then do not depend on how they are turned,
    and take up to twice as long. Its `config` stays the same, and so does what `save` writes.

    >>> import crystalframer as cf
    >>> model = cf.load()
    >>> model.config.frame.weighted_margin, model.evaluation_config.frame.weighted_margin
    (0.3, 0.3)
    >>> print(model.promises)  # doctest: +ELLIPSIS
    rotated crystals, other cells and mirror images have the same prediction; ...

    Args:
        path: a checkpoint folder, or the folder of a training run (its best checkpoint is taken). Default, and
            `package`: the weights that come with the package.
        device: `cpu`, `cuda`, ... Default: CUDA if there is such a device, else the CPU.
        average_ties: ends with the next release; False is `as_trained=True`.
        as_trained: choose one frame, if the model was trained with one. Changes nothing for the shipped weights.

    Raises:
        CheckpointError: no such checkpoint, or one that is damaged, of a newer format, or does not fit its config.
    """
    if average_ties is not None:
        now = "leave it out" if average_ties else "its new name is as_trained=True"
        warnings.warn(
            f"average_ties={average_ties} ends with the next release; {now}", DeprecationWarning, stacklevel=3
        )
        as_trained = not average_ties
    model = checkpoint.load(path, _usable(device) or ("cuda" if torch.cuda.is_available() else "cpu"))
    frame = model.config.frame
    sums = frame.promises.has_weighted_sets and frame.weighted_margin == 0 and not as_trained
    return model.with_weighted_sets(WEIGHTED_MARGIN) if sums else model


def predict(
    structures: Any,
    model: CrystalFramer | str | Path | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    max_atoms: int = MAX_ATOMS,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> pandas.DataFrame:
    """Predict properties of crystal structures.

    A structure that cannot be predicted has an error in its row and does not stop the others.

    >>> import crystalframer as cf
    >>> from crystalframer.testing import prototypes
    >>> list(cf.predict(prototypes()).columns)[:3]
    ['id', 'formula', 'formation_energy_per_atom']

    Args:
        structures: a structure (pymatgen, ASE, `Crystal`), the path of a structure file, folder, table or packed data
            set, a glob pattern, a DataFrame or `CrystalDataset`, a list of any of these, or a pandas Series or
            dictionary of structures or paths. Each is read when needed.
        model: a model, or the path of one. Default: the weights that come with the package.
        batch_size: largest number of crystals in a batch.
        max_atoms: largest number of atoms in a batch (a larger cell is alone in one). Lower it if memory runs out.
        device: where to compute. Default: the model's device; a model that is loaded goes to CUDA if there is any.
        progress: show a progress bar if it takes more than 2 s.

    Returns:
        One row per structure, in the order of the input, with the index of a DataFrame (of a Series too, unless it has
        unique names, which become the ids, as the keys of a dictionary do): `id`, `formula` (reduced), one column per
        target in its physical unit (`frame.attrs["units"]` maps target to unit), and `error`: why there is no
        prediction, else None. A calibrated model reports no value below 0 for a target whose labels cannot be negative,
        such as a band gap. A calibrated model (see `calibrate`) adds the prediction interval from `<target>_low` to
        `<target>_high`, which contains the true value for 90 % of crystals like those that it was calibrated on; the
        ends are NaN where no similar training crystal has a label of the target. A model that knows its training data
        adds `outside_training`: how the structure differs from all training crystals, else None. One that knows altered
        crystals (see `learn_soundness`) also says there if species seem exchanged or atoms missing, and adds
        `not_relaxed`: why the atoms seem not to be at rest, else None. One with an index of its training data adds
        `nearest_training`, id and formula of the most similar one, and `nearest_distance`: 1 is the median of the
        training crystals themselves (see `nearest_training`).

    Raises:
        CheckpointError: the model cannot be loaded.
        ConfigError: a batch size below 1, or a device that cannot be used.
        TypeError: structures and model were given in the wrong order.
        Exception: one that an iterator of structures raises. A note in it says how many rows were predicted before,
            and in which file they are.
    """
    if isinstance(structures, CrystalFramer):
        raise TypeError("the first argument is a model; the order is predict(structures, model)")
    model = ready(model, device)

    def of_batch(records: Sequence[StructureRecord]) -> Iterator[Outcome]:
        return outcomes_of_batch(records, model)

    def framed(outcomes: Sequence[Outcome], ids: list[str]) -> pandas.DataFrame:
        return table(outcomes, columns(model)).assign(id=ids)

    return tabulated(structures, of_batch, framed, batch_size, max_atoms, progress)


def tabulated(
    structures: Any,
    of_batch: Callable[[Sequence[StructureRecord]], Iterator[Named]],
    framed: Callable[[Sequence[Named], list[str]], pandas.DataFrame],
    batch_size: int,
    max_atoms: int,
    progress: bool,
    title: str = "predicting",
) -> pandas.DataFrame:
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


def columns(model: CrystalFramer) -> Columns:
    """The columns of the table of its predictions."""
    has = [part is not None for part in (model.uncertainty, model.domain, model.index, model.soundness)]
    return Columns(model.config.targets, *has)


def until_error(items: Iterable[Item], stopped: list[Exception]) -> Iterator[Item]:
    """The items up to the first error of the iterator, which is put into `stopped` instead of being raised."""
    try:
        yield from items
    except Exception as error:
        stopped.append(error)


def _with_rows_kept(error: Exception, frame: pandas.DataFrame) -> Exception:
    """The error of an iterator of structures, with a note that says where the rows are that were predicted before."""
    if len(frame):
        try:
            file = Path(tempfile.mkdtemp(prefix="crystalframer-")) / "predicted.csv"
            result_tables.save_table(frame, file)
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


@plain()
def trace(
    structure: Any,
    model: CrystalFramer | str | Path | None = None,
    *,
    sites: Sequence[int] | None = None,
    within: float = 0.0,
    device: torch.device | str | None = None,
) -> CrystalTrace:
    """Record the attention and the frames of every layer for one structure, and the prediction.

    >>> import crystalframer as cf
    >>> from crystalframer.testing import prototypes
    >>> cf.trace(prototypes()[0]).n_layers
    4

    Args:
        structure: a structure, or the path of a file with one (see `read`).
        model: a model, or the path of one. Default: the weights that come with the package.
        sites: atoms to record, counted from 0; for large cells, such as atoms near a defect. They attend to the whole
            structure, and the prediction is that of the whole structure. Default: all atoms.
        within: also record the atoms within this distance (Å) of the sites, at most the neighbour radius of the model.
        device: where to compute, as in `predict`.

    Returns:
        The record (NumPy arrays). The figures of the package `viz` need nothing else.

    Raises:
        CrystalError: a structure that the model cannot take or that is too large to be traced whole, or no such site.
        CheckpointError: the model cannot be loaded.
    """
    model = ready(model, device)
    crystal = read(structure)
    prepared = prepare([crystal], model.config.radius, enlarge=model.config.enlarges_radius)
    weights = model.target_mean
    if sites is None:
        memory.check_trace(crystal, len(crystal), int(prepared.n_edges[0]), model.config, model.target_mean)
        record = _bounded(model.trace(prepared.batch([0], weights.dtype).to(weights.device))[0], model)
        return replace(record, notes=notes(crystal, model))
    chunked = ChunkedCrystal(prepared, 0, MAX_EDGES)
    atoms = _region(crystal, chunked, np.asarray(sites, dtype=np.int64), within, model.config)
    memory.check_trace(
        crystal, len(atoms), int(prepared.neighbors.edges_per_atom[atoms].sum()), model.config, model.target_mean
    )
    record = _bounded(model.trace_atoms(chunked, atoms), model)
    return replace(record, notes=notes(crystal, model))


def _bounded(trace: CrystalTrace, model: CrystalFramer) -> CrystalTrace:
    """The trace with the prediction that `predict` gives: not below the value below which the target cannot lie."""
    if model.uncertainty is None:
        return trace
    lowest = dict(zip(model.uncertainty.target_names, model.uncertainty.lowest.tolist(), strict=True))
    prediction = {name: max(value, lowest.get(name, -math.inf)) for name, value in trace.prediction.items()}
    return replace(trace, prediction=prediction)


def notes(crystal: Crystal, model: CrystalFramer) -> PredictionNotes:
    """Intervals and flags of the predictions for a crystal, and which model makes them."""
    origin = PredictionNotes(model=model.source, version=__version__, date=datetime.date.today().isoformat())
    has = columns(model)
    if not (has.has_intervals or has.has_flags or has.has_nearest or has.has_soundness):
        return origin
    (outcome,) = outcomes_of_batch([StructureRecord(crystal.id, crystal.name, crystal, None)], model)
    names = [output.name for output in model.config.outputs]
    ends = zip(names, outcome.low.tolist(), outcome.high.tolist(), strict=True)
    reasons = {title: getattr(outcome, column) for column, title in FLAGS.items()}
    return replace(
        origin,
        intervals={name: (low, high) for name, low, high in ends if math.isfinite(low) and math.isfinite(high)},
        coverage=None if model.uncertainty is None else model.uncertainty.coverage,
        flags={title: reason for title, reason in reasons.items() if reason},
    )


def _region(
    crystal: Crystal, chunked: ChunkedCrystal, sites: Int64[np.ndarray, " n_sites"], within: float, config: ModelConfig
) -> Int64[np.ndarray, " n_atoms"]:
    """These sites in the order given, then the others around them."""
    bad = sites[(sites < 0) | (sites >= len(crystal))]
    if bad.size:
        raise CrystalError(
            f"{crystal.name}: there is no site {bad[0]}; choose from 0 to {len(crystal) - 1:,}", site=int(bad[0])
        )
    if not sites.size:
        raise CrystalError(f"{crystal.name}: no sites are named; name at least one, or leave them out for all atoms")
    if not 0.0 <= within <= config.radius:
        limits = f" Å: must be from 0 to the neighbour radius of the model, {config.radius:.2f} Å; name more sites"
        raise CrystalError(f"{crystal.name}: ", Setting("within", within), limits, field="within", value=within)
    edges = chunked.edges_from(sites)
    near = edges.index[1][np.linalg.norm(edges.vectors, axis=1) <= within]
    return np.concatenate([list(dict.fromkeys(sites.tolist())), np.setdiff1d(near, sites)]).astype(np.int64)


class _Prediction(NamedTuple):
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
    check_sizes(batch_size, max_atoms)
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


def outcomes_of_batch(records: Sequence[StructureRecord], model: CrystalFramer) -> Iterator[Outcome]:
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
    model: CrystalFramer,
    compute: Callable[[CrystalBatch | ChunkedCrystal, CrystalFramer], Sequence[Item | Failure]],
) -> list[Item | Failure]:
    """The result of each crystal, or why there is none. A batch that fails is tried again crystal by crystal.

    Args:
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
def is_working(model: CrystalFramer) -> bool:
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
    model: CrystalFramer,
    compute: Callable[[CrystalBatch | ChunkedCrystal, CrystalFramer], Sequence[Item | Failure]],
) -> list[Item | Failure]:
    """As `for_each`, in batches that fit into memory."""
    results: dict[int, Item | Failure] = {**_too_large(packed, model)}
    rows = np.array([row for row in range(len(packed)) if row not in results], dtype=np.int64)
    ends = batch_ends([(packed.n_edges[rows], MAX_EDGES)], len(rows), len(packed))
    for batch in np.split(rows, ends)[: len(ends)]:
        is_large = packed.n_edges[batch].sum() > MAX_EDGES  # and so alone
        dtype = model.target_mean.dtype
        crystals = ChunkedCrystal(packed, int(batch[0]), MAX_EDGES) if is_large else packed.batch(batch, dtype)
        results |= dict(zip(batch.tolist(), compute(crystals, model), strict=True))
    return [results[row] for row in range(len(packed))]


def _predict(crystals: CrystalBatch | ChunkedCrystal, model: CrystalFramer) -> list[_Prediction | Failure]:
    with torch.inference_mode():
        kinds = None
        if model.soundness is not None:
            layers = list(model.layers_of(crystals))
            index, n_crystals = crystal_index(crystals, layers[-1].device)
            kinds = model.soundness.log_probabilities(layers, index, n_crystals)
            pooled = segment_mean(layers[-1], index, n_crystals)
            predicted = model.read_out(pooled)
        elif isinstance(crystals, CrystalBatch) and model.uncertainty is None and model.index is None:
            pooled, predicted = None, model(crystals.to(model.target_mean.device))
        else:
            pooled = model.pooled_features_of(crystals)
            predicted = model.read_out(pooled)
    values = with_probabilities(predicted.double(), model.config).cpu().numpy()
    low, high = np.full_like(values, np.nan), np.full_like(values, np.nan)
    unlike = outside = isolated = altered = not_relaxed = nearest = [None] * len(values)
    distance = [math.nan] * len(values)
    if pooled is not None and (model.uncertainty is not None or model.index is not None):
        finite = np.nan_to_num(pooled.float().cpu().numpy(), posinf=0.0, neginf=0.0)
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
    if model.soundness is not None and kinds is not None:
        altered, not_relaxed = model.soundness.flags(kinds)
    why_not = [_why_not_finite(value, model.config) for value in values]
    flags = [
        "; ".join(filter(None, reasons)) or None for reasons in zip(outside, isolated, unlike, altered, strict=True)
    ]
    rows = zip(values, low, high, flags, nearest, distance, not_relaxed, strict=True)
    return [failure or _Prediction(*row) for failure, row in zip(why_not, rows, strict=True)]


def _too_large(packed: PreparedCrystals, model: CrystalFramer) -> dict[int, Failure]:
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


@plain()
def ready(model: CrystalFramer | str | Path | None, device: torch.device | str | None) -> CrystalFramer:
    """The model on the device. A model of the caller is copied, not moved."""
    if model is not None and not isinstance(model, (CrystalFramer, str, Path)):
        raise TypeError(
            f"the model is of type {type(model).__name__}; it must be a CrystalFramer or the path of one, and "
            "comes second, as in predict(structures, model)"
        )
    if not isinstance(model, CrystalFramer):
        return load(model, device)
    where = _usable(device)
    return model if where in (None, model.target_mean.device) else copy.deepcopy(model).to(where)


def model_second(function: Function) -> Function:
    """Let a function that takes the model second take it first, as release 0.1 did, with a warning."""

    thing = next(iter(inspect.signature(function).parameters))

    @functools.wraps(function)
    def in_either_order(*arguments: Any, **named: Any) -> Any:
        if not (arguments and thing in named) and not _is_model_first(*arguments):
            return function(*arguments, **named)
        name = function.__name__
        warnings.warn(
            f"{name}(model, ...) is the order of release 0.1 and ends with the next release; give the model second, or "
            f"by name: {name}(..., model=...)",
            DeprecationWarning,
            stacklevel=2,
        )
        model, *rest = arguments
        return function(rest[0], model, *rest[1:], **named) if rest else function(model=model, **named)

    return in_either_order  # type: ignore[return-value]


def _is_model_first(first: Any = None, *rest: Any) -> bool:
    if first is None:  # the weights that come with the package, if what follows is no model
        return bool(rest) and rest[0] is not None and not _is_model(rest[0])
    return _is_model(first)


def _is_model(value: Any) -> bool:
    return isinstance(value, CrystalFramer) or (isinstance(value, (str, Path)) and checkpoint.is_checkpoint(value))


def _usable(device: torch.device | str | None) -> torch.device | None:
    """The device, if torch can compute there."""
    if device is None:
        return None
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        reason = str(error).partition("\n")[0]
        message = f"cannot be used here ({reason}); {devices.remedy(str(device))}"
        raise ConfigError(message, field="device", value=str(device)) from error


def _with_progress(outcomes: Iterator[Item], total: int | None, progress: bool, title: str) -> Iterator[Item]:
    # Where nothing can be wiped off (a log file, a pipe) the finished bar stays, and what follows begins a new line.
    leave = not sys.stderr.isatty()
    yield from tqdm(outcomes, title, total, unit=" crystals", delay=2, leave=leave, disable=not progress)
