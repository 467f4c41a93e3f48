"""A training run: from a config to a folder of results.

    run folder/
        config.json, data.json     what was asked for (and `n_pieces` as the memory needs it), fingerprints of its data
        crystals.parquet           which crystals are in which part (see `datasets.used`)
        metrics.csv                one row an epoch
        tensorboard/               the same, as event files
        checkpoints/best           lowest validation loss of the raw weights
        checkpoints/swa            average of the weights over the last epochs so far
        checkpoints/last           end of the latest epoch, with all that resuming needs
        result.json                scores, once the run is complete

A run is a pure function of config and data: batches, training noise and initial weights come from `training.seed` and
their place in the run. Resuming starts at the end of the latest complete epoch and continues to the same numbers as a
run that was never interrupted (bit for bit on a CPU with the same number of threads and of devices).

On several devices (`ranks`) every process reads the data, but of those that `fit` starts itself, which share its own.
Rank 0 alone writes.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.loggers import TensorBoardLogger

from crystalframer import checkpoint
from crystalframer.config import Config
from crystalframer.crystals.loading import BatchOrder, PreparedCrystals, evaluation_loader, train_loader
from crystalframer.crystals.on_gpu import RowLoader
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.domain import Domain
from crystalframer.errors import ConfigError, Setting, TrainingError
from crystalframer.model.network import CrystalFramer
from crystalframer.presets import PRESETS
from crystalframer.surroundings import left_alone, plain
from crystalframer.training import launch, ranks
from crystalframer.training.callbacks import PoliteInterrupt, Progress, Recorder, ResumeIO, StopTogether
from crystalframer.training.folder import RunFolder
from crystalframer.training.graphs import STREAMS_DIFFER, resident_pass
from crystalframer.training.inputs import (
    announce_earlier_crystals,
    announce_lone_crystals,
    check_memory,
    in_pieces,
    in_pieces_that_fit,
    in_smaller_pieces,
    load_splits,
    prepare_parts,
    targets_in,
    with_classes,
)
from crystalframer.training.optimisation import balanced_weights, output_statistics, seed_of_piece
from crystalframer.training.result import FitResult, conclude, read_result
from crystalframer.training.task import TrainingTask


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C or SIGTERM; the message says what was saved and how to go on."""


