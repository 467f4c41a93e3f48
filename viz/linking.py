"""Links between widgets: what is selected in one is selected in the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import traitlets

from viz.errors import SceneError, check_option

if TYPE_CHECKING:
    from crystalframer.traces import CrystalTrace
    from viz.dataset_explorer import DatasetExplorer

CHOICES = ("crystal", "layer", "head", "atom")
"""What can be linked."""


class Link:
    """A link between widgets, made by `link`. It lasts until `unlink` is called.

    Example:
        >>> first, second = viz.AttentionExplorer(trace), viz.AttentionExplorer(trace)
        >>> linked = viz.link(first, second)
        >>> linked.unlink()
        >>> first.layer = 2
        >>> second.layer
        0
    """

    def __init__(self, widgets: Sequence[Any], choices: Sequence[str]) -> None:
        self.widgets = tuple(widgets)
        self.choices = tuple(choices)
        self._is_following = False
        self._observed: list[tuple[Any, Callable[[Any], None], str]] = []
        for widget in self.widgets:
            for choice in self.choices:
                name = "point" if choice == "crystal" else choice
                if widget.has_trait(name):
                    self._observe(widget, choice, name)
        for choice in self.choices:
            self._follow(self.widgets[0], choice)

    def unlink(self) -> None:
        """End the link. Each widget keeps what is selected now."""
        for widget, call, name in self._observed:
            widget.unobserve(call, name)
        self._observed = []

    def __repr__(self) -> str:
        return f"Link of {len(self.widgets)} widgets: {', '.join(self.choices) if self._observed else 'unlinked'}"

    def _observe(self, widget: Any, choice: str, name: str) -> None:
        def call(change: Any) -> None:
            self._follow(widget, choice)

        widget.observe(call, name)
        self._observed.append((widget, call, name))

    def _follow(self, source: Any, choice: str) -> None:
        """Let the others select what the source selects, unless the source is following itself."""
        if self._is_following:
            return
        self._is_following = True
        try:
            others = [widget for widget in self.widgets if widget is not source]
            if choice == "crystal":
                _show_crystal(source, others)
            for widget in others if source.has_trait(choice) else ():
                if widget.has_trait(choice):
                    _choose(widget, choice, getattr(source, choice))
        finally:
            self._is_following = False


def link(*widgets: Any, choices: Sequence[str] = CHOICES) -> Link:
    """Link what is selected in widgets: layer, head and atom, and the crystal of a `DatasetExplorer`.

    A widget follows only where it can: a head that it does not have is left out. The widgets take the selection of the
    first one. A crystal that is chosen in a `DatasetExplorer` opens in the linked `AttentionExplorer` (with the traces
    that the data set explorer was given) and is chosen in other data set explorers that have its id. Links work while
    the kernel of the notebook runs.

    Args:
        widgets: two or more of `AttentionExplorer`, `SideBySide`, `FrameComparison` and `DatasetExplorer`.
        choices: what is linked, of `crystal`, `layer`, `head` and `atom`.

    Raises:
        SceneError: fewer than two widgets, something that is no widget with a selection, or no such choice.

    Example:
        >>> first, second = viz.AttentionExplorer(trace), viz.AttentionExplorer(trace)
        >>> linked = viz.link(first, second, choices=["layer", "atom"])
        >>> first.layer, first.atom = 2, 3
        >>> second.layer, second.atom
        (2, 3)
    """
    for choice in choices:
        check_option("choices", choice, CHOICES)
    if len(widgets) < 2:
        raise SceneError("a link needs two widgets or more", field="widgets", value=widgets)
    for widget in widgets:
        if not isinstance(widget, traitlets.HasTraits) or not (widget.has_trait("atom") or widget.has_trait("point")):
            problem = f"a {type(widget).__name__} has no selection to link; give explorers and comparisons"
            raise SceneError(problem, field="widgets", value=widget)
    return Link(widgets, choices)


def _choose(widget: Any, choice: str, value: Any) -> None:
    """Select a layer, head or atom, if the widget has it."""
    try:
        setattr(widget, choice, value)
    except traitlets.TraitError:
        return


def _show_crystal(source: Any, others: Sequence[Any]) -> None:
    """Choose the crystal of a data set explorer in others, and open it, with the first trace that one of them has."""
    if not source.has_trait("point") or source.chosen is None:
        return
    knowing = [source]
    for widget in others:
        if widget.has_trait("point") and source.chosen in widget.points.ids:
            widget.chosen = source.chosen
            knowing.append(widget)
    opening = [widget for widget in others if hasattr(widget, "show")]
    trace = _first_trace(knowing) if opening else None
    for widget in opening if trace is not None else ():
        widget.show(trace)


def _first_trace(widgets: Sequence[DatasetExplorer]) -> CrystalTrace | None:
    traces = (widget.trace(widget.point) for widget in widgets)
    return next((trace for trace in traces if trace is not None), None)
