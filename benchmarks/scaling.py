"""Time and peak memory per atom for cells of 8 to 4,096 atoms, for a forward pass and a training step.

The crystal is rock salt (LiCl), with all atoms displaced by 0.05 Å. All sizes take turns. Small cells are dominated by
the cost of calls, which makes the largest one look good; so it is also compared with 64 cells of 64 atoms in one batch,
where only the size of the cell differs.

Memory is the highest resident memory minus that with the input ready, in a separate process that has compiled
everything, returns freed memory before each size and resets the high-water mark of the kernel (Linux only). On CUDA it
is the most that the allocator of torch held, minus the same.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import mmap
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

import crystalframer as cf
from benchmarks import command, floor
from benchmarks.floor import Shape, Work
from benchmarks.ours import NAMES, Ours
from benchmarks.report import Bar, Report, Row
from benchmarks.timing import Candidate, Timing, alternate, ratio
from crystalframer.config import Config, Target
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.testing import supercell

SIZES = tuple(8 * 2**n for n in range(10))
BASE = 64
"""Size of the cell that larger cells are compared with, atoms."""
BAR = 1.3
WORKS = ("forward", "training step")
RESET = Path("/proc/self/clear_refs")
"""Linux: writing 5 there sets the high-water mark of resident memory to what is in use."""


@dataclass(frozen=True)
class Cells:
    """The input of one measurement: `copies` cells of `n_atoms` atoms in one batch."""

    n_atoms: int
    copies: int = 1

    def __str__(self) -> str:
        return f"{self.copies:,} × {self.n_atoms:,} atoms"

    @property
    def total(self) -> int:
        return self.n_atoms * self.copies

    def batch(self, radius: float) -> CrystalBatch:
        crystals = [rock_salt(self.n_atoms, seed) for seed in range(self.copies)]
        return make_batch(crystals, radius, ["energy"])


def rock_salt(n_atoms: int, seed: int) -> Crystal:
    """LiCl in a cell of 8·2ᵏ atoms, as near to a cube as can be; atoms moved by 0.05 Å."""
    corners = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
    positions = 5.14 * np.concatenate([corners, corners + np.array([0.5, 0, 0])])
    cell = Crystal(np.repeat([3, 17], 4), positions, 5.14 * np.eye(3), "LiCl", {"energy": 1.0})
    doublings = (n_atoms // 8).bit_length() - 1
    a, b, c = (2 ** ((doublings + 2 - axis) // 3) for axis in range(3))
    large = supercell(cell, (a, b, c))
    moves = np.random.default_rng(seed).normal(0.0, 0.05, large.positions.shape)
    return replace(large, positions=large.positions + moves)


def run_of(model: Ours, work: str) -> Callable[[CrystalBatch], object]:
    return model.predict if work == "forward" else model.step


# --- memory -----------------------------------------------------------------------------------------------------------


def peak_memory(
    plan: Mapping[str, Sequence[Cells]], config: Config, device: str, n_threads: int
) -> dict[tuple[str, Cells, str], float]:
    """Bytes that a forward pass and a training step need at most beside their input; to be run in a fresh process."""
    torch.set_num_threads(n_threads)
    first = Cells(8).batch(config.model.radius).to(device)
    peaks = {}
    sizes = [(name, cells) for name in plan for cells in plan[name]]
    ours = {name: Ours(config, first, NAMES[name]) for name in plan}
    for model, work in itertools.product(ours.values(), WORKS):
        run_of(model, work)(first)
    for name, cells in tqdm(sizes, desc="memory", delay=2, leave=False):
        batch = cells.batch(config.model.radius).to(device)
        for work in WORKS:
            run = run_of(ours[name], work)
            before = start_high_water(torch.device(device))
            run(batch)
            used = high_water(torch.device(device)) - before
            peaks[name, cells, work] = max(used, mmap.PAGESIZE)  # what fits into pages it has already is not seen
    return peaks


def can_measure(device: str) -> bool:
    return torch.device(device).type == "cuda" or os.access(RESET, os.W_OK)


def start_high_water(device: torch.device) -> float:
    """Bytes in use now, from which the high-water mark starts again."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.memory_allocated(device))
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not hide what is needed now
    RESET.write_text("5")
    return high_water(device)


