"""Views side by side, as a widget for notebooks: of several models, structures, layers, heads or atoms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import traitlets

from viz.encoding import encode
from viz.errors import SceneError, check_index, check_option
from viz.explorer import MOST_PAINTED, CrystalWidget
from viz.explorer_page import frontend_script, frontend_style, widget_page
from viz.first_sight import find_atom
from viz.opening import opened
from viz.pages import written
from viz.saved_outputs import HIDES_COPY, SavedWidget, png_in_base64
from viz.structure_figures import is_same_crystal, structure_figure
from viz.text import where

CHOICES = ("layer", "head", "atom")
PANEL = 3.5
"""Width of a view in a still picture, inches."""


class SideBySide(SavedWidget, CrystalWidget):
    """Compare views side by side: two heads, two structures or two models, all turned together.

    Write it on the last line of a cell to show it. All views have the same layer, head and atom, unless they get their
    own: `head=[0, 3]` gives one to each view. `layer`, `head`, `atom` and `own` can be set and observed. All data are
    sent to the browser once, so the sliders need no kernel.

    Example:
        >>> views = viz.SideBySide({"head 0": trace, "head 3": trace}, head=[0, 3], atom="Ti1")
        >>> views.own
        {'head': [0, 3]}
        >>> views.layer = 2
        >>> page = views.to_html()
    """

    _esm = frontend_script("comparison.js")
    _css = frontend_style() + HIDES_COPY
    title = "Views side by side"
    headers = traitlets.List(traitlets.Dict()).tag(sync=True)
    data = traitlets.List(traitlets.Bytes()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    sizes = traitlets.Dict().tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    own = traitlets.Dict().tag(sync=True)
    is_same = traitlets.Bool().tag(sync=True)

    def __init__(
        self,
        views: Mapping[str, Any] | Iterable[Any],
        *,
        layer: int | Iterable[int] = 0,
        head: int | Iterable[int] = 0,
        atom: int | str | Iterable[int | str] = 0,
        n_lines: int = 8,
    ) -> None:
        """Make the comparison.

        Args:
            views: name of each view → its trace (or whatever `AttentionExplorer` takes). The views of a list have the
                names of their crystals. Only layers, heads and atoms that all have can be chosen.
            layer: counted from 0; a list for one of each view.
            head: counted from 0; a list for one of each view.
            atom: its number, counted from 0, or its label (`"Ti2"`); a list for one of each view.
            n_lines: number of attention lines, strongest first; more if some tie with the last.

        Raises:
            SceneError: there is no view, or a list that has not one item for each view.
            ChoiceError: there is no such layer, head or atom. It is a SceneError and a TraitError.
        """
        named = dict(views) if isinstance(views, Mapping) else _named(list(views))
        self.scenes = [opened(view) for view in named.values()]
        if not self.scenes:
            raise SceneError("there is no view to compare; give at least one", field="scenes", value=named)
        encoded = [encode(scene) for scene in self.scenes]
        shared, own = {}, {}
        for name, value in zip(CHOICES, (layer, head, atom), strict=True):
            if isinstance(value, (str, int)) or not isinstance(value, Iterable):
                shared[name] = find_atom(self.scenes[0], value) if name == "atom" else value
            else:
                given = list(value)
                if name == "atom" and len(given) == len(self.scenes):
                    given = [find_atom(scene, one) for scene, one in zip(self.scenes, given, strict=True)]
                own[name] = given
        super().__init__(
            headers=[header for header, _ in encoded],
            data=[data for _, data in encoded],
            names=[str(name) for name in named],
            sizes={
                "layer": min(scene.n_layers for scene in self.scenes),
                "head": min(scene.n_heads for scene in self.scenes),
                "atom": min(scene.n_queries for scene in self.scenes),
            },
            is_same=all(is_same_crystal(self.scenes[0], scene) for scene in self.scenes[1:]),
            n_lines=n_lines,
            own=own,
            **shared,
        )

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the views as they are now, as one HTML page that needs no network. Also write it to `path`."""
        names = ("headers", "names", "sizes", "view", "n_lines", *CHOICES, "own", "is_same")
        state = {name: getattr(self, name) for name in names} | {"bytes": [len(part) for part in self.data]}
        title = ", ".join(self.names)
        page = widget_page(title, state, b"".join(self.data), frontend_script("comparison.js"), frontend_style())
        return written(page, path)

    def _still(self) -> str:
        """The views in a row: PNG in base64."""
        from matplotlib.figure import Figure

        if sum(scene.n_queries for scene in self.scenes) > MOST_PAINTED:
            return ""
        figure = Figure(figsize=(PANEL * len(self.scenes), PANEL), layout="constrained")
        panels = figure.subplots(1, len(self.scenes), squeeze=False)[0]
        for number, (panel, scene) in enumerate(zip(panels, self.scenes, strict=True)):
            layer, head, atom = (
                self.own[name][number] if name in self.own else getattr(self, name) for name in CHOICES
            )
            structure_figure(scene, layer, head, atom, n_lines=self.n_lines, ax=panel)
            panel.set_title(f"{self.names[number]}\n{scene.labels[atom]}, {where(layer, head)}", fontsize=10)
        return png_in_base64(figure)

    def _check(self, name: str, value: Any) -> None:
        if name != "own":
            return check_index(name, value, self.sizes[name], of="all views")
        for choice, given in value.items():
            check_option("own", choice, CHOICES)
            if len(given) != len(self.scenes):
                problem = f"{len(given)} for {len(self.scenes)} views; give one {choice} for each view"
                raise SceneError(problem, field=choice, value=given)
            for one in given:
                check_index(choice, one, self.sizes[choice], of="all views")


def _named(views: list[Any]) -> dict[str, Any]:
    """Scenes by the names of their crystals; equal names get a number."""
    scenes = [opened(view) for view in views]
    names = [scene.id or scene.formula for scene in scenes]
    return {
        name if names.count(name) == 1 else f"{name}, {number}": scene
        for number, (name, scene) in enumerate(zip(names, scenes, strict=True), start=1)
    }
