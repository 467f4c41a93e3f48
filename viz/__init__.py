"""Pictures of what a CrystalFramer model looks at.

`scene_from_trace` turns a trace into plain data; every picture is a function of that scene. Plotting libraries load
when a picture is made, so this import stays light.
"""

from viz.attention_figures import attention_distance_figure, attention_figure, attention_heatmap
from viz.drawing import Drawing, drawing
from viz.palette import SERIES_COLORS
from viz.scene import (
    Scene,
    SceneError,
    attention_by_distance,
    attention_matrix,
    scene_from_trace,
    strongest_edges,
)
from viz.structure_figure import structure_figure
from viz.structure_view import structure_view
from viz.training_figures import learning_curve, parity_figure
from viz.widgets import AttentionSliders, TrainingMonitor

__all__ = [
    "SERIES_COLORS",
    "AttentionSliders",
    "Drawing",
    "Scene",
    "SceneError",
    "TrainingMonitor",
    "attention_by_distance",
    "attention_distance_figure",
    "attention_figure",
    "attention_heatmap",
    "attention_matrix",
    "drawing",
    "learning_curve",
    "parity_figure",
    "scene_from_trace",
    "strongest_edges",
    "structure_figure",
    "structure_view",
]
