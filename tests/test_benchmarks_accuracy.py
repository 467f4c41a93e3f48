"""The accuracy benchmark: budgets and schedules, what is trained on, what is kept, how results are put together."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas
import pytest
import torch
from torch import Tensor, nn

from benchmarks.accuracy import budget, command, environment, paired, peer, problems, summary
from benchmarks.accuracy.environment import InstallError, PeerEnvironment
from benchmarks.accuracy.figure import draw_learning_curve
from benchmarks.accuracy.jobs import Finished, Job, JobFolder, Outcome
from benchmarks.accuracy.ours import config_of
from benchmarks.accuracy.recipes import RECIPES, Recipe
from benchmarks.accuracy.runner import Planned, place, same
from crystalframer.config import Target
from crystalframer.datasets.dataset import PARTS

# --- budgets and schedules --------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Wall and processor time that stand still until a test moves them."""
    times = SimpleNamespace(wall=100.0, cpu=7.0)
    monkeypatch.setattr(budget.time, "monotonic", lambda: times.wall)
    monkeypatch.setattr(budget.time, "process_time", lambda: times.cpu)
    return times


def test_a_budget_is_of_the_wall_or_of_processors(clock: SimpleNamespace) -> None:
    wall, cpu = budget.Clock(60.0), budget.Clock(60.0, "cpu")
    clock.wall, clock.cpu = 110.0, 10.0
    assert (wall.elapsed, wall.left) == (10.0, 50.0)
    assert (cpu.elapsed, cpu.left) == pytest.approx((3.0, 57.0))
    assert (wall.wall_seconds, wall.cpu_seconds) == pytest.approx((cpu.wall_seconds, cpu.cpu_seconds))


@pytest.mark.parametrize(
    ("done", "left", "seconds", "expected"),
    [
        (1, 99.0, [10.0], 10),  # nine more fit, the tenth does not
        (4, 100.0, [50.0, 10.0, 20.0, 10.0], 14),  # the first, in which kernels are compiled, no longer counts
        (3, 5.0, [10.0, 10.0, 10.0], 3),
        (3, -5.0, [10.0, 10.0, 10.0], 3),
    ],
)
def test_as_many_epochs_as_fit(done: int, left: float, seconds: list[float], expected: int) -> None:
    assert budget.epochs_in_all(done, left, seconds) == expected


@pytest.mark.parametrize("name", budget.SCHEDULES)
def test_every_schedule_reaches_its_full_rate_and_ends_low(name: str) -> None:
    rates = [budget.SCHEDULES[name](progress) for progress in np.linspace(0.0, 1.0, 101)]
    assert max(rates) == pytest.approx(1.0) and min(rates) > 0
    assert rates[-1] <= 0.1 and rates[-1] == min(rates)
    peak = int(np.argmax(rates))
    assert all(before >= after - 1e-12 for before, after in itertools.pairwise(rates[peak:]))


def test_schedules_by_hand() -> None:
    assert budget.cosine(0.5) == pytest.approx(0.505)
    assert [budget.step(p) for p in (0.0, 0.79, 0.8)] == [1.0, 1.0, 0.1]
    assert [budget.one_cycle(p) for p in (0.0, 0.3, 1.0)] == pytest.approx([1 / 25, 1.0, 4e-6])


# --- what is trained and scored on ------------------------------------------------------------------------------------


def ids(problem: problems.Problem) -> dict[str, list[str]]:
    return {part: getattr(problem.parts, part).ids.tolist() for part in PARTS}


def test_a_learning_curve_adds_crystals_and_scores_the_same() -> None:
    small, large, whole = map(ids, problems.problems("demo", [100, 20, 10**6]))
    assert [len(part["train"]) for part in (small, large)] == [20, 100]
    assert whole["train"][:100] == large["train"] and large["train"][:20] == small["train"]
    assert small["test"] == large["test"] == whole["test"]
    for parts in (small, large, whole):
        assert not set(parts["train"]) & set(parts["validation"])
        assert not (set(parts["train"]) | set(parts["validation"])) & set(parts["test"])
        share = len(whole["validation"]) / len(whole["train"])
        assert abs(len(parts["validation"]) - share * len(parts["train"])) <= 0.5


