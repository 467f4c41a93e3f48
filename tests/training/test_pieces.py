"""A batch that does not fit into memory is computed in pieces, and what is learned stays the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from refusals import refused
from small_runs import (
    CONFIG,
    DATA,
    MODEL,
    PressCtrlC,
    assert_same_run,
    bit_for_bit,
    training,
    weights,
    without_times,
)
from torch import Tensor

from crystalframer import memory
from crystalframer.config import Config, FrameConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import BatchOrder, prepare, train_loader
from crystalframer.errors import ConfigError, CrystalError
from crystalframer.ops import compilers
from crystalframer.training import FitResult, Interrupted, fit, ranks
from crystalframer.training.folder import RunFolder
from crystalframer.training.inputs import check_memory, in_pieces_that_fit
from crystalframer.training.task import TrainingTask

CONFIG = replace(CONFIG, training=replace(CONFIG.training, n_threads=1, drop_last=False))


class SmallGpu:
    """Runs out of memory for more crystals than it has room for, from the n-th time on that it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, from_batch: int = 0) -> None:
        self.n_failed = self.n_batches = 0
        plain = TrainingTask._predict_for_training

        def predict(task: TrainingTask, batch: CrystalBatch, batch_idx: int) -> Tensor:
            self.n_batches += 1
            if batch.n_crystals > room and self.n_batches > from_batch:
                self.n_failed += 1
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return plain(task, batch, batch_idx)

        monkeypatch.setattr(TrainingTask, "_predict_for_training", predict)


def recorded_pieces(result: FitResult) -> int:
    return RunFolder(result.output).read_config().training.n_pieces


def test_pieces_change_nothing_but_the_memory(tmp_path: Path) -> None:
    """With batches of 8, 8 and 6 crystals, pieces of 4 and fewer; without noise, which depends on the place."""
    data = replace(DATA, train=DATA.train.select(range(22)))
    config = replace(CONFIG, model=replace(MODEL, frame=FrameConfig("none")))
    found = {n: fit(in_n_pieces(config, n), data, tmp_path / str(n)) for n in (1, 3)}
    pd.testing.assert_frame_equal(without_times(found[3]), without_times(found[1]), rtol=1e-4)
    assert found[3].history["step"].tolist() == [3, 6, 9, 12, 15]


def most_crystals(n_pieces: int) -> int:
    """Crystals in the largest piece; they are divided by their edges."""
    crystals = prepare(DATA.train.with_targets(MODEL.targets).labelled(), MODEL.radius, MODEL.target_names)
    order = train_loader(crystals, in_n_pieces(CONFIG, n_pieces).training).sampler
    assert isinstance(order, BatchOrder)
    return max(len(piece) for epoch in range(5) for batch in order.batches(epoch) for piece in order.shares(batch))


def in_n_pieces(config: Config, n: int) -> Config:
    return replace(config, training=replace(config.training, n_pieces=n))


@bit_for_bit
def test_a_gpu_without_room_for_a_batch_computes_it_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The numbers are those of a run with as many pieces from the start, also when it is stopped and resumed."""
    by_hand = fit(in_n_pieces(CONFIG, 4), DATA, tmp_path / "by-hand")
    gpu = SmallGpu(monkeypatch, room=most_crystals(4))
    found = fit(CONFIG, DATA, tmp_path / "found")
    assert gpu.n_failed == 2 and recorded_pieces(found) == 4
    assert_same_run(found, by_hand)
    said = capsys.readouterr().err
    assert "from epoch 1, with each batch in 2 pieces" in said and "in 4 pieces (training.n_pieces)" in said

    with pytest.raises(Interrupted):
        fit(CONFIG, DATA, tmp_path / "resumed", callbacks=[PressCtrlC(2, 1, times=2)])
    monkeypatch.undo()
    resumed = fit(CONFIG, DATA, tmp_path / "resumed", resume=True)  # on a GPU that has room
    assert recorded_pieces(resumed) == 4
    assert_same_run(resumed, by_hand)


def test_complete_epochs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SmallGpu(monkeypatch, room=most_crystals(2), from_batch=7)  # in the third epoch of three batches each
    found = fit(CONFIG, DATA, tmp_path / "run")
    assert gpu.n_failed == 1 and recorded_pieces(found) == 2
    assert found.history["epoch"].tolist() == [1, 2, 3, 4, 5] and found.history["step"].tolist() == [3, 6, 9, 12, 15]
    monkeypatch.undo()
    whole = fit(CONFIG, DATA, tmp_path / "whole")
    pd.testing.assert_frame_equal(without_times(found).head(2), without_times(whole).head(2), check_exact=True)
    assert not all(torch.equal(value, weights(whole, "last")[name]) for name, value in weights(found, "last").items())


def test_a_crystal_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SmallGpu(monkeypatch, room=0)
    with refused(CrystalError, "one crystal at a time", "data.max_atoms_per_crystal"):
        fit(CONFIG, DATA, tmp_path / "run")


def test_several_gpus_are_told_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SmallGpu(monkeypatch, room=4)
    monkeypatch.setattr(ranks, "n_ranks", lambda: 2 if "gpu" in found else 1)
    found: list[str] = []
    plain = TrainingTask._predict_for_training

    def predict(task: TrainingTask, batch: CrystalBatch, batch_idx: int) -> Tensor:
        found.append("gpu")
        return plain(task, batch, batch_idx)

    monkeypatch.setattr(TrainingTask, "_predict_for_training", predict)
    with refused(ConfigError, "training.n_pieces = 2"):
        fit(CONFIG, DATA, tmp_path / "run")


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_gpu_that_is_not_there_is_refused_with_what_it_needs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    config = replace(CONFIG, training=replace(CONFIG.training, accelerator=kind))
    with refused(ConfigError, {"cuda": "NVIDIA", "mps": "Apple"}[kind], "such as cpu", field="training.accelerator"):
        fit(config, DATA, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pieces_follow_from_the_estimate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a GPU. What one step needs on a CPU is refused, as before."""
    crystals = prepare(DATA.train.with_targets(MODEL.targets).labelled(), MODEL.radius, MODEL.target_names)
    largest = memory.batch_memory(MODEL, *crystals.sizes(np.arange(8)), training=True)
    monkeypatch.setattr(memory, "free_memory", lambda device: largest // 2)
    monkeypatch.setattr(compilers, "compiler_is_there", lambda device_type: True)
    with refused(ConfigError, "training.n_pieces"):
        check_memory(CONFIG, {"train": crystals}, torch.device("cpu"), 1)
    found = in_pieces_that_fit(CONFIG, crystals, torch.device("cuda"))
    assert 2 <= found.training.n_pieces <= 8
    assert f"in {found.training.n_pieces} pieces" in capsys.readouterr().err
    check_memory(found, {"train": crystals}, torch.device("cuda"), 1)
    assert max(batch.n_crystals for batch in train_loader(crystals, found.training)) < 8


def test_a_piece_of_too_few_crystals_counts_nothing() -> None:
    crystals = prepare(DATA.train.with_targets(MODEL.targets).labelled(), MODEL.radius, MODEL.target_names)
    config = training(batch_size=2, n_pieces=3).training
    pieces = list(train_loader(crystals, config))
    assert len(pieces) == 3 * len(crystals) // 2
    n_labels = [int((~batch.targets.isnan()).sum()) for batch in pieces]
    assert n_labels == [1, 1, 0] * (len(crystals) // 2)
