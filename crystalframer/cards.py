"""HTML cards by which objects show themselves in notebooks: tables, bars and histograms.

A card needs no script, no style sheet, no network and no library. Where a reader of notebooks removes styles and
pictures (as GitHub does), its tables still hold all numbers. Text takes the colour of the page around it, so that a
card is legible on light and on dark pages.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

N_BINS = 28
"""Bins of a histogram at most."""
WIDTH, HEIGHT = 280, 46
"""Of a histogram, pixels."""
FILL = "#4a90d9"
"""Of bars: legible on white and on black."""
SHOWN_LETTERS = 160
"""Letters of a text from outside that a card shows."""
_CELL = "vertical-align:top;padding:1px 14px 1px 0"
_LEFT, _RIGHT = f"text-align:left;{_CELL}", f"text-align:right;white-space:nowrap;{_CELL}"
_TABLE = '<table style="margin:3px 0;border-collapse:collapse">'


class Html(str):
    """Text that is HTML already. All other text is escaped."""


def card(title: str, *parts: str, note: str = "") -> str:
    """A card: a title, then tables and other parts.

    >>> card("Two <b>", Html("<p>part</p>"))[-37:]
    '<b>Two &lt;b&gt;</b><p>part</p></div>'
    """
    end = f'<div style="opacity:.75;margin-top:4px">{text(note)}</div>' if note else ""
    inside = "".join(part if isinstance(part, Html) else f"<div>{text(part)}</div>" for part in parts if part)
    style = "font-size:13px;line-height:1.45;max-width:760px;overflow-x:auto"
    return f'<div style="{style}"><b>{text(title)}</b>{inside}{end}</div>'


def page(title: str, *parts: str) -> str:
    """Cards as a whole page, light or dark as the browser is set."""
    blocks = "".join(f'<section style="margin:1.5em 0">{part}</section>' for part in parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        '<meta name="viewport" content="width=device-width"><style>body{font:14px sans-serif;max-width:900px;'
        "margin:2em auto;padding:0 1em}td,th{padding:2px 8px}section>div{max-width:none!important}"
        "@media(max-width:600px){td,th{white-space:normal!important;overflow-wrap:anywhere;padding-right:6px!important}"
        "section div{margin-right:0!important}}</style>"
        f"<title>{text(title)}</title></head><body><h1>{text(title)}</h1>{blocks}</body></html>\n"
    )


def text(words: Any) -> str:
    """Words as HTML. Those from outside are escaped, and cut off where they go on and on."""
    if isinstance(words, Html):
        return words
    words = str(words)
    return html.escape(words if len(words) <= SHOWN_LETTERS else f"{words[: SHOWN_LETTERS - 1]}…")


def facts(rows: Mapping[str, Any]) -> Html:
    """A table of two columns: what it is about, and what there is to say. Rows without content are left out."""
    cells = (
        f'<tr><th style="{_LEFT};font-weight:normal;opacity:.75;white-space:nowrap">{text(name)}</th>'
        f'<td style="{_LEFT}">{text(said)}</td></tr>'
        for name, said in rows.items()
        if said
    )
    return Html(f"{_TABLE}{''.join(cells)}</table>")


def table(columns: Mapping[str, Sequence[Any]], caption: str = "", n_left: int = 1) -> Html:
    """A table.

    Args:
        columns: title → content of each row; numbers as text that is formatted already.
        n_left: number of columns with text, which come first and are aligned to the left; all others to the right.
    """
    align = [_LEFT if number < n_left else _RIGHT for number in range(len(columns))]
    head = "".join(f'<th style="{how}">{text(name)}</th>' for how, name in zip(align, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f'<td style="{how}">{text(cell)}</td>' for how, cell in zip(align, row, strict=True)) + "</tr>"
        for row in zip(*columns.values(), strict=True)
    )
    return Html(f"{_caption(caption)}{_TABLE}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def lines(*said: str) -> Html:
    """Text with a line for each of these."""
    return Html("<div>" + "<br>".join(text(line) for line in said) + "</div>")


def side_by_side(parts: Iterable[str]) -> Html:
    """Parts in a row, where there is room for them."""
    blocks = "".join(
        f'<div style="display:inline-block;margin:0 16px 4px 0;vertical-align:top">{p}</div>' for p in parts
    )
    return Html(blocks)


def histogram(values: Float[np.ndarray, " n"], title: str) -> Html:
    """A histogram as an inline picture, with its ends in words below. Values that are not finite are left out.

    >>> "1 to 3" in histogram(np.array([1.0, 2.0, 3.0, np.nan]), "gap (eV)")
    True
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return Html(f"<div>{text(title)}: no values</div>")
    low, high = float(values.min()), float(values.max())
    ends = f"{number(low)} to {number(high)}" if high > low else number(low)
    words = f'<div style="opacity:.75">{text(title)}: {ends}, median {number(float(np.median(values)))}</div>'
    n_bins = int(np.clip(np.sqrt(len(values)), 4, N_BINS)) if high > low else 1
    counts = np.histogram(values, n_bins, (low, high) if high > low else (low - 0.5, low + 0.5))[0]
    step = WIDTH / n_bins
    bars = "".join(
        f'<rect x="{n * step:.4g}" y="{HEIGHT - height:.4g}" width="{step - 1:.4g}" height="{height:.4g}"/>'
        for n, height in enumerate((counts / counts.max() * HEIGHT).tolist())
        if height > 0
    )
    axis = f'<path d="M0 {HEIGHT}.5H{WIDTH}" stroke="currentColor" stroke-opacity=".5"/>'
    label = f'role="img" aria-label="{html.escape(f"histogram of {title}", quote=True)}"'
    picture = f'<svg width="{WIDTH}" height="{HEIGHT + 1}" {label}><g fill="{FILL}">{bars}</g>{axis}</svg>'
    return Html(f"<div>{picture}{words}</div>")


def bars(names: Sequence[str], values: Sequence[float], said: Sequence[str], caption: str = "") -> Html:
    """A table with a bar in each row. Bars to the left of the middle are values below 0.

    Args:
        said: what stands beside each bar: the value as text.
    """
    largest = max((abs(value) for value in values), default=0.0) or 1.0
    has_both = min(values, default=0.0) < 0
    width, middle = 120, 60 if has_both else 0
    drawn = []
    for value in values:
        length = abs(value) / largest * (width - middle)
        start = middle - length if value < 0 else middle
        line = f'<path d="M{middle} 0V12" stroke="currentColor" stroke-opacity=".5"/>' if has_both else ""
        bar = f'<rect x="{start:.4g}" y="1" width="{length:.4g}" height="10" fill="{FILL}"/>'
        drawn.append(Html(f'<svg width="{width}" height="12" aria-hidden="true">{bar}{line}</svg>'))
    rows = "".join(
        f'<tr><td style="{_LEFT}">{text(name)}</td><td style="{_RIGHT}">{text(words)}</td><td>{bar}</td></tr>'
        for name, words, bar in zip(names, said, drawn, strict=True)
    )
    return Html(f"{_caption(caption)}{_TABLE}<tbody>{rows}</tbody></table>")


def _caption(words: str) -> str:
    """Words above a table. Its own caption would be as narrow as the table."""
    return f'<div style="opacity:.75;margin-top:4px;max-width:340px">{text(words)}</div>' if words else ""


def number(value: float, digits: int = 4) -> str:
    """A number of a few digits, with a true minus sign.

    >>> number(-0.123456)
    '−0.1235'
    """
    if not np.isfinite(value):
        return "–"
    shown = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.{digits}g}"
    return ("0" if shown == "-0" else shown).replace("-", "−")
