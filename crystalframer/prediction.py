"""Predictions of a trained model for many structures, and traces of single ones."""

from __future__ import annotations

import copy
import datetime
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crystalframer import checkpoint, devices, memory
from crystalframer._moved import moved_names
from crystalframer._version import __version__
from crystalframer.batched import BATCH_SIZE, MAX_ATOMS, MAX_EDGES, Failure, predicted, predictions, summing
from crystalframer.config import ModelConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.crystals.loading import prepare
from crystalframer.errors import ConfigError, CrystalError, Setting
from crystalframer.model.network import CrystalFramer
from crystalframer.notes import PredictionNotes
from crystalframer.outcomes import FLAGS, Table
from crystalframer.reading.inputs import read
from crystalframer.surroundings import plain
from crystalframer.traces import CrystalTrace

if TYPE_CHECKING:
    import pandas

if not TYPE_CHECKING:
    _SCORES = dict.fromkeys(("Evaluation", "TargetScore", "calibrate", "evaluate"), "crystalframer.evaluation")
    __getattr__ = moved_names(__name__, {**_SCORES, "save_table": "crystalframer.result_tables"})

Function = TypeVar("Function", bound=Callable[..., Any])


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
    return model if as_trained else summing(model)


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
        prediction, else None. A calibrated model (see `calibrate`) adds the prediction interval from `<target>_low` to
        `<target>_high`, which contains the true value for 90 % of crystals like those that it was calibrated on; the
        ends are NaN where no similar training crystal has a label of the target. It reports no value below 0 for a
        target whose labels cannot be negative, such as a band gap. A model that knows its training data
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
    return predicted(structures, ready(model, device), batch_size, max_atoms, progress, Table.frame)


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
    if sites is not None:
        crystal.check_sites(sites)
    prepared = prepare([crystal], model.config.radius, enlarge=model.config.enlarges_radius)
    weights = model.target_mean
    if sites is None:
        memory.check_trace(crystal, len(crystal), int(prepared.n_edges[0]), model.config, model.target_mean)
        batch = prepared.batch([0], weights.dtype)
        (record,) = model.trace(batch.to(weights.device))
        layers = [model.embed(batch.atomic_numbers.to(weights.device))]
        layers += [torch.from_numpy(layer.atom_features).to(weights.device) for layer in record.layers]
        return replace(_bounded(record, model), notes=notes(layers, batch, model))
    chunked = ChunkedCrystal(prepared, 0, MAX_EDGES)
    atoms = _region(crystal, chunked, np.asarray(sites, dtype=np.int64), within, model.config)
    memory.check_trace(
        crystal, len(atoms), int(prepared.neighbors.edges_per_atom[atoms].sum()), model.config, model.target_mean
    )
    layers = list(model.layers_in_chunks(chunked))
    record = _bounded(model.trace_atoms(chunked, atoms, layers), model)
    return replace(record, notes=notes(layers, chunked, model))


def _bounded(trace: CrystalTrace, model: CrystalFramer) -> CrystalTrace:
    """The trace with the prediction that `predict` gives: not below the value below which the target cannot lie."""
    if model.uncertainty is None:
        return trace
    lowest = dict(zip(model.uncertainty.target_names, model.uncertainty.lowest.tolist(), strict=True))
    prediction = {name: max(value, lowest.get(name, -math.inf)) for name, value in trace.prediction.items()}
    return replace(trace, prediction=prediction)


def notes(
    layers: Sequence[Float[Tensor, "n_atoms d_model"]], crystal: CrystalBatch | ChunkedCrystal, model: CrystalFramer
) -> PredictionNotes:
    """Intervals and flags of the predictions for a crystal, and which model makes them.

    Args:
        layers: features of its atoms (`CrystalFramer.layers_of`).
        crystal: a batch of one, in the memory of the CPU, or a `ChunkedCrystal`.
    """
    origin = PredictionNotes(model=model.source, version=__version__, date=datetime.date.today().isoformat())
    (found,) = predictions(model.evaluated(layers, crystal), crystal, model)
    if isinstance(found, Failure):
        return origin
    names = [output.name for output in model.config.outputs]
    ends = zip(names, found.low.tolist(), found.high.tolist(), strict=True)
    reasons = {title: getattr(found, column) for column, title in FLAGS.items()}
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
    if not 0.0 <= within <= config.radius:
        limits = f" Å: must be from 0 to the neighbour radius of the model, {config.radius:.2f} Å; name more sites"
        raise CrystalError(f"{crystal.name}: ", Setting("within", within), limits, field="within", value=within)
    edges = chunked.edges_from(sites)
    near = edges.index[1][np.linalg.norm(edges.vectors, axis=1) <= within]
    return np.concatenate([list(dict.fromkeys(sites.tolist())), np.setdiff1d(near, sites)]).astype(np.int64)


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
