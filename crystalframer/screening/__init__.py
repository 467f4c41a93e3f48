"""Predictions for any number of structures: streamed, in shards, resumable.

`plan` divides the input into shards, `shards` computes one and writes it, `screening` has them computed by a pool of
processes, `cluster` does so with Ray, and `manifest` tells whether a folder holds this screening.
"""

from crystalframer.errors import ScreeningError
from crystalframer.screening.screening import Screening, read_screen, screen

__all__ = ["Screening", "ScreeningError", "read_screen", "screen"]
