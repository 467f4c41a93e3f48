"""What ablations and searches have in common: one table from many runs, however often they are stopped or fail."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from refusals import refused
from watched_runs import CONFIG, DATA, FEWER, METHODS, SEEDS, WatchedRuns, broken, ctrl_c, full_disk, not_finite

from crystalframer import files
from crystalframer.errors import ConfigError, TrainingError
from crystalframer.processes import pool
from crystalframer.processes.child import Child
from crystalframer.studies import AblationResult, Choice, ablate, sweep
from crystalframer.training import Interrupted, fit

TIMES = ["training_seconds", "seconds", "ms_per_step"]
MAE = "test_mae/formation_energy_per_atom"


@pytest.fixture
def copy(ablation: AblationResult, tmp_path: Path) -> Path:
    """The folder of a complete ablation."""
    return Path(shutil.copytree(ablation.output, tmp_path / "copy"))


def study(output: Path, **changes: Any) -> AblationResult:
    given = {"config": CONFIG, "frame_methods": METHODS, "seeds": SEEDS, "data": DATA, "output": output}
    return ablate(**(given | changes))


def same_results(one: AblationResult, other: AblationResult) -> None:
    """The same to the last bit, except for times."""
    for name, times in (("table", TIMES[1:]), ("histories", TIMES[:2])):
        found, expected = (getattr(result, name).drop(columns=times) for result in (one, other))
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_the_table_is_on_the_disk(ablation: AblationResult) -> None:
    read = pd.read_csv(ablation.output / "table.csv", engine="pyarrow")
    expected = ablation.table.drop(columns="error")
    pd.testing.assert_frame_equal(read.drop(columns="error"), expected, check_exact=True)
    assert read["error"].tolist() == pytest.approx([np.nan] * 4, nan_ok=True)


def test_a_complete_study_is_read_without_its_data(ablation: AblationResult, copy: Path, runs: WatchedRuns) -> None:
    times = {path: path.stat().st_mtime_ns for path in copy.rglob("*/*") if path.is_file()}
    (copy / "table.csv").unlink()
    again = study(copy, data=None)
    assert runs.names == [] and (copy / "table.csv").exists()
    assert {path: path.stat().st_mtime_ns for path in times} == times
    pd.testing.assert_frame_equal(again.table, ablation.table, check_exact=True)
    pd.testing.assert_frame_equal(again.histories, ablation.histories, check_exact=True)


def test_a_stopped_study_goes_on_to_the_same_table(ablation: AblationResult, tmp_path: Path, runs: WatchedRuns) -> None:
    """It is stopped in the third run of four: seed by seed, so the first of seed 1."""
    runs.action = ("none-seed1", 3, ctrl_c)
    with pytest.raises(Interrupted, match=r"in none-seed1 after epoch 2 of 3; 2 of 4 runs are complete"):
        study(tmp_path)
    assert pd.read_csv(tmp_path / "table.csv")["frame_method"].tolist() == ["none", "max"]
    runs.names, runs.epochs, runs.action = [], [], ("", 0, ctrl_c)
    torch.manual_seed(99)
    same_results(study(tmp_path), ablation)
    assert runs.names == ["none-seed1 again", "max-seed1"]
    assert runs.epochs[0] == ("none-seed1", 3)


def test_a_failed_run_is_recorded_and_tried_again(
    ablation: AblationResult, tmp_path: Path, runs: WatchedRuns, capfd: pytest.CaptureFixture[str]
) -> None:
    runs.action = ("max-seed3", 2, not_finite)
    result = study(tmp_path)
    said = capfd.readouterr().err
    assert result.table["error"].tolist() == [None, None, "the loss is not finite", None]
    assert result.failures["seed"].tolist() == [3]
    assert "max-seed3: no result: the loss is not finite" in result.summary()
    assert re.search(r"max +1 ", result.summary())  # of one seed
    kept = ablation.table.index != 2
    assert result.table[MAE].dropna().tolist() == ablation.table.loc[kept, MAE].tolist()
    of_runs = set(zip(result.histories["frame_method"], result.histories["seed"], strict=True))
    assert of_runs == {("none", 3), ("none", 1), ("max", 1)}
    assert "run 4.0 of 4" in said and "Traceback" not in said
    assert "the loss is not finite" in pd.read_csv(tmp_path / "table.csv")["error"].tolist()
    runs.action = ("", 0, ctrl_c)
    same_results(study(tmp_path), ablation)


def test_errors_of_the_program_are_shown(tmp_path: Path, runs: WatchedRuns, capsys: pytest.CaptureFixture[str]) -> None:
    runs.action = ("max-seed0", 1, broken)
    result = study(tmp_path, frame_methods=["max"], seeds=[0])
    assert result.failures["error"].tolist() == ["ZeroDivisionError: of the program"]
    assert len(result.histories) == 0 and np.isnan(result.means[MAE].to_numpy(dtype=float)).all()
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_stops_the_study_not_the_run(ablation: AblationResult, tmp_path: Path, runs: WatchedRuns) -> None:
    runs.action = ("none-seed3", 1, full_disk)
    with refused(TrainingError, "cannot be written"):
        study(tmp_path)
    runs.action = ("", 0, ctrl_c)
    same_results(study(tmp_path), ablation)


def test_a_damaged_result_says_what_to_do(ablation: AblationResult, copy: Path, runs: WatchedRuns) -> None:
    damaged = copy / "none-seed3" / "result.json"
    damaged.write_text("{")
    (reason,) = study(copy).failures["error"]
    assert "delete result.json" in reason and runs.names == []
    damaged.unlink()
    same_results(study(copy), ablation)
    assert runs.names == ["none-seed3 again"]


def test_other_configs_and_data_are_refused(copy: Path, runs: WatchedRuns) -> None:
    longer = replace(CONFIG, training=replace(CONFIG.training, n_epochs=5))
    with refused(ConfigError, "training.n_epochs was 3, is 5"):
        study(copy, config=longer)
    for seeds in (SEEDS, (*SEEDS, 5)):
        with refused(TrainingError, "data", field="train"):
            study(copy, data=FEWER, seeds=seeds)
    assert runs.names == []


def test_two_processes_do_not_share_a_folder(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.0)
    with FileLock(copy / files.LOCK_FILE), refused(TrainingError, "another process", path=copy):
        study(copy)
    (copy / "max-seed1" / "result.json").unlink()
    with FileLock(copy / "max-seed1" / files.LOCK_FILE):
        (reason,) = study(copy).failures["error"]
    assert "max-seed1: another process is training in it" in reason


STUDIES: dict[str, Callable[..., Any]] = {
    "ablation": lambda config, output, **options: ablate(config, ["none"], [0], DATA, output, **options),
    "search": lambda config, output, **options: sweep(
        config, {"model.n_layers": Choice([1, 2])}, 1, DATA, output, **options
    ),
}


FOLDERS: dict[str, Callable[..., Any]] = {**STUDIES, "run": lambda config, output: fit(config, DATA, output)}


@pytest.mark.parametrize("first", FOLDERS)
@pytest.mark.parametrize("second", FOLDERS)
def test_a_folder_holds_one_kind_of_thing(first: str, second: str, tmp_path: Path) -> None:
    """A run, an ablation or a search: another kind is refused, and changes nothing."""
    if first == second:
        return
    FOLDERS[first](CONFIG, tmp_path / "runs")
    before = sorted(tmp_path.rglob("*"))
    with refused(TrainingError, "choose another folder", path=tmp_path / "runs"):
        FOLDERS[second](CONFIG, tmp_path / "runs")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", STUDIES)
def test_counts_that_cannot_be(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for field, training, n_workers in (
        ("n_workers", {}, 0),
        ("training.n_devices", {"n_devices": 2}, 2),
        ("training.n_nodes", {"n_nodes": 2}, 1),
    ):
        with refused(ConfigError, field=field):
            config = replace(CONFIG, training=replace(CONFIG.training, **training))
            STUDIES[kind](config, tmp_path / "runs", n_workers=n_workers)
    for name, value in (("TORCHELASTIC_RUN_ID", "1"), ("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with refused(ConfigError, "without torchrun or srun"):
        STUDIES[kind](CONFIG, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# Several processes


def test_several_processes_give_the_same_table_though_one_is_killed(
    ablation: AblationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is killed when it waits for an answer, after an epoch."""
    killed: list[Child] = []
    send = Child.send

    def send_or_kill(self: Child, content: object) -> None:
        if isinstance(content, bool) and not killed:
            killed.append(self)
            self.process.kill()
        send(self, content)

    monkeypatch.setattr(Child, "send", send_or_kill)
    same_results(study(tmp_path, n_workers=2), ablation)
    assert killed
    said = capfd.readouterr().err
    assert "training none-seed3, max-seed3" in said and re.search(r"ablation 100%.*run 4.0 of 4", said)


def test_ctrl_c_ends_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "next_message", lambda inbox: ctrl_c())
    said = "in none-seed3 after epoch 0 of 3, max-seed3 after epoch 0 of 3; 0 of 4 runs are complete"
    with pytest.raises(Interrupted, match=said):
        study(tmp_path, n_workers=2)


# What the user sees


def test_one_bar_over_all_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study(tmp_path, seeds=[3])
    out, err = capfd.readouterr()
    assert out == "" and "\x1b" not in err
    bars = [line for line in err.splitlines() if line.startswith("ablation ")]
    assert re.search(r"run 0.0 of 2 \[00:00<\?, training none-seed3\]", err)
    best = r"best loss [\d.]+ \(none-seed3\)"
    assert re.search(rf"ablation +50%.*run 1.0 of 2 \[\d\d:\d\d<\d\d:\d\d, {best}; training max-seed3\]", err)
    assert re.search(r"ablation 100%.*run 2.0 of 2 \[\d\d:\d\d<00:00", bars[-1])
    expected = ("ablation ", "training ", "no prediction intervals: ")
    assert [line for line in err.splitlines() if not line.startswith(expected)] == []
