"""CrystalFramer: embedding, blocks of framed attention, readout."""

from __future__ import annotations

import copy
import math
import textwrap
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from tqdm.auto import tqdm

from crystalframer.config import FrameConfig, ModelConfig, ModelPromises
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.elements import HIGHEST_ATOMIC_NUMBER
from crystalframer.errors import ConfigError
from crystalframer.maths.edges import EdgeChunks, Edges
from crystalframer.maths.frames import NoiseSeed
from crystalframer.model.activation import Perceptron
from crystalframer.model.attention import FramedSelfAttention, LayerOutput
from crystalframer.model.outputs import Evaluated
from crystalframer.model.tracing import crystal_traces, region_trace
from crystalframer.ops import lookup, segment_mean
from crystalframer.traces import CrystalTrace

if TYPE_CHECKING:
    from crystalframer.crystals.loading import PreparedCrystals
    from crystalframer.datasets.used import UsedCrystals
    from crystalframer.domain import Domain
    from crystalframer.measured_errors import MeasuredErrors
    from crystalframer.order_tests import OrderTests
    from crystalframer.soundness import Soundness
    from crystalframer.training_index import TrainingIndex
    from crystalframer.uncertainty import Uncertainty


class Block(nn.Module):
    """Attention and a two-layer perceptron, each added to its input; no normalisation layers (Crystalformer)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = FramedSelfAttention(config)
        self.feedforward = Perceptron(config.d_model, config.d_feedforward, config.d_model, config.activation)

    def forward(
        self, features: Float[Tensor, "n_atoms d_model"], edges: Edges, noise_seed: NoiseSeed | None = None
    ) -> Float[Tensor, "n_atoms d_model"]:
        features = features + self.attention(self.attention.project(features), edges, noise_seed)
        return features + self.feedforward(features)

    def calibrate(self, features: Float[Tensor, "n_atoms d_model"], edges: Edges) -> Float[Tensor, "n_atoms d_model"]:
        """Fit the decay logits and the activation to these features; the output of `forward` thereafter."""
        self.attention.calibrate(features)
        features = features + self.attention(self.attention.project(features), edges)
        self.feedforward.calibrate(features)
        return features + self.feedforward(features)

    def in_chunks(
        self, features: Float[Tensor, "n_atoms d_model"], chunks: EdgeChunks
    ) -> Float[Tensor, "n_atoms d_model"]:
        """The same as `forward` in evaluation, for the edges of some query atoms at a time."""
        projected = self.attention.project(features)
        done = []
        for edges in chunks:
            part = edges.at_queries(features) + self.attention(projected, edges)
            done.append(part + self.feedforward(part))
        return torch.cat(done)

    def trace(
        self, features: Float[Tensor, "n_keys d_model"], edges: Edges
    ) -> tuple[Float[Tensor, "n_atoms d_model"], LayerOutput]:
        """Features of the query atoms as from `forward` in evaluation, and the steps of the attention."""
        attended = self.attention.trace(self.attention.project(features), edges)
        features = edges.at_queries(features) + attended.features
        return features + self.feedforward(features), attended


class CrystalFramer(nn.Module):
    """Predicts properties of crystals in physical units.

    Without a `noise_seed`, a forward pass is an evaluation and gives the same numbers every time. With one, noise
    chooses among tied frame axes, as in training.

    If no frame is chosen (weighted sets, or no frames), an evaluation can be differentiated with respect to the edge
    vectors, also twice:

        >>> import torch
        >>> from crystalframer.config import FrameConfig, ModelConfig
        >>> from crystalframer.crystals.loading import make_batch
        >>> from crystalframer.model.network import CrystalFramer
        >>> from crystalframer.testing import random_crystal
        >>> model = CrystalFramer(ModelConfig(frame=FrameConfig("max", weighted_margin=0.3)))
        >>> batch = make_batch([random_crystal(0, n_atoms=2)], model.config.radius)
        >>> vectors = batch.edge_vectors.requires_grad_()
        >>> gradient, = torch.autograd.grad(model(batch).sum(), vectors)
        >>> gradient.shape == vectors.shape
        True
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        """Args: generator: source of the initial weights (default: torch's global one)."""
        super().__init__()
        self.config = config
        """Settings of the network and its training: what `save` writes."""
        self.evaluation_config = config
        """Settings by which evaluations compute; see `with_weighted_sets`."""
        self.embedding = nn.Embedding(HIGHEST_ATOMIC_NUMBER, config.d_model)
        blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.blocks: Sequence[Block] = blocks  # type: ignore[assignment]  # a ModuleList does not say what it holds
        self.readout = Perceptron(config.d_model, config.d_readout, len(config.outputs), config.activation)
        self.register_buffer("target_mean", torch.zeros(len(config.outputs)))
        self.register_buffer("target_std", torch.ones(len(config.outputs)))
        self.domain: Domain | None = None
        """The range of its training data. Like the uncertainty, it belongs to a checkpoint but not to the network."""
        self.uncertainty: Uncertainty | None = None
        """The error of predictions with these weights. Other weights need another calibration."""
        self.index: TrainingIndex | None = None
        """Its training crystals by their features. The uncertainty may need it."""
        self.soundness: Soundness | None = None
        """Tells crystals like its training crystals from crystals that were made wrong."""
        self.used: UsedCrystals | None = None
        """The crystals of the run that trained it. It belongs to the run, or to the checkpoint that was saved of it."""
        self.errors: MeasuredErrors | None = None
        """Its errors by element and by size of the cell, on crystals that did not train it."""
        self.order_tests: OrderTests | None = None
        """Whether its explanations order neighbours better than distance does."""
        self.source = ""
        """Name and fingerprint of the checkpoint that its weights were read from."""
        initialise(self, generator)

    def with_weighted_sets(self, margin: float) -> CrystalFramer:
        """A copy whose evaluation sums over weighted sets of frames, with this margin (`FrameConfig.weighted_margin`).

        Passes with a noise seed compute as before, and `config`, which `save` writes, is the same.

        Raises:
            ConfigError: the frame method has no weighted sets.
        """
        frame = replace(self.evaluation_config.frame, weighted_margin=margin)
        return self._with(self.config, replace(self.evaluation_config, frame=frame))

    def looking_farther(self, factor: float) -> CrystalFramer:
        """A copy with this factor on the reach of every head (`DecayConfig.reach`): what the model leaves out.

        Raises:
            ConfigError: the model has no reach.
        """
        decay = self.config.decay
        if decay.reach is None:
            raise ConfigError("is not set, so there is no reach to change", field="model.decay.reach")
        decay = replace(decay, reach=factor * decay.reach)
        return self._with(replace(self.config, decay=decay), replace(self.evaluation_config, decay=decay))

    def with_frames(self, frame: FrameConfig) -> CrystalFramer:
        """A copy with the same weights whose evaluation builds these frames; `none`: angles bring nothing."""
        if frame.promises.axes is not None:
            other = self._with(self.config, replace(self.evaluation_config, frame=frame))
            other.errors = other.order_tests = None  # measured with the frames of the model
            return other
        other = copy.deepcopy(self)
        other.errors = other.order_tests = None
        for block in other.blocks:
            if block.attention.cosine_projection is not None:
                block.attention.cosine_projection.detach().zero_()
        return other

    def without_heads(self, heads: Iterable[tuple[int, int]]) -> CrystalFramer:
        """A copy in which these heads bring nothing.

        Args:
            heads: pairs of layer and head, counted from 0.
        """
        other = copy.deepcopy(self)
        other.errors = other.order_tests = None  # measured with all heads
        for layer, head in heads:
            columns = slice(head * self.config.d_head, (head + 1) * self.config.d_head)
            other.blocks[layer].attention.output.weight.detach()[:, columns].zero_()
        return other

    def _with(self, config: ModelConfig, evaluation_config: ModelConfig) -> CrystalFramer:
        """A copy with other settings and the same weights."""
        other = copy.deepcopy(self)
        for part in (other, *(block.attention for block in other.blocks)):
            part.config, part.evaluation_config = config, evaluation_config
        return other

    @property
    def promises(self) -> ModelPromises:
        """What evaluations of this model promise."""
        return self.evaluation_config.promises

    def __repr__(self) -> str:
        config = self.config
        size = f"{config.n_layers} layers with {config.n_heads} heads, d_model {config.d_model}"
        return f"CrystalFramer: {size}\n" + textwrap.indent(self.extra_repr(), "  ")

    def _repr_html_(self) -> str:
        from crystalframer.object_cards import model_card

        return model_card(self)

    def extra_repr(self) -> str:
        """What is predicted, by which frames, and what that promises."""
        config = self.evaluation_config
        margin, frames = config.frame.weighted_margin, f"{config.frame.method} frames"
        if margin > 0:
            trained = "" if self.config.frame.weighted_margin > 0 else ", though training took one of them at a time"
            frames = f"weighted sets of {frames} within {margin:g} of the best{trained}"
        targets = ", ".join(target.label for target in config.targets)
        return f"predicts {targets}\nframes: {frames}\n{self.promises}"

    def forward(
        self, batch: CrystalBatch, noise_seed: NoiseSeed | None = None
    ) -> Float[Tensor, "n_crystals n_outputs"]:
        """The outputs (`ModelConfig.outputs`): scalars in their units, and logits of classes.

        Raises:
            CrystalError: the edge vectors require a gradient, and frames are chosen, or drawn by the `noise_seed`.
        """
        return self.read_out(self.pooled_features(batch, noise_seed))

    def pooled_features(
        self, batch: CrystalBatch, noise_seed: NoiseSeed | None = None
    ) -> Float[Tensor, "n_crystals d_model"]:
        """Features of the last block, averaged over the atoms of each crystal: the input of the readout."""
        return pooled(self.atom_features(batch, len(self.blocks), noise_seed), batch)

    def pooled_features_of(self, crystals: CrystalBatch | ChunkedCrystal) -> Float[Tensor, "n_crystals d_model"]:
        """The same in evaluation, for a batch on any device, or for one large crystal."""
        if isinstance(crystals, ChunkedCrystal):
            return self.pooled_features_in_chunks(crystals)
        return self.pooled_features(crystals.to(self.target_mean.device))

    def pooled_features_in_chunks(self, crystal: ChunkedCrystal) -> Float[Tensor, "1 d_model"]:
        """The same as `pooled_features` in evaluation, for a crystal whose edges do not fit into memory together."""
        return self.atom_features_in_chunks(crystal, len(self.blocks)).mean(0, keepdim=True)

    def atom_features(
        self, batch: CrystalBatch, n_blocks: int, noise_seed: NoiseSeed | None = None
    ) -> Float[Tensor, "n_atoms d_model"]:
        """Features of the atoms after the first `n_blocks` blocks."""
        return next(islice(self.layers(batch, noise_seed), n_blocks, None))

    def layers(
        self, batch: CrystalBatch, noise_seed: NoiseSeed | None = None
    ) -> Iterator[Float[Tensor, "n_atoms d_model"]]:
        """Features of the atoms after the embedding, and after each block."""
        features, edges = self.embed(batch.atomic_numbers), Edges.of(batch)
        yield features
        for layer, block in enumerate(self.blocks):
            # Each layer needs other noise, and any integer is a seed.
            features = block(features, edges, None if noise_seed is None else noise_seed + layer)
            yield features

    def atom_features_in_chunks(self, crystal: ChunkedCrystal, n_blocks: int) -> Float[Tensor, "n_atoms d_model"]:
        """The same as `atom_features` in evaluation, for a crystal whose edges do not fit into memory together.

        Each layer computes the edges of some query atoms at a time. Only these edges are in memory, and all atoms.
        """
        return next(islice(self.layers_in_chunks(crystal), n_blocks, None))

    def layers_in_chunks(self, crystal: ChunkedCrystal) -> Iterator[Float[Tensor, "n_atoms d_model"]]:
        """The same as `layers` in evaluation, for such a crystal."""
        with self._chunks(crystal) as chunks:
            features = self.embed(chunks.atomic_numbers)
            yield features
            for block in self.blocks:
                features = block.in_chunks(features, chunks)
                yield features

    def layers_of(self, crystals: CrystalBatch | ChunkedCrystal) -> Iterator[Float[Tensor, "n_atoms d_model"]]:
        """The same as `layers` in evaluation, for a batch on any device, or for one large crystal."""
        if isinstance(crystals, ChunkedCrystal):
            return self.layers_in_chunks(crystals)
        return self.layers(crystals.to(self.target_mean.device))

    @torch.no_grad()
    def trace_atoms(
        self,
        crystal: ChunkedCrystal,
        atoms: Int64[np.ndarray, " n_traced"],
        layers: Sequence[Float[Tensor, "n_atoms d_model"]],
    ) -> CrystalTrace:
        """The attention of some atoms in every layer, for a crystal that may be too large to trace as a whole.

        Args:
            layers: the features of all its atoms (`layers_in_chunks`).
        """
        given = crystal.edges_from(atoms)
        edges = Edges.of_atoms(given, self.target_mean.device, self.target_mean.dtype)
        steps = [block.trace(features, edges) for block, features in zip(self.blocks, layers[:-1], strict=True)]
        prediction = self.read_out(layers[-1].mean(0, keepdim=True))[0]
        return region_trace(self.evaluation_config, given, edges, steps, prediction)

    @contextmanager
    def _chunks(self, crystal: ChunkedCrystal) -> Iterator[EdgeChunks]:
        """The edges of the crystal for this model, with a progress bar if they take more than 2 s."""
        title, total = f"{crystal.id or 'the crystal'}, {crystal.n_atoms:,} atoms", len(self.blocks) * crystal.n_atoms
        form = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
        with tqdm(total=total, desc=title, bar_format=form, delay=2, leave=False) as bar:
            yield EdgeChunks(crystal, self.target_mean.device, self.target_mean.dtype, bar.update)

    def embed(self, atomic_numbers: Int[Tensor, " n_atoms"]) -> Float[Tensor, "n_atoms d_model"]:
        return lookup(self.embedding.weight, atomic_numbers - 1)

    def batch_of(self, crystals: PreparedCrystals, rows: Sequence[int] | Int64[np.ndarray, " n_rows"]) -> CrystalBatch:
        """The batch of these crystals, in numbers of the model's type."""
        return crystals.batch(rows, self.target_mean.dtype)

    @torch.inference_mode()
    def evaluate(self, crystals: CrystalBatch | ChunkedCrystal) -> Evaluated:
        """The outputs for a batch or one large crystal, and what else is said of a prediction."""
        needs_no_features = self.soundness is None and self.index is None and self.uncertainty is None
        if needs_no_features and isinstance(crystals, CrystalBatch):
            return Evaluated(self(crystals.to(self.target_mean.device)).double().cpu().numpy(), None, None)
        # The classifier alone looks at all layers: some 100 MB more for 50,000 atoms.
        n_kept = 1 if self.soundness is None else None
        return self.evaluated(deque(self.layers_of(crystals), n_kept), crystals)

    @torch.no_grad()
    def evaluated(
        self, layers: Sequence[Float[Tensor, "n_atoms d_model"]], crystals: CrystalBatch | ChunkedCrystal
    ) -> Evaluated:
        """The same, once the features of all layers are known (`layers_of`)."""
        index, n_crystals = crystal_index(crystals, layers[-1].device)
        means = segment_mean(layers[-1], index, n_crystals)
        kinds = None if self.soundness is None else self.soundness.log_probabilities(layers, index, n_crystals)
        return Evaluated(self.read_out(means).double().cpu().numpy(), means.float().cpu().numpy(), kinds)

    def read_out(self, pooled: Float[Tensor, "n_crystals d_model"]) -> Float[Tensor, "n_crystals n_outputs"]:
        """The outputs in physical units from pooled features."""
        return self.readout(pooled) * self.target_std + self.target_mean

    @torch.no_grad()
    def calibrate(self, batch: CrystalBatch) -> None:
        """Fit decay logits (quirk Q11) and activations to the features of this batch, layer by layer."""
        features, edges = self.embed(batch.atomic_numbers), Edges.of(batch)
        for block in self.blocks:
            features = block.calibrate(features, edges)
        self.readout.calibrate(pooled(features, batch))

    @torch.no_grad()
    def trace(self, batch: CrystalBatch) -> list[CrystalTrace]:
        """The attention of every layer, one record per crystal."""
        features, edges = self.embed(batch.atomic_numbers), Edges.of(batch)
        steps = []
        for block in self.blocks:
            features, attended = block.trace(features, edges)
            steps.append((features, attended))
        return crystal_traces(self.evaluation_config, batch, edges, steps, self.read_out(pooled(features, batch)))


