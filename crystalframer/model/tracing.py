"""Makes one NumPy record per crystal from the tensors of a batch, or of some atoms of a large crystal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crystalframer.config import ModelConfig
from crystalframer.crystals.crystal import CrystalBatch
from crystalframer.crystals.large_cells import EdgesOfAtoms
from crystalframer.maths.edges import Edges
from crystalframer.maths.frames import Frame, tie_margin
from crystalframer.model.attention import LayerOutput
from crystalframer.traces import CrystalTrace, FrameTrace, LayerTrace

Step = tuple[Float[Tensor, "n_atoms d_model"], LayerOutput]
"""Output of a block: features and attention."""


def crystal_traces(
    config: ModelConfig,
    batch: CrystalBatch,
    edges: Edges,
    steps: Sequence[Step],
    predictions: Float[Tensor, "n_crystals n_targets"],
) -> list[CrystalTrace]:
    """Divide the output of the blocks among the crystals of the batch."""
    first_atom = _boundaries(batch.crystal_index, batch.n_crystals)
    first_edge = _boundaries(batch.crystal_index[edges.query], batch.n_crystals)
    margins = [tie_margin(attended.framed.frame, edges) for _, attended in steps]
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
                    _layer_trace(config, *step, margin, atom, edge) for step, margin in zip(steps, margins, strict=True)
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
    prediction: Float[Tensor, " n_targets"],
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
        _layer_trace(config, features, attended, tie_margin(attended.framed.frame, edges), slice(None), slice(None))
        for features, attended in steps
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


def _predicted(config: ModelConfig, prediction: Float[Tensor, " n_targets"]) -> dict[str, Any]:
    return {
        "prediction": dict(zip(config.target_names, prediction.tolist(), strict=True)),
        "units": {target.name: target.unit for target in config.targets},
    }


def _layer_trace(
    config: ModelConfig,
    features: Float[Tensor, "n_atoms d_model"],
    attended: LayerOutput,
    margin: Tensor | None,
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
        frame=_frame_trace(config, framed.frame, margin, atom, edge.start or 0),
    )


def _frame_trace(
    config: ModelConfig, frame: Frame | None, margin: Tensor | None, atom: slice, first_edge: int
) -> FrameTrace | None:
    if frame is None:
        return None
    return FrameTrace(
        method=config.frame.method,
        axes=_array(frame.axes[atom]),
        anchor_edges=None if frame.anchor_edges is None else _array(frame.anchor_edges[atom] - first_edge),
        eigenvalues=None if frame.eigenvalues is None else _array(frame.eigenvalues[atom]),
        tie_margin=None if margin is None else _array(margin[atom]),
    )


def _boundaries(index: Tensor, n: int) -> list[int]:
    """First item of each of the n crystals in a sorted index, and the end."""
    return [0, *torch.bincount(index, minlength=n).cumsum(0).tolist()]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
