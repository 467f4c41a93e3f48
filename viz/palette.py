"""Colours and element data that all pictures share.

Nothing is told by colour alone: the axes also have the labels e₁, e₂, e₃, and attention lines also differ in width. So
the pictures can be read in grey and by colour-blind readers.
"""

from __future__ import annotations

from dataclasses import dataclass

from crystalframer.elements import COLORS, COVALENT_RADII, HIGHEST_ATOMIC_NUMBER, NONMETALS, SYMBOLS
from viz.errors import SceneError

AXIS_COLORS = ("#D55E00", "#009E73", "#0072B2")
"""e₁, e₂, e₃: vermillion, bluish green and blue of the palette of Okabe and Ito."""
AXIS_LABELS = ("e₁", "e₂", "e₃")
AXIS_DASHES = (1, 2, 4)
"""Number of dashes of e₁, e₂, e₃ in still pictures, where most axes have no label and colours may be grey."""
ATTENTION_COLOR = "#CC79A7"
"""Reddish purple of the palette of Okabe and Ito."""
ATTENTION_RAMP = ("#E9C6DB", ATTENTION_COLOR, "#7B2C5A")
"""Weak to strong attention: one hue, darker with more weight."""
SERIES_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
"""Colours of the curves of one figure: the palette of Okabe and Ito."""
SERIES_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
"""Markers of the same curves (plotly names), so that they differ in grey too."""
HEATMAP_SCALE = "Cividis"
"""A scale of even lightness that colour-blind readers see alike."""
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
"""The colours of the same scale, low to high."""
POLYHEDRON_OPACITY = 0.22
CELL_COLOR = "#555555"
RAISES, LOWERS = "#D55E00", "#0072B2"
"""What raises and what lowers a prediction: told apart with colour blindness; signs and sides say it, too."""
INK = "#222222"
PAPER = "#FFFFFF"
"""Background. Distant and weak things are mixed with it."""
NIGHT, NIGHT_INK = "#1B1E23", "#EEEEEE"
"""Background and text of pages where the system is set to dark."""
ASIDE = "#888888"
"""For results that do not count, such as trials that were stopped early."""
PALENESS = 0.7
"""How much of the background is mixed into the axes of frames that change nothing."""
SHADE = "#000000"
"""Edges and shaded sides are mixed with it."""


@dataclass(frozen=True)
class Element:
    """Data of an element that a picture needs."""

    atomic_number: int
    symbol: str
    covalent_radius: float
    """Å."""
    color: str
    """`#RRGGBB`."""

    @property
    def is_nonmetal(self) -> bool:
        """Whether it is a non-metal or metalloid: metals in a compound bond to these."""
        return self.atomic_number in NONMETALS

    @property
    def ball_radius(self) -> float:
        """Radius of the drawn ball, Å: grows with the covalent radius, and leaves bonds and axes visible."""
        return 0.20 + 0.12 * self.covalent_radius


def mix(color: str, other: str, fraction: float) -> str:
    """Mix two colours: `color` for fraction 0, `other` for fraction 1."""
    a, b = (tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (color, other))
    return "#" + "".join(f"{round(x + (y - x) * fraction):02X}" for x, y in zip(a, b, strict=True))


def ramp(colors: tuple[str, ...], fraction: float) -> str:
    """The colour at `fraction` (0 to 1) of a ramp through equally spaced colours."""
    position = min(max(fraction, 0.0), 1.0) * (len(colors) - 1)
    index = min(int(position), len(colors) - 2)
    return mix(colors[index], colors[index + 1], position - index)


# Softened with grey: pure element colours (Sr is bright green) would hide axes and attention lines.
_ELEMENTS = tuple(
    Element(z, SYMBOLS[z - 1], float(COVALENT_RADII[z]), mix(COLORS[z], "#C8C8C8", 0.3))
    for z in range(1, HIGHEST_ATOMIC_NUMBER + 1)
)


def element(atomic_number: int) -> Element:
    """The element with this atomic number.

    Raises:
        SceneError: the atomic number is not between 1 and 98.
    """
    if not 1 <= atomic_number <= HIGHEST_ATOMIC_NUMBER:
        raise SceneError(
            f"no element with atomic number {atomic_number}; pictures know 1 (H) to {HIGHEST_ATOMIC_NUMBER} (Cf)",
            field="atomic_number",
            value=atomic_number,
        )
    return _ELEMENTS[atomic_number - 1]
