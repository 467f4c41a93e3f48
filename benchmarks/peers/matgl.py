"""MEGNet (Chen et al. 2019) and M3GNet (Chen and Ong 2022), library `matgl`, as of its published property models."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Any

import torch
from torch import Tensor, nn


class _Matgl:
    """What the models of matgl share: graphs of torch_geometric."""

    model: nn.Module

    def __init__(self, cutoff: float) -> None:
        self.version = metadata.version("matgl")
        elements = import_module("matgl.config").DEFAULT_ELEMENTS
        self._converter = import_module("matgl.ext.pymatgen").Structure2Graph(element_types=elements, cutoff=cutoff)
        self._collate = import_module("matgl.graph.data").collate_fn_graph

    def graph(self, structure: Any) -> Any:
        graph, lattice, state = self._converter.get_graph(structure)
        graph.pos = graph.frac_coords @ lattice[0]
        graph.pbc_offshift = graph.pbc_offset @ lattice[0]
        return graph, lattice, torch.as_tensor(state, dtype=torch.float32), {"label": 0.0}

    def batch(self, graphs: Sequence[Any]) -> Any:
        graph, _, state, _ = self._collate(list(graphs))
        return graph, state

    def predict(self, batch: Any) -> Tensor:
        graph, state = batch
        return self.model(g=graph, state_attr=state).view(-1)


class Megnet(_Matgl):
    name = "MEGNet"
    settings = "3 blocks, 4 Å"

    def __init__(self) -> None:
        super().__init__(cutoff=4.0)
        self.model = import_module("matgl.models").MEGNet(cutoff=4.0)


class M3gnet(_Matgl):
    name = "M3GNet"
    settings = "3 blocks of 64 features, 5 Å, angles within 4 Å"

    def __init__(self) -> None:
        super().__init__(cutoff=5.0)
        self.model = import_module("matgl.models").M3GNet(cutoff=5.0, threebody_cutoff=4.0, is_intensive=True)
