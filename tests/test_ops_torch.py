"""The fast path inside torch's machinery: no_grad, compile, autocast, processes, copies, and partial gradients."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import (
    SEEDS,
    Predictions,
    assert_same_gradients,
    batch_of,
    check_compiled,
    gradients,
    step_after_fork,
    step_in_parallel,
    tiny_model,
)
from torch import Tensor, multiprocessing as mp
from torch.utils.data import DataLoader

from crystalframer import ops
from crystalframer.config import FRAME_METHODS, FrameMethod
from crystalframer.kernels import layer
from crystalframer.model import attention
from crystalframer.ops.reference import AttentionInputs


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
@pytest.mark.parametrize("method", FRAME_METHODS)
def test_without_gradients_the_numbers_are_the_same(method: FrameMethod, context: Any) -> None:
    """Also where the batch that is trained on was first seen there."""
    model, batch = tiny_model(method), batch_of(*SEEDS)
    with context():
        found = model(batch)
    trained = model(batch)
    assert not found.requires_grad and trained.requires_grad
    assert torch.equal(found, trained.detach())
    trained.sum().backward()


@pytest.mark.parametrize("method", ["none", "max"])
def test_compiled_model_gives_the_same_numbers_and_gradients(method: FrameMethod) -> None:
    """In a process of its own: torch.compile cannot see through the checks of types and shapes of the test run."""
    mp.spawn(check_compiled, (method, "cpu", "cpu"), nprocs=1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", FRAME_METHODS)
def test_autocast_leaves_attention_in_float32(method: FrameMethod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense layers resolve 2^-8; what goes into attention and what comes out of it is float32, bit for bit its own."""
    model, batch = tiny_model(method), batch_of(*SEEDS)
    full, full_gradients = model(batch).detach(), gradients(model, batch)
    seen: list[tuple[AttentionInputs, Tensor]] = []

    def recording(given: AttentionInputs) -> Tensor:
        output = ops.framed_attention(given)
        seen.append((given, output))
        return output

    monkeypatch.setattr(attention, "framed_attention", recording)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(batch)
        traced, *_ = model.trace(batch)
    assert {str(layer.attention.dtype) for layer in traced.layers} == {"float32"}
    mixed.float().square().mean().backward()
    error = float((mixed.detach().float() - full).abs().max() / full.abs().max())
    assert 0 < error <= 2**-5
    assert len(seen) == len(model.blocks)
    for given, output in seen:
        tensors = [tensor for tensor in vars(given).values() if isinstance(tensor, Tensor)]
        assert len(tensors) == (6 if model.config.frame.promises.axes else 5)
        assert {tensor.dtype for tensor in (*tensors, output)} == {torch.float32}
        assert torch.equal(ops.framed_attention(given), output)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name
        alike = torch.cosine_similarity(parameter.grad.flatten(), full_gradients[name].flatten(), dim=0)
        assert alike > 0.9 or full_gradients[name].abs().max() < 1e-6, f"gradient of {name}: cosine {alike:.3f}"


# --- processes --------------------------------------------------------------------------------------------------------


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    processes: Any = mp.spawn(step_in_parallel, (2, str(tmp_path)), nprocs=2, join=False)  # type: ignore[attr-defined]
    paths = [tmp_path / f"{rank}.pt" for rank in range(2)]
    # Not until both have ended: on a busy machine, gloo sometimes never ends a process that has done its work.
    while not processes.join(timeout=1.0) and not all(path.exists() for path in paths):
        pass
    for process in processes.processes:
        process.kill()
    expected = gradients(tiny_model(), batch_of(*SEEDS))
    for rank in range(2):
        assert_same_gradients(torch.load(paths[rank]), expected, 1e-4)


@pytest.fixture
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> Any:
    """However small the batch."""
    monkeypatch.setattr(layer, "SMALLEST_SHARE", 10)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_loader_workers_after_the_threads_are_running(start: str) -> None:
    """A forked child inherits the memory of the kernels' threads but not the threads."""
    if start not in mp.get_all_start_methods():
        pytest.skip(f"no {start} on this platform")
    data = Predictions(tiny_model().eval())

    def predictions(n_threads: int) -> Tensor:
        torch.set_num_threads(n_threads)
        return torch.stack([data[n] for n in range(len(data))])

    before = predictions(2)
    found = torch.cat(list(DataLoader(data, 2, num_workers=1, multiprocessing_context=start, timeout=300)))
    # A worker has one thread, and on some processors torch's own products differ by their number in the last bit.
    assert torch.equal(found, predictions(1))
    assert torch.equal(predictions(2), before)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_trains_on() -> None:
    model, batch = tiny_model(), batch_of(*SEEDS)
    expected = gradients(model, batch)
    process = mp.get_context("fork").Process(target=step_after_fork, args=(model, batch, expected))
    process.start()
    process.join(300)
    assert process.exitcode == 0


# --- copies and partial gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_copies_of_a_used_model_and_batch(copied: Any) -> None:
    """They compute the same, and share nothing with the original."""
    model, batch = tiny_model(), batch_of(*SEEDS)
    expected = gradients(model, batch)
    other, other_batch = copied(model), copied(batch)
    assert_same_gradients(gradients(other, other_batch), expected, 0.0)
    with torch.no_grad():
        before = model(batch)
        for parameter in other.parameters():
            parameter.zero_()
        other_batch.edge_vectors.zero_()
        assert torch.equal(model(batch), before)


def test_moved_to_float64_and_back() -> None:
    """float64 is the reference's; float32 the kernels' again."""
    model, batch = tiny_model(), batch_of(*SEEDS)
    expected = model(batch).detach()
    exact = model.double()(batch.to(dtype=torch.float64)).detach()
    assert exact.dtype == torch.float64
    assert (exact - expected).abs().max() <= 2e-5 * exact.abs().max()
    assert torch.equal(model.float()(batch).detach(), expected)


@pytest.mark.parametrize(
    "trained",
    ["cosine_projection", "distance_projection", "query.weight", "key.weight", "value.weight", "decay_projection"],
)
def test_gradient_of_one_kind_of_weight_alone(trained: str) -> None:
    """The rest frozen: the same gradient as with all, from whichever side of the operators it comes."""
    model, batch = tiny_model(), batch_of(*SEEDS)
    expected = {name: value for name, value in gradients(model, batch).items() if name.endswith(trained)}
    assert len(expected) == len(model.blocks)
    model.zero_grad()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(trained))
    assert_same_gradients(gradients(model, batch), expected, 1e-6)
