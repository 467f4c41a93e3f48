"""Estimates of the memory that a batch needs, the free memory of a device, and the message if it is too little."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from crystalframer.config import ModelConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import CrystalError, Setting


def batch_memory(
    config: ModelConfig, n_atoms: int, n_edges: int, training: bool = False, compiled: bool = True, width: int = 4
) -> int:
    """Bytes that a batch takes while it is computed: its arrays are included, the weights are not.

    The estimate is proportional to atoms (features and moments of each layer) and to edges (geometry, attention of each
    layer). The factors were fitted to peak memory on the CPU: 2 and 4 layers, 4 and 8 heads, about 111 edges per
    atom, within 30 %.

    Args:
        training: include the backward pass, for which every layer keeps its attention weights.
        compiled: assume the compiled kernels; the reference in plain torch takes many times more.
        width: bytes per number, 4 or 8.
    """
    n_kept = config.n_layers if training else 0
    moments = config.n_heads * (config.distance.n_centers + (96 if config.frame.promises.axes else 0))
    hidden = config.d_feedforward * (1 if config.activation == "relu" else 3)
    per_atom = width * (1.7 + n_kept) * (8 * config.d_model + hidden + moments)
    if compiled:
        per_edge = 50.0 + config.n_heads * (8 * max(1, n_kept) + config.frame.promises.memory)
    else:
        per_edge = 72.5 * width * config.n_heads * (1 + n_kept)
    batch_arrays = 28 + 3 * width
    return int(n_atoms * per_atom + n_edges * (per_edge + batch_arrays))


def memory_needed(
    config: ModelConfig,
    n_atoms: int,
    n_edges: int,
    device: Any,
    dtype: Any,
    training: bool = False,
    max_edges: int | None = None,
) -> int:
    """Bytes that a batch takes on this device (see `batch_memory`).

    Args:
        device, dtype: those of a tensor or array of the model.
        max_edges: if a single crystal has more edges, so many are formed at a time (`ChunkedCrystal`).
    """
    compiled = dtype.itemsize == 4 and _compiles(_type_of(device))
    kept = 0
    if max_edges is not None and n_edges > max_edges:
        kept = n_atoms * dtype.itemsize * 6 * config.d_model  # features, twice, and what attention sees of atoms
        n_atoms, n_edges = -(-n_atoms * max_edges // n_edges), max_edges
    return kept + batch_memory(config, n_atoms, n_edges, training, compiled, dtype.itemsize)


def check_trace(crystal: Crystal, n_atoms: int, n_edges: int, config: ModelConfig, weights: Any) -> None:
    """Check that a trace of these atoms fits into memory: the reference computes it, and keeps three numbers per edge,
    head and layer.

    Args:
        weights: a tensor of the model, for its device and type.

    Raises:
        CrystalError: it does not fit.
    """
    needed = 3 * n_edges * config.n_heads * config.n_layers * weights.itemsize
    needed += batch_memory(config, n_atoms, n_edges, compiled=False, width=weights.itemsize)
    problem = _shortage(f"{crystal.name}: a trace of {n_atoms:,} atoms needs", needed, weights.device)
    if problem is not None:
        raise CrystalError(f"{problem}; choose fewer atoms with ", Setting("sites"))


def _type_of(device: Any) -> str:
    """`cpu`, `cuda`, ..., also of the device of an array, which is `"cpu"`."""
    return getattr(device, "type", device)


def _compiles(device_type: str) -> bool:
    if device_type == "cpu":
        return True
    from crystalframer.ops.compilers import compiler_is_there

    return compiler_is_there(device_type)


def free_memory(device: Any) -> int | None:
    """Bytes that are free for a batch on this device; None if unknown."""
    kind = _type_of(device)
    if kind == "cuda":
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if kind == "mps":
        import torch

        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    known = [free for free in (_free_in_machine(), _free_in_container(), _free_in_process()) if free is not None]
    return min(known) if kind == "cpu" and known else None


def shortage(
    config: ModelConfig,
    n_atoms: int,
    n_edges: int,
    device: Any,
    dtype: Any,
    training: bool = False,
    max_edges: int | None = None,
) -> str | None:
    """A message that a batch does not fit into the memory of this device; None if it does, or if that is unknown."""
    needed = memory_needed(config, n_atoms, n_edges, device, dtype, training, max_edges)
    return _shortage(f"{n_atoms:,} atoms and {n_edges:,} edges need", needed, device)


def _shortage(what_needs: str, needed: int, device: Any) -> str | None:
    free = free_memory(device)
    if free is None or needed <= free:
        return None
    return f"{what_needs} about {needed / 1e9:.1f} GB, and {device} has {free / 1e9:.1f} GB free"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in Python, NumPy or torch (whose CPU allocator has no type of error for it)."""
    torch = sys.modules.get("torch")
    of_torch = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return of_torch or isinstance(error, MemoryError) or "alloc_cpu" in str(error)


def _free_in_process() -> int | None:
    """Bytes left under the limit of `ulimit -v` (Linux)."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        return None
    return None if limit == resource.RLIM_INFINITY else limit - used


def _free_in_machine() -> int | None:
    """Bytes that the system can give (Linux); elsewhere, all memory of the machine as an upper bound."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, AttributeError, ValueError):
        return None


def _free_in_container(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes left under the limit of a container (cgroup 2), file caches included: they are given up when needed."""
    try:
        limit, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - used + int(statistics.get("inactive_file", 0))
