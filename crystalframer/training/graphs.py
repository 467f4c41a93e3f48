"""Training on a GPU without waiting for the host: resident crystals, and forward and backward pass as CUDA graphs.

A step of the default model is some 550 kernels, most of which take a GPU less time than Python takes to ask for them:
on an H100, 128 crystals of 28 atoms take 6 ms of the GPU and 21 ms of the host. So the kernels of forward and backward
pass are recorded once, for batches of one size, and replayed for each batch; smaller ones are padded to that size.
"""

from __future__ import annotations

import gc
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from crystalframer import ops
from crystalframer.config import TrainingConfig
from crystalframer.crystals import on_gpu
from crystalframer.crystals.loading import BatchOrder, PreparedCrystals
from crystalframer.crystals.on_gpu import CrystalRows, ResidentCrystals, largest_sizes
from crystalframer.maths.frames import NoiseSeed
from crystalframer.model.network import CrystalFramer

SHARE_OF_MEMORY = 0.25
"""Share of the free memory that the tables of the crystals may take."""
LARGEST_DIFFERENCE = 1e-2
"""Between what is recorded and what the model gives: sums in another order, and frames that tie within rounding."""
STREAMS_DIFFER = "The AccumulateGrad node's stream does not match"
"""Torch warns: gradients of a recorded pass are added up on the stream on which it was recorded, which does no harm."""


class ResidentPass:
    """The forward pass of a model in training, for batches that are given as rows of resident crystals."""

    def __init__(self, model: CrystalFramer, crystals: ResidentCrystals, largest: tuple[int, int]) -> None:
        """Args: largest: atoms and edges of the batches that are padded to this size; larger ones are not recorded."""
        self.crystals = crystals
        self._model = model
        self._n_atoms, self._n_edges = largest[0], largest[1] + 1  # kernels look at the edge after an atom's last
        self._is_recordable = model.config.frame.promises.recordable
        self._recorded: nn.Module | None = None

    def __call__(self, batch: CrystalRows) -> Float[Tensor, "n_crystals n_targets"]:
        fits = batch.n_atoms <= self._n_atoms and batch.n_edges < self._n_edges
        if not (fits and self._is_recordable and ops.serving(batch.rows.device, torch.float32) == "cuda"):
            exact = self.crystals.batch(batch.rows, batch.n_atoms, batch.n_edges)
            return self._model(exact, batch.seed)[: batch.n_crystals]
        inputs = (batch.rows, batch.seed)
        if self._recorded is None:
            self._recorded = self._record(inputs)
        if self._recorded is None:
            self._is_recordable = False
            return self(batch)
        return self._recorded(*inputs)[: batch.n_crystals]

    def _record(self, inputs: tuple[Tensor, ...]) -> nn.Module | None:
        """The recorded pass; None, with a warning, if it fails or does not give what the model gives."""
        padded, device = PaddedPass(self._model, self.crystals, self._n_atoms, self._n_edges), inputs[0].device
        with _without_cached_casts(device.type):
            exact = _prediction_and_gradients(padded, inputs)
            try:
                with warnings.catch_warnings(), _put_right_if_it_fails(device) as pool:
                    warnings.filterwarnings("ignore", STREAMS_DIFFER)
                    own = tuple(tensor.clone() for tensor in inputs)
                    recorded: Any = torch.cuda.make_graphed_callables(padded, own, pool=pool)
                    off = _difference(_prediction_and_gradients(recorded, inputs), exact)
            except RuntimeError as error:
                problem = str(error).partition("\n")[0]
            else:
                if off <= LARGEST_DIFFERENCE:
                    return recorded
                problem = f"they give other numbers (by {off:.1g} of the largest)"
        gc.collect()  # what was recorded until then
        warnings.warn(
            f"training goes on without CUDA graphs, up to three times slower: {problem}", UserWarning, stacklevel=2
        )
        return None

    def close(self) -> None:
        """Let go of what was recorded, and of the memory that it holds."""
        self._recorded = None
        gc.collect()  # torch 2.13 keeps a graph in a cycle of references


