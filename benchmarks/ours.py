"""Training steps, predictions and batches of crystalframer, as users run them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from crystalframer import ops
from crystalframer.config import Config
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.loading import BatchOrder, PreparedCrystals
from crystalframer.model.network import CrystalFramer
from crystalframer.training import optimisation

NAMES: dict[str, ops.Implementation] = {"crystalframer": "auto", "crystalframer, reference": "reference"}
"""Names in the tables: the fast kernels, and plain torch."""
SEARCH_NOTE = "crystalframer searches neighbours on all cores whatever --threads says; other libraries on one."


class Ours:
    """A model and its optimiser."""

    def __init__(self, config: Config, first: CrystalBatch, implementation: ops.Implementation) -> None:
        """Args: first: a batch (on the device of the run) that sets the scale of the decay lengths, as in training."""
        self.config = config
        self.implementation: ops.Implementation = implementation
        device = first.edge_vectors.device
        self.model = CrystalFramer(config.model, torch.Generator().manual_seed(config.training.seed)).to(device)
        self.model.calibrate(first)
        self.optimizer = optimisation.optimizer(self.model, config.training)
        self.n_steps = 0

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def step(self, batch: CrystalBatch) -> Tensor:
        """Forward, backward, clipping and AdamW."""
        config = self.config.training
        with ops.use(self.implementation):
            prediction = self.model(batch, optimisation.noise_seed(config.seed, 0, self.n_steps))
            loss = optimisation.normalised_l1(prediction, batch.targets, self.model.target_std)
            self.optimizer.zero_grad()
            loss.backward()
        optimisation.scale_and_clip(self.model.parameters(), 1.0, config.clip_norm)
        self.optimizer.step()
        self.n_steps += 1
        return loss.detach()

    def predict(self, batch: CrystalBatch) -> Tensor:
        with torch.inference_mode(), ops.use(self.implementation):
            return self.model(batch)


def batches(prepared: PreparedCrystals, size: int, device: torch.device) -> list[CrystalBatch]:
    """All crystals in batches, on the device."""
    order = BatchOrder(np.asarray(prepared.n_atoms), size)
    return [prepared[rows].to(device) for rows in order.batches(0)]
