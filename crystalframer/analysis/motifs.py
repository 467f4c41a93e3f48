"""Coordination motifs, and whether attention and frames follow them: traces in, tables out.

A `Shell` is a site with its nearest neighbours, named as edges of the trace (query, key, image), and the most similar
polyhedron. `shell_attention` compares the layers and heads of a trace with one shell. `motif_table` does so for
every site of many traces, and `motif_summary` averages by motif. Nothing here needs torch or a model. Sites, layers and
heads count from 0, lengths are in Å, angles in degrees, shares between 0 and 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from crystalframer.analysis.bonds import find_bonds
from crystalframer.analysis.polyhedra import polyhedron_name, symmetry_measures
from crystalframer.elements import SYMBOLS
from crystalframer.errors import MotifError
from crystalframer.traces import DEAD_BELOW, CrystalTrace

if TYPE_CHECKING:
    import pandas
    from pymatgen.analysis.local_env import NearNeighbors
    from pymatgen.core import Structure

N_DIRECTIONS = 4096
"""Points on the sphere over which directions are averaged: the mean angle is right to 0.01°."""
N_TURNS = 360
"""Rotations about e₁ over which e₂ is averaged."""


@dataclass(frozen=True, eq=False)
class Shell:
    """A site, its nearest neighbours, and the ideal polyhedra, the most similar first."""

    site: int
    key: Int[np.ndarray, " n_neighbors"]
    """The neighbours' atoms."""
    image: Int[np.ndarray, "n_neighbors 3"]
    """Lattice translations of the neighbours, counted as the trace's `edge_image`: from its own positions."""
    edges: Int[np.ndarray, " n_neighbors"]
    """The neighbours' edges in the trace; -1 where it has none (a neighbour beyond the radius of the model)."""
    vectors: Float[np.ndarray, "n_neighbors 3"]
    """From the site to the neighbours, Å."""
    measures: dict[str, float] = field(default_factory=dict)
    """CSM of each ideal polyhedron, nearest first (see `symmetry_measures`)."""

    def __len__(self) -> int:
        """The coordination number."""
        return len(self.key)

    @property
    def label(self) -> str:
        """`O:6`: the nearest polyhedron by its ChemEnv symbol; `?:11` where there is none of so many corners."""
        return next(iter(self.measures), f"?:{len(self)}")

    @property
    def csm(self) -> float:
        """Continuous symmetry measure of the nearest polyhedron: 0 ideal, at most 100; NaN where there is none."""
        return next(iter(self.measures.values()), float("nan"))

    @property
    def name(self) -> str:
        """The nearest polyhedron in words."""
        return polyhedron_name(self.label)

    @cached_property
    def bonds(self) -> Float[np.ndarray, "n_neighbors 3"]:
        """`vectors` at length 1."""
        return self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)


def coordination_shells(
    trace: CrystalTrace, finder: NearNeighbors | None = None, sites: Sequence[int] | None = None
) -> list[Shell]:
    """The shell of every site of a crystal.

    Args:
        trace: positions may lie outside the cell.
        finder: any of the neighbour finders of pymatgen, such as `CrystalNN()`. Default: the bonds that pictures show
            (see `crystalframer.analysis.bonds`).
        sites: only these, in this order. Default: all.

    Raises:
        MotifError: no such site, or its neighbours cannot be found.

    Example:
        >>> for shell in coordination_shells(trace)[:3]:  # SrTiO3
        ...     print(shell.site, shell.label, shell.name, round(shell.csm, 2))
        0 C:12 cuboctahedron 0.0
        1 O:6 octahedron 0.0
        2 L:2 line 0.0
    """
    sites = range(trace.n_queries) if sites is None else sites
    missing = [site for site in sites if not 0 <= site < trace.n_queries]
    if missing:
        problem = f"{_name(trace)}: no site {missing[0]}; choose from 0 to {trace.n_queries - 1}"
        raise MotifError(problem, site=missing[0])
    if finder is None:
        _check_positions(trace)
        bonds = find_bonds(trace.atomic_numbers, trace.positions, trace.lattice)
        return [_shell(trace, site, *bonds.shell(site)) for site in sites]
    structure = _structure(trace)
    return [_shell(trace, site, *_found(trace, structure, finder, site)) for site in sites]


