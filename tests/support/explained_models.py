"""A small model in float64 whose predictions depend on the surroundings, for explanations and interventions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sensitive_models import sensitive_model

from crystalframer.config import DecayConfig, FrameConfig, Target
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import prepare
from crystalframer.frame_methods import FRAME_METHODS
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import random_crystal

SET = {"weighted_margin": 0.3, "second_axis": "sine", "both_hands": True}
FRAMES: list[dict[str, Any]] = [{"method": name} for name in FRAME_METHODS]
FRAMES += [{"method": "max", **SET}, {"method": "static-max", **SET}]
SETS = FRAMES[-2:]
CRYSTAL = random_crystal(2, n_atoms=5)


def model_of(*targets: Target, **frame: Any) -> CrystalFramer:
    """A model in float64 whose predictions depend on the surroundings."""
    crystals = [random_crystal(1, 3), random_crystal(4, 4)]
    decay = DecayConfig(reach=2.5, shape="smooth")
    settings: dict[str, Any] = {"decay": decay, "activation": "swish", "frame": FrameConfig(**frame or SETS[0])}
    if targets:
        settings["targets"] = targets
    model = sensitive_model(crystals, dtype=torch.float64, **settings)
    with torch.no_grad():
        model.embedding.weight.mul_(8)
    return model


def predicted(model: CrystalFramer, crystal: Crystal) -> np.ndarray:
    """Outputs in float64."""
    packed = prepare([crystal], model.config.radius, enlarge=model.config.enlarges_radius)
    with torch.no_grad():
        return model(packed.batch([0], torch.float64))[0].numpy()
