"""What stands beside a prediction: intervals, flags and origin, the same on all pages, cards and records."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from synthetic_traces import perovskite, synthetic_trace

import crystalframer as cf
import viz
from crystalframer.model.network import CrystalFramer
from crystalframer.notes import PredictionNotes
from crystalframer.testing import random_crystal

SRTIO3 = Path(__file__).parents[1] / "notebooks" / "structures" / "SrTiO3.cif"
NOTES = PredictionNotes(
    {"formation_energy_per_atom": (-3.6, -3.4)},
    0.9,
    {"not relaxed": "atoms <b>too</b> close"},
    "mine",
    "1.0",
    "2026-12-01",
)


@pytest.fixture(scope="module")
def model() -> cf.CrystalFramer:
    return cf.load()


def test_notes_of_a_trace_and_an_explanation_are_those_of_predict(model: cf.CrystalFramer) -> None:
    table = cf.predict(SRTIO3, model, progress=False)
    for record in (cf.trace(SRTIO3, model), cf.explain(SRTIO3, model, progress=False)):
        assert record.notes.coverage == model.uncertainty.coverage  # type: ignore[union-attr]
        for name, ends in record.notes.intervals.items():
            np.testing.assert_allclose(ends, table.loc[0, [f"{name}_low", f"{name}_high"]].tolist(), rtol=1e-4)
        assert record.notes.intervals and not record.notes.flags
        assert record.notes.model == model.source and "shipped weights" in record.notes.origin


def test_notes_come_from_the_evaluation_that_is_recorded(model: cf.CrystalFramer) -> None:
    """The crystal is not computed a second time; also where only some atoms are recorded."""
    whole = cf.trace(SRTIO3, model)
    with (
        patch.object(CrystalFramer, "layers", side_effect=AssertionError) as again,
        patch.object(
            CrystalFramer, "layers_in_chunks", autospec=True, side_effect=CrystalFramer.layers_in_chunks
        ) as once,
    ):
        assert cf.trace(SRTIO3, model).notes == whole.notes
        assert cf.explain(SRTIO3, model, progress=False).notes.intervals.keys() == whole.notes.intervals.keys()
        assert not once.called
        region = cf.trace(SRTIO3, model, sites=[1])
        assert once.call_count == 1 and not again.called
    assert region.notes.flags == whole.notes.flags
    for name, ends in region.notes.intervals.items():
        np.testing.assert_allclose(ends, whole.notes.intervals[name], rtol=1e-4)


def test_a_crystal_unlike_the_training_data_has_a_flag(model: cf.CrystalFramer) -> None:
    crystal = random_crystal(0, n_atoms=4, volume_per_atom=150.0)
    notes = cf.trace(crystal, model).notes
    assert notes.flags["outside the training data"] == cf.predict(crystal, model, progress=False).outside_training[0]


def test_a_model_without_intervals_says_nothing(model: cf.CrystalFramer) -> None:
    import copy

    plain = copy.deepcopy(model)
    plain.uncertainty = plain.domain = plain.index = plain.soundness = None
    notes = cf.trace(SRTIO3, plain).notes
    assert (notes.intervals, notes.flags, notes.coverage) == ({}, {}, None) and notes.version == cf.__version__


def test_records_keep_their_notes(tmp_path: Path) -> None:
    trace = replace(synthetic_trace(perovskite()), notes=NOTES)
    assert cf.CrystalTrace.load(trace.save(tmp_path / "trace.safetensors")).notes == NOTES


def test_notes_stand_on_page_and_card_as_text() -> None:
    trace = replace(synthetic_trace(perovskite()), notes=NOTES)
    state = json.loads(re.findall(r'id="state">(.*?)</script>', viz.explorer_html(viz.scene_from_trace(trace)))[0])
    header = state["header"]
    assert header["prediction"][0]["interval"] == {"text": "−3.60 to −3.40", "about": "90% prediction interval"}
    assert header["flags"] == [{"title": "not relaxed", "reason": "atoms <b>too</b> close"}]
    assert header["origin"] == "model: mine, crystalframer 1.0, 2026-12-01"
    card = trace._repr_html_()
    assert "90% prediction interval −3.60 to −3.40" in card and "atoms &lt;b&gt;too&lt;/b&gt; close" in card


@pytest.mark.parametrize(
    "notes",
    [{"intervals": {"x": [1.0]}}, {"intervals": [1]}, {"flags": {"x": 1}}, {"model": 3}, "text", {"coverage": "x"}],
)
def test_damaged_notes_are_refused(notes: object) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        PredictionNotes.from_header({"notes": notes})


def test_records_of_older_versions_have_none() -> None:
    assert PredictionNotes.from_header({}) == PredictionNotes()
