"""The network without torch: evaluations on the CPU in NumPy and by the compiled kernels.

`model.network` computes the same. It trains, records, and serves all frame methods, devices and precisions; but to
import torch takes longer than to predict hundreds of crystals. Layers share their attention (`kernels.layer`) and the
formulas of decay lengths, bounds and outputs with it. Dense layers are two lines here and modules there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from crystalframer.config import ModelConfig
from crystalframer.crystals.arrays import BatchArrays
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.elements import HIGHEST_ATOMIC_NUMBER
from crystalframer.functional import linear, relu, segment_mean, sigmoid
from crystalframer.kernels import layer
from crystalframer.kernels.layer import LayerInputs, Layout
from crystalframer.maths.constants import SELF_LENGTH
from crystalframer.maths.decay import bounded, decay_lengths
from crystalframer.model.outputs import Evaluated

if TYPE_CHECKING:
    from crystalframer.crystals.loading import PreparedCrystals
    from crystalframer.domain import Domain
    from crystalframer.soundness import Soundness
    from crystalframer.training_index import TrainingIndex
    from crystalframer.uncertainty import Uncertainty

_Features = Float32[np.ndarray, "n_atoms d_model"]


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name → shape of all weights of a model, in the order of its checkpoint."""
    d, n_heads, d_head = config.d_model, config.n_heads, config.d_head

    def perceptron(name: str, n_in: int, n_hidden: int, n_out: int) -> dict[str, tuple[int, ...]]:
        sharpness = {f"{name}.1.sharpness": ()} if config.activation == "swish" else {}
        first = {f"{name}.0.weight": (n_hidden, n_in), f"{name}.0.bias": (n_hidden,)}
        return {**first, **sharpness, f"{name}.2.weight": (n_out, n_hidden), f"{name}.2.bias": (n_out,)}

    n_outputs = len(config.outputs)
    shapes: dict[str, tuple[int, ...]] = {"target_mean": (n_outputs,), "target_std": (n_outputs,)}
    shapes["embedding.weight"] = (HIGHEST_ATOMIC_NUMBER, d)
    for block in (f"blocks.{number}" for number in range(config.n_layers)):
        attention = f"{block}.attention"
        shapes[f"{attention}.decay_projection"] = (n_heads, d_head)
        shapes[f"{attention}.distance_projection"] = (n_heads, d_head, config.distance.n_centers)
        if config.frame.promises.axes:
            shapes[f"{attention}.cosine_projection"] = (3, n_heads, d_head, config.cosine.n_centers)
        shapes |= {f"{attention}.decay_scale": (), f"{attention}.decay_shift": ()}
        for name in ("query", "key", "value", "output"):
            shapes |= {f"{attention}.{name}.weight": (d, d), f"{attention}.{name}.bias": (d,)}
        shapes |= perceptron(f"{block}.feedforward", d, config.d_feedforward, d)
    return shapes | perceptron("readout", d, config.d_readout, n_outputs)


def is_served(config: ModelConfig) -> bool:
    """Whether this network computes models with these settings: frames need a kernel, or there are none."""
    promises = config.frame.promises
    return promises.axes is None or "cpu" in promises.kernels


class _Projected(NamedTuple):
    """As `model.attention.Projected`."""

    query: Float32[np.ndarray, "n_atoms n_heads d_head"]
    key: Float32[np.ndarray, "n_atoms n_heads d_head"]
    value: Float32[np.ndarray, "n_atoms n_heads d_head"]
    decay_length: Float32[np.ndarray, "n_atoms n_heads"]


class _EdgesFrom(NamedTuple):
    """Edges from some atoms, or from all."""

    atoms: slice | Int64[np.ndarray, " n_atoms"]
    layout: Layout


