"""The board of heads: each increase in its field, and in brackets what is no more than chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
from refusals import refused

import viz
from viz.errors import FigureError


@pytest.fixture
def table() -> pandas.DataFrame:
    layers, heads = np.indices((2, 3)).reshape(2, -1)
    table = pandas.DataFrame({"layer": layers, "head": heads, "distance": 2.5, "itself": 0.25})
    for name, size in (("silent", 0.01), ("random_frames", 0.001)):
        table[name] = size * np.array([40, 1, 2, 3, -1, 5.0])
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 1.5 * size, table[name] + 1.5 * size
    table.attrs |= {"target": "energy", "unit": "eV/atom", "error": 0.0421, "n_crystals": 60}
    return table


def test_each_field_has_its_number(table: pandas.DataFrame) -> None:
    figure: Any = viz.head_figure(table)
    boards = [part for part in figure.data if part.type == "heatmap"]
    numbers = [part for part in figure.data if part.type == "scatter"]
    assert len(boards) == len(numbers) == 2
    assert list(numbers[0].text) == [".400", "(.010)", ".020", ".030", "(−.010)", ".050"]
    assert list(zip(numbers[0].x, numbers[0].y, strict=True))[4] == (1, 1)
    np.testing.assert_allclose(np.square(boards[0].z), [0.4, 0.01, 0.02, 0.03, 0.0, 0.05])
    assert "+0.4000 (+0.3850 to +0.4150)" in boards[0].text[0] and "25%" in boards[0].text[0]
    assert boards[0].zmax == boards[1].zmax  # one scale for both
    assert numbers[0].textfont.color[0] != numbers[0].textfont.color[1]  # light on dark
    assert all(part in figure.layout.title.text for part in ("energy", "eV/atom", "0.0421", "60 crystals"))


def test_without_frames_there_is_one_board(table: pandas.DataFrame) -> None:
    names = ["random_frames", "random_frames_low", "random_frames_high"]
    figure: Any = viz.head_figure(table.assign(**dict.fromkeys(names, np.nan)))
    assert [part.type for part in figure.data] == ["heatmap", "scatter"]


def test_a_table_of_something_else_is_refused(table: pandas.DataFrame) -> None:
    with refused(FigureError, "silent"):
        viz.head_figure(table.drop(columns="silent"))
