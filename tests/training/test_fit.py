"""Training runs of a small model: that it learns, does what the formulae say, and resumes to the same numbers."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from refusals import refused
from small_runs import (
    CONFIG,
    DATA,
    MODEL,
    TARGETS,
    TIMES,
    TRAINING,
    PressCtrlC,
    assert_same_run,
    bit_for_bit,
    certain_run,
    has_no_gradient,
    make_data,
    training,
    weights,
    without_times,
)
from torch import Tensor

import crystalframer as cf
from crystalframer import checkpoint, files
from crystalframer.config import Config, DataConfig, Target, to_json
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import BatchOrder, prepare
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.errors import CheckpointError, ConfigError, CrystalError, DataError, TrainingError
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import prototypes, random_crystal
from crystalframer.training import FitResult, Interrupted, fit
from crystalframer.training.folder import RunFolder
from crystalframer.training.inputs import load_splits
from crystalframer.training.optimisation import noise_seed
from crystalframer.training.result import read_result
from crystalframer.training.task import TrainingTask


def stop_at(epoch: int, batch: int) -> PressCtrlC:
    """Ctrl-C twice before a batch of an epoch: at once."""
    return PressCtrlC(epoch, batch, times=2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """An uninterrupted run of CONFIG on DATA."""
    return certain_run(CONFIG, tmp_path_factory.mktemp("finished"))


# What a run computes


def reference_run(config: Config, data: Splits) -> tuple[list[float], list[float], list[float], CrystalFramer, dict]:
    """The training protocol written out, on plain torch: losses, rates, norms, final and averaged weights."""
    train = prepare(data.train, config.model.radius, config.model.target_names)
    model = CrystalFramer(config.model, torch.Generator().manual_seed(config.training.seed))
    labels = torch.from_numpy(train.targets[:, 0])
    model.target_mean.fill_(labels.mean())
    model.target_std.fill_(labels.std(unbiased=False))
    order = BatchOrder(train.n_atoms, config.training.batch_size, None, config.training.seed, config.training.drop_last)
    model.calibrate(train[order.batches(0)[0]])
    t = config.training
    biases = [p for n, p in model.named_parameters() if "bias" in n]
    others = [p for n, p in model.named_parameters() if "bias" not in n]
    groups = [
        {"params": biases, "weight_decay": t.bias_weight_decay},
        {"params": others, "weight_decay": t.weight_decay},
    ]
    adamw = torch.optim.AdamW(groups, t.learning_rate, t.betas, t.eps, foreach=False, fused=False)
    losses, rates, norms, averaged, n_averaged, n_steps, rate = [], [], [], {}, 0, 0, 0.0
    for epoch in range(t.n_epochs):
        for index, rows in enumerate(order.batches(epoch)):
            if epoch < t.n_epochs - t.swa_epochs or (epoch == t.n_epochs - t.swa_epochs and index == 0):
                rate = t.learning_rate * (t.decay_steps / (t.decay_steps + n_steps)) ** 0.5
            for group in adamw.param_groups:
                group["lr"] = rate
            noise = noise_seed(t.seed, epoch, index)
            batch = train[rows]
            loss = ((model(batch, noise) - batch.targets) / model.target_std).abs().mean()
            adamw.zero_grad()
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), t.clip_norm).item())
            adamw.step()
            n_steps += 1
            losses.append(loss.item())
            rates.append(rate)
            if epoch >= t.n_epochs - t.swa_epochs:
                n_averaged += 1
                for name, parameter in model.named_parameters():
                    mean = averaged.setdefault(name, torch.zeros_like(parameter, dtype=torch.float64))
                    mean += (parameter.detach() - mean) / n_averaged
    return losses, rates, norms, model, averaged


def test_a_run_is_the_protocol_written_out(finished: FitResult) -> None:
    losses, rates, norms, model, averaged = reference_run(CONFIG, DATA)
    per_epoch = len(losses) // TRAINING.n_epochs
    history = finished.history
    assert history["step"].tolist() == [per_epoch * (epoch + 1) for epoch in range(TRAINING.n_epochs)]
    np.testing.assert_allclose(history["learning_rate"], rates[per_epoch - 1 :: per_epoch], rtol=1e-14)
    frozen = TRAINING.learning_rate * (20 / (20 + 3 * per_epoch)) ** 0.5  # after the 3 epochs before averaging
    np.testing.assert_allclose(history["learning_rate"].iloc[-2:], frozen, rtol=1e-14)
    for column, values in (("train_loss", losses), ("gradient_norm", norms)):
        expected = np.reshape(values, (TRAINING.n_epochs, per_epoch)).mean(axis=1)
        np.testing.assert_allclose(history[column], expected, rtol=2e-5)
    last, swa = weights(finished, "last"), weights(finished, "swa")
    for name, parameter in model.named_parameters():
        if not has_no_gradient(name):
            torch.testing.assert_close(last[name], parameter.detach(), rtol=1e-4, atol=2e-6)
            torch.testing.assert_close(swa[name], averaged[name].float(), rtol=1e-4, atol=2e-6)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(last[name], buffer)
        torch.testing.assert_close(swa[name], buffer)


def test_validation_and_test_errors_are_those_of_the_saved_weights(finished: FitResult) -> None:
    names = MODEL.target_names
    rows = {"best": finished.history.loc[finished.history["validation_loss"].idxmin()]}
    rows["swa"] = finished.history.iloc[-1].rename(lambda column: column.removeprefix("swa_"))
    rows["swa"] = rows["swa"][~rows["swa"].index.duplicated(keep="last")]
    std = float(np.std(DATA.train.targets["energy"]))
    for name, score in finished.scores.items():
        folder = finished.output / "checkpoints" / name
        # The test errors are those of the model as users load it: with weighted sets of frames.
        for part, reported, model in (
            ("validation", score.validation_mae, checkpoint.load(folder)),
            ("test", score.test_mae, cf.load(folder, "cpu")),
        ):
            crystals = prepare(getattr(DATA, part), MODEL.radius, names)
            with torch.no_grad():
                errors = [abs(model(crystals[[row]]).item() - crystals.targets[row, 0]) for row in range(len(crystals))]
            assert reported["energy"] == pytest.approx(np.mean(errors), rel=1e-5)
        assert score.validation_mae["energy"] == rows[name]["validation_mae/energy"]
        assert score.validation_loss == pytest.approx(score.validation_mae["energy"] / std, rel=1e-6)
    labels = DATA.test.targets["energy"]
    baseline = np.abs(labels - DATA.train.targets["energy"].mean()).mean()
    assert finished.baseline_mae["energy"] == pytest.approx(baseline, rel=1e-12)


def test_the_better_weights_are_chosen_and_loaded(finished: FitResult) -> None:
    losses = {name: score.validation_loss for name, score in finished.scores.items()}
    assert finished.chosen == min(losses, key=losses.__getitem__)
    assert finished.checkpoint.is_dir()
    for name, value in weights(finished, finished.chosen).items():
        assert torch.equal(finished.model.state_dict()[name], value)
    assert not finished.model.training
    assert re.search(r"energy, swa: validation MAE [\d.]+ eV/atom, test MAE .*% of the", finished.summary())


def test_a_finished_run_is_read_from_its_folder(finished: FitResult, tmp_path: Path) -> None:
    read = read_result(RunFolder(finished.output))
    pd.testing.assert_frame_equal(read.history, finished.history, check_exact=True)
    assert_same_run(read, finished)
    assert read.summary() == finished.summary() and not read.model.training
    for name, value in finished.model.state_dict().items():
        assert torch.equal(read.model.state_dict()[name], value)
    damaged = RunFolder(tmp_path)
    shutil.copy(finished.output / "metrics.csv", tmp_path)
    whole = (finished.output / "result.json").read_text()
    for content in ('{"chosen": "be', whole.replace(f'"chosen": "{finished.chosen}"', '"chosen": "another"')):
        damaged.result.write_text(content)
        with pytest.raises(TrainingError, match=r"the result cannot be read .*delete result.json"):
            read_result(damaged)


def test_the_steps_take_a_part_of_the_time(finished: FitResult) -> None:
    steps, all_of_it = (finished.history[column] for column in TIMES)
    assert np.all(steps > 0) and np.all(steps < all_of_it)


def test_the_files_of_a_run(finished: FitResult) -> None:
    assert (finished.output / "config.json").read_text() == to_json(CONFIG)
    saved = pd.read_csv(finished.output / "metrics.csv", engine="pyarrow")
    pd.testing.assert_frame_equal(saved, finished.history, check_exact=True)
    assert sorted(folder.name for folder in (finished.output / "checkpoints").iterdir()) == ["best", "last", "swa"]
    assert json.loads((finished.output / "result.json").read_text())["chosen"] == finished.chosen
    assert (finished.output / "checkpoints" / "last" / "resume.ckpt").exists()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished.output / "tensorboard")).Reload()
    logged = [event.value for event in events.Scalars("validation_mae/energy")]
    np.testing.assert_allclose(logged, finished.history["validation_mae/energy"], rtol=1e-6)


@bit_for_bit
def test_the_same_config_gives_the_same_run(finished: FitResult, tmp_path: Path) -> None:
    torch.manual_seed(99)
    assert_same_run(fit(CONFIG, DATA, tmp_path / "again"), finished)
    other = fit(training(seed=5, n_epochs=1, swa_epochs=0), DATA, tmp_path / "other")
    assert other.history["train_loss"].tolist()[0] != finished.history["train_loss"].tolist()[0]


def test_it_learns_eight_crystals_by_heart(tmp_path: Path) -> None:
    data = make_data(8, 2)
    model = replace(MODEL, n_layers=2, n_heads=4, d_model=32, d_feedforward=64, d_readout=32)
    config = Config(model, training=replace(TRAINING, n_epochs=60, swa_epochs=0, learning_rate=5e-3, decay_steps=50))
    result = fit(config, data, tmp_path / "run")
    errors = result.history["train_mae/energy"]
    assert errors.iloc[0] > 0.9 * np.abs(data.train.targets["energy"] - data.train.targets["energy"].mean()).mean()
    assert errors.iloc[-5:].mean() < 0.15 * errors.iloc[0]
    assert list(result.scores) == ["best"]


@bit_for_bit
def test_the_rate_falls_to_zero_with_the_run_and_resumes(tmp_path: Path) -> None:
    config = training(schedule="warmup-stable-decay", warmup_steps=2, decay_fraction=0.5, n_epochs=4, swa_epochs=0)
    whole = fit(config, DATA, tmp_path / "whole")
    # Three batches an epoch. A row has the rate of the epoch's last step: 2, 5, 8 and 11 of 12 before it were done.
    np.testing.assert_allclose(
        whole.history["learning_rate"], 2e-3 * np.array([1, 1, (1 - 8 / 12) / 0.5, (1 / 12) / 0.5])
    )
    with pytest.raises(Interrupted):
        fit(config, DATA, tmp_path / "cut", callbacks=[stop_at(2, 1)])
    resumed = fit(config, DATA, tmp_path / "cut", resume=True)
    pd.testing.assert_frame_equal(without_times(resumed), without_times(whole), check_exact=True)


def test_training_goes_on_from_trained_weights(finished: FitResult, tmp_path: Path) -> None:
    frozen = {"learning_rate": 1e-12, "weight_decay": 0.0, "swa_epochs": 0, "n_epochs": 1}
    again = fit(training(initial_weights=str(finished.output), **frozen), DATA, tmp_path / "again")
    start = weights(finished, finished.chosen)
    for name, value in weights(again, "last").items():
        torch.testing.assert_close(value, start[name], rtol=0, atol=1e-9, msg=name)

    # Other targets: the body is kept, the readout begins anew with the statistics of the new labels.
    data = make_data(targets=TARGETS)
    other = replace(training(initial_weights=str(finished.output), **frozen), model=replace(MODEL, targets=TARGETS))
    tuned = weights(fit(other, data, tmp_path / "tuned"), "last")
    for name, value in tuned.items():
        if name.startswith(("readout.2", "target_")):
            assert value.shape != start[name].shape
        elif not name.startswith("readout."):
            torch.testing.assert_close(value, start[name], rtol=0, atol=1e-9, msg=name)
    np.testing.assert_allclose(tuned["target_mean"], [np.nanmean(data.train.targets[t.name]) for t in TARGETS])


def test_more_targets_keep_the_readout_of_those_that_were_trained(tmp_path: Path) -> None:
    frozen = {"learning_rate": 1e-12, "weight_decay": 0.0, "swa_epochs": 0, "n_epochs": 1}
    data = make_data(targets=TARGETS)
    second, first = replace(MODEL, targets=TARGETS[1:2]), replace(MODEL, targets=TARGETS)
    only = fit(
        replace(training(n_epochs=1, swa_epochs=0), model=second), make_data(targets=second.targets), tmp_path / "1"
    )
    both = fit(replace(training(initial_weights=str(only.output), **frozen), model=first), data, tmp_path / "2")
    crystals = list(data.test)
    expected, found = (cf.predict(crystals, run.output, progress=False) for run in (only, both))
    name = TARGETS[1].name
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    # The other starts from random weights, and from the mean of its labels.
    mean = weights(both, "last")["target_mean"]
    np.testing.assert_allclose(mean[0], np.nanmean(data.train.targets[TARGETS[0].name]), rtol=1e-6)
    assert mean[1] == weights(only, "last")["target_mean"]


def test_training_goes_on_from_the_weights_of_the_package(tmp_path: Path) -> None:
    shipped = cf.load()
    demo = cf.dataset("demo", targets=shipped.config.targets[:1])
    small = demo.select(np.flatnonzero(demo.n_atoms <= 2)[:12])
    data = Splits(*(small.select(np.arange(12) % 3 == n) for n in range(3)))
    config = training(n_epochs=1, swa_epochs=0, learning_rate=1e-12, weight_decay=0.0, initial_weights="package")
    config = replace(config, model=replace(shipped.config, targets=shipped.config.targets[:1]))
    result = fit(config, data, tmp_path / "run")
    name = shipped.config.targets[0].name
    crystals = list(data.test)
    expected, found = (cf.predict(crystals, model, progress=False)[name] for model in ("package", result.output))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_new_readout_keeps_the_sharpness_of_its_activation(tmp_path: Path) -> None:
    model = replace(MODEL, activation="swish")
    first = fit(replace(training(n_epochs=1, swa_epochs=0), model=model), DATA, tmp_path / "first")
    other = training(n_epochs=1, swa_epochs=0, initial_weights=str(first.output))
    tuned = fit(replace(other, model=replace(model, targets=TARGETS)), make_data(targets=TARGETS), tmp_path / "tuned")
    name = "readout.1.sharpness"
    assert weights(tuned, "last")[name] == weights(first, "last")[name] != 1.0


def test_weights_of_another_model_are_refused(finished: FitResult, tmp_path: Path) -> None:
    other = replace(training(initial_weights=str(finished.output)), model=replace(MODEL, n_heads=4))
    with refused(ConfigError, "n_heads is 4, there 2", field="training.initial_weights"):
        fit(other, DATA, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with refused(CheckpointError):
        fit(training(initial_weights=str(tmp_path)), DATA, tmp_path / "run")
    with refused(ConfigError, "the preset crystalframer-2 has the settings of these weights"):
        fit(training(initial_weights="package"), DATA, tmp_path / "run")


def test_bfloat16_learns_the_same_and_is_scored_in_full_precision(finished: FitResult, tmp_path: Path) -> None:
    result = fit(training(precision="bf16-mixed"), DATA, tmp_path / "run")
    assert not without_times(result).equals(without_times(finished))
    np.testing.assert_allclose(result.history["train_loss"], finished.history["train_loss"], rtol=0.02)
    model, crystals = checkpoint.load(result.output / "checkpoints" / "last"), prepare(DATA.validation, MODEL.radius)
    with torch.no_grad():
        errors = model(crystals[range(8)])[:, 0].double().numpy() - DATA.validation.targets["energy"]
    assert result.history["validation_mae/energy"].iloc[-1] == pytest.approx(np.abs(errors).mean(), rel=1e-5)


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    """Also where batches hold different numbers of labels, and where the last step of an epoch has fewer batches."""
    data = make_data(24, 4, TARGETS)
    model = replace(MODEL, targets=TARGETS, frame=replace(MODEL.frame, noise=0.0))
    runs = []
    for name, sizes in (("large", {"batch_size": 16}), ("small", {"batch_size": 4, "accumulate": 4})):
        config = Config(model, training=replace(TRAINING, n_epochs=2, swa_epochs=0, drop_last=False, **sizes))
        # The same calibration for both: the first 16 crystals.
        config = replace(config, training=replace(config.training, calibration_batches=16 // sizes["batch_size"]))
        runs.append(fit(config, data, tmp_path / name))
    large, small = runs
    assert large.history["step"].tolist() == small.history["step"].tolist() == [2, 4]
    for name in ("train_loss", "gradient_norm", "validation_loss"):
        np.testing.assert_allclose(small.history[name], large.history[name], rtol=1e-4)
    for name, value in weights(large, "last").items():
        if not has_no_gradient(name):
            torch.testing.assert_close(weights(small, "last")[name], value, rtol=1e-3, atol=1e-5)


def test_calibration_uses_the_first_batches(tmp_path: Path) -> None:
    config = training(n_epochs=1, swa_epochs=0, calibration_batches=2)
    result = fit(config, DATA, tmp_path / "run")
    train = prepare(DATA.train, MODEL.radius)
    order = BatchOrder(train.n_atoms, 8, None, TRAINING.seed, True).batches(0)
    model = CrystalFramer(MODEL, torch.Generator().manual_seed(TRAINING.seed))
    model.calibrate(train[np.concatenate(order[:2])])
    expected = {name: value for name, value in model.named_buffers() if not name.startswith("target")}
    assert expected
    for name, value in expected.items():
        assert torch.equal(weights(result, "last")[name], value)


def test_a_data_set_is_split_as_the_config_says(tmp_path: Path) -> None:
    config = replace(training(n_epochs=1, swa_epochs=0), data=DataConfig(split="random", test_fraction=0.25))
    result = fit(config, DATA.train, tmp_path / "run")
    expected = DATA.train.split(config.data, TRAINING.seed)
    saved = json.loads((result.output / "data.json").read_text())
    assert [saved[part]["crystals"] for part in ("train", "validation", "test")] == [16, 2, 6]
    assert saved["test"]["sha256"] == prepare(expected.test, MODEL.radius, ["energy"]).fingerprint()


def test_without_a_test_part(tmp_path: Path) -> None:
    result = fit(training(n_epochs=1, swa_epochs=0), replace(DATA, test=DATA.test.select([])), tmp_path / "run")
    assert result.scores["best"].test_mae == {} and result.baseline_mae == {}
    assert "test" not in result.summary()


# Stopping and going on


@bit_for_bit
@pytest.mark.parametrize("moment", [(0, 1), (2, 1), (3, 0), (4, 2)], ids=str)
def test_an_interrupted_run_resumes_to_the_same_numbers(
    finished: FitResult, tmp_path: Path, moment: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    """In the first epoch, in mid-epoch, at the start of averaging and within it."""
    output = tmp_path / "run"
    kept = "its first epoch" if moment[0] == 0 else f"after epoch {moment[0]} of 5"
    with pytest.raises(Interrupted, match=rf"{kept}.*checkpoints.last.*--resume"):
        fit(CONFIG, DATA, output, callbacks=[stop_at(*moment)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    checkpoint.load(output / "checkpoints" / "last")
    torch.manual_seed(99)
    (output / "metrics.csv").unlink(missing_ok=True)  # the checkpoint has the rows too
    capfd.readouterr()
    assert_same_run(fit(CONFIG, DATA, output, resume=True), finished)
    *bars, reason = capfd.readouterr().err.strip().splitlines()
    assert reason.startswith("no prediction intervals: ")
    best = finished.history["validation_mae/energy"].min()
    assert f"epoch {moment[0]}.0/5" in bars[0] and f"(best {best:.4g})" in bars[-1]
    saved = pd.read_csv(output / "metrics.csv", engine="pyarrow")
    pd.testing.assert_frame_equal(saved.drop(columns=TIMES), without_times(finished), check_exact=True)


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_waits_for_the_end_of_the_batch_unless_repeated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], times: int
) -> None:
    keys = PressCtrlC(2, 1, times=times)
    with pytest.raises(Interrupted, match="after epoch 2 of 5"):
        fit(CONFIG, DATA, tmp_path / "run", callbacks=[keys])
    assert keys.went_on == (times == 1)
    assert capfd.readouterr().err.count("stopping at the end of this batch; Ctrl-C again stops at once") == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@bit_for_bit
def test_resuming_with_uneven_accumulated_batches_and_noise(tmp_path: Path) -> None:
    """The number of batches differs from epoch to epoch, and the last step of an epoch has fewer of them."""
    config = training(max_atoms=7, accumulate=2, drop_last=False, n_epochs=3, swa_epochs=1)
    whole = fit(config, DATA, tmp_path / "whole")
    train = prepare(DATA.train, MODEL.radius)
    batches = [len(BatchOrder(train.n_atoms, 8, 7, TRAINING.seed).batches(epoch)) for epoch in range(3)]
    assert len(set(batches)) > 1
    assert whole.history["step"].tolist() == np.cumsum([-(-n // 2) for n in batches]).tolist()
    with pytest.raises(Interrupted):
        fit(config, DATA, tmp_path / "run", callbacks=[stop_at(1, 3)])
    with pytest.raises(Interrupted):
        fit(config, DATA, tmp_path / "run", resume=True, callbacks=[stop_at(2, 0)])
    assert_same_run(fit(config, DATA, tmp_path / "run", resume=True), whole)


@bit_for_bit
def test_muon_resumes_with_its_momenta(tmp_path: Path) -> None:
    config = training(optimizer="muon", target_weights=(0.5,) * len(MODEL.targets))
    whole = fit(config, DATA, tmp_path / "whole")
    assert whole.history["train_loss"].tolist() != fit(CONFIG, DATA, tmp_path / "adamw").history["train_loss"].tolist()
    with pytest.raises(Interrupted):
        fit(config, DATA, tmp_path / "run", callbacks=[stop_at(2, 1)])
    assert_same_run(fit(config, DATA, tmp_path / "run", resume=True), whole)


@bit_for_bit
def test_where_it_runs_may_change_on_resuming(finished: FitResult, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(CONFIG, DATA, tmp_path / "run", callbacks=[stop_at(1, 0)])
    assert_same_run(fit(training(n_workers=1), DATA, tmp_path / "run", resume=True), finished)


def test_resuming_is_refused(finished: FitResult, tmp_path: Path) -> None:
    with refused(TrainingError, "holds a complete run", path=finished.output):
        fit(CONFIG, DATA, finished.output)
    with refused(TrainingError, "nothing to resume", "config.json", path="nowhere"):
        fit(CONFIG, DATA, tmp_path / "nowhere", resume=True)
    with refused(TrainingError, "complete", path=finished.output):
        fit(CONFIG, DATA, finished.output, resume=True)
    assert not (tmp_path / "nowhere").exists()
    output = tmp_path / "run"
    with pytest.raises(Interrupted):
        fit(CONFIG, DATA, output, callbacks=[stop_at(1, 0)])
    with refused(TrainingError, "holds a run already", "resume = True", path=output):
        fit(CONFIG, DATA, output)
    other = Config(replace(MODEL, targets=(Target("energy", "eV"),)), training=replace(TRAINING, seed=1, n_epochs=9))
    changes = "model.targets.0.unit was 'eV/atom', is 'eV'; training.n_epochs was 5, is 9; training.seed was 123, is 1;"
    with refused(ConfigError, changes, path=output):
        fit(other, DATA, output, resume=True)


QUARTER = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""A quarter of a turn."""


