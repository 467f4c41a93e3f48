"""Processor time of an explanation and of a substitution, and whether explanations depend on the description.

    python -m benchmarks.explaining [--data FILE] [--crystals 8] [--described 100]

Time: crystals of 36 to 40 atoms, with the shipped weights, each target in turn. The same explanation by the reference
in plain torch stands beside it. Description: small crystals, one target after the other, rotated, in another cell, and
twice; with the frames of the shipped weights, with `static-max` in weighted sets, and without frames. Equivalent sites:
spread of their contributions in the crystals as they are given, whose lattices and positions obey the symmetry within
0.01 Å, and after these are averaged over its operations, so that they obey it exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median

import numpy as np
from tqdm.auto import tqdm

import crystalframer as cf
from benchmarks.command import parse, parser, session
from benchmarks.inputs import SEED, add_options, source
from benchmarks.report import Bar, Row
from crystalframer import ops
from crystalframer.datasets.symmetry import symmetry_of
from crystalframer.explaining.attribution import SAME_SITE
from crystalframer.explaining.interventions import other_frames
from crystalframer.frame_methods import FRAME_METHODS, PROMISES
from crystalframer.testing import random_rotation, rotated, supercell, with_cell

SMALLEST, LARGEST = 36, 40
AS_GIVEN = "equivalent sites, as given"
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
        **{
            (f"explain, {target}", "crystalframer"): partial(_explained, model, target)
            for target in model.config.target_names
        },
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
                limit = LIMITS[work.partition(",")[0]]
                report.bars.append(Bar(f"{work}, slowest crystal", max(seconds), limit, "s"))
        small = drawn(data, 2 if chosen.quick else chosen.described, 2, 6)
        for name, changes in described_anew(small, model).items():
            for what, values in changes.items():
                details = {"median": median(values), "crystals": float(len(values))}
                report.rows.append(
                    Row(f"{name}: {what}", "crystalframer", cf.__version__, "", max(values), details=details)
                )
                if what != AS_GIVEN:
                    report.bars.append(Bar(f"{name}: {what}, largest", max(values), SAME, ""))
        report.notes.append("description: largest change of a contribution, in units of the largest contribution.")
        report.notes.append("substitute: one site by each of 98 elements, with intervals and flags.")


def _explained(model: cf.CrystalFramer, target: str, crystal: cf.Crystal) -> cf.Explanation:
    return cf.explain(crystal, model, target, progress=False)


def _by_reference(crystal: cf.Crystal, model: cf.CrystalFramer) -> cf.Explanation:
    with ops.use("reference"):
        return cf.explain(crystal, model, progress=False)


def described_anew(crystals: Sequence[cf.Crystal], model: cf.CrystalFramer) -> dict[str, dict[str, list[float]]]:
    """Frames → description → for each crystal the largest change of a contribution to one target, in turn."""
    found, frame = {}, model.evaluation_config.frame
    for name in (method for method in FRAME_METHODS if PROMISES[method].has_weighted_sets or method == "none"):
        changed = model if name == frame.method else model.with_frames(other_frames(frame, name))
        bar = tqdm(crystals, name, delay=2, leave=False)
        targets = cycle(model.config.target_names)
        changes = [_changes(crystal, partial(_explained, changed, next(targets))) for crystal in bar]
        found[name] = {what: [each[what] for each in changes] for what in changes[0]}
    return found


def _changes(crystal: cf.Crystal, explained: Callable[[cf.Crystal], cf.Explanation]) -> dict[str, float]:
    plain = explained(crystal)
    contributions = plain.site_contributions
    size = float(np.abs(contributions).max())

    def change(other: cf.Crystal, times: int = 1) -> float:
        again = times * explained(other).site_contributions
        return float(np.abs(again - np.tile(contributions, times)).max()) / size

    whole = float(abs(plain.base + contributions.sum() - plain.prediction))
    return {
        "rotated": change(rotated(crystal, random_rotation(0))),
        "another cell": change(with_cell(crystal, np.array([[1, 1, 0], [0, 1, 0], [0, 2, 1]]))),
        "twice the cell": change(supercell(crystal, (2, 1, 1)), 2),
        AS_GIVEN: _spread(plain),
        "equivalent sites": _spread(explained(symmetric(crystal))),
        "missing in the sum": whole / size,
    }


def _spread(explanation: cf.Explanation) -> float:
    """The largest difference among equivalent sites, in units of the largest contribution."""
    contributions, groups = explanation.site_contributions, explanation.site_groups
    spreads = [np.ptp(contributions[groups == group]) for group in np.unique(groups)]
    return float(max(spreads) / np.abs(contributions).max())


def symmetric(crystal: cf.Crystal) -> cf.Crystal:
    """The crystal with lattice and positions averaged over the operations of its symmetry: it obeys them exactly."""
    found = symmetry_of(crystal.lattice, crystal.positions, crystal.atomic_numbers, SAME_SITE)
    if found is None:
        return crystal
    coords = crystal.positions @ np.linalg.inv(crystal.lattice)
    rotations, translations = np.asarray(found.rotations), np.asarray(found.translations)
    metric = np.mean([turn.T @ crystal.lattice @ crystal.lattice.T @ turn for turn in rotations], axis=0)
    lattice, moved = np.linalg.cholesky(metric), np.zeros_like(coords)
    for turn, shift in zip(rotations, translations, strict=True):
        steps = (coords @ turn.T + shift)[:, None] - coords
        steps -= np.rint(steps)
        is_other = crystal.atomic_numbers[:, None] != crystal.atomic_numbers
        image = np.where(is_other, np.inf, np.linalg.norm(steps @ crystal.lattice, axis=2)).argmin(1)
        moved[image] += steps[np.arange(len(coords)), image]
    return replace(crystal, lattice=lattice, positions=(coords + moved / len(rotations)) @ lattice)


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
