"""What the layers do, in numbers: how wide, how far and along which axes each head of each atom looks.

Every measure is an array over layers, heads and atoms, straight from a trace. Heads of different layers are different
functions with nothing in common but their number, so no measure pairs head h of one layer with head h of the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from crystalframer.traces import CrystalTrace, LayerTrace
from viz.scene import FRAME_TIE
from viz.text import atom_names, crystal_name

if TYPE_CHECKING:
    import pandas as pd

ANCHORED = ("max", "static-max")
"""Frame methods whose axes are fixed by two anchor edges."""
N_DIRECTIONS = 1000
"""Directions over which the chance level of a turn is averaged: to 0.2° for eight axes."""


def effective_neighbors(trace: CrystalTrace) -> Float[np.ndarray, "n_layers n_heads n_queries"]:
    """Among how many edges each atom divides its attention: exp(H), H = -Σ a ln a the entropy in nats.

    1 when all goes to one atom, n when it is equal over n. Images of one atom count one by one, and so does the atom
    itself. The number is easier to read than H: 6 for an octahedron, whatever the number of edges within the radius.

    Example:
        >>> effective_neighbors(trace).shape == (trace.n_layers, trace.n_heads, trace.n_queries)
        True
        >>> bool((effective_neighbors(trace) >= 1).all())
        True
    """

    def entropy(layer: LayerTrace) -> Float[np.ndarray, "n_heads n_queries"]:
        # a ln a → 0 as a → 0; the attention of far edges underflows to 0.
        logs = np.log(layer.attention, out=np.zeros_like(layer.attention), where=layer.attention > 0)
        return -_sum_over_edges(trace, layer.attention * logs)

    return np.exp(np.stack([entropy(layer) for layer in trace.layers]))


def self_attention_share(trace: CrystalTrace) -> Float[np.ndarray, "n_layers n_heads n_queries"]:
    """Attention that each atom pays to itself (its edge of length 0), between 0 and 1.

    Example:
        >>> bool((self_attention_share(trace) < 1).all())
        True
    """
    itself = _is_self(trace)[:, None]
    return np.stack([_sum_over_edges(trace, layer.attention * itself) for layer in trace.layers])


def attended_distance(trace: CrystalTrace) -> Float[np.ndarray, "n_layers n_heads n_queries"]:
    """Attention-weighted mean length of each atom's edges to others, Å: Σ a r / Σ a without the atom itself.

    What stays on the atom is left out, for it would mix how far an atom looks with how much it looks away at all
    (`self_attention_share`). NaN where everything stays on the atom.

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
    """σᵢ, Å: the width of the Gaussian exp(-r²/2σᵢ²) that damps attention with distance, before the content has a say.

    Example:
        >>> bool((decay_lengths(trace) > 0).all())
        True
    """
    return np.stack([layer.decay_length.T for layer in trace.layers])


def anchor_distances(trace: CrystalTrace) -> Float[np.ndarray, "n_layers n_heads n_queries 2"]:
    """Lengths of the edges that fixed e₁ and e₂, Å: how near the neighbours are that a frame holds on to.

    Raises:
        ValueError: the frame method has no anchor edges (only `max` and `static-max` do).

    Example:
        >>> e1, e2 = anchor_distances(trace)[0, 3, 1]  # of layer 0, head 3, atom 1
        >>> bool(min(e1, e2) >= nearest_distance(trace)[1])
        True
    """
    lengths = trace.edge_lengths
    distances = []
    for layer in trace.layers:
        if layer.frame is None or layer.frame.anchor_edges is None:
            method = layer.frame.method if layer.frame else "none"
            raise ValueError(
                f"{crystal_name(trace)}: frames of method {method!r} have no anchor edges; trace a model with the "
                f"frame method {' or '.join(ANCHORED)}, or look at attended_distance"
            )
        distances.append(lengths[layer.frame.anchor_edges].swapaxes(0, 1))
    return np.stack(distances)


