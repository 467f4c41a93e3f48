"""Figures of an evaluation: the numbers are its own, the axes are in words, no text lies over another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from overlaps import overlaps, texts_of_figure
from synthetic_evaluations import METAL, PHASE, SCALARS, synthetic_evaluation

import viz
from viz.evaluation_figures import roc_curve, wilson
from viz.quantities import axis_html, axis_tex

EVALUATION = synthetic_evaluation(classes=(METAL, PHASE))
PLOTS: dict[str, Callable[..., Figure]] = {
    "parity": lambda **options: viz.parity_plot(EVALUATION, "band_gap", **options),
    "roc": lambda **options: viz.roc_plot(EVALUATION, "is_metal", **options),
    "roc of three": lambda **options: viz.roc_plot(EVALUATION, "phase", **options),
    "reliability": lambda **options: viz.reliability_plot(EVALUATION, "is_metal", **options),
    "confusion": lambda **options: viz.confusion_plot(EVALUATION, "phase", **options),
}


def words(figure: Figure) -> list[str]:
    return [written.text for written in texts_of_figure(figure)]


def test_all_targets_of_both_kinds_are_one_figure_for_papers(tmp_path: Path) -> None:
    figure = viz.evaluation_figure(EVALUATION)
    assert len(figure.axes) == len(SCALARS) + 2 * 3
    assert overlaps(texts_of_figure(figure)) == []
    assert {text.get_fontsize() for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()} == {8.0}
    figure.savefig(tmp_path / "evaluation.pdf")
    assert (tmp_path / "evaluation.pdf").read_bytes().startswith(b"%PDF")
    assert len(viz.evaluation_figure(EVALUATION, targets=["band_gap"]).axes) == 1


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("width", [2.3, 3.35])
def test_no_text_lies_over_another_and_all_is_inside(name: str, width: float) -> None:
    figure = PLOTS[name](width=width)
    texts = texts_of_figure(figure)
    assert overlaps(texts) == []
    for text in texts:
        assert (text.corners >= -1).all() and (text.corners <= np.array(figure.bbox.size) + 1).all(), text.text


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_can_be_drawn_into_axes(name: str) -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert PLOTS[name](ax=left) is figure
    assert left.get_xlabel() and left.get_ylabel() and not right.get_xlabel()


def test_parity_tells_the_scores_of_the_evaluation() -> None:
    score = EVALUATION.scores["band_gap"]
    figure = viz.parity_plot(EVALUATION, "band_gap")
    (corner,) = figure.axes[0].texts
    assert corner.get_text() == (
        f"n = {score.n_crystals}\nMAE {score.mae:.3g}\nRMSE {score.rmse:.3g}\nR² {score.r2:.3f}"
    )
    (points,) = figure.axes[0].collections
    assert len(np.asarray(points.get_offsets())) == score.n_crystals
    assert figure.axes[0].get_ylabel() == "predicted band gap\n$E_\\mathrm{g}$ (eV)"


def test_the_live_parity_figure_takes_an_evaluation() -> None:
    figure: Any = viz.parity_figure(EVALUATION, "band_gap")
    score = EVALUATION.scores["band_gap"]
    assert figure.layout.title.text == f"MAE {score.mae:.3g}, predicting the training mean 1"
    assert len(figure.data[1].x) == score.n_crystals and figure.data[1].text[0].startswith("crystal ")
    assert figure.layout.xaxis.title.text == "actual band gap <i>E</i><sub>g</sub> (eV)"
    with pytest.raises(viz.FigureError) as failed:
        viz.parity_figure(EVALUATION, "bandgap")
    assert failed.value.field == "target" and "band_gap" in str(failed.value)


@pytest.mark.parametrize("target", [METAL, PHASE])
def test_the_area_under_the_curves_is_that_of_the_score(target: Any) -> None:
    """The score is made of ranks, the curve of thresholds."""
    labels = [line.get_label() for line in viz.roc_plot(EVALUATION, target.name).axes[0].get_lines()[1:]]
    areas = [float(str(label).rpartition(" ")[2]) for label in labels]
    assert len(areas) == (1 if len(target.classes) == 2 else len(target.classes))
    assert np.mean(areas) == pytest.approx(EVALUATION.class_scores[target.name].roc_auc, abs=1e-3)


def test_equal_probabilities_are_one_point_of_the_curve() -> None:
    false, true = roc_curve(np.array([True, False, True, False]), np.array([0.9, 0.5, 0.5, 0.1]))
    np.testing.assert_allclose(false, [0, 0, 0.5, 1])
    np.testing.assert_allclose(true, [0, 0.5, 1, 1])


def test_reliability_shows_the_bins_of_the_score_and_its_error() -> None:
    score = EVALUATION.class_scores["is_metal"]
    axes = viz.reliability_plot(EVALUATION, "is_metal").axes[0]
    drawn = np.asarray(axes.get_lines()[1].get_xydata(), dtype=float)
    np.testing.assert_allclose(drawn, [(b.probability, b.accuracy) for b in score.bins])
    assert f"n = {score.n_crystals}, ECE {score.calibration_error:.3f}" in axes.get_xlabel()
    low, high = wilson(np.array([0.0, 0.5, 1.0]), np.array([10, 10, 10]))
    # Wilson 1927, as in the tables of Newcombe 1998 for 0, 5 and 10 of 10.
    np.testing.assert_allclose(low, [0.0, 0.2366, 0.7225], atol=1e-4)
    np.testing.assert_allclose(high, [0.2775, 0.7634, 1.0], atol=1e-4)


def test_confusion_shows_every_count() -> None:
    confusion = np.array(EVALUATION.class_scores["phase"].confusion)
    axes = viz.confusion_plot(EVALUATION, "phase").axes[0]
    cells = {text.get_position(): text.get_text().split("\n")[0] for text in axes.texts}
    assert cells == {(column, row): str(count) for (row, column), count in np.ndenumerate(confusion)}
    assert [label.get_text() for label in axes.get_yticklabels()] == list(PHASE.classes)


def test_what_cannot_be_drawn_is_said() -> None:
    empty = replace(EVALUATION, scores={"band_gap": replace(EVALUATION.scores["band_gap"], n_crystals=0)})
    for draw, target in (
        (viz.parity_plot, "is_metal"),
        (viz.roc_plot, "band_gap"),
        (viz.confusion_plot, "nothing"),
    ):
        with pytest.raises(viz.FigureError) as failed:
            draw(EVALUATION, target)
        assert failed.value.field == "target" and failed.value.value == target
    with pytest.raises(viz.FigureError, match="no crystal"):
        viz.parity_plot(empty, "band_gap")
    assert len(viz.evaluation_figure(empty).axes) == 6  # the classes
    with pytest.raises(viz.FigureError, match="no target"):
        viz.evaluation_figure(replace(empty, class_scores={}))


def test_crystals_of_one_class_have_no_roc_curve() -> None:
    score = EVALUATION.class_scores["is_metal"]
    one = replace(EVALUATION, scores={}, class_scores={"is_metal": replace(score, confusion=((3, 1), (0, 0)))})
    assert len(viz.evaluation_figure(one).axes) == 2


@pytest.mark.parametrize(
    ("name", "unit", "tex", "markup"),
    [
        ("band_gap", "eV", r"band gap $E_\mathrm{g}$ (eV)", "band gap <i>E</i><sub>g</sub> (eV)"),
        ("refractive_index", "", "refractive index $n$", "refractive index <i>n</i>"),
        ("log10_hardness", "log10(GPa)", r"log$_{10}$ of hardness (in GPa)", "log<sub>10</sub> of hardness (in GPa)"),
        ("my_price_$", "<b>", r"my price \$ (<b>)", "my price $ (&lt;b&gt;)"),
    ],
)
def test_axes_are_named_in_words_with_symbol_and_unit(name: str, unit: str, tex: str, markup: str) -> None:
    assert axis_tex(name, unit) == tex and axis_html(name, unit) == markup
