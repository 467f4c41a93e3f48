"""Ties: the choice of a frame, or of several frames, where edges are equally strong.

Symmetry makes neighbours equivalent, so that they tie for a frame axis, and rounding after a rotation could choose
another one. So all edges within a margin of the best are candidates, and the choice among them rotates with the
crystal: `strongest_pair` chooses by the moments of the attention, and `tied_frames` gives all of them, to average over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from crystalframer.maths.attended import POWERS, AttendedEdges, products_of
from crystalframer.maths.edges import Edges
from crystalframer.maths.segments import segment_argmax, segment_first, segment_max

COLLINEAR = 0.9999
"""|cosine| to the first axis above which an edge cannot set the second."""
SMALLEST_SINE_SCORE = 1e-5
TIE_WEIGHTS = (
    (1.00, 0.38, 0.47, 0.29, 0.21),
    (0.31, 0.12, 0.19, 0.10, 0.14),
    (0.13, 0.05, 0.11, 0.08, 0.06),
)
"""Weights of the five moments along e₁, e₂ and e₃ that decide ties. Any numbers without simple ratios would do."""
EQUIVALENT = 1e-6
"""Frames whose moments differ by less are equivalent for the head, and the first of them is taken."""


def off_axis(
    edges: Edges, e1: Float[Tensor, "n_atoms n_heads 3"], scores: Float[Tensor, "n_edges n_heads"]
) -> Float[Tensor, "n_edges n_heads"]:
    """Scores for the second anchor edge: log-weight + log(1 - |cosine to e₁|); -inf along the axis."""
    cosines = einsum(edges.directions, e1[edges.query], "e xyz, e h xyz -> e h")
    return _lowered(scores, cosines).masked_fill(edges.is_self[:, None], -torch.inf)


def _lowered(scores: Float[Tensor, "*n"], cosines: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    sines = (1.0 - cosines.abs()).clamp(min=SMALLEST_SINE_SCORE)
    return (scores + torch.log(sines)).masked_fill(cosines.abs() >= COLLINEAR, -torch.inf)


def right_handed(e1: Float[Tensor, "*n 3"], towards: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """e₁, the part of `towards` at right angles to it, and their cross product."""
    e2 = normalize(towards - (towards * e1).sum(-1, keepdim=True) * e1, dim=-1)
    return torch.stack([e1, e2, torch.linalg.cross(e1, e2)], dim=-2)


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
    """Number of the first axis among those that were given."""
    second: Int[Tensor, " n_frames"]
    """Edge that fixed e₂."""
    cost: Float[Tensor, " n_frames"]
    """Cost of both axes: 0 for the strongest edges, without bound towards the margin."""


def strongest_pair(
    attended: AttendedEdges, scores: Float[Tensor, "n_edges n_heads"], margin: float
) -> tuple[Int[Tensor, "n_atoms n_heads"], Int[Tensor, "n_atoms n_heads"]]:
    """The strongest edge and the strongest off its axis; ties of the two are decided together."""
    first, e1, group, cost = _tied_first_axes(attended, scores, margin)
    chosen, second = _best_frame(attended, e1, group, cost, scores, margin)
    return first[chosen], second


def strongest_off_axis(
    attended: AttendedEdges,
    e1: Float[Tensor, "n_atoms n_heads 3"],
    scores: Float[Tensor, "n_edges n_heads"],
    margin: float,
) -> Int[Tensor, "n_atoms n_heads"]:
    """The strongest edge off a given axis."""
    group = torch.arange(e1[..., 0].numel(), device=e1.device)
    cost = torch.zeros_like(e1[..., 0]).flatten()
    return _best_frame(attended, e1.flatten(0, 1), group, cost, scores, margin)[1]


def tied_frames(
    attended: AttendedEdges, scores: Float[Tensor, "n_edges n_heads"], margin: float
) -> Iterator[TiedFrames]:
    """All frames that tie, some at a time. Frames with the same first axis come together, those of a group may not."""
    _, e1, group, cost = _tied_first_axes(attended, scores, margin)
    return _tied_second_axes(attended.edges, e1, group, cost, scores, margin)


def _tied_first_axes(
    attended: AttendedEdges, scores: Float[Tensor, "n_edges n_heads"], margin: float
) -> tuple[
    Int[Tensor, " n_candidates"],
    Float[Tensor, "n_candidates 3"],
    Int[Tensor, " n_candidates"],
    Float[Tensor, " n_candidates"],
]:
    """Edges that may fix e₁, their directions, groups and costs."""
    edges, n_heads = attended.edges, attended.n_heads
    group = (edges.query[:, None] * n_heads + torch.arange(n_heads, device=edges.query.device)).flatten()
    item, cost = _tied(first_scores(edges, scores).flatten(), group, edges.n_atoms * n_heads, margin)
    first = item // n_heads
    return first, edges.directions[first], group[item], cost


def _tied_second_axes(
    edges: Edges,
    e1: Float[Tensor, "n_candidates 3"],
    group: Int[Tensor, " n_candidates"],
    cost: Float[Tensor, " n_candidates"],
    scores: Float[Tensor, "n_edges n_heads"],
    margin: float,
) -> Iterator[TiedFrames]:
    """For each first axis, the strongest edges off its line."""
    n_heads = scores.shape[1]
    for chunk in torch.arange(len(group), device=group.device).split(_candidates_at_once(edges)):
        edge, item = edges_around(edges, group[chunk] // n_heads)
        candidate = chunk[item]
        cosines = (edges.directions[edge] * e1[candidate]).sum(-1)
        lowered = _lowered(scores[edge, group[candidate] % n_heads], cosines)
        tied, more = _tied(lowered.masked_fill(edges.is_self[edge], -torch.inf), item, len(chunk), margin)
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


def _tied(
    scores: Float[Tensor, " n_items"], segment: Int[Tensor, " n_items"], n_segments: int, margin: float
) -> tuple[Int[Tensor, " n_tied"], Float[Tensor, " n_tied"]]:
    """The items within the margin of the best of their segment, and the cost of each.

    The cost is 0 for the best and grows without bound towards the margin, so that the exact margin decides nothing.
    """
    lag = (segment_max(scores[:, None], segment, n_segments)[segment, 0] - scores) / margin
    within = lag < 1.0
    within[segment_argmax(scores[:, None], segment, n_segments)] = True  # where all are NaN too
    item = within.nonzero()[:, 0]
    power = lag[item] ** 4
    return item, power / (1.0 - power)


# --- the chosen frame -------------------------------------------------------------------------------------------------


def _best_frame(
    attended: AttendedEdges,
    e1: Float[Tensor, "n_candidates 3"],
    group: Int[Tensor, " n_candidates"],
    cost: Float[Tensor, " n_candidates"],
    scores: Float[Tensor, "n_edges n_heads"],
    margin: float,
) -> tuple[Int[Tensor, "n_atoms n_heads"], Int[Tensor, "n_atoms n_heads"]]:
    """The number of the first axis and the second edge that are chosen in each group.

    A head sees a frame only by the cosines of its edges to the axes. Moments of these cosines decide, so that the
    choice rotates with the crystal. The symmetry of the site maps frames with equal moments onto each other, or the
    head sees no difference between them.
    """
    n_groups, found = attended.edges.n_atoms * attended.n_heads, []
    for tied in _tied_second_axes(attended.edges, e1, group, cost, scores, margin):
        found.append((tied.group, tied.candidate, tied.second, _seen(attended, tied) - tied.cost))
    group, candidate, second, value = (torch.cat(columns) for columns in zip(*found, strict=True))
    best = segment_max(value[:, None], group, n_groups)[group, 0]
    chosen = segment_first(~(value < best - EQUIVALENT)[:, None], group, n_groups)
    shape = (attended.edges.n_atoms, attended.n_heads)
    return candidate[chosen].view(shape), second[chosen].view(shape)


def _seen(attended: AttendedEdges, frames: TiedFrames) -> Float[Tensor, " n_frames"]:
    """Σ p (w₁(cos θ₁) + w₂(cos θ₂) + w₃(cos θ₃)) over the edges, with polynomials w."""
    weights = _tie_weights().to(frames.axes)
    moments = attended.direction_moments.flatten(0, 1)
    along = [(moments[frames.group] * weights[k] * products_of(frames.axes[:, k])).sum(-1) for k in range(3)]
    return torch.stack(along).sum(0)


@lru_cache
def _tie_weights() -> Float[Tensor, "3 n_products"]:
    """Weight of each Σ p xᵃ yᵇ zᶜ along each axis: (r·e)ᵐ multiplied out."""
    counts = [math.factorial(sum(n)) / math.prod(map(math.factorial, n)) for n in POWERS]
    weights = [
        [(0.0, *of_axis)[sum(n)] * count for n, count in zip(POWERS, counts, strict=True)] for of_axis in TIE_WEIGHTS
    ]
    with torch.inference_mode(False):  # it is kept, and a training may use it after a prediction
        return torch.tensor(weights, dtype=torch.float64)


def _candidates_at_once(edges: Edges) -> int:
    """Number of first axes whose second edges are compared together: at most two million edges in memory."""
    return max(1, 2**21 // int(torch.bincount(edges.query).max()))