def nearest_distance(trace: CrystalTrace) -> Float[np.ndarray, " n_queries"]:
    """From each atom to its nearest neighbour, Å: the ruler beside the other distances.

    Example:
        >>> nearest_distance(trace).round(2).tolist()  # SrTiO3: Sr–O is a/√2, Ti–O is a/2
        [2.76, 1.95, 1.95, 1.95, 1.95]
    """
    nearest = np.full(trace.n_queries, np.inf)
    others = ~_is_self(trace)
    np.minimum.at(nearest, trace.edge_index[0][others], trace.edge_lengths[others])
    return nearest


def axis_turns(trace: CrystalTrace) -> Float[np.ndarray, "n_turns n_heads n_queries"]:
    """Angle from e₁ of each head to the nearest e₁ of any head of the layer before, degrees; n_turns = n_layers - 1.

    0 where the axis was there already, whichever head had it. An axis that is one choice among equals counts as all
    of them: for `max` and `static-max` every edge whose score ties with the anchor's, for other methods both signs (and
    where two eigenvalues of a PCA are equal, its axes are arbitrary and so is this angle). Without that, which of
    six equal bonds the tie rule happened to take would show as a turn of 90°. More heads leave less room for a
    turn: compare with `chance_turns`.

    Raises:
        ValueError: the trace has no frames.

    Example:
        >>> turns = axis_turns(trace)
        >>> turns.shape == (trace.n_layers - 1, trace.n_heads, trace.n_queries)
        True
    """
    turns = np.full((trace.n_layers - 1, trace.n_heads, trace.n_queries), np.nan)
    for later in range(1, trace.n_layers):
        before = _first_axes(trace, later - 1)
        for atom, known in enumerate(before):
            frame = trace.layers[later].frame
            assert frame is not None  # one method for all layers; _first_axes saw to it
            turns[later - 1, :, atom] = _angle_to_nearest(frame.axes[atom, :, 0], known)
    return turns


def chance_turns(trace: CrystalTrace) -> Float[np.ndarray, "n_turns n_queries"]:
    """`axis_turns` of an axis that points anywhere with equal chance: its mean over the sphere, degrees.

    Turns below it say that layers keep axes; turns like it say that a layer's axes have nothing to do with those
    before. Axes of `max` frames point to atoms, so a low turn also says that a site has few neighbours to choose from.

    Raises:
        ValueError: the trace has no frames.

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
    """All measures as one table with a row for each layer, head and atom.

    Columns: `layer`, `head`, `atom` (counted from 0), `label` (`Ti1`), `effective_neighbors`, `self_attention_share`,
    `attended_distance`, `decay_length`, `nearest_distance` (Å); with frames also `axis_turn`, `chance_turn` (degrees,
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
    """Over the edges of each query atom."""
    query = trace.edge_index[0]
    return np.stack([np.bincount(query, column, minlength=trace.n_queries) for column in values.T])


def _first_axes(trace: CrystalTrace, layer: int) -> list[Float[np.ndarray, "n_axes 3"]]:
    """For each atom, e₁ of all heads of a layer, with all equals of each.

    Equals by symmetry of the site are an orbit of its point group. The group maps the whole set onto itself, so it does
    not matter from which of the equals of a later axis its angle to the set is taken.
    """
    record = trace.layers[layer]
    if record.frame is None:
        raise ValueError(f"{crystal_name(trace)}: no frames (method none), so no axes; trace a model with frames")
    if record.frame.method not in ANCHORED:
        axes = record.frame.axes[:, :, 0]
        return list(np.concatenate([axes, -axes], axis=1))
    if record.frame.method == "max":
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


def _angle_to_nearest(
    axes: Float[np.ndarray, "n_axes 3"], known: Float[np.ndarray, "n_known 3"]
) -> Float[np.ndarray, " n_axes"]:
    """Degrees; from the length of the chord, which is exact for small angles where the cosine is not."""
    closest = known[np.argmax(axes @ known.T, axis=1)]
    half = np.linalg.norm(axes - closest, axis=1) / 2
    return np.degrees(2 * np.arcsin(np.clip(half, 0.0, 1.0)))


def _sphere(n: int) -> Float[np.ndarray, "n 3"]:
    """Directions spread evenly over the sphere on a golden spiral."""
    z = 1 - (2 * np.arange(n) + 1) / n
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(n)
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)
