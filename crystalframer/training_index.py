"""The training crystals of a model in the space of its features: how near is a crystal to the nearest of them?

A model errs more where it saw little. The features of the last block, averaged over atoms, are what it knows of a
crystal. Their principal components, scaled to the same spread, are coordinates; the distance in them to the nearest
training crystals predicts errors (Janet et al., Chem. Sci. 10, 7913 (2019)), also on crystals of other kinds. They are
the same for all descriptions of a crystal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, Shaped

from crystalframer import seals
from crystalframer.crystals.flat import text_array
from crystalframer.errors import UncertaintyError

N_COORDINATES = 32
N_NEAREST = 5
"""Training crystals whose mean distance counts."""
N_ROWS = 64
"""Of the table in which distances to all training crystals stand."""
BY_CHANCE, MOST_AROUND = 0.02, 100
"""A target of which few crystals have a label: so many of the nearest training crystals are looked at, that all of them
lack it by chance with this probability; and at most so many."""
SMALLEST_DISTANCE = 1e-3
"""Of a crystal that is one of the training crystals, before the logarithm."""
SMALLEST_VARIANCE = 1e-6
"""Of a coordinate, in that of the first."""
FAR = 0.005
"""Share of the training crystals that lie farther from all others than `TrainingIndex.far`."""
_SAMPLE = 2000
"""Training crystals whose distances set the unit."""
_ARRAYS = ("mean", "axes", "coordinates", "labels", "errors")


class Nearest(NamedTuple):
    """The nearest training crystals of some crystals, nearest first."""

    distance: Float[np.ndarray, "n_crystals n_nearest"]
    """1: the median distance between a training crystal and the nearest other."""
    row: Int64[np.ndarray, "n_crystals n_nearest"]


@dataclass(frozen=True, eq=False)
class TrainingIndex:
    """Coordinates, names and labels of the training crystals of a model."""

    target_names: tuple[str, ...]
    """The scalar targets of the model."""
    ids: Shaped[np.ndarray, " n_training"]
    formulas: Shaped[np.ndarray, " n_training"]
    mean: Float32[np.ndarray, " d_model"]
    axes: Float32[np.ndarray, "d_model n_coordinates"]
    """A coordinate is a scaled projection of features - mean."""
    coordinates: Float[np.ndarray, "n_training n_coordinates"]
    """float16: their rounding is a thousandth of a distance."""
    labels: Float32[np.ndarray, "n_training n_targets"]
    """In the unit of each target; NaN where there is none."""
    errors: Float32[np.ndarray, "n_training n_targets"]
    """Prediction - label, of the trained model."""
    far: float
    """Distance within which nearly all training crystals (99.5 %) have another one."""

    def __post_init__(self) -> None:
        """Raises: UncertaintyError: arrays that do not belong together, or coordinates that are not finite."""
        n_training, n_coordinates = self.coordinates.shape
        shapes = {
            "ids": (n_training,),
            "formulas": (n_training,),
            "axes": (len(self.mean), n_coordinates),
            "labels": (n_training, len(self.target_names)),
            "errors": (n_training, len(self.target_names)),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise UncertaintyError(f"{name} must be {shape} values", field=name)
        for name in ("mean", "axes", "coordinates"):
            if not np.isfinite(getattr(self, name)).all():
                raise UncertaintyError(f"{name} must be finite numbers", field=name)
        if not n_training:
            raise UncertaintyError("there are no training crystals", field="ids")
        if not self.far > 0.0:
            raise UncertaintyError("must be above 0", field="far", value=self.far)

    @classmethod
    def of(
        cls,
        pooled: Float[np.ndarray, "n_training d_model"],
        ids: Sequence[str],
        formulas: Sequence[str],
        target_names: Sequence[str],
        labels: Float[np.ndarray, "n_training n_targets"],
        errors: Float[np.ndarray, "n_training n_targets"],
    ) -> TrainingIndex:
        """The index of training crystals with these features (`CrystalFramer.pooled_features`)."""
        mean = pooled.mean(axis=0, dtype=np.float64)
        centred = pooled - mean
        variance, directions = np.linalg.eigh(centred.T @ centred / len(pooled))
        variance, directions = variance[::-1], directions[:, ::-1]
        # In a direction in which training crystals hardly differ, rounding would decide.
        n_coordinates = max(1, min(N_COORDINATES, int((variance > SMALLEST_VARIANCE * variance[0]).sum())))
        scale = np.sqrt(variance[:n_coordinates]) if variance[0] > 0 else np.ones(1)
        axes = directions[:, :n_coordinates] / scale
        distances = _distances_among(centred @ axes)
        unit = float(np.median(distances)) or 1.0
        axes = axes / unit
        return cls(
            tuple(target_names),
            text_array(list(ids)),
            text_array(list(formulas)),
            mean.astype(np.float32),
            axes.astype(np.float32),
            (centred @ axes).astype(np.float16),
            labels.astype(np.float32),
            errors.astype(np.float32),
            float(np.quantile(distances, 1.0 - FAR)) / unit or 1.0,
        )

    @property
    def n_inputs(self) -> int:
        """How many inputs `interval_inputs` gives."""
        return self.axes.shape[1] + 2

    def of_features(
        self, pooled: Float[np.ndarray, "n_crystals d_model"]
    ) -> Float32[np.ndarray, "n_crystals n_coordinates"]:
        """Coordinates of other crystals."""
        return (np.asarray(pooled, dtype=np.float32) - self.mean) @ self.axes

    def nearest(
        self, coordinates: Float32[np.ndarray, "n_crystals n_coordinates"], n_nearest: int = N_NEAREST
    ) -> Nearest:
        """The nearest training crystals of each crystal; as many as there are, if they are fewer."""
        n_crystals, n_nearest = len(coordinates), min(n_nearest, len(self.coordinates))
        n_columns = self._products.shape[1] // N_ROWS
        # |x - y|² = |x|² + |y|² - 2xy. Of nearly equal vectors it loses digits, so the distances are computed again.
        squares = coordinates @ self._products[:-1]
        squares += self._products[-1]
        squares = squares.reshape(n_crystals, N_ROWS, n_columns)
        # The n smallest of a table are in the n columns with the smallest values: few are to be sorted.
        column = _smallest(squares.min(axis=1), min(n_nearest, n_columns))
        near = np.take_along_axis(squares, column[:, None], 2).reshape(n_crystals, -1)
        place = _smallest(near, n_nearest)
        row = place // column.shape[1] * n_columns + np.take_along_axis(column, place % column.shape[1], 1)
        row.sort(axis=1)
        row = np.minimum(row, len(self.coordinates) - 1)  # where numbers overflow, all places are alike
        distance = np.linalg.norm(coordinates[:, None] - self.coordinates[row].astype(np.float32), axis=2)
        order = distance.argsort(axis=1, kind="stable")
        return Nearest(np.take_along_axis(distance, order, 1), np.take_along_axis(row, order, 1))

    @cached_property
    def _products(self) -> Float32[np.ndarray, "n_terms n_places"]:
        """Terms of -2xy and of |y|² of each training crystal, then places that fill the table."""
        known = self.coordinates.astype(np.float32).T
        products = np.concatenate([-2.0 * known, np.square(known).sum(axis=0, keepdims=True)])
        filled = np.pad(products, ((0, 0), (0, -products.shape[1] % N_ROWS)))
        filled[-1, products.shape[1] :] = np.inf
        return filled

    def name(self, row: int) -> str:
        """Id and formula of a training crystal: `mp-149 (Si)`."""
        return f"{self.ids[row]} ({self.formulas[row]})"

    @cached_property
    def n_around(self) -> Int64[np.ndarray, " n_targets"]:
        """How many of the nearest training crystals tell whether a target is known around a crystal (`BY_CHANCE`)."""
        share = self._has_label.mean(axis=0)
        wanted = np.log(BY_CHANCE) / np.log1p(-np.clip(share, 1e-3, 1.0 - 1e-9))
        return np.clip(np.ceil(wanted).astype(np.int64), 1, MOST_AROUND)

    def has_label_around(self, nearest: Nearest) -> Bool[np.ndarray, "n_crystals n_targets"]:
        """Whether training crystals around each crystal have a label of each target. Where none has, as for the
        refractive index of a metal, nothing was learned or calibrated.

        Args:
            nearest: at least `n_around` of them.
        """
        found = np.ones((len(nearest.row), len(self.target_names)), dtype=bool)
        for t, n in enumerate(self.n_around.tolist()):
            if self._has_label[:, t].any():  # an index without any labels says nothing
                found[:, t] = self._has_label[nearest.row[:, :n], t].any(axis=1)
        return found

    @cached_property
    def _has_label(self) -> Bool[np.ndarray, "n_training n_targets"]:
        return ~np.isnan(self.labels)

    def unlike(self, nearest: Nearest) -> list[str | None]:
        """For each crystal that is far from all training crystals, a description of how far; None for others."""
        return [
            None
            if distance <= self.far
            else f"unlike all training crystals: the most similar one, {self.name(row)}, has the distance "
            f"{distance:.2g} in the features of the model (for {1.0 - FAR:.1%} of the training crystals, the most "
            f"similar other one is closer than {self.far:.2g})"
            for distance, row in zip(nearest.distance[:, 0].tolist(), nearest.row[:, 0].tolist(), strict=True)
        ]

    def to_bytes(self, weights: str | None = None) -> bytes:
        """The content of a safetensors file.

        Args:
            weights: SHA-256 of the weights that these features belong to. With it, the file states both checksums.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {name: _bytes_of(getattr(self, name)) for name in ("ids", "formulas")}
        return seals.to_bytes("training_index", {"targets": self.target_names, "far": self.far}, arrays, weights)

    @classmethod
    def from_bytes(cls, content: bytes, weights: str | None = None) -> TrainingIndex:
        """Read the content of a file that `to_bytes` gave.

        Args:
            weights: SHA-256 of the weights that the features must belong to. Default: any.

        Raises:
            UncertaintyError: the content is not that of such a file, or damaged, or has values that cannot be.
            CheckpointError: a checksum in it is not that of its content, or of other weights.
        """
        with seals.reading("the training index"):
            described, arrays = seals.from_bytes("training_index", content, weights)
            texts = {name: _texts_of(arrays.pop(name)) for name in ("ids", "formulas")}
            given = texts | {name: arrays[name] for name in _ARRAYS}
            return cls(tuple(described["targets"]), far=float(described["far"]), **given)


