"""Plotly figures: attention as a heatmap and against distance, predictions against labels, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from viz.palette import ATTENTION_COLOR, HEATMAP_SCALE, INK, SERIES_COLORS
from viz.scene import DistanceProfile, Scene, attention_by_distance, attention_matrix

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_HOVER_MATRIX = "query %{y}, key %{x}<br>attention %{z:.3f} (all images together)<extra></extra>"
_HOVER_SHELL = "%{x:.2f} Å: %{customdata} atoms<br>attention %{y:.3f}<extra></extra>"
_HOVER_WITHIN = "within %{x:.2f} Å<br>attention %{y:.3f}<extra></extra>"


def attention_heatmap(scene: Scene, layer: int, head: int | None, *, width: int = 480, height: int = 440) -> go.Figure:
    """Attention from each query atom (row) to each key atom (column), images summed: rows sum to 1.

    Args:
        scene: what to draw.
        layer: counted from 0.
        head: counted from 0; None for the mean over heads.
        width: pixels.
        height: pixels.

    Raises:
        SceneError: no such layer or head.
    """
    import plotly.graph_objects as go

    labels, matrix = list(scene.labels), attention_matrix(scene, layer, head)
    figure = go.Figure(
        go.Heatmap(
            z=matrix,
            x=labels,
            y=labels,
            colorscale=HEATMAP_SCALE,
            zmin=0.0,
            zmax=float(matrix.max()),
            colorbar={"title": {"text": "attention"}, "thickness": 14},
            hovertemplate=_HOVER_MATRIX,
        )
    )
    figure.update_xaxes(title_text="key atom", type="category", constrain="domain")
    figure.update_yaxes(
        title_text="query atom", type="category", autorange="reversed", scaleanchor="x", constrain="domain"
    )
    return _styled(figure, f"Attention, {where(layer, head)}", width, height)


def attention_distance_figure(
    scene: Scene, layer: int, head: int | None, atom: int | None = None, *, width: int = 480, height: int = 360
) -> go.Figure:
    """Attention of one atom (or the mean over atoms) in shells of distance, and its running sum.

    Args:
        scene: what to draw.
        layer: counted from 0.
        head: counted from 0; None for the mean over heads.
        atom: query atom, counted from 0; None for the mean over all.
        width: pixels.
        height: pixels.

    Raises:
        SceneError: no such layer, head or atom.
    """
    import plotly.graph_objects as go

    profile = attention_by_distance(scene, layer, head, atom)
    figure = go.Figure(
        [
            go.Bar(
                x=profile.distance,
                y=profile.attention,
                customdata=_neighbor_counts(profile),
                width=0.12,
                name="shell",
                marker_color=ATTENTION_COLOR,
                hovertemplate=_HOVER_SHELL,
            ),
            go.Scatter(
                x=profile.distance,
                y=profile.cumulative,
                name="within distance",
                mode="lines+markers",
                line={"shape": "hv", "color": INK, "width": 1.5},
                marker={"size": 4},
                hovertemplate=_HOVER_WITHIN,
            ),
        ]
    )
    figure.update_xaxes(title_text="distance (Å)", rangemode="tozero")
    figure.update_yaxes(title_text="attention", range=[0.0, 1.05])
    figure.update_layout(legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.02, "yanchor": "bottom"})
    return _styled(figure, f"{_who(scene, atom)}, {where(layer, head)}", width, height)


def attention_figure(
    scene: Scene, layer: int, head: int | None, atom: int, *, width: int = 480, height: int = 560
) -> go.Figure:
    """The heatmap with the row of `atom` framed, and below it that atom's attention against distance.

    Args:
        scene: what to draw.
        layer: counted from 0.
        head: counted from 0; None for the mean over heads.
        atom: query atom, counted from 0.
        width: pixels.
        height: pixels.

    Raises:
        SceneError: no such layer, head or atom.
    """
    from plotly.subplots import make_subplots

    upper = attention_heatmap(scene, layer, head)
    lower = attention_distance_figure(scene, layer, head, atom)
    figure = make_subplots(rows=2, cols=1, row_heights=[0.62, 0.38], vertical_spacing=0.16)
    figure.add_traces(upper.data, rows=1, cols=1)
    figure.add_traces(lower.data, rows=2, cols=1)
    for row, part in ((1, upper), (2, lower)):
        figure.update_xaxes(part.layout.xaxis.to_plotly_json(), row=row, col=1)
        figure.update_yaxes(part.layout.yaxis.to_plotly_json(), row=row, col=1)
    figure.update_layout(showlegend=False)
    figure.update_traces(colorbar={"y": 1.0, "yanchor": "top", "len": 0.55}, selector={"type": "heatmap"})
    frame = {"x0": -0.5, "x1": scene.n_atoms - 0.5, "y0": atom - 0.5, "y1": atom + 0.5}
    figure.add_shape(
        type="rect",
        fillcolor="rgba(0,0,0,0)",
        opacity=1.0,
        line={"color": ATTENTION_COLOR, "width": 3},
        **frame,
        row=1,
        col=1,
    )
    return _styled(figure, f"{scene.labels[atom]}, {where(layer, head)}", width, height)


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
                text=np.asarray(ids, dtype=str)[known] if len(ids) else None,
                mode="markers",
                marker={
                    "color": SERIES_COLORS[0],
                    "size": 7,
                    "opacity": 0.65,
                    "line": {"color": "white", "width": 0.5},
                },
                hovertemplate="%{text}<br>actual %{x:.3f}<br>predicted %{y:.3f}<extra></extra>",
            ),
        ]
    )
    figure.update_xaxes(title_text=f"actual {label}", range=ends, constrain="domain")
    figure.update_yaxes(title_text=f"predicted {label}", range=ends, scaleanchor="x", constrain="domain")
    figure.update_layout(showlegend=False)
    return _styled(figure, title, width, height)


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
    """
    import plotly.graph_objects as go

    suffix = f"_mae/{target}"
    columns = [name for name in history.columns if name.endswith(suffix)]
    if "epoch" not in history.columns or not columns:
        raise ValueError(
            f"learning curve: history needs a column 'epoch' and columns that end in {suffix!r}; "
            f"it has {list(history.columns)}"
        )
    figure = go.Figure()
    for name, color in zip(columns, SERIES_COLORS, strict=False):
        rows = history[["epoch", name]].dropna()
        figure.add_scatter(
            x=rows["epoch"],
            y=rows[name],
            name=name.removesuffix(suffix).replace("_", " "),
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={"size": 4},
        )
    if baseline is not None:
        epochs = history["epoch"]
        figure.add_scatter(
            x=[epochs.min(), epochs.max()],
            y=[baseline, baseline],
            name="predicting the training mean",
            mode="lines",
            line={"color": INK, "dash": "dash", "width": 1},
        )
    figure.update_layout(legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.0, "yanchor": "bottom"})
    # Plotly would put ticks between the first epochs.
    figure.update_xaxes(title_text="epoch", dtick=1 if len(history) <= 10 else None)
    figure.update_yaxes(title_text=f"MAE ({unit})" if unit else "MAE", type="log")
    return _styled(figure, target, width, height)


def where(layer: int, head: int | None) -> str:
    """`layer 0, head 3`, for titles."""
    return f"layer {layer}, {'mean of all heads' if head is None else f'head {head}'}"


def _who(scene: Scene, atom: int | None) -> str:
    return "Mean over atoms" if atom is None else scene.labels[atom]


def _neighbor_counts(profile: DistanceProfile) -> list[str]:
    return [f"{count:.3g}" for count in profile.n_neighbors]


def _styled(figure: go.Figure, title: str, width: int, height: int) -> go.Figure:
    figure.update_layout(
        template="simple_white",
        title={"text": title, "font": {"size": 15}},
        font={"color": INK},
        width=width,
        height=height,
        margin={"l": 60, "r": 20, "t": 60, "b": 50},
    )
    return figure
