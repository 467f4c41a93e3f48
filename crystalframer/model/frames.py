"""Local frames: three axes per atom and head, built from where the attention goes (CrystalFramer).

Every method is a pure function of `AttendedEdges`; `build_frames` looks it up in one table. Frames are constants
for autograd. All of them turn with the crystal; what else each promises:

=============== ============================ ===============================================
method          axes from                    independent of the chosen cell
=============== ============================ ===============================================
`max`           strongest edges              yes
`weighted-pca`  attention-weighted moments   yes
`static-max`    nearest edges                yes
`pca`           atoms of the cell            no (the cell and its wrapping are what it sees)
`lattice`       shortest lattice vectors     no (a supercell has others)
=============== ============================ ===============================================
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TypeVar

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from crystalframer.config import FrameConfig, FrameMethod
from crystalframer.model.edges import Edges
from crystalframer.model.segments import segment_argmax, segment_first, segment_max, segment_mean, segment_sum

COLLINEAR = 0.9999
"""|cosine| to the first axis above which an edge cannot set the second."""
SMALLEST_SINE_SCORE = 1e-5
HIGHEST_MOMENT = 5
"""Of the cosines to an axis, in what decides ties."""
POWERS = tuple(
    (a, b, c)
    for a in range(HIGHEST_MOMENT + 1)
    for b in range(HIGHEST_MOMENT + 1 - a)
    for c in range(HIGHEST_MOMENT + 1 - a - b)
)
"""Of x, y and z in their products up to the fifth degree."""
TIE_WEIGHTS = (
    (1.00, 0.38, 0.47, 0.29, 0.21),
    (0.31, 0.12, 0.19, 0.10, 0.14),
    (0.13, 0.05, 0.11, 0.08, 0.06),
)
"""Of the five moments along e₁, e₂ and e₃, in what decides ties. Any numbers would do that have no simple ratios."""
EQUIVALENT = 1e-6
"""Frames whose moments differ by less are one for the head: the first of them serves."""
RIGHT_ANGLE = 1e-5
"""Cosine below which two lattice vectors count as perpendicular: rounding shall not decide a sign."""
FLAT = 1e-6
"""Eigenvalues of a covariance below this share of the largest one count as 0."""


@dataclass(frozen=True, eq=False)
class AttendedEdges:
    """The edges of a batch and how strongly each head attends to them: what a frame is made from."""

    edges: Edges
    logits: Float[Tensor, "n_edges n_heads"]
    """Content plus distance logits."""
    attention: Float[Tensor, "n_edges n_heads"]

    @property
    def n_heads(self) -> int:
        return self.logits.shape[1]

    def in_double(self) -> AttendedEdges:
        """In float64 where the device has it: principal axes of close eigenvalues magnify the rounding of moments."""
        if self.attention.device.type == "mps":
            return self
        edges = replace(self.edges, vectors=self.edges.vectors.double())
        return AttendedEdges(edges, self.logits.double(), self.attention.double())

    @cached_property
    def dipole(self) -> Float[Tensor, "n_atoms n_heads 3"]:
        """Σ p r, Å."""
        return self._moment(self.edges.vectors)

    @cached_property
    def quadrupole(self) -> Float[Tensor, "n_atoms n_heads 3 3"]:
        """Σ p r rᵀ, Å²."""
        r = self.edges.vectors
        return self._moment(r[:, :, None] * r[:, None, :])

    @cached_property
    def octupole(self) -> Float[Tensor, "n_atoms n_heads 3 3 3"]:
        """Σ p r⊗r⊗r, Å³."""
        r = self.edges.vectors
        return self._moment(r[:, :, None, None] * r[:, None, :, None] * r[:, None, None, :])

    @cached_property
    def direction_moments(self) -> Float[Tensor, "n_atoms n_heads n_products"]:
        """Σ p xᵃ yᵇ zᶜ of the unit vectors, with the powers of `POWERS`."""
        products = _products(self.edges.directions)
        by_head = [
            segment_sum(weights[:, None] * products, self.edges.query, self.edges.n_atoms)
            for weights in self.attention.unbind(1)
        ]
        return torch.stack(by_head, dim=1)

    def _moment(self, products: Tensor) -> Tensor:
        weights = self.attention.view(*self.attention.shape, *[1] * (products.ndim - 1))
        return segment_sum(weights * products[:, None], self.edges.query, self.edges.n_atoms)


@dataclass(frozen=True, eq=False)
class Frame:
    """Axes of every atom and head, and what fixed them."""

    axes: Float[Tensor, "n_atoms n_heads 3 3"]
    """Row k is the unit vector e_k; right-handed."""
    anchor_edges: Int[Tensor, "n_atoms n_heads 2"] | None = None
    """Edges that fixed e₁ and e₂."""
    anchor_scores: tuple[Float[Tensor, "n_edges n_heads"], Float[Tensor, "n_edges n_heads"]] | None = None
    """What the anchor edges are the maxima of; -inf where an edge cannot be chosen."""
    eigenvalues: Float[Tensor, "n_atoms n_heads 3"] | None = None
    """Å², ascending."""


def build_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: int | None = None) -> Frame:
    """The frames of one layer.

    Args:
        noise_seed: of the noise that picks among ties in training; None (evaluation) decides them by moments.
    """
    with torch.no_grad():
        return METHODS[config.method](attended, config, noise_seed)


# --- frames from single edges -----------------------------------------------------------------------------------------


def max_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: int | None) -> Frame:
    """e₁ points to the strongest edge, e₂ to the strongest edge off that axis (the paper's max frames)."""
    return _frames_from_scores(attended, attended.logits, attended.logits, config, noise_seed)


def static_max_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: int | None) -> Frame:
    """As `max` with the weight exp(-r²) of the paper's static local frame in place of attention: nearest edges.

    The authors' code maximises +r² for the second axis and so takes the farthest edge of its box (quirk Q7).
    """
    squared = -attended.edges.lengths.square()
    scores = squared[:, None].expand_as(attended.logits)
    return _frames_from_scores(attended, scores, scores, config, noise_seed)


