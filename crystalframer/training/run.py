"""A training run: from a config to a folder of results.

    run folder/
        config.json, data.json     what was asked for, and a digest of the data it was run on
        metrics.csv                one row an epoch
        tensorboard/               the same, as event files
        checkpoints/best           lowest validation loss of the raw weights
        checkpoints/swa            average of the weights over the last epochs so far
        checkpoints/last           end of the latest epoch, with all that resuming needs
        result.json                scores, once the run is complete

A run is a pure function of config and data: batches, training noise and initial weights come from `training.seed` and
their place in the run. Resuming starts at the end of the latest complete epoch and continues to the same numbers as a run
that was never interrupted (bit for bit on a CPU with the same number of threads).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment

from crystalframer import checkpoint
from crystalframer.config import Config, ConfigError, from_json, to_json
from crystalframer.data import sources
from crystalframer.data.dataset import CrystalDataset, DataError, Splits
from crystalframer.data.loading import BatchOrder, PreparedCrystals, evaluation_loader, prepare, train_loader
from crystalframer.model.network import CrystalFramer
from crystalframer.training.callbacks import CHECKPOINTS, METRICS_FILE, Progress, Recorder, ResumeIO
from crystalframer.training.optimisation import mean_absolute_error, target_statistics
from crystalframer.training.task import TrainingError, TrainingTask

if TYPE_CHECKING:
    import pandas

CONFIG_FILE, DATA_FILE, RESULT_FILE = "config.json", "data.json", "result.json"
WHERE_IT_RUNS = ("accelerator", "n_workers", "n_threads")
"""Fields that say where a run computes, not what: they may differ on resuming."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C; the message says what was saved and how to go on."""


@dataclass(frozen=True)
class Score:
    """Errors of one set of weights; MAE per target name, in the target's unit."""

    validation_loss: float
    """Mean of |error|/standard deviation over all labels: what weights are chosen by."""
    validation_mae: Mapping[str, float]
    test_mae: Mapping[str, float]
    """Empty without a test part."""


@dataclass(frozen=True, eq=False)
class FitResult:
    """What a run came to."""

    output: Path
    model: CrystalFramer
    """With the chosen weights, ready to predict, on the CPU."""
    chosen: str
    """`best` or `swa`: the lower validation loss."""
    scores: Mapping[str, Score]
    """Of the `best` raw weights, and of their average `swa` if there is one."""
    baseline_mae: Mapping[str, float]
    """Test MAE of predicting the mean of the training labels."""
    history: pandas.DataFrame
    """One row an epoch, as in `metrics.csv`."""

    @property
    def checkpoint(self) -> Path:
        return self.output / CHECKPOINTS / self.chosen

    def summary(self) -> str:
        """One line per target: the test error, and that of predicting the mean."""
        lines = []
        for target in self.model.config.targets:
            for name, score in self.scores.items():
                line = f"{target.name}, {name}: validation MAE {score.validation_mae[target.name]:.4g} {target.unit}"
                if score.test_mae:
                    error, baseline = score.test_mae[target.name], self.baseline_mae[target.name]
                    line += (
                        f", test MAE {error:.4g} {target.unit}, {error / baseline:.1%} of the {baseline:.4g} {target.unit} "
                        "of predicting the training mean"
                    )
                lines.append(line + (" (chosen)" if name == self.chosen else ""))
        return "\n".join(lines)