@left_alone()
@plain()
def fit(
    config: Config,
    data: Splits | CrystalDataset | None = None,
    output: Path | str = "runs/train",
    resume: bool = False,
    callbacks: Sequence[pl.Callback] = (),
) -> FitResult:
    """Train a model and score it.

    The history has a row an epoch: `epoch` (from 1), `step`, `learning_rate`, `gradient_norm` (mean, before clipping),
    `train_loss` and `train_mae/<target>` (during the epoch, with noise), `validation_loss`, `validation_mae/<target>`
    (of classes `train_cross_entropy/<target>`, `validation_cross_entropy/<target>` and `validation_accuracy/<target>`),
    the same with `swa_` for the averaged weights, `training_seconds` (of the steps alone) and `seconds` (with the
    validation). Losses are in standard deviations of the training labels, MAE in the target's unit; both are exact
    means over the labels that are present.

    Args:
        config: the experiment.
        data: a data set to split as `config.data` says, or one that is split already. Default: `config.data.source`.
        output: the run folder (see the module). It must not hold another run.
        resume: continue the run in `output` from its latest complete epoch.
        callbacks: further Lightning callbacks; at `on_validation_end`, `pl_module.history[-1]` is the row of the epoch.
            They may end the training at the end of an epoch. Processes that `fit` starts for further devices do
            without them.

    Raises:
        ConfigError: the config does not fit the data, the device's memory or the number of devices, or a resumed run
            was started with another one (fields are named).
        DataError: the data cannot be used.
        CrystalError: a crystal that the model cannot take, or that is too large for the device's memory.
        TrainingError: `output` holds a run already, or nothing to resume, or another process trains in it; or the loss
            is not finite.
        CheckpointError: a checkpoint could not be saved.
        RankError: the process of one of several devices was killed.
        Interrupted: Ctrl-C; the latest epoch is saved.
    """
    if not isinstance(config, Config):
        what = f"is of type {type(config).__name__}; give a config, such as cf.preset('tiny').config"
        raise ConfigError(what, field="config")
    training, folder = config.training, RunFolder(Path(output))
    device_kind = _device_kind(config)
    launch.check_device(device_kind)
    launch.check(training, device_kind)
    ranks.join_launched(device_kind == "cuda")
    n_started = 1 if launch.launched() else training.n_devices or 1
    is_first = ranks.rank() == 0
    with ExitStack() as lock:
        with nullcontext() if is_first else silent():
            parts, model, n_pieces = ranks.agreed(partial(_set_up, config, data, folder, resume, n_started, lock))
        config = dataclasses.replace(config, model=model.config)  # with the classes that the data have
        ranks.agreed(partial(_check_shared, folder))
        config = in_pieces(config, ranks.gather(n_pieces)[0])
        n_threads = training.n_threads
        if n_started > 1 and n_threads is None:
            n_threads = max(1, torch.get_num_threads() // n_started)
        with _threads(n_threads):
            if n_started > 1:
                shared = {name: parts[name] for name in ("train", "validation")}
                with ranks.followers(n_started, partial(_follow, config, shared, folder), device_kind == "cuda"):
                    task = _train(config, model, parts, folder, callbacks)
            else:
                task = _train_within_memory(config, model, parts, folder, callbacks)
        # With the threads that `evaluate` has: it gives the same test errors to the last digit.
        result = ranks.agreed(lambda: conclude(config, parts, folder, task.history, task.device) if is_first else None)
        return result or read_result(folder)


def _set_up(
    config: Config,
    data: Splits | CrystalDataset | None,
    folder: RunFolder,
    resume: bool,
    n_started: int,
    lock: ExitStack,
) -> tuple[dict[str, PreparedCrystals], CrystalFramer, int]:
    """Prepare data and model, and find in how many pieces to compute a batch.

    Rank 0 locks the folder, makes or checks it, and has the initial weights.
    """
    is_first = ranks.rank() == 0
    if resume and folder.config.exists():
        config = with_classes(config, folder.read_config().model.targets)
    check = partial(folder.check_resumable, config) if resume else folder.check_new
    if is_first:
        if folder.config.exists():
            lock.enter_context(folder.locked())
        check()  # before the work
        if resume:
            config = in_pieces(config, max(config.training.n_pieces, folder.read_config().training.n_pieces))
    splits = load_splits(config, data)
    config = with_classes(config, targets_in(splits, config.model.targets))
    parts = prepare_parts(config, splits)
    n_ranks = max(n_started, ranks.n_ranks())
    if n_ranks == 1:
        config = in_pieces_that_fit(config, parts["train"], _device(config))
    check_memory(config, parts, _device(config), n_ranks)
    announce_lone_crystals(config, parts["train"])
    announce_earlier_crystals(config, parts)
    if not is_first:
        return parts, CrystalFramer(config.model), config.training.n_pieces
    model = _new_model(config, parts["train"])
    if resume:
        folder.check_same_data(config, parts)
    else:
        lock.enter_context(folder.locked())  # which makes the folder
        check()  # again: another process may have been faster
        folder.start(config, parts)
    return parts, model, config.training.n_pieces


def _check_shared(folder: RunFolder) -> None:
    """Check that all ranks see the files of rank 0."""
    ends = time.monotonic() + 60.0
    while not folder.config.exists():
        if time.monotonic() > ends:
            raise TrainingError(
                f"{folder.path.absolute()}: the machine of rank {ranks.rank()} does not see what rank 0 wrote there; "
                "choose a folder that all machines share, and delete this one"
            )
        time.sleep(0.5)


def _follow(config: Config, parts: Mapping[str, PreparedCrystals], folder: RunFolder) -> None:
    """Train in a process that `fit` started for a further device."""
    _train(config, CrystalFramer(config.model), parts, folder, ())


def _device_kind(config: Config) -> str:
    """Where Lightning will train: `cpu`, `cuda` or `mps`."""
    if config.training.accelerator != "auto":
        return config.training.accelerator
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _device(config: Config) -> torch.device:
    kind = _device_kind(config)
    return torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)


