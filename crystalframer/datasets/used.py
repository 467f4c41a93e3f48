"""The crystals of a run: those that trained its model, those that chose the weights, and those that tested it.

A run keeps them as one parquet table: a row for each crystal, in the order of the run, with `part`, `id`, `formula`,
and two hashes, of the structure and of the labels. The table takes about 30 bytes per crystal, and holds neither
structures nor labels. Crystals are found again by their structures, because ids may be row numbers, which change with
the order of a table.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped, UInt64

from crystalframer.crystals.flat import FlatCrystals, text_array
from crystalframer.datasets.dataset import PARTS, CrystalDataset
from crystalframer.errors import CheckpointError, listed
from crystalframer.reading.formats import name_of

if TYPE_CHECKING:
    import pandas

Role = Literal["train", "earlier", "validation", "test", "other"]
"""What a crystal was for a run. `earlier`: it trained the weights that the run started from. `other`: nothing."""
ROLES: tuple[Role, ...] = ("train", "earlier", "validation", "test", "other")
TRAINED: tuple[Role, ...] = ("train", "earlier")
STEPS = 72_000
"""Coordinates are rounded to 1/72,000 of a cell vector before they are hashed: coordinates of up to six digits, simple
fractions too, are never halfway between two steps, where the last bit would decide."""
_COLUMNS = ("part", "id", "formula", "structure", "labels")
_SHOWN = 3
"""Ids that a message lists."""


@dataclass(frozen=True, eq=False)
class UsedCrystals:
    """The table of a run, as the bytes of its file. It is read when it is first needed."""

    content: bytes
    path: Path | None = None
    """The file, for messages."""

    @classmethod
    def of(
        cls, parts: Mapping[str, FlatCrystals], start: UsedCrystals | None = None, unknown_start: bool = False
    ) -> UsedCrystals:
        """The table of the crystals in these parts of a data set, with the targets of the model in its order.

        Args:
            start: of the run whose weights this one starts from.
            unknown_start: this run starts from weights that do not name their crystals.
        """
        import pandas

        frames = [_described(part).assign(part=name) for name, part in parts.items() if len(part)]
        if start is not None:
            frames.append(start.table[start.table["part"].isin(TRAINED)].assign(part="earlier"))
        table = pandas.concat(frames).loc[:, [*_COLUMNS]]
        table.attrs["checksum"] = _checksum(table)
        table.attrs["unknown_start"] = unknown_start or (start is not None and start.unknown_start)
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False, compression="zstd")
        return cls(buffer.getvalue())

    @cached_property
    def table(self) -> pandas.DataFrame:
        """Columns `part`, `id`, `formula`, `structure` and `labels` (hashes).

        Raises:
            CheckpointError: the file is damaged.
        """
        import pandas

        try:
            table = pandas.read_parquet(io.BytesIO(self.content), columns=[*_COLUMNS])
            if table.attrs["checksum"] != _checksum(table):
                raise ValueError("its checksum differs")
        except Exception as error:  # damaged files raise what they like
            reason = str(error).partition("\n")[0]
            message = f"not a table of the crystals of a run ({reason}); copy it again, or delete it"
            raise CheckpointError(message, path=self.path) from error
        return table

    @property
    def unknown_start(self) -> bool:
        """Whether the run began with weights that do not name their crystals."""
        return bool(self.table.attrs.get("unknown_start"))

    def count(self, part: str) -> int:
        """Number of crystals in a part of the run."""
        return int(np.count_nonzero(self.table["part"] == part))

    def find(self, data: CrystalDataset) -> Found:
        """Find the crystals of a data set, which has the targets of the model, among those of the run.

        A crystal is one of the run if it has the same structure, whatever its id; or the same id and formula, if the
        id is not a number of a row. If it may be several, the labels and the id decide, then the part: training first.
        """
        known = self.table
        given = _described(data)
        row = np.full(len(data), -1)
        is_same = np.zeros(len(data), dtype=bool)
        for columns in (["structure", "labels", "id"], ["structure", "labels"], ["structure", "id"]):
            free = ~np.isin(np.arange(len(known)), row)
            _pair(row, given, known.loc[free], columns)
            if "labels" in columns:
                is_same = row >= 0
        # Training first.
        known = known.iloc[np.argsort(known["part"].map(ROLES.index), kind="stable")]
        _look_up(row, given, known, ["structure"])
        # Row 7 of another table, or of this one in another order, is another crystal.
        of_rows = rf"((row|{re.escape(name_of(Path(data.provenance.source)))})-)?\d+"
        _look_up(row, given.loc[~given["id"].str.fullmatch(of_rows)], known, ["id", "formula"])
        role = np.where(row < 0, "other", self.table["part"].to_numpy()[row])
        earlier = np.full(len(data), -1)
        _look_up(earlier, given, known[known["part"] == "earlier"], ["structure"])
        return Found(text_array(role.tolist()), row, is_same | (row < 0), earlier >= 0)

    def differences(self, others: UsedCrystals) -> list[str]:
        """How the crystals of `others` differ from these, a line for each part that does.

        They are compared by their ids.
        """
        lines = []
        for part in PARTS:
            found = _differences(*(used.table.loc[used.table["part"] == part] for used in (self, others)))
            if found:
                lines.append(f"{part}: {'; '.join(found)}")
        return lines


@dataclass(frozen=True, eq=False)
class Found:
    """What the crystals of a data set were for a run."""

    role: Shaped[np.ndarray, " n_crystals"]
    """One of `ROLES` for each crystal."""
    row: Int64[np.ndarray, " n_crystals"]
    """Its row in the table of the run, or -1."""
    is_same: Bool[np.ndarray, " n_crystals"]
    """False if the run had it with other labels, or under the same id with another structure."""
    is_earlier: Bool[np.ndarray, " n_crystals"]
    """Whether it trained the weights that the run started from, whatever its role."""

    def of(self, role: Role) -> Int64[np.ndarray, " n"]:
        """Rows of the data set with this role, in the order of the run."""
        rows = np.flatnonzero(self.role == role)
        return rows[np.argsort(self.row[rows], kind="stable")]


def structure_hashes(crystals: FlatCrystals) -> UInt64[np.ndarray, " n_crystals"]:
    """A hash of each structure. It does not depend on the orientation, the order of sites, or the cell in which the
    coordinates of a site are given.
    """
    cell = np.linalg.inv(crystals.lattice)[np.repeat(np.arange(len(crystals)), crystals.n_atoms)]
    coordinates = np.rint(np.einsum("ni,nij->nj", crystals.positions, cell) * STEPS).astype(np.int64) % STEPS
    atoms = _hashed(np.column_stack([crystals.atomic_numbers.astype(np.int64), coordinates]))
    # A sum has no order. It overflows, as sums of hashes may.
    content = np.add.reduceat(atoms, crystals.offsets[:-1]).astype(np.int64)
    metric = np.einsum("nij,nkj->nik", crystals.lattice, crystals.lattice)[:, *np.triu_indices(3)]
    return _hashed(np.column_stack([content, crystals.n_atoms, np.rint(metric * STEPS).astype(np.int64)]))


def _label_hashes(labels: Float[np.ndarray, "n_crystals n_targets"]) -> UInt64[np.ndarray, " n_crystals"]:
    return _hashed(np.where(np.isnan(labels), np.nan, labels + 0.0))  # NaN and zero have several forms


def _hashed(table: Shaped[np.ndarray, "n n_columns"] | pandas.DataFrame) -> UInt64[np.ndarray, " n"]:
    """A hash of each row."""
    from pandas import DataFrame, util

    hash_rows: Any = util.hash_pandas_object
    return hash_rows(DataFrame(table), index=False).to_numpy()


def _described(crystals: FlatCrystals) -> pandas.DataFrame:
    import pandas

    assert isinstance(crystals, CrystalDataset)
    labels = np.column_stack(list(crystals.targets.values()))
    columns = {"id": crystals.ids, "formula": crystals.formulas}
    hashes = {"structure": structure_hashes(crystals), "labels": _label_hashes(labels)}
    return pandas.DataFrame(columns | hashes)


def _checksum(table: pandas.DataFrame) -> str:
    return hashlib.sha256(_hashed(table).tobytes()).hexdigest()


def _pair(
    row: Int64[np.ndarray, " n_crystals"], given: pandas.DataFrame, known: pandas.DataFrame, columns: list[str]
) -> None:
    """Give crystals that have no row yet one of `known`, each row to one crystal."""
    left, right = given.loc[row < 0, columns], known[columns]
    # The first of several that are the same goes to the first, and so on.
    left, right = (side.assign(number=side.groupby(columns).cumcount(), at=side.index) for side in (left, right))
    found = left.merge(right, on=[*columns, "number"])
    row[found["at_x"].to_numpy()] = found["at_y"].to_numpy()


def _look_up(
    row: Int64[np.ndarray, " n_crystals"], given: pandas.DataFrame, known: pandas.DataFrame, columns: list[str]
) -> None:
    """Give crystals that have no row yet the first of `known` that agrees; several may have the same one."""
    left, right = given.loc[row[given.index] < 0, columns], known[columns].drop_duplicates()
    found = left.assign(at=left.index).merge(right.assign(at=right.index), on=columns)
    row[found["at_x"].to_numpy()] = found["at_y"].to_numpy()


def _differences(before: pandas.DataFrame, now: pandas.DataFrame) -> list[str]:
    """What differs between two tables of one part, in words."""

    def shown(column: pandas.Series) -> str:
        return listed([repr(id) for id in column], _SHOWN)

    gone, new = before.loc[~before["id"].isin(now["id"])], now.loc[~now["id"].isin(before["id"])]
    both = before.merge(now, on="id", suffixes=("", "_now"))
    found = [f"{len(now):,} crystals instead of {len(before):,}"] if len(before) != len(now) else []
    for which, words in ((gone, "missing"), (new, "new")):
        if len(which):
            found.append(f"{len(which):,} {words} ({shown(which['id'])})")
    for column, words in (("structure", "structures"), ("labels", "labels")):
        changed = both.loc[both[column] != both[f"{column}_now"], "id"]
        if len(changed):
            found.append(f"other {words} of {len(changed):,} ({shown(changed)})")
    if not found and before["id"].tolist() != now["id"].tolist():
        found.append("another order")
    return found
