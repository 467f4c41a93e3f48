"""What is trained and scored on: crystals in three parts, the same for every model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import crystalframer as cf
from crystalframer.config import Target
from crystalframer.datasets import splits as published
from crystalframer.datasets.dataset import PARTS, CrystalDataset, Splits

SHARED = Path(__file__).parents[3] / "shared" / "data"
"""Materials Project crystals that lie beside the repository where it is developed; not shipped."""
HOLDOUT_SHARE = 0.1
"""Of the crystals with a label that a model may see: those that choose the epoch."""
SPLIT_SEED = 0
QUICK_CRYSTALS = 240
FORMATION_ENERGY = Target("formation_energy_per_atom", "eV/atom")
PHONON_PEAK = Target("last_phdos_peak_cm1", "1/cm")
Arrays = Mapping[str, np.ndarray]


class MissingData(FileNotFoundError):
    """Crystals that are not here; the message says where they are looked for."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Crystals in three parts: to train on, to choose the epoch, and to be scored on."""

    name: str
    group: str
    """What is averaged over: the problems of one group are folds of one another."""
    target: Target
    parts: Splits

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything a worker needs, by `part.field`."""
        found = {}
        for part in PARTS:
            crystals: CrystalDataset = getattr(self.parts, part)
            for field in ("atomic_numbers", "positions", "offsets", "lattice"):
                found[f"{part}.{field}"] = getattr(crystals, field)
            found[f"{part}.ids"] = crystals.ids.astype(str)
            found[f"{part}.labels"] = crystals.targets[self.target.name]
        return found

    @property
    def digest(self) -> str:
        digest = hashlib.sha256(self.target.label.encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(name.encode() + str(array.dtype).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **self.arrays)  # type: ignore[arg-type]
        partial.replace(path)

    def __str__(self) -> str:
        sizes = [len(getattr(self.parts, part)) for part in PARTS]
        return f"{self.name}: {self.target.label}, {sizes[0]:,} to train, {sizes[1]:,} held out, {sizes[2]:,} scored"


def read_splits(path: Path, target: Target) -> Splits:
    """The parts that `Problem.save` wrote."""
    with np.load(path) as saved:
        return Splits(**{part: _dataset(saved, part, target) for part in PARTS})


def _dataset(saved: Arrays, part: str, target: Target) -> CrystalDataset:
    fields: dict[str, Any] = {
        name: saved[f"{part}.{name}"] for name in ("atomic_numbers", "positions", "offsets", "lattice")
    }
    labels = {target.name: saved[f"{part}.labels"]}
    return CrystalDataset(
        saved[f"{part}.ids"].astype(object), **fields, targets=labels, units={target.name: target.unit}
    )


def problems(data: str, sizes: list[int] | None = None, quick: bool = False) -> list[Problem]:
    """The problems of a data set.

    Args:
        data: `binaries`, `phonons` (five folds) or `demo`.
        sizes: numbers of crystals to train on, beside all of them (`binaries` and `demo`).
        quick: few crystals, and one fold.

    Raises:
        MissingData: the files are not here.
    """
    if data == "phonons":
        return _phonons(quick)
    if data == "demo":
        seen = cf.dataset("demo").with_targets([FORMATION_ENERGY]).labelled().split(cf.DataConfig(), 0)
        train, holdout, scored = seen.train, seen.validation, seen.test
    else:
        labelled = _read("binaries_train.parquet", FORMATION_ENERGY)
        scored = _read("binaries_val.parquet", FORMATION_ENERGY)
        order = np.random.default_rng(SPLIT_SEED).permutation(len(labelled))
        n_holdout = round(HOLDOUT_SHARE * len(labelled))
        train, holdout = labelled.select(order[n_holdout:]), labelled.select(order[:n_holdout])
    if quick:
        train, holdout, scored = (
            part.select(np.arange(min(len(part), n)))
            for part, n in ((train, QUICK_CRYSTALS), (holdout, QUICK_CRYSTALS // 8), (scored, QUICK_CRYSTALS // 8))
        )
    return [
        *(_first(data, n, train, holdout, scored) for n in sorted(sizes or []) if n < len(train)),
        Problem(data, data, FORMATION_ENERGY, Splits(train, holdout, scored)),
    ]


def _first(data: str, n: int, train: CrystalDataset, holdout: CrystalDataset, scored: CrystalDataset) -> Problem:
    """The first n crystals to train on, and of the held-out ones the same share."""
    n_holdout = max(1, round(n * len(holdout) / len(train)))
    parts = Splits(train.select(np.arange(n)), holdout.select(np.arange(n_holdout)), scored)
    return Problem(f"{data}-{n}", f"{data}-{n}", FORMATION_ENERGY, parts)


def _phonons(quick: bool) -> list[Problem]:
    crystals = _read("matbench_phonons.parquet", PHONON_PEAK)
    folds = published.matbench_folds(len(crystals))
    found = []
    for fold in range(1 if quick else published.N_FOLDS):
        part = published.fold_parts(folds, fold)
        rows = {name: np.flatnonzero(part == name) for name in PARTS}
        if quick:
            rows = {name: chosen[:QUICK_CRYSTALS] for name, chosen in rows.items()}
        parts = Splits(**{name: crystals.select(chosen) for name, chosen in rows.items()})
        found.append(Problem(f"phonons-fold{fold}", "phonons", PHONON_PEAK, parts))
    return found


def _read(name: str, target: Target) -> CrystalDataset:
    if not (SHARED / name).exists():
        raise MissingData(
            f"{name} is not at ../shared/data beside the repository; it is not shipped. Put it there, or run "
            "with --data demo"
        )
    return CrystalDataset.load(SHARED / name, [target])
