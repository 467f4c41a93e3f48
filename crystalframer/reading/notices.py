"""What readers of structures say without refusing them: each text once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from crystalframer.errors import CrystalWarning

_said: set[str] = set()


def notice(text: str) -> None:
    """Warn with a `CrystalWarning`, once for each text, unless Python is told to show all.

    Python's own memory of what it has shown is lost with every `warnings.catch_warnings`, and there is one around each
    file that pymatgen or ASE reads.
    """
    if text not in _said or _shows_all():
        _said.add(text)
        warnings.warn(text, CrystalWarning, stacklevel=2)


@contextmanager
def forgotten() -> Iterator[None]:
    """Forget at the end what `notice` has said inside, where nobody was shown it."""
    before = _said.copy()
    try:
        yield
    finally:
        _said.intersection_update(before)


def left_out(what: str) -> None:
    """Say that some known property of sites is left out.

    Args:
        what: plural, such as `"oxidation states"`.
    """
    notice(f"{what} are left out: the model sees elements and positions only")


def _shows_all() -> bool:
    actions = (action for action, _, category, *_ in warnings.filters if issubclass(CrystalWarning, category))
    return next(actions, "default") in ("always", "all", "error")
