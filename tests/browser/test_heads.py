"""The board of all layers and heads, the pinned view, colours and scales, and another crystal in the same explorer."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from browsing import chosen, frames_later
from PIL import Image
from synthetic_traces import perovskite, synthetic_trace

import viz
from crystalframer.notes import PredictionNotes
from crystalframer.testing import random_crystal

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenScene = Callable[..., AbstractContextManager["Page"]]
SCENE = viz.scene_from_trace(synthetic_trace(perovskite()))
EXPLORER = "document.querySelector('.cf-explorer').explorer"
BOARD = "All layers and heads"


def drawn_board(page: Page) -> Page:
    page.locator(".cf-board").scroll_into_view_if_needed()
    page.wait_for_function(f"{EXPLORER}.board.isDrawn")
    return page


def sketches(page: Page) -> list[bytes]:
    """What is drawn in each cell, without the mark of the chosen one."""
    drawn_board(page)
    return page.evaluate("[...document.querySelectorAll('.cf-board canvas')].map((canvas) => canvas.toDataURL())")


# --- the board --------------------------------------------------------------------------------------------------------


def test_the_board_has_a_sketch_for_each_head_and_a_click_chooses_it(open_scene: OpenScene) -> None:
    with open_scene(SCENE, layer=0, head=1, atom=1) as page:
        pictures = sketches(page)
        assert len(pictures) == SCENE.n_layers * SCENE.n_heads and len(set(pictures)) == len(pictures)
        cells = page.get_by_role("radiogroup", name=BOARD).get_by_role("radio")
        cells.nth(2 * SCENE.n_heads + 3).click()
        frames_later(page)
        assert chosen(page, EXPLORER) == {"layer": 2, "head": 3, "atom": 1}
        checked = [cell.get_attribute("aria-checked") for cell in cells.all()]
        assert checked.count("true") == 1 and checked[2 * SCENE.n_heads + 3] == "true"


def test_the_numbers_of_the_board_are_those_of_the_attention(open_scene: OpenScene) -> None:
    with open_scene(SCENE, atom=1) as page:
        drawn_board(page)
        names = [cell.get_attribute("aria-label") or "" for cell in page.locator(".cf-board button").all()]
        for layer, head in np.ndindex(SCENE.n_layers, SCENE.n_heads):
            profile = viz.attention_by_distance(SCENE, layer, head, 1)
            away = profile.attention[1:]
            distance = float((away * profile.distance[1:]).sum() / away.sum())
            text = names[layer * SCENE.n_heads + head]
            assert text.startswith(f"Layer {layer}, head {head}: neighbours at {distance:.2f} Å")
            assert f"{100 * profile.attention[0]:.0f}% of the attention stays" in text


def test_a_step_redraws_no_sketch_and_another_atom_all(open_scene: OpenScene) -> None:
    with open_scene(SCENE, layer=0, head=0, atom=1) as page:
        before = sketches(page)
        page.evaluate(f"{EXPLORER}.model.set('layer', 2)")
        frames_later(page, 4)
        assert page.evaluate(f"{EXPLORER}.board.isDrawn") and sketches(page) == before
        page.get_by_label("Atom whose attention is shown").select_option(label="O2")
        frames_later(page)
        assert all(a != b for a, b in zip(before, sketches(page), strict=True))


def test_sketches_turn_with_the_crystal(open_scene: OpenScene) -> None:
    with open_scene(SCENE, layer=0, head=0, atom=1) as page:
        before = sketches(page)
        page.get_by_role("button", name="Look along c").click()
        page.wait_for_function("(old) => document.querySelector('.cf-board canvas').toDataURL() !== old", arg=before[0])
        assert all(a != b for a, b in zip(before, sketches(page), strict=True))


def test_a_closed_board_is_not_drawn(open_scene: OpenScene) -> None:
    with open_scene(SCENE) as page:
        drawn_board(page)
        page.get_by_text(BOARD).first.click()
        frames_later(page)
        page.get_by_label("Atom whose attention is shown").select_option(label="O2")
        frames_later(page, 4)
        words = page.evaluate("document.querySelector('.cf-board-words').textContent")
        assert "O2" not in words
        page.get_by_text(BOARD).first.click()
        page.wait_for_function("document.querySelector('.cf-board-words').textContent.includes('O2')")


def test_arrow_keys_move_on_the_board(open_scene: OpenScene) -> None:
    with open_scene(SCENE, layer=0, head=0) as page:
        drawn_board(page)
        page.locator(".cf-board button[tabindex='0']").focus()
        for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowUp"):
            page.keyboard.press(key)
        frames_later(page)
        found = chosen(page, EXPLORER)
        assert (found["layer"], found["head"]) == (0, 1)
        assert page.evaluate("document.activeElement.getAttribute('aria-checked')") == "true"


def test_an_atom_that_sees_only_itself_has_no_lines(open_scene: OpenScene) -> None:
    attention = SCENE.attention.copy()
    is_self = (SCENE.edge_index[0] == SCENE.edge_index[1]) & ~SCENE.edge_image.any(axis=1)
    attention[1, 2] = np.where(is_self, 1.0, 0.0)
    lonely = replace(SCENE, attention=attention)
    with open_scene(lonely, layer=1, head=2, atom=1) as page:
        assert page.locator(".cf-caption").first.inner_text() == viz.drawing(lonely, 1, 2, 1).caption
        rods = page.evaluate(f"{EXPLORER}.structure().layout().rods")
        assert [rod for rod in rods if rod["kind"] == "line"] == []


# --- the pinned view --------------------------------------------------------------------------------------------------


def views(page: Page) -> list[list[float]]:
    frames_later(page)
    return page.evaluate(f"[{EXPLORER}.structure().view(), {EXPLORER}.pinned().view()]")


def test_a_pinned_view_stays_while_the_other_steps_and_turns_with_it(open_scene: OpenScene) -> None:
    with open_scene(SCENE, layer=0, head=1, atom=1) as page:
        page.get_by_role("button", name="Pin this layer, head and atom beside").click()
        page.get_by_text("Pinned: Ti1, layer 0, head 1").wait_for()
        page.wait_for_function(f"{EXPLORER}.pinned()?.layout().balls.length")
        pinned = page.locator(".cf-pinned .cf-structure")
        before = pinned.screenshot()
        page.evaluate(f"{EXPLORER}.model.set('head', 3)")
        frames_later(page)
        assert pinned.screenshot() == before
        page.get_by_role("button", name="Look along a").click()
        first, second = views(page)
        np.testing.assert_allclose(first, second, atol=1e-4)
        # Also from the pinned one to the other.
        box = pinned.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 60, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + 120, box["y"] + 90, steps=3)
        page.mouse.up()
        turned = views(page)
        assert not np.allclose(turned[0], first)
        np.testing.assert_allclose(turned[0], turned[1], atol=1e-4)
        page.get_by_role("button", name="Exchange the two views").click()
        page.get_by_text("Pinned: Ti1, layer 0, head 3").wait_for()
        assert chosen(page, EXPLORER)["head"] == 1
        page.get_by_role("button", name="Take the pinned view away").click()
        page.wait_for_function("!document.querySelector('.cf-pinned').children.length")
        page.get_by_role("button", name="Look along b").click()  # nothing follows any more


def test_both_views_fit_into_their_frames(open_scene: OpenScene) -> None:
    pinned = {"layer": 1, "head": 0, "atom": "O1"}
    with open_scene(SCENE, layer=0, head=1, atom=1, pinned=pinned) as page:
        page.wait_for_function(f"{EXPLORER}.pinned()?.layout().balls.length")
        frames_later(page, 4)
        for picture in (f"{EXPLORER}.structure()", f"{EXPLORER}.pinned()"):
            layout = page.evaluate(f"{picture}.layout()")
            box = page.locator(".cf-structure").first.bounding_box()
            assert box is not None
            ends = np.array([rod["end"][:2] for rod in layout["rods"]])
            assert (ends > -1).all() and (ends < np.array([box["width"], box["height"]]) + 1).all()


def test_the_key_s_pins_and_takes_away(open_scene: OpenScene) -> None:
    with open_scene(SCENE, layer=0, head=1, atom=1) as page:
        page.locator(".cf-structure").focus()
        page.keyboard.press("s")
        page.get_by_text("Pinned: Ti1, layer 0, head 1").wait_for()
        page.locator(".cf-left .cf-structure").focus()
        page.keyboard.press("s")
        page.wait_for_function("!document.querySelector('.cf-pinned').children.length")


# --- colours and scales -----------------------------------------------------------------------------------------------


def test_a_value_colours_the_atoms_and_the_legend_follows(open_scene: OpenScene) -> None:
    with open_scene(SCENE, site_values={"charge (e)": [2, 4, -2, -2, -2]}, polyhedra="none", frames="none") as page:
        before = page.locator(".cf-structure").screenshot()
        assert not page.locator(".cf-value-scale").is_visible()
        page.get_by_label("What colours the atoms").select_option("charge")
        frames_later(page)
        assert page.locator(".cf-structure").screenshot() != before
        legend = page.locator(".cf-values")
        assert legend.inner_text().split() == ["atoms:", "charge", "(e)", "−4.00", "+4.00"]
        # The marks of the elements have no colour that would say something else.
        fill = page.evaluate("getComputedStyle(document.querySelector('.cf-ball')).backgroundColor")
        assert fill == "rgba(0, 0, 0, 0)"
        words = [text["text"] for text in page.evaluate(f"{EXPLORER}.structure().layout().texts")]
        assert {"Ti +4.00", "O −2.00"} <= set(words)


def test_a_fixed_scale_is_the_same_for_all_heads(open_scene: OpenScene) -> None:
    """The colour of a heatmap cell then tells its value: in a weak head it is darker than on the scale of the head."""

    def brightest(page: Page) -> float:
        frames_later(page)
        image = Image.open(io.BytesIO(page.locator(".cf-heatmap").screenshot())).convert("RGB")
        plot = np.asarray(image, dtype=float)[10:200, 70:260]
        return float((plot[..., 0] + plot[..., 1] - plot[..., 2]).max())

    largest = [viz.attention_matrix(SCENE, layer, head).max() for layer, head in np.ndindex(3, 4)]
    layer, head = divmod(int(np.argmin(largest)), 4)
    assert min(largest) < 0.8 * max(largest)
    with open_scene(SCENE, layer=layer, head=head) as page:
        own = brightest(page)
        page.get_by_label("Scale of heatmap and lines").select_option("fixed")
        assert brightest(page) < own - 20
        page.get_by_label("Scale of heatmap and lines").select_option("log")
        frames_later(page)
        assert "log" in str(page.evaluate(f"{EXPLORER}.model.get('display').scale"))


# --- words ------------------------------------------------------------------------------------------------------------


def test_interval_flag_and_origin_stand_beside_the_prediction(open_scene: OpenScene) -> None:
    (name, value), *_ = SCENE.prediction.items()
    notes = PredictionNotes(
        {name: (value - 0.1, value + 0.1)}, 0.9, {"not relaxed": "why"}, "mine", "1.0", "2026-12-01"
    )
    with open_scene(replace(SCENE, notes=notes)) as page:
        said = page.locator(".cf-prediction").first.inner_text()
        assert f"({value - 0.1:.2f} to {value + 0.1:.2f})".replace("-", "−") in said
        assert page.locator(".cf-flag").inner_text() == "not relaxed: why"
        assert page.locator(".cf-footer").inner_text() == "model: mine, crystalframer 1.0, 2026-12-01"
    with open_scene(SCENE) as page:
        assert page.locator(".cf-interval").count() == page.locator(".cf-flag").count() == 0
        assert not page.locator(".cf-footer").is_visible()


def test_logarithms_and_classes_are_said_in_plain_units(open_scene: OpenScene) -> None:
    notes = PredictionNotes({"log10_bulk_modulus": (2.0, 2.301)}, 0.9)
    prediction = {"log10_bulk_modulus": 2.176, "is_metal": 0.066, "log10_life": 3.0}
    units = {"log10_bulk_modulus": "log10 GPa", "log10_life": "log10(h)"}
    with open_scene(replace(SCENE, prediction=prediction, units=units, notes=notes)) as page:
        said = page.locator(".cf-prediction").all_inner_texts()
        assert [text.replace("\u00a0", " ") for text in said] == [
            "bulk modulus 150 GPa (100 to 200)",
            "probability that it is metal 0.07",
            "life 1000 h",
        ]


def test_a_space_group_is_printed_as_in_the_tables(open_scene: OpenScene) -> None:
    with open_scene(SCENE) as page:
        badge = page.get_by_title("Space group")
        assert badge.inner_html() == 'Pm<span class="cf-bar-over">3</span>m (221)'


def test_the_title_is_the_reduced_formula_with_subscripts(open_scene: OpenScene) -> None:
    with open_scene(replace(SCENE, id="mine")) as page:
        assert page.locator(".cf-title").inner_html() == "SrTiO<sub>3</sub> · mine"


# --- the same explorer for another crystal ----------------------------------------------------------------------------


def test_another_crystal_takes_the_place_of_the_first_and_webgl_contexts_are_given_back(open_scene: OpenScene) -> None:
    """A browser keeps about 16 WebGL contexts; of 20 crystals one after another, one is left."""
    traces = [synthetic_trace(random_crystal(seed, 3), n_layers=1, n_heads=2, radius=3.0) for seed in range(2)]
    states = [viz.AttentionExplorer(trace) for trace in traces]
    data = [[state.header, list(state.data)] for state in states]
    with open_scene(SCENE) as page:
        page.evaluate("window.contexts = new Set()")
        for n in range(20):
            labels = page.evaluate(
                """async ([header, data, n]) => {
                  const { model, structure } = document.querySelector(".cf-explorer").explorer;
                  window.contexts.add(structure().context);
                  for (const name of ["layer", "head", "atom"]) model.set(name, 0);
                  model.set("header", { ...header, id: String(n) });
                  model.set("data", new DataView(Uint8Array.from(data).buffer));
                  await new Promise(requestAnimationFrame);
                  return document.querySelector(".cf-explorer").explorer.crystal.labels;
                }""",
                [*data[n % 2], n],
            )
            assert labels == list(states[n % 2].scene.labels)
            page.wait_for_function(f"{EXPLORER}.structure()?.layout().balls.length")
        assert page.locator(".cf-explorer").count() == 1
        assert page.evaluate("[...window.contexts].filter((context) => !context.isContextLost()).length") == 0
        assert not page.evaluate(f"{EXPLORER}.structure().context.isContextLost()")
        image = Image.open(io.BytesIO(page.locator(".cf-structure").screenshot())).convert("RGB")
        assert len(image.getcolors(1 << 24) or ()) > 100


def test_undo_goes_back_to_the_view_before(open_scene: OpenScene) -> None:
    with open_scene(SCENE) as page:
        first = page.evaluate(f"{EXPLORER}.structure().view()")
        page.get_by_role("button", name="Look along a").click()
        second = page.evaluate(f"{EXPLORER}.structure().view()")
        page.locator(".cf-structure").focus()
        page.keyboard.press("Shift+ArrowUp")
        page.keyboard.press("u")
        np.testing.assert_allclose(page.evaluate(f"{EXPLORER}.structure().view()"), second, atol=1e-6)
        page.get_by_role("button", name="The view before the last change").click()
        np.testing.assert_allclose(page.evaluate(f"{EXPLORER}.structure().view()"), first, atol=1e-6)
