"""A figure that compares frame methods: accuracy, cost and convergence side by side."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from plotly.subplots import make_subplots

from viz.errors import FigureError, check_columns, check_target, target_names
from viz.palette import INK, SERIES_COLORS, SERIES_MARKERS
from viz.style import log_axis, styled
from viz.text import literal

if TYPE_CHECKING:
    import pandas as pd

SERIES_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Dashes of the curves, so that they differ in grey too."""
Look = tuple[str, str, str]
"""Colour, marker and dashes of a method."""
N_MARKERS = 8
"""Largest number of markers on a curve, each with an error bar."""


def ablation_figure(
    table: pd.DataFrame,
    histories: pd.DataFrame | None = None,
    *,
    target: str | None = None,
    width: int = 1180,
    height: int = 440,
) -> go.Figure:
    """Error, time of a training step and learning curve of each frame method.

    Large markers are means over seeds, small markers are single runs, bars are one standard deviation. Methods differ
    in colour, marker and dashes. Runs without a result are left out; the title tells their number.

    Args:
        table: one row for each run, as `AblationResult.table`: columns `frame_method`, `seed`, `test_mae/<target>` (or
            `validation_mae/<target>` if no run has a test error), `ms_per_step`. `table.attrs["units"]` may map targets
            to units.
        histories: the epochs of all runs, as `AblationResult.histories`: columns `frame_method`, `seed`, `epoch` and
            `validation_mae/<target>`. Without histories there is no learning curve.
        target: name of the target; by default the first one of the table.
        width: pixels.
        height: pixels.

    Raises:
        FigureError: a column is missing, there is no such target, or no run has a result.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"frame_method": ["max", "max", "none"], "seed": [0, 1, 0]})
        >>> table["test_mae/gap"], table["ms_per_step"] = [0.20, 0.22, 0.30], [21.0, 20.0, 12.0]
        >>> table.attrs["units"] = {"gap": "eV"}
        >>> figure = ablation_figure(table)
        >>> figure.layout.xaxis.title.text, figure.layout.xaxis2.title.text
        ('test MAE (eV)', 'time of a training step (ms)')
    """
    target = _target(table, target)
    error_column = _error_column(table, target)
    done = table.dropna(subset=[error_column])
    check_columns("ablation figure", done, ("frame_method", "seed", "ms_per_step"))
    if histories is not None:
        check_columns("learning curve", histories, ("frame_method", "epoch", f"validation_mae/{target}"))
    unit = literal(table.attrs.get("units", {}).get(target, ""))
    methods = list(dict.fromkeys(done["frame_method"]))
    panels = ("Accuracy", "Cost", "Convergence")[: 2 if histories is None else 3]
    figure = make_subplots(
        rows=1,
        cols=len(panels),
        subplot_titles=panels,
        column_widths=[0.27, 0.27, 0.46][: len(panels)],
        horizontal_spacing=0.08,
    )
    looks = zip(cycle(SERIES_COLORS), cycle(SERIES_MARKERS), cycle(SERIES_DASHES), strict=False)
    for method, look in zip(methods, looks, strict=False):
        runs = done.loc[done["frame_method"] == method]
        for column, (name, hover) in enumerate(((error_column, unit), ("ms_per_step", "ms")), start=1):
            for markers in _mean_and_runs(literal(method), look, runs["seed"], _numbers(runs, name), hover):
                figure.add_trace(markers, row=1, col=column)
        if histories is not None:
            epochs = histories.loc[histories["frame_method"] == method]
            errors = _numbers(epochs, f"validation_mae/{target}")
            curve = _learning_curve(literal(method), look, epochs["epoch"].to_numpy(), errors, unit)
            figure.add_trace(curve, row=1, col=3)
    of = f" ({unit})" if unit else ""
    which = error_column.partition("_")[0]
    figure.update_xaxes(title_text=f"{which} MAE{of}", nticks=5, row=1, col=1)
    figure.update_xaxes(title_text="time of a training step (ms)", rangemode="tozero", row=1, col=2)
    for column in (1, 2):
        figure.update_yaxes(
            categoryorder="array", categoryarray=[literal(method) for method in methods[::-1]], row=1, col=column
        )
    figure.update_yaxes(title_text="frames", row=1, col=1)
    figure.update_yaxes(showticklabels=False, row=1, col=2)
    if histories is not None:
        figure.update_xaxes(title_text="epoch", row=1, col=3)
        shown = _numbers(histories, f"validation_mae/{target}")
        figure.update_yaxes(title_text=f"validation MAE{of}", row=1, col=3, **log_axis(shown))
    figure.update_layout(legend={"itemsizing": "constant", "title": {"text": "frames"}})
    return styled(figure, _title(table, done, target), width, height)


