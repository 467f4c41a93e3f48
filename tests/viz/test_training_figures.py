"""Figures of training show the numbers that they are given, and refuse data that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from viz import TrainingMonitor, learning_curve, parity_figure


def test_parity_leaves_unlabelled_crystals_out() -> None:
    predicted, actual = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.5, np.nan, 2.0, 4.0])
    figure: Any = parity_figure(predicted, actual, label="gap (eV)", ids=["a", "b", "c", "d"], baseline=1.25)
    diagonal, points = figure.data
    assert list(points.x) == [1.5, 2.0, 4.0] and list(points.y) == [1.0, 3.0, 4.0]
    assert list(points.text) == ["a", "c", "d"]
    assert figure.layout.title.text == "MAE 0.5, predicting the training mean 1.25"
    assert figure.layout.xaxis.title.text == "actual gap (eV)"
    # By hand: errors -0.5, 1 and 0; labels 1.5, 2 and 4 with the mean 2.5.
    (scores,) = figure.layout.annotations
    assert scores.text == f"n = 3<br>RMSE {np.sqrt(1.25 / 3):.3g}<br>R² {1 - 1.25 / 3.5:.3f}"
    assert list(diagonal.x) == list(diagonal.y) and diagonal.x[0] < 1.0 and diagonal.x[1] > 4.0


def test_names_of_targets_are_words() -> None:
    figure: Any = parity_figure(np.array([1.0]), np.array([1.5]), label="formation_energy_per_atom (eV/atom)")
    assert figure.layout.yaxis.title.text == "predicted formation energy <i>E</i><sub>f</sub> (eV/atom)"
    assert figure.layout.annotations[0].text == "n = 1<br>RMSE 0.5"
    history = pd.DataFrame({"epoch": [1], "train_mae/band_gap": [1.0]})
    assert learning_curve(history, "band_gap").layout.title.text == "band gap"


def test_learning_curve() -> None:
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "train_mae/gap": [1.0, 0.5, 0.25],
            "validation_mae/gap": [1.2, 0.6, 0.4],
            "swa_validation_mae/gap": [np.nan, np.nan, 0.3],
            "validation_mae/hull": [9.0, 9.0, 9.0],
        }
    )
    figure: Any = learning_curve(history, "gap", unit="eV", baseline=2.0)
    train, validation, averaged, baseline = figure.data
    assert [t.name for t in figure.data[:3]] == ["train", "validation", "swa validation"]
    assert len({curve.marker.symbol for curve in figure.data[:3]}) == 3  # told apart in grey
    assert list(train.y) == [1.0, 0.5, 0.25] and list(validation.x) == [1, 2, 3]
    assert list(averaged.x) == [3] and list(averaged.y) == [0.3]
    assert list(baseline.y) == [2.0, 2.0] and list(baseline.x) == [1, 3]
    assert figure.layout.yaxis.type == "log" and figure.layout.yaxis.title.text == "MAE (eV)"


def test_monitor_grows_with_every_row() -> None:
    monitor = TrainingMonitor("gap", unit="eV", baseline=2.0)
    assert monitor.figure is None
    for epoch in (1, 2, 3):
        monitor({"epoch": epoch, "train_mae/gap": 1 / epoch, "validation_mae/gap": 2 / epoch, "seconds": 0.1})
    figure: Any = monitor.figure
    assert list(figure.data[0].y) == [1.0, 1 / 2, 1 / 3]
    (output,) = monitor.widget.outputs
    assert [trace["name"] for trace in output["data"]["application/vnd.plotly.v1+json"]["data"]][:2] == [
        "train",
        "validation",
    ]
