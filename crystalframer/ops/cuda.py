"""Framed attention on CUDA devices in float32: Triton kernels behind torch operators with gradients of their own.

The same function as `reference`, in the order of `cpu`: only the weights of the edges are kept, Gaussians of cosines
become Chebyshev polynomials, and everything linear is one matrix product. `triton_kernels` counts the work. Only the
operator that decides ties in evaluation waits for the device. With TRITON_INTERPRET=1 in the environment before Triton
is imported, everything runs on CPU tensors, slowly, which tests without a GPU use.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from crystalframer.config import CosineBasis, DistanceBasis, FrameConfig
from crystalframer.crystals.batch import IncomingEdges
from crystalframer.maths.attended import AttendedEdges
from crystalframer.maths.chebyshev import chebyshev_of_gaussians
from crystalframer.maths.edges import Edges
from crystalframer.maths.frames import NoiseSeed, build_frames, frames_from_edges
from crystalframer.ops import triton_frames, triton_kernels, triton_ties
from crystalframer.ops.operators import constant, has_no_gradient, operator
from crystalframer.ops.reference import AttentionInputs

BLOCK = 16
"""Edges at a time: with eight heads, a block fits into the registers of a warp."""
BLOCK_OF_SETS = 32
"""Edges at a time where a warp has one head: one for each lane."""
ROWS = 8
"""Rows at a time where rows are summed."""
MOST_AXES = 32
"""Number of different axes that are gathered before their moments are summed."""


def framed_attention(given: AttentionInputs) -> Float[Tensor, "n_atoms n_heads d_head"]:
    """The `output` of `reference.framed_attention`."""
    edges, config, ends = given.edges, given.config, _ends(given.edges)
    precision = 0.5 / given.decay_length.square()
    steepness = 0.0 if config.decay.reach is None else 2.0 / config.decay.reach**2
    logits, attention, last_edge = attend(given.query, given.key, precision, edges.lengths, *ends, steepness)
    projection = config.distance.coefficient * given.distance_projection
    axes, degree, of_sets = given.query.new_empty(0), 0, None
    if given.cosine_projection is not None:
        seen = (logits.detach(), attention.detach(), given, ends)
        polynomials = _polynomials(config.cosine.n_centers, config.cosine.width, given.query.device)
        if given.noise_seed is None and config.frame.weighted_margin > 0:
            of_sets = _cosines_of_sets(*seen, polynomials.shape[1])
        else:
            axes, degree = _axes(*seen), polynomials.shape[1]
        cosines = config.cosine.coefficient * (given.cosine_projection @ polynomials)
        projection = torch.cat([projection, rearrange(cosines, "k h d n -> h d (k n)")], dim=-1)
    geometry = (edges.lengths, edges.directions, edges.is_self)
    basis = (*_centers(config.distance), degree)
    values, sums = accumulate(attention, last_edge, given.value, axes, *geometry, *ends, *basis)
    sums = sums if of_sets is None else torch.cat([sums, of_sets], dim=-1)
    return values + einsum(sums, projection, "n h m, h d m -> n h d")


def _centers(basis: DistanceBasis) -> tuple[int, float, float]:
    """Number and spacing of the distance centres, and the factor from a distance to the root of a Gaussian's
    exponent."""
    spacing = basis.max_distance / basis.n_centers
    return basis.n_centers, spacing, math.sqrt(0.5) / (basis.width * spacing)


@constant  # torch 2.11 takes numbers for its arguments, no dataclass
def _polynomials(n_centers: int, width: float, device: torch.device) -> Float[Tensor, "n_centers degree"]:
    return _polynomials_on(CosineBasis(n_centers, width), device)


@lru_cache
def _polynomials_on(basis: CosineBasis, device: torch.device) -> Float[Tensor, "n_centers degree"]:
    with torch.inference_mode(False):  # it is kept, and a training may use it after a prediction
        return torch.from_numpy(chebyshev_of_gaussians(basis)).to(device, torch.float32)


def _axes(logits: Tensor, attention: Tensor, given: AttentionInputs, ends: _Ends) -> Tensor:
    """Frames by the kernel if the method has one, else by its formula in plain torch on this device."""
    edges, config, noise_seed = given.edges, given.config.frame, given.noise_seed
    if "cuda" not in config.promises.kernels:
        return build_frames(AttendedEdges(edges, logits, attention), config, noise_seed).axes.contiguous()
    noise = margin = 0.0
    if noise_seed is None:
        margin = config.tie_margin
    elif config.weighted_margin > 0:
        margin = config.weighted_margin
    else:
        noise = config.noise
    geometry = (edges.lengths, edges.directions, edges.is_self, ends.first_edge, _seed_on(noise_seed, logits.device))
    rules = (*_rules(config), config.both_hands)
    return max_frames(logits, attention, *geometry, *rules, noise, margin, noise_seed is not None)


def _cosines_of_sets(logits: Tensor, attention: Tensor, given: AttentionInputs, ends: _Ends, degree: int) -> Tensor:
    """Moments of the cosines, summed over weighted sets of frames. No gradient."""
    edges, config = given.edges, given.config.frame
    geometry = (edges.lengths, edges.directions, edges.is_self, ends.first_edge)
    return cosines_of_sets(logits, attention, *geometry, *_rules(config), config.weighted_margin, degree)


def _rules(config: FrameConfig) -> tuple[bool, bool]:
    """Whether the nearest edges are the strongest, and whether the second axis is that of `sine`."""
    return config.promises.anchored_by == "nearness", config.second_axis == "sine"


def _seed_on(seed: NoiseSeed | None, device: torch.device) -> Tensor:
    """The seed on the device, where the kernel hashes it: a recorded graph would repeat the noise of a number."""
    if isinstance(seed, Tensor):
        return seed
    # Filled in, not copied: a copy from the host would wait for the device. The low 64 bits, as a signed number.
    number = ((seed or 0) + 2**63) % 2**64 - 2**63
    return torch.full((), number, dtype=torch.int64, device=device)


# --- what is not attention, in a fixed order of sums ------------------------------------------------------------------


def segment_mean(values: Tensor, segment: Tensor, n_segments: int) -> Tensor:
    """`segments.segment_mean` of rows sorted by segment."""
    first = _starts(segment, n_segments)
    return segment_sums(values, segment, first) / first.diff().clamp(min=1)[:, None]


class Lookup(torch.autograd.Function):
    """Rows of a table. Their gradient is one product with a matrix of ones and zeros.

    That of `nn.Embedding` sorts many rows, waits for the device to count the different ones, and adds a few in any
    order.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, row: Tensor) -> Tensor:
        ctx.save_for_backward(row)
        ctx.n_rows = len(table)
        return table[row]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (row,) = ctx.saved_tensors
        is_row = torch.arange(ctx.n_rows, device=row.device)[:, None] == row
        return is_row.to(grad.dtype) @ grad, None


