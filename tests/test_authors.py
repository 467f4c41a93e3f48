"""The authors' checkpoint format: reproduces their outputs, runs no code, refuses what we do not implement."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from authors_format import authors_checkpoint, golden, golden_batch, golden_crystals
from refusals import refused

from crystalframer.authors import load_authors_checkpoint
from crystalframer.config import ModelConfig
from crystalframer.crystals.loading import make_batch
from crystalframer.errors import AuthorsCheckpointError
from crystalframer.testing import with_cell

OF_THE_SPREAD = 1e-4
"""How far outputs may be from theirs, as a share of the range of their outputs: their Gaussians have windows."""


@pytest.mark.parametrize("name", ["max", "max_light", "no"])
def test_as_loaded_a_model_is_their_function_with_ties_too(name: str, tmp_path: Path) -> None:
    """Crystal 5 has a tie that matters: its own images, ahead and behind, are nearest. Their noise moves it."""
    torch.save(authors_checkpoint(name), tmp_path / "x.ckpt")
    model = load_authors_checkpoint(tmp_path / "x.ckpt")
    batch, theirs = golden_batch(model.config.radius, torch.float32), golden(f"fwd_{name}")["output"][:, 0]
    with torch.no_grad():
        difference = np.abs(model(batch)[:, 0].numpy() - theirs) / np.ptp(theirs)
        scatter = np.std([model(batch, noise_seed=seed)[:, 0].numpy() for seed in range(16)], axis=0) / np.ptp(theirs)
    print(f"\n{name}: share of the spread", difference, "scatter of noise", scatter)
    assert (difference <= OF_THE_SPREAD).all()
    assert (scatter[[0, 1, 2, 3, 4, 6]] <= OF_THE_SPREAD).all()
    assert (scatter[5] > 10 * OF_THE_SPREAD) == (name != "no")


@pytest.mark.parametrize("cell", [np.eye(3, dtype=int), -np.eye(3, dtype=int)], ids=["as written", "inverted"])
def test_of_two_own_images_that_tie_theirs_is_taken(cell: np.ndarray, tmp_path: Path) -> None:
    """The image n before -n, as their loops run from the smallest; our rule takes one direction, whatever the cell."""
    torch.save(authors_checkpoint("max"), tmp_path / "x.ckpt")
    model = load_authors_checkpoint(tmp_path / "x.ckpt").double()
    crystal = with_cell(golden_crystals([5])[0], cell)
    (trace,) = model.trace(make_batch([crystal], model.config.radius, dtype=torch.float64))
    anchors = np.unique([np.asarray(layer.frame.anchor_edges) for layer in trace.layers if layer.frame])
    query, key = trace.edge_index[:, anchors]
    images = trace.edge_image[anchors[query == key]]
    first_steps = [int(image[np.flatnonzero(image)[0]]) for image in images]
    assert first_steps and max(first_steps) < 0


def test_images_beyond_the_radius_count_for_nothing_even_when_trained(tmp_path: Path) -> None:
    """Training lengthens decay lengths, here to their limit. The radius of our own models would cost a thousandth."""
    torch.save(authors_checkpoint("max", golden("fwd_max")["gauss_scale"] * [100, 1]), tmp_path / "x.ckpt")
    model = load_authors_checkpoint(tmp_path / "x.ckpt")
    longest = max(layer.decay_length.max() for layer in model.trace(golden_batch(8.0, torch.float32))[0].layers)
    assert longest > 0.99 * model.config.decay.reference_length / model.config.decay.floor**0.5
    with torch.no_grad():
        own, loaded, far = (
            model(golden_batch(radius, torch.float32))[:, 0].numpy()
            for radius in (ModelConfig().radius, model.config.radius, 1.3 * model.config.radius)
        )
    assert np.abs(loaded - far).max() <= OF_THE_SPREAD * np.ptp(far)
    assert np.abs(own - far).max() > OF_THE_SPREAD * np.ptp(far)


def with_average(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The same file, trained on: plain weights doubled, the averaged ones as they were."""
    state = checkpoint["state_dict"]
    network = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    state |= {f"swa_model.module.{name}": value for name, value in network.items()}
    state |= {f"model.{name}": value * 2 for name, value in network.items()}
    state["swa_model.n_averaged"] = torch.tensor(50)
    return checkpoint


