"""The explorer in Python: values, messages, and the exported page. (Sliders, clicks and pixels: tests/browser.)"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refused
from synthetic_traces import synthetic_trace

from crystalframer.crystals.crystal import Crystal
from crystalframer.testing import random_crystal
from crystalframer.traces import CrystalTrace
from viz import AttentionExplorer, Scene, SceneError, dataset_page, explorer_html, strongest_edges
from viz.encoding import encode
from viz.explorer_page import ENTRIES, FRONTEND, MODULES, frontend_script

MOST_BYTES = 1_500_000


@pytest.fixture
def explorer(perovskite_trace: CrystalTrace) -> AttentionExplorer:
    return AttentionExplorer(perovskite_trace, layer=1, head=2, atom=1)


def test_values_can_be_set_and_observed(explorer: AttentionExplorer) -> None:
    seen = []
    explorer.observe(lambda change: seen.append((change["name"], change["new"])), ["layer", "head", "atom"])
    explorer.layer, explorer.head, explorer.atom = 2, None, 4
    assert seen == [("layer", 2), ("head", None), ("atom", 4)]


def test_a_step_sends_one_number(explorer: AttentionExplorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All else went to the browser when the explorer was made."""
    sent: list[object] = []
    monkeypatch.setattr(explorer, "_send", lambda message, buffers=None: sent.append((message["state"], buffers)))
    explorer.layer = 2
    assert sent == [({"layer": 2}, [])]


def test_frames_and_polyhedra_of_large_cells_wait_until_asked_for() -> None:
    few, some, many = (AttentionExplorer(synthetic_trace(random_crystal(0, n), radius=3.0)) for n in (8, 40, 41))
    assert (few.frames, few.polyhedra) == ("all", "all")
    assert (some.frames, some.polyhedra) == ("selected", "all")
    assert (many.frames, many.polyhedra) == ("selected", "selected")


def test_the_first_sight_is_a_metal_in_its_polyhedron_and_a_head_that_looks_away(
    perovskite_trace: CrystalTrace,
) -> None:
    explorer = AttentionExplorer(perovskite_trace)
    assert explorer.scene.labels[explorer.atom] == "Ti1"
    stays = [strongest_edges(explorer.scene, 0, head, 1).itself for head in range(explorer.scene.n_heads)]
    assert explorer.head == int(np.argmin(stays))
    state = json.loads(element(explorer_html(explorer.scene), "state"))
    assert (state["atom"], state["head"]) == (explorer.atom, explorer.head)


def test_a_metal_in_a_plane_comes_before_other_atoms() -> None:
    """It has no polyhedron; in frameworks of paddle wheels it is what chemists look for."""
    oxygen = [[1.95, 0, 0], [-1.95, 0, 0], [0, 1.95, 0], [0, -1.95, 0]]
    carbon = [[2.85, 0.7, 0], [2.85, -0.7, 0], [4.05, 0, 0], [5.4, 0.7, 0], [5.4, -0.7, 0], [6.6, 0, 0]]
    places = np.add([[0.0, 0.0, 0.0], *oxygen, *carbon], [3.0, 4.0, 4.0])
    crystal = Crystal(np.array([29, *[8] * 4, *[6] * 6]), places, np.diag([14.0, 8.0, 8.0]))
    scene = AttentionExplorer(synthetic_trace(crystal, n_layers=1, n_heads=1)).scene
    assert not any(hull.center == 0 for hull in scene.polyhedra)
    assert AttentionExplorer(scene).atom == 0


def test_atoms_by_their_label(perovskite_trace: CrystalTrace) -> None:
    assert AttentionExplorer(perovskite_trace, atom="O2").atom == 3
    with refused(SceneError, "'O9'", "Sr1, Ti1", field="atom"):
        AttentionExplorer(perovskite_trace, atom="O9")


def test_a_saved_notebook_keeps_the_page_and_a_picture(explorer: AttentionExplorer) -> None:
    """For readers without a kernel: the page as it is now in a frame, and a PNG picture."""
    data, _ = explorer._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    assert html.escape(explorer.to_html()) in data["text/html"]
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert min(picture.size) > 300 and len(picture.convert("RGB").getcolors(1 << 24) or ()) > 100