def _train_within_memory(
    config: Config,
    model: CrystalFramer,
    parts: Mapping[str, PreparedCrystals],
    folder: RunFolder,
    callbacks: Sequence[pl.Callback],
) -> TrainingTask:
    """Train. When the GPU runs out of memory, go on from the latest complete epoch, with batches in more pieces.

    Raises:
        CrystalError: a crystal by itself is too large for the memory.
        ConfigError: there are several GPUs, of which one has run out of memory.
    """
    while True:
        try:
            return _train(config, model, parts, folder, callbacks)
        except torch.OutOfMemoryError as error:
            if ranks.n_ranks() > 1:
                advice = "a GPU ran out of memory; set ", Setting("training.n_pieces", 2 * config.training.n_pieces)
                raise ConfigError(*advice, " or more, and resume") from error
        # Here nothing holds what was on the GPU any more: neither the error, nor the model after this line.
        config, model = in_smaller_pieces(config, parts["train"]), _new_model(config, parts["train"])
        gc.collect()
        torch.cuda.empty_cache()
        folder.record_pieces(config.training.n_pieces)
        print(
            f"the GPU ran out of memory; training goes on from epoch {folder.n_epochs + 1}, with each batch in "
            f"{config.training.n_pieces} pieces (training.n_pieces). The rest stays the same",
            file=sys.stderr,
        )


def _train(
    config: Config,
    model: CrystalFramer,
    parts: Mapping[str, PreparedCrystals],
    folder: RunFolder,
    callbacks: Sequence[pl.Callback],
) -> TrainingTask:
    """Train from the state in the folder, or from the beginning if there is none."""
    training = config.training
    on_cuda = _device_kind(config) == "cuda"
    rank, n_ranks = ranks.rank(), ranks.n_ranks()
    loader = train_loader(parts["train"], training, on_cuda, rank, n_ranks)
    validation = evaluation_loader(parts["validation"], training, on_cuda, rank, n_ranks)
    order = loader.sampler
    assert isinstance(order, BatchOrder)
    resident = resident_pass(model, parts["train"], order, training, _device(config))
    if resident is not None:
        loader = RowLoader(parts["train"], resident.crystals, order, partial(seed_of_piece, training))
    first = np.concatenate(order.batches(0)[: training.calibration_batches])
    class_weights = _class_weights(config, parts["train"])
    task = TrainingTask(
        model, training, lambda epoch: len(order.batches(epoch)), parts["train"][first], resident, class_weights
    )
    state = folder.read_state()
    if state is not None:
        # Lightning draws the first batch before it tells the order which epoch it is.
        order.set_epoch(len(state["history"]))
    interrupt = PoliteInterrupt()
    recorder = Recorder(folder, interrupt)
    of_first = [recorder, Progress(order, config.model.targets[0])] if rank == 0 else []
    together = [StopTogether()] if n_ranks > 1 else []
    with _quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=training.n_epochs,
            accelerator="gpu" if training.accelerator == "cuda" else training.accelerator,
            devices=[torch.cuda.current_device()] if on_cuda and n_ranks > 1 else 1,
            precision="32-true" if training.precision == "32" else training.precision,
            accumulate_grad_batches=training.accumulate * training.n_pieces,
            logger=TensorBoardLogger(folder.path, name="tensorboard", version="") if rank == 0 else False,
            callbacks=[*of_first, *callbacks, *together, interrupt],
            plugins=[ResumeIO(), LightningEnvironment()],
            default_root_dir=folder.path,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(task, loader, validation, ckpt_path=None if state is None else folder.state, weights_only=True)
        except (Exception, SystemExit) as error:  # Lightning ends with a SystemExit on Ctrl-C
            if not interrupt.explains(error, trainer):
                raise
            if rank > 0:
                raise Interrupted("training was stopped; rank 0 says what was saved") from None
            raise Interrupted(_farewell(folder, task, recorder.n_saved)) from None
        finally:
            if resident is not None:
                resident.close()
    return task


