"""Resident crystals and recorded graphs change the speed of a training, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from crystalframer import ops
from crystalframer.config import Config, FrameConfig, ModelConfig, Target, TrainingConfig
from crystalframer.crystals.loading import BatchOrder, PreparedCrystals, make_batch, prepare
from crystalframer.crystals.on_gpu import CrystalRows, ResidentCrystals, RowLoader, largest_sizes
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.frame_methods import FRAME_METHODS
from crystalframer.maths import segments
from crystalframer.model import attention, network
from crystalframer.model.network import CrystalFramer
from crystalframer.ops import reference
from crystalframer.presets import preset
from crystalframer.testing import random_crystal
from crystalframer.training import fit, graphs, run
from crystalframer.training.graphs import PaddedPass, ResidentPass, resident_pass
from crystalframer.training.task import TrainingTask

TARGET = Target("energy", "eV/atom")
MODEL = replace(preset("tiny").config.model, targets=(TARGET,))
TRAINING = TrainingConfig(n_epochs=2, batch_size=4, swa_epochs=1, learning_rate=2e-3, drop_last=False)
SEED = 2**40 + 3


def crystals(n: int) -> CrystalDataset:
    chosen = [random_crystal(k, 1 + k % 6).with_targets({"energy": np.sin(k)}) for k in range(n)]
    return CrystalDataset.from_crystals(chosen, (TARGET,))


def prediction_and_gradients(model: CrystalFramer, prediction: Tensor) -> dict[str, Tensor]:
    gradients = torch.autograd.grad(prediction.cos().sum(), list(model.parameters()))
    return {"prediction": prediction.detach(), **dict(zip(dict(model.named_parameters()), gradients, strict=True))}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    largest = max(float(grad.abs().max()) for name, grad in expected.items() if name != "prediction")
    for name, value in expected.items():
        scale = float(value.abs().max()) if name == "prediction" else largest
        assert float((found[name] - value).abs().max()) <= tolerance * scale, name


@pytest.mark.parametrize(
    "frame", [FrameConfig(), FrameConfig(weighted_margin=1.0, second_axis="sine"), FrameConfig("none")]
)
def test_padding_changes_no_prediction_and_no_gradient(frame: FrameConfig) -> None:
    """By the CUDA kernels (in the interpreter, where there is no GPU), with noise and with a crystal missing."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = replace(MODEL, n_layers=2, frame=frame)
    prepared = prepare(crystals(5), 3.0, ["energy"])
    model = CrystalFramer(config, torch.Generator().manual_seed(0)).to(device)
    resident, rows = ResidentCrystals.of(prepared, torch.device(device)), [3, 1]
    n_atoms, n_edges = int(prepared.n_atoms[rows].sum()), int(prepared.n_edges[rows].sum())
    padded = PaddedPass(model, resident, n_atoms + 3, n_edges + 7)
    with ops.use("cuda"):
        found = padded(torch.tensor([*rows, -1], device=device), torch.tensor(SEED, device=device))
        expected = model(prepared[rows].to(device), SEED)
        assert torch.isfinite(found).all() and found.shape == (4, 1)
        assert_close(prediction_and_gradients(model, found[:2]), prediction_and_gradients(model, expected), 1e-5)


def test_noise_of_a_tensor_is_that_of_its_number() -> None:
    config = replace(MODEL, frame=FrameConfig("max", noise=10.0))
    model = CrystalFramer(config, torch.Generator().manual_seed(0))
    batch = make_batch([random_crystal(1, 4)], config.radius)
    with torch.no_grad():
        for implementation in ("reference", "cpu"):
            with ops.use(implementation):
                assert torch.equal(model(batch, torch.tensor(SEED)), model(batch, SEED))
        assert not torch.equal(model(batch, SEED), model(batch, SEED + 1))


