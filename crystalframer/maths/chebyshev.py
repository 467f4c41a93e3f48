"""Gaussians of the cosines in Chebyshev polynomials, by which kernels sum them. Nothing here needs torch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from crystalframer.config import CosineBasis


def placed_cosines(basis: CosineBasis, steps: Float[Any, " n_centers"]) -> tuple[Float[Any, " n_centers"], float]:
    """Centres -1 + 2m/(M-1) of the Gaussians for the steps m = 0..M-1, and the standard deviation."""
    spacing = 2.0 / (basis.n_centers - 1)
    return steps * spacing - 1.0, basis.width * spacing


@lru_cache
def chebyshev_of_gaussians(basis: CosineBasis, tolerance: float = 2e-6) -> Float[np.ndarray, "n_centers degree"]:
    """Coefficients of the cosine Gaussians in Chebyshev polynomials: exp(-(c-ν_m)²/2w²) = Σ_n A_mn T_n(c) on [-1, 1].

    Smooth functions need few polynomials: the smallest multiple of four whose error is below `tolerance` everywhere.
    """
    n_nodes = 512
    angles = (np.arange(n_nodes) + 0.5) * np.pi / n_nodes
    centers, width = placed_cosines(basis, np.arange(basis.n_centers, dtype=np.float64))
    values = np.exp(-0.5 * ((np.cos(angles) - centers[:, None]) / width) ** 2)
    polynomials = np.cos(np.arange(n_nodes // 2)[:, None] * angles)
    coefficients = 2.0 / n_nodes * values @ polynomials.T
    coefficients[:, 0] /= 2.0
    degree = 4
    while np.abs(values - coefficients[:, :degree] @ polynomials[:degree]).max() > tolerance and degree < n_nodes // 2:
        degree += 4
    return coefficients[:, :degree]


def chebyshev_products(
    coefficients: Float[np.ndarray, "n_functions degree"], step: int
) -> Float[np.ndarray, "n_functions padded_degree"]:
    """Coefficients of T_mk · T_j from those of T_n, m = step, n = mk + j, j < m: 2 T_mk T_j = T_(mk+j) + T_(mk-j).

    Products need one multiplication each, and the recurrence two.
    """
    padded = np.pad(coefficients, ((0, 0), (0, -coefficients.shape[1] % step)))
    for start in range(padded.shape[1] - step, 0, -step):
        for j in range(1, step):
            padded[:, start - j] -= padded[:, start + j]
            padded[:, start + j] *= 2.0
    return padded
