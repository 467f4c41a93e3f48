"""Pages of explanations: the numbers of the record, centred at 0, without a network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from synthetic_explanations import synthetic_explanation

import viz
from viz.explanation_pages import BAR_WIDTH, LABEL_WIDTH, LOWERS, RAISES

EXPLANATION = synthetic_explanation()


def bars(page: str, chart: int) -> list[tuple[str, str, float, float, str]]:
    """Label, note, left and right end, and colour of each bar of a chart."""
    drawing = ElementTree.fromstring(re.findall(r"<svg.*?</svg>", page)[chart])
    found = []
    for group in drawing.iter("g"):
        (rect,) = group.iter("rect")
        left, width = float(rect.attrib["x"]), float(rect.attrib["width"])
        label, note = next(group.iter("text")).text or "", next(group.iter("title")).text or ""
        found.append((label, note, left, left + width, rect.attrib["fill"]))
    return found


def test_bars_have_the_size_and_side_of_the_contributions() -> None:
    titanium, strontium, oxygen = bars(viz.explanation_html(EXPLANATION), 0)
    middle = LABEL_WIDTH + BAR_WIDTH / 2
    assert [bar[0] for bar in (titanium, strontium, oxygen)] == ["Ti, 1 atom", "Sr, 1 atom", "O, 3 atoms"]
    assert titanium[2:] == (LABEL_WIDTH, middle, LOWERS)  # the largest takes half the width
    assert strontium[2] == pytest.approx(middle - BAR_WIDTH / 2 * 0.4 / 0.9, abs=0.1) and strontium[4] == LOWERS
    assert oxygen[2:] == (middle, pytest.approx(middle + BAR_WIDTH / 2 * 0.3 / 0.9, abs=0.1), RAISES)
    assert oxygen[1] == "sites 2, 3, 4: +0.1 each"


def test_the_page_asks_no_network_and_escapes_names(tmp_path: Path) -> None:
    strange = replace(EXPLANATION, id="<script>alert(1)</script>", target="a&b")
    page = viz.explanation_html(strange, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    assert "<script" not in page and "http" not in page and "a&amp;b" in page
    assert len(page) < 2_000_000


def test_logits_are_said_to_be_logits() -> None:
    logit = replace(EXPLANATION, scale="logit", unit="")
    assert "logits" in viz.explanation_html(logit) and "logits" not in viz.explanation_html(EXPLANATION)


def test_what_is_left_out_is_counted() -> None:
    page = viz.explanation_html(EXPLANATION)
    n_pairs, shown = len(EXPLANATION.by_neighbour()), len(bars(page, 2))
    assert shown < n_pairs and f"{n_pairs - shown} smaller ones" in page
