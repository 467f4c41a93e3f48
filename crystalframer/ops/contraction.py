"""The output of framed attention times a given gradient, added up: one number, and its first derivatives.

They say what each edge brings to a prediction, and how it depends on the structure. Given the gradient, what an edge
brings through its cosine to an axis is a function of this one number, for each atom, head and axis. It is tabulated
once, and looked up for each edge and frame of a weighted set, in place of the Gaussians of all centres.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from crystalframer.compiled import announced, kernel
from crystalframer.maths.attended import AttendedEdges
from crystalframer.maths.basis import CosineBasis, cosine_centers, distance_centers, expected_gaussians, gaussians
from crystalframer.maths.ties import weighted_frames
from crystalframer.ops import reference
from crystalframer.ops.reference import AttentionInputs, Change

STEPS_PER_WIDTH = 32
"""Steps of a table in one standard deviation of a Gaussian: cubic interpolation is then right to about 1e-8."""
TABLES_AT_ONCE = 3000
"""Tables that are computed at a time, of 16 bytes for each step: some tens of megabytes."""


class Contracted(NamedTuple):
    """The number, and what it was made from."""

    value: Float[Tensor, ""]
    """Differentiable once with respect to all inputs, the structure (if the edges are) and the factors."""
    attention: Float[Tensor, "n_edges n_heads"]


def contracted(
    given: AttentionInputs,
    gradient: Float[Tensor, "n_atoms n_heads d_head"],
    factors: Float[Tensor, "n_edges n_heads"],
    fast: bool,
) -> Contracted:
    """Σ gradient × output of `reference.framed_attention`, with these factors on the weights of the edges.

    Args:
        given: inputs of an evaluation.
        factors: on the weights with which edges are summed. Frames follow the attention without them.
        fast: by tables, for weighted sets on the CPU. They are right to float32.
    """
    is_set = given.cosine_projection is not None and given.config.frame.weighted_margin > 0
    if not (fast and is_set):
        whole = reference.framed_attention(given, Change(weights=lambda attention: attention * factors))
        return Contracted((whole.output * gradient).sum(), whole.attention)
    return _by_tables(given, gradient, factors)


def _by_tables(given: AttentionInputs, gradient: Tensor, factors: Tensor) -> Contracted:
    edges, config, cosine_projection = given.edges, given.config, given.cosine_projection
    assert cosine_projection is not None
    logits, attention = reference.attend(given)
    weights = attention * factors
    of_values = einsum(gradient[edges.query], given.value[edges.key], "e h d, e h d -> e h")
    centers, width = distance_centers(config.distance, like=attention)
    sums = expected_gaussians(weights, edges.lengths[:, None, None], centers, width, edges.query, edges.n_atoms)
    of_distances = einsum(gradient, given.distance_projection, "n h d, h d m -> n h m")
    value = (weights * of_values).sum() + config.distance.coefficient * (sums[:, :, 0] * of_distances).sum()
    directed = weights.masked_fill(edges.is_self[:, None], 0.0)
    of_cosines = einsum(gradient, config.cosine.coefficient * cosine_projection, "n h d, k h d m -> n h k m")
    value = value + _along_sets(AttendedEdges(edges, logits, attention), directed, of_cosines.flatten(0, 1), given)
    return Contracted(value, attention)


def _along_sets(
    attended: AttendedEdges,
    directed: Float[Tensor, "n_edges n_heads"],
    coefficients: Float[Tensor, "n_groups 3 n_centers"],
    given: AttentionInputs,
) -> Float[Tensor, ""]:
    """What all edges bring by their cosines to the axes of all frames."""
    frame = given.config.frame
    assert frame.promises.anchored_by is not None, "FrameConfig refuses other methods"
    scores = attended.scores(frame.promises.anchored_by)
    total = directed.new_zeros(())
    for frames in weighted_frames(attended, scores, frame.weighted_margin, frame.second_axis):
        found = _Along.apply(
            directed,
            attended.edges.directions,
            frames.axes,
            torch.exp(-frames.cost),
            frames.group,
            attended.edges.query,
            coefficients.detach(),
            given.config.cosine,
        )
        total = total + found  # type: ignore[operator]  # `apply` has no types
    return total


class _Along(torch.autograd.Function):
    """Σ over frames of weight × Σ over edges of attention × what the cosines bring. Once differentiable."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        directed, directions, axes, weights, group, query, coefficients, basis = inputs
        n_groups = len(coefficients)
        first_edge = np.searchsorted(query.numpy(), np.arange(n_groups // directed.shape[1] + 1))
        edges = [directed.detach().T.contiguous(), directions.detach().contiguous()]
        frames = [axes.detach().contiguous(), weights.detach()]
        results = [torch.zeros_like(part) for part in (*edges, *frames)]
        order = torch.argsort(group, stable=True).numpy()
        first_frame = np.searchsorted(group.numpy(), np.arange(n_groups + 1), sorter=order)
        places = first_edge, first_frame, order
        given, found = (tuple(part.numpy() for part in parts) for parts in ((*edges, *frames), results))
        _prepare()
        for start in range(0, n_groups, TABLES_AT_ONCE):
            table = tables(coefficients[start : start + TABLES_AT_ONCE], basis)
            follow(start, start + len(table), places, given[:2], given[2:], table.numpy(), found)
        of_directed, of_directions, of_axes, of_weights = results
        ctx.save_for_backward(of_directed.T, of_directions, of_axes, of_weights)
        return (of_weights.double() * frames[1].double()).sum().to(directed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        return *(grad * saved for saved in ctx.saved_tensors), None, None, None, None


def tables(
    coefficients: Float[Tensor, "n_groups 3 n_centers"], basis: CosineBasis
) -> Float[Tensor, "n_groups 3 n_steps 2"]:
    """Σ coefficient × Gaussian, and its derivative, at equally spaced cosines from -1 to 1."""
    centers, width = cosine_centers(basis, like=coefficients.double())
    points = torch.linspace(-1.0, 1.0, math.ceil(2.0 * STEPS_PER_WIDTH / width) + 1, dtype=torch.float64)
    values = [coefficients.double() @ gaussians(points, centers, width, order).mT for order in (0, 1)]
    return torch.stack(values, dim=-1)


def _prepare() -> None:
    """Compile the kernel, or read it from disk, by a call without work."""
    if not follow.overloads:  # type: ignore[attr-defined]  # Numba's
        counts, rows, vectors = np.zeros(1, np.int64), np.zeros((1, 0), np.float32), np.zeros((0, 3), np.float32)
        frames = np.zeros((0, 3, 3), np.float32), np.zeros(0, np.float32)
        edges, table = (rows, vectors), np.zeros((0, 3, 2, 2))
        with announced("compiled kernels for the CPU"):
            follow(0, 0, (counts, counts, counts[:0]), edges, frames, table, (*edges, *frames))


@kernel()
def follow(start, stop, places, edges, frames, table, sums):
    """Look up every edge for every axis of every frame of some groups (atom × n_heads + head), and add up derivatives.

    Args:
        places: where the edges of each atom start; where the frames of each group start, in the order of the third.
        edges: attention (n_heads, n_edges) and directions (n_edges, 3).
        frames: axes (n_frames, 3, 3) and weights (n_frames).
        table: (n_groups, 3, n_steps, 2), from the group `start` on.
        sums: to which the derivatives with respect to edges and frames are added, in their shapes.
    """
    first_edge, first_frame, order = places
    directed, directions = edges
    axes, weights = frames
    of_directed, of_directions, of_axes, of_weights = sums
    n_heads = directed.shape[0]
    for g in range(start, stop):
        atom, head = g // n_heads, g % n_heads
        for place in range(first_frame[g], first_frame[g + 1]):
            frame = order[place]
            weight, brought = np.float64(weights[frame]), 0.0
            for k in range(3):
                u, v, w = axes[frame, k]
                of_u, of_v, of_w = 0.0, 0.0, 0.0
                for edge in range(first_edge[atom], first_edge[atom + 1]):
                    share = np.float64(directed[head, edge])
                    if share == 0.0:
                        continue
                    x, y, z = directions[edge]
                    value, slope = _look_up(table[g - start, k], np.float64(x * u + y * v + z * w))
                    slope *= share
                    brought += share * value
                    of_u, of_v, of_w = of_u + slope * x, of_v + slope * y, of_w + slope * z
                    of_directed[head, edge] += weight * value
                    of_directions[edge, 0] += weight * slope * u
                    of_directions[edge, 1] += weight * slope * v
                    of_directions[edge, 2] += weight * slope * w
                of_axes[frame, k, 0] += weight * of_u
                of_axes[frame, k, 1] += weight * of_v
                of_axes[frame, k, 2] += weight * of_w
            of_weights[frame] += brought


@kernel(inlined=True)
def _look_up(table, cosine):
    """The cubic between two steps that has their values and slopes, and its slope."""
    n_steps = table.shape[0] - 1
    step = 2.0 / n_steps
    at = (min(max(cosine, -1.0), 1.0) + 1.0) / step
    n = min(int(at), n_steps - 1)
    t = at - n
    low, left, right = table[n, 0], table[n, 1] * step, table[n + 1, 1] * step
    rise = table[n + 1, 0] - low
    bend, twist = 3.0 * rise - 2.0 * left - right, left + right - 2.0 * rise
    return low + t * (left + t * (bend + t * twist)), (left + t * (2.0 * bend + 3.0 * t * twist)) / step
