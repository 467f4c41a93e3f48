"""Predictions: the model's own numbers, in order, whatever is wrong with some of the structures."""

from __future__ import annotations

import copy
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from refusals import refused
from salts import CAESIUM, CONFIG, CRYSTALS, STRUCTURES, aware, trained

import crystalframer as cf
from crystalframer import batched, checkpoint, ops
from crystalframer.analysis.batches import predictions
from crystalframer.crystals.batch import CrystalBatch
from crystalframer.crystals.crystal import Crystal
from crystalframer.crystals.loading import make_batch
from crystalframer.datasets.dataset import CrystalDataset
from crystalframer.errors import CheckpointError, ConfigError, CrystalError, DataError
from crystalframer.model.network import CrystalFramer
from crystalframer.testing import random_crystal


@pytest.fixture
def model() -> CrystalFramer:
    """A test's own copy, which it may change."""
    return copy.deepcopy(trained())


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


SORTED = {id: STRUCTURES[id] for id in sorted(STRUCTURES)}
DATASET = CrystalDataset.from_crystals(sorted(CRYSTALS, key=lambda crystal: crystal.id))


def packed(folder: Path) -> Path:
    DATASET.save(folder.parent / "packed.parquet")
    return folder.parent / "packed.parquet"


INPUTS: dict[str, Callable[[Path], Any]] = {
    "folder": lambda folder: folder,
    "glob": lambda folder: str(folder / "*.cif"),
    "list of paths": lambda folder: sorted(folder.glob("*.cif")),
    "list of structures": lambda folder: list(SORTED.values()),
    "generator": lambda folder: iter(SORTED.values()),
    "frame": lambda folder: pandas.DataFrame({"id": SORTED.keys(), "structure": SORTED.values()}),
    "series": lambda folder: pandas.Series(STRUCTURES).sort_index(),
    "series of paths": lambda folder: pandas.Series({id: folder / f"{id}.cif" for id in SORTED}),
    "dictionary": lambda folder: SORTED,
    "dictionary of paths": lambda folder: {id: str(folder / f"{id}.cif") for id in SORTED},
    "dictionary of rows": lambda folder: {id: {"structure": it, "note": 1} for id, it in SORTED.items()},
    "dataset": lambda folder: DATASET,
    "packed file": packed,
    "mixture": lambda folder: [
        folder / "CsCl.cif",
        [str(folder / "CsI.cif")],
        STRUCTURES["LiF"],
        *sorted(folder.glob("[MN]*.cif")),
    ],
}


@pytest.mark.parametrize("kind", INPUTS)
def test_every_kind_of_input_gives_the_same_predictions(kind: str, folder: Path, model: CrystalFramer) -> None:
    frame = cf.predict(INPUTS[kind](folder), model)
    assert frame["id"].tolist() == sorted(STRUCTURES)
    np.testing.assert_allclose(values(frame), expected(*sorted(STRUCTURES)), atol=1e-5)


