"""Weighted sets of frames in pictures: the heaviest frame is solid, axes of the others are pale, by their weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from viz.palette import AXIS_LABELS
from viz.scene import Scene

MOST_DRAWN = 64
"""Frames of a set that are drawn at most: bcc sites have 48."""
LEAST_SHARE = 0.05
"""Frames whose weight is a smaller share of the heaviest one's are not drawn."""
EQUAL = 1e-3
"""Weights that differ by a smaller share are called equal."""
SAME_DIRECTION = np.cos(np.radians(2.0))
"""Cosine above which axes of two frames are drawn as one."""
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
    weights, axes = _drawn(scene, layer, head, atom)
    if len(weights) == 1 or scene.dead[layer, head, atom]:
        return NO_AXES
    found = [_spread(weights, axes, k, scene) for k in range(3)]
    return OtherAxes(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _drawn(
    scene: Scene, layer: int, head: int, atom: int
) -> tuple[Float[np.ndarray, " n_frames"], Float[np.ndarray, "n_frames 3 3"]]:
    """Weights and axes of the frames of a set that are drawn, the heaviest first."""
    sets = scene.sets[layer]
    members = sets.of(atom * scene.n_heads + head)
    weights, axes = sets.weights[members].astype(np.float64), sets.axes[members].astype(np.float64)
    kept = np.flatnonzero(weights >= LEAST_SHARE * weights[0])[:MOST_DRAWN]
    return weights[kept], axes[kept]


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
    if scene.dead[layer, head, atom]:
        sentences.append("Its axes are pale: so little attention leaves the atom that they change nothing.")
    elif scene.sets:
        sentences.append(set_text(scene, layer, head, atom))
    if scene.unsigned_axis is not None:
        label = AXIS_LABELS[scene.unsigned_axis]
        sentences.append(f"{label} is drawn as a line, because its sign has no meaning in this model.")
    return " ".join(filter(None, sentences))


def set_text(scene: Scene, layer: int, head: int, atom: int) -> str:
    """How the weight is shared among the frames of one atom; empty for a single frame."""
    sets = scene.sets[layer]
    weights = sets.weights[sets.of(atom * scene.n_heads + head)]
    n_pale = len(_drawn(scene, layer, head, atom)[0]) - 1
    n_hidden = len(weights) - 1 - n_pale
    if len(weights) == 1:
        return ""
    hidden = "" if not n_hidden else f", {n_hidden} {'is' if n_hidden == 1 else 'are'} not drawn"
    if weights[-1] > (1 - EQUAL) * weights[0]:
        return f"One of {len(weights)} frames of equal weight is solid, the others are pale{hidden}."
    pale = f", {n_pale} pale {'one' if n_pale == 1 else 'ones'} {weights[1 : n_pale + 1].sum():.0%}" if n_pale else ""
    return f"The solid frame has {weights[0]:.0%} of the weight{pale}{hidden}."
