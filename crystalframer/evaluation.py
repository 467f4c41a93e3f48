"""Scores of a model on labelled crystals, and prediction intervals calibrated on them."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from crystalframer.batched import BATCH_SIZE, MAX_ATOMS, MAX_EDGES
from crystalframer.class_scores import ClassScore, likeliest, probabilities, score_classes, summary_lines
from crystalframer.config import Target
from crystalframer.crystals.loading import PreparedCrystals, batch_ends, prepare
from crystalframer.datasets import classes
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.datasets.scored import Part, labelled_targets, part_of
from crystalframer.datasets.used import ROLES, TRAINED, Found, Role, UsedCrystals
from crystalframer.errors import DataError, UncertaintyError, listed
from crystalframer.measured_errors import MeasuredErrors, measured
from crystalframer.model.network import CrystalFramer
from crystalframer.outcomes import FLAGS
from crystalframer.prediction import model_second, predict, ready
from crystalframer.surroundings import plain
from crystalframer.training_index import TrainingIndex, interval_inputs
from crystalframer.uncertainty import Uncertainty, calibrated, fewest_labels, fitted_temperature

if TYPE_CHECKING:
    import pandas

ENOUGH_FOR_BIAS, LARGE_BIAS = 20, 0.5
"""The summary mentions a mean deviation from this many labels on, if it exceeds this share of the MAE."""
AWAY = 0.25
"""How much crystals of other kinds count in a calibration, all together, beside all others."""
_SHOWN_TARGETS = 4
"""In one line."""
OFTEN = 0.01
"""Share of labels that are exactly 0 from which on 0 is a bound, if none is below."""


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
    """One row per crystal and target: `id`, `formula`, `n_atoms`, `target`, `label` (NaN if missing), `prediction` (NaN
    if there is none), `deviation` (prediction - label), all in the target's unit, and `error`: why there is no
    prediction. Of classes, `label` and `prediction` are their names, `probability` is that of the predicted class, and
    columns `probability/CLASS` are those of all. A calibrated model adds `low` and `high`, the ends of the prediction
    interval. `outside_training` and `not_relaxed` are the flags of `predict`, for models that have them. A model of a
    run adds `part`: what the crystal was for the run, `train`, `validation`, `test`, `earlier`
    (it trained the weights that the run started from) or `other` (the run did not use it)."""
    scores: Mapping[str, TargetScore]
    """Name of a scalar target → score. Of a model of a run: over the crystals of its test part; over those that the run
    did not use, if it has no test crystals here; and over all, if there are no such crystals either. Of other models:
    over all crystals."""
    n_crystals: int
    n_failed: int
    """Crystals without a prediction; the scores leave them out."""
    n_train: int = 0
    """Crystals that trained the model. For a model that does not name them: crystals in the train part of the data
    set's own split, if the whole data set was scored."""
    coverage: float = float("nan")
    """Share of true values that the model's intervals are calibrated to contain."""
    parts: Mapping[Role, Mapping[str, TargetScore]] = field(default_factory=dict)
    """Scores of each part of the run in these data: `parts["test"]["band_gap"].mae`. The part `other` holds crystals
    that the run did not use. Empty for a model that does not name its training crystals."""
    class_scores: Mapping[str, ClassScore] = field(default_factory=dict)
    """Name of a target of classes → score, over the same crystals as `scores`."""
    class_parts: Mapping[Role, Mapping[str, ClassScore]] = field(default_factory=dict)
    """As `parts`."""
    remarks: tuple[str, ...] = ()
    """What to know about these crystals before reading the scores."""

    def summary(self) -> str:
        """The scores as a table to read."""
        failed = f", {self.n_failed} of them without a prediction (see `error`)" if self.n_failed else ""
        lines = [f"{self.n_crystals:,} crystals{failed}", *self.remarks, *self._table()]
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
            if score.n_crystals >= ENOUGH_FOR_BIAS and score.covered < self.coverage / 2:
                lines.append(
                    f"note: {score.covered:.0%} of the labels of {score.target.name} lie in the intervals that should "
                    f"hold {self.coverage:.0%}. Are the labels in {score.target.unit or 'the unit of the model'}, and "
                    "computed or measured as those that the model was trained on?"
                )
        if self.n_train and not (self.parts or self.class_parts):
            lines.append(
                f"note: {self.n_train:,} of these crystals are in the train part of the data set's own split; a model "
                "trained on them does better on them than on others. Score the test part alone for a fair number"
            )
        return "\n".join(lines)

    def _table(self) -> list[str]:
        return [*(self._scalar_table() if self.scores else []), *(self._class_table() if self.class_scores else [])]

    def _class_table(self) -> list[str]:
        rows = [(name, score) for name, score in self.class_scores.items()]
        if self.class_parts:
            rows = [
                (f"{name}, {role}", self.class_parts[role][name])
                for name in self.class_scores
                for role in self.class_parts
            ]
        titles, scores = zip(*rows, strict=True)
        lines = summary_lines(scores, titles)
        for name, score in self.class_scores.items():
            lines += (
                [f"{name}: crystals by true and by predicted class", score.confusion_table] if score.confusion else []
            )
        return lines

    def _scalar_table(self) -> list[str]:
        width = max(len(score.target.label) for score in self.scores.values())
        rows = [("", score) for score in self.scores.values()]
        if self.parts:
            rows = [(f"{role:<12}", self.parts[role][name]) for name in self.scores for role in self.parts]
        part = f"{'part':<12}" if self.parts else ""
        lines = [
            f"{'target':<{width}}  {part}{'labels':>7}  {'MAE':>9}  {'RMSE':>9}  {'R²':>7}  MAE of the training mean"
        ]
        for part, score in rows:
            share = f" (the model: {score.mae / score.baseline_mae:.0%} of it)" if score.baseline_mae > 0 else ""
            lines.append(
                f"{score.target.label:<{width}}  {part}{score.n_crystals:>7,}  {score.mae:>9.4g}  {score.rmse:>9.4g}  "
                f"{score.r2:>7.3f}  {score.baseline_mae:.4g}{share}"
            )
        return lines

    @property
    def scored(self) -> tuple[pandas.DataFrame, str]:
        """The rows of `crystals` that `scores` are about, and these crystals in words."""
        if "part" in self.crystals:
            for role, words in (("test", "test crystals of the run"), ("other", "crystals that the run did not use")):
                if role in self.parts or role in self.class_parts:
                    return self.crystals.loc[self.crystals["part"] == role], words
        return self.crystals, "crystals"

    @property
    def errors(self) -> MeasuredErrors | None:
        """The errors by element and by number of atoms, over the crystals that `scores` are about.

        Example:
            >>> evaluation = cf.evaluate("demo", part="test")
            >>> [row.group for row in evaluation.errors.of("band_gap", "size")][:2]
            ['1–10 atoms', '11–20 atoms']
        """
        return measured(*self.scored)

    def __str__(self) -> str:
        return f"Evaluation: {self.summary()}"

    def __repr__(self) -> str:
        scores = [f"{s.target.name} MAE {s.mae:.4g} {s.target.unit}".rstrip() for s in self.scores.values()]
        scores += [f"{s.target.name} accuracy {s.accuracy:.1%}" for s in self.class_scores.values()]
        failed = f", {self.n_failed:,} without a prediction" if self.n_failed else ""
        return f"Evaluation of {self.n_crystals:,} crystals{failed}: {listed(scores, _SHOWN_TARGETS)}"

    def _repr_html_(self) -> str:
        from crystalframer.object_cards import evaluation_card

        return evaluation_card(self)


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

    Missing labels are left out. The model of a run knows the crystals of the run, whatever their order in these data:
    each part is scored by itself (`Evaluation.parts`), and the score of the test part is the one that `fit` reported,
    if all of its crystals are there.

    >>> import crystalframer as cf
    >>> result = cf.evaluate("demo", cf.load(), part="test")
    >>> sorted(result.scores)
    ['band_gap', 'formation_energy_per_atom']

    Args:
        data: a data set, or the name or path of one (see `dataset`), with targets of the model, in their units. Those
            that it lacks are not scored.
        model: a model, or the path of one. Default: the weights that come with the package.
        part: only the crystals in this part of the data set's own split; of the split of the run, if the data set has
            none. Default: all crystals.
        batch_size: largest number of crystals in a batch.
        max_atoms: largest number of atoms in a batch (a larger cell is alone in one). Lower it if memory runs out.
        device: where to compute, as in `predict`.
        progress: show a progress bar if it takes more than 2 s.

    Raises:
        DataError: the data set has no target of the model, or one in another unit, or lacks the part.
        CheckpointError: the model cannot be loaded.
    """
    model = ready(model, device)
    data = labelled_targets(data, model.config.targets)
    n_train = int((data.parts == "train").sum()) if part is None and data.parts is not None else 0
    data = data if part is None else part_of(data, part, model.used)
    sizes = {"batch_size": batch_size, "max_atoms": max_atoms, "progress": progress}
    if model.used is None:
        remarks = (
            "The model does not say which crystals it was trained on. On any of these, its errors are too small",
        )
        remarks += tuple(_not_scored(data, model))
        return dataclasses.replace(score_crystals(data, model, **sizes), n_train=n_train, remarks=remarks)
    return _score_by_part(data, model, model.used, **sizes)


def score_crystals(data: CrystalDataset, model: CrystalFramer, found: Found | None = None, **sizes: Any) -> Evaluation:
    """Score a model on all crystals of a data set, for those targets that it has.

    Predictions depend in the last digits on the batches, which are made of consecutive crystals.

    Args:
        found: what the crystals were for the run of the model. The crystals of each part then have their own batches,
            in the order of the run.
        **sizes: options of `predict`.
    """
    import pandas

    order = [np.arange(len(data))] if found is None else [found.of(role) for role in ROLES]
    tables = [predict(data.select(rows), model, **sizes) for rows in order if len(rows)]
    predicted = pandas.concat(tables or [predict(data, model)]).iloc[np.argsort(np.concatenate(order))]
    failed = predicted["error"].notna().to_numpy()
    roles = [] if found is None else [role for role in ROLES if (found.role == role).any()]
    fair = next((role for role in ("test", "other") if role in roles), None)
    is_scored = np.ones(len(data), dtype=bool) if found is None or fair is None else found.role == fair
    means = dict(
        zip((output.name for output in model.config.outputs), model.target_mean.double().tolist(), strict=True)
    )
    scores, frames, parts = {}, [], {}
    class_scores, class_parts = {}, {}
    for target, outputs in zip(model.config.targets, model.config.columns, strict=True):
        if target.name not in data.targets:
            continue
        columns: dict[str, Any] = {"id": data.ids, "formula": data.formulas, "n_atoms": data.n_atoms}
        columns["target"] = target.name
        if found is not None:
            columns["part"] = found.role
        if target.is_class:
            frame, score = _class_rows(
                columns, data, predicted, target, int(_most_frequent(model.target_mean[outputs]))
            )
            counts = ~failed & ~np.isnan(data.targets[target.name])
            class_scores[target.name] = score(counts & is_scored)
            for role in roles:
                class_parts.setdefault(role, {})[target.name] = score(counts & (frame["part"] == role).to_numpy())
            frames.append(frame)
            continue
        columns["label"] = data.targets[target.name]
        columns["prediction"] = predicted[target.name].to_numpy()
        columns["deviation"] = columns["prediction"] - columns["label"]
        if model.uncertainty is not None:
            columns |= {end: predicted[f"{target.name}_{end}"].to_numpy() for end in ("low", "high")}
        rows = pandas.DataFrame(columns | _about(predicted))
        counts = ~failed & rows["label"].notna().to_numpy()
        scores[target.name] = _score(target, rows.loc[counts & is_scored], means[target.name])
        for role in roles:
            of_role = rows.loc[counts & (rows["part"] == role)]
            parts.setdefault(role, {})[target.name] = _score(target, of_role, means[target.name])
        frames.append(rows)
    crystals = pandas.concat(frames, ignore_index=True)
    crystals.attrs["units"] = {target.name: target.unit for target in model.config.targets}
    coverage = float("nan") if model.uncertainty is None else model.uncertainty.coverage
    return Evaluation(
        crystals,
        scores,
        len(data),
        int(failed.sum()),
        coverage=coverage,
        parts=parts,
        class_scores=class_scores,
        class_parts=class_parts,
    )


def _class_rows(
    columns: dict[str, Any], data: CrystalDataset, predicted: pandas.DataFrame, target: Target, most_frequent: int
) -> tuple[pandas.DataFrame, Callable[[Bool[np.ndarray, " n"]], ClassScore]]:
    """The rows of a target of classes, and the function that scores some of them."""
    import pandas

    shares, codes = probabilities(predicted[list(target.output_names)].to_numpy()), data.targets[target.name]
    columns["label"] = pandas.Series(classes.named(codes, target), dtype=object)
    columns["prediction"] = pandas.Series(likeliest(shares, target), dtype=object)
    columns["probability"] = shares.max(axis=1)
    columns |= {f"probability/{name}": share for name, share in zip(target.classes, shares.T, strict=True)}
    rows = pandas.DataFrame(columns | _about(predicted))

    def score(chosen: Bool[np.ndarray, " n"]) -> ClassScore:
        return score_classes(target, codes[chosen].astype(np.int64), shares[chosen], most_frequent)

    return rows, score


def _about(predicted: pandas.DataFrame) -> dict[str, np.ndarray]:
    """The columns about a crystal that all targets share: flags, and why there is no prediction."""
    return {name: predicted[name].to_numpy() for name in (*FLAGS, "error") if name in predicted}


def _most_frequent(logits: Tensor) -> Tensor:
    """The number of the class that training labels most often have: their log-odds are where outputs start from."""
    return logits.argmax() if len(logits) > 1 else (logits[0] > 0).long()


def _score_by_part(data: CrystalDataset, model: CrystalFramer, used: UsedCrystals, **sizes: Any) -> Evaluation:
    """As `score_crystals`, for a model that knows the crystals of its run, with remarks about them."""
    found = used.find(data)
    n = {role: int((found.role == role).sum()) for role in ROLES}
    n_train = sum(n[role] for role in TRAINED)
    fitted = [f"trained on {n_train:,}"] if n_train else []
    fitted += [f"selected by its errors on {n['validation']:,}"] if n["validation"] else []
    fair = " and ".join(f"`{role}`" for role in ("test", "other") if n[role])
    if not fitted:
        who = "The run of this model" if used.unknown_start else "The model"
        remarks = [f"{who} was neither trained on these crystals nor selected by its errors on them"]
    elif fair:
        remarks = [f"THE MODEL WAS {' AND '.join(fitted).upper()} OF THESE CRYSTALS. Judge it by {fair} only"]
    else:
        remarks = [f"THE MODEL WAS {' AND '.join(fitted).upper()} OF THESE CRYSTALS. No crystal here is new to it"]
    if n["test"] < used.count("test"):
        here = f"{n['test']:,} of the {used.count('test'):,} test crystals of the run are here"
        remarks.append(f"{here}: `test` is not the error that the training printed" if n["test"] else here)
    n_earlier = int((found.is_earlier & (found.role == "test")).sum())
    if n_earlier:
        remarks.append(f"{n_earlier:,} of the test crystals trained the weights that the run started from")
    trained = used.table.loc[used.table["part"].isin(TRAINED), "formula"]
    n_alike = int((np.isin(data.formulas, trained) & (found.role == "other")).sum())
    if n_alike:
        remarks.append(
            f"{n_alike:,} of `other` have the formula of a training crystal. They are other compounds, or training "
            "crystals that were not recognised, as they are given in another cell or with rounded positions"
        )
    if used.unknown_start:
        remarks.append(
            "The run started from weights that do not say which crystals they were trained on. On any of these, its "
            "errors are too small"
        )
    remarks += _not_scored(data, model)
    if not found.is_same.all() and len(data.targets) == len(model.config.targets):
        n_changed = int((~found.is_same).sum())
        remarks.append(f"Other labels than in the run, or another structure or id: {n_changed:,} of the crystals")
    evaluation = score_crystals(data, model, found, **sizes)
    return dataclasses.replace(evaluation, n_train=n_train, remarks=tuple(remarks))


@model_second
@plain()
def calibrate(
    data: CrystalDataset | str | Path,
    model: CrystalFramer | str | Path | None = None,
    *,
    part: Part | None = None,
    coverage: float = 0.9,
    away: CrystalDataset | str | Path | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Uncertainty:
    """Calibrate prediction intervals of a model on labelled crystals.

        model.index = cf.index_training_crystals(training_data, model)
        model.uncertainty = cf.calibrate("my.parquet", model, part="validation")
        cf.save(model, "my-model")  # its predictions now have intervals

    The intervals are valid for crystals like these. The model must not have been trained on them: its errors on
    training crystals are smaller than on others. Those that the model of a run knows are left out. With a few hundred
    crystals, intervals are narrower where predictions are easier, and wider far from the training crystals if the model
    has an index of them; with fewer, all have the same width. No interval reaches below 0 if labels never do and often
    are 0 (as band gaps). A target with fewer than 20 labels gets no intervals, and it is said.

    Args:
        data: a data set, or the name or path of one, with targets of the model in their units.
        model: a model, or the path of one. Default: the weights that come with the package.
        part: only the crystals in this part of the data set's own split; of the split of the run, if the data set has
            none. Default: all crystals.
        coverage: share of true values of further crystals that the intervals should contain.
        away: further labelled crystals of kinds that the model was not trained on, such as those that it shall screen,
            with some of the targets. Together they count a quarter as much as `data`.
        device: where to compute, as in `predict`.
        progress: show a progress bar if it takes more than 2 s.

    Raises:
        DataError: the data set has no target of the model (the nearest is named), or one in another unit, lacks the
            part, or holds training crystals only.
        CrystalError: a crystal that the model cannot take.
        UncertaintyError: too few labels of every target for the coverage, or a coverage outside 0 to 1.
        CheckpointError: the model cannot be loaded.
    """
    model = ready(model, device)
    data = labelled_targets(data, model.config.targets)
    data = _without_training((data if part is None else part_of(data, part, model.used)).labelled(), model)
    names = model.config.scalar_names
    if not names:
        message = "the model predicts classes only, whose probabilities need no intervals"
        raise UncertaintyError(message, field="targets", value=model.config.target_names)
    parts = [data]
    if away is not None:
        parts.append(_without_training(labelled_targets(away, model.config.targets), model))
    found = [inputs_and_errors(part, model, progress) for part in parts]
    inputs, errors, labels = (np.concatenate(values) for values in zip(*found, strict=True))
    counts = np.ones(len(data)) if away is None else relative_counts(len(data), len(parts[1]))
    return _calibrated(inputs, errors, labels, names, coverage, counts)


def index_and_intervals(
    model: CrystalFramer, train: PreparedCrystals, validation: PreparedCrystals
) -> tuple[TrainingIndex, Uncertainty | None, str | None]:
    """The index of the training crystals of a run, 90 % intervals from its validation crystals, and why there are none.

    Args:
        train, validation: with the labels of all targets of the model.
    """
    scalars = [number for number, target in enumerate(model.config.targets) if not target.is_class]
    names, columns = model.config.scalar_names, model.config.scalar_columns
    pooled, predicted = pooled_and_predicted(train, model, "indexing the training crystals")
    labels, flat = train.targets[:, scalars], train.flat
    assert isinstance(flat, CrystalDataset)
    index = TrainingIndex.of(
        pooled, flat.ids.tolist(), flat.formulas.tolist(), names, labels, predicted[:, columns] - labels
    )
    if not names:
        return index, None, None
    pooled, predicted = pooled_and_predicted(validation, model, "calibrating")
    labels = validation.targets[:, scalars]
    inputs = interval_inputs(index, pooled)[0]
    try:
        return index, _calibrated(inputs, predicted[:, columns] - labels, labels, names, 0.9), None
    except UncertaintyError as error:
        return index, None, str(error)


def _calibrated(
    inputs: Float[np.ndarray, "n_crystals n_inputs"],
    errors: Float[np.ndarray, "n_crystals n_targets"],
    labels: Float[np.ndarray, "n_crystals n_targets"],
    names: Sequence[str],
    coverage: float,
    counts: Float[np.ndarray, " n_crystals"] | None = None,
) -> Uncertainty:
    """Intervals of those targets that have enough labels. It is said which have not."""
    n_labels = (~np.isnan(errors)).sum(axis=0)
    is_enough = n_labels >= fewest_labels(coverage)
    chosen = np.flatnonzero(is_enough if is_enough.any() else n_labels == n_labels.max())
    for t in np.setdiff1d(np.arange(len(names)), chosen).tolist():
        few = f"{n_labels[t]} labelled crystals, fewer than the {fewest_labels(coverage)} that intervals need"
        print(f"no intervals of {names[t]}: {few}", file=sys.stderr)
    return calibrated(
        inputs,
        errors[:, chosen],
        [names[t] for t in chosen.tolist()],
        coverage,
        weights=counts,
        lowest=_lowest(labels)[chosen],
    )


def calibrate_probabilities(
    data: CrystalDataset | str | Path,
    model: CrystalFramer | str | Path | None = None,
    *,
    part: Part | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> CrystalFramer:
    """A copy of a model whose probabilities of classes are as often right as they say, on crystals like these.

        model = cf.calibrate_probabilities("my.parquet", model, part="validation")
        cf.save(model, "my-model")

    Networks that are trained to the end are too sure. The logits of each target are divided by the temperature with the
    smallest log loss (temperature scaling: Guo et al., ICML 2017). It changes no order: the likeliest class and the
    ROC-AUC stay. Predictions of scalars stay too.

    Args:
        data, part, device, progress: as in `calibrate`. A missing label is allowed.

    Raises:
        DataError: as `calibrate`.
        UncertaintyError: the model has no target of classes, or one of them fewer than 10 labels, or of one class only.
        CheckpointError: the model cannot be loaded.
    """
    model = ready(model, device)
    data = labelled_targets(data, model.config.targets)
    data = _without_training(data if part is None else part_of(data, part, model.used), model)
    names = [target.name for target in model.config.targets if target.is_class]
    if not names:
        message = "the model predicts no classes, so there are no probabilities to calibrate; see `calibrate`"
        raise UncertaintyError(message, field="targets", value=model.config.target_names)
    prepared = prepare(data, model.config.radius, names, "calibration", enlarge=model.config.enlarges_radius)
    _, outputs = pooled_and_predicted(prepared, model, "calibrating", progress=progress)
    calibrated_model = copy.deepcopy(model)
    for target, columns in zip(model.config.targets, model.config.columns, strict=True):
        if target.is_class:
            labels = prepared.targets[:, names.index(target.name)]
            temperature = fitted_temperature(outputs[:, columns], labels, target.name)
            calibrated_model.target_mean[columns] /= temperature
            calibrated_model.target_std[columns] /= temperature
    return calibrated_model


def index_training_crystals(
    data: CrystalDataset | str | Path,
    model: CrystalFramer | str | Path | None = None,
    *,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> TrainingIndex:
    """Index the training crystals of a model by its features, to tell how near a crystal is to them.

        model.index = cf.index_training_crystals(training_data, model)

    Predictions then name the nearest training crystal, and flag those that are far from all. Calibrate the model
    thereafter: intervals follow from the index.

    Args:
        data: the crystals that trained the model; a missing label is allowed.
        model: a model, or the path of one. Default: the weights that come with the package.
        device: where to compute, as in `predict`.
        progress: show a progress bar if it takes more than 2 s.

    Raises:
        DataError: the data set has a target in another unit, or none of them.
        CrystalError: a crystal that the model cannot take.
        CheckpointError: the model cannot be loaded.
    """
    model = ready(model, device)
    data = labelled_targets(data, model.config.targets)
    names = model.config.scalar_names
    pooled, predicted, labels = _pooled_predicted_labels(data, model, "training", "indexing", progress)
    return TrainingIndex.of(pooled, data.ids.tolist(), data.formulas.tolist(), names, labels, predicted - labels)


def inputs_and_errors(
    data: CrystalDataset, model: CrystalFramer, progress: bool
) -> tuple[
    Float[np.ndarray, "n_crystals n_inputs"],
    Float[np.ndarray, "n_crystals n_targets"],
    Float[np.ndarray, "n_crystals n_targets"],
]:
    """What intervals follow from, errors, and labels of the scalar targets."""
    pooled, predicted, labels = _pooled_predicted_labels(data, model, "calibration", "calibrating", progress)
    return interval_inputs(model.index, pooled)[0], predicted - labels, labels


def _pooled_predicted_labels(
    data: CrystalDataset, model: CrystalFramer, part: str, title: str, progress: bool
) -> tuple[
    Float[np.ndarray, "n_crystals d_model"],
    Float[np.ndarray, "n_crystals n_targets"],
    Float[np.ndarray, "n_crystals n_targets"],
]:
    names, radius = model.config.scalar_names, model.config.radius
    prepared = prepare(data, radius, names, part, enlarge=model.config.enlarges_radius)
    pooled, predicted = pooled_and_predicted(prepared, model, title, progress=progress)
    return pooled, predicted[:, model.config.scalar_columns], prepared.targets


def relative_counts(n_home: int, n_away: int) -> Float[np.ndarray, " n_crystals"]:
    """How much each crystal counts in a calibration."""
    return np.concatenate([np.ones(n_home), np.full(n_away, AWAY * n_home / n_away)])


def _lowest(labels: Float[np.ndarray, "n_crystals n_targets"]) -> Float[np.ndarray, " n_targets"]:
    """0 for a target whose labels are never negative and often 0; -inf for others."""
    is_zero, is_negative = (labels == 0.0).sum(axis=0), (labels < 0.0).any(axis=0)
    return np.where((is_zero > OFTEN * (~np.isnan(labels)).sum(axis=0)) & ~is_negative, 0.0, -np.inf)


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


def _not_scored(data: CrystalDataset, model: CrystalFramer) -> list[str]:
    """A remark on the targets of the model that the data set lacks, if there are such."""
    missing = [name for name in model.config.target_names if name not in data.targets]
    return [f"The data set has no labels of {', '.join(missing)}: not scored"] if missing else []


def _without_training(data: CrystalDataset, model: CrystalFramer) -> CrystalDataset:
    """The crystals that did not train the model. It is said how many did."""
    trained = np.zeros(len(data), dtype=bool) if model.used is None else np.isin(model.used.find(data).role, TRAINED)
    if not trained.any():
        return data
    if trained.all():
        raise DataError(f"the model was trained on all of these {len(data):,} crystals; give others", field="data")
    print(
        f"the model was trained on {int(trained.sum()):,} of these {len(data):,} crystals, which are left out",
        file=sys.stderr,
    )
    return data.select(~trained)


def _score(target: Target, rows: pandas.DataFrame, mean: float) -> TargetScore:
    """The score of the rows of `Evaluation.crystals` that have both a label and a prediction."""
    if not len(rows):
        return TargetScore(target, 0, *[float("nan")] * 4)
    label, error = rows["label"].to_numpy(), rows["deviation"].to_numpy()
    squares, squared_error = _mean(np.square(label - _mean(label))), _mean(np.square(error))
    return TargetScore(
        target,
        len(rows),
        mae=_mean(np.abs(error)),
        rmse=math.sqrt(squared_error),
        r2=1.0 - squared_error / squares if squares > 0 else float("nan"),
        baseline_mae=_mean(np.abs(label - mean)),
        bias=_mean(error),
        covered=_covered(rows),
    )


def _covered(rows: pandas.DataFrame) -> float:
    """The share of the labels that lie in their intervals; NaN without intervals."""
    known = rows.loc[rows["low"].notna()] if "low" in rows else rows.iloc[:0]
    return float(known["label"].between(known["low"], known["high"]).mean()) if len(known) else float("nan")


def _mean(values: Float[np.ndarray, " n"]) -> float:
    """The mean to the last digit, whatever the order of the values."""
    return math.fsum(values.tolist()) / len(values)
