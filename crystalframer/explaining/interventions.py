"""Interventions: a model computes again with edges hidden, heads silent or other frames, and its prediction changes.

They need no theory, so that explanations are tested by them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crystalframer.config import FrameConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import prepare
from crystalframer.errors import ConfigError, CrystalWarning, suggestion
from crystalframer.explaining.removal import predictions_with, together
from crystalframer.explanations import shells_of
from crystalframer.frame_methods import FRAME_METHODS, PROMISES
from crystalframer.maths.edges import SELF_LENGTH, Edges
from crystalframer.maths.segments import segment_mean, segment_sum
from crystalframer.model.network import CrystalFramer
from crystalframer.model.outputs import with_probabilities
from crystalframer.ops.reference import Change
from crystalframer.prediction import ready
from crystalframer.reading.inputs import read
from crystalframer.surroundings import plain

if TYPE_CHECKING:
    import pandas

Rule = Literal["renormalise", "mean"]
RANDOM = "random"


@dataclass(frozen=True)
class Intervention:
    """What is taken from a model, or from what it sees. All fields hold at once.

    >>> import crystalframer as cf
    >>> str(cf.Intervention(neighbours=[(1, 2)], heads=[(0, 3)]))
    'neighbours [(1, 2)], heads [(0, 3)]'
    """

    edges: Sequence[int] = ()
    """Hidden edges, by their numbers in a trace or an explanation of all atoms."""
    neighbours: Sequence[tuple[int, int]] = ()
    """Pairs (site, neighbour): the site does not see the neighbour, nor its images."""
    shells: Sequence[int] = ()
    """Shells that no atom sees, counted from 1 (`Explanation.shells`)."""
    atoms: Sequence[int] = ()
    """Atoms that no other atom sees; they count in the mean over atoms as before."""
    heads: Sequence[tuple[int, int]] = ()
    """Pairs (layer, head): heads that bring nothing."""
    layers: Sequence[int] = ()
    """Layers whose heads all bring nothing."""
    frames: str | None = None
    """Frames in place of the model's: `random`, another method, or `none`: the head sees distances only."""
    rule: Rule = "renormalise"
    """What becomes of the attention to hidden edges. `renormalise`: it goes to the other edges of the atom, in
    proportion, and frames follow from those. `mean`: it stays, and brings the mean value of all edges of the atom;
    frames stay as they are."""
    name: str = ""
    """Name in the table. Default: the fields that are set."""

    def __post_init__(self) -> None:
        if self.rule not in ("renormalise", "mean"):
            known = suggestion(str(self.rule), ("renormalise", "mean"))
            raise ConfigError(f"unknown value{known}", field="rule", value=self.rule)
        known_frames = (RANDOM, *FRAME_METHODS)
        if self.frames is not None and self.frames not in known_frames:
            known = suggestion(str(self.frames), known_frames)
            raise ConfigError(f"unknown value{known}", field="frames", value=self.frames)

    @property
    def hides_edges(self) -> bool:
        return any(len(getattr(self, name)) for name in ("edges", "neighbours", "shells", "atoms"))

    def __str__(self) -> str:
        names = ("edges", "neighbours", "shells", "atoms", "heads", "layers")
        parts = [f"{name} {list(getattr(self, name))}" for name in names if len(getattr(self, name))]
        parts += [f"{self.frames} frames"] if self.frames else []
        return self.name or ", ".join(parts) or "nothing"


