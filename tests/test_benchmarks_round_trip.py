"""Crystals that other programs write are read again as the same ones; the benchmark sees it when they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crystalframer as cf
from benchmarks import round_trip
from benchmarks.round_trip import WRITERS, conventional, trip
from crystalframer.testing import prototypes, random_crystal


@pytest.fixture(scope="module")
def model() -> Any:
    return cf.load()


@pytest.mark.parametrize("name", WRITERS)
def test_every_program_and_format(name: str, model: Any) -> None:
    crystals = [conventional(crystal) for crystal in (*prototypes()[:6], random_crystal(1, 5))]
    found = trip(crystals, name, model)
    assert (found.n_read, found.n_other, found.n_moved, found.problems) == (len(crystals), 0, 0, [])


def test_what_goes_wrong_is_counted(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    salt, copper = (random_crystal(seed, 4) for seed in (1, 2))

    def write(crystal: cf.Crystal, path: Path) -> None:
        moved = crystal.positions + np.array([[0.3, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
        other = cf.Crystal(crystal.atomic_numbers, moved, crystal.lattice)
        path.write_text("nothing" if crystal is copper else json.dumps(other.to_pymatgen().as_dict()))

    monkeypatch.setitem(WRITERS, "pymatgen: JSON", write)
    found = trip([salt, copper], "pymatgen: JSON", model)
    assert (found.n_crystals, found.n_read, found.n_other, found.n_moved) == (2, 1, 1, 1)
    assert found.percent_read == 50 and found.largest_change > 1e-5 and len(found.problems) == 3


def test_a_run_states_counts_and_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    round_trip.main(["--quick", "--threads", "1", "--data", "demo", "--largest-cell", "8", "--output", str(path)])
    assert "% read" in capsys.readouterr().out
    record = json.loads(path.read_text(encoding="utf-8"))
    assert len(record["rows"]) == len(WRITERS) and record["notes"] == []
    assert [bar["value"] for bar in record["bars"]] == [100, 0, 0]
