"""A search for hyperparameters, and its folder.

    output folder/
        config.json, data.json     the experiment, and a digest of its data
        space.json                 what may be tried, and the seed
        journal.log                the trials, in Optuna's format
        trial-0000/                a run folder (see `training.run`)
        table.csv                  one row a trial

Everything is read from the journal and the folders of the trials, so the same call continues what was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crystalframer import files
from crystalframer.config import Config, to_json
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.errors import ConfigError, TrainingError
from crystalframer.studies.jobs import Job, check_counts, train_here, why_failed
from crystalframer.studies.optuna_study import JOURNAL_FILE, Study, Trial, quiet_optuna
from crystalframer.studies.space import Choice, Range, Space, check_space, tree_of, with_values
from crystalframer.studies.sweep_result import SweepResult, table_of, trial_folder, trial_name
from crystalframer.studies.workers import train_in_processes
from crystalframer.training import launch
from crystalframer.training.callbacks import where_to_draw
from crystalframer.training.folder import RunFolder
from crystalframer.training.inputs import digest, load_splits, prepare_parts
from crystalframer.training.result import FitResult, read_result
from crystalframer.training.run import Interrupted

if TYPE_CHECKING:
    import pandas

SPACE_FILE, TABLE_FILE = "space.json", "table.csv"


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

    Each trial is a run of `fit`, with values that Optuna's TPE sampler suggests after those so far. What counts is the
    validation loss of the weights that `fit` chooses: the lowest mean absolute error, in standard deviations, over the
    validation labels among all epochs of the raw weights and, if there are any, of the averaged weights at the end.
    A trial that after an epoch is worse than the median of the complete ones at that epoch is stopped there (once
    there are 5 of them, and not in its first fifth). One that fails counts among `n_trials`, with its reason.

    Calling it again with the same `output` continues: trials that were stopped go on from their latest complete epoch,
    with the same values. A larger `n_trials` adds trials. With one worker, trials and their results are the same
    however often that happens; of several, which trial knows of which others depends on their speed.

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
        config: the experiment; what is not searched stays as it is there.
        space: fields by their dotted names, as in the example, and what may be tried of each.
        n_trials: in total, with those of earlier calls.
        data: as for `fit`. Default: `config.data.source`. All trials have the same.
        output: folder of the run folders of the trials and of `table.csv`, which is up to date after every trial.
        n_workers: trials that are trained at a time, by as many processes of this machine. They share out the CPU
            threads and take the GPUs in turn. One that is killed is replaced, and its trial goes on.
        seed: of the suggestions.
        prune: whether to stop trials early.

    Raises:
        ConfigError: a field of the space is unknown, or a value can not be used with `config`; or `output` holds a
            search of another space, seed or config (the differences are named); or this is one of several processes
            of torchrun or SLURM.
        TrainingError: `output` holds a search on other data, or another process works in it.
        DataError: the data cannot be used.
        ImportError: Optuna is missing.
        Interrupted: Ctrl-C; the same call goes on from there.
    """
    if launch.launched() is not None:
        raise ConfigError(
            "sweep starts the processes of its trials itself, on this machine, as many as n_workers says: call it "
            "without torchrun or srun"
        )
    if n_trials < 1:
        raise ConfigError(f"n_trials = {n_trials}: must be above 0")
    check_counts(config, n_workers, "trial")
    check_space(config, space)
    output = Path(output)
    with quiet_optuna(), files.locked(output, TrainingError, "is searching in it"):
        is_new = not RunFolder(output).config.exists()
        if not is_new:
            RunFolder(output).check_same_config(config)
            _check_same_space(output, space, seed)
        elif (output / JOURNAL_FILE).exists():
            raise TrainingError(f"{output}: holds a journal of another search; choose another folder, or delete it")
        books = _Books(config, space, output, n_trials)
        if not is_new:
            books.open(seed, prune)
        if is_new or data is not None or books.is_waiting:
            splits = load_splits(config, data)
            present = digest(prepare_parts(config, splits))
            if is_new:
                _write_question(config, space, seed, present, output)
                books.open(seed, prune)
            else:
                RunFolder(output).check_same_data(present)
            try:
                with _Overview(books):
                    if n_workers == 1:
                        train_here(books.jobs(), splits)
                    else:
                        train_in_processes(books.jobs(), splits, config.training.accelerator, n_workers)
            except KeyboardInterrupt:
                raise Interrupted(books.farewell()) from None
        return SweepResult(output, books.write_table())


def _write_question(config: Config, space: Space, seed: int, present: object, output: Path) -> None:
    """What the search is of. It is one from the moment that it has its config."""
    files.write(output / SPACE_FILE, json.dumps({"seed": seed, "space": tree_of(space)}, indent=2).encode())
    files.write(RunFolder(output).data, json.dumps(present, indent=2).encode())
    files.write(RunFolder(output).config, to_json(config).encode())


def _check_same_space(output: Path, space: Space, seed: int) -> None:
    before = json.loads((output / SPACE_FILE).read_text(encoding="utf-8"))
    now = {"seed": seed, "space": tree_of(space)}
    found = [f"seed was {before['seed']}, is {seed}"] if before["seed"] != seed else []
    for name in dict.fromkeys([*before["space"], *space]):
        shown = [_shown(question["space"].get(name)) for question in (before, now)]
        if shown[0] != shown[1]:
            found.append(f"{name} was {shown[0]}, is {shown[1]}")
    if found:
        raise ConfigError(
            f"{output}: holds another search: {'; '.join(found)}. Continue it as it was, or choose another folder"
        )


