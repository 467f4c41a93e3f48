"""The one table of elements (symbols, radii, colours) and chemical formulas, without a chemistry library."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

HIGHEST_ATOMIC_NUMBER = 98
"""Californium: the last element of the authors' one-hot input, so the last one that the model knows."""

# Symbol; electronegativity by Pauling (9 for the noble gases that have none, so that they come last in a formula);
# single-bond covalent radius in Å (Cordero et al., Dalton Trans. 2008, 2832: sp³ carbon, low spin; Bk and Cf, which it
# lacks, from Pyykkö and Atsumi, Chem. Eur. J. 15, 186 (2009)); colour by the CPK convention of Jmol.
_TABLE = """
H 2.2 0.31 FFFFFF; He 9 0.28 D9FFFF; Li 0.98 1.28 CC80FF; Be 1.57 0.96 C2FF00; B 2.04 0.84 FFB5B5
C 2.55 0.76 909090; N 3.04 0.71 3050F8; O 3.44 0.66 FF0D0D; F 3.98 0.57 90E050; Ne 9 0.58 B3E3F5
Na 0.93 1.66 AB5CF2; Mg 1.31 1.41 8AFF00; Al 1.61 1.21 BFA6A6; Si 1.9 1.11 F0C8A0; P 2.19 1.07 FF8000
S 2.58 1.05 FFFF30; Cl 3.16 1.02 1FF01F; Ar 9 1.06 80D1E3; K 0.82 2.03 8F40D4; Ca 1 1.76 3DFF00
Sc 1.36 1.70 E6E6E6; Ti 1.54 1.60 BFC2C7; V 1.63 1.53 A6A6AB; Cr 1.66 1.39 8A99C7; Mn 1.55 1.39 9C7AC7
Fe 1.83 1.32 E06633; Co 1.88 1.26 F090A0; Ni 1.91 1.24 50D050; Cu 1.9 1.32 C88033; Zn 1.65 1.22 7D80B0
Ga 1.81 1.22 C28F8F; Ge 2.01 1.20 668F8F; As 2.18 1.19 BD80E3; Se 2.55 1.20 FFA100; Br 2.96 1.20 A62929
Kr 3 1.16 5CB8D1; Rb 0.82 2.20 702EB0; Sr 0.95 1.95 00FF00; Y 1.22 1.90 94FFFF; Zr 1.33 1.75 94E0E0
Nb 1.6 1.64 73C2C9; Mo 2.16 1.54 54B5B5; Tc 1.9 1.47 3B9E9E; Ru 2.2 1.46 248F8F; Rh 2.28 1.42 0A7D8C
Pd 2.2 1.39 006985; Ag 1.93 1.45 C0C0C0; Cd 1.69 1.44 FFD98F; In 1.78 1.42 A67573; Sn 1.96 1.39 668080
Sb 2.05 1.39 9E63B5; Te 2.1 1.38 D47A00; I 2.66 1.39 940094; Xe 2.6 1.40 429EB0; Cs 0.79 2.44 57178F
Ba 0.89 2.15 00C900; La 1.1 2.07 70D4FF; Ce 1.12 2.04 FFFFC7; Pr 1.13 2.03 D9FFC7; Nd 1.14 2.01 C7FFC7
Pm 1.13 1.99 A3FFC7; Sm 1.17 1.98 8FFFC7; Eu 1.2 1.98 61FFC7; Gd 1.2 1.96 45FFC7; Tb 1.1 1.94 30FFC7
Dy 1.22 1.92 1FFFC7; Ho 1.23 1.92 00FF9C; Er 1.24 1.89 00E675; Tm 1.25 1.90 00D452; Yb 1.1 1.87 00BF38
Lu 1.27 1.87 00AB24; Hf 1.3 1.75 4DC2FF; Ta 1.5 1.70 4DA6FF; W 2.36 1.62 2194D6; Re 1.9 1.51 267DAB
Os 2.2 1.44 266696; Ir 2.2 1.41 175487; Pt 2.28 1.36 D0D0E0; Au 2.54 1.36 FFD123; Hg 2 1.32 B8B8D0
Tl 1.62 1.45 A6544D; Pb 2.33 1.46 575961; Bi 2.02 1.48 9E4FB5; Po 2 1.40 AB5C00; At 2.2 1.50 754F45
Rn 2.2 1.50 428296; Fr 0.7 2.60 420066; Ra 0.9 2.21 007D00; Ac 1.1 2.15 70ABFA; Th 1.3 2.06 00BAFF
Pa 1.5 2.00 00A1FF; U 1.38 1.96 008FFF; Np 1.36 1.90 0080FF; Pu 1.28 1.87 006BFF; Am 1.3 1.80 545CF2
Cm 1.3 1.69 785CE3; Bk 1.3 1.68 8A4FE3; Cf 1.3 1.68 A136D4
"""


