"""Traces and scenes made without a model."""

from __future__ import annotations

import pytest
from synthetic_traces import perovskite, skewed, synthetic_trace

from crystalframer.traces import CrystalTrace
from viz import Scene, scene_from_trace


@pytest.fixture(params=["perovskite", "skewed"])
def trace(request: pytest.FixtureRequest) -> CrystalTrace:
    return synthetic_trace({"perovskite": perovskite, "skewed": skewed}[request.param]())


@pytest.fixture
def scene(trace: CrystalTrace) -> Scene:
    return scene_from_trace(trace)


@pytest.fixture
def perovskite_trace() -> CrystalTrace:
    return synthetic_trace(perovskite())


@pytest.fixture
def perovskite_scene(perovskite_trace: CrystalTrace) -> Scene:
    return scene_from_trace(perovskite_trace)
