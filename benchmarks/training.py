"""Milliseconds per crystal for training steps and predictions of the whole model: ours, our reference and peers.

A training step is forward, backward, clipping and fused AdamW on prepared batches. Prediction is measured on prepared
batches, and from structures (`crystalframer.predict`). All candidates get the same crystals in batches of the same
size.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch

import crystalframer as cf
from benchmarks import command, floor, inputs
from benchmarks.floor import Shape, Work
from benchmarks.inputs import Sample
from benchmarks.ours import NAMES, SEARCH_NOTE, Ours, batches
from benchmarks.peers import PeerTraining, installed
from benchmarks.report import Bar, Report, timed_rows
from benchmarks.timing import Candidate, Timing, alternate, over, ratio
from crystalframer.config import Config
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import prepare
from crystalframer.reading.inputs import read

EPOCH = 44_578
"""Number of training crystals of the JARVIS-DFT 2021 formation energies (main table of the paper)."""
STEP_BAR, PREDICTION_BAR, FROM_STRUCTURES_BAR = 8.0, 2.5, 6.0
"""Allowed time on two cores, ms per crystal."""
REFERENCE_BAR = 10.0
EPOCH_BAR = 3.0
"""Allowed time on one H100, s."""


def measure(options: argparse.Namespace, report: Report) -> None:
    crystals = inputs.sample(options)
    config = crystals.config(options.preset)
    report.data |= {"name": crystals.name, "preset": options.preset, "mean_atoms": crystals.mean_atoms}
    peers, notes = installed() if options.device == "cpu" and find_spec("pymatgen") else ([], [])
    report.notes += [SEARCH_NOTE, *notes] + [f"{peer.name} {peer.version}: {peer.settings}" for peer in peers]
    trainings = {peer.name: PeerTraining(peer) for peer in peers}
    structures: Sequence[Any] = list(crystals.dataset)
    if find_spec("pymatgen"):
        structures = [to_structure(crystal) for crystal in structures]
    else:
        report.notes.append("pymatgen is not installed: predictions `from structures` start from Crystal objects")
    graphs = {name: [training.peer.graph(s) for s in structures] for name, training in trainings.items()}
    for position, size in enumerate(options.batch):
        comparison = Comparison(options, report, config, crystals, size)
        comparison.steps(trainings, graphs)
        if position == 0:
            comparison.from_structures(trainings, structures)


class Comparison:
    """All candidates on the crystals in batches of one size."""

    def __init__(
        self, options: argparse.Namespace, report: Report, config: Config, crystals: Sample, size: int
    ) -> None:
        self.options, self.report, self.crystals, self.size = options, report, crystals, size
        self.device = torch.device(options.device)
        self.config = config
        model = config.model
        prepared = prepare(crystals.dataset, model.radius, model.target_names)
        self.batches: list[CrystalBatch] = batches(prepared, size, self.device)
        self.shapes = [Shape.of(batch) for batch in self.batches]
        self.ours = {name: Ours(config, self.batches[0], implementation) for name, implementation in NAMES.items()}

    def steps(self, trainings: Mapping[str, PeerTraining], graphs: Mapping[str, Sequence[Any]]) -> None:
        """Training steps and predictions on batches that are ready."""
        inputs_of: dict[str, list[Any]] = {name: list(self.batches) for name in self.ours}
        for name, training in trainings.items():
            inputs_of[name] = [
                (training.peer.batch(graphs[name][start : start + self.size]), batch.targets[:, 0])
                for start, batch in zip(range(0, len(graphs[name]), self.size), self.batches, strict=True)
            ]
        candidates: dict[str, Ours | PeerTraining] = {**self.ours, **trainings}
        n_parameters, model = self.ours["crystalframer"].n_parameters, self.config.model
        steps = self._time("training step", {n: over(c.step, inputs_of[n]) for n, c in candidates.items()})
        work = sum((floor.training_step(shape, model, n_parameters) for shape in self.shapes), Work())
        self._add("training step", steps, trainings, work, with_epoch=True)
        predictions = self._time("prediction", {n: over(c.predict, inputs_of[n]) for n, c in candidates.items()})
        work = sum((floor.prediction(shape, model) for shape in self.shapes), Work())
        self._add("prediction, input ready", predictions, trainings, work)
        self._judge(steps, predictions)

    def from_structures(self, trainings: Mapping[str, PeerTraining], structures: Sequence[Any]) -> None:
        """Input alone (graphs, or neighbours and batches), and predictions with everything that they need."""
        model, first = self.ours["crystalframer"].model, structures[: self.size]

        def ours(chosen: Sequence[Any]) -> None:
            frame = cf.predict(list(chosen), model, batch_size=self.size, progress=False)
            failed = [error for error in frame["error"] if error is not None]
            if failed:
                raise RuntimeError(f"{len(failed)} of {len(frame)} predictions failed: {failed[0]}")

        def neighbors(chosen: Sequence[Any]) -> None:
            crystals = [read(structure) for structure in chosen]
            batches(prepare(crystals, self.config.model.radius), self.size, self.device)

        building = {"crystalframer": Candidate(lambda: neighbors(structures), lambda: neighbors(first))}
        predicting = {"crystalframer": Candidate(lambda: ours(structures), lambda: ours(first))}
        for name, training in trainings.items():
            building[name] = over(training.peer.graph, structures)
            predicting[name] = Candidate(
                lambda training=training: training.from_structures(structures, self.size),
                lambda training=training: training.from_structures(first, self.size),
            )
        self._add("input: neighbours or graphs", self._time("input", building), trainings, None)
        timings = self._time("from structures", predicting)
        self._add("prediction, from structures", timings, trainings, None)
        self._bar("prediction from structures", timings["crystalframer"], FROM_STRUCTURES_BAR)

    def _time(self, title: str, candidates: Mapping[str, Candidate]) -> dict[str, Timing]:
        title = f"{title}, batch {self.size}"
        return alternate(candidates, self.options.passes, self.device, title, self.options.budget)

    def _add(
        self,
        work: str,
        timings: Mapping[str, Timing],
        trainings: Mapping[str, PeerTraining],
        least: Work | None,
        with_epoch: bool = False,
    ) -> None:
        n_crystals = len(self.crystals.dataset)
        versions = dict.fromkeys(NAMES, cf.__version__) | {n: t.peer.version for n, t in trainings.items()}
        title = f"s an epoch of {EPOCH:,}"
        epochs = {n: {title: t.median / n_crystals * EPOCH} for n, t in timings.items()} if with_epoch else None
        self.report.rows += timed_rows(
            f"{work}, batch {self.size}",
            timings,
            versions,
            "ms/crystal",
            1e3 / n_crystals,
            {} if least is None else {name: least for name in NAMES if name in timings},
            epochs,
        )

    def _judge(self, steps: Mapping[str, Timing], predictions: Mapping[str, Timing]) -> None:
        n_crystals, ours = len(self.crystals.dataset), steps["crystalframer"]
        if self.device.type == "cuda":
            seconds = ours.median / n_crystals * EPOCH
            name = f"epoch of {EPOCH:,} crystals like these ({self.crystals.mean_atoms:.1f} atoms), batch {self.size}"
            self.report.bars.append(Bar(name, seconds, EPOCH_BAR, "s"))
            return
        self._bar("training step", ours, STEP_BAR)
        times = ratio(steps["crystalframer, reference"], ours)
        self.report.bars.append(
            Bar(f"training step, batch {self.size}: our reference takes", times, REFERENCE_BAR, "times as long", False)
        )
        self._bar("prediction, input ready", predictions["crystalframer"], PREDICTION_BAR)

    def _bar(self, work: str, timing: Timing, limit: float) -> None:
        if self.device.type == "cpu":
            value = timing.median * 1e3 / len(self.crystals.dataset)
            self.report.bars.append(Bar(f"{work}, batch {self.size}", value, limit, "ms/crystal"))


def to_structure(crystal: Crystal) -> Any:
    from pymatgen.core import Lattice, Structure

    return Structure(
        Lattice(crystal.lattice), crystal.atomic_numbers.tolist(), crystal.positions, coords_are_cartesian=True
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("training", "Training step and prediction of the whole model, ours and peers.")
    parser.add_argument(
        "--batch", type=int, nargs="+", help="numbers of crystals in a batch (default: 64 32, on CUDA 256 64)"
    )
    parser.add_argument("--preset", default="default", help="preset (default: default)")
    inputs.add_options(parser, n_crystals=512)
    options = command.parse(parser, arguments)
    options.batch = options.batch or ([64, 32] if options.device == "cpu" else [256, 64])
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
