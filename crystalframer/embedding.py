"""Embeddings: the features that a model computes for a crystal or its atoms, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Float32

from crystalframer.batched import BATCH_SIZE, MAX_ATOMS, Failure, for_each, tabulated
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.elements import SYMBOLS
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import ready
from crystalframer.reading.entry import StructureRecord

if TYPE_CHECKING:
    import pandas

CUMULANTS = ("mean", "std", "third")


def embed(
    structures: Any,
    model: CrystalFramer | str | Path | None = None,
    *,
    layer: int = -1,
    per_atom: bool = False,
    batch_size: int = BATCH_SIZE,
    max_atoms: int = MAX_ATOMS,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> pandas.DataFrame:
    """Compute embeddings of crystal structures: the features of a trained model, for other methods to use.

    The features of an atom describe it and its surroundings. Those of a crystal are cumulants over its atoms, so they
    are the same for every cell and supercell of a crystal. What else changes no embedding is what changes no prediction
    (`model.promises`); for the shipped model these are rotations and mirror images, too.

    A structure that cannot be embedded has an error in its row and does not stop the others.

    >>> import crystalframer as cf
    >>> from crystalframer.testing import prototypes
    >>> table = cf.embed(prototypes()[4:6])
    >>> table.shape, list(table.columns[[0, 1, 2, 130, 258, -1]])
    ((2, 387), ['id', 'formula', 'mean_0', 'std_0', 'third_0', 'error'])
    >>> cf.embed(prototypes()[4], per_atom=True)[["id", "site", "element"]].head(1).values.tolist()
    [['rock salt NaCl', 0, 'Na']]

    Args:
        structures: as in `predict`.
        model: a model, or the path of one. Default: the weights that come with the package.
        layer: block whose output the features are, as in `CrystalTrace.layers`: counted from 0, or from the end if it
            is negative. Default: the last one, whose mean over the atoms is what the model predicts from.
        per_atom: one row for each atom instead of each structure.
        batch_size: largest number of crystals in a batch.
        max_atoms: largest number of atoms in a batch (a larger cell is alone in one). Lower it if memory runs out.
        device: where to compute, as in `predict`.
        progress: show a progress bar if it takes more than 2 s.

    Returns:
        One row per structure, in the order of the input and with its index as in `predict`: `id`, `formula`, then
        `mean_0`, `mean_1`, ... (mean over the atoms, one column for each of the `d_model` features), `std_0`, ...
        (standard deviation), `third_0`, ... (third cumulant divided by the variance, 0 where that is 0), and `error`:
        why there is no embedding, else None. Features are float32, have no unit, and mean something only beside
        those of the same weights and layer. With `per_atom`, one row per atom: `id`, `formula`, `site` (counted from
        0), `element`, `feature_0`, ... and `error`.

    Raises:
        CheckpointError: the model cannot be loaded.
        ConfigError: the model has no such layer, a batch size is below 1, or the device cannot be used.
        TypeError: structures and model were given in the wrong order.
        Exception: one that an iterator of structures raises, as in `predict`.
    """
    if isinstance(structures, CrystalFramer):
        raise TypeError("the first argument is a model; the order is embed(structures, model)")
    model = ready(model, device)
    n_blocks = _n_blocks(layer, model)

    def features(crystals: CrystalBatch | ChunkedCrystal, model: CrystalFramer) -> list[_Features | Failure]:
        found = _atom_features(crystals, model, n_blocks)
        return [_checked(of_crystal if per_atom else cumulants(of_crystal)) for of_crystal in found]

    def of_batch(records: Sequence[StructureRecord]) -> Iterator[_Embedded]:
        results = iter(for_each([record.crystal for record in records if record.crystal], model, features))
        for record in records:
            yield _embedded(record, next(results) if record.crystal else None)

    def framed(results: Sequence[_Embedded], ids: list[str]) -> pandas.DataFrame:
        d_model = model.config.d_model
        return _atom_table(results, ids, d_model) if per_atom else _crystal_table(results, ids, d_model)

    return tabulated(structures, of_batch, framed, batch_size, max_atoms, progress, "embedding")


def feature_names(d_model: int) -> list[str]:
    """Columns of the features of a crystal, in their order.

    >>> feature_names(2)
    ['mean_0', 'mean_1', 'std_0', 'std_1', 'third_0', 'third_1']
    """
    return [f"{cumulant}_{number}" for cumulant in CUMULANTS for number in range(d_model)]


def cumulants(features: Float[np.ndarray, "n_atoms d_model"]) -> Float32[np.ndarray, " n_features"]:
    """Mean, standard deviation, and third cumulant divided by the variance, of each feature over the atoms.

    The quotient has the unit of the features and, other than the third cumulant or its root, their rounding.
    """
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    deviation = features - mean
    variance = (deviation**2).mean(axis=0)
    third = (deviation**3).mean(axis=0)
    third = np.divide(third, variance, out=np.zeros_like(third), where=variance > 0)
    return np.concatenate([mean, np.sqrt(variance), third]).astype(np.float32)


_Features = Float32[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class _Embedded:
    """Features of one structure or of its atoms, or the reason why there are none."""

    id: str
    formula: str
    elements: list[str]
    """Symbol of each atom; empty if there is an error."""
    features: _Features | None
    error: str | None


def _embedded(record: StructureRecord, result: _Features | Failure | None) -> _Embedded:
    if result is None or record.crystal is None:
        return _Embedded(record.id, "", [], None, record.error or "no structure")
    if isinstance(result, Failure):
        return _Embedded(record.id, record.formula, [], None, result.reason)
    elements = [SYMBOLS[z - 1] for z in record.crystal.atomic_numbers.tolist()]
    return _Embedded(record.id, record.formula, elements, result, None)


def _n_blocks(layer: int, model: CrystalFramer) -> int:
    model.config.check_layer(layer)
    return layer % model.config.n_layers + 1


def _atom_features(
    crystals: CrystalBatch | ChunkedCrystal, model: CrystalFramer, n_blocks: int
) -> list[Float32[np.ndarray, "_n_atoms d_model"]]:
    """Features of the atoms of each crystal."""
    with torch.inference_mode():
        if isinstance(crystals, ChunkedCrystal):
            return [model.atom_features_in_chunks(crystals, n_blocks).float().cpu().numpy()]
        features = model.atom_features(crystals.to(model.target_mean.device), n_blocks).float().cpu().numpy()
    ends = np.searchsorted(crystals.crystal_index.cpu().numpy(), np.arange(1, crystals.n_crystals))
    return np.split(features, ends)


def _checked(features: _Features) -> _Features | Failure:
    if np.isfinite(features).all():
        return features
    return Failure("the features of the model are not finite; check the distances between atoms")


def _crystal_table(results: Sequence[_Embedded], ids: list[str], d_model: int) -> pandas.DataFrame:
    import pandas

    names = feature_names(d_model)
    nothing = np.full(len(names), np.nan, dtype=np.float32)
    features = [nothing if result.features is None else result.features for result in results]
    return pandas.concat(
        [
            pandas.DataFrame({"id": ids, "formula": [result.formula for result in results]}),
            pandas.DataFrame(np.array(features, dtype=np.float32).reshape(-1, len(names)), columns=names),
            pandas.DataFrame({"error": pandas.Series([result.error for result in results], dtype=object)}),
        ],
        axis=1,
    )


def _atom_table(results: Sequence[_Embedded], ids: list[str], d_model: int) -> pandas.DataFrame:
    """A structure without features has one row, without site and element."""
    import pandas

    names = [f"feature_{number}" for number in range(d_model)]
    nothing = np.full((1, d_model), np.nan, dtype=np.float32)
    features = [nothing if result.features is None else result.features for result in results]
    counts = [len(of_crystal) for of_crystal in features]
    sites = [site for result in results for site in (range(len(result.elements)) if result.elements else [None])]
    elements = [element for result in results for element in (result.elements or [None])]

    def repeated(values: list[Any]) -> pandas.Series:
        return pandas.Series(np.repeat(np.array(values, dtype=object), counts), dtype=object)

    return pandas.concat(
        [
            pandas.DataFrame({"id": repeated(ids), "formula": repeated([result.formula for result in results])}),
            pandas.DataFrame({"site": pandas.array(sites, dtype="Int64"), "element": elements}),
            pandas.DataFrame(np.concatenate([np.zeros((0, d_model), np.float32), *features]), columns=names),
            pandas.DataFrame({"error": repeated([result.error for result in results])}),
        ],
        axis=1,
    )
