"""Comparing frame methods: one table from many runs, however often the work was stopped or failed in between."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from watched_runs import acting, ctrl_c, full_disk, noted

from crystalframer import checkpoint
from crystalframer.config import DataConfig
from crystalframer.datasets.dataset import Splits
from crystalframer.datasets.sources import dataset
from crystalframer.errors import ConfigError, TrainingError
from crystalframer.presets import preset
from crystalframer.studies import AblationResult, ablate, jobs, workers
from crystalframer.training import Interrupted, fit

TINY = preset("tiny").config
CONFIG = replace(TINY, training=replace(TINY.training, n_epochs=3, batch_size=16, accelerator="cpu"))
METHODS = ("none", "max")
SEEDS = (3, 1)
TIMES = ["training_seconds", "seconds", "ms_per_step"]
MAE = "mae/formation_energy_per_atom"


def few_crystals() -> Splits:
    splits = dataset("demo").split(DataConfig(max_atoms_per_crystal=4), seed=0)
    small = np.flatnonzero(splits.test.n_atoms <= 4)
    return Splits(splits.train.select(range(40)), splits.validation.select(range(6)), splits.test.select(small[:6]))


DATA = few_crystals()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> AblationResult:
    return ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path_factory.mktemp("ablation") / "runs")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that are trained while the test runs."""
    return noted(monkeypatch)


@pytest.fixture
def in_epoch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`in_epoch(n, "max-seed1", action)`: have the action in the n-th epoch of a run."""
    return acting(monkeypatch)


def same_results(one: AblationResult, other: AblationResult) -> None:
    """But for the time that they took."""
    pd.testing.assert_frame_equal(
        one.table.drop(columns=TIMES[1:]), other.table.drop(columns=TIMES[1:]), check_exact=True
    )
    pd.testing.assert_frame_equal(
        one.histories.drop(columns=TIMES[:2]), other.histories.drop(columns=TIMES[:2]), check_exact=True
    )


def files_of(result: AblationResult) -> dict[Path, int]:
    """When the files of the runs were written."""
    return {path: path.stat().st_mtime_ns for path in result.output.rglob("*/*") if path.is_file()}


# The table


def test_a_row_is_what_fit_finds_for_this_method_and_seed(uninterrupted: AblationResult, tmp_path: Path) -> None:
    model = replace(CONFIG.model, frame=replace(CONFIG.model.frame, method="max"))
    alone = fit(replace(CONFIG, model=model, training=replace(CONFIG.training, seed=1)), DATA, tmp_path / "alone")
    (row,) = uninterrupted.table.query("frame_method == 'max' and seed == 1").to_dict("records")
    score = alone.scores[alone.chosen]
    assert row["chosen"] == alone.chosen
    assert row[f"validation_{MAE}"] == score.validation_mae["formation_energy_per_atom"]
    assert row[f"test_{MAE}"] == score.test_mae["formation_energy_per_atom"]
    losses = alone.history["validation_loss"].tolist()
    assert row["best_epoch"] == 1 + losses.index(min(losses))
    assert row["n_parameters"] == sum(p.numel() for p in alone.model.parameters())
    history = uninterrupted.histories.query("frame_method == 'max' and seed == 1").reset_index(drop=True)
    assert history["validation_loss"].tolist() == losses
    assert row["seconds"] == pytest.approx(history["seconds"].sum())
    steps_an_epoch = history["step"][0]
    milliseconds = 1000 * history["training_seconds"].to_numpy()[1:] / steps_an_epoch
    assert row["ms_per_step"] == pytest.approx(np.median(milliseconds))
    assert row["error"] is None


def test_rows_are_in_the_order_that_was_asked_for(uninterrupted: AblationResult) -> None:
    named = uninterrupted.table[["frame_method", "seed"]].apply(tuple, axis=1).tolist()
    assert named == [("none", 3), ("none", 1), ("max", 3), ("max", 1)]
    assert uninterrupted.table.attrs["units"] == {"formation_energy_per_atom": "eV/atom"}
    by_run = uninterrupted.histories.groupby(["frame_method", "seed"], sort=False)["epoch"].apply(list)
    assert by_run.index.tolist() == named and by_run.tolist() == [[1, 2, 3]] * 4


def test_means_are_over_the_seeds(uninterrupted: AblationResult) -> None:
    means = uninterrupted.means
    assert means.index.tolist() == list(METHODS)
    for method in METHODS:
        values = uninterrupted.table.loc[uninterrupted.table["frame_method"] == method, f"test_{MAE}"].to_numpy()
        assert means.loc[method, (f"test_{MAE}", "mean")] == pytest.approx(values.mean(), rel=1e-12)
        assert means.loc[method, (f"test_{MAE}", "std")] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        written = f"{values.mean():.4g}".ljust(5, "0")
        assert re.search(rf"{method} +2 .*{written}", uninterrupted.summary())
    assert "test MAE (eV/atom)" in uninterrupted.summary()
    assert means.loc["max", ("n_parameters", "mean")] > means.loc["none", ("n_parameters", "mean")]


def test_the_table_is_on_the_disk(uninterrupted: AblationResult) -> None:
    read = pd.read_csv(uninterrupted.output / "table.csv", engine="pyarrow")
    expected = uninterrupted.table.drop(columns="error")
    pd.testing.assert_frame_equal(read.drop(columns="error"), expected, check_exact=True)
    assert read["error"].tolist() == pytest.approx([np.nan] * 4, nan_ok=True)


def test_without_a_test_part(tmp_path: Path) -> None:
    config = replace(CONFIG, training=replace(CONFIG.training, n_epochs=1, swa_epochs=0))
    result = ablate(config, ["none"], [0], replace(DATA, test=DATA.test.select([])), tmp_path)
    assert np.isnan(result.table[f"test_{MAE}"].to_numpy()).all()
    assert re.search("none +1 .* none ", result.summary())


def test_all_runs_share_a_random_split(tmp_path: Path) -> None:
    training = replace(CONFIG.training, n_epochs=1, swa_epochs=0, seed=9)
    config = replace(CONFIG, training=training, data=replace(CONFIG.data, split="random"))
    ablate(config, ["none"], [0, 1], DATA.train, tmp_path)
    expected = DATA.train.split(config.data, 9)
    one, other = ((tmp_path / f"none-seed{seed}" / "data.json").read_text() for seed in (0, 1))
    assert one == other and f'"crystals": {len(expected.test)}' in one


# Going on


def test_finished_runs_are_not_trained_again(uninterrupted: AblationResult, trained: list[str]) -> None:
    before = files_of(uninterrupted)
    again = ablate(CONFIG, METHODS, SEEDS, None, uninterrupted.output)  # nor are the data needed
    assert trained == [] and files_of(again) == before
    pd.testing.assert_frame_equal(again.table, uninterrupted.table, check_exact=True)
    pd.testing.assert_frame_equal(again.histories, uninterrupted.histories, check_exact=True)


def test_a_stopped_ablation_goes_on_to_the_same_table(
    uninterrupted: AblationResult, tmp_path: Path, in_epoch: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the third run of four: seed by seed, so the first of seed 1."""
    in_epoch(3, "none-seed1", ctrl_c)
    said = r"stopped in none-seed1 after epoch 2 of 3; 2 of 4 runs are complete. The same command"
    with pytest.raises(Interrupted, match=said):
        ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path)
    assert pd.read_csv(tmp_path / "table.csv")["frame_method"].tolist() == ["none", "max"]
    names: list[str] = []
    monkeypatch.setattr(jobs, "fit", lambda *a, **k: (names.append(f"{a[2].name} {a[3]}"), fit(*a, **k))[1])
    torch.manual_seed(99)
    result = ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path)
    assert names == ["none-seed1 True", "max-seed1 False"]
    same_results(result, uninterrupted)


