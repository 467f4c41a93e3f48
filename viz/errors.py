"""The errors of viz. All derive from `crystalframer.CrystalFramerError`, with the fields `field` and `value`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from crystalframer.errors import CrystalFramerError, suggestion


class SceneError(CrystalFramerError, ValueError):
    """There is no such layer, head, atom or option. The message names what can be chosen.

    Example:
        >>> scene.check(layer=9, head=0)
        Traceback (most recent call last):
        viz.errors.SceneError: SrTiO3: no layer 9; choose from 0 to 2
    """


class FigureError(CrystalFramerError, ValueError):
    """A table or trace lacks what a figure or a measure needs. The message names what is missing.

    Example:
        >>> import pandas as pd
        >>> viz.learning_curve(pd.DataFrame({"epoch": [1], "train_mae/band_gap": [0.9]}), "bandgap")
        Traceback (most recent call last):
        viz.errors.FigureError: learning curve: no target 'bandgap'; did you mean 'band_gap'? Known: band_gap
    """


class NotATraceError(CrystalFramerError, TypeError):
    """Something that is not a trace was given where a trace is needed."""


def no_frames(crystal: str) -> FigureError:
    """The error for a trace of a model without frames."""
    return FigureError(
        f"{crystal}: this model has no frames (method none), so there are no axes; use a model with frames",
        field="frame_method",
        value="none",
    )


def check_index(name: str, value: Any, size: int, of: str = "") -> None:
    """Raise SceneError unless `value` is an integer from 0 to `size` - 1. `of` says what has so many."""
    if not isinstance(value, (int, np.integer)) or not 0 <= value < size:
        where = f"{of}: " if of else ""
        raise SceneError(f"{where}no {name} {value}; choose from 0 to {size - 1}", field=name, value=value)


def check_option(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise SceneError unless `value` is one of the `known` options."""
    if value not in known:
        raise SceneError(f"no option {value!r} for {name}{suggestion(str(value), known)}", field=name, value=value)


def check_columns(what: str, columns: Iterable[Any], needed: Iterable[str]) -> None:
    """Raise FigureError unless a table has the columns that `what` needs."""
    columns = [str(name) for name in columns]
    missing = [name for name in needed if name not in columns]
    if missing:
        raise FigureError(
            f"{what} needs the column {', '.join(missing)}; the table has: {', '.join(columns)}",
            field=missing[0],
            value=columns,
        )


def target_names(columns: Iterable[str]) -> list[str]:
    """Targets of the columns `<split>_mae/<target>`, each once."""
    return list(dict.fromkeys(name.partition("_mae/")[2] for name in columns if "_mae/" in name))


def check_target(what: str, target: str, known: list[str]) -> None:
    """Raise FigureError unless a table has results for this target."""
    if target not in known:
        raise FigureError(f"{what}: no target {target!r}{suggestion(target, known)}", field="target", value=target)
