"""The motif explorer in Python: the chosen site determines shell, text, figures and polyhedron."""

from __future__ import annotations

import json

import numpy as np
import pytest
from refusals import refused
from synthetic_traces import perovskite, skewed, synthetic_trace

from crystalframer.analysis import Shell, coordination_shells
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import MotifError
from crystalframer.testing import random_crystal, rewrapped
from crystalframer.traces import CrystalTrace
from viz import MotifExplorer, Scene, motif_angle_figure, scene_from_trace, scene_with_shells
from viz.motif_explorer import describe_shell

PLOTLY = "application/vnd.plotly.v1+json"


@pytest.fixture
def explorer() -> MotifExplorer:
    return MotifExplorer([synthetic_trace(perovskite()), synthetic_trace(skewed())], site=1)


def titles(explorer: MotifExplorer) -> list[str]:
    outputs = (output for part in (explorer._angles, explorer._shares) for output in part.outputs)
    return [output["data"][PLOTLY]["layout"]["title"]["text"] for output in outputs]


@pytest.mark.parametrize("crystal", [perovskite(), rewrapped(perovskite(), 0)], ids=["at home", "elsewhere"])
def test_shells_are_the_polyhedra(crystal: Crystal) -> None:
    """Corners lie at the neighbours, whatever cells the trace has its atoms in."""
    trace = synthetic_trace(crystal)
    scene = scene_from_trace(trace)
    shells = {shell.site: shell for shell in coordination_shells(trace)}
    solids = scene_with_shells(scene, shells.values()).polyhedra
    assert [solid.center for solid in solids] == [0, 1]
    for solid in solids:
        corners = scene.places(solid.key, solid.image) - scene.positions[solid.center]
        np.testing.assert_allclose(corners, shells[solid.center].vectors, atol=1e-5)


def test_the_site_decides_what_is_shown(explorer: MotifExplorer) -> None:
    assert explorer.view is not None and explorer.view.atom == 1
    assert all("Ti1, octahedron (O:6" in title for title in titles(explorer))
    assert "Ti1: octahedron (O:6), symmetry measure 0.00. 6 neighbours: 6 O at 1.95 Å." in explorer._words.value
    explorer.site = 0
    assert explorer.view.atom == 0 and explorer.shell.label == "C:12"
    assert all("Sr1, cuboctahedron (C:12" in title for title in titles(explorer))
    (output,) = explorer._angles.outputs
    assert output["data"][PLOTLY] == json.loads(str(motif_angle_figure(explorer.trace, explorer.shell).to_json()))


def test_a_click_in_the_picture_chooses_the_site(explorer: MotifExplorer) -> None:
    assert explorer.view is not None
    explorer.view.atom = 3
    assert explorer.site == 3 and "O2" in titles(explorer)[0]


def test_another_structure_keeps_layer_and_head(explorer: MotifExplorer) -> None:
    first = explorer.view
    assert first is not None
    first.layer, first.head = 2, None
    explorer.structure = 1
    second = explorer.view
    assert second is not None and second is not first
    assert (second.layer, second.head, second.atom, explorer.site) == (2, None, 0, 0)
    assert explorer._stage.children == (second,)
    assert len(explorer._site.options) == explorer.trace.n_atoms and "skewed" in titles(explorer)[0]


def test_polyhedra_and_frames_are_those_of_the_site(explorer: MotifExplorer) -> None:
    assert explorer.view is not None
    assert (explorer.view.frames, explorer.view.polyhedra) == ("selected", "selected")
    scene: Scene = explorer.view.scene
    assert [(solid.center, len(solid.key)) for solid in scene.polyhedra] == [(0, 12), (1, 6)]


def test_the_comparison_follows_the_motif_of_the_site(explorer: MotifExplorer) -> None:
    assert explorer._comparison.outputs == ()
    explorer._compare.click()
    table, figure = (output["data"] for output in explorer._comparison.outputs)
    assert "<td>O:6</td>" in table["text/html"] and "2 structures" in table["text/html"]
    assert "(O:6)" in figure[PLOTLY]["layout"]["title"]["text"]
    made = explorer.table
    explorer.site = 0
    assert "(C:12)" in explorer._comparison.outputs[1]["data"][PLOTLY]["layout"]["title"]["text"]
    assert explorer.table is made


def test_controls_have_names_and_hints(explorer: MotifExplorer) -> None:
    for control in (explorer._structure, explorer._site, explorer._compare):
        assert control.description and control.tooltip


def test_without_frames_the_figure_gives_way_to_a_sentence() -> None:
    explorer = MotifExplorer([synthetic_trace(random_crystal(0, 4), method="none")])
    (output,) = explorer._angles.outputs
    assert "no frames (method none)" in output["data"]["text/html"]
    assert PLOTLY in explorer._shares.outputs[0]["data"]


def test_a_shell_that_cannot_be_found_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(trace: CrystalTrace, sites: list[int]) -> list[Shell]:
        if sites == [2]:
            raise MotifError("finds no neighbours: <flat>", site=2)
        return coordination_shells(trace, sites=sites)

    monkeypatch.setattr("viz.motif_explorer.coordination_shells", stumble)
    explorer = MotifExplorer([synthetic_trace(perovskite())], site=2)
    assert "finds no neighbours" in explorer._words.value and "&lt;flat&gt;" in explorer._words.value
    assert explorer._angles.outputs == ()
    with refused(MotifError):
        _ = explorer.shell
    explorer.site = 1
    assert len(titles(explorer)) == 2


def test_a_range_of_bond_lengths_is_named() -> None:
    trace = synthetic_trace(skewed())
    for shell in coordination_shells(trace):
        words = describe_shell(trace, shell)
        assert f"{len(shell)} neighbour" in words and words.endswith("Å.")
