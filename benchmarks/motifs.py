"""Milliseconds per site to find and name a coordination motif, compared with ChemEnv.

The sites are those of the demo crystals, a few for each coordination number. Our time includes the neighbour search
and the symmetry measures of all ideal polyhedra, but not the tables, which are made once. ChemEnv gets the
shells and only computes the measures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module, metadata
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

import crystalframer as cf
from benchmarks import command
from benchmarks.report import Bar, Report, timed_rows
from benchmarks.timing import alternate, over
from crystalframer.analysis.motifs import Shell, coordination_shells
from crystalframer.crystals.crystal import Crystal
from crystalframer.traces import CrystalTrace

BAR = 30.0
"""Allowed time for a site with the neighbour search, ms."""
CHEMENV = "pymatgen, ChemEnv"


def trace_of(crystal: Crystal) -> CrystalTrace:
    """A trace without edges and layers: shells need neither."""
    nothing = np.zeros((0, 3), dtype=np.int64)
    return CrystalTrace(
        crystal.atomic_numbers, crystal.positions, crystal.lattice, nothing[:, :2].T, nothing, (), id=crystal.id
    )


def find_sites(crystals: Sequence[Crystal], n_each: int) -> dict[int, list[tuple[CrystalTrace, Shell]]]:
    """Coordination number → up to `n_each` sites, of as many crystals."""
    found: dict[int, list[tuple[CrystalTrace, Shell]]] = {}
    for crystal in tqdm(crystals, desc="sites", delay=2, leave=False):
        trace = trace_of(crystal)
        for shell in {len(shell): shell for shell in coordination_shells(trace) if shell.measures}.values():
            found.setdefault(len(shell), []).append((trace, shell))
    return {n: sites[:n_each] for n, sites in sorted(found.items())}


def chemenv() -> Callable[[Shell], object]:
    """Measures of a given shell by ChemEnv."""
    package = "pymatgen.analysis.chemenv.coordination_environments.coordination_geometry_finder"
    core: Any = import_module("pymatgen.core")
    finder: Any = import_module(package).LocalGeometryFinder()
    finder.setup_structure(core.Structure(core.Lattice.cubic(50), ["Ti"], [[0, 0, 0]]))

    def measures(shell: Shell) -> object:
        finder.setup_local_geometry(0, coords=list(shell.vectors))
        return finder.get_coordination_symmetry_measures(optimization=None)

    return measures


def measure(options: argparse.Namespace, report: Report) -> None:
    crystals = [crystal for crystal in cf.dataset("demo") if len(crystal) <= 20]
    crystals = crystals[: 4 if options.quick else options.crystals]
    report.data |= {"name": f"{len(crystals)} crystals of the demo set, of at most 20 atoms"}
    versions = {"crystalframer": cf.__version__, CHEMENV: metadata.version("pymatgen")}
    theirs, slowest = chemenv(), 0.0
    for n, sites in find_sites(crystals, 1 if options.quick else options.sites).items():
        ours = [partial(coordination_shells, trace, sites=[shell.site]) for trace, shell in sites]
        candidates = {
            "crystalframer": over(lambda run: run(), ours),
            CHEMENV: over(theirs, [shell for _, shell in sites]),
        }
        work = f"{n} neighbours, {len(sites)} sites"
        timings = alternate(candidates, options.passes, torch.device("cpu"), work, options.budget)
        report.rows += timed_rows(work, timings, versions, "ms/site", 1e3 / len(sites), {})
        slowest = max(slowest, timings["crystalframer"].median * 1e3 / len(sites))
    report.bars.append(Bar("a site of the coordination number that takes longest", slowest, BAR, "ms"))
    report.notes.append("ChemEnv's time is without the neighbour search.")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("motifs", "Milliseconds per site to find and name a coordination motif.")
    parser.add_argument("--crystals", type=int, default=96, help="number of demo crystals (default: 96)")
    parser.add_argument(
        "--sites", type=int, default=3, help="number of sites for each coordination number (default: 3)"
    )
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
