"""Learn to tell sound crystals from altered ones by the features of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from crystalframer.alterations import ALTER
from crystalframer.batched import Failure, for_each
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.datasets.sources import dataset
from crystalframer.errors import ConfigError, UncertaintyError
from crystalframer.model.network import CrystalFramer, crystal_index
from crystalframer.prediction import ready
from crystalframer.soundness import ALTERATIONS, N_EPOCHS, SOUND, AtomFeatures, Soundness, fitted
from crystalframer.surroundings import plain

N_CRYSTALS, N_HELD_OUT, MOST_ATOMS = 8000, 4000, 30
FEWEST = 100
"""Crystals without which the classifier would learn them by heart, and its limit be a guess."""
TWICE = tuple(kind for kind, alteration in ALTERATIONS.items() if alteration.is_unrelaxed)
"""Alterations that are harder to see, so each crystal is altered twice."""
_AT_ONCE = 64


@plain()
def learn_soundness(
    training: CrystalDataset | str | Path,
    held_out: CrystalDataset | str | Path,
    model: CrystalFramer | str | Path | None = None,
    *,
    n_crystals: int = N_CRYSTALS,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Soundness:
    """Learn to tell crystals like the training crystals from crystals that are wrong or not relaxed.

        model.soundness = cf.learn_soundness(training_data, validation_data, model)
        cf.save(model, "my-model")  # its predictions now say `not_relaxed`, and more in `outside_training`

    Training crystals of at most 30 atoms are altered: atoms displaced by 0.1 to 0.5 Å, cells strained by 2 to 12 %,
    atoms removed or added, species exchanged, elements replaced. A small classifier learns to recognise them by the
    features of all layers of the model, which stays as it is. 2 % of the held-out crystals are flagged.

    The training crystals must be relaxed by the method of the crystals that it shall judge: the classifier takes other
    lattice constants for strain.

    Args:
        training: the crystals that trained the model. Labels play no part.
        held_out: sound crystals that did not train it.
        model: a model, or the path of one. Default: the weights that come with the package.
        n_crystals: largest number of training crystals, drawn at random.
        seed: random seed.
        device: where to compute features, as in `predict`.
        progress: show progress bars if it takes more than 2 s.

    Raises:
        DataError: a data set cannot be read.
        UncertaintyError: fewer than 100 crystals on either side.
        ConfigError: `n_crystals` is below 100.
        CheckpointError: the model cannot be loaded.
    """
    if n_crystals < FEWEST:
        raise ConfigError(f"must be at least {FEWEST}", field="n_crystals", value=n_crystals)
    model = ready(model, device)
    generator = np.random.default_rng(seed)
    sound = _drawn(training, n_crystals, MOST_ATOMS, "training", generator)
    others = _drawn(held_out, N_HELD_OUT, None, "held_out", generator)
    of_kinds = {SOUND: sound}
    for kind, alter in ALTER.items():
        altered = [alter(crystal, generator) for crystal in sound * (2 if kind in TWICE else 1)]
        of_kinds[kind] = [crystal for crystal in altered if crystal is not None]
    total, quiet = len(others) + sum(map(len, of_kinds.values())), not progress
    with tqdm(total=total, desc="altered crystals", unit=" crystals", delay=2, leave=False, disable=quiet) as bar:
        features = {kind: _features(crystals, model, bar) for kind, crystals in of_kinds.items()}
        of_others = _features(others, model, bar)
    epochs = tqdm(range(N_EPOCHS), "learning", unit=" epochs", delay=2, leave=False, disable=quiet)
    return fitted(features, of_others, model.config.d_model, seed, epochs)


def _drawn(
    data: CrystalDataset | str | Path, most: int, most_atoms: int | None, name: str, generator: np.random.Generator
) -> list[Crystal]:
    data = data if isinstance(data, CrystalDataset) else dataset(data)
    rows = np.flatnonzero(data.n_atoms <= (most_atoms or data.n_atoms.max()))
    rows = np.sort(generator.permutation(rows)[:most])
    if len(rows) < FEWEST:
        size = "" if most_atoms is None else f" of at most {most_atoms} atoms"
        message = f"has {len(rows)} crystals{size}; to recognise crystals that are wrong needs at least {FEWEST}"
        raise UncertaintyError(message, field=name, value=len(rows))
    return list(data.select(rows))


def _features(crystals: Sequence[Crystal], model: CrystalFramer, bar: tqdm) -> AtomFeatures:
    """Crystals that the model cannot take, such as those with atoms that coincide now, are left out."""

    def of_layers(batch: CrystalBatch | ChunkedCrystal, model: CrystalFramer) -> list[np.ndarray]:
        with torch.inference_mode():
            features = torch.cat(list(model.layers_of(batch)), dim=1).half().cpu().numpy()
        ends = np.cumsum(np.bincount(crystal_index(batch, torch.device("cpu"))[0]))
        return np.split(features, ends[:-1])

    found = []
    for first in range(0, len(crystals), _AT_ONCE):
        some = crystals[first : first + _AT_ONCE]
        results = for_each(some, model, of_layers)
        found += [result for result in results if not isinstance(result, Failure) and np.isfinite(result).all()]
        bar.update(len(some))
    return AtomFeatures(np.concatenate(found), np.array([len(result) for result in found], dtype=np.int64))
