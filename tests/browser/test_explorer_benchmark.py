"""The benchmark of the data set explorer runs and reports its bars. Its speed is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]


def test_the_benchmark_states_every_bar(browser: Browser, tmp_path: Path) -> None:
    """In a process of its own: playwright runs once in each. (`browser` skips the test where there is none.)"""
    path = tmp_path / "explorer.json"
    command = [sys.executable, "-m", "benchmarks.explorer", "--quick", "--threads", "1", "--output", str(path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["benchmark"] == "explorer" and record["quick"] is True
    names = " ".join(bar["name"] for bar in record["bars"])
    for what in ("first draw", "hover", "filter", "lasso", "crystal drawn", "attention", "page", "growth"):
        assert what in names
