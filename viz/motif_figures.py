"""Plotly figures of attention and frames held against coordination motifs: one site, or one motif over many structures.

Layers and heads stand side by side, as in the figures of `viz.layer_figures`. e₁, e₂ and e₃ have their colours and a
marker each. What chance would give is dashed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from crystalframer.analysis.motifs import Shell, motif_summary, shell_attention
from crystalframer.analysis.polyhedra import polyhedron_name
from crystalframer.traces import CrystalTrace
from viz.palette import AXIS_COLORS, AXIS_LABELS, CELL_COLOR, INK, PAPER, SERIES_COLORS
from viz.style import styled
from viz.text import atom_names, crystal_name, where

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

ANGLE = "angle to the nearest bond (degrees)"
AXIS_MARKERS = (("circle", 7), ("diamond-open", 11), ("square-open", 15))
"""Symbol and size in pixels of e₁, e₂, e₃: all three can be seen where their angles are equal."""
CHANCE = "random frame"
CHANCE_E2 = "e₂ of a frame turned about its e₁"
SHARES = (("shell", SERIES_COLORS[0], ""), ("itself", SERIES_COLORS[1], "/"), ("all others", PAPER, ""))
"""Name, colour and pattern of each part of the attention."""


def motif_angle_figure(
    trace: CrystalTrace, shell: Shell, *, either_sign: bool = False, width: int = 760, height: int = 400
) -> go.Figure:
    """Angle of each axis to the nearest bond of one site, layer by layer and head by head.

    Dashed: the mean over random frames. The short bars: what e₂ would be on average were the frame turned about its e₁
    at random; where e₁ lies on a bond, e₂ comes nearer to one by that alone.

    Args:
        trace: what to measure.
        shell: of one site of it (see `crystalframer.analysis.coordination_shells`).
        either_sign: an axis and its opposite count as one, as in `crystalframer.analysis.bond_angles`.
        width: pixels.
        height: pixels.

    Raises:
        ValueError: the trace has no frames, or the shell no bonds.

    Example:
        >>> from crystalframer.analysis import coordination_shells
        >>> figure = motif_angle_figure(trace, coordination_shells(trace)[1])
        >>> figure.layout.title.text
        'Axes and bonds, Ti1, octahedron (O:6, CSM 0.00), SrTiO3'
        >>> [part.name for part in figure.data]
        ['e₁', 'e₂', 'e₃', 'random frame', 'e₂ of a frame turned about its e₁']
    """
    found = shell_attention(trace, shell, either_sign)
    if found.angles is None:
        raise ValueError(f"{crystal_name(trace)}: no frames (method none), so no axes; trace a model with frames")
    if not len(shell):
        raise ValueError(f"{crystal_name(trace)}: site {shell.site} has no neighbours, so no bonds; choose another")
    assert found.e2_chance is not None  # frames have both
    figure = _angle_figure(found.angles, None, found.chance, found.e2_chance)
    return styled(figure, f"Axes and bonds, {_site_name(trace, shell)}", width, height)


def motif_share_figure(trace: CrystalTrace, shell: Shell, *, width: int = 760, height: int = 320) -> go.Figure:
    """How one site divides its attention in each layer and head: to its shell, to itself, to all others.

    Args:
        trace: what to measure.
        shell: of one site of it (see `crystalframer.analysis.coordination_shells`).
        width: pixels.
        height: pixels.

    Example:
        >>> from crystalframer.analysis import coordination_shells
        >>> figure = motif_share_figure(trace, coordination_shells(trace)[1])
        >>> [part.name for part in figure.data]
        ['shell', 'itself', 'all others']
    """
    import plotly.graph_objects as go

    found = shell_attention(trace, shell)
    parts = (found.share, found.itself, 1.0 - found.share - found.itself)
    labels = _labels(*found.share.shape)
    figure = go.Figure(
        [
            go.Bar(
                x=_places(*found.share.shape),
                y=part.ravel(),
                text=labels,
                textposition="none",
                name=name,
                marker={"color": color, "line": {"color": INK, "width": 1}, "pattern": {"shape": pattern}},
                hovertemplate="%{text}<br>" + name + ": %{y:.1%}<extra></extra>",
            )
            for part, (name, color, pattern) in zip(parts, SHARES, strict=True)
        ]
    )
    figure.update_layout(barmode="stack", legend={**_LEGEND, "traceorder": "normal"})
    figure.update_xaxes(title_text="head", tickangle=0)
    figure.update_yaxes(title_text="share of attention", range=[0.0, 1.0], tickformat=".0%")
    return styled(figure, f"Attention of {_site_name(trace, shell)}", width, height)


def motif_summary_figure(summary: pd.DataFrame, label: str, *, width: int = 760, height: int = 400) -> go.Figure:
    """Angle of each axis to the nearest bond of one motif, mean over many structures, with its standard error.

    Args:
        summary: of `crystalframer.analysis.motif_summary`.
        label: of the motif, such as `O:6`.
        width: pixels.
        height: pixels.

    Raises:
        ValueError: no such motif in the summary; the message names those that there are.

    Example:
        >>> from crystalframer.analysis import motif_summary, motif_table
        >>> figure = motif_summary_figure(motif_summary(motif_table([trace])), "O:6")
        >>> figure.layout.title.text
        'Axes and bonds, octahedron (O:6), 1 structure'
    """
    rows: Any = summary.sort_values(["layer", "head"])
    rows = rows[rows["label"] == label]
    if rows.empty:
        there = ", ".join(sorted(summary["label"].unique())) or "no motif at all"
        raise ValueError(f"no motif {label!r} in the summary; it has {there}")
    if rows["e1_angle"].isna().all():
        raise ValueError(f"motif {label}: no angles (no frames, or no bonds); summarise traces of a model with frames")
    shape = (rows["layer"].nunique(), rows["head"].nunique(), 1)
    angles, errors = (
        np.concatenate([rows[f"e{k}_angle{end}"].to_numpy(np.float64).reshape(shape) for k in (1, 2, 3)], axis=2)
        for end in ("", "_se")
    )
    e2_chance = rows["e2_chance_angle"].to_numpy(np.float64).reshape(shape[:2])
    figure = _angle_figure(angles, errors, float(rows["chance_angle"].mean()), e2_chance)
    n = int(rows["n_structures"].max())
    title = f"Axes and bonds, {polyhedron_name(label)} ({label}), {n} structure{'s' if n > 1 else ''}"
    return styled(figure, title, width, height)


def motif_overview(table: pd.DataFrame) -> pd.DataFrame:
    """Motifs of many structures, the most frequent first: one row for each, its layers and heads averaged.

    Args:
        table: of `crystalframer.analysis.motif_table`.

    Returns:
        `motif`, `polyhedron` in words, `structures`, `sites`, `csm`, `share in shell`, `e₁ to bond` and
        `random frame` (degrees), `e₁ on a bond` (share of frames whose anchor edge is a bond; NaN without anchors).

    Example:
        >>> from crystalframer.analysis import motif_table
        >>> motif_overview(motif_table([trace]))[["motif", "polyhedron", "sites"]]
          motif     polyhedron  sites
        0   L:2           line      3
        1  C:12  cuboctahedron      1
        2   O:6     octahedron      1
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    groups: Any = motif_summary(table).groupby("label")
    for label, of_motif in groups:
        mean = of_motif[["csm", "share", "e1_angle", "chance_angle", "e1_in_shell"]].mean()
        rows.append(
            {
                "motif": label,
                "polyhedron": polyhedron_name(label),
                "structures": int(of_motif["n_structures"].max()),
                # Rows of a label in one layer and head are its sites.
                "sites": int(of_motif["n_sites"].max()),
                "csm": mean["csm"],
                "share in shell": mean["share"],
                "e₁ to bond": mean["e1_angle"],
                CHANCE: mean["chance_angle"],
                "e₁ on a bond": mean["e1_in_shell"],
            }
        )
    rows.sort(key=lambda row: (-row["structures"], -row["sites"], row["motif"]))
    return pd.DataFrame(rows)