def resident_anyway(
    model: CrystalFramer, prepared: PreparedCrystals, order: BatchOrder, config: TrainingConfig, device: torch.device
) -> ResidentPass:
    largest = largest_sizes(prepared, iter(order.batches(0)))
    return ResidentPass(model, ResidentCrystals.of(prepared, device), largest)


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_a_training_with_resident_crystals_is_the_same(method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, where nothing is recorded. Products have one row more, which rounds differently."""
    training = replace(TRAINING, accelerator="cpu", n_threads=1)
    config = Config(replace(MODEL, frame=FrameConfig(method)), training=training)
    data = crystals(14)
    splits = Splits(data.select(range(10)), data.select(range(10, 12)), data.select(range(12, 14)))
    by_host = fit(config, splits, tmp_path / "host")
    monkeypatch.setattr(run, "resident_pass", resident_anyway)
    resident = fit(config, splits, tmp_path / "resident")
    untimed = [name for name in by_host.history if "seconds" not in name]
    found, expected = (pd.DataFrame(result.history[untimed]) for result in (resident, by_host))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4)


@pytest.mark.usefixtures("as_in_production")
def test_crystals_stay_with_the_host_where_they_have_no_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or where other processes make the batches, or other GPUs take part; the user is told."""
    prepared = prepare(crystals(5), 3.0, ["energy"])
    model, order = CrystalFramer(MODEL), BatchOrder(prepared.n_atoms, 2)
    arguments = (model, prepared, order, TRAINING)
    assert resident_pass(*arguments, torch.device("cpu")) is None
    assert not capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 1000))
    assert resident_pass(*arguments, torch.device("cuda")) is None
    assert "of the 0.0 GB that are free on cuda" in capsys.readouterr().err
    for rank in range(2):
        shared = BatchOrder(prepared.n_atoms, 2, rank=rank, n_ranks=2)
        assert resident_pass(model, prepared, shared, TRAINING, torch.device("cuda")) is None
        assert ("on several GPUs" in capsys.readouterr().err) == (rank == 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    monkeypatch.setattr(graphs, "ResidentPass", lambda *given: given)
    monkeypatch.setattr(graphs.ResidentCrystals, "of", lambda crystals, device: crystals)
    found = resident_pass(*arguments, torch.device("cuda"))
    assert isinstance(found, tuple) and found[2] == largest_sizes(prepared, iter(order.batches(0)))
    assert not capsys.readouterr().err
    assert resident_pass(model, prepared, order, replace(TRAINING, n_workers=1), torch.device("cuda")) is None
    assert "training.n_workers = 1" in capsys.readouterr().err
    pca = CrystalFramer(replace(MODEL, frame=FrameConfig("weighted-pca")))
    assert resident_pass(pca, prepared, order, TRAINING, torch.device("cuda")) is not None
    assert "frames of the method weighted-pca" in capsys.readouterr().err


class Gpu:
    """What torch keeps about a GPU, of which a recording changes all, as `torch.cuda.graph` does."""

    class Generator:
        def __init__(self, is_recorded: bool = False) -> None:
            self.is_recorded = is_recorded

        def clone_state(self) -> Gpu.Generator:
            return Gpu.Generator(self.is_recorded)

        def graphsafe_set_state(self, state: Gpu.Generator) -> None:
            self.is_recorded = state.is_recorded

    def __init__(self) -> None:
        self.stream, self.generator = "the usual one", Gpu.Generator()
        self.pools_in_use: list[str] = []
        self.recorded_pools: list[str] = []
        self.is_recording = False

    def begin_recording(self, pool: str) -> None:
        self.stream, self.generator.is_recorded, self.is_recording = "another", True, True
        self.pools_in_use.append(pool)
        self.recorded_pools.append(pool)

    def end_recording(self, pool: str) -> None:
        self.stream, self.generator.is_recorded, self.is_recording = "the usual one", False, False
        self.end_allocation(0, pool)

    def end_allocation(self, device: int, pool: str) -> None:
        if pool not in self.recorded_pools:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.recorded_pools.remove(pool)

    def release(self, device: int, pool: str) -> None:
        self.pools_in_use.remove(pool)

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.stream)
        monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(self, "stream", stream))
        monkeypatch.setattr(torch.cuda, "default_generators", {None: self.generator})
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "a pool")
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_allocation, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", self.release, raising=False)


