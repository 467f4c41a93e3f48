"""Errors by element and size: computed from an evaluation, kept in a checkpoint, and refused where they are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from refusals import refused

import crystalframer as cf
from crystalframer.checkpoint import ERRORS_FILE, add_errors
from crystalframer.errors import CheckpointError
from crystalframer.measured_errors import MeasuredErrors, measured


def rows(**columns: list) -> pandas.DataFrame:
    frame = pandas.DataFrame(
        {"id": ["a", "b", "c"], "formula": ["NaCl", "ClF", "C2Cl"], "n_atoms": [2, 15, 500], "target": "gap"}
    )
    return frame.assign(**columns)


def known(errors: MeasuredErrors | None, kind: str) -> dict[str, tuple[int, float]]:
    assert errors is not None
    return {row.group: (row.n_crystals, row.error) for row in errors.rows if row.kind == kind}


def test_errors_are_means_over_the_crystals_of_a_group() -> None:
    frame = rows(label=[1.0, 2.0, np.nan], prediction=[1.5, 1.0, 3.0], deviation=[0.5, -1.0, np.nan])
    errors = measured(frame, "crystals")
    assert known(errors, "all") == {"": (2, 0.75)}
    assert known(errors, "element") == {"Cl": (2, 0.75), "F": (1, 1.0), "Na": (1, 0.5)}
    assert known(errors, "size") == {"1–10 atoms": (1, 0.5), "11–20 atoms": (1, 1.0)}


def test_of_classes_the_error_is_the_share_of_wrong_ones() -> None:
    errors = measured(rows(label=["x", "y", "x"], prediction=["x", "x", "y"]), "crystals")
    assert known(errors, "all") == {"": (3, 2 / 3)}
    assert known(errors, "element")["C"] == (1, 1.0)


def test_nothing_is_measured_without_labels() -> None:
    assert measured(rows(label=[np.nan] * 3, prediction=[1.0] * 3, deviation=[np.nan] * 3), "crystals") is None


def test_an_evaluation_counts_the_crystals_that_its_scores_count() -> None:
    data = cf.dataset("demo").select(range(12))
    evaluation = cf.evaluate(data, cf.load(device="cpu"))
    assert evaluation.errors is not None
    (everywhere,) = evaluation.errors.of("band_gap", "all")
    score = evaluation.scores["band_gap"]
    assert everywhere.n_crystals == score.n_crystals and everywhere.error == pytest.approx(score.mae, rel=1e-12)
    counts = [row.n_crystals for row in evaluation.errors.of("band_gap", "size")]
    assert sum(counts) == score.n_crystals


def test_the_shipped_weights_know_their_errors() -> None:
    """The mean error in the model card is the one over all crystals here."""
    errors = cf.load(device="cpu").errors
    assert errors is not None and errors.n_crystals == 3653
    (energy,) = errors.of("formation_energy_per_atom", "all")
    assert energy.error == pytest.approx(0.0392, abs=5e-5)


def test_errors_are_kept_with_a_model(tmp_path: Path) -> None:
    model = cf.load(device="cpu")
    cf.save(model, tmp_path / "copy")
    assert cf.load(tmp_path / "copy", "cpu").errors == model.errors


def test_damaged_errors_and_those_of_other_weights_are_refused(tmp_path: Path) -> None:
    model = cf.load(device="cpu")
    cf.save(model, tmp_path / "copy")
    file = tmp_path / "copy" / ERRORS_FILE
    text = file.read_text(encoding="utf-8")
    changed = json.loads(text)
    changed["rows"][0]["error"] = 0.001
    for content in (json.dumps(changed), text[:-40], "[]", text.replace('"kind": "all"', '"kind": "none"', 1)):
        file.write_text(content, encoding="utf-8")
        with refused(CheckpointError, "errors.json", "copy it again"):
            cf.load(tmp_path / "copy", "cpu")
    file.unlink()
    assert cf.load(tmp_path / "copy", "cpu").errors is None
    assert model.errors is not None
    add_errors(tmp_path / "copy", model.errors)
    assert cf.load(tmp_path / "copy", "cpu").errors == model.errors
