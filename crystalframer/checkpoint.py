"""A trained model on disk: a folder with `config.json` and `model.safetensors`.

The folder may also hold `domain.json` (the range of the training crystals), `training_index.safetensors` (their
features), `soundness.safetensors` (a classifier of crystals that are wrong) and `uncertainty.safetensors` (calibrated
prediction intervals). These and `config.json` each state their own checksum and that of the weights that they belong to
(`seals`), and so do `errors.json` (errors by element and size of the cell) and `order_tests.json` (tests of
explanations). The folder of a run, or a copy of its model, also holds `crystals.parquet` (which crystals trained it).

Only `load` needs torch: to find a model and to read its settings is quick.

`load` needs nothing else: no Lightning, no data set, and no pickled code. A folder from which training can resume also
holds `resume.ckpt`. Saving never damages an existing checkpoint: the new one is written beside it, flushed to the disk
and then takes its place.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from crystalframer import files, seals
from crystalframer._version import __version__
from crystalframer.config import ModelConfig, from_tree
from crystalframer.errors import CheckpointError, ConfigError, listed
from crystalframer.order_tests import OrderTests
from crystalframer.outcomes import Columns

if TYPE_CHECKING:
    import torch

    from crystalframer.datasets.used import UsedCrystals
    from crystalframer.domain import Domain
    from crystalframer.measured_errors import MeasuredErrors
    from crystalframer.model.arrays import ArrayModel
    from crystalframer.model.network import CrystalFramer
    from crystalframer.soundness import Soundness
    from crystalframer.training_index import TrainingIndex
    from crystalframer.uncertainty import Uncertainty

FORMAT_VERSION = 2
"""A new setting of the model needs a new format, and a row in `_ADDED_AFTER`. Format 1: releases 0.1 and 0.2, without a
checksum of `config.json`."""
_ADDED_AFTER: Mapping[int, Mapping[str, Any]] = {
    1: {
        "model.activation": "relu",
        "model.largest_content": None,
        "model.frame.weighted_margin": 0.0,
        "model.frame.second_axis": "off-line",
        "model.frame.both_hands": False,
        "model.decay.shape": "elu",
        "model.decay.reach": None,
    },
}
"""Format → settings that a file of this format may leave out, and what they are then: its function stays the same,
whatever the defaults become."""
CONFIG_FILE, WEIGHTS_FILE, RESUME_FILE = "config.json", "model.safetensors", "resume.ckpt"
DOMAIN_FILE, UNCERTAINTY_FILE, USED_FILE = "domain.json", "uncertainty.safetensors", "crystals.parquet"
INDEX_FILE, SOUNDNESS_FILE = "training_index.safetensors", "soundness.safetensors"
ERRORS_FILE, ORDER_TESTS_FILE = "errors.json", "order_tests.json"
PRETRAINED = Path(__file__).parent / "pretrained"
"""The checkpoint that comes with the package."""
PACKAGE = "package"
"""Name of these weights, where a path is wanted. A folder of this name is `./package`."""
CHECKPOINTS = "checkpoints"
"""The folder of a run that holds its checkpoints."""
RESULT_FILE = "result.json"
"""In the folder of a complete run: its scores, and which weights were chosen."""
WEIGHTS_OF_A_RUN = ("best", "swa", "last")
"""Folders in `CHECKPOINTS`."""
_AGAIN = "copy the whole folder again, or use another checkpoint"
_COPY_BOTH = f"copy {CONFIG_FILE} and {WEIGHTS_FILE} together from one checkpoint"
_MODEL_FOLDER = f"A model is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
_SHOWN_NAMES = 10

Record = TypeVar("Record")


def save(model: CrystalFramer, path: Path | str, add: Callable[[Path], None] | None = None) -> None:
    """Save a model in a folder.

    A checkpoint that is there is replaced only when the new one is complete on disk.

    >>> import tempfile
    >>> import crystalframer as cf
    >>> folder = tempfile.mkdtemp()
    >>> cf.save(cf.load(), f"{folder}/model")
    >>> cf.load(f"{folder}/model").config == cf.load().config
    True

    Args:
        model: the model.
        path: folder to write.
        add: writes further files into the new folder before it replaces the old one (training adds its resume state).

    Raises:
        CheckpointError: the disk is full or not writable (an existing checkpoint at `path` is unharmed), or the folder
            holds something else than a checkpoint.
    """
    from safetensors.torch import save as to_bytes

    path = Path(path)
    new, old = _beside(path, "new"), _beside(path, "old")
    weights = to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    checksum = hashlib.sha256(weights).hexdigest()
    description = {
        "format_version": FORMAT_VERSION,
        "crystalframer_version": __version__,
        "model": dataclasses.asdict(model.config),
    }
    try:
        _check_replaceable(path)
        _settle(path)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        files.write(new / CONFIG_FILE, json.dumps(seals.sealed(description, checksum), indent=2))
        files.write(new / WEIGHTS_FILE, weights)
        if model.domain is not None:
            files.write(new / DOMAIN_FILE, _tree_text(model.domain, checksum, indent=2))
        if model.uncertainty is not None:
            files.write(new / UNCERTAINTY_FILE, model.uncertainty.to_bytes(checksum))
        if model.index is not None:
            files.write(new / INDEX_FILE, model.index.to_bytes(checksum))
        if model.soundness is not None:
            files.write(new / SOUNDNESS_FILE, model.soundness.to_bytes(checksum))
        if model.used is not None:
            files.write(new / USED_FILE, model.used.content)
        if model.errors is not None:
            files.write(new / ERRORS_FILE, _tree_text(model.errors, checksum))
        if model.order_tests is not None:
            files.write(new / ORDER_TESTS_FILE, _tree_text(model.order_tests, checksum))
        if add is not None:
            add(new)
        _flush(new)
        if path.exists():
            path.rename(old)
        new.rename(path)
        _flush(path.parent)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        _settle(path)
        kept = "the checkpoint that was there before is unharmed" if path.exists() else "nothing was written"
        raise CheckpointError(
            f"the checkpoint cannot be saved ({error}); {kept}. Free some space, or choose another folder", path=path
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def add_intervals(folder: Path, uncertainty: Uncertainty | None, index: TrainingIndex | None) -> None:
    """Write calibrated intervals, and the index that they need, beside the weights that they belong to.

    Other files in the folder, such as the state to resume from, stay.

    Raises:
        CheckpointError: nothing can be written there.
    """
    weights = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    with files.writing(folder, CheckpointError):
        if index is not None:
            files.write(folder / INDEX_FILE, index.to_bytes(weights))
        if uncertainty is not None:
            files.write(folder / UNCERTAINTY_FILE, uncertainty.to_bytes(weights))


def add_errors(folder: Path, errors: MeasuredErrors) -> None:
    """Write measured errors beside the weights that they belong to.

    Raises:
        CheckpointError: nothing can be written there.
    """
    _add_tree(folder / ERRORS_FILE, errors)


def add_order_tests(folder: Path, tests: OrderTests) -> None:
    """Write tests of explanations beside the weights that they belong to.

    Raises:
        CheckpointError: nothing can be written there.
    """
    _add_tree(folder / ORDER_TESTS_FILE, tests)


def load(path: Path | str | None, device: torch.device | str = "cpu") -> CrystalFramer:
    """The model saved at `path`, ready for evaluation.

    Args:
        path: a checkpoint folder, or the folder of a training run: the weights that `fit` returned are taken, or
            `checkpoints/best` if the run is not complete. For other weights, name their folder. None or `package`: the
            weights that come with the package.
        device: device of the model.

    Raises:
        CheckpointError: no checkpoint there, a file that is missing, damaged or of other weights, a newer format, or
            tensors that do not fit the config (each is named).
    """
    from safetensors.torch import load_file

    from crystalframer.measured_errors import MeasuredErrors
    from crystalframer.model.network import without_weights

    folder = find(path)
    config, checksum, weights = _read_network(folder, load_file)
    model = without_weights(config, "cpu")
    model.load_state_dict(weights)
    model.domain, model.index, model.uncertainty, model.soundness = _read_extras(folder, config, checksum)
    model.used = _read_used(folder)
    model.errors = _read_tree(folder / ERRORS_FILE, MeasuredErrors, checksum)
    model.order_tests = _read_tree(folder / ORDER_TESTS_FILE, OrderTests, checksum)
    model.source = f"{_name(folder)} ({checksum[:8]})"
    return model.to(device).eval()


def load_arrays(path: Path | str | None) -> ArrayModel | None:
    """The model saved at `path`, for evaluations on the CPU without torch; None if these need torch.

    Raises:
        CheckpointError: as `load`.
    """
    from safetensors.numpy import load_file

    from crystalframer.model.arrays import ArrayModel, is_served

    folder = find(path)
    if not is_served(_read_description(folder)[0]):
        return None
    config, checksum, weights = _read_network(folder, load_file)
    if any(array.dtype != np.float32 for array in weights.values()):
        return None
    return ArrayModel(config, weights, *_read_extras(folder, config, checksum))


def _read_network(folder: Path, load_file: Callable[[Path], dict[str, Any]]) -> tuple[ModelConfig, str, dict[str, Any]]:
    """Settings, SHA-256 of the weights, and the weights as arrays or tensors; their shapes are those of the settings.

    Raises:
        CheckpointError: as `load`.
    """
    from crystalframer.model.arrays import weight_shapes

    config, stated = _read_description(folder)
    weights = _read_weights(folder / WEIGHTS_FILE, load_file)
    if config.n_layers > len(weights):
        raise CheckpointError(
            f"model.n_layers = {config.n_layers:,}, but {WEIGHTS_FILE} holds only {len(weights):,} tensors; the two "
            f"belong to different models: {_COPY_BOTH}",
            path=folder / CONFIG_FILE,
            field="model.n_layers",
            value=config.n_layers,
        )
    # Sizes alone: before they are compared, the config may ask for any amount of memory.
    _check_shapes(weights, weight_shapes(config), folder)
    return config, _checked_weights(folder / WEIGHTS_FILE, stated), weights


def _read_extras(
    folder: Path, config: ModelConfig, checksum: str
) -> tuple[Domain | None, TrainingIndex | None, Uncertainty | None, Soundness | None]:
    """What predictions show beside their values, as far as the files are there."""
    from crystalframer.domain import Domain

    index = _read_index(folder / INDEX_FILE, config, checksum)
    uncertainty = _read_uncertainty(folder / UNCERTAINTY_FILE, config, index, checksum)
    soundness = _read_soundness(folder / SOUNDNESS_FILE, config, checksum)
    return _read_tree(folder / DOMAIN_FILE, Domain, checksum), index, uncertainty, soundness


def _name(folder: Path) -> str:
    """Of the weights in a folder: that of the run, if they belong to one."""
    if folder == PRETRAINED:
        return "shipped weights"
    folder = folder.absolute()
    return f"{folder.parent.parent.name}/{folder.name}" if folder.parent.name == CHECKPOINTS else folder.name


def read_config(path: Path | str | None) -> ModelConfig:
    """The settings of the model saved at `path`, without its weights.

    Raises:
        CheckpointError: as `load`, as far as the settings tell.
    """
    return _read_description(find(path))[0]


def columns(path: Path | str | None) -> Columns:
    """The columns of the table of predictions by the model saved at `path`.

    Raises:
        CheckpointError: as `read_config`.
    """
    folder = find(path)
    has = [(folder / name).exists() for name in (UNCERTAINTY_FILE, DOMAIN_FILE, INDEX_FILE, SOUNDNESS_FILE)]
    return Columns(read_config(folder).targets, *has)


def find(path: Path | str | None) -> Path:
    """The checkpoint folder that `path` stands for (see `load`).

    Raises:
        CheckpointError: there is none.
    """
    if path is None or path == PACKAGE:
        if not (PRETRAINED / CONFIG_FILE).exists():
            raise CheckpointError(
                "this build of crystalframer has no trained weights; name a model of yours (the folder of a training)"
            )
        return PRETRAINED
    path = Path(path)
    found = _found(path)
    if found is None and (path / WEIGHTS_FILE).exists():
        raise CheckpointError(f"{CONFIG_FILE} is missing; {_COPY_BOTH}", path=path)
    if found is None and path.is_file():
        raise CheckpointError(f"this is a file. {_MODEL_FOLDER}; the order is predict(structures, model)", path=path)
    if found is None:
        raise CheckpointError(f"there is no checkpoint here. {_nearby(path)}", path=path)
    return found


def used_by(path: Path | str | None) -> UsedCrystals | None:
    """The crystals of the run whose weights are there; None if nothing says which they are.

    Raises:
        CheckpointError: there is no checkpoint.
    """
    return _read_used(find(path))


def is_checkpoint(path: Path | str) -> bool:
    """Whether `find` finds a checkpoint there."""
    try:
        found = _found(Path(path))
        return found is not None and (found / WEIGHTS_FILE).exists()
    except (OSError, ValueError):  # text that is no path
        return False


def _found(path: Path) -> Path | None:
    for folder in (path, path / CHECKPOINTS / _chosen(path)):
        # A crash in the middle of a swap leaves the last good checkpoint under its other name.
        for candidate in (folder, _beside(folder, "old")):
            if (candidate / CONFIG_FILE).exists() and not (candidate / CHECKPOINTS).exists():
                return candidate
    return None


def _chosen(run: Path) -> str:
    """The weights that a complete run chose; `best` while it has not, or if the file names none that a run has."""
    try:
        chosen = json.loads((run / RESULT_FILE).read_text(encoding="utf-8"))["chosen"]
    except (OSError, ValueError, KeyError, TypeError):
        return "best"
    return chosen if chosen in WEIGHTS_OF_A_RUN else "best"


def _read_description(folder: Path) -> tuple[ModelConfig, str | None]:
    """The config of a checkpoint directory, and the SHA-256 of its weights (None: written before there was one)."""
    file = folder / CONFIG_FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        version = found["format_version"]
        writer = f"crystalframer {found.get('crystalframer_version', '(unknown)')}"
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"written by {writer} in format {version}; version {__version__} reads formats up to {FORMAT_VERSION}. "
                "Upgrade crystalframer",
                field="format_version",
                value=version,
            )
        if type(version) is not int or version < 1:
            raise CheckpointError(f"is not the number of a format; {_AGAIN}", field="format_version", value=version)
        if version > 1 or seals.OWN in found:  # one wrong bit makes a 1 of another number
            _check_seal(found)
        model = _as_now(found["model"], version)
        _check_settings(model, writer)
        return from_tree(ModelConfig, model), found.get(seals.OF_WEIGHTS)
    except CheckpointError as error:
        error.at(path=file)
        raise
    except ConfigError as error:
        raise CheckpointError(str(error), path=file, field=error.field, value=error.value) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"not the config of a checkpoint ({error!r}); copy it again", path=file) from error


def _check_seal(found: Mapping[str, Any]) -> None:
    if seals.OWN not in found:
        raise CheckpointError(f"damaged or changed: it states no SHA-256 of its own; {_AGAIN}", field=seals.OWN)
    try:
        seals.opened(found, None)
    except CheckpointError as error:
        raise CheckpointError(f"{error.message}; {_AGAIN}", field=seals.OWN) from error


def _as_now(model: Mapping[str, Any], version: int) -> dict[str, Any]:
    """The settings of a model with the names of today, and with those that later formats added."""
    now = {name: dict(value) if isinstance(value, Mapping) else value for name, value in model.items()}
    if "average_margin" in now.get("frame", ()):
        now["frame"]["weighted_margin"] = now["frame"].pop("average_margin")
    for added in (added for earlier, added in _ADDED_AFTER.items() if version <= earlier):
        for name, value in added.items():
            *section, setting = name.split(".")[1:]
            (now[section[0]] if section else now).setdefault(setting, value)
    return now


def _check_settings(model: Mapping[str, Any], writer: str) -> None:
    """Check that the file states every setting of a model, and no other."""
    known, stated = list(_settings(dataclasses.asdict(ModelConfig()))), list(_settings(model))
    if unknown := [name for name in stated if name not in known]:
        names = listed(unknown, _SHOWN_NAMES)
        raise CheckpointError(
            f"a newer version wrote it ({writer}): version {__version__} does not know {names}. Upgrade crystalframer",
            field=unknown[0],
        )
    if missing := [name for name in known if name not in stated]:
        raise CheckpointError(f"does not state {listed(missing, _SHOWN_NAMES)}; {_AGAIN}", field=missing[0])


def _settings(tree: Any, prefix: str = "model") -> Iterator[str]:
    """Dotted names of all settings in nested dictionaries."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}"


