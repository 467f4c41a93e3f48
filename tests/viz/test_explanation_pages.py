"""Pages of explanations: the numbers of the record, centred at 0, without a network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from synthetic_explanations import synthetic_explanation

import viz
from crystalframer.order_tests import OrderTest
from viz.palette import LOWERS, RAISES

EXPLANATION = synthetic_explanation()


def bars(page: str, chart: int) -> list[tuple[str, str, float, float, str]]:
    """Label, note, left and right end (in percent), and colour of each bar of a chart."""
    table = ElementTree.fromstring(re.findall(r'<table class="bars">.*?</table>', page)[chart])
    found = []
    for row in table.iter("tr"):
        (bar,) = row.iter("div")
        style = dict(part.split(":") for part in bar.attrib["style"].split(";"))
        left, width = float(style["margin-left"].rstrip("%")), float(style["width"].rstrip("%"))
        label = next(row.iter("th")).text or ""
        found.append((label, row.attrib["title"], left, left + width, style["background"]))
    return found


def test_bars_have_the_size_and_side_of_the_contributions() -> None:
    titanium, strontium, oxygen = bars(viz.explanation_html(EXPLANATION), 0)
    assert [bar[0] for bar in (titanium, strontium, oxygen)] == ["Ti, 1 atom", "Sr, 1 atom", "O, 3 atoms"]
    assert titanium[2:] == (0, 50, LOWERS)  # the largest takes half the width
    assert strontium[2] == pytest.approx(50 - 50 * 0.4 / 0.9, abs=0.1) and strontium[4] == LOWERS
    assert oxygen[2:] == (50, pytest.approx(50 + 50 * 0.3 / 0.9, abs=0.1), RAISES)
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


def test_the_page_says_whether_the_order_of_neighbours_was_tested() -> None:
    tested = replace(EXPLANATION, order_test=OrderTest("gap", "eV", -0.01, -0.03, 0.01, 200))
    assert "Quote no ranking of neighbours" in viz.explanation_html(tested)
    assert "has not been tested" in viz.explanation_html(EXPLANATION)


def test_logarithms_are_said_to_be_logarithms() -> None:
    log = replace(EXPLANATION, scale="log10", unit="log10 GPa")
    page = viz.explanation_html(log)
    assert "Contributions of equivalent atoms (log10 GPa)" in page and "twice as large" in page


def test_what_is_left_out_is_counted() -> None:
    page = viz.explanation_html(EXPLANATION)
    n_pairs, shown = len(EXPLANATION.by_neighbour()), len(bars(page, 2))
    assert shown < n_pairs and f"{n_pairs - shown} smaller ones" in page