def _with(part: CrystalDataset, **changes: Any) -> CrystalDataset:
    return dataclasses.replace(part, **changes)


@pytest.mark.parametrize(
    ("changed", "part", "said"),
    [
        (
            lambda train: _with(train, targets={"energy": np.where(train.ids == "c7", 1.0, train.targets["energy"])}),
            "train",
            "other labels of 1 ('c7')",
        ),
        (lambda train: train.select(np.arange(1, 24)), "train", "23 crystals instead of 24; 1 missing ('c0')"),
        (lambda train: train.select([1, 0, *range(2, 24)]), "train", "another order"),
        (
            lambda train: _with(train, ids=np.array([f"d{n}" for n in range(24)], dtype=object)),
            "train",
            "24 missing ('c0', 'c1', 'c2', ...); 24 new ('d0', 'd1', 'd2', ...)",
        ),
        (
            lambda train: _with(train, positions=train.positions * 1.01, lattice=train.lattice * 1.01),
            "train",
            "other structures of 24 ('c0', 'c1', 'c2', ...)",
        ),
        (
            lambda train: _with(train, positions=train.positions @ QUARTER, lattice=train.lattice @ QUARTER),
            "train",
            "other last digits or orientations",
        ),
    ],
    ids=["labels", "number", "order", "ids", "structures", "orientations"],
)
def test_resuming_with_other_data_is_refused_by_what_differs(stopped: Path, changed: Any, part: str, said: str) -> None:
    with refused(TrainingError, f"{part}: {said}", path=stopped, field=part):
        fit(CONFIG, replace(DATA, train=changed(DATA.train)), stopped, resume=True)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped in its second epoch."""
    output = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Interrupted):
        fit(CONFIG, DATA, output, callbacks=[stop_at(1, 0)])
    return output


def test_a_file_that_was_only_touched_is_the_same_data(tmp_path: Path) -> None:
    """Its date is no difference, and neither is a copy under the same name."""
    CrystalDataset.from_crystals([*DATA.train, *DATA.validation], TARGETS[:1]).save(tmp_path / "data.parquet")
    config = replace(CONFIG, data=DataConfig(source=str(tmp_path / "data.parquet"), split="random"))
    with pytest.raises(Interrupted):
        fit(config, output=tmp_path / "run", callbacks=[stop_at(1, 0)])
    os.utime(tmp_path / "data.parquet", (0, 0))
    (tmp_path / "run" / "crystals.parquet").unlink()  # as in a run that an earlier version began
    assert len(fit(config, output=tmp_path / "run", resume=True).history) == TRAINING.n_epochs
    assert (tmp_path / "run" / "crystals.parquet").exists()


HOLDER = """
import sys, time
from crystalframer import files
from crystalframer.errors import TrainingError
with files.locked({path!r}, TrainingError, "is training in it"):
    print("has it", flush=True)
    time.sleep(600)
