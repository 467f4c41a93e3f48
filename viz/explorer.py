"""The explorer as a widget for notebooks. All data are sent to the browser once, so sliders need no kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import anywidget
import traitlets

from crystalframer.explanations import Explanation
from crystalframer.traces import CrystalTrace
from viz.drawings import Which
from viz.errors import SceneError, check_option
from viz.explorer_page import (
    STARTING_VIEW,
    explorer_html,
    frontend_script,
    frontend_style,
    pinned_view,
    starting_state,
)
from viz.first_sight import CLEAREST, Head, clearest_head, find_atom
from viz.opening import opened
from viz.pages import written
from viz.saved_outputs import HIDES_COPY, SavedWidget, png_in_base64
from viz.scene import Scene
from viz.why import check_mode

if TYPE_CHECKING:
    import pandas

MOST_PAINTED = 150
"""Atoms. The still picture of a larger cell would take seconds, and show little."""


class ChoiceError(SceneError, traitlets.TraitError):
    """A widget has no such layer, head, atom or option. The message names what can be chosen."""


@contextmanager
def _choosing() -> Iterator[None]:
    """Turn a SceneError into a ChoiceError."""
    try:
        yield
    except SceneError as error:
        raise ChoiceError(error.message, field=error.field, value=error.value) from None


class CrystalWidget(anywidget.AnyWidget):
    """A widget with a layer, a head and an atom to choose. `_check` raises a SceneError for what cannot be chosen."""

    view = traitlets.Dict(STARTING_VIEW).tag(sync=True)
    n_lines = traitlets.Int(12, min=0).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    atom = traitlets.Int(0).tag(sync=True)

    def _check(self, name: str, value: Any) -> None:
        raise NotImplementedError

    @traitlets.validate("layer", "head", "atom", "frames", "polyhedra", "mode", "pinned", "own")
    def _accepted(self, proposal: Any) -> Any:
        with _choosing():
            self._check(proposal["trait"].name, proposal["value"])
        return proposal["value"]


class AttentionExplorer(SavedWidget, CrystalWidget):
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
    _css = frontend_style() + HIDES_COPY
    title = "Attention explorer"
    header = traitlets.Dict().tag(sync=True)
    data = traitlets.Bytes().tag(sync=True)
    head = traitlets.Int(0, allow_none=True).tag(sync=True)
    frames = traitlets.Unicode("all").tag(sync=True)
    polyhedra = traitlets.Unicode("all").tag(sync=True)
    mode = traitlets.Unicode("attention").tag(sync=True)
    display = traitlets.Dict().tag(sync=True)
    pinned = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        trace: CrystalTrace | Scene | Any,
        *,
        layer: int = 0,
        head: Head = CLEAREST,
        atom: int | str | None = None,
        frames: Which | None = None,
        polyhedra: Which | None = None,
        n_lines: int = 12,
        display: Mapping[str, Any] | None = None,
        explanation: Explanation | None = None,
        substitutions: pandas.DataFrame | None = None,
        site_values: Any = None,
        mode: str = "attention",
        pinned: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the explorer.

        Args:
            trace: a trace from `crystalframer.trace`, a file that holds one (.safetensors), or a scene. A structure, or
                the path of one, is traced with the shipped weights; of more than 1,000 atoms, those around one atom.
            layer: counted from 0.
            head: counted from 0; None for the mean over heads; `"clearest"` for the head in which least attention
                stays on the atom.
            atom: the query atom, its number (counted from 0) or its label (`"Ti2"`). None: the one that tells most, a
                metal in a polyhedron near the middle.
            frames: atoms whose axes are drawn: `"selected"`, `"all"` or `"none"`. None: all atoms, or only the selected
                atom in cells of more than 8 atoms.
            polyhedra: atoms around which polyhedra are drawn, as for `frames`; only centres have one. None: all atoms,
                or only the selected atom in cells of more than 40.
            n_lines: number of attention lines, strongest first; more if some tie with the last.
            display: what is drawn besides: `bonds`, `edges` (of the cell), `images` and `labels`, each true or false;
                `hidden`, symbols of elements; `repeats` of the cell, such as `[2, 2, 1]`; `color` of the atoms,
                `"element"`, `"contribution"` (with an explanation) or a name of `site_values`; `scale` of heatmap and
                lines, `"own"` of each head, `"fixed"` or `"log"`; `gradient` (arrows, with an explanation).
            explanation: from `crystalframer.explain`, of the same crystal and model. Lines then show relevance or the
                effect of removal, too; atoms can be coloured by their contribution.
            substitutions: from `crystalframer.substitute`: a periodic table, for the target of the explanation.
            mode: what lines and heatmap show: `"attention"`, `"relevance"` or `"removal"` (needs
                `crystalframer.explain(..., removals=12)`).
            site_values: numbers of the atoms that can colour them, such as charges or moments: a dictionary of name → a
                number for each atom, or a table with a row for each. A name may end in a unit, `"charge (e)"`.
            pinned: a second view beside the first, turned together with it: a dictionary of `layer`, `head` and `atom`.

        Raises:
            ChoiceError: there is no such layer, head, atom or option. It is a SceneError and a TraitError.
        """
        self.scene = opened(trace)
        self.explanation, self.substitutions, self.site_values = explanation, substitutions, site_values
        given = {"explanation": explanation, "substitutions": substitutions, "site_values": site_values}
        state = starting_state(self.scene, frames=frames, polyhedra=polyhedra, **given)
        state |= {"layer": layer, "atom": find_atom(self.scene, atom), "display": dict(display or {})}
        with _choosing():
            state["head"] = clearest_head(self.scene, layer, state["atom"]) if head == CLEAREST else head
            state["pinned"] = pinned_view(self.scene, pinned)
        super().__init__(**state, n_lines=n_lines, mode=mode)

    def show(self, trace: CrystalTrace | Scene | Any, explanation: Explanation | None = None) -> None:
        """Show another crystal. Layer and head stay, if it has them; its most telling atom is chosen.

        Args:
            trace: as for a new explorer.
            explanation: of this crystal.

        Raises:
            SceneError: the explanation is of another crystal.

        Example:
            >>> explorer = viz.AttentionExplorer(trace, layer=1)
            >>> explorer.show(trace)
            >>> explorer.layer
            1
        """
        scene = opened(trace)
        state = starting_state(scene, frames=None, polyhedra=None, explanation=explanation)
        atom, layer = find_atom(scene, None), min(self.layer, scene.n_layers - 1)
        head = self.head if self.head is None or self.head < scene.n_heads else clearest_head(scene, layer, atom)
        self.scene, self.explanation = scene, explanation
        self.substitutions = self.site_values = None
        mode = self.mode if explanation is not None and self.mode == "relevance" else "attention"
        display = {name: value for name, value in self.display.items() if name not in ("cell", "color", "hidden")}
        # One message, in which the browser finds the data last.
        with self.hold_sync():
            self.pinned = {}
            self.layer, self.head, self.atom, self.mode, self.display = layer, head, atom, mode, display
            for name in ("frames", "polyhedra", "header", "data"):
                setattr(self, name, state[name])

    def _check(self, name: str, value: Any) -> None:
        if name == "pinned":
            pinned_view(self.scene, value)
        elif name in ("frames", "polyhedra"):
            check_option(name, value, get_args(Which))
        elif name == "mode":
            check_mode(value, self.explanation)
        else:
            self.scene.check(**{"layer": 0, "head": 0, name: value})

    def to_html(self, path: str | Path | None = None, *, note: str = "") -> str:
        """Return the explorer as it is shown now, as one HTML page (see `explorer_html`).

        Args:
            path: where to write the page, too.
            note: a sentence above the explorer.
        """
        names = ("layer", "head", "atom", "frames", "polyhedra", "n_lines", "display", "mode")
        names += ("explanation", "substitutions", "site_values", "pinned")
        page = explorer_html(self.scene, **{name: getattr(self, name) for name in names}, note=note)
        return written(page, path)

    def _still(self) -> str:
        if self.scene.n_queries > MOST_PAINTED:
            return ""
        from viz.structure_figures import structure_figure

        chosen = {"frames": self.frames, "polyhedra": self.polyhedra, "n_lines": self.n_lines}
        return png_in_base64(structure_figure(self.scene, self.layer, self.head, self.atom, **chosen))
