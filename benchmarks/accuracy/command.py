"""The command line: plans the jobs, runs them, writes table, JSON and learning curve."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import command
from benchmarks.accuracy import paired, summary
from benchmarks.accuracy.environment import PeerEnvironment
from benchmarks.accuracy.figure import draw_learning_curve
from benchmarks.accuracy.jobs import Job
from benchmarks.accuracy.ours import config_of
from benchmarks.accuracy.problems import MissingData, Problem, problems
from benchmarks.accuracy.recipes import RECIPES
from benchmarks.accuracy.runner import Planned, place, run_all
from crystalframer.errors import ConfigError
from crystalframer.presets import PRESETS

DEFAULT_MODELS = {
    "binaries": ["default", "lightweight", "crystalformer", "cgcnn", "megnet"],
    "phonons": ["default"],
    "demo": ["default", "cgcnn"],
}
CURVE_SIZES = [500, 1000, 2000, 4000]
QUICK_MINUTES = 0.2


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description="Accuracy for a given time: every model trains for the same minutes on the same crystals and "
        "threads. What is finished is kept; the same command goes on where it was stopped.",
    )
    parser.add_argument("--data", choices=list(DEFAULT_MODELS), default="binaries", help="default: binaries")
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="NAME",
        help=f"presets of ours and peers ({', '.join(RECIPES)}); default: {' '.join(DEFAULT_MODELS['binaries'])}, "
        f"on phonons {' '.join(DEFAULT_MODELS['phonons'])}",
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="for each model and seed; on phonons for all five folds together"
    )
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall",
        help="whether the minutes are on the wall (default) or of processors, all threads together, which is fairer "
        "beside other work",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1, help="number of runs (seeds) of each model (default: 1)")
    parser.add_argument(
        "--threads", type=int, default=2, help="number of threads of torch and of the kernels (default: 2)"
    )
    parser.add_argument(
        "--curve", type=int, nargs="*", metavar="N",
        help=f"learning curve: also train on the first N crystals (default: {' '.join(map(str, CURVE_SIZES))})",
    )  # fmt: skip
    parser.add_argument(
        "--initial-weights", help="checkpoint that ours starts from, instead of random weights (not on binaries)"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/accuracy"), help="folder of the jobs")
    parser.add_argument("--peer-python", type=Path, help="an interpreter with the peers' libraries; none is made then")
    parser.add_argument(
        "--quick", action="store_true", help="few crystals and seconds, only to see that it runs; no file is written"
    )
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/accuracy-DATA.json)")
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Checked options, with what `benchmarks.command.session` reads."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = parser()
    options = asked.parse_args(arguments)
    options.benchmark, options.device = "accuracy", "cpu"
    options.command = command.published("accuracy", arguments)
    options.models = options.models or DEFAULT_MODELS[options.data]
    known = [*PRESETS, *RECIPES]
    for model in options.models:
        if model not in known:
            asked.error(f"--models {model}: there is no such model; known: {', '.join(known)}")
    if len(set(options.models)) < len(options.models):
        asked.error(f"--models {' '.join(options.models)}: a model is named twice")
    if options.minutes <= 0 or options.seeds < 1 or options.threads < 1:
        asked.error("--minutes must be above 0, --seeds and --threads at least 1")
    if options.initial_weights and options.data == "binaries":
        asked.error(
            "--initial-weights: shipped weights are trained on Materials Project crystals, some of which are among "
            "the binaries that are scored; use it with --data phonons"
        )
    if options.curve is not None:
        if options.data == "phonons":
            asked.error("--curve needs --data binaries or demo")
        if any(n < 10 for n in options.curve):
            asked.error("--curve: sizes below 10 crystals say nothing")
        options.curve = options.curve or CURVE_SIZES
    if options.quick:
        options.minutes, options.seeds, options.work = QUICK_MINUTES, 1, options.work / "quick"
    elif options.output is None:
        kind = f"accuracy-{options.data}" + ("-curve" if options.curve else "")
        options.output = command.RESULTS / f"{kind}.json"
    return options


def plan(options: argparse.Namespace, tasks: Sequence[Problem]) -> list[Planned]:
    """All jobs, seed by seed and problem by problem: whenever it is stopped, the models were treated alike."""
    n_folds = max(sum(other.group == task.group for other in tasks) for task in tasks)
    minutes = options.minutes / n_folds
    digests = {task.name: task.digest for task in tasks}
    jobs = []
    for seed in range(1, options.seeds + 1):
        for task in tasks:
            for model in options.models:
                if model in RECIPES:
                    settings = dataclasses.asdict(RECIPES[model])
                else:
                    config = config_of(
                        model, task.target, len(task.parts.train), seed, minutes, options.threads,
                        options.initial_weights,
                    )  # fmt: skip
                    settings = dataclasses.asdict(config)
                job = Job(model, task.name, digests[task.name], seed, minutes, options.clock, options.threads, settings)
                jobs.append(place(options.work, task, job))
    return jobs


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        tasks = problems(options.data, options.curve, options.quick)
        plans = plan(options, tasks)
    except (MissingData, ConfigError) as error:
        raise SystemExit(f"benchmarks.accuracy: {error}") from None
    for task in tasks:
        print(task, file=sys.stderr)
    try:
        with command.session(options) as report:
            results = list(run_all(plans, PeerEnvironment(options.peer_python)))
            found = summary.grouped(results)
            report.data = {
                "name": summary.described(tasks),
                "minutes": options.minutes,
                "clock": options.clock,
                "initial_weights": options.initial_weights,
                "runs": summary.records(results),
            }
            differences = paired.rows(found)
            report.rows = summary.rows(found) + differences
            report.bars = summary.bars(found, options.data) + paired.bars(differences)
            report.notes = summary.notes(results, options.data)
            if options.curve and found and options.output is not None:
                picture = options.output.with_suffix(".png")
                draw_learning_curve(found, options.minutes, picture)
                report.notes.append(f"The learning curve is drawn in {picture.name}.")
    except KeyboardInterrupt:
        raise SystemExit(
            "stopped; what is finished is kept, and the same command goes on from there (the job that was cut off "
            "starts again)"
        ) from None
