"""The benchmark of predictions from files: its broken files are broken, and it sees what a table of results lacks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import crystalframer as cf
from benchmarks import prediction
from benchmarks.prediction import BREAKAGES, STAGES, unnamed_failures, write_files
from crystalframer.testing import random_crystal


def test_every_broken_file_is_named_with_a_reason_and_no_good_one(tmp_path: Path) -> None:
    crystals = [replace(random_crystal(seed, 3), id=f"good-{seed}") for seed in range(len(BREAKAGES) + 3)]
    broken = write_files(crystals, len(BREAKAGES), tmp_path)
    assert sorted(broken.values()) == sorted(BREAKAGES)
    frame = cf.predict(tmp_path, progress=False)
    assert len(frame) == len(crystals)
    assert unnamed_failures(frame, broken) == []
    silent = frame.assign(error=None)
    assert unnamed_failures(silent, broken) == list(broken)
    (first, *_) = set(frame["id"]) - set(broken)
    assert unnamed_failures(frame, {**broken, first: "good"}) == [first]


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")
def test_a_run_states_speed_stages_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    prediction.main(["--quick", "--threads", "1", "--data", "demo", "--largest-cell", "8", "--output", str(path)])
    assert "files/s" in capsys.readouterr().out
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["data"]["files"] == 6 and record["data"]["broken"] == 1
    ours, by_pymatgen, *stages, alone = record["rows"]
    assert alone["unit"] == "files/s of processor time" and alone["value"] > 0
    assert ours["candidate"] == "crystalframer" and by_pymatgen["candidate"] == prediction.PYMATGEN
    assert [row["work"].strip() for row in stages] == list(STAGES)
    # Each stage is timed within the calls. On a busy machine, medians of the stages do not add up to that of the calls.
    assert all(0 < row["value"] <= 1e3 * max(ours["seconds"]) / record["data"]["files"] for row in stages)
    assert [bar["value"] for bar in record["bars"][:2]] == [0, 0] and record["bars"][2]["value"] < 1e-9
    assert any(note.startswith("empty: ") and "the file is empty" in note for note in record["notes"])
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
