"""Tests of the physics of a model: its predictions must not depend on how a crystal is described and computed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from crystalframer import ops
from crystalframer.analysis.batches import predictions
from crystalframer.analysis.continuity import continuity, paths_of
from crystalframer.analysis.invariance import KINDS, invariance
from crystalframer.analysis.paths import NEAR, displacement
from crystalframer.config import ModelConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import prepare
from crystalframer.crystals.neighbors import neighbor_list
from crystalframer.datasets.sources import dataset
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import model_second, ready
from crystalframer.reading.inputs import readable
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
    "mirror": "mirror images",
    "cutoff": "steps where a neighbour passes the reach of the model or of a head",
    "paths": "steps where atoms move, cells are strained, neighbours pass a right angle or a tie",
    "kinks": "steps of the derivative on all these paths, in a model without steps",
    "ties": "ties between frame axes decided at random, as in training; predictions do not",
    "batch": "predicted alone and in a batch",
    "repetition": "predicted twice: the same bits",
    "kernels": "compiled kernels and plain torch",
    "precision": "32 bits and 64 bits",
    "device": "on CUDA and on the CPU",
    "reach": "every head looks 1.3 times as far (decay.reach)",
}
"""Check → the comparison."""
CELL_KINDS = ("cell", "supercell", "images")
"""Checks that a frame method may fail by promise (`FramePromises.sees_cell`)."""
N_DEMO, N_RANDOM, LARGEST_CELL = 24, 8, 20
N_SMALL, N_TRAVELLED = 12, 2
"""Paths start from the least symmetric of the smallest structures. In symmetric ones, sums over frames take minutes."""
MOVED = 0.1
"""Å: atoms move so far before a path starts."""
LONGER = 1.3
"""Factor on the reach."""
VERDICTS = {
    "cutoff": ("no step", "STEPS"),
    "paths": ("no step", "STEPS"),
    "kinks": ("no kink", "KINKS"),
}
"""Check → verdicts; for the others `same` and `DIFFERS`."""
PROMISED = {"mirror": "mirror", "cutoff": "continuous", "paths": "continuous", "kinks": "smooth"}
"""Check → field of `ModelPromises` without which it is reported and not judged. The others are judged for all models,
because without symmetry no model may fail them."""
REPORTED = ("ties", "reach")
"""Checks that are reported, and judged for no model."""


@dataclass(frozen=True, eq=False, repr=False)
class CheckReport:
    """How much each test changed the predictions."""

    table: pandas.DataFrame
    """One row for each check and target: `check`, `target`, `largest` and `median` size of the change, in `unit`,
    `worst` (id of the structure that changed most), `relative` (the largest in standard deviations of the training
    labels), `promised` (whether the settings of the model promise that there is none), `passed` (None for what is
    reported and not judged: `ties`, `reach`, and what the model does not promise), and `ratio`, for steps: the largest
    change between two points about 0.0001 Å apart, divided by the median one of its path."""
    n_structures: int
    model: ModelConfig
    """Settings by which the model was evaluated."""

    @property
    def passed(self) -> bool:
        return bool((self.table["passed"] != False).all())  # noqa: E712 - None is no failure

    def summary(self) -> str:
        """The table in words, with a conclusion."""
        lines = [
            f"{self.n_structures} structures; a change of up to {LIMIT:g} standard deviations counts as rounding",
            f"what follows from the settings of this model: {self.model.promises}",
            "",
        ]
        for target, rows in self.table.groupby("target", sort=False):
            lines.append(f"{target} ({rows['unit'].iloc[0]})" if rows["unit"].iloc[0] else str(target))
            lines += [self._line(row) for row in rows.to_dict("records")]
        left_out = [f"{kind} ({text})" for kind, text in DESCRIPTIONS.items() if kind not in set(self.table["check"])]
        if left_out:
            lines += ["", f"not tested here: {', '.join(left_out)}"]
        if not self.passed:
            lines += ["", *self._causes()]
        return "\n".join(lines)

    def _line(self, row: dict[Any, Any]) -> str:
        kind = row["check"]
        good, bad = VERDICTS.get(kind, ("same", "DIFFERS"))
        verdict = {True: good, False: bad, None: "not promised" if kind in PROMISED else "for information"}
        worst = "" if row["largest"] == 0 else f"; most: {row['worst']}"
        ratio = "" if np.isnan(row["ratio"]) else f"; largest change {row['ratio']:,.0f} × the median of its path"
        return (
            f"  {verdict[row['passed']]:<15} {kind:<11} largest {row['largest']:<9.2g} median {row['median']:<9.2g} "
            f"{DESCRIPTIONS[kind]}{worst}{ratio}"
        )

    def _causes(self) -> Iterator[str]:
        """Likely causes of the differences."""
        differing = dict.fromkeys(self.table["check"][self.table["passed"] == False])  # noqa: E712
        frame, promises = self.model.frame, self.model.frame.promises
        expected = [kind for kind in differing if promises.sees_cell and kind in CELL_KINDS]
        broken = [kind for kind in differing if kind in PROMISED]
        if expected:
            kinds = ", ".join(expected)
            yield f"expected: the frame method {frame.method!r} depends on the choice of cell ({kinds})"
        if broken:
            yield f"The settings of the model promise another result ({', '.join(broken)}): an error of the program."
        if not self.model.promises.rotation and len(differing) > len(expected) + len(broken):
            yield "Most differences are in symmetric structures, whose frames are not unique (docs/limits.md)."
            if promises.has_weighted_sets:
                yield (
                    "A model that is loaded without as_trained=True (command line: --as-trained) sums over weighted "
                    "sets of frames, and has no such differences."
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
    """Test that predictions do not depend on rotation, cell, batching, precision or device, and have no steps.

    Mirror images, and steps and kinks along paths of moving atoms, are judged if the settings of the model promise that
    there are none (`ModelConfig.promises`), and otherwise reported.

    >>> import crystalframer as cf
    >>> from crystalframer.testing import prototypes, random_crystal
    >>> report = cf.check([random_crystal(seed, n_atoms=3) for seed in (1, 2)], cf.load(), n_draws=1)
    >>> report.passed
    True

    Args:
        structures: anything that `predict` takes. Default: 12 prototypes, 24 crystals of the shipped data set and 8
            random ones, which take a minute.
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
        values = part[[f"change/{output.name}" for output in model.config.outputs]].to_numpy()
        rows += _rows(str(kind), part["id"].to_numpy(), values, model)
    ids = np.array([crystal.id for crystal in crystals])
    for kind, values in _computed_otherwise(crystals, model, progress):
        rows += _rows(kind, ids, values, model)
    rows += _rows_of_paths(crystals, model, progress)
    return CheckReport(pandas.DataFrame(rows), len(crystals), model.evaluation_config)


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
    if model.config.decay.reach is not None:
        yield "reach", predictions(crystals, model.looking_farther(LONGER), progress=progress) - together


