"""A figure of a hyperparameter search: its progress, and the loss against each searched setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from viz.errors import FigureError, check_columns
from viz.palette import ASIDE, INK, PAPER, SERIES_COLORS
from viz.style import LEGEND_ABOVE, styled
from viz.text import literal

if TYPE_CHECKING:
    import pandas as pd

COMPLETE, PRUNED = SERIES_COLORS[0], ASIDE
BEST = SERIES_COLORS[3]
MOST_ROWS = 2
"""Largest number of rows of panels."""
FAR_ABOVE = 3.0
"""Upper end of the loss axis above the median, as a multiple of the distance from the lowest loss to the median. Higher
losses are drawn at the upper edge."""


def sweep_figure(
    table: pd.DataFrame,
    *,
    width: int = 1180,
    height: int = 460,
) -> go.Figure:
    """Validation loss of every trial with the best so far, and the loss against each searched setting.

    Complete trials are filled circles, pruned trials (stopped early) are open diamonds at their lowest loss, and the
    best trial is a star in all panels. A setting that spans more than a factor of ten has a logarithmic axis. A loss
    far above the others is a triangle at the upper edge; point at it to see its value. The title tells the number of
    failed trials.

    Args:
        table: one row for each trial, as `SweepResult.table`: columns `trial`, the searched settings
            (`table.attrs["fields"]`, or all columns between `trial` and `state`), `state` and `validation_loss`.
        width: pixels.
        height: pixels.

    Raises:
        FigureError: a column is missing, or no trial is complete.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"trial": [0, 1, 2], "training.learning_rate": [1e-4, 2e-3, 5e-4]})
        >>> table["state"], table["validation_loss"] = ["complete", "pruned", "complete"], [0.5, 0.9, 0.4]
        >>> figure = sweep_figure(table)
        >>> figure.layout.xaxis2.title.text, figure.layout.xaxis2.type
        ('training.learning_rate', 'log')
    """
    fields = _fields(table)
    drawn = table.dropna(subset=["validation_loss"])
    drawn = drawn.loc[drawn["state"].isin(["complete", "pruned"])]
    if "complete" not in drawn["state"].tolist():
        raise FigureError("sweep figure: no trial is complete; the column 'error' of the table says why", field="state")
    n_rows = min(MOST_ROWS, len(fields))
    n_columns = math.ceil(len(fields) / n_rows)
    figure = make_subplots(
        rows=n_rows,
        cols=1 + n_columns,
        specs=[[{"rowspan": n_rows} if row == 0 else None, *[{}] * n_columns] for row in range(n_rows)],
        column_widths=[0.38, *[0.62 / n_columns] * n_columns],
        horizontal_spacing=0.16 / (1 + n_columns),
        vertical_spacing=0.24,
    )
    limits = _limits(drawn)
    for points in _progress(drawn, limits[1]):
        figure.add_trace(points, row=1, col=1)
    figure.update_xaxes(title_text="trial", rangemode="tozero", row=1, col=1)
    for index, field in enumerate(fields):
        row, column = index // n_columns + 1, index % n_columns + 2
        values, axis = _as_drawn(drawn[field].tolist())
        for points in _points(drawn, values, field, limits[1]):
            figure.add_trace(points, row=row, col=column)
        figure.update_xaxes(axis, title_text=literal(field), row=row, col=column)
        figure.update_yaxes(showticklabels=column == 2, row=row, col=column)
    figure.update_yaxes(range=limits, nticks=6)
    figure.update_yaxes(title_text="validation loss", row=1, col=1)
    figure.update_layout(legend=LEGEND_ABOVE)
    return styled(figure, _title(table), width, height)


def _fields(table: pd.DataFrame) -> list[str]:
    check_columns("sweep figure", table, ("trial", "state", "validation_loss"))
    columns = [str(name) for name in table]
    fields = table.attrs.get("fields") or columns[columns.index("trial") + 1 : columns.index("state")]
    check_columns("sweep figure", table, fields or ["of a searched setting"])
    return list(fields)


def _title(table: pd.DataFrame) -> str:
    states = table["state"].tolist()
    numbers = [f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed") if state in states]
    return f"Search over {len(table)} trials: {', '.join(numbers)}"


def _limits(drawn: pd.DataFrame) -> list[float]:
    """Limits of the loss axis, chosen so that one trial that diverged does not flatten the others."""
    losses = drawn["validation_loss"].to_numpy(dtype=float)
    lowest, middle = losses.min(), np.median(losses)
    highest = min(losses.max(), middle + FAR_ABOVE * (middle - lowest))
    highest = max(highest, losses[drawn["state"] == "complete"].min())
    margin = 0.06 * (highest - lowest) or 0.06 * abs(highest) or 1.0
    return [float(lowest - margin), float(highest + margin)]


def _as_drawn(values: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Values for the axis of a setting, and the kind of axis: numbers, or categories for everything else."""
    if all(isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in values):
        numbers = [float(value) for value in values]
        wide = min(numbers) > 0 and max(numbers) > 10 * min(numbers)
        if wide:
            dtick = 1 if max(numbers) > 1e3 * min(numbers) else "D2"
            return numbers, {"type": "log", "dtick": dtick, "exponentformat": "power", "minexponent": 0}
        whole = all(number.is_integer() for number in numbers) and max(numbers) - min(numbers) <= 8
        return numbers, {"type": "linear", "dtick": 1} if whole else {"type": "linear", "nticks": 5}
    names = [literal(str(value)) for value in values]
    return names, {"type": "category", "categoryorder": "array", "categoryarray": sorted(set(names))}


