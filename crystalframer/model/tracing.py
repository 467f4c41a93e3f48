"""Makes one NumPy record per crystal from the tensors of a batch, or of some atoms of a large crystal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crystalframer.config import FrameConfig, ModelConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.large_cells import EdgesOfAtoms
from crystalframer.maths.attended import AttendedEdges
from crystalframer.maths.edges import Edges
from crystalframer.maths.frames import Frame, tie_margin
from crystalframer.maths.segments import segment_max, segment_sum
from crystalframer.maths.ties import first_scores, off_axis, weighted_frames
from crystalframer.model.attention import LayerOutput
from crystalframer.model.outputs import with_probabilities
from crystalframer.ops.reference import FramedAttention
from crystalframer.traces import CrystalTrace, FrameSets, FrameTrace, LayerTrace

SMALLEST_WEIGHT = 1e-6
"""Frames of less weight are not recorded; the others of the set are scaled to add up to 1."""
EQUAL = 1e-3
"""Frames whose weights differ by a smaller share are equally heavy: float32 gives equal frames no closer weights."""

Step = tuple[Float[Tensor, "n_atoms d_model"], LayerOutput]
"""Output of a block: features and attention."""


def crystal_traces(
    config: ModelConfig,
    batch: CrystalBatch,
    edges: Edges,
    steps: Sequence[Step],
    predictions: Float[Tensor, "n_crystals n_outputs"],
) -> list[CrystalTrace]:
    """Divide the output of the blocks among the crystals of the batch."""
    first_atom = _boundaries(batch.crystal_index, batch.n_crystals)
    first_edge = _boundaries(batch.crystal_index[edges.query], batch.n_crystals)
    frames = [_recorded(config, attended.framed) for _, attended in steps]
    traces = []
    for n in range(batch.n_crystals):
        atom, edge = slice(first_atom[n], first_atom[n + 1]), slice(first_edge[n], first_edge[n + 1])
        traces.append(
            CrystalTrace(
                atomic_numbers=_array(batch.atomic_numbers[atom]),
                positions=_array(batch.positions[atom]),
                lattice=_array(batch.lattice[n]),
                edge_index=_array(batch.edge_index[:, edge] - first_atom[n]),
                edge_image=_array(batch.edge_image[edge]),
                layers=tuple(
                    _layer_trace(config, *step, frame, atom, edge) for step, frame in zip(steps, frames, strict=True)
                ),
                **_predicted(config, predictions[n]),
                id=batch.ids[n],
            )
        )
    return traces


def region_trace(
    config: ModelConfig,
    given: EdgesOfAtoms,
    edges: Edges,
    steps: Sequence[Step],
    prediction: Float[Tensor, " n_outputs"],
) -> CrystalTrace:
    """Record of some atoms of a crystal, followed by the other atoms that they see.

    All atoms are in the image that is nearest to the first one, so that they lie together across cell boundaries.
    """
    crystal = given.crystal
    atoms = np.concatenate([given.atoms, np.setdiff1d(given.index[1], given.atoms)])
    new_number = np.zeros(crystal.n_atoms, np.int64)
    new_number[atoms] = np.arange(len(atoms))
    index = np.stack([given.index[0], new_number[given.index[1]]])
    positions, lattice = crystal.positions[atoms], crystal.lattice
    shift = -np.rint((positions - positions[0]) @ np.linalg.inv(lattice)).astype(np.int64)
    layers = tuple(
        _layer_trace(config, *step, _recorded(config, step[1].framed), slice(0, len(given.atoms)), slice(None))
        for step in steps
    )
    return CrystalTrace(
        atomic_numbers=crystal.atomic_numbers[atoms].astype(np.int64),
        positions=positions + shift @ lattice,
        lattice=lattice,
        edge_index=index,
        edge_image=given.image + shift[index[0]] - shift[index[1]],
        layers=layers,
        **_predicted(config, prediction),
        id=crystal.id,
        sites=atoms,
    )


def _predicted(config: ModelConfig, prediction: Float[Tensor, " n_outputs"]) -> dict[str, Any]:
    """Of classes, probabilities: of the second of two, or of each."""
    (values,) = with_probabilities(prediction[None].detach().cpu().numpy(), config).tolist()
    return {
        "prediction": dict(zip((output.name for output in config.outputs), values, strict=True)),
        "units": {output.name: output.unit for output in config.outputs},
    }


def _layer_trace(
    config: ModelConfig,
    features: Float[Tensor, "n_atoms d_model"],
    attended: LayerOutput,
    recorded: _Recorded | None,
    atom: slice,
    edge: slice,
) -> LayerTrace:
    """Record of one layer, for these atoms and edges."""
    framed = attended.framed
    return LayerTrace(
        attention=_array(framed.attention[edge]),
        content_logits=_array(framed.content_logits[edge]),
        distance_logits=_array(framed.distance_logits[edge]),
        decay_length=_array(attended.decay_length[atom]),
        atom_features=_array(features[atom]),
        frame=None if recorded is None else _frame_trace(config, recorded, atom, edge.start or 0),
    )


def _frame_trace(config: ModelConfig, recorded: _Recorded, atom: slice, first_edge: int) -> FrameTrace:
    frame, margin, sets = recorded
    return FrameTrace(
        method=config.frame.method,
        axes=_array(frame.axes[atom]),
        anchor_edges=None if frame.anchor_edges is None else _array(frame.anchor_edges[atom] - first_edge),
        eigenvalues=None if frame.eigenvalues is None else _array(frame.eigenvalues[atom]),
        tie_margin=None if margin is None else _array(margin[atom]),
        members=None if sets is None else _sets_of_atoms(sets, config.n_heads, atom, first_edge),
        unsigned_axis=config.frame.promises.hand_axis if config.frame.both_hands else None,
    )


# --- weighted sets of frames ------------------------------------------------------------------------------------------


class _Recorded(NamedTuple):
    """Frames of a layer for the record: those of the batch, or of the atoms of a region."""

    frame: Frame
    """The heaviest of each weighted set, if frames are sets."""
    margin: Float[Tensor, "n_atoms n_heads 2"] | None
    sets: FrameSets | None


def _recorded(config: ModelConfig, framed: FramedAttention) -> _Recorded | None:
    """None without frames."""
    frame, attended = framed.frame, framed.attended
    if frame is None or attended is None:
        return None
    sets = None
    if config.frame.weighted_margin > 0:
        sets = _weighted_sets(config.frame, attended, frame)
        frame = _heaviest(config.frame, attended, sets)
    return _Recorded(frame, tie_margin(frame, attended.edges), sets)


def _weighted_sets(config: FrameConfig, attended: AttendedEdges, chosen: Frame) -> FrameSets:
    """The sets over which an evaluation sums, without members of no weight, the heaviest first.

    Of equally heavy members the first is the one that the rule for ties chooses, which rotates with the crystal.
    """
    assert config.promises.anchored_by is not None, "FrameConfig refuses other methods"
    assert chosen.anchor_edges is not None
    scores = attended.scores(config.promises.anchored_by)
    parts = list(weighted_frames(attended, scores, config.weighted_margin, config.second_axis))
    group, axes, first, second, cost = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("group", "axes", "candidate", "second", "cost")
    )
    edges, weights = torch.stack([first, second], dim=-1), torch.exp(-cost)
    n_sets = attended.edges.n_atoms * attended.n_heads
    heaviest = segment_max(weights[:, None], group, n_sets)[group, 0]
    is_chosen = (edges == chosen.anchor_edges.flatten(0, 1)[group]).all(-1) & (weights > (1 - EQUAL) * heaviest)
    kept = (weights >= SMALLEST_WEIGHT).nonzero()[:, 0]
    by_weight = torch.argsort(torch.where(is_chosen, 2.0, weights)[kept], descending=True, stable=True)
    order = kept[by_weight][torch.argsort(group[kept[by_weight]], stable=True)]
    total = segment_sum(weights[order], group[order], n_sets)[group[order]]
    offsets = [0, *torch.bincount(group[order], minlength=n_sets).cumsum(0).tolist()]
    return FrameSets(
        np.array(offsets), _array(weights[order] / total), _array(axes[order]), _array(edges[order].to(torch.int32))
    )


def _heaviest(config: FrameConfig, attended: AttendedEdges, sets: FrameSets) -> Frame:
    """The first frame of each set."""
    edges, device = attended.edges, attended.logits.device
    shape = (edges.n_atoms, attended.n_heads)
    first = sets.offsets[:-1]
    assert sets.anchor_edges is not None
    anchors = torch.as_tensor(sets.anchor_edges[first], device=device).long().view(*shape, 2)
    axes = torch.as_tensor(sets.axes[first], device=device).view(*shape, 3, 3)
    assert config.promises.anchored_by is not None
    scores = attended.scores(config.promises.anchored_by)
    second_scores = off_axis(edges, axes[:, :, 0], scores, config.second_axis)
    return Frame(axes, anchors, (first_scores(edges, scores), second_scores))


def _sets_of_atoms(sets: FrameSets, n_heads: int, atom: slice, first_edge: int) -> FrameSets:
    """The sets of some atoms, with edges counted from their first."""
    part = sets.part(atom.start * n_heads, atom.stop * n_heads)
    assert part.anchor_edges is not None
    return replace(part, anchor_edges=part.anchor_edges - first_edge)


def _boundaries(index: Tensor, n: int) -> list[int]:
    """First item of each of the n crystals in a sorted index, and the end."""
    return [0, *torch.bincount(index, minlength=n).cumsum(0).tolist()]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
