"""Using a trained model: tables of predictions, scores on labelled data, traces of single crystals."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from tqdm.auto import tqdm

from crystalframer import checkpoint, files, memory
from crystalframer.config import ModelConfig, Target
from crystalframer.crystals.crystal import Crystal, CrystalBatch
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.crystals.loading import PreparedCrystals, batch_ends, prepare
from crystalframer.datasets import sources
from crystalframer.datasets.dataset import PARTS, CrystalDataset
from crystalframer.errors import CheckpointError, ConfigError, CrystalError, CrystalFramerError, DataError
from crystalframer.model.network import CrystalFramer
from crystalframer.reading.entry import StructureRecord
from crystalframer.reading.formats import table_writer
from crystalframer.reading.inputs import expected_count, iter_structures, read
from crystalframer.traces import CrystalTrace
from crystalframer.uncertainty import Uncertainty, calibrated

if TYPE_CHECKING:
    import pandas

PRETRAINED = Path(__file__).parent / "pretrained"
"""The checkpoint that comes with the package."""
BATCH_SIZE = 64
MAX_ATOMS = 1024
MAX_EDGES = 250_000
"""Twice what 1,024 atoms have: crystals whose atoms have unusually many neighbours go in smaller batches."""

ENOUGH_FOR_BIAS, LARGE_BIAS = 20, 0.5
"""Labels from which on a mean deviation says something, and the share of the MAE from which on it is said."""
AVERAGE_MARGIN = 0.1
"""Of logits: wide beside their rounding in float32, which the weights of frames follow."""

Part = Literal["train", "validation", "test"]
_Values = Float[np.ndarray, " n_targets"]


def load(
    path: str | Path | None = None, device: torch.device | str | None = None, average_ties: bool = False
) -> CrystalFramer:
    """A trained model, ready to predict.

    Args:
        path: a checkpoint directory, or the folder of a training run (its best checkpoint is taken). Default: the
            weights that come with the package.
        device: `cpu`, `cuda`, ... Default: CUDA if there is such a device, else the CPU.
        average_ties: where symmetry makes frames tie, average over them (`AVERAGE_MARGIN`) instead of choosing one.
            Then predictions for symmetric crystals do not depend on how they are turned, beyond rounding, and take
            twice as long on a CPU; a GPU has no kernel for it and computes as the reference does. For `max` and
            `static-max`.

    Raises:
        CheckpointError: no such checkpoint, or one that is damaged, of a newer format, or does not fit its config.
        ConfigError: frames of this model are not averaged.
    """
    if path is None:
        if not (PRETRAINED / checkpoint.CONFIG_FILE).exists():
            raise CheckpointError(
                "no trained weights come with this build of crystalframer; name a model of yours (a folder written by "
                "`crystalframer train` or `crystalframer.fit`)"
            )
        path = PRETRAINED
    model = checkpoint.load(path, _usable(device) or ("cuda" if torch.cuda.is_available() else "cpu"))
    return model.averaging_ties(AVERAGE_MARGIN) if average_ties else model


def predict(
    structures: Any,
    model: CrystalFramer | str | Path | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    max_atoms: int = MAX_ATOMS,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> pandas.DataFrame:
    """Predict properties of structures; one that cannot be predicted does not stop the others.

    Args:
        structures: a structure (pymatgen, ASE, `Crystal`), the path of a structure file, folder, table or packed data
            set, a glob pattern, a DataFrame or `CrystalDataset`, or a list of any of these. Read as they are needed.
        model: a model, or the path of one. Default: the weights that come with the package.
        batch_size: crystals predicted at a time, at most.
        max_atoms: atoms predicted at a time, at most (a larger cell goes alone); lower it if memory runs out.
        device: where to compute. Default: where the model is; one that is loaded here goes to CUDA if there is any.
        progress: show a progress bar if it takes more than 2 s.

    Returns:
        One row per structure, in the order of the input: `id`, `formula` (reduced), one column per target in its
        physical unit (`frame.attrs["units"]` maps target to unit), and `error`: why there is no prediction, else None.
        A calibrated model (`calibrate`) gives `<target>_low` and `<target>_high` as well, between which the true value
        lies for 90 % of crystals like those that it was calibrated on; one that knows what it was trained on gives
        `outside_training`: what sets the structure apart from all training crystals, else None.

    Raises:
        CheckpointError: the model cannot be loaded.
        TypeError: structures and model were given the wrong way round.
    """
    if isinstance(structures, CrystalFramer):
        raise TypeError("the first argument is a model; the order is predict(structures, model)")
    model = ready(model, device)
    outcomes = _outcomes(iter_structures(structures), model, batch_size, max_atoms)
    rows = list(_with_progress(outcomes, expected_count(structures), progress))
    return table(rows, model)


@dataclass(frozen=True)
class TargetScore:
    """How well one target is predicted; errors in its unit."""

    target: Target
    n_crystals: int
    """Crystals with a label and a prediction: those that the numbers are about."""
    mae: float
    rmse: float
    r2: float
    """1 - Σ(label - prediction)²/Σ(label - mean label)²; NaN for fewer than two different labels."""
    baseline_mae: float
    """MAE of predicting the mean of the model's training labels for every crystal."""
    bias: float = float("nan")
    """Mean of prediction - label."""
    covered: float = float("nan")
    """Share of the labels that lie in their interval; NaN for a model that is not calibrated."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Predictions on labelled crystals, and their scores."""

    crystals: pandas.DataFrame
    """One row per crystal and target: `id`, `formula`, `target`, `label` (NaN if missing), `prediction` (NaN if there
    is none), `deviation` (prediction - label), all in the target's unit, and `error`: why there is no prediction. Of a
    calibrated model also `low` and `high`, the ends of the interval."""
    scores: Mapping[str, TargetScore]
    """Target name → score."""
    n_crystals: int
    n_failed: int
    """Crystals without a prediction; the scores leave them out."""
    n_train: int = 0
    """Crystals of the train part of the data set's own split, if all of it was scored."""
    coverage: float = float("nan")
    """Share of labels that the intervals of the model are made to hold."""

    def summary(self) -> str:
        """The scores as a table for a person."""
        failed = f", {self.n_failed} of them without a prediction (see `error`)" if self.n_failed else ""
        width = max(len(score.target.label) for score in self.scores.values())
        lines = [
            f"{self.n_crystals:,} crystals{failed}",
            f"{'target':<{width}}  {'labels':>7}  {'MAE':>9}  {'RMSE':>9}  {'R²':>7}  MAE of the training mean",
        ]
        for score in self.scores.values():
            share = f" (the model: {score.mae / score.baseline_mae:.0%} of it)" if score.baseline_mae > 0 else ""
            lines.append(
                f"{score.target.label:<{width}}  {score.n_crystals:>7,}  {score.mae:>9.4g}  {score.rmse:>9.4g}  "
                f"{score.r2:>7.3f}  {score.baseline_mae:.4g}{share}"
            )
        covered = [f"{s.covered:.1%} of {s.target.name}" for s in self.scores.values() if not math.isnan(s.covered)]
        if covered:
            lines.append(f"labels within their intervals ({self.coverage:.0%} asked for): {', '.join(covered)}")
        for score in self.scores.values():
            if score.n_crystals >= ENOUGH_FOR_BIAS and abs(score.bias) > LARGE_BIAS * score.mae:
                lies = f"{abs(score.bias):.3g} {score.target.unit} {'below' if score.bias < 0 else 'above'}"
                lines.append(
                    f"note: predictions of {score.target.name} lie {lies} the labels on average; are these of another "
                    "level of theory, or other crystals, than the model was trained on?"
                )
        if self.n_train:
            lines.append(
                f"note: {self.n_train:,} of the crystals are the train part of the data set's own split; a model that "
                'was trained on them knows them (part="test", or --split test, scores those it does not)'
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Evaluation: {self.summary()}"


def evaluate(
    model: CrystalFramer | str | Path | None,
    data: CrystalDataset | str | Path,
    *,
    part: Part | None = None,
    batch_size: int = BATCH_SIZE,
    max_atoms: int = MAX_ATOMS,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score a model on labelled crystals. Missing labels are left out.

    Args:
        model: a model, or the path of one; None for the weights that come with the package.
        data: a data set, or the name or path of one (see `dataset`). It needs every target of the model, in its unit.
        part: only the crystals of this part of the data set's own split. Default: all crystals.
        batch_size: as in `predict`, and so are the other arguments.

    Raises:
        DataError: the data set lacks a target (the nearest is named), has it in another unit, or lacks the part.
        CheckpointError: the model cannot be loaded.
    """
    import pandas

    model = ready(model, device)
    targets = model.config.targets
    data = data.with_targets(targets) if isinstance(data, CrystalDataset) else sources.dataset(data, targets=targets)
    n_train = int((data.parts == "train").sum()) if part is None and data.parts is not None else 0
    data = data if part is None else _part(data, part)
    records = (StructureRecord(crystal.id, crystal.id, crystal, None) for crystal in data)
    outcomes = _outcomes(records, model, batch_size, max_atoms)
    rows = list(_with_progress(outcomes, len(data), progress))
    failed = np.array([row.error is not None for row in rows], dtype=bool)
    means = model.target_mean.double().cpu().numpy()
    scores, frames = {}, []
    for column, target in enumerate(targets):
        label = data.targets[target.name]
        prediction = np.array([row.values[column] for row in rows], dtype=np.float64)
        scored = ~np.isnan(label) & ~failed
        half_width = np.array([row.half_widths[column] for row in rows], dtype=np.float64)
        scores[target.name] = _score(
            target, label[scored], prediction[scored], half_width[scored], float(means[column])
        )
        columns: dict[str, Any] = {"id": data.ids, "formula": data.formulas, "target": target.name, "label": label}
        columns |= {"prediction": prediction, "deviation": prediction - label}
        if model.uncertainty is not None:
            columns |= {"low": prediction - half_width, "high": prediction + half_width}
        columns["error"] = pandas.Series([row.error for row in rows], dtype=object)
        frames.append(pandas.DataFrame(columns))
    crystals = pandas.concat(frames, ignore_index=True)
    crystals.attrs["units"] = {target.name: target.unit for target in targets}
    coverage = float("nan") if model.uncertainty is None else model.uncertainty.coverage
    return Evaluation(crystals, scores, len(data), int(failed.sum()), n_train, coverage)


def calibrate(
    model: CrystalFramer | str | Path | None,
    data: CrystalDataset | str | Path,
    *,
    part: Part | None = None,
    coverage: float = 0.9,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Uncertainty:
    """Learn from labelled crystals how far the predictions of a model may be off.

        model.uncertainty = cf.calibrate(model, "my.parquet", part="validation")
        cf.save(model, "my-model")  # from now on with intervals

    The intervals hold for crystals like these. They must not have been trained on: a model is closer to those than it
    will be to others. Some hundred make intervals that are narrower for easy crystals; fewer make one width for all.

    Args:
        model: a model, or the path of one; None for the weights that come with the package.
        data: a data set, or the name or path of one, with every target of the model in its unit.
        part: only the crystals of this part of the data set's own split. Default: all crystals.
        coverage: share of further crystals whose true value the intervals shall hold.
        device: where to compute, as in `predict`.
        progress: show a progress bar if it takes more than 2 s.

    Raises:
        DataError: the data set lacks a target (the nearest is named), has it in another unit, or lacks the part.
        CrystalError: a crystal that the model cannot take.
        UncertaintyError: too few labels for the coverage, or a coverage that is no share.
        CheckpointError: the model cannot be loaded.
    """
    model = ready(model, device)
    targets = model.config.targets
    data = data.with_targets(targets) if isinstance(data, CrystalDataset) else sources.dataset(data, targets=targets)
    data = (data if part is None else _part(data, part)).labelled()
    packed = prepare(data, model.config.radius, model.config.target_names, "calibration")
    pooled, predicted = pooled_and_predicted(packed, model, "calibrating", progress=progress)
    return calibrated(pooled, predicted - packed.targets, model.config.target_names, coverage)


def pooled_and_predicted(
    crystals: PreparedCrystals,
    model: CrystalFramer,
    title: str,
    noise_seed: int | None = None,
    progress: bool = True,
) -> tuple[Float[np.ndarray, "n_crystals d_model"], Float[np.ndarray, "n_crystals n_targets"]]:
    """What the model's readout sees of many crystals, and what it makes of it, each target in its unit.

    Args:
        title: of the progress bar, which shows if it takes more than 2 s.
        noise_seed: see `CrystalFramer`.
    """
    weights = model.target_mean
    pooled, predicted = [], []
    ends = batch_ends([(crystals.n_edges, MAX_EDGES), (crystals.n_atoms, MAX_ATOMS)], len(crystals), BATCH_SIZE)
    with tqdm(total=len(crystals), desc=title, unit=" crystals", delay=2, leave=False, disable=not progress) as bar:
        for rows in np.split(np.arange(len(crystals)), ends[:-1]):
            with torch.inference_mode():
                features = model.pooled_features(crystals.batch(rows, weights.dtype).to(weights.device), noise_seed)
                predicted.append(model.read_out(features).double().cpu().numpy())
            pooled.append(features.float().cpu().numpy())
            bar.update(len(rows))
    return np.concatenate(pooled), np.concatenate(predicted)


def trace(
    structure: Any,
    model: CrystalFramer | str | Path | None = None,
    *,
    sites: Sequence[int] | None = None,
    within: float = 0.0,
    device: torch.device | str | None = None,
) -> CrystalTrace:
    """What the model looks at in one structure, layer by layer, and what it predicts.

    Args:
        structure: a structure or the path of a file with one (see `crystalframer.read`).
        model: a model, or the path of one. Default: the weights that come with the package.
        sites: atoms, counted from 0, at which to look: in a large cell, such as around a defect. What they attend to
            and the prediction are those in the whole structure; only what is recorded is less. Default: all.
        within: Å around these sites whose other atoms to look at, too; at most the neighbour radius of the model.
        device: where to compute, as in `predict`.

    Raises:
        CrystalError: no structure that the model can take, or that is too large to be traced whole; no such site. The
            message names file, site and what to do.
        CheckpointError: the model cannot be loaded.
    """
    model = ready(model, device)
    crystal = read(structure)
    prepared = prepare([crystal], model.config.radius)
    weights = model.target_mean
    if sites is None:
        _check_trace_fits(crystal, len(crystal), int(prepared.n_edges[0]), model)
        return model.trace(prepared.batch([0], weights.dtype).to(weights.device))[0]
    chunked = ChunkedCrystal(prepared, 0, MAX_EDGES)
    atoms = _region(crystal, chunked, np.asarray(sites, dtype=np.int64), within, model.config)
    _check_trace_fits(crystal, len(atoms), int(prepared.neighbors.edges_per_atom[atoms].sum()), model)
    return model.trace_atoms(chunked, atoms)


def _region(
    crystal: Crystal, chunked: ChunkedCrystal, sites: Int64[np.ndarray, " n_sites"], within: float, config: ModelConfig
) -> Int64[np.ndarray, " n_atoms"]:
    """These sites in the order given, then the others around them."""
    bad = sites[(sites < 0) | (sites >= len(crystal))]
    if bad.size:
        raise CrystalError(f"{crystal.name}: there is no site {bad[0]}; choose from 0 to {len(crystal) - 1:,}")
    if not sites.size:
        raise CrystalError(f"{crystal.name}: no sites are named; name one, or leave them out for all")
    if not 0.0 <= within <= config.radius:
        raise CrystalError(
            f"{crystal.name}: within = {within:g} Å; it must be from 0 to the neighbour radius of the model, "
            f"{config.radius:.2f} Å (name more sites instead)"
        )
    edges = chunked.edges_from(sites)
    near = edges.index[1][np.linalg.norm(edges.vectors, axis=1) <= within]
    return np.concatenate([list(dict.fromkeys(sites.tolist())), np.setdiff1d(near, sites)]).astype(np.int64)


def _check_trace_fits(crystal: Crystal, n_atoms: int, n_edges: int, model: CrystalFramer) -> None:
    weights = model.target_mean
    needed, free = (
        memory.trace_memory(model.config, n_atoms, n_edges, weights.dtype),
        memory.free_memory(weights.device),
    )
    if free is not None and needed > free:
        raise CrystalError(
            f"{crystal.name}: a trace of {n_atoms:,} atoms needs about {needed / 1e9:.1f} GB, and {weights.device} has "
            f"{free / 1e9:.1f} GB free; choose fewer atoms to look at (sites=[...], --sites)"
        )


def save_table(frame: pandas.DataFrame, path: str | Path) -> None:
    """Write a table as its suffix says: `.csv`, `.jsonl` (one JSON object a line) or `.parquet`.

    A table that was there before stays until the new one is complete.

    Raises:
        DataError: another suffix, or the file cannot be written.
    """
    path = check_table_path(path)
    with files.writing(path, DataError), files.replacing(path) as unfinished:
        table_writer(path)(frame, unfinished)


def check_table_path(path: str | Path) -> Path:
    """The path, if `save_table` can write there: to be asked before the work is done. Its folder is made.

    Raises:
        DataError: it cannot.
    """
    path = Path(path).expanduser()
    table_writer(path)
    with files.writing(path, DataError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    return path


@dataclass(frozen=True)
class Outcome:
    """One structure, predicted or not."""

    id: str
    formula: str
    values: _Values
    """Per target, in its unit; NaN if there is an error."""
    half_widths: _Values
    """Of the intervals around them; NaN if there is an error or the model is not calibrated."""
    outside_training: str | None
    error: str | None


def table(rows: Sequence[Outcome], model: CrystalFramer) -> pandas.DataFrame:
    """What `predict` returns, of these outcomes."""
    import pandas

    frame = pandas.DataFrame({"id": [row.id for row in rows], "formula": [row.formula for row in rows]})
    for column, target in enumerate(model.config.targets):
        value = frame[target.name] = np.array([row.values[column] for row in rows], dtype=np.float64)
        if model.uncertainty is not None:
            half_width = np.array([row.half_widths[column] for row in rows], dtype=np.float64)
            frame[f"{target.name}_low"], frame[f"{target.name}_high"] = value - half_width, value + half_width
    if model.domain is not None:
        frame["outside_training"] = pandas.Series([row.outside_training for row in rows], dtype=object)
    frame["error"] = pandas.Series([row.error for row in rows], dtype=object)
    frame.attrs["units"] = {target.name: target.unit for target in model.config.targets}
    return frame


@dataclass(frozen=True)
class _Prediction:
    """As in `Outcome`."""

    values: _Values
    half_widths: _Values
    outside_training: str | None


def _outcomes(
    records: Iterable[StructureRecord], model: CrystalFramer, batch_size: int, max_atoms: int
) -> Iterator[Outcome]:
    """Predictions in the order of the records, of which at most a batch is held."""
    if batch_size < 1 or max_atoms < 1:
        raise ConfigError(f"batch_size = {batch_size} and max_atoms = {max_atoms}: both must be at least 1")
    waiting: list[StructureRecord] = []
    n_atoms = 0
    for record in records:
        size = len(record.crystal) if record.crystal else 0
        if waiting and (len(waiting) == batch_size or n_atoms + size > max_atoms):
            yield from outcomes_of_batch(waiting, model)
            waiting, n_atoms = [], 0
        waiting.append(record)
        n_atoms += size
    yield from outcomes_of_batch(waiting, model)


def outcomes_of_batch(records: Sequence[StructureRecord], model: CrystalFramer) -> Iterator[Outcome]:
    """An outcome for each record; the crystals are predicted together where they can be."""
    predictions = iter(_predictions([record.crystal for record in records if record.crystal], model))
    nothing = np.full(len(model.config.targets), np.nan)
    for record in records:
        result = next(predictions) if record.crystal else record.error or "no structure"
        if isinstance(result, str):
            yield Outcome(record.id, record.formula, nothing, nothing, None, result)
        else:
            found = result.values, result.half_widths, result.outside_training
            yield Outcome(record.id, record.formula, *found, None)


def _predictions(crystals: Sequence[Crystal], model: CrystalFramer) -> list[_Prediction | str]:
    """The values of each crystal, or why there are none. A batch that fails is tried again crystal by crystal."""
    if not crystals:
        return []
    try:
        return _predict_packed(prepare(crystals, model.config.radius), model)
    except ConfigError:  # a setting that would fail for every crystal alike
        raise
    except Exception as error:  # whatever it is, it must cost no more than the crystal that it is about
        reason = _reason(error, crystals)
    # Outside the handler, which would keep the tensors of the failed batch in memory.
    if len(crystals) == 1:
        return [reason]
    return [result for crystal in crystals for result in _predictions([crystal], model)]


def _reason(error: Exception, crystals: Sequence[Crystal]) -> str:
    if memory.is_out_of_memory(error):
        n_atoms = sum(map(len, crystals))
        return f"{n_atoms:,} atoms need more memory than there is; predict it on a machine or device with more"
    return (
        str(error)
        if isinstance(error, CrystalFramerError)
        else f"the prediction failed ({type(error).__name__}: {error})"
    )


def _predict_packed(packed: PreparedCrystals, model: CrystalFramer) -> list[_Prediction | str]:
    weights = model.target_mean
    results: dict[int, _Prediction | str] = {**_too_large(packed, model)}
    rows = np.array([row for row in range(len(packed)) if row not in results], dtype=np.int64)
    ends = batch_ends([(packed.n_edges[rows], MAX_EDGES)], len(rows), len(packed))
    for batch in np.split(rows, ends)[: len(ends)]:
        is_large = packed.n_edges[batch].sum() > MAX_EDGES  # and so alone
        crystals = ChunkedCrystal(packed, int(batch[0]), MAX_EDGES) if is_large else packed.batch(batch, weights.dtype)
        values, half_widths = _evaluate(crystals, model)
        outside = [None] * len(batch) if model.domain is None else model.domain.outside(crystals)
        for row, value, half_width, reason in zip(batch.tolist(), values, half_widths, outside, strict=True):
            results[row] = _why_not_finite(value, model.config) or _Prediction(value, half_width, reason)
    return [results[row] for row in range(len(packed))]


def _evaluate(
    crystals: CrystalBatch | ChunkedCrystal, model: CrystalFramer
) -> tuple[Float[np.ndarray, "n_crystals n_targets"], Float[np.ndarray, "n_crystals n_targets"]]:
    """Predictions, and half the widths of the intervals around them."""
    with torch.inference_mode():
        if isinstance(crystals, ChunkedCrystal):
            pooled = model.pooled_features_in_chunks(crystals)
            predicted = model.read_out(pooled)
        elif model.uncertainty is None:
            pooled, predicted = None, model(crystals.to(model.target_mean.device))
        else:
            pooled = model.pooled_features(crystals.to(model.target_mean.device))
            predicted = model.read_out(pooled)
    values = predicted.double().cpu().numpy()
    if pooled is None or model.uncertainty is None:
        return values, np.full_like(values, np.nan)
    return values, model.uncertainty.half_width(pooled.float().cpu().numpy())


def _too_large(packed: PreparedCrystals, model: CrystalFramer) -> dict[int, str]:
    """Rows of the crystals that do not fit into memory, and why."""
    device, dtype = model.target_mean.device, model.target_mean.dtype
    sizes = [(int(n_atoms), int(n_edges)) for n_atoms, n_edges in zip(packed.n_atoms, packed.n_edges, strict=True)]
    needed = [memory.memory_needed(model.config, *size, device, dtype, max_edges=MAX_EDGES) for size in sizes]
    reasons: dict[int, str] = {}
    for row in sorted(range(len(sizes)), key=needed.__getitem__, reverse=True):
        missing = memory.shortage(model.config, *sizes[row], device, dtype, max_edges=MAX_EDGES)
        if missing is None:  # nor for those that need less
            break
        reasons[row] = (
            f"the crystal does not fit into memory: its {missing}; predict it on a device with more, or describe it by "
            "a smaller cell"
        )
    return reasons


def _why_not_finite(values: Float[np.ndarray, " n_targets"], config: ModelConfig) -> str | None:
    bad = np.flatnonzero(~np.isfinite(values))
    if not bad.size:
        return None
    return f"the model predicts {config.target_names[bad[0]]} = {values[bad[0]]}; check the structure's distances"


def ready(model: CrystalFramer | str | Path | None, device: torch.device | str | None) -> CrystalFramer:
    """The model on the device; a model of the caller's is copied rather than moved."""
    if model is not None and not isinstance(model, (CrystalFramer, str, Path)):
        raise TypeError(
            f"a {type(model).__name__} was given as the model; the order is predict(structures, model), "
            "evaluate(model, data) and trace(structure, model), and a model may also be the path of one"
        )
    if not isinstance(model, CrystalFramer):
        return load(model, device)
    where = _usable(device)
    return model if where in (None, model.target_mean.device) else copy.deepcopy(model).to(where)


def _usable(device: torch.device | str | None) -> torch.device | None:
    """The device, if torch can compute there."""
    if device is None:
        return None
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"device {str(device)!r} cannot be used here ({reason}); choose another, such as cpu"
        ) from error


def _part(data: CrystalDataset, part: Part) -> CrystalDataset:
    if data.parts is None:
        raise DataError(
            f"the data set has no {part} part: it has no split of its own (a column `split` with {', '.join(PARTS)}); "
            "use all of it"
        )
    chosen = data.select(data.parts == part)
    if not len(chosen):
        raise DataError(f"the {part} part of the data set is empty; choose another part")
    return chosen


def _score(
    target: Target,
    label: Float[np.ndarray, " n_labels"],
    prediction: Float[np.ndarray, " n_labels"],
    half_width: Float[np.ndarray, " n_labels"],
    mean: float,
) -> TargetScore:
    n_crystals = len(label)
    if n_crystals == 0:
        return TargetScore(target, 0, *[float("nan")] * 4)
    error = prediction - label
    squares = float(np.square(label - label.mean()).sum())
    return TargetScore(
        target,
        n_crystals,
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt(np.square(error).mean())),
        r2=1.0 - float(np.square(error).sum()) / squares if squares > 0 else float("nan"),
        baseline_mae=float(np.abs(label - mean).mean()),
        bias=float(error.mean()),
        covered=float("nan") if np.isnan(half_width).all() else float((np.abs(error) <= half_width).mean()),
    )


def _with_progress(outcomes: Iterator[Outcome], total: int | None, progress: bool) -> Iterator[Outcome]:
    # Where nothing can be wiped off (a log file, a pipe) the finished bar stays, and what follows begins a new line.
    leave = not sys.stderr.isatty()
    yield from tqdm(outcomes, "predicting", total, unit=" crystals", delay=2, leave=leave, disable=not progress)
