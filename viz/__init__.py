"""Pictures of the attention and the frames of a CrystalFramer model.

`scene_from_trace` turns a trace into plain data, and every picture is made from that scene. The file `__init__.pyi`
lists the public names; each is imported when it is first used, so that importing viz is quick.
"""

from typing import Any

import lazy_loader

from crystalframer._moved import install_old_paths

_FIGURES = ("ablation_figure", "drawing", "structure_figure", "structure_view", "sweep_figure", "toolkit_scene")
install_old_paths(__name__, {name: f"{name}s" for name in _FIGURES})

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        message = f"viz.{name} needs {error.name}, which is not installed: pip install 'crystalframer[notebooks]'"
        raise ModuleNotFoundError(message, name=error.name) from error
