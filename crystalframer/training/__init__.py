"""Training: `fit(config)` and what it returns. Lightning is imported on first use only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalframer.training.run import FitResult, Interrupted, TrainingError, fit

__all__ = ["FitResult", "Interrupted", "TrainingError", "fit"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from crystalframer.training import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
