"""Ties: the choice of a frame, or a weighted set of frames, where edges are about equally strong.

Symmetry makes neighbours equivalent, so that they tie for a frame axis, and rounding after a rotation could choose
another one. So all edges within a margin of the best are candidates, and what becomes of them rotates with the
crystal: `strongest_pair` chooses by the moments of the attention, and `weighted_frames` gives all of them with weights
that change smoothly. (No choice of one frame is continuous: Dym et al., ICML 2024.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from crystalframer.config import FrameConfig, SecondAxis
from crystalframer.maths.attended import POWERS, AttendedEdges, products_of
from crystalframer.maths.constants import (
    COLLINEAR,
    EQUIVALENT,
    LARGEST_UNIFORM,
    SMALLEST_SINE,
    SMALLEST_SINE_SCORE,
    SMALLEST_SQUARED_SINE,
    TIE_WEIGHTS,
    UNIFORM_STEP,
)
from crystalframer.maths.edges import Edges
from crystalframer.maths.envelope import falling
from crystalframer.maths.segments import segment_argmax, segment_first, segment_max, segment_sum


def off_axis(
    edges: Edges, e1: Float[Tensor, "n_atoms n_heads 3"], scores: Float[Tensor, "n_edges n_heads"], rule: SecondAxis
) -> Float[Tensor, "n_edges n_heads"]:
    """Scores for the second anchor edge: lowered near the line of e₁ by this rule."""
    lowered = _lowered(scores, edges.directions[:, None], e1[edges.query], rule)
    return lowered.masked_fill(edges.is_self[:, None], -torch.inf)


def _lowered(
    scores: Float[Tensor, "*n"], directions: Float[Tensor, "*#n 3"], e1: Float[Tensor, "*n 3"], rule: SecondAxis
) -> Float[Tensor, "*n"]:
    """`off-line`: log-weight + log(1 - |cos θ|), -inf along the line. `sine`: log-weight + log(1 - cos² θ)."""
    if rule == "sine":  # by the cross product, which is exact near the line
        squared = torch.linalg.cross(directions.expand_as(e1), e1).square().sum(-1)
        return scores + torch.log(squared.clamp(min=SMALLEST_SQUARED_SINE))
    cosines = (directions * e1).sum(-1).abs()
    sines = (1.0 - cosines).clamp(min=SMALLEST_SINE_SCORE)
    return (scores + torch.log(sines)).masked_fill(cosines >= COLLINEAR, -torch.inf)


def right_handed(e1: Float[Tensor, "*n 3"], towards: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """e₁, the part of `towards` at right angles to it, and their cross product. On the line of e₁, both are 0."""
    is_on_line = torch.linalg.vector_norm(_off_line(towards, e1).detach(), dim=-1, keepdim=True) <= SMALLEST_SINE
    x, y, _ = torch.eye(3, dtype=e1.dtype, device=e1.device)
    line, towards = torch.where(is_on_line, x, e1), torch.where(is_on_line, y, towards)  # so that gradients are numbers
    e2 = normalize(_off_line(towards, line), dim=-1)
    e2 = normalize(_off_line(e2, line), dim=-1)  # of a small rest, rounding is along e₁ again
    e2 = torch.where(is_on_line, 0.0, e2)
    return torch.stack([e1, e2, torch.linalg.cross(e1, e2)], dim=-2)


def _off_line(vectors: Float[Tensor, "*n 3"], e1: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """The part at right angles to e₁."""
    return vectors - (vectors * e1).sum(-1, keepdim=True) * e1


def first_scores(edges: Edges, scores: Float[Tensor, "n_edges n_heads"]) -> Float[Tensor, "n_edges n_heads"]:
    """Scores for the first anchor edge; -inf for an atom's edge to itself."""
    return scores.masked_fill(edges.is_self[:, None], -torch.inf)


