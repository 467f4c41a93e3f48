"""Seeded traces: real neighbour lists, random attention and random frames; and those of a region, by a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

import crystalframer as cf
from crystalframer.config import FrameConfig
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.neighbors import neighbor_list
from crystalframer.model.network import CrystalFramer
from crystalframer.presets import preset
from crystalframer.traces import CrystalTrace, FrameTrace, LayerTrace

D_MODEL = 8


def synthetic_trace(
    crystal: Crystal,
    method: str = "max",
    radius: float = 6.0,
    seed: int = 0,
    n_layers: int = 3,
    n_heads: int = 4,
    content: float = 1.0,
) -> CrystalTrace:
    """Content logits are random and of the size `content`; where it is 0, the nearest atoms get most attention."""
    rng = np.random.default_rng(seed)
    edges = neighbor_list(crystal, radius)
    query = edges.edge_index[0]
    lengths = np.linalg.norm(edges.edge_vectors, axis=1)
    layers = []
    for _ in range(n_layers):
        sigma = rng.uniform(1.2, 2.0, (len(crystal), n_heads))
        distance = -(lengths[:, None] ** 2) / (2 * sigma[query] ** 2)
        content_logits = content * rng.normal(size=distance.shape)
        weights = np.exp(distance + content_logits)
        total = np.stack([np.bincount(query, weights[:, head]) for head in range(n_heads)], axis=1)
        axes = np.linalg.qr(rng.normal(size=(len(crystal), n_heads, 3, 3)))[0]
        axes[..., 2, :] = np.cross(axes[..., 0, :], axes[..., 1, :])
        frame = FrameTrace(method, axes)
        if method == "max":
            frame = _max_frame(query, edges.edge_vectors, distance + content_logits)
        layers.append(
            LayerTrace(
                attention=weights / total[query],
                content_logits=content_logits,
                distance_logits=distance,
                decay_length=sigma,
                atom_features=rng.normal(size=(len(crystal), D_MODEL)),
                frame=None if method == "none" else frame,
            )
        )
    return CrystalTrace(
        atomic_numbers=crystal.atomic_numbers,
        positions=crystal.positions,
        lattice=crystal.lattice,
        edge_index=edges.edge_index,
        edge_image=edges.edge_image,
        layers=tuple(layers),
        prediction={"formation_energy_per_atom": -3.5},
        units={"formation_energy_per_atom": "eV/atom"},
        id=crystal.id,
    )


def with_dead_head(trace: CrystalTrace, layer: int, head: int, outgoing: float = 5e-4) -> CrystalTrace:
    """The same trace, with so little attention to other atoms in one head that its frames change nothing."""
    changed = trace.layers[layer]
    attention = changed.attention.copy()
    itself = trace.edge_lengths == 0
    attention[:, head] *= (outgoing / trace.outgoing_attention[layer, head])[trace.edge_index[0]]
    attention[itself, head] = 1 - outgoing
    layers = [*trace.layers[:layer], replace(changed, attention=attention), *trace.layers[layer + 1 :]]
    return replace(trace, layers=tuple(layers))


def whole_and_region(
    crystal: Crystal, sites: list[int], n_layers: int = 2, n_heads: int = 2, **frame: Any
) -> tuple[CrystalTrace, CrystalTrace]:
    """Traces by a model that was never trained, in float64: of the crystal, and of some of its sites."""
    model = untrained(n_layers, n_heads, **frame)
    return cf.trace(crystal, model), cf.trace(crystal, model, sites=sites)


def untrained(n_layers: int = 2, n_heads: int = 2, **frame: Any) -> CrystalFramer:
    """A small model in float64, with these settings of its frames."""
    config = replace(preset("tiny").config.model, n_layers=n_layers, n_heads=n_heads, frame=FrameConfig(**frame))
    return CrystalFramer(config, torch.Generator().manual_seed(0)).double().eval()


def weighted_trace(crystal: Crystal, **frame: Any) -> CrystalTrace:
    """By such a model whose frames are weighted sets."""
    settings: dict[str, Any] = {"weighted_margin": 0.1} | frame
    return cf.trace(crystal, untrained(**settings))


def _max_frame(query: np.ndarray, vectors: np.ndarray, logits: np.ndarray) -> FrameTrace:
    """e₁ along the strongest edge, e₂ towards the strongest that is not in line with it."""
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.where(lengths > 0, lengths, 1.0)[:, None]
    axes = np.empty((query.max() + 1, logits.shape[1], 3, 3))
    anchors = np.empty((*axes.shape[:2], 2), dtype=np.int64)
    margin = np.empty(anchors.shape)
    for atom, head in np.ndindex(*axes.shape[:2]):
        mine = np.flatnonzero((query == atom) & (lengths > 0))
        first = mine[np.argmax(logits[mine, head])]
        aside = mine[np.abs(unit[mine] @ unit[first]) < 0.9999]
        second = aside[np.argmax(logits[aside, head])]
        anchors[atom, head] = first, second
        for k, candidates in enumerate((mine, aside)):
            best, next_best = np.sort(logits[candidates, head])[[-1, -2]]
            margin[atom, head, k] = best - next_best
        e1 = unit[first]
        e2 = unit[second] - (unit[second] @ e1) * e1
        e2 /= np.linalg.norm(e2)
        axes[atom, head] = e1, e2, np.cross(e1, e2)
    return FrameTrace("max", axes, anchor_edges=anchors, tie_margin=margin)


def perovskite() -> Crystal:
    """SrTiO3, a = 3.905 Å: Sr on the corner, Ti in the middle, O on the faces."""
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return Crystal(np.array([38, 22, 8, 8, 8]), frac * 3.905, 3.905 * np.eye(3), id="SrTiO3")


def skewed() -> Crystal:
    """A triclinic cell of five atoms; the rounding of one position puts it just outside a face."""
    lattice = np.array([[4.1, 0.0, 0.0], [1.3, 4.6, 0.0], [-0.7, 1.9, 5.2]])
    frac = np.array([[-1e-9, 0.3, 0.6], [0.5, 0.9, 0.2], [0.35, 0.55, 0.8], [1.7, -0.4, 0.5], [0.8, 0.75, 0.1]])
    return Crystal(np.array([20, 14, 8, 8, 9]), frac @ lattice, lattice, id="skewed")
