"""Pictures of what a CrystalFramer model looks at.

`scene_from_trace` turns a trace into plain data; every picture is a function of that scene. Plotting libraries load when
a picture is made, so this import stays light.
"""

from viz.drawing import Drawing, drawing
from viz.scene import (
    Scene,
    SceneError,
    attention_by_distance,
    attention_matrix,
    scene_from_trace,
    strongest_edges,
)

__all__ = [
    "Drawing",
    "Scene",
    "SceneError",
    "attention_by_distance",
    "attention_matrix",
    "drawing",
    "scene_from_trace",
    "strongest_edges",
]
