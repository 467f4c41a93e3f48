"""Studies of many trainings: `ablate` compares frame methods, `sweep` searches hyperparameters.

Lightning and Optuna are imported on first use only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalframer.studies.ablation import AblationResult, ablate
    from crystalframer.studies.search import SweepResult, sweep
    from crystalframer.studies.space import Choice, Range, space_from_words

__all__ = ["AblationResult", "Choice", "Range", "SweepResult", "ablate", "space_from_words", "sweep"]

_HOMES = {
    "AblationResult": "ablation",
    "Choice": "space",
    "Range": "space",
    "SweepResult": "search",
    "ablate": "ablation",
    "space_from_words": "space",
    "sweep": "search",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
