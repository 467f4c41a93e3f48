"""Crystals per second that `crystalframer screen` predicts from one file, and its memory over time.

The command is killed twice (SIGKILL) during the run. The crystals are real ones with other elements, strained by 2 %
and with atoms displaced by 0.05 Å. They are written one at a time, so any number is possible. The time is that of the
whole command, with its starts and its lost work. Before, fewer crystals are screened within this process, and its
processor time is measured, which says more on a busy machine.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import torch
from tqdm.auto import tqdm

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.report import Bar, Report, Row
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.datasets.dataset import CrystalDataset, Provenance
from crystalframer.model.network import CrystalFramer
from crystalframer.model.outputs import Evaluated

N_KILLS = 2
N_TABLES = 50
FEWER = 5000
"""Crystals, at most, that are screened within this process, to measure its processor time."""
RATE_BAR = 450.0
"""Least crystals in a second of processor time."""
STRAIN, MOVE = 0.02, 0.05
PAUSE, QUICK_PAUSE = 0.5, 0.01
"""Seconds between two measurements of the memory."""
WARM_UP = 0.2
"""Share of the tables of the last run before which its memory may still grow: kernels are compiled, buffers made."""


class Synthetic:
    """Any number of crystals that nobody has calculated; the n-th is always the same."""

    def __init__(self, base: Sequence[Crystal], n_crystals: int) -> None:
        self._base, self._n_crystals = base, n_crystals
        self._elements = np.unique(np.concatenate([crystal.atomic_numbers for crystal in base]))

    def __len__(self) -> int:
        return self._n_crystals

    def __iter__(self) -> Iterator[Crystal]:
        for number in range(self._n_crystals):
            random = np.random.default_rng((inputs.SEED, number))
            crystal = self._base[int(random.integers(len(self._base)))]
            found, place = np.unique(crystal.atomic_numbers, return_inverse=True)
            others = random.choice(self._elements, len(found), replace=False)
            strain = np.eye(3) + random.normal(0.0, STRAIN, (3, 3))
            moves = random.normal(0.0, MOVE, crystal.positions.shape)
            yield Crystal(others[place], crystal.positions @ strain + moves, crystal.lattice @ strain, f"s{number}")


@dataclass
class Run:
    """One run of the command, until it ended or was killed."""

    seconds: float = 0.0
    memory: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start, and bytes of the process and its children."""
    exit_code: int = 0
    tables: list[float] = field(default_factory=list)
    """Seconds since the start at which each table was complete."""


def start(
    words: Sequence[str], out: Path, n_threads: int, kill_at: int | None, log: Path, bar: tqdm, pause: float
) -> Run:
    """Run the command; kill it once there are so many tables, at a moment of chance."""
    run, began = Run(), time.time()
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads)}
    with log.open("ab") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env=environment)
        while process.poll() is None:
            run.memory.append((time.time() - began, resident(process.pid)))
            there = sorted(path.stat().st_mtime for path in out.glob("part-*"))
            if len(there) > bar.n:
                bar.update(len(there) - bar.n)
            if kill_at is not None and len(there) >= kill_at:
                time.sleep(np.random.default_rng(kill_at).random() * pause)
                process.kill()
            time.sleep(pause)
    run.exit_code, run.seconds = process.returncode, time.time() - began
    times = (path.stat().st_mtime for path in out.glob("part-*"))
    run.tables = sorted(at - began for at in times if at >= began)
    return run


def processor_time(base: Sequence[Crystal], folder: Path, n_crystals: int, with_network: bool) -> float:
    """Processor time of a crystal in one process with one thread, in seconds: reading, neighbours, batches, rows and
    tables, with the shipped weights or with a network that computes nothing.
    """
    model, n_threads = cf.load(device="cpu"), torch.get_num_threads()

    def nothing(_: CrystalFramer, crystals: CrystalBatch) -> Evaluated:
        sizes = len(model.config.outputs), model.config.d_model
        return Evaluated(*(np.zeros((crystals.n_crystals, size), np.float32) for size in sizes), kinds=None)

    patched = nullcontext() if with_network else mock.patch.object(CrystalFramer, "evaluate", nothing)
    torch.set_num_threads(1)
    try:
        with patched:
            for name, size in (("warm-up", 64), ("timed", n_crystals)):
                source = folder / f"{name}.parquet"
                CrystalDataset.write(source, Synthetic(base, size), [], Provenance(source="synthetic"))
                start = time.process_time()
                cf.screen(source, folder / f"{name}-{with_network}", model, progress=False)
    finally:
        torch.set_num_threads(n_threads)
    return (time.process_time() - start) / n_crystals


