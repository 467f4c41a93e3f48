"""A board of all heads of a model: what each one is worth for its predictions, and what its frames are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from viz.errors import check_columns
from viz.palette import INK, PAPER, RAISES, mix
from viz.style import styled
from viz.text import literal

if TYPE_CHECKING:
    import pandas as pd

PANELS = {"silent": "without the head", "random_frames": "with random frames in the head"}
DARKEST = mix(RAISES, INK, 0.35)
DARK = 0.55
"""Share of the colour scale above which numbers are written in the colour of the paper."""


def head_figure(table: pd.DataFrame, *, width: int = 1180, height: int | None = None) -> go.Figure:
    """How much larger the error of a model is without each head, and with random frames in each head.

    A row for each layer, a column for each head. Darker fields are larger increases, on a scale of square roots. A
    number in brackets is no more than chance: its 95 % interval contains 0. Intervals, and where a head looks, are
    under the pointer.

    Args:
        table: from `crystalframer.head_importance`.
        width: pixels.
        height: pixels; the default depends on the number of layers.

    Raises:
        FigureError: a column is missing.

    Example:
        >>> import crystalframer as cf
        >>> figure = head_figure(cf.head_importance(cf.dataset("demo").select(range(8)), progress=False))
        >>> [note.text for note in figure.layout.annotations[:2]]
        ['without the head', 'with random frames in the head']
    """
    values = [f"{name}{end}" for name in PANELS for end in ("", "_low", "_high")]
    check_columns("board of heads", table, ["layer", "head", "distance", "itself", *values])
    panels = {name: title for name, title in PANELS.items() if not np.isnan(table[name].to_numpy(float)).all()}
    figure = make_subplots(1, len(panels), subplot_titles=list(panels.values()), horizontal_spacing=0.06)
    largest = float(np.nanmax(table[list(panels)].to_numpy(), initial=0.0)) or 1.0
    unit = str(table.attrs.get("unit", ""))
    for number, name in enumerate(panels, start=1):
        figure.add_trace(_board(table, name, largest, unit, number == len(panels)), row=1, col=number)
        figure.add_trace(_numbers(table, name, largest), row=1, col=number)
    n_layers = int(table["layer"].to_numpy().max()) + 1
    figure.update_xaxes(title="head", dtick=1, showline=False, ticks="")
    figure.update_yaxes(dtick=1, autorange="reversed", showline=False, ticks="")
    figure.update_yaxes(title="layer", col=1)
    attrs = table.attrs
    title = f"Increase of the error of {attrs.get('target', 'the model')} ({unit})" if unit else "Increase of the error"
    if "error" in attrs:
        title += f"; {attrs['error']:.3g} with all heads, {attrs['n_crystals']} crystals"
    return styled(figure, title, width, height or 150 + 52 * n_layers)


def _board(table: pd.DataFrame, name: str, largest: float, unit: str, has_bar: bool) -> go.Heatmap:
    ticks = [largest * share for share in (0.0, 0.04, 0.25, 1.0)]
    title = {"text": literal(unit), "side": "right"}  # above, it would lie over a label
    bar = {"tickvals": np.sqrt(ticks), "ticktext": [f"{tick:.2g}" for tick in ticks], "title": title}
    text = [
        f"layer {row['layer']}, head {row['head']}<br>{row[name]:+.4f} ({row[f'{name}_low']:+.4f} to "
        f"{row[f'{name}_high']:+.4f})<br>neighbours at {row['distance']:.2f} Å on average<br>"
        f"{row['itself']:.0%} of the attention stays on the atom"
        for row in table.to_dict("records")
    ]
    return go.Heatmap(
        x=table["head"],
        y=table["layer"],
        z=np.sqrt(table[name].clip(lower=0.0)),
        text=text,
        hovertemplate="%{text}<extra></extra>",
        colorscale=[[0.0, PAPER], [0.5, mix(RAISES, PAPER, 0.35)], [1.0, DARKEST]],
        zmin=0.0,
        zmax=float(np.sqrt(largest)),
        xgap=2,
        ygap=2,
        showscale=has_bar,
        colorbar=bar,
    )


def _numbers(table: pd.DataFrame, name: str, largest: float) -> go.Scatter:
    """The increases in their fields; in brackets where they are no more than chance."""
    texts, colors = [], []
    for row in table.to_dict("records"):
        value, is_chance = float(row[name]), row[f"{name}_low"] <= 0.0 <= row[f"{name}_high"]
        number = _short(value)
        texts.append(f"({number})" if is_chance else number)
        share = np.sqrt(max(value, 0.0) / largest)
        colors.append(PAPER if share > DARK else INK)
    font: dict[str, Any] = {"color": colors, "size": 11}
    places = {"x": table["head"], "y": table["layer"]}
    return go.Scatter(**places, mode="text", text=texts, textfont=font, showlegend=False, hoverinfo="skip")


def _short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1).replace("-", "−")
