"""Whether predictions change without steps when atoms move and cells are strained."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from crystalframer import ops
from crystalframer.analysis.batches import MAX_CRYSTALS, predictions
from crystalframer.analysis.paths import (
    PATH_KINDS,
    Path,
    PathKind,
    displacement,
    strain,
    through_reach,
    through_right_angle,
    through_tie,
)
from crystalframer.analysis.steps import NOISE, Followed, followed
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.errors import ConfigError
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import ready
from crystalframer.surroundings import plain

if TYPE_CHECKING:
    import pandas

N_POINTS, N_HALVINGS = 21, 10
"""Points 0.01 Å apart, and then 0.00001 Å."""
COMPARED = 1e-4
"""Å: about here the largest change is compared with the median one."""
SLOWLY = 0.05
"""Pace through a reach, where weights and steps are small."""
CORRECTIONS = 3
"""Times that a path is centred at the reach of a head."""
TRIES = 20
"""Heads whose reach is tried until an atom is near it."""


@plain()
def continuity(
    model: CrystalFramer | str | FilePath | None,
    paths: Sequence[Path],
    n_points: int = N_POINTS,
    n_halvings: int = N_HALVINGS,
    progress: bool = True,
) -> pandas.DataFrame:
    """Steps and kinks of predictions along paths, in float64 and by plain torch.

    The model predicts equally spaced crystals of each path. The largest changes, and the largest changes of the change,
    are then followed: the distance is halved again and again. A step stays as it is; without one, the change halves
    each time. Steps that are small beside the curvature and the kinks of a path can stay unseen.

    >>> import crystalframer as cf
    >>> from crystalframer.analysis.continuity import continuity
    >>> from crystalframer.analysis.paths import strain
    >>> from crystalframer.testing import random_crystal
    >>> table = continuity(cf.load(), [strain(random_crystal(seed=1, n_atoms=3), seed=0)], progress=False)
    >>> float(table.loc[0, "step/formation_energy_per_atom"])  # no frame jumps
    0.0

    Args:
        model: a model, or the path of one; None for the weights that come with the package.
        paths: all with the same length (see `crystalframer.analysis.paths`).
        n_points: points of each path, at equal distances.
        n_halvings: number of times that the distance is halved.
        progress: show a progress bar if it takes more than 2 s.

    Returns:
        One row for each path, with `id`, `kind`, and for each target: `step/<target>`, the largest step (0: none);
        `kink/<target>`, the largest step of the derivative, for each Å of the path (0: none); `change/<target>`, the
        largest change between two points at the smallest distance; `ratio/<target>`, the largest change between two
        points about `COMPARED` apart, divided by the median one; and `bend_ratio/<target>`, the same for changes of the
        change. `attrs["units"]` maps column to unit. `attrs["spacings"]` are the distances of points after each
        halving, Å, and `attrs["largest"]` maps target to the largest change between two points at each of them.

    Raises:
        CrystalError: the model cannot take a crystal of a path.
        ConfigError: there is no path, or too few points or halvings.
        CheckpointError: the model cannot be loaded.
    """
    for name, value, least in (("paths", len(paths), 1), ("n_points", n_points, 7), ("n_halvings", n_halvings, 3)):
        if value < least:
            raise ConfigError(f"must be at least {least}", field=name, value=value)
    model = copy.deepcopy(ready(model, None))
    model = (model.cpu() if model.target_mean.device.type == "mps" else model).double()
    mean, deviation = (values.cpu().numpy() for values in (model.target_mean, model.target_std))
    total = len(paths) * (n_points + 2 * n_halvings * (1 + 2))
    with tqdm(total=total, desc="paths", unit=" crystals", delay=2, leave=False, disable=not progress) as bar:

        def values(path: Int[np.ndarray, " n"], distance: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n n_targets"]:
            crystals = [paths[n].at(float(d)) for n, d in zip(path, distance, strict=True)]
            return (np.concatenate(list(_predicted(crystals, model, bar))) - mean) / deviation

        length = paths[0].length
        points = np.tile(np.linspace(0.0, length, n_points), len(paths))
        grid = values(np.repeat(np.arange(len(paths)), n_points), points).reshape(len(paths), n_points, -1)
        changes, bends = (followed(values, grid, length, order, n_halvings) for order in (1, 2))
    return _table(paths, grid, changes, bends, model)


def paths_of(model: CrystalFramer, crystals: Sequence[Crystal], kinds: Sequence[PathKind] = PATH_KINDS) -> list[Path]:
    """Paths of these kinds from each crystal, where there are such.

    >>> import crystalframer as cf
    >>> from crystalframer.analysis.continuity import paths_of
    >>> from crystalframer.testing import random_crystal
    >>> [path.kind for path in paths_of(cf.load(), [random_crystal(seed=1, n_atoms=3)], ["strain", "reach"])]
    ['strain', 'reach']

    Args:
        kinds: `displacement` and `strain` go in random directions. `reach`: a neighbour leaves the reach of the model,
            or of one of its heads. `right angle`, `tie`: two neighbours of an atom pass such a position.
    """
    return [
        path
        for seed, crystal in enumerate(crystals)
        for kind in kinds
        if (path := _path(model, crystal, kind, seed)) is not None and path.is_possible
    ]


def _path(model: CrystalFramer, crystal: Crystal, kind: PathKind, seed: int) -> Path | None:
    if kind == "displacement":
        return displacement(crystal, seed)
    if kind == "strain":
        return strain(crystal, seed)
    if kind == "reach":
        return _through_reach(model, crystal, seed)
    return through_right_angle(crystal, seed) if kind == "right angle" else through_tie(crystal, seed)


def _through_reach(model: CrystalFramer, crystal: Crystal, seed: int) -> Path | None:
    """Through the radius of the model, or the reach of one of its heads, which changes a little with the crystal."""
    decay = model.config.decay
    if decay.reach is None:
        return through_reach(crystal, model.config.radius, pace=SLOWLY)
    reaches, rng = decay.reach * _decay_lengths(model, crystal), np.random.default_rng(seed)
    for _ in range(TRIES):
        layer, atom, head = (int(rng.integers(size)) for size in reaches.shape)
        path = through_reach(crystal, float(reaches[layer, atom, head]), atom)
        if path is not None and path.is_possible:
            for _ in range(CORRECTIONS):
                middle = path.at(path.length / 2)
                reach = decay.reach * float(_decay_lengths(model, middle)[layer, atom, head])
                path = through_reach(middle, reach, atom, SLOWLY) or path
            return path
    return None


def _decay_lengths(model: CrystalFramer, crystal: Crystal) -> Float[np.ndarray, "n_layers n_atoms n_heads"]:
    """How fast the attention of each head falls with distance, Å."""
    radius, dtype = model.config.radius, model.target_mean.dtype
    batch = make_batch([crystal], radius, dtype=dtype, enlarge=model.config.enlarges_radius)
    (trace,) = model.trace(batch.to(model.target_mean.device))
    return np.stack([layer.decay_length for layer in trace.layers])


def _predicted(
    crystals: Sequence[Crystal], model: CrystalFramer, bar: Any
) -> Iterator[Float[np.ndarray, "n n_targets"]]:
    for start in range(0, len(crystals), MAX_CRYSTALS):
        part = crystals[start : start + MAX_CRYSTALS]
        with ops.use("reference"):
            yield predictions(part, model, progress=False)
        bar.update(len(part))


def _table(
    paths: Sequence[Path],
    grid: Float[np.ndarray, "n_paths n_points n_targets"],
    changes: Followed,
    bends: Followed,
    model: CrystalFramer,
) -> pandas.DataFrame:
    import pandas

    found = {
        "step": np.maximum(changes.largest(changes.steps), bends.largest(bends.steps)),
        "kink": bends.largest(bends.kinks),
        "change": changes.largest(changes.sizes[-1]),
        "ratio": _ratio(changes, grid),
        "bend_ratio": _ratio(bends, grid),
    }
    table = pandas.DataFrame({"id": [path.crystal.id for path in paths], "kind": [path.kind for path in paths]})
    table.attrs |= {"units": {}, "spacings": changes.spacing.tolist(), "largest": {}}
    for n, target in enumerate(model.config.outputs):
        largest = changes.sizes[..., n].max(axis=1) * float(model.target_std[n])
        table.attrs["largest"][target.name] = largest.tolist()
        for name, values in found.items():
            column, is_ratio = f"{name}/{target.name}", name.endswith("ratio")
            table[column] = values[:, n] * (1.0 if is_ratio else float(model.target_std[n]))
            table.attrs["units"][column] = "" if is_ratio else f"{target.unit}/Å" if name == "kink" else target.unit
    return table


def _ratio(
    found: Followed, grid: Float[np.ndarray, "n_paths n_points n_targets"]
) -> Float[np.ndarray, "n_paths n_targets"]:
    """The largest difference of each path over the median one, between points about `COMPARED` apart."""
    level = int(np.abs(np.log(found.spacing / COMPARED)).argmin())
    scale = (found.spacing[level] / found.spacing[0]) ** found.order
    medians = scale * np.median(np.abs(np.diff(grid, n=found.order, axis=1)), axis=1)
    return found.largest(found.sizes[level]) / np.maximum(medians, NOISE)
