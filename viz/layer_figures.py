"""Plotly figures of the measures in `viz.measures`: layer by layer, with a box over the atoms for each head.

No line joins heads of different layers, because heads with the same number in different layers are not related. The
median over all heads and atoms of a layer can be compared between layers. Frames that change nothing, because almost no
attention leaves the atom, are pale points that neither boxes nor medians count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float
from plotly.subplots import make_subplots

from crystalframer.traces import CrystalTrace
from viz import measures
from viz.errors import FigureError
from viz.palette import ASIDE, INK, PAPER, SERIES_COLORS, mix
from viz.style import LEGEND_ABOVE, log_axis, styled
from viz.text import atom_names, by_head, crystal_name

DEAD = "frame without effect"
"""Name of the points of frames that are not counted."""
ALL_POINTS = 60
"""Up to this number of atoms every atom is a point. In larger crystals only outliers are."""


def entropy_figure(trace: CrystalTrace, *, width: int = 760, height: int = 380) -> go.Figure:
    """Effective number of neighbours exp(H) of every atom, by layer and head, on a logarithmic scale.

    H is the entropy of attention. exp(H) is the number of neighbours if attention were equal over them; see
    `effective_neighbors`.

    Args:
        trace: the trace of a crystal.
        width: pixels.
        height: pixels.

    Example:
        >>> entropy_figure(trace).layout.yaxis.title.text
        'effective neighbours exp(H)'
    """
    row = _Row("effective neighbours exp(H)", measures.effective_neighbors(trace), "%{y:.1f} neighbours")
    figure = _by_layer(trace, [row])
    figure.update_yaxes(**log_axis(row.values.ravel()))
    return styled(figure, f"Effective number of neighbours, {crystal_name(trace)}", width, height)


def decay_length_figure(trace: CrystalTrace, *, width: int = 760, height: int = 380) -> go.Figure:
    """Decay length σ of every atom, by layer and head: how quickly attention decreases with distance.

    Args:
        trace: the trace of a crystal.
        width: pixels.
        height: pixels.

    Example:
        >>> decay_length_figure(trace).layout.yaxis.title.text
        'decay length σ (Å)'
    """
    figure = _by_layer(trace, [_Row("decay length σ (Å)", measures.decay_lengths(trace), "σ = %{y:.2f} Å")])
    figure.update_yaxes(rangemode="tozero")
    return styled(figure, f"Decay length of attention, {crystal_name(trace)}", width, height)


def attended_distance_figure(trace: CrystalTrace, *, width: int = 760, height: int | None = None) -> go.Figure:
    """Mean distance that atoms attend to and, for `max` frames, the length of the edges that define e₁ and e₂.

    The dashed line is the nearest-neighbour distance (median over atoms). In layers that attend to distant neighbours
    the boxes lie above it.

    Args:
        trace: the trace of a crystal.
        width: pixels.
        height: pixels; the default depends on the number of rows.

    Example:
        >>> figure = attended_distance_figure(trace)
        >>> [axis.title.text for axis in figure.select_yaxes()]
        ['attended distance (Å)', 'edge of e₁ (Å)', 'edge of e₂ (Å)']
    """
    rows = [_Row("attended distance (Å)", measures.attended_distance(trace), "%{y:.2f} Å")]
    frame = trace.layers[0].frame
    if frame is not None and frame.anchor_edges is not None:
        anchors = measures.anchor_distances(trace)
        rows += [
            _Row(f"edge of {label} (Å)", anchors[..., k], "%{y:.2f} Å", trace.dead_frames)
            for k, label in enumerate(("e₁", "e₂"))
        ]
    figure = _by_layer(trace, rows)
    for row in range(len(rows)):
        nearest = np.full(trace.n_layers, np.median(measures.nearest_distance(trace)))
        figure.add_trace(_level(trace, nearest, "nearest neighbour", "dash", legend=row == 0), row=row + 1, col=1)
    figure.update_yaxes(rangemode="tozero", matches="y")
    default = 380 if len(rows) == 1 else 200 * len(rows) + 120
    return styled(figure, f"Distance of attention, {crystal_name(trace)}", width, height or default)


def axis_turn_figure(trace: CrystalTrace, *, width: int = 760, height: int = 380) -> go.Figure:
    """Angle from e₁ to the nearest e₁ of any head of the previous layer, and its value for random axes (dashed).

    The angle is 0° if a head of the previous layer had the same axis. See `axis_turns` for axes that tie.

    Args:
        trace: the trace of a crystal.
        width: pixels.
        height: pixels.

    Raises:
        FigureError: the trace has no frames, or only one layer.

    Example:
        >>> axis_turn_figure(trace).layout.yaxis.title.text
        'rotation of e₁ (degrees)'
    """
    if trace.n_layers < 2:
        raise FigureError(
            f"{crystal_name(trace)}: angles between layers need two layers, and this model has one",
            field="n_layers",
            value=trace.n_layers,
        )
    turns = _Row("rotation of e₁ (degrees)", measures.axis_turns(trace), "%{y:.1f}°", trace.dead_frames[1:])
    figure = _by_layer(trace, [turns], first_layer=1)
    chance = np.median(measures.chance_turns(trace), axis=1)
    figure.add_trace(_level(trace, chance, "random axes", "dash", first_layer=1), row=1, col=1)
    figure.update_yaxes(rangemode="tozero")
    return styled(figure, f"Rotation of e₁ between layers, {crystal_name(trace)}", width, height)


@dataclass(frozen=True, eq=False)
class _Row:
    title: str
    """Title of the axis, with the unit."""
    values: Float[np.ndarray, "n_shown n_heads n_queries"]
    hover: str
    """Format of a value in the hover text."""
    dead: Bool[np.ndarray, "n_shown n_heads n_queries"] | None = None
    """Frames that are not counted; None for measures that are not of frames."""

    @property
    def counted(self) -> Float[np.ndarray, "n_shown n_heads n_queries"]:
        """The values, NaN where a frame is not counted."""
        return self.values if self.dead is None else np.where(self.dead, np.nan, self.values)


def _by_layer(trace: CrystalTrace, rows: list[_Row], first_layer: int = 0) -> go.Figure:
    """Rows of boxes, with layers and heads along x."""
    figure = make_subplots(rows=len(rows), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    labels = atom_names(trace)
    look: dict[str, Any] = {
        "name": "atoms",
        "boxpoints": "all" if trace.n_queries <= ALL_POINTS else "outliers",
        "pointpos": 0,
        "jitter": 0.5,
        "marker": {"size": 4, "color": SERIES_COLORS[0], "opacity": 0.7},
        "line": {"color": SERIES_COLORS[0], "width": 1},
        "fillcolor": mix(SERIES_COLORS[0], PAPER, 0.75),
    }
    first = next((row for row in rows if row.dead is not None and row.dead.any()), None)
    for number, row in enumerate(rows, start=1):
        axis, heads = by_head(len(row.values), trace.n_heads, first_layer)
        box = go.Box(
            x=[np.repeat(names, trace.n_queries).tolist() for names in axis],
            y=row.counted.ravel(),
            text=[f"{label}, {head}" for head in heads for label in labels],
            hovertemplate="%{text}<br>" + row.hover + "<extra></extra>",
            showlegend=False,
            **look,
        )
        # A layer in which all attention stays on the atoms has no distances.
        medians = np.array([np.nanmedian(v) if np.isfinite(v).any() else np.nan for v in row.counted])
        figure.add_trace(box, row=number, col=1)
        if row.dead is not None and row.dead.any():
            figure.add_trace(_dead_points(row, axis, heads, labels), row=number, col=1)
            figure.update_traces(showlegend=row is first, selector={"name": DEAD}, row=number, col=1)
        figure.add_trace(
            _level(trace, medians, "median of the layer", "solid", first_layer, legend=number == 1), row=number, col=1
        )
        figure.update_yaxes(title_text=row.title, row=number, col=1)
    figure.update_xaxes(title_text="head", tickangle=0, row=len(rows), col=1)
    figure.update_layout(legend=LEGEND_ABOVE)
    return figure


def _dead_points(row: _Row, axis: list[list[str]], heads: list[str], labels: tuple[str, ...]) -> go.Scatter:
    """Pale points of the frames that are not counted."""
    assert row.dead is not None
    place, atom = np.nonzero(row.dead.reshape(len(heads), -1))
    return go.Scatter(
        x=[[names[n] for n in place] for names in axis],
        y=row.values[row.dead],
        text=[f"{labels[a]}, {heads[n]}" for n, a in zip(place, atom, strict=True)],
        name=DEAD,
        legendgroup=DEAD,
        mode="markers",
        marker={"size": 5, "symbol": "circle-open", "color": ASIDE, "opacity": 0.5},
        hovertemplate=f"%{{text}}<br>{row.hover}<br>{DEAD}<extra></extra>",
    )


def _level(
    trace: CrystalTrace,
    values: Float[np.ndarray, " n_shown"],
    name: str,
    dash: str,
    first_layer: int = 0,
    *,
    legend: bool = True,
) -> go.Scatter:
    """A horizontal line across each layer."""
    layers, heads, heights = [], [], []
    for layer, value in enumerate(values, start=first_layer):
        layers += [f"layer {layer}"] * (trace.n_heads + 1)
        heads += [*(str(head) for head in range(trace.n_heads)), str(trace.n_heads - 1)]
        heights += [*[float(value)] * trace.n_heads, None]
    return go.Scatter(
        x=[layers, heads],
        y=heights,
        name=name,
        mode="lines",
        line={"color": INK, "width": 2, "dash": dash},
        hovertemplate=name + ": %{y:.2f}<extra></extra>",
        showlegend=legend,
    )
