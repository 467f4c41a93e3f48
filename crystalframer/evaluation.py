"""Scores of a model on labelled crystals, and prediction intervals calibrated on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from tqdm.auto import tqdm

from crystalframer.config import Target
from crystalframer.crystals.loading import PreparedCrystals, batch_ends, prepare
from crystalframer.datasets.dataset import PARTS, CrystalDataset
from crystalframer.datasets.sources import dataset
from crystalframer.errors import DataError
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import BATCH_SIZE, MAX_ATOMS, MAX_EDGES, model_second, predict, ready
from crystalframer.surroundings import plain
from crystalframer.uncertainty import Uncertainty, calibrated

if TYPE_CHECKING:
    import pandas

ENOUGH_FOR_BIAS, LARGE_BIAS = 20, 0.5
"""The summary mentions a mean deviation from this many labels on, if it exceeds this share of the MAE."""

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class TargetScore:
    """How well one target is predicted; errors are in its unit."""

    target: Target
    n_crystals: int
    """Crystals with both a label and a prediction."""
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
    is none), `deviation` (prediction - label), all in the target's unit, and `error`: why there is no prediction. A
    calibrated model adds `low` and `high`, the ends of the prediction interval."""
    scores: Mapping[str, TargetScore]
    """Target name → score."""
    n_crystals: int
    n_failed: int
    """Crystals without a prediction; the scores leave them out."""
    n_train: int = 0
    """Crystals in the train part of the data set's own split, if the whole data set was scored."""
    coverage: float = float("nan")
    """Share of true values that the model's intervals are calibrated to contain."""

    def summary(self) -> str:
        """The scores as a table to read."""
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
            lines.append(f"labels within their intervals ({self.coverage:.0%} expected): {', '.join(covered)}")
        for score in self.scores.values():
            if score.n_crystals >= ENOUGH_FOR_BIAS and abs(score.bias) > LARGE_BIAS * score.mae:
                side = "below" if score.bias < 0 else "above"
                lines.append(
                    f"note: on average, predictions of {score.target.name} are {abs(score.bias):.3g} "
                    f"{score.target.unit} {side} the labels. Do the labels come from another level of theory, or the "
                    "crystals from another class, than those that the model was trained on?"
                )
        if self.n_train:
            lines.append(
                f"note: {self.n_train:,} of these crystals are in the train part of the data set's own split; a model "
                "trained on them does better on them than on others. Score the test part alone for a fair number"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Evaluation: {self.summary()}"


@model_second
@plain()
def evaluate(
    data: CrystalDataset | str | Path,
    model: CrystalFramer | str | Path | None = None,
    *,
    part: Part | None = None,
    batch_size: int = BATCH_SIZE,
    max_atoms: int = MAX_ATOMS,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score a model on labelled crystals.

    Missing labels are left out.

    >>> import crystalframer as cf
    >>> result = cf.evaluate("demo", cf.load(), part="test")
    >>> sorted(result.scores)
    ['band_gap', 'formation_energy_per_atom']

    Args:
        data: a data set, or the name or path of one (see `dataset`). It needs every target of the model, in its unit.
        model: a model, or the path of one. Default: the weights that come with the package.
        part: only the crystals in this part of the data set's own split. Default: all crystals.
        batch_size: largest number of crystals in a batch.
        max_atoms: largest number of atoms in a batch (a larger cell is alone in one). Lower it if memory runs out.
        device: where to compute, as in `predict`.
        progress: show a progress bar if it takes more than 2 s.

    Raises:
        DataError: the data set lacks a target (the nearest is named), has it in another unit, or lacks the part.
        CheckpointError: the model cannot be loaded.
    """
    import pandas

    model = ready(model, device)
    targets = model.config.targets
    data = _labelled(data, model)
    n_train = int((data.parts == "train").sum()) if part is None and data.parts is not None else 0
    data = data if part is None else _part(data, part)
    predicted = predict(data, model, batch_size=batch_size, max_atoms=max_atoms, progress=progress)
    failed = predicted["error"].notna().to_numpy()
    means = dict(zip(model.config.target_names, model.target_mean.double().tolist(), strict=True))
    scores, frames = {}, []
    for target in targets:
        columns: dict[str, Any] = {"id": data.ids, "formula": data.formulas, "target": target.name}
        columns["label"] = data.targets[target.name]
        columns["prediction"] = predicted[target.name].to_numpy()
        columns["deviation"] = columns["prediction"] - columns["label"]
        if model.uncertainty is not None:
            columns |= {end: predicted[f"{target.name}_{end}"].to_numpy() for end in ("low", "high")}
        rows = pandas.DataFrame(columns | {"error": predicted["error"].to_numpy()})
        scores[target.name] = _score(target, rows.loc[~failed & rows["label"].notna()], means[target.name])
        frames.append(rows)
    crystals = pandas.concat(frames, ignore_index=True)
    crystals.attrs["units"] = {target.name: target.unit for target in targets}
    coverage = float("nan") if model.uncertainty is None else model.uncertainty.coverage
    return Evaluation(crystals, scores, len(data), int(failed.sum()), n_train, coverage)


@model_second
@plain()
def calibrate(
    data: CrystalDataset | str | Path,
    model: CrystalFramer | str | Path | None = None,
    *,
    part: Part | None = None,
    coverage: float = 0.9,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Uncertainty:
    """Calibrate prediction intervals of a model on labelled crystals.

        model.uncertainty = cf.calibrate("my.parquet", model, part="validation")
        cf.save(model, "my-model")  # its predictions now have intervals

    The intervals are valid for crystals like these. The model must not have been trained on them: its errors on
    training crystals are smaller than on others. With a few hundred crystals, intervals are narrower where predictions
    are easier; with fewer, all have the same width.

    Args:
        data: a data set, or the name or path of one, with every target of the model in its unit.
        model: a model, or the path of one. Default: the weights that come with the package.
        part: only the crystals in this part of the data set's own split. Default: all crystals.
        coverage: share of true values of further crystals that the intervals should contain.
        device: where to compute, as in `predict`.
        progress: show a progress bar if it takes more than 2 s.

    Raises:
        DataError: the data set lacks a target (the nearest is named), has it in another unit, or lacks the part.
        CrystalError: a crystal that the model cannot take.
        UncertaintyError: too few labels for the coverage, or a coverage outside 0 to 1.
        CheckpointError: the model cannot be loaded.
    """
    model = ready(model, device)
    data = _labelled(data, model)
    data = (data if part is None else _part(data, part)).labelled()
    prepared = prepare(data, model.config.radius, model.config.target_names, "calibration")
    pooled, predicted = pooled_and_predicted(prepared, model, "calibrating", progress=progress)
    return calibrated(pooled, predicted - prepared.targets, model.config.target_names, coverage)


def pooled_and_predicted(
    crystals: PreparedCrystals,
    model: CrystalFramer,
    title: str,
    noise_seed: int | None = None,
    progress: bool = True,
) -> tuple[Float[np.ndarray, "n_crystals d_model"], Float[np.ndarray, "n_crystals n_targets"]]:
    """The input of the model's readout for many crystals, and the predictions, each target in its unit.

    Args:
        title: text of the progress bar, shown if it takes more than 2 s.
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


def _labelled(data: CrystalDataset | str | Path, model: CrystalFramer) -> CrystalDataset:
    """The data set with the model's targets."""
    targets = model.config.targets
    return data.with_targets(targets) if isinstance(data, CrystalDataset) else dataset(data, targets=targets)


def _part(data: CrystalDataset, part: Part) -> CrystalDataset:
    if data.parts is None:
        raise DataError(
            f"the data set has no {part} part, because it has no split of its own (a column `split` with "
            f"{', '.join(PARTS)}); use all of it",
            field="part",
            value=part,
        )
    chosen = data.select(data.parts == part)
    if not len(chosen):
        raise DataError(f"the {part} part of the data set is empty; choose another part", field="part", value=part)
    return chosen


def _score(target: Target, rows: pandas.DataFrame, mean: float) -> TargetScore:
    """The score of the rows of `Evaluation.crystals` that have both a label and a prediction."""
    if not len(rows):
        return TargetScore(target, 0, *[float("nan")] * 4)
    label, error = rows["label"].to_numpy(), rows["deviation"].to_numpy()
    squares = float(np.square(label - label.mean()).sum())
    return TargetScore(
        target,
        len(rows),
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt(np.square(error).mean())),
        r2=1.0 - float(np.square(error).sum()) / squares if squares > 0 else float("nan"),
        baseline_mae=float(np.abs(label - mean).mean()),
        bias=float(error.mean()),
        covered=float(rows["label"].between(rows["low"], rows["high"]).mean()) if "low" in rows else float("nan"),
    )
