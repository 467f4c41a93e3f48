"""What the margin δ of weighted frames costs and gives: the curve that chose it.

One trained model is evaluated with several margins: the number of frames of an atom and head, the time of a prediction,
the errors, and how strongly the predictions bend where two neighbours of an atom pass each other in distance. A small
margin means few frames and sharp bends, a large one many frames that blur what the model sees.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence

import numpy as np
import torch

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.report import Report, Row
from crystalframer.analysis.batches import batches, predictions
from crystalframer.analysis.paths import through_tie
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.model.network import CrystalFramer

MARGINS = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
STEP = 1e-3
"""Å: between the points of a path, for second derivatives."""
N_POINTS = 201


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("margins", __doc__ or "")
    inputs.add_options(parser, n_crystals=500)
    parser.set_defaults(largest_cell=40)
    parser.add_argument("--model", help="checkpoint (default: the shipped weights)")
    parser.add_argument("--paths", type=int, default=20, help="number of paths through a tie (default: 20)")
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


def measure(options: argparse.Namespace, report: Report) -> None:
    trained = cf.load(options.model, device=options.device)
    trained.used = None  # the error on all crystals, not on a part
    data = cf.dataset(inputs.source(options))  # which may lack labels of some targets
    allowed = np.flatnonzero(data.n_atoms <= options.largest_cell)
    n = min(len(allowed), 6 if options.quick else options.crystals)
    data = data.select(np.sort(np.random.default_rng(inputs.SEED).permutation(allowed)[:n]))
    report.data |= {"name": f"{n} crystals of at most {options.largest_cell} atoms (seed {inputs.SEED})"}
    models = {margin: trained.with_weighted_sets(margin) for margin in MARGINS}
    seconds = _seconds(models, data, 1 if options.quick else options.passes)
    for margin, model in models.items():
        scores = cf.evaluate(data, model, progress=False).scores
        details: dict[str, float | str] = {
            "frames of an atom and head": _mean_set(model, data),
            "ms a crystal": 1e3 * seconds[margin] / n,
            "largest bend": _largest_bend(model, data, 2 if options.quick else options.paths),
        }
        details |= {f"{name} ({score.target.unit})": score.mae for name, score in scores.items()}
        first = next(iter(scores.values()))
        row = Row("evaluation", f"margin {margin:g}", cf.__version__, first.target.unit, first.mae, details=details)
        report.rows.append(row)
        print(row, flush=True)
    report.notes.append(
        f"largest bend: largest second derivative of {trained.config.target_names[0]} (per Å²), by differences over "
        f"{STEP} Å in float64, on {options.paths} paths on which two neighbours of an atom pass each other in distance."
    )


def _seconds(models: dict[float, CrystalFramer], data: CrystalDataset, n_passes: int) -> dict[float, float]:
    """CPU time of all predictions, the least of some passes; the margins take turns."""
    found = dict.fromkeys(models, float("inf"))
    for _ in range(n_passes):
        for margin, model in models.items():
            given = list(batches(list(data), model, "", progress=False))
            start = time.process_time()
            with torch.inference_mode():
                for batch in given:
                    model(batch)
            found[margin] = min(found[margin], time.process_time() - start)
    return found


def _mean_set(model: CrystalFramer, data: CrystalDataset) -> float:
    """Mean number of frames that weigh more than a thousandth, over atoms, heads and layers."""
    few = data.select(np.arange(min(len(data), 100)))
    sizes = []
    for batch in batches(list(few), model, "", progress=False):
        for trace in model.trace(batch):
            for layer in trace.layers:
                assert layer.frame is not None
                sets = layer.frame.sets
                counted = np.bincount(sets.set_of_member, weights=sets.weights > 1e-3, minlength=len(sets.sizes))
                sizes.append(counted)
    return float(np.concatenate(sizes).mean())


def _largest_bend(model: CrystalFramer, data: CrystalDataset, n_paths: int) -> float:
    exact, bends = copy.deepcopy(model).double(), []
    for seed, crystal in enumerate(data):
        path = through_tie(crystal, seed) if len(crystal) <= 12 else None
        if path is not None and path.is_possible:
            points = path.length / 2 + STEP * (np.arange(N_POINTS) - N_POINTS // 2)
            values = predictions([path.at(float(x)) for x in points], exact, progress=False)[:, 0]
            bends.append(np.abs(np.diff(values, 2)).max() / STEP**2)
        if len(bends) == n_paths:
            break
    return float(np.max(bends))


if __name__ == "__main__":
    main()
