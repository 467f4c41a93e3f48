"""The crystal view of the page: what is in the frame at first, and what mouse, keys and buttons do."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browsing import SCREENS, frames_later
from PIL import Image
from synthetic_traces import synthetic_trace
from textbook_crystals import TEXTBOOK

import viz
from crystalframer.crystals.crystal import Crystal
from crystalframer.testing import supercell

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenScene = Callable[..., AbstractContextManager["Page"]]
VIEW = "document.querySelector('.cf-explorer').explorer.structure()"
NAMES = {known.name: known.crystal for known in TEXTBOOK}


def layer() -> Crystal:
    """MoS2 in a vacuum of 20 Å, across the face of its cell."""
    lattice = np.array([[3.16, 0, 0], [-1.58, 2.737, 0], [0, 0, 23]])
    height = 1.56 / 23
    frac = np.array([[1 / 3, 2 / 3, 0.02], [2 / 3, 1 / 3, 0.02 + height], [2 / 3, 1 / 3, 0.02 - height]])
    return Crystal(np.array([42, 16, 16]), frac @ lattice, lattice, id="MoS2 layer")


def alloy(repeats: tuple[int, int, int]) -> Crystal:
    """Four atoms for each repeat, of five metals."""
    copper = supercell(NAMES["copper"], repeats)
    rng = np.random.default_rng(0)
    moved = copper.positions + rng.normal(0, 0.05, copper.positions.shape)
    return Crystal(rng.choice([24, 25, 26, 27, 28], len(copper)), moved, copper.lattice, id="alloy")


def slab() -> Crystal:
    """Four layers of rock salt and 15 Å of vacuum."""
    salt = supercell(NAMES["rock salt NaCl"], (2, 2, 2))
    lattice = salt.lattice.copy()
    lattice[2, 2] += 15.0
    return Crystal(salt.atomic_numbers, salt.positions, lattice, id="slab")


CRYSTALS: dict[str, Callable[[], Crystal]] = {
    "BaTiO3": lambda: supercell(NAMES["tetragonal BaTiO3"], (2, 2, 2)),
    "layer": layer,
    "alloy": lambda: alloy((3, 3, 3)),
    "large alloy": lambda: alloy((5, 5, 3)),
    "slab": slab,
    "copper": lambda: NAMES["copper"],
    "urea": lambda: NAMES["urea CO(NH2)2"],
    "quartz": lambda: NAMES["quartz SiO2"],
    "LiFePO4": lambda: NAMES["triphylite LiFePO4"],
    "rutile": lambda: NAMES["rutile TiO2"],
    "garnet": lambda: NAMES["garnet Y3Al5O12"],
    "MOF-5": lambda: NAMES["MOF-5"],
}


@cache
def scene_of(name: str) -> viz.Scene:
    return viz.scene_from_trace(synthetic_trace(CRYSTALS[name](), radius=4.5, n_layers=2, n_heads=2))


def layout(page: Page) -> dict[str, Any]:
    frames_later(page, 3)
    return page.evaluate(f"{VIEW}.layout()")


def frame(page: Page) -> tuple[float, float]:
    box = page.evaluate(
        "(({ clientWidth, clientHeight }) => [clientWidth, clientHeight])(document.querySelector('.cf-structure'))"
    )
    return box[0], box[1]


def focus(page: Page) -> None:
    page.locator(".cf-structure").focus()


def picture(page: Page) -> Image.Image:
    frames_later(page, 3)
    return Image.open(io.BytesIO(page.locator(".cf-structure").screenshot())).convert("RGB")


def middle(page: Page) -> tuple[float, float]:
    box = page.locator(".cf-structure").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


# --- the first sight --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1280, 800, 360])
@pytest.mark.parametrize("name", CRYSTALS)
def test_the_first_sight_shows_the_atom_its_axes_and_its_lines(open_scene: OpenScene, name: str, width: int) -> None:
    scene = scene_of(name)
    with open_scene(scene, width=width) as page:
        shown, (wide, high) = layout(page), frame(page)

        def inside(x: float, y: float, *_: float) -> bool:
            return -1 <= x <= wide + 1 and -1 <= y <= high + 1

        atom = page.evaluate(f"{VIEW.replace('structure()', 'model.get')}('atom')")
        ball = next(ball for ball in shown["balls"] if ball["site"] == atom and not any(ball["image"]))
        assert inside(*ball["at"])
        axes = [rod for rod in shown["rods"] if rod["kind"] == "axis"]
        lines = [rod for rod in shown["rods"] if rod["kind"] == "line"]
        assert len(axes) == 3 and len(lines) >= 12
        assert all(inside(*rod["end"]) for rod in axes)
        assert np.mean([inside(*rod["end"]) for rod in lines]) >= 0.9
        legend = page.get_by_role("group", name="Elements").get_by_role("button").all_inner_texts()
        assert set(legend) == {item.symbol for item in scene.elements}
        assert min(rod["width"] for rod in (*axes, *lines)) >= 2.99
        # The crystal fills the picture, with or without a vacuum.
        ends = np.array([ball["at"][:2] for ball in shown["balls"]] + [rod["end"][:2] for rod in lines])
        assert (np.ptp(ends, axis=0) / (wide, high)).max() > 0.55
        # No text lies over the atom or over another text, and all are in the picture.
        texts = [text for text in shown["texts"] if text["text"] not in "abc"]
        assert len(texts) == 4
        for text in texts:
            box = max(abs(text["x"] - ball["at"][0]) - 4 * len(text["text"]), abs(text["y"] - ball["at"][1]) - 8)
            assert box >= 0.6 * ball["radius"]
        assert all(inside(text["x"], text["y"]) for text in shown["texts"])
        for one, other in combinations(shown["texts"], 2):
            across = abs(one["x"] - other["x"]) - 0.31 * sum(len(text["text"]) * text["size"] for text in (one, other))
            down = abs(one["y"] - other["y"]) - (one["size"] + other["size"]) / 2
            assert max(across, down) >= 0


def test_a_picture_that_becomes_smaller_shows_as_much(open_scene: OpenScene) -> None:
    with open_scene(scene_of("rutile"), width=1280) as page:
        page.locator(".cf-structure").focus()
        page.keyboard.press("Shift+ArrowRight")
        for width in (360, 1280):
            page.set_viewport_size({"width": width, "height": 700})
            shown, (wide, high) = layout(page), frame(page)
            places = np.array([ball["at"][:2] for ball in shown["balls"]])
            assert (places > 0).all() and (places < (wide, high)).all()


def test_the_picture_is_on_the_first_screen(open_scene: OpenScene) -> None:
    for width, height in SCREENS:
        with open_scene(scene_of("rutile"), width=width) as page:
            page.set_viewport_size({"width": width, "height": height})
            frames_later(page)
            box = page.locator(".cf-structure").bounding_box()
            assert box is not None and box["y"] + box["height"] <= height


def test_atoms_are_drawn_where_the_layout_says(open_scene: OpenScene) -> None:
    """The colour in the middle of the front balls is that of their element."""
    scene = scene_of("copper")
    with open_scene(scene, frames="none", n_lines=0) as page:
        shown, image = layout(page), picture(page)
        front = sorted(shown["balls"], key=lambda ball: -ball["at"][2])[:3]
        for ball in front:
            seen = np.array(image.getpixel((round(ball["at"][0]) + 1, round(ball["at"][1]) + 1)), dtype=float)
            color = np.array([int(scene.elements[0].color[k : k + 2], 16) for k in (1, 3, 5)], dtype=float)
            assert np.abs(seen / seen.max() - color / color.max()).max() < 0.15


def test_bonds_of_a_metal_wait_until_asked_for(open_scene: OpenScene) -> None:
    with open_scene(scene_of("copper")) as page:
        before = picture(page)
        assert not page.get_by_label("bonds", exact=True).is_checked()
        page.get_by_label("bonds", exact=True).check()
        assert picture(page).tobytes() != before.tobytes()


def test_the_page_has_a_main_part_and_a_heading(open_scene: OpenScene) -> None:
    """Screen readers find their way by these; everything that is shown lies in the main part."""
    with open_scene(scene_of("rutile")) as page:
        assert page.get_by_role("heading", level=1).all_inner_texts() == ["TiO2 rutile TiO2"]
        assert page.get_by_role("main").locator(".cf-explorer").count() == 1


# --- hands ------------------------------------------------------------------------------------------------------------


def test_the_wheel_zooms_only_after_a_click_and_up_zooms_in(open_scene: OpenScene) -> None:
    with open_scene(scene_of("rutile")) as page:
        scale = layout(page)["scale"]
        page.mouse.move(*middle(page))
        page.mouse.wheel(0, -100)
        assert layout(page)["scale"] == scale
        assert page.locator(".cf-hint").is_visible()
        box = page.locator(".cf-structure").bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + 5, box["y"] + 5)
        page.mouse.wheel(0, -100)
        assert layout(page)["scale"] > 1.1 * scale
        page.mouse.move(5, 5)
        page.mouse.move(*middle(page))
        larger = layout(page)["scale"]
        page.mouse.wheel(0, -100)
        assert layout(page)["scale"] == larger


def test_keys_turn_zoom_fly_and_reset(open_scene: OpenScene) -> None:
    with open_scene(scene_of("rutile")) as page:
        focus(page)
        first, scale = page.evaluate(f"{VIEW}.view()"), layout(page)["scale"]
        page.keyboard.press("Shift+ArrowRight")
        turned = page.evaluate(f"{VIEW}.view()")
        assert not np.allclose(turned[4:], first[4:], atol=0.01) and layout(page)["scale"] == pytest.approx(scale)
        page.keyboard.press("+")
        assert layout(page)["scale"] == pytest.approx(1.15 * scale)
        page.keyboard.press("f")
        atom = page.evaluate(f"{VIEW.replace('structure()', 'model.get')}('atom')")
        shown, (wide, high) = layout(page), frame(page)
        ball = next(ball for ball in shown["balls"] if ball["site"] == atom and not any(ball["image"]))
        assert ball["at"][:2] == pytest.approx([wide / 2, high / 2], abs=1)
        page.keyboard.press("0")
        np.testing.assert_allclose(page.evaluate(f"{VIEW}.view()"), first, atol=1e-3)


@pytest.mark.parametrize("name", ["rutile", "quartz"])
def test_views_along_the_lattice_vectors(open_scene: OpenScene, name: str) -> None:
    """Atoms and their copies along the vector lie behind each other."""
    with open_scene(scene_of(name)) as page:
        for axis, letter in enumerate("abc"):
            page.get_by_role("button", name=f"Look along {letter}").click()
            balls = {(ball["site"], *ball["image"]): ball["at"] for ball in layout(page)["balls"]}
            step = [int(k == axis) for k in range(3)]
            pairs = [
                (at, balls[site, *(np.array(image) + step).tolist()])
                for (site, *image), at in balls.items()
                if (site, *(np.array(image) + step).tolist()) in balls
            ]
            assert pairs
            for near, far in pairs:
                assert near[:2] == pytest.approx(far[:2], abs=0.5) and far[2] > near[2]


def test_a_click_on_an_image_chooses_this_copy(open_scene: OpenScene) -> None:
    with open_scene(scene_of("copper")) as page:
        shown = layout(page)
        front = max((ball for ball in shown["balls"] if any(ball["image"])), key=lambda ball: ball["at"][2])
        at = page.evaluate(f"{VIEW}.pixelOf({front['site']}, {front['image']})")
        page.mouse.click(at["x"], at["y"])
        rods = [rod for rod in layout(page)["rods"] if rod["kind"] == "line"]
        assert all(rod["start"][:2] == pytest.approx(front["at"][:2], abs=1) for rod in rods)


def test_pointing_at_atoms_lines_and_axes_tells_their_numbers(open_scene: OpenScene) -> None:
    scene = scene_of("BaTiO3")
    with open_scene(scene, layer=1, head=0, atom=1, polyhedra="none") as page:
        lines = viz.strongest_edges(scene, 1, 0, 1)
        shown = layout(page)
        ends = [rod for rod in shown["rods"] if rod["kind"] == "line"]
        box = page.locator(".cf-structure").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 1 + ends[0]["end"][0], box["y"] + 1 + ends[0]["end"][1])
        frames_later(page, 3)
        words = page.locator(".cf-tip").inner_text()
        length = float(np.linalg.norm(lines.ends[0] - lines.start))
        assert f"{length:.2f} Å" in words and f"attention {lines.weight[0]:.3f}" in words and "rank 1" in words
        axis = next(rod for rod in shown["rods"] if rod["kind"] == "axis")
        page.mouse.move(box["x"] + 1 + axis["end"][0], box["y"] + 1 + axis["end"][1])
        frames_later(page, 3)
        assert page.locator(".cf-tip").is_visible()
        # The words go when the pointer leaves.
        page.mouse.move(2, 2)
        frames_later(page, 3)
        assert not page.locator(".cf-tip").is_visible()


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_a_click_in_the_legend_hides_an_element(open_scene: OpenScene) -> None:
    scene = scene_of("rutile")
    with open_scene(scene, n_lines=0) as page:
        legend = page.get_by_role("group", name="Elements").get_by_role("button")
        assert [one.inner_text() for one in legend.all()] == ["O", "Ti"]

        def oxygen() -> int:
            return sum(scene.elements[ball["site"]].symbol == "O" for ball in layout(page)["balls"])

        before = oxygen()
        assert before > 4
        legend.first.click()
        assert oxygen() == 0 and legend.first.get_attribute("aria-pressed") == "false"
        legend.first.click()
        assert oxygen() == before


def test_the_cell_can_be_chosen(open_scene: OpenScene) -> None:
    scene = scene_of("copper")
    with open_scene(scene, n_lines=0) as page:
        count = {}
        for choice in ("as given", "2 × 2 × 2", "primitive"):
            page.get_by_label("Cell that is drawn").select_option(label=choice)
            count[choice] = len(layout(page)["balls"])
        # Lattice points of the faces and corners included: 8 + 6, 63, 8.
        assert count == {"as given": 14, "2 × 2 × 2": 63, "primitive": 8}


@pytest.mark.parametrize("name", ["bonds", "cell", "images", "labels"])
def test_switches(open_scene: OpenScene, name: str) -> None:
    with open_scene(scene_of("rutile"), n_lines=0, polyhedra="none") as page:
        before = picture(page)
        page.get_by_label(name, exact=True).uncheck()
        assert picture(page).tobytes() != before.tobytes()
        page.get_by_label(name, exact=True).check()
        assert picture(page).tobytes() == before.tobytes()


def test_measuring_across_the_cell(open_scene: OpenScene) -> None:
    """Two atoms a distance, three an angle, four a dihedral angle, with images; by hand with numpy."""
    scene = scene_of("quartz")
    with open_scene(scene, n_lines=0, frames="none", polyhedra="none") as page:
        shown = layout(page)
        chosen = [ball for ball in shown["balls"] if any(ball["image"])][:2] + shown["balls"][:2]
        points = [scene.positions[ball["site"]] + np.array(ball["image"]) @ scene.lattice for ball in chosen]
        a, b, c = np.diff(points, axis=0)
        angle = np.degrees(np.arccos(-a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
        first, last = np.cross(a, b), np.cross(b, c)
        turn = np.degrees(np.arctan2(a @ last * np.linalg.norm(b), first @ last))
        words = ["second atom", f"{np.linalg.norm(a):.3f} Å", f"{angle:.1f}°", f"{turn:.1f}°"]
        for ball, expected in zip(chosen, words, strict=True):
            said = page.evaluate(f"{VIEW}.measure({{site: {ball['site']}, image: {ball['image']}}})")
            assert expected in said
        focus(page)
        page.keyboard.press("Escape")
        assert page.evaluate(f"{VIEW}.measurement()") == ""


def test_measuring_with_mouse_and_keys(open_scene: OpenScene) -> None:
    with open_scene(scene_of("BaTiO3")) as page:
        focus(page)
        page.keyboard.press("m")
        assert "second atom" in page.locator(".cf-measure").inner_text()
        front = max(layout(page)["balls"], key=lambda ball: ball["at"][2])
        at = page.evaluate(f"{VIEW}.pixelOf({front['site']}, {front['image']})")
        page.keyboard.down("Shift")
        page.mouse.click(at["x"], at["y"])
        page.keyboard.up("Shift")
        assert page.locator(".cf-measure").inner_text().endswith(" Å")


def test_next_site_help_and_table(open_scene: OpenScene) -> None:
    scene = scene_of("rutile")
    with open_scene(scene, atom=0) as page:
        focus(page)
        page.keyboard.press("n")
        frames_later(page)
        assert page.evaluate(f"{VIEW.replace('structure()', 'model.get')}('atom')") == 2
        page.keyboard.press("?")
        assert page.get_by_role("dialog").is_visible() and "dihedral" in page.get_by_role("dialog").inner_text()
        page.keyboard.press("Escape")
        assert not page.get_by_role("dialog").is_visible()
        page.get_by_text("Attention lines as a table").click()
        frames_later(page, 3)
        rows = page.locator(".cf-table tbody tr").all_inner_texts()
        assert len(rows) == len([rod for rod in layout(page)["rods"] if rod["kind"] == "line"])
        assert page.get_by_label("Atom whose attention is shown").locator("optgroup").count() == 2


# --- to keep ----------------------------------------------------------------------------------------------------------


def saved(page: Page, name: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("button", name=name).click()
    return Path(download.value.path()).read_bytes()


def test_labels_of_a_saved_picture_are_where_they_belong(open_scene: OpenScene) -> None:
    scene = scene_of("BaTiO3")
    with open_scene(scene, frames="selected") as page:
        before = picture(page)
        texts = layout(page)["texts"]
        image = Image.open(io.BytesIO(saved(page, "Save the structure as a PNG picture"))).convert("RGB")
        assert picture(page).tobytes() == before.tobytes()
        factor = image.width / frame(page)[0]
        assert factor == pytest.approx(4, abs=0.01)
        for text in (text for text in texts if text["text"][0] == "e"):
            color = np.array([int(text["color"][k : k + 2], 16) for k in (1, 3, 5)])
            x, y = (round(factor * text[name]) for name in "xy")
            patch = np.asarray(image.crop((x - 40, y - 40, x + 40, y + 40)), dtype=int)
            assert (np.abs(patch - color).max(axis=2) < 12).sum() > 60


def test_svg_csv_and_cif(open_scene: OpenScene) -> None:
    from pymatgen.core import Structure

    scene = scene_of("rutile")
    with open_scene(scene, layer=1, head=1, atom=1) as page:
        drawing = ElementTree.fromstring(saved(page, "Save the structure as an SVG picture"))
        words = [one.text for one in drawing.iter("{http://www.w3.org/2000/svg}text")]
        assert {"e₁", "e₂", "e₃", "Ti2", "a", "b", "c"} <= set(words)
        assert len(list(drawing.iter("{http://www.w3.org/2000/svg}circle"))) == 2 * len(layout(page)["balls"])
        about, heads, *rows = saved(page, "Save the attention lines as a table (CSV)").decode().splitlines()
        lines = viz.strongest_edges(scene, 1, 1, 1)
        assert about.startswith("# Ti2, layer 1, head 1") and heads.startswith("rank,atom,image")
        assert len(rows) == len(lines.edges)
        for row, weight, end in zip(rows, lines.weight, lines.ends, strict=True):
            _, _, _, distance, attention = row.split(",")
            assert float(attention) == pytest.approx(weight, rel=1e-3)
            assert float(distance) == pytest.approx(np.linalg.norm(end - lines.start), abs=1e-3)
        again = Structure.from_str(saved(page, "Save the crystal (CIF)").decode(), fmt="cif")
        assert again.matches(
            Structure(
                scene.lattice, [item.symbol for item in scene.elements], scene.positions, coords_are_cartesian=True
            )
        )


def test_the_page_is_dark_where_the_browser_is(open_scene: OpenScene) -> None:
    with open_scene(scene_of("rutile")) as page:
        bright = picture(page).getpixel((3, 3))
        page.emulate_media(color_scheme="dark")
        dark = picture(page).getpixel((3, 3))
        assert bright == (255, 255, 255) and dark == (0x1B, 0x1E, 0x23)
        page.evaluate("document.body.dataset.jpThemeLight = 'true'")
        assert picture(page).getpixel((3, 3)) == (255, 255, 255)
