"""The look of every plotly figure: one template, one font, one text colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viz.palette import INK
from viz.text import literal

if TYPE_CHECKING:
    import plotly.graph_objects as go

TEXT_SIZE = 14
"""Pixels. The text stays legible when the picture is shown at half its size."""
TITLE_SIZE = 16
LEGEND_ABOVE = {"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.0, "yanchor": "bottom"}
"""A legend in one row, above the plot on the right."""


def styled(figure: go.Figure, title: str, width: int, height: int) -> go.Figure:
    """Set title, size (pixels) and look of a finished figure. Returns the same figure. The title is plain text."""
    figure.update_layout(
        template="simple_white",
        title={"text": literal(title), "font": {"size": TITLE_SIZE}},
        font={"color": INK, "size": TEXT_SIZE},
        width=width,
        height=height,
        margin={"l": 70, "r": 20, "t": 60, "b": 60},
    )
    figure.update_annotations(font_size=TEXT_SIZE)
    return figure