def interval_inputs(
    index: TrainingIndex | None, pooled: Float[np.ndarray, "n_crystals d_model"]
) -> tuple[Float32[np.ndarray, "n_crystals n_inputs"], Nearest | None]:
    """What the width of an interval follows from, and the nearest training crystals, as many as
    `TrainingIndex.has_label_around` needs.

    Without an index these are the features alone. With one, they are the coordinates, and the logarithms of two
    distances: to the nearest training crystal, and to the nearest few on average.
    """
    if index is None:
        return np.asarray(pooled, dtype=np.float32), None
    coordinates = index.of_features(pooled)
    nearest = index.nearest(coordinates, max([N_NEAREST, *index.n_around.tolist()]))
    distances = np.stack([nearest.distance[:, 0], nearest.distance[:, :N_NEAREST].mean(axis=1)], axis=1)
    return np.concatenate([coordinates, np.log(np.maximum(distances, SMALLEST_DISTANCE))], axis=1), nearest


def _smallest(
    values: Float32[np.ndarray, "n_crystals n_values"], n_smallest: int
) -> Int64[np.ndarray, "n_crystals n_smallest"]:
    """The columns of the smallest values of each row, in no order."""
    return np.argpartition(values, n_smallest - 1, axis=1)[:, :n_smallest]


def _distances_among(coordinates: Float[np.ndarray, "n n_coordinates"]) -> Float[np.ndarray, " n_sample"]:
    """The distance of each crystal of a sample to the nearest other; 0 if there is no other."""
    import torch

    known = torch.from_numpy(coordinates).float()
    chosen = np.random.default_rng(0).permutation(len(coordinates))[:_SAMPLE]
    if len(coordinates) < 2:
        return np.zeros(1)
    nearest = []
    for rows in np.array_split(chosen, -(-len(chosen) // 64)):
        others = torch.cdist(known[rows], known)
        others[np.arange(len(rows)), rows] = torch.inf
        nearest.append(others.min(dim=1).values)
    return torch.cat(nearest).double().numpy()


def _bytes_of(texts: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n_bytes"]:
    return np.frombuffer(json.dumps(texts.tolist(), ensure_ascii=False).encode(), dtype=np.uint8)


def _texts_of(array: Shaped[np.ndarray, " n_bytes"]) -> Shaped[np.ndarray, " n"]:
    return text_array(json.loads(array.tobytes()))
