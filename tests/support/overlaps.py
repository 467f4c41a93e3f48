"""Texts of a picture that lie over each other: of matplotlib figures, and of pages that a browser has drawn."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from playwright.sync_api import Page

SLACK = 2.0
"""Pixels by which boxes may overlap: letters do not fill the box of a text."""
CORNERS_OF_TEXTS = """() => Array.from(document.querySelectorAll("svg text"))
    .filter((text) => text.textContent.trim() && text.checkVisibility({ opacityProperty: true }))
    .map((text) => {
        const { x, y, width, height } = text.getBBox();
        const matrix = text.getScreenCTM();
        const corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height]];
        const screen = corners.map(([a, b]) => new DOMPoint(a, b).matrixTransform(matrix));
        return { text: text.textContent, corners: screen.map((point) => [point.x, point.y]) };
    })"""


@dataclass(frozen=True)
class Written:
    """A text and the corners of its box, one after another, pixels."""

    text: str
    corners: np.ndarray


def texts_of_figure(figure: Figure) -> list[Written]:
    """The texts that a matplotlib figure draws. A halo, the same text in the same place, counts once."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas, draw, drawn = FigureCanvasAgg(figure), Text.draw, list[Text]()

    def noted(text: Text, *arguments: Any, **options: Any) -> None:
        drawn.append(text)
        draw(text, *arguments, **options)

    with mock.patch.object(Text, "draw", noted):
        canvas.draw()
    found: dict[tuple[str, str], Written] = {}
    for text in drawn:
        if text.get_visible() and text.get_text().strip():
            box = text.get_window_extent(canvas.get_renderer())
            corners = np.array([[box.x0, box.y0], [box.x1, box.y0], [box.x1, box.y1], [box.x0, box.y1]])
            found[text.get_text(), str(corners.round())] = Written(text.get_text(), corners)
    return list(found.values())


def texts_of_page(page: Page) -> list[Written]:
    """The texts in the SVG pictures of a page."""
    return [Written(found["text"], np.array(found["corners"])) for found in page.evaluate(CORNERS_OF_TEXTS)]


def overlaps(texts: list[Written]) -> list[str]:
    """The pairs of texts that lie over each other, each in words."""
    pairs = itertools.combinations(texts, 2)
    return [f"{a.text!r} and {b.text!r} lie over each other" for a, b in pairs if _overlap(a.corners, b.corners)]


def _overlap(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two boxes, which may be turned, overlap by more than the slack: no side of either separates them."""
    for corners in (first, second):
        for side in np.diff(corners[:3], axis=0):
            length = np.linalg.norm(side)
            if length == 0:
                return False
            across = side / length
            a, b = first @ across, second @ across
            if min(a.max(), b.max()) - max(a.min(), b.min()) <= SLACK:
                return False
    return True
