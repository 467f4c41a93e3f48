from .ablation_figures import ablation_figure as ablation_figure
from .attention_figures import (
    attention_distance_figure as attention_distance_figure,
    attention_figure as attention_figure,
    attention_grid as attention_grid,
    attention_heatmap as attention_heatmap,
)
from .dataset_explorer import DatasetExplorer as DatasetExplorer
from .drawings import Drawing as Drawing, drawing as drawing
from .errors import FigureError as FigureError, SceneError as SceneError
from .evaluation_figures import (
    confusion_plot as confusion_plot,
    evaluation_figure as evaluation_figure,
    parity_plot as parity_plot,
    reliability_plot as reliability_plot,
    roc_plot as roc_plot,
)
from .explanation_pages import explanation_html as explanation_html
from .explorer import AttentionExplorer as AttentionExplorer
from .explorer_page import explorer_html as explorer_html
from .frame_comparison import FrameComparison as FrameComparison
from .head_figures import head_figure as head_figure
from .layer_figures import (
    attended_distance_figure as attended_distance_figure,
    axis_turn_figure as axis_turn_figure,
    decay_length_figure as decay_length_figure,
    entropy_figure as entropy_figure,
)
from .linking import Link as Link, link as link
from .measures import (
    anchor_distances as anchor_distances,
    attended_distance as attended_distance,
    axis_turns as axis_turns,
    chance_turns as chance_turns,
    decay_lengths as decay_lengths,
    effective_neighbors as effective_neighbors,
    layer_table as layer_table,
    nearest_distance as nearest_distance,
    self_attention_share as self_attention_share,
)
from .motif_explorer import MotifExplorer as MotifExplorer
from .motif_figures import (
    motif_angle_figure as motif_angle_figure,
    motif_overview as motif_overview,
    motif_share_figure as motif_share_figure,
    motif_summary_figure as motif_summary_figure,
)
from .palette import SERIES_COLORS as SERIES_COLORS
from .scene import (
    Scene as Scene,
    attention_by_distance as attention_by_distance,
    attention_matrix as attention_matrix,
    scene_from_trace as scene_from_trace,
    scene_with_shells as scene_with_shells,
    strongest_edges as strongest_edges,
)
from .side_by_side import SideBySide as SideBySide
from .structure_figures import frame_comparison_figure as frame_comparison_figure, structure_figure as structure_figure
from .structure_views import structure_view as structure_view
from .sweep_figures import sweep_figure as sweep_figure
from .toolkit_scenes import toolkit_scene as toolkit_scene
from .training_figures import learning_curve as learning_curve, parity_figure as parity_figure
from .widgets import TrainingMonitor as TrainingMonitor

__all__: list[str]
