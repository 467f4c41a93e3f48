"""Measurements of trained models: pure functions of traces, and of models where a question needs one."""

from crystalframer.analysis.motifs import (
    Shell,
    ShellAttention,
    bond_angles,
    chance_angle,
    chance_angle_given_e1,
    coordination_shells,
    motif_summary,
    motif_table,
    shell_attention,
)
from crystalframer.analysis.polyhedra import ideal_polyhedra, ideal_vectors, polyhedron_name, symmetry_measures
from crystalframer.errors import MotifError, PolyhedronError

__all__ = [
    "MotifError",
    "PolyhedronError",
    "Shell",
    "ShellAttention",
    "bond_angles",
    "chance_angle",
    "chance_angle_given_e1",
    "coordination_shells",
    "ideal_polyhedra",
    "ideal_vectors",
    "motif_summary",
    "motif_table",
    "polyhedron_name",
    "shell_attention",
    "symmetry_measures",
]
