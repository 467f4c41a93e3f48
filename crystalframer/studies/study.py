"""A study: many trainings on the same data, and one table of them.

    output folder/
        <name of the run>/         a run folder (see `training.run`)
        table.csv                  one row for each run

Everything is read from these folders. Therefore the same call continues a study that was stopped. `ablation` trains the
runs of a fixed grid, `search` those that Optuna suggests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import lightning.pytorch as pl

from crystalframer import files
from crystalframer.config import Config
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.errors import ConfigError, Setting, TrainingError
from crystalframer.processes import pool
from crystalframer.reading.tables import csv_text
from crystalframer.studies.tables import measured, table_of
from crystalframer.training import launch
from crystalframer.training.callbacks import where_to_draw
from crystalframer.training.folder import TABLE_FILE, Parts, RunFolder
from crystalframer.training.inputs import load_splits, prepare_parts
from crystalframer.training.result import FitResult, read_result, why_none
from crystalframer.training.run import Interrupted, fit, silent
from crystalframer.training.task import TrainingTask

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Run:
    """One training of a study."""

    config: Config
    folder: RunFolder

    @property
    def name(self) -> str:
        return self.folder.path.name

    def __str__(self) -> str:
        return self.name


class Study(ABC):
    """The runs of a study and their outcomes: a result, or the reason why there is none."""

    noun: ClassVar[str]
    columns: list[str]
    """Columns of the table."""

    def __init__(self, config: Config, output: Path | str, n_workers: int) -> None:
        """Raises:
        ConfigError: so many runs cannot be trained at the same time, or not in this process.
        """
        _check_counts(config, n_workers)
        self.config, self.output, self._n_workers = config, Path(output), n_workers
        self.runs: dict[str, Run] = {}
        self.outcomes: dict[str, FitResult | str] = {}
        self._n_epochs: dict[str, int] = {}
        self._in_training: list[Run] = []

    # What studies differ in

    @property
    @abstractmethod
    def n_runs(self) -> int:
        """Number of runs in the end."""

    @abstractmethod
    def waiting(self) -> Iterator[Run]:
        """The runs that are left, each when there is a process for it."""

    @abstractmethod
    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Names of the runs, in the order of the table, and the columns that say which run it is."""

    def begin(self, parts: Parts) -> None:
        """Called before the first training of this call, with the data."""
        return

    def report(self, run: Run, epoch: int, losses: Sequence[float]) -> bool:
        """Called after epochs with their validation losses; returns whether to stop the run."""
        return False

    def end(self, run: Run, outcome: FitResult | str) -> None:
        """Called when a run has an outcome."""
        self.outcomes[run.name] = outcome
        self.write_table()

    # What they have in common

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The output folder, for this process alone.

        Raises:
            TrainingError: another process works in it, nothing can be written there, or it holds a run.
        """
        if RunFolder(self.output).checkpoints.exists():
            raise TrainingError("is the folder of a single run; choose another folder", path=self.output)
        with files.locked(self.output, TrainingError, f"is at work on the {self.noun} in it"):
            yield

    def add(self, run: Run) -> Run:
        self.runs[run.name] = run
        self._n_epochs[run.name] = run.folder.n_epochs
        return run

    def train(self, data: Splits | CrystalDataset | None) -> None:
        """Train the runs that are left.

        Raises:
            TrainingError: earlier runs were trained on other data, or a file cannot be written.
            DataError: the data cannot be used.
            WorkerError: processes end at their start.
            Interrupted: Ctrl-C.
        """
        splits = load_splits(self.config, data)
        parts = prepare_parts(self.config, splits)
        for folder in (RunFolder(self.output), *(run.folder for run in self.runs.values())):
            if folder.data.exists():
                folder.check_same_data(self.config, parts)
        self.begin(parts)
        accelerator = self.config.training.accelerator
        gpus = pool.visible_gpus() if self._n_workers > 1 and accelerator in ("auto", "cuda") else []
        training = _Training(splits, is_shown=self._n_workers == 1)
        with self._bar() as bar:

            def begun() -> Iterator[Run]:
                for run in self.waiting():
                    self._in_training.append(run)
                    self._show(bar)
                    bar.refresh()
                    yield run

            def heard(run: Run, news: tuple[int, Sequence[float]]) -> bool:
                self._n_epochs[run.name] = news[0]
                self._show(bar)
                return self.report(run, *news)

            advice = " or a lower training.max_edges"
            try:
                with closing(pool.compute(training, begun(), self._n_workers, heard, gpus, advice)) as ended:
                    for run, reason in ended:
                        self._in_training.remove(run)
                        self.end(run, outcome_of(run.folder) if reason is None else str(reason))
                        self._show(bar)
            except KeyboardInterrupt:
                raise Interrupted(self._farewell()) from None

    def table(self) -> pandas.DataFrame:
        """One row for each run that has an outcome."""
        rows = [{**which, **measured(self.outcomes[name])} for name, which in self.rows() if name in self.outcomes]
        return table_of(rows, self.columns, self.config.model.targets)

    def write_table(self) -> pandas.DataFrame:
        """Write the table to the output folder."""
        table = self.table()
        with files.writing(self.output / TABLE_FILE, TrainingError):
            files.write(self.output / TABLE_FILE, csv_text(table))
        return table

    @contextmanager
    def _bar(self) -> Iterator[Any]:
        """One bar over all runs, with the time left. A single worker draws its own bar below."""
        from tqdm.auto import tqdm

        form = "{desc} {percentage:3.0f}%|{bar}| run {n:.1f} of {total} [{elapsed}<{remaining}{postfix}]"
        looks = {"desc": self.noun, "bar_format": form, "smoothing": 0, **where_to_draw(tqdm)}
        with tqdm(total=self.n_runs, initial=self._progress, **looks) as bar:
            yield bar

    @property
    def _progress(self) -> float:
        """Runs with an outcome, and the trained shares of the others."""
        left = (run for run in self.runs.values() if run.name not in self.outcomes)
        shares = sum(self._n_epochs[run.name] / run.config.training.n_epochs for run in left)
        return float(len(self.outcomes) + shares)

    def _show(self, bar: Any) -> None:
        losses = {
            name: outcome.scores[outcome.chosen].validation_loss
            for name, outcome in self.outcomes.items()
            if isinstance(outcome, FitResult)
        }
        best = min(losses, key=lambda name: losses[name], default=None)
        shown = [] if best is None else [f"best loss {losses[best]:.4g} ({best})"]
        shown += [f"training {', '.join(map(str, self._in_training))}"] if self._in_training else []
        bar.set_postfix_str("; ".join(shown), refresh=False)
        bar.update(self._progress - bar.n)

    def _farewell(self) -> str:
        stopped = ", ".join(
            f"{run.name} after epoch {self._n_epochs[run.name]} of {run.config.training.n_epochs}"
            for run in self._in_training
        )
        return (
            f"the {self.noun} was stopped{' in ' if stopped else ''}{stopped}; {len(self.outcomes)} of {self.n_runs} "
            f"runs are complete. The same command or call goes on from there (folder {self.output})"
        )


def outcome_of(folder: RunFolder) -> FitResult | str:
    """The result of a trained run, or the reason why it cannot be read."""
    try:
        return read_result(folder)
    except Exception as error:
        return _reason(error)


@dataclass(frozen=True)
class _Training:
    """The work of a process: it trains a run, and returns the reason if it fails."""

    splits: Splits
    is_shown: bool

    def __call__(self, run: Run, report: pool.Report) -> str | None:
        try:
            with nullcontext() if self.is_shown else silent():
                # After a kill between its last file and the message of its end, a run is complete already.
                if not run.folder.result.exists():
                    fit(run.config, self.splits, run.folder.path, run.folder.config.exists(), [Reporter(report)])
                else:
                    run.folder.check_same_config(run.config)
        except Exception as error:
            return _reason(error)
        return None


class Reporter(pl.Callback):
    """Reports every epoch once it is saved, and ends the training if the answer says so."""

    def __init__(self, report: pool.Report) -> None:
        self.report = report
        self.n_reported = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module)

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingTask)
        losses = [row["validation_loss"] for row in pl_module.history[self.n_reported :]]
        self.n_reported += len(losses)
        if losses and self.report((self.n_reported, losses), wait=True):
            trainer.should_stop = True


def _check_counts(config: Config, n_workers: int) -> None:
    training = config.training
    if launch.launched() is not None:
        raise ConfigError(
            "ablate and sweep start their processes themselves, on this machine, as many as n_workers or "
            "training.n_devices says: call them without torchrun or srun"
        )
    if n_workers < 1:
        raise ConfigError("must be above 0", field="n_workers", value=n_workers)
    if n_workers > 1 and (training.n_devices or 1) > 1:
        advice = "choose between several runs at a time and several devices for each: leave out ", Setting("n_workers")
        raise ConfigError(*advice, ", or this", field="training.n_devices", value=training.n_devices)
    if (training.n_nodes or 1) > 1:
        raise ConfigError("all runs are trained on one machine", field="training.n_nodes", value=training.n_nodes)


def _reason(error: Exception) -> str:
    """Why a run has no result. Its error must not stop the other runs.

    Raises:
        Exception: this one, if the machine is at fault (the disk is full), so that the next run would fail as well.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    # A missing file is a file that the run asks for.
    if cause is not None and not isinstance(cause, FileNotFoundError):
        raise error
    return why_none(error)
