"""Figures of an evaluation for papers: parity plots, and for classes ROC curves, reliability and confusion.

All are drawn with matplotlib: vectors, one size of text, as wide as a column. The numbers are those of the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from crystalframer.errors import suggestion
from viz.errors import FigureError
from viz.palette import INK, PAPER, SERIES_COLORS, mix
from viz.quantities import axis_tex
from viz.structure_figures import paper_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from crystalframer.class_scores import ClassScore
    from crystalframer.evaluation import Evaluation, TargetScore

COLUMN, PAGE = 3.35, 7.0
"""Inches: one column of a journal, and the width of its text."""
PANEL = 2.3
"""Inches, the least width of a panel."""
TEXT = 8.0
"""Points, of all text."""
MANY_POINTS = 5_000
"""More points are a picture inside the PDF, which would else be slow to draw."""
LONG_TITLE = 30
"""Characters; a longer title of an axis has two lines."""
CONFIDENT = 1.96
"""Standard deviations of a 95 % interval."""


def evaluation_figure(evaluation: Evaluation, *, targets: Sequence[str] | None = None, width: float = PAGE) -> Figure:
    """All targets of an evaluation in one figure.

    A parity plot for each number; for each target of classes an ROC curve, a reliability diagram and a confusion
    matrix. Save it with `figure.savefig("evaluation.pdf")`.

    Args:
        evaluation: from `crystalframer.evaluate`.
        targets: names of the targets; None for all.
        width: inches.

    Raises:
        FigureError: there is no such target, or none has a label.

    Example:
        >>> import crystalframer as cf
        >>> evaluation = cf.evaluate(cf.dataset("demo").select(range(8)), progress=False)
        >>> figure = evaluation_figure(evaluation, targets=["band_gap"])
        >>> figure.axes[0].get_ylabel()
        'predicted band gap\\n$E_\\\\mathrm{g}$ (eV)'
    """
    names = [*evaluation.scores, *evaluation.class_scores] if targets is None else targets
    draws = [(draw, name) for name in names for draw in _panels(evaluation, name)]
    if not draws:
        raise FigureError("figure of an evaluation: no target has a label and a prediction", field="targets")
    n_columns = min(len(draws), max(1, int(width / PANEL)))
    n_rows = -(-len(draws) // n_columns)
    figure = paper_figure()(figsize=(width, n_rows * width / n_columns), layout="constrained", facecolor=PAPER)
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for panel, (draw, name) in zip(panels, draws, strict=False):
        draw(evaluation, name, panel)
    for panel in panels[len(draws) :]:
        panel.remove()
    return figure


def parity_plot(evaluation: Evaluation, target: str, *, ax: Axes | None = None, width: float = COLUMN) -> Figure:
    """Predicted against actual values of one target, with n, MAE, RMSE and R².

    `viz.parity_figure` is the same with names of crystals under the pointer.

    Args:
        evaluation: from `crystalframer.evaluate`. The crystals are those that its scores are about.
        target: name of a target that is a number.
        ax: axes of your own figure to draw into.
        width: inches, without `ax`.

    Raises:
        FigureError: there is no such target, or it has no labels.

    Example:
        >>> import crystalframer as cf
        >>> evaluation = cf.evaluate(cf.dataset("demo").select(range(8)), progress=False)
        >>> parity_plot(evaluation, "band_gap").savefig("parity.pdf")
    """
    return _drawn(_parity, evaluation, target, ax, width)


def roc_plot(evaluation: Evaluation, target: str, *, ax: Axes | None = None, width: float = COLUMN) -> Figure:
    """The receiver operating characteristic of a target of classes, with the area under it (AUC).

    Of two classes it is that of the second. Of more, each class has a curve, against all others.

    Args:
        evaluation: from `crystalframer.evaluate`.
        target: name of a target of classes.
        ax: axes of your own figure to draw into.
        width: inches, without `ax`.

    Raises:
        FigureError: there is no such target, it has no labels, or all labels are of one class.

    Example:
        >>> import crystalframer as cf
        >>> metal = cf.Target("is_metal", kind="class", classes=("non-metal", "metal"))
        >>> crystals = [
        ...     crystal.with_targets({"is_metal": float(crystal.targets["band_gap"] < 0.01)})
        ...     for crystal in cf.dataset("demo").select(range(12))
        ... ]
        >>> evaluation = cf.evaluate(cf.CrystalDataset.from_crystals(crystals, [metal]), progress=False)
        >>> roc_plot(evaluation, "is_metal").savefig("roc.pdf")
    """
    return _drawn(_roc, evaluation, target, ax, width)


def reliability_plot(evaluation: Evaluation, target: str, *, ax: Axes | None = None, width: float = COLUMN) -> Figure:
    """How often the predicted class is right, against its probability, with the expected calibration error (ECE).

    Points are bins of equal width (`ClassScore.bins`), with 95 % intervals by Wilson; bars show how many crystals each
    has. Points below the diagonal are too sure.

    Args:
        evaluation: from `crystalframer.evaluate`.
        target: name of a target of classes.
        ax: axes of your own figure to draw into.
        width: inches, without `ax`.

    Raises:
        FigureError: there is no such target, or it has no labels.

    Example:
        >>> import crystalframer as cf
        >>> metal = cf.Target("is_metal", kind="class", classes=("non-metal", "metal"))
        >>> crystals = [
        ...     crystal.with_targets({"is_metal": float(crystal.targets["band_gap"] < 0.01)})
        ...     for crystal in cf.dataset("demo").select(range(12))
        ... ]
        >>> evaluation = cf.evaluate(cf.CrystalDataset.from_crystals(crystals, [metal]), progress=False)
        >>> reliability_plot(evaluation, "is_metal").savefig("reliability.pdf")
    """
    return _drawn(_reliability, evaluation, target, ax, width)


def confusion_plot(evaluation: Evaluation, target: str, *, ax: Axes | None = None, width: float = COLUMN) -> Figure:
    """The confusion matrix: crystals by true and by predicted class. Darker fields have a larger share of their row.

    Args:
        evaluation: from `crystalframer.evaluate`.
        target: name of a target of classes.
        ax: axes of your own figure to draw into.
        width: inches, without `ax`.

    Raises:
        FigureError: there is no such target, or it has no labels.

    Example:
        >>> import crystalframer as cf
        >>> metal = cf.Target("is_metal", kind="class", classes=("non-metal", "metal"))
        >>> crystals = [
        ...     crystal.with_targets({"is_metal": float(crystal.targets["band_gap"] < 0.01)})
        ...     for crystal in cf.dataset("demo").select(range(12))
        ... ]
        >>> evaluation = cf.evaluate(cf.CrystalDataset.from_crystals(crystals, [metal]), progress=False)
        >>> confusion_plot(evaluation, "is_metal").savefig("confusion.pdf")
    """
    return _drawn(_confusion, evaluation, target, ax, width)


_Draw = Callable[["Evaluation", str, "Axes"], None]


def _drawn(draw: _Draw, evaluation: Evaluation, target: str, ax: Axes | None, width: float) -> Figure:
    from matplotlib.figure import Figure

    if ax is None:
        figure = paper_figure()(figsize=(width, width), layout="constrained", facecolor=PAPER)
        draw(evaluation, target, figure.subplots())
        return figure
    draw(evaluation, target, ax)
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def _parity(evaluation: Evaluation, target: str, ax: Axes) -> None:
    score = scalar_score(evaluation, target)
    actual, predicted = labels_and_predictions(evaluation, target)
    ends = np.array([min(actual.min(), predicted.min()), max(actual.max(), predicted.max())])
    ends += np.array([-0.04, 0.04]) * (float(np.ptp(ends)) or 1.0)
    ax.plot(ends, ends, color=INK, lw=0.8, ls="--")
    look: dict[str, Any] = {"color": SERIES_COLORS[0], "s": 10, "alpha": 0.6, "linewidths": 0}
    ax.scatter(actual, predicted, rasterized=len(actual) > MANY_POINTS, **look)
    ax.set(xlim=ends, ylim=ends, aspect="equal")
    lines = [f"n = {score.n_crystals:,}", f"MAE {score.mae:.3g}", f"RMSE {score.rmse:.3g}"]
    if not np.isnan(score.r2):
        lines.append(f"R² {score.r2:.3f}")
    # Few points lie in this corner: predictions that are far too large for small labels.
    _say(ax, lines, x=0.04, y=0.96)
    title = axis_tex(target, score.target.unit)
    _finish(ax, *(_narrow(f"{word} {title}") for word in ("actual", "predicted")))


def _roc(evaluation: Evaluation, target: str, ax: Axes) -> None:
    score = class_score(evaluation, target)
    true, shares = _classes(evaluation, target)
    names = score.target.classes
    numbers = [1] if len(names) == 2 else range(len(names))
    curves = [(names[k], *roc_curve(true == k, shares[:, k])) for k in numbers if 0 < (true == k).sum() < len(true)]
    if not curves:
        message = f"ROC curve of {target}: all crystals are of one class; give crystals of two or more"
        raise FigureError(message, field="target", value=target)
    ax.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--")
    for (name, false_rate, true_rate), color in zip(curves, _colors(len(curves)), strict=True):
        area = float(np.trapezoid(true_rate, false_rate))
        ax.plot(false_rate, true_rate, color=color, lw=1.5, label=f"{name}, AUC {area:.3f}")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    words: dict[str, Any] = {"fontsize": TEXT, "title": f"n = {len(true):,}", "title_fontsize": TEXT}
    ax.legend(loc="lower right", facecolor=PAPER, edgecolor="none", framealpha=0.85, handlelength=1.2, **words)
    of = f"of {_words(names[1])} " if len(names) == 2 else ""
    _finish(ax, f"false positive rate {of}".strip(), f"true positive rate {of}".strip())


def _reliability(evaluation: Evaluation, target: str, ax: Axes) -> None:
    score = class_score(evaluation, target)
    least = 1 / len(score.target.classes)
    probability, accuracy = (np.array([getattr(b, name) for b in score.bins]) for name in ("probability", "accuracy"))
    counts = np.array([b.n_crystals for b in score.bins])
    low, high = wilson(accuracy, counts)
    ax.bar(probability, 0.18 * counts / counts.max(), width=0.06, color=mix(SERIES_COLORS[0], PAPER, 0.75))
    ax.plot([least, 1], [least, 1], color=INK, lw=0.8, ls="--")
    bars = np.stack([accuracy - low, high - accuracy]).clip(0)
    look: dict[str, Any] = {"color": SERIES_COLORS[0], "marker": "o", "ms": 4, "lw": 1.5, "elinewidth": 0.8}
    ax.errorbar(probability, accuracy, yerr=bars, **look)
    ax.set(xlim=(least - 0.05, 1.05), ylim=(0, 1.05))
    ax.set_box_aspect(1)
    numbers = f"n = {score.n_crystals:,}, ECE {score.calibration_error:.3f}"
    _finish(ax, f"probability of predicted class\n{_words(target)}: {numbers}", "accuracy; bars: crystals")


def _confusion(evaluation: Evaluation, target: str, ax: Axes) -> None:
    score = class_score(evaluation, target)
    counts = np.array(score.confusion)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    names = [_words(name) for name in score.target.classes]
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        color = PAPER if shares[row, column] > 0.5 else INK
        percent = f"\n{shares[row, column]:.0%}" if counts[row].sum() else ""
        ax.text(column, row, f"{count:,}{percent}", ha="center", va="center", color=color, fontsize=TEXT)
    ax.set_xticks(range(len(names)), names, rotation=0 if sum(map(len, names)) < 28 else 90)
    ax.set_yticks(range(len(names)), names, rotation=90, va="center")
    accuracy = f"accuracy {score.accuracy:.1%}, balanced {score.balanced_accuracy:.1%}"
    _finish(ax, f"predicted class: {_words(target)}\n{accuracy}", "true class")


# --- numbers ----------------------------------------------------------------------------------------------------------


def labels_and_predictions(
    evaluation: Evaluation, target: str
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Labels and predictions of a number, of the crystals that its score is about.

    Raises:
        FigureError: there is no such target, or it has no labels.
    """
    scalar_score(evaluation, target)
    rows = scored_rows(evaluation, target)
    return rows["label"].to_numpy(dtype=float), rows["prediction"].to_numpy(dtype=float)


