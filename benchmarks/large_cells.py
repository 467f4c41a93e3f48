"""Prediction of one crystal in cells of up to 110,592 atoms: time, peak memory and result, in chunks and whole.

A cell of rock salt with 64 atoms, all displaced by 0.05 Å, is repeated. `crystalframer.predict` must give the same
result for the large cell as for the small one. `whole` forms all edges at once, as for small crystals; it is left out
above `--whole-up-to` atoms. Memory is the highest resident memory minus that before the call, with the neighbour list
(on CUDA: the most that the allocator of torch held).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from unittest import mock

import torch

import crystalframer as cf
from benchmarks import command
from benchmarks.report import Bar, Report, timed_rows
from benchmarks.scaling import can_measure, high_water, rock_salt, start_high_water
from benchmarks.timing import Timing, synchronise
from crystalframer import batched
from crystalframer.testing import supercell

SMALL = 64
REPEATS = (2, 4, 6, 8, 12)
"""Repeats of the cell of 64 atoms along each axis: 512 to 110,592 atoms."""
TOLERANCE = 1e-4
"""Allowed difference between large and small cell (rounding in float32), eV/atom."""
MEMORY = 1e9
"""Allowed memory of the largest cell, bytes."""


def measure(options: argparse.Namespace, report: Report) -> None:
    model = cf.load(options.model, device=options.device)
    target, device = model.config.targets[0], torch.device(options.device)
    small = rock_salt(SMALL, seed=0)
    expected = cf.predict(small, model).to_dict("records")[0][target.name]
    report.data |= {"name": f"LiCl of {SMALL} atoms, repeated; prediction: {expected:.6f} {target.unit}"}
    differences, peaks = [], {}
    for n in (2, 3) if options.quick else REPEATS:
        crystal = supercell(small, (n, n, n))
        bounds = {"crystalframer": 10_000 if options.quick else batched.MAX_EDGES}
        if len(crystal) <= options.whole_up_to:
            bounds["whole"] = 10**12
        timings: dict[str, Timing] = {}
        details: dict[str, dict[str, float | str]] = {}
        for name, bound in bounds.items():
            before = start_high_water(device) if can_measure(options.device) else 0.0
            start = time.perf_counter()
            with mock.patch.object(batched, "MAX_EDGES", bound):
                (row,) = cf.predict(crystal, model, progress=not options.quick).to_dict("records")
            synchronise(device)
            timings[name] = Timing((time.perf_counter() - start,))
            if row["error"] is not None:
                raise SystemExit(f"benchmarks.large_cells: {len(crystal):,} atoms, {name}: {row['error']}")
            differences.append(abs(row[target.name] - expected))
            details[name] = {f"off by, {target.unit}": differences[-1]}
            if can_measure(options.device):
                peaks[len(crystal), name] = details[name]["MB"] = (high_water(device) - before) / 1e6
        per_second, versions = 1e6 / len(crystal), dict.fromkeys(timings, cf.__version__)
        report.rows += timed_rows(f"{len(crystal):,} atoms", timings, versions, "µs/atom", per_second, {}, details)
    report.bars.append(Bar("largest difference from the small cell", max(differences), TOLERANCE, target.unit))
    if peaks:
        largest = max(n_atoms for n_atoms, _ in peaks)
        report.bars.append(Bar(f"memory for {largest:,} atoms", peaks[largest, "crystalframer"], MEMORY / 1e6, "MB"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("large_cells", __doc__ or "")
    parser.add_argument("--model", help="checkpoint (default: the shipped weights)")
    parser.add_argument(
        "--whole-up-to",
        type=int,
        default=33_000,
        help="largest number of atoms for which all edges are formed at once (default: 33000)",
    )
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
