"""Columns of a table of crystals that are no labels."""

ID_COLUMNS = ("id", "material_id", "jid", "mb_id", "matbench_id")
"""Columns of a table that may hold the id; the first that exists is taken."""
STRUCTURE_COLUMNS = ("atomic_numbers", "positions", "frac_coords", "lattice")
DERIVED_COLUMNS = ("n_atoms", "nsites", "volume", "density", "spacegroup")
"""Numbers that describe the structure: not read as targets unless asked for by name."""
