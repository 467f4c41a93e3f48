"""Element data and colour arithmetic."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import viz
from viz.palette import ATTENTION_RAMP, LOWERS, PAPER, RAISES, element, mix, ramp


def luminance(color: str) -> float:
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    ("z", "expected"), [(5, True), (13, False), (14, True), (22, False), (50, False), (51, True), (54, True)]
)
def test_nonmetals(z: int, expected: bool) -> None:
    assert element(z).is_nonmetal is expected


def test_mix_and_ramp() -> None:
    assert mix("#000000", "#FF8000", 0.5) == "#804000"
    assert [ramp(ATTENTION_RAMP, x) for x in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [ATTENTION_RAMP[i] for i in (0, 0, 1, 2, 2)]


def test_stronger_attention_is_darker_in_grey() -> None:
    shades = [luminance(ramp(ATTENTION_RAMP, step / 10)) for step in range(11)]
    assert shades == sorted(shades, reverse=True) and shades[0] - shades[-1] > 0.4


def test_both_ends_of_a_signed_scale_stand_out_in_grey() -> None:
    """Sizes are told from the middle of the scale without colours. Which end it is, signs, sides and dashes tell."""
    for end in (RAISES, LOWERS):
        shades = [luminance(mix(PAPER, end, step / 10)) for step in range(11)]
        assert shades == sorted(shades, reverse=True) and shades[0] - shades[-1] > 0.4


def test_no_colour_stands_outside_the_palette() -> None:
    """One place to change them, and one to check them for the colour-blind."""
    folder = Path(viz.__file__).parent
    own = re.compile(r"#[0-9A-Fa-f]{6}\b|rgba?\((?!0,0,0,0)|[\"'](white|black|gr[ae]y|red|green|blue)[\"']")
    found = {
        path.name: own.findall(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.py"))
        if path.name != "palette.py"
    }
    assert {name: colours for name, colours in found.items() if colours} == {}
