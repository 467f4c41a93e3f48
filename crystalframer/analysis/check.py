"""Tests of the physics of a model: its predictions must not depend on how a crystal is described and computed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from crystalframer import ops
from crystalframer.analysis.batches import predictions
from crystalframer.analysis.invariance import KINDS, invariance, readable
from crystalframer.config import FrameConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import prepare
from crystalframer.datasets.sources import dataset
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import model_second, ready
from crystalframer.surroundings import plain
from crystalframer.testing import prototypes, random_crystal

if TYPE_CHECKING:
    import pandas

LIMIT = 1e-4
"""Largest change, in standard deviations of the training labels, that counts as rounding."""
DESCRIPTIONS = {
    "rotation": "rotated in space",
    "translation": "all atoms moved by one vector",
    "cell": "other lattice vectors of the same crystal",
    "supercell": "two to four cells as one cell",
    "images": "atoms moved by lattice vectors",
    "order": "atoms in another order",
    "ties": "ties between frame axes decided at random, as in training",
    "batch": "predicted alone and in a batch",
    "repetition": "predicted twice: the same bits",
    "kernels": "compiled kernels and plain torch",
    "precision": "32 bits and 64 bits",
    "device": "on CUDA and on the CPU",
}
"""Check → the comparison."""
CELL_KINDS = ("cell", "supercell", "images")
"""Checks that a frame method may fail by promise (`FramePromises.sees_cell`)."""
N_DEMO, N_RANDOM, LARGEST_CELL = 24, 8, 20


@dataclass(frozen=True, eq=False, repr=False)
class CheckReport:
    """How much each test changed the predictions."""

    table: pandas.DataFrame
    """One row for each check and target: `check`, `target`, `largest` and `median` size of the change, in `unit`,
    `worst` (id of the structure that changed most), `relative` (the largest in standard deviations of the training
    labels), `passed` (None for `ties`, which are reported and not judged)."""
    n_structures: int
    frame: FrameConfig
    """Frames of the model."""

    @property
    def passed(self) -> bool:
        return bool((self.table["passed"] != False).all())  # noqa: E712 - None is no failure

    def summary(self) -> str:
        """The table in words, with a conclusion."""
        lines = [
            f"{self.n_structures} structures; a change of up to {LIMIT:g} standard deviations counts as rounding",
            "",
        ]
        for target, rows in self.table.groupby("target", sort=False):
            lines.append(f"{target} ({rows['unit'].iloc[0]})" if rows["unit"].iloc[0] else str(target))
            for row in rows.to_dict("records"):
                verdict = {True: "same", False: "DIFFERS", None: "for information"}[row["passed"]]
                worst = "" if row["largest"] == 0 else f"; most: {row['worst']}"
                lines.append(
                    f"  {verdict:<15} {row['check']:<11} largest {row['largest']:<9.2g} median {row['median']:<9.2g} "
                    f"{DESCRIPTIONS[row['check']]}{worst}"
                )
        left_out = [f"{kind} ({text})" for kind, text in DESCRIPTIONS.items() if kind not in set(self.table["check"])]
        if left_out:
            lines += ["", f"not tested here: {', '.join(left_out)}"]
        if not self.passed:
            lines += ["", *self._causes()]
        return "\n".join(lines)

    def _causes(self) -> Iterator[str]:
        """Likely causes of the differences."""
        differing = dict.fromkeys(self.table["check"][self.table["passed"] == False])  # noqa: E712
        promises = self.frame.promises
        expected = [kind for kind in differing if promises.sees_cell and kind in CELL_KINDS]
        if expected:
            kinds = ", ".join(expected)
            yield f"expected: the frame method {self.frame.method!r} depends on the choice of cell ({kinds})"
        if promises.axes and len(differing) > len(expected):
            yield "Most differences are in symmetric structures, whose frames are not unique (docs/limits.md)."
            if promises.has_weighted_sets:
                yield (
                    "A model that is loaded with average_ties=True (command line: --average-ties) averages over "
                    "equivalent frames, and has no such differences."
                )

    def __repr__(self) -> str:
        return f"CheckReport: {self.summary()}"


@model_second
@plain()
def check(
    structures: Any = None,
    model: CrystalFramer | str | Path | None = None,
    n_draws: int = 4,
    progress: bool = True,
) -> CheckReport:
    """Test that predictions do not depend on rotation, choice of cell, batching, precision, device or repetition.

    >>> import crystalframer as cf
    >>> from crystalframer.testing import prototypes, random_crystal
    >>> report = cf.check([random_crystal(seed, n_atoms=3) for seed in (1, 2)], cf.load(), n_draws=1)
    >>> report.passed
    True

    Args:
        structures: anything that `predict` takes. Default: 12 prototypes, 24 crystals of the shipped data set and 8
            random ones, which take half a minute.
        model: a model, or the path of one. Default: the weights that come with the package.
        n_draws: number of random rotations, cells, ... of each structure.
        progress: show progress bars.

    Raises:
        CrystalError: a structure cannot be read, or the model cannot take it.
        ConfigError: `n_draws` is not positive.
        CheckpointError: the model cannot be loaded.
    """
    import pandas

    model = ready(model, None)
    crystals = _default_crystals() if structures is None else readable(structures)
    changes = invariance(model, crystals, KINDS, n_draws, progress)
    rows = []
    for kind, part in changes.groupby("kind", sort=False):
        values = part[[f"change/{name}" for name in model.config.target_names]].to_numpy()
        rows += _rows(str(kind), part["id"].to_numpy(), values, model)
    ids = np.array([crystal.id for crystal in crystals])
    for kind, values in _computed_otherwise(crystals, model, progress):
        rows += _rows(kind, ids, values, model)
    return CheckReport(pandas.DataFrame(rows), len(crystals), model.config.frame)


def _default_crystals() -> list[Crystal]:
    small = [crystal for crystal in dataset("demo") if len(crystal) <= LARGEST_CELL]
    chosen = np.linspace(0, len(small) - 1, N_DEMO).round().astype(int)
    random = [random_crystal(seed, n_atoms=2 + seed) for seed in range(N_RANDOM)]
    return [*prototypes(), *(small[n] for n in chosen), *random]


def _computed_otherwise(
    crystals: list[Crystal], model: CrystalFramer, progress: bool
) -> Iterator[tuple[str, Float[np.ndarray, "n_crystals n_targets"]]]:
    """Changes of the predictions when the same structures are computed in another way."""
    together = predictions(crystals, model, progress=progress)
    packed = prepare(crystals, model.config.radius, enlarge=model.config.enlarges_radius)
    weights = model.target_mean
    alone = []
    with torch.inference_mode():
        for row in range(len(packed)):
            alone.append(model(packed.batch([row], weights.dtype).to(weights.device)))
    yield "batch", torch.cat(alone).double().cpu().numpy() - together
    yield "repetition", predictions(crystals, model, progress=progress) - together
    if weights.dtype == torch.float32:
        with ops.use("reference"):
            yield "kernels", predictions(crystals, model, progress=progress) - together
        # On the CPU: some devices have no 64 bits.
        yield "precision", predictions(crystals, copy.deepcopy(model).cpu().double(), progress=progress) - together
    if torch.cuda.is_available():
        other = "cpu" if weights.is_cuda else "cuda"
        yield "device", predictions(crystals, copy.deepcopy(model).to(other), progress=progress) - together


def _rows(
    kind: str, ids: np.ndarray, changes: Float[np.ndarray, "n n_targets"], model: CrystalFramer
) -> list[dict[str, Any]]:
    rows = []
    sizes, deviations = np.abs(changes), model.target_std.double().cpu().numpy()
    for target, size, deviation in zip(model.config.targets, sizes.T, deviations, strict=True):
        largest = float(size.max())  # NaN if any is
        limit = 0.0 if kind == "repetition" else LIMIT * deviation
        rows.append(
            {
                "check": kind,
                "target": target.name,
                "largest": largest,
                "median": float(np.median(size)),
                "unit": target.unit,
                "worst": str(ids[int(size.argmax())]),
                "relative": largest / float(deviation),
                "passed": None if kind == "ties" else largest <= limit,
            }
        )
    return rows
