"""Plotly figures of training: predictions against labels, and errors by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from viz.errors import FigureError, check_columns, check_target, target_names
from viz.evaluation_figures import scalar_score, scored_rows
from viz.palette import INK, PAPER, SERIES_COLORS, SERIES_MARKERS
from viz.quantities import axis_html, name_and_unit
from viz.style import LEGEND_ABOVE, log_axis, styled
from viz.text import literal

if TYPE_CHECKING:
    import pandas as pd

    from crystalframer.evaluation import Evaluation


def parity_figure(
    predicted: Float[np.ndarray, " n_predictions"] | Evaluation,
    actual: Float[np.ndarray, " n_labels"] | str,
    *,
    label: str = "",
    ids: Sequence[str] = (),
    baseline: float | None = None,
    width: int = 520,
    height: int = 500,
) -> go.Figure:
    """Predicted against actual values, with the mean absolute error (MAE) in the title.

    The corner of the plot tells the number of crystals n, the root of the mean squared error (RMSE) and the coefficient
    of determination R². Crystals without a label are left out.

    `parity_figure(evaluation, "band_gap")` takes all from an `Evaluation`. `viz.parity_plot` is the same for papers.

    Args:
        predicted: predictions, in the unit of `label`; or an `Evaluation`.
        actual: labels, NaN if a crystal has none; or the name of a target of the evaluation.
        label: name and unit of the target, such as `Target.label`: `formation_energy_per_atom (eV/atom)`.
        ids: names of the crystals, shown when the mouse points at them.
        baseline: MAE if the mean of the training set is always predicted, for comparison.
        width: pixels.
        height: pixels.

    Raises:
        FigureError: predictions, labels and ids differ in number, no crystal has a label, or the evaluation has no such
            target.

    Example:
        >>> figure = parity_figure(np.array([1.1, 2.0]), np.array([1.0, 2.2]), label="band_gap (eV)", baseline=0.6)
        >>> figure.layout.title.text
        'MAE 0.15, predicting the training mean 0.6'
    """
    if isinstance(actual, str):
        evaluation: Any = predicted
        score, rows = scalar_score(evaluation, actual), scored_rows(evaluation, actual)
        baseline = score.baseline_mae if baseline is None else baseline
        label, ids = label or score.target.label, ids or (rows["id"].astype(str) + " " + rows["formula"]).tolist()
        predicted, actual = rows["prediction"].to_numpy(), rows["label"].to_numpy()
    predicted, actual = np.asarray(predicted, dtype=float), np.asarray(actual, dtype=float)
    if predicted.shape != actual.shape or (len(ids) and len(ids) != len(predicted)):
        raise FigureError(
            f"parity figure of {label}: there are {predicted.size} predictions, {actual.size} labels and {len(ids)} "
            "ids; give one of each for every crystal",
            field="ids" if predicted.shape == actual.shape else "actual",
        )
    known = np.isfinite(predicted) & np.isfinite(actual)
    if not known.any():
        raise FigureError(f"parity figure of {label}: no crystal has both a prediction and a label", field="actual")
    error = float(np.abs(predicted - actual)[known].mean())
    low, high = (float(f([predicted[known], actual[known]])) for f in (np.min, np.max))
    pad = 0.04 * (high - low) or 1.0
    ends = [low - pad, high + pad]
    title = f"MAE {error:.3g}" + ("" if baseline is None else f", predicting the training mean {baseline:.3g}")
    figure = go.Figure(
        [
            go.Scatter(x=ends, y=ends, mode="lines", line={"color": INK, "dash": "dash", "width": 1}, hoverinfo="skip"),
            go.Scatter(
                x=actual[known],
                y=predicted[known],
                text=[literal(str(id)) for id in np.asarray(ids, dtype=str)[known]] if len(ids) else None,
                mode="markers",
                marker={
                    "color": SERIES_COLORS[0],
                    "size": 7,
                    "opacity": 0.65,
                    "line": {"color": PAPER, "width": 0.5},
                },
                hovertemplate="%{text}<br>actual %{x:.3f}<br>predicted %{y:.3f}<extra></extra>",
            ),
        ]
    )
    words = axis_html(*name_and_unit(label))
    figure.update_xaxes(title_text=f"actual {words}", range=ends, constrain="domain")
    figure.update_yaxes(title_text=f"predicted {words}", range=ends, scaleanchor="x", constrain="domain")
    figure.update_layout(showlegend=False)
    # Few points lie in this corner: predictions that are far too large for small labels.
    corner = {"xref": "x domain", "yref": "y domain", "x": 0.02, "y": 0.98, "xanchor": "left", "yanchor": "top"}
    text = "<br>".join(_scores(predicted[known], actual[known]))
    figure.add_annotation(text=text, showarrow=False, align="left", **corner)
    return styled(figure, title, width, height)


def _scores(predicted: Float[np.ndarray, " n"], actual: Float[np.ndarray, " n"]) -> list[str]:
    """Number of crystals, RMSE and R², in words. R² needs labels that differ."""
    squared = (predicted - actual) ** 2
    words = [f"n = {len(actual):,}", f"RMSE {float(np.sqrt(squared.mean())):.3g}"]
    spread = float(((actual - actual.mean()) ** 2).sum())
    return [*words, f"R² {1 - float(squared.sum()) / spread:.3f}"] if spread > 0 else words


def learning_curve(
    history: pd.DataFrame,
    target: str,
    *,
    unit: str = "",
    baseline: float | None = None,
    width: int = 640,
    height: int = 380,
) -> go.Figure:
    """Errors of one target by epoch, on a logarithmic scale: all columns `<split>_mae/<target>` of `history`.

    Args:
        history: one row for each epoch, with a column `epoch`; missing values are left out.
        target: name of the target.
        unit: unit of the errors.
        baseline: MAE if the mean of the training set is always predicted, drawn as a dashed line.
        width: pixels.
        height: pixels.

    Raises:
        FigureError: `history` has no column `epoch`, or no errors of this target.

    Example:
        >>> import pandas as pd
        >>> history = pd.DataFrame({"epoch": [1, 2], "validation_mae/band_gap": [0.9, 0.5]})
        >>> learning_curve(history, "band_gap", unit="eV").layout.yaxis.title.text
        'MAE (eV)'
    """
    check_columns("learning curve", history, ["epoch"])
    check_target("learning curve", target, target_names(history))
    suffix = f"_mae/{target}"
    columns = [name for name in history.columns if name.endswith(suffix)]
    figure, of = go.Figure(), literal(unit)
    for name, color, marker in zip(columns, SERIES_COLORS, SERIES_MARKERS, strict=False):
        rows = history[["epoch", name]].dropna()
        figure.add_scatter(
            x=rows["epoch"],
            y=rows[name],
            name=literal(name.removesuffix(suffix).replace("_", " ")),
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={"size": 7, "symbol": marker},
            hovertemplate=f"epoch %{{x}}<br>MAE %{{y:.3g}} {of}".rstrip(),
        )
    if baseline is not None:
        epochs = history["epoch"]
        figure.add_scatter(
            x=[epochs.min(), epochs.max()],
            y=[baseline, baseline],
            name="predicting the training mean",
            mode="lines",
            line={"color": INK, "dash": "dash", "width": 1},
            hovertemplate=f"MAE %{{y:.3g}} {of}".rstrip(),
        )
    figure.update_layout(legend=LEGEND_ABOVE)
    # Plotly itself would put ticks between the first epochs.
    figure.update_xaxes(title_text="epoch", dtick=1 if len(history) <= 10 else None)
    shown = [*history[columns].to_numpy(dtype=float).ravel(), np.nan if baseline is None else baseline]
    figure.update_yaxes(title_text=f"MAE ({of})" if unit else "MAE", **log_axis(shown))
    return styled(figure, target.replace("_", " "), width, height)
