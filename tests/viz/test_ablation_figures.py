"""The ablation figure shows the means and deviations of its table. Methods differ in more than colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from refusals import refused

from viz import FigureError, ablation_figure
from viz.palette import SERIES_COLORS

METHODS = ("max", "weighted-pca", "static-max", "pca", "lattice", "none")


def table(**columns: list) -> pd.DataFrame:
    made = pd.DataFrame(
        {
            "frame_method": ["max", "max", "none", "none"],
            "seed": [0, 1, 0, 1],
            "validation_mae/gap": [0.3, 0.5, 0.6, 0.8],
            "test_mae/gap": [0.2, 0.4, 0.5, np.nan],
            "test_mae/hull": [2.0, 4.0, 5.0, np.nan],
            "ms_per_step": [20.0, 24.0, 10.0, np.nan],
            **columns,
        }
    )
    made.attrs["units"] = {"gap": "eV", "hull": "meV"}
    return made


def histories(n_epochs: int = 3) -> pd.DataFrame:
    rows = [
        {"frame_method": method, "seed": seed, "epoch": epoch, "validation_mae/gap": (1.0 + seed) / epoch}
        for method, seeds in (("max", (0, 1)), ("none", (0,)))
        for seed in seeds
        for epoch in range(1, n_epochs + 1)
    ]
    return pd.DataFrame(rows)


def parts(figure: Any, axis: str) -> list[Any]:
    return [part for part in figure.data if (part.xaxis or "x") == axis]


def test_accuracy_and_cost_are_means_with_deviations_over_the_seeds() -> None:
    figure: Any = ablation_figure(table(), histories())
    max_runs, max_mean, none_runs, none_mean = parts(figure, "x")
    assert list(max_runs.x) == [0.2, 0.4] and list(max_runs.customdata) == [0, 1]
    assert list(max_mean.x) == pytest.approx([0.3]) and list(max_mean.error_x.array) == pytest.approx([0.02**0.5])
    assert list(none_runs.x) == list(none_mean.x) == [0.5] and list(none_mean.error_x.array) == [0.0]
    assert list(max_mean.y) == ["max"] and list(none_mean.y) == ["none"]
    _, cost, _, cost_of_none = parts(figure, "x2")
    assert list(cost.x) == [22.0] and list(cost.error_x.array) == pytest.approx([8**0.5])
    assert list(cost_of_none.x) == [10.0]
    assert figure.layout.yaxis.categoryarray == ("none", "max")  # from below: the first on top
    assert figure.layout.xaxis2.rangemode == "tozero"


def test_learning_curves_are_means_over_the_seeds() -> None:
    curve, single = parts(ablation_figure(table(), histories()), "x3")
    assert (curve.name, single.name) == ("max", "none")
    assert list(curve.x) == [1, 2, 3] and list(curve.y) == pytest.approx([1.5, 0.75, 0.5])
    assert list(curve.error_y.array) == pytest.approx([0.5**0.5, 0.5**0.5 / 2, 0.5**0.5 / 3])
    assert list(single.y) == pytest.approx([1.0, 1 / 2, 1 / 3]) and list(single.error_y.array) == [0.0] * 3


def test_long_curves_have_few_markers_each_with_its_bar() -> None:
    curve = parts(ablation_figure(table(), histories(500)), "x3")[0]
    sizes, bars = np.array(curve.marker.size), np.array(curve.error_y.array)
    assert len(curve.x) == 500 and (sizes > 0).sum() == 8 and sizes[0] > 0 and sizes[-1] > 0
    np.testing.assert_array_equal(np.isfinite(bars), sizes > 0)


def test_every_axis_says_what_it_shows_with_its_unit() -> None:
    layout: Any = ablation_figure(table(), histories()).layout
    assert layout.title.text == (
        "Frame methods on gap: mean ± standard deviation over 2 seeds; 1 of 4 runs have no result"
    )
    assert [note.text for note in layout.annotations] == ["Accuracy", "Cost", "Convergence"]
    assert layout.xaxis.title.text == "test MAE (eV)" and layout.xaxis2.title.text == "time of a training step (ms)"
    assert layout.xaxis3.title.text == "epoch" and layout.yaxis3.title.text == "validation MAE (eV)"
    assert layout.yaxis3.type == "log"


def test_methods_differ_in_more_than_colour() -> None:
    n, methods = len(METHODS), [*METHODS, "own", "other", "third"]
    runs = pd.DataFrame({"frame_method": methods, "seed": 0, "test_mae/gap": 0.5, "ms_per_step": 9.0})
    epochs = pd.DataFrame({"frame_method": methods, "seed": 0, "epoch": 1, "validation_mae/gap": 0.5})
    figure: Any = ablation_figure(runs, epochs)
    curves = parts(figure, "x3")
    assert [curve.line.color for curve in curves[:n]] == list(SERIES_COLORS[:n])
    assert len({curve.line.dash for curve in curves[:n]}) == len({curve.marker.symbol for curve in curves[:n]}) == n
    assert len({(curve.line.color, curve.line.dash) for curve in curves}) == len(methods)
    for index, curve in enumerate(curves):
        assert {part.marker.symbol for part in figure.data if part.legendgroup == curve.name} == {curve.marker.symbol}
        assert curve.legendgroup == methods[index]
    assert sum(part.showlegend is not False for part in figure.data) == len(methods)


def test_another_target_no_histories_and_no_test_part() -> None:
    figure: Any = ablation_figure(table(), target="hull")
    assert figure.layout.xaxis.title.text == "test MAE (meV)" and parts(figure, "x3") == []
    untested = table(**{"test_mae/gap": [np.nan] * 4})
    figure = ablation_figure(untested)
    assert figure.layout.xaxis.title.text == "validation MAE (eV)" and list(parts(figure, "x")[0].x) == [0.3, 0.5]
    figure = ablation_figure(untested.query("seed == 0"))
    assert figure.layout.title.text == "Frame methods on gap: one seed"


@pytest.mark.parametrize(
    ("changed", "target", "field", "word"),
    [
        (table(), "gpa", "target", "did you mean 'gap'?"),
        (table()[["frame_method", "seed"]], None, "test_mae/<target>", "frame_method, seed"),
        (table().drop(columns="ms_per_step"), None, "ms_per_step", "test_mae/gap"),
        (table(**{"test_mae/hull": [np.nan] * 4}), "hull", "target", "hull"),
    ],
)
def test_tables_without_results_are_refused(changed: pd.DataFrame, target: str | None, field: str, word: str) -> None:
    with refused(FigureError, word, field=field):
        ablation_figure(changed, target=target)


def test_histories_without_the_target_are_refused() -> None:
    with refused(FigureError, field="validation_mae/hull"):
        ablation_figure(table(), histories(), target="hull")
