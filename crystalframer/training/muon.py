"""Muon: steps of equal size in all directions of a weight matrix.

The momentum M = U S Vᵀ of a matrix becomes nearly U Vᵀ by an iteration of matrix products (Newton and Schulz, with the
factors of Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024). It is multiplied by
0.2·√(longer side), so that a step is as large as one of AdamW and takes the same learning rate (Liu et al., arXiv
2502.16982). All other parameters follow AdamW. `torch.optim.Muon` takes matrices one by one and refuses stacks of them;
here those of one shape are one product, and the projections of heads are a matrix for each head.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

FACTORS = (3.4445, -4.7750, 2.0315)
"""Of X, XXᵀX and (XXᵀ)²X: they bring singular values from above 0 close to 1 in a few steps, not exactly."""
N_ITERATIONS = 5
SIZE = 0.2
"""Root mean square of an element in a step of AdamW, in learning rates."""
SMALLEST_NORM = 1e-7


def orthogonal(matrices: Float[Tensor, "n rows columns"]) -> Float[Tensor, "n rows columns"]:
    """U Vᵀ of U S Vᵀ, with singular values between 0.7 and 1.2; of a matrix of zeros, zeros.

    >>> import torch
    >>> x = orthogonal(torch.tensor([[[3.0, 0.0, 0.0], [0.0, 0.5, 0.0]]]))[0]
    >>> bool((x.diagonal() > 0.6).all()) and float(x[0, 1])
    0.0
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + SMALLEST_NORM)
    one, three, five = FACTORS
    for _ in range(N_ITERATIONS):
        square = x @ x.mT
        x = one * x + (three * square + five * square @ square) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.AdamW):
    """Muon for the groups of parameters that say `orthogonal`, and AdamW for the others.

    A parameter of Muon is a matrix, or a stack of them: its last two axes.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], learning_rate: float, momentum: float, **adamw: Any) -> None:
        """Args: momentum: share of the momentum that a step of Muon keeps; adamw: options of AdamW."""
        super().__init__(groups, learning_rate, **adamw)
        self.momentum = momentum

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step. Where `found_inf` is 1, as GPU scalers and the training task set it, nothing changes."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group.get("orthogonal")]
        try:
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group.get("orthogonal"):
                self._step(group)
        return loss

    @torch.no_grad()
    def _step(self, group: dict[str, Any]) -> None:
        of_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                of_shape[parameter.shape[-2:]].append(parameter)
        found_inf = getattr(self, "found_inf", None)
        for shape, parameters in of_shape.items():
            gradients = torch.cat([parameter.grad.reshape(-1, *shape) for parameter in parameters])  # type: ignore[union-attr]
            before = torch.cat([self._momentum(parameter).reshape(-1, *shape) for parameter in parameters])
            momenta = before.lerp(gradients, 1.0 - self.momentum)
            updates = orthogonal(gradients.lerp(momenta, self.momentum)) * (group["lr"] * SIZE * max(shape) ** 0.5)
            keep = 1.0 - group["lr"] * group["weight_decay"]
            if found_inf is not None:
                is_sound = found_inf == 0
                momenta, updates = torch.where(is_sound, momenta, before), torch.where(is_sound, updates, 0.0)
                keep = torch.where(is_sound, keep, 1.0)
            sizes = [parameter.numel() // shape.numel() for parameter in parameters]
            for parameter, momentum, update in zip(parameters, momenta.split(sizes), updates.split(sizes), strict=True):
                self._momentum(parameter).copy_(momentum.view_as(parameter))
                parameter.mul_(keep).sub_(update.view_as(parameter))

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # AdamW looks for it in all parameters when it loads a state
        return state["momentum"]
