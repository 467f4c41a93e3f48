"""Searching hyperparameters: one table from many trials, however often the work was stopped or killed in between."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from watched_runs import acting, ctrl_c, full_disk, noted

from crystalframer.checkpoint import load
from crystalframer.cli import main
from crystalframer.config import Config, DataConfig
from crystalframer.datasets.dataset import Splits
from crystalframer.datasets.sources import dataset
from crystalframer.errors import ConfigError, TrainingError
from crystalframer.files import LOCK_FILE
from crystalframer.prediction import load as load_run
from crystalframer.presets import preset
from crystalframer.studies import (
    Choice,
    Range,
    SweepResult,
    jobs,
    optuna_study as study,
    space_from_words,
    sweep,
    workers,
)
from crystalframer.studies.space import check_space, with_values
from crystalframer.training import Interrupted, fit
from crystalframer.training.folder import RunFolder

TINY = preset("tiny").config
CONFIG = replace(
    TINY, training=replace(TINY.training, n_epochs=3, batch_size=16, accelerator="cpu", n_threads=1, swa_epochs=1)
)
SPACE = {
    "training.learning_rate": Range(1e-4, 1e-2, log=True),
    "model.n_layers": Range(1, 2),
    "model.frame.method": Choice(["max", "none"]),
}
N_TRIALS = 3
MAE = "validation_mae/formation_energy_per_atom"


def few_crystals() -> Splits:
    splits = dataset("demo").split(DataConfig(max_atoms_per_crystal=4), seed=0)
    return Splits(splits.train.select(range(40)), splits.validation.select(range(6)), splits.test.select([]))


DATA = few_crystals()


def search(output: Path, n_trials: int = N_TRIALS, space: Any = SPACE, config: Config = CONFIG, **options: Any):
    return sweep(config, space, n_trials, DATA, output, **options)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    return search(tmp_path_factory.mktemp("sweep") / "runs")


@pytest.fixture
def copy(uninterrupted: SweepResult, tmp_path: Path) -> Path:
    """Of the folder of a search that nothing happened to."""
    return Path(shutil.copytree(uninterrupted.output, tmp_path / "copy"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the trials that are trained while the test runs."""
    return noted(monkeypatch)


