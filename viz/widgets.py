"""Live curves for notebooks: they take a row and call the builders.

Figures go to Output widgets, and the notebook's own plotly renderer draws them. A plotly FigureWidget would send 5 MB
of JavaScript of its own, and stays blank where the browser needs more than 2 s to load that: on a machine that trains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from viz.training_figures import learning_curve

if TYPE_CHECKING:
    import ipywidgets
    import plotly.graph_objects as go


class TrainingMonitor:
    """Learning curve that grows while training runs: call it with each epoch's row of errors.

    Name it on the last line of a cell to show it, then train in the next one. With Lightning's `LambdaCallback`:

        live = LambdaCallback(on_validation_end=lambda trainer, task: monitor(task.history[-1]))
        result = crystalframer.fit(config, callbacks=[live])

    Example:
        >>> monitor = TrainingMonitor("band_gap", unit="eV", baseline=0.6)
        >>> monitor({"epoch": 1, "train_mae/band_gap": 0.8, "validation_mae/band_gap": 0.9})
        >>> [curve.name for curve in monitor.figure.data]
        ['train', 'validation', 'predicting the training mean']
    """

    def __init__(self, target: str, *, unit: str = "", baseline: float | None = None) -> None:
        """Args: target: name of the label. unit: of its errors. baseline: MAE of predicting the training mean."""
        import ipywidgets as widgets

        self.rows: list[dict[str, float | int]] = []
        self.figure: go.Figure | None = None
        """The curve so far; None before the first epoch."""
        self._target, self._unit, self._baseline = target, unit, baseline
        self.widget = widgets.Output(layout={"min_height": "400px"})

    def __call__(self, row: Mapping[str, float | int]) -> None:
        """Add an epoch: `epoch` and `<part>_mae/<target>` for each part."""
        import pandas as pd

        self.rows.append(dict(row))
        self.figure = learning_curve(pd.DataFrame(self.rows), self._target, unit=self._unit, baseline=self._baseline)
        show_in(self.widget, plotly_bundle(self.figure))

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget._repr_mimebundle_(**options)


def plotly_bundle(figure: go.Figure) -> dict[str, Any]:
    """A figure as the MIME bundle that notebooks draw themselves."""
    return {"application/vnd.plotly.v1+json": json.loads(str(figure.to_json()))}


def show_in(output: ipywidgets.Output, data: Mapping[str, Any]) -> None:
    """Make a MIME bundle the only content of an Output widget."""
    output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)
