"""Processor time of an explanation and of a substitution, and whether explanations depend on the description.

    python -m benchmarks.explaining [--data FILE] [--crystals 8] [--described 100]

Time: crystals of 36 to 40 atoms, with the shipped weights. The same explanation by the reference in plain torch stands
beside it. Description: small crystals, rotated, in another cell, and twice; with the frames of the shipped
weights, with `static-max` in weighted sets, and without frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from tqdm.auto import tqdm

import crystalframer as cf
from benchmarks.command import parse, parser, session
from benchmarks.inputs import SEED, add_options, source
from benchmarks.report import Bar, Row
from crystalframer import ops
from crystalframer.explaining.interventions import other_frames
from crystalframer.frame_methods import FRAME_METHODS, PROMISES
from crystalframer.testing import random_rotation, rotated, supercell, with_cell

SMALLEST, LARGEST = 36, 40
SAME = 1e-4
"""Of the largest contribution: rounding in float32."""
LIMITS = {"explain": 1.5, "substitute": 2.0}
"""Seconds on one core, once kernels are compiled."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser("explaining", "Processor time of an explanation and of a substitution.")
    add_options(options, n_crystals=8)
    options.add_argument("--described", type=int, default=100, help="crystals that are described anew (default: 100)")
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
        small = drawn(data, 2 if chosen.quick else chosen.described, 2, 6)
        for name, changes in described_anew(small, model).items():
            for what, values in changes.items():
                details = {"median": median(values), "crystals": float(len(values))}
                report.rows.append(
                    Row(f"{name}: {what}", "crystalframer", cf.__version__, "", max(values), details=details)
                )
                report.bars.append(Bar(f"{name}: {what}, largest", max(values), SAME, ""))
        report.notes.append("description: largest change of a contribution, in units of the largest contribution.")
        report.notes.append("substitute: one site by each of 98 elements, with intervals and flags.")


def _by_reference(crystal: cf.Crystal, model: cf.CrystalFramer) -> cf.Explanation:
    with ops.use("reference"):
        return cf.explain(crystal, model, progress=False)


def described_anew(crystals: Sequence[cf.Crystal], model: cf.CrystalFramer) -> dict[str, dict[str, list[float]]]:
    """Frames → description → for each crystal the largest change of a contribution."""
    found, frame = {}, model.evaluation_config.frame
    for name in (method for method in FRAME_METHODS if PROMISES[method].has_weighted_sets or method == "none"):
        changed = model if name == frame.method else model.with_frames(other_frames(frame, name))
        changes = [_changes(crystal, changed) for crystal in tqdm(crystals, name, delay=2, leave=False)]
        found[name] = {what: [each[what] for each in changes] for what in changes[0]}
    return found


def _changes(crystal: cf.Crystal, model: cf.CrystalFramer) -> dict[str, float]:
    plain = cf.explain(crystal, model, progress=False)
    contributions, groups = plain.site_contributions, plain.site_groups
    size = float(np.abs(contributions).max())

    def change(other: cf.Crystal, times: int = 1) -> float:
        again = times * cf.explain(other, model, progress=False).site_contributions
        return float(np.abs(again - np.tile(contributions, times)).max()) / size

    spread = max(float(np.ptp(contributions[groups == group])) for group in np.unique(groups))
    whole = float(abs(plain.base + contributions.sum() - plain.prediction))
    return {
        "rotated": change(rotated(crystal, random_rotation(0))),
        "another cell": change(with_cell(crystal, np.array([[1, 1, 0], [0, 1, 0], [0, 2, 1]]))),
        "twice the cell": change(supercell(crystal, (2, 1, 1)), 2),
        "equivalent sites": spread / size,
        "missing in the sum": whole / size,
    }


def drawn(data: str, n: int, smallest: int = SMALLEST, largest: int = LARGEST) -> list[cf.Crystal]:
    """Crystals with so many atoms."""
    fitting = [crystal for crystal in cf.dataset(data) if smallest <= len(crystal) <= largest]
    order = np.random.default_rng(SEED).permutation(len(fitting))
    return [fitting[k] for k in order[:n]]


def _processor_time(run: Callable[[cf.Crystal], object], crystal: cf.Crystal) -> float:
    started = time.process_time()
    run(crystal)
    return time.process_time() - started


if __name__ == "__main__":
    main()
