"""Targets of classes, from the data to predictions and scores."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from refusals import refused

import crystalframer as cf
from crystalframer.class_scores import score_classes
from crystalframer.config import Config, Target
from crystalframer.datasets.dataset import CrystalDataset, Splits
from crystalframer.errors import ConfigError, UncertaintyError
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import random_crystal
from crystalframer.training.optimisation import cross_entropy
from crystalframer.uncertainty import fitted_temperature

HEAVY = Target("heavy", kind="class", classes=("light", "heavy"))
SIZE = Target("size", kind="class")
ENERGY = Target("energy", "eV")


def crystals(n: int = 36, first: int = 0) -> CrystalDataset:
    """`heavy` follows from the elements, `size` from the number of atoms."""
    found = []
    for seed in range(first, first + n):
        crystal = random_crystal(seed, n_atoms=1 + seed % 3)
        heavy = float(crystal.atomic_numbers.mean() > 45)
        labels = {"heavy": heavy, "size": float(len(crystal)), "energy": float(seed % 5)}
        found.append(crystal.with_targets(labels))
    return CrystalDataset.from_crystals(found, [HEAVY, SIZE, ENERGY])


def config(*targets: Target, **training: Any) -> Config:
    tiny = cf.preset("tiny").config
    model = replace(tiny.model, targets=targets)
    data = replace(tiny.data, split="random", max_atoms_per_crystal=None)
    return Config(model, data, replace(tiny.training, accelerator="cpu", **training))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    wanted = config(SIZE, ENERGY, Target("heavy"), n_epochs=2, swa_epochs=1)
    return cf.fit(wanted, crystals(), tmp_path_factory.mktemp("runs") / "run")


def test_a_run_has_the_classes_of_its_data(run: Any) -> None:
    assert run.model.config.targets == (replace(SIZE, classes=("1", "2", "3")), ENERGY, HEAVY)
    saved = json.loads((run.output / "config.json").read_text())["model"]["targets"]
    assert [target["classes"] for target in saved] == [["1", "2", "3"], [], ["light", "heavy"]]
    assert set(run.scores["best"].test_accuracy) == {"size", "heavy"}
    assert set(run.scores["best"].test_mae) == set(run.baseline_mae) == {"energy"}
    assert set(run.baseline_accuracy) == {"size", "heavy"}
    assert "size, best: validation accuracy" in run.summary()
    for column in ("train_cross_entropy/size", "validation_accuracy/heavy", "swa_validation_cross_entropy/heavy"):
        assert run.history[column].notna().iloc[-1]


def test_outputs_start_from_the_shares_of_the_classes(run: Any) -> None:
    """Mean and scale: log-odds of the training labels and 1, so that a new model predicts their shares."""
    data = crystals().with_targets(run.model.config.targets)
    train = cf.evaluate(data, run.model, progress=False).crystals.query("part == 'train'")
    counts = train.query("target == 'size'")["label"].value_counts().sort_index().to_numpy()
    mean = run.model.target_mean.numpy()
    np.testing.assert_allclose(torch.softmax(torch.from_numpy(mean[:3]), 0), counts / counts.sum(), rtol=1e-5)
    heavy = (train.query("target == 'heavy'")["label"] == "heavy").mean()
    np.testing.assert_allclose(1 / (1 + np.exp(-mean[4])), heavy, rtol=1e-5)
    np.testing.assert_array_equal(run.model.target_std.numpy()[[0, 1, 2, 4]], 1.0)


def test_a_table_of_predictions_has_probabilities(run: Any) -> None:
    run.model.uncertainty = cf.calibrate(crystals(40, first=100), run.model, progress=False)
    table = cf.predict([*crystals(3), None], run.model, progress=False)
    sizes = table[["size_1", "size_2", "size_3"]].to_numpy()
    np.testing.assert_allclose(sizes[:3].sum(axis=1), 1.0, rtol=1e-6)
    likeliest = [str(1 + number) for number in sizes[:3].argmax(axis=1)]
    assert table["size"].tolist() == [*likeliest, None]
    assert table["heavy"].iloc[:3].between(0, 1).all()
    assert np.isnan(sizes[3]).all() and np.isnan(table["heavy"].iloc[3])
    assert (table["energy_low"] < table["energy_high"]).iloc[:3].all()
    assert not {"heavy_low", "size_low", "size_1_low"} & set(table)


def test_a_trace_has_the_probabilities_of_the_table(run: Any) -> None:
    crystal = crystals(3)[0]
    trace, row = cf.trace(crystal, run.model), cf.predict(crystal, run.model, progress=False).iloc[0]
    assert list(trace.prediction) == ["size_1", "size_2", "size_3", "energy", "heavy"]
    for name, value in trace.prediction.items():
        assert value == pytest.approx(row[name], abs=1e-5)


def test_a_saved_model_predicts_the_same(run: Any, tmp_path: Path) -> None:
    cf.save(run.model, tmp_path / "model")
    before, after = (cf.predict(list(crystals(3)), model, progress=False) for model in (run.model, tmp_path / "model"))
    assert before.equals(after)


def test_scores_of_a_run_are_those_of_its_evaluation(run: Any) -> None:
    evaluation = cf.evaluate(crystals(), run.model, progress=False)
    assert set(evaluation.scores) == {"energy"} and set(evaluation.class_scores) == {"size", "heavy"}
    for name, score in evaluation.class_scores.items():
        assert score.accuracy == run.scores[run.chosen].test_accuracy[name]
        assert score.baseline_accuracy == run.baseline_accuracy[name]
        assert score.n_crystals == sum(map(sum, score.confusion))
    rows = evaluation.crystals.query("target == 'size' and part == 'test'")
    assert evaluation.class_parts["test"]["size"].accuracy == (rows["label"] == rows["prediction"]).mean()
    assert "classes of" in evaluation.summary() and "by true and by predicted class" in evaluation.summary()


def test_a_run_resumes_without_naming_classes(tmp_path: Path) -> None:
    """The classes that the run found in its data are no change of its settings."""
    wanted = config(SIZE, n_epochs=2, swa_epochs=0)
    whole = cf.fit(wanted, crystals(), tmp_path / "whole")

    class Stop(cf.training.run.pl.Callback):  # type: ignore[name-defined]
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.should_stop = True

    cf.fit(wanted, crystals(), tmp_path / "part", callbacks=[Stop()])
    (tmp_path / "part" / "result.json").unlink()
    resumed = cf.fit(wanted, crystals(), tmp_path / "part", resume=True)
    assert resumed.history["validation_loss"].tolist() == whole.history["validation_loss"].tolist()


def test_training_learns_classes(tmp_path: Path) -> None:
    """Elements decide: a few epochs are enough to tell light crystals from heavy ones."""
    data = crystals(120)
    wanted = config(Target("heavy"), n_epochs=30, swa_epochs=0, learning_rate=2e-3, batch_size=16)
    result = cf.fit(wanted, data, tmp_path / "run")
    (score,) = cf.evaluate(crystals(60, first=500), result.model, progress=False).class_scores.values()
    assert score.roc_auc > 0.75 and score.accuracy > score.baseline_accuracy


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (0.0, "all 3 training labels are 'light'; there is nothing to learn"),
        (float("nan"), "target 'heavy': no training crystal has a label"),
    ],
)
def test_labels_that_teach_nothing(label: float, message: str, tmp_path: Path) -> None:
    labels = [{"heavy": label, "energy": 0.0}, {"heavy": label, "energy": 1.0}, {"heavy": label, "energy": 3.0}]
    labels += [{"heavy": 1.0, "energy": 2.0}]
    crystals = [random_crystal(seed, n_atoms=1).with_targets(each) for seed, each in enumerate(labels)]
    data = CrystalDataset.from_crystals(crystals, [HEAVY, ENERGY])
    splits = Splits(data.select([0, 1, 2]), data.select([3]), data.select([]))
    with refused(ConfigError, message):
        cf.fit(config(ENERGY, HEAVY), splits, tmp_path / "run")


def test_labels_of_one_class(tmp_path: Path) -> None:
    kind = Target("kind", kind="class")
    labelled = [random_crystal(seed, n_atoms=1).with_targets({"kind": 7.0}) for seed in range(9)]
    one = CrystalDataset.from_crystals(labelled, [kind])
    assert one.classes == {"kind": ("7",)}
    with refused(ConfigError, "training labels are '7'; there is nothing to learn"):
        cf.fit(config(Target("kind")), one, tmp_path / "run")


def test_a_class_that_only_the_test_part_has(tmp_path: Path) -> None:
    data = crystals()
    sizes = data.targets["size"]
    parts = Splits(data.select(sizes < 2), data.select(sizes < 2), data.select(sizes == 2))
    with refused(ConfigError, "no training crystal is of class '3'"):
        cf.fit(config(SIZE), parts, tmp_path / "run")


def test_intervals_of_a_model_of_classes_alone(tmp_path: Path) -> None:
    result = cf.fit(config(SIZE, n_epochs=1, swa_epochs=0), crystals(), tmp_path / "run")
    with refused(UncertaintyError, "classes only"):
        cf.calibrate(crystals(30, first=50), result.model, progress=False)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_temperature_is_that_of_labels_drawn_with_it(n_classes: int) -> None:
    """Logits three times as large as those that drew the labels."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(4000, n_classes))
    shares = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    labels = (rng.random(4000)[:, None] > shares.cumsum(axis=1)).sum(axis=1).astype(float)
    labels[:10] = np.nan
    logits = 3.0 * (true[:, 1:] - true[:, :1] if n_classes == 2 else true)
    assert fitted_temperature(logits, labels, "kind") == pytest.approx(3.0, rel=0.1)


