"""One layer of framed self-attention: its parameters, around the function in `ops`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from crystalframer.config import ModelConfig
from crystalframer.maths.decay import bounded, decay_lengths
from crystalframer.maths.edges import Edges
from crystalframer.maths.frames import NoiseSeed
from crystalframer.ops import contracted, framed_attention, reference
from crystalframer.ops.contraction import Contracted
from crystalframer.ops.reference import UNCHANGED, AttentionInputs, Change


class Projected(NamedTuple):
    """Projected features of atoms: queries, keys, values and decay lengths."""

    query: Float[Tensor, "n_atoms n_heads d_head"]
    key: Float[Tensor, "n_keys n_heads d_head"]
    value: Float[Tensor, "n_keys n_heads d_head"]
    decay_length: Float[Tensor, "n_atoms n_heads"]
    """σᵢ, Å."""

    def at_queries(self, edges: Edges) -> Projected:
        """The same, with queries and decay lengths only of the query atoms of these edges."""
        query, decay_length = edges.at_queries(self.query), edges.at_queries(self.decay_length)
        return self._replace(query=query, decay_length=decay_length)


@dataclass(frozen=True, eq=False)
class LayerOutput:
    """Output of the attention branch, with its intermediate results."""

    features: Float[Tensor, "n_atoms d_model"]
    decay_length: Float[Tensor, "n_atoms n_heads"]
    """σᵢ, Å."""
    framed: reference.FramedAttention


class FramedSelfAttention(nn.Module):
    """Multi-head self-attention over periodic neighbours with dynamic frames (CrystalFramer)."""

    decay_scale: Tensor
    decay_shift: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, n_heads, d_head = config.d_model, config.n_heads, config.d_head
        self.config = self.evaluation_config = config
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d)
        self.value = nn.Linear(d, d)
        self.output = nn.Linear(d, d)
        self.decay_projection = nn.Parameter(torch.empty(n_heads, d_head))
        self.distance_projection = nn.Parameter(torch.empty(n_heads, d_head, config.distance.n_centers))
        self.cosine_projection = None
        if config.frame.promises.axes:
            self.cosine_projection = nn.Parameter(torch.empty(3, n_heads, d_head, config.cosine.n_centers))
        # Bring the decay logits to mean 0 and standard deviation 1; set by `calibrate` (quirk Q11).
        self.register_buffer("decay_scale", torch.ones(()))
        self.register_buffer("decay_shift", torch.zeros(()))

    def forward(
        self, projected: Projected, edges: Edges, noise_seed: NoiseSeed | None = None
    ) -> Float[Tensor, "n_atoms d_model"]:
        """Output of the attention for the query atoms of these edges."""
        return self.put_out(self.framed(projected, edges, noise_seed))

    def framed(
        self, projected: Projected, edges: Edges, noise_seed: NoiseSeed | None = None
    ) -> Float[Tensor, "n_atoms n_heads d_head"]:
        """What each head gathers for the query atoms of these edges."""
        with _full_precision(projected.key):
            return framed_attention(self._inputs(projected, edges, noise_seed))

    def put_out(self, framed: Float[Tensor, "n_atoms n_heads d_head"]) -> Float[Tensor, "n_atoms d_model"]:
        """The output from what the heads gathered."""
        return self.output(rearrange(framed, "n h d -> n (h d)"))

    def contracted(
        self,
        projected: Projected,
        edges: Edges,
        gradient: Float[Tensor, "n_atoms n_heads d_head"],
        factors: Float[Tensor, "n_edges n_heads"],
    ) -> Contracted:
        """What the heads gather times a gradient, with factors on the weights of the edges; see `ops.contraction`."""
        return contracted(self._inputs(projected, edges), gradient, factors)

    def trace(self, projected: Projected, edges: Edges, change: Change = UNCHANGED) -> LayerOutput:
        """The same as `forward` in evaluation, by the reference implementation and with all intermediate results."""
        inputs = self._inputs(projected, edges)
        with _full_precision(projected.key):
            framed = reference.framed_attention(inputs, change)
        return LayerOutput(self.put_out(framed.output), inputs.decay_length, framed)

    def calibrate(self, features: Float[Tensor, "n_atoms d_model"]) -> None:
        """Set scale and shift so that the decay logits of these atoms have mean 0 and standard deviation 1."""
        with torch.no_grad():
            logits = self._raw_decay_logits(rearrange(self.query(features), "n (h d) -> n h d", h=self.config.n_heads))
            self.decay_scale.copy_(1.0 / logits.std())
            self.decay_shift.copy_(-logits.mean())

    def _inputs(self, projected: Projected, edges: Edges, noise_seed: NoiseSeed | None = None) -> AttentionInputs:
        weights = self.distance_projection, self._cosine_weights()
        config = self.evaluation_config if noise_seed is None else self.config
        return AttentionInputs(*projected.at_queries(edges), *weights, edges, config, noise_seed)

    def _cosine_weights(self) -> Float[Tensor, "3 n_heads d_head n_cosine_centers"] | None:
        """Weights of the cosines to each axis; where both hands count alike, even in the cosine to the hand's axis."""
        weights, frame = self.cosine_projection, self.config.frame
        if weights is None or not frame.both_hands:
            return weights
        of_axis = list(weights.unbind(0))
        hand = frame.promises.hand_axis
        assert hand is not None, "FrameConfig refuses other methods"
        of_axis[hand] = 0.5 * (of_axis[hand] + of_axis[hand].flip(-1))  # the centres are symmetric about 0
        return torch.stack(of_axis)

    def project(self, features: Float[Tensor, "n_atoms d_model"]) -> Projected:
        """Queries, keys, values and decay lengths of all atoms."""
        query, key, value = (
            rearrange(project(features).to(features.dtype), "n (h d) -> n h d", h=self.config.n_heads)
            for project in (self.query, self.key, self.value)
        )
        decay_logits = (self._raw_decay_logits(query) + self.decay_shift) * self.decay_scale
        if (largest := self.config.largest_content) is not None:
            query, key = bounded(query, largest), bounded(key, largest)
        return Projected(query, key, value, decay_lengths(decay_logits, self.config.decay))

    def _raw_decay_logits(self, query: Float[Tensor, "n_atoms n_heads d_head"]) -> Float[Tensor, "n_atoms n_heads"]:
        return (query * self.decay_projection).sum(-1)


def _full_precision(features: Tensor) -> torch.autocast:
    """Under autocast the dense layers may run in bfloat16; logits, softmax, frames and bases never do."""
    return torch.autocast(features.device.type, enabled=False)
