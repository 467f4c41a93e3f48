"""Processor time of predictions with the shipped weights, all crystals of a data set.

`benchmarks.compare OTHER shipped` runs this file in both trees, also where the other tree does not have it: it uses
nothing but `cf.dataset`, `cf.load` and `cf.predict`. Both trees predict with the weights that they ship.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import crystalframer as cf

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mp2018_val.parquet"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shipped", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", default=str(DATA), help="packed data set, or `demo` (default: mp2018_val)")
    parser.add_argument("--crystals", type=int, help="number of crystals, from the first on (default: all)")
    parser.add_argument("--batch", type=int, default=64, help="crystals in a batch (default: 64)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and of the kernels (default: 1)")
    parser.add_argument("--passes", type=int, default=1, help="number of runs after a first, smaller one (default: 1)")
    parser.add_argument("--output", type=Path, help="JSON file with the seconds of all runs")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    crystals = list(cf.dataset(options.data))[: options.crystals]
    model = cf.load()
    seconds = []
    for run in range(options.passes + 1):
        chosen = crystals if run else crystals[: options.batch]  # the first compiles the kernels
        started = time.process_time()
        table = cf.predict(chosen, model, batch_size=options.batch, progress=False)
        seconds.append(time.process_time() - started)
        if failed := [error for error in table["error"] if error is not None]:
            raise SystemExit(f"error: {len(failed)} of {len(table)} predictions failed: {failed[0]}")
    work = f"predictions with the shipped weights, {len(crystals):,} crystals, batch {options.batch}"
    row = {"candidate": "crystalframer", "work": work, "seconds": seconds[1:]}
    print(f"{work}: {min(seconds[1:]) / len(crystals) * 1e3:.3f} ms/crystal of processor time")
    if options.output:
        options.output.write_text(json.dumps({"rows": [row]}), encoding="utf-8")


if __name__ == "__main__":
    main()