def _structure(trace: CrystalTrace) -> Structure:
    from pymatgen.core import Element, Structure

    return Structure(
        np.asarray(trace.lattice, dtype=np.float64),
        [Element.from_Z(int(z)) for z in trace.atomic_numbers],
        np.asarray(trace.positions, dtype=np.float64),
        coords_are_cartesian=True,
    )


def _check_positions(trace: CrystalTrace) -> None:
    odd = np.flatnonzero(~np.isfinite(trace.positions).all(axis=1))
    if len(odd):
        site = int(odd[0])
        element = SYMBOLS[int(trace.atomic_numbers[site]) - 1]
        problem = f"{_name(trace)}, site {site} ({element}): its position is not a number; correct the structure"
        raise MotifError(problem, site=site)


def _found(
    trace: CrystalTrace, structure: Structure, finder: NearNeighbors, site: int
) -> tuple[Int[np.ndarray, " n_neighbors"], Int[np.ndarray, "n_neighbors 3"]]:
    """Atoms and images of the neighbours that a finder of pymatgen finds."""
    try:
        with warnings.catch_warnings():
            # Oxidation states, which are never known here, or a radius is missing. A caller cannot change that.
            warnings.simplefilter("ignore")
            found = finder.get_nn_info(structure, site)
    except Exception as error:  # a finder or its Voronoi code can fail with any error on a strange geometry
        raise MotifError(
            f"{_name(trace)}, site {site} ({structure[site].specie}): {type(finder).__name__} finds no neighbours "
            f"({type(error).__name__}: {error}); check the structure, or choose another finder",
            site=site,
        ) from error
    key = np.array([entry["site_index"] for entry in found], dtype=np.int64)
    ends = np.array([entry["site"].coords for entry in found], dtype=np.float64).reshape(-1, 3)
    # Finders count images from different cells.
    image = np.rint((ends - structure.cart_coords[key]) @ np.linalg.inv(structure.lattice.matrix)).astype(np.int64)
    return key, image


def _shell(
    trace: CrystalTrace, site: int, key: Int[np.ndarray, " n_neighbors"], image: Int[np.ndarray, "n_neighbors 3"]
) -> Shell:
    positions, lattice = np.asarray(trace.positions, dtype=np.float64), np.asarray(trace.lattice, dtype=np.float64)
    vectors = positions[key] + image @ lattice - positions[site]
    return Shell(site, key, image, _edges_of(trace, site, key, image), vectors, symmetry_measures(vectors))


def _edges_of(
    trace: CrystalTrace, site: int, key: Int[np.ndarray, " n_neighbors"], image: Int[np.ndarray, "n_neighbors 3"]
) -> Int[np.ndarray, " n_neighbors"]:
    mine = np.flatnonzero(trace.edge_index[0] == site)
    is_same = (trace.edge_index[1, mine] == key[:, None]) & (trace.edge_image[mine] == image[:, None]).all(axis=2)
    if not len(mine):
        return np.full(len(key), -1)
    return np.where(is_same.any(axis=1), mine[is_same.argmax(axis=1)], -1)


# --- angles -----------------------------------------------------------------------------------------------------------


