"""Weighted sets of frames in pictures: the heaviest frame is solid, axes of the others are pale, by their weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from viz.palette import AXIS_LABELS
from viz.scene import Scene

MOST_DRAWN = 64
"""Frames of a set that are drawn at most. Symmetry makes 48 equal, or fewer."""
LEAST_SHARE = 0.05
"""Frames whose weight is a smaller share of the heaviest one's are not drawn."""
EQUAL = 1e-3
"""Weights that differ by a smaller share are called equal."""
SAME_DIRECTION = np.cos(np.radians(2.0))
"""Cosine above which axes of two frames are drawn as one."""
SAME_FRAME = 1e-3
"""Largest difference in the components of the axes of frames that count as one."""
OPACITY = (0.15, 0.5)
"""Of the lightest direction of an axis, and of one that has as much weight as the heaviest."""
LENGTHS = (0.85, 0.7, 0.55)
"""Of e₁, e₂ and e₃, in lengths of the solid axes. In symmetric surroundings axes of several frames lie along one
direction: the shorter ones are thicker, so that all can be seen."""
RADII = (0.8, 0.87, 0.94)
"""Of e₁, e₂ and e₃, in radii of the solid axes: hidden by these, but not by attention lines."""


@dataclass(frozen=True, eq=False)
class OtherAxes:
    """The axes of all frames of a set but the heaviest, without those along its own axes."""

    axis: Int[np.ndarray, " n_axes"]
    """0, 1 or 2: number of the axis."""
    direction: Float[np.ndarray, "n_axes 3"]
    """Unit vectors. Frames that share an axis count once."""
    weight: Float[np.ndarray, " n_axes"]
    """Total weight of the frames with this axis."""
    opacity: Float[np.ndarray, " n_axes"]
    """0 to 1: grows with the weight, relative to the heaviest direction of the axis."""


NO_AXES = OtherAxes(np.empty(0, int), np.empty((0, 3)), np.empty(0), np.empty(0))


def other_axes(scene: Scene, layer: int, head: int, atom: int) -> OtherAxes:
    """The pale axes of one atom; none where its frame changes nothing, or is alone in its set."""
    weights, axes, n_drawn = _frames(scene, layer, head, atom)
    if n_drawn == 1 or scene.dead[layer, head, atom]:
        return NO_AXES
    found = [_spread(weights[:n_drawn], axes[:n_drawn], k, scene) for k in range(3)]
    return OtherAxes(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _frames(
    scene: Scene, layer: int, head: int, atom: int
) -> tuple[Float[np.ndarray, " n_frames"], Float[np.ndarray, "n_frames 3 3"], int]:
    """Weights and axes of the frames of a set, the heaviest first, and how many of them are drawn.

    Other edges may give the same frame, such as two neighbours in one direction: then the weights add up.
    """
    sets = scene.sets[layer]
    members = sets.of(atom * scene.n_heads + head)
    weights, axes = sets.weights[members].astype(np.float64), sets.axes[members].astype(np.float64)
    if len(weights) == 1:
        return weights, axes, 1
    apart = np.abs(axes[:, None] - axes[None]).max(axis=(2, 3))
    weights = np.bincount((apart < SAME_FRAME).argmax(axis=1), weights, len(weights))
    order = np.concatenate([[0], 1 + np.argsort(-weights[1:], kind="stable")])
    order = order[weights[order] > 0]
    return weights[order], axes[order], _n_drawn(weights[order])


def _n_drawn(weights: Float[np.ndarray, " n_frames"]) -> int:
    """How many of the frames are drawn. Frames of equal weight are drawn or left out together."""
    n = most = max(1, min(int((weights >= LEAST_SHARE * weights.max()).sum()), MOST_DRAWN))
    while 1 < n < len(weights) and weights[n] > (1 - EQUAL) * weights[n - 1]:
        n -= 1
    return n if n > 1 else most


def _spread(
    weights: Float[np.ndarray, " n_frames"], axes: Float[np.ndarray, "n_frames 3 3"], axis: int, scene: Scene
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Axis, direction, weight and opacity of each direction of one axis, without that of the first frame."""
    directions = axes[:, axis]
    cosines = directions @ directions.T
    if axis == scene.unsigned_axis:
        cosines = np.abs(cosines)
    first = (cosines > SAME_DIRECTION).argmax(axis=1)
    total = np.bincount(first, weights, len(weights))
    shown = np.flatnonzero((total > 0) & (np.arange(len(total)) > 0) & directions.any(axis=1))
    opacity = np.interp(total[shown] / total.max(), (0.0, 1.0), OPACITY)
    return np.full(len(shown), axis), directions[shown], total[shown], opacity


def axis_labels(scene: Scene) -> tuple[str, ...]:
    """`e₁`, `e₂`, `e₃`, and `±e₃` if it has no direction."""
    return tuple(f"±{label}" if axis == scene.unsigned_axis else label for axis, label in enumerate(AXIS_LABELS))


def frame_text(scene: Scene, layer: int, head: int, atom: int) -> str:
    """What a caption says of the axes of one atom."""
    sentences = [f"Frame method: {scene.method}."]
    has_axes = _has_axes(scene, layer, head)
    if not has_axes[atom].any():
        sentences.append("No neighbour fixes an axis." if scene.frames is not None else "")
    elif scene.dead[layer, head, atom]:
        sentences.append("Its axes are pale: so little attention leaves the atom that they change nothing.")
    elif scene.sets:
        sentences.append(set_text(scene, layer, head, atom))
    if scene.unsigned_axis is not None and has_axes[:, scene.unsigned_axis].any():
        label = AXIS_LABELS[scene.unsigned_axis]
        sentences.append(f"{label} is drawn as a line, because its sign has no meaning in this model.")
    return " ".join(filter(None, sentences))


def _has_axes(scene: Scene, layer: int, head: int) -> Bool[np.ndarray, "n_queries 3"]:
    """Which axes the neighbours of each atom fix: none without neighbours, e₁ alone where they lie on a line."""
    if scene.frames is None:
        return np.zeros((scene.n_queries, 3), bool)
    return scene.frames[layer, head].any(axis=-1)


def set_text(scene: Scene, layer: int, head: int, atom: int) -> str:
    """How the weight is shared among the frames of one atom; empty for a single frame."""
    weights, _, n_drawn = _frames(scene, layer, head, atom)
    if len(weights) == 1:
        return ""
    n_hidden, n_pale = len(weights) - n_drawn, n_drawn - 1
    hidden = "" if not n_hidden else f", {n_hidden} {'is' if n_hidden == 1 else 'are'} not drawn"
    if weights.min() > (1 - EQUAL) * weights.max():
        others = "other is" if len(weights) == 2 else "others are"
        return f"One of {len(weights)} frames of equal weight is solid, the {others} pale{hidden}."
    pale = f", {n_pale} pale {'one' if n_pale == 1 else 'ones'} {weights[1:n_drawn].sum():.0%}" if n_pale else ""
    share = f"{weights[0]:.0%}" if weights[0] >= 0.005 else "less than 1%"
    return f"The solid frame has {share} of the weight{pale}{hidden}."
