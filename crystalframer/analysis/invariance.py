"""How much predictions change when a crystal is rotated, reflected or described in another way.

Exact arithmetic would give the same number, unless the model sees the cell or the hand of the crystal
(`ModelConfig.promises`). The rest is rounding, and ties between frame axes that rounding decides differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Int
from tqdm.auto import tqdm

from crystalframer.analysis.batches import predictions
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import ConfigError, suggestion
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import ready
from crystalframer.reading.inputs import readable
from crystalframer.surroundings import plain
from crystalframer.testing import permuted, random_rotation, rewrapped, rotated, supercell, translated, with_cell

if TYPE_CHECKING:
    import pandas

Kind = Literal["rotation", "translation", "cell", "supercell", "images", "order", "mirror", "ties"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SUPERCELLS = ((2, 1, 1), (1, 2, 1), (1, 1, 2), (3, 1, 1), (1, 3, 1), (1, 1, 3), (2, 2, 1), (2, 1, 2), (1, 2, 2))


def changed(crystal: Crystal, kind: Kind, seed: int) -> Crystal:
    """Another description of the same crystal, which follows from a seed.

    `rotation`: a random rotation, uniform over all. `translation`: all atoms moved by one vector within the cell.
    `cell`: other lattice vectors of a cell of the same size. `supercell`: two to four cells in one. `images`: each atom
    moved by a lattice vector. `order`: atoms in another order. `mirror`: its mirror image, turned at random, which is
    the crystal itself unless it is chiral. `ties`: the crystal itself, because the noise of the model decides ties.

    >>> from crystalframer.analysis.invariance import changed
    >>> from crystalframer.testing import random_crystal
    >>> crystal = random_crystal(seed=1, n_atoms=3)
    >>> len(changed(crystal, "supercell", seed=0))
    6
    >>> sorted(changed(crystal, "order", seed=0).atomic_numbers) == sorted(crystal.atomic_numbers)
    True

    Raises:
        ConfigError: there is no such kind. The message suggests the nearest one.
    """
    if kind not in _CHANGES:
        raise ConfigError(f"unknown kind{suggestion(kind, KINDS)}", field="kind", value=kind)
    return _CHANGES[kind](crystal, seed)


@plain()
def invariance(
    model: CrystalFramer | str | Path | None,
    structures: Any,
    kinds: Sequence[Kind] = KINDS,
    n_draws: int = 8,
    progress: bool = True,
) -> pandas.DataFrame:
    """Change of predictions when structures are described in another way, in the model's own precision.

    >>> import crystalframer as cf
    >>> from crystalframer.analysis.invariance import invariance, invariance_summary
    >>> from crystalframer.testing import random_crystal
    >>> model = cf.load()
    >>> table = invariance(model, random_crystal(seed=1, n_atoms=3), kinds=["rotation", "cell"], n_draws=2)
    >>> table[["id", "kind", "draw"]]
             id      kind  draw
    0  random-1  rotation     0
    1  random-1  rotation     1
    2  random-1      cell     0
    3  random-1      cell     1
    >>> largest = invariance_summary(table)["largest/formation_energy_per_atom"]
    >>> bool((largest < 1e-4).all())  # eV/atom
    True

    Args:
        model: a model, or the path of one; None for the weights that come with the package.
        structures: anything that `predict` takes.
        kinds: see `changed`. For `ties`, the model decides ties by noise as in training, instead of by moments, and
            draws the signs of principal axes at random.
        n_draws: descriptions of each kind and structure, with seeds 0, 1, ...
        progress: show a progress bar if it takes more than 2 s.

    Returns:
        One row for each structure, kind and draw: `id` (unique), `kind`, `draw`, and `change/<target>`: prediction
        minus that of the structure as it was given, its atoms wrapped into the cell. `attrs["units"]` maps column to
        unit.

    Raises:
        CrystalError: a structure cannot be read, the model cannot take it, or there is no structure.
        ConfigError: a kind is unknown, or there is no kind or no draw.
        CheckpointError: the model cannot be loaded.
    """
    import pandas

    if not isinstance(n_draws, int) or n_draws < 1:
        raise ConfigError("must be a whole number of at least 1", field="n_draws", value=n_draws)
    if not kinds:
        raise ConfigError(f"name at least one of {', '.join(KINDS)}", field="kinds")
    model = ready(model, None)
    crystals = readable(structures)
    names = [f"change/{output.name}" for output in model.config.outputs]
    before = predictions(crystals, model, progress=False)
    parts = []
    draws: list[tuple[Kind, int]] = [(kind, draw) for kind in kinds for draw in range(n_draws)]
    for kind, draw in tqdm(draws, "other descriptions", delay=2, leave=False, disable=not progress):
        noise_seed = draw * model.config.n_layers if kind == "ties" else None
        after = predictions([changed(crystal, kind, draw) for crystal in crystals], model, noise_seed, False)
        part = pandas.DataFrame({"id": [crystal.id for crystal in crystals], "kind": kind, "draw": draw})
        parts.append(part.join(pandas.DataFrame(after - before, columns=names)))
    table = pandas.concat(parts, ignore_index=True)
    table.attrs["units"] = {f"change/{output.name}": output.unit for output in model.config.outputs}
    return table


def invariance_summary(table: pandas.DataFrame) -> pandas.DataFrame:
    """The spread of each kind of change, over all structures of a table of `invariance`.

    >>> import pandas
    >>> from crystalframer.analysis.invariance import invariance_summary
    >>> table = pandas.DataFrame({"id": "NaCl", "kind": "order", "draw": [0, 1], "change/gap": [-0.75, 0.25]})
    >>> invariance_summary(table).loc["order"].to_dict()
    {'largest/gap': 0.75, 'std/gap': 0.5}

    Returns:
        One row a kind: `largest/<target>`, the largest size of a change (NaN if any is), and `std/<target>`, the
        standard deviation over the draws of one structure (root mean square over the structures); in the target's unit.
    """
    import pandas

    rows: dict[Any, dict[str, float]] = {}
    for kind, part in table.groupby("kind", sort=False):
        rows[kind] = {}
        for name in part.columns[part.columns.str.startswith("change/")]:
            target = name.removeprefix("change/")
            variances = [np.var(draws.to_numpy()) for _, draws in part.groupby("id")[name]]
            rows[kind][f"largest/{target}"] = float(np.abs(part[name].to_numpy()).max())
            rows[kind][f"std/{target}"] = float(np.sqrt(np.mean(variances)))
    return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("kind")


def _unimodular(rng: np.random.Generator) -> Int[np.ndarray, "3 3"]:
    """Integers with determinant ±1: a lower times an upper triangle, with the rows in any order."""
    lower, upper = (np.eye(3, dtype=np.int64) + np.tril(rng.integers(-1, 2, (3, 3)), -1) for _ in range(2))
    return rng.permutation(lower @ upper.T)


_CHANGES: dict[Kind, Callable[[Crystal, int], Crystal]] = {
    "rotation": lambda crystal, seed: rotated(crystal, random_rotation(seed)),
    "translation": lambda crystal, seed: translated(crystal, np.random.default_rng(seed).random(3) @ crystal.lattice),
    "cell": lambda crystal, seed: with_cell(crystal, _unimodular(np.random.default_rng(seed))),
    "supercell": lambda crystal, seed: supercell(crystal, SUPERCELLS[seed % len(SUPERCELLS)]),
    "images": rewrapped,
    "order": lambda crystal, seed: permuted(crystal, np.random.default_rng(seed).permutation(len(crystal))),
    "mirror": lambda crystal, seed: rotated(crystal, -random_rotation(seed)),
    "ties": lambda crystal, seed: crystal,
}