def bond_angles(
    axes: Float[np.ndarray, "*batch 3"], bonds: Float[np.ndarray, "n_bonds 3"], either_sign: bool = False
) -> Float[np.ndarray, "*batch"]:
    """Angle between each axis and the bond nearest to it, degrees.

    Args:
        axes: unit vectors.
        bonds: directions of the bonds, of length 1.
        either_sign: count an axis and its opposite as one, so that the angle is at most 90°. The default respects the
            sign, because the model sees r̂·e_k with its sign and e₁ of a max frame points at an atom. Choose
            `either_sign=True` for axes whose sign is a convention (`pca`, `weighted-pca`). It makes no difference where
            bonds come in opposite pairs (octahedron, cube, square). In a tetrahedron they do not: the opposite of a
            bond is 70.5° from the next bond.

    Returns:
        NaN for a shell without bonds.

    Example:
        >>> octahedron = np.vstack([np.eye(3), -np.eye(3)])
        >>> bond_angles(np.array([[0.0, 0.0, -1.0], [0.6, 0.8, 0.0]]), octahedron).round(2)
        array([ 0.  , 36.87])
    """
    if not len(bonds):
        return np.full(axes.shape[:-1], np.nan)
    cosines = axes @ bonds.T
    nearest = (np.abs(cosines) if either_sign else cosines).max(axis=-1)
    return np.asarray(np.rad2deg(np.arccos(np.clip(nearest, -1.0, 1.0))))


def chance_angle(bonds: Float[np.ndarray, "n_bonds 3"], either_sign: bool = False) -> float:
    """The mean of `bond_angles` for an axis in a random direction: the baseline, degrees.

    All directions are equally likely for each axis of a random frame, so the three axes have one baseline: the mean
    over the sphere, computed on a Fibonacci lattice of 4,096 directions (no random numbers).

    Example:
        >>> octahedron = np.vstack([np.eye(3), -np.eye(3)])
        >>> round(chance_angle(octahedron), 1)
        31.9
    """
    return float(bond_angles(_directions(), bonds, either_sign).mean())


def chance_angle_given_e1(
    e1: Float[np.ndarray, "*batch 3"], bonds: Float[np.ndarray, "n_bonds 3"], either_sign: bool = False
) -> Float[np.ndarray, "*batch"]:
    """The mean angle of e₂ when the frame is rotated about its e₁ at random: the baseline of e₂, degrees.

    Where e₁ lies along a bond, this alone brings e₂ nearer to one: on an octahedron 22.5° instead of 31.9°.

    Example:
        >>> octahedron = np.vstack([np.eye(3), -np.eye(3)])
        >>> float(chance_angle_given_e1(np.array([1.0, 0.0, 0.0]), octahedron).round(1))
        22.5
    """
    # Any direction that is not along e1: here the coordinate axis that is farthest from it.
    other = np.eye(3)[np.abs(e1).argmin(axis=-1)]
    across = np.cross(e1, other)
    size = np.linalg.norm(across, axis=-1, keepdims=True)
    across /= np.where(size > 0, size, 1.0)  # a head that sees no neighbour has no axes
    turns = 2 * np.pi * (np.arange(N_TURNS) + 0.5) / N_TURNS
    circle = np.cos(turns)[:, None] * across[..., None, :] + np.sin(turns)[:, None] * np.cross(e1, across)[..., None, :]
    return np.asarray(bond_angles(circle, bonds, either_sign).mean(axis=-1))


def _directions() -> Float[np.ndarray, "n_directions 3"]:
    """Directions spread evenly over the sphere: the Fibonacci lattice (Gonzalez, Math. Geosci. 42, 49 (2010))."""
    step = np.arange(N_DIRECTIONS) + 0.5
    height = 1.0 - 2.0 * step / N_DIRECTIONS
    turn = np.pi * (3.0 - np.sqrt(5.0)) * step
    width = np.sqrt(1.0 - height**2)
    return np.stack([width * np.cos(turn), width * np.sin(turn), height], axis=1)


