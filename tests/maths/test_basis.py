"""Bases and their expectation, against the formula written out and against finite differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from crystalframer.config import CosineBasis, DistanceBasis
from crystalframer.maths import basis
from crystalframer.maths.basis import (
    cosine_centers,
    distance_centers,
    expected_gaussians,
    gaussians,
)
from crystalframer.maths.chebyshev import chebyshev_products


def test_distance_centers_start_one_step_above_zero() -> None:
    centers, width = distance_centers(DistanceBasis(n_centers=4, max_distance=2.0, width=1.5), torch.zeros(1))
    assert centers.tolist() == [0.5, 1.0, 1.5, 2.0]
    assert width == 0.75


def test_cosine_centers_span_minus_one_to_one() -> None:
    centers, width = cosine_centers(CosineBasis(n_centers=5, width=4.0), torch.zeros(1))
    assert centers.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert width == 2.0


@pytest.mark.parametrize(
    ("centers_of", "config"), [(distance_centers, DistanceBasis(3)), (cosine_centers, CosineBasis(4))]
)
def test_centers_are_as_exact_as_what_they_are_compared_with_and_lie_on_its_device(
    centers_of: Any, config: Any
) -> None:
    exact, _ = centers_of(config, torch.zeros(1, dtype=torch.float64))
    rounded, _ = centers_of(config, torch.zeros(1, dtype=torch.float32))
    assert (exact.dtype, rounded.dtype) == (torch.float64, torch.float32)
    assert centers_of(config, torch.zeros(1, device="meta"))[0].device.type == "meta"


def test_gaussian_by_hand() -> None:
    value = gaussians(torch.tensor([1.0, 3.0], dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64), 0.5)
    expected = [[1.0, math.exp(-2.0)], [math.exp(-8.0), math.exp(-2.0)]]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)


def test_far_tails_stay_finite_and_negligible() -> None:
    tail = gaussians(torch.tensor([50.0]), torch.tensor([0.0]), 0.1)
    assert 0 <= tail.item() < 1e-30


def example(n_heads_of_x: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights, x and query of 3 atoms with 4, 1 and 2 edges."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(7, 2, generator=generator, dtype=torch.float64).requires_grad_()
    x = torch.rand(7, n_heads_of_x, 3, generator=generator, dtype=torch.float64) * 2 - 1
    return weights, x, torch.tensor([0, 0, 0, 0, 1, 2, 2])


def test_groups_of_atoms_are_as_large_as_their_padded_values_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Atoms with 1, 3, 2, 1 and no edges, two values each: twice twelve values and not one more."""
    query = torch.tensor([0, 1, 1, 1, 2, 2, 3])
    monkeypatch.setattr(basis, "GROUP_SIZE", 12)
    (first, edges, is_edge), (second, other_edges, is_other_edge) = basis._atom_groups(query, 5, 2)
    assert (first, second) == (slice(0, 2), slice(2, 5))
    assert edges.tolist() == [[0, 0, 0], [1, 2, 3]]
    assert is_edge.tolist() == [[True, False, False], [True, True, True]]
    assert other_edges.tolist() == [[4, 5], [6, 0], [0, 0]]
    assert is_other_edge.tolist() == [[True, True], [True, False], [False, False]]
    monkeypatch.setattr(basis, "GROUP_SIZE", 11)
    groups = [atoms for atoms, *_ in basis._atom_groups(query, 5, 2)]
    assert groups == [slice(0, 1), slice(1, 2), slice(2, 4), slice(4, 5)]