def test_seeds_and_methods_can_be_added(uninterrupted: AblationResult, tmp_path: Path, trained: list[str]) -> None:
    ablate(CONFIG, ["none"], [1], DATA, tmp_path)
    ablate(CONFIG, ["max"], [3], DATA, tmp_path)
    result = ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path)
    assert trained == ["none-seed1", "max-seed3", "none-seed3", "max-seed1"]
    same_results(result, uninterrupted)


def test_runs_of_another_config_or_on_other_data_are_refused(uninterrupted: AblationResult, trained: list[str]) -> None:
    other = replace(CONFIG, training=replace(CONFIG.training, n_epochs=5))
    with pytest.raises(ConfigError, match=r"training\.n_epochs was 3, is 5"):
        ablate(other, METHODS, SEEDS, DATA, uninterrupted.output)
    fewer = replace(DATA, train=DATA.train.select(range(32)))
    with pytest.raises(TrainingError, match=r"the data changed .*part: train"):
        ablate(CONFIG, METHODS, [*SEEDS, 5], fewer, uninterrupted.output)
    assert trained == []


@pytest.mark.parametrize(
    ("methods", "seeds", "message"),
    [
        (["maxx"], [0], "did you mean 'max'"),
        (["max", "max"], [0], r"frame_methods = \['max', 'max'\]: .*none twice"),
        (["max"], [], r"seeds = \[\]: name at least one"),
    ],
)
def test_what_cannot_be_compared(
    methods: list, seeds: list, message: str, tmp_path: Path, as_in_production: None
) -> None:
    with pytest.raises(ConfigError, match=message):
        ablate(CONFIG, methods, seeds, DATA, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# Several processes


def test_several_processes_give_the_same_table_though_one_is_killed(
    uninterrupted: AblationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    killed: list[str] = []
    tell = workers.Worker.tell

    def tell_or_kill(self: workers.Worker, content: dict) -> None:
        if "stop" in content and not killed and self.job is not None:
            killed.append(self.job.folder.path.name)
            os.kill(self._process.pid, signal.SIGKILL)
        tell(self, content)

    monkeypatch.setattr(workers.Worker, "tell", tell_or_kill)
    result = ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path, n_workers=2)
    assert len(killed) == 1
    same_results(result, uninterrupted)
    said = capfd.readouterr().err
    assert "run 2 of 4: none-seed3, max-seed3" in said and re.search(r"ablation 100%.*epoch 12 of 12", said)


def test_ctrl_c_ends_all_processes(
    uninterrupted: AblationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as stopping:
        stopping.setattr(workers.Workers, "next_message", lambda self: ctrl_c())
        said = "stopped in none-seed3 after epoch 0 of 3, max-seed3 after epoch 0 of 3; 0 of 4 runs are complete"
        with pytest.raises(Interrupted, match=said):
            ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path, n_workers=2)
    same_results(ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path), uninterrupted)


