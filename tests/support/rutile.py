"""Rutile in formats that list an asymmetric unit."""

from __future__ import annotations

from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from crystalframer.crystals.crystal import Crystal

PDB = """CRYST1    4.594    4.594    2.959  90.00  90.00  90.00 P 42/m n m    2
HETATM    1 TI   MOL A   1       0.000   0.000   0.000  1.00  0.00          TI
HETATM    2  O   MOL A   1       1.401   1.401   0.000  1.00  0.00           O
END
"""
SHELX = """TITL rutile in P4(2)/mnm
CELL 0.71073 4.594 4.594 2.959 90 90 90
ZERR 2 0.001 0.001 0.001 0 0 0
LATT 1
SYMM -X, -Y, Z
SYMM -Y+0.5, X+0.5, Z+0.5
SYMM Y+1/2, -X+1/2, Z+1/2
SYMM -X+.5, Y+.5, -Z+.5
SYMM 0.5+X, 0.5-Y, 0.5-Z
SYMM Y, X, -Z
SYMM -Y, -X, -Z
SFAC TI O
UNIT 2 4
DFIX 1.95 TI1 O1
 a comment
FVAR 1.0 0.75
TI1 1 10.0 10.0 10.0 10.125 0.01 ! titanium
O1 2 0.305 0.305 10.0 10.25 0.02 0.02 =
 0.01 0 0 0
HKLF 4
END
Q1 1 0.1 0.2 0.3 11.0 0.05 1.0
"""


def assert_is_rutile(crystal: Crystal) -> None:
    wanted = Structure.from_spacegroup(
        136, Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    assert len(crystal) == 6
    assert StructureMatcher(scale=False, primitive_cell=False, stol=0.01).fit(crystal.to_pymatgen(), wanted)
