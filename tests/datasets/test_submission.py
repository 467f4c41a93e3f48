"""The results file of Matbench: complete folds, a fair start, and the checks that Matbench makes of such a file."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_server import FileServer
from published_formats import matbench
from refusals import refused

import crystalframer as cf
from crystalframer.cli import main
from crystalframer.config import Config, to_json
from crystalframer.datasets.splits import matbench_class_folds, matbench_folds
from crystalframer.errors import CheckpointError, ConfigError, DataError
from crystalframer.model.network import CrystalFramer
from crystalframer.submission import scores_of

N = 23
VALUES = [100.0 + row for row in range(N)]


@pytest.fixture
def phonons(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    matbench("matbench-phonons", "last phdos peak", VALUES, server, monkeypatch)


def run(folder: Path, source: str, target: cf.Target, initial_weights: str | None = None) -> Path:
    """A run folder with random weights, as a training leaves it."""
    preset = cf.preset("tiny").config
    config = Config(
        replace(preset.model, targets=(target,)),
        replace(preset.data, source=source),
        replace(preset.training, initial_weights=initial_weights),
    )
    cf.save(CrystalFramer(config.model), folder / "checkpoints" / "best")
    (folder / "config.json").write_text(to_json(config), encoding="utf-8")
    return folder


def runs_of(path: Path, task: str, target: cf.Target, **options: Any) -> list[Path]:
    return [run(path / f"fold-{fold}", f"{task}:fold-{fold}", target, **options) for fold in range(5)]


PEAK = cf.Target("last_phdos_peak", "1/cm")


def sorted_as_matbench_does(tree: Any) -> Any:
    """Keys sorted at every level of dictionaries; lists as they are."""
    if not isinstance(tree, dict):
        return tree
    return {name: sorted_as_matbench_does(tree[name]) for name in sorted(tree)}


@pytest.mark.usefixtures("phonons")
def test_a_file_has_every_crystal_of_every_fold(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, "matbench-phonons", PEAK)
    scores = cf.submit("phonons", runs[::-1], tmp_path / "results.json.gz", algorithm="ours", progress=False)
    document = json.loads(gzip.decompress((tmp_path / "results.json.gz").read_bytes()))
    task = document["tasks"]["matbench_phonons"]
    assert document["@class"] == "MatbenchBenchmark" and document["benchmark_name"] == "matbench_v0.1"
    assert task["dataset_name"] == "matbench_phonons" and task["benchmark_name"] == "matbench_v0.1"
    assert document["user_metadata"]["initial_weights"] == "random weights"
    assert document["user_metadata"]["algorithm"] == "ours"
    folds = matbench_folds(N)
    for number in range(5):
        fold = task["results"][f"fold_{number}"]
        tested = np.flatnonzero(folds == number)
        assert sorted(fold["data"]) == [f"mb-phonons-{row + 1:04d}" for row in tested]
        data = cf.dataset(f"matbench-phonons:fold-{number}")
        expected = cf.predict(data.select(tested), runs[number], progress=False)["last_phdos_peak"].tolist()
        assert list(fold["data"].values()) == pytest.approx(expected, rel=1e-5)
        errors = np.array(list(fold["data"].values())) - np.array(VALUES)[tested]
        assert fold["scores"]["mae"] == pytest.approx(np.abs(errors).mean())
        assert fold["scores"]["max_error"] == pytest.approx(np.abs(errors).max())
        assert set(fold["scores"]) == {"mae", "rmse", "mape", "max_error"}
        assert fold["parameters"]["model.n_layers"] == cf.preset("tiny").config.model.n_layers
        assert fold["parameters"]["data.source"] == f"matbench-phonons:fold-{number}"
    assert scores["mae"] == pytest.approx(np.mean([task["results"][f"fold_{n}"]["scores"]["mae"] for n in range(5)]))
    assert str(tmp_path) not in json.dumps(document)


@pytest.mark.usefixtures("phonons")
def test_matbench_finds_the_checksum_that_it_expects(tmp_path: Path) -> None:
    cf.submit("matbench-phonons", runs_of(tmp_path, "matbench-phonons", PEAK), tmp_path / "r.json", progress=False)
    document = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    found = document.pop("hash")
    assert found == hashlib.sha256(json.dumps(sorted_as_matbench_does(document)).encode()).hexdigest()


@pytest.mark.usefixtures("phonons")
def test_a_fold_that_is_missing_or_there_twice_is_named(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, "matbench-phonons", PEAK)
    with refused(ConfigError, "fold 3", field="runs"):
        cf.submit("phonons", [*runs[:3], runs[4]], tmp_path / "r.json")
    again = shutil.copytree(runs[1], tmp_path / "again")
    with refused(ConfigError, "fold 1", field="runs"):
        cf.submit("phonons", [*runs, again], tmp_path / "r.json")
    other = run(tmp_path / "other", "demo", PEAK)
    with refused(ConfigError, "matbench-phonons:fold-0", path="config.json", field="data.source"):
        cf.submit("phonons", [*runs[1:], other], tmp_path / "r.json")
    gap = run(tmp_path / "gap", "matbench-phonons:fold-0", cf.Target("band_gap", "eV"))
    with refused(ConfigError, "last_phdos_peak", field="model.targets"):
        cf.submit("phonons", [*runs[1:], gap], tmp_path / "r.json")
    with refused(CheckpointError, "config.json", path="nowhere"):
        cf.submit("phonons", [*runs[1:], tmp_path / "nowhere"], tmp_path / "r.json")
    with refused(DataError, "did you mean 'matbench-phonons'", field="task"):
        cf.submit("phonon", runs, tmp_path / "r.json")
    with refused(ConfigError, ".json.gz", field="output"):
        cf.submit("phonons", runs, tmp_path / "r.csv")
    assert not list(tmp_path.glob("r.*"))


@pytest.mark.usefixtures("phonons")
def test_a_start_is_named_and_must_not_know_the_labels(tmp_path: Path) -> None:
    before = run(tmp_path / "energies", "demo", cf.Target("formation_energy_per_atom", "eV/atom"))
    fair = runs_of(tmp_path / "fair", "matbench-phonons", PEAK, initial_weights=str(before))
    cf.submit("phonons", fair, tmp_path / "fair.json", progress=False)
    document = json.loads((tmp_path / "fair.json").read_text(encoding="utf-8"))
    assert document["user_metadata"]["initial_weights"] == "energies (formation_energy_per_atom)"

    knows = run(tmp_path / "knows", "matbench-phonons:fold-1", PEAK)
    unfair = runs_of(tmp_path / "unfair", "matbench-phonons", PEAK, initial_weights=str(knows))
    with refused(ConfigError, "last_phdos_peak", path="config.json", field="training.initial_weights"):
        cf.submit("phonons", unfair, tmp_path / "unfair.json")

    # Weights that started from such weights have seen the labels, too.
    later = run(tmp_path / "later", "demo", cf.Target("band_gap", "eV"), str(knows))
    with refused(ConfigError, "last_phdos_peak", path="config.json", field="training.initial_weights"):
        cf.submit("phonons", runs_of(tmp_path / "x", "matbench-phonons", PEAK, initial_weights=str(later)), "x.json")

    lost = runs_of(tmp_path / "lost", "matbench-phonons", PEAK, initial_weights=str(tmp_path / "gone"))
    with refused(ConfigError, "which labels", path="config.json", field="training.initial_weights"):
        cf.submit("phonons", lost, tmp_path / "lost.json")


@pytest.mark.parametrize(
    ("task", "target"),
    [
        ("matbench-mp-gap", cf.Target("band_gap", "eV")),
        ("matbench-mp-e-form", cf.Target("formation_energy_per_atom", "eV/atom")),
    ],
)
def test_the_shipped_weights_are_no_fair_start_for_what_they_predict(
    task: str, target: cf.Target, tmp_path: Path
) -> None:
    runs = runs_of(tmp_path, task, target, initial_weights="package")
    with refused(ConfigError, target.name, path="config.json", field="training.initial_weights"):
        cf.submit(task, runs, tmp_path / "r.json")


def test_classes_are_probabilities(server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = [row % 3 == 0 for row in range(30)]
    matbench("matbench-mp-is-metal", "is_metal", values, server, monkeypatch)
    target = cf.dataset("matbench-mp-is-metal").target("is_metal")
    runs = runs_of(tmp_path, "matbench-mp-is-metal", target)
    assert main(["submit", "mp-is-metal", *map(str, runs), "--output", str(tmp_path / "r.json")]) == 0
    results = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["tasks"]["matbench_mp_is_metal"]["results"]
    folds = matbench_class_folds(np.array(values, dtype=float))
    for number in range(5):
        fold = results[f"fold_{number}"]
        assert len(fold["data"]) == (folds == number).sum()
        assert all(isinstance(value, float) and 0 <= value <= 1 for value in fold["data"].values())
        assert set(fold["scores"]) == {"accuracy", "balanced_accuracy", "f1", "rocauc"}


def test_scores_by_hand() -> None:
    scores = scores_of(PEAK, np.array([1.0, 2.0, 0.0]), np.array([1.5, 1.0, 2.0]))
    assert scores == pytest.approx({"mae": 3.5 / 3, "rmse": (5.25 / 3) ** 0.5, "mape": 0.5, "max_error": 2.0})
    target = cf.Target("is_metal", kind="class", classes=("no", "yes"))
    scores = scores_of(target, np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.6, 0.7, 0.4]))
    assert scores == {"accuracy": 0.5, "balanced_accuracy": 0.5, "f1": 0.5, "rocauc": 0.75}