def without_a_gpu(monkeypatch: pytest.MonkeyPatch, recorded, gpu: Gpu | None = None) -> ResidentPass:
    """A pass that takes the CPU for a GPU on which `recorded` is what comes of recording."""
    (gpu or Gpu()).stand_in(monkeypatch)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorded)
    monkeypatch.setattr(graphs.ops, "serving", lambda device, dtype: "cuda")
    monkeypatch.setattr(network, "segment_mean", segments.segment_mean)
    monkeypatch.setattr(network, "lookup", lambda table, row: table[row])
    monkeypatch.setattr(attention, "framed_attention", lambda given: reference.framed_attention(given).output)
    prepared = prepare(crystals(4), 3.0, ["energy"])
    model = CrystalFramer(MODEL, torch.Generator().manual_seed(0))
    # What is padded has atoms that only kernels for CUDA know to leave out.
    monkeypatch.setattr(PaddedPass, "forward", lambda self, rows, seed: model(prepared[rows.tolist()], seed))
    sizes = int(prepared.n_atoms.sum()), int(prepared.n_edges.sum())
    return ResidentPass(model, ResidentCrystals.of(prepared, torch.device("cpu")), sizes)


ROWS = CrystalRows(torch.arange(4), torch.zeros(4, 1), torch.tensor(1), tuple("abcd"), 0, 0)


def test_what_was_recorded_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = []

    def recorded(module: torch.nn.Module, inputs: tuple[Tensor, ...], pool: str) -> torch.nn.Module:
        recordings.append(inputs)
        return module

    resident = without_a_gpu(monkeypatch, recorded)
    found = [resident(replace(ROWS, rows=ROWS.rows[order])) for order in ([0, 1, 2, 3], [3, 2, 1, 0])]
    torch.testing.assert_close(found[0], found[1].flip(0))
    assert len(recordings) == 1 and torch.equal(recordings[0][0], ROWS.rows) and int(recordings[0][1]) == 1
    resident.close()
    assert resident._recorded is None


def whole_batch(resident: ResidentPass) -> CrystalRows:
    return replace(ROWS, n_atoms=resident._n_atoms, n_edges=resident._n_edges - 1)


def test_numbers_that_deviate_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def deviates(module: torch.nn.Module, inputs: tuple[Tensor, ...], pool: str) -> torch.nn.Module:
        plain = type(module).forward
        module.forward = lambda *given: 1.1 * plain(module, *given)  # type: ignore[method-assign]
        return module

    resident = without_a_gpu(monkeypatch, deviates)
    with pytest.warns(UserWarning, match="goes on without CUDA graphs.*other numbers") as seen:
        found = [resident(whole_batch(resident)) for _ in range(2)]
    assert len(seen) == 1 and torch.equal(*found)


