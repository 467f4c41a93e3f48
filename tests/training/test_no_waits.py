"""The host never waits for the GPU within a training step, and a recorded pass takes code that can be recorded.

There is no GPU here. The device `meta` of torch computes nothing but shapes: what needs a number of it, as `.item()` or
an index by truth values, is an error there, and every operator and copy between it and the host is seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crystalframer import ops
from crystalframer.config import FrameConfig, Target, TrainingConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import BatchOrder, prepare, train_loader
from crystalframer.crystals.on_gpu import CrystalRows, ResidentCrystals, RowLoader
from crystalframer.maths.chebyshev import chebyshev_of_gaussians
from crystalframer.model import attention
from crystalframer.model.network import without_weights
from crystalframer.ops import cuda
from crystalframer.presets import preset
from crystalframer.testing import random_crystal
from crystalframer.training import graphs, optimisation
from crystalframer.training.graphs import PaddedPass, ResidentPass
from crystalframer.training.task import TrainingTask

META = torch.device("meta")
aten = torch.ops.aten

FROM_DATA = (torch.tensor, torch.as_tensor, Tensor.new_tensor, torch.asarray)
"""Makes a tensor from numbers of the host, and waits until they are copied."""
NOT_RECORDABLE = {
    "aten::sort": "takes other code for many items",
    "aten::embedding_dense_backward": "counts the different rows on the host, if there are many",
    "aten::index_put_": "adds in any order",
    "aten::index_add": "adds in any order",
    "aten::scatter_add": "adds in any order",
}


class WaitsForTheDevice(AssertionError):
    """The host would wait."""


class Watched(TorchDispatchMode):
    """Counts operators, and refuses those for which the host waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords = keywords or {}
        self.operators[function._schema.name] += 1
        tensors = [a for a in tree_leaves((arguments, keywords)) if isinstance(a, Tensor)]
        devices = [tensor.device.type for tensor in tensors]
        crosses = False
        if function is aten._to_copy.default:
            crosses = str(keywords.get("device") or devices[0]) != devices[0] and not keywords.get("non_blocking")
        elif function is aten.copy_.default:
            crosses = len(set(devices)) > 1 and not any(a is True for a in arguments)
        elif "meta" in devices:  # the host may pass a single number to a kernel, and no more
            crosses = any(tensor.ndim and tensor.device.type == "cpu" for tensor in tensors)
        if crosses:
            raise WaitsForTheDevice(str(function))
        return function(*arguments, **keywords)


class NothingFromTheHost(TorchFunctionMode):
    """Refuses to make tensors on the device from numbers: torch hides that copy from a `TorchDispatchMode`."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        found = function(*arguments, **(keywords or {}))
        given = [a for a in arguments if isinstance(a, Tensor) and a.device.type == "meta"]
        if function in FROM_DATA and found.device.type == "meta" and (function is Tensor.new_tensor or not given):
            raise WaitsForTheDevice(str(function))
        return found


def watch(work: Callable[[], object]) -> Counter[str]:
    """The operators of some work; an error if it waits for the device."""
    with NothingFromTheHost(), Watched() as watched:
        work()
    return watched.operators


@pytest.fixture(autouse=True)
def _meta_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels for CUDA serve on the device `meta`, by what they tell torch about the shapes of their outputs."""
    monkeypatch.setattr(ops, "serving", lambda device, dtype: "cuda")
    monkeypatch.setattr(attention, "_full_precision", lambda features: nullcontext())  # meta knows no autocast
    adam = __import__("sys").modules["torch.optim.adam"]
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda *_, **__: None)

    def polynomials(basis: Any, device: torch.device) -> Tensor:  # copied once in a process
        return torch.empty(chebyshev_of_gaussians(basis).shape, device=device)

    monkeypatch.setattr(cuda, "_polynomials_on", polynomials)


FRAMES = {
    "max": FrameConfig(),
    "static-max": FrameConfig("static-max"),
    "drawn": FrameConfig(weighted_margin=0.1, second_axis="sine", both_hands=True),
    "none": FrameConfig("none"),
}
TRAINING = TrainingConfig(n_epochs=4, batch_size=4, swa_epochs=4, drop_last=False)
PREPARED = prepare([random_crystal(n, 1 + n % 5).with_targets({"e": float(n)}) for n in range(10)], 4.0, ["e"])


