"""Reductions by hand, over segments of different lengths and an empty one."""

from __future__ import annotations

import math

import torch

from crystalframer.maths.segments import (
    segment_argmax,
    segment_first,
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)

VALUES = torch.tensor([[1.0, 5.0], [3.0, 5.0], [2.0, -1.0]])
SEGMENT = torch.tensor([0, 0, 2])


def test_sum_and_max() -> None:
    assert segment_sum(VALUES, SEGMENT, 3).tolist() == [[4.0, 10.0], [0.0, 0.0], [2.0, -1.0]]
    assert segment_max(VALUES, SEGMENT, 3).tolist() == [[3.0, 5.0], [-math.inf, -math.inf], [2.0, -1.0]]


def test_mean() -> None:
    assert segment_mean(VALUES, torch.tensor([0, 0, 1]), 2).tolist() == [[2.0, 5.0], [2.0, -1.0]]


def test_argmax_takes_the_first_of_equals() -> None:
    assert segment_argmax(VALUES, SEGMENT, 3).tolist() == [[1, 0], [3, 3], [2, 2]]  # 3: the segment is empty


def test_argmax_of_nan_is_an_item() -> None:
    assert segment_argmax(VALUES * math.nan, SEGMENT, 3).tolist() == [[0, 0], [3, 3], [2, 2]]


def test_first() -> None:
    chosen = torch.tensor([[False, True], [True, True], [True, False]])
    assert segment_first(chosen, SEGMENT, 3).tolist() == [[1, 0], [3, 3], [2, 3]]


def test_softmax_sums_to_one_and_survives_large_logits() -> None:
    weights = segment_softmax(VALUES * 1000, SEGMENT, 3)
    assert weights.isfinite().all()
    torch.testing.assert_close(segment_sum(weights, SEGMENT, 3)[[0, 2]], torch.ones(2, 2))
    torch.testing.assert_close(weights[:2, 1], torch.tensor([0.5, 0.5]))


def test_softmax_gradient() -> None:
    logits = VALUES.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: segment_softmax(x, SEGMENT, 3), (logits,))
