"""Predictions for more structures than fit into memory or an afternoon: streamed, in shards, resumable.

`plan` divides the input into shards, `shards` computes one and writes it, `workers` has several computed at a time,
`cluster` does so with Ray, and `run` keeps the books: what was asked for, what is there, what is left.
"""

from crystalframer.errors import ScreeningError
from crystalframer.screening.run import Screening, read_screen, screen

__all__ = ["Screening", "ScreeningError", "read_screen", "screen"]
