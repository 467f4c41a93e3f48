"""Search for hyperparameters with Optuna.

    output folder/
        config.json, data.json     the experiment, and fingerprints of its data
        space.json                 the space of the search, and its seed
        journal.log                the trials, in Optuna's format
        trial-0000/                a run folder (see `training.run`)
        table.csv                  one row for each trial

The same call continues a stopped search from the journal and the folders of the trials.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalframer import files
from crystalframer.config import Config, to_json
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.errors import ConfigError, TrainingError
from crystalframer.studies.journal import JOURNAL_FILE, Journal, Trial, quiet_optuna
from crystalframer.studies.space import Choice, Range, Space, checked_space, tree_of, with_values
from crystalframer.studies.study import Run, Study, outcome_of
from crystalframer.studies.tables import StudyResult, labels
from crystalframer.surroundings import left_alone, plain
from crystalframer.training.folder import TABLE_FILE, Parts, RunFolder
from crystalframer.training.result import FitResult

if TYPE_CHECKING:
    import pandas

SPACE_FILE = "space.json"
SHOWN_TRIALS = 10
"""Number of trials in a summary: the best."""


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult(StudyResult):
    """The outcome of a search."""

    output: Path
    """The output folder."""
    table: pandas.DataFrame
    """One row for each trial: `trial` (its number), a column for each searched field, `state` (`complete`, `pruned` or
    `failed`), `validation_loss` (see `sweep`) and `validation_mae/<target>` in the unit of the target, of the weights
    that `fit` chose (of a pruned trial, among its epochs), `best_epoch` (lowest validation loss of the raw weights),
    `n_epochs` that were trained, their `seconds`, and `error`: the reason if there is no result, else None.
    `table.attrs["units"]` maps target to unit, `table.attrs["fields"]` lists the searched fields."""

    @property
    def best(self) -> dict[str, Any]:
        """The row of the complete trial with the lowest validation loss.

        Raises:
            TrainingError: no trial is complete.
        """
        complete = self.table.loc[self.table["state"] == "complete"]
        if complete.empty:
            raise TrainingError("no trial is complete; the column error of the table says why", path=self.output)
        lowest = int(np.argmin(complete["validation_loss"].to_numpy()))
        return {str(name): complete[name].tolist()[lowest] for name in complete}

    @property
    def best_folder(self) -> Path:
        """Run folder of the best trial, ready for `crystalframer.load`."""
        return self.output / _trial_name(self.best["trial"])

    @property
    def best_config(self) -> Config:
        """Config of the best trial: to train it longer, or with other seeds."""
        return RunFolder(self.best_folder).read_config()

    def summary(self) -> str:
        """Numbers of trials, the best trials as a table, and the reasons of failures, as text."""
        counts = self.table["state"].value_counts()
        states = ", ".join(f"{counts[state]} {state}" for state in ("complete", "pruned", "failed") if state in counts)
        lines = [f"{len(self.table)} trials: {states}"]
        if "complete" in counts:
            complete = self.table.loc[self.table["state"] == "complete"].sort_values("validation_loss")
            names = {name: name for name in ("trial", *self.table.attrs["fields"])} | labels(self.table)
            shown = complete.head(SHOWN_TRIALS)[list(names)].rename(columns=names)
            lines.append(shown.to_string(index=False, float_format="{:.4g}".format))
        return "\n".join([*lines, *self._reasons()])

    def _names(self, rows: pandas.DataFrame) -> Iterable[str]:
        return map(_trial_name, rows["trial"])


@left_alone()
@plain()
def sweep(
    config: Config,
    space: Space,
    n_trials: int = 30,
    data: Splits | CrystalDataset | None = None,
    output: Path | str = "runs/sweep",
    n_workers: int = 1,
    seed: int = 0,
    prune: bool = True,
) -> SweepResult:
    """Search for the values of some fields of a config that give the lowest validation loss.

    Each trial is a run of `fit` with values that Optuna's TPE sampler suggests after the earlier trials. They are
    compared by the validation loss of the weights that `fit` chooses: the lowest mean of |error|/standard deviation
    over the labels of the validation part among all epochs of the raw weights and, if there are any, of the averaged
    weights at the end. With pruning, a trial stops after an epoch in which it is worse than the median of the complete
    trials at that epoch (once there are 5 of them, and not in its first fifth). A failed trial counts among `n_trials`.

    Call it again with the same `output` to continue: stopped trials go on from their latest complete epoch with the
    same values, and a larger `n_trials` adds trials. With one worker, trials and results are the same however often the
    search is stopped. With several, the suggestions depend on the speed of the trials.

    >>> import tempfile
    >>> import crystalframer as cf
    >>> space = {
    ...     "training.learning_rate": cf.Range(1e-4, 1e-2, log=True),
    ...     "model.frame.method": cf.Choice(["max", "none"]),
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = cf.sweep(cf.preset("tiny").config, space, n_trials=2, output=folder)
    ...     best = result.best_config.training.learning_rate
    >>> result.table[["trial", "state", "n_epochs"]]
       trial     state  n_epochs
    0      0  complete         2
    1      1  complete         2
    >>> best == result.best["training.learning_rate"]
    True

    Args:
        config: the experiment. Fields that are not searched keep their values.
        space: what to try for each field, by its dotted name: `cf.Range`, `cf.Choice`, or a distribution of Optuna
            (`optuna.distributions.FloatDistribution`, `IntDistribution`, `CategoricalDistribution`).
        n_trials: total number of trials, including those of earlier calls.
        data: as for `fit`, the same for all trials. Default: `config.data.source`.
        output: folder for the run folders of the trials and `table.csv`, which is updated after every trial.
        n_workers: number of trials that are trained at the same time, by as many processes of this machine. They share
            the CPU threads and take the GPUs in turn. A process that is killed is replaced, and its trial goes on.
        seed: random seed of the suggestions.
        prune: whether to stop bad trials early.

    Returns:
        The table of all trials, and the best of them.

    Raises:
        ConfigError: a field of the space is unknown, or a value cannot be used with `config`; or `output` holds a
            search of another space, seed or config (the differences are named); or this is one of several processes
            of torchrun or SLURM.
        TrainingError: `output` holds a search on other data, cannot be written, or another process uses it.
        DataError: the data cannot be used.
        WorkerError: worker processes end at their start.
        ImportError: Optuna is missing.
        Interrupted: Ctrl-C; the same call continues.
    """
    if n_trials < 1:
        raise ConfigError("must be above 0", field="n_trials", value=n_trials)
    study = _Search(config, checked_space(config, space), n_trials, seed, prune, output, n_workers)
    with quiet_optuna(), study.locked():
        study.open()
        if data is not None or study.is_new or study.is_waiting:
            study.train(data)
        return SweepResult(study.output, study.write_table())


def _trial_name(number: int) -> str:
    return f"trial-{number:04d}"


class _Search(Study):
    """The trials that Optuna suggests."""

    noun = "search"

    def __init__(
        self,
        config: Config,
        space: Mapping[str, Range | Choice],
        n_trials: int,
        seed: int,
        prune: bool,
        output: Path | str,
        n_workers: int,
    ) -> None:
        super().__init__(config, output, n_workers)
        self._space, self._n_trials, self._seed, self._prune = space, n_trials, seed, prune
        self._journal: Journal | None = None
        maes = [f"validation_{target.metric}/{target.name}" for target in config.model.targets]
        measures = ["best_epoch", "n_epochs", "seconds", "error"]
        self.columns = ["trial", *space, "state", "validation_loss", *maes, *measures]

    def open(self) -> None:
        """Read the trials of earlier calls.

        Raises:
            ConfigError: the folder holds a search of another config, space or seed.
            TrainingError: the journal is damaged, or is not of this search.
        """
        folder = RunFolder(self.output)
        if folder.config.exists():
            folder.check_same_config(self.config)
            self._check_same_space()
            self._open_journal()
        elif any((self.output / name).exists() for name in (JOURNAL_FILE, TABLE_FILE)):
            raise TrainingError(
                "holds another search or an ablation; choose another folder, or delete it", path=self.output
            )

    @property
    def is_new(self) -> bool:
        return self._journal is None

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to train."""
        return len(self._trials) < self._n_trials or any(trial.state == "running" for trial in self._asked_for)

    @property
    def n_runs(self) -> int:
        return self._n_trials

    def begin(self, parts: Parts) -> None:
        """Write what a new search is about. The folder holds a search from the moment that it has its config."""
        if self.is_new:
            folder = RunFolder(self.output)
            files.write(self.output / SPACE_FILE, json.dumps(self._question, indent=2))
            folder.write_data(self.config, parts)
            files.write(folder.config, to_json(self.config))
            self._open_journal()

    def waiting(self) -> Iterator[Run]:
        """The trials that were begun, then new ones: their values are chosen when there is a process for them."""
        for trial in self._asked_for:
            if trial.state == "running":
                yield from self._run(trial)
        while len(self._trials) < self._n_trials:
            assert self._journal is not None
            yield from self._run(self._journal.new_trial())

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for trial in self._trials:
            name = _trial_name(trial.number)
            state = "failed" if isinstance(self.outcomes.get(name), str) else trial.state
            yield name, {"trial": trial.number, **trial.values, "state": state}

    def report(self, run: Run, epoch: int, losses: Sequence[float]) -> bool:
        assert self._journal is not None
        return self._journal.report(_number(run), epoch, losses)

    def end(self, run: Run, outcome: FitResult | str) -> None:
        assert self._journal is not None
        if isinstance(outcome, str):
            self._journal.fail(_number(run), outcome)
        else:
            losses = outcome.history["validation_loss"].tolist()
            self._journal.report(_number(run), len(losses), losses)
            if len(losses) < run.config.training.n_epochs:
                self._journal.prune(_number(run))
            else:
                self._journal.complete(_number(run), outcome.scores[outcome.chosen].validation_loss)
        super().end(run, outcome)

    def table(self) -> pandas.DataFrame:
        import pandas

        table = super().table()
        for column in ("best_epoch", "n_epochs"):
            table[column] = table[column].astype("Int64")
        # None is a value of some fields. Pandas would take it for a missing number.
        for name, offered in self._space.items():
            if isinstance(offered, Choice) and None in offered.values:
                values = {trial.number: trial.values[name] for trial in self._trials}
                table[name] = pandas.Series([values[number] for number in table["trial"]], dtype=object)
        table.attrs["fields"] = list(self._space)
        return table

    @property
    def _trials(self) -> list[Trial]:
        return [] if self._journal is None else self._journal.trials

    @property
    def _asked_for(self) -> list[Trial]:
        return self._trials[: self._n_trials]

    @property
    def _question(self) -> dict[str, Any]:
        return {"seed": self._seed, "space": tree_of(self._space)}

    def _open_journal(self) -> None:
        n_epochs = self.config.training.n_epochs
        self._journal = Journal(self.output, self._space, self._seed, self._prune, n_epochs)
        for trial in self._trials:
            name = _trial_name(trial.number)
            if trial.state == "failed":
                self.outcomes[name] = trial.error or "failed"
            elif trial.state != "running":
                self.outcomes[name] = outcome_of(RunFolder(self.output / name))

    def _run(self, trial: Trial) -> Iterator[Run]:
        """The run of a trial; none if the config refuses its combination of values."""
        folder = RunFolder(self.output / _trial_name(trial.number))
        try:
            run = Run(with_values(self.config, trial.values), folder)
        except ConfigError as error:
            self.end(Run(self.config, folder), str(error))
        else:
            yield self.add(run)

    def _check_same_space(self) -> None:
        before, now = json.loads((self.output / SPACE_FILE).read_text(encoding="utf-8")), self._question
        found = [f"seed was {before['seed']}, is {now['seed']}"] if before["seed"] != now["seed"] else []
        for name in dict.fromkeys([*before["space"], *now["space"]]):
            shown = [_shown(question["space"].get(name)) for question in (before, now)]
            if shown[0] != shown[1]:
                found.append(f"{name} was {shown[0]}, is {shown[1]}")
        if found:
            advice = "Continue it as it was, or choose another folder"
            raise ConfigError(f"holds another search: {'; '.join(found)}. {advice}", path=self.output)


def _number(run: Run) -> int:
    return int(run.name.removeprefix("trial-"))


def _shown(tree: dict | None) -> str:
    if tree is None:
        return "not searched"
    return repr(Choice(tree["values"]) if "values" in tree else Range(**tree))
