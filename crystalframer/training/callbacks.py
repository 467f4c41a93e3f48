"""Callbacks of a training: the progress bar, the files of a run, and Ctrl-C."""

from __future__ import annotations

import io
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from crystalframer import checkpoint, files
from crystalframer.config import Target
from crystalframer.crystals.loading import BatchOrder
from crystalframer.training import ranks
from crystalframer.training.folder import RunFolder
from crystalframer.training.task import TrainingTask


class ResumeIO(TorchCheckpointIO):
    """Writes Lightning's state as one file that is on the disk when the call returns."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        # Through memory: torch reports a full disk as a RuntimeError without its cause.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        files.write(Path(path), buffer.getvalue())


class Recorder(pl.Callback):
    """Keeps `metrics.csv` and the checkpoints `best`, `swa` and `last` up to date, epoch by epoch."""

    def __init__(self, folder: RunFolder, interrupt: PoliteInterrupt) -> None:
        self.folder, self.interrupt = folder, interrupt
        self.n_saved = 0
        """Epochs that the checkpoint `last` holds."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # On resuming, rows of an epoch that was cut off go; it is computed again.
        self.n_saved = len(_task(pl_module).history)
        self.folder.write_metrics(_task(pl_module).history)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        task, folder = _task(pl_module), self.folder
        *earlier, row = task.history
        if all(row["validation_loss"] < other["validation_loss"] for other in earlier):
            checkpoint.save(task.model, folder.checkpoint("best"))
        if task.is_averaging:
            checkpoint.save(task.averaged_model, folder.checkpoint("swa"))
        # Last of the three: a crash before it repeats the epoch, to the same numbers.
        checkpoint.save(
            task.model, folder.checkpoint("last"), lambda new: trainer.save_checkpoint(new / checkpoint.RESUME_FILE)
        )
        self.n_saved = len(task.history)
        folder.append_metrics(row)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if not self.interrupt.explains(exception, trainer):
            return
        # It may have come between the end of an epoch and its checkpoint, or between that and its row.
        self.folder.write_metrics(_task(pl_module).history[: self.n_saved])
        if not self.n_saved:
            checkpoint.save(_task(pl_module).model, self.folder.checkpoint("last"))


class PoliteInterrupt(pl.Callback):
    """Ctrl-C waits for the end of the batch: within a compiled kernel or a save it would surface as another error.

    Comes after all callbacks that save. Whoever calls `fit` puts the earlier handler of the signal back. On several
    devices rank 0 stops; the others, which torchrun and SLURM tell as well, go on until they find it gone.
    """

    def __init__(self) -> None:
        self.was_asked = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._on_signal)

    def explains(self, error: BaseException, trainer: pl.Trainer) -> bool:
        """Whether training ended with this error because of Ctrl-C or the SIGTERM of a scheduler.

        Lightning turns SIGTERM into a SystemExit. If another rank has ended first, the exchange with it fails here.
        """
        was_told = self.was_asked or trainer.received_sigterm
        return isinstance(error, (KeyboardInterrupt, SystemExit)) or (was_told and ranks.n_ranks() > 1)

    def _stop_if_asked(self, *_: Any, **__: Any) -> None:
        if self.was_asked and ranks.rank() == 0:
            raise KeyboardInterrupt

    on_train_batch_end = on_validation_batch_end = on_train_epoch_end = _stop_if_asked

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_if_asked()
        self.was_asked = True
        if ranks.rank() == 0:
            print("\nstopping at the end of this batch; Ctrl-C again stops at once", file=sys.stderr, flush=True)


class StopTogether(pl.Callback):
    """Lets a callback of one rank end the training of all, at the end of an epoch."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = any(ranks.gather(trainer.should_stop))


class Progress(pl.Callback):
    """One bar over the whole run, with the time left and the validation error in the target's unit, or accuracy."""

    def __init__(self, order: BatchOrder, target: Target) -> None:
        self.order, self.target = order, target
        self.better = max if target.is_class else min
        self.best = -float("inf") if target.is_class else float("inf")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from tqdm.auto import tqdm

        done = trainer.current_epoch
        for row in _task(pl_module).history:
            self.best = self.better(self.best, row[self._column])
        self.bar = tqdm(
            total=trainer.max_epochs,
            initial=done,
            desc="training",
            bar_format="{desc} {percentage:3.0f}%|{bar}| epoch {n:.1f}/{total} [{elapsed}<{remaining}{postfix}]",
            smoothing=0,
            **where_to_draw(tqdm),
        )

    @property
    def _column(self) -> str:
        return f"validation_{self.target.metric}/{self.target.name}"

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.n_batches = len(self.order.batches(trainer.current_epoch)) * self.order.n_pieces

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.bar.update(1.0 / self.n_batches)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        latest = _task(pl_module).history[-1][self._column]
        self.best = self.better(self.best, latest)
        # Sums of 1/n are not quite whole.
        self.bar.n = trainer.current_epoch + 1
        error = f"MAE {latest:.4g} {self.target.unit} (best {self.best:.4g})"
        text = f"accuracy {latest:.1%} (best {self.best:.1%})" if self.target.is_class else error
        self.bar.set_postfix_str(f"validation {text}", refresh=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.bar.refresh()
        self.bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if hasattr(self, "bar"):
            self.bar.close()


class _Lines(io.TextIOBase):
    """For logs: each state of the bar on a line of its own instead of over the last one."""

    def write(self, text: str) -> int:
        # Without the steps up and down by which bars below one another find their places.
        if line := text.replace("\x1b[A", "").strip("\r\n"):
            print(line, file=sys.stderr, flush=True)
        return len(text)


def where_to_draw(tqdm: type) -> dict[str, Any]:
    """Arguments of a bar that stays readable in a notebook, a terminal and a log."""
    from tqdm.notebook import tqdm_notebook

    if issubclass(tqdm, tqdm_notebook) or sys.stderr.isatty():
        return {"dynamic_ncols": True}
    return {"file": _Lines(), "mininterval": 30.0, "ncols": 120}


def _task(module: pl.LightningModule) -> TrainingTask:
    assert isinstance(module, TrainingTask)
    return module
