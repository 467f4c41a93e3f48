"""Plotly figures of training: predictions against labels, errors by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from viz.palette import INK, PAPER, SERIES_COLORS, SERIES_MARKERS
from viz.style import styled
from viz.text import literal

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def parity_figure(
    predicted: Float[np.ndarray, " n_predictions"],
    actual: Float[np.ndarray, " n_labels"],
    *,
    label: str,
    ids: Sequence[str] = (),
    baseline: float | None = None,
    width: int = 520,
    height: int = 500,
) -> go.Figure:
    """Predicted against actual values, with the mean absolute error in the title; unlabelled crystals are left out.

    Args:
        predicted: predictions, in the unit of `label`.
        actual: labels, NaN where missing.
        label: target and unit, `Target.label`: `formation_energy_per_atom (eV/atom)`.
        ids: names of the crystals, shown on pointing at them.
        baseline: MAE of predicting the training mean, for comparison.
        width: pixels.
        height: pixels.

    Raises:
        ValueError: predictions, labels and ids differ in number, or no label is there.

    Example:
        >>> figure = parity_figure(np.array([1.1, 2.0]), np.array([1.0, 2.2]), label="band_gap (eV)", baseline=0.6)
        >>> figure.layout.title.text
        'MAE 0.15, predicting the training mean 0.6'
    """
    import plotly.graph_objects as go

    predicted, actual = np.asarray(predicted, dtype=float), np.asarray(actual, dtype=float)
    if predicted.shape != actual.shape or (len(ids) and len(ids) != len(predicted)):
        raise ValueError(
            f"parity of {label}: {predicted.size} predictions, {actual.size} labels and {len(ids)} ids; "
            "give one of each per crystal"
        )
    known = np.isfinite(predicted) & np.isfinite(actual)
    if not known.any():
        raise ValueError(f"parity of {label}: no crystal has both a prediction and a label")
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
    figure.update_xaxes(title_text=f"actual {literal(label)}", range=ends, constrain="domain")
    figure.update_yaxes(title_text=f"predicted {literal(label)}", range=ends, scaleanchor="x", constrain="domain")
    figure.update_layout(showlegend=False)
    return styled(figure, title, width, height)


def learning_curve(
    history: pd.DataFrame,
    target: str,
    *,
    unit: str = "",
    baseline: float | None = None,
    width: int = 640,
    height: int = 380,
) -> go.Figure:
    """Errors of one target epoch by epoch, on a logarithmic scale: every column `<part>_mae/<target>` of `history`.

    Args:
        history: one row per epoch, with a column `epoch`; missing values are skipped.
        target: name of the label.
        unit: of the errors.
        baseline: MAE of predicting the training mean, as a dashed line.
        width: pixels.
        height: pixels.

    Raises:
        ValueError: `history` has no column `epoch`, or no error of this target.

    Example:
        >>> import pandas as pd
        >>> history = pd.DataFrame({"epoch": [1, 2], "validation_mae/band_gap": [0.9, 0.5]})
        >>> learning_curve(history, "band_gap", unit="eV").layout.yaxis.title.text
        'MAE (eV)'
    """
    import plotly.graph_objects as go

    suffix = f"_mae/{target}"
    columns = [name for name in history.columns if name.endswith(suffix)]
    if "epoch" not in history.columns or not columns:
        raise ValueError(
            f"learning curve: history needs a column 'epoch' and columns that end in {suffix!r}; "
            f"it has {list(history.columns)}"
        )
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
    figure.update_layout(legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.0, "yanchor": "bottom"})
    # Plotly would put ticks between the first epochs.
    figure.update_xaxes(title_text="epoch", dtick=1 if len(history) <= 10 else None)
    figure.update_yaxes(title_text=f"MAE ({of})" if unit else "MAE", type="log")
    return styled(figure, target, width, height)
