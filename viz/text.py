"""Words that several pictures share, so that one thing has one name in all of them."""

from __future__ import annotations

import html

from crystalframer.traces import CrystalTrace
from viz.palette import element
from viz.scene import Scene, atom_labels

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


def literal(text: str) -> str:
    """A name that comes from a file, as plotly shows it letter by letter: it reads tags in texts, links among them."""
    return html.escape(text, quote=False)


def crystal_name(trace: CrystalTrace) -> str:
    """The id of a trace, or how large it is; for titles and messages."""
    return trace.id or f"crystal of {trace.n_atoms} atoms"


def atom_names(trace: CrystalTrace) -> tuple[str, ...]:
    """`Ti1`, `O2`: as the scene of the trace names its atoms."""
    return atom_labels([element(int(z)) for z in trace.atomic_numbers], trace.sites)
