"""Checkpoints: what is saved comes back, nothing that does not fit is loaded, and a failure costs no good one."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refused
from safetensors import safe_open
from safetensors.numpy import save as to_bytes
from safetensors.torch import load_file, save_file
from small_runs import MODEL, TARGETS

from crystalframer import checkpoint, files, seals
from crystalframer.analysis.batches import predictions
from crystalframer.config import DecayConfig, FrameConfig, ModelConfig, Target, to_json
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch, prepare
from crystalframer.domain import Domain
from crystalframer.errors import CheckpointError
from crystalframer.model.network import CrystalFramer
from crystalframer.uncertainty import calibrated

CONFIG = replace(MODEL, targets=TARGETS, frame=FrameConfig(tie_margin=2e-4))
WEIGHTS = "model.safetensors"
SUPPORT = Path(__file__).parent / "support"
CRYSTAL = Crystal(np.array([11, 17]), np.array([[0, 0, 0], [1.4, 1.5, 1.3]]), 3.4 * np.eye(3))
BATCH = make_batch([CRYSTAL], CONFIG.radius)


def make_model(seed: int = 0) -> CrystalFramer:
    model = CrystalFramer(CONFIG, torch.Generator().manual_seed(seed))
    model.target_mean.copy_(torch.tensor([-1.0, 2.0]))
    model.calibrate(BATCH)
    return model


def predict(model: CrystalFramer) -> list[float]:
    with torch.no_grad():
        return model(BATCH).flatten().tolist()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoints" / "best"
    checkpoint.save(make_model(), path)
    return path


def test_what_is_saved_comes_back(saved: Path) -> None:
    model = make_model()
    loaded = checkpoint.load(saved)
    assert loaded.config == CONFIG
    assert not loaded.training
    assert predict(loaded) == predict(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert sorted(file.name for file in saved.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["checkpoints/best/mine.txt", "mine.txt", "data/mine.txt"])
def test_saving_deletes_no_other_files(name: str, tmp_path: Path) -> None:
    """In place of the folder of a run, or of one with other things."""
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).write_text("mine")
    with refused(CheckpointError, "choose another folder", path=tmp_path / "run"):
        checkpoint.save(make_model(), tmp_path / "run")
    assert (tmp_path / "run" / name).read_text() == "mine"


def test_loading_leaves_the_random_numbers_alone(saved: Path) -> None:
    before = torch.get_rng_state()
    checkpoint.load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_load_takes_the_weights_that_a_complete_run_chose(saved: Path) -> None:
    """`best` until `result.json` says otherwise."""
    run = saved.parents[1]
    averaged = make_model()
    averaged.target_mean.fill_(7.0)
    checkpoint.save(averaged, saved.with_name("swa"))
    assert checkpoint.load(run).target_mean.max().item() != 7.0
    (run / checkpoint.RESULT_FILE).write_text('{"chosen": "swa"}')
    assert checkpoint.load(run).target_mean.max().item() == 7.0


def test_load_takes_a_string_and_a_run_folder(saved: Path) -> None:
    (saved.parents[1] / "config.json").write_text("{}")  # a run folder has one of its own
    assert predict(checkpoint.load(str(saved.parents[1]))) == predict(make_model())


def test_saving_again_replaces_all_of_it(saved: Path) -> None:
    checkpoint.save(make_model(), saved, add=lambda folder: files.write(folder / "resume.ckpt", b"state"))
    assert (saved / "resume.ckpt").read_bytes() == b"state"
    checkpoint.save(make_model(1), saved)
    assert predict(checkpoint.load(saved)) == predict(make_model(1)) != predict(make_model())
    assert not (saved / "resume.ckpt").exists()
    assert [folder.name for folder in saved.parent.iterdir()] == ["best"]


# Failures while saving


def failing(function: Callable, at: int) -> Callable:
    """`function`, which finds the disk full at its `at`-th call."""
    calls = 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [(Path, "mkdir", 1)]
    + [(Path, "open", at) for at in (1, 2, 3)]
    + [(os, "fsync", at) for at in (1, 2, 3, 4)]
    + [(Path, "rename", at) for at in (1, 2)],
)
def test_a_full_disk_costs_no_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch, owner, name, at) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing(getattr(owner, name), at))
        with refused(CheckpointError, "No space left", "unharmed", "Free some space", path="best"):
            checkpoint.save(make_model(1), saved, add=lambda folder: files.write(folder / "resume.ckpt", b"state"))
    assert predict(checkpoint.load(saved)) == predict(make_model())
    assert [folder.name for folder in saved.parent.iterdir()] == ["best"]
    checkpoint.save(make_model(1), saved)
    assert predict(checkpoint.load(saved)) == predict(make_model(1))


def test_a_full_disk_at_the_first_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, 2))
    with refused(CheckpointError, "nothing was written", path="best"):
        checkpoint.save(make_model(), tmp_path / "best")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["checkpoints/best", "."])
def test_a_crash_between_the_two_renames(saved: Path, path: str) -> None:
    """The moment at which neither the old nor the new one has the name."""
    saved.rename(saved.with_name(".best.old"))
    (saved.with_name(".best.new")).mkdir()
    assert predict(checkpoint.load(saved.parents[1] / path)) == predict(make_model())
    checkpoint.save(make_model(1), saved)
    assert predict(checkpoint.load(saved)) == predict(make_model(1))
    assert [folder.name for folder in saved.parent.iterdir()] == ["best"]


# What is refused


def edit(folder: Path, name: str, *shape: int) -> None:
    """A tensor of this shape under this name, or none."""
    weights = load_file(folder / WEIGHTS) | {name: torch.ones(shape)}
    if not shape:
        del weights[name]
    save_file(weights, folder / WEIGHTS)


def describe(folder: Path, **fields: object) -> None:
    """As another version would have written it, with the right checksum."""
    file = folder / "config.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps(seals.sealed(seals.opened(found, None) | fields, found["weights_sha256"])))


def settings(**changes: object) -> dict[str, Any]:
    """Those of `CONFIG`, in JSON: a section or a setting replaced, or left out (None)."""
    model = json.loads(to_json(CONFIG)) | changes
    return {name: value for name, value in model.items() if value is not None or name not in changes}


def frame(**changes: object) -> dict[str, Any]:
    return {"frame": settings()["frame"] | changes}


@pytest.mark.parametrize(
    ("damage", "file", "field", "words"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "best", None, ["model.safetensors is missing"]),
        (lambda f: (f / "config.json").unlink(), "best", None, ["config.json is missing"]),
        (lambda f: (f / "config.json").write_text("{"), "config.json", None, []),
        (lambda f: (f / "config.json").write_text("{}"), "config.json", None, ["format_version"]),
        (
            lambda f: describe(f, format_version=3, crystalframer_version="9.1"),
            "config.json",
            "format_version",
            ["crystalframer 9.1", "format 3", "up to 2", "Upgrade"],
        ),
        (
            lambda f: describe(f, model=settings(gates=3, **frame(rank=2)), crystalframer_version="9.1"),
            "config.json",
            "model.frame.rank",
            ["a newer version wrote it", "crystalframer 9.1", "model.gates", "Upgrade"],
        ),
        (
            lambda f: describe(f, model=settings(decay=None)),
            "config.json",
            "model.decay.reference_length",
            ["does not state", "model.decay.slope"],
        ),
        (lambda f: describe(f, model=settings(n_layers=None)), "config.json", "model.n_layers", ["does not state"]),
        (lambda f: describe(f, model=settings(n_layers="3")), "config.json", "model.n_layers", ["'3'"]),
        (lambda f: describe(f, model=settings(frame="max")), "config.json", "model.frame", []),
        (lambda f: describe(f, format_version="2"), "config.json", None, []),
        (lambda f: describe(f, format_version=True), "config.json", "format_version", []),
        (lambda f: describe(f, format_version=0), "config.json", "format_version", []),
        (lambda f: describe(f, format_version=float("nan")), "config.json", "format_version", []),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json", None, []),
        (lambda f: edit(f, "readout.0.bias"), WEIGHTS, None, ["readout.0.bias is missing", "16"]),
        (lambda f: edit(f, "extra", 1), WEIGHTS, None, ["extra is not part"]),
        (
            lambda f: edit(f, "readout.2.weight", 1, 16),
            WEIGHTS,
            None,
            ["readout.2.weight has shape 1 × 16, expected 2 × 16"],
        ),
    ],
)
def test_a_mismatch_is_refused_by_name(
    saved: Path, damage: Callable[[Path], object], file: str, field: str | None, words: list[str]
) -> None:
    damage(saved)
    with refused(CheckpointError, *words, path=file, field=field):
        checkpoint.load(saved)


@pytest.mark.parametrize("kept", [0, 7, 200, -1])
def test_truncated_weights_are_refused(saved: Path, kept: int) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with refused(CheckpointError, "truncated or damaged", path=WEIGHTS):
        checkpoint.load(saved)


def test_weights_of_another_model_are_listed(saved: Path) -> None:
    other = saved.with_name("other")
    checkpoint.save(CrystalFramer(replace(CONFIG, targets=(Target("energy"),), n_layers=2)), other)
    (saved / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with refused(CheckpointError, "blocks.1", "is not part of the model", "more", path=WEIGHTS):
        checkpoint.load(saved)


def test_an_unknown_path_shows_what_is_nearby(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved.parents[1]
    with refused(CheckpointError, f"Did you mean {str(saved)!r}?", path="bset"):
        checkpoint.load(saved.with_name("bset"))
    with refused(CheckpointError, f"Did you mean {str(run)!r}?"):
        checkpoint.load(run.with_name("rum") / "checkpoints" / "best")
    with refused(CheckpointError, saved, path=run.parent):
        checkpoint.load(run.parent)
    with refused(CheckpointError, "Nor is there one in its folders", "model.safetensors", path=SUPPORT):
        checkpoint.load(SUPPORT)
    monkeypatch.chdir(saved)
    with refused(CheckpointError, "the current folder has no folders", path="nothere"):
        checkpoint.load("nothere")


# What a checkpoint may hold beside the network


@pytest.fixture(scope="module")
def complete() -> CrystalFramer:
    model = make_model()
    model.domain = Domain.of(prepare([CRYSTAL] * 3, CONFIG.radius))
    rng = np.random.default_rng(0)
    features, errors = rng.normal(size=(40, CONFIG.d_model)), rng.normal(size=(40, 2))
    model.uncertainty = calibrated(features, errors, CONFIG.target_names)
    return model


def test_domain_and_uncertainty_come_back(tmp_path: Path, complete: CrystalFramer) -> None:
    path = tmp_path / "best"
    checkpoint.save(complete, path)
    names = ["config.json", "domain.json", "model.safetensors", "uncertainty.safetensors"]
    assert sorted(file.name for file in path.iterdir()) == names
    for again in (checkpoint.load(path), copy.deepcopy(complete).to(torch.float64)):
        assert again.domain == complete.domain
        assert again.uncertainty is not None and complete.uncertainty is not None
        assert again.uncertainty.to_bytes() == complete.uncertainty.to_bytes()
        assert again.state_dict().keys() == complete.state_dict().keys()
    checkpoint.save(make_model(), path)  # without them: none of another model's may stay behind
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors"]
    assert checkpoint.load(path).domain is None and checkpoint.load(path).uncertainty is None


@pytest.mark.parametrize(
    ("file", "content"),
    [("domain.json", b"{"), ("domain.json", b'{"n_crystals": 3}'), ("uncertainty.safetensors", b"nothing")],
)
def test_a_damaged_extra_is_named(saved: Path, file: str, content: bytes) -> None:
    (saved / file).write_bytes(content)
    with refused(CheckpointError, "copy it again, or delete it", path=file):
        checkpoint.load(saved)


def test_the_uncertainty_of_another_model_is_refused(tmp_path: Path, complete: CrystalFramer) -> None:
    model = CrystalFramer(replace(CONFIG, targets=(Target("gap", "eV"), Target("energy_per_atom", "eV/atom"))))
    model.uncertainty = complete.uncertainty
    checkpoint.save(model, tmp_path / "best")
    with refused(CheckpointError, "energy, gap", path="uncertainty.safetensors"):
        checkpoint.load(tmp_path / "best")


EXTRAS = ("domain.json", "uncertainty.safetensors")
SEALED = ("config.json", *EXTRAS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, complete: CrystalFramer) -> Path:
    """A checkpoint with domain and intervals."""
    folder = tmp_path_factory.mktemp("whole") / "best"
    checkpoint.save(complete, folder)
    return folder


@pytest.mark.parametrize("file", EXTRAS)
def test_what_belongs_to_other_weights_is_refused(
    file: str, whole: Path, complete: CrystalFramer, tmp_path: Path
) -> None:
    """Of the same config, so that only the checksum tells."""
    other = copy.deepcopy(complete)
    other.target_mean += 1
    checkpoint.save(other, tmp_path / "best")
    shutil.copy(whole / file, tmp_path / "best")
    with refused(CheckpointError, "other weights", "copy it again, or delete it", path=file, field="weights_sha256"):
        checkpoint.load(tmp_path / "best")


@pytest.mark.parametrize("file", SEALED)
def test_one_wrong_bit_is_refused(file: str, whole: Path, tmp_path: Path) -> None:
    """Wherever it is: in a value, a name, a shape, a checksum."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    content = (whole / file).read_bytes()
    draw = random.Random(0)
    for bit in [draw.randrange(8 * len(content)) for _ in range(80)]:
        wrong = bytearray(content)
        wrong[bit // 8] ^= 1 << bit % 8
        (tmp_path / file).write_bytes(wrong)
        with refused(CheckpointError, path=file):
            checkpoint.load(tmp_path)


@pytest.mark.parametrize("number", ["0", "1", "3", "6", ":", "r"])
def test_a_wrong_bit_in_the_number_of_the_format_is_refused(number: str, whole: Path, tmp_path: Path) -> None:
    """Format 1 had no checksum. A file that states one is held to it, whatever its format."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    content = (whole / "config.json").read_text()
    (tmp_path / "config.json").write_text(content.replace('"format_version": 2', f'"format_version": {number}'))
    with refused(CheckpointError, path="config.json"):
        checkpoint.load(tmp_path)


def test_a_narrower_quantile_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "uncertainty.safetensors"
    with safe_open(file, framework="np") as opened:
        arrays, about = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
    file.write_bytes(to_bytes(arrays, about))
    checkpoint.load(tmp_path)
    file.write_bytes(to_bytes(arrays | {"quantile": arrays["quantile"] / 2}, about))
    with refused(CheckpointError, path=file, field="sha256"):
        checkpoint.load(tmp_path)


def test_intervals_that_are_added_belong_to_the_weights(saved: Path, complete: CrystalFramer) -> None:
    assert complete.uncertainty is not None
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    checkpoint.add_intervals(saved, complete.uncertainty, None)
    assert {path.name for path in saved.iterdir()} - set(before) == {"uncertainty.safetensors"}
    assert all((saved / name).read_bytes() == content for name, content in before.items())
    assert checkpoint.load(saved).uncertainty is not None
    checkpoint.save(make_model(1), saved.with_name("other"))
    shutil.copy(saved / "uncertainty.safetensors", saved.with_name("other"))
    with refused(CheckpointError, field="weights_sha256"):
        checkpoint.load(saved.with_name("other"))


def test_files_of_release_0_1_have_no_checksums_and_still_load(whole: Path, complete: CrystalFramer, tmp_path) -> None:
    """Saving the model again adds them."""
    assert complete.uncertainty is not None and complete.domain is not None
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / "uncertainty.safetensors").write_bytes(complete.uncertainty.to_bytes())
    (tmp_path / "domain.json").write_text(to_json(complete.domain))
    model = checkpoint.load(tmp_path)
    assert model.domain == complete.domain and model.uncertainty is not None
    checkpoint.save(model, tmp_path / "again")
    for file in EXTRAS:
        assert (tmp_path / "again" / file).read_bytes() == (whole / file).read_bytes()


def test_a_description_of_format_2_needs_its_checksum(saved: Path) -> None:
    """Also where both checksums are gone; that of the weights alone does not cover the settings."""
    found = json.loads((saved / "config.json").read_text())
    for kept in ({}, {"weights_sha256": found["weights_sha256"]}):
        (saved / "config.json").write_text(json.dumps(seals.opened(found, None) | kept))
        with refused(CheckpointError, path="config.json", field="sha256"):
            checkpoint.load(saved)


OLD = Path(__file__).parent / "checkpoints"


@pytest.mark.parametrize("name", ["0.1.0", "format-1"])
def test_a_checkpoint_of_an_earlier_version_predicts_as_it_did(name: str) -> None:
    """tests/checkpoints/make.py says how that version wrote it."""
    stored = json.loads((OLD / name / "predictions.json").read_text("utf-8"))
    crystals = [
        Crystal(np.array(row["atomic_numbers"]), np.array(row["positions"]), np.array(row["lattice"]), row["id"])
        for row in stored
    ]
    model = checkpoint.load(OLD / name)
    found = predictions(crystals, model, progress=False)[:, 0]
    np.testing.assert_allclose(found, [row["predicted"] for row in stored], rtol=0, atol=1e-6)
    assert np.ptp(found) > 0.1
    assert model.config.promises.broken == (ModelConfig().promises.broken if name == "0.1.0" else ())


def test_format_1_means_the_function_of_its_time(tmp_path: Path) -> None:
    """In numbers, because defaults may change; what a file may not leave out is in no default either (see above)."""
    config = checkpoint.load(OLD / "0.1.0").config
    frame = FrameConfig("max", 1e-4, weighted_margin=0.0, second_axis="off-line", both_hands=False, noise=5e-6)
    assert (config.frame, config.decay) == (frame, DecayConfig(1.4, 0.5, 0.1, shape="elu", reach=None))
    assert (config.activation, config.largest_content) == ("relu", None)
    shutil.copytree(OLD / "0.1.0", tmp_path, dirs_exist_ok=True)
    found = json.loads((tmp_path / "config.json").read_text())
    found["model"]["frame"]["average_margin"] = 0.1
    (tmp_path / "config.json").write_text(json.dumps(found))
    assert checkpoint.load(tmp_path).config.frame == replace(frame, weighted_margin=0.1)
    del found["model"]["frame"]["noise"]
    (tmp_path / "config.json").write_text(json.dumps(found))
    with refused(CheckpointError, "does not state", field="model.frame.noise"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("n_atoms", [3, 2, 1]), ("n_crystals", -3), ("volume", {"low": -1.0, "high": 1.0}),
     ("nearest", {"low": math.nan, "high": 1.0}), ("nearest", {"low": 1.0, "high": math.inf}), ("elements", [])],
)  # fmt: skip
def test_a_domain_that_cannot_be_is_refused(field: str, value: object, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "domain.json"
    tree = {name: item for name, item in json.loads(file.read_text()).items() if "sha256" not in name}
    file.write_text(json.dumps(tree | {field: value}))
    with refused(CheckpointError, "copy it again, or delete it", path=file):
        checkpoint.load(tmp_path)


def test_the_weights_are_those_of_the_config(saved: Path) -> None:
    """One number of the weights, in a file that is sound otherwise."""
    weights = load_file(saved / WEIGHTS)
    weights["target_mean"] += 1
    save_file(weights, saved / WEIGHTS)
    with refused(CheckpointError, "SHA-256", path=WEIGHTS):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    "sizes",
    [{"d_model": 8_000_000}, {"n_layers": 10**9}, {"distance": {"n_centers": 10**12}}, {"d_readout": 10**13}],
    ids=lambda sizes: next(iter(sizes)),
)
def test_a_config_gets_no_memory_before_the_weights_fit_it(saved: Path, sizes: dict[str, Any]) -> None:
    """Terabytes, or layers without end."""
    model = settings()
    for name, size in sizes.items():
        model[name] = model[name] | size if isinstance(size, dict) else size
    describe(saved, model=model)
    with pytest.raises(CheckpointError, match=r"does not fit config\.json|belong to different models"):
        checkpoint.load(saved)
