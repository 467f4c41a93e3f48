"""Colours and element facts that every picture shares.

Colour never carries a meaning alone: the axes also have the labels e₁, e₂, e₃ (and x, y, z order), attention also has
line width, so the pictures can be read in grey and by colour-blind readers.
"""

from __future__ import annotations

from dataclasses import dataclass

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

# Symbol, single-bond covalent radius in Å (Cordero 2008, doi 10.1039/b801115j; Bk and Cf, which it lacks: Pyykkö 2009,
# doi 10.1002/chem.200800987), colour by the CPK convention of Jmol. Row by row, Z = 1 first.
_FACTS = """
H 0.31 FFFFFF; He 0.28 D9FFFF; Li 1.28 CC80FF; Be 0.96 C2FF00; B 0.84 FFB5B5; C 0.76 909090; N 0.71 3050F8
O 0.66 FF0D0D; F 0.57 90E050; Ne 0.58 B3E3F5; Na 1.66 AB5CF2; Mg 1.41 8AFF00; Al 1.21 BFA6A6; Si 1.11 F0C8A0
P 1.07 FF8000; S 1.05 FFFF30; Cl 1.02 1FF01F; Ar 1.06 80D1E3; K 2.03 8F40D4; Ca 1.76 3DFF00; Sc 1.70 E6E6E6
Ti 1.60 BFC2C7; V 1.53 A6A6AB; Cr 1.39 8A99C7; Mn 1.39 9C7AC7; Fe 1.32 E06633; Co 1.26 F090A0; Ni 1.24 50D050
Cu 1.32 C88033; Zn 1.22 7D80B0; Ga 1.22 C28F8F; Ge 1.20 668F8F; As 1.19 BD80E3; Se 1.20 FFA100; Br 1.20 A62929
Kr 1.16 5CB8D1; Rb 2.20 702EB0; Sr 1.95 00FF00; Y 1.90 94FFFF; Zr 1.75 94E0E0; Nb 1.64 73C2C9; Mo 1.54 54B5B5
Tc 1.47 3B9E9E; Ru 1.46 248F8F; Rh 1.42 0A7D8C; Pd 1.39 006985; Ag 1.45 C0C0C0; Cd 1.44 FFD98F; In 1.42 A67573
Sn 1.39 668080; Sb 1.39 9E63B5; Te 1.38 D47A00; I 1.39 940094; Xe 1.40 429EB0; Cs 2.44 57178F; Ba 2.15 00C900
La 2.07 70D4FF; Ce 2.04 FFFFC7; Pr 2.03 D9FFC7; Nd 2.01 C7FFC7; Pm 1.99 A3FFC7; Sm 1.98 8FFFC7; Eu 1.98 61FFC7
Gd 1.96 45FFC7; Tb 1.94 30FFC7; Dy 1.92 1FFFC7; Ho 1.92 00FF9C; Er 1.89 00E675; Tm 1.90 00D452; Yb 1.87 00BF38
Lu 1.87 00AB24; Hf 1.75 4DC2FF; Ta 1.70 4DA6FF; W 1.62 2194D6; Re 1.51 267DAB; Os 1.44 266696; Ir 1.41 175487
Pt 1.36 D0D0E0; Au 1.36 FFD123; Hg 1.32 B8B8D0; Tl 1.45 A6544D; Pb 1.46 575961; Bi 1.48 9E4FB5; Po 1.40 AB5C00
At 1.50 754F45; Rn 1.50 428296; Fr 2.60 420066; Ra 2.21 007D00; Ac 2.15 70ABFA; Th 2.06 00BAFF; Pa 2.00 00A1FF
U 1.96 008FFF; Np 1.90 0080FF; Pu 1.87 006BFF; Am 1.80 545CF2; Cm 1.69 785CE3; Bk 1.68 8A4FE3; Cf 1.68 A136D4
"""

# Z of H, He, B to Ne, Si to Ar, Ge to Kr, Sb to Xe, At, Rn.
_NONMETALS = frozenset((1, 2, *range(5, 11), *range(14, 19), *range(32, 37), *range(51, 55), 85, 86))


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
        return self.atomic_number in _NONMETALS

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


def _read_facts(text: str) -> tuple[Element, ...]:
    rows = (entry.split() for entry in text.replace("\n", ";").split(";") if entry.strip())
    # Softened: the pure colours of the convention (Sr is full green) would drown axes and attention lines.
    return tuple(
        Element(z, symbol, float(radius), mix(f"#{color}", "#C8C8C8", 0.3))
        for z, (symbol, radius, color) in enumerate(rows, start=1)
    )


_ELEMENTS = _read_facts(_FACTS)
HIGHEST_ATOMIC_NUMBER = len(_ELEMENTS)


def element(atomic_number: int) -> Element:
    """The element with this Z.

    Raises:
        ValueError: Z outside 1..98.
    """
    if not 1 <= atomic_number <= HIGHEST_ATOMIC_NUMBER:
        raise ValueError(f"atomic number {atomic_number}: pictures know elements 1 (H) to {HIGHEST_ATOMIC_NUMBER} (Cf)")
    return _ELEMENTS[atomic_number - 1]
