"""The result of a run: scores of the best and of the averaged weights, and the choice between them."""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from crystalframer.checkpoint import add_errors, add_intervals
from crystalframer.config import Config, Target
from crystalframer.crystals.loading import PreparedCrystals
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.errors import CrystalFramerError, TrainingError, listed
from crystalframer.evaluation import index_and_intervals, score_crystals
from crystalframer.measured_errors import measured
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import load
from crystalframer.training.folder import RunFolder
from crystalframer.training.optimisation import accuracy, class_logits, mean_absolute_error
from crystalframer.training.task import Row

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Score:
    """Scores of one set of weights; MAE per name of a scalar target, in its unit."""

    validation_loss: float
    """Mean of |error|/standard deviation (of classes, of cross-entropy) over all labels: what weights are chosen by."""
    validation_mae: Mapping[str, float]
    test_mae: Mapping[str, float]
    """Empty without a test part."""
    validation_accuracy: Mapping[str, float] = field(default_factory=dict)
    """Of each target of classes: share of the labels whose class has the highest probability."""
    test_accuracy: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class FitResult:
    """A finished run."""

    output: Path
    """The run folder."""
    model: CrystalFramer
    """Model with the chosen weights, on the CPU, ready to predict."""
    chosen: str
    """`best` or `swa`: the lower validation loss."""
    scores: Mapping[str, Score]
    """Scores of the `best` raw weights, and of their average `swa` if there is one."""
    baseline_mae: Mapping[str, float]
    """Test MAE of predicting the mean of the training labels; empty without a test part."""
    history: pandas.DataFrame
    """One row an epoch, as in `metrics.csv`."""
    baseline_accuracy: Mapping[str, float] = field(default_factory=dict)
    """Test accuracy of predicting the most frequent class of the training labels; empty without a test part."""

    def __repr__(self) -> str:
        score = self.scores[self.chosen]
        errors = {**score.validation_mae, **score.validation_accuracy} | {**score.test_mae, **score.test_accuracy}
        part = "test" if score.test_mae or score.test_accuracy else "validation"
        found = [
            f"{t.name} {part} {'accuracy' if t.is_class else 'MAE'} {errors[t.name]:.4g} {t.unit}".rstrip()
            for t in self.model.config.targets
        ]
        return f"FitResult in {self.output}, {len(self.history):,} epochs: {listed(found, 4)}"

    def _repr_html_(self) -> str:
        from crystalframer.object_cards import result_card

        return result_card(self)

    @property
    def checkpoint(self) -> Path:
        """The directory of the chosen weights."""
        return RunFolder(self.output).checkpoint(self.chosen)

    def summary(self) -> str:
        """A line for each target and set of weights."""
        lines = []
        for target in self.model.config.targets:
            for name, score in self.scores.items():
                if target.is_class:
                    line = f"{target.name}, {name}: validation accuracy {score.validation_accuracy[target.name]:.1%}"
                    if score.test_accuracy:
                        line += f", test accuracy {score.test_accuracy[target.name]:.1%}"
                        line += f" ({self.baseline_accuracy[target.name]:.1%} of the most frequent class)"
                    lines.append(line + (", chosen" if name == self.chosen else ""))
                    continue
                line = f"{target.name}, {name}: validation MAE {score.validation_mae[target.name]:.4g} {target.unit}"
                if score.test_mae:
                    error, baseline = score.test_mae[target.name], self.baseline_mae[target.name]
                    line += f", test MAE {error:.4g} {target.unit}"
                    line += f" ({error / baseline:.1%} of the {baseline:.4g} of predicting the training mean)"
                lines.append(line + (", chosen" if name == self.chosen else ""))
        if self.model.uncertainty is not None:
            counts = zip(self.model.uncertainty.target_names, self.model.uncertainty.n_crystals, strict=True)
            learned = ", ".join(f"{name} of {n:,} crystals" for name, n in counts)
            lines.append(f"{self.model.uncertainty.coverage:.0%} intervals, from the validation errors in {learned}")
        return "\n".join(lines)


