"""The explorer of a data set: what it takes, what it refuses, and what it says to the browser."""

from __future__ import annotations

import sys
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from refusals import refused
from synthetic_traces import synthetic_trace

import crystalframer as cf
import viz
from crystalframer.testing import prototypes, random_crystal
from viz.dataset_explorer import FILTERS
from viz.embedding_maps import SEED, flat_maps
from viz.errors import FigureError, SceneError
from viz.point_tables import point_table

CRYSTALS = [random_crystal(seed, n_atoms=2 + seed % 3) for seed in range(6)]
IDS = [crystal.id for crystal in CRYSTALS]


def table(**columns: Any) -> pd.DataFrame:
    label = np.linspace(-2.0, 3.0, len(IDS))
    values = {"id": IDS, "label": label, "prediction": label + np.array([0.1, -0.2, 0.05, 0.9, 0.0, -0.3])}
    return pd.DataFrame(values | columns)


def explorer(**options: Any) -> viz.DatasetExplorer:
    return viz.DatasetExplorer(table(), CRYSTALS, **options)


def asked(widget: viz.DatasetExplorer, kind: str, point: int) -> tuple[dict[str, Any], list[bytes]]:
    """What the widget answers to a question of the browser."""
    answers: list[Any] = []
    widget.send = lambda content, buffers=(): answers.append((content, list(buffers)))  # type: ignore[method-assign]
    widget._answer(None, {"kind": kind, "point": point, "question": 7}, [])
    assert len(answers) == 1 and answers[0][0]["question"] == 7
    return answers[0]


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_of_labels_and_predictions_shows_them_against_each_other_coloured_by_error() -> None:
    shown = explorer()
    assert (shown.x, shown.y, shown.color) == ("label", "prediction", "absolute error")
    assert shown.frame["absolute error"].round(6).tolist() == [0.1, 0.2, 0.05, 0.9, 0.0, 0.3]
    assert shown.frame["n_atoms"].tolist() == [len(crystal) for crystal in CRYSTALS]
    assert shown.frame["formula"].tolist() == [crystal.formula for crystal in CRYSTALS]
    assert shown.frame["space_group"].between(1, 230).all()


def test_the_first_crystal_is_the_largest_error_or_the_first_row_with_a_structure() -> None:
    assert explorer().chosen == IDS[3]
    assert explorer(chosen=IDS[1]).chosen == IDS[1]
    assert viz.DatasetExplorer(table(), [*CRYSTALS[:3], *CRYSTALS[4:]]).chosen == IDS[5]
    plain = table()[["id", "label"]]
    assert viz.DatasetExplorer(plain, CRYSTALS).chosen == IDS[0]
    assert viz.DatasetExplorer(plain, CRYSTALS[2:]).chosen == IDS[2]
    assert viz.DatasetExplorer(plain).chosen == IDS[0]


def test_an_evaluation_of_several_targets_is_one_row_for_each_crystal() -> None:
    data = cf.dataset("demo").select(range(8))
    evaluation = cf.evaluate(data, progress=False)
    shown = viz.DatasetExplorer(evaluation, data)
    assert shown.frame["id"].tolist() == data.ids.tolist()
    rows = evaluation.crystals.query("target == 'band_gap'")
    assert shown.frame["label of band_gap"].to_numpy() == pytest.approx(rows["label"].to_numpy())
    error = shown.frame["absolute error of band_gap"].to_numpy()
    assert error == pytest.approx(rows["deviation"].abs().to_numpy())
    assert shown.points.units["label of band_gap"] == "eV"
    assert "band gap: prediction against label" in [view.name for view in shown.points.views]
    outside = (rows["label"] < rows["low"]) | (rows["label"] > rows["high"])
    assert (shown.points.flags or {})["label outside the interval (band gap)"].tolist() == outside.tolist()


