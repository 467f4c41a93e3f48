"""Predictions for many variants of few structures, in few batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from tqdm.auto import tqdm

from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import batch_ends, prepare
from crystalframer.model.network import CrystalFramer

MAX_EDGES = 50_000
"""Most neighbours of all atoms of a batch: traces of 8 heads in float64 then take a quarter of a gigabyte."""
MAX_CRYSTALS = 8
"""Most crystals in a batch: plain torch in float64 takes half a second for each, and the progress bar should move."""


def batches(
    crystals: Sequence[Crystal], model: CrystalFramer, title: str, progress: bool = True
) -> Iterator[CrystalBatch]:
    """The crystals in their order, in the model's precision and on its device.

    Args:
        title: of the progress bar, which shows if it takes more than 2 s.

    Raises:
        CrystalError: a crystal whose neighbours cannot be listed, with its row and id.
    """
    packed = prepare(crystals, model.config.radius, enlarge=model.config.enlarges_radius)
    weights = model.target_mean
    ends = batch_ends([(packed.n_edges, MAX_EDGES)], len(packed), MAX_CRYSTALS)
    with tqdm(total=len(packed), desc=title, unit=" crystals", delay=2, leave=False, disable=not progress) as bar:
        for rows in np.split(np.arange(len(packed)), ends[:-1]):
            yield packed.batch(rows, weights.dtype).to(weights.device)
            bar.update(len(rows))


def predictions(
    crystals: Sequence[Crystal], model: CrystalFramer, noise_seed: int | None = None, progress: bool = True
) -> Float[np.ndarray, "n_crystals n_targets"]:
    """Predictions for the crystals in their order, each target in its unit.

    Args:
        noise_seed: see `CrystalFramer`.
        progress: show a progress bar if it takes more than 2 s.

    Raises:
        CrystalError: a crystal whose neighbours cannot be listed, with its row and id.
    """
    with torch.inference_mode():
        values = [model(batch, noise_seed) for batch in batches(crystals, model, "predicting", progress)]
    return torch.cat(values).double().cpu().numpy()