def _shown(tree: dict | None) -> str:
    if tree is None:
        return "not searched"
    return repr(Choice(tree["values"]) if "values" in tree else Range(**tree))


class _Books:
    """What there is, what is left, and the table of both."""

    def __init__(self, config: Config, space: Space, output: Path, n_trials: int) -> None:
        self.config, self.space, self.output, self.n_trials = config, space, output, n_trials
        self._outcomes: dict[int, FitResult | str] = {}
        self.on_change = lambda: None
        """Called after every epoch and trial."""

    def open(self, seed: int, prune: bool) -> None:
        self._study = Study(self.output, self.space, seed, prune, self.config.training.n_epochs)
        for trial in self.trials:
            if trial.state == "failed":
                self._outcomes[trial.number] = trial.error or "failed"
            elif trial.state != "running":
                self._outcomes[trial.number] = self._result(trial)

    @property
    def trials(self) -> list[Trial]:
        return self._study.trials

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to train."""
        trials = self.trials
        return len(trials) < self.n_trials or any(trial.state == "running" for trial in trials[: self.n_trials])

    def jobs(self) -> Iterator[Job]:
        """The trials that were begun, then new ones: what these try is decided when they are asked for."""
        for trial in self.trials[: self.n_trials]:
            if trial.state == "running":
                yield from self._job(trial)
        while len(self.trials) < self.n_trials:
            yield from self._job(self._study.new_trial())

    def _job(self, trial: Trial) -> Iterator[Job]:
        """None of a combination of values that the config refuses."""
        try:
            config = with_values(self.config, trial.values)
        except ConfigError as error:
            self.close(trial, str(error))
        else:
            yield Job(config, self.folder(trial), partial(self.report, trial), partial(self.close, trial))

    def folder(self, trial: Trial) -> RunFolder:
        return trial_folder(self.output, trial.number)

    def n_epochs(self, trial: Trial) -> int:
        """That the trial is to have."""
        return trial.values.get("training.n_epochs", self.config.training.n_epochs)

    def report(self, trial: Trial, epoch: int, losses: Sequence[float]) -> bool:
        stop = self._study.report(trial.number, epoch, losses)
        self.on_change()
        return stop

    def close(self, trial: Trial, why: str | None) -> None:
        """A trial is trained, or failed for a reason."""
        if why is None:
            result = read_result(self.folder(trial))
            losses = result.history["validation_loss"].tolist()
            self._study.report(trial.number, len(losses), losses)
            if len(losses) < self.n_epochs(trial):
                self._study.prune(trial.number)
            else:
                self._study.complete(trial.number, result.scores[result.chosen].validation_loss)
            self._outcomes[trial.number] = result
        else:
            self._study.fail(trial.number, why)
            self._outcomes[trial.number] = why
        self.write_table()
        self.on_change()

    def write_table(self) -> pandas.DataFrame:
        """Anew."""
        table = table_of(self.config, self.space, self.trials, self._outcomes)
        files.write(self.output / TABLE_FILE, table.to_csv(index=False).encode())
        return table

    @property
    def progress(self) -> float:
        """Trials that are done, with parts of those that are under way."""
        parts = (trial.n_epochs / self.n_epochs(trial) for trial in self.trials if trial.number not in self._outcomes)
        return float(len(self._outcomes) + sum(parts))

    @property
    def best(self) -> str:
        """The lowest loss so far, for the bar."""
        losses = {
            trial.number: outcome.scores[outcome.chosen].validation_loss
            for trial in self.trials
            if trial.state == "complete" and isinstance(outcome := self._outcomes[trial.number], FitResult)
        }
        if not losses:
            return ""
        number = min(losses, key=lambda number: losses[number])
        return f"best loss {losses[number]:.4g} ({trial_name(number)})"

    def farewell(self) -> str:
        under_way = [
            f"{trial_name(trial.number)} after epoch {trial.n_epochs} of {self.n_epochs(trial)}"
            for trial in self.trials
            if trial.state == "running"
        ]
        return (
            f"the search was stopped{' in ' if under_way else ''}{', '.join(under_way)}; {len(self._outcomes)} of "
            f"{self.n_trials} trials are done. The same command or call goes on from there (folder {self.output})"
        )

    def _result(self, trial: Trial) -> FitResult | str:
        try:
            return read_result(self.folder(trial))
        except Exception as error:
            return why_failed(error)


class _Overview:
    """One bar over the trials, with the time left and the best so far; a single worker draws its own below."""

    def __init__(self, books: _Books) -> None:
        from tqdm.auto import tqdm

        self.books = books
        self.bar = tqdm(
            total=books.n_trials,
            initial=books.progress,
            desc="sweep",
            bar_format="{desc} {percentage:3.0f}%|{bar}| trial {n:.1f} of {total} [{elapsed}<{remaining}{postfix}]",
            smoothing=0,
            **where_to_draw(tqdm),
        )
        self._show()
        books.on_change = self._show

    def __enter__(self) -> _Overview:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def _show(self) -> None:
        self.bar.set_postfix_str(self.books.best, refresh=False)
        self.bar.update(self.books.progress - self.bar.n)
