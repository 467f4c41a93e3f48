"""How predictions and frames change when atoms move a little: the continuity of frame methods, measured."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from crystalframer.analysis.batches import batches
from crystalframer.crystals.crystal import Crystal
from crystalframer.errors import ConfigError
from crystalframer.model.network import CrystalFramer
from crystalframer.prediction import ready
from crystalframer.reading.inputs import read
from crystalframer.surroundings import plain
from crystalframer.traces import CrystalTrace, FrameSets, FrameTrace

if TYPE_CHECKING:
    import pandas

DISPLACEMENTS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
"""Distances in Å, from far below thermal motion to a tenth of a bond."""
JUMP = 10.0
"""Degrees: a frame that rotates farther has jumped. The direction between two atoms 2 Å apart that each move by 0.1 Å
rotates by 6° at most, so a frame that follows its atoms rotates less below that displacement."""
DEGENERATE = 1e-4
"""Principal axes whose eigenvalues differ by less than this share of the largest are not determined: a tie."""


@plain()
def perturb(
    model: CrystalFramer | str | Path | None,
    structure: Any,
    displacements: Sequence[float] = DISPLACEMENTS,
    seeds: Sequence[int] = range(5),
    progress: bool = True,
) -> pandas.DataFrame:
    """Change of predictions and frames when every atom of a structure moves.

    Every atom moves by the same distance in a random direction. A seed draws the directions once for all distances, so
    the rows of a seed lie on one straight path away from the structure. The computation is in float64 (except on MPS
    devices, which lack it), so that the change at 1e-4 Å is not rounding. An atom alone in its cell moves with all its
    images, and nothing changes. Neighbours enter and leave at the radius of the model: with a coarse `weight_tolerance`
    this causes another step, which is largest in frames from moments, where edges count with r².

    >>> import crystalframer as cf
    >>> from crystalframer.analysis.perturbation import perturb
    >>> from crystalframer.testing import random_crystal
    >>> table = perturb(cf.load(), random_crystal(seed=1, n_atoms=3), displacements=[0.0, 1e-4, 0.1], seeds=[0, 1])
    >>> small = table[table["displacement"] == 1e-4]
    >>> bool((small["mean_rotation/0"] < 0.1).all())  # degrees
    True
    >>> table.attrs["units"]["change/formation_energy_per_atom"]
    'eV/atom'

    Args:
        model: a model, or the path of one; None for the weights that come with the package.
        structure: a structure or the path of a file with one (see `crystalframer.read`).
        displacements: distances by which every atom moves, Å.
        seeds: random seeds of the directions.
        progress: show a progress bar if it takes more than 2 s.

    Returns:
        One row for each displacement and seed, with columns `displacement`, `seed`, `change/<target>` (prediction minus
        that of the structure itself), and for every layer, counted from 0, over the frames of all atoms and heads
        except those that change nothing (`CrystalTrace.dead_frames`):
        `mean_rotation/<layer>` and `max_rotation/<layer>` (angle between old and new frame, see `set_rotation` for
        weighted sets), `jumped/<layer>` (share that turned by more than `JUMP`) and `tied/<layer>` (share that a tie
        leaves undetermined in the displaced structure, see `tied_frames`); NaN without frames. `attrs["units"]` maps
        column to unit.

    Raises:
        CrystalError: the model cannot take the structure, or displaced atoms lie on each other.
        ConfigError: a displacement is negative or not finite, or there is no displacement or no seed.
        CheckpointError: the model cannot be loaded.
    """
    import pandas

    for name, given in (("displacements", displacements), ("seeds", seeds)):
        if not len(given):
            raise ConfigError("is empty; give at least one", field=name)
    for value in displacements:
        if not 0 <= value < np.inf:
            problem = "must be a finite distance in Å, 0 or more"
            raise ConfigError(problem, field="displacements", value=value)
    model = _in_double(ready(model, None))
    crystal = read(structure)
    steps = [(float(displacement), int(seed)) for displacement in displacements for seed in seeds]
    copies = [displaced(crystal, displacement, seed) for displacement, seed in steps]
    traces = (
        trace for batch in batches([crystal, *copies], model, "perturbing", progress) for trace in model.trace(batch)
    )
    before = next(traces)
    rows = [
        {"displacement": displacement, "seed": seed} | _changes(before, after, model.config.frame.tie_margin)
        for (displacement, seed), after in zip(steps, traces, strict=True)
    ]
    table = pandas.DataFrame(rows)
    units = {"displacement": "Å"} | {f"change/{output.name}": output.unit for output in model.config.outputs}
    for layer in range(model.config.n_layers):
        units |= {f"mean_rotation/{layer}": "degrees", f"max_rotation/{layer}": "degrees"}
    table.attrs["units"] = units
    return table


def displaced(crystal: Crystal, distance: float, seed: int) -> Crystal:
    """Every atom moved by this distance (Å), each in a random direction that follows from the seed.

    >>> import numpy as np
    >>> from crystalframer.analysis.perturbation import displaced
    >>> from crystalframer.testing import random_crystal
    >>> crystal = random_crystal(seed=1, n_atoms=3)
    >>> moved = displaced(crystal, 0.2, seed=5)
    >>> np.linalg.norm(moved.positions - crystal.positions, axis=1).round(6).tolist()
    [0.2, 0.2, 0.2]
    """
    directions = np.random.default_rng(seed).normal(size=(len(crystal), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return replace(crystal, positions=crystal.positions + distance * directions)


def rotation_angles(
    before: Float[np.ndarray, "*frames 3 3"], after: Float[np.ndarray, "*frames 3 3"]
) -> Float[np.ndarray, "*frames"]:
    """Angle of the rotation between two right-handed orthonormal frames (rows are axes), degrees, 0 to 180.

    From ‖A - B‖ = 2√2 sin(θ/2) (Frobenius norm) rather than from the trace, whose cosine loses angles below 1e-6.
    Neighbours on a line fix e₁ alone, and the other axes are 0: where one of the frames is such, the angle is that
    between both e₁. It is 0 where one frame has no axes.

    >>> import numpy as np
    >>> from crystalframer.analysis.perturbation import rotation_angles
    >>> quarter_turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    >>> float(rotation_angles(np.eye(3), quarter_turn).round(9))
    90.0
    """
    shared = np.asarray(before.any(axis=-1) & after.any(axis=-1))
    distance = np.sqrt(np.square((after - before) * shared[..., None]).sum(axis=(-2, -1)))
    largest = np.where(shared.all(axis=-1), 8**0.5, 2.0)
    return np.asarray(np.degrees(2.0 * np.arcsin(np.minimum(distance / largest, 1.0))))


def set_rotation(before: FrameSets, after: FrameSets) -> tuple[float, float]:
    """How far one weighted set of frames is from another: mean angle in degrees, and share that turned beyond `JUMP`.

    The weight moves from the frames of one set to those of the other so that the mean angle is smallest (the distance
    of Wasserstein). A change of weights counts in this way, too. For sets of one it is the angle between the frames.

    >>> import numpy as np
    >>> from crystalframer.analysis.perturbation import set_rotation
    >>> from crystalframer.traces import FrameSets
    >>> quarter_turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    >>> two = np.stack([np.eye(3), quarter_turn])
    >>> ends = np.array([0, 2])
    >>> old, new = FrameSets(ends, np.array([0.7, 0.3]), two), FrameSets(ends, np.array([0.5, 0.5]), two)
    >>> [round(value, 6) for value in set_rotation(old, new)]  # 0.2 of the weight turns by 90 degrees
    [18.0, 0.2]

    Args:
        before: one set.
        after: one set.
    """
    pairs = np.broadcast_arrays(before.axes[:, None].astype(np.float64), after.axes[None].astype(np.float64))
    angles = rotation_angles(*pairs)
    moved = _least_moved(angles, *(np.asarray(sets.weights, np.float64) for sets in (before, after)))
    return float((moved * angles).sum()), float(moved[angles > JUMP].sum())


def _least_moved(
    costs: Float[np.ndarray, "n m"], given: Float[np.ndarray, " n"], wanted: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "n m"]:
    """Weight that goes from each item to each other one, at the least cost in total (a linear program)."""
    if min(costs.shape) == 1:
        return np.outer(given, wanted)
    from scipy import sparse
    from scipy.optimize import linprog

    n, m = costs.shape
    leaves, arrives = sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))
    totals = np.concatenate([given / given.sum(), wanted / wanted.sum()])
    # The last total follows from the others.
    found = linprog(costs.ravel(), A_eq=sparse.vstack([leaves, arrives]).tocsr()[:-1], b_eq=totals[:-1])
    return found.x.reshape(n, m)


def _rotations(
    before: FrameTrace, after: FrameTrace, counted: Bool[np.ndarray, "n_atoms n_heads"]
) -> tuple[Float[np.ndarray, " n_counted"], Float[np.ndarray, " n_counted"]]:
    """Angle by which each frame or set of frames turned, degrees, and the share of it that jumped."""
    if before.members is None and after.members is None:
        angles = rotation_angles(before.axes[counted], after.axes[counted])
        return angles, (angles > JUMP).astype(np.float64)
    old, new = before.sets, after.sets
    turned = [set_rotation(old.part(n, n + 1), new.part(n, n + 1)) for n in np.flatnonzero(counted).tolist()]
    angles, jumped = np.array(turned).T
    return angles, jumped


def tied_frames(frame: FrameTrace, tie_margin: float) -> Bool[np.ndarray, "n_atoms n_heads"]:
    """Which frames a tie leaves undetermined.

    Frames from anchor edges are tied where the anchor edge for e₁ or e₂ scores no more than `tie_margin` above another
    edge. Frames from principal axes are tied where two eigenvalues differ by less than the share `DEGENERATE` of the
    largest. Axes of the lattice do not depend on the atoms and count as determined, and so do weighted sets, which hold
    all frames that tie.

    >>> import numpy as np
    >>> from crystalframer.analysis.perturbation import tied_frames
    >>> from crystalframer.traces import FrameTrace
    >>> of_one_atom_two_heads = np.array([[[0.5, 0.3], [1e-6, 0.3]]])
    >>> frame = FrameTrace("max", axes=np.zeros((1, 2, 3, 3)), tie_margin=of_one_atom_two_heads)
    >>> tied_frames(frame, tie_margin=1e-4).tolist()
    [[False, True]]
    """
    if frame.members is not None:
        return np.zeros(frame.axes.shape[:2], dtype=bool)
    if frame.tie_margin is not None:
        return frame.tie_margin.min(axis=-1) <= tie_margin
    if frame.eigenvalues is not None:
        return np.diff(frame.eigenvalues, axis=-1).min(axis=-1) <= DEGENERATE * frame.eigenvalues[..., 2]
    return np.zeros(frame.axes.shape[:2], dtype=bool)


def _changes(before: CrystalTrace, after: CrystalTrace, tie_margin: float) -> dict[str, float]:
    """The changes in one row of the table."""
    row = {f"change/{name}": value - before.prediction[name] for name, value in after.prediction.items()}
    counted = ~before.dead_frames.swapaxes(1, 2)
    for layer, (old, new) in enumerate(zip(before.layers, after.layers, strict=True)):
        mean = largest = jumped = tied = float("nan")
        if old.frame is not None and new.frame is not None and counted[layer].any():
            angles, jumps = _rotations(old.frame, new.frame, counted[layer])
            mean, largest, jumped = angles.mean(), angles.max(), jumps.mean()
            tied = tied_frames(new.frame, tie_margin)[counted[layer]].mean()
        names = ("mean_rotation", "max_rotation", "jumped", "tied")
        row |= {f"{n}/{layer}": float(v) for n, v in zip(names, (mean, largest, jumped, tied), strict=True)}
    return row


def _in_double(model: CrystalFramer) -> CrystalFramer:
    """A copy in float64, where the device has it."""
    if model.target_mean.device.type == "mps":
        return model
    return copy.deepcopy(model).to(torch.float64)
