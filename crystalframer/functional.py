"""Functions that torch has and NumPy lacks.

A formula for both takes them from `functional(x)`: those of the library that x is of. So it is written once, and is
differentiable where torch computes it. Nothing here loads torch.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from jaxtyping import Float, Int


def functional(x: Any) -> Any:
    """`torch.nn.functional` for a tensor, and this module for an array."""
    if isinstance(x, np.ndarray):
        return sys.modules[__name__]
    from torch.nn import functional as of_torch

    return of_torch


def linear(
    x: Float[np.ndarray, "*n n_in"], weight: Float[np.ndarray, "n_out n_in"], bias: Float[np.ndarray, " n_out"]
) -> Float[np.ndarray, "*n n_out"]:
    return x @ weight.T + bias


def relu(x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    return np.maximum(x, 0.0)


def elu(x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    return np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0)))


def softplus(x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    return np.logaddexp(x, np.zeros_like(x))


def sigmoid(x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    power = np.exp(-np.abs(x))  # at most 1
    return np.where(x >= 0.0, np.ones_like(x), power) / (1.0 + power)


def silu(x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    return x * sigmoid(x)


def softmax(x: Float[np.ndarray, "*n"], dim: int) -> Float[np.ndarray, "*n"]:
    return np.exp(log_softmax(x, dim))


def log_softmax(x: Float[np.ndarray, "*n"], dim: int) -> Float[np.ndarray, "*n"]:
    shifted = x - x.max(axis=dim, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))


def segment_mean(
    values: Float[np.ndarray, "n_items *shape"], segment: Int[np.ndarray, " n_items"], n_segments: int
) -> Float[np.ndarray, "n_segments *shape"]:
    """As `maths.segments.segment_mean`, for items sorted by segment, and none empty."""
    first = np.searchsorted(segment, np.arange(n_segments))
    counts = np.bincount(segment, minlength=n_segments).astype(values.dtype)
    return np.add.reduceat(values, first, axis=0) / counts.reshape(-1, *[1] * (values.ndim - 1))


def segment_max(
    values: Float[np.ndarray, "n_items *shape"], segment: Int[np.ndarray, " n_items"], n_segments: int
) -> Float[np.ndarray, "n_segments *shape"]:
    """As `maths.segments.segment_max`, for items sorted by segment, and none empty."""
    return np.maximum.reduceat(values, np.searchsorted(segment, np.arange(n_segments)), axis=0)


concatenate = np.concatenate