def test_averaged_weights_are_the_default_where_there_are_any(tmp_path: Path) -> None:
    torch.save(with_average(authors_checkpoint("no")), tmp_path / "x.ckpt")
    readout = golden("weights_a64")["mlp.3.bias"]
    for averaged, factor in ((None, 1), (True, 1), (False, 2)):
        state = load_authors_checkpoint(tmp_path / "x.ckpt", averaged).state_dict()
        assert state["readout.2.bias"].tolist() == (factor * readout).tolist()


def test_averaged_weights_asked_for_but_absent(tmp_path: Path) -> None:
    torch.save(authors_checkpoint("no"), tmp_path / "x.ckpt")
    with refused(AuthorsCheckpointError, path="x.ckpt", field="averaged"):
        load_authors_checkpoint(tmp_path / "x.ckpt", averaged=True)


def test_units_and_normalisation(tmp_path: Path) -> None:
    checkpoint = authors_checkpoint("no", targets=["mbj_bandgap"])
    checkpoint["state_dict"] |= {"target_mean": torch.tensor([2.0]), "target_std": torch.tensor([0.5])}
    torch.save(checkpoint, tmp_path / "x.ckpt")
    model = load_authors_checkpoint(tmp_path / "x.ckpt")
    assert [target.label for target in model.config.targets] == ["mbj_bandgap (eV)"]
    with torch.no_grad():
        found = model(golden_batch(model.config.radius, torch.float32)).numpy()
    assert abs(found - (golden("fwd_no")["output"] * 0.5 + 2.0)).max() <= 3e-6


class Malicious:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("echo harm > harm.txt",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(authors_checkpoint("no") | {"callbacks": Malicious()}, "x.ckpt")
    with refused(AuthorsCheckpointError, "not a checkpoint", path="x.ckpt"):
        load_authors_checkpoint("x.ckpt")
    Path("y.ckpt").write_bytes(pickle.dumps(Malicious()))
    with refused(AuthorsCheckpointError, path="y.ckpt"):
        load_authors_checkpoint("y.ckpt")
    assert not Path("harm.txt").exists()


@pytest.mark.parametrize(
    ("setting", "value", "words", "field"),
    [
        ("frame_method", "max_statc", ("'max_statc'", "weighted_pca"), "frame_method"),
        ("domain", "multihead", ("'multihead'", "'real'"), "domain"),
        ("cos_abs", 1, ("0",), "cos_abs"),
        ("pooling", "max", ("'max'", "'avr'"), "pooling"),
        ("scale_real", [1.4, 2.0], ("one value for all layers",), "scale_real"),
        ("num_layers", "four", ("'four'", "a number"), "num_layers"),
        ("num_layers", 5, ("missing",), "encoder.layers.4.self_attn.in_proj_bias"),
        ("value_pe_dist_real", 32, ((1, 8, 16, 64), (1, 8, 16, 32)), "encoder.layers.0.self_attn.pe_dist_proj"),
        ("targets", [], ("missing",), "targets"),
    ],
)
def test_refusals_name_the_setting_or_tensor(setting: str, value: Any, words: Any, field: str, tmp_path: Path) -> None:
    torch.save(authors_checkpoint("max", **{setting: value}), tmp_path / "x.ckpt")
    with refused(AuthorsCheckpointError, field, *words, path="x.ckpt", field=field):
        load_authors_checkpoint(tmp_path / "x.ckpt")


def test_uncalibrated_weights_are_refused(tmp_path: Path) -> None:
    checkpoint = authors_checkpoint("max")
    checkpoint["state_dict"]["model.encoder.layers.2.self_attn.gauss_scale"] = torch.zeros(2)
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with refused(AuthorsCheckpointError, "layer 2", path="x.ckpt", field="gauss_scale"):
        load_authors_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken"])
def test_files_that_are_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with refused(AuthorsCheckpointError, "not a checkpoint", path="x.ckpt"):
        load_authors_checkpoint(tmp_path / "x.ckpt")


def test_missing_file_and_missing_parts(tmp_path: Path) -> None:
    with refused(AuthorsCheckpointError, "no such file", path="absent.ckpt"):
        load_authors_checkpoint(tmp_path / "absent.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    with refused(AuthorsCheckpointError, path="x.ckpt", field="hyper_parameters"):
        load_authors_checkpoint(tmp_path / "x.ckpt")
