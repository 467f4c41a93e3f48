"""Time (microseconds per atom) and accuracy of one layer of framed attention, for the fast kernels and the reference.

Each frame method and the lightweight model are measured on a batch of real crystals, forward (as in prediction) and
forward with backward (as in training). The error is the largest deviation from the reference in float64, relative to
the largest number, for the output and for all gradients. With frames it is measured on distorted crystals: in symmetric
ones the axes are not unique (equal eigenvalues, equal lengths, tied scores), and rounding decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from benchmarks import command, floor, inputs
from benchmarks.floor import Shape
from benchmarks.ours import NAMES
from benchmarks.report import Bar, Report, timed_rows
from benchmarks.timing import Candidate, alternate
from crystalframer import __version__, ops
from crystalframer.config import ModelConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.maths.decay import decay_lengths
from crystalframer.maths.edges import Edges
from crystalframer.model.network import CrystalFramer
from crystalframer.ops.reference import AttentionInputs

PRESETS = ("default", "lightweight", "weighted-pca", "static-local", "pca", "lattice", "crystalformer")
"""Presets: one for each frame method, and the lightweight model."""
OUTPUT_BAR, GRADIENT_BAR = 2e-5, 1e-4
NOISE_SEED = 1
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Layer:
    """The inputs of one layer of attention."""

    tensors: tuple[Tensor | None, ...]
    """Queries, keys, values, decay lengths, and the projections of distances and cosines."""
    edges: Edges
    config: ModelConfig

    def attend(self, noise_seed: int | None = None) -> Tensor:
        return ops.framed_attention(AttentionInputs(*self.tensors, self.edges, self.config, noise_seed))  # type: ignore[arg-type]

    def forward(self) -> Tensor:
        with torch.inference_mode():
            return self.attend()

    def forward_and_backward(self, noise_seed: int | None = NOISE_SEED) -> list[Tensor]:
        """Output, and gradients of all inputs for a fixed gradient of the output."""
        leaves = [tensor for tensor in self.tensors if tensor is not None]
        output = self.attend(noise_seed)
        gradient = torch.cos(torch.arange(output.numel(), device=output.device)).view_as(output).to(output.dtype)
        return [output.detach(), *torch.autograd.grad(output, leaves, gradient)]

    def to_float64(self, batch: CrystalBatch) -> Layer:
        """The same numbers in double precision."""
        tensors = tuple(t if t is None else t.detach().double().requires_grad_() for t in self.tensors)
        return Layer(tensors, Edges.of(batch.to(dtype=torch.float64)), self.config)


@torch.no_grad()
def second_layer(config: ModelConfig, batch: CrystalBatch) -> Layer:
    """Inputs of the second layer of an untrained model: its atoms know their surroundings, and some of them tie."""
    model = CrystalFramer(config, torch.Generator().manual_seed(0)).to(batch.edge_vectors.device)
    model.calibrate(batch)
    edges, attention = Edges.of(batch), model.blocks[1].attention
    features = model.blocks[0](model.embed(batch.atomic_numbers), edges)
    query, key, value = (
        rearrange(linear(features), "n (h d) -> n h d", h=config.n_heads)
        for linear in (attention.query, attention.key, attention.value)
    )
    logits = ((query * attention.decay_projection).sum(-1) + attention.decay_shift) * attention.decay_scale
    tensors = (
        *(query, key, value, decay_lengths(logits, config.decay)),
        *(attention.distance_projection, attention.cosine_projection),
    )
    return Layer(tuple(t if t is None else t.detach().clone().requires_grad_() for t in tensors), edges, config)


def errors(found: Sequence[Tensor], exact: Sequence[Tensor]) -> tuple[float, float]:
    """Errors of the output and of the gradients: largest deviation, divided by the largest number."""
    each = [float((f.double() - e).abs().max() / e.abs().max()) for f, e in zip(found, exact, strict=True)]
    return each[0], max(each[1:])


def distorted(crystal: Crystal, seed: int) -> Crystal:
    """Crystals without symmetry: the cell is strained by 5 %, atoms are moved by 0.2 Å."""
    rng = np.random.default_rng(seed)
    strain = np.eye(3) + 0.05 * rng.normal(size=(3, 3))
    moves = 0.2 * rng.normal(size=crystal.positions.shape)
    return replace(crystal, positions=crystal.positions @ strain + moves, lattice=crystal.lattice @ strain)


def measure_accuracy(
    crystals: Iterable[Crystal], config: ModelConfig, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Errors of output and gradients, by implementation, in evaluation (no noise)."""
    if config.frame.promises.axes:
        crystals = [distorted(crystal, seed) for seed, crystal in enumerate(crystals) if len(crystal) > 2]
    batch = make_batch(list(crystals), config.radius).to(device)
    layer = second_layer(config, batch)
    exact = layer.to_float64(batch).forward_and_backward(noise_seed=None)
    return {
        name: errors(within(implementation, layer.forward_and_backward)(None), exact)
        for name, implementation in NAMES.items()
    }


def within(implementation: ops.Implementation, run: Callable[..., T]) -> Callable[..., T]:
    """`run`, computed by this implementation."""

    def run_within(*arguments: object) -> T:
        with ops.use(implementation):
            return run(*arguments)

    return run_within


def measure(options: argparse.Namespace, report: Report) -> None:
    device = torch.device(options.device)
    crystals = inputs.sample(options, most=options.batch)
    report.data["name"] = crystals.name
    for preset in options.presets:
        config = crystals.config(preset).model
        batch = make_batch(list(crystals.dataset), config.radius).to(device)
        shape = Shape.of(batch)
        report.data[preset] = vars(shape)
        layer = second_layer(config, batch)
        accuracy = measure_accuracy(crystals.dataset, config, device)
        for work, run, backward in (
            ("forward", layer.forward, False),
            ("forward + backward", layer.forward_and_backward, True),
        ):
            timings = alternate(
                {name: Candidate(within(implementation, run)) for name, implementation in NAMES.items()},
                options.passes,
                device,
                f"{preset}, {work}",
                options.budget,
            )
            titles = ("output error", "gradient error") if backward else ("output error",)
            report.rows += timed_rows(
                f"{preset} ({config.frame.method}), {work}",
                timings,
                dict.fromkeys(NAMES, __version__),
                "µs/atom",
                1e6 / shape.n_atoms,
                dict.fromkeys(NAMES, floor.attention(shape, config, backward)),
                {name: dict(zip(titles, accuracy[name], strict=False)) for name in NAMES},
            )
        output, gradients = accuracy["crystalframer"]
        report.bars.append(Bar(f"{preset}: output against float64", output, OUTPUT_BAR, "relative"))
        report.bars.append(Bar(f"{preset}: gradients against float64", gradients, GRADIENT_BAR, "relative"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("attention", "Time and accuracy of one layer of framed attention, fast path and reference.")
    parser.add_argument("--batch", type=int, default=64, help="number of crystals in the batch (default: 64)")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS, help="presets to run (default: all)")
    inputs.add_options(parser, n_crystals=512)
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    main()