def _frames_from_scores(
    attended: AttendedEdges,
    first_scores: Float[Tensor, "n_edges n_heads"],
    second_scores: Float[Tensor, "n_edges n_heads"],
    config: FrameConfig,
    noise_seed: int | None,
) -> Frame:
    edges = attended.edges
    first_scores = first_scores.masked_fill(edges.is_self[:, None], -torch.inf)
    if noise_seed is None and config.tie_margin > 0:
        first, second = _strongest_pair(attended, first_scores, second_scores, config.tie_margin)
        second_scores = _off_axis(edges, edges.directions[first], second_scores)
    else:
        first = _strongest(first_scores, edges, config, noise_seed, 0)
        second_scores = _off_axis(edges, edges.directions[first], second_scores)
        second = _strongest(second_scores, edges, config, noise_seed, 1)
    axes = _right_handed(edges.directions[first], edges.directions[second])
    return Frame(axes, torch.stack([first, second], dim=-1), (first_scores, second_scores))


def _off_axis(
    edges: Edges, e1: Float[Tensor, "n_atoms n_heads 3"], scores: Float[Tensor, "n_edges n_heads"]
) -> Float[Tensor, "n_edges n_heads"]:
    """What the second anchor edge is the maximum of: log-weight + log(1 - |cosine to e₁|); -inf along the axis."""
    cosines = einsum(edges.directions, e1[edges.query], "e xyz, e h xyz -> e h")
    return _lowered(scores, cosines).masked_fill(edges.is_self[:, None], -torch.inf)