def test_workers_read_the_crystals_that_were_written(tmp_path: Path) -> None:
    (problem,) = problems.problems("demo", quick=True)
    problem.save(tmp_path / "deep" / "data.npz")
    again = problems.Problem(
        "x", "x", problem.target, problems.read_splits(tmp_path / "deep" / "data.npz", problem.target)
    )
    assert again.digest == problem.digest
    first, same_one = problem.parts.train[0], again.parts.train[0]
    np.testing.assert_array_equal(first.positions, same_one.positions)
    assert first.targets == same_one.targets
    other = dataclasses.replace(problem, parts=dataclasses.replace(problem.parts, test=problem.parts.validation))
    assert other.digest != problem.digest


@pytest.mark.skipif(not problems.SHARED.exists(), reason="the Materials Project crystals are not at ../shared/data")
def test_each_crystal_is_scored_in_one_fold() -> None:
    folds = [ids(fold) for fold in problems.problems("phonons")]
    assert len(folds) == 5
    scored = [id for fold in folds for id in fold["test"]]
    assert len(scored) == len(set(scored)) == 1265
    for fold in folds:
        assert sum(map(len, fold.values())) == 1265 and len(set(itertools.chain(*fold.values()))) == 1265


@pytest.mark.skipif(not problems.SHARED.exists(), reason="the Materials Project crystals are not at ../shared/data")
def test_the_epoch_is_not_chosen_by_the_crystals_that_are_scored() -> None:
    (whole,) = map(ids, problems.problems("binaries"))
    assert [len(whole[part]) for part in PARTS] == [7326, 814, 1034]
    assert len(set(itertools.chain(*whole.values()))) == 7326 + 814 + 1034


def test_absent_data_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(problems, "SHARED", tmp_path)
    with pytest.raises(SystemExit, match=r"binaries_train.parquet is not at \.\./shared/data .* --data demo"):
        command.main(["--models", "tiny"])


# --- ours -------------------------------------------------------------------------------------------------------------


def test_our_schedule_ends_with_the_budget_and_the_rest_is_the_preset() -> None:
    target = Target("last_phdos_peak_cm1", "1/cm")
    config = config_of("lightweight", target, 1000, seed=4, minutes=1.0, n_threads=1)
    assert config.model == dataclasses.replace(command.PRESETS["lightweight"].config.model, targets=(target,))
    assert config.training.schedule == "warmup-stable-decay" and config.training.swa_epochs == 0
    assert (config.training.seed, config.training.n_threads, config.training.n_epochs) == (4, 1, 10)


def test_a_preset_with_such_a_schedule_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = command.PRESETS["tiny"]
    training = dataclasses.replace(chosen.config.training, schedule="warmup-stable-decay", learning_rate=7e-4)
    tuned = dataclasses.replace(chosen, config=dataclasses.replace(chosen.config, training=training))
    monkeypatch.setitem(command.PRESETS, "tuned", tuned)  # type: ignore[arg-type]
    made = config_of("tuned", Target("x"), 100, 1, 1.0, 1).training
    assert (made.learning_rate, made.batch_size) == (7e-4, training.batch_size)
    fine_tuned = config_of("tuned", Target("x"), 100, 1, 1.0, 1, "package").training
    assert (fine_tuned.initial_weights, fine_tuned.learning_rate) == ("package", pytest.approx(0.25 * 7e-4))


# --- the command ------------------------------------------------------------------------------------------------------

