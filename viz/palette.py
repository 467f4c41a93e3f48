"""Colours and element facts that every picture shares.

Colour never carries a meaning alone: the axes also have the labels e₁, e₂, e₃ (and x, y, z order), attention also has
line width, so the pictures can be read in grey and by colour-blind readers.
"""

from __future__ import annotations

from dataclasses import dataclass

from crystalframer.elements import COLORS, COVALENT_RADII, HIGHEST_ATOMIC_NUMBER, NONMETALS, SYMBOLS

AXIS_COLORS = ("#D55E00", "#009E73", "#0072B2")
"""e₁ (x), e₂ (y), e₃ (z): vermillion, bluish green and blue of Okabe and Ito's palette."""
AXIS_LABELS = ("e₁", "e₂", "e₃")
AXIS_DASHES = (1, 2, 4)
"""Pieces that the shaft of e₁, e₂, e₃ is cut into on paper, where many axes have no label and colours may be grey."""
ATTENTION_COLOR = "#CC79A7"
"""Reddish purple of Okabe and Ito's palette."""
ATTENTION_RAMP = ("#E9C6DB", ATTENTION_COLOR, "#7B2C5A")
"""Weak to strong attention lines: one hue, lightness falls with the weight."""
SERIES_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
"""Curves of one figure, Okabe and Ito's palette."""
SERIES_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
"""Of the same curves, by plotly's names: they tell them apart in grey."""
HEATMAP_SCALE = "Cividis"
"""Uniform in lightness, and the same for the colour-blind."""
HEATMAP_RAMP = (
    "#00224E",
    "#1A386F",
    "#434E6C",
    "#61656F",
    "#7D7C78",
    "#9B9476",
    "#BCAE6C",
    "#DEC958",
    "#FEE838",
)
"""The same scale as colours, low to high."""
POLYHEDRON_OPACITY = 0.22
CELL_COLOR = "#555555"
INK = "#222222"
PAPER = "#FFFFFF"
"""Behind everything; what is far, weak or pale moves towards it."""
ASIDE = "#888888"
"""What is shown but does not count, such as a trial that was stopped."""
SHADE = "#000000"
"""What rims and undersides move towards."""


@dataclass(frozen=True)
class Element:
    """What a picture needs to know of an element."""

    atomic_number: int
    symbol: str
    covalent_radius: float
    """Å."""
    color: str
    """`#RRGGBB`."""

    @property
    def is_nonmetal(self) -> bool:
        """Non-metals and metalloids: the partners that metals bond to in a compound."""
        return self.atomic_number in NONMETALS

    @property
    def ball_radius(self) -> float:
        """Radius of the drawn ball, Å: grows with the element, small enough to see bonds and axes."""
        return 0.20 + 0.12 * self.covalent_radius


def mix(color: str, other: str, fraction: float) -> str:
    """`color` moved towards `other` by `fraction` (0: color, 1: other)."""
    a, b = (tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (color, other))
    return "#" + "".join(f"{round(x + (y - x) * fraction):02X}" for x, y in zip(a, b, strict=True))


def ramp(colors: tuple[str, ...], fraction: float) -> str:
    """The colour at `fraction` (0..1) of a ramp through equally spaced colours."""
    position = min(max(fraction, 0.0), 1.0) * (len(colors) - 1)
    index = min(int(position), len(colors) - 2)
    return mix(colors[index], colors[index + 1], position - index)


# Softened: the pure colours of the convention (Sr is full green) would drown axes and attention lines.
_ELEMENTS = tuple(
    Element(z, SYMBOLS[z - 1], float(COVALENT_RADII[z]), mix(COLORS[z], "#C8C8C8", 0.3))
    for z in range(1, HIGHEST_ATOMIC_NUMBER + 1)
)


def element(atomic_number: int) -> Element:
    """The element with this Z.

    Raises:
        ValueError: Z outside 1..98.
    """
    if not 1 <= atomic_number <= HIGHEST_ATOMIC_NUMBER:
        raise ValueError(f"atomic number {atomic_number}: pictures know elements 1 (H) to {HIGHEST_ATOMIC_NUMBER} (Cf)")
    return _ELEMENTS[atomic_number - 1]
