"""Estimate of the time on one and on 64 H100 GPUs, from the counts of `floor` and the rates in `results/`.

Of a GPU only launches were measured. The time of a crystal is that of its operations and bytes at the rates of the data
sheet, times a factor by which real programs are slower: that of our kernels on the CPU, and four times as much.
Kernels cannot start faster than they are launched. The work of the host for a crystal (neighbours, batches, reading,
writing) was measured, and is divided by the number of cores per GPU.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.command import RESULTS
from benchmarks.machine import Peak

H100 = Peak(66.9e12, 3.35e12)
"""Data sheet of the SXM version: float32 without tensor cores, HBM3."""
LINK = 50e9
"""Bytes a second between nodes and GPU: 400 Gb/s InfiniBand."""
LATENCY = 1e-4
"""Seconds of an all-reduce over 64 GPUs beside what its bytes take; of the order of what NCCL needs."""
LAUNCH = 36e-6
"""Seconds from one kernel to the next, launched from Python: 20 ms for the kernels of a step on one H100 (README)."""
KERNELS = {"training": 550, "prediction": 180}
"""Launches of a step, measured, and of a batch, taken: a third, without gradients and optimiser."""
CORES = 16
"""Cores of the host for each GPU."""
BATCH = 64
"""Crystals on each GPU at a time."""
PAPER_BATCH = 128
N_PARAMETERS = 853_000
OQMD_TRAIN, SCREENED = 654_108, 10**9
"""80 % of the 817,636 crystals, and a large screening."""


@dataclass(frozen=True)
class Crystal:
    """Work for an average crystal."""

    operations: float
    bytes: float
    distance: float
    """Factor by which our kernels are slower than the floor on the CPU."""

    def seconds(self, distance: float) -> float:
        """Time on one H100."""
        return distance * max(self.operations / H100.operations, self.bytes / H100.bytes)


def measured(name: str) -> Mapping[str, Any]:
    return json.loads((RESULTS / f"{name}-cpu.json").read_text(encoding="utf-8"))


def row(record: Mapping[str, Any], work: str) -> Mapping[str, Any]:
    """Rate of `crystalframer` (or of a stage) for the work whose name begins so."""
    found = [r for r in record["rows"] if r["work"].strip().startswith(work)]
    return next((r for r in found if r["candidate"] == "crystalframer"), found[0])


def crystal(record: Mapping[str, Any], work: str, n_crystals: int) -> Crystal:
    floor = row(record, work)["floor"]
    return Crystal(floor["operations"] / n_crystals, floor["bytes"] / n_crystals, floor["distance"])


def epoch(of: Crystal, distance: float, n_gpus: int, per_gpu: int) -> float:
    """Seconds of an epoch of OQMD."""
    step = max(KERNELS["training"] * LAUNCH, per_gpu * of.seconds(distance))
    if n_gpus > 1:
        step += LATENCY + 2 * 4 * N_PARAMETERS / LINK
    return step * OQMD_TRAIN / (per_gpu * n_gpus)


def rows() -> list[tuple[str, str, float, float]]:
    """Work, factor above the floor, seconds on one and on 64 H100s."""
    record, loader = measured("training"), measured("loader")
    n = int(record["data"]["name"].split()[1])
    step, forward = (crystal(record, work, n) for work in (f"training step, batch {BATCH}", "prediction, input ready"))
    neighbors, batches = (row(loader, work)["value"] * 1e-3 for work in ("neighbours", "building batches"))
    host = measured("screening")["data"]["host_seconds_a_crystal"]
    found = []
    for factor in (1, 4):
        distance = factor * step.distance
        work = f"epoch of OQMD ({OQMD_TRAIN:,}), {BATCH} crystals on each GPU"
        found.append((work, f"{distance:.0f} ×", *(epoch(step, distance, n_gpus, BATCH) for n_gpus in (1, 64))))
    work = f"the same, {PAPER_BATCH} crystals on all GPUs together"
    found.append((work, f"{distance:.0f} ×", *(epoch(step, distance, n, PAPER_BATCH // n) for n in (1, 64))))
    search = OQMD_TRAIN * neighbors / CORES  # every node for itself
    found.append((f"neighbours of its crystals, once, {CORES} cores per GPU", "", search, search))
    batching = OQMD_TRAIN * batches / CORES
    found.append((f"batches of an epoch, {CORES} cores per GPU", "", batching, batching / 64))
    for factor in (1, 4):
        distance = factor * forward.distance
        seconds = SCREENED * max(KERNELS["prediction"] * LAUNCH / BATCH, forward.seconds(distance))
        found.append((f"network for {SCREENED:,} predictions", f"{distance:.0f} ×", seconds, seconds / 64))
    beside = SCREENED * host / CORES
    found.append((f"everything else for them (from reading to tables), {CORES} cores per GPU", "", beside, beside / 64))
    return found


def _time(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.estimate", description=__doc__).parse_args(arguments)
    print("| work | factor above the floor | 1 H100 | 64 H100s |\n|---|---|---|---|")
    for work, distance, *seconds in rows():
        print("| " + " | ".join([work, distance, *map(_time, seconds)]) + " |")


if __name__ == "__main__":
    main()
