"""The exported page, opened from disk without a network: what it computes, what it draws, and how it reacts."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browsing import chosen, frames_later, open_page
from PIL import Image
from synthetic_traces import perovskite, skewed, synthetic_trace, weighted_trace, whole_and_region

import viz
from crystalframer.testing import supercell
from crystalframer.traces import CrystalTrace
from viz.encoding import encode
from viz.explorer_page import FRONTEND
from viz.frame_sets import frame_text, other_axes

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OpenScene = Callable[..., AbstractContextManager["Page"]]

EXPLORER = "document.querySelector('.cf-explorer').explorer"


SCENE = viz.scene_from_trace(synthetic_trace(perovskite()))


def pixels(page: Page, selector: str) -> bytes:
    frames_later(page)
    return page.locator(selector).screenshot()


def state(page: Page) -> dict[str, Any]:
    return chosen(page, EXPLORER)


def slide(page: Page, name: str, value: int) -> None:
    page.get_by_role("slider", name=name, exact=True).fill(str(value))
    frames_later(page)


def caption(page: Page) -> str:
    frames_later(page)
    return page.locator(".cf-caption").inner_text()


# --- what it computes -------------------------------------------------------------------------------------------------

SUMS = """async ([source, header, text, layer, head, atom, nLines]) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { decode, edgeWeights, attentionMatrix, strongestEdges, attentionByDistance, frameOf, frameText, otherAxes } =
    await import(url);
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const crystal = decode(header, bytes);
  const weights = edgeWeights(crystal, layer, head);
  const lines = strongestEdges(crystal, weights, atom, nLines);
  return {
    matrix: Array.from(attentionMatrix(crystal, weights)),
    shells: attentionByDistance(crystal, weights, atom),
    lines: lines.edges.map((edge) => [crystal.edgeKey[edge], ...crystal.edgeImage.slice(3 * edge, 3 * edge + 3)]),
    itself: lines.itself,
    frame: head === null ? null : frameOf(crystal, layer, head, atom),
    others: head === null ? null : otherAxes(crystal, layer, head, atom),
    text: head === null ? null : frameText(crystal, layer, head, atom),
  };
}"""


def large() -> CrystalTrace:
    """Five atoms of a large cell."""
    return whole_and_region(supercell(perovskite(), (2, 2, 2)), [36, 35, 37, 12, 4], n_layers=3, n_heads=4)[1]


def weighted() -> CrystalTrace:
    """Frames that are weighted sets, with an axis without direction."""
    return weighted_trace(perovskite(), n_layers=3, n_heads=4, both_hands=True)


@pytest.mark.parametrize(
    "trace",
    [synthetic_trace(perovskite()), synthetic_trace(skewed()), large(), weighted()],
    ids=["SrTiO3", "skewed", "large", "weighted"],
)
def test_the_browser_sums_as_python_does(browser: Any, trace: Any) -> None:
    scene = viz.scene_from_trace(trace)
    header, data = encode(scene)
    source = (FRONTEND / "crystal.js").read_text(encoding="utf-8")
    with open_page(browser) as page:
        for layer, head, atom in ((0, 0, 1), (2, 3, 4), (1, None, 2)):
            found = page.evaluate(SUMS, [source, header, base64.b64encode(data).decode(), layer, head, atom, 12])
            check_sums(found, scene, layer, head, atom)


def check_sums(found: dict[str, Any], scene: viz.Scene, layer: int, head: int | None, atom: int) -> None:
    matrix = np.array(found["matrix"]).reshape(scene.n_queries, -1)
    np.testing.assert_allclose(matrix, viz.attention_matrix(scene, layer, head), atol=2e-4)
    profile = viz.attention_by_distance(scene, layer, head, atom)
    for name, expected in (
        ("distance", profile.distance),
        ("attention", profile.attention),
        ("within", profile.cumulative),
        ("nNeighbors", profile.n_neighbors),
    ):
        np.testing.assert_allclose([shell[name] for shell in found["shells"]], expected, atol=5e-4)
    lines = viz.strongest_edges(scene, layer, head, atom)
    expected_lines = {(int(key), *map(int, image)) for key, image in zip(lines.key, lines.image, strict=True)}
    assert {tuple(line) for line in found["lines"]} == expected_lines
    assert found["itself"] == pytest.approx(lines.itself, rel=2**-11, abs=1e-7)  # the page holds 16-bit floats
    if head is not None:
        assert scene.frames is not None
        np.testing.assert_allclose(found["frame"], scene.frames[layer, head, atom], atol=1e-4)
        others = other_axes(scene, layer, head, atom)
        assert [each["axis"] for each in found["others"]] == others.axis.tolist()
        for name, values in (("direction", others.direction), ("opacity", others.opacity)):
            np.testing.assert_allclose(
                np.reshape([each[name] for each in found["others"]], values.shape), values, atol=2e-3
            )
        assert found["text"] == frame_text(scene, layer, head, atom)


def test_frames_of_a_set_are_drawn_and_named(open_scene: OpenScene) -> None:
    """The picture differs from that of the heaviest frame alone, and so does the legend."""
    scene = viz.scene_from_trace(weighted())
    single = replace(scene, sets=tuple(replace(s, offsets=np.arange(len(s.offsets))) for s in scene.sets))
    pictures = []
    for shown, names in ((scene, ["±e₃ (z)", "other frames of a weighted set"]), (single, ["±e₃ (z)"])):
        with open_scene(shown, layer=0, head=1, atom=1, frames="selected") as page:
            assert caption(page) == viz.drawing(shown, 0, 1, 1).caption
            legend = page.locator(".cf-legend").inner_text()
            assert all(name in legend for name in names) and ("weighted set" in legend) == (len(names) == 2)
            pictures.append(page.locator(".cf-structure").screenshot())
    assert pictures[0] != pictures[1]


def test_atoms_around_a_region_are_drawn_but_cannot_be_chosen(open_scene: OpenScene) -> None:
    scene = viz.scene_from_trace(large())
    with open_scene(scene, atom=1) as page:
        assert page.get_by_label("Atom whose attention is shown").locator("option").all_inner_texts() == [
            "Ti#36", "Sr#35", "O#37", "O#12", "O#4",
        ]  # fmt: skip
        box = page.locator(".cf-structure").bounding_box()
        assert box is not None
        for atom, chosen in ((6, 1), (0, 0)):
            at = page.evaluate(f"{EXPLORER}.structure().pixelOf({atom})")
            page.mouse.click(at["x"], at["y"])
            frames_later(page)
            assert state(page)["atom"] == chosen
        page.locator(".cf-heatmap").click(position=page.evaluate(f"{EXPLORER}.heatmap.pixelOf(4, 2)"))
        assert state(page)["atom"] == 4


# --- what it draws ----------------------------------------------------------------------------------------------------


def test_sliders_redraw_every_picture_and_the_caption(open_scene: OpenScene) -> None:
    with open_scene(SCENE, layer=0, head=0, atom=1) as page:
        before = {part: pixels(page, part) for part in (".cf-structure", ".cf-heatmap", ".cf-profile")}
        for name, value in (("Layer", 2), ("Head", 3)):
            slide(page, name, value)
            after = {part: pixels(page, part) for part in before}
            assert all(after[part] != before[part] for part in before), name
            before = after
        assert caption(page) == viz.drawing(SCENE, 2, 3, 1).caption


def test_the_mean_over_heads(open_scene: OpenScene) -> None:
    with open_scene(SCENE, layer=1, head=2, atom=1) as page:
        page.get_by_label("Mean over heads").check()
        assert caption(page) == viz.drawing(SCENE, 1, None, 1).caption
        assert page.get_by_label("Atoms whose frames are drawn").is_disabled()
        slide(page, "Head", 1)
        assert state(page)["head"] == 1 and not page.get_by_label("Mean over heads").is_checked()


@pytest.mark.parametrize("control", ["Atoms whose frames are drawn", "Atoms around which polyhedra are drawn"])
def test_choices_of_what_is_drawn(open_scene: OpenScene, control: str) -> None:
    with open_scene(SCENE, atom=1) as page:
        seen = set()
        for choice in ("all", "selected", "none", "all"):
            page.get_by_label(control).select_option(choice)
            seen.add(pixels(page, ".cf-structure"))
        # The only polyhedron is that of the chosen atom.
        assert len(seen) == (3 if "frames" in control else 2)


def test_a_trace_without_frames(open_scene: OpenScene) -> None:
    scene = viz.scene_from_trace(synthetic_trace(perovskite(), method="none"))
    with open_scene(scene, head=0, atom=1) as page:
        assert page.get_by_text("frames: none").is_visible()
        assert caption(page) == viz.drawing(scene, 0, 0, 1).caption
        assert page.locator(".cf-axis").count() == 0
        slide(page, "Layer", 1)
        assert caption(page) == viz.drawing(scene, 1, 0, 1).caption


def test_tied_frames_are_marked(open_scene: OpenScene) -> None:
    tied = np.zeros_like(SCENE.tied)
    tied[1, 2, 1] = True
    with open_scene(replace(SCENE, tied=tied), layer=1, head=1, atom=1) as page:
        badge = page.get_by_text("tied frame")
        assert not badge.is_visible()
        slide(page, "Head", 2)
        assert badge.is_visible()


def test_frames_that_change_nothing_are_pale(open_scene: OpenScene) -> None:
    dead = np.zeros_like(SCENE.dead)
    dead[1, 2, 1] = True
    marked = replace(SCENE, dead=dead)
    with open_scene(marked, layer=1, head=2, atom=1) as page, open_scene(SCENE, layer=1, head=2, atom=1) as other:
        assert caption(page) == viz.drawing(marked, 1, 2, 1).caption != caption(other)
        assert pixels(page, ".cf-structure") != pixels(other, ".cf-structure")
        slide(page, "Head", 1)
        assert caption(page) == viz.drawing(SCENE, 1, 1, 1).caption


def test_texts_of_files_are_shown_as_texts(open_scene: OpenScene) -> None:
    text = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"
    with open_scene(replace(SCENE, id=text)) as page:
        assert page.locator(".cf-title").inner_text() == f"SrTiO3 · {text}"
        assert page.title() == f"SrTiO3 {text}"
        assert page.evaluate("window.broken") is None


def test_side_by_side_where_there_is_room_and_stacked_where_not(open_scene: OpenScene) -> None:
    for width, beside in ((900, True), (560, False)):
        with open_scene(SCENE, width=width) as page:
            structure, heatmap = (page.locator(part).bounding_box() for part in (".cf-structure", ".cf-heatmap"))
            assert structure and heatmap
            assert (heatmap["x"] >= structure["x"] + structure["width"]) == beside
            assert (heatmap["y"] >= structure["y"] + structure["height"]) != beside
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


# --- how it reacts ----------------------------------------------------------------------------------------------------


def test_clicks_on_atoms_and_on_rows_choose_the_atom(open_scene: OpenScene) -> None:
    with open_scene(SCENE, atom=0, frames="none", polyhedra="none") as page:
        before = pixels(page, ".cf-heatmap")
        at = page.evaluate(f"{EXPLORER}.structure().pixelOf(1)")
        page.mouse.click(at["x"], at["y"])
        assert state(page)["atom"] == 1
        assert pixels(page, ".cf-heatmap") != before
        assert page.get_by_label("Atom whose attention is shown").input_value() == "1"

        drawn = pixels(page, ".cf-structure")
        page.locator(".cf-heatmap").click(position=page.evaluate(f"{EXPLORER}.heatmap.pixelOf(4, 2)"))
        assert state(page)["atom"] == 4
        assert pixels(page, ".cf-structure") != drawn
        assert caption(page) == viz.drawing(SCENE, 0, 0, 4).caption


def test_pointing_at_a_cell_tells_its_value(open_scene: OpenScene) -> None:
    with open_scene(SCENE, layer=1, head=2) as page:
        page.locator(".cf-heatmap").hover(position=page.evaluate(f"{EXPLORER}.heatmap.pixelOf(1, 3)"))
        value = viz.attention_matrix(SCENE, 1, 2)[1, 3]
        assert page.locator(".cf-tip").inner_text() == f"Ti1 → O2: attention {value:.3f} (sum over periodic images)"
        page.locator(".cf-profile").hover(position={"x": 120, "y": 60})
        assert "attention" in page.locator(".cf-tip").inner_text() and "within" in page.locator(".cf-tip").inner_text()
        page.locator(".cf-title").hover()
        assert not page.locator(".cf-tip").is_visible()


def test_arrow_keys_step_layer_and_head_and_stop_at_the_ends(open_scene: OpenScene) -> None:
    with open_scene(SCENE, layer=0, head=0, atom=0) as page:
        page.locator(".cf-structure").focus()
        for key, expected in (
            ("ArrowUp", (1, 0)),
            ("ArrowRight", (1, 1)),
            ("ArrowRight", (1, 2)),
            ("ArrowLeft", (1, 1)),
            ("ArrowUp", (2, 1)),
            ("ArrowUp", (2, 1)),
            ("ArrowDown", (1, 1)),
        ):
            page.keyboard.press(key)
            assert (state(page)["layer"], state(page)["head"]) == expected
        page.locator(".cf-heatmap").focus()
        page.keyboard.press("ArrowDown")
        assert state(page)["atom"] == 1


def test_the_camera_stays_where_it_is(open_scene: OpenScene) -> None:
    with open_scene(SCENE) as page:
        at_first = page.evaluate(f"{EXPLORER}.structure().view()")
        box = page.locator(".cf-structure").bounding_box()
        assert box
        page.mouse.move(box["x"] + 20, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 120, box["y"] + 60, steps=3)
        page.mouse.up()
        turned = page.evaluate(f"{EXPLORER}.structure().view()")
        assert turned != at_first
        slide(page, "Layer", 1)
        slide(page, "Head", 2)
        assert page.evaluate(f"{EXPLORER}.structure().view()") == turned


def test_a_crystal_that_changes_out_of_sight_is_drawn_when_it_comes_back(open_scene: OpenScene) -> None:
    with open_scene(SCENE) as page:
        slide(page, "Layer", 1)
        page.evaluate(f"{EXPLORER}.structure().reset()")
        before = page.evaluate(f"{EXPLORER}.structure().view()"), pixels(page, ".cf-structure")
        page.evaluate("document.querySelector('.cf-structure').style.display = 'none'")
        page.evaluate(f"{EXPLORER}.structure().change({EXPLORER}.crystal)")
        slide(page, "Layer", 2)
        page.evaluate(f"{EXPLORER}.structure().reset()")
        page.evaluate("document.querySelector('.cf-structure').style.display = ''")
        frames_later(page, 3)
        assert pixels(page, ".cf-structure") != before[1]
        slide(page, "Layer", 1)
        page.evaluate(f"{EXPLORER}.structure().reset()")
        np.testing.assert_allclose(page.evaluate(f"{EXPLORER}.structure().view()"), before[0], atol=1e-6)
        assert pixels(page, ".cf-structure") == before[1]


def test_play_steps_until_it_is_stopped(open_scene: OpenScene) -> None:
    with open_scene(SCENE) as page:
        page.clock.install(time=0)
        page.clock.pause_at(1000)  # on a busy machine steps of its own would come between
        play = page.get_by_role("button", name="Play through the layers")
        play.click()
        assert play.get_attribute("aria-pressed") == "true"
        seen = []
        for _ in range(4):
            page.clock.run_for(901)
            seen.append(state(page)["layer"])
        assert seen == [1, 2, 0, 1]
        play.click()
        page.clock.run_for(3000)
        assert state(page)["layer"] == 1 and play.get_attribute("aria-pressed") == "false"


def test_every_control_has_a_name_and_is_reached_by_tab(open_scene: OpenScene) -> None:
    describe = """() => {
        const e = document.activeElement;
        return e === document.body ? null : [e.tagName, e.getAttribute("aria-label") ?? e.textContent];
    }"""
    with open_scene(SCENE) as page:
        page.locator(".cf-board").scroll_into_view_if_needed()
        page.wait_for_function(f"{EXPLORER}.board.isDrawn")  # which names its cells
        controls = page.evaluate(
            "Array.from(document.querySelectorAll('input, select, button, summary, [tabindex]'))"
            ".filter((e) => !e.closest('dialog') && e.tabIndex >= 0)"  # of the board, one cell
            ".map((e) => [e.tagName, e.getAttribute('aria-label') ?? e.textContent])"
        )
        reached = []
        for _ in controls:
            page.keyboard.press("Tab")
            reached.append(page.evaluate(describe))
        assert reached == controls and len(controls) > 30
        assert all(name for _, name in controls) and len({name for _, name in controls}) == len(controls)
        assert page.locator(".cf-caption").get_attribute("aria-live") == "polite"


def test_the_picture_is_saved_large(open_scene: OpenScene) -> None:
    with open_scene(SCENE, layer=1, head=2, atom=1) as page:
        on_screen = pixels(page, ".cf-structure")
        with page.expect_download() as download:
            page.get_by_role("button", name="Save the structure as a PNG picture").click()
        assert download.value.suggested_filename == "SrTiO3-Ti1-layer1-head2.png"
        image = Image.open(Path(download.value.path()))
        assert min(image.size) >= 1800
        assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 100
        assert Image.open(io.BytesIO(pixels(page, ".cf-structure"))).size == Image.open(io.BytesIO(on_screen)).size


def test_without_webgl_a_message_says_so_and_the_rest_works(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "explorer.html"
    path.write_text(viz.explorer_html(SCENE, head=0, atom=1), encoding="utf-8")
    with open_page(browser) as page:
        page.add_init_script("OffscreenCanvas.prototype.getContext = () => null;")
        page.goto(path.as_uri())
        page.get_by_text("offers no WebGL").wait_for()
        slide(page, "Layer", 2)
        assert caption(page) == viz.drawing(SCENE, 2, 0, 1).caption
        assert page.get_by_role("button", name="Save the structure as a PNG picture").is_disabled()


# --- inside other programs --------------------------------------------------------------------------------------------

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
"""As VS Code has it for widgets, without its own addresses."""


@pytest.mark.parametrize("shadow", [False, True], ids=["frame", "shadow root"])
def test_in_a_frame_of_another_origin_that_allows_nothing(browser: Browser, tmp_path: Path, shadow: bool) -> None:
    """VS Code and Colab run widgets in such a frame, and marimo under a shadow root."""
    inside = viz.explorer_html(SCENE, atom=1).replace(
        "<head>", f'<head><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    )
    if shadow:
        place = 'document.querySelector("main")'
        root = f'{place}.attachShadow({{ mode: "open" }})'
        style = 'document.querySelector("style")'
        inside = inside.replace(
            f"el: {place}", f"el: (() => {{ const root = {root}; root.append({style}); return root; }})()"
        )
        assert "attachShadow" in inside
    outside = tmp_path / "outside.html"
    frame = f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(inside)}" width="1100" height="900"></iframe>'
    outside.write_text(f"<!doctype html>{frame}", encoding="utf-8")
    with open_page(browser, 1200, 950) as page:
        page.goto(outside.as_uri())
        explorer = page.frame_locator("iframe")
        explorer.locator(".cf-structure canvas").wait_for()
        explorer.locator(".cf-caption", has_text="layer 0").wait_for()
        explorer.get_by_role("slider", name="Layer", exact=True).fill("2")
        explorer.locator(".cf-caption", has_text="layer 2").wait_for()
        picture = Image.open(io.BytesIO(explorer.locator(".cf-structure").screenshot())).convert("RGB")
        assert len(picture.getcolors(2**24) or []) > 300