def _progress(drawn: pd.DataFrame, highest: float) -> list[Any]:
    """All trials, and the best loss so far."""
    complete = drawn.loc[drawn["state"] == "complete"]
    best = np.minimum.accumulate(complete["validation_loss"].to_numpy(dtype=float))
    step = go.Scatter(
        x=[*complete["trial"].tolist(), max(drawn["trial"].tolist())],
        y=[*best.tolist(), float(best[-1])],
        name="best so far",
        mode="lines",
        line={"color": INK, "width": 1.5, "shape": "hv"},
        hoverinfo="skip",
    )
    return [step, *_points(drawn, drawn["trial"].tolist(), None, highest)]


def _points(drawn: pd.DataFrame, values: Sequence[Any], field: str | None, highest: float) -> list[Any]:
    """Markers of the trials by state, and of the best trial. The legend has those of the panel without a field."""
    losses, states = drawn["validation_loss"].to_numpy(dtype=float), drawn["state"].to_numpy()
    best = int(np.argmin(np.where(states == "complete", losses, np.inf)))
    looks: list[tuple[str, Any, dict[str, Any]]] = [
        ("pruned", states == "pruned", {"symbol": "diamond-open", "size": 8, "color": PRUNED, "line": {"width": 1.5}}),
        ("complete", states == "complete", {"symbol": "circle", "size": 8, "color": COMPLETE,
                                            "line": {"color": PAPER, "width": 1}}),
        ("best", np.arange(len(drawn)) == best, {"symbol": "star", "size": 15, "color": BEST,
                                                 "line": {"color": INK, "width": 1}}),
    ]  # fmt: skip
    markers = []
    for name, chosen, look in looks:
        rows = np.flatnonzero(chosen).tolist()
        if not rows:
            continue
        is_above = losses[rows] > highest
        symbols = np.where(is_above, "triangle-up-open", look["symbol"]).tolist()
        of = "" if field is None else f"<br>{literal(field)} = %{{x}}"
        markers.append(
            go.Scatter(
                x=[values[row] for row in rows],
                y=np.where(is_above, highest, losses[rows]),
                name=name,
                mode="markers",
                marker={**look, "symbol": symbols if is_above.any() else look["symbol"]},
                customdata=np.stack([drawn["trial"].to_numpy()[rows], losses[rows]], axis=1),
                hovertemplate=f"trial %{{customdata[0]}} ({name}){of}<br>loss %{{customdata[1]:.4g}}<extra></extra>",
                legendgroup=name,
                showlegend=field is None,
                cliponaxis=False,
            )
        )
    return markers
