"""Acceptance of the GPU path: one command, at most ten minutes, which says whether a training on this GPU is right and
how fast it is.

Every check is by itself: one that fails does not stop the others. The exit status is 1 if a bar is missed. The report
is written again after each check, so that a run that is cut off leaves what it has found. `--quick` runs on the CPU
what can run there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas
import torch
from torch import Tensor

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.report import Bar, Report, Row
from crystalframer import memory
from crystalframer.config import Config
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import BatchOrder, prepare, train_loader
from crystalframer.crystals.on_gpu import CrystalRows, ResidentCrystals, RowLoader, largest_sizes
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.model.network import CrystalFramer
from crystalframer.training import graphs
from crystalframer.training.folder import RunFolder
from crystalframer.training.graphs import ResidentPass
from crystalframer.training.optimisation import seed_of_piece
from crystalframer.training.task import TrainingTask

SIZES = (128, 256, 1024)
"""Crystals in a batch: below and above the numbers of rows at which torch takes other code."""
N_TRAIN, N_VALIDATION = 6144, 5572
"""Crystals of a whole training: so many are validated in the paper's JARVIS set."""
STEP_BARS = {128: 7.0, 256: 13.0}
"""Allowed wall time of a recorded step, ms."""
DIFFERENCE_BAR, CURVES_BAR = 1e-4, 1e-3
"""Allowed differences of recorded from eager passes, and of their learning curves, as a share."""
EPOCH_BAR = 6.7e-6
"""Allowed seconds an atom of an epoch of steps: 3 s for 44,578 crystals of 10 atoms."""
VALIDATION_BAR, PAPER_TRAIN = 0.3, 44_578
"""Allowed time of the validation and of saving, as a share of the steps of an epoch of so many crystals."""
GROWTH_BAR = 0.5
"""GB that steps may add after a recording that failed."""
LITTLE_MEMORY = 0.02
"""Share of the GPU's memory in which a large batch must be computed in pieces."""
SECONDS = 570.0
"""No check begins later."""


