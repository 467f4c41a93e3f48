"""What is out of range, unknown or missing is refused by name, and it is said what could be chosen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from refusals import refused
from synthetic_traces import perovskite, skewed, synthetic_trace, whole_and_region
from traitlets import TraitError

import viz
from crystalframer.analysis import Shell, coordination_shells, motif_summary, motif_table
from crystalframer.errors import MotifError
from crystalframer.testing import random_crystal
from viz import FigureError, SceneError
from viz.errors import NotATraceError
from viz.palette import element

TRACE = synthetic_trace(perovskite())
SCENE = viz.scene_from_trace(TRACE)
SHIFTED = replace(SCENE, positions=SCENE.positions + 0.1, id="shifted")
BARE = replace(TRACE, layers=tuple(replace(layer, frame=None) for layer in TRACE.layers))
BARE_SHELL = coordination_shells(BARE, sites=[1])[0]
EMPTY_SHELL = Shell(2, np.empty(0, int), np.empty((0, 3), int), np.empty(0, int), np.empty((0, 3)))
SUMMARY, BARE_SUMMARY = (motif_summary(motif_table([trace])) for trace in (TRACE, BARE))
REGION = whole_and_region(perovskite(), [1, 2])[1]
HISTORY = pd.DataFrame({"epoch": [1], "train_mae/gap": [1.0], "validation_mae/gap": [1.2]})
ONE, TWO = np.array([1.0]), np.array([1.0, 2.0])

OUT_OF_RANGE: tuple[tuple[str, Any, str], ...] = (
    ("layer", 3, "0 to 2"), ("layer", -1, "0 to 2"), ("head", 4, "0 to 3"), ("head", -1, "0 to 3"),
    ("atom", 5, "0 to 4"),
)  # fmt: skip
WRONG = (*OUT_OF_RANGE, ("frames", "some", "selected, all, none"), ("polyhedra", "some", "selected, all, none"))
"""Name and value of an option, and what can be chosen."""
TO_COMPARE = {"max": TRACE, "pca": synthetic_trace(perovskite(), "pca", n_layers=2, n_heads=3)}
TO_BROWSE = [TRACE, synthetic_trace(skewed())]

Case = tuple[Callable[[], object], str, tuple[Any, ...]]
"""A call, the field of the error, and words of it."""


def calls_with(wrong: tuple[tuple[str, Any, str], ...], *functions: Callable[..., object]) -> list[Case]:
    return [(partial(f, **{name: value}), name, (value, words)) for f in functions for name, value, words in wrong]


def set_to(make: Callable[[], object], **options: Any) -> None:
    """As an option of a widget that is there."""
    widget = make()
    ((name, value),) = options.items()
    before = getattr(widget, name)
    try:
        setattr(widget, name, value)
    finally:
        assert getattr(widget, name) == before


def strongest(layer: Any = 0, head: Any = 0, atom: Any = 0, n_lines: int = 12) -> None:
    viz.strongest_edges(SCENE, layer, head, atom, n_lines=n_lines)


explore = partial(viz.AttentionExplorer, TRACE)
compare = partial(viz.FrameComparison, TO_COMPARE)
browse = partial(viz.MotifExplorer, TO_BROWSE)
OF_COMPARISON = (("layer", 2, "0 to 1"), ("layer", -1, "0 to 1"), ("head", 3, "0 to 2"), ("atom", 5, "0 to 4"))
OF_MOTIFS = (("structure", 2, "0 to 1"), ("structure", -1, "0 to 1"), ("site", 5, "0 to 4"))
SCENES: list[Case] = [
    *calls_with(OUT_OF_RANGE, strongest),
    *calls_with((("layer", 1.0, "0 to 2"), ("layer", "1", "0 to 2"), ("n_lines", -1, "0 or more")), strongest),
    *calls_with(WRONG, partial(viz.explorer_html, SCENE)),
    *calls_with(OF_MOTIFS, browse, partial(set_to, browse)),
    (lambda: viz.attention_grid(SCENE, 9), "layer", (9,)),
    (lambda: viz.drawing("SrTiO3", 0, 0, 1), "scene", ("scene_from_trace",)),  # type: ignore[arg-type]
    *calls_with((("frames", "select", "'selected'"), ("polyhedra", "select", "'selected'")),
                partial(viz.drawing, SCENE, 0, 0, 1)),
    (lambda: viz.structure_figure(SCENE, 0, 9, 0), "head", (9,)),
    (lambda: viz.frame_comparison_figure([SCENE, SHIFTED], 1), "scenes", ("scene 1 (shifted)", "SrTiO3")),
    (lambda: viz.frame_comparison_figure([], 1), "scenes", ()),
    (lambda: viz.frame_comparison_figure([SCENE], 1, layers=()), "layers", ()),
    (lambda: viz.frame_comparison_figure([SCENE], 1, layers=(0, 7)), "layer", (7,)),
    (lambda: viz.drawing(viz.scene_from_trace(REGION), 0, 0, 3), "atom", (3, "0 to 1")),
    (lambda: viz.FrameComparison({}), "scenes", ()),
    (lambda: viz.FrameComparison({"max": TRACE, "x": TO_BROWSE[1]}), "scenes", ("skewed", "SrTiO3")),
    (lambda: viz.MotifExplorer([]), "traces", ()),
    *((partial(element, z), "atomic_number", (z, "98")) for z in (0, 99, -1)),
]  # fmt: skip
WIDGETS: list[Case] = [
    *calls_with(WRONG, explore, partial(set_to, explore)),
    *calls_with(OF_COMPARISON, compare, partial(set_to, compare)),
]
FIGURES: list[Case] = [
    (lambda: viz.axis_turns(BARE), "frame_method", ("SrTiO3",)),
    (lambda: viz.anchor_distances(BARE), "frame_method", ("SrTiO3", "max or static-max")),
    (lambda: viz.axis_turn_figure(replace(TRACE, layers=TRACE.layers[:1])), "n_layers", ("SrTiO3",)),
    (lambda: viz.motif_angle_figure(BARE, BARE_SHELL), "frame_method", ()),
    (lambda: viz.motif_summary_figure(SUMMARY, "T:4"), "label", ("'T:4'", "C:12, L:2, O:6")),
    (lambda: viz.motif_summary_figure(BARE_SUMMARY, "O:6"), "label", ("no angles",)),
    (lambda: viz.parity_figure(TWO, ONE, label="gap (eV)"), "actual", ("2 predictions", "1 labels")),
    (lambda: viz.parity_figure(ONE, ONE, label="gap (eV)", ids=["a", "b"]), "ids", ("1 labels", "2 ids")),
    (lambda: viz.parity_figure(ONE, np.array([np.nan]), label="gap (eV)"), "actual", ()),
    (lambda: viz.learning_curve(HISTORY, "gaps"), "target", ("'gaps'", "did you mean 'gap'?")),
    (lambda: viz.learning_curve(HISTORY, "mae/gap"), "target", ("'mae/gap'", "did you mean 'gap'?")),
    (lambda: viz.learning_curve(HISTORY.drop(columns="epoch"), "gap"), "epoch", ()),
]


@pytest.mark.usefixtures("as_in_production")
@pytest.mark.parametrize(
    ("kinds", "case"),
    [
        ((NotATraceError, TypeError), (lambda: viz.scene_from_trace("x.cif"), "trace", ("str", "crystalframer.trace"))),  # type: ignore[arg-type]
        *(((SceneError,), case) for case in SCENES),
        *(((SceneError, TraitError), case) for case in WIDGETS),
        *(((FigureError,), case) for case in FIGURES),
    ],
)
def test_it_is_refused_by_name(kinds: tuple[type[Any], ...], case: Case) -> None:
    call, field, words = case
    with refused(kinds[0], *words, field=field) as caught:
        call()
    assert all(isinstance(caught.value, kind) for kind in kinds)


def test_sites_are_refused_by_number() -> None:
    with refused(FigureError, site=2):
        viz.motif_angle_figure(synthetic_trace(random_crystal(0, 4)), EMPTY_SHELL)
    with refused(MotifError, 3):
        coordination_shells(REGION, sites=[3])


def test_a_wrong_index_is_named_before_a_large_library_is_imported() -> None:
    with refused(SceneError, 9, field="layer"):
        viz.toolkit_scene(SCENE, 9, 0, 0)
    assert "crystal_toolkit" not in sys.modules