def _target(table: pd.DataFrame, target: str | None) -> str:
    known = target_names(table)
    if not known:
        check_columns("ablation figure", table, ["test_mae/<target>"])
    target = known[0] if target is None else target
    check_target("ablation figure", target, known)
    return target


def _error_column(table: pd.DataFrame, target: str) -> str:
    for name in (f"test_mae/{target}", f"validation_mae/{target}"):
        if name in table and not np.isnan(_numbers(table, name)).all():
            return name
    raise FigureError(
        f"ablation figure: no run has a result for {target}; the column 'error' of the table says why",
        field="target",
        value=target,
    )


def _title(table: pd.DataFrame, done: pd.DataFrame, target: str) -> str:
    n_seeds = len(set(done["seed"]))
    over = f"mean ± standard deviation over {n_seeds} seeds" if n_seeds > 1 else "one seed"
    n_lost = len(table) - len(done)
    return f"Frame methods on {target}: {over}" + (f"; {n_lost} of {len(table)} runs have no result" if n_lost else "")


def _numbers(frame: pd.DataFrame, name: str) -> Float[np.ndarray, " n_rows"]:
    return frame[name].to_numpy(dtype=float)


def _mean_and_runs(
    method: str, series: Look, seeds: pd.Series, numbers: Float[np.ndarray, " n_runs"], unit: str
) -> list[Any]:
    """A small marker for every seed, and a large one for the mean, with its error bar."""
    mean = numbers.mean()
    deviation = numbers.std(ddof=1) if len(numbers) > 1 else 0.0
    spread = f" ± {deviation:.2g}" if len(numbers) > 1 else ""
    look = {"color": series[0], "symbol": series[1]}
    of_method: dict[str, Any] = {"mode": "markers", "legendgroup": method, "showlegend": False}
    runs = go.Scatter(
        x=numbers,
        y=[method] * len(numbers),
        marker={**look, "size": 5, "opacity": 0.6},
        customdata=seeds,
        hovertemplate=f"{method}, seed %{{customdata}}<br>%{{x:.4g}} {unit}<extra></extra>",
        **of_method,
    )
    average = go.Scatter(
        x=[mean],
        y=[method],
        marker={**look, "size": 11, "line": {"color": INK, "width": 1}},
        error_x={"type": "data", "array": [deviation], "color": INK, "thickness": 1.5, "width": 6},
        hovertemplate=f"{method}<br>{mean:.4g}{spread} {unit}<extra></extra>",
        **of_method,
    )
    return [runs, average]


def _learning_curve(
    method: str, look: Look, epochs: Int[np.ndarray, " n_rows"], errors: Float[np.ndarray, " n_rows"], unit: str
) -> Any:
    """Mean over seeds for each epoch. Few markers and bars, so that they do not hide the curve."""
    by_epoch = {int(epoch): errors[epochs == epoch] for epoch in np.unique(epochs)}
    deviations = [of_seeds.std(ddof=1) if len(of_seeds) > 1 else 0.0 for of_seeds in by_epoch.values()]
    n_epochs = len(by_epoch)
    marked = np.zeros(n_epochs, dtype=bool)
    marked[np.linspace(0, n_epochs - 1, min(N_MARKERS, n_epochs)).round().astype(int)] = True
    color, marker, dash = look
    return go.Scatter(
        x=list(by_epoch),
        y=[of_seeds.mean() for of_seeds in by_epoch.values()],
        name=method,
        mode="lines+markers",
        line={"color": color, "width": 2, "dash": dash},
        marker={"symbol": marker, "size": np.where(marked, 9, 0), "color": color, "opacity": 1.0},
        error_y={
            "type": "data",
            "array": np.where(marked, deviations, np.nan),
            "color": color,
            "thickness": 1.2,
            "width": 3,
        },
        hovertemplate=f"{method}, epoch %{{x}}<br>%{{y:.4g}} {unit}<extra></extra>",
        legendgroup=method,
    )
