"""Plotly figures that compare attention and frames with coordination motifs: for one site, or over many structures.

Layers and heads are side by side, as in `viz.layer_figures`. e₁, e₂ and e₃ differ in colour and marker. The dashed line
is the value for random frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float

from crystalframer.analysis.motifs import Shell, motif_summary, shell_attention
from crystalframer.analysis.polyhedra import polyhedron_name
from crystalframer.errors import suggestion
from crystalframer.traces import CrystalTrace
from viz.errors import FigureError, no_frames
from viz.palette import AXIS_COLORS, AXIS_LABELS, CELL_COLOR, INK, PALENESS, PAPER, SERIES_COLORS
from viz.style import LEGEND_ABOVE, styled
from viz.text import atom_names, by_head, crystal_name

if TYPE_CHECKING:
    import pandas as pd

ANGLE = "angle to the nearest bond (degrees)"
AXIS_MARKERS = (("circle", 7), ("diamond-open", 11), ("square-open", 15))
"""Symbol and size (pixels) of e₁, e₂, e₃, chosen so that all three are visible at equal angles."""
CHANCE = "random frame"
CHANCE_E2 = "random e₂ for this e₁"
SHARES = (("shell", SERIES_COLORS[0], ""), ("itself", SERIES_COLORS[1], "/"), ("all others", PAPER, ""))
"""Name, colour and pattern of each share of the attention."""


def motif_angle_figure(
    trace: CrystalTrace, shell: Shell, *, either_sign: bool = False, width: int = 760, height: int = 400
) -> go.Figure:
    """Angle from each axis to the nearest bond of one site, for all layers and heads.

    The dashed line is the mean over random frames. The short bars are the mean angle of e₂ if the frame is rotated at
    random about its e₁: if e₁ lies on a bond, this alone brings e₂ nearer to another bond. Axes of frames that change
    nothing, because almost no attention leaves the site, are pale.

    Args:
        trace: the trace of a crystal.
        shell: the coordination shell of one site, from `crystalframer.analysis.coordination_shells`.
        either_sign: whether an axis and its opposite count as one, as in `crystalframer.analysis.bond_angles`.
        width: pixels.
        height: pixels.

    Raises:
        FigureError: the trace has no frames, or the shell has no bonds.

    Example:
        >>> from crystalframer.analysis import coordination_shells
        >>> figure = motif_angle_figure(trace, coordination_shells(trace)[1])
        >>> figure.layout.title.text
        'Axes and bonds, Ti1, octahedron (O:6, CSM 0.00), SrTiO3'
        >>> [part.name for part in figure.data]
        ['e₁', 'e₂', 'e₃', 'random frame', 'random e₂ for this e₁']
    """
    found = shell_attention(trace, shell, either_sign)
    if found.angles is None:
        raise no_frames(crystal_name(trace))
    if not len(shell):
        raise FigureError(
            f"{crystal_name(trace)}: site {shell.site} has no neighbours, so there are no bonds; choose another site",
            site=shell.site,
        )
    assert found.e2_chance is not None  # frames have both
    figure = _angle_figure(found.angles, None, found.chance, found.e2_chance, trace.dead_frames[:, :, shell.site])
    return styled(figure, f"Axes and bonds, {_site_name(trace, shell)}", width, height)


def motif_share_figure(trace: CrystalTrace, shell: Shell, *, width: int = 760, height: int = 320) -> go.Figure:
    """Shares of the attention of one site in each layer and head: to its shell, to itself, to all others.

    Args:
        trace: the trace of a crystal.
        shell: the coordination shell of one site, from `crystalframer.analysis.coordination_shells`.
        width: pixels.
        height: pixels.

    Example:
        >>> from crystalframer.analysis import coordination_shells
        >>> figure = motif_share_figure(trace, coordination_shells(trace)[1])
        >>> [part.name for part in figure.data]
        ['shell', 'itself', 'all others']
    """
    found = shell_attention(trace, shell)
    shares = (found.share, found.itself, 1.0 - found.share - found.itself)
    axis, labels = by_head(*found.share.shape)
    figure = go.Figure(
        [
            go.Bar(
                x=axis,
                y=share.ravel(),
                text=labels,
                textposition="none",
                name=name,
                marker={"color": color, "line": {"color": INK, "width": 1}, "pattern": {"shape": pattern}},
                hovertemplate="%{text}<br>" + name + ": %{y:.1%}<extra></extra>",
            )
            for share, (name, color, pattern) in zip(shares, SHARES, strict=True)
        ]
    )
    figure.update_layout(barmode="stack", legend={**LEGEND_ABOVE, "traceorder": "normal"})
    figure.update_xaxes(title_text="head", tickangle=0)
    figure.update_yaxes(title_text="share of attention", range=[0.0, 1.0], tickformat=".0%")
    return styled(figure, f"Attention of {_site_name(trace, shell)}", width, height)


def motif_summary_figure(summary: pd.DataFrame, label: str, *, width: int = 760, height: int = 400) -> go.Figure:
    """Angle from each axis to the nearest bond for one motif: mean and standard error over many structures.

    Args:
        summary: the table from `crystalframer.analysis.motif_summary`.
        label: label of the motif, such as `O:6`.
        width: pixels.
        height: pixels.

    Raises:
        FigureError: the summary has no such motif, or no angles for it. The message names the motifs that it has.

    Example:
        >>> from crystalframer.analysis import motif_summary, motif_table
        >>> figure = motif_summary_figure(motif_summary(motif_table([trace])), "O:6")
        >>> figure.layout.title.text
        'Axes and bonds, octahedron (O:6), 1 structure'
    """
    rows: Any = summary.sort_values(["layer", "head"])
    rows = rows[rows["label"] == label]
    if rows.empty:
        hint = suggestion(label, sorted(summary["label"].unique()))
        raise FigureError(f"the summary has no motif {label!r}{hint}", field="label", value=label)
    if rows["e1_angle"].isna().all():
        raise FigureError(
            f"motif {label}: there are no angles, because the model has no frames or the sites have no bonds",
            field="label",
            value=label,
        )
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
    """Motifs of many structures, most frequent first: one row for each motif, averaged over layers and heads.

    Args:
        table: the table from `crystalframer.analysis.motif_table`.

    Returns:
        Columns `motif`, `polyhedron` (its name), `structures` and `sites` (numbers), `csm`, `share in shell` (of the
        attention), `e₁ to bond` and `random frame` (degrees), `e₁ on a bond` (share of frames whose anchor edge is a
        bond; NaN without anchor edges).

    Example:
        >>> from crystalframer.analysis import motif_table
        >>> motif_overview(motif_table([trace]))[["motif", "polyhedron", "sites"]]
          motif     polyhedron  sites
        0   L:2           line      3
        1  C:12  cuboctahedron      1
        2   O:6     octahedron      1
    """
    groups: Any = motif_summary(table).rename(columns={"label": "motif"}).groupby("motif")
    shown = {"share": "share in shell", "e1_angle": "e₁ to bond", "chance_angle": CHANCE, "e1_in_shell": "e₁ on a bond"}
    overview = groups[["n_structures", "n_sites"]].max().set_axis(["structures", "sites"], axis=1)
    overview = overview.join(groups[["csm", *shown]].mean().rename(columns=shown)).reset_index()
    overview.insert(1, "polyhedron", overview["motif"].map(polyhedron_name))
    return overview.sort_values(["structures", "sites", "motif"], ascending=[False, False, True], ignore_index=True)


def _angle_figure(
    angles: Float[np.ndarray, "n_layers n_heads 3"],
    errors: Float[np.ndarray, "n_layers n_heads 3"] | None,
    chance: float,
    e2_chance: Float[np.ndarray, "n_layers n_heads"],
    dead: Bool[np.ndarray, "n_layers n_heads"] | None = None,
) -> go.Figure:
    opacity = np.ones(e2_chance.size) if dead is None else np.where(dead.ravel(), 1.0 - PALENESS, 1.0)
    axis, labels = by_head(*e2_chance.shape)
    figure = go.Figure()
    for k, (name, color, (symbol, size)) in enumerate(zip(AXIS_LABELS, AXIS_COLORS, AXIS_MARKERS, strict=True)):
        hover = "%{y:.1f}°" if errors is None else "%{y:.1f}° ± %{error_y.array:.1f}°"
        figure.add_scatter(
            x=axis,
            y=angles[..., k].ravel(),
            error_y=None if errors is None else {"array": errors[..., k].ravel(), "thickness": 1.5, "width": 3},
            text=labels,
            name=name,
            mode="markers",
            marker={
                "color": color,
                "symbol": symbol,
                "size": size,
                "line": {"width": 2, "color": color},
                "opacity": opacity,
            },
            hovertemplate=f"{name}, %{{text}}<br>{hover}<extra></extra>",
        )
    figure.add_scatter(
        x=axis,
        y=np.full(e2_chance.size, chance),
        name=CHANCE,
        mode="lines",
        line={"color": INK, "width": 2, "dash": "dash"},
        hovertemplate=CHANCE + ": %{y:.1f}°<extra></extra>",
    )
    figure.add_scatter(
        x=axis,
        y=e2_chance.ravel(),
        name=CHANCE_E2,
        mode="markers",
        marker={"symbol": "line-ew-open", "size": 14, "color": CELL_COLOR, "line": {"width": 2}},
        hovertemplate=CHANCE_E2 + ": %{y:.1f}°<extra></extra>",
    )
    figure.update_layout(legend=LEGEND_ABOVE)
    figure.update_xaxes(title_text="head", tickangle=0)
    # Axes on bonds are at 0; their markers should not be cut.
    top = float(np.nanmax([np.nanmax(angles), chance, np.nanmax(e2_chance)]))
    figure.update_yaxes(title_text=ANGLE, range=[-0.05 * top, 1.1 * top], zeroline=True)
    return figure


def _site_name(trace: CrystalTrace, shell: Shell) -> str:
    """`Ti1, octahedron (O:6, CSM 0.00), SrTiO3`."""
    measure = f", CSM {shell.csm:.2f}" if shell.measures else ""
    return f"{atom_names(trace)[shell.site]}, {shell.name} ({shell.label}{measure}), {crystal_name(trace)}"
