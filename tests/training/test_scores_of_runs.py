"""Scores of a run: those of its own test crystals, whatever the order of the data, to the last digit."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import math
import re
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused
from tables import write_rows

import crystalframer as cf
from crystalframer.checkpoint import USED_FILE
from crystalframer.cli import main
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.datasets.used import structure_hashes
from crystalframer.errors import CheckpointError, DataError
from crystalframer.testing import random_crystal

TARGETS = (cf.Target("energy", "eV/atom"), cf.Target("gap", "eV"))
N = 72
TRAIN = ["train", "--preset", "tiny", "--training.accelerator", "cpu", "--data.split", "random"]
TRAIN += ["--data.test-fraction", "0.2", "--model.targets", "energy:eV/atom", "gap:eV"]


def row(number: int) -> dict:
    """A crystal with two labels; every fourth gap is missing."""
    crystal = random_crystal(number, n_atoms=1 + number % 4)
    return {
        "atomic_numbers": crystal.atomic_numbers.tolist(),
        "positions": crystal.positions.ravel().tolist(),
        "lattice": crystal.lattice.ravel().tolist(),
        "energy": float(crystal.atomic_numbers.mean()) / 7 + number,
        "gap": None if number % 4 == 0 else number / 3,
    }


ROWS = [row(number) for number in [*range(N - 1), 0]]
"""The last is the first again."""


def said_by(*words: object) -> str:
    """What a command prints."""
    out = io.StringIO()
    with redirect_stdout(out):
        assert main([str(word) for word in words]) == 0
    return out.getvalue()


@dataclasses.dataclass
class TrainedRun:
    """A run, its data, and what `train` printed."""

    folder: Path
    rows: list[dict]
    printed: str

    @property
    def used(self) -> dict[str, int]:
        return cf.load(self.folder).used.table["part"].value_counts().to_dict()  # type: ignore[union-attr]

    def saved_error(self, target: str) -> float:
        saved = json.loads((self.folder / "result.json").read_text())
        return saved["scores"][saved["chosen"]]["test_mae"][target]

    def data(self, folder: Path, **others: object) -> CrystalDataset:
        return cf.dataset(write_rows(folder / "data.jsonl", [r | others for r in self.rows]), targets=TARGETS)


@pytest.fixture(scope="module", params=[False, True], ids=["row numbers", "ids"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    folder = tmp_path_factory.mktemp("scores")
    rows = [({"id": f"c-{n}"} if request.param else {}) | row for n, row in enumerate(ROWS)]
    data = write_rows(folder / "data.csv", rows)
    printed = said_by(*TRAIN, "--data.source", data, "--output", folder / "run")
    return TrainedRun(folder / "run", rows, printed)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_evaluate_gives_what_train_printed(trained: TrainedRun, suffix: str, tmp_path: Path) -> None:
    """On a table in another order, in several formats."""
    order = np.random.default_rng(len(suffix)).permutation(N)
    data = write_rows(tmp_path / f"shuffled{suffix}", [trained.rows[row] for row in order])
    text = said_by("evaluate", data, "--model", trained.folder)
    evaluation = cf.evaluate(data, trained.folder)
    n_test = trained.used["test"]
    for target in TARGETS:
        (printed,) = re.findall(rf"{target.name}, .*test MAE ([\d.e-]+) .*chosen", trained.printed)
        (line,) = [line for line in text.splitlines() if line.startswith(target.label) and " test " in line]
        assert line.removeprefix(target.label).split()[2] == printed
        score = evaluation.parts["test"][target.name]
        assert score.mae == trained.saved_error(target.name) == evaluation.scores[target.name].mae
        baseline = json.loads((trained.folder / "result.json").read_text())["baseline_mae"][target.name]
        assert score.baseline_mae == pytest.approx(baseline, rel=1e-6)
    assert evaluation.parts["test"]["energy"].n_crystals == n_test
    counts = evaluation.crystals.drop_duplicates("id")["part"].value_counts().to_dict()
    assert counts == trained.used and evaluation.n_train == counts["train"]
    before = text[: text.index("RMSE")]
    assert f"TRAINED ON {counts['train']}" in before and "test crystals of the run are here" not in text


def test_each_part_has_its_own_batches_in_the_order_of_the_run(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which crystals share a batch decides the last digits."""
    seen = []

    def noted(structures: CrystalDataset, *arguments: Any, **options: Any) -> Any:
        seen.append(structure_hashes(structures).tolist())
        return cf.predict(structures, *arguments, **options)

    monkeypatch.setattr("crystalframer.evaluation.predict", noted)
    data = trained.data(tmp_path)
    cf.evaluate(data.select(np.random.default_rng(0).permutation(N)), trained.folder)
    table = cf.load(trained.folder).used.table  # type: ignore[union-attr]
    assert seen == [table["structure"][table["part"] == part].tolist() for part in ("train", "validation", "test")]