@pytest.mark.parametrize("group_size", [1, 40, 1 << 20])
@pytest.mark.parametrize("n_heads_of_x", [1, 2])
def test_expectation_is_the_weighted_sum(n_heads_of_x: int, group_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many atoms are taken at a time."""
    monkeypatch.setattr(basis, "GROUP_SIZE", group_size)
    weights, x, query = example(n_heads_of_x)
    centers = torch.linspace(-1, 1, 4, dtype=torch.float64)
    found = expected_gaussians(weights, x, centers, 0.5, query, 3)
    full = weights[:, :, None, None] * gaussians(x, centers, 0.5)
    expected = torch.stack([full[query == atom].sum(0) for atom in range(3)])
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("n_centers", [2, 13, 64])
@pytest.mark.parametrize("width", [0.51, 1.0, 4.0, 30.0])
def test_constant_sums_in_blocks_are_those_of_the_formula(n_centers: int, width: float) -> None:
    """Widths in spacings; positions within the centres and far beyond them, in any order of the atoms."""
    generator = torch.Generator().manual_seed(0)
    centers = 0.3 * torch.arange(n_centers, dtype=torch.float64) - 1.0
    place = torch.rand(60, 2, 3, generator=generator, dtype=torch.float64)
    x = centers[0] + (centers[-1] - centers[0]) * (2.0 * place - 0.5)
    x[0] = 1e3
    weights = torch.randn(60, 2, 3, generator=generator, dtype=torch.float64)
    weights[1] = 0.0
    query = torch.randint(0, 4, (60,), generator=generator)
    assert basis._is_measured(weights)
    assert basis._is_smooth(centers, 0.3 * width)
    found = basis._summed_in_blocks(weights, x, centers, 0.3 * width, query, 5)
    full = weights[..., None] * torch.exp(-0.5 * ((x[..., None] - centers) / (0.3 * width)) ** 2)
    expected = torch.zeros(5, 2, 3, n_centers, dtype=torch.float64).index_add(0, query, full)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_sums_in_blocks_serve_constants_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers with a gradient, in float32, and for narrow Gaussians, which have no blocks."""
    used = []
    summed = basis._summed_in_blocks
    monkeypatch.setattr(basis, "_summed_in_blocks", lambda *given: used.append(True) or summed(*given))
    weights, x, query = example(2)
    weights = weights[..., None].expand(-1, -1, 3)
    centers = torch.linspace(-1, 1, 9, dtype=torch.float64)

    def found(weights: torch.Tensor, x: torch.Tensor, width: float = 0.5) -> torch.Tensor:
        centers_ = centers.to(x.dtype)
        return basis._ExpectedGaussians.apply(weights, x, centers_, width, query, 3, 0)

    with_gradient = found(weights, x).detach()
    found(weights.detach().float(), x.float())
    found(weights.detach(), x, 0.01)
    assert not used
    torch.testing.assert_close(found(weights.detach(), x), with_gradient, rtol=1e-13, atol=1e-14)
    assert used


@pytest.mark.parametrize("n_heads_of_x", [1, 2])
def test_expectation_gradients(n_heads_of_x: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """First, second and third, with respect to weights and positions."""
    monkeypatch.setattr(basis, "GROUP_SIZE", 40)
    weights, x, query = example(n_heads_of_x)
    x.requires_grad_()
    centers = torch.linspace(-1, 1, 4, dtype=torch.float64)

    def expected(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return expected_gaussians(weights, x, centers, 0.5, query, 3)

    def slopes(weights: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(expected(weights, x).square().sum(), (weights, x), create_graph=True)

    assert torch.autograd.gradcheck(expected, (weights, x))
    assert torch.autograd.gradgradcheck(expected, (weights, x))
    assert torch.autograd.gradgradcheck(slopes, (weights, x))


def test_one_edge() -> None:
    weights = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    found = expected_gaussians(weights, zero.view(1, 1, 1), zero, 1.0, torch.zeros(1, dtype=torch.long), 1)
    found.sum().backward()
    assert (found.item(), weights.grad) == (0.3, torch.ones(1, 1, dtype=torch.float64))


def test_atom_without_edges_expects_nothing() -> None:
    weights, x = torch.ones(2, 1), torch.zeros(2, 1, 1)
    found = expected_gaussians(weights, x, torch.tensor([0.0]), 1.0, torch.tensor([0, 2]), 3)
    assert found.flatten().tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("degree", [3, 8, 21, 40])
def test_chebyshev_products(degree: int) -> None:
    """The same function, as a sum of T_8k T_j."""
    coefficients = np.random.default_rng(degree).normal(size=(2, degree)) * 0.8 ** np.arange(degree)
    products = chebyshev_products(coefficients, 8)
    angles = np.arccos(np.linspace(-1, 1, 101))
    t = np.cos(np.arange(48)[:, None] * angles)
    expected = coefficients @ t[:degree]
    found = sum(products[:, [n]] * t[n // 8 * 8] * t[n % 8] for n in range(products.shape[1]))
    np.testing.assert_allclose(found, expected, atol=1e-12)
