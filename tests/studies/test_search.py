"""Searches of hyperparameters: what Optuna suggests, and the journal (what they share with ablations: test_study)."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from refusals import refused
from watched_runs import CONFIG, DATA, FEWER, ONE_EPOCH, WatchedRuns, assert_is_a_fit, ctrl_c, not_finite

from crystalframer.checkpoint import load
from crystalframer.cli import main
from crystalframer.config import Config
from crystalframer.errors import ConfigError, TrainingError
from crystalframer.prediction import load as load_run
from crystalframer.studies import Choice, Range, SweepResult, journal, space_from_words, sweep
from crystalframer.studies.space import checked_space, with_values
from crystalframer.training import Interrupted

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'crystalframer[optuna]'")
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "training.learning_rate": Range(1e-4, 1e-2, log=True),
    "model.n_layers": Range(1, 2),
    "model.frame.method": Choice(["max", "none"]),
}
N_TRIALS = 3


def search(output: Path, n_trials: int = N_TRIALS, space: Any = SPACE, config: Config = CONFIG, **options: Any):
    return sweep(config, space, n_trials, DATA, output, **options)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    return search(tmp_path_factory.mktemp("sweep") / "runs")


@pytest.fixture
def copy(uninterrupted: SweepResult, tmp_path: Path) -> Path:
    """The folder of a complete search."""
    return Path(shutil.copytree(uninterrupted.output, tmp_path / "copy"))


def same_tables(one: SweepResult, other: SweepResult) -> None:
    """The same to the last bit, except for the time."""
    found, expected = (result.table.drop(columns="seconds") for result in (one, other))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def history(output: Path, number: int) -> pd.DataFrame:
    return pd.read_csv(output / f"trial-{number:04d}" / "metrics.csv", engine="pyarrow")


# The table


def test_a_row_is_what_fit_finds_with_these_values(uninterrupted: SweepResult, tmp_path: Path) -> None:
    assert uninterrupted.table["trial"].tolist() == [0, 1, 2]
    assert uninterrupted.table["state"].tolist() == ["complete"] * 3
    row = uninterrupted.table.to_dict("records")[1]
    config = with_values(CONFIG, {name: row[name] for name in SPACE})
    assert config != CONFIG and config.model.frame.method == row["model.frame.method"]
    alone = assert_is_a_fit(row, config, tmp_path / "alone")
    assert (row["validation_loss"], row["n_epochs"]) == (alone.scores[alone.chosen].validation_loss, 3)
    assert row["seconds"] == pytest.approx(history(uninterrupted.output, 1)["seconds"].sum())


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


# Going on


def test_more_trials_are_added(uninterrupted: SweepResult, copy: Path, runs: WatchedRuns) -> None:
    more = search(copy, n_trials=4)
    assert runs.names == ["trial-0003"]
    pd.testing.assert_frame_equal(more.table.head(3), uninterrupted.table, check_exact=True)
    assert len(set(more.table["training.learning_rate"])) == 4
    assert len(search(copy, n_trials=2).table) == 4


def test_ctrl_c_goes_on_to_the_same_table(uninterrupted: SweepResult, tmp_path: Path, runs: WatchedRuns) -> None:
    runs.action = ("trial-0001", 3, ctrl_c)
    with pytest.raises(Interrupted, match=r"in trial-0001 after epoch 2 of 3; 1 of 3 runs are complete"):
        search(tmp_path)
    assert len(pd.read_csv(tmp_path / "table.csv")) == 1
    runs.epochs, runs.action = [], ("", 0, ctrl_c)
    same_tables(search(tmp_path), uninterrupted)
    assert runs.epochs[:2] == [("trial-0001", 3), ("trial-0002", 1)]


def test_a_kill_between_any_two_lines_of_the_journal(uninterrupted: SweepResult, copy: Path, runs: WatchedRuns) -> None:
    """Runs are complete that the journal does not know of yet, and its last line is half there."""
    journal = copy / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + N_TRIALS * (1 + 3 + 1)  # the study; a trial, its epochs, its end
    for n_left in range(len(lines)):
        journal.write_bytes(b"".join(lines[:n_left]) + lines[n_left][: len(lines[n_left]) // 2])
        (copy / "journal.log.lock").touch()  # and it had the lock
        (copy / "table.csv").unlink()
        same_tables(search(copy), uninterrupted)
    assert runs.names == []


def test_another_search_is_refused_by_what_differs(copy: Path, runs: WatchedRuns) -> None:
    n_layers, fewer = SPACE["model.n_layers"], {name: SPACE[name] for name in SPACE if name != "model.n_layers"}
    more = Range(1, 3)
    with refused(ConfigError, f"model.n_layers was {n_layers}, is {more}", path=copy):
        search(copy, space={**SPACE, "model.n_layers": more})
    with refused(ConfigError, f"model.n_layers was {n_layers}, is not searched", path=copy):
        search(copy, space=fewer)
    with refused(ConfigError, "seed was 0, is 1", path=copy):
        search(copy, seed=1)
    with refused(ConfigError, "training.n_epochs was 3, is 1", path=copy):
        search(copy, config=ONE_EPOCH)
    with refused(TrainingError, "data", path=copy):
        sweep(CONFIG, SPACE, N_TRIALS, FEWER, copy)
    assert runs.names == []


def test_the_file_of_the_space_is_that_of_0_1(copy: Path) -> None:
    """Searches that 0.1 began go on."""
    space = {
        "training.learning_rate": {"low": 0.0001, "high": 0.01, "log": True, "step": None},
        "model.n_layers": {"low": 1, "high": 2, "log": False, "step": None},
        "model.frame.method": {"values": ["max", "none"]},
    }
    assert json.loads((copy / "space.json").read_text()) == {"seed": 0, "space": space}


def test_a_damaged_or_foreign_journal(copy: Path, tmp_path: Path) -> None:
    lines = (copy / "journal.log").read_bytes().splitlines(keepends=True)
    (copy / "journal.log").write_bytes(b"".join([lines[0], b"???\n", *lines[1:]]))
    with refused(TrainingError, path="journal.log"):
        search(copy)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "journal.log").write_bytes(lines[0])
    with refused(TrainingError, "another search", path=tmp_path / "other"):
        search(tmp_path / "other")


# Trials that fail


def test_combinations_that_are_refused_fail_alone(tmp_path: Path) -> None:
    space = {"model.n_heads": Choice([2, 3]), "model.d_model": Choice([16, 24])}
    result = search(tmp_path, 6, space, ONE_EPOCH, seed=2)
    pairs = zip(result.table["model.n_heads"].tolist(), result.table["model.d_model"].tolist(), strict=True)
    refusals = [pair == (3, 16) for pair in pairs]
    assert 0 < sum(refusals) < 6
    assert result.table["state"].tolist() == ["failed" if one else "complete" for one in refusals]
    assert all("must be a multiple of model.n_heads = 3" in error for error in result.failures["error"])
    assert np.isnan(result.failures["validation_loss"].to_numpy()).all()
    assert f"{sum(refusals)} failed" in result.summary() and "must be a multiple of" in result.summary()


def test_a_failed_trial_counts_and_stays(tmp_path: Path, runs: WatchedRuns) -> None:
    runs.action = ("trial-0000", 1, not_finite)
    result = search(tmp_path, 1)
    assert result.summary().splitlines() == ["1 trials: 1 failed", "trial-0000: no result: the loss is not finite"]
    with refused(TrainingError, "no trial is complete", path=tmp_path):
        _ = result.best_folder
    more = search(tmp_path, 2)
    assert more.table["state"].tolist() == ["failed", "complete"]
    assert more.table["error"].tolist() == ["the loss is not finite", None]
    assert runs.names == ["trial-0000", "trial-0001"]


# Stopping early


def test_trials_worse_than_the_median_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: WatchedRuns
) -> None:
    monkeypatch.setattr(journal, "TRIALS_BEFORE_PRUNING", 1)
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

    n_before = len(runs.names)
    same_tables(search(tmp_path / "runs", 5, space, longer), result)
    assert len(runs.names) == n_before  # those that were stopped stay so
    kept = search(tmp_path / "kept", 2, space, longer, prune=False)
    assert kept.table["n_epochs"].tolist() == [5, 5]


# What may be searched


@pytest.mark.parametrize(
    ("field", "offered", "word"),
    [
        ("training.learning_rat", Range(0.1, 1), "did you mean 'training.learning_rate'"),
        ("learning_rate", Range(0.1, 1), "training.learning_rate"),
        ("model.frame", Choice(["max", "none"]), "no such setting"),
        ("data.split", Choice(["random", "group"]), "same data"),
        ("training.n_threads", Range(1, 2), "where a trial computes"),
        ("model.frame.method", Range(1, 2), "use a choice"),
        ("model.n_layers", Range(1.5, 2), "1.5"),
        ("model.n_layers", Range(3, 1), "low"),
        ("model.n_layers", Range(1, 4, step=2), "divisible"),
        ("training.learning_rate", Range(0, 1, log=True), "low"),
        ("training.learning_rate", Range(0.1, float("inf")), "finite"),
        ("training.learning_rate", [0.1, 0.2], "cf.Choice"),
        ("model.n_layers", Range(0, 2), "n_layers = 0"),
        ("training.eps", Choice(["a", 1e-8]), "must be a number"),
        ("model.frame.method", Choice(["max", "mix"]), "did you mean 'max'"),
        ("model.n_heads", Choice([2, 3]), "must be a multiple"),
    ],
)
def test_a_space_that_cannot_be_searched(field: str, offered: Any, word: str, as_in_production: None) -> None:
    with refused(ConfigError, word, field=field):
        checked_space(CONFIG, {field: offered})


def test_values_are_tried_with_those_of_their_section() -> None:
    with refused(ConfigError, field="model.n_heads"):
        checked_space(CONFIG, {"model.n_heads": Choice([2, 3]), "model.d_model": Choice([16, 32])})
    many = {f"model.{name}": Range(16, 76) for name in ("d_feedforward", "d_readout", "n_layers")}
    for space in (
        {"model.n_heads": Choice([2, 3]), "model.d_model": Range(16, 48, step=8)},
        {**many, "model.n_heads": Choice([2, 3]), "model.d_model": Choice([16, 24])},
        {"training.betas": Choice([(0.9, 0.98), [0.9, 0.999]]), "training.max_atoms": Range(100, 200)},
    ):
        assert checked_space(CONFIG, space) == space
    with refused(ConfigError, "empty"):
        checked_space(CONFIG, {})
    for values in (["max"], ["max", "max"], "max"):
        with refused(ConfigError, "at least two", field="Choice.values"):
            Choice(values)


def test_distributions_of_optuna_are_ranges_and_choices(tmp_path: Path) -> None:
    """By two processes; the same search goes on with the words of this package."""
    space = {
        "training.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "model.n_layers": IntDistribution(1, 2),
        "model.frame.method": CategoricalDistribution(["max", "none"]),
    }
    assert checked_space(CONFIG, space) == SPACE
    result = search(tmp_path, 2, space, ONE_EPOCH, n_workers=2)
    assert result.table["state"].tolist() == ["complete"] * 2
    same_tables(search(tmp_path, 2, SPACE, ONE_EPOCH), result)


def test_lists_and_none_are_choices(tmp_path: Path) -> None:
    space = {"training.betas": Choice([(0.9, 0.98), (0.8, 0.9)]), "training.max_atoms": Choice([None, 64])}
    result = search(tmp_path, 2, space, ONE_EPOCH)
    assert set(result.table["training.betas"]) <= {(0.9, 0.98), (0.8, 0.9)}
    best = result.best_config.training
    assert (best.betas, best.max_atoms) == (result.best["training.betas"], result.best["training.max_atoms"])
    same_tables(search(tmp_path, 2, space, ONE_EPOCH), result)


def test_without_trials_or_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(ConfigError, field="n_trials"):
        search(tmp_path, 0)
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
    ("word", "named"),
    [
        ("training.learning-rate", "expected FIELD=LOW:HIGH"),
        ("training.learning-rte=1:2", "did you mean 'training.learning_rate'"),
        ("training.learning-rate=1:x", "'x'"),
        ("model.n-layers=1:2:3:4", "LOW:HIGH:STEP"),
        ("model.n-layers=1,two", "'two'"),
        ("training.drop-last=yes,no", "'yes'"),
        ("training.betas=1,2", "training.betas"),
    ],
)
def test_words_that_mean_nothing(word: str, named: str) -> None:
    with refused(ConfigError, named):
        space_from_words([word])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "--preset", "tiny", "--training.n-epochs", "1", "--output", str(tmp_path / "runs")]
    words += ["--data.max-atoms-per-crystal", "3", "--training.accelerator", "cpu", "--n-trials", "2"]
    assert main(words) == 2
    assert "--search" in capsys.readouterr().err
    words += ["--search", "training.learning-rate=1e-4:2e-3:log", "model.n-layers=1,2"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "2 trials: 2 complete" in said and "sweep.html" in said
    (best,) = re.findall(r"best model +(\S+)", said)
    assert load(Path(best) / "checkpoints" / "best").config.n_layers in (1, 2)
    assert "plotly" in (tmp_path / "runs" / "sweep.html").read_text(encoding="utf-8")
    assert main(words) == 0  # reads what is there
    assert capsys.readouterr().out == said