def _lowered(scores: Float[Tensor, "*n"], cosines: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    sines = (1.0 - cosines.abs()).clamp(min=SMALLEST_SINE_SCORE)
    return (scores + torch.log(sines)).masked_fill(cosines.abs() >= COLLINEAR, -torch.inf)


def _strongest(
    scores: Float[Tensor, "n_edges n_heads"], edges: Edges, config: FrameConfig, noise_seed: int | None, axis: int
) -> Int[Tensor, "n_atoms n_heads"]:
    """The edge of the highest score; ties go to noise, or without it to the first."""
    if noise_seed is not None:
        scores = scores + config.noise * (2.0 * uniform(noise_key(noise_seed, axis), scores) - 1.0)
    return segment_argmax(scores, edges.query, edges.n_atoms)


def _right_handed(e1: Float[Tensor, "*n 3"], towards: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """e₁, the part of `towards` at right angles to it, and their cross product."""
    e2 = normalize(towards - (towards * e1).sum(-1, keepdim=True) * e1, dim=-1)
    return torch.stack([e1, e2, torch.linalg.cross(e1, e2)], dim=-2)


# --- noise of training ------------------------------------------------------------------------------------------------

MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
"""Of a 32-bit hash: xor-shift by 16, multiply, by 15, multiply, by 16 (C. Wellons, hash-prospector)."""

_BITS = 0xFFFFFFFF
_Bits = TypeVar("_Bits", int, Tensor)


def noise_key(seed: int, axis: int) -> int:
    """32 bits that name one stream of noise: of a seed (64 bits count) and of an axis."""
    return _hash(seed & _BITS ^ _hash((seed >> 32) + 2 * axis + 1 & _BITS))


def uniform(key: int, like: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Numbers in [0, 1), each a pure function of the key and its place: alike on all devices, in kernels, in any order.

    The high 24 bits of hash(row · n_columns + column + key).
    """
    places = torch.arange(like.numel(), device=like.device).view(like.shape)
    return (_hash((places + key) & _BITS) >> 8).to(like.dtype) * 2.0**-24


def _hash(x: _Bits) -> _Bits:
    """Of 32 bits, held in integers of 64 (whose products wrap and keep their low half) or more."""
    x = (x ^ (x >> 16)) * MULTIPLIERS[0] & _BITS
    x = (x ^ (x >> 15)) * MULTIPLIERS[1] & _BITS
    return x ^ (x >> 16)


# --- choosing among ties ----------------------------------------------------------------------------------------------


def _strongest_pair(
    attended: AttendedEdges,
    first_scores: Float[Tensor, "n_edges n_heads"],
    second_scores: Float[Tensor, "n_edges n_heads"],
    margin: float,
) -> tuple[Int[Tensor, "n_atoms n_heads"], Int[Tensor, "n_atoms n_heads"]]:
    """The strongest edge and the strongest off its axis; ties of the two are decided together."""
    edges, n_heads = attended.edges, attended.n_heads
    group = edges.query[:, None] * n_heads + torch.arange(n_heads, device=edges.query.device)
    item, cost = _tied(first_scores.flatten(), group.flatten(), edges.n_atoms * n_heads, margin)
    first, group = item // n_heads, group.flatten()[item]
    chosen, second = _best_frame(attended, edges.directions[first], group, cost, second_scores, margin)
    return first[chosen], second


def _best_frame(
    attended: AttendedEdges,
    e1: Float[Tensor, "n_candidates 3"],
    group: Int[Tensor, " n_candidates"],
    cost: Float[Tensor, " n_candidates"],
    scores: Float[Tensor, "n_edges n_heads"],
    margin: float,
) -> tuple[Int[Tensor, "n_atoms n_heads"], Int[Tensor, "n_atoms n_heads"]]:
    """Which of the first axes (by number) and which second edge, for each group: atom × n_heads + head.

    A head sees a frame by the cosines of its edges to the axes alone. So that the choice turns with the crystal it goes
    by their moments; frames that tie in those as well are mirrored or turned into each other by the site's symmetry, or
    differ in nothing that the head sees.
    """
    edges, n_groups = attended.edges, attended.edges.n_atoms * attended.n_heads
    parts = []
    for part in torch.arange(len(group), device=group.device).split(_candidates_at_once(edges)):
        item, second, more = _tied_off_axis(edges, e1[part], group[part], scores, margin)
        item = part[item]
        seen = _seen(attended, e1[item], edges.directions[second], group[item])
        parts.append((item, second, seen - cost[item] - more))
    candidate, second, value = (torch.cat(columns) for columns in zip(*parts, strict=True))
    group = group[candidate]
    best = segment_max(value[:, None], group, n_groups)[group, 0]
    chosen = segment_first(~(value < best - EQUIVALENT)[:, None], group, n_groups)
    shape = (edges.n_atoms, attended.n_heads)
    return candidate[chosen].view(shape), second[chosen].view(shape)


def _tied_off_axis(
    edges: Edges,
    e1: Float[Tensor, "n_candidates 3"],
    group: Int[Tensor, " n_candidates"],
    scores: Float[Tensor, "n_edges n_heads"],
    margin: float,
) -> tuple[Int[Tensor, " n_tied"], Int[Tensor, " n_tied"], Float[Tensor, " n_tied"]]:
    """Of each first axis, the strongest edges off it: number of the axis, edge, cost."""
    n_heads = scores.shape[1]
    n_edges = torch.bincount(edges.query, minlength=edges.n_atoms)
    count = n_edges[group // n_heads]
    item = torch.repeat_interleave(torch.arange(len(group), device=group.device), count)
    start = (n_edges.cumsum(0) - n_edges)[group // n_heads] - (count.cumsum(0) - count)
    edge = torch.arange(len(item), device=group.device) + start[item]
    lowered = _lowered(scores[edge, group[item] % n_heads], (edges.directions[edge] * e1[item]).sum(-1))
    tied, cost = _tied(lowered.masked_fill(edges.is_self[edge], -torch.inf), item, len(group), margin)
    return item[tied], edge[tied], cost


def _tied(
    scores: Float[Tensor, " n_items"], segment: Int[Tensor, " n_items"], n_segments: int, margin: float
) -> tuple[Int[Tensor, " n_tied"], Float[Tensor, " n_tied"]]:
    """The items within the margin of the best of their segment, and what it costs to choose one.

    0 for the best, without bound towards the margin: where exactly that lies decides nothing.
    """
    lag = (segment_max(scores[:, None], segment, n_segments)[segment, 0] - scores) / margin
    within = lag < 1.0
    within[segment_argmax(scores[:, None], segment, n_segments)] = True  # where all are NaN too
    item = within.nonzero()[:, 0]
    power = lag[item] ** 4
    return item, power / (1.0 - power)


def _seen(
    attended: AttendedEdges,
    e1: Float[Tensor, "n_frames 3"],
    towards: Float[Tensor, "n_frames 3"],
    group: Int[Tensor, " n_frames"],
) -> Float[Tensor, " n_frames"]:
    """Σ p (w₁(cos θ₁) + w₂(cos θ₂) + w₃(cos θ₃)) over the edges, with polynomials w."""
    axes = _right_handed(e1, towards)
    weights = _tie_weights().to(axes)
    moments = attended.direction_moments.flatten(0, 1)
    along = [(moments[group] * weights[k] * _products(axes[:, k])).sum(-1) for k in range(3)]
    return torch.stack(along).sum(0)


def _products(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n n_products"]:
    """xᵃ yᵇ zᶜ for all powers of `POWERS`."""
    powers = vectors[:, None] ** torch.arange(HIGHEST_MOMENT + 1, device=vectors.device)[:, None]
    a, b, c = torch.tensor(POWERS, device=vectors.device).T
    return powers[:, a, 0] * powers[:, b, 1] * powers[:, c, 2]


@lru_cache
def _tie_weights() -> Float[Tensor, "3 n_products"]:
    """What Σ p xᵃ yᵇ zᶜ counts along each axis: (r·e)ᵐ multiplied out."""
    counts = [math.factorial(sum(n)) / math.prod(map(math.factorial, n)) for n in POWERS]
    weights = [
        [(0.0, *of_axis)[sum(n)] * count for n, count in zip(POWERS, counts, strict=True)] for of_axis in TIE_WEIGHTS
    ]
    return torch.tensor(weights, dtype=torch.float64)


def _candidates_at_once(edges: Edges) -> int:
    """First axes whose second edges are compared together: memory for two million of these."""
    return max(1, 2**21 // int(torch.bincount(edges.query).max()))


def tie_margin(frame: Frame, edges: Edges) -> Float[Tensor, "n_atoms n_heads 2"] | None:
    """By how much each anchor edge beats the best other edge; about 0: a tie. inf where no other edge can be chosen."""
    if frame.anchor_edges is None or frame.anchor_scores is None:
        return None
    margins = []
    for anchor, scores in zip(frame.anchor_edges.unbind(-1), frame.anchor_scores, strict=True):
        others = scores.scatter(0, anchor, -torch.inf)
        margins.append(scores.gather(0, anchor) - segment_max(others, edges.query, edges.n_atoms))
    return torch.stack(margins, dim=-1)


# --- frames from second moments ---------------------------------------------------------------------------------------


def weighted_pca_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: int | None) -> Frame:
    """Principal axes of Σ p r rᵀ, eigenvalues ascending (the paper's weighted PCA frames).

    Departs from the authors' code, which read the weights from memory that nobody wrote and took rows for columns
    (quirk Q5, Q6), and which falls back to the Cartesian axes for flat surroundings, which do not turn with the
    crystal. Here one flat direction is no obstacle, and with two or three the frame is completed as in `max`.
    """
    exact = attended.in_double()
    eigenvalues, vectors = torch.linalg.eigh(exact.quadrupole)
    axes = _orient(vectors.mT, exact.dipole, exact.octupole, config, noise_seed).to(attended.attention.dtype)
    eigenvalues = eigenvalues.to(axes.dtype)
    linear = eigenvalues[..., 1] <= FLAT * eigenvalues[..., 2]
    if linear.any():
        strongest = max_frames(attended, config, noise_seed).axes[..., 0, :]
        attends_others = eigenvalues[..., 2:] > FLAT * FLAT
        third = torch.where(attends_others, axes[..., 2, :], strongest)
        second = _second_edge(attended, third, config, noise_seed)
        completed = _right_handed(third, attended.edges.directions[second]).flip(-2)
        completed = completed * completed.new_tensor([-1.0, 1.0, 1.0])[:, None]  # reversed rows: keep right-handed
        axes = torch.where(linear[..., None, None], completed, axes)
    return Frame(axes, eigenvalues=eigenvalues)


def _second_edge(
    attended: AttendedEdges, e1: Float[Tensor, "n_atoms n_heads 3"], config: FrameConfig, noise_seed: int | None
) -> Int[Tensor, "n_atoms n_heads"]:
    """The strongest edge off a given axis."""
    if noise_seed is None and config.tie_margin > 0:
        group = torch.arange(e1[..., 0].numel(), device=e1.device)
        cost = torch.zeros_like(e1[..., 0]).flatten()
        return _best_frame(attended, e1.flatten(0, 1), group, cost, attended.logits, config.tie_margin)[1]
    return _strongest(_off_axis(attended.edges, e1, attended.logits), attended.edges, config, noise_seed, 1)


def pca_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: int | None) -> Frame:
    """Principal axes of the atoms of the cell about their mean, the same for all heads, as in frame averaging.

    Depends on the cell and on where in it the atoms are written; kept for comparison with the paper. Axes of cells with
    one or two atoms are not determined.
    """
    edges = attended.edges
    n_crystals = len(edges.lattice)
    centered = edges.positions - segment_mean(edges.positions, edges.crystal_index, n_crystals)[edges.crystal_index]
    moments = []
    for order in (2, 3):
        product = centered
        for _ in range(order - 1):
            product = product[..., None] * centered.view(-1, *[1] * (product.ndim - 1), 3)
        moments.append(segment_sum(product, edges.crystal_index, n_crystals)[edges.crystal_index][:, None])
    covariance, octupole = (m.expand(-1, attended.n_heads, *m.shape[2:]) for m in moments)
    eigenvalues, vectors = torch.linalg.eigh(covariance[:, 0])
    axes = vectors.mT[:, None].expand(-1, attended.n_heads, 3, 3)
    axes = _orient(axes, torch.zeros_like(axes[..., 0]), octupole, config, noise_seed)
    return Frame(axes, eigenvalues=eigenvalues[:, None].expand(-1, attended.n_heads, 3))


def _orient(
    axes: Float[Tensor, "n_atoms n_heads 3 3"],
    dipole: Float[Tensor, "n_atoms n_heads 3"],
    octupole: Float[Tensor, "n_atoms n_heads 3 3 3"],
    config: FrameConfig,
    noise_seed: int | None,
) -> Float[Tensor, "n_atoms n_heads 3 3"]:
    """Choose the signs of principal axes so that the frame is right-handed: four ways.

    At random in training, as the authors do always (quirk Q8); by odd moments in evaluation.
    """
    # An eigenvector's sign is the library's choice; one rule for it, so that noise means the same on every device.
    axes = axes * axes.gather(-1, axes.abs().argmax(-1, keepdim=True)).sign()
    axes = axes * torch.linalg.det(axes).sign()[..., None, None]
    ways = axes.new_tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    if noise_seed is not None:
        drawn = (4.0 * uniform(noise_key(noise_seed, 0), axes[..., 0, 0])).long()
        return axes * ways[drawn][..., None]
    first = einsum(axes, dipole, "n h k x, n h x -> n h k")
    third = einsum(axes, axes, axes, octupole, "n h i x, n h j y, n h k z, n h x y z -> n h i j k")
    odd_moments = [first[..., k] for k in (2, 1, 0)]
    odd_moments += [third[..., i, j, k] for i, j, k in itertools.combinations_with_replacement((2, 1, 0), 3)]
    parities = [ways[:, k] for k in (2, 1, 0)]
    parities += [
        ways[:, i] * ways[:, j] * ways[:, k] for i, j, k in itertools.combinations_with_replacement((2, 1, 0), 3)
    ]
    possible = torch.ones(*axes.shape[:2], 4, dtype=torch.bool, device=axes.device)
    for moment, parity in zip(odd_moments, parities, strict=True):
        value = (moment[..., None] * parity).masked_fill(~possible, -torch.inf)
        possible &= value >= value.amax(-1, keepdim=True) - config.tie_margin
    return axes * ways[possible.to(torch.uint8).argmax(-1)][..., None]


# --- frames from the lattice ------------------------------------------------------------------------------------------


def lattice_frames(attended: AttendedEdges, config: FrameConfig, noise_seed: int | None) -> Frame:
    """The three shortest independent lattice vectors, as unit vectors: oblique, the same for all atoms and heads.

    e₂ and e₃ are taken at an acute angle to e₁; if that is left-handed, all three are turned round (docs/fidelity.md).
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
    return Frame(axes[attended.edges.crystal_index][:, None].expand(-1, attended.n_heads, 3, 3))


def _short_translations(lattice: Float[Tensor, "n_crystals 3 3"]) -> Float[Tensor, "n_crystals n_translations 3"]:
    """Integer combinations in lexicographic order: all lattice vectors up to the longest of a, b, c, and more."""
    longest = lattice.square().sum(-1).amax(-1).sqrt()
    heights = 1.0 / torch.linalg.inv(lattice).square().sum(1).sqrt()
    reach = int(torch.ceil(longest[:, None] / heights - 1e-6).amax())
    steps = torch.arange(-reach, reach + 1, dtype=lattice.dtype, device=lattice.device)
    return torch.cartesian_prod(steps, steps, steps).expand(len(lattice), -1, -1)


METHODS: dict[FrameMethod, Callable[[AttendedEdges, FrameConfig, int | None], Frame]] = {
    "max": max_frames,
    "weighted-pca": weighted_pca_frames,
    "static-max": static_max_frames,
    "pca": pca_frames,
    "lattice": lattice_frames,
}