def _read_weights(file: Path, load_file: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    from safetensors import SafetensorError

    if not file.exists():
        raise CheckpointError(f"{WEIGHTS_FILE} is missing; copy the whole folder", path=file.parent)
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"truncated or damaged ({error}); {_AGAIN}", path=file) from error


def _checked_weights(file: Path, stated: str | None) -> str:
    """The SHA-256 of the weights, once it is the one that the config states."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if stated not in (None, found):
        raise CheckpointError(
            f"damaged, or not the weights that were saved with {CONFIG_FILE} (the SHA-256 differs); {_AGAIN}", path=file
        )
    return found


def _tree_text(record: Domain | MeasuredErrors | OrderTests, weights: str, indent: int | None = None) -> str:
    return json.dumps(seals.sealed(dataclasses.asdict(record), weights), indent=indent)


def _add_tree(file: Path, record: MeasuredErrors | OrderTests) -> None:
    weights = hashlib.sha256((file.parent / WEIGHTS_FILE).read_bytes()).hexdigest()
    with files.writing(file.parent, CheckpointError):
        files.write(file, _tree_text(record, weights))


def _read_tree(file: Path, kind: type[Record], weights: str) -> Record | None:
    """A dataclass in a JSON file; None without the file."""
    if not file.exists():
        return None
    with _refusing_extra(file):
        tree = json.loads(file.read_bytes())
        return from_tree(kind, seals.opened(tree, weights) if isinstance(tree, dict) else tree)


def _read_index(file: Path, config: ModelConfig, weights: str) -> TrainingIndex | None:
    if not file.exists():
        return None
    from crystalframer.training_index import TrainingIndex

    with _refusing_extra(file):
        index = TrainingIndex.from_bytes(file.read_bytes(), weights)
    if len(index.mean) != config.d_model or index.target_names != config.scalar_names:
        raise CheckpointError(f"made for another model (targets {', '.join(index.target_names)}); delete it", path=file)
    return index


def _read_uncertainty(file: Path, config: ModelConfig, index: TrainingIndex | None, weights: str) -> Uncertainty | None:
    if not file.exists():
        return None
    from crystalframer.uncertainty import Uncertainty

    with _refusing_extra(file):
        uncertainty = Uncertainty.from_bytes(file.read_bytes(), weights)
    n_inputs = config.d_model if index is None else index.n_inputs
    if len(uncertainty.mean) != n_inputs or not set(uncertainty.target_names) <= set(config.scalar_names):
        raise CheckpointError(
            f"made for another model (targets {', '.join(uncertainty.target_names)}, {len(uncertainty.mean)} "
            f"features) or without its {INDEX_FILE}; delete the file, and calibrate this model",
            path=file,
        )
    return uncertainty


def _read_soundness(file: Path, config: ModelConfig, weights: str) -> Soundness | None:
    if not file.exists():
        return None
    from crystalframer.soundness import Soundness

    with _refusing_extra(file):
        soundness = Soundness.from_bytes(file.read_bytes(), weights)
    if soundness.layer_weight.shape[:2] != (config.n_layers + 1, config.d_model):
        raise CheckpointError("made for another model (other layers or features); delete it", path=file)
    return soundness


@contextmanager
def _refusing_extra(file: Path) -> Iterator[None]:
    """Turn what goes wrong with a file beside the weights into an error that says what to do about it."""
    try:
        yield
    except (OSError, ValueError, TypeError, RecursionError, CheckpointError) as error:
        field, value = getattr(error, "field", None), getattr(error, "value", None)
        raise CheckpointError(f"{error}; copy it again, or delete it", path=file, field=field, value=value) from error


def _read_used(folder: Path) -> UsedCrystals | None:
    """The crystals of the run that trained this checkpoint. `save` puts them into it; a run has them once."""
    found = [folder / USED_FILE]
    if folder.absolute().parent.name == CHECKPOINTS:
        found.append(folder.absolute().parents[1] / USED_FILE)
    file = next(filter(Path.exists, found), None)
    from crystalframer.datasets.used import UsedCrystals

    try:
        return None if file is None else UsedCrystals(file.read_bytes(), file)
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error}); copy it again, or delete it", path=file) from error


def _check_replaceable(path: Path) -> None:
    """Check that there is a checkpoint, an empty folder or nothing: what is there is deleted."""
    if not path.is_dir() or (path / WEIGHTS_FILE).exists() or not any(path.iterdir()):
        return
    what = "the folder of a run" if (path / CHECKPOINTS).exists() else "a folder with other files"
    raise CheckpointError(f"this is {what}, which a checkpoint would replace; choose another folder", path=path)


def _check_shapes(weights: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """Check that names and shapes of the weights are those of the model."""
    problems = [f"{name} is missing (expected shape {_shape(expected[name])})" for name in expected.keys() - weights]
    problems += [f"{name} is not part of the model" for name in weights.keys() - expected]
    problems += [
        f"{name} has shape {_shape(weights[name].shape)}, expected {_shape(expected[name])}"
        for name in weights.keys() & expected
        if tuple(weights[name].shape) != expected[name]
    ]
    if problems:
        listed = "; ".join(sorted(problems)[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointError(f"does not fit {CONFIG_FILE}: {listed}; {_COPY_BOTH}", path=folder / WEIGHTS_FILE)


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def _settle(path: Path) -> None:
    """Finish a swap that a crash cut in two: the last good checkpoint gets its name back."""
    old = _beside(path, "old")
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Have the disk remember which files the folder holds."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _nearby(path: Path) -> str:
    """Checkpoints under the path, or folders beside it, which the user may have meant."""
    if path.is_dir():
        found = (file.parent for depth in ("*/", "*/*/", "*/*/*/") for file in path.glob(depth + WEIGHTS_FILE))
        inside = [str(folder) for folder in found if not folder.name.startswith(".")]
        what_is_one = (
            f"Nor is there one in its folders. {_MODEL_FOLDER}; give the output folder of a training, or leave the "
            "model out to use the weights that come with the package"
        )
        return f"It holds these checkpoints: {', '.join(inside[:8])}" if inside else what_is_one
    parent = path.parent
    while not parent.is_dir():
        parent = parent.parent
    place = "the current folder" if parent == Path() else str(parent)
    names = sorted(child.name for child in parent.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not names:
        return f"This folder does not exist, and {place} has no folders"
    near = difflib.get_close_matches(path.relative_to(parent).parts[0], names, n=1)
    meant = f"Did you mean {str(parent / near[0])!r}? " if near else ""
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return f"{meant}The folders in {place}: {', '.join(names[:_SHOWN_NAMES])}{more}"