def test_calibrated_probabilities_change_no_order(tmp_path: Path) -> None:
    model = cf.fit(config(SIZE, n_epochs=1, swa_epochs=0), crystals(), tmp_path / "run").model
    data = crystals(40, first=50)
    calm = cf.calibrate_probabilities(data, model, progress=False)
    before, after = (cf.predict(data, which, progress=False) for which in (model, calm))
    assert before["size"].tolist() == after["size"].tolist()
    names = list(model.config.targets[0].output_names)
    assert np.abs(before[names] - after[names]).max().max() > 1e-4
    scores = [cf.evaluate(data, which, progress=False).class_scores["size"].log_loss for which in (model, calm)]
    assert scores[1] < scores[0]
    cf.save(calm, tmp_path / "calm")
    pd.testing.assert_frame_equal(cf.predict(data, tmp_path / "calm", progress=False), after)


def test_probabilities_that_cannot_be_calibrated() -> None:
    labels = np.zeros(30)
    with refused(UncertaintyError, "of one class", field="kind"):
        fitted_temperature(np.zeros((30, 1)), labels, "kind")
    with refused(UncertaintyError, "at least 20", field="kind"):
        fitted_temperature(np.zeros((19, 1)), np.arange(19) % 2.0, "kind")
    with refused(UncertaintyError, "no classes"):
        cf.calibrate_probabilities(crystals(), CrystalFramer(config(ENERGY).model), progress=False)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_cross_entropy_is_that_of_torch(n_outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, n_outputs, generator=generator, dtype=torch.float64, requires_grad=True)
    n_classes = max(n_outputs, 2)
    labels = torch.randint(n_classes, (8,), generator=generator).double()
    weights = torch.rand(n_classes, generator=generator, dtype=torch.float64)
    losses = cross_entropy(logits, labels, weights)
    if n_outputs == 1:
        wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels, reduction="none")
        wanted = wanted * weights[labels.long()]
    else:
        wanted = torch.nn.functional.cross_entropy(logits, labels.long(), weights, reduction="none")
    torch.testing.assert_close(losses, wanted)
    labels[2] = torch.nan
    losses = cross_entropy(logits, labels, weights)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert losses[2] == 0 and (gradient[2] == 0).all() and gradient.isfinite().all()


