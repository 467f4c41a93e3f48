"""The sweep figure shows the losses of its table against each searched setting. States differ in more than colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from refusals import refused

from viz import FigureError, sweep_figure

FIELDS = ["training.learning_rate", "model.n_layers", "model.frame.method"]


def table(**columns: list) -> pd.DataFrame:
    made = pd.DataFrame(
        {
            "trial": [0, 1, 2, 3, 4],
            "training.learning_rate": [1e-4, 2e-3, 5e-4, 3e-4, 1e-3],
            "model.n_layers": [2, 3, 4, 2, 3],
            "model.frame.method": ["max", "none", "max", "max", "none"],
            "state": ["complete", "pruned", "failed", "complete", "complete"],
            "validation_loss": [0.5, 0.6, np.nan, 0.4, 0.45],
            "error": [None, None, "broken", None, None],
            **columns,
        }
    )
    made.attrs["fields"] = FIELDS
    return made


def panel(figure: Any, axis: str) -> dict[str, Any]:
    return {part.name: part for part in figure.data if (part.xaxis or "x") == axis}


def test_every_trial_has_its_loss_and_the_line_the_best_so_far() -> None:
    parts = panel(sweep_figure(table()), "x")
    assert list(parts["complete"].x) == [0, 3, 4] and list(parts["complete"].y) == [0.5, 0.4, 0.45]
    assert list(parts["pruned"].x) == [1] and list(parts["pruned"].y) == [0.6]
    line = parts["best so far"]
    assert list(line.x) == [0, 3, 4, 4] and list(line.y) == [0.5, 0.4, 0.4, 0.4] and line.line.shape == "hv"


def test_a_pruned_trial_is_never_the_best() -> None:
    figure: Any = sweep_figure(table(validation_loss=[0.5, 0.1, np.nan, 0.4, 0.45]))
    for axis, best in (("x", 3), ("x2", 3e-4), ("x3", 2.0), ("x4", "max")):
        assert list(panel(figure, axis)["best"].x) == [best]
        assert list(panel(figure, axis)["best"].y) == [0.4]
    assert list(panel(figure, "x")["best so far"].y) == [0.5, 0.4, 0.4, 0.4]


def test_a_panel_for_each_field_on_an_axis_that_fits_it() -> None:
    figure: Any = sweep_figure(table())
    layout = figure.layout
    assert [layout[f"xaxis{n}"].title.text for n in (2, 3, 4)] == FIELDS
    assert [layout[f"xaxis{n}"].type for n in (2, 3, 4)] == ["log", "linear", "category"]
    assert list(panel(figure, "x2")["complete"].x) == [1e-4, 3e-4, 1e-3]
    assert list(panel(figure, "x4")["complete"].x) == ["max", "max", "none"]
    assert layout.xaxis4.categoryarray == ("max", "none")
    narrow: Any = sweep_figure(table(**{"training.learning_rate": [1e-4, 2e-4, 3e-4, 4e-4, 5e-4]}))
    assert narrow.layout.xaxis2.type == "linear"
    assert (layout.yaxis.title.text, layout.xaxis.title.text) == ("validation loss", "trial")
    ranges = {layout[axis].range for axis in ("yaxis", "yaxis2", "yaxis3", "yaxis4")}
    assert len(ranges) == 1


def test_values_that_are_no_numbers_are_categories() -> None:
    values = [None, (0.9, 0.98), True, "a", None]
    figure: Any = sweep_figure(table(**{"model.n_layers": values}))
    assert figure.layout.xaxis3.type == "category"
    assert list(panel(figure, "x3")["complete"].x) == ["None", "a", "None"]


def test_states_differ_in_more_than_colour() -> None:
    figure: Any = sweep_figure(table())
    parts = panel(figure, "x2")
    assert len({parts[name].marker.symbol for name in ("complete", "pruned", "best")}) == 3
    assert sum(part.showlegend is not False for part in figure.data) == 4
    assert figure.layout.title.text == "Search over 5 trials: 3 complete, 1 pruned, 1 failed"


def test_one_loss_far_above_does_not_flatten_the_others() -> None:
    losses = [0.5, 900.0, np.nan, 0.4, 0.45]
    figure: Any = sweep_figure(table(validation_loss=losses))
    low, high = figure.layout.yaxis.range
    assert low < 0.4 and 0.5 < high < 900
    far = panel(figure, "x")["pruned"]
    assert far.y[0] == high and list(far.customdata[0]) == [1, 900.0]
    assert list(far.marker.symbol) == ["triangle-up-open"]


def test_without_attributes_fields_stand_between_trial_and_state() -> None:
    bare = table()
    bare.attrs.clear()
    assert sweep_figure(bare).to_dict() == sweep_figure(table()).to_dict()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (table().drop(columns="validation_loss"), "validation_loss"),
        (table().drop(columns="model.n_layers"), "model.n_layers"),
        (pd.DataFrame({"trial": [0], "state": ["complete"], "validation_loss": [0.5]}), "of a searched setting"),
        (table(state=["failed"] * 5), "state"),
        (table(validation_loss=[np.nan] * 5), "state"),
    ],
)
def test_tables_without_results_are_refused(changed: pd.DataFrame, field: str) -> None:
    with refused(FigureError, field=field):
        sweep_figure(changed)
