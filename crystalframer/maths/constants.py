"""Numbers that formulas and kernels share. Nothing here needs torch."""

from __future__ import annotations

SELF_LENGTH = 1e-2
"""Å: shorter edges join an atom to itself; they have no direction (the authors' d² <= 1e-5 Å²)."""

# --- how attention falls with distance: see `maths.envelope` ----------------------------------------------------------

WHOLE = 0.8
"""Share of the squared reach up to which the envelope is 1."""
SMALLEST_REST = 1e-6
"""Rounding of the envelope's argument, for kernels."""
NEGLIGIBLE = 1e-7
"""Attention below which kernels leave out the last edges of an atom, if heads have a reach: each less than rounding."""

# --- frames and ties: see `maths.ties` --------------------------------------------------------------------------------

COLLINEAR = 0.9999
"""|cosine| to the first axis above which an edge cannot set the second."""
SMALLEST_SINE_SCORE = 1e-5
SMALLEST_SINE = 1e-6
"""An edge that is closer to the line of e₁ is on it, but for rounding."""
SMALLEST_SQUARED_SINE = 1e-30
"""Lower bound of sin² θ, so that an edge on the line of e₁ has a score."""
ONE_LINE = 1e-6
"""Unit vectors that differ by less are one axis, along which kernels sum moments once."""
TIE_WEIGHTS = (
    (1.00, 0.38, 0.47, 0.29, 0.21),
    (0.31, 0.12, 0.19, 0.10, 0.14),
    (0.13, 0.05, 0.11, 0.08, 0.06),
)
"""Weights of the five moments along e₁, e₂ and e₃ that decide ties. Any numbers without simple ratios would do."""
UNIFORM_STEP = 2.0**-25
"""Half the step between random numbers, so that none is 0."""
LARGEST_UNIFORM = 1.0 - 2.0**-24
"""The largest number below 1 in float32, so that no logarithm is 0."""
EQUIVALENT = 1e-6
"""Frames whose moments differ by less are equivalent for the head, and the first of them is taken."""

# --- noise of training: see `maths.frames` ----------------------------------------------------------------------------

MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
"""Factors of a 32-bit hash: xor-shift by 16, multiply, by 15, multiply, by 16 (C. Wellons, hash-prospector)."""
