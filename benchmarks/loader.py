"""Time of each stage of the input, in milliseconds per crystal. Does the model wait for it? What does Lightning cost?

The stages are: neighbour search (once per data set), compared with other libraries; building a batch; an epoch as a
plain loop of training steps, on prepared batches and from the loader, with and without worker processes; and the same
epoch in `crystalframer.fit`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import crystalframer as cf
from benchmarks import command, floor, inputs
from benchmarks.floor import Shape, Work
from benchmarks.ours import SEARCH_NOTE, Ours
from benchmarks.report import Bar, Report, Row, timed_rows
from benchmarks.timing import Candidate, Timing, alternate, over, synchronise
from benchmarks.training import to_structure
from crystalframer.config import Config
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import BatchOrder, PreparedCrystals, prepare, train_loader
from crystalframer.datasets.dataset import CrystalDataset, Splits

BAR = 0.05
"""Allowed share of an epoch that is spent waiting for input."""


# --- neighbour search, ours and others' -------------------------------------------------------------------------------


def searches(crystals: Sequence[Crystal], radius: float) -> dict[str, Candidate]:
    """All neighbours within the radius, crystal by crystal, by every library that is installed."""
    found = {"crystalframer": Candidate(lambda: prepare(crystals, radius), lambda: prepare(crystals[:1], radius))}
    if find_spec("pymatgen"):
        found["pymatgen"] = over(lambda s: s.get_neighbor_list(radius), [to_structure(c) for c in crystals])
    if find_spec("ase"):
        atoms = import_module("ase").Atoms
        search = import_module("ase.neighborlist").neighbor_list
        inputs_ = [atoms(c.atomic_numbers, c.positions, cell=c.lattice, pbc=True) for c in crystals]
        found["ase"] = over(lambda a: search("ijSD", a, radius), inputs_)
    if find_spec("vesin"):
        vesin = import_module("vesin").NeighborList(cutoff=radius, full_list=True)
        found["vesin"] = over(lambda c: vesin.compute(c.positions, c.lattice, True, "ijSD"), crystals)
    return found


# --- epochs -----------------------------------------------------------------------------------------------------------


class Epoch:
    """A plain loop of training steps over a loader. Measures the time spent waiting for the next batch."""

    def __init__(self, ours: Ours, prepared: PreparedCrystals, n_workers: int, device: torch.device) -> None:
        training = replace(ours.config.training, n_workers=n_workers)
        self._loader = train_loader(prepared, training, pin_memory=device.type == "cuda")
        self._ours, self._device = ours, device
        self.waits: list[float] = []
        """Share of each epoch that was spent waiting."""

    def run(self) -> None:
        started, waited = time.perf_counter(), 0.0
        batches = iter(self._loader)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break
            batch = batch.to(self._device)
            waited += time.perf_counter() - asked
            self._ours.step(batch)
        synchronise(self._device)
        self.waits.append(waited / (time.perf_counter() - started))


def epochs_within_fit(config: Config, data: CrystalDataset, n_epochs: int) -> Timing:
    """Seconds from the start of each epoch to the end of its last training batch, without the first epoch."""
    import lightning.pytorch as pl

    class Stopwatch(pl.Callback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.started = time.perf_counter()

        def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            synchronise(pl_module.device)
            self.seconds.append(time.perf_counter() - self.started)

    training = replace(config.training, n_epochs=n_epochs + 1, swa_epochs=0)
    watch = Stopwatch()
    some, none = data.select(np.arange(2)), data.select(np.arange(0))
    with tempfile.TemporaryDirectory() as folder:
        cf.fit(replace(config, training=training), Splits(data, some, none), Path(folder) / "run", callbacks=[watch])
    return Timing(tuple(watch.seconds[1:]))


# --- the run ----------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, report: Report) -> None:
    device = torch.device(options.device)
    sample = inputs.sample(options)
    n_crystals = len(sample.dataset)
    config = sample.config(options.preset)
    size = min(options.batch, n_crystals)
    training = replace(
        config.training, batch_size=size, accelerator=device.type, n_threads=options.threads, drop_last=False
    )
    config = replace(config, training=training)
    report.data |= {"name": sample.name, "preset": options.preset, "batch": size}

    def add(
        work: str, candidates: dict[str, Candidate], least: Work, versions: dict[str, str], base: str
    ) -> dict[str, Timing]:
        timings = alternate(candidates, options.passes, device, work, options.budget)
        rows = timed_rows(
            work, timings, versions, "ms/crystal", 1e3 / n_crystals, dict.fromkeys(candidates, least), base=base
        )
        report.rows.extend(rows)
        return timings

    crystals, radius = list(sample.dataset), config.model.radius
    prepared = prepare(sample.dataset, radius, config.model.target_names)
    order = BatchOrder(np.asarray(prepared.n_atoms), size, seed=training.seed)
    chosen = order.batches(0)
    ready = [prepared[rows].to(device) for rows in chosen]
    shapes = [Shape.of(batch) for batch in ready]

    found = searches(crystals, radius)
    report.notes.append(SEARCH_NOTE)
    versions = {name: metadata.version(name) for name in found if name != "crystalframer"}
    versions["crystalframer"] = cf.__version__
    n_edges = sum(shape.n_edges for shape in shapes)
    add(f"neighbours within {radius:.2f} Å", found, floor.neighbor_search(n_edges), versions, "crystalframer")

    building: Callable[[Any], object] = lambda rows: prepared[rows]  # noqa: E731
    copied = sum((floor.batching(batch) for batch in ready), Work())
    add(f"building batches of {size}", {"crystalframer": over(building, chosen)}, copied, versions, "crystalframer")

    ours = Ours(config, ready[0], "auto")
    least = sum((floor.training_step(shape, config.model, ours.n_parameters) for shape in shapes), Work())
    loops = {n_workers: Epoch(ours, prepared, n_workers, device) for n_workers in options.workers}
    names = {n_workers: f"loader, {n_workers} workers" for n_workers in loops}
    candidates = {"batches ready": over(ours.step, ready)}
    candidates |= {names[n_workers]: Candidate(loop.run) for n_workers, loop in loops.items()}
    versions |= dict.fromkeys(candidates, cf.__version__)
    timings = add(f"epoch of steps, batch {size}", candidates, least, versions, "batches ready")
    for n_workers, loop in loops.items():
        # On a CPU whoever waits for a batch does nothing else; a GPU works on meanwhile, and what counts is the delay.
        wait = median(loop.waits)
        if device.type == "cuda":
            wait = 1.0 - timings["batches ready"].median / timings[names[n_workers]].median
        report.bars.append(Bar(f"input wait, {n_workers} workers", wait, BAR, "of an epoch"))

    fitted = epochs_within_fit(config, sample.dataset, options.passes)
    bare = timings["batches ready"]
    report.rows.append(
        Row(
            f"epoch of steps, batch {size}",
            "within fit (Lightning)",
            cf.__version__,
            "ms/crystal",
            fitted.median * 1e3 / n_crystals,
            fitted,
            fitted.median / bare.median,
            least,
        )
    )
    report.notes.append(
        f"Lightning, the loader and the bookkeeping of fit cost {fitted.median / bare.median - 1:+.1%} over bare steps "
        "on batches that are ready (measured one after the other, not in turns)."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("loader", "Neighbour search, batches, input wait, and what Lightning costs.")
    parser.add_argument("--batch", type=int, default=64, help="number of crystals in a batch (default: 64)")
    parser.add_argument("--preset", default="default", help="preset (default: default)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2], help="numbers of loader processes (default: 0 2)"
    )
    inputs.add_options(parser, n_crystals=512)
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
