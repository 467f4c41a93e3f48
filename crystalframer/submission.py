"""The results file of Matbench, from the runs of its five folds."""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from crystalframer import checkpoint, files
from crystalframer._version import __version__
from crystalframer.config import Config, Target
from crystalframer.datasets.matbench import MATBENCH
from crystalframer.datasets.published import Source
from crystalframer.datasets.sources import dataset
from crystalframer.datasets.splits import N_FOLDS
from crystalframer.errors import CheckpointError, ConfigError, DataError, listed, suggestion
from crystalframer.training.folder import RunFolder

if TYPE_CHECKING:
    import torch

RANDOM = "random weights"
_MATBENCH_VERSION = "0.6"
"""The release whose format this is."""
_BENCHMARK = "matbench_v0.1"
_SMALLEST_LABEL = 1e-5
"""Labels nearer to 0 do not count in the relative error."""


@dataclass(frozen=True)
class FoldRun:
    """A run of one fold."""

    folder: Path
    fold: int
    parameters: Mapping[str, Any]
    """All settings of the run."""
    start: str
    """What its weights began as."""


def submit(
    task: str,
    runs: Sequence[str | Path],
    output: str | Path,
    *,
    algorithm: str = "crystalframer",
    device: torch.device | str | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Write the file of results that Matbench takes, from a run for each of its five folds.

    Each run was trained with `data.source` = `matbench-TASK:fold-N`, which keeps the test part of the fold out of the
    training. The test parts are predicted here. The file names what the weights began as. Weights that have seen labels
    of the task are refused as a start: the shipped ones for `mp-gap`, `mp-is-metal`, `mp-e-form`, `log-kvrh`,
    `log-gvrh` and `dielectric`.

        for fold in range(5):
            data = replace(config.data, source=f"matbench-phonons:fold-{fold}")
            cf.fit(replace(config, data=data), output=f"runs/phonons-{fold}")
        cf.submit("matbench-phonons", [f"runs/phonons-{fold}" for fold in range(5)], "results.json.gz")

    Args:
        task: `matbench-phonons`, `matbench-jdft2d`, ...
        runs: the run folders of the five folds, in any order.
        output: file to write, `.json` or `.json.gz`.
        algorithm: name of the method, for readers of the file.
        device: where to predict, as in `predict`.
        progress: show progress bars if it takes more than 2 s.

    Returns:
        Name of a score → its mean over the folds. For regression `mae`, `rmse`, `mape` and `max_error`; for classes
        `accuracy`, `balanced_accuracy`, `f1` and `rocauc`.

    Raises:
        DataError: there is no such task, or its file cannot be read.
        ConfigError: a run is not of the task, a fold is missing or there twice, or a start has seen labels of the task.
        CheckpointError: a run has no model.
    """
    source = _task(task)
    if not re.search(r"\.json(\.gz)?$", str(output)):
        raise ConfigError("must end with .json or .json.gz", field="output", value=str(output))
    found = _one_for_each_fold([_run(Path(folder), source) for folder in runs], source)
    folds = {f"fold_{run.fold}": _fold(run, source, device, progress) for run in found}
    name = source.name.replace("-", "_")
    document: dict[str, Any] = {
        "@module": "matbench.bench",
        "@class": "MatbenchBenchmark",
        "version": _MATBENCH_VERSION,
        "benchmark_name": _BENCHMARK,
        "user_metadata": {
            "algorithm": algorithm,
            "crystalframer": __version__,
            "initial_weights": listed(list(dict.fromkeys(run.start for run in found)), N_FOLDS),
        },
        "tasks": {
            name: {
                "@module": "matbench.task",
                "@class": "MatbenchTask",
                "benchmark_name": _BENCHMARK,
                "dataset_name": name,
                "results": folds,
            }
        },
        "datestamp": datetime.datetime.now(datetime.UTC).strftime("%Y.%m.%d %H:%M.%S"),
    }
    document["hash"] = digest(document)
    content = json.dumps(document).encode()
    files.write(Path(output), gzip.compress(content, mtime=0) if str(output).endswith(".gz") else content)
    scores = [fold["scores"] for fold in folds.values()]
    return {score: float(np.mean([each[score] for each in scores])) for score in scores[0]}


def digest(document: Mapping[str, Any]) -> str:
    """The checksum by which Matbench sees that a file was not changed: SHA-256 of its JSON with sorted keys.

    >>> digest({"b": 1, "a": {"d": 2.5, "c": None}})[:8] == digest({"a": {"c": None, "d": 2.5}, "b": 1})[:8]
    True
    """
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def scores_of(
    target: Target, labels: Float[np.ndarray, " n"], predictions: Float[np.ndarray, " n"]
) -> dict[str, float]:
    """The scores of Matbench.

    Args:
        labels: numbers, or 0 and 1 of a target of two classes.
        predictions: numbers, or probabilities of the second class.
    """
    if target.is_class:
        from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

        likeliest = predictions >= 0.5
        return {
            "accuracy": float(accuracy_score(labels, likeliest)),
            "balanced_accuracy": float(balanced_accuracy_score(labels, likeliest)),
            "f1": float(f1_score(labels, likeliest)),
            "rocauc": float(roc_auc_score(labels, predictions)),
        }
    errors = np.abs(predictions - labels)
    counts = np.abs(labels) > _SMALLEST_LABEL
    return {
        "mae": float(errors.mean()),
        "rmse": math.sqrt(float(np.square(errors).mean())),
        "mape": float((errors[counts] / np.abs(labels[counts])).mean()),
        "max_error": float(errors.max()),
    }


def _task(name: str) -> Source:
    known = {source.name: source for source in MATBENCH}
    wanted = name if name.startswith("matbench-") else f"matbench-{name}"
    if wanted not in known:
        raise DataError(f"{name!r} is no task of Matbench{suggestion(wanted, known)}", field="task", value=name)
    return known[wanted]


def _run(path: Path, source: Source) -> FoldRun:
    folder = RunFolder(path)
    if not folder.config.exists():
        raise CheckpointError("is not the folder of a run: it has no config.json", path=path)
    config, (target,) = folder.read_config(), source.targets
    name, _, split = config.data.source.partition(":")
    if name != source.name or not split.startswith("fold-"):
        message = f"must be {source.name}:fold-0 to :fold-{N_FOLDS - 1}"
        raise ConfigError(message, path=folder.config, field="data.source", value=config.data.source)
    if target.name not in config.model.target_names:
        message = f"lacks the target of the task, {target.name}"
        raise ConfigError(message, path=folder.config, field="model.targets", value=config.model.target_names)
    start = next(iter([*_starts(folder, target)]), RANDOM)
    return FoldRun(path, int(split.removeprefix("fold-")), _parameters(config, start), start)


def _parameters(config: Config, start: str) -> dict[str, Any]:
    """All settings, one value each. Matbench does not sort dictionaries in lists before it takes the checksum."""

    def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    found = dict(flat(dataclasses.asdict(config)))
    return found | {
        "model.targets": [target.label for target in config.model.targets],
        "training.initial_weights": start,
    }


def _starts(folder: RunFolder, target: Target) -> Iterator[str]:
    """The weights that a run started from, those that these started from, and so on; none may know the target."""
    weights = folder.read_config().training.initial_weights
    if weights is None:
        return
    try:
        known = checkpoint.read_config(checkpoint.find(weights)).target_names
    except CheckpointError as error:
        message = f"cannot be read, so nobody knows which labels these weights saw ({error})"
        raise ConfigError(message, path=folder.config, field="training.initial_weights", value=weights) from error
    if target.name in known:
        message = f"has seen labels of {target.name}, perhaps those of the test parts. Start from other weights"
        raise ConfigError(message, path=folder.config, field="training.initial_weights", value=weights)
    # The path would say more about a machine than about the weights.
    name = f"the weights in crystalframer {__version__}" if weights == checkpoint.PACKAGE else Path(weights).name
    yield f"{name} ({', '.join(known)})"
    before = RunFolder(Path(weights))
    if weights != checkpoint.PACKAGE and before.config.exists():
        yield from _starts(before, target)


def _one_for_each_fold(runs: Sequence[FoldRun], source: Source) -> list[FoldRun]:
    by_fold: dict[int, FoldRun] = {}
    for run in runs:
        if run.fold in by_fold:
            message = f"is fold {run.fold}, as {by_fold[run.fold].folder}; each fold needs one run"
            raise ConfigError(message, field="runs", value=str(run.folder))
        by_fold[run.fold] = run
    missing = [str(fold) for fold in range(N_FOLDS) if fold not in by_fold]
    if missing:
        message = f"there is no run of fold {listed(missing, N_FOLDS)} of {source.name}; all {N_FOLDS} folds are needed"
        raise ConfigError(message, field="runs")
    return [by_fold[fold] for fold in range(N_FOLDS)]


def _fold(run: FoldRun, source: Source, device: torch.device | str | None, progress: bool) -> dict[str, Any]:
    from crystalframer.prediction import predict

    (target,) = source.targets
    data = dataset(f"{source.name}:fold-{run.fold}")
    assert data.parts is not None
    test = data.select(data.parts == "test")
    table = predict(test, run.folder, device=device, progress=progress)
    failed = table.loc[table["error"].notna()]
    if len(failed):
        message = f"has no prediction ({failed['error'].iloc[0]}); Matbench takes complete folds only"
        raise DataError(message, path=run.folder, field=str(failed["id"].iloc[0]))
    predictions = table[target.name].to_numpy(dtype=np.float64)
    return {
        "data": dict(zip(table["id"].tolist(), predictions.tolist(), strict=True)),
        "parameters": run.parameters,
        "scores": scores_of(target, test.targets[target.name], predictions),
    }
