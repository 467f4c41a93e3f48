"""Measures of attention and frames, for each layer, head and atom of a trace.

Heads with the same number in different layers are not related, so no measure compares head h of one layer with head h
of the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from crystalframer.frame_methods import ANCHORED, PROMISES
from crystalframer.traces import CrystalTrace, FrameSets, LayerTrace
from viz.errors import FigureError, no_frames
from viz.scene import FRAME_TIE
from viz.text import atom_names, crystal_name

if TYPE_CHECKING:
    import pandas as pd

N_DIRECTIONS = 1000
"""Number of directions for the mean angle of random axes; exact to 0.2° for eight axes."""
SMALLEST_SHARE = 0.1
"""First axes of a weighted set with a smaller share of the largest weight are not axes of a layer."""


def effective_neighbors(trace: CrystalTrace) -> Float[np.ndarray, "n_layers n_heads n_queries"]:
    """Effective number of neighbours exp(H) of each atom, where H = -Σ a ln a is the entropy of its attention a.

    It is 1 if all attention goes to one neighbour, and n if attention is equal over n neighbours: 6 for an octahedron.
    Periodic images of an atom count separately, and the atom itself counts too.

    Args:
        trace: the trace of a crystal.

    Example:
        >>> effective_neighbors(trace).shape == (trace.n_layers, trace.n_heads, trace.n_queries)
        True
        >>> bool((effective_neighbors(trace) >= 1).all())
        True
    """

    def entropy(layer: LayerTrace) -> Float[np.ndarray, "n_heads n_queries"]:
        # a ln a is 0 for a = 0; the attention of distant neighbours underflows to 0.
        logs = np.log(layer.attention, out=np.zeros_like(layer.attention), where=layer.attention > 0)
        return -_sum_over_edges(trace, layer.attention * logs)

    return np.exp(np.stack([entropy(layer) for layer in trace.layers]))


def self_attention_share(trace: CrystalTrace) -> Float[np.ndarray, "n_layers n_heads n_queries"]:
    """Attention of each atom to itself (its edge of length 0), between 0 and 1.

    Args:
        trace: the trace of a crystal.

    Example:
        >>> bool((self_attention_share(trace) < 1).all())
        True
    """
    itself = _is_self(trace)[:, None]
    return np.stack([_sum_over_edges(trace, layer.attention * itself) for layer in trace.layers])


def attended_distance(trace: CrystalTrace) -> Float[np.ndarray, "n_layers n_heads n_queries"]:
    """Mean distance to the neighbours of each atom, weighted by attention, Å: Σ a r / Σ a without the atom itself.

    Attention to the atom itself is left out (see `self_attention_share`). The result is NaN if there is no other.

    Args:
        trace: the trace of a crystal.

    Example:
        >>> bool((attended_distance(trace) >= trace.edge_lengths[trace.edge_lengths > 0].min()).all())
        True
    """
    lengths, others = trace.edge_lengths[:, None], ~_is_self(trace)[:, None]

    def mean(layer: LayerTrace) -> Float[np.ndarray, "n_heads n_queries"]:
        total = _sum_over_edges(trace, layer.attention * others)
        weighted = _sum_over_edges(trace, layer.attention * lengths)
        return np.divide(weighted, total, out=np.full_like(total, np.nan), where=total > 0)

    return np.stack([mean(layer) for layer in trace.layers])


def decay_lengths(trace: CrystalTrace) -> Float[np.ndarray, "n_layers n_heads n_queries"]:
    """Decay length σᵢ of each atom, Å: attention is damped with distance r by the Gaussian exp(-r²/2σᵢ²).

    Args:
        trace: the trace of a crystal.

    Example:
        >>> bool((decay_lengths(trace) > 0).all())
        True
    """
    return np.stack([layer.decay_length.T for layer in trace.layers])


def anchor_distances(trace: CrystalTrace) -> Float[np.ndarray, "n_layers n_heads n_queries 2"]:
    """Lengths of the edges that define e₁ and e₂ (the anchor edges), Å. Of a weighted set of frames: the mean.

    Args:
        trace: the trace of a crystal.

    Raises:
        FigureError: the frame method has no anchor edges (only `max` and `static-max` have).

    Example:
        >>> e1, e2 = anchor_distances(trace)[0, 3, 1]  # layer 0, head 3, atom 1
        >>> bool(min(e1, e2) >= nearest_distance(trace)[1])
        True
    """
    lengths = trace.edge_lengths
    distances = []
    for layer in trace.layers:
        if layer.frame is None or layer.frame.anchor_edges is None:
            raise FigureError(
                f"{crystal_name(trace)}: frames of method {layer.frame_method!r} have no anchor edges; use a model "
                f"with the frame method {' or '.join(ANCHORED)}, or use attended_distance",
                field="frame_method",
                value=layer.frame_method,
            )
        sets = layer.frame.sets
        mean = sets.mean(lengths[sets.anchor_edges])
        distances.append(mean.reshape(trace.n_queries, trace.n_heads, 2).swapaxes(0, 1))
    return np.stack(distances)


def nearest_distance(trace: CrystalTrace) -> Float[np.ndarray, " n_queries"]:
    """Distance from each atom to its nearest neighbour, Å.

    Args:
        trace: the trace of a crystal.

    Example:
        >>> nearest_distance(trace).round(2).tolist()  # SrTiO3: Sr–O is a/√2, Ti–O is a/2
        [2.76, 1.95, 1.95, 1.95, 1.95]
    """
    nearest = np.full(trace.n_queries, np.inf)
    others = ~_is_self(trace)
    np.minimum.at(nearest, trace.edge_index[0][others], trace.edge_lengths[others])
    return nearest


def axis_turns(trace: CrystalTrace) -> Float[np.ndarray, "n_turns n_heads n_queries"]:
    """Angle from e₁ of each head to the nearest e₁ of any head of the previous layer, degrees; n_turns = n_layers - 1.

    The angle is 0 if any head of the previous layer had the same axis. Axes that tie count as one: for `max` and
    `static-max` every edge whose score ties with that of the anchor, for other methods both signs of the axis.
    Otherwise the choice among six equal bonds would look like a rotation by 90°. Where frames are weighted sets, the
    angle is the mean over the frames of a set, and the axes of the previous layer are those with at least a tenth of
    the largest weight. (If two eigenvalues of a PCA are equal, its axes and this angle are arbitrary.) The more heads
    there are, the smaller the angle is by chance: compare with `chance_turns`.

    Args:
        trace: the trace of a crystal.

    Raises:
        FigureError: the trace has no frames.

    Example:
        >>> turns = axis_turns(trace)
        >>> turns.shape == (trace.n_layers - 1, trace.n_heads, trace.n_queries)
        True
    """
    turns = np.full((trace.n_layers - 1, trace.n_heads, trace.n_queries), np.nan)
    for later in range(1, trace.n_layers):
        before = _first_axes(trace, later - 1)
        frame = trace.layers[later].frame
        assert frame is not None  # one method for all layers; _first_axes saw to it
        for atom, known in enumerate(before):
            sets = frame.sets.part(atom * trace.n_heads, (atom + 1) * trace.n_heads)
            turns[later - 1, :, atom] = sets.mean(_angle_to_nearest(sets.axes[:, 0], known))
    return turns


def chance_turns(trace: CrystalTrace) -> Float[np.ndarray, "n_turns n_queries"]:
    """Mean of `axis_turns` for an axis in a random direction, degrees.

    Smaller angles in `axis_turns` mean that layers keep axes; similar angles mean that the axes of a layer are not
    related to those of the previous layer. Axes of `max` frames point to atoms, so the angle is also small if a site
    has few neighbours to choose from.

    Args:
        trace: the trace of a crystal.

    Raises:
        FigureError: the trace has no frames.

    Example:
        >>> bool((chance_turns(trace) > 0).all())
        True
    """
    sphere = _sphere(N_DIRECTIONS)
    return np.array(
        [
            [_angle_to_nearest(sphere, known).mean() for known in _first_axes(trace, layer)]
            for layer in range(trace.n_layers - 1)
        ]
    ).reshape(trace.n_layers - 1, trace.n_queries)


def layer_table(trace: CrystalTrace) -> pd.DataFrame:
    """All measures in one table with a row for each layer, head and atom.

    Args:
        trace: the trace of a crystal.

    Returns:
        Columns `layer`, `head`, `atom` (counted from 0), `label` (`Ti1`), `effective_neighbors`,
        `self_attention_share`, `attended_distance`, `decay_length`, `nearest_distance` (Å); with frames also `dead`
        (whether the frame changes nothing, see `CrystalTrace.dead_frames`), `axis_turn`, `chance_turn` (degrees,
        missing in layer 0); with anchor edges also `anchor_distance_1`, `anchor_distance_2` (Å).

    Example:
        >>> table = layer_table(trace)
        >>> far = table.groupby("layer").attended_distance.median()
        >>> len(far) == trace.n_layers
        True
    """
    import pandas as pd

    shape = (trace.n_layers, trace.n_heads, trace.n_queries)
    labels = np.array(atom_names(trace))
    layer, head, atom = np.indices(shape)
    columns = {
        "layer": layer,
        "head": head,
        "atom": atom,
        "label": labels[atom],
        "effective_neighbors": effective_neighbors(trace),
        "self_attention_share": self_attention_share(trace),
        "attended_distance": attended_distance(trace),
        "decay_length": decay_lengths(trace),
        "nearest_distance": np.broadcast_to(nearest_distance(trace), shape),
    }
    frame = trace.layers[0].frame
    if frame is not None:
        first = np.full((1, *shape[1:]), np.nan)
        chance = np.broadcast_to(chance_turns(trace)[:, None], (shape[0] - 1, *shape[1:]))
        columns |= {
            "dead": trace.dead_frames,
            "axis_turn": np.concatenate([first, axis_turns(trace)]),
            "chance_turn": np.concatenate([first, chance]),
        }
    if frame is not None and frame.anchor_edges is not None:
        anchors = anchor_distances(trace)
        columns |= {"anchor_distance_1": anchors[..., 0], "anchor_distance_2": anchors[..., 1]}
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


def _is_self(trace: CrystalTrace) -> Bool[np.ndarray, " n_edges"]:
    query, key = trace.edge_index
    return (query == key) & (trace.edge_image == 0).all(axis=1)


def _sum_over_edges(
    trace: CrystalTrace, values: Float[np.ndarray, "n_edges n_heads"]
) -> Float[np.ndarray, "n_heads n_queries"]:
    """Sum over the edges of each query atom."""
    query = trace.edge_index[0]
    return np.stack([np.bincount(query, column, minlength=trace.n_queries) for column in values.T])


def _first_axes(trace: CrystalTrace, layer: int) -> list[Float[np.ndarray, "n_axes 3"]]:
    """For each atom, e₁ of all heads of a layer, together with all axes that tie with them.

    Axes that tie by symmetry are an orbit of the point group of the site. The group maps the whole set onto itself, so
    the angle from a later axis to the set is the same for all axes that tie with the later one.
    """
    record = trace.layers[layer]
    if record.frame is None:
        raise no_frames(crystal_name(trace))
    if record.frame.members is not None:
        return _first_axes_of_sets(record.frame.members, trace.n_heads)
    if record.frame.method not in ANCHORED:  # a file may hold a method that the table does not have
        axes = record.frame.axes[:, :, 0]
        return list(np.concatenate([axes, -axes], axis=1))
    if PROMISES[record.frame.method].anchored_by == "attention":
        scores = record.content_logits + record.distance_logits
    else:
        scores = np.broadcast_to(-(trace.edge_lengths**2)[:, None], (trace.n_edges, trace.n_heads))
    query, itself = trace.edge_index[0], _is_self(trace)
    scores = np.where(itself[:, None], -np.inf, scores)
    best = np.full((trace.n_queries, trace.n_heads), -np.inf)
    np.maximum.at(best, query, scores)
    chosen = np.flatnonzero(((scores >= best[query] - FRAME_TIE) & ~itself[:, None]).any(axis=1))
    directions = trace.edge_vectors[chosen] / trace.edge_lengths[chosen, None]
    return [directions[query[chosen] == atom] for atom in range(trace.n_queries)]


def _first_axes_of_sets(sets: FrameSets, n_heads: int) -> list[Float[np.ndarray, "n_axes 3"]]:
    """For each atom, e₁ of all frames of its heads, without first axes of little weight."""
    assert sets.anchor_edges is not None  # weighted sets are anchored
    edge = sets.anchor_edges[:, 0].astype(np.int64)
    # Frames that share a first edge are one first axis.
    _, one_of, which = np.unique(sets.set_of_member * (edge.max() + 1) + edge, return_index=True, return_inverse=True)
    weight, owner = np.bincount(which.reshape(-1), sets.weights), sets.set_of_member[one_of]
    largest = np.zeros(len(sets.sizes))
    np.maximum.at(largest, owner, weight)
    counted = one_of[weight >= SMALLEST_SHARE * largest[owner]]
    atom = sets.set_of_member[counted] // n_heads
    return [sets.axes[counted[atom == n], 0] for n in range(len(sets.sizes) // n_heads)]


def _angle_to_nearest(
    axes: Float[np.ndarray, "n_axes 3"], known: Float[np.ndarray, "n_known 3"]
) -> Float[np.ndarray, " n_axes"]:
    """Angles in degrees, from the length of the chord, which is exact for small angles (the cosine is not)."""
    closest = known[np.argmax(axes @ known.T, axis=1)]
    half = np.linalg.norm(axes - closest, axis=1) / 2
    return np.degrees(2 * np.arcsin(np.clip(half, 0.0, 1.0)))


def _sphere(n: int) -> Float[np.ndarray, "n 3"]:
    """Directions distributed evenly over the sphere, on a golden spiral."""
    z = 1 - (2 * np.arange(n) + 1) / n
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(n)
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)
