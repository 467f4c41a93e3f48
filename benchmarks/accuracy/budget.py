"""Minutes as the measure of a run: a clock, learning rates that end with it, and how many epochs it still allows."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Literal

Kind = Literal["wall", "cpu"]


class Clock:
    """Time since it was made, against a budget: on the wall, or of all processors that this process keeps busy."""

    def __init__(self, seconds: float, kind: Kind = "wall") -> None:
        self.budget, self.kind = seconds, kind
        self._wall_started, self._cpu_started = time.monotonic(), _cpu_seconds()

    @property
    def elapsed(self) -> float:
        """What counts against the budget, s."""
        return self.wall_seconds if self.kind == "wall" else self.cpu_seconds

    @property
    def left(self) -> float:
        return self.budget - self.elapsed

    @property
    def wall_seconds(self) -> float:
        return time.monotonic() - self._wall_started

    @property
    def cpu_seconds(self) -> float:
        """All threads together, and children that have ended."""
        return _cpu_seconds() - self._cpu_started


def _cpu_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def epochs_in_all(done: int, seconds_left: float, epoch_seconds: list[float]) -> int:
    """How many epochs a run will have when its budget ends, going by its last three epochs; those done at least."""
    return done + max(0, math.floor(seconds_left / median(epoch_seconds[-3:])))


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0.01 (matgl's default)."""
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * progress))


def step(progress: float) -> float:
    """A tenth for the last fifth (CGCNN's published models: epoch 800 of 1,000)."""
    return 1.0 if progress < 0.8 else 0.1


def one_cycle(progress: float) -> float:
    """Up from 1/25 over the first 30 %, down to almost 0, in cosines: torch's OneCycleLR, which ALIGNN trains with."""
    first, last, peak = 1.0 / 25.0, 1.0 / 25.0e4, 0.3
    if progress < peak:
        return _between(first, 1.0, progress / peak)
    return _between(1.0, last, (progress - peak) / (1.0 - peak))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


SCHEDULES: Mapping[str, Callable[[float], float]] = {"cosine": cosine, "step": step, "one-cycle": one_cycle}
"""Share of the budget that is used (0 to 1) → share of the highest learning rate."""
