"""The machine of a run: hardware, versions, load by other programs, and peak speed."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.timing import synchronise
from crystalframer import __version__

LIBRARIES = ("torch", "numba", "triton", "numpy", "lightning", "pymatgen", "vesin")
BUSY = 0.1
"""Results are not reliable if other programs use more cores than this."""


def hardware(device: torch.device) -> dict[str, str | int | float | None]:
    """Processor, number of usable cores, memory and GPU. No names or paths of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
    except (ValueError, AttributeError):
        memory = None
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"cpu": _cpu_model(), "cores": cores, "memory_gb": memory, "gpu": gpu}


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    features = next((name for name in ("amx_tile", "avx512f", "avx2") if name in found.get("flags", "").split()), "")
    model = found.get("model name") or platform.processor() or platform.machine()
    numbers = f"family {found['cpu family']}, model {found['model']}" if "model" in found else ""
    return ", ".join(part for part in (model, numbers, features) if part)


def versions() -> dict[str, str]:
    """Versions of crystalframer, Python and the installed libraries that determine the speed."""
    found = {"crystalframer": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Load:
    """Load of the machine by other programs."""

    load_average: float | None
    """Load average of the last minute before the run."""
    others: float | None
    """Mean number of cores that other processes used during the run; None if unknown."""

    @property
    def is_busy(self) -> bool:
        return (self.others or 0.0) > BUSY or (self.others is None and (self.load_average or 0.0) > 0.5)

    def __str__(self) -> str:
        if self.others is None:
            return f"load average {self.load_average} before the run"
        return f"load average {self.load_average:.2f} before the run; others used {self.others:.2f} cores during it"


class Watch:
    """Counts the processor time of other programs, from its creation on."""

    def __init__(self) -> None:
        self._load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        self._started = time.perf_counter()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def read(self) -> Load:
        busy = _busy_seconds()
        if busy is None or self._busy is None:
            return Load(self._load_average, None)
        others = (busy - self._busy) - (_own_seconds() - self._own)
        return Load(self._load_average, max(0.0, others) / (time.perf_counter() - self._started))


def _busy_seconds() -> float | None:
    """Processor time that the whole machine has used, or that other virtual machines took from it."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal = (int(n) for n in path.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass(frozen=True)
class Peak:
    """Peak speed of the machine, measured with the threads of the run."""

    operations: float
    """Additions and multiplications per second, float32."""
    bytes: float
    """Bytes per second, read and written."""

    def __str__(self) -> str:
        return f"{self.operations / 1e9:,.0f} GFLOP/s (float32 matrix product), {self.bytes / 1e9:,.1f} GB/s (copy)"


PROBE_SIZES: Mapping[str, tuple[int, int]] = {"cpu": (1024, 1 << 26), "cuda": (8192, 1 << 28)}
"""Rows of a square matrix, and numbers in an array that no cache holds."""


def probe(device: torch.device, quick: bool = False) -> Peak:
    """Peak speed from the fastest of several matrix products and copies."""
    rows, length = (128, 1 << 18) if quick else PROBE_SIZES[device.type]
    a, b = (torch.rand(rows, rows, device=device) for _ in range(2))
    source = torch.rand(length, device=device)
    target = torch.empty_like(source)
    product = _best(lambda: torch.mm(a, b), device)
    copy = _best(lambda: target.copy_(source), device)
    return Peak(2.0 * rows**3 / product, 2.0 * 4.0 * length / copy)


def _best(run: Callable[[], object], device: torch.device, n_runs: int = 7) -> float:
    seconds = []
    for _ in range(n_runs):
        synchronise(device)
        started = time.perf_counter()
        run()
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
