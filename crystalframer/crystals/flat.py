"""Many crystals in flat arrays: the atoms of all crystals one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int64, Shaped, UInt8

from crystalframer.crystals.crystal import Crystal


@dataclass(frozen=True)
class Provenance:
    """The source of data, and the terms on which they may be used."""

    source: str = ""
    licence: str = ""
    citation: str = ""


UNKNOWN = Provenance()


@dataclass(frozen=True, eq=False, repr=False)
class FlatCrystals:
    """Crystals with labels as they are stored. Nothing is checked here; `CrystalDataset` checks everything."""

    ids: Shaped[np.ndarray, " n_crystals"]
    """Unique text."""
    atomic_numbers: UInt8[np.ndarray, " n_atoms"]
    positions: Float[np.ndarray, "n_atoms 3"]
    """Cartesian, Å."""
    offsets: Int64[np.ndarray, " n_crystals+1"]
    """Crystal i owns the atoms offsets[i] to offsets[i + 1]."""
    lattice: Float[np.ndarray, "n_crystals 3 3"]
    """Rows a, b, c, Å."""
    targets: Mapping[str, Float[np.ndarray, " n_crystals"]] = field(default_factory=dict)
    """Target name → labels in its unit, NaN where missing."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Target name → unit; a target that is not named here has none."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name of a target of classes → their names. Its labels are numbers of classes, counted from 0."""
    parts: Shaped[np.ndarray, " n_crystals"] | None = None
    """The part of the given split that each crystal is in: `train`, `validation` or `test`."""
    provenance: Provenance = UNKNOWN

    @staticmethod
    def of(crystals: Sequence[Crystal], target_names: Sequence[str] = ()) -> FlatCrystals:
        """These crystals, with their labels of the targets that are named."""
        return FlatCrystals(
            ids=text_array([crystal.id for crystal in crystals]),
            atomic_numbers=np.concatenate([np.zeros(0), *(c.atomic_numbers for c in crystals)]).astype(np.uint8),
            positions=np.concatenate([np.zeros((0, 3)), *(crystal.positions for crystal in crystals)]),
            offsets=np.cumsum([0, *map(len, crystals)]),
            lattice=np.array([crystal.lattice for crystal in crystals], dtype=np.float64).reshape(-1, 3, 3),
            targets={
                name: np.array([crystal.targets.get(name, np.nan) for crystal in crystals], dtype=np.float64)
                for name in target_names
            },
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int | np.integer) -> Crystal:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a data set of {len(self)} crystals")
        row = row % len(self)
        atoms = slice(self.offsets[row], self.offsets[row + 1])
        return Crystal(
            atomic_numbers=self.atomic_numbers[atoms].astype(np.int64),
            positions=self.positions[atoms],
            lattice=self.lattice[row],
            id=str(self.ids[row]),
            targets={name: float(labels[row]) for name, labels in self.targets.items()},
        )

    def __iter__(self) -> Iterator[Crystal]:
        return (self[row] for row in range(len(self)))

    @property
    def n_atoms(self) -> Int64[np.ndarray, " n_crystals"]:
        """Atoms of each crystal."""
        return np.diff(self.offsets)


def text_array(values: Sequence[str | None]) -> Shaped[np.ndarray, " n"]:
    """Text as an array of objects, which may hold None."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
