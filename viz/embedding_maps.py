"""Embeddings in two dimensions, and the nearest crystals by their features."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from viz.errors import FigureError, check_columns

if TYPE_CHECKING:
    import pandas as pd

N_NEIGHBORS = 5
MOST_COMPARED = 20_000
"""All pairs of more crystals are not compared in advance: it would take a minute."""
MOST_FLATTENED = 20_000
"""Crystals for a map by UMAP, which takes a minute for so many."""
_AT_ONCE = 1024
SEED = 0


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The nearest crystals of each point, nearest first."""

    ids: list[str]
    """Of all crystals that are named."""
    formulas: list[str]
    details: list[str]
    """What else is known of each, in words: label and error."""
    point: Int[np.ndarray, " n_named"]
    """The point that is this crystal, -1 if it is not on the map."""
    nearest: Int[np.ndarray, "n_points k"]
    """Numbers of `ids`, -1 where there are fewer."""
    distance: Float[np.ndarray, "n_points k"]
    are_trained: bool
    """Whether all are training crystals."""


def flat_maps(embedding: Float[np.ndarray, "n_points n_features"]) -> dict[str, np.ndarray]:
    """Coordinates of each point: two principal components, and those of UMAP if it is installed.

    Points with missing features have none. Principal components are those of the centred features. More than 20,000
    crystals have none of UMAP.

    Example:
        >>> list(flat_maps(np.eye(4)))[:2]
        ['PCA 1', 'PCA 2']
    """
    known = np.isfinite(embedding).all(axis=1)
    features = embedding[known].astype(np.float64)
    if len(features) < 2:
        raise FigureError("a map of embeddings needs two crystals with finite features", field="embedding")
    features = features - features.mean(axis=0)
    directions = np.linalg.eigh(features.T @ features)[1][:, ::-1][:, :2]
    # The sign of a component means nothing: the largest entry is made positive, so that maps are reproducible.
    directions *= np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    maps = {"PCA": features @ directions}
    if find_spec("umap") and 3 < len(features) <= MOST_FLATTENED:
        maps["UMAP"] = _umap(features)
    columns = {}
    for name, places in maps.items():
        for axis in range(places.shape[1]):
            column = np.full(len(embedding), np.nan)
            column[known] = places[:, axis]
            columns[f"{name} {axis + 1}"] = column
    return columns


def _umap(features: Float[np.ndarray, "n_points n_features"]) -> Float[np.ndarray, "n_points 2"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # of the part of umap-learn that needs tensorflow
        from umap import UMAP  # pyright: ignore[reportMissingImports]
    # One job, as the seed needs it, and no more neighbours than there are: otherwise UMAP warns.
    made = UMAP(n_neighbors=min(15, len(features) - 1), random_state=SEED, n_jobs=1)
    return made.fit_transform(features)


def nearest_points(
    embedding: Float[np.ndarray, "n_points n_features"],
    frame: pd.DataFrame,
    k: int = N_NEIGHBORS,
) -> Neighbors | None:
    """The nearest other crystals of each point: among those of the part `train` if the table has one, else among all.

    Distances are Euclidean, divided by their median. None for more than 20,000 crystals.
    """
    n_points = len(embedding)
    known = np.isfinite(embedding).all(axis=1)
    trained = (frame["part"] == "train").to_numpy() & known if "part" in frame else np.zeros(n_points, dtype=bool)
    are_trained = bool(trained.sum() > k)
    candidates = np.flatnonzero(trained if are_trained else known)
    k = min(k, len(candidates) - 1)
    if n_points > MOST_COMPARED or k < 1:
        return None
    nearest, distance = np.full((n_points, k), -1), np.full((n_points, k), np.nan)
    asked = np.flatnonzero(known)
    for start in range(0, len(asked), _AT_ONCE):
        rows = asked[start : start + _AT_ONCE]
        nearest[rows], distance[rows] = _nearest(embedding, rows, candidates, k)
    median = float(np.nanmedian(distance[:, 0])) or 1.0
    details = _labels(frame)
    return Neighbors(
        frame["id"].tolist(),
        frame["formula"].tolist(),
        details,
        np.arange(n_points),
        nearest,
        distance / median,
        are_trained,
    )


def _nearest(
    embedding: Float[np.ndarray, "n_points n_features"],
    rows: Int[np.ndarray, " n_rows"],
    candidates: Int[np.ndarray, " n_candidates"],
    k: int,
) -> tuple[Int[np.ndarray, "n_rows k"], Float[np.ndarray, "n_rows k"]]:
    """A crystal is not its own neighbour."""
    mine, others = embedding[rows].astype(np.float32), embedding[candidates].astype(np.float32)
    squares = (mine**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * mine @ others.T
    squares[rows[:, None] == candidates] = np.inf
    first = np.argpartition(squares, k - 1, axis=1)[:, :k]
    found = candidates[first]
    # Differences, as sums of squares lose the digits of small distances.
    exact = np.linalg.norm(embedding[found].astype(float) - embedding[rows].astype(float)[:, None], axis=2)
    order = np.argsort(exact, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(exact, order, axis=1)


def listed_neighbors(table: pd.DataFrame, ids: list[str]) -> Neighbors:
    """The neighbours in a table of `crystalframer.nearest_training`.

    Raises:
        FigureError: the table lacks a column.
    """
    check_columns("the table of neighbours", table, ["id", "rank", "training_id", "training_formula", "distance"])
    point_of = {id: point for point, id in enumerate(ids)}
    rows = [row for row in table.to_dict("records") if row["training_id"] == row["training_id"]]
    rows = [row | {"point": point_of[str(row["id"])]} for row in rows if str(row["id"]) in point_of]
    named = {str(row["training_id"]): row for row in rows}
    number_of = {id: number for number, id in enumerate(named)}
    k = max((int(row["rank"]) for row in rows), default=0)
    nearest, distance = np.full((len(ids), k), -1), np.full((len(ids), k), np.nan)
    for row in rows:
        place = row["point"], int(row["rank"]) - 1
        nearest[place], distance[place] = number_of[str(row["training_id"])], row["distance"]
    units = table.attrs.get("units", {})
    targets = [str(name) for name in table.columns if f"{name}_error" in table.columns]
    details = []
    for row in named.values():
        words = [
            f"{name.replace('_', ' ')} {row[name]:.3g} {units.get(name, '')}".rstrip()
            + f" (error {row[f'{name}_error']:+.2g})"
            for name in targets
            if np.isfinite(row[name])
        ]
        details.append(", ".join(words).replace("-", "−"))
    return Neighbors(
        list(named),
        [str(row["training_formula"]) for row in named.values()],
        details,
        np.array([point_of.get(id, -1) for id in named], dtype=np.int64),
        nearest,
        distance,
        are_trained=True,
    )


def _labels(frame: pd.DataFrame) -> list[str]:
    names = [name for name in frame if str(name).partition(" of ")[0] == "label" and frame[name].dtype == float]
    words: list[list[str]] = [[] for _ in range(len(frame))]
    for name in names:
        for of_point, value in zip(words, frame[name].tolist(), strict=True):
            if np.isfinite(value):
                of_point.append(f"{str(name).replace('_', ' ')} {value:.3g}".replace("-", "−"))
    return [", ".join(of_point) for of_point in words]
