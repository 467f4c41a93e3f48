"""Links between real widgets in Python: what is selected in one is selected in the others."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from refusals import refused
from synthetic_traces import perovskite, synthetic_trace

import viz
from crystalframer.testing import random_crystal
from viz import SceneError

TRACE = synthetic_trace(perovskite())
SMALL = synthetic_trace(random_crystal(0, 3), n_layers=2, n_heads=2)
CRYSTALS = [random_crystal(seed, 4 + seed) for seed in range(3)]
IDS = ["a", "b", "c"]


def data_set(**options: Any) -> viz.DatasetExplorer:
    table = pd.DataFrame({"id": IDS, "label": [1.0, 2.0, 3.0], "prediction": [1.1, 2.5, 2.9]})
    return viz.DatasetExplorer(table, dict(zip(IDS, CRYSTALS, strict=True)), **options)


def test_layer_head_and_atom_go_both_ways() -> None:
    first, second = viz.AttentionExplorer(TRACE), viz.AttentionExplorer(TRACE)
    third = viz.FrameComparison([TRACE, TRACE])
    viz.link(first, second, third)
    first.layer, first.atom = 2, 3
    assert (second.layer, second.atom, third.layer, third.atom) == (2, 3, 2, 3)
    third.head = 1
    assert (first.head, second.head) == (1, 1)


def test_a_new_link_takes_the_selection_of_the_first_widget() -> None:
    first, second = viz.AttentionExplorer(TRACE, layer=2, head=3, atom=4), viz.AttentionExplorer(TRACE)
    viz.link(first, second)
    assert (second.layer, second.head, second.atom) == (2, 3, 4)


def test_a_widget_follows_only_where_it_can() -> None:
    large, small = viz.AttentionExplorer(TRACE, layer=0, head=0, atom=0), viz.AttentionExplorer(SMALL, layer=1)
    viz.link(large, small)
    assert small.layer == 0
    large.layer, large.atom = 2, 1
    assert (small.layer, small.atom) == (0, 1)
    large.head = None
    assert small.head is None


def test_only_what_is_asked_for_is_linked_until_it_is_unlinked() -> None:
    first, second = viz.AttentionExplorer(TRACE, head=0), viz.AttentionExplorer(TRACE, head=1)
    linked = viz.link(first, second, choices=["layer"])
    first.layer, first.atom = 1, 4
    assert second.layer == 1 and second.atom != 4 and second.head == 1
    linked.unlink()
    first.layer = 2
    assert second.layer == 1 and "unlinked" in repr(linked)


def test_the_crystal_of_a_data_set_opens_in_an_explorer_and_in_another_data_set() -> None:
    traces = {name: synthetic_trace(crystal) for name, crystal in zip(IDS[:2], CRYSTALS[:2], strict=True)}
    first, second = data_set(traces=traces), data_set()
    explorer = viz.AttentionExplorer(TRACE, layer=2, head=3)
    linked = viz.link(first, second, explorer)
    first.chosen = "b"
    assert second.chosen == "b"
    assert explorer.scene.n_atoms == len(CRYSTALS[1]) and (explorer.layer, explorer.head) == (2, 3)
    second.chosen = "a"
    assert first.chosen == "a" and explorer.scene.n_atoms == len(CRYSTALS[0])
    first.chosen = "c"  # has no trace
    assert second.chosen == "c" and explorer.scene.n_atoms == len(CRYSTALS[0])
    linked.unlink()
    first.chosen = "b"
    assert second.chosen == "c"


def test_an_explorer_shows_another_crystal() -> None:
    explorer = viz.AttentionExplorer(TRACE, layer=2, head=3, pinned={"layer": 1, "head": 0, "atom": "O2"})
    sent: list[Any] = []
    explorer.observe(lambda change: sent.append(change["name"]), ["header", "data", "layer", "head", "pinned"])
    explorer.show(SMALL)
    assert (explorer.layer, explorer.pinned) == (1, {}) and explorer.head in (0, 1)
    assert explorer.header["labels"] == list(explorer.scene.labels) and {"header", "data"} <= set(sent)
    assert explorer.to_html()


@pytest.mark.parametrize(
    ("widgets", "options", "field"),
    [
        ((viz.AttentionExplorer(TRACE),), {}, "widgets"),
        ((viz.AttentionExplorer(TRACE), "text"), {}, "widgets"),
        ((viz.AttentionExplorer(TRACE), viz.AttentionExplorer(TRACE)), {"choices": ["colour"]}, "choices"),
    ],
)
def test_what_cannot_be_linked(widgets: Any, options: Any, field: str) -> None:
    with refused(SceneError, field=field):
        viz.link(*widgets, **options)
