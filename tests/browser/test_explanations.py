"""Explanations in the exported page: modes, colours of atoms, arrows, bars and the periodic table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
import pytest
from browsing import SCREENS, complaints, frames_later, open_page
from synthetic_explanations import synthetic_explanation
from synthetic_traces import perovskite, synthetic_trace

import viz
from crystalframer.notes import PredictionNotes

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

OpenScene = Callable[..., AbstractContextManager["Page"]]
SCENE = viz.scene_from_trace(synthetic_trace(perovskite()))
EXPLANATION = synthetic_explanation()
EXPLANATION = replace(
    EXPLANATION,
    removal_effect=np.where(
        np.arange(EXPLANATION.n_edges) % 3, np.nan, 0.25 * (-1.0) ** np.arange(EXPLANATION.n_edges)
    ),
    position_gradient=np.array([[0, 0, 0], [0, 0, 0.5], [0.2, 0, 0], [0, -0.2, 0], [0, 0, -0.001]]),
)
TARGET = EXPLANATION.target
SUBSTITUTIONS = pandas.DataFrame(
    {
        "element": ["Ti", "La"],
        "is_original": [True, False],
        TARGET: [-3.5, -3.0],
        f"{TARGET}_low": [-3.6, -3.4],
        f"{TARGET}_high": [-3.4, -2.5],
        "outside_training": ["", "far from all training crystals"],
    }
)
EXPLORER = "document.querySelector('.cf-explorer').explorer"


def rods(page: Page) -> list[dict[str, Any]]:
    frames_later(page)
    found: list[dict[str, Any]] = page.evaluate(f"{EXPLORER}.structure().layout().rods")
    return found


def strongest(values: np.ndarray, n: int) -> np.ndarray:
    """Numbers of the strongest edges of atom 1 by size, without the atom itself."""
    mine = np.flatnonzero((EXPLANATION.edge_index[0] == 1) & ~EXPLANATION.is_self & ~np.isnan(values))
    return mine[np.argsort(-np.abs(values[mine]), kind="stable")][:n]


def test_lines_and_table_show_the_strongest_relevance(open_scene: OpenScene) -> None:
    options = {"explanation": EXPLANATION, "mode": "relevance", "n_lines": 5, "layer": 1, "head": 0, "atom": 1}
    with open_scene(SCENE, **options) as page:
        page.locator(".cf-table summary").click()
        frames_later(page)
        cells = page.locator(".cf-table tbody tr td:last-child").all_inner_texts()
        of_head = EXPLANATION.edge_relevance[1, 0]
        np.testing.assert_allclose(
            [float(cell) for cell in cells], of_head[strongest(of_head, 5)], atol=1e-3 * np.abs(of_head).max()
        )
        assert "relevance (eV/atom)" in page.locator(".cf-table thead").inner_text()
        assert not page.locator(".cf-profile").is_visible()
        text = page.locator(".cf-caption").inner_text()
        assert "relevance" in text and "eV/atom" in text and "head 0" in text
        assert EXPLANATION.about_order in text and EXPLANATION.about_order in page.locator(".cf-why").inner_text()
        page.get_by_label("Mean over heads").check()
        frames_later(page)
        cells = page.locator(".cf-table tbody tr td:last-child").all_inner_texts()
        summed = EXPLANATION.edge_relevance[1].sum(0)
        assert abs(float(cells[0]) - summed[strongest(summed, 1)[0]]) < 1e-2 * np.abs(summed).max()
        page.get_by_label("What lines and heatmap show").select_option("removal")
        page.wait_for_function("document.querySelector('.cf-caption').textContent.includes('alone is hidden')")
        cells = page.locator(".cf-table tbody tr td:last-child").all_inner_texts()
        assert {abs(float(cell)) for cell in cells} == {0.25}  # NaN is no line
        assert page.locator(".cf-raising").inner_text() == "hiding it raises the prediction"
        page.get_by_label("What lines and heatmap show").select_option("attention")
        page.wait_for_function("document.querySelector('.cf-caption').textContent.includes('of its attention')")
        assert page.locator(".cf-profile").is_visible()


def test_atoms_have_their_contributions_and_arrows(open_scene: OpenScene) -> None:
    display = {"color": "contribution"}
    with open_scene(SCENE, explanation=EXPLANATION, mode="relevance", atom=1, head=0, display=display) as page:
        words = [text["text"] for text in page.evaluate(f"{EXPLORER}.structure().layout().texts")]
        assert {"Sr −0.40", "Ti −0.90", "O +0.10"} <= set(words)
        assert not [rod for rod in rods(page) if rod["kind"] == "gradient"]
        page.get_by_label("gradient", exact=True).check()
        assert len([rod for rod in rods(page) if rod["kind"] == "gradient"]) == 3  # the others are shorter than a ball
        coloured = page.locator(".cf-structure").screenshot()
        page.get_by_label("What colours the atoms").select_option("element")
        frames_later(page)
        words = [text["text"] for text in page.evaluate(f"{EXPLORER}.structure().layout().texts")]
        assert "Ti −0.90" not in words and page.locator(".cf-structure").screenshot() != coloured
        at = page.evaluate(f"{EXPLORER}.structure().pixelOf(1)")
        page.mouse.move(at["x"], at["y"])
        page.wait_for_function("document.querySelector('.cf-tip').textContent.includes('contribution −0.900 eV/atom')")


def test_contributions_of_one_sign_have_a_scale_that_is_centred_at_0(open_scene: OpenScene) -> None:
    """So that no atom looks as if it lowered the prediction."""
    raising = replace(EXPLANATION, site_contributions=np.abs(EXPLANATION.site_contributions))
    with open_scene(SCENE, explanation=raising, atom=1, head=0, display={"color": "contribution"}) as page:
        assert page.locator(".cf-values").inner_text().split("\n")[0].startswith("atoms: contribution")
        legend = page.locator(".cf-values").inner_text()
        assert "−0.900" in legend and "+0.900" in legend
        words = [text["text"] for text in page.evaluate(f"{EXPLORER}.structure().layout().texts")]
        assert "Ti +0.90" in words


def test_a_click_in_the_periodic_table_tells_value_interval_and_flag(open_scene: OpenScene) -> None:
    with open_scene(SCENE, explanation=EXPLANATION, substitutions=SUBSTITUTIONS) as page:
        assert page.locator(".cf-said").inner_text() == "Ti: −3.50 eV/atom (−3.60 to −3.40)"
        page.get_by_role("button", name="La, -3.00 eV/atom").click()
        said = page.locator(".cf-said").inner_text()
        assert said.startswith("La: −3.00 eV/atom (−3.40 to −2.50)") and "far from all training crystals" in said
        assert page.locator(".cf-why-row").count() == 3 + min(14, len(EXPLANATION.by_shell().query("shell > 0")))


def test_substitutions_of_a_class_are_probabilities(open_scene: OpenScene) -> None:
    metal = replace(EXPLANATION, target=TARGET, scale="logit", unit="")
    with open_scene(SCENE, explanation=metal, substitutions=SUBSTITUTIONS) as page:
        assert page.locator(".cf-said").inner_text() == "Ti: −3.50 (−3.60 to −3.40)"
        said = page.locator(".cf-why").inner_text()
        assert "probability of formation energy per atom" in said
        assert "Contributions by element (logit)" in said and "odds" in said


def test_without_an_explanation_nothing_of_it_is_offered(open_scene: OpenScene) -> None:
    with open_scene(SCENE) as page:
        assert not page.get_by_label("What lines and heatmap show").is_visible()
        assert page.locator(".cf-why").count() == 0 and page.get_by_label("gradient", exact=True).count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_an_explanation_fits_and_axe_finds_nothing(browser: Browser, tmp_path: Path, scheme: Any) -> None:
    path = tmp_path / "page.html"
    viz.explanation_html(replace(EXPLANATION, notes=PredictionNotes(flags={"not relaxed": "why"})), path)
    with open_page(browser) as page:
        page.emulate_media(color_scheme=scheme)
        page.goto(path.as_uri())
        for width, height in SCREENS:
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert complaints(page) == ""
            middles = {
                round(box["x"] + box["width"] / 2)
                for box in (track.bounding_box() for track in page.locator(".track").all())
                if box is not None
            }
            assert len(middles) == 1  # bars of all charts have one zero
