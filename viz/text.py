"""Words that several pictures share, so that one thing has one name in all of them."""

from __future__ import annotations

import html

import numpy as np

from crystalframer.traces import CrystalTrace
from viz.palette import element
from viz.scene import Scene, atom_labels

ATTENTION = "attention"
DISTANCE = "distance (Å)"


def which_head(head: int | None) -> str:
    """`head 3`, or `mean of all heads` for None."""
    return "mean of all heads" if head is None else f"head {head}"


def where(layer: int, head: int | None) -> str:
    """`layer 0, head 3`, for titles."""
    return f"layer {layer}, {which_head(head)}"


def whose(scene: Scene, atom: int | None) -> str:
    """`Ti1`, or `Mean over atoms` for None; for titles."""
    return "Mean over atoms" if atom is None else scene.labels[atom]


def by_head(n_layers: int, n_heads: int, first_layer: int = 0) -> tuple[list[list[str]], list[str]]:
    """Positions on a plotly axis with heads inside layers, and the name of each position (`layer 0, head 3`)."""
    pairs = [(first_layer + int(layer), int(head)) for layer, head in np.ndindex(n_layers, n_heads)]
    axis = [[f"layer {layer}" for layer, _ in pairs], [str(head) for _, head in pairs]]
    return axis, [where(layer, head) for layer, head in pairs]


def literal(text: str) -> str:
    """A name from a file, escaped: plotly would read tags in it, such as links."""
    return html.escape(text, quote=False)


def crystal_name(trace: CrystalTrace) -> str:
    """The id of a trace, or else its number of atoms; for titles and messages."""
    return trace.id or f"crystal of {trace.n_atoms} atoms"


def atom_names(trace: CrystalTrace) -> tuple[str, ...]:
    """`Ti1`, `O2`, ...: the labels that the scene of this trace has."""
    return atom_labels([element(int(z)) for z in trace.atomic_numbers], trace.sites)
