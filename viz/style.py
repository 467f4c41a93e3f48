"""The look of every plotly figure: one template, one font, one text colour."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from viz.palette import INK
from viz.text import literal

if TYPE_CHECKING:
    import plotly.graph_objects as go

TEXT_SIZE = 14
"""Pixels, of all text. It stays legible when the picture is shown at half its size."""
LEGEND_ABOVE = {"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.0, "yanchor": "bottom"}
"""A legend in one row, above the plot on the right."""


def log_axis(values: Iterable[float]) -> dict[str, Any]:
    """Settings of a logarithmic axis for these values: numbers at its ticks, so few that they do not overlap.

    Plotly itself labels ticks between powers of ten with single digits (2, 5), or with more numbers than there is room.
    """
    import numpy as np

    powers = np.log10([value for value in values if np.isfinite(value) and value > 0] or [1.0])
    decades = powers.max() - powers.min()
    steps: tuple[float, ...] = (1, 1.5, 2, 3, 5, 7) if decades < 1.2 else (1, 2, 5) if decades < 3 else (1,)
    if decades < 0.35:
        steps = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9)
    around = range(int(np.floor(powers.min())) - 1, int(np.ceil(powers.max())) + 2)
    return {"type": "log", "tickvals": [step * 10.0**power for power in around for step in steps], "tickformat": "~g"}


def styled(figure: go.Figure, title: str, width: int, height: int) -> go.Figure:
    """Set title, size (pixels) and look of a finished figure. Returns the same figure. The title is plain text."""
    figure.update_layout(
        template="simple_white",
        # At the upper edge, so that a legend above the plot has room below it.
        title={
            "text": literal(title),
            "font": {"size": TEXT_SIZE, "weight": "bold"},
            "y": 1.0,
            "yanchor": "top",
            "pad": {"t": 10},
        },
        font={"color": INK, "size": TEXT_SIZE},
        width=width,
        height=height,
        margin={"l": 70, "r": 20, "t": 60, "b": 60},
    )
    figure.update_annotations(font_size=TEXT_SIZE)
    return figure
