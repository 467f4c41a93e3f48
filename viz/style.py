"""How every plotly figure looks: one template, one font, one ink."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viz.palette import INK

if TYPE_CHECKING:
    import plotly.graph_objects as go

TITLE_SIZE = 15
"""Pixels."""
PART_TITLE_SIZE = 13
"""Of one picture among several, pixels."""


def styled(figure: go.Figure, title: str, width: int, height: int) -> go.Figure:
    """Give a finished figure its title, size (pixels) and look; returns the same figure."""
    figure.update_layout(
        template="simple_white",
        title={"text": title, "font": {"size": TITLE_SIZE}},
        font={"color": INK},
        width=width,
        height=height,
        margin={"l": 60, "r": 20, "t": 60, "b": 50},
    )
    figure.update_annotations(font_size=PART_TITLE_SIZE)
    return figure
