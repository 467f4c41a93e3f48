"""Processor time of an explanation and of a substitution, with the shipped weights.

    python -m benchmarks.explaining [--data FILE] [--crystals 8]

Crystals of 36 to 40 atoms. The same explanation by the reference in plain torch stands beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

import crystalframer as cf
from benchmarks.command import parse, parser, session
from benchmarks.inputs import SEED, add_options, source
from benchmarks.report import Bar, Row
from crystalframer import ops

SMALLEST, LARGEST = 36, 40
LIMITS = {"explain": 1.5, "substitute": 2.0}
"""Seconds on one core, once kernels are compiled."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser("explaining", "Processor time of an explanation and of a substitution.")
    add_options(options, n_crystals=8)
    options.set_defaults(threads=1)
    chosen = parse(options, arguments)
    model, data = cf.load(), source(chosen)
    crystals = drawn(data, 1 if chosen.quick else chosen.crystals)
    n_atoms = np.mean([len(crystal) for crystal in crystals])
    tasks: dict[tuple[str, str], Callable[[cf.Crystal], object]] = {
        ("explain", "crystalframer"): lambda crystal: cf.explain(crystal, model, progress=False),
        ("explain", "reference"): lambda crystal: _by_reference(crystal, model),
        ("substitute", "crystalframer"): lambda crystal: cf.substitute(crystal, model, sites=[0]),
    }
    with session(chosen) as report:
        report.data["name"] = f"{Path(data).name}, {len(crystals)} crystals of {SMALLEST} to {LARGEST} atoms"
        for (work, candidate), run in tasks.items():
            run(crystals[0])  # compiles
            seconds = [_processor_time(run, crystal) for crystal in crystals]
            details = {"slowest": max(seconds), "atoms": float(n_atoms)}
            report.rows.append(Row(work, candidate, cf.__version__, "s", median(seconds), details=details))
            if candidate == "crystalframer":
                report.bars.append(Bar(f"{work}, slowest crystal", max(seconds), LIMITS[work], "s"))
        report.notes.append("substitute: one site by each of 98 elements, with intervals and flags.")


def _by_reference(crystal: cf.Crystal, model: cf.CrystalFramer) -> cf.Explanation:
    with ops.use("reference"):
        return cf.explain(crystal, model, progress=False)


def drawn(data: str, n: int) -> list[cf.Crystal]:
    """Crystals of 36 to 40 atoms."""
    fitting = [crystal for crystal in cf.dataset(data) if SMALLEST <= len(crystal) <= LARGEST]
    order = np.random.default_rng(SEED).permutation(len(fitting))
    return [fitting[k] for k in order[:n]]


def _processor_time(run: Callable[[cf.Crystal], object], crystal: cf.Crystal) -> float:
    started = time.process_time()
    run(crystal)
    return time.process_time() - started


if __name__ == "__main__":
    main()
