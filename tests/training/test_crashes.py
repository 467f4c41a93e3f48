"""What is left of a run that ends without a warning, and that it goes on to the same numbers, bit for bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from permissions import open_folder, read_only
from refusals import refused
from small_runs import DATA, assert_same_run, begin_or_resume, bit_for_bit, training

from crystalframer import checkpoint
from crystalframer.errors import ConfigError, TrainingError
from crystalframer.training import FitResult, fit
from crystalframer.training.folder import RunFolder


def run(output: Path) -> FitResult:
    """Begin, or go on."""
    return begin_or_resume(output, 2)


def n_epochs(output: Path) -> int:
    try:
        return len((output / "metrics.csv").read_text(encoding="utf-8").splitlines()) - 1
    except FileNotFoundError:
        return 0


@bit_for_bit
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("n_kills", [2, pytest.param(10, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_a_run_that_is_killed_again_and_again(n_kills: int, tmp_path: Path) -> None:
    """SIGKILL at random moments, every time others: in a step, in a save, between two files."""
    output, rng, n = tmp_path / "run", np.random.default_rng(), 16 * (n_kills + 1)
    support = str(Path(__file__).parents[1] / "support")
    code = f"import sys; sys.path.insert(0, {support!r}); from small_runs import *; "
    code += f"begin_or_resume(Path({str(output)!r}), {n})"
    for kill in range(n_kills):
        wanted = n_epochs(output) + rng.integers(1, 6)
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
        while n_epochs(output) < wanted and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))  # some epochs at most: the last kill comes long before the end
        process.kill()
        _, errors = process.communicate()
        assert process.returncode == -9, f"kill {kill + 1}: the run had ended before it: {errors.decode()}"
    assert_same_run(begin_or_resume(output, n), begin_or_resume(tmp_path / "undisturbed", n))


class Disk:
    """Writes that fail from the nth on, as on a full disk, until there is space again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n_good: int) -> None:
        self.n_left, self.fsync = n_good, os.fsync
        monkeypatch.setattr(os, "fsync", self.sync)

    def sync(self, file: int) -> None:
        self.n_left -= 1
        if self.n_left < 0:
            raise OSError(28, "No space left on device")
        self.fsync(file)


@bit_for_bit
@pytest.mark.parametrize("n_good", [0, 2, 7, 15, 20, 24])
def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_good: int) -> None:
    """At the first file, and at later ones: it is said what to do, and doing it works."""
    with monkeypatch.context() as patch:
        disk = Disk(patch, n_good)
        with pytest.raises((TrainingError, checkpoint.CheckpointError), match=r"No space left on device.*[Ff]ree some"):
            run(tmp_path / "run")
        assert disk.n_left < 0
    assert_same_run(run(tmp_path / "run"), run(tmp_path / "other"))


@bit_for_bit
def test_a_folder_that_is_read_only() -> None:
    """A new run, and one that was under way, which then goes on where it can be written."""
    with open_folder() as folder:
        run(folder / "run")
        (folder / "run" / "result.json").unlink()
        with read_only(folder):
            for path in (folder / "new", folder / "run"):
                with refused(TrainingError, "denied", path=path):
                    run(path)
        assert_same_run(run(folder / "run"), run(folder / "new"))


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with refused(TrainingError, "Not a directory", path=tmp_path / "file" / "run"):
        run(tmp_path / "file" / "run")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped just before its end."""
    output = tmp_path_factory.mktemp("stopped") / "run"
    run(output)
    (output / "result.json").unlink()
    return output


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_damaged_state(stopped: Path, tmp_path: Path, share: float) -> None:
    """It names the last good weights, and they are good."""
    output = shutil.copytree(stopped, tmp_path / "run")
    state = output / "checkpoints" / "last" / "resume.ckpt"
    state.write_bytes(state.read_bytes()[: int(share * state.stat().st_size)])
    best = output / "checkpoints" / "best"
    with refused(TrainingError, best, path=state):
        run(output)
    fit(training(n_epochs=1, swa_epochs=0, initial_weights=str(best)), DATA, tmp_path / "again")


def test_one_bit_that_is_wrong(stopped: Path, tmp_path: Path) -> None:
    """Wherever it is in the state or the weights: it is said, or it changes nothing."""
    output, rng = shutil.copytree(stopped, tmp_path / "run"), np.random.default_rng(0)
    expected = RunFolder(output).read_state()
    best = checkpoint.load(output).state_dict()
    n_said = 0
    for name in ["last/resume.ckpt"] * 40 + ["best/model.safetensors"] * 10:
        file = output / "checkpoints" / name
        good = file.read_bytes()
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bad)
        try:
            assert same(RunFolder(output).read_state(), expected)
            assert same(checkpoint.load(output).state_dict(), best)
        except (TrainingError, checkpoint.CheckpointError) as error:
            assert str(file) in str(error)
            n_said += 1
        file.write_bytes(good)
    assert n_said > 25  # of the others, most are in the padding between two arrays


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other or (one != one and other != other))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_a_damaged_description_of_a_run(stopped: Path, tmp_path: Path, name: str, content: bytes) -> None:
    output = shutil.copytree(stopped, tmp_path / "run")
    (output / name).write_bytes(content)
    best = output / "checkpoints" / "best"
    with refused(ConfigError if name == "config.json" else TrainingError, best, path=output / name):
        run(output)
