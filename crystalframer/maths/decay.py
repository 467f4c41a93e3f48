"""How logits of the attention depend on queries and keys: decay lengths of heads, and bounded contents."""

from __future__ import annotations

import math
from typing import Any

from jaxtyping import Float

from crystalframer.config import DecayConfig
from crystalframer.functional import functional


def decay_lengths(decay_logits: Float[Any, "n_atoms n_heads"], config: DecayConfig) -> Float[Any, "n_atoms n_heads"]:
    """σᵢ = r₀/√ρ(s), Å, with ρ(s) = b + (1-b)·g(βs/(1-b)): 1 at s = 0, slope β there, above b everywhere.

    g(u) is ELU(u) + 1 (Crystalformer), or the softplus log(1 + (e-1)·exp(u·e/(e-1))), which has all derivatives.
    """
    room = 1.0 - config.floor
    u = config.slope * decay_logits / room
    if config.shape == "smooth":
        u = functional(u).softplus(u * math.e / (math.e - 1.0) + math.log(math.e - 1.0)) - 1.0
    else:
        u = functional(u).elu(u)
    return config.reference_length * (room * u + 1.0) ** -0.5


def bounded(vectors: Float[Any, "n_atoms n_heads d_head"], largest: float) -> Float[Any, "n_atoms n_heads d_head"]:
    """v/√(1 + |v|²/(C√d)), shorter than √(C√d), so that q·k/√d of two such vectors lies between -C and C.

    Short vectors stay as they are. (A soft form of the normalised queries and keys of Henry et al., EMNLP 2020.)
    """
    squared = (vectors * vectors).sum(-1)[..., None]
    return vectors * (1.0 + squared / (largest * vectors.shape[-1] ** 0.5)) ** -0.5
