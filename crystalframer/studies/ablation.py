"""Ablation: frame methods compared on the same data, split and settings, for several seeds.

    output folder/
        <method>-seed<seed>/       a run folder (see `training.run`)
        table.csv                  one row for each run

The same call continues a stopped ablation, adds methods or seeds, and reads a complete one without training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalframer.config import FRAME_METHODS, Config, FrameMethod
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.errors import ConfigError, TrainingError
from crystalframer.studies.study import Run, Study, outcome_of
from crystalframer.studies.tables import StudyResult, labels
from crystalframer.surroundings import left_alone, plain
from crystalframer.training.folder import RunFolder
from crystalframer.training.result import FitResult

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class AblationResult(StudyResult):
    """The outcome of an ablation."""

    output: Path
    """The output folder."""
    table: pandas.DataFrame
    """One row for each run: `frame_method`, `seed`, `validation_mae/<target>` and `test_mae/<target>` of the weights
    that `chosen` names, in the unit of the target (test: NaN without a test part), `best_epoch` (lowest validation loss
    of the raw weights), `seconds` of all epochs, `ms_per_step` (median over the epochs except the first, in which
    kernels are compiled), `n_parameters`, and `error`: the reason if there is no result, else None.
    `table.attrs["units"]` maps target to unit."""
    histories: pandas.DataFrame
    """The epochs of all runs with a result: `frame_method`, `seed` and the columns that `fit` describes."""

    @property
    def means(self) -> pandas.DataFrame:
        """`mean` and `std` of each number over the seeds (`std` is NaN for one result); one row for each method."""
        numbers = self.table.drop(columns=["seed", "chosen", "error"])
        return numbers.groupby("frame_method", sort=False).agg(["mean", "std"])

    def summary(self) -> str:
        """Mean ± standard deviation over the seeds as text, and the reasons of failures."""
        import pandas

        means = self.means
        n_results = self.table.loc[self.table["error"].isna(), "frame_method"].value_counts()
        shown = {"frames": list(means.index), "seeds": [n_results.get(method, 0) for method in means.index]}
        for column, label in labels(self.table).items():
            shown[label] = [_with_deviation(*pair) for pair in means[column].to_numpy(dtype=float).tolist()]
        return "\n".join([pandas.DataFrame(shown).to_string(index=False), *self._reasons()])

    def _names(self, rows: pandas.DataFrame) -> Iterable[str]:
        return (_run_name(method, seed) for method, seed in zip(rows["frame_method"], rows["seed"], strict=True))


@left_alone()
@plain()
def ablate(
    config: Config,
    frame_methods: Sequence[FrameMethod] = FRAME_METHODS,
    seeds: Sequence[int] = (0, 1, 2),
    data: Splits | CrystalDataset | None = None,
    output: Path | str = "runs/ablation",
    n_workers: int = 1,
) -> AblationResult:
    """Train a model for each frame method and seed, on the same data and settings, and compare them.

    Call it again with the same `output` to continue: a finished run is read, a stopped run goes on from its latest
    complete epoch, and a failed run is tried again. A failed run does not stop the others.

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
        config: the experiment. Each run sets its frame method and seed. `training.seed` still decides a random split,
            which is the same for all runs.
        frame_methods: methods to compare (see `FrameConfig.method`).
        seeds: seeds of initial weights, batches and noise; one run for each and each method.
        data: as for `fit`. Default: `config.data.source`.
        output: folder for the run folders and `table.csv`, which is updated after every run.
        n_workers: number of runs that are trained at the same time, by as many processes of this machine. They share
            the CPU threads and take the GPUs in turn. A process that is killed is replaced, and its run goes on. Errors
            are the same as with one worker; `seconds` and `ms_per_step` are those of runs side by side.

    Returns:
        The table of all runs and the histories of their epochs.

    Raises:
        ConfigError: a method is unknown or repeated; `output` holds runs of another config (the fields are named); or
            this is one of several processes of torchrun or SLURM.
        TrainingError: `output` holds runs on other data, cannot be written, or another process uses it.
        DataError: the data cannot be used.
        WorkerError: worker processes end at their start.
        Interrupted: Ctrl-C; the same call continues.
    """
    study = _Ablation(config, frame_methods, seeds, output, n_workers)
    with study.locked():
        if data is not None or any(study.waiting()):
            study.train(data)
        return AblationResult(study.output, study.write_table(), study.histories())


def _run_name(method: str, seed: int) -> str:
    return f"{method}-seed{seed}"


class _Ablation(Study):
    """The runs of a fixed grid."""

    noun = "ablation"

    def __init__(
        self,
        config: Config,
        frame_methods: Sequence[FrameMethod],
        seeds: Sequence[int],
        output: Path | str,
        n_workers: int,
    ) -> None:
        super().__init__(config, output, n_workers)
        for name, values in (("frame_methods", frame_methods), ("seeds", seeds)):
            if not values or len(set(values)) < len(values):
                raise ConfigError("name at least one, and none twice", field=name, value=list(values))
        if RunFolder(self.output).config.exists():
            raise TrainingError("holds a search or a single run; choose another folder", path=self.output)
        scores = [f"{target.metric}/{target.name}" for target in config.model.targets]
        maes = [f"{part}_{score}" for part in ("validation", "test") for score in scores]
        measures = ["chosen", "best_epoch", "seconds", "ms_per_step", "n_parameters", "error"]
        self.columns = ["frame_method", "seed", *maes, *measures]
        self._seeds = seeds
        for method in frame_methods:
            try:
                model = replace(config.model, frame=replace(config.model.frame, method=method))
            except ConfigError as error:
                if method not in FRAME_METHODS:
                    raise
                text = f"the other settings of the frames do not go with this method, leave one of them out: {error}"
                raise ConfigError(text, field="frame_methods", value=method) from None
            for seed in seeds:
                own = replace(config, model=model, training=replace(config.training, seed=seed))
                self.add(Run(own, RunFolder(self.output / _run_name(method, seed))))
        for run in self.runs.values():
            if run.folder.config.exists():
                run.folder.check_same_config(run.config)
            if run.folder.result.exists():
                self.outcomes[run.name] = outcome_of(run.folder)

    @property
    def n_runs(self) -> int:
        return len(self.runs)

    def waiting(self) -> Iterator[Run]:
        """Seed by seed: whenever the ablation is stopped, the methods have been treated alike."""
        left = [run for run in self.runs.values() if run.name not in self.outcomes]
        yield from sorted(left, key=lambda run: self._seeds.index(run.config.training.seed))

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, run in self.runs.items():
            yield name, {"frame_method": run.config.model.frame.method, "seed": run.config.training.seed}

    def histories(self) -> pandas.DataFrame:
        import pandas

        found = []
        for name, which in self.rows():
            if isinstance(outcome := self.outcomes[name], FitResult):
                history = outcome.history
                found.append(history.assign(**which)[[*which, *history]])
        empty = pandas.DataFrame(columns=["frame_method", "seed", "epoch"])
        return pandas.concat(found or [empty], ignore_index=True)


def _with_deviation(mean: float, deviation: float) -> str:
    """`0.02630 ± 0.00040`: four digits of the mean, the deviation to the same place."""
    if math.isnan(mean):
        return "none"
    varies = deviation > 0  # NaN does not
    is_count = mean.is_integer() and not varies
    decimals = 0 if is_count else max(0, 3 - math.floor(math.log10(abs(mean))))
    return f"{mean:,.{decimals}f}" + (f" ± {deviation:,.{decimals}f}" if varies else "")
