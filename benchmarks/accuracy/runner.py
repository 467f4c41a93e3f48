"""Runs jobs one after the other, each in a process of its own, and keeps what is finished."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy.environment import InstallError, PeerEnvironment
from benchmarks.accuracy.jobs import Finished, Job, JobFolder, Outcome
from benchmarks.accuracy.problems import Problem
from benchmarks.accuracy.recipes import RECIPES
from benchmarks.machine import Watch
from crystalframer.config import Config, from_tree
from crystalframer.errors import ConfigError

ROOT = Path(__file__).parents[2]


class JobError(RuntimeError):
    """A job that has no outcome; the message says why."""


@dataclass(frozen=True)
class Planned:
    """A job and where it lives."""

    job: Job
    problem: Problem
    folder: JobFolder

    @property
    def is_peer(self) -> bool:
        return self.job.model in RECIPES

    def finished(self) -> Finished | None:
        """What an earlier call came to, if it was asked for the same."""
        if not self.folder.finished.exists() or not same(self.folder.read_job(), self.job, self.is_peer):
            return None
        return self.folder.read_finished()


def same(earlier: Job, job: Job, is_peer: bool) -> bool:
    """Whether two jobs are one. Fields that a config has gained since count with their defaults."""
    if is_peer or earlier.settings == job.settings:
        return earlier == job
    try:
        known = from_tree(Config, earlier.settings) == from_tree(Config, job.settings)
    except ConfigError:
        return False
    return known and {**vars(earlier), "settings": None} == {**vars(job), "settings": None}


def place(work: Path, problem: Problem, job: Job) -> Planned:
    """The folder of a job: by what a person would look for it."""
    budget = f"{job.minutes:.4g}{job.clock}min-{job.n_threads}threads"
    return Planned(job, problem, JobFolder(work / problem.name / f"{job.model}-seed{job.seed}-{budget}"))


def run_all(plans: Sequence[Planned], environment: PeerEnvironment) -> Iterator[tuple[Planned, Finished | str]]:
    """Each job with its result, or why it has none. A failure does not stop the others."""
    waiting = [plan for plan in plans if plan.finished() is None]
    print(f"{len(plans)} jobs, {len(plans) - len(waiting)} of them done before", file=sys.stderr, flush=True)
    for plan in plans:
        if (finished := plan.finished()) is not None:
            yield plan, finished
            continue
        left = sum(later.job.minutes for later in waiting[waiting.index(plan) :])
        now = f"[{plans.index(plan) + 1} of {len(plans)}] {plan.job.title}: {plan.job.minutes:.3g} min"
        print(f"{now} (all that is left: {left:.3g} min)", file=sys.stderr, flush=True)
        try:
            finished = _run(plan, environment)
        except (JobError, InstallError) as error:
            print(f"  FAILED: {error}", file=sys.stderr, flush=True)
            yield plan, str(error)
            continue
        outcome = finished.outcome
        print(
            f"  MAE {outcome.mae:.4g} {plan.problem.target.unit}, {outcome.n_epochs:.3g} epochs, "
            f"{outcome.wall_seconds / 60:.2f} min",
            file=sys.stderr,
            flush=True,
        )
        yield plan, finished


def _run(plan: Planned, environment: PeerEnvironment) -> Finished:
    folder = plan.folder
    for file in (folder.outcome, folder.finished):
        file.unlink(missing_ok=True)
    folder.write(folder.job, plan.job)
    plan.problem.save(folder.data)
    python, module = Path(sys.executable), "ours"
    if plan.is_peer:
        environment.ensure(RECIPES[plan.job.model].requirement)
        python, module = environment.python, "peer"
    threads = str(plan.job.n_threads)
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), threads)
    watch = Watch()
    try:
        ended = subprocess.run(
            [str(python), "-m", f"benchmarks.accuracy.{module}", str(folder.path.absolute())],
            cwd=ROOT,
            env={**os.environ, **limits},
        )
    except OSError as error:
        raise JobError(f"{python.name} does not start ({error.strerror})") from error
    if not folder.outcome.exists():
        raise JobError(f"its process ended with status {ended.returncode} and no outcome (out of memory?)")
    record = json.loads(folder.outcome.read_text(encoding="utf-8"))
    if "error" in record:
        raise JobError(record["error"])
    today = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    finished = Finished(Outcome(**record), today, watch.read().others)
    folder.write(folder.finished, finished)
    return finished
