"""CHGNet (Deng et al. 2023), library `chgnet`: its default network, energies only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module, metadata
from typing import Any

from torch import Tensor


class Chgnet:
    name = "CHGNet"
    settings = "4 convolutions of 64 features, 6 Å atom and 3 Å bond graph"

    def __init__(self) -> None:
        self.version = metadata.version("chgnet")
        with redirect_stdout(io.StringIO()):  # it tells its number of parameters
            self.model = import_module("chgnet.model").CHGNet(composition_model=None)
        self._converter = self.model.graph_converter

    def graph(self, structure: Any) -> Any:
        return self._converter(structure)

    def batch(self, graphs: Sequence[Any]) -> Any:
        return list(graphs)  # joined by the model itself

    def predict(self, batch: Any) -> Tensor:
        return self.model(batch, task="e")["e"]
