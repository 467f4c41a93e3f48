"""The frame methods and what each promises: the one table that all other modules ask.

To add a method, write a row here and its formula in `crystalframer.maths.frames.FORMULAS`. A kernel in
`crystalframer.ops` is optional: without one, plain torch computes the formula on every device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

Strength = Literal["attention", "nearness"]


@dataclass(frozen=True)
class FramePromises:
    """What other modules may rely on. No field has a default, so that a new method answers every question."""

    axes: Literal["orthogonal", "oblique"] | None
    """How the three axes stand to each other. None: atoms have no frames, and attention sees distances only."""
    sees_cell: bool
    """Predictions depend on the choice of the cell, and not on the crystal alone."""
    noisy: bool
    """In training, noise chooses among frames that tie. False: noise changes nothing."""
    anchored_by: Strength | None
    """Two edges fix the axes: the strongest one, and the strongest one off its line (`ties.strongest_pair`). They are
    strongest in attention, or in nearness (-r²). None: the axes follow another rule."""
    hand_axis: int | None
    """The axis whose sign only the hand of the frame fixes (`FrameConfig.both_hands`). None: there is none."""
    kernels: tuple[Literal["cpu", "cuda"], ...]
    """Devices on which a kernel builds the frames. Elsewhere the formula in plain torch does."""
    recordable: bool
    """A CUDA graph can record it: all batches of one size need the same kernels, and no number is read from the GPU."""
    memory: int
    """Bytes that the formula in plain torch takes for each edge and head, in addition to the attention."""
    operations: int
    """Least number of arithmetic operations for each edge and head (see `benchmarks/floor.py`)."""

    @property
    def has_weighted_sets(self) -> bool:
        """Frames can be weighted sets (`FrameConfig.weighted_margin`)."""
        return self.anchored_by is not None


# `max`: the largest weight is 1 operation, and of weight × (1 - |cosine|) 8. `weighted-pca`: six second moments.
# `static-max` chooses once for all heads and layers, `pca` and `lattice` once for each crystal.
_BOTH: tuple[Literal["cpu", "cuda"], ...] = ("cpu", "cuda")
PROMISES: Mapping[str, FramePromises] = {
    #                             axes          sees_cell  noisy  anchored_by  hand  kernels  recordable  memory  ops
    "max":          FramePromises("orthogonal", False,     True,  "attention", 2,    _BOTH,   True,       0,      9),
    "weighted-pca": FramePromises("orthogonal", False,     True,  None,        0,    (),      False,      130,    12),
    "static-max":   FramePromises("orthogonal", False,     True,  "nearness",  2,    _BOTH,   True,       0,      0),
    "pca":          FramePromises("orthogonal", True,      True,  None,        0,    (),      False,      130,    0),
    "lattice":      FramePromises("oblique",    True,      False, None,        None, (),      False,      0,      0),
    "none":         FramePromises(None,         False,     False, None,        None, (),      True,       0,      0),
}  # fmt: skip
"""Name → promises. `none` is the model without frames (Crystalformer)."""

if TYPE_CHECKING:
    FrameMethod: TypeAlias = str
else:
    FrameMethod = Literal[tuple(PROMISES)]
"""A name of the table: type of a setting, and of an option on the command line."""

FRAME_METHODS: tuple[FrameMethod, ...] = tuple(PROMISES)
ANCHORED: tuple[FrameMethod, ...] = tuple(name for name, promises in PROMISES.items() if promises.anchored_by)
NO_FRAMES: FrameMethod = "none"
"""The method of a layer that has no frames."""