def test_a_copy_of_the_model_knows_its_crystals(trained: TrainedRun, tmp_path: Path) -> None:
    """Saved elsewhere, and after it got intervals."""
    model = cf.load(trained.folder)
    cf.save(model, tmp_path / "copy")
    data = trained.data(tmp_path)
    for known in (model, copy.deepcopy(model), tmp_path / "copy", trained.folder / "checkpoints" / "best"):
        assert cf.evaluate(data, known).parts.keys() == {"train", "validation", "test"}
    assert cf.evaluate(data, tmp_path / "copy").parts["test"]["gap"].mae == trained.saved_error("gap")


def test_other_crystals_beside_training_crystals(trained: TrainedRun, tmp_path: Path) -> None:
    """Half of the training crystals under other ids, and new ones: said before the table, and not in the scores."""
    table = cf.load(trained.folder).used.table  # type: ignore[union-attr]
    ids = table["id"][table["part"] == "train"].tolist()
    data = trained.data(tmp_path)
    half = [crystal for crystal in data if crystal.id in ids[: len(ids) // 2]]
    new = [
        replace(random_crystal(1000 + n, 3), id=f"new-{n}").with_targets({"energy": 0.0, "gap": 1.0}) for n in range(5)
    ]
    renamed = [replace(crystal, id=f"other-{n}") for n, crystal in enumerate(half + new)]
    mixed = cf.evaluate(CrystalDataset.from_crystals(renamed, TARGETS), trained.folder)
    alone = cf.evaluate(CrystalDataset.from_crystals(renamed[len(half) :], TARGETS), trained.folder)
    assert {part: scores["energy"].n_crystals for part, scores in mixed.parts.items()} == {
        "train": len(half),
        "other": 5,
    }
    assert mixed.n_train == len(half)
    assert mixed.scores["energy"].mae == alone.scores["energy"].mae == mixed.parts["other"]["energy"].mae
    more = cf.evaluate(CrystalDataset.from_crystals([*data, *new], TARGETS), trained.folder)
    assert more.scores["energy"].mae == trained.saved_error("energy") and more.parts["other"]["energy"].n_crystals == 5
    text = mixed.summary()
    assert f"TRAINED ON {len(half)} OF THESE CRYSTALS" in text[: text.index("RMSE")]
    assert f"0 of the {trained.used['test']} test crystals of the run are here" in text
    assert "neither trained on these crystals" in alone.summary() and alone.n_train == 0


def test_some_test_crystals_are_missing(trained: TrainedRun, tmp_path: Path) -> None:
    model = cf.load(trained.folder)
    data = trained.data(tmp_path)
    test = data.select(model.used.find(data).of("test"))  # type: ignore[union-attr]
    part = cf.evaluate(test.select(np.arange(4)), model)
    assert f"4 of the {len(test)} test crystals of the run are here" in part.summary()
    assert part.parts["test"]["energy"].n_crystals == 4
    assert cf.evaluate(data, model, part="test").scores["gap"].mae == cf.evaluate(test, model).scores["gap"].mae
    none = data.select(model.used.find(data).of("train"))  # type: ignore[union-attr]
    with refused(DataError, "test part of the run", field="part"):
        cf.evaluate(none, model, part="test")
    assert "No crystal here is new to it" in cf.evaluate(none, model).summary()


def test_other_labels_and_structures_are_said(trained: TrainedRun, tmp_path: Path) -> None:
    data = trained.data(tmp_path, energy=1.0)
    assert f"structure or id: {N} of the crystals" in cf.evaluate(data, trained.folder).summary()
    relaxed = [replace(c, lattice=1.01 * c.lattice, positions=1.01 * c.positions) for c in data]
    table = CrystalDataset.from_crystals(relaxed, TARGETS, provenance=data.provenance)
    evaluation = cf.evaluate(table, trained.folder)
    # Names tell; row numbers do not.
    has_ids = "id" in trained.rows[0]
    assert evaluation.parts.keys() == ({"train", "validation", "test"} if has_ids else {"other"})
    alike = re.findall(r"(\d+) of `other` have the formula of a training crystal", evaluation.summary())
    assert bool(alike) != has_ids and all(int(n) >= trained.used["train"] for n in alike)


@pytest.mark.parametrize("damage", [lambda content: content[:100], lambda content: b""], ids=["cut", "empty"])
def test_without_the_list_of_crystals(trained: TrainedRun, tmp_path: Path, damage: object) -> None:
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    data = trained.data(tmp_path)
    file = folder / USED_FILE
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    with refused(CheckpointError, path=file):
        cf.evaluate(data, folder)
    cf.predict(data[0], folder)
    file.unlink()
    text = cf.evaluate(data, folder)
    assert "does not say which crystals" in text.summary() and text.parts == {}
    assert text.scores["energy"].n_crystals == N


def test_intervals_come_from_crystals_that_did_not_train(
    trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = trained.data(tmp_path), cf.load(trained.folder)
    n_train = trained.used["train"]
    all_but_training = cf.calibrate(data, model)
    assert f"trained on {n_train} of these {N} crystals" in capsys.readouterr().err
    assert all_but_training.n_crystals[0] == N - n_train
    with refused(DataError, field="data"):
        cf.calibrate(data, model, part="train")
    model.uncertainty = all_but_training
    assert math.isfinite(cf.evaluate(data, model).scores["energy"].covered)


def test_a_start_that_does_not_name_its_crystals(
    trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said by the training, and by each evaluation of the run, and of one that starts from it."""
    shutil.copytree(trained.folder / "checkpoints" / "best", tmp_path / "0")
    data, config = trained.data(tmp_path), cf.preset("tiny").config
    for n in range(2):
        start = str(tmp_path / f"{n}")
        training = replace(config.training, accelerator="cpu", initial_weights=start, n_epochs=1)
        cf.fit(
            replace(config, model=cf.load(trained.folder).config, training=training),
            data.split(replace(config.data, split="random", test_fraction=0.2), seed=n),
            tmp_path / f"{n + 1}",
        )
        assert f"{start} does not say which crystals" in capsys.readouterr().err
        assert "started from weights that do not say" in cf.evaluate(data, tmp_path / f"{n + 1}").summary()
    assert "started from weights" not in cf.evaluate(data, trained.folder).summary()


def test_crystals_of_the_first_training_of_a_fine_tuned_model(
    trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are training crystals too, also where they are the test crystals of the second training."""
    model, data = cf.load(trained.folder), trained.data(tmp_path)
    table = model.used.table  # type: ignore[union-attr]
    was_train = np.isin(data.ids, table["id"][table["part"] == "train"])
    first, second = np.flatnonzero(was_train), np.flatnonzero(~was_train)
    splits = Splits(data.select(second[:8]), data.select(second[8:]), data.select(first[:5]))
    config = cf.preset("tiny").config
    config = replace(
        config,
        model=model.config,
        training=replace(config.training, accelerator="cpu", initial_weights=str(trained.folder), n_epochs=1),
    )
    result = cf.fit(config, splits, tmp_path / "tuned")
    said = "trained the weights that"
    assert f"5 of 5 test crystals {said} this run starts from" in capsys.readouterr().err
    evaluation = cf.evaluate(data, result.model)
    counts = {part: scores["energy"].n_crystals for part, scores in evaluation.parts.items()}
    assert counts == {"train": 8, "earlier": len(first) - 5, "validation": len(second) - 8, "test": 5}
    assert evaluation.n_train == len(first) - 5 + 8
    assert f"5 of the test crystals {said} the run started from" in evaluation.summary()
