"""Framed attention in plain torch, for any device and precision. Faster implementations are tested against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from crystalframer.config import ModelConfig
from crystalframer.maths.attended import AttendedEdges
from crystalframer.maths.basis import cosine_centers, distance_centers, expected_gaussians
from crystalframer.maths.edges import Edges
from crystalframer.maths.envelope import log_envelope
from crystalframer.maths.frames import Frame, NoiseSeed, build_frames
from crystalframer.maths.segments import segment_softmax, segment_sum
from crystalframer.maths.ties import edges_around, weighted_frames


@dataclass(frozen=True, eq=False)
class AttentionInputs:
    """What one layer of attention is computed from."""

    query: Float[Tensor, "n_atoms n_heads d_head"]
    key: Float[Tensor, "n_keys n_heads d_head"]
    value: Float[Tensor, "n_keys n_heads d_head"]
    decay_length: Float[Tensor, "n_atoms n_heads"]
    """σᵢ, Å."""
    distance_projection: Float[Tensor, "n_heads d_head n_distance_centers"]
    cosine_projection: Float[Tensor, "3 n_heads d_head n_cosine_centers"] | None
    """One matrix per axis and head; None without frames."""
    edges: Edges
    config: ModelConfig
    noise_seed: NoiseSeed | None = None
    """Seed of the noise that chooses among ties in training; None in evaluation."""


@dataclass(frozen=True, eq=False)
class FramedAttention:
    """Output of one layer of attention, with all intermediate results."""

    output: Float[Tensor, "n_atoms n_heads d_head"]
    attention: Float[Tensor, "n_edges n_heads"]
    """Sums to 1 over all edges of one query atom and head."""
    content_logits: Float[Tensor, "n_edges n_heads"]
    distance_logits: Float[Tensor, "n_edges n_heads"]
    """-r²/2σᵢ², plus the logarithm of the envelope if there is one: -inf beyond the reach of a head."""
    frame: Frame | None
    """None without frames."""
    attended: AttendedEdges | None
    """What the frames were made from."""


@dataclass(frozen=True, eq=False)
class Change:
    """What an analysis changes in one layer; by default nothing."""

    weights: Callable[[Float[Tensor, "n_edges n_heads"]], Float[Tensor, "n_edges n_heads"]] | None = None
    """The weights with which the edges are summed, from their attention. Frames still follow the attention."""
    axes: Float[Tensor, "n_atoms n_heads 3 3"] | None = None
    """Axes in place of the frames: one frame for each atom and head."""


UNCHANGED = Change()


def framed_attention(given: AttentionInputs, change: Change = UNCHANGED) -> FramedAttention:
    """Attention of every atom to all its periodic neighbours, edge values encoded in the atom's own frame.

    output_i = Σ_j(n) p_ij(n) (value_j + ψ_ij(n)) with p the softmax over all edges of atom i of
    q·k/√d - r²/2σᵢ² (Crystalformer; the sum over images and the softmax over atoms are one flat softmax) and
    ψ the projected Gaussian bases of the distance and of the cosines to the frame axes (CrystalFramer).
    With `DecayConfig.reach`, an envelope multiplies the weights (`maths.decay`).
    """
    edges, config, n_atoms = given.edges, given.config, given.edges.n_atoms
    content_logits, distance_logits = _logits(given)
    logits = content_logits + distance_logits
    attention = segment_softmax(logits, edges.query, n_atoms)

    weights = attention if change.weights is None else change.weights(attention)
    attended_values = segment_sum(weights[..., None] * given.value[edges.key], edges.query, n_atoms)

    centers, width = distance_centers(config.distance, like=attention)
    attended_distances = expected_gaussians(
        weights, edges.lengths[:, None, None], centers, width, edges.query, n_atoms
    )[:, :, 0]
    distance_values = einsum(attended_distances, given.distance_projection, "n h m, h d m -> n h d")
    output = attended_values + config.distance.coefficient * distance_values

    if given.cosine_projection is None:
        return FramedAttention(output, attention, content_logits, distance_logits, None, None)

    attended = AttendedEdges(edges, logits, attention)
    frame = build_frames(attended, config.frame, given.noise_seed) if change.axes is None else Frame(change.axes)
    # The atom's edge to itself has no direction: it counts in the softmax, but not in the angles (quirk Q10).
    directed_attention = weights.masked_fill(edges.is_self[:, None], 0.0)
    if config.frame.weighted_margin > 0 and given.noise_seed is None and change.axes is None:
        attended_cosines = cosines_in_weighted_frames(directed_attention, attended, config)
    else:
        axis_cosines = einsum(edges.directions, frame.axes[edges.query], "e xyz, e h k xyz -> e h k")
        basis = cosine_centers(config.cosine, like=attention)
        attended_cosines = expected_gaussians(directed_attention, axis_cosines, *basis, edges.query, n_atoms)
    cosine_values = einsum(attended_cosines, given.cosine_projection, "n h k m, k h d m -> n h d")
    output = output + config.cosine.coefficient * cosine_values
    return FramedAttention(output, attention, content_logits, distance_logits, frame, attended)


def attend(given: AttentionInputs) -> tuple[Float[Tensor, "n_edges n_heads"], Float[Tensor, "n_edges n_heads"]]:
    """The logits, and their softmax over all edges of each atom."""
    content_logits, distance_logits = _logits(given)
    logits = content_logits + distance_logits
    return logits, segment_softmax(logits, given.edges.query, given.edges.n_atoms)


def _logits(given: AttentionInputs) -> tuple[Float[Tensor, "n_edges n_heads"], Float[Tensor, "n_edges n_heads"]]:
    """Of content and of distance."""
    edges, reach = given.edges, given.config.decay.reach
    content_logits = (given.query[edges.query] * given.key[edges.key]).sum(-1) / given.query.shape[-1] ** 0.5
    decay_length = given.decay_length[edges.query]
    distance_logits = -0.5 * (edges.lengths[:, None] / decay_length).square()
    if reach is not None:
        distance_logits = distance_logits + log_envelope(edges.lengths[:, None], decay_length, reach)
    return content_logits, distance_logits


def cosines_in_weighted_frames(
    directed_attention: Float[Tensor, "n_edges n_heads"], attended: AttendedEdges, config: ModelConfig
) -> Float[Tensor, "n_atoms n_heads 3 n_cosine_centers"]:
    """The attended Gaussians of the cosines, summed over the weighted sets of frames."""
    edges, n_groups = attended.edges, attended.edges.n_atoms * attended.n_heads
    strength, margin = config.frame.promises.anchored_by, config.frame.weighted_margin
    assert strength is not None, "FrameConfig refuses other methods"
    totals = [directed_attention.new_zeros(n_groups, n_axes, config.cosine.n_centers) for n_axes in (1, 2)]
    for frames in weighted_frames(attended, attended.scores(strength), margin, config.frame.second_axis):
        weight = torch.exp(-frames.cost)
        # Frames with the same e₁ follow one another; its edges are summed once for all of them.
        e1 = frames.group * len(edges.query) + frames.candidate
        _, number, count = torch.unique_consecutive(e1, return_inverse=True, return_counts=True)
        weight_of_e1 = segment_sum(weight, number, len(count))
        parts = (count.cumsum(0) - count, slice(0, 1), weight_of_e1), (slice(None), slice(1, 3), weight)
        for n, (rows, axes, weights) in enumerate(parts):
            group = frames.group[rows]
            seen = _seen_cosines(directed_attention, edges, frames.axes[rows, axes], group, config)
            totals[n] = totals[n].index_add(0, group, weights[:, None, None] * seen)
    return torch.cat(totals, dim=1).unflatten(0, (edges.n_atoms, attended.n_heads))


def _seen_cosines(
    directed_attention: Float[Tensor, "n_edges n_heads"],
    edges: Edges,
    axes: Float[Tensor, "n_frames n_axes 3"],
    group: Int[Tensor, " n_frames"],
    config: ModelConfig,
) -> Float[Tensor, "n_frames n_axes n_cosine_centers"]:
    """The attended Gaussians of the cosines to axes of these groups (atom × n_heads + head)."""
    n_heads = directed_attention.shape[1]
    edge, item = edges_around(edges, group // n_heads)
    weights = directed_attention[edge, group[item] % n_heads]
    counts = (weights != 0.0).nonzero()[:, 0]  # not those beyond the reach of the head
    edge, item, weights = edge[counts], item[counts], weights[counts]
    cosines = einsum(edges.directions[edge], axes[item], "e xyz, e k xyz -> e k")
    basis = cosine_centers(config.cosine, like=directed_attention)
    return expected_gaussians(weights[:, None], cosines[:, None], *basis, item, len(group))[:, 0]
