"""The nonlinear function between two dense layers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crystalframer.config import Activation


class Swish(nn.Module):
    """x·sigmoid(βx), smooth everywhere (Ramachandran et al., arXiv 1710.05941).

    Without normalisation layers, inputs are small, and with β = 1 the function is almost linear there. So `calibrate`
    sets β to the inverse of their spread. Inputs grow tenfold in training. (Three times as sharp, or with β learned, it
    predicts no better.)
    """

    sharpness: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sharpness", torch.ones(()))

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return x * torch.sigmoid(self.sharpness * x)

    def calibrate(self, x: Float[Tensor, "*shape"]) -> None:
        """Set the sharpness so that inputs like these turn from one branch to the other within their spread."""
        with torch.no_grad():
            self.sharpness.copy_(1.0 / x.std())


class Perceptron(nn.Sequential):
    """Two dense layers with the activation between them."""

    def __init__(self, n_in: int, n_hidden: int, n_out: int, activation: Activation) -> None:
        between = nn.ReLU() if activation == "relu" else Swish()
        super().__init__(nn.Linear(n_in, n_hidden), between, nn.Linear(n_hidden, n_out))

    def calibrate(self, x: Float[Tensor, "n n_in"]) -> None:
        """Fit the activation to inputs like these; ReLU needs nothing."""
        first, between, _ = self
        if isinstance(between, Swish):
            between.calibrate(first(x))
