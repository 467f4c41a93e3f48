"""Texts of CIF files."""

from __future__ import annotations

from collections.abc import Sequence

COLUMNS = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")


def cif(name: str, cell: str, sites: Sequence[str], *before: str, columns: Sequence[str] = COLUMNS) -> str:
    """A file with one loop of sites.

    Args:
        cell: lengths and angles, with blanks between them.
        sites: rows of the loop.
        before: what stands between the cell and the loop.
    """
    of_cell = [f"_cell_{key} {value}" for key, value in zip(CELL, cell.split(), strict=True)]
    of_loop = ["loop_", *(f"_atom_site_{column}" for column in columns)]
    return "\n".join([f"data_{name}", *of_cell, *before, *of_loop, *sites, ""])
