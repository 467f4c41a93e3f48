"""One job and what came of it, as files. Imported by workers in every environment: nothing but the standard library."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

DATA_FILE = "data.npz"
"""Beside the folders of the jobs of a problem."""


@dataclass(frozen=True)
class Job:
    """One model trained on one problem with one seed."""

    model: str
    problem: str
    """Name of the crystals, with the fold or the number of training crystals."""
    digest: str
    """Of structures, labels and parts: what was trained and scored on."""
    seed: int
    minutes: float
    clock: Literal["wall", "cpu"]
    """Whether the minutes are on the wall or of processors."""
    n_threads: int
    settings: dict[str, Any]
    """Everything else that decides the result: the config of ours, the recipe of a peer."""

    @property
    def title(self) -> str:
        return f"{self.model} on {self.problem}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What a job came to; MAE in the unit of the label."""

    mae: float
    """Of the crystals that are kept for scoring."""
    holdout_mae: float
    """Of the crystals that chose the epoch."""
    n_epochs: float
    """Passes over the training crystals; not whole if the budget ended within one."""
    best_epoch: float
    wall_seconds: float
    """Of what counts against the budget: graphs or neighbours, training, choosing the epoch."""
    cpu_seconds: float
    """Processor time of the same span, all threads together."""
    preparing_seconds: float
    """Of the budget, before the first step: graphs or neighbours."""
    n_parameters: int
    version: str
    history: list[tuple[float, float, float]]
    """Each time the held-out crystals were looked at: seconds of the budget, epochs, their MAE."""
    predictions: list[float] = field(default_factory=list)
    """Of the crystals that are kept for scoring, in their order; empty in outcomes of earlier versions."""


@dataclass(frozen=True)
class Finished:
    """An outcome as it is kept."""

    outcome: Outcome
    date: str
    others: float | None
    """Cores that other work on the machine kept busy meanwhile."""


class JobFolder:
    """Where a job lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.job, self.outcome, self.finished = (path / f"{n}.json" for n in ("job", "outcome", "finished"))

    @property
    def data(self) -> Path:
        return self.path.parent / DATA_FILE

    def read_job(self) -> Job:
        return Job(**json.loads(self.job.read_text(encoding="utf-8")))

    def read_finished(self) -> Finished:
        saved = json.loads(self.finished.read_text(encoding="utf-8"))
        return Finished(Outcome(**saved.pop("outcome")), **saved)

    def write(self, path: Path, record: Any) -> None:
        """All of it or nothing."""
        self.path.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(record if isinstance(record, dict) else asdict(record), indent=1) + "\n")
        partial.replace(path)


def work(run: Callable[[Job, JobFolder], Outcome]) -> None:
    """Do the job whose folder is named on the command line, and leave its outcome there, or why there is none."""
    folder = JobFolder(Path(sys.argv[1]))
    try:
        folder.write(folder.outcome, run(folder.read_job(), folder))
    except Exception as error:  # whatever it is, the other jobs must know and go on
        traceback.print_exc()
        folder.write(folder.outcome, {"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)
