"""ALIGNN (Choudhary and DeCost 2021), library `alignn`: its network without DGL, at the published size."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Any

import torch
from torch import Tensor


class Alignn:
    name = "ALIGNN"
    settings = "4 + 4 layers of 256 features, the 12 nearest within 8 Å"

    def __init__(self) -> None:
        self.version = metadata.version("alignn")
        network = import_module("alignn.models.alignn_atomwise_pure")
        self._graphs = import_module("alignn.torch_graph_builder")
        self._adaptor = import_module("jarvis.core.atoms").pmg_to_atoms
        config = network.ALIGNNAtomWisePureConfig(
            name="alignn_atomwise_pure",
            alignn_layers=4,
            gcn_layers=4,
            atom_input_features=92,
            hidden_features=256,
            calculate_gradient=False,
        )
        self.model = network.ALIGNNAtomWisePure(config)

    def graph(self, structure: Any) -> Any:
        return self._graphs.build_pure_torch_graph(
            self._adaptor(structure), two_body_cutoff=8.0, max_neighbors=12, atom_features="cgcnn"
        )

    def batch(self, graphs: Sequence[Any]) -> Any:
        return (*self._graphs.batch_torch_graph_pairs(list(graphs)), torch.zeros(len(graphs), 3, 3))

    def predict(self, batch: Any) -> Tensor:
        return self.model(batch)["out"].view(-1)