# --- frames that tie --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TiedFrames:
    """Frames within the margin of the best, for some groups: atom × n_heads + head."""

    group: Int[Tensor, " n_frames"]
    axes: Float[Tensor, "n_frames 3 3"]
    candidate: Int[Tensor, " n_frames"]
    """Number of the first axis among those that were given; in a weighted set, the edge that fixed e₁."""
    second: Int[Tensor, " n_frames"]
    """Edge that fixed e₂."""
    cost: Float[Tensor, " n_frames"]
    """Cost of both axes. For a choice, 0 for the strongest edges and without bound towards the margin; in a weighted
    set, minus the logarithm of the weight."""


def strongest_pair(
    attended: AttendedEdges, scores: Float[Tensor, "n_edges n_heads"], config: FrameConfig
) -> tuple[Int[Tensor, "n_atoms n_heads"], Int[Tensor, "n_atoms n_heads"]]:
    """The strongest edge and the strongest off its axis; ties of the two are decided together."""
    first, e1, group, cost = _tied_first_axes(attended, scores, config.tie_margin, _lag_cost)
    chosen, second = _best_frame(attended, e1, group, cost, scores, config)
    return first[chosen], second


def strongest_off_axis(
    attended: AttendedEdges,
    e1: Float[Tensor, "n_atoms n_heads 3"],
    scores: Float[Tensor, "n_edges n_heads"],
    config: FrameConfig,
) -> Int[Tensor, "n_atoms n_heads"]:
    """The strongest edge off a given axis."""
    group = torch.arange(e1[..., 0].numel(), device=e1.device)
    cost = torch.zeros_like(e1[..., 0]).flatten()
    return _best_frame(attended, e1.flatten(0, 1), group, cost, scores, config)[1]


def weighted_frames(
    attended: AttendedEdges, scores: Float[Tensor, "n_edges n_heads"], margin: float, rule: SecondAxis
) -> Iterator[TiedFrames]:
    """All frames of the weighted sets, some at a time; the weight of a frame is exp(-cost).

    Frames with the same first axis come together, those of a group may not.
    """
    first, e1, group, cost = _tied_first_axes(attended, scores, margin, _rarity)
    for frames in _tied_second_axes(attended.edges, e1, group, cost, scores, margin, rule, _rarity):
        yield replace(frames, candidate=first[frames.candidate])


def drawn_from_set(
    scores: Float[Tensor, "n_edges n_heads"],
    edges: Edges,
    margin: float,
    uniform: Float[Tensor, "n_edges n_heads"],
) -> Int[Tensor, "n_atoms n_heads"]:
    """One edge for each atom and head, drawn by the weights of the set (training).

    Args:
        uniform: random numbers in [0, 1). The edge with the largest weight / -log(number) wins, with these odds.
    """
    n_heads = scores.shape[1]
    item, cost = _tied(scores.flatten(), _groups(edges, n_heads), edges.n_atoms * n_heads, margin, _rarity)
    weights = torch.zeros_like(scores).flatten().index_copy_(0, item, torch.exp(-cost)).view_as(scores)
    uniform = (uniform + UNIFORM_STEP).clamp(max=LARGEST_UNIFORM)
    return segment_argmax(weights / -torch.log(uniform), edges.query, edges.n_atoms)


def _groups(edges: Edges, n_heads: int) -> Int[Tensor, " n_items"]:
    """Number of the atom and head of each edge and head."""
    return (edges.query[:, None] * n_heads + torch.arange(n_heads, device=edges.query.device)).flatten()


def _tied_first_axes(
    attended: AttendedEdges, scores: Float[Tensor, "n_edges n_heads"], margin: float, cost_of: CostOf
) -> tuple[
    Int[Tensor, " n_candidates"],
    Float[Tensor, "n_candidates 3"],
    Int[Tensor, " n_candidates"],
    Float[Tensor, " n_candidates"],
]:
    """Edges that may fix e₁, their directions, groups and costs."""
    edges, n_heads = attended.edges, attended.n_heads
    group = _groups(edges, n_heads)
    item, cost = _tied(first_scores(edges, scores).flatten(), group, edges.n_atoms * n_heads, margin, cost_of)
    first = item // n_heads
    return first, edges.directions[first], group[item], cost


