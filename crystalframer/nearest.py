"""The training crystals that a model knows best of all near other crystals: what a prediction rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crystalframer.batched import BATCH_SIZE, MAX_ATOMS, Failure, for_each, tabulated
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.large_cells import ChunkedCrystal
from crystalframer.errors import CheckpointError, ConfigError
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import ready
from crystalframer.reading.entry import StructureRecord
from crystalframer.surroundings import plain

if TYPE_CHECKING:
    import pandas

N_SHOWN = 5


@dataclass(frozen=True, eq=False)
class _Neighbours:
    """The nearest training crystals of one structure, or the reason why there are none."""

    id: str
    formula: str
    distances: list[float]
    rows: list[int]
    error: str | None


@plain()
def nearest_training(
    structures: Any,
    model: CrystalFramer | str | Path | None = None,
    n: int = N_SHOWN,
    *,
    batch_size: int = BATCH_SIZE,
    max_atoms: int = MAX_ATOMS,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> pandas.DataFrame:
    """The training crystals that are most like each structure, with their labels and the errors of the model on them.

    Distances are those of the features of the last block, averaged over the atoms (`training_index`). A prediction is
    worth more if such crystals are near, of the same chemistry, and well predicted.

    >>> import crystalframer as cf
    >>> from crystalframer.testing import prototypes
    >>> table = cf.nearest_training(prototypes()[:2], n=3)
    >>> table.groupby("id").size().tolist()
    [3, 3]
    >>> list(table.columns)[:6]
    ['id', 'formula', 'rank', 'training_id', 'training_formula', 'distance']

    Args:
        structures: as in `predict`.
        model: a model, or the path of one. Default: the weights that come with the package.
        n: how many training crystals to show for each structure.
        batch_size: largest number of crystals in a batch.
        max_atoms: largest number of atoms in a batch (a larger cell is alone in one). Lower it if memory runs out.
        device: where to compute, as in `predict`.
        progress: show a progress bar if it takes more than 2 s.

    Returns:
        `n` rows for each structure, nearest first: `id`, `formula`, `rank` from 1, `training_id`, `training_formula`,
        `distance` (1: the median distance between a training crystal and the nearest other), for each scalar target
        its label (`<target>`, NaN if there was none) and prediction - label (`<target>_error`), in its unit, and
        `error`: why there is no neighbour (one row), else None.

    Raises:
        CheckpointError: the model cannot be loaded, or has no index of its training crystals.
        ConfigError: `n` or a batch size is below 1, or the device cannot be used.
    """
    if n < 1:
        raise ConfigError("must be at least 1", field="n", value=n)
    model = ready(model, device)
    if model.index is None:
        raise CheckpointError(
            "the model has no index of its training crystals; make one: model.index = "
            "cf.index_training_crystals(training_data, model)"
        )
    index = model.index

    def rows_and_distances(
        crystals: CrystalBatch | ChunkedCrystal, model: CrystalFramer
    ) -> list[tuple[list[float], list[int]] | Failure]:
        with torch.inference_mode():
            features = model.pooled_features_of(crystals).float().cpu().numpy()
        found = index.nearest(index.of_features(np.nan_to_num(features, posinf=0.0, neginf=0.0)), n)
        failure = Failure("its features are not finite; check the distances between atoms")
        return [
            (distances, rows) if np.isfinite(of_crystal).all() else failure
            for distances, rows, of_crystal in zip(found.distance.tolist(), found.row.tolist(), features, strict=True)
        ]

    def of_batch(records: Sequence[StructureRecord]) -> Iterator[_Neighbours]:
        results = iter(for_each([record.crystal for record in records if record.crystal], model, rows_and_distances))
        for record in records:
            result = next(results) if record.crystal else Failure(record.error or "no structure")
            if isinstance(result, Failure):
                yield _Neighbours(record.id, record.formula if record.crystal else "", [], [], result.reason)
            else:
                yield _Neighbours(record.id, record.formula, *result, None)

    def framed(results: Sequence[_Neighbours], ids: list[str]) -> pandas.DataFrame:
        return _table(results, ids, model)

    return tabulated(structures, of_batch, framed, batch_size, max_atoms, progress, "comparing")


def _table(results: Sequence[_Neighbours], ids: list[str], model: CrystalFramer) -> pandas.DataFrame:
    import pandas

    index = model.index
    assert index is not None
    rows = []
    for result, name in zip(results, ids, strict=True):
        first = {"id": name, "formula": result.formula}
        if result.error is not None:
            rows.append(first | {"error": result.error})
        for rank, (distance, row) in enumerate(zip(result.distances, result.rows, strict=True), 1):
            known: dict[str, Any] = {"training_id": index.ids[row], "training_formula": index.formulas[row]}
            for t, target in enumerate(index.target_names):
                known |= {target: float(index.labels[row, t]), f"{target}_error": float(index.errors[row, t])}
            rows.append(first | {"rank": rank, "distance": distance} | known | {"error": None})
    targets = [name for target in index.target_names for name in (target, f"{target}_error")]
    columns = ["id", "formula", "rank", "training_id", "training_formula", "distance", *targets, "error"]
    frame = pandas.DataFrame(rows, columns=columns)
    frame["rank"] = frame["rank"].astype("Int64")
    frame["error"] = frame["error"].astype(object).where(frame["error"].notna(), None)
    frame.attrs["units"] = {target.name: target.unit for target in model.config.targets if not target.is_class}
    return frame
