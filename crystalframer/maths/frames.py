"""Local frames: three axes per atom and head, built from where the attention goes (CrystalFramer).

Every method is a pure function of `AttendedEdges`, found in the table `FORMULAS`. These frames are constants for
autograd; weighted sets of frames (`maths.ties`) are not.
All of them turn with the crystal. `crystalframer.frame_methods` says what else each method promises.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor
from torch.nn.functional import normalize

from crystalframer.config import FrameConfig
from crystalframer.maths import ties
from crystalframer.maths.attended import AttendedEdges, outer_power
from crystalframer.maths.constants import MULTIPLIERS
from crystalframer.maths.edges import Edges
from crystalframer.maths.segments import segment_argmax, segment_max, segment_mean, segment_sum
from crystalframer.maths.ties import off_axis, right_handed

NoiseSeed: TypeAlias = int | Int64[Tensor, ""]
"""A tensor where every replay of a recorded CUDA graph draws other noise."""
RIGHT_ANGLE = 1e-5
"""Cosine below which two lattice vectors count as perpendicular, so that rounding decides no sign."""
FLAT = 1e-6
"""Eigenvalues of a covariance below this share of the largest eigenvalue count as 0."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Axes of every atom and head, and the edges or moments that fixed them."""

    axes: Float[Tensor, "n_atoms n_heads 3 3"]
    """Row k is the unit vector e_k; right-handed."""
    anchor_edges: Int[Tensor, "n_atoms n_heads 2"] | None = None
    """Edges that fixed e₁ and e₂."""
    anchor_scores: tuple[Float[Tensor, "n_edges n_heads"], Float[Tensor, "n_edges n_heads"]] | None = None
    """Scores whose maxima are the anchor edges; -inf where an edge cannot be chosen."""
    eigenvalues: Float[Tensor, "n_atoms n_heads 3"] | None = None
    """Å², ascending."""


def build_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: NoiseSeed | None = None) -> Frame:
    """The frames of one layer.

    Args:
        noise_seed: seed of the noise that chooses among ties in training. None: an evaluation, where moments choose.
    """
    with torch.no_grad():
        return FORMULAS[config.method](attended, config, noise_seed)


# --- frames from single edges -----------------------------------------------------------------------------------------


def max_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: NoiseSeed | None) -> Frame:
    """e₁ points to the strongest edge, e₂ to the strongest edge off that axis (the paper's max frames)."""
    return frames_from_edges(attended, attended.scores("attention"), config, noise_seed)


def static_max_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: NoiseSeed | None) -> Frame:
    """As `max` with the weight exp(-r²) of the paper's static local frame in place of attention: nearest edges.

    The authors' code maximises +r² for the second axis and so takes the farthest edge of its box (quirk Q7).
    """
    return frames_from_edges(attended, attended.scores("nearness"), config, noise_seed)


def frames_from_edges(
    attended: AttendedEdges, scores: Float[Tensor, "n_edges n_heads"], config: FrameConfig, noise_seed: NoiseSeed | None
) -> Frame:
    """Frames from the edges of the highest scores."""
    edges = attended.edges
    first_scores = ties.first_scores(edges, scores)
    if noise_seed is None and config.tie_margin > 0:
        first, second = ties.strongest_pair(attended, scores, config)
        second_scores = off_axis(edges, edges.directions[first], scores, config.second_axis)
    else:
        first = _strongest(first_scores, edges, config, noise_seed, 0)
        second_scores = off_axis(edges, edges.directions[first], scores, config.second_axis)
        second = _strongest(second_scores, edges, config, noise_seed, 1)
    axes = right_handed(edges.directions[first], edges.directions[second])
    return Frame(axes, torch.stack([first, second], dim=-1), (first_scores, second_scores))