# --- attention on one shell -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ShellAttention:
    """How every layer and head of a trace attends to one shell.

    Where frames are weighted sets, angles, baselines and anchors are means over the frames of a set by their weights.
    """

    share: Float[np.ndarray, "n_layers n_heads"]
    """Attention of the site to its shell. The total of 1 includes its attention to itself: the share of the shell in
    the attention to other atoms is `share / (1 - itself)`."""
    itself: Float[np.ndarray, "n_layers n_heads"]
    """Attention of the site to itself, without its own images."""
    angles: Float[np.ndarray, "n_layers n_heads 3"] | None
    """Angle of e₁, e₂ and e₃ to the nearest bond, degrees; None without frames. An axis without direction
    (`FrameTrace.unsigned_axis`) counts with both signs, half each."""
    e2_chance: Float[np.ndarray, "n_layers n_heads"] | None
    """Baseline of e₂ (see `chance_angle_given_e1`), degrees; None without frames."""
    anchors_in_shell: Float[np.ndarray, "n_layers n_heads 2"] | None
    """Whether the edges that fixed e₁ and e₂ are bonds of the shell: 1 or 0, and in a weighted set the weight of the
    frames of which it holds; None for frames without anchors."""
    chance: float
    """Baseline of each axis (see `chance_angle`), degrees."""


def shell_attention(trace: CrystalTrace, shell: Shell, either_sign: bool = False) -> ShellAttention:
    """Compare attention, frames and anchors of one site with its shell, for each layer and head.

    Args:
        either_sign: as in `bond_angles`, for angles and baselines.

    Example:
        >>> titanium = coordination_shells(trace)[1]
        >>> found = shell_attention(trace, titanium)
        >>> found.share.shape, found.angles.shape, round(found.chance, 1)
        ((3, 4), (3, 4, 3), 31.9)
    """
    query, key = trace.edge_index
    present = shell.edges[shell.edges >= 0]
    is_itself = (query == shell.site) & (key == shell.site) & (trace.edge_image == 0).all(axis=1)
    frames = [layer.frame for layer in trace.layers if layer.frame is not None]
    of_site = [frame.sets.part(shell.site * trace.n_heads, (shell.site + 1) * trace.n_heads) for frame in frames]
    angles, e2_chance = [], []
    for frame, sets in zip(frames, of_site, strict=True):
        angles.append(sets.mean(_angles_of_frames(sets.axes, shell.bonds, frame.unsigned_axis, either_sign)))
        e2_chance.append(sets.mean(_chances_of_e2(sets.axes[:, 0], shell.bonds, either_sign)))
    in_shell = [
        sets.mean(np.isin(sets.anchor_edges, present).astype(np.float64))
        for sets in of_site
        if sets.anchor_edges is not None
    ]
    return ShellAttention(
        share=np.stack([layer.attention[present].sum(axis=0, dtype=np.float64) for layer in trace.layers]),
        itself=np.stack([layer.attention[is_itself].sum(axis=0, dtype=np.float64) for layer in trace.layers]),
        angles=np.stack(angles) if frames else None,
        e2_chance=np.stack(e2_chance) if frames else None,
        anchors_in_shell=np.stack(in_shell) if in_shell else None,
        chance=chance_angle(shell.bonds, either_sign),
    )


def _angles_of_frames(
    axes: Float[np.ndarray, "n_frames 3 3"],
    bonds: Float[np.ndarray, "n_bonds 3"],
    unsigned_axis: int | None,
    either_sign: bool,
) -> Float[np.ndarray, "n_frames 3"]:
    """Angle of each axis to the nearest bond, degrees; NaN for an axis that the neighbours do not fix."""
    axes = axes.astype(np.float64)
    angles = bond_angles(axes, bonds, either_sign)
    if unsigned_axis is not None:
        opposite = bond_angles(-axes[:, unsigned_axis], bonds, either_sign)
        angles[:, unsigned_axis] = (angles[:, unsigned_axis] + opposite) / 2
    return np.where(axes.any(axis=-1), angles, np.nan)


def _chances_of_e2(
    e1: Float[np.ndarray, "n_frames 3"], bonds: Float[np.ndarray, "n_bonds 3"], either_sign: bool
) -> Float[np.ndarray, " n_frames"]:
    """`chance_angle_given_e1` of each frame. Many frames of a set share their first axis."""
    e1 = e1.astype(np.float64)
    _, one_of, which = np.unique(e1.round(6), axis=0, return_index=True, return_inverse=True)
    return chance_angle_given_e1(e1[one_of], bonds, either_sign)[which.reshape(-1)]