@pytest.fixture
def in_epoch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`in_epoch(n, "trial-0001", action)`: have the action in the n-th epoch of a trial."""
    return acting(monkeypatch)


def same_tables(one: SweepResult, other: SweepResult) -> None:
    """But for the time that they took."""
    pd.testing.assert_frame_equal(
        one.table.drop(columns="seconds"), other.table.drop(columns="seconds"), check_exact=True
    )


def history(output: Path, number: int) -> pd.DataFrame:
    return pd.read_csv(output / f"trial-{number:04d}" / "metrics.csv", engine="pyarrow")


# The table


def test_a_row_is_what_fit_finds_with_these_values(uninterrupted: SweepResult, tmp_path: Path) -> None:
    assert uninterrupted.table["trial"].tolist() == [0, 1, 2]
    assert uninterrupted.table["state"].tolist() == ["complete"] * 3
    row = uninterrupted.table.to_dict("records")[1]
    config = with_values(CONFIG, {name: row[name] for name in SPACE})
    assert config != CONFIG and config.model.frame.method == row["model.frame.method"]
    alone = fit(config, DATA, tmp_path / "alone")
    score = alone.scores[alone.chosen]
    assert row["validation_loss"] == score.validation_loss
    assert row[MAE] == score.validation_mae["formation_energy_per_atom"]
    losses = alone.history["validation_loss"].tolist()
    assert (row["best_epoch"], row["n_epochs"]) == (1 + losses.index(min(losses)), 3)
    assert row["seconds"] == pytest.approx(history(uninterrupted.output, 1)["seconds"].sum())
    assert row["error"] is None


def test_trials_differ_and_stay_in_their_space(uninterrupted: SweepResult) -> None:
    rates = uninterrupted.table["training.learning_rate"].tolist()
    assert len(set(rates)) == 3 and all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert set(uninterrupted.table["model.n_layers"]) <= {1, 2}
    assert all(type(n_layers) is int for n_layers in uninterrupted.table["model.n_layers"].tolist())
    assert set(uninterrupted.table["model.frame.method"]) <= {"max", "none"}


def test_the_best_has_the_lowest_loss_and_is_ready_to_use(uninterrupted: SweepResult) -> None:
    lowest = uninterrupted.table["validation_loss"].min()
    assert uninterrupted.best["validation_loss"] == lowest
    config = uninterrupted.best_config
    assert config == with_values(CONFIG, {name: uninterrupted.best[name] for name in SPACE})
    assert load_run(uninterrupted.best_folder).config == config.model
    saved = json.loads((uninterrupted.best_folder / "result.json").read_text())
    assert saved["scores"][saved["chosen"]]["validation_loss"] == lowest


def test_the_summary_begins_with_the_best(uninterrupted: SweepResult) -> None:
    first, header, best, *_ = uninterrupted.summary().splitlines()
    assert first == "3 trials: 3 complete"
    assert "validation MAE (eV/atom)" in header and best.split()[0] == str(uninterrupted.best["trial"])
    assert repr(uninterrupted) == f"SweepResult in {uninterrupted.output}:\n{uninterrupted.summary()}"


def test_the_table_is_on_the_disk(uninterrupted: SweepResult) -> None:
    read = pd.read_csv(uninterrupted.output / "table.csv", engine="pyarrow").drop(columns="error")
    expected = uninterrupted.table.drop(columns="error")
    pd.testing.assert_frame_equal(read, expected, check_exact=True, check_dtype=False)


# Going on


def test_the_same_call_reads_what_is_there(uninterrupted: SweepResult, copy: Path, trained: list[str]) -> None:
    (copy / "table.csv").unlink()
    again = sweep(CONFIG, SPACE, N_TRIALS, output=copy)  # without data: nothing is to be trained
    assert trained == [] and (copy / "table.csv").exists()
    pd.testing.assert_frame_equal(again.table, uninterrupted.table, check_exact=True)


def test_more_trials_are_added(uninterrupted: SweepResult, copy: Path, trained: list[str]) -> None:
    more = search(copy, n_trials=4)
    assert trained == ["trial-0003"]
    pd.testing.assert_frame_equal(more.table.head(3), uninterrupted.table, check_exact=True)
    assert len(set(more.table["training.learning_rate"])) == 4
    assert len(search(copy, n_trials=2).table) == 4


def test_ctrl_c_goes_on_to_the_same_table(
    uninterrupted: SweepResult, tmp_path: Path, in_epoch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_epoch(3, "trial-0001", ctrl_c)
    with pytest.raises(Interrupted, match=r"stopped in trial-0001 after epoch 2 of 3; 1 of 3 trials are done.*goes on"):
        search(tmp_path / "runs")
    assert len(pd.read_csv(tmp_path / "runs" / "table.csv")) == 1
    trained = in_epochs_of(monkeypatch, "trial-0001")
    same_tables(search(tmp_path / "runs"), uninterrupted)
    assert trained == [3]


def in_epochs_of(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Epochs of a trial that are trained from here on."""
    seen: list[int] = []

    class Note(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module) -> None:
            seen.append(trainer.current_epoch + 1)

    def noted(config: Config, data: Splits, output: Path, resume: bool, callbacks: list) -> object:
        return fit(config, data, output, resume, [*callbacks, *[Note()] * (output.name == name)])

    monkeypatch.setattr(jobs, "fit", noted)
    return seen