def _strongest(
    scores: Float[Tensor, "n_edges n_heads"], edges: Edges, config: FrameConfig, noise_seed: NoiseSeed | None, axis: int
) -> Int[Tensor, "n_atoms n_heads"]:
    """The edge of the highest score. Noise chooses among ties or draws from the weighted set; without it, the first."""
    if noise_seed is not None:
        drawn = uniform(noise_key(noise_seed, axis), scores)
        if config.weighted_margin > 0:
            return ties.drawn_from_set(scores, edges, config.weighted_margin, drawn)
        scores = scores + config.noise * (2.0 * drawn - 1.0)
    return segment_argmax(scores, edges.query, edges.n_atoms)


# --- noise of training ------------------------------------------------------------------------------------------------

_BITS = 0xFFFFFFFF
_Bits = TypeVar("_Bits", int, Tensor)


def noise_key(seed: NoiseSeed, axis: int) -> NoiseSeed:
    """32 bits that name one stream of noise, from a seed (of 64 bits) and an axis."""
    return _hash(seed & _BITS ^ _hash((seed >> 32) + 2 * axis + 1 & _BITS))  # type: ignore[type-var]


def uniform(key: NoiseSeed, like: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Numbers in [0, 1), each a pure function of the key and its index: the same on all devices and in any order.

    The high 24 bits of hash(row · n_columns + column + key).
    """
    index = torch.arange(like.numel(), device=like.device).view(like.shape)
    return (_hash((index + key) & _BITS) >> 8).to(like.dtype) * 2.0**-24


def _hash(x: _Bits) -> _Bits:
    """Hash of 32 bits, in integers of 64 bits or more (products of 64 bits wrap and keep their low half)."""
    x = (x ^ (x >> 16)) * MULTIPLIERS[0] & _BITS
    x = (x ^ (x >> 15)) * MULTIPLIERS[1] & _BITS
    return x ^ (x >> 16)


def tie_margin(frame: Frame | None, edges: Edges) -> Float[Tensor, "n_atoms n_heads 2"] | None:
    """Score of each anchor edge minus that of the best other edge. About 0: a tie. inf: there is no other edge."""
    if frame is None or frame.anchor_edges is None or frame.anchor_scores is None:
        return None
    margins = []
    for anchor, scores in zip(frame.anchor_edges.unbind(-1), frame.anchor_scores, strict=True):
        others = scores.scatter(0, anchor, -torch.inf)
        margins.append(scores.gather(0, anchor) - segment_max(others, edges.query, edges.n_atoms))
    return torch.stack(margins, dim=-1)


# --- frames from second moments ---------------------------------------------------------------------------------------


def weighted_pca_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: NoiseSeed | None) -> Frame:
    """Principal axes of Σ p r rᵀ, eigenvalues ascending (the paper's weighted PCA frames).

    This departs from the authors' code, which reads the weights from uninitialised memory and takes rows for columns
    (quirk Q5, Q6). For flat surroundings it uses the Cartesian axes, which do not rotate with the crystal. Here one
    flat direction is no problem, and with two or three the frame is completed as in `max`.
    """
    exact = attended.in_double()
    eigenvalues, vectors = torch.linalg.eigh(exact.moment(2))
    axes = _orient(vectors.mT, exact.moment(1), exact.moment(3), config, noise_seed).to(attended.attention.dtype)
    eigenvalues = eigenvalues.to(axes.dtype)
    linear = eigenvalues[..., 1] <= FLAT * eigenvalues[..., 2]
    if linear.any():
        strongest = max_frames(attended, config, noise_seed).axes[..., 0, :]
        attends_others = eigenvalues[..., 2:] > FLAT * FLAT
        third = torch.where(attends_others, axes[..., 2, :], strongest)
        second = _second_edge(attended, third, config, noise_seed)
        completed = right_handed(third, attended.edges.directions[second]).flip(-2)
        completed = completed * completed.new_tensor([-1.0, 1.0, 1.0])[:, None]  # reversed rows: keep right-handed
        axes = torch.where(linear[..., None, None], completed, axes)
    return Frame(axes, eigenvalues=eigenvalues)


def _second_edge(
    attended: AttendedEdges, e1: Float[Tensor, "n_atoms n_heads 3"], config: FrameConfig, noise_seed: NoiseSeed | None
) -> Int[Tensor, "n_atoms n_heads"]:
    """The strongest edge off a given axis."""
    if noise_seed is None and config.tie_margin > 0:
        return ties.strongest_off_axis(attended, e1, attended.logits, config)
    scores = off_axis(attended.edges, e1, attended.logits, config.second_axis)
    return _strongest(scores, attended.edges, config, noise_seed, 1)


def pca_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: NoiseSeed | None) -> Frame:
    """Principal axes of the atoms of the cell about their mean, the same for all heads, as in frame averaging.

    They depend on the cell and on the images of the atoms in it, and are here for comparison with the paper. Axes of
    cells with one or two atoms are not determined.
    """
    edges = attended.edges
    n_crystals = len(edges.lattice)
    centered = edges.positions - segment_mean(edges.positions, edges.crystal_index, n_crystals)[edges.crystal_index]
    covariance, octupole = (
        edges.at_queries(moment[edges.crystal_index])[:, None].expand(-1, attended.n_heads, *moment.shape[1:])
        for moment in (segment_sum(outer_power(centered, order), edges.crystal_index, n_crystals) for order in (2, 3))
    )
    eigenvalues, vectors = torch.linalg.eigh(covariance[:, 0])
    axes = vectors.mT[:, None].expand(-1, attended.n_heads, 3, 3)
    axes = _orient(axes, torch.zeros_like(axes[..., 0]), octupole, config, noise_seed)
    return Frame(axes, eigenvalues=eigenvalues[:, None].expand(-1, attended.n_heads, 3))


def _orient(
    axes: Float[Tensor, "n_atoms n_heads 3 3"],
    dipole: Float[Tensor, "n_atoms n_heads 3"],
    octupole: Float[Tensor, "n_atoms n_heads 3 3 3"],
    config: FrameConfig,
    noise_seed: NoiseSeed | None,
) -> Float[Tensor, "n_atoms n_heads 3 3"]:
    """Choose the signs of principal axes so that the frame is right-handed: there are four ways.

    Training chooses at random, as the authors' code always does (quirk Q8), and evaluation by odd moments. Where both
    hands count alike, not by those that are odd along the axis of the hand: a mirror image has the opposite ones.
    """
    # Libraries differ in the signs of eigenvectors. With one rule for them, noise means the same on every device.
    axes = axes * axes.gather(-1, axes.abs().argmax(-1, keepdim=True)).sign()
    axes = axes * torch.linalg.det(axes).sign()[..., None, None]
    ways = axes.new_tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    if noise_seed is not None:
        drawn = (4.0 * uniform(noise_key(noise_seed, 0), axes[..., 0, 0])).long()
        return axes * ways[drawn][..., None]
    first = einsum(axes, dipole, "n h k x, n h x -> n h k")
    third = einsum(axes, axes, axes, octupole, "n h i x, n h j y, n h k z, n h x y z -> n h i j k")
    possible = torch.ones(*axes.shape[:2], 4, dtype=torch.bool, device=axes.device)
    total = torch.zeros(*axes.shape[:2], 4, dtype=axes.dtype, device=axes.device)
    for along in (*((k,) for k in (2, 1, 0)), *itertools.combinations_with_replacement((2, 1, 0), 3)):
        if config.both_hands and along.count(0) % 2:  # 0 is the hand's axis
            continue
        moment = (first if len(along) == 1 else third)[(..., *along)]
        value = moment[..., None] * ways[:, along].prod(-1)
        total += value
        value = value.masked_fill(~possible, -torch.inf)
        possible &= value >= value.amax(-1, keepdim=True) - config.tie_margin
    # Where all moments are small, their sum: the order of the ways would depend on how the crystal is turned.
    return axes * ways[total.masked_fill(~possible, -torch.inf).argmax(-1)][..., None]


# --- frames from the lattice ------------------------------------------------------------------------------------------

LARGEST_STEP = 2
"""Largest factor in combinations of reduced vectors. The shortest vectors, and those that tie with them, need 1."""
REDUCTION_SLACK = 1e-3


def lattice_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: NoiseSeed | None) -> Frame:
    """The three shortest independent lattice vectors, as unit vectors: oblique, the same for all atoms and heads.

    e₂ and e₃ are at an acute angle to e₁. If the axes are then left-handed, all three are reversed (docs/fidelity.md).
    """
    lattice = attended.edges.lattice
    translations = _short_translations(lattice)
    vectors = torch.einsum("cmi,cij->cmj", translations, lattice)
    squared = vectors.square().sum(-1)
    if noise_seed is not None:
        squared = squared + config.noise * (2.0 * uniform(noise_key(noise_seed, 0), squared) - 1.0)
    is_zero = (translations == 0).all(-1)
    units = normalize(vectors, dim=-1)

    def shortest(possible: Bool[Tensor, "n_crystals n_translations"]) -> Float[Tensor, "n_crystals 3"]:
        lengths = squared.masked_fill(~possible, torch.inf)
        slack = 0.0 if noise_seed is not None else config.tie_margin
        within = lengths <= lengths.amin(-1, keepdim=True) + slack
        return units[torch.arange(len(units)), within.to(torch.uint8).argmax(-1)]

    def acute(axis: Tensor, to: Tensor) -> Tensor:
        return torch.where((axis * to).sum(-1, keepdim=True) < -RIGHT_ANGLE, -axis, axis)

    e1 = shortest(~is_zero)
    off_axis = 1.0 - torch.einsum("cmx,cx->cm", units, e1).abs() > 1e-5
    e2 = acute(shortest(~is_zero & off_axis), e1)
    normal = normalize(torch.linalg.cross(e1, e2), dim=-1)
    off_plane = torch.einsum("cmx,cx->cm", units, normal).abs() > 1e-5
    e3 = acute(shortest(~is_zero & off_plane), e1)
    axes = torch.stack([e1, e2, e3], dim=1)
    axes = axes * torch.where(torch.linalg.det(axes) < 0, -1.0, 1.0)[:, None, None]
    axes = attended.edges.at_queries(axes[attended.edges.crystal_index])
    return Frame(axes[:, None].expand(-1, attended.n_heads, 3, 3))


def _short_translations(lattice: Float[Tensor, "n_crystals 3 3"]) -> Float[Tensor, "n_crystals n_translations 3"]:
    """Integer combinations of a, b and c, in lexicographic order, that include the shortest independent vectors.

    These are small combinations of reduced vectors. In terms of a, b and c, a very flat cell would need millions.
    """
    steps = torch.arange(-LARGEST_STEP, LARGEST_STEP + 1, dtype=lattice.dtype, device=lattice.device)
    found = torch.cartesian_prod(steps, steps, steps) @ _reduced(lattice)
    base = 2.0 * found.abs().amax() + 1.0
    rank = found.double() @ base.double() ** torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64, device=lattice.device)
    return found.take_along_dim(rank.argsort(-1)[..., None], 1)


def _reduced(lattice: Float[Tensor, "n_crystals 3 3"]) -> Float[Tensor, "n_crystals 3 3"]:
    """Rows of integers: combinations of a, b and c of which none becomes shorter by adding another one."""
    combinations = torch.eye(3, dtype=lattice.dtype, device=lattice.device).repeat(len(lattice), 1, 1)
    is_reduced = False
    while not is_reduced:
        is_reduced = True
        for one, other in itertools.permutations(range(3), 2):
            vectors = combinations @ lattice
            ratio = (vectors[:, one] * vectors[:, other]).sum(-1) / vectors[:, other].square().sum(-1)
            # The slack exceeds rounding errors, so each step makes a vector shorter and the loop ends.
            times = torch.where(ratio.abs() > 0.5 + REDUCTION_SLACK, ratio.round(), 0.0)
            combinations[:, one] -= times[:, None] * combinations[:, other]
            is_reduced = is_reduced and not times.any()
    return combinations


FORMULAS: dict[str, Callable[[AttendedEdges, FrameConfig, NoiseSeed | None], Frame]] = {
    "max": max_frames,
    "weighted-pca": weighted_pca_frames,
    "static-max": static_max_frames,
    "pca": pca_frames,
    "lattice": lattice_frames,
}
