"""Outputs of the network as predictions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from crystalframer.config import ModelConfig


def with_probabilities(outputs: Float[Tensor, "n n_outputs"], config: ModelConfig) -> Float[Tensor, "n n_outputs"]:
    """Outputs with probabilities in place of the logits of classes."""
    parts = [
        outputs[:, columns]
        if not target.is_class
        else torch.softmax(outputs[:, columns], dim=1)
        if target.n_outputs > 1
        else torch.sigmoid(outputs[:, columns])
        for target, columns in zip(config.targets, config.columns, strict=True)
    ]
    return torch.cat(parts, dim=1)