def _new_model(config: Config, crystals: PreparedCrystals) -> CrystalFramer:
    """Random weights, or trained ones to go on from."""
    model = CrystalFramer(config.model, torch.Generator().manual_seed(config.training.seed))
    model.domain = Domain.of(crystals)
    mean, std = output_statistics(crystals.targets, config.model)
    model.target_mean.copy_(torch.from_numpy(mean))
    model.target_std.copy_(torch.from_numpy(std))
    if config.training.initial_weights is not None:
        trained = checkpoint.load(config.training.initial_weights)
        _start_from(model, trained, config.training.initial_weights)
    return model


def _class_weights(config: Config, crystals: PreparedCrystals) -> dict[str, torch.Tensor]:
    """Name of each target of classes → factors on the loss of its classes; none if all labels count alike."""
    if config.training.class_weights == "equal":
        return {}
    return {
        target.name: torch.from_numpy(balanced_weights(crystals.targets[:, n], target)).float()
        for n, target in enumerate(config.model.targets)
        if target.is_class
    }


def _start_from(model: CrystalFramer, trained: CrystalFramer, path: str) -> None:
    """Give a model the trained weights: all but the readout, and the readout of each target that both have.

    Without such a target the readout keeps its random weights.
    """
    wanted = model.config
    if dataclasses.replace(trained.config, targets=wanted.targets) != wanted:
        differing = [
            f"model.{field.name} is {getattr(wanted, field.name)!r}, there {getattr(trained.config, field.name)!r}"
            for field in dataclasses.fields(wanted)
            if field.name != "targets" and getattr(wanted, field.name) != getattr(trained.config, field.name)
        ]
        presets = (
            f"; the preset {name} has the settings of these weights"
            for name, preset in PRESETS.items()
            if dataclasses.replace(preset.config.model, targets=trained.config.targets) == trained.config
        )
        message = (
            f"this model has other settings: {'; '.join(differing)}. Only the targets may differ{next(presets, '')}"
        )
        raise ConfigError(message, field="training.initial_weights", value=path)
    weights, mine = trained.state_dict(), model.state_dict()
    columns = dict(zip(trained.config.targets, trained.config.columns, strict=True))
    known = [
        (mine_of, columns[target])
        for target, mine_of in zip(wanted.targets, wanted.columns, strict=True)
        if target in columns
    ]
    for name, weight in weights.items():
        if name.startswith(("readout.2", "target_")):  # a row for each output
            for to, of in known:
                mine[name][to] = weight[of]
        elif known or not name.startswith("readout.0"):
            mine[name].copy_(weight)


def _farewell(folder: RunFolder, task: TrainingTask, done: int) -> str:
    last = folder.checkpoint("last")
    if done == 0:
        saved = f"in its first epoch; the weights so far are in {last}. Resuming starts from the beginning"
    else:
        saved = (
            f"after epoch {done} of {task.config.n_epochs}, kept in {last}. Resuming continues with epoch {done + 1}"
        )
    again = f"the same command with --resume, or fit(..., output={str(folder.path)!r}, resume=True)"
    return f"training was stopped {saved}: {again}"


@contextmanager
def silent() -> Iterator[None]:
    """Without messages and bars: those of several processes would overwrite each other."""
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        yield


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's tips and hints out of the user's way, and its handling of Ctrl-C within the run."""
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
            warnings.filterwarnings("ignore", STREAMS_DIFFER)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
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
