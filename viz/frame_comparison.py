"""One site in several models side by side, as a widget for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import traitlets

from crystalframer.traces import CrystalTrace
from viz.encoding import encode
from viz.errors import check_index
from viz.explorer import CrystalWidget
from viz.explorer_page import frontend_script, frontend_style
from viz.scene import scene_from_trace
from viz.structure_figures import check_same_crystal, frame_comparison_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FrameComparison(CrystalWidget):
    """Compare the frames of one site in several models: one 3D picture for each, all turned together.

    Write the comparison on the last line of a cell to show it. Its attributes `layer`, `head` and `atom` can be set and
    observed; they are counted from 0. Heads with the same number in different models are not related. All data are sent
    to the browser once, so the sliders need no kernel. `figure()` makes a still picture of what is chosen.

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
    head = traitlets.Int(0).tag(sync=True)

    def __init__(
        self, traces: Mapping[str, CrystalTrace], *, layer: int = 0, head: int = 0, atom: int = 0, n_lines: int = 8
    ) -> None:
        """Make the comparison.

        Args:
            traces: name of each model, such as its frame method → trace of the same structure. Only layers and heads
                that all models have can be chosen.
            layer: counted from 0.
            head: counted from 0.
            atom: the site, counted from 0.
            n_lines: number of attention lines, strongest first; more if some tie with the last.

        Raises:
            SceneError: there is no trace, or the traces are of different crystals.
            ChoiceError: there is no such layer, head or atom. It is a SceneError and a TraitError.
        """
        self.scenes = [scene_from_trace(trace) for trace in traces.values()]
        check_same_crystal(self.scenes)
        encoded = [encode(scene) for scene in self.scenes]
        sizes = {
            "layer": min(scene.n_layers for scene in self.scenes),
            "head": min(scene.n_heads for scene in self.scenes),
            "atom": self.scenes[0].n_queries,
        }
        super().__init__(
            headers=[header for header, _ in encoded],
            data=[data for _, data in encoded],
            names=list(traces),
            sizes=sizes,
            layer=layer,
            head=head,
            atom=atom,
            n_lines=n_lines,
        )

    def _check(self, name: str, value: Any) -> None:
        check_index(name, value, self.sizes[name], of="all traces")

    def figure(self, **options: Any) -> Figure:
        """A still picture of what is chosen. `options` are those of `frame_comparison_figure`, such as `width`."""
        return frame_comparison_figure(
            self.scenes, self.atom, layers=(self.layer,), head=self.head, n_lines=self.n_lines, **options
        )
