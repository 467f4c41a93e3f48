"""Predictions: the model's own numbers, in order, whatever is wrong with some of the structures."""

from __future__ import annotations

import copy
import inspect
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from pymatgen.core import Lattice, Structure
from refusals import refused

import crystalframer as cf
from crystalframer import ops, prediction
from crystalframer.config import Target
from crystalframer.crystals.crystal import Crystal, CrystalBatch
from crystalframer.crystals.loading import make_batch, prepare
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.domain import Domain
from crystalframer.errors import CheckpointError, ConfigError, CrystalError, DataError, UncertaintyError
from crystalframer.model.network import CrystalFramer
from crystalframer.reading.objects import to_crystal

CONFIG = replace(cf.PRESETS["tiny"].config.model, targets=(Target("energy", "eV/atom"), Target("gap", "eV")))
CAESIUM = 55


@cache
def trained() -> CrystalFramer:
    model = CrystalFramer(CONFIG, torch.Generator().manual_seed(0)).eval()
    model.target_mean.copy_(torch.tensor([-1.0, 2.0]))
    model.target_std.copy_(torch.tensor([3.0, 0.5]))
    model.calibrate(make_batch([to_crystal(rock_salt("Na", "Cl", 5.64))], CONFIG.radius))
    return model


@pytest.fixture
def model() -> CrystalFramer:
    """A test's own copy, which it may change."""
    return copy.deepcopy(trained())


