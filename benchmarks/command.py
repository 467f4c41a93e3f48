"""Options that all benchmarks share, and the report of a run."""

from __future__ import annotations

import argparse
import gc
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.machine import Watch, hardware, probe, versions
from benchmarks.report import Report

RESULTS = Path(__file__).parent / "results"


def parser(benchmark: str, description: str) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}", description=description)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--threads", type=int, default=2, help="number of threads of torch and of the kernels (default: 2)"
    )
    parser.add_argument(
        "--passes", type=int, default=5, help="number of runs of each candidate; candidates take turns (default: 5)"
    )
    parser.add_argument(
        "--budget", type=float, default=60.0, help="approximate seconds for each candidate and task (default: 60)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, only to see that the benchmark runs; no file is written"
    )
    parser.add_argument(
        "--output", type=Path, help="JSON file (default: benchmarks/results/BENCHMARK-DEVICE.json; none with --quick)"
    )
    parser.set_defaults(benchmark=benchmark)
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The checked options, and the command in a form that can be published."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.passes < 1:
        parser.error(f"--threads {options.threads} --passes {options.passes}: both must be at least 1")
    if options.device.partition(":")[0] == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch finds no CUDA device here; leave it out to measure the CPU")
    if options.quick:
        options.passes = min(options.passes, 2)
    options.command = published(options.benchmark, arguments)
    return options


def published(benchmark: str, arguments: Sequence[str]) -> str:
    """The command in a form that can be published: only the last part of each path."""
    shortened = [argument.rpartition(os.sep)[2] or argument for argument in arguments]
    return shlex.join(["python", "-m", f"benchmarks.{benchmark}", *shortened])


@contextmanager
def session(options: argparse.Namespace) -> Iterator[Report]:
    """A report to fill in. It is printed and saved if there was no error. If it misses a bar, the exit status is 1.

    A quick run judges no bar.
    """
    device, threads_before = torch.device(options.device), torch.get_num_threads()
    torch.set_num_threads(options.threads)
    watch = Watch()
    report = Report(
        benchmark=options.benchmark,
        command=options.command,
        is_quick=options.quick,
        device=options.device,
        n_threads=options.threads,
        hardware=hardware(device),
        versions=versions(),
        peak=probe(device, options.quick),
        load=watch.read(),
    )
    try:
        yield report
    finally:
        torch.set_num_threads(threads_before)
    gc.collect()  # loader processes that have ended count too
    report = replace(report, load=watch.read())
    print(report)
    path = options.output
    if path is None and not options.quick:
        path = RESULTS / f"{options.benchmark}-{device.type}.json"
    if path is not None:
        report.save(path)
        print(f"\nwritten: {path}")
    if not report.is_quick and not all(bar.is_met for bar in report.bars):
        sys.exit(1)