def why_none(error: Exception) -> str:
    """The reason why a run has no result. The traceback of an error that is not ours goes to standard error."""
    if isinstance(error, CrystalFramerError):
        return str(error)
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def conclude(
    config: Config,
    parts: Mapping[str, PreparedCrystals],
    folder: RunFolder,
    history: Sequence[Row],
    device: torch.device,
) -> FitResult:
    """Choose the best or the averaged weights by validation loss, calibrate, test both, and write `result.json`."""
    import pandas

    targets, test = config.model.targets, parts.get("test")
    rows = {"best": min(history, key=lambda row: row["validation_loss"])}
    if folder.checkpoint("swa").exists():
        rows["swa"] = {column.removeprefix("swa_"): v for column, v in history[-1].items() if column.startswith("swa_")}
    models = {name: load(folder.checkpoint(name), device) for name in rows}
    chosen = min(rows, key=lambda name: rows[name]["validation_loss"])
    if config.training.intervals:  # first: what is predicted below the bound of a target is reported as the bound
        model = models[chosen]
        model.index, model.uncertainty, reason = index_and_intervals(model, parts["train"], parts["validation"])
        add_intervals(folder.checkpoint(chosen), model.uncertainty, model.index)
        if reason is not None:
            later = f"crystalframer calibrate DATA --model {folder.path}"
            print(f"no prediction intervals: {reason}. From other labelled crystals: {later}", file=sys.stderr)
    tested = {name: {} if test is None else _scores(models[name], test, folder.checkpoint(name)) for name in rows}
    scores = {
        name: Score(
            row["validation_loss"],
            {target.name: row[f"validation_mae/{target.name}"] for target in targets if not target.is_class},
            tested[name].get("mae", {}),
            {target.name: row[f"validation_accuracy/{target.name}"] for target in targets if target.is_class},
            tested[name].get("accuracy", {}),
        )
        for name, row in rows.items()
    }
    baseline = {"mae": {}, "accuracy": {}} if test is None else _baseline(targets, parts["train"], test)
    numbers = {name: dataclasses.asdict(score) for name, score in scores.items()}
    baselines = {f"baseline_{metric}": values for metric, values in baseline.items()}
    folder.write_result({"chosen": chosen, "scores": numbers, **baselines})
    table = pandas.DataFrame(history)
    return FitResult(folder.path, models[chosen].cpu(), chosen, scores, baseline["mae"], table, baseline["accuracy"])


def read_result(folder: RunFolder) -> FitResult:
    """The result of a finished run from its folder, equal to what `fit` returned.

    Raises:
        TrainingError: `result.json` or `metrics.csv` is damaged.
        CheckpointError: the chosen weights cannot be loaded.
    """
    import pandas

    try:
        saved = json.loads(folder.result.read_text(encoding="utf-8"))
        scores = {name: Score(**numbers) for name, numbers in saved["scores"].items()}
        chosen, baseline = saved["chosen"], saved["baseline_mae"]
        baseline_accuracy = saved.get("baseline_accuracy", {})  # of an earlier version
        if chosen not in scores:
            raise ValueError(f"there is no score of the chosen weights, {chosen!r}")
        # Exactly: the reader of pandas before 3.1 gets the last bit of a third of all numbers wrong.
        history = pandas.read_csv(folder.metrics, engine="pyarrow")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{folder.path}: the result cannot be read ({error}); delete {folder.result.name}, and resuming makes it "
            "again from the checkpoints"
        ) from error
    model = load(folder.checkpoint(chosen), "cpu")
    return FitResult(folder.path, model, chosen, scores, baseline, history, baseline_accuracy)


def _baseline(
    targets: Sequence[Target], train: PreparedCrystals, test: PreparedCrystals
) -> dict[str, dict[str, float]]:
    """Scores of predicting the mean, or the most frequent class, of the training labels: metric → target → score."""
    found: dict[str, dict[str, float]] = {"mae": {}, "accuracy": {}}
    for target, trained, labels in zip(targets, train.targets.T, test.targets.T, strict=True):
        if target.is_class:
            constant = np.tile(class_logits(trained, target), (len(labels), 1))
            found["accuracy"][target.name] = accuracy(constant, labels)
        else:
            mean = np.full((len(labels), 1), np.nanmean(trained))
            found["mae"][target.name] = mean_absolute_error(mean, labels[:, None]).item()
    return found


def _scores(model: CrystalFramer, crystals: PreparedCrystals, folder: Path) -> dict[str, dict[str, float]]:
    """Metric → target → score, as `evaluate` computes them, so that it gives the same numbers to the last digit.

    The errors by group go into the checkpoint.
    """
    assert isinstance(crystals.flat, CrystalDataset)
    evaluation = score_crystals(crystals.flat, model)
    if evaluation.n_failed:
        reason = evaluation.crystals["error"].dropna().iloc[0]
        message = f"{evaluation.n_failed:,} of {len(crystals):,} test crystals have no prediction, the first: {reason}"
        print(message, file=sys.stderr)
    model.errors = measured(evaluation.crystals, "test crystals of the run")
    if model.errors is not None:
        add_errors(folder, model.errors)
    return {
        "mae": {name: score.mae for name, score in evaluation.scores.items()},
        "accuracy": {name: score.accuracy for name, score in evaluation.class_scores.items()},
    }