QUICK = ["--quick", "--data", "demo", "--threads", "1", "--clock", "cpu"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A quick run of ours and of a peer that does not start."""
    folder = tmp_path_factory.mktemp("accuracy")
    options = [*QUICK, "--models", "tiny", "cgcnn", "--work", str(folder / "work"), "--output", str(folder / "a.json")]
    options += ["--peer-python", str(folder / "no-python")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "QUICK_MINUTES", 0.05)
        command.main(options)
    (done,) = (folder / "work").rglob("finished.json")
    text = (folder / "a.json").read_text(encoding="utf-8")
    return SimpleNamespace(folder=folder, options=options, record=json.loads(text), text=text, done=done)


def test_a_run_says_what_it_must(ran: SimpleNamespace) -> None:
    record = ran.record
    assert str(ran.folder) not in ran.text
    assert record["command"].startswith("python -m benchmarks.accuracy --quick --data demo")
    assert record["hardware"]["cpu"] and record["versions"]["torch"] and record["date"]
    (row,) = record["rows"]
    assert row["candidate"] == "tiny" and row["version"] and 0 < row["value"] < 3
    ours, failed = record["data"]["runs"]
    assert ours["minutes"] == 0.05 and ours["seed"] == 1 and ours["mae"] == row["value"]
    assert ours["wall_seconds"] > 0 and ours["cpu_seconds"] > 0 and len(ours["history"]) == ours["n_epochs"]
    assert "no-python does not start" in failed["error"]
    assert any(note.startswith("cgcnn on demo, seed 1 has no result") for note in record["notes"])


def test_the_epochs_follow_the_clock(ran: SimpleNamespace) -> None:
    (ours, _) = ran.record["data"]["runs"]
    assert ours["n_epochs"] >= 2
    assert ours["cpu_seconds"] < 1.5 * 60 * 0.05
    assert ours["holdout_mae"] == min(mae for _, _, mae in ours["history"])
    rates = pandas.read_csv(ran.done.parent / "run" / "metrics.csv")["learning_rate"].tolist()
    assert rates[-1] < 0.5 * max(rates)


def test_what_is_finished_is_not_run_again(ran: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    before = ran.done.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "QUICK_MINUTES", 0.05)
        command.main(ran.options)
    assert "2 jobs, 1 of them done before" in capsys.readouterr().err
    assert ran.done.read_bytes() == before


def test_a_job_counts_as_done_only_if_the_same_was_asked(ran: SimpleNamespace) -> None:
    folder = JobFolder(ran.done.parent)
    job = folder.read_job()
    (problem,) = problems.problems("demo", quick=True)
    assert Planned(job, problem, folder).finished() is not None
    assert Planned(dataclasses.replace(job, digest="other crystals"), problem, folder).finished() is None
    folder.finished.rename(folder.path / "kept")
    assert Planned(job, problem, folder).finished() is None
    (folder.path / "kept").rename(folder.finished)


def test_a_config_that_gained_a_field_is_the_same_job(ran: SimpleNamespace) -> None:
    job = JobFolder(ran.done.parent).read_job()
    older = json.loads(json.dumps(job.settings))
    del older["training"]["decay_fraction"]
    assert same(dataclasses.replace(job, settings=older), job, is_peer=False)
    older["training"]["learning_rate"] = 0.5
    assert not same(dataclasses.replace(job, settings=older), job, is_peer=False)
    older["training"] = {"a field of the past": 1}
    assert not same(dataclasses.replace(job, settings=older), job, is_peer=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "cgcn"], "--models cgcn: there is no such model; known: .*cgcnn"),
        (["--models", "cgcnn", "cgcnn"], "a model is named twice"),
        (["--minutes", "0"], "--minutes must be above 0"),
        (["--data", "phonons", "--curve"], "--curve needs --data binaries or demo"),
        (["--initial-weights", "x"], "some of which are among the binaries"),
    ],
)
def test_impossible_options_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parse(arguments)
    assert pandas.Series([capsys.readouterr().err]).str.contains(message).item()


def test_seeds_come_one_after_the_other_and_folds_share_the_minutes() -> None:
    options = command.parse(["--data", "demo", "--seeds", "2", "--models", "tiny", "cgcnn", "--minutes", "10"])
    (problem,) = problems.problems("demo", quick=True)
    plans = command.plan(options, [problem])
    assert [(p.job.model, p.job.seed, p.job.minutes) for p in plans] == [
        ("tiny", 1, 10.0), ("cgcnn", 1, 10.0), ("tiny", 2, 10.0), ("cgcnn", 2, 10.0)
    ]  # fmt: skip
    assert len({p.folder.path for p in plans}) == 4
    folds = [dataclasses.replace(problem, name=f"f{n}", group="f") for n in range(5)]
    assert {p.job.minutes for p in command.plan(options, folds)} == {2.0}


# --- peers ------------------------------------------------------------------------------------------------------------


class Counting:
    """A peer whose graph is the number of atoms and whose network is a line."""

    name, version, settings = "counting", "1", ""

    def __init__(self) -> None:
        self.model: nn.Module = nn.Linear(1, 1)

    def graph(self, structure: Any) -> float:
        return float(len(structure))

    def batch(self, graphs: Sequence[float]) -> Tensor:
        return torch.tensor(graphs)[:, None] / 10.0

    def predict(self, batch: Tensor) -> Tensor:
        return self.model(batch).view(-1)


def parts_of(n: int, a_peer: Counting) -> list[peer.Part]:
    saved: dict[str, np.ndarray] = {}
    for name in ("train", "validation"):
        n_atoms = np.arange(n) % 9 + 1
        saved |= {
            f"{name}.ids": np.arange(n).astype(str),
            f"{name}.offsets": np.concatenate([[0], np.cumsum(n_atoms)]),
            f"{name}.atomic_numbers": np.full(n_atoms.sum(), 11),
            f"{name}.positions": np.random.default_rng(0).random((n_atoms.sum(), 3)),
            f"{name}.lattice": np.tile(5.0 * np.eye(3), (n, 1, 1)),
            f"{name}.labels": 3.0 * n_atoms - 2.0,
        }
    return [peer.Part(a_peer, saved, name, lambda text: None) for name in ("train", "validation")]


RECIPE = Recipe("Counting", "none", "adam", "l1", 0.1, 8, "cosine")


def training_for(seconds: float) -> peer.Training:
    counting = Counting()
    train, holdout = parts_of(40, counting)
    return peer.Training(counting, RECIPE, train, holdout, budget.Clock(seconds))


@pytest.fixture
def each_prediction_takes_a_second(monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace) -> None:
    predict = Counting.predict

    def slow(self: Counting, batch: Tensor) -> Tensor:
        clock.wall += 1.0
        return predict(self, batch)

    monkeypatch.setattr(Counting, "predict", slow)


@pytest.mark.usefixtures("each_prediction_takes_a_second")
def test_a_peer_learns_within_its_budget_and_keeps_its_best_weights() -> None:
    training = training_for(600.0)
    untrained = training.mae(training.holdout)
    training.run(seed=0, say=lambda text: None)
    assert 590.0 <= training.history[-1][0] <= 600.0
    assert training.history[-1][1] == pytest.approx(training.epochs)
    training.peer.model.load_state_dict(training.best)
    assert training.mae(training.holdout) == pytest.approx(min(mae for _, _, mae in training.history))
    assert training.mae(training.holdout) < 0.1 * untrained


@pytest.mark.usefixtures("each_prediction_takes_a_second")
def test_the_last_rate_of_a_peer_is_the_lowest(monkeypatch: pytest.MonkeyPatch) -> None:
    training = training_for(60.0)
    rates: list[float] = []
    original = training.step

    def remembered(rows: Sequence[int], progress: float) -> None:
        original(rows, progress)
        rates.append(training.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(training, "step", remembered)
    training.run(seed=0, say=lambda text: None)
    # 5 steps and a look of one batch take 6 s; the last look is within the budget too.
    assert 57.0 <= training.history[-1][0] <= 60.0
    assert rates[0] == pytest.approx(0.1) and rates[-1] < 0.005


def test_a_peer_that_diverges_says_when() -> None:
    training = training_for(1.0)
    with torch.no_grad():
        training.peer.model.weight.fill_(torch.nan)  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match=r"the loss is not finite in epoch 0\.0"):
        training.run(0, lambda text: None)


def test_a_crystal_without_a_graph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    monkeypatch.setattr(counting, "graph", Mock(side_effect=KeyError("Po")))
    with pytest.raises(RuntimeError, match=r"no graph of crystal 0 \(train, row 1\): KeyError: 'Po'"):
        parts_of(3, counting)


def test_batches_of_peers_hold_every_crystal_once_an_epoch() -> None:
    batches = list(itertools.islice(peer.shuffled(10, 3, torch.Generator().manual_seed(0)), 6))
    assert all(len(batch) == 3 for batch in batches)
    assert len(set(itertools.chain(*batches[:3]))) == 9  # the tenth would be a batch of one
    assert batches[:3] != batches[3:]
    assert sorted(next(peer.shuffled(2, 64, torch.Generator()))) == [0, 1]


def test_a_library_is_installed_once_and_never_another_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def pretend(command: Sequence[str], **_: Any) -> None:
        calls.append(list(command))
        if "venv" in command:
            version = f"python{sys.version_info.major}.{sys.version_info.minor}"
            (Path(command[-1]) / "lib" / version / "site-packages").mkdir(parents=True)
            (Path(command[-1]) / "bin").mkdir()
            (Path(command[-1]) / "bin" / "python").touch()

    monkeypatch.setattr(environment, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(environment.subprocess, "run", pretend)
    made = PeerEnvironment()
    for _ in range(2):
        made.ensure("library==1")
    made.ensure("other==2")
    assert [call[2] for call in calls] == ["venv", "pip", "pip"]
    assert [call[-1] for call in calls[1:]] == ["library==1", "other==2"]
    held = Path(calls[1][calls[1].index("--constraint") + 1])
    assert held.read_text(encoding="utf-8") == f"torch=={metadata.version('torch')}\n"
    assert made.python.is_relative_to(tmp_path)


def test_a_library_that_cannot_be_installed_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(environment.subprocess, "run", Mock(side_effect=subprocess.CalledProcessError(1, ["pip"])))
    for _ in range(2):
        with pytest.raises(InstallError, match="--peer-python"):
            PeerEnvironment().ensure("library==1")


# --- putting results together -----------------------------------------------------------------------------------------


def outcome(mae: float, **changes: Any) -> Outcome:
    fields: dict[str, Any] = {
        "mae": mae, "holdout_mae": mae, "n_epochs": 4.0, "best_epoch": 3.0, "wall_seconds": 60.0, "cpu_seconds": 90.0,
        "preparing_seconds": 1.0, "n_parameters": 10, "version": "1", "history": [(60.0, 4.0, mae)],
    }  # fmt: skip
    return Outcome(**fields | changes)


def finished(model: str, mae: float, seed: int = 1, name: str = "demo", group: str = "demo", **changes: Any) -> Any:
    problem = dataclasses.replace(problems.problems("demo", quick=True)[0], name=name, group=group)
    job = Job(model, name, "d", seed, 1.0, "wall", 2, {})
    return place(Path("w"), problem, job), Finished(outcome(mae, **changes), "today", 0.0)


def test_seeds_and_folds_are_averaged() -> None:
    assert summary.mean_and_spread([("a", 1.0)]) == (1.0, None)
    assert summary.mean_and_spread([("a", 1.0), ("a", 3.0)]) == (2.0, pytest.approx(2**0.5))
    folds = [("a", 1.0), ("a", 3.0), ("b", 6.0)]
    assert summary.mean_and_spread(folds) == (4.0, pytest.approx(8**0.5))  # of the folds' means, 2 and 6


def test_rows_and_bars() -> None:
    results = [
        finished("default", 0.10, 1), finished("default", 0.14, 2), finished("tiny", 0.09, holdout_mae=0.5),
        finished("cgcnn", 0.11), finished("megnet", 0.20),
    ]  # fmt: skip
    found = summary.grouped(results)
    first = summary.rows(found)[0]
    assert (first.candidate, first.value) == ("default", pytest.approx(0.12))
    assert first.details["of"] == "2 seeds" and first.details["min"] == pytest.approx(1.0)
    # `tiny` is better on what is scored, which must not choose: the held-out crystals prefer `default`.
    bars = summary.bars(found, "demo")
    assert [(bar.name, bar.is_met) for bar in bars] == [
        ("default as accurate as cgcnn", False), ("default as accurate as megnet", True)
    ]  # fmt: skip


# --- the same crystals, two models ------------------------------------------------------------------------------------


def predicted(model: str, deviations: Sequence[float], seed: int = 1) -> Any:
    """A finished run of which the predictions of the scored crystals deviate by this much, over and over."""
    plan, _ = finished(model, 0.0, seed)
    labels = plan.problem.parts.test.targets[plan.problem.target.name]
    return plan, Finished(outcome(0.0, predictions=(labels + np.resize(deviations, len(labels))).tolist()), "", 0.0)


def test_models_are_compared_crystal_by_crystal() -> None:
    # Errors spread widely over crystals, and the second model errs by 0.1 more on each of them.
    first = [0.1, -5.0, 0.3]
    results = [predicted("default", first), predicted("cgcnn", [0.2, -5.1, 0.4]), predicted("tiny", [-0.1, 5.0, -0.3])]
    rows = {row.work: row for row in paired.rows(summary.grouped(results))}
    assert list(rows) == ["demo: default - tiny", "demo: default - cgcnn", "demo: tiny - cgcnn"]
    assert rows["demo: default - tiny"].value == pytest.approx(0.0)
    row = rows["demo: default - cgcnn"]
    assert [row.value, row.details["low"], row.details["high"]] == pytest.approx([-0.1] * 3)


def test_the_interval_of_a_difference_holds_the_truth() -> None:
    generator = np.random.default_rng(0)
    held = []
    for trial in range(60):
        drawn = {str(n): x for n, x in enumerate(generator.normal(0.2, 1.0, 100))}
        _, low, high, n = paired.difference(drawn, dict.fromkeys(drawn, 0.0), seed=trial)
        assert n == 100
        held.append(low < 0.2 < high)
    assert 50 <= sum(held) < 60


def test_runs_without_predictions_are_not_paired() -> None:
    assert paired.rows(summary.grouped([predicted("default", [0.1]), finished("tiny", 1.0)])) == []


def test_seeds_are_averaged_before_they_are_paired() -> None:
    runs = [predicted("default", [0.1], seed=1), predicted("default", [-0.3], seed=2)]
    assert list(paired.errors_of(runs).values()) == pytest.approx([0.2] * len(runs[0][0].problem.parts.test))


@pytest.mark.skipif(not problems.SHARED.exists(), reason="predictions of published models are not at ../shared/data")
def test_published_models_are_paired_with_ours() -> None:
    fold = problems.problems("phonons", quick=True)[0]
    others = paired.published(fold)
    assert {name: round(float(np.mean(list(errors.values()))), 2) for name, errors in others.items()} == {
        "alignn (published)": 29.54,
        "coNGN (published)": 28.89,
    }
    assert set(fold.parts.test.ids.astype(str)) <= others["coNGN (published)"].keys()
    plan = dataclasses.replace(predicted("default", [0.0])[0], problem=fold)
    labels = fold.parts.test.targets[fold.target.name].tolist()
    exact = Finished(outcome(0.0, predictions=labels), "", 0.0)
    (_, row) = paired.rows({("phonons", "default"): [(plan, exact)]})
    assert row.work == "phonons: default - coNGN (published)" and row.details["high"] < 0  # type: ignore[operator]
    assert [bar.is_met for bar in paired.bars([row])] == [True]


def test_the_bar_of_the_phonons_needs_all_folds() -> None:
    results = [finished("default", 30.0 + n, name=f"phonons-fold{n}", group="phonons") for n in range(5)]
    (bar,) = summary.bars(summary.grouped(results), "phonons")
    assert (bar.value, bar.limit, bar.is_met) == (32.0, 35.0, True)
    assert summary.bars(summary.grouped(results[:4]), "phonons") == []


def test_what_spoils_a_result_is_said() -> None:
    over, _ = finished("default", 1.0)
    late = Finished(outcome(1.0, wall_seconds=90.0), "today", 0.7)
    lines = summary.notes([(over, late), (finished("cgcnn", 1.0)[0], "no such library")], "demo")
    assert "default on demo, seed 1 took 1.50 min of a budget of 1." in lines
    assert "default on demo, seed 1: other work kept 0.70 cores busy." in lines
    assert "cgcnn on demo, seed 1 has no result: no such library" in lines
    assert any(line.startswith("cgcnn is trained with adam 0.01") for line in lines)


def test_the_learning_curve_is_drawn(tmp_path: Path) -> None:
    results = []
    for problem in problems.problems("demo", [20, 100]):
        for model, mae in (("default", 0.1), ("cgcnn", 0.2)):
            job = Job(model, problem.name, "d", 1, 1.0, "wall", 2, {})
            error = mae * 100 / len(problem.parts.train)
            results.append((place(tmp_path, problem, job), Finished(outcome(error), "", None)))
    draw_learning_curve(summary.grouped(results), 2.0, tmp_path / "deep" / "curve.png")
    assert (tmp_path / "deep" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_recipes_name_adapters_that_exist() -> None:
    from benchmarks import peers

    assert all(hasattr(peers, recipe.adapter) for recipe in RECIPES.values())
