"""Sliders and live curves for notebooks: they move an index or take a row, and call the builders.

Figures go to Output widgets, and the notebook's own plotly renderer draws them. A plotly FigureWidget would send 5 MB
of JavaScript of its own, and stays blank where the browser needs more than 2 s to load that: on a machine that trains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crystalframer.trace import CrystalTrace
from viz.attention_figures import attention_figure
from viz.drawing import Drawing, Frames, drawing
from viz.scene import scene_from_trace
from viz.structure_view import put, structure_view
from viz.training_figures import learning_curve

if TYPE_CHECKING:
    import ipywidgets
    import plotly.graph_objects as go

MEAN = "mean"
"""Value of the head slider that averages over heads."""
WIDTH, HEIGHT = 480, 540
"""Pixels of the structure; the figure beside it is as high."""
FIGURE_WIDTH = 420
"""Pixels. Structure and figure fit side by side into JupyterLab on a laptop, its file list open."""

# A value can be set before the sliders are shown, and a page that is loaded again runs this before the viewer is there.
_WHEN_SHOWN = """<script>
(function draw() {{
    const viewer = window.{viewer};
    if (!viewer) {{ setTimeout(draw, 50); return; }}
    {commands}
    viewer.render();
}})();
</script>"""


class AttentionSliders:
    """Step through layers, heads and atoms: the crystal, the attention heatmap and attention against distance follow.

    Name it on the last line of a cell to show it. `layer_slider`, `head_slider` and `atom_choice` are ipywidgets whose
    `value` can be set and observed; the head `"mean"` averages over heads.
    """

    def __init__(self, trace: CrystalTrace, *, frames: Frames = "all", n_lines: int = 12) -> None:
        """Args: frames: whose axes to draw. n_lines: attention lines to draw."""
        import ipywidgets as widgets

        self.scene = scene_from_trace(trace)
        self._frames: Frames = frames
        self._n_lines = n_lines
        self.layer_slider = widgets.SelectionSlider(
            options=range(self.scene.n_layers), description="Layer", tooltip="Attention layer, counted from 0"
        )
        self.head_slider = widgets.SelectionSlider(
            options=[*((str(head), head) for head in range(self.scene.n_heads)), (MEAN, MEAN)],
            value=0,
            description="Head",
            tooltip="Attention head, counted from 0, or the mean over heads",
        )
        self.atom_choice = widgets.Dropdown(
            options=[(label, atom) for atom, label in enumerate(self.scene.labels)],
            description="Atom",
            tooltip="Query atom: its strongest attention lines are drawn",
        )
        self.caption = widgets.HTML()
        self._figure = widgets.Output()
        self._view = structure_view(self.scene, *self.state, frames=frames, n_lines=n_lines, width=WIDTH, height=HEIGHT)
        self._start_script = self._view.startjs
        self._structure = widgets.Output(layout={"width": f"{WIDTH + 20}px"})
        self._script = widgets.Output(layout={"display": "none"})
        with self._structure:
            self._view.show()
        self._draw_figure()
        controls = (self.layer_slider, self.head_slider, self.atom_choice)
        for control in controls:
            control.observe(self._redraw, names="value")
        pictures = widgets.HBox([self._structure, self._figure], layout={"flex_flow": "row wrap"})
        row = widgets.HBox(controls, layout={"flex_flow": "row wrap"})
        self.widget = widgets.VBox([row, self.caption, pictures, self._script])

    @property
    def state(self) -> tuple[int, int | None, int]:
        """Layer, head (None: mean over heads) and atom that are shown."""
        atom = self.atom_choice.value
        assert isinstance(atom, int)  # the list of atoms always has one selected
        head = self.head_slider.value
        return self.layer_slider.value, None if head == MEAN else head, atom

    def _redraw(self, change: Any) -> None:
        put(self._view, self._shapes())
        name = self._view.uniqueid
        assert name  # the view got it when it was put into its Output
        commands = self._view.updatejs.replace("UNIQUEID", name)
        # A view adds every command to the script it would start with; that script stays the first picture.
        self._view.startjs, self._view.updatejs = self._start_script, ""
        _show(self._script, {"text/html": _WHEN_SHOWN.format(viewer=f"viewer_{name}", commands=commands)})
        self._draw_figure()

    def _draw_figure(self) -> None:
        self.figure = attention_figure(self.scene, *self.state, width=FIGURE_WIDTH, height=HEIGHT)
        _show(self._figure, _plotly(self.figure))
        # Room for two lines, so that the pictures stay in place when the text grows.
        style = "display: block; line-height: 18px; min-height: 36px"
        self.caption.value = f'<span aria-live="polite" style="{style}">{self._shapes().caption}</span>'

    def _shapes(self) -> Drawing:
        return drawing(self.scene, *self.state, frames=self._frames, n_lines=self._n_lines)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget._repr_mimebundle_(**options)


class TrainingMonitor:
    """Learning curve that grows while training runs: call it with each epoch's row of errors.

    Name it on the last line of a cell to show it, then train in the next one. With Lightning's `LambdaCallback`:

        live = LambdaCallback(on_validation_end=lambda trainer, task: monitor(task.history[-1]))
        result = crystalframer.fit(config, callbacks=[live])
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
        _show(self.widget, _plotly(self.figure))

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget._repr_mimebundle_(**options)


def _plotly(figure: go.Figure) -> dict[str, Any]:
    return {"application/vnd.plotly.v1+json": json.loads(str(figure.to_json()))}


def _show(output: ipywidgets.Output, data: Mapping[str, Any]) -> None:
    """Make a MIME bundle the only content of an Output widget."""
    output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)