@pytest.mark.parametrize("moment", ["warming up", "recording forwards", "recording backwards"])
def test_a_recording_that_fails_leaves_no_harm(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """The pass waits for the GPU, which ends a recording with an error, and then torch's end of it fails, too."""
    gpu, attempts = Gpu(), []

    def records(module: torch.nn.Module, inputs: tuple[Tensor, ...], pool: str) -> torch.nn.Module:
        attempts.append(pool)
        if moment == "warming up":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        gpu.begin_recording(pool)
        if moment == "recording backwards":
            module(*inputs)
            gpu.end_recording(pool)
            gpu.pools_in_use.clear()  # with the graph of the forward pass
            gpu.begin_recording(pool)
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture\nand more")

    resident = without_a_gpu(monkeypatch, records, gpu)
    resident._model.requires_grad_()
    with pytest.warns(UserWarning, match="goes on without CUDA graphs.*(capture|2.00 GiB)$") as seen:
        found = [resident(whole_batch(resident)) for _ in range(3)]
    assert len(seen) == 1 and len(attempts) == 1
    assert gpu.stream == "the usual one" and not gpu.generator.is_recorded
    assert not gpu.recorded_pools and not gpu.pools_in_use
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    found[2].sum().backward()
    assert all(parameter.grad is not None for parameter in resident._model.parameters())


def test_gradients_of_several_replays_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded pass returns them in memory that its next replay overwrites, as here."""

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx, plain, gradients, rows, seed, *parameters):
            ctx.given = plain, gradients, rows, seed, parameters
            with torch.no_grad():
                return plain(rows, seed)

        @staticmethod
        def backward(ctx, *grads):
            plain, gradients, rows, seed, parameters = ctx.given
            with torch.enable_grad():
                found = torch.autograd.grad(plain(rows, seed), parameters, *grads)
            for gradient, value in zip(gradients, found, strict=True):
                gradient.copy_(value)
            return None, None, None, None, *(gradient.detach() for gradient in gradients)

    def records(module: torch.nn.Module, inputs: tuple[Tensor, ...], pool: str) -> torch.nn.Module:
        plain, parameters = module.forward, list(module.parameters())
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        module.forward = lambda *given: Replay.apply(plain, gradients, *given, *parameters)  # type: ignore[assignment]
        return module

    resident = without_a_gpu(monkeypatch, records)
    model, training = resident._model, replace(TRAINING, accumulate=2, swa_epochs=0)
    batches = [replace(ROWS, rows=ROWS.rows[order]) for order in ([0, 1, 2, 3], [3, 3, 2, 2], [1, 1, 0, 0])]
    task = TrainingTask(model, training, lambda epoch: 3, make_batch([random_crystal(0, 2)], 3.0), resident)
    optimiser = torch.optim.SGD(model.parameters())
    task.on_train_epoch_start()
    for first in (0, 1):
        task.optimizer_zero_grad(0, first, optimiser)
        for number in (first, first + 1):
            task.training_step(batches[number], number).backward()
        found = [parameter.grad.clone() for parameter in model.parameters()]  # type: ignore[union-attr]
        assert resident._recorded is not None
        recorded, resident._recorded = resident._recorded, PaddedPass(model, resident.crystals, 0, 0)
        losses = torch.stack([task.training_step(batches[number], number) for number in (first, first + 1)])
        torch.testing.assert_close(found, list(torch.autograd.grad(losses.sum(), list(model.parameters()))))
        resident._recorded = recorded


def test_differences_are_shares_of_what_is_large() -> None:
    exact = [torch.tensor([2.0, -4.0]), torch.tensor([10.0]), torch.tensor([1e-9])]
    found = [torch.tensor([2.0, -4.2]), torch.tensor([10.0]), torch.tensor([-1e-9])]
    assert graphs._difference(found, exact) == pytest.approx(0.05)
    assert graphs._difference(exact, exact) == 0.0
    assert graphs._difference([torch.tensor([2.0, torch.nan]), *found[1:]], exact) == np.inf


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["max", "static-max", "none"])
def test_a_recorded_pass_gives_what_the_model_gives(method) -> None:
    """For several batches after the one it was recorded with, and for those it leaves to the model."""
    config = ModelConfig(targets=(TARGET,), frame=FrameConfig(method))
    prepared, device = prepare(crystals(40), config.radius, ["energy"]), torch.device("cuda")
    model = CrystalFramer(config, torch.Generator().manual_seed(0)).to(device)
    order = BatchOrder(prepared.n_atoms, 8, seed=0)
    resident = resident_pass(model, prepared, order, TRAINING, device)
    assert resident is not None
    loader = RowLoader(prepared, resident.crystals, order, lambda epoch, number: number)
    for seed, (rows, batch) in enumerate(zip(loader, order.batches(0), strict=True)):
        found = prediction_and_gradients(model, resident(rows))
        expected = prediction_and_gradients(model, model(prepared[batch].to(device), seed))
        assert_close(found, expected, 1e-4)
    assert resident._recorded is not None
    everything = RowLoader(prepared, resident.crystals, BatchOrder(prepared.n_atoms, 40), lambda epoch, number: 1)
    assert_close(
        prediction_and_gradients(model, resident(next(iter(everything)))),
        prediction_and_gradients(model, model(prepared[range(40)].to(device), 1)),
        1e-4,
    )
    resident.close()


@pytest.mark.gpu
def test_a_training_on_the_gpu_learns_as_on_the_cpu(tmp_path: Path) -> None:
    """With an eps at which AdamW does not magnify rounding: its first steps are else ±lr, whatever the gradient."""
    data = crystals(60)
    splits = Splits(data.select(range(48)), data.select(range(48, 54)), data.select(range(54, 60)))
    training = replace(TRAINING, n_epochs=3, batch_size=8, eps=1e-3)
    model = ModelConfig(targets=(TARGET,), n_layers=2)
    losses = {}
    for accelerator in ("cpu", "cuda"):
        config = Config(model, training=replace(training, accelerator=accelerator))
        losses[accelerator] = fit(config, splits, tmp_path / accelerator).history["train_loss"].to_numpy()
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-3)
