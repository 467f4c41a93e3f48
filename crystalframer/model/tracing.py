"""From the tensors of a batch to one NumPy record per crystal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crystalframer.config import ModelConfig
from crystalframer.data.crystal import CrystalBatch
from crystalframer.model.attention import LayerOutput
from crystalframer.model.edges import Edges
from crystalframer.model.frames import Frame, tie_margin
from crystalframer.trace import CrystalTrace, FrameTrace, LayerTrace


def crystal_traces(
    config: ModelConfig,
    batch: CrystalBatch,
    edges: Edges,
    steps: Sequence[tuple[Float[Tensor, "n_atoms d_model"], LayerOutput]],
    predictions: Float[Tensor, "n_crystals n_targets"],
) -> list[CrystalTrace]:
    """Divide what the blocks did (features after each, and its attention) among the crystals of the batch."""
    first_atom = _boundaries(batch.crystal_index, batch.n_crystals)
    first_edge = _boundaries(batch.crystal_index[edges.query], batch.n_crystals)
    margins = [_margin(attended.framed.frame, edges) for _, attended in steps]
    traces = []
    for n in range(batch.n_crystals):
        atom, edge = slice(first_atom[n], first_atom[n + 1]), slice(first_edge[n], first_edge[n + 1])
        layers = tuple(
            LayerTrace(
                attention=_array(attended.framed.attention[edge]),
                content_logits=_array(attended.framed.content_logits[edge]),
                distance_logits=_array(attended.framed.distance_logits[edge]),
                decay_length=_array(attended.decay_length[atom]),
                atom_features=_array(features[atom]),
                frame=_frame_trace(config, attended.framed.frame, margin, atom, first_edge[n]),
            )
            for (features, attended), margin in zip(steps, margins, strict=True)
        )
        traces.append(
            CrystalTrace(
                atomic_numbers=_array(batch.atomic_numbers[atom]),
                positions=_array(batch.positions[atom]),
                lattice=_array(batch.lattice[n]),
                edge_index=_array(batch.edge_index[:, edge] - first_atom[n]),
                edge_image=_array(batch.edge_image[edge]),
                layers=layers,
                prediction=dict(zip(config.target_names, predictions[n].tolist(), strict=True)),
                units={target.name: target.unit for target in config.targets},
                id=batch.ids[n],
            )
        )
    return traces


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


def _margin(frame: Frame | None, edges: Edges) -> Tensor | None:
    return None if frame is None else tie_margin(frame, edges)


def _boundaries(index: Tensor, n: int) -> list[int]:
    """First item of each of the n crystals in a sorted index, and the end."""
    return [0, *torch.bincount(index, minlength=n).cumsum(0).tolist()]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
