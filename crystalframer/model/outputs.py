"""Outputs of the network as predictions. Needs no torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from crystalframer.config import ModelConfig
from crystalframer.functional import sigmoid, softmax


class Evaluated(NamedTuple):
    """What a model says of some crystals."""

    outputs: Float64[np.ndarray, "n_crystals n_outputs"]
    """Scalars in their units, and logits of classes (`ModelConfig.outputs`)."""
    pooled: Float32[np.ndarray, "n_crystals d_model"] | None
    """Features of the last block, averaged over the atoms of each crystal; perhaps None if nothing follows from them.
    """
    kinds: Float64[np.ndarray, "n_crystals n_kinds"] | None
    """Logarithms of the probabilities of kinds (`Soundness.log_probabilities`)."""


def with_probabilities(
    outputs: Float[np.ndarray, "n n_outputs"], config: ModelConfig
) -> Float[np.ndarray, "n n_outputs"]:
    """Outputs with probabilities in place of the logits of classes."""
    parts = [
        outputs[:, columns]
        if not target.is_class
        else softmax(outputs[:, columns], dim=1)
        if target.n_outputs > 1
        else sigmoid(outputs[:, columns])
        for target, columns in zip(config.targets, config.columns, strict=True)
    ]
    return np.concatenate(parts, axis=1)