"""


def test_a_folder_that_a_killed_process_had_is_taken_over(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While it lives, it is named; and once more after it was killed. One that ends in order leaves no trace."""
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    output = shutil.copytree(stopped, tmp_path / "run")
    code = f"from pathlib import Path; {HOLDER.strip().format(path=output).replace('PosixPath', 'Path')}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            for resume in (False, True):
                with refused(TrainingError, f"({holder.pid} on {socket.gethostname()}", path=output):
                    fit(CONFIG, DATA, output, resume)
        finally:
            holder.kill()
    fit(CONFIG, DATA, output, resume=True)
    said = capsys.readouterr().err
    assert f"({holder.pid} on {socket.gethostname()}" in said and "takes the folder over" in said
    (output / "result.json").unlink()
    fit(CONFIG, DATA, output, resume=True)
    assert "takes the folder over" not in capsys.readouterr().err


def test_a_second_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that begins or continues a run where another process trains, and one that is slower to begin."""
    monkeypatch.setattr(files, "PATIENCE", 0.0)
    output = tmp_path / "run"

    class Second(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            for resume in (False, True):
                with refused(TrainingError, "another process", path=output):
                    fit(CONFIG, DATA, output, resume)

    fit(training(n_epochs=1, swa_epochs=0), DATA, output, callbacks=[Second()])
    (tmp_path / "new").mkdir()
    with FileLock(tmp_path / "new" / files.LOCK_FILE), refused(TrainingError, "another process", path=tmp_path / "new"):
        fit(CONFIG, DATA, tmp_path / "new")


SCRIPT = """
import sys
sys.path.insert(0, {support!r})
from small_runs import DATA, fit, training
fit(training(n_epochs=100_000, swa_epochs=0), DATA, {output!r})
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_says_so(tmp_path: Path, stop: signal.Signals) -> None:
    """Ctrl-C, and what a scheduler or `kill` sends."""
    output = tmp_path / "run"
    script = SCRIPT.format(support=str(Path(__file__).parents[1] / "support"), output=str(output))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    deadline, metrics = time.monotonic() + 300, output / "metrics.csv"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 4:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=300)
    message = re.search(
        r"Interrupted: training was stopped after epoch (\d+) of 100000, kept in .*checkpoints/last\. "
        r"Resuming continues with epoch (\d+)",
        errors,
    )
    assert message, errors
    assert process.returncode != 0
    assert int(message[1]) + 1 == int(message[2]) >= 4
    checkpoint.load(output / "checkpoints" / "last")
    assert pd.read_csv(metrics)["epoch"].tolist() == list(range(1, int(message[2])))