@plain()
def intervene(
    structure: Any,
    model: CrystalFramer | str | Path | None = None,
    interventions: Intervention | Sequence[Intervention] = (),
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> pandas.DataFrame:
    """Predict again with edges hidden, heads silent or other frames: what do they matter?

    >>> import crystalframer as cf
    >>> from crystalframer.testing import prototypes
    >>> asked = [cf.Intervention(shells=[1]), cf.Intervention(layers=[0])]
    >>> table = cf.intervene(prototypes()[4], interventions=asked)
    >>> table["intervention"].tolist()
    ['shells [1]', 'layers [0]']

    Args:
        structure: a structure, or the path of a file with one (see `read`).
        model: a model, or the path of one. Default: the weights that come with the package.
        interventions: what is changed: one intervention, or several that are computed together.
        seed: random seed of random frames.
        device: where to compute, as in `predict`.

    Returns:
        One row for each intervention: `intervention`, `rule`, `n_hidden` (hidden edges), `n_alone` (atoms that see no
        neighbour any more, and only themselves; a warning says so), for each output the new prediction, and
        `<output>_change`, new minus old, in the unit of the output (`frame.attrs["units"]`).

    Raises:
        ConfigError: there is no such edge, atom, shell, layer or head, or the model has no frames to replace.
        CrystalError: a structure that the model cannot take.
        CheckpointError: the model cannot be loaded.
    """
    import pandas

    model = ready(model, device)
    asked = [interventions] if isinstance(interventions, Intervention) else list(interventions)
    crystal = read(structure)
    packed = prepare([crystal], model.config.radius, enlarge=model.config.enlarges_radius)
    weights = model.target_mean
    batch = packed.batch([0], weights.dtype).to(weights.device)
    masks = [kept_edges(each, batch) for each in asked]
    for each in asked:
        _check(each, model)
    before = predictions_with(model, batch, [torch.ones_like(batch.edge_index[0], dtype=torch.bool)])
    found = torch.cat([before, _computed(asked, masks, model, batch, seed)])
    values = with_probabilities(found.cpu().numpy(), model.config)
    is_self = batch.edge_lengths < SELF_LENGTH
    alone = [
        _n_alone(kept, is_self, batch) if each.rule == "renormalise" else 0
        for each, kept in zip(asked, masks, strict=True)
    ]
    _warn(asked, alone, crystal.name)
    columns: dict[str, Any] = {
        "intervention": [str(each) for each in asked],
        "rule": [each.rule for each in asked],
        "n_hidden": [int((~kept).sum()) for kept in masks],
        "n_alone": alone,
    }
    for number, output in enumerate(model.config.outputs):
        columns[output.name] = values[1:, number]
        columns[f"{output.name}_change"] = values[1:, number] - values[0, number]
    table = pandas.DataFrame(columns)
    table.attrs["units"] = {output.name: output.unit for output in model.config.outputs}
    return table


def kept_edges(intervention: Intervention, batch: CrystalBatch) -> Bool[Tensor, " n_edges"]:
    """The edges of a crystal that an intervention does not hide. The edge of an atom to itself is never hidden.

    Raises:
        ConfigError: there is no such edge, atom, pair or shell.
    """
    query, key = batch.edge_index.cpu().numpy()
    lengths = batch.edge_lengths.double().cpu().numpy()
    is_self = lengths < SELF_LENGTH
    hidden = np.zeros(len(query), dtype=bool)
    _check_numbers("edges", intervention.edges, len(query))
    hidden[list(intervention.edges)] = True
    if (hidden & is_self).any():
        edge = int(np.flatnonzero(hidden & is_self)[0])
        problem = "is the edge of an atom to itself, which cannot be hidden: an atom always sees itself"
        raise ConfigError(problem, field="edges", value=edge)
    _check_numbers("atoms", intervention.atoms, batch.n_atoms)
    hidden |= np.isin(key, list(intervention.atoms))
    for pair in intervention.neighbours:
        _check_numbers("neighbours", pair, batch.n_atoms)
        hidden |= (query == pair[0]) & (key == pair[1])
    if len(intervention.shells):
        shells = shells_of(query, lengths, is_self)
        bad = [shell for shell in intervention.shells if not 1 <= shell <= shells.max()]
        if bad:
            raise ConfigError(f"shells are counted from 1 to {shells.max()}", field="shells", value=bad[0])
        hidden |= np.isin(shells, list(intervention.shells))
    return torch.from_numpy(~(hidden & ~is_self)).to(batch.edge_index.device)


def _check_numbers(name: str, numbers: Sequence[int], count: int) -> None:
    bad = [number for number in numbers if not 0 <= number < count]
    if bad:
        raise ConfigError(f"there is none; they are counted from 0 to {count - 1}", field=name, value=bad[0])


def _check(intervention: Intervention, model: CrystalFramer) -> None:
    config = model.config
    _check_numbers("layers", intervention.layers, config.n_layers)
    for layer, head in intervention.heads:
        fits = 0 <= layer < config.n_layers and 0 <= head < config.n_heads
        if not fits:
            problem = (
                f"there is none; layers are counted from 0 to {config.n_layers - 1}, heads to {config.n_heads - 1}"
            )
            raise ConfigError(problem, field="heads", value=(layer, head))
    if intervention.frames is not None and config.frame.promises.axes is None:
        problem = "the model has no frames, so there are none to replace; leave it out"
        raise ConfigError(problem, field="frames", value=intervention.frames)


def _n_alone(kept: Bool[Tensor, " n_edges"], is_self: Bool[Tensor, " n_edges"], batch: CrystalBatch) -> int:
    """Atoms that lose all their neighbours."""
    before, after = (
        torch.bincount(batch.edge_index[0], (edges & ~is_self).double(), batch.n_atoms)
        for edges in (torch.ones_like(kept), kept)
    )
    return int(((before > 0) & (after == 0)).sum())


def _warn(asked: Sequence[Intervention], alone: Sequence[int], name: str) -> None:
    lonely = [(str(each), n) for each, n in zip(asked, alone, strict=True) if n]
    if lonely:
        what, n = lonely[0]
        more = f", and {len(lonely) - 1} more interventions alike" if len(lonely) > 1 else ""
        message = f"{name}: without {what}, {n} atoms see no neighbour and attend to themselves{more}"
        warnings.warn(CrystalWarning(message), stacklevel=3)


def _computed(
    asked: Sequence[Intervention],
    masks: Sequence[Bool[Tensor, " n_edges"]],
    model: CrystalFramer,
    batch: CrystalBatch,
    seed: int,
) -> Float[Tensor, "n_interventions n_outputs"]:
    """The outputs after each intervention. Those of the same model are computed together."""
    rows: list[Tensor | None] = [None] * len(asked)
    alike: dict[Any, list[int]] = {}
    for number, each in enumerate(asked):
        if each.frames == RANDOM or (each.rule == "mean" and each.hides_edges):
            rows[number] = _by_reference(each, masks[number], _changed(model, each), batch, seed)
        else:
            key = tuple(sorted(set(each.heads))), tuple(sorted(set(each.layers))), each.frames
            alike.setdefault(key, []).append(number)
    for numbers in alike.values():
        changed = _changed(model, asked[numbers[0]])
        for number, row in zip(numbers, predictions_with(changed, batch, [masks[n] for n in numbers]), strict=True):
            rows[number] = row
    return torch.stack([row for row in rows if row is not None])


def _changed(model: CrystalFramer, intervention: Intervention) -> CrystalFramer:
    """The model without these heads, and with other frames unless they are random."""
    silent = [*intervention.heads, *((n, h) for n in intervention.layers for h in range(model.config.n_heads))]
    if silent:
        model = model.without_heads(silent)
    if intervention.frames not in (None, RANDOM):
        model = model.with_frames(other_frames(model.evaluation_config.frame, str(intervention.frames)))
    return model


def other_frames(frame: FrameConfig, method: str) -> FrameConfig:
    """Settings of another method, alike in all that it can do."""
    promises = PROMISES[method]
    if not promises.has_weighted_sets:
        return FrameConfig(method, frame.tie_margin, both_hands=frame.both_hands and promises.hand_axis is not None)
    return FrameConfig(method, frame.tie_margin, frame.weighted_margin, frame.second_axis, frame.both_hands)


@torch.no_grad()
def _by_reference(
    intervention: Intervention,
    kept: Bool[Tensor, " n_edges"],
    model: CrystalFramer,
    batch: CrystalBatch,
    seed: int,
) -> Float[Tensor, " n_outputs"]:
    """With changes that only plain torch computes."""
    generator = torch.Generator().manual_seed(seed)
    is_mean = intervention.rule == "mean"
    edges = Edges.of(batch if is_mean else together(batch, [kept]))

    def with_mean(attention: Tensor) -> Tensor:
        hidden = segment_sum(attention.masked_fill(kept[:, None], 0.0), edges.query, edges.n_atoms)
        return attention * (kept[:, None] + hidden[edges.query])

    weights: Callable[[Tensor], Tensor] | None = with_mean if is_mean else None
    features = model.embed(batch.atomic_numbers)
    for block in model.blocks:
        axes = None
        if intervention.frames == RANDOM:
            axes = random_axes(edges.n_atoms * model.config.n_heads, generator).to(features)
            axes = axes.view(edges.n_atoms, model.config.n_heads, 3, 3)
        attended = block.attention.trace(block.attention.project(features), edges, Change(weights, axes))
        features = features + attended.features
        features = features + block.feedforward(features)
    return model.read_out(segment_mean(features, batch.crystal_index, 1))[0].double()


def random_axes(n: int, generator: torch.Generator) -> Float[Tensor, "n 3 3"]:
    """Right-handed axes, uniform over all rotations: the signs of a QR decomposition are made positive."""
    q, r = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator, dtype=torch.float64))
    q = q * torch.diagonal(r, dim1=1, dim2=2).sign()[:, None]
    return q * torch.linalg.det(q).sign()[:, None, None]