class Checks:
    """What the checks are given, and what they report."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self.report, self.is_quick = report, options.quick
        self.device = torch.device(options.device)
        self.preset = options.preset
        self.sample = inputs.sample(options)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def show(self, work: str, value: float, unit: str) -> None:
        self.report.rows.append(Row(work, self.preset, cf.__version__, unit, float(value)))

    def bar(self, name: str, value: float, limit: float, unit: str = "", at_most: bool = True) -> None:
        self.report.bars.append(Bar(name, float(value), limit, unit, at_most))

    def must(self, name: str, is_so: bool) -> None:
        self.bar(name, is_so, 1, "", at_most=False)

    def drawn(self, n: int, seed: int) -> CrystalDataset:
        """So many crystals of the sample, with repetition."""
        data = self.sample.dataset
        rows = np.random.default_rng(seed).integers(0, len(data), 12 if self.is_quick else n)
        crystals = [replace(data[row], id=str(number)) for number, row in enumerate(rows)]
        return CrystalDataset.from_crystals(crystals, [data.target(name) for name in data.targets])

    def config(self, size: int, **training: object) -> Config:
        """The preset with batches of so many crystals."""
        config, size = self.sample.config(self.preset), 4 if self.is_quick else size
        settings = {"batch_size": size, "swa_epochs": 0, "accelerator": self.device.type, **training}
        return replace(config, training=replace(config.training, **settings))  # type: ignore[arg-type]

    def fit(self, config: Config, n_validation: int = 64) -> pandas.DataFrame:
        """The history of a training, with the column `pieces`."""
        validation = self.drawn(n_validation, 1)
        splits = Splits(self.drawn(N_TRAIN, 0), validation, validation.select([]))
        with tempfile.TemporaryDirectory() as folder:
            history = cf.fit(config, splits, Path(folder) / "run").history
            pieces = RunFolder(Path(folder) / "run").read_config().training.n_pieces
        return history.assign(pieces=pieces, n_atoms=int(splits.train.n_atoms.sum()))


class Case:
    """A model and its training task, with resident crystals, as `fit` makes them."""

    def __init__(self, checks: Checks, size: int) -> None:
        self.config = config = checks.config(size)
        self.prepared = prepare(checks.drawn(8 * size, 0), config.model.radius, config.model.target_names)
        order = train_loader(self.prepared, config.training).sampler
        assert isinstance(order, BatchOrder)
        self.order, self.device = order, checks.device
        self.model = CrystalFramer(config.model, torch.Generator().manual_seed(0)).to(self.device)
        first = self.prepared[order.batches(0)[0]]
        self.model.calibrate(first.to(self.device))
        resident = ResidentCrystals.of(self.prepared, self.device)
        self.resident = ResidentPass(self.model, resident, largest_sizes(self.prepared, iter(order)))
        rows = RowLoader(self.prepared, resident, order, partial(seed_of_piece, config.training))
        self.rows: list[CrystalRows] = list(rows)
        self.task = TrainingTask(self.model, config.training, lambda _: len(self.rows), first, self.resident)
        self.task.to(self.device)
        self.optimiser = self.task.configure_optimizers()
        self.task.on_train_epoch_start()

    def step(self, batch: CrystalBatch | CrystalRows) -> None:
        def closure() -> Tensor:
            loss = self.task.training_step(batch, 0)
            self.optimiser.zero_grad()
            loss.backward()
            self.task.on_before_optimizer_step(self.optimiser)
            return loss

        self.task.optimizer_step(0, 0, self.optimiser, closure)

    def results(self, prediction: Tensor) -> list[Tensor]:
        """Copies of a prediction and its gradients."""
        gradients = torch.autograd.grad(prediction.cos().sum(), list(self.model.parameters()))
        return [prediction.detach().clone(), *(gradient.clone() for gradient in gradients)]

    def host_batch(self, number: int) -> CrystalBatch:
        batch = self.prepared[self.order.batches(0)[number]]
        return (batch.pin_memory() if self.device.type == "cuda" else batch).to(self.device)


@contextmanager
def nothing_recorded() -> Iterator[None]:
    with mock.patch.object(ResidentPass, "_record", lambda self, inputs: None):
        yield


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def milliseconds(run: Callable[[], object], device: torch.device, n: int) -> tuple[float, float]:
    """Of the host alone, and until the device is done."""
    for _ in range(2):
        run()
    synchronise(device)
    started = time.perf_counter()
    for _ in range(n):
        run()
    host = time.perf_counter() - started
    synchronise(device)
    return host / n * 1e3, (time.perf_counter() - started) / n * 1e3


# --- checks -----------------------------------------------------------------------------------------------------------


def predict_then_train(checks: Checks) -> None:
    """In one process, as in a notebook: what a prediction keeps must serve a training."""
    case = Case(checks, 32)
    with torch.inference_mode():
        case.model(case.host_batch(0))
    case.model(case.host_batch(0), 1).sum().backward()
    gradients = [parameter.grad for parameter in case.model.parameters()]
    checks.must("training after a prediction", all(g is not None and bool(g.isfinite().all()) for g in gradients))


def recorded_passes(checks: Checks) -> None:
    """Recorded at real sizes, the numbers of the model, the memory that it takes, and that noise is new each time."""
    for size in SIZES[:1] if checks.is_quick else SIZES:
        case = Case(checks, size)
        worst = 0.0
        if checks.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        for number, rows in enumerate(case.rows[:4]):
            found = case.results(case.resident(rows))
            exact = case.results(case.model(case.host_batch(number), int(rows.seed)))
            worst = max(worst, graphs._difference(found, exact))
        checks.bar(f"recorded against eager, batch {size}", worst, DIFFERENCE_BAR, "relative")
        if checks.on_gpu:
            checks.must(f"recorded, batch {size}", case.resident._recorded is not None)
            peak, sizes = torch.cuda.max_memory_allocated(), (case.resident._n_atoms, case.resident._n_edges)
            checks.show(f"peak memory, batch {size}", peak / 1e9, "GB")
            estimate = memory.batch_memory(case.config.model, *sizes, training=True)
            checks.show(f"  divided by its estimate, batch {size}", peak / estimate, "")
        first = case.rows[0]
        replayed = [case.resident(replace(first, seed=first.seed + n)).detach().clone() for n in (0, 1, 0)]
        checks.bar(f"the same seed twice, batch {size}", float((replayed[0] - replayed[2]).abs().max()), 1e-6)
        checks.show(f"another seed, batch {size}", float((replayed[0] - replayed[1]).abs().max()), "")
        case.resident.close()


def a_recording_that_fails(checks: Checks) -> None:
    """The model waits for the device, which ends a recording: one warning, then training goes on, and nothing leaks."""
    case = Case(checks, 64)
    plain = case.model.read_out
    case.model.read_out = lambda pooled: plain(pooled) + 0 * float(pooled.sum())  # type: ignore[method-assign]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for rows in case.rows[:3]:
            case.step(rows)
    case.model.read_out = plain  # type: ignore[method-assign]
    checks.must("one warning of a recording that failed", sum("CUDA graphs" in str(w.message) for w in seen) == 1)
    before = torch.cuda.memory_reserved()
    for _ in range(10):
        for rows in case.rows[:3]:
            case.step(rows)
    checks.bar("memory added after it", (torch.cuda.memory_reserved() - before) / 1e9, GROWTH_BAR, "GB")
    checks.must("random numbers after it", bool(torch.rand(4, device=checks.device).isfinite().all()))


def no_step_waits(checks: Checks) -> None:
    """By torch's own watch: a step of resident crystals, recorded and not, and of batches of the host."""
    case = Case(checks, 128)
    for name, is_recorded, of_host in (("recorded", 1, 0), ("eager", 0, 0), ("host batch", 0, 1)):
        case.resident._is_recordable = bool(is_recorded)
        batch = case.host_batch(0) if of_host else case.rows[0]
        case.step(batch)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            case.step(batch)
            found = True
        except RuntimeError as error:
            checks.report.notes.append(f"{name} step waits: {error}")
            found = False
        finally:
            torch.cuda.set_sync_debug_mode("default")
        checks.must(f"a step does not wait for the GPU, {name}", found)


