"""Frame methods compared on one budget: the same data, split and settings for every method and seed.

    output folder/
        <method>-seed<seed>/       a run folder (see `run`)
        table.csv                  one row a run

Everything is read from the folders of the runs, so the same call continues what was stopped, adds methods or seeds, and
gives a complete ablation again without training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalframer.config import FRAME_METHODS, Config, FrameMethod, Target
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.errors import ConfigError
from crystalframer.studies.jobs import Job, check_counts, train_here
from crystalframer.studies.workers import train_in_processes
from crystalframer.training import launch
from crystalframer.training.callbacks import where_to_draw
from crystalframer.training.folder import RunFolder
from crystalframer.training.inputs import digest, load_splits, prepare_parts
from crystalframer.training.result import FitResult, read_result, why_none
from crystalframer.training.run import Interrupted

if TYPE_CHECKING:
    import pandas

TABLE_FILE = "table.csv"


@dataclass(frozen=True, eq=False, repr=False)
class AblationResult:
    """What every run came to."""

    output: Path
    table: pandas.DataFrame
    """One row a run: `frame_method`, `seed`, `validation_mae/<target>` and `test_mae/<target>` of the weights that
    `chosen` names, in the target's unit (test: NaN without a test part), `best_epoch` (lowest validation loss of the
    raw weights), `seconds` of all epochs, `ms_per_step` (median over the epochs but the first, in which kernels are
    compiled), `n_parameters`, and `error`: why there is no result, else None. `table.attrs["units"]` maps target to
    unit."""
    histories: pandas.DataFrame
    """The epochs of all runs with a result: `frame_method`, `seed` and the columns that `fit` describes."""

    @property
    def failures(self) -> pandas.DataFrame:
        """The rows without a result."""
        return self.table.loc[self.table["error"].notna()]

    @property
    def means(self) -> pandas.DataFrame:
        """`mean` and `std` (NaN for a single result) of each number over the seeds; one row a frame method."""
        numbers = self.table.drop(columns=["seed", "chosen", "error"])
        return numbers.groupby("frame_method", sort=False).agg(["mean", "std"])

    def summary(self) -> str:
        """Mean ± standard deviation over the seeds as a table for a person, and what failed."""
        import pandas

        means = self.means
        n_results = self.table.loc[self.table["error"].isna(), "frame_method"].value_counts()
        shown = {"frames": list(means.index), "seeds": [n_results.get(method, 0) for method in means.index]}
        for column, label in _labels(self.table.attrs["units"]).items():
            shown[label] = [_with_deviation(*pair) for pair in means[column].to_numpy(dtype=float).tolist()]
        lines = [pandas.DataFrame(shown).to_string(index=False)]
        for method, seed, error in self.failures[["frame_method", "seed", "error"]].itertuples(index=False):
            lines.append(f"{method}, seed {seed}, has no result: {error}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"AblationResult in {self.output}:\n{self.summary()}"


def ablate(
    config: Config,
    frame_methods: Sequence[FrameMethod] = FRAME_METHODS,
    seeds: Sequence[int] = (0, 1, 2),
    data: Splits | CrystalDataset | None = None,
    output: Path | str = "runs/ablation",
    n_workers: int = 1,
) -> AblationResult:
    """Train a model for every frame method and seed, on the same data and settings, and compare them.

    Calling it again with the same `output` continues: a finished run is read, one that was stopped goes on from its
    latest complete epoch, and one that failed is tried again. A run that fails does not stop the others.

    >>> import tempfile
    >>> import crystalframer as cf
    >>> config = cf.preset("tiny").config
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = cf.ablate(config, ["max", "none"], seeds=[0], output=folder)
    >>> result.table[["frame_method", "seed", "n_parameters", "error"]]
      frame_method  seed  n_parameters error
    0          max     0          7489  None
    1         none     0          6721  None
    >>> len(result.histories) == 2 * config.training.n_epochs
    True

    Args:
        config: the experiment. Its frame method and seed are set run by run; `training.seed` still decides a random
            split, which is the same for all runs.
        frame_methods: see `FrameConfig.method`.
        seeds: of initial weights, batches and noise.
        data: as for `fit`. Default: `config.data.source`.
        output: folder of the run folders and of `table.csv`, which is up to date after every run.
        n_workers: runs that are trained at a time, by as many processes of this machine. They share out the CPU
            threads and take the GPUs in turn. One that is killed is replaced, and its run goes on. Errors are the same
            as with one worker; `seconds` and `ms_per_step` are those of runs beside one another.

    Raises:
        ConfigError: an unknown or repeated method, or `output` holds runs of another config (the fields are named), or
            this is one of several processes of torchrun or SLURM.
        TrainingError: `output` holds runs on other data, or cannot be written.
        DataError: the data cannot be used.
        Interrupted: Ctrl-C; the same call goes on from there.
    """
    if launch.launched() is not None:
        raise ConfigError(
            "ablate starts the processes of its runs itself, on this machine, as many as n_workers or "
            "training.n_devices says: call it without torchrun or srun"
        )
    check_counts(config, n_workers, "run")
    output = Path(output)
    runs = _plan(config, frame_methods, seeds, output)
    outcomes = {run: _result_or_why(partial(read_result, run.folder)) for run in runs if run.is_finished}
    # Seed by seed: whenever it is stopped, the methods have been treated alike.
    waiting = sorted((run for run in runs if not run.is_finished), key=lambda run: seeds.index(run.seed))
    output.mkdir(parents=True, exist_ok=True)
    if waiting:
        splits = load_splits(config, data)
        _check_same_data(config, splits, runs)

        def close(run: _Run, why: str | None) -> None:
            outcomes[run] = _result_or_why(partial(read_result, run.folder)) if why is None else why
            overview.end(run)
            _table(config, runs, outcomes).to_csv(output / TABLE_FILE, index=False)

        def jobs() -> Iterator[Job]:
            for run in waiting:
                overview.start(run)
                yield Job(run.config, run.folder, partial(overview.report, run), partial(close, run))

        with _Overview(runs, len(outcomes)) as overview:
            try:
                if n_workers == 1:
                    train_here(jobs(), splits)
                else:
                    train_in_processes(jobs(), splits, config.training.accelerator, n_workers)
            except KeyboardInterrupt:
                raise Interrupted(_farewell(overview.under_way, runs, output)) from None
    table = _table(config, runs, outcomes)
    table.to_csv(output / TABLE_FILE, index=False)
    return AblationResult(output, table, _histories(runs, outcomes))


@dataclass(frozen=True, eq=False)
class _Run:
    """One frame method and seed."""

    config: Config
    folder: RunFolder

    @property
    def name(self) -> str:
        return self.folder.path.name

    @property
    def frame_method(self) -> FrameMethod:
        return self.config.model.frame.method

    @property
    def seed(self) -> int:
        return self.config.training.seed

    @property
    def is_finished(self) -> bool:
        return self.folder.result.exists()

    @property
    def n_epochs_done(self) -> int:
        """Lines of `metrics.csv` below its header."""
        if not self.folder.metrics.exists():
            return 0
        return max(0, len(self.folder.metrics.read_text(encoding="utf-8").splitlines()) - 1)


def _plan(config: Config, frame_methods: Sequence[FrameMethod], seeds: Sequence[int], output: Path) -> list[_Run]:
    """All runs, in the order of the table."""
    for name, values in (("frame_methods", frame_methods), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"{name} = {list(values)}: name at least one, and none twice")
    runs = []
    for method in frame_methods:
        model = replace(config.model, frame=replace(config.model.frame, method=method))
        for seed in seeds:
            of_run = replace(config, model=model, training=replace(config.training, seed=seed))
            runs.append(_Run(of_run, RunFolder(output / f"{method}-seed{seed}")))
    for run in runs:
        if run.folder.config.exists():
            run.folder.check_same_config(run.config)
    return runs


def _check_same_data(config: Config, splits: Splits, runs: Sequence[_Run]) -> None:
    """That the runs of earlier calls were trained on these data."""
    started = [run.folder for run in runs if run.folder.data.exists()]
    if started:
        present = digest(prepare_parts(config, splits))
        for folder in started:
            folder.check_same_data(present)


def _result_or_why(result: Callable[[], FitResult]) -> FitResult | str:
    """A result, or why there is none."""
    try:
        return result()
    except Exception as error:  # whatever it is, it must not cost the other runs
        return why_none(error)


def _farewell(under_way: Sequence[_Run], runs: Sequence[_Run], output: Path) -> str:
    stopped = [f"{run.name} after epoch {run.n_epochs_done} of {run.config.training.n_epochs}" for run in under_way]
    n_finished = sum(run.is_finished for run in runs)
    return (
        f"the ablation was stopped in {', '.join(stopped)}; {n_finished} of {len(runs)} runs are complete. "
        f"The same command or call goes on from there (folder {output})"
    )


class _Overview:
    """One bar over the epochs of all runs, with the time left; a single worker draws its own below."""

    def __init__(self, runs: Sequence[_Run], n_before: int) -> None:
        from tqdm.auto import tqdm

        self.n_epochs = {run: run.n_epochs_done for run in runs}
        self.n_started = n_before
        self.under_way: list[_Run] = []
        self.bar = tqdm(
            total=sum(run.config.training.n_epochs for run in runs),
            initial=sum(self.n_epochs.values()),
            desc="ablation",
            bar_format="{desc} {percentage:3.0f}%|{bar}| epoch {n} of {total} [{elapsed}<{remaining}{postfix}]",
            smoothing=0,
            **where_to_draw(tqdm),
        )

    def __enter__(self) -> _Overview:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def start(self, run: _Run) -> None:
        self.n_started += 1
        self.under_way.append(run)
        names = ", ".join(run.name for run in self.under_way)
        self.bar.set_postfix_str(f"run {self.n_started} of {len(self.n_epochs)}: {names}")

    def report(self, run: _Run, epoch: int, losses: Sequence[float]) -> bool:
        """A run has come so far; it is not to stop."""
        self.bar.update(epoch - self.n_epochs[run])
        self.n_epochs[run] = epoch
        return False

    def end(self, run: _Run) -> None:
        """Epochs that a failed run leaves out are not to come."""
        self.under_way.remove(run)
        if not run.is_finished:
            self.bar.total -= run.config.training.n_epochs - self.n_epochs[run]
            self.bar.refresh()


def _table(config: Config, runs: Sequence[_Run], outcomes: Mapping[_Run, FitResult | str]) -> pandas.DataFrame:
    """A row for each run that has been tried."""
    import pandas

    names = config.model.target_names
    columns = ["frame_method", "seed", *(f"{part}_mae/{name}" for part in ("validation", "test") for name in names)]
    columns += ["chosen", "best_epoch", "seconds", "ms_per_step", "n_parameters", "error"]
    tried = [run for run in runs if run in outcomes]
    rows = [{"frame_method": run.frame_method, "seed": run.seed, **_row(outcomes[run])} for run in tried]
    table = pandas.DataFrame(rows, columns=columns)
    table["error"] = pandas.Series([row["error"] for row in rows], dtype=object)
    table.attrs["units"] = {target.name: target.unit for target in config.model.targets}
    return table


def _row(outcome: FitResult | str) -> dict[str, Any]:
    if isinstance(outcome, str):
        return {"error": outcome}
    history, score = outcome.history, outcome.scores[outcome.chosen]
    n_steps = np.diff(history["step"].to_numpy(), prepend=0)
    ms_per_step = 1000.0 * history["training_seconds"].to_numpy() / n_steps
    return {
        **{f"validation_mae/{name}": error for name, error in score.validation_mae.items()},
        **{f"test_mae/{name}": error for name, error in score.test_mae.items()},
        "chosen": outcome.chosen,
        "best_epoch": int(history["epoch"].to_numpy()[history["validation_loss"].argmin()]),
        "seconds": float(history["seconds"].to_numpy().sum()),
        "ms_per_step": float(np.median(ms_per_step[1:] if len(history) > 1 else ms_per_step)),
        "n_parameters": sum(parameter.numel() for parameter in outcome.model.parameters()),
        "error": None,
    }


def _histories(runs: Sequence[_Run], outcomes: Mapping[_Run, FitResult | str]) -> pandas.DataFrame:
    import pandas

    labelled = [pandas.DataFrame(columns=["frame_method", "seed", "epoch"])]
    for run in runs:
        if isinstance(outcome := outcomes[run], FitResult):
            history = outcome.history.copy()
            history.insert(0, "frame_method", run.frame_method)
            history.insert(1, "seed", run.seed)
            labelled.append(history)
    return pandas.concat(labelled[1:] or labelled, ignore_index=True)


def _labels(units: Mapping[str, str]) -> dict[str, str]:
    """The numbers of a run, as a person calls them."""
    labels = {}
    for part in ("validation", "test"):
        for name, unit in units.items():
            which = Target(name, unit).label if len(units) > 1 else f"({unit})" if unit else ""
            labels[f"{part}_mae/{name}"] = f"{part} MAE {which}".strip()
    return labels | {
        "best_epoch": "best epoch",
        "seconds": "seconds",
        "ms_per_step": "ms a step",
        "n_parameters": "parameters",
    }


def _with_deviation(mean: float, deviation: float) -> str:
    """`0.02630 ± 0.00040`: four digits of the mean, the deviation to the same place."""
    if math.isnan(mean):
        return "none"
    varies = deviation > 0  # NaN does not
    is_count = mean.is_integer() and not varies
    decimals = 0 if is_count else max(0, 3 - math.floor(math.log10(abs(mean))))
    return f"{mean:,.{decimals}f}" + (f" ± {deviation:,.{decimals}f}" if varies else "")
