"""Pictures of the attention and the frames of a CrystalFramer model.

`scene_from_trace` turns a trace into plain data, and every picture is made from that scene. Plotting libraries are
imported when a picture is made, so that importing viz is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crystalframer._moved import install_old_paths
from viz.ablation_figures import ablation_figure
from viz.attention_figures import attention_distance_figure, attention_figure, attention_grid, attention_heatmap
from viz.drawings import Drawing, drawing
from viz.errors import FigureError, SceneError
from viz.explorer_page import explorer_html
from viz.layer_figures import attended_distance_figure, axis_turn_figure, decay_length_figure, entropy_figure
from viz.measures import (
    anchor_distances,
    attended_distance,
    axis_turns,
    chance_turns,
    decay_lengths,
    effective_neighbors,
    layer_table,
    nearest_distance,
    self_attention_share,
)
from viz.motif_explorer import MotifExplorer
from viz.motif_figures import motif_angle_figure, motif_overview, motif_share_figure, motif_summary_figure
from viz.palette import SERIES_COLORS
from viz.scene import (
    Scene,
    attention_by_distance,
    attention_matrix,
    scene_from_trace,
    scene_with_shells,
    strongest_edges,
)
from viz.structure_figures import frame_comparison_figure, structure_figure
from viz.structure_views import structure_view
from viz.sweep_figures import sweep_figure
from viz.toolkit_scenes import toolkit_scene
from viz.training_figures import learning_curve, parity_figure
from viz.widgets import TrainingMonitor

if TYPE_CHECKING:
    from viz.explorer import AttentionExplorer
    from viz.frame_comparison import FrameComparison

__all__ = [
    "SERIES_COLORS",
    "AttentionExplorer",
    "Drawing",
    "FigureError",
    "FrameComparison",
    "MotifExplorer",
    "Scene",
    "SceneError",
    "TrainingMonitor",
    "ablation_figure",
    "anchor_distances",
    "attended_distance",
    "attended_distance_figure",
    "attention_by_distance",
    "attention_distance_figure",
    "attention_figure",
    "attention_grid",
    "attention_heatmap",
    "attention_matrix",
    "axis_turn_figure",
    "axis_turns",
    "chance_turns",
    "decay_length_figure",
    "decay_lengths",
    "drawing",
    "effective_neighbors",
    "entropy_figure",
    "explorer_html",
    "frame_comparison_figure",
    "layer_table",
    "learning_curve",
    "motif_angle_figure",
    "motif_overview",
    "motif_share_figure",
    "motif_summary_figure",
    "nearest_distance",
    "parity_figure",
    "scene_from_trace",
    "scene_with_shells",
    "self_attention_share",
    "strongest_edges",
    "structure_figure",
    "structure_view",
    "sweep_figure",
    "toolkit_scene",
]

_FIGURES = ("ablation_figure", "drawing", "structure_figure", "structure_view", "sweep_figure", "toolkit_scene")
install_old_paths(__name__, {name: f"{name}s" for name in _FIGURES})

_WIDGETS = {"AttentionExplorer": "viz.explorer", "FrameComparison": "viz.frame_comparison"}
"""Module of the classes that need anywidget, whose import takes 0.4 s."""


def __getattr__(name: str) -> Any:
    if name not in _WIDGETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_WIDGETS[name]), name)
    except ModuleNotFoundError as error:
        message = f"viz.{name} needs {error.name}, which is not installed: pip install 'crystalframer[notebooks]'"
        raise ModuleNotFoundError(message, name=error.name) from error