def rock_salt(cation: str, anion: str, a: float) -> Structure:
    """Primitive cell."""
    lattice = Lattice(a / 2 * (np.ones((3, 3)) - np.eye(3)))
    return Structure(lattice, [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def caesium_chloride(cation: str, anion: str, a: float) -> Structure:
    return Structure(Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


STRUCTURES = {
    "NaCl": rock_salt("Na", "Cl", 5.64),
    "CsCl": caesium_chloride("Cs", "Cl", 4.12),
    "MgO": rock_salt("Mg", "O", 4.21),
    "CsI": caesium_chloride("Cs", "I", 4.57),
    "LiF": rock_salt("Li", "F", 4.03),
}
CRYSTALS = [to_crystal(structure, id) for id, structure in STRUCTURES.items()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """CIF files, which a folder lists by name."""
    path = tmp_path / "cifs"
    path.mkdir()
    for id, structure in STRUCTURES.items():
        structure.to(filename=str(path / f"{id}.cif"))
    return path


@cache
def alone() -> dict[str, list[float]]:
    """The model's output for each crystal in a batch of its own."""
    with torch.no_grad():
        return {c.id: trained()(make_batch([c], CONFIG.radius))[0].tolist() for c in CRYSTALS}


def expected(*ids: str) -> np.ndarray:
    return np.array([alone()[id] for id in ids])


def values(frame: pandas.DataFrame) -> np.ndarray:
    return frame[["energy", "gap"]].to_numpy()


def has_caesium(batch: CrystalBatch) -> torch.Tensor:
    """Which crystals of a batch hold caesium."""
    return torch.bincount(batch.crystal_index, batch.atomic_numbers == CAESIUM, minlength=batch.n_crystals) > 0


def test_the_table_holds_ids_formulas_and_the_models_numbers(model: CrystalFramer) -> None:
    frame = cf.predict(CRYSTALS, model)
    assert list(frame.columns) == ["id", "formula", "energy", "gap", "error"]
    assert frame["id"].tolist() == frame["formula"].tolist() == list(STRUCTURES)
    assert frame["error"].tolist() == [None] * 5
    assert frame.attrs["units"] == {"energy": "eV/atom", "gap": "eV"}
    np.testing.assert_allclose(values(frame), expected(*STRUCTURES), atol=1e-5)
    assert np.ptp(frame["energy"]) > 1e-3  # the numbers compared are not all alike


def inputs(kind: str, folder: Path) -> Any:
    match kind:
        case "folder":
            return folder
        case "glob":
            return str(folder / "*.cif")
        case "list of paths":
            return sorted(folder.glob("*.cif"))
        case "list of structures":
            return [STRUCTURES[id] for id in sorted(STRUCTURES)]
        case "generator":
            return (STRUCTURES[id] for id in sorted(STRUCTURES))
        case "frame":
            ids = sorted(STRUCTURES)
            return pandas.DataFrame({"id": ids, "structure": [STRUCTURES[id] for id in ids]})
        case "dataset":
            return CrystalDataset.from_crystals(sorted(CRYSTALS, key=lambda crystal: crystal.id))
        case "packed file":
            path = folder.parent / "packed.parquet"
            inputs("dataset", folder).save(path)
            return path
        case _:
            return [
                folder / "CsCl.cif",
                [str(folder / "CsI.cif")],
                STRUCTURES["LiF"],
                *sorted(folder.glob("[MN]*.cif")),
            ]


KINDS = [
    "folder",
    "glob",
    "list of paths",
    "list of structures",
    "generator",
    "frame",
    "dataset",
    "packed file",
    "mixture",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input_gives_the_same_predictions(kind: str, folder: Path, model: CrystalFramer) -> None:
    frame = cf.predict(inputs(kind, folder), model)
    assert frame["id"].tolist() == sorted(STRUCTURES)
    np.testing.assert_allclose(values(frame), expected(*sorted(STRUCTURES)), atol=1e-5)


def test_a_single_structure_is_one_row(folder: Path, model: CrystalFramer) -> None:
    for single in (STRUCTURES["NaCl"], folder / "NaCl.cif", (folder / "NaCl.cif").read_text(), CRYSTALS[0]):
        frame = cf.predict(single, model)
        np.testing.assert_allclose(values(frame), expected("NaCl"), atol=1e-5)


def test_no_structures_are_no_rows(model: CrystalFramer) -> None:
    frame = cf.predict([], model)
    assert list(frame.columns) == ["id", "formula", "energy", "gap", "error"] and len(frame) == 0


def test_bad_rows_keep_their_place_and_stop_no_other(folder: Path, model: CrystalFramer) -> None:
    (folder / "empty.cif").write_text("")
    (folder / "text.cif").write_text("no crystal here\n")
    partial = STRUCTURES["NaCl"].copy()
    partial.replace_species({"Na": {"Na": 0.5}})
    partial.to(filename=str(folder / "partial.cif"))
    close = Crystal(np.array([11, 17]), np.array([[0.0, 0, 0], [1e-7, 0, 0]]), 4 * np.eye(3), "close")
    mixed = [
        folder / "empty.cif",
        STRUCTURES["NaCl"],
        folder / "text.cif",
        folder / "missing.cif",
        STRUCTURES["CsCl"],
        folder / "partial.cif",
        close,
        STRUCTURES["MgO"],
        17,
    ]
    frame = cf.predict(mixed, model)
    good = [1, 4, 7]
    assert frame["id"].tolist()[:6] == ["empty", "NaCl", "text", "missing", "CsCl", "partial"]
    assert frame["id"].is_unique
    assert frame["error"].notna().tolist() == [row not in good for row in range(len(mixed))]
    np.testing.assert_allclose(values(frame)[good], expected("NaCl", "CsCl", "MgO"), atol=1e-5)
    assert np.isnan(np.delete(values(frame), good, axis=0)).all()
    for row, reason in {0: "empty", 2: "text.cif", 3: "no such file", 5: "partly occupied", 6: "apart"}.items():
        assert reason in frame["error"][row]


@pytest.mark.parametrize(("batch_size", "max_atoms"), [(1, 1000), (2, 1000), (100, 4), (100, 1), (3, 5)])
def test_batches_are_bounded_and_change_no_prediction(batch_size: int, max_atoms: int, model: CrystalFramer) -> None:
    sizes = []
    model.register_forward_pre_hook(lambda _, args: sizes.append((args[0].n_crystals, args[0].n_atoms)))
    frame = cf.predict(CRYSTALS, model, batch_size=batch_size, max_atoms=max_atoms)
    assert sum(n_crystals for n_crystals, _ in sizes) == len(CRYSTALS)
    for n_crystals, n_atoms in sizes:
        assert n_crystals <= batch_size
        assert n_atoms <= max_atoms or n_crystals == 1
    np.testing.assert_allclose(values(frame), expected(*STRUCTURES), atol=1e-5)


@pytest.mark.parametrize("bound", [{"batch_size": 0}, {"max_atoms": -1}])
def test_bounds_must_let_something_through(bound: dict[str, Any], model: CrystalFramer) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        cf.predict(CRYSTALS, model, **bound)


def test_structures_are_read_as_they_are_needed(model: CrystalFramer) -> None:
    read, read_at_forward = [], []

    def stream() -> Iterator[Crystal]:
        for crystal in CRYSTALS:
            read.append(crystal.id)
            yield crystal

    model.register_forward_pre_hook(lambda *_: read_at_forward.append(len(read)))
    cf.predict(stream(), model, batch_size=2)
    assert read_at_forward == [3, 5, 5]


def test_a_batch_that_fails_costs_only_the_crystal_that_fails(model: CrystalFramer) -> None:
    def refuse_caesium(_: object, args: tuple[CrystalBatch]) -> None:
        if has_caesium(args[0]).any():
            raise RuntimeError("not enough memory")

    model.register_forward_pre_hook(refuse_caesium)
    frame = cf.predict(CRYSTALS, model)
    failed = frame["error"].notna().to_numpy()
    assert frame["id"][failed].tolist() == ["CsCl", "CsI"]
    assert frame["error"].tolist()[1] == "the prediction failed (RuntimeError: not enough memory)"
    np.testing.assert_allclose(values(frame)[~failed], expected("NaCl", "MgO", "LiF"), atol=1e-5)


def test_a_setting_that_would_fail_for_every_crystal_is_an_error(model: CrystalFramer) -> None:
    with ops.use("cpu"), pytest.raises(ConfigError, match=r"ops.use\('cpu'\): it computes float32"):
        cf.predict(CRYSTALS, model.double())


def test_a_prediction_that_is_not_finite_is_an_error(model: CrystalFramer) -> None:
    model.register_forward_hook(lambda _, args, predicted: predicted.where(~has_caesium(args[0])[:, None], math.inf))
    frame = cf.predict(CRYSTALS, model)
    assert frame["id"][frame["error"].notna()].tolist() == ["CsCl", "CsI"]
    assert "energy = inf" in frame["error"].tolist()[1]
    assert frame["energy"].isna().tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(values(frame)[[0, 2, 4]], expected("NaCl", "MgO", "LiF"), atol=1e-5)


def test_a_model_in_float64_predicts_in_float64(model: CrystalFramer) -> None:
    double = model.double()
    with torch.no_grad():
        exact = double(make_batch(CRYSTALS, CONFIG.radius, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(values(cf.predict(CRYSTALS, double)), exact, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "total"),
    [(kind, None if kind == "generator" else 5) for kind in KINDS],
)
def test_the_progress_bar_knows_the_end_where_it_can(
    kind: str, total: int | None, folder: Path, model: CrystalFramer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def bar(rows: Any, title: str, expected: int | None, **options: Any) -> Any:
        seen.append((expected, options["delay"], options["disable"]))
        return rows

    monkeypatch.setattr(prediction, "tqdm", bar)
    cf.predict(inputs(kind, folder), model)
    assert seen == [(total, 2, False)]


def test_a_truncated_parquet_file_is_an_error_in_its_row(tmp_path: Path, model: CrystalFramer) -> None:
    path = tmp_path / "half.parquet"
    CrystalDataset.from_crystals(CRYSTALS).save(path)
    path.write_bytes(path.read_bytes()[:200])
    frame = cf.predict([path, STRUCTURES["NaCl"]], model)
    assert "half.parquet" in frame["error"][0] and frame["error"][1] is None


def test_arguments_the_wrong_way_round_are_named(model: CrystalFramer) -> None:
    with pytest.raises(TypeError, match=r"the first argument is a model; the order is predict\(structures, model\)"):
        cf.predict(model)
    ready = inspect.unwrap(prediction.ready)  # as it is without the type checks of the tests
    with pytest.raises(TypeError, match=r"a Structure was given as the model; .* trace\(structure, model\)"):
        ready(STRUCTURES["NaCl"], None)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_bar_is_wiped_off_a_terminal_and_ends_its_line_elsewhere(
    is_terminal: bool, model: CrystalFramer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def bar(rows: Any, *_: Any, **options: Any) -> Any:
        seen.append(options["leave"])
        return rows

    monkeypatch.setattr(prediction, "tqdm", bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    cf.predict(CRYSTALS, model)
    assert seen == [not is_terminal]


# Models


def test_a_saved_model_predicts_the_same_from_its_path(tmp_path: Path, model: CrystalFramer) -> None:
    cf.save(model, tmp_path / "model")
    pandas.testing.assert_frame_equal(cf.predict(CRYSTALS, tmp_path / "model"), cf.predict(CRYSTALS, model))


def test_the_default_is_the_checkpoint_of_the_package(
    tmp_path: Path, model: CrystalFramer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "PRETRAINED", tmp_path / "pretrained")
    with pytest.raises(CheckpointError, match="no trained weights come with this build"):
        cf.predict(CRYSTALS)
    cf.save(model, tmp_path / "pretrained")
    assert cf.load().config == CONFIG
    np.testing.assert_allclose(values(cf.predict(CRYSTALS)), expected(*STRUCTURES), atol=1e-5)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        cf.predict(CRYSTALS, tmp_path / "nowhere")


def test_an_unusable_device_is_named(model: CrystalFramer) -> None:
    with pytest.raises(ConfigError, match="device 'gpu7' cannot be used"):
        cf.predict(CRYSTALS, model, device="gpu7")


@pytest.mark.gpu
def test_the_gpu_predicts_the_same_and_the_callers_model_stays(model: CrystalFramer) -> None:
    np.testing.assert_allclose(values(cf.predict(CRYSTALS, model, device="cuda")), expected(*STRUCTURES), atol=1e-4)
    assert model.target_mean.device.type == "cpu"


# Scores


def constant_model(*predicted: float) -> CrystalFramer:
    """Predicts `predicted` for every crystal; its training labels had the mean (-1, 2)."""
    model = copy.deepcopy(trained())
    with torch.no_grad():
        last = model.readout[2]
        assert isinstance(last, torch.nn.Linear)
        last.weight.zero_()
        last.bias.copy_((torch.tensor(predicted) - model.target_mean) / model.target_std)
    return model


def labelled(energy: list[float], gap: list[float] | None = None, parts: list[str] | None = None) -> CrystalDataset:
    gaps = [math.nan] * len(energy) if gap is None else gap
    pairs = zip(CRYSTALS, energy, gaps, strict=False)
    crystals = [crystal.with_targets({"energy": e, "gap": g}) for crystal, e, g in pairs]
    return CrystalDataset.from_crystals(crystals, CONFIG.targets, parts)


def test_scores_are_those_of_the_hand_calculation() -> None:
    data = labelled([0.0, 2.0, math.nan, -1.0, 3.0], [1.0, 1.0, 1.0, math.nan, math.nan])
    result = cf.evaluate(constant_model(1.0, 1.5), data)
    energy, gap = result.scores["energy"], result.scores["gap"]
    # Energy: errors 1, -1, 2, -2 around the mean label 1; the training mean is -1.
    assert energy.n_crystals == 4
    assert energy.mae == pytest.approx(1.5)
    assert energy.rmse == pytest.approx(math.sqrt(2.5))
    assert energy.r2 == pytest.approx(0.0)
    assert energy.baseline_mae == pytest.approx(2.0)
    # Gap: 0.5 too high everywhere, and R² has no meaning for labels that are all alike.
    assert (gap.n_crystals, gap.mae, gap.baseline_mae) == (3, pytest.approx(0.5), pytest.approx(1.0))
    assert math.isnan(gap.r2)
    assert (result.n_crystals, result.n_failed) == (5, 0)
    assert energy.target == Target("energy", "eV/atom")


def test_the_frame_has_a_row_per_crystal_and_target() -> None:
    result = cf.evaluate(constant_model(1.0, 1.5), labelled([0.0, math.nan], [1.0, 2.0]))
    frame = result.crystals
    assert list(frame.columns) == ["id", "formula", "target", "label", "prediction", "deviation", "error"]
    assert frame["target"].tolist() == ["energy", "energy", "gap", "gap"]
    assert frame["id"].tolist() == ["NaCl", "CsCl"] * 2
    np.testing.assert_allclose(frame["prediction"], [1.0, 1.0, 1.5, 1.5], atol=1e-6)
    np.testing.assert_allclose(frame["deviation"], [1.0, math.nan, 0.5, -0.5], atol=1e-6)
    assert frame.attrs["units"] == {"energy": "eV/atom", "gap": "eV"}


def test_scores_agree_with_the_predictions(model: CrystalFramer) -> None:
    labels = [0.1, -0.3, 0.2, -2.0, 1.0]
    result = cf.evaluate(model, labelled(labels))
    mae = np.abs(expected(*STRUCTURES)[:, 0] - labels).mean()
    assert result.scores["energy"].mae == pytest.approx(mae, abs=1e-5)


def test_a_target_without_labels_has_no_score() -> None:
    gap = cf.evaluate(constant_model(1.0, 1.5), labelled([0.0, 1.0])).scores["gap"]
    assert gap.n_crystals == 0 and math.isnan(gap.mae) and math.isnan(gap.baseline_mae)


def test_a_crystal_without_a_prediction_is_counted_and_left_out(model: CrystalFramer) -> None:
    with torch.no_grad():
        model.embedding.weight[CAESIUM - 1] = float("nan")
    result = cf.evaluate(model, labelled([0.0] * 5))
    assert (result.n_crystals, result.n_failed, result.scores["energy"].n_crystals) == (5, 2, 3)
    assert math.isfinite(result.scores["energy"].mae)
    assert "2 of them without a prediction" in repr(result)


def test_the_summary_names_target_unit_and_comparison() -> None:
    text = repr(cf.evaluate(constant_model(1.0, 1.5), labelled([0.0, 2.0, math.nan, -1.0, 3.0], [1.0] * 5)))
    assert "5 crystals" in text and "energy (eV/atom)" in text and "gap (eV)" in text
    (line,) = [line for line in text.splitlines() if line.startswith("energy")]
    assert line.split()[2:6] == ["4", "1.5", "1.581", "0.000"]
    assert line.endswith("2 (the model: 75% of it)")


def test_labels_that_all_lie_to_one_side_are_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crystalframer.prediction.ENOUGH_FOR_BIAS", 5)
    result = cf.evaluate(constant_model(1.0, 1.5), labelled([2.0, 2.5, 1.5, 2.0, 2.0], [1.0, 2.0, 1.0, 2.0, 1.5]))
    assert result.scores["energy"].bias == pytest.approx(-1.0) and result.scores["gap"].bias == pytest.approx(0.0)
    assert "predictions of energy lie 1 eV/atom below the labels on average" in repr(result)
    assert "predictions of gap" not in repr(result)


def test_a_part_of_the_given_split() -> None:
    parts = ["train", "test", "train", "test", "validation"]
    data = labelled([0.0, 1.0, 2.0, 3.0, 4.0], parts=parts)
    result = cf.evaluate(constant_model(1.0, 1.5), data, part="test")
    assert result.crystals["id"].unique().tolist() == ["CsCl", "CsI"]
    assert result.scores["energy"].mae == pytest.approx(1.0)
    whole = cf.evaluate(constant_model(1.0, 1.5), data)
    assert whole.n_crystals == 5 and "note: 2 of the crystals are the train part of the data set" in whole.summary()
    assert "note" not in result.summary()


@pytest.mark.parametrize(
    ("parts", "reason"), [(None, "has no split of its own"), (["train"] * 5, "the test part of the data set is empty")]
)
def test_a_part_that_is_not_there(parts: list[str] | None, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        cf.evaluate(constant_model(1.0, 1.5), labelled([0.0] * 5, parts=parts), part="test")


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ((Target("energy", "eV/atom"), Target("gaps", "eV")), "'gap'.*did you mean 'gaps'"),
        ((Target("energy", "kJ/mol"), Target("gap", "eV")), "kJ/mol"),
    ],
)
def test_data_for_other_targets_are_refused(
    targets: tuple[Target, ...], reason: str, from_file: bool, model: CrystalFramer, tmp_path: Path
) -> None:
    data = CrystalDataset.from_crystals(CRYSTALS, targets)
    data.save(tmp_path / "data.parquet")
    with pytest.raises(DataError, match=reason):
        cf.evaluate(model, tmp_path / "data.parquet" if from_file else data)


def test_data_and_model_may_be_paths(model: CrystalFramer, tmp_path: Path) -> None:
    data = labelled([0.0, 1.0, 2.0])
    data.save(tmp_path / "data.parquet")
    cf.save(model, tmp_path / "model")
    result = cf.evaluate(tmp_path / "model", tmp_path / "data.parquet")
    pandas.testing.assert_frame_equal(result.crystals, cf.evaluate(model, data).crystals)


# Traces and tables


def test_a_trace_predicts_what_predict_does(folder: Path, model: CrystalFramer) -> None:
    record = cf.trace(folder / "MgO.cif", model)
    assert isinstance(record, cf.CrystalTrace)
    assert record.id == "MgO" and record.n_layers == CONFIG.n_layers and record.units["gap"] == "eV"
    frame = cf.predict(folder / "MgO.cif", model)
    np.testing.assert_allclose(list(record.prediction.values()), values(frame)[0], atol=1e-5)


def test_a_structure_that_cannot_be_traced_is_named(tmp_path: Path, model: CrystalFramer) -> None:
    with pytest.raises(CrystalError, match=r"missing\.cif: no such file"):
        cf.trace(tmp_path / "missing.cif", model)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_tables_come_back_as_they_were(suffix: str, tmp_path: Path, model: CrystalFramer) -> None:
    frame = cf.predict([*CRYSTALS, tmp_path / "missing.cif"], model)
    path = tmp_path / "new folder" / f"table{suffix}"
    prediction.save_table(frame, path)
    read = {
        ".csv": pandas.read_csv,
        ".jsonl": lambda file: pandas.read_json(file, lines=True),
        ".parquet": pandas.read_parquet,
    }[suffix](path)
    assert list(read.columns) == list(frame.columns)
    assert read["id"].tolist() == frame["id"].tolist()
    assert read["error"].isna().tolist() == [True] * 5 + [False]
    np.testing.assert_allclose(values(read), values(frame), rtol=1e-12)


def test_a_disk_that_is_full_costs_no_table(
    tmp_path: Path, model: CrystalFramer, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = cf.predict(CRYSTALS[:2], model)
    prediction.save_table(frame, tmp_path / "table.csv")
    before = (tmp_path / "table.csv").read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(DataError, match=r"table\.csv: cannot be written \(No space left on device\); free some space"):
        prediction.save_table(frame.head(1), tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_an_unknown_form_of_table_is_refused(tmp_path: Path, model: CrystalFramer) -> None:
    with refused(DataError, ".csv, .jsonl, .parquet", path="table.xlsx"):
        prediction.save_table(cf.predict(CRYSTALS, model), tmp_path / "table.xlsx")


# What a prediction says beside a number


@pytest.fixture(scope="module")
def aware() -> CrystalFramer:
    """Trained on and calibrated with rock salts near those of the other tests, by labels off by about 1."""
    rng = np.random.default_rng(0)
    crystals = []
    for n in range(12):
        for cation, anion, a in (("Na", "Cl", 5.64), ("Mg", "O", 4.21), ("Li", "F", 4.03)):
            crystal = to_crystal(rock_salt(cation, anion, a * (1.0 + 0.01 * rng.uniform(-1, 1))), f"{cation}-{n}")
            crystals.append(crystal.with_targets({"energy": rng.normal() - 1.0, "gap": rng.normal() + 2.0}))
    model = copy.deepcopy(trained())
    model.domain = Domain.of(prepare(crystals, CONFIG.radius))
    model.uncertainty = prediction.calibrate(model, CrystalDataset.from_crystals(crystals, CONFIG.targets))
    return model


def test_intervals_and_a_flag(aware: CrystalFramer) -> None:
    squeezed = replace(CRYSTALS[0], positions=0.8 * CRYSTALS[0].positions, lattice=0.8 * CRYSTALS[0].lattice)
    frame = cf.predict([*CRYSTALS, squeezed, "no such file.cif"], aware)
    columns = ["energy", "energy_low", "energy_high", "gap", "gap_low", "gap_high"]
    assert list(frame.columns) == ["id", "formula", *columns, "outside_training", "error"]
    good = frame.iloc[:-1]
    np.testing.assert_allclose(values(good)[:5], expected(*STRUCTURES), rtol=1e-5)
    for target in ("energy", "gap"):
        np.testing.assert_allclose(good[f"{target}_low"] + good[f"{target}_high"], 2 * good[target])
        assert (good[f"{target}_high"].to_numpy() - good[f"{target}_low"].to_numpy()).min() > 0.5
    flags = frame["outside_training"].tolist()
    assert [flag is None for flag in flags] == [True, False, True, False, True, False, True]
    assert flags[1] == "element Cs was not in the training data" and flags[5].startswith("volume per atom")
    assert frame[columns].iloc[-1].isna().all() and "no such file" in frame["error"].tolist()[-1]


def test_scores_say_how_many_labels_lie_in_their_intervals(aware: CrystalFramer) -> None:
    table = cf.predict(CRYSTALS, aware)
    low, high = table["energy_low"].to_numpy(), table["energy_high"].to_numpy()
    labels = [low[0], high[1] + 0.1, 0.5 * (low[2] + high[2]), low[3] - 0.1, math.nan]
    result = cf.evaluate(aware, labelled(labels))
    assert result.scores["energy"].covered == pytest.approx(2 / 4) and math.isnan(result.scores["gap"].covered)
    assert "labels within their intervals (90% asked for): 50.0% of energy" in repr(result)
    energies = result.crystals[result.crystals["target"] == "energy"]
    np.testing.assert_allclose(energies[["low", "high"]], np.stack([low, high], axis=1), rtol=1e-6)
    assert math.isnan(cf.evaluate(constant_model(1.0, 1.5), labelled(labels)).scores["energy"].covered)


def test_a_model_that_knows_nothing_of_itself_says_nothing(model: CrystalFramer, aware: CrystalFramer) -> None:
    assert list(cf.predict(CRYSTALS[:1], model).columns) == ["id", "formula", "energy", "gap", "error"]
    model.domain = aware.domain
    assert list(cf.predict(CRYSTALS[:1], model).columns)[-2:] == ["outside_training", "error"]


def test_calibrating_needs_labels(model: CrystalFramer) -> None:
    few = [crystal.with_targets({"energy": 0.0, "gap": 1.0}) for crystal in CRYSTALS]
    with pytest.raises(UncertaintyError, match="'energy' has 5 labelled crystals to calibrate on"):
        prediction.calibrate(model, CrystalDataset.from_crystals(few, CONFIG.targets))
    with pytest.raises(DataError, match="gap"):
        prediction.calibrate(model, CrystalDataset.from_crystals(few, CONFIG.targets[:1]))


def test_a_calibrated_model_stays_so_on_disk(aware: CrystalFramer, tmp_path: Path) -> None:
    cf.save(aware, tmp_path / "aware")
    pandas.testing.assert_frame_equal(
        cf.predict(CRYSTALS, tmp_path / "aware", device="cpu"), cf.predict(CRYSTALS, aware)
    )
