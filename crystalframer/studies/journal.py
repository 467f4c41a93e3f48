"""The journal of a search: Optuna keeps the trials in a file, and suggests the next one.

One process writes the journal, line by line, each on the disk before the next. A search that is killed therefore leaves
at most an incomplete last line, which is removed.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from crystalframer.errors import TrainingError
from crystalframer.studies.space import Choice, Range, distribution, import_optuna

JOURNAL_FILE = "journal.log"
"""Optuna and its dashboard can read it."""
STUDY_NAME = "sweep"
TRIALS_BEFORE_PRUNING = 5
"""Complete trials that a median needs."""
WARM_UP = 0.2
"""Share of the epochs in which no trial is stopped: the first epochs say little about the last."""
ERROR = "error"
"""Attribute of a failed trial in the journal."""

State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """A trial in the journal."""

    number: int
    values: Mapping[str, Any]
    """Values of the searched fields."""
    state: State
    n_epochs: int
    """Number of epochs that it has reported."""
    error: str | None
    """The reason of its failure."""


class Journal:
    """The trials of a search so far, and the next one.

    Raises:
        ImportError: Optuna is missing.
        TrainingError: the journal is damaged.
    """

    def __init__(
        self, folder: Path, space: Mapping[str, Range | Choice], seed: int, prune: bool, n_epochs: int
    ) -> None:
        optuna = import_optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        self._space, self._seed = space, seed
        self._distributions = {name: distribution(name, offered) for name, offered in space.items()}
        path = folder / JOURNAL_FILE
        _cut_off_half_a_line(path)
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)  # of a killed process: the folder is locked for us
        try:
            self._storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
        except (ValueError, KeyError, json.JSONDecodeError) as error:
            raise TrainingError(
                f"the journal of the search is damaged ({error}). The run folders are unharmed; to search again, "
                "choose another folder",
                path=path,
            ) from error
        n_warm_up = max(1, round(WARM_UP * n_epochs))
        self._pruner = (
            optuna.pruners.MedianPruner(TRIALS_BEFORE_PRUNING, n_warm_up) if prune else optuna.pruners.NopPruner()
        )
        open_study = optuna.load_study if self._storage.get_all_studies() else optuna.create_study
        self._study = open_study(study_name=STUDY_NAME, storage=self._storage, pruner=self._pruner)

    @property
    def trials(self) -> list[Trial]:
        """In the order of their numbers."""
        states: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        return [
            Trial(
                trial.number,
                self._values(trial.params),
                states.get(trial.state.name, "running"),
                trial.last_step or 0,
                trial.user_attrs.get(ERROR),
            )
            for trial in self._study.get_trials(deepcopy=False)
        ]

    def new_trial(self) -> Trial:
        """A suggestion. After the same trials it is the same, however often the search was interrupted."""
        optuna = import_optuna()
        number = len(self._study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        # In memory, since sampling writes to its study. The journal gets the trial in one line with all its values.
        draft = optuna.create_study(sampler=sampler)
        draft.add_trials(self._study.get_trials())
        params = draft.ask(self._distributions).params
        running = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING, params=params, distributions=self._distributions
        )
        self._study.add_trial(running)
        return Trial(number, self._values(params), "running", 0, None)

    def report(self, number: int, epoch: int, losses: Sequence[float]) -> bool:
        """Keep the validation losses of the epochs up to `epoch`; returns whether to stop the trial."""
        trial_id = self._id(number)
        known = self._storage.get_trial(trial_id).intermediate_values
        for at, loss in enumerate(losses, start=epoch - len(losses) + 1):
            if at not in known:
                self._storage.set_trial_intermediate_value(trial_id, at, float(loss))
        return bool(self._pruner.prune(self._study, self._storage.get_trial(trial_id)))

    def complete(self, number: int, loss: float) -> None:
        self._study.tell(number, loss)

    def prune(self, number: int) -> None:
        self._study.tell(number, state=import_optuna().trial.TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        self._storage.set_trial_user_attr(self._id(number), ERROR, reason)
        self._study.tell(number, state=import_optuna().trial.TrialState.FAIL)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(
            self._storage.get_study_id_from_name(STUDY_NAME), number
        )

    def _values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: params[name] if isinstance(offered, Range) else offered.labels[params[name]]
            for name, offered in self._space.items()
        }


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Without Optuna's message for every trial.

    Raises:
        ImportError: Optuna is missing.
    """
    logging = import_optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _cut_off_half_a_line(path: Path) -> None:
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n") and content:
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