# --- many structures --------------------------------------------------------------------------------------------------

AXES = ("e1", "e2", "e3")


def motif_table(
    traces: Iterable[CrystalTrace],
    *,
    finder: NearNeighbors | None = None,
    either_sign: bool = False,
    progress: bool = True,
) -> pandas.DataFrame:
    """Attention and frames compared with the shell of every site, for every layer and head of many traces.

    Args:
        traces: used one at a time, so that a generator (`(cf.trace(s, model) for s in structures)`) saves memory.
        finder: as in `coordination_shells`.
        either_sign: as in `bond_angles`.
        progress: show a progress bar if it takes more than 2 s.

    Returns:
        One row per trace, site, layer and head: `id` of the structure, `site`, `element`, `coordination` number,
        `label` and `csm` of the motif, `layer`, `head`, frame `method`, `share` and `itself` (see `ShellAttention`),
        `e1_angle`, `e2_angle`, `e3_angle` (degrees; NaN without frames), `chance_angle` (baseline of any axis),
        `e2_chance_angle` (baseline of e₂, given e₁), `e1_in_shell`, `e2_in_shell` (whether the anchor edge is a bond;
        see `ShellAttention`; NaN without anchors). `attrs["units"]` maps column to unit. Structures whose shells cannot
        be found have no rows: a warning counts them, and `attrs["errors"]` maps their ids to the reasons.

    Example:
        >>> table = motif_table([trace])
        >>> len(table), list(table["label"].unique())
        (60, ['C:12', 'O:6', 'L:2'])
        >>> table.attrs["errors"]
        {}
    """
    import pandas

    parts: list[dict[str, Any]] = []
    errors: dict[str, str] = {}
    total = len(traces) if isinstance(traces, Sized) else None
    bar = tqdm(traces, total=total, desc="motifs", unit="structure", delay=2, disable=not progress)
    for number, trace in enumerate(bar):
        name = trace.id or f"structure-{number}"
        try:
            shells = coordination_shells(trace, finder)
        except MotifError as error:
            errors[name] = str(error)
            continue
        parts += [_rows(name, trace, shell, shell_attention(trace, shell, either_sign)) for shell in shells]
    if errors:
        name, reason = next(iter(errors.items()))
        warnings.warn(
            f"no motifs for {len(errors)} structures, which have no rows: {name} ({reason})"
            + (f" and {len(errors) - 1} more" if len(errors) > 1 else "")
            + '; see attrs["errors"]',
            stacklevel=2,
        )
    columns = {
        column: np.concatenate([part[column] for part in parts]) if parts else np.empty(0, dtype=dtype)
        for column, dtype in _COLUMNS.items()
    }
    table = pandas.DataFrame(columns)
    table.attrs["units"] = {column: "°" for column in _COLUMNS if column.endswith("_angle")}
    table.attrs["errors"] = errors
    return table


_COLUMNS = {
    "id": object,
    "site": np.int64,
    "element": object,
    "coordination": np.int64,
    "label": object,
    "csm": np.float64,
    "layer": np.int64,
    "head": np.int64,
    "method": object,
    **dict.fromkeys(("share", "itself", *(f"{axis}_angle" for axis in AXES)), np.float64),
    **dict.fromkeys(("chance_angle", "e2_chance_angle", "e1_in_shell", "e2_in_shell"), np.float64),
}


