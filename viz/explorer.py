"""The explorer as a widget for notebooks: everything is sent once, and moving a slider needs no kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import anywidget
import traitlets

from crystalframer.traces import CrystalTrace
from viz.drawings import Frames, Polyhedra
from viz.encoding import encode
from viz.explorer_page import explorer_html, fitting, frontend_script, frontend_style, starting_view
from viz.scene import Scene, SceneError, scene_from_trace


class AttentionExplorer(anywidget.AnyWidget):
    """Step through layers, heads and atoms: the crystal, the attention heatmap and attention against distance follow.

    Name it on the last line of a cell to show it. `layer`, `head` (None: mean over heads), `atom`, `frames` and
    `polyhedra` can be set and observed; counted from 0. The sliders need no kernel once it is shown.

    Example:
        >>> explorer = viz.AttentionExplorer(trace)
        >>> explorer.layer, explorer.atom = 1, 2
        >>> explorer.observe(lambda change: print(change["new"]), "atom")
        >>> page = explorer.to_html()
    """

    _esm = frontend_script()
    _css = frontend_style()
    header = traitlets.Dict().tag(sync=True)
    data = traitlets.Bytes().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)
    n_lines = traitlets.Int(12, min=0).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0, allow_none=True).tag(sync=True)
    atom = traitlets.Int(0).tag(sync=True)
    frames = traitlets.Enum(get_args(Frames), "all").tag(sync=True)
    polyhedra = traitlets.Enum(get_args(Polyhedra), "all").tag(sync=True)

    def __init__(
        self,
        trace: CrystalTrace | Scene,
        *,
        layer: int = 0,
        head: int | None = 0,
        atom: int = 0,
        frames: Frames | None = None,
        polyhedra: Polyhedra | None = None,
        n_lines: int = 12,
    ) -> None:
        """Everything that the explorer can show goes to the browser here, once.

        Args:
            trace: of `crystalframer.trace`, or one loaded from disk; or a scene made of one.
            layer: counted from 0.
            head: counted from 0; None for the mean over heads.
            atom: the query atom, counted from 0.
            frames: whose axes to draw; None: of all atoms, beyond 40 atoms of the chosen one.
            polyhedra: around which atoms to draw them (only metals have one); None: as `frames`.
            n_lines: attention lines to draw (more if some tie with the last).

        Raises:
            TraitError: no such layer, head or atom, or no such choice; the message names the range.
        """
        self.scene = trace if isinstance(trace, Scene) else scene_from_trace(trace)
        header, data = encode(self.scene)
        super().__init__(
            header=header,
            data=data,
            view=starting_view(),
            layer=layer,
            head=head,
            atom=atom,
            frames=frames or fitting(self.scene),
            polyhedra=polyhedra or fitting(self.scene),
            n_lines=n_lines,
        )

    @traitlets.validate("layer", "head", "atom")
    def _exists(self, proposal: Any) -> int | None:
        name, value = proposal["trait"].name, proposal["value"]
        try:
            self.scene.check(**{"layer": 0, "head": 0, name: value})
        except SceneError as error:
            raise traitlets.TraitError(str(error)) from None
        return value

    def to_html(self, path: str | Path | None = None) -> str:
        """What is shown now as one HTML page, which needs neither a network nor Python; written to `path` if given."""
        page = explorer_html(
            self.scene,
            self.layer,
            self.head,
            self.atom,
            frames=self.frames,
            polyhedra=self.polyhedra,
            n_lines=self.n_lines,
        )
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page