@contextmanager
def _put_right_if_it_fails(device: torch.device) -> Iterator[Any]:
    """A pool of memory for a recording. If that fails, what torch leaves behind is put right.

    Torch leaves the stream of the recording as the current one, the memory of the recording with the allocator, which
    then gives none back, and a generator of random numbers that refuses to draw.
    """
    stream, generator = torch.cuda.current_stream(device), torch.cuda.default_generators[device.index]
    numbers, pool = generator.clone_state(), torch.cuda.graph_pool_handle()
    try:
        yield pool
    except RuntimeError:
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(numbers)
        with suppress(RuntimeError):  # it says so if the recording did end
            torch._C._cuda_endAllocateToPool(device.index, pool)
            torch._C._cuda_releasePool(device.index, pool)
        raise


def _without_cached_casts(device_type: str) -> torch.autocast:
    """The precision of the training. Weights that were cast before a recording would not be cast in its replays."""
    if not torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return torch.autocast(device_type, torch.get_autocast_dtype(device_type), cache_enabled=False)


class PaddedPass(nn.Module):
    """The recorded computation, from rows to predictions: the same kernels on the same shapes for every batch."""

    def __init__(self, model: CrystalFramer, crystals: ResidentCrystals, n_atoms: int, n_edges: int) -> None:
        super().__init__()
        self.model = model
        self._crystals, self._n_atoms, self._n_edges = crystals, n_atoms, n_edges

    def forward(
        self, rows: Int64[Tensor, " batch_size"], seed: NoiseSeed
    ) -> Float[Tensor, "batch_size_and_1 n_targets"]:
        return self.model(self._crystals.batch(rows, self._n_atoms, self._n_edges), seed)


def _prediction_and_gradients(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Copies, and nothing of the autograd graph: its nodes belong to the stream on which they were made."""
    prediction = module(*inputs)
    gradients = torch.autograd.grad(prediction.square().sum(), list(module.parameters()))
    return [tensor.detach().clone() for tensor in (prediction, *gradients)]


def _difference(found: list[Tensor], exact: list[Tensor]) -> float:
    """Largest difference of predictions, or of gradients, as a share of the largest of them; infinite for NaN.

    Not of each gradient by itself: that of a bias of the keys is 0, but for rounding.
    """
    shares = []
    for part in (slice(0, 1), slice(1, None)):
        largest = max(float(tensor.abs().max()) for tensor in exact[part])
        shares += [
            float((f - e).abs().max()) / max(largest, 1e-12) for f, e in zip(found[part], exact[part], strict=True)
        ]
    return max(shares) if all(map(math.isfinite, shares)) else math.inf


def resident_pass(
    model: CrystalFramer, crystals: PreparedCrystals, order: BatchOrder, config: TrainingConfig, device: torch.device
) -> ResidentPass | None:
    """For training on one GPU whose memory has room for the crystals; else None. Says so where steps are slower."""
    if device.type != "cuda":
        return None
    if order.n_ranks > 1 or config.n_workers:
        why = "on several GPUs" if order.n_ranks > 1 else f"with training.n_workers = {config.n_workers}"
        if order.rank == 0:
            _announce(f"{why}, the CPU makes the batches and no CUDA graph is recorded")
        return None
    free, _ = torch.cuda.mem_get_info(device)
    n_edges, n_atoms = len(crystals.neighbors.key_atom), int(crystals.n_atoms.sum())
    needed = on_gpu.BYTES_PER_EDGE * n_edges + on_gpu.BYTES_PER_ATOM * n_atoms
    if needed > SHARE_OF_MEMORY * free:
        _announce(
            f"the tables of the training crystals need {needed / 1e9:.1f} GB, and {SHARE_OF_MEMORY:.0%} of the "
            f"{free / 1e9:.1f} GB that are free on {device} may hold them, so the CPU makes the batches and no CUDA "
            "graph is recorded"
        )
        return None
    if not model.config.frame.promises.recordable:
        _announce(f"frames of the method {model.config.frame.method} wait for the GPU, so no CUDA graph is recorded")
    largest = largest_sizes(crystals, iter(order))
    return ResidentPass(model, ResidentCrystals.of(crystals, device), largest)


def _announce(why: str) -> None:
    print(f"steps take up to three times as long as they could: {why}", file=sys.stderr)
