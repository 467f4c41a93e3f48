"""Processor time of training steps and of predictions with the shipped weights, on batches that are ready.

`benchmarks.compare OTHER ready` runs this file in both trees: each trains the model that it ships, from its weights, on
its own labels of the same crystals. No reference and no peers take part, so it takes seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import crystalframer as cf
from benchmarks.ours import Ours, batches

try:
    from crystalframer.crystals.loading import prepare
except ImportError:  # the trees of the first round
    from crystalframer.data.loading import prepare  # type: ignore[no-redef]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mp2018_val.parquet"
TARGETS = ("formation_energy_per_atom", "band_gap")


def prepared(model: Any, options: argparse.Namespace) -> Any:
    """The crystals with neighbours, as far as this model looks."""
    dataset = cf.dataset(options.data)
    rows = np.flatnonzero(dataset.n_atoms <= options.largest_cell)
    chosen = dataset.select(np.random.default_rng(0).permutation(rows)[: options.crystals]).with_targets(list(TARGETS))
    wider = {"enlarge": model.enlarges_radius} if hasattr(model, "enlarges_radius") else {}
    return prepare(chosen, model.radius, TARGETS, **wider)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ready", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", default=str(DATA), help="packed data set (default: mp2018_val)")
    parser.add_argument("--crystals", type=int, default=512, help="number of crystals (default: 512)")
    parser.add_argument("--largest-cell", type=int, default=20, help="atoms of the largest cell (default: 20)")
    parser.add_argument("--batch", type=int, default=64, help="crystals in a batch (default: 64)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and of the kernels (default: 1)")
    parser.add_argument("--passes", type=int, default=5, help="number of runs after a first one (default: 5)")
    parser.add_argument("--output", type=Path, help="JSON file with the seconds of all runs")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    shipped = cf.load()
    config = cf.Config(model=shipped.config)
    two = replace(
        config, model=replace(config.model, targets=tuple(t for t in config.model.targets if t.name in TARGETS))
    )
    ready = batches(prepared(shipped.config, options), options.batch, torch.device("cpu"))
    training = Ours(two, ready[0], "auto")
    shapes = {name: tensor.shape for name, tensor in training.model.state_dict().items()}
    trained = {name: tensor for name, tensor in shipped.state_dict().items() if shapes.get(name) == tensor.shape}
    training.model.load_state_dict(trained, strict=False)
    predicting = Ours(config, ready[0], "auto")
    predicting.model = shipped
    n_crystals = sum(batch.n_crystals for batch in ready)
    rows = []
    works: dict[str, Callable[[Any], Any]] = {"training step": training.step, "prediction": predicting.predict}
    for work, run in works.items():
        seconds = []
        for _ in range(options.passes + 1):  # the first compiles the kernels
            started = time.process_time() if options.threads == 1 else time.perf_counter()
            for batch in ready:
                run(batch)
            seconds.append((time.process_time() if options.threads == 1 else time.perf_counter()) - started)
        title = f"{work}, {n_crystals} crystals, batch {options.batch}"
        rows.append({"candidate": "crystalframer", "work": title, "seconds": seconds[1:]})
        print(f"{title}: {np.median(seconds[1:]) / n_crystals * 1e3:.3f} ms/crystal")
    if options.output:
        options.output.write_text(json.dumps({"rows": rows}), encoding="utf-8")


if __name__ == "__main__":
    main()
