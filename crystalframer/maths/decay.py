"""How attention falls with distance: decay lengths of heads, and the smooth end of what a head sees."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from crystalframer.config import DecayConfig

WHOLE = 0.8
"""Share of the squared reach up to which the envelope is 1."""
SMALLEST_REST = 1e-6
"""Rounding of the envelope's argument, for kernels."""
NEGLIGIBLE = 1e-7
"""Attention below which kernels leave out the last edges of an atom, if heads have a reach: each less than rounding."""


def decay_lengths(
    decay_logits: Float[Tensor, "n_atoms n_heads"], config: DecayConfig
) -> Float[Tensor, "n_atoms n_heads"]:
    """σᵢ = r₀/√ρ(s), Å, with ρ(s) = b + (1-b)·g(βs/(1-b)): 1 at s = 0, slope β there, above b everywhere.

    g(u) is ELU(u) + 1 (Crystalformer), or the softplus log(1 + (e-1)·exp(u·e/(e-1))), which has all derivatives.
    """
    room = 1.0 - config.floor
    u = config.slope * decay_logits / room
    if config.shape == "smooth":
        u = functional.softplus(u * math.e / (math.e - 1.0) + math.log(math.e - 1.0)) - 1.0
    else:
        u = functional.elu(u)
    return config.reference_length * (room * u + 1.0).rsqrt()


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
