"""What explorers show of explanations: arrays in the order of the edges, bars, and places in the periodic table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas
import pytest
from refusals import refused
from synthetic_explanations import synthetic_explanation
from synthetic_traces import perovskite, skewed, synthetic_trace

import viz
from crystalframer.elements import ATOMIC_NUMBERS, SYMBOLS
from crystalframer.order_tests import OrderTest
from crystalframer.traces import CrystalTrace
from viz.encoding import encode
from viz.errors import FigureError, SceneError
from viz.explorer import ChoiceError
from viz.why import header_of, place

TRACE = synthetic_trace(perovskite())
SCENE = viz.scene_from_trace(TRACE)
EXPLANATION = synthetic_explanation()
REMOVED = replace(
    EXPLANATION,
    removal_effect=np.where(np.arange(EXPLANATION.n_edges) % 2, np.nan, 0.25),
    position_gradient=np.arange(15.0).reshape(5, 3),
)
TARGET = EXPLANATION.target
SUBSTITUTIONS = pandas.DataFrame(
    {
        "element": ["Ti", "La", "Xe"],
        "is_original": [True, False, False],
        TARGET: [-3.5, -3.0, np.nan],
        f"{TARGET}_low": [-3.6, -3.4, np.nan],
        f"{TARGET}_high": [-3.4, -2.5, np.nan],
        "outside_training": ["", "far from all training crystals", None],
    }
)


def test_arrays_follow_the_edges_of_the_scene() -> None:
    header, data = encode(SCENE, REMOVED)
    arrays = {
        name: np.frombuffer(data, at["dtype"], int(np.prod(at["shape"])), at["offset"]).reshape(at["shape"])
        for name, at in header["arrays"].items()
    }
    order = np.argsort(SCENE.edge_index[0], kind="stable")
    scale = header["explanation"]["relevanceScale"]
    assert scale == np.abs(REMOVED.edge_relevance).max()
    np.testing.assert_allclose(scale * arrays["relevance"], REMOVED.edge_relevance[..., order], atol=1e-3 * scale)
    np.testing.assert_array_equal(arrays["removal"], REMOVED.removal_effect[order].astype(np.float32))  # type: ignore[index]
    np.testing.assert_allclose(arrays["gradient"], np.arange(15.0).reshape(5, 3))
    np.testing.assert_allclose(arrays["contribution"], REMOVED.site_contributions, rtol=1e-6)
    assert "relevance" not in encode(SCENE)[0]["arrays"]


def test_bars_are_the_tables_of_the_explanation() -> None:
    header = encode(SCENE, EXPLANATION)[0]["explanation"]
    elements, shells = EXPLANATION.by_element(), EXPLANATION.by_shell().query("shell > 0")
    assert [bar["value"] for bar in header["byElement"]] == elements["contribution"].tolist()
    assert header["byElement"][0]["label"] == "O × 3" and header["nShells"] == len(shells)
    strongest = sorted(shells["relevance"].tolist(), key=lambda value: -abs(value))
    assert [bar["value"] for bar in header["byShell"]] == strongest[:14]


def test_units_are_those_of_the_scale_and_of_what_is_predicted() -> None:
    """A refractive index has no unit and is no logit; substitution tells probabilities of a class."""
    known = [
        ("value", "eV", "eV", "", {"name": "x y", "unit": "eV"}),
        ("value", "", "", "", {"name": "x y", "unit": ""}),
        ("log10", "log10 GPa", "log10 GPa", "twice", {"name": "x y", "unit": "log10 GPa"}),
        ("logit", "", "logit", "odds", {"name": "probability of x y", "unit": ""}),
    ]
    for scale, unit, shown, said, predicted in known:
        header = header_of(replace(EXPLANATION, target="x_y", scale=scale, unit=unit))
        assert (header["unit"], header["predicted"]) == (shown, predicted)
        assert said in header["aboutScale"] and bool(header["aboutScale"]) == bool(said)


def test_the_header_says_what_the_test_of_the_order_found() -> None:
    better, worse = (OrderTest("x", "eV", mean, mean - 0.01, mean + 0.01, 9) for mean in (0.02, 0.0))
    for test, is_better in ((None, False), (better, True), (worse, False)):
        header = header_of(replace(EXPLANATION, order_test=test))
        assert header["isOrderBetter"] is is_better and header["aboutOrder"]


def test_the_periodic_table_has_a_place_for_each_element() -> None:
    places = [place(number) for number in range(1, 99)]
    assert len(set(places)) == 98
    known = {"H": (1, 1), "He": (18, 1), "Be": (2, 2), "B": (13, 2), "Zn": (12, 4), "Sr": (2, 5), "Hf": (4, 6)}
    known |= {"Rn": (18, 6), "Ra": (2, 7), "La": (3, 8), "Lu": (17, 8), "Cf": (12, 9)}
    assert {symbol: place(ATOMIC_NUMBERS[symbol]) for symbol in known} == known
    assert SYMBOLS[97] == "Cf"
    cells = encode(SCENE, EXPLANATION, SUBSTITUTIONS)[0]["substitutions"]
    assert [cell["value"] for cell in cells] == [-3.5, -3.0, None]
    assert [cell["flag"] for cell in cells] == ["", "far from all training crystals", ""]
    assert cells[0]["isOriginal"] and (cells[1]["column"], cells[1]["row"]) == (3, 8)
    with refused(FigureError, "element"):
        encode(SCENE, EXPLANATION, SUBSTITUTIONS.drop(columns="element"))


def test_an_explanation_of_another_crystal_is_refused() -> None:
    other = viz.scene_from_trace(synthetic_trace(skewed()))
    moved = replace(EXPLANATION, positions=EXPLANATION.positions + np.arange(15.0).reshape(5, 3))
    part = replace(EXPLANATION, sites=np.array([0]))
    for scene, explanation in ((other, EXPLANATION), (SCENE, moved), (SCENE, part)):
        with refused(SceneError, "whole crystal", field="explanation"):
            viz.explorer_html(scene, explanation=explanation)


def test_something_else_is_no_explanation(as_in_production: None) -> None:
    with refused(SceneError, "not an explanation", field="explanation"):
        viz.AttentionExplorer(TRACE, explanation=TRACE)  # type: ignore[arg-type]


def test_modes_need_what_they_show() -> None:
    wrong = [("relevance", None, "explanation"), ("removal", EXPLANATION, "removals=12"), ("frames", REMOVED, "choose")]
    for mode, explanation, word in wrong:
        with refused(SceneError, word, field="mode"):
            viz.explorer_html(SCENE, mode=mode, explanation=explanation)
        with pytest.raises(ChoiceError):
            viz.AttentionExplorer(TRACE, mode=mode, explanation=explanation)


def test_the_widget_and_its_page_show_the_same(crystal_trace: CrystalTrace = TRACE) -> None:
    explorer = viz.AttentionExplorer(crystal_trace, explanation=REMOVED, substitutions=SUBSTITUTIONS)
    assert explorer.mode == "attention"
    explorer.mode = "removal"
    page = explorer.to_html()
    assert '"mode": "removal"' in page and "far from all training crystals" in page
    plain = viz.AttentionExplorer(crystal_trace).to_html()
    assert len(plain) < len(page) < 2_000_000
