"""Chemical symbols and formulas, without a chemistry library."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
from jaxtyping import Float, Integer

_SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr "
    "Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir "
    "Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh "
    "Fl Mc Lv Ts Og "
)
SYMBOLS: tuple[str, ...] = tuple(_SYMBOLS.split())
"""Symbol of element Z at position Z - 1. Elements above 98 are named here so that errors can name them."""

ATOMIC_NUMBERS: dict[str, int] = {symbol: z for z, symbol in enumerate(SYMBOLS, start=1)} | {"D": 1, "T": 1}
"""Symbol → Z. Deuterium and tritium are hydrogen: the model knows the nuclear charge only."""

# Pauling electronegativities of Z = 1..98; 9 for the noble gases that have none, so that they come last.
_ELECTRONEGATIVITY: tuple[float, ...] = (
    *(2.20, 9, 0.98, 1.57, 2.04, 2.55, 3.04, 3.44, 3.98, 9, 0.93, 1.31, 1.61, 1.90, 2.19, 2.58, 3.16, 9),
    *(0.82, 1.00, 1.36, 1.54, 1.63, 1.66, 1.55, 1.83, 1.88, 1.91, 1.90, 1.65, 1.81, 2.01, 2.18, 2.55, 2.96, 3.00),
    *(0.82, 0.95, 1.22, 1.33, 1.60, 2.16, 1.90, 2.20, 2.28, 2.20, 1.93, 1.69, 1.78, 1.96, 2.05, 2.10, 2.66, 2.60),
    *(0.79, 0.89, 1.10, 1.12, 1.13, 1.14, 1.13, 1.17, 1.20, 1.20, 1.10, 1.22, 1.23, 1.24, 1.25, 1.10, 1.27),
    *(1.30, 1.50, 2.36, 1.90, 2.20, 2.20, 2.28, 2.54, 2.00, 1.62, 2.33, 2.02, 2.00, 2.20, 2.20),
    *(0.70, 0.90, 1.10, 1.30, 1.50, 1.38, 1.36, 1.28, 1.30, 1.30, 1.30, 1.30),
)

COVALENT_RADII: Float[np.ndarray, " n_numbers"] = np.array(
    (
        *(np.nan, 0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07, 1.05, 1.02),
        *(1.06, 2.03, 1.76, 1.70, 1.60, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22, 1.20, 1.19, 1.20, 1.20),
        *(1.16, 2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44, 1.42, 1.39, 1.39, 1.38, 1.39),
        *(1.40, 2.44, 2.15, 2.07, 2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87),
        *(1.75, 1.70, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.40, 1.50, 1.50, 2.60, 2.21, 2.15),
        *(2.06, 2.00, 1.96, 1.90, 1.87, 1.80, 1.69, 1.68, 1.68),
    )
)
"""Å, at the place of the atomic number. Cordero et al., Dalton Trans. 2008, 2832 (sp³ carbon, low spin); Bk and Cf,
which it lacks, from Pyykkö and Atsumi, Chem. Eur. J. 15, 186 (2009)."""


def atomic_number(symbol: str) -> int | None:
    """Z of `"Na"`, also of an ion (`"Na1+"`); None if the letters are no element."""
    letters = re.match(r"[A-Za-z]*", symbol.strip())
    return ATOMIC_NUMBERS.get(letters.group().capitalize()) if letters else None


def formula_order(z: int) -> tuple[float, str]:
    """Sorts elements by rising Pauling electronegativity, then symbol."""
    return float(_ELECTRONEGATIVITY[z - 1]), SYMBOLS[z - 1]


def reduced_formula(atomic_numbers: Integer[np.ndarray, " n_atoms"]) -> str:
    """`CaTiO3` for any multiple of it: elements by rising Pauling electronegativity, counts without common factor.

    An element alone is its symbol (`O`, not `O2`); groups are not bracketed (`CaH2O2`).
    """
    counts = Counter(atomic_numbers.tolist())
    divisor = math.gcd(*counts.values())
    ordered = sorted(counts, key=formula_order)
    parts = ((SYMBOLS[z - 1], counts[z] // divisor) for z in ordered)
    return "".join(symbol if count == 1 else f"{symbol}{count}" for symbol, count in parts)
