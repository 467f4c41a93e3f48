"""The least work that each task needs, counted from the shapes that were run: operations and bytes, float32.

The counts are for the order of operations that needs least work (one flat softmax; bases summed before they are
projected; cosines as Chebyshev polynomials; queries times keys once per pair of atoms rather than per edge, as periodic
images of an atom share them). A multiplication or an addition counts 1, a fused one 2, an exponential 16 (range
reduction and a polynomial of degree 6). Nothing is computed twice. Bytes are those that must be read from or written to
memory once, with perfect caches. The floor is the larger of operations/peak and bytes/bandwidth. No program with this
order of operations can be faster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from benchmarks.machine import Peak
from crystalframer.config import ModelConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.maths.chebyshev import chebyshev_of_gaussians

EXPONENTIAL = 16
FLOAT = 4
"""Size of a float32 number, bytes."""
EDGE = 5 * FLOAT
"""Bytes of an edge: key atom, unit vector, length."""
STORED_EDGE = 5
"""Bytes of an edge in a prepared data set: key atom and image."""
ADAMW = 14
"""Operations per parameter."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a batch, from which the work follows."""

    n_crystals: int
    n_atoms: int
    n_edges: int
    n_pairs: int
    """Different (query atom, key atom): edges to several images of one atom count once."""

    @classmethod
    def of(cls, batch: CrystalBatch) -> Shape:
        query, key = batch.edge_index.cpu().long()
        n_pairs = len(torch.unique(query * batch.n_atoms + key))
        return cls(batch.n_crystals, batch.n_atoms, batch.n_edges, n_pairs)


@dataclass(frozen=True)
class Work:
    """Operations by purpose, and bytes."""

    operations: Mapping[str, float] = field(default_factory=dict)
    bytes: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.operations.values())

    def __add__(self, other: Work) -> Work:
        return Work(Counter(self.operations) + Counter(other.operations), self.bytes + other.bytes)

    def __mul__(self, times: float) -> Work:
        return Work({name: n * times for name, n in self.operations.items()}, self.bytes * times)

    def seconds(self, peak: Peak) -> float:
        return max(self.total / peak.operations, self.bytes / peak.bytes)


def attention(shape: Shape, config: ModelConfig, backward: bool) -> Work:
    """One layer of framed attention, from queries, keys and values to its output; with gradients if `backward`."""
    n, edges, pairs = shape.n_atoms, shape.n_edges * config.n_heads, shape.n_pairs * config.n_heads
    atoms, d, centers = n * config.n_heads, config.d_head, config.distance.n_centers
    framed = config.frame.promises.axes is not None
    degree = chebyshev_of_gaussians(config.cosine).shape[1] if framed else 0
    moments = centers + 3 * degree
    operations = {
        "logits": 2.0 * d * pairs + 3.0 * edges,  # q·k of a pair; r² × precision and the sum of an edge
        "softmax": (EXPONENTIAL + 3.0) * edges,  # largest, difference, exponential, sum
        "frames": config.frame.promises.operations * float(edges),
        "values": edges + 2.0 * d * pairs,  # weights of a pair's images added up, times the value of the atom
        "distances": 2.0 * centers * edges,  # basis (shared by heads and layers) times weights: a matrix product
        "cosines": 3.0 * (5.0 + 2.0 * (degree - 2) + 2.0 * degree) * edges if framed else 0.0,
        "projection": 2.0 * d * moments * atoms,
    }
    # Edges and weights in; queries, keys, values, decay lengths in; output out.
    parameters = config.n_heads * d * moments
    forward_bytes = EDGE * shape.n_edges + FLOAT * ((4 * d + 1) * atoms + parameters)
    if not backward:
        return Work(operations, forward_bytes)
    gradients = {
        "logits": (2.0 + 2.0) * edges + 4.0 * d * pairs,  # mean and difference; decay; queries and keys
        "softmax": 4.0 * edges,
        "values": 4.0 * d * pairs,  # of the weights and of the values
        "distances": 2.0 * centers * edges,
        "cosines": 3.0 * (5.0 + 3.0 * degree) * edges if framed else 0.0,  # Clenshaw's recurrence
        "projection": 4.0 * d * moments * atoms,  # of the moments and of the matrices
    }
    # Moments and the sum of each softmax are kept by the forward pass and read again; gradients of all that came in.
    backward_bytes = forward_bytes + FLOAT * ((4 * d + 1) * atoms + parameters + 2 * (moments + 1) * atoms)
    return Work(Counter(operations) + Counter(gradients), forward_bytes + backward_bytes)


def dense(shape: Shape, config: ModelConfig, backward: bool) -> Work:
    """Linear layers of all blocks and of the readout."""
    per_layer = 4 * config.d_model**2 + 2 * config.d_model * config.d_feedforward
    readout = config.d_model * config.d_readout + config.d_readout * len(config.targets)
    products = config.n_layers * per_layer * shape.n_atoms + readout * shape.n_crystals
    passes = 3 if backward else 1
    # Each linear layer reads its input and its weights and writes its output.
    features = config.n_layers * (4 * 2 * config.d_model + 2 * (config.d_model + config.d_feedforward)) * shape.n_atoms
    weights = config.n_layers * per_layer + readout
    return Work({"dense layers": 2.0 * passes * products}, FLOAT * float(passes * (features + weights)))


def optimiser(n_parameters: int) -> Work:
    """Clipping and AdamW: reads weights, gradients and two averages, writes all but the gradients."""
    return Work({"optimiser": float((ADAMW + 3) * n_parameters)}, FLOAT * 8.0 * n_parameters)


def prediction(shape: Shape, config: ModelConfig) -> Work:
    return attention(shape, config, backward=False) * config.n_layers + dense(shape, config, backward=False)


def training_step(shape: Shape, config: ModelConfig, n_parameters: int) -> Work:
    work = attention(shape, config, backward=True) * config.n_layers + dense(shape, config, backward=True)
    return work + optimiser(n_parameters)


def neighbor_search(n_edges: int) -> Work:
    """A distance per edge (8 operations), and the edge written. Telling edges from the rest costs more."""
    return Work({"distances": 8.0 * n_edges}, float(STORED_EDGE * n_edges))


def batching(batch: CrystalBatch) -> Work:
    """Bytes, if every number of the batch is read and written once."""
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    return Work({}, 2.0 * sum(tensor.numel() * tensor.element_size() for tensor in tensors))
