"""The Lightning task: what happens in a training step, a validation step and between them.

Nothing is logged, compared or copied from the device within an epoch: errors and norms stay on the device as small
tensors and are read together, so that the cost of a step is the model's.

On several devices each rank computes its share of every batch. Gradients are summed over ranks and divided by the
labels of all, so all ranks take the same step; errors are put together once an epoch. To Lightning every rank is a
training on one device. Its own strategy for several would wait for the device at every step (to pass on a SIGTERM),
and cannot start from a notebook.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from crystalframer.config import TrainingConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.on_gpu import CrystalRows
from crystalframer.errors import TrainingError
from crystalframer.model.network import CrystalFramer
from crystalframer.training import optimisation, ranks
from crystalframer.training.graphs import ResidentPass

CHECK_EVERY = 50
"""Steps between two looks at whether the losses are finite; the report names the exact step all the same."""


Row = dict[str, int | float]
"""Figures of one epoch (see `fit`)."""

Prediction = tuple[Tensor, Tensor | None, Tensor]
"""Predictions of a batch by the raw and by the averaged weights, and its labels."""


class TrainingTask(pl.LightningModule):
    """Trains a `CrystalFramer`, and the running average of its weights over the last epochs (SWA)."""

    _target_weights: Tensor | None

    def __init__(
        self,
        model: CrystalFramer,
        config: TrainingConfig,
        n_batches: Callable[[int], int],
        calibration_batch: CrystalBatch,
        resident: ResidentPass | None = None,
        class_weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Args:
        n_batches: how many batches an epoch has, by its number from 0.
        resident: the forward pass of training batches that are given as rows of resident crystals.
        class_weights: name of a target of classes → factor on the loss of each class. Default: all count alike.
        """
        super().__init__()
        self.model = model
        self.config = config
        self._n_batches = n_batches
        # Averages parameters and copies buffers. Lightning's WeightAveraging callback would validate the average alone,
        # and hide the raw weights in its checkpoints.
        self.averaged = AveragedModel(model).requires_grad_(False) if config.swa_epochs else None
        self.history: list[Row] = []
        self._weights = list(model.parameters())  # to look them up at every step takes longer than to clip them
        self._calibration_batch = calibration_batch
        self._class_weights = dict(class_weights or {})  # of the CPU, until training starts
        factors = torch.tensor(config.target_weights) if config.target_weights else None
        self.register_buffer("_target_weights", factors, persistent=False)
        self._resident = resident
        # Not as a submodule, which would be saved as well.
        self._in_parallel: tuple[DistributedDataParallel, ...] = ()
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._errors: list[Tensor] = []
        self._has_label: list[Tensor] = []
        self._ids: list[tuple[str, ...]] = []
        self._norms: list[Tensor] = []
        self._n_labels: Tensor | int = 0
        self._validation: list[Prediction] = []
        self._started = time.perf_counter()
        self._training_seconds = 0.0

    @property
    def is_averaging(self) -> bool:
        """Whether this epoch is one of the last ones, over which weights are averaged."""
        return self.averaged is not None and self.current_epoch >= self._first_averaged_epoch

    @property
    def _per_step(self) -> int:
        """Number of forward and backward passes of a step."""
        return self.config.accumulate * self.config.n_pieces

    @property
    def averaged_model(self) -> CrystalFramer:
        assert self.averaged is not None and isinstance(self.averaged.module, CrystalFramer)
        return self.averaged.module

    @property
    def _first_averaged_epoch(self) -> int:
        return self.config.n_epochs - self.config.swa_epochs

    # One training step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimisation.optimizer(self.model, self.config)

    def on_train_start(self) -> None:
        self._class_weights = {name: weights.to(self.device) for name, weights in self._class_weights.items()}
        if self.global_step == 0 and self.config.initial_weights is None and ranks.rank() == 0:
            with torch.autocast(self.device.type, enabled=False):
                self.model.calibrate(self._calibration_batch.to(self.device))
        if ranks.n_ranks() > 1:
            ranks.spread(self.model.state_dict().values())
            with warnings.catch_warnings():
                # torch 2.13 prefers a name that torch 2.11 does not know.
                warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
                model = DistributedDataParallel(
                    self.model, broadcast_buffers=False, init_sync=False, gradient_as_bucket_view=True
                )
            self._in_parallel = (model,)

    def on_train_epoch_start(self) -> None:
        self._start_epoch()
        self._n_batches_now = self._n_batches(self.current_epoch)
        if self.averaged is not None and self.is_averaging:
            self._mean = optimisation.RunningMean(self.averaged, self.model)

    def training_step(self, batch: CrystalBatch | CrystalRows, batch_idx: int) -> Tensor:
        n_before = batch_idx // self.config.n_pieces
        self._progress = (self.current_epoch + n_before / self._n_batches_now) / self.config.n_epochs
        prediction = self._predict_for_training(batch, batch_idx).float()
        errors, has_label = optimisation.errors_of_targets(
            prediction, batch.targets, self.model.target_std, self.model.config, self._class_weights
        )
        self._errors.append(errors.detach())
        self._has_label.append(has_label)
        self._ids.append(batch.ids)
        self._n_labels = self._n_labels + has_label.sum()
        # The sum: divided by the number of labels of all accumulated batches before the step, which makes k batches the
        # same as one batch k times as large. Lightning divides by their number, torch by that of the ranks.
        losses = errors if self._target_weights is None else errors * self._target_weights
        return losses.sum() * (self._per_step * ranks.n_ranks())

    def _predict_for_training(self, batch: CrystalBatch | CrystalRows, batch_idx: int) -> Tensor:
        if isinstance(batch, CrystalRows):
            assert self._resident is not None
            return self._resident(batch)
        seed = optimisation.seed_of_piece(self.config, self.current_epoch, batch_idx, ranks.rank())
        if not self._in_parallel:
            return self.model(batch, seed)
        (model,) = self._in_parallel
        n_items = self._n_batches_now * self.config.n_pieces
        is_step = (batch_idx + 1) % self._per_step == 0 or batch_idx + 1 == n_items
        with nullcontext() if is_step else model.no_sync():
            return model(batch, seed)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        if self._resident is None or self._per_step == 1:
            optimizer.zero_grad()
            return
        # A recorded pass returns gradients in the memory that its next replay overwrites: those of several batches are
        # added up in memory of their own.
        for weight in self._weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        optimizer.zero_grad(set_to_none=False)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # The first step of the averaged epochs sets the rate that the others keep.
        is_first_averaged = self.current_epoch == self._first_averaged_epoch and not self._norms
        if not self.is_averaging or is_first_averaged:
            for group in optimizer.param_groups:
                group["lr"] = optimisation.learning_rate(self.global_step, self._progress, self.config)
        scale = 1.0 / ranks.total(torch.as_tensor(self._n_labels)).clamp(min=1)
        norm = optimisation.scale_and_clip(self._weights, scale, self.config.clip_norm)
        # Without waiting for the device: AdamW changes nothing in a step whose gradient is not finite.
        # The model stays sound until `_check_finite` stops the run.
        optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self._norms.append(norm)
        self._n_labels = 0

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        optimizer.step(closure=optimizer_closure)
        if self.is_averaging:
            self._mean.update()

    def on_train_batch_end(self, outputs: Any, batch: CrystalBatch | CrystalRows, batch_idx: int) -> None:
        if batch_idx % CHECK_EVERY == CHECK_EVERY - 1:
            self._check_finite()

    # Validation, after the last batch of every epoch

    def on_validation_epoch_start(self) -> None:
        self._check_finite()  # waits for the device, so that the time is that of the steps
        self._training_seconds = time.perf_counter() - self._started

    def validation_step(self, batch: CrystalBatch, batch_idx: int) -> None:
        # In full precision: the scores are those of the saved model as `load` returns it.
        with torch.autocast(self.device.type, enabled=False):
            averaged = self.averaged_model(batch) if self.is_averaging else None
            self._validation.append((self.model(batch), averaged, batch.targets))

    def on_validation_epoch_end(self) -> None:
        raw, averaged, targets = zip(*_of_all_ranks(self._validation), strict=True)
        scores = self._training_scores() | self._validation_scores("validation", raw, targets)
        if self.averaged is not None:
            unknown = tuple(torch.full_like(prediction, torch.nan) for prediction in raw)
            scores |= self._validation_scores("swa_validation", averaged if self.is_averaging else unknown, targets)
        scores["training_seconds"] = self._training_seconds
        scores["seconds"] = time.perf_counter() - self._started
        self.history.append({"epoch": self.current_epoch + 1, "step": self.global_step} | scores)
        self.log_dict({name: value for name, value in scores.items() if not math.isnan(value)}, batch_size=1)

    def _training_scores(self) -> dict[str, float]:
        errors, has_label = (torch.cat(parts).cpu() for parts in (self._errors, self._has_label))
        std, config = self.model.target_std.cpu().double(), self.model.config
        sums = errors.double().sum(dim=0), has_label.sum(dim=0), errors.double().sum(), has_label.sum()
        of_ranks = zip(*ranks.gather(sums), strict=True)
        error, n_labels, error_of_all, n_labels_of_all = (torch.stack(values).sum(dim=0) for values in of_ranks)
        losses = (error / n_labels).tolist()
        return {
            "learning_rate": self.optimizers(use_pl_optimizer=False).param_groups[0]["lr"],  # type: ignore[union-attr]
            "gradient_norm": torch.stack(self._norms).cpu().double().mean().item(),
            "train_loss": (error_of_all / n_labels_of_all).item(),
        } | {
            f"train_cross_entropy/{target.name}" if target.is_class else f"train_mae/{target.name}": loss
            * (1.0 if target.is_class else std[columns].item())
            for target, columns, loss in zip(config.targets, config.columns, losses, strict=True)
        }

    def _validation_scores(
        self, part: str, predictions: tuple[Tensor, ...], targets: tuple[Tensor, ...]
    ) -> dict[str, float]:
        prediction, target = torch.cat(predictions).cpu().double(), torch.cat(targets).cpu().double()
        std, config = self.model.target_std.cpu().double(), self.model.config
        errors, has_label = optimisation.errors_of_targets(prediction, target, std, config)
        scores = {f"{part}_loss": (errors.sum() / has_label.sum().clamp(min=1)).item()}
        for n, (of_target, columns) in enumerate(zip(config.targets, config.columns, strict=True)):
            name, outputs, labels = of_target.name, prediction[:, columns].numpy(), target[:, n].numpy()
            if of_target.is_class:
                n_labels = int(has_label[:, n].sum())
                scores[f"{part}_cross_entropy/{name}"] = errors[:, n].sum().item() / n_labels if n_labels else math.nan
                scores[f"{part}_accuracy/{name}"] = optimisation.accuracy(outputs, labels)
            else:
                mae = optimisation.mean_absolute_error(outputs, labels[:, None])
                scores[f"{part}_mae/{name}"] = mae.item()
        return scores

    def _check_finite(self) -> None:
        """Stop at the first step of the epoch whose loss or gradient is not finite: all ranks, with one error."""
        found = [failure for failure in ranks.gather(self._failure()) if failure is not None]
        if not found:
            return
        # A loss that is not finite spoils the gradient of all ranks in the same step: "loss" sorts first among those.
        step, is_gradient = min((step, is_gradient) for step, is_gradient, _ in found)
        ids = [name for *where, names in found if where == [step, is_gradient] for name in names]
        what = "the gradient" if is_gradient else "the loss"
        listed = ", ".join(map(repr, ids[:8])) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")

        def stop() -> None:
            raise TrainingError(
                f"epoch {self.current_epoch + 1}, step {step}: {what} is not finite; crystals {listed}. Look at their "
                "structures and labels, or lower training.learning_rate; the checkpoints of the epochs before are "
                "unharmed"
            )

        ranks.agreed(stop)

    def _failure(self) -> tuple[int, bool, list[str]] | None:
        """The first step of this rank that failed, whether only its gradient did, and the crystals to blame."""
        everything = torch.cat([torch.cat(self._errors).flatten(), *(norm.reshape(1) for norm in self._norms)])
        if bool(everything.isfinite().all()):
            return None
        per_step, n_steps = self._per_step, len(self._norms)
        bad_batch = next((n for n, errors in enumerate(self._errors) if not errors.isfinite().all()), None)
        bad_norm = next((n for n, norm in enumerate(self._norms) if not norm.isfinite()), n_steps)
        bad_step = bad_norm if bad_batch is None else min(bad_batch // per_step, bad_norm)
        step = self.global_step - n_steps + bad_step + 1
        if bad_batch is not None and bad_batch // per_step == bad_step:
            rows = (~self._errors[bad_batch].isfinite()).any(dim=1).nonzero().flatten().tolist()
            return step, False, [self._ids[bad_batch][row] for row in rows]
        batches = self._ids[bad_step * per_step : (bad_step + 1) * per_step]
        return step, True, [name for batch in batches for name in batch]

    # Resuming

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]


def _of_all_ranks(predictions: list[Prediction]) -> list[Prediction]:
    """The predictions of all ranks, without the crystals that fill empty shares, which have no label."""
    if ranks.n_ranks() == 1:
        return predictions
    mine = []
    for raw, averaged, targets in predictions:
        counts = (~targets.isnan()).any(dim=1)
        mine.append((raw[counts].cpu(), None if averaged is None else averaged[counts].cpu(), targets[counts].cpu()))
    return [prediction for share in ranks.gather(mine) for prediction in share]