def test_a_kill_between_any_two_lines_of_the_journal(
    uninterrupted: SweepResult, copy: Path, trained: list[str]
) -> None:
    """Runs are complete that the journal does not know of yet, and its last line is half there."""
    journal = copy / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + N_TRIALS * (1 + 3 + 1)  # the study; a trial, its epochs, its end
    for n_left in range(len(lines)):
        journal.write_bytes(b"".join(lines[:n_left]) + lines[n_left][: len(lines[n_left]) // 2])
        (copy / "journal.log.lock").touch()  # and it had the lock
        (copy / "table.csv").unlink()
        same_tables(search(copy), uninterrupted)
    assert trained == []


def test_another_search_is_refused_by_what_differs(copy: Path, trained: list[str]) -> None:
    other = {**SPACE, "model.n_layers": Range(1, 3)}
    with pytest.raises(ConfigError, match=r"model.n_layers was Range\(low=1, high=2,.*, is Range\(low=1, high=3,"):
        search(copy, space=other)
    with pytest.raises(ConfigError, match=r"another search: model.n_layers was Range\(.*\), is not searched\. Cont"):
        search(copy, space={name: offered for name, offered in SPACE.items() if name != "model.n_layers"})
    with pytest.raises(ConfigError, match="another search: seed was 0, is 1"):
        search(copy, seed=1)
    longer = replace(CONFIG, training=replace(CONFIG.training, n_epochs=4))
    with pytest.raises(ConfigError, match=r"training\.n_epochs was 3, is 4"):
        search(copy, config=longer)
    fewer = replace(DATA, train=DATA.train.select(range(30)))
    with pytest.raises(TrainingError, match="data changed"):
        sweep(CONFIG, SPACE, N_TRIALS, fewer, copy)
    assert trained == []


def test_two_searches_do_not_share_a_folder(copy: Path) -> None:
    with FileLock(copy / LOCK_FILE), pytest.raises(TrainingError, match="another process is searching in it"):
        search(copy)


def test_a_damaged_journal(copy: Path) -> None:
    lines = (copy / "journal.log").read_bytes().splitlines(keepends=True)
    (copy / "journal.log").write_bytes(b"".join([lines[0], b"???\n", *lines[1:]]))
    with pytest.raises(TrainingError, match="journal of the search is damaged"):
        search(copy)


# Trials that fail


def test_combinations_that_are_refused_fail_alone(tmp_path: Path) -> None:
    space = {"model.n_heads": Choice([2, 3]), "model.d_model": Choice([16, 24])}
    one_epoch = replace(CONFIG, training=replace(CONFIG.training, n_epochs=1))
    result = search(tmp_path, 6, space, one_epoch, seed=2)
    pairs = zip(result.table["model.n_heads"].tolist(), result.table["model.d_model"].tolist(), strict=True)
    refused = [pair == (3, 16) for pair in pairs]
    assert 0 < sum(refused) < 6
    assert result.table["state"].tolist() == ["failed" if one else "complete" for one in refused]
    assert set(result.failures["error"]) == {"model.d_model = 16: must be a multiple of model.n_heads = 3"}
    assert np.isnan(result.failures["validation_loss"].to_numpy()).all()
    assert f"{sum(refused)} failed" in result.summary() and "must be a multiple of" in result.summary()


def test_an_error_of_a_trial_does_not_cost_the_others(
    tmp_path: Path, in_epoch: Callable, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    in_epoch(2, "trial-0001", fail)
    result = search(tmp_path)
    assert result.table["state"].tolist() == ["complete", "failed", "complete"]
    assert result.table["error"].tolist() == [None, "RuntimeError: broken", None]
    assert "Traceback" in capsys.readouterr().err
    same_tables(search(tmp_path), result)
    assert "trial-0001" not in trained


def test_a_full_disk_stops_the_search_not_the_trial(
    uninterrupted: SweepResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without_space:
        without_space.setattr(jobs, "fit", full_disk)
        with pytest.raises(TrainingError, match="cannot be written"):
            search(tmp_path / "runs")
    same_tables(search(tmp_path / "runs"), uninterrupted)


def test_without_a_complete_trial_there_is_no_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TrainingError("loss is not finite")

    monkeypatch.setattr(jobs, "fit", fail)
    result = search(tmp_path)
    assert result.summary().splitlines() == [
        "3 trials: 3 failed",
        "trial-0000, trial-0001, trial-0002: no result: loss is not finite",
    ]
    with pytest.raises(TrainingError, match="no trial is complete"):
        _ = result.best_folder


# Stopping early


def test_trials_worse_than_the_median_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    monkeypatch.setattr(study, "TRIALS_BEFORE_PRUNING", 1)
    longer = replace(CONFIG, training=replace(CONFIG.training, n_epochs=5))
    space = {"training.learning_rate": Choice([1e-2, 1e-6])}
    result = search(tmp_path / "runs", 5, space, longer)

    complete: list[np.ndarray] = []
    for row in result.table.to_dict("records"):
        losses = history(tmp_path / "runs", row["trial"])["validation_loss"].to_numpy()
        expected = 5
        for epoch in range(1, 5):
            others = [other[epoch - 1] for other in complete]
            if others and len(losses) >= epoch and losses[:epoch].min() > np.median(others):
                expected = epoch
                break
        assert len(losses) == row["n_epochs"] == expected
        assert row["state"] == ("complete" if expected == 5 else "pruned")
        if expected == 5:
            complete.append(losses)
        else:
            assert row["validation_loss"] <= losses.min() and row["error"] is None
    assert {"complete", "pruned"} == set(result.table["state"])
    assert result.best["state"] == "complete"

    n_before = len(trained)
    same_tables(search(tmp_path / "runs", 5, space, longer), result)
    assert len(trained) == n_before  # those that were stopped stay so
    kept = search(tmp_path / "kept", 2, space, longer, prune=False)
    assert kept.table["n_epochs"].tolist() == [5, 5]


# Several processes


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen]:
    """Those of all workers that are started while the test runs."""
    started: list[subprocess.Popen] = []
    init = workers.Worker.__init__

    def noted(self: workers.Worker, *arguments: Any) -> None:
        init(self, *arguments)
        started.append(self._process)

    monkeypatch.setattr(workers.Worker, "__init__", noted)
    return started


def test_a_killed_worker_is_replaced_and_its_trial_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: list[subprocess.Popen]
) -> None:
    killed: list[int] = []
    tell = workers.Worker.tell

    def tell_or_kill(self: workers.Worker, content: dict) -> None:
        if "stop" in content and not killed and self.job is not None and self.job.folder.path.name == "trial-0001":
            killed.append(1)
            os.kill(self._process.pid, signal.SIGKILL)
        tell(self, content)

    monkeypatch.setattr(workers.Worker, "tell", tell_or_kill)
    result = search(tmp_path / "runs", n_workers=2)
    assert killed == [1] and len(processes) == 3
    assert all(process.poll() is not None for process in processes)
    assert result.table["trial"].tolist() == [0, 1, 2] and result.table["state"].tolist() == ["complete"] * 3
    for number in range(N_TRIALS):
        assert history(tmp_path / "runs", number)["epoch"].tolist() == [1, 2, 3]
    row = result.table.to_dict("records")[1]
    alone = fit(with_values(CONFIG, {name: row[name] for name in SPACE}), DATA, tmp_path / "alone")
    assert history(tmp_path / "runs", 1)["validation_loss"].tolist() == alone.history["validation_loss"].tolist()
    same_tables(search(tmp_path / "runs", n_workers=2), result)
    assert len(processes) == 3


def test_a_search_that_is_killed_takes_its_workers_along_and_goes_on(tmp_path: Path, trained: list[str]) -> None:
    many_epochs = replace(CONFIG, training=replace(CONFIG.training, n_epochs=400))
    script = "\n".join(
        [
            "import sys, runpy",
            "from pathlib import Path",
            "sys.path.append(str(Path(sys.argv[1]).parents[1] / 'support'))",
            "names = runpy.run_path(sys.argv[1])",
            "from dataclasses import replace",
            "config = replace(names['CONFIG'], training=replace(names['CONFIG'].training, n_epochs=400))",
            "names['search'](Path(sys.argv[2]), 1, config=config, n_workers=2)",
        ]
    )
    output = tmp_path / "runs"
    parent = subprocess.Popen([sys.executable, "-c", script, __file__, str(output)], stderr=subprocess.DEVNULL)
    try:
        wait_for((output / "trial-0000" / "metrics.csv").exists)
        (child,) = children_of(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not Path(f"/proc/{child}").exists(), seconds=10)
    n_done = len(history(output, 0))
    assert 0 < n_done < 400

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pl.Trainer, "fit", stop)
        with pytest.raises(Interrupted, match=rf"in trial-0000 after epoch ({n_done}|{n_done - 1}) of 400; 0 of 1"):
            search(output, 1, config=many_epochs)
    assert trained == ["trial-0000 again"]
    assert len(history(output, 0)) == n_done


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_ctrl_c_ends_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: list[subprocess.Popen]
) -> None:
    monkeypatch.setattr(workers.Workers, "next_message", lambda self: ctrl_c())
    with pytest.raises(Interrupted, match="stopped in trial-0000 after epoch 0 of 3, trial-0001 after epoch 0 of 3; 0"):
        search(tmp_path / "runs", n_workers=2)
    assert [process.poll() for process in processes] == [-signal.SIGKILL] * 2


