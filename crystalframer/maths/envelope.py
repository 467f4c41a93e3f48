"""The smooth end of what a head sees."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from crystalframer.maths.constants import WHOLE


def log_envelope(
    lengths: Float[Tensor, "n_edges 1"], decay_length: Float[Tensor, "n_edges n_heads"], reach: float
) -> Float[Tensor, "n_edges n_heads"]:
    """Logarithm of the envelope φ((y-w)/(1-w)), y = r²/(kσ)², of every edge: 0 up to y = w, -inf from y = 1.

    It multiplies the weights of the attention. At r = kσ it has a zero of third order, so that energies and their first
    two derivatives are continuous when a neighbour comes or goes.
    """
    squared = (lengths / (reach * decay_length)).square()
    envelope = falling((squared - WHOLE) / (1.0 - WHOLE))
    is_within = envelope > 0.0
    return torch.log(torch.where(is_within, envelope, 1.0)).masked_fill(~is_within, -torch.inf)


def falling(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """φ: 1 for x ≤ 0, 0 for x ≥ 1, and between them (1-x)³(1 + 3x + 6x²), twice differentiable everywhere."""
    x = x.clamp(0.0, 1.0)
    return (1.0 - x) ** 3 * (1.0 + x * (3.0 + 6.0 * x))
