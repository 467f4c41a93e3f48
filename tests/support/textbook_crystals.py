"""Crystals with a coordination that textbooks state, each with the source of its cell and positions.

`W` is Wyckoff, Crystal Structures, 2nd ed. (1963). Coordination numbers are those of Wells, Structural Inorganic
Chemistry, 5th ed. (1984), or of the source: one for each atom of the asymmetric unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pymatgen.core import Lattice, Structure

from crystalframer.crystals.crystal import Crystal
from crystalframer.elements import ATOMIC_NUMBERS


@dataclass(frozen=True)
class Textbook:
    """A crystal and the coordination number of each atom of its asymmetric unit."""

    name: str
    source: str
    space_group: str
    cell: tuple[float, ...]
    """a, b, c (Å), α, β, γ (°)."""
    atoms: tuple[tuple[str, tuple[float, float, float], int | None], ...]
    """Element, fractional coordinates, coordination number (None: textbooks differ)."""

    @cached_property
    def structure(self) -> Structure:
        species, coords = [atom[0] for atom in self.atoms], [atom[1] for atom in self.atoms]
        numbers: dict[str, Sequence[int]] = {"number": list(range(len(species)))}
        lattice = Lattice.from_parameters(*self.cell)
        return Structure.from_spacegroup(self.space_group, lattice, species, coords, site_properties=numbers, tol=1e-3)

    @cached_property
    def crystal(self) -> Crystal:
        numbers = np.array([ATOMIC_NUMBERS[site.specie.symbol] for site in self.structure])
        return Crystal(numbers, self.structure.cart_coords, self.structure.lattice.matrix, id=self.name)

    @property
    def first_sites(self) -> list[int]:
        """The first site of each atom of the asymmetric unit."""
        return [self.structure.site_properties["number"].index(n) for n in range(len(self.atoms))]

    @property
    def coordination(self) -> list[int | None]:
        return [atom[2] for atom in self.atoms]


def _cubic(a: float) -> tuple[float, ...]:
    return (a, a, a, 90, 90, 90)


def _tetragonal(a: float, c: float) -> tuple[float, ...]:
    return (a, a, c, 90, 90, 90)


def _hexagonal(a: float, c: float) -> tuple[float, ...]:
    return (a, a, c, 90, 90, 120)


def _orthorhombic(*lengths: float) -> tuple[float, ...]:
    return (*lengths, 90, 90, 90)


THIRD, TWO_THIRDS = 1 / 3, 2 / 3

TEXTBOOK: Sequence[Textbook] = (
    Textbook("rock salt NaCl", "W", "Fm-3m", _cubic(5.640), (("Na", (0, 0, 0), 6), ("Cl", (0.5, 0.5, 0.5), 6))),
    Textbook("CsCl", "W", "Pm-3m", _cubic(4.123), (("Cs", (0, 0, 0), 8), ("Cl", (0.5, 0.5, 0.5), 8))),
    Textbook("sphalerite ZnS", "W", "F-43m", _cubic(5.409), (("Zn", (0, 0, 0), 4), ("S", (0.25, 0.25, 0.25), 4))),
    Textbook(
        "wurtzite ZnO",
        "Kisi and Elcombe, Acta Cryst. C 45, 1867 (1989)",
        "P6_3mc",
        _hexagonal(3.2501, 5.2071),
        (("Zn", (THIRD, TWO_THIRDS, 0), 4), ("O", (THIRD, TWO_THIRDS, 0.3817), 4)),
    ),
    Textbook("fluorite CaF2", "W", "Fm-3m", _cubic(5.463), (("Ca", (0, 0, 0), 8), ("F", (0.25, 0.25, 0.25), 4))),
    Textbook("antifluorite Li2O", "W", "Fm-3m", _cubic(4.619), (("O", (0, 0, 0), 8), ("Li", (0.25, 0.25, 0.25), 4))),
    Textbook(
        "rutile TiO2", "W", "P4_2/mnm", _tetragonal(4.594, 2.958), (("Ti", (0, 0, 0), 6), ("O", (0.306, 0.306, 0), 3))
    ),
    Textbook(
        "stishovite SiO2",
        "Sinclair and Ringwood, Nature 272, 714 (1978)",
        "P4_2/mnm",
        _tetragonal(4.1772, 2.6651),
        (("Si", (0, 0, 0), 6), ("O", (0.3062, 0.3062, 0), 3)),
    ),
    Textbook(
        "anatase TiO2",
        "Howard et al., Acta Cryst. B 47, 462 (1991)",
        "I4_1/amd",
        _tetragonal(3.7845, 9.5143),
        (("Ti", (0, 0, 0), 6), ("O", (0, 0, 0.2081), 3)),
    ),
    Textbook(
        "corundum Al2O3",
        "Newnham and de Haan, Z. Kristallogr. 117, 235 (1962)",
        "R-3c",
        _hexagonal(4.7589, 12.991),
        (("Al", (0, 0, 0.352), 6), ("O", (0.306, 0, 0.25), 4)),
    ),
    Textbook(
        "spinel MgAl2O4",
        "Yamanaka and Takéuchi, Z. Kristallogr. 165, 65 (1983)",
        "Fd-3m:2",
        _cubic(8.0806),
        (("Mg", (0.125, 0.125, 0.125), 4), ("Al", (0.5, 0.5, 0.5), 6), ("O", (0.2623, 0.2623, 0.2623), 4)),
    ),
    Textbook(
        "perovskite SrTiO3",
        "W",
        "Pm-3m",
        _cubic(3.905),
        (("Sr", (0, 0, 0), 12), ("Ti", (0.5, 0.5, 0.5), 6), ("O", (0.5, 0.5, 0), 2)),
    ),
    Textbook(
        "tetragonal BaTiO3",
        "Harada et al., Acta Cryst. A 26, 336 (1970)",
        "P4mm",
        _tetragonal(3.9998, 4.0180),
        (
            ("Ba", (0, 0, 0), 12),
            ("Ti", (0.5, 0.5, 0.5215), 6),
            ("O", (0.5, 0.5, -0.0230), 2),
            ("O", (0.5, 0, 0.4860), 2),
        ),
    ),
    Textbook(
        "PbTiO3",
        "Shirane et al., Acta Cryst. 9, 131 (1956)",
        "P4mm",
        _tetragonal(3.904, 4.152),
        (("Pb", (0, 0, 0), 12), ("Ti", (0.5, 0.5, 0.539), 6), ("O", (0.5, 0.5, 0.114), 2), ("O", (0.5, 0, 0.617), 2)),
    ),
    Textbook(
        "quartz SiO2",
        "Levien et al., Am. Mineral. 65, 920 (1980)",
        "P3_121",
        _hexagonal(4.916, 5.4054),
        (("Si", (0.4697, 0, THIRD), 4), ("O", (0.4135, 0.2669, 0.2142), 2)),
    ),
    Textbook(
        "triphylite LiFePO4",
        "Streltsov et al., Acta Cryst. B 49, 147 (1993)",
        "Pnma",
        _orthorhombic(10.332, 6.010, 4.692),
        (
            ("Li", (0, 0, 0), 6),
            ("Fe", (0.28222, 0.25, 0.97472), 6),
            ("P", (0.09486, 0.25, 0.41820), 4),
            ("O", (0.09678, 0.25, 0.74279), None),
            ("O", (0.45710, 0.25, 0.20602), None),
            ("O", (0.16558, 0.04646, 0.28478), None),
        ),
    ),
    Textbook(
        "garnet Y3Al5O12",
        "Euler and Bruce, Acta Cryst. 19, 971 (1965)",
        "Ia-3d",
        _cubic(12.000),
        (
            ("Y", (0.125, 0, 0.25), 8),
            ("Al", (0, 0, 0), 6),
            ("Al", (0.375, 0, 0.25), 4),
            ("O", (-0.0306, 0.0512, 0.1500), None),
        ),
    ),
    Textbook(
        "forsterite Mg2SiO4",
        "Hazen, Am. Mineral. 61, 1280 (1976)",
        "Pnma",
        _orthorhombic(10.1902, 5.9783, 4.7535),
        (
            ("Mg", (0, 0, 0), 6),
            ("Mg", (0.2774, 0.25, 0.9915), 6),
            ("Si", (0.0940, 0.25, 0.4262), 4),
            ("O", (0.0913, 0.25, 0.7657), 4),
            ("O", (0.4474, 0.25, 0.2215), 4),
            ("O", (0.1628, 0.0331, 0.2777), 4),
        ),
    ),
    Textbook(
        "calcite CaCO3",
        "Effenberger et al., Z. Kristallogr. 156, 233 (1981)",
        "R-3c",
        _hexagonal(4.9896, 17.0610),
        (("Ca", (0, 0, 0), 6), ("C", (0, 0, 0.25), 3), ("O", (0.2568, 0, 0.25), 3)),
    ),
    Textbook(
        "aragonite CaCO3",
        "de Villiers, Am. Mineral. 56, 758 (1971)",
        "Pnma",
        _orthorhombic(5.7404, 4.9614, 7.9671),
        (
            ("Ca", (0.7597, 0.25, 0.4150), 9),
            ("C", (-0.0862, 0.25, 0.7622), 3),
            ("O", (-0.0962, 0.25, 0.9225), None),
            ("O", (-0.0862, 0.4736, 0.6810), None),
        ),
    ),
    Textbook(
        "urea CO(NH2)2",
        "Swaminathan et al., Acta Cryst. B 40, 300 (1984)",
        "P-42_1m",
        _tetragonal(5.565, 4.684),
        (
            ("C", (0, 0.5, 0.3260), 3),
            ("O", (0, 0.5, 0.5953), 1),
            ("N", (0.1459, 0.6459, 0.1766), 3),
            ("H", (0.2575, 0.7575, 0.2827), 1),
            ("H", (0.1441, 0.6441, -0.0380), 1),
        ),
    ),
    Textbook(
        "molybdenite MoS2",
        "Bronsema et al., Z. Anorg. Allg. Chem. 540, 15 (1986)",
        "P6_3/mmc",
        _hexagonal(3.1602, 12.294),
        (("Mo", (THIRD, TWO_THIRDS, 0.25), 6), ("S", (THIRD, TWO_THIRDS, 0.6208), 3)),
    ),
    Textbook("CdI2", "W", "P-3m1", _hexagonal(4.24, 6.84), (("Cd", (0, 0, 0), 6), ("I", (THIRD, TWO_THIRDS, 0.25), 3))),
    Textbook("diamond", "W", "Fd-3m:1", _cubic(3.567), (("C", (0, 0, 0), 4),)),
    Textbook(
        "graphite",
        "W",
        "P6_3/mmc",
        _hexagonal(2.456, 6.696),
        (("C", (0, 0, 0.25), 3), ("C", (THIRD, TWO_THIRDS, 0.25), 3)),
    ),
    Textbook("arsenic", "W", "R-3m", _hexagonal(3.760, 10.548), (("As", (0, 0, 0.227), 3),)),
    Textbook("copper", "W", "Fm-3m", _cubic(3.615), (("Cu", (0, 0, 0), 12),)),
    Textbook("iron", "W", "Im-3m", _cubic(2.866), (("Fe", (0, 0, 0), 8),)),
    Textbook("magnesium", "W", "P6_3/mmc", _hexagonal(3.209, 5.210), (("Mg", (THIRD, TWO_THIRDS, 0.25), 12),)),
    Textbook(
        "Laves phase MgCu2",
        "W",
        "Fd-3m:2",
        _cubic(7.034),
        (("Mg", (0.125, 0.125, 0.125), 16), ("Cu", (0.5, 0.5, 0.5), 12)),
    ),
    Textbook("pyrite FeS2", "W", "Pa-3", _cubic(5.418), (("Fe", (0, 0, 0), 6), ("S", (0.385, 0.385, 0.385), 4))),
    Textbook(
        "NiAs", "W", "P6_3/mmc", _hexagonal(3.602, 5.009), (("Ni", (0, 0, 0), 6), ("As", (THIRD, TWO_THIRDS, 0.25), 6))
    ),
    Textbook("cuprite Cu2O", "W", "Pn-3m:1", _cubic(4.269), (("O", (0, 0, 0), 4), ("Cu", (0.25, 0.25, 0.25), 2))),
    Textbook(
        "tenorite CuO",
        "Åsbrink and Norrby, Acta Cryst. B 26, 8 (1970)",
        "C2/c",
        (4.6837, 3.4226, 5.1288, 90, 99.54, 90),
        (("Cu", (0.25, 0.25, 0), 4), ("O", (0, 0.4184, 0.25), 4)),
    ),
    Textbook("ReO3", "W", "Pm-3m", _cubic(3.734), (("Re", (0, 0, 0), 6), ("O", (0.5, 0, 0), 2))),
    Textbook(
        "zircon ZrSiO4",
        "Robinson et al., Am. Mineral. 56, 782 (1971)",
        "I4_1/amd",
        _tetragonal(6.607, 5.982),
        (("Zr", (0, 0, 0), 8), ("Si", (0, 0, 0.5), 4), ("O", (0, 0.3161, -0.0703), None)),
    ),
    Textbook(
        "litharge PbO",
        "Boher et al., J. Solid State Chem. 57, 343 (1985)",
        "P4/nmm:1",
        _tetragonal(3.9729, 5.0217),
        (("O", (0, 0, 0), 4), ("Pb", (0, 0.5, 0.2345), 4)),
    ),
    Textbook(
        "V2O5",
        "Enjalbert and Galy, Acta Cryst. C 42, 1467 (1986)",
        "Pmmn:1",
        _orthorhombic(11.512, 3.564, 4.368),
        (
            ("V", (-0.1488, 0, -0.1083), 5),
            ("O", (-0.1457, 0, -0.469), 1),
            ("O", (-0.3189, 0, 0.003), 3),
            ("O", (0, 0, 0.001), 2),
        ),
    ),
    Textbook(
        "MoO3",
        "Kihlborg, Ark. Kemi 21, 357 (1963)",
        "Pnma",
        _orthorhombic(13.8550, 3.6964, 3.9628),
        (
            ("Mo", (0.10164, 0.25, 0.08669), 6),
            ("O", (0.4351, 0.25, 0.4994), None),
            ("O", (0.0866, 0.25, 0.5212), None),
            ("O", (0.2214, 0.25, 0.0373), 1),
        ),
    ),
    Textbook(
        "LiCoO2",
        "Johnston et al., J. Phys. Chem. Solids 7, 1 (1958)",
        "R-3m",
        _hexagonal(2.8166, 14.052),
        (("Li", (0, 0, 0.5), 6), ("Co", (0, 0, 0), 6), ("O", (0, 0, 0.25), 6)),
    ),
    Textbook("dry ice CO2", "W", "Pa-3", _cubic(5.575), (("C", (0, 0, 0), 2), ("O", (0.11, 0.11, 0.11), 1))),
    Textbook(
        "MOF-5",
        "Li et al., Nature 402, 276 (1999); ideal bond lengths in its space group and cell",
        "Fm-3m",
        _cubic(25.832),
        (
            ("Zn", (0.2934, 0.2934, 0.2934), 4),
            ("O", (0.25, 0.25, 0.25), 4),
            ("O", (0.2805, 0.2805, 0.3662), 2),
            ("C", (0.25, 0.25, 0.3882), 3),
            ("C", (0.25, 0.25, 0.4462), 3),
            ("C", (0.2830, 0.2830, 0.4731), 3),
            ("H", (0.3088, 0.3088, 0.4520), 1),
        ),
    ),
)
