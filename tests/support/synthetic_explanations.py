"""Seeded explanations without a model."""

from __future__ import annotations

import numpy as np
from synthetic_traces import perovskite, synthetic_trace

from crystalframer.explanations import Explanation


def synthetic_explanation() -> Explanation:
    """Of SrTiO3, with random contributions and relevance."""
    trace, rng = synthetic_trace(perovskite()), np.random.default_rng(0)
    contributions = np.array([-0.4, -0.9, 0.1, 0.1, 0.1])
    return Explanation(
        atomic_numbers=trace.atomic_numbers,
        positions=trace.positions,
        lattice=trace.lattice,
        edge_index=trace.edge_index,
        edge_image=trace.edge_image,
        target="formation_energy_per_atom",
        unit="eV/atom",
        scale="value",
        prediction=float(-1.5 + contributions.sum()),
        base=-1.5,
        site_contributions=contributions,
        edge_relevance=rng.normal(size=(trace.n_layers, trace.n_heads, trace.n_edges)),
        site_groups=np.array([0, 1, 2, 2, 2]),
        id=trace.id,
    )
