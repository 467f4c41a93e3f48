"""One table for the map of a data set: a row for each crystal, with columns that can be drawn, filtered and sorted.

It is made from a table of predictions, an `Evaluation`, the folder of a screening or embeddings.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from viz.errors import FigureError

if TYPE_CHECKING:
    import pandas as pd

MOST_POINTS = 200_000
"""Larger tables are sampled: more points hide each other, and the page would be slow."""
SEED = 0
"""Of the sample."""
LABEL, PREDICTION, DEVIATION, ERROR = "label", "prediction", "deviation", "absolute error"
LOW, HIGH, WIDTH = "low", "high", "interval width"
FAILURE = "error"
"""Column of tables of predictions: why there is no prediction."""
FLAG, NOT_RELAXED = "outside_training", "not_relaxed"
"""Columns of tables of predictions: how the structure differs from all training crystals, and why its atoms seem not to
be at rest."""
RAISED = "flag"
"""Column that names the flags of each point in few words, so that it can colour the points."""
_TITLES = {FLAG: "outside the training data", NOT_RELAXED: "not relaxed", FAILURE: "no prediction"}
_EMBEDDED = re.compile(r"(mean|std|third|feature)_(\d+)")
_SHARD = re.compile(r"part-(\d+)\.parquet")


@dataclass(frozen=True)
class MapView:
    """Two columns to draw against each other, by a name."""

    name: str
    x: str
    y: str
    color: str = ""
    error: str = ""
    """The column of absolute errors that belongs to this view, if there is one."""
    interval: tuple[str, str] | None = None
    """The columns of the ends of the interval of y."""
    is_parity: bool = False
    """Whether x and y are the same quantity, so that the diagonal means something."""


@dataclass(frozen=True, eq=False)
class PointTable:
    """A row for each crystal."""

    frame: pd.DataFrame
    """Columns `id` and `formula`, and others of numbers or texts; numbered from 0."""
    units: Mapping[str, str]
    """Name of a column → its unit."""
    n_rows: int
    """Rows before a sample was drawn."""
    rows: Int[np.ndarray, " n_points"]
    """Row of the source of each point."""
    views: tuple[MapView, ...] = ()
    flags: Mapping[str, Bool[np.ndarray, " n_points"]] | None = None
    """Name of a flag → where it is raised."""
    embedding: Float[np.ndarray, "n_points n_features"] | None = None
    notes: tuple[str, ...] = ()
    has_ids: bool = True
    """Whether the ids are those of the source, and not numbers of rows."""

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def ids(self) -> list[str]:
        return self.frame["id"].tolist()


def point_table(source: Any, most: int = MOST_POINTS) -> PointTable:
    """The table of a source.

    Args:
        source: a DataFrame with a row for each crystal (of `crystalframer.predict`, `embed`, or any other with a column
            or index of ids), an `Evaluation` or its `crystals`, the folder of a screening, or an array of embeddings
            with a row for each crystal.
        most: a random sample of so many rows is drawn from a larger table.

    Raises:
        FigureError: something else was given, or a table without rows or without columns to draw.
    """
    import pandas as pd

    if isinstance(source, str | Path):
        frame, rows, n_rows = _screened(Path(source).expanduser(), most)
        return _described(frame, rows, n_rows)
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or not source.size:
            raise FigureError(
                f"embeddings need an array with a row for each crystal, not one of the shape {source.shape}",
                field="table",
                value=source.shape,
            )
        source = pd.DataFrame(source, columns=[f"feature_{n}" for n in range(source.shape[1])])
    frame = getattr(source, "crystals", source)
    if not isinstance(frame, pd.DataFrame):
        raise FigureError(
            f"a {type(source).__name__} is no table of crystals; give a DataFrame, an Evaluation, the folder of a "
            "screening, or an array of embeddings",
            field="table",
            value=type(source).__name__,
        )
    if {"target", LABEL, PREDICTION} <= set(frame.columns):
        frame = _by_crystal(frame)
    if not len(frame):
        raise FigureError("the table has no rows; give one row for each crystal", field="table")
    rows = _sampled(len(frame), most)
    chosen = frame if len(rows) == len(frame) else frame.iloc[rows]
    return _described(chosen, rows, len(frame))


def with_columns(table: PointTable, columns: Mapping[str, np.ndarray], units: Mapping[str, str]) -> PointTable:
    """The table with more columns; those that it has stay as they are."""
    frame = table.frame.copy()
    for name, values in columns.items():
        if name not in frame:
            frame[name] = values
    return replace(table, frame=frame, units={**units, **table.units})


def _sampled(n_rows: int, most: int) -> Int[np.ndarray, " n_points"]:
    if n_rows <= most:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(SEED).choice(n_rows, most, replace=False))


def _screened(folder: Path, most: int) -> tuple[pd.DataFrame, Int[np.ndarray, " n_points"], int]:
    """The tables of a screening, read one by one; of many rows, only those of the sample are kept."""
    import pandas as pd
    from pyarrow import ArrowException, parquet

    parts = sorted(path for path in folder.glob("part-*.parquet") if _SHARD.fullmatch(path.name))
    if not parts:
        raise FigureError(f"{folder} holds no tables of a screening (part-00000.parquet, ...)", field="table")
    try:
        counts = [parquet.read_metadata(path).num_rows for path in parts]
        rows = _sampled(sum(counts), most)
        starts = np.cumsum([0, *counts])
        frames = []
        for path, start, end in zip(parts, starts, starts[1:], strict=False):
            mine = rows[(rows >= start) & (rows < end)] - start
            frames.append(parquet.read_table(path).take(mine).to_pandas())
        metadata = parquet.read_schema(parts[0]).metadata or {}
    except (ArrowException, OSError) as error:
        raise FigureError(f"{folder}: a table of the screening is damaged ({error})", field="table") from error
    frame = pd.concat(frames, ignore_index=True)
    for value in metadata.values():
        try:
            frame.attrs["units"] = json.loads(value)["units"]
        except (ValueError, KeyError, TypeError):
            continue
    return frame, rows, sum(counts)


def _by_crystal(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of an evaluation, one for each crystal and target, as one row for each crystal."""
    import pandas as pd

    targets = [str(target) for target in dict.fromkeys(rows["target"])]
    units = dict(rows.attrs.get("units", {}))
    ids = rows["id"].astype(str).to_numpy(dtype=object)
    place_of = {id: place for place, id in enumerate(dict.fromkeys(ids.tolist()))}
    place = np.array([place_of[id] for id in ids.tolist()])
    columns: dict[str, np.ndarray] = {"id": np.array(list(place_of), dtype=object)}
    found: dict[str, str] = {}

    def placed(name: str, chosen: Bool[np.ndarray, " n_rows"]) -> np.ndarray:
        """The values of one target, a missing one for crystals that it lacks."""
        values = rows[name].to_numpy()
        is_number = values.dtype.kind in "iuf"
        column = np.full(len(place_of), np.nan if is_number else None, dtype=float if is_number else object)
        column[place[chosen]] = values[chosen]
        return column

    everything = np.ones(len(rows), dtype=bool)
    for name in ("formula", "part"):
        if name in rows:
            columns[name] = placed(name, everything)
    for target in targets:
        chosen = (rows["target"] == target).to_numpy()
        twice = [id for id, count in Counter(ids[chosen].tolist()).items() if count > 1]
        if twice:
            raise FigureError(f"{target}: crystals with the same id: {', '.join(twice[:5])}", field="table")
        values = {str(name): placed(str(name), chosen) for name in rows.columns if name not in ("id", *columns)}
        own = {
            name: values[name]
            for name in (LABEL, PREDICTION, DEVIATION, LOW, HIGH, "probability")
            if name in values and not pd.isna(values[name]).all()
        }
        if DEVIATION in own:
            own[ERROR] = np.abs(own[DEVIATION])
        if LOW in own and HIGH in own:
            own[WIDTH] = own[HIGH] - own[LOW]
        for name, column in own.items():
            columns[_of(name, target, targets)] = column
            if name != "probability":
                found[_of(name, target, targets)] = units.get(target, "")
        columns |= {name: values[name] for name in _TITLES if name in values and name not in columns}
    joined = pd.DataFrame(columns)
    joined.attrs["units"] = found
    joined.attrs["targets"] = targets
    return joined


