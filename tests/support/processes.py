"""What tests run in processes of their own: spawned ones import it by name."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed as dist, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from crystalframer import ops
from crystalframer.config import FrameConfig, FrameMethod
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import make_batch
from crystalframer.model.network import CrystalFramer
from crystalframer.presets import preset
from crystalframer.testing import random_crystal

TINY = preset("tiny").config.model
SEEDS = (1, 2, 3, 4)


def tiny_model(method: FrameMethod = "max") -> CrystalFramer:
    return CrystalFramer(replace(TINY, frame=FrameConfig(method)), torch.Generator().manual_seed(0))


def batch_of(*seeds: int, radius: float = TINY.radius) -> CrystalBatch:
    return make_batch([random_crystal(seed, 2 + seed) for seed in seeds], radius)


def gradients(model: nn.Module, batch: CrystalBatch) -> dict[str, Tensor]:
    """Of the mean squared prediction, by name of the parameter in the plain model."""
    model.zero_grad()
    model(batch).square().mean().backward()
    return {
        name.removeprefix("module.").removeprefix("_orig_mod."): parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], bar: float) -> None:
    """Within `bar` of the largest entry, and of the largest of all where one vanishes."""
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        error = float((found[name] - gradient).abs().max())
        allowed = bar * max(float(gradient.abs().max()), 1e-4 * largest)
        assert error <= allowed, f"gradient of {name} off by {error:.1e}, allowed {allowed:.1e}"


def step_in_parallel(rank: int, n_processes: int, folder: str) -> None:
    """One process of a data-parallel step: it saves the gradients it ends up with for its share of the crystals."""
    torch.set_num_threads(1)
    meeting, path = f"file://{folder}/meeting", Path(folder) / f"{rank}.pt"
    dist.init_process_group("gloo", meeting, rank=rank, world_size=n_processes, timeout=timedelta(seconds=300))
    try:
        model = DistributedDataParallel(tiny_model())
        torch.save(gradients(model, batch_of(*SEEDS[rank::n_processes])), path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    finally:
        dist.destroy_process_group()


def check_compiled(_: int, method: FrameMethod, implementation: ops.Implementation, device: str) -> None:
    """The operators stand in the compiled graphs, not between them; forward and backward agree with the plain model."""
    torch.set_num_threads(1)
    model = tiny_model(method).to(device)
    batch = (batch_of(*SEEDS) if implementation == "cpu" else batch_of(0, radius=3.0)).to(device)
    with ops.use(implementation):
        _check_compiled(model, batch)


def _check_compiled(model: CrystalFramer, batch: CrystalBatch) -> None:
    expected, expected_gradients = model(batch).detach(), gradients(model, batch)
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    found = torch.compile(model, backend=keep)(batch).detach()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    called = {str(node.target) for graph in graphs for node in graph.graph.nodes if node.op == "call_function"}
    assert any(name.startswith("crystalframer.") for name in called), sorted(called)

    torch.compiler.reset()
    compiled: Any = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(batch).detach(), expected, atol=1e-6, rtol=1e-5)
    assert_same_gradients(gradients(compiled, batch), expected_gradients, 1e-4)


def step_after_fork(model: CrystalFramer, batch: CrystalBatch, expected: dict[str, Tensor]) -> None:
    torch.set_num_threads(1)
    assert_same_gradients(gradients(model, batch), expected, 1e-5)


class Predictions(Dataset[Tensor]):
    """Items made by the fast path in the loader's process."""

    def __init__(self, model: CrystalFramer) -> None:
        self.model = model

    def __len__(self) -> int:
        return len(SEEDS)

    def __getitem__(self, index: int) -> Tensor:
        with torch.no_grad():
            return self.model(batch_of(SEEDS[index]))[0]
