"""The benchmark of screening: killed twice, no row lost; and what is on paper comes from measured rates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import estimate, screening


@pytest.mark.long
def test_a_run_that_is_killed_twice_has_every_row_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    screening.main(["--quick", "--threads", "1", "--data", "demo", "--output", str(path)])
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["data"]["name"].startswith("400 synthetic crystals") and record["data"]["host_seconds_a_crystal"] > 0
    assert [bar["value"] for bar in record["bars"] if bar["unit"] == "rows"] == [0]
    rates = {row["work"]: row["value"] for row in record["rows"] if row["unit"] == "crystals/s"}
    assert len(rates) == 2 and min(rates.values()) > 0
    alone = {row["work"]: row["value"] for row in record["rows"] if row["unit"] == "crystals/s of processor time"}
    assert alone["1 process, 1 thread, without the network"] > alone["1 process, 1 thread"] > 0
    (said,) = [note for note in record["notes"] if note.startswith("tables complete in each of the 3 runs")]
    assert "exit codes [-9, -9, 0]" in said
    assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_on_paper_more_gpus_share_what_can_be_shared() -> None:
    of = estimate.Crystal(operations=8e7, bytes=2e6, distance=5.0)
    assert of.seconds(1) == pytest.approx(max(8e7 / 66.9e12, 2e6 / 3.35e12))
    one, many = (estimate.epoch(of, 20.0, n_gpus, 64) for n_gpus in (1, 64))
    assert one / 64 < many < one / 20
    # A batch of the paper's size has two crystals for each of 64 GPUs: they wait for launches and for each other.
    assert estimate.epoch(of, 5.0, 64, 2) > 0.5 * estimate.epoch(of, 5.0, 1, 128)


def test_the_figures_on_paper_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    estimate.main([])
    table = capsys.readouterr().out
    assert table.count("\n") > 5
    assert table in (Path(estimate.__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