def resident(pid: int) -> int:
    """Bytes of a process and of those that it started (Linux)."""
    total = 0
    try:
        total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(resident(int(child)) for child in (task / "children").read_text().split())
    except OSError:  # it has ended meanwhile
        pass
    return total


def measure(options: argparse.Namespace, report: Report) -> None:
    n_crystals = 400 if options.quick else options.crystals
    options.crystals = 2000  # to make others of
    sample = inputs.sample(options)
    shard_size = max(10, n_crystals // N_TABLES)
    n_tables = -(-n_crystals // shard_size)
    report.data |= {"name": f"{n_crystals:,} synthetic crystals, made of {sample.name}", "shard_size": shard_size}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source, out, log = (folder / name for name in ("many.parquet", "screened", "log"))
        CrystalDataset.write(source, Synthetic(list(sample.dataset), n_crystals), [], Provenance(source="synthetic"))
        alone = partial(processor_time, list(sample.dataset), folder, min(n_crystals, FEWER))
        host, whole = alone(with_network=False), alone(with_network=True)
        words = [sys.executable, "-m", "crystalframer", "screen", str(source), str(out)]
        words += ["--shard-size", str(shard_size), "--n-workers", str(options.n_workers), "--device", options.device]
        kills: list[int | None] = [n_tables * (kill + 1) // (N_KILLS + 1) for kill in range(N_KILLS)]
        with tqdm(total=n_tables, desc="screening", unit=" tables") as bar:
            pause = QUICK_PAUSE if options.quick else PAUSE
            runs = [start(words, out, options.threads, kill_at, log, bar, pause) for kill_at in [*kills, None]]
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
        if runs[-1].exit_code != 0:
            raise RuntimeError(f"the command failed ({runs[-1].exit_code}): {said[-3:]}")
        frame = cf.read_screen(out)
        n_kept = [len(run.tables) for run in runs]
    n_wrong = int((frame["index"].to_numpy() != np.arange(len(frame))).sum()) + abs(len(frame) - n_crystals)
    last = runs[-1]
    steady = (len(last.tables) - 1) * shard_size / max(last.tables[-1] - last.tables[0], 1e-9)
    overall = n_crystals / sum(run.seconds for run in runs)
    hours = {"1,000,000 crystals": f"{1e6 / steady / 3600:.3g} h"}
    work = "1 process" if options.n_workers == 1 else f"{options.n_workers} processes"
    candidate = "crystalframer"
    report.rows += [
        Row(f"{work}, once it runs", candidate, cf.__version__, "crystals/s", steady, details=hours),
        Row(f"{work}, start-ups and lost work included", candidate, cf.__version__, "crystals/s", overall),
    ]
    report.data["host_seconds_a_crystal"] = host
    of_processor = "crystals/s of processor time"
    report.rows += [
        Row("1 process, 1 thread", candidate, cf.__version__, of_processor, 1.0 / whole),
        Row("1 process, 1 thread, without the network", candidate, cf.__version__, of_processor, 1.0 / host),
    ]
    seconds, memory = np.array(last.memory, dtype=float).T
    settled = last.tables[int(len(last.tables) * WARM_UP)]
    bounds = np.linspace(settled, seconds[-1], 5)
    peaks = []
    for first, end in itertools.pairwise(bounds.tolist()):
        part = memory[(seconds >= first) & (seconds <= end)]
        peaks.append(float(part.max()) if part.size else float("nan"))
        name = f"peak memory from {first:.0f} s to {end:.0f} s of the last run"
        report.rows.append(Row(name, candidate, "", "MB", peaks[-1] / 1e6))
    report.bars += [
        Bar("1 process, 1 thread", 1.0 / whole, RATE_BAR, of_processor, at_most=False),
        Bar("rows that are missing, there twice or out of place after two kills", n_wrong, 0, "rows"),
        Bar("growth of peak memory, fourth quarter over the second", peaks[3] / peaks[1], 1.05, "×"),
    ]
    n_failed = sum(frame["error"].notna().tolist())
    report.notes += [
        f"tables complete in each of the {len(runs)} runs: {n_kept}; exit codes {[run.exit_code for run in runs]}",
        f"seconds to the first table of each run: {[round(run.tables[0], 1) for run in runs if run.tables]}",
        f"median memory of the last run: {median(memory.tolist()) / 1e6:.0f} MB",
        f"{n_failed:,} crystals without a prediction (atoms that chance has put on one another)",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("screening", "Crystals a second and memory of a screening that is killed twice.")
    inputs.add_options(parser, 1000)
    parser.add_argument("--n-workers", type=int, default=1, help="number of processes (default: 1)")
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
