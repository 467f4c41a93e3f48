"""A trained model on disk: a directory with `config.json` and `model.safetensors`, and, where the model has them, with
`domain.json` (what it was trained on) and `uncertainty.safetensors` (how far its predictions may be off).

`load` needs nothing else: no Lightning, no data set, and no pickled code. A directory that training can go on from
holds `resume.ckpt` as well. Saving never damages what is there: a checkpoint is written beside the old one, flushed to
the disk and swapped in whole.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crystalframer import files
from crystalframer._version import __version__
from crystalframer.config import ModelConfig, from_json, from_tree, to_json
from crystalframer.domain import Domain
from crystalframer.errors import CheckpointError, ConfigError, UncertaintyError
from crystalframer.model.network import CrystalFramer
from crystalframer.uncertainty import Uncertainty

FORMAT_VERSION = 1
CONFIG_FILE, WEIGHTS_FILE, RESUME_FILE = "config.json", "model.safetensors", "resume.ckpt"
DOMAIN_FILE, UNCERTAINTY_FILE = "domain.json", "uncertainty.safetensors"
_SHOWN_NAMES = 10
RESULT_FILE = "result.json"
"""In the folder of a complete run: its scores, and which weights were chosen."""
WEIGHTS_OF_A_RUN = ("best", "swa", "last")
"""Folders in `checkpoints`."""


def save(model: CrystalFramer, path: Path | str, add: Callable[[Path], None] | None = None) -> None:
    """Write `model` to the directory `path`, replacing a checkpoint there only once the new one is complete on disk.

    Args:
        add: writes further files into the new directory before it is swapped in (training adds its resume state).

    Raises:
        CheckpointError: the disk is full or not writable; the checkpoint that was at `path` is unharmed.
    """
    from safetensors.torch import save as to_bytes

    path = Path(path)
    new, old = _beside(path, "new"), _beside(path, "old")
    description: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "crystalframer_version": __version__,
        "model": dataclasses.asdict(model.config),
    }
    weights = to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    description["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    try:
        _settle(path)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        files.write(new / CONFIG_FILE, json.dumps(description, indent=2).encode())
        files.write(new / WEIGHTS_FILE, weights)
        if model.domain is not None:
            files.write(new / DOMAIN_FILE, to_json(model.domain).encode())
        if model.uncertainty is not None:
            files.write(new / UNCERTAINTY_FILE, model.uncertainty.to_bytes())
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
        kept = f"the checkpoint that was there before is unharmed ({path})" if path.exists() else "nothing was written"
        raise CheckpointError(
            f"{path}: could not save the checkpoint ({error}); {kept}. Free some space, or choose another folder"
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def load(path: Path | str, device: torch.device | str = "cpu") -> CrystalFramer:
    """The model saved at `path`, ready for evaluation.

    Args:
        path: a checkpoint directory, or the folder of a training run: the weights that `fit` returned are taken, and
            `checkpoints/best` of a run that is not complete (name `checkpoints/last` or another for the others).
        device: where to put it.

    Raises:
        CheckpointError: nothing there, a file missing or truncated, a newer format, or tensors that do not fit the
            config; each named.
    """
    folder = find(path)
    config, checksum = _read_description(folder)
    weights = _read_weights(folder / WEIGHTS_FILE)
    if config.n_layers > len(weights):
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: model.n_layers = {config.n_layers:,}, but {WEIGHTS_FILE} holds {len(weights):,} "
            "tensors; the two belong to different models: copy both again"
        )
    with torch.device("meta"):  # sizes alone: before they are compared, the config may ask for any amount of memory
        outline = CrystalFramer(config)
    weights = _matching(weights, outline.state_dict(), folder)
    with torch.random.fork_rng(devices=[]):  # initial weights draw from the user's generator, and are thrown away
        model = CrystalFramer(config)
    model.load_state_dict(weights)
    _check_weights(folder / WEIGHTS_FILE, checksum)
    model.domain = _read_domain(folder / DOMAIN_FILE)
    model.uncertainty = _read_uncertainty(folder / UNCERTAINTY_FILE, model.config)
    return model.to(device).eval()


def find(path: Path | str) -> Path:
    """The checkpoint directory that `path` stands for (see `load`)."""
    path = Path(path)
    for folder in (path, path / "checkpoints" / _chosen(path)):
        # A crash in the middle of a swap leaves the last good checkpoint under its other name.
        for candidate in (folder, _beside(folder, "old")):
            if (candidate / CONFIG_FILE).exists() and not (candidate / "checkpoints").exists():
                return candidate
    if (path / WEIGHTS_FILE).exists():
        raise CheckpointError(
            f"{path}: {CONFIG_FILE} is missing; a checkpoint is a directory with it and {WEIGHTS_FILE}: copy all of it"
        )
    raise CheckpointError(f"{path}: no checkpoint here. {_nearby(path)}")


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
        description = json.loads(file.read_text(encoding="utf-8"))
        version = description["format_version"]
        if version > FORMAT_VERSION:
            raise CheckpointError(
                f"{file}: written by crystalframer {description.get('crystalframer_version', '(unknown)')} in format "
                f"{version}; this is {__version__}, which reads up to format {FORMAT_VERSION}. Upgrade crystalframer"
            )
        return from_tree(ModelConfig, description["model"]), description.get("weights_sha256")
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: not the config of a checkpoint ({error!r}); copy it again") from error


def _read_weights(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.exists():
        raise CheckpointError(f"{file.parent}: {WEIGHTS_FILE} is missing; copy the whole directory")
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: truncated or damaged ({error}); copy it again, or use another checkpoint"
        ) from error


def _check_weights(file: Path, checksum: str | None) -> None:
    if checksum is not None and hashlib.sha256(file.read_bytes()).hexdigest() != checksum:
        raise CheckpointError(
            f"{file}: damaged, or not the weights that were saved with {CONFIG_FILE} (SHA-256); copy the whole "
            "directory again, or use another checkpoint"
        )


def _read_domain(file: Path) -> Domain | None:
    try:
        return from_json(Domain, file.read_text(encoding="utf-8")) if file.exists() else None
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{file}: not the domain of a model ({error}); copy it again, or delete it") from error


def _read_uncertainty(file: Path, config: ModelConfig) -> Uncertainty | None:
    if not file.exists():
        return None
    try:
        uncertainty = Uncertainty.from_bytes(file.read_bytes())
    except (OSError, UncertaintyError) as error:
        raise CheckpointError(f"{file}: {error}; copy it again, or delete it") from error
    fits = len(uncertainty.mean) == config.d_model and uncertainty.target_names == config.target_names
    if not fits:
        raise CheckpointError(
            f"{file}: made for another model (targets {', '.join(uncertainty.target_names)}, {len(uncertainty.mean)} "
            "features); delete it, and calibrate this one"
        )
    return uncertainty


def _matching(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], folder: Path) -> Mapping[str, Tensor]:
    """The weights, once their names and shapes are those of the model."""
    problems = [f"{name} is missing (expected shape {_shape(expected[name])})" for name in expected.keys() - weights]
    problems += [f"{name} is not part of the model" for name in weights.keys() - expected]
    problems += [
        f"{name} has shape {_shape(weights[name])}, expected {_shape(expected[name])}"
        for name in weights.keys() & expected
        if weights[name].shape != expected[name].shape
    ]
    if problems:
        listed = "; ".join(sorted(problems)[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE} does not fit {CONFIG_FILE}: {listed}. Copy both from one checkpoint"
        )
    return weights


def _shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "scalar"


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
    """What a user may have meant: checkpoints under the path, or names beside it."""
    if path.is_dir():
        found = (file.parent for depth in ("*/", "*/*/", "*/*/*/") for file in path.glob(depth + WEIGHTS_FILE))
        inside = [str(folder) for folder in found if not folder.name.startswith(".")]
        return f"Under it: {', '.join(inside[:8])}" if inside else "There is none in the folders under it either"
    parent = path.parent
    while not parent.is_dir():
        parent = parent.parent
    names = sorted(child.name for child in parent.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not names:
        return f"{parent} holds no folders"
    near = difflib.get_close_matches(path.relative_to(parent).parts[0], names, n=1, cutoff=0.4)
    meant = f"Did you mean {str(parent / near[0])!r}? " if near else ""
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return f"{meant}The folders in {parent}: {', '.join(names[:_SHOWN_NAMES])}{more}"
