"""One site as several frame methods see it, as a widget for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from crystalframer.traces import CrystalTrace
from viz.encoding import encode
from viz.explorer_page import frontend_script, frontend_style, starting_view
from viz.scene import scene_from_trace
from viz.structure_figures import check_same_crystal, frame_comparison_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FrameComparison(anywidget.AnyWidget):
    """A picture in 3D for each model of one crystal: its frame on one site, moved and turned together.

    Name it on the last line of a cell to show it. `layer`, `head` and `atom` can be set and observed; counted from 0.
    Heads of different models have nothing in common but their number. Everything is sent once and drawn by the browser,
    without the kernel: six methods step about nine times as fast as `frame_comparison_figure` draws them. That one is
    for paper; `figure()` makes it of what is chosen.

    Example:
        >>> comparison = viz.FrameComparison({"max": trace, "again": trace}, atom=1)
        >>> comparison.layer, comparison.head = 2, 3
        >>> [panel.get_title() for panel in comparison.figure().axes]
        ['max, layer 2, head 3', 'max, layer 2, head 3']
    """

    _esm = frontend_script("comparison.js")
    _css = frontend_style()
    headers = traitlets.List(traitlets.Dict()).tag(sync=True)
    data = traitlets.List(traitlets.Bytes()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    sizes = traitlets.Dict().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)
    n_lines = traitlets.Int(8, min=0).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    atom = traitlets.Int(0).tag(sync=True)

    def __init__(
        self, traces: Mapping[str, CrystalTrace], *, layer: int = 0, head: int = 0, atom: int = 0, n_lines: int = 8
    ) -> None:
        """Everything that the comparison can show goes to the browser here, once.

        Args:
            traces: name, such as the frame method → trace of the same structure. Layers and heads that one of them
                lacks are not shown of any.
            layer: counted from 0.
            head: counted from 0.
            atom: the site, counted from 0.
            n_lines: attention lines to draw (more if some tie with the last).

        Raises:
            SceneError: no trace, or traces of different crystals.
            TraitError: no such layer, head or atom; the message names the range.
        """
        self.scenes = [scene_from_trace(trace) for trace in traces.values()]
        check_same_crystal(self.scenes)
        encoded = [encode(scene) for scene in self.scenes]
        self._ranges = {
            "layer": min(scene.n_layers for scene in self.scenes),
            "head": min(scene.n_heads for scene in self.scenes),
            "atom": self.scenes[0].n_queries,
        }
        super().__init__(
            headers=[header for header, _ in encoded],
            data=[data for _, data in encoded],
            names=list(traces),
            sizes=self._ranges,
            view=starting_view(),
            layer=layer,
            head=head,
            atom=atom,
            n_lines=n_lines,
        )

    @traitlets.validate("layer", "head", "atom")
    def _exists(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        if not 0 <= value < self._ranges[name]:
            raise traitlets.TraitError(f"no {name} {value} in every trace; choose from 0 to {self._ranges[name] - 1}")
        return value

    def figure(self, **options: Any) -> Figure:
        """What is chosen as a figure for paper; options of `frame_comparison_figure`, such as `width`."""
        return frame_comparison_figure(
            self.scenes, self.atom, layers=(self.layer,), head=self.head, n_lines=self.n_lines, **options
        )
