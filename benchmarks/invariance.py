"""Change of predictions when a symmetric crystal is rotated or described by another cell.

Three ways are compared: with the tie rule, averaged over the frames that tie, and without either, with the error and
the time of each.

The crystals are the prototypes of the AFLOW library in pymatgen, where nearly every atom has neighbours that tie for a
frame axis, and crystals of mp2018_val. The result is the largest change of each crystal over all rotations and cells.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.report import Bar, Report, Row
from crystalframer.analysis.invariance import Kind, invariance
from crystalframer.crystals.crystal import Crystal
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import AVERAGE_MARGIN
from crystalframer.reading.inputs import read

STEADY = 1e-4
"""Negligible change, in the unit of the target (eV/atom)."""
SHARE = 0.99
AT_ONCE = 32
"""Crystals between two steps of the progress bar."""


def prototypes(n: int) -> list[Crystal]:
    """Prototypes of the AFLOW library, in its order; the number is that of the library."""
    library: Any = import_module("pymatgen.analysis.prototypes").AFLOW_PROTOTYPE_LIBRARY
    return [
        replace(read(entry["snl"].structure), id=f"{entry['snl'].structure.formula.replace(' ', '')} #{number}")
        for number, entry in enumerate(library[:n])
    ]


def without_tie_rule(model: CrystalFramer) -> CrystalFramer:
    """The same weights without a tie rule: the first of equal edges is chosen."""
    plain = CrystalFramer(replace(model.config, frame=replace(model.config.frame, tie_margin=0.0)))
    plain.load_state_dict(model.state_dict())
    return plain.to(next(model.parameters())).eval()


def largest_changes(
    model: CrystalFramer, crystals: Sequence[Crystal], draws: dict[Kind, int], title: str
) -> dict[str, float]:
    """Crystal → largest change of the first target."""
    column = f"change/{model.config.targets[0].name}"
    found: dict[str, float] = {}
    for start in tqdm(range(0, len(crystals), AT_ONCE), title, delay=2, leave=False):
        part = crystals[start : start + AT_ONCE]
        for kind, n_draws in draws.items():
            table = invariance(model, part, [kind], n_draws, progress=False)
            for name, change in zip(table["id"], table[column].abs(), strict=True):
                found[name] = float(np.maximum(found.get(name, 0.0), change))
    return found


def error_rows(candidates: Mapping[str, CrystalFramer], options: argparse.Namespace) -> list[Row]:
    """Error on crystals of all sizes, and processor time."""
    source = inputs.source(options)
    model = next(iter(candidates.values()))
    dataset = cf.dataset(source, targets=model.config.targets)
    dataset = dataset.select(np.arange(8)) if options.quick else dataset
    rows = []
    for name, candidate in candidates.items():
        cf.evaluate(dataset.select(np.arange(4)), candidate, progress=False)  # compiles
        start = time.process_time()
        scores = cf.evaluate(dataset, candidate).scores
        details: dict[str, float | str] = {"crystals": float(len(dataset)), "CPU s": time.process_time() - start}
        details |= {f"MAE {score.target.label}": score.mae for score in scores.values()}
        first = scores[candidate.config.targets[0].name]
        work, unit = f"{Path(source).stem}, all sizes", f"{first.target.unit} MAE"
        rows.append(Row(work, name, cf.__version__, unit, first.mae, details=details))
    return rows


def measure(options: argparse.Namespace, report: Report) -> None:
    model = cf.load(options.model, device=options.device)
    model = model.double() if options.double else model
    candidates = {
        "crystalframer": model,
        "averaged": model.averaging_ties(AVERAGE_MARGIN),
        "without tie rule": without_tie_rule(model),
    }
    target = model.config.targets[0]
    draws: dict[Kind, int] = {"rotation": options.rotations, "cell": options.cells}
    sets = {"AFLOW prototypes": prototypes(4 if options.quick else 288)}
    sample = inputs.sample(options)
    sets[sample.name.partition(":")[0]] = [
        replace(crystal, id=crystal.id or str(n)) for n, crystal in enumerate(sample.dataset)
    ]
    precision = "float64" if options.double else "float32"
    report.data |= {"name": f"AFLOW prototypes; {sample.name}", "draws": dict(draws), "precision": precision}
    report.data["remaining"] = {}
    for work, crystals in sets.items():
        for name, candidate in candidates.items():
            start = time.perf_counter()
            changes = largest_changes(candidate, crystals, draws, f"{work}, {name}")
            sizes = np.array(list(changes.values()))
            share = float(np.mean(sizes < STEADY))
            details: dict[str, float | str] = {
                "crystals": float(len(changes)),
                "largest": float(sizes.max()),
                "99 %": float(np.quantile(sizes, 0.99)),
                "median": float(np.median(sizes)),
                "seconds": time.perf_counter() - start,
            }
            unit = f"% below {STEADY:g} {target.unit}"
            report.rows.append(Row(work, name, cf.__version__, unit, 100.0 * share, details=details))
            if name == "without tie rule":
                continue
            report.bars.append(Bar(f"{work}, steady, {name}", 100.0 * share, 100.0 * SHARE, "%", at_most=False))
            remaining = {id: size for id, size in sorted(changes.items(), key=lambda x: -x[1]) if size >= STEADY}
            report.data["remaining"].setdefault(name, {})[work] = remaining
            report.notes += [
                f"{work}, {name}: {id} moves by {size:.1e} {target.unit}" for id, size in remaining.items()
            ]
    report.rows += error_rows(candidates, options)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("invariance", __doc__ or "")
    inputs.add_options(parser, n_crystals=500)
    parser.add_argument("--model", help="checkpoint (default: the shipped weights)")
    parser.add_argument(
        "--rotations", type=int, default=20, help="number of random rotations of each crystal (default: 20)"
    )
    parser.add_argument("--cells", type=int, default=5, help="number of other cells of each crystal (default: 5)")
    parser.add_argument(
        "--double", action="store_true", help="compute in float64, where rounding errors are negligible"
    )
    options = command.parse(parser, arguments)
    if options.quick:
        options.rotations, options.cells = min(options.rotations, 1), min(options.cells, 1)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