def test_targets_with_labels_of_different_crystals_share_a_row_by_id() -> None:
    first = pd.DataFrame({"id": ["a", "b"], "target": "gap", "label": [1.0, 2.0], "prediction": [1.1, 2.1]})
    second = pd.DataFrame({"id": ["b", "c"], "target": "hull", "label": [0.1, 0.2], "prediction": [0.2, 0.4]})
    shown = viz.DatasetExplorer(pd.concat([first, second], ignore_index=True)).frame
    assert shown["id"].tolist() == ["a", "b", "c"]
    assert shown["label of gap"].fillna(-1).tolist() == [1.0, 2.0, -1.0]
    assert shown["label of hull"].fillna(-1).tolist() == [-1.0, 0.1, 0.2]
    with refused(FigureError, "b", field="table"):
        viz.DatasetExplorer(pd.concat([first, first.iloc[1:]], ignore_index=True))


def test_the_folder_of_a_screening_is_shown_with_its_units(tmp_path: Path) -> None:
    crystals = prototypes()[:5]
    cf.screen(crystals, tmp_path / "screened", shard_size=2, progress=False)
    shown = viz.DatasetExplorer(tmp_path / "screened", crystals)
    expected = cf.read_screen(tmp_path / "screened")
    assert shown.frame["id"].tolist() == expected["id"].tolist()
    assert shown.frame["band_gap"].to_numpy() == pytest.approx(expected["band_gap"].to_numpy())
    assert (shown.x, shown.y) == ("formation_energy_per_atom", "band_gap")  # not the number of the row
    assert shown.points.units["band_gap"] == shown.points.units["band_gap interval width"] == "eV"


def test_embeddings_become_a_map_with_neighbours() -> None:
    features = np.random.default_rng(0).normal(size=(6, 5))
    shown = viz.DatasetExplorer(features, CRYSTALS)
    assert shown.frame["id"].tolist() == IDS
    assert (shown.x, shown.y) == ("PCA 1", "PCA 2")
    centred = features - features.mean(axis=0)
    spread = np.linalg.svd(centred)[1][:2] ** 2
    assert (shown.frame[["PCA 1", "PCA 2"]].to_numpy() ** 2).sum(axis=0) == pytest.approx(spread)
    assert shown.neighbors is not None
    distances = np.linalg.norm(features[0] - features, axis=1)
    assert shown.neighbors.nearest[0].tolist() == np.argsort(distances)[1:6].tolist()


def test_neighbours_are_training_crystals_where_the_table_names_them() -> None:
    features = np.random.default_rng(0).normal(size=(6, 5))
    parts = ["train", "train", "train", "train", "test", "test"]
    near = viz.DatasetExplorer(table(part=parts), CRYSTALS, embedding=features).neighbors
    assert near is None or not near.are_trained  # too few training crystals for five neighbours
    many = np.random.default_rng(1).normal(size=(60, 4))
    rows = pd.DataFrame({"id": [f"c{n}" for n in range(60)], "y": many[:, 0], "part": ["train", "test"] * 30})
    near = viz.DatasetExplorer(rows, embedding=many).neighbors
    assert near is not None and near.are_trained
    assert (near.nearest % 2 == 0).all()
    assert not (near.nearest == np.arange(60)[:, None]).any()


def test_predictions_are_flagged_as_their_table_says(tmp_path: Path) -> None:
    broken = tmp_path / "broken.cif"
    broken.write_text("data_nothing\n", encoding="utf-8")
    predicted = cf.predict([prototypes()[4], random_crystal(3, n_atoms=3), broken], progress=False)
    flags = viz.DatasetExplorer(predicted).points.flags or {}
    assert flags["outside the training data"].tolist() == predicted["outside_training"].notna().tolist()
    assert flags["no prediction"].tolist() == [False, False, True]
    colours = viz.DatasetExplorer(predicted, color="flag").frame["flag"].tolist()
    assert [bool(words) for words in colours] == [any(raised[n] for raised in flags.values()) for n in range(3)]
    assert "outside the training data" in colours[1] and colours[2] == "no prediction"
    assert flags["outside the training data"][1] and not flags["outside the training data"][0]


def test_the_neighbours_of_the_model_are_listed_with_their_labels() -> None:
    crystals = prototypes()[:3]
    found = cf.nearest_training(crystals, n=2, progress=False)
    shown = viz.DatasetExplorer(cf.predict(crystals, progress=False), crystals, neighbors=found)
    assert shown.neighbors is not None
    names = [shown.neighbors.ids[number] for number in shown.neighbors.nearest[1]]
    assert names == found[found["id"] == crystals[1].id]["training_id"].tolist()
    assert "formation energy per atom" in shown.neighbors.details[0]


