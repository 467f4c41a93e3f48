"""Frames computed by hand, and the rule that decides ties."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from crystalframer.config import FrameConfig, FrameMethod
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.maths import frames
from crystalframer.maths.attended import POWERS, AttendedEdges
from crystalframer.maths.edges import Edges
from crystalframer.maths.frames import FORMULAS, Frame, build_frames, noise_key, tie_margin, uniform
from crystalframer.maths.segments import segment_softmax
from crystalframer.testing import random_crystal, random_rotation

S2 = 2**-0.5


def attended(vectors: list[list[float]], logits: list[float], lattice: np.ndarray | None = None) -> AttendedEdges:
    """One atom, one head; the edges in the order given, after its edge to itself (logit 0)."""
    r = torch.tensor([[0.0, 0.0, 0.0], *vectors], dtype=torch.float64)
    lengths = r.norm(dim=1)
    is_self = lengths < 1e-2
    query = torch.zeros(len(r), dtype=torch.long)
    edges = Edges(
        query=query,
        key=query,
        vectors=r,
        lengths=lengths,
        directions=torch.where(is_self[:, None], 0.0, r / lengths.clamp(min=1e-9)[:, None]),
        is_self=is_self,
        positions=torch.zeros(1, 3, dtype=torch.float64),
        crystal_index=torch.zeros(1, dtype=torch.long),
        lattice=torch.from_numpy(np.eye(3) if lattice is None else lattice).double()[None],
    )
    scores = torch.tensor([[0.0], *[[logit] for logit in logits]], dtype=torch.float64)
    return AttendedEdges(edges, scores, segment_softmax(scores, query, 1))


def axes_of(method: FrameMethod, seen: AttendedEdges, tie_rule: float = 1e-4) -> Tensor:
    return build_frames(seen, FrameConfig(method, tie_margin=tie_rule)).axes[0, 0]


def assert_axes(found: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


def test_max_frame_by_hand() -> None:
    """The strongest edge; then the strongest off that axis, made orthogonal; then their cross product."""
    seen = attended([[0, 0, 2], [3, 0, 3], [0, 1, 0]], [3.0, 2.0, -5.0])
    assert_axes(axes_of("max", seen), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])


def test_max_frame_second_axis_weighs_by_one_minus_cosine() -> None:
    """(1, 0, 1) scores 2 + ln(1 - 0.707) = 0.77, (0, 1, 0) scores 1 + ln 1 = 1: the weaker, at 90 degrees, wins."""
    seen = attended([[0, 0, 2], [3, 0, 3], [0, 1, 0]], [3.0, 2.0, 1.0])
    assert_axes(axes_of("max", seen), [[0, 0, 1], [0, 1, 0], [-1, 0, 0]])


def test_max_frame_leaves_out_collinear_edges_and_the_atom_itself() -> None:
    seen = attended([[0, 0, 2], [0, 0, -2.5], [0, 0, 4], [1, 0, 0]], [-1.0, -1.5, -1.2, -30.0])
    assert_axes(axes_of("max", seen), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])


def test_static_frame_ignores_attention() -> None:
    """Nearest edge, then the nearest off its axis by -r² + ln(1 - |cos|) (the paper's, not the farthest: quirk Q7)."""
    seen = attended([[0, 0, 3.0], [0, 2.0, 0], [1.0, 0, 0]], [9.0, 5.0, -9.0])
    assert_axes(axes_of("static-max", seen), [[1, 0, 0], [0, 1, 0], [0, 0, 1]])


def test_weighted_pca_by_hand() -> None:
    """Σ p r rᵀ is diagonal here, smallest along x; signs follow the dipole (the edges point to +y, +z)."""
    seen = attended([[0.5, 0, 0], [0, 1, 0], [0, 0, 2]], [0.0, 0.0, 0.0])
    frame = build_frames(seen, FrameConfig("weighted-pca"))
    assert frame.eigenvalues is not None
    torch.testing.assert_close(frame.eigenvalues[0, 0], torch.tensor([0.25, 1.0, 4.0], dtype=torch.float64) / 4)
    assert_axes(frame.axes[0, 0], [[1, 0, 0], [0, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("lattice", "expected"),
    [
        (np.diag([3.0, 1.0, 2.0]), [[0, 1, 0], [0, 0, 1], [1, 0, 0]]),
        # f.c.c. primitive vectors are its shortest; at 60 degrees to each other: oblique, unit length.
        (np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) * 2.0, None),
        # A skewed description of the first: the same shortest vectors, of which others of ± come first.
        (np.array([[3.0, 0, 0], [3.0, 1, 0], [0, 5.0, 2.0]]), [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]),
    ],
)
def test_lattice_frame_by_hand(lattice: np.ndarray, expected: list[list[float]] | None) -> None:
    axes = axes_of("lattice", attended([[1, 0, 0]], [0.0], lattice))
    assert torch.linalg.det(axes) > 0
    if expected is None:
        torch.testing.assert_close(axes.norm(dim=-1), torch.ones(3, dtype=torch.float64))
        cosines = (axes @ axes.T)[[0, 0], [1, 2]]
        torch.testing.assert_close(cosines, torch.full((2,), 0.5, dtype=torch.float64))
    else:
        assert_axes(axes, expected)


def attended_lattices(lattices: np.ndarray) -> AttendedEdges:
    """One atom in each, which sees itself."""
    n = len(lattices)
    atom, zeros = torch.arange(n), torch.zeros(n, 3, dtype=torch.float64)
    is_self = torch.ones(n, dtype=torch.bool)
    edges = Edges(atom, atom, zeros, zeros[:, 0], zeros, is_self, zeros, atom, torch.from_numpy(lattices).double())
    return AttendedEdges(edges, zeros[:, :1], torch.ones_like(zeros[:, :1]))


@pytest.mark.parametrize(
    "lattice",
    [
        *(np.eye(3), 1 - np.eye(3), [[1, 0, 0], [0, 1, 0], [3, 3, 1]], [[2, 2, -1], [0, 0, -1], [2, -1, -2]]),
        *(
            [[1, 0, 0], [-0.5, 0.75**0.5, 0], [4, 5, 1]],
            [[0, 1, 1], [1, 5, 4], [2, 2, 4]],
            [[5, 4, 1], [4, 5, 1], [0, 1, 3]],
        ),
    ],
)
def test_translations_hold_the_shortest_independent_vectors_and_all_that_tie(lattice: np.ndarray) -> None:
    """In lexicographic order, by which ties of lattice frames are decided; skewed cells take many steps."""
    rows = np.array(lattice, dtype=float)
    steps = np.array(list(itertools.product(range(-14, 15), repeat=3)))
    vectors = steps @ rows
    squared = (vectors**2).sum(1)
    found = [tuple(step) for step in frames._short_translations(torch.from_numpy(rows)[None])[0].tolist()]
    assert found == sorted(found) and len(set(found)) == len(found)
    chosen = np.zeros((0, 3))
    for n_chosen in range(3):
        ranks = [np.linalg.matrix_rank(np.vstack([chosen, vector]), tol=1e-6) for vector in vectors[squared < 40]]
        independent = np.flatnonzero(squared < 40)[np.array(ranks) > n_chosen]
        shortest = independent[squared[independent] < squared[independent].min() + 1e-9]
        assert set(found) >= {tuple(step) for step in steps[shortest].tolist()}
        chosen = np.vstack([chosen, vectors[shortest[0]]])


def test_no_reduced_vector_gets_shorter_by_another() -> None:
    """And they span the same lattice, each crystal by itself."""
    rng = np.random.default_rng(0)
    skewed = [np.triu(rng.integers(-9, 10, (3, 3)), 1) + np.eye(3) for _ in range(40)]
    lattices = torch.from_numpy(np.array(skewed) @ rng.normal(size=(40, 3, 3)))
    combinations = frames._reduced(lattices)
    assert torch.equal(combinations, combinations.round()) and (torch.linalg.det(combinations).abs().round() == 1).all()
    vectors = combinations @ lattices
    squared = vectors.square().sum(-1)
    for one, other in itertools.permutations(range(3), 2):
        for sign in (-1, 1):
            assert ((vectors[:, one] + sign * vectors[:, other]).square().sum(-1) > 0.99 * squared[:, one]).all()
    alone = torch.cat([frames._reduced(lattice[None]) for lattice in lattices])
    same_lengths = (alone @ lattices).norm(dim=-1).sort().values, vectors.norm(dim=-1).sort().values
    torch.testing.assert_close(*same_lengths)
    for lattice, together in zip(lattices, frames._short_translations(lattices), strict=True):
        assert len({tuple(step) for step in together.tolist()}) == len(together)
        assert torch.linalg.matrix_rank(together @ lattice) == 3


def test_translations_of_a_cell_as_flat_as_a_sheet_are_few() -> None:
    """All steps as long as the longest of a, b and c at most would be 600 thousand million."""
    flat = torch.tensor([[[2.3, 0.0, 0.0], [-2.9, 2.9, 0.0], [47.7, 35.5, 0.5]]])
    found = {tuple(step) for step in frames._short_translations(flat)[0].tolist()}
    assert len(found) < 200
    assert found >= {(36, 12, -1), (35, 12, -1), (37, 13, -1)}  # (0.3, -0.7, -0.5), (-2, -0.7, -0.5), (-0.3, 2.2, -0.5)


OBTUSE = np.array([[3.0, 0, 0], [-1, 4, 0], [0.5, -1, 5]])


def test_lattice_frames_are_acute_and_right_handed_in_each_crystal() -> None:
    """-a is at an acute angle to b, not to -b, and to -c; in the mirror image that would be left-handed."""
    lattices = np.array([OBTUSE, OBTUSE * [1, 1, -1], np.diag([3.0, 1.0, 2.0])])
    axes = build_frames(attended_lattices(lattices), FrameConfig("lattice")).axes[:, 0]
    b, c = 17**0.5, 26.25**0.5
    assert_axes(axes[0], [[-1, 0, 0], [-1 / b, 4 / b, 0], [-0.5 / c, 1 / c, -5 / c]])
    assert_axes(axes[1], [[1, 0, 0], [1 / b, -4 / b, 0], [0.5 / c, -1 / c, -5 / c]])
    assert_axes(axes[2], [[0, 1, 0], [0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lattice", [np.eye(3), [[1, 0, 0], [-0.5, 0.75**0.5, 0], [0, 0, 1]], 1 - np.eye(3)])
def test_equal_lattice_vectors_are_told_apart_by_the_order_of_the_cell(lattice: np.ndarray, seed: int) -> None:
    """Not by rounding, which another orientation changes: cubic, hexagonal, face-centred cubic."""
    rotation = random_rotation(seed)
    plain, turned = np.array(lattice) * 3.0, np.array(lattice) * 3.0 @ rotation.T
    axes = build_frames(attended_lattices(np.array([plain, turned])), FrameConfig("lattice")).axes[:, 0]
    assert_axes(axes[1], (axes[0] @ torch.from_numpy(rotation).T).tolist())


@pytest.mark.parametrize(("gap", "share"), [(0.0, 1 / 2), (1.0, 7 / 96), (2.05, 0.0)])
def test_noise_picks_among_lattice_vectors_within_twice_its_width(gap: float, share: float) -> None:
    """How often b is first, whose square is greater than that of a by so many half-widths of the noise.

    The lesser of the two draws for ±b has the density (1 - u)/2 in [-1, 1]; ∫ (1 - u)/2 · (u/2)² over -1..0 is 7/96.
    """
    lattices = np.repeat(np.diag([2.0, (4.0 + 1e-5 * gap) ** 0.5, 5.0])[None], 2000, axis=0)
    axes = build_frames(attended_lattices(lattices), FrameConfig("lattice", noise=1e-5), 0).axes[:, 0]
    assert ((axes.abs() == 1).sum(-1) == 1).all() and (axes[:, 2, 2].abs() == 1).all()
    assert float((axes[:, 0, 1].abs() == 1).double().mean()) == pytest.approx(
        share, abs=4 * (share * (1 - share) / 2000) ** 0.5
    )
    torch.testing.assert_close(torch.linalg.det(axes), torch.ones(2000, dtype=torch.float64))


@pytest.mark.parametrize("method", FORMULAS)
def test_crystals_atoms_and_heads_have_frames_of_their_own(method: FrameMethod) -> None:
    crystals = [random_crystal(seed, n_atoms) for seed, n_atoms in ((0, 3), (1, 4))]
    generator = torch.Generator().manual_seed(0)

    def seen(crystals: list[Crystal]) -> Edges:
        return Edges.of(make_batch(crystals, 4.0, dtype=torch.float64))

    def axes(edges: Edges, logits: Tensor) -> Tensor:
        attention = segment_softmax(logits, edges.query, edges.n_atoms)
        return build_frames(AttendedEdges(edges, logits, attention), FrameConfig(method)).axes

    together, alone = seen(crystals), [seen([crystal]) for crystal in crystals]
    logits = torch.randn(len(together.query), 2, generator=generator, dtype=torch.float64)
    parts = logits.split([len(edges.query) for edges in alone])
    expected = [
        torch.cat([axes(edges, part[:, [head]]) for head in range(2)], dim=1)
        for edges, part in zip(alone, parts, strict=True)
    ]
    torch.testing.assert_close(axes(together, logits), torch.cat(expected))


@pytest.mark.parametrize("precision", [torch.float64, torch.float32], ids=str)
def test_frames_have_the_precision_of_the_attention(precision: torch.dtype) -> None:
    seen = attended([[0.5, 0, 0], [0, 1, 0], [0, 0, 2]], [0.0, 0.0, 0.0])
    seen = AttendedEdges(seen.edges, seen.logits.to(precision), seen.attention.to(precision))
    frame = build_frames(seen, FrameConfig("weighted-pca"))
    assert frame.eigenvalues is not None
    assert (frame.axes.dtype, frame.eigenvalues.dtype) == (precision, precision)


def test_weighted_pca_of_a_line_is_completed_with_the_strongest_edge_off_it() -> None:
    """e₃ along the line, to the side of the dipole; e₂ as the second axis of a max frame: y, for x + z is nearer to e₃.

    To what fixes e₂ the attention is 10⁻¹⁸.
    """
    seen = attended([[0, 0, -0.9], [0, 0, 0.3], [3, 0, 3], [0, 1, 0]], [1.0, 1.5, -40.0, -40.2])
    assert_axes(axes_of("weighted-pca", seen), [[-1, 0, 0], [0, 1, 0], [0, 0, -1]])


@pytest.mark.parametrize(("margin", "sides"), [(1e-4, {1.0}), (0.0, {1.0, -1.0})])
def test_weighted_pca_of_a_line_leaves_ties_of_the_edges_off_it_to_the_moments(
    margin: float, sides: set[float]
) -> None:
    """±x tie, in whatever order they are written; a weaker neighbour leans to +x. Without the rule the first wins."""
    found = set()
    for first in (1.0, -1.0):
        vectors = [[0, 0, 8], [0, 0, -4], [0.5 * first, 0, 0], [-0.5 * first, 0, 0], [0.5, 0.1, 0.2]]
        axes = axes_of("weighted-pca", attended(vectors, [5.0, 4.0, -5.0, -5.0, -5.3]), margin)
        found.add(round(float(axes[1, 0]), 6))
    assert found == sides


@pytest.mark.parametrize("logit", [-40.0, -1000.0])
def test_weighted_pca_of_an_atom_that_attends_to_itself_alone_has_the_strongest_edge_for_its_line(logit: float) -> None:
    """Attention to the others is next to 0, or 0."""
    seen = attended([[0, 0, -2], [0, 1, 0]], [logit, logit - 20.0])
    assert_axes(axes_of("weighted-pca", seen), [[-1, 0, 0], [0, 1, 0], [0, 0, -1]])


@pytest.mark.parametrize(
    ("dipole", "signs", "margin"),
    [
        ((-1, 1, 1), (1, 1, 1), 1e-4),
        ((1, -1, 1), (-1, -1, 1), 1e-4),
        ((1, -1, 1), (-1, -1, 1), 0.0),
        ((1, 1, -1), (-1, 1, -1), 1e-4),
        ((1, -1, -1), (1, -1, -1), 1e-4),
        ((-1, 0, 1), (-1, -1, 1), 1e-4),
        ((-1, 1, 0), (-1, 1, -1), 1e-4),
    ],
)
def test_signs_of_principal_axes_go_by_the_dipole(dipole: Sequence[int], signs: Sequence[int], margin: float) -> None:
    """Along z, the widest; then along y; along x only where one of them is silent, for frames are right-handed."""
    vectors = [(sign * (axis + 1) * np.eye(3)[axis]).tolist() for axis in range(3) for sign in (1, -1)]
    logits = [0.2 * sign * dipole[axis] for axis in range(3) for sign in (1, -1)]
    found = axes_of("weighted-pca", attended(vectors, logits), margin)
    assert_axes(found, np.diag(np.array(signs, dtype=float)).tolist())


def test_the_dipole_outvotes_higher_moments() -> None:
    """Along x the near side is the stronger one, the far side has the greater third moment; along z none is greater."""
    seen = attended(
        [[-1, 0, 0], [2, 0, 0], [0, 2, 0], [0, -2, 0], [0, 0, 4], [0, 0, -4]], [0.5, -0.5, 0.2, -0.2, 0.0, 0.0]
    )
    assert_axes(axes_of("weighted-pca", seen), [[-1, 0, 0], [0, 1, 0], [0, 0, -1]])


def test_weak_attention_makes_no_line() -> None:
    """What counts is how second moments compare: 0.09 along y to 1 along z is a plane, whatever their scale."""
    seen = attended([[0.1, 0, 0], [0, 0.3, 0], [0, 0, 1]], [-6.9, -7.0, -7.0])
    assert_axes(axes_of("weighted-pca", seen), [[1, 0, 0], [0, 1, 0], [0, 0, 1]])


Y, Z = [-1.0, 0.5, 0.5], [2.0, -1.0, -1.0]
BALANCED_Y, BALANCED_Z = [0.75**0.5, -(0.75**0.5), 0.0], [3**0.5, -(3**0.5), 0.0]


@pytest.mark.parametrize(("y", "z"), [(Y, Z), (BALANCED_Y, Z), (Y, BALANCED_Z)])
def test_pca_by_hand(y: list[float], z: list[float]) -> None:
    """Signs follow the third moments, that along x last: 6 Å³ along z, -0.75 Å³ along y, -0.09 Å³ along x, or none."""
    rows = np.array([[-0.5, 0.25, 0.25], y, z])
    positions = torch.from_numpy(np.vstack([np.diag(row) for row in rows.T]) + np.array([10.0, -20.0, 30.0]))
    seen = attended([[1, 0, 0]], [0.0])
    cell = {"positions": positions, "crystal_index": torch.zeros(9, dtype=torch.long), "query_atoms": torch.tensor([4])}
    frame = build_frames(AttendedEdges(replace(seen.edges, **cell), seen.logits, seen.attention), FrameConfig("pca"))
    assert frame.eigenvalues is not None
    assert frame.eigenvalues[0, 0].tolist() == pytest.approx([0.375, 1.5, 6.0])
    assert_axes(frame.axes[0, 0], [[-1, 0, 0], [0, -1, 0], [0, 0, 1]])


def test_heads_that_see_a_line_and_heads_that_do_not_share_an_atom() -> None:
    vectors = [[0, 0, 2], [0, 0, -1], [0, 1, 0], [0.5, 0, 0]]
    logits = [[5.0, 4.0, -40.0, -41.0], [0.0, -9.0, 0.0, 0.0]]
    both = attended(vectors, [0.0] * 4)
    scores = torch.tensor([[0.0, 0.0], *zip(*logits, strict=True)], dtype=torch.float64)
    both = AttendedEdges(both.edges, scores, segment_softmax(scores, both.edges.query, 1))
    found = build_frames(both, FrameConfig("weighted-pca")).axes[0]
    for head in range(2):
        assert_axes(found[head], axes_of("weighted-pca", attended(vectors, logits[head])).tolist())


@pytest.mark.parametrize("logit", [5.0, -1000.0])
def test_noise_turns_the_frame_of_a_line_about_it_and_end_over_end(logit: float) -> None:
    """±z and ±x tie, a hair above ±y: four right-handed frames. Also where only the atom itself is attended to."""
    logits = logit - np.array([0.0, 0.0, 45.0, 45.0, 46.0, 46.0])
    seen = attended([[0, 0, 2], [0, 0, -2], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], logits.tolist())
    drawn = [FORMULAS["weighted-pca"](seen, FrameConfig("weighted-pca"), n).axes[0, 0] for n in range(40)]
    found = {tuple((axes.round(decimals=9) + 0.0).flatten().tolist()) for axes in drawn}
    x, _, z = torch.eye(3)
    expected = [torch.stack([torch.linalg.cross(e2, e3), e2, e3]) for e2 in (x, -x) for e3 in (z, -z)]
    assert found == {tuple((axes + 0.0).flatten().tolist()) for axes in expected}


@pytest.mark.parametrize("seed", range(4))
def test_ties_go_to_the_side_of_the_dipole_in_any_orientation(seed: int) -> None:
    """±x tie; a weak neighbour leans to +x and decides. Written in any order, in any orientation, the same axes."""
    rotation = torch.from_numpy(random_rotation(seed))
    vectors = torch.tensor([[-2.0, 0, 0], [2, 0, 0], [0, 0, 2.2], [2.1, 1.5, 0.3]], dtype=torch.float64)
    logits = [2.0, 2.0, 0.5, 0.0]
    order = np.random.default_rng(seed).permutation(4)
    turned = attended((vectors @ rotation.T)[order].tolist(), [logits[n] for n in order])
    plain = attended(vectors.tolist(), logits)
    torch.testing.assert_close(axes_of("max", turned), axes_of("max", plain) @ rotation.T, atol=1e-12, rtol=0)
    torch.testing.assert_close(axes_of("max", plain)[0], torch.tensor([1.0, 0, 0], dtype=torch.float64))


def test_ties_without_dipole_go_by_higher_moments() -> None:
    """Directions cancel, but their cubes do not: 1 to +z against twice 1/8 to -z."""
    side = 0.75**0.5
    seen = attended(
        [[0, 0, 1], [0, 0, -1], [0, 0, 3], [3 * side, 0, -1.5], [-3 * side, 0, -1.5], [0.0, 1.0, 0.0]],
        [1.0, 1.0, 0.0, 0.0, 0.0, -8.0],
    )
    dipole, cubes = (seen.direction_moments[0, 0, POWERS.index((0, 0, n))] for n in (1, 3))
    assert abs(float(dipole)) < 1e-9 < float(cubes)
    assert axes_of("max", seen)[0].tolist() == [0, 0, 1]


INVERSION, MIRROR, FOURFOLD_ROTOINVERSION, THREEFOLD = (
    np.array(matrix, dtype=float)
    for matrix in (
        [[-1, 0, 0], [0, -1, 0], [0, 0, -1]],
        [[1, 0, 0], [0, 1, 0], [0, 0, -1]],
        [[0, -1, 0], [1, 0, 0], [0, 0, -1]],
        [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    )
)
SITES = {
    "-1": [INVERSION],
    "m": [MIRROR],
    "2/m": [INVERSION, MIRROR],
    "-4": [FOURFOLD_ROTOINVERSION],
    "-42m": [FOURFOLD_ROTOINVERSION, np.diag([1.0, -1, -1])],
    "3m": [THREEFOLD, THREEFOLD[:, [1, 0, 2]]],
    "m-3": [MIRROR, INVERSION, THREEFOLD],
    "-43m": [FOURFOLD_ROTOINVERSION, THREEFOLD],
    "m-3m": [FOURFOLD_ROTOINVERSION, THREEFOLD, INVERSION],
}
"""Generators of site symmetries with mirror images."""


def group_of(generators: list[np.ndarray]) -> list[np.ndarray]:
    found = [np.eye(3)]
    for one in found:  # grows while it is read
        for product in (one @ generator for generator in generators):
            if not any(np.allclose(product, other) for other in found):
                found.append(product)
    return found


def site(symmetry: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges in general position about a site, and their logits: orbits of random vectors."""
    rng = np.random.default_rng(seed)
    group = group_of(SITES[symmetry])
    orbits = [[operation @ vector for operation in group] for vector in rng.normal(size=(4, 3)) * 2]
    return np.concatenate(orbits), np.repeat([3.0, 2.0, 1.5, 0.0], len(group))


def seen_cosines(seen: AttendedEdges, axes: Tensor) -> Tensor:
    """(3, 16): all that a head can tell of a frame: moments of the cosines to each axis."""
    cosines = seen.edges.directions @ axes.T
    return torch.stack([(seen.attention * cosines**n).sum(0) for n in range(1, 17)], dim=1)


def views(symmetry: str, seed: int, tie_rule: float, precision: torch.dtype = torch.float64) -> Tensor:
    """What is seen of a site that is turned and whose edges are written in other orders."""
    vectors, logits = site(symmetry, seed)
    found = []
    for draw in range(6):
        order = np.random.default_rng(draw).permutation(len(vectors))
        turned = (vectors @ random_rotation(draw).T)[order]
        seen = attended(turned.tolist(), logits[order].tolist())
        given = replace(
            seen.edges,
            **{name: getattr(seen.edges, name).to(precision) for name in ("vectors", "lengths", "directions")},
        )
        rounded = AttendedEdges(given, seen.logits.to(precision), seen.attention.to(precision))
        found.append(seen_cosines(seen, axes_of("max", rounded, tie_rule).double()))
    return torch.stack(found)


@pytest.mark.parametrize("precision", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("symmetry", SITES)
def test_mirror_images_of_a_site_are_told_apart(symmetry: str, seed: int, precision: torch.dtype) -> None:
    """First axes that mirror images share lead to two kinds of right-handed frames; all ways of writing find one."""
    bar = 1e-12 if precision == torch.float64 else 1e-5
    assert float(np.ptp(views(symmetry, seed, 1e-4, precision).numpy(), axis=0).max()) < bar


@pytest.mark.parametrize("symmetry", ["m", "-4", "-42m", "3m", "-43m"])
def test_without_the_rule_mirror_images_are_a_gamble(symmetry: str) -> None:
    assert float(np.ptp(views(symmetry, 0, 0.0).numpy(), axis=0).max()) > 1e-2


def test_near_the_margin_rounding_decides_nothing() -> None:
    """Whatever its lag, one of two edges wins for good: the choice changes once, well within the margin."""
    vectors = [[-2.0, 0, 0], [2, 0, 0], [0, 0, 2.2], [2.1, 1.5, 0.3]]
    sides = [
        axes_of("max", attended(vectors, [2.0, 2.0 - lag * 1e-4, 0.5, 0.0]))[0, 0] for lag in np.linspace(0, 2, 81)
    ]
    changes = [n for n in range(80) if sides[n] != sides[n + 1]]
    assert sides[0] == 1 and sides[-1] == -1
    assert len(changes) == 1 and 0.3 < changes[0] / 40 < 0.95


def test_without_the_rule_the_first_of_equals_wins() -> None:
    seen = attended([[-2.0, 0, 0], [2, 0, 0], [0, 0, 2.2], [0.6, 2.5, 0.3]], [2.0, 2.0, 0.5, 0.0])
    assert axes_of("max", seen, tie_rule=0.0)[0].tolist() == [-1, 0, 0]


@pytest.mark.parametrize("method", ["max", "static-max"])
def test_noise_breaks_ties_either_way_and_moves_nothing_else(method: FrameMethod) -> None:
    seen = attended([[-2.0, 0, 0], [2, 0, 0], [0, 0, 2.2], [0.6, 2.5, 0.3]], [2.0, 2.0, 0.5, 0.0])
    drawn = [build_frames(seen, FrameConfig(method), seed).axes[0, 0] for seed in range(20)]
    assert {tuple(axes[0].tolist()) for axes in drawn} == {(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)}
    assert {tuple(axes[1].tolist()) for axes in drawn} == {tuple(drawn[0][1].tolist())}


@pytest.mark.parametrize("seed", range(8))
def test_each_axis_draws_noise_of_its_own(seed: int) -> None:
    """±x tie for e₁, ±y for e₂: the greater draw wins, of the first stream and of the second."""
    seen = attended([[2.0, 0, 0], [-2, 0, 0], [0, 2, 0], [0, -2, 0]], [2.0, 2.0, 1.0, 1.0])
    axes = build_frames(seen, FrameConfig("max"), seed).axes[0, 0]
    first, second = (uniform(noise_key(seed, axis), seen.logits)[:, 0] for axis in (0, 1))
    assert axes[0, 0] == (1 if first[1] > first[2] else -1)
    assert axes[1, 1] == (1 if second[3] > second[4] else -1)


@pytest.mark.parametrize(("gap", "share"), [(0.0, 1 / 2), (1.0, 1 / 8), (2.05, 0.0)])
@pytest.mark.parametrize("method", ["max", "static-max"])
def test_noise_picks_among_edges_within_twice_its_width(method: FrameMethod, gap: float, share: float) -> None:
    """How often an edge wins that lags by so many half-widths: two draws from [-1, 1] differ by more: (2 - gap)²/8."""
    n_atoms, noise = 2000, 1e-3
    lag = gap * noise
    one = attended([[2.0, 0, 0], [0, (4.0 + lag) ** 0.5, 0], [0, 0, 5]], [-4.0, -4.0 - lag, -25.0])
    atoms = torch.arange(n_atoms)
    of_edges = {
        name: torch.cat([getattr(one.edges, name)] * n_atoms)
        for name in ("vectors", "lengths", "directions", "is_self")
    }
    query = atoms.repeat_interleave(4)
    places = {"positions": torch.zeros(n_atoms, 3, dtype=torch.float64), "crystal_index": torch.zeros_like(atoms)}
    edges = replace(one.edges, query=query, key=query, **of_edges, **places)
    seen = AttendedEdges(edges, one.logits.repeat(n_atoms, 1), one.attention.repeat(n_atoms, 1))
    axes = build_frames(seen, FrameConfig(method, noise=noise), 0).axes[:, 0]
    found = (axes[:, 0, 1] == 1).double().mean().item()
    assert ((axes[:, 0] == 1).sum(-1) == 1).all() and (axes[:, 0, 2] == 0).all()
    assert found == pytest.approx(share, abs=4 * (share * (1 - share) / n_atoms) ** 0.5)


@pytest.mark.parametrize("method", ["pca", "weighted-pca"])
def test_training_signs_are_random_and_right_handed(method: FrameMethod) -> None:
    seen = attended([[0.5, 0, 0], [0, 1, 0], [0, 0, 2]], [0.0, 0.0, 0.0])
    drawn = [FORMULAS[method](seen, FrameConfig(method), n).axes[0, 0] for n in range(40)]
    assert len({tuple(axes.sign().flatten().tolist()) for axes in drawn}) == 4
    assert all(abs(float(torch.linalg.det(axes)) - 1) < 1e-12 for axes in drawn)


def test_tie_margin_says_by_how_much_an_anchor_won() -> None:
    seen = attended([[0, 0, 2], [3, 0, 0], [0, 1, 0]], [3.0, 2.25, 1.0])
    frame = build_frames(seen, FrameConfig("max"))
    margin = tie_margin(frame, seen.edges)
    assert margin is not None
    assert margin[0, 0].tolist() == pytest.approx([0.75, 1.25])
    assert tie_margin(Frame(frame.axes), seen.edges) is None
    assert tie_margin(Frame(frame.axes, frame.anchor_edges), seen.edges) is None


def test_frames_carry_no_gradient() -> None:
    seen = attended([[0, 0, 2], [3, 0, 0], [0, 1, 0]], [3.0, 2.0, 1.0])
    seen.logits.requires_grad_()
    for method in FORMULAS:
        assert not build_frames(seen, FrameConfig(method)).axes.requires_grad


def test_reflected_surroundings_give_reflected_first_axes_and_the_opposite_hand() -> None:
    """What right-handed frames do to a mirror image: e₁, e₂ follow the mirror, e₃ does not."""
    vectors = torch.tensor([[0, 0.3, 2], [3, 0.2, 0.1], [0.4, 1, 0]], dtype=torch.float64)
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    axes = axes_of("max", attended(vectors.tolist(), [3.0, 2.0, 1.0]))
    mirrored = axes_of("max", attended((vectors @ mirror).tolist(), [3.0, 2.0, 1.0]))
    torch.testing.assert_close(mirrored[:2], axes[:2] @ mirror)
    torch.testing.assert_close(mirrored[2], -axes[2] @ mirror)


def test_noise_is_that_of_a_hash_in_c() -> None:
    """lowbias32 of uint32_t, so that kernels and later releases draw what a run drew; seeds have 64 bits."""
    keys = [noise_key(7, 0), noise_key(7, 1), noise_key((5 << 32) + 3, 2), noise_key(-7, 1)]
    assert keys == [2910936880, 1783591755, 3595135350, 1538867246]
    noise = uniform(keys[1], torch.empty(2, 3, dtype=torch.float64))
    assert noise.dtype == torch.float64
    assert (noise * 2**24).tolist() == [[704191, 2073499, 338096], [15759875, 5848479, 12114918]]


def test_noise_and_signs_are_found_on_the_device_of_the_scores() -> None:
    axes = torch.empty(2, 1, 3, 3, device="meta")
    oriented = frames._orient(axes, axes[..., 0], axes[..., None].expand(2, 1, 3, 3, 3), FrameConfig("pca"), None)
    assert (uniform(0, axes[:, 0, 0]).device.type, oriented.device.type) == ("meta", "meta")


def test_noise_is_uniform_and_a_function_of_its_place() -> None:
    """The same in both precisions and for any number of rows; other seeds and axes have nothing in common with it."""
    like = torch.empty(4000, 8, dtype=torch.float64)
    noise = uniform(noise_key(7, 0), like)
    assert torch.equal(noise[:10].float(), uniform(noise_key(7, 0), like[:10].float()))
    assert 0 <= noise.min() < 1e-3 and 1 - 1e-3 < noise.max() < 1
    counts = torch.histc(noise, bins=32, min=0, max=1)
    assert ((counts - 1000).square() / 1000).sum() < 62.5  # chi-squared with 31 degrees of freedom: 1 in 1000
    others = [noise_key(7, 1), noise_key(8, 0), noise_key(7 + 2**32, 0), noise_key(-7, 0)]
    for other in [*(uniform(key, like) for key in others), noise.roll(1, 0), noise.roll(1, 1)]:
        correlation = torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 4 * noise.numel() ** -0.5
