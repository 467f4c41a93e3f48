"""The training monitor grows with every row."""

from __future__ import annotations

from typing import Any

from viz import TrainingMonitor

PLOTLY = "application/vnd.plotly.v1+json"


def test_monitor_grows_with_every_row() -> None:
    monitor = TrainingMonitor("gap", unit="eV", baseline=2.0)
    assert monitor.figure is None
    for epoch in (1, 2, 3):
        monitor({"epoch": epoch, "train_mae/gap": 1 / epoch, "validation_mae/gap": 2 / epoch, "seconds": 0.1})
    figure: Any = monitor.figure
    assert list(figure.data[0].y) == [1.0, 1 / 2, 1 / 3]
    (output,) = monitor.widget.outputs
    assert [trace["name"] for trace in output["data"][PLOTLY]["data"]][:2] == ["train", "validation"]