# --- what does not fit ------------------------------------------------------------------------------------------------


def test_structures_of_other_crystals_are_refused_with_ids_of_both() -> None:
    others = [random_crystal(seed, n_atoms=2) for seed in range(50, 53)]
    with refused(FigureError, others[0].id, IDS[0], field="structures"):
        viz.DatasetExplorer(table(), others)


def test_points_without_a_structure_are_shown_and_named() -> None:
    shown = viz.DatasetExplorer(table(), CRYSTALS[1:])
    assert (shown.points.flags or {})["no structure"].tolist() == [True] + [False] * 5
    assert any(IDS[0] in note for note in shown.points.notes)
    assert asked(shown, "crystal", 0)[0]["failure"]
    assert asked(shown, "crystal", 1)[0]["header"]["formula"]


def test_structures_without_a_row_are_named() -> None:
    extra = random_crystal(99, n_atoms=2)
    shown = viz.DatasetExplorer(table(), [*CRYSTALS, extra])
    assert any(extra.id in note for note in shown.points.notes)


def test_structures_with_one_id_are_refused() -> None:
    with refused(FigureError, field="structures"):
        viz.DatasetExplorer(table(), [*CRYSTALS, CRYSTALS[0]])


def test_structures_without_ids_must_be_as_many_as_the_rows() -> None:
    from pymatgen.core import Lattice, Structure

    salt = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3])
    assert viz.DatasetExplorer(table(), [salt] * 6).frame["formula"].tolist() == ["CsCl"] * 6
    with refused(FigureError, field="structures"):
        viz.DatasetExplorer(table(), [salt] * 5)


@pytest.mark.parametrize("source", [pd.DataFrame({"id": []}), 3, np.zeros(4), pd.DataFrame({"id": ["a"]})])
def test_what_is_no_table_of_crystals_is_refused(source: Any) -> None:
    with pytest.raises(FigureError):
        viz.DatasetExplorer(source)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with refused(FigureError, field="table"):
        viz.DatasetExplorer(tmp_path)


