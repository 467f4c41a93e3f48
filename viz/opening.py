"""Whatever can be shown as a scene."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from crystalframer.traces import CrystalTrace
from viz.scene import Scene, scene_from_trace

TRACE_FILE = ".safetensors"


def opened(source: Any) -> Scene:
    """The scene of a trace, of a file with one, or of a structure, which the shipped weights then trace.

    Args:
        source: a scene or a trace; the path of a saved trace (.safetensors); or a structure or the path of one, as
            `crystalframer.read` takes it. Of more than 1,000 atoms, those around one atom are shown, with a warning.

    Raises:
        CrystalFramerError: the file or structure cannot be read.

    Example:
        >>> opened(trace).formula
        'SrTiO3'
    """
    if isinstance(source, Scene):
        return source
    if isinstance(source, (str, Path)) and str(source).endswith(TRACE_FILE):
        return scene_from_trace(CrystalTrace.load(source))
    if not isinstance(source, CrystalTrace):
        # By name: pictures are made of records, and only this needs a model.
        source = import_module("crystalframer.pages").shown_trace(source)
    return scene_from_trace(source)
