"""Loads the weights that the authors of CrystalFramer publish: Lightning `.ckpt` files of their release v1.0.1."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalframer.config import CosineBasis, DecayConfig, DistanceBasis, FrameConfig, FrameMethod, ModelConfig, Target
from crystalframer.errors import AuthorsCheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from crystalframer.model.network import CrystalFramer

FRAME_METHOD: dict[str, FrameMethod] = {
    "max": "max",
    "weighted_pca": "weighted-pca",
    "max_static": "static-max",
    "lattice": "lattice",
    "pca": "pca",
    "no": "none",
}
"""Their name → our name."""

UNITS = {
    "formation_energy_peratom": "eV/atom",
    "optb88vdw_total_energy": "eV/atom",
    "optb88vdw_bandgap": "eV",
    "mbj_bandgap": "eV",
    "ehull": "eV/atom",
}
"""Units of the JARVIS columns on which they train. Other targets have no unit."""

FIXED: dict[str, tuple[Any, ...]] = {
    "domain": ("real",),
    "gauss_state": ("q",),
    "normalize_gauss": (True,),
    "cos_abs": (0,),
    "pooling": ("avr",),
    "norm_type": ("no",),
    "pre_pooling_op": ("no",),
}
"""Settings of their code with the values that this model implements."""


NEGLIGIBLE_WEIGHT = 1e-6
"""Images with less weight are left out, even for the longest decay length."""


def load_authors_checkpoint(path: str | Path, averaged: bool | None = None) -> CrystalFramer:
    """Load a `.ckpt` file of the authors' code, without running any code that it may contain.

    The model computes their function without its noise. Where neighbours tie for an axis, the first one is taken, as in
    their code; there the noise makes it another one in each evaluation. So predictions of symmetric crystals depend on
    how the crystal is turned, by as much as theirs scatter. Averaging over ties ends this: save the model with
    `crystalframer.save`, and load it with `crystalframer.load(folder)`.

    Their box of images and the defects listed in docs/fidelity.md are not reproduced. The neighbour radius (10.4 Å) is
    so large that the sum over images has converged for every decay length that training can reach. Only the frame
    methods `max` and `no` reach the published accuracy here, because the other methods were trained with those defects.

    Args:
        path: the file.
        averaged: True for the averaged (SWA) weights, False for the plain ones; None takes the averaged ones if the
            file holds them.

    Raises:
        AuthorsCheckpointError: the file cannot be read or is another kind of file, a setting is unknown, or a tensor is
            missing or has another shape.
    """
    try:
        checkpoint = _read(Path(path))  # before the model is imported, which takes longer than to find no file
        from crystalframer.model.network import CrystalFramer

        state = checkpoint["state_dict"]
        config = _model_config(checkpoint["hyper_parameters"])
        has_average = int(state.get("swa_model.n_averaged", 0)) > 0
        if averaged and not has_average:
            raise AuthorsCheckpointError("it holds no averaged weights; pass averaged=False", field="averaged")
        prefix = "swa_model.module." if averaged or (averaged is None and has_average) else "model."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        model = CrystalFramer(config)
        model.load_state_dict(_state_dict(config, weights, state))
    except AuthorsCheckpointError as error:
        error.at(path=path)
        raise
    return model.eval()


def _read(path: Path) -> Mapping[str, Any]:
    try:
        # Opened here: by its path torch reads a file called .safetensors in another way.
        with path.open("rb") as file, warnings.catch_warnings():
            import torch

            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols: an unreadable file is an error below
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise AuthorsCheckpointError("no such file; check the path") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AuthorsCheckpointError(
            f"not a checkpoint of tensors and plain data ({reason}); download it again from the authors"
        ) from error
    for part in ("state_dict", "hyper_parameters"):
        if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get(part), Mapping):
            raise AuthorsCheckpointError(
                f"it has no {part!r}, so the authors' code did not write it; give a Lightning file",
                field=part,
            )
    return checkpoint


def _model_config(params: Mapping[str, Any]) -> ModelConfig:
    def refuse(name: str, accepted: str) -> AuthorsCheckpointError:
        value = params[name]
        problem = f"setting {name} = {value!r} is not implemented; accepted: {accepted}"
        return AuthorsCheckpointError(problem, field=name, value=value)

    def number(name: str, default: int | float) -> int | float:
        value = params.get(name, default)
        if not isinstance(value, (int, float)):
            raise refuse(name, "a number")
        return value

    def single(name: str, default: list[int | float]) -> int | float:
        """Their lists hold one value per layer, repeated."""
        value = params.get(name, default)
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if not values or any(item != values[0] for item in values):
            raise refuse(name, "one value for all layers")
        return values[0]

    for name, values in FIXED.items():
        if params.get(name, values[0]) not in values:
            raise refuse(name, ", ".join(map(repr, values)))
    method = params.get("frame_method", "max")
    if method not in FRAME_METHOD:
        raise refuse("frame_method", ", ".join(FRAME_METHOD))
    n_cosines = int(number("value_pe_angle_real", 64))
    names = params.get("targets", ())
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise AuthorsCheckpointError(
            "setting targets is missing, so nothing says what the model predicts; give a checkpoint with it",
            field="targets",
        )
    reference_length = single("scale_real", [1.4])
    max_distance = number("value_pe_dist_max", -10.0)
    frame = FrameConfig(FRAME_METHOD["no" if n_cosines == 0 else method], tie_margin=0.0)
    cosine = CosineBasis()
    if frame.promises.axes:
        cosine = CosineBasis(
            n_cosines, float(number("value_pe_angle_wscale", 4.0)), float(number("value_pe_angle_coef", 1.0))
        )
    floor = float(number("gauss_lb_real", 0.5))
    return ModelConfig(
        targets=tuple(Target(name, UNITS.get(name, "")) for name in names),
        n_layers=int(number("num_layers", 4)),
        n_heads=int(number("head_num", 8)),
        d_model=int(number("model_dim", 128)),
        d_feedforward=int(number("ff_dim", 512)),
        d_readout=int(single("embedding_dim", [128])),
        frame=frame,
        decay=DecayConfig(float(reference_length), floor, float(number("positive_func_beta", 0.1))),
        distance=DistanceBasis(
            int(number("value_pe_dist_real", 64)),
            float(max_distance if max_distance > 0 else -max_distance * reference_length),
            float(number("value_pe_dist_wscale", 1.0)),
            # Without frames their kernel leaves this factor out.
            float(number("value_pe_dist_coef", 1.0)) if frame.promises.axes else 1.0,
        ),
        cosine=cosine,
        # The longest decay length is reference_length / √floor.
        weight_tolerance=NEGLIGIBLE_WEIGHT ** (1.0 / floor),
    )


def _state_dict(config: ModelConfig, weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under our names and shapes."""

    import torch

    def take(name: str, shape: tuple[int, ...], source: Mapping[str, Tensor] = weights) -> Tensor:
        if name not in source:
            raise AuthorsCheckpointError(f"tensor {name} is missing; copy the file again, or give another", field=name)
        found = tuple(source[name].shape)
        if found != shape:
            raise AuthorsCheckpointError(
                f"tensor {name} has shape {found}, but the settings ask for {shape}; another version of the authors' "
                "code wrote the file: give one of v1.0.1",
                field=name,
                value=found,
            )
        return source[name]

    d, h, d_head, d_ff = config.d_model, config.n_heads, config.d_head, config.d_feedforward
    ours = {
        "embedding.weight": take("input_embeddings.weight", (d, 98)).T,
    }
    for name in ("target_mean", "target_std"):  # stand beside the networks, and under our names
        ours[name] = take(name, (len(config.targets),), state)
    for layer in range(config.n_layers):
        theirs, block = f"encoder.layers.{layer}.", f"blocks.{layer}."
        attention, framed = theirs + "self_attn.", block + "attention."
        biases = take(attention + "in_proj_bias", (3 * d,)).chunk(3)
        for name, bias in zip(("query", "key", "value"), biases, strict=True):
            ours[f"{framed}{name}.weight"] = take(f"{attention}{name[0]}_proj_weight", (d, d))
            ours[f"{framed}{name}.bias"] = bias
        ours[framed + "output.weight"] = take(attention + "out_proj.weight", (d, d))
        ours[framed + "output.bias"] = take(attention + "out_proj.bias", (d,))
        ours[framed + "decay_projection"] = take(attention + "lattice_pos_weights", (d,)).view(h, d_head)
        distance = take(attention + "pe_dist_proj", (1, h, d_head, config.distance.n_centers))
        ours[framed + "distance_projection"] = distance[0]
        if config.frame.promises.axes:
            shape = (1, h, d_head, config.cosine.n_centers)
            ours[framed + "cosine_projection"] = torch.cat(
                [take(f"{attention}proj_angle{k}", shape) for k in (1, 2, 3)]
            )
        scale, shift = take(attention + "gauss_scale", (2,))
        if scale <= 0:
            raise AuthorsCheckpointError(
                f"layer {layer} is not calibrated (gauss_scale = 0): it was never trained; give a trained model",
                field="gauss_scale",
            )
        ours[framed + "decay_scale"], ours[framed + "decay_shift"] = scale, shift
        for name, index, rows, columns in (("linear1", 0, d_ff, d), ("linear2", 2, d, d_ff)):
            ours[f"{block}feedforward.{index}.weight"] = take(f"{theirs}{name}.weight", (rows, columns))
            ours[f"{block}feedforward.{index}.bias"] = take(f"{theirs}{name}.bias", (rows,))
    for name, index, rows, columns in (
        ("mlp.0", 0, config.d_readout, d),
        ("mlp.3", 2, len(config.targets), config.d_readout),
    ):
        ours[f"readout.{index}.weight"] = take(f"{name}.weight", (rows, columns))
        ours[f"readout.{index}.bias"] = take(f"{name}.bias", (rows,))
    return ours