@dataclass(frozen=True, eq=False)
class ArrayModel:
    """A model in evaluation. `checkpoint.load_arrays` makes it."""

    config: ModelConfig
    """Settings by which it computes."""
    weights: Mapping[str, Float32[np.ndarray, "*shape"]]
    domain: Domain | None = None
    index: TrainingIndex | None = None
    uncertainty: Uncertainty | None = None
    soundness: Soundness | None = None

    @property
    def target_mean(self) -> Float32[np.ndarray, " n_outputs"]:
        return self.weights["target_mean"]

    def with_weighted_sets(self, margin: float) -> ArrayModel:
        """As `CrystalFramer.with_weighted_sets`."""
        frame = replace(self.config.frame, weighted_margin=margin)
        return replace(self, config=replace(self.config, frame=frame))

    def batch_of(self, crystals: PreparedCrystals, rows: Sequence[int] | Int64[np.ndarray, " n_rows"]) -> BatchArrays:
        """The batch of these crystals."""
        return crystals.arrays(rows)

    def evaluate(self, crystals: BatchArrays | ChunkedCrystal) -> Evaluated:
        """As `CrystalFramer.evaluate`."""
        layers = list(self.layers(crystals))
        index, n_crystals = np.zeros(crystals.n_atoms, np.int64), 1
        if isinstance(crystals, BatchArrays):
            index, n_crystals = crystals.crystal_index, crystals.n_crystals
        kinds = None if self.soundness is None else self.soundness.log_probabilities(layers, index, n_crystals)
        pooled = segment_mean(layers[-1], index, n_crystals)
        outputs = self._perceptron("readout", pooled) * self.weights["target_std"] + self.target_mean
        return Evaluated(outputs.astype(np.float64), pooled, kinds)

    def layers(self, crystals: BatchArrays | ChunkedCrystal) -> Iterator[_Features]:
        """Features of the atoms after the embedding, and after each block."""
        features = self.weights["embedding.weight"][crystals.atomic_numbers.astype(np.int64) - 1]
        edges = _edges_of(crystals)
        yield features
        for number in range(self.config.n_layers):
            features = self._block(f"blocks.{number}", features, edges)
            yield features

    def _block(self, name: str, features: _Features, edges: Iterable[_EdgesFrom]) -> _Features:
        """Attention and a perceptron, each added to its input."""
        projected, done = self._project(f"{name}.attention", features), []
        for atoms, layout in edges:
            attended = features[atoms] + self._attention(f"{name}.attention", projected, atoms, layout)
            done.append(attended + self._perceptron(f"{name}.feedforward", attended))
        return done[0] if len(done) == 1 else np.concatenate(done)

    def _project(self, name: str, features: _Features) -> _Projected:
        """Queries, keys, values and decay lengths of all atoms."""
        shape = len(features), self.config.n_heads, self.config.d_head
        query, key, value = (
            self._linear(f"{name}.{part}", features).reshape(shape) for part in ("query", "key", "value")
        )
        logits = (query * self.weights[f"{name}.decay_projection"]).sum(-1)
        logits = (logits + self.weights[f"{name}.decay_shift"]) * self.weights[f"{name}.decay_scale"]
        if (largest := self.config.largest_content) is not None:
            query, key = bounded(query, largest), bounded(key, largest)
        return _Projected(query, key, value, decay_lengths(logits, self.config.decay))

    def _attention(
        self, name: str, projected: _Projected, atoms: slice | Int64[np.ndarray, " n_atoms"], layout: Layout
    ) -> _Features:
        """What the heads gather for some query atoms, and its projection."""
        given = LayerInputs(
            projected.query[atoms],
            projected.key,
            projected.value,
            projected.decay_length[atoms],
            self.weights[f"{name}.distance_projection"],
            self._cosine_projections.get(name),
            self.config,
        )
        gathered = layer.framed_attention(given, layout, layer)
        return self._linear(f"{name}.output", gathered.reshape(len(gathered), self.config.d_model))

    def _perceptron(self, name: str, x: Float32[np.ndarray, "n n_in"]) -> Float32[np.ndarray, "n n_out"]:
        """Two dense layers with the activation between them."""
        hidden = self._linear(f"{name}.0", x)
        if self.config.activation == "relu":
            return self._linear(f"{name}.2", relu(hidden))
        return self._linear(f"{name}.2", hidden * sigmoid(self.weights[f"{name}.1.sharpness"] * hidden))

    def _linear(self, name: str, x: Float32[np.ndarray, "n n_in"]) -> Float32[np.ndarray, "n n_out"]:
        return linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    @cached_property
    def _cosine_projections(self) -> dict[str, Float32[np.ndarray, "3 n_heads d_head n_cosine_centers"]]:
        """Weights of the cosines of each layer; where both hands count alike, even in the cosine to the hand's axis."""
        frame, found = self.config.frame, {}
        for name in (f"blocks.{number}.attention" for number in range(self.config.n_layers)):
            if frame.promises.axes is None:
                continue
            weights = self.weights[f"{name}.cosine_projection"]
            if frame.both_hands:
                weights = weights.copy()
                of_hand = weights[frame.promises.hand_axis]
                of_hand[:] = 0.5 * (of_hand + of_hand[..., ::-1])
            found[name] = weights
        return found


@dataclass(frozen=True, eq=False)
class _Chunks:
    """The edges of a large crystal, for some query atoms at a time. Each iteration starts from the first atoms."""

    crystal: ChunkedCrystal

    def __iter__(self) -> Iterator[_EdgesFrom]:
        for edges in self.crystal:
            n_atoms = len(edges.atoms)
            yield _EdgesFrom(edges.atoms, _layout(edges.index, edges.vectors, n_atoms, self.crystal.n_atoms))


def _edges_of(crystals: BatchArrays | ChunkedCrystal) -> Iterable[_EdgesFrom]:
    if isinstance(crystals, ChunkedCrystal):
        return _Chunks(crystals)
    n_atoms = crystals.n_atoms
    return [_EdgesFrom(slice(None), _layout(crystals.edge_index, crystals.edge_vectors, n_atoms, n_atoms))]


def _layout(
    index: Int[np.ndarray, "2 n_edges"], vectors: Float[np.ndarray, "n_edges 3"], n_atoms: int, n_keys: int
) -> Layout:
    """As the kernels read the edges: see `maths.edges.Edges`."""
    vectors = vectors.astype(np.float32, copy=False)
    lengths = np.sqrt((vectors * vectors).sum(axis=1))
    is_self = lengths < SELF_LENGTH
    directions = vectors / np.where(is_self, np.float32(np.inf), lengths)[:, None]
    query, key = index
    return Layout.of(query, key, lengths, directions, is_self, n_atoms, n_keys)