# --- a batch as the kernels need it -----------------------------------------------------------------------------------


class _Ends(NamedTuple):
    """Both ends of the edges, and the edges of each atom in both directions, the same for all layers."""

    query_atom: Tensor
    key_atom: Tensor
    first_edge: Tensor
    """(n_atoms + 1): where the edges from each atom start."""
    incoming: Tensor
    """(n_edges): edges by the atom at which they end."""
    first_incoming: Tensor
    """(n_atoms + 1): where the edges to each atom start among those."""

    @classmethod
    def of(cls, edges: Edges) -> _Ends:
        known = edges.incoming or _incoming(edges)
        return cls(edges.query, edges.key, _starts(edges.query, edges.n_atoms), known.edges, known.first)


def _incoming(edges: Edges) -> IncomingEdges:
    by_key, incoming = edges.key.sort(stable=True)
    return IncomingEdges(incoming, _starts(by_key, edges.n_keys))


def _starts(segment: Tensor, n_segments: int) -> Tensor:
    """(n_segments + 1): where each segment starts, of items sorted by segment; those beyond the last are left out."""
    return torch.searchsorted(segment, torch.arange(n_segments + 1, device=segment.device))


_known: WeakKeyDictionary[Edges, _Ends] = WeakKeyDictionary()


def _ends(edges: Edges) -> _Ends:
    if torch.compiler.is_compiling():  # the compiler finds out that the layers of a model share them
        return _Ends.of(edges)
    if edges not in _known:
        _known[edges] = _Ends.of(edges)
    return _known[edges]


