"""Where an entry of a file begins, so that a file of millions can be read from any of them on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Just before an entry (a row of a table, a frame of a trajectory, a key of a database)."""

    n_before: int = 0
    """Entries of the file before this one."""
    mark: int | bytes | None = None
    """What the format finds it by: a byte of the file, an id, a key; None where the number does."""


START = Place()