def _described(frame: pd.DataFrame, rows: Int[np.ndarray, " n_points"], n_rows: int) -> PointTable:
    import pandas as pd

    units = dict(frame.attrs.get("units", {}))
    names = [str(name) for name in frame.columns]
    embedded = [name for name in names if _EMBEDDED.fullmatch(name)]
    # Distances of the means over the atoms are those from which the model predicts.
    means = [name for name in embedded if name.startswith(("mean_", "feature_"))]
    embedding = frame[means].to_numpy(dtype=np.float32) if len(means) > 2 else None
    kept = frame.set_axis(names, axis=1).drop(columns=embedded if embedding is not None else [])
    given = _ids(kept)
    ids = [f"row {row}" for row in rows.tolist()] if given is None else given
    columns: dict[str, Any] = {"id": ids}
    for name in kept.columns:
        values, kind = kept[name].to_numpy(), kept[name].dtype
        if name == "id":
            continue
        if pd.api.types.is_bool_dtype(kind):
            columns[name] = np.where(values.astype(bool), "yes", "no").astype(object)
        elif pd.api.types.is_numeric_dtype(kind):
            columns[name] = kept[name].to_numpy(dtype=float, na_value=np.nan)
        elif name in _TITLES or all(isinstance(value, str) for value in values[~pd.isna(values)]):
            columns[name] = np.where(pd.isna(values), "", values).astype(object)
    if "formula" not in columns:
        columns["formula"] = np.full(len(ids), "", dtype=object)
    for name in [name for name in columns if name.endswith("_low") and f"{name[:-4]}_high" in columns]:
        target = name[:-4]
        columns[f"{target} {WIDTH}"] = columns[f"{target}_high"] - columns[name]
        units |= {f"{target}{end}": units.get(target, "") for end in ("_low", "_high", f" {WIDTH}")}
    known = [columns[name] for name in (PREDICTION, LABEL) if name in columns and columns[name].dtype == float]
    if len(known) == 2 and ERROR not in columns:
        columns[ERROR] = np.abs(known[0] - known[1])
        units[ERROR] = units.get(PREDICTION, "")
    order = ["id", "formula", *(name for name in columns if name not in ("id", "formula"))]
    table = pd.DataFrame({name: columns[name] for name in order})
    if RAISED not in table and (of_model := _flags_of_model(table)):
        said = [[words for words, raised in of_model.items() if raised[row]] for row in range(len(table))]
        table[RAISED] = np.array([", ".join(words) for words in said], dtype=object)
    notes = []
    if len(rows) < n_rows:
        notes.append(f"A random sample of {len(rows):,} of {n_rows:,} rows is shown.")
    targets = frame.attrs.get("targets", [])
    views, flags = _views(table, targets), _flags(table, targets)
    return PointTable(table, units, n_rows, rows, views, flags, embedding, tuple(notes), given is not None)