INDEXES = {
    "shuffled": pandas.Index([3, 0, 4, 1, 2]),
    "filtered": pandas.Index([10, 11, 15, 16, 90], name="row"),
    "twice": pandas.Index([1, 1, 2, 2, 2]),
    "names twice": pandas.Index(list("aabbc")),
    "several levels": pandas.MultiIndex.from_product([["a", "b", "c"], [1, 2]])[:5],
    "times": pandas.date_range("2026-01-01", periods=5),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_predictions_stay_with_their_rows(index: pandas.Index, model: CrystalFramer) -> None:
    frame = pandas.DataFrame({"structure": list(STRUCTURES.values())}, index)
    for structures in (frame, frame["structure"]):
        predicted = cf.predict(structures, model)
        pandas.testing.assert_index_equal(predicted.index, index)
        np.testing.assert_allclose(values(predicted), expected(*STRUCTURES), atol=1e-5)
        assert predicted["id"].is_unique
    if index.is_unique:
        frame["energy"] = cf.predict(frame.iloc[::-1], model)["energy"]
        np.testing.assert_allclose(frame["energy"], expected(*STRUCTURES)[:, 0], atol=1e-5)


def test_names_of_rows_are_an_index_or_ids(model: CrystalFramer) -> None:
    names = [f"mp-{n}" for n in range(5)]
    frame = pandas.DataFrame({"structure": list(STRUCTURES.values())}, names)
    predicted = cf.predict(frame, model)
    assert predicted.index.tolist() == predicted["id"].tolist() == names
    predicted = cf.predict(frame["structure"], model)
    assert predicted["id"].tolist() == names and predicted.index.tolist() == list(range(5))


def test_a_row_that_fails_and_a_file_of_several_structures_keep_their_index(
    folder: Path, tmp_path: Path, model: CrystalFramer
) -> None:
    two = tmp_path / "two.cif"
    two.write_text((folder / "NaCl.cif").read_text() + (folder / "CsCl.cif").read_text().replace("data_", "data_b"))
    series = pandas.Series([two, tmp_path / "none.cif", None, str(folder / "MgO.cif")], [7, 5, 6, 4])
    predicted = cf.predict(series, model)
    assert predicted.index.tolist() == [7, 7, 5, 6, 4]
    assert predicted["id"].tolist() == ["7-1", "7-2", "5", "6", "4"]
    assert predicted["formula"].tolist() == ["NaCl", "CsCl", "", "", "MgO"]
    assert predicted["error"].isna().tolist() == [True, True, False, False, True]


def test_two_columns_of_one_name_are_refused(model: CrystalFramer) -> None:
    frame = pandas.DataFrame([[CRYSTALS[0], 1.0, 2.0]], columns=["structure", "gap", "gap"])
    with refused(DataError, "2 columns called 'gap'", field="gap"):
        cf.predict(frame, model)


def test_a_single_structure_is_one_row(folder: Path, model: CrystalFramer) -> None:
    for single in (STRUCTURES["NaCl"], folder / "NaCl.cif", (folder / "NaCl.cif").read_text(), CRYSTALS[0]):
        frame = cf.predict(single, model)
        np.testing.assert_allclose(values(frame), expected("NaCl"), atol=1e-5)


def test_no_structures_are_no_rows(model: CrystalFramer) -> None:
    for empty in ([], {}, pandas.Series([], dtype=object), pandas.DataFrame({"structure": []})):
        frame = cf.predict(empty, model)
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


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("batch_size", 0, "at least 1"), ("max_atoms", -1, "at least 1"), ("device", "gpu7", "gpu7")],
)
def test_a_setting_that_cannot_be_used_is_named(field: str, value: Any, words: str, model: CrystalFramer) -> None:
    with refused(ConfigError, words, field=field):
        cf.predict(CRYSTALS, model, **{field: value})


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
    with ops.use("cpu"), refused(ConfigError, "computes float32", field="implementation"):
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


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each progress bar is told."""
    seen: list[dict[str, Any]] = []

    def bar(rows: Any, title: str, total: int | None, **options: Any) -> Any:
        seen.append({"total": total, **options})
        return rows

    monkeypatch.setattr(batched, "tqdm", bar)
    return seen


@pytest.mark.parametrize("kind", INPUTS)
def test_the_progress_bar_knows_the_end_where_it_can(
    kind: str, folder: Path, model: CrystalFramer, bars: list[dict[str, Any]]
) -> None:
    cf.predict(INPUTS[kind](folder), model)
    (bar,) = bars
    assert (bar["total"], bar["delay"], bar["disable"]) == (None if kind == "generator" else 5, 2, False)


def test_a_truncated_parquet_file_is_an_error_in_its_row(tmp_path: Path, model: CrystalFramer) -> None:
    path = tmp_path / "half.parquet"
    CrystalDataset.from_crystals(CRYSTALS).save(path)
    path.write_bytes(path.read_bytes()[:200])
    frame = cf.predict([path, STRUCTURES["NaCl"]], model)
    assert "half.parquet" in frame["error"][0] and frame["error"][1] is None


@pytest.mark.usefixtures("as_in_production")
def test_arguments_in_the_wrong_order_are_named(model: CrystalFramer) -> None:
    with pytest.raises(TypeError, match=r"predict\(structures, model\)"):
        cf.predict(model)
    with pytest.raises(TypeError, match="of type Structure"):
        cf.trace(model, STRUCTURES["NaCl"])  # type: ignore[arg-type]


@pytest.mark.usefixtures("as_in_production")
def test_a_file_in_the_place_of_the_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "CsCl.cif").write_text("data_")
    for function in (cf.predict, cf.trace):
        with refused(CheckpointError, "predict(structures, model)", path="CsCl.cif"):
            function(tmp_path / "no-run", tmp_path / "CsCl.cif")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_bar_is_wiped_off_a_terminal_and_ends_its_line_elsewhere(
    is_terminal: bool, model: CrystalFramer, bars: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    cf.predict(CRYSTALS, model)
    assert [bar["leave"] for bar in bars] == [not is_terminal]


# Models


@pytest.mark.parametrize("kind", [trained, aware])
def test_a_saved_model_predicts_the_same_from_its_path(kind: Callable[[], CrystalFramer], tmp_path: Path) -> None:
    cf.save(kind(), tmp_path / "model")
    from_path = cf.predict(CRYSTALS, tmp_path / "model", device="cpu")
    pandas.testing.assert_frame_equal(from_path, cf.predict(CRYSTALS, kind()))


def test_the_default_is_the_checkpoint_of_the_package(
    tmp_path: Path, model: CrystalFramer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path / "pretrained")
    with refused(CheckpointError, "no trained weights"):
        cf.predict(CRYSTALS)
    cf.save(model, tmp_path / "pretrained")
    assert cf.load().config == CONFIG
    np.testing.assert_allclose(values(cf.predict(CRYSTALS)), expected(*STRUCTURES), atol=1e-5)


@pytest.mark.gpu
def test_the_gpu_predicts_the_same_and_the_callers_model_stays(model: CrystalFramer) -> None:
    np.testing.assert_allclose(values(cf.predict(CRYSTALS, model, device="cuda")), expected(*STRUCTURES), atol=1e-4)
    assert model.target_mean.device.type == "cpu"


# Traces


def test_a_trace_predicts_what_predict_does(folder: Path, model: CrystalFramer) -> None:
    record = cf.trace(folder / "MgO.cif", model)
    assert isinstance(record, cf.CrystalTrace)
    assert record.id == "MgO" and record.n_layers == CONFIG.n_layers and record.units["gap"] == "eV"
    frame = cf.predict(folder / "MgO.cif", model)
    np.testing.assert_allclose(list(record.prediction.values()), values(frame)[0], atol=1e-5)


def test_a_structure_that_cannot_be_traced_is_named(tmp_path: Path, model: CrystalFramer) -> None:
    with refused(CrystalError, "missing.cif", "no such file"):
        cf.trace(tmp_path / "missing.cif", model)


# What a prediction says beside a number


def test_intervals_and_a_flag() -> None:
    squeezed = replace(CRYSTALS[0], positions=0.8 * CRYSTALS[0].positions, lattice=0.8 * CRYSTALS[0].lattice)
    frame = cf.predict([*CRYSTALS, squeezed, "no such file.cif"], aware())
    columns = ["energy", "energy_low", "energy_high", "gap", "gap_low", "gap_high"]
    assert list(frame.columns) == ["id", "formula", *columns, "outside_training", "error"]
    good = frame.iloc[:-1]
    np.testing.assert_allclose(values(good)[:5], expected(*STRUCTURES), rtol=1e-5)
    for target in ("energy", "gap"):
        below, above = good[target] - good[f"{target}_low"], good[f"{target}_high"] - good[target]
        assert min(below.min(), above.min()) > 0.0 and (below + above).min() > 0.5
    flags = frame["outside_training"].tolist()
    assert [flag is None for flag in flags] == [True, False, True, False, True, False, True]
    assert flags[1] == "element Cs was not in the training data" and flags[5].startswith("volume per atom")
    assert frame[columns].iloc[-1].isna().all() and "no such file" in frame["error"].tolist()[-1]


def test_a_model_without_domain_and_intervals_has_no_columns_for_them(model: CrystalFramer) -> None:
    assert list(cf.predict(CRYSTALS[:1], model).columns) == ["id", "formula", "energy", "gap", "error"]
    model.domain = aware().domain
    assert list(cf.predict(CRYSTALS[:1], model).columns)[-2:] == ["outside_training", "error"]


def test_an_iterator_that_raises_loses_no_row(model: CrystalFramer) -> None:
    """Its error says how many there are, and where."""
    crystals = [random_crystal(seed, 1 + seed % 4) for seed in range(70)]

    def stream() -> Iterator[Crystal]:
        yield from crystals
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        cf.predict(stream(), model, progress=False)
    (note,) = caught.value.__notes__
    assert "70 structures were predicted before" in note
    file = Path(re.search(r"their rows are in (.*)$", note)[1])  # type: ignore[index]
    kept = pandas.read_csv(file)
    shutil.rmtree(file.parent)
    expected = cf.predict(crystals, model, progress=False)
    name = model.config.target_names[0]
    np.testing.assert_allclose(kept[name], expected[name], rtol=1e-6)
    assert kept["id"].tolist() == expected["id"].tolist()


def test_an_iterator_that_raises_at_once_leaves_no_file(model: CrystalFramer) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        cf.predict((1 // n for n in [0]), model)
    assert not hasattr(caught.value, "__notes__")


def test_no_gap_is_below_0_and_no_prediction_outside_its_interval() -> None:
    """The network gives metals values around 0; what is reported is cut where no label can be."""
    data = cf.dataset("demo").select(range(0, 502, 5))
    model = cf.load()
    table = cf.predict(data, model, progress=False)
    column = [output.name for output in model.config.outputs].index("band_gap")
    raw = predictions(list(data), model, progress=False)[:, column]
    assert (raw < 0.0).any()
    assert table["band_gap"].to_numpy() == pytest.approx(np.maximum(raw, 0.0), abs=1e-5)
    for name in model.config.scalar_names:
        low, value, high = (table[f"{name}{end}"].to_numpy() for end in ("_low", "", "_high"))
        assert (((low <= value) & (value <= high)) | np.isnan(low)).all()  # NaN: no similar crystal has a label
    lowest = int(raw.argmin())
    assert cf.trace(data[lowest], model).prediction["band_gap"] == 0.0


def test_a_slab_and_a_molecule_in_vacuum_have_a_flag() -> None:
    from ase.build import fcc111, molecule

    slab = fcc111("Pt", (1, 1, 5), vacuum=8.0)
    slab.pbc = True
    water = molecule("H2O")
    water.set_cell([9.0, 9.0, 9.0])
    water.pbc = True
    said = cf.predict([slab, water], progress=False)["outside_training"].tolist()
    assert "layers" in str(said[0]) and "molecules" in str(said[1])
