"""A data set: crystals in flat arrays, with labels, units and splits."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int64, Shaped
from tqdm.auto import tqdm

from crystalframer.config import DataConfig, Target
from crystalframer.crystals.crystal import SMALLEST_CELL_HEIGHT, Crystal, cell_heights
from crystalframer.crystals.flat import UNKNOWN, FlatCrystals, Provenance, text_array
from crystalframer.datasets import classes, packed
from crystalframer.datasets.drawn import drawn_parts
from crystalframer.datasets.duplicates import duplicate_groups
from crystalframer.datasets.symmetry import space_groups
from crystalframer.elements import HIGHEST_ATOMIC_NUMBER, SYMBOLS, anonymous_formula, reduced_formula
from crystalframer.errors import CrystalError, DataError, UnknownTarget, listed

if TYPE_CHECKING:
    import pandas

PARTS = ("train", "validation", "test")
_PART_NAMES = {name: name for name in PARTS} | {"val": "validation", "valid": "validation"}


@dataclass(frozen=True, eq=False, repr=False)
class CrystalDataset(FlatCrystals):
    """Crystals with labels in flat arrays: the atoms of all crystals one after another.

    `dataset[i]` is a `Crystal` with its id and labels.

        >>> data = cf.dataset("demo")
        >>> data[0].id, len(data), list(data.targets)[:2]
        ('JVASP-1002', 502, ['formation_energy_per_atom', 'band_gap'])

    Raises:
        DataError: arrays that do not fit together, an id given twice, an unknown split, an infinite label, or a crystal
            that the model cannot take. `row` of the error counts from 1.
    """

    def __post_init__(self) -> None:
        if self.parts is not None:
            object.__setattr__(self, "parts", _known_parts(self.parts))
        object.__setattr__(self, "units", {name: self.units.get(name, "") for name in self.targets})
        object.__setattr__(
            self, "classes", {name: tuple(self.classes[name]) for name in self.targets if name in self.classes}
        )
        _check_shapes(self)
        _check_crystals(self)

    @classmethod
    def from_crystals(
        cls,
        crystals: Iterable[Crystal],
        targets: Sequence[Target] = (),
        parts: Sequence[str] | None = None,
        provenance: Provenance = UNKNOWN,
    ) -> CrystalDataset:
        """Make a data set of crystals. A crystal without an id gets its row number.

        Args:
            targets: labels to keep, with their units. Of a target that names its classes, labels are their numbers.
            parts: the given split of each crystal: `train`, `validation` or `test`.

        Raises:
            DataError: as for the data set itself.
        """
        crystals = list(crystals)
        flat = FlatCrystals.of(crystals, [target.name for target in targets])
        unnamed = [target.name for target in targets if target.is_class and not target.classes]
        if unnamed:  # the labels are classes by their names, which are numbers
            as_numbers = [Target(target.name) if target.name in unnamed else target for target in targets]
            return cls.from_crystals(crystals, as_numbers, parts, provenance).with_targets(targets)
        return cls(
            **vars(flat)
            | {
                "ids": text_array([id or str(row) for row, id in enumerate(flat.ids, start=1)]),
                **_described(targets),
                "parts": None if parts is None else text_array(list(parts)),
                "provenance": provenance,
            }
        )

    @cached_property
    def formulas(self) -> Shaped[np.ndarray, " n_crystals"]:
        """Reduced formula of each crystal."""
        crystal_index = np.repeat(np.arange(len(self)), self.n_atoms)
        sorted_numbers = self.atomic_numbers[np.lexsort((self.atomic_numbers, crystal_index))]
        known: dict[bytes, str] = {}
        formulas = []
        for start, end in itertools.pairwise(self.offsets.tolist()):
            numbers = sorted_numbers[start:end]
            key = numbers.tobytes()
            if key not in known:
                known[key] = reduced_formula(numbers)
            formulas.append(known[key])
        return text_array(formulas)

    @cached_property
    def chemical_systems(self) -> Shaped[np.ndarray, " n_crystals"]:
        """The elements of each crystal, by alphabet: `Ca-O-Ti`."""
        atoms = (self.atomic_numbers[start:end] for start, end in itertools.pairwise(self.offsets.tolist()))
        return text_array(["-".join(sorted(SYMBOLS[z - 1] for z in set(numbers.tolist()))) for numbers in atoms])

    @cached_property
    def space_groups(self) -> Int64[np.ndarray, " n_crystals"]:
        """Number of the space group of each crystal, from 1 to 230, within 0.1 Å (as in the Materials Project).

        The two hands of a chiral structure have one number, the lower: P3₂21 is 152, as P3₁21. It takes about 5 ms a
        crystal, and a progress bar is shown.
        """
        return space_groups(self, self.duplicates)

    @cached_property
    def prototypes(self) -> Shaped[np.ndarray, " n_crystals"]:
        """Structure type of each crystal: its formula without elements, and its space group.

        `AB-225` is rock salt, `ABC3-221` cubic perovskite. It is coarser than a full comparison of structures: some
        structure types share formula and space group, but no type has two names, unless a distortion lowers its
        symmetry.
        """
        atoms = (self.atomic_numbers[start:end] for start, end in itertools.pairwise(self.offsets.tolist()))
        types = zip(atoms, self.space_groups.tolist(), strict=True)
        return text_array([f"{anonymous_formula(numbers)}-{group}" for numbers, group in types])

    @cached_property
    def duplicates(self) -> Int64[np.ndarray, " n_crystals"]:
        """Group of each crystal, counted from 0: crystals that are the same, whatever their ids, cells, orientations or
        handedness, are in one group.
        """
        return duplicate_groups(self, self.formulas)

    def target(self, name: str) -> Target:
        """A target with its unit.

        Raises:
            DataError: no such target; the message names the nearest.
        """
        if name not in self.targets:
            raise UnknownTarget(f"the data set has no target {name!r}", name, self.targets)
        classes = self.classes.get(name, ())
        return Target(name, self.units[name], "class" if name in self.classes else "scalar", classes)

    def with_targets(self, targets: Iterable[str | Target]) -> CrystalDataset:
        """The same crystals with these targets only, in this order. A `Target` may state a unit that is not yet known,
        that whole numbers are classes, and the order of classes.

        Raises:
            DataError: no such target (the nearest is named), another unit than the data set's, or a class that the
                target does not name.
        """
        labels, kept = {}, []
        for wanted in targets:
            wanted = Target(wanted) if isinstance(wanted, str) else wanted
            known = self.target(wanted.name)
            if wanted.unit and known.unit and wanted.unit != known.unit:
                raise DataError(
                    f"target {wanted.name!r} is in {known.unit} in the data set, but {wanted.unit} was asked for; "
                    "correct the target's unit or convert the labels",
                    field=wanted.name,
                    value=wanted.unit,
                )
            labels[wanted.name] = self.targets[wanted.name]
            if wanted.is_class and not (known.is_class and wanted.classes in ((), known.classes)):
                names = classes.named(labels[wanted.name], known)
                wanted, labels[wanted.name] = classes.numbered(names, wanted)
            kept.append(
                known
                if known.is_class and not wanted.classes
                else dataclasses.replace(wanted, unit=wanted.unit or known.unit)
            )
        return dataclasses.replace(self, targets=labels, **_described(kept))

    def labelled(self) -> CrystalDataset:
        """The crystals that have a label of at least one target."""
        has_label = np.zeros(len(self), dtype=bool)
        for labels in self.targets.values():
            has_label |= ~np.isnan(labels)
        return self.select(has_label)

    def select(self, rows: Int64[np.ndarray, " n"] | Bool[np.ndarray, " n"] | Sequence[int]) -> CrystalDataset:
        """The crystals at these row numbers (counted from 0), in this order, or where a mask over all rows is true."""
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if len(rows) != len(self):
                raise DataError(f"a mask of {len(rows)} rows for a data set of {len(self)} crystals")
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.int64)
        n_atoms = self.n_atoms[rows]
        offsets = np.cumsum([0, *n_atoms])
        atoms = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], n_atoms)
        return dataclasses.replace(
            self,
            ids=self.ids[rows],
            atomic_numbers=self.atomic_numbers[atoms],
            positions=self.positions[atoms],
            offsets=offsets,
            lattice=self.lattice[rows],
            targets={name: labels[rows] for name, labels in self.targets.items()},
            parts=None if self.parts is None else self.parts[rows],
        )

    def split(self, config: DataConfig, seed: int) -> Splits:
        """Divide into training, validation and test part. `max_atoms_per_crystal` applies to the first two.

        Split `given` takes the data set's own parts. `random` draws crystals by fraction; crystals that are the same
        (`duplicates`) stay together. `group`, `chemical-system`, `prototype` and `space-group` keep all crystals of one
        reduced formula (chemical system, ...) together. Drawn parts never exceed their fractions, so very common
        crystals or groups go to training. `element` leaves out all crystals that contain some elements, and
        `property-tail` those with the highest labels.

        Raises:
            DataError: no split is given, a part that was asked for would be empty, no crystal contains an element of
                `test_elements`, or there is no target `tail_target`.

        Example:
            >>> data = cf.dataset("demo")
            >>> splits = data.split(cf.DataConfig(split="prototype", test_fraction=0.2), seed=0)
            >>> set(splits.train.prototypes) & set(splits.test.prototypes)
            set()
        """
        if config.split != "given":
            part = drawn_parts(self, config, seed)
        elif self.parts is not None:
            part = self.parts
        else:
            raise DataError(
                "the data set has no split of its own (a column `split` with train, validation or test); "
                "choose 'random' or another split",
                field="split",
            )
        rows = {name: np.flatnonzero(part == name) for name in PARTS}
        if config.max_atoms_per_crystal is not None:
            for name in ("train", "validation"):
                rows[name] = rows[name][self.n_atoms[rows[name]] <= config.max_atoms_per_crystal]
        if not len(rows["train"]):
            raise DataError(
                f"no crystal is left to train on (split {config.split!r}, {len(self)} crystals, max_atoms_per_crystal "
                f"= {config.max_atoms_per_crystal}); raise max_atoms_per_crystal or choose another split",
                field="train",
            )
        return Splits(**{name: self.select(rows[name]) for name in PARTS})

    def to_frame(self) -> pandas.DataFrame:
        """One row per crystal: id, formula, n_atoms, a column per target, and the split if there is one."""
        import pandas

        columns: dict[str, Any] = {"id": self.ids, "formula": self.formulas, "n_atoms": self.n_atoms}
        columns |= self.targets
        if self.parts is not None:
            columns["split"] = self.parts
        return pandas.DataFrame(columns)

    def summary(self) -> str:
        """A description in a few lines: size, elements, labels of each target, split, origin."""
        n_elements = len(np.unique(self.atomic_numbers))
        lines = [f"{len(self):,} crystals, {len(self.atomic_numbers):,} atoms, {n_elements} elements"]
        if len(self):
            n_atoms = self.n_atoms
            lines[0] += f" ({n_atoms.min()} to {n_atoms.max()} atoms per crystal, median {np.median(n_atoms):g})"
        for name, labels in self.targets.items():
            present = labels[~np.isnan(labels)]
            line = f"  {self.target(name).label}: {len(present):,} labels"
            if name in self.classes:
                of_class = classes.counts(labels, self.classes[name]).items()
                line += f", classes: {', '.join(f'{n:,} {each}' for each, n in of_class)}"
            elif len(present):
                line += f", {present.min():.4g} to {present.max():.4g}, mean {present.mean():.4g}"
            lines.append(line)
        if self.parts is not None:
            counts = Counter(self.parts.tolist())
            lines.append("  split: " + ", ".join(f"{name} {counts[name]:,}" for name in PARTS))
        for title, text in dataclasses.asdict(self.provenance).items():
            if text:
                lines.append(f"  {title}: {text}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"CrystalDataset: {self.summary()}"

    def __repr__(self) -> str:
        labels = f"; labels: {listed([self.target(name).label for name in self.targets], 4)}" if self.targets else ""
        counts = Counter([] if self.parts is None else self.parts.tolist())
        split = "; " + ", ".join(f"{name} {counts[name]:,}" for name in PARTS) if counts else ""
        n_elements = len(np.unique(self.atomic_numbers))
        return f"CrystalDataset of {len(self):,} crystals, {n_elements} elements{labels}{split}"

    def _repr_html_(self) -> str:
        from crystalframer.object_cards import dataset_card

        return dataset_card(self)

    def save(self, path: str | Path) -> None:
        """Write one packed parquet file (see `packed.py`). An existing file stays until the new one is complete.

        Raises:
            DataError: the file cannot be written, or a target has the name of another column.
        """
        starts = range(0, len(self), packed.ROWS_PER_GROUP)
        groups = (self.select(range(start, min(start + packed.ROWS_PER_GROUP, len(self)))) for start in starts)
        targets = [self.target(name) for name in self.targets]
        packed.write(Path(path), groups, targets, self.parts is not None, self.provenance)

    @staticmethod
    def write(
        path: str | Path,
        crystals: Iterable[Crystal],
        targets: Sequence[Target] = (),
        provenance: Provenance = UNKNOWN,
    ) -> None:
        """Write crystals to a packed file as they come, in bounded memory.

        Raises:
            DataError: a crystal has no id. (An id given twice shows when the file is loaded.)
        """
        path = Path(path)
        total = len(crystals) if isinstance(crystals, Sized) else None
        stream = iter(tqdm(crystals, desc=f"writing {path.name}", unit=" crystals", delay=2, total=total))

        def groups() -> Iterator[CrystalDataset]:
            n_written = 0
            while group := list(itertools.islice(stream, packed.ROWS_PER_GROUP)):
                for row, crystal in enumerate(group, start=n_written + 1):
                    if not crystal.id:
                        raise DataError("the crystal has no id; give each crystal its own", path=path, row=row)
                n_written += len(group)
                yield CrystalDataset.from_crystals(group, targets)

        packed.write(path, groups(), targets, False, provenance)

    @staticmethod
    def load(path: str | Path, targets: Sequence[str | Target] | None = None) -> CrystalDataset:
        """Read a packed file, or any parquet table with columns `atomic_numbers`, `positions` (Å) or `frac_coords`, and
        `lattice` (Å) of flat lists.

        Args:
            targets: label columns to read. Default: those of the packed file; of another table, all columns of numbers
                that do not merely describe the structure (such as `n_atoms` or `volume`).

        Raises:
            DataError: the file is missing, truncated, of a newer version, lacks a column, or holds a bad row.
        """
        try:
            dataset = CrystalDataset(**vars(packed.read(Path(path), targets)))
            return dataset if targets is None else dataset.with_targets(targets)
        except DataError as error:
            error.at(path=Path(path))
            raise


@dataclass(frozen=True, eq=False, repr=False)
class Splits:
    """The three parts of a data set. No crystal should be in two of them; `n_known` counts those that are."""

    train: CrystalDataset
    validation: CrystalDataset
    test: CrystalDataset

    def __repr__(self) -> str:
        return "Splits: " + ", ".join(f"{name} {len(getattr(self, name)):,}" for name in PARTS)

    @cached_property
    def n_known(self) -> int:
        """Crystals of the validation and test parts that are the same as training crystals, whatever their ids (see
        `CrystalDataset.duplicates`).
        """
        parts = (self.train, self.validation, self.test)

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])

        names = ("ids", "atomic_numbers", "positions", "lattice")
        arrays: dict[str, Any] = {name: joined(name) for name in names}
        groups = duplicate_groups(
            FlatCrystals(offsets=np.cumsum([0, *joined("n_atoms")]), **arrays), joined("formulas")
        )
        trained, others = np.split(groups, [len(self.train)])
        return int(np.isin(others, trained).sum())


def _described(targets: Iterable[Target]) -> dict[str, Any]:
    """Units and classes of targets, as a data set holds them."""
    targets = list(targets)
    return {
        "units": {target.name: target.unit for target in targets},
        "classes": {target.name: target.classes for target in targets if target.is_class},
    }


def _known_parts(parts: np.ndarray) -> np.ndarray:
    for row, part in enumerate(parts, start=1):
        if part not in _PART_NAMES:
            message = f"split is {part!r}; it must be one of {', '.join(PARTS)}"
            raise DataError(message, row=row, field="split", value=part)
    return text_array([_PART_NAMES[part] for part in parts])


def _check_shapes(dataset: CrystalDataset) -> None:
    n_crystals, n_atoms = len(dataset.ids), len(dataset.atomic_numbers)
    expected = {"offsets": (n_crystals + 1,), "positions": (n_atoms, 3), "lattice": (n_crystals, 3, 3)}
    for name, shape in expected.items():
        if getattr(dataset, name).shape != shape:
            message = f"{name} has shape {getattr(dataset, name).shape}; {n_crystals} crystals need {shape}"
            raise DataError(message, field=name)
    if dataset.offsets[0] != 0 or dataset.offsets[-1] != n_atoms or (np.diff(dataset.offsets) < 0).any():
        raise DataError(f"offsets must rise from 0 to the number of atoms, {n_atoms}", field="offsets")
    for name, labels in (*dataset.targets.items(), ("split", dataset.parts)):
        if labels is not None and labels.shape != (n_crystals,):
            raise DataError(f"{name} has shape {labels.shape}; {n_crystals} crystals need ({n_crystals},)", field=name)
    if len(set(dataset.ids.tolist())) != n_crystals:
        first_row: dict[str, int] = {}
        for row, id in enumerate(dataset.ids, start=1):
            if id in first_row:
                advice = "ids must differ: correct them, or rename their column if it holds none"
                message = f"id {id!r} is given twice, first in row {first_row[id]}; {advice}"
                raise DataError(message, row=row, field="id", value=id)
            first_row[id] = row
    for name, labels in dataset.targets.items():
        bad = np.flatnonzero(np.isinf(labels))
        if bad.size:
            row, value = int(bad[0]), float(labels[bad[0]])
            message = f"{name} of {dataset.ids[row]} is {value}; a label must be finite, or empty if it is missing"
            raise DataError(message, row=row + 1, field=name, value=value)
        known = dataset.classes.get(name)
        bad = [] if known is None else np.flatnonzero(~np.isnan(labels) & ~np.isin(labels, np.arange(len(known))))
        for row in bad[:1]:
            value, numbers = float(labels[row]), ", ".join(f"{n} ({each})" for n, each in enumerate(known or ()))
            message = f"{name} of {dataset.ids[row]} is {value:g}, which is the number of no class: {numbers}"
            raise DataError(message, row=int(row) + 1, field=name, value=value)


def _check_crystals(dataset: CrystalDataset) -> None:
    """Raise the error of `Crystal` for the first row that it refuses; all rows are checked at once."""
    bad_atoms = ~np.isfinite(dataset.positions).all(axis=1)
    bad_atoms |= (dataset.atomic_numbers < 1) | (dataset.atomic_numbers > HIGHEST_ATOMIC_NUMBER)
    bad = np.flatnonzero(bad_atoms)
    rows = np.searchsorted(dataset.offsets, bad[:1], side="right") - 1
    flat = ~(cell_heights(dataset.lattice) >= SMALLEST_CELL_HEIGHT).all(axis=1)
    rows = np.concatenate([rows, np.flatnonzero(flat | (dataset.n_atoms == 0))])
    if rows.size:
        row = int(rows.min())
        try:
            dataset[row]
        except CrystalError as error:
            raise DataError(error.message, row=row + 1, site=error.site, field=error.field) from error