def test_umap_makes_another_map_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in with the interface of umap-learn."""

    class UMAP:
        def __init__(self, n_neighbors: int, random_state: int, n_jobs: int) -> None:
            assert (n_neighbors, random_state, n_jobs) == (4, SEED, 1)

        def fit_transform(self, features: np.ndarray) -> np.ndarray:
            return features[:, :2] + 100.0

    module = ModuleType("umap")
    module.UMAP = UMAP  # type: ignore[attr-defined]
    module.__spec__ = ModuleSpec("umap", None)
    monkeypatch.setitem(sys.modules, "umap", module)
    features = np.random.default_rng(0).normal(size=(6, 3))
    features[2] = np.nan
    maps = flat_maps(features)
    assert list(maps) == ["PCA 1", "PCA 2", "UMAP 1", "UMAP 2"]
    centred = features - np.nanmean(features, axis=0)
    np.testing.assert_allclose(maps["UMAP 1"], centred[:, 0] + 100.0)
    monkeypatch.setattr("viz.embedding_maps.MOST_FLATTENED", 4)
    assert list(flat_maps(features)) == ["PCA 1", "PCA 2"]


def test_umap_itself_makes_a_map_in_silence() -> None:
    pytest.importorskip("umap", reason="no umap-learn")
    features = np.random.default_rng(0).normal(size=(40, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        first, second = flat_maps(features), flat_maps(features)
    assert np.isfinite(first["UMAP 1"]).all()
    assert first["UMAP 2"].tolist() == second["UMAP 2"].tolist()


def test_an_embedding_of_other_crystals_is_refused() -> None:
    features = pd.DataFrame(np.eye(4), columns=[f"mean_{n}" for n in range(4)]).assign(id=list("abcd"))
    with refused(FigureError, field="embedding"):
        viz.DatasetExplorer(table(), embedding=features)
    with refused(FigureError, field="embedding"):
        viz.DatasetExplorer(table(), embedding=np.eye(4))


def test_a_huge_table_is_sampled_and_says_so() -> None:
    huge = pd.DataFrame({"id": np.arange(3000).astype(str), "y": np.arange(3000.0)})
    points = point_table(huge, most=100)
    assert len(points) == 100 and points.n_rows == 3000
    assert points.frame["y"].tolist() == points.rows.tolist()
    assert any("100" in note and "3,000" in note for note in points.notes)


def test_columns_that_are_not_there_are_refused() -> None:
    with refused(SceneError, field="x"):
        explorer(x="labell")
    shown = explorer()
    with refused(SceneError, field="y"):
        shown.y = "id"
    with refused(SceneError, field="chosen"):
        shown.chosen = "nobody"
    with refused(SceneError, field="filters"):
        shown.filters = {"colour": 1}


# --- what can be set and read -----------------------------------------------------------------------------------------


def test_the_selection_is_read_and_set_by_rows() -> None:
    shown = explorer()
    assert shown.selection.empty
    shown.selection = shown.frame["absolute error"] > 0.15
    assert shown.selection["id"].tolist() == [IDS[1], IDS[3], IDS[5]]
    # A browser sends bytes in a view of a buffer.
    shown.set_state({"selected": memoryview(np.array([2, 4], dtype="<u4").tobytes())})
    assert shown.selection["id"].tolist() == [IDS[2], IDS[4]]
    shown.chosen = IDS[3]
    assert shown.point == 3
    shown.filters = {"elements": "O"}
    assert shown.filters == FILTERS | {"elements": "O"}


# --- crystals on demand -----------------------------------------------------------------------------------------------


def test_attention_is_computed_when_it_is_asked_for() -> None:
    calls: list[str] = []

    def trace(crystal: cf.Crystal) -> cf.CrystalTrace:
        calls.append(crystal.id)
        return synthetic_trace(crystal, n_layers=2, n_heads=2)

    shown = explorer(traces=trace)
    assert calls == []
    answer, data = asked(shown, "attention", 2)
    assert calls == [IDS[2]]
    assert answer["header"]["arrays"]["attention"]["shape"][:2] == [2, 2] and len(data[0]) > 100
    assert asked(shown, "explanation", 2)[0]["failure"]


def test_an_error_of_the_function_reaches_the_browser_in_words() -> None:
    def trace(crystal: cf.Crystal) -> cf.CrystalTrace:
        raise RuntimeError("the model is gone")

    assert "the model is gone" in asked(explorer(traces=trace), "attention", 0)[0]["failure"]
    assert "dict" in asked(explorer(traces=lambda crystal: {}), "attention", 0)[0]["failure"]


def test_a_page_holds_the_largest_errors_first() -> None:
    shown = explorer(traces={crystal.id: synthetic_trace(crystal, n_layers=1, n_heads=2) for crystal in CRYSTALS[:3]})
    assert list(shown._packed_points("attention", 10, False)) == [1, 0, 2]
    # After the crystal that is shown, those whose attention was given.
    assert list(shown._packed_points("crystal", 5, False)) == [3, 0, 1, 2, 5]
    plain = explorer(chosen=IDS[4])
    assert list(plain._packed_points("crystal", 3, False)) == [4, 3, 5]


def test_the_page_is_the_same_each_time_and_holds_no_address(tmp_path: Path) -> None:
    shown = explorer()
    page = shown.to_html(tmp_path / "page.html", progress=False)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page == shown.to_html(progress=False)
    assert "http" not in page.replace("http://www.w3.org", "").split("<script")[0]


def test_names_from_files_stay_text() -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    rows = pd.DataFrame({"id": [evil, "b"], "y": [1.0, 2.0], "kind": [evil, "x"]})
    assert "<img src" not in viz.DatasetExplorer(rows).to_html(progress=False)


@pytest.mark.parametrize("color", ["label", "formula", ""])
def test_a_saved_notebook_keeps_a_page_and_a_picture(color: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        data = explorer(color=color)._repr_mimebundle_()
    assert data is not None
    assert "iframe" in data[0]["text/html"] and data[0]["image/png"]
