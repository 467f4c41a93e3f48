"""Training on several devices: the same curve as on one, from start to end, and nobody left waiting."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import small_runs
import torch
from refusals import refused
from small_runs import TIMES, PressCtrlC, bit_for_bit

from crystalframer import checkpoint
from crystalframer.config import Config, FrameConfig, Target
from crystalframer.crystals.loading import BatchOrder, even_shares, prepare, train_loader
from crystalframer.datasets.dataset import Splits
from crystalframer.errors import ConfigError, RankError
from crystalframer.testing import random_crystal
from crystalframer.training import FitResult, Interrupted, fit, launch, ranks

# Without noise: it picks among ties by place, and a crystal has another place in a share than in the batch. Random
# crystals have no ties.
MODEL = replace(small_runs.MODEL, targets=(Target("energy"), Target("gap")), frame=FrameConfig(noise=0.0))
# 25 crystals are 3 batches of 8 and one of a single crystal, fewer than ranks; 4 batches are a step of 3 and one of 1.
TRAINING = replace(small_runs.TRAINING, n_epochs=4, accumulate=3, drop_last=False, n_threads=1)
CONFIG = Config(MODEL, training=TRAINING)


def make_data() -> Splits:
    """Crystals of 1 to 6 atoms. Many lack one of their labels, so that shares differ in how many they have."""
    rng = np.random.default_rng(0)
    crystals = []
    for index in range(25 + 7 + 5):
        crystal = random_crystal(index, 1 + index % 6)
        gap = np.nan if index % 3 == 0 else rng.random()
        energy = np.nan if index % 9 == 1 else 0.1 * float(crystal.atomic_numbers.mean()) + rng.random()
        crystals.append(replace(crystal, id=f"c{index}", targets={"energy": energy, "gap": gap}))
    return small_runs.split(crystals, MODEL.targets, 25, 7)


DATA = make_data()


def on(n_devices: int | None) -> Config:
    return replace(CONFIG, training=replace(TRAINING, n_devices=n_devices))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that `fit` starts."""
    started, popen = [], subprocess.Popen

    def start(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return fit(CONFIG, DATA, tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return fit(on(2), DATA, tmp_path_factory.mktemp("together") / "run")


def assert_same_curve(one: FitResult, other: FitResult) -> None:
    """To rounding: sums of float32 are made in another order."""
    assert one.history["step"].tolist() == other.history["step"].tolist()
    pd.testing.assert_frame_equal(
        one.history.drop(columns=TIMES), other.history.drop(columns=TIMES), check_exact=False, rtol=2e-5
    )
    for name in ("best", "swa"):
        found, expected = (checkpoint.load(run.output / "checkpoints" / name).state_dict() for run in (one, other))
        for key, value in expected.items():
            # The gradient of a key bias is rounding alone, which Adam blows up.
            if not key.endswith("key.bias"):
                torch.testing.assert_close(found[key], value, rtol=1e-3, atol=2e-5, msg=lambda m, k=key: f"{k}: {m}")


# What is computed


def test_two_ranks_learn_what_one_learns(alone: FitResult, together: FitResult) -> None:
    """Curve, norms and weights, with missing labels, batches of fewer crystals than ranks, and accumulation; validation
    on 7 crystals, each of which counts once."""
    assert together.history["step"].tolist() == [2, 4, 6, 8]
    assert_same_curve(together, alone)
    assert together.chosen == alone.chosen and together.scores.keys() == alone.scores.keys()
    for name, score in together.scores.items():
        for target, error in score.test_mae.items():
            assert error == pytest.approx(alone.scores[name].test_mae[target], rel=1e-4)
    # As the model that is saved predicts them, one by one.
    row = together.history.loc[together.history["validation_loss"].idxmin()]
    model, crystals = checkpoint.load(together.output / "checkpoints" / "best"), prepare(DATA.validation, MODEL.radius)
    with torch.no_grad():
        predictions = torch.cat([model(crystals[[index]]) for index in range(len(crystals))])
    for column, name in enumerate(MODEL.target_names):
        errors = np.abs(predictions[:, column].numpy() - DATA.validation.targets[name])
        assert row[f"validation_mae/{name}"] == pytest.approx(np.nanmean(errors), rel=1e-5)


@bit_for_bit
def test_rank_0_alone_writes(together: FitResult) -> None:
    events = list((together.output / "tensorboard").glob("events*"))
    assert len(events) == 1
    saved = pd.read_csv(together.output / "metrics.csv", engine="pyarrow")
    pd.testing.assert_frame_equal(saved, together.history, check_exact=True)
    assert sorted(folder.name for folder in (together.output / "checkpoints").iterdir()) == ["best", "last", "swa"]
    assert ranks.n_ranks() == 1  # nothing is left behind


@bit_for_bit
def test_a_run_goes_on_with_another_number_of_ranks(
    alone: FitResult,
    together: FitResult,
    started: list[subprocess.Popen[bytes]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Interrupted, match="stopped after epoch 2 of 4"):
        fit(on(2), DATA, tmp_path / "two", callbacks=[PressCtrlC(2, 1, started)])
    (other,) = started
    assert other.poll() is not None
    said = capfd.readouterr().err
    assert said.count("stopping at the end of this batch") == 1 and "Traceback" not in said
    shutil.copytree(tmp_path / "two", tmp_path / "two-then-one")
    assert_same_curve(fit(CONFIG, DATA, tmp_path / "two-then-one", resume=True), alone)
    again = fit(on(2), DATA, tmp_path / "two", resume=True)
    pd.testing.assert_frame_equal(
        again.history.drop(columns=TIMES), together.history.drop(columns=TIMES), check_exact=True
    )
    for name in ("best", "last", "swa"):
        found, expected = (checkpoint.load(run.output / "checkpoints" / name) for run in (again, together))
        assert all(torch.equal(found.state_dict()[key], value) for key, value in expected.state_dict().items())
    with pytest.raises(Interrupted):
        fit(CONFIG, DATA, tmp_path / "one-then-two", callbacks=[PressCtrlC(1, 2)])
    assert_same_curve(fit(on(2), DATA, tmp_path / "one-then-two", resume=True), alone)


# What goes wrong


class Kill(pl.Callback):
    """What the system does when memory runs out."""

    def __init__(self, started: list[subprocess.Popen[bytes]]) -> None:
        self.started = started

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 1:
            self.started[0].kill()


def test_a_killed_rank_is_reported(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    with refused(RankError, "rank 1 ended (exit code -9: killed"):
        fit(on(2), DATA, tmp_path / "run", callbacks=[Kill(started)])
    assert len(pd.read_csv(tmp_path / "run" / "metrics.csv")) == 1
    assert ranks.n_ranks() == 1 and started[0].poll() is not None


def torchrun(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["--no-python", sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=540)


ENDS = """
import importlib.util, sys
from pathlib import Path
import torch
from crystalframer.model.network import CrystalFramer
from crystalframer.training import fit, ranks

sys.path.append(str(Path(sys.argv[1]).parents[1] / "support"))
spec = importlib.util.spec_from_file_location("tests_of_ranks", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
sys.modules["tests_of_ranks"] = tests
spec.loader.exec_module(tests)
forward, n_calls = CrystalFramer.forward, 0

def poisoned(self, batch, noise_seed=None):
    global n_calls
    n_calls += noise_seed is not None
    prediction = forward(self, batch, noise_seed)
    return prediction * torch.nan if noise_seed is not None and ranks.rank() == 1 and n_calls == 5 else prediction

def end(name, *callbacks):
    try:
        fit(tests.CONFIG, tests.DATA, Path(sys.argv[2], name), callbacks=callbacks)
    except BaseException as error:
        Path(sys.argv[2], f"{name}-{ranks.rank()}").write_text(f"{type(error).__name__}: {error}")

CrystalFramer.forward = poisoned
end("poisoned")
CrystalFramer.forward = forward
end("interrupted", tests.PressCtrlC(2, 1))
"""


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each rank of torchrun said at the end of a run with an error in one of them, and of one with Ctrl-C."""
    folder = tmp_path_factory.mktemp("ends")
    done = torchrun(ENDS, __file__, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_an_error_of_one_rank_ends_all_with_the_same(ends: Path) -> None:
    """The fifth batch is the first of epoch 2; it belongs to the third step."""
    said, said_by_other = ((ends / f"poisoned-{rank}").read_text() for rank in range(2))
    assert said == said_by_other
    assert said.startswith("TrainingError: epoch 2, step 3: the loss is not finite; crystals 'c")
    crystals = prepare(DATA.train, MODEL.radius, MODEL.target_names)
    order = BatchOrder(crystals.n_atoms, 8, seed=TRAINING.seed, n_edges=crystals.n_edges, rank=1, n_ranks=2)
    share = order.shares(order.batches(1)[0])[1]
    assert re.findall(r"'(c\d+)'", said) == [crystals.ids[row] for row in share]


def test_ctrl_c_under_torchrun_ends_all_ranks(ends: Path) -> None:
    """Every rank is told. The second does not end before the first, but because of it."""
    said = (ends / "interrupted-0").read_text()
    assert said.startswith("Interrupted: training was stopped after epoch 2 of 4")
    assert (ends / "interrupted-1").read_text() == "Interrupted: training was stopped; rank 0 says what was saved"
    assert len(pd.read_csv(ends / "interrupted" / "metrics.csv")) == 2


TRAINS_TWICE = """
import os, sys
from pathlib import Path
from crystalframer.cli import main

codes = [main(sys.argv[2:]) for _ in range(2)]
Path(sys.argv[1], os.environ["RANK"]).write_text(str(codes))
"""


def test_the_command_line_under_torchrun_speaks_once(tmp_path: Path) -> None:
    """The second training is refused: the folder holds the first."""
    options = ["train", "--preset", "tiny", "--training.accelerator", "cpu", "--training.batch-size", "128"]
    options += ["--training.n-epochs", "1", "--training.swa-epochs", "0", "--output", str(tmp_path / "run")]
    done = torchrun(TRAINS_TWICE, tmp_path, *options)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["[0, 2]"] * 2, done.stderr
    assert done.stdout.count("run folder") == 1 and done.stdout.count("test MAE") == 1
    assert done.stderr.count("holds a complete run") == 1


def test_more_than_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(ConfigError, field="training.n_devices"):
        on(0)
    with refused(ConfigError, "--nproc-per-node 4", field="training.n_nodes"):
        launch.check(replace(TRAINING, n_devices=4, n_nodes=2), "cpu")
    for n_devices, kind in ((64, "cuda"), (2, "mps")):
        with refused(ConfigError, n_devices, field="training.n_devices"):
            launch.check(replace(TRAINING, n_devices=n_devices), kind)
    under_torchrun = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    for name, value in (under_torchrun | {"LOCAL_WORLD_SIZE": "4"}).items():
        monkeypatch.setenv(name, value)
    assert launch.launched() == launch.Rank(5, 8, 1, "env://")
    launch.check(replace(TRAINING, n_devices=4, n_nodes=2), "cuda")
    with refused(ConfigError, "2 x 4 processes", field="training.n_devices"):
        launch.check(replace(TRAINING, n_devices=2), "cuda")


def test_a_rank_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    of_job = {"SLURM_JOB_ID": "4711234", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}
    for name, value in of_job.items():
        monkeypatch.setenv(name, value)
    assert launch.launched() is None  # the script of sbatch itself, without srun
    of_step = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "6", "SLURM_LOCALID": "2", "SLURM_STEP_NUM_NODES": "2"}
    for name, value in (of_step | {"SLURM_STEP_NODELIST": "gpu[007-008]"}).items():
        monkeypatch.setenv(name, value)
    assert launch.launched() == launch.Rank(6, 8, 2, "tcp://gpu007:16234")
    launch.check(replace(TRAINING, n_devices=4, n_nodes=2), "cuda")
    with refused(ConfigError, "2 x 4 processes", field="training.n_nodes"):
        launch.check(replace(TRAINING, n_nodes=3), "cuda")


# Shares


def test_shares_are_even_and_whole() -> None:
    rng = np.random.default_rng(0)
    work = (1000 * rng.lognormal(0.0, 1.0, 256)).astype(np.int64)
    shares = even_shares(work, 8)
    np.testing.assert_array_equal(np.sort(np.concatenate(shares)), np.arange(256))
    assert all((np.diff(share) > 0).all() for share in shares)
    loads = np.array([work[share].sum() for share in shares])
    assert loads.max() < 1.01 * loads.mean()
    by_turns = np.array([work[first::8].sum() for first in range(8)])
    assert by_turns.max() > 1.05 * by_turns.mean()
    assert [share.tolist() for share in even_shares(np.array([3, 5]), 4)] == [[1], [0], [], []]


def test_ranks_see_every_crystal_once_and_fill_what_is_empty() -> None:
    crystals = prepare(DATA.train, MODEL.radius, MODEL.target_names)
    seen = [list(train_loader(crystals, TRAINING, rank=rank, n_ranks=3)) for rank in range(3)]
    whole = list(train_loader(crystals, TRAINING))
    assert [len(batches) for batches in seen] == [len(whole)] * 3
    for batch, *shares in zip(whole, *seen, strict=True):
        labelled = [share for share in shares if not share.targets.isnan().all()]
        assert sorted(batch.ids) == sorted(name for share in labelled for name in share.ids)
        assert all(share.n_crystals > 0 for share in shares)
    assert [share[-1].targets.isnan().all().item() for share in seen] == [False, True, True]
