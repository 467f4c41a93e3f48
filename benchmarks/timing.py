"""Times of several candidates that take turns in one process, so that a busy machine slows all of them equally."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import torch
from tqdm.auto import tqdm

SHORTEST_PASS = 0.05
"""s: a candidate that is quicker is called several times in a pass."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """Seconds of one task, for each pass."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """(slowest - fastest)/median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def ratio(timing: Timing, base: Timing) -> float:
    """Ratio of `timing` to this one: the median of the ratios of all passes."""
    return median(t / b for t, b in zip(timing.seconds, base.seconds, strict=False))


@dataclass(frozen=True)
class Candidate:
    """One of the programs that are compared."""

    run: Callable[[], object]
    warm_up: Callable[[], object] | None = None
    """A part of the task that compiles everything; by default the whole task."""


def alternate(
    candidates: Mapping[K, Candidate], passes: int, device: torch.device, title: str, budget: float = math.inf
) -> dict[K, Timing]:
    """Run every candidate once in each pass, after warming all of them up.

    Args:
        budget: seconds after which a candidate sits out the later passes; it has two at least (if `passes` has).
    """
    seconds: dict[K, list[float]] = {name: [] for name in candidates}
    n_calls: dict[K, int] = {}
    with tqdm(total=len(candidates) * (passes + 1), desc=title, delay=2, leave=False, unit="run") as bar:
        for name, candidate in candidates.items():
            warm_up = candidate.warm_up or candidate.run
            _timed(warm_up, 1, device)  # compiles
            n_calls[name] = math.ceil(SHORTEST_PASS / _timed(warm_up, 1, device))
            bar.update()
        for number, (name, candidate) in itertools.product(range(passes), candidates.items()):
            if number < 2 or sum(seconds[name]) * n_calls[name] < budget:
                seconds[name].append(_timed(candidate.run, n_calls[name], device))
            bar.update()
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _timed(run: Callable[[], object], n_calls: int, device: torch.device) -> float:
    """Seconds of one call."""
    synchronise(device)
    started = time.perf_counter()
    for _ in range(n_calls):
        run()
    synchronise(device)
    return (time.perf_counter() - started) / n_calls


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def over(run: Callable[..., object], inputs: Sequence[object]) -> Candidate:
    """A candidate that runs over all inputs and warms up on the first."""

    def run_all() -> None:
        for value in inputs:
            run(value)

    return Candidate(run_all, lambda: run(inputs[0]))