def task_on_meta(frame: FrameConfig, training: TrainingConfig = TRAINING) -> tuple[TrainingTask, ResidentPass]:
    config = replace(preset("tiny").config.model, frame=frame, targets=(Target("e", "eV"),))
    model = without_weights(config, "meta")
    resident = ResidentPass(model, ResidentCrystals.of(PREPARED, META), (30, 3000))
    task = TrainingTask(model, training, lambda epoch: 3, PREPARED[[0]], resident).to("meta")
    assert task.averaged is not None
    task.averaged.n_averaged = torch.tensor(0)  # read when an epoch starts
    return task, resident


def take_steps(task: TrainingTask, batches: Iterable[CrystalBatch | CrystalRows]) -> Iterator[Counter[str]]:
    """What Lightning does with each batch, and the operators of each step."""
    optimiser = task.configure_optimizers()
    batches = iter(batches)
    task.on_train_epoch_start()
    for number in range(3):

        def step(number: int = number) -> None:
            batch = task.transfer_batch_to_device(next(batches), META, 0)

            def closure() -> Tensor:
                loss = task.training_step(batch, number)
                optimiser.zero_grad()
                loss.backward()
                task.on_before_optimizer_step(optimiser)
                return loss

            task.optimizer_step(0, number, optimiser, closure)
            task.on_train_batch_end(None, batch, number)

        yield watch(step)


def rows(resident: ResidentPass) -> RowLoader:
    order = BatchOrder(PREPARED.n_atoms, 4, seed=0)
    return RowLoader(PREPARED, resident.crystals, order, partial(optimisation.noise_seed, 0))


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_no_step_waits_for_the_device(frame: FrameConfig) -> None:
    """With batches of the host, with resident crystals, and as they are recorded."""
    for kind in ("host", "resident", "recorded"):
        task, resident = task_on_meta(frame)
        if kind == "recorded":
            resident._recorded = PaddedPass(resident._model, resident.crystals, 30, 3000)
        else:
            resident._is_recordable = False
        batches = train_loader(PREPARED, TRAINING) if kind == "host" else rows(resident)
        taken = list(take_steps(task, batches))
        assert len(taken) == 3 and all(operators["aten::_fused_adamw_"] for operators in taken)
        assert all(operators["crystalframer::accumulate_backward_triton"] for operators in taken)
        assert len(task._norms) == 3 and task._mean._n_steps == 3


def test_no_step_of_muon_waits_for_the_device() -> None:
    """Nor one with a factor on the loss of each target; the parameters that Muon leaves out take steps of AdamW."""
    task, resident = task_on_meta(FRAMES["drawn"], replace(TRAINING, optimizer="muon", target_weights=(2.0,)))
    resident._is_recordable = False
    taken = list(take_steps(task, rows(resident)))
    assert len(taken) == 3 and all(found["aten::_fused_adamw_"] for found in taken)
    of_adamw, _ = task_on_meta(FRAMES["drawn"])
    (first, *_) = take_steps(of_adamw, train_loader(PREPARED, TRAINING))
    n_shapes = 5  # of matrices in the blocks; three products in each of five iterations
    assert all(found["aten::bmm"] == first["aten::bmm"] + n_shapes * 15 for found in taken)


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_recorded_pass_takes_the_same_code_for_all_sizes(frame: FrameConfig) -> None:
    """Torch takes other code above some thousand rows, which cannot be recorded. And sums have a fixed order."""
    task, resident = task_on_meta(frame)
    found = []
    for n_atoms, n_edges in ((30, 3000), (30_000, 3_000_000)):
        padded = PaddedPass(task.model, resident.crystals, n_atoms, n_edges)
        given = torch.zeros(1024, dtype=torch.int64, device=META), torch.zeros((), dtype=torch.int64, device=META)
        found.append(watch(lambda: graphs._prediction_and_gradients(padded, given)))  # noqa: B023
    assert found[0] == found[1]
    assert not found[0].keys() & NOT_RECORDABLE


def test_these_tests_see_what_waits() -> None:
    """Each way to wait, and that copies for which the host does not wait pass."""
    device, host = torch.zeros(3, device=META), torch.zeros(3)
    for wait in (
        lambda: torch.tensor([1, 2], device=META),
        lambda: device.new_tensor([1.0]),
        lambda: host.to(META),
        lambda: device.copy_(host),
        lambda: device.to("cpu"),
        lambda: device[torch.tensor([0, 1])],
        lambda: device.sum().item(),
        lambda: device[device > 0],
        lambda: bool((device > 0).any()),
        lambda: torch.unique(device),
    ):
        with pytest.raises((WaitsForTheDevice, NotImplementedError, RuntimeError)):
            watch(wait)
    watch(lambda: host.to(META, non_blocking=True))
    watch(lambda: device.copy_(host, non_blocking=True))
    watch(lambda: torch.full((), 7, device=META) + device * 2.0)
