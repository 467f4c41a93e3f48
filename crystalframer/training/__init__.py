"""Training: `fit(config)`, `ablate(config)`, `sweep(config, space)` and what they return.

Lightning is imported on first use only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalframer.training.ablation import AblationResult, ablate
    from crystalframer.training.ranks import RankError
    from crystalframer.training.result import FitResult, Score
    from crystalframer.training.run import Interrupted, fit
    from crystalframer.training.sweeping.result import SweepResult
    from crystalframer.training.sweeping.run import sweep
    from crystalframer.training.sweeping.space import Choice, Range, space_from_words
    from crystalframer.training.task import TrainingError

__all__ = [
    "AblationResult",
    "Choice",
    "FitResult",
    "Interrupted",
    "Range",
    "RankError",
    "Score",
    "SweepResult",
    "TrainingError",
    "ablate",
    "fit",
    "space_from_words",
    "sweep",
]

_HOMES = {
    "AblationResult": "ablation",
    "Choice": "sweeping.space",
    "FitResult": "result",
    "Interrupted": "run",
    "Range": "sweeping.space",
    "RankError": "ranks",
    "Score": "result",
    "SweepResult": "sweeping.result",
    "TrainingError": "task",
    "ablate": "ablation",
    "fit": "run",
    "space_from_words": "sweeping.space",
    "sweep": "sweeping.run",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