def test_processes_that_end_at_their_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(TrainingError, match=r"3 processes ended at their start \(the last with exit code 1\)"):
        search(tmp_path / "runs", n_workers=2)


def test_gpus_are_taken_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        def __init__(self, command: list[str], gpu: str | None, messages: object) -> None:
            self.gpu, self.job, self.n_threads = gpu, None, int(command[-1])

        def tell(self, content: dict) -> None:
            pass

    monkeypatch.setattr(workers, "Worker", Told)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(workers.torch, "get_num_threads", lambda: 8)
    one = jobs.Job(CONFIG, RunFolder(tmp_path), lambda epoch, losses: False, lambda why: None)
    for accelerator, gpus in (("cuda", ["4", "6", "4"]), ("cpu", [None, None, None])):
        started = workers.Workers(tmp_path, accelerator, 3)
        for _ in range(3):
            started.train(one)
        assert [worker.gpu for worker in started.living] == gpus
        assert [worker.n_threads for worker in started.living] == [2, 2, 2]  # type: ignore[attr-defined]


# What may be searched


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "space of the search is empty"),
        ({"training.learning_rat": Range(0.1, 1)}, "'training.learning_rat' is no field.*did you mean 'training.lear"),
        ({"learning_rate": Range(0.1, 1)}, "'learning_rate' is no field.*[Kk]nown: training.learning_rate"),
        ({"model.frame": Choice(["max", "none"])}, "'model.frame' is no field"),
        ({"data.split": Choice(["random", "group"])}, "data.split cannot be searched: all trials have the same data"),
        ({"training.n_threads": Range(1, 2)}, "training.n_threads cannot be searched: it says where"),
        ({"model.frame.method": Range(1, 2)}, "model.frame.method takes no range of numbers"),
        ({"model.n_layers": Range(1.5, 2)}, "model.n_layers: Range.low = 1.5: the field takes whole numbers"),
        ({"model.n_layers": Range(0, 2)}, "offers model.n_layers = 0, which no trial.*n_layers = 0: must be above 0"),
        ({"training.eps": Choice(["a", 1e-8])}, "training.eps = 'a', which no.*training.eps = 'a': must be a number"),
        ({"model.frame.method": Choice(["max", "mix"])}, "'mix': unknown value; did you mean 'max'"),
        ({"model.n_heads": Choice([2, 3])}, "offers model.n_heads = 3.*d_model = 16: must be a multiple"),
        ({"model.n_heads": Choice([2, 3]), "model.d_model": Choice([16, 32])}, "offers model.n_heads = 3"),
    ],
)
def test_a_space_that_cannot_be_searched(space: dict, message: str, tmp_path: Path, as_in_production: None) -> None:
    with pytest.raises(ConfigError, match=message):
        search(tmp_path / "runs", space=space)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Range(2.0, 1.0), "Range.low = 2.0: must be below high = 1.0"),
        (lambda: Range(0.0, 1.0, log=True), "Range.low = 0.0: must be above 0"),
        (lambda: Range(1.0, 10.0, log=True, step=1.0), "logarithmic range has no steps"),
        (lambda: Range(0.0, 1.0, step=0.3), "Range.step = 0.3: must lead in whole steps"),
        (lambda: Choice([1]), "at least two, and none twice"),
        (lambda: Choice([1, 1]), "at least two, and none twice"),
        (lambda: Choice("max"), "give a list"),
        (lambda: Choice([1, object()]), "is no number, text"),
    ],
)
def test_ranges_and_choices_that_offer_nothing(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_value_may_need_another_one_of_the_space() -> None:
    check_space(CONFIG, {"model.n_heads": Choice([2, 3]), "model.d_model": Range(16, 48, step=8)})
    many = {f"model.{name}": Range(16, 76) for name in ("d_feedforward", "d_readout", "n_layers")}
    check_space(CONFIG, {**many, "model.n_heads": Choice([2, 3]), "model.d_model": Choice([16, 24])})
    check_space(CONFIG, {"training.betas": Choice([(0.9, 0.98), [0.9, 0.999]]), "training.max_atoms": Range(100, 200)})


def test_lists_and_none_are_choices(tmp_path: Path) -> None:
    space = {"training.betas": Choice([(0.9, 0.98), (0.8, 0.9)]), "training.max_atoms": Choice([None, 64])}
    one_epoch = replace(CONFIG, training=replace(CONFIG.training, n_epochs=1))
    result = search(tmp_path, 2, space, one_epoch)
    assert set(result.table["training.betas"]) <= {(0.9, 0.98), (0.8, 0.9)}
    best = result.best_config.training
    assert (best.betas, best.max_atoms) == (result.best["training.betas"], result.best["training.max_atoms"])
    same_tables(search(tmp_path, 2, space, one_epoch), result)


@pytest.mark.parametrize(
    ("counts", "message"),
    [({"n_trials": 0}, "n_trials = 0: must be above 0"), ({"n_workers": 0}, "n_workers = 0: must be above 0")],
)
def test_counts_are_above_zero(counts: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        search(tmp_path, **counts)


def test_several_devices_or_several_trials(tmp_path: Path) -> None:
    on_two = replace(CONFIG, training=replace(CONFIG.training, n_devices=2))
    with pytest.raises(ConfigError, match="choose between several trials at a time and several devices"):
        search(tmp_path, config=on_two, n_workers=2)


def test_not_under_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "1"), ("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="without torchrun or srun"):
        search(tmp_path)


def test_without_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=re.escape('pip install "crystalframer[optuna]"')):
        search(tmp_path)


# The command line


def test_what_words_mean() -> None:
    words = ["training.learning-rate=1e-4:2e-3:log", "model.n-layers=2,3", "model.d-model=16:32:8"]
    words += ["model.frame.method=max,none", "training.max-atoms=none,64", "training.drop-last=true,false"]
    assert space_from_words(words) == {
        "training.learning_rate": Range(1e-4, 2e-3, log=True),
        "model.n_layers": Choice([2, 3]),
        "model.d_model": Range(16, 32, step=8),
        "model.frame.method": Choice(["max", "none"]),
        "training.max_atoms": Choice([None, 64]),
        "training.drop_last": Choice([True, False]),
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("training.learning-rate", "expected FIELD=LOW:HIGH"),
        ("training.learning-rte=1:2", "did you mean 'training.learning_rate'"),
        ("training.learning-rate=1:x", "training.learning_rate=1:x: expected LOW:HIGH.*with numbers"),
        ("model.n-layers=1:2:3:4", "with whole numbers"),
        ("model.n-layers=1,two", "model.n_layers: 'two' is no whole number"),
        ("model.n-layers=3:1", "model.n_layers: Range.low = 3: must be below"),
        ("training.drop-last=yes,no", "'yes' is neither true nor false"),
        ("training.betas=1,2", "which only Python can name"),
    ],
)
def test_words_that_mean_nothing(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space_from_words([word])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "--preset", "tiny", "--training.n-epochs", "1", "--output", str(tmp_path / "runs")]
    words += ["--data.max-atoms-per-crystal", "3", "--training.accelerator", "cpu", "--n-trials", "2"]
    assert main(words) == 2
    assert "name what to search" in capsys.readouterr().err
    words += ["--search", "training.learning-rate=1e-4:2e-3:log", "model.n-layers=1,2"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "2 trials: 2 complete" in said and "sweep.html" in said
    (best,) = re.findall(r"best model +(\S+)", said)
    assert load(Path(best) / "checkpoints" / "best").config.n_layers in (1, 2)
    assert "plotly" in (tmp_path / "runs" / "sweep.html").read_text(encoding="utf-8")
    assert main(words) == 0  # reads what is there
    assert capsys.readouterr().out == said
