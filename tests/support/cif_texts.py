"""Texts of CIF files."""

from __future__ import annotations

from collections.abc import Sequence

COLUMNS = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")


def text_of(name: str, cell: str, sites: Sequence[str], *before: str, columns: Sequence[str] = COLUMNS) -> str:
    """A file with one loop of sites.

    Args:
        cell: lengths and angles, with blanks between them.
        sites: rows of the loop.
        before: what stands between the cell and the loop.
    """
    of_cell = [f"_cell_{key} {value}" for key, value in zip(CELL, cell.split(), strict=True)]
    of_loop = ["loop_", *(f"_atom_site_{column}" for column in columns)]
    return "\n".join([f"data_{name}", *of_cell, *before, *of_loop, *sites, ""])


# One listed atom on a place of three images, with coordinates rounded to four digits: 2/3.
QUARTZ = """# a comment with 'quotes and _names
data_quartz
_publ_section_title
;
 A title of two lines, with _cell_length_a 3 and data
 loop_ in it
;
_journal_name_full 'Zeitschrift f"ur Kristallographie'
_chemical_formula_sum 'O2 Si'   # and a comment behind
_cell_length_a 4.9137(3)
_cell_length_b 4.9137(3)
_cell_length_c 5.4047(4)
_cell_angle_alpha 90
_cell_angle_beta 90.0
_cell_angle_gamma 120
_symmetry_space_group_name_H-M "P 32 2 1"
loop_
_symmetry_equiv_pos_site_id
_symmetry_equiv_pos_as_xyz
1 'x, y, z'
2 -y,x-y,z+2/3
3 -x+y,-x,1/3+Z
4 y,x,-z
5 x-y,-y,-z+.33333333333
6 -x,-x+y,-z+2/3
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Si1 Si 0.4697(2) 0 0.66667 1
O1 O 0.4135 0.2669 0.7858 1.0
"""