def crystal_index(crystals: CrystalBatch | ChunkedCrystal, device: torch.device) -> tuple[Int[Tensor, " n_atoms"], int]:
    """Which crystal each atom belongs to, and the number of crystals."""
    if isinstance(crystals, CrystalBatch):
        return crystals.crystal_index.to(device), crystals.n_crystals
    return torch.zeros(crystals.n_atoms, dtype=torch.int64, device=device), 1


def pooled(features: Float[Tensor, "n_atoms d_model"], batch: CrystalBatch) -> Float[Tensor, "n_crystals d_model"]:
    """Mean over the atoms of each crystal."""
    return segment_mean(features, batch.crystal_index, batch.n_crystals)


def initialise(model: CrystalFramer, generator: torch.Generator | None = None) -> None:
    """The authors' initial weights: fix-up scaling that does without normalisation layers (docs/fidelity.md)."""
    config = model.config
    depth_gain = 0.67 * config.n_layers**-0.25
    nn.init.normal_(model.embedding.weight, 0.0, config.d_model**-0.5 * (9 * config.n_layers) ** -0.25, generator)
    for block in model.blocks:
        attention = block.attention
        for linear in (attention.query, attention.key):
            nn.init.xavier_uniform_(linear.weight, 1.0, generator)
        for linear in (attention.value, attention.output, *_linears(block.feedforward)):
            nn.init.xavier_uniform_(linear.weight, depth_gain, generator)
        for linear in _linears(block):
            nn.init.zeros_(linear.bias)
        nn.init.normal_(attention.decay_projection, 0.0, config.d_head**-0.5, generator)
        matrices: list[Tensor] = [attention.distance_projection]
        if attention.cosine_projection is not None:
            matrices += attention.cosine_projection.unbind(0)
        for matrix in matrices:  # (n_heads, d_head, n_centers), as one (n_heads·d_head, n_centers) matrix
            nn.init.xavier_uniform_(matrix.detach().flatten(0, 1), matrix.shape[-1] ** -0.5, generator)
    for linear in _linears(model.readout):
        bound = 1.0 / math.sqrt(linear.in_features)
        nn.init.uniform_(linear.weight, -bound, bound, generator)
        nn.init.uniform_(linear.bias, -bound, bound, generator)


def without_weights(config: ModelConfig, device: str) -> CrystalFramer:
    """A model for weights to be loaded into: they are not initialised. On the device `meta`, it has only sizes."""
    with torch.device(device), _WithoutInitialWeights():
        return CrystalFramer(config)


class _WithoutInitialWeights(TorchFunctionMode):
    """Draw no initial weights, which would be thrown away: from the generator of the user, and on the meta device by
    Python code that imports the compiler of torch, which takes longer than to import torch."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        draws = function in (Tensor.normal_, Tensor.uniform_) or getattr(function, "__module__", "") == "torch.nn.init"
        return None if draws else function(*args, **(kwargs or {}))


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]
