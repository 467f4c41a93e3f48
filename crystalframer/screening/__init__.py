"""Predictions for any number of structures: streamed, in shards, resumable.

`plan` divides the input into shards, `shards` computes one and writes it, `screening` has them computed by a pool of
processes, `cluster` does so with Ray, `manifest` tells whether a folder holds this screening, and `report` makes a page
about it.
"""

from crystalframer.errors import ScreeningError
from crystalframer.screening.report import screening_report
from crystalframer.screening.screening import Screening, read_screen, screen

__all__ = ["Screening", "ScreeningError", "read_screen", "screen", "screening_report"]
