"""Training: `fit(config)`, `ablate(config)` and what they return. Lightning is imported on first use only."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalframer.training.ablation import AblationResult, ablate
    from crystalframer.training.ranks import RankError
    from crystalframer.training.result import FitResult, Score
    from crystalframer.training.run import Interrupted, fit
    from crystalframer.training.task import TrainingError

__all__ = ["AblationResult", "FitResult", "Interrupted", "RankError", "Score", "TrainingError", "ablate", "fit"]

_HOMES = {
    "AblationResult": "ablation",
    "FitResult": "result",
    "Interrupted": "run",
    "RankError": "ranks",
    "Score": "result",
    "TrainingError": "task",
    "ablate": "ablation",
    "fit": "run",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
