"""The benchmark of the explorer runs and reports its rows. Its speed is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]


def test_the_benchmark_states_steps_first_view_and_size(browser: Browser, tmp_path: Path) -> None:
    """In a process of its own: playwright runs once in each. (`browser` skips the test where there is none.)"""
    path = tmp_path / "viewer.json"
    command = [sys.executable, "-m", "benchmarks.viewer", "--quick", "--threads", "1", "--output", str(path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["benchmark"] == "viewer" and record["quick"] is True
    assert [row["work"] for row in record["rows"]] == ["8 atoms: first view", "8 atoms: step until drawn"]
    assert all(row["value"] > 0 and row["details"]["page (MB)"] > 0.2 for row in record["rows"])
