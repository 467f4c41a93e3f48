"""Training: `fit(config)` and what it returns. Lightning is imported on first use only."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crystalframer.errors import RankError, TrainingError

if TYPE_CHECKING:
    from crystalframer.training.result import FitResult, Score
    from crystalframer.training.run import Interrupted, fit

__all__ = ["FitResult", "Interrupted", "RankError", "Score", "TrainingError", "fit"]

_HOMES = {"FitResult": "result", "Interrupted": "run", "Score": "result", "fit": "run"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
