"""Plotly figures carry the numbers they are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from viz import (
    Scene,
    attention_by_distance,
    attention_distance_figure,
    attention_figure,
    attention_heatmap,
    attention_matrix,
    learning_curve,
    parity_figure,
)


@pytest.mark.parametrize("head", [2, None])
def test_heatmap(scene: Scene, head: int | None) -> None:
    figure: Any = attention_heatmap(scene, 1, head)
    (trace,) = figure.data
    np.testing.assert_allclose(trace.z, attention_matrix(scene, 1, head))
    assert list(trace.x) == list(trace.y) == list(scene.labels)
    assert trace.zmin == 0.0 and trace.zmax == pytest.approx(attention_matrix(scene, 1, head).max())
    assert trace.colorscale[0][1].lower() == "#00224e"  # Cividis starts dark blue
    assert figure.layout.yaxis.autorange == "reversed"
    assert ("mean of all heads" if head is None else "head 2") in figure.layout.title.text


@pytest.mark.parametrize("atom", [0, None])
def test_attention_against_distance(scene: Scene, atom: int | None) -> None:
    figure: Any = attention_distance_figure(scene, 0, 1, atom)
    shells, within = figure.data
    profile = attention_by_distance(scene, 0, 1, atom)
    np.testing.assert_allclose(shells.x, profile.distance)
    np.testing.assert_allclose(shells.y, profile.attention)
    np.testing.assert_allclose(within.y, profile.cumulative)
    assert figure.layout.xaxis.title.text == "distance (Å)"


def test_attention_figure_joins_both_and_frames_the_row(scene: Scene) -> None:
    figure: Any = attention_figure(scene, 0, 1, 3)
    heatmap, shells, within = figure.data
    np.testing.assert_allclose(heatmap.z, attention_matrix(scene, 0, 1))
    np.testing.assert_allclose(shells.y, attention_by_distance(scene, 0, 1, 3).attention)
    assert (heatmap.xaxis, shells.xaxis, within.yaxis) == ("x", "x2", "y2")
    (frame,) = figure.layout.shapes
    assert (frame.y0, frame.y1, frame.x1) == (2.5, 3.5, scene.n_atoms - 0.5)
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis2.domain[1]


def test_parity_leaves_unlabelled_crystals_out() -> None:
    predicted, actual = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.5, np.nan, 2.0, 4.0])
    figure: Any = parity_figure(predicted, actual, label="gap (eV)", ids=["a", "b", "c", "d"], baseline=1.25)
    diagonal, points = figure.data
    assert list(points.x) == [1.5, 2.0, 4.0] and list(points.y) == [1.0, 3.0, 4.0]
    assert list(points.text) == ["a", "c", "d"]
    assert figure.layout.title.text == "MAE 0.5, predicting the training mean 1.25"
    assert figure.layout.xaxis.title.text == "actual gap (eV)"
    assert list(diagonal.x) == list(diagonal.y) and diagonal.x[0] < 1.0 and diagonal.x[1] > 4.0


@pytest.mark.parametrize(
    ("predicted", "actual", "ids", "message"),
    [
        ([1.0, 2.0], [1.0], [], "2 predictions, 1 labels and 0 ids"),
        ([1.0], [1.0], ["a", "b"], "1 labels and 2 ids"),
        ([1.0], [np.nan], [], "no crystal has both"),
    ],
)
def test_parity_of_nothing_is_refused(predicted: list, actual: list, ids: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parity_figure(np.array(predicted), np.array(actual), label="gap (eV)", ids=ids)


@pytest.fixture
def history() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "train_mae/gap": [1.0, 0.5, 0.25],
            "validation_mae/gap": [1.2, 0.6, 0.4],
            "swa_validation_mae/gap": [np.nan, np.nan, 0.3],
            "validation_mae/hull": [9.0, 9.0, 9.0],
        }
    )


def test_learning_curve(history: pd.DataFrame) -> None:
    figure: Any = learning_curve(history, "gap", unit="eV", baseline=2.0)
    train, validation, averaged, baseline = figure.data
    assert [t.name for t in figure.data[:3]] == ["train", "validation", "swa validation"]
    assert list(train.y) == [1.0, 0.5, 0.25] and list(validation.x) == [1, 2, 3]
    assert list(averaged.x) == [3] and list(averaged.y) == [0.3]
    assert list(baseline.y) == [2.0, 2.0] and list(baseline.x) == [1, 3]
    assert figure.layout.yaxis.type == "log" and figure.layout.yaxis.title.text == "MAE (eV)"


@pytest.mark.parametrize("target", ["gaps", "mae/gap"])
def test_a_history_without_the_target_is_refused(history: pd.DataFrame, target: str) -> None:
    with pytest.raises(ValueError, match="it has \\['epoch', 'train_mae/gap'"):
        learning_curve(history, target)


def test_pages_need_no_network(scene: Scene) -> None:
    page = attention_figure(scene, 0, 0, 0).to_html(include_plotlyjs=True)
    assert "<script src=" not in page and 'charset="utf-8" src=' not in page