def _ids(frame: pd.DataFrame) -> list[str] | None:
    for name in ("id", "material_id"):
        if name in frame:
            return frame[name].astype(str).tolist()
    return frame.index.astype(str).tolist() if frame.index.inferred_type == "string" else None


def _of(name: str, target: str, targets: Sequence[str]) -> str:
    """Name of a column that each target has: `label`, or `label of band_gap` if there are several targets."""
    return f"{name} of {target}" if len(targets) > 1 else name


def _views(table: pd.DataFrame, targets: Sequence[str]) -> tuple[MapView, ...]:
    views = []
    for target in targets or [""]:
        names = (LABEL, PREDICTION, ERROR, LOW, HIGH, WIDTH)
        label, prediction, error, low, high, width = (_of(name, target, targets) for name in names)
        words = f"{target.replace('_', ' ')}: " if len(targets) > 1 else ""
        if not _is_number(table, label, prediction):
            continue
        interval = (low, high) if _is_number(table, low, high) else None
        color = error if error in table else ""
        views.append(
            MapView(f"{words}prediction against label", label, prediction, color, color, interval, is_parity=True)
        )
        if color:
            views.append(MapView(f"{words}error against label", label, error, "", color))
        if color and interval:
            views.append(MapView(f"{words}error against interval", width, error, "", color))
    return tuple(views)


def _is_number(table: pd.DataFrame, *names: str) -> bool:
    return all(name in table and table[name].dtype == float for name in names)


def _flags_of_model(table: pd.DataFrame) -> dict[str, Bool[np.ndarray, " n_points"]]:
    """Flag → where it is raised, for those that stand in a table of predictions."""
    return {
        words: np.array([text != "" for text in table[name].tolist()])
        for name, words in _TITLES.items()
        if name in table and not _is_number(table, name)
    }


def _flags(table: pd.DataFrame, targets: Sequence[str]) -> dict[str, Bool[np.ndarray, " n_points"]]:
    flags = _flags_of_model(table)
    for target in targets or [""]:
        names = [_of(name, target, targets) for name in (LABEL, LOW, HIGH)]
        words = f" ({target.replace('_', ' ')})" if len(targets) > 1 else ""
        if _is_number(table, *names):
            label, low, high = (table[name].to_numpy() for name in names)
            flags[f"label outside the interval{words}"] = (label < low) | (label > high)
        if _is_number(table, names[0]) and np.isnan(label := table[names[0]].to_numpy()).any():
            flags[f"no label{words}"] = np.isnan(label)
    return flags
