from .bonds import Bonds as Bonds, find_bonds as find_bonds
from .motifs import (
    MotifError as MotifError,
    Shell as Shell,
    ShellAttention as ShellAttention,
    bond_angles as bond_angles,
    chance_angle as chance_angle,
    chance_angle_given_e1 as chance_angle_given_e1,
    coordination_shells as coordination_shells,
    motif_summary as motif_summary,
    motif_table as motif_table,
    shell_attention as shell_attention,
)
from .paired import (
    Difference as Difference,
    Ranking as Ranking,
    paired_difference as paired_difference,
    ranking as ranking,
)
from .polyhedra import (
    PolyhedronError as PolyhedronError,
    ideal_polyhedra as ideal_polyhedra,
    ideal_vectors as ideal_vectors,
    polyhedron_name as polyhedron_name,
    symmetry_measures as symmetry_measures,
)

__all__: list[str]
