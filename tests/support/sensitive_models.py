"""Small models that were never trained, whose predictions depend much on frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from crystalframer.config import FrameConfig, FrameMethod
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.model.network import CrystalFramer
from crystalframer.presets import preset


def sensitive_model(
    crystals: Sequence[Crystal],
    method: FrameMethod = "max",
    dtype: torch.dtype = torch.float32,
    **changes,
) -> CrystalFramer:
    """Calibrated with these crystals, the angle terms turned up."""
    config = replace(preset("tiny").config.model, **{"frame": FrameConfig(method), **changes})
    model = CrystalFramer(config, torch.Generator().manual_seed(3)).to(dtype).eval()
    with torch.no_grad():
        for block in model.blocks:
            if block.attention.cosine_projection is not None:
                block.attention.cosine_projection.mul_(8)
    model.calibrate(make_batch(crystals, config.radius, dtype=dtype))
    return model