def _rows_of_paths(crystals: list[Crystal], model: CrystalFramer, progress: bool) -> Iterator[dict[str, Any]]:
    """Steps and kinks along paths from some of the structures."""
    paths = paths_of(model, [_moved(crystal, seed) for seed, crystal in enumerate(_travelled(crystals))])
    if not paths:
        return
    table = continuity(model, paths, progress=progress)
    of_reach = table["kind"] == "reach"
    without_steps = table if model.config.promises.continuous else table.iloc[:0]  # steps hide kinks
    for kind, part in (("cutoff", table[of_reach]), ("paths", table[~of_reach]), ("kinks", without_steps)):
        if len(part):
            column = "kink" if kind == "kinks" else "step"
            names = np.array([f"{id}, {path}" for id, path in zip(part["id"], part["kind"], strict=True)])
            sizes, ratios = (
                np.stack([part[f"{what}/{output.name}"] for output in model.config.outputs], axis=1)
                for what in (column, "ratio")
            )
            yield from _rows(kind, names, sizes, model, ratios)


def _moved(crystal: Crystal, seed: int) -> Crystal:
    """The structure with less symmetry, unless atoms would lie on each other."""
    path = replace(displacement(crystal, seed), length=MOVED)
    return path.at(MOVED) if path.is_possible else crystal


def _travelled(crystals: list[Crystal]) -> list[Crystal]:
    """The structures from which paths start."""

    def share_of_lengths(crystal: Crystal) -> float:
        lengths = np.linalg.norm(neighbor_list(crystal, NEAR, enlarge=False).edge_vectors, axis=1)
        return len(np.unique(lengths.round(3))) / len(lengths)

    several = [crystal for crystal in crystals if len(crystal) > 1] or crystals
    return sorted(sorted(several, key=len)[:N_SMALL], key=share_of_lengths)[-N_TRAVELLED:]


def _rows(
    kind: str,
    ids: np.ndarray,
    changes: Float[np.ndarray, "n n_targets"],
    model: CrystalFramer,
    ratios: Float[np.ndarray, "n n_targets"] | None = None,
) -> Iterator[dict[str, Any]]:
    """One row for each target. Without `ratios`, the changes are differences; with them, steps of any size count."""
    sizes, deviations = np.abs(changes), model.target_std.double().cpu().numpy()
    promised = getattr(model.promises, PROMISED[kind]) if kind in PROMISED else kind not in REPORTED
    for n, (target, deviation) in enumerate(zip(model.config.outputs, deviations, strict=True)):
        largest = float(sizes[:, n].max())  # NaN if any is
        limit = 0.0 if kind == "repetition" or ratios is not None else LIMIT * deviation
        yield {
            "check": kind,
            "target": target.name,
            "largest": largest,
            "median": float(np.median(sizes[:, n])),
            "unit": f"{target.unit}/Å" if kind == "kinks" else target.unit,
            "worst": str(ids[int(sizes[:, n].argmax())]),
            "relative": largest / float(deviation),
            "promised": promised,
            "passed": largest <= limit if promised else None,
            "ratio": float("nan") if ratios is None or kind == "kinks" else float(ratios[:, n].max()),
        }
