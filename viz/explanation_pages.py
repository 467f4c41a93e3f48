"""An explanation as one HTML page with bars and tables. It opens from disk without Python and without a network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crystalframer.explanations import Explanation
from viz.pages import written
from viz.palette import ASIDE, INK, LOWERS, NIGHT, NIGHT_INK, PAPER, RAISES, mix

N_BARS = 24
"""Bars of a chart at most, the largest first."""
_STYLE = f"""
body {{ font: 15px/1.4 system-ui, sans-serif; color: {INK}; background: {PAPER}; margin: 0; }}
main {{ max-width: 700px; margin: 0 auto; padding: 1em; overflow-wrap: anywhere; }}
h1 {{ font-size: 20px; }}
h2 {{ font-size: 16px; margin: 1.6em 0 0.4em; }}
table {{ border-collapse: collapse; font-size: 14px; }}
td {{ white-space: nowrap; }}
th, td {{ padding: 3px 6px; text-align: right; font-weight: normal; font-variant-numeric: tabular-nums; }}
.bars {{ width: 100%; table-layout: fixed; }}
.bars th {{ width: 34%; }}
.bars td:last-child {{ width: 5.5em; }}
.track {{ padding: 3px 0; background: linear-gradient({ASIDE}, {ASIDE}) center / 1px 100% no-repeat; }}
.track div {{ height: 16px; }}
.heads {{ width: 100%; table-layout: fixed; }}
.heads td {{ color: {INK}; }}
@media (max-width: 500px) {{ .heads th, .heads td {{ padding: 3px 1px; font-size: 11px; }} }}
@media (prefers-color-scheme: dark) {{ body {{ color: {NIGHT_INK}; background: {NIGHT}; }} }}
"""


class _Bar(NamedTuple):
    label: str
    value: float
    note: str
    """Shown under the pointer."""


def explanation_html(explanation: Explanation, path: str | Path | None = None) -> str:
    """The explanation as one HTML page: contributions of atoms, relevance of shells and pairs, and of layers and heads.

    Bars to the right raise the prediction, bars to the left lower it; both scales are centred at 0. Numbers stand
    beside the bars, and details appear under the pointer.

    Args:
        explanation: from `crystalframer.explain(structure)` or `Explanation.load(path)`.
        path: where to write the page, too.

    Example:
        >>> page = explanation_html(explanation, "SrTiO3.html")
        >>> len(page) < 100_000
        True
    """
    unit = explanation.shown_unit
    name = html.escape(f"{explanation.target.replace('_', ' ')} of {explanation.id or 'the crystal'}")
    predicted = explanation.notes.predicted(explanation.target, explanation.prediction, unit)
    interval = f" ({html.escape(predicted.about)} {html.escape(predicted.interval)})" if predicted.interval else ""
    parts = [
        f"<h1>{name}</h1>",
        f"<p>Prediction <b>{html.escape(predicted.value)} {html.escape(unit)}</b>{interval}"
        f" = base {_number(explanation.base)} + contributions of the atoms"
        f" {_signed(explanation.prediction - explanation.base)}. {html.escape(explanation.about_scale)}</p>",
        *(f"<p><b>{html.escape(title)}</b>: {html.escape(why)}</p>" for title, why in explanation.notes.flags.items()),
        _chart("Contributions of equivalent atoms", _contributions(explanation), unit),
        "<p>Their sum and the base give the prediction. The base is the prediction for the mean reference crystal.</p>",
        _chart("Relevance of shells of neighbours", _shells(explanation), unit),
        "<p>To first order, this part of the prediction is lost if the atoms of this element lose this shell. "
        f"{html.escape(explanation.about_order)}</p>",
        _chart("Relevance of pairs of atoms", _pairs(explanation), unit),
        _heads(explanation, unit),
        f"<p>{html.escape(explanation.notes.origin)}</p>" if explanation.notes.origin else "",
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )
    return written(page, path)


def _contributions(explanation: Explanation) -> list[_Bar]:
    table = explanation.by_site_group()
    return [
        _Bar(
            f"{row['element']}, {row['n_sites']} atom{'s' if row['n_sites'] > 1 else ''}",
            row["contribution"],
            f"sites {', '.join(map(str, row['sites'][:12]))}: {_signed(row['contribution_per_site'])} each",
        )
        for row in table.to_dict("records")
    ]


def _shells(explanation: Explanation) -> list[_Bar]:
    table = explanation.by_shell()
    return [
        _Bar(
            f"{row['element']} – {row['neighbour_element']}, {row['distance']:.2f} Å",
            row["relevance"],
            f"shell {row['shell']}, {row['n_edges']} edges",
        )
        for row in table.to_dict("records")
        if row["shell"] > 0
    ]


def _pairs(explanation: Explanation) -> list[_Bar]:
    return [
        _Bar(
            f"{row['element']} {row['site']} sees {row['neighbour_element']} {row['neighbour']}",
            row["relevance"],
            f"{row['n_images']} images, the nearest at {row['distance']:.2f} Å",
        )
        for row in explanation.by_neighbour().to_dict("records")
    ]


def _chart(title: str, bars: Sequence[_Bar], unit: str) -> str:
    """Horizontal bars on a scale that is centred at 0, the largest first."""
    shown = sorted(bars, key=lambda bar: -abs(bar.value))[:N_BARS]
    largest = max((abs(bar.value) for bar in shown), default=0.0) or 1.0
    rows = []
    for bar in shown:
        length = 50 * abs(bar.value) / largest
        left, color = (50, RAISES) if bar.value > 0 else (50 - length, LOWERS)
        rows.append(
            f'<tr title="{html.escape(bar.note)}"><th scope="row">{html.escape(bar.label)}</th>'
            f'<td class="track"><div style="margin-left:{left:.2f}%;width:{length:.2f}%;background:{color}"></div></td>'
            f"<td>{_signed(bar.value)}</td></tr>"
        )
    left_out = f"<p>{len(bars) - len(shown)} smaller ones are not shown.</p>" if len(bars) > len(shown) else ""
    heading = html.escape(f"{title} ({unit})" if unit else title)
    return f'<h2>{heading}</h2><table class="bars">{"".join(rows)}</table>{left_out}'


def _heads(explanation: Explanation, unit: str) -> str:
    """Size of the relevance in each layer and head, as a table."""
    sizes = np.abs(explanation.edge_relevance).sum(axis=2)
    largest = float(sizes.max()) or 1.0
    heading = "".join(f'<th scope="col">head {head}</th>' for head in range(explanation.n_heads))
    rows = [
        f'<tr><th scope="row">layer {layer}</th>{"".join(_cell(float(size), largest) for size in of_layer)}</tr>'
        for layer, of_layer in enumerate(sizes)
    ]
    title = html.escape(f"Size of the relevance by layer and head ({unit})" if unit else "Size of the relevance")
    return f'<h2>{title}</h2><table class="heads"><tr><td></td>{heading}</tr>{"".join(rows)}</table>'


def _cell(size: float, largest: float) -> str:
    return f'<td style="background:{mix(PAPER, RAISES, 0.6 * size / largest)}">{size:.2g}</td>'


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")
