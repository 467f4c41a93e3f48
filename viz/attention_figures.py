"""Plotly figures of attention: heatmaps of one head or of all heads, and attention against distance."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from viz.palette import ATTENTION_COLOR, HEATMAP_SCALE, INK
from viz.scene import Scene, attention_by_distance, attention_matrix
from viz.style import LEGEND_ABOVE, styled
from viz.text import ATTENTION, DISTANCE, where, which_head, whose

GRID_COLUMNS = 4
"""Number of heads in a row of `attention_grid`."""

_HOVER_MATRIX = "query %{y}, key %{x}<br>attention %{z:.3f} (sum over periodic images)<extra></extra>"
_HOVER_SHELL = "shell at %{x:.2f} Å: %{customdata} atoms<br>attention %{y:.3f}<extra></extra>"
_HOVER_WITHIN = "within %{x:.2f} Å<br>total attention %{y:.3f}<extra></extra>"


def attention_heatmap(scene: Scene, layer: int, head: int | None, *, width: int = 480, height: int = 440) -> go.Figure:
    """Heatmap of attention from each query atom (row) to each key atom (column), summed over periodic images.

    Args:
        scene: the crystal with its frames and attention.
        layer: counted from 0.
        head: counted from 0; None for the mean over heads.
        width: pixels.
        height: pixels.

    Raises:
        SceneError: there is no such layer or head.

    Example:
        >>> attention_heatmap(scene, layer=0, head=2).layout.title.text
        'Attention, layer 0, head 2'
    """
    labels, matrix = list(scene.labels[: scene.n_queries]), attention_matrix(scene, layer, head)
    figure = go.Figure(
        go.Heatmap(
            z=matrix,
            x=labels,
            y=labels,
            colorscale=HEATMAP_SCALE,
            zmin=0.0,
            zmax=float(matrix.max()),
            colorbar={"title": {"text": ATTENTION}, "thickness": 14},
            hovertemplate=_HOVER_MATRIX,
        )
    )
    figure.update_xaxes(title_text="key atom", type="category", constrain="domain")
    figure.update_yaxes(
        title_text="query atom", type="category", autorange="reversed", scaleanchor="x", constrain="domain"
    )
    return styled(figure, f"Attention, {where(layer, head)}", width, height)


def attention_grid(scene: Scene, layer: int, *, width: int = 820, height: int | None = None) -> go.Figure:
    """Heatmaps of all heads of one layer side by side, with one colour scale.

    Args:
        scene: the crystal with its frames and attention.
        layer: counted from 0.
        width: pixels.
        height: pixels; the default depends on the number of rows.

    Raises:
        SceneError: there is no such layer.

    Example:
        >>> len(attention_grid(scene, layer=0).data) == scene.n_heads
        True
    """
    matrices = [attention_matrix(scene, layer, head) for head in range(scene.n_heads)]
    labels = list(scene.labels[: scene.n_queries])
    n_columns = min(scene.n_heads, GRID_COLUMNS)
    n_rows = -(-scene.n_heads // n_columns)
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=[which_head(head) for head in range(scene.n_heads)],
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.025,
        vertical_spacing=0.2 / n_rows,
    )
    for head, matrix in enumerate(matrices):
        row, column = divmod(head, n_columns)
        heatmap = go.Heatmap(z=matrix, x=labels, y=labels, coloraxis="coloraxis", hovertemplate=_HOVER_MATRIX)
        figure.add_trace(heatmap, row=row + 1, col=column + 1)
    figure.update_xaxes(type="category", constrain="domain", matches="x")
    figure.update_yaxes(type="category", autorange="reversed", constrain="domain", matches="y")
    for number in range(1, scene.n_heads + 1):
        figure.update_yaxes(scaleanchor=f"x{number}", selector={"anchor": f"x{number}" if number > 1 else "x"})
    figure.update_xaxes(title_text="key atom", row=n_rows)
    figure.update_yaxes(title_text="query atom", col=1)
    figure.update_coloraxes(
        colorscale=HEATMAP_SCALE,
        cmin=0.0,
        cmax=float(max(matrix.max() for matrix in matrices)),
        colorbar={"title": {"text": ATTENTION}, "thickness": 14},
    )
    default = 110 + n_rows * (width - 100) // n_columns
    return styled(figure, f"Attention of all heads, layer {layer}", width, height or default)


def attention_distance_figure(
    scene: Scene, layer: int, head: int | None, atom: int | None = None, *, width: int = 480, height: int = 360
) -> go.Figure:
    """Attention of one atom (or the mean over atoms) in each shell of neighbours, and the total within each distance.

    Args:
        scene: the crystal with its frames and attention.
        layer: counted from 0.
        head: counted from 0; None for the mean over heads.
        atom: query atom, counted from 0; None for the mean over atoms.
        width: pixels.
        height: pixels.

    Raises:
        SceneError: there is no such layer, head or atom.

    Example:
        >>> figure = attention_distance_figure(scene, layer=0, head=None, atom=1)
        >>> [part.name for part in figure.data]
        ['shell', 'within distance']
    """
    profile = attention_by_distance(scene, layer, head, atom)
    figure = go.Figure(
        [
            go.Bar(
                x=profile.distance,
                y=profile.attention,
                customdata=[f"{count:.3g}" for count in profile.n_neighbors],
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
    figure.update_xaxes(title_text=DISTANCE, rangemode="tozero")
    figure.update_yaxes(title_text=ATTENTION, range=[0.0, 1.05])
    figure.update_layout(legend=LEGEND_ABOVE)
    return styled(figure, f"{whose(scene, atom)}, {where(layer, head)}", width, height)


def attention_figure(
    scene: Scene, layer: int, head: int | None, atom: int, *, width: int = 480, height: int = 560
) -> go.Figure:
    """The heatmap with a frame around the row of `atom`, and below it the attention of that atom against distance.

    Args:
        scene: the crystal with its frames and attention.
        layer: counted from 0.
        head: counted from 0; None for the mean over heads.
        atom: query atom, counted from 0.
        width: pixels.
        height: pixels.

    Raises:
        SceneError: there is no such layer, head or atom.

    Example:
        >>> figure = attention_figure(scene, layer=0, head=2, atom=1)
        >>> size = figure.write_html("attention.html", include_plotlyjs=True)  # opens without a network
    """
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
    frame = {"x0": -0.5, "x1": scene.n_queries - 0.5, "y0": atom - 0.5, "y1": atom + 0.5}
    figure.add_shape(
        type="rect",
        fillcolor="rgba(0,0,0,0)",
        opacity=1.0,
        line={"color": ATTENTION_COLOR, "width": 3},
        **frame,
        row=1,
        col=1,
    )
    return styled(figure, f"{scene.labels[atom]}, {where(layer, head)}", width, height)
