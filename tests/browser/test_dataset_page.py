"""The data set explorer in a browser: map, table and crystal follow each other, by mouse and by keys."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from browsing import SCREENS, complaints, frames_later, open_page

import crystalframer as cf
import viz
from crystalframer.testing import prototypes

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CRYSTALS = prototypes()[:8]
TRACED = CRYSTALS[2]
ROOT = "document.querySelector('.cf-dataset').explorer"
READY = f"document.querySelector('.cf-dataset') && {ROOT}.scatter() && document.querySelector('.cf-rows td')"
DRAWN = "document.querySelector('.cf-stage').dataset.shown === '{}'"

Open = Callable[..., AbstractContextManager["Page"]]


@cache
def explorer() -> viz.DatasetExplorer:
    """Eight crystals with a structure, and two without."""
    rng = np.random.default_rng(0)
    label = np.linspace(-3.0, 1.0, len(CRYSTALS) + 2)
    rows = pd.DataFrame(
        {
            "id": [*(crystal.id for crystal in CRYSTALS), "ghost", "shadow"],
            "label": label,
            "prediction": label + np.array([0.1, -0.4, 0.05, 0.0, 0.2, -0.15, 0.3, 0.02, -0.01, 0.6]),
            "part": ["train", "test"] * 5,
        }
    )
    features = rng.normal(size=(len(rows), 4))
    return viz.DatasetExplorer(
        rows,
        CRYSTALS,
        traces={TRACED.id: cf.trace(TRACED)},
        explanations={crystal.id: cf.explain(crystal) for crystal in (TRACED, CRYSTALS[4])},
        embedding=features,
    )


@pytest.fixture(scope="module")
def page_text() -> str:
    return explorer().to_html(progress=False)


@pytest.fixture
def opened(browser: Browser, tmp_path: Path, page_text: str) -> Open:
    """`with opened(width=1280, text=None) as page`: the page from disk, drawn, the network off."""

    @contextmanager
    def opening(width: int = 1280, height: int = 800, text: str = page_text, wait: str = READY) -> Iterator[Page]:
        path = tmp_path / "data set.html"
        path.write_text(text, encoding="utf-8")
        with open_page(browser, width, height) as page:
            page.context.set_offline(True)
            page.goto(path.as_uri())
            page.wait_for_function(wait)
            frames_later(page)
            yield page

    return opening


def place(page: Page, point: int) -> tuple[float, float]:
    """Where a point is in the window, pixels."""
    box = page.locator(".cf-map").bounding_box()
    assert box is not None
    x, y = page.evaluate(f"{ROOT}.scatter().pixelOf({point})")
    return box["x"] + 1 + x, box["y"] + 1 + y


def shown(page: Page) -> list[int]:
    """The points that pass the filters."""
    frames_later(page)
    return page.evaluate(f"Array.from({ROOT}.mask()).flatMap((one, point) => (one ? [point] : []))")


def chosen(page: Page) -> int:
    return page.evaluate(f"{ROOT}.model.get('point')")


def selected(page: Page) -> list[int]:
    return sorted(page.evaluate(f"Array.from({ROOT}.model.get('selected'))"))


def control(page: Page, name: str) -> Any:
    return page.get_by_label(name, exact=False).first


def test_a_click_on_a_point_opens_its_crystal_and_its_row(opened: Open) -> None:
    with opened() as page:
        page.mouse.click(*place(page, 5))
        page.wait_for_function(DRAWN.format("crystal 5"))
        assert chosen(page) == 5
        assert CRYSTALS[5].id in page.locator(".cf-crystal .cf-title").inner_text()
        assert CRYSTALS[5].id in page.locator("tr[aria-current]").inner_text()
        assert page.locator(".cf-stage canvas").count() == 1
        page.mouse.click(*place(page, 1))
        page.wait_for_function(DRAWN.format("crystal 1"))
        assert CRYSTALS[1].formula in page.locator(".cf-stage .cf-caption").inner_text()


def test_the_page_opens_with_the_largest_error(opened: Open) -> None:
    error = explorer().frame["absolute error"].to_numpy()[: len(CRYSTALS)]
    worst = int(error.argmax())
    with opened() as page:
        page.wait_for_function(DRAWN.format(f"crystal {worst}"))
        assert CRYSTALS[worst].id in page.locator("tr[aria-current]").inner_text()


def test_flags_colour_the_points_and_their_words_stand_beside_the_crystal(opened: Open) -> None:
    rows = pd.DataFrame({"id": [crystal.id for crystal in CRYSTALS], "x": 0.0, "y": np.arange(8.0)})
    rows["outside_training"] = [None] * 6 + ["far from all", None]
    rows["not_relaxed"] = [None] * 5 + ["strained", None, None]
    text = viz.DatasetExplorer(rows, CRYSTALS).to_html(progress=False, n_structures=3)
    with opened(text=text) as page:
        page.get_by_label("Column that colours the points").select_option("flag")
        assert "not relaxed" in page.locator(".cf-overview .cf-legend").inner_text()
        assert page.locator(".cf-warning").is_hidden()
        page.evaluate(f"{ROOT}.model.set('point', 6)")
        assert page.locator(".cf-warning").inner_text() == "outside training: far from all"
        page.get_by_label("Only points with this flag").select_option("outside the training data")
        assert shown(page) == [6]
        # The first three have their structure in the page.
        assert "3 of 8" in page.locator(".cf-notes").inner_text()
        page.get_by_label("Only points with this flag").select_option("structure in this page")
        assert shown(page) == [0, 1, 2]


@pytest.mark.parametrize("width", [360, 1280])
def test_menus_show_all_of_their_words(opened: Open, width: int) -> None:
    data = cf.dataset("demo").select(range(4))
    text = viz.DatasetExplorer(cf.evaluate(data, progress=False), data).to_html(progress=False)
    with opened(width, 740, text=text) as page:
        cut = page.evaluate(
            """[...document.querySelectorAll(".cf-choices select")].filter((menu) => {
              const pen = document.createElement("canvas").getContext("2d");
              const style = getComputedStyle(menu);
              pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
              const words = pen.measureText(menu.selectedOptions[0].text).width;
              const room = menu.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
              return menu.offsetParent && words > room;
            }).map((menu) => menu.selectedOptions[0].text)"""
        )
        assert cut == []


def test_a_point_without_a_structure_says_so(opened: Open) -> None:
    with opened() as page:
        page.evaluate(f"{ROOT}.model.set('point', 8)")
        page.wait_for_function(DRAWN.format("crystal 8"))
        assert "not one of them" in page.locator(".cf-stage").inner_text()
        assert "ghost" in page.locator(".cf-notes").inner_text()


def test_the_pointer_tells_the_point(opened: Open) -> None:
    with opened() as page:
        page.mouse.move(*place(page, 3))
        frames_later(page, 3)
        assert CRYSTALS[3].id in page.locator(".cf-dataset > .cf-inside > .cf-tip").inner_text()


def test_filters_keep_what_they_say(opened: Open) -> None:
    frame = explorer().frame
    formulas = frame["formula"].tolist()
    with opened() as page:
        page.get_by_label("With: Ti O").fill("O")
        wanted = [n for n, crystal in enumerate(CRYSTALS) if 8 in crystal.atomic_numbers]
        assert shown(page) == wanted and wanted
        page.get_by_label("With: Ti O").fill("")
        page.get_by_label("Without: Pb").fill("O")
        assert shown(page) == [n for n in range(10) if n not in wanted]
        page.get_by_role("button", name="Show all points", exact=True).first.click()
        page.get_by_label("Id or formula: part of it").fill(formulas[0].lower())
        assert shown(page) == [n for n, text in enumerate(formulas) if formulas[0].lower() in text.lower()]
        page.get_by_label("Id or formula: part of it").fill("")
        page.get_by_label("Space group: 225 or cubic").fill("cubic")
        assert shown(page) == np.flatnonzero(frame["space_group"] >= 195).tolist()
        page.get_by_label("Space group: 225 or cubic").fill("")
        page.get_by_label("Atoms to").fill("2")
        assert shown(page) == np.flatnonzero(frame["n_atoms"] <= 2).tolist()
        page.get_by_label("Atoms to").fill("")
        page.get_by_label("Error from").fill("0.25")
        assert shown(page) == [1, 6, 9]
        page.get_by_label("Only points of this part").select_option("test")
        assert shown(page) == [1, 9]
        page.get_by_label("Only points with this flag").select_option("no structure")
        assert shown(page) == [9]
        assert "1 of 10" in page.locator(".cf-count").inner_text()
        page.get_by_role("button", name="Show all points", exact=True).first.click()
        page.get_by_label("Column whose values").select_option("label")
        page.get_by_label("Column from").fill("0")
        assert shown(page) == np.flatnonzero(frame["label"] >= 0).tolist()


def test_a_lasso_selects_and_its_rows_are_saved(opened: Open) -> None:
    with opened() as page:
        page.get_by_role("button", name="Drag draws a lasso").click()
        (x, y), (u, v) = place(page, 2), place(page, 4)
        corners = [(x - 12, y + 25), (x - 12, v - 25), (u + 12, v - 25), (u + 12, y + 25)]
        page.mouse.move(*corners[0])
        page.mouse.down()
        for corner in [*corners[1:], corners[0]]:
            page.mouse.move(*corner, steps=4)
        page.mouse.up()
        frames_later(page)
        assert selected(page) == [2, 3, 4]
        with page.expect_download() as saved:
            page.get_by_role("button", name="CSV of selected").click()
        rows = pd.read_csv(io.BytesIO(Path(saved.value.path()).read_bytes()))
        assert rows["id"].tolist() == [CRYSTALS[n].id for n in (2, 3, 4)]
        assert rows["label"].to_numpy() == pytest.approx(explorer().frame["label"].to_numpy()[[2, 3, 4]], rel=1e-6)
        page.get_by_label("only selected").check()
        frames_later(page)
        assert page.locator(".cf-rows tr[data-point]").count() == 3


def test_one_click_shows_the_largest_errors(opened: Open) -> None:
    with opened() as page:
        page.get_by_role("button", name="largest errors").click()
        frames_later(page)
        assert chosen(page) == 9
        order = page.evaluate(f"Array.from({ROOT}.rows.order)")
        error = explorer().frame["absolute error"].to_numpy()
        assert order == np.argsort(-error, kind="stable").tolist()
        assert selected(page) == list(range(10))


def test_axes_and_views_can_be_chosen(opened: Open) -> None:
    with opened() as page:
        page.get_by_label("What the map shows").select_option("embedding (PCA)")
        frames_later(page)
        assert page.evaluate(f"[{ROOT}.model.get('x'), {ROOT}.model.get('y')]") == ["PCA 1", "PCA 2"]
        page.get_by_label("Column on the horizontal axis").select_option("n_atoms")
        page.get_by_label("Column that colours").select_option("part")
        frames_later(page)
        assert page.get_by_label("What the map shows").input_value() == "-1"
        legend = page.locator(".cf-dataset .cf-overview .cf-legend").inner_text()
        assert all(word in legend for word in ("part", "train", "test"))


def test_keys_reach_points_rows_and_selection(opened: Open) -> None:
    with opened() as page:
        page.locator(".cf-map").focus()
        page.keyboard.press("ArrowRight")
        first = chosen(page)
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"{ROOT}.model.get('point') !== {first}")
        second = chosen(page)
        label = explorer().frame["label"].to_numpy()
        assert label[second] > label[first]
        page.keyboard.press("Space")
        assert selected(page) == [second]
        page.keyboard.press("Escape")
        assert selected(page) == []
        page.locator(".cf-rows").focus()
        page.keyboard.press("End")
        frames_later(page)
        assert chosen(page) == 9
        page.keyboard.press("ArrowUp")
        assert chosen(page) == 8
        assert "ghost" in page.locator(".cf-overview > .cf-caption").inner_text()


def test_every_control_has_a_name_and_can_be_reached_by_tab(opened: Open) -> None:
    with opened() as page:
        page.evaluate(f"{ROOT}.model.set('point', 2)")
        page.wait_for_function(DRAWN.format("crystal 2"))
        controls = "[...document.querySelectorAll('.cf-dataset :is(button, input, select, [tabindex], summary)')]"
        visible = (
            f"{controls}.filter((element) => element.checkVisibility() && !element.disabled && element.tabIndex >= 0)"
        )
        count = page.evaluate(f"{visible}.length")
        page.locator("body").click(position={"x": 2, "y": 2})
        reached = set()
        for _ in range(count + 5):
            page.keyboard.press("Tab")
            reached.add(page.evaluate(f"{visible}.indexOf(document.activeElement)"))
        assert set(range(count)) <= reached


def test_attention_and_explanation_are_packed_and_absent_ones_are_named(opened: Open) -> None:
    with opened() as page:
        page.evaluate(f"{ROOT}.model.set('point', 2)")
        page.wait_for_function(DRAWN.format("crystal 2"))
        page.get_by_role("button", name="Attention", exact=True).click()
        page.wait_for_function(DRAWN.format("attention 2"))
        page.wait_for_function("document.querySelector('.cf-stage .cf-explorer').explorer.structure()")
        assert "strongest lines" in page.locator(".cf-stage .cf-explorer .cf-caption").first.inner_text()
        page.get_by_role("button", name="Explanation", exact=True).click()
        page.wait_for_function(DRAWN.format("explanation 2"))
        page.wait_for_function("document.querySelector('.cf-stage .cf-explorer').explorer.structure()")
        assert page.get_by_label("What lines and heatmap show").input_value() == "relevance"
        # Without a trace beside it, an explanation is a page of bars.
        page.evaluate(f"{ROOT}.model.set('point', 4)")
        page.wait_for_function(DRAWN.format("explanation 4"))
        page.frame_locator(".cf-stage iframe").locator("h1").wait_for()
        page.evaluate(f"{ROOT}.model.set('point', 3)")
        page.wait_for_function(DRAWN.format("explanation 3"))
        assert "2 crystals" in page.locator(".cf-stage").inner_text()


def test_a_page_without_traces_says_so(opened: Open) -> None:
    rows = pd.DataFrame({"id": [crystal.id for crystal in CRYSTALS], "y": range(len(CRYSTALS))})
    text = viz.DatasetExplorer(rows, CRYSTALS, chosen=CRYSTALS[0].id).to_html(progress=False)
    with opened(text=text) as page:
        page.wait_for_function(DRAWN.format("crystal 0"))
        assert "This page contains no attention." in page.locator(".cf-tabs").inner_text()
        assert page.get_by_role("button", name="Attention", exact=True).count() == 0


def test_neighbours_open_each_other(opened: Open) -> None:
    near = explorer().neighbors
    assert near is not None
    with opened() as page:
        page.evaluate(f"{ROOT}.model.set('point', 0)")
        names = page.locator(".cf-near button")
        first = int(near.nearest[0][0])
        assert explorer().points.ids[first] in names.first.inner_text()
        names.first.click()
        assert chosen(page) == first


def test_a_browser_without_webgl_shows_the_table(
    opened: Open, browser: Browser, tmp_path: Path, page_text: str
) -> None:
    path = tmp_path / "no webgl.html"
    path.write_text(page_text, encoding="utf-8")
    with open_page(browser, 1280, 800) as page:
        page.add_init_script(
            "const get = HTMLCanvasElement.prototype.getContext;"
            "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
            " return kind.startsWith('webgl') ? null : get.call(this, kind, ...rest); };"
        )
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelector('.cf-map .cf-sorry') && document.querySelector('.cf-rows td')")
        page.locator(".cf-rows tr[data-point]").nth(1).click()
        assert chosen(page) == 1


def test_a_kernel_is_asked_for_what_is_shown(opened: Open) -> None:
    """The widget in a notebook, with a kernel that is played: it answers what the page holds."""
    with opened() as page:
        shown_kind = page.evaluate(
            """async () => {
              const text = document.getElementById("module").textContent;
              const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
              const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
              const script = await new Response(stream).arrayBuffer();
              const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
              const { render, pageModel } = (await import(url)).default;
              const first = document.querySelector(".cf-dataset").explorer.model;
              const names = ["header", "data", "x", "y", "color", "filters"];
              const values = Object.fromEntries(names.map((name) => [name, first.get(name)]));
              const offers = { crystal: true, attention: false, explanation: [3] };
              const selected = new DataView(new ArrayBuffer(0));
              const model = pageModel({ ...values, point: -1, selected, offers });
              const asked = [];
              let answer;
              const on = model.on;
              model.on = (event, call) => (event === "msg:custom" ? (answer = call) : on(event, call));
              model.send = ({ kind, point, question }) => {
                asked.push([kind, point]);
                setTimeout(() => answer({ kind, point, question, failure: `no ${kind} today` }, []), 5);
              };
              const box = document.createElement("div");
              document.body.append(box);
              render({ model, el: box });
              model.set("point", 4);
              await new Promise((resolve) => setTimeout(resolve, 400));
              const words = box.querySelector(".cf-stage").textContent;
              const tabs = [...box.querySelectorAll(".cf-tabs button")];
              tabs[1].click();
              await new Promise((resolve) => setTimeout(resolve, 100));
              return { asked, words, other: box.querySelector(".cf-stage").textContent };
            }"""
        )
        assert shown_kind["asked"] == [["crystal", 4]]
        assert "no crystal today" in shown_kind["words"]
        assert "attention" in shown_kind["other"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), SCREENS)
def test_the_page_fits_and_is_accessible(opened: Open, width: int, height: int, scheme: Any) -> None:
    with opened(width, height) as page:
        page.emulate_media(color_scheme=scheme)
        page.evaluate(f"{ROOT}.model.set('point', 2); document.querySelector('.cf-filtering').open = true")
        page.wait_for_function(DRAWN.format("crystal 2"))
        frames_later(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for kind in ("crystal", "attention"):
            page.get_by_role("button", name=kind.capitalize(), exact=True).click()
            page.wait_for_function(DRAWN.format(f"{kind} 2"))
            frames_later(page, 3)
            assert complaints(page) == ""
