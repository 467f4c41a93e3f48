"""Reductions over the edges of each query atom, or the atoms of each crystal."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def segment_sum(
    values: Float[Tensor, "n_items *shape"], segment: Int[Tensor, " n_items"], n_segments: int
) -> Float[Tensor, "n_segments *shape"]:
    """Sum of the values in each segment; 0 for an empty one."""
    return values.new_zeros(n_segments, *values.shape[1:]).index_add(0, segment, values)


def segment_mean(
    values: Float[Tensor, "n_items *shape"], segment: Int[Tensor, " n_items"], n_segments: int
) -> Float[Tensor, "n_segments *shape"]:
    """Mean of the values in each segment; 0 for an empty one."""
    # Not torch.bincount, which waits for the device to find how many bins there are.
    count = segment_sum(values.new_ones(len(segment)), segment, n_segments).clamp(min=1)
    return segment_sum(values, segment, n_segments) / count.view(-1, *[1] * (values.ndim - 1))


def segment_max(
    values: Float[Tensor, "n_items *shape"], segment: Int[Tensor, " n_items"], n_segments: int
) -> Float[Tensor, "n_segments *shape"]:
    """Largest value in each segment; -inf for an empty one."""
    index = segment.view(-1, *[1] * (values.ndim - 1)).expand_as(values)
    return values.new_full((n_segments, *values.shape[1:]), -torch.inf).scatter_reduce(0, index, values, "amax")


def segment_first(
    chosen: Tensor, segment: Int[Tensor, " n_items"], n_segments: int
) -> Int[Tensor, "n_segments n_heads"]:
    """Number of the first item of each segment and head for which the Boolean `chosen` (n_items, n_heads) holds.

    Where none does, the number is n_items.
    """
    number = torch.arange(len(chosen), device=chosen.device)[:, None].expand_as(chosen)
    number = torch.where(chosen, number, len(chosen))
    start = number.new_full((n_segments, chosen.shape[1]), len(chosen))
    return start.scatter_reduce(0, segment[:, None].expand_as(number), number, "amin")


def segment_argmax(
    values: Float[Tensor, "n_items n_heads"], segment: Int[Tensor, " n_items"], n_segments: int
) -> Int[Tensor, "n_segments n_heads"]:
    """Number of the item with the largest value in each segment and head; the first of equals (and of NaNs)."""
    return segment_first(~(values < segment_max(values, segment, n_segments)[segment]), segment, n_segments)


def segment_softmax(
    logits: Float[Tensor, "n_items n_heads"], segment: Int[Tensor, " n_items"], n_segments: int
) -> Float[Tensor, "n_items n_heads"]:
    """Softmax over the items of each segment."""
    largest = segment_max(logits.detach(), segment, n_segments)
    weights = torch.exp(logits - largest[segment])
    return weights / segment_sum(weights, segment, n_segments)[segment]