class _Row(NamedTuple):
    symbol: str
    electronegativity: float
    covalent_radius: float
    color: str


def _read(table: str) -> tuple[_Row, ...]:
    words = (entry.split() for entry in table.replace("\n", ";").split(";") if entry.strip())
    return tuple(_Row(symbol, float(chi), float(radius), f"#{color}") for symbol, chi, radius, color in words)


_ROWS = _read(_TABLE)

_BEYOND = "Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
SYMBOLS: tuple[str, ...] = (*(row.symbol for row in _ROWS), *_BEYOND.split())
"""Symbol of element Z at position Z - 1. Elements above 98 are named here so that errors can name them."""

ATOMIC_NUMBERS: dict[str, int] = {symbol: z for z, symbol in enumerate(SYMBOLS, start=1)} | {"D": 1, "T": 1}
"""Symbol → Z. Deuterium and tritium are hydrogen: the model knows the nuclear charge only."""

COVALENT_RADII: Float[np.ndarray, " n_numbers"] = np.array([np.nan, *(row.covalent_radius for row in _ROWS)])
"""Å; index: atomic number (1 to 98)."""
ELECTRONEGATIVITIES: Float[np.ndarray, " n_numbers"] = np.array([np.nan, *(row.electronegativity for row in _ROWS)])
"""By Pauling, 9 for noble gases without one; index: atomic number (1 to 98)."""
COLORS: tuple[str, ...] = ("", *(row.color for row in _ROWS))
"""`#RRGGBB` of the CPK convention; index: atomic number (1 to 98)."""
# Z of H, He, B to Ne, Si to Ar, Ge to Kr, Sb to Xe, At, Rn.
NONMETALS = frozenset((1, 2, *range(5, 11), *range(14, 19), *range(32, 37), *range(51, 55), 85, 86))
"""Atomic numbers of non-metals and metalloids: the partners that metals bond to in a compound."""


def atomic_number(symbol: str) -> int | None:
    """Z of `"Na"`, also of an ion (`"Na1+"`); None if the letters are no element."""
    letters = re.match(r"[A-Za-z]*", symbol.strip())
    return ATOMIC_NUMBERS.get(letters.group().capitalize()) if letters else None


def formula_order(z: int) -> tuple[float, str]:
    """Sorts elements by rising Pauling electronegativity, then symbol."""
    return _ROWS[z - 1].electronegativity, SYMBOLS[z - 1]


def reduced_formula(atomic_numbers: Integer[np.ndarray, " n_atoms"]) -> str:
    """`CaTiO3` for any multiple of it: elements by rising Pauling electronegativity, counts without common factor.

    An element alone is its symbol (`O`, not `O2`); groups are not bracketed (`CaH2O2`).
    """
    counts = Counter(atomic_numbers.tolist())
    divisor = math.gcd(*counts.values())
    ordered = sorted(counts, key=formula_order)
    parts = ((SYMBOLS[z - 1], counts[z] // divisor) for z in ordered)
    return "".join(symbol if count == 1 else f"{symbol}{count}" for symbol, count in parts)


def anonymous_formula(atomic_numbers: Integer[np.ndarray, " n_atoms"]) -> str:
    """`ABC3` for CaTiO3 or any multiple of it: a letter for each element, by rising count without common factor."""
    counts = sorted(Counter(atomic_numbers.tolist()).values())
    divisor = math.gcd(*counts)
    parts = ((chr(ord("A") + n), count // divisor) for n, count in enumerate(counts))
    return "".join(letter if count == 1 else f"{letter}{count}" for letter, count in parts)