# --- operators --------------------------------------------------------------------------------------------------------


_ENDS = ", ".join(f"Tensor {name}" for name in _Ends._fields)
_BASIS = "int n_centers, float spacing, float sharpness, int degree"


def _sizes(heads: Tensor) -> dict[str, int]:
    """Compile-time sizes for (n_atoms, n_heads, d_head); Triton's tensors have powers of two."""
    d_head = heads.shape[2]
    return {"HEADS": _padded(heads.shape[1]), "D_HEAD": d_head, "D": _padded(d_head), "BLOCK": BLOCK}


def _padded(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _launch(kernel: Any, n_programs: int, *arguments: Any, **sizes: Any) -> None:
    """One program of one warp per atom."""
    if n_programs == 0:
        return
    given = [a.contiguous() if isinstance(a, Tensor) else a for a in arguments]
    # Multiplications joined to additions are half of the speed; Triton 3.10 joins them on request only.
    with torch.cuda.device_of(given[0]):
        kernel[(n_programs,)](*given, **sizes, num_warps=1, enable_fp_fusion=True)


@operator(
    "attend_triton",
    "default",
    f"(Tensor query, Tensor key, Tensor precision, Tensor length, {_ENDS}, float steepness) -> "
    "(Tensor, Tensor, Tensor)",
)
def attend(query: Tensor, key: Tensor, precision: Tensor, length: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(n_edges, n_heads) logits q·k/√d - r²·precision, and their softmax over the edges of each atom; and (n_atoms) the
    number behind the last edge that any head of an atom attends to.

    An envelope ends the attention if `steepness`, 2/k², is not 0: r²·precision·steepness is (r/kσ)².
    """
    *ends, steepness = rest
    e, (n_atoms, n_heads, d_head) = _Ends(*ends), query.shape
    logits = query.new_empty(len(length), n_heads)
    attention, last_edge = torch.empty_like(logits), torch.empty_like(e.first_edge[1:])
    inputs, outputs = (query, key, precision, length, e.key_atom, e.first_edge), (logits, attention, last_edge)
    numbers, sizes = (n_heads, d_head**-0.5, steepness), _sizes(query)
    _launch(triton_kernels.attend, n_atoms, *inputs, *outputs, *numbers, ENDS=steepness > 0, **sizes)
    return logits, attention, last_edge


@torch.library.register_fake(attend)
def _(query: Tensor, key: Tensor, precision: Tensor, length: Tensor, *rest: Any) -> Any:
    logits = query.new_empty(length.shape[0], query.shape[1])
    first_edge = _Ends(*rest[:-1]).first_edge
    return logits, torch.empty_like(logits), torch.empty_like(first_edge[1:])


@operator(
    "attend_backward_triton",
    "default",
    "(Tensor grad_attention, Tensor query, Tensor key, Tensor precision, Tensor attention, Tensor last_edge, "
    f"Tensor length, {_ENDS}, float steepness) -> (Tensor, Tensor, Tensor)",
)
def attend_backward(
    grad_attention: Tensor, query: Tensor, key: Tensor, precision: Tensor, attention: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and precisions. The logits themselves carry none: frames are constants."""
    last_edge, length, *ends, steepness = rest
    e, (n_atoms, n_heads, d_head) = _Ends(*ends), query.shape
    grad_logits = torch.empty_like(attention)
    grad_query, grad_key = query.new_empty(query.shape), key.new_empty(key.shape)
    grad_precision = query.new_empty(n_atoms, n_heads)
    inputs = (grad_attention, attention, key, precision, length, e.key_atom, e.first_edge, last_edge)
    outputs = (grad_logits, grad_query, grad_precision)
    scale, sizes = d_head**-0.5, _sizes(query)
    numbers = (n_heads, scale, steepness)
    _launch(triton_kernels.attend_backward, n_atoms, *inputs, *outputs, *numbers, ENDS=steepness > 0, **sizes)
    inputs = (grad_logits, query, e.query_atom, e.incoming, e.first_incoming)
    _launch(triton_kernels.gather_to_keys, len(key), *inputs, grad_key, n_heads, scale, **sizes)
    return grad_query, grad_key, grad_precision


@torch.library.register_fake(attend_backward)
def _(grad_attention: Tensor, query: Tensor, key: Tensor, *_: Any) -> Any:
    return query.new_empty(query.shape), key.new_empty(key.shape), query.new_empty(query.shape[:2])


has_no_gradient(attend_backward)


def _keep_for_attend(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, precision, *geometry, ctx.steepness = inputs
    ctx.save_for_backward(query, key, precision, *output[1:], *geometry)


def _backward_of_attend(ctx: Any, _: Tensor | None, grad_attention: Tensor, __: Any) -> tuple[Tensor | None, ...]:
    return (*attend_backward(grad_attention, *ctx.saved_tensors, ctx.steepness), *[None] * 7)


torch.library.register_autograd(attend, _backward_of_attend, setup_context=_keep_for_attend)


@operator(
    "accumulate_triton",
    "default",
    "(Tensor attention, Tensor last_edge, Tensor value, Tensor axes, Tensor length, Tensor direction, "
    f"Tensor is_self, {_ENDS}, {_BASIS}) -> (Tensor, Tensor)",
)
def accumulate(
    attention: Tensor, last_edge: Tensor, value: Tensor, axes: Tensor, length: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """For each atom and head: attended values (d_head); attended Gaussians and polynomials (n_centers + 3 · degree)."""
    direction, is_self, *ends, n_centers, spacing, sharpness, degree = rest
    e = _Ends(*ends)
    n_atoms, n_heads, d_head = len(last_edge), *value.shape[1:]
    values, sums = value.new_empty(n_atoms, n_heads, d_head), value.new_empty(n_atoms, n_heads, n_centers + 3 * degree)
    sizes = {"N_CENTERS": n_centers, "CENTERS": _padded(n_centers), "DEGREE": degree, "DEGREES": _padded(degree)}
    inputs = (attention, value, axes, length, direction, is_self, e.key_atom, e.first_edge, last_edge)
    numbers = (n_heads, spacing, sharpness)
    _launch(triton_kernels.accumulate, n_atoms, *inputs, values, sums, *numbers, **_sizes(value), **sizes)
    return values, sums


@torch.library.register_fake(accumulate)
def _(attention: Tensor, last_edge: Tensor, value: Tensor, *rest: Any) -> Any:
    n_atoms, n_sums = last_edge.shape[0], rest[-4] + 3 * rest[-1]
    return value.new_empty(n_atoms, *value.shape[1:]), value.new_empty(n_atoms, value.shape[1], n_sums)


@operator(
    "accumulate_backward_triton",
    "default",
    "(Tensor grad_values, Tensor grad_sums, Tensor attention, Tensor last_edge, Tensor value, Tensor axes, "
    f"Tensor length, Tensor direction, Tensor is_self, {_ENDS}, {_BASIS}) -> (Tensor, Tensor)",
)
def accumulate_backward(
    grad_values: Tensor, grad_sums: Tensor, attention: Tensor, last_edge: Tensor, value: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """Gradients of the weights, up to the last edge of each atom, and of the values."""
    *geometry, n_centers, spacing, sharpness, degree = rest
    e = _Ends(*geometry[4:])
    n_atoms, n_heads = len(last_edge), value.shape[1]
    grad_attention, grad_value = torch.empty_like(attention), value.new_empty(value.shape)
    grad_cosines = rearrange(grad_sums[..., n_centers:], "n h (k m) -> n m k h", k=3)
    sizes = {"N_CENTERS": n_centers, "CENTERS": max(_padded(n_centers), 8), "DEGREE": degree, "ROW": 3 * n_heads}
    inputs = (grad_values, grad_sums[..., :n_centers], grad_cosines, value, *geometry[:4])
    numbers = (n_heads, spacing, sharpness)
    edges = (e.key_atom, e.first_edge, last_edge)
    common = _sizes(value)
    _launch(triton_kernels.accumulate_backward, n_atoms, *inputs, *edges, grad_attention, *numbers, **common, **sizes)
    inputs = (attention, grad_values, e.query_atom, e.incoming, e.first_incoming)
    _launch(triton_kernels.gather_to_keys, len(value), *inputs, grad_value, n_heads, 1.0, **common)
    return grad_attention, grad_value


@torch.library.register_fake(accumulate_backward)
def _(a: Tensor, b: Tensor, attention: Tensor, last_edge: Tensor, value: Tensor, *_: Any) -> Any:
    return torch.empty_like(attention), value.new_empty(value.shape)


has_no_gradient(accumulate_backward)


def _keep_for_accumulate(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:-4])
    ctx.numbers = inputs[-4:]


def _backward_of_accumulate(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    of_attention, of_value = accumulate_backward(*gradients, *ctx.saved_tensors, *ctx.numbers)
    return (of_attention, None, of_value, *[None] * 13)


torch.library.register_autograd(accumulate, _backward_of_accumulate, setup_context=_keep_for_accumulate)


@operator(
    "max_frames_triton",
    "default",
    "(Tensor logits, Tensor attention, Tensor length, Tensor direction, Tensor is_self, Tensor first_edge, "
    "Tensor seed, bool nearest, bool by_sine, bool both_hands, float noise, float margin, bool trains) -> Tensor",
)
def max_frames(
    logits: Tensor,
    attention: Tensor,
    length: Tensor,
    direction: Tensor,
    is_self: Tensor,
    first_edge: Tensor,
    seed: Tensor,
    nearest: bool,
    by_sine: bool,
    both_hands: bool,
    noise: float,
    margin: float,
    trains: bool,
) -> Tensor:
    """(n_atoms, n_heads, 3, 3) axes, by the rule of `maths.frames.max_frames`, or of `static_max_frames` if `nearest`.

    In training, scores get noise of this half-width from streams of the seed, or edges are drawn from the
    weighted sets of this margin. In evaluation, moments choose among the edges within the margin: plain torch does
    that, because there may be few pairs of edges or hundreds.
    """
    n_atoms, n_heads = len(first_edge) - 1, logits.shape[1]
    if margin > 0 and not trains:
        attended = AttendedEdges(_edges_alone(length, direction, is_self, first_edge), logits, attention)
        scores = attended.scores("nearness" if nearest else "attention")
        rule = "sine" if by_sine else "off-line"
        config = FrameConfig(tie_margin=margin, second_axis=rule, both_hands=both_hands)
        return frames_from_edges(attended, scores, config, None).axes.contiguous()
    axes = logits.new_empty(n_atoms, n_heads, 3, 3)
    inputs = (logits, length, direction, is_self, first_edge, seed)
    sizes = {"HEADS": _padded(n_heads), "NOISY": noise > 0, "DRAWN": margin > 0, "BLOCK": BLOCK}
    rules = {"NEAREST": nearest, "SINE": by_sine}
    _launch(triton_frames.max_frames, n_atoms, *inputs, axes, n_heads, noise, margin, **rules, **sizes)
    return axes


def _edges_alone(length: Tensor, direction: Tensor, is_self: Tensor, first_edge: Tensor) -> Edges:
    """Edges without atoms and cells, which frames from single edges do not need."""
    n_atoms = len(first_edge) - 1
    query = torch.repeat_interleave(torch.arange(n_atoms, device=length.device), first_edge.diff())
    return Edges(
        query=query,
        key=query,
        vectors=direction * length[:, None],
        lengths=length,
        directions=direction,
        is_self=is_self,
        positions=length.new_zeros(n_atoms, 3),
        crystal_index=query.new_zeros(n_atoms),
        lattice=length.new_zeros(1, 3, 3),
    )


@torch.library.register_fake(max_frames)
def _(logits: Tensor, *given: Any) -> Tensor:
    first_edge = given[4]
    return logits.new_empty(first_edge.shape[0] - 1, logits.shape[1], 3, 3)


has_no_gradient(max_frames)


@operator(
    "cosines_of_sets_triton",
    "default",
    "(Tensor logits, Tensor attention, Tensor length, Tensor direction, Tensor is_self, Tensor first_edge, "
    "bool nearest, bool by_sine, float margin, int degree) -> Tensor",
)
def cosines_of_sets(
    logits: Tensor,
    attention: Tensor,
    length: Tensor,
    direction: Tensor,
    is_self: Tensor,
    first_edge: Tensor,
    nearest: bool,
    by_sine: bool,
    margin: float,
    degree: int,
) -> Tensor:
    """(n_atoms, n_heads, 3 · degree) attended polynomials of the cosines, summed over weighted sets of frames."""
    n_atoms, n_heads = len(first_edge) - 1, logits.shape[1]
    moments = logits.new_zeros(n_atoms, n_heads, 3 * degree)
    inputs = (logits, attention, length, direction, is_self, first_edge)
    sizes = {"DEGREE": degree, "DEGREES": _padded(degree), "MOST": MOST_AXES, "BLOCK": BLOCK_OF_SETS}
    rules = {"NEAREST": nearest, "SINE": by_sine}
    _launch(triton_ties.cosines_of_sets, n_atoms * n_heads, *inputs, moments, n_heads, margin, **rules, **sizes)
    return moments


@torch.library.register_fake(cosines_of_sets)
def _(logits: Tensor, *given: Any) -> Tensor:
    first_edge, degree = given[4], given[-1]
    return logits.new_empty(first_edge.shape[0] - 1, logits.shape[1], 3 * degree)


has_no_gradient(cosines_of_sets)


@operator("segment_sums_triton", "default", "(Tensor values, Tensor segment, Tensor first) -> Tensor")
def segment_sums(values: Tensor, segment: Tensor, first: Tensor) -> Tensor:
    """(n_segments, n_columns) sums of the rows of each segment, which are those from `first` of it to that of the next.

    Each column is added up in the order of the rows. Rows that lie in no segment count nowhere.
    """
    n_segments, n_columns = len(first) - 1, values.shape[1]
    sums = values.new_empty(n_segments, n_columns)
    sizes = {"N_COLUMNS": n_columns, "COLUMNS": _padded(n_columns), "BLOCK": ROWS}
    _launch(triton_kernels.segment_sums, n_segments, values, first, sums, **sizes)
    return sums


@torch.library.register_fake(segment_sums)
def _(values: Tensor, segment: Tensor, first: Tensor) -> Tensor:
    return values.new_empty(first.shape[0] - 1, values.shape[1])


def _keep_segments(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _backward_of_segment_sums(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    (segment,) = ctx.saved_tensors
    return gradient[segment], None, None


torch.library.register_autograd(segment_sums, _backward_of_segment_sums, setup_context=_keep_segments)
