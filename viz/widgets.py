"""Learning curves that grow in a notebook while training runs.

Figures are put into Output widgets and drawn by the plotly renderer of the notebook. A plotly FigureWidget would send
5 MB of JavaScript, and stay blank if the browser needs more than 2 s to load that, as it may during training.
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
    """A learning curve that grows while training runs. Call it with the errors of each epoch.

    Write the monitor on the last line of a cell to show it, then train in the next cell. With `LambdaCallback` of
    Lightning:

        live = LambdaCallback(on_validation_end=lambda trainer, task: monitor(task.history[-1]))
        result = crystalframer.fit(config, callbacks=[live])

    Example:
        >>> monitor = TrainingMonitor("band_gap", unit="eV", baseline=0.6)
        >>> monitor({"epoch": 1, "train_mae/band_gap": 0.8, "validation_mae/band_gap": 0.9})
        >>> [curve.name for curve in monitor.figure.data]
        ['train', 'validation', 'predicting the training mean']
    """

    def __init__(self, target: str, *, unit: str = "", baseline: float | None = None) -> None:
        """Make an empty curve.

        Args:
            target: name of the target.
            unit: unit of the errors.
            baseline: MAE if the mean of the training set is always predicted, drawn as a dashed line.
        """
        import ipywidgets as widgets

        self.rows: list[dict[str, float | int]] = []
        self.figure: go.Figure | None = None
        """The curve so far; None before the first epoch."""
        self._target, self._unit, self._baseline = target, unit, baseline
        self.widget = widgets.Output(layout={"min_height": "400px"})

    def __call__(self, row: Mapping[str, float | int]) -> None:
        """Add an epoch: `epoch` and `<split>_mae/<target>` for each split."""
        import pandas as pd

        self.rows.append(dict(row))
        self.figure = learning_curve(pd.DataFrame(self.rows), self._target, unit=self._unit, baseline=self._baseline)
        show_in(self.widget, plotly_bundle(self.figure))

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget._repr_mimebundle_(**options)


def plotly_bundle(figure: go.Figure) -> dict[str, Any]:
    """A figure as a MIME bundle that notebooks draw."""
    return {"application/vnd.plotly.v1+json": json.loads(str(figure.to_json()))}


def show_in(output: ipywidgets.Output, data: Mapping[str, Any]) -> None:
    """Replace the content of an Output widget by a MIME bundle."""
    output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)
