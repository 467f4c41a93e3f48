"""Predictions of a crystal from which some neighbour edges are removed, many variants in one batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crystalframer.crystals.batch import CrystalBatch
from crystalframer.model.network import CrystalFramer

EDGES_AT_ONCE = 50_000


def predictions_with(
    model: CrystalFramer, batch: CrystalBatch, kept: Sequence[Bool[Tensor, " n_edges"]]
) -> Float[Tensor, "n_variants n_outputs"]:
    """The outputs for each variant of a crystal: in all layers and heads, only the kept edges are there.

    The attention to the others is spread over those that are kept, in proportion (the softmax is renormalised), and
    frames follow from them.

    Args:
        batch: of one crystal.
        kept: the edges of each variant. An atom must keep its edge to itself.
    """
    with torch.inference_mode():
        outputs = [model(together(batch, group)) for group in _groups(kept, EDGES_AT_ONCE)]
    return torch.cat(outputs).double()


def _groups(kept: Iterable[Bool[Tensor, " n_edges"]], largest: int) -> Iterator[list[Tensor]]:
    """Variants that are computed together."""
    group: list[Tensor] = []
    total = 0
    for variant in kept:
        size = int(variant.sum())
        if group and total + size > largest:
            yield group
            group, total = [], 0
        group.append(variant)
        total += size
    yield group


def together(batch: CrystalBatch, variants: Sequence[Bool[Tensor, " n_edges"]]) -> CrystalBatch:
    """The variants of a crystal as a batch."""
    n = len(variants)
    counts = torch.arange(n, device=batch.lattice.device)
    return replace(
        batch,
        atomic_numbers=batch.atomic_numbers.repeat(n),
        positions=batch.positions.repeat(n, 1),
        lattice=batch.lattice.repeat(n, 1, 1),
        crystal_index=counts.repeat_interleave(batch.n_atoms),
        edge_index=torch.cat([batch.edge_index[:, v] + k * batch.n_atoms for k, v in enumerate(variants)], dim=1),
        edge_image=torch.cat([batch.edge_image[v] for v in variants]),
        edge_vectors=torch.cat([batch.edge_vectors[v] for v in variants]),
        targets=batch.targets.repeat(n, 1),
        ids=batch.ids * n,
        incoming=None,
    )
