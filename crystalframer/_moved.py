"""Where modules stood in 0.1: their old paths work for this release, with a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

MOVED = {
    "data": "datasets",
    "data.authors_pickle": "datasets.authors_pickle",
    "data.chunks": "crystals.large_cells",
    "data.crystal": "crystals.crystal",
    "data.databases": "reading.databases",
    "data.dataset": "datasets.dataset",
    "data.download": "datasets.download",
    "data.elements": "elements",
    "data.loading": "crystals.loading",
    "data.neighbors": "crystals.neighbors",
    "data.packed": "datasets.packed",
    "data.queries": "datasets.queries",
    "data.published": "datasets.sources",
    "data.resident": "crystals.on_gpu",
    "data.rows": "reading.inputs",
    "data.sources": "datasets.sources",
    "data.splits": "datasets.splits",
    "data.structures": "reading.inputs",
    "data.tables": "datasets.labelled",
    "model.basis": "maths.basis",
    "model.edges": "maths.edges",
    "model.frames": "maths.frames",
    "model.segments": "maths.segments",
    "model.ties": "maths.ties",
    "screening.run": "screening.screening",
    "trace": "traces",
    "training.ablation": "studies.ablation",
    "training.sweeping": "studies",
    "training.sweeping.space": "studies.space",
}
"""Old path → new path, both below `crystalframer`."""
RENAMED = {"to_crystal": "read"}
"""Old name → new name in these modules."""


class _OldModule(ModuleType):
    """Hands on the names of the module that took its place."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(old, f"Moved to {new}.")
        self.__path__ = []  # `import crystalframer.data.crystal` asks a package for it
        self._new = new

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":  # of `import *`
            return [name for name in vars(import_module(self._new)) if not name.startswith("_")]
        if name.startswith("__"):  # asked for by the import system, inspect, pickle, ...
            raise AttributeError(name)
        value = _handed_on(self.__name__, self._new, RENAMED.get(name, name))
        setattr(self, name, value)  # one warning for each name
        return value


def moved_names(
    module: str, homes: Mapping[str, str], others: Callable[[str], Any] | None = None
) -> Callable[[str], Any]:
    """A `__getattr__` of a module for names that have moved (name → module that has it now).

    Args:
        others: loads the names that have not moved.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            if others is not None:
                return others(name)
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return _handed_on(f"{module}.{name}", homes[name], name)

    return __getattr__


def _handed_on(old: str, home: str, name: str) -> Any:
    value = getattr(import_module(home), name)
    problem = f"{old} has moved to {home}; the old path goes with the next release"
    warnings.warn(problem, DeprecationWarning, stacklevel=3)
    return value


def install_old_paths(package: str, moved: Mapping[str, str]) -> None:
    """Put a stand-in where each old module of `package` was (old path → new path).

    Into `sys.modules` directly, not through an import: importing `crystalframer.trace` would put the module in the
    place of the function `crystalframer.trace`.
    """
    for old, new in moved.items():
        sys.modules.setdefault(f"{package}.{old}", _OldModule(f"{package}.{old}", f"{package}.{new}"))
