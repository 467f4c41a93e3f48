"""An ablation that nothing happened to, and runs that are watched."""

from __future__ import annotations

import pytest
from watched_runs import CONFIG, DATA, METHODS, SEEDS, WatchedRuns, watched

from crystalframer.studies import AblationResult, ablate


@pytest.fixture(scope="session")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> AblationResult:
    return ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path_factory.mktemp("ablation") / "runs")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> WatchedRuns:
    """The runs that this process trains while the test runs."""
    return watched(monkeypatch)