def test_a_full_disk_stops_the_ablation_not_the_run(
    uninterrupted: AblationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without_space:
        without_space.setattr(jobs, "fit", full_disk)
        with pytest.raises(TrainingError, match="cannot be written"):
            ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path)
    same_results(ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path), uninterrupted)


def test_what_several_processes_cannot_do(tmp_path: Path) -> None:
    on_two = replace(CONFIG, training=replace(CONFIG.training, n_devices=2))
    with pytest.raises(ConfigError, match="choose between several runs at a time and several devices for each"):
        ablate(on_two, METHODS, SEEDS, DATA, tmp_path, n_workers=2)
    with pytest.raises(ConfigError, match="n_workers = 0: must be above 0"):
        ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path, n_workers=0)


# Failing


def test_a_failing_run_is_recorded_and_does_not_stop_the_others(
    uninterrupted: AblationResult, tmp_path: Path, in_epoch: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise TrainingError("the loss is not finite")

    in_epoch(2, "max-seed3", fail)
    result = ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path)
    said = capfd.readouterr().err
    assert result.table["error"].tolist() == [None, None, "the loss is not finite", None]
    assert result.failures["seed"].tolist() == [3]
    assert "max, seed 3, has no result: the loss is not finite" in result.summary()
    assert re.search(r"max +1 ", result.summary())  # of one seed
    others = uninterrupted.table["seed"].eq(1) | uninterrupted.table["frame_method"].eq("none")
    expected = uninterrupted.table.loc[others, f"test_{MAE}"].tolist()
    assert result.table[f"test_{MAE}"].dropna().tolist() == expected
    assert set(zip(result.histories["frame_method"], result.histories["seed"], strict=True)) == {
        ("none", 3),
        ("none", 1),
        ("max", 1),
    }
    assert "epoch 10 of 10" in said and "Traceback" not in said  # two of the twelve epochs are not to come
    assert "the loss is not finite" in pd.read_csv(tmp_path / "table.csv")["error"].tolist()


def test_a_failed_run_is_tried_again(
    uninterrupted: AblationResult, tmp_path: Path, in_epoch: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("of the program")

    in_epoch(2, "max-seed3", fail)
    result = ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path)
    assert result.failures["error"].tolist() == ["ZeroDivisionError: of the program"]
    monkeypatch.setattr(jobs, "fit", fit)
    same_results(ablate(CONFIG, METHODS, SEEDS, DATA, tmp_path), uninterrupted)


def test_nothing_but_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise checkpoint.CheckpointError("disk full")

    monkeypatch.setattr(jobs, "fit", fail)
    result = ablate(CONFIG, METHODS, [0], DATA, tmp_path)
    assert result.table["error"].tolist() == ["disk full"] * 2
    assert len(result.histories) == 0 and np.isnan(result.means[f"test_{MAE}"].to_numpy(dtype=float)).all()
    assert "max, seed 0, has no result: disk full" in result.summary()


def test_a_damaged_result_says_what_to_do(tmp_path: Path, trained: list[str]) -> None:
    ablate(CONFIG, ["none"], [0], DATA, tmp_path)
    result_file = tmp_path / "none-seed0" / "result.json"
    result_file.write_text("{")
    (reason,) = ablate(CONFIG, ["none"], [0], DATA, tmp_path).failures["error"]
    assert "delete result.json" in reason
    result_file.unlink()
    assert len(ablate(CONFIG, ["none"], [0], DATA, tmp_path).failures) == 0
    assert trained == ["none-seed0", "none-seed0 again"]


# What the user sees


def test_one_bar_over_all_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ablate(CONFIG, METHODS, [3], DATA, tmp_path)
    out, err = capfd.readouterr()
    assert out == "" and "\x1b" not in err
    bars = [line for line in err.splitlines() if line.startswith("ablation ")]
    assert re.search(r"epoch 0 of 6 \[00:00<\?, run 1 of 2: none-seed3\]", err)
    assert re.search(r"ablation +50%.*epoch 3 of 6 \[\d\d:\d\d<\d\d:\d\d, run 2 of 2: max-seed3\]", err)
    assert re.search(r"ablation 100%.*epoch 6 of 6 \[\d\d:\d\d<00:00", bars[-1])
    assert [line for line in err.splitlines() if not line.startswith(("ablation ", "training "))] == []