def times_of_steps(checks: Checks) -> None:
    """Of host and device, recorded and not."""
    for size in (4,) if checks.is_quick else STEP_BARS:
        case = Case(checks, size)
        for name in ("eager", "recorded") if checks.on_gpu else ("eager",):
            case.resident._is_recordable = name == "recorded"
            run = partial(case.step, case.rows[0])
            host, wall = milliseconds(run, checks.device, 2 if checks.is_quick else 20)
            checks.show(f"{name} step, batch {size}, host", host, "ms")
            checks.show(f"{name} step, batch {size}", wall, "ms")
            if name == "recorded":
                checks.bar(f"{name} step, batch {size}", wall, STEP_BARS[size], "ms")
        with torch.inference_mode():
            batch = case.host_batch(0)
            wall = milliseconds(lambda: case.model(batch), checks.device, 1 if checks.is_quick else 5)[1]  # noqa: B023
        checks.show(f"prediction, batch {size}", wall, "ms")
        case.resident.close()


def a_whole_training(checks: Checks) -> None:
    """Steps and validation of a short `fit`, without a word about graphs that could not be recorded."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*without CUDA graphs.*")
        history = checks.fit(checks.config(256, n_epochs=4, swa_epochs=1), N_VALIDATION)
    steps, seconds = history["training_seconds"].to_numpy(), history["seconds"].to_numpy()
    limit = EPOCH_BAR * int(history["n_atoms"].iloc[0])
    checks.bar("steps of an epoch", float(np.median(steps[1:])), limit, "s")
    share = float(np.median((seconds - steps)[1:] / steps[1:])) * N_TRAIN / PAPER_TRAIN
    name = f"validation of {N_VALIDATION:,} crystals and saving"
    checks.bar(name, share, VALIDATION_BAR, f"of the steps of {PAPER_TRAIN:,}")
    checks.show("whole training", float(seconds.sum()), "s")
    checks.bar("loss of the last epoch", history["train_loss"].iloc[-1], 0.9 * history["train_loss"].iloc[0], "σ")


def learning_curves(checks: Checks) -> None:
    """Recorded, again, and eager; with an eps at which AdamW does not magnify rounding."""
    config = checks.config(256, n_epochs=3, eps=1e-3)
    recorded, again = (checks.fit(config)["train_loss"].to_numpy() for _ in range(2))
    with nothing_recorded():
        eager = checks.fit(config)["train_loss"].to_numpy()
    checks.bar("learning curve, recorded against eager", np.abs(recorded / eager - 1).max(), CURVES_BAR, "relative")
    checks.bar("learning curve, recorded twice", np.abs(recorded / again - 1).max(), CURVES_BAR, "relative")


def little_memory(checks: Checks) -> None:
    """A step that needs more memory than there is: the batch is computed in pieces."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(LITTLE_MEMORY)
    try:
        history = checks.fit(checks.config(1024, n_epochs=1))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    checks.bar("pieces of a batch that does not fit", history["pieces"].iloc[0], 2, "", at_most=False)


CHECKS: dict[Callable[[Checks], None], bool] = {
    predict_then_train: False,
    recorded_passes: False,
    a_recording_that_fails: True,
    no_step_waits: True,
    times_of_steps: False,
    learning_curves: False,
    a_whole_training: False,
    little_memory: True,
}
"""Check → whether it needs a GPU."""


def measure(options: argparse.Namespace, report: Report) -> None:
    started, checks = time.perf_counter(), Checks(options, report)
    report.data |= {"name": checks.sample.name, "preset": options.preset}
    for check, needs_gpu in CHECKS.items():
        name = check.__name__.replace("_", " ")
        if needs_gpu and not checks.on_gpu:
            report.notes.append(f"{name}: needs a GPU")
            continue
        begins = time.perf_counter()
        if begins - started > SECONDS:
            report.notes.append(f"{name}: not run, {SECONDS:.0f} s were over")
            checks.must(name, False)
            continue
        try:
            check(checks)
        except Exception as error:  # the others still tell something
            report.notes.append(f"{name}: {type(error).__name__}: {error}")
            checks.must(f"{name}: ends without an error", False)
        checks.show(name, time.perf_counter() - begins, "s")
        if checks.on_gpu:
            torch.cuda.empty_cache()
        if options.output is not None:
            report.save(options.output)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("gpu", "Whether training on this GPU is right, and how fast it is.")
    parser.set_defaults(device="cuda")
    parser.add_argument("--preset", default="default", help="preset (default: default)")
    inputs.add_options(parser, n_crystals=4096)
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