def fit(
    config: Config,
    data: Splits | CrystalDataset | None = None,
    output: Path | str = "runs/train",
    resume: bool = False,
    callbacks: Sequence[pl.Callback] = (),
) -> FitResult:
    """Train a model and score it.

    The history has a row an epoch: `epoch` (from 1), `step`, `learning_rate`, `gradient_norm` (mean, before clipping),
    `train_loss` and `train_mae/<target>` (during the epoch, with noise), `validation_loss`, `validation_mae/<target>`, the
    same with `swa_` for the averaged weights, and `seconds`. Losses are in standard deviations of the training labels, MAE
    in the target's unit; both are exact means over the labels that are present.

    Args:
        config: the experiment.
        data: a data set to split as `config.data` says, or one that is split already. Default: `config.data.source`.
        output: the run folder (see the module). It must not hold another run.
        resume: continue the run in `output` from its latest complete epoch.
        callbacks: further Lightning callbacks; at `on_validation_end`, `pl_module.history[-1]` is the row of the epoch.

    Raises:
        ConfigError: the config does not fit the data, or a resumed run was started with another one (fields are named).
        DataError: the data cannot be used.
        TrainingError: `output` holds a run already, or nothing to resume; or the loss is not finite.
        CheckpointError: a checkpoint could not be saved.
        Interrupted: Ctrl-C; the latest epoch is saved.
    """
    output = Path(output)
    _check_folder(output, config, resume)
    parts = _prepare(config, data)
    digest = {name: {"crystals": len(part), "sha256": part.fingerprint()} for name, part in parts.items()}
    state = output / CHECKPOINTS / "last" / checkpoint.RESUME_FILE
    if resume:
        _check_data(output, digest)
    else:
        (output / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        checkpoint.write_file(output / DATA_FILE, json.dumps(digest, indent=2).encode())
        checkpoint.write_file(output / CONFIG_FILE, to_json(config).encode())
    with _threads(config.training.n_threads):
        task = _train(config, parts, output, state if resume and state.exists() else None, callbacks)
        return _conclude(config, parts, output, task)


def _check_folder(output: Path, config: Config, resume: bool) -> None:
    file = output / CONFIG_FILE
    if not resume:
        if file.exists() or (output / CHECKPOINTS).exists():
            raise TrainingError(
                f"{output} holds a run already; continue it with resume=True (--resume), choose another folder, or delete it"
            )
        return
    if not file.exists():
        raise TrainingError(f"{output}: nothing to resume ({CONFIG_FILE} is missing); start the run without resume")
    if (output / RESULT_FILE).exists():
        raise TrainingError(f"{output}: the run is complete; its scores are in {output / RESULT_FILE}")
    before = _flat(dataclasses.asdict(from_json(Config, file.read_text(encoding="utf-8"))))
    now = _flat(dataclasses.asdict(config))
    names = sorted(name for name in before.keys() | now if before.get(name) != now.get(name))
    changed = [name for name in names if name.removeprefix("training.") not in WHERE_IT_RUNS]
    if changed:
        listed = "; ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in changed)
        raise ConfigError(
            f"{output}: cannot resume with another config: {listed}. Resume with the one in {file}, or start a new run"
        )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {
        name: value
        for key, child in tree.items()
        for name, value in _flat(child, f"{prefix}.{key}" if prefix else key).items()
    }


def _check_data(output: Path, digest: Mapping[str, Any]) -> None:
    before = json.loads((output / DATA_FILE).read_text(encoding="utf-8"))
    changed = [name for name in digest if digest[name] != before.get(name)]
    if changed:
        raise TrainingError(
            f"{output}: cannot resume, the data have changed since the run was started ({', '.join(changed)} part); "
            "resume with the same data, or start a new run"
        )


def _prepare(config: Config, data: Splits | CrystalDataset | None) -> dict[str, PreparedCrystals]:
    """Labelled crystals of the three parts with their neighbours."""
    if data is None:
        data = sources.dataset(config.data.source, config.data.labels, config.model.targets)
    if isinstance(data, CrystalDataset):
        data = data.split(config.data, config.training.seed)
    parts = {}
    for name in ("train", "validation", "test"):
        labelled = getattr(data, name).with_targets(config.model.targets).labelled()
        if len(labelled):
            parts[name] = prepare(labelled, config.model.radius, config.model.target_names, name)
        elif name != "test":
            raise DataError(
                f"the {name} part has no crystal with a label of {', '.join(config.model.target_names)}; "
                "choose another split or other targets"
            )
    return parts


def _train(
    config: Config,
    parts: Mapping[str, PreparedCrystals],
    output: Path,
    state: Path | None,
    callbacks: Sequence[pl.Callback],
) -> TrainingTask:
    training = config.training
    on_cuda = training.accelerator == "cuda" or (training.accelerator == "auto" and torch.cuda.is_available())
    loader = train_loader(parts["train"], training, pin_memory=on_cuda)
    order = loader.sampler
    assert isinstance(order, BatchOrder)
    first = np.concatenate(order.batches(0)[: training.calibration_batches])
    task = TrainingTask(_new_model(config, parts["train"]), training, parts["train"][first])
    if state is not None:
        # Lightning draws the first batch before it tells the order which epoch it is.
        order.set_epoch(len(torch.load(state, weights_only=True)["history"]))
    recorder = Recorder(output)
    with _quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=training.n_epochs,
            accelerator="gpu" if training.accelerator == "cuda" else training.accelerator,
            devices=1,
            precision="32-true" if training.precision == "32" else training.precision,
            accumulate_grad_batches=training.accumulate,
            logger=_tensorboard(output),
            callbacks=[recorder, Progress(order, config.model.targets[0]), *callbacks],
            plugins=[ResumeIO(), LightningEnvironment()],
            default_root_dir=output,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        try:
            validation = evaluation_loader(parts["validation"], training, pin_memory=on_cuda)
            trainer.fit(task, loader, validation, ckpt_path=state, weights_only=True)
        except SystemExit:  # how Lightning ends on Ctrl-C
            if not recorder.was_interrupted:
                raise
            raise Interrupted(_farewell(output, task)) from None
    return task


def _new_model(config: Config, crystals: PreparedCrystals) -> CrystalFramer:
    model = CrystalFramer(config.model, torch.Generator().manual_seed(config.training.seed))
    mean, std = target_statistics(crystals.targets, config.model.target_names)
    model.target_mean.copy_(torch.from_numpy(mean))
    model.target_std.copy_(torch.from_numpy(std))
    return model


def _farewell(output: Path, task: TrainingTask) -> str:
    n_epochs, done = task.config.n_epochs, len(task.history)
    last = output / CHECKPOINTS / "last"
    if done == 0:
        saved = f"before the first epoch was complete; the weights so far are in {last}. Resuming starts from the beginning"
    else:
        saved = f"after epoch {done} of {n_epochs}, which {last} holds. Resuming continues with epoch {done + 1}"
    return f"training was stopped {saved}: the same command with --resume, or fit(..., output={str(output)!r}, resume=True)"


def _conclude(
    config: Config, parts: Mapping[str, PreparedCrystals], output: Path, task: TrainingTask
) -> FitResult:
    """Score the best and the averaged weights, and choose between them."""
    import pandas

    history = pandas.DataFrame(task.history)
    chances = {"best": history.loc[history["validation_loss"].idxmin()]}
    if (output / CHECKPOINTS / "swa").exists():
        chances["swa"] = history.iloc[-1].filter(like="swa_").rename(lambda column: column.removeprefix("swa_"))
    models = {name: checkpoint.load(output / CHECKPOINTS / name, task.device) for name in chances}
    names, test = config.model.target_names, parts.get("test")
    scores, baseline = {}, {}
    for name, row in chances.items():
        mae = {} if test is None else dict(zip(names, _mae(models[name], test, config)))
        validation_mae = {target: float(row[f"validation_mae/{target}"]) for target in names}
        scores[name] = Score(float(row["validation_loss"]), validation_mae, mae)
    if test is not None:
        mean = np.broadcast_to(np.nanmean(parts["train"].targets, axis=0), test.targets.shape)
        baseline = dict(zip(names, mean_absolute_error(mean, test.targets).tolist()))
    chosen = min(scores, key=lambda name: scores[name].validation_loss)
    result = FitResult(output, models[chosen].cpu(), chosen, scores, baseline, history)
    saved = {"chosen": chosen, "scores": {name: dataclasses.asdict(score) for name, score in scores.items()}}
    checkpoint.write_file(output / RESULT_FILE, json.dumps(saved | {"baseline_mae": baseline}, indent=2).encode())
    return result


def _mae(model: CrystalFramer, crystals: PreparedCrystals, config: Config) -> list[float]:
    """Mean absolute error of each target."""
    from tqdm.auto import tqdm

    device = model.target_mean.device
    predictions = []
    with torch.inference_mode():
        for batch in tqdm(evaluation_loader(crystals, config.training), desc="testing", delay=2, leave=False):
            predictions.append(model(batch.to(device)).cpu())
    return mean_absolute_error(torch.cat(predictions).numpy(), crystals.targets).tolist()


def _tensorboard(output: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(output, name="tensorboard", version="")


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's tips and hints out of the user's way, and its handling of Ctrl-C within the run."""
    from lightning.pytorch.utilities.warnings import PossibleUserWarning

    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    in_main_thread = threading.current_thread() is threading.main_thread()
    on_interrupt = signal.getsignal(signal.SIGINT)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning 2.6 with torch 2.13.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
        if in_main_thread:
            signal.signal(signal.SIGINT, on_interrupt)


@contextmanager
def _threads(n_threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