def test_a_trace_without_frames() -> None:
    explorer = AttentionExplorer(synthetic_trace(random_crystal(0, 4), method="none"))
    assert explorer.header["method"] == "none" and "axes" not in explorer.header["arrays"]


# --- the page ---------------------------------------------------------------------------------------------------------


def element(page: str, name: str) -> str:
    (text,) = re.findall(rf'<script type="application/[a-z-]+" id="{name}">(.*?)</script>', page, re.DOTALL)
    return text


def test_the_page_holds_what_is_shown_now(explorer: AttentionExplorer, tmp_path: Path) -> None:
    explorer.frames, explorer.polyhedra = "selected", "none"
    page = explorer.to_html(tmp_path / "explorer.html")
    assert (tmp_path / "explorer.html").read_text(encoding="utf-8") == page
    state = json.loads(element(page, "state"))
    assert {name: state[name] for name in ("layer", "head", "atom", "frames", "polyhedra", "n_lines")} == {
        "layer": 1,
        "head": 2,
        "atom": 1,
        "frames": "selected",
        "polyhedra": "none",
        "n_lines": 12,
    }
    assert state["display"] == {}
    header, data = encode(explorer.scene)
    assert state["header"] == json.loads(json.dumps(header))
    assert gzip.decompress(base64.b64decode(element(page, "data"))) == data
    assert gzip.decompress(base64.b64decode(element(page, "module"))).decode() == frontend_script()


def test_the_page_names_no_address(explorer: AttentionExplorer) -> None:
    page = explorer.to_html()
    assert not re.search(r"https?:|//cdn|src=|href=", page)


def test_the_same_scene_gives_the_same_page(scene: Scene) -> None:
    assert explorer_html(scene) == explorer_html(scene)


def test_the_page_is_small() -> None:
    """40 atoms × 4 layers × 8 heads of random attention, which compresses far worse than that of a model."""
    trace = synthetic_trace(random_crystal(0, 40, volume_per_atom=12.0), radius=7.4, n_layers=4, n_heads=8)
    assert len(AttentionExplorer(trace).to_html().encode()) <= MOST_BYTES


# --- the modules ------------------------------------------------------------------------------------------------------


def test_modules_import_only_from_those_before_them() -> None:
    for entry in ENTRIES:
        names = (*MODULES, entry)
        for number, name in enumerate(names):
            text = (FRONTEND / name).read_text(encoding="utf-8")
            imported = re.findall(r'^import .* from "\./(.*)";$', text, re.MULTILINE)
            assert set(imported) <= set(names[:number])
    of_map = dataset_page.MODULES
    for number, name in enumerate(of_map):
        text = (FRONTEND / name).read_text(encoding="utf-8")
        imported = re.findall(r'^import .* from "\./(.*)";$', text, re.MULTILINE)
        assert set(imported) <= {*MODULES, *of_map[:number]}
    assert {path.name for path in FRONTEND.glob("*.js")} == {*MODULES, *ENTRIES, *of_map}


@pytest.mark.parametrize("entry", ENTRIES)
def test_modules_join_into_one_without_a_name_twice(entry: str) -> None:
    script = frontend_script(entry)
    assert not re.search(r"^import ", script, re.MULTILINE)
    (exported,) = re.findall(r"^export .*", script, re.MULTILINE)
    assert exported.startswith("export default { render, pageModel")
    own = "\n".join((FRONTEND / name).read_text(encoding="utf-8") for name in (*MODULES, entry))
    names = re.findall(r"^(?:export )?(?:async )?(?:function|class|const) (\w+)", own, re.MULTILINE)
    assert sorted(names) == sorted(set(names))


def test_modules_of_the_map_join_into_one_without_a_name_twice() -> None:
    script = dataset_page.dataset_script()
    assert not re.search(r"^import ", script, re.MULTILINE)
    assert re.findall(r"^export .*", script, re.MULTILINE) == ["export default { render: renderDataset, pageModel };"]
    own = "\n".join((FRONTEND / name).read_text(encoding="utf-8") for name in dataset_page.MODULES)
    names = re.findall(r"^(?:export )?(?:async )?(?:function|class|const) (\w+)", own, re.MULTILINE)
    shared = re.findall(r"^const \{ (.*) \} = crystalExplorer;$", script, re.MULTILINE)[0].split(", ")
    assert sorted([*names, *shared]) == sorted({*names, *shared})
