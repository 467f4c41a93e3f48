"""CIF files per second that `crystalframer.predict` reads and predicts, and the time of each stage.

Half of the files give the symmetry, half list every atom, and some are broken. The stages are timed within the reported
calls. Every broken file must give a row with an error that names it.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import pandas
import torch
from pymatgen.core import Structure
from tqdm.auto import tqdm

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.ours import SEARCH_NOTE
from benchmarks.report import Bar, Report, Row, timed_rows
from benchmarks.timing import Candidate, alternate, synchronise
from crystalframer import batched
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.model.network import CrystalFramer
from crystalframer.reading.cells import SITE_TOLERANCE
from crystalframer.reading.inputs import iter_structures

PYMATGEN = "crystalframer, files read by pymatgen"
STAGES = ("reading and parsing", "neighbours", "model", "batches, table, the rest")
SHARE_BROKEN = 0.02
RATE_BAR = 150.0
"""Least files in a second of processor time."""

NOT_CIF = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
BREAKAGES: Mapping[str, Callable[[str], bytes]] = {
    "empty": lambda _: b"",
    "web-page": lambda _: NOT_CIF,
    "random-bytes": lambda _: np.random.default_rng(0).bytes(4096),
    "compressed": lambda _: b"\x1f\x8b\x08" + np.random.default_rng(1).bytes(512),
    "cut-in-cell": lambda text: text[: text.index("_cell_angle_beta")].encode(),
    "cut-before-sites": lambda text: text[: text.index("_atom_site_fract_y")].encode(),
    "cut-in-row": lambda text: text.rstrip().rpartition(" ")[0].rstrip().encode(),
    "cut-between-rows": lambda text: text.rstrip().rpartition("\n")[0].encode(),
    "no-rows": lambda text: text[: text.index("_atom_site_occupancy") + len("_atom_site_occupancy\n")].encode(),
    "word-for-length": lambda text: _with_value(text, "_cell_length_a", "wide"),
    "length-zero": lambda text: _with_value(text, "_cell_length_a", "0.0"),
    "length-tiny": lambda text: _with_value(text, "_cell_length_a", "0.02"),
    "length-huge": lambda text: _with_value(text, "_cell_length_a", "1e300"),
    "length-not-a-number": lambda text: _with_value(text, "_cell_length_a", "nan"),
    "angle-impossible": lambda text: _with_value(text, "_cell_angle_alpha", "275"),
    "angle-zero": lambda text: _with_value(text, "_cell_angle_alpha", "0"),
    "half-occupied": lambda text: _with_last(text, -1, "0.5"),
    "two-on-one-place": lambda text: (text.rstrip() + "\n" + text.rstrip().rpartition("\n")[2] + "\n").encode(),
    "no-element": lambda text: _with_last(text, 0, "Xq"),
    "position-unknown": lambda text: _with_last(text, -2, "?"),
}
"""Name of a defect → function that makes it in a good file (as pymatgen writes it)."""


def _with_value(text: str, name: str, value: str) -> bytes:
    lines = [f"{name} {value}" if line.startswith(name) else line for line in text.splitlines()]
    return "\n".join(lines).encode()


def _with_last(text: str, column: int, value: str) -> bytes:
    """Another value in the last site."""
    rows, _, last = text.rstrip().rpartition("\n")
    values = last.split()
    values[column] = value
    return f"{rows}\n{' '.join(values)}\n".encode()


def write_files(crystals: Sequence[Crystal], n_broken: int, folder: Path) -> dict[str, str]:
    """A CIF file of each crystal, the last ones broken; id of each broken file → how."""
    broken = {}
    for row, crystal in enumerate(tqdm(crystals, desc="writing files", delay=2, leave=False)):
        number = row - (len(crystals) - n_broken)
        text = cif_text(crystal, is_symmetric=row % 2 == 0 and number < 0)
        name, content = f"{row:05d}-{crystal.id}", text.encode()
        if number >= 0:
            kind = list(BREAKAGES)[number % len(BREAKAGES)]
            # Broken files lie among the others, as the folder is read by name.
            name = f"{row * 7919 % len(crystals):05d}-{kind}-{number}"
            broken[name], content = kind, BREAKAGES[kind](text)
        (folder / f"{name}.cif").write_bytes(content)
    return broken


def cif_text(crystal: Crystal, is_symmetric: bool) -> str:
    """A CIF as pymatgen writes it: with symmetry, or with every atom."""
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifWriter

    structure = Structure(crystal.lattice, crystal.atomic_numbers.tolist(), crystal.frac_coords)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(CifWriter(structure, symprec=0.01 if is_symmetric else None))


@dataclass
class Stages:
    """Seconds of each stage of a call of `predict`."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _started: float = 0.0

    @contextlib.contextmanager
    def timed(self, model: CrystalFramer) -> Iterator[None]:
        """Counts the time of the block."""
        device = model.target_mean.device

        def start(*_: object) -> None:
            synchronise(device)
            self._started = time.perf_counter()

        def stop(*_: object) -> None:
            synchronise(device)
            self.seconds["model"] += time.perf_counter() - self._started

        hooks = model.register_forward_pre_hook(start), model.register_forward_hook(stop)
        reading = self._iterating("reading and parsing", batched.iter_structures)
        preparing = self._calling("neighbours", batched.prepare)
        total = time.perf_counter()
        try:
            with mock.patch.multiple(batched, iter_structures=reading, prepare=preparing):
                yield
        finally:
            for hook in hooks:
                hook.remove()
        total = time.perf_counter() - total
        self.seconds["batches, table, the rest"] = total - sum(self.seconds[name] for name in STAGES[:-1])

    def _iterating(self, name: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def timed(*arguments: object) -> Iterator[Any]:
            iterator = function(*arguments)
            while True:
                started = time.perf_counter()
                value = next(iterator, None)
                self.seconds[name] += time.perf_counter() - started
                if value is None:
                    return
                yield value

        return timed

    def _calling(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: object, **options: object) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[name] += time.perf_counter() - started

        return timed


def new_model(sample: inputs.Sample, device: torch.device) -> CrystalFramer:
    """The preset `default` before training: its predictions mean nothing, but take the same time."""
    config = sample.config("default").model
    model = CrystalFramer(config, torch.Generator().manual_seed(inputs.SEED)).eval()
    small = sorted(sample.dataset, key=len)[:16]
    model.calibrate(make_batch(small, config.radius))
    return model.to(device)


def unnamed_failures(frame: pandas.DataFrame, broken: Mapping[str, str]) -> list[str]:
    """Mistakes in a table: broken files without an error that names them, good files with an error."""
    errors = dict(zip(frame["id"], frame["error"], strict=True))
    silent = [id for id in broken if f"{id}.cif: " not in str(errors.get(id))]
    refused = [f"{id}: {error}" for id, error in errors.items() if id not in broken and error is not None]
    return silent + refused


def largest_difference(crystals: Sequence[Crystal | None], others: Sequence[Crystal | None]) -> float:
    """Largest difference of a lattice vector (Å) or a fractional coordinate; infinite if the atoms differ.

    Rounded coordinates are brought onto their special positions here, which pymatgen does only for thirds. Structures
    are compared rather than predictions: where frames tie, rounding alone can change a prediction.
    """
    largest = 0.0
    for crystal, other in zip(crystals, others, strict=True):
        if crystal is None or other is None or crystal.atomic_numbers.tolist() != other.atomic_numbers.tolist():
            largest = max(largest, 0.0 if crystal is other else float("inf"))
            continue
        apart = crystal.frac_coords - other.frac_coords
        apart -= np.round(apart)
        largest = max(largest, np.abs(apart).max(), np.abs(crystal.lattice - other.lattice).max())
    return float(largest)


def by_pymatgen(folder: str) -> dict[str, Structure | None]:
    """Name of each CIF of a folder → what pymatgen reads, if anything."""
    found: dict[str, Structure | None] = {}
    for path in sorted(Path(folder).glob("*.cif")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found[path.stem] = Structure.from_file(path)
            except Exception:  # of broken files; pymatgen raises errors of many types
                found[path.stem] = None
    return found


def measure(options: argparse.Namespace, report: Report) -> None:
    device = torch.device(options.device)
    sample = inputs.sample(options)
    model = new_model(sample, device)
    n_files = len(sample.dataset)
    n_broken = max(1, round(n_files * SHARE_BROKEN))
    with tempfile.TemporaryDirectory() as folder:
        broken = write_files(list(sample.dataset), n_broken, Path(folder))
        report.data |= {"name": sample.name, "files": n_files, "broken": n_broken}
        runs: list[Stages] = []

        def predict() -> pandas.DataFrame:
            runs.append(Stages())
            with runs[-1].timed(model):
                return cf.predict(folder, model, progress=False)

        def predict_by_pymatgen() -> pandas.DataFrame:
            structures = by_pymatgen(folder)
            return cf.predict([one for one in structures.values() if one is not None], model, progress=False)

        frame, _ = predict(), predict_by_pymatgen()  # compiles everything
        read = {record.id: record.crystal for record in iter_structures(folder) if record.id not in broken}
        others = by_pymatgen(folder)
        difference = largest_difference(list(read.values()), [cf.read(others[id]) for id in read])
        first = sorted(Path(folder).glob("*.cif"))[:2]
        warm_up = partial(cf.predict, first, model, progress=False)
        candidates = {
            "crystalframer": Candidate(predict, warm_up),
            PYMATGEN: Candidate(predict_by_pymatgen, warm_up),
        }
        runs.clear()
        timings = alternate(candidates, options.passes, device, "predicting files", options.budget)
        rate = files_per_processor_second(folder, n_files, options.passes)
    versions = dict.fromkeys(candidates, cf.__version__)
    speeds = {name: {"files/s": n_files / timing.median} for name, timing in timings.items()}
    report.rows += timed_rows(f"{n_files:,} files", timings, versions, "ms/file", 1e3 / n_files, {}, speeds)
    total = median(sum(run.seconds.values()) for run in runs)
    for name in STAGES:
        seconds = median(run.seconds[name] for run in runs)
        details = {"share": f"{seconds / total:.0%}"}
        report.rows.append(Row(f"  {name}", "crystalframer", "", "ms/file", seconds * 1e3 / n_files, details=details))
    work, unit = f"{n_files:,} files, shipped weights, 1 thread of the CPU", "files/s of processor time"
    report.rows.append(Row(work, "crystalframer", cf.__version__, unit, rate))
    wrong = unnamed_failures(frame, broken)
    report.bars += [
        Bar("files without a row that they should have", abs(len(frame) - n_files), 0, "files"),
        Bar("broken files without an error that names them, and good ones refused", len(wrong), 0, "files"),
        Bar(
            "largest difference of a crystal to the one that pymatgen reads",
            difference,
            SITE_TOLERANCE,
            "Å or of the cell",
        ),
        Bar(work, rate, RATE_BAR, unit, at_most=False),
    ]
    errors = dict(zip(frame["id"], frame["error"], strict=True))
    report.notes += [f"{kind}: {str(errors[id]).rpartition('/')[2]}" for id, kind in broken.items()]
    report.notes += [f"WRONG: {problem}" for problem in wrong]
    report.notes.append(SEARCH_NOTE)


def files_per_processor_second(folder: str, n_files: int, passes: int) -> float:
    """With the shipped weights and one thread: other work on the machine changes it little."""
    model, n_threads, seconds = cf.load(device="cpu"), torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(passes + 1):  # the first compiles
            started = time.process_time()
            cf.predict(folder, model, progress=False)
            seconds.append(time.process_time() - started)
    finally:
        torch.set_num_threads(n_threads)
    return n_files / min(seconds[1:])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("prediction", "Files a second from a folder of CIF files, and where the time goes.")
    inputs.add_options(parser, 1000)
    parser.set_defaults(largest_cell=1000)
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