# Bad input


@pytest.mark.parametrize(("what", "check_every", "n_steps"), [("loss", 2, 5), ("gradient", 50, 6)])
def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, check_every: int, n_steps: int
) -> None:
    """From the fifth step on, crystals with boron have no loss, or a loss without a gradient.

    It is noticed at the next look, at the latest at the end of the epoch.
    """
    monkeypatch.setattr("crystalframer.training.task.CHECK_EVERY", check_every)
    forward, n_calls = CrystalFramer.forward, 0

    def poisoned(self: CrystalFramer, batch: CrystalBatch, noise_seed: int | None = None) -> Tensor:
        nonlocal n_calls
        prediction = forward(self, batch, noise_seed)
        n_calls += noise_seed is not None
        if noise_seed is None or n_calls < 5:
            return prediction
        has_boron = torch.tensor([bool((batch.atomic_numbers[batch.crystal_index == i] == 5).any()) for i in range(8)])
        factor = torch.nan if what == "loss" else 1.0 + (prediction - prediction.detach()).sqrt()
        return torch.where(has_boron[:, None], prediction * factor, prediction)

    monkeypatch.setattr(CrystalFramer, "forward", poisoned)
    with pytest.raises(TrainingError, match=rf"epoch 2, step 5: the {what} is not finite; crystals 'c") as caught:
        fit(CONFIG, DATA, tmp_path / "run")
    assert n_calls == n_steps
    batch = BatchOrder(DATA.train.n_atoms, 8, None, TRAINING.seed).batches(1)[1]
    named = [int(row) for row in re.findall(r"'c(\d+)'", str(caught.value))]
    assert named == [row for row in batch if what == "gradient" or 5 in DATA.train[int(row)].atomic_numbers]
    # The epoch before is there to go on from.
    assert len(pd.read_csv(tmp_path / "run" / "metrics.csv")) == 1
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last")