def test_balanced_weights_change_the_loss(tmp_path: Path) -> None:
    losses = []
    for how in ("equal", "balanced"):
        result = cf.fit(config(HEAVY, n_epochs=1, swa_epochs=0, class_weights=how), crystals(), tmp_path / how)
        losses.append(result.history["train_cross_entropy/heavy"].iloc[0])
    assert losses[0] != losses[1]


def test_scores_by_hand() -> None:
    target = Target("phase", kind="class", classes=("a", "b", "c"))
    predicted = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]])
    score = score_classes(target, np.array([0, 1, 1, 0]), predicted, 1)
    assert score.confusion == ((2, 0, 0), (0, 1, 1), (0, 0, 0))
    assert (score.accuracy, score.balanced_accuracy, score.baseline_accuracy) == (0.75, 0.75, 0.5)
    assert score.log_loss == pytest.approx(-np.log([0.8, 0.5, 0.3, 0.6]).mean())
    # of a: both above both others; of b: 0.5 and 0.3 against 0.1 and 0.3, one tie; of c there is none
    assert score.roc_auc == pytest.approx((1.0 + 3.5 / 4) / 2)
    # likeliest at 0.8 (right), 0.5 (right), 0.4 (wrong), 0.6 (right), each in a bin of its own
    assert score.calibration_error == pytest.approx((0.2 + 0.5 + 0.4 + 0.4) / 4)
    assert "predicted" not in score.confusion_table and score.confusion_table.splitlines()[1].split() == [
        "a",
        "2",
        "0",
        "0",
    ]


def test_classes_in_a_column_of_text_are_evaluated(run: Any, tmp_path: Path) -> None:
    """`train` takes such a column where its target asks for it; the model asks for it in `evaluate` and `calibrate`."""
    data = crystals()
    for crystal in data:
        crystal.write(tmp_path / f"{crystal.id}.cif")
    names = [("light", "heavy")[int(code)] for code in data.targets["heavy"]]
    pd.DataFrame({"id": data.ids, "heavy": names}).to_csv(tmp_path / "labels.csv", index=False)
    found = cf.evaluate(tmp_path, run.model, progress=False)
    expected = cf.evaluate(data, run.model, progress=False)
    assert found.class_scores["heavy"].accuracy == expected.class_scores["heavy"].accuracy
    assert "own split" not in found.summary()


def test_the_command_line_names_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from crystalframer.cli import main

    crystals().save(tmp_path / "data.parquet")
    options = ["--preset", "tiny", "--data.split", "random", "--training.n-epochs", "1", "--training.swa-epochs", "0"]
    source = ["--data.source", str(tmp_path / "data.parquet"), "--output", str(tmp_path / "run")]
    assert main(["train", *source, *options, "--model.targets", "heavy:class", "energy:eV"]) == 0
    assert "heavy, best: validation accuracy" in capsys.readouterr().out
    assert cf.load(tmp_path / "run").config.targets[0] == HEAVY