def _rows(name: str, trace: CrystalTrace, shell: Shell, found: ShellAttention) -> dict[str, Any]:
    """The rows of one site, as columns."""
    n_layers, n_heads = found.share.shape
    layer, head = np.divmod(np.arange(n_layers * n_heads), n_heads)
    element = SYMBOLS[int(trace.atomic_numbers[shell.site]) - 1]
    columns: dict[str, Any] = {"id": name, "site": shell.site, "element": element}
    columns |= {"coordination": len(shell), "label": shell.label, "csm": shell.csm, "layer": layer, "head": head}
    columns |= {"method": trace.layers[0].frame_method, "share": found.share, "itself": found.itself}
    for number, axis in enumerate(AXES):
        columns[f"{axis}_angle"] = np.nan if found.angles is None else found.angles[..., number]
    columns["chance_angle"] = found.chance
    columns["e2_chance_angle"] = np.nan if found.e2_chance is None else found.e2_chance
    for number, axis in enumerate(AXES[:2]):
        anchors = found.anchors_in_shell
        columns[f"{axis}_in_shell"] = np.nan if anchors is None else anchors[..., number]
    return {
        column: np.broadcast_to(np.asarray(columns[column], dtype=dtype).reshape(-1), n_layers * n_heads)
        for column, dtype in _COLUMNS.items()
    }


def motif_summary(table: pandas.DataFrame) -> pandas.DataFrame:
    """How each head of each layer attends to each motif, averaged over many structures.

    The sites of a structure are averaged first, and then the structures, because equivalent sites only repeat one
    another. Standard errors are over structures, and NaN where there is only one. Frames that change nothing, because
    almost no attention leaves the atom (`CrystalTrace.dead_frames`), are not counted in angles and anchors.

    Args:
        table: result of `motif_table`, or some of its rows.

    Returns:
        One row per `label`, `layer` and `head`, sorted: `n_sites`, `n_structures`, and mean and standard error of
        `share`, `itself`, `e1_angle`, `e2_angle`, `e3_angle` (`share_se`, ...); `dead`, the share of dead frames; mean
        `csm`, `chance_angle` and
        `e2_chance_angle`; `e1_lock`, `e3_lock` = 1 - angle/chance and `e2_lock` = 1 - angle/chance given e₁: 1 on the
        bonds, 0 as by chance, below 0 away from them; `e1_in_shell`, `e2_in_shell`: share of frames anchored on a bond.

    Raises:
        MotifError: a column is missing.

    Example:
        >>> summary = motif_summary(motif_table([trace]))
        >>> summary.query("label == 'O:6'")[["layer", "head", "n_sites", "chance_angle"]].round(1).head(2)
           layer  head  n_sites  chance_angle
        ...
    """
    import pandas

    by = ["label", "layer", "head"]
    with_error = ["share", "itself", *(f"{axis}_angle" for axis in AXES)]
    mean_only = ["csm", "chance_angle", "e2_chance_angle", "e1_in_shell", "e2_in_shell"]
    missing = [column for column in ("id", *by, *with_error, *mean_only) if column not in table]
    if missing:
        problem = f"the table has no column {', '.join(missing)}; give the table that motif_table makes"
        raise MotifError(problem, field=missing[0])
    numbers: Any = table[["id", *by, *with_error, *mean_only]].astype(dict.fromkeys(mean_only, np.float64))
    dead = numbers["itself"] > 1.0 - DEAD_BELOW
    of_frames = [*with_error[2:], "e2_chance_angle", "e1_in_shell", "e2_in_shell"]
    numbers[of_frames] = numbers[of_frames].mask(dead, axis=0)
    numbers["dead"] = dead.astype(np.float64)
    mean_only.append("dead")
    per_structure = numbers.groupby([*by, "id"]).mean().reset_index()
    groups = per_structure.groupby(by)
    mean, error = groups[[*with_error, *mean_only]].mean(), groups[with_error].sem()
    summary = pandas.DataFrame({"n_sites": table.groupby(by).size(), "n_structures": groups.size()})
    for column in with_error:
        summary[column], summary[f"{column}_se"] = mean[column], error[column]
    summary[mean_only] = mean[mean_only]
    for axis, chance in zip(AXES, ("chance_angle", "e2_chance_angle", "chance_angle"), strict=True):
        summary[f"{axis}_lock"] = 1.0 - summary[f"{axis}_angle"] / summary[chance]
    summary = summary.reset_index()
    summary.attrs["units"] = {column: "°" for column in summary if "_angle" in str(column)}
    return summary


def _name(trace: CrystalTrace) -> str:
    return f"crystal {trace.id!r}" if trace.id else "crystal"
