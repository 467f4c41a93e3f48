"""Steps of predictions where atoms move, and what a model leaves out beyond its reach.

Paths start from crystals of mp2018_val: atoms move in random directions, cells are strained, a neighbour passes the
reach of a head, a right angle, or a tie. Predictions in float64 follow each path in steps of 10⁻³ Å, and the largest
changes are followed by halving to 10⁻⁶ Å. A step stays as large as it is. Where the reach of the heads is a setting
(`decay.reach`), all crystals are predicted again with 1.3 times the reach.

The command ends with status 1 if the model misses what its settings promise.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.report import Bar, Report, Row
from crystalframer.analysis.batches import predictions
from crystalframer.analysis.check import LONGER
from crystalframer.analysis.continuity import continuity, paths_of
from crystalframer.analysis.paths import PATH_KINDS, Path
from crystalframer.config import ModelPromises
from crystalframer.model.network import CrystalFramer

N_POINTS, N_HALVINGS = 201, 10
"""Points 10⁻³ Å apart; after the halvings 10⁻⁶ Å."""
MOST_UNEVEN = 10.0
"""Largest change between points 10⁻⁴ Å apart, in median changes of its path."""
CONVERGED = {"eV/atom": (1e-3, 1e-4), "eV": (1e-2, 1e-3)}
"""Unit → largest and mean change by a longer reach."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("continuity", __doc__ or "")
    inputs.add_options(parser, n_crystals=200)
    parser.set_defaults(largest_cell=8)
    parser.add_argument("--model", help="checkpoint (default: the shipped weights)")
    parser.add_argument("--paths", type=int, default=200, help="number of paths, of all kinds together (default: 200)")
    parser.add_argument("--as-trained", action="store_true", help="choose one frame if training did")
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


def measure(options: argparse.Namespace, report: Report) -> None:
    model = cf.load(options.model, device=options.device, as_trained=options.as_trained)
    report.data |= {"promises": str(model.promises), "smooth": model.promises.smooth}
    along_paths(model, options, report)
    if model.config.decay.reach is not None:
        longer_reach(model, options, report)


def along_paths(model: CrystalFramer, options: argparse.Namespace, report: Report) -> None:
    """Steps, kinks and the evenness of changes, for each kind of path."""
    sample = inputs.sample(options)
    report.data["name"] = sample.name
    paths = _paths(model, sample, len(PATH_KINDS) if options.quick else options.paths)
    n_points, n_halvings = (21, 5) if options.quick else (N_POINTS, N_HALVINGS)
    table = continuity(model, paths, n_points, n_halvings)
    report.data |= {"paths": table.to_dict("records"), **{name: table.attrs[name] for name in ("spacings", "largest")}}
    kinds = np.array([path.kind for path in paths])
    for target in model.config.targets:
        found = {what: table[f"{what}/{target.name}"].to_numpy() for what in ("step", "kink", "ratio", "bend_ratio")}
        for kind in dict.fromkeys(kinds):
            part = {what: sizes[kinds == kind] for what, sizes in found.items()}
            details: dict[str, float | str] = {
                "paths": float(len(part["step"])),
                "with steps": float((part["step"] > 0).sum()),
                "with kinks": float((part["kink"] > 0).sum()),
                "largest kink/Å": float(part["kink"].max()),
                "largest/median change": float(part["ratio"].max()),
                f"above {MOST_UNEVEN:g}": float((part["ratio"] > MOST_UNEVEN).sum()),
                "of the derivative": float(part["bend_ratio"].max()),
            }
            unit = f"{target.unit}, largest step"
            work, largest = f"{target.name}, {kind}", float(part["step"].max())
            report.rows.append(Row(work, "crystalframer", cf.__version__, unit, largest, details=details))
        report.bars += _bars(target.name, found, model.promises)
        changes = [f"{size:.1e} at {d:.1e} Å" for d, size in zip(*_levels(table, target.name), strict=True)]
        report.notes.append(f"{target.name}, largest change between points ({target.unit}): {', '.join(changes)}")


def _bars(name: str, found: Mapping[str, np.ndarray], promises: ModelPromises) -> Iterator[Bar]:
    """No step and no uneven change where the model promises so, and the same for its derivative."""
    for is_promised, what, ratio in (
        (promises.continuous, "step", "ratio"),
        (promises.smooth, "kink", "bend_ratio"),
    ):
        if is_promised:
            yield Bar(f"{name}, paths with a {what}", float((found[what] > 0).sum()), 0, "paths")
            of = "change" if what == "step" else "change of the derivative"
            yield Bar(f"{name}, largest/median {of}", float(found[ratio].max()), MOST_UNEVEN, "")


def _levels(table: pandas.DataFrame, target: str) -> tuple[list[float], list[float]]:
    """Distances of points, and the largest change at each, for every third halving or so."""
    return table.attrs["spacings"][::3], table.attrs["largest"][target][::3]


def _paths(model: CrystalFramer, sample: inputs.Sample, n_paths: int) -> list[Path]:
    """As many paths of each kind, from the first crystals that have them."""
    crystals, found = list(sample.dataset), []
    for kind in PATH_KINDS:
        found += paths_of(model, crystals, [kind])[: n_paths // len(PATH_KINDS)]
    return found


def longer_reach(model: CrystalFramer, options: argparse.Namespace, report: Report) -> None:
    """Change of all predictions with a longer reach: what the model leaves out."""
    dataset = cf.dataset(inputs.source(options))
    crystals = list(dataset.select(np.arange(8)) if options.quick else dataset)
    before, after = (predictions(crystals, each) for each in (model, model.looking_farther(LONGER)))
    for target, changes in zip(model.config.targets, np.abs(after - before).T, strict=True):
        details = {"crystals": float(len(changes)), "mean": float(changes.mean()), "median": float(np.median(changes))}
        work, unit = f"{target.name}, reach × {LONGER}", f"{target.unit}, largest change"
        report.rows.append(Row(work, "crystalframer", cf.__version__, unit, float(changes.max()), details=details))
        if target.unit in CONVERGED:
            for name, value, limit in zip(
                ("largest", "mean"), (changes.max(), changes.mean()), CONVERGED[target.unit], strict=True
            ):
                report.bars.append(Bar(f"{work}, {name} change", float(value), limit, target.unit))


if __name__ == "__main__":
    main()