def scored_rows(evaluation: Evaluation, target: str) -> Any:
    """The rows of `Evaluation.crystals` that the score of a target is about."""
    rows, _ = evaluation.scored
    rows = rows.loc[rows["target"] == target]
    return rows.loc[rows["label"].notna() & rows["prediction"].notna()]


def roc_curve(
    is_class: Bool[np.ndarray, " n"], probability: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n_points"], Float[np.ndarray, " n_points"]]:
    """False and true positive rates, from the highest threshold to the lowest. Equal probabilities are one point."""
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum(is_class[order])
    last = np.append(np.flatnonzero(np.diff(probability[order])), len(order) - 1)
    true, false = hits[last], last + 1 - hits[last]
    return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])


def wilson(
    share: Float[np.ndarray, " n"], count: np.ndarray
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """95 % interval of a share of `count` (Wilson, J. Am. Stat. Assoc. 22, 209, 1927)."""
    z = CONFIDENT**2 / count
    middle = (share + z / 2) / (1 + z)
    half = CONFIDENT / (1 + z) * np.sqrt(share * (1 - share) / count + z / (4 * count))
    return middle - half, middle + half


def scalar_score(evaluation: Evaluation, target: str) -> TargetScore:
    """The score of a number.

    Raises:
        FigureError: there is no such target, or it has no labels.
    """
    return _score(evaluation.scores, evaluation.class_scores, target, "classes, not a number; see roc_plot")


def class_score(evaluation: Evaluation, target: str) -> ClassScore:
    """The score of a target of classes.

    Raises:
        FigureError: there is no such target, or it has no labels.
    """
    return _score(evaluation.class_scores, evaluation.scores, target, "a number, not classes; see parity_plot")


def _score(scores: Any, others: Any, target: str, is_other: str) -> Any:
    if target not in scores:
        names = [*scores, *others]
        why = f"{target} is {is_other}" if target in others else f"no target {target!r}{suggestion(target, names)}"
        raise FigureError(f"figure of an evaluation: {why}", field="target", value=target)
    if not scores[target].n_crystals:
        message = f"figure of an evaluation: no crystal has a label and a prediction of {target}"
        raise FigureError(message, field="target", value=target)
    return scores[target]


def _panels(evaluation: Evaluation, name: str) -> list[_Draw]:
    """The panels of a target: none without labels, and no ROC curve of one class alone."""
    if name in evaluation.class_scores:
        score = evaluation.class_scores[name]
        n_present = sum(any(row) for row in score.confusion)
        return [*([_roc] if n_present > 1 else []), *([_reliability, _confusion] if n_present else [])]
    if name in evaluation.scores and not evaluation.scores[name].n_crystals:
        return []
    return [_parity]  # which says what is wrong with an unknown name


def _classes(evaluation: Evaluation, target: str) -> tuple[np.ndarray, Float[np.ndarray, "n n_classes"]]:
    """Number of the true class, and probability of each class."""
    rows = scored_rows(evaluation, target)
    names = list(class_score(evaluation, target).target.classes)
    true = np.array([names.index(str(label)) for label in rows["label"]])
    return true, rows[[f"probability/{name}" for name in names]].to_numpy(dtype=float)


# --- look -------------------------------------------------------------------------------------------------------------


@cache
def _colors(n: int) -> list[str]:
    return [SERIES_COLORS[number % len(SERIES_COLORS)] for number in range(n)]


def _words(name: str) -> str:
    """A name as plain text: matplotlib would read `$`."""
    return name.replace("_", " ").replace("$", r"\$")


def _say(ax: Axes, lines: Sequence[str], *, x: float, y: float) -> None:
    text = "\n".join(line.replace("$", r"\$") for line in lines)
    ax.text(x, y, text, transform=ax.transAxes, ha="left", va="top", fontsize=TEXT, color=INK)


def _narrow(title: str) -> str:
    """The title of an axis in two lines if it is long: symbol and unit below."""
    at = title.find("log$") if "log$" in title else title.find("$")
    at = title.rfind(" (") if at < 0 else at
    return f"{title[:at].rstrip()}\n{title[at:].lstrip()}" if len(title) > LONG_TITLE and at > 0 else title


def _finish(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(x, fontsize=TEXT, color=INK)
    ax.set_ylabel(y, fontsize=TEXT, color=INK)
    ax.tick_params(labelsize=TEXT, color=INK, labelcolor=INK)
    for name in ("top", "right"):
        ax.spines[name].set_visible(False)
