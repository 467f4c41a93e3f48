"""Change of predictions when a crystal is rotated, described by another cell, or reflected.

A model that chooses one frame is compared in three ways: with the tie rule, averaged over the frames that tie, and
without either, with the error and the time of each. A model of weighted sets of frames needs none.

The crystals are the prototypes of the AFLOW library in pymatgen, where nearly every atom has neighbours that tie for a
frame axis, and crystals of mp2018_val. The result is the largest change of each crystal over all draws.

The command ends with status 1 if a model misses what its settings promise.
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
from jaxtyping import Float
from tqdm.auto import tqdm

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.report import Bar, Report, Row
from crystalframer.analysis.invariance import Kind, invariance
from crystalframer.batched import WEIGHTED_MARGIN
from crystalframer.crystals.crystal import Crystal
from crystalframer.model.network import CrystalFramer
from crystalframer.reading.inputs import read

STEADY = 1e-4
"""Negligible change, in the unit of the target (eV/atom)."""
EXACT = {"eV/atom": 1e-5, "eV": 1e-4}
"""Unit → largest change of a model that promises none, in float32."""
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
    model: CrystalFramer, crystals: Sequence[Crystal], draws: Mapping[Kind, int], title: str
) -> dict[Kind, Float[np.ndarray, "n_crystals n_targets"]]:
    """Kind → largest size of the changes of each crystal, in its unit."""
    columns = [f"change/{target.name}" for target in model.config.targets]
    parts: dict[Kind, list[np.ndarray]] = {kind: [] for kind in draws}
    for start in tqdm(range(0, len(crystals), AT_ONCE), title, delay=2, leave=False):
        part = crystals[start : start + AT_ONCE]
        for kind, n_draws in draws.items():
            changes = invariance(model, part, [kind], n_draws, progress=False)[columns].to_numpy()
            parts[kind].append(np.abs(changes).reshape(n_draws, len(part), -1).max(axis=0))
    return {kind: np.concatenate(found) for kind, found in parts.items()}


def error_rows(candidates: Mapping[str, CrystalFramer], options: argparse.Namespace) -> list[Row]:
    """Error on crystals of all sizes, and processor time."""
    source = inputs.source(options)
    dataset = cf.dataset(source)  # which may lack labels of some targets
    dataset = dataset.select(np.arange(8)) if options.quick else dataset
    rows = []
    for name, candidate in candidates.items():
        candidate.used = None  # the error on all of them, not on a part
        cf.evaluate(dataset.select(np.arange(4)), candidate, progress=False)  # compiles
        start = time.process_time()
        scores = cf.evaluate(dataset, candidate).scores
        details: dict[str, float | str] = {"crystals": float(len(dataset)), "CPU s": time.process_time() - start}
        details |= {f"MAE {score.target.label}": score.mae for score in scores.values()}
        first = next(iter(scores.values()))
        work, unit = f"{Path(source).stem}, all sizes", f"{first.target.unit} MAE"
        rows.append(Row(work, name, cf.__version__, unit, first.mae, details=details))
    return rows


def candidates_of(model: CrystalFramer) -> dict[str, CrystalFramer]:
    """The model, and where it chooses one frame the two ways that are compared with it."""
    if model.promises.rotation:
        return {"crystalframer": model}
    return {
        "crystalframer": model,
        "averaged": model.with_weighted_sets(WEIGHTED_MARGIN),
        "without tie rule": without_tie_rule(model),
    }


def measure(options: argparse.Namespace, report: Report) -> None:
    model = cf.load(options.model, options.device, as_trained=True)
    model = model.double() if options.double else model
    candidates = candidates_of(model)
    draws: dict[Kind, int] = {"rotation": options.rotations, "cell": options.cells, "mirror": options.mirrors}
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
            report.rows.append(_row(work, name, candidate, changes, time.perf_counter() - start))
            report.bars += _bars(f"{work}, {name}", candidate, changes)
            if name == "without tie rule":
                continue
            sizes = dict(zip((crystal.id for crystal in crystals), _turned(changes)[:, 0].tolist(), strict=True))
            remaining = {id: size for id, size in sorted(sizes.items(), key=lambda x: -x[1]) if size >= STEADY}
            report.data["remaining"].setdefault(name, {})[work] = remaining
            unit = candidate.config.targets[0].unit
            report.notes += [f"{work}, {name}: {id} moves by {size:.1e} {unit}" for id, size in remaining.items()]
    report.rows += error_rows(candidates, options)


def _turned(changes: dict[Kind, Float[np.ndarray, "n n_targets"]]) -> Float[np.ndarray, "n n_targets"]:
    """The largest changes by rotations and other cells."""
    return np.maximum(changes["rotation"], changes["cell"])


def _row(
    work: str,
    name: str,
    model: CrystalFramer,
    changes: dict[Kind, Float[np.ndarray, "n n_targets"]],
    seconds: float,
) -> Row:
    """The share of steady crystals, and the largest changes of each target."""
    turned = _turned(changes)
    details: dict[str, float | str] = {
        "crystals": float(len(turned)),
        "99 %": float(np.quantile(turned[:, 0], 0.99)),
        "median": float(np.median(turned[:, 0])),
    }
    for n, target in enumerate(model.config.targets):
        details[f"largest {target.label}"] = float(turned[:, n].max())
        details[f"mirrored {target.label}"] = float(changes["mirror"][:, n].max())
    details["seconds"] = seconds
    unit = f"% below {STEADY:g} {model.config.targets[0].unit}"
    return Row(work, name, cf.__version__, unit, 100.0 * float(np.mean(turned[:, 0] < STEADY)), details=details)


def _bars(work: str, model: CrystalFramer, changes: dict[Kind, Float[np.ndarray, "n n_targets"]]) -> list[Bar]:
    """The largest change by each kind that should make none."""
    return [
        Bar(f"{work}, {target.name}, {kind}", float(sizes[:, n].max()), EXACT[target.unit], target.unit)
        for n, target in enumerate(model.config.targets)
        for kind, sizes in changes.items()
        if getattr(model.promises, kind) and target.unit in EXACT
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("invariance", __doc__ or "")
    inputs.add_options(parser, n_crystals=500)
    parser.add_argument("--model", help="checkpoint (default: the shipped weights)")
    parser.add_argument(
        "--rotations", type=int, default=20, help="number of random rotations of each crystal (default: 20)"
    )
    parser.add_argument("--cells", type=int, default=5, help="number of other cells of each crystal (default: 5)")
    parser.add_argument(
        "--mirrors", type=int, default=2, help="number of mirror images of each crystal, rotated (default: 2)"
    )
    parser.add_argument(
        "--double", action="store_true", help="compute in float64, where rounding errors are negligible"
    )
    options = command.parse(parser, arguments)
    if options.quick:
        options.rotations = options.cells = options.mirrors = 1
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