def labelled(data: CrystalDataset, labels: np.ndarray) -> CrystalDataset:
    return dataclasses.replace(data, targets={"energy": labels})


TWIN = Crystal(np.array([8, 8]), np.array([[0, 0, 0], [0.01, 0, 0]]), 4.0 * np.eye(3), "twin", {"energy": 1.0})
OTHER_TARGET = replace(CONFIG, model=replace(MODEL, targets=(Target("enrgy"),)))


@pytest.mark.usefixtures("as_in_production")
@pytest.mark.parametrize(
    ("config", "data", "kind", "word"),
    [
        ("tiny", None, ConfigError, "preset"),
        (replace(CONFIG, data=DataConfig(source="nowhere.csv")), None, DataError, "nowhere"),
        (OTHER_TARGET, DATA, DataError, "no target 'enrgy'; did you mean 'energy'"),
        (
            CONFIG,
            {"validation": labelled(DATA.validation, np.full(8, np.nan))},
            DataError,
            "validation",
        ),
        (CONFIG, {"train": labelled(DATA.train, np.ones(24))}, ConfigError, "all 24 training labels are 1"),
        (CONFIG, {"train": CrystalDataset.from_crystals([TWIN], TARGETS[:1])}, CrystalError, "row 1: crystal 'twin'"),
    ],
)
def test_data_that_does_not_fit_the_config(config: Any, data: Any, kind: type[Any], word: str, tmp_path: Path) -> None:
    with refused(kind, word):
        fit(config, replace(DATA, **data) if isinstance(data, dict) else data, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # so that the next try need not clean up


# What the user sees


def test_one_bar_and_no_chatter(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit(CONFIG, DATA, tmp_path / "run")
    out, err = capfd.readouterr()
    assert out == ""
    *lines, reason = err.strip().splitlines()
    assert all(line.startswith("training ") for line in lines)
    assert reason.startswith("no prediction intervals: target 'energy' has 8 labelled crystals")
    expected = r"training 100%.* epoch 5.0/5 \[\d\d:\d\d<00:00, validation MAE [\d.]+ eV/atom \(best [\d.]+\)\]"
    assert re.fullmatch(expected, lines[-1])


def test_callbacks_see_the_row_of_the_epoch(tmp_path: Path) -> None:
    seen = []

    class Watch(pl.Callback):
        def on_validation_end(self, trainer, pl_module) -> None:
            assert isinstance(pl_module, TrainingTask)
            seen.append(pl_module.history[-1]["validation_mae/energy"])

    result = fit(CONFIG, DATA, tmp_path / "run", callbacks=[Watch()])
    assert seen == result.history["validation_mae/energy"].tolist()


def test_threads_are_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    fit(training(n_threads=before + 1, n_epochs=1, swa_epochs=0), DATA, tmp_path / "run")
    assert torch.get_num_threads() == before


def test_crystals_beyond_a_limit_of_batches_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each trains by itself: slow, and otherwise silent."""
    config = replace(CONFIG, training=replace(TRAINING, n_epochs=1, swa_epochs=0, max_atoms=1))
    fit(config, DATA, tmp_path / "run")
    larger = int((DATA.train.n_atoms > 1).sum())
    assert 0 < larger < len(DATA.train)
    said = f"{larger} of {len(DATA.train)} training crystals exceed training.max_atoms = 1; each of them is a batch"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("random", "5 of 22 crystals are 2 different ones under several ids"),
        ("given", "3 of 4 crystals of the validation and test parts are the same as training crystals"),
        ("group", "5 of 22 crystals are 2 different ones under several ids"),
    ],
)
def test_crystals_that_are_the_same_are_counted(split: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    alone = [replace(random_crystal(seed, n_atoms=2), targets={"energy": 0.0}) for seed in range(19)]
    copies = [replace(alone[row], id=f"copy-{n}") for n, row in enumerate((1, 18, 18))]
    parts = ["train"] * 17 + ["validation", "test", "test", "train", "test"]
    data = CrystalDataset.from_crystals([*alone, *copies], [Target("energy")], parts)
    splits = load_splits(replace(CONFIG, data=DataConfig(split=split)), data)  # type: ignore[arg-type]
    assert said in capsys.readouterr().err and splits.n_known == (3 if split == "given" else 0)
    own = Splits(*(data.select(data.parts == part) for part in ("train", "validation", "test")))
    load_splits(CONFIG, own)
    assert "3 of 4 crystals" in capsys.readouterr().err
    load_splits(CONFIG, own)  # as a study does for each of its runs
    assert capsys.readouterr().err == ""
    load_splits(replace(CONFIG, data=DataConfig(split=split)), data.select(np.arange(18)))  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


def test_elements_that_are_left_out_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    crystals = [replace(crystal, targets={"energy": 0.0}) for crystal in prototypes()]
    data = CrystalDataset.from_crystals(crystals, [Target("energy")])
    config = replace(CONFIG, data=DataConfig(split="element", test_elements=("O",), validation_fraction=0.0))
    assert set(load_splits(config, data).test.formulas) == {"ZnO", "SrTiO3", "TiO2"}
    said = "3 test crystals; no training crystal has one of their elements O, Ti, Sr"
    assert said in capsys.readouterr().err


def test_the_tail_may_be_that_of_a_label_that_is_no_target(tmp_path: Path) -> None:
    """And the run states the split, and goes on with it."""
    crystals = [replace(random_crystal(n, n_atoms=2), targets={"energy": n % 3.0, "gap": float(n)}) for n in range(20)]
    CrystalDataset.from_crystals(crystals, [TARGETS[0], Target("gap")]).save(tmp_path / "data.parquet")
    data = DataConfig(source=str(tmp_path / "data.parquet"), split="property-tail", tail_target="gap")
    config = replace(training(n_epochs=2, swa_epochs=0), data=data)
    assert set(load_splits(config, None).test.ids) == {"random-18", "random-19"}
    with pytest.raises(Interrupted):
        fit(config, output=tmp_path / "run", callbacks=[stop_at(1, 0)])
    assert RunFolder(tmp_path / "run").read_config().data == data
    with refused(ConfigError, "data.tail_target was 'gap', is None"):
        fit(replace(config, data=replace(data, tail_target=None)), output=tmp_path / "run", resume=True)
    assert len(fit(config, output=tmp_path / "run", resume=True).history) == 2