def _tied_second_axes(
    edges: Edges,
    e1: Float[Tensor, "n_candidates 3"],
    group: Int[Tensor, " n_candidates"],
    cost: Float[Tensor, " n_candidates"],
    scores: Float[Tensor, "n_edges n_heads"],
    margin: float,
    rule: SecondAxis,
    cost_of: CostOf,
) -> Iterator[TiedFrames]:
    """For each first axis, the strongest edges off its line."""
    n_heads = scores.shape[1]
    for chunk in torch.arange(len(group), device=group.device).split(_candidates_at_once(edges)):
        edge, item = edges_around(edges, group[chunk] // n_heads)
        candidate = chunk[item]
        lowered = _lowered(scores[edge, group[candidate] % n_heads], edges.directions[edge], e1[candidate], rule)
        tied, more = _tied(lowered.masked_fill(edges.is_self[edge], -torch.inf), item, len(chunk), margin, cost_of)
        candidate, second = candidate[tied], edge[tied]
        axes = right_handed(e1[candidate], edges.directions[second])
        yield TiedFrames(group[candidate], axes, candidate, second, cost[candidate] + more)


def edges_around(
    edges: Edges, atoms: Int[Tensor, " n_items"]
) -> tuple[Int[Tensor, " n_around"], Int[Tensor, " n_around"]]:
    """All edges of each of these atoms (one may be named several times), and to which item each belongs."""
    n_edges = torch.bincount(edges.query, minlength=edges.n_atoms)
    count = n_edges[atoms]
    item = torch.repeat_interleave(torch.arange(len(atoms), device=atoms.device), count)
    start = (n_edges.cumsum(0) - n_edges)[atoms] - (count.cumsum(0) - count)
    return torch.arange(len(item), device=atoms.device) + start[item], item


CostOf: TypeAlias = Callable[[Float[Tensor, " n_tied"], Int[Tensor, " n_tied"]], Float[Tensor, " n_tied"]]
"""Costs of items, from the lag of each behind the best of its segment (in margins, below 1), and the segments."""


def _tied(
    scores: Float[Tensor, " n_items"], segment: Int[Tensor, " n_items"], n_segments: int, margin: float, cost_of: CostOf
) -> tuple[Int[Tensor, " n_tied"], Float[Tensor, " n_tied"]]:
    """The items within the margin of the best of their segment, and the cost of each."""
    best = segment_max(scores[:, None].detach(), segment, n_segments)[segment, 0]  # costs depend on differences of lags
    lag = (best - scores) / margin
    within = lag < 1.0
    within[segment_argmax(scores[:, None], segment, n_segments)] = True  # where all are NaN or -inf too
    item = within.nonzero()[:, 0]
    return item, cost_of(lag[item].nan_to_num(0.0), segment[item])


def _lag_cost(lag: Float[Tensor, " n_tied"], segment: Int[Tensor, " n_tied"]) -> Float[Tensor, " n_tied"]:
    """0 for the best, without bound towards the margin, so that the exact margin decides nothing."""
    power = lag**4
    return power / (1.0 - power)


def _rarity(lag: Float[Tensor, " n_tied"], segment: Int[Tensor, " n_tied"]) -> Float[Tensor, " n_tied"]:
    """-log u of the weights u_a ∝ Π_b φ((s_b - s_a)/δ) of a set, which add up to 1.

    With φ of `falling`, weights are twice differentiable in the scores, and a member comes and goes with weight 0. The
    best member has the product 1, so that no maximum is taken.
    """
    order = torch.argsort(segment, stable=True)
    _, count = torch.unique_consecutive(segment[order], return_counts=True)
    start = torch.repeat_interleave(count.cumsum(0) - count, count)
    count = torch.repeat_interleave(count, count)
    item = torch.repeat_interleave(torch.arange(len(order), device=lag.device), count)
    other = torch.arange(len(item), device=lag.device) - (count.cumsum(0) - count)[item] + start[item]
    sorted_lag = lag[order]
    logarithms = segment_sum(torch.log(falling(sorted_lag[item] - sorted_lag[other])), item, len(order))
    logarithms = torch.empty_like(lag).index_copy_(0, order, logarithms)
    n_segments = int(segment.max()) + 1 if len(segment) else 0
    # In logarithms: a product of many small factors is 0 in float32, where the logarithm has no derivative.
    return torch.log(segment_sum(torch.exp(logarithms), segment, n_segments))[segment] - logarithms


# --- the chosen frame -------------------------------------------------------------------------------------------------


def _best_frame(
    attended: AttendedEdges,
    e1: Float[Tensor, "n_candidates 3"],
    group: Int[Tensor, " n_candidates"],
    cost: Float[Tensor, " n_candidates"],
    scores: Float[Tensor, "n_edges n_heads"],
    config: FrameConfig,
) -> tuple[Int[Tensor, "n_atoms n_heads"], Int[Tensor, "n_atoms n_heads"]]:
    """The number of the first axis and the second edge that are chosen in each group.

    A head sees a frame only by the cosines of its edges to the axes. Moments of these cosines decide, so that the
    choice rotates with the crystal. The symmetry of the site maps frames with equal moments onto each other, or the
    head sees no difference between them.
    """
    n_groups, found = attended.edges.n_atoms * attended.n_heads, []
    rules = config.tie_margin, config.second_axis
    for tied in _tied_second_axes(attended.edges, e1, group, cost, scores, *rules, _lag_cost):
        value = _seen(attended, tied, config.both_hands) - tied.cost
        found.append((tied.group, tied.candidate, tied.second, value))
    group, candidate, second, value = (torch.cat(columns) for columns in zip(*found, strict=True))
    best = segment_max(value[:, None], group, n_groups)[group, 0]
    chosen = segment_first(~(value < best - EQUIVALENT)[:, None], group, n_groups)
    shape = (attended.edges.n_atoms, attended.n_heads)
    return candidate[chosen].view(shape), second[chosen].view(shape)


def _seen(attended: AttendedEdges, frames: TiedFrames, both_hands: bool) -> Float[Tensor, " n_frames"]:
    """Σ p (w₁(cos θ₁) + w₂(cos θ₂) + w₃(cos θ₃)) over the edges, with polynomials w."""
    weights = _tie_weights(both_hands).to(frames.axes)
    moments = attended.direction_moments.flatten(0, 1)
    along = [(moments[frames.group] * weights[k] * products_of(frames.axes[:, k])).sum(-1) for k in range(3)]
    return torch.stack(along).sum(0)


@lru_cache
def _tie_weights(both_hands: bool) -> Float[Tensor, "3 n_products"]:
    """Weight of each Σ p xᵃ yᵇ zᶜ along each axis: (r·e)ᵐ multiplied out.

    Where both hands count alike, moments that are odd along e₃ count nothing: a mirror image has the opposite ones.
    """
    counts = [math.factorial(sum(n)) / math.prod(map(math.factorial, n)) for n in POWERS]
    orders = [[0.0, *of_axis] for of_axis in TIE_WEIGHTS]
    if both_hands:
        orders[2][1::2] = [0.0, 0.0, 0.0]
    weights = [[of_axis[sum(n)] * count for n, count in zip(POWERS, counts, strict=True)] for of_axis in orders]
    with torch.inference_mode(False):  # it is kept, and a training may use it after a prediction
        return torch.tensor(weights, dtype=torch.float64)


def _candidates_at_once(edges: Edges) -> int:
    """Number of first axes whose second edges are compared together: at most two million edges in memory."""
    return max(1, 2**21 // int(torch.bincount(edges.query).max()))
