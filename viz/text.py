"""Words that several pictures share, so that one thing has one name in all of them."""

from __future__ import annotations

from viz.scene import Scene

ATTENTION = "attention"
DISTANCE = "distance (Å)"


def which_head(head: int | None) -> str:
    """`head 3`, or that it is the mean."""
    return "mean of all heads" if head is None else f"head {head}"


def where(layer: int, head: int | None) -> str:
    """`layer 0, head 3`, for titles."""
    return f"layer {layer}, {which_head(head)}"


def whose(scene: Scene, atom: int | None) -> str:
    """`Ti1`, for titles."""
    return "Mean over atoms" if atom is None else scene.labels[atom]