_LEGEND = {"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.0, "yanchor": "bottom"}


def _angle_figure(
    angles: Float[np.ndarray, "n_layers n_heads 3"],
    errors: Float[np.ndarray, "n_layers n_heads 3"] | None,
    chance: float,
    e2_chance: Float[np.ndarray, "n_layers n_heads"],
) -> go.Figure:
    import plotly.graph_objects as go

    shape = e2_chance.shape
    places, labels = _places(*shape), _labels(*shape)
    figure = go.Figure()
    for k, (name, color, (symbol, size)) in enumerate(zip(AXIS_LABELS, AXIS_COLORS, AXIS_MARKERS, strict=True)):
        hover = "%{y:.1f}°" if errors is None else "%{y:.1f}° ± %{error_y.array:.1f}°"
        figure.add_scatter(
            x=places,
            y=angles[..., k].ravel(),
            error_y=None if errors is None else {"array": errors[..., k].ravel(), "thickness": 1.5, "width": 3},
            text=labels,
            name=name,
            mode="markers",
            marker={"color": color, "symbol": symbol, "size": size, "line": {"width": 2, "color": color}},
            hovertemplate=f"{name}, %{{text}}<br>{hover}<extra></extra>",
        )
    figure.add_scatter(
        x=places,
        y=np.full(e2_chance.size, chance),
        name=CHANCE,
        mode="lines",
        line={"color": INK, "width": 2, "dash": "dash"},
        hovertemplate=CHANCE + ": %{y:.1f}°<extra></extra>",
    )
    figure.add_scatter(
        x=places,
        y=e2_chance.ravel(),
        name=CHANCE_E2,
        mode="markers",
        marker={"symbol": "line-ew-open", "size": 14, "color": CELL_COLOR, "line": {"width": 2}},
        hovertemplate=CHANCE_E2 + ": %{y:.1f}°<extra></extra>",
    )
    figure.update_layout(legend=_LEGEND)
    figure.update_xaxes(title_text="head", tickangle=0)
    # Axes on the bonds lie at 0; their markers are to be seen whole.
    top = float(np.nanmax([np.nanmax(angles), chance, np.nanmax(e2_chance)]))
    figure.update_yaxes(title_text=ANGLE, range=[-0.05 * top, 1.1 * top], zeroline=True)
    return figure


def _places(n_layers: int, n_heads: int) -> list[list[str]]:
    """Along x: layers, and heads within them."""
    layer, head = np.divmod(np.arange(n_layers * n_heads), n_heads)
    return [[f"layer {n}" for n in layer], [str(n) for n in head]]


def _labels(n_layers: int, n_heads: int) -> list[str]:
    """`layer 0, head 3`, in the order of `_places`."""
    return [where(layer, head) for layer in range(n_layers) for head in range(n_heads)]


def _site_name(trace: CrystalTrace, shell: Shell) -> str:
    """`Ti1, octahedron (O:6, CSM 0.00), SrTiO3`."""
    measure = f", CSM {shell.csm:.2f}" if shell.measures else ""
    return f"{atom_names(trace)[shell.site]}, {shell.name} ({shell.label}{measure}), {crystal_name(trace)}"
