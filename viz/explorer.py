"""The explorer as a widget for notebooks. All data are sent to the browser once, so sliders need no kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import anywidget
import traitlets

from crystalframer.traces import CrystalTrace
from viz.drawings import Which
from viz.errors import SceneError, check_option
from viz.explorer_page import STARTING_VIEW, explorer_html, frontend_script, frontend_style, starting_state
from viz.scene import Scene, scene_from_trace


class ChoiceError(SceneError, traitlets.TraitError):
    """A widget has no such layer, head, atom or option. The message names what can be chosen."""


class CrystalWidget(anywidget.AnyWidget):
    """A widget with a layer, a head and an atom to choose. `_check` raises a SceneError for what cannot be chosen."""

    view = traitlets.Dict(STARTING_VIEW).tag(sync=True)
    n_lines = traitlets.Int(12, min=0).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    atom = traitlets.Int(0).tag(sync=True)

    def _check(self, name: str, value: Any) -> None:
        raise NotImplementedError

    @traitlets.validate("layer", "head", "atom", "frames", "polyhedra")
    def _accepted(self, proposal: Any) -> Any:
        try:
            self._check(proposal["trait"].name, proposal["value"])
        except SceneError as error:
            raise ChoiceError(error.message, field=error.field, value=error.value) from None
        return proposal["value"]


class AttentionExplorer(CrystalWidget):
    """Explore layers, heads and atoms: the crystal in 3D, the attention heatmap, and attention against distance.

    Write the explorer on the last line of a cell to show it. Its attributes `layer`, `head` (None: mean over heads),
    `atom`, `frames` and `polyhedra` can be set and observed; layers, heads and atoms are counted from 0. Once it is
    shown, the sliders need no kernel.

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
    head = traitlets.Int(0, allow_none=True).tag(sync=True)
    frames = traitlets.Unicode("all").tag(sync=True)
    polyhedra = traitlets.Unicode("all").tag(sync=True)

    def __init__(
        self,
        trace: CrystalTrace | Scene,
        *,
        layer: int = 0,
        head: int | None = 0,
        atom: int = 0,
        frames: Which | None = None,
        polyhedra: Which | None = None,
        n_lines: int = 12,
    ) -> None:
        """Make the explorer.

        Args:
            trace: a trace from `crystalframer.trace` or `CrystalTrace.load`, or a scene made from one.
            layer: counted from 0.
            head: counted from 0; None for the mean over heads.
            atom: the query atom, counted from 0.
            frames: atoms whose axes are drawn: `"selected"`, `"all"` or `"none"`. None: all atoms, or only the selected
                atom in cells of more than 40 atoms.
            polyhedra: atoms around which polyhedra are drawn, as for `frames`; only metals have one.
            n_lines: number of attention lines, strongest first; more if some tie with the last.

        Raises:
            ChoiceError: there is no such layer, head, atom or option. It is a SceneError and a TraitError.
        """
        self.scene = trace if isinstance(trace, Scene) else scene_from_trace(trace)
        state = starting_state(self.scene, frames=frames, polyhedra=polyhedra)
        super().__init__(**state, layer=layer, head=head, atom=atom, n_lines=n_lines)

    def _check(self, name: str, value: Any) -> None:
        if name in ("frames", "polyhedra"):
            check_option(name, value, get_args(Which))
        else:
            self.scene.check(**{"layer": 0, "head": 0, name: value})

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the explorer as it is shown now, as one HTML page (see `explorer_html`). Also write it to `path`."""
        names = ("layer", "head", "atom", "frames", "polyhedra", "n_lines")
        page = explorer_html(self.scene, **{name: getattr(self, name) for name in names})
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page
