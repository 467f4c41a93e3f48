"""The golden fixtures as crystals and models, and the file format of the authors' checkpoints."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crystalframer.authors import load_authors_checkpoint
from crystalframer.config import ModelConfig
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.model.network import CrystalFramer

GOLDEN = Path(__file__).parents[1] / "golden"

HYPER_PARAMETERS: dict[str, dict[str, Any]] = {
    "max": {},
    "max_light": {
        "value_pe_angle_real": 16,
        "value_pe_dist_coef": 1.5,
        "value_pe_angle_coef": 6.0,
        "value_pe_angle_wscale": 1.0,
    },
    "no": {"frame_method": "no", "value_pe_angle_real": 0},
    "max_static": {"frame_method": "max_static"},
    "lattice": {"frame_method": "lattice"},
    "pca": {"frame_method": "pca"},
    "weighted_pca": {"frame_method": "weighted_pca"},
}
"""Fixture name → what its settings change from the authors' defaults."""

DEFAULTS: dict[str, Any] = {
    "targets": "formation_energy_peratom",
    "frame_method": "max",
    "num_layers": 4,
    "model_dim": 128,
    "head_num": 8,
    "ff_dim": 512,
    "embedding_dim": [128],
    "scale_real": [1.4],
    "gauss_lb_real": 0.5,
    "positive_func_beta": 0.1,
    "gauss_state": "q",
    "normalize_gauss": True,
    "adaptive_cutoff_sigma": -3.5,
    "lattice_range": 2,
    "minimum_range": True,
    "domain": "real",
    "value_pe_dist_real": 64,
    "value_pe_dist_coef": 1.0,
    "value_pe_dist_wscale": 1.0,
    "value_pe_dist_max": -10.0,
    "value_pe_angle_real": 64,
    "value_pe_angle_coef": 1.0,
    "value_pe_angle_wscale": 4.0,
    "cos_abs": 0,
    "pooling": "avr",
    "batch_size": 256,
    "lr": 5e-4,
}


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def golden_crystals(indices: list[int] | None = None) -> list[Crystal]:
    inputs = golden("inputs")
    chosen = range(len(inputs["sizes"])) if indices is None else indices
    return [
        Crystal(
            inputs["atomic_numbers"][inputs["batch"] == n],
            inputs["pos"][inputs["batch"] == n].astype(float),
            inputs["lattice"][n].astype(float),
            id=f"golden-{n}",
        )
        for n in chosen
    ]


def golden_batch(radius: float, dtype: torch.dtype, indices: list[int] | None = None) -> CrystalBatch:
    return make_batch(golden_crystals(indices), radius, dtype=dtype)


def authors_checkpoint(name: str, gauss_scale: np.ndarray | None = None, **changes: Any) -> dict[str, Any]:
    """A checkpoint as the authors' training writes it, with the fixture's weights as `model.*`.

    Args:
        gauss_scale: (n_layers, 2) scale and shift of the decay logits (default: the fixture's).
    """
    weights = dict(golden("weights_a64"))
    if name == "max_light":
        weights |= golden("weights_a16")
    if name == "no":
        weights = {key: value for key, value in weights.items() if "proj_angle" not in key}
    scales = golden(f"fwd_{name}")["gauss_scale"] if gauss_scale is None else gauss_scale
    for layer, scale in enumerate(scales):
        weights[f"encoder.layers.{layer}.self_attn.gauss_scale"] = scale
    state = {f"model.{key}": torch.from_numpy(value) for key, value in weights.items()}
    state |= {"target_mean": torch.zeros(1), "target_std": torch.ones(1)}
    return {
        "state_dict": state,
        "hyper_parameters": DEFAULTS | HYPER_PARAMETERS[name] | changes,
        "epoch": 1999,
        "global_step": 348000,
        "pytorch-lightning_version": "1.5.10",
        "optimizer_states": [{"state": {}, "param_groups": []}],
    }


def golden_model(
    name: str, folder: Path, dtype: torch.dtype = torch.float64, gauss_scale: np.ndarray | None = None
) -> CrystalFramer:
    """The fixture's model, as users load it from the authors' format."""
    path = folder / f"{name}.ckpt"
    torch.save(authors_checkpoint(name, gauss_scale), path)
    return load_authors_checkpoint(path).to(dtype)


def without_noise(model: CrystalFramer) -> CrystalFramer:
    """The same weights, without noise in training."""
    config: ModelConfig = replace(model.config, frame=replace(model.config.frame, noise=0.0))
    plain = CrystalFramer(config)
    plain.load_state_dict(model.state_dict())
    return plain.eval()


def in_authors_names(model: CrystalFramer, tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Parameters or their gradients, from our names and shapes to the authors'."""
    ours = {name: tensor.detach().double().numpy() for name, tensor in tensors.items()}
    theirs = {"input_embeddings.weight": ours["embedding.weight"].T}
    for layer in range(model.config.n_layers):
        prefix, attention = f"encoder.layers.{layer}.", f"blocks.{layer}.attention."
        framed = prefix + "self_attn."
        for name in ("query", "key", "value"):
            theirs[f"{framed}{name[0]}_proj_weight"] = ours[f"{attention}{name}.weight"]
        theirs[framed + "in_proj_bias"] = np.concatenate(
            [ours[f"{attention}{n}.bias"] for n in ("query", "key", "value")]
        )
        theirs[framed + "lattice_pos_weights"] = ours[attention + "decay_projection"].ravel()
        theirs[framed + "pe_dist_proj"] = ours[attention + "distance_projection"][None]
        for k, axis in enumerate(ours.get(attention + "cosine_projection", ()), start=1):
            theirs[f"{framed}proj_angle{k}"] = axis[None]
        for part in ("weight", "bias"):
            theirs[f"{framed}out_proj.{part}"] = ours[f"{attention}output.{part}"]
            theirs[f"{prefix}linear1.{part}"] = ours[f"blocks.{layer}.feedforward.0.{part}"]
            theirs[f"{prefix}linear2.{part}"] = ours[f"blocks.{layer}.feedforward.2.{part}"]
    for part in ("weight", "bias"):
        theirs[f"mlp.0.{part}"] = ours[f"readout.0.{part}"]
        theirs[f"mlp.3.{part}"] = ours[f"readout.2.{part}"]
    return theirs