def high_water(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def in_fresh_process(
    plan: Mapping[str, Sequence[Cells]], config: Config, device: str, n_threads: int
) -> dict[tuple[str, Cells, str], float]:
    """`peak_memory` in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak_memory, plan, config, device, n_threads).result()


# --- the run ----------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, report: Report) -> None:
    config = cf.preset(options.preset).config
    config = replace(config, model=replace(config.model, targets=(Target("energy"),)))
    largest, base = (16, Cells(8)) if options.quick else (options.largest, Cells(BASE))
    filled = Cells(base.n_atoms, largest // base.n_atoms)
    chosen = [*(Cells(n) for n in SIZES if n <= largest), filled]
    plan = {"crystalframer": chosen}
    plan["crystalframer, reference"] = [cells for cells in chosen if cells.total <= options.reference_up_to]
    plan = {name: sizes for name, sizes in plan.items() if sizes}
    report.data |= {"name": "LiCl (rock salt), atoms moved by 0.05 Å", "preset": options.preset}

    memory: dict[tuple[str, Cells, str], float] = {}
    if can_measure(options.device):
        memory = in_fresh_process(plan, config, options.device, options.threads)
    else:
        report.notes.append("Memory is not measured: it needs Linux, or CUDA.")

    device = torch.device(options.device)
    batches = {cells: cells.batch(config.model.radius).to(device) for cells in chosen}
    shapes = {cells: Shape.of(batch) for cells, batch in batches.items()}
    ours = {name: Ours(config, batches[chosen[0]], NAMES[name]) for name in plan}
    n_parameters = ours["crystalframer"].n_parameters
    least: dict[str, Callable[[Shape], Work]] = {
        "forward": lambda shape: floor.prediction(shape, config.model),
        "training step": lambda shape: floor.training_step(shape, config.model, n_parameters),
    }
    for work in WORKS:
        candidates = {
            (name, cells): Candidate(partial(run_of(ours[name], work), batches[cells]))
            for name in plan
            for cells in plan[name]
        }
        timings = alternate(candidates, options.passes, device, work, options.budget)
        for (name, cells), timing in timings.items():
            details = {
                f"per atom, to {other}": per_atom(timings, (name, cells), (name, other))
                for other in (base, filled)
                if (name, other) in timings
            }
            if memory:
                details["kB/atom"] = memory[name, cells, work] / cells.total / 1e3
            report.rows.append(
                Row(
                    work=f"{work}, {cells}",
                    candidate=name,
                    version=cf.__version__,
                    unit="µs/atom",
                    value=timing.median * 1e6 / cells.total,
                    timing=timing,
                    ratio=ratio(timing, timings["crystalframer", cells]),
                    floor=least[work](shapes[cells]),
                    details=details,
                )
            )
        top = Cells(largest)
        for other in (base, filled):
            title = f"{work}: per atom, {top} to {other}"
            times = per_atom(timings, ("crystalframer", top), ("crystalframer", other))
            report.bars.append(Bar(f"{title}, time", times, BAR, "times"))
            if memory:
                each = [memory["crystalframer", cells, work] / cells.total for cells in (top, other)]
                report.bars.append(Bar(f"{title}, memory", each[0] / each[1], BAR, "times"))


def per_atom(timings: Mapping[tuple[str, Cells], Timing], one: tuple[str, Cells], other: tuple[str, Cells]) -> float:
    """Ratio of the time per atom in `one` to that in `other`."""
    return ratio(timings[one], timings[other]) * other[1].total / one[1].total


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("scaling", "Time and peak memory per atom as the cell grows from 8 to 4,096 atoms.")
    parser.add_argument("--preset", default="default", help="preset (default: default)")
    parser.add_argument(
        "--largest", type=int, choices=SIZES[4:], default=SIZES[-1], help="largest number of atoms (default: 4096)"
    )
    parser.add_argument(
        "--reference-up-to", type=int, default=256, help="largest number of atoms for the reference (default: 256)"
    )
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
